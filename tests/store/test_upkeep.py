"""Upkeep of the store on SQLite: short steps, files that become small again, a disk that fails."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Final

import apsw
import pytest

from holdfast.errors import StoreError
from holdfast.store import sqlite_upkeep
from holdfast.store.records import Batch, FilterSpan, LogEntry, ReadRequest, TopicCut
from holdfast.store.sqlite import SqliteStore, open_store
from holdfast.store.steps import STEP_NS, StepSize
from tests.store.support import PLENTY, batch_of, entries, message
from tests.store.test_failures import fails_with
from tests.store.vfs import WatchedVfs, no_trouble

NAME: Final = "holdfast.db"


class Clock:
    """Each look at it takes so long."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.step_ns = 0

    def __call__(self) -> int:
        self.now_ns += self.step_ns
        return self.now_ns


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, vfs: WatchedVfs, clock: Clock) -> Iterator[SqliteStore]:
    opened = open_store(tmp_path, vfs.name, clock)
    yield opened
    opened.close()


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_upkeep, "VACUUM_ABOVE_BYTES", 400_000)
    monkeypatch.setattr(sqlite_upkeep, "WAL_BYTES_MAX", 1_000_000)


def fill(store: SqliteStore, messages: int, topics: int = 7) -> None:
    first = store.load().next_lsn
    for start in range(first, first + messages, 5000):
        names = [f"t/{lsn % topics}" for lsn in range(start, min(start + 5000, first + messages))]
        store.commit(batch_of(entries(start, names)))


def rest(store: SqliteStore) -> int:
    """Let upkeep do all there is to do, and say how many steps it took."""
    for steps in count(1):
        if not store.maintain():
            return steps
    raise AssertionError


def sizes(folder: Path) -> tuple[int, int]:
    return (folder / NAME).stat().st_size, (folder / f"{NAME}-wal").stat().st_size


@pytest.mark.usefixtures("small_limits")
class TestSmall:
    def test_a_store_that_gave_everything_away_is_small_again(
        self, store: SqliteStore, tmp_path: Path
    ) -> None:
        fill(store, 60_000)
        while store.trim(60_001):
            store.maintain()
        assert sum(sizes(tmp_path)) > 2_000_000
        rest(store)
        file_bytes, wal_bytes = sizes(tmp_path)
        assert file_bytes < 300_000
        assert wal_bytes <= 1_000_000
        found = store.space()
        assert (found.file_bytes, found.wal_bytes) == (file_bytes, wal_bytes)
        assert (found.log_messages, found.log_bytes, found.first_lsn) == (0, 0, 60_001)
        fill(store, 10)
        assert len(store.fetch(list(range(1, 60_020)))) == 10

    def test_topics_that_are_cut_out_leave_room_that_is_given_back(
        self, store: SqliteStore, tmp_path: Path
    ) -> None:
        fill(store, 60_000, topics=3)
        while store.trim_topics(
            [TopicCut("t/0", 0, [(1, 60_001)]), TopicCut("t/2", 0, [(1, PLENTY)])]
        ):
            pass
        before, _ = sizes(tmp_path)
        rest(store)
        after, _ = sizes(tmp_path)
        assert after < before / 2
        found = store.space()
        assert found.log_messages == 20_000
        assert found.free_bytes <= found.file_bytes / 8
        request = ReadRequest(1, 1, 60_001, [FilterSpan("#", 1, 0)], PLENTY, PLENTY)
        assert [entry.lsn for entry in store.read(request).entries] == list(range(1, 60_000, 3))

    def test_what_is_little_or_a_small_share_is_kept(
        self, store: SqliteStore, tmp_path: Path
    ) -> None:
        fill(store, 60_000)
        while store.trim(6000):
            pass
        rest(store)
        assert store.space().free_bytes > 100_000  # a tenth of the file
        is_vacuum = "PRAGMA freelist_count"
        pages = store._writing.queries.number(is_vacuum)
        rest(store)
        assert store._writing.queries.number(is_vacuum) == pages

    def test_the_log_of_one_large_commit_is_cut(self, store: SqliteStore, tmp_path: Path) -> None:
        store.commit(batch_of([LogEntry(1, message("a", b"x" * 5_000_000))]))
        assert sizes(tmp_path)[1] > 5_000_000
        rest(store)
        assert sizes(tmp_path)[1] <= 1_000_000
        assert len(store.fetch([1])[0].message.payload) == 5_000_000

    def test_a_log_that_another_program_reads_is_cut_later(
        self, store: SqliteStore, tmp_path: Path, vfs: WatchedVfs
    ) -> None:
        other = apsw.Connection(str(tmp_path / NAME), vfs=vfs.name)
        other.execute("BEGIN")
        other.execute("SELECT count(*) FROM log").fetchall()
        store.commit(batch_of([LogEntry(1, message("a", b"x" * 5_000_000))]))
        rest(store)
        vfs.operations.clear()
        for _ in range(5):
            rest(store)
        assert vfs.operations == []  # it is not tried again and again
        other.close()
        store.commit(batch_of(entries(2, ["a"])))
        rest(store)
        assert sizes(tmp_path)[1] <= 1_000_000

    @pytest.mark.parametrize(
        ("operation", "file"), [("sync", "log"), ("write", "main"), ("sync", "main")]
    )
    def test_a_disk_that_fails_ends_the_store_and_is_not_asked_again(
        self, store: SqliteStore, tmp_path: Path, vfs: WatchedVfs, operation: str, file: str
    ) -> None:
        fill(store, 30_000)
        while store.trim(30_001):
            pass
        vfs.trouble = fails_with(apsw.SQLITE_IOERR, operation, file)
        with pytest.raises(StoreError, match=r"I/O error"):
            rest(store)
        vfs.trouble = no_trouble
        vfs.operations.clear()
        with pytest.raises(StoreError, match="nothing more is committed"):
            store.maintain()
        with pytest.raises(StoreError, match="nothing more is committed"):
            store.trim_topics([TopicCut("t/1", 0, [(1, 2)])])
        with pytest.raises(StoreError, match="nothing more is committed"):
            store.commit(batch_of(entries(30_001, ["a"])))
        store.close()
        assert vfs.operations == []
        reopened = open_store(tmp_path)
        assert reopened.load().next_lsn == 30_001
        reopened.close()

    def test_upkeep_that_breaks_off_anywhere_loses_nothing(
        self, tmp_path: Path, vfs: WatchedVfs, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sqlite_upkeep, "VACUUM_ABOVE_BYTES", 40_000)
        monkeypatch.setattr(sqlite_upkeep, "UPKEEP_FRAMES", 10)
        breaks_at = 0
        is_done = False
        while not is_done:
            folder = tmp_path / str(breaks_at)
            store = open_store(folder, vfs.name)
            fill(store, 2000)
            while store.trim(1801):
                pass
            vfs.operations.clear()
            passed = count()

            def trouble(
                _operation: str, _file: str, passed: Iterator[int] = passed, last: int = breaks_at
            ) -> int | None:
                return apsw.SQLITE_IOERR if next(passed) >= last else None

            vfs.trouble = trouble
            try:
                rest(store)
                is_done = True
            except StoreError:
                pass
            vfs.trouble = no_trouble
            store.close()
            store = open_store(folder, vfs.name)
            found = store.fetch(list(range(1, 2001)))
            assert [entry.lsn for entry in found] == list(range(1801, 2001))
            rest(store)
            store.close()
            breaks_at += 1 + breaks_at // 3
        assert breaks_at > 20


class TestSteps:
    def test_a_step_follows_what_the_last_took(self, clock: Clock) -> None:
        size = StepSize(least=4, start=64, most=100, clock_ns=clock)
        clock.step_ns = STEP_NS + 1
        values = []
        for _ in range(6):
            with size.step() as value:
                values.append(value)
        assert values == [64, 64, 32, 16, 8, 4]
        clock.step_ns = 0
        for _ in range(30):
            with size.step():
                pass
        assert size.value == 100
        clock.step_ns = STEP_NS * 3 // 4
        with size.step():
            pass
        assert size.value == 100

    def test_a_step_with_little_to_do_says_nothing(self, clock: Clock) -> None:
        size = StepSize(least=4, start=64, most=100, clock_ns=clock)
        for _ in range(5):
            with size.step():
                size.was_full = False
        assert size.value == 64

    def test_on_a_slow_disk_a_trim_does_little_at_once(
        self, store: SqliteStore, clock: Clock
    ) -> None:
        fill(store, 10_000)
        clock.step_ns = 10 * STEP_NS
        for _ in range(4):
            store.trim(10_001)
        before = store.space().log_messages
        store.trim(10_001)
        assert before - store.space().log_messages == sqlite_upkeep.TRIMMED_BLOCKS_MIN

    def test_large_blocks_are_trimmed_few_at_once(self, store: SqliteStore) -> None:
        payload = b"x" * 200_000
        store.commit(batch_of([LogEntry(lsn, message("a", payload)) for lsn in range(1, 101)]))
        rest(store)
        store.trim(101)
        assert 1 <= 100 - store.space().log_messages <= 12  # 512 blocks of 4 KB are the first step

    def test_the_census_counts_beside_the_traffic(self, tmp_path: Path) -> None:
        store = open_store(tmp_path)
        fill(store, 20_000)
        store.close()
        store = open_store(tmp_path)
        assert not store.space().is_counted
        assert store.maintain()
        assert 0 < store.space().log_messages < 20_000
        fill(store, 1000)
        store.trim(300)
        end = Batch()
        end.ended = [7]
        store.commit(end)
        rest(store)
        found = store.space()
        assert found.is_counted
        assert found.log_messages == 21_001 - found.first_lsn
        store.close()


def test_space_says_what_the_disk_has_left(store: SqliteStore, tmp_path: Path) -> None:
    found = store.space()
    assert found.disk_free_bytes > 0
    assert found.file_bytes == (tmp_path / NAME).stat().st_size
