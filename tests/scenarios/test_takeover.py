"""One client identifier, one session: the connection that comes later takes it over."""

import pytest

from tests.support.broker import BrokerProcess, NewBroker
from tests.support.clients import MqttJs, mosquitto_pub
from tests.support.packets import (
    DISCONNECT,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    V5,
    V311,
    Will,
    acknowledge,
)
from tests.support.wire import Dial, Wire, contents, say

TAKEN_OVER = 0x8E


def lost_its_session(wire: Wire) -> None:
    """The connection is told so, in 5.0, and closed."""
    last = [(one.kind, one.code) for one in wire.until_closed() if one.kind != PUBLISH]
    assert last == ([(DISCONNECT, TAKEN_OVER)] if wire.level == V5 else [])


@pytest.mark.spec("MQTT5-3.1.4-3")
@pytest.mark.spec("MQTT311-3.1.4-2")
@pytest.mark.parametrize("second_level", [V311, V5], ids=["by 3.1.1", "by 5.0"])
def test_the_second_connection_takes_the_session_and_the_first_is_closed(
    broker: BrokerProcess, dial: Dial, name: str, level: int, second_level: int
) -> None:
    """A client connects twice with one identifier. The first connection is told and closed; the
    second has the subscription, what was unacknowledged, and all that comes.
    """
    first = dial(broker, level)
    assert not first.hello(name).session_present
    first.subscribe(name, 1)
    say(broker.port, name, "1")
    one = first.expect(PUBLISH)

    second = dial(broker, second_level)
    assert second.hello(name).session_present
    lost_its_session(first)
    again = second.expect(PUBLISH)
    assert (again.payload, again.packet_id, again.dup) == (b"1", one.packet_id, True)
    second.finish(again)
    say(broker.port, name, "2")
    assert contents(second.messages(1)) == [b"2"]
    second.nothing_but(name)


@pytest.mark.spec("MQTT5-3.1.4-3")
@pytest.mark.spec("MQTT311-3.1.4-2")
def test_two_clients_that_fight_for_one_session_lose_nothing(
    new_broker: NewBroker, dial: Dial, name: str, level: int
) -> None:
    """Two devices were given the same identifier and push each other out, twenty times. Every
    message that is published between two rounds is handed to whoever is in, and none is lost.
    """
    broker = new_broker(settings={"client_takeovers_max": 0})
    holder = dial(broker, level)
    holder.hello(name)
    holder.subscribe(name, 1)
    for payload in (b"%d" % n for n in range(20)):
        challenger = dial(broker, level)
        assert challenger.hello(name).session_present
        lost_its_session(holder)
        say(broker.port, name, payload)
        assert payload in contents(challenger.until(payload))
        holder = challenger
    holder.nothing_but(name)


@pytest.mark.spec("MQTT5-4.4.0-1")
@pytest.mark.spec("MQTT311-4.4.0-1")
def test_takeover_in_the_middle_of_qos_2_on_both_sides(
    broker: BrokerProcess, dial: Dial, name: str, level: int
) -> None:
    """The first connection has received one message up to PUBREL and published another up to
    PUBREC. The second takes over and completes both: each message is delivered once.
    """
    first = dial(broker, level)
    first.hello(name)
    first.subscribe(f"{name}/in", 2)
    say(broker.port, f"{name}/in", "in", qos=2)
    received = first.expect(PUBLISH)
    first.send(acknowledge(PUBREC, received.packet_id))
    assert first.expect(PUBREL).packet_id == received.packet_id
    watcher = dial(broker, level)
    watcher.hello(f"{name}-w")
    watcher.subscribe(f"{name}/out", 2)
    first.publish_until_pubrec(f"{name}/out", b"out", packet_id=9)

    second = dial(broker, level)
    assert second.hello(name).session_present
    lost_its_session(first)
    second.send(acknowledge(PUBREL, 9))
    second.wait_for(PUBCOMP)
    assert contents(watcher.messages(1)) == [b"out"]
    watcher.nothing_but(f"{name}/out", qos=2)
    assert second.expect(PUBREL).packet_id == received.packet_id
    second.send(acknowledge(PUBCOMP, received.packet_id))
    second.nothing_but(f"{name}/in", qos=2)


@pytest.mark.spec("MQTT5-3.1.2-4")
@pytest.mark.spec("MQTT5-3.2.2-2")
@pytest.mark.spec("MQTT311-3.1.2-6")
@pytest.mark.spec("MQTT311-3.2.2-1")
def test_a_clean_start_takes_over_and_empties_the_session(
    broker: BrokerProcess, dial: Dial, name: str, level: int
) -> None:
    """The second connection asks for a clean session: it gets one, and nothing of the first."""
    first = dial(broker, level)
    first.hello(name)
    first.subscribe(name, 1)
    say(broker.port, name, "for the first")
    first.expect(PUBLISH)

    second = dial(broker, level)
    assert not second.hello(name, clean=True).session_present
    lost_its_session(first)
    say(broker.port, name, "for nobody")
    second.subscribe(f"{name}/other", 1)
    second.nothing_but(f"{name}/other")


@pytest.mark.spec("MQTT311-3.1.2-8")
@pytest.mark.spec("MQTT5-3.1.2-8")
def test_the_will_of_the_first_connection_is_published(
    broker: BrokerProcess, dial: Dial, name: str, level: int
) -> None:
    """The first connection ended without DISCONNECT of its client, so its will is published."""
    watcher = dial(broker, level)
    watcher.hello(f"{name}-w", clean=True)
    watcher.subscribe(f"{name}/will", 1)
    first, second = dial(broker, level), dial(broker, level)
    first.hello(name, will=Will(f"{name}/will", b"first", 1))
    second.hello(name, will=Will(f"{name}/will", b"second", 1))
    lost_its_session(first)
    assert contents(watcher.messages(1)) == [b"first"]
    second.goodbye()
    watcher.nothing_but(f"{name}/will")


@pytest.mark.spec("MQTT5-3.1.3-9")
def test_a_will_with_a_delay_is_not_published_unless_the_session_ends(
    broker: BrokerProcess, dial: Dial, name: str
) -> None:
    """The second connection goes on with the session, so the first one's delayed will is void; a
    third, with a clean start, ends the session and so publishes the will of the second.
    """
    watcher = dial(broker, V5)
    watcher.hello(f"{name}-w", clean=True)
    watcher.subscribe(f"{name}/will", 1)
    first, second, third = (dial(broker, V5) for _ in range(3))
    first.hello(name, will=Will(f"{name}/will", b"first", 1, delay_s=3600))
    second.hello(name, will=Will(f"{name}/will", b"second", 1, delay_s=3600))
    lost_its_session(first)
    watcher.nothing_but(f"{name}/will")
    third.hello(name, clean=True)
    lost_its_session(second)
    assert contents(watcher.messages(1)) == [b"second"]
    third.goodbye()
    watcher.nothing_but(f"{name}/will")


def test_mqtt_js_is_told_why_it_is_closed(broker: BrokerProcess, name: str) -> None:
    """Two MQTT.js clients: the first hears "session taken over", the second has the session."""
    first = MqttJs(broker.port, V5, name, name)
    second = MqttJs(broker.port, V5, name, is_back=True)
    assert second.session_present
    assert first.event("disconnected")["reasonCode"] == TAKEN_OVER
    first.event("closed")
    mosquitto_pub(broker.port, V5, name, "for the second")
    assert second.messages(1) == ["for the second"]
    first.die()
    second.leave()
