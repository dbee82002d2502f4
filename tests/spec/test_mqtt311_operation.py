"""MQTT 3.1.1, chapter 4: who gets a message, in which order, and what ends a connection."""

from typing import Final

import pytest

from holdfast.protocol.packets import Puback, Pubcomp, Publish, Pubrec, Pubrel
from tests.broker.world import Client, World
from tests.support import packets
from tests.support.packets import V311

TOPICS: Final = ["t", "a/b", "/", "$x/y", "é", " "]


# --- ordering


def payloads_of(client: Client, qos: int) -> list[int]:
    """What came at this QoS; all that came is acknowledged, to the end."""
    found = client.publishes()
    for packet in found:
        if packet.qos == 1:
            client.send(Puback(packet.packet_id))
        elif packet.qos == 2:
            client.send(Pubrec(packet.packet_id))
            client.send(Pubcomp(packet.packet_id))
    return [int(packet.payload) for packet in found if packet.qos == qos]


@pytest.mark.spec("MQTT311-4.6.0-5", "MQTT311-4.6.0-6", "MQTT311-4.5.0-1")
@pytest.mark.parametrize("topic", TOPICS)
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_every_topic_is_an_ordered_topic(topic: str, qos: int) -> None:
    """Without any setting: to a subscriber that is there, and to one that comes back, behind what
    other publishers say in between.
    """
    world = World()
    online = world.hello("online", version=V311)
    away = world.hello("away", version=V311)
    for client in (online, away):
        client.subscribe(topic, 2)
        client.received()
    away.disconnect()
    source, other = world.transient("p", V311), world.transient("q", V311)
    got = []
    for n in range(60):
        source.publish(topic, str(n), qos, n + 1 if qos else 0)
        source.send(Pubrel(n + 1))
        other.publish(topic, "-1", (n + 1) % 3, n + 1 if (n + 1) % 3 else 0)
        other.send(Pubrel(n + 1))
        got += payloads_of(online, qos)
    assert [n for n in got if n >= 0] == list(range(60))
    away = world.hello("away", version=V311)
    queued = [n for n in payloads_of(away, qos) if n >= 0]
    assert queued == (list(range(60)) if qos > 0 else [])


@pytest.mark.spec("MQTT311-4.6.0-6", "MQTT311-4.4.0-1")
def test_the_server_sends_again_and_acknowledges_in_order() -> None:
    """As client does in 4.6.0-1 to 4.6.0-4: PUBLISH again in the order of the first sending,
    PUBACK and PUBREC in the order of the PUBLISH, PUBREL in the order of the PUBREC.
    """
    world = World()
    client = world.hello("s", version=V311)
    client.subscribe("t", 2)
    client.received()
    source = world.hello("p", version=V311)
    for n, packet_id in enumerate((9, 3, 7, 1)):
        source.push(Publish("t", b"%d" % n, 1 + n % 2, packet_id=packet_id))
    world.run()
    assert source.received() == ["PUBACK #9", "PUBREC #3", "PUBACK #7", "PUBREC #1"]
    lines = [f"PUBLISH t {n} q{1 + n % 2} #{n + 1}" for n in range(4)]
    assert client.received() == lines
    client.cut()
    client = world.hello("s", version=V311)
    assert client.received() == [f"{line} dup" for line in lines]
    client.send(Pubrec(4), Pubrec(2))
    assert client.received() == ["PUBREL #4", "PUBREL #2"]


# --- the state of a session


@pytest.mark.spec("MQTT311-3.1.2-5", "MQTT311-4.1.0-1", "MQTT311-4.5.0-1")
@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("crashes", [False, True])
def test_a_message_is_added_to_every_session_that_is_subscribed(qos: int, crashes: bool) -> None:
    """Present or away, whichever filter it was: all but those whose filter does not match."""
    world = World()
    filters = ["t", "+", "#", "t/#", "other", "t/+"]
    for n, topic_filter in enumerate(filters):
        client = world.hello(f"s{n}", version=V311)
        client.subscribe(topic_filter, qos)
        if n % 2:
            client.disconnect()
    world.transient("p", V311).publish("t", "x", qos, 1)
    world.advance(30 * 24 * 3_600_000)
    if crashes:
        world.crash()
        world.restart()
    for n, topic_filter in enumerate(filters):
        client = world.connect(f"s{n}", version=V311)
        answer, *queued = client.received()
        assert answer == "CONNACK 0x00 present"
        dup = " dup" if n % 2 == 0 else ""
        expected = [] if topic_filter in ("other", "t/+") else [f"PUBLISH t x q{qos} #1{dup}"]
        assert queued == expected, topic_filter


# --- topics that cannot be


@pytest.mark.spec(
    "MQTT311-3.3.2-1",
    "MQTT311-3.3.2-2",
    "MQTT311-4.7.1-1",
    "MQTT311-4.7.3-1",
    "MQTT311-4.7.3-2",
    "MQTT311-1.5.3-1",
    "MQTT311-1.5.3-2",
    "MQTT311-4.8.0-1",
)
@pytest.mark.parametrize(
    "topic", [b"", b"#", b"+", b"a/#", b"a/+/b", b"a+", b"a\0", b"\xff", b"\xed\xa0\x80"]
)
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_publish_to_no_proper_topic_ends_the_connection(topic: bytes, qos: int) -> None:
    world = World()
    watcher = world.hello("w", version=V311)
    watcher.subscribe("#", 0)
    watcher.received()
    client = world.transient("p", V311)
    client.send_bytes(packets.publish(topic, b"x", V311, qos=qos, packet_id=1 if qos else None))
    assert client.received() == []
    assert not client.is_open
    assert watcher.received() == []


@pytest.mark.spec(
    "MQTT311-4.7.1-2",
    "MQTT311-4.7.1-3",
    "MQTT311-4.7.3-1",
    "MQTT311-4.7.3-2",
    "MQTT311-1.5.3-1",
    "MQTT311-1.5.3-2",
)
@pytest.mark.parametrize(
    "topic_filter",
    [b"", b"a#", b"#/a", b"a/#/b", b"##", b"a+", b"+a", b"a/b+/c", b"a\0", b"\xff"],
)
def test_a_filter_that_cannot_be_becomes_no_subscription(topic_filter: bytes) -> None:
    """Alone or beside a proper one: the connection ends, and neither is subscribed."""
    bad, good = (topic_filter, 1), (b"t", 1)
    for filters in ([bad], [bad, good], [good, bad]):
        world = World()
        client = world.hello("s", version=V311)
        client.send_bytes(packets.subscribe(1, filters, V311))
        assert client.received() == []
        assert not client.is_open
        session = world.broker.sessions.find("s")
        assert session is not None
        assert session.subscriptions == {}


@pytest.mark.spec("MQTT311-2.3.1-1", "MQTT311-4.8.0-1")
@pytest.mark.parametrize(
    "data",
    [
        packets.publish("t", b"x", V311, qos=1, packet_id=0),
        packets.publish("t", b"x", V311, qos=2, packet_id=0),
        packets.subscribe(0, [("t", 0)], V311),
        packets.unsubscribe(0, ["t"], V311),
    ],
    ids=["QoS 1", "QoS 2", "SUBSCRIBE", "UNSUBSCRIBE"],
)
def test_packet_identifier_0_ends_the_connection(data: bytes) -> None:
    world = World()
    client = world.hello("c", version=V311)
    client.send_bytes(data)
    assert client.received() == []
    assert not client.is_open


@pytest.mark.spec("MQTT311-3.1.0-2", "MQTT311-4.8.0-1")
def test_a_second_connect_ends_the_connection() -> None:
    """And nothing of it counts: the session of the other client identifier is not touched."""
    world = World()
    world.session("other", "t", 1)
    client = world.hello("c", version=V311)
    client.send_bytes(packets.connect("other", V311, clean=True))
    assert client.received() == []
    assert not client.is_open
    assert world.connect("other", version=V311).received() == ["CONNACK 0x00 present"]


@pytest.mark.spec("MQTT311-3.1.4-2")
@pytest.mark.parametrize("clean", [False, True])
def test_the_older_client_of_the_same_identifier_is_disconnected(clean: bool) -> None:
    world = World()
    older = world.hello("c", version=V311, clean=clean)
    newer = world.hello("c", version=V311, clean=clean)
    assert not older.is_open
    assert older.received() == []
    newer.subscribe("t", 0)
    assert newer.received() == ["SUBACK #1 0x00"]
