"""What the broker does when memory is short: who brings most is not read, nothing is stored.

How much memory there is, and from when on it is short, is for ``net/overload.py`` to say.
"""

from typing import Final, final

from holdfast.broker.connection import CLOSED, CONNECTED, Connection
from holdfast.broker.counters import Counters
from holdfast.broker.events import INFO, WARNING, Event
from holdfast.broker.space import LogSpace

# How short memory is. From ACCEPT on no connection is let in, which is done elsewhere.
ENOUGH: Final = 0
ACCEPT: Final = 1
READ: Final = 2  # the fastest publishers are not read
STORE: Final = 3  # messages that have to be stored are refused

FAST_BYTES: Final = 16 * 1024  # who brought less between two looks is none of the fastest


@final
class Pressure:
    """Acts on each look at the memory."""

    def __init__(
        self,
        connections: dict[int, Connection],
        space: LogSpace,
        counters: Counters,
        events: list[Event],
    ) -> None:
        self._connections = connections
        self._space = space
        self._counters = counters
        self._events = events
        self._seen: dict[int, int] = {}  # bytes that had come at the look before, by connection
        self._throttled: list[Connection] = []

    def note(self, stage: int) -> None:
        """Take note how short memory is, some times a second as long as it is."""
        self._space.note_memory(stage >= STORE)
        if stage >= READ and self._seen:
            self._throttle()
        elif stage < READ and self._throttled:
            for connection in self._throttled:
                connection.is_throttled = False
            text = f"publishers are read again: {len(self._throttled)}"
            self._events.append(Event(INFO, text, "", ""))
            self._throttled = []
        self._seen = {}
        if stage > ENOUGH:
            for number, connection in self._connections.items():
                self._seen[number] = connection.input_bytes

    def _throttle(self) -> None:
        """Stop reading those who brought half of what has come since the last look."""
        # Who has gone is not to be kept, with what it had sent, just while memory is short.
        self._throttled = [one for one in self._throttled if one.state != CLOSED]
        brought: list[tuple[int, int]] = []
        total = 0
        for number, connection in self._connections.items():
            size = connection.input_bytes - self._seen.get(number, 0)
            if connection.state == CONNECTED and not connection.is_throttled and size >= FAST_BYTES:
                brought.append((size, number))
                total += size
        brought.sort()
        stopped = count = 0
        while brought and 2 * stopped < total:
            size, number = brought.pop()
            stopped += size
            count += 1
            connection = self._connections[number]
            connection.is_throttled = True
            self._throttled.append(connection)
        if count > 0:
            self._counters.throttled += count
            text = f"memory is short: the fastest publishers are not read for now: {count}"
            self._events.append(Event(WARNING, text, "", ""))
