"""What CONNACK tells a client of 5.0. Source: MQTT 5.0 §3.2.2.3."""

from holdfast.broker.connection import Connection
from holdfast.broker.limits import Limits
from holdfast.message import Properties
from holdfast.protocol.packets import MQTT_5_0, Connect
from holdfast.protocol.wire import STRING_BYTES_MAX


def connack_properties(
    limits: Limits, connection: Connection, packet: Connect
) -> Properties | None:
    """What a CONNACK of 5.0 that lets in says of the broker; None before 5.0."""
    if packet.version != MQTT_5_0:
        return None
    properties = Properties()
    properties.receive_maximum = limits.receive_maximum
    properties.maximum_packet_size = connection.rules.packet_bytes_max
    if limits.topic_alias_maximum > 0:
        properties.topic_alias_maximum = limits.topic_alias_maximum
    if limits.maximum_qos < 2:
        properties.maximum_qos = limits.maximum_qos
    if not limits.is_retain_available:
        properties.retain_available = 0
    asked = packet.properties
    if asked is not None and asked.request_response_information == 1:
        properties.response_information = _response_information(
            limits.response_information, connection.client_id
        )
    if not packet.client_id:
        properties.assigned_client_identifier = connection.client_id
    keep_alive_s = connection.rules.keep_alive_s(packet.keep_alive)
    if keep_alive_s != packet.keep_alive:
        properties.server_keep_alive = keep_alive_s
    return properties


def _response_information(prefix: str, client_id: str) -> str | None:
    """Where a client finds answers to its requests: a part of the topic tree for it alone.

    None if there is no setting for it, or no topic can hold its identifier.
    Source: MQTT 5.0 §3.2.2.3.15, [MQTT-3.1.2-28].
    """
    if not prefix or "+" in client_id or "#" in client_id:
        return None
    topic = f"{prefix}/{client_id}"
    return topic if len(topic.encode("utf-8")) <= STRING_BYTES_MAX else None
