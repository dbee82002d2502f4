"""Running a client from the command line: signals, lost connections, and how each failure ends."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Final, TextIO

import typer

from holdfast.cli.exit_codes import ExitCode, one_line
from holdfast.errors import (
    ConnectionLost,
    HoldfastError,
    LimitExceeded,
    ProtocolError,
    Refused,
    StoreCorrupt,
    StoreError,
    UsageError,
)

__all__ = ["INTERRUPTED", "complain", "is_open", "run_client"]

INTERRUPTED: Final = 128 + signal.SIGINT

_EXIT_CODES: Final[tuple[tuple[type[HoldfastError], ExitCode], ...]] = (
    (UsageError, ExitCode.USAGE),
    (StoreCorrupt, ExitCode.DAMAGE),
    (StoreError, ExitCode.STORE),
    (Refused, ExitCode.REFUSED),
    (LimitExceeded, ExitCode.REFUSED),
    (ConnectionLost, ExitCode.CONNECTION),
    (ProtocolError, ExitCode.CONNECTION),
)


def complain(text: str) -> None:
    """One line on standard error."""
    print(f"holdfast: {text}", file=sys.stderr, flush=True)  # noqa: T201


def is_open(stream: TextIO | None, name: str) -> TextIO:
    """A standard stream. Raises UsageError if the process was started without it."""
    if stream is None:
        raise UsageError(f"standard {name} is closed")
    return stream


def run_client(
    main: Callable[[], Coroutine[object, object, int]], *, is_quick: bool = False
) -> None:
    """Run what ``main`` prepares, and leave with its exit code, or that of what went wrong.

    SIGINT and SIGTERM cancel it, so that it can say goodbye; a second one does not wait for that.
    ``is_quick`` is for those that live long enough for uvloop to pay.
    """
    with _failures():
        # Before the loop: a signal should end what waits for standard input.
        prepared = main()
        with asyncio.Runner(loop_factory=_loop_factory(is_quick)) as runner:
            code = runner.run(_interruptible(prepared))
        raise typer.Exit(code)


def _loop_factory(is_quick: bool) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if not is_quick or sys.platform == "win32":
        return None
    import uvloop

    return uvloop.new_event_loop


async def _interruptible(main: Coroutine[object, object, int]) -> int:
    loop = asyncio.get_running_loop()
    task = loop.create_task(main, name="holdfast-command")
    is_interrupted = False

    def interrupt(number: int) -> None:
        nonlocal is_interrupted
        is_interrupted = True
        task.cancel()
        # Whoever presses the key again is in a hurry.
        loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupt, number)
    try:
        return await task
    except asyncio.CancelledError:
        if not is_interrupted:
            raise
        return INTERRUPTED


@contextmanager
def _failures() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        # Whoever read our output wants no more of it; nor does the flush at the exit have to try.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(ExitCode.STOPPED) from None
    except HoldfastError as error:
        complain(one_line(error))
        raise typer.Exit(_exit_code(error)) from None
    except OSError as error:
        complain(one_line(error))
        raise typer.Exit(ExitCode.STORE) from None


def _exit_code(error: HoldfastError) -> ExitCode:
    for kind, code in _EXIT_CODES:
        if isinstance(error, kind):
            return code
    return ExitCode.FAILED
