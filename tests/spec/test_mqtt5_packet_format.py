"""The bytes of MQTT 5.0 on the wire of the real server, read by a codec that is not its own."""

import pytest

from tests.support import packets
from tests.support.broker import BrokerProcess
from tests.support.packets import (
    CONNACK,
    DISCONNECT,
    PINGRESP,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    SUBACK,
    UNSUBACK,
    V5,
    Packet,
    acknowledge,
    binary,
)
from tests.support.wire import Dial, Wire

EMPTY_SET = b"\x00"  # Property Length 0


def connected(broker: BrokerProcess, dial: Dial, name: str) -> Wire:
    wire = dial(broker, V5)
    wire.hello(name, clean=True)
    return wire


def looks_like(found: Packet, kind: int, flags: int, body: bytes) -> None:
    assert (found.kind, found.flags, found.body) == (kind, flags, body), found


@pytest.mark.spec("MQTT5-2.1.3-1")
@pytest.mark.spec("MQTT5-2.2.1-2")
@pytest.mark.spec("MQTT5-2.2.1-5")
@pytest.mark.spec("MQTT5-2.2.1-6")
@pytest.mark.spec("MQTT5-2.2.2-1")
@pytest.mark.spec("MQTT5-3.2.2-1")
@pytest.mark.spec("MQTT5-3.3.1-2")
@pytest.mark.spec("MQTT5-3.3.2-1")
def test_every_packet_of_the_server_is_made_as_the_standard_has_it(
    broker: BrokerProcess, dial: Dial, name: str
) -> None:
    """One of each kind, byte by byte: reserved flags, identifiers, property sets that are empty.
    A PUBACK, PUBREC, PUBREL and PUBCOMP of success may leave out its code and property set. The
    client wants no Problem Information.
    """
    wire = dial(broker, V5)
    wire.send(packets.connect(name, values={packets.REQUEST_PROBLEM_INFORMATION: 0}))
    connack = wire.expect(CONNACK)
    assert (connack.flags, connack.body[:2]) == (0, b"\x00\x00")
    wire.send(packets.subscribe(0x0A0B, [(f"{name}/#", 2), (f"{name}/x", 0), ("a#", 0)]))
    looks_like(wire.receive(), SUBACK, 0, b"\x0a\x0b" + EMPTY_SET + b"\x02\x00\x8f")

    topic = f"{name}/t"
    wire.send(packets.publish(topic, b"zero"))
    looks_like(wire.receive(), PUBLISH, 0, binary(topic) + EMPTY_SET + b"zero")

    wire.send(packets.publish(topic, b"one", qos=1, packet_id=0x0102, dup=True))
    puback, publish = sorted(
        (wire.receive(), wire.receive()), key=lambda found: found.kind == PUBLISH
    )
    own_id = publish.packet_id.to_bytes(2, "big")
    looks_like(puback, PUBACK, 0, b"\x01\x02")
    looks_like(publish, PUBLISH, 0b0010, binary(topic) + own_id + EMPTY_SET + b"one")
    wire.send(acknowledge(PUBACK, publish.packet_id))

    wire.send(packets.publish(topic, b"", qos=2, packet_id=0x0103))
    pubrec, publish = sorted(
        (wire.receive(), wire.receive()), key=lambda found: found.kind == PUBLISH
    )
    own_id = publish.packet_id.to_bytes(2, "big")
    looks_like(pubrec, PUBREC, 0, b"\x01\x03")
    looks_like(publish, PUBLISH, 0b0100, binary(topic) + own_id + EMPTY_SET)
    wire.send(acknowledge(PUBREC, publish.packet_id))
    looks_like(wire.receive(), PUBREL, 0b0010, own_id)
    wire.send(acknowledge(PUBCOMP, publish.packet_id))
    wire.send(acknowledge(PUBREL, 0x0103))
    looks_like(wire.receive(), PUBCOMP, 0, b"\x01\x03")

    wire.send(packets.unsubscribe(0x0C0D, [f"{name}/#", "none"]))
    looks_like(wire.receive(), UNSUBACK, 0, b"\x0c\x0d" + EMPTY_SET + b"\x00\x11")
    wire.send(packets.pingreq())
    looks_like(wire.receive(), PINGRESP, 0, b"")
    wire.send(b"\x00\x00")
    (goodbye,) = wire.until_closed()
    assert (goodbye.kind, goodbye.flags) == (DISCONNECT, 0)
    assert goodbye.body[0] == 0x81


@pytest.mark.spec("MQTT5-1.5.4-3")
def test_a_byte_order_mark_is_a_character_like_any_other(
    broker: BrokerProcess, dial: Dial, name: str
) -> None:
    """It is neither taken away nor taken for nothing when topics are compared."""
    wire = connected(broker, dial, f"\ufeff{name}")
    topic = f"\ufeff{name}/\ufeff"
    wire.subscribe(f"{name}/+")
    wire.subscribe(f"\ufeff{name}/+")
    wire.send(packets.publish(topic, b"x", values={0x03: "\ufeffcontent"}))
    found = wire.expect(PUBLISH)
    assert found.body.startswith(binary(b"\xef\xbb\xbf" + name.encode() + b"/\xef\xbb\xbf"))
    assert found.properties == {0x03: ["\ufeffcontent"]}
    wire.send(packets.publish(f"{name}/\ufeff", b"other"))
    assert wire.expect(PUBLISH).topic == f"{name}/\ufeff"


@pytest.mark.spec("MQTT5-1.5.5-1")
@pytest.mark.parametrize("length", [127, 128, 16_383, 16_384])
def test_lengths_are_written_in_the_fewest_bytes(
    broker: BrokerProcess, dial: Dial, name: str, length: int
) -> None:
    """The Remaining Length on both sides of each step, as the server sends it."""
    wire = connected(broker, dial, name)
    wire.subscribe(name)
    head = len(binary(name) + EMPTY_SET)
    wire.send(packets.publish(name, bytes(length - head)))
    wire.socket.settimeout(15)
    data = b""
    while len(data) < 1 + len(packets.varint(length)) + length:
        data += wire.socket.recv(1 << 16)
    assert data == packets.packet(PUBLISH, 0, binary(name) + EMPTY_SET + bytes(length - head))


BAD_STRINGS = {"cut short": b"\xc3", "overlong": b"\xc0\xaf", "not UTF-8": b"\xff"}
BAD_STRINGS |= {"surrogate": b"\xed\xa0\x80", "beyond U+10FFFF": b"\xf4\x90\x80\x80"}
BAD_STRINGS |= {"U+0000": b"a\x00b"}


@pytest.mark.spec("MQTT5-1.5.4-1")
@pytest.mark.spec("MQTT5-1.5.4-2")
@pytest.mark.spec("MQTT5-1.5.7-1")
@pytest.mark.parametrize("text", BAD_STRINGS.values(), ids=BAD_STRINGS)
@pytest.mark.parametrize(
    "place",
    ["topic", "filter", "unsubscribe", "content type", "response topic", "pair name", "pair value"],
)
def test_a_string_that_is_no_utf_8_is_malformed_wherever_it_stands(
    broker: BrokerProcess, dial: Dial, name: str, place: str, text: bytes
) -> None:
    def with_set(values: bytes) -> bytes:
        return packets.packet(PUBLISH, 0, binary("t") + packets.varint(len(values)) + values)

    data = {
        "topic": packets.publish(text),
        "filter": packets.subscribe(1, [(text, 0)]),
        "unsubscribe": packets.packet(10, 2, b"\0\1\0" + binary(text)),
        "content type": with_set(b"\x03" + binary(text)),
        "response topic": with_set(b"\x08" + binary(text)),
        "pair name": with_set(b"\x26" + binary(text) + binary("v")),
        "pair value": with_set(b"\x26" + binary("k") + binary(text)),
    }[place]
    wire = connected(broker, dial, name)
    wire.send(data)
    assert [(one.kind, one.code) for one in wire.until_closed()] == [(DISCONNECT, 0x81)]
