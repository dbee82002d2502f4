"""What the broker asks a store to keep: the log, sessions, groups, retained and delayed messages.

A ``Batch`` is everything of one turn or several; a store commits it as one, or not at all.
"""

from typing import Final, final

from mypy_extensions import i64, mypyc_attr

from holdfast.errors import StoreCorrupt
from holdfast.message import Message
from holdfast.protocol.wire import BYTES

OPEN: Final = 0  # the value of ``until_lsn`` for a subscription, or a gap, that goes on

# The first byte of a packed in-flight entry: its stage in the two low bits, and these.
_HAS_GROUP: Final = 3  # in the place of the stage, which no entry has: both follow, as a number
_IS_NEXT_ID: Final = 0x04  # the packet identifier is the one before plus 1
_STEP_SHIFT: Final = 3  # above it 0 for lsn 0, the step from the last lsn, or _FAR_STEP
_FAR_STEP: Final = 31  # the step follows, zigzag

_LSN_MAX: Final = 2**63 - 1


@final
@mypyc_attr(acyclic=True)
class LogEntry:
    """One message in the log.

    ``lsn`` counts from 1 and is dense: the entries of a batch continue those of the batch before.
    ``target`` is 0 for a message that all matching sessions read, and the number of the one
    session for which alone it was queued (a retained message on its way to a durable session).
    """

    def __init__(self, lsn: int, message: Message, target: int = 0) -> None:
        self.lsn = lsn
        self.message = message
        self.target = target


@final
class SessionRecord:
    """One session as it is kept under its ``number`` (counts from 1, never used again).

    ``disconnected_at_ms`` is Unix time, 0 while connected. ``will_due_ms`` is Unix time, 0 while
    the will is not yet to be published at a known time. ``expiry_s`` is the Session Expiry
    Interval; 0xFFFFFFFF never ends. A session with ``expiry_s`` 0 is recorded only for its will.
    """

    def __init__(
        self,
        number: int,
        client_id: str,
        version: int,
        epoch: int,
        expiry_s: int,
        disconnected_at_ms: int,
        will: Message | None,
        will_delay_s: int,
        will_due_ms: int,
    ) -> None:
        self.number = number
        self.client_id = client_id
        self.version = version
        self.epoch = epoch
        self.expiry_s = expiry_s
        self.disconnected_at_ms = disconnected_at_ms
        self.will = will
        self.will_delay_s = will_delay_s
        self.will_due_ms = will_due_ms


@final
class StateRecord:
    """What moves in a session: its cursor and the packet identifiers of both directions.

    Everything below ``cursor`` has been handed out. ``in_flight`` and ``received`` are packed by
    ``pack_in_flight`` and ``Qos2Receiver.pack``, ``gaps`` holds the stretches of the log that the
    session is not given, packed by ``pack_gaps``; a store keeps them as they are.
    """

    def __init__(
        self, session: int, cursor: int, in_flight: bytes, received: bytes, gaps: bytes = b""
    ) -> None:
        self.session = session
        self.cursor = cursor
        self.in_flight = in_flight
        self.received = received
        self.gaps = gaps


@final
class SubscriptionRecord:
    """One subscription of a session, which counts for ``from_lsn`` <= lsn < ``until_lsn``.

    ``until_lsn`` is OPEN for one that goes on; a closed one still serves what a session that is
    behind has not been given. ``options`` is the option byte of SUBSCRIBE (QoS, No Local, Retain As
    Published, Retain Handling), ``identifier`` the Subscription Identifier or 0. The key is
    (session, topic_filter, from_lsn).
    """

    def __init__(
        self,
        session: int,
        topic_filter: str,
        from_lsn: int,
        until_lsn: int,
        options: int,
        identifier: int,
    ) -> None:
        self.session = session
        self.topic_filter = topic_filter
        self.from_lsn = from_lsn
        self.until_lsn = until_lsn
        self.options = options
        self.identifier = identifier


@final
class RetainedRecord:
    """The new content of a topic's retained slot; ``message`` None clears it."""

    def __init__(self, topic: str, message: Message | None) -> None:
        self.topic = topic
        self.message = message


@final
class GroupRecord:
    """One shared group, kept under its ``number``, which counts with the session numbers.

    ``topic_filter`` is the whole one of its members, ``$share/name/filter``. Everything below
    ``cursor`` has been handed to a member. ``returned`` holds the lsns that a member gave back
    without having acknowledged them, packed by ``pack_lsns``, ``gaps`` the stretches of the log
    that no member is given, packed by ``pack_gaps``; a store keeps them as they are.
    """

    def __init__(
        self, number: int, topic_filter: str, cursor: int, returned: bytes, gaps: bytes = b""
    ) -> None:
        self.number = number
        self.topic_filter = topic_filter
        self.cursor = cursor
        self.returned = returned
        self.gaps = gaps


@final
class DelayedRecord:
    """A message that is to be published at ``due_ms`` (Unix time), kept under its ``number``.

    Numbers count from 1; one that is gone may be used again in a later batch. ``seconds`` is the
    delay that was asked for: it is part of the address that cancels the message.
    """

    def __init__(self, number: int, due_ms: int, seconds: int, message: Message) -> None:
        self.number = number
        self.due_ms = due_ms
        self.seconds = seconds
        self.message = message


# Why messages were lost: the numbers and the names.
LOST_TO_QUEUE_LIMIT: Final = 1
LOST_TO_LOG_LIMIT: Final = 2
LOST_TO_AGE: Final = 3
LOST_TO_DAMAGE: Final = 4
LOSS_REASONS: Final = ("none", "queue limit", "log limit", "age", "damage")


@final
class LossRecord:
    """What a session or group, by its number, has lost so far to a limit or to damage.

    ``messages`` and ``bytes`` (payload and properties) count all losses, ``at_ms`` is the Unix time
    of the last one and ``reason`` its cause, a number of LOSS_REASONS.
    """

    def __init__(self, owner: int, messages: int, bytes: int, at_ms: int, reason: int) -> None:
        self.owner = owner
        self.messages = messages
        self.bytes = bytes
        self.at_ms = at_ms
        self.reason = reason


@final
class TimeMark:
    """The entries of the log from ``lsn`` on came at ``at_ms`` (Unix time) or later."""

    def __init__(self, lsn: int, at_ms: int) -> None:
        self.lsn = lsn
        self.at_ms = at_ms


@final
class Batch:
    """The records of one commit. Within each list the later record of a key replaces the earlier.

    Applied in this order: ``ended`` (everything of these session or group numbers goes),
    ``sessions``, ``groups``, ``subscriptions_removed`` (by key), ``subscriptions``, ``states``,
    ``losses``, ``retained``, ``delayed``, ``delayed_removed`` (by number), ``time_marks``,
    ``entries``.
    """

    def __init__(self) -> None:
        self.entries: list[LogEntry] = []
        self.sessions: list[SessionRecord] = []
        self.states: list[StateRecord] = []
        self.ended: list[int] = []
        self.subscriptions: list[SubscriptionRecord] = []
        self.subscriptions_removed: list[SubscriptionRecord] = []
        self.retained: list[RetainedRecord] = []
        self.groups: list[GroupRecord] = []
        self.delayed: list[DelayedRecord] = []
        self.delayed_removed: list[int] = []
        self.losses: list[LossRecord] = []
        self.time_marks: list[TimeMark] = []

    @property
    def is_empty(self) -> bool:
        return not (
            self.entries
            or self.sessions
            or self.states
            or self.ended
            or self.subscriptions
            or self.subscriptions_removed
            or self.retained
            or self.groups
            or self.delayed
            or self.delayed_removed
            or self.losses
            or self.time_marks
        )


@final
class FilterSpan:
    """A topic filter and the stretch of the log, from inclusive, until exclusive, it counts for.

    ``until_lsn`` may be OPEN.
    """

    def __init__(self, topic_filter: str, from_lsn: int, until_lsn: int) -> None:
        self.topic_filter = topic_filter
        self.from_lsn = from_lsn
        self.until_lsn = until_lsn


@final
class ReadRequest:
    """Asks for a session's next messages: ``position`` <= lsn < ``end``, at most so many.

    ``messages_max`` and ``bytes_max`` (of payload and properties) are at least 1; the first
    message comes whatever its size.
    """

    def __init__(
        self,
        session: int,
        position: int,
        end: int,
        spans: list[FilterSpan],
        messages_max: int,
        bytes_max: int,
    ) -> None:
        self.session = session
        self.position = position
        self.end = end
        self.spans = spans
        self.messages_max = messages_max
        self.bytes_max = bytes_max


@final
class LogSlice:
    """The answer to a ReadRequest: matching entries by lsn, and where to go on.

    All that matches below ``position`` is in ``entries``; ``position`` is at most the request's
    ``end``, and equal to it when there is nothing more. A store may stop early, without any entry,
    to bound the time of one read; it always advances.
    """

    def __init__(self, entries: list[LogEntry], position: int) -> None:
        self.entries = entries
        self.position = position


@final
class LogCount:
    """How much a ``read`` would give below ``position``, from where the count goes on.

    ``position`` is the request's ``end`` when all is counted. ``messages`` is exact; ``bytes`` is
    what they take in the log, which is near their payload and properties: of a block that is
    wanted in part only, its bytes count by the share of its messages.
    """

    def __init__(self, messages: int, bytes: int, position: int) -> None:
        self.messages = messages
        self.bytes = bytes
        self.position = position


@final
class TopicCut:
    """What of the log may go: in each span, from inclusive, until exclusive, one topic's messages.

    With ``target`` 0 those of ``topic`` that are for all; else ``topic`` is "" and it is all that
    is for this target alone.
    """

    def __init__(self, topic: str, target: int, spans: list[tuple[int, int]]) -> None:
        self.topic = topic
        self.target = target
        self.spans = spans


@final
class Space:
    """What a store takes, in memory or on disk.

    ``log_messages`` and ``log_bytes`` count the log below ``next_lsn``; until ``is_counted`` they
    lack what a census has still to find. ``first_lsn`` is that of the oldest entry, ``next_lsn``
    if there is none. ``free_bytes`` is what inside the file is free to be used again, and
    ``disk_free_bytes`` -1 where it is unknown.
    """

    def __init__(
        self,
        log_messages: int,
        log_bytes: int,
        is_counted: bool,
        first_lsn: int,
        next_lsn: int,
        file_bytes: int = 0,
        free_bytes: int = 0,
        wal_bytes: int = 0,
        disk_free_bytes: int = -1,
    ) -> None:
        self.log_messages = log_messages
        self.log_bytes = log_bytes
        self.is_counted = is_counted
        self.first_lsn = first_lsn
        self.next_lsn = next_lsn
        self.file_bytes = file_bytes
        self.free_bytes = free_bytes
        self.wal_bytes = wal_bytes
        self.disk_free_bytes = disk_free_bytes


@final
class Snapshot:
    """All that a broker needs to start: everything committed except the messages of the log."""

    def __init__(self) -> None:
        self.next_lsn = 1
        self.next_session = 1
        self.sessions: list[SessionRecord] = []
        self.states: list[StateRecord] = []
        self.subscriptions: list[SubscriptionRecord] = []
        self.retained: list[RetainedRecord] = []
        self.groups: list[GroupRecord] = []
        self.delayed: list[DelayedRecord] = []
        self.losses: list[LossRecord] = []
        self.time_marks: list[TimeMark] = []


def pack_in_flight(in_flight: dict[int, int], groups: dict[int, int] | None = None) -> bytes:
    """In-flight entries, packet identifier to ``lsn * 4 + stage``, in their order.

    Usually one byte each: sent in a row, identifiers and lsns grow by little. ``groups`` has the
    number of the shared group for those packet identifiers that came from one.
    """
    parts: list[bytes] = []
    last_id: i64 = 0
    last_lsn: i64 = 0
    for key, content in in_flight.items():
        packet_id: i64 = key
        value: i64 = content
        lsn: i64 = value >> 2
        step: i64 = 0
        group: i64 = 0
        head: i64 = value & 3
        assert head != _HAS_GROUP
        if groups is not None:
            group = groups.get(key, 0)
            if group != 0:
                group = group * 4 + head
                head = _HAS_GROUP
        if lsn != 0:
            step = lsn - last_lsn
            last_lsn = lsn
            head |= (step if 0 < step < _FAR_STEP else _FAR_STEP) << _STEP_SHIFT
        if packet_id == last_id + 1:
            parts.append(BYTES[head | _IS_NEXT_ID])
        else:
            parts.append(BYTES[head])
            parts.append(BYTES[packet_id >> 8])
            parts.append(BYTES[packet_id & 0xFF])
        last_id = packet_id
        if head >> _STEP_SHIFT == _FAR_STEP:
            append_varint(parts, -2 * step - 1 if step < 0 else 2 * step)
        if group != 0:
            append_varint(parts, group)
    return b"".join(parts)


def unpack_in_flight(data: bytes, groups: dict[int, int] | None = None) -> dict[int, int]:
    """The entries that ``pack_in_flight`` packed; raises StoreCorrupt if they are damaged.

    The numbers of their groups go into ``groups``.
    """
    in_flight: dict[int, int] = {}
    reader = PackedReader(data)
    packet_id: i64 = 0
    last_lsn: i64 = 0
    while not reader.is_at_end:
        head: i64 = reader.byte()
        if head & _IS_NEXT_ID:
            packet_id += 1
        else:
            packet_id = reader.byte() << 8
            packet_id |= reader.byte()
        step: i64 = head >> _STEP_SHIFT
        lsn: i64 = 0
        if step != 0:
            if step == _FAR_STEP:
                zigzag: i64 = reader.varint()
                step = -(zigzag >> 1) - 1 if zigzag & 1 else zigzag >> 1
            last_lsn += step
            lsn = last_lsn
        stage: i64 = head & 3
        if stage == _HAS_GROUP:
            group: i64 = reader.varint()
            stage = group & 3
            if group < 4 or stage == _HAS_GROUP:
                raise StoreCorrupt(f"a stored packet identifier has the group {group}")
            if groups is not None:
                groups[packet_id] = group >> 2
        in_flight[packet_id] = lsn * 4 + stage
    return in_flight


def pack_lsns(lsns: list[int]) -> bytes:
    """Ascending lsns, as ``pack_in_flight`` packs those of packet identifiers in a row."""
    in_flight: dict[int, int] = {}
    for index, lsn in enumerate(lsns):
        in_flight[index + 1] = lsn * 4
    return pack_in_flight(in_flight)


def unpack_lsns(data: bytes) -> list[int]:
    """What ``pack_lsns`` packed; raises StoreCorrupt if it is damaged."""
    return [value >> 2 for value in unpack_in_flight(data).values()]


def pack_gaps(gaps: list[tuple[int, int]]) -> bytes:
    """Stretches of the log, from inclusive, until exclusive, ascending and apart.

    The last one may be OPEN.
    """
    parts: list[bytes] = []
    end: i64 = 0
    for gap in gaps:
        low: i64 = gap[0]
        high: i64 = gap[1]
        assert low > end or not parts  # also after an OPEN one, since it sets the end so high
        append_varint(parts, low - end)
        if high == OPEN:
            append_varint(parts, 0)
            end = _LSN_MAX
        else:
            assert high > low
            append_varint(parts, high - low)
            end = high
    return b"".join(parts)


def unpack_gaps(data: bytes) -> list[tuple[int, int]]:
    """What ``pack_gaps`` packed; raises StoreCorrupt if it is damaged."""
    gaps: list[tuple[int, int]] = []
    reader = PackedReader(data)
    end: i64 = 0
    while not reader.is_at_end:
        step: i64 = reader.varint()
        size: i64 = reader.varint()
        if step > _LSN_MAX - end or size > _LSN_MAX - end - step or (step == 0 and gaps):
            raise StoreCorrupt("a stored gap lies beyond the log or touches the one before")
        low: i64 = end + step
        if size == 0:
            if not reader.is_at_end:
                raise StoreCorrupt("a stored gap that goes on is followed by another")
            gaps.append((low, OPEN))
            break
        end = low + size
        gaps.append((low, end))
    return gaps


class PackedReader:
    """Reads what this module packed; running out of bytes means that the store is damaged."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position: i64 = 0
        self.end: i64 = len(data)

    @property
    def is_at_end(self) -> bool:
        return self.position >= self.end

    def byte(self) -> i64:
        """The next byte."""
        position = self.position
        if position >= self.end:
            raise _cut_short()
        self.position = position + 1
        return self.data[position]

    def varint(self) -> i64:
        """The next number of up to 63 bits, seven in each byte, the lowest first."""
        value: i64 = self.byte()
        if value < 0x80:
            return value
        value &= 0x7F
        shift: i64 = 7
        while shift < 63:
            byte: i64 = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
        raise StoreCorrupt("a stored number has more than 63 bits")

    def skip_bytes(self) -> i64:
        """Pass over bytes preceded by their length, and return where they begin."""
        size: i64 = self.varint()
        start = self.position
        if size > self.end - start:
            raise _cut_short()
        self.position = start + size
        return start


def append_varint(parts: list[bytes], value: i64) -> None:
    """Append what ``PackedReader.varint`` reads."""
    assert value >= 0
    while value >= 0x80:
        parts.append(BYTES[(value & 0x7F) | 0x80])
        value >>= 7
    parts.append(BYTES[value])


def _cut_short() -> StoreCorrupt:
    return StoreCorrupt("a stored message or state ends before it is complete")
