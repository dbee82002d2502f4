"""MQTT over WebSocket, the client's end: a layer between a transport, TCP or TLS, and a protocol.

It is the protocol of the transport below, and makes the transport of the protocol above: that one
reads, writes and closes as over TCP. What is written at once is one frame.

Source: RFC 6455; MQTT 5.0 §6.0 and MQTT 3.1.1 §6.0.
"""

import asyncio
import base64
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Generic, TypeVar, cast, final

import h11

from holdfast.client.url import Target
from holdfast.errors import ConnectionLost, UsageError
from holdfast.protocol.upgrade import (
    HEAD_BYTES_MAX,
    KEY_BYTES,
    PROTOCOL,
    VERSION,
    accept_of,
    header_words,
)
from holdfast.protocol.websocket import (
    NO_CODE,
    NORMAL_CLOSURE,
    FrameReader,
    close_frame,
    masked_frame,
    pong_frame,
)

P = TypeVar("P", bound=asyncio.Protocol)

CLOSE_TIMEOUT_S: Final = 5.0  # that a server may take to answer our close
REASON_CHARACTERS_MAX: Final = 120  # of a server's words that are told of
_RANDOM_BYTES: Final = 4096  # asked of the system at a time, for the keys of a thousand frames
_MASK_BYTES: Final = 4

# Headers that are the handshake's own.
_RESERVED: Final = frozenset(
    {"host", "upgrade", "connection", "content-length", "transfer-encoding"}
)
_PORTS: Final = {"ws": 80, "wss": 443}
_HINTS: Final = {
    401: "it wants to know who asks: see headers",
    403: "it does not let this client in",
    404: "is the path in the URL the broker's?",
    426: "it speaks another version, or a proxy on the way does not pass on the upgrade",
}


@final
class WebSocket(asyncio.Protocol, Generic[P]):
    """One WebSocket, from its request to its end. ``opened`` is done once it is open.

    The protocol above is made then, and not before.
    """

    def __init__(
        self,
        target: Target,
        make_protocol: Callable[[], P],
        headers: Mapping[str, str],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[tuple[asyncio.Transport, P]]
        self.opened = self._loop.create_future()
        self._target = target
        self._make_protocol = make_protocol
        self._handshake: Handshake | None = Handshake(target, headers)
        self._reader = FrameReader(is_client=True)
        self._transport: asyncio.Transport | None = None
        self._above: P | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._lost: Exception | None = None  # why it ends
        self._keys = b""  # random bytes, of which the first ``_keys_used`` have been used
        self._keys_used = 0
        self._is_writing_paused = False
        self.is_reading_paused = False
        self.is_ending = False  # our last word is said

    # --- what the transport reports

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        assert self._handshake is not None
        self._transport.write(self._handshake.request)

    def data_received(self, data: bytes) -> None:
        if self._handshake is not None:
            try:
                rest = self._handshake.receive(data)
            except ConnectionLost as error:
                self._fail_to_open(error)
                return
            if rest is None:
                return
            self._open()
            data = rest
        if data:
            self._take(data)

    def eof_received(self) -> bool:
        if self._handshake is not None:
            self._fail_to_open(
                ConnectionLost(
                    f"{self._target}: the server closed the connection without an answer to the"
                    " request for a WebSocket"
                )
            )
        elif not self.is_ending and self._above is not None:
            self._above.eof_received()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_ending = True
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        if not self.opened.done():
            text = f"{self._target}: the connection ended before the WebSocket was open"
            self._fail_to_open(exc or ConnectionLost(text))
        if self._above is not None:
            self._above.connection_lost(self._lost or exc)

    def pause_writing(self) -> None:
        self._is_writing_paused = True
        if self._above is not None:
            self._above.pause_writing()

    def resume_writing(self) -> None:
        self._is_writing_paused = False
        self._pong()
        if self._above is not None:
            self._above.resume_writing()

    # --- what the protocol above asks for

    def write(self, data: bytes) -> None:
        """Send MQTT, as one frame."""
        if data and not self.is_ending and self._transport is not None:
            self._transport.write(masked_frame(data, self._key()))

    def pause_reading(self, is_paused: bool) -> None:
        if self._transport is None or self.is_ending:
            return
        self.is_reading_paused = is_paused
        if is_paused:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def close(self) -> None:
        """Say that we close once all is written; the server answers that, and closes."""
        transport = self._transport
        if self.is_ending or transport is None:
            return
        self.is_ending = True
        transport.write(close_frame(NORMAL_CLOSURE, "", self._key()))
        self._timer = self._loop.call_later(CLOSE_TIMEOUT_S, transport.abort)
        if self.is_reading_paused:
            transport.resume_reading()

    def abort(self) -> None:
        self.is_ending = True
        if self._transport is not None:
            self._transport.abort()

    # --- the inner working

    def _open(self) -> None:
        assert self._transport is not None
        self._handshake = None
        if self.opened.done():  # whoever asked for it waits no more
            self._transport.abort()
            return
        self._above = self._make_protocol()
        transport = WebSocketTransport(self, self._transport)
        self._above.connection_made(transport)
        self.opened.set_result((transport, self._above))

    def _fail_to_open(self, error: Exception) -> None:
        if not self.opened.done():
            self.opened.set_exception(error)
            self.opened.exception()  # It is no one's fault if nobody waits for it any more.
        if self._transport is not None:
            self._transport.abort()

    def _take(self, data: bytes) -> None:
        reader = self._reader
        if reader.close_code:
            return  # Behind the last word nothing counts.
        mqtt = reader.receive(data)
        if mqtt and not self.is_ending and self._above is not None:
            self._above.data_received(mqtt)
        if reader.ping is not None:
            self._pong()
        if reader.close_code:
            self._closed_by_server()

    def _pong(self) -> None:
        """Answer the newest ping, unless the server does not read."""
        ping = self._reader.ping
        if ping is None or self._is_writing_paused or self.is_ending or self._transport is None:
            return
        self._reader.ping = None
        self._transport.write(pong_frame(ping, self._key()))

    def _closed_by_server(self) -> None:
        """The server has closed, or answered our close, or sent what it must not."""
        reader, transport = self._reader, self._transport
        if transport is None:
            return
        if not self.is_ending:
            self.is_ending = True
            self._lost = self._why_closed()
            transport.write(close_frame(reader.close_code, reader.fault, self._key()))
        if self._timer is None:
            self._timer = self._loop.call_later(CLOSE_TIMEOUT_S, transport.abort)
        transport.close()

    def _why_closed(self) -> ConnectionLost | None:
        reader = self._reader
        if reader.fault:
            return ConnectionLost(f"the server broke the rules of WebSocket: {reader.fault}")
        if reader.close_code in (NORMAL_CLOSURE, NO_CODE):
            return None
        reason = f": {_shown(reader.close_reason)}" if reader.close_reason else ""
        return ConnectionLost(
            f"the server closed the WebSocket with code {reader.close_code}{reason}"
        )

    def _key(self) -> bytes:
        """A key for one frame, which nobody can foretell. Source: RFC 6455 §5.3."""
        start = self._keys_used
        if start >= len(self._keys):
            self._keys = os.urandom(_RANDOM_BYTES)
            start = 0
        self._keys_used = start + _MASK_BYTES
        return self._keys[start : self._keys_used]


@final
class WebSocketTransport(asyncio.Transport):
    """The transport of the protocol above."""

    def __init__(self, websocket: WebSocket[P], below: asyncio.Transport) -> None:
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
        self._websocket.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        """WebSocket has no half of a close."""
        return False

    def is_reading(self) -> bool:
        return not self._websocket.is_reading_paused

    def pause_reading(self) -> None:
        self._websocket.pause_reading(True)

    def resume_reading(self) -> None:
        self._websocket.pause_reading(False)

    def is_closing(self) -> bool:
        return self._websocket.is_ending or self._below.is_closing()

    def close(self) -> None:
        self._websocket.close()

    def abort(self) -> None:
        self._websocket.abort()


@final
class Handshake:
    """The request for a WebSocket, and the server's answer to it as far as it has come.

    Raises UsageError for headers that cannot be sent; their values are not shown.
    """

    def __init__(self, target: Target, headers: Mapping[str, str]) -> None:
        self._target = target
        self._key = base64.b64encode(os.urandom(KEY_BYTES))
        self._bytes = 0  # that have come before the answer
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES_MAX)
        host = target.host.partition("%")[0]  # without the zone of an address
        host = f"[{host}]" if ":" in host else host
        if target.port != _PORTS[target.transport]:
            host = f"{host}:{target.port}"
        lines = [
            (b"Host", host.encode("ascii") if host.isascii() else host.encode("idna")),
            (b"Upgrade", b"websocket"),
            (b"Connection", b"Upgrade"),
            (b"Sec-WebSocket-Key", self._key),
            (b"Sec-WebSocket-Version", VERSION),
            (b"Sec-WebSocket-Protocol", PROTOCOL),
            *_checked(headers),
        ]
        path = f"{target.path}?{target.query}" if target.query else target.path
        request = h11.Request(method="GET", target=path, headers=lines)
        self.request: Final = self._http.send(request) or b""

    def receive(self, data: bytes) -> bytes | None:
        """What came behind the answer, once that is there; ConnectionLost for a wrong one."""
        self._http.receive_data(data)
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                raise self._failure(_protocol_fault(error)) from error
            if isinstance(event, h11.InformationalResponse):
                if event.http_version != b"1.1":
                    raise self._failure("its answer is not HTTP/1.1")
                if event.status_code != 101:
                    continue  # Something may come before the answer, such as 103.
                self._check(event)
                rest, _ = self._http.trailing_data
                return bytes(rest)
            if isinstance(event, h11.Response):
                raise self._refusal(event)
            if event is h11.NEED_DATA:
                self._bytes += len(data)
                if self._bytes > HEAD_BYTES_MAX:
                    raise self._failure(f"more than {HEAD_BYTES_MAX} bytes come before its answer")
                return None
            raise self._failure("something else than an answer came")

    def _refusal(self, response: h11.Response) -> ConnectionLost:
        phrase = _shown(response.reason.decode("latin-1"))
        hint = _HINTS.get(response.status_code, "")
        if 300 <= response.status_code < 400:
            hint = "it is to be found elsewhere, and the URL has to say where"
        return self._failure(
            f"HTTP {response.status_code}{f' {phrase}' if phrase else ''}"
            f"{f'; {hint}' if hint else ''}"
        )

    def _check(self, answer: h11.InformationalResponse) -> None:
        """Whether the answer is one to our request. Source: RFC 6455 §4.1, [MQTT-6.0.0-4]."""
        headers: dict[bytes, list[bytes]] = {}
        for name, value in answer.headers:
            headers.setdefault(name, []).append(value)
        if b"websocket" not in header_words(headers.get(b"upgrade", ())):
            raise self._failure("HTTP 101 without Upgrade: websocket")
        if b"upgrade" not in header_words(headers.get(b"connection", ())):
            raise self._failure("HTTP 101 without Connection: Upgrade")
        if headers.get(b"sec-websocket-accept") != [accept_of(self._key)]:
            raise self._failure("its Sec-WebSocket-Accept does not belong to our request")
        if header_words(headers.get(b"sec-websocket-extensions", ())) not in ([], [b""]):
            raise self._failure("it wants an extension, and none was offered")
        if headers.get(b"sec-websocket-protocol") != [PROTOCOL]:
            raise self._failure("it does not speak the subprotocol mqtt")

    def _failure(self, what: str) -> ConnectionLost:
        return ConnectionLost(f"{self._target}: the server did not open the WebSocket: {what}")


def _checked(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """The caller's headers, which must not be those of the handshake."""
    lines = []
    for name, value in headers.items():
        if name.lower() in _RESERVED or name.lower().startswith("sec-websocket-"):
            raise UsageError(f"the header {name} is the handshake's own")
        try:
            line = name.encode("ascii"), value.encode("latin-1")
            h11.Request(method="GET", target="/", headers=[(b"Host", b"a"), line])
        except (h11.LocalProtocolError, UnicodeEncodeError):
            # Without the cause, which shows the value.
            raise UsageError(
                f"the header {name!r}: expected a name and a value that HTTP allows"
            ) from None
        lines.append(line)
    return lines


def _protocol_fault(error: h11.RemoteProtocolError) -> str:
    if error.error_status_hint == 431:
        return f"its answer has more than {HEAD_BYTES_MAX} bytes of headers"
    return "its answer is not HTTP/1.1"


def _shown(text: str) -> str:
    """A server's words, short and on one line."""
    return "".join(
        sign if sign.isprintable() else "\ufffd" for sign in text[:REASON_CHARACTERS_MAX]
    ).strip()
