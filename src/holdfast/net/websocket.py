"""MQTT over WebSocket: a layer between a transport, TCP or TLS, and the connection on top.

It is the protocol of the transport below, and the transport of the connection above: that one
reads, writes and closes as over TCP. What is written at once is one frame. ``docs/internals/
websocket.md`` has the reasons.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, cast, final

from holdfast.net.arrival import Arrival, MakeLayer
from holdfast.net.connection import CLOSE_TIMEOUT_S, NetConnection, read_rest
from holdfast.net.upgrade import Answer, Upgrade
from holdfast.protocol.websocket import (
    GOING_AWAY,
    NORMAL_CLOSURE,
    POLICY_VIOLATION,
    FrameReader,
    close_frame,
    data_header,
    ping_frame,
    pong_frame,
)

if TYPE_CHECKING:
    from holdfast.config.listeners import ListenerSettings, WebSocketSettings

# Behind our last word the peer may say so much, as it cannot know yet; more is not for us.
LAST_BYTES_MAX: Final = 1024 * 1024
# Up to this size a frame is put together, above it its header is written apart.
COPIED_BYTES_MAX: Final = 16 * 1024
# That one client brings to a pass of the event loop, which itself reads up to 8 MiB: there may be
# ten thousand frames in it, and no MQTT that would have to wait for its turn.
PASS_BYTES_MAX: Final = 64 * 1024
# A look at the silence that comes so late says nothing: whoever answered was not heard.
LATE_S: Final = 1.0

WAIT: Final = 0
PING: Final = 1
GIVE_UP: Final = 2


def over_websocket(
    settings: "ListenerSettings", make_connection: Callable[[Arrival], NetConnection]
) -> MakeLayer:
    """What makes the protocol of each connection that a listener for WebSocket takes in."""
    websocket = settings.websocket
    assert websocket is not None
    is_3_1_spoken = "3.1" in settings.versions
    return lambda arrival: WebSocket(
        make_connection(arrival), websocket, is_3_1_spoken=is_3_1_spoken
    )


@final
class WebSocket(asyncio.Protocol):
    """One WebSocket, from its HTTP request to its end.

    The connection on top is there from the start: the time to CONNECT includes the request.
    """

    def __init__(
        self, connection: NetConnection, settings: "WebSocketSettings", *, is_3_1_spoken: bool
    ) -> None:
        self.connection = connection
        self._interval_s = settings.ping_interval_s
        self._transport: asyncio.Transport | None = None
        self._upgrade: Upgrade | None = Upgrade(settings, is_3_1_spoken=is_3_1_spoken)
        self._reader = FrameReader()
        self._loop = asyncio.get_running_loop()
        self._silence: Silence | None = None
        self._timer: asyncio.TimerHandle | None = None  # of the next look at it, or of the end
        self._is_writing_paused = False
        self._is_reading_paused = False
        self._is_half_closable = False
        self.is_ending = False  # our last word is said
        self._held = b""  # came, and waits for its pass
        self._last_bytes = 0  # that came behind it

    # --- what the transport reports

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._is_half_closable = _is_half_closable(self._transport)
        self.connection.connection_made(WebSocketTransport(self, self._transport))

    def data_received(self, data: bytes) -> None:
        if self._held or len(data) > PASS_BYTES_MAX:
            self._hold(data)
        else:
            self._take(data)

    def _take(self, data: bytes) -> None:
        if self.is_ending:
            self._last_words(data)
            return
        if self._silence is not None:
            self._silence.heard(self._loop.time())
        elif self._upgrade is not None:
            answer = self._upgrade.receive(data)
            if answer is None or not self._opened(answer):
                return
            data = answer.rest
        reader = self._reader
        mqtt = reader.receive(data)
        if mqtt:
            self.connection.data_received(mqtt)
        if reader.ping is not None and not self._is_writing_paused:
            self._pong()
        if reader.close_code:
            self._closed_by_peer()

    def connection_lost(self, exc: Exception | None) -> None:
        is_open = self._upgrade is None and not self.is_ending
        held, self._held = self._held, b""
        try:
            if is_open and held:
                self._take(held)
            if exc is not None and is_open and self._transport is not None:
                read_rest(self._transport, self._take)
        finally:
            self._transport = None
            self._stop_timer()
            self.connection.connection_lost(None)

    def eof_received(self) -> bool:
        # A peer that has sent its last word but does not read is waited for only so long.
        transport = self._transport
        if transport is not None and not transport.is_closing():
            self.is_ending = True
            self._stop_timer()
            self._timer = self._loop.call_later(CLOSE_TIMEOUT_S, transport.abort)
            transport.close()
        return True

    def pause_writing(self) -> None:
        self._is_writing_paused = True
        self.connection.pause_writing()

    def resume_writing(self) -> None:
        self._is_writing_paused = False
        if self._reader.ping is not None and not self.is_ending:
            self._pong()
        self.connection.resume_writing()

    # --- what the connection on top asks for

    def write(self, data: bytes) -> None:
        """Send MQTT, as one frame."""
        if self.is_ending or self._upgrade is not None or self._transport is None:
            return
        header = data_header(len(data))
        if len(data) <= COPIED_BYTES_MAX:
            self._transport.write(header + data)
        else:
            self._transport.writelines((header, data))

    def pause_reading(self, is_paused: bool) -> None:
        if self._transport is None or self.is_ending:
            return
        self._is_reading_paused = is_paused
        if is_paused:
            self._transport.pause_reading()
        elif not self._held:
            self._transport.resume_reading()

    def close(self) -> None:
        """Say the last word once all is written, and close when the peer has answered it."""
        if self._upgrade is not None:
            self._refuse(self._upgrade.timed_out())  # That is why, before it is open.
        else:
            self._end(close_frame(self._close_code(), ""), is_waiting=True)

    def _close_code(self) -> int:
        """What to close with: all that clients before MQTT 5.0 are told of the reason."""
        peer = self.connection.peer
        if peer is not None and peer.is_at_fault:
            return POLICY_VIOLATION
        return GOING_AWAY if self.connection.is_server_stopping else NORMAL_CLOSURE

    # --- the inner working

    def _opened(self, answer: Answer) -> bool:
        """Send the answer to the request; whether the WebSocket is open now."""
        assert self._transport is not None
        if answer.refusal:
            self.connection.unfit("websocket", f"refused: {answer.refusal}")
            self._refuse(answer)
            return False
        self._upgrade = None
        self._transport.write(answer.data)
        if self._interval_s > 0:
            self._silence = Silence(self._interval_s, self._loop.time())
            self._timer = self._loop.call_at(self._silence.due_s, self._look)
        return True

    def _refuse(self, answer: Answer) -> None:
        # Without half of a close, a browser that keeps its connection would be waited for.
        self._end(answer.data, is_waiting=self._is_half_closable)

    def _hold(self, data: bytes) -> None:
        """Take a part of this in each pass, and read no more until that is done."""
        if not self._held:
            self._loop.call_soon(self._read_on)
            if self._transport is not None:
                self._transport.pause_reading()
        self._held += data

    def _read_on(self) -> None:
        held, self._held = self._held[:PASS_BYTES_MAX], self._held[PASS_BYTES_MAX:]
        if held:
            try:
                self._take(held)
            except Exception:
                self._held = b""
                if self._transport is not None:
                    self._transport.abort()  # as the event loop does where it calls itself
                raise
        if self._held:
            self._loop.call_soon(self._read_on)
            return
        transport = self._transport
        if transport is not None and not transport.is_closing() and not self._is_reading_paused:
            transport.resume_reading()

    def _pong(self) -> None:
        assert self._reader.ping is not None
        if self._transport is not None:
            self._transport.write(pong_frame(self._reader.ping))
        self._reader.ping = None

    def _closed_by_peer(self) -> None:
        """The peer has closed, or has sent what it must not: answer that, and close."""
        reader = self._reader
        if reader.fault:
            self.connection.unfit("websocket", f"closed: {reader.fault}")
        self._end(close_frame(reader.close_code, reader.fault), is_waiting=False)

    def _end(self, last_word: bytes, *, is_waiting: bool) -> None:
        """Write this and close, or with ``is_waiting`` wait a while for the peer to do that first.

        Closed at once, with something of the peer unread, the connection would be reset, and what
        was written last could be lost.
        """
        transport = self._transport
        if self.is_ending or transport is None or transport.is_closing():
            return
        self.is_ending = True
        self._upgrade = None
        self._stop_timer()
        transport.write(last_word)
        self._timer = self._loop.call_later(CLOSE_TIMEOUT_S, transport.abort)
        if not is_waiting:
            transport.close()
            return
        if self._is_reading_paused:
            self._is_reading_paused = False
            transport.resume_reading()
        if self._is_half_closable:
            transport.write_eof()

    def _last_words(self, data: bytes) -> None:
        """Leave unread what comes behind our last word, but for a close frame that answers it."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        self._last_bytes += len(data)
        if self._last_bytes > LAST_BYTES_MAX:
            transport.abort()
            return
        if not self._reader.close_code:
            self._reader.receive(data)
            if self._reader.close_code:
                transport.close()

    def _look(self) -> None:
        """Look whether the peer is still there."""
        silence, transport = self._silence, self._transport
        assert silence is not None
        if transport is None or self.is_ending:
            return
        now_s = self._loop.time()
        if self._is_reading_paused or self._is_writing_paused:
            silence.heard(now_s)  # Its pong would not come through.
        found = silence.look(now_s)
        if found == GIVE_UP:
            self.connection.tell(f"closed: no answer to a ping within {self._interval_s:g} s")
            transport.abort()
            return
        if found == PING:
            transport.write(ping_frame(b""))
        self._timer = self._loop.call_at(silence.due_s, self._look)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _is_half_closable(transport: asyncio.Transport) -> bool:
    """Whether the end of what is written can be told; over TLS it cannot."""
    try:
        return transport.can_write_eof()
    except NotImplementedError:
        return False


@final
class Silence:
    """How long a peer has said nothing, and what to do about it. Times are in seconds."""

    def __init__(self, interval_s: float, now_s: float) -> None:
        self.due_s = now_s + interval_s  # when to look
        self._interval_s = interval_s
        self._heard_s = now_s
        self._is_pinged = False  # since then

    def heard(self, now_s: float) -> None:
        """Something has come, no matter what."""
        self._heard_s = now_s
        self._is_pinged = False

    def look(self, now_s: float) -> int:
        """WAIT, PING, or GIVE_UP if a ping was not answered; ``due_s`` is when to look next."""
        if now_s - self.due_s > LATE_S:
            self.heard(now_s)
        if self._is_pinged:
            return GIVE_UP
        if now_s - self._heard_s < self._interval_s:
            self.due_s = self._heard_s + self._interval_s
            return WAIT
        self._is_pinged = True
        self.due_s = now_s + self._interval_s
        return PING


@final
class WebSocketTransport(asyncio.Transport):
    """The transport of the connection on top."""

    def __init__(self, websocket: WebSocket, below: asyncio.Transport) -> None:
        super().__init__()
        self._websocket = websocket
        self._below = below

    def get_extra_info(self, name: str, default: object = None) -> object:
        return self._below.get_extra_info(name, default)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._below.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        return self._below.get_write_buffer_size()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._websocket.write(bytes(data))

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def pause_reading(self) -> None:
        self._websocket.pause_reading(True)

    def resume_reading(self) -> None:
        self._websocket.pause_reading(False)

    def is_closing(self) -> bool:
        return self._websocket.is_ending or self._below.is_closing()

    def close(self) -> None:
        self._websocket.close()

    def abort(self) -> None:
        self._below.abort()
