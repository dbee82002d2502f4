"""The link: it keeps a client connected, and makes the connection's own conversation."""

import asyncio
import random
import ssl
from collections.abc import Callable, Mapping
from typing import Final, cast

from holdfast.client.authentication import Authentication
from holdfast.client.connection import CLOSED, CONNECTED, ClientConnection
from holdfast.client.engine import Engine
from holdfast.client.login import Login
from holdfast.client.options import Reconnect
from holdfast.client.route import Route
from holdfast.client.transports import open_transport, what_was_wrong
from holdfast.client.url import Target
from holdfast.errors import ConnectionLost, HoldfastError, ProtocolError, Refused
from holdfast.logs import get_logger
from holdfast.protocol.encode import PINGREQ_BYTES, encode
from holdfast.protocol.packets import (
    MQTT_5_0,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
)
from holdfast.protocol.reason_codes import (
    BAD_USER_NAME_OR_PASSWORD,
    CLIENT_IDENTIFIER_NOT_VALID,
    NORMAL_DISCONNECTION,
    NOT_AUTHORIZED,
    SERVER_MOVED,
    SERVER_UNAVAILABLE,
    SESSION_TAKEN_OVER,
    SUCCESS,
    UNSUPPORTED_PROTOCOL_VERSION,
    USE_ANOTHER_SERVER,
    reason_name,
)

# A connection that has lasted so long was a good one: the next wait begins small again.
GOOD_S: Final = 10.0

# After so much at once the application has a turn before more is read. Less is not worth the two
# system calls, and a loop that brings less has seen the end of what there is.
PAUSE_BYTES: Final = 65_536

# The part of the Keep Alive after which a silent client pings, and the time for the answer: the
# ping has to be sent before the Keep Alive is over, and timers are late.
PING_AFTER: Final = 0.9
TIMER_S: Final = 0.001  # what a timer may come too early by

# The return codes of CONNACK before 5.0, as the reason codes that say the same.
_REASON_CODES: Final = {
    1: UNSUPPORTED_PROTOCOL_VERSION,
    2: CLIENT_IDENTIFIER_NOT_VALID,
    3: SERVER_UNAVAILABLE,
    4: BAD_USER_NAME_OR_PASSWORD,
    5: NOT_AUTHORIZED,
}

_log = get_logger(__name__)


class LinkProtocol(asyncio.Protocol):
    """Joins one transport to the engine."""

    def __init__(self, engine: Engine) -> None:
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.error: BaseException | None = None
        self.transport: asyncio.Transport | None = None
        self._engine = engine

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The transport is there."""
        # Not asserted: those of uvloop are of no class of asyncio's.
        self.transport = cast(asyncio.Transport, transport)
        # So that ``resume_writing`` means that all has left; see ``Engine``. Over TLS a bound is
        # reached where it is passed elsewhere: with 0 an empty buffer would be full.
        is_tls = self.transport.get_extra_info("sslcontext") is not None
        self.transport.set_write_buffer_limits(high=1 if is_tls else 0, low=0)

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        self._engine.receive(bytes(data))
        if len(data) >= PAUSE_BYTES:
            # uvloop reads up to 8 MB before it lets anybody have any of it.
            assert self.transport is not None
            self.transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._read_on)

    def _read_on(self) -> None:
        assert self.transport is not None
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def pause_writing(self) -> None:
        """The network is slower than we are."""
        self._engine.pause_writing()

    def resume_writing(self) -> None:
        """All that was written has left."""
        self._engine.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        """The transport is gone."""
        self.error = error
        if not self.lost.done():
            self.lost.set_result(None)


class Link:
    """Connects, says CONNECT, keeps alive, and comes back, until it is closed.

    ``make_connect`` gives the CONNECT of the next connection, ``is_first`` while none was
    accepted. ``opened`` is called with each CONNACK of success, before anything else is sent,
    ``answered`` when SUBACKs and UNSUBACKs have come, ``ended`` with what has ended a connection
    or kept it from being made.
    """

    def __init__(
        self,
        *,
        target: Target,
        make_tls: Callable[[], ssl.SSLContext | None],
        server_name: str,
        headers: Mapping[str, str],
        authentication: Authentication | None,
        user_name: str | None,
        password: bytes | None,
        make_connect: Callable[[], Connect],
        make_connection: Callable[[int, Connect], ClientConnection],
        opened: Callable[[Connack], None],
        ended: Callable[[HoldfastError], None],
        answered: Callable[[], None],
        reconnect: Reconnect,
        connect_timeout_s: float,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.is_connected = False
        self.error: HoldfastError | None = None  # of the last connection, or of the try
        self.stopped_by: HoldfastError | None = None  # what has ended the link for good
        self.login: Final = Login(
            authentication,
            user_name=user_name,
            password=password,
            send=self._send,
            broken=self.broken,
            timeout_s=connect_timeout_s,
        )
        self._route = Route(target)
        self._redirect: tuple[int, str] | None = None  # the server's, and where to
        self._make_tls = make_tls
        self._server_name = server_name
        self._server_host = target.host  # that the name is for
        self._headers = headers
        self._make_connect = make_connect
        self._make_connection = make_connection
        self._opened = opened
        self._ended = ended
        self._answered = answered
        self._reconnect = reconnect
        self._connect_timeout_s = connect_timeout_s
        self._engine: Engine | None = None
        self._number = 0
        self._protocol: LinkProtocol | None = None
        self._connack: asyncio.Future[Connack] | None = None
        self._keep_alive_s = 0.0
        self._ping_timer: asyncio.TimerHandle | None = None
        self._alive_s = 0.0  # when the server was last seen to be there, but for what it sent
        self._unsent_before = 0
        self._is_closing = False
        self._task: asyncio.Task[None] | None = None
        self._waiters: list[asyncio.Future[None]] = []
        self._first: asyncio.Future[None] | None = None

    @property
    def target(self) -> Target:
        """Where the connection of now leads, or the try."""
        return self._route.target

    # --- what the client does

    def start(self, engine: Engine) -> None:
        """Connect, and stay connected."""
        self._engine = engine
        self._task = self.loop.create_task(self._run(), name="holdfast-link")

    async def connected(self) -> None:
        """Wait for a connection. Raises what ended the link, if that happens first."""
        if self.is_connected:
            return
        if self.stopped_by is not None:
            raise self.stopped_by
        waiter: asyncio.Future[None] = self.loop.create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)  # given up

    async def first_try(self) -> None:
        """Wait for the first connection. Raises what kept it from being made."""
        waiter: asyncio.Future[None] = self.loop.create_future()
        self._waiters.append(waiter)
        self._first = waiter
        await waiter

    async def close(self, disconnect: Disconnect) -> None:
        """Say DISCONNECT and hang up; no connection is made any more."""
        self._is_closing = True
        protocol = self._protocol
        if protocol is not None and protocol.transport is not None and self.is_connected:
            engine = self._engine
            assert engine is not None
            assert engine.connection is not None
            engine.turn()
            protocol.transport.write(engine.connection.disconnect(disconnect))
            engine.connection.state = CLOSED  # nothing more is sent [MQTT-3.14.4-1]
            protocol.transport.close()
            await asyncio.wait([protocol.lost], timeout=1)
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        closed = ConnectionLost("the client was closed")
        self.login.ended(closed)
        if self.stopped_by is None:
            self.stopped_by = closed
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(closed)

    # --- connections

    async def _run(self) -> None:
        delay_s = self._reconnect.delay_min_s
        while not self._is_closing:
            begun_s = self.loop.time()
            try:
                await self._connect_once()
            except HoldfastError as error:
                if self._is_closing:
                    return  # we have hung up ourselves: nothing is lost
                if self.loop.time() - begun_s > GOOD_S:
                    delay_s = self._reconnect.delay_min_s
                    self._route.settled()
                if _is_final(error):
                    self._stop(error)
                    return
                has_next = self._goes_on()
                self._over(error, has_next=has_next)
                if has_next:
                    continue
            except Exception as defect:
                # Whoever waits has to learn that nothing comes any more.
                _log.failure("the client has stopped by a defect", defect)
                self._stop(ConnectionLost(f"the client has stopped by a defect: {defect!r}"))
                return
            if not self._is_closing:
                await asyncio.sleep(random.uniform(0, delay_s))
            self._route.settled()
            delay_s = min(delay_s * 2, self._reconnect.delay_max_s)

    async def _connect_once(self) -> None:
        """Make one connection and see it to its end, which is raised."""
        engine = self._engine
        assert engine is not None
        target = self._route.next()
        connect = self._make_connect()
        await self.login.begin(connect)
        transport, made = await open_transport(
            target,
            lambda: LinkProtocol(engine),
            tls=self._make_tls(),
            timeout_s=self._connect_timeout_s,
            headers=self._headers,
            server_name=self._server_name if target.host == self._server_host else "",
        )
        assert isinstance(made, LinkProtocol)
        protocol = made
        self._protocol = protocol
        try:
            await self._converse(engine, transport, protocol, connect)
        finally:
            self.is_connected = False
            if self._ping_timer is not None:
                self._ping_timer.cancel()
                self._ping_timer = None
            engine.disconnected()
            transport.abort()
            self._protocol = None

    async def _converse(
        self,
        engine: Engine,
        transport: asyncio.Transport,
        protocol: LinkProtocol,
        connect: Connect,
    ) -> None:
        self._number += 1
        connection = self._make_connection(self._number, connect)
        self._connack = self.loop.create_future()
        self._keep_alive_s = connect.keep_alive
        engine.connected(connection, transport)
        transport.write(encode(connect, connect.version))
        waited: list[asyncio.Future[Connack] | asyncio.Future[None]] = [
            self._connack,
            protocol.lost,
        ]
        await asyncio.wait(
            waited,
            timeout=self._connect_timeout_s,
            return_when=asyncio.FIRST_COMPLETED,
        )
        if not self._connack.done() and not protocol.lost.done():
            raise ConnectionLost(f"{self.target}: no CONNACK within {self._connect_timeout_s:g} s")
        if self._connack.done():
            self._connack.result()
        await protocol.lost
        if protocol.error is not None:
            why = what_was_wrong(protocol.error, self.target)
            raise ConnectionLost(f"{self.target}: {why}")
        if self._connack.done():
            raise self.error or ConnectionLost(f"{self.target}: the server closed the connection")
        raise ConnectionLost(f"{self.target}: the server closed the connection before CONNACK")

    def _goes_on(self) -> bool:
        """Whether to try another server at once, as this one has said so or cannot be reached."""
        redirect, self._redirect = self._redirect, None
        if self._is_closing:
            return False
        return self._route.has_more() if redirect is None else self._route.redirected(*redirect)

    def _over(self, error: HoldfastError, *, has_next: bool) -> None:
        """A connection has ended, or was not made; there will be another."""
        self.error = error
        self.login.ended(error)
        first = None
        if not has_next:
            first, self._first = self._first, None
        if first is not None:
            self._waiters.remove(first)
            if not first.done():
                first.set_exception(error)
        self._ended(error)

    def stop_for(self, error: HoldfastError) -> None:
        """End the connection for this, and make no other."""
        self._stop(error)
        self.hang_up(error)

    def _stop(self, error: HoldfastError) -> None:
        """No connection is made any more."""
        self.error = error
        self.login.ended(error)
        self._is_closing = True
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(error)
        self.stopped_by = error
        self._ended(error)

    # --- packets of the connection itself

    def notify(self) -> None:
        """The connection has packets for us."""
        engine = self._engine
        assert engine is not None
        connection = engine.connection
        assert connection is not None
        events, connection.events = connection.events, []
        for packet in events:
            self._take(packet, connection)
        if connection.answered:
            self._answered()

    def _take(self, packet: Packet, connection: ClientConnection) -> None:
        if isinstance(packet, Connack):
            self._take_connack(packet, connection)
        elif isinstance(packet, Disconnect):
            self._note_redirect(packet)
            self.hang_up(_disconnected(packet))
        elif isinstance(packet, Auth):
            self._take_auth(packet)

    def _take_connack(self, packet: Connack, connection: ClientConnection) -> None:
        assert self._connack is not None
        if self._connack.done():
            return
        if packet.reason_code != SUCCESS:
            self._note_redirect(packet)
            self._connack.set_exception(_refused(packet, connection.version))
            return
        self._route.answered()
        try:
            self.login.accepted(packet)
        except ProtocolError as error:
            self.broken(error)
            return
        properties = packet.properties
        if properties is not None and properties.server_keep_alive is not None:
            self._keep_alive_s = properties.server_keep_alive  # [MQTT-3.1.2-21]
        self.is_connected = True
        self.error = None
        self._connack.set_result(packet)
        self._opened(packet)
        self._first = None
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
        if self._keep_alive_s > 0:
            self._ping_timer = self.loop.call_later(self._keep_alive_s * PING_AFTER, self._look)

    def _take_auth(self, packet: Auth) -> None:
        try:
            self.login.take(packet)
        except ProtocolError as error:
            self.broken(error)

    def _note_redirect(self, packet: Connack | Disconnect) -> None:
        properties = packet.properties
        if packet.reason_code in (USE_ANOTHER_SERVER, SERVER_MOVED) and properties is not None:
            self._redirect = packet.reason_code, properties.server_reference or ""

    def _send(self, packet: bytes) -> None:
        assert self._engine is not None
        self._engine.send(packet)

    def broken(self, error: HoldfastError) -> None:
        """The server has broken the rules, or does not answer: tell it, and hang up."""
        engine = self._engine
        assert engine is not None
        connection = engine.connection
        protocol = self._protocol
        if connection is None or protocol is None or protocol.transport is None:
            return
        if (
            isinstance(error, ProtocolError)
            and connection.version >= MQTT_5_0
            and connection.state == CONNECTED
        ):
            protocol.transport.write(connection.disconnect(Disconnect(error.reason_code)))
        self.hang_up(error)

    def hang_up(self, error: HoldfastError) -> None:
        """End the connection for this; nothing more is sent."""
        self.error = error
        if self._engine is not None and self._engine.connection is not None:
            self._engine.connection.state = CLOSED
            self._engine.out.clear()
        connack = self._connack
        if connack is not None and not connack.done():
            connack.set_exception(error)
        if self._protocol is not None and self._protocol.transport is not None:
            self._protocol.transport.close()
            if not self._protocol.lost.done():
                self._protocol.lost.set_result(None)

    def _look(self) -> None:
        """Ping when nothing was sent for most of the keep alive's time. [MQTT-3.1.2-20]"""
        engine = self._engine
        assert engine is not None
        connection = engine.connection
        if connection is None:
            return
        now_s = self.loop.time()
        ping_after_s = self._keep_alive_s * PING_AFTER
        # Behind a large message PINGREQ and PINGRESP come late: while it moves, either way, the
        # server is there, and to begin anew would be to begin with that message again.
        unsent = self._unsent()
        if unsent < self._unsent_before or connection.pings == 0:
            self._alive_s = now_s
        self._unsent_before = unsent
        unheard_s = now_s - max(self._alive_s, engine.last_read_s)
        if connection.pings > 0 and unheard_s >= ping_after_s - TIMER_S:
            self.hang_up(
                ConnectionLost(
                    f"{self.target}: no PINGRESP within {self._keep_alive_s * PING_AFTER:g} s"
                )
            )
            return
        silent_s = now_s - engine.last_write_s
        if silent_s >= ping_after_s - TIMER_S:
            connection.pings += 1
            engine.send(PINGREQ_BYTES)
            silent_s = 0
        wait_s = ping_after_s - silent_s
        if connection.pings > 0:
            wait_s = min(wait_s, ping_after_s - unheard_s)
        self._ping_timer = self.loop.call_later(wait_s, self._look)

    def _unsent(self) -> int:
        """How many bytes of what was written wait for the network."""
        protocol = self._protocol
        if protocol is None or protocol.transport is None:
            return 0
        return protocol.transport.get_write_buffer_size()


def _refused(packet: Connack, version: int) -> Refused:
    code = packet.reason_code if version >= MQTT_5_0 else _REASON_CODES[packet.reason_code]
    text = reason_name(code)
    if packet.properties is not None and packet.properties.reason_string:
        text = packet.properties.reason_string
    return Refused(code, f"the server refused the connection: {text}")


def _disconnected(packet: Disconnect) -> HoldfastError:
    code = packet.reason_code
    if code == NORMAL_DISCONNECTION:
        return ConnectionLost("the server has ended the connection")
    text = reason_name(code)
    if packet.properties is not None and packet.properties.reason_string:
        text = packet.properties.reason_string
    return Refused(code, f"the server has ended the connection: {text}")


def _is_final(error: HoldfastError) -> bool:
    """Whether a new connection would do harm: two clients would end each other's for ever."""
    return isinstance(error, Refused) and error.reason_code == SESSION_TAKEN_OVER
