"""What `bench pub` writes into payloads, so that `bench sub` knows their age and what is lost."""

import struct
from typing import Final, final

__all__ = ["STAMP_BYTES", "Streams", "read_stamp", "write_stamp"]

_MAGIC: Final = b"HfB1"
_LAYOUT: Final = struct.Struct(">4sQQQ")  # magic, publisher, number from 0, Unix time in ns
STAMP_BYTES: Final = _LAYOUT.size


def write_stamp(publisher: int, number: int, now_ns: int) -> bytes:
    """The first ``STAMP_BYTES`` of a payload."""
    return _LAYOUT.pack(_MAGIC, publisher, number, now_ns)


def read_stamp(payload: bytes) -> tuple[int, int, int] | None:
    """Publisher, number and time; None for a payload without them."""
    if len(payload) < STAMP_BYTES:
        return None
    magic, publisher, number, sent_ns = _LAYOUT.unpack_from(payload)
    return (publisher, number, sent_ns) if magic == _MAGIC else None


@final
class Streams:
    """The numbers that one subscriber has seen, and what is missing or doubled among them.

    A stream counts from the first number that is seen: who comes late has lost nothing.
    """

    def __init__(self) -> None:
        self.lost = 0
        self.repeated = 0  # seen before, or later than their successors
        self._next: dict[int, int] = {}

    def see(self, publisher: int, number: int) -> None:
        """Take note of the next message."""
        expected = self._next.get(publisher, number)
        if number < expected:
            self.repeated += 1
            return
        self.lost += number - expected
        self._next[publisher] = number + 1
