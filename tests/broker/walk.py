"""A random walk through the life of a broker, told step by step what it owes by a plain model."""

from collections import Counter
from collections.abc import Callable

from holdfast.broker.limits import Limits
from holdfast.message import Properties
from holdfast.protocol.packets import (
    Connack,
    Connect,
    Disconnect,
    Packet,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    SubscriptionRequest,
    Unsuback,
    Unsubscribe,
)
from holdfast.protocol.packets import Will as WillOfPacket
from tests.broker.holdings import NEVER_S, Held, Sent, Subscribed, Will
from tests.broker.peers import Effect, Link, Outgoing, Peer
from tests.broker.promises import Promises
from tests.broker.recovered import recovered, recovered_retained, stored
from tests.broker.steps import Step
from tests.broker.world import World

TOPICS = ("a", "a/x", "a/y", "b/x", "$s/x")
FILTERS = ("a", "a/x", "a/y", "a/+", "a/#", "+/x", "#", "b/x", "$s/#", "$s/x")
RECEIVE_MAXIMUM = 6  # of the broker
IN_FLIGHT_MAX = 5
OWN_ALIASES = 2  # that a peer sets: fewer than topics, so that they change hands


class Walk:
    """The world, its peers, and the model."""

    def __init__(self) -> None:
        self.world = World(Limits(receive_maximum=RECEIVE_MAXIMUM, in_flight_max=IN_FLIGHT_MAX))
        self.promises = Promises()
        self.peers = [
            Peer("d5", 5, NEVER_S),
            Peer("d4", 4, NEVER_S),
            Peer("e5", 5, 60),
            Peer("t5", 5, 0),
            Peer("t4", 4, 0),
        ]
        self.is_gathering = False
        self._links: list[tuple[Peer, Link]] = []
        self._held_until_ms = 0  # when the disk was seen last not to end a commit by itself

    # --- steps

    def do(self, step: Step) -> None:
        peer = self.peers[step.who % len(self.peers)]
        method: Callable[[Peer, int, int], None] = getattr(self, f"_{step.name}")
        method(peer, step.a, step.b)
        if not self.is_gathering:
            self.flush()

    def _connect(self, peer: Peer, a: int, b: int) -> None:
        if peer.link is not None and (a % 3 or peer.link.is_leaving):
            return
        clean = b % 8 == 0 or peer.expiry_s == 0
        is_short = clean if peer.version == 4 else b % 11 == 0
        expiry_s = 0 if is_short else peer.expiry_s
        will = self._will(peer, a, b) if b % 3 == 0 else None
        if peer.version == 4:
            self.connect(peer, clean, expiry_s, will=will)
        else:
            self.connect(peer, clean, expiry_s, 1 + b % 5, a % 4, will=will)

    def _will(self, peer: Peer, a: int, b: int) -> Will:
        peer.published += 1
        topic = TOPICS[a // 3 % len(TOPICS)]
        message = Sent(peer.client_id, peer.published, topic, a % 3, b % 4 == 0)
        self.promises.messages[message.key] = message
        return Will(message, 0 if peer.version == 4 else (0, 10, 65)[a // 5 % 3])

    def connect(
        self,
        peer: Peer,
        clean: bool,
        expiry_s: int,
        receive_maximum: int = 0,
        alias_maximum: int = 0,
        *,
        will: Will | None = None,
    ) -> None:
        client = self.world.dial(peer.version)
        window = min(receive_maximum or IN_FLIGHT_MAX, IN_FLIGHT_MAX)
        link = Link(client, window, alias_maximum)
        before = peer.link
        peer.link = link
        self._links.append((peer, link))
        properties: Properties | None = None
        if peer.version == 5:
            properties = Properties()
            properties.session_expiry_interval = expiry_s
            properties.receive_maximum = receive_maximum
            properties.topic_alias_maximum = alias_maximum

        def effect() -> None:
            if before is not None:
                before.is_attached = False
            now_ms = self.world.now_ms
            present = self.promises.connect(peer.client_id, clean, expiry_s, now_ms, will)
            link.expected_present = present
            link.held = self.promises.sessions[peer.client_id]
            link.is_attached = True
            link.connect_index = self.promises.index

        packet = Connect(
            peer.client_id,
            peer.version,
            clean,
            0,
            None if will is None else _packet_will(will),
            None,
            None,
            properties,
        )
        link.queue.append((packet, effect))

    def _publish(self, peer: Peer, a: int, b: int) -> None:
        link = peer.link
        if link is None or not link.is_welcome or link.is_leaving:
            return
        for number in range(1 + b % 3):
            self.publish(peer, link, TOPICS[(a + number) % len(TOPICS)], (a // 5 + number) % 3, b)

    def publish(self, peer: Peer, link: Link, topic: str, qos: int, b: int) -> None:
        if qos > 0 and len(peer.outgoing) >= RECEIVE_MAXIMUM:
            return
        peer.published += 1
        retain = b % 5 == 0
        clears = b % 20 == 0
        expiry_s = (0, 0, 0, 15, 65)[b // 3 % 5] if peer.version == 5 else 0
        message = Sent(peer.client_id, peer.published, topic, qos, retain, clears, expiry_s)
        self.promises.messages[message.key] = message
        packet_id = 0
        if qos > 0:
            packet_id = peer.next_id()
            peer.outgoing[packet_id] = Outgoing(message)
        self._send(link, message, packet_id, dup=False)

    def _send(self, link: Link, message: Sent, packet_id: int, dup: bool) -> None:
        def effect() -> None:
            if message.qos == 2:
                session = self.world.broker.sessions.find(message.publisher)
                assert session is not None
                if session.received.holds(packet_id):
                    return
                if message.sends > 0:
                    self.promises.take_back(message)
            self.promises.route(message, self.world.now_ms)

        payload = b"" if message.clears else message.key.encode()
        properties: Properties | None = None
        if message.expiry_s > 0:
            properties = Properties()
            properties.message_expiry_interval = message.expiry_s
        packet = Publish(
            message.topic, payload, message.qos, message.retain, dup, packet_id, properties
        )
        alias = message.number % (OWN_ALIASES + 1)
        if alias > 0 and link.client.version == 5:
            link.give_alias(packet, alias)
        link.queue.append((packet, effect))

    def _release(self, peer: Peer, a: int, b: int) -> None:
        """Send PUBREL for what PUBREC has come for."""
        link = peer.link
        if link is None or not link.is_welcome or link.is_leaving:
            return
        for packet_id, outgoing in peer.outgoing.items():
            if outgoing.stage == "received":
                outgoing.stage = "released"
                link.queue.append((Pubrel(packet_id), _nothing))
                if a % 2:
                    return

    def _acknowledge(self, peer: Peer, a: int, b: int) -> None:
        link = peer.link
        if link is None or link.is_leaving:
            return
        for _ in range(1 + a % 4):
            if not link.acknowledgements:
                return
            index = b % len(link.acknowledgements) if a % 3 == 0 else 0
            packet = link.acknowledgements.pop(index)
            link.queue.append((packet, _acknowledgement(peer, link, packet)))

    def _subscribe(self, peer: Peer, a: int, b: int) -> None:
        link = peer.link
        if link is None or link.is_leaving:
            return
        is_v5 = peer.version == 5
        packet_id = peer.next_request_id()
        identifier = b % 3 if is_v5 else 0
        chosen = [FILTERS[a % len(FILTERS)]]
        if b % 4 == 0:
            chosen.append(FILTERS[(a // 7) % len(FILTERS)])
        requests: list[SubscriptionRequest] = []
        for number, topic_filter in enumerate(chosen):
            no_local = is_v5 and b % 7 == 0
            as_published = is_v5 and b % 5 < 2
            qos = (a // 3 + number) % 3
            requests.append(SubscriptionRequest(topic_filter, qos, no_local, as_published))
        codes = [request.qos for request in requests]
        properties: Properties | None = None
        if identifier:
            properties = Properties()
            properties.subscription_identifiers = [identifier]

        def effect() -> None:
            held = link.held
            assert held is not None
            last = {request.topic_filter: request for request in requests}
            for request in requests:
                new = Subscribed(
                    request.qos, request.no_local, identifier, request.retain_as_published
                )
                is_last = last[request.topic_filter] is request
                now_ms = self.world.now_ms
                self.promises.subscribe(held, request.topic_filter, new, is_last, now_ms)
            link.requests[packet_id] = (self.promises.index, codes)

        link.queue.append((Subscribe(packet_id, requests, properties), effect))

    def _unsubscribe(self, peer: Peer, a: int, b: int) -> None:
        link = peer.link
        if link is None or link.is_leaving:
            return
        packet_id = peer.next_request_id()
        topic_filter = FILTERS[a % len(FILTERS)]

        def effect() -> None:
            held = link.held
            assert held is not None
            code = 0 if topic_filter in held.subscriptions else 0x11
            self.promises.unsubscribe(held, topic_filter)
            codes = [code] if peer.version == 5 else []
            link.requests[packet_id] = (self.promises.index, codes)

        link.queue.append((Unsubscribe(packet_id, [topic_filter]), effect))

    def _cut(self, peer: Peer, a: int, b: int) -> None:
        for other, link in self._links:
            if other is not peer:
                continue
            link.queue = []
            if link.is_attached:
                self.promises.disconnected(peer.client_id, self.world.now_ms)
                link.is_attached = False
            if link.client.is_open:
                link.client.cut()
        peer.link = None

    def _disconnect(self, peer: Peer, a: int, b: int) -> None:
        link = peer.link
        if link is None or link.is_leaving:
            return
        link.is_leaving = True
        properties: Properties | None = None
        if peer.version == 5 and a % 4 == 0:
            properties = Properties()
            properties.session_expiry_interval = 0
        reason_code = 0x04 if peer.version == 5 and b % 3 == 0 else 0  # 0x04: with the will

        def effect() -> None:
            held = link.held
            assert held is not None
            if properties is not None:
                held.expiry_s = 0
            now_ms = self.world.now_ms
            self.promises.disconnected(peer.client_id, now_ms, forgets_will=reason_code == 0)
            link.is_attached = False

        link.queue.append((Disconnect(reason_code, properties), effect))

    def _hold(self, peer: Peer, a: int, b: int) -> None:
        self.world.disk.hold()

    def _sync_one(self, peer: Peer, a: int, b: int) -> None:
        self.world.disk.sync_one()

    def _unhold(self, peer: Peer, a: int, b: int) -> None:
        self.world.disk.is_held = False
        self.world.run()

    def _hold_reads(self, peer: Peer, a: int, b: int) -> None:
        self.world.disk.hold_reads()

    def _answer_reads(self, peer: Peer, a: int, b: int) -> None:
        self.world.disk.answer_reads()

    def _unhold_reads(self, peer: Peer, a: int, b: int) -> None:
        self.world.disk.are_reads_held = False
        self.world.run()

    def _stall(self, peer: Peer, a: int, b: int) -> None:
        if peer.link is not None and peer.link.client.is_open:
            peer.link.client.stall()

    def _drain(self, peer: Peer, a: int, b: int) -> None:
        if peer.link is not None and peer.link.client.is_stalled:
            peer.link.client.drain()

    def _wait(self, peer: Peer, a: int, b: int) -> None:
        self.flush()
        self._advance((1, 30, 60, 20_000, 70_000)[a % 5])

    def _advance(self, ms: int) -> None:
        self.world.advance(ms)
        now_ms = self.world.now_ms
        self.promises.expire(now_ms)
        if self.world.disk.is_held:
            self._held_until_ms = now_ms
        for _, link in self._links:
            if link.client.is_stalled:
                link.stalled_until_ms = now_ms

    def _settle(self, peer: Peer, a: int, b: int) -> None:
        self._unhold(peer, a, b)
        self.flush()
        self._advance(100)
        self.observe()
        self.promises.settle({p.client_id: set(p.unacknowledged.values()) for p in self.peers})

    def _gather(self, peer: Peer, a: int, b: int) -> None:
        """What follows is sent in one turn."""
        self.is_gathering = True

    def _go(self, peer: Peer, a: int, b: int) -> None:
        self.is_gathering = False

    def _crash(self, peer: Peer, a: int, b: int) -> None:
        world = self.world
        self.observe()
        world.crash(commit_survives=a % 2 == 0)
        for other in self.peers:
            other.link = None
        self._links = []
        retained, wills = stored(world)
        world.restart((0, 1, 30_000, 70_000)[b % 4])
        self.promises.crash(recovered(world), retained, wills, world.now_ms)
        expected = {
            topic: message.key
            for topic, message in self.promises.retained.items()
            if not message.is_expired(world.now_ms)
        }
        assert recovered_retained(world) == expected

    # --- sending and receiving

    def flush(self) -> None:
        """Let the broker take what the peers send, in the order in which it will look at it."""
        self.observe()
        while True:
            for client in list(self.world.clients.values()):
                for _, link in self._links:
                    if link.client is client and link.queue:
                        for packet, effect in link.queue:
                            effect()
                            client.push(packet)
                        link.queue = []
            self.world.run()
            self._note_numbers()
            self.observe()
            if not any(link.queue for _, link in self._links):
                break
        if not self.world.disk.is_held:
            self.promises.confirm(self.promises.index)

    def _note_numbers(self) -> None:
        for peer in self.peers:
            session = self.world.broker.sessions.find(peer.client_id)
            held = self.promises.sessions.get(peer.client_id)
            if held is None:
                assert session is None, f"{peer.client_id}: its session is not ended"
                continue
            assert session is not None, f"{peer.client_id}: its session is lost"
            if held.number == 0:
                held.number = session.number
            assert held.number == session.number

    def observe(self) -> None:
        """Look at all that came to the peers."""
        for peer, link in self._links:
            for packet in link.client.packets():
                self._take(peer, link, packet)
            if not link.client.is_open and peer.link is link:
                assert link.is_leaving, f"{peer.client_id} was thrown out"
                peer.link = None
        self._links = [(peer, link) for peer, link in self._links if link.client.is_open]

    def _take(self, peer: Peer, link: Link, packet: Packet) -> None:
        if isinstance(packet, Publish):
            assert link.is_welcome, "CONNACK comes first"
            self._take_publish(peer, link, packet)
        elif isinstance(packet, Puback | Pubrec | Pubcomp):
            self._take_acknowledgement(peer, packet)
        elif isinstance(packet, Pubrel):
            packet_id = packet.packet_id
            if packet_id in peer.taken:
                assert packet_id in peer.recorded, "PUBREL without PUBREC"
                del peer.taken[packet_id]
                peer.recorded.discard(packet_id)
            link.acknowledgements.append(Pubcomp(packet_id))
        elif isinstance(packet, Suback | Unsuback):
            index, codes = link.requests.pop(packet.packet_id)
            assert packet.reason_codes == codes
            if link.held is not None and link.held.is_durable:
                self.promises.confirm(index)
        elif isinstance(packet, Connack):
            self._take_connack(peer, link, packet)
        else:
            assert isinstance(packet, Disconnect), packet
            assert packet.reason_code == 0x8E and peer.link is not link, "thrown out"

    def _take_connack(self, peer: Peer, link: Link, packet: Connack) -> None:
        assert not link.is_welcome and packet.reason_code == 0
        assert packet.session_present == link.expected_present, peer.client_id
        link.is_welcome = True
        assert link.held is not None
        self.promises.welcomed(link.held, link.connect_index)
        is_same, peer.known = peer.known is link.held, link.held
        if not (packet.session_present and is_same):
            peer.forget()
        if link.is_leaving:
            return
        for packet_id, outgoing in peer.outgoing.items():
            if outgoing.stage == "sent":
                self._send(link, outgoing.message, packet_id, dup=link.expected_present and is_same)
            else:
                outgoing.stage = "released"
                link.queue.append((Pubrel(packet_id), _nothing))

    def _take_acknowledgement(self, peer: Peer, packet: Puback | Pubrec | Pubcomp) -> None:
        assert packet.reason_code in (0, 0x10, 0x92), packet.reason_code
        outgoing = peer.outgoing[packet.packet_id]
        message = outgoing.message
        if isinstance(packet, Puback):
            assert message.qos == 1
            self.promises.acknowledged(message)
            del peer.outgoing[packet.packet_id]
        elif isinstance(packet, Pubrec):
            assert message.qos == 2 and outgoing.stage == "sent"
            self.promises.acknowledged(message)
            outgoing.stage = "received"
        else:
            assert outgoing.stage == "released"
            del peer.outgoing[packet.packet_id]

    def _take_publish(self, peer: Peer, link: Link, packet: Publish) -> None:
        key = packet.payload.decode()
        packet_id = packet.packet_id
        topic = link.topic_of(packet)
        held = link.held
        assert packet_id not in link.open, f"#{packet_id} is used twice on one connection"
        if packet.dup:
            assert link.expected_present, "sent again in a new session"
            assert packet.topic, "sent again without its topic"
        if packet.qos > 0:
            link.open.add(packet_id)
            assert len(link.open) <= link.window, "more than Receive Maximum"
        known = peer.unacknowledged if packet.qos == 1 else peer.taken
        if packet_id in peer.unacknowledged or packet_id in peer.taken:
            assert known.get(packet_id) == key, f"#{packet_id}: {known.get(packet_id)} became {key}"
            assert packet.dup, f"#{packet_id} sent again without DUP"
        elif key:
            message = self.promises.messages[key]
            assert topic == message.topic
            if held is not None:
                self._check_identifiers(held, packet, key)
                self._check_expiry(link, packet, message)
                self.promises.received(held, key, packet.qos, packet.retain, packet.dup)
        if packet.qos == 1:
            peer.unacknowledged[packet_id] = key
            link.acknowledgements.append(Puback(packet_id))
        elif packet.qos == 2:
            peer.taken[packet_id] = key
            link.acknowledgements.append(Pubrec(packet_id))

    def _check_identifiers(self, held: Held, packet: Publish, key: str) -> None:
        if packet.retain or packet.dup or key not in held.owed:
            return
        found: list[int] = []
        if packet.properties is not None:
            found = sorted(packet.properties.subscription_identifiers)
        at_most, at_least = held.owed[key].identifiers
        assert not at_least - Counter(found) and not Counter(found) - at_most, (
            f"{key}: identifiers {found}, expected {at_most}"
        )

    def _check_expiry(self, link: Link, packet: Publish, message: Sent) -> None:
        """A message that has expired is not begun, and one that has not says how long it has."""
        left_s: int | None = None
        if packet.properties is not None:
            left_s = packet.properties.message_expiry_interval
        if message.expiry_s == 0 or link.client.version == 4:
            assert left_s is None
            return
        now_ms = self.world.now_ms
        expected = [max(0, -((now_ms - due_ms) // 1000)) for due_ms in message.expires_ms]
        assert left_s is not None and min(expected) <= left_s <= message.expiry_s
        if max(self._held_until_ms, link.stalled_until_ms) < now_ms:
            # It was written just now, nothing has held it up since.
            assert left_s in expected, f"{message}: {left_s} s left, expected {expected}"
            assert packet.dup or not message.is_expired(now_ms), f"{message} has expired"

    # --- the end

    def finish(self) -> None:
        """Let all that is owed come, and compare."""
        self.is_gathering = False
        self.flush()
        self._unhold(self.peers[0], 0, 0)
        self._unhold_reads(self.peers[0], 0, 0)
        for peer in self.peers:
            self._drain(peer, 0, 0)
        self.flush()
        for peer in self.peers:
            if peer.link is None and peer.expiry_s > 0:
                self.connect(peer, False, peer.expiry_s, 3 if peer.version == 5 else 0)
                self.flush()
        for _ in range(1000):
            for peer in self.peers:
                self._acknowledge(peer, 3, 0)
                self._release(peer, 0, 0)
            if not any(link.queue for _, link in self._links):
                break
            self.flush()
        else:
            raise AssertionError("it does not come to rest")
        self.promises.assert_kept(self.world.now_ms)
        assert not any(peer.outgoing for peer in self.peers if peer.link is not None)


def _nothing() -> None:
    pass


def _packet_will(will: Will) -> WillOfPacket:
    properties: Properties | None = None
    if will.delay_s > 0:
        properties = Properties()
        properties.will_delay_interval = will.delay_s
    message = will.message
    return WillOfPacket(
        message.topic, message.key.encode(), message.qos, message.retain, properties
    )


def _acknowledgement(peer: Peer, link: Link, packet: Packet) -> Effect:
    def effect() -> None:
        assert isinstance(packet, Puback | Pubrec | Pubcomp)
        packet_id = packet.packet_id
        if isinstance(packet, Puback):
            peer.unacknowledged.pop(packet_id, None)
        if isinstance(packet, Pubrec):
            peer.recorded.add(packet_id)
        else:
            link.open.discard(packet_id)

    return effect


def run(steps: list[Step]) -> None:
    walk = Walk()
    for step in steps:
        walk.do(step)
    walk.finish()
