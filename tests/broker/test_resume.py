"""A session comes back: what was in flight is sent again, under its identifier, and nothing else
is lost by the way back to the present.
"""

import pytest

from holdfast.protocol.encode import encode
from holdfast.protocol.packets import Connect, Puback, Pubcomp, Publish, Pubrec, Pubrel
from tests.broker.world import World

BIG = b"z" * 900_000  # three of these, committed, push everything older out of the log's tail


def in_flight_at_a_crash(world: World, count: int, qos: int = 1) -> None:
    """Session ``s`` has messages m0, m1, … in flight, and the broker has just restarted."""
    subscriber = world.hello("s")
    subscriber.subscribe("t", qos)
    publisher = world.transient("p")
    for number in range(count):
        publisher.publish("t", f"m{number}", 1, number + 1)
    assert len(subscriber.received()) == count + 1
    world.crash()
    world.restart()


def test_a_message_is_resent_though_its_room_appeared_during_the_fetch() -> None:
    """The window lets some of the resending wait. An acknowledgement that comes while the store
    looks for the next ones must not make the broker take the rest for lost.
    """
    world = World()
    in_flight_at_a_crash(world, 4)
    subscriber = world.hello("s", receive_maximum=2)
    assert subscriber.received() == ["PUBLISH t m0 q1 #1 dup", "PUBLISH t m1 q1 #2 dup"]
    world.disk.hold_reads()
    subscriber.send(Puback(1))
    subscriber.send(Puback(2))
    world.disk.answer_reads()
    world.disk.release()
    assert subscriber.received() == ["PUBLISH t m2 q1 #3 dup", "PUBLISH t m3 q1 #4 dup"]


def test_a_message_is_resent_though_it_left_the_tail_during_the_fetch() -> None:
    world = World()
    in_flight_at_a_crash(world, 1)
    subscriber = world.hello("s")
    world.transient("p").publish("t", "new", 1, 1)
    assert subscriber.received() == ["PUBLISH t m0 q1 #1 dup", "PUBLISH t new q1 #2"]
    subscriber.cut()
    reader = world.hello("reader")
    reader.subscribe("big", 1)

    world.disk.hold_reads()
    subscriber = world.hello("s")  # m0 is fetched, "new" is still in the tail
    publisher = world.transient("q")
    for number in range(1, 5):
        publisher.publish("big", BIG, 1, number)
        reader.send(Puback(number))
    world.disk.answer_reads()
    world.disk.release()
    assert subscriber.received() == ["PUBLISH t m0 q1 #1 dup", "PUBLISH t new q1 #2 dup"]


def test_a_full_socket_does_not_make_resending_read_again_and_again() -> None:
    world = World()
    in_flight_at_a_crash(world, 1)
    subscriber = world.dial()
    subscriber.stall()
    before = world.disk.reads_done
    subscriber.push_bytes(encode(Connect("s", clean_start=False, keep_alive=0), 5))
    for _ in range(50):
        world.turn()
        world.disk.complete()
        waiting, world.disk.reads = world.disk.reads, []
        for wanted in waiting:
            world.answer(wanted)
    assert world.disk.reads_done - before <= 2


@pytest.mark.spec("MQTT5-3.3.4-10")
def test_the_window_does_not_hold_up_a_pubrel() -> None:
    world = World()
    subscriber = world.hello("s")
    subscriber.subscribe("t", 2)
    publisher = world.transient("p")
    for packet_id in (1, 2, 3):
        publisher.publish("t", "m", 2, packet_id)
        publisher.send(Pubrel(packet_id))
    subscriber.send(Pubrec(3))
    subscriber.cut()
    subscriber = world.hello("s", receive_maximum=1)
    assert subscriber.received() == ["PUBREL #3"]
    subscriber.send(Pubcomp(3))
    assert subscriber.received() == ["PUBLISH t m q2 #1 dup"]


@pytest.mark.spec("MQTT5-3.3.4-4")
@pytest.mark.parametrize("qos", [0, 1])
def test_a_message_from_behind_carries_the_identifiers_of_subscriptions_replaced_since(
    qos: int,
) -> None:
    """It was published under both subscriptions; what one of them became later is not its matter,
    and whether the window was full then is not either.
    """
    world = World()
    subscriber = world.hello("s", receive_maximum=1)
    subscriber.subscribe("t/+", 1, identifier=1)
    subscriber.subscribe("t/x", qos, identifier=2)
    publisher = world.transient("p")
    publisher.publish("t/x", "first", 1, 1)
    publisher.publish("t/x", "second", 1, 2)
    subscriber.subscribe("t/x", qos, identifier=3)
    subscriber.packets()
    subscriber.send(Puback(1))
    (second,) = subscriber.packets()
    assert isinstance(second, Publish) and second.properties is not None
    assert sorted(second.properties.subscription_identifiers) == [1, 2]


@pytest.mark.parametrize("how", ["unsubscribed", "subscribed anew"])
@pytest.mark.parametrize("is_crash", [False, True], ids=["cut", "crash"])
def test_a_message_is_sent_again_as_it_was_though_its_subscription_has_changed(
    how: str, is_crash: bool
) -> None:
    """With RETAIN as published and the Subscription Identifier that it had."""
    world = World()
    client = world.hello("s")
    client.subscribe("t", 1, retain_as_published=True, identifier=7)
    world.transient("p").publish("t", "m", 1, 1, retain=True)
    if how == "unsubscribed":
        client.unsubscribe("t")
    else:
        client.subscribe("t", 1, identifier=9, retain_handling=2)
    if is_crash:
        world.crash()
        world.restart()
    else:
        client.cut()
    client = world.hello("s")
    (again,) = client.packets()
    assert isinstance(again, Publish) and again.properties is not None
    assert (again.dup, again.retain) == (True, True)
    assert again.properties.subscription_identifiers == [7]
    client.send(Puback(again.packet_id))

    # It is the message that keeps it, and nothing else does.
    client.unsubscribe("t")
    client.disconnect()
    session = world.broker.sessions.find("s")
    assert session is not None and session.closed is None
    assert world.broker.trim_point() == world.broker._commits.next_lsn


def test_an_ended_subscription_that_a_message_in_flight_needs_does_not_hold_the_log() -> None:
    world = World()
    client = world.hello("s")
    client.subscribe("t", 1)
    publisher = world.hello("p")
    publisher.subscribe("u", 1)
    publisher.publish("t", "m", 1, 1)
    client.unsubscribe("t")
    client.cut()
    for packet_id in range(2, 6):
        publisher.publish("u", "x", 1, packet_id)
        publisher.send(Puback(packet_id - 1))
    assert world.broker.trim_point() == 1, "the one in flight is kept"
    client = world.hello("s")
    client.send(Puback(1))
    client.cut()
    assert world.broker.trim_point() == world.broker._commits.next_lsn
