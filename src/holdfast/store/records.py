"""What the broker asks a store to keep: the log, sessions, groups, retained and delayed messages.

A ``Batch`` is everything of one turn or several; a store commits it as one, or not at all.
"""

from typing import Final, final

from mypy_extensions import i64

from holdfast.errors import ProtocolError, StoreCorrupt
from holdfast.message import NEVER, Message, content_bytes
from holdfast.protocol.properties import pack_properties, unpack_properties
from holdfast.protocol.wire import BYTES

OPEN: Final = 0  # the value of ``until_lsn`` for a subscription that goes on

# A block is read and decoded as a whole, so these bound what a read of one message may cost.
BLOCK_ENTRIES_MAX: Final = 128
# Of payload and properties; a single larger message has a block of its own.
BLOCK_BYTES_MAX: Final = 32 * 1024

# The first byte of a stored message: its QoS in the two low bits, and these.
_RETAIN: Final = 0x04
_HAS_PROPERTIES: Final = 0x08
_HAS_EXPIRY: Final = 0x10
_HAS_PUBLISHER: Final = 0x20  # another than that of the message before, or than ""
_FLAGS_MASK: Final = 0x3F

# The first byte of a packed in-flight entry: its stage in the two low bits, and these.
_HAS_GROUP: Final = 3  # in the place of the stage, which no entry has: both follow, as a number
_IS_NEXT_ID: Final = 0x04  # the packet identifier is the one before plus 1
_STEP_SHIFT: Final = 3  # above it 0 for lsn 0, the step from the last lsn, or _FAR_STEP
_FAR_STEP: Final = 31  # the step follows, zigzag


@final
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
    ``pack_in_flight`` and ``Qos2Receiver.pack``; a store keeps them as they are.
    """

    def __init__(self, session: int, cursor: int, in_flight: bytes, received: bytes) -> None:
        self.session = session
        self.cursor = cursor
        self.in_flight = in_flight
        self.received = received


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
    without having acknowledged them, packed by ``pack_lsns``; a store keeps it as it is.
    """

    def __init__(self, number: int, topic_filter: str, cursor: int, returned: bytes) -> None:
        self.number = number
        self.topic_filter = topic_filter
        self.cursor = cursor
        self.returned = returned


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


@final
class Batch:
    """The records of one commit. Within each list the later record of a key replaces the earlier.

    Applied in this order: ``ended`` (everything of these session or group numbers goes),
    ``sessions``, ``groups``, ``subscriptions_removed`` (by key), ``subscriptions``, ``states``,
    ``retained``, ``delayed``, ``delayed_removed`` (by number), ``entries``.
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


def encode_message(message: Message) -> bytes:
    """A message without its topic, for ``decode_message``."""
    parts: list[bytes] = []
    _append_message(parts, message, "")
    return b"".join(parts)


def decode_message(topic: str, data: bytes) -> Message:
    """The message that ``encode_message`` packed; raises StoreCorrupt if it is damaged."""
    reader = _MessageReader(data)
    message = reader.message(topic)
    if not reader.is_at_end:
        raise StoreCorrupt("a stored message is followed by bytes that do not belong to it")
    return message


def unknown_topics(batch: Batch, known: dict[str, int]) -> list[str]:
    """The topics in a batch, except those of wills, that are not among the known, each once."""
    unknown: dict[str, int] = {}
    last = ""
    for entry in batch.entries:
        topic = entry.message.topic
        if topic != last:
            if topic not in known:
                unknown[topic] = 0
            last = topic
    for record in batch.retained:
        if record.topic not in known:
            unknown[record.topic] = 0
    for delayed in batch.delayed:
        if delayed.message.topic not in known:
            unknown[delayed.message.topic] = 0
    return list(unknown)


def encode_blocks(entries: list[LogEntry], topics: dict[str, int]) -> list[int | bytes]:
    """The rows of the entries' blocks in one list: first lsn, last lsn, topic, target, data.

    A block is a run of entries with one topic and one target. ``topics`` has each topic's number.
    """
    rows: list[int | bytes] = []
    start = 0
    stop = len(entries)
    while start < stop:
        end = _block_end(entries, start)
        first = entries[start]
        rows.append(first.lsn)
        rows.append(entries[end - 1].lsn)
        rows.append(topics[first.message.topic])
        rows.append(first.target)
        rows.append(encode_block(entries, start, end))
        start = end
    return rows


def encode_block(entries: list[LogEntry], start: int, stop: int) -> bytes:
    """The messages of ``entries[start:stop]`` without lsn, topic and target."""
    parts: list[bytes] = []
    publisher = ""
    for index in range(start, stop):
        publisher = _append_message(parts, entries[index].message, publisher)
    return b"".join(parts)


def decode_block(first_lsn: int, topic: str, target: int, data: bytes) -> list[LogEntry]:
    """The entries that ``encode_block`` packed; raises StoreCorrupt if they are damaged."""
    return decode_block_part(first_lsn, topic, target, data, 0, 0)


def decode_block_part(
    first_lsn: int, topic: str, target: int, data: bytes, from_lsn: int, until_lsn: int
) -> list[LogEntry]:
    """The entries of a block with ``from_lsn`` <= lsn < ``until_lsn``, which may be OPEN."""
    entries: list[LogEntry] = []
    reader = _MessageReader(data)
    lsn = first_lsn
    while not reader.is_at_end and (until_lsn == OPEN or lsn < until_lsn):
        if lsn < from_lsn:
            reader.skip()
        else:
            entries.append(LogEntry(lsn, reader.message(topic), target))
        lsn += 1
    return entries


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
            _append_varint(parts, -2 * step - 1 if step < 0 else 2 * step)
        if group != 0:
            _append_varint(parts, group)
    return b"".join(parts)


def unpack_in_flight(data: bytes, groups: dict[int, int] | None = None) -> dict[int, int]:
    """The entries that ``pack_in_flight`` packed; raises StoreCorrupt if they are damaged.

    The numbers of their groups go into ``groups``.
    """
    in_flight: dict[int, int] = {}
    reader = _MessageReader(data)
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


@final
class _MessageReader:
    """Reads what this module packed; running out of bytes means that the store is damaged."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position: i64 = 0
        self._end: i64 = len(data)
        self._publisher = ""

    @property
    def is_at_end(self) -> bool:
        return self._position >= self._end

    def byte(self) -> i64:
        """The next byte."""
        position = self._position
        if position >= self._end:
            raise _cut_short()
        self._position = position + 1
        return self._data[position]

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

    def message(self, topic: str) -> Message:
        """The next message."""
        flags: i64 = self._head()
        expires_at_ms: i64 = self.varint() if flags & _HAS_EXPIRY else NEVER
        packed = self._take() if flags & _HAS_PROPERTIES else b""
        payload = self._take()
        try:
            properties = unpack_properties(packed)
        except ProtocolError as error:
            raise StoreCorrupt(f"stored properties are damaged: {error.detail}") from None
        message = Message(
            topic,
            payload,
            flags & 3,
            flags & _RETAIN != 0,
            properties,
            expires_at_ms,
            self._publisher,
        )
        if properties is not None:
            message.packed_properties = packed
        return message

    def skip(self) -> None:
        """Pass over the next message."""
        flags: i64 = self._head()
        if flags & _HAS_EXPIRY:
            self.varint()
        if flags & _HAS_PROPERTIES:
            self._skip_bytes()
        self._skip_bytes()

    def _head(self) -> i64:
        """Read flags and publisher."""
        flags: i64 = self.byte()
        if flags & ~_FLAGS_MASK != 0 or flags & 3 == 3:
            raise StoreCorrupt(f"a stored message begins with 0x{flags:02X}, which none does")
        if flags & _HAS_PUBLISHER:
            start: i64 = self._skip_bytes()
            try:
                self._publisher = self._data[start : self._position].decode()
            except UnicodeDecodeError:
                raise StoreCorrupt("a stored client identifier is not UTF-8") from None
        return flags

    def _take(self) -> bytes:
        start: i64 = self._skip_bytes()
        return self._data[start : self._position]

    def _skip_bytes(self) -> i64:
        """Pass over bytes preceded by their length, and return where they begin."""
        size: i64 = self.varint()
        start = self._position
        if size > self._end - start:
            raise _cut_short()
        self._position = start + size
        return start


def _append_message(parts: list[bytes], message: Message, publisher_before: str) -> str:
    """Append a message to what is being packed, and return its publisher."""
    flags: i64 = message.qos
    if message.retain:
        flags |= _RETAIN
    properties = message.properties
    if properties is not None:
        flags |= _HAS_PROPERTIES
    expires_at_ms: i64 = message.expires_at_ms
    if expires_at_ms != NEVER:
        flags |= _HAS_EXPIRY
    publisher = message.publisher
    if publisher != publisher_before:
        name = publisher.encode()
        parts.append(BYTES[flags | _HAS_PUBLISHER])
        _append_varint(parts, len(name))
        parts.append(name)
    else:
        parts.append(BYTES[flags])
    if expires_at_ms != NEVER:
        _append_varint(parts, expires_at_ms)
    if properties is not None:
        known = message.packed_properties
        packed = known if known is not None else pack_properties(properties)
        _append_varint(parts, len(packed))
        parts.append(packed)
    payload = message.payload
    _append_varint(parts, len(payload))
    parts.append(payload)
    return publisher


def _append_varint(parts: list[bytes], value: i64) -> None:
    assert value >= 0
    while value >= 0x80:
        parts.append(BYTES[(value & 0x7F) | 0x80])
        value >>= 7
    parts.append(BYTES[value])


def _block_end(entries: list[LogEntry], start: int) -> int:
    """The index behind the block that begins at ``start``."""
    first = entries[start]
    topic = first.message.topic
    target = first.target
    size = content_bytes(first.message)
    lsn = first.lsn
    end = start + 1
    stop = min(len(entries), start + BLOCK_ENTRIES_MAX)
    while end < stop:
        entry = entries[end]
        lsn += 1
        assert entry.lsn == lsn
        size += content_bytes(entry.message)
        if entry.message.topic != topic or entry.target != target or size > BLOCK_BYTES_MAX:
            break
        end += 1
    return end


def _cut_short() -> StoreCorrupt:
    return StoreCorrupt("a stored message or state ends before it is complete")
