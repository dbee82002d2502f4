"""Promise 18: what is not as it was written is told, with table and row, and never delivered."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final
from zlib import crc32

import apsw
import pytest

from holdfast.disk.checksums import add_number, check_row, row_checksum
from holdfast.errors import StoreCorrupt
from holdfast.message import Message
from holdfast.store.quick_verify import quick_verify
from holdfast.store.reading import StoreView
from holdfast.store.records import (
    Batch,
    FilterSpan,
    GroupRecord,
    LogEntry,
    LossRecord,
    ReadRequest,
    RetainedRecord,
    StateRecord,
    TimeMark,
)
from holdfast.store.salvage import repair
from holdfast.store.schema import ALWAYS_CHECKED
from holdfast.store.sqlite import SqliteStore, open_store
from holdfast.store.sqlite_damage import damages, find_damage
from holdfast.store.verify import check
from tests.store.support import (
    LET_ROWS_BE_UNCHECKED,
    PLENTY,
    batch_of,
    delayed,
    entries,
    group,
    loss,
    message,
    session,
    state,
    subscription,
)

NAME: Final = "holdfast.db"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A store with one of each, closed."""
    store = open_store(tmp_path)
    batch = batch_of([*entries(1, ["a"] * 5 + ["b"]), *entries(7, ["b"], 2)])
    batch.sessions = [session(1, "c", Message("w", b"will", 1, False)), session(2)]
    batch.states = [state(1), state(2)]
    batch.subscriptions = [subscription(1, "a"), subscription(2, "b")]
    batch.retained = [RetainedRecord("r", message("r"))]
    batch.groups = [group(3)]
    batch.delayed = [delayed(1, "d")]
    batch.losses = [loss(1)]
    batch.time_marks = [TimeMark(1, 5)]
    store.commit(batch)
    store.close()
    return tmp_path


def change(folder: Path, sql: str) -> None:
    connection = apsw.Connection(str(folder / NAME))
    connection.execute(sql)
    assert connection.changes() == 1
    connection.close()


def use(folder: Path) -> None:
    """Open the store and look at all of it."""
    store = open_store(folder)
    try:
        snapshot = store.load()
        end = snapshot.next_lsn
        spans = [FilterSpan("#", 1, 0), FilterSpan("a", 1, 0)]
        for number in (1, 2):
            store.read(ReadRequest(number, 1, end, spans, PLENTY, PLENTY))
        store.fetch(list(range(1, end)))
    finally:
        store.close()


# What is there and what it becomes; what the error must name.
CHANGES: Final = [
    ("UPDATE meta SET value = 3 WHERE name = 'next_lsn'", "table meta, row next_lsn"),
    ("UPDATE meta SET value = 9 WHERE name = 'next_session'", "table meta, row next_session"),
    ("DELETE FROM meta WHERE name = 'next_session'", "table meta: expected a row next_session"),
    ("UPDATE topics SET name = 'A' WHERE name = 'a'", "table topics, row 1"),
    ("UPDATE topics SET name = CAST(x'ff' AS TEXT) WHERE name = 'a'", "table topics, row 1"),
    ("UPDATE topics SET number = 17 WHERE name = 'b'", "table topics, row 17"),
    ("UPDATE log SET last_lsn = 9 WHERE lsn = 7", "table log, row 7"),
    ("UPDATE log SET data = zeroblob(length(data)) WHERE lsn = 1", "table log, row 1"),
    ("UPDATE log SET topic = 2 WHERE lsn = 1", "table log, row 1"),
    ("UPDATE log SET target = 1 WHERE lsn = 7", "table log, row 7"),
    ("UPDATE log SET lsn = 2 WHERE lsn = 1", "table log, row 2"),
    ("UPDATE sessions SET client_id = 'd' WHERE number = 1", "table sessions, row 1"),
    (
        "UPDATE sessions SET client_id = CAST(x'ff' AS TEXT) WHERE number = 1",
        "table sessions, row 1: expected UTF-8 in client_id",
    ),
    ("UPDATE sessions SET will = NULL WHERE number = 1", "table sessions, row 1"),
    ("UPDATE sessions SET expiry_s = 0 WHERE number = 2", "table sessions, row 2"),
    ("UPDATE states SET cursor = cursor + (1 << 40) WHERE session = 2", "table states, row 2"),
    ("UPDATE states SET cursor = -1 WHERE session = 2", "table states, row 2"),
    ("UPDATE states SET in_flight = x'' WHERE session = 2", "table states, row 2"),
    ("UPDATE states SET received = in_flight WHERE session = 2", "table states, row 2"),
    ("UPDATE states SET gaps = x'' WHERE session = 1", "table states, row 1"),
    (
        "UPDATE subscriptions SET options = 2 WHERE session = 1",
        "table subscriptions, row (1, 'a', 1)",
    ),
    ("UPDATE subscriptions SET topic_filter = 'A' WHERE session = 1", "row (1, 'A', 1)"),
    (
        "UPDATE subscriptions SET topic_filter = CAST(x'61ff' AS TEXT) WHERE session = 1",
        "table subscriptions, row [1, b'a\\xff', 1]: expected UTF-8 in topic_filter",
    ),
    ("UPDATE subscriptions SET until_lsn = 1 << 33 WHERE session = 1", "table subscriptions"),
    ("UPDATE retained SET message = x'0102'", "table retained, row 3"),
    ("UPDATE shared_groups SET cursor = 7", "table shared_groups, row 3"),
    ("UPDATE shared_groups SET gaps = x''", "table shared_groups, row 3"),
    ("UPDATE delayed SET due_ms = 7", "table delayed, row 1"),
    ("UPDATE losses SET messages = 0", "table losses, row 1"),
    ("UPDATE time_marks SET at_ms = 6", "table time_marks, row 1"),
    ("DELETE FROM topics WHERE name = 'r'", "table retained, row 3: expected a topic"),
    ("DELETE FROM topics WHERE name = 'd'", "table delayed, row 1: expected the topic"),
    ("DELETE FROM topics WHERE name = 'b'", "table topics: expected a row 2"),
    ("UPDATE losses SET crc = crc + 1", "table losses, row 1"),
]


@pytest.mark.parametrize(("sql", "said"), CHANGES)
def test_a_row_that_was_changed_is_told(folder: Path, sql: str, said: str) -> None:
    use(folder)
    change(folder, sql)
    with pytest.raises(StoreCorrupt, match=re.escape(said)) as told:
        use(folder)
    assert str(folder / NAME) in str(told.value)


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("UPDATE log SET crc = 0, data = x'0105' WHERE lsn = 1", "table log, row 1: a stored"),
        ("UPDATE log SET crc = 0, data = x'40' WHERE lsn = 7", "table log, row 7: a stored"),
        ("UPDATE retained SET crc = 0, message = x'40'", "table retained, row 3: a stored"),
        ("UPDATE delayed SET crc = 0, message = x''", "table delayed, row 1: a stored"),
        ("UPDATE sessions SET crc = 0, will = x'' WHERE number = 1", "table sessions, row 1: a"),
    ],
)
def test_what_cannot_be_read_of_an_older_format_is_told(folder: Path, sql: str, said: str) -> None:
    change(folder, LET_ROWS_BE_UNCHECKED)
    change(folder, sql)
    with pytest.raises(StoreCorrupt, match=said):
        use(folder)


# Tables with one of their rows.
ROWS: Final = {
    "meta": "name = 'topics_forgotten'",
    "topics": "number = 1",
    "log": "lsn = 1",
    "sessions": "number = 1",
    "states": "session = 1",
    "subscriptions": "session = 1",
    "retained": "topic = 3",
    "shared_groups": "number = 3",
    "delayed": "number = 1",
    "losses": "owner = 1",
    "time_marks": "lsn = 1",
}


@pytest.mark.parametrize("table", ROWS)
def test_a_row_that_lost_its_checksum_is_told_by_all_that_look(folder: Path, table: str) -> None:
    change(folder, f"UPDATE {table} SET crc = 0 WHERE {ROWS[table]}")
    with pytest.raises(StoreCorrupt, match=f"table {table}, row .*: expected a checksum"):
        use(folder)
    assert any(table in finding for finding in quick_verify(folder / NAME).findings)
    with StoreView(folder) as view:
        found = [(one.table, one.text) for one in check(view).findings]
    assert (table, "expected a checksum, it has none") in found
    repaired = repair(folder).tables[table]
    assert repaired.lost + repaired.restored == 1
    use(folder)


@pytest.mark.parametrize("table", sorted(ALWAYS_CHECKED))
def test_what_no_older_format_wrote_has_a_checksum_in_any_store(folder: Path, table: str) -> None:
    change(folder, LET_ROWS_BE_UNCHECKED)
    use(folder)
    change(folder, f"UPDATE {table} SET crc = 0 WHERE {ROWS[table]}")
    with pytest.raises(StoreCorrupt, match=f"table {table}, row .*: expected a checksum"):
        use(folder)
    assert any(table in finding for finding in quick_verify(folder / NAME).findings)


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("DELETE FROM meta WHERE name = 'unchecked'", "expected a row unchecked, there is none"),
        ("UPDATE meta SET value = 1 WHERE name = 'unchecked'", "row unchecked: expected the"),
        (
            "UPDATE meta SET value = 1, crc = 0 WHERE name = 'unchecked'",
            "row unchecked: expected a",
        ),
    ],
)
def test_a_store_says_whether_all_rows_have_checksums(folder: Path, sql: str, said: str) -> None:
    change(folder, sql)
    with pytest.raises(StoreCorrupt, match=f"table meta.*{said}"):
        use(folder)
    assert quick_verify(folder / NAME).findings
    with StoreView(folder) as view:
        found = [f"{one.key} {one.text}" for one in check(view).findings if one.table == "meta"]
    assert any("unchecked" in text for text in found)
    repair(folder)
    use(folder)


def zero_last_page_of(file: Path, payload: bytes) -> None:
    """Fill the last overflow page of the row with this payload with zeros."""
    content = bytearray(file.read_bytes())
    # It begins with the number of the next page, 0, and has the payload's end before the checksum.
    (page,) = [
        start
        for start in range(0, len(content), 4096)
        if content[start : start + 4] == bytes(4) and content[start + 4 : start + 8] == payload[-4:]
    ]
    content[page : page + 4096] = bytes(4096)
    file.write_bytes(content)


class TestZeros:
    """A long row ends with its checksum on a page of its own, which a failing disk may empty."""

    PAYLOAD: Final = b"long" * 2500

    def test_in_the_place_of_a_messages_end_are_told(self, folder: Path) -> None:
        store = open_store(folder)
        store.commit(batch_of([LogEntry(8, message("long", self.PAYLOAD), 0)]))
        store.commit(batch_of(entries(9, ["b"])))
        store.close()
        zero_last_page_of(folder / NAME, self.PAYLOAD)
        request = ReadRequest(1, 1, 10, [FilterSpan("long", 1, 0)], PLENTY, PLENTY)
        asks: list[Callable[[SqliteStore], object]] = [
            lambda store: store.read(request),
            lambda store: store.fetch([8]),
            lambda store: store.count(request),
        ]
        store = open_store(folder)
        store.load()
        for ask in asks:
            with pytest.raises(StoreCorrupt, match="table log, row 8: expected a checksum"):
                ask(store)
        store.close()
        change(folder, LET_ROWS_BE_UNCHECKED)  # then nothing but the record's form tells
        assert quick_verify(folder / NAME).findings

    def test_in_the_place_of_a_retained_messages_end_are_told(self, folder: Path) -> None:
        store = open_store(folder)
        batch = Batch()
        batch.retained = [RetainedRecord("long", message("long", self.PAYLOAD))]
        store.commit(batch)
        store.close()
        zero_last_page_of(folder / NAME, self.PAYLOAD)
        with pytest.raises(StoreCorrupt, match="table retained, row 5: expected a checksum"):
            use(folder)


def test_a_damaged_topic_is_told_when_it_is_asked_for(folder: Path) -> None:
    change(folder, "UPDATE topics SET crc = 7 WHERE name = 'a'")
    asks: list[Callable[[SqliteStore], object]] = [
        lambda store: store.commit(batch_of(entries(8, ["a"]))),
        lambda store: store.log_topics("", 10),
        lambda store: store.read(ReadRequest(1, 1, 8, [FilterSpan("a", 1, 0)], PLENTY, PLENTY)),
        lambda store: store.count(
            ReadRequest(1, 1, 8, [FilterSpan("$share/g/a", 1, 0)], PLENTY, PLENTY)
        ),
        lambda store: store.fetch([2]),
    ]
    for ask in asks:
        store = open_store(folder)
        with pytest.raises(StoreCorrupt, match="table topics, row 1"):
            ask(store)
        store.close()


def test_an_index_that_names_another_row_is_told(folder: Path) -> None:
    connection = apsw.Connection(str(folder / NAME))
    rows = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'log_topic'")
    ((page,),) = rows.fetchall()
    assert isinstance(page, int)
    connection.close()
    content = bytearray((folder / NAME).read_bytes())
    # The second of its two entries, (topic 2, lsn 6), ends with the lsn. Row 7 is for a target.
    start = (page - 1) * 4096
    entry = start + int.from_bytes(content[start + 10 : start + 12], "big")
    assert content[entry : entry + 6] == bytes([5, 3, 1, 1, 2, 6])
    content[entry + 5] = 7
    (folder / NAME).write_bytes(content)
    store = open_store(folder)
    with pytest.raises(StoreCorrupt, match="an index of table log names row 7"):
        store.read(ReadRequest(9, 1, 8, [FilterSpan("b", 1, 0)], PLENTY, PLENTY))
    store.close()


def test_a_type_that_a_table_does_not_have_is_named() -> None:
    connection = apsw.Connection(":memory:")
    connection.execute(
        "CREATE TABLE t (n INTEGER PRIMARY KEY, a INTEGER NOT NULL, b BLOB, crc INTEGER)"
    )
    for row in [(1, 5, b"x"), (2, "five", b"x"), (3, 5, "x"), (5, 5, None)]:
        connection.execute("INSERT INTO t VALUES (?, ?, ?, ?)", (*row, row_checksum(row)))
    connection.execute("INSERT INTO t VALUES (6, 1.5, x'', 1)")
    assert [str(damage) for damage in damages(connection.cursor(), "t", False)] == [
        "table t, row 2: expected integer in a, found text",
        "table t, row 3: expected blob in b, found text",
        "table t, row 6: expected integer in a, found real",
    ]
    assert str(find_damage(connection.cursor(), ["t"], False)).startswith("table t, row 2")


class TestChecksums:
    def test_every_value_counts_and_its_place(self) -> None:
        row = (1, "a", 2**62, b"b", None)
        others: list[list[object]] = [
            [0, 2, 2**31, 2**32 + 1, 2**63 - 1],
            ["", "b", "aa", "a\0", None],
            [0, 1, 2**30, 2**31, 2**61, 2**63 - 1],
            [b"", b"c", b"bb", b"b\0", None],
            [b"", "", "a"],
        ]
        found = [row_checksum(row)]
        for index, values in enumerate(others):
            found += [row_checksum((*row[:index], value, *row[index + 1 :])) for value in values]
        assert len({*found, 0, -1}) == len(found) + 2 - 1  # "" and b"" in the last place are one
        assert row_checksum(("ab", "c")) != row_checksum(("a", "bc"))
        assert row_checksum((None, "")) != row_checksum(("", None))
        assert row_checksum((1, 2)) != row_checksum((2, 1))

    def test_every_bit_of_a_number_counts(self) -> None:
        numbers = {row_checksum((3, 1 << bit, 5)) for bit in range(63)}
        assert len(numbers) == 63

    def test_they_are_what_they_always_were(self) -> None:
        """Stores hold them."""
        assert row_checksum(()) == 1
        assert row_checksum((1, 2**40, b"abc", "\U0010ffff", None)) == 0x662BA9A7

    def test_what_is_no_value_has_none(self) -> None:
        for value in (-1, 1.5, -(2**63)):
            assert row_checksum((value,)) == -1
            with pytest.raises(StoreCorrupt, match="table t, row 1: expected the checksum 7"):
                check_row("t", 1, (value,), 7)

    def test_large_contents_are_the_same_in_pieces(self) -> None:
        for size in (4095, 4096, 4097, 10_000, 65_535, 65_536, 100_000):
            content = (bytes(range(256)) * (size // 256 + 1))[:size]
            begun = add_number(0, size + 1)
            assert row_checksum((content,)) == crc32(content, begun)


def test_all_of_a_store_comes_back_from_before_there_were_checksums(folder: Path) -> None:
    change(folder, LET_ROWS_BE_UNCHECKED)
    connection = apsw.Connection(str(folder / NAME))
    for table in ("topics", "log", "sessions", "states", "subscriptions", "retained"):
        connection.execute(f"UPDATE {table} SET crc = 0")
    connection.close()
    use(folder)
    store = open_store(folder)
    batch = Batch()
    batch.states = [StateRecord(1, 7, b"", b"")]
    batch.groups = [GroupRecord(3, "$share/g/a", 9, b"")]
    batch.losses = [LossRecord(1, 1, 1, 1, 1)]
    store.commit(batch)
    store.close()
    use(folder)
    change(folder, "UPDATE states SET cursor = 8 WHERE session = 1")
    with pytest.raises(StoreCorrupt, match="table states, row 1"):
        use(folder)
