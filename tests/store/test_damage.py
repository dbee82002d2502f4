"""Promise 18: what is not as it was written is told, with table and row, and never delivered."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final
from zlib import crc32

import apsw
import pytest

from holdfast.errors import StoreCorrupt
from holdfast.message import Message
from holdfast.store.checksums import add_number, check_row, row_checksum
from holdfast.store.records import (
    Batch,
    FilterSpan,
    GroupRecord,
    LossRecord,
    ReadRequest,
    RetainedRecord,
    StateRecord,
    TimeMark,
)
from holdfast.store.sqlite import SqliteStore, open_store
from holdfast.store.sqlite_damage import damages, find_damage
from tests.store.support import (
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
    change(folder, sql)
    with pytest.raises(StoreCorrupt, match=said):
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
    assert [str(damage) for damage in damages(connection.cursor(), "t")] == [
        "table t, row 2: expected integer in a, found text",
        "table t, row 3: expected blob in b, found text",
        "table t, row 6: expected integer in a, found real",
    ]
    assert str(find_damage(connection.cursor(), ["t"])).startswith("table t, row 2")


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
    connection = apsw.Connection(str(folder / NAME))
    for table in ("meta", "topics", "log", "sessions", "states", "subscriptions", "retained"):
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
