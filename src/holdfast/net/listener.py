"""A listener: an address, and what is made of each connection that comes to it."""

import asyncio
import datetime
import os
import socket
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, final

from holdfast.broker.listener_rules import ALL_VERSIONS, ListenerRules, PublishLimits
from holdfast.config import Address, ListenAddress, ListenerSettings, Settings, UnixAddress
from holdfast.logs import get_logger
from holdfast.net.arrival import Arrival, Gatekeeper, MakeLayer
from holdfast.net.burst_log import BurstLog
from holdfast.net.certificates import Certificates
from holdfast.net.connection import NetConnection
from holdfast.net.door import Door, Proxies
from holdfast.net.tls_layer import HandshakeLine, TlsLayer
from holdfast.net.unix_socket import UnixSocketFile
from holdfast.net.websocket import over_websocket
from holdfast.protocol.packets import MQTT_3_1, MQTT_3_1_1, MQTT_5_0

BACKLOG: Final = 4096  # connections that the kernel accepts before the loop takes them

if TYPE_CHECKING:
    from holdfast.net.tls import CertificateKey

_LEVELS: Final = {"3.1": MQTT_3_1, "3.1.1": MQTT_3_1_1, "5.0": MQTT_5_0}

_log = get_logger(__name__)


@final
class Listener:
    """One open listener; ``addresses`` is where it is found, with the port it has got.

    ``make_connection`` makes what is above TLS and WebSocket. ``certificates`` are given, and have
    been read, where the settings have TLS. ``gatekeeper`` is asked about each connection.
    """

    def __init__(
        self,
        settings: ListenerSettings,
        make_connection: Callable[[Arrival], NetConnection],
        certificates: Certificates | None = None,
        gatekeeper: Gatekeeper | None = None,
    ) -> None:
        self.settings: Final = settings
        self.addresses: list[Address] = []
        self._make_upper: MakeLayer = make_connection  # above TLS
        if settings.websocket is not None:
            self._make_upper = over_websocket(settings, make_connection)
        self._gatekeeper = gatekeeper
        self._bursts = BurstLog(_log, asyncio.get_running_loop().time, listener=settings.title)
        self._is_closed = False
        self._present: set[Arrival] = set()  # all connections
        self._emptied: asyncio.Future[None] | None = None  # for whoever waits for their end
        self._arriving: set[Arrival] = set()  # those that do not speak MQTT yet
        self._handshakes = HandshakeLine()
        self._shown: dict[Arrival, CertificateKey] = {}  # where certificates can be revoked
        self._server: asyncio.Server | None = None
        self._unix_file: UnixSocketFile | None = None
        self._proxies: Proxies | None = None
        if settings.proxy_protocol_from:
            self._proxies = Proxies(settings.proxy_protocol_from)
        assert (certificates is None) == (settings.tls is None)
        self._certificates = certificates

    @property
    def titles(self) -> list[str]:
        """Its addresses, each with what is spoken there, such as ``127.0.0.1:8883 (tls)``."""
        words = []
        if self.settings.proxy_protocol_from:
            words.append("proxy")
        if self.settings.tls is not None:
            words.append("tls")
        if self.settings.websocket is not None:
            words.append("websocket")
        layers = f" ({'+'.join(words)})" if words else ""
        return [f"{address}{layers}" for address in self.addresses]

    def end_revoked(self) -> None:
        """End the connections of clients whose certificates are revoked by now."""
        if self._certificates is None:
            return
        revoked = self._certificates.revoked
        for arrival, key in list(self._shown.items()):
            if key in revoked:
                self._unfit("tls", arrival, "the client's certificate is revoked")
                arrival.transport.abort()

    def close(self) -> None:
        """Take no more connections and end those that do not speak MQTT yet; the others stay."""
        self._is_closed = True
        if self._unix_file is not None:
            self._unix_file.remove()
        if self._server is not None:
            self._server.close()
        self._bursts.stop()
        for arrival in list(self._arriving):
            arrival.transport.abort()

    def abort_all(self) -> None:
        """Cut all connections."""
        for arrival in list(self._present):
            arrival.transport.abort()

    async def emptied(self) -> None:
        """Wait until no connection is left; one waits at a time."""
        while self._present:
            self._emptied = asyncio.get_running_loop().create_future()
            await self._emptied

    async def open(self, address: Address) -> None:
        """Begin to listen there. An OSError names the address."""
        loop = asyncio.get_running_loop()
        make_door = partial(Door, self, self._make_first, self._proxies)
        try:
            if isinstance(address, UnixAddress):
                self._unix_file = UnixSocketFile(address.path, int(self.settings.unix_mode, 8))
                self._server = await loop.create_unix_server(
                    make_door, sock=self._unix_file.socket, backlog=BACKLOG
                )
                self.addresses = [address]
                return
            self._server = await loop.create_server(
                make_door, address.host, address.port, backlog=BACKLOG
            )
        except OSError as error:
            # Python puts words of its own around those of the system where it binds an address.
            has_words = isinstance(error, socket.gaierror) or isinstance(address, UnixAddress)
            reason = error.strerror if has_words else os.strerror(error.errno or 0)
            # A plain OSError: a file name would make it an error of the data folder.
            kind = type(error) if isinstance(error, socket.gaierror) else OSError
            raise kind(error.errno, f"cannot listen on {address}: {reason}") from error
        self.addresses = [ListenAddress(*bound.getsockname()[:2]) for bound in self._server.sockets]

    # --- for the door

    def enter(self, transport: asyncio.Transport) -> Arrival | None:
        """Count a connection in, or None if it is not let in."""
        if self._is_closed:
            return None  # accepted before that, and come only now
        arrival = Arrival(self.settings.title, transport, self._arriving.discard, self._left)
        if arrival.address == "":
            # Reset before it was accepted. What it has sent could still be read, but whoever is
            # banned would come in so: no bound by address would hold.
            return None
        gatekeeper = self._gatekeeper
        is_client = self._proxies is None
        if gatekeeper is not None and not gatekeeper.enter(arrival, is_client=is_client):
            return None
        self._present.add(arrival)
        self._arriving.add(arrival)
        return arrival

    def identified(self, arrival: Arrival) -> bool:
        """Whether the client that a proxy has named may stay."""
        return self._gatekeeper is None or self._gatekeeper.identified(arrival)

    def refused(self, arrival: Arrival, why: str) -> None:
        """Tell why a connection is closed that has not brought a right PROXY header."""
        self._unfit("proxy_header", arrival, why)

    def _unfit(self, what: str, arrival: Arrival, why: str) -> None:
        if self._gatekeeper is not None:
            self._gatekeeper.unfit(what)
        text = f"a connection was closed: {why}"
        self._bursts.warning(text, host=arrival.host, address=arrival.address)

    def _left(self, arrival: Arrival) -> None:
        self._arriving.discard(arrival)
        self._present.discard(arrival)
        if not self._present and self._emptied is not None and not self._emptied.done():
            self._emptied.set_result(None)
        self._shown.pop(arrival, None)
        if self._gatekeeper is not None:
            self._gatekeeper.left(arrival)

    # --- the layers

    def _make_first(self, arrival: Arrival) -> asyncio.Protocol:
        """The lowest layer behind the PROXY header."""
        certificates = self._certificates
        if certificates is None:
            return self._make_upper(arrival)
        return TlsLayer(
            arrival,
            certificates.context,
            self._handshakes,
            certificates.settings.handshake_timeout_s,
            self._make_upper,
            self._take_certificate,
            partial(self._unfit, "tls"),
        )

    def _take_certificate(self, arrival: Arrival, encoded: bytes) -> None:
        from holdfast.net.peer_certificate import UnfitCertificate, peer_certificate
        from holdfast.net.tls import certificate_key

        assert self.settings.tls is not None
        now = datetime.datetime.now(datetime.UTC)
        arrival.certificate = peer_certificate(encoded, self.settings.tls.identity, now)
        if self.settings.tls.crl is not None:
            assert self._certificates is not None
            self._shown[arrival] = key = certificate_key(encoded)
            if key in self._certificates.revoked:
                # Its handshake began before the list was read anew.
                raise UnfitCertificate("the client's certificate is revoked")


async def listen(
    settings: ListenerSettings,
    make_connection: Callable[[Arrival], NetConnection],
    *,
    certificates: Certificates | None = None,
    gatekeeper: Gatekeeper | None = None,
    address: Address | None = None,
) -> Listener:
    """Listen as the settings have it, or else at this address; for the others see ``Listener``.

    An OSError names the address.
    """
    listener = Listener(settings, make_connection, certificates, gatekeeper)
    try:
        await listener.open(settings.address if address is None else address)
    except BaseException:
        listener.close()  # it may have made the file of its socket
        raise
    return listener


async def all_gone(listeners: Sequence[Listener], patience_s: float) -> None:
    """Wait until closed listeners have no connection, and cut those that stay for too long."""
    try:
        async with asyncio.timeout(patience_s):
            for listener in listeners:
                await listener.emptied()
    except TimeoutError:
        for listener in listeners:
            listener.abort_all()
        for listener in listeners:
            await listener.emptied()


def rules_of(
    listener: ListenerSettings, settings: Settings, auth_methods: frozenset[str] | None
) -> ListenerRules:
    """What holds for the clients of a listener: its own settings, or else those of the broker."""
    size = _own(listener.packet_bytes_max, settings.packet_bytes_max)
    return ListenerRules(
        listener.title,
        size,
        min(size, settings.connect_bytes_max),
        _own(listener.keep_alive_min_s, settings.keep_alive_min_s),
        _own(listener.keep_alive_max_s, settings.keep_alive_max_s),
        ALL_VERSIONS & {_LEVELS[version] for version in listener.versions},
        auth_methods,
        _publish_limits(listener, settings),
    )


def _publish_limits(listener: ListenerSettings, settings: Settings) -> PublishLimits | None:
    """How fast the clients of a listener may publish; None for as fast as they can."""
    messages_per_s = _own(listener.publish_messages_per_s, settings.publish_messages_per_s)
    bytes_per_s = _own(listener.publish_bytes_per_s, settings.publish_bytes_per_s)
    if messages_per_s == 0 and bytes_per_s == 0:
        return None
    messages_burst = _own(listener.publish_messages_burst, settings.publish_messages_burst)
    bytes_burst = _own(listener.publish_bytes_burst, settings.publish_bytes_burst)
    return PublishLimits(
        messages_per_s,
        messages_burst or 2 * messages_per_s,
        bytes_per_s,
        bytes_burst or 2 * bytes_per_s,
        settings.publish_patience_s * 1000,
    )


def _own(value: int | None, common: int) -> int:
    return common if value is None else value
