"""Run the client's simulator: ``python -m tests.client.sim --seeds 1000``, or ``--seed 7`` again.

A life that breaks a promise prints its seed, what was broken, and the end of its trace; all of the
trace goes into a file. The same seed does the same again.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Final

from tests.client.sim.simulation import run
from tests.sim.report import report

FOLDER: Final = Path("build/client-sim")
# Interpreted, because only then are there lives with few packet identifiers.
AGAIN: Final = "PYTHONPATH=src python -m tests.client.sim --seed {}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.client.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="this one alone, with its trace in a file")
    parser.add_argument("--failures", type=int, default=1, help="go on until so many have failed")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where traces go")
    parser.add_argument("--brief", action="store_true", help="one line per failure, no trace")
    options = parser.parse_args()
    if options.seed is not None:
        result = run(options.seed, is_traced=True)
        print(report(result, options.folder, AGAIN))
        return 0 if result.violation is None else 1
    return run_all(options)


def run_all(options: argparse.Namespace) -> int:
    started_s = time.monotonic()
    events = failures = done = 0
    for seed in range(options.first, options.first + options.seeds):
        result = run(seed)
        events += result.events
        done += 1
        if result.violation is None:
            continue
        failures += 1
        if options.brief:
            print(f"seed {result.seed}: {result.violation}", flush=True)
        else:
            again = run(seed, is_traced=True)
            assert again.fingerprint == result.fingerprint, "the same seed did not do the same"
            print(report(again, options.folder, AGAIN), flush=True)
        if failures >= options.failures:
            break
    took_s = time.monotonic() - started_s
    print(
        f"{done} seeds in {took_s:.1f} s: {failures} failed;"
        f" {60 * done / took_s:.0f} seeds a minute, {events / took_s:.0f} packets a second"
    )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
