"""What leaves the broker promises something: that is on the disk by then, whatever crashes."""

from collections.abc import Callable

import pytest

from holdfast.protocol.packets import Disconnect, Unsubscribe
from tests.broker.world import Client, World
from tests.support.properties import properties


def ended_by_clean_start(world: World) -> None:
    world.connect("c", clean=True, expiry_s=0)


def ended_by_disconnect(world: World) -> None:
    world.connect("c").disconnect(properties=properties(session_expiry_interval=0))


def ended_by_its_time(world: World) -> None:
    world.advance(200_000)


@pytest.mark.spec("MQTT5-3.1.2-4")
@pytest.mark.spec("MQTT5-3.2.2-3")
@pytest.mark.parametrize("clean", [False, True])
@pytest.mark.parametrize("end", [ended_by_clean_start, ended_by_disconnect, ended_by_its_time])
def test_connack_of_a_new_session_waits_for_the_end_of_the_old_one(
    end: Callable[[World], None], clean: bool
) -> None:
    """Else a crash brings the old session back, after its client was told that it has gone.

    The end is on its way to the disk when another CONNECT of the client comes, for a session that
    needs no disk itself.
    """
    world = World()
    world.hello("c", expiry_s=100).subscribe("t", 1)
    world.clients[max(world.clients)].cut()
    world.disk.hold()
    end(world)
    client = world.connect("c", clean=clean, expiry_s=0)
    told = client.received()
    world.crash()
    world.restart()
    is_back = world.broker.sessions.find("c") is not None
    assert not (told == ["CONNACK 0x00"] and is_back)


def unsubscribes(subscriber: Client) -> None:
    subscriber.send(Unsubscribe(7, ["t"]))


def subscribes_at_qos_0(subscriber: Client) -> None:
    subscriber.subscribe("t", 0, 7)


def ends_its_session(subscriber: Client) -> None:
    subscriber.send(Disconnect(0, properties(session_expiry_interval=0)))


def comes_back_for_a_session_that_is_not_kept(subscriber: Client) -> None:
    subscriber._world.connect("s", expiry_s=0)


@pytest.mark.spec("MQTT5-4.3.2-4")
@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize(
    "change",
    [
        unsubscribes,
        subscribes_at_qos_0,
        ends_its_session,
        comes_back_for_a_session_that_is_not_kept,
    ],
)
def test_an_acknowledgement_does_not_rely_on_a_change_that_a_crash_takes_back(
    change: Callable[[Client], None], qos: int
) -> None:
    """A subscriber's wish to have no more is not on the disk yet, and nobody told it so. If a crash
    takes the wish back, the message acknowledged meanwhile has to be there for it.
    """
    world = World()
    subscriber = world.hello("s")
    subscriber.subscribe("t", 1)
    publisher = world.transient("p")
    world.disk.hold()
    change(subscriber)
    publisher.publish("t", "m", qos, 1)
    is_acknowledged = len(publisher.received()) > 0
    world.crash()
    world.disk.release()
    world.restart()
    got = world.hello("s").received()
    session = world.broker.sessions.find("s")
    is_subscribed = session is not None and "t" in session.subscriptions
    assert not (is_acknowledged and is_subscribed and not got)
