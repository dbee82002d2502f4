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
10. ``read``, ``fetch``, ``count``, ``log_topics``, ``targets`` and ``oldest`` may run in another
    thread while one of the others runs; those are called from one thread at a time.
11. ``count`` counts what ``read`` would give: the messages exactly, their bytes nearly.
12. ``trim_topics`` never removes an entry that no cut names, and works in bounded steps.
13. ``log_topics`` gives every topic, and ``targets`` every target, that has entries in the log,
    and no other.
14. ``oldest`` is exact but for this: a store that removes blocks of entries gives the end of a
    block, so that a trim up to there removes as much as was asked for.
15. ``space`` counts every entry of the log once, as soon as ``is_counted`` is true.
16. ``maintain`` changes nothing of what any other call gives, but for ``space``. Once it returns
    False a store that holds little takes little.
17. Time marks go with the entries: a trim removes those below the oldest entry, but for the last.
18. Damage is told and never delivered: what is not as it was written raises StoreCorrupt, which
    names the table, the row and what was expected.
"""

from typing import Protocol

from holdfast.store.records import (
    Batch,
    LogCount,
    LogEntry,
    LogSlice,
    ReadRequest,
    Snapshot,
    Space,
    TopicCut,
)


class Store(Protocol):
    """Where sessions, retained messages and the log are kept. Promises: see the module."""

    @property
    def description(self) -> str:
        """What the operator is told at the start, such as ``SQLite, data/holdfast.db``."""

    def load(self) -> Snapshot: ...

    def commit(self, batch: Batch) -> None: ...

    def read(self, request: ReadRequest) -> LogSlice: ...

    def fetch(self, lsns: list[int]) -> list[LogEntry]: ...

    def count(self, request: ReadRequest) -> LogCount:
        """How much ``read`` would give, without looking into it.

        Like a read it is bounded: ``messages_max`` and ``bytes_max`` bound, roughly, what one call
        looks at, and the next goes on from ``position``.
        """

    def log_topics(self, after: str, limit: int) -> list[str]:
        """Topics with messages for all in the log, ascending, above ``after``; fewer: the last."""

    def targets(self, after: int, limit: int) -> list[int]:
        """Targets with entries of their own, ascending, above ``after``; fewer: the last."""

    def oldest(self, messages: int, bytes: int) -> int:
        """The smallest lsn below which the log has at least so many messages, or so many bytes.

        0 stands for a number that is not asked for. If the log has fewer it is the next lsn.
        """

    def trim(self, below_lsn: int) -> bool:
        """Remove a bounded number of entries below ``below_lsn``; True if there are more."""

    def trim_topics(self, cuts: list[TopicCut]) -> bool:
        """Remove a bounded number of the entries that the cuts name; True if there are more.

        A store that keeps blocks of entries removes those blocks that lie in one span as a whole,
        so a few entries at the ends of a span may stay. Like a trim it needs no flush of its own:
        after a power cut what was removed may be back, until the next commit.
        """

    def space(self) -> Space:
        """What the store takes; cheap."""

    def maintain(self) -> bool:
        """Take one small step (about a millisecond) of upkeep; True if there is more to do now.

        A census of the log after opening, pages given back, the write-ahead log carried over.
        Raises StoreError if the disk fails, after which there is no further commit.
        """

    def close(self) -> None: ...
