"""More clients for the crash tests: members of a shared group, and who sets a retained message."""

import asyncio
from typing import Final, final

from tests.crash.load import Broken, Client, Subscriber, World
from tests.support import packets
from tests.support.packets import PUBACK, PUBLISH, SUBACK, V5, Packet

WAKE: Final = "wake"  # under it a member is told to look whether it has finished


@final
class Crew:
    """What the members of one shared group got, taken together."""

    def __init__(self, world: World, name: str, root: str) -> None:
        self.topic_filter = f"$share/{name}/{root}/#"
        self.root = root
        self.got: dict[str, list[int]] = {}
        self.has_all = asyncio.Event()
        self._world = world

    def look(self) -> None:
        """Take note if everything has arrived at somebody."""
        if self._world.is_complete and not self.missing():
            self.has_all.set()

    def missing(self) -> list[str]:
        """What has arrived at nobody."""
        missing = []
        for topic, count in self._world.last.items():
            if topic.startswith(f"{self.root}/"):
                left = set(range(1, count + 1)) - set(self.got.get(topic, ()))
                missing += [f"{topic} {number}" for number in sorted(left)]
        return missing

    def check(self) -> None:
        """Each message of QoS 2 arrived once at one of them, each of QoS 1 at least once."""
        for topic, count in self._world.last.items():
            if topic.startswith(f"{self.root}/"):
                got = sorted(self.got[topic])
                arrivals = got if topic.endswith("q2") else sorted(set(got))
                if arrivals != [*range(1, count + 1)]:
                    double = sorted({number for number in got if got.count(number) > 1})
                    _, publisher, kind = topic.split("/")
                    number = (double or [1])[0]
                    raise Broken(
                        f"group {self.topic_filter}, {topic}: {count} promised, missing"
                        f" {self.missing()[:10]}, more than once {double[:10]}\n"
                        + self._world.history(f"{publisher} {kind} {number}".encode())
                    )


@final
class Member(Subscriber):
    """A durable member of a shared group that comes and goes."""

    def __init__(self, world: World, name: str, level: int, crew: Crew) -> None:
        super().__init__(world, name, level, root=crew.root, stay_max=150, pause_max=200)
        self.got = crew.got
        self._crew = crew

    def connected(self, connack: Packet) -> None:
        self._late.clear()
        if not self.is_subscribed.is_set():
            topics = [(self._crew.topic_filter, self.qos), (f"{WAKE}/{self.name}", self.qos)]
            self.send(packets.subscribe(1, topics, self.level))

    def take(self, packet: Packet) -> None:
        if packet.kind == SUBACK:
            assert packet.codes == (self.qos, self.qos), packet
            self.is_subscribed.set()
            return
        super().take(packet)

    def _arrived(self, packet: Packet) -> None:
        if not packet.topic.startswith(f"{WAKE}/"):
            super()._arrived(packet)
            self._crew.look()

    def is_finished(self) -> bool:
        return self._crew.has_all.is_set() and not self._held and not self._late


@final
class Teller(Client):
    """Sets one retained message again and again, and looks at it whenever it comes back."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name, V5, clean=True)
        self.topic = f"state/{name}"
        self.acknowledged = 0
        self._number = 0

    def connected(self, connack: Packet) -> None:
        self.send(packets.subscribe(1, [(self.topic, 1)], self.level))

    def take(self, packet: Packet) -> None:
        if packet.kind == SUBACK:
            if self._number == 0:
                self._tell()
        elif packet.kind == PUBLISH:
            self.send(packets.acknowledge(PUBACK, packet.packet_id))
            if packet.retain:
                self._check(int(packet.payload))
                self._tell()
        elif packet.kind == PUBACK:
            self.acknowledged = self._number
            self.world.note(self.name, f"told {self._number}")
            if not self.is_finished():
                self._tell()

    def _check(self, found: int) -> None:
        if not self.acknowledged <= found <= self._number:
            raise Broken(
                f"{self.name}: expected {self.acknowledged} to {self._number} on {self.topic},"
                f" found {found}\n{self.world.recent(self.name)}"
            )

    def _tell(self) -> None:
        self._number += 1
        payload = b"%d" % self._number
        self.send(packets.publish(self.topic, payload, self.level, qos=1, packet_id=1, retain=True))

    def is_finished(self) -> bool:
        return self.world.is_ending and self._number > 0 and self.acknowledged == self._number

    def stays_for(self) -> int:
        return self.random.randint(1, 100)

    async def pause(self) -> None:
        if not self.is_done:
            await self.world.passed(self.random.randint(0, 300))
