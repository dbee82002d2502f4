"""The `holdfast` command, run to its end as a user runs it."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

PATIENCE_S: Final = 60


def holdfast(
    *arguments: str, folder: Path, variables: Mapping[str, str] | None = None, given: str = ""
) -> "subprocess.CompletedProcess[str]":
    """Run the installed command to its end, in a folder of its own; ``given`` is its input."""
    command = Path(sys.executable).parent / "holdfast"
    assert command.exists(), f"{command} is missing: `make setup` builds it"
    own = {key: value for key, value in os.environ.items() if not key.startswith("HOLDFAST_")}
    return subprocess.run(
        [str(command), *arguments],
        cwd=folder,
        env=own | {"COLUMNS": "200", "NO_COLOR": "1", **(variables or {})},
        input=given,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def assert_one_line(done: "subprocess.CompletedProcess[str]", code: int, pattern: str) -> None:
    """It failed with this code, and with one line of explanation as its last words."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    lines = done.stderr.splitlines()
    assert [line for line in lines if line.startswith("holdfast: ")] == lines[-1:], done.stderr
    assert re.search(pattern, lines[-1]), done.stderr
