"""MQTT 3.1.1, PUBLISH and its acknowledgements, as they stand on the wire."""

import pytest

from holdfast.protocol.packets import Puback, Pubcomp, Pubrec, Pubrel
from tests.broker.world import Client, World
from tests.support import packets
from tests.support.packets import PUBLISH, V311


def subscriber(world: World, topic_filter: str, qos: int, client_id: str = "s") -> Client:
    client = world.hello(client_id, version=V311)
    client.subscribe(topic_filter, qos)
    assert client.received() == [f"SUBACK #1 0x0{qos}"]
    client.take_bytes()
    return client


def publisher(world: World) -> Client:
    client = world.transient("p", V311)
    client.take_bytes()
    return client


def read(client: Client) -> list[packets.Packet]:
    """What came, read by the book and not by the broker's own codec."""
    buffer = bytearray(client.take_bytes())
    found = packets.split(buffer, V311)
    assert not buffer
    return found


# --- the answer to a PUBLISH


@pytest.mark.spec("MQTT311-3.3.4-1", "MQTT311-2.3.1-6", "MQTT311-4.3.2-2")
@pytest.mark.parametrize("packet_id", [1, 0x0102, 65_535])
def test_a_publish_is_answered_by_its_qos_and_under_its_identifier(packet_id: int) -> None:
    world = World()
    client = publisher(world)
    number = packet_id.to_bytes(2, "big")
    client.publish("t", "x", 0)
    assert client.take_bytes() == b""
    client.publish("t", "x", 1, packet_id)
    assert client.take_bytes() == b"\x40\x02" + number
    client.publish("t", "x", 2, packet_id)
    assert client.take_bytes() == b"\x50\x02" + number
    client.send(Pubrel(packet_id))
    assert client.take_bytes() == b"\x70\x02" + number


@pytest.mark.spec("MQTT311-2.3.1-6", "MQTT311-2.2.2-1", "MQTT311-3.6.1-1", "MQTT311-4.3.3-1")
def test_a_pubrec_is_answered_with_a_pubrel_under_its_identifier() -> None:
    world = World()
    client = subscriber(world, "t", 2)
    publisher(world).publish("t", "x", 2, 77)
    (message,) = read(client)
    client.send(Pubrec(message.packet_id))
    assert client.take_bytes() == b"\x62\x02" + message.packet_id.to_bytes(2, "big")


@pytest.mark.spec("MQTT311-4.3.3-2")
def test_a_qos_2_message_is_new_again_after_its_pubrel() -> None:
    """Before it, a repeat is answered and not delivered; after it, the identifier is free."""
    world = World()
    client = subscriber(world, "t", 0)
    source = publisher(world)
    for payload in ("1", "2"):
        source.publish("t", payload, 2, 9)
        source.publish("t", "another", 2, 9, dup=True)
        assert source.received() == ["PUBREC #9", "PUBREC #9"]
        source.send(Pubrel(9))
        assert source.received() == ["PUBCOMP #9"]
        assert client.received() == [f"PUBLISH t {payload} q0"]


@pytest.mark.spec("MQTT311-4.3.2-2")
def test_a_qos_1_message_after_its_puback_is_a_new_one_whatever_its_dup() -> None:
    world = World()
    client = subscriber(world, "t", 0)
    source = publisher(world)
    for n, dup in enumerate((False, False, True)):
        source.publish("t", str(n), 1, 9, dup=dup)
        assert source.received() == ["PUBACK #9"]
        assert client.received() == [f"PUBLISH t {n} q0"]


@pytest.mark.spec("MQTT311-3.3.5-2")
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_publish_that_is_not_allowed_is_never_delivered(qos: int) -> None:
    """Only the broker publishes under $SYS. At QoS 0 the message is dropped, and above it, where
    an answer would be a promise, the connection is closed.
    """
    world = World()
    client = subscriber(world, "$SYS/#", 2)
    source = publisher(world)
    source.publish("$SYS/broker/x", "forged", qos, 5 if qos else 0, retain=True)
    assert source.is_open == (qos == 0)
    assert source.received() == []
    assert client.received() == []
    client.subscribe("$SYS/#", 2)
    assert client.received() == ["SUBACK #1 0x02"]


# --- a PUBLISH of the server


@pytest.mark.spec("MQTT311-4.3.1-1", "MQTT311-3.3.1-2", "MQTT311-2.3.1-5", "MQTT311-3.3.2-1")
@pytest.mark.parametrize(("published", "granted"), [(0, 0), (0, 2), (1, 0), (2, 0)])
def test_a_qos_0_publish_has_no_identifier_and_no_dup(published: int, granted: int) -> None:
    """Whatever QoS and DUP the publisher sets: topic, payload, and nothing between them."""
    world = World()
    client = subscriber(world, "a/b", granted)
    publisher(world).publish("a/b", "hi", published, 5 if published else 0, dup=published > 0)
    assert client.take_bytes() == b"\x30\x07\x00\x03a/bhi"


@pytest.mark.spec(
    "MQTT311-3.3.1-3", "MQTT311-4.3.2-1", "MQTT311-4.3.3-1", "MQTT311-2.3.1-1", "MQTT311-3.3.2-1"
)
@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("dup", [False, True])
def test_a_new_message_goes_out_without_dup_and_with_an_identifier(qos: int, dup: bool) -> None:
    world = World()
    client = subscriber(world, "a/b", qos)
    publisher(world).publish("a/b", "hi", qos, 0x0305, dup=dup)
    data = client.take_bytes()
    assert data[:7] == bytes([0x30 | qos << 1, 9]) + b"\x00\x03a/b"
    assert data[7:9] != b"\x00\x00"
    assert data[9:] == b"hi"


@pytest.mark.spec("MQTT311-2.3.1-4", "MQTT311-4.3.2-1", "MQTT311-4.3.3-1")
def test_an_identifier_is_not_used_twice_while_it_is_in_use() -> None:
    """Of 200 messages each stays unacknowledged for a while, some for ever, and in the middle the
    identifiers begin again at 1. No new one is still taken, by QoS 1 or by either half of QoS 2.
    """
    world = World()
    client = subscriber(world, "t", 2)
    source = publisher(world)
    session = world.broker.sessions.find("s")
    assert session is not None
    in_use: dict[int, int] = {}
    for n in range(200):
        if n == 100:
            session.sender._next_id = 65_500
        source.publish("t", str(n), 1 + n % 2, 1)
        source.send(Pubrel(1))
        (message,) = [one for one in read(client) if one.kind == PUBLISH]
        assert message.packet_id not in in_use
        in_use[message.packet_id] = message.qos
        oldest = next(iter(in_use))
        if n % 5 == 0 and in_use[oldest] == 1:
            client.send(Puback(oldest))
            del in_use[oldest]
        elif n % 5 == 0:
            client.send(Pubrec(oldest))
            if n % 2:
                client.send(Pubcomp(oldest))
                del in_use[oldest]
    assert len(in_use) > 100
    assert {65_535, 1, 2} <= in_use.keys()


@pytest.mark.spec("MQTT311-4.3.2-1", "MQTT311-4.4.0-1", "MQTT311-3.3.1-1", "MQTT311-2.3.1-4")
def test_qos_1_is_sent_again_with_dup_until_its_puback() -> None:
    world = World()
    client = subscriber(world, "t", 1)
    publisher(world).publish("t", "x", 1, 1)
    first = client.take_bytes()
    for _ in range(3):
        client.cut()
        client = world.hello("s", version=V311)
        assert client.take_bytes()[4:] == bytes([first[0] | 8]) + first[1:]
    client.send(Puback(int.from_bytes(first[5:7], "big")))
    client.cut()
    client = world.hello("s", version=V311)
    assert client.take_bytes()[4:] == b""


@pytest.mark.spec("MQTT311-4.3.3-1", "MQTT311-4.4.0-1", "MQTT311-3.3.1-1", "MQTT311-2.3.1-4")
def test_qos_2_sends_publish_again_until_pubrec_and_then_pubrel_until_pubcomp() -> None:
    world = World()
    client = subscriber(world, "t", 2)
    publisher(world).publish("t", "x", 2, 1)
    first = client.take_bytes()
    number = first[5:7]
    for _ in range(2):
        client.cut()
        client = world.hello("s", version=V311)
        assert client.take_bytes()[4:] == bytes([first[0] | 8]) + first[1:]
    client.send(Pubrec(int.from_bytes(number, "big")))
    assert client.take_bytes() == b"\x62\x02" + number
    for _ in range(2):
        client.cut()
        client = world.hello("s", version=V311)
        assert client.take_bytes()[4:] == b"\x62\x02" + number
    client.send(Pubcomp(int.from_bytes(number, "big")))
    client.cut()
    client = world.hello("s", version=V311)
    assert client.take_bytes()[4:] == b""


@pytest.mark.spec("MQTT311-3.3.2-3", "MQTT311-4.7.1-2", "MQTT311-4.7.1-3", "MQTT311-4.7.3-4")
def test_a_message_comes_under_its_own_topic_to_those_whose_filter_matches() -> None:
    """Each subscriber gets the topics that its filter matches, as they were published."""
    topics = ["a", "a/b", "a/b/c", "/a", "a/", "A/b", "a/$b", "$a/b", "/"]
    matching = {
        "a": "a",
        "a/b": "a/b",
        "#": "a a/b a/b/c /a a/ A/b a/$b /",
        "+": "a",
        "a/#": "a a/b a/b/c a/ a/$b",
        "a/+": "a/b a/ a/$b",
        "+/b": "a/b A/b",
        "+/+": "a/b /a a/ A/b a/$b /",
        "a/+/c": "a/b/c",
        "/+": "/a /",
        "+/": "a/ /",
        "$a/+": "$a/b",
        "+/+/#": "a/b a/b/c /a a/ A/b a/$b /",
    }
    world = World()
    clients = {
        topic_filter: subscriber(world, topic_filter, 1, f"s{n}")
        for n, topic_filter in enumerate(matching)
    }
    source = publisher(world)
    for topic in topics:
        source.publish(topic, "x", 1, 1)
    for topic_filter, client in clients.items():
        found = [packet.topic for packet in client.publishes()]
        assert found == matching[topic_filter].split(), topic_filter


@pytest.mark.spec("MQTT311-3.8.4-6", "MQTT311-3.3.5-1")
@pytest.mark.parametrize("published", [0, 1, 2])
@pytest.mark.parametrize("granted", [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (2, 1, 0)])
def test_a_message_comes_at_the_lower_qos_of_message_and_highest_subscription(
    published: int, granted: tuple[int, ...]
) -> None:
    world = World()
    client = world.hello("s", version=V311)
    for topic_filter, qos in zip(("t/+", "t/#", "t/a"), granted, strict=False):
        client.subscribe(topic_filter, qos)
    client.received()
    client.take_bytes()
    publisher(world).publish("t/a", "x", published, 1 if published else 0)
    highest = [one for one in read(client) if one.qos == min(published, max(granted))]
    assert len(highest) == 1


@pytest.mark.spec("MQTT311-1.5.3-3", "MQTT311-4.7.3-4")
def test_u_feff_is_a_character_of_a_topic_like_any_other() -> None:
    world = World()
    marked, plain = "\ufeffa\ufeff", "a"
    client = subscriber(world, marked, 0, "marked")
    other = subscriber(world, plain, 0, "plain")
    publisher(world).publish(marked, "m", 0)
    assert client.take_bytes() == b"\x30\x0a\x00\x07\xef\xbb\xbfa\xef\xbb\xbfm"
    assert other.received() == []


@pytest.mark.spec("MQTT311-4.7.3-3")
def test_a_topic_and_a_filter_may_take_65535_bytes() -> None:
    world = World()
    topic = "é" * 32_767 + "e"
    client = subscriber(world, topic, 1)
    publisher(world).publish(topic, "x", 1, 1)
    (message,) = read(client)
    assert (message.topic, len(message.topic.encode())) == (topic, 65_535)


# --- retained messages


@pytest.mark.spec("MQTT311-3.3.1-5", "MQTT311-3.3.1-6", "MQTT311-3.3.1-8")
def test_a_subscription_brings_the_last_retained_message_of_each_matching_topic() -> None:
    world = World()
    source = publisher(world)
    for topic in ("a/1", "a/2", "b/1", "$a/1"):
        for qos in (0, 2, 1):
            source.publish(topic, f"{topic} q{qos}", qos, 1 if qos else 0, retain=True)
            source.send(Pubrel(1))
    client = subscriber(world, "nothing/#", 2)
    client.subscribe("a/+", 2)
    answer, *found = client.received()
    assert answer == "SUBACK #1 0x02"
    assert sorted(line.split(" #")[0] for line in found) == [
        "PUBLISH a/1 a/1 q1 q1",
        "PUBLISH a/2 a/2 q1 q1",
    ]
    assert all(line.endswith(" retain") for line in found)
    client.subscribe("#", 0)
    answer, *found = client.received()
    assert sorted(line.split()[1] for line in found) == ["a/1", "a/2", "b/1"]


@pytest.mark.spec("MQTT311-3.3.1-7", "MQTT311-3.3.1-5")
@pytest.mark.parametrize("earlier_qos", [0, 1, 2])
def test_a_retained_message_of_qos_0_replaces_the_earlier_one(earlier_qos: int) -> None:
    world = World()
    source = publisher(world)
    source.publish("t", "old", earlier_qos, 1 if earlier_qos else 0, retain=True)
    source.publish("t", "new", 0, retain=True)
    late = world.hello("late", version=V311)
    late.subscribe("t", 2)
    assert late.received() == ["SUBACK #1 0x02", "PUBLISH t new q0 retain"]
    # The standard lets the server drop it at any time; the earlier one is gone for good.
    world.stop()
    world.restart()
    late = world.hello("later", version=V311)
    late.subscribe("t", 2)
    assert late.received() in (
        ["SUBACK #1 0x02"],
        ["SUBACK #1 0x02", "PUBLISH t new q0 retain"],
    )


@pytest.mark.spec("MQTT311-3.3.1-9", "MQTT311-3.3.1-10", "MQTT311-3.3.1-11")
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_an_empty_retained_message_is_delivered_and_clears_the_topic(qos: int) -> None:
    """Twice, for the second time with nothing to clear: nothing empty is ever kept."""
    world = World()
    client = subscriber(world, "t", 0)
    source = publisher(world)
    source.publish("t", "kept", 1, 1, retain=True)
    assert client.received() == ["PUBLISH t kept q0"]
    for n in range(2):
        source.publish("t", "", qos, 7 if qos else 0, retain=True)
        source.send(Pubrel(7))
        assert client.take_bytes()[-5:] == b"\x30\x03\x00\x01t"
        assert client.received() == ["PUBLISH t q0"]
        late = world.hello(f"late{n}", version=V311)
        late.subscribe("#", 0)
        assert late.received() == ["SUBACK #1 0x00"]
    world.stop()
    world.restart()
    late = world.hello("later", version=V311)
    late.subscribe("t", 0)
    assert late.received() == ["SUBACK #1 0x00"]


@pytest.mark.spec("MQTT311-3.3.1-12", "MQTT311-3.3.1-9")
@pytest.mark.parametrize("payload", ["other", ""])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_message_without_retain_leaves_the_retained_one_alone(qos: int, payload: str) -> None:
    world = World()
    source = publisher(world)
    source.publish("t", "kept", 1, 1, retain=True)
    for topic in ("t", "u"):
        source.publish(topic, payload, qos, 2 if qos else 0)
        source.send(Pubrel(2))
    client = world.hello("late", version=V311)
    client.subscribe("#", 0)
    assert client.received() == ["SUBACK #1 0x00", "PUBLISH t kept q0 retain"]


@pytest.mark.spec("MQTT311-3.1.2-7")
@pytest.mark.parametrize("clean", [False, True])
def test_retained_messages_outlive_the_session_that_published_them(clean: bool) -> None:
    world = World()
    source = world.hello("p", version=V311, clean=clean)
    source.publish("t", "kept", 1, 1, retain=True)
    source.disconnect()
    world.hello("p", version=V311, clean=True).disconnect()
    client = world.hello("late", version=V311)
    client.subscribe("t", 0)
    assert client.received() == ["SUBACK #1 0x00", "PUBLISH t kept q0 retain"]
