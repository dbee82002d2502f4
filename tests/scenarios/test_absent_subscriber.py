"""A subscriber goes away, and what was promised to it waits."""

import pytest

from tests.support.broker import BrokerProcess
from tests.support.clients import (
    MosquittoSub,
    MqttJs,
    Paho,
    Subscribes,
    mosquitto_pub,
    mosquitto_sub,
)
from tests.support.packets import PUBLISH, RECEIVE_MAXIMUM, V5, V311
from tests.support.wire import Dial, absent, contents, numbered, say

TEN = [f"message {n}" for n in range(1, 11)]

every_client = pytest.mark.parametrize(
    "subscribes", [MosquittoSub, Paho, MqttJs], ids=["mosquitto_sub", "paho", "MQTT.js"]
)


@pytest.mark.spec("MQTT311-3.1.2-5")
@pytest.mark.spec("MQTT311-3.2.2-2")
@pytest.mark.spec("MQTT311-7.0.0-2")
@pytest.mark.spec("MQTT5-3.1.2-5")
@pytest.mark.spec("MQTT5-3.1.2-23")
@every_client
@pytest.mark.parametrize("qos", [1, 2])
def test_a_subscriber_dies_ten_messages_come_and_it_gets_all_ten(
    broker: BrokerProcess, name: str, level: int, subscribes: Subscribes, qos: int
) -> None:
    """A subscriber with a persistent session dies. While it is dead, ten messages come for it.
    It returns with the same identifier, finds its session, and gets all ten, in order.
    """
    first = subscribes(broker.port, level, name, f"{name}/#", qos)
    assert first.session_present in (False, None)
    mosquitto_pub(broker.port, level, f"{name}/a", "while it lives", qos=qos)
    assert first.messages(1) == ["while it lives"]
    first.die()

    mosquitto_pub(broker.port, level, f"{name}/a", *TEN, qos=qos)

    back = subscribes(broker.port, level, name, f"{name}/#", qos, is_back=True)
    assert back.session_present in (True, None)
    assert back.messages(10) == TEN
    mosquitto_pub(broker.port, level, f"{name}/a", "and live again", qos=qos)
    assert back.messages(1) == ["and live again"]
    back.leave()


@pytest.mark.parametrize("subscribes", [Paho, MqttJs], ids=["paho", "MQTT.js"])
def test_a_subscriber_leaves_in_order_and_its_session_waits_too(
    broker: BrokerProcess, name: str, level: int, subscribes: Subscribes
) -> None:
    """A subscriber says DISCONNECT, and still gets what came while it was away."""
    first = subscribes(broker.port, level, name, name, 1)
    first.leave()
    mosquitto_pub(broker.port, level, name, *TEN)
    back = subscribes(broker.port, level, name, name, 1, is_back=True)
    assert back.messages(10) == TEN
    back.leave()


def test_mosquitto_sub_comes_and_goes(broker: BrokerProcess, name: str, level: int) -> None:
    """mosquitto_sub subscribes and leaves in order, and returns for what has come meanwhile."""
    subscription = ("-t", name, "-q", "1")
    assert mosquitto_sub(broker.port, level, name, "-E", *subscription) == []
    mosquitto_pub(broker.port, level, name, *TEN)
    assert mosquitto_sub(broker.port, level, name, "-C", "10", *subscription) == TEN


@pytest.mark.parametrize("publisher_level", [V311, V5], ids=["from 3.1.1", "from 5.0"])
@pytest.mark.parametrize("qos", [1, 2])
def test_the_versions_meet(
    broker: BrokerProcess, dial: Dial, name: str, level: int, publisher_level: int, qos: int
) -> None:
    """What a client of one version publishes waits for a client of the other."""
    absent(broker.port, name, name, qos, level)
    say(broker.port, name, *TEN, qos=qos, level=publisher_level)
    back = dial(broker, level)
    assert back.hello(name).session_present
    assert contents(back.messages(10)) == [text.encode() for text in TEN]


@pytest.mark.spec("MQTT311-4.6.0-6")
@pytest.mark.spec("MQTT311-7.1.1-1")
@pytest.mark.spec("MQTT5-4.6.0-5")
@pytest.mark.parametrize("qos", [1, 2])
def test_five_thousand_wait_and_come_in_order(
    broker: BrokerProcess, dial: Dial, name: str, level: int, qos: int
) -> None:
    """An offline session has 5 000 messages waiting, far more than any window holds. They come
    in order, none twice, and then the session is live: the next message comes as it is published.
    """
    everything = numbered(5000)
    absent(broker.port, name, f"{name}/+", qos, level)
    publisher = dial(broker, level)
    publisher.hello(f"{name}-p", clean=True)
    publisher.publish_all(f"{name}/many", everything, qos, window=500)
    back = dial(broker, level)
    back.hello(name, values={RECEIVE_MAXIMUM: 50} if level == V5 else None)
    assert contents(back.messages(5000)) == everything
    back.nothing_but(f"{name}/many", qos=qos)


def test_messages_that_come_while_the_queue_drains_come_behind_it(
    broker: BrokerProcess, dial: Dial, name: str, level: int
) -> None:
    """A session returns to 300 queued messages, and 300 more are published while it takes them
    one by one. No gap, no double, no overtaking where the past meets the present.
    """
    absent(broker.port, name, name, 1, level)
    say(broker.port, name, *numbered(300), level=level)
    publisher = dial(broker, level)
    publisher.hello(f"{name}-p", clean=True)
    back = dial(broker, level)
    back.hello(name)
    got = []
    for payload in numbered(300, start=301):
        got += back.messages(1)
        publisher.publish(name, payload)
    got += back.messages(300)
    assert contents(got) == numbered(600)
    back.nothing_but(name)


@pytest.mark.spec("MQTT311-3.3.5-1")
@pytest.mark.spec("MQTT5-3.3.4-2")
def test_overlapping_filters_give_an_absent_session_one_copy(
    broker: BrokerProcess, dial: Dial, name: str, level: int
) -> None:
    """A session whose three filters all match gets one copy, at the highest QoS among them."""
    subscriber = dial(broker, level)
    subscriber.hello(name)
    subscriber.subscribe(f"{name}/#", 0)
    subscriber.subscribe(f"{name}/+/room", 1)
    subscriber.subscribe(f"{name}/house/room", 2)
    subscriber.goodbye()
    say(broker.port, f"{name}/house/room", *TEN, qos=2, level=level)
    back = dial(broker, level)
    assert back.hello(name).session_present
    found = back.messages(10)
    assert contents(found) == [text.encode() for text in TEN]
    assert {one.qos for one in found} == {2}
    back.nothing_but(f"{name}/house/room", qos=2)


@pytest.mark.spec("MQTT5-3.3.4-9")
@pytest.mark.spec("MQTT5-4.9.0-2")
@pytest.mark.parametrize("qos", [1, 2])
def test_receive_maximum_holds_for_a_returning_subscriber(
    broker: BrokerProcess, dial: Dial, name: str, qos: int
) -> None:
    """Forty messages wait for a client that takes three at a time. It never has more than three
    unacknowledged, and each one it finishes brings exactly one more.
    """
    absent(broker.port, name, name, qos)
    say(broker.port, name, *numbered(40), qos=qos)
    back = dial(broker, V5)
    back.hello(name, values={RECEIVE_MAXIMUM: 3})
    opened = [back.expect(PUBLISH) for _ in range(3)]
    for _ in range(37):
        # A fourth one on its way would be seen before the answer to the second ping.
        back.ping()
        back.ping()
        assert back.unread == []
        back.finish(opened[-3])
        opened.append(back.expect(PUBLISH))
    for one in opened[-3:]:
        back.finish(one)
    assert contents(opened) == numbered(40)
    back.nothing_but(name, qos=qos)


@pytest.mark.spec("MQTT311-4.1.0-1")
@pytest.mark.parametrize("publisher_is_clean", [True, False], ids=["clean", "persistent"])
def test_a_publisher_that_returns_does_not_touch_what_waits_for_others(
    broker: BrokerProcess, dial: Dial, name: str, level: int, publisher_is_clean: bool
) -> None:
    """A queue waits for an absent subscriber. Its publisher dies and returns, with Clean Session
    1 or 0, whatever it had before: its own session is its own affair, the queue stays.
    """
    absent(broker.port, name, name, 1, level)
    for start, clean in ((1, publisher_is_clean), (6, not publisher_is_clean), (11, True)):
        publisher = dial(broker, level)
        publisher.hello(f"{name}-p", clean=clean)
        publisher.publish_all(name, numbered(5, start))
        publisher.cut()
    publisher = dial(broker, level)
    assert not publisher.hello(f"{name}-p", clean=True).session_present
    publisher.goodbye()
    back = dial(broker, level)
    assert back.hello(name).session_present
    assert contents(back.messages(15)) == numbered(15)
    back.nothing_but(name)


@pytest.mark.spec("MQTT5-3.10.4-2")
@pytest.mark.spec("MQTT5-3.10.4-4")
@pytest.mark.spec("MQTT5-3.10.4-5")
@pytest.mark.spec("MQTT311-3.10.4-2")
@pytest.mark.spec("MQTT311-3.10.4-4")
@pytest.mark.spec("MQTT311-3.10.4-5")
def test_unsubscribe_ends_what_is_queued_and_is_answered_in_any_case(
    broker: BrokerProcess, dial: Dial, name: str, level: int
) -> None:
    """A subscriber drops one of its two filters and goes. Only the other one's messages wait."""
    subscriber = dial(broker, level)
    subscriber.hello(name)
    subscriber.subscribe(f"{name}/keep", 1)
    subscriber.subscribe(f"{name}/drop", 1)
    first = subscriber.unsubscribe(f"{name}/drop")
    again = subscriber.unsubscribe(f"{name}/drop")
    if level == V5:
        assert (first.codes, again.codes) == ((0x00,), (0x11,))
    subscriber.cut()
    say(broker.port, f"{name}/drop", "unwanted", level=level)
    say(broker.port, f"{name}/keep", "wanted", level=level)
    back = dial(broker, level)
    assert back.hello(name).session_present
    assert contents(back.messages(1)) == [b"wanted"]
    back.nothing_but(f"{name}/keep")


def test_qos_0_is_not_promised_to_the_absent_but_never_comes_twice(
    broker: BrokerProcess, dial: Dial, name: str, level: int
) -> None:
    """A message published at QoS 0 for an absent session may be kept or dropped, by the standard;
    what was published at QoS 1 around it comes in order.
    """
    absent(broker.port, name, name, 1, level)
    say(broker.port, name, "1", level=level)
    say(broker.port, name, "zero", qos=0, level=level)
    say(broker.port, name, "2", level=level)
    back = dial(broker, level)
    back.hello(name)
    got = contents(back.until(b"2"))
    assert got in ([b"1", b"2"], [b"1", b"zero", b"2"])
    back.nothing_but(name)
