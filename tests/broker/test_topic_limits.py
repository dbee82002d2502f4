"""Topics and topic filters that are too long, or have too many levels."""

import pytest

from holdfast.broker.limits import Limits
from holdfast.message import Properties
from holdfast.protocol.packets import Will
from tests.broker.world import Client, World

DEEP, LONG = "a/b/c/d", "x" * 21  # four levels; one byte too many


@pytest.fixture
def world() -> World:
    return World(Limits(topic_levels_max=3, topic_bytes_max=20))


def last(client: Client) -> list[str]:
    return client.received()


@pytest.mark.parametrize("topic", [DEEP, LONG, "/" * 3, "ä" * 11])
def test_a_publish_beyond_the_bound_is_refused_and_the_client_stays(
    world: World, topic: str
) -> None:
    client = world.transient("c")
    for packet_id in (1, 3):  # each time, not only the first
        client.publish(topic, "x", 1, packet_id)
        client.publish(topic, "x", 2, packet_id + 1)
        client.publish(topic, "x", 0)
    assert last(client) == [
        "PUBACK #1 0x90",
        "PUBREC #2 0x90",
        "PUBACK #3 0x90",
        "PUBREC #4 0x90",
    ]
    client.publish("a/b/c", "x", 1, 1)
    client.publish("x" * 20, "x", 1, 1)
    assert last(client) == ["PUBACK #1 0x10"] * 2
    assert world.broker.counters.refused == 6
    assert sum("PUBLISH dropped: expected a topic of" in one.text for one in world.events) == 2


@pytest.mark.parametrize("topic", [DEEP, LONG])
def test_before_5_0_it_is_closed(world: World, topic: str) -> None:
    client = world.transient("c", 4)
    client.publish(topic, "x", 1, 1)
    assert (client.received(), client.is_open) == ([], False)


def test_no_alias_leads_around_the_bound(world: World) -> None:
    client = world.transient("c")
    properties = Properties()
    properties.topic_alias = 1
    client.publish(DEEP, "x", 1, 1, properties=properties)
    assert (last(client), client.is_open) == (["DISCONNECT 0x90"], False)


@pytest.mark.parametrize("version", [4, 5])
def test_a_filter_beyond_the_bound_is_refused(world: World, version: int) -> None:
    client = world.transient("c", version)
    code = "0x8F" if version == 5 else "0x80"
    for topic_filter in (DEEP, LONG, "+/+/+/+", "a/b/c/#", "$share/g/a/b/c/d"):
        client.subscribe(topic_filter, 0)
        assert last(client) == [f"SUBACK #1 {code}"]
    for topic_filter in ("a/b/c", "a/b/#", "x" * 20, "$share/g/a/b/c"):
        client.subscribe(topic_filter, 0)
        assert last(client) == ["SUBACK #1 0x00"]
    assert world.broker.counters.refused_subscriptions == 5


@pytest.mark.parametrize("version", [4, 5])
def test_a_will_beyond_the_bound_is_refused(world: World, version: int) -> None:
    client = world.connect("c", version=version, will=Will(DEEP, b"x", 0, False, None))
    assert client.received() == (["CONNACK 0x90"] if version == 5 else [])
    assert not client.is_open


@pytest.mark.spec("MQTT5-4.3.3-10")
def test_an_exchange_that_was_open_when_the_bound_came_can_be_finished() -> None:
    world = World()
    client = world.hello("c")
    client.publish(DEEP, "x", 2, 7)
    client.cut()
    world.crash()
    world.limits.topic_levels_max = 3
    world.restart()
    client = world.hello("c")
    client.publish(DEEP, "x", 2, 7, dup=True)
    assert last(client) == ["PUBREC #7"]


def test_without_bounds_topics_are_as_the_standard_has_them() -> None:
    world = World()
    client = world.transient("c")
    client.publish("/" * 65_535, "x", 1, 1)
    assert last(client) == ["PUBACK #1 0x10"]
