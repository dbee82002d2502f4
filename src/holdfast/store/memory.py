"""The store that keeps nothing: everything is in memory and ends with the process."""

from bisect import bisect_left
from collections.abc import Iterator
from heapq import merge
from threading import Lock
from typing import Final, final

from holdfast.protocol.topics import matches
from holdfast.store.records import (
    Batch,
    DelayedRecord,
    GroupRecord,
    LogEntry,
    LogSlice,
    ReadRequest,
    RetainedRecord,
    SessionRecord,
    Snapshot,
    StateRecord,
    SubscriptionRecord,
)
from holdfast.store.spans import Interval, SliceBuilder, clipped, merged
from holdfast.store.topic_sets import is_exact, topic_of

TRIMMED_MAX: Final = 4096  # entries removed in one step
FILTERS_KEPT_MAX: Final = 1024  # filters whose matching topics are kept between reads
EMPTY_TOPICS_MAX: Final = 1024  # topics without messages, or half of all, that are kept

SubscriptionKey = tuple[str, int]


@final
class MemoryStore:
    """See ``Store``: a commit is atomic, but durable only until the process ends."""

    def __init__(self) -> None:
        self._lock = Lock()  # reads come from another thread
        self._next_lsn = 1
        self._next_session = 1
        self._sessions: dict[int, SessionRecord] = {}
        self._states: dict[int, StateRecord] = {}
        self._subscriptions: dict[int, dict[SubscriptionKey, SubscriptionRecord]] = {}
        self._retained: dict[str, RetainedRecord] = {}
        self._groups: dict[int, GroupRecord] = {}
        self._delayed: dict[int, DelayedRecord] = {}
        self._entries: dict[int, LogEntry] = {}
        self._first_lsn = 1  # all entries below are trimmed
        self._topics: dict[str, list[int]] = {}  # the lsns of entries for all, ascending
        self._topic_names: list[str] = []  # the same topics, in the order they came
        self._empty_topics = 0
        self._targets: dict[int, list[int]] = {}  # the lsns of entries for one session, ascending
        # What filters with wildcards match among the first so many topic names.
        self._filters: dict[str, tuple[int, list[str]]] = {}

    @property
    def description(self) -> str:
        """What the operator is told at the start."""
        return "memory, nothing survives a restart"

    def load(self) -> Snapshot:
        """See ``Store.load``."""
        snapshot = Snapshot()
        with self._lock:
            snapshot.next_lsn = self._next_lsn
            snapshot.next_session = self._next_session
            snapshot.sessions = [record for _, record in sorted(self._sessions.items())]
            snapshot.states = [record for _, record in sorted(self._states.items())]
            snapshot.subscriptions = [
                record
                for _, records in sorted(self._subscriptions.items())
                for _, record in sorted(records.items())
            ]
            snapshot.retained = [record for _, record in sorted(self._retained.items())]
            snapshot.groups = [record for _, record in sorted(self._groups.items())]
            snapshot.delayed = [record for _, record in sorted(self._delayed.items())]
        return snapshot

    def commit(self, batch: Batch) -> None:
        """See ``Store.commit``."""
        entries = batch.entries
        assert not entries or entries[0].lsn == self._next_lsn
        assert not entries or entries[-1].lsn == self._next_lsn + len(entries) - 1
        with self._lock:
            for number in batch.ended:
                self._end(number)
            for session in batch.sessions:
                self._sessions[session.number] = session
                self._next_session = max(self._next_session, session.number + 1)
            for group in batch.groups:
                self._groups[group.number] = group
                self._next_session = max(self._next_session, group.number + 1)
            for record in batch.subscriptions_removed:
                self._subscriptions.get(record.session, {}).pop(_key(record), None)
            for record in batch.subscriptions:
                self._subscriptions.setdefault(record.session, {})[_key(record)] = record
            for state in batch.states:
                self._states[state.session] = state
            for retained in batch.retained:
                if retained.message is None:
                    self._retained.pop(retained.topic, None)
                else:
                    self._retained[retained.topic] = retained
            for delayed in batch.delayed:
                self._delayed[delayed.number] = delayed
            for number in batch.delayed_removed:
                self._delayed.pop(number, None)
            for entry in entries:
                self._append(entry)
            self._next_lsn += len(entries)

    def read(self, request: ReadRequest) -> LogSlice:
        """See ``Store.read``."""
        assert request.position <= request.end
        found = SliceBuilder(request)
        with self._lock:
            own = self._targets.get(request.session, [])
            runs = [_between(own, (request.position, request.end))]
            for topic, intervals in self._intervals(request).items():
                lsns = self._topics.get(topic, [])
                runs += [_between(lsns, interval) for interval in merged(intervals)]
            for lsn in merge(*runs):
                if not found.add(self._entries[lsn]):
                    break
        return found.finish(request.end)

    def fetch(self, lsns: list[int]) -> list[LogEntry]:
        """See ``Store.fetch``."""
        with self._lock:
            return [self._entries[lsn] for lsn in lsns if lsn in self._entries]

    def trim(self, below_lsn: int) -> bool:
        """See ``Store.trim``."""
        with self._lock:
            start = self._first_lsn
            stop = min(below_lsn, start + TRIMMED_MAX, self._next_lsn)
            if stop <= start:
                return False
            self._first_lsn = stop
            shortened: set[str] = set()
            targets: set[int] = set()
            for lsn in range(start, stop):
                entry = self._entries.pop(lsn, None)
                if entry is None:
                    continue
                if entry.target == 0:
                    shortened.add(entry.message.topic)
                else:
                    targets.add(entry.target)
            for topic in shortened:
                self._shorten_topic(topic, stop)
            for target in targets:
                lsns = self._targets[target]
                del lsns[: bisect_left(lsns, stop)]
                if not lsns:
                    del self._targets[target]
            self._forget_empty_topics()
            return stop < min(below_lsn, self._next_lsn)

    def close(self) -> None:
        """See ``Store.close``."""

    def _intervals(self, request: ReadRequest) -> dict[str, list[Interval]]:
        """What the spans cover, by topic."""
        intervals: dict[str, list[Interval]] = {}
        for span in request.spans:
            interval = clipped(span, request)
            if interval is not None:
                for topic in self._matching(span.topic_filter):
                    intervals.setdefault(topic, []).append(interval)
        return intervals

    def _matching(self, topic_filter: str) -> list[str]:
        """The topics in the log that a filter matches."""
        if is_exact(topic_filter):
            return [topic_of(topic_filter)]
        if topic_filter not in self._filters and len(self._filters) >= FILTERS_KEPT_MAX:
            self._filters.clear()
        seen, found = self._filters.get(topic_filter, (0, []))
        if seen < len(self._topic_names):
            found += [name for name in self._topic_names[seen:] if matches(topic_filter, name)]
            self._filters[topic_filter] = (len(self._topic_names), found)
        return found

    def _end(self, number: int) -> None:
        self._sessions.pop(number, None)
        self._states.pop(number, None)
        self._subscriptions.pop(number, None)
        self._groups.pop(number, None)
        for lsn in self._targets.pop(number, []):
            del self._entries[lsn]

    def _append(self, entry: LogEntry) -> None:
        self._entries[entry.lsn] = entry
        if entry.target != 0:
            self._targets.setdefault(entry.target, []).append(entry.lsn)
            return
        topic = entry.message.topic
        lsns = self._topics.get(topic)
        if lsns is None:
            self._topics[topic] = [entry.lsn]
            self._topic_names.append(topic)
            return
        if not lsns:
            self._empty_topics -= 1
        lsns.append(entry.lsn)

    def _shorten_topic(self, topic: str, below_lsn: int) -> None:
        lsns = self._topics[topic]
        del lsns[: bisect_left(lsns, below_lsn)]
        if not lsns:
            self._empty_topics += 1

    def _forget_empty_topics(self) -> None:
        if self._empty_topics <= max(EMPTY_TOPICS_MAX, len(self._topics) // 2):
            return
        self._topics = {topic: lsns for topic, lsns in self._topics.items() if lsns}
        self._topic_names = list(self._topics)
        self._empty_topics = 0
        self._filters.clear()


def _key(record: SubscriptionRecord) -> SubscriptionKey:
    return record.topic_filter, record.from_lsn


def _between(lsns: list[int], interval: Interval) -> Iterator[int]:
    """The lsns, which are ascending, that lie in an interval."""
    low, high = interval
    for index in range(bisect_left(lsns, low), len(lsns)):
        if lsns[index] >= high:
            return
        yield lsns[index]
