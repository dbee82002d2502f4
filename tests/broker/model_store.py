"""A store as plain as it can be: dictionaries, and copies of all that goes in and comes out.

It keeps copies because a real store writes bytes: what the broker changes in a message or a record
after the commit must not reach the disk.
"""

from holdfast.message import Message, Properties, content_bytes
from holdfast.protocol.topics import matches
from holdfast.store.records import (
    OPEN,
    Batch,
    DelayedRecord,
    FilterSpan,
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


class ModelStore:
    """What the ``Store`` interface promises, with nothing clever in it."""

    def __init__(self) -> None:
        self.entries: dict[int, LogEntry] = {}
        self.sessions: dict[int, SessionRecord] = {}
        self.states: dict[int, StateRecord] = {}
        self.subscriptions: dict[tuple[int, str, int], SubscriptionRecord] = {}
        self.retained: dict[str, Message] = {}
        self.groups: dict[int, GroupRecord] = {}
        self.delayed: dict[int, DelayedRecord] = {}
        self.losses: dict[int, LossRecord] = {}
        self.time_marks: dict[int, int] = {}
        self.next_lsn = 1
        self.next_session = 1

    @property
    def description(self) -> str:
        return "model"

    def load(self) -> Snapshot:
        snapshot = Snapshot()
        snapshot.next_lsn = self.next_lsn
        snapshot.next_session = self.next_session
        snapshot.sessions = [_session(record) for record in self.sessions.values()]
        snapshot.states = [_state(record) for record in self.states.values()]
        snapshot.subscriptions = [_subscription(r) for r in self.subscriptions.values()]
        snapshot.retained = [
            RetainedRecord(topic, _message(message)) for topic, message in self.retained.items()
        ]
        snapshot.groups = [_group(record) for record in self.groups.values()]
        snapshot.delayed = [_delayed(record) for record in self.delayed.values()]
        snapshot.losses = [_loss(record) for record in self.losses.values()]
        snapshot.time_marks = [TimeMark(lsn, at_ms) for lsn, at_ms in self.time_marks.items()]
        return snapshot

    def commit(self, batch: Batch) -> None:
        for number in batch.ended:
            self._end(number)
        for session in batch.sessions:
            self.sessions[session.number] = _session(session)
            self.next_session = max(self.next_session, session.number + 1)
        for group in batch.groups:
            self.groups[group.number] = _group(group)
            self.next_session = max(self.next_session, group.number + 1)
        for record in batch.subscriptions_removed:
            self.subscriptions.pop(_key(record), None)
        for record in batch.subscriptions:
            self.subscriptions[_key(record)] = _subscription(record)
        for state in batch.states:
            self.states[state.session] = _state(state)
        for loss in batch.losses:
            self.losses[loss.owner] = _loss(loss)
        for retained in batch.retained:
            if retained.message is None:
                self.retained.pop(retained.topic, None)
            else:
                self.retained[retained.topic] = _message(retained.message)
        for delayed in batch.delayed:
            self.delayed[delayed.number] = _delayed(delayed)
        for number in batch.delayed_removed:
            self.delayed.pop(number, None)
        for mark in batch.time_marks:
            self.time_marks[mark.lsn] = mark.at_ms
        for entry in batch.entries:
            assert entry.lsn == self.next_lsn, "the log is dense"
            self.entries[entry.lsn] = _entry(entry)
            self.next_lsn += 1

    def read(self, request: ReadRequest) -> LogSlice:
        assert request.messages_max >= 1 and request.bytes_max >= 1
        assert request.position <= request.end <= self.next_lsn
        found: list[LogEntry] = []
        size = 0
        for lsn, entry in self.entries.items():
            if not request.position <= lsn < request.end or not _is_for(request, entry):
                continue
            if len(found) == request.messages_max or (found and size > request.bytes_max):
                return LogSlice(found, lsn)
            size += len(entry.message.payload)
            found.append(_entry(entry))
        return LogSlice(found, request.end)

    def fetch(self, lsns: list[int]) -> list[LogEntry]:
        return [_entry(self.entries[lsn]) for lsn in lsns if lsn in self.entries]

    def count(self, request: ReadRequest) -> LogCount:
        found = self.read(request)
        size = sum(content_bytes(entry.message) for entry in found.entries)
        return LogCount(len(found.entries), size, found.position)

    def log_topics(self, after: str, limit: int) -> list[str]:
        topics = {entry.message.topic for entry in self.entries.values() if entry.target == 0}
        return sorted(topic for topic in topics if topic > after)[:limit]

    def targets(self, after: int, limit: int) -> list[int]:
        targets = {entry.target for entry in self.entries.values() if entry.target != 0}
        return sorted(target for target in targets if target > after)[:limit]

    def oldest(self, messages: int, bytes: int) -> int:
        size = 0
        for count, (lsn, entry) in enumerate(self.entries.items(), 1):
            size += content_bytes(entry.message)
            if 0 < messages <= count or 0 < bytes <= size:
                return lsn + 1
        return self.next_lsn

    def trim(self, below_lsn: int) -> bool:
        self._remove([lsn for lsn in self.entries if lsn < below_lsn])
        return False

    def trim_topics(self, cuts: list[TopicCut]) -> bool:
        for cut in cuts:
            self._remove([lsn for lsn, entry in self.entries.items() if _is_cut(cut, entry)])
        return False

    def space(self) -> Space:
        size = sum(content_bytes(entry.message) for entry in self.entries.values())
        first_lsn = min(self.entries, default=self.next_lsn)
        return Space(len(self.entries), size, True, first_lsn, self.next_lsn)

    def maintain(self) -> bool:
        return False

    def close(self) -> None:
        """There is nothing to let go."""

    def _end(self, number: int) -> None:
        self.sessions.pop(number, None)
        self.states.pop(number, None)
        self.groups.pop(number, None)
        self.losses.pop(number, None)
        for key in [key for key in self.subscriptions if key[0] == number]:
            del self.subscriptions[key]

    def _remove(self, lsns: list[int]) -> None:
        for lsn in lsns:
            del self.entries[lsn]
        first_lsn = min(self.entries, default=self.next_lsn)
        for lsn in sorted(lsn for lsn in self.time_marks if lsn < first_lsn)[:-1]:
            del self.time_marks[lsn]


def _key(record: SubscriptionRecord) -> tuple[int, str, int]:
    return record.session, record.topic_filter, record.from_lsn


def _is_for(request: ReadRequest, entry: LogEntry) -> bool:
    if entry.target != 0:
        return entry.target == request.session
    return any(_covers(span, entry) for span in request.spans)


def _covers(span: FilterSpan, entry: LogEntry) -> bool:
    if entry.lsn < span.from_lsn or (span.until_lsn != OPEN and entry.lsn >= span.until_lsn):
        return False
    return matches(span.topic_filter, entry.message.topic)


def _is_cut(cut: TopicCut, entry: LogEntry) -> bool:
    assert all(low <= high for low, high in cut.spans)
    if entry.target != cut.target or (cut.target == 0 and entry.message.topic != cut.topic):
        return False
    return any(low <= entry.lsn < high for low, high in cut.spans)


def _entry(entry: LogEntry) -> LogEntry:
    return LogEntry(entry.lsn, _message(entry.message), entry.target)


def _message(message: Message) -> Message:
    return Message(
        message.topic,
        message.payload,
        message.qos,
        message.retain,
        _properties(message.properties),
        message.expires_at_ms,
        message.publisher,
    )


def _properties(properties: Properties | None) -> Properties | None:
    if properties is None:
        return None
    copy = Properties()
    copy.payload_format_indicator = properties.payload_format_indicator
    copy.message_expiry_interval = properties.message_expiry_interval
    copy.content_type = properties.content_type
    copy.response_topic = properties.response_topic
    copy.correlation_data = properties.correlation_data
    copy.user_properties = list(properties.user_properties)
    return copy


def _session(record: SessionRecord) -> SessionRecord:
    return SessionRecord(
        record.number,
        record.client_id,
        record.version,
        record.epoch,
        record.expiry_s,
        record.disconnected_at_ms,
        None if record.will is None else _message(record.will),
        record.will_delay_s,
        record.will_due_ms,
    )


def _state(record: StateRecord) -> StateRecord:
    return StateRecord(
        record.session, record.cursor, record.in_flight, record.received, record.gaps
    )


def _subscription(record: SubscriptionRecord) -> SubscriptionRecord:
    return SubscriptionRecord(
        record.session,
        record.topic_filter,
        record.from_lsn,
        record.until_lsn,
        record.options,
        record.identifier,
    )


def _group(record: GroupRecord) -> GroupRecord:
    return GroupRecord(
        record.number, record.topic_filter, record.cursor, record.returned, record.gaps
    )


def _loss(record: LossRecord) -> LossRecord:
    return LossRecord(record.owner, record.messages, record.bytes, record.at_ms, record.reason)


def _delayed(record: DelayedRecord) -> DelayedRecord:
    return DelayedRecord(record.number, record.due_ms, record.seconds, _message(record.message))
