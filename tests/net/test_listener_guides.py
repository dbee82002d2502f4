"""The guides of TLS and listeners, typed through as a new user would."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.support.broker import holdfast_command
from tests.support.process import Process

GUIDES: Final = Path(__file__).parent.parent.parent / "docs" / "guides"
BLOCK: Final = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PORT: Final = "8883"
PATH: Final = "PYTHONPATH"
PATIENCE_S: Final = 60


class Desk:
    """A working folder, and the broker that the guide has started in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.broker: Process | None = None
        self.port = ""
        self.terminal = folder

    def write(self, toml: str) -> None:
        """Save the configuration, on free ports; a broker that runs is started again."""
        text = re.sub(r'(address = "[^"]*:)\d+"', r'\g<1>0"', toml)
        self.folder.joinpath("holdfast.toml").write_text(text)
        if self.broker is not None:
            self.stop()
            self.start()

    def start(self) -> str:
        """Start the broker; its ready line."""
        serve = f"exec '{holdfast_command()}' serve --config holdfast.toml"
        # What is relative in it is so from here, not from the folder.
        path = ":".join(str(Path(one).resolve()) for one in os.environ.get(PATH, "").split(":"))
        keep = f"export {PATH}='{path}'; " if PATH in os.environ else ""
        self.broker = Process(["bash", "-c", f"{keep}cd '{self.folder}' && {serve}"])
        _, ready = self.broker.wait_line(r"ready on \S*?:?(\d*)[ ,;]")
        self.port = ready[1]
        return ready.string

    def stop(self) -> None:
        assert self.broker is not None
        self.broker.send_signal(signal.SIGTERM)
        assert self.broker.wait() == 0, self.broker.lines
        assert "Traceback" not in "\n".join(self.broker.lines)
        self.broker = None

    def type(self, text: str) -> str:
        """Run commands of the guide, in the folder where the last ones ended; what they print."""
        where = self.folder / ".where"
        commands = f"{text.replace(PORT, self.port)}\npwd > '{where}'"
        done = self.run(["bash", "-euo", "pipefail", "-c", commands], self.terminal)
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
        self.terminal = Path(where.read_text().strip())
        return done.stdout

    def run(self, command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    def run_python(self, text: str) -> None:
        """Run a program of the guide until its client is connected."""
        wait = "while not client.is_connected():\n    assert client.loop(5) == 0\n"
        done = self.run(
            [sys.executable, "-c", f"{text.replace(PORT, self.port)}\n{wait}"], self.folder
        )
        assert done.returncode == 0, done.stderr


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    try:
        yield made
    finally:
        if made.broker is not None:
            print("\n".join(made.broker.lines))
            made.stop()


def blocks(guide: str) -> list[tuple[str, str]]:
    """The language and text of each block."""
    return BLOCK.findall((GUIDES / guide).read_text(encoding="utf-8"))


def test_the_guide_of_tls(desk: Desk) -> None:
    program, publish, printed, said = "", "", "", ""
    for language, text in blocks("tls.md"):
        if language == "toml":
            desk.write(text)
        elif language == "python" and "asyncio" in text:
            done = desk.run([sys.executable, "-c", text.replace(PORT, desk.port)], desk.folder)
            assert done.returncode == 0, done.stderr
            said = done.stdout
        elif language == "text" and said:
            assert said == text
            said = ""
        elif language == "python":
            # The second block is the line that changes in the first.
            program = text if program == "" else re.sub(r"client\.tls_set\(.*\)\n", text, program)
            desk.run_python(program)
        elif language == "sh" and text.startswith("holdfast serve"):
            assert re.search(r"ready on 127\.0\.0\.1:\d+ \(tls\);", desk.start())
        elif language == "sh" and text.startswith("kill -HUP"):
            assert desk.broker is not None
            first = len(desk.broker.lines)
            desk.broker.send_signal(signal.SIGHUP)
            desk.broker.wait_line("certificates of secure: read anew", first)
        elif language == "sh":
            first = 0 if desk.broker is None else len(desk.broker.lines)
            printed += desk.type(text)
            publish = text if "meter-7.key" in text and "mosquitto_pub" in text else publish
            if "-revoke" in text:
                assert desk.broker is not None
                desk.broker.wait_line("certificates of secure: read anew", first)
                # The very command that worked before.
                with pytest.raises(AssertionError, match="mosquitto_pub"):
                    desk.type(publish)
    assert "hello\n" in printed
    assert publish != ""


def test_the_guide_of_listeners(desk: Desk) -> None:
    """Each of its configurations starts, and its commands work with the one before them."""
    for language, text in blocks("listeners.md"):
        if language == "toml":
            desk.write(text)
            if desk.broker is None:
                desk.start()
        elif language == "sh":
            desk.type(text)
    assert desk.broker is not None
