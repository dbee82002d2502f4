"""Nothing in memory grows without a bound, whatever a client does again and again."""

import pytest

from holdfast.broker import connection
from holdfast.broker.limits import INPUT_UNCOMMITTED_BYTES_MAX, OUTPUT_BYTES_MAX, TAIL_BYTES_MAX
from holdfast.broker.log_tail import LogTail
from holdfast.message import Message, Properties
from holdfast.protocol.encode import encode
from holdfast.protocol.packets import Publish, Will
from holdfast.store.records import LogEntry
from tests.broker.world import World

ROUNDS = 300


@pytest.mark.parametrize("pause_ms", [1, 50_000])
@pytest.mark.parametrize("keep_alive", [0, 60_000])
def test_coming_and_going_leaves_no_deadlines_behind(pause_ms: int, keep_alive: int) -> None:
    world = World()
    for _ in range(ROUNDS):
        world.hello("c", expiry_s=100_000, keep_alive=keep_alive).cut()
        world.advance(pause_ms)
    world.advance(20_000)  # CONNECT time-outs
    assert len(world.broker._deadlines._heap) < 20


def test_a_will_put_off_again_and_again_leaves_no_deadlines_behind() -> None:
    world = World()
    for _ in range(ROUNDS):
        properties = Properties()
        properties.will_delay_interval = 50_000
        world.hello("c", will=Will("w", b"gone", properties=properties)).cut()
    world.advance(20_000)
    assert len(world.broker._deadlines._heap) < 20


def large_properties(size: int) -> Properties:
    properties = Properties()
    for _ in range(size // 50_000):
        properties.user_properties.append(("k", "v" * 50_000))
    return properties


def test_properties_count_among_the_uncommitted_bytes_of_a_publisher() -> None:
    world = World()
    world.session("s", "t", 1)
    publisher = world.hello("p")
    world.disk.hold()
    world.connect("other")
    for packet_id in range(1, INPUT_UNCOMMITTED_BYTES_MAX // 900_000 + 3):
        publisher.publish("t", "", 1, packet_id, properties=large_properties(900_000))
    assert publisher.connection.is_read_paused


def test_properties_count_in_the_tail_of_the_log() -> None:
    tail = LogTail(1)
    for lsn in range(1, 100):
        tail.append(LogEntry(lsn, Message("t", b"", 1, False, large_properties(100_000))))
    tail.let_go(100)
    assert (100 - tail.first) * 100_000 <= TAIL_BYTES_MAX + 100_000


def test_a_client_that_does_not_read_its_answers_is_not_read_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its socket takes nothing, and each of its publishes has an answer: they must not pile up."""
    bound = OUTPUT_BYTES_MAX
    if str(connection.__file__).endswith(".py"):  # compiled, the usual bound is built in
        bound = 40_000
        monkeypatch.setattr(connection, "OUTPUT_BYTES_MAX", bound)
    world = World()
    client = world.transient("c", version=4)
    client.stall()
    publishes = b"".join(encode(Publish("t", b"", 1, packet_id=n), 4) for n in range(1, 2001))
    for _ in range(2 * bound // 8000):
        if not client.is_open or client.connection.is_read_paused:
            break
        client.send_bytes(publishes)
    assert not client.is_open or client.connection.is_read_paused
