"""What of a PUBLISH reaches a subscriber of MQTT 5.0, whichever way it takes through the broker."""

import pytest

from holdfast.message import Properties
from holdfast.protocol.packets import Publish
from holdfast.protocol.topics import matches
from tests.broker.world import World
from tests.spec.mqtt5 import one_publish
from tests.spec.ways import (
    ALL,
    PUBLISHED,
    QUEUED,
    RETAINED,
    SHARED,
    Asked,
    Way,
    behind,
    behind_transient,
    live_at_qos_0,
    name_of,
    retained_sent_again,
)
from tests.support.properties import properties

EVERY_WAY = pytest.mark.parametrize("way", ALL, ids=name_of)
SUBSCRIPTION_IDENTIFIER_MAX = 268_435_455

OWN: dict[str, object] = {
    "payload_format_indicator": 1,
    "content_type": "text/plain; charset=utf-8",
    "response_topic": "answer/ö",
    "correlation_data": bytes(range(256)),
    "user_properties": [("b", "1"), ("a", "2"), ("b", "1"), ("", ""), ("ö", "\ufeffx")],
}


def message(**values: object) -> Publish:
    own = properties(**values) if values else None
    return Publish("a/b", b"content", 1, packet_id=1, properties=own)


def values_of(found: Properties | None) -> dict[str, object]:
    """All properties that are there, by name."""
    if found is None:
        return {}
    everything = {name: getattr(found, name) for name in dir(found) if name[0] != "_"}
    return {name: value for name, value in everything.items() if value not in (None, [])}


@pytest.mark.spec("MQTT5-3.3.2-4")
@pytest.mark.spec("MQTT5-3.3.2-15")
@pytest.mark.spec("MQTT5-3.3.2-16")
@pytest.mark.spec("MQTT5-3.3.2-17")
@pytest.mark.spec("MQTT5-3.3.2-18")
@pytest.mark.spec("MQTT5-3.3.2-20")
@EVERY_WAY
@pytest.mark.parametrize("left_out", [None, *OWN])
def test_a_message_keeps_its_properties_as_they_were(way: Way, left_out: str | None) -> None:
    """All of them, or all but one; user properties with doubles and in their order."""
    own = {name: value for name, value in OWN.items() if name != left_out}
    (found,) = way(World(), message(**own), [Asked("a/+")], 0)
    assert values_of(found.properties) == own
    assert found.payload == b"content"


@pytest.mark.spec("MQTT5-3.3.2-4")
@EVERY_WAY
@pytest.mark.parametrize(
    "own",
    [
        {"payload_format_indicator": 0},
        {"content_type": ""},
        {"correlation_data": b""},
        {"user_properties": [("", "")]},
    ],
    ids=lambda own: next(iter(own)),
)
def test_a_property_that_is_0_or_empty_is_not_one_that_is_absent(
    way: Way, own: dict[str, object]
) -> None:
    (found,) = way(World(), message(**own), [Asked("a/+")], 0)
    assert values_of(found.properties) == own


@EVERY_WAY
def test_a_message_without_properties_gets_none(way: Way) -> None:
    (found,) = way(World(), message(), [Asked("a/+")], 0)
    assert found.properties is None


@pytest.mark.spec("MQTT5-3.3.2-3")
@EVERY_WAY
@pytest.mark.parametrize("topic_filter", ["a/b", "+/b", "#", "a/b/#"])
def test_the_topic_that_arrives_is_the_one_published_and_matches_the_filter(
    way: Way, topic_filter: str
) -> None:
    (found,) = way(World(), message(), [Asked(topic_filter), Asked("a"), Asked("+")], 0)
    assert found.topic == "a/b"
    assert matches(topic_filter, found.topic)


@pytest.mark.spec("MQTT5-3.3.2-3")
@EVERY_WAY
def test_no_other_topic_comes(way: Way) -> None:
    others = ["a", "a/b/c", "a/c", "b", "/a/b", "a/b/", "+", "+/+/+", "A/b", "a/b/+", "$a/b"]
    assert way(World(), message(), [Asked(other) for other in others], 0) == []


# --- DUP and RETAIN


@pytest.mark.spec("MQTT5-3.3.1-1")
@pytest.mark.spec("MQTT5-3.3.1-3")
@EVERY_WAY
@pytest.mark.parametrize("dup", [False, True])
def test_dup_tells_of_this_delivery_alone(way: Way, dup: bool) -> None:
    published = message()
    published.dup = dup
    (found,) = way(World(), published, [Asked("a/b")], 0)
    assert found.dup == ("sent again" in name_of(way))


@pytest.mark.spec("MQTT5-3.3.1-12")
@pytest.mark.spec("MQTT5-3.3.1-13")
@pytest.mark.parametrize("way", [*PUBLISHED, live_at_qos_0, *SHARED], ids=name_of)
@pytest.mark.parametrize("retain", [False, True])
@pytest.mark.parametrize("retain_as_published", [False, True])
def test_retain_goes_on_with_a_message_only_where_it_is_asked_for(
    way: Way, retain: bool, retain_as_published: bool
) -> None:
    published = message()
    published.retain = retain
    asked = Asked("a/b", retain_as_published=retain_as_published)
    (found,) = way(World(), published, [asked], 0)
    assert found.retain == (retain and retain_as_published)


@pytest.mark.parametrize("way", [*RETAINED, retained_sent_again], ids=name_of)
@pytest.mark.parametrize("retain_as_published", [False, True])
def test_what_a_subscribe_brings_is_marked_as_retained(way: Way, retain_as_published: bool) -> None:
    asked = Asked("a/b", retain_as_published=retain_as_published)
    (found,) = way(World(), message(), [asked], 0)
    assert found.retain


# --- overlapping subscriptions


@pytest.mark.spec("MQTT5-3.3.4-2")
@pytest.mark.parametrize("way", PUBLISHED, ids=name_of)
@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("wanted", [(0, 1, 2), (2, 1, 0), (1, 0)], ids=str)
def test_overlapping_subscriptions_bring_one_copy_at_their_highest_qos(
    way: Way, qos: int, wanted: tuple[int, ...]
) -> None:
    published = Publish("a/b", b"content", qos, packet_id=1)
    filters = ["a/b", "a/+", "#"]
    asked = [Asked(filters[number], one) for number, one in enumerate(wanted)]
    (found,) = way(World(), published, asked, 0)
    assert found.qos == min(qos, max(wanted))


@pytest.mark.spec("MQTT5-3.3.4-3")
@pytest.mark.spec("MQTT5-3.3.4-4")
@pytest.mark.parametrize("way", [*PUBLISHED, live_at_qos_0], ids=name_of)
def test_one_copy_carries_the_identifier_of_every_subscription_that_it_is_for(way: Way) -> None:
    """One of them has none, one has the same as another, one does not match."""
    asked = [
        Asked("a/b", 0, 1),
        Asked("a/+", 2, SUBSCRIPTION_IDENTIFIER_MAX),
        Asked("+/b", 1),
        Asked("#", 1, 1),
        Asked("x", 1, 7),
    ]
    own = {"content_type": "x"}
    (found,) = way(World(), message(**own), asked, 0)
    assert found.properties is not None
    identifiers = sorted(found.properties.subscription_identifiers)
    assert identifiers in ([1, 1, SUBSCRIPTION_IDENTIFIER_MAX], [1, SUBSCRIPTION_IDENTIFIER_MAX])
    assert found.properties.content_type == "x"


@pytest.mark.spec("MQTT5-3.3.4-3")
@pytest.mark.parametrize("way", [*RETAINED, retained_sent_again], ids=name_of)
@pytest.mark.parametrize("identifier", [1, 128, SUBSCRIPTION_IDENTIFIER_MAX])
def test_a_retained_message_carries_the_identifier_of_the_subscription_that_brings_it(
    way: Way, identifier: int
) -> None:
    (found,) = way(World(), message(), [Asked("a/+", 1, identifier)], 0)
    assert values_of(found.properties) == {"subscription_identifiers": [identifier]}


@pytest.mark.spec("MQTT5-3.3.4-5")
@pytest.mark.parametrize(
    "way", [way for way in PUBLISHED if way not in (behind, behind_transient)], ids=name_of
)
def test_copies_for_separate_subscriptions_carry_each_its_own_identifier(way: Way) -> None:
    """A shared subscription brings a copy apart from the one for all others of the client."""
    asked = [
        Asked("a/b", 1, 1),
        Asked("$share/g/a/b", 1, 2),
        Asked("$share/h/#", 1, 3),
        Asked("$share/i/a/+", 1),
        Asked("a/#", 1, 4),
    ]
    copies = []
    for found in way(World(), message(), asked, 0):
        own = [] if found.properties is None else found.properties.subscription_identifiers
        copies.append(sorted(own))
    assert sorted(copies) == [[], [1, 4], [2], [3]]


@EVERY_WAY
def test_the_publisher_s_subscription_identifier_is_not_known_to_others(way: Way) -> None:
    """Subscription identifiers are of the receiver alone; two receivers get each their own."""
    world = World()
    other = world.hello("other")
    other.subscribe("a/b", 1, identifier=5)
    other.packets()
    (found,) = way(world, message(), [Asked("a/b", 1, 6)], 0)
    assert values_of(found.properties) == {"subscription_identifiers": [6]}
    if other.is_open:
        _, others = one_publish(other)
        assert others.subscription_identifiers == [5]


# --- Message Expiry Interval


@pytest.mark.spec("MQTT5-3.3.2-5")
@pytest.mark.spec("MQTT5-3.3.2-6")
@pytest.mark.parametrize("way", [*QUEUED, *SHARED[1:], *RETAINED], ids=name_of)
@pytest.mark.parametrize(
    ("wait_ms", "left_s"),
    [(0, 10), (8_999, 2), (9_000, 1), (9_999, 1), (10_000, None), (10**9, None)],
)
def test_a_message_waits_no_longer_than_its_interval_and_tells_what_is_left(
    way: Way, wait_ms: int, left_s: int | None
) -> None:
    """Part of a second counts as a whole one, so what is still delivered never says 0."""
    got = way(World(), message(message_expiry_interval=10), [Asked("a/b")], wait_ms)
    if left_s is None:
        assert got == []
    else:
        (found,) = got
        assert values_of(found.properties) == {"message_expiry_interval": left_s}


@pytest.mark.spec("MQTT5-3.3.2-6")
@EVERY_WAY
@pytest.mark.parametrize("interval_s", [1, 0x7FFF_FFFF, 0xFFFF_FFFF])
def test_a_message_that_did_not_wait_has_its_whole_interval(way: Way, interval_s: int) -> None:
    (found,) = way(World(), message(message_expiry_interval=interval_s), [Asked("a/b")], 0)
    assert values_of(found.properties) == {"message_expiry_interval": interval_s}


@pytest.mark.parametrize("way", [*QUEUED, *SHARED[1:], *RETAINED], ids=name_of)
def test_a_message_without_interval_waits_for_ever(way: Way) -> None:
    (found,) = way(World(), message(), [Asked("a/b")], 10**12)
    assert found.properties is None


def test_an_interval_of_0_reaches_those_who_are_there_and_nobody_else() -> None:
    world = World()
    world.session("absent", "a/b", 1)
    client = world.transient("s")
    client.subscribe("a/b", 1)
    client.packets()
    published = message(message_expiry_interval=0)
    published.retain = True
    world.transient("p").send(published)
    _, found = one_publish(client)
    assert found.message_expiry_interval == 0
    assert world.hello("absent").received() == []
    client.subscribe("a/b", 1)
    assert client.received() == ["SUBACK #1 0x01"]


@pytest.mark.spec("MQTT5-3.3.2-5")
def test_an_expired_message_in_a_queue_holds_up_nothing() -> None:
    world = World()
    world.session("s", "a/b", 1)
    publisher = world.transient("p")
    for number, interval_s in enumerate([10, 100, 10, 100, 10], 1):
        own = properties(message_expiry_interval=interval_s)
        publisher.publish("a/b", str(number), 1, number, properties=own)
    world.advance(50_000)
    client = world.hello("s", receive_maximum=2)
    assert client.received() == ["PUBLISH a/b 2 q1 #1", "PUBLISH a/b 4 q1 #2"]


def test_an_expired_retained_message_makes_room_for_the_next() -> None:
    """Retained anew it has a new interval, and one without an interval stays."""
    world = World()
    publisher = world.transient("p")
    for payload, interval_s in (("1", 10), ("2", 10), ("3", None)):
        own = properties(message_expiry_interval=interval_s)
        publisher.publish("a/b", payload, 1, 1, retain=True, properties=own)
        world.advance(9_999)
        client = world.transient(payload)
        client.subscribe("a/b", 0)
        assert client.received() == ["SUBACK #1 0x00", f"PUBLISH a/b {payload} q0 retain"]
        world.advance(1)
        client.subscribe("a/b", 0)
        left = [] if interval_s else [f"PUBLISH a/b {payload} q0 retain"]
        assert client.received() == ["SUBACK #1 0x00", *left]
