"""The options that say where the server is and how to connect; all clients have them.

A password that is an argument can be read by everyone who may list the processes, so there are
other ways to give one.
"""

import getpass
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final
from urllib.parse import quote, unquote

import typer

from holdfast.cli.client_run import is_open
from holdfast.cli.property_options import name_and_value
from holdfast.errors import UsageError

if TYPE_CHECKING:
    from holdfast.client.authentication import Authentication, ScramMethod
    from holdfast.client.options import Version
    from holdfast.client.tls import TlsOptions

__all__ = ["Destination", "ServerOptions", "destination"]

PORT_MAX: Final = 65_535
PLAIN_PORT: Final = 1883
TLS_PORT: Final = 8883
PASSWORD_BYTES_MAX: Final = 65_535  # what a CONNECT packet can hold

SERVER_PANEL: Final = "Server"
TLS_PANEL: Final = "TLS"


class TlsVersion(StrEnum):
    """The oldest version of TLS that is taken."""

    TLS_1_2 = "tlsv1.2"
    TLS_1_3 = "tlsv1.3"


# What people type for the versions, Mosquitto's words among them.
_VERSIONS: Final[dict[str, "Version"]] = {
    "5": "5.0",
    "5.0": "5.0",
    "mqttv5": "5.0",
    "311": "3.1.1",
    "3.1.1": "3.1.1",
    "mqttv311": "3.1.1",
}


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Where the server is, who we are for it, and how the connection is protected."""

    host: Annotated[
        str | None,
        typer.Option(
            *("-h", "--host"),
            metavar="HOST",
            rich_help_panel=SERVER_PANEL,
            help="Host of the server. Default: localhost.",
        ),
    ] = None
    port: Annotated[
        int | None,
        typer.Option(
            *("-p", "--port"),
            metavar="PORT",
            rich_help_panel=SERVER_PANEL,
            help="Port of the server. Default: 1883, with TLS 8883.",
        ),
    ] = None
    url: Annotated[
        str | None,
        typer.Option(
            *("-L", "--url"),
            metavar="URL",
            rich_help_panel=SERVER_PANEL,
            help="The server as mqtt://, mqtts://, ws://, wss:// or unix:// URL, with "
            "user:password@ and (mqtt, mqtts) /topic if wanted. Default: HOLDFAST_URL.",
        ),
    ] = None
    unix: Annotated[
        str | None,
        typer.Option(
            metavar="PATH", rich_help_panel=SERVER_PANEL, help="Unix socket of the server."
        ),
    ] = None
    username: Annotated[
        str | None,
        typer.Option(
            *("-u", "--username"), metavar="NAME", rich_help_panel=SERVER_PANEL, help="User name."
        ),
    ] = None
    password: Annotated[
        str | None,
        typer.Option(
            *("-P", "--pw", "--password"),
            metavar="PASSWORD",
            rich_help_panel=SERVER_PANEL,
            help="Password; others on this machine can read it in the list of processes. Better: "
            "--password-file, or the variable HOLDFAST_PASSWORD.",
        ),
    ] = None
    password_file: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            rich_help_panel=SERVER_PANEL,
            help="The password is the first line of this file; - is standard input, and asks on a "
            "terminal.",
        ),
    ] = None
    auth: Annotated[
        str | None,
        typer.Option(
            metavar="METHOD",
            rich_help_panel=SERVER_PANEL,
            help="Authentication Method (MQTT 5.0): with SCRAM-SHA-256, -1 or -512 the server does "
            "not get to see the password; with JWT or OAUTH2 the password is the token.",
        ),
    ] = None
    header: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            rich_help_panel=SERVER_PANEL,
            help="A header of the request for a WebSocket; give it again for more.",
        ),
    ] = None
    protocol_version: Annotated[
        str,
        typer.Option(
            *("-V", "--protocol-version"),
            metavar="VERSION",
            rich_help_panel=SERVER_PANEL,
            help="5 or 311; mqttv5 and mqttv311 mean the same.",
        ),
    ] = "5"
    keepalive: Annotated[
        int,
        typer.Option(
            *("-k", "--keepalive"),
            metavar="SECONDS",
            min=0,
            max=65_535,
            rich_help_panel=SERVER_PANEL,
            help="Keep Alive.",
        ),
    ] = 60
    connect_timeout: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            min=0.1,
            rich_help_panel=SERVER_PANEL,
            help="How long one attempt to connect may take.",
        ),
    ] = 10.0
    tls: Annotated[
        bool,
        typer.Option(
            *("--tls", "--tls-use-os-certs"),
            rich_help_panel=TLS_PANEL,
            help="Use TLS and trust the authorities of the system. The other options of TLS, an "
            "mqtts:// or wss:// URL and port 8883 turn it on as well.",
            show_default=False,
        ),
    ] = False
    cafile: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", rich_help_panel=TLS_PANEL, help="Certificates to trust, as PEM."
        ),
    ] = None
    capath: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            rich_help_panel=TLS_PANEL,
            help="Folder of such certificates, named as `openssl rehash` does.",
        ),
    ] = None
    cert: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", rich_help_panel=TLS_PANEL, help="Certificate of the client, as PEM."
        ),
    ] = None
    key: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            rich_help_panel=TLS_PANEL,
            help="Its private key, if it is not in the same file.",
        ),
    ] = None
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure",
            rich_help_panel=TLS_PANEL,
            help="Do not check that the certificate is for this host; without --cafile and "
            "--capath do not check it at all. For trials only.",
            show_default=False,
        ),
    ] = False
    tls_alpn: Annotated[
        str | None,
        typer.Option(
            metavar="PROTOCOL", rich_help_panel=TLS_PANEL, help="Protocol to ask for by ALPN."
        ),
    ] = None
    tls_version: Annotated[
        TlsVersion,
        typer.Option(rich_help_panel=TLS_PANEL, help="The oldest version of TLS to take."),
    ] = TlsVersion.TLS_1_2
    servername: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            rich_help_panel=TLS_PANEL,
            help="The name that the server's certificate is for, where it is not the host.",
        ),
    ] = None
    key_password_file: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            rich_help_panel=TLS_PANEL,
            help="The first line of this file opens the private key.",
        ),
    ] = None


@dataclass(frozen=True, slots=True)
class Destination:
    """The server and how to get in, as ``holdfast.Client`` takes it."""

    url: str
    topic: str | None  # the one that stood in the URL
    user_name: str | None
    password: bytes | None
    version: "Version"
    tls: "TlsOptions | None"
    auth: "Authentication | ScramMethod | None"
    headers: Mapping[str, str]
    keep_alive_s: int
    connect_timeout_s: float


def destination(options: ServerOptions, variables: Mapping[str, str] = os.environ) -> Destination:
    """Where to connect, from the options and the environment. Raises UsageError."""
    from holdfast.client.url import parse_url

    version = _VERSIONS.get(options.protocol_version.lower())
    if version is None:
        raise UsageError(f"-V {options.protocol_version}: expected 5 or 311")
    url, topic = _url(options, variables)
    place = parse_url(url)
    user_name = place.user_name if options.username is None else options.username
    password = _password(options)
    if password is None:
        password = place.password
    if password is None and user_name is not None and variables.get("HOLDFAST_PASSWORD"):
        password = os.fsencode(variables["HOLDFAST_PASSWORD"])
    if password is not None and user_name is None and version != "5.0":
        raise UsageError("-P: MQTT 3.1.1 has no password without a user name: expected -u")
    auth: Authentication | ScramMethod | None = None
    if options.auth is not None:
        auth, user_name, password = _authentication(options, user_name, password)
    headers = dict(name_and_value("--header", text) for text in options.header or [])
    if headers and not place.is_websocket:
        raise UsageError("--header: expected a ws:// or wss:// URL with it")
    tls = _tls(options) if place.is_tls else None
    if tls is None and options.url is not None and _wants_tls(options):
        raise UsageError("--url: expected mqtts:// or wss:// where options of TLS are given")
    return Destination(
        url=url,
        topic=topic,
        user_name=user_name,
        password=password,
        version=version,
        tls=tls,
        auth=auth,
        headers=headers,
        keep_alive_s=options.keepalive,
        connect_timeout_s=options.connect_timeout,
    )


def _url(options: ServerOptions, variables: Mapping[str, str]) -> tuple[str, str | None]:
    """The URL of the server, and the topic that stood in it."""
    has_place = any(value is not None for value in (options.host, options.port, options.unix))
    if options.url is not None and has_place:
        raise UsageError("--url: expected none of --host, --port and --unix with it")
    if options.url is not None:
        return _without_topic(options.url)
    if not has_place and variables.get("HOLDFAST_URL"):
        # Only then: who names another server does not want to show it the password of this one.
        return _without_topic(variables["HOLDFAST_URL"])
    if options.unix is None:
        return _built_url(options), None
    if options.host is not None or options.port is not None:
        raise UsageError("--unix: expected none of --host and --port with it")
    return f"unix://{quote(os.path.abspath(options.unix))}", None


def _without_topic(url: str) -> tuple[str, str | None]:
    """Mosquitto's clients take a topic behind the host."""
    scheme, separator, rest = url.partition("://")
    if separator == "" or scheme.lower() not in ("mqtt", "mqtts"):
        return url, None
    # Not the first slash: what is before an @ may have one.
    user, at, place = rest.rpartition("@")
    host, _, topic = place.partition("/")
    return f"{scheme}://{user}{at}{host}", unquote(topic) or None


def _built_url(options: ServerOptions) -> str:
    """The URL that says what the other options say."""
    is_tls = _wants_tls(options)
    port = options.port
    if port is None:
        port = TLS_PORT if is_tls else PLAIN_PORT
    if not 1 <= port <= PORT_MAX:
        raise UsageError(f"-p {port}: expected a port from 1 to {PORT_MAX}")
    host = "localhost" if options.host is None else options.host
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"
    if any(character in host for character in "/@"):
        raise UsageError("-h: expected the name or the address of a host; a URL goes behind --url")
    return f"{'mqtts' if is_tls else 'mqtt'}://{host}:{port}"


def _wants_tls(options: ServerOptions) -> bool:
    given = (options.cafile, options.capath, options.cert, options.key, options.key_password_file)
    return (
        options.tls
        or options.insecure
        or options.port == TLS_PORT
        or any(value is not None for value in (*given, options.tls_alpn, options.servername))
    )


def _password(options: ServerOptions) -> bytes | None:
    if options.password is not None and options.password_file is not None:
        raise UsageError("--password-file: expected no --password with it")
    if options.password is not None:
        return os.fsencode(options.password)
    if options.password_file is None:
        return None
    if options.password_file != "-":
        return _first_line("--password-file", options.password_file)
    if is_open(sys.stdin, "input").isatty():
        return getpass.getpass("Password: ").encode(errors="surrogateescape")
    # Unbuffered: what follows may be the message.
    with open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as file:
        return _checked(file.readline(PASSWORD_BYTES_MAX + 3))


def _authentication(
    options: ServerOptions, user_name: str | None, password: bytes | None
) -> tuple["Authentication | ScramMethod", str | None, bytes | None]:
    """What proves who we are by AUTH, and the user name and password that are left."""
    from holdfast.client.authentication import SCRAM_METHODS, Token

    assert options.auth is not None
    method = options.auth.upper()
    for known in SCRAM_METHODS:
        if method == known:
            return known, user_name, password
    if method.startswith("SCRAM"):
        raise UsageError(f"--auth {options.auth}: expected one of {', '.join(SCRAM_METHODS)}")
    if password is None:
        raise UsageError(f"--auth {options.auth}: expected the token as password")
    path = options.password_file
    if path is None or path == "-":
        return Token(password, method=method), user_name, None
    # Whoever renews tokens writes them into the file: each connection shows the newest.
    return Token(lambda: _first_line("--password-file", path), method=method), user_name, None


def _first_line(option: str, path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return _checked(file.readline(PASSWORD_BYTES_MAX + 3))
    except OSError as error:
        raise UsageError(f"{option} {path}: cannot be read: {error.strerror}") from None


def _checked(line: bytes) -> bytes:
    password = line.removesuffix(b"\n").removesuffix(b"\r")
    if len(password) > PASSWORD_BYTES_MAX:
        raise UsageError(f"--password-file: expected at most {PASSWORD_BYTES_MAX} bytes")
    return password


def _tls(options: ServerOptions) -> "TlsOptions":
    from holdfast.client.tls import TlsOptions

    has_authorities = options.cafile is not None or options.capath is not None
    tls = TlsOptions(
        ca_file=options.cafile,
        ca_path=options.capath,
        certificate=options.cert,
        key=options.key,
        key_password=None
        if options.key_password_file is None
        else _first_line("--key-password-file", options.key_password_file),
        server_name=options.servername or "",
        check_hostname=not options.insecure,
        insecure=options.insecure and not has_authorities,
        alpn=() if options.tls_alpn is None else (options.tls_alpn,),
        minimum_version="1.3" if options.tls_version is TlsVersion.TLS_1_3 else "1.2",
    )
    try:
        tls.context()  # A wrong file should be told as a wrong option.
    except UsageError as error:
        raise UsageError(_with_option_names(str(error))) from None
    return tls


def _with_option_names(text: str) -> str:
    names = {"ca_file": "--cafile", "ca_path": "--capath", "certificate": "--cert", "key": "--key"}
    name, colon, rest = text.removeprefix("TLS: ").partition(": ")
    text = f"{names.get(name, name)}{colon}{rest}"
    return text.replace("key_password", "--key-password-file")
