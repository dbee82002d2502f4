"""Attacks by what is in the packets: properties, aliases, identifiers, text, names for the log."""

import json
from typing import Final

from tests.hostile.scene import MIB, Attack, Scene
from tests.support import packets
from tests.support.wire import Closed, Wire

_USER_PROPERTY: Final = b"\x26\x00\x01k\x00\x01v"
_PROPERTIES: Final = 65_535


def _with_properties(count: int) -> bytes:
    """A property set of so many user properties."""
    return packets.varint(count * len(_USER_PROPERTY)) + _USER_PROPERTY * count


def _publish(topic: str, packet_id: int, properties: bytes, *, retain: bool) -> bytes:
    body = packets.binary(topic) + packet_id.to_bytes(2, "big") + properties + b"x"
    return packets.packet(packets.PUBLISH, 2 | retain, body)


def _user_properties(scene: Scene) -> None:
    """PUBLISH and SUBSCRIBE with 65 535 user properties; half of the messages are retained."""
    many = _with_properties(_PROPERTIES)
    wire = scene.dial()
    wire.hello("properties", clean=True)
    wire.subscribe("heavy/+", 1)
    for number in range(1, scene.size + 1):
        wire.send(_publish(f"heavy/{number}", number, many, retain=number % 2 == 0))
        scene.note(f"PUBACK 0x{wire.wait_for(packets.PUBACK).code:02X}")
        message = wire.wait_for(packets.PUBLISH)
        assert len(message.properties[packets.USER_PROPERTY]) == _PROPERTIES
        wire.send(packets.acknowledge(packets.PUBACK, message.packet_id))
    wire.send(
        packets.packet(packets.SUBSCRIBE, 2, b"\x00\x01" + many + packets.binary("u") + b"\0")
    )
    assert wire.wait_for(packets.SUBACK).code == 0
    with scene.dialled() as stranger:
        head = packets.binary("MQTT") + b"\x05\x02\x00\x00" + many + packets.binary("x")
        try:
            stranger.send(packets.packet(packets.CONNECT, 0, head))
        except ConnectionError:
            pass
        assert all(one.code == 0x95 for one in stranger.until_closed()), "Packet too large"
        scene.note("CONNECT refused")
    scene.serve_on()


def _wrong_packets() -> list[tuple[bytes, set[int]]]:
    """What may not come after CONNACK, and with which codes the server may end it."""
    alias = packets.TOPIC_ALIAS
    malformed, protocol = {0x81, 0x82}, {0x82}
    return [
        (packets.publish("", values={alias: 1}), protocol),  # an alias that was never set
        (packets.publish("t", values={alias: 0}), {0x94}),
        (packets.publish("t", values={alias: 65}), {0x94}),
        (packets.publish("t", values={alias: 65_535}), {0x94}),
        (packets.publish("t", qos=1, packet_id=0), malformed),
        (packets.publish("t", qos=3, packet_id=1), malformed),
        (packets.publish("t", values={packets.SUBSCRIPTION_ID: 1}), protocol),
        (packets.subscribe(1, [("t", 0)], values={packets.SUBSCRIPTION_ID: 0}), malformed),
        (packets.subscribe(0, [("t", 0)]), malformed),
        (packets.subscribe(1, []), malformed),
        (packets.acknowledge(packets.PUBREL, 0), malformed),
        (packets.connect("again"), protocol),
        (packets.auth(0x18), protocol),
        (packets.packet(packets.CONNACK, 0, b"\0\0\0"), malformed),
        (packets.packet(0, 0, b""), malformed),
        (b"\x30\xff\xff\xff\xff\x01", malformed),
        (b"\x30\x80\x80\x80\x00", malformed),
        (b"\x30\xff\xff\xff\x7f", {0x95}),
        (packets.publish("a/#"), {0x81, 0x82, 0x90}),
        (packets.publish(""), malformed | {0x90}),
    ]


WRONG_TEXT: Final = (
    b"\xff\xfe",  # not UTF-8 at all
    b"\xc0\x80",  # U+0000 in two bytes
    b"\xe0\x80\xaf",  # a slash in three
    b"\xed\xa0\x80",  # half of a surrogate pair
    b"\xf4\x90\x80\x80",  # above U+10FFFF
    b"\xc3",  # cut short
    b"a\x00b",  # U+0000
)


def _refused(scene: Scene, wire: Wire, data: bytes, codes: set[int]) -> None:
    """Send it, and find the connection closed, in 5.0 with one of the codes."""
    try:
        wire.send(data)
    except ConnectionError:
        pass
    answers = [one for one in wire.until_closed() if one.kind != packets.PUBLISH]
    assert len(answers) <= 1, answers
    for answer in answers:
        assert answer.kind in (packets.DISCONNECT, packets.CONNACK), answer
        assert answer.code in codes, f"0x{answer.code:02X}, expected one of {codes}: {data[:40]!r}"
    scene.note("closed")


def _abuse(scene: Scene) -> None:
    """Every wrong alias, identifier, property and length, each on a connection of its own."""
    for number in range(scene.size):
        for data, codes in _wrong_packets():
            with scene.dialled() as wire:
                wire.hello(f"abuse-{number}", clean=True)
                _refused(scene, wire, data, codes)
    scene.serve_on()


def _alias_memory(scene: Scene) -> None:
    """As many aliases as are allowed, each of the longest topic, on many connections."""
    topic = "t" * 65_000
    for number in range(scene.size):
        wire = scene.dial()
        connack = wire.hello(f"alias-{number}", clean=True)
        for alias in range(1, connack.number(packets.TOPIC_ALIAS_MAXIMUM, 0) + 1):
            wire.send(packets.publish(topic, values={packets.TOPIC_ALIAS: alias}))
        wire.ping()
    scene.serve_on()


def _wrong_text(scene: Scene) -> None:
    """Text that is no UTF-8, wherever there can be text."""
    codes = {0x81, 0x82, 0x85, 0x90, 0x99}
    for _ in range(scene.size):
        for text in WRONG_TEXT:
            with scene.dialled() as wire:
                _refused(scene, wire, packets.connect(b"id" + text), codes)
            for data in (
                packets.publish(b"t/" + text),
                packets.subscribe(1, [(b"t/" + text, 0)]),
                packets.packet(
                    packets.PUBLISH,
                    0,
                    packets.binary("t") + b"\x08\x26\x00\x01k\x00" + bytes([len(text)]) + text,
                )
                if len(text) == 2
                else packets.publish(b"$share/" + text),
            ):
                with scene.dialled() as wire:
                    wire.hello("text", clean=True)
                    _refused(scene, wire, data, codes)
    scene.serve_on()


INJECTIONS: Final = (
    "a\n2026-01-01T00:00:00.000Z info server: stopped",
    'a\r\n{"level": "info", "message": "forged"}',
    "\x1b[2J\x1b[H\x1b]0;owned\x07",
    "\u202e\u2066\u200b\ufeff",
    "\u2028\u2029\x85\x0b\x0c",
    "\x7f\x9b31m\x01\x02",
    "%s %d {0} {client} %(message)s",
    '", "level": "info", "x": "',
    "a client=admin address=127.0.0.1:1",
    "x" * 60_000,
    "\U0001f600" * 10_000,
)


def _log_injection(scene: Scene) -> None:
    """Client identifiers made to forge lines, drive a terminal or fill a disk."""
    first = len(scene.broker.log_lines)
    for _ in range(scene.size):
        for client_id in INJECTIONS:
            with scene.dialled() as wire:
                wire.send(packets.connect(client_id))
                try:
                    answer = wire.receive()
                    scene.note(f"0x{answer.code:02X}")
                    wire.send(packets.publish("a/#"))
                    wire.until_closed()
                except (Closed, ConnectionError):
                    scene.note("closed")
    scene.serve_on()
    lines = scene.broker.log_lines[first:]
    assert lines
    for line in lines:
        assert line.isprintable(), f"a client wrote into the log: {line!r}"
        assert len(line) < 4000, f"a line of {len(line)} characters"
        if line.startswith("{"):
            assert json.loads(line)["level"] == "warning"
        else:
            assert " warning " in line.partition(":")[0] + line[:60], line
        assert "stopped" not in line[:40]


ATTACKS: Final = (
    Attack(
        name="user-properties",
        title="65 535 user properties",
        run=_user_properties,
        small=2,
        full=30,
        memory_bytes=lambda size: 48 * MIB + size * 12 * MIB // 2,
    ),
    Attack(
        name="wrong-packets",
        title="alias, identifier, property and length abuse",
        run=_abuse,
        small=1,
        full=200,
        memory_bytes=lambda size: 8 * MIB,
    ),
    Attack(
        name="alias-memory",
        title="the longest topics behind every alias",
        run=_alias_memory,
        small=4,
        full=100,
        memory_bytes=lambda size: 12 * MIB + size * 5 * MIB,
    ),
    Attack(
        name="wrong-text",
        title="wrong UTF-8 wherever there is text",
        run=_wrong_text,
        small=1,
        full=200,
        memory_bytes=lambda size: 8 * MIB,
    ),
    Attack(
        name="log-injection",
        title="log injection by client id, text",
        run=_log_injection,
        small=1,
        full=200,
        memory_bytes=lambda size: 12 * MIB,
    ),
    Attack(
        name="log-injection-json",
        title="log injection by client id, JSON",
        run=_log_injection,
        small=1,
        full=200,
        memory_bytes=lambda size: 12 * MIB,
        settings={"log_json": True},
    ),
)
