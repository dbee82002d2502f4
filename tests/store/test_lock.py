"""The lock on the data folder, with real processes."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from holdfast.errors import StoreError, StoreLocked
from holdfast.store.lock import DataLock

HOLDER: Final = """
import subprocess, sys
from pathlib import Path
from holdfast.store.lock import DataLock

lock = DataLock(Path(sys.argv[1]))
child = subprocess.Popen(
    [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
    close_fds=False,
)
print("locked", flush=True)
sys.stdin.readline()
"""


FORKING: Final = """
import os, sys
from pathlib import Path
from holdfast.store.lock import DataLock

lock = DataLock(Path(sys.argv[1]))
if os.fork() == 0:
    print("locked", flush=True)
sys.stdin.readline()
"""


def start_holder(folder: Path, program: str = HOLDER) -> "subprocess.Popen[str]":
    """A process that holds the lock, and has a child that would inherit what can be inherited."""
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "locked\n"
    return holder


def test_a_second_process_is_told_who_holds_the_folder(tmp_path: Path) -> None:
    with start_holder(tmp_path) as holder:
        content = (tmp_path / "holdfast.lock").read_bytes()
        with pytest.raises(StoreLocked) as refused:
            DataLock(tmp_path)
        assert f"pid {holder.pid} on {os.uname().nodename}, since 2" in str(refused.value)
        assert str(tmp_path) in str(refused.value)
        assert (tmp_path / "holdfast.lock").read_bytes() == content
        holder.kill()


def test_the_lock_ends_with_its_holder_even_if_a_child_lives_on(tmp_path: Path) -> None:
    with start_holder(tmp_path) as holder:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        DataLock(tmp_path).release()


def test_the_lock_ends_with_its_holder_even_if_a_fork_lives_on(tmp_path: Path) -> None:
    """As those of ``multiprocessing`` do; and the fork does not end it for its parent."""
    with start_holder(tmp_path, FORKING) as holder:
        with pytest.raises(StoreLocked):
            DataLock(tmp_path)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        DataLock(tmp_path).release()


def test_a_released_folder_can_be_locked_again(tmp_path: Path) -> None:
    folder = tmp_path / "made" / "for it"
    lock = DataLock(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    with pytest.raises(StoreLocked, match=f"pid {os.getpid()} "):
        DataLock(folder)
    lock.release()
    lock.release()
    DataLock(folder).release()


def test_a_holder_that_has_not_yet_said_who_it_is(tmp_path: Path) -> None:
    lock = DataLock(tmp_path)
    for content in (b"", b"{", b"7", b"{}", b"\xff"):
        (tmp_path / "holdfast.lock").write_bytes(content)
        with pytest.raises(StoreLocked, match="which has just started"):
            DataLock(tmp_path)
    lock.release()


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StoreError, match="file"):
            DataLock(folder)
