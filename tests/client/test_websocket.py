"""The client's WebSocket against servers that do what they should, and what they should not."""

import asyncio
import re
import socket
import threading
from collections.abc import Callable

import pytest

from holdfast.client import websocket as module
from holdfast.client.transports import open_transport
from holdfast.client.url import parse_url
from holdfast.errors import ConnectionLost, UsageError
from holdfast.protocol.websocket import FRAME_ERROR, UNSUPPORTED_DATA, FrameReader
from tests.client.peer import LOOPS, Heard, run, serving
from tests.client.world import ClientWorld
from tests.support import packets
from tests.support.websocket import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    accept_of,
    frame,
)
from tests.support.wire import PATIENCE_S

Serve = Callable[[socket.socket], None]
CLOSE_1000 = frame(b"\x03\xe8", CLOSE, is_masked=False)


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


def asked(connection: socket.socket) -> bytes:
    """The request, whole."""
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        data += connection.recv(1000)
    return data


def answer(request: bytes, without: str = "", **headers: str) -> bytes:
    """A right answer, but for these headers; ``X_y`` stands for X-y."""
    key = re.search(rb"Sec-WebSocket-Key: (\S+)\r\n", request, re.IGNORECASE)
    assert key is not None
    every = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Accept": accept_of(key[1].decode()),
        "Sec-WebSocket-Protocol": "mqtt",
    } | {name.replace("_", "-"): value for name, value in headers.items()}
    every.pop(without, None)
    lines = ["HTTP/1.1 101 Switching Protocols", *(f"{k}: {v}" for k, v in every.items())]
    return "\r\n".join([*lines, "", ""]).encode()


def said(connection: socket.socket) -> list[tuple[int, bytes]]:
    """All frames that the client sends until it has closed, unmasked: kind and payload."""
    data = b""
    try:
        while more := connection.recv(1 << 20):
            data += more
    except ConnectionResetError:
        pass
    return frames_of(data)


def until_close(connection: socket.socket) -> list[tuple[int, bytes]]:
    """All frames that the client sends, its close included."""
    data, reader = b"", FrameReader()
    while reader.close_code == 0:
        more = connection.recv(1 << 20)
        reader.receive(more)
        data += more
    return frames_of(data)


def frames_of(data: bytes) -> list[tuple[int, bytes]]:
    """The frames in what a client has sent; each has to be whole, masked, and of its own key."""
    found, keys = [], set()
    while data:
        first, length = data[0], data[1] & 127
        assert first & 0xF0 == 0x80
        assert data[1] & 128, "a client masks"
        width = {126: 2, 127: 8}.get(length, 0)
        if width:
            length = int.from_bytes(data[2 : 2 + width], "big")
        key, body = data[2 + width : 6 + width], data[6 + width : 6 + width + length]
        assert len(body) == length
        assert key not in keys
        keys.add(key)
        found.append((first & 15, bytes(b ^ key[n % 4] for n, b in enumerate(body))))
        data = data[6 + width + length :]
    return found


def connected(
    loop: str,
    serve: Serve,
    then: Callable[[asyncio.Transport, Heard], object] | None = None,
    *,
    url: str = "ws://user:s3cret@127.0.0.1:{port}/mqtt?sig=s3cret",
    timeout_s: float = PATIENCE_S,
) -> Heard:
    """Open a WebSocket to this server, do ``then``, and wait for the end of the connection."""

    async def work(port: int) -> Heard:
        target = parse_url(url.format(port=port))
        transport, heard = await open_transport(target, Heard, timeout_s=timeout_s)
        assert isinstance(heard, Heard)
        if then is not None:
            done = then(transport, heard)
            if asyncio.iscoroutine(done):
                await done
        await heard.ended()
        assert transport.is_closing()
        transport.write(b"behind the end")
        transport.close()
        transport.abort()
        return heard

    with serving(serve) as port:
        return run(loop, work(port))


def failure(loop: str, data: bytes | Serve, *, timeout_s: float = PATIENCE_S) -> str:
    """What is said of a server that answers the request with this."""

    def serve(connection: socket.socket) -> None:
        request = asked(connection)
        if isinstance(data, bytes):
            connection.sendall(data)
            connection.recv(1)
        else:
            connection.sendall(answer(request)) if data is None else data(connection)

    with pytest.raises(ConnectionLost) as lost:
        connected(loop, serve, timeout_s=timeout_s)
    text = str(lost.value)
    assert re.match(r"ws://127\.0\.0\.1:\d+: ", text)
    assert "s3cret" not in text
    assert text.isprintable()
    return text


# --- opening


def test_the_request_is_what_the_standards_want(loop: str) -> None:
    requests = []

    def serve(connection: socket.socket) -> None:
        requests.append(asked(connection))
        connection.sendall(answer(requests[-1]) + CLOSE_1000)
        said(connection)

    for _ in range(2):
        connected(loop, serve)
    first, second = (request.decode().split("\r\n") for request in requests)
    assert first[0] == "GET /mqtt?sig=s3cret HTTP/1.1"
    assert re.fullmatch(r"Host: 127\.0\.0\.1:\d+", first[1])
    assert first[2:4] == ["Upgrade: websocket", "Connection: Upgrade"]
    assert re.fullmatch(r"Sec-WebSocket-Key: [A-Za-z0-9+/]{22}==", first[4])
    assert first[4] != second[4]
    rest = ["Sec-WebSocket-Version: 13", "Sec-WebSocket-Protocol: mqtt", "", ""]
    assert first[5:] == rest  # and no user name or password


def test_headers_of_the_caller_are_sent(loop: str) -> None:
    async def work(port: int) -> None:
        _, heard = await open_transport(
            parse_url(f"ws://127.0.0.1:{port}"),
            Heard,
            timeout_s=PATIENCE_S,
            headers={"Authorization": "Bearer s3cret", "X-Name": "ä"},
        )
        assert isinstance(heard, Heard)
        await heard.ended()

    def serve(connection: socket.socket) -> None:
        request = asked(connection)
        assert b"\r\nAuthorization: Bearer s3cret\r\nX-Name: \xe4\r\n" in request
        connection.sendall(answer(request) + CLOSE_1000)
        said(connection)

    with serving(serve) as port:
        run(loop, work(port))


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("Host", "x", "the handshake's own"),
        ("connection", "x", "the handshake's own"),
        ("Sec-WebSocket-Protocol", "x", "the handshake's own"),
        ("sec-websocket-extensions", "x", "the handshake's own"),
        ("Authorization", "s3cret\r\nX: y", "a name and a value that HTTP allows"),
        ("Authorization", "s3cret\0", "a name and a value that HTTP allows"),
        ("Authorization", "s3cret €", "a name and a value that HTTP allows"),
        ("a b", "s3cret", "a name and a value that HTTP allows"),
        ("", "s3cret", "a name and a value that HTTP allows"),
    ],
)
def test_headers_that_cannot_be_sent(name: str, value: str, expected: str) -> None:
    async def work() -> None:
        target = parse_url("ws://127.0.0.1:1")
        await open_transport(target, Heard, timeout_s=PATIENCE_S, headers={name: value})

    with pytest.raises(UsageError, match=expected) as wrong:
        run("asyncio", work())
    assert "s3cret" not in str(wrong.value)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "its answer is not HTTP/1.1"),
        (b"\x20\x02\x00\x00" * 10 + b"\r\n\r\n", "its answer is not HTTP/1.1"),
        (b"HTTP/1.1 101\r\n: \r\n\r\n", "its answer is not HTTP/1.1"),
        (b"HTTP/1.1 401 Unauthorized\r\n\r\n", "HTTP 401 Unauthorized; it wants to know"),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "HTTP 403 Forbidden; it does not let"),
        (b"HTTP/1.1 500 N\xadthing\r\n\r\n", "HTTP 500 N\ufffdthing$"),
        (b"HTTP/1.1 500 No\x1b[31mthing\r\n\r\n", "HTTP 500 No\ufffd.31mthing$"),
        (b"HTTP/1.1 404 \r\nContent-Length: 9\r\n\r\n", "HTTP 404; is the path in the URL"),
        (b"HTTP/1.1 302 Found\r\nLocation: /s3cret\r\n\r\n", "HTTP 302 Found; .* elsewhere"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "HTTP 200 OK"),
        (b"HTTP/1.1 500 " + b"x" * 9000 + b"\r\n\r\n", "HTTP 500 x{120}$"),
        (b"HTTP/1.1 101 a\r\n" + b"X: y\r\n" * 3000, "more than 16384 bytes of headers"),
        (b"HTTP/1.1 101 " + b"a" * 20_000, "more than 16384 bytes of headers"),
    ],
)
def test_answers_that_open_nothing(loop: str, data: bytes, expected: str) -> None:
    assert re.search(expected, failure(loop, data))


@pytest.mark.spec("MQTT5-6.0.0-4", "MQTT311-6.0.0-4")
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"without": "Upgrade"}, "without Upgrade: websocket"),
        ({"Upgrade": "h2c"}, "without Upgrade: websocket"),
        ({"without": "Connection"}, "without Connection: Upgrade"),
        ({"without": "Sec-WebSocket-Accept"}, "does not belong to our request"),
        ({"Sec_WebSocket_Accept": "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="}, "does not belong"),
        ({"without": "Sec-WebSocket-Protocol"}, "does not speak the subprotocol mqtt"),
        ({"Sec_WebSocket_Protocol": "mqttv3.1"}, "does not speak the subprotocol mqtt"),
        ({"Sec_WebSocket_Protocol": "mqtt, chat"}, "does not speak the subprotocol mqtt"),
        ({"Sec_WebSocket_Extensions": "permessage-deflate"}, "wants an extension"),
    ],
)
def test_a_wrong_101_opens_nothing(loop: str, changes: dict[str, str], expected: str) -> None:
    def serve(connection: socket.socket) -> None:
        connection.sendall(answer(asked(connection), **changes))
        connection.recv(1)

    with pytest.raises(ConnectionLost, match=expected):
        connected(loop, serve)


def test_a_101_of_http_1_0_opens_nothing(loop: str) -> None:
    def serve(connection: socket.socket) -> None:
        connection.sendall(answer(asked(connection)).replace(b"HTTP/1.1", b"HTTP/1.0"))
        connection.recv(1)

    with pytest.raises(ConnectionLost, match=r"not HTTP/1\.1"):
        connected(loop, serve)


def test_a_server_that_hangs_up_on_the_request(loop: str) -> None:
    assert "closed the connection without an answer" in failure(loop, lambda _: None)
    part = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: web"
    assert "without an answer" in failure(loop, lambda connection: connection.sendall(part))


def test_an_answer_that_never_ends(loop: str) -> None:
    def forever(connection: socket.socket) -> None:
        while True:
            connection.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" * 100)

    assert "more than 16384 bytes come before its answer" in failure(loop, forever)


def test_the_answer_may_come_in_any_pieces_and_with_frames_behind(loop: str) -> None:
    mqtt = frame(b"first ", is_masked=False) + frame(b"second", is_masked=False)

    def slowly(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        data = b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" + answer(asked(connection)) + mqtt
        for byte in data:
            connection.sendall(bytes([byte]))
        connection.sendall(CLOSE_1000)
        said(connection)

    def at_once(connection: socket.socket) -> None:
        connection.sendall(answer(asked(connection)) + mqtt + CLOSE_1000)
        said(connection)

    for serve in (slowly, at_once):
        heard = connected(loop, serve)
        assert heard.data == b"first second"
        assert heard.events == ["made", "data", "lost"]
        assert heard.lost is None


# --- frames


def exchange(
    loop: str, data: bytes, *, is_ended_by_server: bool = False
) -> tuple[Heard, list[tuple[int, bytes]]]:
    """What the client makes of this from an open WebSocket's server, and what it answers."""
    frames: list[tuple[int, bytes]] = []

    def serve(connection: socket.socket) -> None:
        connection.sendall(answer(asked(connection)) + data)
        if not is_ended_by_server:
            frames.extend(said(connection))

    return connected(loop, serve), frames


@pytest.mark.spec("MQTT5-6.0.0-2", "MQTT311-6.0.0-2")
def test_frames_are_not_packets(loop: str) -> None:
    """Several packets in one frame, and one in several: the client has the same of them."""
    stream = b"\x20\x03\0\0\0" + b"".join(
        packets.publish(f"t/{number}", b"x" * number) for number in range(40)
    )
    for size in (1, 2, 7, 100, len(stream)):
        pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
        frames = [frame(one, is_masked=False) for one in pieces]
        heard, _ = exchange(loop, b"".join([*frames, CLOSE_1000]))
        assert heard.data == stream
        world = ClientWorld()
        world.open()
        for piece in pieces:
            world.server_bytes(piece)
        assert [message.topic for message in world.arrived] == [f"t/{n}" for n in range(40)]


@pytest.mark.spec("MQTT5-6.0.0-1", "MQTT311-6.0.0-1")
@pytest.mark.parametrize(
    ("wrong", "code", "expected"),
    [
        (frame(b"x"), FRAME_ERROR, "a frame of the server is masked"),
        (frame(b"x", TEXT, is_masked=False), UNSUPPORTED_DATA, "a text frame came"),
        (frame(b"x", reserved=0x40, is_masked=False), FRAME_ERROR, "a reserved bit"),
        (frame(b"x" * 126, PING, is_masked=False), FRAME_ERROR, "more than 125 bytes"),
        (frame(b"x", CONTINUATION, is_masked=False), FRAME_ERROR, "has not begun"),
        (frame(b"", length=1 << 63, is_masked=False), FRAME_ERROR, "more than 63 bits"),
        (frame(b"\0\0", CLOSE, is_masked=False), FRAME_ERROR, "no code"),
    ],
)
def test_a_server_that_breaks_the_rules_is_told_and_left(
    loop: str, wrong: bytes, code: int, expected: str
) -> None:
    before, behind = (frame(text, is_masked=False) for text in (b"before", b"behind"))
    heard, frames = exchange(loop, before + wrong + behind)
    assert heard.data == b"before"
    assert isinstance(heard.lost, ConnectionLost)
    assert expected in str(heard.lost)
    ((kind, payload),) = frames
    assert (kind, int.from_bytes(payload[:2], "big")) == (CLOSE, code)
    assert expected in payload[2:].decode()


def test_a_server_that_closes_is_answered_and_its_reason_told(loop: str) -> None:
    reason = b"go \x1b away"
    heard, frames = exchange(
        loop,
        frame(b"x" + b"", is_masked=False) + frame(b"\x03\xf0" + reason, CLOSE, is_masked=False),
    )
    assert heard.data == b"x"
    assert str(heard.lost) == "the server closed the WebSocket with code 1008: go \ufffd away"
    assert frames == [(CLOSE, b"\x03\xf0")]
    heard, frames = exchange(loop, CLOSE_1000)
    assert heard.lost is None
    assert frames == [(CLOSE, b"\x03\xe8")]
    heard, frames = exchange(loop, frame(b"", CLOSE, is_masked=False))
    assert heard.lost is None
    assert frames == [(CLOSE, b"")]


def test_a_connection_that_ends_within_a_frame(loop: str) -> None:
    part = frame(b"half of it is here", is_masked=False)[:11]
    heard, _ = exchange(loop, part, is_ended_by_server=True)
    assert heard.data == b"half of i"
    assert heard.events == ["made", "data", "eof", "lost"]


def test_pings_are_answered(loop: str) -> None:
    ping = frame(b"are you there", PING, is_masked=False)
    heard, frames = exchange(loop, ping + frame(b"a", is_masked=False) + CLOSE_1000)
    assert heard.data == b"a"
    assert frames == [(PONG, b"are you there"), (CLOSE, b"\x03\xe8")]
    flood = b"".join(frame(b"%d" % n, PING, is_masked=False) for n in range(10_000))
    heard, frames = exchange(loop, flood + CLOSE_1000)
    assert len(frames) < 1000
    assert frames[-2][1] == b"9999"


@pytest.mark.spec("MQTT5-6.0.0-1", "MQTT311-6.0.0-1")
def test_what_is_written_at_once_is_one_masked_frame(loop: str) -> None:
    frames: list[tuple[int, bytes]] = []

    def serve(connection: socket.socket) -> None:
        connection.sendall(answer(asked(connection)))
        frames.extend(until_close(connection))
        connection.sendall(CLOSE_1000)

    sizes = [1, 125, 126, 8191, 8192, 65_535, 65_536, 1_000_000]

    def write(transport: asyncio.Transport, _: Heard) -> None:
        transport.write(b"")
        for size in sizes:
            transport.write(bytearray(b"abcde" * (size // 5 + 1))[:size])
        transport.writelines([b"the ", memoryview(b"end")])
        transport.close()

    connected(loop, serve, write)
    assert frames.pop() == (CLOSE, b"\x03\xe8")
    assert [kind for kind, _ in frames] == [BINARY] * (len(sizes) + 1)
    assert [len(body) for _, body in frames] == [*sizes, 7]
    for (_, body), size in zip(frames, sizes, strict=False):
        assert body == (b"abcde" * (size // 5 + 1))[:size]
    assert frames[-1][1] == b"the end"


def test_a_server_that_does_not_read_pauses_writing(loop: str) -> None:
    def serve(connection: socket.socket) -> None:
        connection.sendall(answer(asked(connection)))
        is_paused.wait(PATIENCE_S)
        connection.sendall(frame(b"1", PING, is_masked=False) + frame(b"2", PING, is_masked=False))
        is_pinged.wait(PATIENCE_S)
        said(connection)

    is_paused, is_pinged = threading.Event(), threading.Event()

    async def write(transport: asyncio.Transport, heard: Heard) -> None:
        while "pause" not in heard.events:
            transport.write(b"x" * 100_000)
            await asyncio.sleep(0)
        assert transport.get_write_buffer_size() > 0
        is_paused.set()
        is_pinged.set()
        await heard.until(lambda: "resume" in heard.events)
        transport.abort()

    heard = connected(loop, serve, write)
    assert heard.events == ["made", "pause", "resume", "lost"]


# --- our close


def test_our_close_waits_for_what_was_written_and_for_the_answer(loop: str) -> None:
    frames: list[tuple[int, bytes]] = []

    def serve(connection: socket.socket) -> None:
        connection.sendall(answer(asked(connection)))
        frames.extend(until_close(connection))
        connection.sendall(frame(b"what came too late", is_masked=False) + CLOSE_1000)
        assert said(connection) == []

    def close(transport: asyncio.Transport, heard: Heard) -> None:
        transport.write(b"last")
        transport.pause_reading()
        transport.close()
        transport.close()
        transport.write(b"behind")

    heard = connected(loop, serve, close)
    assert frames == [(BINARY, b"last"), (CLOSE, b"\x03\xe8")]
    assert heard.events == ["made", "lost"]
    assert heard.lost is None


def test_a_server_that_does_not_answer_our_close_is_left(
    loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def serve(connection: socket.socket) -> None:
        connection.sendall(answer(asked(connection)))
        said(connection)

    monkeypatch.setattr(module, "CLOSE_TIMEOUT_S", 0.02)
    heard = connected(loop, serve, lambda transport, _: transport.close())
    assert heard.events == ["made", "lost"]
