"""A token bucket by a steady clock: so many at once, so many per second."""

from typing import final


@final
class Bucket:
    """Holds up to ``burst`` tokens, and ``rate`` more come each second. It begins full."""

    __slots__ = ("_at_s", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at_s = 0.0

    def take(self, now_s: float, *, spare: float = 0.0) -> bool:
        """Take one token, if there is one, or with ``spare`` if no more than that are owed."""
        tokens = self._tokens + max(0.0, now_s - self._at_s) * self._rate
        tokens = min(tokens, self._burst)
        self._at_s = now_s
        if tokens + spare < 1.0:
            self._tokens = tokens
            return False
        self._tokens = tokens - 1.0
        return True
