"""Fuzz the framer, the decoder, stored records, the pure broker and client: ``make fuzz``.

``python -m tests.fuzz replay TARGET HEX`` tries one input again, and shrinks it if it fails.
"""

import argparse
import dataclasses
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Final

from tests.fuzz.job import Job, Result, run

REPOSITORY: Final = Path(__file__).parent.parent.parent
JOB_TIMEOUT_S: Final = 3 * 3600

# Thousandths of all inputs. The broker's take some 40 times as long as the others.
SHARES: Final = (
    ("guided", "broker", 30),
    ("random", "broker", 90),
    ("guided", "client", 20),
    ("random", "client", 60),
    ("hypothesis", "sequences", 10),
    ("random", "soak", 15),
    ("guided", "frames", 130),
    ("guided", "decode", 150),
    ("guided", "records", 95),
    ("random", "frames", 160),
    ("random", "decode", 130),
    ("random", "records", 110),
)
INPUTS_MIN: Final = 100  # of a job


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    whole = actions.add_parser("run")
    whole.add_argument("--inputs", type=int, default=1_000_000)
    whole.add_argument("--seed", default="1")
    whole.add_argument("--jobs", type=int, default=min(4, os.cpu_count() or 1))
    one = actions.add_parser("job")
    for name in ("mode", "target", "inputs", "seed"):
        one.add_argument(name)
    again = actions.add_parser("replay")
    again.add_argument("target")
    again.add_argument("hex")
    options = parser.parse_args()
    if options.action == "job":
        run(Job(options.mode, options.target, int(options.inputs), options.seed))
    if options.action == "replay":
        return replay(options.target, options.hex)
    return run_all(options.inputs, options.seed, options.jobs)


def replay(name: str, text: str) -> int:
    """Try one input, given in hex or as the path of a file with it."""
    from tests.fuzz.shrink import shrunk
    from tests.fuzz.targets import TARGETS

    target = TARGETS[name]
    data = bytes.fromhex(text)
    try:
        target(data)
    except Exception:
        shorter = shrunk(target, data)
        print(f"it fails; the shortest input that fails in this way: {shorter.hex()}", flush=True)
        target(shorter)
        return 1
    print("it passes")
    return 0


def run_all(inputs: int, seed: str, workers: int) -> int:
    """Run all jobs, print a line for each and the finds: 1 if there are any."""
    has_atheris = importlib.util.find_spec("atheris") is not None
    if not has_atheris:
        print("no atheris for this Python: what it would do is done by random inputs instead")
    jobs = list(planned(inputs, seed, has_atheris))
    total = sum(job.inputs for job in jobs)
    print(f"{total} inputs, seed {seed}, {workers} at a time")
    print(f"{'':10} {'':10} {'inputs':>8} {'seconds':>8}  {'RSS MiB':>15} {'blocks':>8}")
    started = time.monotonic()
    finds: list[tuple[Job, Result]] = []
    tried = 0
    folder = tempfile.mkdtemp(prefix="holdfast-fuzz-")
    try:
        with ThreadPoolExecutor(workers) as pool:
            futures = {pool.submit(carried_out, job, folder): job for job in jobs}
            for future in as_completed(futures):
                result = future.result()
                tried += result.inputs
                print(line(result), flush=True)
                if result.find:
                    finds.append((futures[future], result))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for job, result in finds:
        print(described(job, result))
    seconds = time.monotonic() - started
    print(f"{tried} inputs in {seconds:.0f} s: {len(finds) or 'no'} finds")
    return 1 if finds or tried < total else 0


def planned(inputs: int, seed: str, has_atheris: bool) -> Iterator[Job]:
    """The jobs, the longest first."""
    for mode, target, share in SHARES:
        used = mode if has_atheris or mode != "guided" else "random"
        # Other inputs than those of the random job of the same target.
        own_seed = seed if used == mode else f"{seed} again"
        yield Job(used, target, max(INPUTS_MIN, -(-inputs * share // 1000)), own_seed)


def carried_out(job: Job, folder: str) -> Result:
    """The result of a job, from a process of its own."""
    environment = dict(os.environ, PYTHONHASHSEED="0", TMPDIR=folder)
    environment.pop("PYTHONPATH", None)
    if job.mode == "guided":
        environment["PYTHONPATH"] = "src"  # only interpreted code can be instrumented
    command = [sys.executable, "-m", "tests.fuzz", "job"]
    command += [job.mode, job.target, str(job.inputs), job.seed]
    done = subprocess.run(
        command,
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=JOB_TIMEOUT_S,
        check=False,
    )
    for text in reversed(done.stdout.splitlines()):
        if text.startswith("{"):
            return Result(**json.loads(text))
    end = "\n".join((done.stdout + done.stderr).splitlines()[-40:])
    find = f"the process ended with {done.returncode}\n{end}"
    return Result(job.mode, job.target, 0, 0.0, 0, 0, 0, False, find)


def line(result: Result) -> str:
    rss = f"{result.rss_start_bytes / 2**20:.1f} -> {result.rss_end_bytes / 2**20:.1f}"
    how = "compiled" if result.is_compiled else "interpreted"
    return (
        f"{result.target:10} {result.mode:10} {result.inputs:8} {result.seconds:8.1f}"
        f"  {rss:>15} {result.blocks_grown:+8}  {how}{'  FIND' if result.find else ''}"
    )


def described(job: Job, result: Result) -> str:
    """A find, with what tries it again."""
    lines = ["", f"== {job.mode} {job.target}, seed {job.seed}, input {result.inputs}", result.find]
    source = "" if result.is_compiled else "PYTHONPATH=src "
    if result.hex:
        lines.append(f"input: {result.hex}")
        lines.append(f"again: {source}{sys.executable} -m tests.fuzz replay {job.target} INPUT")
    else:
        arguments = " ".join(str(value) for value in dataclasses.astuple(job)[:3])
        again = f"{source}{sys.executable} -m tests.fuzz job {arguments} {job.seed!r}"
        lines.append(f"again: {again}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
