"""Overlapping subscriptions as one, and what No Local leaves of them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.broker.session import Session, Subscription, merge, without_no_local

SETTINGS = settings(derandomize=True, deadline=None, database=None)
NO_LOCAL = 0x04
RETAIN_AS_PUBLISHED = 0x08
SESSION = Session(1, "c", 5, 60)
options = st.builds(
    lambda qos, flags: qos | flags, st.integers(0, 2), st.sampled_from([0, 0x04, 0x08, 0x0C])
)
overlaps = st.lists(st.tuples(options, st.integers(0, 3)), min_size=1, max_size=5)


def subscriptions(wanted: list[tuple[int, int]]) -> list[Subscription]:
    return [
        Subscription(SESSION, f"f{number}/#", asked, identifier, 1)
        for number, (asked, identifier) in enumerate(wanted)
    ]


def check_is_all_of(merged: Subscription, parts: list[Subscription]) -> None:
    assert merged.session is SESSION
    assert merged.qos == max(part.qos for part in parts)
    assert merged.is_no_local == any(part.is_no_local for part in parts)
    assert merged.is_retain_as_published == any(part.is_retain_as_published for part in parts)
    identifiers = [i for part in parts for i in part.identifiers or []]
    assert merged.identifiers == (identifiers or None)


@pytest.mark.spec("MQTT5-3.3.4-2")
@pytest.mark.spec("MQTT5-3.3.4-3")
@pytest.mark.spec("MQTT5-3.3.4-4")
@SETTINGS
@given(overlaps)
def test_a_merger_has_the_highest_qos_and_every_identifier(wanted: list[tuple[int, int]]) -> None:
    parts = subscriptions(wanted)
    before = [(p.qos, p.options, p.identifiers and list(p.identifiers)) for p in parts]
    check_is_all_of(merge(parts), parts)
    assert [(p.qos, p.options, p.identifiers) for p in parts] == before


def test_one_subscription_stays_itself() -> None:
    (only,) = subscriptions([(1, 7)])
    assert merge([only]) is only


@pytest.mark.spec("MQTT5-3.8.3-3")
@SETTINGS
@given(overlaps)
def test_without_no_local_the_others_are_left(wanted: list[tuple[int, int]]) -> None:
    parts = subscriptions(wanted)
    others = [part for part in parts if not part.is_no_local]
    left = without_no_local(merge(parts))
    if not others:
        assert left is None
    else:
        assert left is not None
        check_is_all_of(left, others)


@pytest.mark.spec("MQTT5-3.8.3-3")
def test_a_lower_qos_is_left_when_the_higher_one_is_no_local() -> None:
    left = without_no_local(merge(subscriptions([(2 | NO_LOCAL, 1), (RETAIN_AS_PUBLISHED, 2)])))
    assert left is not None
    assert (left.qos, left.is_retain_as_published, left.identifiers) == (0, True, [2])
