"""A store as it stands, read from outside its broker: one moment of it, and nothing written.

A reader of the write-ahead log holds nobody up. Only the log cannot begin again from the front
while the moment is held, so the file beside the store grows by what is committed meanwhile.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self, final
from urllib.parse import quote

import apsw

from holdfast.errors import StoreCorrupt, StoreError
from holdfast.store.schema import BUSY_TIMEOUT_MS, check_magic, format_of, store_error
from holdfast.store.sqlite import FILE_NAME

CACHE_BYTES: Final = 8 * 1024 * 1024  # of SQLite's page cache for a reader from outside

Value = int | str | bytes | None
Row = tuple[Value, ...]

# The columns of each table, with what stands for one that an older format does not have.
COLUMNS: Final[dict[str, dict[str, Value]]] = {
    "meta": dict.fromkeys(("name", "value")),
    "topics": dict.fromkeys(("number", "name")),
    "log": dict.fromkeys(("lsn", "last_lsn", "topic", "target", "data")),
    "sessions": dict.fromkeys(
        (
            *("number", "client_id", "version", "epoch", "expiry_s", "disconnected_at_ms"),
            *("will_topic", "will", "will_delay_s", "will_due_ms"),
        )
    ),
    "states": dict.fromkeys(("session", "cursor", "in_flight", "received")),
    "subscriptions": dict.fromkeys(
        ("session", "topic_filter", "from_lsn", "until_lsn", "options", "identifier")
    ),
    "retained": dict.fromkeys(("topic", "message")),
    "shared_groups": dict.fromkeys(("number", "topic_filter", "cursor", "returned")),
    "delayed": dict.fromkeys(("number", "due_ms", "seconds", "topic", "message")),
}


def store_file(path: Path) -> Path:
    """The file of a store that is named by its folder, or by the file itself (a backup).

    Raises StoreError if there is none.
    """
    file = path / FILE_NAME if path.is_dir() else path
    try:
        if file.is_file() and file.stat().st_size > 0:
            return file
    except OSError as error:
        raise StoreError(f"{file}: cannot be read: {error.strerror}") from error
    raise StoreError(f"{path}: expected a data folder with {FILE_NAME}, or the file of a store")


def connect_reading(path: Path) -> apsw.Connection:
    """Open a store's file for reading; a broker may have it open at the same time.

    Raises StoreError if it cannot be opened. What a killed broker left in the write-ahead log is
    seen, and stays there.
    """
    has_wal = os.path.exists(f"{path}-wal")
    # A file alone, as a backup is, can be read without making a log and its index beside it. The
    # store of a data folder cannot: its broker may begin to write at any moment.
    is_alone = path.name != FILE_NAME and not has_wal
    try:
        try:
            return _open(path, is_alone)
        except apsw.CantOpenError:
            if has_wal or is_alone:
                raise
            return _open(path, True)  # a folder where nothing can be written, so nobody writes
    except apsw.Error as error:
        raise store_error(path, "opening the store", error) from error


def _open(path: Path, is_immutable: bool) -> apsw.Connection:
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
        connection.pragma("cache_size", -CACHE_BYTES // 1024)
        connection.pragma("schema_version")  # opens the file
    except BaseException:
        connection.close()
        raise
    return connection


@final
class StoreView:
    """A store at the moment when this was made, until ``close``; also a context manager."""

    def __init__(self, path: Path) -> None:
        """Take a data folder, or the file of a store.

        Raises StoreError if there is none, StoreTooNew or StoreCorrupt if it is not ours to read.
        """
        self.path: Final = store_file(path)
        check_magic(self.path)
        self.connection: Final = connect_reading(self.path)
        try:
            self.connection.execute("BEGIN")
            self.format: Final = format_of(
                self.path,
                self.pragma("application_id"),
                self.pragma("user_version"),
                self.pragma("schema_version"),
            )
            self._columns = self._existing_columns()
        except apsw.Error as error:
            self.close()
            raise store_error(self.path, "opening the store", error) from error
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let the moment go; a second call does nothing."""
        self.connection.close()

    def pragma(self, name: str) -> int:
        """A number that SQLite keeps about the file."""
        value = self.connection.pragma(name)
        assert isinstance(value, int)
        return value

    def rows(self, table: str, behind: str = "", *arguments: Value) -> Iterator[Row]:
        """The rows of a table with the values of COLUMNS; ``behind`` follows the table in SQL.

        Raises StoreCorrupt if SQLite finds damage on the way.
        """
        existing = self._columns[table]
        if not existing:
            return iter(())
        wanted = [name if name in existing else "NULL" for name in COLUMNS[table]]
        defaults = [None if name in existing else COLUMNS[table][name] for name in COLUMNS[table]]
        found = self.query(f"SELECT {', '.join(wanted)} FROM {table} {behind}", *arguments)
        if wanted == list(COLUMNS[table]):
            return found
        return (
            tuple(
                default if default is not None else value
                for value, default in zip(row, defaults, strict=True)
            )
            for row in found
        )

    def query(self, sql: str, *arguments: Value) -> Iterator[Row]:
        """The rows that a query of ours gives."""
        try:
            yield from self.connection.cursor().execute(sql, arguments)
        except apsw.Error as error:
            raise store_error(self.path, "reading", error) from error

    def number(self, sql: str, *arguments: Value) -> int:
        """The number that a query of ours gives."""
        for (value,) in self.query(sql, *arguments):
            assert isinstance(value, int)
            return value
        raise AssertionError(f"no row from {sql}")

    def count(self, table: str) -> int:
        """How many rows a table has; 0 for one that an older format does not have."""
        return self.number(f"SELECT count(*) FROM {table}") if self._columns[table] else 0

    def meta(self, name: str) -> int:
        """A counter of the store's; 0 if it is missing."""
        for (value,) in self.query("SELECT value FROM meta WHERE name = ?1", name):
            assert isinstance(value, int)
            return value
        return 0

    @property
    def next_lsn(self) -> int:
        """The lsn that the next message gets."""
        return max(
            self.meta("next_lsn"),
            self.number("SELECT ifnull((SELECT last_lsn FROM log ORDER BY lsn DESC LIMIT 1), 0)")
            + 1,
        )

    def _existing_columns(self) -> dict[str, set[str]]:
        """The columns that each table has in this format."""
        found = {
            table: {str(row[1]) for row in self.connection.execute(f"PRAGMA table_info({table})")}
            for table in COLUMNS
        }
        for table, columns in found.items():
            lost = [
                name
                for name, default in COLUMNS[table].items()
                if name not in columns and default is None
            ]
            if lost and (columns or table in REQUIRED):
                raise StoreCorrupt(
                    f"{self.path}: expected the table {table} with {', '.join(COLUMNS[table])}, "
                    f"found it without {', '.join(lost)}"
                )
        return found


# Tables of the first format; the others came later.
REQUIRED: Final = frozenset(
    {"meta", "topics", "log", "sessions", "states", "subscriptions", "retained"}
)
