"""The real broker, as a process of its own that a test starts, kills and starts again."""

import os
import re
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self

from tests.support.process import Process

# For trying the tests themselves on another broker: a command that takes the same arguments and
# prints the same ready line. The project's own test runs leave it unset.
_COMMAND_VARIABLE: Final = "HOLDFAST_TEST_COMMAND"
_READY: Final = r"(?:ready on |\"listen\": ).+"
_PORT: Final = r"127\.0\.0\.1:(\d+)"


class NewBroker(Protocol):
    """Starts a broker that belongs to one test; see the fixture ``new_broker``."""

    def __call__(
        self,
        folder: str = "data",
        *,
        store: str | None = None,
        settings: Mapping[str, str | int | float] | None = None,
        toml: str = "",
    ) -> "BrokerProcess": ...


def holdfast_command() -> str:
    """The command of the environment that runs the tests; a missing one fails the test."""
    if replacement := os.environ.get(_COMMAND_VARIABLE):
        return replacement
    command = Path(sys.executable).parent / "holdfast"
    if not command.exists():
        raise AssertionError(f"{command} is missing: run `make setup`, it builds the broker")
    return str(command)


def _toml(value: str | int | float) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


class BrokerProcess:
    """One data folder and the server process that serves it, on one port for its whole life.

    In a ``with`` statement it starts the server, and in the end stops it and expects it to go
    cleanly. ``settings`` go through a configuration file, and so does ``toml``, its tables;
    ``ports`` are those of all listeners, in their order.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        store: str | None = None,
        settings: Mapping[str, str | int | float] | None = None,
        toml: str = "",
        port: int = 0,
    ) -> None:
        self.data_dir = data_dir
        self.port = port
        self.ports: list[int] = []
        self._arguments: list[str] = []
        if store is not None:
            self._arguments += ["--store", store]
        if settings is not None or toml != "":
            path = data_dir.parent / f"{data_dir.name}.toml"
            lines = [f"{key} = {_toml(value)}\n" for key, value in (settings or {}).items()]
            path.write_text("".join(lines) + toml)
            self._arguments += ["--config", str(path)]
        self._runs: list[Process] = []
        self._has_served = False
        self._reservation: socket.socket | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if self.is_running and kind is None:
                code = self.terminate()
                assert code == 0, f"a clean stop has exit code 0, not {code}\n{self.log}"
        finally:
            if self.is_running:
                self.kill9()
            if self._reservation is not None:
                self._reservation.close()
            print(f"--- log of the broker on port {self.port}\n{self.log}\n---")
        assert "Traceback" not in self.log, self.log

    @property
    def process(self) -> Process:
        """The server as it runs now, or ran last."""
        return self._runs[-1]

    @property
    def is_running(self) -> bool:
        return bool(self._runs) and self.process.is_running

    @property
    def log_lines(self) -> list[str]:
        """All that the server has said so far, over all its starts."""
        return [line for run in self._runs for line in run.lines]

    @property
    def log(self) -> str:
        return "\n".join(self.log_lines)

    def start(self) -> Self:
        """Start the server, and return when it has said that it is ready."""
        self.spawn()
        _, ready = self.process.wait_line(_READY)
        self.ports = [int(port) for port in re.findall(_PORT, ready[0])]
        port = self.ports[0]
        assert self.port in (0, port), f"asked for port {self.port}, got {port}"
        self.port, self._has_served = port, True
        return self

    def command(self) -> list[str]:
        """What runs ``holdfast``, to which the arguments are added."""
        return [holdfast_command()]

    def spawn(self) -> None:
        """Start the server, without waiting for what comes of it."""
        assert not self.is_running, "the server is running already"
        listen, data_dir = f"127.0.0.1:{self.port}", str(self.data_dir)
        self._runs.append(
            Process(
                [
                    *(*self.command(), "serve"),
                    *("--listen", listen, "--data-dir", data_dir),
                    *self._arguments,
                ]
            )
        )

    def wait(self) -> int:
        """Wait until the server has ended by itself; its exit code."""
        code = self.process.wait()
        self._reserve_port()
        return code

    def terminate(self, signal_number: int = signal.SIGTERM) -> int:
        """Ask the server to stop; its exit code."""
        self.process.send_signal(signal_number)
        return self.wait()

    def kill9(self) -> None:
        """Crash the server."""
        self.process.kill9()
        self._reserve_port()

    def restart(self) -> Self:
        """Crash the server, if it still runs, and start it on the same folder and port."""
        if self.is_running:
            self.kill9()
        return self.start()

    def _reserve_port(self) -> None:
        """Keep the port for the next start: bound, so that no outgoing connection is given it.

        It never listens, so connecting still fails, and the server may bind beside it.
        """
        if self._reservation is None and self._has_served:
            self._reservation = socket.socket()
            self._reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._reservation.bind(("127.0.0.1", self.port))

    def open_files(self) -> int:
        """How many file descriptors the server has open."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))
