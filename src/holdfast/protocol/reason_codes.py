"""The 43 reason codes of MQTT 5.0, the return codes of 3.1.1, and which packet may carry which.

Source: MQTT 5.0 §2.4 and the reason code tables of §3; MQTT 3.1.1 §3.2.2.3 and §3.9.3.
"""

from typing import Final

from mypy_extensions import i64

from holdfast.protocol.packets import (
    AUTH,
    CONNACK,
    DISCONNECT,
    PUBACK,
    PUBCOMP,
    PUBREC,
    PUBREL,
    SUBACK,
    UNSUBACK,
)

SUCCESS: Final = 0x00
NORMAL_DISCONNECTION: Final = 0x00
GRANTED_QOS_0: Final = 0x00
GRANTED_QOS_1: Final = 0x01
GRANTED_QOS_2: Final = 0x02
DISCONNECT_WITH_WILL_MESSAGE: Final = 0x04
NO_MATCHING_SUBSCRIBERS: Final = 0x10
NO_SUBSCRIPTION_EXISTED: Final = 0x11
CONTINUE_AUTHENTICATION: Final = 0x18
RE_AUTHENTICATE: Final = 0x19
UNSPECIFIED_ERROR: Final = 0x80
MALFORMED_PACKET: Final = 0x81
PROTOCOL_ERROR: Final = 0x82
IMPLEMENTATION_SPECIFIC_ERROR: Final = 0x83
UNSUPPORTED_PROTOCOL_VERSION: Final = 0x84
CLIENT_IDENTIFIER_NOT_VALID: Final = 0x85
BAD_USER_NAME_OR_PASSWORD: Final = 0x86
NOT_AUTHORIZED: Final = 0x87
SERVER_UNAVAILABLE: Final = 0x88
SERVER_BUSY: Final = 0x89
BANNED: Final = 0x8A
SERVER_SHUTTING_DOWN: Final = 0x8B
BAD_AUTHENTICATION_METHOD: Final = 0x8C
KEEP_ALIVE_TIMEOUT: Final = 0x8D
SESSION_TAKEN_OVER: Final = 0x8E
TOPIC_FILTER_INVALID: Final = 0x8F
TOPIC_NAME_INVALID: Final = 0x90
PACKET_IDENTIFIER_IN_USE: Final = 0x91
PACKET_IDENTIFIER_NOT_FOUND: Final = 0x92
RECEIVE_MAXIMUM_EXCEEDED: Final = 0x93
TOPIC_ALIAS_INVALID: Final = 0x94
PACKET_TOO_LARGE: Final = 0x95
MESSAGE_RATE_TOO_HIGH: Final = 0x96
QUOTA_EXCEEDED: Final = 0x97
ADMINISTRATIVE_ACTION: Final = 0x98
PAYLOAD_FORMAT_INVALID: Final = 0x99
RETAIN_NOT_SUPPORTED: Final = 0x9A
QOS_NOT_SUPPORTED: Final = 0x9B
USE_ANOTHER_SERVER: Final = 0x9C
SERVER_MOVED: Final = 0x9D
SHARED_SUBSCRIPTIONS_NOT_SUPPORTED: Final = 0x9E
CONNECTION_RATE_EXCEEDED: Final = 0x9F
MAXIMUM_CONNECT_TIME: Final = 0xA0
SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED: Final = 0xA1
WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED: Final = 0xA2

FAILURE: Final = 0x80  # this and every higher code is a failure

# The CONNACK return codes of MQTT 3.1 and 3.1.1.
ACCEPTED: Final = 0x00
REFUSED_PROTOCOL_LEVEL: Final = 0x01
REFUSED_CLIENT_IDENTIFIER: Final = 0x02
REFUSED_SERVER_UNAVAILABLE: Final = 0x03
REFUSED_USER_NAME_OR_PASSWORD: Final = 0x04
REFUSED_NOT_AUTHORIZED: Final = 0x05

REASON_NAMES: Final[dict[int, str]] = {
    SUCCESS: "Success",
    GRANTED_QOS_1: "Granted QoS 1",
    GRANTED_QOS_2: "Granted QoS 2",
    DISCONNECT_WITH_WILL_MESSAGE: "Disconnect with Will Message",
    NO_MATCHING_SUBSCRIBERS: "No matching subscribers",
    NO_SUBSCRIPTION_EXISTED: "No subscription existed",
    CONTINUE_AUTHENTICATION: "Continue authentication",
    RE_AUTHENTICATE: "Re-authenticate",
    UNSPECIFIED_ERROR: "Unspecified error",
    MALFORMED_PACKET: "Malformed Packet",
    PROTOCOL_ERROR: "Protocol Error",
    IMPLEMENTATION_SPECIFIC_ERROR: "Implementation specific error",
    UNSUPPORTED_PROTOCOL_VERSION: "Unsupported Protocol Version",
    CLIENT_IDENTIFIER_NOT_VALID: "Client Identifier not valid",
    BAD_USER_NAME_OR_PASSWORD: "Bad User Name or Password",
    NOT_AUTHORIZED: "Not authorized",
    SERVER_UNAVAILABLE: "Server unavailable",
    SERVER_BUSY: "Server busy",
    BANNED: "Banned",
    SERVER_SHUTTING_DOWN: "Server shutting down",
    BAD_AUTHENTICATION_METHOD: "Bad authentication method",
    KEEP_ALIVE_TIMEOUT: "Keep Alive timeout",
    SESSION_TAKEN_OVER: "Session taken over",
    TOPIC_FILTER_INVALID: "Topic Filter invalid",
    TOPIC_NAME_INVALID: "Topic Name invalid",
    PACKET_IDENTIFIER_IN_USE: "Packet Identifier in use",
    PACKET_IDENTIFIER_NOT_FOUND: "Packet Identifier not found",
    RECEIVE_MAXIMUM_EXCEEDED: "Receive Maximum exceeded",
    TOPIC_ALIAS_INVALID: "Topic Alias invalid",
    PACKET_TOO_LARGE: "Packet too large",
    MESSAGE_RATE_TOO_HIGH: "Message rate too high",
    QUOTA_EXCEEDED: "Quota exceeded",
    ADMINISTRATIVE_ACTION: "Administrative action",
    PAYLOAD_FORMAT_INVALID: "Payload format invalid",
    RETAIN_NOT_SUPPORTED: "Retain not supported",
    QOS_NOT_SUPPORTED: "QoS not supported",
    USE_ANOTHER_SERVER: "Use another server",
    SERVER_MOVED: "Server moved",
    SHARED_SUBSCRIPTIONS_NOT_SUPPORTED: "Shared Subscriptions not supported",
    CONNECTION_RATE_EXCEEDED: "Connection rate exceeded",
    MAXIMUM_CONNECT_TIME: "Maximum connect time",
    SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED: "Subscription Identifiers not supported",
    WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED: "Wildcard Subscriptions not supported",
}

CONNACK_CODES: Final = frozenset(
    [
        SUCCESS,
        UNSPECIFIED_ERROR,
        MALFORMED_PACKET,
        PROTOCOL_ERROR,
        IMPLEMENTATION_SPECIFIC_ERROR,
        UNSUPPORTED_PROTOCOL_VERSION,
        CLIENT_IDENTIFIER_NOT_VALID,
        BAD_USER_NAME_OR_PASSWORD,
        NOT_AUTHORIZED,
        SERVER_UNAVAILABLE,
        SERVER_BUSY,
        BANNED,
        BAD_AUTHENTICATION_METHOD,
        TOPIC_NAME_INVALID,
        PACKET_TOO_LARGE,
        QUOTA_EXCEEDED,
        PAYLOAD_FORMAT_INVALID,
        RETAIN_NOT_SUPPORTED,
        QOS_NOT_SUPPORTED,
        USE_ANOTHER_SERVER,
        SERVER_MOVED,
        CONNECTION_RATE_EXCEEDED,
    ]
)

PUBACK_CODES: Final = frozenset(
    [
        SUCCESS,
        NO_MATCHING_SUBSCRIBERS,
        UNSPECIFIED_ERROR,
        IMPLEMENTATION_SPECIFIC_ERROR,
        NOT_AUTHORIZED,
        TOPIC_NAME_INVALID,
        PACKET_IDENTIFIER_IN_USE,
        QUOTA_EXCEEDED,
        PAYLOAD_FORMAT_INVALID,
    ]
)

PUBREC_CODES: Final = PUBACK_CODES

PUBREL_CODES: Final = frozenset([SUCCESS, PACKET_IDENTIFIER_NOT_FOUND])

PUBCOMP_CODES: Final = PUBREL_CODES

SUBACK_CODES: Final = frozenset(
    [
        GRANTED_QOS_0,
        GRANTED_QOS_1,
        GRANTED_QOS_2,
        UNSPECIFIED_ERROR,
        IMPLEMENTATION_SPECIFIC_ERROR,
        NOT_AUTHORIZED,
        TOPIC_FILTER_INVALID,
        PACKET_IDENTIFIER_IN_USE,
        QUOTA_EXCEEDED,
        SHARED_SUBSCRIPTIONS_NOT_SUPPORTED,
        SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED,
        WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED,
    ]
)

UNSUBACK_CODES: Final = frozenset(
    [
        SUCCESS,
        NO_SUBSCRIPTION_EXISTED,
        UNSPECIFIED_ERROR,
        IMPLEMENTATION_SPECIFIC_ERROR,
        NOT_AUTHORIZED,
        TOPIC_FILTER_INVALID,
        PACKET_IDENTIFIER_IN_USE,
    ]
)

# Bad authentication method stands in the overview of §2.4 but not in §3.14.2.1: accepted.
DISCONNECT_CODES: Final = frozenset(
    [
        NORMAL_DISCONNECTION,
        DISCONNECT_WITH_WILL_MESSAGE,
        UNSPECIFIED_ERROR,
        MALFORMED_PACKET,
        PROTOCOL_ERROR,
        IMPLEMENTATION_SPECIFIC_ERROR,
        NOT_AUTHORIZED,
        SERVER_BUSY,
        SERVER_SHUTTING_DOWN,
        BAD_AUTHENTICATION_METHOD,
        KEEP_ALIVE_TIMEOUT,
        SESSION_TAKEN_OVER,
        TOPIC_FILTER_INVALID,
        TOPIC_NAME_INVALID,
        RECEIVE_MAXIMUM_EXCEEDED,
        TOPIC_ALIAS_INVALID,
        PACKET_TOO_LARGE,
        MESSAGE_RATE_TOO_HIGH,
        QUOTA_EXCEEDED,
        ADMINISTRATIVE_ACTION,
        PAYLOAD_FORMAT_INVALID,
        RETAIN_NOT_SUPPORTED,
        QOS_NOT_SUPPORTED,
        USE_ANOTHER_SERVER,
        SERVER_MOVED,
        SHARED_SUBSCRIPTIONS_NOT_SUPPORTED,
        CONNECTION_RATE_EXCEEDED,
        MAXIMUM_CONNECT_TIME,
        SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED,
        WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED,
    ]
)

# What only a server sends; the server takes such a DISCONNECT from a client as a Protocol Error.
DISCONNECT_CODES_OF_SERVER: Final = frozenset(
    [
        NOT_AUTHORIZED,
        SERVER_BUSY,
        SERVER_SHUTTING_DOWN,
        KEEP_ALIVE_TIMEOUT,
        SESSION_TAKEN_OVER,
        TOPIC_FILTER_INVALID,
        RETAIN_NOT_SUPPORTED,
        QOS_NOT_SUPPORTED,
        USE_ANOTHER_SERVER,
        SERVER_MOVED,
        SHARED_SUBSCRIPTIONS_NOT_SUPPORTED,
        CONNECTION_RATE_EXCEEDED,
        MAXIMUM_CONNECT_TIME,
        SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED,
        WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED,
    ]
)

AUTH_CODES: Final = frozenset([SUCCESS, CONTINUE_AUTHENTICATION, RE_AUTHENTICATE])

CONNACK_RETURN_CODES: Final = frozenset(
    [
        ACCEPTED,
        REFUSED_PROTOCOL_LEVEL,
        REFUSED_CLIENT_IDENTIFIER,
        REFUSED_SERVER_UNAVAILABLE,
        REFUSED_USER_NAME_OR_PASSWORD,
        REFUSED_NOT_AUTHORIZED,
    ]
)

SUBACK_RETURN_CODES: Final = frozenset([GRANTED_QOS_0, GRANTED_QOS_1, GRANTED_QOS_2, FAILURE])

# What return code 3 of 3.1.1 stands for; a client before 5.0 cannot be sent elsewhere.
_UNAVAILABLE: Final = frozenset(
    [
        SERVER_UNAVAILABLE,
        SERVER_BUSY,
        QUOTA_EXCEEDED,
        CONNECTION_RATE_EXCEEDED,
        USE_ANOTHER_SERVER,
        SERVER_MOVED,
    ]
)

_NO_CODES: Final[frozenset[int]] = frozenset()


def reason_name(code: int) -> str:
    """The standard's name of a reason code, or its number where it has none."""
    name = REASON_NAMES.get(code)
    return f"reason code 0x{code:02X}" if name is None else name


def allowed_codes(packet_type: i64) -> frozenset[int]:
    """The reason codes of 5.0 that a packet of this type may carry, from either side."""
    if packet_type == PUBACK:
        return PUBACK_CODES
    if packet_type == PUBREC:
        return PUBREC_CODES
    if packet_type == PUBREL:
        return PUBREL_CODES
    if packet_type == PUBCOMP:
        return PUBCOMP_CODES
    if packet_type == CONNACK:
        return CONNACK_CODES
    if packet_type == SUBACK:
        return SUBACK_CODES
    if packet_type == UNSUBACK:
        return UNSUBACK_CODES
    if packet_type == DISCONNECT:
        return DISCONNECT_CODES
    if packet_type == AUTH:
        return AUTH_CODES
    return _NO_CODES


def connack_return_code(reason_code: int) -> int:
    """The 3.1.1 CONNACK return code for a reason code of 5.0, or -1 where none fits.

    Without a fitting one the server closes the connection and sends no CONNACK
    [MQTT-3.2.2-6 of 3.1.1].
    """
    if reason_code == SUCCESS:
        return ACCEPTED
    if reason_code == UNSUPPORTED_PROTOCOL_VERSION:
        return REFUSED_PROTOCOL_LEVEL
    if reason_code == CLIENT_IDENTIFIER_NOT_VALID:
        return REFUSED_CLIENT_IDENTIFIER
    if reason_code in _UNAVAILABLE:
        return REFUSED_SERVER_UNAVAILABLE
    if reason_code == BAD_USER_NAME_OR_PASSWORD:
        return REFUSED_USER_NAME_OR_PASSWORD
    if reason_code in (NOT_AUTHORIZED, BANNED, BAD_AUTHENTICATION_METHOD):
        return REFUSED_NOT_AUTHORIZED
    return -1
