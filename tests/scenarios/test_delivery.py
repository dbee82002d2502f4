"""Who gets a message, and how: topics with "$", large payloads, many subscribers, all versions."""

import pytest

from tests.support import packets
from tests.support.broker import BrokerProcess
from tests.support.packets import DISCONNECT, MAXIMUM_PACKET_SIZE, PUBACK, PUBLISH, V5, V311
from tests.support.wire import Dial, absent, contents, numbered, say

PACKET_BYTES_MAX = 1 << 20  # the default of the setting packet_bytes_max


@pytest.mark.spec("MQTT5-4.7.2-1")
@pytest.mark.spec("MQTT311-4.7.2-1")
def test_wildcards_do_not_reach_topics_with_a_dollar(
    broker: BrokerProcess, dial: Dial, name: str, level: int
) -> None:
    """ "#" and "+/…" match no topic that begins with "$"; a filter that begins so does."""
    watchers = []
    for n, topic_filter in enumerate(("#", f"+/{name}", f"$test/{name}", "$test/#")):
        watcher = dial(broker, level)
        watcher.hello(f"{name}-{n}", clean=True)
        watcher.subscribe(topic_filter, 1)
        watchers.append(watcher)
    say(broker.port, f"$test/{name}", "hidden", level=level)
    say(broker.port, f"x/{name}", "open", level=level)
    for watcher in watchers[:2]:
        assert contents(watcher.until(b"open")) == [b"open"]
    for watcher in watchers[2:]:
        assert contents(watcher.messages(1)) == [b"hidden"]


@pytest.mark.spec("MQTT5-3.3.1-9")
@pytest.mark.spec("MQTT5-4.7.2-1")
def test_nor_do_they_bring_retained_ones(
    broker: BrokerProcess, dial: Dial, name: str, level: int
) -> None:
    """The same for retained messages, which are looked up the other way round."""
    for topic in (f"$test/{name}/a", f"x/{name}/a"):
        say(broker.port, topic, topic, retain=True, level=level)
    watcher = dial(broker, level)
    watcher.hello(f"{name}-w", clean=True)
    watcher.subscribe(f"+/{name}/#", 1)
    assert [one.topic for one in watcher.messages(1)] == [f"x/{name}/a"]
    watcher.nothing_but(f"x/{name}/a")


def largest(topic: str, size: int, level: int, qos: int = 1) -> bytes:
    """A PUBLISH of exactly ``size`` bytes."""
    spare = size - len(packets.publish(topic, bytes(size), level, qos=qos, packet_id=1))
    data = packets.publish(topic, b"x" * (size + spare), level, qos=qos, packet_id=1)
    assert len(data) == size
    return data


def packet_bytes_max(broker: BrokerProcess, dial: Dial, name: str) -> int:
    """What the broker says that it takes."""
    client = dial(broker, V5)
    return client.hello(f"{name}-m", clean=True).number(MAXIMUM_PACKET_SIZE, 0)


@pytest.mark.parametrize("offline", [False, True], ids=["online", "absent"])
def test_a_megabyte_in_one_message(
    broker: BrokerProcess, dial: Dial, name: str, level: int, offline: bool
) -> None:
    """The largest packet that is allowed goes through, to a subscriber that is there and to one
    that is not.
    """
    assert packet_bytes_max(broker, dial, name) == PACKET_BYTES_MAX
    subscriber = dial(broker, level)
    subscriber.hello(f"{name}-s")
    subscriber.subscribe(name, 1)
    if offline:
        subscriber.cut()
    publisher = dial(broker, level)
    publisher.hello(f"{name}-p", clean=True)
    publisher.send(largest(name, PACKET_BYTES_MAX, level))
    assert publisher.expect(PUBACK).code == 0
    if offline:
        subscriber = dial(broker, level)
        assert subscriber.hello(f"{name}-s").session_present
    (found,) = subscriber.messages(1)
    assert len(found.payload) > PACKET_BYTES_MAX - 100
    assert set(found.payload) == {ord("x")}
    subscriber.nothing_but(name)


@pytest.mark.spec("MQTT5-3.2.2-15")
def test_one_byte_more_is_too_much(
    broker: BrokerProcess, dial: Dial, name: str, level: int
) -> None:
    """One byte above the limit ends the connection, and nobody hears of the message."""
    watcher = dial(broker, level)
    watcher.hello(f"{name}-w", clean=True)
    watcher.subscribe(name, 1)
    publisher = dial(broker, level)
    publisher.hello(f"{name}-p", clean=True)
    # The fixed header says it all; the server need not read the body, so none is sent.
    publisher.send(largest(name, PACKET_BYTES_MAX + 1, level)[:4])
    last = [(one.kind, one.code) for one in publisher.until_closed()]
    assert last == ([(DISCONNECT, 0x95)] if level == V5 else [])
    watcher.nothing_but(name)


@pytest.mark.spec("MQTT5-3.1.2-24")
@pytest.mark.spec("MQTT5-3.1.2-25")
def test_a_message_too_large_for_its_subscriber_is_passed_over(
    broker: BrokerProcess, dial: Dial, name: str
) -> None:
    """A small device says that it takes 200 bytes. A larger message is not for it and holds up
    nothing, online and after an absence.
    """
    limit = {MAXIMUM_PACKET_SIZE: 200}
    device = dial(broker, V5)
    device.hello(name, values=limit)
    device.subscribe(name, 1)
    say(broker.port, name, "1", "x" * 200, "2")
    assert contents(device.messages(2)) == [b"1", b"2"]
    device.cut()
    say(broker.port, name, "3", "x" * 200, "4")
    device = dial(broker, V5)
    device.hello(name, values=limit)
    assert contents(device.messages(2)) == [b"3", b"4"]
    device.nothing_but(name)


@pytest.mark.spec("MQTT5-4.6.0-5")
@pytest.mark.spec("MQTT311-4.6.0-6")
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_one_message_for_many(
    broker: BrokerProcess, dial: Dial, name: str, level: int, qos: int
) -> None:
    """Thirty subscribers of both versions and of every QoS get the same hundred messages, in
    order, each at the lower of the two QoS.
    """
    subscribers = []
    for n in range(30):
        subscriber = dial(broker, (V311, V5)[n % 2])
        subscriber.hello(f"{name}-{n}", clean=n % 5 == 0)
        subscriber.subscribe((f"{name}/+", f"{name}/#", f"{name}/t")[n % 3], n // 2 % 3)
        subscribers.append(subscriber)
    say(broker.port, f"{name}/t", *numbered(100), qos=qos, level=level)
    for n, subscriber in enumerate(subscribers):
        found = subscriber.messages(100)
        assert contents(found) == numbered(100)
        assert {one.qos for one in found} == {min(qos, n // 2 % 3)}


@pytest.mark.spec("MQTT5-3.3.1-3")
@pytest.mark.spec("MQTT311-3.3.1-3")
def test_dup_is_not_passed_on(broker: BrokerProcess, dial: Dial, name: str, level: int) -> None:
    """DUP tells about one connection only: a subscriber sees a first delivery."""
    subscriber = dial(broker, level)
    subscriber.hello(f"{name}-s")
    subscriber.subscribe(name, 1)
    publisher = dial(broker, level)
    publisher.hello(f"{name}-p")
    publisher.send(packets.publish(name, b"x", level, qos=1, packet_id=3, dup=True))
    publisher.expect(PUBACK)
    assert not subscriber.expect(PUBLISH).dup


@pytest.mark.spec("MQTT5-3.3.1-12")
@pytest.mark.spec("MQTT5-3.3.1-13")
@pytest.mark.spec("MQTT5-3.8.3-3")
def test_retain_as_published_and_no_local(broker: BrokerProcess, dial: Dial, name: str) -> None:
    """The subscription options of 5.0: to see RETAIN as it was set, and not to hear oneself."""
    client = dial(broker, V5)
    client.hello(f"{name}-c")
    client.subscribe(f"{name}/rap", 1 | 8)
    client.subscribe(f"{name}/plain", 1)
    client.subscribe(f"{name}/not-mine", 1 | 4)
    for topic in ("not-mine", "rap", "plain"):
        client.publish(f"{name}/{topic}", "own", retain=True)
    found = {one.topic: one.retain for one in client.messages(2)}
    assert found == {f"{name}/rap": True, f"{name}/plain": False}
    say(broker.port, f"{name}/not-mine", "foreign")
    assert contents(client.messages(1)) == [b"foreign"]
    # No Local holds for the session, away or not.
    client.publish(f"{name}/not-mine", "own again")
    client.cut()
    client = dial(broker, V5)
    assert client.hello(f"{name}-c").session_present
    assert b"own again" not in contents(client.until_marker(f"{name}/not-mine"))


@pytest.mark.parametrize("qos", [1, 2])
def test_a_client_may_hear_itself(
    broker: BrokerProcess, dial: Dial, name: str, level: int, qos: int
) -> None:
    """A client subscribed to its own topic gets what it publishes, during its own handshakes."""
    client = dial(broker, level)
    client.hello(name)
    client.subscribe(name, qos)
    client.publish_all(name, numbered(200), qos, window=10)
    assert contents(client.messages(200)) == numbered(200)
    client.nothing_but(name, qos=qos)


def test_an_absent_session_waits_for_retained_messages_like_any_other(
    broker: BrokerProcess, dial: Dial, name: str, level: int
) -> None:
    """What is published with RETAIN while a subscriber is away waits in its queue, every version
    of it, and arrives as a message and not as a retained one.
    """
    absent(broker.port, name, name, 1, level)
    say(broker.port, name, *numbered(3), retain=True, level=level)
    back = dial(broker, level)
    back.hello(name)
    found = back.messages(3)
    assert [(one.payload, one.retain) for one in found] == [(b"%d" % n, False) for n in (1, 2, 3)]
    back.nothing_but(name)
