"""Decoding: everything valid comes back as it was, nothing else does worse than ProtocolError."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import ProtocolError
from holdfast.protocol.decode import decode, decode_publish, peek_packet_id, peek_version
from holdfast.protocol.encode import encode
from holdfast.protocol.framer import Framer
from holdfast.protocol.packets import (
    Connect,
    Packet,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Subscribe,
    Will,
)
from holdfast.protocol.topics import TopicCache
from tests.protocol.strategies import VERSIONS, any_packets, plain
from tests.protocol.wire_data import read_all, read_one, single_bytes

versions = st.sampled_from(VERSIONS)
PINGREQ = b"\xc0\x00"


@st.composite
def encoded(draw: st.DrawFn) -> tuple[int, Packet, bytes]:
    """A valid packet with its version and its bytes."""
    version = draw(versions)
    packet = draw(any_packets(version))
    return version, packet, encode(packet, version)


@st.composite
def damaged(draw: st.DrawFn) -> tuple[int, bytes]:
    """A valid packet in which bytes were changed, lost, added, doubled or cut off."""
    version, _, wire = draw(encoded())
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(wire)))
        size = draw(st.integers(0, 3))
        kind = draw(st.sampled_from(["flip", "lose", "insert", "double", "cut", "length"]))
        if kind == "flip" and start < len(wire):
            flipped = wire[start] ^ (1 << draw(st.integers(0, 7)))
            wire = wire[:start] + bytes([flipped]) + wire[start + 1 :]
        elif kind == "lose":
            wire = wire[:start] + wire[start + size :]
        elif kind == "insert":
            wire = wire[:start] + draw(st.binary(min_size=1, max_size=4)) + wire[start:]
        elif kind == "double":
            wire = wire[:start] + wire[start : start + size] * 2 + wire[start + size :]
        elif kind == "cut":
            wire = wire[:start]
        elif 2 <= len(wire) < 130:
            wire = wire[:1] + bytes([len(wire) - 2]) + wire[2:]  # so that the damage lies inside
    return version, wire


@given(encoded())
def test_a_packet_comes_back_whole(case: tuple[int, Packet, bytes]) -> None:
    version, packet, wire = case
    assert plain(read_one(wire, version)) == plain(packet)


@given(encoded())
def test_a_packet_comes_back_byte_by_byte_and_between_others(
    case: tuple[int, Packet, bytes],
) -> None:
    version, packet, wire = case
    found = read_all(single_bytes(PINGREQ + wire + PINGREQ), version)
    assert [plain(each) for each in found[1:-1]] == [plain(packet)]


@given(damaged())
def test_damaged_packets_raise_nothing_but_protocol_errors(case: tuple[int, bytes]) -> None:
    accepted_or_refused(*case)


@given(versions, st.binary(max_size=40))
def test_random_bytes_raise_nothing_but_protocol_errors(version: int, wire: bytes) -> None:
    accepted_or_refused(version, wire)


@given(versions, st.integers(0, 255), st.binary(max_size=60))
def test_random_bodies_raise_nothing_but_protocol_errors(
    version: int, first: int, body: bytes
) -> None:
    accepted_or_refused(version, bytes([first, len(body)]) + body)


def accepted_or_refused(version: int, wire: bytes) -> None:
    """Read the bytes; what is accepted can be written again, at most as long, and is the same."""
    try:
        found = read_all_but_the_rest(wire, version)
    except ProtocolError:
        return
    for packet, size in found:
        again = encode(packet, version)
        assert len(again) <= size
        assert plain(read_one(again, version)) == plain(packet)


def read_all_but_the_rest(wire: bytes, version: int) -> list[tuple[Packet, int]]:
    """The complete packets in the bytes with their sizes."""
    framer = Framer(1000)
    framer.feed(wire)
    found = []
    while framer.next_frame():
        packet = decode(framer.buffer, framer.start, framer.end, version)
        found.append((packet, framer.end - framer.start))
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_errors_keep_payloads_and_passwords_to_themselves(version: int) -> None:
    will = Will("will", b"SECRET")
    packets: list[Packet] = [
        Connect("client", version, True, 60, will, "user", b"SECRET"),
        Publish("topic", b"SECRET", 1, False, False, 1),
    ]
    errors = []
    for packet in packets:
        wire = encode(packet, version)
        for index in range(2, len(wire)):
            for byte in (0x00, 0x01, 0x80, 0xFF):
                bad = wire[:index] + bytes([byte]) + wire[index + 1 :]
                try:
                    read_all([bad], version)
                except ProtocolError as error:
                    errors.append(str(error))
    assert len(errors) > 50
    assert not [error for error in errors if "SECRET" in error or "5345" in error]


@given(encoded())
def test_decode_publish_equals_decode(case: tuple[int, Packet, bytes]) -> None:
    version, packet, wire = case
    if isinstance(packet, Publish):
        found = decode_publish(b"--" + wire + b"--", 2, 2 + len(wire), version, TopicCache())
        assert plain(found) == plain(packet)


def test_a_topic_seen_before_is_the_same_object() -> None:
    topics = TopicCache()
    wire = encode(Publish("some/topic", b""), 4)
    first = decode_publish(wire, 0, len(wire), 4, topics)
    second = decode_publish(wire, 0, len(wire), 4, topics)
    assert first.topic is second.topic
    packet = decode(wire, 0, len(wire), 4, topics)
    assert isinstance(packet, Publish)
    assert packet.topic is first.topic


@pytest.mark.parametrize("kind", [Puback, Pubrec, Pubrel, Pubcomp])
@pytest.mark.parametrize("version", VERSIONS)
def test_the_packet_identifier_of_a_short_acknowledgement_is_seen_without_decoding(
    kind: type[Puback], version: int
) -> None:
    for packet_id in (1, 255, 256, 65_535):
        wire = b"-" + encode(kind(packet_id), version) + b"-"
        assert peek_packet_id(wire, 1, len(wire) - 1) == packet_id


@given(damaged())
def test_what_peek_packet_id_sees_decode_sees_too(case: tuple[int, bytes]) -> None:
    version, wire = case
    try:
        found = read_all_but_the_rest(wire, version)
    except ProtocolError:
        if len(wire) == 4:
            assert peek_packet_id(wire, 0, 4) == 0
        return
    if len(found) == 1 and found[0][1] == len(wire):
        packet_id = peek_packet_id(wire, 0, len(wire))
        packet = found[0][0]
        if isinstance(packet, Puback | Pubrec | Pubrel | Pubcomp):
            assert packet_id == (packet.packet_id if wire[0] != 0x6A and len(wire) == 4 else 0)
        else:
            assert packet_id == 0


@pytest.mark.parametrize(
    ("wire", "version"),
    [
        ("100c00044d51545404020000", 4),
        ("100c00044d51545405ff0000", 5),
        ("100c00044d51545406020000", 6),
        ("100900064d514973647003", 3),
        ("100700044d51545405", 5),
        ("100600044d515454", -1),
        ("100c00044d51545804020000", -1),
        ("1000", -1),
        ("300700044d51545405", -1),
        ("100c00044d51545400020000", 0),
        ("c000", -1),
    ],
)
def test_the_version_of_a_refused_connect_can_be_seen(wire: str, version: int) -> None:
    data = bytes.fromhex(wire)
    assert peek_version(data, 0, len(data)) == version


@given(damaged())
def test_peek_version_never_fails_on_a_complete_packet(case: tuple[int, bytes]) -> None:
    framer = Framer(1000)
    framer.feed(case[1])
    try:
        complete = framer.next_frame()
    except ProtocolError:
        return
    if complete:
        assert -1 <= peek_version(framer.buffer, framer.start, framer.end) <= 255


def test_topic_filters_are_left_to_the_broker() -> None:
    wire = bytes.fromhex("820700010002232f01")
    packet = read_one(wire, 4)
    assert isinstance(packet, Subscribe)
    assert packet.requests[0].topic_filter == "#/"
