"""The limits of what is stored, at the real broker and over its restarts."""

import pytest

from tests.support import packets
from tests.support.broker import NewBroker
from tests.support.packets import V5, V311
from tests.support.wire import Closed, Dial, Wire, absent, contents, numbered, say

QUOTA_EXCEEDED = 0x97


def test_a_full_queue_refuses_also_after_kill_9_and_loses_nothing(
    new_broker: NewBroker, dial: Dial, name: str
) -> None:
    """After the restart what waits is counted in the store."""
    broker = new_broker(settings={"queued_messages_max": 50})
    absent(broker.port, name, f"{name}/#", 1)
    absent(broker.port, f"{name}-other", f"{name}-other", 1)
    say(broker.port, f"{name}/t", *numbered(50))
    taken = 0
    for _ in range(2):
        say(broker.port, f"{name}-other", b"in between")
        with dial(broker, V5) as publisher:
            publisher.hello(f"{name}-p", clean=True)
            while _publish(publisher, f"{name}/t", b"more") != QUOTA_EXCEEDED:
                taken += 1
        broker.restart()
    back = dial(broker, V5)
    assert back.hello(name).session_present
    found = contents(back.messages(50))
    assert found == numbered(50)
    say(broker.port, f"{name}/t", b"end")
    # Until the store has counted, a message or two may come in after each restart.
    assert contents(back.until(b"end")) == [b"more"] * taken + [b"end"]


def _publish(wire: Wire, topic: str, payload: bytes) -> int:
    wire.send(packets.publish(topic, payload, V5, qos=1, packet_id=7))
    return wire.wait_for(packets.PUBACK).code


def test_a_3_1_1_publisher_of_a_full_queue_is_closed_and_a_log_line_says_why(
    new_broker: NewBroker, dial: Dial, name: str
) -> None:
    broker = new_broker(settings={"queued_messages_max": 3})
    absent(broker.port, name, name, 1)
    say(broker.port, name, *numbered(3))
    publisher = dial(broker, V311)
    publisher.hello(f"{name}-p", clean=True)
    publisher.send(packets.publish(name, b"4", V311, qos=1, packet_id=7))
    with pytest.raises(Closed):
        publisher.wait_for(packets.PUBACK)
    broker.process.wait_line(f"queue of every subscriber, that of {name} is full")


def test_a_dead_device_does_not_hold_up_the_others_messages(
    new_broker: NewBroker, dial: Dial, name: str
) -> None:
    """It pins three messages; of thousands that others have been given most go soon, and the rest
    with the next thousand.
    """
    broker = new_broker(settings={"sys_interval_s": 1})
    absent(broker.port, name, f"{name}/dead", 1)
    say(broker.port, f"{name}/dead", *numbered(3))
    reader = dial(broker, V5)
    reader.hello(f"{name}-r")
    reader.subscribe(f"{name}/live/+", 1)
    for topic in range(4):
        say(broker.port, f"{name}/live/{topic}", *numbered(1000))
        assert contents(reader.messages(1000)) == numbered(1000)
    monitor = dial(broker, V5)
    monitor.hello(f"{name}-m", clean=True)
    monitor.subscribe("$SYS/broker/store/log/messages", 0)
    while int(monitor.messages(1)[0].payload) > 1500:
        pass
    broker.restart()
    back = dial(broker, V5)
    assert back.hello(name).session_present
    assert contents(back.messages(3)) == numbered(3)


def test_the_oldest_go_from_the_store_of_a_session_that_stays_away(
    new_broker: NewBroker, dial: Dial, name: str
) -> None:
    """Enough that what is dropped is no longer in memory."""
    settings: dict[str, str | int] = {"queued_messages_max": 2000, "queue_policy": "drop_oldest"}
    broker = new_broker(settings=settings)
    absent(broker.port, name, name, 1)
    say(broker.port, name, *numbered(9000))
    broker.process.wait_line("the oldest are dropped")
    broker.restart()
    say(broker.port, name, b"end")
    back = dial(broker, V5)
    assert back.hello(name).session_present
    found = contents(back.until(b"end"))
    count = len(found) - 1
    assert found[:-1] == numbered(count, start=9001 - count)
    assert count < 9000
