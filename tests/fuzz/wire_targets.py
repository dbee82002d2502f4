"""What any bytes must do to the framer, the decoder and the readers of stored records."""

from holdfast.errors import ProtocolError, StoreCorrupt
from holdfast.protocol.decode import decode, peek_packet_id, peek_version
from holdfast.protocol.encode import encode
from holdfast.protocol.framer import Framer
from holdfast.protocol.packets import Connect, Packet, Puback, Pubcomp, Pubrec, Pubrel
from holdfast.protocol.properties import pack_properties, unpack_properties
from holdfast.protocol.sender import PACKET_ID_MAX
from holdfast.store.blocks import (
    decode_block,
    decode_block_part,
    decode_message,
    encode_block,
    encode_message,
)
from holdfast.store.records import OPEN, pack_in_flight, unpack_in_flight
from tests.fuzz.choices import Choices
from tests.protocol.strategies import VERSIONS, plain

LIMITS = (1_048_576, 1_048_576, 200, 130, 2)  # bytes of a packet; 2 is the smallest there is
HEAD_BYTES = 2  # of an input of ``frames`` and ``decode``, before the bytes of the wire


def frames(data: bytes) -> None:
    """Whole, byte by byte and in any pieces: the same packets, then the same error or none."""
    choices = Choices(data)
    head = choices.byte()
    version = VERSIONS[head % 3]
    limit = LIMITS[head // 3 % len(LIMITS)]
    sizes = choices.byte()
    wire = choices.rest()
    whole = outcome([wire], version, limit)
    assert outcome([wire[i : i + 1] for i in range(len(wire))], version, limit) == whole
    assert outcome(pieces(wire, sizes), version, limit) == whole


def pieces(wire: bytes, seed: int) -> list[bytes]:
    """The bytes in pieces of sizes that follow from a number; empty ones do not occur."""
    found: list[bytes] = []
    start = 0
    while start < len(wire):
        seed = (seed * 5 + 13) % 251
        size = 1 + seed % 7 if seed % 3 else 1 + seed
        found.append(wire[start : start + size])
        start += size
    return found


def outcome(chunks: list[bytes], version: int, limit: int) -> list[object]:
    """The packets of a stream, as their bytes and as data, up to an error."""
    framer = Framer(limit)
    found: list[object] = []
    fed = 0
    taken = 0
    try:
        for chunk in chunks:
            framer.feed(chunk)
            fed += len(chunk)
            while framer.next_frame():
                assert 0 <= framer.start < framer.body <= framer.end <= len(framer.buffer)
                taken += framer.end - framer.start
                assert framer.end - framer.start <= limit
                found.append(framer.buffer[framer.start : framer.end])
                found.append(plain(decode(framer.buffer, framer.start, framer.end, version)))
            assert framer.buffered == fed - taken
    except ProtocolError as error:
        found.append(str(error))
    else:
        found.append(fed - taken)
    return found


def decoded(data: bytes) -> None:
    """What is accepted is written again, at most as long, and read as the same; each version."""
    wire = data[HEAD_BYTES:]
    for version in VERSIONS:
        framer = Framer(1_048_576)
        framer.feed(wire)
        try:
            while framer.next_frame():
                _decode_one(framer, version)
        except ProtocolError:
            pass


def _decode_one(framer: Framer, version: int) -> None:
    buffer, start, end = framer.buffer, framer.start, framer.end
    named = peek_version(buffer, start, end)
    short_id = peek_packet_id(buffer, start, end)
    packet = decode(buffer, start, end, version)
    # Where a packet lies must not matter.
    moved = decode(b"--" + buffer[start:end] + b"--", 2, 2 + end - start, version)
    described = plain(packet)
    assert plain(moved) == described
    if isinstance(packet, Connect):
        assert named == packet.version
        version = named
    if short_id:
        assert isinstance(packet, Puback | Pubrec | Pubrel | Pubcomp)
        assert (packet.packet_id, packet.reason_code) == (short_id, 0)
    again = encode(packet, version)
    assert len(again) <= end - start
    assert described == plain(_read_one(again, version))


def _read_one(wire: bytes, version: int) -> Packet:
    framer = Framer(1_048_576)
    framer.feed(wire)
    assert framer.next_frame()
    packet = decode(framer.buffer, framer.start, framer.end, version)
    assert not framer.next_frame() and framer.buffered == 0
    return packet


def records(data: bytes) -> None:
    """Stored bytes that nobody wrote are told as such, by the one error that each reader has.

    What is accepted is packed again and is the same.
    """
    choices = Choices(data)
    kind = choices.byte() % 4
    if kind == 0:
        _in_flight(choices.rest())
    elif kind == 1:
        _block(choices.u16() or 1, choices.rest())
    elif kind == 2:
        _message(choices.rest())
    else:
        _properties(choices.rest())


def _in_flight(packed: bytes) -> None:
    groups: dict[int, int] = {}
    try:
        found = unpack_in_flight(packed, groups)
    except StoreCorrupt:
        return
    if any(not 0 < packet_id <= PACKET_ID_MAX for packet_id in found):
        return  # entries of a row without gaps are counted on and not checked
    groups_again: dict[int, int] = {}
    again = unpack_in_flight(pack_in_flight(found, groups), groups_again)
    assert list(again.items()) == list(found.items()) and groups_again == groups


def _block(first_lsn: int, packed: bytes) -> None:
    try:
        entries = decode_block(first_lsn, "a", 0, packed)
    except StoreCorrupt:
        entries = []
    for low, high in ((0, first_lsn + 1), (first_lsn + 1, OPEN)):
        try:
            part = decode_block_part(first_lsn, "a", 0, packed, low, high)
        except StoreCorrupt:
            continue
        for entry in part:
            assert low <= entry.lsn and (high == OPEN or entry.lsn < high)
    if entries:
        data = encode_block(entries, 0, len(entries))
        again = decode_block(first_lsn, "a", 0, data)
        assert encode_block(again, 0, len(again)) == data


def _message(packed: bytes) -> None:
    try:
        message = decode_message("a", packed)
    except StoreCorrupt:
        return
    again = encode_message(message)
    assert encode_message(decode_message("a", again)) == again


def _properties(packed: bytes) -> None:
    try:
        found = unpack_properties(packed)
    except ProtocolError:
        return
    assert plain(unpack_properties(pack_properties(found))) == plain(found)
