"""``holdfast`` with a disk and a clock that a test controls; ``tests.support.faulty`` talks to it.

A script of its own: it puts a layer of its own under SQLite and in the place of the wall clock, and
then runs the command. Each line on standard input is carried out and repeated on standard output:

``fail OPERATION FILE CODE COUNT``: so many operations (read, write, sync) on a file (main, log,
    any) fail with an error of SQLite's, such as IOERR_WRITE; -1 is all of them from now on.
``quota BYTES``: writes beyond this size of a file fail, the disk is full; 0 for no limit.
``heal``: nothing fails any more.
``clock SECONDS``: the wall clock is so far from the true one.
"""

import os
import sys
import threading
import time

import apsw

from holdfast.cli.main import main
from holdfast.net.clock import Clock


class Faults:
    """What is to fail, shared by all files and the thread that takes the commands."""

    def __init__(self) -> None:
        self.operation = ""
        self.file = ""
        self.code = 0
        self.count = 0
        self.quota = 0
        self.clock_ns = 0

    def check(self, operation: str, file: str, end: int = 0) -> None:
        if operation == "write" and 0 < self.quota < end:
            raise apsw.exception_for(apsw.SQLITE_FULL)
        if self.count != 0 and operation == self.operation and self.file in ("any", file):
            self.count -= 1 if self.count > 0 else 0
            raise apsw.exception_for(self.code)

    def obey(self, line: str) -> None:
        match line.split():
            case ["fail", operation, file, code, count]:
                self.operation, self.file = operation, file
                self.code = getattr(apsw, f"SQLITE_{code}")
                self.count = int(count)  # last: the store's threads look at it meanwhile
            case ["quota", size]:
                self.quota = int(size)
            case ["heal"]:
                self.count = self.quota = 0
            case ["clock", seconds]:
                self.clock_ns = int(seconds) * 1_000_000_000
            case _:
                raise ValueError(line)

    def wall_ns(self) -> int:
        return time.time_ns() + self.clock_ns


class FaultyVfs(apsw.VFS):
    """The system's files, with faults; SQLite's default from here on."""

    def __init__(self, faults: Faults) -> None:
        super().__init__("faulty", base="", makedefault=True)
        self._faults = faults

    def xOpen(  # a method of SQLite's
        self, name: str | apsw.URIFilename | None, flags: list[int]
    ) -> apsw.VFSFile:
        return FaultyFile(self._faults, name, flags)


class FaultyFile(apsw.VFSFile):
    """One open file: the store's own or its write-ahead log."""

    def __init__(
        self, faults: Faults, name: str | apsw.URIFilename | None, flags: list[int]
    ) -> None:
        # The layer below is named: the empty name would be the default, which is this one.
        super().__init__("unix", name, flags)
        self._faults = faults
        self._file = "log" if flags[0] & apsw.SQLITE_OPEN_WAL else "main"

    def xRead(self, amount: int, offset: int) -> bytes:  # a method of SQLite's
        self._faults.check("read", self._file)
        return super().xRead(amount, offset)

    def xWrite(self, data: bytes, offset: int) -> None:  # a method of SQLite's
        self._faults.check("write", self._file, offset + len(data))
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:  # a method of SQLite's
        self._faults.check("sync", self._file)
        super().xSync(flags)


def take_commands(faults: Faults) -> None:
    for line in sys.stdin:
        faults.obey(line)
        # In one piece: lines of the log go the same way.
        os.write(sys.stdout.fileno(), f"control: {line.strip()}\n".encode())


if __name__ == "__main__":
    faults = Faults()
    vfs = FaultyVfs(faults)
    Clock.__init__.__defaults__ = (faults.wall_ns, time.monotonic_ns)
    threading.Thread(target=take_commands, args=(faults,), daemon=True).start()
    main()
