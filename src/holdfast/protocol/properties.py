"""The 27 properties of MQTT 5.0: which may stand where, how they are read and written.

Source: MQTT 5.0 §2.2.2.2; the table is in the standard's own order.
"""

from typing import Final

from mypy_extensions import i64

from holdfast.errors import ProtocolError, UsageError
from holdfast.message import Properties
from holdfast.protocol.packets import (
    AUTH,
    CONNACK,
    CONNECT,
    DISCONNECT,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    SUBACK,
    SUBSCRIBE,
    UNSUBACK,
    UNSUBSCRIBE,
)
from holdfast.protocol.reason_codes import PROTOCOL_ERROR, TOPIC_ALIAS_INVALID
from holdfast.protocol.wire import (
    BYTES,
    Reader,
    binary_bytes,
    malformed,
    string_bytes,
    u16_bytes,
    u32_bytes,
    varint_bytes,
)

PAYLOAD_FORMAT_INDICATOR: Final = 0x01
MESSAGE_EXPIRY_INTERVAL: Final = 0x02
CONTENT_TYPE: Final = 0x03
RESPONSE_TOPIC: Final = 0x08
CORRELATION_DATA: Final = 0x09
SUBSCRIPTION_IDENTIFIER: Final = 0x0B
SESSION_EXPIRY_INTERVAL: Final = 0x11
ASSIGNED_CLIENT_IDENTIFIER: Final = 0x12
SERVER_KEEP_ALIVE: Final = 0x13
AUTHENTICATION_METHOD: Final = 0x15
AUTHENTICATION_DATA: Final = 0x16
REQUEST_PROBLEM_INFORMATION: Final = 0x17
WILL_DELAY_INTERVAL: Final = 0x18
REQUEST_RESPONSE_INFORMATION: Final = 0x19
RESPONSE_INFORMATION: Final = 0x1A
SERVER_REFERENCE: Final = 0x1C
REASON_STRING: Final = 0x1F
RECEIVE_MAXIMUM: Final = 0x21
TOPIC_ALIAS_MAXIMUM: Final = 0x22
TOPIC_ALIAS: Final = 0x23
MAXIMUM_QOS: Final = 0x24
RETAIN_AVAILABLE: Final = 0x25
USER_PROPERTY: Final = 0x26
MAXIMUM_PACKET_SIZE: Final = 0x27
WILDCARD_SUBSCRIPTION_AVAILABLE: Final = 0x28
SUBSCRIPTION_IDENTIFIER_AVAILABLE: Final = 0x29
SHARED_SUBSCRIPTION_AVAILABLE: Final = 0x2A

# Places beside the packet types 1 to 15 where properties stand.
WILL: Final = 16  # the Will Properties of a CONNECT
STORED: Final = 17  # a message at rest: what a PUBLISH or a will carries, in no packet

_ACKS: Final = (1 << PUBACK) | (1 << PUBREC) | (1 << PUBREL) | (1 << PUBCOMP)
_MESSAGE: Final = (1 << PUBLISH) | (1 << WILL) | (1 << STORED)
_OPENING: Final = (1 << CONNECT) | (1 << CONNACK)
_AUTHENTICATION: Final = _OPENING | (1 << AUTH)
_REASON: Final = (
    _ACKS | (1 << CONNACK) | (1 << SUBACK) | (1 << UNSUBACK) | (1 << DISCONNECT) | (1 << AUTH)
)

# For each property: its name and the places it may stand in, one bit each.
_TABLE: Final[list[tuple[int, str, int]]] = [
    (PAYLOAD_FORMAT_INDICATOR, "Payload Format Indicator", _MESSAGE),
    (MESSAGE_EXPIRY_INTERVAL, "Message Expiry Interval", _MESSAGE),
    (CONTENT_TYPE, "Content Type", _MESSAGE),
    (RESPONSE_TOPIC, "Response Topic", _MESSAGE),
    (CORRELATION_DATA, "Correlation Data", _MESSAGE),
    (
        SUBSCRIPTION_IDENTIFIER,
        "Subscription Identifier",
        (1 << PUBLISH) | (1 << SUBSCRIBE) | (1 << STORED),
    ),
    (
        SESSION_EXPIRY_INTERVAL,
        "Session Expiry Interval",
        _OPENING | (1 << DISCONNECT),
    ),
    (ASSIGNED_CLIENT_IDENTIFIER, "Assigned Client Identifier", 1 << CONNACK),
    (SERVER_KEEP_ALIVE, "Server Keep Alive", 1 << CONNACK),
    (AUTHENTICATION_METHOD, "Authentication Method", _AUTHENTICATION),
    (AUTHENTICATION_DATA, "Authentication Data", _AUTHENTICATION),
    (REQUEST_PROBLEM_INFORMATION, "Request Problem Information", 1 << CONNECT),
    (WILL_DELAY_INTERVAL, "Will Delay Interval", (1 << WILL) | (1 << STORED)),
    (REQUEST_RESPONSE_INFORMATION, "Request Response Information", 1 << CONNECT),
    (RESPONSE_INFORMATION, "Response Information", 1 << CONNACK),
    (SERVER_REFERENCE, "Server Reference", (1 << CONNACK) | (1 << DISCONNECT)),
    (REASON_STRING, "Reason String", _REASON),
    (RECEIVE_MAXIMUM, "Receive Maximum", _OPENING),
    (TOPIC_ALIAS_MAXIMUM, "Topic Alias Maximum", _OPENING),
    (TOPIC_ALIAS, "Topic Alias", 1 << PUBLISH),
    (MAXIMUM_QOS, "Maximum QoS", 1 << CONNACK),
    (RETAIN_AVAILABLE, "Retain Available", 1 << CONNACK),
    (
        USER_PROPERTY,
        "User Property",
        _MESSAGE | _OPENING | _REASON | (1 << SUBSCRIBE) | (1 << UNSUBSCRIBE),
    ),
    (MAXIMUM_PACKET_SIZE, "Maximum Packet Size", _OPENING),
    (WILDCARD_SUBSCRIPTION_AVAILABLE, "Wildcard Subscription Available", 1 << CONNACK),
    (SUBSCRIPTION_IDENTIFIER_AVAILABLE, "Subscription Identifier Available", 1 << CONNACK),
    (SHARED_SUBSCRIPTION_AVAILABLE, "Shared Subscription Available", 1 << CONNACK),
]


def _places() -> list[int]:
    places = [0] * 128
    for identifier, _, allowed in _TABLE:
        places[identifier] = allowed
    return places


_PLACES: Final[list[int]] = _places()

# One bit per identifier. Compiled, ``1 << identifier`` would be a shift of 32 bits, for mypyc gives
# a constant on the left no wider type.
_BITS: Final[list[int]] = [
    1 << identifier for identifier in range(SHARED_SUBSCRIPTION_AVAILABLE + 1)
]

PROPERTY_NAMES: Final[dict[int, str]] = {row[0]: row[1] for row in _TABLE}


def read_properties(reader: Reader, where: i64) -> Properties | None:
    """Read a Property Length and the properties behind it; None stands for an empty set.

    ``where`` is the packet type, or WILL. Raises ProtocolError: Malformed Packet for a property
    that may not stand there or has the wrong type, Protocol Error for one that comes twice or
    breaks its value rule, Topic Alias invalid for alias 0. The rules that need more than the
    packet (a Subscription Identifier from a client, an alias above the maximum) are the
    receiver's.
    Source: MQTT 5.0 §2.2.2.
    """
    size: i64 = reader.varint()
    if size == 0:
        return None
    stop: i64 = reader.position + size
    packet_end = reader.end
    if stop > packet_end:
        raise reader.cut_short(f"{size} bytes of properties")
    reader.end = stop
    properties = _read_set(reader, where)
    reader.end = packet_end
    return properties


def write_properties(properties: Properties | None, where: i64) -> bytes:
    """A Property Length and the properties; user properties keep their order.

    Raises UsageError for a property that may not stand in ``where`` or whose value does not fit.
    Source: MQTT 5.0 §2.2.2, [MQTT-2.2.2-1].
    """
    if properties is None:
        return BYTES[0]
    content = _write_set(properties, where)
    return b"%b%b" % (varint_bytes(len(content)), content)


def pack_properties(properties: Properties | None) -> bytes:
    """A message's properties for a store: b"" where there are none."""
    return b"" if properties is None else _write_set(properties, STORED)


def unpack_properties(packed: bytes) -> Properties | None:
    """The properties that ``pack_properties`` packed; raises ProtocolError if they are damaged."""
    if not packed:
        return None
    return _read_set(Reader(packed, 0, len(packed), "stored properties"), STORED)


def has_forwarded(properties: Properties) -> bool:
    """Whether any of them goes on to subscribers unchanged."""
    return (
        properties.payload_format_indicator is not None
        or properties.content_type is not None
        or properties.response_topic is not None
        or properties.correlation_data is not None
        or len(properties.user_properties) > 0
    )


def forwarded_properties(properties: Properties | None) -> Properties | None:
    """A new set of the properties that go on to subscribers unchanged; None if there are none.

    The Message Expiry Interval is not among them: what goes out is the rest of it.
    Source: MQTT 5.0 §3.3.2.3, [MQTT-3.3.2-17].
    """
    if properties is None or not has_forwarded(properties):
        return None
    forwarded = Properties()
    forwarded.payload_format_indicator = properties.payload_format_indicator
    forwarded.content_type = properties.content_type
    forwarded.response_topic = properties.response_topic
    forwarded.correlation_data = properties.correlation_data
    forwarded.user_properties = properties.user_properties.copy()
    return forwarded


def _read_set(reader: Reader, where: i64) -> Properties:
    """Read properties up to the end of the reader, at least one."""
    properties = Properties()
    seen: i64 = 0
    while reader.position < reader.end:
        identifier: i64 = reader.byte()
        # All identifiers fit one byte; a longer one is unknown, or padded [MQTT-1.5.5-1].
        places: i64 = _PLACES[identifier] if identifier < 0x80 else 0
        if (places >> where) & 1 == 0:
            raise malformed(
                f"expected a property that {reader.name} may have, property 0x{identifier:02X} came"
            )
        bit: i64 = _BITS[identifier]
        if seen & bit and not _may_repeat(identifier, where):
            raise _protocol_error(f"expected {_name(identifier)} once in {reader.name}, it repeats")
        seen |= bit
        _read_one(reader, identifier, properties)
    has_data: i64 = seen >> AUTHENTICATION_DATA & 1
    has_method: i64 = seen >> AUTHENTICATION_METHOD & 1
    if has_data and not has_method:
        raise _protocol_error(f"expected Authentication Data in {reader.name} with its Method")
    return properties


def _may_repeat(identifier: i64, where: i64) -> bool:
    if identifier == USER_PROPERTY:
        return True
    return identifier == SUBSCRIPTION_IDENTIFIER and where != SUBSCRIBE


def _read_one(reader: Reader, identifier: i64, properties: Properties) -> None:
    """Read one value; the most frequent properties stand first."""
    if identifier == USER_PROPERTY:
        name = reader.string()
        properties.user_properties.append((name, reader.string()))
    elif identifier == TOPIC_ALIAS:
        alias: i64 = reader.u16()
        if alias == 0:
            # [MQTT-3.3.2-8]
            raise ProtocolError(TOPIC_ALIAS_INVALID, "expected a Topic Alias above 0, 0 came")
        properties.topic_alias = alias
    elif identifier == MESSAGE_EXPIRY_INTERVAL:
        properties.message_expiry_interval = reader.u32()
    elif identifier == SUBSCRIPTION_IDENTIFIER:
        subscription_identifier: i64 = reader.varint()
        if subscription_identifier == 0:
            raise _protocol_error("expected a Subscription Identifier above 0, 0 came")
        properties.subscription_identifiers.append(subscription_identifier)
    elif identifier == PAYLOAD_FORMAT_INDICATOR:
        properties.payload_format_indicator = _read_bit(reader, identifier)
    elif identifier == CORRELATION_DATA:
        properties.correlation_data = reader.binary()
    elif identifier == CONTENT_TYPE:
        properties.content_type = reader.string()
    elif identifier == RESPONSE_TOPIC:
        properties.response_topic = _read_response_topic(reader)
    elif identifier == SESSION_EXPIRY_INTERVAL:
        properties.session_expiry_interval = reader.u32()
    elif identifier == WILL_DELAY_INTERVAL:
        properties.will_delay_interval = reader.u32()
    elif identifier == RECEIVE_MAXIMUM:
        properties.receive_maximum = _not_zero(reader.u16(), identifier)
    elif identifier == TOPIC_ALIAS_MAXIMUM:
        properties.topic_alias_maximum = reader.u16()
    elif identifier == MAXIMUM_PACKET_SIZE:
        properties.maximum_packet_size = _not_zero(reader.u32(), identifier)
    elif identifier == REASON_STRING:
        properties.reason_string = reader.string()
    elif identifier == AUTHENTICATION_METHOD:
        properties.authentication_method = reader.string()
    elif identifier == AUTHENTICATION_DATA:
        properties.authentication_data = reader.binary()
    elif identifier == REQUEST_PROBLEM_INFORMATION:
        properties.request_problem_information = _read_bit(reader, identifier)
    elif identifier == REQUEST_RESPONSE_INFORMATION:
        properties.request_response_information = _read_bit(reader, identifier)
    else:
        _read_one_of_server(reader, identifier, properties)


def _read_one_of_server(reader: Reader, identifier: i64, properties: Properties) -> None:
    """Read one value of those that only a server sends."""
    if identifier == ASSIGNED_CLIENT_IDENTIFIER:
        properties.assigned_client_identifier = reader.string()
    elif identifier == SERVER_KEEP_ALIVE:
        properties.server_keep_alive = reader.u16()
    elif identifier == RESPONSE_INFORMATION:
        properties.response_information = reader.string()
    elif identifier == SERVER_REFERENCE:
        properties.server_reference = reader.string()
    elif identifier == MAXIMUM_QOS:
        properties.maximum_qos = _read_bit(reader, identifier)
    elif identifier == RETAIN_AVAILABLE:
        properties.retain_available = _read_bit(reader, identifier)
    elif identifier == WILDCARD_SUBSCRIPTION_AVAILABLE:
        properties.wildcard_subscription_available = _read_bit(reader, identifier)
    elif identifier == SUBSCRIPTION_IDENTIFIER_AVAILABLE:
        properties.subscription_identifier_available = _read_bit(reader, identifier)
    else:
        assert identifier == SHARED_SUBSCRIPTION_AVAILABLE
        properties.shared_subscription_available = _read_bit(reader, identifier)


def _read_bit(reader: Reader, identifier: i64) -> i64:
    value: i64 = reader.byte()
    if value > 1:
        raise _protocol_error(f"expected 0 or 1 as {_name(identifier)}, {value} came")
    return value


def _not_zero(value: i64, identifier: i64) -> i64:
    if value == 0:
        raise _protocol_error(f"expected {_name(identifier)} above 0, 0 came")
    return value


def _read_response_topic(reader: Reader) -> str:
    topic = reader.string()
    # [MQTT-3.3.2-14]; the standard names no error for it.
    if not _is_topic(topic):
        raise _protocol_error("expected a Response Topic with no wildcard and not empty")
    return topic


def _is_topic(text: str) -> bool:
    return text != "" and "+" not in text and "#" not in text


def _protocol_error(detail: str) -> ProtocolError:
    return ProtocolError(PROTOCOL_ERROR, detail)


def _name(identifier: int) -> str:
    return PROPERTY_NAMES.get(identifier, f"property 0x{identifier:02X}")


def _write_set(properties: Properties, where: i64) -> bytes:
    """The properties without their length."""
    parts: list[bytes] = []
    _write_message_part(parts, properties, where)
    _write_connection_part(parts, properties, where)
    _write_server_part(parts, properties, where)
    _write_string(parts, REASON_STRING, properties.reason_string, where)
    if properties.user_properties:
        _allow(USER_PROPERTY, where)
        for name, value in properties.user_properties:
            parts.append(BYTES[USER_PROPERTY])
            parts.append(string_bytes(name))
            parts.append(string_bytes(value))
    return b"".join(parts)


def _write_message_part(parts: list[bytes], properties: Properties, where: i64) -> None:
    """What belongs to a message, a will or a subscription."""
    _write_bit(parts, PAYLOAD_FORMAT_INDICATOR, properties.payload_format_indicator, where)
    _write_u32(parts, MESSAGE_EXPIRY_INTERVAL, properties.message_expiry_interval, where)
    _write_string(parts, CONTENT_TYPE, properties.content_type, where)
    _write_string(parts, RESPONSE_TOPIC, properties.response_topic, where)
    if properties.response_topic is not None and not _is_topic(properties.response_topic):
        raise UsageError("expected a Response Topic with no wildcard and not empty")
    _write_binary(parts, CORRELATION_DATA, properties.correlation_data, where)
    for subscription_identifier in properties.subscription_identifiers:
        _allow(SUBSCRIPTION_IDENTIFIER, where)
        if subscription_identifier == 0:
            raise UsageError("expected a Subscription Identifier above 0, got 0")
        parts.append(BYTES[SUBSCRIPTION_IDENTIFIER])
        parts.append(varint_bytes(subscription_identifier))
    _write_u32(parts, WILL_DELAY_INTERVAL, properties.will_delay_interval, where)
    _write_u16(parts, TOPIC_ALIAS, properties.topic_alias, where)


def _write_connection_part(parts: list[bytes], properties: Properties, where: i64) -> None:
    """What belongs to a connection, from either side."""
    _write_u32(parts, SESSION_EXPIRY_INTERVAL, properties.session_expiry_interval, where)
    _write_string(parts, AUTHENTICATION_METHOD, properties.authentication_method, where)
    _write_binary(parts, AUTHENTICATION_DATA, properties.authentication_data, where)
    if properties.authentication_data is not None and properties.authentication_method is None:
        raise UsageError("expected Authentication Data with its Method, got it alone")
    _write_bit(parts, REQUEST_PROBLEM_INFORMATION, properties.request_problem_information, where)
    _write_bit(parts, REQUEST_RESPONSE_INFORMATION, properties.request_response_information, where)
    _write_u16(parts, RECEIVE_MAXIMUM, properties.receive_maximum, where)
    _write_u16(parts, TOPIC_ALIAS_MAXIMUM, properties.topic_alias_maximum, where)
    _write_u32(parts, MAXIMUM_PACKET_SIZE, properties.maximum_packet_size, where)


def _write_server_part(parts: list[bytes], properties: Properties, where: i64) -> None:
    """What only a server sends."""
    _write_string(parts, ASSIGNED_CLIENT_IDENTIFIER, properties.assigned_client_identifier, where)
    _write_u16(parts, SERVER_KEEP_ALIVE, properties.server_keep_alive, where)
    _write_string(parts, RESPONSE_INFORMATION, properties.response_information, where)
    _write_string(parts, SERVER_REFERENCE, properties.server_reference, where)
    _write_bit(parts, MAXIMUM_QOS, properties.maximum_qos, where)
    _write_bit(parts, RETAIN_AVAILABLE, properties.retain_available, where)
    _write_bit(
        parts, WILDCARD_SUBSCRIPTION_AVAILABLE, properties.wildcard_subscription_available, where
    )
    _write_bit(
        parts,
        SUBSCRIPTION_IDENTIFIER_AVAILABLE,
        properties.subscription_identifier_available,
        where,
    )
    _write_bit(
        parts, SHARED_SUBSCRIPTION_AVAILABLE, properties.shared_subscription_available, where
    )


def _allow(identifier: i64, where: i64) -> None:
    """Refuse a property that may not stand there."""
    if (_PLACES[identifier] >> where) & 1 == 0:
        raise UsageError(f"{_name(identifier)} is not a property of this packet")


def _write_bit(parts: list[bytes], identifier: i64, value: int | None, where: i64) -> None:
    if value is not None:
        _allow(identifier, where)
        if value < 0 or value > 1:
            raise UsageError(f"expected 0 or 1 as {_name(identifier)}, got {value}")
        parts.append(BYTES[identifier])
        parts.append(BYTES[value])


def _write_u16(parts: list[bytes], identifier: i64, value: int | None, where: i64) -> None:
    if value is not None:
        _allow(identifier, where)
        if value == 0 and identifier in (RECEIVE_MAXIMUM, TOPIC_ALIAS):
            raise UsageError(f"expected {_name(identifier)} above 0, got 0")
        parts.append(BYTES[identifier])
        parts.append(u16_bytes(value))


def _write_u32(parts: list[bytes], identifier: i64, value: int | None, where: i64) -> None:
    if value is not None:
        _allow(identifier, where)
        if value == 0 and identifier == MAXIMUM_PACKET_SIZE:
            raise UsageError(f"expected {_name(identifier)} above 0, got 0")
        parts.append(BYTES[identifier])
        parts.append(u32_bytes(value))


def _write_string(parts: list[bytes], identifier: i64, value: str | None, where: i64) -> None:
    if value is not None:
        _allow(identifier, where)
        parts.append(BYTES[identifier])
        parts.append(string_bytes(value))


def _write_binary(parts: list[bytes], identifier: i64, value: bytes | None, where: i64) -> None:
    if value is not None:
        _allow(identifier, where)
        parts.append(BYTES[identifier])
        parts.append(binary_bytes(value))
