"""What clients send: their bytes, packet by packet, each to the part that acts on it.

A connection has its turn with a slice of packets; the rest of what it sent comes behind the slices
of the others. One that publishes faster than it may waits longer.
"""

from collections import deque
from typing import final

from holdfast.broker.acknowledging import Acknowledging
from holdfast.broker.authentication import Authentication, AuthReply, AuthStep
from holdfast.broker.connecting import Connecting
from holdfast.broker.connection import (
    AWAITS_CONNECT,
    CLOSED,
    CONNECTED,
    HELD,
    Connection,
    check_first_byte,
)
from holdfast.broker.counters import Counters
from holdfast.broker.endings import Endings
from holdfast.broker.limits import SLICE_WORK, Limits
from holdfast.broker.publishing import Publishing
from holdfast.broker.rates import PublishRate, Rates
from holdfast.broker.router import Router
from holdfast.broker.sessions import Sessions
from holdfast.broker.subscribing import Subscribing
from holdfast.errors import ProtocolError, Refused
from holdfast.protocol.decode import decode, decode_publish, peek_packet_id, peek_version
from holdfast.protocol.encode import PINGRESP_BYTES
from holdfast.protocol.packets import (
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    VERSION_NAMES,
    Auth,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Puback,
    Pubcomp,
    Pubrec,
    Pubrel,
    Subscribe,
    Unsubscribe,
)
from holdfast.protocol.reason_codes import (
    FAILURE,
    PROTOCOL_ERROR,
    UNSUPPORTED_PROTOCOL_VERSION,
)
from holdfast.protocol.topics import TopicCache


@final
class Intake:
    """Takes the input of all connections."""

    def __init__(
        self,
        limits: Limits,
        connections: dict[int, Connection],
        router: Router,
        sessions: Sessions,
        publishing: Publishing,
        subscribing: Subscribing,
        acknowledging: Acknowledging,
        authentication: Authentication,
        connecting: Connecting,
        endings: Endings,
        rates: Rates,
        counters: Counters,
    ) -> None:
        self._limits = limits
        self._connections = connections
        self._router = router
        self._sessions = sessions
        self._publishing = publishing
        self._subscribing = subscribing
        self._acknowledging = acknowledging
        self._authentication = authentication
        self._connecting = connecting
        self._endings = endings
        self._rates = rates
        self._counters = counters
        self._more: deque[Connection] = deque()  # who has sent more than a slice
        # Answers for clients that wait for their turns to be let in, by the connection's number;
        # and those whose turn it is.
        self._granted: dict[int, tuple[AuthStep, AuthReply]] = {}
        self.granted: list[tuple[AuthStep, AuthReply]] = []
        self._topics = TopicCache(
            levels_max=limits.topic_levels_max, bytes_max=limits.topic_bytes_max
        )
        self._any_topics = TopicCache(0)  # keeps none

    @property
    def has_more(self) -> bool:
        """Whether ``go_on`` has something to do."""
        return len(self._more) > 0

    def receive(self, connection: Connection, data: bytes) -> None:
        """Take the next bytes of a connection and act on the packets they complete.

        Of those it takes one slice; the rest has its turn in ``go_on``, so that nobody waits for
        all that a client sends who never pauses.
        """
        if connection.state == CLOSED:
            return
        self._counters.bytes_received += len(data)
        connection.input_bytes += len(data)
        framer = connection.framer
        try:
            if connection.state == AWAITS_CONNECT and framer.buffered == 0:
                check_first_byte(data)
            framer.feed(data)
            if connection.is_held or connection.has_more:
                return
            if connection.is_heavy:
                self.later(connection)
            else:
                self.go_through(connection)
        except (ProtocolError, Refused) as error:
            self._endings.end_for(connection, error)

    def go_on(self) -> bool:
        """Take the next slice of the connection whose turn it is; False if nobody has more."""
        if not self._more:
            return False
        connection = self._more.popleft()
        connection.has_more = False
        connection.is_heavy = False
        granted = self._granted.pop(connection.number, None)
        if connection.state == CLOSED:
            pass
        elif granted is not None:
            self.granted.append(granted)
        else:
            try:
                self.go_through(connection)
            except (ProtocolError, Refused) as error:
                self._endings.end_for(connection, error)
        if connection.is_gone and not connection.has_more:
            self.closed(connection)
        return True

    def closed(self, connection: Connection) -> None:
        """Take note that the network connection is gone, which may be news or not."""
        if connection.is_held:
            # Held back no longer, so that what it has sent is heard.
            connection.is_held = False
            connection.rate = None
            self.later(connection)
        if connection.has_more:
            connection.is_gone = True
            return
        self._connections.pop(connection.number, None)
        if connection.state != CLOSED:
            self._endings.lost(connection)

    # --- packets

    def go_through(self, connection: Connection) -> None:
        """Act on what is complete, as far as it may be taken now and is no more than a slice."""
        rate = connection.rate
        slice_packets = self._limits.slice_packets
        if rate is None:
            self._slice(connection, slice_packets)
            return
        room = rate.room(self._router.now_ms)
        if room == 0:
            self._rates.hold(connection, rate, self._router.now_ms)
            return
        self._rated_slice(
            connection, rate, room if slice_packets == 0 else min(room, slice_packets)
        )

    def _rated_slice(self, connection: Connection, rate: PublishRate, packets_max: int) -> None:
        publishes = self._counters.received
        size = connection.framer.buffered
        self._slice(connection, packets_max)
        publishes = self._counters.received - publishes
        if publishes > 0:
            rate.take(publishes, size - connection.framer.buffered)

    def _slice(self, connection: Connection, packets_max: int) -> None:
        """Act on so many packets, 0 for all; the others have their turn later."""
        framer = connection.framer
        counters = self._counters
        before = framer.frames
        stop_at = before + packets_max
        # Who makes much work of few packets waits for the turn of all who do.
        work_max = counters.work + SLICE_WORK
        try:
            while connection.state < HELD and not connection.has_more and framer.next_frame():
                self._packet(connection)
                if framer.frames == stop_at or counters.work > work_max:
                    connection.is_heavy = packets_max > 0
                    if connection.is_heavy and framer.buffered > 0:
                        self.later(connection)
        finally:
            if framer.frames > before:
                counters.packets_received += framer.frames - before
                # Whole packets count, not bytes: half of one keeps nothing alive [MQTT-3.1.2-22].
                connection.last_received_ms = self._router.now_ms

    def _hear_out(self, client_id: str) -> None:
        """Take all that a connection has sent and was held back for: it is taken over now."""
        session = self._sessions.find(client_id)
        older = None if session is None else session.connection
        if older is None or older.rate is None or not older.is_held:
            return
        older.is_held = False
        try:
            self._rated_slice(older, older.rate, 0)
        except (ProtocolError, Refused) as error:
            self._endings.end_for(older, error)

    def later(self, connection: Connection) -> None:
        """Take the rest of what a connection has sent when it has its turn again."""
        if connection.state != CLOSED and not connection.has_more:
            connection.has_more = True
            self._more.append(connection)

    def _packet(self, connection: Connection) -> None:
        """Act on the packet that the framer stands at."""
        framer = connection.framer
        buffer = framer.buffer
        packet_type = buffer[framer.start] >> 4
        if connection.state != CONNECTED:
            if connection.state == AWAITS_CONNECT:
                self._first_packet(connection)
            else:
                self._packet_before_connack(connection)
            return
        version = connection.version
        if packet_type == PUBLISH:
            try:
                publish = decode_publish(buffer, framer.start, framer.end, version, self._topics)
            except Refused as refusal:
                publish = decode_publish(
                    buffer, framer.start, framer.end, version, self._any_topics
                )
                self._publishing.refuse_topic(connection, publish, refusal)
                return
            self._publishing.publish(connection, publish)
            return
        packet_id = peek_packet_id(buffer, framer.start, framer.end)
        if packet_id != 0:
            self._acknowledging.take(connection, packet_type, packet_id, True)
            return
        self._other(connection, decode(buffer, framer.start, framer.end, version, self._topics))

    def _other(self, connection: Connection, packet: Packet) -> None:
        if isinstance(packet, Puback):
            self._acknowledging.take(connection, PUBACK, packet.packet_id, True)
        elif isinstance(packet, Pubrec):
            is_success = packet.reason_code < FAILURE
            self._acknowledging.take(connection, PUBREC, packet.packet_id, is_success)
        elif isinstance(packet, Pubrel):
            self._acknowledging.take(connection, PUBREL, packet.packet_id, True)
        elif isinstance(packet, Pubcomp):
            self._acknowledging.take(connection, PUBCOMP, packet.packet_id, True)
        elif isinstance(packet, Pingreq):
            connection.answer(PINGRESP_BYTES, 0)
        elif isinstance(packet, Subscribe):
            self._subscribing.subscribe(connection, packet)
        elif isinstance(packet, Unsubscribe):
            self._subscribing.unsubscribe(connection, packet)
        elif isinstance(packet, Disconnect):
            self._connecting.disconnect(connection, packet)
        elif isinstance(packet, Auth):
            self._authentication.auth(connection, packet, self._router.now_ms)
        elif isinstance(packet, Connect):
            raise ProtocolError(PROTOCOL_ERROR, "expected one CONNECT, a second one came")
        else:
            raise ProtocolError(
                PROTOCOL_ERROR, "expected a packet that a client sends, another one came"
            )

    # --- connecting and disconnecting

    def _first_packet(self, connection: Connection) -> None:
        """Take CONNECT. Source: [MQTT-3.1.0-1], [MQTT-3.1.4-1]."""
        framer = connection.framer
        if connection.waits_for is not None and self._is_to_wait(connection, connection.waits_for):
            framer.put_back()
            return
        version = peek_version(framer.buffer, framer.start, framer.end)
        connection.version = version
        packet = decode(framer.buffer, framer.start, framer.end, version, self._topics)
        if not isinstance(packet, Connect):
            raise ProtocolError(PROTOCOL_ERROR, "expected CONNECT as the first packet")
        if self._begins_to_wait(connection, packet.client_id):
            framer.put_back()
            return
        self._counters.connects += 1
        connection.introduce(packet)
        if version not in connection.rules.versions:
            spoken = " or ".join([VERSION_NAMES[one] for one in sorted(connection.rules.versions)])
            detail = f"expected MQTT {spoken} here, {VERSION_NAMES[version]} came"
            raise Refused(UNSUPPORTED_PROTOCOL_VERSION, detail)
        if self._limits.redirect_code != 0:
            raise Refused(self._limits.redirect_code, self._limits.redirect_detail)
        self._sessions.name(connection, packet)
        if self._authentication.connect(connection, packet):
            self.let_in(connection, packet, None)
        else:
            self._connecting.arrivals.append(connection)

    def waits_to_be_let_in(self, step: AuthStep, reply: AuthReply) -> bool:
        """Whether a client that is granted waits, as its CONNECT would have: see ``granted``."""
        connection = step.connection
        older = connection.waits_for
        if (older is None or not self._is_to_wait(connection, older)) and (
            not self._begins_to_wait(connection, connection.client_id)
        ):
            return False
        self._granted[connection.number] = (step, reply)
        return True

    def _begins_to_wait(self, connection: Connection, client_id: str) -> bool:
        """Whether what another one has sent comes before a connection takes its session over.

        Its DISCONNECT may be there, say, which keeps its will back.
        """
        session = self._sessions.find(client_id)
        older = None if session is None else session.connection
        if older is not None and older is not connection.waits_for:
            connection.waits_until_bytes = older.input_bytes
            if self._is_to_wait(connection, older):
                return True
        connection.waits_for = None
        return False

    def _is_to_wait(self, connection: Connection, older: Connection) -> bool:
        """Whether the other one's bytes have their turns first, up to a point; it waits then.

        Not those that came later: who never pauses would keep the session for ever.
        """
        taken = older.input_bytes - older.framer.buffered
        if not older.has_more or taken >= connection.waits_until_bytes:
            return False
        connection.waits_for = older
        self.later(connection)
        return True

    def let_in(self, connection: Connection, packet: Connect, auth_data: bytes | None) -> None:
        self._connecting.check(packet, self._router.now_ms)
        self._hear_out(packet.client_id)
        self._connecting.carry_out(connection, packet, auth_data, self._router.now_ms)

    def _packet_before_connack(self, connection: Connection) -> None:
        """Take a packet while the first authentication goes on. Source: [MQTT-3.1.2-30]."""
        framer = connection.framer
        version = connection.version
        packet = decode(framer.buffer, framer.start, framer.end, version, self._topics)
        if isinstance(packet, Auth):
            self._authentication.auth(connection, packet, self._router.now_ms)
        elif isinstance(packet, Disconnect):
            self._endings.lost(connection)
        else:
            raise ProtocolError(
                PROTOCOL_ERROR, "expected AUTH or DISCONNECT until CONNACK, another packet came"
            )
