"""Bounds on both sides: publishers are read no faster than the disk, subscribers written no
faster than they read, and nothing acknowledged is lost or left lying for that.
"""

import pytest

from holdfast.broker.limits import INPUT_UNCOMMITTED_BYTES_MAX, OUTPUT_BYTES_MAX, Limits
from holdfast.protocol.packets import Publish
from tests.broker.world import World

BIG = b"z" * 900_000


def test_a_publisher_is_read_no_further_while_too_much_of_it_is_uncommitted() -> None:
    world = World()
    world.session("s", "t", 1)
    publisher = world.hello("p")
    world.disk.hold()
    world.connect("other")  # its commit is under way: what follows waits for the next batch
    count = INPUT_UNCOMMITTED_BYTES_MAX // len(BIG) + 1
    for packet_id in range(1, count + 1):
        assert not publisher.connection.is_read_paused
        publisher.publish("t", BIG, 1, packet_id)
    assert publisher.connection.is_read_paused
    world.disk.sync()
    assert not publisher.connection.is_read_paused


@pytest.mark.parametrize("clean", [False, True], ids=["durable", "transient"])
def test_output_that_has_left_makes_room_for_a_session_behind(clean: bool) -> None:
    """A turn brings more than a connection's output may hold, then a QoS 1 message. All is
    written at once, the socket never fills, so no report of its emptiness will ever come.
    """
    world = World()
    subscriber = world.hello("s", clean=clean, expiry_s=0 if clean else 100)
    subscriber.subscribe("t", 1)
    publisher = world.transient("p")
    floods = [Publish("t", BIG) for _ in range(OUTPUT_BYTES_MAX // len(BIG) + 1)]
    publisher.send(*floods, Publish("t", b"last", 1, packet_id=1))
    assert publisher.received()[-1] == "PUBACK #1"
    assert subscriber.received()[-1] == "PUBLISH t last q1 #1"


def test_retained_messages_go_on_when_the_output_has_left() -> None:
    world = World()
    publisher = world.transient("p")
    count = OUTPUT_BYTES_MAX // len(BIG) + 4
    for number in range(count):
        publisher.publish(f"r/{number}", BIG, retain=True)
    subscriber = world.transient("s")
    subscriber.subscribe("r/#", 0)
    assert len(subscriber.received()) == 1 + count


@pytest.mark.spec("MQTT5-3.3.4-7")
def test_the_receive_maximum_counts_from_the_connection_on() -> None:
    """Its quota is new with each connection (MQTT 5.0 §4.9): what an earlier one left open does
    not count. Else a client that lost its PUBRELs could never publish again.
    """
    world = World(Limits(receive_maximum=2))
    publisher = world.hello("p")
    publisher.publish("t", "1", 2, 1)
    publisher.publish("t", "2", 2, 2)
    assert publisher.received() == ["PUBREC #1 0x10", "PUBREC #2 0x10"]
    publisher.cut()
    publisher = world.hello("p")
    publisher.publish("t", "3", 1, 3)
    assert publisher.received() == ["PUBACK #3 0x10"]
