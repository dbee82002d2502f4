"""Clients that come and go too often, and two that take one session from each other."""

import pytest

from holdfast.broker import flapping
from holdfast.broker.flapping import Flapping
from holdfast.broker.limits import Limits
from holdfast.errors import Refused
from tests.broker.world import START_MS, World

WINDOW_MS = 60_000


def new_world(*, client_connects_max: int = 0, client_takeovers_max: int = 0) -> World:
    return World(
        Limits(
            client_connects_max=client_connects_max,
            client_takeovers_max=client_takeovers_max,
            client_window_ms=WINDOW_MS,
        )
    )


@pytest.mark.parametrize("version", [4, 5])
def test_two_devices_with_one_identifier_do_not_take_turns_for_ever(version: int) -> None:
    """Who has the session after the last takeover that counts keeps it."""
    world = new_world(client_takeovers_max=5)
    devices = [world.connect("twin", version=version) for _ in range(2)]
    for _ in range(2):
        devices += [world.connect("twin", version=version) for _ in range(2)]
    holder = devices[-1]
    assert [client.is_open for client in devices] == [False] * 5 + [True]
    holder.packets()
    refused = 0
    for _ in range(100):
        world.advance(1000)
        late = world.connect("twin", version=version)
        assert late.received() == ["CONNACK 0x9F" if version == 5 else "CONNACK 0x03"]
        refused += 1
        assert holder.is_open
    assert world.broker.counters.flapping == refused
    assert world.broker.counters.takeovers == 5


def test_while_nobody_has_the_session_whoever_comes_is_let_in() -> None:
    world = new_world(client_takeovers_max=1)
    world.hello("twin")
    holder = world.hello("twin")
    assert world.connect("twin").received() == ["CONNACK 0x9F"]
    holder.disconnect()
    world.hello("twin")


def test_it_is_over_after_a_while() -> None:
    world = new_world(client_takeovers_max=1)
    world.hello("twin")
    world.hello("twin")
    assert world.connect("twin").received() == ["CONNACK 0x9F"]
    world.advance(WINDOW_MS)
    world.hello("twin")


def test_a_client_whose_network_breaks_now_and_then_takes_over_its_own_session() -> None:
    world = new_world(client_takeovers_max=5)
    for _ in range(50):
        world.hello("meter")
        world.advance(15_000)
    assert world.broker.counters.flapping == 0


def test_a_client_that_comes_and_goes_too_often_is_refused_for_the_rest_of_the_time() -> None:
    world = new_world(client_connects_max=10)
    for _ in range(10):
        world.hello("loop").disconnect()
    client = world.connect("loop")
    assert client.received() == ["CONNACK 0x9F"]
    assert not client.is_open
    world.hello("another")
    world.advance(WINDOW_MS)
    world.hello("loop")


def test_one_that_may_not_connect_does_not_count() -> None:
    """Else whoever knows an identifier could keep its owner out."""
    world = new_world(client_connects_max=3, client_takeovers_max=1)
    world.hello("mine").disconnect()
    world.limits.redirect_code = 0x9C
    for _ in range(10):
        assert world.connect("mine").received() == ["CONNACK 0x9C"]
    world.limits.redirect_code = 0
    world.hello("mine")


def test_identifiers_that_we_assign_are_all_different() -> None:
    world = new_world(client_connects_max=2, client_takeovers_max=1)
    for _ in range(10):
        world.transient("")


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Flapping(Limits(client_connects_max=5))
    for number in range(flapping.CLIENTS_MAX + 100):
        found.connects(f"c{number}", False, START_MS)
    assert found.count == flapping.CLIENTS_MAX
    newest = f"c{flapping.CLIENTS_MAX + 99}"
    for _ in range(4):
        found.connects(newest, False, START_MS)
    with pytest.raises(Refused):
        found.connects(newest, False, START_MS)
    found.connects(newest, False, START_MS - 3_600_000)  # a clock that is set back begins anew


def test_without_limits_nothing_is_remembered() -> None:
    found = Flapping(Limits(client_takeovers_max=3))
    for number in range(10):
        found.connects(f"c{number}", False, START_MS)
    assert found.count == 0
