"""Stores of every format that was released: each is opened, keeps all it has, and goes on."""

from pathlib import Path
from typing import Final

import apsw
import pytest

from holdfast.errors import StoreError, StoreTooNew
from holdfast.message import Message, Properties
from holdfast.store import schema
from holdfast.store.backup import compact
from holdfast.store.quick_verify import quick_verify
from holdfast.store.reading import StoreView
from holdfast.store.records import OPEN, Batch, FilterSpan, ReadRequest, pack_gaps
from holdfast.store.salvage import repair
from holdfast.store.sqlite import SqliteStore, open_store
from holdfast.store.verify import check
from tests.store.damage import content, counters
from tests.store.support import (
    LET_ROWS_BE_UNCHECKED,
    PLENTY,
    batch_of,
    content_of_entries,
    content_of_message,
    content_of_snapshot,
    delayed,
    entries,
    group,
    loss,
    message,
    state,
)
from tests.store.test_sqlite import make_store

NAME: Final = "holdfast.db"
FORMATS: Final = list(range(1, schema.FORMAT + 1))


def make_old_store(folder: Path, format_number: int) -> None:
    folder.mkdir(exist_ok=True)
    script = Path(__file__).parent / f"format_{format_number}.sql"
    connection = apsw.Connection(str(folder / NAME))
    for _ in connection.execute(script.read_text("utf-8")):
        pass
    connection.close()


def what_it_holds(format_number: int) -> dict[str, object]:
    """The snapshot of the fixture of a format."""
    will = Message("007", b"\x00gone\xff", 2, True, Properties(), 2**42, "c")
    assert will.properties is not None
    will.properties.user_properties = [("k", "1"), ("k", "2")]
    has_more = format_number > 1
    has_gaps = format_number > 2
    other = (2, "é", 4, 3, 0xFFFF_FFFF, 2**41) if has_more else (2, "é", 5, 1, 3600, 0)
    gaps = pack_gaps([(2, OPEN)]) if has_gaps else b""
    waiting = content_of_message(message("later", b"wait"))
    return {
        "next_lsn": 5,
        "next_session": 4 if has_more else 3,
        "sessions": [
            ((1, "007", 5, 1, 3600, 0), (content_of_message(will), 0, 0)),
            (other, (None, 0, 0)),
        ],
        "states": [
            (1, 2, bytes.fromhex("0900070e06"), b"\0\1", pack_gaps([(1, 2)]) if has_gaps else b""),
            (2, 1, b"", b"\xff", b""),
        ],
        "subscriptions": [
            (1, "a/+/#", 1, 0, 1, 0),
            (2, "1e5", 3, 9, 255, 7 if has_more else 0),
        ],
        "retained": [("7", content_of_message(message("7", b"kept")))],
        "groups": [(3, "$share/g/a", 2, bytes.fromhex("0f0004"), gaps)] if has_more else [],
        "delayed": [(1, 2**42, 60, waiting)] if has_more else [],
        "losses": [(1, 7, 2**40, 2**41, 3)] if has_gaps else [],
        "time_marks": [(1, 2**42)] if has_gaps else [],
    }


def check_log(store: SqliteStore, format_number: int) -> None:
    was = [*entries(1, ["a", "a", "b/c"]), *entries(4, ["b/c"], 2)]
    was[1].message.publisher = "meter" if format_number > 1 else ""
    assert content_of_entries(store.fetch([1, 2, 3, 4])) == content_of_entries(was)
    spans = [FilterSpan("a", 1, OPEN), FilterSpan("b/+", 1, OPEN)]
    found = store.read(ReadRequest(2, 1, 5, spans, PLENTY, PLENTY))
    assert content_of_entries(found.entries) == content_of_entries(was)


@pytest.mark.parametrize("format_number", FORMATS)
def test_a_store_of_any_format_is_brought_forward_and_keeps_all(
    tmp_path: Path, format_number: int
) -> None:
    make_old_store(tmp_path, format_number)
    for _ in range(2):
        store = open_store(tmp_path)
        assert store._writing.queries.number("PRAGMA user_version") == schema.FORMAT
        assert content_of_snapshot(store.load()) == what_it_holds(format_number)
        check_log(store, format_number)
        while store.maintain():
            pass
        assert store.space().log_messages == 4
        store.close()


@pytest.mark.parametrize("format_number", FORMATS)
def test_a_store_of_any_format_goes_on(tmp_path: Path, format_number: int) -> None:
    make_old_store(tmp_path, format_number)
    store = open_store(tmp_path)
    batch = batch_of(entries(5, ["a", "new"]))
    batch.states = [state(2, 5)]
    batch.groups = [group(8, cursor=3)]
    batch.delayed = [delayed(2)]
    batch.losses = [loss(2)]
    store.commit(batch)
    store.close()
    expected = what_it_holds(format_number)
    for _ in range(2):
        store = open_store(tmp_path)
        found = content_of_snapshot(store.load())
        for unchanged in ("sessions", "subscriptions", "retained", "time_marks"):
            assert found[unchanged] == expected[unchanged]
        assert found["next_lsn"] == 7
        assert found["next_session"] == 9
        check_log(store, format_number)
        assert content_of_entries(store.fetch([5, 6])) == content_of_entries(batch.entries)
        store.close()


def test_a_store_brought_forward_has_the_tables_of_a_new_one(tmp_path: Path) -> None:
    # Of a new store their texts differ in comments.
    queries = [
        "SELECT type, name, tbl_name FROM sqlite_schema ORDER BY name",
        """
        SELECT t.name, t.wr, t.strict, c.* FROM pragma_table_list AS t
        JOIN pragma_table_xinfo(t.name) AS c WHERE t.name NOT LIKE 'sqlite%' ORDER BY 1, c.cid
        """,
    ]
    found: list[list[object]] = []
    for format_number in (0, *FORMATS):
        folder = tmp_path / str(format_number)
        if format_number > 0:
            make_old_store(folder, format_number)
        open_store(folder).close()
        connection = apsw.Connection(str(folder / NAME))
        found.append([connection.execute(query).fetchall() for query in queries])
        connection.close()
    assert all(tables == found[0] for tables in found)


@pytest.mark.parametrize("format_number", [0, *FORMATS])
def test_a_store_says_whether_it_has_rows_without_a_checksum(
    tmp_path: Path, format_number: int
) -> None:
    if format_number > 0:
        make_old_store(tmp_path, format_number)
    open_store(tmp_path).close()
    assert counters(tmp_path)["unchecked"] == (1 if format_number in (1, 2) else 0)


@pytest.mark.parametrize("format_number", [1, 2])
@pytest.mark.parametrize("is_migrated", [False, True])
def test_a_store_without_checksums_is_sound(
    tmp_path: Path, format_number: int, is_migrated: bool
) -> None:
    """Before it is brought forward and after, compacted too; and its repair loses nothing."""
    make_old_store(tmp_path, format_number)
    if is_migrated:
        open_store(tmp_path).close()
        compact(tmp_path)
    # The packet identifiers of a state here are none; where there is no checksum, that is told.
    odd = ["table states: the row 2 is damaged"]
    assert quick_verify(tmp_path / NAME).findings == odd
    with StoreView(tmp_path) as view:
        found = [one for one in check(view).findings if "checksum" in one.text]
    assert found == []
    assert not repair(tmp_path).tables["log"].is_damaged
    store = open_store(tmp_path)
    check_log(store, format_number)
    store.close()
    rows = [row for table in content(tmp_path).values() for row in table.values()]
    assert len(rows) > 10
    assert all(row[-1] != 0 for row in rows)
    assert counters(tmp_path)["unchecked"] == 0
    assert counters(tmp_path)["next_lsn"] == 5


class TestMigration:
    def test_a_step_that_fails_leaves_the_store_as_it_was(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make_store(tmp_path)
        store = open_store(tmp_path)
        before = content_of_snapshot(store.load())
        store.close()

        def half(connection: apsw.Connection) -> None:
            connection.execute("DELETE FROM sessions")
            connection.execute("DELETE FROM no_such_table")

        monkeypatch.setattr(schema, "MIGRATIONS", [*schema.MIGRATIONS, half])
        monkeypatch.setattr(schema, "FORMAT", schema.FORMAT + 1)
        with pytest.raises(StoreError, match="no_such_table"):
            open_store(tmp_path)
        monkeypatch.undo()
        store = open_store(tmp_path)
        assert content_of_snapshot(store.load()) == before
        store.close()

    def test_an_older_store_is_brought_forward(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make_store(tmp_path)

        def rename(connection: apsw.Connection) -> None:
            connection.execute(LET_ROWS_BE_UNCHECKED)
            connection.execute("UPDATE sessions SET client_id = 'migrated', crc = 0")

        monkeypatch.setattr(schema, "MIGRATIONS", [*schema.MIGRATIONS, rename])
        monkeypatch.setattr(schema, "FORMAT", schema.FORMAT + 1)
        for _ in range(2):
            store = open_store(tmp_path)
            assert [record.client_id for record in store.load().sessions] == ["migrated"]
            store.commit(Batch())
            store.close()
        monkeypatch.undo()
        with pytest.raises(StoreTooNew):
            open_store(tmp_path)
