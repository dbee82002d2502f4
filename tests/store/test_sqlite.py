"""What is SQLite's own: the file, its format, the cost of commits and reads, the log's size."""

import shutil
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import apsw
import pytest

from holdfast.disk import connection as disk_connection
from holdfast.disk.checksums import row_checksum
from holdfast.errors import StoreCorrupt, StoreError, StoreTooNew
from holdfast.store import schema, sqlite_upkeep
from holdfast.store.records import (
    OPEN,
    FilterSpan,
    LogEntry,
    ReadRequest,
    RetainedRecord,
)
from holdfast.store.sqlite import SqliteStore, open_store
from tests.store.support import (
    PLENTY,
    batch_of,
    delayed,
    entries,
    folder_content,
    group,
    message,
    read_all,
    session,
    state,
)
from tests.store.vfs import WatchedVfs

NAME: Final = "holdfast.db"
_CHECKSUM: Final = row_checksum((1, "changed", 5, 1, 3600, 0, None, None, 0, 0))
CHANGED: Final = f"UPDATE sessions SET client_id = 'changed', crc = {_CHECKSUM}"
CROWD: Final = 100_000  # messages


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = open_store(tmp_path)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqliteStore]:
    """A store with 100 messages among very many others, on 2000 topics."""
    store = open_store(tmp_path_factory.mktemp("crowded"))
    topics = [f"dev/{number % 1900}" for number in range(CROWD)]
    topics[500 :: CROWD // 100] = [f"me/x{number}" for number in range(100)]
    for first in range(0, CROWD, 10_000):
        store.commit(batch_of(entries(first + 1, topics[first : first + 10_000])))
    yield store
    store.close()


def make_store(folder: Path) -> None:
    """A store with one of each, closed."""
    store = open_store(folder)
    batch = batch_of(entries(1, ["a", "b"]))
    batch.sessions = [session(1)]
    batch.states = [state(1)]
    batch.retained = [RetainedRecord("r", message("r"))]
    batch.groups = [group(2)]
    batch.delayed = [delayed(1)]
    store.commit(batch)
    store.close()


def make_killed_store(folder: Path, change: str) -> None:
    """A store whose last change is in the write-ahead log only, as ``kill -9`` leaves it."""
    source = folder.parent / "source"
    make_store(source)
    connection = apsw.Connection(str(source / NAME))
    connection.wal_autocheckpoint(0)
    connection.execute(change)
    folder.mkdir()
    for name in (NAME, f"{NAME}-wal"):
        shutil.copy(source / name, folder / name)
    connection.close()


class TestFile:
    def test_the_folder_is_made_for_its_owner(self, tmp_path: Path) -> None:
        folder = tmp_path / "a" / "b"
        open_store(folder).close()
        assert folder.stat().st_mode & 0o777 == 0o700
        assert (folder / NAME).stat().st_mode & 0o777 == 0o600
        assert [path.name for path in folder.iterdir()] == [NAME]  # nothing left beside it

    def test_it_says_what_it_is(self, store: SqliteStore, tmp_path: Path) -> None:
        assert store.description == f"SQLite, {tmp_path / NAME}"

    def test_a_folder_that_cannot_be_used_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(StoreError, match="file"):
            open_store(tmp_path / "file")
        (tmp_path / "other" / NAME).mkdir(parents=True)
        with pytest.raises(StoreError, match=NAME):
            open_store(tmp_path / "other")

    def test_an_empty_file_becomes_a_store(self, tmp_path: Path) -> None:
        (tmp_path / NAME).write_bytes(b"")
        make_store(tmp_path)

    def test_a_kill_before_the_tables_are_made_does_no_harm(self, tmp_path: Path) -> None:
        connection = apsw.Connection(str(tmp_path / NAME))
        assert connection.pragma("journal_mode", "wal") == "wal"
        connection.close()
        assert (tmp_path / NAME).stat().st_size > 0
        make_store(tmp_path)

    def test_what_a_killed_broker_left_in_the_log_counts(self, tmp_path: Path) -> None:
        folder = tmp_path / "killed"
        make_killed_store(folder, CHANGED)
        store = open_store(folder)
        assert [record.client_id for record in store.load().sessions] == ["changed"]
        store.close()

    def test_closing_twice_is_fine(self, tmp_path: Path) -> None:
        store = open_store(tmp_path)
        store.close()
        store.close()


def _text(folder: Path) -> None:
    folder.mkdir()
    (folder / NAME).write_bytes(b"This is the operator's shopping list. " * 9)


def _short(folder: Path) -> None:
    folder.mkdir()
    (folder / NAME).write_bytes(b"SQLite format 3\x00")


def _foreign(folder: Path) -> None:
    folder.mkdir()
    connection = apsw.Connection(str(folder / NAME))
    connection.execute("CREATE TABLE songs (title TEXT)")
    connection.close()


def _foreign_with_id(folder: Path) -> None:
    make_store(folder)
    _patch(folder / NAME, 68, 0x12345678)


def _newer(folder: Path) -> None:
    make_store(folder)
    _patch(folder / NAME, 60, schema.FORMAT + 1)


def _newer_in_the_log(folder: Path) -> None:
    make_killed_store(folder, f"PRAGMA user_version = {schema.FORMAT + 1}")


def _newer_beside_an_older_log(folder: Path) -> None:
    make_killed_store(folder, CHANGED)
    _patch(folder / NAME, 60, schema.FORMAT + 7)


def _impossible_format(folder: Path) -> None:
    make_store(folder)
    _patch(folder / NAME, 60, 0)


def _log_without_a_store(folder: Path) -> None:
    make_killed_store(folder, CHANGED)
    (folder / NAME).unlink()


def _log_of_an_emptied_store(folder: Path) -> None:
    make_killed_store(folder, CHANGED)
    (folder / NAME).write_bytes(b"")


def _patch(path: Path, offset: int, number: int) -> None:
    content = bytearray(path.read_bytes())
    struct.pack_into(">I", content, offset, number)
    path.write_bytes(content)


class TestRefusal:
    @pytest.mark.parametrize(
        ("make", "kind", "said"),
        [
            (_newer, StoreTooNew, "format is 4, this one knows up to 3"),
            (_newer_in_the_log, StoreTooNew, "format is 4, this one knows up to 3"),
            (_newer_beside_an_older_log, StoreTooNew, "format is 10"),
            (_text, StoreCorrupt, "not a SQLite database"),
            (_short, StoreCorrupt, "not a SQLite database"),
            (_foreign, StoreCorrupt, "expected application id 0x484F4C44, found 0x00000000"),
            (_foreign_with_id, StoreCorrupt, "found 0x12345678"),
            (_impossible_format, StoreCorrupt, "has the format 0"),
            (_log_without_a_store, StoreCorrupt, "missing or empty"),
            (_log_of_an_emptied_store, StoreCorrupt, "missing or empty"),
        ],
    )
    def test_what_is_refused_is_left_as_it_is(
        self,
        tmp_path: Path,
        make: Callable[[Path], None],
        kind: type[StoreError],
        said: str,
    ) -> None:
        folder = tmp_path / "refused"
        make(folder)
        before = folder_content(folder)
        for _ in range(2):
            with pytest.raises(kind, match=said) as refused:
                open_store(folder)
            assert str(folder / NAME) in str(refused.value)
            assert folder_content(folder) == before

    def test_a_damaged_schema_is_told(self, tmp_path: Path) -> None:
        make_store(tmp_path)
        content = bytearray((tmp_path / NAME).read_bytes())
        content[100:4096] = b"\xa5" * 3996
        (tmp_path / NAME).write_bytes(content)
        before = folder_content(tmp_path)
        with pytest.raises(StoreCorrupt, match=f"{NAME}.*damaged"):
            open_store(tmp_path)
        assert folder_content(tmp_path)[NAME] == before[NAME]

    def test_another_program_in_the_way_is_told(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make_store(tmp_path)
        monkeypatch.setattr(disk_connection, "BUSY_TIMEOUT_MS", 10)
        store = open_store(tmp_path)
        other = apsw.Connection(str(tmp_path / NAME))
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="another program has the file locked"):
            store.commit(batch_of(entries(3, ["a"])))
        store.close()
        other.close()


class TestCost:
    def test_a_commit_takes_few_steps(self, store: SqliteStore) -> None:
        lsn = 1
        for topics in (
            [f"t/{number // 10}" for number in range(1000)],
            [f"t/{number % 100}" for number in range(1000)],
        ):
            for _ in range(2):  # with new topics, and with known ones
                batch = batch_of(entries(lsn, topics))
                lsn += len(topics)
                batch.states = [state(number, lsn) for number in range(1, 101)]
                with counted_steps(store) as steps:
                    store.commit(batch)
                assert steps[0] < 40

    def test_a_run_of_one_topic_is_one_row(self, store: SqliteStore) -> None:
        store.commit(batch_of(entries(1, ["a"] * 100)))
        assert store._writing.queries.number("SELECT count(*) FROM log") == 1
        large = b"x" * 20_000
        store.commit(batch_of([LogEntry(101 + i, message("a", large)) for i in range(10)]))
        assert store._writing.queries.number("SELECT count(*) FROM log") == 1 + 10
        store.commit(batch_of(entries(111, ["a"] * 256)))
        assert store._writing.queries.number("SELECT count(*) FROM log") == 1 + 10 + 2

    @pytest.mark.parametrize(
        "wanted",
        [["me/x3"], ["me/#"], ["+/x3"], ["$share/g/me/+"], [f"me/x{n}" for n in range(100)]],
    )
    def test_a_read_costs_what_it_gives(self, crowded: SqliteStore, wanted: list[str]) -> None:
        next_lsn = crowded.load().next_lsn
        spans = [FilterSpan(topic_filter, 1, OPEN) for topic_filter in wanted]
        request = ReadRequest(1, 1, next_lsn, spans, 256, PLENTY)
        crowded.read(request)  # looks at all topics once
        with counted_work(crowded) as work:
            found = crowded.read(request)
        assert found.position == next_lsn
        assert len(found.entries) == (1 if wanted[0].endswith("/x3") else 100)
        assert work[0] < 50_000 < CROWD  # fewer instructions than there are messages
        assert work[1] <= 20  # statements and rows

    def test_a_filter_that_matches_much_is_read_in_bounded_steps(
        self, crowded: SqliteStore
    ) -> None:
        next_lsn = crowded.load().next_lsn
        request = ReadRequest(1, 1, next_lsn, [FilterSpan("#", 1, OPEN)], 100, PLENTY)
        crowded.read(request)
        with counted_work(crowded) as work:
            assert len(crowded.read(request).entries) == 100
        assert work[0] < 200_000

    def test_what_comes_before_all_spans_is_not_looked_at(self, crowded: SqliteStore) -> None:
        next_lsn = crowded.load().next_lsn
        spans = [FilterSpan("#", next_lsn - 10, OPEN), FilterSpan("+/+", next_lsn - 5, OPEN)]
        request = ReadRequest(1, 1, next_lsn, spans, 100, PLENTY)
        found = crowded.read(request)
        assert [entry.lsn for entry in found.entries] == list(range(next_lsn - 10, next_lsn))
        assert found.position == next_lsn
        spans.append(FilterSpan("me/+", 1, OPEN))
        assert crowded.read(request).position > 5000

    def test_a_filter_whose_many_topics_come_late_skips_to_them(self, store: SqliteStore) -> None:
        many = [f"late/{number}" for number in range(2000)]
        store.commit(batch_of(entries(1, many)))
        store.commit(batch_of(entries(2001, ["a", "b"] * 30_000)))
        store.commit(batch_of(entries(62_001, many)))
        request = ReadRequest(1, 2001, 64_001, [FilterSpan("late/+", 1, OPEN)], 100, PLENTY)
        assert store.read(request).position >= 62_001
        assert [entry.lsn for entry in read_all(store, request)] == list(range(62_001, 64_001))


class TestGrowth:
    def test_the_write_ahead_log_is_used_again(self, store: SqliteStore, tmp_path: Path) -> None:
        log = tmp_path / f"{NAME}-wal"
        sizes = []
        for step in range(40):
            store.commit(batch_of(entries(1 + step * 2000, [f"t/{n % 7}" for n in range(2000)])))
            sizes.append(log.stat().st_size)
        assert max(sizes) < 2 * sqlite_upkeep.CHECKPOINT_FRAMES * 4200

    def test_a_log_that_is_read_all_the_time_is_not_carried_over_with_each_commit(
        self, tmp_path: Path, vfs: WatchedVfs, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sqlite_upkeep, "CHECKPOINT_FRAMES", 300)
        monkeypatch.setattr(sqlite_upkeep, "RESTART_FRAMES", 900)
        store = open_store(tmp_path, vfs.name)
        reading = apsw.Connection(str(tmp_path / NAME), vfs=vfs.name)
        vfs.operations.clear()
        for step in range(40):
            store.commit(batch_of(entries(1 + step * 2000, [f"t/{n % 7}" for n in range(2000)])))
            if step > 0:
                reading.execute("COMMIT")
            reading.execute("BEGIN")
            reading.execute("SELECT max(lsn) FROM log").fetchall()
        frames = vfs.operations.count(("write", "log")) // 2
        assert frames > 5 * sqlite_upkeep.CHECKPOINT_FRAMES
        checkpoints = vfs.operations.count(("sync", "log")) - 40  # the commits
        assert 1 <= checkpoints <= frames // sqlite_upkeep.CHECKPOINT_FRAMES
        reading.close()
        store.close()

    def test_reads_without_a_pause_do_not_make_the_log_grow(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sqlite_upkeep, "CHECKPOINT_FRAMES", 100)
        monkeypatch.setattr(sqlite_upkeep, "RESTART_FRAMES", 400)
        store = open_store(tmp_path)
        store.commit(batch_of(entries(1, ["a"])))
        is_over = threading.Event()

        def read_on() -> None:
            while not is_over.is_set():
                store.fetch(list(range(1, 300)))

        readers = [threading.Thread(target=read_on) for _ in range(2)]
        for reader in readers:
            reader.start()
        for step in range(60):
            store.commit(batch_of(entries(2 + step * 1000, [f"t/{n % 7}" for n in range(1000)])))
        is_over.set()
        for reader in readers:
            reader.join(60)
        assert (tmp_path / f"{NAME}-wal").stat().st_size < 700 * 4200
        store.close()

    def test_long_names_are_not_kept_in_memory(self, store: SqliteStore) -> None:
        store.commit(batch_of(entries(1, ["short", "long" * 1000])))
        assert list(store._writer.topics) == ["short"]

    def test_topics_without_messages_are_forgotten(self, store: SqliteStore) -> None:
        for step in range(20):
            topics = [f"once/{step}/{number}" for number in range(100)]
            batch = batch_of(entries(1 + step * 101, [*topics, "always"]))
            batch.retained = [RetainedRecord(f"slot/{step}", message(f"slot/{step}"))]
            if step > 0:
                batch.retained.append(RetainedRecord(f"slot/{step - 1}", None))
            # One waits until the next step, one until the number is used again, one not at all.
            batch.delayed = [
                delayed(step + 1, f"later/{step}"),
                delayed(100, f"replaced/{step}"),
                delayed(200, f"replaced at once/{step}"),
                delayed(200, f"gone at once/{step}"),
            ]
            batch.delayed_removed = [step, 200]
            store.commit(batch)
        while store.trim(20 * 101):
            pass
        names = store._writing.queries.names("SELECT json_group_array(name) FROM topics")
        assert set(names) == {"always", "later/19", "replaced/19", "slot/19"}


@contextmanager
def counted_steps(store: SqliteStore) -> Iterator[list[int]]:
    """How often a commit makes SQLite step: once for each statement and each row."""
    counts = [0]

    def count(_event: object) -> None:
        counts[0] += 1

    mask = apsw.SQLITE_TRACE_STMT | apsw.SQLITE_TRACE_ROW
    store._writing.connection.trace_v2(mask, count)
    yield counts
    store._writing.connection.trace_v2(0, None)


@contextmanager
def counted_work(store: SqliteStore) -> Iterator[list[int]]:
    """The instructions of SQLite's machine that reads take, and their steps."""
    counts = [0, 0]

    def count(event: dict[str, object]) -> None:
        if event["code"] == apsw.SQLITE_TRACE_PROFILE:
            status = event["stmt_status"]
            assert isinstance(status, dict)
            counts[0] += status["SQLITE_STMTSTATUS_VM_STEP"]
        else:
            counts[1] += 1

    mask = apsw.SQLITE_TRACE_PROFILE | apsw.SQLITE_TRACE_STMT | apsw.SQLITE_TRACE_ROW
    connection = store._reader._connection
    connection.trace_v2(mask, count)
    yield counts
    connection.trace_v2(0, None)
