"""What a server allows on a connection, as its CONNACK says. Source: MQTT 5.0 §3.2.2.3."""

from typing import final

from mypy_extensions import i64

from holdfast.message import Properties
from holdfast.protocol.framer import PACKET_BYTES_MAX
from holdfast.protocol.packets import MQTT_5_0


@final
class ServerLimits:
    """The bounds of one connection; before 5.0 those that the version implies.

    ``receive_maximum`` counts messages, ``packet_bytes_max`` bytes with the fixed header.
    """

    def __init__(self, version: int, properties: Properties | None = None) -> None:
        self.version: i64 = version
        self.receive_maximum: i64 = 65_535
        self.maximum_qos: i64 = 2
        self.is_retain_available = True
        self.packet_bytes_max: i64 = PACKET_BYTES_MAX
        self.aliases_max: i64 = 0
        self.has_wildcards = True
        self.has_subscription_identifiers = version >= MQTT_5_0
        self.has_shared_subscriptions = True  # before 5.0 a server cannot say that it has none
        if properties is None:
            return
        if properties.receive_maximum is not None:
            self.receive_maximum = properties.receive_maximum
        if properties.maximum_qos is not None:
            self.maximum_qos = properties.maximum_qos
        if properties.maximum_packet_size is not None:
            self.packet_bytes_max = properties.maximum_packet_size
        if properties.topic_alias_maximum is not None:
            self.aliases_max = properties.topic_alias_maximum
        self.is_retain_available = properties.retain_available != 0
        self.has_wildcards = properties.wildcard_subscription_available != 0
        self.has_subscription_identifiers = properties.subscription_identifier_available != 0
        self.has_shared_subscriptions = properties.shared_subscription_available != 0
