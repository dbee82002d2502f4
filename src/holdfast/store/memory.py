"""The store that keeps nothing: everything is in memory and ends with the process."""

from bisect import bisect_left
from collections.abc import Iterator
from heapq import merge, nsmallest
from threading import Lock
from typing import Final, final

from holdfast.message import content_bytes
from holdfast.protocol.topics import matches
from holdfast.store.records import (
    Batch,
    DelayedRecord,
    GroupRecord,
    LogCount,
    LogEntry,
    LogSlice,
    LossRecord,
    ReadRequest,
    RetainedRecord,
    SessionRecord,
    Snapshot,
    Space,
    StateRecord,
    SubscriptionRecord,
    TimeMark,
    TopicCut,
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
        self._losses: dict[int, LossRecord] = {}
        self._time_marks: dict[int, TimeMark] = {}
        self._entries: dict[int, LogEntry] = {}
        self._entries_bytes = 0
        self._first_lsn = 1  # all entries below are gone
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
            snapshot.losses = [record for _, record in sorted(self._losses.items())]
            snapshot.time_marks = [mark for _, mark in sorted(self._time_marks.items())]
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
            for loss in batch.losses:
                self._losses[loss.owner] = loss
            for retained in batch.retained:
                if retained.message is None:
                    self._retained.pop(retained.topic, None)
                else:
                    self._retained[retained.topic] = retained
            for delayed in batch.delayed:
                self._delayed[delayed.number] = delayed
            for number in batch.delayed_removed:
                self._delayed.pop(number, None)
            for mark in batch.time_marks:
                self._time_marks[mark.lsn] = mark
            for entry in entries:
                self._append(entry)
            self._next_lsn += len(entries)

    def read(self, request: ReadRequest) -> LogSlice:
        """See ``Store.read``."""
        assert request.position <= request.end
        found = SliceBuilder(request)
        with self._lock:
            for entry in self._matching_entries(request):
                if not found.add(entry):
                    break
        return found.finish(request.end)

    def fetch(self, lsns: list[int]) -> list[LogEntry]:
        """See ``Store.fetch``."""
        with self._lock:
            return [self._entries[lsn] for lsn in lsns if lsn in self._entries]

    def count(self, request: ReadRequest) -> LogCount:
        """See ``Store.count``; the bytes are exact as well."""
        messages = 0
        size = 0
        with self._lock:
            for entry in self._matching_entries(request):
                if messages == request.messages_max or size > request.bytes_max:
                    return LogCount(messages, size, entry.lsn)
                messages += 1
                size += content_bytes(entry.message)
        return LogCount(messages, size, request.end)

    def log_topics(self, after: str, limit: int) -> list[str]:
        """See ``Store.log_topics``."""
        with self._lock:
            return nsmallest(
                limit, (topic for topic, lsns in self._topics.items() if lsns and topic > after)
            )

    def targets(self, after: int, limit: int) -> list[int]:
        """See ``Store.targets``."""
        with self._lock:
            return nsmallest(limit, (target for target in self._targets if target > after))

    def oldest(self, messages: int, bytes: int) -> int:
        """See ``Store.oldest``."""
        assert messages > 0 or bytes > 0
        count = 0
        size = 0
        with self._lock:
            for lsn, entry in self._entries.items():
                count += 1
                size += content_bytes(entry.message)
                if 0 < messages <= count or 0 < bytes <= size:
                    return lsn + 1
            return self._next_lsn

    def trim(self, below_lsn: int) -> bool:
        """See ``Store.trim``."""
        with self._lock:
            start = self._first_lsn
            stop = min(below_lsn, start + TRIMMED_MAX, self._next_lsn)
            if stop <= start:
                return False
            self._remove([lsn for lsn in range(start, stop) if lsn in self._entries])
            self._first_lsn = stop
            self._forget_time_marks()
            return stop < min(below_lsn, self._next_lsn)

    def trim_topics(self, cuts: list[TopicCut]) -> bool:
        """See ``Store.trim_topics``."""
        with self._lock:
            found: list[int] = []
            for cut in cuts:
                if cut.target == 0:
                    lsns = self._topics.get(cut.topic, [])
                else:
                    lsns = self._targets.get(cut.target, [])
                for low, high in cut.spans:
                    assert low <= high
                    found += _between(lsns, (low, high))
                    if len(found) > TRIMMED_MAX:
                        self._remove(sorted(set(found[:TRIMMED_MAX])))
                        self._forget_time_marks()
                        return True
            self._remove(sorted(set(found)))
            self._forget_time_marks()
            return False

    def space(self) -> Space:
        """See ``Store.space``."""
        with self._lock:
            count = len(self._entries)
            return Space(count, self._entries_bytes, True, self._oldest_lsn(), self._next_lsn)

    def maintain(self) -> bool:
        """See ``Store.maintain``: there is nothing to do."""
        return False

    def close(self) -> None:
        """See ``Store.close``."""

    def _matching_entries(self, request: ReadRequest) -> Iterator[LogEntry]:
        """What a read gives, in the order of lsn."""
        own = self._targets.get(request.session, [])
        runs = [_between(own, (request.position, request.end))]
        for topic, intervals in self._intervals(request).items():
            lsns = self._topics.get(topic, [])
            runs += [_between(lsns, interval) for interval in merged(intervals)]
        for lsn in merge(*runs):
            yield self._entries[lsn]

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
        self._losses.pop(number, None)
        for lsn in self._targets.pop(number, []):
            self._entries_bytes -= content_bytes(self._entries.pop(lsn).message)

    def _append(self, entry: LogEntry) -> None:
        self._entries[entry.lsn] = entry
        self._entries_bytes += content_bytes(entry.message)
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

    def _remove(self, lsns: list[int]) -> None:
        """Remove entries, whose lsns are ascending."""
        topics: dict[str, list[int]] = {}
        targets: dict[int, list[int]] = {}
        for lsn in lsns:
            entry = self._entries.pop(lsn)
            self._entries_bytes -= content_bytes(entry.message)
            if entry.target == 0:
                topics.setdefault(entry.message.topic, []).append(lsn)
            else:
                targets.setdefault(entry.target, []).append(lsn)
        for topic, removed in topics.items():
            _take_out(self._topics[topic], removed)
            if not self._topics[topic]:
                self._empty_topics += 1
        for target, removed in targets.items():
            _take_out(self._targets[target], removed)
            if not self._targets[target]:
                del self._targets[target]
        self._forget_empty_topics()

    def _forget_time_marks(self) -> None:
        first_lsn = self._oldest_lsn()
        for lsn in sorted(lsn for lsn in self._time_marks if lsn < first_lsn)[:-1]:
            del self._time_marks[lsn]

    def _oldest_lsn(self) -> int:
        """That of the oldest entry, or the next one. Each lsn is passed over once in all."""
        while self._first_lsn < self._next_lsn and self._first_lsn not in self._entries:
            self._first_lsn += 1
        return self._first_lsn

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


def _take_out(lsns: list[int], removed: list[int]) -> None:
    """Take some of the lsns out; both are ascending."""
    low = bisect_left(lsns, removed[0])
    high = bisect_left(lsns, removed[-1]) + 1
    gone = set(removed)
    lsns[low:high] = [lsn for lsn in lsns[low:high] if lsn not in gone]
