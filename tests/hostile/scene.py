"""An attack, and the scene it plays in: a real broker, honest clients, and a look at both."""

import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.support.broker import BrokerProcess
from tests.support.process import Process, eventually
from tests.support.wire import Wire

MIB: Final = 1024 * 1024
SERVICE_PATIENCE_S: Final = 60.0  # for a round trip of the honest pair, at the worst
CALM_TRIPS: Final = 10  # round trips before a small attack, so that all that is lazy is done
SMALL_TRIPS: Final = 5  # while it goes on
FULL_TRIPS: Final = 300  # before a full attack, and while it goes on
FULL_S: Final = 30.0  # what has no end of its own ends after that, with fewer of them
LOG_INTERVAL_S: Final = 10.0  # the time for which the log has a bound


class Honest:
    """The honest pair, in a process of its own; see ``honest``."""

    def __init__(self, port: int, login: tuple[str, str] | None = None) -> None:
        command = [sys.executable, "-m", "tests.hostile.honest", str(port), *(login or ())]
        self._process = Process(command)

    @property
    def trips(self) -> int:
        """How many round trips so far; AssertionError if the pair lost its service."""
        lines = self._process.lines
        assert not lines or lines[-1].isdecimal(), f"the honest clients: {lines[-1]}"
        return len(lines)

    @property
    def trips_us(self) -> list[int]:
        """Microseconds of every round trip so far."""
        return [int(line) for line in self._process.lines[: self.trips]]

    def wait(self, trips: int) -> None:
        """Wait until so many more round trips are made."""
        goal = self.trips + trips
        eventually(lambda: self.trips >= goal, "the honest clients", SERVICE_PATIENCE_S)

    def end(self) -> None:
        """The pair compares what was acknowledged with what came, and goes."""
        self._process.write_line("end")
        self._process.wait_line("^kept$")
        assert self._process.wait() == 0

    def kill(self) -> None:
        if self._process.is_running:
            self._process.kill9()


class ServerLook:
    """What the kernel says of the server process."""

    def __init__(self, pid: int) -> None:
        self._folder = Path(f"/proc/{pid}")

    @property
    def memory_bytes(self) -> int:
        return self._status("VmRSS")

    @property
    def peak_bytes(self) -> int:
        """The most memory since ``forget_peak``."""
        return self._status("VmHWM")

    def forget_peak(self) -> None:
        (self._folder / "clear_refs").write_text("5")

    @property
    def open_files(self) -> int:
        return len(list((self._folder / "fd").iterdir()))

    def _status(self, key: str) -> int:
        text = (self._folder / "status").read_text()
        found = re.search(rf"^{key}:\s+(\d+) kB$", text, re.MULTILINE)
        assert found is not None, text
        return int(found[1]) * 1024


@dataclass
class Scene:
    """What an attack gets: whom to attack, how large it is to be, and where to note what came."""

    broker: BrokerProcess
    honest: Honest
    server: ServerLook
    size: int
    is_full: bool
    chance: random.Random
    stack: ExitStack
    noted: Counter[str] = field(default_factory=Counter)

    def dial(self) -> Wire:
        """A connection that is closed when the attack is over."""
        return self.stack.enter_context(Wire(self.broker.port))

    @contextmanager
    def dialled(self) -> Iterator[Wire]:
        with Wire(self.broker.port) as wire:
            yield wire

    def note(self, what: str, count: int = 1) -> None:
        """Count an outcome, for the table."""
        self.noted[what] += count

    def serve_on(self) -> None:
        """The attack stands as it is: the honest clients are to be served all the same."""
        self.honest.wait(FULL_TRIPS if self.is_full else SMALL_TRIPS)

    def trips_from_here(self) -> Callable[[], bool]:
        """Tells whether the honest pair has made its round trips since this call.

        What has no end of its own goes on until then.
        """
        wanted = self.honest.trips + (FULL_TRIPS if self.is_full else SMALL_TRIPS)
        enough = self.honest.trips + SMALL_TRIPS
        until_s = time.monotonic() + FULL_S

        def is_over() -> bool:
            trips = self.honest.trips
            return trips >= wanted or (trips >= enough and time.monotonic() > until_s)

        return is_over

    def until_gone(self, files: int) -> None:
        """Wait until the server has no more open files than this."""
        eventually(lambda: self.server.open_files <= files, "the server closes its sockets")


@dataclass(frozen=True)
class Attack:
    """One attack in its two sizes.

    ``memory_bytes``: what the server may need above what it had, for a size. ``log_lines``: the
    most that the attack may make it write in 10 seconds. ``settings`` of the broker, and its
    ``tables``, made in a folder; ``small_settings`` come on top where only the small one could not
    wait. ``login`` of the honest clients.
    """

    name: str
    title: str
    run: Callable[[Scene], None]
    small: int
    full: int
    memory_bytes: Callable[[int], int]
    log_lines: int = 500
    settings: Mapping[str, str | int | float] = field(default_factory=dict)
    tables: Callable[[Path], str] | None = None
    login: tuple[str, str] | None = None
    small_settings: Mapping[str, str | int | float] = field(default_factory=dict)

    @property
    def stage(self) -> str:
        """The same for attacks that can be played one after another on one small stage."""
        return f"{self.tables} {self.settings} {self.small_settings}"


@dataclass(frozen=True)
class Result:
    """What was measured of one attack. Times in microseconds, memory in bytes."""

    attack: Attack
    size: int
    before_us: list[int]
    during_us: list[int]
    memory_bytes: int
    bound_bytes: int
    log_lines: int
    took_s: float
    noted: Counter[str]

    def check(self) -> None:
        """Hold the attack to its bounds."""
        used = f"{self.memory_bytes / MIB:.1f} MiB, the bound is {self.bound_bytes / MIB:.1f}"
        assert self.memory_bytes <= self.bound_bytes, f"{self.attack.name} took {used}"
        intervals = int(self.took_s / LOG_INTERVAL_S) + 2
        lines = f"{self.log_lines} lines, the bound is {intervals} times {self.attack.log_lines}"
        assert self.log_lines <= intervals * self.attack.log_lines, f"{self.attack.name}: {lines}"
        assert self.during_us, "no honest message went round while the attack went on"


def percentile(values: list[int], share: float) -> int:
    """The value below which this share of all lies."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


class Stage:
    """A broker with the settings of an attack, and an honest pair at it; for one attack or more."""

    def __init__(self, attack: Attack, folder: Path, *, is_full: bool) -> None:
        settings = {**attack.settings, **({} if is_full else attack.small_settings)}
        toml = "" if attack.tables is None else attack.tables(folder)
        self._is_full = is_full
        self._broker = BrokerProcess(folder / "data", settings=settings, toml=toml)
        self._login = attack.login
        self._keepers = ExitStack()

    def __enter__(self) -> Self:
        self._keepers.enter_context(self._broker)
        self._server = ServerLook(self._broker.process.pid)
        self._honest = Honest(self._broker.port, self._login)
        self._keepers.callback(self._honest.kill)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._keepers:
            if kind is None:
                self._honest.end()

    def play(self, attack: Attack, *, seed: int) -> Result:
        """Carry the attack out, and measure what it does."""
        broker, honest, server = self._broker, self._honest, self._server
        size = attack.full if self._is_full else attack.small
        first = honest.trips
        honest.wait(FULL_TRIPS if self._is_full else CALM_TRIPS)
        before = honest.trips
        from_s = time.monotonic()
        memory_bytes, log_lines = server.memory_bytes, len(broker.log_lines)
        server.forget_peak()
        with ExitStack() as stack:
            chance = random.Random(seed)
            scene = Scene(broker, honest, server, size, self._is_full, chance, stack)
            attack.run(scene)
            during = honest.trips_us[before:]
        result = Result(
            attack,
            size,
            honest.trips_us[first:before],
            during,
            max(server.peak_bytes - memory_bytes, 0),
            attack.memory_bytes(size),
            len(broker.log_lines) - log_lines,
            time.monotonic() - from_s,
            scene.noted,
        )
        honest.wait(1)  # the attack is over, and whoever stayed is served still
        return result
