"""The options of `pub`, `sub` and `rr` about the client and its session, and that client."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, final

import typer

from holdfast.cli.client_run import complain
from holdfast.cli.connection_options import Destination
from holdfast.cli.exit_codes import one_line
from holdfast.cli.property_options import (
    NEVER,
    GivenProperties,
    expiry_seconds,
)
from holdfast.errors import HoldfastError, Refused, UsageError
from holdfast.protocol.reason_codes import SESSION_TAKEN_OVER

if TYPE_CHECKING:
    from holdfast import Client, OutboxLimits, Will

__all__ = ["SessionOptions", "new_client"]

RECEIVE_MAXIMUM: Final = 1000  # messages that are not acknowledged, on their way to us
CLOSE_TIMEOUT_S: Final = 2.0
SESSION_PANEL: Final = "Client and session"
WILL_PANEL: Final = "Will"


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """Who the client is, what the server keeps of it, and what it says when the client is lost."""

    client_id: Annotated[
        str | None,
        typer.Option(
            *("-i", "--id", "--client-id"),
            metavar="ID",
            rich_help_panel=SESSION_PANEL,
            help="Client identifier. Default: a random one.",
        ),
    ] = None
    id_prefix: Annotated[
        str | None,
        typer.Option(
            *("-I", "--id-prefix"),
            metavar="PREFIX",
            rich_help_panel=SESSION_PANEL,
            help="Client identifier: this and the number of the process.",
        ),
    ] = None
    no_clean: Annotated[
        bool,
        typer.Option(
            *("-c", "--no-clean", "--disable-clean-session"),
            rich_help_panel=SESSION_PANEL,
            help="Go on with the session of this client, and leave it at the server: what comes "
            "meanwhile waits there. Needs -i.",
            show_default=False,
        ),
    ] = False
    session_expiry: Annotated[
        str | None,
        typer.Option(
            *("-x", "--session-expiry"),
            metavar="SECONDS",
            rich_help_panel=SESSION_PANEL,
            help="How long the server keeps the session when the client is away, or never to keep "
            "it for ever. Default: 0, with -c never, with --outbox a week.",
        ),
    ] = None
    will_topic: Annotated[
        str | None,
        typer.Option(metavar="TOPIC", rich_help_panel=WILL_PANEL, help="Topic of the will."),
    ] = None
    will_payload: Annotated[
        str | None,
        typer.Option(metavar="PAYLOAD", rich_help_panel=WILL_PANEL, help="Its payload."),
    ] = None
    will_qos: Annotated[
        int, typer.Option(min=0, max=2, rich_help_panel=WILL_PANEL, help="Its QoS.")
    ] = 0
    will_retain: Annotated[
        bool,
        typer.Option(
            "--will-retain",
            rich_help_panel=WILL_PANEL,
            help="The server keeps it for later subscribers.",
            show_default=False,
        ),
    ] = False
    properties: Annotated[
        list[str] | None,
        typer.Option(
            *("-D", "--property"),
            metavar="PACKET IDENTIFIER VALUE",
            rich_help_panel=SESSION_PANEL,
            help="A property for CONNECT, PUBLISH or WILL; a user-property has NAME and "
            "VALUE. Give it again for more.",
        ),
    ] = None
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet",
            rich_help_panel=SESSION_PANEL,
            help="Say nothing of lost connections.",
            show_default=False,
        ),
    ] = False
    debug: Annotated[
        bool,
        typer.Option(
            *("-d", "--debug"),
            rich_help_panel=SESSION_PANEL,
            help="Log what the client does, on standard error.",
            show_default=False,
        ),
    ] = False


def new_client(
    place: Destination,
    session: SessionOptions,
    properties: GivenProperties,
    *,
    outbox: Path | None = None,
    manual_ack: bool = False,
    outbox_limits: "OutboxLimits | None" = None,
) -> "Client":
    """The client that the options ask for. Raises UsageError for what cannot be together."""
    from holdfast import Client
    from holdfast.logs import setup_logging

    setup_logging(
        level="debug" if session.debug else "error" if session.quiet else "warning",
        as_json=False,
        stream=sys.stderr,
    )
    connect = properties.connect
    client_id = _client_id(session)
    expiry_s = connect.session_expiry_interval
    if session.session_expiry is not None:
        expiry_s = expiry_seconds("-x", session.session_expiry)
    if client_id == "" and outbox is None and (session.no_clean or expiry_s):
        raise UsageError("a session that is kept needs a client identifier: expected -i with it")
    if expiry_s is None and outbox is None:
        # With an outbox the client decides: its session has to be there in the next run.
        expiry_s = NEVER if session.no_clean else 0 if client_id else None
    if place.version != "5.0" and properties.packets:
        raise UsageError("-D: MQTT 3.1.1 has no properties")
    news = _ConnectionNews(session.quiet, begins_offline=outbox is not None)
    return Client(
        place.url,
        client_id=client_id,
        outbox=outbox,
        version=place.version,
        clean_start=False if session.no_clean else None if outbox is not None else True,
        session_expiry_s=expiry_s,
        keep_alive_s=place.keep_alive_s,
        user_name=place.user_name,
        password=place.password,
        will=_will(session, properties),
        tls=place.tls,
        auth=place.auth,
        headers=place.headers,
        receive_maximum=connect.receive_maximum or RECEIVE_MAXIMUM,
        maximum_packet_size=connect.maximum_packet_size,
        topic_alias_maximum=connect.topic_alias_maximum or 0,
        user_properties=connect.user_properties,
        manual_ack=manual_ack,
        outbox_limits=outbox_limits,
        connect_timeout_s=place.connect_timeout_s,
        # What is not out by then was waited for, by whoever closes it.
        close_timeout_s=CLOSE_TIMEOUT_S,
        on_connect=news.connected,
        on_disconnect=news.disconnected,
    )


def _client_id(session: SessionOptions) -> str:
    """The Client Identifier, empty for a random one."""
    if session.client_id is not None and session.id_prefix is not None:
        raise UsageError("-I, --id-prefix: expected no -i with it")
    if session.id_prefix is not None:
        return f"{session.id_prefix}{os.getpid()}"
    return session.client_id or ""


def _will(session: SessionOptions, properties: GivenProperties) -> "Will | None":
    from holdfast import Will

    if session.will_topic is None:
        if session.will_payload is not None or session.will_retain or "WILL" in properties.packets:
            raise UsageError("--will-topic: expected with the other options of the will")
        return None
    will = properties.will
    return Will(
        topic=session.will_topic,
        payload=os.fsencode(session.will_payload or ""),
        qos=session.will_qos,
        retain=session.will_retain,
        will_delay_interval=will.will_delay_interval,
        message_expiry_interval=will.message_expiry_interval,
        payload_format_indicator=will.payload_format_indicator,
        content_type=will.content_type,
        response_topic=will.response_topic,
        correlation_data=will.correlation_data,
        user_properties=will.user_properties,
    )


@final
class _ConnectionNews:
    """Tells on standard error that the connection is lost, once, and that it is there again."""

    def __init__(self, is_quiet: bool, *, begins_offline: bool) -> None:
        self._is_quiet = is_quiet
        self._begins_offline = begins_offline
        self._was_connected = False
        self._is_told = False

    def connected(self, _: "Client") -> None:
        if self._is_told:
            self._say("connected again" if self._was_connected else "connected")
        self._was_connected, self._is_told = True, False

    def disconnected(self, _: "Client", error: HoldfastError) -> None:
        if isinstance(error, Refused) and error.reason_code == SESSION_TAKEN_OVER:
            return  # It does not try again: the command ends, and tells why.
        # Without an outbox the first try ends the command as well.
        if not self._is_told and (self._was_connected or self._begins_offline):
            self._say(f"not connected, trying again: {one_line(error)}")
            self._is_told = True

    def _say(self, text: str) -> None:
        if not self._is_quiet:
            complain(text)
