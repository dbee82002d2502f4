"""What holds for all connections of one listener."""

from typing import Final, final

from holdfast.broker.limits import Limits
from holdfast.protocol.packets import MQTT_3_1, MQTT_3_1_1, MQTT_5_0

ALL_VERSIONS: Final = frozenset({MQTT_3_1, MQTT_3_1_1, MQTT_5_0})


@final
class PublishLimits:
    """How fast one client may publish, 0 for no limit: so much per second, with a burst at once.

    Who is above it is slowed down, and disconnected after ``patience_ms`` of that; 0 for never.
    """

    def __init__(
        self,
        messages_per_s: int = 0,
        messages_burst: int = 1,
        bytes_per_s: int = 0,
        bytes_burst: int = 1,
        patience_ms: int = 0,
    ) -> None:
        self.messages_per_s = messages_per_s
        self.messages_burst = messages_burst
        self.bytes_per_s = bytes_per_s
        self.bytes_burst = bytes_burst
        self.patience_ms = patience_ms


@final
class ListenerRules:
    """The part of the limits that each listener has for itself. Sizes in bytes.

    ``connect_bytes_max`` bounds what comes before CONNACK. ``auth_methods`` are the
    Authentication Methods of the authenticator that answers for this listener; with None there
    is none, and anyone may connect.
    """

    def __init__(
        self,
        name: str,
        packet_bytes_max: int,
        connect_bytes_max: int,
        keep_alive_min_s: int = 0,
        keep_alive_max_s: int = 0,
        versions: frozenset[int] = ALL_VERSIONS,
        auth_methods: frozenset[str] | None = None,
        publish_limits: PublishLimits | None = None,
    ) -> None:
        self.name = name
        self.packet_bytes_max = packet_bytes_max
        self.connect_bytes_max = connect_bytes_max
        self.keep_alive_min_s = keep_alive_min_s  # 0: none
        self.keep_alive_max_s = keep_alive_max_s  # 0: none
        self.versions = versions
        self.auth_methods = auth_methods
        self.publish_limits = publish_limits

    def keep_alive_s(self, asked_s: int) -> int:
        """The keep alive that holds where a client asks for this one; 0 is none at all."""
        if self.keep_alive_max_s > 0 and (asked_s == 0 or asked_s > self.keep_alive_max_s):
            return self.keep_alive_max_s
        if 0 < asked_s < self.keep_alive_min_s:
            return self.keep_alive_min_s
        return asked_s


def common_rules(limits: Limits) -> ListenerRules:
    """The rules of a listener that has nothing of its own."""
    size = limits.packet_bytes_max
    return ListenerRules("", size, size, keep_alive_max_s=limits.keep_alive_max_s)
