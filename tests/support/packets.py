"""MQTT packets as bytes, built and read by the book and nothing else.

Written apart from the broker's own codec on purpose: the tests check one with the other. It builds
whatever it is told to, wrong packets too, and reads only what a server sends.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

V311: Final = 4  # the Protocol Level of MQTT 3.1.1
V5: Final = 5

CONNECT: Final = 1
CONNACK: Final = 2
PUBLISH: Final = 3
PUBACK: Final = 4
PUBREC: Final = 5
PUBREL: Final = 6
PUBCOMP: Final = 7
SUBSCRIBE: Final = 8
SUBACK: Final = 9
UNSUBSCRIBE: Final = 10
UNSUBACK: Final = 11
PINGREQ: Final = 12
PINGRESP: Final = 13
DISCONNECT: Final = 14
AUTH: Final = 15

NAMES: Final = (
    *("reserved", "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP"),
    *("SUBSCRIBE", "SUBACK", "UNSUBSCRIBE", "UNSUBACK", "PINGREQ", "PINGRESP"),
    *("DISCONNECT", "AUTH"),
)

SESSION_EXPIRY: Final = 0x11
ASSIGNED_CLIENT_ID: Final = 0x12
AUTH_METHOD: Final = 0x15
AUTH_DATA: Final = 0x16
REQUEST_PROBLEM_INFORMATION: Final = 0x17
WILL_DELAY: Final = 0x18
RECEIVE_MAXIMUM: Final = 0x21
TOPIC_ALIAS_MAXIMUM: Final = 0x22
TOPIC_ALIAS: Final = 0x23
SUBSCRIPTION_ID: Final = 0x0B
MAXIMUM_PACKET_SIZE: Final = 0x27
USER_PROPERTY: Final = 0x26

_BYTE: Final = frozenset({0x01, 0x17, 0x19, 0x24, 0x25, 0x28, 0x29, 0x2A})
_U16: Final = frozenset({0x13, 0x21, 0x22, 0x23})
_U32: Final = frozenset({0x02, 0x11, 0x18, 0x27})
_STRING: Final = frozenset({0x03, 0x08, 0x12, 0x15, 0x1A, 0x1C, 0x1F})
_BINARY: Final = frozenset({0x09, 0x16})

# The body lengths that 3.1.1 fixes, for what a server sends.
_LENGTHS_311: Final = {
    CONNACK: 2,
    PUBACK: 2,
    PUBREC: 2,
    PUBREL: 2,
    PUBCOMP: 2,
    UNSUBACK: 2,
    PINGRESP: 0,
}

Value = int | str | bytes | tuple[str, str]
Properties = Mapping[int, Value]


@dataclass(frozen=True, slots=True)
class Will:
    """What a CONNECT leaves behind: the message for the case that the connection breaks."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    delay_s: int | None = None  # 5.0 only


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet that came from the server, with the fields of its type filled in.

    ``code`` is the reason or return code (of a SUBACK or UNSUBACK the first of ``codes``).
    """

    kind: int
    flags: int
    body: bytes
    packet_id: int = 0
    code: int = 0
    codes: tuple[int, ...] = ()
    session_present: bool = False
    topic: str = ""
    payload: bytes = b""
    properties: dict[int, list[Value]] = field(default_factory=dict)

    @property
    def qos(self) -> int:
        return self.flags >> 1 & 3

    @property
    def dup(self) -> bool:
        return bool(self.flags & 8)

    @property
    def retain(self) -> bool:
        return bool(self.flags & 1)

    def number(self, property_id: int, default: int) -> int:
        """The value of a numeric property, or ``default`` where the packet does not have it."""
        values = self.properties.get(property_id)
        if not values:
            return default
        assert isinstance(values[0], int)
        return values[0]

    def __str__(self) -> str:
        if self.kind == PUBLISH:
            marks = " dup" * self.dup + " retain" * self.retain
            return (
                f"PUBLISH q{self.qos} id={self.packet_id}{marks} {self.topic!r}"
                f" {self.payload[:40]!r}"
            )
        if self.kind == CONNACK:
            return f"CONNACK 0x{self.code:02X} session present {int(self.session_present)}"
        return f"{NAMES[self.kind]} id={self.packet_id} 0x{self.code:02X}"


# Building


def varint(value: int) -> bytes:
    out = bytearray()
    while True:
        value, low = divmod(value, 128)
        out.append(low | (0x80 if value else 0))
        if not value:
            return bytes(out)


def binary(value: bytes | str) -> bytes:
    """A length of two bytes and then ``value``, which a str gives as UTF-8."""
    data = value.encode() if isinstance(value, str) else value
    return len(data).to_bytes(2, "big") + data


def packet(kind: int, flags: int, body: bytes) -> bytes:
    return bytes([kind << 4 | flags]) + varint(len(body)) + body


def properties(values: Properties | None) -> bytes:
    """A whole property set, with its length in front."""
    out = bytearray()
    for property_id, value in (values or {}).items():
        out += varint(property_id)
        if isinstance(value, tuple):
            out += binary(value[0]) + binary(value[1])
        elif isinstance(value, int):
            if property_id == SUBSCRIPTION_ID:
                out += varint(value)
            else:
                width = 1 if property_id in _BYTE else 2 if property_id in _U16 else 4
                out += value.to_bytes(width, "big")
        else:
            out += binary(value)
    return varint(len(out)) + bytes(out)


def connect(
    client_id: str | bytes,
    level: int = V5,
    *,
    clean: bool = True,
    keep_alive_s: int = 0,
    will: Will | None = None,
    values: Properties | None = None,
    user: str | None = None,
    password: str | None = None,
    flags: int | None = None,
    name: str = "MQTT",
) -> bytes:
    """A CONNECT; ``flags`` replaces the Connect Flags, for the ones that no honest client sends."""
    bits = 2 if clean else 0
    payload = binary(client_id)
    if will is not None:
        bits |= 4 | will.qos << 3 | (32 if will.retain else 0)
        if level == V5:
            payload += properties({} if will.delay_s is None else {WILL_DELAY: will.delay_s})
        payload += binary(will.topic) + binary(will.payload)
    if user is not None:
        bits |= 128
        payload += binary(user)
    if password is not None:
        bits |= 64
        payload += binary(password)
    head = binary(name) + bytes([level, bits if flags is None else flags])
    head += keep_alive_s.to_bytes(2, "big")
    if level == V5:
        head += properties(values)
    return packet(CONNECT, 0, head + payload)


def publish(
    topic: str | bytes,
    payload: bytes = b"",
    level: int = V5,
    *,
    qos: int = 0,
    packet_id: int | None = None,
    dup: bool = False,
    retain: bool = False,
    values: Properties | None = None,
) -> bytes:
    flags = qos << 1 | (8 if dup else 0) | (1 if retain else 0)
    body = binary(topic)
    if packet_id is not None:
        body += packet_id.to_bytes(2, "big")
    if level == V5:
        body += properties(values)
    return packet(PUBLISH, flags, body + payload)


def acknowledge(kind: int, packet_id: int) -> bytes:
    """A PUBACK, PUBREC, PUBREL or PUBCOMP, in the short form that both versions share."""
    return packet(kind, 2 if kind == PUBREL else 0, packet_id.to_bytes(2, "big"))


def subscribe(
    packet_id: int,
    filters: Sequence[tuple[str | bytes, int]],
    level: int = V5,
    *,
    values: Properties | None = None,
) -> bytes:
    """A SUBSCRIBE; the number beside a filter is its QoS or, in 5.0, all Subscription Options."""
    body = packet_id.to_bytes(2, "big")
    if level == V5:
        body += properties(values)
    for topic_filter, options in filters:
        body += binary(topic_filter) + bytes([options])
    return packet(SUBSCRIBE, 2, body)


def unsubscribe(packet_id: int, filters: Sequence[str], level: int = V5) -> bytes:
    body = packet_id.to_bytes(2, "big")
    if level == V5:
        body += properties(None)
    return packet(UNSUBSCRIBE, 2, body + b"".join(map(binary, filters)))


def pingreq() -> bytes:
    return packet(PINGREQ, 0, b"")


def disconnect(level: int = V5, code: int = 0, values: Properties | None = None) -> bytes:
    if level != V5 or (code == 0 and not values):
        return packet(DISCONNECT, 0, b"")
    return packet(DISCONNECT, 0, bytes([code]) + properties(values))


def auth(code: int, values: Properties | None = None) -> bytes:
    return packet(AUTH, 0, bytes([code]) + properties(values))


# Reading


def split(buffer: bytearray, level: int) -> list[Packet]:
    """Take every complete packet off the front of ``buffer``."""
    found = []
    while (header := _header(buffer)) is not None:
        start, end = header
        if len(buffer) < end:
            break
        first, body = buffer[0], bytes(buffer[start:end])
        del buffer[:end]
        found.append(parse(first, body, level))
    return found


def _header(buffer: bytearray) -> tuple[int, int] | None:
    """Where the body of the first packet starts and ends, once its length is known."""
    length = 0
    for width in range(1, 5):
        if len(buffer) <= width:
            return None
        length |= (buffer[width] & 0x7F) << 7 * (width - 1)
        if buffer[width] < 0x80:
            return width + 1, width + 1 + length
    raise AssertionError(f"the server sent a remaining length of 5 bytes: {buffer[:8].hex()}")


def parse(first: int, body: bytes, level: int) -> Packet:
    """Read one packet of a server; its mistakes raise AssertionError."""
    kind, flags = first >> 4, first & 15
    if kind == PUBLISH:
        return _parse_publish(flags, body, level)
    assert flags == (2 if kind == PUBREL else 0), f"{NAMES[kind]} with flags {flags}"
    if level == V311:
        assert kind not in (DISCONNECT, AUTH), f"{NAMES[kind]} from a server of 3.1.1"
        assert len(body) == _LENGTHS_311.get(kind, len(body)), f"{NAMES[kind]} of {len(body)} bytes"
    if kind == CONNACK:
        assert body[0] in (0, 1), f"CONNACK with acknowledge flags 0x{body[0]:02X}"
        values = read_properties(body, 2)[0] if len(body) > 2 else {}
        present = body[0] == 1
        return Packet(kind, flags, body, code=body[1], session_present=present, properties=values)
    if kind in (PUBACK, PUBREC, PUBREL, PUBCOMP):
        code = body[2] if len(body) > 2 else 0
        values = read_properties(body, 3)[0] if len(body) > 3 else {}
        return Packet(kind, flags, body, _u16(body), code, properties=values)
    if kind in (SUBACK, UNSUBACK):
        values, at = read_properties(body, 2) if level == V5 else ({}, 2)
        codes = tuple(body[at:])
        first_code = codes[0] if codes else 0
        return Packet(kind, flags, body, _u16(body), first_code, codes, properties=values)
    if kind in (DISCONNECT, AUTH):
        values = read_properties(body, 1)[0] if len(body) > 1 else {}
        return Packet(kind, flags, body, code=body[0] if body else 0, properties=values)
    assert kind == PINGRESP, f"a server never sends {NAMES[kind]}"
    return Packet(kind, flags, body)


def _parse_publish(flags: int, body: bytes, level: int) -> Packet:
    qos = flags >> 1 & 3
    assert qos < 3, "PUBLISH with QoS 3"
    assert not (qos == 0 and flags & 8), "PUBLISH with QoS 0 and DUP"
    at = 2 + _u16(body)
    topic = body[2:at].decode()
    packet_id = 0
    if qos:
        packet_id = _u16(body[at:])
        at += 2
        assert packet_id, "PUBLISH with packet identifier 0"
    values: dict[int, list[Value]] = {}
    if level == V5:
        values, at = read_properties(body, at)
    return Packet(
        PUBLISH, flags, body, packet_id, topic=topic, payload=body[at:], properties=values
    )


def read_properties(body: bytes, at: int) -> tuple[dict[int, list[Value]], int]:
    """Read the property set that begins at ``at``, as (values by identifier, end)."""
    length, at = _read_varint(body, at)
    end = at + length
    assert end <= len(body), "the property set is longer than its packet"
    values: dict[int, list[Value]] = {}
    while at < end:
        property_id, at = _read_varint(body, at)
        value: Value
        if property_id == SUBSCRIPTION_ID:
            value, at = _read_varint(body, at)
        elif property_id in _STRING:
            value, at = _read_string(body, at)
        elif property_id in _BINARY:
            value, at = body[at + 2 : at + 2 + _u16(body[at:])], at + 2 + _u16(body[at:])
        elif property_id == USER_PROPERTY:
            key, at = _read_string(body, at)
            text, at = _read_string(body, at)
            value = (key, text)
        else:
            width = 1 if property_id in _BYTE else 2 if property_id in _U16 else 4
            assert width < 4 or property_id in _U32, f"unknown property 0x{property_id:02X}"
            value, at = int.from_bytes(body[at : at + width], "big"), at + width
        values.setdefault(property_id, []).append(value)
    assert at == end, "the property set is shorter than it says"
    return values, end


def _read_varint(body: bytes, at: int) -> tuple[int, int]:
    value = 0
    for place in range(4):
        byte = body[at + place]
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, at + place + 1
    raise AssertionError("a variable byte integer of 5 bytes")


def _read_string(body: bytes, at: int) -> tuple[str, int]:
    end = at + 2 + _u16(body[at:])
    return body[at + 2 : end].decode(), end


def _u16(body: bytes) -> int:
    return int.from_bytes(body[:2], "big")
