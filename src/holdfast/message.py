"""The application message and the property set, which all parts of Holdfast share."""

from typing import Final, final

from mypy_extensions import mypyc_attr

NEVER: Final = 0  # the value of ``expires_at_ms`` for a message that does not expire
# What a User Property takes beside its characters: a packet of 1 MB may have 200 000 empty ones.
USER_PROPERTY_BYTES: Final = 128


@final
@mypyc_attr(acyclic=True)
class Properties:
    """One packet's properties; None (or an empty list) where a property is absent.

    Times are in seconds, sizes in bytes, as in the standard.
    """

    def __init__(self) -> None:
        self.payload_format_indicator: int | None = None
        self.message_expiry_interval: int | None = None
        self.content_type: str | None = None
        self.response_topic: str | None = None
        self.correlation_data: bytes | None = None
        self.subscription_identifiers: list[int] = []
        self.session_expiry_interval: int | None = None
        self.assigned_client_identifier: str | None = None
        self.server_keep_alive: int | None = None
        self.authentication_method: str | None = None
        self.authentication_data: bytes | None = None
        self.request_problem_information: int | None = None
        self.will_delay_interval: int | None = None
        self.request_response_information: int | None = None
        self.response_information: str | None = None
        self.server_reference: str | None = None
        self.reason_string: str | None = None
        self.receive_maximum: int | None = None
        self.topic_alias_maximum: int | None = None
        self.topic_alias: int | None = None
        self.maximum_qos: int | None = None
        self.retain_available: int | None = None
        self.user_properties: list[tuple[str, str]] = []
        self.maximum_packet_size: int | None = None
        self.wildcard_subscription_available: int | None = None
        self.subscription_identifier_available: int | None = None
        self.shared_subscription_available: int | None = None


@final
@mypyc_attr(acyclic=True)
class Message:
    """One application message: what a PUBLISH or a will carries, without its packet's fields.

    ``properties`` holds the forwarded ones only: payload format, content type, response topic,
    correlation data and user properties. ``expires_at_ms`` is absolute (Unix time in
    milliseconds), 0 where the message never expires, so that expiry runs on while the broker is
    down. ``publisher`` is the client identifier it came from, which No Local asks for.
    ``packed_properties`` is their encoding where it is at hand; it is for whoever changes the
    properties to set it to None.
    """

    def __init__(
        self,
        topic: str,
        payload: bytes,
        qos: int,
        retain: bool,
        properties: Properties | None = None,
        expires_at_ms: int = NEVER,
        publisher: str = "",
    ) -> None:
        self.topic = topic
        self.payload = payload
        self.qos = qos
        self.retain = retain
        self.properties = properties
        self.expires_at_ms = expires_at_ms
        self.publisher = publisher
        self.packed_properties: bytes | None = None


def is_expired(message: Message, now_ms: int) -> bool:
    """Whether the time of a message is over; it is then given to nobody [MQTT-3.3.2-5]."""
    return message.expires_at_ms != NEVER and message.expires_at_ms <= now_ms


def is_format_broken(properties: Properties | None, payload: bytes) -> bool:
    """Whether a payload is said to be UTF-8 and is not. Source: MQTT 5.0 §3.3.2.3.2."""
    if properties is None or properties.payload_format_indicator != 1:
        return False
    try:
        payload.decode("utf-8")
    except UnicodeDecodeError:
        return True
    return False


def message_bytes(message: Message) -> int:
    """How many bytes a message holds, roughly, for the bounds on memory."""
    return len(message.topic) + len(message.publisher) + content_bytes(message)


def content_bytes(message: Message) -> int:
    """How many of them are its payload and properties."""
    return content_bytes_of(message.payload, message.properties)


def content_bytes_of(payload: bytes, properties: Properties | None) -> int:
    """How many bytes a payload and properties hold, roughly."""
    size = len(payload)
    if properties is not None:
        for name, value in properties.user_properties:
            size += USER_PROPERTY_BYTES + len(name) + len(value)
        for text in (properties.content_type, properties.response_topic):
            if text is not None:
                size += len(text)
        if properties.correlation_data is not None:
            size += len(properties.correlation_data)
    return size
