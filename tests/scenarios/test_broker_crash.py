"""The broker dies. With the store on disk all that it promised is there again."""

import pytest

from tests.support.broker import NewBroker
from tests.support.clients import MosquittoSub, MqttJs, Paho, Subscribes, mosquitto_pub
from tests.support.packets import PUBLISH, RECEIVE_MAXIMUM, V5, Will
from tests.support.wire import Dial, absent, contents, numbered, say

HUNDRED = [str(n) for n in range(1, 101)]


@pytest.mark.parametrize(
    "subscribes", [MosquittoSub, Paho, MqttJs], ids=["mosquitto_sub", "paho", "MQTT.js"]
)
@pytest.mark.parametrize("how", ["kill -9", "SIGTERM"])
def test_a_hundred_wait_on_disk(
    new_broker: NewBroker, name: str, level: int, subscribes: Subscribes, how: str
) -> None:
    """A hundred acknowledged messages wait for an absent subscriber when the broker dies, or is
    stopped. It comes back on the same folder, then the subscriber: all hundred, in order.
    """
    broker = new_broker()
    subscribes(broker.port, level, name, name, 1).leave()
    mosquitto_pub(broker.port, level, name, *HUNDRED)
    if how == "SIGTERM":
        assert broker.terminate() == 0
    broker.restart()

    back = subscribes(broker.port, level, name, name, 1, is_back=True)
    assert back.session_present in (True, None)
    assert back.messages(100) == HUNDRED
    mosquitto_pub(broker.port, level, name, "and on")
    assert back.messages(1) == ["and on"]
    back.leave()


def test_a_hundred_wait_on_disk_by_the_raw_bytes(
    new_broker: NewBroker, dial: Dial, name: str, level: int
) -> None:
    """As above with nothing between the test and the wire: session present, no gap, no double."""
    broker = new_broker()
    absent(broker.port, name, name, 2, level)
    say(broker.port, name, *numbered(50), qos=1, level=level)
    say(broker.port, name, *numbered(50, 51), qos=2, level=level)
    broker.restart()
    back = dial(broker, level)
    assert back.hello(name).session_present
    assert contents(back.messages(100)) == numbered(100)
    back.nothing_but(name, qos=2)


@pytest.mark.parametrize("qos", [1, 2])
def test_the_window_fills_up_again_after_a_crash(
    new_broker: NewBroker, dial: Dial, name: str, qos: int
) -> None:
    """A client that takes six at a time holds six when the broker crashes. They come again; it
    finishes two of them, and is given two more, though it still holds the other four.
    """
    broker = new_broker()
    absent(broker.port, name, name, qos)
    say(broker.port, name, *numbered(20), qos=qos)
    window = {RECEIVE_MAXIMUM: 6}
    client = dial(broker, V5)
    client.hello(name, values=window)
    assert contents(client.expect(PUBLISH) for _ in range(6)) == numbered(6)
    broker.restart()
    client = dial(broker, V5)
    assert client.hello(name, values=window).session_present
    again = [client.expect(PUBLISH) for _ in range(6)]
    assert contents(again) == numbered(6)
    for one in again[:2]:
        client.finish(one)
    more = [client.expect(PUBLISH) for _ in range(2)]
    assert contents(more) == [b"7", b"8"]
    for one in again[2:] + more:
        client.finish(one)
    assert contents(client.messages(12)) == numbered(12, start=9)
    client.nothing_but(name, qos=qos)


def test_nothing_survives_in_memory_and_the_start_says_so(
    new_broker: NewBroker, dial: Dial, name: str, level: int
) -> None:
    """``--store memory`` is honest: it says at the start that nothing will survive. A session is
    kept as long as the broker lives, and after its crash nobody pretends that there was one.
    """
    broker = new_broker(store="memory")
    warning = [line for line in broker.log_lines if "memory" in line.lower()]
    assert warning, "the start does not mention the memory store"
    assert any("survive" in line.lower() or "lost" in line.lower() for line in warning), warning
    absent(broker.port, name, name, 1, level)
    say(broker.port, name, *numbered(100), level=level)
    say(broker.port, f"{name}/r", "kept", retain=True, level=level)
    back = dial(broker, level)
    assert back.hello(name).session_present
    assert contents(back.messages(100)) == numbered(100)
    back.goodbye()
    say(broker.port, name, *numbered(100), level=level)

    broker.restart()
    back = dial(broker, level)
    assert not back.hello(name).session_present
    back.subscribe(f"{name}/r", 1)
    back.nothing_but(f"{name}/r")


@pytest.mark.spec("MQTT5-3.3.1-5")
@pytest.mark.spec("MQTT5-3.3.1-6")
@pytest.mark.spec("MQTT5-3.3.1-8")
@pytest.mark.spec("MQTT311-3.1.2-7")
@pytest.mark.spec("MQTT311-3.3.1-5")
@pytest.mark.spec("MQTT311-3.3.1-10")
@pytest.mark.spec("MQTT311-3.3.1-12")
@pytest.mark.parametrize("qos", [1, 2])
def test_retained_messages_survive_and_cleared_ones_stay_cleared(
    new_broker: NewBroker, dial: Dial, name: str, level: int, qos: int
) -> None:
    """Three topics: one is set, one is set twice, one is set and cleared. The broker crashes, and
    a new subscriber sees just that. Cleared after the crash, it stays cleared after the next.
    """
    broker = new_broker()
    for topic, *payloads in (["set", "1"], ["replaced", "1", "2"], ["cleared", "1", ""]):
        say(broker.port, f"{name}/{topic}", *payloads, qos=qos, retain=True, level=level)
    say(broker.port, f"{name}/set", "not retained", qos=qos, level=level)
    broker.restart()
    watcher = dial(broker, level)
    watcher.hello(f"{name}-1", clean=True)
    watcher.subscribe(f"{name}/+", 2)
    found = {(one.topic, one.payload, one.qos, one.retain) for one in watcher.messages(2)}
    assert found == {
        (f"{name}/set", b"1", qos, True),
        (f"{name}/replaced", b"2", qos, True),
    }
    watcher.nothing_but(f"{name}/x", qos=2)
    say(broker.port, f"{name}/set", "", qos=qos, retain=True, level=level)
    broker.restart()
    watcher = dial(broker, level)
    watcher.hello(f"{name}-2", clean=True)
    watcher.subscribe(f"{name}/+", 2)
    assert [one.topic for one in watcher.messages(1)] == [f"{name}/replaced"]
    watcher.nothing_but(f"{name}/x", qos=2)


@pytest.mark.spec("MQTT5-3.1.2-7")
@pytest.mark.spec("MQTT311-3.1.2-8")
@pytest.mark.parametrize("clean", [False, True], ids=["persistent", "clean"])
@pytest.mark.parametrize("how", ["kill -9", "SIGTERM"])
def test_wills_survive_the_end_of_the_broker(
    new_broker: NewBroker, dial: Dial, name: str, level: int, clean: bool, how: str
) -> None:
    """Devices are connected when the broker crashes or is stopped. None of them has said goodbye,
    so their wills are published, of clean sessions too, and retained as they ask. A device that
    had said goodbye leaves none.
    """
    broker = new_broker()
    absent(broker.port, f"{name}-w", f"{name}/#", 2, level)
    devices = [dial(broker, level) for _ in range(4)]
    for n, device in enumerate(devices):
        will = Will(f"{name}/{n}", b"offline", n % 3, retain=n == 1)
        device.hello(f"{name}-{n}", clean=clean, will=will)
    devices[3].goodbye()
    if how == "SIGTERM":
        assert broker.terminate() == 0
    broker.restart()

    watcher = dial(broker, level)
    assert watcher.hello(f"{name}-w").session_present
    late = dial(broker, level)
    found = sorted(one.topic for one in watcher.until_all({f"{name}/1", f"{name}/2"}))
    # A QoS 0 will may or may not wait for an absent subscriber.
    assert found in ([f"{name}/{n}" for n in (0, 1, 2)], [f"{name}/{n}" for n in (1, 2)])
    watcher.nothing_but(f"{name}/x", qos=2)
    late.hello(f"{name}-l", clean=True)
    late.subscribe(f"{name}/#", 1)
    assert [(one.topic, one.retain) for one in late.messages(1)] == [(f"{name}/1", True)]
    late.nothing_but(f"{name}/x")

    # They are published once: the next start brings none of them again. It follows a clean stop,
    # because a crash may repeat what was acknowledged at QoS 1 a moment ago.
    watcher.goodbye()
    assert broker.terminate() == 0
    broker.start()
    watcher = dial(broker, level)
    assert watcher.hello(f"{name}-w").session_present
    assert b"offline" not in contents(watcher.until_marker(f"{name}/x", qos=2))


def test_mqtt_js_publishes_through_a_crash(new_broker: NewBroker, dial: Dial, name: str) -> None:
    """MQTT.js reconnects by itself. It publishes two hundred messages at QoS 2, the broker is
    killed in the middle and started again; in the end each of them has arrived, once.
    """
    broker = new_broker()
    absent(broker.port, name, name, 2)
    publisher = MqttJs(broker.port, V5, f"{name}-p", reconnect_ms=20)
    for n in range(1, 201):
        publisher.publish(name, str(n), 2)
        if n == 120:
            publisher.acknowledged()
            broker.kill9()
            broker.start()
    for _ in range(199):
        publisher.acknowledged()
    publisher.leave()
    back = dial(broker, V5)
    assert back.hello(name).session_present
    found = contents(back.messages(200))
    assert sorted(found, key=int) == numbered(200)
    back.nothing_but(name, qos=2)
