"""The permissions of one client: the first rule decides, of filters and of topics."""

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.broker.permissions import (
    ALL_ACTIONS,
    FILTERS_MAX,
    PUBLISH,
    PUBLISHED_TOPICS_MAX,
    RECEIVE,
    RECEIVED_TOPICS_MAX,
    RETAIN,
    SHARE,
    STEPS_MAX,
    SUBSCRIBE,
    Permissions,
    Rule,
)
from holdfast.protocol.topics import matches
from tests.protocol.test_filters import filters, topics_of

ACTIONS: Final = (PUBLISH, SUBSCRIBE, RECEIVE, RETAIN, SHARE)


def allow(topic_filter: str, actions: int = ALL_ACTIONS) -> tuple[bool, int, str]:
    return True, actions, topic_filter


def deny(topic_filter: str, actions: int = ALL_ACTIONS) -> tuple[bool, int, str]:
    return False, actions, topic_filter


def permissions(*rules: tuple[bool, int, str]) -> Permissions:
    """Of rules with the numbers 1, 2, 3 and so on."""
    return Permissions(
        [Rule(*rule, f"rule {number}") for number, rule in enumerate(rules, start=1)]
    )


def rule_lists(max_size: int = 6) -> st.SearchStrategy[list[tuple[bool, int, str]]]:
    actions = st.sampled_from((ALL_ACTIONS, SUBSCRIBE, SUBSCRIBE, SHARE, RECEIVE))
    return st.lists(st.tuples(st.booleans(), actions, filters()), max_size=max_size)


def first_says(rules: list[tuple[bool, int, str]], topic: str, mask: int) -> bool:
    """The oracle."""
    for is_allowed, actions, topic_filter in rules:
        if actions & mask and matches(topic_filter, topic):
            return is_allowed
    return False


@given(rule_lists(), filters())
def test_a_filter_is_allowed_if_all_its_topics_are(
    rules: list[tuple[bool, int, str]], wanted: str
) -> None:
    decided = [first_says(rules, topic, SUBSCRIBE) for topic in topics_of(wanted)]
    client = permissions(*rules)
    assert client.may_subscribe(wanted, False) == all(decided)
    assert client.may_subscribe(wanted, True) == any(decided)


@given(rule_lists(), filters())
def test_a_shared_filter_is_allowed_only_as_a_whole(
    rules: list[tuple[bool, int, str]], wanted: str
) -> None:
    expected = all(first_says(rules, topic, SUBSCRIBE | SHARE) for topic in topics_of(wanted))
    client = permissions(*rules)
    for narrows in (False, True):
        assert client.may_subscribe(f"$share/g/{wanted}", narrows) == expected
        assert client.may_subscribe(f"$queue/{wanted}", narrows) == expected


@given(rule_lists(), filters())
def test_the_part_and_the_rule_of_a_verdict_are_true(
    rules: list[tuple[bool, int, str]], wanted: str
) -> None:
    verdict = permissions(*rules).judge_subscribe(wanted, False)
    if verdict.is_allowed:
        assert verdict.part == ""
        assert verdict.rule is not None and verdict.rule.is_allowed
        return
    told = topics_of(verdict.part)
    assert told <= topics_of(wanted)
    denied = {topic for topic in told if not first_says(rules, topic, SUBSCRIBE)}
    assert denied
    if verdict.rule is not None:
        assert not verdict.rule.is_allowed
        assert denied & topics_of(verdict.rule.topic_filter)


@given(rule_lists(), st.sampled_from(sorted(topics_of("#") | topics_of("$s/#"))))
def test_the_first_rule_decides_about_a_topic(
    rules: list[tuple[bool, int, str]], topic: str
) -> None:
    client = permissions(*rules)
    for _ in range(2):  # the second answer is a kept one
        assert client.may_receive(topic) == first_says(rules, topic, SUBSCRIBE | RECEIVE)
        assert client.may_publish(topic, False) == first_says(rules, topic, PUBLISH)
        assert client.may_publish(topic, True) == first_says(rules, topic, PUBLISH | RETAIN)


def test_the_special_falls_under_the_general() -> None:
    client = permissions(allow("a", PUBLISH), allow("b", SUBSCRIBE))
    assert client.may_publish("a", True)
    assert client.may_receive("b")
    assert client.may_subscribe("$share/g/b", False)
    assert not client.may_subscribe("a", False)
    assert not client.may_publish("b", False)


def test_the_special_alone_is_denied_by_a_rule_before_the_general() -> None:
    client = permissions(
        deny("#", RETAIN), deny("a/secret", RECEIVE), deny("a/#", SHARE), allow("#")
    )
    assert client.may_publish("a", False) and not client.may_publish("a", True)
    assert client.may_subscribe("a/#", False) and not client.may_subscribe("$share/g/a/#", False)
    assert client.may_receive("a/x") and not client.may_receive("a/secret")


def test_no_rule_denies() -> None:
    client = permissions()
    assert not client.may_publish("a", False)
    assert not client.may_receive("a")
    for topic_filter in ("a", "#", "$SYS/#", "$share/g/a"):
        assert not client.may_subscribe(topic_filter, True)
    verdict = client.judge_publish("a", False)
    assert verdict.rule is None and not verdict.is_allowed


def test_a_wildcard_does_not_let_into_sys() -> None:
    client = permissions(allow("#"), allow("$SYS/broker/uptime"))
    assert client.may_subscribe("#", False)
    assert not client.may_receive("$SYS/broker/version")
    assert client.may_receive("$SYS/broker/uptime")
    assert not client.may_subscribe("$SYS/#", False)
    assert client.may_subscribe("$SYS/#", True)


def test_rules_cover_a_filter_together() -> None:
    client = permissions(allow("a"), allow("a/+/#"))
    assert client.may_subscribe("a/#", False)


def test_a_verdict_names_the_part_and_the_rule() -> None:
    client = permissions(allow("home/+/status"), deny("home/safe/#"), allow("home/#"))
    verdict = client.judge_subscribe("home/#", False)
    assert not verdict.is_allowed
    assert verdict.rule is not None and verdict.rule.name == "rule 2"
    assert verdict.part in ("home/safe", "home/safe/#")
    allowed = client.judge_subscribe("home/+/status", False)
    assert allowed.is_allowed and allowed.rule is not None and allowed.rule.name == "rule 1"


@pytest.mark.parametrize("narrows", [False, True])
def test_the_work_for_one_filter_is_bounded(narrows: bool) -> None:
    """Rules that look twice as long with each one more, were there no end to the looking."""
    rules = []
    for number in range(200):
        rules += [allow(f"+/{number}/#"), deny(f"+/+/{number}/#")]
    client = permissions(allow("a/+/+/x"), *rules)
    assert client.judge_subscribe("a/+/+/x", narrows).is_allowed
    for topic_filter in ("#", "+/" * 30_000 + "#", "+/" * 30_000 + "x"):
        client.judge_subscribe(topic_filter, narrows)
        assert client._steps < 3 * STEPS_MAX


def test_what_is_kept_is_bounded() -> None:
    client = permissions(allow("#"))
    for number in range(2 * RECEIVED_TOPICS_MAX):
        assert client.may_receive(f"t/{number}")
        assert client.may_publish(f"t/{number}", False)
        assert client.may_subscribe(f"t/{number}", False)
        assert client.may_receive(f"{number}" + "x" * 300)
    assert len(client._received) <= RECEIVED_TOPICS_MAX
    assert len(client._published) <= PUBLISHED_TOPICS_MAX
    assert len(client._subscribed) <= FILTERS_MAX
    assert all(len(topic) < 300 for topic in client._received)
