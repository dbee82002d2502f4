"""The vectors: every packet whole, byte by byte, and with another packet behind it."""

from collections.abc import Sequence

import pytest

from holdfast.errors import ProtocolError
from holdfast.protocol.encode import encode
from tests.protocol.wire_data import Vector, noted, read_all, read_one, read_vectors, single_bytes

PINGREQ = b"\xc0\x00"

VECTORS = read_vectors()


def parameters(vectors: Sequence[Vector]) -> list[object]:
    return [
        pytest.param(vector, id=vector.name, marks=[pytest.mark.spec(*vector.spec)])
        for vector in vectors
    ]


VALID = parameters([vector for vector in VECTORS if vector.error is None])
# How packets are cut into pieces is none of the vectors' statements: these have no marks.
PIECES = [pytest.param(vector, id=vector.name) for vector in VECTORS if vector.error is None]
INVALID = parameters([vector for vector in VECTORS if vector.error is not None])


@pytest.mark.parametrize("vector", VALID)
def test_a_valid_packet_is_read_whole(vector: Vector) -> None:
    assert noted(read_one(vector.wire, vector.version)) == vector.packet


@pytest.mark.parametrize("vector", PIECES)
def test_a_valid_packet_is_read_byte_by_byte(vector: Vector) -> None:
    found = read_all(single_bytes(vector.wire), vector.version)
    assert [noted(packet) for packet in found] == [vector.packet]


@pytest.mark.parametrize("vector", PIECES)
def test_a_valid_packet_is_read_between_others(vector: Vector) -> None:
    wire = PINGREQ + vector.wire + PINGREQ
    ping = {"type": "PINGREQ"}
    for chunks in ([wire], single_bytes(wire)):
        found = read_all(chunks, vector.version)
        assert [noted(packet) for packet in found] == [ping, vector.packet, ping]


@pytest.mark.parametrize("vector", VALID)
def test_a_valid_packet_is_written_in_its_shortest_form(vector: Vector) -> None:
    wire = encode(read_one(vector.wire, vector.version), vector.version)
    if vector.canonical:
        assert wire == vector.wire
    else:
        assert wire != vector.wire
        assert len(wire) <= len(vector.wire)
        assert noted(read_one(wire, vector.version)) == vector.packet


@pytest.mark.parametrize("vector", INVALID)
def test_an_invalid_packet_is_refused_with_its_reason_code(vector: Vector) -> None:
    for chunks in ([vector.wire], single_bytes(vector.wire), [vector.wire + PINGREQ]):
        with pytest.raises(ProtocolError) as caught:
            read_all(chunks, vector.version)
        assert caught.value.reason_code == vector.error
