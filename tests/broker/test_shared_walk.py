"""Shared groups in a random walk: whatever members do, nothing is lost or given to two."""

import random
from collections import Counter

import pytest

from holdfast.broker.limits import Limits
from holdfast.broker.shared_group import SHARED_STRATEGIES
from holdfast.protocol.packets import Puback, Pubcomp, Publish, Pubrec, Pubrel
from holdfast.protocol.sender import SENT_QOS_2
from tests.broker.world import Client, World

STEPS = 400
BIG = b"z" * 900_000  # pushes older entries out of the log's tail
FILTER = "$share/g/t/+"


class Member:
    """A client of the group, and what it has been told."""

    def __init__(self, name: str, qos: int, expiry_s: int, version: int) -> None:
        self.name = name
        self.qos = qos
        self.expiry_s = expiry_s
        self.version = version
        self.is_transient = expiry_s == 0
        self.client: Client | None = None
        self.unanswered: list[Publish | Pubrel] = []
        self.began: dict[int, str] = {}  # QoS 2 under way, by packet identifier


class Walk:
    """One walk. Messages are told apart by their payload; ``m`` QoS 1, ``x`` QoS 2."""

    def __init__(self, seed: int, strategy: int) -> None:
        self.random = random.Random(seed)
        self.world = World(Limits(shared_strategy=strategy, in_flight_max=4))
        self.members = [
            Member("d1", 2, 10_000, 5),
            Member("d2", 2, 10_000, 4),
            Member("d3", 1, 10_000, 5),
            Member("t1", 2, 0, 5),
            Member("t2", 1, 0, 4),
        ]
        self.said = 0
        self.promised: list[str] = []  # acknowledged to the publisher
        self.seen: Counter[str] = Counter()  # by a member, copies with DUP not counted
        self.takers: dict[str, set[str]] = {}  # who was given a QoS 2 message
        self.given_up: set[str] = set()  # QoS 2 of sessions that ended
        self.reader: Client | None = None
        self.publisher = self.world.hello("publisher", version=5)
        # The group is durable from here to the end.
        anchor = self.world.hello("anchor")
        anchor.subscribe(FILTER, 2)
        anchor.disconnect()

    # --- steps

    def step(self) -> None:
        choice = self.random.random()
        member = self.random.choice(self.members)
        if choice < 0.35:
            self.publish()
        elif choice < 0.65:
            self.answer(member)
        elif choice < 0.80:
            self.come_or_go(member)
        elif choice < 0.84 and member.client is not None:
            if self.random.random() < 0.5:
                member.client.unsubscribe(FILTER)
            else:
                member.client.subscribe(FILTER, self.random.choice([1, member.qos]))
        elif choice < 0.87:
            self.world.disk.hold()
        elif choice < 0.92:
            self.world.disk.sync()
            self.world.disk.release()
        elif choice < 0.94:
            self.world.disk.hold_reads()
        elif choice < 0.96:
            self.world.disk.answer_reads()
        elif choice < 0.98:
            self.flood()
        elif choice < 0.99:
            self.crash()
        self.collect()

    def publish(self) -> None:
        self.said += 1
        qos = self.random.choice([1, 2])
        packet_id = self.said % 60_000 + 1
        name = f"{'m' if qos == 1 else 'x'}{self.said}"
        self.publisher.publish(f"t/{self.said % 3}", name, qos, packet_id)
        self.hear_publisher()

    def hear_publisher(self) -> None:
        for packet in self.publisher.packets():
            if isinstance(packet, Puback | Pubrec):
                number = packet.packet_id - 1
                self.promised.append(f"{'m' if isinstance(packet, Puback) else 'x'}{number}")
                if isinstance(packet, Pubrec):
                    self.publisher.send(Pubrel(packet.packet_id))

    def flood(self) -> None:
        """Push what waits out of memory, so that it is read from the store."""
        self.world.disk.release()
        flooder = self.world.hello("flooder", clean=True)  # durable: what it wants is logged
        flooder.subscribe("big", 1)
        for packet_id in range(1, 4):
            flooder.publish("big", BIG, 1, packet_id)
            flooder.send(Puback(packet_id))
        flooder.unsubscribe("big")
        flooder.packets()
        flooder.cut()

    def come_or_go(self, member: Member) -> None:
        if member.client is None:
            self.come(member, clean=self.random.random() < 0.15)
        else:
            if member.is_transient:
                self.end_session(member)
            member.client.cut()
            member.client = None
            member.unanswered = []

    def come(self, member: Member, *, clean: bool = False) -> None:
        is_clean = clean or member.expiry_s == 0
        if is_clean:
            self.end_session(member)
        # Clean Session of 3.1.1 is both: it starts afresh, and leaves nothing.
        member.is_transient = member.expiry_s == 0 or (is_clean and member.version == 4)
        member.client = self.world.connect(
            member.name, version=member.version, clean=is_clean, expiry_s=member.expiry_s
        )
        member.client.subscribe(FILTER, member.qos)

    def end_session(self, member: Member) -> None:
        """Its QoS 2 messages under way are given up [MQTT-4.8.2-5], seen or not."""
        member.began = {}
        session = self.world.broker.sessions.find(member.name)
        if session is None:
            return
        tail = self.world.broker._delivery.tail
        for value in session.sender.in_flight.values():
            lsn = value >> 2
            if value & 3 == SENT_QOS_2:
                in_memory = [tail.get(lsn)] if lsn >= tail.first else []
                for entry in in_memory or self.world.disk.store.fetch([lsn]):
                    self.given_up.add(entry.message.payload.decode())

    def crash(self) -> None:
        for member in self.members:
            if member.is_transient:
                self.end_session(member)
        self.world.crash(commit_survives=self.random.random() < 0.5)
        self.world.disk.release()
        for member in self.members:
            member.client = None
            member.unanswered = []
        self.world.restart()
        self.publisher = self.world.hello("publisher", version=5)
        self.hear_publisher()

    def answer(self, member: Member) -> None:
        """Take the next step of the oldest exchange."""
        if member.client is None or not member.unanswered:
            return
        packet = member.unanswered.pop(0)
        if isinstance(packet, Pubrel):
            member.client.send(Pubcomp(packet.packet_id))
        elif packet.qos == 1:
            member.client.send(Puback(packet.packet_id))
        else:
            member.client.send(Pubrec(packet.packet_id))

    def collect(self) -> None:
        """Take what has come to everyone."""
        self.hear_publisher()
        for member in self.members:
            if member.client is None:
                continue
            for packet in member.client.packets():
                if isinstance(packet, Pubrel):
                    member.unanswered.append(packet)
                    member.began.pop(packet.packet_id, None)
                elif isinstance(packet, Publish):
                    self.take(member, packet)

    def take(self, member: Member, packet: Publish) -> None:
        name = packet.payload.decode()
        member.unanswered.append(packet)
        if packet.qos == 2:
            if packet.dup:
                assert member.began.get(packet.packet_id, name) == name
            self.takers.setdefault(name, set()).add(member.name)
            assert len(self.takers[name]) == 1, f"{name} went to {self.takers[name]}"
            member.began[packet.packet_id] = name
        # The first sending may have been lost on the way.
        if not packet.dup or self.seen[name] == 0:
            self.seen[name] += 1

    # --- the end

    def settle(self) -> None:
        """Everybody comes and acknowledges all there is."""
        self.world.disk.release()
        self.crash()
        for member in self.members:
            self.come(member)
        self.finish()

    def finish(self) -> None:
        for _ in range(self.said + 50):
            self.world.advance(100)
            self.collect()
            busy = [member for member in self.members if member.unanswered]
            if not busy:
                break
            for member in busy:
                while member.unanswered:
                    self.answer(member)
        self.world.disk.release()
        self.world.advance(1000)
        self.collect()

    def check(self) -> None:
        missing = {name for name in self.promised if self.seen[name] == 0}
        assert missing - self.given_up == set()
        router = self.world.broker._router
        group = router.groups.find(FILTER)
        assert group is not None
        assert (group.is_behind, group.returned, group.lent, group.stranded) == (False, [], {}, {})
        for member in self.members:
            session = self.world.broker.sessions.find(member.name)
            assert session is not None
            assert (session.sender.in_flight, session.group_of) == ({}, None), member.name


@pytest.mark.parametrize("strategy", range(len(SHARED_STRATEGIES)), ids=SHARED_STRATEGIES)
@pytest.mark.parametrize("seed", range(8))
def test_nothing_promised_to_a_group_is_lost_and_qos_2_goes_to_one_member(
    seed: int, strategy: int
) -> None:
    walk = Walk(seed * 100 + strategy, strategy)
    for _ in range(STEPS):
        walk.step()
    walk.settle()
    walk.check()


@pytest.mark.parametrize("seed", range(5))
def test_without_a_crash_or_a_lost_connection_each_message_comes_once(seed: int) -> None:
    walk = Walk(1000 + seed, 0)
    for member in walk.members:
        walk.come(member)
    for _ in range(STEPS):
        if walk.random.random() < 0.5:
            walk.publish()
        else:
            walk.answer(walk.random.choice(walk.members))
        walk.collect()
    walk.finish()
    walk.check()
    assert set(walk.seen.values()) == {1}
