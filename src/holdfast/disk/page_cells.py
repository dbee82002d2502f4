"""The cells of b-tree pages and the records in them, taken from pages that may be damaged.

Every cell is judged for itself, so that one that is damaged does not take its page along.
Source: https://sqlite.org/fileformat2.html, sections 1.6 and 2.1.
"""

import struct
from itertools import pairwise
from typing import Final, final

from holdfast.disk.page_image import (
    HEADER_BYTES,
    OVERFLOW_FIRST,
    OVERFLOW_NEXT,
    UNKNOWN,
    PageImage,
)

INDEX_INTERIOR: Final = 2
TABLE_INTERIOR: Final = 5
INDEX_LEAF: Final = 10
TABLE_LEAF: Final = 13

Value = int | float | str | bytes | None

# Of a record: the largest blob that a store writes is a message in a block of its own, at most
# 256 MB by the standard. A length beyond is a damaged one.
_PAYLOAD_BYTES_MAX: Final = 300_000_000
_FIXED_BYTES: Final = (0, 1, 2, 3, 4, 6, 8, 8, 0, 0)  # of a value, by serial type


@final
class Damaged(Exception):
    """A cell or record is not as any program writes it."""


@final
class Cell:
    """A record with its rowid, which is 0 in an index.

    ``payload`` is None if its overflow pages are damaged: ``key`` is all that is left of it. One
    that is doubtful lies across another and needs more proof than its form.
    """

    def __init__(self, key: int, payload: bytes | None, is_doubtful: bool) -> None:
        self.key = key
        self.payload = payload
        self.is_doubtful = is_doubtful


@final
class Node:
    """One b-tree page: ``children`` with the keys that bound them from above, and its cells.

    ``is_sound`` says that cells and free space together fill the page exactly, as SQLite's own
    check wants it.
    """

    def __init__(self, number: int, kind: int) -> None:
        self.number = number
        self.kind = kind
        self.is_sound = True
        self.children: list[tuple[int, int | None]] = []  # page, and its highest rowid if known
        self.cells: list[Cell] = []
        self.cells_lost = 0  # those that the page counts, and that cannot be told
        self.may_miss_cells = False  # the form is damaged in a way that leaves that open

    @property
    def is_table(self) -> bool:
        return self.kind in (TABLE_INTERIOR, TABLE_LEAF)

    @property
    def is_leaf(self) -> bool:
        return self.kind in (TABLE_LEAF, INDEX_LEAF)


def read_node(image: PageImage, number: int, *, with_payload: bool = True) -> Node | None:
    """What a page holds; None if it is no b-tree page."""
    page = image.page(number)
    start = HEADER_BYTES if number == 1 else 0
    if not page or page[start] not in (INDEX_INTERIOR, TABLE_INTERIOR, INDEX_LEAF, TABLE_LEAF):
        return None
    node = Node(number, page[start])
    for place in _places(image, page, node, start):
        if place.child:
            node.children.append((place.child, place.key if node.is_table else None))
        if node.kind != TABLE_INTERIOR and with_payload:
            payload = _payload(image, page, number, place)
            node.cells.append(Cell(place.key, payload, place.is_doubtful))
    if not node.is_leaf:
        (last,) = struct.unpack_from(">I", page, start + 8)
        node.children.append((last, None))
    return node


def decode_record(payload: bytes) -> list[Value]:
    """The values of a record; raises Damaged."""
    try:
        return _decode_record(payload)
    except (IndexError, struct.error, UnicodeDecodeError):
        raise Damaged from None


def _decode_record(payload: bytes) -> list[Value]:
    header_bytes, at = _varint(payload, 0)
    if header_bytes > len(payload) or header_bytes < at:
        raise Damaged
    kinds: list[int] = []
    while at < header_bytes:
        kind, at = _varint(payload, at)
        kinds.append(kind)
    if at != header_bytes:
        raise Damaged
    values: list[Value] = []
    for kind in kinds:
        if kind >= 12:
            size = (kind - 12) // 2
            data = payload[at : at + size]
            if len(data) < size:
                raise Damaged
            values.append(data.decode() if kind & 1 else data)
        elif kind == 0:
            size = 0
            values.append(None)
        elif kind in (8, 9):
            size = 0
            values.append(kind - 8)
        elif kind == 7:
            size = 8
            values += struct.unpack_from(">d", payload, at)
        elif kind < 7:
            size = _FIXED_BYTES[kind]
            data = payload[at : at + size]
            if len(data) < size:
                raise Damaged
            value = int.from_bytes(data, "big", signed=True)
            if _width(value) != size:
                # SQLite writes no number longer than it is. Bytes that became zeros say 0, which
                # as a checksum would stand for a row that has none.
                raise Damaged
            values.append(value)
        else:
            raise Damaged
        at += size
    if at != len(payload):
        raise Damaged
    return values


def _places(image: PageImage, page: bytes, node: Node, start: int) -> "list[_Place]":
    """Where the cells of a page lie; how many cannot be told goes into the node."""
    pointers = start + (8 if node.is_leaf else 12)
    (count,) = struct.unpack_from(">H", page, start + 3)
    count_max = (image.usable - pointers) // 4
    free, is_chain_sound = _free_blocks(page, start, image.usable)
    found, node.cells_lost = _measured(image, page, node.kind, pointers, min(count, count_max))
    if (
        count <= count_max
        and node.cells_lost == 0
        and is_chain_sound
        and _is_covered(page, start, pointers, found, free, image.usable)
    ):
        return found
    node.is_sound = False
    if is_chain_sound:
        # If only the count is wrong, exactly one other count makes the page fit. A higher one
        # would bring up cells that were removed.
        for other in range(count_max + 1):
            tried, lost = _measured(image, page, node.kind, pointers, other)
            if lost > 0:
                break
            if _is_covered(page, start, pointers, tried, free, image.usable):
                node.cells_lost = 0
                return tried
    whole = [place for place in found if not any(place.overlaps(*block) for block in free)]
    node.cells_lost += len(found) - len(whole)
    node.may_miss_cells = True
    for place in whole:
        place.is_doubtful = any(
            other is not place and place.overlaps(other.start, other.end) for other in whole
        )
    if node.is_table:
        for before, after in pairwise(whole):
            if before.key >= after.key:
                before.is_doubtful = after.is_doubtful = True
    return whole


def _measured(
    image: PageImage, page: bytes, kind: int, pointers: int, count: int
) -> "tuple[list[_Place], int]":
    """The first so many cells of a page, and how many of them are none."""
    found: list[_Place] = []
    for at in struct.unpack_from(f">{count}H", page, pointers):
        try:
            found.append(_measure(image, page, kind, at, pointers + 2 * count))
        except (Damaged, IndexError, struct.error):
            pass
    return found, count - len(found)


def _width(value: int) -> int:
    """The bytes that a number takes in a record."""
    if value in (0, 1):
        return 0
    bits = (value if value >= 0 else ~value).bit_length() + 1
    for width in (1, 2, 3, 4, 6):
        if bits <= 8 * width:
            return width
    return 8


@final
class _Place:
    """Where a cell lies in its page, and what its first bytes say."""

    def __init__(self, start: int) -> None:
        self.start = start
        self.end = 0
        self.child = 0
        self.key = 0
        self.payload_bytes = 0
        self.local_start = 0
        self.local_bytes = 0
        self.is_doubtful = False

    def overlaps(self, start: int, end: int) -> bool:
        return self.start < end and start < self.end


def _measure(image: PageImage, page: bytes, kind: int, at: int, least: int) -> _Place:
    if at < least or at > image.usable - 4:
        raise Damaged
    place = _Place(at)
    position = at
    if kind in (INDEX_INTERIOR, TABLE_INTERIOR):
        (place.child,) = struct.unpack_from(">I", page, position)
        position += 4
    if kind == TABLE_INTERIOR:
        place.key, place.end = _varint(page, position)
        place.key = _signed(place.key)
        return place
    place.payload_bytes, position = _varint(page, position)
    if place.payload_bytes > _PAYLOAD_BYTES_MAX:
        raise Damaged
    if kind == TABLE_LEAF:
        key, position = _varint(page, position)
        place.key = _signed(key)
    place.local_start = position
    place.local_bytes = _local_bytes(place.payload_bytes, kind, image.usable)
    position += place.local_bytes
    if place.local_bytes < place.payload_bytes:
        position += 4
    if position > image.usable:
        raise Damaged
    place.end = max(position, at + 4)  # a cell takes 4 bytes at least
    return place


def _local_bytes(payload_bytes: int, kind: int, usable: int) -> int:
    """How much of a payload lies in the cell itself."""
    highest = usable - 35 if kind == TABLE_LEAF else (usable - 12) * 64 // 255 - 23
    if payload_bytes <= highest:
        return payload_bytes
    lowest = (usable - 12) * 32 // 255 - 23
    local = lowest + (payload_bytes - lowest) % (usable - 4)
    return local if local <= highest else lowest


def _payload(image: PageImage, page: bytes, number: int, place: _Place) -> bytes | None:
    """A cell's payload with what overflows; None if a page of that is not there or not its own."""
    local = page[place.local_start : place.local_start + place.local_bytes]
    missing = place.payload_bytes - place.local_bytes
    if missing == 0:
        return local
    parts = [local]
    (following,) = struct.unpack_from(">I", page, place.local_start + place.local_bytes)
    parent, expected = number, OVERFLOW_FIRST
    while missing > 0:
        kind, mapped_parent = image.pointer(following)
        data = image.page(following) if following > 2 else b""
        if not data or (kind == UNKNOWN and following in image.free_pages):
            return None
        if kind != UNKNOWN and (kind != expected or mapped_parent != parent):
            return None
        size = min(missing, image.usable - 4)
        parts.append(data[4 : 4 + size])
        missing -= size
        parent, expected = following, OVERFLOW_NEXT
        (following,) = struct.unpack_from(">I", data)
    return b"".join(parts)


def _free_blocks(page: bytes, start: int, usable: int) -> tuple[list[tuple[int, int]], bool]:
    """The free stretches between a page's cells, and whether their chain is sound."""
    found: list[tuple[int, int]] = []
    (at,) = struct.unpack_from(">H", page, start + 1)
    end = 0
    while at != 0:
        if at < end or at > usable - 4:
            return found, False
        following, size = struct.unpack_from(">HH", page, at)
        end = at + size
        if size < 4 or end > usable:
            return found, False
        found.append((at, end))
        at = following
    return found, True


def _is_covered(
    page: bytes,
    start: int,
    pointers: int,
    found: list[_Place],
    free: list[tuple[int, int]],
    usable: int,
) -> bool:
    """Whether cells and free space fill a page, but for the scraps that it counts itself."""
    (content,) = struct.unpack_from(">H", page, start + 5)
    end = content or 65_536
    if end < pointers + 2 * len(found):
        return False
    scraps = 0
    for low, high in sorted([(place.start, place.end) for place in found] + free):
        if low < end:
            return False
        scraps += low - end
        end = high
    is_ordered = all(a.key < b.key for a, b in pairwise(found))
    is_ordered = is_ordered or page[start] in (INDEX_INTERIOR, INDEX_LEAF)
    return is_ordered and scraps + usable - end == page[start + 7]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of SQLite's, seven bits a byte and the highest first, and where it ends."""
    value = 0
    for index in range(8):
        byte = data[at + index]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + index + 1
    return value << 8 | data[at + 8], at + 9


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
