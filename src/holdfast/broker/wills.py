"""Wills: checked with their CONNECT, kept by the session, made into messages when they are due.

Source: MQTT 5.0 §3.1.2.5, §3.1.3.2.
"""

from holdfast.broker.authorization import may_publish
from holdfast.broker.delayed import address_of, is_delayed
from holdfast.broker.limits import Limits
from holdfast.broker.permissions import Permissions
from holdfast.errors import ProtocolError, Refused
from holdfast.message import NEVER, Message, is_format_broken
from holdfast.protocol.packets import Will
from holdfast.protocol.properties import forwarded_properties
from holdfast.protocol.reason_codes import (
    NOT_AUTHORIZED,
    PAYLOAD_FORMAT_INVALID,
    QOS_NOT_SUPPORTED,
    RETAIN_NOT_SUPPORTED,
    TOPIC_NAME_INVALID,
)
from holdfast.protocol.topics import check_topic, is_sys_topic, size_fault


def check_will(will: Will, limits: Limits, permissions: Permissions | None) -> None:
    """Refuse a will that could not be published as it is. Source: [MQTT-3.2.2-12], -13.

    One that the client may not publish is refused as well: nobody could be told later.
    """
    _check_topic(will.topic, limits.delayed_seconds_max)
    size = len(will.topic.encode("utf-8"))
    fault = size_fault(will.topic, size, limits.topic_levels_max, limits.topic_bytes_max)
    if fault:
        raise ProtocolError(TOPIC_NAME_INVALID, fault)
    if will.qos > limits.maximum_qos:
        detail = f"expected a will of QoS {limits.maximum_qos} at most, QoS {will.qos} came"
        raise Refused(QOS_NOT_SUPPORTED, detail)
    if will.retain and not limits.is_retain_available:
        raise Refused(RETAIN_NOT_SUPPORTED, "expected Will Retain 0, 1 came")
    if limits.check_payload_format and is_format_broken(will.properties, will.payload):
        detail = "expected a will of UTF-8, as its Payload Format Indicator says"
        raise Refused(PAYLOAD_FORMAT_INVALID, detail)
    if permissions is not None and not may_publish(permissions, will.topic, will.retain):
        raise Refused(NOT_AUTHORIZED, "expected a will that the client may publish")


def _check_topic(topic: str, delayed_seconds_max: int) -> None:
    """Raises ProtocolError (Topic Name invalid) for a topic that no client publishes to."""
    check_topic(topic)
    if is_sys_topic(topic):
        raise ProtocolError(
            TOPIC_NAME_INVALID,
            "expected a will topic outside $SYS, which only the broker publishes under",
        )
    if is_delayed(topic):
        try:
            address_of(topic, delayed_seconds_max)
        except Refused as error:
            raise ProtocolError(error.reason_code, error.detail) from None


def take_delay_s(will: Will) -> int:
    """Move the Will Delay Interval out of the Will Properties, in which it is not kept."""
    properties = will.properties
    if properties is None or properties.will_delay_interval is None:
        return 0
    delay_s = properties.will_delay_interval
    properties.will_delay_interval = None
    return delay_s


def stored_will(will: Will, client_id: str) -> Message:
    """What a session keeps: with its Message Expiry Interval among its properties."""
    return Message(
        will.topic, will.payload, will.qos, will.retain, will.properties, NEVER, client_id
    )


def message_of_will(will: Message, now_ms: int) -> Message:
    """The message that a kept will is published as now.

    A copy: the will itself may just be on its way to the store with the session's row.
    """
    properties = will.properties
    expires_at_ms = NEVER
    if properties is not None and properties.message_expiry_interval is not None:
        # Its expiry counts from its publication, not from CONNECT.
        expires_at_ms = now_ms + properties.message_expiry_interval * 1000
    return Message(
        will.topic,
        will.payload,
        will.qos,
        will.retain,
        forwarded_properties(properties),
        expires_at_ms,
        will.publisher,
    )
