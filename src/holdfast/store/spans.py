"""Stretches of the log that a read covers, and how much of it one read takes."""

from typing import Final, final

from holdfast.message import content_bytes
from holdfast.store.records import OPEN, FilterSpan, LogEntry, LogSlice, ReadRequest

Interval = tuple[int, int]  # from inclusive, until exclusive


def clipped(span: FilterSpan, request: ReadRequest) -> Interval | None:
    """The part of a span that lies in what is asked for; None if there is none."""
    low = max(span.from_lsn, request.position)
    high = request.end if span.until_lsn == OPEN else min(span.until_lsn, request.end)
    return (low, high) if low < high else None


def merged(intervals: list[Interval]) -> list[Interval]:
    """The same stretches in ascending order, without overlaps."""
    if len(intervals) < 2:
        return intervals
    ordered = sorted(intervals)
    found = [ordered[0]]
    for low, high in ordered[1:]:
        last_low, last_high = found[-1]
        if low > last_high:
            found.append((low, high))
        elif high > last_high:
            found[-1] = (last_low, high)
    return found


@final
class SliceBuilder:
    """Collects the entries of a LogSlice up to the limits of its request."""

    def __init__(self, request: ReadRequest) -> None:
        assert request.messages_max >= 1
        assert request.bytes_max >= 1
        self._request: Final = request
        self._entries: list[LogEntry] = []
        self._bytes = 0
        self._stopped_at: int | None = None

    @property
    def messages_left(self) -> int:
        return self._request.messages_max - len(self._entries)

    @property
    def bytes_left(self) -> int:
        return self._request.bytes_max - self._bytes

    def add(self, entry: LogEntry) -> bool:
        """Take the next matching entry: False if it is beyond the limits, and so all after it."""
        size = content_bytes(entry.message)
        if self._entries and (self.messages_left == 0 or size > self.bytes_left):
            self._stopped_at = entry.lsn
            return False
        self._entries.append(entry)
        self._bytes += size
        return True

    def finish(self, examined_until: int) -> LogSlice:
        """The slice, if all that matches below ``examined_until`` was offered to ``add``."""
        position = examined_until if self._stopped_at is None else self._stopped_at
        return LogSlice(self._entries, position)
