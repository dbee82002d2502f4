"""Types a guide through: writes its files, runs its commands and compares what they print."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.support.process import Process, python_path

GUIDES: Final = Path(__file__).parent.parent.parent / "docs" / "guides"
PATIENCE_S: Final = 60

_BLOCK: Final = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE: Final = re.compile(r"# (\S+)\n")
_READY: Final = r"ready on 127\.0\.0\.1:(\d+)"


class Guide:
    """One guide. Its blocks are taken by their language, in their order.

    ``toml`` and ``python`` whose first line is ``# NAME`` are the file NAME; other ``python`` is
    run, and prints what the ``text`` behind it shows. ``console`` has commands, each behind ``$ ``
    and followed by all that it prints; ``holdfast serve`` runs until the end, on a free port, to
    which the clients of Mosquitto and of holdfast are sent, and programs that name
    ``mqtt://localhost``. Without that command a broker runs from the first program on. ``log`` has
    what the broker says by then.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self._text = (GUIDES / name).read_text(encoding="utf-8")
        self._folder = folder
        self._server: Process | None = None
        self._port = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._server is not None:
            print("\n".join(self._server.lines))
            if self._server.is_running:
                self._server.kill9()

    def follow(self) -> None:
        """Do all that the guide says."""
        blocks = [(block[1], block[2]) for block in _BLOCK.finditer(self._text)]
        for (language, content), following in zip(blocks, [*blocks[1:], ("", "")], strict=True):
            if language == "python":
                self._program(content, following[1] if following[0] == "text" else "")
            elif language == "toml" and (name := _FILE.match(content)):
                (self._folder / name[1]).write_text(content, encoding="utf-8")
            elif language == "console":
                for command, expected in _commands(content):
                    self._run(command, expected)
            elif language == "log":
                assert self._server is not None
                for line in content.splitlines():
                    self._server.wait_line(re.escape(line))

    def _program(self, text: str, expected: str) -> None:
        """Write a program, and run it if it has no name."""
        if self._server is None:
            self._serve("holdfast serve")
        text = self._here(text)
        name = _FILE.match(text)
        (self._folder / (name[1] if name else "program.py")).write_text(text, encoding="utf-8")
        if name is None:
            self._run("python program.py", expected)

    def _run(self, command: str, expected: str) -> None:
        if command.startswith("holdfast serve"):
            self._serve(command)
            return
        command = self._here(command)
        if command.startswith("mosquitto_"):
            name, rest = command.split(" ", 1)
            command = f"{name} -p {self._port} {rest}"
        done = subprocess.run(
            [
                "bash",
                "-c",
                f"{command}\n:",
            ],  # or it becomes the last command, and cannot tell its end
            cwd=self._folder,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        # What an interactive shell says of it.
        printed = re.sub(
            r"^bash: line 1: +\d+ Killed .*$", "Killed", done.stdout, flags=re.MULTILINE
        )
        assert printed == expected, f"$ {command}\n{printed}"

    def _here(self, text: str) -> str:
        """A text with the broker's port, where it names the broker without one."""
        return re.sub(r"mqtt://localhost(?![:\w])", f"mqtt://localhost:{self._port}", text)

    def _serve(self, command: str) -> None:
        line = f"cd {self._folder} && exec {command} --listen 127.0.0.1:0 --data-dir data"
        self._server = Process(["env", *self._variables(), "bash", "-c", line])
        _, ready = self._server.wait_line(_READY)
        self._port = int(ready[1])

    def _environment(self) -> dict[str, str]:
        own = {key: value for key, value in os.environ.items() if not key.startswith("HOLDFAST_")}
        return own | dict(pair.split("=", 1) for pair in self._variables())

    def _variables(self) -> list[str]:
        """So that ``holdfast`` is the one that is tested."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        url = [f"HOLDFAST_URL=mqtt://localhost:{self._port}"] if self._port else []
        return [f"PATH={path}", f"PYTHONPATH={python_path()}", "COLUMNS=200", "NO_COLOR=1", *url]


def _commands(block: str) -> Iterator[tuple[str, str]]:
    """The commands of a block, each with the output that follows it."""
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        yield command, output
