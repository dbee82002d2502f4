"""What a list of records changes in the tables of an outbox file, and their rows as records again.

Each row has a checksum, so that damage is told and never sent.
"""

from typing import Final, final

from mypy_extensions import i64

from holdfast.client.records import (
    ClearIncoming,
    FreeIncoming,
    HoldIncoming,
    LoadedOutgoing,
    MarkSent,
    Record,
    ReleaseOutgoing,
    RemoveOutgoing,
    SetNumbers,
    SetSession,
    StoreOutgoing,
)
from holdfast.disk.checksums import (
    Value,
    add_bytes,
    add_number,
    damaged,
    known,
    row_checksum,
)
from holdfast.errors import StoreCorrupt

OutgoingRow = tuple[int, int, int, int, str, bytes, bytes, int]
ReleasedRow = tuple[int, int, int]
IncomingRow = tuple[int, int, int, int]
SessionValues = tuple[int, str, int, int, int, int, int]

_RETAIN: Final = 4  # in the options, above the QoS
_SESSION_ROW: Final = 1  # the key of the only row


@final
class SessionRow:
    """What there is once: who the client is, and the numbers to go on with."""

    def __init__(
        self,
        client_id: str,
        has_session: bool,
        next_seq: int,
        next_delivery_id: int,
        sent_below: int,
    ) -> None:
        self.client_id = client_id
        self.has_session = has_session
        self.next_seq = next_seq
        self.next_delivery_id = next_delivery_id
        self.sent_below = sent_below

    def values(self) -> list[Value]:
        """The values of its row."""
        values: list[Value] = [
            _SESSION_ROW,
            self.client_id,
            1 if self.has_session else 0,
            self.next_seq,
            self.next_delivery_id,
            self.sent_below,
        ]
        values.append(row_checksum(values))
        return values


@final
class Changes:
    """What a list of records comes to: of each row the last word."""

    def __init__(self, session: SessionRow) -> None:
        self.client_id = session.client_id
        self.has_session = session.has_session
        self.next_seq = session.next_seq
        self.next_delivery_id = session.next_delivery_id
        self.sent_below = session.sent_below
        self.outgoing: dict[int, StoreOutgoing] = {}
        self.released: dict[int, ReleaseOutgoing | None] = {}  # by seq; None: removed
        self.incoming: dict[int, HoldIncoming] = {}
        self.freed: dict[int, bool] = {}
        self.is_cleared = False

    def take(self, records: list[Record]) -> None:
        """Take the records of a commit, in their order."""
        for record in records:
            if isinstance(record, StoreOutgoing):
                self.outgoing[record.seq] = record
                self.released.pop(record.seq, None)
                if record.seq >= self.next_seq:
                    self.next_seq = record.seq + 1
            elif isinstance(record, RemoveOutgoing):
                self.outgoing.pop(record.seq, None)
                self.released[record.seq] = None
            elif isinstance(record, ReleaseOutgoing):
                self.outgoing.pop(record.seq, None)
                self.released[record.seq] = record
                if record.seq >= self.next_seq:
                    self.next_seq = record.seq + 1
            elif isinstance(record, HoldIncoming):
                self.incoming[record.packet_id] = record
                if record.delivery_id >= self.next_delivery_id:
                    self.next_delivery_id = record.delivery_id + 1
            elif isinstance(record, FreeIncoming):
                self.incoming.pop(record.packet_id, None)
                self.freed[record.packet_id] = True
            elif isinstance(record, ClearIncoming):
                self.incoming.clear()
                self.freed.clear()
                self.is_cleared = True
            elif isinstance(record, MarkSent):
                self.sent_below = max(self.sent_below, record.below_seq)
            elif isinstance(record, SetNumbers):
                self.next_seq = max(self.next_seq, record.next_seq)
                self.next_delivery_id = max(self.next_delivery_id, record.next_delivery_id)
            else:
                assert isinstance(record, SetSession)
                self.client_id = record.client_id
                self.has_session = record.has_session
                if record.sent_below > 0:
                    self.sent_below = record.sent_below

    def session(self) -> SessionRow:
        """The row that there is once, after this."""
        return SessionRow(
            self.client_id,
            self.has_session,
            self.next_seq,
            self.next_delivery_id,
            self.sent_below,
        )

    def outgoing_values(self) -> list[Value]:
        """The values of the rows of new messages, one after the other."""
        values: list[Value] = []
        for record in self.outgoing.values():
            topic = record.topic
            properties = record.packed_properties
            payload = record.payload
            options: i64 = record.qos + (_RETAIN if record.retain else 0)
            values.append(record.seq)
            values.append(record.queued_at_ms)
            values.append(record.expires_at_ms)
            values.append(options)
            values.append(topic)
            values.append(properties)
            values.append(payload)
            values.append(
                _outgoing_checksum(
                    record.seq,
                    record.queued_at_ms,
                    record.expires_at_ms,
                    options,
                    topic.encode(),
                    properties,
                    payload,
                )
            )
        return values

    def released_values(self) -> list[Value]:
        """The values of the rows of released messages."""
        values: list[Value] = []
        for seq, record in self.released.items():
            if record is not None:
                values.append(seq)
                values.append(record.queued_at_ms)
                values.append(known(add_number(add_number(0, seq), record.queued_at_ms)))
        return values

    def gone(self) -> list[int]:
        """Those whose message is not needed any more."""
        return list(self.released)

    def removed(self) -> list[int]:
        """Those of them that are not released either."""
        return [seq for seq, record in self.released.items() if record is None]

    def incoming_values(self) -> list[Value]:
        """The values of the rows of held identifiers."""
        values: list[Value] = []
        for record in self.incoming.values():
            is_handed: i64 = 1 if record.is_handed else 0
            values.append(record.packet_id)
            values.append(record.delivery_id)
            values.append(is_handed)
            values.append(_incoming_checksum(record.packet_id, record.delivery_id, is_handed))
        return values


def loaded_session(row: SessionValues) -> SessionRow:
    """What a row says; raises StoreCorrupt, or TypeError where it has other types."""
    number, client_id, has_session, next_seq, next_delivery_id, sent_below, crc = row
    found = row_checksum((number, client_id, has_session, next_seq, next_delivery_id, sent_below))
    if found != crc:
        raise damaged("session", number, crc, found)
    return SessionRow(client_id, has_session != 0, next_seq, next_delivery_id, sent_below)


def loaded_outgoing(row: OutgoingRow) -> LoadedOutgoing:
    """What a row says; raises StoreCorrupt, or TypeError where it has other types."""
    seq, queued_at_ms, expires_at_ms, options, topic, properties, payload, crc = row
    found: i64 = _outgoing_checksum(
        seq, queued_at_ms, expires_at_ms, options, topic.encode(), properties, payload
    )
    if found != crc:
        raise damaged("outgoing", seq, crc, found)
    qos = options & (_RETAIN - 1)
    return LoadedOutgoing(
        seq,
        topic,
        payload,
        qos,
        options >= _RETAIN,
        properties,
        expires_at_ms,
        queued_at_ms,
        False,
    )


def loaded_released(row: ReleasedRow) -> LoadedOutgoing:
    """What a row says; raises StoreCorrupt, or TypeError where it has other types."""
    seq, queued_at_ms, crc = row
    found: i64 = known(add_number(add_number(0, seq), queued_at_ms))
    if found != crc:
        raise damaged("released", seq, crc, found)
    return LoadedOutgoing(seq, "", b"", 2, False, b"", 0, queued_at_ms, True)


def loaded_incoming(row: IncomingRow) -> HoldIncoming:
    """What a row says; raises StoreCorrupt, or TypeError where it has other types."""
    packet_id, delivery_id, is_handed, crc = row
    found: i64 = _incoming_checksum(packet_id, delivery_id, is_handed)
    if found != crc:
        raise damaged("incoming", packet_id, crc, found)
    return HoldIncoming(packet_id, delivery_id, is_handed != 0)


def merged(outgoing: list[LoadedOutgoing], released: list[LoadedOutgoing]) -> list[LoadedOutgoing]:
    """Both by ``seq``; raises StoreCorrupt for a message that is in both."""
    merging: list[LoadedOutgoing] = []
    index: i64 = 0
    for entry in released:
        while index < len(outgoing) and outgoing[index].seq < entry.seq:
            merging.append(outgoing[index])
            index += 1
        if index < len(outgoing) and outgoing[index].seq == entry.seq:
            raise StoreCorrupt(f"message {entry.seq} is there as released and with its content")
        merging.append(entry)
    return merging + outgoing[index:]


def _outgoing_checksum(
    seq: i64,
    queued_at_ms: i64,
    expires_at_ms: i64,
    options: i64,
    topic: bytes,
    properties: bytes,
    payload: bytes,
) -> i64:
    """What ``row_checksum`` gives."""
    crc: i64 = add_number(add_number(0, seq), queued_at_ms)
    crc = add_number(add_number(crc, expires_at_ms), options)
    crc = add_number(crc, len(topic) + 1)
    crc = add_number(crc, len(properties) + 1)
    crc = add_number(crc, len(payload) + 1)
    return known(add_bytes(add_bytes(add_bytes(crc, topic), properties), payload))


def _incoming_checksum(packet_id: i64, delivery_id: i64, is_handed: i64) -> i64:
    """What ``row_checksum`` gives."""
    return known(add_number(add_number(add_number(0, packet_id), delivery_id), is_handed))
