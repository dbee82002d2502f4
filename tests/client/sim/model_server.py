"""A server that is obviously right, strict with its clients, and hard on them.

It answers in any order the standard allows a client to meet, takes few messages at once, forgets
sessions, refuses now and then; and it holds every packet of a client against the standard.
"""

from collections import deque
from typing import TYPE_CHECKING

from holdfast.message import Properties
from holdfast.protocol.decode import decode
from holdfast.protocol.encode import encode
from holdfast.protocol.framer import PACKET_BYTES_MAX, Framer
from holdfast.protocol.packets import (
    MQTT_5_0,
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
from holdfast.protocol.reason_codes import PACKET_IDENTIFIER_NOT_FOUND, QUOTA_EXCEEDED
from tests.client.sim.ledger import PROMISED, Given
from tests.client.sim.network import Wire
from tests.sim.describe import describe_any
from tests.sim.taps import Violation

if TYPE_CHECKING:
    from tests.client.sim.simulation import Simulation

SENT, RELEASED = "sent", "released"


class Session:
    """What the server keeps of a client."""

    def __init__(self, client_id: str) -> None:
        self.client_id = client_id
        self.is_subscribed = False
        self.held: dict[int, Given] = {}  # of QoS 2 from the client, until PUBREL
        self.released: dict[int, int] = {}  # identifiers that were held: the newest message
        self.seen: dict[int, int] = {}  # messages that came, and over which connection
        self.queue: deque[Given] = deque()
        self.in_flight: dict[int, tuple[Given, str]] = {}  # to the client, in order
        self.next_id = 1
        self.connections = 0
        self.process = 0  # of the client, at the first connection
        self.is_told = False  # the client knows that it is a new one


class ModelServer:
    """See above."""

    def __init__(self, simulation: "Simulation") -> None:
        self.simulation = simulation
        self.sessions: dict[str, Session] = {}
        self.online: dict[str, ModelEnd] = {}

    def accept(self, wire: Wire) -> "ModelEnd":
        return ModelEnd(self, wire)

    def crash(self) -> None:
        """Nothing of the kind."""

    def forget(self, client_id: str) -> None:
        """The session is gone, with what was in it."""
        session = self.sessions.pop(client_id, None)
        if session is None:
            return
        self.simulation.say(f"server: the session of {client_id} is forgotten")
        for given in [*session.queue, *(one for one, _ in session.in_flight.values())]:
            given.free()
        for given in self.simulation.ledger.given.get(client_id, []):
            given.sessions_lost += 1
        end = self.online.get(client_id)
        if end is not None:
            end.hang_up()

    def publish(self, client_id: str, qos: int) -> None:
        """Somebody has published a message for this client."""
        session = self.sessions.get(client_id)
        if session is None or not session.is_subscribed:
            return
        given = self.simulation.ledger.give("server", qos)
        end = self.online.get(client_id)
        if qos == 0 and (end is None or session.queue):
            given.free()
            return
        given.state = PROMISED
        session.queue.append(given)
        if end is not None:
            end.pump()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is on its way to or from anybody."""
        for session in self.sessions.values():
            is_held = bool(session.held) and not self.simulation.may_hold
            if session.queue or session.in_flight or is_held:
                return False
        return all(not end.owed for end in self.online.values())

    def describe(self) -> str:
        """What is on its way."""
        return ", ".join(
            f"{one.client_id}: {one.in_flight} {one.held} {list(one.queue)}"
            for one in self.sessions.values()
        )

    def check_idle(self) -> None:
        """What is left has been forgotten by the client."""
        for session in self.sessions.values():
            kind = self.simulation.devices[session.client_id].kind
            if kind.subscribes_to and not session.is_subscribed:
                raise Violation("subscription lost", session.client_id, session.client_id)
            if session.held and not self.simulation.may_hold:
                raise Violation("never released", f"{session.held}", session.client_id)
            if session.in_flight or session.queue:
                text = f"{session.in_flight}, {list(session.queue)}"
                raise Violation("never acknowledged", text, session.client_id)


class ModelEnd:
    """The server's end of one connection."""

    def __init__(self, server: ModelServer, wire: Wire) -> None:
        self.server = server
        self.simulation = server.simulation
        self.version = wire.process.device.version
        self.session: Session | None = None
        self.owed: dict[int, Given] = {}  # PUBLISH packets that are not acknowledged in full
        self.number = 0
        self._wire = wire
        self._framer = Framer(PACKET_BYTES_MAX)
        self._is_open = True
        self._answers: deque[Packet] = deque()
        self._newest = 0  # message of this connection
        self._is_new = False  # the session has begun with this connection
        self._client_maximum = 65_535
        self._pubacks: deque[int] = deque()  # that the client owes, in order
        self._pubrecs: deque[int] = deque()
        self._pubrels: deque[int] = deque()  # that it owes for the PUBRECs of this connection
        self._may_ack: set[int] = set()

    # --- the wire

    def received(self, data: bytes) -> None:
        if not self._is_open:
            return
        self._framer.feed(data)
        while self._framer.next_frame():
            framer = self._framer
            packet = decode(framer.buffer, framer.start, framer.end, self.version)
            self.simulation.note(self._wire.process.name, "->", packet)
            self._take(packet)

    def lost(self) -> None:
        self._is_open = False
        if self.session is not None and self.server.online.get(self.session.client_id) is self:
            del self.server.online[self.session.client_id]

    def hang_up(self) -> None:
        if self._is_open:
            self.lost()
            self._wire.close_by_server()

    def send(self, packet: Packet) -> None:
        if self._is_open:
            self.simulation.note(self._wire.process.name, "<-", packet)
            self._wire.send_down(encode(packet, self.version))

    def _broken(self, check: str, text: str) -> Violation:
        name = self._wire.process.name
        return Violation(check, f"{name}: {text}", name)

    # --- packets

    def _take(self, packet: Packet) -> None:
        if isinstance(packet, Connect):
            self._connect(packet)
            return
        session = self.session
        if session is None:
            raise self._broken("protocol", f"{describe_any(packet)} before CONNACK")
        if self.server.sessions.get(session.client_id) is not session:
            return  # it was forgotten; the connection is about to end
        session.is_told = True
        match packet:
            case Publish():
                self._publish(session, packet)
            case Pubrel():
                self._pubrel(session, packet)
            case Puback():
                self._acknowledged(session, packet.packet_id, 1, self._pubacks)
            case Pubrec():
                self._acknowledged(session, packet.packet_id, 2, self._pubrecs)
            case Pubcomp():
                if session.in_flight.get(packet.packet_id, (None, ""))[1] != RELEASED:
                    raise self._broken("protocol", f"{describe_any(packet)} for nothing")
                del session.in_flight[packet.packet_id]
                self.pump()
            case Subscribe():
                self._check_free(session, packet.packet_id)
                session.is_subscribed = True
                codes = [request.qos for request in packet.requests]
                self._later(Suback(packet.packet_id, codes))
            case Unsubscribe():
                session.is_subscribed = False
                self._later(Unsuback(packet.packet_id, [0] * len(packet.topic_filters)))
            case Pingreq():
                self.send(Pingresp())
            case Disconnect():
                self.lost()
            case _:
                raise self._broken("protocol", f"{describe_any(packet)} came")

    def _connect(self, packet: Connect) -> None:
        simulation, plan = self.simulation, self.simulation.plan
        server = self.server
        if self.session is not None:
            raise self._broken("protocol", "a second CONNECT")
        properties = packet.properties
        if properties is not None and properties.receive_maximum is not None:
            self._client_maximum = properties.receive_maximum
        before = server.online.pop(packet.client_id, None)
        if before is not None:
            before.hang_up()
        if simulation.is_rough and simulation.random.random() < plan.refuses:
            self.send(Connack(False, 3 if self.version < MQTT_5_0 else 0x88))
            self.hang_up()
            return
        if packet.clean_start:
            server.forget(packet.client_id)
        known = server.sessions.get(packet.client_id)
        if known is not None and not known.is_told:
            # No client could know: the only CONNACK that told it was lost.
            del server.sessions[packet.client_id]
        is_present = packet.client_id in server.sessions
        session = server.sessions.setdefault(packet.client_id, Session(packet.client_id))
        self.session = session
        session.connections += 1
        self.number = session.connections
        self._is_new = not is_present
        self._process = self._wire.process.number
        if self._is_new:
            session.process = self._process
        server.online[packet.client_id] = self
        answer: Properties | None = None
        if self.version >= MQTT_5_0:
            answer = Properties()
            answer.receive_maximum = plan.server_maximum
        self.send(Connack(is_present, 0, answer))
        if self._is_new and session.connections == 1 and simulation.random.random() < 0.3:
            # To learn that a session has ended is a delicate moment.
            delay_s = simulation.random.uniform(0, plan.network_s * 3 + plan.commit_s)
            simulation.after(delay_s, self._wire.process.may_die, "in a new session")
        self._send_again(session)
        self.pump()

    def _send_again(self, session: Session) -> None:
        """Source: [MQTT-4.4.0-1]."""
        for packet_id, (given, stage) in session.in_flight.items():
            if stage == RELEASED:
                self.send(Pubrel(packet_id))
            else:
                self._give(packet_id, given, dup=True)

    def pump(self) -> None:
        """Send what waits, as much as the client takes."""
        session = self.session
        assert session is not None
        ids = self.simulation.plan.window + 2  # so that they soon come again
        while session.queue:
            given = session.queue[0]
            if given.qos == 0:
                session.queue.popleft()
                given.free()
                self.send(Publish(given.topic, given.payload, 0))
                continue
            if len(session.in_flight) >= min(self._client_maximum, self.simulation.plan.window):
                return
            session.queue.popleft()
            packet_id = session.next_id
            while packet_id in session.in_flight:
                packet_id = packet_id % ids + 1
            session.next_id = packet_id % ids + 1
            session.in_flight[packet_id] = (given, SENT)
            self._give(packet_id, given, dup=False)

    def _give(self, packet_id: int, given: Given, *, dup: bool) -> None:
        (self._pubacks if given.qos == 1 else self._pubrecs).append(packet_id)
        self.send(Publish(given.topic, given.payload, given.qos, False, dup, packet_id))

    # --- what a client publishes

    def _publish(self, session: Session, packet: Publish) -> None:
        simulation = self.simulation
        given = simulation.ledger.find(packet.payload)
        if given.topic != packet.topic or given.qos != packet.qos:
            raise self._broken("damaged", f"{given} came as {describe_any(packet)}")
        if given.number <= self._newest:
            raise self._broken("order", f"{given} after {self._newest} on one connection")
        self._newest = given.number
        if packet.qos == 0:
            if packet.dup:
                raise self._broken("DUP", f"{given} has QoS 0")  # [MQTT-3.3.1-2]
            simulation.ledger.came(given, "server")
            return
        packet_id = packet.packet_id
        self._check_free(session, packet_id)
        self._check_dup(session, packet, given)
        session.seen[given.number] = self.number
        self.owed[packet_id] = given
        maximum = simulation.plan.server_maximum
        if self.version >= MQTT_5_0 and len(self.owed) > maximum:
            raise self._broken("receive maximum", f"{len(self.owed)} of {maximum}: {given}")
        is_refused = (
            self.version >= MQTT_5_0
            and simulation.is_rough
            and simulation.random.random() < simulation.plan.refuses
            and packet_id not in session.held
        )
        if is_refused:
            given.free()
            given.was_refused = True
        if packet.qos == 1:
            if not is_refused:
                simulation.ledger.came(given, "server")
            self._later(Puback(packet_id, QUOTA_EXCEEDED if is_refused else 0))
            return
        held = session.held.get(packet_id)
        if held is not None and held is not given:
            raise self._broken("identifier", f"#{packet_id} is {held}'s, {given} came under it")
        if is_refused:
            self._later(Pubrec(packet_id, QUOTA_EXCEEDED))
            return
        if held is None:
            if session.released.get(packet_id) == given.number:
                raise self._broken("PUBLISH after PUBREL", str(given))  # [MQTT-4.3.3-6]
            simulation.ledger.came(given, "server")
            session.held[packet_id] = given
        self._later(Pubrec(packet_id))

    def _check_free(self, session: Session, packet_id: int) -> None:
        """Source: [MQTT-2.2.1-3], [MQTT-2.2.1-4]."""
        if packet_id == 0:
            raise self._broken("identifier", "0")
        if packet_id in self.owed:
            raise self._broken("identifier", f"#{packet_id} is in use for {self.owed[packet_id]}")

    def _check_dup(self, session: Session, packet: Publish, given: Given) -> None:
        """Source: [MQTT-3.3.1-1]."""
        if session.seen.get(given.number, 0) and not packet.dup:
            raise self._broken("DUP", f"{given} came again without")
        if self._is_new and packet.dup:
            raise self._broken("DUP", f"{given} is new to this session")

    def _pubrel(self, session: Session, packet: Pubrel) -> None:
        packet_id = packet.packet_id
        if packet.reason_code:
            raise self._broken("protocol", f"{describe_any(packet)}: PUBREC was for a message")
        if self._pubrels and packet_id in self._pubrels:
            if self._pubrels[0] != packet_id:
                text = f"PUBREL #{packet_id}, {list(self._pubrels)} have been waiting for longer"
                raise self._broken("order", text)  # [MQTT-4.6.0-4]
            self._pubrels.popleft()
        elif packet_id in session.held and packet_id in self.owed:
            raise self._broken("protocol", f"PUBREL #{packet_id} before PUBREC")
        given = session.held.pop(packet_id, None)
        if given is not None:
            session.released[packet_id] = given.number
        elif packet_id not in session.released and session.process == self._process:
            # (It may be one of an earlier session whose end a crash has taken back.)
            raise self._broken("protocol", f"PUBREL #{packet_id} in a session without it")
        code = PACKET_IDENTIFIER_NOT_FOUND if given is None and self.version >= MQTT_5_0 else 0
        self._later(Pubcomp(packet_id, code))

    def _later(self, packet: Packet) -> None:
        """Answer at some time; in order, or in any order at all."""
        plan, chance = self.simulation.plan, self.simulation.random
        if plan.any_order:
            self.simulation.after(chance.uniform(0, plan.answer_s), self._answer, packet)
            return
        self._answers.append(packet)
        self.simulation.after(chance.uniform(0, plan.answer_s), self._answer, None)

    def _answer(self, packet: Packet | None) -> None:
        if packet is None:
            packet = self._answers.popleft()
        if not self._is_open:
            return
        match packet:
            case Puback() | Pubcomp():
                self.owed.pop(packet.packet_id, None)
            case Pubrec() if packet.reason_code:
                self.owed.pop(packet.packet_id, None)
            case Pubrec():
                self._pubrels.append(packet.packet_id)
        self.send(packet)

    # --- what a client acknowledges

    def _acknowledged(
        self, session: Session, packet_id: int, qos: int, expected: deque[int]
    ) -> None:
        given, stage = session.in_flight.get(packet_id, (None, ""))
        kind = "PUBACK" if qos == 1 else "PUBREC"
        if given is None or given.qos != qos or stage != SENT:
            raise self._broken("protocol", f"{kind} #{packet_id} for nothing")
        if not expected or expected[0] != packet_id:
            # [MQTT-4.6.0-2], [MQTT-4.6.0-3]
            raise self._broken("order", f"{kind} #{packet_id}, expected {list(expected)}")
        expected.popleft()
        if qos == 1:
            del session.in_flight[packet_id]
            self.pump()
            return
        session.in_flight[packet_id] = (given, RELEASED)
        self.send(Pubrel(packet_id))
