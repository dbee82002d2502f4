"""What all load tests do: make many clients, watch the counters, and sum up."""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Final, Self

import typer

from holdfast.cli.bench.display import Display
from holdfast.cli.bench.figures import Histogram
from holdfast.cli.client_run import INTERRUPTED, complain
from holdfast.cli.connection_options import Destination
from holdfast.cli.exit_codes import ExitCode, one_line
from holdfast.cli.output import tell
from holdfast.errors import ConnectionLost, HoldfastError

if TYPE_CHECKING:
    from holdfast import Client

__all__ = ["Load", "LoadOptions", "numbered"]

LOAD_PANEL: Final = "Load"
OUTPUT_PANEL: Final = "Output"
CLOSE_TIMEOUT_S: Final = 5.0
CLOSING_AT_ONCE: Final = 200


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How many clients there are, and how they come."""

    clients: Annotated[
        int,
        typer.Option(
            *("-c", "--clients"), metavar="N", min=1, rich_help_panel=LOAD_PANEL, help="Clients."
        ),
    ] = 100
    interval: Annotated[
        float,
        typer.Option(
            *("-i", "--interval"),
            metavar="MS",
            min=0,
            rich_help_panel=LOAD_PANEL,
            help="Milliseconds from one client's start to that of the next.",
        ),
    ] = 0.0
    parallel: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=1,
            rich_help_panel=LOAD_PANEL,
            help="How many clients connect at the same time.",
        ),
    ] = 100
    client_id: Annotated[
        str,
        typer.Option(
            metavar="TEMPLATE",
            rich_help_panel=LOAD_PANEL,
            help="Client identifiers: %i is the number of the client, from 0.",
        ),
    ] = ""
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            rich_help_panel=OUTPUT_PANEL,
            help="Print the summary as one JSON object.",
            show_default=False,
        ),
    ] = False
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet",
            rich_help_panel=OUTPUT_PANEL,
            help="Show nothing while it runs.",
            show_default=False,
        ),
    ] = False


def numbered(template: str, number: int) -> str:
    """A topic or identifier for the client of this number."""
    return template.replace("%i", str(number))


@dataclass(slots=True)
class Load:
    """One load test: its clients, and the counters of what all of them have in common."""

    place: Destination
    options: LoadOptions
    window: int = 1000  # how many messages of a client are not acknowledged at most
    connects: Histogram = field(default_factory=Histogram)
    failed: int = 0
    lost: int = 0  # connections
    error: HoldfastError | None = None  # the first one
    clients: "list[Client]" = field(default_factory=list)
    connecting_s: float = 0.0
    _run: str = field(default_factory=lambda: secrets.token_hex(4))
    _is_closing: bool = False

    async def run(
        self,
        work: Callable[[Self], Awaitable[None]],
        figures: Callable[[], dict[str, object]],
        text: Callable[[], list[tuple[str, str]]],
    ) -> int:
        """Connect, do the work with the clients, and tell the figures, however it ends."""
        code: int = ExitCode.STOPPED
        shown = Display(lambda: [*self._text(), *text()], is_quiet=self.options.quiet)
        try:
            async with shown:
                await self._connect_all()
                if not self.clients:
                    raise self.error or ConnectionLost("no client has connected")
                await work(self)
        except asyncio.CancelledError:
            code = INTERRUPTED  # What was measured until then is worth telling.
        finally:
            await self._close_all()
        if self.error is not None:
            complain(
                f"{self.failed} clients failed, {self.lost} connections were lost, the first "
                f"one because: {one_line(self.error)}"
            )
        lines = [*self._text(), *text()]
        width = max(len(name) for name, _ in lines)
        summary = "\n".join(f"{name.ljust(width)}  {value}" for name, value in lines)
        tell(self._figures() | figures(), summary, as_json=self.options.as_json)
        return code

    async def _connect_all(self) -> None:
        begun_s = time.perf_counter()
        at_once = asyncio.Semaphore(self.options.parallel)
        async with asyncio.TaskGroup() as group:
            for number in range(self.options.clients):
                if self.options.interval > 0:
                    due_s = begun_s + number * self.options.interval / 1000
                    await asyncio.sleep(max(due_s - time.perf_counter(), 0))
                await at_once.acquire()
                task = group.create_task(self._connect(number), name=f"bench-{number}")
                task.add_done_callback(lambda _: at_once.release())
        self.connecting_s = time.perf_counter() - begun_s

    async def _connect(self, number: int) -> None:
        from holdfast import Client, OutboxLimits

        place = self.place
        template = self.options.client_id or f"bench-{self._run}-%i"
        client = Client(
            place.url,
            client_id=numbered(template, number),
            version=place.version,
            clean_start=True,
            session_expiry_s=0,
            keep_alive_s=place.keep_alive_s,
            user_name=place.user_name,
            password=place.password,
            tls=place.tls,
            auth=place.auth,
            headers=place.headers,
            receive_maximum=65_535,
            in_flight_max=self.window,
            outbox_limits=OutboxLimits(messages_max=self.window),
            connect_timeout_s=place.connect_timeout_s,
            close_timeout_s=CLOSE_TIMEOUT_S,
            on_disconnect=self._lost,
        )
        begun_ns = time.perf_counter_ns()
        try:
            await client.open()
        except HoldfastError as error:
            self.failed += 1
            self.error = self.error or error
            return
        self.connects.add((time.perf_counter_ns() - begun_ns) // 1000)
        self.clients.append(client)

    def _lost(self, client: "Client", error: HoldfastError) -> None:
        # A first try that fails is one that failed, and no connection that was lost.
        if client.connack is not None and not self._is_closing:
            self.lost += 1
            self.error = self.error or error

    async def _close_all(self) -> None:
        self._is_closing = True
        for first in range(0, len(self.clients), CLOSING_AT_ONCE):
            some = self.clients[first : first + CLOSING_AT_ONCE]
            await asyncio.gather(
                *(client.close(is_orderly=False) for client in some), return_exceptions=True
            )

    def _text(self) -> list[tuple[str, str]]:
        connected = len(self.clients)
        rate = f", {connected / self.connecting_s:.0f}/s" if self.connecting_s else ""
        lines = [("connected", f"{connected} of {self.options.clients} clients{rate}")]
        if self.failed or self.lost:
            lines.append(("trouble", f"{self.failed} failed, {self.lost} connections lost"))
        if self.connects.count:
            lines.append(("connect", self.connects.text()))
        return lines

    def _figures(self) -> dict[str, object]:
        connected = len(self.clients)
        return {
            "clients": self.options.clients,
            "connected": connected,
            "failed": self.failed,
            "connections_lost": self.lost,
            "connects_per_s": round(connected / self.connecting_s, 1) if self.connecting_s else 0,
            "connect_ms": self.connects.milliseconds(),
        }
