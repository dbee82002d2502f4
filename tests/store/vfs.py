"""A file layer for SQLite that counts what is written and flushed, and fails when it is told to."""

from collections.abc import Callable
from typing import Final

import apsw

Trouble = Callable[[str, str], int | None]  # of an operation and a file; a code to fail with


def no_trouble(_operation: str, _file: str) -> int | None:
    return None


class WatchedVfs(apsw.VFS):
    """Passes everything on to the system, unless ``trouble`` says how it fails."""

    def __init__(self, name: str) -> None:
        super().__init__(name, base="")
        self.name: Final = name
        self.trouble: Trouble = no_trouble
        self.unsynced: set[str] = set()  # files with writes that no flush has followed
        self.operations: list[tuple[str, str]] = []

    def xOpen(  # a method of SQLite's
        self, name: str | apsw.URIFilename | None, flags: list[int]
    ) -> apsw.VFSFile:
        return WatchedFile(self, name, flags)

    def note(self, operation: str, file: str) -> None:
        self.operations.append((operation, file))
        code = self.trouble(operation, file)
        if code is not None:
            raise apsw.exception_for(code)
        if operation == "write":
            self.unsynced.add(file)
        if operation == "sync":
            self.unsynced.discard(file)


class WatchedFile(apsw.VFSFile):
    """One open file: the store's own or its write-ahead log."""

    def __init__(
        self, vfs: WatchedVfs, name: str | apsw.URIFilename | None, flags: list[int]
    ) -> None:
        super().__init__("", name, flags)
        self._vfs = vfs
        self._file = "log" if flags[0] & apsw.SQLITE_OPEN_WAL else "main"

    def xWrite(self, data: bytes, offset: int) -> None:  # a method of SQLite's
        self._vfs.note("write", self._file)
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:  # a method of SQLite's
        self._vfs.note("sync", self._file)
        super().xSync(flags)
