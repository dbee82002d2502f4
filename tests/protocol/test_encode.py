"""Encoding: the shortest form of every packet, and no packet that breaks the rules."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import UsageError
from holdfast.message import Properties
from holdfast.protocol.encode import (
    PINGREQ_BYTES,
    PINGRESP_BYTES,
    encode,
    encode_puback,
    encode_pubcomp,
    encode_pubrec,
    encode_pubrel,
    packet_id_bytes,
    publish_frame,
    publish_parts,
)
from holdfast.protocol.packets import (
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
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
    Will,
)
from tests.protocol.strategies import VERSIONS, any_packets, plain, publishes
from tests.protocol.wire_data import read_one

versions = st.sampled_from(VERSIONS)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[int, Packet]:
    version = draw(versions)
    return version, draw(any_packets(version))


@given(pairs())
@pytest.mark.spec("MQTT5-1.5.5-1", "MQTT5-2.2.2-1")
def test_the_remaining_length_is_exact_and_short(case: tuple[int, Packet]) -> None:
    version, packet = case
    wire = encode(packet, version)
    position = 1
    value = 0
    while True:
        value |= (wire[position] & 0x7F) << (7 * (position - 1))
        position += 1
        if wire[position - 1] < 0x80:
            break
    assert value == len(wire) - position
    assert position - 1 == max(1, -(-value.bit_length() // 7))


@given(st.integers(1, 65_535), versions)
def test_the_short_acknowledgements_equal_the_packets(packet_id: int, version: int) -> None:
    assert encode_puback(packet_id) == encode(Puback(packet_id), version)
    assert encode_pubrec(packet_id) == encode(Pubrec(packet_id), version)
    assert encode_pubrel(packet_id) == encode(Pubrel(packet_id), version)
    assert encode_pubcomp(packet_id) == encode(Pubcomp(packet_id), version)
    assert len(encode_puback(packet_id)) == 4
    assert packet_id_bytes(packet_id) == packet_id.to_bytes(2, "big")


def test_pings_are_constant() -> None:
    assert encode(Pingreq(), 5) == PINGREQ_BYTES
    assert encode(Pingresp(), 4) == PINGRESP_BYTES


@st.composite
def versioned_publishes(draw: st.DrawFn) -> tuple[int, Publish]:
    version = draw(versions)
    return version, draw(publishes(version))


@given(versioned_publishes(), st.integers(1, 65_535))
def test_a_publish_in_parts_equals_the_frame_of_each_subscriber(
    case: tuple[int, Publish], packet_id: int
) -> None:
    version, packet = case
    qos = packet.qos or 1
    head, rest = publish_parts(
        packet.topic, packet.payload, qos, packet.retain, packet.dup, version, packet.properties
    )
    frame = publish_frame(
        packet.topic,
        packet.payload,
        qos,
        packet.retain,
        packet.dup,
        packet_id,
        version,
        packet.properties,
    )
    assert head + packet_id_bytes(packet_id) + rest == frame
    packet.qos = qos
    packet.packet_id = packet_id
    assert plain(read_one(frame, version)) == plain(packet)


def test_before_50_the_part_behind_the_packet_identifier_is_the_payload_itself() -> None:
    payload = b"x" * 100
    assert publish_parts("a", payload, 1, False, False, 4, None)[1] is payload


@given(st.sampled_from([3, 4]))
def test_what_a_version_lacks_is_left_out(version: int) -> None:
    properties = Properties()
    properties.reason_string = "because"
    assert encode(Puback(1, 0x87, properties), version) == encode_puback(1)
    assert encode(Disconnect(0x8E, properties), version) == b"\xe0\x00"
    assert encode(Suback(1, [1, 0x87, 0x80], properties), version) == bytes.fromhex(
        "90050001018080"
    )
    assert encode(Unsuback(1, [0x11], properties), version) == bytes.fromhex("b0020001")
    request = SubscriptionRequest("a", 1, True, True, 2)
    assert encode(Subscribe(1, [request]), version) == bytes.fromhex("82060001000161") + b"\x01"
    forwarded = Properties()
    forwarded.content_type = "text"
    assert encode(Publish("a", b"x", properties=forwarded), version) == bytes.fromhex(
        "300400016178"
    )


def with_properties(**values: object) -> Properties:
    properties = Properties()
    for name, value in values.items():
        setattr(properties, name, value)
    return properties


IMPOSSIBLE: list[tuple[str, Packet, int]] = [
    ("packet identifier at QoS 0", Publish("a", b"", 0, packet_id=1), 5),
    ("no packet identifier at QoS 1", Publish("a", b"", 1), 5),
    ("QoS 3", Publish("a", b"", 3, packet_id=1), 5),
    ("DUP at QoS 0", Publish("a", b"", 0, dup=True), 5),
    ("packet identifier above 16 bits", Publish("a", b"", 1, packet_id=65_536), 5),
    ("NUL in the topic", Publish("a\0", b""), 4),
    ("surrogate in the topic", Publish("a\udfff", b""), 4),
    ("topic too long", Publish("a" * 65_536, b""), 4),
    ("packet too long", Publish("a", bytes(268_435_456)), 4),
    ("property of another packet", Publish("a", b"", properties=with_properties(maximum_qos=1)), 5),
    ("alias 0", Publish("a", b"", properties=with_properties(topic_alias=0)), 5),
    (
        "wildcard to respond to",
        Publish("a", b"", properties=with_properties(response_topic="#")),
        5,
    ),
    (
        "subscription identifier 0",
        Publish("a", b"", properties=with_properties(subscription_identifiers=[0])),
        5,
    ),
    ("acknowledged 0", Puback(0), 4),
    ("unlisted code", Puback(1, 0x92), 5),
    ("unlisted code", Pubrel(1, 0x80), 5),
    ("unlisted code", Disconnect(0x10), 5),
    ("unlisted code", Connack(False, 0x8E), 5),
    ("unlisted return code", Connack(False, 0x87), 4),
    ("refusal with a session", Connack(True, 0x87), 5),
    ("maximum QoS 2", Connack(False, 0, with_properties(maximum_qos=2)), 5),
    ("receive maximum 0", Connack(False, 0, with_properties(receive_maximum=0)), 5),
    ("packet size 0", Connack(False, 0, with_properties(maximum_packet_size=0)), 5),
    ("expiry too long", Connack(False, 0, with_properties(session_expiry_interval=2**32)), 5),
    ("data without method", Connack(False, 0, with_properties(authentication_data=b"")), 5),
    ("no filter", Subscribe(1, []), 5),
    ("no filter", Unsubscribe(1, []), 5),
    ("requested QoS 3", Subscribe(1, [SubscriptionRequest("a", 3)]), 4),
    ("retain handling 3", Subscribe(1, [SubscriptionRequest("a", 0, retain_handling=3)]), 5),
    ("no local and shared", Subscribe(1, [SubscriptionRequest("$share/g/a", 0, True)]), 5),
    ("no code", Suback(1, []), 5),
    ("no code", Unsuback(1, []), 5),
    ("unlisted code", Suback(1, [3]), 4),
    ("unlisted code", Unsuback(1, [1]), 5),
    ("unknown version", Connect("c", 6), 6),
    ("password alone", Connect("c", 4, password=b""), 4),
    ("keep alive above 16 bits", Connect("c", 4, keep_alive=65_536), 4),
    ("will of QoS 3", Connect("c", 4, will=Will("w", b"", 3)), 4),
    ("will too long", Connect("c", 4, will=Will("w", bytes(65_536))), 4),
    ("AUTH before 5.0", Auth(), 4),
    ("AUTH without method", Auth(0x18), 5),
]


@pytest.mark.parametrize(
    ("packet", "version"), [case[1:] for case in IMPOSSIBLE], ids=[case[0] for case in IMPOSSIBLE]
)
def test_a_packet_that_breaks_the_rules_is_our_own_mistake(packet: Packet, version: int) -> None:
    with pytest.raises(UsageError):
        encode(packet, version)
