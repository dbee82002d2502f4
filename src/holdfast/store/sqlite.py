"""The store on SQLite: one file, written by one thread, read by another.

Everything of a batch goes through one transaction of few, large statements. ``docs/internals``
(store.md) says why, with figures.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, final

import apsw

from holdfast.disk.connection import READER_CACHE_BYTES, Writing, connect, restart_wal
from holdfast.disk.file_format import rewrite_wal, store_error
from holdfast.disk.folder import make_file, make_folder
from holdfast.errors import StoreCorrupt, StoreError
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
from holdfast.store.schema import check_file, migrate
from holdfast.store.sqlite_load import load_snapshot
from holdfast.store.sqlite_reader import SqliteReader
from holdfast.store.sqlite_upkeep import Upkeep
from holdfast.store.sqlite_writer import BatchWriter

FILE_NAME: Final = "holdfast.db"


def open_store(
    data_dir: Path, vfs: str | None = None, clock_ns: Callable[[], int] = time.perf_counter_ns
) -> "SqliteStore":
    """Open the store in a folder; both are made if they are missing.

    By the clock, which counts nanoseconds, steps of upkeep stay short.

    The caller holds the folder's ``DataLock``. Raises StoreTooNew for a newer format and
    StoreCorrupt for what is no store, both left untouched, and StoreError for all else.
    """
    make_folder(data_dir)
    path = data_dir / FILE_NAME
    try:
        format_number = check_file(path, vfs)
    except OSError as error:
        raise StoreError(f"{path}: cannot read the store: {error.strerror}") from error
    make_file(path)
    rewrite_wal(path, vfs)
    return SqliteStore(path, format_number, vfs, clock_ns)


@final
class SqliteStore:
    """See ``Store``; made by ``open_store``."""

    def __init__(
        self, path: Path, format_number: int, vfs: str | None, clock_ns: Callable[[], int]
    ) -> None:
        """Open a file that ``check_file`` has looked at."""
        self._path = path
        self._is_closed = False
        doing = "opening the store"
        try:
            self._writing = Writing(path, vfs)
            try:
                self._writer = self._prepare(format_number)
                reading = connect(path, vfs, READER_CACHE_BYTES)
                reading.pragma("query_only", True)
            except BaseException:
                self._writing.abandon()
                raise
        except apsw.Error as error:
            raise store_error(path, doing, error) from error
        except StoreCorrupt as error:
            raise StoreCorrupt(f"{path}: {doing} failed: {error}") from error
        self._reader = SqliteReader(path, reading, self._writer.may_be_unchecked)
        self._upkeep = Upkeep(self._writing, self._writer, self._reader, clock_ns)

    def _prepare(self, format_number: int) -> BatchWriter:
        """Make or migrate the tables, and read what is counted."""
        migrate(self._writing.connection, format_number)
        # What a killed broker left in the write-ahead log, which ``rewrite_wal`` has flushed, goes
        # into the file, so that the log begins again from the front.
        try:
            restart_wal(self._writing.connection)
        except apsw.BusyError:
            pass  # another program reads; it is carried over all the same
        return BatchWriter(self._writing)

    @property
    def description(self) -> str:
        """What the operator is told at the start."""
        return f"SQLite, {self._path}"

    def close(self) -> None:
        """Close the file; a second call does nothing. After a failure nothing more is written."""
        if self._is_closed:
            return
        self._is_closed = True
        self._reader.close()
        self._writing.close()

    def load(self) -> Snapshot:
        """See ``Store.load``; raises StoreError if the file cannot be read."""
        doing = "loading the sessions"
        snapshot = Snapshot()
        snapshot.next_lsn = self._writer.next_lsn
        snapshot.next_session = self._writer.next_session
        cursor = self._writing.cursor
        try:
            cursor.execute("BEGIN")
            try:
                load_snapshot(cursor, snapshot, self._writer.may_be_unchecked)
            finally:
                cursor.execute("COMMIT")
        except apsw.Error as error:
            raise store_error(self._path, doing, error) from error
        except StoreCorrupt as error:
            raise StoreCorrupt(f"{self._path}: {doing} failed: {error}") from error
        return snapshot

    def commit(self, batch: Batch) -> None:
        """See ``Store.commit``; raises StoreError, after which there is no further commit."""
        self._writing.refuse_after_failure()
        if batch.is_empty:
            return
        entries = batch.entries
        next_lsn = self._writer.next_lsn
        assert not entries or entries[0].lsn == next_lsn
        assert not entries or entries[-1].lsn == next_lsn + len(entries) - 1
        with self._writing.transaction("commit"):
            self._writer.write(batch)
        self._writer.committed()
        self._upkeep.checkpoint_if_due()

    def bring_in(self, batch: Batch, *, next_lsn: int, next_session: int) -> None:
        """Commit what another store held: its lsns ascend, but not all need to be there.

        The next entry and the next session get these numbers, as they would have there.
        """
        self._writing.refuse_after_failure()
        with self._writing.transaction("import"):
            self._writer.bring_in(batch, next_lsn, next_session)
        self._writer.committed()
        self._upkeep.checkpoint_if_due()

    def read(self, request: ReadRequest) -> LogSlice:
        """See ``Store.read``; raises StoreError if the file cannot be read."""
        return self._reader.read(request)

    def fetch(self, lsns: list[int]) -> list[LogEntry]:
        """See ``Store.fetch``; raises StoreError if the file cannot be read."""
        return self._reader.fetch(lsns)

    def count(self, request: ReadRequest) -> LogCount:
        """See ``Store.count``; raises StoreError if the file cannot be read."""
        return self._reader.count(request)

    def log_topics(self, after: str, limit: int) -> list[str]:
        """See ``Store.log_topics``; raises StoreError if the file cannot be read."""
        return self._reader.log_topics(after, limit)

    def targets(self, after: int, limit: int) -> list[int]:
        """See ``Store.targets``; raises StoreError if the file cannot be read."""
        return self._reader.targets(after, limit)

    def oldest(self, messages: int, bytes: int) -> int:
        """See ``Store.oldest``; raises StoreError if the file cannot be read."""
        return self._reader.oldest(messages, bytes)

    def probe(self) -> None:
        """Commit something that means nothing; raises StoreError if nothing can be committed."""
        with self._writing.transaction("a commit to try it out"):
            self._writer.write_probe()

    def trim(self, below_lsn: int) -> bool:
        """See ``Store.trim``. Blocks go as a whole, so a few entries below may stay."""
        has_more = self._upkeep.trim(below_lsn)
        self._upkeep.checkpoint_if_due()
        return has_more

    def trim_topics(self, cuts: list[TopicCut]) -> bool:
        """See ``Store.trim_topics``."""
        has_more = self._upkeep.trim_topics(cuts)
        self._upkeep.checkpoint_if_due()
        return has_more

    def space(self) -> Space:
        """See ``Store.space``; the bytes of the log are those of its blocks."""
        doing = "looking at the space"
        try:
            return self._upkeep.space()
        except apsw.Error as error:
            raise store_error(self._path, doing, error) from error
        except OSError as error:
            raise StoreError(f"{self._path}: {doing} failed: {error.strerror}") from error

    def maintain(self) -> bool:
        """See ``Store.maintain``."""
        doing = "upkeep"
        try:
            return self._upkeep.maintain()
        except apsw.Error as error:
            raise store_error(self._path, doing, error) from error
        except StoreCorrupt as error:
            raise StoreCorrupt(f"{self._path}: {doing} failed: {error}") from error
