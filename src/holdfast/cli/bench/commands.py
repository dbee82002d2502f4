"""The commands of ``holdfast bench``."""

from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Annotated, Final

import typer

from holdfast.cli.bench.connecting import Connecting
from holdfast.cli.bench.load import LOAD_PANEL, Load, LoadOptions
from holdfast.cli.bench.publishing import Publishing
from holdfast.cli.bench.stamp import STAMP_BYTES
from holdfast.cli.bench.subscribing import Subscribing
from holdfast.cli.client_run import run_client
from holdfast.cli.connection_options import ServerOptions, destination
from holdfast.cli.option_groups import checked, with_groups
from holdfast.errors import UsageError
from holdfast.protocol.topics import check_filter, check_topic

__all__ = ["BENCH_HELP", "CONN_HELP", "PUB_HELP", "SUB_HELP", "add_to"]

BENCH_HELP: Final = "Put load on any MQTT broker, and measure what it makes of it."

_EXIT_CODES: Final = """
Exit codes: 0 done; 1 internal failure; 2 wrong usage; 6 no client could connect; 7 the server
refused all; 130 interrupted, after a summary of what was measured by then.
"""

CONN_HELP: Final = f"""Connect many clients, and say how long that took.

Examples:

```text
holdfast bench conn -c 1000
holdfast bench conn -c 10000 -i 1 --hold 60 -h broker.example.com
```
{_EXIT_CODES}"""

PUB_HELP: Final = f"""Publish with many clients, and say how many messages the server took.

Each client publishes as fast as the server acknowledges, or at `--rate`. The latency is the time
from a publish until its acknowledgement (QoS 1: PUBACK, QoS 2: PUBCOMP). Payloads of {STAMP_BYTES}
bytes and more begin with a time and a number, for `holdfast bench sub`.

Examples:

```text
holdfast bench pub -c 10 -q 1 --duration 10
holdfast bench pub -c 100 -t 'plant/%i/power' --rate 10 -s 200 -q 2
holdfast bench pub -c 1 --count 100000 -q 0 --json
```
{_EXIT_CODES}"""

SUB_HELP: Final = f"""Subscribe with many clients, and say what comes, how late, and what is lost.

The latency is the time from a publish of `holdfast bench pub` until the message is here; with
machines whose clocks differ, by that much more or less. Lost is what is missing between the
messages of a publisher, for each subscriber.

Examples:

```text
holdfast bench sub -c 10 -t 'bench/#'
holdfast bench sub -c 1000 -t 'bench/%i' -q 1 --duration 60
holdfast bench sub -c 1 -t 'bench/#' --count 100000 --json
```
{_EXIT_CODES}"""

PUBLISH_S: Final = 10.0  # the duration without another bound


@dataclass(frozen=True, slots=True)
class BoundOptions:
    """When it is over."""

    count: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, rich_help_panel=LOAD_PANEL, help="End after N messages."),
    ] = None
    duration: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", min=0, rich_help_panel=LOAD_PANEL, help="End after so long."
        ),
    ] = None


def add_to(parent: typer.Typer) -> None:
    """Add the subcommand."""
    app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")
    for name, text, command in (
        ("conn", CONN_HELP, conn),
        ("pub", PUB_HELP, pub),
        ("sub", SUB_HELP, sub),
    ):
        settings = {"help_option_names": ["--help"]}
        app.command(name=name, help=text, context_settings=settings)(with_groups(command))
    parent.add_typer(app, name="bench", help=BENCH_HELP)


def conn(
    load: LoadOptions,
    hold: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            min=0,
            rich_help_panel=LOAD_PANEL,
            help="Stay connected for so long, and say which connections were lost.",
        ),
    ] = 0.0,
    *,
    server: ServerOptions,
) -> None:
    """Measure connections; ``CONN_HELP`` is what the user reads."""

    def main() -> Coroutine[object, object, int]:
        test = Connecting(hold)
        return Load(destination(server), load).run(test.work, test.figures, test.text)

    run_client(main, is_quick=True)


def pub(
    topic: Annotated[
        str | None,
        typer.Option(
            *("-t", "--topic"),
            metavar="TEMPLATE",
            rich_help_panel=LOAD_PANEL,
            help="Where to publish: %i is the number of the client, from 0. Default: bench/%i.",
        ),
    ] = None,
    *,
    qos: Annotated[
        int, typer.Option(*("-q", "--qos"), min=0, max=2, rich_help_panel=LOAD_PANEL, help="QoS.")
    ] = 1,
    size: Annotated[
        int,
        typer.Option(
            *("-s", "--size"),
            metavar="BYTES",
            min=0,
            max=16 * 1024 * 1024,
            rich_help_panel=LOAD_PANEL,
            help="Size of a payload.",
        ),
    ] = 64,
    retain: Annotated[
        bool,
        typer.Option(
            *("-r", "--retain"),
            rich_help_panel=LOAD_PANEL,
            help="Messages are retained ones.",
            show_default=False,
        ),
    ] = False,
    rate: Annotated[
        float,
        typer.Option(
            metavar="N",
            min=0,
            rich_help_panel=LOAD_PANEL,
            help="Messages a second, of each client; 0 is as many as the server takes.",
        ),
    ] = 0.0,
    in_flight: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=1,
            max=65_535,
            rich_help_panel=LOAD_PANEL,
            help="Messages of a client that are not acknowledged, at most.",
        ),
    ] = 100,
    bound: BoundOptions,
    load: LoadOptions,
    server: ServerOptions,
) -> None:
    """Measure publishing; ``PUB_HELP`` is what the user reads."""

    def main() -> Coroutine[object, object, int]:
        place = destination(server)
        template = topic or place.topic or "bench/%i"
        checked("-t", check_topic, [template])
        duration_s = bound.duration
        if duration_s is None and bound.count is None:
            duration_s = PUBLISH_S
        test = Publishing(
            template,
            qos=qos,
            retain=retain,
            size=size,
            rate=rate,
            count=bound.count,
            duration_s=duration_s,
        )
        return Load(place, load, in_flight).run(test.work, test.figures, test.text)

    run_client(main, is_quick=True)


def sub(
    topic: Annotated[
        list[str] | None,
        typer.Option(
            *("-t", "--topic"),
            metavar="TEMPLATE",
            rich_help_panel=LOAD_PANEL,
            help="Topic filter: %i is the number of the client, from 0. Give it again for more.",
        ),
    ] = None,
    *,
    qos: Annotated[
        int,
        typer.Option(
            *("-q", "--qos"), min=0, max=2, rich_help_panel=LOAD_PANEL, help="Highest QoS."
        ),
    ] = 1,
    bound: BoundOptions,
    load: LoadOptions,
    server: ServerOptions,
) -> None:
    """Measure subscribing; ``SUB_HELP`` is what the user reads."""

    def main() -> Coroutine[object, object, int]:
        place = destination(server)
        templates = [*(topic or []), *([] if place.topic is None else [place.topic])]
        if not templates:
            raise UsageError("-t: expected a topic filter")
        checked("-t", check_filter, templates)
        test = Subscribing(templates, qos=qos, count=bound.count, duration_s=bound.duration)
        return Load(place, load).run(test.work, test.figures, test.text)

    run_client(main, is_quick=True)
