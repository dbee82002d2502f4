"""The PUBLISH packets of one message: whatever is kept of them, each is what ``encode`` says."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.broker.outgoing import Outgoing
from holdfast.broker.session import Session, Subscription, merge
from holdfast.message import Message, Properties
from holdfast.protocol.encode import encode
from holdfast.protocol.packets import MQTT_3_1_1, MQTT_5_0, Publish

SETTINGS = settings(derandomize=True, deadline=None, database=None, max_examples=200)
NOW_MS = 1_700_000_000_000
SESSION = Session(1, "c", 5, 60)

# (is_v5, qos, retain, dup, packet_id, identifiers)
Form = tuple[bool, int, bool, bool, int, list[int]]
forms = st.lists(
    st.tuples(
        st.booleans(),
        st.integers(0, 2),
        st.booleans(),
        st.booleans(),
        st.integers(1, 65_535),
        st.lists(st.integers(1, 300), max_size=3),
    ),
    min_size=1,
    max_size=12,
)


def own_properties() -> Properties:
    properties = Properties()
    properties.content_type = "text/plain"
    properties.correlation_data = b"\x00\x01"
    properties.user_properties = [("k", "v"), ("k", "w")]
    return properties


def subscription(identifiers: list[int]) -> Subscription:
    if not identifiers:
        return Subscription(SESSION, "f", 1, 0, 1)
    return merge([Subscription(SESSION, f"f{i}", 1, i, 1) for i in identifiers])


def expected(message: Message, left_s: int | None, form: Form) -> bytes:
    is_v5, qos, retain, dup, packet_id, identifiers = form
    properties: Properties | None = None
    if is_v5:
        properties = Properties() if message.properties is None else own_properties()
        properties.message_expiry_interval = left_s
        properties.subscription_identifiers = identifiers
    packet = Publish(message.topic, message.payload, qos, retain, dup, packet_id, properties)
    return encode(packet, MQTT_5_0 if is_v5 else MQTT_3_1_1)


def packet_of(outgoing: Outgoing, form: Form) -> bytes:
    is_v5, qos, retain, dup, packet_id, identifiers = form
    return outgoing.packet(subscription(identifiers), is_v5, qos, retain, dup, packet_id)


@pytest.mark.spec("MQTT5-3.3.2-6")
@pytest.mark.spec("MQTT5-3.3.4-3")
@pytest.mark.spec("MQTT5-3.3.4-4")
@SETTINGS
@given(
    forms,
    st.sampled_from([b"", b"p", bytes(200)]),
    st.booleans(),
    st.sampled_from([None, 0, 1, 60]),
)
def test_every_form_is_what_encode_says(
    wanted: list[Form], payload: bytes, has_properties: bool, left_s: int | None
) -> None:
    properties = own_properties() if has_properties else None
    expires_at_ms = 0 if left_s is None else NOW_MS + left_s * 1000
    message = Message("a/b", payload, 2, False, properties, expires_at_ms, "p")
    outgoing = Outgoing(message, NOW_MS, None, False)
    for is_v5, qos, retain, dup, packet_id, identifiers in wanted:
        form = (is_v5, qos, retain, dup and qos > 0, packet_id if qos > 0 else 0, identifiers)
        assert packet_of(outgoing, form) == expected(message, left_s, form)
    if properties is not None:
        assert properties.message_expiry_interval is None, "the message itself has changed"
        assert properties.subscription_identifiers == []


@pytest.mark.spec("MQTT5-3.3.2-6")
@pytest.mark.parametrize(
    ("waited_ms", "left_s"),
    [(0, 10), (1, 10), (999, 10), (1_000, 9), (9_000, 1), (9_999, 1), (10_000, 0), (11_000, 0)],
)
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_expiry_is_counted_down(qos: int, waited_ms: int, left_s: int) -> None:
    message = Message("a", b"p", qos, False, None, NOW_MS + 10_000)
    outgoing = Outgoing(message, NOW_MS + waited_ms, None, False)
    form: Form = (True, qos, False, False, 5 if qos > 0 else 0, [])
    assert packet_of(outgoing, form) == expected(message, left_s, form)


@pytest.mark.parametrize("set_back_ms", [0, 1, 100_000])
def test_the_longest_expiry_survives_a_clock_that_is_set_back(set_back_ms: int) -> None:
    message = Message("a", b"p", 1, False, None, NOW_MS + 0xFFFF_FFFF * 1000)
    outgoing = Outgoing(message, NOW_MS - set_back_ms, None, False)
    form: Form = (True, 1, False, False, 5, [])
    assert packet_of(outgoing, form) == expected(message, 0xFFFF_FFFF, form)


@pytest.mark.parametrize("wire_is_v5", [True, False])
def test_a_packet_goes_out_as_it_came_in_only_where_it_fits(wire_is_v5: bool) -> None:
    message = Message("a", b"p", 0, False, own_properties())
    wire = b"the packet as it came in"
    outgoing = Outgoing(message, NOW_MS, wire, wire_is_v5)
    same: Form = (wire_is_v5, 0, False, False, 0, [])
    assert packet_of(outgoing, same) == wire
    others: list[Form] = [
        (not wire_is_v5, 0, False, False, 0, []),
        (wire_is_v5, 0, True, False, 0, []),
        (wire_is_v5, 1, False, False, 9, []),
        (True, 0, False, False, 0, [3]),
    ]
    for other in others:
        assert packet_of(outgoing, other) == expected(message, None, other)
    assert packet_of(outgoing, same) == wire


def test_no_subscription_is_one_without_identifiers() -> None:
    outgoing = Outgoing(Message("a", b"p", 1, True), NOW_MS, None, False)
    for is_v5 in (True, False):
        for retain in (True, False):
            form: Form = (is_v5, 1, retain, False, 3, [])
            packet = outgoing.packet(None, is_v5, 1, retain, False, 3)
            assert packet == expected(outgoing.message, None, form)
