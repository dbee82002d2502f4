"""The pages of a store's file as of its last sound commit, read without SQLite and never written.

SQLite ends a walk at the first page that it cannot use, and writes to a file that it opens. This
reads whatever is left. Source: https://sqlite.org/fileformat2.html.
"""

import struct
from pathlib import Path
from types import TracebackType
from typing import Final, Self, final

from holdfast.disk.wal_image import PAGE_SIZES, WalImage

MAGIC: Final = b"SQLite format 3\x00"
HEADER_BYTES: Final = 100
PAGE_BYTES_DEFAULT: Final = 4096
_LOCK_OFFSET: Final = 0x4000_0000  # the page that holds this byte is never used
_POINTER_BYTES: Final = 5  # of an entry in a pointer map: what kind of page, and its parent

# Kinds of pages in a pointer map; 0 stands for an entry that is not there or impossible.
UNKNOWN: Final = 0
ROOT: Final = 1
FREE: Final = 2
OVERFLOW_FIRST: Final = 3
OVERFLOW_NEXT: Final = 4
TREE: Final = 5


@final
class PageImage:
    """One file and its write-ahead log, page by page; numbers count from 1."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.wal = WalImage(path.with_name(path.name + "-wal"))
        self._file = path.open("rb") if path.exists() else None
        self._wal_file = self.wal.path.open("rb") if self.wal.frames else None
        self.file_bytes = path.stat().st_size if path.exists() else 0
        header = self._read_header()
        self._map_at = 0  # the part of the pointer map at hand
        self._map = b""
        self.has_magic = header.startswith(MAGIC)
        self.page_bytes = self._find_page_bytes(header)
        self.usable = self.page_bytes
        # Up to here there is content; a damaged header may claim more or less.
        stored = self.file_bytes // self.page_bytes
        self.page_count = max(stored, max(self.wal.frames, default=0))
        # Pages beyond belong to a file that was larger once, or to none.
        self.pages_claimed = self._find_pages_claimed(header)
        (self.user_version,) = struct.unpack_from(">i", header, 60)
        (self.application_id,) = struct.unpack_from(">i", header, 68)
        self.free_pages, self.is_free_list_sound = self._find_free_pages(header)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        for file in (self._file, self._wal_file):
            if file is not None:
                file.close()

    def page(self, number: int) -> bytes:
        """The content of a page; empty if the file ends before its end."""
        offset = self.wal.frames.get(number)
        if offset is not None and self._wal_file is not None:
            self._wal_file.seek(offset)
            return self._wal_file.read(self.page_bytes)
        if self._file is None or number < 1:
            return b""
        self._file.seek((number - 1) * self.page_bytes)
        data = self._file.read(self.page_bytes)
        return data if len(data) == self.page_bytes else b""

    def is_map(self, number: int) -> bool:
        """Whether a page holds a part of the pointer map, or is the one that is never used."""
        return number == self._map_of(number) or number == self._lock_page

    def pointer(self, number: int) -> tuple[int, int]:
        """What the pointer map says of a page: its kind and its parent."""
        at = self._map_of(number)
        if number < 3 or number <= at:
            return UNKNOWN, 0
        if at != self._map_at:
            self._map_at, self._map = at, self.page(at)
        start = (number - at - 1) * _POINTER_BYTES
        entry = self._map[start : start + _POINTER_BYTES]
        if len(entry) < _POINTER_BYTES:
            return UNKNOWN, 0
        kind, parent = struct.unpack(">BI", entry)
        needs_parent = kind in (OVERFLOW_FIRST, OVERFLOW_NEXT, TREE)
        if kind > TREE or (parent == 0) == needs_parent or parent > self.page_count:
            return UNKNOWN, 0
        return kind, parent

    def is_free(self, number: int) -> bool:
        """Whether a page is free, as far as that can be known; its content is of the past.

        The map outweighs the list: one entry of the list says of any page that it is free, while
        what the map says of a page in use has a form, and takes several wrong bits to get.
        """
        if number > self.pages_claimed:
            return True
        kind, _ = self.pointer(number)
        if kind != UNKNOWN:
            return kind == FREE
        return number in self.free_pages or not self.is_free_list_sound

    @property
    def _lock_page(self) -> int:
        return _LOCK_OFFSET // self.page_bytes + 1

    def _map_of(self, number: int) -> int:
        """The page of the pointer map that would say what this page is."""
        if number < 2:
            return 0
        span = self.usable // _POINTER_BYTES + 1
        at = (number - 2) // span * span + 2
        return at + 1 if at == self._lock_page else at

    def _read_header(self) -> bytes:
        offset = self.wal.frames.get(1)
        header = b""
        if offset is not None and self._wal_file is not None:
            self._wal_file.seek(offset)
            header = self._wal_file.read(HEADER_BYTES)
        elif self._file is not None:
            header = self._file.read(HEADER_BYTES)
        return header.ljust(HEADER_BYTES, b"\0")

    def _find_page_bytes(self, header: bytes) -> int:
        if self.wal.page_count > 0:
            return self.wal.page_bytes
        (page_bytes,) = struct.unpack_from(">H", header, 16)
        page_bytes = 65_536 if page_bytes == 1 else page_bytes
        # A header that is damaged: the store is made with this size.
        return page_bytes if self.has_magic and page_bytes in PAGE_SIZES else PAGE_BYTES_DEFAULT

    def _find_pages_claimed(self, header: bytes) -> int:
        if self.wal.page_count > 0:
            return self.wal.page_count
        changed, count = struct.unpack_from(">I", header, 24) + struct.unpack_from(">I", header, 28)
        (valid_for,) = struct.unpack_from(">I", header, 92)
        is_known = self.has_magic and changed == valid_for and count > 0
        return count if is_known else self.page_count

    def _find_free_pages(self, header: bytes) -> tuple[set[int], bool]:
        """The pages of the free list, and whether that is all of them."""
        trunk, count = struct.unpack_from(">II", header, 32)
        found: set[int] = set()
        while 0 < trunk <= self.page_count and trunk not in found:
            found.add(trunk)
            data = self.page(trunk)
            if not data:
                break
            trunk, leaves = struct.unpack_from(">II", data)
            if leaves > self.usable // 4 - 2:
                break
            found.update(struct.unpack_from(f">{leaves}I", data, 8))
        return found, self.has_magic and len(found) == count
