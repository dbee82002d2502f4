"""The data folder: made for one user, and on stable storage before anything relies on it."""

import os
import stat
from pathlib import Path
from typing import Final

from holdfast.errors import StoreError

# A file in the folder while a broker has the store open. A start that finds it knows that the end
# before was not clean, and wants the write-ahead log.
OPEN_MARK: Final = "holdfast.open"

_FOLDER_MODE: Final = 0o700  # messages are nobody else's business
_FILE_MODE: Final = 0o600


def make_folder(folder: Path) -> None:
    """Make a folder and those above it that are missing; raises StoreError if that fails."""
    try:
        missing = [folder, *folder.parents]
        missing = missing[: [path.exists() for path in missing].index(True)]
        for path in reversed(missing):
            path.mkdir(mode=_FOLDER_MODE, exist_ok=True)
            sync_folder(path.parent)
        if not folder.is_dir():
            raise StoreError(f"{folder} is not a folder")
    except OSError as error:
        raise StoreError(f"{folder}: cannot make the data folder: {error.strerror}") from error


def make_file(path: Path) -> None:
    """Make an empty file that survives a power cut; one that exists is left as it is."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE))
        sync_folder(path.parent)
    except OSError as error:
        raise StoreError(f"{path}: cannot write in the data folder: {error.strerror}") from error


def too_open(folder: Path, file: Path) -> list[str]:
    """What other users of the machine may do with the store of a folder, in words, if anything.

    What the broker makes is its user's alone; a folder or a file that was there before need not be.
    """
    found: list[str] = []
    inside = stat.S_IMODE(folder.stat().st_mode)
    # Where only owners rename their files (1777), anyone may still put the missing ones there.
    if inside & (stat.S_IWGRP | stat.S_IWOTH):
        found.append(f"{folder} has mode {inside:04o}, others can put files there; chmod 700")
    for path in (file, file.with_name(f"{file.name}-wal")):
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
        except FileNotFoundError:
            continue
        if mode & 0o077 and inside & (stat.S_IXGRP | stat.S_IXOTH):
            found.append(f"{path} has mode {mode:04o}, others can read messages; chmod 600")
    return found


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable: a synced file may still be lost without its name."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def give_to_owner(path: Path, folder: Path | None = None) -> None:
    """What root makes in a folder belongs to the folder's owner: the broker has to open it."""
    if os.geteuid() == 0:
        owner = (path.parent if folder is None else folder).stat()
        os.chown(path, owner.st_uid, owner.st_gid)
