"""What nobody needs goes from the log, topic by topic; the log as a whole has limits."""

import itertools
import random

import pytest

from holdfast.broker.limits import DROP_OLDEST, Limits
from holdfast.broker.space import united
from holdfast.message import Properties
from holdfast.protocol.packets import Puback, Pubcomp, Publish, Pubrec
from holdfast.store.records import OPEN, Space
from tests.broker.model_store import ModelStore
from tests.broker.test_queue_limits import numbers, publish, publish_at_once, queue_of, take_all
from tests.broker.world import World


def log_of(world: World) -> list[str]:
    """The payloads in the store's log, in order."""
    store = world.disk.store
    assert isinstance(store, ModelStore)
    return [entry.message.payload.decode() for _, entry in sorted(store.entries.items())]


def settle(world: World) -> None:
    """Let the space be looked at until nothing more comes of it."""
    for _ in range(4):
        world.now_ms += 600_000
        world.look_at_space()


def test_a_dead_device_pins_its_own_messages_alone() -> None:
    world = World()
    world.session("dead", "dead/#", 1)
    reader = world.hello("reader")
    reader.subscribe("live/#", 1)
    publisher = world.transient("p")
    for number in range(100):
        publisher.publish("dead/1" if number % 10 == 0 else "live/1", str(number), 1, number + 1)
        take_all(reader)
    settle(world)
    assert log_of(world) == [str(number) for number in range(0, 100, 10)]
    assert take_all(world.hello("dead")) == [str(number) for number in range(0, 100, 10)]


def test_a_session_that_ends_frees_what_it_alone_needed() -> None:
    world = World()
    world.session("a", "a", 1)
    world.session("b", "b", 1)
    for number in range(10):
        publish(world, 1, "ab"[number % 2], first=number)
    world.hello("b", clean=True)
    settle(world)
    assert log_of(world) == ["0", "2", "4", "6", "8"]


def test_messages_in_flight_are_kept_though_their_subscription_is_gone() -> None:
    world = World(Limits(in_flight_max=3))
    world.session("pin", "pin", 1)
    client = world.hello("s")
    client.subscribe("t", 1)
    publish(world, 1, "pin")
    publish(world, 6)
    publish(world, 3, "u")
    client.unsubscribe("t", 2)
    settle(world)
    assert log_of(world) == ["0", *numbers(0, 6)]
    client.cut()
    world.crash()
    world.restart()
    settle(world)
    assert sorted(take_all(world.hello("s"))) == numbers(0, 6)
    settle(world)
    assert log_of(world) == ["0"]


def test_messages_of_a_group_in_flight_are_kept_after_the_member_has_left_it() -> None:
    world = World(Limits(in_flight_max=3))
    world.session("pin", "pin", 1)
    publish(world, 1, "pin")
    client = world.hello("s")
    client.subscribe("$share/g/t", 1)
    publish(world, 3)
    client.unsubscribe("$share/g/t", 2)
    settle(world)
    assert log_of(world) == ["0", *numbers(0, 3)]
    client.cut()
    assert take_all(world.hello("s")) == numbers(0, 3)


def test_a_group_pins_what_its_members_gave_back() -> None:
    world = World(Limits(in_flight_max=2))
    world.session("pin", "pin", 1)
    publish(world, 1, "pin")
    world.session("b", "$share/g/t", 1)
    client = world.hello("a")
    client.subscribe("$share/g/t", 1)
    publish(world, 2)
    client.disconnect()
    world.hello("a", clean=True)
    settle(world)
    assert log_of(world) == ["0", "0", "1"]
    assert take_all(world.hello("b")) == ["0", "1"]
    settle(world)
    assert log_of(world) == ["0"]


def test_retained_messages_on_their_way_to_one_session_go_when_it_has_them() -> None:
    world = World(Limits(in_flight_max=1))
    world.session("pin", "pin", 1)
    publish(world, 1, "pin")
    publisher = world.transient("p")
    for number in range(4):
        publisher.publish(f"r/{number}", str(number), 1, number + 1, retain=True)
    client = world.hello("s")
    client.subscribe("r/#", 1)
    settle(world)
    assert log_of(world) == ["0", *numbers(0, 4)]
    client.send(Puback(client.publishes()[0].packet_id))
    settle(world)
    assert log_of(world) == ["0", *numbers(1, 4)]
    client.disconnect()
    world.hello("s", clean=True)
    settle(world)
    assert log_of(world) == ["0"]


def test_what_is_needless_in_memory_alone_stays_until_that_is_durable() -> None:
    world = World()
    world.session("pin", "pin", 1)
    world.session("s", "t", 1)
    publish(world, 1, "pin")
    publish(world, 3)
    world.disk.hold()
    client = world.connect("s")
    world.turn()
    world.broker.note_space(world.disk.store.space())
    for _ in range(20):
        world.turn()
    assert log_of(world) == ["0", *numbers(0, 3)]
    client.cut()
    world.crash()
    world.disk.release()
    world.restart()
    assert take_all(world.hello("s")) == numbers(0, 3)


def test_what_a_gap_leaves_out_goes() -> None:
    limits = Limits(in_flight_max=4, queue_policy=2)
    limits.queued_messages_max = 10
    world = World(limits)
    world.session("pin", "pin", 1)
    publish(world, 1, "pin")
    world.session("s", "t", 1)
    publish(world, 30)
    settle(world)
    assert log_of(world) == ["0", *numbers(0, 10)]
    client = world.hello("s")
    assert take_all(client) == numbers(0, 10)
    client.disconnect()
    publish(world, 3)
    settle(world)
    assert log_of(world) == ["0", *numbers(0, 3)]


def test_a_full_log_refuses_what_has_to_be_stored_and_nothing_else() -> None:
    world = World(Limits(log_messages_max=10))
    world.session("s", "t", 1)
    answers = publish_at_once(world, 15)
    assert answers[:10] == [f"PUBACK #{number}" for number in range(1, 11)]
    assert answers[10:] == [f"PUBACK #{number} 0x97" for number in range(11, 16)]
    assert publish(world, 1, "nobody's") == ["PUBACK #1 0x10"]
    publisher = world.transient("p")
    publisher.publish("r", "x", 0, retain=True)
    publisher.publish("$delayed/10/t", "x", 1, 5)
    assert publisher.received() == ["PUBACK #5 0x97"]
    assert any("messages that have to be stored are refused" in e.text for e in world.events)
    assert take_all(world.hello("s")) == numbers(0, 10)
    settle(world)
    assert publish(world, 1) == ["PUBACK #1"]
    assert any("messages are stored again" in event.text for event in world.events)


def test_bytes_of_the_log_have_a_limit() -> None:
    world = World(Limits(log_bytes_max=1000))
    world.session("s", "t", 1)
    publisher = world.transient("p")
    for number in range(12):
        publisher.publish("t", bytes(100), 1, number + 1)
    assert publisher.received()[9:] == ["PUBACK #10", "PUBACK #11 0x97", "PUBACK #12 0x97"]


def test_little_room_on_the_disk_refuses_before_a_commit_can_fail() -> None:
    world = World(Limits(disk_free_min_bytes=1000))
    world.session("s", "t", 1)
    world.broker.note_space(space(world, disk_free_bytes=999))
    assert publish(world, 1) == ["PUBACK #1 0x97"]
    world.broker.note_space(space(world, disk_free_bytes=1000))
    assert publish(world, 1) == ["PUBACK #1"]


def space(world: World, disk_free_bytes: int) -> Space:
    now = world.disk.store.space()
    now.disk_free_bytes = disk_free_bytes
    return now


def test_the_oldest_go_for_everyone_when_the_log_is_to_be_kept_small() -> None:
    world = World(Limits(log_messages_max=64, log_policy=DROP_OLDEST))
    world.session("a", "a", 1)
    world.session("b", "b", 1)
    world.session("g", "$share/g/b", 1)
    for number in range(100):
        assert publish(world, 1, "ab"[number % 2], first=number)[0].count(" ") == 1
        world.now_ms += 1000
        world.look_at_space()
    settle(world)
    kept = log_of(world)
    assert 56 <= len(kept) <= 68
    assert kept == numbers(100 - len(kept), 100)
    lost = queue_of(world, "a").lost_messages
    assert take_all(world.hello("a")) == [str(n) for n in range(2 * lost, 100, 2)]
    assert take_all(world.hello("g")) == [n for n in kept if int(n) % 2 == 1]


def test_messages_that_are_too_old_go() -> None:
    world = World(Limits(log_age_max_s=160))
    world.session("s", "t", 1)
    for number in range(30):
        publish(world, 1, first=number)
        world.advance(10_000)
        world.look_at_space()
    settle_age = queue_of(world, "s").lost_messages
    assert 12 <= settle_age <= 14
    assert take_all(world.hello("s")) == numbers(settle_age, 30)
    texts = [event.text for event in world.events]
    assert f"lost {settle_age} messages, {settle_age} in all" in texts


def test_age_counts_over_a_restart() -> None:
    world = World(Limits(log_age_max_s=160))
    world.session("s", "t", 1)
    publish(world, 3)
    world.advance(11_000)
    world.look_at_space()
    world.advance(50_000)
    publish(world, 3, first=3)
    world.crash()
    world.restart(after_ms=120_000)
    world.look_at_space()
    world.look_at_space()
    assert take_all(world.hello("s")) == numbers(3, 6)


def test_a_needed_span_is_never_cut_and_a_needless_one_is_found() -> None:
    generator = random.Random(5)
    for _ in range(300):
        spans: list[tuple[int, int]] = []
        for _ in range(generator.randrange(1, 6)):
            start = generator.randrange(40)
            until = OPEN if generator.random() < 0.2 else start + generator.randrange(1, 15)
            spans.append((start, until))
        merged = united(spans)
        for lsn in range(80):
            wanted = any(a <= lsn and (b == OPEN or lsn < b) for a, b in spans)
            assert wanted == any(a <= lsn and (b == OPEN or lsn < b) for a, b in merged)
        for (_, end), (start, _) in itertools.pairwise(merged):
            assert end != OPEN and end < start


@pytest.mark.parametrize("seed", range(12))
def test_whoever_comes_back_gets_all_that_was_kept_for_it(seed: int) -> None:
    """Sessions come and go at random, everything needless is cut at every chance."""
    generator = random.Random(seed)
    world = World(Limits(in_flight_max=generator.choice([1, 3, 8])))
    filters = ["a", "b", "+", "a/#", "#"]
    owed: dict[str, list[str]] = {}
    wanted: dict[str, str] = {}
    for number in range(6):
        name = f"s{number}"
        wanted[name] = generator.choice(filters)
        owed[name] = []
        world.session(name, wanted[name], 1)
    publisher = world.hello("p")
    for number in range(150):
        action = generator.random()
        topic = generator.choice(["a", "b"])
        if action < 0.7:
            properties = Properties() if number % 5 == 0 else None
            publisher.send(Publish(topic, str(number).encode(), 1, False, False, 1, properties))
            for name, topic_filter in wanted.items():
                if topic_filter in (topic, "+", "#") or (topic_filter, topic) == ("a/#", "a"):
                    owed[name].append(str(number))
        elif action < 0.85:
            name = generator.choice(list(wanted))
            client = world.hello(name)
            assert take_all(client) == owed[name]
            owed[name] = []
            client.disconnect()
        elif action < 0.95:
            world.now_ms += 700_000
            world.look_at_space()
        else:
            world.crash()
            world.restart()
            publisher = world.hello("p")
    for name in wanted:
        assert take_all(world.hello(name)) == owed[name]
    settle(world)
    assert log_of(world) == []


@pytest.mark.spec("MQTT5-3.10.4-3", "MQTT5-4.4.0-1")
@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("restarts", [1, 2])
def test_what_is_in_flight_of_a_group_that_has_ended_is_kept_over_a_start(
    qos: int, restarts: int
) -> None:
    """Nobody is in the group any more, and so nothing says which topics it was about."""
    world = World()
    member = world.hello("m")
    member.subscribe("$share/g/t/+", qos)
    member.packets()
    publisher = world.hello("p")
    publisher.publish("t/1", "sent", qos, 1)
    assert [packet.payload for packet in member.publishes()] == [b"sent"]
    member.unsubscribe("$share/g/t/+")
    member.cut()
    for _ in range(restarts):
        world.crash()
        world.restart()
        publisher = world.hello("p")
        for number in range(5):
            publisher.publish("t/1", "for nobody", 1, 10 + number)
        settle(world)
        member = world.hello("m", receive_maximum=1)  # its state is written again
        member.cut()
    member = world.hello("m")
    again = member.publishes()
    assert [(packet.payload, packet.dup, packet.packet_id) for packet in again] == [
        (b"sent", True, 1)
    ]
    if qos == 1:
        member.send(Puback(1))
    else:
        member.send(Pubrec(1))
        member.send(Pubcomp(1))
    world.advance(1000)
    assert world.broker.trim_point() == world.broker._commits.next_lsn
