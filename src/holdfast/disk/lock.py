"""A lock on what one process at a time may have, which tells the others who has it."""

import fcntl
import json
import os
import socket
import weakref
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, final

from holdfast.errors import StoreError, StoreLocked

_FILE_MODE: Final = 0o600
_CONTENT_BYTES_MAX: Final = 4096


@final
class FileLock:
    """Holds a lock file, made if missing, until ``close`` or the end of the process.

    The kernel holds the lock for the open file, so it ends with the process, however that ends,
    and is not handed down to the programs it starts, nor to forks of it. What the file says is for
    people, and stays behind; the file is never removed, since a third process could then lock
    another file of this name.
    """

    def __init__(self, path: Path, *, locked: Path, others: str) -> None:
        """Take the lock that stands for ``locked``; ``others`` names whoever might hold it.

        Raises StoreLocked, which names the holder, or StoreError if there is no locking.
        """
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE)
        except OSError as error:
            raise StoreError(f"{path}: cannot open the lock file: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, _own_description(), 0)
        except BlockingIOError:
            holder = _holder(os.pread(descriptor, _CONTENT_BYTES_MAX, 0))
            os.close(descriptor)
            raise StoreLocked(f"{locked} is in use by {others} ({holder})") from None
        except OSError as error:
            os.close(descriptor)
            raise StoreError(f"{path}: cannot lock the file: {error.strerror}") from error
        self._descriptor: int | None = descriptor
        _held.add(self)

    def close(self) -> None:
        """Let the next process have it; a second call does nothing."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


# To be let go of by a fork: the lock would be held for as long as it lives, too.
_held: Final[weakref.WeakSet[FileLock]] = weakref.WeakSet()


def _let_go() -> None:
    # Closing is not unlocking: the parent goes on to hold it.
    for lock in list(_held):
        lock.close()


os.register_at_fork(after_in_child=_let_go)


def _own_description() -> bytes:
    since = datetime.now(UTC).isoformat(timespec="seconds")
    described = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
    return json.dumps(described).encode() + b"\n"


def _holder(content: bytes) -> str:
    """The holder as the lock file describes it, which it has not done yet if it just started."""
    try:
        described = json.loads(content)
        return f"pid {described['pid']} on {described['host']}, since {described['since']}"
    except (ValueError, KeyError, TypeError):
        return "which has just started"
