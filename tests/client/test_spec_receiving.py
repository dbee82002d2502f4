"""What the client does as a receiver of messages: acknowledgements, their order, and its limits."""

import pytest

from holdfast.client.incoming import ReceivedMessage
from holdfast.errors import ProtocolError
from holdfast.protocol.packets import Connect, Publish, Pubrel
from tests.client.world import V5, V311, ClientWorld
from tests.support.properties import properties

VERSIONS = pytest.mark.parametrize("version", [V5, V311], ids=["5.0", "3.1.1"])
DURABLE = pytest.mark.parametrize("is_durable", [False, True], ids=["memory", "disk"])
MANUAL = pytest.mark.parametrize("manual_ack", [False, True], ids=["auto", "manual"])


def connected(
    version: int = V5, *, is_durable: bool = False, manual_ack: bool = False
) -> ClientWorld:
    world = ClientWorld(version, is_durable=is_durable, manual_ack=manual_ack)
    world.hello()
    return world


def limited(**values: int) -> ClientWorld:
    """A client that has announced these limits in CONNECT."""
    world = ClientWorld()
    world.hello(connect=Connect("c", V5, False, properties=properties(**values)))
    return world


def q1(packet_id: int, payload: bytes = b"", *, dup: bool = False) -> Publish:
    return Publish("a", payload, 1, dup=dup, packet_id=packet_id)


def q2(packet_id: int, payload: bytes = b"", *, dup: bool = False) -> Publish:
    return Publish("a", payload, 2, dup=dup, packet_id=packet_id)


def payloads(messages: list[ReceivedMessage]) -> list[bytes]:
    return [message.payload for message in messages]


# --- the answers to a PUBLISH


@pytest.mark.spec(
    "MQTT5-3.3.4-1",
    "MQTT5-2.2.1-5",
    "MQTT5-4.3.2-4",
    "MQTT5-4.3.3-8",
    "MQTT311-2.3.1-6",
    "MQTT311-3.3.4-1",
)
@VERSIONS
@DURABLE
@MANUAL
def test_each_qos_has_its_answer(version: int, is_durable: bool, manual_ack: bool) -> None:
    world = connected(version, is_durable=is_durable, manual_ack=manual_ack)
    world.server(Publish("a", b"0"), q1(65_535, b"1"), q2(65_535 - 1, b"2"))
    assert world.sent() == []  # nothing is acknowledged that the application has not seen
    for _ in range(3):
        world.done(world.take())
    assert world.sent() == ["PUBACK #65535", "PUBREC #65534"]
    world.server(Pubrel(65_534))
    assert world.sent() == ["PUBCOMP #65534"]


@pytest.mark.spec("MQTT5-4.5.0-2", "MQTT311-4.5.0-2")
@VERSIONS
@DURABLE
def test_a_message_is_acknowledged_by_its_qos_whatever_is_done_with_it(
    version: int, is_durable: bool
) -> None:
    """At QoS 2 taking it is enough, at QoS 1 to be done with it."""
    world = connected(version, is_durable=is_durable)
    world.server(q2(1), q1(2), q2(3))
    message = world.take()
    assert world.sent() == ["PUBREC #1"]
    assert message.payload == b""
    world.done(world.take())
    world.take()
    assert world.sent() == ["PUBACK #2", "PUBREC #3"]


@pytest.mark.spec("MQTT5-4.3.2-5", "MQTT311-4.3.2-2")
@pytest.mark.parametrize("dup", [False, True])
@VERSIONS
@DURABLE
def test_after_its_puback_an_identifier_means_a_new_message(
    version: int, is_durable: bool, dup: bool
) -> None:
    world = connected(version, is_durable=is_durable)
    world.server(q1(7, b"1"))
    world.done(world.take())
    world.server(q1(7, b"1", dup=dup))
    assert payloads(world.arrived) == [b"1"]
    world.done(world.take())
    assert world.sent() == ["PUBACK #7", "PUBACK #7"]


@pytest.mark.spec("MQTT5-4.3.3-10", "MQTT311-4.3.3-2")
@pytest.mark.parametrize("dup", [False, True])
@VERSIONS
@DURABLE
def test_a_repeat_of_qos_2_is_answered_and_not_given_again(
    version: int, is_durable: bool, dup: bool
) -> None:
    world = connected(version, is_durable=is_durable)
    world.server(q2(7, b"1"))
    world.take()
    assert world.sent() == ["PUBREC #7"]
    for _ in range(2):
        world.server(q2(7, b"1", dup=dup))
        assert world.sent() == ["PUBREC #7"]
    world.again()
    world.server(q2(7, b"1", dup=True))
    assert world.sent() == ["PUBREC #7"]
    assert world.arrived == []


@pytest.mark.spec("MQTT5-4.3.3-10", "MQTT311-4.3.3-2")
@VERSIONS
@DURABLE
@MANUAL
def test_a_repeat_before_the_application_has_it_is_given_once(
    version: int, is_durable: bool, manual_ack: bool
) -> None:
    world = connected(version, is_durable=is_durable, manual_ack=manual_ack)
    world.server(q2(7, b"1"), q2(7, b"1", dup=True))
    world.again()
    world.server(q2(7, b"1", dup=True))
    assert world.sent() == []
    world.done(world.take())
    assert world.sent() == ["PUBREC #7"]
    assert world.arrived == []


@pytest.mark.spec("MQTT5-4.3.3-10", "MQTT311-4.3.3-2")
@VERSIONS
def test_a_repeat_is_known_after_a_crash(version: int) -> None:
    world = connected(version, is_durable=True)
    world.server(q2(7, b"1"))
    world.take()
    world.crash()
    world.server(q2(7, b"1", dup=True))
    assert world.sent() == ["PUBREC #7"] and world.arrived == []
    world.server(Pubrel(7))
    world.crash()
    world.server(q2(7, b"2"))
    assert payloads(world.arrived) == [b"2"]


def test_pubrec_waits_until_it_is_durable_that_the_application_has_the_message() -> None:
    world = connected(is_durable=True)
    world.server(q2(7, b"1"))
    world.hold()
    world.take()
    assert world.sent() == []
    world.sync()
    assert world.sent() == ["PUBREC #7"]


def test_a_message_that_was_not_acknowledged_before_a_crash_has_its_delivery_id() -> None:
    world = connected(is_durable=True, manual_ack=True)
    world.server(q2(7, b"1"), q2(8, b"2"))
    first = world.take().delivery_id
    world.crash()
    world.server(q2(7, b"1", dup=True))
    message = world.take()
    assert message.delivery_id == first > 0
    world.done(message)
    assert world.sent() == ["PUBREC #7"]
    world.server(Pubrel(7), q2(7, b"3"))
    assert world.take().delivery_id > first + 1


@pytest.mark.spec("MQTT5-4.3.3-11", "MQTT5-4.3.3-12", "MQTT311-4.3.3-2")
@VERSIONS
@DURABLE
def test_pubrel_frees_the_identifier(version: int, is_durable: bool) -> None:
    world = connected(version, is_durable=is_durable)
    world.server(q2(7, b"1"))
    world.take()
    world.server(Pubrel(7))
    assert world.sent() == ["PUBREC #7", "PUBCOMP #7"]
    world.server(q2(7, b"2", dup=True))
    assert payloads(world.arrived) == [b"2"]


@pytest.mark.spec("MQTT5-4.3.3-11", "MQTT311-4.3.3-2")
@VERSIONS
@DURABLE
def test_a_repeated_pubrel_is_answered_too(version: int, is_durable: bool) -> None:
    world = connected(version, is_durable=is_durable)
    world.server(q2(7))
    world.take()
    world.server(Pubrel(7))
    world.wire()
    world.again()
    world.server(Pubrel(7))
    assert world.sent() == ["PUBCOMP #7 0x92" if version == V5 else "PUBCOMP #7"]


def test_pubcomp_waits_until_it_is_durable_that_the_identifier_is_free() -> None:
    world = connected(is_durable=True)
    world.server(q2(7))
    world.take()
    world.wire()
    world.hold()
    world.server(Pubrel(7), Pubrel(7))
    assert world.sent() == []
    world.sync()
    assert world.sent() == ["PUBCOMP #7", "PUBCOMP #7 0x92"]


@pytest.mark.spec("MQTT5-4.3.3-13")
@DURABLE
def test_an_expiry_does_not_stop_the_exchange(is_durable: bool) -> None:
    world = connected(is_durable=is_durable)
    message = q2(7)
    message.properties = properties(message_expiry_interval=1)
    world.server(message)
    world.now_ms += 60_000
    world.take()
    world.server(Pubrel(7))
    assert world.sent() == ["PUBREC #7", "PUBCOMP #7"]


@pytest.mark.spec("MQTT5-4.3.3-9")
def test_no_pubrec_refuses() -> None:
    """So no identifier is free before its PUBREL."""
    world = connected()
    for packet_id in range(1, 50):
        world.server(q2(packet_id))
        world.take()
        assert world.wire() == bytes([0x50, 2, 0, packet_id])


# --- order


@pytest.mark.spec("MQTT5-4.6.0-2", "MQTT5-4.6.0-3", "MQTT311-4.6.0-2", "MQTT311-4.6.0-3")
@VERSIONS
@DURABLE
def test_acknowledgements_leave_in_the_order_of_the_messages(
    version: int, is_durable: bool
) -> None:
    world = connected(version, is_durable=is_durable, manual_ack=True)
    world.server(q1(9), q2(3), q1(4), q2(8), q1(1), q2(2))
    messages = [world.take() for _ in range(6)]
    for message in messages[1:]:
        world.done(message)
    assert world.sent() == ["PUBREC #3", "PUBREC #8", "PUBREC #2"]
    world.done(messages[0])
    assert world.sent() == ["PUBACK #9", "PUBACK #4", "PUBACK #1"]


@pytest.mark.spec("MQTT5-4.6.0-2", "MQTT5-4.6.0-3", "MQTT311-4.6.0-2", "MQTT311-4.6.0-3")
@VERSIONS
@DURABLE
def test_the_order_is_that_of_the_connection(version: int, is_durable: bool) -> None:
    """What was received before is acknowledged when the server sends it again, in its order."""
    world = connected(version, is_durable=is_durable, manual_ack=True)
    world.server(q1(1, b"1"), q1(2, b"2"), q2(3, b"3"), q2(4, b"4"))
    one, two, three, four = (world.take() for _ in range(4))
    world.again()
    world.done(one)
    world.done(four)
    assert world.sent() == []  # not before they come again
    world.server(
        q2(3, b"3", dup=True), q1(2, b"2", dup=True), q2(4, b"4", dup=True), q1(1, b"1", dup=True)
    )
    world.done(three)
    world.done(two)
    assert sorted(world.sent()) == ["PUBACK #1", "PUBACK #2", "PUBREC #3", "PUBREC #4"]
    assert world.arrived == []


@pytest.mark.spec("MQTT5-4.6.0-2", "MQTT311-4.6.0-2")
@VERSIONS
def test_messages_reach_the_application_in_their_order(version: int) -> None:
    world = connected(version)
    sent = [b"%d" % number for number in range(30)]
    for number, payload in enumerate(sent):
        qos = number % 3
        world.server(Publish("a", payload, qos, packet_id=number + 1 if qos else 0))
    assert payloads(world.arrived) == sent


# --- sessions


@pytest.mark.spec("MQTT5-3.2.2-5")
@VERSIONS
@DURABLE
def test_identifiers_of_a_session_that_is_gone_are_forgotten(
    version: int, is_durable: bool
) -> None:
    world = connected(version, is_durable=is_durable)
    world.server(q2(7, b"1"), q2(8, b"2"))
    world.take()
    world.again(present=False)
    world.server(q2(7, b"3"))
    assert payloads(world.arrived) == [b"2", b"3"]
    world.take()
    assert world.sent() == []  # nobody waits for the acknowledgement of 8
    world.take()
    assert world.sent() == ["PUBREC #7"]
    world.crash() if is_durable else world.again()
    world.server(q2(8, b"4"), q2(7, b"3", dup=True))
    assert payloads(world.arrived) == [b"4"]


@DURABLE
def test_an_acknowledgement_after_the_session_has_ended_says_nothing(is_durable: bool) -> None:
    world = connected(is_durable=is_durable, manual_ack=True)
    world.server(q1(1, b"1"), q2(2, b"2"))
    old = [world.take(), world.take()]
    world.again(present=False)
    world.server(q1(1, b"3"), q2(2, b"4"))
    for message in old:
        world.done(message)
    assert world.sent() == []
    world.done(world.take())
    world.done(world.take())
    assert world.sent() == ["PUBACK #1", "PUBREC #2"]


# --- Receive Maximum


def overruns(world: ClientWorld, packet: Publish) -> bool:
    """Whether it is this message that is one more than the client has announced."""
    assert not world.receiving.is_overrun
    world.server(packet)
    return world.receiving.is_overrun


def test_more_than_the_announced_receive_maximum_is_taken_and_told() -> None:
    world = limited(receive_maximum=3)
    world.server(q1(1), q2(2), q1(3), Publish("a", b""))
    assert overruns(world, q2(4, b"last"))
    assert payloads(world.arrived)[-1] == b"last"
    world.again()
    assert not world.receiving.is_overrun


def test_more_than_there_are_identifiers_ends_the_connection() -> None:
    """Source: MQTT 5.0 §3.3.4."""
    world = limited(receive_maximum=3)
    for packet_id in range(1, 65_536):
        world.receiving.publish(q1(packet_id))
    assert world.breaks(q1(1)) == 0x93


def test_an_acknowledged_message_counts_no_more() -> None:
    world = limited(receive_maximum=2)
    for packet_id in range(1, 20):
        world.server(q1(packet_id))
        world.done(world.take())
        world.server(q2(packet_id))
        world.take()
        world.server(Pubrel(packet_id))
    world.server(q1(1), q1(2))
    assert overruns(world, q1(3))


def test_a_message_of_qos_2_counts_until_its_pubcomp() -> None:
    world = limited(receive_maximum=2)
    world.server(q2(1), q2(2))
    world.take()
    world.take()
    assert overruns(world, q2(3))


def test_a_repeat_does_not_count_twice() -> None:
    world = limited(receive_maximum=2)
    world.server(q2(1), q2(2), q2(1, dup=True))
    world.take()
    world.server(q2(1, dup=True), q2(2, dup=True))
    assert overruns(world, q1(3))


def test_what_was_received_before_counts_only_if_it_comes_again() -> None:
    world = limited(receive_maximum=2)
    connect = Connect("c", V5, False, properties=properties(receive_maximum=2))
    world.server(q2(1), q2(2))
    world.take()
    world.take()
    world.cut()
    world.hello(present=True, connect=connect)
    world.server(q2(3), q2(4))
    world.server(Pubrel(1), Pubrel(2))  # of before: they give nothing back
    assert overruns(world, q2(5))


def test_before_5_0_only_the_identifiers_bound_what_is_unacknowledged() -> None:
    world = connected(V311)
    for packet_id in range(1, 65_536):
        world.receiving.publish(q1(packet_id))
    with pytest.raises(ProtocolError):
        world.receiving.publish(q1(1))


# --- Maximum Packet Size


def test_a_packet_above_the_announced_maximum_ends_the_connection() -> None:
    """Source: MQTT 5.0 §3.1.2.11.4."""
    overhead = 6
    world = limited(maximum_packet_size=100)
    world.server(Publish("a", b"x" * (100 - overhead)))
    assert world.breaks(Publish("a", b"x" * (101 - overhead))) == 0x95
    world = limited(maximum_packet_size=100)
    assert world.breaks(b"\x30\xff\xff\xff\x7f") == 0x95  # as soon as it is announced


# --- topic aliases


def aliased(alias: int, topic: str = "", qos: int = 0, packet_id: int = 0) -> Publish:
    return Publish(topic, b"", qos, packet_id=packet_id, properties=properties(topic_alias=alias))


@pytest.mark.spec("MQTT5-3.3.2-10")
def test_every_alias_up_to_the_announced_maximum_is_taken() -> None:
    world = limited(topic_alias_maximum=40)
    for alias in range(1, 41):
        world.server(aliased(alias, f"t/{alias}"))
    for alias in range(40, 0, -1):
        world.server(aliased(alias))
    topics = [message.topic for message in world.arrived]
    assert topics[:40] == [f"t/{alias}" for alias in range(1, 41)]
    assert topics[40:] == list(reversed(topics[:40]))


def test_an_alias_can_be_given_to_another_topic() -> None:
    world = limited(topic_alias_maximum=1)
    world.server(aliased(1, "a"), aliased(1), aliased(1, "b"), aliased(1))
    assert [message.topic for message in world.arrived] == ["a", "a", "b", "b"]


@pytest.mark.spec("MQTT5-3.3.2-8")
def test_alias_0_ends_the_connection() -> None:
    world = limited(topic_alias_maximum=5)
    assert world.breaks(b"\x30\x07\x00\x01a\x03\x23\x00\x00") == 0x94


@pytest.mark.parametrize("maximum", [0, 5])
def test_an_alias_above_the_maximum_ends_the_connection(maximum: int) -> None:
    world = limited(topic_alias_maximum=maximum)
    assert world.breaks(aliased(maximum + 1, "a")) == 0x94


def test_an_alias_that_was_not_given_ends_the_connection() -> None:
    assert limited(topic_alias_maximum=5).breaks(aliased(3)) == 0x82


@pytest.mark.spec("MQTT5-3.3.2-7")
def test_the_aliases_of_the_server_end_with_the_connection() -> None:
    world = limited(topic_alias_maximum=5)
    world.server(aliased(1, "a"))
    connect = Connect("c", V5, False, properties=properties(topic_alias_maximum=5))
    world.cut()
    world.hello(present=True, connect=connect)
    assert world.breaks(aliased(1)) == 0x82


def test_a_message_under_an_alias_that_is_sent_again_is_known() -> None:
    world = limited(topic_alias_maximum=5)
    connect = Connect("c", V5, False, properties=properties(topic_alias_maximum=5))
    world.server(aliased(1, "a", 1, 1), aliased(1, "", 1, 2))
    world.cut()
    world.hello(present=True, connect=connect)
    again = aliased(2, "a", 1, 2)
    again.dup = True
    world.server(again)
    assert [message.topic for message in world.arrived] == ["a", "a"]


# --- properties


def test_the_application_sees_what_the_publisher_gave() -> None:
    world = connected()
    given = properties(
        payload_format_indicator=1,
        message_expiry_interval=60,
        content_type="text/plain",
        response_topic="answers",
        correlation_data=b"\0\1",
        user_properties=[("k", "1"), ("k", "2")],
        subscription_identifiers=[1, 268_435_455],
    )
    world.server(Publish("a", "é".encode(), 0, retain=True, properties=given))
    message = world.take()
    assert message.text == "é" and message.retain and not message.dup
    assert message.payload_format_indicator == 1
    assert message.message_expiry_interval == 60
    assert message.content_type == "text/plain"
    assert message.response_topic == "answers"
    assert message.correlation_data == b"\0\1"
    assert message.user_properties == [("k", "1"), ("k", "2")]
    assert message.properties is not None
    assert message.properties.subscription_identifiers == [1, 268_435_455]


def test_a_message_without_properties_has_none() -> None:
    world = connected()
    world.server(Publish("a", b"\xff"))
    message = world.take()
    assert (message.content_type, message.response_topic) == (None, None)
    assert message.correlation_data is None
    assert (message.payload_format_indicator, message.message_expiry_interval) == (None, None)
    assert message.user_properties == []
    with pytest.raises(UnicodeDecodeError):
        _ = message.text
