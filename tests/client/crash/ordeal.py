"""A publisher and two subscribers that are killed again and again, and what must be there then.

The applications are real processes with the real client and an outbox file each. They are killed at
random, at each stage of the flows, before and after each kind of commit; connections are cut, the
broker is killed, a client is stopped for longer than its keep alive.
"""

import asyncio
import itertools
import multiprocessing
import os
import random
import signal
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final, Literal, Protocol, final

from tests.client.crash.applications import KEEP_ALIVE_S, LAST, QOS, Assignment, Kind, work
from tests.client.crash.journal import read_journal
from tests.client.crash.proxy import DOWN, UP, Proxy, Trap
from tests.support.broker import BrokerProcess
from tests.support.mosquitto import Mosquitto

PATIENCE_S: Final = 60.0
POLL_S: Final = 0.01
# What each application goes through: a packet, and from which side it comes.
STAGES: Final[dict[Kind, Sequence[tuple[str, str]]]] = {
    "pub": [
        ("PUBLISH", UP),
        ("PUBACK", DOWN),
        ("PUBREC", DOWN),
        ("PUBREL", UP),
        ("PUBCOMP", DOWN),
        ("CONNACK", DOWN),
    ],
    "auto": [
        ("PUBLISH", DOWN),
        ("PUBACK", UP),
        ("PUBREC", UP),
        ("PUBREL", DOWN),
        ("PUBCOMP", UP),
        ("SUBACK", DOWN),
    ],
    "manual": [
        ("PUBLISH", DOWN),
        ("PUBACK", UP),
        ("PUBREC", UP),
        ("PUBREL", DOWN),
        ("PUBCOMP", UP),
        ("CONNACK", DOWN),
    ],
}
COMMITS: Final[dict[Kind, Sequence[str]]] = {
    "pub": ["StoreOutgoing", "ReleaseOutgoing", "RemoveOutgoing"],
    "auto": ["HoldIncoming", "FreeIncoming"],
    "manual": ["HoldIncoming", "FreeIncoming"],
}
KINDS: Final[tuple[Kind, ...]] = ("pub", "auto", "manual")
WHEN: Final = ("before", "after")
# New processes are forked from one that has imported all of it.
_context: Final = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.client.crash.applications"])


Version = Literal["5.0", "3.1.1"]
VERSIONS: Final[tuple[Version, ...]] = ("5.0", "3.1.1")
BROKERS: Final = ("holdfast", "mosquitto")


class Broken(AssertionError):
    """A promise was broken."""


class AnyBroker(Protocol):
    """What is between the applications."""

    port: int


@final
class Ordeal:
    """One run.

    ``restart`` kills the broker and starts it again, where that may be done; ``may_overtake`` says
    that the broker does not keep the order of messages.
    """

    def __init__(
        self,
        broker: AnyBroker,
        version: Version,
        folder: Path,
        seed: int,
        *,
        restart: Callable[[], object] | None = None,
        may_overtake: bool = False,
    ) -> None:
        self.chance = random.Random(seed)
        self.history: list[str] = []
        self.kills: dict[Kind, int] = dict.fromkeys(KINDS, 0)
        self._version = version
        self._folder = folder
        self._proxy = Proxy(broker.port)
        self._restart = restart
        self._may_overtake = may_overtake
        self._processes: dict[Kind, BaseProcess] = {}
        self._deadly: dict[Kind, tuple[str, str]] = {}

    # --- the applications

    def start(self, kind: Kind, dies_at: tuple[str, str] = ("", "")) -> None:
        assignment = Assignment(
            kind,
            f"mqtt://127.0.0.1:{self._proxy.port}",
            self._version,
            self._folder,
            dies_at,
        )
        process = _context.Process(target=work, args=(assignment,), daemon=True)
        process.start()
        self._processes[kind] = process

    def kill(self, kind: Kind) -> None:
        """``kill -9``; one that has died by itself is as good."""
        self._processes[kind].kill()

    async def _bury(self, kind: Kind) -> None:
        """Wait for the end of a process that is or will be killed."""
        process = self._processes[kind]
        await self._until(lambda: not process.is_alive(), f"{kind} has not died")
        process.join()
        if process.exitcode != -signal.SIGKILL:
            log = (self._folder / f"{kind}.log").read_text()
            raise Broken(f"{kind} ended by itself, with {process.exitcode}\n{log[-3000:]}")
        self.kills[kind] += 1

    async def _until(self, is_so: Callable[[], bool], what: str) -> None:
        end_s = asyncio.get_running_loop().time() + PATIENCE_S
        while not is_so():
            if asyncio.get_running_loop().time() > end_s:
                raise Broken(f"{what} within {PATIENCE_S} s\n{self._logs()}")
            await asyncio.sleep(POLL_S)

    def _logs(self) -> str:
        texts = []
        for kind in KINDS:
            path = self._folder / f"{kind}.log"
            text = path.read_text()[-1500:] if path.exists() else ""
            texts.append(f"--- {kind}\n{text}")
        return "\n".join(texts)

    # --- what happens to them

    async def at_random(self, kind: Kind) -> None:
        await asyncio.sleep(self.chance.uniform(0, 0.3))
        self.kill(kind)
        await self._bury(kind)
        self.start(kind)

    async def at_stage(self, kind: Kind, name: str, direction: str, when: str) -> None:
        nth = 1 if name in ("CONNACK", "SUBACK") else self.chance.randint(1, 8)
        trap = Trap(kind, direction, name, nth, when, lambda: self.kill(kind))
        if name == "SUBACK":  # a process subscribes once, and this one may be just about to
            self.kill(kind)
            await self._bury(kind)
            self._proxy.traps[kind] = trap
            self.start(kind)
        else:
            self._proxy.traps[kind] = trap
        if name == "CONNACK":
            self._proxy.cut(kind)
        await self._until(trap.sprung.is_set, f"{kind}: no {name} came {direction}")
        await self._bury(kind)
        self.start(kind)

    async def at_commit(self, kind: Kind, name: str, when: str) -> None:
        """The next process dies by itself, at this commit."""
        self.kill(kind)
        await self._bury(kind)
        self.start(kind, (name, when))
        await self._bury(kind)
        self.start(kind)

    async def cut(self, kind: Kind) -> None:
        await asyncio.sleep(self.chance.uniform(0, 0.2))
        self._proxy.cut(kind)

    async def stop_for_long(self, kind: Kind) -> None:
        """Longer than the broker waits for a sign of life."""
        pid = self._processes[kind].pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(KEEP_ALIVE_S * 1.5 + 1)
        os.kill(pid, signal.SIGCONT)

    async def kill_broker(self) -> None:
        if self._restart is not None:
            await asyncio.sleep(self.chance.uniform(0, 0.2))
            await asyncio.to_thread(self._restart)

    def trials(self, *, with_long: bool) -> dict[str, Callable[[], Awaitable[None]]]:
        """All that can happen, by name, each stage and commit of each application."""
        found: dict[str, Callable[[], Awaitable[None]]] = {}
        for kind in KINDS:
            for (name, direction), when in itertools.product(STAGES[kind], WHEN):
                found[f"{kind} is killed {when} {name}"] = _bind(
                    self.at_stage, kind, name, direction, when
                )
            for name, when in itertools.product(COMMITS[kind], WHEN):
                found[f"{kind} is killed {when} a commit with {name}"] = _bind(
                    self.at_commit, kind, name, when
                )
            found[f"{kind} is cut off"] = _bind(self.cut, kind)
            found[f"{kind} is killed"] = _bind(self.at_random, kind)
            if with_long:
                found[f"{kind} is stopped for long"] = _bind(self.stop_for_long, kind)
        if self._restart is not None:
            found["the broker is killed"] = self.kill_broker
        return found

    # --- a run

    async def run(self, names: Sequence[str]) -> None:
        """Go through these trials, let all arrive, and check what is there."""
        await self._proxy.start()
        try:
            await self._run(names)
        finally:
            for process in self._processes.values():
                process.kill()
                process.join()
            await self._proxy.stop()
            (self._folder / "packets").write_text("\n".join(self._proxy.packets))
        self.check()

    async def _run(self, names: Sequence[str]) -> None:
        for kind in ("auto", "manual"):
            await self._subscribe_first(kind)
        self.start("pub")
        trials = self.trials(with_long=True)
        for name in names:
            self.history.append(name)
            self._proxy.packets.append(f"--- {name}")
            seen = len(read_journal(self._folder / "pub.journal"))
            await trials[name]()
            await self._until(
                lambda seen=seen: len(read_journal(self._folder / "pub.journal")) > seen,  # type: ignore[misc]
                f"after {name!r} nothing goes on",
            )
        (self._folder / "stop").touch()
        for kind in KINDS:
            process = self._processes[kind]
            await self._until(lambda process=process: not process.is_alive(), f"{kind} never ends")  # type: ignore[misc]
            if process.exitcode != 0:
                log = (self._folder / f"{kind}.log").read_text()
                raise Broken(f"{kind} ended with {process.exitcode}\n{log[-3000:]}")

    async def _subscribe_first(self, kind: Kind) -> None:
        """What is published before the subscription is nobody's."""
        trap = Trap(kind, DOWN, "SUBACK", 1, "after", lambda: None)
        self._proxy.traps[kind] = trap
        self.start(kind)
        await self._until(trap.sprung.is_set, f"{kind} does not subscribe")

    # --- what must be there

    def check(self) -> None:
        journal = read_journal(self._folder / "pub.journal")
        for qos in QOS:
            tried = [int(line[2]) for line in journal if line[:2] == ["try", str(qos)]]
            kept = {int(line[2]) for line in journal if line[:2] == ["kept", str(qos)]}
            if tried != list(range(1, len(tried) + 1)):
                raise Broken(f"the publisher's journal is no journal: {tried[:20]}")
            self._check_one("auto", qos, kept, set(tried), self._journal_of("auto", qos))
            self._check_one("manual", qos, kept, set(tried), self._base(qos))

    def _journal_of(self, kind: Kind, qos: int) -> list[int]:
        lines = read_journal(self._folder / f"{kind}.journal")
        last = LAST.decode()
        return [int(w[2]) for w in lines if w[:2] == ["got", str(qos)] and w[2] != last]

    def _base(self, qos: int) -> list[int]:
        base = sqlite3.connect(self._folder / "base.db")
        rows = base.execute(
            "SELECT number FROM got WHERE qos = ? AND number != ? ORDER BY place",
            (qos, LAST.decode()),
        ).fetchall()
        base.close()
        return [int(row[0]) for row in rows]

    def _check_one(
        self, kind: Kind, qos: int, kept: set[int], tried: set[int], got: list[int]
    ) -> None:
        who = f"{kind}, QoS {qos}"
        missing = sorted(kept - set(got))
        # One that is acknowledged before it is processed may be lost with its process.
        lost_max = self.kills[kind] if kind == "auto" and qos == 2 else 0
        if len(missing) > lost_max:
            raise Broken(f"{who}: {len(missing)} lost, {missing[:10]}, at most {lost_max} may be")
        if set(got) - tried:
            raise Broken(f"{who}: {sorted(set(got) - tried)[:10]} came, and nobody published it")
        double = sorted({number for number in got if got.count(number) > 1}) if qos == 2 else []
        if double:
            raise Broken(f"{who}: came twice: {double[:10]}")
        for earlier, later in itertools.pairwise(dict.fromkeys(got)):
            if later < earlier and not self._has_overtaken(kind, qos, earlier, later):
                raise Broken(f"{who}: {later} was processed after {earlier}")

    def _has_overtaken(self, kind: Kind, qos: int, number: int, other: int) -> bool:
        """Whether a broker which does that has sent a message before another one, and not we.

        Mosquitto 2.0 sends new ones while older ones are still queued for the session.
        """
        if not self._may_overtake:
            return False
        has_other = False
        for line in self._proxy.packets:
            words = line.split()
            if words[:3] == [kind, "->", "CONNECT"]:
                has_other = False
            if words[:4] != [kind, "<-", "PUBLISH", f"load/q{qos}"]:
                continue
            if words[4] == str(other):
                has_other = True
            elif words[4] == str(number) and not has_other:
                return True
        return False

    @property
    def summary(self) -> str:
        journal = read_journal(self._folder / "pub.journal")
        kept = sum(line[0] == "kept" for line in journal)
        return f"{kept} messages, {sum(self.kills.values())} kills"


def _bind(
    action: Callable[..., Awaitable[None]], *arguments: object
) -> Callable[[], Awaitable[None]]:
    return lambda: action(*arguments)


def go_through(
    broker: str, version: Version, folder: Path, seed: int, *, trials: int, with_long: bool
) -> str:
    """One ordeal against a broker of its own; what came of it, in a line."""
    ordeal: Ordeal
    with ExitStack() as stack:
        if broker == "mosquitto":
            mosquitto = stack.enter_context(Mosquitto(folder / "broker"))
            ordeal = Ordeal(mosquitto, version, folder, seed, may_overtake=True)
        else:
            holdfast = stack.enter_context(BrokerProcess(folder / "broker"))
            ordeal = Ordeal(holdfast, version, folder, seed, restart=holdfast.restart)
        names = list(ordeal.trials(with_long=with_long))
        random.Random(seed).shuffle(names)
        try:
            asyncio.run(ordeal.run(names[:trials]))
        except Broken:
            print("; ".join(ordeal.history))
            raise
    return f"{broker}, {version}: {len(ordeal.history)} trials, {ordeal.summary}"
