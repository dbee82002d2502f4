"""One connection: collects what its transport brings for the turn, and writes what it gives."""

import asyncio
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, cast

from holdfast.net.arrival import Arrival

if TYPE_CHECKING:
    from holdfast.broker.connection import Connection
    from holdfast.broker.listener_rules import ListenerRules
    from holdfast.net.driver import Driver
    from holdfast.net.turned_away import TurnedAway

WRITE_BUFFER_BYTES_MAX: Final = 256 * 1024  # above it a subscriber is not given more
# That one connection brings to a turn. The event loop itself would go on to read 32 times as much
# from a client that sends without pause.
INBOX_BYTES_MAX: Final = 256 * 1024
REST_READ_BYTES: Final = 64 * 1024  # in one read of what a lost connection still holds
REST_READS_MAX: Final = 16
CLOSE_TIMEOUT_S: Final = 5.0  # for a peer that does not read what is sent before a close
# For one that takes nothing at all, and without a keep alive could be silent for ever. The system
# waits about as long for a peer that has gone without a word; one that is there it would wait for.
UNREAD_TIMEOUT_S: Final = 900.0


class NetConnection(asyncio.Protocol):
    """The event loop's side of one connection; ``peer`` is the broker's.

    ``transport`` is the socket's own, or that of the layer below: TLS, WebSocket.
    """

    __slots__ = (
        "_driver",
        "_inbox_bytes",
        "_is_paused",
        "_unread_bytes",
        "_unread_timer",
        "arrival",
        "inbox",
        "is_let_in",
        "peer",
        "rules",
        "transport",
    )

    def __init__(self, driver: "Driver", rules: "ListenerRules", arrival: Arrival) -> None:
        self._driver: Driver | TurnedAway = driver
        self.rules = rules
        self.arrival = arrival
        self._is_paused = False
        self.is_let_in = False  # as far as the gatekeeper knows
        self.inbox: list[bytes] = []
        self._inbox_bytes = 0
        self._unread_bytes = 0  # that waited for the peer at the last look
        self._unread_timer: asyncio.TimerHandle | None = None  # while the socket is full
        self.transport: asyncio.Transport | None = None
        self.peer: Connection | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES_MAX)
        self.arrival.settled()
        self._driver.opened(self)

    def turn_away(self, turned_away: "TurnedAway", reason_code: int) -> None:
        """Have it answered with a refusal; the driver has nothing to do with it."""
        self._driver = turned_away
        turned_away.take(self, reason_code)

    def data_received(self, data: bytes) -> None:
        if not self.inbox:
            self._driver.has_input(self)
        self.inbox.append(data)
        self._inbox_bytes += len(data)
        if self._inbox_bytes >= INBOX_BYTES_MAX:
            self._driver.has_enough(self)

    def eof_received(self) -> bool:
        # Not left to the event loop, which would wait for ever for a peer that does not read.
        self.close()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        transport = self.transport
        assert transport is not None
        self.transport = None  # nothing can be paused any more
        self._stop_timer()
        if exc is not None:
            read_rest(transport, self.data_received)
        self.arrival.left()
        self._driver.lost(self)

    def pause_writing(self) -> None:
        # One that is turned away is no peer, and can be full all the same, of pongs for instance.
        if self.peer is not None:
            self.peer.is_socket_full = True
        if self._unread_timer is None:
            self._unread_bytes = 0
            self._look_later()

    def resume_writing(self) -> None:
        self._stop_timer()
        self._driver.drained(self)

    def take_input(self) -> bytes:
        """All that has come since the last turn."""
        inbox = self.inbox
        data = inbox[0] if len(inbox) == 1 else b"".join(inbox)
        inbox.clear()
        self._inbox_bytes = 0
        return data

    def pause_reading(self, is_paused: bool) -> None:
        """Stop or go on reading from this publisher."""
        if self.transport is None or is_paused == self._is_paused:
            return
        self._is_paused = is_paused
        if is_paused:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def write(self, data: bytes) -> None:
        if self.transport is not None:
            self.transport.write(data)

    def close(self) -> None:
        """Close once all is written, or after a while if the peer does not read it."""
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        transport.close()
        if transport.get_write_buffer_size() > 0:
            asyncio.get_running_loop().call_later(CLOSE_TIMEOUT_S, transport.abort)

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def _look_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._unread_timer = loop.call_later(UNREAD_TIMEOUT_S, self._look)

    def _look(self) -> None:
        """End it if the peer has not taken a byte since the last look."""
        self._unread_timer = None
        transport = self.transport
        if transport is None:
            return
        waiting = transport.get_write_buffer_size()
        if waiting == self._unread_bytes:
            self.tell(f"closed: the client took no data for {UNREAD_TIMEOUT_S:g} s")
            transport.abort()
            return
        self._unread_bytes = waiting
        self._look_later()

    def _stop_timer(self) -> None:
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None

    @property
    def is_server_stopping(self) -> bool:
        """Whether it ends because nobody is served any more."""
        return self._driver.is_stopping

    def tell(self, text: str) -> None:
        """Tell the operator what happened to this connection below MQTT."""
        self._driver.tell(self, text)

    def unfit(self, what: str, text: str) -> None:
        """The same of a peer that is at fault, which counts: as one of UNFIT."""
        self._driver.unfit(self, what, text)


def read_rest(transport: asyncio.Transport, data_received: Callable[[bytes], None]) -> None:
    """Read what the peer sent before it went.

    A client that leaves with unread data resets the connection. If that shows in a write of ours,
    its last acknowledgements and its DISCONNECT still lie unread in our socket.
    """
    socket = transport.get_extra_info("socket")
    for _ in range(REST_READS_MAX):
        try:
            data = os.read(socket.fileno(), REST_READ_BYTES)
        except OSError:
            return
        if not data:
            return
        data_received(data)
