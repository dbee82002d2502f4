"""A raw WebSocket client: frames exactly as a test wants them, right or wrong.

Not made of the broker's own code, and of no library, which would not send what is wrong.
"""

import base64
import hashlib
import os
import socket
from dataclasses import dataclass
from typing import Final, Self

from tests.support.broker import BrokerProcess
from tests.support.packets import V5
from tests.support.wire import PATIENCE_S, Wire

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

_KEY: Final = base64.b64encode(b"sixteen bytes it").decode()
_XORED: Final = [bytes(byte ^ mask for byte in range(256)) for mask in range(256)]


def accept_of(key: str) -> str:
    """The Sec-WebSocket-Accept that belongs to a Sec-WebSocket-Key."""
    guid = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    return base64.b64encode(hashlib.sha1(key.encode() + guid).digest()).decode()


def frame(
    payload: bytes,
    kind: int = BINARY,
    *,
    is_final: bool = True,
    is_masked: bool = True,
    reserved: int = 0,
    key: bytes = b"\x12\x34\xab\xcd",
    length: int | None = None,
    width: int | None = None,
) -> bytes:
    """One frame. ``length`` is what it announces, in ``width`` bytes of its own (0, 2 or 8)."""
    length = len(payload) if length is None else length
    if width is None:
        width = 0 if length < 126 else 2 if length < 65_536 else 8
    short = {0: length, 2: 126, 8: 127}[width]
    head = bytes((0x80 * is_final | reserved | kind, 0x80 * is_masked | short))
    head += length.to_bytes(width, "big") if width else b""
    if not is_masked:
        return head + payload
    masked = bytearray(payload)
    for n in range(4):
        masked[n::4] = payload[n::4].translate(_XORED[key[n]])
    return head + key + masked


def request(
    path: str = "/mqtt", *, without: str = "", version: str = "HTTP/1.1", **headers: str
) -> bytes:
    """The request that opens a WebSocket; ``X_y`` stands for the header X-y, ``without`` one."""
    every = {
        "Host": "broker.example",
        "Upgrade": "websocket",
        "Connection": "keep-alive, Upgrade",
        "Sec-WebSocket-Key": _KEY,
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Protocol": "mqtt",
    } | {name.replace("_", "-"): value for name, value in headers.items()}
    every.pop(without, None)
    lines = [f"GET {path} {version}", *(f"{name}: {value}" for name, value in every.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


@dataclass(frozen=True, slots=True)
class Response:
    """An HTTP response; names of headers in small letters."""

    status: int
    headers: dict[str, str]
    body: str


@dataclass(frozen=True, slots=True)
class Frame:
    """What the server has sent; ``code`` is that of a close frame."""

    kind: int
    payload: bytes

    @property
    def code(self) -> int:
        assert self.kind == CLOSE, f"expected a close frame, got {self}"
        return int.from_bytes(self.payload[:2], "big")


class WebSocket:
    """One connection to the server, which tests of frames drive by hand.

    It has the methods of a socket that Wire uses, for MQTT in binary frames.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._buffer = b""

    @classmethod
    def connected(cls, port: int) -> Self:
        """A connection without a request."""
        connection = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return cls(connection)

    @classmethod
    def opened(cls, port: int, path: str = "/mqtt", **headers: str) -> Self:
        """An open WebSocket."""
        opened = cls.connected(port)
        opened.open(path, **headers)
        return opened

    def open(self, path: str = "/mqtt", **headers: str) -> None:
        """Open the WebSocket on a connection that is there."""
        self.socket.sendall(request(path, **headers))
        response = self.response()
        assert response.status == 101, response
        assert response.headers["sec-websocket-accept"] == accept_of(_KEY)
        assert response.headers["sec-websocket-protocol"] == "mqtt"
        assert "sec-websocket-extensions" not in response.headers

    def response(self) -> Response:
        """The response to a request."""
        while b"\r\n\r\n" not in self._buffer:
            self._more()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        pairs = [line.split(": ", 1) for line in lines]
        headers = {name.lower(): value for name, value in pairs}
        length = int(headers.get("content-length", "0"))
        while len(self._buffer) < length:
            self._more()
        body, self._buffer = self._buffer[:length].decode(), self._buffer[length:]
        return Response(int(status.split()[1]), headers, body)

    def frame(self) -> Frame:
        """The next frame of the server, which has to be whole and not masked."""
        self._need(2)
        first, length = self._buffer[0], self._buffer[1]
        assert length < 0x80, "the server must not mask"
        width = {126: 2, 127: 8}.get(length, 0)
        self._need(2 + width)
        if width:
            length = int.from_bytes(self._buffer[2 : 2 + width], "big")
        self._need(2 + width + length)
        payload = self._buffer[2 + width : 2 + width + length]
        self._buffer = self._buffer[2 + width + length :]
        assert first & 0xF0 == 0x80, f"expected one whole frame without reserved bits: {first:02x}"
        return Frame(first & 0x0F, payload)

    def until_closed(self) -> list[Frame]:
        """The frames that still come before the server closes, or resets, the connection."""
        found = []
        try:
            while True:
                found.append(self.frame())
        except ConnectionError:
            return found

    def _need(self, size: int) -> None:
        while len(self._buffer) < size:
            self._more()

    def _more(self) -> None:
        data = self.socket.recv(1 << 20)
        if not data:
            raise ConnectionResetError(f"the server closed; unread bytes: {self._buffer[:80]!r}")
        self._buffer += data

    # As a socket, for Wire

    def sendall(self, data: bytes) -> None:
        self.socket.sendall(frame(data, key=os.urandom(4)))

    def recv(self, size: int) -> bytes:
        """MQTT of the next binary frame; none once the server has closed."""
        while True:
            found = self.frame()
            if found.kind == CLOSE:
                return b""
            if found.kind == BINARY and found.payload:
                return found.payload

    def settimeout(self, timeout_s: float) -> None:
        self.socket.settimeout(timeout_s)

    def close(self) -> None:
        self.socket.close()


class WebSocketWire(Wire):
    """The raw MQTT client over WebSocket: each ``send`` is one frame.

    ``listener`` counts from 0, which is the one of plain MQTT: that one serves ``until_marker``
    and its like.
    """

    def __init__(self, broker: BrokerProcess, listener: int = 1, level: int = V5) -> None:
        super().__init__(broker.ports[listener], level)
        self.port = broker.port
        self.websocket = WebSocket(self.socket)
        self.websocket.open()
        self.socket = self.websocket  # type: ignore[assignment]  # has what Wire uses
