"""The promises of ``holdfast.store.interface`` on counting, cutting and upkeep of the log."""

import pytest

from holdfast.message import content_bytes
from holdfast.store.interface import Store
from holdfast.store.records import (
    Batch,
    LogEntry,
    ReadRequest,
    RetainedRecord,
    TimeMark,
    TopicCut,
)
from tests.store.support import (
    PLENTY,
    Reopen,
    batch_of,
    content_of_entries,
    content_of_snapshot,
    delayed,
    entries,
    loss,
    message,
)
from tests.store.test_promises import lsns, on, read, trim_all


class TestCount:
    """Promise 11."""

    def test_it_counts_what_a_read_gives(self, store: Store) -> None:
        store.commit(batch_of([*entries(1, ["a"] * 100 + ["b", "a"]), *entries(103, ["a"] * 3, 7)]))
        for spans, number, expected in [
            ([on("a")], 1, 101),
            ([on("a", 5, 20), on("#", 10, 30)], 1, 25),
            ([on("b"), on("c")], 7, 4),
            ([], 7, 3),
            ([], 1, 0),
        ]:
            request = ReadRequest(number, 1, 106, spans, PLENTY, PLENTY)
            found = store.count(request)
            assert (found.messages, found.position) == (expected, 106)
            assert found.messages == len(store.read(request).entries)

    def test_the_bytes_are_near_payload_and_properties(self, store: Store) -> None:
        payload = b"x" * 100
        store.commit(batch_of([LogEntry(lsn, message("a", payload)) for lsn in range(1, 101)]))
        for low, high in [(1, 101), (21, 71), (7, 8)]:
            found = store.count(ReadRequest(1, low, high, [on("a")], PLENTY, PLENTY))
            assert found.messages == high - low
            assert 100 * found.messages <= found.bytes <= 105 * found.messages

    @pytest.mark.parametrize(("messages_max", "bytes_max"), [(1, PLENTY), (7, PLENTY), (PLENTY, 9)])
    def test_it_goes_on_where_it_stopped(
        self, store: Store, messages_max: int, bytes_max: int
    ) -> None:
        store.commit(batch_of(entries(1, ["a", "b", "b", "c"] * 50)))
        for spans in ([on("b")], [on("b", 20, 99), on("+", 50, 60), on("a", 180)], [on("#")]):
            request = ReadRequest(1, 1, 201, spans, messages_max, bytes_max)
            messages = steps = 0
            while request.position < 201:
                found = store.count(request)
                assert found.position > request.position
                messages += found.messages
                steps += 1
                request = ReadRequest(1, found.position, 201, spans, messages_max, bytes_max)
            everything = ReadRequest(1, 1, 201, spans, PLENTY, PLENTY)
            assert messages == len(store.read(everything).entries)
            assert steps > 1


class TestTrimTopics:
    """Promises 12 and 17."""

    def test_it_removes_what_a_cut_names_and_nothing_else(self, store: Store) -> None:
        for first in range(1, 31, 3):
            store.commit(batch_of(entries(first, ["a", "b"])))
            store.commit(batch_of(entries(first + 2, ["a"], 7)))
        _cut_all(store, TopicCut("a", 0, [(1, 8), (16, 19)]))
        gone = {1, 4, 7, 16}
        assert set(lsns(store.fetch(list(range(1, 31))))) == set(range(1, 31)) - gone
        _cut_all(store, TopicCut("", 7, [(4, 100)]), TopicCut("b", 0, [(20, 21), (20, 24)]))
        gone |= {6, 9, 12, 15, 18, 21, 24, 27, 30} | {20, 23}
        assert set(lsns(store.fetch(list(range(1, 31))))) == set(range(1, 31)) - gone
        _cut_all(store, TopicCut("absent", 0, [(1, 31)]), TopicCut("", 8, [(1, 31)]))
        _cut_all(store, TopicCut("b", 0, []), TopicCut("b", 0, [(5, 5)]))
        assert lsns(read(store, on("#"), session=7, end=31)) == [
            lsn for lsn in range(1, 31) if lsn not in gone
        ]

    def test_what_is_there_for_all_is_not_what_is_there_for_one(self, store: Store) -> None:
        store.commit(batch_of([*entries(1, ["a"]), *entries(2, ["a"], 7), *entries(3, ["a"], 8)]))
        _cut_all(store, TopicCut("a", 0, [(1, 4)]))
        assert lsns(store.fetch([1, 2, 3])) == [2, 3]
        _cut_all(store, TopicCut("", 8, [(1, 4)]))
        assert lsns(store.fetch([1, 2, 3])) == [2]

    def test_it_goes_in_bounded_steps(self, store: Store) -> None:
        store.commit(batch_of(entries(1, ["a", "b"] * 5000)))
        cut = TopicCut("a", 0, [(1, 10_001)])
        assert store.trim_topics([cut])
        assert _cut_all(store, cut) >= 1
        assert lsns(read(store, on("#"), end=10_001)) == list(range(2, 10_001, 2))

    def test_spans_that_overlap_are_counted_once(self, store: Store) -> None:
        store.commit(batch_of(entries(1, ["a", "b"] * 1000)))
        _count_on(store)
        _cut_all(store, *[TopicCut("a", 0, [(1, 1500), (1, 2001)])] * 3)
        assert store.space().log_messages == 1000

    def test_an_lsn_is_never_given_out_again(self, store: Store, reopen: Reopen) -> None:
        store.commit(batch_of([*entries(1, ["a"]), *entries(2, ["a"], 7)]))
        _cut_all(store, TopicCut("a", 0, [(1, 3)]), TopicCut("", 7, [(1, 3)]))
        assert reopen(store).load().next_lsn == 3

    def test_time_marks_go_with_the_entries_but_for_the_last(self, store: Store) -> None:
        for first in (1, 3, 5, 7):
            batch = batch_of(entries(first, ["a", "b"]))
            batch.time_marks = [TimeMark(first, first * 100)]
            store.commit(batch)
        assert _marks(store) == [1, 3, 5, 7]
        trim_all(store, 3)
        assert _marks(store) == [1, 3, 5, 7]  # 1 is below the oldest entry, and the last such
        trim_all(store, 4)
        assert _marks(store) == [3, 5, 7]
        _cut_all(store, TopicCut("a", 0, [(1, 9)]), TopicCut("b", 0, [(1, 8)]))
        assert _marks(store) == [7]
        trim_all(store, 9)
        assert _marks(store) == [7]


class TestCensus:
    """Promises 13, 14 and 15."""

    def test_topics_and_targets_with_entries(self, store: Store, reopen: Reopen) -> None:
        batch = batch_of([*entries(1, ["b", "a", "b", "é"]), *entries(5, ["c"], 7)])
        batch.entries += [*entries(6, ["a"], 3), *entries(7, ["$SYS/x"], 20)]
        batch.retained = [RetainedRecord("kept", message("kept"))]
        batch.delayed = [delayed(1, "later")]
        store.commit(batch)
        for _ in range(2):
            assert store.log_topics("", 10) == ["a", "b", "é"]
            assert store.log_topics("a", 10) == ["b", "é"]
            assert store.log_topics("a", 1) == ["b"]
            assert store.log_topics("é", 10) == []
            assert store.targets(0, 10) == [3, 7, 20]
            assert store.targets(3, 10) == [7, 20]
            assert store.targets(0, 2) == [3, 7]
            assert store.targets(20, 10) == []
            store = reopen(store)
        _cut_all(store, TopicCut("b", 0, [(1, 9)]), TopicCut("", 7, [(1, 9)]))
        assert store.log_topics("", 10) == ["a", "é"]
        assert store.targets(0, 10) == [3, 20]

    def test_many_topics_come_page_by_page(self, store: Store) -> None:
        topics = [f"t/{number:05}" for number in range(9000)]
        store.commit(batch_of(entries(1, topics)))
        found: list[str] = []
        while page := store.log_topics(found[-1] if found else "", 1000):
            assert len(page) == 1000
            found += page
        assert found == topics
        trim_all(store, 8990)
        assert store.log_topics("", 5) == topics[8989:8994]

    def test_below_the_oldest_lies_as_much_as_asked_for(self, store: Store) -> None:
        store.commit(batch_of([LogEntry(n, message("a", b"x" * 10)) for n in range(1, 61)]))
        store.commit(batch_of([LogEntry(n, message("b", b"x" * 100)) for n in range(61, 101)]))
        for messages, size in [(1, 0), (60, 0), (61, 0), (100, 0), (0, 1), (0, 500), (0, 3000)]:
            lsn = store.oldest(messages, size)
            below = store.fetch(list(range(1, lsn)))
            assert len(below) >= messages
            assert sum(content_bytes(entry.message) for entry in below) >= size
        assert store.oldest(60, 0) == 61
        assert store.oldest(PLENTY, 1) == store.oldest(0, 1)
        assert store.oldest(101, 0) == store.oldest(0, PLENTY) == 101
        trim_all(store, 61)
        assert store.oldest(40, 0) == 101

    def test_a_trim_below_the_oldest_removes_as_much(self, store: Store) -> None:
        for first in range(1, 2001, 100):
            store.commit(batch_of(entries(first, ["a"] * 100)))
        _count_on(store)
        for messages in (1, 150, 1000):
            before = store.space().log_messages
            trim_all(store, store.oldest(messages, 0))
            assert before - store.space().log_messages >= messages

    def test_what_is_in_the_log_is_counted(self, store: Store, reopen: Reopen) -> None:
        found = store.space()
        assert (found.first_lsn, found.next_lsn, found.log_messages) == (1, 1, 0)
        store.commit(batch_of([*entries(1, ["a"] * 500 + ["b"] * 500), *entries(1001, ["a"], 7)]))
        store = reopen(store)
        store.commit(batch_of([*entries(1002, ["c"] * 10), *entries(1012, ["c"] * 5, 8)]))
        trim_all(store, 257)  # below and above what the census has counted so far
        end = Batch()
        end.ended = [7, 8]
        store.commit(end)
        _count_on(store)
        found = store.space()
        there = store.fetch(list(range(1, 1017)))
        assert found.log_messages == len(there)
        size = sum(content_bytes(entry.message) for entry in there)
        assert size <= found.log_bytes <= size + 4 * len(there)
        assert (found.first_lsn, found.next_lsn) == (there[0].lsn, 1017)
        trim_all(store, 1017)
        found = store.space()
        assert (found.log_messages, found.log_bytes) == (0, 0)
        assert (found.first_lsn, found.next_lsn) == (1017, 1017)


class TestUpkeep:
    """Promise 16."""

    def test_it_changes_nothing(self, store: Store, reopen: Reopen) -> None:
        batch = batch_of(entries(1, ["a", "b"] * 300))
        batch.retained = [RetainedRecord("a", message("a"))]
        batch.time_marks = [TimeMark(1, 5)]
        batch.losses = [loss(7)]
        store.commit(batch)
        store = reopen(store)
        trim_all(store, 100)
        before = content_of_snapshot(store.load())
        was = content_of_entries(store.fetch(list(range(1, 601))))
        _count_on(store)
        assert content_of_snapshot(store.load()) == before
        assert content_of_entries(store.fetch(list(range(1, 601)))) == was


def _cut_all(store: Store, *cuts: TopicCut) -> int:
    """How many steps it took."""
    steps = 1
    while store.trim_topics(list(cuts)):
        steps += 1
        assert steps < PLENTY
    return steps


def _count_on(store: Store) -> None:
    while store.maintain():
        pass
    assert store.space().is_counted


def _marks(store: Store) -> list[int]:
    return [mark.lsn for mark in store.load().time_marks]
