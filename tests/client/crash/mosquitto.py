"""Debian's Mosquitto as a process of its own, whose sessions are kept while it runs."""

import socket
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.support.process import eventually, required

HOST: Final = "127.0.0.1"
CONFIG: Final = """\
listener {port} {host}
allow_anonymous true
user root
persistence true
persistence_location {folder}/
autosave_on_changes false
max_queued_messages 0
log_type error
log_type warning
"""


class MosquittoProcess:
    """See above."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def __enter__(self) -> Self:
        program = required("mosquitto", "mosquitto")
        self._folder.mkdir(parents=True)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, 0))
            self.port = probe.getsockname()[1]
            config = self._folder / "mosquitto.conf"
            config.write_text(CONFIG.format(port=self.port, host=HOST, folder=self._folder))
        log = (self._folder / "log").open("wb")
        with log:
            self._process = subprocess.Popen([program, "-c", str(config)], stdout=log, stderr=log)
        eventually(self._is_ready, "Mosquitto listens")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait()

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "log").read_text()
        with socket.socket() as probe:
            return probe.connect_ex((HOST, self.port)) == 0
