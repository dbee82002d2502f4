"""What the client sends as a sender of messages: the flows of QoS 0, 1 and 2, and their limits."""

import pytest

from holdfast.client.outgoing import DONE, FAILED, PUBLISH_ID_MAX, SENT
from holdfast.protocol.packets import (
    Connect,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    SubscriptionRequest,
    Unsuback,
    Unsubscribe,
)
from tests.client.world import V5, V311, ClientWorld
from tests.support.properties import properties

VERSIONS = pytest.mark.parametrize("version", [V5, V311], ids=["5.0", "3.1.1"])
DURABLE = pytest.mark.parametrize("is_durable", [False, True], ids=["memory", "disk"])


def connected(version: int = V5, is_durable: bool = False, **limits: int) -> ClientWorld:
    """A client whose server has announced these limits."""
    world = ClientWorld(version, is_durable=is_durable)
    world.hello(properties=properties(**limits) if limits else None)
    return world


# --- QoS 0


@pytest.mark.spec(
    "MQTT5-4.3.1-1", "MQTT311-4.3.1-1", "MQTT5-3.3.1-2", "MQTT311-3.3.1-2", "MQTT5-2.2.1-2"
)
@VERSIONS
def test_qos_0_is_sent_once_without_dup_and_identifier(version: int) -> None:
    world = connected(version)
    entry = world.publish("a", b"1")
    assert world.sent() == ["PUBLISH a 1 q0"]
    assert entry.stage == DONE
    world.again()
    assert world.sent() == []


@pytest.mark.spec("MQTT5-4.3.1-1", "MQTT311-4.3.1-1")
@VERSIONS
def test_qos_0_that_waited_for_a_connection_has_no_dup(version: int) -> None:
    world = ClientWorld(version)
    world.publish("a", b"1")
    world.hello()
    assert world.sent() == ["PUBLISH a 1 q0"]


# --- QoS 1


@pytest.mark.spec("MQTT5-4.3.2-1", "MQTT5-4.3.2-2", "MQTT5-4.3.2-3", "MQTT311-4.3.2-1")
@VERSIONS
@DURABLE
def test_qos_1_is_unacknowledged_until_its_puback(version: int, is_durable: bool) -> None:
    world = connected(version, is_durable)
    entry = world.publish("a", b"1", 1)
    assert world.sent() == ["PUBLISH a 1 q1 #2"]
    world.server(Puback(3), Pubrec(9), Pubcomp(2))  # none of these is its answer
    assert entry.stage == SENT and world.sending.in_flight == 1
    world.again()
    assert "PUBLISH a 1 q1 #2 dup" in world.sent()
    world.server(Puback(2))
    assert entry.stage == DONE and world.sending.in_flight == 0
    world.again()
    assert world.sent() == []


@pytest.mark.spec("MQTT5-4.4.0-2")
@pytest.mark.parametrize("code", [0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99])
@DURABLE
def test_a_puback_that_refuses_ends_it(code: int, is_durable: bool) -> None:
    world = connected(is_durable=is_durable)
    entry = world.publish("a", b"1", 1)
    world.server(Puback(2, code))
    assert (entry.stage, entry.reason_code) == (FAILED, code)
    world.wire()
    world.again()
    assert world.sent() == []
    assert world.disk.outgoing == {}


# --- QoS 2


@pytest.mark.spec(
    "MQTT5-4.3.3-1",
    "MQTT5-4.3.3-2",
    "MQTT5-4.3.3-3",
    "MQTT5-4.3.3-4",
    "MQTT5-4.3.3-5",
    "MQTT5-4.3.3-6",
    "MQTT5-2.2.1-5",
    "MQTT311-2.3.1-6",
    "MQTT311-4.3.3-1",
)
@VERSIONS
@DURABLE
def test_the_whole_flow_of_qos_2(version: int, is_durable: bool) -> None:
    world = connected(version, is_durable)
    entry = world.publish("a", b"1", 2)
    assert world.sent() == ["PUBLISH a 1 q2 #2"]
    world.again()
    assert world.sent() == ["PUBLISH a 1 q2 #2 dup"]
    world.server(Pubrec(2))
    assert world.sent() == ["PUBREL #2"]
    for _ in range(2):
        world.again()
        assert world.sent() == ["PUBREL #2"]
    assert entry.stage_name == "released"
    world.server(Pubcomp(2))
    assert entry.stage == DONE
    world.again()
    assert world.sent() == []


@pytest.mark.spec("MQTT5-4.3.3-6", "MQTT5-4.4.0-1", "MQTT311-4.3.3-1", "MQTT311-4.4.0-1")
@VERSIONS
def test_the_flow_of_qos_2_goes_on_after_a_crash_of_the_client(version: int) -> None:
    world = connected(version, is_durable=True)
    world.publish("a", b"1", 2)
    world.crash()
    assert world.sent() == ["PUBLISH a 1 q2 #2 dup"]
    world.server(Pubrec(2))
    world.crash()
    assert world.sent() == ["PUBREL #2"]
    world.server(Pubcomp(2))
    world.crash()
    assert world.sent() == []


def test_pubrel_waits_until_it_is_durable_that_pubrec_came() -> None:
    world = connected(is_durable=True)
    world.publish("a", b"1", 2)
    world.wire()
    world.hold()
    world.server(Pubrec(2))
    assert world.sent() == []
    world.sync()
    assert world.sent() == ["PUBREL #2"]


@DURABLE
def test_a_publish_waits_until_it_is_durable(is_durable: bool) -> None:
    world = connected(is_durable=is_durable)
    world.hold()
    world.publish("a", b"1", 1)
    assert world.sent() == ([] if is_durable else ["PUBLISH a 1 q1 #2"])
    world.crash(present=False)
    assert world.sent() == []


@pytest.mark.spec("MQTT5-4.4.0-2", "MQTT5-4.3.3-4")
@pytest.mark.parametrize("code", [0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99])
@DURABLE
def test_a_pubrec_that_refuses_ends_it_without_pubrel(code: int, is_durable: bool) -> None:
    world = connected(is_durable=is_durable)
    entry = world.publish("a", b"1", 2)
    world.wire()
    world.server(Pubrec(2, code))
    assert (entry.stage, entry.reason_code) == (FAILED, code)
    assert world.sent() == []
    world.again()
    assert world.sent() == []


@pytest.mark.spec("MQTT5-4.3.3-4")
@DURABLE
def test_a_pubrec_of_0x10_is_a_success(is_durable: bool) -> None:
    world = connected(is_durable=is_durable)
    entry = world.publish("a", b"1", 2)
    world.wire()
    world.server(Pubrec(2, 0x10))
    assert world.sent() == ["PUBREL #2"]
    world.server(Pubcomp(2))
    assert (entry.stage, entry.reason_code) == (DONE, 0x10)


@pytest.mark.spec("MQTT5-4.3.3-4")
@VERSIONS
def test_a_pubrec_for_nothing_is_answered(version: int) -> None:
    world = connected(version)
    world.server(Pubrec(7))
    assert world.sent() == ["PUBREL #7 0x92" if version == V5 else "PUBREL #7"]


@pytest.mark.parametrize("code", [0, 0x92])
def test_a_pubcomp_ends_it_with_either_code(code: int) -> None:
    world = connected()
    entry = world.publish("a", b"1", 2)
    world.server(Pubrec(2), Pubcomp(2, code))
    assert entry.stage == DONE


def test_a_pubcomp_before_its_pubrec_ends_nothing() -> None:
    world = connected()
    entry = world.publish("a", b"1", 2)
    world.server(Pubcomp(2), Puback(2))
    assert entry.stage == SENT


@pytest.mark.spec("MQTT5-4.3.3-7")
@DURABLE
def test_a_message_of_qos_2_that_was_sent_does_not_expire(is_durable: bool) -> None:
    world = connected(is_durable=is_durable)
    entry = world.publish("a", b"1", 2, expiry_s=5)
    world.wire()
    world.now_ms += 60_000
    world.again()
    (packet,) = world.publishes()
    assert (packet.dup, packet.packet_id) == (True, 2)
    assert packet.properties is not None and packet.properties.message_expiry_interval == 1
    world.server(Pubrec(2), Pubcomp(2))
    assert entry.stage == DONE


@pytest.mark.spec("MQTT5-4.3.3-7")
def test_a_message_that_may_have_been_sent_before_a_crash_does_not_expire() -> None:
    world = connected(is_durable=True)
    world.publish("a", b"1", 2, expiry_s=5)
    world.now_ms += 60_000
    world.crash()
    assert world.sent() == ["PUBLISH a 1 q2 #2 dup"]


@pytest.mark.parametrize("qos", [0, 1, 2])
@VERSIONS
def test_a_message_expires_before_it_is_sent(version: int, qos: int) -> None:
    world = ClientWorld(version)
    entry = world.publish("a", b"1", qos, expiry_s=5)
    world.now_ms += 5_000
    world.hello()
    assert world.sent() == []
    assert (entry.stage, entry.reason) == (
        FAILED,
        "the message has expired before it could be sent",
    )


@pytest.mark.parametrize("qos", [1, 2])
def test_a_message_expires_where_a_new_session_would_get_it_anew(qos: int) -> None:
    world = connected()
    entry = world.publish("a", b"1", qos, expiry_s=5)
    world.wire()
    world.now_ms += 5_000
    world.again(present=False)
    assert world.sent() == [] and entry.stage == FAILED


def test_what_is_left_of_its_time_goes_with_a_message() -> None:
    world = ClientWorld()
    world.publish("a", b"1", 1, expiry_s=100)
    world.now_ms += 30_400
    world.hello()
    (packet,) = world.publishes()
    assert packet.properties is not None and packet.properties.message_expiry_interval == 70


@pytest.mark.parametrize("expiry_s", [100, 4_294_967_295])
def test_a_clock_that_is_set_back_makes_no_message_valid_for_longer(expiry_s: int) -> None:
    world = ClientWorld()
    world.publish("a", b"1", 1, expiry_s=expiry_s)
    world.now_ms -= 3_600_000
    world.hello()
    (packet,) = world.publishes()
    assert packet.properties is not None
    assert packet.properties.message_expiry_interval == expiry_s


# --- identifiers and order


@pytest.mark.spec("MQTT5-2.2.1-3", "MQTT311-2.3.1-2", "MQTT5-4.3.2-1", "MQTT5-4.3.3-1")
@VERSIONS
def test_identifiers_are_never_0_and_never_in_use(version: int) -> None:
    """Round the end of them, with one that stays in use."""
    world = connected(version)
    stays = world.publish("a", b"", 1)
    world.sending.next_seq = PUBLISH_ID_MAX - 4
    for number in range(5):
        entry = world.publish("a", b"", 1 + number % 2)
        assert entry.packet_id == (PUBLISH_ID_MAX - 3 + number if number < 4 else 1)
        world.server(Puback(entry.packet_id), Pubrec(entry.packet_id), Pubcomp(entry.packet_id))
    assert world.sending.in_flight == 1
    world.wire()
    blocked = world.publish("blocked", b"", 1)
    assert blocked.packet_id == stays.packet_id == 2
    assert world.sent() == []
    world.server(Puback(2))
    assert world.sent() == ["PUBLISH blocked q1 #2"]


@pytest.mark.spec("MQTT5-2.2.1-3", "MQTT311-2.3.1-2", "MQTT311-2.3.1-3", "MQTT311-2.3.1-1")
@VERSIONS
def test_requests_have_identifiers_of_their_own(version: int) -> None:
    world = connected(version)
    codes = [0] if version == V5 else []
    first = world.request(Subscribe(0, [SubscriptionRequest("a")]))
    for _ in range(1000):
        packet_id = world.request(Unsubscribe(0, ["b"]))
        assert packet_id > PUBLISH_ID_MAX and packet_id != first
        world.server(Unsuback(packet_id, codes))
    world.server(Suback(first, [0]))


@pytest.mark.spec(
    "MQTT5-4.6.0-1", "MQTT311-4.6.0-1", "MQTT5-4.4.0-1", "MQTT5-3.3.1-1", "MQTT311-3.3.1-1"
)
@VERSIONS
@DURABLE
def test_what_is_sent_again_keeps_its_order_and_identifiers(version: int, is_durable: bool) -> None:
    world = connected(version, is_durable)
    for number in range(6):
        world.publish("a", b"%d" % number, 1 + number % 2)
    world.wire()
    world.server(Puback(4))
    for _ in range(2):
        world.again()
        assert world.sent() == [
            "PUBLISH a 0 q1 #2 dup",
            "PUBLISH a 1 q2 #3 dup",
            "PUBLISH a 3 q2 #5 dup",
            "PUBLISH a 4 q1 #6 dup",
            "PUBLISH a 5 q2 #7 dup",
        ]
    world.publish("a", b"6", 1)
    assert world.sent() == ["PUBLISH a 6 q1 #8"]


@pytest.mark.spec("MQTT5-4.6.0-1", "MQTT311-4.6.0-1", "MQTT311-2.3.1-3")
@VERSIONS
def test_the_order_and_the_identifiers_outlast_a_crash(version: int) -> None:
    world = connected(version, is_durable=True)
    for number in range(4):
        world.publish("a", b"%d" % number, 1 + number % 2)
    world.server(Pubrec(3))
    world.crash()
    assert world.sent() == [
        "PUBLISH a 0 q1 #2 dup",
        "PUBLISH a 2 q1 #4 dup",
        "PUBLISH a 3 q2 #5 dup",
        "PUBREL #3",
    ]
    world.publish("a", b"4", 1)
    assert world.sent() == ["PUBLISH a 4 q1 #6"]


@pytest.mark.spec("MQTT5-4.6.0-4", "MQTT311-4.6.0-4")
@VERSIONS
@DURABLE
def test_pubrels_leave_in_the_order_of_the_pubrecs(version: int, is_durable: bool) -> None:
    world = connected(version, is_durable)
    for _ in range(4):
        world.publish("a", b"", 2)
    world.wire()
    world.server(Pubrec(4), Pubrec(2))
    world.server(Pubrec(5), Pubrec(3))
    expected = ["PUBREL #4", "PUBREL #2", "PUBREL #5", "PUBREL #3"]
    assert world.sent() == expected
    world.again()
    assert world.sent() == expected


@pytest.mark.spec("MQTT5-4.4.0-1", "MQTT311-4.4.0-1")
@VERSIONS
@DURABLE
def test_nothing_is_sent_again_without_a_new_connection(version: int, is_durable: bool) -> None:
    world = connected(version, is_durable)
    world.publish("a", b"1", 1)
    world.publish("a", b"2", 2)
    world.wire()
    world.now_ms += 3_600_000
    for _ in range(100):
        world.turn()
    assert world.sent() == []


@pytest.mark.spec("MQTT5-3.2.2-5", "MQTT5-4.4.0-1")
@VERSIONS
@DURABLE
def test_without_a_session_at_the_server_all_is_new(version: int, is_durable: bool) -> None:
    """A message that the server has taken over (PUBREC) is done, the others are published anew."""
    world = connected(version, is_durable)
    first = world.publish("a", b"1", 1)
    released = world.publish("a", b"2", 2)
    third = world.publish("a", b"3", 2)
    world.server(Pubrec(released.packet_id))
    world.wire()
    world.again(present=False)
    assert world.sent() == ["PUBLISH a 1 q1 #2", "PUBLISH a 3 q2 #4"]
    assert (first.stage, released.stage, third.stage) == (SENT, DONE, SENT)


# --- flow control


@pytest.mark.spec("MQTT5-3.3.4-7", "MQTT5-4.9.0-1", "MQTT5-4.9.0-2")
@DURABLE
def test_no_more_is_in_flight_than_the_server_takes(is_durable: bool) -> None:
    world = connected(is_durable=is_durable, receive_maximum=3)
    entries = [world.publish("a", b"%d" % number, 1 + number % 2) for number in range(8)]
    assert [packet.packet_id for packet in world.publishes()] == [2, 3, 4]
    world.server(Pubrec(3))  # takes none back
    assert world.sent() == ["PUBREL #3"]
    world.server(Pubcomp(3))
    assert world.sent() == ["PUBLISH a 3 q2 #5"]
    world.server(Puback(4, 0x97))
    assert world.sent() == ["PUBLISH a 4 q1 #6"]
    world.server(Pubrec(5, 0x80))
    assert world.sent() == ["PUBLISH a 5 q2 #7"]
    world.server(Puback(2), Puback(6))
    assert world.sent() == ["PUBLISH a 6 q1 #8", "PUBLISH a 7 q2 #9"]
    assert entries[-1].stage == SENT


@pytest.mark.spec("MQTT5-4.9.0-1")
def test_answers_to_nothing_do_not_widen_the_window() -> None:
    world = connected(receive_maximum=1)
    for number in range(3):
        world.publish("a", b"%d" % number, 1)
    world.wire()
    world.server(Puback(90), Pubcomp(91), Pubrec(92, 0x80), Pubcomp(2), Puback(2), Puback(2))
    assert world.sent() == ["PUBLISH a 1 q1 #3"]


@pytest.mark.spec("MQTT5-3.3.4-7", "MQTT5-4.9.0-1")
def test_the_window_is_that_of_the_connection() -> None:
    world = connected(receive_maximum=5)
    for number in range(6):
        world.publish("a", b"%d" % number, 2)
    world.server(Pubrec(2), Pubrec(3))
    world.wire()
    world.again(properties=properties(receive_maximum=3))
    assert world.sent() == ["PUBREL #2", "PUBREL #3", "PUBLISH a 2 q2 #4 dup"]
    world.again()
    assert len(world.sent()) == 6


@pytest.mark.spec("MQTT5-3.3.4-8", "MQTT5-4.9.0-3")
def test_a_closed_window_holds_up_nothing_but_publish() -> None:
    world = connected(receive_maximum=1)
    world.publish("a", b"1", 1)
    world.publish("a", b"2", 1)
    world.wire()
    world.request(Subscribe(0, [SubscriptionRequest("a")]))
    world.request(Unsubscribe(0, ["a"]))
    world.server(
        Publish("b", b"", 1, packet_id=1), Publish("b", b"", 2, packet_id=2), Pubrec(77, 0)
    )
    world.done(world.take())
    world.done(world.take())
    world.server(Pubrel(2))
    assert world.sent() == [
        "SUBSCRIBE #65280 a q0",
        "UNSUBSCRIBE #65281 a",
        "PUBREL #77 0x92",
        "PUBACK #1",
        "PUBREC #2",
        "PUBCOMP #2",
    ]


def test_the_clients_own_window_may_be_smaller() -> None:
    world = ClientWorld(in_flight_max=2)
    world.hello(properties=properties(receive_maximum=10))
    for number in range(4):
        world.publish("a", b"%d" % number, 1)
    assert len(world.sent()) == 2
    world.server(Puback(2), Puback(3), Puback(3))
    assert len(world.sent()) == 2


# --- what the server allows


@pytest.mark.spec("MQTT5-3.2.2-11")
@pytest.mark.parametrize("maximum", [0, 1])
def test_nothing_goes_out_above_the_maximum_qos(maximum: int) -> None:
    world = connected(maximum_qos=maximum)
    for qos in range(3):
        entry = world.publish("a", b"", qos)
        if qos <= maximum:
            assert [packet.qos for packet in world.publishes()] == [qos]
        else:
            assert world.wire() == b""
            assert (entry.stage, entry.reason_code) == (FAILED, 0x9B)
            assert entry.reason == f"the server takes QoS {maximum} at most"


@pytest.mark.spec("MQTT5-3.2.2-14")
def test_no_retained_message_goes_to_a_server_that_has_none() -> None:
    world = connected(retain_available=0)
    entry = world.publish("a", b"1", 1, retain=True)
    assert (entry.stage, entry.reason_code) == (FAILED, 0x9A)
    world.publish("a", b"2", 1)
    assert world.sent() == ["PUBLISH a 2 q1 #3"]


@pytest.mark.spec("MQTT5-3.2.2-15")
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_no_publish_is_larger_than_the_server_takes(qos: int) -> None:
    overhead = 6 if qos == 0 else 8
    world = connected(maximum_packet_size=overhead + 20)
    world.publish("a", b"x" * 19, qos)
    world.publish("a", b"x" * 20, qos)
    last = world.publish("a", b"x" * 21, qos)
    assert [len(packet.payload) for packet in world.publishes()] == [19, 20]
    assert (last.stage, last.reason_code) == (FAILED, 0x95)


@pytest.mark.spec("MQTT5-3.2.2-15")
def test_the_bound_is_that_of_the_connection() -> None:
    world = connected(maximum_packet_size=30)
    world.publish("a", b"x" * 20, 1)
    assert len(world.publishes()) == 1
    world.again(present=False, properties=properties(maximum_packet_size=20))
    assert world.sent() == []
    (entry,) = world.finished
    assert (entry.stage, entry.reason_code) == (FAILED, 0x95)


# --- topic aliases


def with_aliases(maximum: int | None) -> ClientWorld:
    world = ClientWorld(uses_aliases=True)
    world.hello(properties=None if maximum is None else properties(topic_alias_maximum=maximum))
    return world


@pytest.mark.spec("MQTT5-3.2.2-18")
@pytest.mark.parametrize("maximum", [None, 0])
def test_no_alias_is_used_unless_the_server_allows_some(maximum: int | None) -> None:
    world = with_aliases(maximum)
    for _ in range(3):
        world.publish("a", b"", 1)
    assert [packet.properties for packet in world.publishes()] == [None] * 3


@pytest.mark.spec("MQTT5-3.2.2-17", "MQTT5-3.3.2-8", "MQTT5-3.3.2-9")
def test_aliases_stay_within_the_bound_of_the_server() -> None:
    world = with_aliases(2)
    for topic in ("a", "b", "c", "a", "b", "c", "d"):
        world.publish(topic, b"", 1)
    found = [
        (packet.topic, packet.properties.topic_alias if packet.properties else None)
        for packet in world.publishes()
    ]
    assert found == [
        ("a", 1),
        ("b", 2),
        ("c", None),
        ("", 1),
        ("", 2),
        ("c", None),
        ("d", None),
    ]


@pytest.mark.spec("MQTT5-3.3.2-7")
@pytest.mark.parametrize("present", [True, False])
def test_aliases_are_forgotten_with_the_connection(present: bool) -> None:
    """What is sent again has its topic, too."""
    world = with_aliases(5)
    for topic in ("x", "a", "a"):
        world.publish(topic, b"", 1)
    world.server(Puback(2))
    assert [packet.topic for packet in world.publishes()] == ["x", "a", ""]
    world.again(present=present, properties=properties(topic_alias_maximum=5))
    again = world.publishes()
    assert [packet.topic for packet in again] == ["a", ""]
    assert [packet.properties and packet.properties.topic_alias for packet in again] == [1, 1]
    world.again(present=present)
    assert [packet.topic for packet in world.publishes()] == ["a", "a"]


def test_a_message_that_is_too_large_gives_its_topic_no_alias() -> None:
    world = ClientWorld(uses_aliases=True)
    world.hello(properties=properties(topic_alias_maximum=5, maximum_packet_size=40))
    world.publish("a", b"x" * 50)
    world.publish("a", b"x")
    assert [packet.topic for packet in world.publishes()] == ["a"]


# --- properties


@pytest.mark.spec("MQTT5-3.3.4-6")
def test_no_publish_has_a_subscription_identifier() -> None:
    """Not even one that came with a message that is passed on."""
    world = ClientWorld(uses_aliases=True)
    world.hello(properties=properties(topic_alias_maximum=5))
    came = properties(subscription_identifiers=[3], content_type="text", topic_alias=9)
    for expiry_s in (None, 60):
        world.publish("a", b"", 1, properties=came, expiry_s=expiry_s)
    for packet in world.publishes():
        assert packet.properties is not None
        assert packet.properties.subscription_identifiers == []
        assert packet.properties.content_type == "text"


def test_properties_go_out_as_they_were_given() -> None:
    given = properties(
        payload_format_indicator=1,
        content_type="text/plain",
        response_topic="answers/7",
        correlation_data=b"\0\xff",
        user_properties=[("k", "1"), ("k", "2"), ("", "")],
    )
    for is_durable in (False, True):
        world = ClientWorld(is_durable=is_durable)
        world.publish("a", b"x", 1, properties=given)
        if is_durable:
            world.crash(present=False)
        else:
            world.hello()
        (packet,) = world.publishes()
        found = packet.properties
        assert found is not None
        for name in (
            "payload_format_indicator",
            "content_type",
            "response_topic",
            "correlation_data",
            "user_properties",
        ):
            assert getattr(found, name) == getattr(given, name)


def test_a_server_of_3_1_1_gets_no_properties() -> None:
    world = ClientWorld(V311)
    world.hello(connect=Connect("c", V311, clean_start=False))
    world.publish("a", b"x", 1, properties=properties(content_type="text"), expiry_s=9)
    assert world.wire() == b"\x32\x06\x00\x01a\x00\x02x"
