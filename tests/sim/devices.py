"""Clients that keep to the rules of MQTT, each with durable state of its own.

They send again in order after a reconnect and take QoS 2 messages once. Some forget all they knew
when they restart, and say so with Clean Start.
"""

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from holdfast.message import Properties
from holdfast.protocol.encode import encode
from holdfast.protocol.packets import (
    MQTT_5_0,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Subscribe,
    SubscriptionRequest,
    Unsubscribe,
    Will,
)
from holdfast.protocol.reason_codes import FAILURE, NOT_AUTHORIZED
from tests.sim.model import Message, Session
from tests.sim.taps import BIG_BYTES, Violation
from tests.sim.world import Wire

if TYPE_CHECKING:
    from tests.sim.simulation import Simulation

OUTGOING_MAX = 6  # publishes that a client has open at a time
SMALL_PACKET_BYTES = 120  # the Maximum Packet Size of some
TOPICS = ("a", "a/x", "a/y", "b/x", "$s/x")
GROUP_TOPICS = ("g/1", "g/2", "g/3")
FILTERS = ("a", "a/x", "a/+", "a/#", "+/x", "#", "b/x", "$s/#", "will/+", "g/1")


class Kind(NamedTuple):
    """What a client is like."""

    client_id: str
    version: int
    expiry_s: int  # of its session, 0 for one that ends with its connection
    filters: tuple[str, ...]
    topics: tuple[str, ...]
    think_ms: int
    answer_ms: int  # the longest it takes for an acknowledgement
    forgets: bool  # it loses its state at times


class Sending:
    """A message that a client publishes, until it is acknowledged for good."""

    def __init__(self, message: Message) -> None:
        self.message = message
        self.is_released = False


class Device:
    """One client."""

    def __init__(self, simulation: "Simulation", kind: Kind) -> None:
        self.simulation = simulation
        self.kind = kind
        self.random = simulation.random
        self.link: Wire | None = None
        self.is_welcome = False
        self.is_stalled = False
        self.known: Session | None = None  # the session that what it knows belongs to
        self.sending: dict[int, Sending] = {}
        self.taken: dict[int, str] = {}  # QoS 2 received and not released
        self.qos_2: Counter[str] = Counter()  # taken in this session
        self.answers: list[Packet] = []
        self.said = 0
        self._is_answering = False
        self._aliases: dict[str, int] = {}  # of this connection
        self._is_afresh = False  # it asks for a new session, until it is told that it has one
        self._packet_id = 0

    @property
    def client_id(self) -> str:
        return self.kind.client_id

    @property
    def is_v5(self) -> bool:
        return self.kind.version == MQTT_5_0

    # --- connecting

    def connect(self, *, clean: bool = False) -> None:
        """Open a connection, though an older one may still be there."""
        simulation = self.simulation
        kind = self.kind
        chance = self.random
        if not simulation.is_up:
            return
        self._is_afresh = clean or kind.expiry_s == 0 or self._is_afresh
        if self._is_afresh:
            self.forget()
        if self.link is not None:
            simulation.cut(self.link)
        self.link = simulation.world.open(kind.version, kind.client_id)
        self.is_welcome = False
        self.is_stalled = False
        self.answers = []
        self._aliases = {}
        will = self._will() if simulation.plan.wills and chance.random() < 0.5 else None
        keep_alive = simulation.plan.keep_alive_s if chance.random() < 0.3 else 0
        properties: Properties | None = None
        if self.is_v5:
            properties = Properties()
            properties.session_expiry_interval = kind.expiry_s
            if chance.random() < 0.6:
                properties.receive_maximum = chance.randint(1, 5)
            if chance.random() < 0.3:
                properties.topic_alias_maximum = 2
            if simulation.plan.small_packets and chance.random() < 0.5:
                properties.maximum_packet_size = SMALL_PACKET_BYTES
        packet = Connect(
            kind.client_id,
            kind.version,
            self._is_afresh,
            keep_alive,
            None if will is None else _packet_will(will),
            None,
            None,
            properties,
        )
        self._send(packet, will)
        if keep_alive > 0:
            self._await_ping(self.link, keep_alive * 500)

    def _will(self) -> Message:
        chance = self.random
        message = self._message(
            f"will/{self.client_id}", chance.randint(0, 2), retain=chance.random() < 0.3
        )
        if self.is_v5:
            message.delay_s = chance.choice([0, 0, 1, 4])
        return message

    def forget(self) -> None:
        """What belongs to the session is gone."""
        self.sending = {}
        self.taken = {}
        self.qos_2.clear()

    def lost(self, wire: Wire) -> None:
        """A connection is found to be gone."""
        if wire is self.link:
            self.link = None
            # Before 5.0 nothing else says no; the client gives it up.
            self.sending.pop(wire.tap.refused_id, None)

    def _await_ping(self, wire: Wire, every_ms: int) -> None:
        self.simulation.pings += 1
        self.simulation.later(every_ms, self._ping, wire, every_ms)

    def _ping(self, wire: Wire, every_ms: int) -> None:
        self.simulation.pings -= 1
        if wire is self.link and not wire.is_cut:
            self._send(Pingreq())
            self._await_ping(wire, every_ms)

    # --- what it does of its own accord

    def wake(self) -> None:
        """Do something, and think about what to do next."""
        simulation = self.simulation
        if simulation.is_finishing:
            return
        link = self.link
        choice = self.random.random()
        think_ms = self.random.randint(1, 2 * self.kind.think_ms)
        if 0.77 <= choice < 0.84 and self.random.random() < 0.3:
            think_ms += self.random.randint(500, 4000)  # it stays away
        simulation.later(think_ms, self.wake)
        if link is None:
            if choice < 0.6:
                forgets = self.kind.forgets and choice < 0.2
                self.connect(clean=forgets)
        elif not self.is_welcome:
            if choice < 0.05:
                self.connect()
        elif choice < 0.58:
            for _ in range(self.random.randint(1, 3)):
                self.publish()
        elif choice < 0.72:
            self.subscribe()
        elif choice < 0.77:
            self.unsubscribe()
        elif choice < 0.82:
            simulation.cut(link)
        elif choice < 0.84:
            self.disconnect()
        elif choice < 0.87:
            self.connect(clean=self.kind.forgets and choice < 0.85)
        elif choice < 0.91 and simulation.plan.stalls:
            self.is_stalled = True
            simulation.later(self.random.randint(50, 3000), self.go_on, link)

    def publish(self) -> None:
        simulation = self.simulation
        chance = self.random
        if len(self.sending) >= OUTGOING_MAX:
            return
        qos = chance.choice((0, 1, 1, 2, 2))
        topic = chance.choice(self.kind.topics)
        is_retained = simulation.plan.retained and chance.random() < 0.15
        message = self._message(topic, qos, retain=is_retained)
        if is_retained and chance.random() < 0.25 and not topic.startswith("g/"):
            # Nothing tells one empty message from another: they neither expire nor are shared.
            message.key = ""
            message.payload = b""
        elif self.is_v5 and simulation.plan.message_expiry and chance.random() < 0.2:
            message.expiry_s = chance.choice([1, 5, 30])
        if simulation.plan.delayed and chance.random() < 0.1:
            message.delay_s = chance.choice([1, 3, 10])
        packet_id = 0
        if qos > 0:
            packet_id = self._next_id()
            self.sending[packet_id] = Sending(message)
        self._publish(message, packet_id, dup=False)

    def _message(self, topic: str, qos: int, *, retain: bool) -> Message:
        self.said += 1
        key = f"{self.client_id}.{self.said}"
        is_big = self.simulation.plan.small_packets and not topic.startswith("g/")
        size = BIG_BYTES if is_big and self.random.random() < 0.4 else 0
        payload = key.encode() + b" " + b"x" * size
        message = Message(key, self.client_id, topic, payload, qos, retain, 0)
        self.simulation.checker.messages[key] = message
        return message

    def _next_id(self) -> int:
        while True:
            self._packet_id = self._packet_id % 20 + 1
            if self._packet_id not in self.sending:
                return self._packet_id

    def _publish(self, message: Message, packet_id: int, *, dup: bool) -> None:
        properties: Properties | None = None
        if message.expiry_s > 0:
            properties = Properties()
            properties.message_expiry_interval = message.expiry_s
        topic = message.topic
        if message.delay_s > 0:
            topic = f"$delayed/{message.delay_s}/{topic}"
        elif self.is_v5 and self.random.random() < 0.2:
            properties = Properties() if properties is None else properties
            topic = self._aliased(topic, properties)
        packet = Publish(
            topic, message.payload, message.qos, message.retain, dup, packet_id, properties
        )
        self._send(packet, message)

    def _aliased(self, topic: str, properties: Properties) -> str:
        """What to send in the place of a topic that has an alias, or is given one."""
        alias = self._aliases.get(topic, 0)
        properties.topic_alias = alias or len(self._aliases) + 1
        if alias:
            return ""
        self._aliases[topic] = properties.topic_alias
        return topic

    def subscribe(self, topic_filters: tuple[str, ...] = ()) -> None:
        chance = self.random
        kind = self.kind
        count = chance.choice((1, 1, 1, 2))
        topic_filters = topic_filters or tuple(chance.choices(kind.filters, k=count))
        requests: list[SubscriptionRequest] = []
        for topic_filter in topic_filters:
            is_shared = topic_filter.startswith("$share/")
            qos = chance.randint(1 if is_shared else 0, 1 if kind.expiry_s == 0 else 2)
            no_local = self.is_v5 and not is_shared and chance.random() < 0.15
            as_published = self.is_v5 and not is_shared and chance.random() < 0.3
            handling = chance.choice((0, 1, 2)) if self.is_v5 and not is_shared else 0
            requests.append(
                SubscriptionRequest(topic_filter, qos, no_local, as_published, handling)
            )
        properties: Properties | None = None
        if self.is_v5 and chance.random() < 0.4:
            properties = Properties()
            properties.subscription_identifiers = [chance.randint(1, 3)]
        self._send(Subscribe(chance.randint(100, 200), requests, properties))

    def subscribe_to_all(self) -> None:
        requests = [SubscriptionRequest("#", 1), SubscriptionRequest("$s/#", 1)]
        self._send(Subscribe(1, requests))

    def unsubscribe(self) -> None:
        topic_filter = self.random.choice(self.kind.filters)
        self._send(Unsubscribe(self.random.randint(100, 200), [topic_filter]))

    def disconnect(self) -> None:
        """Say goodbye, with or without the will, at times for good."""
        chance = self.random
        properties: Properties | None = None
        reason_code = 0
        if self.is_v5:
            reason_code = 0x04 if chance.random() < 0.3 else 0
            if chance.random() < 0.15:
                properties = Properties()
                properties.session_expiry_interval = 0
        wire = self.link
        assert wire is not None
        self._send(Disconnect(reason_code, properties))
        self.link = None
        self.simulation.look_down(wire)  # whether it reads is of no concern any more

    def go_on(self, wire: Wire) -> None:
        """Read again."""
        if wire is self.link and self.is_stalled:
            self.is_stalled = False
            self.simulation.look_down(wire)

    # --- what comes

    def take(self, wire: Wire, packets: list[Packet]) -> None:
        """Packets have arrived."""
        for packet in packets:
            if wire is not self.link:
                return
            if isinstance(packet, Publish):
                self._take_publish(packet)
            elif isinstance(packet, Puback | Pubcomp):
                self.sending.pop(packet.packet_id, None)
            elif isinstance(packet, Pubrec):
                if packet.reason_code >= FAILURE:
                    self.sending.pop(packet.packet_id, None)
                    continue
                sending = self.sending.get(packet.packet_id)
                if sending is not None:
                    sending.is_released = True
                self._answer(Pubrel(packet.packet_id))
            elif isinstance(packet, Pubrel):
                self.taken.pop(packet.packet_id, None)
                self._answer(Pubcomp(packet.packet_id))
            elif isinstance(packet, Connack) and packet.reason_code == 0:
                self._take_connack(wire, packet)

    def _take_connack(self, wire: Wire, packet: Connack) -> None:
        self.is_welcome = True
        self._is_afresh = False
        # A client cannot tell whether a CONNACK that it never saw began another session.
        session = wire.tap.session
        if not packet.session_present or self.known is not session:
            self.forget()
        self.known = session
        for packet_id, sending in list(self.sending.items()):
            if sending.is_released:
                self._send(Pubrel(packet_id))
            else:
                self._publish(sending.message, packet_id, dup=True)
        if not packet.session_present:
            if self.kind.filters[0].startswith("$share/"):
                self.subscribe(self.kind.filters)
            else:
                self.subscribe()

    def _take_publish(self, packet: Publish) -> None:
        packet_id = packet.packet_id
        refuses = self.is_v5 and self.random.random() < 0.02
        if packet.qos == 1:
            self._answer(Puback(packet_id, NOT_AUTHORIZED if refuses else 0))
        elif packet.qos == 2 and refuses and packet_id not in self.taken:
            self._answer(Pubrec(packet_id, NOT_AUTHORIZED))
        elif packet.qos == 2:
            key = packet.payload.split(b" ", 1)[0].decode()
            before = self.taken.get(packet_id)
            if before is None:
                self.taken[packet_id] = key
                if key and not packet.retain:
                    self.qos_2[key] += 1
                    if self.qos_2[key] > 1:
                        text = f"{key} was given to {self.client_id} as a new message again"
                        raise Violation("QoS 2 twice", text, self.client_id, key)
            elif before != key:
                text = f"#{packet_id} to {self.client_id}: {before!r} became {key!r}"
                raise Violation("identifier in use", text, self.client_id, key)
            self._answer(Pubrec(packet_id))

    def _answer(self, packet: Packet) -> None:
        """Acknowledge, in a while."""
        self.answers.append(packet)
        if not self._is_answering:
            self._is_answering = True
            bound = 1 if self.simulation.is_finishing else self.kind.answer_ms
            self.simulation.later(self.random.randint(0, bound), self._send_answers)

    def _send_answers(self) -> None:
        self._is_answering = False
        answers, self.answers = self.answers, []
        if self.link is not None:
            for packet in answers:
                self._send(packet)

    def _send(self, packet: Packet, message: Message | None = None) -> None:
        assert self.link is not None
        if self.link.is_cut or self.link.ends_at_ms >= 0:
            return  # it does not know yet that nobody hears it
        data = encode(packet, self.kind.version)
        self.simulation.send_up(self.link, packet, message, data)


def _packet_will(message: Message) -> Will:
    properties: Properties | None = None
    if message.delay_s > 0:
        properties = Properties()
        properties.will_delay_interval = message.delay_s
    return Will(message.topic, message.payload, message.qos, message.retain, properties)
