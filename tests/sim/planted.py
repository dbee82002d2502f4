"""Plant bugs into copies of the broker, one at a time, and see after how many seeds each is found.

``python -m tests.sim.planted`` prints the table of ``docs/internals/simulator.md``.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

REPOSITORY: Final = Path(__file__).parent.parent.parent
SIMULATOR: Final = "tests.sim"
SEEDS: Final = 200  # those of the suite
BUGS: Final = Path(__file__).parent / "planted.toml"
FOUND: Final = re.compile(r"^seed (\d+): ([^:]+):", re.MULTILINE)


class Bug(NamedTuple):
    """A change to the source that breaks a promise."""

    name: str
    file: str
    old: str
    new: str


def bugs(path: Path = BUGS) -> list[Bug]:
    import tomllib

    tables = tomllib.loads(path.read_text())["bug"]
    return [Bug(t["name"], t["file"], t["old"].strip("\n"), t["new"].strip("\n")) for t in tables]


def hunt(bug: Bug, seeds: int, simulator: str = SIMULATOR) -> tuple[int, str] | None:
    """The seed that finds a bug, and the check that saw it; None if no seed does."""
    with tempfile.TemporaryDirectory(prefix="holdfast-planted-") as folder:
        source = Path(folder) / "src"
        shutil.copytree(REPOSITORY / "src", source, ignore=shutil.ignore_patterns("__pycache__"))
        path = source / "holdfast" / bug.file
        text = path.read_text()
        if text.count(bug.old) != 1:
            raise ValueError(f"{bug.name}: its place in {bug.file} is there {text.count(bug.old)}x")
        path.write_text(text.replace(bug.old, bug.new))
        found = subprocess.run(
            [sys.executable, "-m", simulator, "--brief", "--seeds", str(seeds)],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
    match = FOUND.search(found.stdout)
    if match is not None:
        return int(match[1]), match[2]
    if found.returncode != 0:
        raise RuntimeError(f"{bug.name}: the simulator did not run\n{found.stderr}")
    return None


def show_found(path: Path = BUGS, simulator: str = SIMULATOR) -> int:
    """Hunt each bug of a file, and print what was found."""
    parser = argparse.ArgumentParser(prog=f"python -m {simulator}.planted")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--only", default="", help="bugs whose name contains this")
    options = parser.parse_args()
    missed = 0
    print("| bug | found after | by the check |")
    print("| --- | --- | --- |")
    for bug in bugs(path):
        if options.only not in bug.name:
            continue
        found = hunt(bug, options.seeds, simulator)
        if found is None:
            missed += 1
            print(f"| {bug.name} | **not in {options.seeds} seeds** | |", flush=True)
        else:
            count = found[0] + 1
            print(f"| {bug.name} | {count} seed{'s' * (count > 1)} | {found[1]} |", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(show_found())
