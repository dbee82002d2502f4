"""Random lives of clients whose permissions come and go, against what may be expected of any."""

from random import Random
from typing import Final

import pytest

from holdfast.broker.limits import Limits
from holdfast.broker.shared_group import SHARED_STRATEGIES
from holdfast.protocol.packets import Puback, Publish
from tests.broker.world import Client, World
from tests.support.granting import Granting

STEPS: Final = 80
TOPICS: Final = ("a", "b", "c")
ALWAYS: Final = "k"  # never denied to anyone
READER: Final = "reader"  # a session with overlapping subscriptions of its own
MEMBERS: Final = ("member1", "member2")  # of a group


class Life:
    """A publisher, a reader and two members; all that is acknowledged is at QoS 1."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.granting = Granting()
        limits = Limits(shared_strategy=seed % len(SHARED_STRATEGIES))
        self.world = World(limits, authenticator=self.granting)
        self.denied: dict[str, set[str]] = {name: set() for name in (READER, *MEMBERS)}
        self.clients: dict[str, Client | None] = {}
        self.unacknowledged: dict[str, list[int]] = {}
        self.published: list[str] = []
        self.got: dict[str, list[str]] = {name: [] for name in self.denied}
        self.publisher = self.world.hello("publisher")
        for name in self.denied:
            self.connect(name)
        reader, *members = (self.client(name) for name in (READER, *MEMBERS))
        reader.subscribe("+", 1)
        reader.subscribe("+/#", 1, 2)
        for member in members:
            member.subscribe("$share/g/#", 1)

    def client(self, name: str) -> Client:
        client = self.clients[name]
        assert client is not None
        return client

    def connect(self, name: str) -> None:
        self.clients[name] = self.world.hello(name, receive_maximum=self.random.randint(1, 4))
        self.unacknowledged[name] = []

    def step(self) -> None:
        name = self.random.choice((READER, *MEMBERS))
        choice = self.random.random()
        if choice < 0.4:
            self.publish(self.random.choice((*TOPICS, ALWAYS)))
        elif choice < 0.7:
            self.acknowledge(name)
        elif choice < 0.85:
            self.denied[name] ^= {self.random.choice(TOPICS)}
            self.renew()
        elif choice < 0.95:
            self.come_or_go(name)
        elif choice < 0.98:
            self.world.advance(100)
        else:
            self.end()
        self.look()

    def publish(self, topic: str) -> None:
        payload = f"{topic}{len(self.published)}"
        self.publisher.publish(topic, payload, 1, 1)
        (answer,) = self.publisher.packets()
        assert isinstance(answer, Puback) and answer.reason_code in (0, 0x10)
        self.published.append(payload)

    def acknowledge(self, name: str) -> None:
        client, packet_ids = self.clients[name], self.unacknowledged[name]
        if client is not None and packet_ids:
            client.send(Puback(packet_ids.pop(0)))

    def renew(self) -> None:
        for name, topics in self.denied.items():
            rules = "; ".join(f"deny receive {topic}" for topic in sorted(topics))
            self.granting.rules[name] = f"{rules}; allow all #" if rules else "allow all #"
        self.world.broker.begin_turn(self.world.now_ms)
        self.world.broker.renew_identities()
        self.world.run()

    def come_or_go(self, name: str) -> None:
        client = self.clients[name]
        if client is None:
            self.connect(name)
        else:
            client.cut()
            self.clients[name] = None

    def end(self) -> None:
        self.world.end(self.random.choice(("crash", "stop")))
        self.world.restart()
        self.publisher = self.world.hello("publisher")
        for name, client in self.clients.items():
            if client is not None:
                self.connect(name)

    def look(self) -> None:
        """What has come may have come: nobody is given what it may not have."""
        for name, client in self.clients.items():
            for packet in [] if client is None else client.packets():
                if isinstance(packet, Publish):
                    assert packet.topic not in self.denied[name], (name, packet.payload)
                    self.unacknowledged[name].append(packet.packet_id)
                    self.got[name].append(packet.payload.decode())

    def settle(self) -> None:
        """Everybody is there, has all rights and acknowledges all."""
        for topics in self.denied.values():
            topics.clear()
        self.renew()
        for name, client in self.clients.items():
            if client is None:
                self.connect(name)
        self.look()
        while any(self.unacknowledged.values()):
            for name in self.clients:
                self.acknowledge(name)
            self.look()


@pytest.mark.parametrize("seed", range(60))
def test_permissions_come_and_go(seed: int) -> None:
    life = Life(seed)
    life.renew()
    for _ in range(STEPS):
        life.step()
    life.settle()
    ordered = {payload: number for number, payload in enumerate(life.published)}
    reader = list(dict.fromkeys(life.got[READER]))
    assert [ordered[payload] for payload in reader] == sorted(ordered[one] for one in reader)
    always = [payload for payload in life.published if payload.startswith(ALWAYS)]
    assert [payload for payload in reader if payload.startswith(ALWAYS)] == always
    shared = {payload for member in MEMBERS for payload in life.got[member]}
    assert shared == set(life.published), "the group loses nothing"
    life.world.advance(1000)
    assert life.world.broker.trim_point() == life.world.broker._commits.next_lsn
