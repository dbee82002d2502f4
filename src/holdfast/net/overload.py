"""Watches over the memory of the process: in stages, less and less is taken while it is short."""

import asyncio
import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, final

from holdfast.broker.pressure import ACCEPT, ENOUGH, READ, STORE
from holdfast.broker.refusals import RefusalCounters
from holdfast.logs import get_logger
from holdfast.net.admission import MEMORY
from holdfast.net.gatekeeper import Gatekeeper

# Between two looks: a publisher may bring 10 MiB meanwhile.
INTERVAL_S: Final = 0.25
# Of the memory that there is: from there on no connections, no reading of the fastest publishers,
# nothing that has to be stored. A stage is left when so much less is used again.
ACCEPT_PART: Final = 0.80
READ_PART: Final = 0.88
STORE_PART: Final = 0.94
LEAVE_PART: Final = 0.04
TRIM_LOOKS: Final = 16  # between two attempts to give memory that is free back to the system

_PARTS: Final = (0.0, ACCEPT_PART, READ_PART, STORE_PART)
_MEASURES: Final = {
    ACCEPT: "new connections are refused",
    READ: "the fastest publishers are not read as well",
    STORE: "messages that have to be stored are refused as well",
}
_MIB: Final = 1024 * 1024
# What cgroups of version 1 say where there is no limit is larger than that.
_NO_LIMIT: Final = 1 << 60

_log = get_logger(__name__)


@final
class MemoryStages:
    """How short memory is, with ``memory_bytes`` in all."""

    def __init__(self, memory_bytes: int) -> None:
        self.stage = ENOUGH
        self._memory_bytes = memory_bytes

    def look(self, used_bytes: int) -> int:
        """The stage when so much is used. It rises at once, and falls when there is some room."""
        part = used_bytes / self._memory_bytes
        while self.stage < STORE and part >= _PARTS[self.stage + 1]:
            self.stage += 1
        while self.stage > ENOUGH and part < _PARTS[self.stage] - LEAVE_PART:
            self.stage -= 1
        return self.stage


@final
class Overload:
    """Looks at the memory again and again. ``note_memory`` is told of the stage while it is short.

    ``used_bytes`` says how much is used, -1 where that is not known.
    """

    def __init__(
        self,
        *,
        memory_bytes: int,
        gatekeeper: Gatekeeper,
        note_memory: Callable[[int], None],
        counters: RefusalCounters,
        used_bytes: Callable[[], int],
        trim: Callable[[], None],
    ) -> None:
        self._memory_bytes = memory_bytes
        self._gatekeeper = gatekeeper
        self._note_memory = note_memory
        self._counters = counters
        self._used_bytes = used_bytes
        self._trim = trim
        self._stages = MemoryStages(max(1, memory_bytes))
        self._looks = 0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Look now, and again and again."""
        if self._memory_bytes > 0:
            self.look()
            self._timer = asyncio.get_running_loop().call_later(INTERVAL_S, self.start)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def look(self) -> None:
        """Take one look, and act on it."""
        used_bytes = self._used_bytes()
        if used_bytes < 0:
            return
        before = self._stages.stage
        stage = self._stages.look(used_bytes)
        self._counters.memory_bytes = used_bytes
        self._counters.memory_stage = stage
        if stage != before:
            self._tell(stage, used_bytes)
            self._gatekeeper.close(MEMORY if stage >= ACCEPT else None)
        if stage > ENOUGH or before > ENOUGH:
            self._note_memory(stage)
        if stage > ENOUGH:
            # What clients no longer use may still be held by the allocator, and would count.
            if self._looks % TRIM_LOOKS == 0:
                self._trim()
            self._looks += 1

    def _tell(self, stage: int, used_bytes: int) -> None:
        sizes = f"{used_bytes // _MIB} of {self._memory_bytes // _MIB} MiB are used"
        if stage == ENOUGH:
            _log.warning(f"there is enough memory again, everything is taken: {sizes}")
        else:
            _log.warning(f"memory is short: {sizes}, {_MEASURES[stage]}")


def memory_of_process() -> int:
    """The bytes of memory that are the process's own, -1 where the system does not tell."""
    try:
        fields = Path("/proc/self/statm").read_bytes().split()
        # Without what is in files, such as the store's, which the system can take away.
        return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return -1


def memory_of_machine(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """The bytes that this process may have: those of the machine or of its container, 0 if unknown.

    The smallest limit on the way from its control group to the root holds.
    """
    limits: list[int] = []
    try:
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (OSError, ValueError):
        pass
    limits.append(_limit(cgroups / "memory" / "memory.limit_in_bytes"))
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("0::"):
            group = cgroups / line[3:].strip("/")
            while True:
                limits.append(_limit(group / "memory.max"))
                if group == cgroups or group == group.parent:
                    break
                group = group.parent
    return min((limit for limit in limits if 0 < limit < _NO_LIMIT), default=0)


def give_memory_back() -> None:
    """Have the C library give what is free back to the system, where it can."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):
        pass


def _limit(file: Path) -> int:
    """The number in a file, 0 for none."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return 0
