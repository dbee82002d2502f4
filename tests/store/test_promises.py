"""The numbered promises of ``holdfast.store.interface``, on every store that can be asked for them.

What takes a crash or a failing disk is in ``test_crash.py`` and ``test_failures.py``.
"""

import threading

import pytest

from holdfast.message import Message, Properties, content_bytes
from holdfast.store.interface import Store
from holdfast.store.records import (
    OPEN,
    Batch,
    DelayedRecord,
    FilterSpan,
    GroupRecord,
    LogEntry,
    LogSlice,
    LossRecord,
    ReadRequest,
    RetainedRecord,
    Snapshot,
    StateRecord,
    TimeMark,
)
from tests.store.support import (
    HUGE_TOPIC,
    ODD_TOPICS,
    PLENTY,
    Reopen,
    batch_of,
    content_of_entries,
    content_of_message,
    content_of_snapshot,
    delayed,
    entries,
    group,
    loss,
    message,
    read_all,
    session,
    state,
    subscription,
)


def read(
    store: Store,
    *spans: FilterSpan,
    session: int = 1,
    position: int = 1,
    end: int,
    messages_max: int = PLENTY,
    bytes_max: int = PLENTY,
) -> LogSlice:
    return store.read(ReadRequest(session, position, end, list(spans), messages_max, bytes_max))


def lsns(found: LogSlice | list[LogEntry]) -> list[int]:
    return [entry.lsn for entry in (found.entries if isinstance(found, LogSlice) else found)]


def on(topic_filter: str, from_lsn: int = 1, until_lsn: int = OPEN) -> FilterSpan:
    return FilterSpan(topic_filter, from_lsn, until_lsn)


class TestLoad:
    """Promise 4."""

    def test_a_new_store_is_empty(self, store: Store) -> None:
        assert content_of_snapshot(store.load()) == {
            "next_lsn": 1,
            "next_session": 1,
            "sessions": [],
            "states": [],
            "subscriptions": [],
            "retained": [],
            "groups": [],
            "delayed": [],
            "losses": [],
            "time_marks": [],
        }

    def test_an_empty_batch_changes_nothing(self, store: Store) -> None:
        store.commit(Batch())
        assert store.load().next_lsn == 1

    def test_everything_comes_back_as_it_was(self, store: Store, reopen: Reopen) -> None:
        will = Message("007", b"\x00gone\xff", 2, True, Properties(), 2**42, "c")
        assert will.properties is not None
        will.properties.user_properties = [("k", "1"), ("k", "2")]
        batch = Batch()
        batch.sessions = [session(1, "007", will), session(2, "\U0010ffff")]
        batch.states = [
            StateRecord(1, 2**40, b"\x00\x01", b""),
            StateRecord(2, 1, b"", b"\xff", b"\x07\x00"),
        ]
        batch.subscriptions = [subscription(1, "a/+/#"), subscription(2, "1e5", 3, 9, 0xFF)]
        batch.retained = [RetainedRecord("7", message("7", b"kept"))]
        batch.groups = [GroupRecord(3, "$share/g/007", 2**40, b"\x00\xff", b"\x01\x02")]
        batch.delayed = [DelayedRecord(7, 2**42, 2**32, will), delayed(2**40, "1e5", 0)]
        batch.losses = [LossRecord(2, 2**40, 2**62, 2**42, 7), LossRecord(3, 0, 0, 0, 0)]
        batch.time_marks = [TimeMark(1, 2**42), TimeMark(2**40, 0)]
        before = content_of_snapshot(_load_after(store, batch))
        assert content_of_snapshot(reopen(store).load()) == before
        assert before["sessions"] == [
            ((1, "007", 5, 1, 3600, 0), (content_of_message(will), 0, 0)),
            ((2, "\U0010ffff", 5, 1, 3600, 0), (None, 0, 0)),
        ]
        assert before["states"] == [
            (1, 2**40, b"\x00\x01", b"", b""),
            (2, 1, b"", b"\xff", b"\x07\x00"),
        ]
        assert before["subscriptions"] == [(1, "a/+/#", 1, 0, 1, 0), (2, "1e5", 3, 9, 0xFF, 0)]
        assert before["retained"] == [("7", content_of_message(message("7", b"kept")))]
        assert before["groups"] == [(3, "$share/g/007", 2**40, b"\x00\xff", b"\x01\x02")]
        assert before["losses"] == [(2, 2**40, 2**62, 2**42, 7), (3, 0, 0, 0, 0)]
        assert before["time_marks"] == [(1, 2**42), (2**40, 0)]
        assert before["delayed"] == [
            (7, 2**42, 2**32, content_of_message(will)),
            (2**40, 0, 60, content_of_message(message("1e5", b"later"))),
        ]

    def test_the_later_record_of_a_key_counts(self, store: Store) -> None:
        batch = Batch()
        batch.sessions = [session(1, "old"), session(1, "new")]
        batch.states = [state(1, 5), state(1, 6)]
        batch.subscriptions = [subscription(1, "a", options=1), subscription(1, "a", options=2)]
        batch.retained = [
            RetainedRecord("a", message("a", b"old")),
            RetainedRecord("a", message("a", b"new")),
            RetainedRecord("b", message("b")),
            RetainedRecord("b", None),
            RetainedRecord("c", None),
            RetainedRecord("c", message("c", b"set again")),
        ]
        batch.groups = [group(2, cursor=5), group(2, cursor=6)]
        batch.delayed = [delayed(1, "old"), delayed(1, "new")]
        batch.losses = [loss(1, 5), loss(1, 6)]
        batch.time_marks = [TimeMark(1, 5), TimeMark(1, 6)]
        found = _load_after(store, batch)
        assert [record.client_id for record in found.sessions] == ["new"]
        assert [record.cursor for record in found.states] == [6]
        assert [record.options for record in found.subscriptions] == [2]
        assert [record.topic for record in found.retained] == ["a", "c"]
        assert found.retained[0].message is not None
        assert found.retained[0].message.payload == b"new"
        assert [record.cursor for record in found.groups] == [6]
        assert [record.message.topic for record in found.delayed] == ["new"]
        assert [record.messages for record in found.losses] == [6]
        assert [mark.at_ms for mark in found.time_marks] == [6]

    def test_a_batch_is_applied_in_its_order(self, store: Store) -> None:
        batch = Batch()
        batch.sessions = [session(1), session(2)]
        batch.states = [state(1), state(2)]
        batch.subscriptions = [subscription(1, "a"), subscription(2, "a"), subscription(2, "b")]
        batch.groups = [group(3), group(4)]
        batch.delayed = [delayed(1), delayed(2)]
        batch.losses = [loss(1), loss(2), loss(3)]
        store.commit(batch)
        again = Batch()
        again.ended = [1, 3]
        again.losses = [loss(3, 8)]
        again.groups = [group(4, cursor=2), group(5)]
        again.delayed = [delayed(3, "b"), delayed(4, "b")]
        again.delayed_removed = [1, 3]
        again.sessions = [session(1, "began again")]
        again.subscriptions_removed = [subscription(2, "a"), subscription(2, "b")]
        again.subscriptions = [subscription(2, "b", options=2)]
        found = _load_after(store, again)
        assert [record.client_id for record in found.sessions] == ["began again", "c"]
        assert [record.session for record in found.states] == [2]
        assert [(r.topic_filter, r.options) for r in found.subscriptions] == [("b", 2)]
        assert [(record.number, record.cursor) for record in found.groups] == [(4, 2), (5, 1)]
        assert [record.number for record in found.delayed] == [2, 4]
        assert [(record.owner, record.messages) for record in found.losses] == [(2, 7), (3, 8)]

    def test_the_key_of_a_subscription_has_its_start(self, store: Store) -> None:
        batch = Batch()
        batch.subscriptions = [subscription(1, "a", 1, 5), subscription(1, "a", 5)]
        store.commit(batch)
        removal = Batch()
        removal.subscriptions_removed = [subscription(1, "a", 1)]
        found = _load_after(store, removal)
        assert [record.from_lsn for record in found.subscriptions] == [5]


class TestRead:
    """Promise 5."""

    def test_it_gives_what_matches_in_the_order_of_lsn(self, store: Store) -> None:
        store.commit(batch_of(entries(1, ["a", "b", "a/b", "c", "a", "a"])))
        found = read(store, on("c"), on("a/#"), end=7)
        assert lsns(found) == [1, 3, 4, 5, 6]
        assert found.position == 7
        assert [entry.message.payload for entry in found.entries][:2] == [b"1", b"3"]

    def test_what_matches_several_spans_comes_once(self, store: Store) -> None:
        store.commit(batch_of(entries(1, ["a"] * 9)))
        spans = [on("a", 2, 4), on("#", 3, 6), on("+", 8), on("a", 8), on("a", 2, 4)]
        assert lsns(read(store, *spans, end=10)) == [2, 3, 4, 5, 8, 9]

    def test_position_and_end_cut_runs_of_one_topic(self, store: Store) -> None:
        store.commit(batch_of(entries(1, ["a"] * 300)))
        for position, end in [(1, 301), (2, 3), (128, 130), (129, 257), (300, 301), (7, 7)]:
            found = read(store, on("+"), position=position, end=end)
            assert lsns(found) == list(range(position, end))
            assert found.position == end

    def test_an_entry_for_one_session_is_for_no_other(self, store: Store) -> None:
        store.commit(batch_of([*entries(1, ["a"]), *entries(2, ["a"] * 2, 7), *entries(4, ["a"])]))
        assert lsns(read(store, on("a"), session=1, end=5)) == [1, 4]
        assert lsns(read(store, on("a"), session=7, end=5)) == [1, 2, 3, 4]
        assert lsns(read(store, session=7, end=5)) == [2, 3]
        assert read(store, session=7, position=2, end=3).entries[0].target == 7

    def test_it_stops_at_so_many_messages(self, store: Store) -> None:
        store.commit(batch_of(entries(1, ["a", "b"] * 3)))
        found = read(store, on("a"), end=7, messages_max=2)
        assert lsns(found) == [1, 3]
        assert 3 < found.position <= 5
        found = read(store, on("a"), end=7, messages_max=3)
        assert lsns(found) == [1, 3, 5]
        assert found.position == 7  # there is nothing more

    def test_it_stops_at_so_many_bytes_but_gives_one(self, store: Store) -> None:
        payloads = [b"12345", b"1234", b"", b"1"]
        store.commit(
            batch_of([LogEntry(i + 1, message("a", payload)) for i, payload in enumerate(payloads)])
        )
        assert lsns(read(store, on("a"), end=5, bytes_max=1)) == [1]
        assert lsns(read(store, on("a"), end=5, bytes_max=9)) == [1, 2, 3]
        assert lsns(read(store, on("a"), end=5, bytes_max=10)) == [1, 2, 3, 4]

    def test_properties_count_among_the_bytes(self, store: Store) -> None:
        properties = Properties()
        properties.user_properties = [("", "")] * 100
        bomb = Message("a", b"", 1, False, properties)
        # In one commit each, and in one for all: then they could share a block.
        store.commit(batch_of([LogEntry(1, bomb)]))
        store.commit(batch_of([LogEntry(2, bomb)]))
        store.commit(batch_of([LogEntry(lsn, bomb) for lsn in range(3, 6)]))
        some = 2 * content_bytes(bomb)
        assert lsns(read(store, on("a"), end=6, bytes_max=some)) == [1, 2]
        assert lsns(read(store, on("a"), position=3, end=6, bytes_max=some)) == [3, 4]

    def test_nothing_matches_a_topic_that_comes_later(self, store: Store) -> None:
        store.commit(batch_of(entries(1, ["a"])))
        assert lsns(read(store, on("b/#"), on("b/c"), end=2)) == []
        store.commit(batch_of(entries(2, ["b/c"])))
        assert lsns(read(store, on("b/#"), end=3)) == [2]
        assert lsns(read(store, on("b/c"), end=3)) == [2]

    @pytest.mark.spec("MQTT5-4.7.2-1")
    def test_wildcards_at_the_start_leave_out_dollar_topics(self, store: Store) -> None:
        store.commit(batch_of(entries(1, ["$SYS/a", "a", "$SYS"])))
        assert lsns(read(store, on("#"), on("+/a"), on("+"), end=4)) == [2]
        assert lsns(read(store, on("$SYS/#"), end=4)) == [1, 3]

    def test_the_filter_of_a_shared_subscription_counts_without_its_group(
        self, store: Store
    ) -> None:
        store.commit(batch_of(entries(1, ["a/b", "a", "b"])))
        assert lsns(read(store, on("$share/g/a/#"), on("$share/h/b"), end=4)) == [1, 2, 3]

    def test_thousands_of_topics_match_like_few(self, store: Store) -> None:
        topics = [f"a/{number % 3000}" for number in range(4000)]
        store.commit(batch_of(entries(1, topics)))
        for spans in ([on("a/+")], [on(topic) for topic in set(topics)]):
            request = ReadRequest(1, 1, 4001, list(spans), 1000, PLENTY)
            assert lsns(read_all(store, request)) == list(range(1, 4001))

    def test_spans_that_end_leave_room_for_those_that_go_on(self, store: Store) -> None:
        topics = [f"{'ab'[number % 2]}/{number // 2}" for number in range(3000)]
        store.commit(batch_of(entries(1, topics)))
        spans = [on("a/+", 1, 50), on("b/+"), on("a/+", 2900)]
        found = lsns(read_all(store, ReadRequest(1, 1, 3001, spans, 3, PLENTY)))
        assert found == [n for n in range(1, 3001) if n % 2 == 0 or n < 50 or n >= 2900]


class TestFetch:
    """Promise 6."""

    def test_it_gives_what_is_there_in_the_order_asked(self, store: Store) -> None:
        store.commit(batch_of([*entries(1, ["a"] * 200), *entries(201, ["b", "a"], 3)]))
        found = store.fetch([202, 5, 1000, 201, 150, 5, 0])
        assert lsns(found) == [202, 5, 201, 150, 5]
        assert [entry.target for entry in found] == [3, 0, 3, 0, 0]
        assert [entry.message.topic for entry in found[:3]] == ["a", "a", "b"]
        assert found[1].message.payload == b"5"

    def test_nothing_is_there_for_nothing(self, store: Store) -> None:
        assert store.fetch([]) == []
        assert store.fetch([1]) == []


class TestTrim:
    """Promises 7 and 9."""

    def test_it_never_removes_what_is_at_or_above(self, store: Store) -> None:
        for first in range(1, 400, 100):
            store.commit(batch_of(entries(first, ["a", "b"] * 20 + ["a"] * 60)))
        for below in [1, 2, 61, 100, 150, 333]:
            trim_all(store, below)
            wanted = list(range(below, 401))
            assert lsns(read(store, on("#"), position=below, end=401)) == wanted
            assert lsns(store.fetch(wanted)) == wanted

    def test_what_is_trimmed_is_gone(self, store: Store) -> None:
        store.commit(batch_of([*entries(1, ["a"] * 100), *entries(101, ["a"] * 100, 2)]))
        trim_all(store, 201)
        assert store.fetch(list(range(1, 201))) == []
        assert lsns(read(store, on("a"), session=2, end=201)) == []

    def test_it_goes_in_bounded_steps(self, store: Store) -> None:
        store.commit(batch_of(entries(1, ["a", "b"] * 5000)))
        assert store.trim(10_001)  # the first step is not the last
        assert trim_all(store, 10_001) >= 1
        assert store.fetch([10_000]) == []

    def test_an_lsn_is_never_given_out_again(self, store: Store, reopen: Reopen) -> None:
        store.commit(batch_of(entries(1, ["a"] * 10)))
        trim_all(store, 11)
        store = reopen(store)
        assert store.load().next_lsn == 11
        store.commit(batch_of(entries(11, ["a"])))
        assert lsns(read(store, on("a"), end=12)) == [11]

    def test_nor_when_a_session_took_the_last_entries_along(
        self, store: Store, reopen: Reopen
    ) -> None:
        store.commit(batch_of([*entries(1, ["a"]), *entries(2, ["a"] * 5, 3)]))
        end = Batch()
        end.ended = [3]
        end.entries = entries(7, ["b"], 4)
        store.commit(end)
        again = Batch()
        again.ended = [4]
        store.commit(again)
        assert store.fetch([2, 6, 7]) == []
        assert reopen(store).load().next_lsn == 8

    def test_a_session_number_is_never_given_out_again(self, store: Store, reopen: Reopen) -> None:
        batch = Batch()
        batch.sessions = [session(5)]
        store.commit(batch)
        end = Batch()
        end.ended = [5]
        store.commit(end)
        assert reopen(store).load().next_session == 6

    def test_a_group_has_its_number_among_those_of_sessions(
        self, store: Store, reopen: Reopen
    ) -> None:
        batch = Batch()
        batch.sessions = [session(1)]
        batch.groups = [group(7), group(2)]
        store.commit(batch)
        end = Batch()
        end.ended = [7]
        store.commit(end)
        store = reopen(store)
        assert store.load().next_session == 8
        assert [record.number for record in store.load().groups] == [2]

    def test_a_delayed_message_keeps_its_topic_when_all_else_of_it_went(
        self, store: Store, reopen: Reopen
    ) -> None:
        batch = batch_of(entries(1, ["a", "b"]))
        batch.retained = [RetainedRecord("a", message("a"))]
        batch.delayed = [delayed(1, "a"), delayed(2, "a"), delayed(3, "b")]
        store.commit(batch)
        clear = batch_of(entries(3, ["c"], 5))
        clear.retained = [RetainedRecord("a", None)]
        clear.delayed_removed = [2]
        store.commit(clear)
        trim_all(store, 4)
        store = reopen(store)
        assert [record.message.topic for record in store.load().delayed] == ["a", "b"]
        store.commit(batch_of(entries(4, ["a", "b"])))
        assert lsns(read(store, on("a"), position=4, end=6)) == [4]

    def test_a_topic_comes_back_after_all_its_messages_went(
        self, store: Store, reopen: Reopen
    ) -> None:
        for first in range(1, 40, 2):
            store.commit(batch_of(entries(first, ["a/b", f"a/{first}"])))
            found = read(store, on("a/b"), on("a/#"), position=first, end=first + 2)
            assert lsns(found) == [first, first + 1]
            trim_all(store, first + 2)
            if first % 10 == 1:
                store = reopen(store)


class TestNames:
    """Promise 8."""

    def test_names_and_payloads_come_back_byte_for_byte(self, store: Store, reopen: Reopen) -> None:
        payload = bytes(range(256))
        batch = Batch()
        for number, topic in enumerate(ODD_TOPICS, 1):
            batch.entries.append(LogEntry(number, message(topic, payload, publisher=topic)))
            batch.sessions.append(session(number, topic, message(topic, payload)))
            batch.subscriptions.append(subscription(number, topic))
            batch.retained.append(RetainedRecord(topic, message(topic, payload)))
            batch.groups.append(group(number, topic))
            batch.delayed.append(DelayedRecord(number, 1, 2, message(topic, payload)))
        store.commit(batch)
        store = reopen(store)
        end = len(ODD_TOPICS) + 1
        found = store.load()
        assert [record.client_id for record in found.sessions] == ODD_TOPICS
        assert [record.topic_filter for record in found.subscriptions] == ODD_TOPICS
        assert sorted(record.topic for record in found.retained) == sorted(ODD_TOPICS)
        assert [record.topic_filter for record in found.groups] == ODD_TOPICS
        assert [content_of_message(record.message) for record in found.delayed] == [
            content_of_message(message(topic, payload)) for topic in ODD_TOPICS
        ]
        assert all(
            content_of_message(record.message) == content_of_message(message(record.topic, payload))
            for record in found.retained
        )
        expected = content_of_entries(batch.entries)
        assert content_of_entries(store.fetch(list(range(1, end)))) == expected
        spans = [on("#"), on("$SYS/#")]
        assert content_of_entries(read(store, *spans, end=end).entries) == expected
        for number, topic in enumerate(ODD_TOPICS, 1):
            assert lsns(read(store, on(topic), end=end)) == [number]

    def test_many_of_the_longest_names(self, store: Store) -> None:
        topics = [f"{HUGE_TOPIC[:-3]}{number}" for number in range(20)]
        store.commit(batch_of(entries(1, topics)))
        store.commit(batch_of(entries(21, topics)))
        assert lsns(read(store, on("+"), end=41)) == list(range(1, 41))
        assert lsns(read(store, on(topics[3]), end=41)) == [4, 24]

    def test_a_large_payload(self, store: Store) -> None:
        payload = bytes(range(256)) * 40_000  # 10 MB
        store.commit(batch_of([LogEntry(n, message("a", payload)) for n in (1, 2, 3)]))
        assert [entry.message.payload for entry in store.fetch([3, 1])] == [payload, payload]
        assert lsns(read(store, on("a"), end=4, bytes_max=2 * len(payload))) == [1, 2]


class TestThreads:
    """Promise 10."""

    def test_reads_run_beside_commits_and_trims(self, store: Store) -> None:
        ends = [1]
        failures: list[BaseException] = []
        is_over = threading.Event()

        def read_on() -> None:
            try:
                position = 1
                while not is_over.is_set() or position < ends[-1]:
                    end = ends[-1]
                    found = read(store, on("a/#"), on("b"), position=position, end=end)
                    assert lsns(found) == list(range(position, found.position))
                    if found.entries:
                        last = found.entries[-1].lsn
                        assert lsns(store.fetch([last])) == [last]
                        positions[threading.get_ident()] = last
                    position = found.position
            except BaseException as error:
                failures.append(error)

        positions: dict[int, int] = {}
        readers = [threading.Thread(target=read_on) for _ in range(2)]
        for reader in readers:
            reader.start()
        for step in range(60):
            first = ends[-1]
            topics = [f"a/{step}"] * 10 + ["b", f"a/{step % 7}"]
            store.commit(batch_of(entries(first, topics)))
            ends.append(first + len(topics))
            if len(positions) == len(readers):
                store.trim(min(positions.values()))
        is_over.set()
        for reader in readers:
            reader.join(60)
        assert failures == []
        assert len(positions) == len(readers)


def _load_after(store: Store, batch: Batch) -> Snapshot:
    store.commit(batch)
    return store.load()


def trim_all(store: Store, below_lsn: int) -> int:
    """How many steps it took."""
    steps = 1
    while store.trim(below_lsn):
        steps += 1
        assert steps < PLENTY
    return steps
