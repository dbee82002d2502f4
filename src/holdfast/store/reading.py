"""A store as it stands, read from outside its broker: one moment of it, and nothing written.

A reader of the write-ahead log holds nobody up. Only the log cannot begin again from the front
while the moment is held, so the file beside the store grows by what is committed meanwhile.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self, final

import apsw

from holdfast.disk.checksums import UNCHECKED, check_row
from holdfast.disk.connection import open_reading
from holdfast.disk.file_format import check_magic, store_error
from holdfast.errors import StoreCorrupt, StoreError
from holdfast.store.blocks import decode_block, decode_message
from holdfast.store.records import (
    DelayedRecord,
    GroupRecord,
    LogEntry,
    LossRecord,
    RetainedRecord,
    SessionRecord,
    StateRecord,
    SubscriptionRecord,
    TimeMark,
)
from holdfast.store.schema import ALWAYS_CHECKED, CHECKED_FORMAT, UNCHECKED_ROWS, format_of
from holdfast.store.sqlite import FILE_NAME

_TEXTS: Final = frozenset({"name", "client_id", "will_topic", "topic_filter"})  # columns

Value = int | str | bytes | None
Row = tuple[Value, ...]

# The columns of each table but the checksum, with what stands for one that an older format lacks.
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
    "states": dict.fromkeys(("session", "cursor", "in_flight", "received")) | {"gaps": b""},
    "subscriptions": dict.fromkeys(
        ("session", "topic_filter", "from_lsn", "until_lsn", "options", "identifier")
    ),
    "retained": dict.fromkeys(("topic", "message")),
    "shared_groups": dict.fromkeys(("number", "topic_filter", "cursor", "returned"))
    | {"gaps": b""},
    "delayed": dict.fromkeys(("number", "due_ms", "seconds", "topic", "message")),
    "losses": dict.fromkeys(("owner", "messages", "bytes", "at_ms", "reason")),
    "time_marks": dict.fromkeys(("lsn", "at_ms")),
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
            return open_reading(path, is_immutable=is_alone)
        except apsw.CantOpenError:
            if has_wal or is_alone:
                raise
            return open_reading(
                path, is_immutable=True
            )  # a folder where nothing can be written, so nobody writes
    except apsw.Error as error:
        raise store_error(path, "opening the store", error) from error


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
            self._has_unchecked = self._read_unchecked()
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

    def may_be_unchecked(self, table: str) -> bool:
        """Whether rows of a table may lack a checksum, since an older format wrote them."""
        if self.format < CHECKED_FORMAT:
            return True
        return table not in ALWAYS_CHECKED and self._has_unchecked

    def rows(self, table: str, behind: str = "") -> Iterator[Row]:
        """The rows of a table, with the values of COLUMNS and then the checksum.

        ``behind`` follows the table in SQL. Raises StoreCorrupt if SQLite finds damage on the way.
        """
        existing = self._columns[table]
        if not existing:
            return
        columns = COLUMNS[table]
        wanted = [name for name in columns if name in existing]
        # As bytes, for what is no UTF-8 would end the reading of all that follows.
        texts = [index for index, name in enumerate(wanted) if name in _TEXTS]
        asked = [f"CAST({name} AS BLOB)" if name in _TEXTS else name for name in wanted]
        checksum = "crc" if "crc" in existing else str(UNCHECKED)
        # Columns were only ever added behind the others.
        missing = tuple(columns.values())[len(wanted) :]
        for found in self.query(f"SELECT {', '.join(asked)}, {checksum} FROM {table} {behind}"):
            row = list(found)
            for index in texts:
                row[index] = _as_text(row[index])
            yield (*row[:-1], *missing, row[-1])

    def checked(self, table: str, behind: str = "") -> Iterator[Row]:
        """The rows of a table without their checksums; raises StoreCorrupt where one is wrong."""
        may_be_unchecked = self.may_be_unchecked(table)
        for *row, checksum in self.rows(table, behind):
            check_row(table, row[0], row, checksum, may_be_unchecked)
            yield tuple(row)

    def losses(self) -> Iterator[LossRecord]:
        """What sessions and groups have lost, by their number."""
        for row in self.checked("losses", "ORDER BY owner"):
            yield LossRecord(*map(int_of, row))

    def time_marks(self) -> Iterator[TimeMark]:
        """When entries of the log came, by lsn."""
        for row in self.checked("time_marks", "ORDER BY lsn"):
            yield TimeMark(*map(int_of, row))

    def sessions(self) -> Iterator[SessionRecord]:
        """All sessions by number; this and the following raise StoreCorrupt at a damaged row."""
        for row in self.checked("sessions", "ORDER BY number"):
            yield session_of(row)

    def states(self) -> Iterator[StateRecord]:
        """All states by session."""
        for row in self.checked("states", "ORDER BY session"):
            yield state_of(row)

    def subscriptions(self) -> Iterator[SubscriptionRecord]:
        """All subscriptions by session, filter and beginning."""
        for row in self.checked("subscriptions", "ORDER BY session, topic_filter, from_lsn"):
            yield subscription_of(row)

    def groups(self) -> Iterator[GroupRecord]:
        """All shared groups by number."""
        for row in self.checked("shared_groups", "ORDER BY number"):
            yield group_of(row)

    def retained(self) -> Iterator[RetainedRecord]:
        """All retained messages by topic."""
        for name, topic, message in self._named("retained", "name"):
            text = self._topic(name, topic)
            yield RetainedRecord(text, decode_message(text, bytes_of(message)))

    def delayed(self) -> Iterator[DelayedRecord]:
        """All delayed messages by number."""
        for name, number, due_ms, seconds, topic, message in self._named("delayed", "t.number"):
            yield DelayedRecord(
                int_of(number),
                int_of(due_ms),
                int_of(seconds),
                decode_message(self._topic(name, topic), bytes_of(message)),
            )

    def blocks(self) -> Iterator["Block"]:
        """All blocks of the log by lsn, not decoded."""
        for name, *row in self._named("log", "t.lsn"):
            yield block_of(tuple(row), self._topic(name, row[2]))

    def _named(self, table: str, order: str) -> Iterator[Row]:
        """The rows of a table with a topic, each behind the name of that, both checked."""
        existing = self._columns[table]
        if not existing:
            return
        columns = ", ".join(f"t.{name}" for name in COLUMNS[table])
        checksums = "t.crc, topics.crc" if "crc" in existing else f"{UNCHECKED}, {UNCHECKED}"
        for name, *row, checksum, topic_checksum in self.query(
            f"SELECT topics.name, {columns}, {checksums}"
            f" FROM {table} AS t LEFT JOIN topics ON topics.number = t.topic ORDER BY {order}"
        ):
            check_row(table, row[0], row, checksum, self._has_unchecked)
            if name is not None:
                topic = row[list(COLUMNS[table]).index("topic")]
                values = (topic, name)
                check_row("topics", topic, values, topic_checksum, self._has_unchecked)
            yield (name, *row)

    def _topic(self, name: Value, number: Value) -> str:
        return text_of(name, f"the name of topic {number!r}")

    def query(self, sql: str, *arguments: Value) -> Iterator[Row]:
        """The rows that a query of ours gives."""
        try:
            yield from self.connection.cursor().execute(sql, arguments)
        except apsw.Error as error:
            raise store_error(self.path, "reading", error) from error
        except UnicodeDecodeError as error:
            raise StoreCorrupt(f"{self.path}: a name in it is not UTF-8") from error

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
        for found, value in self.checked("meta"):
            if found == name:
                return int_of(value)
        return 0

    @property
    def next_lsn(self) -> int:
        """The lsn that the next message gets."""
        return max(
            self.meta("next_lsn"),
            self.number("SELECT ifnull((SELECT last_lsn FROM log ORDER BY lsn DESC LIMIT 1), 0)")
            + 1,
        )

    @property
    def first_lsn(self) -> int:
        """The lsn of the oldest message; that of the next one if there is none."""
        for (lsn,) in self.query("SELECT lsn FROM log ORDER BY lsn LIMIT 1"):
            return int_of(lsn)
        return self.next_lsn

    def _read_unchecked(self) -> bool:
        """Whether the store says that rows may lack a checksum; True if it cannot be read."""
        if self.format < CHECKED_FORMAT:
            return True
        try:
            return self.meta(UNCHECKED_ROWS) != 0
        except StoreError:
            return True  # told by whoever looks at that table

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


@dataclass(frozen=True, slots=True)
class Block:
    """A row of the log with the name of its topic."""

    lsn: int
    last_lsn: int
    topic: str
    target: int
    data: bytes

    def entries(self) -> list[LogEntry]:
        """Its messages; raises StoreCorrupt if they are damaged."""
        found = decode_block(self.lsn, self.topic, self.target, self.data)
        if not found or found[-1].lsn != self.last_lsn:
            raise StoreCorrupt(
                f"the messages from lsn {self.lsn} on: expected them to end with lsn "
                f"{self.last_lsn}, there are {len(found)}"
            )
        return found


def block_of(row: Row, topic: str) -> Block:
    """A row of ``log``, whose topic has this name."""
    lsn, last_lsn, _, target, data = row
    return Block(int_of(lsn), int_of(last_lsn), topic, int_of(target), bytes_of(data))


def session_of(row: Row) -> SessionRecord:
    """A row of ``sessions``; raises StoreCorrupt if its will is damaged."""
    number, client_id, version, epoch, expiry_s, since_ms, topic, will, delay_s, due_ms = row
    what = f"the will of session {number!r}"
    return SessionRecord(
        int_of(number),
        text_of(client_id, f"the client identifier of session {number!r}"),
        int_of(version),
        int_of(epoch),
        int_of(expiry_s),
        int_of(since_ms),
        None if will is None else decode_message(text_of(topic, what), bytes_of(will)),
        int_of(delay_s),
        int_of(due_ms),
    )


def state_of(row: Row) -> StateRecord:
    """A row of ``states``."""
    session, cursor, *packed = row
    return StateRecord(int_of(session), int_of(cursor), *map(bytes_of, packed))


def subscription_of(row: Row) -> SubscriptionRecord:
    """A row of ``subscriptions``."""
    session, topic_filter, *numbers = row
    what = f"a topic filter of session {session!r}"
    return SubscriptionRecord(
        int_of(session), text_of(topic_filter, what), *(int_of(number) for number in numbers)
    )


def group_of(row: Row) -> GroupRecord:
    """A row of ``shared_groups``."""
    number, topic_filter, cursor, *packed = row
    what = f"the topic filter of shared group {number!r}"
    return GroupRecord(
        int_of(number), text_of(topic_filter, what), int_of(cursor), *map(bytes_of, packed)
    )


def int_of(value: Value) -> int:
    """A value of an INTEGER column; the tables are STRICT, so only damage makes it another."""
    if not isinstance(value, int):
        raise StoreCorrupt(f"expected a number, found {type(value).__name__}")
    return value


def bytes_of(value: Value) -> bytes:
    """A value of a BLOB column."""
    if not isinstance(value, bytes):
        raise StoreCorrupt(f"expected bytes, found {type(value).__name__}")
    return value


def text_of(value: Value, what: str) -> str:
    """A value of a TEXT column; None where a name is missing."""
    if not isinstance(value, str):
        raise StoreCorrupt(f"{what} is {'missing' if value is None else 'not UTF-8'}")
    return value


def _as_text(value: Value) -> Value:
    try:
        return value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        return value
