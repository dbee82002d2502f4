"""Decisions read from the bytes of an input: any bytes mean something, more bytes mean more."""

from collections.abc import Sequence
from typing import TypeVar, final

Item = TypeVar("Item")


@final
class Choices:
    """The bytes of one input, taken from the front. Behind their end all is zero."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    @property
    def is_at_end(self) -> bool:
        return self._position >= len(self._data)

    def byte(self) -> int:
        position = self._position
        self._position = position + 1
        return self._data[position] if position < len(self._data) else 0

    def u16(self) -> int:
        return self.byte() << 8 | self.byte()

    def u32(self) -> int:
        return self.u16() << 16 | self.u16()

    def flag(self) -> bool:
        return self.byte() & 1 == 1

    def below(self, bound: int) -> int:
        """A number from 0 to ``bound - 1``, which is at most 255."""
        return self.byte() % bound

    def pick(self, items: Sequence[Item]) -> Item:
        return items[self.byte() % len(items)]

    def binary(self, bytes_max: int) -> bytes:
        """Bytes as they stand, up to so many, which is at most 255."""
        size = self.byte() % (bytes_max + 1)
        start = self._position
        self._position = start + size
        return self._data[start : start + size]

    def rest(self) -> bytes:
        start = self._position
        self._position = len(self._data)
        return self._data[start:]
