"""Run the simulator: ``python -m tests.sim --seeds 1000``, or one seed again with ``--seed 7``.

A run that breaks a promise prints its seed, what was broken, and the end of its trace; all of the
trace goes into a file. The same seed does the same again.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Final

from tests.sim.report import report
from tests.sim.simulation import Result, run

FOLDER: Final = Path("build/sim")
PROGRESS_S: Final = 2.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="this one alone, with its trace in a file")
    parser.add_argument("--failures", type=int, default=1, help="go on until so many have failed")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where traces go")
    parser.add_argument("--brief", action="store_true", help="one line per failure, no trace")
    parser.add_argument("--limits", action="store_true", help="limits in each, not in some")
    options = parser.parse_args()
    if options.seed is not None:
        return replay(options)
    return run_all(options)


def replay(options: argparse.Namespace) -> int:
    result = run(options.seed, is_traced=True, is_limited=options.limits)
    print(report(result, options.folder))
    return 0 if result.violation is None else 1


def run_all(options: argparse.Namespace) -> int:
    started_s = time.monotonic()
    told_s = started_s
    events = 0
    failures = 0
    done = 0
    for seed in range(options.first, options.first + options.seeds):
        result = run(seed, is_limited=options.limits)
        events += result.events
        done += 1
        if result.violation is not None:
            failures += 1
            _tell(result, options)
            if failures >= options.failures:
                break
        now_s = time.monotonic()
        if now_s - told_s > PROGRESS_S and sys.stderr.isatty():
            told_s = now_s
            rate = 60 * done / (now_s - started_s)
            line = f"\r{done} of {options.seeds} seeds, {rate:.0f} a minute, {failures} failed"
            print(line, end="", file=sys.stderr, flush=True)
    if told_s > started_s:
        print(file=sys.stderr)
    took_s = time.monotonic() - started_s
    print(
        f"{done} seeds in {took_s:.1f} s: {failures} failed;"
        f" {60 * done / took_s:.0f} seeds a minute, {events / took_s:.0f} packets a second"
    )
    return 1 if failures else 0


def _tell(result: Result, options: argparse.Namespace) -> None:
    if options.brief:
        print(f"seed {result.seed}: {result.violation}", flush=True)
        return
    again = run(result.seed, is_traced=True, is_limited=options.limits)
    assert again.fingerprint == result.fingerprint, "the same seed did not do the same"
    print(report(again, options.folder), flush=True)


if __name__ == "__main__":
    sys.exit(main())
