"""``holdfast serve``: a broker that has the process for itself."""

import asyncio
import gc
import json
import resource
import signal
import sys
from functools import partial
from types import FrameType
from typing import Final

import uvloop

from holdfast import __version__
from holdfast.assembly import Assembly, read_doorkeeping
from holdfast.config import Settings, check_settings, warnings
from holdfast.errors import StoreError
from holdfast.logs import get_logger, setup_logging

# The writer thread asks for the interpreter a few times per commit. With Python's 5 ms, a busy
# event loop would keep each commit waiting that long.
SWITCH_INTERVAL_S: Final = 0.0005
# Messages and packets are in no reference cycles, so the collector finds nothing among them: let
# it look rarely, and never at what is there from the start.
GC_ALLOCATIONS: Final = 50_000

EXIT_STOPPED: Final = 0
EXIT_FAILED: Final = 1
EXIT_STORE: Final = 4

_log = get_logger(__name__)


def run(settings: Settings) -> int:
    """Run a broker until SIGTERM or SIGINT, and return the exit code of the process.

    Raises ConfigError, StoreError or OSError if it cannot start.
    """
    setup_logging(level=settings.log_level, as_json=settings.log_json, stream=sys.stderr)
    # Until the event loop has the signals. A start may take its time, with a large store, and the
    # first process of a container has no handlers but its own: SIGTERM would not reach it. SIGHUP
    # would end it, and asks for what a start does anyway.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return _run(settings)
    except KeyboardInterrupt:
        _log.info("stopped before it was ready")
        return EXIT_STOPPED


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _run(settings: Settings) -> int:
    _raise_file_limit()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.set_threshold(GC_ALLOCATIONS)
    assembly = Assembly(settings, owns_process=True)
    try:
        if settings.store == "memory":
            _log.warning("--store memory: nothing survives the end of this process")
        failure = uvloop.run(_serve(assembly))
    finally:
        assembly.close()
    if failure is None:
        return EXIT_STOPPED
    return EXIT_STORE if isinstance(failure, StoreError) else EXIT_FAILED


def examine(settings: Settings) -> list[str]:
    """Read all that a start reads before it opens anything, and return what to warn of.

    Raises ConfigError.
    """
    check_settings(settings)
    access = read_doorkeeping(settings).access
    access.close()
    listeners = [listener.title for listener in settings.all_listeners]
    return [*map(str, warnings(settings)), *access.advice(listeners)]


async def _serve(assembly: Assembly) -> BaseException | None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, assembly.end)
    loop.add_signal_handler(signal.SIGHUP, assembly.reload)
    return await assembly.run(partial(_announce, assembly))


def _announce(assembly: Assembly, store: str, sessions: int) -> None:
    """Say that the broker is ready: one line, for people and for scripts that wait for it."""
    addresses = [title for listener in assembly.listeners for title in listener.titles]
    if assembly.settings.log_json:
        line = json.dumps(
            {"event": "ready", "version": __version__, "listen": addresses}
            | {"store": store, "sessions": sessions}
        )
    else:
        line = (
            f"holdfast {__version__} ready on {', '.join(addresses)}; "
            f"store: {store}; sessions: {sessions}"
        )
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _raise_file_limit() -> None:
    """Allow as many connections as the system lets us have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
