"""Answers that say why, or where else to go, where the client may get that.

Source: MQTT 5.0 §4.11, §4.13, [MQTT-3.1.2-29].
"""

from holdfast.broker.connection import Connection
from holdfast.broker.limits import Limits
from holdfast.message import Properties
from holdfast.protocol.encode import encode
from holdfast.protocol.packets import (
    MQTT_5_0,
    Connack,
    Disconnect,
    Puback,
    Pubrec,
    Suback,
    Unsuback,
)
from holdfast.protocol.reason_codes import (
    FAILURE,
    SERVER_SHUTTING_DOWN,
    USE_ANOTHER_SERVER,
    reason_name,
)


def explained_connack(connection: Connection, reason_code: int, detail: str) -> bytes:
    """A CONNACK of 5.0 that refuses. Source: [MQTT-3.2.2-19]."""
    data = encode(Connack(False, reason_code, _reason(detail)), MQTT_5_0)
    # Of a CONNECT that could not be read, the Maximum Packet Size is not known.
    if connection.is_introduced and not connection.is_too_large(data):
        return data
    return encode(Connack(False, reason_code), MQTT_5_0)


def explained_disconnect(connection: Connection, reason_code: int, detail: str) -> bytes:
    """A DISCONNECT of 5.0 for what went wrong. Source: [MQTT-3.14.2-3]."""
    data = encode(Disconnect(reason_code, _reason(detail)), MQTT_5_0)
    if connection.is_too_large(data):
        return encode(Disconnect(reason_code), MQTT_5_0)
    return data


def explained_puback(
    connection: Connection, packet_id: int, reason_code: int, detail: str
) -> bytes:
    """A PUBACK of 5.0 that refuses. Source: [MQTT-3.4.2-2]."""
    if connection.wants_problem_information:
        data = encode(Puback(packet_id, reason_code, _reason(detail)), MQTT_5_0)
        if not connection.is_too_large(data):
            return data
    return encode(Puback(packet_id, reason_code), MQTT_5_0)


def explained_pubrec(
    connection: Connection, packet_id: int, reason_code: int, detail: str
) -> bytes:
    """A PUBREC of 5.0 that refuses. Source: [MQTT-3.5.2-2]."""
    if connection.wants_problem_information:
        data = encode(Pubrec(packet_id, reason_code, _reason(detail)), MQTT_5_0)
        if not connection.is_too_large(data):
            return data
    return encode(Pubrec(packet_id, reason_code), MQTT_5_0)


def explained_suback(connection: Connection, packet_id: int, codes: list[int]) -> bytes:
    """A SUBACK; in 5.0 it names what it refuses. Source: [MQTT-3.9.2-1]."""
    detail = _first_refusal(codes)
    if detail and connection.is_v5 and connection.wants_problem_information:
        data = encode(Suback(packet_id, codes, _reason(detail)), MQTT_5_0)
        if not connection.is_too_large(data):
            return data
    return encode(Suback(packet_id, codes), connection.version)


def explained_unsuback(connection: Connection, packet_id: int, codes: list[int]) -> bytes:
    """An UNSUBACK of 5.0; it names what it refuses. Source: [MQTT-3.11.2-1]."""
    detail = _first_refusal(codes)
    if detail and connection.wants_problem_information:
        data = encode(Unsuback(packet_id, codes, _reason(detail)), MQTT_5_0)
        if not connection.is_too_large(data):
            return data
    return encode(Unsuback(packet_id, codes), MQTT_5_0)


def redirection(connection: Connection, limits: Limits) -> bytes:
    """The CONNACK of 5.0 with which a redirecting server turns everyone away."""
    code = limits.redirect_code
    if limits.server_reference:
        data = encode(Connack(False, code, _reference(limits)), MQTT_5_0)
        if not connection.is_too_large(data):
            return data
    return explained_connack(connection, code, reason_name(code))


def farewell(connection: Connection, limits: Limits) -> bytes:
    """The DISCONNECT of 5.0 from a server that stops; it names the next one, if there is one."""
    if limits.server_reference:
        code = limits.redirect_code or USE_ANOTHER_SERVER
        data = encode(Disconnect(code, _reference(limits)), MQTT_5_0)
        if not connection.is_too_large(data):
            return data
    return encode(Disconnect(SERVER_SHUTTING_DOWN), MQTT_5_0)


def _reference(limits: Limits) -> Properties:
    properties = Properties()
    properties.server_reference = limits.server_reference
    return properties


def _reason(detail: str) -> Properties:
    properties = Properties()
    properties.reason_string = detail
    return properties


def _first_refusal(codes: list[int]) -> str:
    """What is wrong with the first topic filter that is refused, "" if none is."""
    for index, code in enumerate(codes):
        if code >= FAILURE:
            return f"topic filter {index + 1} of {len(codes)}: {reason_name(code)}"
    return ""
