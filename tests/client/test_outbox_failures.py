"""An outbox file on a disk that fails or is full, and going on when that is over."""

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import apsw
import pytest

from holdfast.client import outbox
from holdfast.client.outbox import OutboxFile
from holdfast.client.records import HoldIncoming, Record, RemoveOutgoing, SetSession
from holdfast.errors import StoreError, StoreFull, StoreLocked
from tests.client.outbox_support import OutboxModel, outgoing, quick_folder, shown
from tests.store.vfs import Trouble, WatchedVfs, no_trouble

NAME: Final = "meter.db"
_vfs_numbers = itertools.count(1)


@pytest.fixture
def vfs() -> WatchedVfs:
    """A file layer of the test's own."""
    return WatchedVfs(f"watched outbox {next(_vfs_numbers)}")


@pytest.fixture
def file(tmp_path: Path, vfs: WatchedVfs) -> Iterator[OutboxFile]:
    with quick_folder(tmp_path) as folder:
        opened = OutboxFile(folder / NAME, vfs=vfs.name)
        yield opened
        opened.close()


def fails_with(code: int, operation: str, file: str) -> Trouble:
    return lambda done, where: code if (done, where) == (operation, file) else None


def fails_at(number: int, until: int | None = None) -> Trouble:
    """The operations from this number on fail, counted from here on, and those from ``until`` not.

    Without ``until`` all that come.
    """
    count = 0

    def trouble(_operation: str, _file: str) -> int | None:
        nonlocal count
        count += 1
        return apsw.SQLITE_IOERR if count >= number and (until is None or count < until) else None

    return trouble


def step(seq: int) -> list[Record]:
    """Something in every table, with the number in all of it."""
    return [
        outgoing(seq, b"%d" % seq * 900),
        RemoveOutgoing(seq - 5),
        HoldIncoming(seq % 7 + 1, seq, False),
        SetSession(f"c-{seq}", seq % 2 == 0),
    ]


def model_after(last: int) -> OutboxModel:
    model = OutboxModel()
    for seq in range(1, last + 1):
        model.commit(step(seq))
    return model


def copied(file: OutboxFile, folder: Path) -> Path:
    """The files as they are now, elsewhere."""
    folder.mkdir()
    for name in (NAME, f"{NAME}-wal"):
        shutil.copy(file.path.with_name(name), folder / name)
    return folder / NAME


def test_all_is_flushed_when_commit_returns_and_nothing_else_is_needed(
    file: OutboxFile, vfs: WatchedVfs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "CHECKPOINT_FRAMES", 30)
    for seq in range(1, 41):
        vfs.operations.clear()
        file.commit(step(seq))
        assert vfs.unsynced == set()
        writes = [index for index, done in enumerate(vfs.operations) if done == ("write", "log")]
        assert ("sync", "log") in vfs.operations[writes[-1] :]
        if seq % 5 == 0:
            copy = OutboxFile(copied(file, tmp_path / f"copy {seq}"))
            assert shown(copy) == model_after(seq).content()
            copy.close()


@pytest.mark.parametrize(
    ("trouble", "said", "kind"),
    [
        (fails_with(apsw.SQLITE_IOERR_FSYNC, "sync", "log"), "I/O error", StoreError),
        (fails_with(apsw.SQLITE_IOERR_WRITE, "write", "log"), "I/O error", StoreError),
        (fails_with(apsw.SQLITE_FULL, "write", "log"), "disk is full", StoreFull),
        (fails_with(apsw.SQLITE_READONLY, "write", "log"), "read-only", StoreError),
    ],
)
def test_after_a_failed_commit_there_is_no_other_until_it_is_opened_anew(
    file: OutboxFile, vfs: WatchedVfs, trouble: Trouble, said: str, kind: type[StoreError]
) -> None:
    file.commit(step(1))
    vfs.trouble = trouble
    with pytest.raises(kind, match=said) as failed:
        file.commit(step(2))
    assert str(file.path) in str(failed.value)
    assert file.has_failed
    vfs.trouble = no_trouble  # the disk works again, and is not asked
    vfs.operations.clear()
    for _ in range(2):
        with pytest.raises(kind, match=said):
            file.commit(step(2))
        with pytest.raises(kind, match=said):
            file.maintain()
    assert vfs.operations == []
    file.reopen()
    assert not file.has_failed
    assert shown(file) in (model_after(1).content(), model_after(2).content())
    file.commit(step(2))
    file.commit(step(3))
    assert shown(file) == model_after(3).content()


def test_a_full_disk_that_stays_full_is_told_each_time(file: OutboxFile, vfs: WatchedVfs) -> None:
    file.commit(step(1))
    vfs.trouble = fails_with(apsw.SQLITE_FULL, "write", "log")
    with pytest.raises(StoreFull):
        file.commit(step(2))
    for _ in range(3):
        with pytest.raises(StoreFull):
            file.reopen()
        assert file.has_failed
        with pytest.raises(StoreError):
            file.commit(step(2))
        with pytest.raises(StoreLocked):
            OutboxFile(file.path)
    vfs.trouble = no_trouble
    file.reopen()
    file.commit(step(2))
    assert shown(file) == model_after(2).content()


def test_a_commit_that_breaks_off_anywhere_is_there_whole_or_not_at_all(
    file: OutboxFile, vfs: WatchedVfs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each write and flush, of the checkpoint too; reopened at once, or by another process."""
    monkeypatch.setattr(outbox, "CHECKPOINT_FRAMES", 20)
    last = 0
    survived = 0
    for breaks_at in range(1, 40):
        vfs.trouble = fails_at(breaks_at)
        is_committed = True
        try:
            for seq in range(last + 1, last + 4):
                file.commit(step(seq))
                last = seq
        except StoreError:
            is_committed = False
        vfs.trouble = no_trouble
        allowed = [model_after(last).content()]
        if not is_committed:
            allowed.append(model_after(last + 1).content())
        copy = OutboxFile(copied(file, tmp_path / f"copy {breaks_at}"))
        found = shown(copy)
        copy.close()
        assert found in allowed
        if file.has_failed:
            file.reopen()
            assert shown(file) == found
        if found == allowed[-1] and not is_committed:
            last += 1
            survived += 1
    assert survived > 0
    assert last > 15


def test_it_can_fail_at_any_step_of_being_opened_again(file: OutboxFile, vfs: WatchedVfs) -> None:
    """Each write and each flush of the recovery fails once: the next attempt goes well."""
    last = 0
    steps = 0
    for number in range(1, 40):
        last += 1
        file.commit(step(last))
        vfs.trouble = fails_with(apsw.SQLITE_IOERR, "sync", "log")
        with pytest.raises(StoreError):
            file.commit(step(last + 1))
        vfs.trouble = fails_at(number, number + 1)
        try:
            file.reopen()
        except StoreError:
            steps += 1
            vfs.trouble = no_trouble
            file.reopen()
        else:
            vfs.trouble = no_trouble
            break
        if shown(file) != model_after(last).content():
            last += 1
        assert shown(file) == model_after(last).content()
    assert steps >= 4, "the log is flushed and carried over, and a commit proves that it works"


def test_a_checkpoint_that_fails_takes_no_commit_back(
    file: OutboxFile, vfs: WatchedVfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "CHECKPOINT_FRAMES", 1)
    vfs.trouble = fails_with(apsw.SQLITE_IOERR_FSYNC, "sync", "main")
    file.commit(step(1))
    with pytest.raises(StoreError, match=r"checkpoint failed.*I/O error"):
        file.commit(step(2))
    vfs.trouble = no_trouble
    file.reopen()
    assert shown(file) == model_after(1).content()


def test_a_vacuum_that_fails_takes_no_commit_back(
    file: OutboxFile, vfs: WatchedVfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "VACUUM_ABOVE_BYTES", 0)
    monkeypatch.setattr(outbox, "VACUUM_PAGES", 2)
    file.commit([outgoing(seq, b"x" * 4000) for seq in range(1, 100)])
    file.commit([RemoveOutgoing(seq) for seq in range(1, 99)])
    assert file.maintain()  # and there is more to do
    flushed = False

    def after_the_flush(operation: str, where: str) -> int | None:
        nonlocal flushed
        if flushed and operation == "write":
            return apsw.SQLITE_IOERR
        flushed = flushed or (operation, where) == ("sync", "log")
        return None

    vfs.trouble = after_the_flush
    file.commit([outgoing(200)])
    assert file.has_failed
    vfs.trouble = no_trouble
    with pytest.raises(StoreError, match="vacuum failed"):
        file.commit([outgoing(201)])
    file.reopen()
    assert [entry.seq for entry in file.load().outgoing] == [99, 200]


def test_another_file_or_none_is_not_gone_on_with(file: OutboxFile) -> None:
    """Where a disk has gone from its mount point there may be nothing, or an old file."""
    file.commit(step(1))
    aside = file.path.with_name("aside")
    file.path.rename(aside)
    with pytest.raises(StoreError, match="cannot find the outbox"):
        file.reopen()
    assert not file.path.exists()
    shutil.copy(aside, file.path)
    with pytest.raises(StoreError, match="another file"):
        file.reopen()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: folder / "missing" / NAME, "the folder .*missing does not exist"),
        (lambda folder: folder, "is a folder"),
        (lambda folder: folder / "file" / NAME, "the folder .*file does not exist"),
    ],
)
def test_a_path_that_cannot_be_is_told(tmp_path: Path, make: object, said: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert callable(make)
    with pytest.raises(StoreError, match=said):
        OutboxFile(make(tmp_path))
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_folder_in_which_nobody_can_write_is_told() -> None:
    with pytest.raises(StoreError, match=r"/sys/meter\.db"):
        OutboxFile("/sys/meter.db")
