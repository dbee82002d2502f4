"""One class per control packet, for MQTT 3.1, 3.1.1 and 5.0 alike.

A field that a version does not have keeps its default there: ``properties`` is None outside 5.0,
and None also stands for an empty property set. Source: MQTT 5.0 §3, MQTT 3.1.1 §3.
"""

from typing import Final, final

from mypy_extensions import mypyc_attr

from holdfast.message import Properties

CONNECT: Final = 1
CONNACK: Final = 2
PUBLISH: Final = 3
PUBACK: Final = 4
PUBREC: Final = 5
PUBREL: Final = 6
PUBCOMP: Final = 7
SUBSCRIBE: Final = 8
SUBACK: Final = 9
UNSUBSCRIBE: Final = 10
UNSUBACK: Final = 11
PINGREQ: Final = 12
PINGRESP: Final = 13
DISCONNECT: Final = 14
AUTH: Final = 15

PACKET_NAMES: Final = (
    "reserved",
    "CONNECT",
    "CONNACK",
    "PUBLISH",
    "PUBACK",
    "PUBREC",
    "PUBREL",
    "PUBCOMP",
    "SUBSCRIBE",
    "SUBACK",
    "UNSUBSCRIBE",
    "UNSUBACK",
    "PINGREQ",
    "PINGRESP",
    "DISCONNECT",
    "AUTH",
)

MQTT_3_1: Final = 3
MQTT_3_1_1: Final = 4
MQTT_5_0: Final = 5
VERSION_NAMES: Final = {MQTT_3_1: "3.1", MQTT_3_1_1: "3.1.1", MQTT_5_0: "5.0"}


@mypyc_attr(acyclic=True)
class Packet:
    """The common root of all control packets."""


@final
class Will(Packet):
    """The will of a CONNECT. ``properties`` holds the Will Properties, delay included."""

    def __init__(
        self,
        topic: str,
        payload: bytes,
        qos: int = 0,
        retain: bool = False,
        properties: Properties | None = None,
    ) -> None:
        self.topic = topic
        self.payload = payload
        self.qos = qos
        self.retain = retain
        self.properties = properties


@final
class Connect(Packet):
    """CONNECT. ``keep_alive`` is in seconds; ``clean_start`` is Clean Session before 5.0."""

    def __init__(
        self,
        client_id: str,
        version: int = MQTT_5_0,
        clean_start: bool = True,
        keep_alive: int = 60,
        will: Will | None = None,
        user_name: str | None = None,
        password: bytes | None = None,
        properties: Properties | None = None,
    ) -> None:
        self.client_id = client_id
        self.version = version
        self.clean_start = clean_start
        self.keep_alive = keep_alive
        self.will = will
        self.user_name = user_name
        self.password = password
        self.properties = properties


@final
class Connack(Packet):
    """CONNACK. ``reason_code`` is the return code (0 to 5) before 5.0."""

    def __init__(
        self, session_present: bool, reason_code: int, properties: Properties | None = None
    ) -> None:
        self.session_present = session_present
        self.reason_code = reason_code
        self.properties = properties


@final
@mypyc_attr(acyclic=True)
class Publish(Packet):
    """PUBLISH. ``packet_id`` is 0 exactly at QoS 0; ``topic`` is empty only with an alias.

    ``property_bytes`` is what the properties were decoded from, without their length; whoever
    changes them sets it to b"".
    """

    def __init__(
        self,
        topic: str,
        payload: bytes,
        qos: int = 0,
        retain: bool = False,
        dup: bool = False,
        packet_id: int = 0,
        properties: Properties | None = None,
    ) -> None:
        self.topic = topic
        self.payload = payload
        self.qos = qos
        self.retain = retain
        self.dup = dup
        self.packet_id = packet_id
        self.properties = properties
        self.property_bytes = b""


@final
class Puback(Packet):
    """PUBACK; before 5.0 ``reason_code`` is always 0."""

    def __init__(
        self, packet_id: int, reason_code: int = 0, properties: Properties | None = None
    ) -> None:
        self.packet_id = packet_id
        self.reason_code = reason_code
        self.properties = properties


@final
class Pubrec(Packet):
    """PUBREC; before 5.0 ``reason_code`` is always 0."""

    def __init__(
        self, packet_id: int, reason_code: int = 0, properties: Properties | None = None
    ) -> None:
        self.packet_id = packet_id
        self.reason_code = reason_code
        self.properties = properties


@final
class Pubrel(Packet):
    """PUBREL; before 5.0 ``reason_code`` is always 0."""

    def __init__(
        self, packet_id: int, reason_code: int = 0, properties: Properties | None = None
    ) -> None:
        self.packet_id = packet_id
        self.reason_code = reason_code
        self.properties = properties


@final
class Pubcomp(Packet):
    """PUBCOMP; before 5.0 ``reason_code`` is always 0."""

    def __init__(
        self, packet_id: int, reason_code: int = 0, properties: Properties | None = None
    ) -> None:
        self.packet_id = packet_id
        self.reason_code = reason_code
        self.properties = properties


@final
class SubscriptionRequest:
    """One topic filter of a SUBSCRIBE with its options; only ``qos`` exists before 5.0."""

    def __init__(
        self,
        topic_filter: str,
        qos: int = 0,
        no_local: bool = False,
        retain_as_published: bool = False,
        retain_handling: int = 0,
    ) -> None:
        self.topic_filter = topic_filter
        self.qos = qos
        self.no_local = no_local
        self.retain_as_published = retain_as_published
        self.retain_handling = retain_handling


@final
class Subscribe(Packet):
    """SUBSCRIBE with at least one topic filter."""

    def __init__(
        self,
        packet_id: int,
        requests: list[SubscriptionRequest],
        properties: Properties | None = None,
    ) -> None:
        self.packet_id = packet_id
        self.requests = requests
        self.properties = properties


@final
class Suback(Packet):
    """SUBACK; ``reason_codes`` in the order of the topic filters."""

    def __init__(
        self, packet_id: int, reason_codes: list[int], properties: Properties | None = None
    ) -> None:
        self.packet_id = packet_id
        self.reason_codes = reason_codes
        self.properties = properties


@final
class Unsubscribe(Packet):
    """UNSUBSCRIBE with at least one topic filter."""

    def __init__(
        self, packet_id: int, topic_filters: list[str], properties: Properties | None = None
    ) -> None:
        self.packet_id = packet_id
        self.topic_filters = topic_filters
        self.properties = properties


@final
class Unsuback(Packet):
    """UNSUBACK; ``reason_codes`` is empty before 5.0."""

    def __init__(
        self, packet_id: int, reason_codes: list[int], properties: Properties | None = None
    ) -> None:
        self.packet_id = packet_id
        self.reason_codes = reason_codes
        self.properties = properties


@final
class Pingreq(Packet):
    """PINGREQ."""


@final
class Pingresp(Packet):
    """PINGRESP."""


@final
class Disconnect(Packet):
    """DISCONNECT; before 5.0 only the client sends it and ``reason_code`` is always 0."""

    def __init__(self, reason_code: int = 0, properties: Properties | None = None) -> None:
        self.reason_code = reason_code
        self.properties = properties


@final
class Auth(Packet):
    """AUTH, of 5.0 only."""

    def __init__(self, reason_code: int = 0, properties: Properties | None = None) -> None:
        self.reason_code = reason_code
        self.properties = properties
