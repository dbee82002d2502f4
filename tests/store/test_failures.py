"""A failing disk, and what the store has flushed when it says so: promises 1, 2 and 3."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import apsw
import pytest

from holdfast.errors import StoreError
from holdfast.store import sqlite_upkeep
from holdfast.store.records import Batch, FilterSpan, ReadRequest, RetainedRecord, Snapshot
from holdfast.store.sqlite import SqliteStore, open_store
from tests.store.support import (
    PLENTY,
    batch_of,
    content_of_entries,
    content_of_snapshot,
    entries,
    message,
    session,
    state,
    subscription,
)
from tests.store.vfs import Trouble, WatchedVfs, no_trouble

TOPICS: Final = ["a", "b", "a", "a", "c"]


@pytest.fixture
def store(tmp_path: Path, vfs: WatchedVfs) -> Iterator[SqliteStore]:
    opened = open_store(tmp_path / "data", vfs.name)
    yield opened
    opened.close()


def mixed_batch(next_lsn: int) -> Batch:
    """Something in every table, with the lsn in all of it."""
    batch = batch_of(entries(next_lsn, TOPICS))
    batch.sessions = [session(1, f"client {next_lsn}")]
    batch.states = [state(1, next_lsn)]
    batch.subscriptions = [subscription(1, f"filter/{next_lsn}")]
    batch.retained = [RetainedRecord("r", message("r", b"%d" % next_lsn))]
    return batch


def everything(store: SqliteStore) -> tuple[dict[str, object], list[object]]:
    snapshot = store.load()
    found = store.fetch(list(range(1, snapshot.next_lsn)))
    return content_of_snapshot(snapshot), content_of_entries(found)


def fails_with(code: int, operation: str, file: str) -> Trouble:
    return lambda done, where: code if (done, where) == (operation, file) else None


def test_all_is_flushed_when_commit_returns(
    store: SqliteStore, vfs: WatchedVfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_upkeep, "CHECKPOINT_FRAMES", 30)
    next_lsn = 1
    for step in range(60):
        vfs.operations.clear()
        store.commit(mixed_batch(next_lsn))
        next_lsn += len(TOPICS)
        assert vfs.unsynced == set()
        writes = [index for index, done in enumerate(vfs.operations) if done == ("write", "log")]
        assert ("sync", "log") in vfs.operations[writes[-1] :]
        if step % 4 == 0:
            store.trim(next_lsn - 7)  # may wait for the next commit's flush


def test_what_the_files_hold_when_commit_returns_is_enough(
    store: SqliteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_upkeep, "CHECKPOINT_FRAMES", 30)
    next_lsn = 1
    for step in range(12):
        store.commit(mixed_batch(next_lsn))
        next_lsn += len(TOPICS)
        copy = tmp_path / f"copy {step}"
        copy.mkdir()
        for name in ("holdfast.db", "holdfast.db-wal"):
            shutil.copy(tmp_path / "data" / name, copy / name)
        reopened = open_store(copy)
        assert everything(reopened) == everything(store)
        reopened.close()


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        (fails_with(apsw.SQLITE_IOERR_FSYNC, "sync", "log"), "I/O error"),
        (fails_with(apsw.SQLITE_IOERR_WRITE, "write", "log"), "I/O error"),
        (fails_with(apsw.SQLITE_FULL, "write", "log"), "disk is full"),
        (fails_with(apsw.SQLITE_READONLY, "write", "log"), "read-only"),
    ],
)
def test_after_a_failed_commit_there_is_no_other(
    store: SqliteStore, vfs: WatchedVfs, tmp_path: Path, trouble: Trouble, said: str
) -> None:
    store.commit(mixed_batch(1))
    before = everything(store)
    vfs.trouble = trouble
    with pytest.raises(StoreError, match=said) as failed:
        store.commit(mixed_batch(6))
    assert str(tmp_path / "data" / "holdfast.db") in str(failed.value)
    vfs.trouble = no_trouble  # the disk works again, and is not asked
    vfs.operations.clear()
    for _ in range(3):
        with pytest.raises(StoreError, match=said):
            store.commit(mixed_batch(6))
        with pytest.raises(StoreError, match=said):
            store.trim(3)
    assert everything(store) == before
    store.close()
    assert vfs.operations == []  # nothing is flushed a second time, nor written
    reopened = open_store(tmp_path / "data")
    assert reopened.load().next_lsn in {6, 11}  # whole or not at all
    reopened.commit(mixed_batch(reopened.load().next_lsn))
    reopened.close()


def test_a_failed_checkpoint_ends_the_store_after_a_commit_that_counts(
    tmp_path: Path, vfs: WatchedVfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_upkeep, "CHECKPOINT_FRAMES", 1)
    store = open_store(tmp_path, vfs.name)
    vfs.trouble = fails_with(apsw.SQLITE_IOERR_FSYNC, "sync", "main")
    store.commit(mixed_batch(1))
    with pytest.raises(StoreError, match=r"checkpoint failed.*I/O error"):
        store.commit(mixed_batch(6))
    vfs.operations.clear()
    store.close()
    assert vfs.operations == []
    vfs.trouble = no_trouble
    reopened = open_store(tmp_path)
    assert reopened.load().next_lsn == 6
    reopened.close()


def test_a_store_that_cannot_be_carried_over_at_the_end_keeps_all(
    tmp_path: Path, vfs: WatchedVfs
) -> None:
    store = open_store(tmp_path, vfs.name)
    store.commit(mixed_batch(1))
    before = everything(store)
    for operation in ("write", "sync"):
        vfs.trouble = fails_with(apsw.SQLITE_IOERR, operation, "main")
        store.close()
        vfs.trouble = no_trouble
        store = open_store(tmp_path, vfs.name)
        assert everything(store) == before
    store.close()


def test_a_commit_that_breaks_off_anywhere_is_there_whole_or_not_at_all(
    tmp_path: Path, vfs: WatchedVfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_upkeep, "CHECKPOINT_FRAMES", 20)
    next_lsn = 1
    breaks_at = 0
    survived = 0
    while True:
        store = open_store(tmp_path, vfs.name)
        before = everything(store)
        assert before[0]["next_lsn"] == next_lsn
        vfs.trouble = _fails_from(breaks_at)
        try:
            store.commit(mixed_batch(next_lsn))
            is_committed = True
        except StoreError:
            is_committed = False
        store.close()
        vfs.trouble = no_trouble
        store = open_store(tmp_path, vfs.name)
        after = everything(store)
        if after == before:
            assert not is_committed
        else:
            assert after[0]["next_lsn"] == next_lsn + len(TOPICS)
            assert content_of_snapshot(_expected(store.load(), next_lsn)) == after[0]
            survived += 1
            next_lsn += len(TOPICS)
        store.close()
        if is_committed and len(vfs.operations) < breaks_at:
            break
        vfs.operations.clear()
        breaks_at += 1
        assert breaks_at < 200
    assert breaks_at > 10
    assert survived > 0


def test_a_file_that_cannot_be_read_is_told(store: SqliteStore, tmp_path: Path) -> None:
    store.commit(batch_of(entries(1, ["a", "b"] * 1000)))
    store.close()
    path = tmp_path / "data" / "holdfast.db"
    # Only in a leaf of a table: other pages may keep what they held as leaves.
    damage(path, lambda page: page[0] == 0x0D and b"\x01\x03100" in page)
    reopened = open_store(tmp_path / "data")
    with pytest.raises(StoreError, match="reading the log failed"):
        reopened.read(ReadRequest(1, 1, 2001, [FilterSpan("a", 1, 0)], PLENTY, PLENTY))
    with pytest.raises(StoreError, match="reading the log failed"):
        reopened.fetch([100])
    reopened.close()


def damage(path: Path, is_meant: Callable[[bytes], bool]) -> None:
    """Overwrite the pages that are meant."""
    content = bytearray(path.read_bytes())
    hit = 0
    for start in range(4096, len(content), 4096):
        if is_meant(bytes(content[start : start + 4096])):
            content[start : start + 4096] = b"\xa5" * 4096
            hit += 1
    assert hit > 0
    path.write_bytes(content)


def _fails_from(first: int) -> Trouble:
    """Let so many operations pass, and none after."""
    passed = 0

    def trouble(_operation: str, _file: str) -> int | None:
        nonlocal passed
        passed += 1
        return None if passed <= first else apsw.SQLITE_IOERR

    return trouble


def _expected(found: Snapshot, next_lsn: int) -> Snapshot:
    """What a snapshot must be after ``mixed_batch``, the older subscriptions left as they are."""
    batch = mixed_batch(next_lsn)
    found.sessions = batch.sessions
    found.states = batch.states
    found.retained = batch.retained
    assert any(r.topic_filter == f"filter/{next_lsn}" for r in found.subscriptions)
    return found
