"""The ``$SYS`` tree: what it says, when, to whom, and that it leaves no trace."""

import re
from math import exp, isclose
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.broker.limits import LATENCIES_MAX, Limits
from holdfast.broker.sys_topics import LOAD_MINUTES, Latencies, Load
from holdfast.protocol.packets import Pingreq
from tests.broker.world import Client, World

SETTINGS = settings(derandomize=True, deadline=None, database=None, max_examples=100)
REFERENCE: Final = Path(__file__).parents[2] / "docs" / "reference" / "sys-topics.md"
ROOT: Final = "$SYS/broker/"
INTERVAL_MS: Final = 10_000
FORMATS: Final = {
    "text": r".+",
    "seconds": r"\d+ seconds",
    "count": r"\d+",
    "bytes": r"\d+",
    "per minute": r"\d+\.\d\d",
    "ms": r"\d+\.\d\d",
}


def new_world() -> World:
    world = World(Limits(sys_interval_ms=INTERVAL_MS))
    world.run()
    return world


def next_interval(world: World) -> None:
    world.advance(INTERVAL_MS)


def read(world: World) -> dict[str, str]:
    """What is retained, without a client that would be counted."""
    found = world.broker._router.retained.matching("$SYS/#")
    return {message.topic.removeprefix(ROOT): message.payload.decode() for message in found}


def told(client: Client) -> dict[str, str]:
    return {p.topic.removeprefix(ROOT): p.payload.decode() for p in client.publishes()}


# --- all of the tree


def documented() -> dict[str, str]:
    """The unit of each topic in the reference."""
    rows = re.findall(
        r"^\| `(\$SYS/[^`]+)` \| ([^|]+) \| [^|]+ \|$",
        REFERENCE.read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    units: dict[str, str] = {}
    for topic, unit in rows:
        for minutes in LOAD_MINUTES if topic.endswith("+") else [0]:
            units[topic.replace("+", f"{minutes}min")] = unit
    return units


def test_the_reference_has_each_topic_with_its_unit() -> None:
    world = new_world()
    watching = world.transient("watcher")
    watching.subscribe("$SYS/#", 0)
    found = {packet.topic: packet.payload.decode() for packet in watching.publishes()}
    units = documented()
    assert sorted(found) == sorted(units)
    for topic, value in found.items():
        assert re.fullmatch(FORMATS[units[topic]], value), (topic, value)


def test_it_has_the_topics_that_mosquitto_has() -> None:
    """Those of Mosquitto 2.0, without the size of its heap."""
    wanted = ["version", "uptime", "messages/received", "messages/sent", "messages/stored"]
    wanted += [f"clients/{kind}" for kind in ("active", "connected", "disconnected", "expired")]
    wanted += [f"clients/{kind}" for kind in ("inactive", "maximum", "total")]
    wanted += [f"publish/messages/{kind}" for kind in ("dropped", "received", "sent")]
    wanted += ["publish/bytes/received", "publish/bytes/sent", "bytes/received", "bytes/sent"]
    wanted += ["retained messages/count", "subscriptions/count", "shared_subscriptions/count"]
    wanted += ["store/messages/bytes", "store/messages/count"]
    for what in ("messages/received", "messages/sent", "bytes/received", "bytes/sent"):
        wanted += [f"load/{what}/{minutes}min" for minutes in (1, 5, 15)]
    for what in ("publish/received", "publish/sent", "publish/dropped", "connections", "sockets"):
        wanted += [f"load/{what}/{minutes}min" for minutes in (1, 5, 15)]
    assert set(wanted) <= set(read(new_world()))


# --- what the values are


def test_the_version_is_what_the_broker_was_told() -> None:
    assert read(new_world())["version"] == "holdfast in a world"


def test_clients_are_counted_by_what_they_are() -> None:
    world = new_world()
    for number in range(3):
        world.hello(f"stays{number}")
    world.hello("leaves").disconnect()
    world.hello("expires", expiry_s=5).disconnect()
    world.transient("ends").disconnect()
    next_interval(world)
    values = read(world)
    assert values["clients/connected"] == values["clients/active"] == "3"
    assert values["clients/disconnected"] == values["clients/inactive"] == "1"
    assert values["clients/total"] == "4"
    assert values["clients/maximum"] == "4"
    assert values["clients/expired"] == "1"


def test_a_client_that_takes_its_session_over_is_one_client() -> None:
    world = new_world()
    for _ in range(3):
        world.hello("c")
    world.hello("c", clean=True)
    next_interval(world)
    values = read(world)
    assert (
        values["clients/connected"] == values["clients/maximum"] == values["clients/total"] == "1"
    )


def test_the_clients_of_an_earlier_run_are_away() -> None:
    world = new_world()
    for number in range(3):
        world.hello(f"c{number}")
    world.crash()
    world.restart()
    world.hello("c0")
    next_interval(world)
    values = read(world)
    assert (values["clients/connected"], values["clients/disconnected"]) == ("1", "2")
    assert (values["clients/total"], values["clients/maximum"]) == ("3", "1")


def test_packets_and_bytes_are_counted_on_both_ways() -> None:
    world = new_world()
    subscriber = world.transient("s", version=4)
    subscriber.subscribe("a", 1)
    publisher = world.transient("p", version=4)
    for payload in ("1", "22", "333"):
        publisher.publish("a", payload, 1, 7)
    publisher.send(Pingreq())
    next_interval(world)
    values = read(world)
    # Two CONNECTs, SUBSCRIBE, three PUBLISHs, PINGREQ; their answers, and PUBLISH to the other.
    assert values["messages/received"] == "7"
    assert values["messages/sent"] == "10"
    assert values["publish/messages/received"] == values["publish/messages/sent"] == "3"
    assert values["publish/bytes/received"] == values["publish/bytes/sent"] == "6"
    assert values["publish/messages/dropped"] == "0"
    publish_bytes = 3 * 7 + 6
    assert values["bytes/received"] == str(2 * 15 + 8 + publish_bytes + 2)
    assert values["bytes/sent"] == str(subscriber.bytes_received + publisher.bytes_received)
    assert values["bytes/sent"] == str(2 * 4 + 5 + publish_bytes + 3 * 4 + 2)


def test_what_a_commit_holds_back_is_sent_when_it_leaves() -> None:
    world = new_world()
    world.session("absent", "a", 1)
    publisher = world.transient("p", version=4)
    next_interval(world)
    before = read(world)
    world.disk.hold()
    publisher.publish("a", "1", 1, 7)
    next_interval(world)
    assert read(world)["messages/sent"] == before["messages/sent"]
    world.disk.release()
    next_interval(world)
    assert int(read(world)["messages/sent"]) == int(before["messages/sent"]) + 1
    assert int(read(world)["bytes/sent"]) == int(before["bytes/sent"]) + 4


def test_a_message_that_cannot_be_taken_is_dropped() -> None:
    world = new_world()
    slow, small = world.hello("slow"), world.hello("small", maximum_packet_size=100)
    slow.subscribe("a", 0)
    small.subscribe("a", 1)
    slow.stall()
    world.transient("p").publish("a", b"x" * 200, 1, 7)
    next_interval(world)
    assert read(world)["publish/messages/dropped"] == "2"
    assert read(world)["load/publish/dropped/1min"] == f"{12 * (1 - exp(-1 / 6)):.2f}"


def test_what_nobody_connected_wanted_is_not_dropped() -> None:
    world = new_world()
    world.session("plain", "a", qos=1)
    world.session("member", "$share/g/a", qos=1)
    world.session("at-0", "$share/h/a", qos=0)
    publisher = world.transient("publisher")
    publisher.publish("a", "0")
    publisher.publish("a", "1", 1, 1)
    next_interval(world)
    assert read(world)["publish/messages/dropped"] == "0"


def test_subscriptions_and_retained_messages_are_counted() -> None:
    world = new_world()
    client = world.hello("c")
    client.subscribe("a", 1)
    client.subscribe("a", 0)
    client.subscribe("b/#", 0)
    world.session("absent", "a", 1)
    client.publish("r/1", "five!", 1, 1, retain=True)
    client.publish("r/2", "1", 0, retain=True)
    client.publish("r/2", "", 0, retain=True)
    next_interval(world)
    values = read(world)
    assert values["subscriptions/count"] == "3"
    assert values["retained messages/count"] == values["store/messages/count"] == "1"
    assert values["store/messages/bytes"] == "5"
    next_interval(world)
    assert read(world)["retained messages/count"] == "1"
    client.unsubscribe("a")
    next_interval(world)
    assert read(world)["subscriptions/count"] == "2"


def test_the_log_holds_what_a_session_still_needs() -> None:
    world = new_world()
    world.session("absent", "a", 1)
    publisher = world.transient("p")
    publisher.publish("kept", "retained", 1, 1, retain=True)
    for _ in range(5):
        publisher.publish("a", "12345", 1, 7)
    next_interval(world)
    values = read(world)
    assert (values["store/log/messages"], values["store/log/bytes"]) == ("5", "25")
    assert values["store/messages/count"] == values["messages/stored"] == "6"
    assert values["store/messages/bytes"] == "33"

    back = world.hello("absent", receive_maximum=2)
    next_interval(world)
    assert read(world)["store/sessions_behind"] == "1"
    while (waiting := back.publishes()) != []:
        for publish in waiting:
            back.send_bytes(b"\x40\x02" + publish.packet_id.to_bytes(2, "big"))
    next_interval(world)
    values = read(world)
    assert values["store/sessions_behind"] == "0"
    assert (values["store/log/messages"], values["store/log/bytes"]) == ("0", "0")
    assert values["store/messages/count"] == "1"


def test_after_a_restart_the_old_entries_count_as_well() -> None:
    world = new_world()
    world.session("absent", "a", 1)
    for _ in range(3):
        world.transient("p").publish("a", "12345", 1, 7)
    world.crash()
    world.restart()
    assert (read(world)["store/log/messages"], read(world)["store/log/bytes"]) == ("3", "15")
    world.transient("p").publish("a", "12", 1, 7)
    next_interval(world)
    assert (read(world)["store/log/messages"], read(world)["store/log/bytes"]) == ("4", "17")


def test_commits_are_counted_and_timed_by_the_interval() -> None:
    world = new_world()
    next_interval(world)
    before = world.disk.commits
    assert read(world)["store/commits/count"] == str(before)
    client = world.hello("c")
    for number, commit_us in enumerate((1_500, 2_500, 40_000), 1):
        world.disk.commit_us = commit_us
        client.publish("r", str(number), 1, number, retain=True)
    next_interval(world)
    values = read(world)
    assert values["store/commits/count"] == str(world.disk.commits)
    latency = "store/commits/latency_ms/"
    assert values[latency + "p50"] == "1.50"  # of these three and the one for CONNECT
    assert values[latency + "p99"] == values[latency + "maximum"] == "40.00"
    next_interval(world)
    values = read(world)
    assert [values[latency + name] for name in ("p50", "p99", "maximum")] == ["0.00"] * 3


# --- when they are published


def test_all_is_there_when_the_broker_starts() -> None:
    values = read(new_world())
    assert values["uptime"] == "0 seconds"
    assert values["clients/total"] == "0"
    assert values["load/bytes/received/1min"] == "0.00"


def test_only_what_has_changed_is_published_and_only_at_the_interval() -> None:
    world = new_world()
    world.advance(1)
    watching = world.transient("watcher")
    watching.subscribe("$SYS/broker/clients/#", 0)
    watching.subscribe("$SYS/broker/version", 0, 2)
    watching.subscribe("$SYS/broker/uptime", 0, 3)
    assert len(watching.publishes()) == 10
    world.hello("another")
    world.advance(INTERVAL_MS - 2)
    assert watching.publishes() == []
    world.advance(1)
    counts = dict.fromkeys(("active", "connected", "total", "maximum"), "2")
    changed = {f"clients/{name}": count for name, count in counts.items()}
    assert told(watching) == changed | {"uptime": "10 seconds"}
    next_interval(world)
    assert told(watching) == {"uptime": "20 seconds"}


def test_without_an_interval_there_is_nothing() -> None:
    world = World(Limits(sys_interval_ms=0))
    world.run()
    assert world.broker.next_deadline_ms == -1
    world.advance(100_000)
    assert read(world) == {}


def test_a_clock_that_is_set_back_does_no_harm() -> None:
    world = new_world()
    world.now_ms -= 5_000
    world.broker._sys_topics.publish(world.now_ms)  # type: ignore[union-attr]  # it is on
    assert read(world)["uptime"] == "0 seconds"
    world.advance(5_000 + INTERVAL_MS)
    assert read(world)["uptime"] == "10 seconds"


def test_after_a_pause_of_the_machine_it_is_published_once() -> None:
    world = new_world()
    watching = world.transient("watcher")
    watching.subscribe("$SYS/broker/uptime", 0)
    watching.packets()
    world.now_ms += 3_600_000
    world.run()
    assert told(watching) == {"uptime": "3600 seconds"}
    assert world.broker.next_deadline_ms == world.now_ms + INTERVAL_MS


# --- to whom


@pytest.mark.spec("MQTT5-4.7.2-1")
@pytest.mark.spec("MQTT311-4.7.2-1")
def test_a_filter_that_begins_with_a_wildcard_gets_none() -> None:
    world = new_world()
    watching = world.hello("watcher")
    for packet_id, topic_filter in enumerate(["#", "+/#", "+/broker/uptime", "+"], 1):
        watching.subscribe(topic_filter, 2, packet_id)
    next_interval(world)
    assert watching.publishes() == []


@pytest.mark.spec("MQTT5-3.3.1-12")
@pytest.mark.spec("MQTT5-3.3.1-13")
def test_they_come_at_qos_0_and_retained_as_for_any_message() -> None:
    world = new_world()
    clients = [world.hello(str(version), version=version) for version in (4, 5)]
    for client in clients:
        client.subscribe("$SYS/broker/uptime", 2)
    as_published = world.hello("as published")
    as_published.subscribe("$SYS/broker/uptime", 2, retain_as_published=True)
    for client in (*clients, as_published):
        assert [(p.qos, p.retain) for p in client.publishes()] == [(0, True)]
    next_interval(world)
    for client in (*clients, as_published):
        is_retained = client is as_published
        assert [(p.qos, p.retain) for p in client.publishes()] == [(0, is_retained)]


def test_a_shared_group_takes_turns_and_keeps_no_log_for_them() -> None:
    world = new_world()
    members = [world.hello(name) for name in "ab"]
    for member in members:
        member.subscribe("$share/g/$SYS/broker/uptime", 1)
        member.packets()
    next_interval(world)
    next_interval(world)
    assert [len(member.publishes()) for member in members] == [1, 1]
    assert read(world)["shared_subscriptions/count"] == "2"
    for member in members:
        member.disconnect()
    next_interval(world)
    reader = world.hello("reader")
    reader.subscribe("a", 1)
    reader.publish("a", "x", 1, 7)
    reader.disconnect()
    world.hello("reader", clean=True)
    assert world.broker.trim_point() == 2
    world.hello("a").unsubscribe("$share/g/$SYS/broker/uptime")
    next_interval(world)
    assert read(world)["shared_subscriptions/count"] == "1"


def test_a_subscriber_without_room_is_left_out() -> None:
    world = new_world()
    slow = world.transient("slow")
    slow.subscribe("$SYS/#", 0)
    slow.packets()
    slow.stall()
    next_interval(world)
    slow.drain()
    assert slow.publishes() == []
    next_interval(world)
    assert told(slow)["uptime"] == "20 seconds"


# --- no trace


def test_nothing_of_it_reaches_the_store() -> None:
    world = new_world()
    world.session("absent", "$SYS/#", 2)
    online = world.hello("online")
    online.subscribe("$SYS/#", 2)
    slow = world.hello("slow")
    slow.subscribe("$SYS/#", 1)
    slow.stall()
    before, commits = world.disk.store.load(), world.disk.commits
    for _ in range(5):
        next_interval(world)
    assert told(online)["uptime"] == "50 seconds"
    after = world.disk.store.load()
    assert world.disk.commits == commits
    assert after.next_lsn == before.next_lsn == 1
    assert after.retained == []


def test_none_is_left_from_before_a_restart() -> None:
    world = new_world()
    next_interval(world)
    world.crash()
    world.limits = Limits()
    world.restart()
    assert read(world) == {}


def test_an_absent_session_that_wants_nothing_else_keeps_no_log() -> None:
    world = new_world()
    world.session("monitor", "$SYS/#", 1)
    reader = world.hello("reader")
    reader.subscribe("a", 1)
    publisher = world.transient("p")
    for _ in range(3):
        publisher.publish("a", "x", 1, 7)
        for publish in reader.publishes():
            reader.send_bytes(b"\x40\x02" + publish.packet_id.to_bytes(2, "big"))
    next_interval(world)
    assert read(world)["store/log/messages"] == "0"
    assert world.broker.trim_point() == 4

    # Back it gets what is retained, and what it subscribes to from now on.
    back = world.hello("monitor")
    back.subscribe("$SYS/#", 1)
    back.subscribe("a", 1, 2)
    assert told(back)["uptime"] == "10 seconds"
    publisher.publish("a", "new", 1, 7)
    assert [p.payload for p in back.publishes()] == [b"new"]


# --- loads, latencies


@SETTINGS
@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 200_000)), max_size=30))
def test_loads_are_the_sum_of_all_that_came_each_faded_by_its_age(
    intervals: list[tuple[int, int]],
) -> None:
    """What came in an interval counts by its rate, for the part of the weight the interval has."""
    load = Load()
    total = 0
    for count, elapsed_ms in intervals:
        total += count
        load.add(total, elapsed_ms)
    for minutes, average in zip(LOAD_MINUTES, load.averages, strict=True):
        expected, age = 0.0, 0.0
        for count, elapsed_ms in reversed(intervals):
            elapsed = elapsed_ms / 60_000
            weight = exp(-age / minutes) - exp(-(age + elapsed) / minutes)
            expected += count / elapsed * weight
            age += elapsed
        assert isclose(average, expected, rel_tol=1e-9, abs_tol=1e-6)


def test_loads_settle_at_the_rate_and_fade_when_it_ends() -> None:
    world = new_world()
    publisher = world.transient("p")
    expected = dict.fromkeys(LOAD_MINUTES, 0.0)
    for tick in range(1, 61):
        if tick <= 30:
            for _ in range(4):
                publisher.publish("a", "x")
        next_interval(world)
        for minutes in LOAD_MINUTES:
            rate = 24.0 if tick <= 30 else 0.0
            expected[minutes] += (rate - expected[minutes]) * (1 - exp(-1 / 6 / minutes))
            shown = read(world)[f"load/publish/received/{minutes}min"]
            assert shown == f"{expected[minutes]:.2f}"
    assert expected[1] < 0.2 < 4 < expected[15]


@SETTINGS
@given(st.lists(st.integers(0, 10**7), max_size=300))
def test_latencies_are_ranked(taken: list[int]) -> None:
    latencies = Latencies()
    for took_us in taken:
        latencies.add(took_us)
    p50, p99, maximum = latencies.take()
    assert maximum == max(taken, default=0)
    for percent, value in ((50, p50), (99, p99)):
        if taken:
            assert sum(t <= value for t in taken) * 100 >= percent * len(taken)
            assert sum(t < value for t in taken) * 100 < percent * len(taken)
        else:
            assert value == 0
    assert latencies.take() == (0, 0, 0)


def test_latencies_are_bounded_to_the_newest_but_for_the_maximum() -> None:
    latencies = Latencies()
    for took_us in [9_000_000, *range(3 * LATENCIES_MAX)]:
        latencies.add(took_us)
    newest = range(2 * LATENCIES_MAX, 3 * LATENCIES_MAX)
    assert len(latencies._newest) == LATENCIES_MAX
    p50, p99, maximum = latencies.take()
    assert p50 == newest[LATENCIES_MAX // 2 - 1]
    assert p99 == newest[(LATENCIES_MAX * 99 + 99) // 100 - 1]
    assert maximum == 9_000_000
