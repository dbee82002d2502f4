"""One log line per burst: what comes a thousand times in a second is said once, and counted."""

from collections.abc import Callable
from typing import Final, final

from holdfast.logs import Log

QUIET_S: Final = 10.0  # after a line, before another one of its kind


@final
class BurstLog:
    """Warnings of a few kinds, each at most once in QUIET_S; ``clock_s`` is steady time.

    A line says how many of its kind were passed over since the one before.
    """

    def __init__(self, log: Log, clock_s: Callable[[], float]) -> None:
        self._log = log
        self._clock_s = clock_s
        self._kinds: dict[str, tuple[float, int]] = {}  # when said last, and how many since

    def warning(self, kind: str, message: str, **fields: object) -> None:
        now_s = self._clock_s()
        said_s, passed_over = self._kinds.get(kind, (now_s - QUIET_S, 0))
        if now_s - said_s < QUIET_S:
            self._kinds[kind] = (said_s, passed_over + 1)
            return
        self._kinds[kind] = (now_s, 0)
        if passed_over:
            fields["more_before"] = passed_over
        self._log.warning(message, **fields)
