"""Random batches, reads, trims and restarts on every store, beside a plainly right model."""

import tempfile
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from holdfast.message import Message, Properties, content_bytes
from holdfast.store import sqlite_reader, sqlite_topics, sqlite_upkeep, sqlite_writer, topic_sets
from holdfast.store.interface import Store
from holdfast.store.memory import MemoryStore
from holdfast.store.records import (
    OPEN,
    Batch,
    DelayedRecord,
    FilterSpan,
    GroupRecord,
    LogEntry,
    LossRecord,
    ReadRequest,
    RetainedRecord,
    SessionRecord,
    Snapshot,
    StateRecord,
    SubscriptionRecord,
    TimeMark,
    TopicCut,
)
from holdfast.store.sqlite import open_store
from tests.store.support import (
    ODD_TOPICS,
    PLENTY,
    Model,
    content_of_entries,
    content_of_snapshot,
    count_all,
    is_in_cut,
    read_all,
)

WILDCARDS: Final = ["#", "+", "a/#", "a/+", "+/b", "+/+", "a/b/#", "/#", "/+", "+/", "a/+/#"]
OTHER_FILTERS: Final = ["$SYS/#", "$SYS/+", "$share/g/a/#", "$share/g/007", "absent", "absent/#"]

topics = (
    st.just("a") | st.sampled_from(ODD_TOPICS[:-1]) | st.builds("a/{}".format, st.integers(0, 40))
)
# Some come more often, so that several spans of one read concern one topic.
topic_filters = (
    st.sampled_from(["a", "a/#", "#"]) | topics | st.sampled_from(WILDCARDS + OTHER_FILTERS)
)
numbers = st.integers(1, 6)  # of sessions and groups, and of delayed messages
times_ms = st.integers(0, 2**42)


@st.composite
def properties(draw: st.DrawFn) -> Properties | None:
    if draw(st.booleans()):
        return None
    found = Properties()
    found.content_type = draw(st.sampled_from(["", "text/plain", "\U0010ffff"]))
    found.correlation_data = draw(st.none() | st.binary(max_size=4))
    found.user_properties = draw(st.lists(st.tuples(st.sampled_from("ab"), st.just("c"))))
    return found


def messages(topic: st.SearchStrategy[str] = topics) -> st.SearchStrategy[Message]:
    return st.builds(
        Message,
        topic,
        st.binary(max_size=3) | st.sampled_from([b"", bytes(range(256)) * 30]),
        st.integers(0, 2),
        st.booleans(),
        properties(),
        st.just(0) | times_ms,
        st.sampled_from(["", "meter-7", "\U0010ffff" * 50]),
    )


class StoreMachine(RuleBasedStateMachine):
    """Runs a SqliteStore, a MemoryStore and the model side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.sqlite: Store = open_store(Path(self.folder.name))
        self.memory: Store = MemoryStore()
        self.model = Model()
        self.trimmed_below = 1
        self.left_over: set[int] = set()  # what was cut and may still be there

    def teardown(self) -> None:
        self.sqlite.close()
        self.folder.cleanup()

    @property
    def stores(self) -> list[Store]:
        return [self.sqlite, self.memory]

    @rule(
        runs=st.lists(st.tuples(messages(), st.integers(1, 300), st.just(0) | numbers), max_size=4),
        ended=st.lists(numbers, max_size=1),
        sessions=st.lists(
            st.builds(
                SessionRecord,
                numbers,
                topics,
                st.integers(3, 5),
                st.integers(0, 2**40),
                st.sampled_from([0, 1, 0xFFFF_FFFF]),
                times_ms,
                st.none() | messages(),
                st.integers(0, 0xFFFF_FFFF),
                times_ms,
            ),
            max_size=2,
        ),
        states=st.lists(
            st.builds(
                StateRecord,
                numbers,
                st.integers(1, 2**40),
                st.binary(max_size=3),
                st.binary(max_size=3),
                st.binary(max_size=3),
            ),
            max_size=20,
        ),
        added=st.lists(
            st.builds(
                SubscriptionRecord,
                numbers,
                topic_filters,
                st.integers(1, 3),
                st.just(OPEN) | st.integers(4, 100),
                st.integers(0, 255),
                st.integers(0, 2**28 - 1),
            ),
            max_size=3,
        ),
        removed=st.lists(
            st.builds(
                SubscriptionRecord,
                numbers,
                topic_filters,
                st.integers(1, 3),
                st.just(OPEN),
                st.just(0),
                st.just(0),
            ),
            max_size=2,
        ),
        retained=st.lists(st.tuples(messages(), st.booleans()), max_size=3),
        groups=st.lists(
            st.builds(
                GroupRecord,
                st.integers(1, 9),
                topic_filters.map("$share/g/{}".format),
                st.integers(1, 2**40),
                st.binary(max_size=3),
                st.binary(max_size=3),
            ),
            max_size=2,
        ),
        delayed=st.lists(
            st.builds(DelayedRecord, numbers, times_ms, st.integers(0, 2**32), messages()),
            max_size=3,
        ),
        delayed_removed=st.lists(numbers, max_size=3),
        losses=st.lists(
            st.builds(LossRecord, st.integers(1, 9), times_ms, times_ms, times_ms, numbers),
            max_size=2,
        ),
        has_time_mark=st.booleans(),
    )
    def commit(
        self,
        runs: list[tuple[Message, int, int]],
        ended: list[int],
        sessions: list[SessionRecord],
        states: list[StateRecord],
        added: list[SubscriptionRecord],
        removed: list[SubscriptionRecord],
        retained: list[tuple[Message, bool]],
        groups: list[GroupRecord],
        delayed: list[DelayedRecord],
        delayed_removed: list[int],
        losses: list[LossRecord],
        has_time_mark: bool,
    ) -> None:
        batch = Batch()
        lsn = self.model.next_lsn
        for message, count, target in runs:
            batch.entries += [LogEntry(lsn + index, message, target) for index in range(count)]
            lsn += count
        batch.ended = ended
        batch.sessions = sessions
        batch.states = states
        batch.subscriptions = added
        batch.subscriptions_removed = removed
        batch.retained = [
            RetainedRecord(message.topic, message if is_set else None)
            for message, is_set in retained
        ]
        batch.groups = groups
        batch.delayed = delayed
        batch.delayed_removed = delayed_removed
        batch.losses = losses
        if has_time_mark:
            batch.time_marks = [TimeMark(self.model.next_lsn, self.model.next_lsn * 10)]
        for store in self.stores:
            store.commit(batch)
        self.model.commit(batch)

    @rule(
        number=numbers,
        position=st.floats(0, 1),
        end=st.floats(0, 1),
        spans=st.lists(
            st.tuples(topic_filters, st.floats(0, 1), st.none() | st.floats(0, 1)), max_size=5
        ),
        messages_max=st.integers(1, 10) | st.just(PLENTY),
        bytes_max=st.integers(1, 50_000) | st.just(PLENTY),
    )
    def read(
        self,
        number: int,
        position: float,
        end: float,
        spans: list[tuple[str, float, float | None]],
        messages_max: int,
        bytes_max: int,
    ) -> None:
        first = self._lsn(position, self.trimmed_below)
        request = ReadRequest(
            number,
            first,
            self._lsn(end, first),
            [
                FilterSpan(
                    topic_filter,
                    self._lsn(low, 1),
                    OPEN if high is None else self._lsn(high, self._lsn(low, 1)),
                )
                for topic_filter, low, high in spans
            ],
            messages_max,
            bytes_max,
        )
        expected = content_of_entries(self.model.read(request))
        for store in self.stores:
            found = read_all(store, request)
            assert count_all(store, request) == len(found)
            assert content_of_entries(self._not_cut(found)) == expected

    @rule(wanted=st.lists(st.floats(0, 1.2), max_size=20))
    def fetch(self, wanted: list[float]) -> None:
        lsns = [self._lsn(share, self.trimmed_below) for share in wanted]
        by_lsn = {entry.lsn: entry for entry in self.model.entries}
        expected = content_of_entries([by_lsn[lsn] for lsn in lsns if lsn in by_lsn])
        for store in self.stores:
            assert content_of_entries(self._not_cut(store.fetch(lsns))) == expected

    @rule(share=st.floats(0, 1), steps=st.none() | st.integers(1, 3))
    def trim(self, share: float, steps: int | None) -> None:
        below_lsn = self._lsn(share, 1)
        self.trimmed_below = max(self.trimmed_below, below_lsn)
        for store in self.stores:
            for _ in range(PLENTY if steps is None else steps):
                if not store.trim(below_lsn):
                    break

    @rule(
        cuts=st.lists(
            st.tuples(
                topics | numbers,
                st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=3),
            ),
            max_size=4,
        )
    )
    def trim_topics(self, cuts: list[tuple[str | int, list[tuple[float, float]]]]) -> None:
        wanted: list[TopicCut] = []
        for chosen, shares in cuts:
            lows = [(self._lsn(low, 1), high) for low, high in shares]
            spans = [(low, self._lsn(high, low)) for low, high in lows]
            if isinstance(chosen, str):
                wanted.append(TopicCut(chosen, 0, spans))
            else:
                wanted.append(TopicCut("", chosen, spans))
        for store in self.stores:
            while store.trim_topics(wanted):
                pass
        cut = {
            entry.lsn
            for entry in self.model.entries
            if any(is_in_cut(wanted_cut, entry) for wanted_cut in wanted)
        }
        self.model.entries = [entry for entry in self.model.entries if entry.lsn not in cut]
        # The store on SQLite leaves what lies in blocks that are not cut as a whole.
        self.left_over |= cut
        found = {entry.lsn for entry in self._all_of(self.memory)}
        for entry in self.model.entries:
            assert entry.lsn in found or entry.lsn < self.trimmed_below
        assert not found & self.left_over

    @rule(messages=st.integers(0, 300), size=st.just(0) | st.integers(1, 50_000))
    def oldest(self, messages: int, size: int) -> None:
        if messages == size == 0:
            return
        for store in self.stores:
            lsn = store.oldest(messages, size)
            below = [entry for entry in self._all_of(store) if entry.lsn < lsn]
            has_messages = 0 < messages <= len(below)
            has_bytes = 0 < size <= sum(self._bytes_of(entry) for entry in below)
            assert has_messages or has_bytes or lsn == self.model.next_lsn

    @rule(after=topics, above=st.just(0) | numbers, limit=st.integers(1, 5))
    def names(self, after: str, above: int, limit: int) -> None:
        for store in self.stores:
            found = self._all_of(store)
            shared = {entry.message.topic for entry in found if entry.target == 0}
            own = {entry.target for entry in found if entry.target != 0}
            assert store.log_topics(after, limit) == sorted(t for t in shared if t > after)[:limit]
            assert store.targets(above, limit) == sorted(t for t in own if t > above)[:limit]

    @rule(steps=st.none() | st.integers(1, 3))
    def maintain(self, steps: int | None) -> None:
        for store in self.stores:
            for _ in range(PLENTY if steps is None else steps):
                if not store.maintain():
                    break

    @rule()
    def space(self) -> None:
        for store in self.stores:
            found = store.space()
            there = self._all_of(store)
            assert found.next_lsn == self.model.next_lsn
            assert found.first_lsn == (there[0].lsn if there else found.next_lsn)
            assert found.log_messages <= len(there)
            assert not found.is_counted or found.log_messages == len(there)

    @rule()
    def reopen(self) -> None:
        self.sqlite.close()
        self.sqlite = open_store(Path(self.folder.name))

    @invariant()
    def all_agree(self) -> None:
        expected = content_of_snapshot(self.model.snapshot())
        for store in self.stores:
            snapshot = store.load()
            self._check_time_marks(store, snapshot)
            assert (
                content_of_snapshot(snapshot) | {"time_marks": expected["time_marks"]} == expected
            )

    def _not_cut(self, found: list[LogEntry]) -> list[LogEntry]:
        return [entry for entry in found if entry.lsn not in self.left_over]

    def _all_of(self, store: Store) -> list[LogEntry]:
        return store.fetch(list(range(1, self.model.next_lsn)))

    def _bytes_of(self, entry: LogEntry) -> int:
        """More than it takes in a block."""
        return 300 + content_bytes(entry.message)

    def _check_time_marks(self, store: Store, snapshot: Snapshot) -> None:
        first_lsn = store.space().first_lsn
        found = {mark.lsn: mark.at_ms for mark in snapshot.time_marks}
        was = {mark.lsn: mark.at_ms for mark in self.model.time_marks.values()}
        assert found.items() <= was.items()
        below = [lsn for lsn in was if lsn < first_lsn]
        assert {lsn for lsn in was if lsn >= first_lsn} | set(below[-1:]) <= found.keys()

    def _lsn(self, share: float, least: int) -> int:
        """An lsn between the least and the next one; beyond 1, one that was not given out."""
        return least + int(share * (self.model.next_lsn - least))


@pytest.mark.parametrize("limits", ["as they are", "tiny"])
def test_a_store_does_what_the_model_does(limits: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if limits == "tiny":  # so that few messages reach all of them
        monkeypatch.setattr(topic_sets, "LISTED_TOPICS_MAX", 2)
        monkeypatch.setattr(sqlite_reader, "LISTED_TOPICS_MAX", 2)
        monkeypatch.setattr(sqlite_reader, "SCANNED_BLOCKS_MAX", 3)
        monkeypatch.setattr(sqlite_reader, "SKIP_BLOCKS_PER_TOPIC", 0)
        monkeypatch.setattr(sqlite_reader, "DATA_BYTES_MAX", 20_000)
        monkeypatch.setattr(sqlite_reader, "MERGED_TOPICS_MAX", 1)
        monkeypatch.setattr(sqlite_reader, "SCANNED_BLOCKS_PER_TOPIC", 2)
        monkeypatch.setattr(sqlite_topics, "TOPICS_PER_STEP", 2)
        monkeypatch.setattr(sqlite_topics, "SETS_BYTES_MAX", 3000)
        monkeypatch.setattr(sqlite_topics, "SET_FORGOTTEN_MAX", 3)
        monkeypatch.setattr(sqlite_topics, "NAMES_MAX", 2)
        monkeypatch.setattr(sqlite_upkeep, "TRIMMED_BLOCKS_MIN", 1)
        monkeypatch.setattr(sqlite_upkeep, "TRIMMED_BLOCKS_MAX", 2)
        monkeypatch.setattr(sqlite_upkeep, "TRIMMED_BYTES_PER_BLOCK", 10_000)
        monkeypatch.setattr(sqlite_upkeep, "UPKEEP_FRAMES", 7)
        monkeypatch.setattr(sqlite_upkeep, "WAL_BYTES_MAX", 100_000)
        monkeypatch.setattr(sqlite_upkeep, "VACUUM_ABOVE_BYTES", 10_000)
        monkeypatch.setattr(sqlite_upkeep, "VACUUM_PAGES_MAX", 2)
        monkeypatch.setattr(sqlite_writer, "TOPICS_CACHED_MAX", 2)
        monkeypatch.setattr(sqlite_upkeep, "CHECKPOINT_FRAMES", 20)
    run_state_machine_as_test(
        StoreMachine,
        settings=settings(
            max_examples=25,
            stateful_step_count=15,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
