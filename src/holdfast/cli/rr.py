"""``holdfast rr``: publish a request and show the answer to it."""

import os
import sys
import time
from collections.abc import Coroutine
from typing import Annotated, Final

import typer

from holdfast.cli.client_run import complain, is_open, run_client
from holdfast.cli.connection_options import ServerOptions, destination
from holdfast.cli.exit_codes import ExitCode
from holdfast.cli.message_options import MessageOptions, message_properties
from holdfast.cli.option_groups import ClientCommand, checked, with_groups
from holdfast.cli.output_options import OutputOptions, formatter
from holdfast.cli.payloads import PayloadOptions, single_payload
from holdfast.cli.property_options import given_properties
from holdfast.cli.session_options import SessionOptions, new_client
from holdfast.errors import UsageError
from holdfast.protocol.topics import check_topic

__all__ = ["RR_HELP", "add_to"]

RR_HELP: Final = """Publish a request and show the answer to it (MQTT 5.0).

The request carries a Response Topic, which the client has subscribed to, and Correlation Data; the
answer is the first message there that carries the same. The options are those of `mosquitto_rr`.

Examples:

```text
holdfast rr -t calc/add -m '1+1'
holdfast rr -t pump/7/state -n -W 2 --json
holdfast rr -t calc/add -m '1+1' -e answers/desk
```

Exit codes:

- 0: the answer came
- 1: internal failure
- 2: wrong usage
- 6: no connection
- 7: the server refused the client, the subscription or the request
- 27: there was no answer within the time of `-W`
- 130: interrupted
"""

TIMEOUT_S: Final = 30.0


def add_to(parent: typer.Typer) -> None:
    """Add the subcommand."""
    parent.command(
        name="rr",
        help=RR_HELP,
        cls=ClientCommand,
        context_settings={"help_option_names": ["--help"]},
    )(with_groups(rr))


def rr(
    topic: Annotated[
        str | None,
        typer.Option(
            *("-t", "--topic"),
            metavar="TOPIC",
            rich_help_panel="Message",
            help="Where the request goes.",
        ),
    ] = None,
    *,
    response_topic: Annotated[
        str | None,
        typer.Option(
            *("-e", "--response-topic"),
            metavar="TOPIC",
            rich_help_panel="Message",
            help="Where the answer is to go. Default: one with the client identifier in it.",
        ),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(
            *("-W", "--timeout"),
            metavar="SECONDS",
            min=0,
            rich_help_panel="Message",
            help="How long to wait for the answer.",
        ),
    ] = TIMEOUT_S,
    payload: PayloadOptions,
    message: MessageOptions,
    output: OutputOptions,
    server: ServerOptions,
    session: SessionOptions,
) -> None:
    """Ask, and leave with an exit code; ``RR_HELP`` is what the user reads."""

    def main() -> Coroutine[object, object, int]:
        place = destination(server)
        where = place.topic if topic is None else topic
        if where is None:
            raise UsageError("-t: expected a topic")
        checked("-t", check_topic, [where])
        checked("-e", check_topic, [] if response_topic is None else [response_topic])
        if payload.count != 1:
            raise UsageError("expected one of -m, -f, -n and -s")
        if place.version != "5.0":
            raise UsageError("-V 311: a request and its answer need MQTT 5.0")
        if message.retain or message.correlation_data is not None:
            raise UsageError("expected neither -r nor --correlation-data for a request")
        given = given_properties(session.properties or [])
        properties = message_properties(
            message, given.publish, response_topic=None, version=place.version
        )
        text = formatter(output, is_terminal=is_open(sys.stdout, "output").isatty())
        body = single_payload(payload)
        client = new_client(place, session, given)

        async def run() -> int:
            async with client:
                try:
                    answer = await client.request(
                        where,
                        body,
                        qos=message.qos,
                        timeout_s=timeout,
                        response_topic=response_topic or properties.response_topic,
                        message_expiry_interval=properties.message_expiry_interval,
                        content_type=properties.content_type,
                        user_properties=properties.user_properties,
                        payload_format_indicator=properties.payload_format_indicator,
                    )
                except TimeoutError as error:
                    complain(str(error))
                    return ExitCode.TIMED_OUT
            sys.stdout.flush()
            os.write(sys.stdout.fileno(), text(answer, time.time_ns()))
            return ExitCode.STOPPED

        return run()

    run_client(main)
