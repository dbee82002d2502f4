"""A world whose clients check every packet of the broker the moment it reaches them.

A client here may send anything. What it has sent is read once more, as the broker reads it, so that
each answer can be held against what it answers and against what is on the disk by then.
"""

from collections import Counter
from typing import NamedTuple

from holdfast.auth.interface import Authenticator
from holdfast.broker.authentication import AuthReply, AuthRequest, go_on, grant, refuse
from holdfast.broker.connection import CONNECTED, Connection
from holdfast.broker.limits import Limits
from holdfast.broker.session import OPTION_NO_LOCAL, OPTION_QOS, Session
from holdfast.errors import ProtocolError
from holdfast.message import Message
from holdfast.protocol.decode import decode, peek_version
from holdfast.protocol.framer import PACKET_BYTES_MAX, Framer
from holdfast.protocol.packets import (
    MQTT_3_1_1,
    MQTT_5_0,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
)
from holdfast.protocol.reason_codes import FAILURE, NO_MATCHING_SUBSCRIBERS
from holdfast.protocol.receiver import Qos2Receiver
from holdfast.protocol.topics import matches
from holdfast.store.records import OPEN, Batch, unpack_in_flight
from tests.broker.model_store import ModelStore
from tests.broker.world import Client, World

Key = tuple[int, str, int]


class WatchedStore(ModelStore):
    """Remembers what was ever committed, until it is told to ``forget``."""

    def __init__(self) -> None:
        super().__init__()
        self.ever_logged: set[tuple[str, bytes]] = set()
        self.ever_retained: set[tuple[str, bytes]] = set()
        self.ever_delayed: set[tuple[str, bytes]] = set()

    def commit(self, batch: Batch) -> None:
        super().commit(batch)
        for entry in batch.entries:
            self.ever_logged.add((entry.message.topic, entry.message.payload))
        for record in batch.retained:
            message: Message | None = record.message
            if message is not None:
                self.ever_retained.add((record.topic, message.payload))

        for delayed in batch.delayed:
            self.ever_delayed.add((delayed.message.topic, delayed.message.payload))

    def forget(self) -> None:
        self.ever_logged = set()
        self.ever_retained = set()
        self.ever_delayed = set()

    def subscriptions_for(self, topic: str, client_id: str) -> dict[Key, int]:
        """The durable subscriptions that must get this client's messages at QoS 1 and 2.

        Shared ones are left out: which member gets a message is not the disk's matter.
        """
        found: dict[Key, int] = {}
        for key, record in self.subscriptions.items():
            topic_filter = record.topic_filter
            if topic_filter.startswith(("$share/", "$queue/")) or record.until_lsn != OPEN:
                continue
            session = self.sessions.get(record.session)
            if session is None or session.expiry_s == 0 or record.options & OPTION_QOS == 0:
                continue
            if record.options & OPTION_NO_LOCAL and session.client_id == client_id:
                continue
            if matches(topic_filter, topic):
                found[key] = record.options
        return found


class Published(NamedTuple):
    """A QoS 1 or 2 PUBLISH as it went to the broker."""

    packet: Publish
    wanted: dict[Key, int]  # who must get it, by the disk of that moment
    touched: int  # subscriptions changed so far
    is_repeat: bool  # the broker may take it for a repeat


class Asked(NamedTuple):
    """A SUBSCRIBE or UNSUBSCRIBE as it went to the broker."""

    packet_id: int
    filters: list[str]
    qos: list[int]
    touched: int


class DataAuthenticator:
    """Decides by the first byte of the Authentication Data; grants what has none."""

    @property
    def methods(self) -> frozenset[str]:
        return frozenset(["PLAIN"])

    def step(self, request: AuthRequest) -> AuthReply:
        data = request.data or b"\0"
        kind = data[0] % 6
        if kind == 1:
            return refuse(data[-1], "expected another")
        if kind == 2:
            raise RuntimeError("the authenticator fails")
        if kind < 5 and request.method is not None:
            return go_on(data, len(data))
        return grant(data if request.method is not None else None, "someone")


class FuzzWorld(World):
    """A world of watched clients."""

    def __init__(self, limits: Limits, authenticator: Authenticator | None = None) -> None:
        self.kept = WatchedStore()
        self.touched = 0  # grows with each (UN)SUBSCRIBE that is sent
        self.answers: Counter[str] = Counter()  # how many packets of each kind came
        super().__init__(limits, self.kept, authenticator)

    def open(self, version: int) -> "Watched":
        """Open a network connection."""
        self.broker.begin_turn(self.now_ms)
        number = self._next_number
        self._next_number += 1
        connection = self.broker.connect(number, f"192.0.2.1:{number}")
        client = Watched(self, connection, version)
        self.clients[number] = client
        return client

    def turn(self) -> None:
        super().turn()
        self.events.clear()


class Watched(Client):
    """One network connection, and what is known of it from outside."""

    def __init__(self, world: FuzzWorld, connection: Connection, version: int) -> None:
        super().__init__(world, connection, version)
        self.watch = world
        self.connect: Connect | None = None
        self.connack: Connack | None = None
        self.open_ids: dict[int, int] = {}  # PUBLISH packets received and not answered, and QoS
        self.to_answer: list[Packet] = []  # the acknowledgements that the client owes
        self._input = Framer(world.limits.packet_bytes_max)
        self._is_input_over = False
        self._output = Framer(PACKET_BYTES_MAX)
        self._is_output_over = False
        self._publishes: dict[int, list[Published]] = {1: [], 2: []}  # by QoS, unanswered
        self._qos2_ids: dict[int, int] = {}  # of the PUBLISH packets sent, and when last
        self._pubrels: list[tuple[int, int]] = []  # identifier, and when
        self._pubrel_ids: set[int] = set()
        self._sent = 0  # how many packets; it serves as their clock
        self._subscribes: list[Asked] = []
        self._unsubscribes: list[Asked] = []
        self._pings = 0
        self._pubrec_ids: set[int] = set()
        self._blind_ids: set[int] = set()  # acknowledged without having been received
        self._acked_ids: set[int] = set()
        self._aliases: dict[int, str] = {}

    # --- what the client sends

    def push_bytes(self, data: bytes) -> None:
        super().push_bytes(data)
        if self._is_input_over:
            return
        try:
            framer = self._input
            framer.feed(data)
            while not self._is_input_over and framer.next_frame():
                self._note_frame(framer.buffer, framer.start, framer.end)
        except ProtocolError:
            self._is_input_over = True

    def _note_frame(self, buffer: bytes, start: int, end: int) -> None:
        if self.connect is None:
            packet = decode(buffer, start, end, peek_version(buffer, start, end))
            if isinstance(packet, Connect):
                self.connect = packet
            else:
                self._is_input_over = True
            return
        self._note(decode(buffer, start, end, self.connect.version))

    def _note(self, packet: Packet) -> None:
        world = self.watch
        self._sent += 1
        if isinstance(packet, Publish):
            self._note_publish(packet)
        elif isinstance(packet, Puback | Pubrec | Pubcomp):
            self._note_acknowledgement(packet)
        elif isinstance(packet, Pubrel):
            self._pubrels.append((packet.packet_id, self._sent))
            self._pubrel_ids.add(packet.packet_id)
        elif isinstance(packet, Subscribe):
            world.touched += 1
            filters = [request.topic_filter for request in packet.requests]
            qos = [request.qos for request in packet.requests]
            self._subscribes.append(Asked(packet.packet_id, filters, qos, world.touched))
        elif isinstance(packet, Unsubscribe):
            world.touched += 1
            asked = Asked(packet.packet_id, packet.topic_filters, [], world.touched)
            self._unsubscribes.append(asked)
        elif isinstance(packet, Pingreq):
            self._pings += 1
        elif not isinstance(packet, Auth):
            self._is_input_over = True

    def _note_publish(self, packet: Publish) -> None:
        if packet.qos == 0:
            return
        wanted: dict[Key, int] = {}
        assert self.connect is not None
        if packet.topic and not packet.topic.startswith("$"):
            wanted = self.watch.kept.subscriptions_for(packet.topic, self.connect.client_id)
        is_repeat = packet.qos == 2 and packet.packet_id in self._qos2_ids
        if packet.qos == 2:
            self._qos2_ids[packet.packet_id] = self._sent
        published = Published(packet, wanted, self.watch.touched, is_repeat)
        self._publishes[packet.qos].append(published)

    def _note_acknowledgement(self, packet: Puback | Pubrec | Pubcomp) -> None:
        packet_id = packet.packet_id
        self._acked_ids.add(packet_id)
        if isinstance(packet, Pubrec):
            self._pubrec_ids.add(packet_id)
        qos = self.open_ids.get(packet_id)
        if qos is None:
            self._blind_ids.add(packet_id)
        elif isinstance(packet, Puback):
            if qos == 1:
                del self.open_ids[packet_id]
        elif qos == 2 and (isinstance(packet, Pubcomp) or packet.reason_code >= FAILURE):
            del self.open_ids[packet_id]

    # --- what the broker sends

    def arrive(self, data: bytes) -> None:
        if not self.is_open or not data:
            return
        framer = self._output
        framer.feed(data)
        while framer.next_frame():
            assert not self._is_output_over, "a packet behind DISCONNECT or a refusal"
            packet = decode(framer.buffer, framer.start, framer.end, self._version())
            self._check_size(framer.end - framer.start)
            self.watch.answers[type(packet).__name__] += 1
            self._take(packet)
        assert framer.buffered == 0, "a write that ends inside a packet"

    def _version(self) -> int:
        """The version of the answers; a level that does not exist is answered by the nearest."""
        return MQTT_5_0 if self.connection.version >= MQTT_5_0 else MQTT_3_1_1

    def _check_size(self, size: int) -> None:
        if self.connect is None or self.connect.properties is None or self.connack is None:
            return
        size_max = self.connect.properties.maximum_packet_size
        assert size_max is None or size <= size_max, f"{size} bytes, Maximum Packet Size {size_max}"

    def _take(self, packet: Packet) -> None:
        if isinstance(packet, Connack):
            self._take_connack(packet)
            return
        if isinstance(packet, Auth):
            self._take_auth(packet)
            return
        assert self.connack is not None, "CONNACK comes first"
        if isinstance(packet, Publish):
            self._take_publish(packet)
        elif isinstance(packet, Puback):
            self._take_accepted(packet, self._publishes[1])
        elif isinstance(packet, Pubrec):
            self._take_accepted(packet, self._publishes[2])
        elif isinstance(packet, Pubrel):
            self._take_pubrel(packet)
        elif isinstance(packet, Pubcomp):
            self._take_pubcomp(packet, *self._pubrels.pop(0))
        elif isinstance(packet, Suback):
            self._take_suback(packet, self._subscribes.pop(0))
        elif isinstance(packet, Unsuback):
            self._take_unsuback(packet, self._unsubscribes.pop(0))
        elif isinstance(packet, Pingresp):
            self._pings -= 1
            assert self._pings >= 0
        else:
            assert self._version() == MQTT_5_0 and isinstance(packet, Disconnect)
            self._is_output_over = True

    def _durable_session(self) -> Session | None:
        """The session of this connection, if it holds one that is kept."""
        session = self.connection.session
        if session is None or self.connection.state != CONNECTED or session.expiry_s == 0:
            return None
        return session

    def _received(self, session: Session) -> list[int]:
        """The identifiers of QoS 2 that the disk holds for a session."""
        state = self.watch.kept.states.get(session.number)
        return [] if state is None else Qos2Receiver(state.received).held

    def _take_connack(self, packet: Connack) -> None:
        assert self.connack is None, "a second CONNACK"
        self.connack = packet
        if packet.reason_code != 0:
            self._is_output_over = True
            return
        assert self.connect is not None, "a CONNACK without a CONNECT"
        kept = self.watch.kept
        session = self._durable_session()
        if session is not None:
            assert session.number in kept.sessions, "CONNACK before its session is durable"
        if not packet.session_present and self.connection.session is not None:
            own = self.connection.session.number
            client_id = self.connection.client_id
            for other in kept.sessions.values():
                assert other.number == own or other.client_id != client_id, (
                    "CONNACK before the end of the session of before is durable"
                )

    def _take_auth(self, packet: Auth) -> None:
        """AUTH alone may come before CONNACK."""
        assert self.connect is not None and self.connect.properties is not None
        assert packet.properties is not None
        method = self.connect.properties.authentication_method
        assert method is not None and packet.properties.authentication_method == method

    def _take_publish(self, packet: Publish) -> None:
        assert self.connack is not None and self.connect is not None
        properties = self.connect.properties
        sent = packet.properties
        if sent is not None and sent.topic_alias is not None:
            alias_max = None if properties is None else properties.topic_alias_maximum
            assert sent.topic_alias <= (alias_max or 0), "above the Topic Alias Maximum"
            if packet.topic:
                self._aliases[sent.topic_alias] = packet.topic
            assert sent.topic_alias in self._aliases, "an alias that stands for nothing"
        if packet.qos == 0:
            return
        packet_id = packet.packet_id
        self.to_answer.append(Puback(packet_id) if packet.qos == 1 else Pubrec(packet_id))
        if packet_id not in self._blind_ids:
            assert packet_id not in self.open_ids, f"packet identifier {packet_id} is in use"
        self.open_ids[packet_id] = packet.qos
        receive_maximum = None if properties is None else properties.receive_maximum
        if not self._blind_ids and receive_maximum is not None:
            assert len(self.open_ids) <= receive_maximum, "above the Receive Maximum"
        session = self._durable_session()
        if session is not None and packet_id not in self._acked_ids:
            state = self.watch.kept.states[session.number]
            in_flight = unpack_in_flight(state.in_flight)
            assert packet_id in in_flight, "PUBLISH before its identifier is durable"

    def _take_accepted(self, packet: Puback | Pubrec, sent: list[Published]) -> None:
        published = sent.pop(0)
        publish = published.packet
        assert publish.packet_id == packet.packet_id, "acknowledgements out of order"
        if packet.reason_code >= FAILURE:
            return
        kept = self.watch.kept
        is_repeat = published.is_repeat
        if isinstance(packet, Pubrec):
            is_repeat = is_repeat or self.connection.is_resumed
            session = self._durable_session()
            if session is not None and packet.packet_id not in self._pubrel_ids:
                received = self._received(session)
                assert packet.packet_id in received, "PUBREC before its identifier is durable"
        if is_repeat or not publish.topic:
            return
        if publish.topic.startswith("$delayed/") and publish.payload:
            _, seconds, topic = publish.topic.split("/", 2)
            is_kept = (topic, publish.payload) in kept.ever_delayed
            assert is_kept or int(seconds) == 0, "acknowledged, the delayed message is not durable"
        if publish.topic.startswith("$"):
            return
        what = (publish.topic, publish.payload)
        if publish.retain and publish.payload:
            assert what in kept.ever_retained, "acknowledged before its retained slot is durable"
        if published.touched != self.watch.touched:
            return
        assert self.connect is not None
        still_wanted = kept.subscriptions_for(publish.topic, self.connect.client_id)
        for key, options in published.wanted.items():
            if still_wanted.get(key) == options:
                assert what in kept.ever_logged, f"acknowledged, not durable for session {key[0]}"
                assert packet.reason_code != NO_MATCHING_SUBSCRIBERS

    def _take_pubrel(self, packet: Pubrel) -> None:
        # Not Session Present, which 3.1 does not have.
        assert packet.packet_id in self._pubrec_ids or self.connection.is_resumed
        self.to_answer.append(Pubcomp(packet.packet_id))

    def _take_pubcomp(self, packet: Pubcomp, packet_id: int, sent: int) -> None:
        assert packet.packet_id == packet_id, "PUBCOMP out of order"
        session = self._durable_session()
        if session is not None and self._qos2_ids.get(packet_id, 0) < sent:
            assert packet_id not in self._received(session), "PUBCOMP before it is durable"

    def _take_suback(self, packet: Suback, asked: Asked) -> None:
        assert packet.packet_id == asked.packet_id
        assert len(packet.reason_codes) == len(asked.filters)
        session = self._durable_session()
        if session is None or asked.touched != self.watch.touched:
            return
        granted = {
            topic_filter: code
            for topic_filter, code in zip(asked.filters, packet.reason_codes, strict=True)
            if code < FAILURE and not topic_filter.startswith(("$share/", "$queue/"))
        }
        for topic_filter, code in granted.items():
            assert code <= max(asked.qos)
            assert any(
                record.session == session.number
                and record.topic_filter == topic_filter
                and record.until_lsn == OPEN
                and record.options & OPTION_QOS == code
                for record in self.watch.kept.subscriptions.values()
            ), f"SUBACK before the subscription to {topic_filter} is durable"

    def _take_unsuback(self, packet: Unsuback, asked: Asked) -> None:
        assert packet.packet_id == asked.packet_id
        gone = asked.filters
        if self._version() == MQTT_5_0:
            codes = zip(asked.filters, packet.reason_codes, strict=True)
            gone = [topic_filter for topic_filter, code in codes if code < FAILURE]
        session = self._durable_session()
        if session is None or asked.touched != self.watch.touched:
            return
        for record in self.watch.kept.subscriptions.values():
            if record.session == session.number and record.until_lsn == OPEN:
                assert record.topic_filter not in gone, "UNSUBACK before it is durable"
