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

Explained = Connack | Disconnect | Puback | Pubrec | Suback | Unsuback


def explained(connection: Connection, packet: Explained, detail: str) -> bytes:
    """A packet of 5.0 that refuses, with its Reason String where there is room for it.

    A client may turn Reason Strings off, but not those of CONNACK and DISCONNECT.
    Source: [MQTT-3.2.2-19], [MQTT-3.4.2-2], [MQTT-3.5.2-2], [MQTT-3.9.2-1], [MQTT-3.11.2-1],
    [MQTT-3.14.2-3].
    """
    if connection.wants_problem_information or isinstance(packet, (Connack, Disconnect)):
        packet.properties = _reason(detail)
        data = encode(packet, MQTT_5_0)
        if not connection.is_too_large(data):
            return data
        packet.properties = None
    return encode(packet, MQTT_5_0)


def explained_connack(connection: Connection, reason_code: int, detail: str) -> bytes:
    """A CONNACK of 5.0 that refuses."""
    packet = Connack(False, reason_code)
    if not connection.is_introduced:
        # Of a CONNECT that could not be read, the Maximum Packet Size is not known.
        return encode(packet, MQTT_5_0)
    return explained(connection, packet, detail)


def explained_suback(connection: Connection, packet_id: int, codes: list[int]) -> bytes:
    """A SUBACK; in 5.0 it names what it refuses."""
    packet = Suback(packet_id, codes)
    detail = _first_refusal(codes)
    if detail and connection.is_v5:
        return explained(connection, packet, detail)
    return encode(packet, connection.version)


def explained_unsuback(connection: Connection, packet_id: int, codes: list[int]) -> bytes:
    """An UNSUBACK of 5.0; it names what it refuses."""
    packet = Unsuback(packet_id, codes)
    detail = _first_refusal(codes)
    return explained(connection, packet, detail) if detail else encode(packet, MQTT_5_0)


def redirection(connection: Connection, limits: Limits, detail: str) -> bytes:
    """The CONNACK of 5.0 with which a redirecting server turns everyone away."""
    code = limits.redirect_code
    if limits.server_reference:
        data = encode(Connack(False, code, _reference(limits)), MQTT_5_0)
        if not connection.is_too_large(data):
            return data
    return explained_connack(connection, code, detail)


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
