"""Retained message and will together: a topic that always says whether a device is there."""

import pytest

from tests.support import packets
from tests.support.broker import BrokerProcess
from tests.support.clients import MqttJs, Paho
from tests.support.packets import DISCONNECT, V5, V311, Packet, Will
from tests.support.wire import Closed, Dial, Wire, contents, say

KEEP_ALIVE_TIMEOUT = 0x8D


def status_of(one: Packet) -> tuple[bytes, bool]:
    return one.payload, one.retain


def dashboard(dial: Dial, broker: BrokerProcess, level: int, name: str, client_id: str) -> Wire:
    """A subscriber to the status of all devices."""
    wire = dial(broker, level)
    wire.hello(f"{name}-{client_id}", clean=True)
    wire.subscribe(f"{name}/+/status", 1)
    return wire


@pytest.mark.spec("MQTT5-3.1.2-8")
@pytest.mark.spec("MQTT5-3.1.2-15")
@pytest.mark.spec("MQTT5-3.3.1-12")
@pytest.mark.spec("MQTT311-3.1.2-8")
@pytest.mark.spec("MQTT311-3.1.2-17")
@pytest.mark.spec("MQTT311-3.3.1-8")
@pytest.mark.spec("MQTT311-3.3.1-9")
@pytest.mark.parametrize("clean", [True, False], ids=["clean", "persistent"])
def test_a_device_is_lost_and_returns(
    broker: BrokerProcess, dial: Dial, name: str, level: int, clean: bool
) -> None:
    """A device says "online" and dies. The dashboard hears "offline"; a dashboard opened later
    sees "offline" at once. The device returns, and both see "online".
    """
    topic = f"{name}/pump/status"
    will = Will(topic, b"offline", 1, retain=True)
    first = dashboard(dial, broker, level, name, "d1")
    device = dial(broker, level)
    device.hello(f"{name}-pump", clean=clean, will=will)
    device.publish(topic, "online", retain=True)
    assert status_of(first.messages(1)[0]) == (b"online", False)
    device.cut()
    assert status_of(first.messages(1)[0]) == (b"offline", False)

    second = dashboard(dial, broker, level, name, "d2")
    assert status_of(second.messages(1)[0]) == (b"offline", True)
    device = dial(broker, level)
    device.hello(f"{name}-pump", clean=clean, will=will)
    device.publish(topic, "online", retain=True)
    for one in (first, second):
        assert status_of(one.messages(1)[0]) == (b"online", False)
    third = dashboard(dial, broker, level, name, "d3")
    assert status_of(third.messages(1)[0]) == (b"online", True)


@pytest.mark.spec("MQTT5-3.1.2-10")
@pytest.mark.spec("MQTT5-3.14.4-3")
@pytest.mark.spec("MQTT311-3.1.2-10")
@pytest.mark.spec("MQTT311-3.14.4-3")
def test_a_device_that_says_goodbye_leaves_no_will(
    broker: BrokerProcess, dial: Dial, name: str, level: int
) -> None:
    """DISCONNECT throws the will away; the status stays what the device said last."""
    topic = f"{name}/pump/status"
    device = dial(broker, level)
    device.hello(f"{name}-pump", will=Will(topic, b"offline", 1, retain=True))
    device.publish(topic, "asleep", retain=True)
    device.goodbye()
    watcher = dashboard(dial, broker, level, name, "d")
    assert status_of(watcher.messages(1)[0]) == (b"asleep", True)
    watcher.nothing_but(topic)


def test_disconnect_with_will(broker: BrokerProcess, dial: Dial, name: str) -> None:
    """In 5.0 a device can leave in order and have its will published: DISCONNECT 0x04."""
    topic = f"{name}/pump/status"
    watcher = dashboard(dial, broker, V5, name, "d")
    device = dial(broker, V5)
    device.hello(f"{name}-pump", will=Will(topic, b"offline", 1))
    device.send(packets.disconnect(V5, 0x04))
    assert device.until_closed() == []
    assert contents(watcher.messages(1)) == [b"offline"]


@pytest.mark.spec("MQTT5-3.1.2-14")
@pytest.mark.spec("MQTT311-3.1.2-16")
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_will_that_is_not_retained(
    broker: BrokerProcess, dial: Dial, name: str, level: int, qos: int
) -> None:
    """It goes at its QoS to those who are subscribed now, and nobody later hears of it."""
    topic = f"{name}/pump/status"
    watcher = dial(broker, level)
    watcher.hello(f"{name}-w", clean=True)
    watcher.subscribe(topic, 2)
    device = dial(broker, level)
    device.hello(f"{name}-pump", clean=True, will=Will(topic, b"offline", qos))
    device.cut()
    (found,) = watcher.messages(1)
    assert (found.payload, found.qos, found.retain) == (b"offline", qos, False)
    late = dashboard(dial, broker, level, name, "d")
    late.nothing_but(topic)


def test_a_will_ends_with_the_broken_connection_of_a_bad_client(
    broker: BrokerProcess, dial: Dial, name: str, level: int
) -> None:
    """A device that breaks the protocol is thrown out, and its will is published."""
    topic = f"{name}/pump/status"
    watcher = dashboard(dial, broker, level, name, "d")
    device = dial(broker, level)
    device.hello(f"{name}-pump", will=Will(topic, b"offline", 1))
    device.send(b"\x00\x00")
    device.until_closed()
    assert contents(watcher.messages(1)) == [b"offline"]


@pytest.mark.spec("MQTT5-3.1.2-8")
def test_a_will_waits_for_its_delay(broker: BrokerProcess, dial: Dial, name: str) -> None:
    """Two devices are lost, whose wills may wait one second and no time. The second is heard
    first, though it was lost later; the first one follows.
    """
    watcher = dashboard(dial, broker, V5, name, "d")
    slow, fast = dial(broker, V5), dial(broker, V5)
    slow.hello(f"{name}-1", will=Will(f"{name}/1/status", b"slow", 1, delay_s=1))
    fast.hello(f"{name}-2", will=Will(f"{name}/2/status", b"fast", 1, delay_s=0))
    slow.cut()
    fast.cut()
    assert contents(watcher.messages(2)) == [b"fast", b"slow"]


@pytest.mark.spec("MQTT5-3.1.2-8")
@pytest.mark.spec("MQTT5-3.1.3-9")
def test_a_device_that_returns_within_the_delay_is_never_called_lost(
    broker: BrokerProcess, dial: Dial, name: str
) -> None:
    """A short loss of the network is no news: the device is back before the delay is over, and
    says goodbye later. Another device's will with the same delay shows that the time has passed.
    """
    topic = f"{name}/pump/status"
    watcher = dashboard(dial, broker, V5, name, "d")
    device, other = dial(broker, V5), dial(broker, V5)
    device.hello(f"{name}-pump", will=Will(topic, b"lost", 1, delay_s=1))
    other.hello(f"{name}-other", will=Will(f"{name}/other/status", b"over", 1, delay_s=1))
    device.cut()
    device = dial(broker, V5)
    assert device.hello(f"{name}-pump").session_present
    other.cut()
    assert contents(watcher.until(b"over")) == [b"over"]
    device.goodbye()
    watcher.nothing_but(topic)


@pytest.mark.spec("MQTT5-3.1.2-8")
def test_the_end_of_the_session_ends_the_delay(
    broker: BrokerProcess, dial: Dial, name: str
) -> None:
    """A will may wait an hour, but its session ends at once, or by a clean start: it comes."""
    watcher = dashboard(dial, broker, V5, name, "d")
    device = dial(broker, V5)
    will = Will(f"{name}/pump/status", b"lost", 1, delay_s=3600)
    device.hello(f"{name}-pump", clean=True, will=will)
    device.cut()
    assert contents(watcher.messages(1)) == [b"lost"]
    device = dial(broker, V5)
    device.hello(f"{name}-pump", will=will)
    device.cut()
    device = dial(broker, V5)
    assert not device.hello(f"{name}-pump", clean=True).session_present
    assert contents(watcher.messages(1)) == [b"lost"]


@pytest.mark.spec("MQTT5-3.1.2-22")
@pytest.mark.spec("MQTT5-3.2.2-22")
@pytest.mark.spec("MQTT311-3.1.2-24")
def test_a_silent_device_is_lost_after_one_and_a_half_keep_alives(
    broker: BrokerProcess, dial: Dial, name: str, level: int
) -> None:
    """A device with a keep alive of one second falls silent, its connection still open. The broker
    closes it, not before 1.5 s, and publishes the will. A device that pings meanwhile stays.
    """
    topic = f"{name}/pump/status"
    watcher = dashboard(dial, broker, level, name, "d")
    healthy, silent = dial(broker, level), dial(broker, level)
    healthy.hello(f"{name}-h", keep_alive_s=1, will=Will(f"{name}/h/status", b"wrong", 1))
    silent.hello(f"{name}-pump", keep_alive_s=1, will=Will(topic, b"lost", 1))
    last: list[Packet] = []
    quarters = 0
    while True:
        healthy.ping()
        try:
            last.append(silent.receive(timeout_s=0.25))
        except TimeoutError:
            quarters += 1
            assert quarters < 40, "the silent connection is still open after 10 s"
        except Closed:
            break
    # The pauses end a little early or late, so five of them for the six of 1.5 s.
    assert quarters >= 5, "the connection was closed too early"
    told = [(DISCONNECT, KEEP_ALIVE_TIMEOUT)] if level == V5 else []
    assert [(one.kind, one.code) for one in last] == told
    assert contents(watcher.messages(1)) == [b"lost"]
    healthy.ping()
    healthy.goodbye()
    watcher.nothing_but(topic)


@pytest.mark.parametrize("device_level", [V311, V5], ids=["3.1.1", "5.0"])
def test_real_clients_tell_the_same_story(
    broker: BrokerProcess, name: str, device_level: int
) -> None:
    """An MQTT.js device with a will dies by ``kill -9``, and a paho dashboard hears of it."""
    topic = f"{name}/pump/status"
    watcher = Paho(broker.port, V5, f"{name}-d", topic, 1)
    will: dict[str, str | int | bool] = {
        "topic": topic,
        "payload": "offline",
        "qos": 1,
        "retain": True,
    }
    device = MqttJs(broker.port, device_level, f"{name}-pump", will=will)
    device.publish(topic, "online", 1, retain=True)
    assert watcher.messages(1) == ["online"]
    device.die()
    assert watcher.messages(1) == ["offline"]
    late = MqttJs(broker.port, device_level, f"{name}-late", topic)
    assert late.event("message") == {
        "event": "message",
        "topic": topic,
        "payload": "offline",
        "qos": 1,
        "retain": True,
    }
    late.leave()
    watcher.leave()


def test_an_empty_will_clears_the_status(
    broker: BrokerProcess, dial: Dial, name: str, level: int
) -> None:
    """A device can ask that its status be forgotten when it is lost: an empty retained will."""
    topic = f"{name}/pump/status"
    watcher = dashboard(dial, broker, level, name, "d")
    say(broker.port, topic, "old", retain=True)
    assert contents(watcher.messages(1)) == [b"old"]
    device = dial(broker, level)
    device.hello(f"{name}-pump", will=Will(topic, b"", 1, retain=True))
    device.cut()
    assert contents(watcher.messages(1)) == [b""]
    late = dashboard(dial, broker, level, name, "late")
    late.nothing_but(topic)
