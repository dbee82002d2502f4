"""Writes packets in their shortest form: MQTT 3.1, 3.1.1 and 5.0, for either side.

``version`` is the connection's, as in ``decode``: what it does not have (properties, most reason
codes) is left out. What the wire cannot carry, or the standard forbids in one packet, raises
UsageError, for it is our side's mistake; whether a topic or a filter is valid is the caller's to
check (``topics``).
Source: MQTT 5.0 §2 and §3, MQTT 3.1.1 §2 and §3.
"""

from typing import Final

from mypy_extensions import i64

from holdfast.errors import UsageError
from holdfast.message import Properties
from holdfast.protocol.packets import (
    AUTH,
    CONNACK,
    CONNECT,
    DISCONNECT,
    MQTT_3_1,
    MQTT_5_0,
    PACKET_NAMES,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    SUBACK,
    SUBSCRIBE,
    UNSUBACK,
    UNSUBSCRIBE,
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
from holdfast.protocol.properties import WILL, write_properties
from holdfast.protocol.reason_codes import (
    CONNACK_RETURN_CODES,
    FAILURE,
    SUCCESS,
    allowed_codes,
    reason_name,
)
from holdfast.protocol.topics import is_shared
from holdfast.protocol.wire import (
    BYTES,
    VARINT_MAX,
    binary_bytes,
    string_bytes,
    u16_bytes,
    utf8_of,
    varint_bytes,
)

PINGREQ_BYTES: Final = b"\xc0\x00"
PINGRESP_BYTES: Final = b"\xd0\x00"

_PUBACK_HEAD: Final = b"\x40\x02"
_PUBREC_HEAD: Final = b"\x50\x02"
_PUBREL_HEAD: Final = b"\x62\x02"
_PUBCOMP_HEAD: Final = b"\x70\x02"


def encode(packet: Packet, version: i64) -> bytes:
    """A complete packet; a CONNECT is written in the version that it states itself."""
    if isinstance(packet, Publish):
        return publish_frame(
            packet.topic,
            packet.payload,
            packet.qos,
            packet.retain,
            packet.dup,
            packet.packet_id,
            version,
            packet.properties,
        )
    if isinstance(packet, Puback):
        return _acknowledgement(
            PUBACK, packet.packet_id, packet.reason_code, packet.properties, version
        )
    if isinstance(packet, Pubrec):
        return _acknowledgement(
            PUBREC, packet.packet_id, packet.reason_code, packet.properties, version
        )
    if isinstance(packet, Pubrel):
        return _acknowledgement(
            PUBREL, packet.packet_id, packet.reason_code, packet.properties, version
        )
    if isinstance(packet, Pubcomp):
        return _acknowledgement(
            PUBCOMP, packet.packet_id, packet.reason_code, packet.properties, version
        )
    return _encode_other(packet, version)


def encode_puback(packet_id: i64) -> bytes:
    """A PUBACK that reports success, in any version."""
    return b"%b%b%b" % (_PUBACK_HEAD, BYTES[packet_id >> 8], BYTES[packet_id & 0xFF])


def encode_pubrec(packet_id: i64) -> bytes:
    """A PUBREC that reports success, in any version."""
    return b"%b%b%b" % (_PUBREC_HEAD, BYTES[packet_id >> 8], BYTES[packet_id & 0xFF])


def encode_pubrel(packet_id: i64) -> bytes:
    """A PUBREL that reports success, in any version."""
    return b"%b%b%b" % (_PUBREL_HEAD, BYTES[packet_id >> 8], BYTES[packet_id & 0xFF])


def encode_pubcomp(packet_id: i64) -> bytes:
    """A PUBCOMP that reports success, in any version."""
    return b"%b%b%b" % (_PUBCOMP_HEAD, BYTES[packet_id >> 8], BYTES[packet_id & 0xFF])


def packet_id_bytes(packet_id: i64) -> bytes:
    """The two bytes between the parts of ``publish_parts``."""
    return b"%b%b" % (BYTES[packet_id >> 8], BYTES[packet_id & 0xFF])


def publish_frame(
    topic: str,
    payload: bytes,
    qos: i64,
    retain: bool,
    dup: bool,
    packet_id: i64,
    version: i64,
    properties: Properties | None,
) -> bytes:
    """A complete PUBLISH; ``packet_id`` is 0 exactly at QoS 0."""
    if (qos == 0) != (packet_id == 0):
        raise UsageError(f"expected a Packet Identifier exactly above QoS 0, got {packet_id}")
    tail = _publish_tail(properties, version)
    head = _publish_head(topic, len(tail) + len(payload), qos, retain, dup)
    if qos == 0:
        return b"%b%b%b" % (head, tail, payload)
    return b"%b%b%b%b" % (head, u16_bytes(packet_id), tail, payload)


def publish_parts(
    topic: str,
    payload: bytes,
    qos: i64,
    retain: bool,
    dup: bool,
    version: i64,
    properties: Properties | None,
    packed: bytes | None = None,
) -> tuple[bytes, bytes]:
    """A PUBLISH of QoS 1 or 2 as what stands before its Packet Identifier and what stands behind.

    So a message is encoded once for many subscribers: each gets ``parts[0]``,
    ``packet_id_bytes(packet_id)`` and ``parts[1]``. Before 5.0 the second part is the payload
    itself, not a copy. ``packed`` is the encoding of the properties, if it is at hand.
    """
    if qos != 1 and qos != 2:
        raise UsageError(f"expected QoS 1 or 2 where there is a Packet Identifier, got {qos}")
    if packed is not None and version >= MQTT_5_0:
        tail = b"%b%b" % (varint_bytes(len(packed)), packed)
    else:
        tail = _publish_tail(properties, version)
    head = _publish_head(topic, len(tail) + len(payload), qos, retain, dup)
    return head, b"%b%b" % (tail, payload) if tail else payload


def _publish_head(topic: str, rest_bytes: i64, qos: i64, retain: bool, dup: bool) -> bytes:
    """Fixed header and Topic Name; ``rest_bytes`` counts what follows the Packet Identifier."""
    if qos < 0 or qos > 2 or (dup and qos == 0):
        raise UsageError(f"expected QoS 0, 1 or 2, and DUP only above 0, got {qos}")
    raw = utf8_of(topic)
    topic_bytes: i64 = len(raw)
    remaining: i64 = 2 + topic_bytes + rest_bytes
    if qos != 0:
        remaining += 2
    first: i64 = 0x30 | qos << 1
    if retain:
        first |= 0x01
    if dup:
        first |= 0x08
    size = BYTES[remaining] if remaining < 0x80 else varint_bytes(remaining)
    return b"%b%b%b%b%b" % (
        BYTES[first],
        size,
        BYTES[topic_bytes >> 8],
        BYTES[topic_bytes & 0xFF],
        raw,
    )


def _publish_tail(properties: Properties | None, version: i64) -> bytes:
    """What stands between the Packet Identifier and the payload."""
    if version < MQTT_5_0:
        return b""
    return BYTES[0] if properties is None else write_properties(properties, PUBLISH)


def _frame(packet_type: i64, flags: i64, body: bytes) -> bytes:
    """A fixed header and the body behind it."""
    size: i64 = len(body)
    if size > VARINT_MAX:
        raise UsageError(f"expected a packet body of at most {VARINT_MAX} bytes, got {size}")
    return b"%b%b%b" % (BYTES[packet_type << 4 | flags], varint_bytes(size), body)


def _packet_id(packet_id: i64) -> bytes:
    if packet_id == 0:
        raise UsageError("expected a Packet Identifier above 0, got 0")
    return u16_bytes(packet_id)


def _code(packet_type: i64, reason_code: i64) -> bytes:
    """A reason code of 5.0 that this packet may carry, [MQTT-3.4.2-1] and its like."""
    if reason_code not in allowed_codes(packet_type):
        raise UsageError(
            f"expected a reason code of {PACKET_NAMES[packet_type]}, got {reason_name(reason_code)}"
        )
    return BYTES[reason_code]


def _acknowledgement(
    packet_type: i64, packet_id: i64, code: i64, properties: Properties | None, version: i64
) -> bytes:
    """PUBACK, PUBREC, PUBREL or PUBCOMP, without what may be left out. MQTT 5.0 §3.4.2.1."""
    flags: i64 = 2 if packet_type == PUBREL else 0
    head = _packet_id(packet_id)
    if version < MQTT_5_0 or (code == SUCCESS and properties is None):
        return _frame(packet_type, flags, head)
    if properties is None:
        return _frame(packet_type, flags, b"%b%b" % (head, _code(packet_type, code)))
    content = write_properties(properties, packet_type)
    return _frame(packet_type, flags, b"%b%b%b" % (head, _code(packet_type, code), content))


def _encode_other(packet: Packet, version: i64) -> bytes:
    """The packets that are rare."""
    if isinstance(packet, Subscribe):
        return _encode_subscribe(packet, version)
    if isinstance(packet, Suback):
        return _encode_suback(packet, version)
    if isinstance(packet, Unsubscribe):
        return _encode_unsubscribe(packet, version)
    if isinstance(packet, Unsuback):
        return _encode_unsuback(packet, version)
    if isinstance(packet, Pingreq):
        return PINGREQ_BYTES
    if isinstance(packet, Pingresp):
        return PINGRESP_BYTES
    if isinstance(packet, Connect):
        return _encode_connect(packet)
    if isinstance(packet, Connack):
        return _encode_connack(packet, version)
    if isinstance(packet, Disconnect):
        return _encode_disconnect(packet, version)
    if isinstance(packet, Auth):
        return _encode_auth(packet, version)
    raise UsageError("expected a control packet")


def _encode_connect(packet: Connect) -> bytes:
    version: i64 = packet.version
    if version < MQTT_3_1 or version > MQTT_5_0:
        raise UsageError(f"expected version 3, 4 or 5 in CONNECT, got {version}")
    flags: i64 = 0x02 if packet.clean_start else 0
    parts = [b"", string_bytes(packet.client_id)]
    will = packet.will
    if will is not None:
        flags |= _append_will(parts, will, version)
    if packet.user_name is not None:
        flags |= 0x80
        parts.append(string_bytes(packet.user_name))
    if packet.password is not None:
        if version < MQTT_5_0 and packet.user_name is None:
            # [MQTT-3.1.2-22] of 3.1.1
            raise UsageError("a password without a user name needs MQTT 5.0")
        flags |= 0x40
        parts.append(binary_bytes(packet.password))
    name = "MQIsdp" if version == MQTT_3_1 else "MQTT"
    keep_alive = u16_bytes(packet.keep_alive)
    parts[0] = b"%b%b%b%b" % (string_bytes(name), BYTES[version], BYTES[flags], keep_alive)
    if version >= MQTT_5_0:
        parts[0] += write_properties(packet.properties, CONNECT)
    return _frame(CONNECT, 0, b"".join(parts))


def _append_will(parts: list[bytes], will: Will, version: i64) -> i64:
    """Append the will's fields and return its Connect Flags."""
    if will.qos < 0 or will.qos > 2:
        raise UsageError(f"expected a will of QoS 0, 1 or 2, got {will.qos}")
    if version >= MQTT_5_0:
        parts.append(write_properties(will.properties, WILL))
    parts.append(string_bytes(will.topic))
    parts.append(binary_bytes(will.payload))
    flags: i64 = 0x04 | will.qos << 3
    return flags | 0x20 if will.retain else flags


def _encode_connack(packet: Connack, version: i64) -> bytes:
    code: i64 = packet.reason_code
    if packet.session_present and code != SUCCESS:
        # [MQTT-3.2.2-6]; 3.1.1: [MQTT-3.2.2-4]
        raise UsageError("expected Session Present 0 in a CONNACK that refuses, got 1")
    present = packet.session_present and version != MQTT_3_1  # the byte is reserved there
    flags = BYTES[1] if present else BYTES[0]
    if version >= MQTT_5_0:
        content = write_properties(packet.properties, CONNACK)
        return _frame(CONNACK, 0, b"%b%b%b" % (flags, _code(CONNACK, code), content))
    if code not in CONNACK_RETURN_CODES:
        raise UsageError(f"expected a return code of CONNACK from 0 to 5, got {code}")
    return _frame(CONNACK, 0, b"%b%b" % (flags, BYTES[code]))


def _encode_subscribe(packet: Subscribe, version: i64) -> bytes:
    if not packet.requests:
        raise UsageError("expected at least one topic filter to subscribe to")
    parts = [_packet_id(packet.packet_id)]
    if version >= MQTT_5_0:
        parts.append(write_properties(packet.properties, SUBSCRIBE))
    for request in packet.requests:
        parts.append(string_bytes(request.topic_filter))
        parts.append(BYTES[_subscription_options(request, version)])
    return _frame(SUBSCRIBE, 2, b"".join(parts))


def _subscription_options(request: SubscriptionRequest, version: i64) -> i64:
    options: i64 = request.qos
    if options < 0 or options > 2:
        raise UsageError(f"expected a requested QoS of 0, 1 or 2, got {options}")
    if version < MQTT_5_0:
        return options
    if request.retain_handling < 0 or request.retain_handling > 2:
        raise UsageError(f"expected a Retain Handling of 0, 1 or 2, got {request.retain_handling}")
    options |= request.retain_handling << 4
    if request.no_local:
        if is_shared(request.topic_filter):
            raise UsageError("No Local is not for a Shared Subscription")  # [MQTT-3.8.3-4]
        options |= 0x04
    return options | 0x08 if request.retain_as_published else options


def _encode_suback(packet: Suback, version: i64) -> bytes:
    if not packet.reason_codes:
        raise UsageError("expected one reason code per topic filter, got none")
    parts = [_packet_id(packet.packet_id)]
    if version >= MQTT_5_0:
        parts.append(write_properties(packet.properties, SUBACK))
    for reason_code in packet.reason_codes:
        code = _code(SUBACK, reason_code)
        # 3.1.1 has one failure code only [MQTT-3.9.3-2].
        parts.append(BYTES[FAILURE] if version < MQTT_5_0 and reason_code > FAILURE else code)
    return _frame(SUBACK, 0, b"".join(parts))


def _encode_unsubscribe(packet: Unsubscribe, version: i64) -> bytes:
    if not packet.topic_filters:
        raise UsageError("expected at least one topic filter to unsubscribe from")
    parts = [_packet_id(packet.packet_id)]
    if version >= MQTT_5_0:
        parts.append(write_properties(packet.properties, UNSUBSCRIBE))
    for topic_filter in packet.topic_filters:
        parts.append(string_bytes(topic_filter))
    return _frame(UNSUBSCRIBE, 2, b"".join(parts))


def _encode_unsuback(packet: Unsuback, version: i64) -> bytes:
    parts = [_packet_id(packet.packet_id)]
    if version >= MQTT_5_0:
        if not packet.reason_codes:
            raise UsageError("expected one reason code per topic filter, got none")
        parts.append(write_properties(packet.properties, UNSUBACK))
        for reason_code in packet.reason_codes:
            parts.append(_code(UNSUBACK, reason_code))
    return _frame(UNSUBACK, 0, b"".join(parts))


def _encode_disconnect(packet: Disconnect, version: i64) -> bytes:
    """MQTT 5.0 §3.14.2.1: the code may be left out where it is 0, the properties always."""
    if version < MQTT_5_0 or (packet.reason_code == SUCCESS and packet.properties is None):
        return b"\xe0\x00"
    if packet.properties is None:
        return _frame(DISCONNECT, 0, _code(DISCONNECT, packet.reason_code))
    content = write_properties(packet.properties, DISCONNECT)
    return _frame(DISCONNECT, 0, b"%b%b" % (_code(DISCONNECT, packet.reason_code), content))


def _encode_auth(packet: Auth, version: i64) -> bytes:
    if version < MQTT_5_0:
        raise UsageError("AUTH needs MQTT 5.0")
    if packet.reason_code == SUCCESS and packet.properties is None:
        return b"\xf0\x00"
    if packet.properties is None or packet.properties.authentication_method is None:
        raise UsageError("expected an Authentication Method for AUTH, got none")
    content = write_properties(packet.properties, AUTH)
    return _frame(AUTH, 0, b"%b%b" % (_code(AUTH, packet.reason_code), content))
