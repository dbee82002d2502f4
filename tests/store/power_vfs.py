"""A disk that can lose power: what is durable, what is only written, and all that a cut may leave.

SQLite works on real files, which stand for the system's cache, and ``PowerVfs`` records every
write, change of size, flush, creation and removal. A ``Disk`` replays that record up to any event.
It knows for each file what the last flush made durable and what has been written since, sector by
sector, and ``left_by_a_cut`` gives what a power cut at this moment may leave behind.

What holds for this disk, as for real ones:

- a sector of 512 bytes is there as one of its writes left it, or as it was; which, is open for each
  sector apart, in whatever order they were written;
- so is the size: of a file that has grown the new sectors may be missing, or there and zero;
- a name made or removed may still be as it was until its folder is flushed; names change in order;
- a flush that fails loses what it was to flush: the cache still shows it, but no later flush
  writes it (Linux). What of it has reached the disk all the same is open.
"""

import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import apsw

SECTOR: Final = 512  # bytes

Images = dict[str, bytes]  # the content of a folder: files by name


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a file or the folder."""

    kind: str  # write, truncate, sync, lost, create, remove or sync folder
    name: str = ""
    file: int = 0  # files are told apart by number, since a name may come again
    offset: int = 0  # where it was written, or the new size
    data: bytes = b""
    reached: int | None = None  # of a flush that failed: the seed of what is durable; None: nothing

    def __str__(self) -> str:
        return f"{self.kind} {self.name} {self.offset}+{len(self.data)}".strip()


@dataclass(frozen=True, slots=True)
class Change:
    """What one write, or one change of size, did to a file."""

    sectors: dict[int, bytes]  # their new content, by index
    size: int  # of the file, afterwards


class DiskFile:
    """One file: its durable content, what the cache holds, and the changes between the two."""

    def __init__(self, content: bytes = b"") -> None:
        self.durable = content
        self.cache = bytearray(content)
        self.unflushed: list[Change] = []

    def copy(self) -> "DiskFile":
        copied = DiskFile(self.durable)
        copied.cache = bytearray(self.cache)
        copied.unflushed = list(self.unflushed)
        return copied

    def write(self, offset: int, data: bytes) -> None:
        start = min(offset, len(self.cache))  # a gap becomes zeros
        self.cache.extend(bytes(max(0, offset + len(data) - len(self.cache))))
        self.cache[offset : offset + len(data)] = data
        self._note(start, offset + len(data))

    def truncate(self, size: int) -> None:
        before = len(self.cache)
        del self.cache[size:]
        self.cache.extend(bytes(size - len(self.cache)))
        self._note(min(before, size), max(before, size))

    def sync(self) -> None:
        self.durable = put(self.durable, self.unflushed, len(self.cache))
        self.unflushed.clear()

    def lose(self, reached: int | None) -> None:
        """Fail to flush."""
        if reached is not None:
            self.durable = _any_sectors(self, random.Random(reached))
        self.unflushed.clear()

    def _note(self, start: int, stop: int) -> None:
        sectors: dict[int, bytes] = {}
        for index in range(start // SECTOR, -(-stop // SECTOR)):
            sector = bytes(self.cache[index * SECTOR : (index + 1) * SECTOR])
            sectors[index] = sector.ljust(SECTOR, b"\x00")
        self.unflushed.append(Change(sectors, len(self.cache)))


def put(content: bytes, changes: list[Change], size: int) -> bytes:
    """A file's content after these changes, with this size in the end."""
    if not changes and size == len(content):
        return content
    changed = bytearray(content)
    for change in changes:
        for index, sector in change.sectors.items():
            start = index * SECTOR
            changed.extend(bytes(max(0, start + SECTOR - len(changed))))
            changed[start : start + SECTOR] = sector
    del changed[size:]
    changed.extend(bytes(size - len(changed)))
    return bytes(changed)


class Disk:
    """A folder on the disk; made from its durable content."""

    def __init__(self, images: Images | None = None) -> None:
        content = images if images is not None else {}
        self.files = {number: DiskFile(data) for number, data in enumerate(content.values())}
        self.names = {name: number for number, name in enumerate(content)}  # as the cache has them
        self.durable_names = dict(self.names)
        self.unflushed_names: list[dict[str, int]] = []  # all names, after each change of one

    def copy(self) -> "Disk":
        copied = Disk()
        copied.files = {number: file.copy() for number, file in self.files.items()}
        copied.names = dict(self.names)
        copied.durable_names = dict(self.durable_names)
        copied.unflushed_names = list(self.unflushed_names)
        return copied

    def apply(self, event: Event) -> None:
        match event.kind:
            case "write":
                self.files[event.file].write(event.offset, event.data)
            case "truncate":
                self.files[event.file].truncate(event.offset)
            case "sync":
                self.files[event.file].sync()
            case "lost":
                self.files[event.file].lose(event.reached)
            case "create":
                self.files[event.file] = DiskFile()
                self._rename({**self.names, event.name: event.file})
            case "remove":
                names = dict(self.names)
                del names[event.name]
                self._rename(names)
            case "sync folder":
                self.durable_names = self.names
                self.unflushed_names.clear()
            case _:
                raise AssertionError(event.kind)

    def _rename(self, names: dict[str, int]) -> None:
        self.names = names
        self.unflushed_names.append(names)

    def cached(self) -> Images:
        """What the next process sees if only this one is killed."""
        return {name: bytes(self.files[number].cache) for name, number in self.names.items()}

    def changed_files(self) -> list[DiskFile]:
        """Those with something to lose."""
        return [file for _, file in sorted(self.files.items()) if file.unflushed]

    def left(
        self, content: Callable[[DiskFile], bytes], pick_names: Callable[[int], int]
    ) -> Images:
        """What is left, given how to choose: of a file, and of so many versions of the names."""
        versions = [self.durable_names, *self.unflushed_names]
        names = versions[pick_names(len(versions))]
        return {name: content(self.files[number]) for name, number in names.items()}


def left_by_a_cut(disk: Disk, mode: str, seed: int) -> Images:
    """What a power cut leaves in one of MODES; the seed decides what is open in it."""
    return MODES[mode](disk, random.Random(f"{mode} {seed}"), seed)


def whole_files(disk: Disk) -> list[int]:
    """The seeds of the mode "whole": one for each choice of files."""
    count = len(disk.changed_files()) + (1 if disk.unflushed_names else 0)
    return list(range(1 << count))


def _whole(disk: Disk, _rng: random.Random, seed: int) -> Images:
    """All that is unflushed of a file is there or lost: a bit of the seed each, and for names."""
    changed = disk.changed_files()
    kept = {id(file) for index, file in enumerate(changed) if seed >> index & 1}

    def content(file: DiskFile) -> bytes:
        if id(file) not in kept:
            return file.durable
        return put(file.durable, file.unflushed, file.unflushed[-1].size)

    return disk.left(content, lambda count: (count - 1) * (seed >> len(changed) & 1))


def _torn(disk: Disk, rng: random.Random, _seed: int) -> Images:
    """All but the last change of each file, and of that one some sectors."""

    def content(file: DiskFile) -> bytes:
        if not file.unflushed:
            return file.durable
        *before, last = file.unflushed
        part = {index: data for index, data in last.sectors.items() if rng.random() < 0.5}
        size = rng.choice([last.size, before[-1].size if before else len(file.durable)])
        return put(file.durable, [*before, Change(part, size)], size)

    return disk.left(content, rng.randrange)


def _last(disk: Disk, rng: random.Random, seed: int) -> Images:
    """Of each file only the last changes, as many as the seed says, as if they had overtaken."""

    def content(file: DiskFile) -> bytes:
        changes = file.unflushed[-1 - seed :]
        return put(file.durable, changes, changes[-1].size if changes else len(file.durable))

    return disk.left(content, rng.randrange)


def _size(disk: Disk, rng: random.Random, _seed: int) -> Images:
    """Only the sizes have changed: new sectors are zero."""

    def content(file: DiskFile) -> bytes:
        return put(file.durable, [], rng.choice(_sizes(file)[1:] or _sizes(file)))

    return disk.left(content, rng.randrange)


def _some(disk: Disk, rng: random.Random, _seed: int) -> Images:
    """Some changes, whole, in any order."""

    def content(file: DiskFile) -> bytes:
        share = rng.choice([0.1, 0.5, 0.9])
        changes = [change for change in file.unflushed if rng.random() < share]
        if rng.random() < 0.5:
            rng.shuffle(changes)
        sizes = [change.size for change in changes] or [len(file.durable)]
        return put(file.durable, changes, rng.choice([sizes[-1], max(sizes)]))

    return disk.left(content, rng.randrange)


def _sectors(disk: Disk, rng: random.Random, _seed: int) -> Images:
    """Each sector as any of its writes left it, or as it was before all of them."""
    return disk.left(lambda file: _any_sectors(file, rng), rng.randrange)


def _any_sectors(file: DiskFile, rng: random.Random) -> bytes:
    versions: dict[int, list[bytes]] = {}
    for change in file.unflushed:
        for index, sector in change.sectors.items():
            versions.setdefault(index, []).append(sector)
    share = rng.choice([0.05, 0.5, 0.95])
    chosen = {
        index: rng.choice(found) if rng.random() < 0.3 else found[-1]
        for index, found in versions.items()
        if rng.random() < share
    }
    sizes = _sizes(file)
    size = sizes[-1] if rng.random() < 0.5 else rng.choice(sizes)
    return put(file.durable, [Change(chosen, size)], size)


def _sizes(file: DiskFile) -> list[int]:
    """The sizes a file may have: the durable one first."""
    return [len(file.durable), *(change.size for change in file.unflushed)]


MODES: Final[dict[str, Callable[[Disk, random.Random, int], Images]]] = {
    "whole": _whole,
    "torn": _torn,
    "last": _last,
    "size": _size,
    "some": _some,
    "sectors": _sectors,
}

Lie = Callable[[str, int], bool]  # of a file's name and how many flushes came before, of any file


class PowerVfs(apsw.VFS):
    """Records what SQLite does to the files of one folder, and flushes nothing for real."""

    def __init__(self, name: str, folder: Path, disk: Disk) -> None:
        super().__init__(name, base="")
        self.name: Final = name
        self.events: list[Event] = []
        self._folder = folder
        self._numbers = dict(disk.names)
        self._next_number = max(disk.files, default=-1) + 1
        self._flushes = 0
        self.lie: Lie | None = None  # which flushes fail
        self.reached: int | None = None  # see Event

    def xOpen(  # a method of SQLite's
        self, name: str | apsw.URIFilename | None, flags: list[int]
    ) -> apsw.VFSFile:
        if name is None:
            return apsw.VFSFile("", name, flags)
        opened = PowerFile(self, name, flags)
        self._notice(opened.name)
        opened.number = self._numbers[opened.name]
        return opened

    def xDelete(self, filename: str, syncdir: bool) -> None:  # a method of SQLite's
        super().xDelete(filename, syncdir)
        name = os.path.basename(filename)
        del self._numbers[name]
        self.events.append(Event("remove", name))
        if syncdir:
            self.events.append(Event("sync folder"))

    def folder_synced(self, folder: Path) -> None:
        """Take note of a flush of the folder that SQLite has no part in, and of what is new."""
        if folder == self._folder:
            for path in sorted(folder.iterdir()):
                if not path.name.endswith("-shm"):
                    self._notice(path.name)
            self.events.append(Event("sync folder"))

    def flushed(self, name: str, number: int) -> None:
        """Record a flush, or fail it."""
        self._flushes += 1
        if self.lie is not None and self.lie(name, self._flushes - 1):
            self.events.append(Event("lost", name, number, reached=self.reached))
            raise apsw.exception_for(apsw.SQLITE_IOERR_FSYNC)
        self.events.append(Event("sync", name, number))

    def _notice(self, name: str) -> None:
        if name not in self._numbers:
            self._numbers[name] = self._next_number
            self._next_number += 1
            self.events.append(Event("create", name, self._numbers[name]))


class PowerFile(apsw.VFSFile):
    """One open file of the store."""

    def __init__(self, vfs: PowerVfs, name: str | apsw.URIFilename, flags: list[int]) -> None:
        asked = flags[0]
        super().__init__("", name, flags)
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        self.name: Final = os.path.basename(path)
        self.number = 0
        self._vfs = vfs
        # Of these kinds SQLite flushes the folder as well, with the file's first flush.
        kinds = apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL
        self._syncs_folder = bool(asked & kinds and asked & apsw.SQLITE_OPEN_CREATE)

    def xWrite(self, data: bytes, offset: int) -> None:  # a method of SQLite's
        super().xWrite(data, offset)
        event = Event("write", self.name, self.number, offset, bytes(data))
        self._vfs.events.append(event)

    def xTruncate(self, newsize: int) -> None:  # a method of SQLite's
        super().xTruncate(newsize)
        self._vfs.events.append(Event("truncate", self.name, self.number, newsize))

    def xSync(self, flags: int) -> None:  # a method of SQLite's
        self._vfs.flushed(self.name, self.number)
        if self._syncs_folder:
            self._syncs_folder = False
            self._vfs.events.append(Event("sync folder"))
