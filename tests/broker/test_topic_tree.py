"""The tree of filters and its cache of routes, against all subscriptions looked at one by one."""

from itertools import product
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.broker.limits import ROUTES_MAX
from holdfast.broker.session import Session, Subscription
from holdfast.broker.topic_tree import TopicTree
from holdfast.protocol.topics import matches

SETTINGS = settings(derandomize=True, deadline=None, database=None, max_examples=150)
SESSIONS = 3
NAMES = ("a", "b", "", "$s")
TOPICS = [
    "/".join(levels)
    for depth in (1, 2, 3)
    for levels in product(NAMES[: 5 - depth], repeat=depth)
    if levels != ("",)
] + ["$s/a", "$s/a/b", "a/$s"]
FILTERS = [
    "/".join(levels)
    for depth in (1, 2, 3)
    for levels in product(("a", "", "+", "$s", "#")[: 6 - depth], repeat=depth)
    if levels != ("",) and "#" not in levels[:-1]
] + ["a/#", "+/#", "/#", "$s/#", "a/+/#", "+/+/#", "a/b/#"]

# (what, session, filter, options, topic); each step uses what it needs
Step = tuple[str, int, str, int, str]
steps = st.lists(
    st.tuples(
        st.sampled_from(["subscribe", "subscribe", "unsubscribe", "switch", "look"]),
        st.integers(0, SESSIONS - 1),
        st.sampled_from(FILTERS),
        st.sampled_from([0, 1, 2, 4, 5, 9, 10, 14]),
        st.sampled_from(TOPICS),
    ),
    min_size=15,
    max_size=40,
)

# What a session is given of a message: QoS, No Local, Retain As Published, identifiers, filters.
Copy = tuple[int, bool, bool, list[int], list[str]]


class Bench:
    """The tree under test, with the sessions that it serves."""

    def __init__(self) -> None:
        self.tree = TopicTree()
        self.sessions = [Session(n + 1, f"c{n}", 5, 60) for n in range(SESSIONS)]
        self.online = [True] * SESSIONS
        self.given = 0

    def subscribe(self, index: int, topic_filter: str, options: int) -> None:
        self.unsubscribe(index, topic_filter)
        session = self.sessions[index]
        self.given += 1
        subscription = Subscription(session, topic_filter, options, self.given % 4, 1)
        session.add(subscription)
        self.tree.add(subscription, self.online[index])

    def unsubscribe(self, index: int, topic_filter: str) -> None:
        session = self.sessions[index]
        subscription = session.subscriptions.get(topic_filter)
        if subscription is not None:
            session.remove(subscription)
            self.tree.remove(subscription, self.online[index])

    def switch(self, index: int) -> None:
        self.online[index] = not self.online[index]
        self.tree.set_online(self.sessions[index], self.online[index])

    def check(self, topic: str) -> None:
        copies: dict[int, Copy] = {}
        has_absent = False
        for session, is_online in zip(self.sessions, self.online, strict=True):
            found = [s for s in session.subscriptions.values() if matches(s.topic_filter, topic)]
            if is_online and found:
                copies[session.number] = (
                    max(s.qos for s in found),
                    any(s.is_no_local for s in found),
                    any(s.is_retain_as_published for s in found),
                    sorted(i for s in found for i in s.identifiers or []),
                    sorted(s.topic_filter for s in found),
                )
            elif not is_online:
                has_absent = has_absent or any(s.qos > 0 for s in found)
        route = self.tree.route(topic)
        assert len(route.targets) == len(copies)
        assert {t.session.number: copy_of(t) for t in route.targets} == copies
        assert route.has_absent == has_absent

    def check_all(self) -> None:
        for topic in TOPICS:
            self.check(topic)
        filters = {f for session in self.sessions for f in session.subscriptions}
        assert self.tree.filters == len(filters)
        held = sum(len(session.subscriptions) for session in self.sessions)
        assert self.tree.subscriptions == held


def copy_of(target: Subscription) -> Copy:
    parts = [target] if target.parts is None else target.parts
    return (
        target.qos,
        target.is_no_local,
        target.is_retain_as_published,
        sorted(target.identifiers or []),
        sorted(part.topic_filter for part in parts),
    )


def walk(bench: Bench, taken: list[Step], *, always_looks: bool) -> None:
    for what, index, topic_filter, options, topic in taken:
        if what == "subscribe":
            bench.subscribe(index, topic_filter, options)
        elif what == "unsubscribe":
            bench.unsubscribe(index, topic_filter)
        elif what == "switch":
            bench.switch(index)
        else:
            bench.check(topic)
        if always_looks:
            bench.check_all()


@pytest.mark.spec("MQTT5-4.7.1-2")
@pytest.mark.spec("MQTT5-4.7.2-1")
@pytest.mark.spec("MQTT311-4.7.2-1")
@pytest.mark.spec("MQTT5-3.3.4-2")
@pytest.mark.spec("MQTT5-3.3.4-4")
@pytest.mark.parametrize("always_looks", [True, False])
def test_routes_are_what_all_subscriptions_say(always_looks: bool) -> None:
    @SETTINGS
    @given(steps)
    def check(taken: list[Step]) -> None:
        bench = Bench()
        walk(bench, taken, always_looks=always_looks)
        bench.check_all()

    check()


@SETTINGS
@given(steps, st.randoms(use_true_random=False))
def test_a_tree_is_empty_again_when_all_subscriptions_are_gone(
    taken: list[Step], random: Random
) -> None:
    bench = Bench()
    walk(bench, taken, always_looks=False)
    left = [(i, f) for i, session in enumerate(bench.sessions) for f in session.subscriptions]
    random.shuffle(left)
    for index, topic_filter in left:
        bench.unsubscribe(index, topic_filter)
        bench.check(topic_filter.replace("+", "a").replace("#", "a"))
    bench.check_all()
    assert bench.tree.filters == 0
    assert bench.tree._root.children is None


@pytest.mark.spec("MQTT5-4.7.2-1")
@pytest.mark.spec("MQTT311-4.7.2-1")
def test_a_wildcard_in_front_matches_no_topic_with_a_dollar_sign() -> None:
    bench = Bench()
    for topic_filter in ("#", "+", "+/a", "+/#"):
        bench.subscribe(0, topic_filter, 1)
    assert bench.tree.route("$s/a").targets == []
    assert bench.tree.route("$s").targets == []
    bench.subscribe(0, "$s/#", 1)
    assert [t.topic_filter for t in bench.tree.route("$s/a").targets] == ["$s/#"]
    assert [t.topic_filter for t in bench.tree.route("$s").targets] == ["$s/#"]


def test_a_change_elsewhere_among_known_filters_leaves_a_route_cached() -> None:
    bench = Bench()
    bench.subscribe(0, "a", 1)
    bench.subscribe(1, "b", 1)
    before = bench.tree.route("a").targets
    bench.subscribe(2, "b", 1)
    bench.switch(1)
    assert bench.tree.route("a").targets is before
    bench.subscribe(2, "a", 1)
    assert bench.tree.route("a").targets is not before


def test_an_absent_session_at_qos_0_is_not_waited_for() -> None:
    bench = Bench()
    bench.subscribe(0, "a", 0)
    bench.switch(0)
    assert not bench.tree.route("a").has_absent
    bench.subscribe(0, "a", 1)
    assert bench.tree.route("a").has_absent
    bench.switch(0)
    assert not bench.tree.route("a").has_absent


def test_the_cache_of_routes_is_bounded_and_starts_afresh() -> None:
    bench = Bench()
    bench.subscribe(0, "+", 1)
    for number in range(ROUTES_MAX + 1):
        bench.tree.route(f"t{number}")
    assert len(bench.tree._routes) == 1
    bench.check("t0")


def test_a_filter_of_very_many_levels_is_found_and_pruned() -> None:
    bench = Bench()
    topic = "/" * 65_534
    bench.subscribe(0, topic, 1)
    bench.subscribe(0, "/" * 65_534 + "+", 2)
    assert [target.qos for target in bench.tree.route(topic).targets] == [2]
    bench.check(topic)
    bench.unsubscribe(0, topic)
    bench.check(topic)
    bench.unsubscribe(0, "/" * 65_534 + "+")
    bench.check(topic)
    assert bench.tree._root.children is None
