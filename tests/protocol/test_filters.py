"""Filters as sets of topics, against an oracle that tries all topics of a small alphabet."""

from itertools import product
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.protocol.filters import covers, intersection, overlaps, uncovered
from holdfast.protocol.topics import matches

LEVELS: Final = ("a", "b", "$s", "")
# One level more than any filter names, and one level deeper than any filter is.
TOPICS: Final = tuple(
    "/".join(levels)
    for depth in range(1, 5)
    for levels in product((*LEVELS, "z"), repeat=depth)
    if levels != ("",)
)


@st.composite
def filters(draw: st.DrawFn) -> str:
    levels = draw(st.lists(st.sampled_from((*LEVELS, "+", "+")), max_size=3))
    if len(levels) < 3 and (not levels or draw(st.booleans())):
        levels.append("#")
    topic_filter = "/".join(levels)
    return topic_filter or "a"


def topics_of(topic_filter: str) -> set[str]:
    """The oracle: each topic is asked for."""
    return {topic for topic in TOPICS if matches(topic_filter, topic)}


@given(filters(), filters())
def test_a_filter_covers_another_if_it_matches_all_its_topics(wide: str, narrow: str) -> None:
    expected = topics_of(narrow) <= topics_of(wide)
    assert covers(wide.split("/"), narrow.split("/")) == expected


@given(filters(), filters())
def test_what_two_filters_have_in_common_is_a_filter(one: str, other: str) -> None:
    found = intersection(one.split("/"), other.split("/"))
    expected = topics_of(one) & topics_of(other)
    assert expected == (set() if found is None else topics_of("/".join(found)))
    assert overlaps(one.split("/"), other.split("/")) == bool(expected)


@given(filters(), st.lists(filters(), max_size=4))
def test_several_filters_cover_one_together(wanted: str, wide: list[str]) -> None:
    part = uncovered(wanted.split("/"), [one.split("/") for one in wide])
    covered = set[str]().union(*(topics_of(one) for one in wide))
    assert (part is None) == (topics_of(wanted) <= covered)
    if part is not None:
        assert topics_of("/".join(part)) - covered, "no topic of that part is left over"
        assert covers(wanted.split("/"), part)


@pytest.mark.parametrize(
    ("wide", "narrow", "expected"),
    [
        ("a/#", "a", True),
        ("a/+", "a/#", False),
        ("#", "+/#", True),
        ("+/#", "#", True),
        ("#", "$SYS/#", False),
        ("+/x", "$SYS/x", False),
        ("$SYS/#", "$SYS/+/x", True),
        ("a", "a/b", False),
        ("/+/#", "/#", True),
        ("/+", "/#", False),
    ],
)
def test_a_filter_covers_another(wide: str, narrow: str, expected: bool) -> None:
    assert covers(wide.split("/"), narrow.split("/")) is expected


def test_no_topic_is_empty() -> None:
    """What would be the parent level of "/#" is none."""
    assert intersection(["", "#"], ["+"]) is None
    assert intersection(["+"], ["", "#"]) is None
    assert uncovered(["", "#"], [["a"]]) == ["", "+", "#"]
    assert uncovered(["", "#"], [["", "+"], ["", "+", "+", "#"]]) is None
