"""Reads complete packets, strictly: MQTT 3.1, 3.1.1 and 5.0, from either side.

What a packet alone shows to be wrong raises ProtocolError with the reason code to close with. Left
to the receiver, who knows the connection, are: whether this side may send this packet, the Topic
Filters' own syntax (``topics.check_filter``), topic aliases, a Subscription Identifier from a
client, and everything about sessions.

The standard gives no code for a reason code that is reserved or not listed for its packet: here it
is a Malformed Packet. Source: MQTT 5.0 §2 and §3, MQTT 3.1.1 §2 and §3.
"""

from typing import Final

from mypy_extensions import i64

from holdfast.errors import ProtocolError
from holdfast.message import Properties
from holdfast.protocol.packets import (
    AUTH,
    CONNACK,
    CONNECT,
    DISCONNECT,
    MQTT_3_1,
    MQTT_3_1_1,
    MQTT_5_0,
    PACKET_NAMES,
    PINGREQ,
    PINGRESP,
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
from holdfast.protocol.properties import WILL, read_properties
from holdfast.protocol.reason_codes import (
    CONNACK_RETURN_CODES,
    PROTOCOL_ERROR,
    SUBACK_RETURN_CODES,
    SUCCESS,
    UNSUPPORTED_PROTOCOL_VERSION,
    allowed_codes,
)
from holdfast.protocol.topics import TopicCache, check_topic, is_shared
from holdfast.protocol.wire import Reader, malformed

# Bits of the Connect Flags, MQTT 5.0 §3.1.2.3.
_RESERVED: Final = 0x01
_CLEAN_START: Final = 0x02
_WILL_FLAG: Final = 0x04
_WILL_RETAIN: Final = 0x20
_PASSWORD_FLAG: Final = 0x40
_USER_NAME_FLAG: Final = 0x80


def decode(
    buffer: bytes, start: i64, end: i64, version: i64, topics: TopicCache | None = None
) -> Packet:
    """The packet in ``buffer[start:end]``, which is complete (see ``Framer``).

    ``version`` is the connection's; a CONNECT states its own. Raises ProtocolError; for a CONNECT
    ``peek_version`` then tells in which version to answer.
    Source: MQTT 5.0 §2.1.2, [MQTT-2.1.3-1].
    """
    first: i64 = buffer[start]
    packet_type: i64 = first >> 4
    if packet_type == PUBLISH:
        return decode_publish(
            buffer, start, end, version, TopicCache() if topics is None else topics
        )
    _check_flags(packet_type, first & 0x0F, version)
    reader = Reader(buffer, _body(buffer, start), end, PACKET_NAMES[packet_type])
    packet: Packet
    if PUBACK <= packet_type <= PUBCOMP:
        packet = _decode_acknowledgement(reader, packet_type, version)
    elif packet_type == SUBSCRIBE:
        packet = _decode_subscribe(reader, version)
    elif packet_type == SUBACK:
        packet = _decode_suback(reader, version)
    elif packet_type == UNSUBSCRIBE:
        packet = _decode_unsubscribe(reader, version)
    elif packet_type == UNSUBACK:
        packet = _decode_unsuback(reader, version)
    elif packet_type == PINGREQ:
        packet = Pingreq()
    elif packet_type == PINGRESP:
        packet = Pingresp()
    elif packet_type == CONNECT:
        packet = _decode_connect(reader)
    elif packet_type == CONNACK:
        packet = _decode_connack(reader, version)
    elif packet_type == DISCONNECT:
        packet = _decode_disconnect(reader, version)
    else:
        packet = _decode_auth(reader, version)
    reader.finish()
    return packet


def decode_publish(
    buffer: bytes, start: i64, end: i64, version: i64, topics: TopicCache
) -> Publish:
    """The PUBLISH in ``buffer[start:end]``, which is complete and of that type: the hot path.

    Source: MQTT 5.0 §3.3, MQTT 3.1.1 §3.3.
    """
    first: i64 = buffer[start]
    qos: i64 = (first >> 1) & 3
    if qos == 3:
        raise malformed("expected QoS 0, 1 or 2 in PUBLISH, 3 came")  # [MQTT-3.3.1-4]
    if qos == 0 and first & 0x08:
        raise malformed("expected DUP 0 in a PUBLISH of QoS 0, 1 came")  # [MQTT-3.3.1-2]
    position: i64 = _body(buffer, start) + 2
    if position > end:
        raise malformed("expected a Topic Name, PUBLISH ends before it")
    topic_high: i64 = buffer[position - 2]
    topic_low: i64 = buffer[position - 1]
    topic_end: i64 = position + (topic_high << 8 | topic_low)
    if topic_end > end:
        raise malformed("expected a complete Topic Name, PUBLISH ends inside it")
    topic = "" if topic_end == position else topics.topic(buffer[position:topic_end])
    position = topic_end
    packet_id: i64 = 0
    if qos != 0:
        position += 2
        if position > end:
            raise malformed("expected a Packet Identifier, PUBLISH ends before it")
        id_high: i64 = buffer[position - 2]
        id_low: i64 = buffer[position - 1]
        packet_id = id_high << 8 | id_low
        if packet_id == 0:
            raise _zero_packet_id("PUBLISH", version)
    properties: Properties | None = None
    property_bytes = b""
    if version >= MQTT_5_0:
        if position < end and buffer[position] == 0:
            position += 1
        else:
            reader = Reader(buffer, position, end, "PUBLISH")
            properties = read_properties(reader, PUBLISH)
            while buffer[position] >= 0x80:
                position += 1
            property_bytes = buffer[position + 1 : reader.position]
            position = reader.position
    if not topic:
        _check_no_topic(properties, version)
    packet = Publish(
        topic,
        buffer[position:end],
        qos,
        first & 0x01 != 0,
        first & 0x08 != 0,
        packet_id,
        properties,
    )
    packet.property_bytes = property_bytes
    return packet


def peek_packet_id(buffer: bytes, start: i64, end: i64) -> i64:
    """The Packet Identifier of a PUBACK, PUBREC, PUBREL or PUBCOMP that reports success in short.

    0 for any other packet, and for one that is not valid: take ``decode`` for those. All versions
    write the short form alike, so this spares the packet object where acknowledgements abound.
    """
    if end - start != 4 or buffer[start + 1] != 2:
        return 0
    first: i64 = buffer[start]
    if first != 0x40 and first != 0x50 and first != 0x62 and first != 0x70:
        return 0
    high: i64 = buffer[start + 2]
    low: i64 = buffer[start + 3]
    return high << 8 | low


def peek_version(buffer: bytes, start: i64, end: i64) -> i64:
    """The protocol level that a CONNECT names, however bad the rest of it is.

    -1 if it is no CONNECT of MQTT at all. After ``decode`` has refused a CONNECT: 5 and above wants
    a CONNACK of 5.0 with the reason code; below that, Unsupported Protocol Version is answered by
    return code 1, and every other fault by closing the connection.
    """
    if buffer[start] >> 4 != CONNECT:
        return -1
    name_start: i64 = _body(buffer, start)
    if name_start + 7 <= end and buffer[name_start : name_start + 6] == b"\0\4MQTT":
        return buffer[name_start + 6]
    if name_start + 9 <= end and buffer[name_start : name_start + 8] == b"\0\6MQIsdp":
        return buffer[name_start + 8]
    return -1


def _body(buffer: bytes, start: i64) -> i64:
    """Where the body of the packet begins; the framer has checked the Remaining Length."""
    position: i64 = start + 1
    while buffer[position] >= 0x80:
        position += 1
    return position + 1


def _check_flags(packet_type: i64, flags: i64, version: i64) -> None:
    """Check the fixed header's type and flags, PUBLISH apart. Source: [MQTT-2.1.3-1]."""
    if packet_type == 0 or (packet_type == AUTH and version < MQTT_5_0):
        raise malformed(f"expected a packet type, the reserved one {packet_type} came")
    expected: i64 = 0
    if packet_type in (PUBREL, SUBSCRIBE, UNSUBSCRIBE):
        expected = 2
        if version == MQTT_3_1:
            flags &= 0x07  # there DUP marks the repetition of these packets too
    if flags != expected:
        raise malformed(
            f"expected flags {expected} in {PACKET_NAMES[packet_type]}, flags {flags} came"
        )


def _protocol_error(detail: str) -> ProtocolError:
    return ProtocolError(PROTOCOL_ERROR, detail)


def _zero_packet_id(name: str, version: i64) -> ProtocolError:
    detail = f"expected a Packet Identifier above 0 in {name}, 0 came"
    return _protocol_error(detail) if version >= MQTT_5_0 else malformed(detail)


def _read_packet_id(reader: Reader, version: i64) -> i64:
    packet_id: i64 = reader.u16()
    if packet_id == 0:
        raise _zero_packet_id(reader.name, version)
    return packet_id


def _check_no_topic(properties: Properties | None, version: i64) -> None:
    """An empty Topic Name needs a Topic Alias, which 5.0 alone has."""
    if version < MQTT_5_0:
        check_topic("")
    if properties is None or properties.topic_alias is None:
        raise _protocol_error("expected a Topic Name or a Topic Alias in PUBLISH, neither came")


def _read_code(reader: Reader, packet_type: i64) -> i64:
    code: i64 = reader.byte()
    if code not in allowed_codes(packet_type):
        raise malformed(f"expected a reason code of {reader.name}, 0x{code:02X} came")
    return code


def _decode_acknowledgement(reader: Reader, packet_type: i64, version: i64) -> Packet:
    """PUBACK, PUBREC, PUBREL or PUBCOMP. Source: MQTT 5.0 §3.4 to §3.7."""
    packet_id: i64 = _read_packet_id(reader, version)
    code: i64 = SUCCESS
    properties: Properties | None = None
    if version >= MQTT_5_0 and reader.left > 0:
        code = _read_code(reader, packet_type)
        if reader.left > 0:
            properties = read_properties(reader, packet_type)
    if packet_type == PUBACK:
        return Puback(packet_id, code, properties)
    if packet_type == PUBREC:
        return Pubrec(packet_id, code, properties)
    if packet_type == PUBREL:
        return Pubrel(packet_id, code, properties)
    return Pubcomp(packet_id, code, properties)


def _decode_connect(reader: Reader) -> Connect:
    """Source: MQTT 5.0 §3.1, MQTT 3.1.1 §3.1."""
    version: i64 = _read_version(reader)
    flags: i64 = reader.byte()
    _check_connect_flags(flags, version)
    keep_alive: i64 = reader.u16()
    properties: Properties | None = None
    if version >= MQTT_5_0:
        properties = read_properties(reader, CONNECT)
    client_id = reader.string()
    will = _read_will(reader, flags, version) if flags & _WILL_FLAG else None
    user_name = reader.string() if flags & _USER_NAME_FLAG else None
    password = reader.binary() if flags & _PASSWORD_FLAG else None
    return Connect(
        client_id,
        version,
        flags & _CLEAN_START != 0,
        keep_alive,
        will,
        user_name,
        password,
        properties,
    )


def _read_version(reader: Reader) -> i64:
    """Protocol name and level: [MQTT-3.1.2-1], [MQTT-3.1.2-2]."""
    name = reader.binary()
    if name != b"MQTT" and name != b"MQIsdp":
        raise ProtocolError(
            UNSUPPORTED_PROTOCOL_VERSION, "expected the protocol name MQTT, another one came"
        )
    level: i64 = reader.byte()
    if name == b"MQIsdp":
        supported = level == MQTT_3_1
    else:
        supported = level in (MQTT_5_0, MQTT_3_1_1)
    if not supported:
        raise ProtocolError(
            UNSUPPORTED_PROTOCOL_VERSION,
            f"expected level 4 or 5 of MQTT or level 3 of MQIsdp, level {level} came",
        )
    return level


def _check_connect_flags(flags: i64, version: i64) -> None:
    if flags & _RESERVED:
        # [MQTT-3.1.2-3]
        raise malformed("expected the reserved bit 0 of the Connect Flags to be 0, it is 1")
    will_qos: i64 = (flags >> 3) & 3
    if flags & _WILL_FLAG == 0:
        # [MQTT-3.1.2-11], [MQTT-3.1.2-13]; 3.1.1: [MQTT-3.1.2-13], [MQTT-3.1.2-15]
        if will_qos != 0 or flags & _WILL_RETAIN:
            raise malformed("expected Will QoS 0 and Will Retain 0 where Will Flag is 0")
    elif will_qos == 3:
        raise malformed("expected Will QoS 0, 1 or 2, 3 came")  # [MQTT-3.1.2-12]
    if version < MQTT_5_0 and flags & _PASSWORD_FLAG and flags & _USER_NAME_FLAG == 0:
        # [MQTT-3.1.2-22] of 3.1.1; 5.0 allows it.
        raise malformed("expected a User Name where there is a Password")


def _read_will(reader: Reader, flags: i64, version: i64) -> Will:
    properties: Properties | None = None
    if version >= MQTT_5_0:
        properties = read_properties(reader, WILL)
    topic = reader.string()
    check_topic(topic)
    payload = reader.binary()
    return Will(topic, payload, (flags >> 3) & 3, flags & _WILL_RETAIN != 0, properties)


def _decode_connack(reader: Reader, version: i64) -> Connack:
    """Source: MQTT 5.0 §3.2, MQTT 3.1.1 §3.2."""
    if version >= MQTT_5_0 and reader.left == 2:
        raise ProtocolError(
            UNSUPPORTED_PROTOCOL_VERSION, "expected a CONNACK of MQTT 5.0, one of MQTT 3.1.1 came"
        )
    flags: i64 = reader.byte()
    if version == MQTT_3_1:
        flags = 0  # the byte is reserved there, and has no meaning
    if flags > 1:
        raise malformed(f"expected Connect Acknowledge Flags 0 or 1, {flags} came")
    if version < MQTT_5_0:
        return_code: i64 = reader.byte()
        if return_code not in CONNACK_RETURN_CODES:
            raise malformed(f"expected a return code of CONNACK, 0x{return_code:02X} came")
        _check_session_present(flags, return_code)
        return Connack(flags == 1, return_code)
    code: i64 = _read_code(reader, CONNACK)
    _check_session_present(flags, code)
    return Connack(flags == 1, code, read_properties(reader, CONNACK))


def _check_session_present(flags: i64, code: i64) -> None:
    if code != SUCCESS and flags == 1:
        # [MQTT-3.2.2-6]; 3.1.1: [MQTT-3.2.2-4]
        raise _protocol_error("expected Session Present 0 in a CONNACK that refuses, 1 came")


def _decode_subscribe(reader: Reader, version: i64) -> Subscribe:
    """Source: MQTT 5.0 §3.8, MQTT 3.1.1 §3.8."""
    packet_id: i64 = _read_packet_id(reader, version)
    properties: Properties | None = None
    if version >= MQTT_5_0:
        properties = read_properties(reader, SUBSCRIBE)
    if reader.left == 0:
        # [MQTT-3.8.3-2]; 3.1.1: [MQTT-3.8.3-3]
        raise _protocol_error("expected at least one Topic Filter in SUBSCRIBE, none came")
    requests: list[SubscriptionRequest] = []
    while reader.left > 0:
        requests.append(_read_request(reader, version))
    return Subscribe(packet_id, requests, properties)


def _read_request(reader: Reader, version: i64) -> SubscriptionRequest:
    topic_filter = reader.string()
    options: i64 = reader.byte()
    qos: i64 = options & 3
    if version < MQTT_5_0:
        if options > 2:
            # [MQTT-3.8.3-4] of 3.1.1
            raise malformed(f"expected a requested QoS of 0, 1 or 2, 0x{options:02X} came")
        return SubscriptionRequest(topic_filter, qos)
    if options & 0xC0:
        # [MQTT-3.8.3-5]
        raise malformed(f"expected reserved Subscription Options of 0, 0x{options:02X} came")
    retain_handling: i64 = (options >> 4) & 3
    if qos == 3:
        raise _protocol_error("expected a Maximum QoS of 0, 1 or 2 in SUBSCRIBE, 3 came")
    if retain_handling == 3:
        raise _protocol_error("expected a Retain Handling of 0, 1 or 2 in SUBSCRIBE, 3 came")
    no_local = options & 0x04 != 0
    if no_local and is_shared(topic_filter):
        # [MQTT-3.8.3-4]
        raise _protocol_error("expected No Local 0 for a Shared Subscription, 1 came")
    return SubscriptionRequest(topic_filter, qos, no_local, options & 0x08 != 0, retain_handling)


def _decode_suback(reader: Reader, version: i64) -> Suback:
    """Source: MQTT 5.0 §3.9, MQTT 3.1.1 §3.9."""
    packet_id: i64 = _read_packet_id(reader, version)
    if version >= MQTT_5_0:
        properties = read_properties(reader, SUBACK)
        return Suback(packet_id, _read_codes(reader, allowed_codes(SUBACK)), properties)
    return Suback(packet_id, _read_codes(reader, SUBACK_RETURN_CODES))


def _read_codes(reader: Reader, allowed: frozenset[int]) -> list[int]:
    """The reason codes up to the end, at least one."""
    codes: list[int] = []
    while reader.left > 0 or not codes:
        code: i64 = reader.byte()
        if code not in allowed:
            raise malformed(f"expected a reason code of {reader.name}, 0x{code:02X} came")
        codes.append(code)
    return codes


def _decode_unsubscribe(reader: Reader, version: i64) -> Unsubscribe:
    """Source: MQTT 5.0 §3.10, MQTT 3.1.1 §3.10."""
    packet_id: i64 = _read_packet_id(reader, version)
    properties: Properties | None = None
    if version >= MQTT_5_0:
        properties = read_properties(reader, UNSUBSCRIBE)
    if reader.left == 0:
        # [MQTT-3.10.3-2]
        raise _protocol_error("expected at least one Topic Filter in UNSUBSCRIBE, none came")
    topic_filters: list[str] = []
    while reader.left > 0:
        topic_filters.append(reader.string())
    return Unsubscribe(packet_id, topic_filters, properties)


def _decode_unsuback(reader: Reader, version: i64) -> Unsuback:
    """Source: MQTT 5.0 §3.11, MQTT 3.1.1 §3.11."""
    packet_id: i64 = _read_packet_id(reader, version)
    if version < MQTT_5_0:
        return Unsuback(packet_id, [])
    properties = read_properties(reader, UNSUBACK)
    return Unsuback(packet_id, _read_codes(reader, allowed_codes(UNSUBACK)), properties)


def _decode_disconnect(reader: Reader, version: i64) -> Disconnect:
    """Source: MQTT 5.0 §3.14, MQTT 3.1.1 §3.14."""
    if version < MQTT_5_0 or reader.left == 0:
        return Disconnect()
    code: i64 = _read_code(reader, DISCONNECT)
    if reader.left == 0:
        return Disconnect(code)
    return Disconnect(code, read_properties(reader, DISCONNECT))


def _decode_auth(reader: Reader, version: i64) -> Auth:
    """Source: MQTT 5.0 §3.15."""
    assert version >= MQTT_5_0
    if reader.left == 0:
        return Auth()
    code: i64 = _read_code(reader, AUTH)
    properties = read_properties(reader, AUTH)
    if properties is None or properties.authentication_method is None:
        raise _protocol_error("expected an Authentication Method in AUTH, none came")
    return Auth(code, properties)
