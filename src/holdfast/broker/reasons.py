"""Answers that say why: a Reason String beside the reason code, where the client may get one.

Source: MQTT 5.0 §4.13, [MQTT-3.1.2-29].
"""

from holdfast.broker.connection import Connection
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
from holdfast.protocol.reason_codes import FAILURE, reason_name


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
