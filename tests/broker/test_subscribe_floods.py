"""What one SUBSCRIBE can cost is bounded, however often it repeats a filter."""

import itertools

import pytest

from holdfast.broker.limits import RETAINED_WAITING_MAX, ROUTE_TOPIC_CHARACTERS_MAX
from holdfast.protocol.packets import Publish, Suback, Subscribe, SubscriptionRequest, Unsubscribe
from tests.broker.world import World


@pytest.mark.parametrize("qos", [0, 1])
@pytest.mark.parametrize("clean", [True, False])
def test_a_filter_repeated_in_one_packet_brings_its_retained_messages_once(
    qos: int, clean: bool
) -> None:
    world = World()
    publisher = world.transient("p")
    for number in range(20):
        publisher.publish(f"r/{number}", "m", retain=True)
    client = world.transient("c") if clean else world.hello("c")
    client.send(Subscribe(1, [SubscriptionRequest("r/#", qos)] * 500))
    found = client.packets()
    assert isinstance(found[0], Suback)
    assert found[0].reason_codes == [qos] * 500
    assert sum(isinstance(packet, Publish) for packet in found) == 20


def test_retained_messages_under_way_are_bounded() -> None:
    """Filters beyond the bound are refused with Quota exceeded; those before it are served."""
    world = World()
    publisher = world.transient("p")
    for number in range(2000):
        publisher.push(Publish(f"a/b/c/d/e/f/{number}", b"m", retain=True))
    world.run()
    choices = [[level, "+"] for level in "abcdef"]
    filters = ["/".join(levels) + "/+" for levels in itertools.product(*choices)]
    client = world.transient("c")
    client.stall()  # nothing of it leaves
    client.push(Subscribe(1, [SubscriptionRequest(one, 0) for one in filters]))
    world.turn()
    served = RETAINED_WAITING_MAX // 2000
    session = world.broker.sessions.find("c")
    assert session is not None
    assert len(session.subscriptions) == served < len(filters)
    assert session.retained_waiting is not None
    assert len(session.retained_waiting) == RETAINED_WAITING_MAX


def test_matches_of_long_topics_are_not_kept() -> None:
    world = World()
    publisher = world.transient("p")
    for number in range(50):
        publisher.publish(f"{number}/" + "x" * ROUTE_TOPIC_CHARACTERS_MAX, "m")
    assert len(world.broker._router.tree._routes) == 0


@pytest.mark.spec("MQTT5-3.8.4-5", "MQTT5-3.3.1-9")
def test_a_later_request_without_retained_messages_does_not_take_back_those_of_an_earlier() -> None:
    world = World()
    world.transient("p").publish("t", "m", 1, 1, retain=True)
    client = world.transient("c")
    requests = [SubscriptionRequest("t", 0), SubscriptionRequest("t", 1, retain_handling=2)]
    client.send(Subscribe(1, requests))
    assert client.received() == ["SUBACK #1 0x00 0x01", "PUBLISH t m q1 #1 retain"]


@pytest.mark.parametrize("filter_of", ["{}/+", "$share/{}/x", "$share/g/{}"])
def test_all_subscriptions_may_end_in_one_packet_in_any_order(filter_of: str) -> None:
    """The last first, so many that looking through a list for each would be felt."""
    filters = [filter_of.format(number) for number in range(10_000)]
    world = World()
    client = world.transient("c")
    client.send(Subscribe(1, [SubscriptionRequest(one, 0) for one in filters]))
    filters.reverse()
    client.push(Unsubscribe(2, filters))
    world.turn()
    session = world.broker.sessions.find("c")
    assert session is not None
    assert not session.subscriptions and session.wildcards is None and session.groups is None
    tree = world.broker._router.tree
    assert (tree.filters, tree.subscriptions, tree.shared_subscriptions) == (0, 0, 0)
    assert world.broker._router.groups.count == 0
