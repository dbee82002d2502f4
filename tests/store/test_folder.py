"""The data folder: whose the files in it are, and what is said of those that are anyone's."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.store.backup import back_up
from holdfast.store.folder import too_open
from holdfast.store.lock import DataLock
from holdfast.store.opening import StoreOpener
from holdfast.store.records import Batch
from holdfast.store.sqlite import FILE_NAME


@pytest.fixture
def no_mask() -> Iterator[None]:
    """A process whose files are everyone's, if it does not say otherwise itself."""
    before = os.umask(0)
    yield
    os.umask(before)


def modes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in [folder, *folder.iterdir()]}


@pytest.mark.usefixtures("no_mask")
def test_what_the_broker_makes_is_its_users_alone(tmp_path: Path) -> None:
    folder = tmp_path / "above" / "data"
    lock = DataLock(folder)
    store = StoreOpener(folder).open()
    store.commit(Batch())
    back_up(folder, tmp_path / "backup.db")
    found = modes(folder)
    store.close()
    lock.release()
    assert found.pop("data") == 0o700
    assert (folder.parent.stat().st_mode & 0o777) == 0o700
    assert {FILE_NAME, f"{FILE_NAME}-wal", "holdfast.lock"} <= found.keys()
    assert set(found.values()) == {0o600}, found
    assert (tmp_path / "backup.db").stat().st_mode & 0o777 == 0o600
    assert too_open(folder, folder / FILE_NAME) == []


@pytest.mark.parametrize(
    ("folder_mode", "file_mode", "said"),
    [
        (0o700, 0o644, []),  # nobody gets to the file
        (0o755, 0o600, []),
        (0o755, 0o644, ["has mode 0644, others can read messages; chmod 600"]),
        (0o750, 0o640, ["has mode 0640, others can read messages; chmod 600"]),
        (0o770, 0o600, ["has mode 0770, others can put files there; chmod 700"]),
        (0o777, 0o600, ["has mode 0777, others can put files there; chmod 700"]),
        (0o1777, 0o600, ["has mode 1777, others can put files there; chmod 700"]),
    ],
)
def test_what_others_may_do_is_said(
    tmp_path: Path, folder_mode: int, file_mode: int, said: list[str]
) -> None:
    file = tmp_path / FILE_NAME
    file.write_bytes(b"")
    file.chmod(file_mode)
    tmp_path.chmod(folder_mode)
    found = too_open(tmp_path, file)
    tmp_path.chmod(0o700)
    assert [text.partition(" ")[2] for text in found] == said
