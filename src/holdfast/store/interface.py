"""The Store interface and its promises; ``tests/store`` checks them on every store.

1. ``commit`` is atomic: after a crash at any moment a batch is there whole or not at all, and no
   batch is there without all batches before it.
2. ``commit`` is durable when it returns: power may fail the next instant.
3. After a ``commit`` that raised, every further ``commit`` raises StoreError until the store is
   opened again. An fsync is never tried twice.
4. ``load`` gives exactly what the committed batches say, applied in order.
5. ``read`` gives every committed entry that matches, once, in the order of lsn, and nothing else:
   those with ``target`` 0 whose topic matches a span that covers their lsn, and those whose
   ``target`` is the asking session. Its cost grows with what it returns, not with the log.
6. ``fetch`` gives the entries of these lsns that are there, in the order asked.
7. ``trim`` never removes an entry at or above the given lsn, and works in bounded steps.
8. Topics, client identifiers and payloads come back byte for byte, ``007`` and U+10FFFF included.
9. An lsn, session or group number once committed is never given out again, even when all is
   trimmed.
10. ``read`` and ``fetch`` may run in another thread while ``commit`` or ``trim`` runs; commit and
    trim are called from one thread at a time.
"""

from typing import Protocol

from holdfast.store.records import Batch, LogEntry, LogSlice, ReadRequest, Snapshot


class Store(Protocol):
    """Where sessions, retained messages and the log are kept. Promises: see the module."""

    @property
    def description(self) -> str:
        """What the operator is told at the start, such as ``SQLite, data/holdfast.db``."""

    def load(self) -> Snapshot: ...

    def commit(self, batch: Batch) -> None: ...

    def read(self, request: ReadRequest) -> LogSlice: ...

    def fetch(self, lsns: list[int]) -> list[LogEntry]: ...

    def trim(self, below_lsn: int) -> bool:
        """Remove a bounded number of entries below ``below_lsn``; True if there are more."""

    def close(self) -> None: ...
