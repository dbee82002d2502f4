"""How `sub` and `rr` show a message."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

import typer

from holdfast.errors import UsageError

if TYPE_CHECKING:
    from holdfast.cli.message_text import Formatter

__all__ = ["OutputOptions", "formatter"]

PANEL: Final = "Output"


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """The form of a message on standard output."""

    verbose: Annotated[
        bool,
        typer.Option(
            *("-v", "--verbose"),
            rich_help_panel=PANEL,
            help="Show the topic before the payload.",
            show_default=False,
        ),
    ] = False
    show_time: Annotated[
        bool,
        typer.Option(
            "--time",
            rich_help_panel=PANEL,
            help="Show when the message came, and whether it is a retained one.",
            show_default=False,
        ),
    ] = False
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            rich_help_panel=PANEL,
            help="Show one JSON object for each message, with all its properties.",
            show_default=False,
        ),
    ] = False
    as_hex: Annotated[
        bool,
        typer.Option(
            "--hex", rich_help_panel=PANEL, help="Show payloads as hexadecimal.", show_default=False
        ),
    ] = False
    output_format: Annotated[
        str | None,
        typer.Option(
            *("-F", "--format"),
            metavar="FORMAT",
            rich_help_panel=PANEL,
            help="Show what this says, as in mosquitto_sub: %t topic, %p payload, %x in "
            "hexadecimal, %l its length, %q QoS, %r retain, %j JSON, %I time, and more.",
        ),
    ] = None
    pretty: Annotated[
        bool,
        typer.Option(
            "--pretty",
            rich_help_panel=PANEL,
            help="Show JSON on several lines.",
            show_default=False,
        ),
    ] = False
    no_end_of_line: Annotated[
        bool,
        typer.Option(
            *("-N", "--no-newline"),
            rich_help_panel=PANEL,
            help="Put nothing between messages.",
            show_default=False,
        ),
    ] = False


def formatter(options: OutputOptions, *, is_terminal: bool) -> "Formatter":
    """What turns a message into bytes, its end of line included. Raises UsageError."""
    # Here and not above: no other command waits for it.
    from holdfast.cli import message_text

    forms = (options.as_json, options.as_hex, options.output_format is not None)
    if sum(forms) > 1:
        raise UsageError("--json, --hex, -F: expected only one of them")
    if options.as_json:
        text = message_text.as_json(is_pretty=options.pretty)
    elif options.output_format is not None:
        text = message_text.formatted(
            options.output_format, is_pretty=options.pretty, is_terminal=is_terminal
        )
    else:
        payload = (
            message_text.hexadecimal()
            if options.as_hex
            else message_text.plain(is_terminal=is_terminal)
        )
        text = message_text.verbose(
            payload,
            with_time=options.show_time,
            with_topic=options.verbose,
            is_terminal=is_terminal,
        )
    if options.no_end_of_line:
        return text
    return lambda message, now_ns: text(message, now_ns) + b"\n"
