"""Shared subscriptions: each message goes to one member, and is lost with none of them."""

import pytest

from holdfast.broker.groups import Groups
from holdfast.broker.limits import FEED_ENTRIES_MAX, Limits
from holdfast.broker.session import Session
from holdfast.broker.shared_group import (
    HASH_CLIENT,
    HASH_TOPIC,
    LEAST_IN_FLIGHT,
    STICKY,
)
from holdfast.protocol.packets import Puback, Pubcomp, Publish, Pubrec, Suback, Subscribe, Will
from holdfast.protocol.packets import SubscriptionRequest as Request
from tests.broker.world import Client, World
from tests.support.properties import properties

BIG = b"z" * 900_000  # three of these, committed, push everything older out of the log's tail
SHARED = "$share/g/t/#"


def member(world: World, client_id: str, qos: int = 1, **options: object) -> Client:
    client = world.hello(client_id, **options)
    if SHARED not in world_subscriptions(world, client_id):
        client.subscribe(SHARED, qos)
        assert client.received()[:1] == [f"SUBACK #1 0x{qos:02X}"]
    return client


def world_subscriptions(world: World, client_id: str) -> list[str]:
    session = world.broker.sessions.find(client_id)
    assert session is not None
    return list(session.subscriptions)


def groups(world: World) -> Groups:
    return world.broker._router.groups


def payloads(client: Client, *, ack: bool = False) -> list[str]:
    """What messages came since the last look, acknowledged if asked for."""
    found: list[str] = []
    for packet in client.packets():
        if isinstance(packet, Publish):
            found.append(packet.payload.decode())
            if ack and packet.qos == 1:
                client.send(Puback(packet.packet_id))
    return found


def say(world: World, count: int, qos: int = 1, first: int = 1, topic: str = "t/x") -> None:
    publisher = world.transient("publisher", version=4)
    for number in range(first, first + count):
        publisher.publish(topic, f"m{number}", qos, number if qos else 0)
        if qos == 2:
            publisher.packets()
    publisher.disconnect()


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_members_take_turns(qos: int, version: int) -> None:
    world = World()
    members = [member(world, name, 2, version=version) for name in "abc"]
    say(world, 6, qos)
    assert [payloads(one) for one in members] == [["m1", "m4"], ["m2", "m5"], ["m3", "m6"]]


def test_a_group_is_made_of_name_and_filter_and_stands_beside_other_subscriptions() -> None:
    """Two groups of one filter each get a copy, and so does a subscription of the same client."""
    world = World()
    client = world.hello("c")
    for packet_id, topic_filter in enumerate(["$share/g/t", "$share/h/t", "t", "$queue/t"], 1):
        client.subscribe(topic_filter, 0, packet_id)
    client.received()
    say(world, 1, 0, topic="t")
    assert payloads(client) == ["m1"] * 4
    client.unsubscribe("$share/h/t")
    client.unsubscribe("$queue/t")
    assert client.received() == ["UNSUBACK #1 0x00", "UNSUBACK #1 0x00"]
    client.unsubscribe("$queue/t")
    assert client.received() == ["UNSUBACK #1 0x11"]
    say(world, 1, 0, topic="t")
    assert payloads(client) == ["m1"] * 2


def test_a_queue_is_one_group_without_a_name() -> None:
    world = World()
    members = [world.hello(name) for name in "ab"]
    for one in members:
        one.subscribe("$queue/t/+", 1)
        one.received()
    say(world, 4)
    assert [payloads(one) for one in members] == [["m1", "m3"], ["m2", "m4"]]


def test_an_invalid_shared_filter_is_refused_and_a_valid_one_never() -> None:
    world = World()
    client = world.hello("c")
    asked = ["$share//t", "$share/g", "$share/g/", "$share/+/t", "$queue/", "$share/g/#/t"]
    client.send(Subscribe(1, [Request(topic_filter, 1) for topic_filter in [*asked, SHARED]]))
    packet = client.packets()[0]
    assert isinstance(packet, Suback)
    assert packet.reason_codes == [0x8F] * 6 + [1]


def test_a_message_to_the_name_of_a_group_is_not_for_its_members() -> None:
    world = World()
    client = world.hello("c")
    client.subscribe("$share/g/t", 1)
    client.received()
    publisher = world.transient("p")
    publisher.publish("$share/g/t", "x", 1, 1)
    assert publisher.received() == ["PUBACK #1 0x10"]
    client.disconnect()
    world.crash()
    world.restart()
    assert payloads(world.hello("c")) == []


def test_no_retained_messages_come_with_a_shared_subscription() -> None:
    world = World()
    publisher = world.transient("p")
    publisher.publish("t/x", "kept", 1, 1, retain=True)
    client = member(world, "c")
    assert client.received() == []


def test_options_of_a_member_count_for_what_it_is_given() -> None:
    """Its Subscription Identifier, its QoS and Retain As Published, from a new SUBSCRIBE on."""
    world = World()
    client = world.hello("c")
    client.subscribe(SHARED, 1, identifier=7, retain_as_published=True)
    publisher = world.transient("p")
    publisher.publish("t/x", "1", 2, 1, retain=True)
    first = client.packets()[-1]
    assert isinstance(first, Publish) and first.properties is not None
    assert (first.qos, first.retain) == (1, True)
    assert first.properties.subscription_identifiers == [7]
    client.subscribe(SHARED, 0, identifier=9)
    publisher.publish("t/x", "2", 1, 2, retain=True)
    second = client.packets()[-1]
    assert isinstance(second, Publish) and second.properties is not None
    assert (second.qos, second.retain) == (0, False)
    assert second.properties.subscription_identifiers == [9]
    assert groups(world).count == 1


@pytest.mark.parametrize("survives", [False, True])
def test_a_receipt_waits_until_it_is_certain_that_a_group_has_no_queue(survives: bool) -> None:
    world = World()
    client = member(world, "a")
    publisher = world.transient("p")
    world.disk.hold()
    client.subscribe(SHARED, 0)
    publisher.publish("t/x", "m", 1, 1)
    assert publisher.received() == []
    world.crash(commit_survives=survives)
    world.disk.release()
    world.restart()
    assert payloads(world.hello("a")) == []


def test_a_queue_begins_where_the_first_member_wants_one_and_does_so_after_a_crash() -> None:
    world = World()
    world.session("plain", "t/#", 1)  # what it wants is in the log
    client = member(world, "a", 0)
    client.disconnect()
    say(world, 2)
    client = world.hello("a")
    client.subscribe(SHARED, 1)
    world.crash()
    world.restart()
    assert payloads(world.hello("a")) == []


def test_a_member_that_goes_to_qos_0_is_given_what_waited_for_its_window() -> None:
    world = World()
    member(world, "absent").disconnect()
    client = member(world, "a", receive_maximum=1)
    say(world, 3)
    assert payloads(client) == ["m1"]
    client.subscribe(SHARED, 0)
    assert payloads(client) == ["m2", "m3"]


def test_the_publisher_is_told_of_nobody_only_when_the_group_is_empty() -> None:
    world = World()
    client = member(world, "c")
    client.disconnect()
    publisher = world.transient("p")
    publisher.publish("t/x", "1", 1, 1)
    assert publisher.received() == ["PUBACK #1"]
    client = world.hello("c")
    client.received()
    client.unsubscribe(SHARED)
    publisher.publish("t/x", "2", 1, 2)
    assert publisher.received() == ["PUBACK #2 0x10"]
    assert groups(world).count == 0


@pytest.mark.parametrize("is_crash", [False, True], ids=["online again", "after a crash"])
def test_a_group_goes_on_queueing_with_nobody_online(is_crash: bool) -> None:
    world = World()
    for name in "ab":
        member(world, name).disconnect()
    say(world, 5)
    if is_crash:
        world.crash()
        world.restart()
    first = world.hello("a")
    assert payloads(first, ack=True) == ["m1", "m2", "m3", "m4", "m5"]
    second = world.hello("b")
    assert payloads(second) == []
    say(world, 2)
    assert sorted(payloads(first) + payloads(second)) == ["m1", "m2"]


def test_a_queue_that_left_memory_is_read_from_the_store_by_turns() -> None:
    world = World()
    names = ["a", "b"]
    for name in names:
        member(world, name).disconnect()
    say(world, 10)
    say(world, 4, topic="other", first=20)
    reader = world.hello("reader")
    reader.subscribe("big", 1)
    publisher = world.transient("p")
    for number in range(1, 5):
        publisher.publish("big", BIG, 1, number)
        reader.send(Puback(number))
    members = [world.hello(name, receive_maximum=2) for name in names]
    found: list[str] = []
    for _ in range(10):
        for one in members:
            found += payloads(one, ack=True)
    assert sorted(found, key=lambda name: int(name[1:])) == [f"m{n}" for n in range(1, 11)]
    assert world.disk.reads_done > 0


def test_who_has_no_room_is_passed_over_and_the_group_waits_for_the_first_who_has() -> None:
    world = World()
    slow = member(world, "slow", receive_maximum=1)
    quick = member(world, "quick", receive_maximum=2)
    say(world, 5)
    assert payloads(slow) == ["m1"]
    assert payloads(quick) == ["m2", "m3"]
    quick.send(Puback(1))
    assert payloads(quick) == ["m4"]
    slow.send(Puback(1))
    assert payloads(slow) == ["m5"]
    say(world, 1, first=6)
    slow.send(Puback(2))
    assert payloads(slow) == ["m6"]


@pytest.mark.parametrize("expiry_s", [0, 60], ids=["transient", "durable"])
def test_a_member_that_goes_leaves_its_messages_to_another(expiry_s: int) -> None:
    """Unacknowledged at QoS 1: handed over at once, as new messages, in their order and once."""
    world = World()
    leaver = member(world, "leaver", expiry_s=expiry_s, clean=True)
    other = member(world, "other")
    say(world, 4)
    assert payloads(leaver) == ["m1", "m3"]
    assert payloads(other, ack=True) == ["m2", "m4"]
    leaver.send(Puback(1))
    leaver.cut()
    assert other.received() == ["PUBLISH t/x m3 q1 #3"]
    back = world.hello("leaver", expiry_s=expiry_s)
    assert payloads(back) == []


def test_two_members_that_go_at_once_leave_their_messages_to_the_third() -> None:
    world = World()
    first, second, third = (member(world, name) for name in "abc")
    say(world, 2)
    assert (payloads(first), payloads(second)) == (["m1"], ["m2"])
    second.send(Puback(1))
    world.lost += [first, second]  # in one turn
    world.run()
    assert payloads(third) == ["m1"]


def test_it_is_still_the_turn_of_the_next_when_one_before_it_goes() -> None:
    world = World()
    first, second, third = (member(world, name) for name in "abc")
    say(world, 1)
    assert payloads(first, ack=True) == ["m1"]
    first.cut()
    say(world, 2, first=2)
    assert (payloads(second), payloads(third)) == (["m2"], ["m3"])


def test_a_member_that_returns_first_gets_its_own_again() -> None:
    world = World()
    first = member(world, "a")
    say(world, 2)
    assert payloads(first) == ["m1", "m2"]
    first.cut()
    say(world, 1, first=3)
    back = world.hello("a")
    assert back.received() == [
        "PUBLISH t/x m1 q1 #1 dup",
        "PUBLISH t/x m2 q1 #2 dup",
        "PUBLISH t/x m3 q1 #3",
    ]


@pytest.mark.parametrize("is_crash", [False, True], ids=["running", "crash"])
def test_whoever_comes_first_gets_what_an_absent_member_did_not_acknowledge(is_crash: bool) -> None:
    world = World()
    second = member(world, "b")
    second.disconnect()
    first = member(world, "a")
    say(world, 2)
    assert payloads(first) == ["m1", "m2"]
    if is_crash:
        world.crash()
        world.restart()
    else:
        first.cut()
    second = world.hello("b")
    assert second.received() == ["PUBLISH t/x m1 q1 #1", "PUBLISH t/x m2 q1 #2"]
    assert payloads(world.hello("a")) == []


def test_what_a_transient_member_had_survives_a_crash_if_the_group_is_durable() -> None:
    world = World()
    transient = member(world, "t", expiry_s=0)
    durable = member(world, "d")
    say(world, 4)
    assert payloads(transient) == ["m1", "m3"]
    assert payloads(durable, ack=True) == ["m2", "m4"]
    transient.send(Puback(1))
    world.advance(100)  # acknowledgements are written a little later
    world.crash()
    world.restart()
    assert payloads(world.hello("d"), ack=True) == ["m3"]


def test_what_a_transient_member_had_comes_once_after_a_crash_though_its_row_says_it_too() -> None:
    world = World()
    member(world, "d").disconnect()
    will = Will("w", b"w", 0, False, None)  # for its sake the session has a row
    world.disk.hold()
    world.connect("x")  # a commit under way: all that follows goes into the next one
    transient = world.connect("t", expiry_s=0, clean=True, will=will)
    transient.subscribe(SHARED, 1)
    publisher = world.connect("p", expiry_s=0, clean=True)
    publisher.publish("t/x", "m1", 1, 1)
    world.disk.sync()
    assert payloads(transient) == ["m1"]
    world.crash()
    world.disk.release()
    world.restart()
    assert payloads(world.hello("d")) == ["m1"]


def test_what_a_transient_member_has_acknowledged_is_written_though_the_log_is_kept() -> None:
    world = World()
    world.session("pins the log", "t/#", 1)
    transient = member(world, "t", expiry_s=0)
    member(world, "d").disconnect()
    say(world, 2)
    assert payloads(transient) == ["m1", "m2"]
    transient.send(Puback(1))
    world.advance(100)  # acknowledgements are written a little later
    world.crash()
    world.restart()
    assert payloads(world.hello("d")) == ["m2"]


def test_the_first_durable_member_makes_what_others_have_safe_too() -> None:
    world = World()
    transient = member(world, "t", expiry_s=0)
    say(world, 2)
    assert payloads(transient) == ["m1", "m2"]
    member(world, "d")
    world.crash()
    world.restart()
    assert payloads(world.hello("d")) == ["m1", "m2"]


@pytest.mark.parametrize("names", ["ab", "ba"], ids=["QoS 0 first", "QoS 1 first"])
def test_a_queue_survives_a_crash_though_a_member_wants_qos_0(names: str) -> None:
    """Restored one by one, the first member alone must not make the group forget it."""
    world = World()
    for name in names:
        member(world, name, 0 if name == "a" else 1).disconnect()
    say(world, 3)
    world.crash()
    world.restart()
    assert payloads(world.hello("b")) == ["m1", "m2", "m3"]


def test_a_group_of_transient_members_ends_with_the_last_of_them() -> None:
    world = World()
    only = member(world, "t", expiry_s=0, receive_maximum=1)
    say(world, 3)
    assert payloads(only) == ["m1"]
    only.cut()
    assert groups(world).count == 0
    assert payloads(member(world, "u", expiry_s=0)) == []
    world.crash()
    world.restart()
    assert groups(world).count == 0


@pytest.mark.spec("MQTT5-4.8.2-4")
def test_qos_2_is_completed_with_the_member_it_was_begun_with() -> None:
    world = World()
    first = member(world, "a", 2)
    other = member(world, "b", 2)
    say(world, 2, 2)
    assert first.received() == ["PUBLISH t/x m1 q2 #1"]
    assert other.received() == ["PUBLISH t/x m2 q2 #1"]
    first.cut()
    world.crash()
    world.restart()
    other = world.hello("b")
    assert other.received() == ["PUBLISH t/x m2 q2 #1 dup"]
    first = world.hello("a")
    assert first.received() == ["PUBLISH t/x m1 q2 #1 dup"]
    first.send(Pubrec(1))
    assert first.received() == ["PUBREL #1"]
    first.send(Pubcomp(1))
    assert first.received() == []


@pytest.mark.spec("MQTT5-4.8.2-5")
@pytest.mark.parametrize("how", ["expiry", "clean start"])
def test_qos_2_of_a_session_that_ended_is_sent_to_nobody_else(how: str) -> None:
    world = World()
    first = member(world, "a", 2, expiry_s=10)
    other = member(world, "b", 2)
    say(world, 1, 2)
    say(world, 1, 1)  # for the other one
    assert first.received() == ["PUBLISH t/x m1 q2 #1"]
    assert other.received() == ["PUBLISH t/x m1 q1 #1"]
    first.cut()
    if how == "expiry":
        world.advance(11_000)
    else:
        world.hello("a", clean=True)
    assert other.received() == []


@pytest.mark.spec("MQTT5-4.8.2-6")
def test_a_message_that_a_member_refuses_is_sent_to_nobody_else() -> None:
    world = World()
    first = member(world, "a", 2)
    other = member(world, "b", 2)
    say(world, 1, 1)
    say(world, 1, 1)
    say(world, 1, 2)
    assert first.received() == ["PUBLISH t/x m1 q1 #1", "PUBLISH t/x m1 q2 #2"]
    other.received()
    first.send(Puback(1, 0x80), Pubrec(2, 0x97))
    first.cut()
    assert other.received() == []
    assert payloads(world.hello("a")) == []


def test_expired_sessions_leave_their_queue_to_the_rest_of_the_group() -> None:
    world = World()
    member(world, "a", expiry_s=10).disconnect()
    member(world, "b").disconnect()
    say(world, 2)
    world.advance(11_000)
    assert groups(world).count == 1
    assert payloads(world.hello("b")) == ["m1", "m2"]


def test_nothing_is_left_of_a_group_whose_members_are_gone() -> None:
    world = World()
    member(world, "a", expiry_s=10).disconnect()
    say(world, 2)
    world.advance(11_000)
    assert groups(world).count == 0
    assert world.broker._router.tree.filters == 0
    assert world.broker.trim_point() == world.broker._commits.next_lsn
    world.crash()
    world.restart()
    assert groups(world).count == 0


def test_a_message_too_large_for_one_member_goes_to_another() -> None:
    world = World()
    small = member(world, "small", maximum_packet_size=60)
    other = member(world, "other")
    publisher = world.transient("p")
    for number in range(1, 5):
        publisher.publish("t/x", b"x" * 100, 1, number)
    assert payloads(small) == []
    assert len(payloads(other)) == 4
    publisher.publish("t/x", "short", 1, 5)
    publisher.publish("t/x", "short", 1, 6)
    assert payloads(small) == ["short"]


def test_a_message_too_large_for_one_member_waits_for_the_room_of_another() -> None:
    world = World()
    small = member(world, "small", maximum_packet_size=60)
    other = member(world, "other", receive_maximum=1)
    say(world, 2)
    publisher = world.transient("p")
    publisher.publish("t/x", b"x" * 100, 1, 1)
    publisher.publish("t/x", "behind it", 1, 2)
    assert payloads(small) == ["m1"]
    assert payloads(other, ack=True) == ["m2"]
    assert payloads(other) == ["x" * 100]
    assert payloads(small) == ["behind it"]


def test_a_message_too_large_for_a_member_that_returns_goes_to_another() -> None:
    world = World()
    member(world, "other").disconnect()
    first = member(world, "a", 2)
    publisher = world.transient("p")
    publisher.publish("t/x", b"x" * 100, 1, 1)
    publisher.publish("t/x", b"y" * 100, 2, 2)
    first.cut()
    out_of_memory(world)
    world.disk.hold_reads()
    first = world.hello("a", maximum_packet_size=60)
    other = member(world, "other")
    world.disk.release()
    world.disk.answer_reads()
    assert payloads(first) == []
    assert payloads(other, ack=True) == ["x" * 100]
    assert world.broker.trim_point() == world.broker._commits.next_lsn


def test_a_member_unsubscribes_and_what_it_has_is_its_own() -> None:
    """[MQTT-3.10.4-2]: what was begun is completed; nothing new is added."""
    world = World()
    leaver = member(world, "leaver")
    other = member(world, "other")
    say(world, 2)
    assert payloads(leaver) == ["m1"]
    leaver.unsubscribe(SHARED)
    say(world, 2, first=3)
    assert payloads(leaver) == []
    assert payloads(other) == ["m2", "m3", "m4"]
    leaver.cut()
    assert payloads(other) == ["m1"], "with its connection, what it has not acknowledged goes on"


@pytest.mark.parametrize("is_crash", [False, True], ids=["running", "crash"])
@pytest.mark.parametrize("is_answered", [False, True], ids=["unanswered", "answered"])
def test_what_a_former_member_has_is_its_own_when_it_returns_first(
    is_answered: bool, is_crash: bool
) -> None:
    world = World()
    other = member(world, "other")
    other.disconnect()
    leaver = member(world, "leaver")
    say(world, 2)
    leaver.unsubscribe(SHARED)
    if is_crash:
        world.crash()
        world.restart()
    else:
        leaver.cut()
    leaver = world.hello("leaver")
    assert payloads(leaver, ack=is_answered) == ["m1", "m2"]
    other = world.hello("other")
    assert payloads(other) == []
    leaver.cut()
    assert payloads(other) == ([] if is_answered else ["m1", "m2"])


def test_expired_messages_are_handed_to_nobody() -> None:
    world = World()
    member(world, "a").disconnect()
    publisher = world.transient("p")
    soon = properties(message_expiry_interval=5)
    publisher.publish("t/x", "soon", 1, 1, properties=soon)
    publisher.publish("t/x", "later", 1, 2)
    world.advance(6_000)
    assert payloads(world.hello("a")) == ["later"]


def out_of_memory(world: World) -> None:
    """Push all that is committed out of the log's tail."""
    reader = world.hello("reader", clean=True)  # durable: for others nothing would be logged
    reader.subscribe("big", 1)
    for number in range(1, 5):
        reader.publish("big", BIG, 1, number)
        reader.send(Puback(number))
    reader.unsubscribe("big")
    reader.cut()


def test_what_was_given_back_and_waits_for_room_survives_a_crash() -> None:
    world = World()
    full = member(world, "full", receive_maximum=1)
    leaver = member(world, "leaver")
    say(world, 2)
    assert (payloads(full), payloads(leaver)) == (["m1"], ["m2"])
    leaver.cut()
    assert payloads(full) == []
    world.crash()
    world.restart()
    found = payloads(world.hello("full", receive_maximum=2))
    assert sorted(found) == ["m1", "m2"]


def test_what_was_given_back_comes_first_and_the_queue_goes_on_behind_it() -> None:
    """Both are out of memory, and the member acknowledges nothing in between."""
    world = World()
    full = member(world, "full", receive_maximum=1)
    leaver = member(world, "leaver", receive_maximum=1)
    say(world, 4)
    assert (payloads(full), payloads(leaver)) == (["m1"], ["m2"])
    out_of_memory(world)
    full.cut()
    leaver.cut()
    third = world.hello("third")
    third.subscribe(SHARED, 1)
    assert payloads(third) == ["m1", "m2", "m3", "m4"]


def test_what_is_given_back_while_a_read_is_under_way_is_handed_out_first() -> None:
    world = World()
    first, second, third = (member(world, name) for name in "abc")
    say(world, 6)
    assert (payloads(first), payloads(second)) == (["m1", "m4"], ["m2", "m5"])
    assert payloads(third, ack=True) == ["m3", "m6"]
    out_of_memory(world)
    world.disk.hold_reads()
    second.cut()
    first.cut()
    world.disk.answer_reads()
    assert payloads(third) == []
    world.disk.answer_reads()
    assert payloads(third) == ["m1", "m2", "m4", "m5"]


def test_a_read_for_a_queue_that_was_given_up_brings_nothing_to_the_next_one() -> None:
    world = World()
    member(world, "a").disconnect()
    say(world, 3)
    out_of_memory(world)
    world.disk.hold_reads()
    client = world.hello("a", receive_maximum=2)
    client.subscribe(SHARED, 0)  # nobody wants a queue any longer
    client.subscribe(SHARED, 1)
    of_group, of_session = sorted(
        world.disk.reads, key=lambda wanted: isinstance(wanted.reader, Session)
    )
    world.disk.reads = []
    world.answer(of_session)
    world.run()
    say(world, 5, first=11)
    assert payloads(client) == ["m11", "m12"]
    client.send(Puback(1), Puback(2))
    assert payloads(client) == ["m13", "m14"]
    world.answer(of_group)
    world.disk.release()
    client.send(Puback(3), Puback(4))
    assert payloads(client) == ["m15"]


def test_what_is_given_back_while_the_queue_is_read_comes_before_it() -> None:
    world = World()
    first, second = member(world, "a", receive_maximum=1), member(world, "b", receive_maximum=1)
    say(world, 4)
    assert (payloads(first), payloads(second)) == (["m1"], ["m2"])
    out_of_memory(world)
    world.disk.hold_reads()
    first.send(Puback(1))  # there is room: m3 and m4 are asked for
    second.cut()
    world.disk.answer_reads()
    world.disk.answer_reads()
    assert payloads(first, ack=True) == ["m2"]
    world.disk.release()
    assert payloads(first) == ["m3"]


def test_a_fetch_for_a_queue_that_was_given_up_does_not_count_for_the_next_one() -> None:
    world = World()
    client = member(world, "a")
    other = member(world, "b")
    say(world, 2)
    assert (payloads(client, ack=True), payloads(other)) == (["m1"], ["m2"])
    out_of_memory(world)
    world.disk.hold_reads()
    other.cut()
    (fetch,) = world.disk.reads
    world.disk.reads = []
    world.hello("b", clean=True)
    client.subscribe(SHARED, 0)  # nobody wants a queue any longer
    client.subscribe(SHARED, 1)
    client.disconnect()
    say(world, 2, first=11)
    out_of_memory(world)
    third = world.hello("third")
    third.subscribe(SHARED, 1)
    world.answer(fetch)
    world.run()
    world.disk.release()
    assert payloads(third) == ["m11", "m12"]


def test_a_long_stretch_of_the_log_is_passed_in_parts() -> None:
    world = World()
    world.session("wants the others", "other", 1)
    client = member(world, "a")
    publisher = world.transient("p", version=4)
    world.disk.hold()  # so that all of it stays in memory
    client.stall()
    publisher.publish("t/x", "first", 1, 1)
    count = FEED_ENTRIES_MAX + 5
    publisher.push(*(Publish("other", b"", 1, False, False, n) for n in range(2, count)))
    publisher.publish("t/x", "behind them", 1, count)
    client.drain()
    world.disk.release()
    assert payloads(client) == ["first", "behind them"]


def test_retained_messages_on_their_way_to_a_member_of_another_kind_are_not_for_the_group() -> None:
    world = World()
    world.transient("p").publish("t/x", "kept", 1, 1, retain=True)
    member(world, "a").disconnect()
    world.hello("plain").subscribe("t/x", 1)  # sent through the log
    assert payloads(world.hello("a")) == []


def test_a_queue_ends_with_the_last_who_wants_one() -> None:
    world = World()
    world.session("wants it too", "t/#", 1)
    member(world, "b", 0).disconnect()
    member(world, "a").unsubscribe(SHARED)
    say(world, 1)
    group = groups(world).find(SHARED)
    assert group is not None
    assert (group.queueing, group.is_behind) == (0, False)


def test_of_a_group_that_a_crash_leaves_without_members_nothing_is_left() -> None:
    world = World()
    member(world, "t", expiry_s=0)
    member(world, "d").unsubscribe(SHARED)
    assert groups(world).count == 1
    world.crash()
    world.restart()
    assert groups(world).count == 0
    assert world.disk.store.load().groups == []


def test_what_members_without_a_session_are_given_from_the_queue_is_durable_first() -> None:
    world = World()
    client = member(world, "t", expiry_s=0, receive_maximum=1)
    publisher = world.transient("p")
    world.disk.hold()
    publisher.publish("t/x", "1", 1, 1)
    publisher.publish("t/x", "2", 1, 2)
    world.disk.sync_one()
    assert payloads(client, ack=True) == ["1"]
    assert payloads(client) == []
    world.disk.sync()
    assert payloads(client) == ["2"]


def test_a_group_pins_what_it_queues_and_its_members_pin_nothing_else() -> None:
    world = World()
    member(world, "a").disconnect()
    next_lsn = world.broker._commits.next_lsn
    say(world, 2)
    assert world.broker.trim_point() == next_lsn
    back = world.hello("a")
    payloads(back, ack=True)
    say(world, 2)
    payloads(back, ack=True)
    assert world.broker.trim_point() == world.broker._commits.next_lsn
    other = member(world, "b")
    back.disconnect()
    say(world, 2)
    payloads(other, ack=True)
    assert world.broker.trim_point() == world.broker._commits.next_lsn


# --- strategies


def spread(strategy: int, client_ids: str = "abc") -> tuple[World, dict[str, Client]]:
    world = World(Limits(shared_strategy=strategy))
    return world, {name: member(world, name) for name in client_ids}


def test_least_in_flight_spares_the_busy() -> None:
    world, members = spread(LEAST_IN_FLIGHT)
    say(world, 3)
    for name in "bc":
        assert len(payloads(members[name], ack=True)) == 1
    say(world, 2, first=4)
    assert payloads(members["a"]) == ["m1"]
    assert sorted(payloads(members["b"]) + payloads(members["c"])) == ["m4", "m5"]


def test_sticky_stays_with_one_until_it_goes() -> None:
    world, members = spread(STICKY)
    say(world, 3)
    assert payloads(members["a"], ack=True) == ["m1", "m2", "m3"]
    members["a"].disconnect()
    say(world, 2, first=4)
    chosen = payloads(members["b"])
    assert chosen == ["m4", "m5"]
    world.hello("a")
    say(world, 1, first=6)
    assert payloads(members["b"]) == ["m6"]


def test_sticky_waits_for_the_one_rather_than_change_the_order() -> None:
    world = World(Limits(shared_strategy=STICKY))
    first = member(world, "a", receive_maximum=1)
    second = member(world, "b")
    say(world, 3)
    assert payloads(first) == ["m1"]
    first.send(Puback(1))
    assert payloads(first) == ["m2"]
    assert payloads(second) == []
    first.cut()
    assert payloads(second) == ["m2", "m3"]


@pytest.mark.parametrize("strategy", [HASH_CLIENT, HASH_TOPIC])
def test_hashing_gives_a_key_to_one_member_and_all_members_some_keys(strategy: int) -> None:
    world, members = spread(strategy, "abcd")
    owner: dict[str, str] = {}

    def publish(number: int) -> None:
        by_client = strategy == HASH_CLIENT
        publisher = world.transient(f"p{number}" if by_client else "p")
        publisher.publish("t/x" if by_client else f"t/{number}", f"{number}", 1, 1)
        publisher.disconnect()

    for _ in range(3):
        for number in range(60):
            publish(number)
        for name, one in members.items():
            for payload in payloads(one, ack=True):
                assert owner.setdefault(payload, name) == name
    counts = {name: list(owner.values()).count(name) for name in members}
    assert min(counts.values()) >= 6, counts
    members["d"].disconnect()
    for number in range(60):
        publish(number)
    for name in "abc":
        for payload in payloads(members[name], ack=True):
            assert owner[payload] in (name, "d"), "only what the one that left had has moved"


@pytest.mark.parametrize("strategy", [STICKY, HASH_CLIENT, HASH_TOPIC])
@pytest.mark.parametrize("how", ["cut", "unsubscribe", "end"])
def test_what_waited_for_one_goes_on_to_another_when_it_leaves(how: str, strategy: int) -> None:
    """Though it has nothing in flight that would go back to the group."""
    world, members = spread(strategy, "ab")
    say(world, 1)
    owner, other = members["a"], members["b"]
    if payloads(other, ack=True):
        owner, other = other, owner
    payloads(owner, ack=True)
    owner.stall()
    say(world, 2, first=2)
    assert payloads(other) == []
    if how == "cut":
        owner.cut()
    elif how == "unsubscribe":
        owner.unsubscribe(SHARED)
    else:
        client_id = "a" if owner is members["a"] else "b"
        world.hello(client_id, clean=True)
    assert payloads(other) == ["m2", "m3"]
