"""Shared subscriptions: the QoS of a member, and what becomes of a message when a member fails.

How members take turns and what a group queues: ``tests/broker/test_shared_groups.py``.
Source: MQTT 5.0 §4.8.2.
"""

from collections.abc import Callable

import pytest

from holdfast.broker.limits import EXPIRY_NEVER
from holdfast.protocol.packets import (
    Disconnect,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    SubscriptionRequest,
)
from tests.broker.world import Client, World
from tests.spec.mqtt5 import subscribe, unsubscribe
from tests.support.properties import properties

SHARED = "$share/g/t"
DURABLE = pytest.mark.parametrize("expiry_s", [0, 3600], ids=["transient", "durable"])


def member(world: World, client_id: str, qos: int = 2, *, expiry_s: int = 3600) -> Client:
    client = world.hello(client_id, clean=True, expiry_s=expiry_s)
    client.subscribe(SHARED, qos)
    assert client.received() == [f"SUBACK #1 0x0{qos}"]
    return client


def publish(world: World, payload: str, qos: int) -> None:
    world.transient("publisher").publish("t", payload, qos, 1 if qos else 0)


def chosen(world: World, qos: int, *, expiry_s: int = 3600) -> tuple[Client, Client]:
    """Two members, the first of which has just been sent the one message there is.

    Somebody else, absent, keeps it in the log, from where it could be sent again.
    """
    world.session("absent", "t", 2)
    first = member(world, "first", expiry_s=expiry_s)
    other = member(world, "other", expiry_s=EXPIRY_NEVER)
    publish(world, "m", qos)
    assert first.received() == [f"PUBLISH t m q{qos} #1"]
    return first, other


@pytest.mark.spec("MQTT5-4.8.2-3")
@pytest.mark.parametrize("how", ["live", "queued", "crash", "handed over"])
@pytest.mark.parametrize("published", [0, 1, 2])
def test_each_member_is_sent_a_message_at_no_more_than_the_qos_it_was_granted(
    published: int, how: str
) -> None:
    """Members of all three QoS in one group: whichever has its turn."""
    world = World()
    granted = {"zero": 0, "one": 1, "two": 2}
    members = {name: member(world, name, qos) for name, qos in granted.items()}
    if how in ("queued", "crash"):
        for one in members.values():
            one.cut()
    if how == "handed over":
        for name in ("zero", "one"):
            members[name].cut()
    for number in range(9):
        publish(world, str(number), published)
    if how == "crash":
        world.crash()
        world.restart()
    found: set[str] = set()
    for name, qos in granted.items():
        one = members[name]
        if how != "live" and not one.is_open:
            one = world.hello(name)
            members[name] = one
        if how == "handed over" and name == "two":
            one.cut()  # what it had at QoS 1 goes to the others, which come at their own QoS
        for packet in one.packets():
            assert isinstance(packet, Publish)
            assert packet.qos == min(published, qos), name
            found.add(packet.payload.decode())
    if how == "live" or (how in ("queued", "crash") and published > 0):
        assert found == set("012345678")


@pytest.mark.spec("MQTT5-4.8.2-4")
@pytest.mark.parametrize("stage", ["PUBLISH sent", "PUBREL sent"])
@pytest.mark.parametrize("loss", ["lost connection", "crash", "takeover", "unsubscribed and lost"])
def test_qos_2_is_completed_with_the_member_that_was_chosen(stage: str, loss: str) -> None:
    """Another member is there all the while and hears nothing of the message."""
    world = World()
    first, other = chosen(world, 2)
    if stage == "PUBREL sent":
        first.send(Pubrec(1))
        assert first.received() == ["PUBREL #1"]
    if loss == "unsubscribed and lost":
        assert unsubscribe(first, 2, SHARED) == ["UNSUBACK #2 0x00"]
    if loss == "crash":
        world.crash()
        world.restart()
        other = world.hello("other")
    elif loss != "takeover":
        first.cut()
        world.advance(60_000)
    assert other.received() == []
    first = world.hello("first")
    expected = "PUBLISH t m q2 #1 dup" if stage == "PUBLISH sent" else "PUBREL #1"
    assert first.received() == [expected]
    if stage == "PUBLISH sent":
        first.send(Pubrec(1))
        assert first.received() == ["PUBREL #1"]
    first.send(Pubcomp(1))
    first.cut()
    assert world.hello("first").received() == []
    assert other.received() == []


def expires(world: World, first: Client) -> None:
    first.cut()
    world.advance(3_600_000)


def starts_clean(world: World, first: Client) -> None:
    first.cut()
    world.hello("first", clean=True)


def is_taken_over_clean(world: World, first: Client) -> None:
    world.hello("first", clean=True)


def says_so(world: World, first: Client) -> None:
    first.send(Disconnect(0, properties(session_expiry_interval=0)))


def expires_after_a_crash(world: World, first: Client) -> None:
    world.crash()
    world.restart(after_ms=1000)
    world.advance(3_600_000)


def is_lost(world: World, first: Client) -> None:
    first.cut()


def is_lost_by_a_crash(world: World, first: Client) -> None:
    world.crash()
    world.restart()


End = Callable[[World, Client], None]
ENDS: list[tuple[End, int]] = [
    (expires, 3600),
    (starts_clean, 3600),
    (is_taken_over_clean, 3600),
    (says_so, 3600),
    (expires_after_a_crash, 3600),
    (is_lost, 0),
    (is_lost_by_a_crash, 0),
]


@pytest.mark.spec("MQTT5-4.8.2-5")
@pytest.mark.parametrize("stage", ["PUBLISH sent", "PUBREL sent"])
@pytest.mark.parametrize(("end", "expiry_s"), ENDS)
def test_qos_2_of_a_member_whose_session_ends_is_sent_to_nobody_else(
    end: End, expiry_s: int, stage: str
) -> None:
    """It might have taken the message over. The next message goes on as ever."""
    world = World()
    first, other = chosen(world, 2, expiry_s=expiry_s)
    if stage == "PUBREL sent":
        first.send(Pubrec(1))
    end(world, first)
    if not other.is_open:
        other = world.hello("other")
    assert other.received() == []
    publish(world, "next", 2)
    assert other.received() == ["PUBLISH t next q2 #1"]


@pytest.mark.spec("MQTT5-4.8.2-4", "MQTT5-4.8.2-5")
@pytest.mark.parametrize("expiry_s", [0, 10], ids=["transient", "durable"])
@pytest.mark.parametrize("with_crash", [False, True], ids=["lost connection", "crash"])
def test_what_is_handed_over_with_a_lost_member_is_qos_1_alone(
    with_crash: bool, expiry_s: int
) -> None:
    """Of what it had unacknowledged, in one window: at QoS 2, released, and at QoS 1."""
    world = World()
    first, other = chosen(world, 2, expiry_s=expiry_s)
    for payload, qos in (("a", 2), ("one", 1), ("b", 1), ("released", 2), ("c", 1)):
        publish(world, payload, qos)
    assert [one.split()[2] for one in first.received()] == ["one", "released"]
    first.send(Pubrec(3))
    for one in other.packets():
        assert isinstance(one, Publish)
        other.send(Puback(one.packet_id), Pubrec(one.packet_id, 0x80))
    world.advance(1000)
    if with_crash:
        world.crash()
        world.restart()
        other = world.hello("other")
    else:
        first.cut()
    assert [one.split()[2] for one in other.received()] == ["one"]
    world.advance(20_000)
    assert other.received() == []


@pytest.mark.spec("MQTT5-4.8.2-6", "MQTT5-4.4.0-2")
@DURABLE
@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("code", [0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99])
@pytest.mark.parametrize("then", ["stays", "leaves", "crash"])
def test_a_message_that_a_member_refuses_is_dropped(
    then: str, code: int, qos: int, expiry_s: int
) -> None:
    """Offered to no other member, now or when the one that refused it goes."""
    world = World()
    first, other = chosen(world, qos, expiry_s=expiry_s)
    first.send(Puback(1, code) if qos == 1 else Pubrec(1, code))
    assert first.received() == []
    world.advance(1000)  # what only removes is written a little later
    if then == "leaves":
        first.cut()
    if then == "crash":
        world.crash()
        world.restart()
        other = world.hello("other")
    assert other.received() == []
    publish(world, "next", qos)
    assert other.received() == [f"PUBLISH t next q{qos} #1"]


@pytest.mark.spec("MQTT5-4.8.2-1", "MQTT5-4.8.2-2", "MQTT5-3.8.4-7")
def test_a_shared_filter_needs_a_name_and_a_filter() -> None:
    """A filter that is shared twice over is refused too: nobody could say whose it is."""
    world = World()
    client = world.hello("c")
    good = ["$share/g/t", "$share/g//", "$share/g/#", "$share/G/t", "$share/ /+/a", "$share/é/$a/#"]
    bad = [
        "$share/",
        "$share//",
        "$share//t",
        "$share/g",
        "$share/g/",
        "$share/+/t",
        "$share/#/t",
        "$share/g+/t",
        "$share/#",
        "$share/g/t#",
        "$share/g/#/t",
        "$share/g/$share/h/t",
    ]
    requests = [SubscriptionRequest(one, 1) for one in [*bad, *good]]
    codes = " 0x8F" * len(bad) + " 0x01" * len(good)
    assert subscribe(client, 1, *requests) == [f"SUBACK #1{codes}"]


@pytest.mark.spec("MQTT5-4.7.2-1", "MQTT5-4.8.2-2")
@pytest.mark.parametrize("how", ["live", "queued", "crash"])
def test_what_a_member_is_sent_is_matched_by_the_filter_behind_the_share_name(how: str) -> None:
    world = World()
    filters = ["$share/g/#", "$share/g/+/b", "$share/g/$x/+", "$share/g/share", "$share/g//"]
    client = world.hello("c")
    requests = [SubscriptionRequest(one, 1) for one in filters]
    subscribe(client, 1, *requests)
    world.hello("all").subscribe("#", 1)
    world.session("dollars", "$x/#", 1)
    if how != "live":
        client.cut()
    publisher = world.transient("p")
    expected = []
    for number, (topic, copies) in enumerate(
        [("a", 1), ("a/b", 2), ("$x/b", 1), ("$x", 0), ("share", 2), ("/", 2), ("g/t", 1)], 1
    ):
        publisher.publish(topic, topic, 1, number)
        expected += [topic] * copies
    if how == "crash":
        world.crash()
        world.restart()
    if how != "live":
        client = world.hello("c")
    found = [packet.topic for packet in client.publishes()]
    assert sorted(found) == sorted(expected)
