"""The limits of what waits for a session or shared group, and the policies at them."""

import pytest

from holdfast.broker.delivery import COUNT
from holdfast.broker.limits import DROP_NEWEST, DROP_OLDEST, END_SESSION, REFUSE, Limits
from holdfast.broker.queue import Queue
from holdfast.message import Properties
from holdfast.protocol.packets import Puback, Publish, Subscribe, SubscriptionRequest
from tests.broker.world import Client, World

MESSAGES_MAX = 10
POLICIES = [REFUSE, DROP_OLDEST, DROP_NEWEST, END_SESSION]


def limited(
    policy: int, queued_messages_max: int = MESSAGES_MAX, queued_bytes_max: int = 0
) -> World:
    limits = Limits(in_flight_max=4, queue_policy=policy)
    limits.queued_messages_max = queued_messages_max
    limits.queued_bytes_max = queued_bytes_max
    return World(limits)


def publish(world: World, count: int, topic: str = "t", first: int = 0) -> list[str]:
    """Publish "0", "1" and so on at QoS 1, each in a turn of its own; returns the answers."""
    publisher = world.transient("p")
    for number in range(first, first + count):
        publisher.publish(topic, str(number), 1, number + 1)
    answers = publisher.received()
    publisher.disconnect()
    return answers


def publish_at_once(world: World, count: int, topic: str = "t") -> list[str]:
    """The same in one piece."""
    publisher = world.transient("p")
    publisher.send(
        *(Publish(topic, b"%d" % number, 1, False, False, number + 1) for number in range(count))
    )
    answers = publisher.received()
    publisher.disconnect()
    return answers


def take_all(client: Client) -> list[str]:
    """The payloads that come while the client acknowledges everything."""
    payloads: list[str] = []
    while publishes := client.publishes():
        for packet in publishes:
            payloads.append(packet.payload.decode())
            if packet.qos == 1:
                client.send(Puback(packet.packet_id))
    return payloads


def numbers(start: int, stop: int) -> list[str]:
    return [str(number) for number in range(start, stop)]


def queue_of(world: World, client_id: str) -> Queue:
    session = world.broker.sessions.find(client_id)
    assert session is not None and session.queue is not None
    return session.queue


def told(world: World) -> list[str]:
    """What the operator was told about the queue of ``s``."""
    texts = [event.text for event in world.events if event.client_id == "s"]
    return [text for text in texts if "queue" in text or "lost" in text]


def slow(world: World, client_id: str = "s", topic_filter: str = "t") -> Client:
    """A client online that acknowledges nothing: its window is full, then its queue."""
    client = world.hello(client_id)
    client.subscribe(topic_filter, 1)
    client.packets()
    return client


@pytest.mark.parametrize("is_one_piece", [False, True])
def test_refuse_keeps_what_was_acknowledged_of_an_absent_session(is_one_piece: bool) -> None:
    world = limited(REFUSE)
    world.session("s", "t", 1)
    answers = publish_at_once(world, 15) if is_one_piece else publish(world, 15)
    assert answers[:MESSAGES_MAX] == [f"PUBACK #{number}" for number in range(1, 11)]
    assert answers[MESSAGES_MAX:] == [f"PUBACK #{number} 0x97" for number in range(11, 16)]
    assert take_all(world.hello("s")) == numbers(0, 10)
    assert queue_of(world, "s").lost_messages == 0
    assert publish(world, 1) == ["PUBACK #1"]


def test_refuse_concerns_those_topics_alone_that_the_full_queue_is_for() -> None:
    world = limited(REFUSE)
    world.session("s", "t", 1)
    world.session("other", "u", 1)
    publish(world, 11)
    assert publish(world, 1, "u") == ["PUBACK #1"]
    assert publish(world, 1, "nobody's") == ["PUBACK #1 0x10"]
    publisher = world.transient("p")
    publisher.publish("t", "at QoS 0, which no queue has")
    assert publisher.received() == []
    assert world.broker.counters.refused == 1


def test_before_5_0_a_refused_publisher_is_disconnected_and_told_nothing_untrue() -> None:
    world = limited(REFUSE)
    world.session("s", "t", 1)
    publish(world, 10)
    publisher = world.hello("old", version=4, clean=True)
    publisher.publish("t", "x", 1, 1)
    assert publisher.received() == []
    assert not publisher.is_open
    assert any("queue of every subscriber" in event.text for event in world.events)


def test_refuse_for_a_slow_session_until_it_has_taken_some() -> None:
    world = limited(REFUSE)
    client = slow(world)
    answers = publish(world, 20)
    # Four in flight, ten wait.
    assert answers == [
        f"PUBACK #{number}" + (" 0x97" if number > 14 else "") for number in range(1, 21)
    ]
    first = client.publishes()[0]
    client.send(Puback(first.packet_id))
    assert publish(world, 2, first=20) == ["PUBACK #21", "PUBACK #22 0x97"]
    client.send(Puback(client.publishes()[-1].packet_id))
    # Nothing acknowledged is lost.
    client.cut()
    assert take_all(world.hello("s")) == [*numbers(1, 4), *numbers(5, 14), "20"]


def test_a_full_queue_stays_full_over_leaving_and_coming_back() -> None:
    world = limited(REFUSE)
    client = slow(world)
    publish(world, 14)
    assert publish(world, 1) == ["PUBACK #1 0x97"]
    client.cut()
    assert publish(world, 1) == ["PUBACK #1 0x97"]
    client = world.hello("s")
    assert publish(world, 1) == ["PUBACK #1 0x97"]
    take_all(client)
    assert publish(world, 1) == ["PUBACK #1"]
    client.cut()
    assert publish(world, 10)[-1] == "PUBACK #10"


@pytest.mark.parametrize("policy", POLICIES)
def test_a_session_that_ends_takes_its_full_queue_with_it(policy: int) -> None:
    world = limited(policy)
    world.session("s", "t", 1)
    publish(world, 12)
    world.hello("s", clean=True)
    assert publish(world, 1) == ["PUBACK #1 0x10"]
    assert world.broker._queues.full == 0
    assert not world.broker._queues._open


def test_drop_oldest_keeps_the_newest_of_an_absent_session() -> None:
    world = limited(DROP_OLDEST)
    world.session("s", "t", 1)
    assert publish(world, 25) == [f"PUBACK #{number}" for number in range(1, 26)]
    assert queue_of(world, "s").lost_messages == 15
    assert world.broker.counters.lost == 15
    assert take_all(world.hello("s")) == numbers(15, 25)


def test_drop_oldest_of_a_slow_session() -> None:
    world = limited(DROP_OLDEST)
    client = slow(world)
    publish(world, 30)
    # Four are in flight and stay.
    assert take_all(client) == [*numbers(0, 4), *numbers(20, 30)]
    assert queue_of(world, "s").lost_messages == 16


def test_drop_oldest_reads_from_the_store_what_is_no_longer_in_memory() -> None:
    world = limited(DROP_OLDEST, queued_messages_max=5000)
    world.session("s", "t", 1)
    publisher = world.transient("p")
    for start in range(0, 20_000, 500):
        publisher.send(
            *(
                Publish("t", b"%d" % n, 1, False, False, n % 500 + 1)
                for n in range(start, start + 500)
            )
        )
        assert not any(" 0x" in answer for answer in publisher.received())
    queue = queue_of(world, "s")
    messages = take_all(world.hello("s"))
    assert messages == numbers(20_000 - len(messages), 20_000)
    assert queue.lost_messages == 20_000 - len(messages)
    assert 5000 * 0.9 < len(messages) <= 5000


def test_drop_newest_of_an_absent_session() -> None:
    world = limited(DROP_NEWEST)
    world.session("s", "t", 1)
    assert publish(world, 25) == [f"PUBACK #{number}" for number in range(1, 26)]
    client = world.hello("s")
    assert queue_of(world, "s").lost_messages == 15
    assert take_all(client) == numbers(0, 10)
    publish(world, 1, first=100)
    assert take_all(client) == ["100"]


def test_drop_newest_of_a_slow_session_goes_on_when_it_has_taken_some() -> None:
    world = limited(DROP_NEWEST)
    client = slow(world)
    publish(world, 20)
    taken = take_all(client)
    assert taken == numbers(0, 14)
    publish(world, 3, first=50)
    assert take_all(client) == numbers(50, 53)
    assert queue_of(world, "s").lost_messages == 6


def test_end_session_of_an_absent_one() -> None:
    world = limited(END_SESSION)
    world.session("s", "t", 1)
    answers = publish(world, 12)
    assert answers == [f"PUBACK #{number}" for number in range(1, 12)] + ["PUBACK #12 0x10"]
    assert world.broker.counters.lost == 11
    (connack,) = world.connect("s").received()
    assert connack == "CONNACK 0x00"
    assert any("the session is ended" in event.text for event in world.events)


def test_end_session_of_a_slow_one_disconnects_it() -> None:
    world = limited(END_SESSION)
    client = slow(world)
    publish(world, 15)
    assert client.received()[-1] == "DISCONNECT 0x97"
    assert not client.is_open
    assert world.connect("s").received() == ["CONNACK 0x00"]


@pytest.mark.parametrize("policy", POLICIES)
def test_bytes_count_as_messages_do(policy: int) -> None:
    world = limited(policy, queued_messages_max=0, queued_bytes_max=1000)
    world.session("s", "t", 1)
    publisher = world.transient("p")
    for number in range(20):
        publisher.publish("t", b"%02d" % number + bytes(98), 1, number + 1)
    answers = publisher.received()
    client = world.connect("s")
    present = client.received()[0] if policy == END_SESSION else ""
    came = [payload[:2] for payload in take_all(client)]
    if policy == REFUSE:
        assert answers[10:] == [f"PUBACK #{number} 0x97" for number in range(11, 21)]
        assert came == [f"{number:02d}" for number in range(10)]
    elif policy == DROP_OLDEST:
        assert came == [f"{number:02d}" for number in range(20 - len(came), 20)]
        assert 8 <= len(came) <= 10
    elif policy == DROP_NEWEST:
        assert came == [f"{number:02d}" for number in range(10)]
    else:
        assert present == "CONNACK 0x00"


@pytest.mark.parametrize("policy", POLICIES)
def test_a_shared_group_has_the_same_limits(policy: int) -> None:
    world = limited(policy)
    world.session("s", "$share/g/t", 1)
    answers = publish(world, 15)
    client = world.hello("s")
    came = take_all(client)
    if policy == REFUSE:
        assert answers[10:] == [f"PUBACK #{number} 0x97" for number in range(11, 16)]
        assert came == numbers(0, 10)
    elif policy == DROP_OLDEST:
        assert came == numbers(5, 15)
    elif policy == DROP_NEWEST:
        assert came == numbers(0, 10)
    else:
        assert came == numbers(11, 15)
    publish(world, 2, first=70)
    assert take_all(client) == ["70", "71"]


@pytest.mark.parametrize("policy", POLICIES)
def test_what_is_lost_is_known_after_a_crash(policy: int) -> None:
    world = limited(policy)
    world.session("s", "t", 1)
    publish(world, 25)
    world.now_ms += 20_000
    world.look_at_space()
    lost = world.broker.counters.lost
    assert lost == {REFUSE: 0, DROP_OLDEST: 15, DROP_NEWEST: 15, END_SESSION: 11}[policy]
    if policy in (DROP_OLDEST, DROP_NEWEST):
        assert queue_of(world, "s").lost_messages == lost
        world.crash()
        world.restart()
        assert queue_of(world, "s").lost_messages == lost


def test_a_gap_holds_over_a_crash() -> None:
    world = limited(DROP_NEWEST)
    client = slow(world)
    publish(world, 20)  # 14 to 19 are lost
    client.cut()
    world.crash()
    world.restart()
    publish(world, 5, first=20)  # lost as well
    client = world.hello("s")
    assert take_all(client) == numbers(0, 14)
    publish(world, 2, first=40)
    world.crash()
    world.restart()
    assert take_all(world.hello("s")) == ["40", "41"]


def test_what_waited_before_a_start_is_counted_before_anything_is_lost() -> None:
    """The log has come much further than the limit, but with other people's messages."""
    world = limited(DROP_OLDEST)
    world.session("s", "t", 1)
    world.session("busy", "u", 1)
    world.limits.queued_messages_max = 0
    world.crash()
    world.restart()
    publish(world, 5)
    for _ in range(5):
        publish(world, 9, "u")
    world.limits.queued_messages_max = MESSAGES_MAX
    world.crash()
    world.restart()
    publish(world, 4, first=5)
    assert queue_of(world, "s").lost_messages == 0
    assert queue_of(world, "s").is_exact
    publish(world, 2, first=9)
    assert queue_of(world, "s").lost_messages == 1
    assert take_all(world.hello("s")) == numbers(1, 11)


def test_overlapping_filters_count_a_message_once_before_anything_is_lost() -> None:
    world = limited(DROP_OLDEST)
    client = world.hello("s")
    client.subscribe("t/#", 1)
    client.subscribe("t/+", 1, 2)
    client.disconnect()
    publish(world, 9, "t/x")
    assert queue_of(world, "s").lost_messages == 0
    assert take_all(world.hello("s")) == numbers(0, 9)


def test_a_drop_under_way_is_for_nothing_when_the_session_comes_back() -> None:
    world = limited(DROP_OLDEST, queued_messages_max=5000)
    world.session("s", "t", 1)
    publisher = world.transient("p")
    world.disk.hold_reads()
    for start in range(0, 6000, 500):
        publisher.send(
            *(
                Publish("t", b"%d" % n, 1, False, False, n % 500 + 1)
                for n in range(start, start + 500)
            )
        )
    assert world.disk.reads
    client = world.hello("s")
    world.disk.release()
    came = take_all(client)
    assert came == numbers(6000 - len(came), 6000)
    assert len(came) + queue_of(world, "s").lost_messages == 6000


def test_the_operator_is_told_once_for_each_burst() -> None:
    world = limited(DROP_NEWEST)
    client = slow(world)
    publish(world, 30)
    assert told(world) == [
        "queue is full with 10 messages, 14 bytes: further ones are dropped until it has taken some"
    ]
    take_all(client)
    assert told(world)[1:] == ["lost 16 messages, 16 in all"]
    publish(world, 30)
    assert len(told(world)) == 3


def test_expired_messages_are_not_lost_when_they_are_dropped() -> None:
    world = limited(DROP_OLDEST)
    world.session("s", "t", 1)
    publisher = world.transient("p")
    for number in range(10):
        properties = Properties()
        properties.message_expiry_interval = 5
        publisher.publish("t", str(number), 1, number + 1, properties=properties)
    world.advance(6000)
    publish(world, 2, first=10)
    assert queue_of(world, "s").lost_messages == 0
    assert take_all(world.hello("s")) == ["10", "11"]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("taken", [4, 6])
def test_what_is_taken_while_it_is_counted_waits_no_longer(policy: int, taken: int) -> None:
    """A count under way tells of the past: all of it may have been given since."""
    world = limited(policy, queued_messages_max=0)
    world.session("s", "t", 1)
    world.session("busy", "u", 1)
    publish(world, 5)
    publish(world, 20, "u")
    world.limits.queued_messages_max = MESSAGES_MAX
    world.crash()
    world.restart()
    world.disk.hold_reads()
    client = world.hello("s")
    publish(world, 1, first=5)
    (feed,) = [wanted for wanted in world.disk.reads if wanted.purpose != COUNT]
    (count,) = [wanted for wanted in world.disk.reads if wanted.purpose == COUNT]
    given = 0
    while given < taken:
        world.disk.reads = [count]
        world.answer(feed)
        world.run()
        packets = client.publishes()
        given += len(packets)
        for packet in packets:
            client.send(Puback(packet.packet_id))
        feed = next((wanted for wanted in world.disk.reads if wanted is not count), feed)
    world.disk.reads.remove(count)
    world.answer(count)
    world.run()
    queue = queue_of(world, "s")
    assert queue.messages == 6 - taken and not queue.is_full
    assert client.is_open and queue.lost_messages == 0


@pytest.mark.parametrize("version", [4, 5])
def test_one_session_too_many_is_refused(version: int) -> None:
    world = World(Limits(sessions_max=2))
    world.hello("a")
    world.session("b", "t", 1)
    code = "0x97" if version == 5 else "0x03"
    assert world.connect("c", version=version).received() == [f"CONNACK {code}"]
    assert world.connect("b", version=version, clean=True).is_open
    assert world.connect("a", version=version).received()[0].startswith("CONNACK 0x00")


@pytest.mark.parametrize("version", [4, 5])
def test_one_subscription_too_many_is_refused(version: int) -> None:
    world = World(Limits(subscriptions_max=2))
    client = world.hello("a", version=version)
    client.subscribe("t/1", 1)
    client.subscribe("$share/g/t", 1)
    client.subscribe("t/3", 1, 3)
    client.subscribe("t/1", 0, 4)
    refused = "0x97" if version == 5 else "0x80"
    assert client.received() == [
        "SUBACK #1 0x01", "SUBACK #1 0x01", f"SUBACK #3 {refused}", "SUBACK #4 0x00"
    ]  # fmt: skip
    assert world.broker.counters.refused_subscriptions == 1


def test_refused_subscriptions_are_counted_each_and_told_once_for_a_packet() -> None:
    world = World(Limits(subscriptions_max=1))
    client = world.hello("a")
    requests = [SubscriptionRequest(f"t/{number}", 0) for number in range(3)]
    client.send(Subscribe(1, [*requests, SubscriptionRequest("a#", 0)], None))
    assert client.received() == ["SUBACK #1 0x00 0x97 0x97 0x8F"]
    assert world.broker.counters.refused_subscriptions == 3
    told = [event for event in world.events if "topic filters" in event.text]
    assert [(event.client_id, event.text) for event in told] == [
        ("a", "refused: 3 of the 4 topic filters of a SUBSCRIBE: Quota exceeded")
    ]


def test_retained_messages_have_a_bound_in_number_and_bytes() -> None:
    world = World(Limits(retained_messages_max=2, retained_bytes_max=10))
    client = world.transient("p")
    client.publish("a", "12345", 1, 1, retain=True)
    client.publish("b", "123456", 1, 2, retain=True)
    client.publish("b", "12345", 1, 3, retain=True)
    client.publish("c", "", 1, 4, retain=True)
    client.publish("d", "1", 1, 5, retain=True)
    client.publish("a", "", 1, 6, retain=True)
    client.publish("d", "1", 1, 7, retain=True)
    client.publish("e", "1", 0, retain=True)
    assert client.received() == [
        "PUBACK #1 0x10", "PUBACK #2 0x97", "PUBACK #3 0x10", "PUBACK #4 0x10",
        "PUBACK #5 0x97", "PUBACK #6 0x10", "PUBACK #7 0x10",
    ]  # fmt: skip
    assert client.is_open


def test_a_3_1_1_session_is_kept_as_long_as_the_operator_says() -> None:
    world = World(Limits(session_expiry_default_s=60))
    for version in (3, 4):
        client = world.hello(f"s{version}", version=version)
        client.subscribe("t", 1)
        client.disconnect()
    world.advance(59_000)
    assert world.connect("s4", version=4).received() == ["CONNACK 0x00 present"]
    world.advance(2_000)
    assert world.connect("s3", version=3).received() == ["CONNACK 0x00"]


@pytest.mark.parametrize("policy", [REFUSE, DROP_OLDEST, END_SESSION])
def test_another_policy_after_a_start_goes_on_without_the_gap(policy: int) -> None:
    world = limited(DROP_NEWEST)
    world.session("s", "t", 1)
    publish(world, 12)
    world.limits.queue_policy = policy
    world.limits.queued_messages_max = 20
    world.crash()
    world.restart()
    assert publish(world, 3, first=20) == ["PUBACK #21", "PUBACK #22", "PUBACK #23"]
    assert take_all(world.hello("s")) == [*numbers(0, 10), "20", "21", "22"]
    assert world.broker._queues.full == 0


def test_a_group_that_forgets_its_queue_while_it_is_counted_has_limits_later() -> None:
    world = limited(REFUSE)
    world.session("s", "$share/g/t", 1)
    publish(world, 12)
    world.crash()
    world.restart()
    world.disk.hold_reads()
    publish(world, 1)  # has the queue counted
    client = world.hello("s")
    client.subscribe("$share/g/t", 0, 2)  # nobody wants a queue
    client.subscribe("$share/g/t", 1, 3)
    client.cut()
    world.disk.release()
    answers = publish(world, 12)
    assert answers[9:] == ["PUBACK #10", "PUBACK #11 0x97", "PUBACK #12 0x97"]
