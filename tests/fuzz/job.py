"""One part of a run, in a process of its own: a target, how its inputs come about, how many."""

import dataclasses
import gc
import importlib
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

INPUT_TIMEOUT_S: Final = 20  # of one input; they take milliseconds
WARM_UP: Final = 0.4  # of the inputs; the caches are full by then

# How much may be held at the end beyond what was held after the warm-up. Python's own blocks are
# exact: one object lost in two inputs is more than this.
BLOCKS_MAX: Final = 5000
BLOCKS_PER_INPUT_MAX: Final = 0.5
# The memory of the process also has what the allocators keep, and with `guided` libFuzzer's inputs
# and features, which grow with each new path.
RSS_BYTES_MAX: Final = {"random": 16 << 20, "guided": 128 << 20, "hypothesis": 64 << 20}

INSTRUMENTED: Final = [
    "holdfast.errors",
    "holdfast.message",
    "holdfast.protocol",
    "holdfast.broker",
    "holdfast.client.connection",
    "holdfast.client.incoming",
    "holdfast.client.outgoing",
    "holdfast.client.receiving",
    "holdfast.client.sending",
    "holdfast.store.blocks",
    "holdfast.store.checked_rows",
    "holdfast.disk.checksums",
    "holdfast.store.records",
]


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """``mode`` is random, guided or hypothesis."""

    mode: str
    target: str
    inputs: int
    seed: str


@dataclasses.dataclass(slots=True)
class Result:
    """What came of a job. A find has its input in hex, or is described in ``find`` alone."""

    mode: str
    target: str
    inputs: int
    seconds: float
    rss_start_bytes: int
    rss_end_bytes: int
    blocks_grown: int
    is_compiled: bool
    find: str = ""
    hex: str = ""


class Meter:
    """Counts inputs, and measures memory after the warm-up and at the end."""

    def __init__(self, job: Job) -> None:
        self.count = 0
        self._job = job
        self._started = time.monotonic()
        self._warm_up = max(1, int(job.inputs * WARM_UP))
        self._start = (0, 0)

    def note(self) -> None:
        """An input is about to be tried."""
        self.count += 1
        if self.count == self._warm_up:
            self._start = _memory()

    def result(self, find: str = "", data: bytes | None = None) -> Result:
        rss_bytes, blocks = _memory()
        start_bytes, start_blocks = self._start
        grown = blocks - start_blocks
        result = Result(
            self._job.mode,
            self._job.target,
            self.count,
            time.monotonic() - self._started,
            start_bytes,
            rss_bytes,
            grown,
            _is_compiled(),
            find,
            "" if data is None else data.hex(),
        )
        if not find:
            result.find = self._growth(rss_bytes - start_bytes, grown)
        return result

    def _growth(self, rss_bytes: int, blocks: int) -> str:
        """What is wrong with the growth of memory, "" if nothing is."""
        if self.count < self._warm_up:
            return f"only {self.count} of {self._job.inputs} inputs were tried"
        blocks_max = BLOCKS_MAX + BLOCKS_PER_INPUT_MAX * (self.count - self._warm_up)
        if self._job.mode != "hypothesis" and blocks > blocks_max:
            return f"memory grows: {blocks} more blocks, expected at most {blocks_max:.0f}"
        if rss_bytes > RSS_BYTES_MAX[self._job.mode]:
            return f"memory grows: {rss_bytes} more bytes"
        return ""


def run(job: Job) -> NoReturn:
    """Carry out a job, print its result as a line of JSON, and end the process."""
    if job.mode == "guided":
        _run_guided(job)
    meter = Meter(job)
    if job.mode == "hypothesis":
        _run_hypothesis(job, meter)
    _run_random(job, meter)


def _run_random(job: Job, meter: Meter) -> NoReturn:
    from tests.fuzz.inputs import inputs
    from tests.fuzz.soak import Soak
    from tests.fuzz.targets import TARGETS

    is_soak = job.target == "soak"
    target: Callable[[bytes], object] = Soak() if is_soak else TARGETS[job.target]
    signal.signal(signal.SIGALRM, _too_slow)
    for data in islice(inputs("broker" if is_soak else job.target, job.seed), job.inputs):
        meter.note()
        signal.alarm(INPUT_TIMEOUT_S)
        try:
            target(data)
        except Exception:
            signal.alarm(0)
            # A soak is told by its seed: its last input alone does nothing.
            _end(meter.result(traceback.format_exc(), None if is_soak else data))
    signal.alarm(0)
    _end(meter.result())


def _run_hypothesis(job: Job, meter: Meter) -> NoReturn:
    from tests.fuzz import sequences

    try:
        sequences.run(job.inputs, f"{job.seed} sequences", meter.note)
    except BaseException:
        _end(meter.result(traceback.format_exc()))
    _end(meter.result())


def _run_guided(job: Job) -> NoReturn:
    atheris = importlib.import_module("atheris")
    with atheris.instrument_imports(include=INSTRUMENTED, enable_loader_override=False):
        from tests.fuzz.inputs import corpus
        from tests.fuzz.targets import INPUT_BYTES_MAX, TARGETS
    target = TARGETS[job.target]
    meter = Meter(job)

    def once(data: bytes) -> None:
        meter.note()
        try:
            target(data)
        except Exception:
            _end(meter.result(traceback.format_exc(), data))
        if meter.count >= job.inputs:
            _end(meter.result())

    folder = tempfile.mkdtemp(prefix="holdfast-fuzz-")
    for index, data in enumerate(corpus(job.target)):
        Path(folder, f"{index:04}").write_bytes(data)
    seed = 1 + sum(f"{job.seed} {job.target}".encode()) % 1_000_000
    arguments = [
        sys.argv[0],
        f"-seed={seed}",
        f"-max_len={INPUT_BYTES_MAX[job.target]}",
        "-len_control=0",
        f"-timeout={INPUT_TIMEOUT_S}",
        f"-artifact_prefix={folder}/found-",
        "-print_final_stats=0",
        "-verbosity=0",
        "-reload=0",
        folder,
    ]
    atheris.Setup(arguments, once)
    atheris.Fuzz()
    raise AssertionError("the fuzzer has come back")


def _too_slow(number: int, frame: FrameType | None) -> NoReturn:
    raise TimeoutError(f"an input takes more than {INPUT_TIMEOUT_S} s")


def _memory() -> tuple[int, int]:
    """Resident bytes of this process, and the blocks that Python holds."""
    gc.collect()
    with open("/proc/self/statm", "rb") as file:
        pages = int(file.read().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE"), sys.getallocatedblocks()


def _is_compiled() -> bool:
    from holdfast.broker import broker

    return not str(broker.__file__).endswith(".py")


def _end(result: Result) -> NoReturn:
    print(json.dumps(dataclasses.asdict(result)), flush=True)
    # libFuzzer has threads and exit handlers of its own.
    os._exit(1 if result.find else 0)
