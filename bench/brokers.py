"""Starting and stopping the processes: Holdfast, Mosquitto, the ceiling's peer, the generator."""

import json
import os
import re
import select
import shutil
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Final

from bench.flow import HOST
from bench.machine import on_core

ROOT: Final = Path(__file__).resolve().parent.parent
READY_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 60.0
READY: Final = re.compile(r"ready on [^ ]*:(\d+)")
READY_JSON: Final = re.compile(r'"event": ?"ready".*?:(\d+)"')
LOG_TAIL_CHARS: Final = 400

# Nothing durable, nothing dropped, no limits that the closed loops would run into. Nagle's
# algorithm stays on, which is Mosquitto's default: with set_tcp_nodelay it does two thirds of the
# messages or fewer, because it writes each packet by itself.
MOSQUITTO_CONFIG: Final = """\
listener {port} {host}
allow_anonymous true
user root
persistence false
max_connections -1
max_inflight_messages 0
max_queued_messages 0
max_queued_bytes 0
set_tcp_nodelay {nodelay}
sys_interval 0
log_type error
log_type warning
"""


class Unavailable(Exception):
    """A broker that cannot be measured here, and what to do about it."""


class Broker(ABC):
    """A broker in its own process on the broker's core, with its data below ``folder``."""

    name: str

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = 0
        self.log = folder / "broker.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the running broker."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> float:
        """Start on the data that is there, and give the seconds until it was ready."""
        assert self._process is None
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log.unlink(missing_ok=True)
        begin = time.monotonic()
        command = self.command()
        with on_core(0), self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        try:
            while not self.is_ready():
                if self._process.poll() is not None:
                    raise Unavailable(f"{self.name} ended at once: {self.log_tail()}")
                if time.monotonic() - begin > READY_TIMEOUT_S:
                    raise Unavailable(f"{self.name} is not ready in time: {self.log_tail()}")
                time.sleep(0.005)
        except BaseException:
            self.stop()
            raise
        return time.monotonic() - begin

    def stop(self) -> None:
        """End it, with its own shutdown if it manages that in time."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def log_tail(self) -> str:
        """The last the broker said, on one line."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return " ".join(text.split())[-LOG_TAIL_CHARS:] or "it said nothing"

    @abstractmethod
    def command(self) -> list[str]:
        """What to run; raises Unavailable if it is not installed."""

    def is_ready(self) -> bool:
        """Whether the log names the port it listens on."""
        text = self.log.read_text(errors="replace")
        if found := READY.search(text) or READY_JSON.search(text):
            self.port = int(found[1])
        return self.port != 0


class Holdfast(Broker):
    """Holdfast as it is delivered: fsync on, no configuration."""

    name = "holdfast"

    def __init__(self, folder: Path, program: Path, options: list[str]) -> None:
        super().__init__(folder)
        self._program = program
        self._options = options

    def command(self) -> list[str]:
        self.port = 0
        if not self._program.exists():
            raise Unavailable(f"{self._program.name} is not installed: run make setup")
        return [
            str(self._program),
            "serve",
            "--listen",
            f"{HOST}:0",
            "--data-dir",
            str(self.folder / "data"),
            *self._options,
        ]


class Mosquitto(Broker):
    """Mosquitto with nothing durable, which is the fastest it can be."""

    name = "mosquitto"

    def __init__(self, folder: Path, *, nodelay: bool) -> None:
        super().__init__(folder)
        self._nodelay = nodelay

    def command(self) -> list[str]:
        program = mosquitto_program()
        if program is None:
            raise Unavailable("mosquitto is not installed: apt-get install mosquitto")
        with socket.create_server((HOST, 0)) as free:
            self.port = free.getsockname()[1]
        config = self.folder / "mosquitto.conf"
        config.write_text(
            MOSQUITTO_CONFIG.format(
                port=self.port, host=HOST, nodelay="true" if self._nodelay else "false"
            )
        )
        return [program, "-c", str(config)]

    def is_ready(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((HOST, self.port)) == 0


class PeerBroker(Broker):
    """The ceiling: no broker at all, see ``bench.peer``."""

    name = "ceiling"

    def command(self) -> list[str]:
        self.port = 0
        return [sys.executable, "-m", "bench.peer"]


class GeneratorFailed(Exception):
    """An order to the load generator, or to another helping process, that failed; its reason."""


class OrderedProcess:
    """A Python process of the benchmark that obeys lines of JSON, on a core of its own."""

    def __init__(self, arguments: list[str], *, core: int, name: str) -> None:
        self.name = name
        with on_core(core):
            self._process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        self._unread = b""

    def fileno(self) -> int:
        """What becomes readable with an answer."""
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def ask(self, order: dict[str, object], *, timeout_s: float) -> object:
        """Give an order and wait for what came of it; raises GeneratorFailed with the reason."""
        self.tell(order)
        return self.answer(timeout_s=timeout_s)

    def tell(self, order: dict[str, object]) -> None:
        """Give an order, whose answer is fetched later."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise GeneratorFailed(f"{self.name} ended") from error

    def answer(self, *, timeout_s: float) -> object:
        """The next answer; raises GeneratorFailed with the reason of a failure."""
        answer = json.loads(self._line(timeout_s))
        if "error" in answer:
            raise GeneratorFailed(answer["error"])
        return answer["ok"]

    def stop(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            pass  # An order that it did not live to read.

    def _line(self, timeout_s: float) -> bytes:
        fd, deadline = self.fileno(), time.monotonic() + timeout_s
        while b"\n" not in self._unread:
            readable, _, _ = select.select([fd], [], [], max(0.0, deadline - time.monotonic()))
            if not readable:
                raise GeneratorFailed(f"no answer from {self.name} in time")
            block = os.read(fd, 1 << 20)
            if not block:
                raise GeneratorFailed(f"{self.name} ended")
            self._unread += block
        line, _, self._unread = self._unread.partition(b"\n")
        return line


def answers(*processes: OrderedProcess, timeout_s: float) -> list[object]:
    """The one answer that each of them owes; raises GeneratorFailed with the first failure."""
    found: dict[OrderedProcess, object] = {}
    deadline = time.monotonic() + timeout_s
    while waiting := [process for process in processes if process not in found]:
        readable, _, _ = select.select(waiting, [], [], max(0.0, deadline - time.monotonic()))
        for process in readable or waiting[:1]:
            found[process] = process.answer(timeout_s=max(0.0, deadline - time.monotonic()))
    return [found[process] for process in processes]


class GeneratorProcess(OrderedProcess):
    """The load generator in its own process, on its own core."""

    def __init__(self) -> None:
        super().__init__(["-m", "bench.loadgen"], core=1, name="the load generator")

    def order(self, do: str, broker: Broker, *, timeout_s: float = 120.0, **rest: object) -> object:
        """Have it do something against ``broker``; raises GeneratorFailed with the reason."""
        order = {"do": do, "port": broker.port, "broker_pid": broker.pid, **rest}
        return self.ask(order, timeout_s=timeout_s)


def mosquitto_program() -> str | None:
    """Where Mosquitto is; Debian puts it where only root's path looks."""
    return shutil.which("mosquitto") or shutil.which("/usr/sbin/mosquitto")


def mosquitto_version() -> str:
    """As it gives it itself."""
    program = mosquitto_program()
    if program is None:
        return "not installed"
    told = subprocess.run([program, "-h"], capture_output=True, text=True, check=False).stdout
    return told.splitlines()[0].removeprefix("mosquitto version ") if told else "unknown"


def holdfast_version(program: Path) -> str:
    """As it gives it itself."""
    if not program.exists():
        return "not installed"
    told = subprocess.run(
        [str(program), "--version"], capture_output=True, text=True, check=False, timeout=30
    )
    return told.stdout.strip() or "unknown"
