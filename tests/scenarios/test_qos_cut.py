"""A QoS 1 or QoS 2 handshake is cut after each of its packets, on either side, and resumes there.

"Cut" is a lost connection, or a ``kill -9`` of the broker. The other end of each story checks what
really counts: the message is there, and with QoS 2 it is there once.
"""

from collections.abc import Callable

import pytest

from tests.support import packets
from tests.support.broker import BrokerProcess, NewBroker
from tests.support.packets import (
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    Packet,
    acknowledge,
)
from tests.support.wire import Dial, Wire, absent, contents, say

PUBCOMP_CODES = (0x00, 0x92)  # a PUBREL that repeats may find its identifier gone [MQTT-3.7.2-1]


class Cut:
    """A broker, and the way in which connections to it break in this test."""

    def __init__(self, broker: BrokerProcess, *, by_crash: bool) -> None:
        self.broker = broker
        self._by_crash = by_crash

    def __call__(self, wire: Wire) -> None:
        if self._by_crash:
            self.broker.kill9()
            wire.cut()
            self.broker.start()
        else:
            wire.cut()


@pytest.fixture(params=["lost connection", "kill -9"])
def cut(request: pytest.FixtureRequest, new_broker: NewBroker) -> Cut:
    with_crash = request.param == "kill -9"
    # A shared broker serves the stories without a crash.
    broker = new_broker() if with_crash else request.getfixturevalue("broker")
    return Cut(broker, by_crash=with_crash)


def send_publish(wire: Wire, topic: str, qos: int, *, dup: bool = False) -> None:
    wire.send(packets.publish(topic, b"once", wire.level, qos=qos, packet_id=7, dup=dup))


def expect(wire: Wire, kind: int, packet_id: int = 7) -> Packet:
    found = wire.expect(kind)
    assert found.packet_id == packet_id, f"not for packet {packet_id}: {found}"
    return found


def resumed(dial: Dial, cut: Cut, level: int, client_id: str) -> Wire:
    wire = dial(cut.broker, level)
    assert wire.hello(client_id).session_present
    return wire


def arrived(dial: Dial, cut: Cut, level: int, name: str) -> list[bytes]:
    """What the subscriber, absent until now, has got: up to a marker that is published now."""
    say(cut.broker.port, f"{name}/t", "end", qos=2)
    subscriber = resumed(dial, cut, level, f"{name}-s")
    return contents(subscriber.until(b"end"))[:-1]


# The broker receives: a publisher with a session of its own.


@pytest.mark.spec("MQTT5-4.3.3-10")
@pytest.mark.spec("MQTT311-4.3.3-2")
def test_publisher_qos_2_cut_after_publish(dial: Dial, cut: Cut, name: str, level: int) -> None:
    """PUBLISH is under way when the connection breaks, so the publisher sends it again with DUP.
    Whether the first one had arrived or not, the message is delivered once.
    """
    absent(cut.broker.port, f"{name}-s", f"{name}/+", 2, level)
    publisher = dial(cut.broker, level)
    publisher.hello(f"{name}-p")
    send_publish(publisher, f"{name}/t", 2)
    cut(publisher)

    publisher = resumed(dial, cut, level, f"{name}-p")
    send_publish(publisher, f"{name}/t", 2, dup=True)
    expect(publisher, PUBREC)
    publisher.send(acknowledge(PUBREL, 7))
    assert expect(publisher, PUBCOMP).code == 0
    assert arrived(dial, cut, level, name) == [b"once"]


@pytest.mark.spec("MQTT5-4.3.3-8")
@pytest.mark.spec("MQTT5-4.3.3-10")
@pytest.mark.spec("MQTT311-4.3.3-2")
@pytest.mark.parametrize("pubrec_is_lost", [False, True], ids=["PUBREC came", "PUBREC lost"])
def test_publisher_qos_2_cut_after_pubrec(
    dial: Dial, cut: Cut, name: str, level: int, pubrec_is_lost: bool
) -> None:
    """The broker has sent PUBREC, so it owns the message. A publisher that got it goes on with
    PUBREL; one that did not sends the PUBLISH again, and that is not a second message.
    """
    absent(cut.broker.port, f"{name}-s", f"{name}/+", 2, level)
    publisher = dial(cut.broker, level)
    publisher.hello(f"{name}-p")
    send_publish(publisher, f"{name}/t", 2)
    expect(publisher, PUBREC)
    cut(publisher)

    publisher = resumed(dial, cut, level, f"{name}-p")
    if pubrec_is_lost:
        send_publish(publisher, f"{name}/t", 2, dup=True)
        expect(publisher, PUBREC)
    publisher.send(acknowledge(PUBREL, 7))
    assert expect(publisher, PUBCOMP).code == 0
    assert arrived(dial, cut, level, name) == [b"once"]


@pytest.mark.spec("MQTT5-4.3.3-11")
@pytest.mark.spec("MQTT311-4.3.3-2")
def test_publisher_qos_2_cut_after_pubrel(dial: Dial, cut: Cut, name: str, level: int) -> None:
    """PUBREL is under way when the connection breaks. Sent again, it is answered with PUBCOMP,
    whether the first one had arrived or not.
    """
    absent(cut.broker.port, f"{name}-s", f"{name}/+", 2, level)
    publisher = dial(cut.broker, level)
    publisher.hello(f"{name}-p")
    send_publish(publisher, f"{name}/t", 2)
    expect(publisher, PUBREC)
    publisher.send(acknowledge(PUBREL, 7))
    cut(publisher)

    publisher = resumed(dial, cut, level, f"{name}-p")
    publisher.send(acknowledge(PUBREL, 7))
    assert expect(publisher, PUBCOMP).code in PUBCOMP_CODES
    assert arrived(dial, cut, level, name) == [b"once"]


@pytest.mark.spec("MQTT5-4.3.3-12")
@pytest.mark.spec("MQTT311-4.3.3-2")
@pytest.mark.parametrize("pubcomp_is_lost", [False, True], ids=["PUBCOMP came", "PUBCOMP lost"])
def test_publisher_qos_2_cut_after_pubcomp(
    dial: Dial, cut: Cut, name: str, level: int, pubcomp_is_lost: bool
) -> None:
    """The handshake is complete for the broker. A publisher that missed the PUBCOMP asks again;
    then the identifier is free, and its next PUBLISH is a new message and not a repeat.
    """
    absent(cut.broker.port, f"{name}-s", f"{name}/+", 2, level)
    publisher = dial(cut.broker, level)
    publisher.hello(f"{name}-p")
    send_publish(publisher, f"{name}/t", 2)
    expect(publisher, PUBREC)
    publisher.send(acknowledge(PUBREL, 7))
    expect(publisher, PUBCOMP)
    cut(publisher)

    publisher = resumed(dial, cut, level, f"{name}-p")
    if pubcomp_is_lost:
        publisher.send(acknowledge(PUBREL, 7))
        assert expect(publisher, PUBCOMP).code in PUBCOMP_CODES
    publisher.send(packets.publish(f"{name}/t", b"new", level, qos=2, packet_id=7))
    expect(publisher, PUBREC)
    publisher.send(acknowledge(PUBREL, 7))
    assert expect(publisher, PUBCOMP).code == 0
    assert arrived(dial, cut, level, name) == [b"once", b"new"]


@pytest.mark.spec("MQTT5-4.3.2-4")
@pytest.mark.spec("MQTT311-4.3.2-2")
def test_publisher_qos_1_cut_after_publish(dial: Dial, cut: Cut, name: str, level: int) -> None:
    """PUBLISH is under way when the connection breaks. Sent again it is acknowledged, and the
    message arrives at least once.
    """
    absent(cut.broker.port, f"{name}-s", f"{name}/+", 2, level)
    publisher = dial(cut.broker, level)
    publisher.hello(f"{name}-p")
    send_publish(publisher, f"{name}/t", 1)
    cut(publisher)

    publisher = resumed(dial, cut, level, f"{name}-p")
    send_publish(publisher, f"{name}/t", 1, dup=True)
    expect(publisher, PUBACK)
    assert arrived(dial, cut, level, name) in ([b"once"], [b"once"] * 2)


@pytest.mark.spec("MQTT5-4.3.2-4")
@pytest.mark.spec("MQTT5-4.3.2-5")
@pytest.mark.spec("MQTT311-4.3.2-2")
def test_publisher_qos_1_cut_after_puback(dial: Dial, cut: Cut, name: str, level: int) -> None:
    """PUBACK has come: the message is the broker's, crash or not, and its identifier is free."""
    absent(cut.broker.port, f"{name}-s", f"{name}/+", 2, level)
    publisher = dial(cut.broker, level)
    publisher.hello(f"{name}-p")
    send_publish(publisher, f"{name}/t", 1)
    expect(publisher, PUBACK)
    cut(publisher)

    publisher = resumed(dial, cut, level, f"{name}-p")
    publisher.send(packets.publish(f"{name}/t", b"new", level, qos=1, packet_id=7))
    expect(publisher, PUBACK)
    assert arrived(dial, cut, level, name) == [b"once", b"new"]


# The broker sends: a subscriber with a session.


def offered(dial: Dial, cut: Cut, level: int, name: str, qos: int) -> tuple[Wire, Packet]:
    """A subscriber that has just received the PUBLISH of one message, and has not answered."""
    subscriber = dial(cut.broker, level)
    subscriber.hello(f"{name}-s")
    subscriber.subscribe(f"{name}/+", qos)
    say(cut.broker.port, f"{name}/t", "once", qos=qos, level=level)
    first = subscriber.expect(PUBLISH)
    assert (first.payload, first.qos, first.dup) == (b"once", qos, False)
    return subscriber, first


def released(wire: Wire, packet_id: int) -> None:
    """PUBREL comes, with nothing before it, and is answered."""
    expect(wire, PUBREL, packet_id)
    wire.send(acknowledge(PUBCOMP, packet_id))


@pytest.mark.spec("MQTT5-3.3.1-1")
@pytest.mark.spec("MQTT5-4.4.0-1")
@pytest.mark.spec("MQTT5-4.3.3-3")
@pytest.mark.spec("MQTT311-3.3.1-1")
@pytest.mark.spec("MQTT311-4.4.0-1")
def test_subscriber_qos_2_cut_after_publish(dial: Dial, cut: Cut, name: str, level: int) -> None:
    """The subscriber has the PUBLISH but could not answer. It comes again under the same packet
    identifier, with DUP, so that the subscriber knows it and takes it once.
    """
    subscriber, first = offered(dial, cut, level, name, 2)
    cut(subscriber)

    subscriber = resumed(dial, cut, level, f"{name}-s")
    again = expect(subscriber, PUBLISH, first.packet_id)
    assert (again.payload, again.qos, again.dup) == (b"once", 2, True)
    subscriber.send(acknowledge(PUBREC, first.packet_id))
    released(subscriber, first.packet_id)
    subscriber.nothing_but(f"{name}/t", qos=2)


@pytest.mark.spec("MQTT5-4.3.3-4")
@pytest.mark.spec("MQTT5-4.4.0-1")
@pytest.mark.spec("MQTT311-4.4.0-1")
def test_subscriber_qos_2_cut_after_pubrec(dial: Dial, cut: Cut, name: str, level: int) -> None:
    """PUBREC is under way when the connection breaks. If it arrived, PUBREL follows; if not, the
    PUBLISH comes again under the same identifier, and the subscriber answers without taking it.
    """
    subscriber, first = offered(dial, cut, level, name, 2)
    subscriber.send(acknowledge(PUBREC, first.packet_id))
    cut(subscriber)

    subscriber = resumed(dial, cut, level, f"{name}-s")
    found = subscriber.receive()
    assert found.packet_id == first.packet_id
    if found.kind == PUBLISH:
        assert found.dup
        subscriber.send(acknowledge(PUBREC, first.packet_id))
        released(subscriber, first.packet_id)
    else:
        assert found.kind == PUBREL
        subscriber.send(acknowledge(PUBCOMP, first.packet_id))
    subscriber.nothing_but(f"{name}/t", qos=2)


@pytest.mark.spec("MQTT5-4.3.3-5")
@pytest.mark.spec("MQTT5-4.3.3-6")
@pytest.mark.spec("MQTT5-4.4.0-1")
@pytest.mark.spec("MQTT311-4.3.3-1")
@pytest.mark.spec("MQTT311-4.4.0-1")
def test_subscriber_qos_2_cut_after_pubrel(dial: Dial, cut: Cut, name: str, level: int) -> None:
    """PUBREL has come, so the subscriber may have forgotten the identifier: a PUBLISH now would be
    a second message. What comes is the PUBREL again.
    """
    subscriber, first = offered(dial, cut, level, name, 2)
    subscriber.send(acknowledge(PUBREC, first.packet_id))
    expect(subscriber, PUBREL, first.packet_id)
    cut(subscriber)

    subscriber = resumed(dial, cut, level, f"{name}-s")
    released(subscriber, first.packet_id)
    subscriber.nothing_but(f"{name}/t", qos=2)


@pytest.mark.spec("MQTT5-4.3.3-6")
@pytest.mark.spec("MQTT311-4.3.3-1")
def test_subscriber_qos_2_cut_after_pubcomp(dial: Dial, cut: Cut, name: str, level: int) -> None:
    """PUBCOMP is under way when the connection breaks. The PUBREL may come again, the PUBLISH
    never; and the next message is a new one, whatever its identifier.
    """
    subscriber, first = offered(dial, cut, level, name, 2)
    subscriber.send(acknowledge(PUBREC, first.packet_id))
    released(subscriber, first.packet_id)
    cut(subscriber)

    subscriber = resumed(dial, cut, level, f"{name}-s")
    subscriber.nothing_but(f"{name}/t", qos=2)


@pytest.mark.spec("MQTT5-3.3.1-1")
@pytest.mark.spec("MQTT5-4.4.0-1")
@pytest.mark.spec("MQTT311-4.4.0-1")
def test_subscriber_qos_1_cut_after_publish(dial: Dial, cut: Cut, name: str, level: int) -> None:
    """The subscriber has the PUBLISH but could not acknowledge it: it comes again, with DUP and
    its original packet identifier.
    """
    subscriber, first = offered(dial, cut, level, name, 1)
    cut(subscriber)

    subscriber = resumed(dial, cut, level, f"{name}-s")
    again = expect(subscriber, PUBLISH, first.packet_id)
    assert (again.payload, again.qos, again.dup) == (b"once", 1, True)
    subscriber.send(acknowledge(PUBACK, first.packet_id))
    subscriber.nothing_but(f"{name}/t", qos=1)


@pytest.mark.spec("MQTT5-4.3.2-3")
@pytest.mark.spec("MQTT311-4.3.2-1")
def test_subscriber_qos_1_cut_after_puback(dial: Dial, cut: Cut, name: str, level: int) -> None:
    """PUBACK is under way when the connection breaks. The message may come once more, marked DUP
    and under its old identifier; what follows is not held up.
    """
    subscriber, first = offered(dial, cut, level, name, 1)
    subscriber.send(acknowledge(PUBACK, first.packet_id))
    cut(subscriber)

    subscriber = resumed(dial, cut, level, f"{name}-s")
    say(cut.broker.port, f"{name}/t", "end")
    *repeats, end = subscriber.until(b"end")
    assert [(one.payload, one.packet_id, one.dup) for one in repeats] in (
        [],
        [(b"once", first.packet_id, True)],
    )
    assert not end.dup


@pytest.mark.spec("MQTT5-4.4.0-1")
@pytest.mark.spec("MQTT5-4.6.0-5")
@pytest.mark.spec("MQTT311-4.4.0-1")
@pytest.mark.spec("MQTT311-4.6.0-6")
def test_a_whole_window_resumes_in_its_order(dial: Dial, cut: Cut, name: str, level: int) -> None:
    """Nine QoS 2 messages are out when the connection breaks: three only sent, three received,
    three released. Each goes on from its own step, the PUBLISH packets in their first order, and
    what was published meanwhile comes behind them.
    """
    subscriber = dial(cut.broker, level)
    subscriber.hello(f"{name}-s")
    subscriber.subscribe(f"{name}/+", 2)
    say(cut.broker.port, f"{name}/t", *"123456789", qos=2, level=level)
    first = [subscriber.wait_for(PUBLISH) for _ in range(9)]
    ids = [one.packet_id for one in first]
    assert len(set(ids)) == 9
    for packet_id in ids[:6]:
        subscriber.send(acknowledge(PUBREC, packet_id))
    for packet_id in ids[:6]:
        expect(subscriber, PUBREL, packet_id)
    for packet_id in ids[:3]:
        subscriber.send(acknowledge(PUBCOMP, packet_id))
    cut(subscriber)
    say(cut.broker.port, f"{name}/t", "10", qos=2, level=level)

    subscriber = resumed(dial, cut, level, f"{name}-s")
    found = take_rest(subscriber, lambda one: one.payload == b"10")
    publishes = [(one.packet_id, one.payload, one.dup) for one in found if one.kind == PUBLISH]
    assert publishes[:3] == [(ids[n], b"%d" % (n + 1), True) for n in (6, 7, 8)]
    # With DUP if the broker had sent it before it noticed that the connection was gone.
    assert [payload for _, payload, _ in publishes[3:]] == [b"10"]
    releases = {one.packet_id for one in found if one.kind == PUBREL} - set(ids[6:])
    assert set(ids[3:6]) <= releases | {publishes[-1][0]}
    assert releases <= set(ids[:6]) | {publishes[-1][0]}
    subscriber.nothing_but(f"{name}/t", qos=2)


def take_rest(wire: Wire, is_last: Callable[[Packet], bool]) -> list[Packet]:
    """Receive and answer until the handshake of the last message is complete; the packets."""
    found: list[Packet] = []
    last_id = None
    while True:
        one = wire.receive()
        found.append(one)
        if one.kind == PUBLISH:
            wire.send(acknowledge(PUBREC, one.packet_id))
            if is_last(one):
                last_id = one.packet_id
        else:
            assert one.kind == PUBREL
            wire.send(acknowledge(PUBCOMP, one.packet_id))
            if one.packet_id == last_id:
                return found


@pytest.mark.spec("MQTT5-4.4.0-1")
def test_a_clean_start_resumes_nothing(
    broker: BrokerProcess, dial: Dial, name: str, level: int
) -> None:
    """A client that starts clean in the middle of a handshake hears no more of it."""
    subscriber = dial(broker, level)
    subscriber.hello(f"{name}-s")
    subscriber.subscribe(f"{name}/+", 2)
    say(broker.port, f"{name}/t", "old", qos=2, level=level)
    subscriber.expect(PUBLISH)
    subscriber.cut()

    subscriber = dial(broker, level)
    assert not subscriber.hello(f"{name}-s", clean=True).session_present
    subscriber.ping()
    subscriber.subscribe(f"{name}/+", 2)
    subscriber.nothing_but(f"{name}/t", qos=2)
