"""Several shared groups in one random walk, with plain subscriptions beside them.

What is owed is worked out from what the clients did and were told: see ``Walk.check``.
"""

import random
from collections import Counter

import pytest

from holdfast.broker.limits import EXPIRY_NEVER, Limits
from holdfast.broker.shared_group import SHARED_STRATEGIES, STICKY, Group
from holdfast.message import Properties
from holdfast.protocol.packets import Connack, Packet, Puback, Pubcomp, Publish, Pubrec, Pubrel
from holdfast.protocol.sender import SENT_QOS_2
from holdfast.protocol.topics import matches, split_share
from tests.broker.world import Client, World

STEPS = 300
BIG = b"z" * 900_000  # pushes older entries out of the log's tail
SAFE = ("$share/g/t/+", "$share/h/t/0", "$share/g/t/#", "$queue/t/1")  # durable all the time
MIXED = "$share/z/t/+"  # has members at QoS 0
FLEETING = "$share/e/t/+"  # is made and ended again and again
FILTERS = (*SAFE, MIXED, FLEETING)
PLAIN = "t/#"
PACKET_BYTES = 120  # the Maximum Packet Size of some
WIDE = "w" * 150  # what is above it


class Message:
    """What was published; ``is_owed`` says that nothing excuses its loss."""

    def __init__(self, topic: str, is_wide: bool, is_owed: bool) -> None:
        self.topic = topic
        self.is_wide = is_wide
        self.is_owed = is_owed


class Member:
    """A client, and what it has been told."""

    def __init__(self, name: str, is_durable: bool, has_plain: bool) -> None:
        self.name = name
        self.is_durable = is_durable
        self.has_plain = has_plain
        self.life = 0  # grows with each session
        self.client: Client | None = None
        self.will_end = False  # the session ends with the connection
        self.unanswered: list[Publish | Pubrel] = []
        self.began: dict[int, tuple[str, str]] = {}  # QoS 2 under way, by packet identifier
        self.completed: set[tuple[str, str]] = set()  # QoS 2 of this session


class Walk:
    """One walk. Messages are told apart by the first word of their payload."""

    def __init__(
        self, seed: int, strategy: int, *, is_calm: bool = False, is_alone: bool = False
    ) -> None:
        self.random = random.Random(seed)
        self.is_calm = is_calm  # nothing that allows a second copy
        self.is_alone = is_alone  # one member of one group, and messages to be given in order
        limits = Limits(shared_strategy=strategy, in_flight_max=5)
        self.world = World(limits)
        self.members = [
            Member("d1", True, True),
            Member("d2", True, False),
            Member("d3", True, False),
            Member("t1", False, True),
            Member("t2", False, False),
        ]
        if is_alone:
            self.members = [Member("d2", True, False)]
        elif not is_calm:
            # With fewer, groups are more often without anybody online.
            self.members = self.members[: self.random.randint(2, len(self.members))]
        # Whether members answer at once: else their answers hide what nothing else looks after.
        self.is_quick = self.random.random() < 0.5
        self.said = 0
        self.messages: dict[str, Message] = {}
        self.awaited: dict[int, str] = {}  # not acknowledged to the publisher
        self.promised: list[str] = []
        # By filter and message. A copy with DUP counts if no other was seen.
        self.seen: Counter[tuple[str, str]] = Counter()
        self.takers: dict[tuple[str, str], set[tuple[str, int]]] = {}
        self.given_up: set[tuple[str, str]] = set()  # QoS 2 of sessions that ended
        self.publisher = self.world.hello("publisher")
        for number, topic_filter in enumerate((*SAFE, MIXED)):
            self.world.session(f"anchor{number}", topic_filter, 2)
        for member in self.members:
            self.come(member)
            self.collect()

    # --- steps

    def step(self) -> None:
        choice = self.random.random()
        member = self.random.choice(self.members)
        if choice < 0.33:
            self.publish()
        elif choice < 0.63:
            self.answer(member)
        elif choice < 0.72:
            if not self.is_calm:
                self.come_or_go(member)
        elif choice < 0.78:
            self.subscribe_or_not(member)
        elif choice < 0.82 and member.client is not None:
            if member.client.is_stalled:
                member.client.drain()
            else:
                member.client.stall()
        elif choice < 0.85:
            self.world.disk.hold()
        elif choice < 0.90:
            self.world.disk.sync()
            self.world.disk.release()
        elif choice < 0.92:
            self.world.disk.hold_reads()
        elif choice < 0.95:
            self.world.disk.answer_reads()
        elif choice < 0.97:
            self.flood()
        elif choice < 0.98:
            self.world.advance(self.random.choice([10, 100, 1000, 3000]))
        elif choice < 0.99 and not self.is_calm:
            self.end_broker()
        elif choice > 0.995:
            self.finish()
            self.check_rest()
        self.collect()
        if self.is_quick:
            self.answer_all()

    def publish(self) -> None:
        self.said += 1
        qos = self.random.choice([1, 2])
        packet_id = self.said % 60_000 + 1
        topic = f"t/{self.said % 3}"
        name = f"m{self.said}"
        kind = 0.5 if self.is_alone else self.random.random()
        is_wide = kind < 0.1
        properties: Properties | None = None
        if 0.1 < kind < 0.2:
            properties = Properties()
            properties.message_expiry_interval = self.random.randint(1, 3)
        self.messages[name] = Message(topic, is_wide, not is_wide and properties is None)
        self.awaited[packet_id] = name
        self.publisher.publish(
            f"$delayed/{self.random.randint(0, 2)}/{topic}" if kind > 0.9 else topic,
            f"{name} {WIDE if is_wide else ''}",
            qos,
            packet_id,
            retain=self.random.random() < 0.1,
            properties=properties,
        )
        self.hear_publisher()

    def hear_publisher(self) -> None:
        for packet in self.publisher.packets():
            if isinstance(packet, Puback | Pubrec):
                assert packet.reason_code == 0
                self.promised.append(self.awaited.pop(packet.packet_id))
                if isinstance(packet, Pubrec) and self.publisher.is_open:
                    self.publisher.send(Pubrel(packet.packet_id))

    def flood(self) -> None:
        """Push what waits out of memory, so that it is read from the store."""
        self.world.disk.sync()
        self.world.disk.is_held = False
        flooder = self.world.hello("flooder", clean=True)
        flooder.subscribe("big", 1)
        for packet_id in range(1, 4):
            flooder.publish("big", BIG, 1, packet_id)
            flooder.send(Puback(packet_id))
        flooder.unsubscribe("big")
        flooder.packets()
        flooder.cut()

    def come_or_go(self, member: Member) -> None:
        choice = self.random.random()
        if member.client is None or choice < 0.3:
            self.come(member, clean=choice < 0.05 and not member.has_plain)
        elif choice < 0.4 and not member.has_plain and member.client.version == 5:
            gone = Properties()
            gone.session_expiry_interval = 0
            self.note_end(member)
            member.client.disconnect(0, gone)
            member.client = None
        else:
            if member.will_end:
                self.note_end(member)
            member.client.cut()
            member.client = None
            if self.random.random() < 0.3:  # another one in the same turn
                other = self.random.choice(self.members)
                if other.client is not None:
                    if other.will_end:
                        self.note_end(other)
                    other.client.cut()
                    other.client = None

    def come(self, member: Member, *, clean: bool = False) -> None:
        """Connect, by either version, though an older connection may still be there."""
        version = self.random.choice([4, 5])
        is_clean = clean or not member.is_durable
        if is_clean or member.will_end:
            self.note_end(member)
        # Clean Session of 3.1.1 is both: it starts afresh, and leaves nothing.
        member.will_end = not member.is_durable or (is_clean and version == 4)
        member.unanswered = []
        # None may be too small for what the plain subscription is owed.
        is_small = version == 5 and not member.has_plain and self.random.random() < 0.2
        if is_small:
            # What is above it is given up, though begun, and its identifier free.
            for packet_id, (_, name) in list(member.began.items()):
                if self.messages[name].is_wide:
                    del member.began[packet_id]
        member.client = self.world.connect(
            member.name,
            version=version,
            clean=is_clean,
            expiry_s=EXPIRY_NEVER if member.is_durable else 0,
            receive_maximum=self.random.randint(1, 6),
            maximum_packet_size=PACKET_BYTES if is_small else None,
        )

    def subscribe_all(self, member: Member) -> None:
        assert member.client is not None
        if self.is_alone:
            self.subscribe(member, SAFE[0])
            return
        if member.has_plain:
            member.client.subscribe(PLAIN, 2, identifier=self.identifier(member, PLAIN))
        for topic_filter in FILTERS:
            if self.random.random() < 0.6:
                self.subscribe(member, topic_filter)

    def subscribe(self, member: Member, topic_filter: str) -> None:
        assert member.client is not None
        qos = self.random.randint(0 if topic_filter == MIXED else 1, 2)
        identifier = self.identifier(member, topic_filter)
        member.client.subscribe(topic_filter, qos, identifier=identifier)

    def identifier(self, member: Member, topic_filter: str) -> int:
        assert member.client is not None
        if member.client.version == 4:
            return 0
        return 100 if topic_filter == PLAIN else 1 + FILTERS.index(topic_filter)

    def subscribe_or_not(self, member: Member) -> None:
        if member.client is None or not member.client.is_open:
            return
        topic_filter = SAFE[0] if self.is_alone else self.random.choice(FILTERS)
        if self.random.random() < 0.5 and not self.is_alone:
            member.client.unsubscribe(topic_filter)
        else:
            self.subscribe(member, topic_filter)

    def note_end(self, member: Member) -> None:
        """Its QoS 2 messages under way are given up [MQTT-4.8.2-5], seen or not.

        The client forgets its half at once, though the broker may never take the other.
        """
        member.will_end = False
        member.began = {}
        member.completed = set()
        session = self.world.broker.sessions.find(member.name)
        if session is None or session.group_of is None:
            return
        tail = self.world.broker._delivery.tail
        for packet_id, group in session.group_of.items():
            value = session.sender.in_flight[packet_id]
            if value & 3 == SENT_QOS_2:
                lsn = value >> 2
                in_memory = [tail.get(lsn)] if lsn >= tail.first else []
                for entry in in_memory or self.world.disk.store.fetch([lsn]):
                    name = entry.message.payload.decode().split()[0]
                    self.given_up.add((group.topic_filter, name))

    def end_broker(self) -> None:
        """Crash, or stop in good order, and start again."""
        is_crash = self.random.random() < 0.7
        if not is_crash:
            self.world.disk.release()
            self.collect()
        for member in self.members:
            if member.will_end:
                self.note_end(member)
            member.client = None
            member.unanswered = []
        if not is_crash:
            self.world.stop()
        else:
            self.world.crash(commit_survives=self.random.random() < 0.5)
            self.world.disk.release()
        self.hear_publisher()
        self.world.restart(self.random.choice([0, 1000]))
        self.publisher = self.world.hello("publisher")
        self.hear_publisher()

    def answer(self, member: Member) -> None:
        """Take the next step of the oldest exchange."""
        if member.client is None or not member.client.is_open or not member.unanswered:
            return
        packet = member.unanswered.pop(0)
        is_refusal = member.client.version == 5 and self.random.random() < 0.03
        if isinstance(packet, Pubrel):
            member.client.send(Pubcomp(packet.packet_id))
        elif packet.qos == 1:
            member.client.send(Puback(packet.packet_id, 0x80 if is_refusal else 0))
        else:
            member.client.send(Pubrec(packet.packet_id, 0x97 if is_refusal else 0))
            if is_refusal:
                # After a crash it may be sent again.
                del member.began[packet.packet_id]

    def answer_all(self) -> None:
        """All that came is answered, and what follows from that; then nothing may wait."""
        is_busy = True
        while is_busy:
            is_busy = False
            self.collect()
            for member in self.members:
                while member.unanswered and member.client is not None and member.client.is_open:
                    self.answer(member)
                    is_busy = True
        disk = self.world.disk
        clients = [member.client for member in self.members if member.client is not None]
        is_held = disk.is_held or disk.are_reads_held
        if not is_held and not any(client.is_stalled for client in clients):
            self.check_rest()

    # --- what comes

    def collect(self) -> None:
        """Take what has come to everyone."""
        self.hear_publisher()
        for member in self.members:
            # What a subscription made here brings is taken as well.
            while member.client is not None and (packets := member.client.packets()):
                self.take_all(member, packets)

    def take_all(self, member: Member, packets: list[Packet]) -> None:
        for packet in packets:
            if isinstance(packet, Connack):
                if not packet.session_present:
                    member.life += 1
                    member.began = {}
                    member.completed = set()
                    self.subscribe_all(member)
            elif isinstance(packet, Pubrel):
                member.unanswered.append(packet)
                if packet.packet_id in member.began:
                    member.completed.add(member.began.pop(packet.packet_id))
            elif isinstance(packet, Publish):
                self.take(member, packet)

    def take(self, member: Member, packet: Publish) -> None:
        name = packet.payload.decode().split()[0]
        key = self.source(member, packet), name
        if packet.qos > 0:
            member.unanswered.append(packet)
        if packet.qos == 2:
            if packet.packet_id in member.began:
                assert packet.dup
                assert member.began[packet.packet_id][1] == name
                key = member.began[packet.packet_id]  # its group may have ended
            else:
                assert key not in member.began.values(), f"{key} came to {member.name} twice"
            assert key not in member.completed, f"{key} came to {member.name} again"
            member.began[packet.packet_id] = key
            if key[0] != PLAIN:
                takers = self.takers.setdefault(key, set())
                takers.add((member.name, member.life))
                assert len(takers) == 1, f"{key} went to {takers}"
        elif self.is_calm:
            assert not packet.dup
        if key[0] == PLAIN:
            key = f"{PLAIN} of {member.name}", name
            if packet.retain:
                return
        if not packet.dup or self.seen[key] == 0:
            self.seen[key] += 1

    def source(self, member: Member, packet: Publish) -> str:
        """The filter that a message came for."""
        told = ""
        properties = packet.properties
        if properties is not None and properties.subscription_identifiers:
            identifier = properties.subscription_identifiers[0]
            told = PLAIN if identifier == 100 else FILTERS[identifier - 1]
        if packet.qos == 0:
            return told or MIXED
        session = self.world.broker.sessions.find(member.name)
        assert session is not None
        known: Group | None = None
        if session.group_of is not None:
            known = session.group_of.get(packet.packet_id)
        found = PLAIN if known is None else known.topic_filter
        assert told in ("", found)
        return found

    # --- the end

    def settle(self) -> None:
        """Everybody comes and acknowledges all there is."""
        if not self.is_calm:
            self.end_broker()
            for member in self.members:
                self.come(member)
        self.collect()
        for topic_filter in (*SAFE, MIXED):
            self.subscribe(self.members[0], topic_filter)
        self.finish()

    def finish(self) -> None:
        """Those who are there take and acknowledge all that comes."""
        self.world.disk.release()
        for member in self.members:
            if member.client is not None and member.client.is_stalled:
                member.client.drain()
        for _ in range(10 * self.said + 50):
            self.world.advance(100)
            self.collect()
            busy = [
                member
                for member in self.members
                if member.unanswered and member.client is not None and member.client.is_open
            ]
            if not busy and self.world.broker.delayed.count == 0:
                break
            for member in busy:
                while member.unanswered:
                    self.answer(member)
        self.world.advance(1000)
        self.collect()

    def owed(self) -> set[tuple[str, str]]:
        """Who has to have been given what: the safe groups, and a session that was always kept."""
        owed: set[tuple[str, str]] = set()
        for name in self.promised:
            message = self.messages[name]
            if message.is_owed:
                owed.add((f"{PLAIN} of d1", name))
                for topic_filter in SAFE:
                    if matches(split_share(topic_filter)[1], message.topic):
                        owed.add((topic_filter, name))
        return owed - self.given_up

    def check(self) -> None:
        missing = {key for key in self.owed() if self.seen[key] == 0}
        assert missing == set(), missing
        self.check_rest()
        broker = self.world.broker
        for member in self.members:
            session = broker.sessions.find(member.name)
            assert session is not None
            assert (session.sender.in_flight, session.group_of) == ({}, None), member.name

    def check_rest(self) -> None:
        """Nothing waits in a group that has somebody online."""
        groups = self.world.broker._router.groups
        for topic_filter in FILTERS:
            group = groups.find(topic_filter)
            if group is not None and group.online:
                state = (group.is_behind, group.returned, group.lent, group.stranded)
                assert state == (False, [], {}, {}), topic_filter

    def leave(self) -> None:
        """All unsubscribe: nothing is left of the groups, and nothing holds the log."""
        for number, topic_filter in enumerate((*SAFE, MIXED)):
            anchor = self.world.hello(f"anchor{number}")
            anchor.unsubscribe(topic_filter)
        for member in self.members:
            assert member.client is not None
            for topic_filter in (*FILTERS, PLAIN):
                member.client.unsubscribe(topic_filter)
        self.finish()
        broker = self.world.broker
        tree = broker._router.tree
        assert (tree.filters, tree.subscriptions, tree.shared_subscriptions) == (0, 0, 0)
        assert broker._router.groups.count == 0
        assert broker.trim_point() == broker._commits.next_lsn


@pytest.mark.parametrize("strategy", range(len(SHARED_STRATEGIES)), ids=SHARED_STRATEGIES)
@pytest.mark.parametrize("seed", range(3))
def test_whatever_happens_each_group_gets_what_it_is_owed(seed: int, strategy: int) -> None:
    walk = Walk(seed * 100 + strategy, strategy)
    for _ in range(STEPS):
        walk.step()
    walk.finish()
    walk.check_rest()
    walk.settle()
    walk.check()
    walk.leave()


@pytest.mark.parametrize("strategy", range(len(SHARED_STRATEGIES)), ids=SHARED_STRATEGIES)
@pytest.mark.parametrize("seed", range(1))
def test_without_a_crash_or_a_lost_connection_nothing_comes_twice(seed: int, strategy: int) -> None:
    walk = Walk(seed * 100 + strategy, strategy, is_calm=True)
    for _ in range(STEPS):
        walk.step()
    walk.settle()
    walk.check()
    walk.leave()
    assert set(walk.seen.values()) == {1}


@pytest.mark.parametrize("seed", range(5))
def test_the_one_sticky_member_is_given_all_in_the_order_of_the_publisher(seed: int) -> None:
    walk = Walk(seed, STICKY, is_alone=True)
    for _ in range(STEPS):
        walk.step()
    walk.settle()
    order = [int(name[1:]) for topic_filter, name in walk.seen if topic_filter == SAFE[0]]
    assert order == sorted(order)  # by the first copy of each
    assert len(order) > 10
