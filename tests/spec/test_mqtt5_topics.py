"""Topic Names and Topic Filters, to the letter: what is one, and which of them match.

Each way in which the broker matches is held against one slow oracle, over all short filters and
topics and then over any text. Source: MQTT 5.0 §4.7.
"""

from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.broker.limits import Limits
from holdfast.broker.retained import Retained
from holdfast.broker.session import Session, Subscription
from holdfast.broker.shared_group import Group
from holdfast.broker.topic_tree import TopicTree
from holdfast.message import Message
from holdfast.protocol.packets import Subscribe, SubscriptionRequest, Unsubscribe
from holdfast.protocol.topics import check_filter, check_topic, matches
from holdfast.store.interface import Store
from holdfast.store.memory import MemoryStore
from holdfast.store.records import OPEN, Batch, FilterSpan, LogEntry, ReadRequest
from holdfast.store.sqlite import open_store
from tests.broker.world import World
from tests.protocol.strategies import plain_filters, topic_names
from tests.support import packets
from tests.support.packets import binary
from tests.support.topic_oracle import slowly_matches

SETTINGS = settings(derandomize=True, deadline=None, database=None, max_examples=60)

# For each filter the topics that match it, in the order of the topics.
Matching = list[tuple[str, list[str]]]
Matcher = Callable[[list[str], list[str]], Matching]


def by_the_oracle(filters: list[str], topics: list[str]) -> Matching:
    return [(one, [topic for topic in topics if slowly_matches(one, topic)]) for one in filters]


def by_matches(filters: list[str], topics: list[str]) -> Matching:
    return [(one, [topic for topic in topics if matches(one, topic)]) for one in filters]


def by_the_tree(filters: list[str], topics: list[str]) -> Matching:
    """A session for each filter; looked at twice, so that cached routes are seen too."""
    tree = TopicTree()
    for number, topic_filter in enumerate(filters, 1):
        session = Session(number, f"c{number}", 5, 60)
        tree.add(Subscription(session, topic_filter, 1, 0, 1), True)
    found: dict[str, list[str]] = {topic_filter: [] for topic_filter in filters}
    for topic in topics:
        first = [target.topic_filter for target in tree.route(topic).targets]
        assert [target.topic_filter for target in tree.route(topic).targets] == first
        for topic_filter in first:
            found[topic_filter].append(topic)
    return list(found.items())


def by_the_absent(filters: list[str], topics: list[str]) -> Matching:
    """Each filter alone in a tree, with a session that is away."""
    found = []
    for topic_filter in filters:
        tree = TopicTree()
        tree.add(Subscription(Session(1, "c", 5, 60), topic_filter, 1, 0, 1), False)
        found.append((topic_filter, [topic for topic in topics if tree.route(topic).has_absent]))
    return found


def by_the_shared(filters: list[str], topics: list[str]) -> Matching:
    """A shared group for each filter."""
    tree = TopicTree()
    for number, topic_filter in enumerate(filters, 1):
        tree.add_group(Group(number, f"$share/g/{topic_filter}", 1))
    found: dict[str, list[str]] = {topic_filter: [] for topic_filter in filters}
    for topic in topics:
        for group in tree.route(topic).groups:
            found[group.inner_filter].append(topic)
    return list(found.items())


def by_retained(filters: list[str], topics: list[str]) -> Matching:
    retained = Retained()
    for topic in topics:
        retained.set(Message(topic, b"x", 1, True))
    places = {topic: place for place, topic in enumerate(topics)}
    return [
        (one, sorted((found.topic for found in retained.matching(one)), key=places.__getitem__))
        for one in filters
    ]


def by_a_session_behind(filters: list[str], topics: list[str]) -> Matching:
    """What a session that reads the log finds covered by its subscription."""
    found = []
    for topic_filter in filters:
        session = Session(1, "c", 5, 60)
        session.add(Subscription(session, topic_filter, 1, 0, 1))
        covered = [
            topic
            for topic in topics
            if session.subscription_for(LogEntry(1, Message(topic, b"x", 1, False), 0)) is not None
        ]
        found.append((topic_filter, covered))
    return found


def by_store(store: Store, filters: list[str], topics: list[str]) -> Matching:
    batch = Batch()
    batch.entries = [
        LogEntry(lsn, Message(topic, b"x", 1, False), 0) for lsn, topic in enumerate(topics, 1)
    ]
    store.commit(batch)
    end = len(topics) + 1
    found = []
    for one in filters:
        position = 1
        read: list[str] = []
        while position < end:
            span = FilterSpan(one, 1, OPEN)
            part = store.read(ReadRequest(1, position, end, [span], 1000, 1_000_000))
            read += [entry.message.topic for entry in part.entries]
            position = part.position
        found.append((one, read))
    return found


MATCHERS: list[Matcher] = [
    by_matches,
    by_the_tree,
    by_the_absent,
    by_the_shared,
    by_retained,
    by_a_session_behind,
]
LEVELS = ["", "a", "b", "$a"]
SHORT_TOPICS = [
    topic
    for depth in (1, 2, 3)
    for topic in map("/".join, product(LEVELS, repeat=depth))
    if topic != ""
]
SHORT_FILTERS = [
    topic_filter
    for depth in (1, 2, 3)
    for levels in product([*LEVELS, "+", "#"], repeat=depth)
    if (topic_filter := "/".join(levels)) and "#" not in levels[:-1]
]


def check_all(matcher: Matcher) -> None:
    expected = by_the_oracle(SHORT_FILTERS, SHORT_TOPICS)
    for found, wanted in zip(matcher(SHORT_FILTERS, SHORT_TOPICS), expected, strict=True):
        assert found == wanted


@pytest.mark.spec("MQTT5-4.7.1-1", "MQTT5-4.7.1-2", "MQTT5-4.7.2-1", "MQTT5-4.7.3-4")
@pytest.mark.parametrize(
    "matcher",
    MATCHERS,
    ids=lambda matcher: matcher.__name__,
)
def test_every_short_filter_matches_what_the_oracle_says(matcher: Matcher) -> None:
    """All filters and topics of up to three levels, empty ones and ones with "$" among them."""
    check_all(matcher)


@pytest.mark.spec("MQTT5-4.7.1-1", "MQTT5-4.7.1-2", "MQTT5-4.7.2-1", "MQTT5-4.7.3-4")
@pytest.mark.parametrize("kind", ["sqlite", "memory"])
def test_every_short_filter_reads_from_the_log_what_the_oracle_says(
    kind: str, tmp_path: Path
) -> None:
    store: Store = open_store(tmp_path) if kind == "sqlite" else MemoryStore()
    try:
        check_all(lambda filters, topics: by_store(store, filters, topics))
    finally:
        store.close()


@pytest.mark.spec("MQTT5-4.7.1-1", "MQTT5-4.7.1-2", "MQTT5-4.7.2-1", "MQTT5-4.7.3-4")
@SETTINGS
@given(
    st.lists(plain_filters | topic_names, min_size=1, max_size=8, unique=True),
    st.lists(topic_names, min_size=1, max_size=8, unique=True),
)
def test_any_filters_match_what_the_oracle_says(filters: list[str], topics: list[str]) -> None:
    """Of any text; each topic is also its own filter, and each of its levels may be a "+"."""
    filters = list(dict.fromkeys([*filters, *topics, *(widened(topic) for topic in topics)]))
    expected = by_the_oracle(filters, topics)
    for matcher in MATCHERS:
        assert matcher(filters, topics) == expected


def widened(topic: str) -> str:
    """A filter like the topic, every other level of it a wildcard."""
    levels = topic.split("/")
    return "/".join("+" if place % 2 else level for place, level in enumerate(levels)) or "+"


# The standard's own examples, through the whole broker.

EXAMPLES = [
    ("sport/tennis/player1/#", "sport/tennis/player1", True),
    ("sport/tennis/player1/#", "sport/tennis/player1/ranking", True),
    ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", True),
    ("sport/#", "sport", True),
    ("#", "sport/tennis/player1", True),
    ("sport/tennis/+", "sport/tennis/player2", True),
    ("sport/tennis/+", "sport/tennis/player1/ranking", False),
    ("sport/+", "sport", False),
    ("sport/+", "sport/", True),
    ("+", "sport", True),
    ("+/tennis/#", "sport/tennis", True),
    ("+/tennis/#", "/tennis/x", True),
    ("sport/+/player1", "sport/tennis/player1", True),
    ("sport/+/player1", "sport//player1", True),
    ("/finance", "/finance", True),
    ("/finance", "finance", False),
    ("+/+", "/finance", True),
    ("/+", "/finance", True),
    ("+", "/finance", False),
    ("#", "/", True),
    ("/", "/", True),
    ("//", "/", False),
    ("+/+", "/", True),
    ("a/", "a", False),
    ("a/+", "a/", True),
    ("a/#", "a/", True),
    ("#", "$SYS2/monitor", False),
    ("+/monitor", "$SYS2/monitor", False),
    ("$SYS2/#", "$SYS2/monitor", True),
    ("$SYS2/#", "$SYS2", True),
    ("$SYS2/+", "$SYS2/monitor", True),
    ("#", "$", False),
    ("+", "$", False),
    ("$", "$", True),
    ("$/#", "$/a", True),
    ("a/+", "a/$b", True),
    ("ACCOUNTS", "Accounts", False),
    ("Accounts payable", "Accounts payable", True),
]


@pytest.mark.spec(
    "MQTT5-4.7.1-1", "MQTT5-4.7.1-2", "MQTT5-4.7.2-1", "MQTT5-4.7.3-1", "MQTT5-4.7.3-4"
)
@pytest.mark.parametrize("how", ["live", "absent", "retained", "unsubscribed"])
@pytest.mark.parametrize(("topic_filter", "topic", "expected"), EXAMPLES)
def test_the_examples_of_the_standard_hold_for_every_delivery(
    topic_filter: str, topic: str, expected: bool, how: str
) -> None:
    world = World()
    client = world.hello("s")
    publisher = world.transient("p")
    if how == "retained":
        publisher.publish(topic, "m", 1, 1, retain=True)
    client.subscribe(topic_filter, 1)
    if how == "unsubscribed":
        client.unsubscribe(topic_filter)
    assert client.received()[0] == "SUBACK #1 0x01"
    if how == "absent":
        client.cut()
    if how != "retained":
        publisher.publish(topic, "m", 1, 1)
        has_match = expected and how != "unsubscribed"
        assert publisher.received() == ["PUBACK #1" if has_match else "PUBACK #1 0x10"]
    if how == "absent":
        client = world.hello("s")
    if how == "retained":
        client = world.hello("s2")
        client.subscribe(topic_filter, 1)
    found = [packet.topic for packet in client.publishes()]
    assert found == ([topic] if expected and how != "unsubscribed" else [])


# Strings that are none

BAD_TEXTS = {
    "U+0000": b"a\x00b",
    "U+0000 alone": b"\x00",
    "the first surrogate": b"a\xed\xa0\x80",
    "the last surrogate": b"\xed\xbf\xbf",
    "a pair of surrogates": b"\xed\xa0\xbd\xed\xb8\x80",
    "overlong": b"\xc0\xaf",
    "overlong U+0000": b"\xc0\x80",
    "beyond U+10FFFF": b"\xf4\x90\x80\x80",
    "cut short": b"a\xe2\x82",
    "no beginning": b"\x80",
}


def in_publish(text: bytes) -> bytes:
    return packets.publish(text, b"m", qos=1, packet_id=1)


def in_subscribe(text: bytes) -> bytes:
    return packets.subscribe(1, [("fine", 0), (text, 0)])


def behind_a_wildcard(text: bytes) -> bytes:
    return packets.subscribe(1, [(b"+/" + text, 0)])


def in_a_share_name(text: bytes) -> bytes:
    return packets.subscribe(1, [(b"$share/" + text + b"/t", 0)])


def in_unsubscribe(text: bytes) -> bytes:
    return packets.packet(packets.UNSUBSCRIBE, 2, b"\0\1\0" + binary("fine") + binary(text))


def in_a_response_topic(text: bytes) -> bytes:
    values = b"\x08" + binary(text)
    body = binary("t") + bytes([len(values)]) + values
    return packets.packet(packets.PUBLISH, 0, body)


@pytest.mark.spec("MQTT5-4.7.3-2", "MQTT5-1.5.4-1", "MQTT5-1.5.4-2", "MQTT5-4.13.1-1")
@pytest.mark.parametrize(
    "place",
    [
        in_publish,
        in_subscribe,
        behind_a_wildcard,
        in_a_share_name,
        in_unsubscribe,
        in_a_response_topic,
    ],
)
@pytest.mark.parametrize("text", BAD_TEXTS.values(), ids=BAD_TEXTS)
def test_a_topic_that_is_no_text_is_malformed(text: bytes, place: Callable[[bytes], bytes]) -> None:
    """Wherever it stands. The packet is not carried out, not even the good part of it."""
    world = World()
    client = world.hello("c")
    client.subscribe("fine", 1)
    client.packets()
    client.send_bytes(place(text))
    assert client.received() == ["DISCONNECT 0x81"]
    assert not client.is_open
    session = world.broker.sessions.find("c")
    assert session is not None
    assert [one.qos for one in session.subscriptions.values()] == [1]


@pytest.mark.spec("MQTT5-4.7.0-1", "MQTT5-4.7.3-1", "MQTT5-4.13.1-1")
@pytest.mark.parametrize("topic", ["", "#", "+", "a/#", "a/+/b", "a+", "a#b", "$share/+/t"])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_topic_name_with_a_wildcard_or_nothing_in_it_ends_the_connection(
    topic: str, qos: int
) -> None:
    world = World()
    observer = world.transient("o")
    observer.subscribe("#", 0)
    client = world.hello("c")
    client.send_bytes(packets.publish(topic, b"m", qos=qos, packet_id=1 if qos else None))
    # An empty one might have been an alias: without it that is a Protocol Error, §3.3.2.1.
    assert client.received() == [f"DISCONNECT 0x{0x90 if topic else 0x82:02X}"]
    assert observer.received() == ["SUBACK #1 0x00"]


@pytest.mark.spec("MQTT5-4.7.1-1", "MQTT5-4.7.1-2", "MQTT5-4.7.3-1")
@pytest.mark.parametrize(
    "topic_filter",
    ["", "##", "a#", "#a", "#/", "/#/", "a/#/b", "a/b#", "++", "+a", "a+/b", "a/+b", "+#", "/+#"],
)
def test_a_filter_with_a_misplaced_wildcard_is_refused_and_nothing_else(topic_filter: str) -> None:
    """By its code in the SUBACK. It never becomes a subscription that could be taken back."""
    world = World()
    client = world.hello("c")
    requests = [SubscriptionRequest(one, 1) for one in ("before", topic_filter, "behind")]
    client.send(Subscribe(1, requests))
    client.send(Unsubscribe(2, ["before", topic_filter, "behind"]))
    suback, unsuback = client.received()
    assert suback == "SUBACK #1 0x01 0x8F 0x01"
    assert unsuback in ("UNSUBACK #2 0x00 0x11 0x00", "UNSUBACK #2 0x00 0x8F 0x00")


# Strings that are fine

ODD_TEXTS = [
    " ",
    "/",
    "//",
    "/a",
    "a/",
    "a//b",
    " a",
    "a ",
    "A",
    "a",
    "\u00e9",  # é
    "e\u0301",  # é
    "\ufb01",  # the ligature fi
    "fi",
    "\u212b",  # the sign of Ångström
    "\u00c5",
    "\ufeffa",
    "a\ufeff",
    "\u200b",
    "\u202e",
    "\ufffd",
    "\U0001f600",
    "\U0010fffd",
    "$",
    "$a",
    "a$",
    "a\\b",
    "a%2Fb",
    "a/../b",
    "a/./b",
    "007",
    "7",
    "*",
    "a/*",
    ">",
]


@pytest.mark.spec("MQTT5-4.7.3-4", "MQTT5-4.7.3-1", "MQTT5-1.5.4-3")
@pytest.mark.parametrize("how", ["live", "absent", "crash", "retained"])
def test_topics_are_taken_byte_by_byte(how: str) -> None:
    """Texts that look alike are different topics, and each comes back as it was sent."""
    world = World()
    client = world.hello("s")
    publisher = world.transient("p")
    requests = [SubscriptionRequest(text, 1) for text in ODD_TEXTS]
    if how != "retained":
        client.send(Subscribe(1, requests))
    if how in ("absent", "crash"):
        client.cut()
    for text in ODD_TEXTS:
        publisher.publish(text, text, 1, 1, retain=how == "retained")
    if how == "crash":
        world.crash()
        world.restart()
    if how in ("absent", "crash"):
        client = world.hello("s")
    if how == "retained":
        client.send(Subscribe(1, requests))
    found = client.publishes()
    assert [one.topic for one in found] == ODD_TEXTS
    assert [one.payload.decode() for one in found] == ODD_TEXTS


LONGEST = {
    "one level": "x" * 65_535,
    "all slashes": "/" * 65_535,
    "three bytes each": "\u20ac" * 21_845,
    "short levels": "ab/" * 21_845,
}


@pytest.mark.spec("MQTT5-4.7.3-3")
@pytest.mark.parametrize("how", ["live", "absent", "crash", "retained"])
@pytest.mark.parametrize("topic", LONGEST.values(), ids=LONGEST)
def test_a_topic_of_65_535_bytes_is_a_topic_like_any_other(
    topic: str, how: str, tmp_path: Path
) -> None:
    """On a real store, found by its own filter and by "#"."""
    assert len(topic.encode()) == 65_535
    check_topic(topic)
    check_filter(topic)
    store = open_store(tmp_path)
    try:
        world = World(Limits(), store)
        clients = [world.hello(name) for name in ("exact", "wild")]
        publisher = world.transient("p")
        if how == "retained":
            publisher.publish(topic, "m", 1, 1, retain=True)
        for client, topic_filter in zip(clients, (topic, "#"), strict=True):
            client.subscribe(topic_filter, 1)
            if how in ("absent", "crash"):
                client.cut()
        if how != "retained":
            publisher.publish(topic, "m", 1, 1)
        if how == "crash":
            world.crash()
            world.restart()
        if how in ("absent", "crash"):
            clients = [world.hello(name) for name in ("exact", "wild")]
        for client in clients:
            found = [packet.topic for packet in client.publishes()]
            assert found == [topic]
        clients[0].unsubscribe(topic)
        assert clients[0].received() == ["UNSUBACK #1 0x00"]
    finally:
        store.close()
