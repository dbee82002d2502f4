"""Inputs from a seed: good ones to begin with, and damaged and random ones without end."""

import random
from collections.abc import Iterator
from typing import Final

from holdfast.message import Message, Properties
from holdfast.protocol.encode import encode
from holdfast.store.blocks import encode_block, encode_message
from holdfast.store.records import LogEntry, pack_in_flight
from tests.fuzz import made_packets
from tests.fuzz.choices import Choices
from tests.fuzz.targets import INPUT_BYTES_MAX, regressions
from tests.protocol.strategies import VERSIONS
from tests.protocol.wire_data import read_vectors

SAMPLES: Final = 150  # of inputs to begin with, for the targets that no vectors give some
DECIDED: Final = ("broker", "client")  # their inputs are decisions
ODD_BYTES: Final = b"\x00\x01\x02\x03\x04\x05\x10\x7f\x80\x81\xc0\xff"


def corpus(name: str) -> list[bytes]:
    """Inputs that mean something to a target, the old finds among them."""
    found = list(regressions(name).values())
    if name in ("frames", "decode"):
        for vector in read_vectors():
            if len(vector.wire) < INPUT_BYTES_MAX[name]:
                found.append(bytes([VERSIONS.index(vector.version), 7]) + vector.wire)
    elif name == "records":
        found += _stored()
    else:
        chance = random.Random(name)
        found += [chance.randbytes(chance.randrange(40, 400)) for _ in range(SAMPLES)]
    return found


def _stored() -> list[bytes]:
    """What a store holds, behind the byte that tells the target its kind."""
    properties = Properties()
    properties.content_type = "text"
    properties.correlation_data = b"\x00\xff"
    properties.user_properties = [("k", "v"), ("k", "w")]
    messages = [
        Message("a", b"", 0, False),
        Message("a", b"payload", 1, True, None, 0, "meter-7"),
        Message("a", b"p" * 100, 2, False, properties, 1_700_000_000_000, "é"),
    ]
    entries = [LogEntry(7 + index, message) for index, message in enumerate(messages)]
    flights = [{}, {1: 4, 2: 8, 3: 13, 9: 2, 65_535: 1_000_002}, {5: 2**62}]
    return [
        *[b"\x00" + pack_in_flight(flight) for flight in flights],
        b"\x00" + pack_in_flight(flights[1], {2: 7, 65_535: 300}),
        b"\x01\x00\x07" + encode_block(entries, 0, len(entries)),
        *[b"\x02" + encode_message(message) for message in messages],
        b"\x03\x03\x00\x04text\x09\x00\x02\x00\xff\x26\x00\x01k\x00\x01v",
    ]


def inputs(name: str, seed: str) -> Iterator[bytes]:
    """Inputs for a target, always the same ones for a seed: the corpus first, then its children."""
    chance = random.Random(f"{seed} {name}")
    known = corpus(name)
    yield from known
    size_max = INPUT_BYTES_MAX[name]
    while True:
        kind = chance.randrange(8)
        if kind == 0:
            yield chance.randbytes(chance.randrange(size_max))
        elif name in DECIDED and kind < 6:
            # New decisions reach further than changes to old ones.
            yield chance.randbytes(chance.randrange(40, size_max))
        elif name in ("frames", "decode") and kind < 4:
            made = _packets(chance)
            yield made if kind == 1 else mutated(chance, made, known)[:size_max]
        else:
            yield mutated(chance, chance.choice(known), known)[:size_max]


def _packets(chance: random.Random) -> bytes:
    """A stream of one to three well-formed packets."""
    index = chance.randrange(3)
    version = VERSIONS[index]
    parts = [bytes([index, chance.randrange(256)])]
    for _ in range(chance.choice((1, 1, 2, 3))):
        packet = made_packets.any_packet(Choices(chance.randbytes(60)), version)
        parts.append(encode(packet, version))
    return b"".join(parts)


def mutated(chance: random.Random, data: bytes, known: list[bytes]) -> bytes:
    """An input with a few changes: bytes flipped, replaced, lost, doubled, taken from another."""
    wire = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
        place = chance.randrange(len(wire) + 1)
        size = chance.choice((1, 1, 2, 4, 16))
        kind = chance.randrange(7)
        if kind == 0 and place < len(wire):
            wire[place] ^= 1 << chance.randrange(8)
        elif kind == 1 and place < len(wire):
            wire[place] = chance.choice(ODD_BYTES)
        elif kind == 2:
            wire[place:place] = chance.randbytes(size)
        elif kind == 3:
            del wire[place : place + size]
        elif kind == 4:
            wire[place:place] = wire[place : place + size]
        elif kind == 5:
            other = chance.choice(known)
            start = chance.randrange(len(other) + 1)
            wire[place:] = other[start:]
        elif 4 <= len(wire) < 131:
            wire[3] = len(wire) - 4  # so that the damage lies within the packet
    return bytes(wire)
