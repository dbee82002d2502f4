"""What a load test shows while it runs, on standard error."""

import asyncio
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, final

if TYPE_CHECKING:
    from rich.live import Live

__all__ = ["Display"]

LIVE_S: Final = 0.25
PLAIN_S: Final = 1.0


@final
class Display:
    """A table that changes in its place on a terminal; elsewhere one line each second."""

    def __init__(self, lines: Callable[[], list[tuple[str, str]]], *, is_quiet: bool) -> None:
        self._lines = lines
        self._is_quiet = is_quiet
        self._begun_s = time.monotonic()
        self._live: Live | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Begin to show."""
        if self._is_quiet:
            return self
        if sys.stderr.isatty():
            # Here and not above: elsewhere nobody waits for it.
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(stderr=True), auto_refresh=False, transient=True)
            self._live.start()
        self._task = asyncio.create_task(self._show(), name="bench-display")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End, and leave nothing on the terminal: the summary follows."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if self._live is not None:
            self._live.stop()

    async def _show(self) -> None:
        while True:
            await asyncio.sleep(PLAIN_S if self._live is None else LIVE_S)
            passed = f"{time.monotonic() - self._begun_s:.0f} s"
            if self._live is None:
                text = "; ".join(f"{name} {value}" for name, value in self._lines())
                print(f"{passed}: {text}", file=sys.stderr, flush=True)  # noqa: T201
                continue
            from rich.table import Table

            table = Table.grid(padding=(0, 2))
            for name, value in [("time", passed), *self._lines()]:
                table.add_row(name, value)
            self._live.update(table, refresh=True)
