"""Packets as data, and hypothesis strategies for every packet of every version."""

from collections.abc import Mapping
from typing import Final

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from holdfast.message import Properties
from holdfast.protocol import packets
from holdfast.protocol.packets import (
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
from holdfast.protocol.reason_codes import (
    AUTH_CODES,
    CONNACK_CODES,
    CONNACK_RETURN_CODES,
    DISCONNECT_CODES,
    PUBACK_CODES,
    PUBREL_CODES,
    SUBACK_CODES,
    SUBACK_RETURN_CODES,
    UNSUBACK_CODES,
)

VERSIONS: Final = (packets.MQTT_3_1, packets.MQTT_3_1_1, packets.MQTT_5_0)

_ACK: Final = ("packet_id", "reason_code", "properties")
_REASON: Final = ("reason_code", "properties")

# The fields of each class: compiled ones have no __dict__ to look into.
FIELDS: Final[dict[type, tuple[str, ...]]] = {
    Connect: (
        "client_id",
        "version",
        "clean_start",
        "keep_alive",
        "will",
        "user_name",
        "password",
        "properties",
    ),
    Will: ("topic", "payload", "qos", "retain", "properties"),
    Connack: ("session_present", *_REASON),
    Publish: ("topic", "payload", "qos", "retain", "dup", "packet_id", "properties"),
    Puback: _ACK,
    Pubrec: _ACK,
    Pubrel: _ACK,
    Pubcomp: _ACK,
    Subscribe: ("packet_id", "requests", "properties"),
    SubscriptionRequest: (
        "topic_filter",
        "qos",
        "no_local",
        "retain_as_published",
        "retain_handling",
    ),
    Suback: ("packet_id", "reason_codes", "properties"),
    Unsubscribe: ("packet_id", "topic_filters", "properties"),
    Unsuback: ("packet_id", "reason_codes", "properties"),
    Pingreq: (),
    Pingresp: (),
    Disconnect: _REASON,
    Auth: _REASON,
    Properties: (
        "payload_format_indicator",
        "message_expiry_interval",
        "content_type",
        "response_topic",
        "correlation_data",
        "subscription_identifiers",
        "session_expiry_interval",
        "assigned_client_identifier",
        "server_keep_alive",
        "authentication_method",
        "authentication_data",
        "request_problem_information",
        "will_delay_interval",
        "request_response_information",
        "response_information",
        "server_reference",
        "reason_string",
        "receive_maximum",
        "topic_alias_maximum",
        "topic_alias",
        "maximum_qos",
        "retain_available",
        "user_properties",
        "maximum_packet_size",
        "wildcard_subscription_available",
        "subscription_identifier_available",
        "shared_subscription_available",
    ),
}


def plain(value: object) -> object:
    """A packet, property set or field as plain data that can be compared and shown."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    fields = FIELDS.get(type(value))
    if fields is None:
        return value
    described = {name: plain(getattr(value, name)) for name in fields}
    if isinstance(value, Packet) and not isinstance(value, Will):
        described["type"] = type(value).__name__.upper()
    return described


def spare(described: object) -> object:
    """Plain data as the vectors write it: without empty fields, and with bytes in hex."""
    if isinstance(described, bytes):
        return described.hex(" ")
    if isinstance(described, list | tuple):
        return [spare(item) for item in described]
    if not isinstance(described, dict):
        return described
    keeps_zero = "user_properties" in described  # in a property set 0 differs from absent
    spared = {name: spare(value) for name, value in described.items()}
    return {
        name: value
        for name, value in spared.items()
        if value is not None and value != [] and (keeps_zero or value not in (0, False))
    }


# What may stand in each packet, written down here a second time and by packet: the code has it by
# property.
_MESSAGE: Final = (
    "payload_format_indicator",
    "message_expiry_interval",
    "content_type",
    "response_topic",
    "correlation_data",
    "user_properties",
)
_OPENING: Final = (
    "session_expiry_interval",
    "receive_maximum",
    "maximum_packet_size",
    "topic_alias_maximum",
    "user_properties",
    "authentication_method",
    "authentication_data",
)
_RESULT: Final = ("reason_string", "user_properties")

PROPERTIES_OF: Final[Mapping[str, tuple[str, ...]]] = {
    "CONNECT": (*_OPENING, "request_response_information", "request_problem_information"),
    "WILL": (*_MESSAGE, "will_delay_interval"),
    "CONNACK": (
        *_OPENING,
        "maximum_qos",
        "retain_available",
        "assigned_client_identifier",
        "reason_string",
        "wildcard_subscription_available",
        "subscription_identifier_available",
        "shared_subscription_available",
        "server_keep_alive",
        "response_information",
        "server_reference",
    ),
    "PUBLISH": (*_MESSAGE, "topic_alias", "subscription_identifiers"),
    "PUBACK": _RESULT,
    "PUBREC": _RESULT,
    "PUBREL": _RESULT,
    "PUBCOMP": _RESULT,
    "SUBSCRIBE": ("subscription_identifiers", "user_properties"),
    "SUBACK": _RESULT,
    "UNSUBSCRIBE": ("user_properties",),
    "UNSUBACK": _RESULT,
    "DISCONNECT": ("session_expiry_interval", "server_reference", *_RESULT),
    "AUTH": ("authentication_method", "authentication_data", *_RESULT),
}

_letters: Final = st.characters(codec="utf-8", exclude_characters="\0")
_level_letters: Final = st.characters(codec="utf-8", exclude_characters="\0/+#")

bits: Final = st.integers(0, 1)
qos_levels: Final = st.integers(0, 2)
packet_ids: Final = st.integers(1, 65_535)
u16s: Final = st.integers(0, 65_535)
u32s: Final = st.integers(0, 4_294_967_295)
texts: Final = st.text(_letters, max_size=12)
datas: Final = st.binary(max_size=12)
payloads: Final = st.one_of(st.binary(max_size=40), st.binary(min_size=100, max_size=300))
_level_texts: Final = st.one_of(
    st.sampled_from(["", "a", "b", "$a"]), st.text(_level_letters, max_size=4)
)

topic_names: Final = st.lists(_level_texts, min_size=1, max_size=5).map("/".join).filter(bool)


@st.composite
def _plain_filters(draw: st.DrawFn) -> str:
    levels = draw(st.lists(st.one_of(st.just("+"), _level_texts), max_size=4))
    if not levels or draw(st.booleans()):
        levels.append("#")
    return "/".join(levels) or "+"


plain_filters: Final = _plain_filters()
share_names: Final = st.text(_level_letters, min_size=1, max_size=4)
shared_filters: Final = st.builds("$share/{}/{}".format, share_names, plain_filters)
topic_filters: Final = st.one_of(plain_filters, shared_filters)

_VALUES: Final[Mapping[str, SearchStrategy[object]]] = {
    "payload_format_indicator": bits,
    "message_expiry_interval": u32s,
    "content_type": texts,
    "response_topic": topic_names,
    "correlation_data": datas,
    "subscription_identifiers": st.lists(st.integers(1, 268_435_455), min_size=1, max_size=3),
    "session_expiry_interval": u32s,
    "assigned_client_identifier": texts,
    "server_keep_alive": u16s,
    "authentication_method": texts,
    "authentication_data": datas,
    "request_problem_information": bits,
    "will_delay_interval": u32s,
    "request_response_information": bits,
    "response_information": texts,
    "server_reference": texts,
    "reason_string": texts,
    "receive_maximum": st.integers(1, 65_535),
    "topic_alias_maximum": u16s,
    "topic_alias": st.integers(1, 65_535),
    "maximum_qos": bits,
    "retain_available": bits,
    "user_properties": st.lists(st.tuples(texts, texts), min_size=1, max_size=3),
    "maximum_packet_size": st.integers(1, 4_294_967_295),
    "wildcard_subscription_available": bits,
    "subscription_identifier_available": bits,
    "shared_subscription_available": bits,
}


@st.composite
def properties_of(draw: st.DrawFn, where: str, version: int = 5) -> Properties | None:
    """A property set that may stand in a packet, None where it is empty or before 5.0."""
    if version < packets.MQTT_5_0:
        return None
    names = draw(st.sets(st.sampled_from(PROPERTIES_OF[where])))
    if not names:
        return None
    if "authentication_data" in names:
        names.add("authentication_method")
    properties = Properties()
    for name in sorted(names):
        value = draw(_VALUES[name])
        if where == "SUBSCRIBE" and isinstance(value, list) and name != "user_properties":
            value = value[:1]
        setattr(properties, name, value)
    return properties


@st.composite
def publishes(draw: st.DrawFn, version: int) -> Publish:
    """Any valid PUBLISH."""
    qos = draw(qos_levels)
    properties = draw(properties_of("PUBLISH", version))
    topics = topic_names
    if properties is not None and properties.topic_alias is not None:
        topics = st.one_of(topic_names, st.just(""))
    return Publish(
        draw(topics),
        draw(payloads),
        qos,
        draw(st.booleans()),
        qos > 0 and draw(st.booleans()),
        draw(packet_ids) if qos > 0 else 0,
        properties,
    )


@st.composite
def connects(draw: st.DrawFn, version: int) -> Connect:
    """Any valid CONNECT."""
    wills = st.builds(
        Will, topic_names, datas, qos_levels, st.booleans(), properties_of("WILL", version)
    )
    user_name = draw(st.none() | texts)
    has_password = user_name is not None or version >= packets.MQTT_5_0
    return Connect(
        draw(texts),
        version,
        draw(st.booleans()),
        draw(u16s),
        draw(st.none() | wills),
        user_name,
        draw(st.none() | datas) if has_password else None,
        draw(properties_of("CONNECT", version)),
    )


@st.composite
def connacks(draw: st.DrawFn, version: int) -> Connack:
    """Any valid CONNACK."""
    codes = CONNACK_CODES if version >= packets.MQTT_5_0 else CONNACK_RETURN_CODES
    code = draw(st.sampled_from(sorted(codes)))
    present = code == 0 and version > packets.MQTT_3_1 and draw(st.booleans())
    return Connack(present, code, draw(properties_of("CONNACK", version)))


@st.composite
def subscription_requests(draw: st.DrawFn, version: int) -> SubscriptionRequest:
    """One topic filter with any valid options."""
    topic_filter = draw(topic_filters)
    if version < packets.MQTT_5_0:
        return SubscriptionRequest(topic_filter, draw(qos_levels))
    return SubscriptionRequest(
        topic_filter,
        draw(qos_levels),
        not topic_filter.startswith("$share/") and draw(st.booleans()),
        draw(st.booleans()),
        draw(st.integers(0, 2)),
    )


def subscribes(version: int) -> SearchStrategy[Subscribe]:
    """Any valid SUBSCRIBE."""
    requests = st.lists(subscription_requests(version), min_size=1, max_size=4)
    return st.builds(Subscribe, packet_ids, requests, properties_of("SUBSCRIBE", version))


def subacks(version: int) -> SearchStrategy[Suback]:
    """Any valid SUBACK."""
    codes = SUBACK_CODES if version >= packets.MQTT_5_0 else SUBACK_RETURN_CODES
    return st.builds(Suback, packet_ids, _codes(codes), properties_of("SUBACK", version))


def unsubscribes(version: int) -> SearchStrategy[Unsubscribe]:
    """Any valid UNSUBSCRIBE."""
    filters = st.lists(topic_filters, min_size=1, max_size=4)
    return st.builds(Unsubscribe, packet_ids, filters, properties_of("UNSUBSCRIBE", version))


def unsubacks(version: int) -> SearchStrategy[Unsuback]:
    """Any valid UNSUBACK."""
    codes = _codes(UNSUBACK_CODES) if version >= packets.MQTT_5_0 else st.just([])
    return st.builds(Unsuback, packet_ids, codes, properties_of("UNSUBACK", version))


def acknowledgements(version: int) -> SearchStrategy[Packet]:
    """Any valid PUBACK, PUBREC, PUBREL or PUBCOMP."""
    return st.one_of(
        st.builds(Puback, packet_ids, _code(PUBACK_CODES, version), _result("PUBACK", version)),
        st.builds(Pubrec, packet_ids, _code(PUBACK_CODES, version), _result("PUBREC", version)),
        st.builds(Pubrel, packet_ids, _code(PUBREL_CODES, version), _result("PUBREL", version)),
        st.builds(Pubcomp, packet_ids, _code(PUBREL_CODES, version), _result("PUBCOMP", version)),
    )


def disconnects(version: int) -> SearchStrategy[Disconnect]:
    """Any valid DISCONNECT."""
    return st.builds(Disconnect, _code(DISCONNECT_CODES, version), _result("DISCONNECT", version))


@st.composite
def auths(draw: st.DrawFn) -> Auth:
    """Any valid AUTH."""
    properties = draw(properties_of("AUTH"))
    if properties is None:
        return Auth()
    if properties.authentication_method is None:
        properties.authentication_method = draw(texts)
    return Auth(draw(st.sampled_from(sorted(AUTH_CODES))), properties)


def any_packets(version: int) -> SearchStrategy[Packet]:
    """Any valid packet of a version, from either side."""
    strategies: list[SearchStrategy[Packet]] = [
        publishes(version),
        acknowledgements(version),
        connects(version),
        connacks(version),
        subscribes(version),
        subacks(version),
        unsubscribes(version),
        unsubacks(version),
        disconnects(version),
        st.builds(Pingreq),
        st.builds(Pingresp),
    ]
    if version >= packets.MQTT_5_0:
        strategies.append(auths())
    return st.one_of(strategies)


def _code(codes: frozenset[int], version: int) -> SearchStrategy[int]:
    return st.sampled_from(sorted(codes)) if version >= packets.MQTT_5_0 else st.just(0)


def _codes(codes: frozenset[int]) -> SearchStrategy[list[int]]:
    return st.lists(st.sampled_from(sorted(codes)), min_size=1, max_size=4)


def _result(where: str, version: int) -> SearchStrategy[Properties | None]:
    return properties_of(where, version)
