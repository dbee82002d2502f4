"""A small deterministic world around the client's protocol state: a server by hand, and a disk.

It does what the engine does, turn by turn, without sockets, clocks and tasks: the test says what
the server sends and sees what the client writes. With ``is_durable`` a commit can be held back,
and a crash forgets what was not committed.
"""

from collections.abc import Awaitable, Iterator
from typing import Final

from holdfast.client.changes import Changes
from holdfast.client.connection import CONNECTED, ClientConnection
from holdfast.client.incoming import ReceivedMessage
from holdfast.client.outgoing import Outgoing
from holdfast.client.receiving import Receiving
from holdfast.client.records import (
    ClearIncoming,
    FreeIncoming,
    HoldIncoming,
    MarkSent,
    Record,
    ReleaseOutgoing,
    RemoveOutgoing,
    SetNumbers,
    StoreOutgoing,
)
from holdfast.client.sending import Sending
from holdfast.errors import ProtocolError
from holdfast.message import NEVER, Properties
from holdfast.protocol.decode import decode
from holdfast.protocol.encode import encode
from holdfast.protocol.framer import PACKET_BYTES_MAX, Framer
from holdfast.protocol.packets import (
    Connack,
    Connect,
    Packet,
    Pingreq,
    Publish,
    Subscribe,
    Unsubscribe,
)
from holdfast.protocol.properties import unpack_properties
from tests.broker.world import START_MS, describe

V311: Final = 4
V5: Final = 5


class ClientDisk:
    """What an outbox file holds."""

    def __init__(self) -> None:
        self.outgoing: dict[int, StoreOutgoing | None] = {}  # None: released
        self.incoming: dict[int, HoldIncoming] = {}
        self.next_seq = 1
        self.next_delivery_id = 1
        self.sent_below = 1
        self.owns_session = False  # as the client itself has it noted
        self.commits = 0

    def commit(self, records: list[Record]) -> None:
        self.commits += 1
        for record in records:
            match record:
                case StoreOutgoing():
                    self.outgoing[record.seq] = record
                    self.next_seq = max(self.next_seq, record.seq + 1)
                case ReleaseOutgoing():
                    self.outgoing[record.seq] = None
                case RemoveOutgoing():
                    self.outgoing.pop(record.seq, None)
                case HoldIncoming():
                    self.incoming[record.packet_id] = record
                    self.next_delivery_id = max(self.next_delivery_id, record.delivery_id + 1)
                case FreeIncoming():
                    self.incoming.pop(record.packet_id, None)
                case MarkSent():
                    self.sent_below = max(self.sent_below, record.below_seq)
                case ClearIncoming():
                    self.incoming.clear()
                case SetNumbers():
                    self.next_seq = max(self.next_seq, record.next_seq)
                    self.next_delivery_id = max(self.next_delivery_id, record.next_delivery_id)
                case _:
                    raise AssertionError(record)


class ClientWorld:
    """One client's session and its connection of the moment; packets are shown by ``shown``.

    ``arrived`` are the messages that the application may take, in order.
    """

    def __init__(
        self,
        version: int = V5,
        *,
        is_durable: bool = False,
        manual_ack: bool = False,
        in_flight_max: int = 65_000,
        uses_aliases: bool = False,
    ) -> None:
        self.version = version
        self.manual_ack = manual_ack
        self.now_ms = START_MS
        self.disk = ClientDisk()
        self.arrived: list[ReceivedMessage] = []
        self.finished: list[Outgoing] = []
        self._is_durable = is_durable
        self._in_flight_max = in_flight_max
        self._uses_aliases = uses_aliases
        self._number = 0
        self._is_held = False
        self._written: list[bytes] = []
        self._start()

    def _start(self) -> None:
        self.changes = Changes()
        self.committing: Changes | None = None
        self.sending = Sending(self.changes, self._is_durable, self._in_flight_max)
        self.receiving = Receiving(self.changes, self._is_durable, self.manual_ack, _no_ack)
        self.connection: ClientConnection | None = None
        self.out: list[bytes] = []
        disk = self.disk
        self.sending.sent_below = disk.sent_below
        self.sending.owns_session = disk.owns_session
        for seq, kept in sorted(disk.outgoing.items()):
            entry = Outgoing("", b"", 2, False, None, 0, 0)
            if kept is not None:
                entry = Outgoing(
                    kept.topic,
                    kept.payload,
                    kept.qos,
                    kept.retain,
                    unpack_properties(kept.packed_properties),
                    kept.expires_at_ms,
                    kept.queued_at_ms,
                )
            self.sending.restore(entry, seq, kept is None)
        for packet_id, held in disk.incoming.items():
            self.receiving.restore(packet_id, held.delivery_id, held.is_handed)
        self.sending.next_seq = disk.next_seq
        self.receiving.next_delivery_id = disk.next_delivery_id

    # --- the connection

    def open(self, connect: Connect | None = None) -> None:
        """Begin a connection, whose CONNECT was sent."""
        if connect is None:
            connect = Connect("c", self.version, clean_start=False)
        self._number += 1
        self.connection = ClientConnection(
            self._number,
            connect,
            self.sending,
            self.receiving,
            uses_aliases=self._uses_aliases,
        )

    def hello(
        self,
        *,
        present: bool = False,
        properties: Properties | None = None,
        connect: Connect | None = None,
    ) -> None:
        """Connect, with a CONNACK of success that has these properties."""
        self.open(connect)
        self.server(Connack(present, 0, properties))
        self.disk.owns_session = self.sending.owns_session
        assert self.the_connection.state == CONNECTED
        self.the_connection.events.clear()

    @property
    def the_connection(self) -> ClientConnection:
        assert self.connection is not None
        return self.connection

    def cut(self) -> None:
        """The connection is lost, and what was written and not looked at with it."""
        self.connection = None
        self.out.clear()
        self._written.clear()
        self.sending.disconnected()
        self.receiving.disconnected()
        self.turn()

    def again(self, *, present: bool = True, properties: Properties | None = None) -> None:
        """Lose the connection, and connect again to the session that the server has kept."""
        self.cut()
        self.hello(present=present, properties=properties)

    def crash(self, *, present: bool = True, properties: Properties | None = None) -> None:
        """Lose all that is not on disk, and connect again."""
        self.arrived = []
        self._is_held = False
        self._written.clear()
        self._start()
        self.hello(present=present, properties=properties)

    # --- what the server does

    def server(self, *packets: Packet) -> None:
        """The server sends these, in one piece."""
        self.server_bytes(b"".join(encode(packet, self.version) for packet in packets))

    def server_bytes(self, data: bytes) -> None:
        self.the_connection.receive(data, self.out)
        self.turn()

    def breaks(self, *packets: Packet | bytes) -> int:
        """The reason code with which the client ends the connection on receiving these."""
        wire = [one if isinstance(one, bytes) else encode(one, self.version) for one in packets]
        try:
            self.server_bytes(b"".join(wire))
        except ProtocolError as error:
            return error.reason_code
        raise AssertionError("expected an error, the client takes it")

    # --- what the application does

    def publish(
        self,
        topic: str,
        payload: bytes = b"",
        qos: int = 0,
        *,
        retain: bool = False,
        properties: Properties | None = None,
        expiry_s: int | None = None,
    ) -> Outgoing:
        expires_at_ms = NEVER if expiry_s is None else self.now_ms + expiry_s * 1000
        entry = Outgoing(topic, payload, qos, retain, properties, expires_at_ms, self.now_ms)
        entry.watcher = self
        self.sending.accept(entry)
        self.turn()
        return entry

    def request(self, packet: Subscribe | Unsubscribe) -> int:
        packet_id = self.the_connection.request(packet, self.out)
        self.turn()
        return packet_id

    def take(self) -> ReceivedMessage:
        """The application asks for the next message and gets it."""
        message = self.arrived.pop(0)
        self.receiving.hand_over(message)
        self.turn()
        return message

    def done(self, message: ReceivedMessage) -> None:
        """The application is done with a message: with ``manual_ack``, or at QoS 1."""
        self.receiving.acknowledge(message)
        self.turn()

    # --- the disk

    def hold(self) -> None:
        """From now on commits take until ``sync``."""
        self._is_held = True

    def sync(self) -> None:
        """Complete all commits."""
        self._is_held = False
        self.turn()

    # --- turns

    def turn(self) -> None:
        """Take turns until all is quiet."""
        for _ in range(10_000):
            self._write()
            if not self._commit() and not self._has_more():
                return
        raise AssertionError("the client does not come to rest")

    def _has_more(self) -> bool:
        connection = self.connection
        is_live = connection is not None and connection.state == CONNECTED
        has_more = bool(self.out) or (is_live and self.sending.has_more)
        return has_more and not self.receiving.is_clearing

    def _write(self) -> None:
        connection = self.connection
        if connection is not None and not self.receiving.is_clearing:
            self.receiving.flush(self.out)
            if connection.state == CONNECTED:
                self.sending.written(self.sending.pump(self.out, self.now_ms))
            self._written.extend(self.out)
            self.out.clear()
        self.arrived.extend(self.receiving.arrived)
        self.receiving.arrived = []
        self.finished.extend(self.sending.finished)
        self.sending.finished = []

    def _commit(self) -> bool:
        """Complete a commit, if one can be; whether it was."""
        if not self._is_durable or self._is_held:
            return False
        changes = self.changes
        if not (changes.is_urgent or changes.records):
            return False
        batch = changes.take()
        if batch.records:
            self.disk.commit(batch.records)
        self.sending.committed(batch)
        self.receiving.committed(batch)
        connection = self.connection
        if connection is not None and connection.number == batch.connection:
            self.out.extend(batch.sends)
        return True

    # --- what the client sent

    def wire(self) -> bytes:
        """The bytes written since the last look."""
        data = b"".join(self._written)
        self._written.clear()
        return data

    def packets(self) -> list[Packet]:
        """The packets written since the last look, read strictly."""
        return list(packets_of(self.wire(), self.version))

    def publishes(self) -> list[Publish]:
        """The PUBLISH packets among those written since the last look."""
        return [packet for packet in self.packets() if isinstance(packet, Publish)]

    def sent(self) -> list[str]:
        """The packets written since the last look, as text."""
        return [shown(packet) for packet in self.packets()]


def packets_of(data: bytes, version: int) -> Iterator[Packet]:
    """The packets of these bytes, which end with the last of them."""
    framer = Framer(PACKET_BYTES_MAX)
    framer.feed(data)
    while framer.next_frame():
        yield decode(framer.buffer, framer.start, framer.end, version)
    assert framer.buffered == 0


def shown(packet: Packet) -> str:
    """A packet of a client as a line: ``PUBLISH a/b 42 q1 #7 dup``, ``SUBSCRIBE #65280 a q1``."""
    if isinstance(packet, Connect):
        return f"CONNECT {packet.client_id}{' clean' if packet.clean_start else ''}"
    if isinstance(packet, Subscribe):
        asked = "".join(f" {one.topic_filter} q{one.qos}" for one in packet.requests)
        return f"SUBSCRIBE #{packet.packet_id}{asked}"
    if isinstance(packet, Unsubscribe):
        return f"UNSUBSCRIBE #{packet.packet_id} {' '.join(packet.topic_filters)}"
    if isinstance(packet, Pingreq):
        return "PINGREQ"
    return describe(packet)


def _no_ack(message: ReceivedMessage) -> Awaitable[None]:
    raise AssertionError("the tests acknowledge with ``done``")
