"""What a client can be told: all of it has defaults that keep promises."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypedDict

from holdfast.errors import ProtocolError, UsageError
from holdfast.message import Properties
from holdfast.protocol import packets
from holdfast.protocol.topics import check_topic

if TYPE_CHECKING:
    import ssl

    from holdfast.client.authentication import Authentication, ScramMethod
    from holdfast.client.tls import TlsOptions

__all__ = [
    "ClientOptions",
    "OutboxLimits",
    "Policy",
    "PublishOptions",
    "Reconnect",
    "RequestOptions",
    "Version",
    "Will",
]

Version = Literal["5.0", "3.1.1"]
Policy = Literal["wait", "refuse", "drop-oldest"]

VERSIONS: Final[dict[str, int]] = {"5.0": packets.MQTT_5_0, "3.1.1": packets.MQTT_3_1_1}
POLICIES: Final = ("wait", "refuse", "drop-oldest")
# The default of ``session_expiry_s`` for a session that is to be kept: a device that was away for
# a long weekend finds it again, and one that never comes back is not kept for ever.
SESSION_EXPIRY_S: Final = 7 * 24 * 3600
# Of a session that ends with the Client object: it has to bridge lost connections alone.
BRIDGED_S: Final = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxLimits:
    """How much an outbox holds, and what a publish does when that is reached.

    ``age_max_s`` (0 for any age) counts from the publish; what is older is dropped, told to its
    receipt, counted and logged. A message that may be in flight is never dropped: with
    ``drop-oldest`` no more than half of ``messages_max`` are sent at a time.
    """

    messages_max: int = 100_000
    bytes_max: int = 256 * 1024 * 1024
    age_max_s: float = 0
    policy: Policy = "wait"

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise UsageError(f"expected one of {', '.join(POLICIES)} as policy, got {self.policy}")
        if self.messages_max < 1 or self.bytes_max < 1 or self.age_max_s < 0:
            raise UsageError("expected outbox limits above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconnect:
    """How a client comes back: a random time of up to ``delay_min_s``, doubled up to ``max``."""

    delay_min_s: float = 0.5
    delay_max_s: float = 60

    def __post_init__(self) -> None:
        if not 0 < self.delay_min_s <= self.delay_max_s:
            raise UsageError("expected 0 < delay_min_s <= delay_max_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Will:
    """What the server publishes when the client is lost. The properties are those of 5.0."""

    topic: str
    payload: bytes | str = b""
    qos: int = 0
    retain: bool = False
    will_delay_interval: int | None = None
    message_expiry_interval: int | None = None
    payload_format_indicator: int | None = None
    content_type: str | None = None
    response_topic: str | None = None
    correlation_data: bytes | None = None
    user_properties: Sequence[tuple[str, str]] = field(default=())

    def packet(self, version: int) -> packets.Will:
        """The will of a CONNECT of this version. Raises UsageError."""
        for topic in (self.topic, self.response_topic):
            try:
                check_topic(self.topic if topic is None else topic)
            except ProtocolError as error:
                raise UsageError(f"the will: {error.detail}") from None
        payload = self.payload.encode() if isinstance(self.payload, str) else self.payload
        properties = None
        if version >= packets.MQTT_5_0:
            properties = Properties()
            properties.will_delay_interval = self.will_delay_interval
            properties.message_expiry_interval = self.message_expiry_interval
            properties.payload_format_indicator = self.payload_format_indicator
            properties.content_type = self.content_type
            properties.response_topic = self.response_topic
            properties.correlation_data = self.correlation_data
            properties.user_properties = list(self.user_properties)
        return packets.Will(self.topic, payload, self.qos, self.retain, properties)


class ClientOptions(TypedDict, total=False):
    """The keyword arguments that ``Client`` and ``SyncClient`` share."""

    client_id: str
    outbox: str | Path | None
    version: Version
    clean_start: bool | None
    session_expiry_s: int | None
    keep_alive_s: int
    user_name: str | None
    password: str | bytes | None
    auth: "Authentication | ScramMethod | None"
    will: Will | None
    tls: "TlsOptions | ssl.SSLContext | None"
    headers: Mapping[str, str]
    receive_maximum: int
    maximum_packet_size: int | None
    topic_alias_maximum: int
    use_topic_aliases: bool
    user_properties: Sequence[tuple[str, str]]
    in_flight_max: int
    manual_ack: bool
    outbox_limits: OutboxLimits | None
    reconnect: Reconnect | None
    connect_timeout_s: float
    close_timeout_s: float


class RequestOptions(TypedDict, total=False):
    """The properties of a request, which are those of 5.0."""

    message_expiry_interval: int | None
    content_type: str | None
    response_topic: str | None
    user_properties: Sequence[tuple[str, str]]
    payload_format_indicator: int | None


class PublishOptions(RequestOptions, total=False):
    """The properties of a publish, which are those of 5.0."""

    correlation_data: bytes | None
