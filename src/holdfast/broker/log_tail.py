"""The newest entries of the log, in memory: all that are uncommitted and a bounded rest."""

from typing import final

from holdfast.broker.limits import TAIL_BYTES_MAX, TAIL_ENTRIES_MAX
from holdfast.message import message_bytes
from holdfast.store.records import LogEntry


@final
class LogTail:
    """Entries ``first`` <= lsn < the next one, without a gap."""

    def __init__(self, next_lsn: int) -> None:
        self.first = next_lsn
        self._entries: list[LogEntry] = []
        self._bytes = 0

    def append(self, entry: LogEntry) -> None:
        self._entries.append(entry)
        self._bytes += message_bytes(entry.message)

    def get(self, lsn: int) -> LogEntry:
        """The entry of an lsn that is not below ``first``."""
        entry = self._entries[lsn - self.first]
        assert entry.lsn == lsn
        return entry

    def let_go(self, durable_end: int) -> None:
        """Let the oldest go, of the entries below ``durable_end``, until the rest is in bounds."""
        entries = self._entries
        count = len(entries)
        gone = 0
        while (
            gone < count
            and self.first + gone < durable_end
            and (count - gone > TAIL_ENTRIES_MAX or self._bytes > TAIL_BYTES_MAX)
        ):
            self._bytes -= message_bytes(entries[gone].message)
            gone += 1
        if gone > 0:
            del entries[:gone]
            self.first += gone
