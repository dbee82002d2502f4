"""Topics and filters: their rules by example, and matching against a slow and obvious oracle."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import ProtocolError
from holdfast.protocol.reason_codes import (
    MALFORMED_PACKET,
    TOPIC_FILTER_INVALID,
    TOPIC_NAME_INVALID,
)
from holdfast.protocol.topics import (
    CACHED_TOPIC_BYTES_MAX,
    TopicCache,
    check_filter,
    check_topic,
    has_wildcard,
    is_shared,
    is_sys_topic,
    levels,
    matches,
    split_share,
)
from tests.protocol.strategies import plain_filters, shared_filters, topic_filters, topic_names
from tests.support.topic_oracle import slowly_matches

few_levels = st.lists(st.sampled_from(["", "a", "b", "$a"]), min_size=1, max_size=4)
few_topics = few_levels.map("/".join).filter(bool)
few_filters = st.builds(
    lambda parts, end: "/".join([*parts, *end]),
    st.lists(st.sampled_from(["", "a", "b", "$a", "+"]), max_size=4),
    st.sampled_from([[], ["#"]]),
).filter(bool)


@given(few_filters, few_topics)
@pytest.mark.spec(
    "MQTT5-4.7.1-1",
    "MQTT5-4.7.1-2",
    "MQTT5-4.7.2-1",
    "MQTT5-4.7.3-4",
    "MQTT311-4.7.1-2",
    "MQTT311-4.7.1-3",
    "MQTT311-4.7.2-1",
    "MQTT311-4.7.3-4",
)
def test_matching_agrees_with_the_oracle(topic_filter: str, topic: str) -> None:
    check_filter(topic_filter)
    assert matches(topic_filter, topic) == slowly_matches(topic_filter, topic)
    assert matches(f"$share/group/{topic_filter}", topic) == slowly_matches(topic_filter, topic)


@pytest.mark.parametrize(
    ("topic_filter", "topic", "expected"),
    [
        ("sport/tennis/player1/#", "sport/tennis/player1", True),
        ("sport/tennis/player1/#", "sport/tennis/player1/ranking", True),
        ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", True),
        ("sport/#", "sport", True),
        ("sport/#", "sports", False),
        ("#", "a/b/c", True),
        ("#", "/", True),
        ("sport/tennis/+", "sport/tennis/player1", True),
        ("sport/tennis/+", "sport/tennis/player1/ranking", False),
        ("sport/+", "sport", False),
        ("sport/+", "sport/", True),
        ("+/+", "/finance", True),
        ("/+", "/finance", True),
        ("+", "/finance", False),
        ("#", "$SYS/monitor/Clients", False),
        ("+/monitor/Clients", "$SYS/monitor/Clients", False),
        ("$SYS/#", "$SYS/monitor/Clients", True),
        ("$SYS/monitor/+", "$SYS/monitor/Clients", True),
        ("a/$b", "a/$b", True),
        ("a/+", "a/$b", True),
        ("ACCOUNTS", "Accounts", False),
        ("/finance", "finance", False),
        ("e\u0301", "\u00e9", False),
        ("$share/group/sport/+", "sport/a", True),
        ("$share/group/#", "$SYS/a", False),
        ("$share/group/$SYS/#", "$SYS/a", True),
    ],
)
@pytest.mark.spec(
    "MQTT5-4.7.1-1",
    "MQTT5-4.7.1-2",
    "MQTT5-4.7.2-1",
    "MQTT5-4.7.3-4",
    "MQTT311-4.7.1-2",
    "MQTT311-4.7.1-3",
    "MQTT311-4.7.2-1",
    "MQTT311-4.7.3-4",
)
def test_the_examples_of_the_standard(topic_filter: str, topic: str, expected: bool) -> None:
    check_filter(topic_filter)
    check_topic(topic)
    assert matches(topic_filter, topic) is expected


@given(topic_filters, topic_names)
def test_matching_of_any_text_agrees_with_the_oracle(topic_filter: str, topic: str) -> None:
    assert matches(topic_filter, topic) == slowly_matches(topic_filter, topic)


@given(topic_names)
def test_a_topic_is_a_filter_that_matches_it(topic: str) -> None:
    check_topic(topic)
    assert matches("/".join(levels(topic)), topic)
    if not is_shared(topic):
        check_filter(topic)


@given(topic_filters)
@pytest.mark.spec(
    "MQTT5-4.7.1-1", "MQTT5-4.7.1-2", "MQTT311-4.7.1-2", "MQTT311-4.7.1-3", "MQTT5-4.8.2-1"
)
def test_proper_filters_pass(topic_filter: str) -> None:
    check_filter(topic_filter)
    assert is_shared(topic_filter) == topic_filter.startswith("$share/")
    assert has_wildcard(topic_filter) == any(letter in topic_filter for letter in "+#")


@pytest.mark.parametrize(
    "topic_filter",
    [
        "",
        "a#",
        "#/a",
        "a/#/b",
        "a/b#",
        "##",
        "a+",
        "+a/b",
        "a/b+/c",
        "++",
        "+#",
        "a\0b",
        "a\ud800",
        "a" * 65_536,
        "é" * 32_768,
        "$share/",
        "$share/group",
        "$share/group/",
        "$share//a",
        "$share/gr+oup/a",
        "$share/#/a",
        "$share/group/a#",
        "$share/group/#/a",
        "$share/group/$share/other/a",
        "$share/group/$queue/a",
        "$queue/$share/group/a",
    ],
)
@pytest.mark.spec(
    "MQTT5-4.7.1-1",
    "MQTT5-4.7.1-2",
    "MQTT5-4.7.3-1",
    "MQTT5-4.7.3-2",
    "MQTT5-4.7.3-3",
    "MQTT5-4.8.2-1",
    "MQTT5-4.8.2-2",
    "MQTT311-4.7.1-2",
    "MQTT311-4.7.1-3",
    "MQTT311-4.7.3-1",
    "MQTT311-4.7.3-2",
    "MQTT311-4.7.3-3",
)
def test_improper_filters_are_refused(topic_filter: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        check_filter(topic_filter)
    assert caught.value.reason_code == TOPIC_FILTER_INVALID


@pytest.mark.parametrize("topic", ["", "#", "a/+", "a+b", "a\0", "\udc00", "a" * 65_536])
@pytest.mark.spec(
    "MQTT5-4.7.0-1",
    "MQTT5-4.7.3-1",
    "MQTT5-4.7.3-2",
    "MQTT5-4.7.3-3",
    "MQTT311-4.7.1-1",
    "MQTT311-4.7.3-1",
    "MQTT311-4.7.3-2",
    "MQTT311-4.7.3-3",
)
def test_improper_topics_are_refused(topic: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        check_topic(topic)
    assert caught.value.reason_code == TOPIC_NAME_INVALID


def test_topics_and_filters_of_the_greatest_length_pass() -> None:
    check_topic("a" * 65_535)
    check_filter("a" * 65_535)


@given(shared_filters)
@pytest.mark.spec("MQTT5-4.8.2-1", "MQTT5-4.8.2-2")
def test_a_shared_filter_is_split_at_its_share_name(topic_filter: str) -> None:
    share_name, inner = split_share(topic_filter)
    assert share_name
    assert "/" not in share_name
    assert f"$share/{share_name}/{inner}" == topic_filter


@given(plain_filters)
def test_a_plain_filter_has_no_share_name(topic_filter: str) -> None:
    assert split_share(topic_filter) == ("", topic_filter)


@pytest.mark.parametrize("topic_filter", ["$share", "$shared/a/b", "$SHARE/a/b", "a/$share/b/c"])
def test_what_only_looks_shared_is_an_ordinary_filter(topic_filter: str) -> None:
    check_filter(topic_filter)
    assert split_share(topic_filter) == ("", topic_filter)


def test_the_cache_gives_the_same_string_and_stays_bounded() -> None:
    cache = TopicCache(2)
    first = cache.topic(b"a/b")
    assert first == "a/b"
    assert cache.topic(b"a/" + b"b") is first
    for number in range(10):
        assert cache.topic(f"topic/{number}".encode()) == f"topic/{number}"
        assert len(cache) <= 2
    assert cache.topic(b"a/b") == "a/b"
    long = b"t" * (CACHED_TOPIC_BYTES_MAX + 1)
    before = len(cache)
    assert cache.topic(long) == long.decode()
    assert len(cache) == before


@pytest.mark.parametrize(
    ("raw", "reason_code"),
    [
        (b"a/+", TOPIC_NAME_INVALID),
        (b"#", TOPIC_NAME_INVALID),
        (b"a\0", MALFORMED_PACKET),
        (b"\xff", MALFORMED_PACKET),
    ],
)
def test_the_cache_never_keeps_a_bad_topic(raw: bytes, reason_code: int) -> None:
    cache = TopicCache()
    for _ in range(2):
        with pytest.raises(ProtocolError) as caught:
            cache.topic(raw)
        assert caught.value.reason_code == reason_code
    assert len(cache) == 0


@pytest.mark.parametrize("topic", ["$SYS", "$SYS/", "$SYS/a", "$SYS/#", "$SYS/+"])
def test_the_topics_of_the_server_are_sys_and_all_below(topic: str) -> None:
    assert is_sys_topic(topic)


@pytest.mark.parametrize("topic", ["$SYSTEM", "$SY", "$sys/a", "a/$SYS/b", "/$SYS", "#", "$share"])
def test_a_topic_that_only_resembles_them_is_none(topic: str) -> None:
    assert not is_sys_topic(topic)
