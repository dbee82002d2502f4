"""What the tools say: one line per failure, JSON where asked for, a bar where a person waits."""

import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Final

import typer

from holdfast.cli.exit_codes import ExitCode, one_line
from holdfast.errors import ConfigError, StoreCorrupt, StoreError, UsageError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["Bar", "failures", "progress_bar", "size", "tell"]

_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")


def tell(values: Mapping[str, object], text: str, *, as_json: bool) -> None:
    """The result on standard output, as one JSON object or as text."""
    if as_json:
        typer.echo(json.dumps(values, ensure_ascii=False))
    else:
        typer.echo(text)


def size(count: int) -> str:
    """Bytes, for a person."""
    value = float(count)
    for unit in _UNITS:
        if value < 1024 or unit == _UNITS[-1]:
            return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError("the last unit takes everything")


@contextmanager
def failures() -> Iterator[None]:
    """Turn an error into its line and its exit code, and SIGTERM into a tidy end."""
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    except (UsageError, ConfigError) as error:
        _fail(ExitCode.USAGE, error)
    except StoreCorrupt as error:
        _fail(ExitCode.DAMAGE, error)
    except (StoreError, OSError) as error:
        if isinstance(error, BrokenPipeError):
            _end_quietly()
        _fail(ExitCode.STORE, error)
    except KeyboardInterrupt:
        typer.echo("holdfast: interrupted", err=True)
        raise typer.Exit(128 + signal.SIGINT) from None
    finally:
        signal.signal(signal.SIGTERM, before)


class Bar:
    """Tells how far something is; see ``progress_bar``."""

    def __init__(self, shown: "Progress | None") -> None:
        self._shown = shown
        self._task: TaskID | None = None
        self._doing = ""

    def __call__(self, doing: str, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` is done; both 0 where nobody knows."""
        if self._shown is None:
            return
        if doing != self._doing:
            self._doing = doing
            self._task = self._shown.add_task(doing, total=None)
        if self._task is not None:
            self._shown.update(self._task, completed=done, total=total or None)


@contextmanager
def progress_bar() -> Iterator[Bar]:
    """A bar on standard error if that is a terminal, else nothing."""
    if not sys.stderr.isatty():
        yield Bar(None)
        return
    # Here and not above: no other command waits for them.
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
    )
    with Progress(
        *columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True
    ) as shown:
        yield Bar(shown)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _end_quietly() -> None:
    """Whoever read our output wants no more of it."""
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # for what is flushed at the exit
    raise typer.Exit(ExitCode.STOPPED)


def _fail(code: ExitCode, error: Exception) -> None:
    typer.echo(f"holdfast: {one_line(error)}", err=True)
    raise typer.Exit(code) from None
