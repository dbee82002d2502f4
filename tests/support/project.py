"""A project of a user who tests with pytest, in a folder of its own."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path
from textwrap import dedent
from typing import Final

from tests.support.process import PATIENCE_S, python_path

PLUG_IN: Final = "holdfast.pytest_plugin"
_OTHERS: Final = ("anyio", "asyncio", "hypothesispytest", "timeout", "xdist")
_COUNT: Final = re.compile(r"(\d+) (passed|failed|error|warning)")


class UserProject:
    """Files, and runs of pytest on them in processes of their own; ``arguments`` go with each.

    Of the plug-ins that are installed beside Holdfast's, it has those named in ``plug_ins``.
    """

    def __init__(
        self, folder: Path, *, plug_ins: Sequence[str] = (), arguments: Sequence[str] = ()
    ) -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True)
        self._arguments = ["-p", "no:cacheprovider", *arguments]
        for name in _OTHERS:
            if name not in plug_ins:
                self._arguments += ["-p", f"no:{name}"]
        if PLUG_IN not in [entry.value for entry in entry_points(group="pytest11")]:
            # What is tested is not what is installed, but src by PYTHONPATH.
            self._arguments += ["-p", PLUG_IN]

    def write(self, name: str, text: str) -> None:
        """Write a file; the indentation that all of its lines have goes."""
        (self._folder / name).write_text(dedent(text), encoding="utf-8")

    def run(self, *arguments: str) -> dict[str, int]:
        """Run pytest; how many tests passed, failed, and so on."""
        command = [sys.executable, "-m", "pytest", *self._arguments, *arguments]
        done = subprocess.run(
            command,
            cwd=self._folder,
            env=os.environ | {"PYTHONPATH": python_path(), "NO_COLOR": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        print(done.stdout, done.stderr)
        return {word: int(count) for count, word in _COUNT.findall(done.stdout.splitlines()[-1])}
