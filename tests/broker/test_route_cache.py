"""The cached matches of a topic change with every subscription to its filters."""

from holdfast.broker.session import Session, Subscription
from holdfast.broker.topic_tree import TopicTree


def targets(tree: TopicTree) -> list[str]:
    return [target.session.client_id for target in tree.route("a").targets]


def test_each_way_in_and_out_is_seen_at_once() -> None:
    tree = TopicTree()
    subscriptions: list[Subscription] = []
    for number, client_id in enumerate(("x", "y"), 1):
        session = Session(number, client_id, 5, 60)
        subscription = Subscription(session, "a", 1, 0, 1)
        session.add(subscription)
        tree.add(subscription, True)
        subscriptions.append(subscription)
    first, second = subscriptions
    assert targets(tree) == ["x", "y"]
    tree.set_online(first.session, False)
    assert targets(tree) == ["y"]
    assert tree.route("a").has_absent
    tree.set_online(first.session, True)
    assert sorted(targets(tree)) == ["x", "y"]
    assert not tree.route("a").has_absent
    tree.remove(second, True)
    assert targets(tree) == ["x"]
    tree.remove(first, True)
    assert targets(tree) == []
    assert tree.filters == 0
