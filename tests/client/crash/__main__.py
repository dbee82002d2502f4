"""``python -m tests.client.crash``: every trial of the client, against each broker and version.

A failure prints the seed and the trials, and leaves the folder, with all packets.
"""

import argparse
import io
import secrets
import shutil
import sys
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path

from tests.client.crash.ordeal import BROKERS, VERSIONS, Version, go_through


def ordeal(broker: str, version: Version, seed: int) -> bool:
    folder = Path(tempfile.mkdtemp(prefix="holdfast-client-crash-"))
    log = io.StringIO()
    try:
        with redirect_stdout(log):
            line = go_through(broker, version, folder, seed, trials=1000, with_long=True)
    except AssertionError as failure:
        (folder / "log").write_text(log.getvalue())
        print(f"{broker}, {version}, seed {seed}: {failure}\nits folder: {folder}", flush=True)
        return False
    print(f"seed {seed}, {line}", flush=True)
    shutil.rmtree(folder)
    return True


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.client.crash", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0, help="how long to go on, at least")
    parser.add_argument("--seed", type=int, help="repeat one round")
    arguments = parser.parse_args()
    end_s = time.monotonic() + arguments.minutes * 60
    while True:
        seed = secrets.randbelow(1 << 32) if arguments.seed is None else arguments.seed
        for broker in BROKERS:
            for version in VERSIONS:
                if not ordeal(broker, version, seed):
                    print(f"to repeat: python -m tests.client.crash --seed {seed}")
                    return 1
        if arguments.seed is not None or time.monotonic() > end_s:
            return 0


if __name__ == "__main__":
    sys.exit(main())
