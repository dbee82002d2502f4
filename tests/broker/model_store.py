"""A store as plain as it can be: dictionaries, and copies of all that goes in and comes out.

It keeps copies because a real store writes bytes: what the broker changes in a message or a record
after the commit must not reach the disk.
"""

from holdfast.message import Message, Properties
from holdfast.protocol.topics import matches
from holdfast.store.records import (
    OPEN,
    Batch,
    DelayedRecord,
    FilterSpan,
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
        for retained in batch.retained:
            if retained.message is None:
                self.retained.pop(retained.topic, None)
            else:
                self.retained[retained.topic] = _message(retained.message)
        for delayed in batch.delayed:
            self.delayed[delayed.number] = _delayed(delayed)
        for number in batch.delayed_removed:
            self.delayed.pop(number, None)
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

    def trim(self, below_lsn: int) -> bool:
        for lsn in [lsn for lsn in self.entries if lsn < below_lsn]:
            del self.entries[lsn]
        return False

    def close(self) -> None:
        """There is nothing to let go."""

    def _end(self, number: int) -> None:
        self.sessions.pop(number, None)
        self.states.pop(number, None)
        self.groups.pop(number, None)
        for key in [key for key in self.subscriptions if key[0] == number]:
            del self.subscriptions[key]


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
    return StateRecord(record.session, record.cursor, record.in_flight, record.received)


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
    return GroupRecord(record.number, record.topic_filter, record.cursor, record.returned)


def _delayed(record: DelayedRecord) -> DelayedRecord:
    return DelayedRecord(record.number, record.due_ms, record.seconds, _message(record.message))
