"""Fresh brokers with a fresh load generator each, and the repetitions over them."""

import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final

from bench.brokers import (
    Broker,
    GeneratorFailed,
    GeneratorProcess,
    Holdfast,
    Mosquitto,
    PeerBroker,
    Unavailable,
)
from bench.flow import Flow
from bench.rows import HOLDFAST, MOSQUITTO, Row

Detail = dict[str, object]

# Of sessions that only come to be absent: connected at one time, for systems with few open files.
CONNECTED_MAX: Final = 500


@dataclass(slots=True)
class Options:
    """How to measure; all of it is written into the JSON."""

    repeat: int = 3
    seconds: float = 2.0
    warmup_s: float = 0.5
    quick: bool = False
    spin: bool = False
    mosquitto_nodelay: bool = False
    holdfast: str = ".venv/bin/holdfast"
    serve_options: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Subject:
    """A running broker and the generator that drives it."""

    broker: Broker
    generator: GeneratorProcess

    def flow(self, flow: Flow) -> tuple[float, Detail]:
        """Run a flow; its rate and the rest of its result."""
        result = self.order("flow", flow=asdict(flow), timeout_s=300.0)
        assert isinstance(result, dict)
        return float(result["rate"]), result

    def absent_sessions(self, prefix: str, count: int, topic: str) -> None:
        """Durable sessions that subscribed to ``topic`` at QoS 1 and went."""
        for first in range(0, count, CONNECTED_MAX):
            self.open_sessions(
                prefix, min(CONNECTED_MAX, count - first), first=first, durable=True, topic=topic
            )
            self.order("close")

    def open_sessions(
        self, prefix: str, count: int, *, first: int = 0, durable: bool, topic: str
    ) -> None:
        """Connect ``count`` clients that stay; with ``topic`` they subscribe to it at QoS 1."""
        order = partial(self.order, "open", prefix=prefix, first=first, count=count)
        order(durable=durable, topic=topic, qos=1)

    def order(self, do: str, *, timeout_s: float = 120.0, **rest: object) -> object:
        """Any order to the generator."""
        return self.generator.order(do, self.broker, timeout_s=timeout_s, **rest)


class Bench:
    """The run: its options, and the folder in which everything lives while it lasts."""

    def __init__(self, options: Options, work: Path) -> None:
        self.options = options
        self.work = work
        self._number = 0

    @contextmanager
    def subject(self, kind: str) -> Iterator[Subject]:
        """A fresh broker of ``kind`` with an empty data folder, gone afterwards."""
        self._number += 1
        folder = self.work / f"{self._number:03d}-{kind}"
        folder.mkdir(parents=True)
        broker = self._broker(kind, folder)
        generator = GeneratorProcess()
        try:
            broker.start()
            try:
                yield Subject(broker, generator)
            except (GeneratorFailed, OSError) as error:
                # What the broker said may explain it, and is about to be removed.
                raise GeneratorFailed(f"{error} (its log ends: {broker.log_tail()})") from error
        finally:
            generator.stop()
            broker.stop()
            shutil.rmtree(folder, ignore_errors=True)

    def timed(self, flow: Flow) -> Flow:
        """The flow with this run's times."""
        options = self.options
        return replace(flow, seconds=options.seconds, warmup_s=options.warmup_s, spin=options.spin)

    def collect(
        self,
        row: Row,
        measure: Callable[[Subject], tuple[float, Detail]],
        *,
        kinds: Sequence[str] = (MOSQUITTO, HOLDFAST),
        repeat: int | None = None,
    ) -> None:
        """Repetitions over fresh brokers, in alternating order; failures go into the row."""

        def one(kind: str) -> tuple[float, Detail]:
            with self.subject(kind) as subject:
                return measure(subject)

        self.alternate(row, one, kinds=kinds, repeat=repeat)

    def alternate(
        self,
        row: Row,
        measure: Callable[[str], tuple[float, Detail]],
        *,
        kinds: Sequence[str],
        repeat: int | None = None,
    ) -> None:
        """Repetitions of ``kinds`` in turn, to and fro; failures go into the row."""
        failed: set[str] = set()
        for number in range(self.options.repeat if repeat is None else repeat):
            for kind in kinds if number % 2 == 0 else reversed(kinds):
                if kind in failed:
                    continue
                try:
                    value, detail = measure(kind)
                except (GeneratorFailed, Unavailable, OSError) as error:
                    failed.add(kind)
                    row.failures.append(f"{kind}: {error}")
                    self.say(f"{row.key:11} {kind:9} failed: {error}")
                else:
                    row.add(kind, value, {"repetition": number, **detail})
                    self.say(f"{row.key:11} {kind:9} {value:12,.2f} {row.unit}")

    def say(self, text: str) -> None:
        """Progress, for whoever waits."""
        print(text, file=sys.stderr, flush=True)

    def _broker(self, kind: str, folder: Path) -> Broker:
        if kind == HOLDFAST:
            program = Path(self.options.holdfast).absolute()
            return Holdfast(folder, program, self.options.serve_options)
        if kind == MOSQUITTO:
            return Mosquitto(folder, nodelay=self.options.mosquitto_nodelay)
        return PeerBroker(folder)
