"""The other broker: Mosquitto from Debian's packages, as a process of its own."""

import signal
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.support import packets
from tests.support.packets import V311
from tests.support.process import PATIENCE_S, Process, required

NO_LISTENERS: Final[Mapping[str, Sequence[str]]] = {"mqtt": ()}


class Mosquitto:
    """One folder and the server process that serves it, on ports that stay the same.

    ``listeners`` are their names and, for each, the lines of the configuration that follow its
    own; ``settings`` are lines for all. What is persistent is written when it is stopped, not when
    it is killed.
    """

    def __init__(
        self,
        folder: Path,
        *,
        listeners: Mapping[str, Sequence[str]] = NO_LISTENERS,
        settings: Sequence[str] = ("allow_anonymous true",),
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / "mosquitto.conf"
        self._reserved: list[socket.socket] = []
        self._runs: list[Process] = []
        self.ports: dict[str, int] = {}
        lines = ["user root", "log_dest stderr"]
        lines += [f"log_type {kind}" for kind in ("error", "warning", "notice", "information")]
        lines += ["persistence true", f"persistence_location {folder}/"]
        lines += ["max_queued_messages 100000", *settings]
        for name, more in listeners.items():
            self.ports[name] = self._reserve()
            lines += [f"listener {self.ports[name]} 127.0.0.1", *more]
        self.port = next(iter(self.ports.values()))
        self._file.write_text("".join(f"{line}\n" for line in lines))

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._runs[-1].is_running:
            self.kill9()
        for reserved in self._reserved:
            reserved.close()
        log = "\n".join(line for run in self._runs for line in run.lines)
        print(f"--- log of Mosquitto\n{log}\n---")

    @property
    def url(self) -> str:
        """Where its first listener is."""
        return f"mqtt://127.0.0.1:{self.port}"

    @property
    def process(self) -> Process:
        """The server as it runs now, or ran last."""
        return self._runs[-1]

    def start(self) -> Self:
        """Start it, and return when it is ready."""
        command = [required("mosquitto", "mosquitto"), "-c", str(self._file)]
        self._runs.append(Process(command))
        self.process.wait_line(r"mosquitto version .* running")
        # It says so before it is: a signal that comes now would be forgotten. So let it answer.
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE_S) as connection:
            connection.sendall(packets.connect("", V311))
            assert connection.recv(1) != b""
        return self

    def stop(self) -> None:
        """Ask it to stop; it writes down what is persistent."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait() == 0

    def kill9(self) -> None:
        """Crash it."""
        self.process.kill9()

    def _reserve(self) -> int:
        """A port that is bound and never listens: nobody else gets it, and Mosquitto may."""
        reserved = socket.socket()
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        self._reserved.append(reserved)
        port: int = reserved.getsockname()[1]
        return port
