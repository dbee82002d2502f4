"""Whatever bytes arrive at the real server, it answers by the standard and serves everyone else.

Each test ends with the same questions: did the connection end as it has to, is there one line in
the log that names the peer, and is an honest client, connected all the while, still served?
"""

import re
import time
from collections.abc import Callable, Iterator
from typing import Final

import pytest

from tests.support import packets
from tests.support.broker import BrokerProcess, NewBroker
from tests.support.packets import (
    CONNACK,
    DISCONNECT,
    MAXIMUM_PACKET_SIZE,
    PINGREQ,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    RECEIVE_MAXIMUM,
    SUBACK,
    SUBSCRIBE,
    TOPIC_ALIAS,
    TOPIC_ALIAS_MAXIMUM,
    UNSUBSCRIBE,
    V5,
    V311,
    Packet,
    Will,
    binary,
    packet,
)
from tests.support.process import eventually
from tests.support.wire import Closed, Dial, Wire, absent, contents, say

MALFORMED: Final = 0x81
PROTOCOL_ERROR: Final = 0x82
UNSUPPORTED_VERSION: Final = 0x84
CLIENT_ID_INVALID: Final = 0x85
FILTER_INVALID: Final = 0x8F
TOPIC_INVALID: Final = 0x90
NOT_FOUND: Final = 0x92
RECEIVE_MAXIMUM_EXCEEDED: Final = 0x93
TOPIC_ALIAS_INVALID: Final = 0x94
TOO_LARGE: Final = 0x95

BROKEN: Final = {MALFORMED, PROTOCOL_ERROR}  # where the standard does not say which of the two


class Scene:
    """One broker, an honest client that is connected before and after, and the bad one."""

    def __init__(self, broker: BrokerProcess, dial: Dial, name: str) -> None:
        self.broker = broker
        self.name = name
        self._dial = dial
        self._first_line = len(broker.process.lines)  # the ports of earlier clients come again
        self._honest = dial(broker, V5)
        self._honest.hello(f"{name}-honest", clean=True)
        self._honest.subscribe(f"{name}/honest", 1)

    def stranger(self, level: int = V5) -> Wire:
        """A connection that has not said anything yet."""
        return self._dial(self.broker, level)

    def client(self, level: int, *, will: Will | None = None) -> Wire:
        """A connection that has behaved well so far."""
        wire = self.stranger(level)
        wire.hello(f"{self.name}-bad", clean=True, will=will)
        return wire

    def ends(self, wire: Wire, *, codes: set[int], client_id: str | None = None) -> None:
        """The connection is closed; in 5.0 with a DISCONNECT that has one of these codes."""
        last = wire.until_closed()
        if wire.level == V5:
            (goodbye,) = last
            assert goodbye.kind == DISCONNECT, goodbye
            assert goodbye.code in codes, f"{goodbye}, expected {[hex(code) for code in codes]}"
        else:
            assert last == []
        self.is_logged(wire, client_id=client_id or f"{self.name}-bad")
        self.is_undisturbed()

    def is_logged(self, wire: Wire, *, client_id: str | None = None) -> str:
        """One line of the log is about this peer, and names the client where it is known."""
        address = rf"\b{re.escape(wire.address)}\b"
        self.broker.process.wait_line(address, self._first_line)
        self.is_undisturbed()
        lines = self.broker.process.lines[self._first_line :]
        (line,) = [line for line in lines if re.search(address, line)]
        if client_id is not None:
            assert client_id in line
        return line

    def is_undisturbed(self) -> None:
        """The honest client talks to itself, and another one comes and goes."""
        self._honest.publish(f"{self.name}/honest", "still here")
        assert contents(self._honest.messages(1)) == [b"still here"]
        say(self.broker.port, f"{self.name}/honest", "so am I")
        assert contents(self._honest.messages(1)) == [b"so am I"]


@pytest.fixture
def scene(broker: BrokerProcess, dial: Dial, name: str) -> Scene:
    return Scene(broker, dial, name)


@pytest.fixture(scope="module", autouse=True)
def _nothing_leaks(_module_broker: BrokerProcess) -> Iterator[None]:
    """After all that follows the server has as many files and sockets open as before."""
    broker = _module_broker
    # What it opens at the first need it may keep: a store to read from, for example.
    absent(broker.port, "leak", "leak", 2)
    say(broker.port, "leak", "1", qos=2)
    with Wire(broker.port) as wire:
        wire.hello("leak", expiry_s=0)
        assert contents(wire.messages(1)) == [b"1"]
        wire.goodbye()
    before = _settled_open_files(broker)
    yield
    if broker.is_running:
        eventually(lambda: broker.open_files() <= before, f"at most {before} open files")


def _settled_open_files(broker: BrokerProcess) -> int:
    """Open files without the sockets of connections that are just being closed."""
    counts = [broker.open_files()]

    def is_settled() -> bool:
        counts.append(broker.open_files())
        return len(counts) > 20 and len(set(counts[-20:])) == 1

    eventually(is_settled, "a steady number of open files")
    return counts[-1]


# Before the server knows what it talks to.

FIRST_BYTES: Final = {
    "garbage": bytes(range(256)),
    "zeros": bytes(64),
    "ones": b"\xff" * 64,
    "HTTP": b"GET / HTTP/1.1\r\nHost: example\r\n\r\n",
    "TLS": bytes.fromhex("16030100c8010000c40303") + bytes(range(200)),
    "line of text": b"hello?\n",
    "PINGREQ first": packets.pingreq(),
    "PUBLISH first": packets.publish("t", b"x"),
    "SUBSCRIBE first": packets.subscribe(1, [("t", 0)]),
    "DISCONNECT first": packets.disconnect(),
    "CONNECT without a body": packet(1, 0, b""),
    "remaining length of 5 bytes": b"\x10\xff\xff\xff\xff\x01",
    "CONNECT of 256 MB": b"\x10\xff\xff\xff\x7f",
    "CONNECT with flags": packet(1, 1, packets.connect("x")[2:]),
}


@pytest.mark.spec("MQTT5-3.1.0-1")
@pytest.mark.spec("MQTT5-3.1.4-1")
@pytest.mark.spec("MQTT311-3.1.4-1")
@pytest.mark.parametrize("data", FIRST_BYTES.values(), ids=FIRST_BYTES)
def test_what_is_no_connect(scene: Scene, data: bytes) -> None:
    """A stranger that does not begin with CONNECT is closed, with at most one packet to say why."""
    wire = scene.stranger()
    wire.send(data)
    last = wire.until_closed()
    assert len(last) <= 1
    assert all(one.kind in (CONNACK, DISCONNECT) and one.code >= 0x80 for one in last)
    # Its first byte is enough, and ``connect_timeout_s`` is for those that say nothing.
    assert "no CONNECT within" not in scene.is_logged(wire)


def connect_311(flags: int, *fields: bytes, level: int = V311, name: str = "MQTT") -> bytes:
    head = binary(name) + bytes([level, flags, 0, 0])
    return packet(1, 0, head + b"".join(fields))


def connect_5(flags: int, *fields: bytes, properties: bytes = b"\x00") -> bytes:
    return packet(1, 0, binary("MQTT") + bytes([V5, flags, 0, 0]) + properties + b"".join(fields))


BAD_CONNECTS_5: Final[dict[str, tuple[bytes, set[int]]]] = {
    "reserved bit": (connect_5(0x03, binary("c")), {MALFORMED}),
    "will QoS 3": (connect_5(0x1E, binary("c"), b"\x00", binary("t"), binary("x")), {MALFORMED}),
    "will QoS without will": (connect_5(0x0A, binary("c")), BROKEN),
    "will retain without will": (connect_5(0x22, binary("c")), BROKEN),
    "will is cut short": (connect_5(0x06, binary("c"), b"\x00", binary("t")), {MALFORMED}),
    "will topic with a wildcard": (
        connect_5(0x06, binary("c"), b"\x00", binary("t/#"), binary("x")),
        BROKEN | {TOPIC_INVALID},
    ),
    "user name is missing": (connect_5(0x82, binary("c")), {MALFORMED}),
    "more than its fields": (connect_5(0x02, binary("c"), b"extra"), {MALFORMED}),
    "identifier is not UTF-8": (
        connect_5(0x02, binary(b"\xff\xfe")),
        {MALFORMED, CLIENT_ID_INVALID},
    ),
    "identifier with U+0000": (
        connect_5(0x02, binary("a\0b")),
        {MALFORMED, CLIENT_ID_INVALID},
    ),
    "identifier with a surrogate": (
        connect_5(0x02, binary(b"\xed\xa0\x80")),
        {MALFORMED, CLIENT_ID_INVALID},
    ),
    "unknown property": (connect_5(0x02, binary("c"), properties=b"\x02\x7f\x00"), {MALFORMED}),
    "property of another packet": (
        connect_5(0x02, binary("c"), properties=b"\x03\x23\x00\x01"),
        BROKEN,
    ),
    "property twice": (
        connect_5(0x02, binary("c"), properties=b"\x0a" + b"\x11\x00\x00\x00\x01" * 2),
        {PROTOCOL_ERROR},
    ),
    "receive maximum 0": (
        connect_5(0x02, binary("c"), properties=b"\x03\x21\x00\x00"),
        {PROTOCOL_ERROR},
    ),
    "maximum packet size 0": (
        connect_5(0x02, binary("c"), properties=b"\x05\x27\x00\x00\x00\x00"),
        {PROTOCOL_ERROR},
    ),
    "properties longer than the packet": (
        connect_5(0x02, binary("c"), properties=b"\x70"),
        {MALFORMED},
    ),
    "authentication data without a method": (
        connect_5(0x02, binary("c"), properties=b"\x04\x16\x00\x01x"),
        {PROTOCOL_ERROR},
    ),
    "unknown authentication method": (
        connect_5(0x02, binary("c"), properties=b"\x08\x15\x00\x05MAGIC"),
        {0x8C, 0x87},
    ),
}


@pytest.mark.spec("MQTT5-3.1.2-3")
@pytest.mark.spec("MQTT5-3.1.4-1")
@pytest.mark.spec("MQTT5-3.1.4-6")
@pytest.mark.spec("MQTT5-3.2.2-6")
@pytest.mark.spec("MQTT5-3.2.2-7")
@pytest.mark.spec("MQTT5-4.12.0-1")
@pytest.mark.parametrize(("data", "codes"), BAD_CONNECTS_5.values(), ids=BAD_CONNECTS_5)
def test_a_bad_connect_of_5_0(scene: Scene, data: bytes, codes: set[int]) -> None:
    """It is refused by a CONNACK with the reason, and nothing sent behind it is processed."""
    wire = scene.stranger(V5)
    wire.send(data + packets.publish(f"{scene.name}/honest", b"not yet accepted"))
    (refusal,) = wire.until_closed()
    assert refusal.kind == CONNACK
    assert refusal.code in codes, f"{refusal}, expected {[hex(code) for code in codes]}"
    assert not refusal.session_present
    scene.is_logged(wire)


BAD_CONNECTS_311: Final = {
    "reserved bit": connect_311(0x03, binary("c")),
    "will QoS 3": connect_311(0x1E, binary("c"), binary("t"), binary("x")),
    "will QoS without will": connect_311(0x0A, binary("c")),
    "will retain without will": connect_311(0x22, binary("c")),
    "will is cut short": connect_311(0x06, binary("c"), binary("t")),
    "will topic with a wildcard": connect_311(0x06, binary("c"), binary("t/+"), binary("x")),
    "password without user name": connect_311(0x42, binary("c"), binary("secret")),
    "user name is missing": connect_311(0x82, binary("c")),
    "more than its fields": connect_311(0x02, binary("c"), b"extra"),
    "identifier is not UTF-8": connect_311(0x02, binary(b"\xff\xfe")),
    "identifier with U+0000": connect_311(0x02, binary("a\0b")),
    "protocol name": connect_311(0x02, binary("c"), name="MQTX"),
    "protocol name of 3.1": connect_311(0x02, binary("c"), name="MQIsdp"),
}


@pytest.mark.spec("MQTT311-3.1.2-1")
@pytest.mark.spec("MQTT311-3.1.2-3")
@pytest.mark.spec("MQTT311-3.1.2-22")
@pytest.mark.spec("MQTT311-3.1.4-1")
@pytest.mark.spec("MQTT311-3.1.4-5")
@pytest.mark.parametrize("data", BAD_CONNECTS_311.values(), ids=BAD_CONNECTS_311)
def test_a_bad_connect_of_3_1_1(scene: Scene, data: bytes) -> None:
    """It is closed without a word; there may be a CONNACK for a rejected identifier, and for a
    protocol by another name.
    """
    wire = scene.stranger(V311)
    wire.send(data + packets.publish(f"{scene.name}/honest", b"not yet accepted", V311))
    assert [one.code for one in wire.until_closed()] in ([], [0x01], [0x02])
    scene.is_logged(wire)


@pytest.mark.spec("MQTT5-3.1.2-2")
@pytest.mark.spec("MQTT311-3.1.2-2")
@pytest.mark.parametrize("version", [0, 2, 6, 127, 255])
def test_an_unknown_protocol_level(scene: Scene, version: int) -> None:
    """A client of another version hears so: 0x84 in the form of 5.0, or 0x01 as in 3.1.1."""
    wire = scene.stranger()
    wire.send(connect_311(0x02, b"\x00", binary("c"), level=version))
    (refusal,) = wire.until_closed()
    assert (refusal.kind, refusal.code) in ((CONNACK, UNSUPPORTED_VERSION), (CONNACK, 0x01))
    scene.is_logged(wire)


@pytest.mark.spec("MQTT5-3.1.2-1")
def test_a_wrong_protocol_name_of_5_0(scene: Scene) -> None:
    """It may be told with 0x84, and is closed in any case."""
    wire = scene.stranger()
    wire.send(packets.connect("c", V5, name="MQTX"))
    assert [one.code for one in wire.until_closed()] in ([], [UNSUPPORTED_VERSION])
    scene.is_logged(wire)


# From a client that is connected.


def id_0(kind: int, flags: int, level: int, rest: bytes) -> bytes:
    return packet(kind, flags, b"\x00\x00" + (b"\x00" if level == V5 else b"") + rest)


def set_of(level: int) -> bytes:
    """An empty property set, in the version that has one."""
    return b"\x00" if level == V5 else b""


T: Final = binary("t")

BAD_PACKETS: Final[dict[str, tuple[Callable[[int], bytes], set[int]]]] = {
    "garbage": (lambda level: bytes(range(256)), {MALFORMED}),
    "type 0": (lambda level: b"\x00\x00", BROKEN),
    "remaining length of 5 bytes": (lambda level: b"\x30\xff\xff\xff\xff\x01", {MALFORMED}),
    "remaining length with padding": (lambda level: b"\xc0\x80\x00", {MALFORMED}),
    "second CONNECT": (lambda level: packets.connect("again", level), {PROTOCOL_ERROR}),
    "CONNACK from a client": (lambda level: packet(2, 0, b"\x00\x00" + set_of(level)), BROKEN),
    "SUBACK from a client": (
        lambda level: packet(9, 0, b"\x00\x01" + set_of(level) + b"\0"),
        BROKEN,
    ),
    "PINGRESP from a client": (lambda level: packet(13, 0, b""), BROKEN),
    "AUTH without a method": (lambda level: packet(15, 0, b""), BROKEN),
    "PUBLISH with QoS 3": (
        lambda level: packet(PUBLISH, 6, T + b"\0\1" + set_of(level)),
        {MALFORMED},
    ),
    "PUBLISH with QoS 0 and DUP": (lambda level: packet(PUBLISH, 8, T + set_of(level)), BROKEN),
    "PUBLISH with identifier 0": (
        lambda level: packet(PUBLISH, 2, T + b"\0\0" + set_of(level)),
        BROKEN,
    ),
    "PUBLISH without identifier": (lambda level: packet(PUBLISH, 2, T), {MALFORMED}),
    "PUBLISH without a body": (lambda level: packet(PUBLISH, 0, b""), {MALFORMED}),
    "PUBLISH whose topic is too long": (lambda level: packet(PUBLISH, 0, b"\0\x09t"), {MALFORMED}),
    "PUBLISH with an empty topic": (
        lambda level: packets.publish("", b"x", level),
        BROKEN | {TOPIC_INVALID},
    ),
    "PUBLISH to t/#": (lambda level: packets.publish("t/#", b"x", level), BROKEN | {TOPIC_INVALID}),
    "PUBLISH to t/+/x": (
        lambda level: packets.publish("t/+/x", b"x", level),
        BROKEN | {TOPIC_INVALID},
    ),
    "PUBLISH topic is not UTF-8": (
        lambda level: packets.publish(b"t\xc3\x28", b"x", level),
        {MALFORMED},
    ),
    "PUBLISH topic with U+0000": (lambda level: packets.publish("t\0", b"x", level), {MALFORMED}),
    "PUBLISH topic with a surrogate": (
        lambda level: packets.publish(b"t\xed\xbf\xbf", b"x", level),
        {MALFORMED},
    ),
    "PUBLISH topic, overlong UTF-8": (
        lambda level: packets.publish(b"t\xc0\xaf", b"x", level),
        {MALFORMED},
    ),
    "PUBACK with flags": (lambda level: packet(PUBACK, 2, b"\0\1"), {MALFORMED}),
    "PUBREL with flags 0": (lambda level: packet(PUBREL, 0, b"\0\1"), {MALFORMED}),
    "PUBREC without identifier": (lambda level: packet(PUBREC, 0, b""), {MALFORMED}),
    "PUBACK with identifier 0": (lambda level: packet(PUBACK, 0, b"\0\0"), BROKEN),
    "SUBSCRIBE with flags 0": (
        lambda level: packet(SUBSCRIBE, 0, b"\0\1" + set_of(level) + T + b"\0"),
        {MALFORMED},
    ),
    "SUBSCRIBE with identifier 0": (
        lambda level: id_0(SUBSCRIBE, 2, level, T + b"\0"),
        BROKEN,
    ),
    "SUBSCRIBE without filters": (
        lambda level: packets.subscribe(1, [], level),
        {PROTOCOL_ERROR},
    ),
    "SUBSCRIBE at QoS 3": (lambda level: packets.subscribe(1, [("t", 3)], level), BROKEN),
    "SUBSCRIBE with reserved bits": (
        lambda level: packets.subscribe(1, [("t", 0xC0)], level),
        BROKEN,
    ),
    "SUBSCRIBE without its last byte": (
        lambda level: packet(SUBSCRIBE, 2, b"\0\1" + set_of(level) + T),
        {MALFORMED},
    ),
    "SUBSCRIBE filter is not UTF-8": (
        lambda level: packets.subscribe(1, [(b"\xff", 0)], level),
        {MALFORMED, FILTER_INVALID},
    ),
    "SUBSCRIBE filter with U+0000": (
        lambda level: packets.subscribe(1, [("a\0", 0)], level),
        {MALFORMED, FILTER_INVALID},
    ),
    "UNSUBSCRIBE with flags 0": (
        lambda level: packet(UNSUBSCRIBE, 0, b"\0\1" + set_of(level) + T),
        {MALFORMED},
    ),
    "UNSUBSCRIBE without filters": (
        lambda level: packets.unsubscribe(1, [], level),
        {PROTOCOL_ERROR},
    ),
    "UNSUBSCRIBE with identifier 0": (lambda level: id_0(UNSUBSCRIBE, 2, level, T), BROKEN),
    "PINGREQ with flags": (lambda level: packet(PINGREQ, 1, b""), {MALFORMED}),
    "PINGREQ with a body": (lambda level: packet(PINGREQ, 0, b"x"), {MALFORMED}),
    "DISCONNECT with flags": (lambda level: packet(DISCONNECT, 1, b""), {MALFORMED}),
}


@pytest.mark.spec("MQTT5-1.5.4-1")
@pytest.mark.spec("MQTT5-1.5.4-2")
@pytest.mark.spec("MQTT5-2.1.3-1")
@pytest.mark.spec("MQTT5-3.1.0-2")
@pytest.mark.spec("MQTT5-3.3.1-4")
@pytest.mark.spec("MQTT5-3.3.2-2")
@pytest.mark.spec("MQTT5-3.6.1-1")
@pytest.mark.spec("MQTT5-3.8.1-1")
@pytest.mark.spec("MQTT5-3.8.3-2")
@pytest.mark.spec("MQTT5-3.8.3-5")
@pytest.mark.spec("MQTT5-3.10.1-1")
@pytest.mark.spec("MQTT5-3.10.3-2")
@pytest.mark.spec("MQTT5-3.14.1-1")
@pytest.mark.spec("MQTT5-4.13.1-1")
@pytest.mark.spec("MQTT5-4.13.2-1")
@pytest.mark.spec("MQTT311-1.5.3-1")
@pytest.mark.spec("MQTT311-1.5.3-2")
@pytest.mark.spec("MQTT311-2.2.2-2")
@pytest.mark.spec("MQTT311-2.3.1-1")
@pytest.mark.spec("MQTT311-3.1.0-2")
@pytest.mark.spec("MQTT311-3.3.1-2")
@pytest.mark.spec("MQTT311-3.3.1-4")
@pytest.mark.spec("MQTT311-3.3.2-1")
@pytest.mark.spec("MQTT311-3.3.2-2")
@pytest.mark.spec("MQTT311-3.6.1-1")
@pytest.mark.spec("MQTT311-3.8.1-1")
@pytest.mark.spec("MQTT311-3.8.3-4")
@pytest.mark.spec("MQTT311-3.10.1-1")
@pytest.mark.spec("MQTT311-3.14.1-1")
@pytest.mark.spec("MQTT311-4.7.1-1")
@pytest.mark.spec("MQTT311-4.8.0-1")
@pytest.mark.parametrize(("make", "codes"), BAD_PACKETS.values(), ids=BAD_PACKETS)
def test_a_bad_packet(
    scene: Scene, level: int, make: Callable[[int], bytes], codes: set[int]
) -> None:
    """In 5.0 the client hears the reason, in 3.1.1 it is closed; its will is published."""
    watcher = scene.stranger(V5)
    watcher.hello(f"{scene.name}-w", clean=True)
    watcher.subscribe(f"{scene.name}/will", 1)
    wire = scene.client(level, will=Will(f"{scene.name}/will", b"thrown out", 1))
    wire.send(make(level))
    scene.ends(wire, codes=codes)
    assert contents(watcher.messages(1)) == [b"thrown out"]


def with_properties(kind: int, flags: int, head: bytes, values: bytes, rest: bytes = b"") -> bytes:
    return packet(kind, flags, head + bytes([len(values)]) + values + rest)


BAD_PACKETS_5: Final[dict[str, tuple[bytes, set[int]]]] = {
    "topic alias 0": (
        packets.publish("t", b"x", values={TOPIC_ALIAS: 0}),
        {TOPIC_ALIAS_INVALID},
    ),
    "unknown topic alias": (
        packets.publish("", b"x", values={TOPIC_ALIAS: 1}),
        {PROTOCOL_ERROR, TOPIC_ALIAS_INVALID},
    ),
    "subscription identifier in PUBLISH": (
        packets.publish("t", b"x", values={packets.SUBSCRIPTION_ID: 1}),
        {PROTOCOL_ERROR},
    ),
    "subscription identifier 0": (
        packets.subscribe(1, [("t", 0)], values={packets.SUBSCRIPTION_ID: 0}),
        {PROTOCOL_ERROR},
    ),
    "property of another packet": (
        packets.publish("t", b"x", values={RECEIVE_MAXIMUM: 1}),
        BROKEN,
    ),
    "property twice": (
        with_properties(PUBLISH, 0, T, b"\x01\x00\x01\x00"),
        {PROTOCOL_ERROR},
    ),
    "payload format 2": (with_properties(PUBLISH, 0, T, b"\x01\x02"), BROKEN),
    "property cut short": (with_properties(PUBLISH, 0, T, b"\x02\x00\x00"), {MALFORMED}),
    "response topic with a wildcard": (
        with_properties(PUBLISH, 0, T, b"\x08" + binary("a/#")),
        BROKEN | {TOPIC_INVALID},
    ),
    "user property is not UTF-8": (
        with_properties(PUBLISH, 0, T, b"\x26" + binary("k") + binary(b"\xff")),
        {MALFORMED},
    ),
    "retain handling 3": (packets.subscribe(1, [("t", 0x30)]), {PROTOCOL_ERROR, MALFORMED}),
    "no local on a shared subscription": (
        packets.subscribe(1, [("$share/g/t", 4)]),
        {PROTOCOL_ERROR},
    ),
    "PUBACK with a wrong reason code": (packet(PUBACK, 0, b"\0\1\x8e"), BROKEN),
    "PUBREL with a wrong reason code": (packet(PUBREL, 2, b"\0\1\x10"), BROKEN),
    "DISCONNECT with a wrong reason code": (packet(DISCONNECT, 0, b"\x02"), BROKEN),
    "DISCONNECT that only a server sends": (packet(DISCONNECT, 0, b"\x8e"), BROKEN),
}


@pytest.mark.spec("MQTT5-3.3.2-8")
@pytest.mark.spec("MQTT5-3.3.2-14")
@pytest.mark.spec("MQTT5-3.3.4-6")
@pytest.mark.spec("MQTT5-3.4.2-1")
@pytest.mark.spec("MQTT5-3.6.2-1")
@pytest.mark.spec("MQTT5-3.8.3-4")
@pytest.mark.spec("MQTT5-3.14.2-1")
@pytest.mark.parametrize(("data", "codes"), BAD_PACKETS_5.values(), ids=BAD_PACKETS_5)
def test_a_bad_packet_of_5_0(scene: Scene, data: bytes, codes: set[int]) -> None:
    """What only 5.0 has, used wrongly."""
    wire = scene.client(V5)
    wire.send(data)
    scene.ends(wire, codes=codes)


@pytest.mark.spec("MQTT5-3.3.2-9")
def test_a_topic_alias_above_the_maximum(scene: Scene) -> None:
    """The CONNACK says how many aliases there are; one more is 0x94."""
    wire = scene.stranger(V5)
    connack = wire.hello(f"{scene.name}-bad", clean=True)
    alias = connack.number(TOPIC_ALIAS_MAXIMUM, 0) + 1
    wire.send(packets.publish("t", b"x", values={TOPIC_ALIAS: alias}))
    scene.ends(wire, codes={TOPIC_ALIAS_INVALID})


@pytest.mark.spec("MQTT5-3.3.4-7")
@pytest.mark.parametrize("qos", [1, 2])
def test_more_in_flight_than_receive_maximum(scene: Scene, qos: int) -> None:
    """The CONNACK says how many messages may be unacknowledged. As many are fine, and one more is
    0x93. With QoS 2 the client holds PUBREL back; with QoS 1 it is up to the server how fast it
    acknowledges, so that it may take them all.
    """
    wire = scene.stranger(V5)
    limit = wire.hello(f"{scene.name}-bad", clean=True).number(RECEIVE_MAXIMUM, 65535)
    assert limit < 65535, "the server does not limit what is in flight towards it"
    burst = [
        packets.publish(f"{scene.name}/x", b"x", qos=qos, packet_id=packet_id)
        for packet_id in range(1, limit + 2)
    ]
    wire.send(*burst[:-1])
    first = [wire.receive() for _ in range(limit)]
    assert [one.packet_id for one in first] == list(range(1, limit + 1))
    assert {one.kind for one in first} == {PUBACK if qos == 1 else PUBREC}
    wire.send(burst[-1])
    if qos == 1:
        assert wire.expect(PUBACK).packet_id == limit + 1
        wire.goodbye()
        scene.is_undisturbed()
    else:
        scene.ends(wire, codes={RECEIVE_MAXIMUM_EXCEEDED})


@pytest.mark.spec("MQTT5-3.2.2-15")
def test_a_packet_too_large_is_refused_from_its_header(scene: Scene, level: int) -> None:
    """The fixed header announces 200 MB. The answer comes before a byte of them has been sent."""
    wire = scene.client(level)
    wire.send(b"\x30\x80\x80\x80\x60")
    scene.ends(wire, codes={TOO_LARGE})


def test_a_packet_too_large_of_which_much_is_sent(scene: Scene, level: int) -> None:
    """The client does not wait for an answer and keeps sending: it gets no further."""
    wire = scene.client(level)
    try:
        wire.send(b"\x30\x80\x80\x80\x60")
        for _ in range(1000):
            wire.send(bytes(100_000))
        raise AssertionError("the server swallowed 100 MB")
    except ConnectionError:
        pass
    scene.is_logged(wire, client_id=f"{scene.name}-bad")


@pytest.mark.parametrize("cut", [1, 2, 5, 12, -1], ids="after {} bytes".format)
def test_a_packet_cut_short_by_the_end_of_the_connection(
    scene: Scene, level: int, cut: int
) -> None:
    """The client goes in the middle of a packet, the first one or a later one: nothing of it is
    processed, and nobody has to care.
    """
    stranger = scene.stranger(level)
    stranger.send(packets.connect(f"{scene.name}-bad", level)[:cut])
    stranger.cut()
    wire = scene.client(level)
    topic = f"{scene.name}/honest"
    wire.send(packets.publish(topic, b"half", level, qos=1, packet_id=1)[:cut])
    wire.cut()
    scene.is_undisturbed()


@pytest.mark.parametrize("topic_filter", ["a/#/b", "a#", "a+", "+a/b", "a/b+/c", "", "#/"])
@pytest.mark.spec("MQTT5-4.7.1-1")
@pytest.mark.spec("MQTT5-4.7.1-2")
@pytest.mark.spec("MQTT5-4.7.3-1")
@pytest.mark.spec("MQTT311-4.7.1-2")
@pytest.mark.spec("MQTT311-4.7.1-3")
@pytest.mark.spec("MQTT311-4.7.3-1")
def test_an_impossible_topic_filter(scene: Scene, level: int, topic_filter: str) -> None:
    """It is refused in the SUBACK, or the connection ends; it never becomes a subscription."""
    wire = scene.client(level)
    wire.send(packets.subscribe(1, [(topic_filter, 0)], level))
    try:
        answer: Packet | None = wire.receive()
    except Closed:
        answer = None
    if answer is not None and answer.kind == SUBACK:
        assert answer.codes == ((FILTER_INVALID,) if level == V5 else (0x80,))
        wire.goodbye()
        scene.is_undisturbed()
        return
    if answer is not None:
        assert (answer.kind, answer.code) in (
            (DISCONNECT, MALFORMED),
            (DISCONNECT, PROTOCOL_ERROR),
            (DISCONNECT, FILTER_INVALID),
        )
    assert answer is not None or level == V311
    wire.until_closed()
    scene.is_logged(wire, client_id=f"{scene.name}-bad")


@pytest.mark.parametrize("kind", [PUBACK, PUBREC, PUBREL, PUBCOMP], ids=packets.NAMES.__getitem__)
def test_an_acknowledgement_for_nothing(scene: Scene, level: int, kind: int) -> None:
    """An identifier that the server does not know: after a lost session that is no crime. PUBREL
    gets its PUBCOMP and PUBREC its PUBREL, in 5.0 with the reason.
    """
    wire = scene.client(level)
    wire.send(packets.acknowledge(kind, 4711))
    answers = {PUBREC: PUBREL, PUBREL: PUBCOMP}
    if kind in answers:
        answer = wire.expect(answers[kind])
        assert answer.packet_id == 4711
        assert answer.code == (NOT_FOUND if level == V5 else 0)
    wire.ping()
    wire.goodbye()
    scene.is_undisturbed()


def test_a_connect_in_single_bytes(scene: Scene, level: int) -> None:
    """A slow client is no bad client: byte by byte its packets are understood."""
    wire = scene.stranger(level)
    topic = f"{scene.name}/slow"
    for data in (
        packets.connect(f"{scene.name}-slow", level),
        packets.subscribe(1, [(topic, 1)], level),
        packets.publish(topic, b"slow", level, qos=1, packet_id=2),
    ):
        for byte in data:
            wire.send(bytes([byte]))
    assert wire.expect(CONNACK).code == 0
    assert wire.expect(SUBACK).codes == (1,)
    assert contents([wire.wait_for(PUBLISH)]) == [b"slow"]
    assert wire.wait_for(PUBACK).packet_id == 2
    wire.goodbye()
    scene.is_undisturbed()


def test_everything_in_one_write(scene: Scene, level: int) -> None:
    """A client may send behind its CONNECT without waiting, up to its DISCONNECT."""
    wire = scene.stranger(level)
    topic = f"{scene.name}/fast"
    wire.send(
        packets.connect(f"{scene.name}-fast", level),
        packets.subscribe(1, [(topic, 0)], level),
        packets.publish(topic, b"fast", level, qos=1, packet_id=2),
        packets.pingreq(),
        packets.disconnect(level),
    )
    kinds = [one.kind for one in wire.until_closed()]
    assert kinds[0] == CONNACK
    # What waits for the disk may come too late for a client that has said goodbye.
    assert set(kinds[1:]) <= {SUBACK, PUBLISH, PUBACK, packets.PINGRESP}
    scene.is_undisturbed()


def test_three_hundred_strangers_at_once(scene: Scene) -> None:
    """A crowd connects and says nothing, nonsense, or half a CONNECT, and goes."""
    crowd = [scene.stranger() for _ in range(300)]
    for n, wire in enumerate(crowd):
        wire.send((b"", b"\xff" * 10, packets.connect("crowd")[:5])[n % 3])
    scene.is_undisturbed()
    for wire in crowd[1::3]:
        wire.until_closed()
    for wire in crowd:
        wire.cut()
    scene.is_undisturbed()


# A connection that does not become one.


@pytest.mark.parametrize("how", ["silent", "half a CONNECT", "drop by drop"])
def test_a_connection_that_sends_no_connect_is_closed(
    new_broker: NewBroker, dial: Dial, name: str, how: str
) -> None:
    """A connection has ``connect_timeout_s`` for a whole CONNECT, ten seconds by default and one
    here. Bytes that trickle in do not lengthen it. A client that has connected may be silent.
    """
    broker = new_broker(settings={"connect_timeout_s": 1})
    scene = Scene(broker, dial, name)
    data = packets.connect("x" * 200)
    began_s = time.monotonic()
    wire = scene.stranger()
    if how == "half a CONNECT":
        wire.send(data[:20])
    for n in range(len(data) - 1):
        try:
            if how == "drop by drop":
                wire.send(data[n : n + 1])
            wire.receive(timeout_s=0.1)
        except TimeoutError:
            continue
        except (Closed, ConnectionError):
            break
    else:
        raise AssertionError("it is not closed")
    # As long as it has, by the broker's clock, which counts in milliseconds.
    assert time.monotonic() - began_s > 0.99
    assert "no CONNECT within 1000 ms" in scene.is_logged(wire)


def test_the_limit_of_packets_is_a_setting(new_broker: NewBroker, dial: Dial, name: str) -> None:
    """With ``packet_bytes_max`` 1000 the CONNACK says so, 1000 bytes pass, and 1001 do not."""
    scene = Scene(new_broker(settings={"packet_bytes_max": 1000}), dial, name)
    wire = scene.stranger()
    connack = wire.hello(f"{name}-bad", clean=True)
    assert connack.number(MAXIMUM_PACKET_SIZE, 0) == 1000
    empty = len(packets.publish("t", bytes(900), qos=1, packet_id=1)) - 900
    wire.send(packets.publish("t", bytes(1000 - empty), qos=1, packet_id=1))
    assert wire.expect(PUBACK).packet_id == 1
    wire.send(packets.publish("t", bytes(1001 - empty), qos=1, packet_id=2))
    scene.ends(wire, codes={TOO_LARGE})
