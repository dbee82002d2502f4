"""The connections to a SQLite file: how they are set up, and the one that writes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, final
from urllib.parse import quote

import apsw

from holdfast.disk.file_format import BUSY_TIMEOUT_MS, store_error
from holdfast.disk.queries import Queries
from holdfast.errors import StoreCorrupt, StoreError

# Bytes of SQLite's page cache. The writer's holds the pages that a commit changes, mostly the ends
# of the log and of its index; the operating system caches the rest.
WRITER_CACHE_BYTES: Final = 8 * 1024 * 1024
READER_CACHE_BYTES: Final = 4 * 1024 * 1024
OUTSIDE_CACHE_BYTES: Final = 8 * 1024 * 1024  # of a tool that looks into the file


@final
class Writing:
    """The connection that writes, in transactions; after one that failed there is no other."""

    def __init__(self, path: Path, vfs: str | None) -> None:
        self.path: Final = path
        self.connection: Final = connect(path, vfs, WRITER_CACHE_BYTES)
        self.connection.wal_autocheckpoint(0)  # it would hide errors, and try an fsync twice
        self.cursor: Final = self.connection.cursor()
        self.queries: Final = Queries(self.connection)
        self._failure: StoreError | None = None  # why there is no further commit
        self._synchronous = "FULL"

    @property
    def has_failed(self) -> bool:
        return self._failure is not None

    def refuse_after_failure(self) -> None:
        """Raise StoreError if anything failed before."""
        if self._failure is not None:
            kind = type(self._failure)
            raise kind(f"nothing more is committed since this: {self._failure}")

    def fail(self, doing: str, error: apsw.Error) -> StoreError:
        """Let nothing be written any more, because of this error."""
        failure = store_error(self.path, doing, error)
        if self._failure is None:
            self._failure = failure
        return failure

    @contextmanager
    def transaction(self, doing: str, synchronous: str = "FULL") -> Iterator[None]:
        """All or nothing; after a failure, nothing ever again until the file is opened anew."""
        self.refuse_after_failure()
        try:
            if synchronous != self._synchronous:
                self.cursor.execute(f"PRAGMA synchronous = {synchronous}")
                self._synchronous = synchronous
            self.cursor.execute("BEGIN IMMEDIATE")
            yield
            self.cursor.execute("COMMIT")
        except BaseException as error:
            if isinstance(error, apsw.Error):
                failure = self.fail(doing, error)
                self._roll_back()
                raise failure from error
            self._failure = StoreError(f"{self.path}: {doing} failed ({error})")
            self._roll_back()
            if isinstance(error, StoreCorrupt):
                raise StoreCorrupt(f"{self.path}: {doing} failed: {error}") from error
            raise

    def close(self) -> None:
        """Close the file; after a failure nothing more is written."""
        if self._failure is not None:
            close_without_writing(self.connection)
            return
        try:
            self.connection.close()
        except apsw.Error:
            pass  # the last checkpoint failed; the write-ahead log has everything, and stays

    def abandon(self) -> None:
        """Close the file without writing."""
        close_without_writing(self.connection)

    def _roll_back(self) -> None:
        try:
            if self.connection.in_transaction:
                self.cursor.execute("ROLLBACK")
        except apsw.Error:
            pass  # the first error is told; there is no further commit in any case


def connect(path: Path, vfs: str | None, cache_bytes: int) -> apsw.Connection:
    """A connection to a file that is there; raises apsw.Error."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE, vfs=vfs)
    try:
        _set_up(connection, cache_bytes)
    except BaseException:
        close_without_writing(connection)
        raise
    return connection


def open_reading(path: Path, *, is_immutable: bool) -> apsw.Connection:
    """A connection that reads a file; raises apsw.Error.

    An immutable file is read without making a log and its index beside it: nobody may write.
    """
    connection = apsw.Connection(
        f"file:{quote(str(path.absolute()))}?immutable={int(is_immutable)}",
        flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI,
    )
    try:
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        connection.pragma("query_only", True)
        connection.pragma("trusted_schema", False)
        connection.pragma("mmap_size", 0)
        connection.pragma("cache_size", -OUTSIDE_CACHE_BYTES // 1024)
        connection.pragma("schema_version")  # opens the file
    except BaseException:
        connection.close()
        raise
    return connection


def close_without_writing(connection: apsw.Connection) -> None:
    """Close a connection, and leave the write-ahead log to whoever opens the file next."""
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    connection.close(True)  # whatever it says, this process may open the file again


def restart_wal(connection: apsw.Connection, mode: int = apsw.SQLITE_CHECKPOINT_RESTART) -> None:
    """Carry over the write-ahead log so that it begins again from the front."""
    connection.set_busy_timeout(0)  # a program that reads may do so for long
    try:
        connection.wal_checkpoint(mode=mode)
    finally:
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)


def _set_up(connection: apsw.Connection, cache_bytes: int) -> None:
    connection.set_busy_timeout(BUSY_TIMEOUT_MS)
    pragma = connection.pragma
    pragma("auto_vacuum", "incremental")  # counts before the first table is made
    mode = pragma("journal_mode", "wal")
    if mode != "wal":
        raise apsw.CantOpenError(f"expected the journal mode wal, got {mode}")
    pragma("synchronous", "full")
    pragma("fullfsync", True)  # on macOS, where fsync alone does not flush
    pragma("checkpoint_fullfsync", True)
    pragma("cache_size", -cache_bytes // 1024)
    pragma("mmap_size", 0)  # an I/O error in mapped memory kills the process
    pragma("temp_store", "memory")
    pragma("trusted_schema", False)
