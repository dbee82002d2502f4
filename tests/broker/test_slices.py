"""Who sends much at a time has it taken a slice at a time, and the others are served between."""

import itertools

import pytest

from holdfast.broker.limits import SUBSCRIBE_WORK_MAX, Limits
from holdfast.protocol.encode import encode
from holdfast.protocol.packets import (
    Connect,
    Disconnect,
    Pingreq,
    Publish,
    Suback,
    Subscribe,
    SubscriptionRequest,
    Will,
)
from holdfast.protocol.reason_codes import MALFORMED_PACKET, QUOTA_EXCEEDED
from tests.broker.world import Client, World
from tests.support.granting import Granting

SLICE = 3


@pytest.fixture
def world() -> World:
    return World(Limits(slice_packets=SLICE))


def numbered(count: int, topic: str = "t") -> list[Publish]:
    return [Publish(topic, b"%d" % n, 0, False, False, 0, None) for n in range(count)]


def payloads(client: Client) -> list[bytes]:
    return [publish.payload for publish in client.publishes()]


def test_another_client_is_served_before_the_rest_of_a_flood(world: World) -> None:
    reader, flooder, honest = (world.transient(name) for name in ("reader", "flooder", "honest"))
    reader.subscribe("t", 0)
    reader.packets()
    flooder.push(*numbered(100))
    world.turn()
    assert len(payloads(reader)) == 2 * SLICE  # its own slice, and one more where there is time
    honest.push(Pingreq())
    world.turn()
    assert honest.received() == ["PINGRESP"]
    assert payloads(reader) == [b"%d" % n for n in range(2 * SLICE, 3 * SLICE)]


def test_all_of_it_is_taken_in_its_order(world: World) -> None:
    reader, flooder = world.transient("reader"), world.transient("flooder")
    reader.subscribe("t", 0)
    reader.packets()
    flooder.push(*numbered(50))
    world.turn()
    flooder.push(*numbered(50))  # while it has more already
    world.run()
    assert payloads(reader) == [b"%d" % n for n in range(50)] * 2


def test_floods_take_turns(world: World) -> None:
    reader = world.transient("reader")
    reader.subscribe("t/+", 0)
    reader.packets()
    for name in ("a", "b"):
        world.transient(name).push(*numbered(20, f"t/{name}"))
    for _ in range(5):
        world.turn()
    topics = [publish.topic for publish in reader.publishes()]
    assert abs(topics.count("t/a") - topics.count("t/b")) <= SLICE


def test_nothing_is_read_while_there_is_more(world: World) -> None:
    flooder = world.transient("flooder")
    flooder.push(*numbered(3 * SLICE))
    world.turn()
    assert flooder.connection.is_read_paused
    world.run()
    assert not flooder.connection.is_read_paused


def test_a_slice_that_was_all_needs_no_further_turn(world: World) -> None:
    flooder = world.transient("flooder")
    flooder.push(*numbered(SLICE))
    world.turn()
    assert not world.broker.needs_turn


def test_who_has_gone_is_heard_to_the_end(world: World) -> None:
    """The DISCONNECT at the end of what it sent keeps its will back."""
    reader = world.transient("reader")
    reader.subscribe("#", 0)
    reader.packets()
    will = Will("will", b"!", 0, False, None)
    flooder = world.hello("flooder", will=will, expiry_s=0)
    flooder.push(*numbered(10), Disconnect(0, None))
    world.turn()
    assert flooder.connection.has_more
    world.lost.append(flooder)
    world.run()
    assert payloads(reader) == [b"%d" % n for n in range(10)]
    assert world.broker.sessions.find("flooder") is None


def test_who_has_gone_without_a_farewell_leaves_its_will(world: World) -> None:
    reader = world.transient("reader")
    reader.subscribe("#", 0)
    reader.packets()
    will = Will("will", b"!", 0, False, None)
    flooder = world.hello("flooder", will=will, expiry_s=0)
    flooder.push(*numbered(10))
    world.turn()
    world.lost.append(flooder)
    world.run()
    assert payloads(reader) == [*(b"%d" % n for n in range(10)), b"!"]


def test_a_takeover_waits_for_what_was_sent_before_it(world: World) -> None:
    reader = world.transient("reader")
    reader.subscribe("#", 0)
    reader.packets()
    will = Will("will", b"!", 0, False, None)
    first = world.hello("same", will=will)
    first.push(*numbered(30), Disconnect(0, None))
    world.turn()
    second = world.dial()
    second.push(Connect("same", 5, False, 0, None, None, None, None))
    world.turn()
    assert second.received() == []
    world.run()
    assert second.received() == ["CONNACK 0x00 present"]
    assert payloads(reader) == [b"%d" % n for n in range(30)]


def test_an_error_in_a_later_slice_ends_the_connection(world: World) -> None:
    flooder = world.transient("flooder")
    flooder.push(*numbered(10))
    flooder.push_bytes(b"\x00\x00")
    world.run()
    assert flooder.received() == [f"DISCONNECT 0x{MALFORMED_PACKET:02X}"]
    assert not world.broker.needs_turn


def test_who_is_ended_has_no_more_turns(world: World) -> None:
    flooder = world.transient("flooder")
    flooder.push(*numbered(30))
    world.turn()
    world.broker.shut_down()
    world.run()
    assert not world.broker.needs_turn
    assert not flooder.connection.has_more


def test_a_packet_that_makes_much_work_ends_its_slice(world: World) -> None:
    """Each of these topics is looked for in all of a big tree, which no cache saves."""
    reader = world.transient("reader")
    filters = ["/".join(mix) for mix in itertools.product("a+", repeat=11)]
    requests = [SubscriptionRequest(one, 0, False, False, 2) for one in filters]
    reader.send(Subscribe(1, requests, None))
    reader.packets()
    flooder, honest = world.transient("flooder"), world.transient("honest")
    for n in range(3):
        flooder.push(Publish(f"{'a/' * 10}{n}", b"", 0, False, False, 0, None))
    world.turn()
    assert len(reader.publishes()) == 2  # the first, and one more where there is time
    assert flooder.connection.has_more
    honest.push(Pingreq())
    flooder.push(Pingreq())
    world.turn()
    assert honest.received() == ["PINGRESP"]
    assert len(reader.publishes()) == 1
    world.run()
    assert flooder.received() == ["PINGRESP"]
    assert not flooder.connection.is_heavy


def test_a_subscribe_looks_at_so_much_that_is_retained(world: World) -> None:
    """A thousand searches of a few bytes each, and none of them finds anything."""
    publisher, reader = world.transient("publisher"), world.transient("reader")
    publisher.push(*(Publish(f"t/{n}/x", b"1", 0, True, False, 0, None) for n in range(1000)))
    world.run()
    requests = [SubscriptionRequest(f"t/+/none{n}", 0, False, False, 0) for n in range(500)]
    reader.send(Subscribe(1, requests, None))
    (suback,) = reader.packets()
    assert isinstance(suback, Suback)
    granted = suback.reason_codes.count(0)
    assert SUBSCRIBE_WORK_MAX / 1010 < granted < SUBSCRIBE_WORK_MAX / 1000
    assert suback.reason_codes == [0] * granted + [QUOTA_EXCEEDED] * (500 - granted)


def test_subscribers_that_take_nothing_are_work_as_well(world: World) -> None:
    """A client in thousands of shared groups that does not read: each is gone through."""
    reader = world.transient("reader")
    requests = [SubscriptionRequest(f"$share/{n}/t", 0, False, False, 0) for n in range(2500)]
    reader.send(Subscribe(1, requests, None))
    reader.stall()
    flooder = world.transient("flooder")
    flooder.push(*numbered(3))
    world.turn()
    assert flooder.connection.has_more
    world.run()
    assert not flooder.connection.has_more


def heavy(count: int, first: int = 0) -> bytes:
    """As many packets of which each is a slice, for they are about much that is retained."""
    data = b""
    for n in range(first, first + count):
        requests = [SubscriptionRequest(f"t/+/none{n}/{k}", 0, False, False, 0) for k in range(5)]
        data += encode(Subscribe(n + 1, requests, None), 5)
    return data


def test_a_takeover_does_not_wait_for_what_comes_after_it(world: World) -> None:
    """Who sends without pause, and has its last slice at the end of each turn."""
    publisher = world.transient("publisher")
    publisher.push(*(Publish(f"t/{n}/x", b"1", 0, True, False, 0, None) for n in range(500)))
    world.run()
    flooder = world.hello("same")
    flooder.push_bytes(heavy(4))
    world.turn()
    second = world.dial()
    second.push(Connect("same", 5, False, 0, None, None, None, None))
    world.turn()
    for n in range(10):
        if flooder.is_open:
            flooder.push_bytes(heavy(2, 10 + 2 * n))
        world.turn()
    assert not flooder.is_open
    world.run()
    assert second.received() == ["CONNACK 0x00 present"]


@pytest.mark.spec("MQTT5-3.1.2-22")
def test_keep_alive_does_not_end_who_waits_for_its_turn(world: World) -> None:
    client = world.connect("c", keep_alive=1)
    client.packets()
    for flooder in (world.transient("flooder"), client):
        flooder.push(*numbered(30))
    client.push(Pingreq())
    world.turn()
    assert client.connection.has_more
    world.now_ms += 5000
    world.turn()
    assert client.is_open
    world.run()
    assert client.received() == ["PINGRESP"]


def test_a_connect_that_waits_for_its_turn_has_come_in_time() -> None:
    world = World(Limits(slice_packets=1, connect_timeout_ms=1000))
    first = world.hello("same")
    first.push(*numbered(30))
    world.turn()
    second = world.dial()
    second.push(Connect("same", 5, False, 0, None, None, None, None))
    for _ in range(5):
        world.turn()
    assert second.connection.has_more
    world.now_ms += 1000
    world.turn()
    world.run()
    assert second.received() == ["CONNACK 0x00 present"]


def test_who_is_granted_waits_for_what_came_before_it_is_let_in() -> None:
    """The answer takes a while, and in it the one that it takes over from has sent much."""
    world = World(Limits(slice_packets=SLICE), authenticator=Granting())
    reader = world.transient("reader")
    reader.subscribe("#", 0)
    reader.packets()
    first = world.hello("same", will=Will("will", b"!", 0, False, None))
    world.are_auth_steps_held = True
    second = world.connect("same")
    first.push(*numbered(30), Disconnect(0, None))
    world.turn()
    assert first.connection.has_more
    world.are_auth_steps_held = False
    world.run()
    assert second.received() == ["CONNACK 0x00 present"]
    assert payloads(reader) == [b"%d" % n for n in range(30)]
    second.send(Pingreq())
    assert second.received() == ["PINGRESP"]


def test_who_goes_while_it_is_granted_and_waits_takes_nothing_over() -> None:
    world = World(Limits(slice_packets=SLICE), authenticator=Granting())
    first = world.hello("same")
    world.are_auth_steps_held = True
    second = world.connect("same")
    first.push(*numbered(30))
    world.turn()
    world.are_auth_steps_held = False
    world._answer_auth_steps()
    world.turn()
    assert second.connection.has_more
    second.cut()
    world.run()
    assert first.is_open
    first.send(Pingreq())
    assert first.received() == ["PINGRESP"]
    assert second.connection.number not in world.broker._connections
