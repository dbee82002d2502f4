"""PUBLISH in MQTT 5.0: how it is answered, what it retains, how many may be open."""

import pytest

from holdfast.broker.limits import Limits
from holdfast.protocol.packets import (
    Pingreq,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Unsubscribe,
    Will,
)
from tests.broker.world import Client, World
from tests.spec.mqtt5 import connect, subscribe_packet
from tests.support import packets
from tests.support.properties import properties

NOT_AUTHORIZED = 0x87


def subscriber(world: World, qos: int, topic_filter: str = "t") -> Client:
    client = world.transient(f"subscriber {qos} {topic_filter}")
    client.subscribe(topic_filter, qos)
    client.packets()
    return client


def retained(world: World, topic_filter: str = "#") -> list[str]:
    """What a new subscriber is brought, as ``topic payload``."""
    client = world.transient("looks")
    client.subscribe(topic_filter, 2)
    found = client.publishes()
    assert all(one.retain for one in found)
    client.disconnect()
    return sorted(f"{one.topic} {one.payload.decode()}" for one in found)


# --- the answer, and packet identifiers


@pytest.mark.spec("MQTT5-2.2.1-5")
@pytest.mark.spec("MQTT5-3.3.4-1")
@pytest.mark.parametrize("packet_id", [1, 255, 256, 65_535])
@pytest.mark.parametrize("has_subscriber", [False, True])
def test_a_publish_is_answered_by_its_qos_and_under_its_identifier(
    packet_id: int, has_subscriber: bool
) -> None:
    world = World()
    if has_subscriber:
        subscriber(world, 2)
    code = "" if has_subscriber else " 0x10"
    client = world.transient("p")
    client.publish("t", "0", 0)
    assert client.received() == []
    client.publish("t", "1", 1, packet_id)
    assert client.received() == [f"PUBACK #{packet_id}{code}"]
    client.publish("t", "2", 2, packet_id)
    assert client.received() == [f"PUBREC #{packet_id}{code}"]
    client.send(Pubrel(packet_id))
    assert client.received() == [f"PUBCOMP #{packet_id}"]


@pytest.mark.spec("MQTT5-2.2.1-5")
def test_a_pubrel_of_the_server_has_the_identifier_of_its_publish() -> None:
    """Acknowledged in another order than they were sent in."""
    world = World()
    client = subscriber(world, 2)
    publisher = world.transient("p")
    for number in range(1, 4):
        publisher.publish("t", str(number), 2, number + 100)
    sent = {one.payload: one.packet_id for one in client.publishes()}
    assert len(set(sent.values())) == 3
    for payload in (b"2", b"3", b"1"):
        client.send(Pubrec(sent[payload]))
        assert client.received() == [f"PUBREL #{sent[payload]}"]
        client.send(Pubcomp(sent[payload]))


@pytest.mark.spec("MQTT5-2.2.1-6")
@pytest.mark.parametrize("packet_id", [1, 255, 256, 65_535])
def test_a_subscribe_and_an_unsubscribe_are_answered_under_their_identifier(packet_id: int) -> None:
    client = World().hello("c")
    client.subscribe("t", 1, packet_id)
    assert client.received() == [f"SUBACK #{packet_id} 0x01"]
    client.unsubscribe("t", packet_id)
    assert client.received() == [f"UNSUBACK #{packet_id} 0x00"]


@pytest.mark.spec("MQTT5-2.2.1-6")
def test_answers_held_up_by_the_disk_keep_each_its_identifier() -> None:
    world = World()
    client = world.hello("c")
    world.disk.hold()
    client.send(subscribe_packet("a", 1, 9), subscribe_packet("b", 2, 4), Unsubscribe(7, ["a"]))
    assert client.received() == []
    world.disk.sync()
    assert client.received() == ["SUBACK #9 0x01", "SUBACK #4 0x02", "UNSUBACK #7 0x00"]


@pytest.mark.spec("MQTT5-2.2.1-4")
@pytest.mark.parametrize("expiry_s", [0, 60])
def test_the_server_gives_no_identifier_that_is_in_use_even_when_it_has_gone_round(
    expiry_s: int,
) -> None:
    """The first and the third message stay open while the identifiers run out and begin anew."""
    world = World()
    client = world.hello("s", expiry_s=expiry_s)
    client.subscribe("t", 1)
    publisher = world.transient("p")
    publisher.send(*[Publish("t", b"x", 1, packet_id=n) for n in (1, 2, 3)])
    assert [one.packet_id for one in client.publishes()] == [1, 2, 3]
    client.send(Puback(2))
    session = world.broker.sessions.find("s")
    assert session is not None
    session.sender._next_id = 65_534
    publisher.send(*[Publish("t", b"x", 1, packet_id=n) for n in range(4, 10)])
    assert [one.packet_id for one in client.publishes()] == [65_534, 65_535, 2, 4, 5, 6]


@pytest.mark.spec("MQTT5-2.2.1-3")
@pytest.mark.parametrize(
    "packet",
    [
        packets.publish("t", b"x", qos=1, packet_id=0),
        packets.publish("t", b"x", qos=2, packet_id=0),
        packets.subscribe(0, [("t", 0)]),
        packets.unsubscribe(0, ["t"]),
    ],
    ids=["PUBLISH 1", "PUBLISH 2", "SUBSCRIBE", "UNSUBSCRIBE"],
)
def test_a_packet_identifier_of_0_is_a_protocol_error(packet: bytes) -> None:
    world = World()
    watcher = subscriber(world, 2)
    client = world.hello("c")
    client.send_bytes(packet)
    assert client.received() == ["DISCONNECT 0x82"]
    assert watcher.received() == []


# --- what is retained


@pytest.mark.spec("MQTT5-3.3.1-5")
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("over_a_crash", [False, True])
def test_a_message_with_retain_takes_the_place_of_the_one_before(
    qos: int, over_a_crash: bool
) -> None:
    world = World()
    publisher = world.transient("p")
    for number, content in enumerate(["first", "second"], 1):
        publisher.publish("a/b", content, qos, number if qos else 0, retain=True)
        publisher.send(Pubrel(number))
    if over_a_crash:
        publisher.publish("other", "commits what came before", 1, 5, retain=True)
        world.crash()
        world.restart()
    client = world.transient("c")
    client.subscribe("a/b", 2)
    (found,) = client.publishes()
    assert (found.payload, found.qos, found.retain) == (b"second", qos, True)


@pytest.mark.spec("MQTT5-3.3.1-6")
@pytest.mark.spec("MQTT5-3.3.1-7")
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("had_one", [False, True])
def test_an_empty_payload_is_delivered_clears_and_is_never_stored(qos: int, had_one: bool) -> None:
    """Not even an empty one with properties, nor over a crash."""
    world = World()
    watcher = subscriber(world, 2, "a/b")
    world.session("absent", "a/b", 2)
    publisher = world.transient("p")
    if had_one:
        publisher.publish("a/b", "old", 1, 1, retain=True)
    own = properties(content_type="text/plain")
    publisher.publish("a/b", "", qos, 2 if qos else 0, retain=True, properties=own)
    empty = watcher.publishes()[-1]
    assert (empty.payload, empty.qos, empty.retain) == (b"", qos, False)
    assert retained(world) == []
    publisher.publish("other", "commits what came before", 1, 3)
    world.crash()
    assert world.disk.store.load().retained == []
    world.restart()
    assert retained(world) == []
    waiting = [one.payload for one in world.hello("absent").publishes()]
    assert waiting == [b"old"] * had_one + [b""] * (qos > 0)


@pytest.mark.spec("MQTT5-3.3.1-7")
def test_an_empty_retained_will_is_not_stored_either() -> None:
    world = World()
    world.transient("p").publish("w", "old", 1, 1, retain=True)
    world.hello("c", will=Will("w", b"", 1, True)).cut()
    assert retained(world) == []
    assert world.disk.store.load().retained == []


@pytest.mark.spec("MQTT5-3.3.1-8")
@pytest.mark.parametrize("payload", ["new", ""])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_message_without_retain_leaves_what_is_retained_as_it_is(qos: int, payload: str) -> None:
    world = World()
    publisher = world.transient("p")
    publisher.publish("kept", "old", 1, 1, retain=True)
    for topic in ("kept", "none"):
        publisher.publish(topic, payload, qos, 2 if qos else 0)
        publisher.send(Pubrel(2))
    assert retained(world) == ["kept old"]
    publisher.publish("other", "commits what came before", 1, 3)
    world.crash()
    world.restart()
    assert retained(world) == ["kept old"]


# --- Retain Handling


@pytest.mark.spec("MQTT5-3.3.1-9")
@pytest.mark.spec("MQTT5-3.3.1-10")
@pytest.mark.spec("MQTT5-3.3.1-11")
@pytest.mark.parametrize("handling", [0, 1, 2])
@pytest.mark.parametrize("existed", ["no", "as it is", "with other options", "over a crash"])
@pytest.mark.parametrize("topic_filter", ["a/b", "a/+"])
def test_retain_handling_says_when_a_subscribe_brings_retained_messages(
    handling: int, existed: str, topic_filter: str
) -> None:
    world = World()
    client = world.hello("c")
    if existed == "with other options":
        client.subscribe(topic_filter, 2, no_local=True, identifier=8)
    elif existed != "no":
        client.subscribe(topic_filter, 1)
    if existed == "over a crash":
        world.crash()
        world.restart()
        client = world.hello("c")
    client.packets()
    publisher = world.transient("p")
    publisher.publish("a/b", "kept", 1, 1, retain=True)
    for live in client.publishes():
        client.send(Puback(live.packet_id))
    client.subscribe(topic_filter, 1, retain_handling=handling)
    brought = handling == 0 or (handling == 1 and existed == "no")
    assert [one.payload for one in client.publishes()] == [b"kept"] * brought


@pytest.mark.spec("MQTT5-3.3.1-9")
@pytest.mark.parametrize("asked", [0, 1, 2])
@pytest.mark.parametrize("is_lasting", [False, True])
def test_a_subscribe_brings_every_retained_message_that_matches_at_the_lower_qos(
    asked: int, is_lasting: bool
) -> None:
    world = World()
    publisher = world.transient("p")
    topics = ["a", "a/b", "a/b/c", "a/c", "b/a", "$a/b"]
    for number, topic in enumerate(topics):
        qos = number % 3
        publisher.publish(topic, topic, qos, number if qos else 0, retain=True)
        publisher.send(Pubrel(number or 1))
    client = world.hello("c", expiry_s=60 if is_lasting else 0)
    client.subscribe("a/#", asked)
    found = {one.topic: one.qos for one in client.publishes()}
    assert found == {topics[n]: min(n % 3, asked) for n in range(4)}


def test_each_filter_of_a_subscribe_brings_its_own() -> None:
    world = World()
    publisher = world.transient("p")
    for number, topic in enumerate(["a", "b"], 1):
        publisher.publish(topic, topic, 1, number, retain=True)
    client = world.transient("c")
    client.subscribe("a", 1, identifier=1)
    client.subscribe("+", 1, identifier=2)
    found = [(one.topic, one.properties) for one in client.publishes()]
    assert [
        (topic, None if own is None else own.subscription_identifiers) for topic, own in found
    ] == [("a", [1]), ("a", [2]), ("b", [2])]


# --- Receive Maximum, towards the client


@pytest.mark.spec("MQTT5-3.3.4-9")
@pytest.mark.parametrize("limit", [1, 2, 5])
@pytest.mark.parametrize("way", ["live", "absent"])
@pytest.mark.parametrize("qos", [1, 2])
def test_no_more_messages_are_open_than_the_client_takes(limit: int, way: str, qos: int) -> None:
    """Only what closes one lets the next out: PUBACK, PUBCOMP, or a PUBREC that refuses."""
    world = World()
    world.session("c", "t", qos)
    client = connect(world, "c", session_expiry_interval=60, receive_maximum=limit)
    if way == "absent":
        client.cut()
    publisher = world.transient("p")
    for number in range(1, 21):
        publisher.publish("t", str(number), qos, number)
        publisher.send(Pubrel(number))
    if way == "absent":
        client = connect(world, "c", session_expiry_interval=60, receive_maximum=limit)
    sent = client.publishes()
    assert len(sent) == limit
    for number in range(limit, 20):
        packet_id = sent.pop(0).packet_id
        if qos == 1:
            client.send(Puback(packet_id))
        elif number % 2:
            client.send(Pubrec(packet_id, 0x80))
        else:
            client.send(Pubrec(packet_id))
            assert client.received() == [f"PUBREL #{packet_id}"]
            client.send(Pubcomp(packet_id))
        (released,) = client.publishes()
        assert released.payload == str(number + 1).encode()
        sent.append(released)


@pytest.mark.spec("MQTT5-3.3.4-10")
def test_an_exhausted_receive_maximum_holds_up_no_answer_and_no_qos_0() -> None:
    world = World()
    client = connect(world, "c", clean=True, receive_maximum=1)
    client.subscribe("t", 2)
    publisher = world.transient("p")
    publisher.publish("t", "1", 2, 1)
    publisher.publish("t", "2", 2, 2)
    client.packets()
    client.send(
        Pingreq(),
        subscribe_packet("u", 1, 10),
        Publish("x", b"", 1, packet_id=11),
        Publish("x", b"", 2, packet_id=12),
        Pubrel(12),
        Unsubscribe(13, ["u"]),
        Pubrec(1),
    )
    assert client.received() == [
        *("PINGRESP", "SUBACK #10 0x01", "PUBACK #11 0x10", "PUBREC #12 0x10", "PUBCOMP #12"),
        *("UNSUBACK #13 0x00", "PUBREL #1"),
    ]
    publisher.publish("t", "0", 0)
    assert client.received() == ["PUBLISH t 0 q0"]
    client.send(Pubcomp(1))
    assert client.received() == ["PUBLISH t 2 q2 #2"]


# --- Receive Maximum, towards the server


@pytest.mark.spec("MQTT5-3.3.4-7")
@pytest.mark.spec("MQTT5-3.3.4-8")
def test_a_client_at_the_server_s_receive_maximum_may_send_anything_but_one_more() -> None:
    world = World(Limits(receive_maximum=2))
    world.session("absent", "t", 1)
    client = world.hello("c")
    world.disk.hold()
    client.send(Publish("t", b"1", 1, packet_id=1), Publish("t", b"2", 2, packet_id=2))
    client.send(
        Pingreq(), Publish("t", b"0"), subscribe_packet("u", 0, 3), Unsubscribe(4, ["u"]), Puback(9)
    )
    assert client.is_open
    client.send(Publish("t", b"3", 1, packet_id=5))
    assert client.received() == ["DISCONNECT 0x93"]
    assert not client.is_open


@pytest.mark.spec("MQTT5-3.3.4-7")
@pytest.mark.parametrize("closing", ["PUBACK", "PUBCOMP", "PUBREC 0x87"])
def test_what_closes_a_publish_makes_room_for_the_next(closing: str) -> None:
    world = World(Limits(receive_maximum=1))
    client = world.hello("c")
    for _ in range(3):
        if closing == "PUBACK":
            client.publish("t", "x", 1, 1)
        elif closing == "PUBCOMP":
            client.publish("t", "x", 2, 1)
            client.send(Pubrel(1))
        else:
            client.publish("$SYS/x", "x", 2, 1)
            assert client.received() == [f"PUBREC #1 0x{NOT_AUTHORIZED:02X}"]
        assert client.is_open
    client.publish("t", "stays open", 2, 1)
    client.publish("t", "one too many", 2, 2)
    assert client.received()[-1] == "DISCONNECT 0x93"


# --- what a client must not send


@pytest.mark.spec("MQTT5-3.3.2-1")
@pytest.mark.spec("MQTT5-3.3.2-2")
@pytest.mark.spec("MQTT5-3.3.2-13")
@pytest.mark.spec("MQTT5-3.3.2-14")
@pytest.mark.spec("MQTT5-3.3.2-19")
@pytest.mark.spec("MQTT5-3.3.4-6")
@pytest.mark.parametrize(
    ("packet", "codes"),
    [
        pytest.param(packets.publish(b"t\xff", b"x"), {0x81}, id="topic not UTF-8"),
        pytest.param(packets.packet(3, 0, b"\0\1"), {0x81}, id="topic missing"),
        pytest.param(packets.publish("t/#", b"x"), {0x82, 0x90}, id="topic with #"),
        pytest.param(packets.publish("t/+", b"x"), {0x82, 0x90}, id="topic with +"),
        pytest.param(packets.publish("", b"x"), {0x82}, id="no topic and no alias"),
        pytest.param(
            packets.publish("t", b"x", values={0x08: b"a\xff"}), {0x81}, id="response topic, UTF-8"
        ),
        pytest.param(
            packets.publish("t", b"x", values={0x08: "a/#"}), {0x82, 0x90}, id="response topic #"
        ),
        pytest.param(
            packets.publish("t", b"x", values={0x03: b"\xff"}), {0x81}, id="content type, UTF-8"
        ),
        pytest.param(
            packets.publish("t", b"x", values={0x0B: 1}), {0x82}, id="subscription identifier"
        ),
        pytest.param(packets.packet(3, 6, b"\0\1t\0\1\0x"), {0x81}, id="QoS 3"),
        pytest.param(packets.packet(3, 8, b"\0\1t\0x"), {0x81, 0x82}, id="QoS 0 with DUP"),
    ],
)
def test_a_publish_against_the_rules_reaches_nobody_and_ends_the_connection(
    packet: bytes, codes: set[int]
) -> None:
    world = World()
    watcher = subscriber(world, 2, "#")
    client = world.transient("c")
    client.send_bytes(packet)
    assert client.received() in [[f"DISCONNECT 0x{code:02X}"] for code in codes]
    assert not client.is_open
    assert watcher.received() == []
