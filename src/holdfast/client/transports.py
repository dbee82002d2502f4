"""How the client reaches a broker: a transport for raw MQTT over whatever the URL names.

What fails is told as ConnectionLost, in words for people: where to, how far it came, and what was
wrong there. Nothing of a password, a header or a query is in them.
"""

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable, Mapping
from itertools import chain, zip_longest
from typing import Final, TypeVar

from holdfast.client.tls import reason_of, tls_context
from holdfast.client.url import Target
from holdfast.errors import ConnectionLost

# After so long without an answer the next address is tried beside it. Source: RFC 8305 §5.
HAPPY_EYEBALLS_S: Final = 0.25
# That a server may take to answer the close of TLS; nothing is waited for but that.
TLS_CLOSE_TIMEOUT_S: Final = 5.0

Address = tuple[socket.AddressFamily, tuple[str | int | bytes, ...]]
P = TypeVar("P", bound=asyncio.Protocol)
NO_HEADERS: Final[Mapping[str, str]] = {}

# What OpenSSL says of an answer that does not even begin like TLS.
_NOT_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "HTTPS_PROXY_REQUEST"})


async def open_transport(
    target: Target,
    make_protocol: Callable[[], P],
    *,
    tls: ssl.SSLContext | None = None,
    timeout_s: float,
    headers: Mapping[str, str] = NO_HEADERS,
    server_name: str = "",
) -> tuple[asyncio.Transport, P]:
    """Connect, and give the transport and the protocol that was made for it.

    ``connection_made`` of the protocol has been called: MQTT can be written, and comes as the
    server has sent it. ``tls`` is used if the URL asks for it, None being what the system trusts;
    ``server_name`` is the name the certificate has to be for, if not the host's. ``headers`` go
    into the request for a WebSocket. All of it has to be done within ``timeout_s`` seconds.

    Raises ConnectionLost if it does not come to that, and UsageError for headers that cannot be.
    """
    attempt = _Attempt(target, timeout_s)
    try:
        async with asyncio.timeout(timeout_s):
            return await attempt.open(make_protocol, tls, headers, server_name or target.host)
    except (OSError, UnicodeError) as error:
        if isinstance(error, TimeoutError) and not error.errno:  # ours, not the system's
            why = f"{attempt.stage} within {timeout_s:g} s"
        elif isinstance(error, ConnectionResetError | ConnectionAbortedError | ssl.SSLEOFError):
            why = f"{what_was_wrong(error, target)}, with {attempt.stage} so far"
        else:
            why = what_was_wrong(error, target)
        raise ConnectionLost(f"{target}: {why}") from error


class _Attempt:
    """One try to connect. ``stage`` says what has not happened yet."""

    def __init__(self, target: Target, timeout_s: float) -> None:
        self.target = target
        self._timeout_s = timeout_s
        self.stage = "no connection"

    async def open(
        self,
        make_protocol: Callable[[], P],
        tls: ssl.SSLContext | None,
        headers: Mapping[str, str],
        server_name: str,
    ) -> tuple[asyncio.Transport, P]:
        target = self.target
        if not target.is_websocket:
            return await self._connect(make_protocol, tls, server_name)
        # Here and not above: who does without should not wait for its libraries.
        from holdfast.client.websocket import WebSocket

        websocket = WebSocket(target, make_protocol, headers)
        transport, _ = await self._connect(lambda: websocket, tls, server_name)
        self.stage = "no answer to the request for a WebSocket"
        try:
            return await websocket.opened
        except BaseException:
            transport.abort()
            raise

    async def _connect(
        self, make_protocol: Callable[[], P], tls: ssl.SSLContext | None, server_name: str
    ) -> tuple[asyncio.Transport, P]:
        loop, target = asyncio.get_running_loop(), self.target
        if target.transport == "unix":
            return await loop.create_unix_connection(make_protocol, target.path)
        plain = await self._connected(loop)
        try:
            if not target.is_tls:
                return await loop.create_connection(make_protocol, sock=plain)
            self.stage = "no TLS handshake"
            return await loop.create_connection(
                make_protocol,
                sock=plain,
                ssl=tls_context(tls),
                server_hostname=server_name.partition("%")[0],  # without the zone of an address
                # The time for all of it is over before: without a number this would be a minute.
                ssl_handshake_timeout=self._timeout_s,
                ssl_shutdown_timeout=TLS_CLOSE_TIMEOUT_S,
            )
        except BaseException:
            plain.close()
            raise

    async def _connected(self, loop: asyncio.AbstractEventLoop) -> socket.socket:
        """A socket that is connected to one of the host's addresses, whichever answers first.

        Each next one is tried when the one before has failed, or has not answered for a while: a
        host whose IPv6 leads nowhere is reached over IPv4 all the same. Not left to the event
        loop, since uvloop's tries one after the other. Source: RFC 8305.
        """
        self.stage = "the name of the host was not resolved"
        addresses = await _addresses(self.target, loop)
        self.stage = "no connection"
        racing: set[asyncio.Task[socket.socket]] = set()
        failures: list[OSError] = []
        winner: socket.socket | None = None
        try:
            while winner is None and (addresses or racing):
                if addresses:
                    racing.add(loop.create_task(_dial(loop, addresses.pop(0))))
                done, racing = await asyncio.wait(
                    racing,
                    timeout=HAPPY_EYEBALLS_S if addresses else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for one in done:
                    error = one.exception()
                    if isinstance(error, OSError):
                        failures.append(error)
                    elif error is not None:
                        raise error
                    elif winner is None:
                        winner = one.result()
                    else:
                        one.result().close()
        except BaseException:
            if winner is not None:
                winner.close()
            raise
        finally:
            for one in racing:
                one.add_done_callback(_hang_up)
                one.cancel()
        if winner is None:
            raise failures[0]
        return winner


async def _addresses(target: Target, loop: asyncio.AbstractEventLoop) -> list[Address]:
    """The host's addresses in the order to try them: families take turns."""
    kind = socket.SOCK_STREAM
    try:
        # An address needs no thread, which is what the event loop would resolve it in.
        found = socket.getaddrinfo(target.host, target.port, type=kind, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        found = await loop.getaddrinfo(target.host, target.port, type=kind)
    first = [one for one in found if one[0] == found[0][0]]
    others = [one for one in found if one[0] != found[0][0]]
    turns = chain.from_iterable(zip_longest(first, others))
    return [(one[0], one[4]) for one in turns if one is not None]


async def _dial(loop: asyncio.AbstractEventLoop, address: Address) -> socket.socket:
    plain = socket.socket(address[0], socket.SOCK_STREAM)
    try:
        plain.setblocking(False)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await loop.sock_connect(plain, address[1])
    except BaseException:
        plain.close()
        raise
    return plain


def _hang_up(task: "asyncio.Task[socket.socket]") -> None:
    """Close what came too late; its failure is nobody's."""
    if not task.cancelled() and task.exception() is None:
        task.result().close()


def what_was_wrong(error: BaseException | None, target: Target) -> str:
    """What a transport's error means, in words for people; None is an end without one.

    For ``connection_lost`` too: of a client's certificate TLS 1.3 complains only after the
    handshake.
    """
    if error is None:
        return "the server closed the connection"
    if isinstance(error, ssl.SSLError):
        return _tls_fault(error)
    if isinstance(error, ConnectionLost):
        return str(error)
    if isinstance(error, socket.gaierror):
        return f"the name {target.host} cannot be resolved: {error.strerror}"
    if isinstance(error, UnicodeError):
        return f"the host {target.host!r} is not a name that can be resolved"
    if isinstance(error, ConnectionRefusedError):
        return "the connection was refused: nothing listens there, or a firewall is between"
    if isinstance(error, FileNotFoundError):
        return "there is no such socket"
    if isinstance(error, PermissionError):
        return "the connection was not permitted"
    if isinstance(error, ConnectionResetError | ConnectionAbortedError | BrokenPipeError):
        return "the connection was reset"
    if isinstance(error, OSError):
        name = errno.errorcode.get(error.errno or 0, "")
        return (error.strerror or str(error) or name or type(error).__name__).lower()
    return f"{type(error).__name__}"


def _tls_fault(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the server's certificate is not trusted: {reason_of(error)}"
    if error.reason in _NOT_TLS:
        return "the server does not speak TLS on this port"
    reason = reason_of(error)
    if "alert" in reason:
        # It is the server that has complained, most often of the client's certificate.
        alert = reason.partition("alert ")[2]
        return f"the server refused the TLS connection: {alert}"
    return f"TLS failed: {reason}"
