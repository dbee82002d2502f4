"""A child process whose output can be waited for, line by line."""

import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

PATIENCE_S: Final = 30.0  # an upper bound only: every wait ends with the event it waits for
_POLL_S: Final = 0.01  # how often ``eventually`` looks where nothing can notify it


def required(command: str, package: str) -> str:
    """The path of a command that a test cannot do without; a missing one fails the test."""
    path = shutil.which(command)
    if path is None:
        raise AssertionError(f"{command} is missing: run `make test`, it installs {package}")
    return path


def python_path() -> str:
    """``PYTHONPATH`` for a child in another working folder: what is relative is so from here."""
    return os.pathsep.join(
        os.path.abspath(path) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path
    )


def eventually(is_so: Callable[[], bool], what: str, timeout_s: float = PATIENCE_S) -> None:
    """Wait for something that can only be looked at, such as /proc."""
    deadline_s = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline_s, f"still not so after {timeout_s} s: {what}"
        threading.Event().wait(_POLL_S)


class Process:
    """A running command. Standard output and error are one stream of lines."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        # The variables of our own settings could be set where the tests run.
        ours = "HOLDFAST_"
        environment = {key: v for key, v in os.environ.items() if not key.startswith(ours)}
        self._popen = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            text=True,
            encoding="utf-8",
            errors="backslashreplace",
            bufsize=1,
        )
        self._lines: list[str] = []
        self._is_complete = False
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._popen.stdout is not None
        for line in self._popen.stdout:
            with self._changed:
                self._lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._is_complete = True
            self._changed.notify_all()

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def is_running(self) -> bool:
        return self._popen.poll() is None

    @property
    def lines(self) -> list[str]:
        """The lines so far."""
        with self._changed:
            return list(self._lines)

    def wait_line(self, pattern: str, first: int = 0) -> tuple[int, re.Match[str]]:
        """Wait for a line that matches, from number ``first`` on: its number and the match."""
        number, deadline_s = first, time.monotonic() + PATIENCE_S
        with self._changed:
            while True:
                while number < len(self._lines):
                    if match := re.search(pattern, self._lines[number]):
                        return number, match
                    number += 1
                left_s = deadline_s - time.monotonic()
                if self._is_complete or left_s <= 0:
                    why = "ended" if self._is_complete else f"said nothing for {PATIENCE_S} s"
                    text = "\n".join(self._lines)
                    raise AssertionError(f"{self._command[0]} {why}, no {pattern!r} in:\n{text}")
                self._changed.wait(left_s)

    def write_line(self, text: str) -> None:
        assert self._popen.stdin is not None
        self._popen.stdin.write(text + "\n")
        self._popen.stdin.flush()

    def close_input(self) -> None:
        assert self._popen.stdin is not None
        self._popen.stdin.close()

    def wait(self) -> int:
        """Wait until it has ended by itself and said its last line; its exit code."""
        code = self._popen.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        for stream in (self._popen.stdin, self._popen.stdout):
            assert stream is not None
            stream.close()
        return code

    def send_signal(self, number: int) -> None:
        self._popen.send_signal(number)

    def kill9(self) -> int:
        """End it as a crash does: it gets no chance to write or say anything."""
        self._popen.send_signal(signal.SIGKILL)
        return self.wait()
