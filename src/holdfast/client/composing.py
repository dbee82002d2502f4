"""Composes the messages that an application publishes, and refuses what no server would take."""

import operator
import time
from collections.abc import Callable, Sequence
from typing import Final

from holdfast.client.outgoing import Outgoing
from holdfast.errors import HoldfastError, UsageError
from holdfast.message import NEVER, Properties
from holdfast.protocol.packets import PUBLISH
from holdfast.protocol.properties import write_properties
from holdfast.protocol.topics import check_filter, check_topic
from holdfast.protocol.wire import U32_MAX, VARINT_MAX

__all__ = ["Composer", "Payload", "check_filters", "counted"]

Payload = bytes | bytearray | memoryview | str | int | float | None

CHECKED_TOPICS_MAX: Final = 10_000
# What a PUBLISH has beside topic, payload and properties: lengths, identifier, alias, expiry.
BESIDE_BYTES: Final = 32


class Composer:
    """Makes a message of what ``publish`` was given; topics are checked once."""

    def __init__(self) -> None:
        self._topics: set[str] = set()  # that are known to be valid

    def entry(
        self,
        topic: str,
        payload: Payload,
        qos: int,
        retain: bool,
        message_expiry_interval: int | None = None,
        content_type: str | None = None,
        response_topic: str | None = None,
        correlation_data: bytes | None = None,
        user_properties: Sequence[tuple[str, str]] = (),
        payload_format_indicator: int | None = None,
    ) -> Outgoing:
        """A message on its way out. Raises UsageError for what no server would take."""
        if topic not in self._topics:
            self._check_topic(topic)
        if type(qos) is not int:
            qos = _integer("a QoS", qos)
        if qos != 0 and qos != 1 and qos != 2:
            raise UsageError(f"expected QoS 0, 1 or 2, got {qos}")
        if type(payload) is not bytes:
            payload = _payload_bytes(payload)
        # Topics have at most four bytes a character.
        size = len(payload) + len(topic) * 4 + BESIDE_BYTES
        now_ms = time.time_ns() // 1_000_000
        expires_at_ms = NEVER
        if message_expiry_interval is not None:
            message_expiry_interval = _integer("a Message Expiry Interval", message_expiry_interval)
            if not 0 < message_expiry_interval <= U32_MAX:
                raise UsageError(
                    f"expected a Message Expiry Interval of 1 to {U32_MAX} s, "
                    f"got {message_expiry_interval}"
                )
            expires_at_ms = now_ms + message_expiry_interval * 1000
        properties: Properties | None = None
        if (
            content_type is not None
            or response_topic is not None
            or correlation_data is not None
            or user_properties
            or payload_format_indicator is not None
        ):
            if response_topic is not None and response_topic not in self._topics:
                self._check_topic(response_topic)
            properties = Properties()
            if content_type is not None:
                properties.content_type = _string("a Content Type", content_type)
            properties.response_topic = response_topic
            if correlation_data is not None:
                properties.correlation_data = _binary("Correlation Data", correlation_data)
            properties.user_properties = list(user_properties)
            if payload_format_indicator is not None:
                properties.payload_format_indicator = _integer(
                    "a Payload Format Indicator", payload_format_indicator
                )
            size += _size_of(properties)
        if size > VARINT_MAX:
            raise UsageError(f"expected a PUBLISH of at most {VARINT_MAX} bytes, got {size}")
        return Outgoing(topic, payload, qos, bool(retain), properties, expires_at_ms, now_ms)

    def _check_topic(self, topic: str) -> None:
        _checked(check_topic, _string("a Topic Name", topic))
        if len(self._topics) >= CHECKED_TOPICS_MAX:
            self._topics.clear()
        self._topics.add(topic)


def counted(messages: int) -> str:
    """So many messages, in words."""
    return "1 message" if messages == 1 else f"{messages} messages"


def _size_of(properties: Properties) -> int:
    """The bytes of properties. Raises UsageError for what they cannot carry."""
    for pair in properties.user_properties:
        if len(pair) != 2 or not isinstance(pair[0], str) or not isinstance(pair[1], str):
            raise UsageError(f"expected User Properties as pairs of str, got {pair!r}")
    return len(write_properties(properties, PUBLISH))


def _payload_bytes(payload: Payload) -> bytes:
    """What the field's clients make of these."""
    if isinstance(payload, bytes):
        return payload
    if payload is None:
        return b""
    if isinstance(payload, str):
        try:
            return payload.encode()
        except UnicodeEncodeError:
            raise UsageError("expected a payload without lone surrogates") from None
    if isinstance(payload, bytearray | memoryview):
        return bytes(payload)
    if isinstance(payload, int | float):
        return str(payload).encode()
    raise UsageError(
        f"expected bytes, str, int, float or None as payload, got {type(payload).__name__}"
    )


def _integer(name: str, value: object) -> int:
    """The whole number that this is. Later it would be a defect in the middle of a packet."""
    try:
        return operator.index(value)  # type: ignore[arg-type]  # that is what is found out here
    except TypeError:
        raise UsageError(f"expected {name} as int, got {type(value).__name__}") from None


def _string(name: str, value: object) -> str:
    if isinstance(value, str):
        return value
    raise UsageError(f"expected {name} as str, got {type(value).__name__}")


def _binary(name: str, value: object) -> bytes:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    raise UsageError(f"expected {name} as bytes, got {type(value).__name__}")


def check_filters(topic_filters: Sequence[str]) -> None:
    """Raise UsageError for what no server would subscribe to."""
    if not topic_filters:
        raise UsageError("expected at least one topic filter")
    for topic_filter in topic_filters:
        if isinstance(topic_filter, list | tuple):  # as other clients take them
            raise UsageError("expected each topic filter as an argument of its own, got a list")
        _checked(check_filter, _string("a topic filter", topic_filter))


def _checked(check: Callable[[str], None], text: str) -> None:
    """What is wrong with a topic or filter is our caller's mistake here."""
    try:
        check(text)
    except HoldfastError as error:
        raise UsageError(getattr(error, "detail", str(error))) from None
