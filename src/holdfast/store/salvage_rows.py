"""What a row of each table looks like: so one that is damaged is told from one that is sound.

The columns come from the schema itself, and a row of an older format fits as well: columns that
were added later have their defaults.
"""

from collections.abc import Callable
from typing import Final, final

import apsw

from holdfast.disk.checksums import UNCHECKED, row_checksum
from holdfast.disk.page_cells import Damaged, Value
from holdfast.errors import ProtocolError, StoreCorrupt
from holdfast.protocol.topics import check_filter, check_topic, is_shared
from holdfast.store.blocks import BLOCK_ENTRIES_MAX, decode_block, decode_message
from holdfast.store.records import unpack_gaps, unpack_in_flight, unpack_lsns
from holdfast.store.schema import ALWAYS_CHECKED, migrate

# An lsn goes with a packet identifier's stage into 63 bits.
LSN_MAX: Final = (1 << 60) - 1
_OPTIONS_MAX: Final = 0x3F
# Tables with the same columns: a page of one that was written over one of the other has the right
# checksums.
_ALIKE: Final = ("log", "delayed")
_VERSIONS: Final = (3, 4, 5)

Row = dict[str, Value]


@final
class Shape:
    """The columns of one table, in the order of its records."""

    def __init__(self, name: str, columns: list[str], kinds: list[str], key: int) -> None:
        self.name = name
        self.columns = columns
        self.key = key  # which column is the rowid; -1 if there is none
        self.defaults: dict[int, Value] = {}  # of the columns that have one
        self.optional: set[int] = set()  # columns that may be NULL
        self.has_checksum = columns[-1] == "crc"
        # Whether rows without a checksum may be there, which an older format wrote.
        self.may_be_unchecked = True
        self._kinds = [_KINDS[kind] for kind in kinds]
        self._check = _CHECKS.get(name)

    @property
    def is_table(self) -> bool:
        """Whether its rows lie in a table's tree, and not in an index's (WITHOUT ROWID)."""
        return self.key >= 0

    def row(
        self,
        rowid: int,
        values: list[Value],
        *,
        is_doubtful: bool = False,
        is_strange: bool = False,
    ) -> Row:
        """A record as a row of this table; raises Damaged if it is none, or not a sound one.

        A doubtful one has to have a checksum, and the right one. A strange one may be of another
        table with such columns, so its content has to be right as well.
        """
        row = list(values)
        while len(row) < len(self.columns) and len(row) in self.defaults:
            row.append(self.defaults[len(row)])
        if len(row) != len(self.columns):
            raise Damaged
        if self.key >= 0:
            if row[self.key] is not None:
                raise Damaged
            row[self.key] = rowid
        for index, value in enumerate(row):
            is_null = value is None and index in self.optional
            if type(value) is not self._kinds[index] and not is_null:
                raise Damaged
            if isinstance(value, int) and not 0 <= value <= LSN_MAX:
                raise Damaged
        found = dict(zip(self.columns, row, strict=True))
        if self.has_checksum:
            *content, checksum = row
            if checksum == UNCHECKED:
                if is_doubtful or not self.may_be_unchecked:
                    raise Damaged
            elif checksum != row_checksum(content):
                raise Damaged
            elif not is_strange and self.name not in _ALIKE:
                return found  # as it was written
        elif is_doubtful:
            raise Damaged
        if self._check is not None:
            try:
                self._check(found)
            except (StoreCorrupt, ProtocolError):
                raise Damaged from None
        return found

    def sealed(self, values: Row) -> tuple[Value, ...]:
        """A row of ours with its checksum; columns that are not given have their defaults."""
        row = [
            values[column] if column in values else self.defaults[index]
            for index, column in enumerate(self.columns)
        ]
        if self.has_checksum:
            row[-1] = row_checksum(row[:-1])
        return tuple(row)


def expect_checksums(shapes: dict[str, Shape], may_be_unchecked: bool) -> None:
    """Take rows without a checksum for damaged, in a store of a format that has them.

    ``may_be_unchecked`` is what the store says of itself.
    """
    for name, shape in shapes.items():
        shape.may_be_unchecked = may_be_unchecked and name not in ALWAYS_CHECKED


def read_shapes() -> dict[str, Shape]:
    """The tables of the present format, by name, in the order in which they are made."""
    connection = apsw.Connection(":memory:")
    try:
        migrate(connection, 0)
        found = connection.execute(
            "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY rowid"
        ).fetchall()
        return {str(name): _read_shape(connection, str(name)) for (name,) in found}
    finally:
        connection.close()


def _read_shape(connection: apsw.Connection, name: str) -> Shape:
    described: list[tuple[int, str, str, int, str | None, int]] = connection.execute(
        f"PRAGMA table_info({name})"
    ).fetchall()  # type: ignore[assignment]  # what SQLite documents
    indexes = connection.execute(f"PRAGMA index_list({name})").fetchall()
    has_rowid = all(origin != "pk" for _, _, _, origin, _ in indexes)
    keys = [row[0] for row in described if row[5]]
    # The columns of a key come first in the record of an index, here as in the table.
    assert len(keys) == 1 if has_rowid else keys == list(range(len(keys)))
    shape = Shape(
        name,
        [row[1] for row in described],
        [row[2] for row in described],
        keys[0] if has_rowid else -1,
    )
    for index, _, _, is_required, default, _ in described:
        if default is not None:
            shape.defaults[index] = connection.execute(f"SELECT {default}").fetchall()[0][0]
        if not is_required and index not in keys:
            shape.optional.add(index)
    if shape.has_checksum:
        shape.defaults.setdefault(len(described) - 1, UNCHECKED)
    return shape


def usual_layout() -> dict[int, str]:
    """The root pages of a store that was made in one go."""
    connection = apsw.Connection(":memory:")
    try:
        connection.pragma("auto_vacuum", "incremental")
        migrate(connection, 0)
        found = connection.execute("SELECT rootpage, name FROM sqlite_schema").fetchall()
        return {int(str(root)): str(name) for root, name in found}
    finally:
        connection.close()


def integer(row: Row, column: str) -> int:
    """A number of a row that was checked."""
    value = row[column]
    assert isinstance(value, int)
    return value


def text(row: Row, column: str) -> str:
    """A text of a row that was checked."""
    value = row[column]
    assert isinstance(value, str)
    return value


def blob(row: Row, column: str) -> bytes:
    """A blob of a row that was checked."""
    value = row[column]
    assert isinstance(value, bytes)
    return value


def _check_meta(row: Row) -> None:
    _expect(text(row, "name") != "")


def _check_topics(row: Row) -> None:
    _expect(integer(row, "number") > 0)
    check_topic(text(row, "name"))


def _check_log(row: Row) -> None:
    lsn = integer(row, "lsn")
    count = integer(row, "last_lsn") - lsn + 1
    _expect(lsn > 0 and 0 < count <= BLOCK_ENTRIES_MAX and integer(row, "topic") > 0)
    _expect(len(decode_block(lsn, "", 0, blob(row, "data"))) == count)


def _check_sessions(row: Row) -> None:
    _expect(integer(row, "number") > 0 and row["version"] in _VERSIONS)
    _expect((row["will"] is None) == (row["will_topic"] is None))
    if row["will"] is not None:
        check_topic(text(row, "will_topic"))
        decode_message("", blob(row, "will"))


def _check_states(row: Row) -> None:
    _expect(integer(row, "session") > 0)
    for packet_id, content in unpack_in_flight(blob(row, "in_flight")).items():
        _expect(0 < packet_id <= 0xFFFF and content >> 2 <= LSN_MAX)
    _expect(len(blob(row, "received")) % 2 == 0)
    unpack_gaps(blob(row, "gaps"))


def _check_subscriptions(row: Row) -> None:
    _expect(integer(row, "session") > 0 and integer(row, "options") <= _OPTIONS_MAX)
    check_filter(text(row, "topic_filter"))


def _check_retained(row: Row) -> None:
    _expect(integer(row, "topic") > 0)
    decode_message("", blob(row, "message"))


def _check_groups(row: Row) -> None:
    topic_filter = text(row, "topic_filter")
    _expect(integer(row, "number") > 0 and is_shared(topic_filter))
    check_filter(topic_filter)
    lsns = unpack_lsns(blob(row, "returned"))
    _expect(lsns == sorted(set(lsns)))
    unpack_gaps(blob(row, "gaps"))


def _check_delayed(row: Row) -> None:
    number = integer(row, "number")
    _expect(number > 0 and integer(row, "topic") > 0)
    _expect(not number <= integer(row, "due_ms") < number + BLOCK_ENTRIES_MAX)
    decode_message("", blob(row, "message"))


def _expect(is_so: bool) -> None:
    if not is_so:
        raise StoreCorrupt("a row has a value that none has")


_KINDS: Final[dict[str, type]] = {"INTEGER": int, "TEXT": str, "BLOB": bytes}
_CHECKS: Final[dict[str, Callable[[Row], None]]] = {
    "meta": _check_meta,
    "topics": _check_topics,
    "log": _check_log,
    "sessions": _check_sessions,
    "states": _check_states,
    "subscriptions": _check_subscriptions,
    "retained": _check_retained,
    "shared_groups": _check_groups,
    "delayed": _check_delayed,
}
