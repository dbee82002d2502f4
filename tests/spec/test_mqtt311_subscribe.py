"""MQTT 3.1.1, SUBSCRIBE, UNSUBSCRIBE and PINGREQ, and the answers to them."""

import pytest

from holdfast.broker.limits import ENDED_SUBSCRIPTIONS_MAX, Limits
from holdfast.protocol.packets import (
    Pingreq,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Subscribe,
    SubscriptionRequest,
    Unsubscribe,
)
from tests.broker.world import Client, World
from tests.support import packets
from tests.support.packets import SUBSCRIBE, UNSUBSCRIBE, V311, binary, packet


def subscribe(client: Client, packet_id: int, *filters: tuple[str, int]) -> None:
    """One SUBSCRIBE for several filters."""
    client.send(Subscribe(packet_id, [SubscriptionRequest(name, qos) for name, qos in filters]))


def say(world: World, *topics: str, qos: int = 1) -> None:
    """Publish a message to each topic, its topic for a payload."""
    source = world.transient("p", V311)
    for topic in topics:
        source.publish(topic, topic, qos, 1 if qos else 0)
        source.send_bytes(packets.acknowledge(packets.PUBREL, 1))


# --- SUBSCRIBE


@pytest.mark.spec(
    "MQTT311-2.3.1-7",
    "MQTT311-3.8.4-1",
    "MQTT311-3.8.4-2",
    "MQTT311-3.8.4-5",
    "MQTT311-3.9.3-1",
    "MQTT311-3.9.3-2",
    "MQTT311-2.2.2-1",
)
def test_each_subscribe_has_one_suback_with_a_code_for_each_filter_in_order() -> None:
    world = World()
    client = world.hello("s", version=V311)
    client.take_bytes()
    subscribe(client, 0x0102, ("a", 2), ("b", 0), ("d", 1))
    assert client.take_bytes() == bytes.fromhex("90 05 0102 02 00 01")
    subscribe(client, 65_535, ("e", 1))
    subscribe(client, 1, ("e", 1))
    assert client.take_bytes() == bytes.fromhex("90 03 ffff 01 90 03 0001 01")
    client.received()
    say(world, "a", "b", "c", "d", "e", qos=2)
    assert client.received() == [
        "PUBLISH a a q2 #1",
        "PUBLISH b b q0",
        "PUBLISH d d q1 #2",
        "PUBLISH e e q1 #3",
    ]


@pytest.mark.spec("MQTT311-3.9.3-2")
def test_a_filter_that_is_refused_has_the_failure_code_in_its_place() -> None:
    """A session that is behind may change its subscriptions only so often."""
    world = World(Limits(in_flight_max=1))
    client = world.hello("s", version=V311)
    subscribe(client, 1, ("t", 1))
    say(world, "t", "t", qos=1)
    for number in range(ENDED_SUBSCRIPTIONS_MAX):
        subscribe(client, 2, ("t", 2 - number % 2))
        say(world, "t", qos=1)
    client.take_bytes()
    subscribe(client, 3, ("t", 2))
    assert client.take_bytes() == bytes.fromhex("90 03 0003 80")


@pytest.mark.spec("MQTT311-3.8.4-4")
def test_several_filters_act_like_one_subscribe_each() -> None:
    """The same filter twice: the later one stands. Retained messages come for each filter."""
    filters = [("t", 2), ("u/+", 1), ("t", 0), ("u/#", 2)]
    outcomes = []
    for together in (True, False):
        world = World()
        world.transient("p", V311).publish("u/1", "kept", 1, 1, retain=True)
        client = world.hello("s", version=V311)
        if together:
            subscribe(client, 1, *filters)
        else:
            for one in filters:
                subscribe(client, 1, one)
        lines = client.received()
        assert sum(line.startswith("SUBACK") for line in lines) == (1 if together else 4)
        retained = [line for line in lines if line.startswith("PUBLISH")]
        for packet_id in range(1, 10):
            client.send(Puback(packet_id))
        say(world, "t", "u/1", "v", qos=2)
        live = [line.split(" #")[0] for line in client.received()]
        outcomes.append((len(retained), live))
    assert outcomes[0] == outcomes[1] == (2, ["PUBLISH t t q0", "PUBLISH u/1 u/1 q2"])


@pytest.mark.spec("MQTT311-3.8.4-3", "MQTT311-3.3.1-6")
def test_a_subscribe_for_the_same_filter_takes_its_place() -> None:
    """The new QoS counts, there is one copy and no more, and the retained message comes again."""
    world = World()
    world.transient("p", V311).publish("t", "kept", 2, 1, retain=True)
    client = world.hello("s", version=V311)
    for qos in (1, 0, 2, 1):
        client.subscribe("t", qos)
        _, retained = client.packets()
        assert isinstance(retained, Publish)
        assert (retained.payload, retained.qos, retained.retain) == (b"kept", qos, True)
        say(world, "t", qos=2)
        (live,) = client.packets()
        assert isinstance(live, Publish)
        assert (live.qos, live.retain) == (qos, False)
    client.unsubscribe("t")
    client.received()
    say(world, "t", qos=2)
    assert client.received() == []


@pytest.mark.spec(
    "MQTT311-3.8.3-1", "MQTT311-3.8.3-3", "MQTT311-3.8.3-4", "MQTT311-3.8.1-1", "MQTT311-4.8.0-1"
)
@pytest.mark.parametrize(
    "data",
    [
        *(packet(SUBSCRIBE, 2, b"\0\1" + binary("t") + bytes([code])) for code in (3, 4, 0x80)),
        packet(SUBSCRIBE, 2, b"\0\1" + binary("u") + b"\0" + binary("t") + b"\x41"),
        packet(SUBSCRIBE, 2, b"\0\1"),
        packet(SUBSCRIBE, 2, b"\0\1" + binary("t")),
        packet(SUBSCRIBE, 2, b"\0\1" + binary(b"\xff") + b"\0"),
        *(packet(SUBSCRIBE, flags, b"\0\1" + binary("t") + b"\0") for flags in (0, 1, 3, 10)),
    ],
    ids=bytes.hex,
)
def test_a_malformed_subscribe_ends_the_connection_without_an_answer(data: bytes) -> None:
    """Nor does any of its filters become a subscription."""
    world = World()
    client = world.hello("s", version=V311)
    client.send_bytes(data)
    assert client.received() == []
    assert not client.is_open
    say(world, "t", "u")
    client = world.hello("s", version=V311)
    say(world, "t", "u")
    assert client.received() == []


# --- UNSUBSCRIBE


@pytest.mark.spec("MQTT311-3.10.4-4", "MQTT311-3.10.4-5", "MQTT311-2.3.1-7", "MQTT311-2.2.2-1")
def test_each_unsubscribe_has_an_unsuback_whether_it_deletes_or_not() -> None:
    world = World()
    client = world.hello("s", version=V311)
    client.subscribe("t", 1)
    client.take_bytes()
    for packet_id in (0x0102, 65_535, 1):
        client.unsubscribe("t", packet_id)
        assert client.take_bytes() == b"\xb0\x02" + packet_id.to_bytes(2, "big")


@pytest.mark.spec("MQTT311-3.10.4-1")
@pytest.mark.parametrize("given", ["a/+", "a/b", "+/b", "A/#", "a/#", "a", "#"])
def test_an_unsubscribe_deletes_the_identical_filter_and_nothing_else(given: str) -> None:
    """It does not matter what it would match as a filter."""
    filters = ["$a/b", "a/#", "a/+", "a/b", "+/+"]
    world = World()
    client = world.hello("s", version=V311)
    subscribe(client, 1, *((name, 1) for name in filters))
    client.unsubscribe(given, 2)
    session = world.broker.sessions.find("s")
    assert session is not None
    assert sorted(session.subscriptions) == sorted(name for name in filters if name != given)


@pytest.mark.spec("MQTT311-3.10.4-2", "MQTT311-3.10.4-1")
def test_an_overlapping_filter_goes_on_after_an_unsubscribe() -> None:
    world = World()
    client = world.hello("s", version=V311)
    subscribe(client, 1, ("a/+", 1), ("a/b", 1))
    client.received()
    say(world, "a/b")
    client.unsubscribe("a/b")
    say(world, "a/b")
    client.unsubscribe("a/+")
    say(world, "a/b")
    assert client.received() == [
        "PUBLISH a/b a/b q1 #1",
        "UNSUBACK #1",
        "PUBLISH a/b a/b q1 #2",
        "UNSUBACK #1",
    ]


@pytest.mark.spec("MQTT311-3.10.4-2", "MQTT311-4.5.0-1")
def test_what_is_published_after_an_unsubscribe_is_not_queued() -> None:
    world = World()
    client = world.hello("s", version=V311)
    subscribe(client, 1, ("t", 1), ("u", 1))
    client.unsubscribe("t", 2)
    client.disconnect()
    say(world, "t", "u")
    client = world.hello("s", version=V311)
    assert client.received() == ["PUBLISH u u q1 #1"]


@pytest.mark.spec("MQTT311-3.10.4-3", "MQTT311-4.4.0-1")
def test_deliveries_in_flight_are_completed_after_an_unsubscribe() -> None:
    """QoS 1 and both halves of QoS 2, on the same connection and on the next one."""
    world = World()
    client = world.hello("s", version=V311)
    subscribe(client, 1, ("one", 1), ("two", 2), ("half", 2))
    client.received()
    say(world, "one", "two", "half", qos=2)
    assert [line.split()[1] for line in client.received()] == ["one", "two", "half"]
    client.send(Pubrec(3))
    assert client.received() == ["PUBREL #3"]
    client.send(Unsubscribe(2, ["one", "two", "half"]))
    assert client.received() == ["UNSUBACK #2"]
    world.crash()
    world.restart()
    client = world.hello("s", version=V311)
    assert sorted(client.received()) == [
        "PUBLISH one one q1 #1 dup",
        "PUBLISH two two q2 #2 dup",
        "PUBREL #3",
    ]
    client.send(Puback(1), Pubrec(2), Pubcomp(3))
    assert client.received() == ["PUBREL #2"]
    client.send(Pubcomp(2))
    client.cut()
    assert world.hello("s", version=V311).received() == []


@pytest.mark.spec("MQTT311-3.10.4-6")
def test_several_filters_act_like_one_unsubscribe_each() -> None:
    """Known, unknown and repeated ones, and one UNSUBACK."""
    world = World()
    client = world.hello("s", version=V311)
    subscribe(client, 1, ("a", 1), ("b", 1), ("c", 1))
    client.take_bytes()
    client.send(Unsubscribe(0x0A0B, ["a", "unknown", "a", "c"]))
    assert client.take_bytes() == bytes.fromhex("b0 02 0a0b")
    client.received()
    say(world, "a", "b", "c")
    assert client.received() == ["PUBLISH b b q1 #1"]


@pytest.mark.spec("MQTT311-3.10.1-1", "MQTT311-3.10.3-1", "MQTT311-3.10.3-2", "MQTT311-4.8.0-1")
@pytest.mark.parametrize(
    "data",
    [
        packet(UNSUBSCRIBE, 2, b"\0\1"),
        packet(UNSUBSCRIBE, 2, b"\0\1" + binary(b"\xff")),
        packet(UNSUBSCRIBE, 2, b"\0\1" + binary("t") + b"\0"),
        *(packet(UNSUBSCRIBE, flags, b"\0\1" + binary("t")) for flags in (0, 1, 3, 10)),
    ],
    ids=bytes.hex,
)
def test_a_malformed_unsubscribe_ends_the_connection_without_an_answer(data: bytes) -> None:
    world = World()
    client = world.hello("s", version=V311)
    client.subscribe("t", 1)
    client.received()
    client.send_bytes(data)
    assert client.received() == []
    assert not client.is_open
    client = world.hello("s", version=V311)
    say(world, "t")
    assert client.received() == ["PUBLISH t t q1 #1"]


# --- PINGREQ


@pytest.mark.spec("MQTT311-3.12.4-1", "MQTT311-2.2.2-1")
def test_each_pingreq_has_a_pingresp() -> None:
    world = World()
    client = world.hello("s", version=V311)
    client.take_bytes()
    client.send(Pingreq())
    assert client.take_bytes() == b"\xd0\x00"
    client.send(Pingreq(), Pingreq(), Pingreq())
    assert client.take_bytes() == b"\xd0\x00" * 3
