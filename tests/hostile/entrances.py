"""Attacks on the ways in: wrong passwords, unfinished TLS, WebSocket frames of wrong kinds."""

import contextlib
import secrets
import socket
import ssl
import zlib
from pathlib import Path
from typing import Final

import argon2
import trustme

from tests.hostile.crowd import Crowd
from tests.hostile.scene import MIB, Attack, Scene
from tests.support import packets
from tests.support.wire import PATIENCE_S

_PASSWORD: Final = secrets.token_hex(8)
LOGIN: Final = ("honest", _PASSWORD)

_REQUEST: Final = (
    b"GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Protocol: mqtt\r\n"
)


def _password_file(folder: Path) -> str:
    """The configuration of a broker that knows the honest user alone."""
    file = folder / "users"
    file.write_text(f"{LOGIN[0]}:{argon2.PasswordHasher().hash(_PASSWORD)}\n")
    file.chmod(0o600)
    return f'[[authenticators]]\nkind = "password_file"\nfile = "{file}"\n'


def _websocket(_: Path) -> str:
    return '[[listeners]]\naddress = "127.0.0.1:0"\nname = "websocket"\n[listeners.websocket]\n'


def _tls(folder: Path) -> str:
    """One more listener, for TLS, with a certificate of its own."""
    certificate = trustme.CA().issue_cert("localhost")
    certificate.cert_chain_pems[0].write_to_path(folder / "certificate.pem")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    (folder / "key.pem").chmod(0o600)
    return (
        '[[listeners]]\naddress = "127.0.0.1:0"\nname = "tls"\n[listeners.tls]\n'
        f'certificate = "{folder}/certificate.pem"\nkey = "{folder}/key.pem"\n'
        "handshake_timeout_s = 3.0\n"
    )


def _client_hello() -> bytes:
    """What a TLS client says first."""
    outgoing = ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, False, "localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def _half_open_tls(scene: Scene) -> None:
    """Handshakes that stop before a byte, within the first record, behind it; and wrong ones."""
    files = scene.server.open_files
    hello = _client_hello()
    starts = (b"", hello[:3], hello[:60], hello, packets.connect("plain"), hello[:5] + bytes(600))
    with contextlib.ExitStack() as stack:
        crowds = []
        for start in starts:
            crowd = stack.enter_context(Crowd(scene.broker.ports[1], scene.size // len(starts)))
            crowd.send_each(start)
            crowds.append(crowd)
        scene.serve_on()
        for crowd in crowds:
            crowd.until_closed(scene.size // len(starts))
            scene.note("closed", crowd.closed)
    scene.until_gone(files)


def _wrong_passwords(scene: Scene) -> None:
    """CONNECT after CONNECT with wrong passwords, for a user that is and for some that are not."""
    left = scene.size
    while left > 0:
        count = min(left, 200)
        with Crowd(scene.broker.port, count) as crowd:
            for number, one in enumerate(crowd.sockets.values()):
                user = "honest" if number % 2 else f"nobody-{number}"
                one.send(packets.connect(f"guess-{number}", user=user, password=f"x{number}"))
            crowd.until_closed(count)
            for answer in crowd.received.values():
                code = answer[3]
                assert code >= 0x80, "nobody gets in"
                scene.note(f"0x{code:02X}")
        left -= count
    scene.serve_on()


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    first: int = 0x80,
    is_masked: bool = True,
    length: int = -1,
) -> bytes:
    """A WebSocket frame of a client; ``length`` is what it says that its payload is long."""
    size = len(payload) if length < 0 else length
    mask_bit = 0x80 if is_masked else 0
    if size < 126:
        head = bytes([first | opcode, mask_bit | size])
    elif size < 1 << 16:
        head = bytes([first | opcode, mask_bit | 126]) + size.to_bytes(2, "big")
    else:
        head = bytes([first | opcode, mask_bit | 127]) + size.to_bytes(8, "big")
    return head + (b"\0\0\0\0" if is_masked else b"") + payload


def _wrong_frames() -> list[bytes]:
    """Frames that no client may send; each ends the connection."""
    hello = packets.connect("frames")
    squeezed = zlib.compress(bytes(50 * MIB), 9)
    return [
        frame(2, hello, is_masked=False),
        frame(1, hello),  # text
        frame(0, hello),  # a continuation of nothing
        frame(2, hello, first=0xC0),  # compressed, as nobody agreed
        frame(2, squeezed, first=0xC0),
        frame(2, hello, first=0xA0),
        frame(2, hello, first=0x90),
        frame(3, hello),
        frame(11, hello),
        frame(8, b"\x03"),  # a close code of one byte
        frame(8, b"\x00\x00"),
        frame(8, (1005).to_bytes(2, "big")),
        frame(8, (1000).to_bytes(2, "big") + b"\xff\xff"),
        frame(8, b"x" * 126),
        frame(9, b"x" * 126),
        frame(9, first=0),  # a ping in fragments
        frame(2, b"", length=1 << 62),
        frame(2, b"", length=(1 << 64) - 1),
        frame(2, hello[:5], first=0) + frame(2, hello[5:]),  # a new message inside of one
        frame(2, b"\x30\xff\xff\xff\x7f"),  # a packet of 256 MiB
        b"\x82\xfe\x00\x05" + bytes(9),  # a length in more bytes than it needs
    ]


def _dial(scene: Scene, port: int, request: bytes = _REQUEST + b"\r\n") -> socket.socket:
    one = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
    scene.stack.callback(one.close)
    one.sendall(request)
    return one


def _all_of(one: socket.socket) -> bytes:
    """What still comes before the server closes, as it has to."""
    data = b""
    try:
        while more := one.recv(1 << 16):
            data += more
    except ConnectionError:
        pass
    one.close()
    return data


def _websocket_frames(scene: Scene) -> None:
    """Wrong requests and wrong frames of every kind, each on a connection of its own."""
    port = scene.broker.ports[1]
    requests = [
        b"GET /mqtt HTTP/1.1\r\n\r\n",
        b"POST /mqtt HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /" + b"x" * 400_000 + b" HTTP/1.1\r\n\r\n",
        _REQUEST + b"X: " + b"y" * 400_000 + b"\r\n\r\n",
        _REQUEST + b"X: y\r\n" * 100_000 + b"\r\n",
        _REQUEST.replace(b"GET", b"\x00\xff"),
        _REQUEST.replace(b"Version: 13", b"Version: 8") + b"\r\n",
        _REQUEST.replace(b": mqtt", b": chat") + b"\r\n",
        packets.connect("plain"),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ]
    for _ in range(scene.size):
        for request in requests:
            try:
                answer = _all_of(_dial(scene, port, request))
            except ConnectionError:
                answer = b""
            assert b" 101 " not in answer.split(b"\r\n")[0], request[:80]
            scene.note("request refused")
        for wrong in _wrong_frames():
            one = _dial(scene, port)
            try:
                one.sendall(wrong)
                answer = _all_of(one)
            except ConnectionError:
                answer = b""
            assert b"\x20\x03\x00\x00" not in answer, f"let in: {wrong[:40]!r}"
            scene.note("frame refused")
    scene.serve_on()


def _websocket_giants(scene: Scene) -> None:
    """Messages in endless fragments of nothing, of a byte, and pings that want their answers."""
    port = scene.broker.ports[1]
    hello = frame(2, packets.connect("giant"))
    wires = []
    for number in range(scene.size):
        one = _dial(scene, port)
        one.sendall(hello if number % 2 else b"")
        one.setblocking(False)
        wires.append(one)
    floods = [
        frame(2, b"", first=0) + frame(0, b"", first=0) * 5000,
        frame(2, b"\x30", first=0) + frame(0, b"\xff", first=0) * 2,
        frame(9, b"x" * 125) * 500,
        frame(10, b"x" * 125) * 500,
        frame(2, packets.publish("t")) * 2000,
    ]
    is_over = scene.trips_from_here()
    sent = 0
    while not is_over():
        for number, one in enumerate(wires):
            try:
                sent += one.send(floods[number % len(floods)])
            except BlockingIOError:
                pass
            except ConnectionError:
                scene.note("closed")
                one.close()
                one = _dial(scene, port)
                one.setblocking(False)
                wires[number] = one
    scene.note("MiB sent", sent // MIB)


ATTACKS: Final = (
    Attack(
        name="wrong-passwords",
        title="wrong passwords",
        run=_wrong_passwords,
        small=12,
        full=2000,
        memory_bytes=lambda size: 200 * MIB,
        tables=_password_file,
        login=LOGIN,
    ),
    Attack(
        name="half-open-tls",
        title="TLS handshakes that stop half way",
        run=_half_open_tls,
        small=60,
        full=3000,
        memory_bytes=lambda size: 16 * MIB + size * 128 * 1024,
        tables=_tls,
    ),
    Attack(
        name="websocket-frames",
        title="WebSocket requests and frames of every wrong kind",
        run=_websocket_frames,
        small=1,
        full=100,
        memory_bytes=lambda size: 16 * MIB,
        tables=_websocket,
        small_settings={"connect_timeout_s": 3.0},
    ),
    Attack(
        name="websocket-giants",
        title="WebSocket messages without end, pings, fragments",
        run=_websocket_giants,
        small=10,
        full=100,
        memory_bytes=lambda size: 24 * MIB + size * 2 * MIB,
        tables=_websocket,
        small_settings={"connect_timeout_s": 3.0},
    ),
)
