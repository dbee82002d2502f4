"""Clients that publish faster than they may are slowed down, and let go if that does not help."""

import pytest

from holdfast.broker.events import INFO, WARNING
from holdfast.broker.limits import Limits
from holdfast.broker.listener_rules import PublishLimits
from holdfast.broker.rates import PublishRate
from holdfast.protocol.packets import Disconnect, Pingreq, Publish, Will
from tests.broker.world import START_MS, Client, World


def new_world(slice_packets: int = 0, **limits: int) -> World:
    world = World(Limits(slice_packets=slice_packets))
    world.rules.publish_limits = PublishLimits(**limits)
    return world


def burst(client: Client, count: int, size: int = 1, qos: int = 0, first: int = 1) -> None:
    """Publish so many messages in one piece, each with its number."""
    client.send(
        *(
            Publish("t", b"%d" % number + b"." * (size - 1), qos, packet_id=number if qos else 0)
            for number in range(first, first + count)
        )
    )


def numbers(client: Client) -> list[int]:
    return [int(packet.payload.rstrip(b".")) for packet in client.publishes()]


def watcher(world: World) -> Client:
    client = world.transient("watcher")
    client.subscribe("t", 1)
    client.packets()
    return client


@pytest.mark.parametrize("slice_packets", [0, 3])
def test_messages_above_the_rate_come_later_in_order_and_none_is_lost(slice_packets: int) -> None:
    world = new_world(slice_packets, messages_per_s=10, messages_burst=20)
    watching = watcher(world)
    client = world.transient("fast")
    burst(client, 50)
    assert numbers(watching) == list(range(1, 21))
    assert client.connection.is_read_paused
    world.advance(1010)
    assert numbers(watching) == list(range(21, 31))
    world.advance(2000)
    assert numbers(watching) == list(range(31, 51))
    assert not client.connection.is_read_paused
    assert client.is_open
    assert world.broker.counters.held_back == 1
    assert [(one.level, one.text) for one in world.events if "slowed" in one.text] == [
        (INFO, "slowed down: it publishes more than 10 messages per second")
    ]


def test_an_honest_client_within_its_rate_notices_nothing() -> None:
    world = new_world(messages_per_s=10, messages_burst=20, bytes_per_s=1000, bytes_burst=2000)
    watching = watcher(world)
    client = world.transient("honest")
    for round_ in range(100):
        burst(client, 10, first=1 + 10 * round_)
        assert len(numbers(watching)) == 10
        world.advance(1000)
    assert world.broker.counters.held_back == 0


def test_bytes_above_the_rate_come_later() -> None:
    """A message that is larger than the burst passes, and is paid for afterwards."""
    world = new_world(bytes_per_s=1000, bytes_burst=2000)
    watching = watcher(world)
    client = world.transient("fat")
    burst(client, 1, size=9000)
    burst(client, 1, first=2)
    assert numbers(watching) == [1]
    world.advance(6500)
    assert numbers(watching) == []
    world.advance(1000)
    assert numbers(watching) == [2]


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize(
    ("limits", "code"),
    [
        ({"messages_per_s": 10, "messages_burst": 10}, 0x96),
        ({"bytes_per_s": 100, "bytes_burst": 100}, 0x97),
    ],
    ids=["messages", "bytes"],
)
def test_who_is_above_the_rate_for_too_long_is_disconnected(
    limits: dict[str, int], code: int, version: int
) -> None:
    world = new_world(patience_ms=30_000, **limits)
    client = world.transient("flood", version)
    burst(client, 200, size=20)
    for _ in range(62):
        world.advance(500)
        if client.is_open:
            burst(client, 20, size=20)
    assert not client.is_open
    expected = [f"DISCONNECT 0x{code:02X}"] if version == 5 else []
    assert client.received() == expected
    assert world.broker.counters.too_fast == 1
    assert any(one.level == WARNING and "more came for 30 s" in one.text for one in world.events)


def test_who_pauses_in_between_is_not_disconnected() -> None:
    world = new_world(messages_per_s=10, messages_burst=20, patience_ms=5000)
    client = world.transient("bursts")
    for _ in range(20):
        burst(client, 30)
        world.advance(4000)
    assert client.is_open
    assert world.broker.counters.held_back == 20


def test_nobody_is_disconnected_without_a_patience() -> None:
    world = new_world(messages_per_s=10, messages_burst=10)
    client = world.transient("flood")
    burst(client, 5000)
    world.advance(400_000)
    assert client.is_open
    assert client.connection.is_read_paused


@pytest.mark.spec("MQTT5-3.1.2-22")
def test_keep_alive_does_not_end_who_is_held_back() -> None:
    """It is the broker that does not listen. Its PINGREQ is answered when its turn comes."""
    world = new_world(messages_per_s=1, messages_burst=1)
    client = world.connect("slow", keep_alive=2)
    client.packets()
    burst(client, 20)
    client.send(Pingreq())
    world.advance(19_500)
    assert client.is_open
    assert client.received() == []
    world.advance(1000)
    assert client.received() == ["PINGRESP"]
    world.advance(1000)
    assert client.is_open
    world.advance(3000)  # from here on it is silent
    assert not client.is_open


def test_who_goes_while_held_back_is_heard_to_the_end() -> None:
    """Its DISCONNECT too, which keeps its will back."""
    world = new_world(messages_per_s=1, messages_burst=2)
    watching = watcher(world)
    client = world.connect("gone", clean=True, expiry_s=0, will=Will("t", b"99", 0, False, None))
    burst(client, 30)
    client.push(Disconnect(0))
    world.run()
    assert numbers(watching) == [1, 2]
    client.cut()
    assert numbers(watching) == list(range(3, 31))
    world.advance(10_000)
    assert numbers(watching) == []


def test_who_is_cut_off_while_held_back_has_a_will() -> None:
    world = new_world(messages_per_s=1, messages_burst=2)
    watching = watcher(world)
    client = world.connect("gone", clean=True, expiry_s=0, will=Will("t", b"99", 0, False, None))
    burst(client, 5)
    client.cut()
    assert numbers(watching) == [1, 2, 3, 4, 5, 99]


def test_coming_back_at_once_gives_no_new_burst() -> None:
    world = new_world(messages_per_s=1, messages_burst=5)
    watching = watcher(world)
    first = world.hello("again")
    burst(first, 8)
    assert numbers(watching) == [1, 2, 3, 4, 5]
    second = world.hello("again")
    assert not first.is_open
    assert numbers(watching) == [6, 7, 8]  # heard before it was taken over
    burst(second, 3, first=10)
    assert numbers(watching) == []
    world.advance(4100)
    assert numbers(watching) == [10]


def test_one_that_has_no_right_to_the_session_does_not_let_its_holder_through() -> None:
    """A CONNECT that is refused changes nothing for who is held back."""
    world = new_world(messages_per_s=1, messages_burst=5)
    watching = watcher(world)
    holder = world.hello("mine")
    burst(holder, 8)
    assert len(numbers(watching)) == 5
    world.limits.client_takeovers_max = 1
    world.hello("other")
    for _ in range(3):
        world.connect("other")
    assert numbers(watching) == []
    world.connect("mine", will=Will("$SYS/x", b"", 0, False, None))
    assert holder.is_open


def test_acknowledgements_are_in_order_and_exchanges_go_on() -> None:
    world = new_world(messages_per_s=10, messages_burst=3)
    client = world.transient("two")
    burst(client, 6, qos=2)
    assert client.received() == ["PUBREC #1 0x10", "PUBREC #2 0x10", "PUBREC #3 0x10"]
    world.advance(1000)
    assert client.received() == ["PUBREC #4 0x10", "PUBREC #5 0x10", "PUBREC #6 0x10"]


def test_without_a_rate_nothing_is_counted() -> None:
    world = World()
    client = world.transient("free")
    burst(client, 1000)
    assert client.connection.rate is None


def test_a_bucket_and_a_clock_that_is_set() -> None:
    rate = PublishRate(PublishLimits(messages_per_s=10, messages_burst=20), START_MS)
    assert rate.room(START_MS) == 20
    rate.take(30, 0)
    assert rate.room(START_MS) == 0
    assert 1000 <= rate.wait_ms() <= 1200
    assert rate.room(START_MS - 3_600_000) == 0  # nothing is given, nothing is taken
    assert rate.room(START_MS - 3_598_000) == 10
    assert rate.room(START_MS + 10_000_000) == 20
