"""Opens the store of a data folder: at the start, and anew in the same process when it has failed.

Everything that opens a store to serve from it goes through here.
"""

import os
from pathlib import Path
from typing import final

from holdfast.errors import StoreCorrupt, StoreError
from holdfast.store.sound import mark_closed, open_sound
from holdfast.store.sqlite import FILE_NAME, SqliteStore


@final
class StoreOpener:
    """Opens one data folder's store as often as it must be; the caller holds its ``DataLock``.

    No two of the stores that it gives may be open at the same time.
    """

    def __init__(self, data_dir: Path, *, strict: bool = False, vfs: str | None = None) -> None:
        self._data_dir = data_dir
        self._strict = strict  # a damaged store is refused
        self._vfs = vfs  # the file layer of a test
        self._path = data_dir / FILE_NAME
        self._identity: tuple[int, int] | None = None  # device and inode of what was opened last
        self.was_repaired = False  # when it was opened last

    def open(self, *, distrust: bool = False) -> SqliteStore:
        """Open the store, made if it is missing, and repaired if it is found to be damaged.

        With ``distrust`` all of it is looked at: damage was met in it. Raises StoreError.
        """
        store, report = open_sound(
            self._data_dir, strict=self._strict, distrust=distrust, vfs=self._vfs
        )
        self.was_repaired = report is not None
        try:
            self._identity = self._found()
        except BaseException:
            store.close()
            raise
        return store

    def open_again(self, failure: StoreError) -> SqliteStore:
        """Open a store that has failed so and was closed; prove by a commit that it works.

        It must be the file that was opened before. Where a disk has gone from its mount point
        there may be nothing, or an old store: a broker that went on with that would know nothing
        of what it has promised. Raises StoreError; then nothing is left open.
        """
        found = self._found()
        if found != self._identity:
            raise StoreError(
                f"{self._path} is another file than the one that was in use; if it is the one to"
                " go on with, stop the broker and start it again"
            )
        try:
            store = self.open(distrust=isinstance(failure, StoreCorrupt))
        except StoreError:
            # A repair may have put its file there before this; no other disk is taken for it.
            now = self._found()
            if now[0] == found[0]:
                self._identity = now
            raise
        try:
            store.probe()
        except BaseException:
            store.close()
            raise
        return store

    def mark_closed(self) -> None:
        """Note that the store was closed with nothing open and nothing wrong."""
        mark_closed(self._data_dir)

    def _found(self) -> tuple[int, int]:
        try:
            status = os.stat(self._path)
        except OSError as error:
            raise StoreError(f"{self._path}: cannot find the store: {error.strerror}") from error
        return status.st_dev, status.st_ino
