"""One heap for everything that happens at a time: time-outs, keep alives, expiry, wills."""

import heapq
from typing import Final, final

CONNECT_TIMEOUT: Final = 0  # of a connection, by its number
KEEP_ALIVE: Final = 1
SESSION_EXPIRY: Final = 2  # of a session, by its number
WILL_DUE: Final = 3
LAZY_COMMIT: Final = 4
SYS_TOPICS: Final = 5


@final
class Deadlines:
    """Entries (due, kind, number). One that no longer holds is not taken out: its taker checks."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, int]] = []

    @property
    def next_ms(self) -> int:
        """When the first is due, as Unix time; -1 if there is none."""
        return self._heap[0][0] if self._heap else -1

    def add(self, due_ms: int, kind: int, number: int) -> None:
        heapq.heappush(self._heap, (due_ms, kind, number))

    def take_due(self, now_ms: int) -> tuple[int, int, int] | None:
        """The first entry that is due, or None."""
        if not self._heap or self._heap[0][0] > now_ms:
            return None
        return heapq.heappop(self._heap)
