"""Wills: published once, when they have to be, and whole."""

import pytest

from holdfast.broker.limits import EXPIRY_NEVER, Limits
from holdfast.message import Properties
from holdfast.protocol.packets import Publish, Will
from tests.broker.world import Client, World

DELAY_MAX_S = 0xFFFF_FFFF


def will(payload: str = "gone", delay_s: int | None = None, *, retain: bool = False) -> Will:
    properties = Properties()
    properties.will_delay_interval = delay_s
    return Will("w", payload.encode(), 1, retain, properties)


def watched() -> tuple[World, Client]:
    """A world with a client that hears of every will, and has heard nothing yet."""
    world = World()
    return world, watch(world)


def watch(world: World) -> Client:
    watcher = world.hello("watcher", expiry_s=0)
    watcher.subscribe("w", 0)
    watcher.packets()
    return watcher


@pytest.mark.spec("MQTT5-3.1.2-8")
def test_a_will_on_its_way_to_the_disk_is_not_changed_by_its_publication() -> None:
    """The broker publishes the will while the row that holds it is being written. A crash then
    keeps the row, not the publication: the will's time must not run from that on.
    """
    world = World()
    world.session("observer", "w", 1)
    properties = Properties()
    properties.message_expiry_interval = 10
    world.disk.hold()
    client = world.connect("c", will=Will("w", b"gone", 1, properties=properties))
    client.cut()
    world.crash(commit_survives=True)
    world.disk.release()
    world.restart(after_ms=20_000)
    assert world.hello("observer").received() == ["PUBLISH w gone q1 #1"]


# --- when: the delay, the end of the session, whichever comes first


@pytest.mark.spec("MQTT5-3.1.2-8")
@pytest.mark.parametrize(
    ("delay_s", "expiry_s", "due_s"),
    [
        (None, EXPIRY_NEVER, 0),
        (0, 60, 0),
        (30, 0, 0),
        (30, 60, 30),
        (30, EXPIRY_NEVER, 30),
        (60, 60, 60),
        (90, 60, 60),
        (DELAY_MAX_S, 60, 60),
        (DELAY_MAX_S, DELAY_MAX_S - 1, DELAY_MAX_S - 1),
        (DELAY_MAX_S, EXPIRY_NEVER, DELAY_MAX_S),
    ],
)
@pytest.mark.parametrize("how", ["cut", "0x04", "protocol error", "keep alive"])
def test_a_will_comes_after_its_delay_or_with_the_end_of_its_session(
    delay_s: int | None, expiry_s: int, due_s: int, how: str
) -> None:
    """Neither a millisecond earlier nor later, and never again."""
    world, watcher = watched()
    client = world.hello("c", expiry_s=expiry_s, will=will(delay_s=delay_s), keep_alive=2)
    if how == "cut":
        client.cut()
    elif how == "0x04":
        client.disconnect(0x04)
    elif how == "protocol error":
        client.send_bytes(b"\x00\x00")
    else:
        world.advance(3_000)
    if due_s > 0:
        world.advance(due_s * 1000 - 1)
        assert watcher.received() == []
        world.advance(1)
    assert watcher.received() == ["PUBLISH w gone q0"]
    world.advance(10 * DELAY_MAX_S * 1000)
    world.crash()
    world.restart()
    watcher = watch(world)
    world.advance(10 * DELAY_MAX_S * 1000)
    world.hello("c").cut()
    assert watcher.received() == []


@pytest.mark.spec("MQTT5-3.1.2-10")
@pytest.mark.parametrize("delay_s", [0, 30])
@pytest.mark.parametrize("version", [4, 5])
def test_a_normal_disconnect_takes_the_will_away_for_good(version: int, delay_s: int) -> None:
    world, watcher = watched()
    client = world.hello("c", version=version, expiry_s=60, will=will(delay_s=delay_s))
    client.disconnect()
    world.advance(120_000)
    world.crash()
    world.restart()
    assert watch(world).received() == []
    assert watcher.received() == []


@pytest.mark.parametrize("reason_code", [0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x95, 0x97, 0x99])
def test_any_other_disconnect_leaves_the_will(reason_code: int) -> None:
    world, watcher = watched()
    world.hello("c", will=will()).disconnect(reason_code)
    assert watcher.received() == ["PUBLISH w gone q0"]


@pytest.mark.parametrize("expiry_s", [0, 30])
def test_an_interval_that_disconnect_sets_bounds_the_delay(expiry_s: int) -> None:
    """DISCONNECT 0x04 with a shorter session: the will comes when that session ends."""
    world, watcher = watched()
    client = world.hello("c", expiry_s=600, will=will(delay_s=300))
    properties = Properties()
    properties.session_expiry_interval = expiry_s
    client.disconnect(0x04, properties)
    world.advance(expiry_s * 1000 - 1)
    assert watcher.received() == ([] if expiry_s else ["PUBLISH w gone q0"])
    world.advance(1)
    assert watcher.received() == (["PUBLISH w gone q0"] if expiry_s else [])


def test_a_session_bounded_by_the_server_bounds_the_delay() -> None:
    world = World(Limits(session_expiry_max_s=20))
    watcher = watch(world)
    world.hello("c", expiry_s=EXPIRY_NEVER, will=will(delay_s=300)).cut()
    world.advance(19_999)
    assert watcher.received() == []
    world.advance(1)
    assert watcher.received() == ["PUBLISH w gone q0"]


# --- return and takeover


@pytest.mark.spec("MQTT5-3.1.3-9")
@pytest.mark.parametrize(("away_ms", "is_heard"), [(0, False), (29_999, False), (30_000, True)])
def test_a_client_back_before_the_delay_is_over_is_not_called_lost(
    away_ms: int, is_heard: bool
) -> None:
    world, watcher = watched()
    world.hello("c", will=will(delay_s=30)).cut()
    world.advance(away_ms)
    client = world.hello("c")
    world.advance(60_000)
    client.disconnect(0x04)
    world.advance(60_000)
    assert watcher.received() == (["PUBLISH w gone q0"] if is_heard else [])


@pytest.mark.spec("MQTT5-3.1.3-9")
def test_a_delay_starts_anew_with_each_loss_and_with_the_newest_will() -> None:
    world, watcher = watched()
    world.hello("c", will=will("first", 30)).cut()
    world.advance(20_000)
    client = world.hello("c", will=will("second", 30))
    world.advance(60_000)
    client.cut()
    world.advance(29_999)
    assert watcher.received() == []
    world.advance(1)
    assert watcher.received() == ["PUBLISH w second q0"]


@pytest.mark.spec("MQTT5-3.1.2-8")
@pytest.mark.spec("MQTT5-3.1.3-9")
@pytest.mark.parametrize(
    ("delay_s", "expiry_s", "clean", "is_heard"),
    [
        pytest.param(0, 60, False, True, id="no delay"),
        pytest.param(30, 60, False, False, id="cancelled by the return"),
        pytest.param(30, 60, True, True, id="a clean start ends the session"),
        pytest.param(30, 0, False, True, id="the session ends with its connection"),
    ],
)
@pytest.mark.parametrize("is_absent", [False, True], ids=["takeover", "return"])
def test_what_a_new_connection_does_to_the_will_of_the_old_one(
    delay_s: int, expiry_s: int, clean: bool, is_heard: bool, is_absent: bool
) -> None:
    world, watcher = watched()
    first = world.hello("c", expiry_s=expiry_s, will=will("first", delay_s))
    if is_absent:
        first.cut()
    second = world.hello("c", clean=clean, will=will("second", delay_s))
    world.advance(120_000)
    assert watcher.received() == (["PUBLISH w first q0"] if is_heard else [])
    second.disconnect()
    world.advance(120_000)
    assert watcher.received() == []


# --- over a restart


@pytest.mark.spec("MQTT5-3.1.2-7")
@pytest.mark.spec("MQTT5-3.1.2-8")
@pytest.mark.parametrize("how", ["crash", "stop"])
@pytest.mark.parametrize(("down_ms", "left_ms"), [(0, 15_000), (10_000, 5_000), (100_000, 0)])
def test_a_delay_that_runs_goes_on_while_the_broker_is_down(
    how: str, down_ms: int, left_ms: int
) -> None:
    world = World()
    world.session("observer", "w", 1)
    world.hello("c", will=will(delay_s=30)).cut()
    world.advance(15_000)
    world.end(how)
    world.restart(after_ms=down_ms)
    observer = world.hello("observer")
    if left_ms:
        world.advance(left_ms - 1)
        assert observer.received() == []
        world.advance(1)
    assert observer.received() == ["PUBLISH w gone q1 #1"]
    world.advance(200_000)
    assert observer.received() == []


@pytest.mark.spec("MQTT5-3.1.2-7")
@pytest.mark.parametrize("how", ["crash", "stop"])
@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize(
    ("delay_s", "expiry_s", "due_s"),
    [(None, 0, 0), (30, 0, 0), (0, 60, 0), (30, 60, 30), (90, 60, 60)],
)
def test_the_end_of_the_broker_is_the_loss_of_those_connected(
    how: str, version: int, delay_s: int | None, expiry_s: int, due_s: int
) -> None:
    """Their time runs from the stop, and after a crash, whose time nobody knows, from the start."""
    world = World()
    world.session("observer", "w", 1)
    lost = will(delay_s=delay_s)
    if version == 4:
        lost, due_s = Will("w", b"gone", 1), 0
    world.hello("c", version=version, expiry_s=expiry_s, will=lost)
    world.end(how)
    world.restart(after_ms=5_000)
    observer = world.hello("observer")
    if due_s > 0:
        world.advance(due_s * 1000 - 1 - (5_000 if how == "stop" else 0))
        assert observer.received() == []
        world.advance(1)
    assert observer.received() == ["PUBLISH w gone q1 #1"]


@pytest.mark.parametrize("has_will", [False, True])
def test_a_delay_that_a_return_has_cancelled_is_not_taken_up_by_a_crash(has_will: bool) -> None:
    """The next delay runs from the next loss, here the crash, and is for the next will."""
    world = World()
    world.session("observer", "w", 1)
    world.hello("c", will=will("first", delay_s=30)).cut()
    world.hello("c", will=will("second", delay_s=30) if has_will else None)
    world.advance(60_000)
    world.crash()
    world.restart()
    observer = world.hello("observer")
    world.advance(29_999)
    assert observer.received() == []
    world.advance(1)
    assert observer.received() == (["PUBLISH w second q1 #1"] if has_will else [])


@pytest.mark.spec("MQTT5-3.1.3-9")
@pytest.mark.parametrize("how", ["crash", "stop"])
def test_a_client_back_in_time_after_a_restart_is_not_called_lost(how: str) -> None:
    world = World()
    world.session("observer", "w", 1)
    world.hello("c", will=will(delay_s=30)).cut()
    world.advance(10_000)
    world.end(how)
    world.restart(after_ms=10_000)
    world.hello("c").disconnect()
    world.advance(60_000)
    assert world.hello("observer").received() == []


@pytest.mark.spec("MQTT5-3.1.2-10")
@pytest.mark.parametrize("expiry_s", [0, 600])
def test_a_published_will_is_not_published_again_after_a_crash(expiry_s: int) -> None:
    world = World()
    world.session("observer", "w", 1)
    world.hello("c", expiry_s=expiry_s, will=will()).cut()
    world.crash()
    world.restart()
    assert world.hello("observer").received() == ["PUBLISH w gone q1 #1"]


# --- what: everything that the CONNECT said about it


@pytest.mark.spec("MQTT5-3.1.2-9")
@pytest.mark.spec("MQTT5-3.1.3-10")
@pytest.mark.parametrize("over_a_crash", [False, True])
@pytest.mark.parametrize("retain", [False, True])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_will_keeps_its_qos_and_every_property(
    qos: int, retain: bool, over_a_crash: bool
) -> None:
    """To a subscriber that is there, and retained or not for one that comes later."""
    world = World()
    asked = Properties()
    asked.will_delay_interval = 30
    asked.payload_format_indicator = 1
    asked.message_expiry_interval = 100
    asked.content_type = "text/plain"
    asked.response_topic = "answer/here"
    asked.correlation_data = b"\x00\xff"
    asked.user_properties = [("b", "1"), ("a", "2"), ("b", "1"), ("", "")]
    client = world.hello("c", expiry_s=60, will=Will("w", b"gone", qos, retain, asked))
    client.cut()
    if over_a_crash:
        world.crash()
        world.restart()
    first = world.hello("first")
    first.subscribe("w", 2)
    world.advance(30_000)
    late = world.hello("late")
    world.advance(40_000)
    late.subscribe("w", 2)
    found = [(first, qos, False, 100)]
    if retain:
        found.append((late, qos, True, 60))
    else:
        assert late.received() == ["SUBACK #1 0x02"]
    for client, given_qos, is_retained, left_s in found:
        _, publish = client.packets()
        assert isinstance(publish, Publish)
        assert (publish.topic, publish.payload) == ("w", b"gone")
        assert (publish.qos, publish.retain) == (given_qos, is_retained)
        expected = Properties()
        expected.payload_format_indicator = 1
        expected.message_expiry_interval = left_s
        expected.content_type = "text/plain"
        expected.response_topic = "answer/here"
        expected.correlation_data = b"\x00\xff"
        expected.user_properties = [("b", "1"), ("a", "2"), ("b", "1"), ("", "")]
        assert publish.properties is not None
        assert vars_of(publish.properties) == vars_of(expected)


def vars_of(properties: Properties) -> dict[str, object]:
    return {name: getattr(properties, name) for name in dir(properties) if name[0] != "_"}


@pytest.mark.parametrize("has_properties", [False, True])
def test_a_will_without_properties_has_none(has_properties: bool) -> None:
    """A delay of 0 is none, and belongs to the will, not to its message."""
    world, watcher = watched()
    own = Properties() if has_properties else None
    if own is not None:
        own.will_delay_interval = 0
    world.hello("c", will=Will("w", b"gone", 0, properties=own)).cut()
    (publish,) = watcher.packets()
    assert isinstance(publish, Publish) and publish.properties is None


def test_a_will_waits_in_the_queue_of_an_absent_session_until_it_expires() -> None:
    world = World()
    world.session("in time", "w", 1)
    world.session("too late", "w", 1)
    asked = Properties()
    asked.message_expiry_interval = 10
    asked.will_delay_interval = 100
    world.hello("c", will=Will("w", b"gone", 1, properties=asked)).cut()
    world.advance(100_000)
    world.advance(9_999)
    assert world.hello("in time").received() == ["PUBLISH w gone q1 #1"]
    world.advance(1)
    assert world.hello("too late").received() == []


def test_the_will_is_a_message_of_its_client_for_no_local() -> None:
    """After a DISCONNECT with will the client is back at once, with its subscription."""
    world = World()
    client = world.hello("c", will=will())
    client.subscribe("w", 1, no_local=True)
    client.disconnect(0x04)
    assert world.hello("c").received() == []
