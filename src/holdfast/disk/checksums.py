"""The checksum that each row of a store carries, so that damage is told and never delivered.

It is the CRC-32 of the row's names and blobs, one after the other, begun with what its numbers come
to: 0, and for each number in the order of the columns ``add_number``. A name or blob stands among
the numbers as its length in bytes plus 1, and NULL as 0. Where that gives 0 it is 1: 0 is the
checksum of rows written before there were any, which cannot be checked. A store that has none of
these says so, and a 0 in it is damage: what became zeros would read so too.

A CRC of the numbers as well would take a third more time. Any change of one number changes what it
begins with, and so the checksum.
"""

from collections.abc import Sequence
from typing import Final
from zlib import crc32

from mypy_extensions import i64

from holdfast.errors import StoreCorrupt

Value = int | str | bytes | None

UNCHECKED: Final = 0  # the checksum of a row that an older format wrote

# zlib gives the interpreter up for more than 5 KiB, and a writer beside a busy event loop may have
# to wait long to get it back. What is much larger is worth that.
_PIECE_BYTES: Final = 4096
_WHOLE_BYTES_MIN: Final = 64 * 1024

_MASK: Final = 0xFFFF_FFFF
_crc32: Final = crc32  # at hand in compiled code, without a look into the module
# Odd, so that no two numbers below 2 ** 32 come to the same, and below 2 ** 31.
_FACTOR: Final = 0x3C6E_F35F
_OTHER_FACTOR: Final = 0x5851_F42D


def row_checksum(row: Sequence[object]) -> int:
    """The checksum of a row's values, all but the checksum itself.

    It is -1, which none is, if one is no value that a store writes.
    """
    crc: i64 = 0
    contents: list[bytes] = []
    for value in row:
        if value is None:
            crc = add_number(crc, 0)
        elif isinstance(value, int):
            crc = add_number(crc, value)
        elif isinstance(value, str):
            content = value.encode()
            crc = add_number(crc, len(content) + 1)
            contents.append(content)
        elif isinstance(value, bytes):
            crc = add_number(crc, len(value) + 1)
            contents.append(value)
        else:
            return -1
    for content in contents:
        crc = add_bytes(crc, content)
    return known(crc)


def block_checksum(lsn: int, last_lsn: int, topic: int, target: int, data: bytes) -> int:
    """``row_checksum`` of a row of the log."""
    crc: i64 = add_number(0, lsn)
    crc = add_number(crc, last_lsn)
    crc = add_number(crc, topic)
    crc = add_number(crc, target)
    crc = add_number(crc, len(data) + 1)
    return known(add_bytes(crc, data))


def check_row(
    table: str,
    key: object,
    row: Sequence[object],
    checksum: object,
    may_be_unchecked: bool = False,
) -> None:
    """Raise StoreCorrupt if this is not the row that was written, as far as that can be told."""
    if checksum != UNCHECKED or not may_be_unchecked:
        found = row_checksum(row)
        if checksum != found:
            raise damaged(table, key, checksum, found)


def damaged(table: str, key: object, expected: object, found: int) -> StoreCorrupt:
    """The error for a row whose checksum is another, or that has none."""
    if expected == UNCHECKED:
        return StoreCorrupt(f"table {table}, row {key}: expected a checksum, it has none")
    return StoreCorrupt(
        f"table {table}, row {key}: expected the checksum {expected}, that of its values is {found}"
    )


def known(crc: i64) -> i64:
    """A row's checksum, by the CRC of all its values."""
    return crc if crc != UNCHECKED else 1


def add_number(crc: i64, value: i64) -> i64:
    """What the numbers so far come to, with one more; -1, which none is, for one below 0."""
    if value < 0 or crc < 0:
        return -1
    # Below 2 ** 63 at every step: beyond, compiled and interpreted code differ.
    low: i64 = ((crc ^ (value & _MASK)) * _FACTOR) & _MASK
    return ((low ^ (low >> 15) ^ (value >> 32)) * _OTHER_FACTOR) & _MASK


def add_bytes(crc: i64, content: bytes) -> i64:
    """A CRC-32 with so many bytes behind it."""
    if crc < 0:
        return crc
    size: i64 = len(content)
    if size <= _PIECE_BYTES or size >= _WHOLE_BYTES_MIN:
        return _crc32(content, crc)
    start: i64 = 0
    while start < size:
        crc = _crc32(content[start : start + _PIECE_BYTES], crc)
        start += _PIECE_BYTES
    return crc
