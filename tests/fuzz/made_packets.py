"""Well-formed packets of every kind, with fields that an input chooses, odd ones among them.

The fields go beyond what a broker may support (shared filters, topic aliases, AUTH, topics of the
broker's own): it has to take or to refuse them all.
"""

from collections.abc import Sequence
from typing import Final

from holdfast.message import Properties
from holdfast.protocol.packets import (
    MQTT_5_0,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    SubscriptionRequest,
    Unsuback,
    Unsubscribe,
    Will,
)
from tests.fuzz.choices import Choices

CLIENT_IDS: Final = ("a", "b", "c", "d", "", "é/+#")
TOPICS: Final = (
    "a",
    "a/b",
    "a/c",
    "b",
    "a/b/c",
    "/",
    "a//b",
    "é",
    "$s/x",
    "$SYS/broker/uptime",
    "$delayed/3/a",
    "$delayed/0/a/b",
    "$delayed/4294967295/a",
    "$delayed/x/a",
    "$delayed/3/",
    "$share/g/a",
    "$queue/a",
    "l" * 300,
)
FILTERS: Final = (
    "a",
    "a/b",
    "a/+",
    "a/#",
    "#",
    "+",
    "+/b",
    "/",
    "+/+/c",
    "$s/#",
    "$share/g/a",
    "$share/g/a/#",
    "$share/h/#",
    "$share/g/+/b",
    "$queue/a",
    "$queue/#",
    "$queue/",
    "$share/g",
    "$share//a",
    "$share/+/a",
    "$share/g/$delayed/3/a",
    "$SYS/#",
    "$SYS/broker/uptime",
    "$delayed/#",
    "$delayed/3/a",
    "a/#/b",
    "a+",
    "",
    "l" * 300,
)
SHORT_IDS: Final = 12  # the packet identifiers that clients use, so that they meet
METHODS: Final = ("PLAIN", "PLAIN", "PLAIN", "SCRAM-SHA-1", "")
EXPIRIES_S: Final = (None, 0, 1, 60, 3600, 0xFFFF_FFFE, 0xFFFF_FFFF)
ACK_CODES: Final = (0, 0, 0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99)
RELEASE_CODES: Final = (0, 0, 0x92)
LEAVE_CODES: Final = (0, 0, 0, 0x04, 0x80, 0x82, 0x93)
FAREWELL_CODES: Final = (0x8B, 0x8E, 0x9C)  # that only a server may send


def packet_id(choices: Choices) -> int:
    value = choices.byte()
    return 1 + value % SHORT_IDS if value < 250 else 65_530 + value % 6


def user_properties(choices: Choices) -> list[tuple[str, str]]:
    return [("k", str(index)) for index in range(choices.below(3))]


def connect(choices: Choices, version: int) -> Connect:
    """Any CONNECT of a version."""
    shape = choices.byte()
    client_id = choices.pick(CLIENT_IDS)
    clean = shape & 1 == 1
    will: Will | None = None
    if shape & 2:
        will = _will(choices, version)
    properties: Properties | None = None
    if version == MQTT_5_0 and shape & 4 == 0:
        properties = Properties()
        properties.session_expiry_interval = choices.pick(EXPIRIES_S)
        properties.receive_maximum = choices.pick((None, None, 1, 2, 5, 65_535))
        properties.maximum_packet_size = choices.pick((None, None, None, 1, 5, 30, 400))
        properties.topic_alias_maximum = choices.pick((None, None, 1, 3, 65_535))
        if shape & 8:
            properties.user_properties = user_properties(choices)
            properties.request_problem_information = choices.below(2)
            properties.request_response_information = choices.below(2)
        if shape & 0x30 == 0x30:
            properties.authentication_method = choices.pick(METHODS)
            properties.authentication_data = choices.binary(4)
    keep_alive = choices.pick((0, 0, 1, 30, 65_535))
    user_name = "user" if shape & 0x80 else None
    password = b"secret" if shape & 0x90 == 0x90 else None
    return Connect(client_id, version, clean, keep_alive, will, user_name, password, properties)


def _will(choices: Choices, version: int) -> Will:
    properties: Properties | None = None
    shape = choices.byte()
    if version == MQTT_5_0 and shape & 8:
        properties = Properties()
        properties.will_delay_interval = choices.pick((None, 0, 1, 30, 0xFFFF_FFFF))
        properties.message_expiry_interval = choices.pick((None, 0, 2, 0xFFFF_FFFF))
        properties.content_type = choices.pick((None, "text"))
    return Will(
        _mostly_first(choices, TOPICS),
        choices.binary(8),
        shape % 3,
        shape & 4 != 0,
        _or_none(properties),
    )


def publish(choices: Choices, version: int, number: int) -> Publish:
    """Any PUBLISH that a client may send; ``number`` marks its payload."""
    shape = choices.byte()
    qos = shape % 3
    topic = _mostly_first(choices, TOPICS)
    payload = b"%d" % number
    if shape & 0x30 == 0x30:
        payload = b"" if shape & 0x40 else payload * choices.byte()
    properties: Properties | None = None
    if version == MQTT_5_0 and shape & 8:
        properties = Properties()
        kinds = choices.byte()
        if kinds & 1:
            properties.message_expiry_interval = choices.pick((0, 1, 60, 0xFFFF_FFFF))
        if kinds & 2:
            properties.topic_alias = choices.pick((1, 2, 3, 10, 65_535))
            if kinds & 4:
                topic = ""
        if kinds & 8:
            properties.response_topic = _mostly_first(choices, TOPICS)
            properties.correlation_data = choices.binary(4)
        if kinds & 16:
            properties.user_properties = user_properties(choices)
            properties.content_type = "text"
            properties.payload_format_indicator = 1
        if kinds & 0xE0 == 0xE0:
            properties.subscription_identifiers = [1]
    return Publish(
        topic,
        payload,
        qos,
        shape & 4 != 0,
        qos > 0 and shape & 0x80 != 0,
        packet_id(choices) if qos > 0 else 0,
        _or_none(properties),
    )


def subscribe(choices: Choices, version: int) -> Subscribe:
    """Any SUBSCRIBE."""
    requests: list[SubscriptionRequest] = []
    shape = choices.byte()
    for _ in range(1 + shape % 3):
        topic_filter = _mostly_first(choices, FILTERS)
        options = choices.byte()
        is_v5 = version == MQTT_5_0
        requests.append(
            SubscriptionRequest(
                topic_filter,
                options % 3,
                is_v5 and options & 4 != 0 and not topic_filter.startswith("$"),
                is_v5 and options & 8 != 0,
                (options >> 4) % 3 if is_v5 else 0,
            )
        )
    properties: Properties | None = None
    if version == MQTT_5_0 and shape & 8:
        properties = Properties()
        properties.subscription_identifiers = [choices.pick((1, 2, 268_435_455))]
    return Subscribe(packet_id(choices), requests, properties)


def unsubscribe(choices: Choices) -> Unsubscribe:
    """Any UNSUBSCRIBE."""
    filters = [_mostly_first(choices, FILTERS) for _ in range(1 + choices.below(3))]
    return Unsubscribe(packet_id(choices), filters)


def acknowledgement(choices: Choices, version: int) -> Packet:
    """A PUBACK, PUBREC, PUBREL or PUBCOMP for whatever it may meet."""
    kind = choices.below(4)
    number = packet_id(choices)
    is_v5 = version == MQTT_5_0
    if kind < 2:
        code = choices.pick(ACK_CODES) if is_v5 else 0
        return Puback(number, code) if kind == 0 else Pubrec(number, code)
    code = choices.pick(RELEASE_CODES) if is_v5 else 0
    return Pubrel(number, code) if kind == 2 else Pubcomp(number, code)


def disconnect(choices: Choices, version: int) -> Disconnect:
    """Any DISCONNECT of a client."""
    if version < MQTT_5_0:
        return Disconnect()
    properties = Properties()
    properties.session_expiry_interval = choices.pick(EXPIRIES_S)
    return Disconnect(choices.pick(LEAVE_CODES), _or_none(properties))


def auth(choices: Choices) -> Auth:
    """Any AUTH."""
    properties = Properties()
    properties.authentication_method = choices.pick(METHODS)
    properties.authentication_data = choices.binary(8)
    return Auth(choices.pick((0x18, 0x18, 0x19, 0)), properties)


def from_a_server(choices: Choices, version: int) -> Packet:
    """A packet that only servers send."""
    kind = choices.below(5)
    if kind == 0:
        return Connack(False, 0)
    if kind == 1:
        return Suback(packet_id(choices), [0])
    if kind == 2:
        return Unsuback(packet_id(choices), [0] if version == MQTT_5_0 else [])
    if kind == 3 and version == MQTT_5_0:
        return Disconnect(choices.pick(FAREWELL_CODES))
    return Pingresp()


def any_packet(choices: Choices, version: int) -> Packet:
    """Any packet of a version, from either side."""
    kind = choices.below(12)
    if kind < 3:
        return publish(choices, version, choices.byte())
    if kind == 3:
        return connect(choices, version)
    if kind < 6:
        return subscribe(choices, version)
    if kind == 6:
        return unsubscribe(choices)
    if kind == 7:
        return acknowledgement(choices, version)
    if kind == 8:
        return disconnect(choices, version)
    if kind == 9:
        return from_a_server(choices, version)
    if kind == 10 and version == MQTT_5_0:
        return auth(choices)
    return Pingreq()


def _mostly_first(choices: Choices, items: Sequence[str]) -> str:
    """One of the items, in two of three cases one of the first few, so that clients meet."""
    value = choices.byte()
    return items[value % 5] if value < 170 else items[value % len(items)]


def _or_none(properties: Properties | None) -> Properties | None:
    """None for an empty set, as a decoder has it."""
    if properties is None or (
        properties.session_expiry_interval is None
        and properties.will_delay_interval is None
        and properties.message_expiry_interval is None
        and properties.content_type is None
        and properties.topic_alias is None
        and properties.response_topic is None
        and not properties.user_properties
        and not properties.subscription_identifiers
    ):
        return None
    return properties
