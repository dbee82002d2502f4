"""Sessions: created, found again, taken over, ended."""

import pytest

from holdfast.broker.limits import EXPIRY_NEVER, Limits
from holdfast.message import Properties
from holdfast.protocol.packets import Connack, Pubcomp, Pubrec, Will
from tests.broker.world import World
from tests.support.properties import properties


@pytest.mark.parametrize("is_connected", [False, True], ids=["absent", "taken over"])
def test_a_session_that_ends_takes_its_uncommitted_subscriptions_along(is_connected: bool) -> None:
    """The batch ends the session and must not bring one of its subscriptions back: a row without
    a session keeps the broker from starting.
    """
    world = World()
    client = world.hello("c")
    world.disk.hold()
    world.connect("other")  # its commit is under way, so that what follows is one batch
    client.subscribe("t", 1)
    if not is_connected:
        client.cut()
    world.connect("c", clean=True, expiry_s=0)
    world.disk.sync()
    world.crash()
    world.restart()
    assert world.broker.sessions.find("c") is None


@pytest.mark.parametrize("version", [4, 5])
def test_a_takeover_leaves_nothing_of_the_old_connection(version: int) -> None:
    world = World()
    for _ in range(5):
        world.hello("c", version=version)
    assert len(world.broker._connections) == 1


@pytest.mark.spec("MQTT5-4.1.0-2")
def test_a_session_whose_time_is_over_is_not_found_though_its_deadline_was_not_looked_at() -> None:
    """CONNECT and the deadline come in one turn, as after a pause of the machine."""
    world = World()
    world.hello("c", expiry_s=10).cut()
    world.now_ms += 11_000
    assert world.connect("c").received() == ["CONNACK 0x00"]


# --- the Session Expiry Interval


def expiry_properties(expiry_s: int | None) -> Properties:
    return properties(session_expiry_interval=expiry_s)


@pytest.mark.spec("MQTT5-3.1.2-23")
@pytest.mark.spec("MQTT5-3.2.2-3")
@pytest.mark.spec("MQTT5-4.1.0-2")
@pytest.mark.parametrize("expiry_s", [1, 60, EXPIRY_NEVER - 1])
@pytest.mark.parametrize("is_goodbye", [False, True])
def test_a_session_is_there_until_its_last_millisecond(expiry_s: int, is_goodbye: bool) -> None:
    for away_ms, answer in (
        (expiry_s * 1000 - 1, "CONNACK 0x00 present"),
        (expiry_s * 1000, "CONNACK 0x00"),
    ):
        world = World()
        client = world.hello("c", expiry_s=expiry_s)
        world.advance(200_000)  # while it is connected no time runs
        if is_goodbye:
            client.disconnect()
        else:
            client.cut()
        world.advance(away_ms)
        assert world.connect("c").received() == [answer]


@pytest.mark.spec("MQTT5-4.1.0-2")
@pytest.mark.parametrize("expiry_s", [None, 0])
@pytest.mark.parametrize("is_goodbye", [False, True])
def test_a_session_without_an_interval_ends_with_its_connection(
    expiry_s: int | None, is_goodbye: bool
) -> None:
    world = World()
    client = world.hello("c", expiry_s=expiry_s)
    client.subscribe("t", 2)
    if is_goodbye:
        client.disconnect()
    else:
        client.cut()
    assert world.broker.sessions.find("c") is None
    assert world.connect("c").received() == ["CONNACK 0x00"]


@pytest.mark.spec("MQTT5-3.1.2-23")
def test_a_session_without_end_has_none() -> None:
    world = World()
    world.hello("c", expiry_s=EXPIRY_NEVER).cut()
    world.advance(2 * EXPIRY_NEVER * 1000)
    world.crash()
    world.restart(after_ms=2 * EXPIRY_NEVER * 1000)
    assert world.connect("c").received() == ["CONNACK 0x00 present"]


@pytest.mark.spec("MQTT5-4.1.0-2")
@pytest.mark.parametrize("how", ["expiry", "expiry while down", "DISCONNECT with 0"])
def test_nothing_is_left_of_a_session_that_ended(how: str) -> None:
    """Not a subscription, not a queued message, not what was in flight on either side, no will.
    What it alone had waited for leaves the log.
    """
    world = World()
    client = world.hello("c", expiry_s=60, receive_maximum=2)
    client.subscribe("t", 2)
    publisher = world.transient("p")
    for number in range(1, 5):
        publisher.publish("t", f"m{number}", 1 + number % 2, number)
    client.send(Pubrec(1))
    client.publish("u", "held", 2, 9)
    if how == "DISCONNECT with 0":
        client.disconnect(0, expiry_properties(0))
    else:
        client.disconnect()
        publisher.publish("t", "m5", 1, 5)
    if how == "expiry":
        world.advance(60_000)
    elif how == "expiry while down":
        world.crash()
        world.restart(after_ms=60_000)
    if how != "DISCONNECT with 0":
        assert world.broker.sessions.find("c") is None, "it waits for the client to return"

    client = world.connect("c")
    assert client.received() == ["CONNACK 0x00"]
    world.transient("q").publish("t", "new", 1, 1)
    assert client.received() == []
    client.publish("u", "another one under the same identifier", 2, 9)
    assert client.received() == ["PUBREC #9 0x10"]
    client.subscribe("t", 2)
    world.transient("q").publish("t", "newer", 2, 1)
    assert client.received() == ["SUBACK #1 0x02", "PUBLISH t newer q2 #1"]
    client.send(Pubrec(1), Pubcomp(1))
    assert world.broker.trim_point() == world.broker.sessions._commits.next_lsn


@pytest.mark.spec("MQTT5-3.1.2-23")
@pytest.mark.spec("MQTT5-4.1.0-2")
@pytest.mark.parametrize("how", ["crash", "stop"])
@pytest.mark.parametrize(
    ("down_ms", "is_present"), [(0, True), (39_999, True), (40_000, False), (10**10, False)]
)
def test_the_interval_of_an_absent_session_runs_on_while_the_broker_is_down(
    how: str, down_ms: int, is_present: bool
) -> None:
    world = World()
    world.hello("c", expiry_s=60).cut()
    world.advance(20_000)
    world.end(how)
    world.restart(after_ms=down_ms)
    answer = "CONNACK 0x00 present" if is_present else "CONNACK 0x00"
    assert world.connect("c").received() == [answer]


@pytest.mark.spec("MQTT5-3.1.2-23")
@pytest.mark.parametrize("how", ["crash", "stop"])
def test_a_session_that_was_connected_is_absent_from_the_stop_or_the_next_start_on(
    how: str,
) -> None:
    world = World()
    world.hello("c", expiry_s=60)
    world.advance(200_000)
    world.end(how)
    world.restart(after_ms=50_000)
    left_ms = 60_000 if how == "crash" else 10_000
    world.advance(left_ms - 1)
    assert world.broker.sessions.find("c") is not None
    world.advance(1)
    assert world.broker.sessions.find("c") is None


@pytest.mark.parametrize(("first_s", "then_s"), [(60, 10), (10, 60), (60, EXPIRY_NEVER)])
@pytest.mark.parametrize("over_a_crash", [False, True])
def test_disconnect_may_set_another_interval(first_s: int, then_s: int, over_a_crash: bool) -> None:
    world = World()
    client = world.hello("c", expiry_s=first_s)
    client.disconnect(0, expiry_properties(then_s))
    if over_a_crash:
        world.crash()
        world.restart()
    world.advance(min(then_s, 1_000_000) * 1000 - 1)
    assert world.broker.sessions.find("c") is not None
    world.advance(1)
    assert (world.broker.sessions.find("c") is None) == (then_s != EXPIRY_NEVER)


def test_each_connect_sets_the_interval_anew_and_none_is_0() -> None:
    world = World()
    world.hello("c", expiry_s=EXPIRY_NEVER).disconnect()
    client = world.connect("c", expiry_s=None)
    assert client.received() == ["CONNACK 0x00 present"]
    client.cut()
    assert world.broker.sessions.find("c") is None


@pytest.mark.parametrize("asked", [None, 0])
def test_disconnect_makes_no_lasting_session_of_a_passing_one(asked: int | None) -> None:
    """A Protocol Error (MQTT 5.0 §3.14.2.2.2): the goodbye does not count, so the will is heard."""
    world = World()
    watcher = world.transient("w")
    watcher.subscribe("w", 0)
    watcher.packets()
    client = world.hello("c", expiry_s=asked, will=Will("w", b"gone"))
    client.disconnect(0, expiry_properties(60))
    assert client.received() == ["DISCONNECT 0x82"]
    assert world.broker.sessions.find("c") is None
    assert watcher.received() == ["PUBLISH w gone q0"]


@pytest.mark.parametrize("max_s", [0, 20])
@pytest.mark.parametrize("asked", [0, 10, 20, 21, 600, EXPIRY_NEVER])
def test_the_server_may_bound_the_interval_and_says_so(max_s: int, asked: int) -> None:
    world = World(Limits(session_expiry_max_s=max_s))
    given = min(asked, max_s)
    client = world.connect("c", expiry_s=asked)
    (connack,) = client.packets()
    assert isinstance(connack, Connack) and connack.properties is not None
    assert connack.properties.session_expiry_interval == (None if given == asked else given)
    client.cut()
    if given > 0:
        world.advance(given * 1000 - 1)
        assert world.broker.sessions.find("c") is not None
        world.advance(1)
    assert world.broker.sessions.find("c") is None


@pytest.mark.parametrize("max_s", [0, 20])
@pytest.mark.parametrize("asked", [1, 30, EXPIRY_NEVER])
def test_the_bound_holds_for_disconnect_too(max_s: int, asked: int) -> None:
    """CONNECT asked for a lasting session, so the client may ask again: no Protocol Error."""
    world = World(Limits(session_expiry_max_s=max_s))
    client = world.hello("c", expiry_s=600)
    client.disconnect(0, expiry_properties(asked))
    assert client.received() == []
    given = min(max_s, asked)
    if given > 0:
        world.advance(given * 1000 - 1)
        assert world.broker.sessions.find("c") is not None
        world.advance(1)
    assert world.broker.sessions.find("c") is None


def test_the_bound_holds_for_sessions_of_3_1_1() -> None:
    world = World(Limits(session_expiry_max_s=20))
    world.hello("c", version=4).cut()
    world.advance(19_999)
    assert world.broker.sessions.find("c") is not None
    world.advance(1)
    assert world.broker.sessions.find("c") is None
