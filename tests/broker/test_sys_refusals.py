"""No client publishes at or below ``$SYS``: not now, and not by a will."""

import pytest

from holdfast.broker.events import WARNING
from holdfast.protocol.packets import Will
from tests.broker.world import Client, World

OURS = ["$SYS", "$SYS/", "$SYS/broker/version"]
OTHERS = ["$SYSTEM", "$SY", "a/$SYS/b", "$share"]


def watcher(world: World) -> Client:
    """A durable subscriber of all that the tests publish."""
    client = world.hello("watcher")
    for packet_id, topic_filter in enumerate(["$SYS/#", "$SYSTEM", "$SY", "$share", "#"], 1):
        client.subscribe(topic_filter, 2, packet_id)
    client.received()
    return client


def events(world: World) -> list[str]:
    return [event.text for event in world.events if event.level >= WARNING]


@pytest.mark.parametrize("topic", OURS)
@pytest.mark.parametrize("retain", [False, True])
def test_a_publish_there_is_refused_as_its_qos_and_version_allow(topic: str, retain: bool) -> None:
    for version in (4, 5):
        for qos in (0, 1, 2):
            world = World()
            watching = watcher(world)
            rogue = world.hello("rogue", version=version)
            rogue.publish(topic, "x", qos, 7 if qos else 0, retain=retain)
            answer = rogue.received()
            if qos > 0 and version == 5:
                assert answer == [f"{'PUBACK' if qos == 1 else 'PUBREC'} #7 0x87"]
            else:
                assert answer == []
            assert rogue.is_open == (qos == 0 or version == 5)
            assert len(events(world)) == (1 if qos == 0 or version == 4 else 0)
            assert all("outside $SYS" in text for text in events(world))
            assert watching.received() == []
            snapshot = world.disk.store.load()
            assert snapshot.retained == []
            assert snapshot.next_lsn == 1


@pytest.mark.parametrize("topic", OTHERS)
def test_a_topic_that_only_resembles_it_is_not_refused(topic: str) -> None:
    world = World()
    watching = watcher(world)
    client = world.hello("c", will=Will(topic, b"gone", 0))
    client.publish(topic, "x", 1, 7)
    assert client.received() == ["PUBACK #7"]
    client.cut()
    contents = [text.split()[1:3] for text in watching.received()]
    assert contents == [[topic, "x"], [topic, "gone"]]


@pytest.mark.parametrize("topic", OURS)
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_will_there_is_refused_with_the_connection(topic: str, qos: int) -> None:
    for version, answer in ((4, []), (5, ["CONNACK 0x90"])):
        world = World()
        watching = watcher(world)
        present = world.hello("c")
        client = world.connect("c", version=version, will=Will(topic, b"gone", qos, True))
        assert client.received() == answer
        assert not client.is_open
        assert events(world) == [
            "closed: expected a will topic outside $SYS, which only the broker publishes under"
        ]
        # Nothing was done for it: the connection that holds the session goes on.
        assert present.is_open
        assert watching.received() == []
