"""What the tests of the protocol share: the vectors, and packets read through the framer."""

import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from holdfast.protocol.decode import decode
from holdfast.protocol.framer import Framer
from holdfast.protocol.packets import Packet
from tests.protocol.strategies import plain, spare

PACKET_BYTES_MAX: Final = 1_048_576  # of the framers here
_BINARY_FIELDS: Final = {"payload", "password", "correlation_data", "authentication_data"}


@dataclass(frozen=True, slots=True)
class Vector:
    """One entry of vectors.toml for one version; ``error`` is None exactly for a valid packet."""

    name: str
    wire: bytes
    version: int
    packet: object
    error: int | None
    canonical: bool
    spec: tuple[str, ...]


def read_vectors() -> list[Vector]:
    """Every vector, once for each of its versions."""
    table = tomllib.loads(Path(__file__).with_name("vectors.toml").read_text("utf-8"))
    return [
        Vector(
            f"{entry['name']}-{version}",
            bytes_of(entry["hex"]),
            version,
            _expected(entry.get("packet")),
            entry.get("error"),
            entry.get("canonical", True),
            tuple(entry.get("spec", ())),
        )
        for entry in table["vector"]
        for version in entry["versions"]
    ]


def bytes_of(notation: str) -> bytes:
    """The bytes of the vectors' notation: hex, 'text', and 61*3 for a repeated byte."""
    parts = []
    for token in re.findall(r"'[^']*'|\S+", notation):
        if token.startswith("'"):
            parts.append(token[1:-1].encode("ascii"))
        else:
            byte, _, count = token.partition("*")
            parts.append(bytes.fromhex(byte) * int(count or 1))
    return b"".join(parts)


def read_all(chunks: Iterable[bytes], version: int) -> list[Packet]:
    """All packets in the chunks, read as they come; they end where the last packet ends."""
    framer = Framer(PACKET_BYTES_MAX)
    found = []
    for chunk in chunks:
        framer.feed(chunk)
        while framer.next_frame():
            assert 0 <= framer.start < framer.body <= framer.end <= len(framer.buffer)
            found.append(decode(framer.buffer, framer.start, framer.end, version))
    assert framer.buffered == 0
    return found


def read_one(wire: bytes, version: int) -> Packet:
    """The one packet that these bytes are."""
    (packet,) = read_all([wire], version)
    return packet


def single_bytes(wire: bytes) -> Sequence[bytes]:
    """The bytes one by one."""
    return [wire[index : index + 1] for index in range(len(wire))]


def noted(packet: Packet) -> object:
    """A packet as the vectors note it."""
    return spare(plain(packet))


def _expected(packet: object) -> object:
    """A noted packet with its binary fields written out."""
    if isinstance(packet, list):
        return [_expected(item) for item in packet]
    if not isinstance(packet, dict):
        return packet
    return {
        name: bytes_of(value).hex(" ") if name in _BINARY_FIELDS else _expected(value)
        for name, value in packet.items()
    }
