"""A connection from the moment it is accepted: where it comes from, what layers it goes through.

The layers, in this order: PROXY header (``net/door.py``), TLS (``net/tls_layer.py``), WebSocket,
MQTT (``net/connection.py``). Each but the last is an ``asyncio.Protocol`` that a ``MakeLayer``
makes, that gets its calls from the one below it, and that makes the one above it once its own
beginning is over. It then calls ``connection_made`` of that one with an ``asyncio.Transport`` of
its own, or with the one it has got, and passes on ``data_received``, ``eof_received``,
``pause_writing``, ``resume_writing`` and ``connection_lost``. The last always gets None: what a
broken connection still holds, the layer has read itself (``read_rest``). ``eof_received`` returns
True, and whoever is uppermost closes. A layer that is lost while it has none above calls
``Arrival.left``.
"""

import asyncio
import ipaddress
import socket
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol, final

if TYPE_CHECKING:
    from holdfast.broker.identity import PeerCertificate

_CREDENTIALS: Final = struct.Struct("3i")  # struct ucred: pid, uid, gid


@final
class Arrival:
    """One accepted connection. ``host`` and ``address`` are the client's, as far as is known.

    ``host`` is an IP address, in its IPv4 form where it has one, or "" on a Unix socket;
    ``address`` is what logs show, "" for one that is gone already, of which the system does not say
    any more whence it came. Behind a proxy both are the proxy's until its header has come.
    ``left`` is called once, when the connection is gone, and ``settled`` when MQTT begins.
    """

    __slots__ = ("_left", "_settled", "address", "certificate", "host", "listener", "transport")

    def __init__(
        self,
        listener: str,
        transport: asyncio.Transport,
        settled: "Callable[[Arrival], None]",
        left: "Callable[[Arrival], None]",
    ) -> None:
        self.listener = listener
        self.transport = transport  # the socket's, below all layers
        self.host, self.address = _origin(transport)
        self.certificate: PeerCertificate | None = None
        self._settled = settled
        self._left = left

    def come_from(self, host: str, port: int) -> None:
        """Take the address that a trusted proxy names."""
        self.host, self.address = plain_host(host), shown_address(host, port)

    def settled(self) -> None:
        """MQTT has begun: from here on the driver ends this connection."""
        self._settled(self)

    def left(self) -> None:
        """The connection is gone."""
        self._left(self)


MakeLayer = Callable[[Arrival], asyncio.Protocol]


class Gatekeeper(Protocol):
    """Says who may come in at all, before anything else is done for a connection."""

    def enter(self, arrival: Arrival, *, is_client: bool = True) -> bool:
        """Whether a connection that has just been accepted may stay.

        It is no client's yet where it comes from a proxy: then ``arrival.host`` is the proxy's
        here, and the client's in ``identified``.
        """
        ...

    def identified(self, arrival: Arrival) -> bool:
        """Whether the client that a proxy has named may stay."""
        ...

    def unfit(self, what: str) -> None:
        """Count a connection that was closed before MQTT, for what was wrong: one of UNFIT."""
        ...

    def left(self, arrival: Arrival) -> None:
        """A connection that has entered is gone."""
        ...


def plain_host(host: str) -> str:
    """An IP address in the one form that it is compared in: IPv4 also where IPv6 carries it."""
    if ":" in host:
        mapped = ipaddress.IPv6Address(host).ipv4_mapped
        if mapped is not None:
            return str(mapped)
    return host


def shown_address(host: str, port: int) -> str:
    host = plain_host(host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _origin(transport: asyncio.Transport) -> tuple[str, str]:
    """The host and the address of the socket's peer."""
    peer = transport.get_extra_info("peername")
    if isinstance(peer, tuple) and len(peer) >= 2:
        host = str(peer[0])
        return plain_host(host), shown_address(host, peer[1])
    raw: socket.socket = transport.get_extra_info("socket")
    if raw.family != socket.AF_UNIX:
        return "", ""
    return "", f"unix:{_credentials(raw)}"


def _credentials(peer: socket.socket) -> str:
    """The process on the other end of a Unix socket, where the system tells."""
    option: int | None = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return ""
    raw = peer.getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(raw)
    return f"uid={uid},pid={pid}"
