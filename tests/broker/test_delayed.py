"""Delayed messages: published once at their time, whatever crashes, unless they are cancelled."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.broker.delayed import STALE_MAX, address_of, is_delayed
from holdfast.broker.events import WARNING
from holdfast.broker.limits import DELAYED_DUE_BYTES_MAX, DELAYED_DUE_MAX, Limits
from holdfast.errors import Refused
from holdfast.message import Properties
from holdfast.protocol.packets import Connack, Publish, Pubrel, Will
from tests.broker.world import Client, World

MALFORMED = [
    "$delayed",
    "$delayed/",
    "$delayed/60",
    "$delayed/60/",
    "$delayed//a",
    "$delayed/a",
    "$delayed/a/60",
    "$delayed/-1/a",
    "$delayed/1.5/a",
    "$delayed/1e3/a",
    "$delayed/ 60/a",
    "$delayed/6_0/a",
    "$delayed/60s/a",
    "$delayed/\u0666\u0660/a",  # digits, but not decimal ones as we write them
    "$delayed/6\u00b2/a",
    "$delayed/31536001/a",  # longer than a year
    f"$delayed/{'9' * 11}/a",
    f"$delayed/{'0' * 60_000}/a",
    "$delayed/60/$delayed/60/a",
    "$delayed/60/$delayed",
    "$delayed/60/$SYS",
    "$delayed/60/$SYS/a",
]


def subscriber(world: World, topic_filter: str = "t", qos: int = 2, *, version: int = 5) -> Client:
    client = world.hello("s", version=version)
    client.subscribe(topic_filter, qos, retain_as_published=version == 5)
    client.packets()
    return client


class TestAddress:
    @pytest.mark.parametrize(
        ("topic", "seconds", "target"),
        [
            ("$delayed/60/plant/pump", 60, "plant/pump"),
            ("$delayed/0/a", 0, "a"),
            ("$delayed/31536000/a", 31_536_000, "a"),
            ("$delayed/0060/a", 60, "a"),
            ("$delayed/1//", 1, "/"),
            ("$delayed/1/60", 1, "60"),
            ("$delayed/1/$other/a", 1, "$other/a"),
            ("$delayed/1/$delayedly", 1, "$delayedly"),
            ("$delayed/1/a/$delayed/2/b", 1, "a/$delayed/2/b"),
        ],
    )
    def test_it_has_seconds_and_a_topic(self, topic: str, seconds: int, target: str) -> None:
        assert is_delayed(topic)
        assert address_of(topic, 31_536_000) == (seconds, target)

    @pytest.mark.parametrize("topic", MALFORMED)
    def test_all_else_is_refused(self, topic: str) -> None:
        assert is_delayed(topic)
        with pytest.raises(Refused) as refused:
            address_of(topic, 31_536_000)
        assert refused.value.reason_code == 0x90

    @pytest.mark.parametrize("topic", ["delayed/1/a", "$delayedly/1/a", "/$delayed/1/a", "$d"])
    def test_other_topics_are_no_addresses(self, topic: str) -> None:
        assert not is_delayed(topic)


class TestPublish:
    @pytest.mark.parametrize("version", [4, 5])
    @pytest.mark.parametrize("qos", [0, 1, 2])
    def test_it_comes_at_its_time_and_not_before(self, qos: int, version: int) -> None:
        world = World()
        receiver = subscriber(world, version=version)
        sender = world.transient("p", version)
        sender.publish("$delayed/60/t", "m", qos, 7 if qos else 0)
        assert sender.received() == [[], ["PUBACK #7"], ["PUBREC #7"]][qos]
        world.advance(59_999)
        assert receiver.received() == []
        world.advance(1)
        assert receiver.received() == [f"PUBLISH t m q{qos}" + (" #1" if qos else "")]
        world.advance(1_000_000)
        assert receiver.received() == []
        assert world.broker.delayed.count == 0
        assert world.broker.delayed.bytes_waiting == 0

    def test_it_has_all_that_was_published(self) -> None:
        world = World()
        receiver = subscriber(world)
        properties = Properties()
        properties.payload_format_indicator = 1
        properties.content_type = "text/plain"
        properties.response_topic = "answer"
        properties.correlation_data = b"\x07"
        properties.user_properties = [("k", "1"), ("k", "2")]
        sender = world.transient("p")
        sender.publish("$delayed/5/t", "m", 1, 1, retain=True, properties=properties)
        world.crash()
        world.restart()
        receiver = world.hello("s")
        world.advance(5_000)
        (found,) = receiver.publishes()
        assert (found.topic, found.payload, found.qos, found.retain) == ("t", b"m", 1, True)
        got = found.properties
        assert got is not None
        assert (got.payload_format_indicator, got.content_type) == (1, "text/plain")
        assert (got.response_topic, got.correlation_data) == ("answer", b"\x07")
        assert got.user_properties == [("k", "1"), ("k", "2")]

    def test_no_delay_is_no_delay(self) -> None:
        world = World()
        receiver = subscriber(world)
        sender = world.transient("p")
        sender.publish("$delayed/0/t", "m", 1, 1)
        sender.publish("$delayed/0/nobody", "m", 1, 2)
        assert receiver.received() == ["PUBLISH t m q1 #1"]
        assert sender.received() == ["PUBACK #1", "PUBACK #2"]

    def test_they_come_in_the_order_of_their_times(self) -> None:
        world = World()
        receiver = subscriber(world, "+", 0)
        sender = world.transient("p")
        for seconds, topic in [(3, "c"), (1, "a"), (2, "b"), (3, "d"), (1, "e")]:
            sender.publish(f"$delayed/{seconds}/{topic}", topic)
        world.now_ms += 10_000
        world.run()
        assert receiver.received() == [f"PUBLISH {topic} {topic} q0" for topic in "aebcd"]

    def test_a_clock_that_is_set_back_delays_further(self) -> None:
        world = World()
        receiver = subscriber(world)
        world.transient("p").publish("$delayed/10/t", "m")
        world.now_ms -= 3_600_000
        world.advance(3_600_000)
        assert receiver.received() == []
        world.advance(10_000)
        assert receiver.received() == ["PUBLISH t m q0"]

    @pytest.mark.spec("MQTT5-3.8.3-3")
    def test_no_local_knows_the_publisher(self) -> None:
        world = World()
        client = world.hello("c")
        client.subscribe("t", 1, no_local=True)
        other = subscriber(world)
        client.publish("$delayed/1/t", "m", 1, 1)
        client.packets()
        world.advance(1_000)
        assert other.received() == ["PUBLISH t m q1 #1"]
        assert client.received() == []

    def test_the_slot_is_set_when_it_is_due(self) -> None:
        world = World()
        world.transient("p").publish("$delayed/5/t", "new", retain=True)
        world.transient("p").publish("t", "old", retain=True)
        early = subscriber(world, qos=0)
        world.advance(4_999)
        assert early.received() == []
        late = world.hello("late")
        late.subscribe("t", 0)
        assert late.received() == ["SUBACK #1 0x00", "PUBLISH t old q0 retain"]
        world.advance(1)
        world.crash()
        world.restart()
        after = world.hello("after")
        after.subscribe("t", 0)
        assert after.received() == ["SUBACK #1 0x00", "PUBLISH t new q0 retain"]

    def test_nothing_reaches_those_who_subscribe_under_delayed(self) -> None:
        world = World()
        receiver = subscriber(world, "$delayed/#")
        receiver.subscribe("$delayed/1/t", 1)
        receiver.subscribe("#", 1)
        receiver.packets()
        world.transient("p").publish("$delayed/1/t", "m", 1, 1, retain=True)
        assert receiver.received() == []
        world.advance(1_000)
        assert receiver.received() == ["PUBLISH t m q1 #1"]

    @pytest.mark.spec("MQTT5-4.3.3-10")
    @pytest.mark.parametrize("crash", [False, True])
    def test_a_repeat_of_qos_2_does_not_delay_twice(self, crash: bool) -> None:
        world = World()
        world.session("s", "t", 2)
        sender = world.hello("p")
        sender.publish("$delayed/60/t", "m", 2, 1)
        if crash:
            world.crash()
            world.restart()
        else:
            sender.cut()
        sender = world.hello("p")
        sender.publish("$delayed/60/t", "m", 2, 1, dup=True)
        assert sender.received() == ["PUBREC #1"]
        assert world.broker.delayed.count == 1
        sender.send(Pubrel(1))
        sender.publish("$delayed/60/t", "m", 2, 1)
        assert world.broker.delayed.count == 2

    def test_one_without_a_delay_does_not_overtake_what_its_publisher_sent_before(self) -> None:
        world = World()
        world.session("kept", "t", 1)
        client = world.transient("c")
        client.subscribe("u", 0)
        client.packets()
        publisher = world.transient("p")
        world.disk.hold()
        publisher.publish("t", "first", 1, 1)
        publisher.publish("$delayed/0/u", "second")
        assert client.received() == []
        world.disk.sync()
        assert client.received() == ["PUBLISH u second q0"]


class TestExpiry:
    @pytest.mark.parametrize("expiry_s", [0, 1, 10])
    def test_the_lifetime_begins_when_it_is_due(self, expiry_s: int) -> None:
        world = World()
        receiver = subscriber(world)
        sender = world.transient("p")
        sender.publish("$delayed/60/t", "m", properties=_expiring(expiry_s))
        world.now_ms += 60_003  # no timer is exact
        world.run()
        (found,) = receiver.publishes()
        assert found.properties is not None
        assert found.properties.message_expiry_interval == expiry_s

    def test_what_is_over_when_the_broker_comes_back_is_dropped(self) -> None:
        world = World()
        world.session("s", "#", 1)
        sender = world.transient("p")
        sender.publish("$delayed/60/t", "over", 1, 1, retain=True, properties=_expiring(10))
        sender.publish("$delayed/60/t", "fresh", 1, 2, properties=_expiring(100))
        world.crash()
        world.restart(after_ms=90_000)
        receiver = world.hello("s")
        (found,) = receiver.publishes()
        assert found.payload == b"fresh"
        assert found.properties is not None
        assert found.properties.message_expiry_interval == 70
        assert world.broker.delayed.count == 0
        receiver.subscribe("t", 0)
        assert receiver.received() == ["SUBACK #1 0x00"]


class TestCrash:
    @pytest.mark.spec("MQTT5-4.3.2-4")
    @pytest.mark.spec("MQTT5-4.3.3-10")
    @pytest.mark.parametrize("survives", [False, True])
    @pytest.mark.parametrize("qos", [0, 1, 2])
    def test_what_was_acknowledged_is_there(self, qos: int, survives: bool) -> None:
        """The acknowledgement waits for the commit; a crash before it may keep the message."""
        world = World()
        world.session("s", "t", 2)
        sender = world.transient("p")
        world.disk.hold()
        sender.publish("$delayed/60/t", "m", qos, 1 if qos else 0)
        assert sender.received() == []
        world.crash(commit_survives=survives)
        world.disk.release()
        world.restart()
        assert world.broker.delayed.count == int(survives)
        world.advance(60_000)
        expected = ["PUBLISH t m q1 #1", "PUBLISH t m q2 #1"][qos - 1 : qos] if qos else []
        assert world.hello("s").received() == (expected if survives else [])

    @pytest.mark.parametrize("qos", [0, 1, 2])
    def test_it_waits_on_disk_while_the_broker_is_down(self, qos: int) -> None:
        world = World()
        sender = world.transient("p")
        sender.publish("$delayed/60/t", "m", qos, 1 if qos else 0, retain=True)
        sender.received()
        world.crash()
        world.restart(after_ms=30_000)
        receiver = subscriber(world)
        world.advance(29_999)
        assert receiver.received() == []
        world.advance(1)
        packet_id = " #1" if qos else ""
        assert receiver.received() == [f"PUBLISH t m q{qos}{packet_id} retain"]

    @pytest.mark.parametrize("survives", [False, True])
    @pytest.mark.parametrize("qos", [0, 1, 2])
    def test_it_is_published_once(self, qos: int, survives: bool) -> None:
        """The commit that publishes it is under way when the broker crashes. Nobody has seen it,
        and afterwards all see it once: those online, those absent, and the retained slot.
        """
        world = World()
        world.session("absent", "t", 2)
        online = subscriber(world)
        sender = world.transient("p")
        sender.publish("$delayed/60/t", "m", qos, 1 if qos else 0, retain=True)
        world.disk.hold()
        world.advance(60_000)
        assert world.disk.under_way is not None
        assert online.received() == []
        world.crash(commit_survives=survives)
        world.disk.release()
        world.restart(after_ms=5)
        assert world.broker.delayed.count == 0
        world.advance(100_000)
        world.crash()
        world.restart()
        for name in ("absent", "s"):
            got = world.hello(name).publishes()
            assert [packet.payload for packet in got] == ([b"m"] if qos else [])
        late = world.hello("late")
        late.subscribe("t", 0)
        assert late.received() == ["SUBACK #1 0x00", "PUBLISH t m q0 retain"]

    def test_nobody_online_sees_it_before_its_removal_is_durable(self) -> None:
        world = World()
        receiver = world.transient("r")
        receiver.subscribe("t", 2)
        receiver.packets()
        sender = world.transient("p")
        for qos in (0, 1, 2):
            sender.publish("$delayed/1/t", f"{qos}", qos, qos)
        world.disk.hold()
        world.advance(1_000)
        assert receiver.received() == []
        world.disk.sync()
        assert receiver.received() == [
            "PUBLISH t 0 q0",
            "PUBLISH t 1 q1 #1",
            "PUBLISH t 2 q2 #2",
        ]

    def test_it_may_fall_due_before_its_own_commit(self) -> None:
        world = World()
        world.session("s", "t", 1)
        sender = world.transient("p")
        world.disk.hold()
        sender.publish("other", "m", 1, 9, retain=True)  # this commit is under way
        sender.publish("$delayed/1/t", "m", 1, 1)
        world.advance(2_000)
        world.disk.sync()
        assert sender.received() == ["PUBACK #9 0x10", "PUBACK #1"]
        world.crash()
        world.disk.release()
        world.restart()
        assert world.broker.delayed.count == 0
        assert world.hello("s").received() == ["PUBLISH t m q1 #1"]

    def test_overdue_ones_come_at_the_start_in_the_order_of_their_times(self) -> None:
        world = World()
        world.session("s", "+", 1)
        sender = world.transient("p")
        for number, seconds in enumerate([30, 10, 20, 10, 3600], 1):
            sender.publish(f"$delayed/{seconds}/t{number}", "m", 1, number)
        world.crash()
        world.restart(after_ms=60_000)
        got = [packet.topic for packet in world.hello("s").publishes()]
        assert got == ["t2", "t4", "t3", "t1"]
        assert world.broker.delayed.count == 1

    def test_a_number_is_not_given_to_two(self) -> None:
        world = World()
        world.session("s", "t", 1)
        world.transient("p").publish("$delayed/60/t", "first", 1, 1)
        for number in range(3):
            world.crash()
            world.restart()
            world.transient("p").publish("$delayed/60/t", f"{number}", 1, 1)
        world.advance(60_000)
        got = [packet.payload for packet in world.hello("s").publishes()]
        assert got == [b"first", b"0", b"1", b"2"]


class TestCancel:
    @pytest.mark.parametrize("qos", [1, 2])
    def test_an_empty_payload_cancels_all_under_the_address(self, qos: int) -> None:
        world = World()
        receiver = subscriber(world, "+")
        sender = world.transient("p")
        word = "PUBACK" if qos == 1 else "PUBREC"
        sender.publish("$delayed/60/t", "1")
        world.transient("q").publish("$delayed/060/t", "2")
        sender.publish("$delayed/61/t", "other delay")
        sender.publish("$delayed/60/u", "other topic")
        sender.publish("$delayed/60/t", "", qos, 1)
        assert sender.received() == [f"{word} #1"]
        sender.send(Pubrel(1))
        sender.packets()
        sender.publish("$delayed/60/t", "", qos, 1)
        assert sender.received() == [f"{word} #1 0x10"]
        world.advance(100_000)
        assert receiver.received() == ["PUBLISH u other topic q0", "PUBLISH t other delay q0"]

    def test_what_was_published_is_not_there_to_cancel(self) -> None:
        world = World()
        sender = world.transient("p")
        sender.publish("$delayed/1/t", "m")
        world.advance(1_000)
        sender.publish("$delayed/1/t", "", 1, 1)
        sender.publish("$delayed/0/t", "", 1, 2)
        assert sender.received() == ["PUBACK #1 0x10", "PUBACK #2 0x10"]

    def test_before_5_0_the_answer_is_the_same(self) -> None:
        world = World()
        sender = world.transient("p", 4)
        sender.publish("$delayed/1/t", "", 1, 1)
        assert sender.received() == ["PUBACK #1"]

    @pytest.mark.parametrize("survives", [False, True])
    def test_the_answer_waits_until_it_cannot_come_back(self, survives: bool) -> None:
        """Another client cancels once more, before the first is durable: its answer waits too."""
        world = World()
        world.session("s", "t", 1)
        first, second = world.transient("p"), world.transient("q")
        first.publish("$delayed/60/t", "m", 1, 1)
        first.packets()
        world.disk.hold()
        first.publish("$delayed/60/t", "", 1, 2)
        second.publish("$delayed/60/t", "", 1, 1)
        assert first.received() == second.received() == []
        if survives:
            world.disk.sync()
            assert first.received() == ["PUBACK #2"]
            assert second.received() == ["PUBACK #1 0x10"]
        world.crash()
        world.disk.release()
        world.restart(after_ms=100_000)
        expected = [] if survives else ["PUBLISH t m q1 #1"]
        assert world.hello("s").received() == expected

    def test_it_may_come_and_go_in_one_commit(self) -> None:
        world = World()
        world.session("s", "t", 1)
        sender = world.transient("p")
        sender.push(
            Publish("$delayed/60/t", b"m", 1, packet_id=1),
            Publish("$delayed/60/t", b"", 1, packet_id=2),
            Publish("$delayed/60/t", b"again", 1, packet_id=3),
        )
        world.run()
        assert sender.received() == ["PUBACK #1", "PUBACK #2", "PUBACK #3"]
        world.crash()
        world.restart(after_ms=100_000)
        assert world.hello("s").received() == ["PUBLISH t again q1 #1"]

    def test_what_was_cancelled_leaves_nothing_behind(self) -> None:
        world = World()
        sender = world.transient("p")
        for _ in range(10 * STALE_MAX):
            sender.push(Publish("$delayed/60/t", b"m"), Publish("$delayed/60/t", b""))
        world.run()
        delayed = world.broker.delayed
        assert (delayed.count, delayed.bytes_waiting) == (0, 0)
        assert len(delayed._heap) <= STALE_MAX
        world.advance(60_000)
        assert world.broker.next_deadline_ms == -1


class TestRefusal:
    @pytest.mark.spec("MQTT5-4.3.3-9")
    @pytest.mark.parametrize("payload", ["m", ""])
    @pytest.mark.parametrize("topic", MALFORMED)
    def test_a_malformed_address(self, topic: str, payload: str) -> None:
        world = World()
        sender = world.transient("p")
        sender.publish(topic, payload, 1, 1)
        sender.publish(topic, payload, 2, 2)
        sender.publish(topic, payload, 2, 2)  # the identifier is free again
        assert sender.received() == ["PUBACK #1 0x90", "PUBREC #2 0x90", "PUBREC #2 0x90"]
        sender.publish(topic, payload)
        (dropped,) = [event for event in world.events if event.level == WARNING]
        assert "PUBLISH dropped" in dropped.text and dropped.client_id == "p"
        assert world.broker.counters.refused == 4
        old = world.transient("old", 4)
        old.publish(topic, payload, 1, 1)
        assert not old.is_open
        assert world.broker.delayed.count == 0

    def test_too_many(self) -> None:
        world = World(Limits(delayed_messages_max=2))
        receiver = subscriber(world)
        sender = world.transient("p")
        for packet_id in (1, 2, 3):
            sender.publish("$delayed/60/t", f"{packet_id}", 1, packet_id)
        sender.publish("$delayed/60/t", "4", 2, 4)
        sender.publish("$delayed/0/t", "at once", 1, 5)
        assert sender.received() == [
            "PUBACK #1",
            "PUBACK #2",
            "PUBACK #3 0x97",
            "PUBREC #4 0x97",
            "PUBACK #5",
        ]
        world.advance(60_000)
        payloads = [packet.payload for packet in receiver.publishes()]
        assert payloads == [b"at once", b"1", b"2"]
        sender.publish("$delayed/60/t", "6", 1, 6)
        assert sender.received() == ["PUBACK #6"]

    def test_too_many_bytes(self) -> None:
        world = World(Limits(delayed_bytes_max=100))
        sender = world.transient("p")
        # Each with the topic "t" and the publisher "p".
        sender.publish("$delayed/60/t", "x" * 98, 1, 1)
        sender.publish("$delayed/60/t", "", 1, 2)
        sender.publish("$delayed/60/t", "x" * 49, 1, 3)
        sender.publish("$delayed/60/t", "x" * 48, 1, 4)
        sender.publish("$delayed/60/t", "x" * 47, 1, 5)
        assert sender.received() == [
            "PUBACK #1",
            "PUBACK #2",
            "PUBACK #3",
            "PUBACK #4 0x97",
            "PUBACK #5",
        ]

    def test_what_a_message_takes_beside_its_payload_counts(self) -> None:
        """A packet of a few bytes each may bring many User Properties, or a long identifier."""
        world = World(Limits(delayed_bytes_max=10_000))
        properties = Properties()
        properties.user_properties = [("", "")] * 100
        sender = world.transient("p")
        sender.publish("$delayed/60/t", "m", 1, 1, properties=properties)
        named = world.transient("p" * 10_000)
        named.publish("$delayed/60/t", "m", 1, 1)
        assert sender.received() == named.received() == ["PUBACK #1 0x97"]

    def test_what_waits_stays_when_the_bounds_are_lowered(self) -> None:
        world = World()
        world.session("s", "t", 1)
        sender = world.transient("p")
        for packet_id in (1, 2, 3):
            sender.publish("$delayed/60/t", f"{packet_id}", 1, packet_id)
        world.crash()
        world.limits = Limits(delayed_messages_max=1, delayed_bytes_max=1, delayed_seconds_max=60)
        world.restart()
        sender = world.transient("p")
        sender.publish("$delayed/60/t", "4", 1, 4)
        sender.publish("$delayed/61/t", "5", 1, 5)
        assert sender.received() == ["PUBACK #4 0x97", "PUBACK #5 0x90"]
        world.advance(60_000)
        assert len(world.hello("s").publishes()) == 3


class TestWill:
    def test_a_will_is_delayed_from_its_publication(self) -> None:
        world = World()
        world.session("s", "t", 1)
        properties = Properties()
        properties.will_delay_interval = 10
        properties.message_expiry_interval = 5
        will = Will("$delayed/60/t", b"gone", 1, properties=properties)
        world.hello("c", will=will).cut()
        world.advance(69_999)
        assert world.broker.delayed.count == 1
        world.crash()
        world.restart()
        world.advance(1)
        (found,) = world.hello("s").publishes()
        assert (found.topic, found.payload, found.qos) == ("t", b"gone", 1)
        assert found.properties is not None
        assert found.properties.message_expiry_interval == 5

    def test_a_will_without_delay_and_one_that_cancels(self) -> None:
        world = World()
        receiver = subscriber(world)
        world.hello("c", will=Will("$delayed/0/t", b"gone", 1)).cut()
        assert receiver.received() == ["PUBLISH t gone q1 #1"]
        world.transient("p").publish("$delayed/60/t", "m")
        world.hello("d", will=Will("$delayed/60/t", b"", 1)).cut()
        assert world.broker.delayed.count == 0

    @pytest.mark.parametrize("topic", ["$delayed/60", "$delayed/x/t", "$delayed/31536001/t"])
    def test_a_malformed_address_is_refused_at_connect(self, topic: str) -> None:
        world = World()
        client = world.connect("c", will=Will(topic, b"gone"))
        (connack,) = client.packets()
        assert isinstance(connack, Connack) and connack.reason_code == 0x90
        assert not client.is_open
        old = world.connect("c", version=4, clean=True, will=Will(topic, b"gone"))
        assert not old.is_open
        assert world.broker.sessions.find("c") is None

    def test_a_will_that_finds_no_room_is_told_to_the_operator(self) -> None:
        world = World(Limits(delayed_messages_max=0))
        world.hello("c", will=Will("$delayed/60/t", b"gone")).cut()
        (event,) = [event for event in world.events if "will" in event.text]
        assert event.client_id == "c"
        assert "at most 0 delayed messages" in event.text

    @pytest.mark.parametrize("survives", [False, True])
    def test_it_goes_from_the_session_when_it_is_delayed(self, survives: bool) -> None:
        world = World()
        world.session("s", "t", 1)
        client = world.hello("c", will=Will("$delayed/60/t", b"gone", 1))
        world.disk.hold()
        client.cut()
        world.crash(commit_survives=survives)
        world.disk.release()
        world.restart()
        world.advance(60_000)
        assert [packet.payload for packet in world.hello("s").publishes()] == [b"gone"]


class TestBounds:
    def test_many_that_are_due_at_once_share_the_batches_with_others(self) -> None:
        world = World()
        world.session("s", "t", 1)
        sender = world.transient("p")
        count = 2 * DELAYED_DUE_MAX + 100
        for first in range(0, count, 1000):
            numbers = range(first, min(first + 1000, count))
            sender.push(
                *[Publish("$delayed/1/t", b"%d" % n, 1, packet_id=n % 1000 + 1) for n in numbers]
            )
            world.run()
        world.disk.hold()
        world.now_ms += 2_000
        world.run()
        first_batch = world.disk.under_way
        assert first_batch is not None
        assert len(first_batch.entries) == len(first_batch.delayed_removed) == DELAYED_DUE_MAX
        for _ in range(5):
            world.now_ms += 1
            world.run()
        assert world.broker.delayed.count == count - 2 * DELAYED_DUE_MAX
        world.disk.release()
        world.advance(10)
        assert world.broker.delayed.count == 0
        receiver = world.hello("s")
        assert len(receiver.publishes()) > 0

    def test_so_do_large_ones(self) -> None:
        world = World()
        world.session("s", "t", 1)
        sender = world.transient("p")
        payload = b"x" * (DELAYED_DUE_BYTES_MAX // 8)
        for packet_id in range(1, 21):
            sender.send(Publish("$delayed/1/t", payload, 1, packet_id=packet_id))
        world.disk.hold()
        world.now_ms += 2_000
        world.run()
        assert world.disk.under_way is not None
        assert len(world.disk.under_way.entries) == 8
        world.disk.release()
        world.advance(10)
        assert world.broker.delayed.count == 0


steps = st.one_of(
    st.tuples(st.just("publish"), st.integers(0, 4), st.sampled_from("ab")),
    st.tuples(st.just("cancel"), st.integers(0, 4), st.sampled_from("ab")),
    st.tuples(st.just("advance"), st.integers(0, 3_000), st.just("")),
    st.tuples(st.just("crash"), st.integers(0, 3_000), st.just("")),
)


@settings(derandomize=True, deadline=None, database=None, max_examples=60)
@given(st.lists(steps, max_size=25))
def test_it_does_what_a_sorted_list_does(taken: list[tuple[str, int, str]]) -> None:
    world = World()
    world.session("s", "+", 1)
    waiting: list[tuple[int, int, int, str]] = []  # due, number, seconds, topic
    expected: list[tuple[str, bytes]] = []
    sender = world.transient("p")
    for number, (kind, value, topic) in enumerate(taken, 1):
        if kind == "publish":
            sender.publish(f"$delayed/{value}/{topic}", f"{number}", 1, number)
            assert sender.received() == [f"PUBACK #{number}"]
            waiting.append((world.now_ms + value * 1000, number, value, topic))
        elif kind == "cancel":
            left = [item for item in waiting if item[2:] != (value, topic)]
            sender.publish(f"$delayed/{value}/{topic}", "", 1, number)
            code = "" if len(left) < len(waiting) else " 0x10"
            assert sender.received() == [f"PUBACK #{number}{code}"]
            waiting = left
        elif kind == "advance":
            world.advance(value)
        else:
            world.crash()
            world.restart(after_ms=value)
            sender = world.transient("p")
        waiting.sort()
        while waiting and waiting[0][0] <= world.now_ms:
            _, published, _, target = waiting.pop(0)
            expected.append((target, b"%d" % published))
        assert world.broker.delayed.count == len(waiting)
    got = [(packet.topic, packet.payload) for packet in world.hello("s").publishes()]
    assert got == expected


def _expiring(expiry_s: int) -> Properties:
    properties = Properties()
    properties.message_expiry_interval = expiry_s
    return properties
