"""``holdfast pub``: publish messages and know what became of them."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, final

import typer

from holdfast.cli.client_run import complain, run_client
from holdfast.cli.connection_options import ServerOptions, destination
from holdfast.cli.exit_codes import ExitCode, one_line
from holdfast.cli.message_options import MessageOptions, message_properties
from holdfast.cli.option_groups import ClientCommand, checked, with_groups
from holdfast.cli.output import tell
from holdfast.cli.payloads import PayloadOptions, input_lines, single_payload
from holdfast.cli.property_options import given_properties
from holdfast.cli.session_options import SessionOptions, new_client
from holdfast.errors import ConnectionLost, LimitExceeded, UsageError
from holdfast.protocol.reason_codes import reason_name
from holdfast.protocol.topics import check_topic

if TYPE_CHECKING:
    from holdfast import Client, Receipt
    from holdfast.message import Properties

__all__ = ["PUB_HELP", "add_to"]

PUB_HELP: Final = """Publish messages. It ends when the server has acknowledged all of them.

The options are those of `mosquitto_pub`, but for the QoS: it is 1 here if nothing else is said,
because a message of QoS 0 may be lost and nobody would know.

With `--outbox FILE` messages are on disk before they are sent, and stay there until the server has
acknowledged them, whatever happens to this command, to the network or to the machine. What cannot
be sent within `--drain-timeout` goes out at the next run with the same FILE, in order; alone,
`holdfast pub --outbox FILE` sends what is left.

Examples:

```text
holdfast pub -t home/door -m open
holdfast pub -h broker.example.com -u ada --password-file key -t a -n -r
tail -f app.log | holdfast pub -t logs/app -l
holdfast pub -t meter/7 -m 42 --outbox meter.db
```

Exit codes:

- 0: all messages are acknowledged
- 1: internal failure
- 2: wrong usage
- 4: the outbox file cannot be used, or another process has it
- 6: no connection, or it was lost and did not come back
- 7: the server refused the client or a message, or the outbox is full
- 8: not all is acknowledged; the rest is in the outbox file and goes out at the next run
- 130: interrupted
"""

DRAIN_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class PublishOptions:
    """Where to publish, how often, and what becomes of what cannot be sent."""

    topic: Annotated[
        str | None,
        typer.Option(
            *("-t", "--topic"), metavar="TOPIC", rich_help_panel="Message", help="Where to publish."
        ),
    ] = None
    stdin_line: Annotated[
        bool,
        typer.Option(
            *("-l", "--stdin-line"),
            rich_help_panel="Message",
            help="Each line of standard input is a message.",
            show_default=False,
        ),
    ] = False
    response_topic: Annotated[
        str | None,
        typer.Option(
            metavar="TOPIC",
            rich_help_panel="Properties of the message (MQTT 5.0)",
            help="Where an answer is expected.",
        ),
    ] = None
    repeat: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, rich_help_panel="Message", help="Publish the message N times."
        ),
    ] = 1
    repeat_delay: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", min=0, rich_help_panel="Message", help="With so long in between."
        ),
    ] = 0.0
    outbox: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            rich_help_panel="Outbox",
            help="Keep messages in this file until they are acknowledged.",
        ),
    ] = None
    drain_timeout: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            min=0,
            rich_help_panel="Outbox",
            help="Give up when the server has acknowledged nothing for so long.",
        ),
    ] = DRAIN_TIMEOUT_S
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            rich_help_panel="Output",
            help="Print what became of the messages as one JSON object.",
            show_default=False,
        ),
    ] = False


def add_to(parent: typer.Typer) -> None:
    """Add the subcommand."""
    parent.command(
        name="pub",
        help=PUB_HELP,
        cls=ClientCommand,
        context_settings={"help_option_names": ["--help"]},
    )(with_groups(pub))


def pub(
    options: PublishOptions,
    payload: PayloadOptions,
    message: MessageOptions,
    server: ServerOptions,
    session: SessionOptions,
) -> None:
    """Publish, and leave with an exit code; ``PUB_HELP`` is what the user reads."""

    def main() -> Coroutine[object, object, int]:
        place = destination(server)
        where = place.topic if options.topic is None else options.topic
        batches = _batches(where, payload, options)
        outbox = options.outbox
        if outbox is not None and message.qos == 0:
            raise UsageError("--outbox: expected -q 1 or 2, a message of QoS 0 is not kept")
        given = given_properties(session.properties or [])
        properties = message_properties(
            message, given.publish, response_topic=options.response_topic, version=place.version
        )
        publication = _Publication(where or "", message, properties, options.drain_timeout, outbox)
        client = new_client(place, session, given, outbox=outbox)
        return publication.run(client, batches, as_json=options.as_json)

    run_client(main)


def _batches(
    topic: str | None, payload: PayloadOptions, options: PublishOptions
) -> AsyncIterator[list[bytes]]:
    """The payloads, in batches of those that come at once."""
    sources = payload.count + options.stdin_line
    if topic is None and options.outbox is not None and sources == 0:
        return _nothing()
    if sources != 1:
        raise UsageError("expected one of -m, -f, -l, -n and -s")
    if topic is None:
        raise UsageError("-t: expected a topic")
    checked("-t", check_topic, [topic])
    if options.stdin_line:
        if options.repeat > 1:
            raise UsageError("--repeat: expected no -l with it")
        return input_lines()
    return _repeated(single_payload(payload), options.repeat, options.repeat_delay)


@final
class _Publication:
    """The messages of one run, and what became of them."""

    def __init__(
        self,
        topic: str,
        options: MessageOptions,
        properties: "Properties",
        patience_s: float,
        outbox: Path | None,
    ) -> None:
        self._topic = topic
        self._options = options
        self._properties = properties
        self._patience_s = patience_s
        self._outbox = outbox
        self._published = 0
        self._acknowledged = 0
        self._refused = 0
        self._refusal = ""  # the first one

    async def run(
        self, client: "Client", batches: AsyncIterator[list[bytes]], *, as_json: bool
    ) -> int:
        """Publish all, wait for the end of all in the outbox, and tell it; the exit code."""
        async with client:
            found = client.outbox.messages  # of earlier runs
            try:
                async for payloads in batches:
                    await self._put_all(client, payloads)
                error = await self._see_out(client)
            except asyncio.CancelledError:
                if self._outbox is not None and (kept := client.outbox.messages):
                    complain(f"interrupted, {_counted(kept)} kept in {self._outbox}")
                raise
            kept = client.outbox.messages
            if kept and self._outbox is None:
                raise ConnectionLost(f"{_counted(kept)} not acknowledged: {error}")
        if as_json:
            tell(
                {
                    "found": found,
                    "published": self._published,
                    "acknowledged": self._acknowledged,
                    "refused": self._refused,
                    "kept": kept,
                },
                "",
                as_json=True,
            )
        if self._refused:
            complain(f"{_counted(self._refused)} not taken: {self._refusal}")
        if kept:
            complain(
                f"{_counted(kept)} kept in {self._outbox} and will be sent at the next run: {error}"
            )
        if self._refused:
            return ExitCode.REFUSED
        return ExitCode.KEPT if kept else ExitCode.STOPPED

    async def _put_all(self, client: "Client", payloads: list[bytes]) -> None:
        """Put these into the outbox; if that is a file, they are on disk on return."""
        receipt = None
        for payload in payloads:
            try:
                receipt = self._put(client, payload)
            except LimitExceeded:
                await self._room(client)
                receipt = self._put(client, payload)
        if receipt is not None:
            # One commit is for all that came at once.
            await receipt.stored()

    def _put(self, client: "Client", payload: bytes) -> "Receipt":
        properties = self._properties
        receipt = client.publish_nowait(
            self._topic,
            payload,
            self._options.qos,
            self._options.retain,
            message_expiry_interval=properties.message_expiry_interval,
            content_type=properties.content_type,
            response_topic=properties.response_topic,
            correlation_data=properties.correlation_data,
            user_properties=properties.user_properties,
            payload_format_indicator=properties.payload_format_indicator,
        )
        self._published += 1
        receipt.add_done_callback(self._over)
        return receipt

    def _over(self, receipt: "Receipt") -> None:
        if receipt.stage == "done":
            self._acknowledged += 1
            return
        if receipt.stage != "failed":
            return  # the client was closed before: it is kept
        self._refused += 1
        if self._refused == 1:
            name = reason_name(receipt.reason_code) if receipt.reason_code else ""
            self._refusal = ": ".join(part for part in (name, receipt.reason) if part)

    async def _room(self, client: "Client") -> None:
        """Wait until the full outbox has room again."""
        before = client.outbox.messages
        if not await self._progress(client, before):
            raise LimitExceeded(f"the outbox is full, {_counted(before)} in it")

    async def _see_out(self, client: "Client") -> str:
        """Wait until all is out, as long as there is some progress; why it is not."""
        while (before := client.outbox.messages) > 0:
            if not await self._progress(client, before):
                break
        await asyncio.sleep(0)  # for the last callbacks
        if client.error is not None:
            return one_line(client.error)
        return f"the server has not answered for {self._patience_s:g} s"

    async def _progress(self, client: "Client", before: int) -> bool:
        """Whether anything was acknowledged within our patience."""
        try:
            await client.drain(self._patience_s)
        except TimeoutError:
            return client.outbox.messages < before
        return True


def _counted(count: int) -> str:
    return "1 message is" if count == 1 else f"{count} messages are"


async def _nothing() -> AsyncIterator[list[bytes]]:
    """No message: what is in the outbox goes out all the same."""
    return
    yield


async def _repeated(payload: bytes, count: int, delay_s: float) -> AsyncIterator[list[bytes]]:
    for number in range(count):
        if number > 0 and delay_s > 0:
            await asyncio.sleep(delay_s)
        yield [payload]
