"""MQTT packets as the load generator needs them: encoded ahead, of fixed size, handled in bulk.

Nothing here works per message. A publisher's packets lie encoded in a ``Ring``, so that sending
``n`` of them is one slice; acknowledgements for ``n`` packets are made by extended slicing; and
what arrives is compared with the ring as one block of memory, which checks every byte of it.
"""

import random
import struct
from dataclasses import dataclass
from typing import Final

PAYLOAD_BYTES: Final = 64
MQTT_311: Final = 4
MQTT_5: Final = 5

CONNACK: Final = 0x20
PUBLISH: Final = 0x30
PUBACK: Final = 0x40
PUBREC: Final = 0x50
PUBREL: Final = 0x62
PUBCOMP: Final = 0x70
SUBACK: Final = 0x90
DISCONNECT: Final = b"\xe0\x00"

ACK_BYTES: Final = 4
# A run is looked at this many packets at a time, so that many short runs in a long buffer do not
# cost its length each.
RUN_STEP: Final = 128
# How much of a CONNACK property follows its identifier; strings and pairs are handled apart.
_PROPERTY_BYTES: Final = {
    0x11: 4, 0x13: 2, 0x21: 2, 0x22: 2, 0x24: 1, 0x25: 1, 0x27: 4, 0x28: 1, 0x29: 1, 0x2A: 1,
}  # fmt: skip
_RECEIVE_MAXIMUM: Final = 0x21
_USER_PROPERTY: Final = 0x26
# What a request with some context of its own carries: text, content type, response topic,
# correlation data and three user properties, in an order that both brokers keep.
REQUEST_PROPERTIES: Final = (
    b"\x01\x01"
    b"\x03\x00\x10application/json"
    b"\x08\x00\x0freplies/device7"
    b"\x09\x00\x10" + bytes(range(16)) + b"\x26\x00\x08trace-id\x00\x20" + b"5" * 32 +
    b"\x26\x00\x04unit\x00\x03kWh"
    b"\x26\x00\x04unit\x00\x02Wh"
)  # fmt: skip
_SESSION_KEPT: Final = b"\x11\xff\xff\xff\xff"  # Session Expiry Interval: never


@dataclass(frozen=True, slots=True)
class Ring:
    """``count`` PUBLISH packets of ``size`` bytes each, with packet identifiers 1 to ``count``.

    Every block holds its content twice, so that up to ``count`` items from any position are one
    slice. ``blank`` is ``packets`` with the packet identifiers zeroed: what a subscriber must see,
    whatever identifiers the broker chose.
    """

    qos: int
    size: int
    count: int
    id_at: int
    packets: bytes
    blank: bytes


def make_ring(
    topics: list[str],
    *,
    qos: int,
    version: int,
    count: int,
    publisher: int = 0,
    properties: bytes = b"",
) -> Ring:
    """A ring whose packets take ``topics`` in turn; all topics have the same length."""
    assert 0 < count <= 65535
    assert len({len(topic) for topic in topics}) == 1
    filler = random.Random(publisher).randbytes(PAYLOAD_BYTES - 16)
    packets, blank = bytearray(), bytearray()
    for index in range(count):
        topic = topics[index % len(topics)]
        payload = b"%08d%08d" % (publisher, index) + filler
        for block, packet_id in ((packets, index + 1), (blank, 0)):
            block += publish(
                topic,
                payload,
                qos=qos,
                version=version,
                packet_id=packet_id,
                properties=properties,
            )
    size = len(packets) // count
    whole = split_packet(bytes(packets[:size]))
    assert whole is not None
    id_at = whole[1] + 2 + len(topics[0].encode())
    return Ring(qos, size, count, id_at, bytes(packets) * 2, bytes(blank) * 2)


def ack_ring(kind: int, count: int) -> bytes:
    """The acknowledgements of ``kind`` for identifiers 1 to ``count``, twice."""
    return b"".join(struct.pack(">BBH", kind, 2, index + 1) for index in range(count)) * 2


def make_acks(kind: int, packets: bytes, ring: Ring) -> bytearray:
    """The acknowledgements of ``kind`` for the whole PUBLISH packets in ``packets``."""
    n = len(packets) // ring.size
    acks = bytearray(bytes((kind, 2, 0, 0)) * n)
    acks[2::ACK_BYTES] = packets[ring.id_at :: ring.size]
    acks[3::ACK_BYTES] = packets[ring.id_at + 1 :: ring.size]
    return acks


def turn_acks(kind: int, acks: bytes | bytearray) -> bytearray:
    """The same identifiers with another packet type: PUBRELs to PUBCOMPs, for instance."""
    turned = bytearray(acks)
    turned[0::ACK_BYTES] = bytes((kind,)) * (len(acks) // ACK_BYTES)
    return turned


def without_ids(packets: bytes, ring: Ring) -> bytearray:
    """``packets``, whole PUBLISH packets, with their packet identifiers zeroed."""
    blank = bytearray(packets)
    if ring.qos > 0:
        zeros = bytes(len(packets) // ring.size)
        blank[ring.id_at :: ring.size] = zeros
        blank[ring.id_at + 1 :: ring.size] = zeros
    return blank


def run_length(data: bytes, start: int, size: int) -> int:
    """How many whole packets of ``size`` bytes and one first byte follow each other at ``start``.

    Stops at RUN_STEP. The step lands on a packet's first byte as long as the run goes on, so the
    first byte that differs is its end.
    """
    whole = min((len(data) - start) // size, RUN_STEP)
    heads = data[start : start + whole * size : size]
    return len(heads) - len(heads.lstrip(heads[:1]))


def connect(client_id: str, *, version: int = MQTT_311, durable: bool = False) -> bytes:
    """A CONNECT without keep alive; ``durable`` asks for a session that outlives it."""
    flags = 0x00 if durable else 0x02
    body = _text("MQTT") + bytes((version, flags, 0, 0))
    if version == MQTT_5:
        properties = _SESSION_KEPT if durable else b""
        body += bytes((len(properties),)) + properties
    return _packet(0x10, body + _text(client_id))


def subscribe(topic_filter: str, *, qos: int, version: int = MQTT_311) -> bytes:
    """A SUBSCRIBE with packet identifier 1."""
    properties = b"\x00" if version == MQTT_5 else b""
    return _packet(0x82, b"\x00\x01" + properties + _text(topic_filter) + bytes((qos,)))


def publish(
    topic: str,
    payload: bytes,
    *,
    qos: int,
    version: int,
    packet_id: int,
    properties: bytes = b"",
) -> bytes:
    """A PUBLISH, not retained and not a repeat."""
    body = _text(topic)
    if qos > 0:
        body += struct.pack(">H", packet_id)
    if version == MQTT_5:
        assert len(properties) < 16384
        body += _length(len(properties)) + properties
    return _packet(PUBLISH | qos << 1, body + payload)


def split_packet(data: bytes, start: int = 0) -> tuple[int, int, int] | None:
    """The packet at ``start`` as (first byte, where its body begins, where it ends), if whole."""
    length = shift = 0
    at = start + 1
    while at < len(data):
        byte = data[at]
        length |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return (data[start], at, at + length) if at + length <= len(data) else None
        shift += 7
    return None


def receive_maximum(connack_body: bytes, version: int) -> int:
    """The window that a CONNACK grants the client; 65535 where it says nothing."""
    if version != MQTT_5:
        return 65535
    at, end = 3, 3 + connack_body[2]
    assert connack_body[2] < 0x80
    while at < end:
        kind = connack_body[at]
        at += 1
        if kind == _RECEIVE_MAXIMUM:
            return int.from_bytes(connack_body[at : at + 2], "big")
        if kind in _PROPERTY_BYTES:
            at += _PROPERTY_BYTES[kind]
        else:
            for _ in range(2 if kind == _USER_PROPERTY else 1):
                at += 2 + int.from_bytes(connack_body[at : at + 2], "big")
    return 65535


def _packet(head: int, body: bytes) -> bytes:
    return bytes((head,)) + _length(len(body)) + body


def _length(size: int) -> bytes:
    assert size < 16384
    return bytes((size,)) if size < 128 else bytes((size & 0x7F | 0x80, size >> 7))


def _text(value: str) -> bytes:
    encoded = value.encode()
    return struct.pack(">H", len(encoded)) + encoded
