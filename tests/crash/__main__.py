"""``python -m tests.crash``: the storm for as long as one likes, one after another by seed.

Each storm has a new folder and all rounds in a new order. A failure prints the seed, the rounds and
the history of what was lost, and leaves the folder.
"""

import argparse
import asyncio
import io
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Final

from tests.crash.load import Broken
from tests.crash.storm import DISTURBANCES, SETTINGS, Disturb, Storm, sigstop
from tests.support.faulty import FaultyBroker

PATIENCE_S: Final = 300.0  # for one storm
DISK_BYTES: Final = 64 * 1024 * 1024
# Or it would refuse publishes on such a small disk, long before that is full.
BALLAST_BYTES: Final = 64 * 1024  # written at a time


async def real_disk_full(storm: Storm) -> None:
    """The file system itself has no room, until something else on it is removed."""
    first = len(storm.broker.process.lines)
    storm.world.note("broker", "the disk is full")
    ballast = storm.broker.data_dir.parent / "ballast"
    with ballast.open("wb") as file:
        try:
            while True:
                os.write(file.fileno(), bytes(BALLAST_BYTES))
        except OSError:
            pass
    await storm.until_failed(first)
    ballast.unlink()
    storm.world.note("broker", "there is room again")
    await storm.until_it_works(first)


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """A file system of its own for a folder, if this user may mount one."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    is_mounted = os.geteuid() == 0 and subprocess.run(command, check=False).returncode == 0
    try:
        yield is_mounted
    finally:
        if is_mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def storm(seed: int, folder: Path) -> None:
    """One storm with all its rounds, and the check at the end."""
    log = io.StringIO()
    with small_disk(folder) as is_mounted:
        rounds: dict[str, Disturb] = {**DISTURBANCES, "SIGSTOP": sigstop}
        if is_mounted:
            rounds["no room on the file system"] = real_disk_full
        try:
            with (
                redirect_stdout(log),
                FaultyBroker(
                    folder / "data", settings=SETTINGS | {"disk_free_min_bytes": 0}
                ) as broker,
            ):
                blown = Storm(broker, seed)
                names = list(rounds)
                blown.chance.shuffle(names)
                print("; ".join(names))
                asyncio.run(blown.run((rounds[name] for name in names), PATIENCE_S))
                blown.check()
        except BaseException:
            kept = Path(tempfile.mkdtemp(prefix=f"holdfast-crash-{seed}-"))
            shutil.copytree(folder, kept, dirs_exist_ok=True)
            (kept / "log").write_text(log.getvalue())
            print(f"seed {seed} failed; its data folder and log: {kept}", flush=True)
            raise
    print(f"seed {seed}: {len(names)} rounds, {blown.sent} messages", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0, help="how long to go on")
    parser.add_argument("--seed", type=int, help="repeat one storm")
    arguments = parser.parse_args()
    end_s = time.monotonic() + arguments.minutes * 60
    if os.geteuid() != 0:
        print("not root: no file system of its own can be mounted, so none gets full by itself")
    storms = 0
    is_sound = True
    while is_sound and (storms == 0 or (arguments.seed is None and time.monotonic() < end_s)):
        seed = secrets.randbelow(1 << 32) if arguments.seed is None else arguments.seed
        with tempfile.TemporaryDirectory(prefix="holdfast-crash-") as folder:
            try:
                storm(seed, Path(folder))
            except* (Broken, AssertionError) as failures:
                for failure in failures.exceptions:
                    print(failure)
                print(f"to repeat: python -m tests.crash --seed {seed}")
                is_sound = False
        storms += 1
    if not is_sound:
        return 1
    print(f"{storms} storms, nothing acknowledged was lost, nothing of QoS 2 came twice")
    return 0


if __name__ == "__main__":
    sys.exit(main())
