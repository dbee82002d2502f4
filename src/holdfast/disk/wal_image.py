"""The write-ahead log of a store's file, read without SQLite: which frames count, which are lost.

SQLite takes frames up to the first whose checksum is wrong, in silence. After a power cut that is
right: what follows was never flushed. After damage it is not, and here the two are told apart.
Source: https://sqlite.org/fileformat2.html#walformat.
"""

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, final

WAL_HEADER_BYTES: Final = 32
FRAME_HEADER_BYTES: Final = 24
_MAGIC_LITTLE: Final = 0x377F0682  # checksums of little-endian words; + 1: big-endian
_MASK: Final = 0xFFFF_FFFF
_PAGE_BYTES_DEFAULT: Final = 4096
PAGE_SIZES: Final = frozenset(1 << shift for shift in range(9, 17))
# A power cut may leave the last commit, and steps of trimming before it, which are not flushed on
# their own. With more commits behind the break than this it was none.
COMMITS_OF_A_POWER_CUT: Final = 1


@final
class WalImage:
    """What a write-ahead log says: its pages as of the last sound commit, and what it lost.

    ``frames`` holds, by page number, where the page's newest content begins in the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file_bytes = path.stat().st_size if path.exists() else 0
        self.page_bytes = 0
        self.page_count = 0  # of the store's file after the last commit; 0 if there is none
        self.frames: dict[int, int] = {}
        self.frames_used = 0
        self.is_header_damaged = False
        self.commits_lost = 0  # whole ones behind the first frame that is damaged
        self.frames_lost = 0  # of this log's age, behind the last sound commit
        if self.file_bytes > WAL_HEADER_BYTES:
            self._read()

    @property
    def is_damaged(self) -> bool:
        """Whether more is missing than a power cut can have left out."""
        return self.is_header_damaged or self.commits_lost > COMMITS_OF_A_POWER_CUT

    def _read(self) -> None:
        with self.path.open("rb") as file:
            header = file.read(WAL_HEADER_BYTES)
            magic, _, page_bytes = struct.unpack_from(">III", header)
            order = ">" if magic == _MAGIC_LITTLE + 1 else "<"
            stored = struct.unpack_from(">II", header, 24)
            is_sound = (
                magic in (_MAGIC_LITTLE, _MAGIC_LITTLE + 1)
                and page_bytes in PAGE_SIZES
                and wal_checksum(header[:24], (0, 0), order) == stored
            )
            self.page_bytes = page_bytes if is_sound else _PAGE_BYTES_DEFAULT
            salts = header[16:24]
            if not is_sound:
                # The frames prove themselves all the same, all but the first of them.
                first = file.read(FRAME_HEADER_BYTES)
                file.seek(WAL_HEADER_BYTES)
                salts = first[8:16]
                self.is_header_damaged = any(first)
            self._take(_frames(file.read, self.page_bytes, salts, stored, order))

    def _take(self, frames: Iterator["_Frame"]) -> None:
        """Apply frames up to the last commit that a break does not come before."""
        is_broken = False
        filling: dict[int, int] = {}
        since_commit = 0
        for frame in frames:
            if self.is_header_damaged and frame.index == 0:
                frame.is_sound = True  # nothing is left to check it by; what it holds is checked
            is_broken = is_broken or not frame.is_sound
            if is_broken:
                self.frames_lost += 1
                if frame.is_sound and frame.page_count > 0:
                    self.commits_lost += 1
                continue
            since_commit += 1
            filling[frame.page] = frame.offset
            if frame.page_count > 0:
                self.page_count = frame.page_count
                self.frames.update(filling)
                self.frames_used += since_commit
                filling.clear()
                since_commit = 0


@final
class _Frame:
    def __init__(self, index: int, page: int, page_count: int, offset: int, is_sound: bool) -> None:
        self.index = index
        self.page = page
        self.page_count = page_count  # 0 but for the last frame of a commit
        self.offset = offset  # of the page's content in the file
        self.is_sound = is_sound


def _frames(
    read: Callable[[int], bytes], page_bytes: int, salts: bytes, before: tuple[int, int], order: str
) -> Iterator[_Frame]:
    """The frames of a log's present age; those of an earlier one have other salts and end it."""
    index = 0
    foreign = 0
    while len(data := read(FRAME_HEADER_BYTES + page_bytes)) == FRAME_HEADER_BYTES + page_bytes:
        page, page_count = struct.unpack_from(">II", data)
        stored = struct.unpack_from(">II", data, 16)
        # The sum goes on from the one before, as that is written: so a frame that is damaged
        # does not make those behind it look so.
        sums = wal_checksum(data[:8], before, order)
        is_sound = (
            page > 0
            and data[8:16] == salts
            and wal_checksum(data[FRAME_HEADER_BYTES:], sums, order) == stored
        )
        before = (stored[0], stored[1])
        foreign = 0 if data[8:16] == salts else foreign + 1
        if foreign > 1:
            return
        offset = WAL_HEADER_BYTES + index * len(data) + FRAME_HEADER_BYTES
        yield _Frame(index, page, page_count, offset, is_sound)
        index += 1


def wal_checksum(data: bytes, sums: tuple[int, int], order: str) -> tuple[int, int]:
    """SQLite's checksum of whole pairs of 32-bit words, going on from earlier sums."""
    a, b = sums
    for x, y in struct.iter_unpack(f"{order}II", data):
        a = (a + b + x) & _MASK
        b = (a + b + y) & _MASK
    return a, b
