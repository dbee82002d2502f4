"""Sessions: created, found again, taken over, ended."""

import pytest

from tests.broker.world import World


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
