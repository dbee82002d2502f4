"""What the broker does at each stage of too little memory."""

import pytest

from holdfast.broker.pressure import ACCEPT, ENOUGH, READ, STORE
from tests.broker.world import Client, World


def note(world: World, stage: int) -> None:
    world.broker.begin_turn(world.now_ms)
    world.broker.note_memory(stage)
    world.run()


def bring(client: Client, size: int) -> None:
    client.publish("t", bytes(size))


def throttled(clients: list[Client]) -> list[bool]:
    return [client.connection.is_read_paused for client in clients]


def test_the_fastest_publishers_are_not_read_until_there_is_room() -> None:
    world = World()
    clients = [world.transient(f"c{number}") for number in range(4)]
    note(world, ACCEPT)
    for client, size in zip(clients, (10, 50_000, 1000, 30_000), strict=True):
        bring(client, size)
    note(world, ACCEPT)
    for client, size in zip(clients, (10, 50_000, 1000, 30_000), strict=True):
        bring(client, size)
    note(world, READ)
    assert throttled(clients) == [False, True, False, False]
    bring(clients[3], 30_000)
    note(world, READ)  # still short: the next one
    assert throttled(clients) == [False, True, False, True]
    note(world, ACCEPT)
    assert throttled(clients) == [False] * 4
    assert world.broker.counters.throttled == 2


def test_who_is_not_read_does_not_time_out() -> None:
    world = World()
    client = world.connect("c", keep_alive=1)
    note(world, READ)
    bring(client, 20_000)
    note(world, READ)
    world.advance(60_000)
    assert client.is_open
    note(world, ENOUGH)
    world.advance(60_000)
    assert not client.is_open


def test_at_the_last_stage_what_is_retained_may_be_cleared() -> None:
    world = World()
    client = world.transient("p")
    client.publish("t", "kept", 1, 1, retain=True)
    note(world, STORE)
    client.publish("t", "other", 1, 2, retain=True)
    client.publish("t", "", 1, 3, retain=True)
    assert client.received() == ["PUBACK #1 0x10", "PUBACK #2 0x97", "PUBACK #3 0x10"]
    assert world.broker._router.retained.count == 0


def test_who_has_gone_is_not_kept_while_memory_is_short() -> None:
    world = World()
    client = world.hello("c")
    note(world, READ)
    bring(client, 20_000)
    note(world, READ)
    assert client.connection.is_throttled
    world.hello("c")  # takes it over
    note(world, READ)
    assert world.broker._pressure._throttled == []


@pytest.mark.parametrize("version", [4, 5])
def test_at_the_last_stage_what_has_to_be_stored_is_refused(version: int) -> None:
    world = World()
    world.session("absent", "stored", 1)
    client = world.transient("p", version)
    note(world, STORE)
    client.publish("nobody", "passes", 1, 1)
    client.publish("r", "x", 0, retain=True)
    client.publish("stored", "x", 1, 2)
    if version == 5:
        assert client.received() == ["PUBACK #1 0x10", "PUBACK #2 0x97"]
    else:
        assert client.received() == ["PUBACK #1"]
        assert not client.is_open
        client = world.transient("p", version)
    world.look_at_space()
    assert world.broker.counters.refused == 2
    note(world, ENOUGH)
    world.look_at_space()
    client.publish("stored", "kept", 1, 3)
    assert client.received() == ["PUBACK #3"]
    back = world.hello("absent")
    assert [packet.payload for packet in back.publishes()] == [b"kept"]
    texts = [event.text for event in world.events]
    assert "messages are stored again" in texts
