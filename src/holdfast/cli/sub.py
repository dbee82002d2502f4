"""``holdfast sub``: subscribe and show what comes."""

import asyncio
import sys
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, final

import typer

from holdfast.cli.client_run import is_open, run_client
from holdfast.cli.connection_options import ServerOptions, destination
from holdfast.cli.exit_codes import ExitCode
from holdfast.cli.live_output import LiveOutput
from holdfast.cli.option_groups import ClientCommand, checked, with_groups
from holdfast.cli.output_options import OutputOptions, formatter
from holdfast.cli.property_options import given_properties
from holdfast.cli.session_options import SessionOptions, new_client
from holdfast.errors import UsageError
from holdfast.protocol.topics import check_filter, matches

if TYPE_CHECKING:
    from holdfast import Client, ReceivedMessage, Stream
    from holdfast.cli.message_text import Formatter

__all__ = ["SUB_HELP", "add_to"]

SUB_HELP: Final = """Subscribe to topics and show the messages that come, until Ctrl-C.

The options are those of `mosquitto_sub`, but for the QoS: it is 1 here if nothing else is said, so
that a session that is kept (`-i ID --no-clean`) gets what came while it was away.

A message is acknowledged when it has been written to standard output: what is not, because the
command was killed or whoever reads its output went away, comes again, if the session is kept. With
`--outbox FILE` the client keeps in FILE which messages of QoS 2 it has been given; one that comes
again after a crash has the `delivery_id` (`--json`) that it had.

On a terminal, a payload's control characters are shown as escape sequences.

Examples:

```text
holdfast sub -t 'home/#' -v
holdfast sub -t sensor/temperature -i c1 --no-clean
holdfast sub -t 'meter/+' --json | jq .payload
holdfast sub -t door/state -C 1 -W 5
holdfast sub -t 'home/#' --retained-only -F '%I %t %p'
```

Exit codes:

- 0: as many messages as `-C` says have come, or whoever read the output wants no more
- 1: internal failure
- 2: wrong usage
- 4: the outbox file cannot be used, or another process has it
- 6: no connection
- 7: the server refused the client or a subscription
- 27: the time of `-W` is over
- 130: interrupted
"""

# What is written at once, at most, so that acknowledgements do not wait for too long.
BATCH_BYTES: Final = 65_536
PANEL: Final = "Subscription"


@dataclass(frozen=True, slots=True)
class SubscriptionOptions:
    """What to subscribe to, what of it to show, and when to end."""

    topic: Annotated[
        list[str] | None,
        typer.Option(
            *("-t", "--topic"),
            metavar="FILTER",
            rich_help_panel=PANEL,
            help="Topic filter; give it again for more.",
        ),
    ] = None
    qos: Annotated[
        int,
        typer.Option(*("-q", "--qos"), min=0, max=2, rich_help_panel=PANEL, help="Highest QoS."),
    ] = 1
    unsubscribe: Annotated[
        list[str] | None,
        typer.Option(
            *("-U", "--unsubscribe"),
            metavar="FILTER",
            rich_help_panel=PANEL,
            help="Unsubscribe from this filter, of the session; give it again for more.",
        ),
    ] = None
    filter_out: Annotated[
        list[str] | None,
        typer.Option(
            *("-T", "--filter-out"),
            metavar="FILTER",
            rich_help_panel=PANEL,
            help="Leave out messages of these topics; give it again for more.",
        ),
    ] = None
    no_retained: Annotated[
        bool,
        typer.Option(
            *("-R", "--no-retained"),
            rich_help_panel=PANEL,
            help="Leave out retained messages.",
            show_default=False,
        ),
    ] = False
    retained_only: Annotated[
        bool,
        typer.Option(
            "--retained-only",
            rich_help_panel=PANEL,
            help="Show retained messages alone, and end with the first that is none.",
            show_default=False,
        ),
    ] = False
    remove_retained: Annotated[
        bool,
        typer.Option(
            "--remove-retained",
            rich_help_panel=PANEL,
            help="Remove the retained messages that come from the server, but for those of -T.",
            show_default=False,
        ),
    ] = False
    retain_as_published: Annotated[
        bool,
        typer.Option(
            "--retain-as-published",
            rich_help_panel=PANEL,
            help="Have the retain flag as the publisher set it (MQTT 5.0).",
            show_default=False,
        ),
    ] = False
    retain_handling: Annotated[
        int,
        typer.Option(
            min=0,
            max=2,
            rich_help_panel=PANEL,
            help="Retained messages come 0 always, 1 for a new subscription, 2 never (MQTT 5.0).",
        ),
    ] = 0
    no_local: Annotated[
        bool,
        typer.Option(
            "--no-local",
            rich_help_panel=PANEL,
            help="Do not get what this client publishes (MQTT 5.0).",
            show_default=False,
        ),
    ] = False
    count: Annotated[
        int | None,
        typer.Option(
            *("-C", "--count"),
            metavar="N",
            min=1,
            rich_help_panel=PANEL,
            help="End after N messages.",
        ),
    ] = None
    timeout: Annotated[
        float | None,
        typer.Option(
            *("-W", "--timeout"),
            metavar="SECONDS",
            min=0,
            rich_help_panel=PANEL,
            help="End after so long, with exit code 27.",
        ),
    ] = None
    exit_after_suback: Annotated[
        bool,
        typer.Option(
            *("-E", "--exit-after-suback"),
            rich_help_panel=PANEL,
            help="End when the server has subscribed: with -c, messages wait from then on.",
            show_default=False,
        ),
    ] = False
    outbox: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            rich_help_panel=PANEL,
            help="Keep in this file what the client has been given, and its identifier.",
        ),
    ] = None


def add_to(parent: typer.Typer) -> None:
    """Add the subcommand."""
    parent.command(
        name="sub",
        help=SUB_HELP,
        cls=ClientCommand,
        context_settings={"help_option_names": ["--help"]},
    )(with_groups(sub))


def sub(
    wanted: SubscriptionOptions,
    output: OutputOptions,
    server: ServerOptions,
    session: SessionOptions,
) -> None:
    """Subscribe, and leave with an exit code; ``SUB_HELP`` is what the user reads."""

    def main() -> Coroutine[object, object, int]:
        place = destination(server)
        filters = [*(wanted.topic or []), *([] if place.topic is None else [place.topic])]
        if not filters and not wanted.unsubscribe:
            raise UsageError("-t: expected a topic filter")
        checked("-t", check_filter, filters)
        checked("-U", check_filter, wanted.unsubscribe or [])
        checked("-T", check_filter, wanted.filter_out or [])
        if wanted.no_retained and wanted.retained_only:
            raise UsageError("-R: expected no --retained-only with it")
        # What is wrong should not wait for the server.
        is_open(sys.stdout, "output")
        formatter(output, is_terminal=False)
        given = given_properties(session.properties or [])
        client = new_client(place, session, given, outbox=wanted.outbox, manual_ack=True)
        reader = _Reader(client, output, wanted)

        return _run(client, filters, wanted, reader)

    run_client(main)


async def _run(
    client: "Client", filters: list[str], wanted: SubscriptionOptions, reader: "_Reader"
) -> int:
    async with client:
        try:
            async with asyncio.timeout(wanted.timeout):
                return await _subscribe(client, filters, wanted, reader)
        except TimeoutError:
            return ExitCode.TIMED_OUT


async def _subscribe(
    client: "Client", filters: list[str], wanted: SubscriptionOptions, reader: "_Reader"
) -> int:
    streams: list[Stream] = [client.messages()]
    if filters:
        streams.append(
            await client.subscribe(
                *filters,
                qos=wanted.qos,
                no_local=wanted.no_local,
                retain_as_published=wanted.retain_as_published,
                retain_handling=wanted.retain_handling,
            )
        )
    if wanted.unsubscribe:
        await client.unsubscribe(*wanted.unsubscribe)
    if wanted.exit_after_suback:
        return ExitCode.STOPPED
    return await reader.show_all(streams)


@final
class _Reader:
    """Shows messages, and acknowledges them when they are shown."""

    def __init__(
        self, client: "Client", options: OutputOptions, wanted: SubscriptionOptions
    ) -> None:
        self._client = client
        self._options = options
        self._wanted = wanted
        self._filtered_out = wanted.filter_out or []
        self._left = wanted.count
        self._is_over = False

    async def show_all(self, streams: "list[Stream]") -> int:
        """Show what comes over these, until it is enough."""
        output = LiveOutput()
        text = formatter(self._options, is_terminal=output.is_terminal)
        turn = asyncio.Lock()  # one batch is written at a time
        tasks = [
            asyncio.create_task(self._show(stream, output, text, turn), name="holdfast-sub")
            for stream in streams
        ]
        try:
            done, _ = await asyncio.wait(
                [*tasks, output.reader_gone], return_when=asyncio.FIRST_COMPLETED
            )
            for one in done:
                one.result()  # raises what has ended it
        finally:
            output.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return ExitCode.STOPPED

    async def _show(
        self, stream: "Stream", output: LiveOutput, text: "Formatter", turn: asyncio.Lock
    ) -> None:
        while not self._is_over:
            first = await anext(stream)
            async with turn:
                await self._show_batch(first, stream, output, text)

    async def _show_batch(
        self, first: "ReceivedMessage", stream: "Stream", output: LiveOutput, text: "Formatter"
    ) -> None:
        """Show a message, and those that are there already behind it, then acknowledge them."""
        lines: list[bytes] = []
        size = 0
        shown = []
        message = first
        while not self._is_over:
            shown.append(message)
            if self._is_wanted(message):
                lines.append(text(message, time.time_ns()))
                size += len(lines[-1])
                if self._left is not None:
                    self._left -= 1
                    self._is_over = self._left == 0
            if self._wanted.remove_retained and message.retain and message.payload != b"":
                await self._remove(message)
            if stream.queued == 0 or size >= BATCH_BYTES or self._is_over:
                break
            message = await anext(stream)
        await output.write(b"".join(lines))
        for message in shown:
            await message.ack()

    def _is_wanted(self, message: "ReceivedMessage") -> bool:
        if self._wanted.retained_only and not message.retain:
            self._is_over = True
            return False
        if self._wanted.no_retained and message.retain:
            return False
        return not any(matches(one, message.topic) for one in self._filtered_out)

    async def _remove(self, message: "ReceivedMessage") -> None:
        if not any(matches(one, message.topic) for one in self._filtered_out):
            receipt = await self._client.publish(message.topic, b"", 1, retain=True)
            await receipt
