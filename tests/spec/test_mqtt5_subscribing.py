"""SUBSCRIBE and UNSUBSCRIBE: each is answered filter by filter, and does what its answer says.

Source: MQTT 5.0 §3.8 to §3.11.
"""

import pytest

from holdfast.protocol.packets import (
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Subscribe,
    SubscriptionRequest,
    Unsubscribe,
)
from tests.broker.world import World
from tests.spec.mqtt5 import subscribe, unsubscribe
from tests.support.properties import properties

VERSIONS = pytest.mark.parametrize("version", [4, 5], ids=["3.1.1", "5.0"])


def filters_of(world: World, client_id: str) -> set[str]:
    session = world.broker.sessions.find(client_id)
    return set() if session is None else set(session.subscriptions)


# SUBSCRIBE


@pytest.mark.spec("MQTT5-3.8.4-1", "MQTT5-3.8.4-2")
@VERSIONS
@pytest.mark.parametrize("packet_id", [1, 255, 256, 65_535])
def test_each_subscribe_has_its_own_suback(version: int, packet_id: int) -> None:
    """Known or new, accepted or refused: one answer each, under the identifier of the question."""
    client = World().hello("c", version=version)
    assert subscribe(client, packet_id, SubscriptionRequest("a", 1)) == [
        f"SUBACK #{packet_id} 0x01"
    ]
    assert subscribe(client, packet_id, SubscriptionRequest("a", 1)) == [
        f"SUBACK #{packet_id} 0x01"
    ]
    if version == 5:
        refused = subscribe(client, packet_id, SubscriptionRequest("a#", 1))
        assert refused == [f"SUBACK #{packet_id} 0x8F"]
    client.push(*(Subscribe(packet_id, [SubscriptionRequest(one, 0)]) for one in "xyz"))
    client.send()
    assert client.received() == [f"SUBACK #{packet_id} 0x00"] * 3


@pytest.mark.spec("MQTT5-3.8.4-6", "MQTT5-3.8.4-7", "MQTT5-3.9.3-1")
@pytest.mark.parametrize("clean", [True, False])
def test_a_suback_says_for_each_filter_in_its_place_what_became_of_it(clean: bool) -> None:
    world = World()
    client = world.transient("c") if clean else world.hello("c")
    requests = [
        SubscriptionRequest("two", 2),
        SubscriptionRequest("a/#/b", 1),
        SubscriptionRequest("none", 0),
        SubscriptionRequest("", 0),
        SubscriptionRequest("one", 1),
        SubscriptionRequest("two", 1),
        SubscriptionRequest("b+", 2),
    ]
    answer = subscribe(client, 9, *requests)
    assert answer == ["SUBACK #9 0x02 0x8F 0x00 0x8F 0x01 0x01 0x8F"]
    # And what it says is so: the QoS granted is the one that is sent, and no refused one counts.
    assert filters_of(world, "c") == {"one", "two", "none"}
    publisher = world.transient("p")
    for number, topic in enumerate(("one", "two", "none", "a/x/b"), 1):
        publisher.publish(topic, topic, 1, number)
    assert client.received() == [
        "PUBLISH one one q1 #1",
        "PUBLISH two two q1 #2",
        "PUBLISH none none q0",
    ]


@pytest.mark.spec("MQTT5-3.8.4-6", "MQTT5-3.9.3-1")
def test_thousands_of_filters_have_as_many_codes_in_their_order() -> None:
    client = World().transient("c")
    wanted = [number * 7 % 3 for number in range(5000)]
    requests = [SubscriptionRequest(f"t/{n}", qos) for n, qos in enumerate(wanted)]
    codes = "".join(f" 0x0{qos}" for qos in wanted)
    assert subscribe(client, 5, *requests) == [f"SUBACK #5{codes}"]


@pytest.mark.spec("MQTT5-3.8.4-7", "MQTT5-3.8.4-8")
@pytest.mark.parametrize("granted", [0, 1, 2])
@pytest.mark.parametrize("published", [0, 1, 2])
@pytest.mark.parametrize("how", ["live", "behind", "absent", "retained"])
def test_a_message_comes_at_the_lower_of_its_qos_and_the_one_granted(
    granted: int, published: int, how: str
) -> None:
    world = World()
    subscriber = world.hello("s", receive_maximum=1 if how == "behind" else None)
    publisher = world.transient("p")
    if how != "retained":
        subscriber.subscribe("t", granted)
        subscriber.subscribe("other", 1)
        assert subscriber.received()[0] == f"SUBACK #1 0x0{granted}"
    if how == "behind":
        publisher.publish("other", "fills the window", 1, 1)
        subscriber.packets()
    if how == "absent":
        subscriber.cut()
    publisher.publish("t", "m", published, 2 if published else 0, retain=how == "retained")
    if how == "behind" and min(granted, published) > 0:
        assert subscriber.packets() == []
        subscriber.send(Puback(1))
    if how == "absent":
        subscriber = world.hello("s")
    if how == "retained":
        subscriber.subscribe("t", granted)
    found = [packet.qos for packet in subscriber.publishes()]
    # A message of QoS 0 does not wait for an absent session.
    is_lost = how == "absent" and min(granted, published) == 0
    assert found == ([] if is_lost else [min(granted, published)])


@pytest.mark.spec("MQTT5-3.8.4-5")
@pytest.mark.parametrize("clean", [True, False])
def test_one_subscribe_of_many_filters_is_as_good_as_many_of_one(clean: bool) -> None:
    """The same filters, some of them twice and some refused, in one packet and one by one."""
    requests = [
        SubscriptionRequest("a/+", 1),
        SubscriptionRequest("a/b", 2, no_local=True),
        SubscriptionRequest("a/+", 0, retain_as_published=True),
        SubscriptionRequest("#/a", 1),
        SubscriptionRequest("r/#", 1, retain_handling=1),
        SubscriptionRequest("r/+", 2, retain_handling=2),
        SubscriptionRequest("a/b", 1),
    ]
    outcomes = []
    for is_together in (True, False):
        world = World()
        client = world.transient("c") if clean else world.hello("c")
        publisher = world.transient("p")
        publisher.publish("r/1", "retained", 2, 1, retain=True)
        if is_together:
            client.send(Subscribe(3, requests, properties(subscription_identifiers=[8])))
        else:
            for request in requests:
                client.send(Subscribe(3, [request], properties(subscription_identifiers=[8])))
        received = client.received()
        answers = [one.removeprefix("SUBACK #3 ") for one in received if one.startswith("SUBACK")]
        assert len(answers) == (1 if is_together else len(requests))
        publisher.publish("a/b", "m", 2, 2, retain=True)
        publisher.publish("a/c", "m", 2, 3, retain=True)
        messages = [one for one in received if one.startswith("PUBLISH")] + client.received()
        outcomes.append((" ".join(answers), messages, filters_of(world, "c")))
    assert outcomes[0] == outcomes[1]
    assert outcomes[0][0] == "0x01 0x02 0x00 0x8F 0x01 0x02 0x01"


# QoS, No Local, Retain As Published, Subscription Identifier
OPTIONS = [
    (qos, nl, rap, i) for qos in (0, 1, 2) for nl in (0, 1) for rap in (0, 1) for i in (0, 7)
]


@pytest.mark.spec("MQTT5-3.8.4-3")
@pytest.mark.parametrize("clean", [True, False])
def test_a_replaced_subscription_keeps_no_option_of_the_old_one(clean: bool) -> None:
    """Whatever the two have in common: seen by its own message and by that of another client."""
    world = World()
    client = world.transient("c") if clean else world.hello("c")
    publisher = world.transient("p")
    for before in OPTIONS:
        for after in OPTIONS:
            for qos, no_local, rap, identifier in (before, after):
                client.subscribe(
                    "t",
                    qos,
                    no_local=no_local == 1,
                    retain_as_published=rap == 1,
                    retain_handling=2,
                    identifier=identifier,
                )
            qos, no_local, rap, identifier = after
            client.packets()
            client.publish("t", "its own", 2, 1, retain=True)
            client.send(Pubrel(1))
            publisher.publish("t", "of another", 2, 1, retain=True)
            publisher.send(Pubrel(1))
            found = client.publishes()
            senders = [b"of another"] if no_local else [b"its own", b"of another"]
            assert [one.payload for one in found] == senders, (before, after)
            for one in found:
                assert (one.qos, one.retain) == (qos, rap == 1), (before, after)
                identifiers = (
                    [] if one.properties is None else one.properties.subscription_identifiers
                )
                assert identifiers == ([identifier] if identifier else []), (before, after)
                if qos > 0:
                    client.send(Puback(one.packet_id), Pubrec(one.packet_id, 0x80))


# UNSUBSCRIBE


ALIKE = [
    "a/+",
    "a/#",
    "a/b",
    "A/+",
    "/a/+",
    "a/+/",
    "a//+",
    "+/+",
    "+/b",
    "#",
    "a",
    "a/é",
    "a/e\u0301",
    "a/\ufeff",
    "a/ ",
    "$a/+",
    "$share/g/a/+",
    "$share/G/a/+",
    "$share/g/a/#",
]


@pytest.mark.spec("MQTT5-3.10.4-1")
@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("topic_filter", ALIKE)
def test_unsubscribe_takes_the_filter_that_is_spelled_alike_and_no_other(
    topic_filter: str, clean: bool
) -> None:
    """Not one that matches it, that it matches, or that only looks like it."""
    world = World()
    client = world.transient("c") if clean else world.hello("c")
    others = [one for one in ALIKE if one != topic_filter]
    subscribe(client, 1, *(SubscriptionRequest(one, 1) for one in others))
    assert unsubscribe(client, 2, topic_filter) == ["UNSUBACK #2 0x11"]
    client.subscribe(topic_filter, 1, 3)
    client.packets()
    assert unsubscribe(client, 4, topic_filter) == ["UNSUBACK #4 0x00"]
    assert filters_of(world, "c") == set(others)
    assert unsubscribe(client, 5, *others) == ["UNSUBACK #5" + " 0x00" * len(others)]


@pytest.mark.spec("MQTT5-3.10.4-2")
@pytest.mark.parametrize("clean", [True, False])
def test_after_its_unsuback_a_client_hears_no_more(clean: bool) -> None:
    """Neither live nor later; a filter that overlaps and is still there goes on."""
    world = World()
    client = world.transient("c") if clean else world.hello("c")
    publisher = world.transient("p")
    client.subscribe("a/+", 1)
    client.subscribe("a/b", 2)
    unsubscribe(client, 2, "a/+")
    publisher.publish("a/c", "unwanted", 2, 1)
    publisher.publish("a/b", "wanted", 2, 2)
    assert client.received() == ["PUBLISH a/b wanted q2 #1"]
    unsubscribe(client, 3, "a/b")
    publisher.publish("a/b", "too late", 2, 3)
    assert client.received() == []
    if not clean:
        client.cut()
        publisher.publish("a/b", "too late", 1, 4)
        assert world.hello("c").received() == ["PUBLISH a/b wanted q2 #1 dup"]


@pytest.mark.spec("MQTT5-3.10.4-3")
@pytest.mark.parametrize("cut", ["stays", "lost connection", "crash"])
@pytest.mark.parametrize("stage", ["PUBLISH sent", "PUBREL sent"])
def test_a_delivery_begun_is_completed_after_unsubscribe(stage: str, cut: str) -> None:
    """The subscription is gone; its two messages, one of QoS 1 and one of QoS 2, are not."""
    world = World()
    client = world.hello("c")
    publisher = world.transient("p")
    client.subscribe("t/#", 2)
    publisher.publish("t/1", "one", 1, 1)
    publisher.publish("t/2", "two", 2, 2)
    assert client.received()[1:] == ["PUBLISH t/1 one q1 #1", "PUBLISH t/2 two q2 #2"]
    if stage == "PUBREL sent":
        client.send(Pubrec(2))
        assert client.received() == ["PUBREL #2"]
    assert unsubscribe(client, 3, "t/#") == ["UNSUBACK #3 0x00"]
    if cut != "stays":
        if cut == "crash":
            world.crash()
            world.restart()
        else:
            client.cut()
        client = world.hello("c")
        again = ["PUBLISH t/1 one q1 #1 dup", "PUBLISH t/2 two q2 #2 dup"]
        if stage == "PUBREL sent":
            again[1:] = ["PUBREL #2"]
        assert sorted(client.received()) == again
    client.send(Puback(1))
    if stage == "PUBLISH sent":
        client.send(Pubrec(2))
        assert client.received() == ["PUBREL #2"]
    client.send(Pubcomp(2))
    client.cut()
    assert world.hello("c").received() == []


@pytest.mark.spec("MQTT5-3.10.4-4", "MQTT5-3.10.4-5", "MQTT5-3.10.4-6", "MQTT5-3.11.3-1")
@pytest.mark.parametrize("clean", [True, False])
def test_one_unsuback_says_for_each_filter_in_its_place_what_became_of_it(clean: bool) -> None:
    """As if they had come one by one: the second mention of a filter finds nothing."""
    world = World()
    client = world.transient("c") if clean else world.hello("c")
    for topic_filter in ("a", "b/#", "+"):
        client.subscribe(topic_filter, 1)
    client.packets()
    answer = unsubscribe(client, 300, "x", "b/#", "a", "a", "b/+", "#", "a#")
    assert answer == ["UNSUBACK #300 0x11 0x00 0x00 0x11 0x11 0x11 0x8F"]
    assert filters_of(world, "c") == {"+"}


@pytest.mark.spec("MQTT5-3.10.4-4", "MQTT5-3.10.4-5")
@VERSIONS
def test_each_unsubscribe_has_its_own_unsuback(version: int) -> None:
    client = World().hello("c", version=version)
    client.push(*(Unsubscribe(packet_id, ["never"]) for packet_id in (7, 65_535, 7)))
    client.send()
    code = " 0x11" if version == 5 else ""
    assert client.received() == [
        f"UNSUBACK #7{code}",
        f"UNSUBACK #65535{code}",
        f"UNSUBACK #7{code}",
    ]


@VERSIONS
def test_a_client_that_takes_its_wish_back_in_one_breath_has_none(version: int) -> None:
    """SUBSCRIBE, UNSUBSCRIBE and a PUBLISH of its own arrive in one piece."""
    world = World()
    client = world.hello("c", version=version)
    client.send(
        Subscribe(1, [SubscriptionRequest("t", 1)]),
        Unsubscribe(2, ["t"]),
        Publish("t", b"m", 1, packet_id=3),
    )
    code = " 0x00" if version == 5 else ""
    puback = "PUBACK #3 0x10" if version == 5 else "PUBACK #3"
    assert client.received() == ["SUBACK #1 0x01", f"UNSUBACK #2{code}", puback]
