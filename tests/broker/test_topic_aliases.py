"""Topic Aliases, in both directions. Source: MQTT 5.0 §3.3.2.3.4."""

import pytest

from holdfast.broker.limits import ALIASES_OUT_MAX, Limits
from holdfast.message import Properties
from holdfast.protocol.packets import Connack, Publish
from tests.broker.world import Client, World


def alias(number: int) -> Properties:
    properties = Properties()
    properties.topic_alias = number
    return properties


def taking(maximum: int) -> Properties:
    """The properties of a CONNECT whose client takes so many aliases."""
    properties = Properties()
    properties.topic_alias_maximum = maximum
    return properties


def watcher(world: World, topic_filter: str = "#", qos: int = 0, version: int = 5) -> Client:
    client = world.transient("w", version)
    client.subscribe(topic_filter, qos)
    client.packets()
    return client


# From a client.


@pytest.mark.parametrize(("maximum", "announced"), [(0, None), (1, 1), (65_535, 65_535)])
def test_connack_says_how_many_aliases_there_are(maximum: int, announced: int | None) -> None:
    world = World(Limits(topic_alias_maximum=maximum))
    (connack,) = world.connect("c").packets()
    assert isinstance(connack, Connack)
    assert connack.properties is not None
    assert connack.properties.topic_alias_maximum == announced


@pytest.mark.spec("MQTT5-3.3.2-12")
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("version", [4, 5])
def test_an_alias_stands_for_its_topic(qos: int, version: int) -> None:
    world = World(Limits(topic_alias_maximum=3))
    subscriber = watcher(world, version=version)
    client = world.transient("c")
    for number in (1, 2, 3):
        client.publish(f"t/{number}", "set", qos, number if qos else 0, properties=alias(number))
    for number in (3, 1, 2):
        client.publish("", "used", qos, number + 10 if qos else 0, properties=alias(number))
    client.publish("t/4", "set", qos, 20 if qos else 0, properties=alias(2))
    client.publish("", "used", qos, 21 if qos else 0, properties=alias(2))
    topics = ["t/1 set", "t/2 set", "t/3 set", "t/3 used", "t/1 used", "t/2 used"]
    topics += ["t/4 set", "t/4 used"]
    assert subscriber.received() == [f"PUBLISH {topic} q0" for topic in topics]


def test_an_alias_is_not_handed_on_and_other_properties_are() -> None:
    world = World()
    subscriber = watcher(world)
    client = world.transient("c")
    first = alias(7)
    first.user_properties = [("k", "v")]
    client.publish("t", "1", properties=first)
    client.publish("", "2", properties=alias(7))
    one, two = subscriber.packets()
    assert isinstance(one, Publish)
    assert one.properties is not None
    assert one.properties.topic_alias is None
    assert one.properties.user_properties == [("k", "v")]
    assert isinstance(two, Publish)
    assert two.properties is None


@pytest.mark.spec("MQTT5-3.3.2-8")
@pytest.mark.spec("MQTT5-3.3.2-9")
@pytest.mark.spec("MQTT5-3.2.2-17", "MQTT5-3.2.2-18")
@pytest.mark.parametrize(("maximum", "number"), [(0, 1), (2, 3), (64, 65_535), (64, 0)])
def test_an_alias_out_of_bounds_ends_the_connection(maximum: int, number: int) -> None:
    world = World(Limits(topic_alias_maximum=maximum))
    subscriber = watcher(world)
    client = world.transient("c")
    # PUBLISH t x, with a Topic Alias that our own encoder would not write.
    client.send_bytes(b"\x30\x08\x00\x01t\x03\x23" + number.to_bytes(2, "big") + b"x")
    assert client.received() == ["DISCONNECT 0x94"]
    assert not client.is_open
    assert subscriber.received() == []


def test_an_unknown_alias_is_a_protocol_error() -> None:
    world = World()
    client = world.transient("c")
    client.publish("t", "x", properties=alias(1))
    client.publish("", "x", properties=alias(2))
    assert client.received() == ["DISCONNECT 0x82"]


@pytest.mark.spec("MQTT5-3.3.2-7")
def test_aliases_end_with_the_connection() -> None:
    world = World()
    client = world.hello("c")
    client.publish("t", "x", properties=alias(1))
    client.disconnect()
    client = world.hello("c")
    client.publish("", "x", properties=alias(1))
    assert client.received() == ["DISCONNECT 0x82"]


def test_aliases_belong_to_one_connection() -> None:
    world = World()
    world.transient("a").publish("t", "x", properties=alias(1))
    other = world.transient("b")
    other.publish("", "x", properties=alias(1))
    assert other.received() == ["DISCONNECT 0x82"]


def test_a_repeated_publish_sets_its_alias() -> None:
    """After a reconnect the repeat is all that names the topic: the alias is of this connection."""
    world = World()
    subscriber = watcher(world)
    client = world.hello("c")
    client.publish("t", "1", 2, 5, properties=alias(1))
    client.cut()
    client = world.hello("c")
    client.publish("t", "1", 2, 5, dup=True, properties=alias(1))
    client.publish("", "2", 0, properties=alias(1))
    assert client.received() == ["PUBREC #5"]
    assert subscriber.received() == ["PUBLISH t 1 q0", "PUBLISH t 2 q0"]


def test_a_refused_publish_sets_its_alias() -> None:
    world = World()
    client = world.transient("c")
    client.publish("$SYS/x", "1", 1, 5, properties=alias(1))
    client.publish("", "1", 1, 6, properties=alias(1))
    assert client.received() == ["PUBACK #5 0x87", "PUBACK #6 0x87"]


def test_a_retained_message_is_kept_under_its_topic() -> None:
    world = World()
    client = world.transient("c")
    client.publish("a", "0", properties=alias(1))
    client.publish("", "1", retain=True, properties=alias(1))
    world.crash()
    world.restart()
    late = world.transient("w")
    late.subscribe("#", 0)
    assert late.received() == ["SUBACK #1 0x00", "PUBLISH a 1 q0 retain"]


# To a client.


@pytest.mark.spec("MQTT5-3.1.2-27")
def test_a_client_that_takes_no_alias_gets_none() -> None:
    world = World()
    for number, properties in enumerate((None, taking(0))):
        client = world.hello(f"c{number}", properties=properties)
        client.subscribe("#", 1)
        client.packets()
        for packet_id in (1, 2):
            client.publish("t", "x", 1, packet_id)
        pushed = [text for text in client.received() if text.startswith("PUBLISH")]
        assert pushed == ["PUBLISH t x q1 #1", "PUBLISH t x q1 #2"]
        client.disconnect()


@pytest.mark.spec("MQTT5-3.1.2-26")
@pytest.mark.spec("MQTT5-3.3.2-11")
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_first_come_first_served(qos: int) -> None:
    world = World()
    subscriber = world.hello("s", properties=taking(2))
    subscriber.subscribe("#", qos)
    subscriber.packets()
    client = world.transient("c")
    for number, topic in enumerate("ababca", start=1):
        client.publish(topic, "x", 2, number)
    ids = [f" #{number}" if qos else "" for number in range(7)]
    assert subscriber.received() == [
        f"PUBLISH a x q{qos}{ids[1]} alias 1",
        f"PUBLISH b x q{qos}{ids[2]} alias 2",
        f"PUBLISH x q{qos}{ids[3]} alias 1",
        f"PUBLISH x q{qos}{ids[4]} alias 2",
        f"PUBLISH c x q{qos}{ids[5]}",
        f"PUBLISH x q{qos}{ids[6]} alias 1",
    ]


@pytest.mark.spec("MQTT5-3.3.2-7")
def test_no_more_aliases_than_our_own_bound_and_none_over_a_reconnect() -> None:
    world = World()
    for _ in range(2):
        subscriber = world.hello("s", properties=taking(65_535))
        subscriber.subscribe("#", 0)
        subscriber.packets()
        client = world.transient("c")
        for number in range(1, ALIASES_OUT_MAX + 3):
            client.publish(f"topic/{number}", "x")
        expected = [
            f"PUBLISH topic/{number} x q0"
            + (f" alias {number}" if number <= ALIASES_OUT_MAX else "")
            for number in range(1, ALIASES_OUT_MAX + 3)
        ]
        assert subscriber.received() == expected
        subscriber.disconnect()


def test_an_alias_goes_with_properties_identifiers_expiry_and_retain() -> None:
    world = World()
    publisher = world.transient("p")
    sent = Properties()
    sent.message_expiry_interval = 60
    sent.content_type = "text/plain"
    publisher.publish("t", "1", 1, 1, retain=True, properties=sent)
    subscriber = world.hello("s", properties=taking(5))
    plain = world.transient("plain")
    for client in (plain, subscriber):
        client.subscribe("#", 1, identifier=9)
        client.packets()
    world.advance(10_000)
    subscriber.subscribe("t", 1, identifier=3)
    later = Properties()
    later.message_expiry_interval = 60
    later.content_type = "text/plain"
    publisher.publish("t", "2", 1, 2, properties=later)
    one, two = subscriber.publishes()
    for packet, left_s in ((one, 50), (two, 60)):
        assert packet.topic == ""
        properties = packet.properties
        assert properties is not None
        assert properties.topic_alias == 1
        assert properties.message_expiry_interval == left_s
        assert properties.content_type == "text/plain"
    assert one.properties is not None
    assert two.properties is not None
    assert (one.retain, one.properties.subscription_identifiers) == (True, [3])
    assert (two.retain, sorted(two.properties.subscription_identifiers)) == (False, [3, 9])
    # The one form that all others share has not been touched.
    (other,) = plain.packets()
    assert isinstance(other, Publish)
    assert other.properties is not None
    assert (other.topic, other.properties.topic_alias) == ("t", None)


@pytest.mark.parametrize("qos", [0, 1])
def test_an_alias_of_one_client_does_not_reach_another(qos: int) -> None:
    world = World()
    takers = [world.hello(f"s{number}", properties=taking(1 - number % 2)) for number in range(4)]
    for number, taker in enumerate(takers):
        taker.subscribe("t" if number < 2 else "#", qos)
        taker.packets()
    sent = Properties()
    sent.content_type = "text/plain"
    world.transient("p").publish("t", "x", qos, 1 if qos else 0, properties=sent)
    for number, taker in enumerate(takers):
        (packet,) = taker.packets()
        assert isinstance(packet, Publish)
        assert packet.properties is not None
        assert packet.properties.content_type == "text/plain"
        assert packet.properties.topic_alias == (None if number % 2 else 1)


@pytest.mark.parametrize("qos", [0, 1])
def test_only_a_packet_that_is_sent_sets_an_alias(qos: int) -> None:
    world = World()
    subscriber = world.hello("s", maximum_packet_size=64, properties=taking(5))
    subscriber.subscribe("#", qos)
    subscriber.packets()
    publisher = world.transient("p")
    publisher.publish("large", "x" * 64)
    publisher.publish("large", "small")
    subscriber.stall()
    publisher.publish("stalled", "x")
    subscriber.drain()
    publisher.publish("stalled", "y")
    found = subscriber.received()
    assert found == [
        "PUBLISH large small q0 alias 1",
        "PUBLISH stalled y q0 alias 2",
    ]


@pytest.mark.spec("MQTT5-3.1.2-24")
def test_an_alias_does_not_make_a_packet_too_large() -> None:
    """With its alias this packet has 66 bytes, with the alias alone 64, without 63."""
    world = World()
    subscriber = world.hello("s", maximum_packet_size=64, properties=taking(5))
    subscriber.subscribe("#", 0)
    subscriber.packets()
    publisher = world.transient("p")
    publisher.publish("ab", "x" * 56)
    publisher.publish("ab", "x" * 56)
    publisher.publish("ab", "x")
    publisher.publish("ab", "x" * 56)
    assert subscriber.received() == [
        "PUBLISH ab (56 bytes) q0",
        "PUBLISH ab (56 bytes) q0",
        "PUBLISH ab x q0 alias 1",
        "PUBLISH (56 bytes) q0 alias 1",
    ]


def test_aliases_are_right_where_packets_wait_for_the_disk() -> None:
    world = World()
    subscriber = world.hello("s", properties=taking(5))
    subscriber.subscribe("#", 1)
    subscriber.packets()
    publisher = world.transient("p")
    world.disk.hold()
    publisher.publish("t", "1", 1, 1)
    publisher.publish("t", "2", 0)
    assert subscriber.received() == []
    publisher.publish("t", "3", 1, 2)
    world.disk.sync()
    assert subscriber.received() == [
        "PUBLISH t 1 q1 #1 alias 1",
        "PUBLISH 2 q0 alias 1",
        "PUBLISH 3 q1 #2 alias 1",
    ]


@pytest.mark.spec("MQTT5-4.4.0-1")
def test_what_is_sent_again_has_its_topic() -> None:
    world = World()
    subscriber = world.hello("s", properties=taking(5))
    subscriber.subscribe("#", 1)
    publisher = world.transient("p")
    publisher.publish("t", "1", 1, 1)
    publisher.publish("t", "2", 1, 2)
    subscriber.cut()
    publisher.publish("t", "3", 1, 3)
    publisher.publish("t", "4", 1, 4)
    subscriber = world.hello("s", properties=taking(5))
    assert subscriber.received() == [
        "PUBLISH t 1 q1 #1 dup",
        "PUBLISH t 2 q1 #2 dup",
        "PUBLISH t 3 q1 #3 alias 1",
        "PUBLISH 4 q1 #4 alias 1",
    ]
