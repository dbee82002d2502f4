"""Where a broker is: the URL that a user gives, taken apart and checked.

A URL may hold a password, and its query may be a signature that is as good as one. So no message
here shows any part of a URL that could be either, and neither does the ``repr`` of a Target.
"""

import ipaddress
from dataclasses import dataclass, field, replace
from typing import Final, Literal
from urllib.parse import unquote_to_bytes

from holdfast.errors import UsageError

Transport = Literal["tcp", "tls", "ws", "wss", "unix"]

PATH_DEFAULT: Final = "/mqtt"  # of a WebSocket
EXPECTED: Final = (
    "expected one such as mqtt://host, mqtts://host:8883, ws://host/mqtt, wss://host/mqtt,"
    " unix:///path or host:1883"
)

_SCHEMES: Final[dict[str, tuple[Transport, int]]] = {
    "mqtt": ("tcp", 1883),
    "mqtts": ("tls", 8883),
    "ws": ("ws", 80),
    "wss": ("wss", 443),
    "unix": ("unix", 0),
}
_NAMES: Final = {transport: scheme for scheme, (transport, _) in _SCHEMES.items()}
_PORT_MAX: Final = 65_535
_HOST_CHARACTERS_MAX: Final = 255
_SOCKET_PATH_BYTES_MAX: Final = 107  # uvloop cuts a longer one off, and finds another socket
_STRING_BYTES_MAX: Final = 65_535  # of a user name and a password in CONNECT
# Of a name in any script: what is left out means something in a URL, or is never in a name.
_NOT_IN_HOST: Final = frozenset("/\\?#@[]<>^`{|}\"'!$&()*+,;=%: \t")


@dataclass(frozen=True, slots=True)
class Target:
    """What to connect to, and as whom. ``str`` gives the URL without user, password and query.

    ``path`` is that of a WebSocket, or of a Unix socket.
    """

    transport: Transport
    host: str = ""
    port: int = 0
    path: str = ""
    query: str = field(default="", repr=False)
    user_name: str | None = None
    password: bytes | None = field(default=None, repr=False)

    def __str__(self) -> str:
        scheme = _NAMES[self.transport]
        return f"{scheme}://{self.path}" if scheme == "unix" else f"{scheme}://{self.address}"

    @property
    def address(self) -> str:
        """The host and the port, or the path of a Unix socket."""
        if self.transport == "unix":
            return self.path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_tls(self) -> bool:
        return self.transport in ("tls", "wss")

    @property
    def is_websocket(self) -> bool:
        return self.transport in ("ws", "wss")

    def with_server(self, reference: str) -> "Target":
        """The server that a Server Reference names, reached as this one is, as the same user.

        A reference is ``host``, ``host:port`` or ``[IPv6]:port``; without a port it is the usual
        one. Several with spaces between are ``server_references``. A whole URL is taken too, if it
        leads over the same transport: a server cannot make a client give up TLS.
        Raises UsageError for anything else. Source: MQTT 5.0 §4.11.
        """
        if self.transport == "unix":
            raise UsageError("a server that is reached over a Unix socket cannot refer to another")
        scheme = _NAMES[self.transport]
        if "://" not in reference:
            host, port = _host_and_port(reference, _SCHEMES[scheme][1])
            return replace(self, host=host, port=port)
        other = parse_url(reference)
        if other.transport != self.transport:
            raise UsageError(
                f"expected a reference to another server over {scheme}://,"
                f" it leads over {_NAMES[other.transport]}://"
            )
        return replace(self, host=other.host, port=other.port)


def server_references(references: str) -> list[str]:
    """The references in the Server Reference of a CONNACK or DISCONNECT."""
    return references.split()


def parse_url(text: str) -> Target:
    """What a URL says, or a bare ``host`` or ``host:port``, which mean MQTT over TCP.

    Raises UsageError, which says what was expected, for anything else.
    """
    if not text:
        raise UsageError(f"the URL of the broker is empty: {EXPECTED}")
    if not text.isprintable() or " " in text:
        raise UsageError(f"the URL of the broker has a space or a control character: {EXPECTED}")
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "mqtt", text
    if scheme.lower() not in _SCHEMES:
        # What stands there could be part of a password, if "://" is in one.
        known = ", ".join(_SCHEMES)
        shown = f" {scheme!r}" if scheme.isalnum() and len(scheme) <= 12 else ""
        raise UsageError(f"the URL of the broker: the scheme{shown} is not one of {known}")
    transport, port = _SCHEMES[scheme.lower()]
    if "#" in rest:
        raise UsageError(
            "the URL of the broker has a '#': expected none; in a user name or password it is %23"
        )
    if transport == "unix":
        return Target("unix", path=_socket_path(rest))
    rest, question_mark, query = rest.partition("?")
    authority, slash, path = rest.partition("/")
    user, at, place = authority.rpartition("@")
    if "@" in path or "@" in query:
        # Taken as it is, a part of a password would be the host, and be asked for in a DNS.
        raise UsageError(
            "the URL of the broker has an '@' in its path or query: there it is written %40; and"
            " in a user name or password '/' is %2F, '?' is %3F and '@' is %40"
        )
    user_name, password = _user(user) if at else (None, None)
    host, port = _host_and_port(place, port)
    if transport in ("tcp", "tls"):
        if path or question_mark:
            raise UsageError(
                f"the URL of the broker: expected nothing behind {scheme.lower()}://host:port;"
                " topics and options are given apart"
            )
        return Target(transport, host, port, "", "", user_name, password)
    if not (path + query).isascii():
        raise UsageError("the URL of the broker: other characters than ASCII are written as %XX")
    path = f"/{path}" if path else PATH_DEFAULT if not slash else "/"
    return Target(transport, host, port, path, query, user_name, password)


def _user(text: str) -> tuple[str, bytes | None]:
    """The user name and the password, None for none, in front of an ``@``."""
    name, colon, password = text.partition(":")
    try:
        user_name = unquote_to_bytes(name).decode()
    except UnicodeDecodeError:
        raise UsageError("the user name in the URL of the broker is not UTF-8") from None
    secret = unquote_to_bytes(password) if colon else None
    if "\0" in user_name:
        raise UsageError("the user name in the URL of the broker has a character U+0000")
    if max(len(user_name.encode()), len(secret or b"")) > _STRING_BYTES_MAX:
        raise UsageError(
            f"the URL of the broker: a user name and a password have at most {_STRING_BYTES_MAX}"
            " bytes each"
        )
    return user_name, secret


def _host_and_port(text: str, default: int) -> tuple[str, int]:
    """The two in ``host``, ``host:port``, ``[IPv6]`` or ``[IPv6]:port``.

    A port that is not one is not shown: it may be a password, behind which ``@host`` was forgotten.
    """
    if text.startswith("["):
        address, bracket, behind = text[1:].partition("]")
        host = _ipv6(address) if bracket else ""
        if not host or (behind and not behind.startswith(":")):
            raise UsageError("expected an IPv6 address in brackets, such as [2001:db8::1]:1883")
        number, has_port = behind[1:], behind != ""
    else:
        host, colon, number = text.partition(":")
        has_port = colon != ""
        if ":" in number and _ipv6(text):
            raise UsageError(f"an IPv6 address goes into brackets: [{text}]")
    if not host:
        raise UsageError(f"the URL of the broker has no host: {EXPECTED}")
    if ":" not in host and (len(host) > _HOST_CHARACTERS_MAX or not _NOT_IN_HOST.isdisjoint(host)):
        raise UsageError("the host of the broker is neither a name nor an address")
    if not has_port:
        return host, default
    is_number = number.isascii() and number.isdigit() and len(number) <= len(str(_PORT_MAX))
    if not (is_number and 1 <= int(number) <= _PORT_MAX):
        raise UsageError(
            f"expected a port from 1 to {_PORT_MAX} behind the host; a user and a password stand"
            " in front of it, with '@' between"
        )
    return host, int(number)


def _ipv6(text: str) -> str:
    """The address, with its zone if it has one; empty if it is none."""
    address = text.replace("%25", "%", 1)  # as RFC 6874 writes the sign before a zone
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        return ""
    return address


def _socket_path(rest: str) -> str:
    if "?" in rest:
        raise UsageError("the URL of the broker: expected nothing behind the path of unix:///path")
    raw = unquote_to_bytes(rest)
    if not raw.startswith(b"/") or raw.endswith(b"/") or b"\0" in raw:
        raise UsageError("expected the whole path of a socket, such as unix:///run/holdfast.sock")
    if len(raw) > _SOCKET_PATH_BYTES_MAX:
        raise UsageError(f"the path of a socket has at most {_SOCKET_PATH_BYTES_MAX} bytes")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise UsageError("the path of the socket in the URL is not UTF-8") from None
