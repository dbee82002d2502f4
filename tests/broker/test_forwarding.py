"""The properties of a message reach every subscriber unaltered, whichever way it takes."""

import pytest

from holdfast.broker.limits import Limits
from holdfast.message import Properties
from holdfast.protocol.packets import Packet, Publish, Will
from tests.broker.world import START_MS, Client, World
from tests.support.properties import expiring

USER_PROPERTIES = [("b", "1"), ("a", "2"), ("b", "1"), ("", ""), ("ä", "€")]


def every_property() -> Properties:
    properties = Properties()
    properties.payload_format_indicator = 1
    properties.content_type = "text/plain"
    properties.response_topic = "answers/7"
    properties.correlation_data = b"\x00\xff\x01"
    properties.user_properties = USER_PROPERTIES.copy()
    return properties


def check(packet: Packet) -> None:
    assert isinstance(packet, Publish)
    properties = packet.properties
    assert properties is not None
    assert properties.payload_format_indicator == 1
    assert properties.content_type == "text/plain"
    assert properties.response_topic == "answers/7"
    assert properties.correlation_data == b"\x00\xff\x01"
    assert properties.user_properties == USER_PROPERTIES


def only_publish(client: Client) -> Publish:
    (packet,) = client.publishes()
    return packet


FORWARDED = [
    pytest.mark.spec("MQTT5-3.3.2-4"),
    pytest.mark.spec("MQTT5-3.3.2-15"),
    pytest.mark.spec("MQTT5-3.3.2-16"),
    pytest.mark.spec("MQTT5-3.3.2-17"),
    pytest.mark.spec("MQTT5-3.3.2-18"),
    pytest.mark.spec("MQTT5-3.3.2-20"),
]


class TestForwarded:
    """Live, through the log, from the retained slot, as a will; each over a crash too."""

    pytestmark = FORWARDED

    @pytest.mark.parametrize("qos", [0, 1, 2])
    def test_live(self, qos: int) -> None:
        world = World()
        subscriber = world.transient("s")
        subscriber.subscribe("t", qos)
        world.transient("p").publish("t", "x", 2, 1, properties=every_property())
        check(only_publish(subscriber))

    @pytest.mark.parametrize("is_crashed", [False, True])
    @pytest.mark.parametrize("qos", [1, 2])
    def test_through_the_log(self, qos: int, is_crashed: bool) -> None:
        world = World()
        world.session("s", "t", qos)
        world.transient("p").publish("t", "x", 2, 1, properties=every_property())
        if is_crashed:
            world.crash()
            world.restart()
        subscriber = world.hello("s")
        check(only_publish(subscriber))
        subscriber.cut()
        check(only_publish(world.hello("s")))  # sent again

    @pytest.mark.parametrize("is_crashed", [False, True])
    @pytest.mark.parametrize("qos", [0, 1])
    def test_retained(self, qos: int, is_crashed: bool) -> None:
        world = World()
        world.transient("p").publish("t", "x", 1, 1, retain=True, properties=every_property())
        if is_crashed:
            world.crash()
            world.restart()
        subscriber = world.hello("s")
        subscriber.subscribe("t", qos)
        check(only_publish(subscriber))

    @pytest.mark.parametrize("is_crashed", [False, True])
    def test_will(self, is_crashed: bool) -> None:
        world = World()
        world.session("s", "t", 1)
        client = world.hello("c", will=Will("t", b"x", 1, False, every_property()))
        if is_crashed:
            world.crash()
            world.restart()
        else:
            client.cut()
        check(only_publish(world.hello("s")))


# Message Expiry.


def left_s(packet: Publish) -> int | None:
    assert packet.properties is not None
    return packet.properties.message_expiry_interval


@pytest.mark.spec("MQTT5-3.3.2-5")
@pytest.mark.spec("MQTT5-3.3.2-6")
@pytest.mark.parametrize("is_crashed", [False, True])
def test_expiry_goes_on_while_a_message_waits(is_crashed: bool) -> None:
    world = World()
    world.session("s", "t", 1)
    publisher = world.transient("p")
    publisher.publish("t", "short", 1, 1, properties=expiring(10))
    publisher.publish("t", "long", 1, 2, properties=expiring(100))
    world.advance(4_000)
    if is_crashed:
        world.crash()
        world.restart(after_ms=6_000)
    else:
        world.advance(6_000)
    packet = only_publish(world.hello("s"))
    assert (packet.payload, left_s(packet)) == (b"long", 90)


@pytest.mark.spec("MQTT5-3.3.2-6")
@pytest.mark.parametrize("qos", [0, 1])
@pytest.mark.parametrize("expiry_s", [0, 60])
def test_a_retained_message_counts_down_and_frees_its_slot(qos: int, expiry_s: int) -> None:
    world = World()
    publisher = world.transient("p")
    publisher.publish("t", "x", 1, 1, retain=True, properties=expiring(10))
    world.advance(9_500)
    subscriber = world.hello("s", expiry_s=expiry_s)
    subscriber.subscribe("t", qos)
    assert left_s(only_publish(subscriber)) == 1
    world.advance(500)
    assert stored(world) == {"t"}
    subscriber.subscribe("#", qos)
    assert subscriber.received() == [f"SUBACK #1 0x0{qos}"]
    assert stored(world) == set()
    publisher.publish("t", "new", 1, 2, retain=True)
    assert stored(world) == {"t"}


def test_an_expired_retained_message_is_freed_at_the_start() -> None:
    world = World()
    publisher = world.transient("p")
    publisher.publish("gone", "x", retain=True, properties=expiring(10))
    publisher.publish("kept", "x", retain=True, properties=expiring(100))
    world.crash()
    world.restart(after_ms=10_000)
    assert stored(world) == {"kept"}


def test_a_retained_message_that_expires_on_its_way_is_not_sent() -> None:
    world = World(Limits(in_flight_max=1))
    publisher = world.transient("p")
    for topic in ("t/1", "t/2"):
        publisher.publish(topic, "x", 1, 1, retain=True, properties=expiring(10))
    subscriber = world.transient("s")
    subscriber.subscribe("t/#", 1)
    first = only_publish(subscriber)
    world.advance(10_000)
    subscriber.send_bytes(b"\x40\x02" + first.packet_id.to_bytes(2, "big"))
    assert subscriber.received() == []
    assert len(stored(world)) == 1


def test_the_expiry_of_a_will_counts_from_its_publication() -> None:
    world = World()
    world.session("s", "t", 1)
    will = Will("t", b"x", 1, False, expiring(10))
    client = world.hello("c", will=will)
    world.advance(60_000)
    client.cut()
    world.advance(9_000)
    assert left_s(only_publish(world.hello("s"))) == 1
    assert world.now_ms == START_MS + 69_000


def stored(world: World) -> set[str]:
    """The topics of the retained messages on the disk."""
    return {record.topic for record in world.disk.store.load().retained}


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("with_alias", [False, True], ids=["topic", "alias"])
@pytest.mark.parametrize("with_expiry", [False, True], ids=["for ever", "expiry"])
def test_properties_go_on_in_their_own_order_and_nothing_of_the_connection_does(
    qos: int, with_alias: bool, with_expiry: bool
) -> None:
    """What need not be encoded again goes out as it came, live and from the store; an alias, an
    expiry and identifiers never do.
    """
    world = World()
    clients = [world.hello("plain"), world.hello("identified"), world.hello("old", version=4)]
    for client, identifier in zip(clients, (0, 5, 0), strict=True):
        client.subscribe("t", 2, identifier=identifier)
        client.packets()
    absent = world.hello("absent")
    absent.subscribe("t", 2)
    absent.disconnect()
    publisher = world.hello("p")
    # In an order that an encoder of ours would not choose.
    user = b"\x26\x00\x01a\x00\x011" + b"\x26\x00\x01b\x00\x012" + b"\x26\x00\x01a\x00\x013"
    block = user + b"\x09\x00\x02\x00\xff" + b"\x08\x00\x01r" + b"\x03\x00\x01c" + b"\x01\x01"
    if with_expiry:
        block += b"\x02\x00\x00\x00\x64"
    if with_alias:
        block += b"\x23\x00\x07"
    packet_id = b"\x00\x09" if qos else b""
    body = b"\x00\x01t" + packet_id + bytes([len(block)]) + block + b"payload"
    publisher.send_bytes(bytes([0x30 | qos << 1, len(body)]) + body)

    def check(client: Client, identifiers: list[int]) -> None:
        (message,) = client.publishes()
        assert (message.topic, message.payload, message.qos) == ("t", b"payload", qos)
        if client.version == 4:
            return
        own = message.properties
        assert own is not None
        assert own.user_properties == [("a", "1"), ("b", "2"), ("a", "3")]
        assert (own.correlation_data, own.response_topic) == (b"\x00\xff", "r")
        assert (own.content_type, own.payload_format_indicator) == ("c", 1)
        assert own.message_expiry_interval == (100 if with_expiry else None)
        assert (own.topic_alias, own.subscription_identifiers) == (None, identifiers)

    for client, identifiers in zip(clients, ([], [5], []), strict=True):
        check(client, identifiers)
    if qos > 0:
        world.crash()
        world.restart()
        check(world.hello("absent"), [])
