"""A message for later waits on the disk and comes once, whatever happens to the broker."""

from tests.support.broker import NewBroker
from tests.support.wire import Dial, absent, contents, say


def test_a_delayed_message_comes_once_though_the_broker_is_killed(
    new_broker: NewBroker, dial: Dial, name: str, level: int
) -> None:
    """The broker is killed between the acknowledgement and the time the message is due, and once
    more after it was delivered.
    """
    broker = new_broker()
    absent(broker.port, name, f"{name}/#", 2, level)
    say(broker.port, f"$delayed/1/{name}/due", "m", qos=2, retain=True, level=level)
    say(broker.port, f"$delayed/3600/{name}/later", "not today", qos=2, level=level)
    broker.restart()
    back = dial(broker, level)
    assert back.hello(name).session_present
    (found,) = back.messages(1)
    assert (found.topic, found.payload, found.qos) == (f"{name}/due", b"m", 2)

    broker.restart()
    back = dial(broker, level)
    assert back.hello(name).session_present
    back.nothing_but(f"{name}/x", qos=2)
    late = dial(broker, level)
    late.hello(f"{name}-l", clean=True)
    late.subscribe(f"{name}/due", 1)
    (kept,) = late.messages(1)
    assert (kept.payload, kept.retain) == (b"m", True)


def test_a_cancelled_message_stays_away_though_the_broker_is_killed(
    new_broker: NewBroker, dial: Dial, name: str, level: int
) -> None:
    """One under the same address that is published later is due later, and comes alone."""
    broker = new_broker()
    absent(broker.port, name, name, 2, level)
    say(broker.port, f"$delayed/1/{name}", "cancelled", "too", level=level)
    say(broker.port, f"$delayed/1/{name}", "", level=level)
    broker.restart()
    say(broker.port, f"$delayed/1/{name}", "comes", level=level)
    back = dial(broker, level)
    assert back.hello(name).session_present
    assert contents(back.messages(1)) == [b"comes"]
    back.nothing_but(name, qos=2)
