"""A mixed load on a real broker that is killed, stopped and robbed of its disk, round after round.

What was acknowledged at QoS 1 arrives at least once, each QoS 2 message exactly once, in the order
of its publisher; a shared group gets each once; a delayed message comes once; a retained one is the
last that was acknowledged, or newer; and every CONNACK tells the truth about the session.
"""

import asyncio
import itertools
import random
import signal
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, final

from tests.crash.load import Broken, Client, Passer, Publisher, Subscriber, World
from tests.crash.more_load import WAKE, Crew, Member, Teller
from tests.support.faulty import FaultyBroker
from tests.support.packets import V5, V311
from tests.support.wire import Wire, say

MARKER: Final = b"nothing comes before this"
# A broker that stops, one whose disk is full, one whose store has failed.
FAREWELLS: Final = frozenset({0x8B, 0x97, 0x83})
GROWTH_BYTES: Final = 64 * 1024
# Its clients go and come back more often than two devices of one identifier may take turns.
SETTINGS: Final[dict[str, str | int]] = {"client_connects_max": 0, "client_takeovers_max": 0}
STOP_S: Final = 2.0  # for which a process is stopped; no round of the test suite does that

Disturb = Callable[["Storm"], Awaitable[None]]


@final
class Storm:
    """One load and its broker."""

    def __init__(self, broker: FaultyBroker, seed: int) -> None:
        self.broker = broker
        self.world = world = World(seed)
        self.chance = random.Random(seed)
        world.port = broker.port
        world.farewells = FAREWELLS
        world.may_refuse = True
        self.subscribers = [
            Subscriber(world, "steady", V5, stay_max=0),
            Subscriber(world, "restless", V5, stay_max=60, pause_max=60),
            Subscriber(world, "old", V311),
            Subscriber(world, "narrow", V5, receive_maximum=5, lag=1),
            Subscriber(world, "once", V311, qos=1, lag=8),
            Subscriber(world, "sleeper", V5, stay_max=1, pause_max=1 << 60),
            Subscriber(world, "patient", V5, root="later", stay_max=100, pause_max=100),
        ]
        self.publishers = [
            *(Publisher(world, f"p{n}", (V311, V5)[n % 2]) for n in range(3)),
            Publisher(world, "d0", V5, root="later", via="$delayed/1/"),
            Publisher(world, "w0", V311, root="work"),
        ]
        self.crew = Crew(world, "crew", "work")
        self.members = [Member(world, f"m{n}", (V5, V311)[n % 2], self.crew) for n in range(3)]
        self.teller = Teller(world, "teller")
        self.passers = [Passer(world, "passer-old", V311), Passer(world, "passer", V5)]

    @property
    def clients(self) -> list[Client]:
        others = [*self.members, *self.passers, self.teller]
        return [*self.publishers, *self.subscribers, *others]

    @property
    def sent(self) -> int:
        return sum(self.world.last.values())

    async def run(self, rounds: Iterable[Disturb], patience_s: float) -> None:
        """Go through all rounds under load, then let everything arrive."""
        world = self.world
        world.is_up.set()
        try:
            async with asyncio.timeout(patience_s), asyncio.TaskGroup() as group:
                for client in (*self.subscribers, *self.members, *self.passers, self.teller):
                    group.create_task(client.run(), name=client.name)
                for subscriber in (*self.subscribers, *self.members):
                    await subscriber.is_subscribed.wait()
                publishing = [
                    group.create_task(one.run(), name=one.name) for one in self.publishers
                ]
                for disturb in rounds:
                    # Often in full swing, and sometimes while sessions are just being resumed.
                    full_swing = self.chance.random() < 0.7
                    low, high = (500, 3000) if full_swing else (1, 60)
                    await world.passed(self.chance.randint(low, high))
                    await disturb(self)
                await world.passed(1000)
                world.end()
                await asyncio.gather(*publishing)
                await self._let_finish()
        except TimeoutError:
            stuck = [client for client in self.clients if not client.is_done]
            reports = "\n".join(world.recent(client.name) for client in stuck)
            raise Broken(f"not finished: {[one.name for one in stuck]}\n{reports}") from None

    async def _let_finish(self) -> None:
        """Wake those whose last message came before they knew that it was the last."""
        world = self.world
        roots = sorted({subscriber.root for subscriber in self.subscribers})
        for root in roots:
            world.last[f"{root}/end/q1"] = 1
        world.is_complete = True
        for root in roots:
            await asyncio.to_thread(say, world.port, f"{root}/end/q1", "end q1 1", qos=1)
        self.crew.look()
        await self.crew.has_all.wait()
        for member in self.members:
            await asyncio.to_thread(say, world.port, f"{WAKE}/{member.name}", "look", qos=1)

    def check(self) -> None:
        """Compare what everybody got with what was promised; every message was acknowledged."""
        self.crew.check()
        for root in ("load", "later"):
            say(self.broker.port, f"{root}/end/q1", MARKER, qos=2)
        for subscriber in self.subscribers:
            sent = {
                topic: count
                for topic, count in self.world.last.items()
                if topic.startswith(f"{subscriber.root}/") and "/end/" not in topic
            }
            assert {*sent, f"{subscriber.root}/end/q1"} == {*subscriber.got}
            check(self.world, subscriber, sent)
            nothing_more(self.broker, subscriber)
        with Wire(self.broker.port) as wire:
            wire.hello("looks", clean=True)
            wire.subscribe(self.teller.topic, 1)
            (found,) = wire.messages(1)
            assert int(found.payload) == self.teller.acknowledged > 0

    # What can happen to a broker.

    def down(self, what: str) -> None:
        self.world.is_up.clear()
        self.world.note("broker", what)

    def up(self) -> None:
        self.world.note("broker", "ready again")
        self.world.is_up.set()

    async def until_failed(self, first: int) -> None:
        await asyncio.to_thread(self.broker.wait_until_failed, first)
        self.world.note("broker", "its store has failed")

    async def until_it_works(self, first: int) -> None:
        await asyncio.to_thread(self.broker.wait_until_it_works, first)


async def kill9(storm: Storm) -> None:
    storm.down("kill -9")
    storm.broker.kill9()
    await asyncio.to_thread(storm.broker.start)
    storm.up()


async def sigterm(storm: Storm) -> None:
    storm.down("SIGTERM")
    code = await asyncio.to_thread(storm.broker.terminate)
    assert code == 0, f"a clean stop has exit code 0, not {code}"
    await asyncio.to_thread(storm.broker.start)
    storm.up()


async def sigstop(storm: Storm) -> None:
    storm.world.note("broker", "SIGSTOP")
    storm.broker.process.send_signal(signal.SIGSTOP)
    await asyncio.sleep(STOP_S)
    storm.broker.process.send_signal(signal.SIGCONT)
    storm.world.note("broker", "SIGCONT")


def fails_once(operation: str, file: str, code: str) -> Disturb:
    """The disk fails once, and the broker works on by itself."""

    async def disturb(storm: Storm) -> None:
        first = len(storm.broker.process.lines)
        storm.world.note("broker", f"{code} once")
        storm.broker.fail(operation, file, code, 1)
        await storm.until_failed(first)
        storm.world.is_up.clear()
        await storm.until_it_works(first)
        storm.up()

    return disturb


def fails_until_mended(operation: str, file: str, code: str) -> Disturb:
    """The disk fails until it is mended, and the broker works on by itself."""

    async def disturb(storm: Storm) -> None:
        first = len(storm.broker.process.lines)
        storm.world.note("broker", f"{code} until mended")
        storm.broker.fail(operation, file, code)
        await storm.until_failed(first)
        storm.world.is_up.clear()
        storm.broker.heal()
        await storm.until_it_works(first)
        storm.up()

    return disturb


def fails_and_is_killed(operation: str, file: str, code: str) -> Disturb:
    """The disk fails for good; the process is killed, and started on a disk that works."""

    async def disturb(storm: Storm) -> None:
        first = len(storm.broker.process.lines)
        storm.world.note("broker", f"{code} for good")
        storm.broker.fail(operation, file, code)
        await storm.until_failed(first)
        await kill9(storm)

    return disturb


async def disk_full(storm: Storm) -> None:
    """The store cannot grow any more; then there is room again."""
    first = len(storm.broker.process.lines)
    storm.world.note("broker", "the disk is nearly full")
    storm.broker.quota(GROWTH_BYTES)
    # While it has room within its file it works again, for a while.
    await storm.until_failed(first)
    storm.broker.heal()
    storm.world.note("broker", "there is room again")
    await storm.until_it_works(first)


DISTURBANCES: Final[dict[str, Disturb]] = {
    "kill -9": kill9,
    "SIGTERM": sigterm,
    "EIO on write, once": fails_once("write", "log", "IOERR_WRITE"),
    "EIO on fsync, once": fails_once("sync", "log", "IOERR_FSYNC"),
    "EIO on fsync of the file, once": fails_once("sync", "main", "IOERR_FSYNC"),
    "EIO on read, once": fails_once("read", "any", "IOERR_READ"),
    "EIO on fsync, until mended": fails_until_mended("sync", "any", "IOERR_FSYNC"),
    "read-only, until mended": fails_until_mended("write", "any", "READONLY"),
    "EIO on write, then kill -9": fails_and_is_killed("write", "log", "IOERR_WRITE"),
    "EIO on fsync, then kill -9": fails_and_is_killed("sync", "log", "IOERR_FSYNC"),
    "disk full": disk_full,
}


def check(world: World, subscriber: Subscriber, sent: dict[str, int]) -> None:
    """Compare what one subscriber got with what was promised; every message was acknowledged."""
    for topic, count in sent.items():
        got = subscriber.got[topic]
        promised = range(1, count + 1)
        exactly_once = topic.endswith("q2") and subscriber.qos == 2
        # dict.fromkeys keeps the order of first arrivals.
        arrivals = got if exactly_once else [*dict.fromkeys(got)]
        if arrivals == [*promised]:
            continue
        missing = sorted(set(promised) - set(got))
        double = sorted(number for number in set(got) if got.count(number) > 1)
        early = [b for a, b in itertools.pairwise(arrivals) if b < a]
        suspects = missing or (double if exactly_once else []) or early
        _, publisher, kind = topic.split("/")
        raise Broken(
            f"{subscriber.name}, {topic}: {count} promised, {len(missing)} missing"
            f" {missing[:10]}, {len(double)} more than once {double[:10]}, out of order"
            f" {early[:10]}\n" + world.history(f"{publisher} {kind} {suspects[0]}".encode())
        )


def nothing_more(broker: FaultyBroker, subscriber: Subscriber) -> None:
    """Its session is still there, and there is nothing left in it but the marker.

    Repeats of what it got may come late: a QoS 1 message to ``$delayed`` that was sent again is
    delayed again.
    """
    with Wire(broker.port, subscriber.level) as wire:
        assert wire.hello(subscriber.name).session_present
        found = wire.until(MARKER)
        for one in found[:-1]:
            assert one.topic.startswith("later/"), str(one)
            assert one.topic.endswith("q1"), str(one)
            assert int(one.payload.split()[-1]) in subscriber.got[one.topic], str(one)
        wire.goodbye()


def rounds_of(storm: Storm, names: Sequence[str]) -> Iterable[Disturb]:
    """These disturbances, in this order."""
    for number, name in enumerate(names, 1):
        storm.world.note("broker", f"round {number}: {name}")
        yield DISTURBANCES[name]
