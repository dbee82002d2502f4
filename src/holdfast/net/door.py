"""The door of a listener: who comes in at all, and the PROXY header before everything else."""

import asyncio
import ipaddress
from typing import Final, Protocol, cast, final

from holdfast.net.arrival import Arrival, MakeLayer
from holdfast.net.proxy_protocol import ProxyHeader, ProxyHeaderError, read_proxy_header

# A proxy sends its header with the first segment; one that is lost is sent again after 1 to 3 s.
PROXY_TIMEOUT_S: Final = 5.0
UNIX: Final = "unix"  # stands for whoever may open the Unix socket


class Host(Protocol):
    """What a door belongs to; a listener is one."""

    def enter(self, transport: asyncio.Transport) -> Arrival | None:
        """Count a connection in, or None if it is not let in."""
        ...

    def identified(self, arrival: Arrival) -> bool:
        """Whether the client that a proxy has named may stay."""
        ...

    def refused(self, arrival: Arrival, why: str) -> None:
        """A connection is closed for a fault of its own; for the log."""
        ...


@final
class Proxies:
    """The proxies whose word about a client's address is taken; see the setting."""

    def __init__(self, sources: tuple[str, ...]) -> None:
        self._takes_unix = UNIX in sources
        self._networks = [
            ipaddress.ip_network(source, strict=False) for source in sources if source != UNIX
        ]

    def __contains__(self, host: str) -> bool:
        if host == "":
            return self._takes_unix
        address = ipaddress.ip_address(host)
        return any(address in network for network in self._networks)


@final
class Door(asyncio.Protocol):
    """Takes one connection in and hands its transport over to the first layer.

    With ``proxies`` it first reads the PROXY header, of at most V2_BYTES_MAX bytes in
    PROXY_TIMEOUT_S, and takes nobody else in.
    """

    __slots__ = ("_arrival", "_buffer", "_host", "_make_layer", "_proxies", "_timer")

    def __init__(self, host: Host, make_layer: MakeLayer, proxies: Proxies | None) -> None:
        self._host = host
        self._make_layer = make_layer
        self._proxies = proxies
        self._arrival: Arrival | None = None
        self._buffer = b""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        raw = cast(asyncio.Transport, transport)
        try:
            self._come_in(raw)
        except Exception:
            raw.abort()  # here the event loop would leave it open, and not read it
            raise

    def _come_in(self, raw: asyncio.Transport) -> None:
        arrival = self._host.enter(raw)
        if arrival is None:
            raw.abort()
            return
        self._arrival = arrival
        if self._proxies is None:
            self._go_on(arrival, b"")
        elif arrival.host in self._proxies:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(
                PROXY_TIMEOUT_S, self._refuse, "no PROXY header came in time"
            )
        else:
            self._refuse("not one of the proxies that are let in")

    def data_received(self, data: bytes) -> None:
        if self._timer is None or self._arrival is None:
            return  # refused, and about to be closed
        self._buffer += data
        try:
            header = read_proxy_header(self._buffer)
        except ProxyHeaderError as error:
            self._refuse(str(error))
            return
        if header is None:
            return
        self._stop_timer()
        self._identify(self._arrival, header)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._arrival is not None:
            self._stop_timer()
            self._arrival.left()

    def _identify(self, arrival: Arrival, header: ProxyHeader) -> None:
        if header.host != "":
            arrival.come_from(header.host, header.port)
            if not self._host.identified(arrival):
                arrival.transport.abort()
                return
        self._go_on(arrival, self._buffer[header.size :])

    def _go_on(self, arrival: Arrival, rest: bytes) -> None:
        layer = self._make_layer(arrival)
        arrival.transport.set_protocol(layer)
        layer.connection_made(arrival.transport)
        if rest:
            layer.data_received(rest)

    def _refuse(self, why: str) -> None:
        assert self._arrival is not None
        self._stop_timer()
        self._host.refused(self._arrival, why)
        self._arrival.transport.abort()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
