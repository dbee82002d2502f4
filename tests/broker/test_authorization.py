"""What clients with permissions may publish, subscribe to and are given."""

import pytest

from holdfast.broker.authorization import TELL_INTERVAL_MS
from holdfast.broker.groups import WITHHELD_MAX
from holdfast.broker.limits import Limits
from holdfast.broker.shared_group import SHARED_STRATEGIES
from holdfast.protocol.packets import (
    Auth,
    Connack,
    Connect,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    SubscriptionRequest,
    Will,
)
from tests.broker.world import Client, World
from tests.support.granting import Granting
from tests.support.properties import properties


def new_world(rules: dict[str, str], **limits: object) -> World:
    return World(Limits(**limits), authenticator=Granting(rules))  # type: ignore[arg-type]  # handed through


def set_rules(world: World, client_id: str, rules: str) -> None:
    """Other permissions for a client, as after a reload of a file."""
    assert isinstance(world.authenticator, Granting)
    world.authenticator.rules[client_id] = rules
    world.broker.begin_turn(world.now_ms)
    world.broker.renew_identities()
    world.run()


def world_rules(world: World) -> dict[str, str]:
    """The rules as they are now."""
    assert isinstance(world.authenticator, Granting)
    return dict(world.authenticator.rules)


def payloads(client: Client) -> list[str]:
    return [packet.payload.decode() for packet in client.publishes()]


def acknowledged(client: Client) -> list[str]:
    """The payloads that come, each acknowledged, until no more do."""
    got: list[str] = []
    while found := client.publishes():
        got += [packet.payload.decode() for packet in found]
        client.send(*(Puback(packet.packet_id) for packet in found))
    return got


def told(world: World) -> list[str]:
    return [event.text for event in world.events if "denied" in event.text]


# Publishing.


@pytest.mark.parametrize(("qos", "answer"), [(1, "PUBACK #7 0x87"), (2, "PUBREC #7 0x87")])
def test_a_denied_publish_is_answered_with_0x87(qos: int, answer: str) -> None:
    world = new_world({"c": "allow publish mine/#"})
    watcher = world.transient("watcher")
    watcher.subscribe("#", 2)
    watcher.packets()
    client = world.hello("c")
    client.publish("other", "x", qos, 7)
    assert client.received() == [answer]
    assert watcher.received() == []
    client.publish("mine/a", "y", qos, 7)  # the identifier is free again
    assert client.received() == [f"{answer[:6]} #7"]
    assert payloads(watcher) == ["y"]
    assert world.broker.counters.denied_publishes == 1


def test_a_denied_publish_at_qos_0_is_dropped() -> None:
    world = new_world({"c": "allow publish mine/#"})
    watcher = world.transient("watcher")
    watcher.subscribe("#", 2)
    watcher.packets()
    client = world.hello("c")
    client.publish("other", "x")
    assert client.received() == [] and client.is_open
    assert watcher.received() == []


@pytest.mark.spec("MQTT311-3.3.5-2")
def test_a_denied_publish_is_acknowledged_and_dropped_before_5_0() -> None:
    world = new_world({"c": "allow publish mine/#"})
    watcher = world.transient("watcher")
    watcher.subscribe("#", 2)
    watcher.packets()
    client = world.hello("c", version=4)
    client.publish("other", "x", 1, 1)
    assert client.received() == ["PUBACK #1"]
    for _ in range(2):
        client.publish("other", "x", 2, 2)
        assert client.received() == ["PUBREC #2"]
    client.send(Pubrel(2))
    assert client.received() == ["PUBCOMP #2"]
    client.publish("mine/a", "y", 2, 2)
    client.send(Pubrel(2))
    assert client.received() == ["PUBREC #2", "PUBCOMP #2"]
    assert payloads(watcher) == ["y"]


@pytest.mark.spec("MQTT311-3.3.5-2")
@pytest.mark.parametrize("qos", [1, 2])
def test_a_denied_publish_ends_the_connection_before_5_0_if_set_so(qos: int) -> None:
    world = new_world({"c": "allow publish mine/#"}, ends_denied_before_v5=True)
    client = world.hello("c", version=4)
    client.publish("other", "x")
    assert client.is_open
    client.publish("other", "x", qos, 1)
    assert client.received() == [] and not client.is_open


def test_a_retained_publish_needs_the_right_to_retain() -> None:
    world = new_world({"c": "deny retain #; allow publish #"})
    client = world.hello("c")
    client.publish("a", "x", 1, 1, retain=True)
    client.publish("a", "x", 1, 2)
    client.publish("a", "", 1, 3, retain=True)
    assert client.received() == ["PUBACK #1 0x87", "PUBACK #2 0x10", "PUBACK #3 0x87"]
    assert world.broker._router.retained.count == 0


def test_a_topic_alias_is_judged_by_the_topic_it_stands_for() -> None:
    world = new_world({"c": "deny publish secret; allow publish #"})
    client = world.hello("c")
    for packet_id, (topic, answer) in enumerate(
        [("secret", "0x87"), ("", "0x87"), ("open", "0x10"), ("", "0x10")], start=1
    ):
        client.publish(topic, "x", 1, packet_id, properties=properties(topic_alias=1))
        assert client.received() == [f"PUBACK #{packet_id} {answer}"]


def test_a_delayed_publish_is_judged_by_the_topic_inside() -> None:
    world = new_world({"c": "allow publish mine/#"})
    watcher = world.transient("watcher")
    watcher.subscribe("#", 0)
    watcher.packets()
    client = world.hello("c")
    client.publish("$delayed/5/mine/a", "x", 1, 1)
    client.publish("$delayed/5/other", "y", 1, 2)
    client.publish("$delayed/5/other", "", 1, 3)  # takes back what waits
    assert client.received() == ["PUBACK #1", "PUBACK #2 0x87", "PUBACK #3 0x87"]
    set_rules(world, "c", "")
    world.advance(5000)
    assert payloads(watcher) == ["x"]  # it was accepted when it was allowed
    client.publish("$delayed/5/mine/a", "z", 1, 4)
    assert client.received() == ["PUBACK #4 0x87"]


@pytest.mark.parametrize("topic", ["$delayed", "$delayed/", "$delayed/5", "$delayed/5/", "$SYS/a"])
def test_special_topics_let_nobody_around_the_rules(topic: str) -> None:
    world = new_world({"c": "allow publish #; allow publish $delayed/#; allow publish $SYS/#"})
    client = world.hello("c")
    client.publish(topic, "x", 1, 1)
    (answer,) = client.packets()
    assert isinstance(answer, Puback) and answer.reason_code >= 0x80


def test_what_is_denied_is_told_once_in_a_time() -> None:
    world = new_world({"c": "deny publish a/+; allow publish a/#"})
    client = world.hello("c")
    for number in range(50):
        client.publish(f"a/{number}", "x")
    client.subscribe("b", 0)
    assert told(world) == ["denied: publish to 'a/0', by rule 1"]
    world.advance(TELL_INTERVAL_MS)
    client.subscribe("b" * 1000, 0)
    (line,) = told(world)[1:]
    assert line.startswith("denied: subscribe to 'bbb") and len(line) < 250
    assert line.endswith("…', no rule allows it; 50 more since the last such line")


def test_what_is_denied_is_told_with_the_user_who_was_let_in() -> None:
    world = new_world({"c": ""})
    client = world.dial()
    client.send(Connect("c", 5, True, 0, None, "ada", b"x", None))
    client.publish("a", "x")
    (event,) = [event for event in world.events if "denied" in event.text]
    assert (event.client_id, event.user_name) == ("c", "ada")


# Wills.


@pytest.mark.spec("MQTT5-3.1.4-2")
@pytest.mark.parametrize("version", [4, 5])
def test_a_will_that_is_not_allowed_is_refused_at_connect(version: int) -> None:
    world = new_world({"c": "deny retain #; allow publish mine/#"})
    for topic, retain in (("other", False), ("mine/a", True), ("$delayed/1/other", False)):
        client = world.connect("c", version=version, will=Will(topic, b"x", 1, retain))
        assert client.received() == ["CONNACK 0x87" if version == 5 else "CONNACK 0x05"]
        assert not client.is_open
    assert world.broker.sessions.count == 0
    client = world.connect("c", version=version, will=Will("mine/a", b"x", 1, False))
    assert client.received() == ["CONNACK 0x00"]


def test_a_will_that_is_allowed_no_longer_is_never_published() -> None:
    world = new_world({"c": "allow publish mine/#"})
    watcher = world.transient("watcher")
    watcher.subscribe("#", 0)
    watcher.packets()
    client = world.hello("c", will=Will("mine/a", b"x", 1, False))
    set_rules(world, "c", "allow publish other")
    set_rules(world, "c", "allow publish #")
    world.crash()
    world.restart()
    watcher = world.transient("watcher")
    watcher.subscribe("#", 0)
    watcher.packets()
    world.advance(10_000)
    client = world.hello("c")
    client.cut()
    assert payloads(watcher) == []


def test_a_will_that_stays_allowed_is_published() -> None:
    world = new_world({"c": "allow publish mine/#"})
    watcher = world.transient("watcher")
    watcher.subscribe("#", 0)
    watcher.packets()
    client = world.hello("c", will=Will("mine/a", b"x", 1, False))
    set_rules(world, "c", "allow publish mine/a; deny all #")
    client.cut()
    assert payloads(watcher) == ["x"]


# Subscribing.


@pytest.mark.parametrize("version", [4, 5])
def test_a_filter_wider_than_what_is_allowed_is_refused(version: int) -> None:
    world = new_world({"c": "deny subscribe a/secret; allow subscribe a/#"})
    client = world.hello("c", version=version)
    filters = ["a/b", "a/+", "a/secret", "#", "$share/g/a/#", "$share/g/a/b", "$SYS/#"]
    client.send(Subscribe(1, [SubscriptionRequest(one, 1) for one in filters]))
    no = "0x87" if version == 5 else "0x80"
    assert client.received() == [f"SUBACK #1 0x01 {no} {no} {no} {no} 0x01 {no}"]
    assert world.broker.counters.denied_subscriptions == 5


def test_a_filter_wider_than_what_is_allowed_is_narrowed_if_set_so() -> None:
    world = new_world(
        {"c": "deny subscribe a/secret; allow subscribe a/#"}, narrows_subscriptions=True
    )
    client = world.hello("c")
    filters = ["#", "b/#", "a/secret", "$share/g/a/#", "$share/g/a/b"]
    client.send(Subscribe(1, [SubscriptionRequest(one, 1) for one in filters]))
    assert client.received() == ["SUBACK #1 0x01 0x87 0x87 0x87 0x01"]
    publisher = world.hello("p")
    for qos in (0, 1):
        for topic in ("a/x", "a/secret", "b"):
            publisher.publish(topic, f"{topic} {qos}", qos, qos)
    assert payloads(client) == ["a/x 0", "a/x 1"]
    assert world.broker.counters.denied_deliveries == 4


@pytest.mark.parametrize("qos", [0, 1])
def test_retained_messages_are_for_those_that_may_have_them(qos: int) -> None:
    world = new_world(
        {
            "c": "deny receive a/secret; allow subscribe a/#",
            "t": "deny receive a/secret; allow all #",
        }
    )
    publisher = world.hello("p")
    publisher.publish("a/secret", "s", 1, 1, retain=True)
    publisher.publish("a/open", "o", 1, 2, retain=True)
    for client in (world.hello("c"), world.transient("t")):
        client.subscribe("a/#", qos)
        assert payloads(client) == ["o"]


def test_retained_messages_that_wait_are_judged_when_they_go() -> None:
    """Of a session that is not kept, which holds them in memory, and of one that reads them."""
    world = new_world({"t": "allow all #", "c": "allow all #"})
    publisher = world.hello("p")
    for topic in "abcd":
        publisher.publish(topic, topic, 1, 1, retain=True)
    for client_id, is_kept in (("t", False), ("c", True)):
        client = world.hello(
            client_id, clean=not is_kept, expiry_s=1000 if is_kept else 0, receive_maximum=1
        )
        client.subscribe("+", 1)
        found = client.publishes()
        set_rules(world, client_id, "deny receive c; allow all #")
        got: list[str] = []
        while found:
            (packet,) = found
            got.append(packet.topic)
            client.send(Puback(packet.packet_id))
            found = client.publishes()
        assert got == ["a", "b", "d"]


def test_sys_topics_are_for_those_that_may_have_them() -> None:
    world = new_world(
        {"c": "allow all #", "o": "allow subscribe $SYS/broker/uptime"}, sys_interval_ms=1000
    )
    client, operator = world.transient("c"), world.transient("o")
    client.subscribe("$SYS/#", 0)
    operator.subscribe("$SYS/broker/uptime", 0)
    world.advance(3000)
    assert client.received() == ["SUBACK #1 0x87"]
    assert {packet.topic for packet in operator.publishes()} == {"$SYS/broker/uptime"}


# Renewal.


def test_a_renewal_takes_what_is_not_allowed_any_longer_and_nothing_else() -> None:
    world = new_world({"c": "allow all #"})
    publisher = world.hello("p")
    client = world.hello("c")
    client.subscribe("a/#", 1)
    client.subscribe("b", 1, 2)
    client.packets()
    set_rules(world, "c", "allow all b; allow subscribe a/mine")
    for topic in ("a/mine", "a/x", "b"):
        publisher.publish(topic, topic, 1, 1)
    assert payloads(client) == ["a/mine", "b"]
    client.publish("a/mine", "x", 1, 1)
    assert "PUBACK #1 0x87" in client.received()
    set_rules(world, "c", "allow all #")
    publisher.publish("a/x", "later", 1, 1)
    assert payloads(client) == ["later"]  # its subscription is as it was; the other is gone


@pytest.mark.parametrize("qos", [1, 2])
def test_what_is_in_flight_at_a_renewal_is_completed(qos: int) -> None:
    world = new_world({"c": "allow all #"})
    publisher = world.hello("p")
    client = world.hello("c")
    client.subscribe("a", qos)
    client.packets()
    publisher.publish("a", "x", qos, 1)
    (packet,) = client.publishes()
    set_rules(world, "c", "deny all #")
    client.send(Puback(packet.packet_id) if qos == 1 else Pubrec(packet.packet_id))
    if qos == 2:
        assert client.received() == [f"PUBREL #{packet.packet_id}"]
        client.send(Pubcomp(packet.packet_id))
    assert client.is_open
    session = world.broker.sessions.find("c")
    assert session is not None and not session.sender.in_flight


@pytest.mark.parametrize("qos", [1, 2])
def test_what_is_in_flight_is_not_sent_again_to_one_that_may_not_have_it(qos: int) -> None:
    world = new_world({"c": "allow all #"})
    publisher = world.hello("p")
    client = world.hello("c")
    client.subscribe("+", qos)
    client.packets()
    publisher.publish("a", "x", qos, 1)
    publisher.publish("b", "y", qos, 2)
    client.cut()
    set_rules(world, "c", "deny receive a; allow all #")
    client = world.hello("c")
    got = client.packets()
    assert [packet.topic for packet in got if isinstance(packet, Publish)] == ["b"]
    released = [packet for packet in got if isinstance(packet, Pubrel)]
    assert len(released) == (1 if qos == 2 else 0)
    for packet in released:
        client.send(Pubcomp(packet.packet_id))
    session = world.broker.sessions.find("c")
    assert session is not None and len(session.sender.in_flight) == 1


@pytest.mark.parametrize("ending", ["stop", "crash"])
def test_an_absent_session_is_judged_by_the_permissions_of_its_return(ending: str) -> None:
    world = new_world({"c": "allow all #"})
    world.session("c", "a/#", 1)
    publisher = world.hello("p")
    for topic in ("a/1", "a/2", "a/3"):
        publisher.publish(topic, topic, 1, 1)
    world.end(ending)
    world.restart()
    set_rules(world, "c", "deny receive a/2; allow all #")
    client = world.hello("c")
    got = client.publishes()
    assert [packet.topic for packet in got] == ["a/1", "a/3"]
    for packet in got:
        client.send(Puback(packet.packet_id))
    set_rules(world, "c", "allow all #")
    world.crash()
    world.restart()
    client = world.hello("c")
    assert payloads(client) == []  # what was passed over is gone for this session
    assert world.broker.trim_point() == world.broker._commits.next_lsn


@pytest.mark.parametrize("from_store", [False, True])
def test_a_session_behind_is_judged_when_it_reads(from_store: bool) -> None:
    world = new_world({"c": "allow all #"})
    publisher = world.hello("p")
    client = world.hello("c", receive_maximum=1)
    client.subscribe("+/#", 1)
    client.packets()
    for number in range(6):
        publisher.publish("a" if number % 2 else "b", str(number), 1, 1)
    if from_store:
        client.cut()
        world.stop()
        world.restart()
        client = world.hello("c", receive_maximum=1)
    found = client.publishes()
    got: list[str] = []
    set_rules(world, "c", "deny all a; allow all #")
    while found:
        (packet,) = found
        got.append(packet.payload.decode())
        client.send(Puback(packet.packet_id))
        found = client.publishes()
    assert got == ["0", "2", "4"]
    assert world.broker.sessions.count_behind() == 0


def test_overlapping_subscriptions_bring_what_is_allowed_once() -> None:
    world = new_world({"c": "deny receive a/x; allow all a/#"})
    publisher = world.hello("p")
    client = world.hello("c")
    client.subscribe("a/+", 0, identifier=1)
    client.subscribe("a/#", 1, identifier=2)
    client.packets()
    publisher.publish("a/x", "no", 1, 1)
    publisher.publish("a/y", "yes", 1, 1)
    (packet,) = client.publishes()
    assert packet.payload == b"yes" and packet.properties is not None
    assert sorted(packet.properties.subscription_identifiers or []) == [1, 2]


def test_an_answer_to_an_earlier_renewal_counts_no_longer() -> None:
    """Threads answer in any order: what the newest reload says holds."""
    world = new_world({"c": "allow publish a"})
    client = world.hello("c")
    world.are_auth_steps_held = True
    set_rules(world, "c", "allow publish b")
    (earlier,) = world.auth_steps
    stale = Granting(world_rules(world)).step(earlier.request)
    world.auth_steps = []
    set_rules(world, "c", "allow publish c")
    world.answer_auth_steps()
    world.broker.auth_done(earlier, stale)
    for packet_id, topic in enumerate("abc", start=1):
        client.publish(topic, "x", 1, packet_id)
    assert client.received() == ["PUBACK #1 0x87", "PUBACK #2 0x87", "PUBACK #3 0x10"]


def test_a_login_that_a_reload_overtakes_is_judged_anew() -> None:
    world = new_world({"c": "allow publish a"})
    world.are_auth_steps_held = True
    client = world.connect("c")
    (step,) = world.auth_steps
    reply = Granting(world_rules(world)).step(step.request)
    world.auth_steps = []
    set_rules(world, "c", "allow publish b")
    world.broker.auth_done(step, reply)
    world.run()
    world.answer_auth_steps()
    client.publish("a", "x", 1, 1)
    assert client.received() == ["CONNACK 0x00", "PUBACK #1 0x87"]


def test_a_renewal_that_refuses_ends_the_connection() -> None:
    world = new_world({"c": "allow all #"})
    client = world.hello("c")
    assert isinstance(world.authenticator, Granting)
    world.authenticator.refused.add("c")
    set_rules(world, "c", "allow all #")
    assert client.received() == ["DISCONNECT 0x87"]


def test_another_authentication_brings_other_permissions() -> None:
    world = new_world({"c": "allow publish a"})
    said = properties(authentication_method="ANY")
    client = world.hello("c", properties=said)
    assert isinstance(world.authenticator, Granting)
    world.authenticator.rules["c"] = "allow publish b"
    client.publish("b", "x", 1, 1)
    client.send(Auth(0x19, properties(authentication_method="ANY")))
    client.publish("b", "x", 1, 2)
    assert client.received() == ["PUBACK #1 0x87", "AUTH 0x00", "PUBACK #2 0x10"]


def test_a_client_without_identifier_is_judged_by_the_one_it_gets() -> None:
    asked: list[str] = []

    class Asking(Granting):
        def step(self, request):  # type: ignore[no-untyped-def]  # as its base
            asked.append(request.client_id)
            return super().step(request)

    world = World(authenticator=Asking())
    first = world.connect("", expiry_s=0)
    second = world.connect("", version=4, clean=True)
    assert second.received() == ["CONNACK 0x00"]
    (connack,) = first.packets()
    assert isinstance(connack, Connack) and connack.properties is not None
    assert connack.properties.assigned_client_identifier == asked[0]
    assert "" != asked[0] != asked[1] != ""


# Shared groups.

Strategies = pytest.mark.parametrize("strategy", range(len(SHARED_STRATEGIES)))


@Strategies
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_member_that_lost_the_right_is_given_nothing(strategy: int, qos: int) -> None:
    world = new_world({"m1": "allow all #", "m2": "allow all #"}, shared_strategy=strategy)
    publisher = world.hello("p")
    members = [world.hello("m1"), world.hello("m2")]
    for member in members:
        member.subscribe("$share/g/#", qos)
        member.packets()
    set_rules(world, "m1", "deny receive secret/#; allow all #")
    for number in range(10):
        publisher.publish(f"secret/{number}", str(number), qos, min(qos, 1))
        if qos == 2:
            publisher.send(Pubrel(1))
    assert payloads(members[0]) == []
    assert payloads(members[1]) == [str(number) for number in range(10)]


@Strategies
def test_a_group_waits_while_nobody_has_the_right(strategy: int) -> None:
    world = new_world({"m1": "allow all #", "m2": "allow all #"}, shared_strategy=strategy)
    publisher = world.hello("p")
    members = [world.hello("m1"), world.hello("m2")]
    for member in members:
        member.subscribe("$share/g/#", 1)
        member.packets()
    set_rules(world, "m1", "deny receive #; allow all #")
    set_rules(world, "m2", "deny receive #; allow all #")
    for number in range(5):
        publisher.publish("a", str(number), 1, 1)
    assert payloads(members[0]) == payloads(members[1]) == []
    set_rules(world, "m2", "allow all #")
    assert payloads(members[0]) == []
    assert payloads(members[1]) == [str(number) for number in range(5)]


@pytest.mark.parametrize("ending", ["stop", "crash"])
def test_what_a_group_waits_with_survives(ending: str) -> None:
    world = new_world({"m1": "allow all #"})
    publisher = world.hello("p")
    member = world.hello("m1")
    member.subscribe("$share/g/#", 1)
    set_rules(world, "m1", "deny receive #; allow all #")
    for number in range(5):
        publisher.publish("a", str(number), 1, 1)
    world.end(ending)
    world.restart()
    member = world.hello("m1")
    assert payloads(member) == []
    set_rules(world, "m1", "allow all #")
    assert payloads(member) == [str(number) for number in range(5)]


def test_what_a_member_may_not_be_sent_again_goes_to_another() -> None:
    world = new_world({"m1": "allow all #", "m2": "allow all #"})
    publisher = world.hello("p")
    first = world.hello("m1")
    first.subscribe("$share/g/#", 1)
    first.packets()
    publisher.publish("a", "x", 1, 1)
    first.cut()
    set_rules(world, "m1", "deny receive a; allow all #")
    first = world.hello("m1")
    assert payloads(first) == []
    second = world.hello("m2")
    second.subscribe("$share/g/#", 1)
    assert payloads(second) == ["x"]
    assert payloads(first) == []


@pytest.mark.parametrize("ending", ["none", "stop", "crash"])
def test_what_nobody_may_have_holds_up_nothing_else(ending: str) -> None:
    world = new_world({"m1": "allow all #", "m2": "allow all #"})
    publisher = world.hello("p")
    member = world.hello("m1")
    member.subscribe("$share/g/#", 1)
    member.packets()
    set_rules(world, "m1", "deny receive b; allow all #")
    got: list[str] = []
    for number, topic in enumerate("abab", start=1):
        publisher.publish(topic, f"{topic}{number}", 1, 1)
        got += acknowledged(member)
    assert got == ["a1", "a3"]
    world.advance(100)  # until what was acknowledged is durable
    if ending != "none":
        world.end(ending)
        world.restart()
        member = world.hello("m1")
        publisher = world.hello("p")
    publisher.publish("a", "a5", 1, 1)
    assert acknowledged(member) == ["a5"]
    other = world.hello("m2")
    other.subscribe("$share/g/#", 1)
    assert acknowledged(other) == ["b2", "b4"]
    assert acknowledged(member) == []
    world.advance(1000)
    assert world.broker.trim_point() == world.broker._commits.next_lsn


def test_a_group_waits_when_too_much_is_put_aside() -> None:
    world = new_world({"m1": "allow all #"})
    publisher = world.hello("p")
    member = world.hello("m1", receive_maximum=10)
    member.subscribe("$share/g/#", 1)
    member.packets()
    set_rules(world, "m1", "deny receive b; allow all #")
    for number in range(WITHHELD_MAX + 10):
        publisher.publish("b", str(number), 1, 1)
    publisher.publish("a", "a", 1, 1)
    assert acknowledged(member) == []
    group = world.broker._router.groups.find("$share/g/#")
    assert group is not None and len(group.withheld) == WITHHELD_MAX
    set_rules(world, "m1", "allow all #")
    assert acknowledged(member) == [*map(str, range(WITHHELD_MAX + 10)), "a"]
    assert group.withheld == []


@Strategies
def test_what_is_too_large_for_one_member_is_not_for_another_without_the_right(
    strategy: int,
) -> None:
    world = new_world(
        {"m1": "allow all #", "m2": "deny receive a; allow all #"}, shared_strategy=strategy
    )
    publisher = world.hello("p")
    first = world.hello("m1", maximum_packet_size=100)
    set_rules(world, "m2", "allow all #")
    second = world.hello("m2")
    for member in (first, second):
        member.subscribe("$share/g/#", 1)
    set_rules(world, "m2", "deny receive a; allow all #")
    publisher.publish("a", "x" * 200, 1, 1)
    publisher.publish("a", "y", 1, 2)
    assert payloads(first) == ["y"]
    assert payloads(second) == []


@Strategies
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_member_that_may_share_no_more_is_given_nothing(strategy: int, qos: int) -> None:
    world = new_world({"m1": "allow all #", "m2": "allow all #"}, shared_strategy=strategy)
    publisher = world.hello("p")
    members = [world.hello("m1"), world.hello("m2")]
    for member in members:
        member.subscribe("$share/g/#", qos)
        member.subscribe("a", 0)
        member.packets()
    set_rules(world, "m1", "deny share #; allow all #")
    for number in range(4):
        publisher.publish("a", str(number), qos, min(qos, 1))
        if qos == 2:
            publisher.send(Pubrel(1))
    # Its own subscription serves it still.
    assert payloads(members[0]) == [str(number) for number in range(4)]
    assert len(payloads(members[1])) == 8


@pytest.mark.parametrize("how", ["other", "itself"])
def test_what_a_member_may_share_no_more_is_not_sent_again(how: str) -> None:
    """The session may be another user's by then: what counts are the rules of its return."""
    world = new_world({"m1": "allow all #", "m2": "allow all #"})
    publisher = world.hello("p")
    first = world.hello("m1")
    first.subscribe("$share/g/#", 1)
    first.packets()
    publisher.publish("a", "x", 1, 1)
    first.cut()
    set_rules(world, "m1", "deny share #; allow all #")
    first = world.hello("m1")
    assert payloads(first) == []
    if how == "other":
        second = world.hello("m2")
        second.subscribe("$share/g/#", 1)
        assert payloads(second) == ["x"]
        assert payloads(first) == []
    else:
        set_rules(world, "m1", "allow all #")
        assert payloads(first) == ["x"]


@pytest.mark.parametrize("narrows", [False, True])
def test_judging_the_filters_of_one_subscribe_is_bounded(narrows: bool) -> None:
    """Each filter is compared with all rules: thousands of both would hold up everyone else."""
    rules = "; ".join(["allow publish x"] * 2000 + ["allow subscribe #"])
    world = new_world({"c": rules}, narrows_subscriptions=narrows)
    client = world.hello("c")
    requests = [SubscriptionRequest(f"$x/{number}", 0, False, False, 0) for number in range(2000)]
    client.send(Subscribe(1, requests, None))
    (suback,) = client.packets()
    assert isinstance(suback, Suback)
    codes = suback.reason_codes
    denied = codes.index(0x97)
    assert set(codes[:denied]) == {0x87} and set(codes[denied:]) == {0x97}
    assert 100 < denied < 1000
    client.subscribe("a", 0, 2)
    assert client.received() == ["SUBACK #2 0x00"]
