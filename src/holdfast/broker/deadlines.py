"""One heap for everything that happens at a time: time-outs, keep alives, expiry, wills."""

import heapq
from typing import Final, final

CONNECT_TIMEOUT: Final = 0  # of a connection, by its number
KEEP_ALIVE: Final = 1
SESSION_EXPIRY: Final = 2  # of a session, by its number
WILL_DUE: Final = 3
LAZY_COMMIT: Final = 4
SYS_TOPICS: Final = 5
DELAYED_DUE: Final = 6  # of the earliest delayed message, with the number 0
IDENTITY_EXPIRY: Final = 7  # of what an authenticator granted a connection, by its number
PUBLISH_ROOM: Final = 8  # a connection that was held back may go on, by its number


@final
class Deadlines:
    """Entries (due, kind, number). One that no longer holds is not taken out: its taker checks.

    So whoever adds entries that lie far ahead must ``replace`` them by those that hold, at times.
    ``delayed_ms`` is the one entry of DELAYED_DUE, -1 for none: it moves, and does not add up.
    """

    def __init__(self) -> None:
        self.delayed_ms = -1
        self._heap: list[tuple[int, int, int]] = []

    @property
    def count(self) -> int:
        """How many entries there are, those that no longer hold included."""
        return len(self._heap)

    @property
    def entries(self) -> list[tuple[int, int, int]]:
        """All of them, in no order; the list is the caller's."""
        return self._heap.copy()

    def replace(self, entries: list[tuple[int, int, int]]) -> None:
        """Keep these alone. The list is kept, not copied."""
        heapq.heapify(entries)
        self._heap = entries

    @property
    def next_ms(self) -> int:
        """When the first is due, as Unix time; -1 if there is none."""
        delayed_ms = self.delayed_ms
        if not self._heap:
            return delayed_ms
        due_ms = self._heap[0][0]
        return delayed_ms if 0 <= delayed_ms < due_ms else due_ms

    def add(self, due_ms: int, kind: int, number: int) -> None:
        heapq.heappush(self._heap, (due_ms, kind, number))

    def take_due(self, now_ms: int) -> tuple[int, int, int] | None:
        """The first entry that is due, or None."""
        due_ms = self.next_ms
        if due_ms < 0 or due_ms > now_ms:
            return None
        if due_ms == self.delayed_ms:
            self.delayed_ms = -1
            return due_ms, DELAYED_DUE, 0
        return heapq.heappop(self._heap)
