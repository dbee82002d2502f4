"""Packet by packet: what the client takes from a server, and what it ends the connection for.

The bytes of the server are built by ``tests.support.packets``, apart from the client's own codec.
"""

from collections.abc import Callable

import pytest

from holdfast.message import Properties
from holdfast.protocol.packets import (
    Connack,
    Connect,
    Disconnect,
    Pingreq,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    SubscriptionRequest,
    Unsuback,
    Unsubscribe,
)
from holdfast.protocol.reason_codes import allowed_codes
from tests.client.world import V5, V311, ClientWorld
from tests.support import packets as wire
from tests.support.properties import properties

MALFORMED = 0x81
PROTOCOL = 0x82
VERSIONS = pytest.mark.parametrize("version", [V5, V311], ids=["5.0", "3.1.1"])


def connected(version: int = V5) -> ClientWorld:
    world = ClientWorld(version)
    world.hello(properties=properties(topic_alias_maximum=9) if version == V5 else None)
    world.wire()
    return world


# --- strings and numbers

ILL_FORMED = {
    "overlong": b"a\xc0\xaf",
    "cut short": b"a\xe2\x82",
    "no start": b"\x80",
    "high surrogate": b"\xed\xa0\x80",
    "low surrogate": b"\xed\xbf\xbf",
    "surrogate pair": b"\xed\xa0\x81\xed\xb0\x80",
    "above U+10FFFF": b"\xf4\x90\x80\x80",
}


def strings_5(text: bytes) -> dict[str, bytes]:
    """Packets of a server that have this string, one for each place."""
    pair = wire.binary("k") + wire.binary(text)
    reversed_pair = wire.binary(text) + wire.binary("v")

    def set_of(identifier: int, content: bytes) -> bytes:
        return wire.varint(1 + len(content)) + bytes([identifier]) + content

    return {
        "topic": wire.publish(text),
        "content type": wire.packet(3, 0, wire.binary("a") + set_of(3, wire.binary(text))),
        "response topic": wire.packet(3, 0, wire.binary("a") + set_of(8, wire.binary(text))),
        "user property's value": wire.packet(3, 0, wire.binary("a") + set_of(0x26, pair)),
        "user property's name": wire.packet(3, 0, wire.binary("a") + set_of(0x26, reversed_pair)),
        "reason string": wire.packet(4, 0, b"\0\1\0" + set_of(0x1F, wire.binary(text))),
        "farewell": wire.packet(14, 0, b"\x8b" + set_of(0x1F, wire.binary(text))),
    }


@pytest.mark.spec("MQTT5-1.5.4-1", "MQTT5-1.5.7-1", "MQTT5-3.3.2-13", "MQTT5-3.3.2-19")
@pytest.mark.parametrize("text", ILL_FORMED.values(), ids=ILL_FORMED)
def test_a_string_that_is_not_utf_8_is_malformed(text: bytes) -> None:
    for place, packet in strings_5(text).items():
        assert connected().breaks(packet) == MALFORMED, place


@pytest.mark.spec("MQTT5-1.5.4-2", "MQTT5-1.5.7-1", "MQTT5-4.7.3-2")
def test_a_string_with_u_0000_is_malformed() -> None:
    for place, packet in strings_5(b"a\0b").items():
        assert connected().breaks(packet) == MALFORMED, place


@pytest.mark.spec("MQTT311-1.5.3-1", "MQTT311-1.5.3-2", "MQTT311-3.3.2-1", "MQTT5-3.3.2-1")
@pytest.mark.parametrize("text", [*ILL_FORMED.values(), b"a\0"], ids=[*ILL_FORMED, "U+0000"])
@VERSIONS
def test_a_topic_that_is_no_proper_string_ends_the_connection(version: int, text: bytes) -> None:
    assert connected(version).breaks(wire.publish(text, b"", version)) == MALFORMED


@pytest.mark.spec("MQTT5-1.5.4-3", "MQTT311-1.5.3-3")
@VERSIONS
def test_u_feff_is_kept_at_any_place(version: int) -> None:
    world = connected(version)
    topic = b"\xef\xbb\xbfa/\xef\xbb\xbf"
    world.server_bytes(wire.publish(topic, b"", version))
    assert world.take().topic == "\ufeffa/\ufeff"
    world.publish("\ufeffa/\ufeff")
    assert topic in world.wire()


@pytest.mark.spec("MQTT5-1.5.5-1")
def test_a_padded_variable_byte_integer_is_malformed() -> None:
    assert connected().breaks(b"\xd0\x80\x00") == MALFORMED
    assert connected().breaks(b"\x30\x04\x00\x01a\x80\x00") == MALFORMED
    assert connected().breaks(b"\xd0\xff\xff\xff\xff\x7f") == MALFORMED


@pytest.mark.spec("MQTT5-1.5.5-1")
@pytest.mark.parametrize("size", [100, 127, 128, 16_383, 16_384])
def test_lengths_are_written_in_the_fewest_bytes(size: int) -> None:
    """The decoder of ``packets`` would refuse another length."""
    world = connected()
    world.publish("a", b"x" * size)
    data = world.wire()
    assert data[1 : 1 + len(wire.varint(size + 4))] == wire.varint(size + 4)
    assert data.endswith(b"x" * size) and len(data) == 1 + len(wire.varint(size + 4)) + size + 4


@pytest.mark.spec("MQTT5-2.2.2-1")
def test_an_empty_property_set_has_length_0() -> None:
    world = connected()
    world.publish("a", b"x")
    assert world.wire() == b"\x30\x05\x00\x01a\x00x"
    world.request(Subscribe(0, [SubscriptionRequest("a", 1)]))
    assert world.wire() == b"\x82\x07\xff\x00\x00\x00\x01a\x01"
    world.request(Unsubscribe(0, ["a"]))
    assert world.wire() == b"\xa2\x06\xff\x01\x00\x00\x01a"


# --- fixed headers


@pytest.mark.spec("MQTT5-2.1.3-1", "MQTT311-2.2.2-1", "MQTT311-2.2.2-2")
@pytest.mark.parametrize("flags", range(16))
@VERSIONS
def test_reserved_flags_end_the_connection(version: int, flags: int) -> None:
    tail = b"\x00" if version == V5 else b""
    others = {
        "PUBACK": wire.packet(4, flags, b"\0\1"),
        "PUBREC": wire.packet(5, flags, b"\0\1"),
        "PUBCOMP": wire.packet(7, flags, b"\0\1"),
        "SUBACK": wire.packet(9, flags, b"\0\1" + tail + b"\0"),
        "UNSUBACK": wire.packet(11, flags, b"\0\1" + tail + (b"\0" if tail else b"")),
        "PINGRESP": wire.packet(13, flags, b""),
    }
    if flags != 0:
        for name, packet in others.items():
            assert connected(version).breaks(packet) == MALFORMED, name
        world = ClientWorld(version)
        world.open()
        assert world.breaks(wire.packet(2, flags, b"\0\0" + tail)) == MALFORMED


@pytest.mark.spec("MQTT5-3.6.1-1", "MQTT311-3.6.1-1")
@pytest.mark.parametrize("flags", [flags for flags in range(16) if flags != 2])
@VERSIONS
def test_pubrel_has_flags_2(version: int, flags: int) -> None:
    assert connected(version).breaks(wire.packet(6, flags, b"\0\1")) == MALFORMED
    world = connected(version)
    world.publish("a", b"", 2)
    world.wire()
    world.server(Pubrec(2))
    assert world.wire() == b"\x62\x02\x00\x02"


@pytest.mark.spec("MQTT5-3.14.1-1", "MQTT5-3.15.1-1")
@pytest.mark.parametrize("flags", range(1, 16))
def test_flags_of_disconnect_and_auth_are_reserved(flags: int) -> None:
    assert connected().breaks(wire.packet(14, flags, b"\x8b")) == MALFORMED
    assert connected().breaks(wire.packet(15, flags, b"\x18\x05\x15\x00\x02ab")) == MALFORMED


@pytest.mark.spec(
    "MQTT5-3.8.1-1", "MQTT5-3.10.1-1", "MQTT311-3.8.1-1", "MQTT311-3.10.1-1", "MQTT5-2.1.3-1"
)
@VERSIONS
def test_subscribe_and_unsubscribe_go_out_with_flags_2(version: int) -> None:
    world = connected(version)
    world.request(Subscribe(0, [SubscriptionRequest("a", 1)]))
    assert world.wire()[0] == 0x82
    world.request(Unsubscribe(0, ["a"]))
    assert world.wire()[0] == 0xA2


# --- packets of the wrong kind, or at the wrong time


@pytest.mark.spec("MQTT311-4.8.0-1", "MQTT5-4.13.2-1")
@pytest.mark.parametrize(
    "packet",
    [
        Connect("c"),
        Subscribe(1, [SubscriptionRequest("a")]),
        Unsubscribe(1, ["a"]),
        Pingreq(),
    ],
    ids=lambda packet: type(packet).__name__,
)
@VERSIONS
def test_what_only_clients_send_ends_the_connection(
    version: int, packet: Connect | Subscribe | Unsubscribe | Pingreq
) -> None:
    if isinstance(packet, Connect):
        packet.version = version
    assert connected(version).breaks(packet) == PROTOCOL


@pytest.mark.spec("MQTT311-4.8.0-1")
def test_a_server_of_3_1_1_sends_no_disconnect_and_no_auth() -> None:
    assert connected(V311).breaks(b"\xe0\x00") == PROTOCOL
    assert connected(V311).breaks(b"\xf0\x00") == MALFORMED
    assert connected(V311).breaks(b"\x00\x00") == MALFORMED


@pytest.mark.spec("MQTT311-4.8.0-1")
@VERSIONS
def test_connack_comes_first_and_once(version: int) -> None:
    assert connected(version).breaks(Connack(False, 0)) == PROTOCOL
    codes = [0] if version == V5 else []
    for packet in (
        Publish("a", b""),
        Puback(1),
        Pubrec(1),
        Pubrel(1),
        Pubcomp(1),
        Suback(1, [0]),
        Unsuback(1, codes),
    ):
        world = ClientWorld(version)
        world.open()
        assert world.breaks(packet) == PROTOCOL, packet
        assert world.wire() == b"" and world.arrived == []


def test_a_server_of_another_version_is_told_apart() -> None:
    world = ClientWorld(V5)
    world.open()
    assert world.breaks(b"\x20\x02\x00\x00") == 0x84


@pytest.mark.parametrize("code", range(256))
def test_the_return_codes_of_connack(code: int) -> None:
    """Source: MQTT 3.1.1 §3.2.2.3, MQTT 5.0 §3.2.2.2."""
    world = ClientWorld(V311)
    world.open()
    if code <= 5:
        world.server_bytes(bytes([0x20, 2, 0, code]))
        (packet,) = world.the_connection.events
        assert isinstance(packet, Connack) and packet.reason_code == code
    else:
        assert world.breaks(bytes([0x20, 2, 0, code])) == MALFORMED
    world = ClientWorld(V5)
    world.open()
    if code in allowed_codes(2):
        world.server_bytes(bytes([0x20, 3, 0, code, 0]))
        assert len(world.the_connection.events) == 1
    else:
        assert world.breaks(bytes([0x20, 3, 0, code, 0])) == MALFORMED


@VERSIONS
def test_nothing_is_taken_behind_a_refusal(version: int) -> None:
    world = ClientWorld(version)
    world.open()
    world.server(Connack(False, 0x87 if version == V5 else 5), Publish("a", b""))
    assert world.arrived == []


def test_nothing_is_taken_behind_a_farewell() -> None:
    world = connected()
    world.server(Disconnect(0x8B), Publish("a", b"", 1, packet_id=1), Puback(9))
    assert world.arrived == [] and world.wire() == b""


# --- PUBLISH


@pytest.mark.spec("MQTT5-3.3.1-4", "MQTT311-3.3.1-4")
@VERSIONS
def test_qos_3_is_malformed(version: int) -> None:
    packet = wire.publish("a", b"", version, qos=3, packet_id=1)
    assert connected(version).breaks(packet) == MALFORMED


@pytest.mark.spec("MQTT5-3.3.1-2", "MQTT311-3.3.1-2")
@VERSIONS
def test_dup_at_qos_0_is_malformed(version: int) -> None:
    assert connected(version).breaks(wire.publish("a", b"", version, dup=True)) == MALFORMED


@pytest.mark.spec("MQTT5-2.2.1-2", "MQTT311-2.3.1-5")
@VERSIONS
def test_qos_0_has_no_packet_identifier(version: int) -> None:
    world = connected(version)
    world.publish("a", b"payload")
    assert world.wire() == wire.publish("a", b"payload", version)
    world.server_bytes(wire.publish("a", b"\0\1", version))
    assert world.take().payload == b"\0\1"


@pytest.mark.spec("MQTT311-2.3.1-1")
@pytest.mark.parametrize("qos", [1, 2])
@VERSIONS
def test_a_packet_identifier_of_0_ends_the_connection(version: int, qos: int) -> None:
    code = PROTOCOL if version == V5 else MALFORMED
    packet = wire.publish("a", b"", version, qos=qos, packet_id=0)
    assert connected(version).breaks(packet) == code
    for kind in (wire.PUBACK, wire.PUBREC, wire.PUBREL, wire.PUBCOMP):
        assert connected(version).breaks(wire.acknowledge(kind, 0)) == code


@pytest.mark.spec(
    "MQTT5-3.3.2-2", "MQTT5-4.7.0-1", "MQTT5-4.7.3-1", "MQTT311-3.3.2-2", "MQTT311-4.7.1-1"
)
@pytest.mark.parametrize("topic", ["#", "+", "a/#", "a/+/b", "a+", "#a"])
@VERSIONS
def test_a_topic_with_wildcards_ends_the_connection(version: int, topic: str) -> None:
    assert connected(version).breaks(wire.publish(topic, b"", version)) == 0x90


@pytest.mark.spec("MQTT5-4.7.3-1", "MQTT311-4.7.3-1")
@VERSIONS
def test_an_empty_topic_ends_the_connection(version: int) -> None:
    code = PROTOCOL if version == V5 else 0x90
    assert connected(version).breaks(wire.publish("", b"", version)) == code


@pytest.mark.spec("MQTT5-3.3.2-14")
@pytest.mark.parametrize("topic", ["#", "+", "a/#", "a/+/b"])
def test_a_response_topic_with_wildcards_ends_the_connection(topic: str) -> None:
    assert connected().breaks(wire.publish("a", b"", values={8: topic})) in (PROTOCOL, 0x90)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"\x01\x01", MALFORMED),  # the property set ends in the middle of one
        (b"\x04\x01\x00\x01\x00", PROTOCOL),  # one twice
        (b"\x02\x01\x02", PROTOCOL),  # a Payload Format Indicator of 2
        (b"\x05\x11\x00\x00\x00\x01", MALFORMED),  # one of another packet
        (b"\x02\x7f\x00", MALFORMED),  # an unknown one
        (b"\x02\x0b\x00", PROTOCOL),  # a Subscription Identifier of 0
        (b"\x7f", MALFORMED),  # longer than the packet
    ],
)
def test_properties_that_are_not_allowed(body: bytes, code: int) -> None:
    assert connected().breaks(wire.packet(3, 0, wire.binary("a") + body)) == code


@pytest.mark.parametrize("version", [V5, V311])
def test_a_packet_that_is_cut_short_or_too_long_is_malformed(version: int) -> None:
    tail = b"\x00" if version == V5 else b""
    for packet in (
        wire.packet(3, 0, b""),
        wire.packet(3, 0, b"\0"),
        wire.packet(3, 0, b"\0\2a"),
        wire.packet(3, 2, b"\0\1a\0"),
        wire.packet(4, 0, b""),
        wire.packet(4, 0, b"\0"),
        wire.packet(9, 0, b"\0\1" + tail),
        wire.packet(11, 0, b"\0"),
        wire.packet(13, 0, b"\0"),
    ):
        assert connected(version).breaks(packet) == MALFORMED, packet.hex()


# --- reason codes of acknowledgements

ACKNOWLEDGEMENTS: dict[str, tuple[int, Callable[[int], bytes]]] = {
    "MQTT5-3.4.2-1": (4, lambda code: wire.packet(4, 0, bytes([0, 9, code]))),
    "MQTT5-3.5.2-1": (5, lambda code: wire.packet(5, 0, bytes([0, 9, code]))),
    "MQTT5-3.6.2-1": (6, lambda code: wire.packet(6, 2, bytes([0, 9, code]))),
    "MQTT5-3.7.2-1": (7, lambda code: wire.packet(7, 0, bytes([0, 9, code]))),
    "MQTT5-3.14.2-1": (14, lambda code: wire.packet(14, 0, bytes([code]))),
    "MQTT5-3.15.2-1": (15, lambda code: wire.packet(15, 0, bytes([code]) + b"\x05\x15\0\2ab")),
}


@pytest.mark.spec(*ACKNOWLEDGEMENTS)
@pytest.mark.parametrize("statement", ACKNOWLEDGEMENTS)
def test_a_reason_code_that_is_not_listed_is_malformed(statement: str) -> None:
    kind, packet = ACKNOWLEDGEMENTS[statement]
    for code in range(256):
        if code not in allowed_codes(kind):
            assert connected().breaks(packet(code)) == MALFORMED, f"0x{code:02X}"


@pytest.mark.spec(
    *(f"MQTT5-3.{part}.2-{number}" for part in (4, 5, 6, 7) for number in (1, 2, 3)),
)
def test_acknowledgements_have_a_listed_code_and_neither_reason_string_nor_user_properties() -> (
    None
):
    """So none of them is ever too large for the server."""
    world = connected()
    world.server(Publish("a", b"", 1, packet_id=1), Publish("a", b"", 2, packet_id=2))
    world.done(world.take())
    world.done(world.take())
    assert world.wire() == b"\x40\x02\x00\x01\x50\x02\x00\x02"
    world.server(Pubrel(2))
    assert world.wire() == b"\x70\x02\x00\x02"
    world.server(Pubrel(3))
    assert world.wire() == b"\x70\x03\x00\x03\x92"
    world.publish("a", b"", 2)
    world.wire()
    world.server(Pubrec(2))
    assert world.wire() == b"\x62\x02\x00\x02"
    world.server(Pubrec(9))
    assert world.wire() == b"\x62\x03\x00\x09\x92"


def test_properties_of_acknowledgements_are_read() -> None:
    world = connected()
    entry = world.publish("a", b"", 1)
    reason = Properties()
    reason.reason_string = "not today"
    reason.user_properties = [("k", "v")]
    world.server(Puback(entry.packet_id, 0x97, reason))
    assert (entry.reason_code, entry.reason) == (0x97, "not today")
