"""The lock on the data folder: one broker at a time."""

from pathlib import Path
from typing import Final, final

from holdfast.disk.folder import make_folder
from holdfast.disk.lock import FileLock

_NAME: Final = "holdfast.lock"


@final
class DataLock:
    """Holds a data folder, made if missing, until ``release`` or the end of the process."""

    def __init__(self, data_dir: Path) -> None:
        """Raises StoreLocked, which names the holder, or StoreError if there is no locking."""
        make_folder(data_dir)
        self._lock = FileLock(data_dir / _NAME, locked=data_dir, others="another broker")

    def release(self) -> None:
        """Let the next broker have the folder; a second call does nothing."""
        self._lock.close()
