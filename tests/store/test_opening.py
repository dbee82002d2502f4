"""A store that has failed is opened anew: the same file, with what it had promised, no more."""

from pathlib import Path

import apsw
import pytest

from holdfast.errors import StoreCorrupt, StoreError, StoreFull
from holdfast.store import sqlite, sqlite_upkeep
from holdfast.store.opening import StoreOpener
from holdfast.store.sqlite import SqliteStore
from tests.store.support import batch_of, content_of_entries, entries
from tests.store.vfs import Trouble, WatchedVfs, no_trouble

COMMITS = 20
FAILURE = StoreError("the disk reports an I/O error")


def fails_with(code: int, operation: str, file: str) -> Trouble:
    return lambda done, where: code if (done, where) == (operation, file) else None


def fails_at(number: int) -> Trouble:
    """The operation of this number fails, counted from here on."""
    count = 0

    def trouble(_operation: str, _file: str) -> int | None:
        nonlocal count
        count += 1
        return apsw.SQLITE_IOERR if count == number else None

    return trouble


def commit(store: SqliteStore, lsn: int) -> None:
    store.commit(batch_of(entries(lsn, [f"topic {lsn}"])))


def lsns(store: SqliteStore) -> list[int]:
    return [entry.lsn for entry in store.fetch(list(range(1, store.load().next_lsn)))]


@pytest.fixture
def opener(tmp_path: Path, vfs: WatchedVfs) -> StoreOpener:
    return StoreOpener(tmp_path / "data", vfs=vfs.name)


@pytest.mark.parametrize("operation", ["write", "sync"])
@pytest.mark.parametrize("frames", [3, 30, 1000], ids="checkpoint at {}".format)
def test_it_has_what_was_committed(
    opener: StoreOpener,
    vfs: WatchedVfs,
    monkeypatch: pytest.MonkeyPatch,
    operation: str,
    frames: int,
) -> None:
    """However often it fails. A commit that failed in its flush may be there, whole, or not."""
    monkeypatch.setattr(sqlite_upkeep, "CHECKPOINT_FRAMES", frames)
    store = opener.open()
    lsn = 1
    for _ in range(COMMITS):
        for _ in range(lsn % 4):
            commit(store, lsn)
            lsn += 1
            store.trim(lsn - 10)  # not flushed
        before = lsns(store)
        vfs.trouble = fails_with(apsw.SQLITE_IOERR, operation, "log")
        with pytest.raises(StoreError):
            commit(store, lsn)
        vfs.trouble = no_trouble
        store.close()
        store = opener.open_again(FAILURE)
        next_lsn = store.load().next_lsn
        assert next_lsn in (lsn, lsn + 1)
        # A trim may be undone, and nothing else.
        assert lsns(store)[-len(before) - next_lsn + lsn :] == [*before, *range(lsn, next_lsn)]
        commit(store, next_lsn)
        lsn = next_lsn + 1
    store.close()


def test_it_can_fail_at_any_step_of_being_opened_again(
    opener: StoreOpener, vfs: WatchedVfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each write and each flush of the recovery itself fails once: the next attempt goes well."""
    monkeypatch.setattr(sqlite_upkeep, "CHECKPOINT_FRAMES", 30)
    store = opener.open()
    lsn = 1
    passed = 0
    while True:
        for _ in range(5):
            commit(store, lsn)
            lsn += 1
        vfs.trouble = fails_with(apsw.SQLITE_IOERR, "sync", "log")
        with pytest.raises(StoreError):
            commit(store, lsn)
        store.close()
        vfs.trouble = fails_at(passed + 1)
        has_failed = False
        try:
            store = opener.open_again(FAILURE)
        except StoreError:
            has_failed = True
            vfs.trouble = no_trouble
            store = opener.open_again(FAILURE)
        vfs.trouble = no_trouble
        found = lsns(store)
        assert found in ([*range(1, lsn)], [*range(1, lsn + 1)])
        lsn = found[-1] + 1
        if not has_failed:
            break
        passed += 1
    assert passed >= 4, "the log is carried over, and a commit proves that it works"
    store.close()


def test_a_full_disk_is_told_apart(opener: StoreOpener, vfs: WatchedVfs) -> None:
    store = opener.open()
    vfs.trouble = fails_with(apsw.SQLITE_FULL, "write", "log")
    for _ in range(2):
        with pytest.raises(StoreFull):
            commit(store, 1)
    store.close()
    with pytest.raises(StoreFull):
        opener.open_again(FAILURE)
    vfs.trouble = no_trouble
    store = opener.open_again(FAILURE)
    commit(store, 1)
    store.close()


def test_another_file_or_none_is_refused(opener: StoreOpener, tmp_path: Path) -> None:
    store = opener.open()
    commit(store, 1)
    expected = content_of_entries(store.fetch([1]))
    store.close()
    path = tmp_path / "data" / sqlite.FILE_NAME
    path.rename(tmp_path / "aside")
    with pytest.raises(StoreError, match="cannot find"):
        opener.open_again(FAILURE)
    assert not path.exists()
    path.write_bytes((tmp_path / "aside").read_bytes())
    with pytest.raises(StoreError, match="another file"):
        opener.open_again(FAILURE)
    (tmp_path / "aside").rename(path)
    store = opener.open_again(FAILURE)
    assert content_of_entries(store.fetch([1])) == expected
    store.close()


def test_a_file_that_is_gone_is_an_error_of_the_store(opener: StoreOpener, tmp_path: Path) -> None:
    store = opener.open()
    (tmp_path / "data" / sqlite.FILE_NAME).rename(tmp_path / "aside")
    with pytest.raises(StoreError, match="looking at the space failed"):
        store.space()
    store.close()


def test_a_repair_whose_end_fails_is_not_taken_for_another_file(
    opener: StoreOpener, vfs: WatchedVfs, tmp_path: Path
) -> None:
    """The repaired file is in its place when the disk fails: the next attempt goes on with it."""
    store = opener.open()
    for lsn in range(1, 401):
        commit(store, lsn)
    store.close()
    path = tmp_path / "data" / sqlite.FILE_NAME
    before = path.stat().st_ino
    content = bytearray(path.read_bytes())
    at = content.index(b"topic 200") // 4096 * 4096
    content[at : at + 4096] = bytes(4096)
    path.write_bytes(content)
    vfs.trouble = lambda _operation, _file: apsw.SQLITE_IOERR
    with pytest.raises(StoreError):
        opener.open_again(StoreCorrupt("damaged"))
    assert path.stat().st_ino != before, "it was repaired"
    vfs.trouble = no_trouble
    store = opener.open_again(FAILURE)
    assert lsns(store)[-1] == 400
    store.close()
