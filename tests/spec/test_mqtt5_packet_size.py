"""A client that takes hardly more than a CONNACK is answered all the same, in bare packets.

A Reason String or User Properties that would make an answer too large are left out of it: the
answer itself never is. Source: MQTT 5.0 §3.1.2.11.4, §3.4 to §3.15.
"""

from collections.abc import Callable
from functools import partial

import pytest

from holdfast.broker.limits import Limits
from holdfast.protocol.encode import encode
from holdfast.protocol.packets import (
    Connect,
    Packet,
    Puback,
    Publish,
    Pubrec,
    Pubrel,
    Subscribe,
    SubscriptionRequest,
    Unsubscribe,
)
from tests.broker.world import Client, World, describe

# Bytes that a client takes beyond what its CONNACK needs: with some of them there is room for a
# Reason String in one answer and not in another.
SPARE_BYTES = range(120)


def small_client(world: World, spare: int = 0, *, keep_alive: int = 0) -> tuple[Client, int]:
    """A client whose Maximum Packet Size is what its CONNACK needs and a little, and that size."""
    probe = world.hello("probe", maximum_packet_size=1_000_000)
    size = probe.bytes_received
    probe.cut()
    client = world.hello("c", maximum_packet_size=size + spare, keep_alive=keep_alive)
    assert client.bytes_received == size
    return client, size + spare


def each_fits(client: Client, size: int, act: Callable[[], None]) -> list[str]:
    """What ``act`` brings, in packets that are all within the client's Maximum Packet Size."""
    act()
    found: list[Packet] = client.packets()
    assert all(len(encode(packet, 5)) <= size for packet in found)
    return [describe(packet) for packet in found]


def sends(client: Client, *packets: Packet) -> Callable[[], None]:
    return lambda: client.send(*packets)


@pytest.mark.spec("MQTT5-3.4.2-2", "MQTT5-3.4.2-3", "MQTT5-3.1.2-24")
def test_puback_fits() -> None:
    """One that accepts, one that found nobody, and one that refuses."""
    asked = {"t": "PUBACK #1", "nobody": "PUBACK #1 0x10", "$SYS/x": "PUBACK #1 0x87"}
    world = World()
    world.session("s", "t", 1)
    for spare in SPARE_BYTES:
        client, size = small_client(world, spare)
        for topic, answer in asked.items():
            packet = Publish(topic, b"m", 1, packet_id=1)
            assert each_fits(client, size, sends(client, packet)) == [answer]


@pytest.mark.spec("MQTT5-3.5.2-2", "MQTT5-3.5.2-3", "MQTT5-3.7.2-2", "MQTT5-3.7.2-3")
@pytest.mark.spec("MQTT5-3.1.2-24")
def test_pubrec_and_pubcomp_fit() -> None:
    asked = {"t": "PUBREC #1", "nobody": "PUBREC #1 0x10"}
    refused = Publish("$SYS/x", b"m", 2, packet_id=1)
    for spare in SPARE_BYTES:
        world = World()
        world.session("s", "t", 2)
        client, size = small_client(world, spare)
        for topic, answer in asked.items():
            packet = Publish(topic, b"m", 2, packet_id=1)
            assert each_fits(client, size, sends(client, packet)) == [answer]
            assert each_fits(client, size, sends(client, Pubrel(1))) == ["PUBCOMP #1"]
        assert each_fits(client, size, sends(client, refused)) == ["PUBREC #1 0x87"]
        assert each_fits(client, size, sends(client, Pubrel(2))) == ["PUBCOMP #2 0x92"]


@pytest.mark.spec("MQTT5-3.6.2-2", "MQTT5-3.6.2-3", "MQTT5-3.1.2-24")
def test_pubrel_fits() -> None:
    """For a message in flight, and for one that the broker knows nothing of."""
    for spare in SPARE_BYTES:
        world = World()
        client, size = small_client(world, spare)
        client.subscribe("t", 2)
        world.transient("p").publish("t", "m", 2, 1)
        client.packets()
        assert each_fits(client, size, sends(client, Pubrec(1))) == ["PUBREL #1"]
        assert each_fits(client, size, sends(client, Pubrec(9))) == ["PUBREL #9 0x92"]


@pytest.mark.spec("MQTT5-3.9.2-1", "MQTT5-3.9.2-2", "MQTT5-3.11.2-1", "MQTT5-3.11.2-2")
@pytest.mark.spec("MQTT5-3.1.2-24")
def test_suback_and_unsuback_fit_as_long_as_their_codes_do() -> None:
    for spare in SPARE_BYTES:
        world = World()
        client, size = small_client(world, spare)
        for count in (1, 2, size - 6):
            filters = ["a#", *(f"t{number}" for number in range(1, count))]
            requests = [SubscriptionRequest(one, 1) for one in filters]
            answer = each_fits(client, size, sends(client, Subscribe(1, requests)))
            assert answer == ["SUBACK #1 0x8F" + " 0x01" * (count - 1)]
            answer = each_fits(client, size, sends(client, Unsubscribe(2, ["x", *filters[1:]])))
            assert answer == ["UNSUBACK #2 0x11" + " 0x00" * (count - 1)]


@pytest.mark.spec("MQTT5-3.9.2-1", "MQTT5-3.11.2-1", "MQTT5-3.1.2-24")
def test_suback_and_unsuback_fit_for_an_identifier_that_is_in_use() -> None:
    """A PUBLISH has the same one and is still open: a mistake of the client's, to be answered."""
    for spare in SPARE_BYTES:
        client, size = small_client(World(), spare)
        client.publish("t", "m", 2, 7)
        client.packets()
        subscribe = Subscribe(7, [SubscriptionRequest("t", 1)])
        for packet in (subscribe, Unsubscribe(7, ["t"])):
            (answer,) = each_fits(client, size, sends(client, packet))
            assert answer.startswith(("SUBACK #7 0x", "UNSUBACK #7 0x"))


def is_malformed(world: World, client: Client) -> None:
    client.send_bytes(b"\xc1\x00")


def connects_twice(world: World, client: Client) -> None:
    client.send(Connect("c"))


def publishes_a_wildcard(world: World, client: Client) -> None:
    client.send_bytes(b"\x30\x06\x00\x03a/#\x00")


def publishes_too_much(world: World, client: Client) -> None:
    client.send(*(Publish("t", b"", 2, packet_id=n) for n in (1, 2)))


def sends_too_large_a_packet(world: World, client: Client) -> None:
    client.send_bytes(b"\x30\xff\xff\xff\x7f")


def asks_for_too_long_an_answer(world: World, client: Client) -> None:
    client.send(Subscribe(1, [SubscriptionRequest("t", 0)] * 200))


def falls_silent(world: World, client: Client) -> None:
    world.advance(15_000)


def is_taken_over(world: World, client: Client) -> None:
    world.hello("c")


def is_shut_down(world: World, client: Client) -> None:
    world.stop()


ENDS: dict[str, tuple[Callable[[World, Client], None], int]] = {
    "malformed packet": (is_malformed, 0x81),
    "protocol error": (connects_twice, 0x82),
    "topic name invalid": (publishes_a_wildcard, 0x90),
    "receive maximum": (publishes_too_much, 0x93),
    "packet too large": (sends_too_large_a_packet, 0x95),
    "answer too large": (asks_for_too_long_an_answer, 0x95),
    "keep alive": (falls_silent, 0x8D),
    "takeover": (is_taken_over, 0x8E),
    "shutdown": (is_shut_down, 0x8B),
}


@pytest.mark.spec("MQTT5-3.14.2-3", "MQTT5-3.14.2-4", "MQTT5-3.1.2-24")
@pytest.mark.parametrize(("end", "code"), ENDS.values(), ids=ENDS)
def test_disconnect_fits(end: Callable[[World, Client], None], code: int) -> None:
    for spare in SPARE_BYTES:
        world = World(Limits(receive_maximum=1))
        client, size = small_client(world, spare, keep_alive=10)
        found = each_fits(client, size, partial(end, world, client))
        assert found[-1:] == [f"DISCONNECT 0x{code:02X}"]
        assert not client.is_open


@pytest.mark.spec("MQTT5-3.1.2-24")
def test_an_answer_that_fits_in_no_way_ends_the_connection() -> None:
    """Nothing is sent that is too large, and nothing is left unanswered."""
    world = World()
    client, size = small_client(world)
    found = each_fits(
        client, size, sends(client, Subscribe(1, [SubscriptionRequest("t", 0)] * size), Puback(1))
    )
    assert found == ["DISCONNECT 0x95"]
