"""Receive Maximum in both directions: what it holds back, what it never does, what frees it.

Source: MQTT 5.0 §4.9.
"""

import pytest

from holdfast.broker.limits import Limits
from holdfast.protocol.packets import (
    Pingreq,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Subscribe,
    SubscriptionRequest,
    Unsubscribe,
)
from tests.broker.world import Client, World

CLEAN = pytest.mark.parametrize("clean", [True, False], ids=["clean", "durable"])
REFUSED = 0x80


def subscriber(world: World, *, clean: bool, receive_maximum: int | None, qos: int = 2) -> Client:
    expiry_s = 0 if clean else 3600
    client = world.hello("s", clean=clean, expiry_s=expiry_s, receive_maximum=receive_maximum)
    client.subscribe("t", qos)
    client.packets()
    return client


def publish_many(world: World, count: int, qos: int, start: int = 1) -> None:
    """``count`` messages whose payload is their number, each completed by its publisher."""
    publisher = world.transient("p")
    for number in range(start, start + count):
        publisher.publish("t", str(number), qos, number % 100 + 1)
        if qos == 2:
            publisher.send(Pubrel(number % 100 + 1))
    publisher.cut()


# What the broker sends


@pytest.mark.spec("MQTT5-4.9.0-1", "MQTT5-4.9.0-2", "MQTT5-3.3.4-9")
@CLEAN
@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("receive_maximum", [1, 2, 7, 255, 256, 65_535, None])
def test_no_more_is_sent_than_the_client_takes_unacknowledged(
    receive_maximum: int | None, qos: int, clean: bool
) -> None:
    """And never nothing: to the smallest Receive Maximum one message is sent."""
    world = World(Limits(in_flight_max=20))
    client = subscriber(world, clean=clean, receive_maximum=receive_maximum)
    publish_many(world, 30, qos)
    quota = min(receive_maximum or 65_535, 20)
    assert client.received() == [f"PUBLISH t {n} q{qos} #{n}" for n in range(1, quota + 1)]


@pytest.mark.spec("MQTT5-4.9.0-1", "MQTT5-4.9.0-2")
@pytest.mark.parametrize("receive_maximum", [1, 3])
def test_a_connection_begins_with_the_quota_of_its_own_connect(receive_maximum: int) -> None:
    """Not with that of the connection before, and what is sent again takes from it."""
    world = World()
    client = subscriber(world, clean=False, receive_maximum=5)
    publish_many(world, 9, 2)
    assert len(client.packets()) == 5
    client.cut()
    client = world.hello("s", receive_maximum=receive_maximum)
    assert client.received() == [
        f"PUBLISH t {n} q2 #{n} dup" for n in range(1, receive_maximum + 1)
    ]
    client.cut()
    client = world.hello("s", receive_maximum=7)
    again = [f"PUBLISH t {n} q2 #{n} dup" for n in range(1, 6)]
    assert client.received() == [*again, "PUBLISH t 6 q2 #6", "PUBLISH t 7 q2 #7"]


# What a client can say about its one message in flight, and whether that makes room for the next.
FREES = {
    "PUBACK": (1, [Puback(1)], True),
    "PUBACK with an error": (1, [Puback(1, REFUSED)], True),
    "PUBACK of another": (1, [Puback(2)], False),
    "PUBCOMP for QoS 1": (1, [Pubcomp(1)], False),
    "PUBREC for QoS 1": (1, [Pubrec(1)], False),
    "PUBREC": (2, [Pubrec(1)], False),
    "PUBREC twice": (2, [Pubrec(1), Pubrec(1)], False),
    "PUBREC with an error": (2, [Pubrec(1, REFUSED)], True),
    "PUBREC, then PUBREC with an error": (2, [Pubrec(1), Pubrec(1, REFUSED)], False),
    "PUBREC and PUBCOMP": (2, [Pubrec(1), Pubcomp(1)], True),
    "PUBREC and PUBCOMP with an error": (2, [Pubrec(1), Pubcomp(1, 0x92)], True),
    "PUBCOMP alone": (2, [Pubcomp(1)], False),
    "PUBACK for QoS 2": (2, [Puback(1)], False),
    "PINGREQ": (1, [Pingreq()], False),
    "UNSUBSCRIBE": (1, [Unsubscribe(9, ["t"])], False),
}


@pytest.mark.spec("MQTT5-4.9.0-2")
@CLEAN
@pytest.mark.parametrize(("qos", "answers", "frees"), FREES.values(), ids=FREES)
def test_what_makes_room_for_the_next_message(
    qos: int, answers: list[Puback | Pubrec | Pubcomp], frees: bool, clean: bool
) -> None:
    """PUBACK and PUBCOMP, whatever they say, and a PUBREC that refuses; each gives one back."""
    world = World()
    client = subscriber(world, clean=clean, receive_maximum=1)
    publish_many(world, 5, qos)
    assert client.received() == [f"PUBLISH t 1 q{qos} #1"]
    client.send(*answers)
    found = [one for one in client.received() if one.startswith("PUBLISH")]
    assert found == ([f"PUBLISH t 2 q{qos} #2"] if frees else [])
    client.send(*answers)  # a second time they are about nothing in flight
    assert [one for one in client.received() if one.startswith("PUBLISH")] == []


@pytest.mark.spec("MQTT5-4.9.0-3")
@CLEAN
def test_without_quota_everything_else_is_still_answered(clean: bool) -> None:
    """Two messages fill the window, one of them is at PUBREL. All other packets go on, QoS 0
    messages to the client among them.
    """
    world = World()
    client = subscriber(world, clean=clean, receive_maximum=2)
    publish_many(world, 5, 2)
    client.send(Pubrec(1))
    assert client.received() == ["PUBLISH t 1 q2 #1", "PUBLISH t 2 q2 #2", "PUBREL #1"]
    client.send(Pingreq())
    client.send(Subscribe(3, [SubscriptionRequest("other", 0)]))
    client.send(Publish("other", b"of QoS 0"))
    client.send(Publish("other", b"of QoS 1", 1, packet_id=4))
    client.send(Publish("other", b"of QoS 2", 2, packet_id=5))
    client.send(Pubrel(5))
    client.send(Unsubscribe(6, ["other"]))
    client.send(Pubrec(2))
    assert client.received() == [
        "PINGRESP",
        "SUBACK #3 0x00",
        "PUBLISH other of QoS 0 q0",
        "PUBLISH other of QoS 1 q0",
        "PUBACK #4",
        "PUBLISH other of QoS 2 q0",
        "PUBREC #5",
        "PUBCOMP #5",
        "UNSUBACK #6 0x00",
        "PUBREL #2",
    ]


@pytest.mark.spec("MQTT5-4.9.0-2")
@CLEAN
@pytest.mark.parametrize("qos", [1, 2])
def test_the_quota_is_one_for_all_that_can_be_sent(clean: bool, qos: int) -> None:
    """Messages of several subscriptions, live and retained, and of both QoS count together."""
    world = World()
    publisher = world.transient("other")
    publisher.publish("r/1", "retained", 2, 1, retain=True)
    publisher.publish("r/2", "retained", 1, 2, retain=True)
    client = subscriber(world, clean=clean, receive_maximum=3)
    publish_many(world, 1, qos)
    client.subscribe("u", 1)
    publisher.publish("u", "live", 1, 3)
    client.subscribe("r/#", 2)
    publisher.publish("u", "later", 1, 4)
    in_flight = [one.packet_id for one in client.publishes()]
    assert len(in_flight) == 3
    found = 0
    while in_flight:
        packet_id = in_flight.pop()
        client.send(Puback(packet_id), Pubrec(packet_id, REFUSED))
        new = [one.packet_id for one in client.publishes()]
        assert len(new) <= 1
        found += len(new)
        in_flight += new
    assert found == 2


# What the broker takes


@pytest.mark.spec("MQTT5-3.3.4-7")
@CLEAN
def test_what_gives_a_publisher_its_quota_back(clean: bool) -> None:
    """PUBACK, PUBCOMP, and a PUBREC that refuses; not a PUBREC that accepts."""
    world = World(Limits(receive_maximum=2))
    client = world.transient("p") if clean else world.hello("p")
    for packet_id in range(1, 5):
        client.publish("t", "m", 1, packet_id)
        client.publish("$SYS/t", "refused", 1, packet_id)
        client.publish("$SYS/t", "refused", 2, packet_id)
        client.publish("t", "m", 2, packet_id)
        client.send(Pubrel(packet_id))
    client.publish("t", "m", 2, 11)
    client.publish("t", "m", 2, 12)
    client.publish("t", "m", 2, 12, dup=True)  # a repeat is no further message
    client.send(Pubrel(11))
    client.publish("t", "m", 2, 13)
    assert client.is_open
    client.packets()
    client.publish("t", "m", 1, 14)
    assert client.received() == ["DISCONNECT 0x93"]
    assert not client.is_open


@pytest.mark.spec("MQTT5-3.3.4-7", "MQTT5-3.3.4-8")
@pytest.mark.parametrize("qos", [1, 2])
def test_a_publisher_that_does_not_wait_for_a_slow_disk_is_closed_at_receive_maximum(
    qos: int,
) -> None:
    """What counts is what was acknowledged, not what arrived; QoS 0 does not count."""
    world = World(Limits(receive_maximum=3))
    world.session("s", "t", 2)
    client = world.hello("p")
    world.disk.hold()
    for packet_id in (1, 2, 3):
        client.publish("t", "m", qos, packet_id)
        client.publish("t", "m", 0)
    assert client.received() == []
    assert client.is_open
    client.publish("t", "m", qos, 4)
    assert client.received() == ["DISCONNECT 0x93"]
    assert not client.is_open


@pytest.mark.spec("MQTT5-3.3.4-7")
def test_a_publisher_that_comes_back_has_its_whole_quota() -> None:
    """What an earlier connection left open counts no more; it is still completed."""
    world = World(Limits(receive_maximum=2))
    client = world.hello("p")
    client.publish("t", "m", 2, 1)
    client.publish("t", "m", 2, 2)
    client.cut()
    client = world.hello("p")
    client.publish("t", "m", 2, 3)
    client.publish("t", "m", 2, 4)
    assert client.received() == ["PUBREC #3 0x10", "PUBREC #4 0x10"]
    client.send(Pubrel(3), Pubrel(4), Pubrel(1), Pubrel(2))
    assert client.received() == [f"PUBCOMP #{packet_id}" for packet_id in (3, 4, 1, 2)]
