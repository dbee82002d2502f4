"""Folders and files made for one user, and on stable storage before anything relies on them."""

import os
from pathlib import Path
from typing import Final

from holdfast.errors import StoreError

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
        raise StoreError(f"{folder}: cannot make the folder: {error.strerror}") from error


def make_file(path: Path) -> None:
    """Make an empty file that survives a power cut; one that exists is left as it is."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE))
        sync_folder(path.parent)
    except OSError as error:
        raise StoreError(f"{path}: cannot write in its folder: {error.strerror}") from error


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
