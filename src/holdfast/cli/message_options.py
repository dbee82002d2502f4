"""The options of a message to publish: QoS, retain, and its properties of MQTT 5.0."""

import os
from dataclasses import dataclass
from typing import Annotated, Final

import typer

from holdfast.cli.property_options import name_and_value
from holdfast.errors import UsageError
from holdfast.message import Properties

__all__ = ["MessageOptions", "message_properties"]

PANEL: Final = "Message"
PROPERTIES_PANEL: Final = "Properties of the message (MQTT 5.0)"


@dataclass(frozen=True, slots=True)
class MessageOptions:
    """How a message is published."""

    qos: Annotated[
        int,
        typer.Option(*("-q", "--qos"), min=0, max=2, rich_help_panel=PANEL, help="QoS."),
    ] = 1
    retain: Annotated[
        bool,
        typer.Option(
            *("-r", "--retain"),
            rich_help_panel=PANEL,
            help="The server keeps it for later subscribers.",
            show_default=False,
        ),
    ] = False
    user_property: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            rich_help_panel=PROPERTIES_PANEL,
            help="User Property; give it again for more.",
        ),
    ] = None
    message_expiry: Annotated[
        int | None,
        typer.Option(
            metavar="SECONDS",
            min=0,
            max=0xFFFF_FFFF,
            rich_help_panel=PROPERTIES_PANEL,
            help="After so long, nobody gets it any more.",
        ),
    ] = None
    content_type: Annotated[
        str | None,
        typer.Option(
            metavar="TYPE",
            rich_help_panel=PROPERTIES_PANEL,
            help="What the payload is, such as application/json.",
        ),
    ] = None
    correlation_data: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            rich_help_panel=PROPERTIES_PANEL,
            help="What an answer carries to say what it answers.",
        ),
    ] = None
    utf8: Annotated[
        bool,
        typer.Option(
            "--utf8",
            rich_help_panel=PROPERTIES_PANEL,
            help="Say that the payload is UTF-8 (Payload Format Indicator 1).",
            show_default=False,
        ),
    ] = False


def message_properties(
    options: MessageOptions, base: Properties, *, response_topic: str | None, version: str
) -> Properties:
    """The properties of the messages: those of ``-D PUBLISH``, then those of the long options.

    Raises UsageError where the version has none.
    """
    properties = base
    properties.user_properties += [
        name_and_value("--user-property", text) for text in options.user_property or []
    ]
    if options.message_expiry is not None:
        properties.message_expiry_interval = options.message_expiry
    if options.content_type is not None:
        properties.content_type = options.content_type
    if options.correlation_data is not None:
        properties.correlation_data = os.fsencode(options.correlation_data)
    if response_topic is not None:
        properties.response_topic = response_topic
    if options.utf8:
        properties.payload_format_indicator = 1
    if version != "5.0" and has_any(properties):
        raise UsageError("-V 311: MQTT 3.1.1 has no properties")
    return properties


def has_any(properties: Properties) -> bool:
    """Whether any property is set."""
    return bool(properties.user_properties) or any(
        value is not None
        for value in (
            properties.message_expiry_interval,
            properties.content_type,
            properties.correlation_data,
            properties.response_topic,
            properties.payload_format_indicator,
        )
    )
