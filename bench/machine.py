"""The machine: which core for whom, what a process uses, how fast the disk is, what to report."""

import os
import platform
import resource
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

WRITE_BYTES: Final = 4096
# Bytes before the probe comes back to its beginning: about the size at which SQLite's log does.
WRAP_BYTES: Final = 4 * 1024 * 1024
FILES_WANTED: Final = 65536


@contextmanager
def on_core(index: int) -> Iterator[None]:
    """Bind this process, and what it starts meanwhile, to one core, if there are two.

    0 is the broker's, 1 the load generator's.
    """
    before = os.sched_getaffinity(0)
    cores = sorted(before)
    if len(cores) < 2:
        yield
        return
    os.sched_setaffinity(0, {cores[index]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def raise_file_limit() -> int:
    """Allow as many open files as the system lets us; what children inherit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in ((FILES_WANTED, max(hard, FILES_WANTED)), (hard, hard)):
        if soft >= wanted[0]:
            break
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, wanted)
        except (OSError, ValueError):
            continue
        break
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def resident_bytes(pid: int) -> int:
    """VmRSS of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(f"process {pid} has no resident memory: it ended")


def settled_resident_bytes(pid: int, *, timeout_s: float = 10.0) -> int:
    """VmRSS once it has stopped moving: equal within 64 KB for a second."""
    deadline = time.monotonic() + timeout_s
    last = resident_bytes(pid)
    while time.monotonic() < deadline:
        time.sleep(1.0)
        now = resident_bytes(pid)
        if abs(now - last) <= 64 * 1024:
            return now
        last = now
    return last


def fdatasync_times(folder: Path, count: int, *, wrap_bytes: int = WRAP_BYTES) -> list[float]:
    """Seconds that a write of 4096 bytes and its fdatasync take, on the broker's core.

    The file is written over from its start every ``wrap_bytes``, as SQLite does with its log; the
    first pass, which grows the file and costs more, is made once before and not counted.
    """
    block = os.urandom(WRITE_BYTES)
    path = folder / "fdatasync-probe"
    times: list[float] = []
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with on_core(0):
            os.pwrite(fd, bytes(wrap_bytes), 0)
            os.fsync(fd)
            for number in range(count):
                begin = time.perf_counter()
                os.pwrite(fd, block, number * WRITE_BYTES % wrap_bytes)
                os.fdatasync(fd)
                times.append(time.perf_counter() - begin)
    finally:
        os.close(fd)
        path.unlink()
    return times


def describe(folder: Path) -> dict[str, object]:
    """What a reader needs to know to compare figures."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "cores_usable": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "system": platform.system(),
        "filesystem": _filesystem(folder),
        "load_average": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
    }


def commit(root: Path) -> str:
    """The short commit of the working tree, with ``+`` if it was changed; ``none`` without one."""
    try:
        head = _git(root, "rev-parse", "--short=10", "HEAD")
        return head + ("+" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "none"


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _filesystem(folder: Path) -> str:
    """The type of the file system that ``folder`` is on: the longest mount point above it."""
    best, kind = "", "unknown"
    where = str(folder.resolve()) + "/"
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, type_, *_ = line.split()
        if where.startswith(mount.rstrip("/") + "/") and len(mount) >= len(best):
            best, kind = mount, type_
    return kind
