"""The machine's clock is set by an hour while the broker runs. See docs/reference/time.md."""

import pytest

from tests.support import packets
from tests.support.faulty import FaultyBroker, NewFaultyBroker
from tests.support.packets import PUBACK, V5, Will
from tests.support.wire import Dial, Wire, contents

HOUR_S = 3600
HALF_HOUR_S = 1800
MESSAGE_EXPIRY = 0x02

forward_and_back = pytest.mark.parametrize("step_s", [HOUR_S, -HOUR_S], ids=["forward", "back"])


def publish(client: Wire, topic: str, payload: bytes, expiry_s: int) -> None:
    values: packets.Properties = {MESSAGE_EXPIRY: expiry_s}
    client.send(packets.publish(topic, payload, V5, qos=1, packet_id=9, values=values))
    client.wait_for(PUBACK)


def leave(broker: FaultyBroker, client_id: str, topic_filter: str, expiry_s: int) -> None:
    with Wire(broker.port) as wire:
        wire.hello(client_id, expiry_s=expiry_s)
        wire.subscribe(topic_filter, 1)
        wire.goodbye()


@forward_and_back
def test_no_connection_is_cut_off(
    faulty_broker: NewFaultyBroker, dial: Dial, name: str, level: int, step_s: int
) -> None:
    """A keep alive counts the time that passes, not the time that a clock is set by."""
    broker = faulty_broker()
    watcher = dial(broker, level)
    watcher.hello(f"{name}-w")
    watcher.subscribe(f"{name}/#", 1)
    client = dial(broker, level)
    client.hello(name, keep_alive_s=60, will=Will(f"{name}/will", b"gone", qos=1))
    broker.set_clock(step_s)
    watcher.ping()  # the broker looks at its clock, and nothing has come from the other client
    for _ in range(3):
        client.ping()
        watcher.nothing_but(f"{name}/t")


@forward_and_back
def test_a_keep_alive_still_runs_out(
    faulty_broker: NewFaultyBroker, dial: Dial, name: str, level: int, step_s: int
) -> None:
    broker = faulty_broker()
    watcher = dial(broker, level)
    watcher.hello(f"{name}-w")
    watcher.subscribe(f"{name}/will", 1)
    client = dial(broker, level)
    client.hello(name, keep_alive_s=1, will=Will(f"{name}/will", b"gone", qos=1))
    broker.set_clock(step_s)
    watcher.ping()
    assert contents(watcher.messages(1)) == [b"gone"]
    client.until_closed()


@forward_and_back
def test_sessions_and_messages_age_by_the_wall_but_never_grow_younger(
    faulty_broker: NewFaultyBroker, dial: Dial, name: str, step_s: int
) -> None:
    """Set forward, what had half an hour left is over. Set back, nothing gets more time."""
    broker = faulty_broker()
    leave(broker, f"{name}-short", name, HALF_HOUR_S)
    leave(broker, f"{name}-long", name, 3 * HOUR_S)
    publisher = dial(broker, V5)
    publisher.hello(f"{name}-p", clean=True)
    publish(publisher, name, b"short", HALF_HOUR_S)
    publish(publisher, name, b"long", 3 * HOUR_S)
    broker.set_clock(step_s)
    publisher.ping()
    is_forward = step_s > 0
    short = dial(broker, V5)
    assert short.hello(f"{name}-short").session_present != is_forward
    long = dial(broker, V5)
    assert long.hello(f"{name}-long").session_present
    found = long.until_marker(name)
    assert contents(found) == ([b"long"] if is_forward else [b"short", b"long"])
    left_s = found[-1].number(MESSAGE_EXPIRY, 0)
    gone_s = HOUR_S if is_forward else 0
    assert 3 * HOUR_S - gone_s - 60 < left_s <= 3 * HOUR_S - gone_s


@forward_and_back
def test_what_is_due_does_not_wait_for_a_clock_that_was_set_back(
    faulty_broker: NewFaultyBroker, dial: Dial, name: str, step_s: int
) -> None:
    """A will with a delay, a delayed message and the end of a session come in any case; set
    forward, those that were half an hour away come at once.
    """
    broker = faulty_broker()
    delay_s = HALF_HOUR_S if step_s > 0 else 1
    watcher = dial(broker, V5)
    watcher.hello(f"{name}-w")
    watcher.subscribe(f"{name}/#", 1)
    client = dial(broker, V5)
    will = Will(f"{name}/will", b"gone", qos=1, delay_s=delay_s)
    client.hello(name, expiry_s=2 * HOUR_S, will=will)
    ending = dial(broker, V5)
    will = Will(f"{name}/end", b"ended", qos=1, delay_s=2 * HOUR_S)
    ending.hello(f"{name}-e", expiry_s=delay_s, will=will)
    publisher = dial(broker, V5)
    publisher.hello(f"{name}-p")
    publisher.publish(f"$delayed/{delay_s}/{name}/later", b"later")
    client.cut()
    ending.cut()
    # The first answer may leave in the turn before the one that takes the lost connections in.
    publisher.ping()
    publisher.ping()
    broker.set_clock(step_s)
    publisher.ping()
    expected = {f"{name}/will", f"{name}/end", f"{name}/later"}
    found = watcher.until_all(expected)
    assert sorted(contents(found)) == [b"ended", b"gone", b"later"]


def test_set_back_while_the_broker_is_down(
    faulty_broker: NewFaultyBroker, dial: Dial, name: str
) -> None:
    """What was stored lies an hour ahead: it is all there, and stays for as much longer."""
    broker = faulty_broker()
    broker.set_clock(HOUR_S)
    leave(broker, f"{name}-s", name, HALF_HOUR_S)
    publisher = dial(broker, V5)
    publisher.hello(f"{name}-p", clean=True)
    publish(publisher, name, b"kept", HALF_HOUR_S)
    broker.restart()
    back = dial(broker, V5)
    assert back.hello(f"{name}-s").session_present
    (found,) = back.until_marker(name)
    assert found.payload == b"kept"
    assert HALF_HOUR_S < found.number(MESSAGE_EXPIRY, 0) <= HALF_HOUR_S + HOUR_S
