"""What the tests of the stores share: a model, short ways to make records, and their content."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from holdfast.message import Message, Properties, content_bytes
from holdfast.protocol.topics import matches
from holdfast.store.interface import Store
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
    pack_gaps,
)

PLENTY: Final = 1_000_000_000
HUGE_TOPIC: Final = "€" * 21_845  # 65,535 bytes
# Names that a careless store would turn into numbers, cut, fold or mix up.
ODD_TOPICS: Final = [
    "007",
    "7",
    "1e5",
    "100000",
    "0x10",
    "NULL",
    " ",
    "a",
    "A",
    "a ",
    "a/",
    "/a",
    "/",
    "//",
    "a/b",
    "a/b/c",
    "a!b",
    "a0",
    "a/é",
    "a/e\u0301",
    "'; DROP TABLE log; --",
    '"\\\t\n\x7f',
    "\ufeffa",
    "a/\U0010ffff",
    "\U0010ffff",
    "$SYS/a",
    "$SYS",
    HUGE_TOPIC,
]

NewStore = Callable[[], Store]
Reopen = Callable[[Store], Store]


def message(
    topic: str = "a", payload: bytes = b"x", qos: int = 1, *, publisher: str = ""
) -> Message:
    return Message(topic, payload, qos, False, None, 0, publisher)


# As in a store that was brought forward: a checksum of 0 stands for a row that has none.
LET_ROWS_BE_UNCHECKED: Final = (
    "UPDATE meta SET value = 1, crc = 565192241 WHERE name = 'unchecked' AND value = 0"
)


def session(number: int, client_id: str = "c", will: Message | None = None) -> SessionRecord:
    return SessionRecord(number, client_id, 5, 1, 3600, 0, will, 0, 0)


def state(session: int, cursor: int = 1) -> StateRecord:
    return StateRecord(session, cursor, b"\x00in flight", b"\xffreceived", pack_gaps([(3, 7)]))


def subscription(
    session: int, topic_filter: str, from_lsn: int = 1, until_lsn: int = OPEN, options: int = 1
) -> SubscriptionRecord:
    return SubscriptionRecord(session, topic_filter, from_lsn, until_lsn, options, 0)


def group(number: int, topic_filter: str = "$share/g/a", cursor: int = 1) -> GroupRecord:
    return GroupRecord(number, topic_filter, cursor, b"\xffreturned", pack_gaps([(3, OPEN)]))


def loss(owner: int, messages: int = 7) -> LossRecord:
    return LossRecord(owner, messages, 2**40, 2**41, 3)


def delayed(number: int, topic: str = "a", due_ms: int = 60_000) -> DelayedRecord:
    return DelayedRecord(number, due_ms, 60, message(topic, b"later"))


def entries(first_lsn: int, topics: list[str], target: int = 0) -> list[LogEntry]:
    """One entry for each topic, whose payload is its lsn."""
    return [
        LogEntry(first_lsn + index, message(topic, b"%d" % (first_lsn + index)), target)
        for index, topic in enumerate(topics)
    ]


def batch_of(found: list[LogEntry]) -> Batch:
    batch = Batch()
    batch.entries = found
    return batch


def content_of_properties(properties: Properties | None) -> object:
    if properties is None:
        return None
    return (
        properties.payload_format_indicator,
        properties.content_type,
        properties.response_topic,
        properties.correlation_data,
        properties.user_properties,
        properties.subscription_identifiers,
        properties.message_expiry_interval,
        properties.will_delay_interval,
    )


def content_of_message(found: Message | None) -> object:
    if found is None:
        return None
    return (
        found.topic,
        found.payload,
        found.qos,
        found.retain,
        content_of_properties(found.properties),
        found.expires_at_ms,
        found.publisher,
    )


def content_of_entries(found: list[LogEntry]) -> list[object]:
    return [(entry.lsn, entry.target, content_of_message(entry.message)) for entry in found]


def content_of_snapshot(snapshot: Snapshot) -> dict[str, object]:
    """All of a snapshot in a form that can be compared."""
    return {
        "next_lsn": snapshot.next_lsn,
        "next_session": snapshot.next_session,
        "sessions": [
            (
                (r.number, r.client_id, r.version, r.epoch, r.expiry_s, r.disconnected_at_ms),
                (content_of_message(r.will), r.will_delay_s, r.will_due_ms),
            )
            for r in sorted(snapshot.sessions, key=lambda r: r.number)
        ],
        "states": [
            (r.session, r.cursor, r.in_flight, r.received, r.gaps)
            for r in sorted(snapshot.states, key=lambda r: r.session)
        ],
        "subscriptions": sorted(
            (r.session, r.topic_filter, r.from_lsn, r.until_lsn, r.options, r.identifier)
            for r in snapshot.subscriptions
        ),
        "retained": [
            (r.topic, content_of_message(r.message))
            for r in sorted(snapshot.retained, key=lambda r: r.topic)
        ],
        "groups": sorted(
            (r.number, r.topic_filter, r.cursor, r.returned, r.gaps) for r in snapshot.groups
        ),
        "delayed": [
            (r.number, r.due_ms, r.seconds, content_of_message(r.message))
            for r in sorted(snapshot.delayed, key=lambda r: r.number)
        ],
        "losses": sorted(
            (r.owner, r.messages, r.bytes, r.at_ms, r.reason) for r in snapshot.losses
        ),
        "time_marks": sorted((mark.lsn, mark.at_ms) for mark in snapshot.time_marks),
    }


def read_all(store: Store, request: ReadRequest) -> list[LogEntry]:
    """Read slice by slice up to the end, and check what each slice must keep to."""
    position = request.position
    found: list[LogEntry] = []
    while True:
        part = store.read(
            ReadRequest(
                request.session,
                position,
                request.end,
                request.spans,
                request.messages_max,
                request.bytes_max,
            )
        )
        assert len(part.entries) <= request.messages_max
        sizes = [content_bytes(entry.message) for entry in part.entries]
        assert sum(sizes) <= request.bytes_max or len(sizes) == 1
        assert all(position <= entry.lsn < part.position for entry in part.entries)
        assert part.position <= request.end
        found += part.entries
        if part.position == request.end:
            return found
        assert part.position > position
        position = part.position


def count_all(store: Store, request: ReadRequest) -> int:
    """The messages that a count gives, step by step."""
    position = request.position
    messages = 0
    while True:
        asked = ReadRequest(
            request.session,
            position,
            request.end,
            request.spans,
            request.messages_max,
            request.bytes_max,
        )
        part = store.count(asked)
        messages += part.messages
        if part.position == request.end:
            return messages
        assert position < part.position < request.end
        position = part.position


def is_in_cut(cut: TopicCut, entry: LogEntry) -> bool:
    """Whether a cut names an entry."""
    if entry.target != cut.target or (cut.target == 0 and entry.message.topic != cut.topic):
        return False
    return any(low <= entry.lsn < high for low, high in cut.spans)


class Model:
    """A store that is obviously right."""

    def __init__(self) -> None:
        self.entries: list[LogEntry] = []
        self.sessions: dict[int, SessionRecord] = {}
        self.states: dict[int, StateRecord] = {}
        self.subscriptions: dict[tuple[int, str, int], SubscriptionRecord] = {}
        self.retained: dict[str, RetainedRecord] = {}
        self.groups: dict[int, GroupRecord] = {}
        self.delayed: dict[int, DelayedRecord] = {}
        self.losses: dict[int, LossRecord] = {}
        self.time_marks: dict[int, TimeMark] = {}
        self.next_lsn = 1
        self.next_session = 1
        self.trimmed_below = 1

    def commit(self, batch: Batch) -> None:
        for number in batch.ended:
            self.sessions.pop(number, None)
            self.states.pop(number, None)
            self.groups.pop(number, None)
            self.losses.pop(number, None)
            for key in list(self.subscriptions):
                if key[0] == number:
                    del self.subscriptions[key]
            self.entries = [entry for entry in self.entries if entry.target != number]
        for record in batch.sessions:
            self.sessions[record.number] = record
            self.next_session = max(self.next_session, record.number + 1)
        for shared in batch.groups:
            self.groups[shared.number] = shared
            self.next_session = max(self.next_session, shared.number + 1)
        for removed in batch.subscriptions_removed:
            self.subscriptions.pop((removed.session, removed.topic_filter, removed.from_lsn), None)
        for added in batch.subscriptions:
            self.subscriptions[added.session, added.topic_filter, added.from_lsn] = added
        for moved in batch.states:
            self.states[moved.session] = moved
        for lost in batch.losses:
            self.losses[lost.owner] = lost
        for slot in batch.retained:
            self.retained.pop(slot.topic, None)
            if slot.message is not None:
                self.retained[slot.topic] = slot
        for later in batch.delayed:
            self.delayed[later.number] = later
        for number in batch.delayed_removed:
            self.delayed.pop(number, None)
        for mark in batch.time_marks:
            self.time_marks[mark.lsn] = mark
        self.entries += batch.entries
        self.next_lsn += len(batch.entries)

    def snapshot(self) -> Snapshot:
        snapshot = Snapshot()
        snapshot.next_lsn = self.next_lsn
        snapshot.next_session = self.next_session
        snapshot.sessions = list(self.sessions.values())
        snapshot.states = list(self.states.values())
        snapshot.subscriptions = list(self.subscriptions.values())
        snapshot.retained = list(self.retained.values())
        snapshot.groups = list(self.groups.values())
        snapshot.delayed = list(self.delayed.values())
        snapshot.losses = list(self.losses.values())
        snapshot.time_marks = list(self.time_marks.values())
        return snapshot

    def read(self, request: ReadRequest) -> list[LogEntry]:
        return [
            entry
            for entry in self.entries
            if request.position <= entry.lsn < request.end
            and (
                entry.target == request.session
                or (entry.target == 0 and any(_covers(span, entry) for span in request.spans))
            )
        ]


def _covers(span: FilterSpan, entry: LogEntry) -> bool:
    return (
        span.from_lsn <= entry.lsn
        and (span.until_lsn == OPEN or entry.lsn < span.until_lsn)
        and matches(span.topic_filter, entry.message.topic)
    )


def folder_content(folder: Path) -> dict[str, bytes]:
    """All files in a folder, byte for byte."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
