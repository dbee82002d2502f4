"""Messages as a store keeps them: packed in blocks, each a run of one topic and one target."""

from typing import Final, final

from mypy_extensions import i64

from holdfast.disk.checksums import block_checksum
from holdfast.errors import ProtocolError, StoreCorrupt
from holdfast.message import NEVER, Message, content_bytes
from holdfast.protocol.properties import pack_properties, unpack_properties
from holdfast.protocol.wire import BYTES
from holdfast.store.records import OPEN, Batch, LogEntry, PackedReader, append_varint

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
    """The rows of the entries' blocks in one list, as they are in the table of the log.

    First and last lsn, topic, target, data and checksum follow each other.
    A block is a run of entries with one topic and one target. ``topics`` has each topic's number.
    """
    rows: list[int | bytes] = []
    start = 0
    stop = len(entries)
    while start < stop:
        end = _block_end(entries, start)
        first = entries[start]
        lsn = first.lsn
        last_lsn = entries[end - 1].lsn
        topic = topics[first.message.topic]
        target = first.target
        data = encode_block(entries, start, end)
        rows.append(lsn)
        rows.append(last_lsn)
        rows.append(topic)
        rows.append(target)
        rows.append(data)
        rows.append(block_checksum(lsn, last_lsn, topic, target, data))
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


@final
class _MessageReader(PackedReader):
    """Reads messages one after the other; each may name the publisher of those behind it."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._publisher = ""

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
            self.skip_bytes()
        self.skip_bytes()

    def _head(self) -> i64:
        """Read flags and publisher."""
        flags: i64 = self.byte()
        if flags & ~_FLAGS_MASK != 0 or flags & 3 == 3:
            raise StoreCorrupt(f"a stored message begins with 0x{flags:02X}, which none does")
        if flags & _HAS_PUBLISHER:
            start: i64 = self.skip_bytes()
            try:
                self._publisher = self.data[start : self.position].decode()
            except UnicodeDecodeError:
                raise StoreCorrupt("a stored client identifier is not UTF-8") from None
        return flags

    def _take(self) -> bytes:
        start: i64 = self.skip_bytes()
        return self.data[start : self.position]


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
        append_varint(parts, len(name))
        parts.append(name)
    else:
        parts.append(BYTES[flags])
    if expires_at_ms != NEVER:
        append_varint(parts, expires_at_ms)
    if properties is not None:
        known = message.packed_properties
        packed = known if known is not None else pack_properties(properties)
        append_varint(parts, len(packed))
        parts.append(packed)
    payload = message.payload
    append_varint(parts, len(payload))
    parts.append(payload)
    return publisher


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
