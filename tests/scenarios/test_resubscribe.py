"""A subscriber repeats its SUBSCRIBE, for another QoS, while messages flow."""

import threading

import pytest

from tests.support import packets
from tests.support.broker import BrokerProcess
from tests.support.packets import PUBLISH, PUBREL, SUBACK, V5, Packet
from tests.support.wire import Dial, Wire, absent, contents, numbered, say


def collect(subscriber: Wire, count: int, again_every: int, topic_filter: str) -> list[Packet]:
    """Take ``count`` messages, and subscribe again, at the next QoS, after so many of them."""
    got: list[Packet] = []
    held: set[int] = set()
    granted, asked = 0, 0
    while len(got) < count or held or granted < asked:
        found = subscriber.receive()
        if found.kind == SUBACK:
            granted += 1
        elif found.kind == PUBREL:
            held.remove(found.packet_id)
            subscriber.send(packets.acknowledge(packets.PUBCOMP, found.packet_id))
        elif found.kind == PUBLISH:
            got.append(found)
            if found.qos == 1:
                subscriber.send(packets.acknowledge(packets.PUBACK, found.packet_id))
            if found.qos == 2:
                held.add(found.packet_id)
                subscriber.send(packets.acknowledge(packets.PUBREC, found.packet_id))
            if len(got) % again_every == 0 and len(got) < count:
                asked += 1
                filters = [(topic_filter, (asked + 1) % 3)]
                subscriber.send(packets.subscribe(asked, filters, subscriber.level))
    return got


@pytest.mark.spec("MQTT5-3.8.4-3")
@pytest.mark.spec("MQTT5-3.8.4-4")
@pytest.mark.spec("MQTT5-3.8.4-8")
@pytest.mark.spec("MQTT311-3.8.4-3")
@pytest.mark.spec("MQTT311-3.8.4-6")
def test_no_gap_and_no_double_while_the_qos_changes(
    broker: BrokerProcess, dial: Dial, name: str, level: int
) -> None:
    """Two thousand messages flow past, and after every hundred the subscriber subscribes again:
    at QoS 2, then 0, then 1, and so on. Each message comes once. Those of one QoS are in order,
    and all three were used.
    """
    everything = numbered(2000)
    subscriber, publisher = dial(broker, level), dial(broker, level)
    subscriber.hello(name)
    subscriber.subscribe(name, 1)
    publisher.hello(f"{name}-p", clean=True)
    arguments = (name, everything, 2)
    stream = threading.Thread(target=publisher.publish_all, args=arguments, daemon=True)
    stream.start()
    found = collect(subscriber, len(everything), 100, name)
    stream.join()
    assert sorted(contents(found), key=int) == everything
    for qos in (0, 1, 2):
        of_qos = [int(one.payload) for one in found if one.qos == qos]
        assert of_qos
        assert of_qos == sorted(of_qos)
    subscriber.goodbye()


@pytest.mark.spec("MQTT5-3.3.1-9")
@pytest.mark.spec("MQTT5-3.8.4-4")
@pytest.mark.spec("MQTT311-3.3.1-6")
@pytest.mark.spec("MQTT311-3.8.4-3")
def test_the_retained_message_comes_again(
    broker: BrokerProcess, dial: Dial, name: str, level: int
) -> None:
    """Each SUBSCRIBE brings the retained message, marked as such and at the new QoS; one that is
    live in between is not marked.
    """
    say(broker.port, name, "state", qos=2, retain=True, level=level)
    subscriber = dial(broker, level)
    subscriber.hello(f"{name}-s")
    for qos in (1, 0, 2):
        subscriber.subscribe(name, qos)
        (retained,) = subscriber.messages(1)
        assert (retained.payload, retained.qos, retained.retain) == (b"state", qos, True)
        say(broker.port, name, "state", qos=2, retain=True, level=level)
        (live,) = subscriber.messages(1)
        assert (live.payload, live.qos, live.retain) == (b"state", qos, False)
    subscriber.nothing_but(name, qos=2)


@pytest.mark.spec("MQTT5-3.3.1-10")
@pytest.mark.spec("MQTT5-3.3.1-11")
def test_retain_handling_can_keep_it_away(broker: BrokerProcess, dial: Dial, name: str) -> None:
    """In 5.0 a subscriber can ask for retained messages with a new subscription only, or never."""
    say(broker.port, name, "state", retain=True)
    subscriber = dial(broker, V5)
    subscriber.hello(f"{name}-s")
    subscriber.subscribe(name, 1 | 2 << 4)
    subscriber.subscribe(name, 1 | 1 << 4)
    subscriber.subscribe(name, 1 | 1 << 4)
    subscriber.nothing_but(name)
    subscriber.unsubscribe(name)
    subscriber.subscribe(name, 1 | 1 << 4)
    assert contents(subscriber.messages(1)) == [b"state"]
    subscriber.nothing_but(name)


def test_what_waits_is_not_lost_when_the_returning_client_subscribes_again(
    broker: BrokerProcess, dial: Dial, name: str, level: int
) -> None:
    """Most clients subscribe whenever they connect. The queue of a session that has just been
    resumed is not touched by it, and each message comes once.
    """
    absent(broker.port, name, name, 1, level)
    say(broker.port, name, *numbered(100), level=level)
    back = dial(broker, level)
    assert back.hello(name).session_present
    back.subscribe(name, 1)
    assert contents(back.messages(100)) == numbered(100)
    back.nothing_but(name)
