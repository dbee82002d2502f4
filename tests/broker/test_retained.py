"""The retained messages, against a dict of topics that is looked through one by one."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.broker.retained import Retained
from holdfast.message import Message
from holdfast.protocol.topics import matches

SETTINGS = settings(derandomize=True, deadline=None, database=None, max_examples=150)
names = st.sampled_from(["a", "b", "", "$s"])
topics = st.lists(names, min_size=1, max_size=4).map("/".join).filter(bool)
filters = st.builds(
    lambda levels, end: "/".join([*levels, *end]),
    st.lists(st.sampled_from(["a", "b", "", "$s", "+", "+"]), max_size=4),
    st.sampled_from([[], ["#"]]),
).filter(bool)
steps = st.lists(st.tuples(st.sampled_from(["x", "longer", ""]), topics), min_size=15, max_size=40)


def message(topic: str, payload: bytes = b"x") -> Message:
    return Message(topic, payload, 1, True)


def check_all(retained: Retained, kept: dict[str, Message], wanted: list[str]) -> None:
    assert retained.count == len(kept)
    assert retained.payload_bytes == sum(len(m.payload) for m in kept.values())
    for topic_filter in [*wanted, *kept, "#", "+", "+/#"]:
        found = retained.matching(topic_filter)
        expected = [m for topic, m in kept.items() if matches(topic_filter, topic)]
        assert sorted(map(id, found)) == sorted(map(id, expected)), topic_filter


@pytest.mark.spec("MQTT5-4.7.1-2")
@pytest.mark.spec("MQTT5-4.7.2-1")
@pytest.mark.spec("MQTT311-4.7.2-1")
@SETTINGS
@given(steps, st.lists(filters, max_size=6))
def test_any_filter_finds_what_is_kept_and_matches(
    taken: list[tuple[str, str]], wanted: list[str]
) -> None:
    retained = Retained()
    kept: dict[str, Message] = {}
    for payload, topic in taken:
        if payload:
            kept[topic] = message(topic, payload.encode())
            retained.set(kept[topic])
        else:
            assert retained.clear(topic) == (topic in kept)
            kept.pop(topic, None)
        assert retained.get(topic) is kept.get(topic)
        check_all(retained, kept, wanted)
    for topic in sorted(kept):
        assert retained.clear(topic)
        assert not retained.clear(topic)
        del kept[topic]
        check_all(retained, kept, wanted)
    assert retained._root.children is None


def test_a_later_message_takes_the_slot() -> None:
    retained = Retained()
    later = message("a/b", b"later")
    retained.set(message("a/b"))
    retained.set(later)
    assert retained.count == 1
    assert retained.matching("a/#") == [later]


def test_a_topic_above_or_below_a_kept_one_is_empty() -> None:
    retained = Retained()
    kept = message("a/b")
    retained.set(kept)
    assert retained.get("a") is None
    assert retained.get("a/b/c") is None
    assert not retained.clear("a")
    assert not retained.clear("a/b/c")
    assert retained.get("a/b") is kept


def test_a_topic_of_very_many_levels_is_found_and_pruned() -> None:
    retained = Retained()
    kept = message("/" * 65_534)
    retained.set(kept)
    assert retained.matching("#") == [kept]
    assert retained.matching("/" * 65_534 + "+") == [kept]
    assert retained.clear(kept.topic)
    assert retained._root.children is None
