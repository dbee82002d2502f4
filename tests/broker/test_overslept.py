"""Time in which nobody listened is no silence of the clients; an end that touches no session."""

import pytest

from holdfast.protocol.packets import Disconnect, Pingreq, Will
from holdfast.protocol.reason_codes import KEEP_ALIVE_TIMEOUT, QUOTA_EXCEEDED
from tests.broker.world import World


@pytest.mark.parametrize("version", [4, 5])
def test_missed_time_does_not_count_against_a_keep_alive(version: int) -> None:
    world = World()
    client = world.hello("c", version=version, keep_alive=10)
    world.advance(14_000)
    world.now_ms += 3_600_000
    world.broker.overslept(3_600_000)
    world.run()
    assert client.is_open
    client.send(Pingreq())
    world.advance(14_000)
    assert client.is_open
    world.advance(2_000)
    assert not client.is_open


def test_time_that_passed_counts() -> None:
    world = World()
    client = world.hello("c", keep_alive=10)
    world.broker.overslept(1_000)
    world.advance(15_500)
    assert client.is_open
    world.advance(1_000)
    assert [one.reason_code for one in client.packets() if isinstance(one, Disconnect)] == [
        KEEP_ALIVE_TIMEOUT
    ]


def test_end_all_tells_everyone_and_changes_nothing_that_would_be_stored() -> None:
    world = World()
    client = world.hello("c", will=Will("will", b"gone", 1, False, None))
    old = world.hello("old", version=4)
    waits = world.hello("waits")
    waits.subscribe("a", 1)
    waits.packets()
    world.disk.hold()
    waits.publish("a", "1", 1, packet_id=1)
    batch = world.disk.under_way
    assert batch is not None
    world.broker.end_all(QUOTA_EXCEEDED, "the disk is full")
    world.run()
    for one in (client, waits):
        (last,) = one.packets()
        assert isinstance(last, Disconnect)
        assert last.reason_code == QUOTA_EXCEEDED
        assert last.properties is not None
        assert last.properties.reason_string == "the disk is full"
        assert not one.is_open
    assert old.packets() == []
    assert not old.is_open
    assert world.broker.sessions.find("c") is not None
    assert world.disk.under_way is batch  # nothing follows from it
