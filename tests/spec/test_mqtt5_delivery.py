"""QoS 0, 1 and 2 as the broker sends and receives them, beyond the cuts of ``test_qos_cut``.

Source: MQTT 5.0 §4.2 to §4.6.
"""

import random
from collections.abc import Callable

import pytest

from holdfast.broker.limits import Limits
from holdfast.protocol.packets import (
    Puback,
    Pubcomp,
    Pubrec,
    Pubrel,
    Will,
)
from tests.broker.world import Client, World
from tests.support import packets
from tests.support.broker import BrokerProcess
from tests.support.packets import V5
from tests.support.properties import expiring
from tests.support.wire import Dial

DAY_MS = 86_400_000
REFUSED = 0x80
CLEAN = pytest.mark.parametrize("clean", [True, False], ids=["clean", "durable"])


@pytest.mark.spec("MQTT5-4.2.0-1")
def test_tcp_brings_every_byte_in_its_order_in_both_directions(
    broker: BrokerProcess, dial: Dial, name: str
) -> None:
    """Megabytes that no two places of are alike go to the broker and come back, in many packets."""
    noise = random.Random(7)
    sent = [noise.randbytes(size) for size in (1, 100, 70_000, 900_000, 3, 500_000)]
    wire = dial(broker, V5)
    wire.hello(name, clean=True)
    wire.subscribe(name, 1)
    wire.send(*(packets.publish(name, one, qos=1, packet_id=n) for n, one in enumerate(sent, 1)))
    found: list[bytes] = []
    acknowledged: list[int] = []
    while len(found) < len(sent) or len(acknowledged) < len(sent):
        packet = wire.receive()
        if packet.kind == packets.PUBACK:
            acknowledged.append(packet.packet_id)
        else:
            found.append(packet.payload)
            wire.send(packets.acknowledge(packets.PUBACK, packet.packet_id))
    assert found == sent
    assert acknowledged == [1, 2, 3, 4, 5, 6]


# A first delivery, in every way that there is.


def live(world: World, qos: int, granted: int) -> Client:
    client = world.hello("s")
    client.subscribe("t", granted)
    world.transient("p").publish("t", "m", qos, 1 if qos else 0, dup=qos > 0)
    return client


def as_its_window_opens(world: World, qos: int, granted: int) -> Client:
    client = world.hello("s", receive_maximum=1)
    client.subscribe("t", granted)
    client.subscribe("other", 1)
    publisher = world.transient("p")
    publisher.publish("other", "fills the window", 1, 1)
    client.packets()
    publisher.publish("t", "m", qos, 2 if qos else 0, dup=qos > 0)
    client.send(Puback(1))
    return client


def after_an_absence(world: World, qos: int, granted: int) -> Client:
    world.session("s", "t", granted)
    world.transient("p").publish("t", "m", qos, 1 if qos else 0, dup=qos > 0)
    return world.hello("s")


def after_a_crash(world: World, qos: int, granted: int) -> Client:
    world.session("s", "t", granted)
    world.transient("p").publish("t", "m", qos, 1 if qos else 0, dup=qos > 0)
    world.crash()
    world.restart()
    return world.hello("s")


def as_retained(world: World, qos: int, granted: int) -> Client:
    world.transient("p").publish("t", "m", qos, 1 if qos else 0, retain=True, dup=qos > 0)
    client = world.hello("s")
    client.subscribe("t", granted)
    return client


def as_a_will(world: World, qos: int, granted: int) -> Client:
    client = world.transient("s")
    client.subscribe("t", granted)
    world.hello("p", will=Will("t", b"m", qos)).cut()
    return client


Way = Callable[[World, int, int], Client]
WAYS: list[Way] = [
    live,
    as_its_window_opens,
    after_an_absence,
    after_a_crash,
    as_retained,
    as_a_will,
]
ways = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)


@pytest.mark.spec("MQTT5-4.3.1-1")
@pytest.mark.parametrize(("qos", "granted"), [(0, 0), (0, 2), (1, 0), (2, 0)])
@ways
def test_at_qos_0_a_message_goes_out_once_without_dup(way: Way, qos: int, granted: int) -> None:
    """Whatever its publisher said: with QoS 0, DUP 0 and no packet identifier."""
    world = World()
    client = way(world, qos, granted)
    found = [(one.topic, one.qos, one.dup, one.packet_id) for one in client.publishes()]
    is_for_the_present_only = way in (after_an_absence, after_a_crash)
    assert found == ([] if is_for_the_present_only else [("t", 0, False, 0)])


@pytest.mark.spec("MQTT5-4.3.2-1", "MQTT5-4.3.2-2", "MQTT5-4.3.3-1", "MQTT5-4.3.3-2")
@pytest.mark.parametrize("qos", [1, 2])
@ways
def test_the_first_publish_of_a_message_has_an_identifier_and_no_dup(way: Way, qos: int) -> None:
    """Though the one that brought it had DUP."""
    world = World()
    client = way(world, qos, qos)
    (found,) = client.publishes()
    assert (found.topic, found.payload, found.qos, found.dup) == ("t", b"m", qos, False)
    assert found.packet_id > 0


@pytest.mark.spec("MQTT5-4.3.2-1", "MQTT5-4.3.3-1")
@CLEAN
def test_no_identifier_is_given_out_again_while_it_is_in_use(clean: bool) -> None:
    """Through more messages than there are identifiers, with some that stay open all the while."""
    world = World(Limits(in_flight_max=4))
    client = world.transient("s") if clean else world.hello("s")
    client.subscribe("t", 2)
    publisher = world.transient("p")
    publisher.publish("t", "open", 1, 1)
    publisher.publish("t", "open", 2, 1)
    publisher.publish("t", "released", 2, 2)
    client.send(Pubrec(3))
    kept = [one.packet_id for one in client.publishes()]
    assert len(set(kept)) == 3
    session = world.broker.sessions.find("s")
    assert session is not None
    session.sender._next_id = 65_534  # as after so many messages
    for _ in range(5):
        publisher.publish("t", "m", 1, 4)
        (one,) = client.publishes()
        assert one.packet_id not in kept
        client.send(Puback(one.packet_id))


# Acknowledgements


@pytest.mark.spec("MQTT5-4.4.0-1")
@CLEAN
def test_nothing_is_sent_again_while_the_connection_lasts(clean: bool) -> None:
    """A client that never answers is not pressed, for a day, whatever else goes on."""
    world = World()
    client = world.transient("s") if clean else world.hello("s")
    client.subscribe("t", 2)
    publisher = world.transient("p")
    publisher.publish("t", "one", 1, 1)
    publisher.publish("t", "two", 2, 2)
    publisher.publish("t", "three", 2, 3)
    client.send(Pubrec(3))
    assert len(client.packets()) == 5
    for _ in range(24):
        world.advance(DAY_MS // 24)
        client.subscribe("t", 2)
        assert client.received() == ["SUBACK #1 0x02"]
    publisher.publish("t", "four", 1, 4)
    assert client.received() == ["PUBLISH t four q1 #4"]


@pytest.mark.spec("MQTT5-4.4.0-2")
@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("with_crash", [False, True], ids=["lost connection", "crash"])
@pytest.mark.parametrize("code", [0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99])
def test_a_message_that_its_subscriber_refuses_never_comes_again(
    qos: int, with_crash: bool, code: int
) -> None:
    world = World()
    client = world.hello("s")
    client.subscribe("t", qos)
    publisher = world.transient("p")
    publisher.publish("t", "refused", qos, 1)
    publisher.publish("t", "open", qos, 2)
    client.packets()
    client.send(Puback(1, code) if qos == 1 else Pubrec(1, code))
    assert client.received() == []
    world.advance(1000)  # what only removes is written a little later
    if with_crash:
        world.crash()
        world.restart()
    else:
        client.cut()
    assert world.hello("s").received() == [f"PUBLISH t open q{qos} #2 dup"]


@pytest.mark.spec("MQTT5-4.3.2-5")
@CLEAN
@pytest.mark.parametrize("dup", [False, True])
def test_after_its_puback_an_identifier_brings_a_new_message(clean: bool, dup: bool) -> None:
    world = World()
    observer = world.transient("o")
    observer.subscribe("t", 0)
    client = world.transient("p") if clean else world.hello("p")
    for payload in ("first", "second", "second"):
        client.publish("t", payload, 1, 7, dup=dup)
    assert client.received() == ["PUBACK #7"] * 3
    assert observer.received()[1:] == [f"PUBLISH t {n} q0" for n in ("first", "second", "second")]


@pytest.mark.spec("MQTT5-4.3.3-8", "MQTT5-4.3.3-10", "MQTT5-4.3.3-11", "MQTT5-4.3.3-12")
@CLEAN
@pytest.mark.parametrize("dup", [False, True])
def test_until_pubrel_an_identifier_is_one_message_and_then_the_next(
    clean: bool, dup: bool
) -> None:
    """Whatever the repeats look like: the first one counts."""
    world = World()
    observer = world.transient("o")
    observer.subscribe("#", 0)
    client = world.transient("p") if clean else world.hello("p")
    client.publish("t", "first", 2, 7)
    client.publish("t", "first", 2, 7, dup=dup)
    client.publish("u", "other", 2, 7, dup=dup)
    client.publish("t", "its neighbour", 2, 8)
    assert client.received() == ["PUBREC #7"] * 3 + ["PUBREC #8"]
    client.send(Pubrel(7))
    client.publish("t", "second", 2, 7, dup=dup)
    assert client.received() == ["PUBCOMP #7", "PUBREC #7"]
    assert observer.received()[1:] == [
        "PUBLISH t first q0",
        "PUBLISH t its neighbour q0",
        "PUBLISH t second q0",
    ]


@pytest.mark.spec("MQTT5-4.3.3-9")
@CLEAN
def test_an_identifier_whose_publish_was_refused_brings_a_new_message(clean: bool) -> None:
    world = World()
    observer = world.transient("o")
    observer.subscribe("t", 0)
    client = world.transient("p") if clean else world.hello("p")
    client.publish("$SYS/t", "refused", 2, 7)
    client.publish("t", "taken", 2, 7)
    assert client.received() == ["PUBREC #7 0x87", "PUBREC #7"]
    assert observer.received()[1:] == ["PUBLISH t taken q0"]


# Expiry


@pytest.mark.spec("MQTT5-4.3.3-7")
@pytest.mark.parametrize("with_crash", [False, True], ids=["lost connection", "crash"])
@pytest.mark.parametrize("qos", [1, 2])
def test_a_message_once_sent_is_completed_though_it_has_expired(qos: int, with_crash: bool) -> None:
    """The subscriber has seen it. One that was not yet sent expires."""
    world = World()
    client = world.hello("s", receive_maximum=2)
    client.subscribe("t", qos)
    publisher = world.transient("p")
    for packet_id in (1, 2, 3):
        publisher.publish("t", f"m{packet_id}", qos, packet_id, properties=expiring(10))
    assert len(client.packets()) == 3
    world.advance(20_000)
    if with_crash:
        world.crash()
        world.restart()
    else:
        client.cut()
    client = world.hello("s", receive_maximum=2)
    assert client.received() == [f"PUBLISH t m{n} q{qos} #{n} dup" for n in (1, 2)]
    if qos == 2:
        client.send(Pubrec(1))
        client.cut()
        client = world.hello("s")
        assert client.received() == ["PUBREL #1", "PUBLISH t m2 q2 #2 dup"]
        client.send(Pubcomp(1), Pubrec(2), Pubcomp(2))
        assert client.received() == ["PUBREL #2"]
    else:
        client.send(Puback(1), Puback(2))
    publisher = world.transient("p")
    publisher.publish("t", "end", qos, 4)
    assert client.received() == [f"PUBLISH t end q{qos} #3"]


@pytest.mark.spec("MQTT5-4.3.3-13")
@pytest.mark.parametrize("with_crash", [False, True], ids=["same connection", "crash"])
def test_an_expired_message_is_acknowledged_to_the_end(with_crash: bool) -> None:
    """Its publisher goes through all of QoS 2, repeats included; nobody gets the message."""
    world = World()
    world.session("s", "t", 2)
    client = world.hello("p")
    client.publish("t", "short", 2, 7, properties=expiring(1))
    assert client.received() == ["PUBREC #7"]
    world.advance(60_000)
    if with_crash:
        world.crash()
        world.restart()
        client = world.hello("p")
    client.publish("t", "short", 2, 7, dup=True, properties=expiring(1))
    assert client.received() == ["PUBREC #7"]
    client.send(Pubrel(7))
    assert client.received() == ["PUBCOMP #7"]
    assert world.hello("s").received() == []


# Order


@pytest.mark.spec("MQTT5-4.6.0-5", "MQTT5-4.6.0-6")
@pytest.mark.parametrize("path", ["live", "behind", "absent", "crash"])
@pytest.mark.parametrize("topic", ["t", "/", "$x/t", "a/b/c", "é /", "x" * 300])
def test_every_topic_is_ordered_without_being_told_to(topic: str, path: str) -> None:
    """Messages of all QoS, retained ones among them, from one publisher on one topic: those of one
    QoS come in their order, to exact and to overlapping subscriptions.
    """
    noise = random.Random(topic + path)
    world = World()
    client = world.hello("s", receive_maximum=3 if path == "behind" else None)
    wildcard = "$x/#" if topic.startswith("$") else "#"
    client.subscribe(wildcard, 1)
    client.subscribe(topic, 2)
    client.packets()
    if path == "absent":
        client.cut()
    publisher = world.hello("p")
    sent: dict[int, list[int]] = {0: [], 1: [], 2: []}
    for number in range(1, 100):
        qos = noise.randrange(3)
        sent[qos].append(number)
        publisher.publish(
            topic, str(number), qos, number if qos else 0, retain=noise.random() < 0.2
        )
        if qos == 2:
            publisher.send(Pubrel(number))
    if path == "crash":
        world.crash()
        world.restart()
    if path in ("absent", "crash"):
        client = world.hello("s")
    found: dict[int, list[int]] = {0: [], 1: [], 2: []}
    while arrived := client.publishes():
        for one in arrived:
            found[one.qos].append(int(one.payload))
            if one.qos == 1:
                client.send(Puback(one.packet_id))
            if one.qos == 2:
                client.send(Pubrec(one.packet_id), Pubcomp(one.packet_id))
    assert found[1] == sent[1]
    assert found[2] == sent[2]
    assert found[0] == sorted(found[0])
    if path in ("live", "behind"):
        assert found[0] == sent[0]
