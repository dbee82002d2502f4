"""MQTT over WebSocket on a real server: the request, frames of every kind, pings and the end."""

import base64
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

import pytest

from tests.support import packets
from tests.support.broker import BrokerProcess
from tests.support.listening import Authority, listener_table, ports, tls_table, tls_wire, unix_wire
from tests.support.packets import V5, V311, Packet, Will
from tests.support.process import eventually
from tests.support.websocket import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Frame,
    Response,
    WebSocket,
    WebSocketWire,
    frame,
    request,
)
from tests.support.wire import Wire, contents, numbered, say

PLAIN, CHOOSY, QUICK = 1, 2, 3  # of the broker's listeners
TABLES = """
[[listeners]]
name = "web"
address = "127.0.0.1:0"
[listeners.websocket]

[[listeners]]
name = "choosy"
address = "127.0.0.1:0"
versions = ["5.0"]
[listeners.websocket]
path = "/in/here"
origins = ["https://Panel.example:443", "http://localhost:8080"]

[[listeners]]
name = "quick"
address = "127.0.0.1:0"
[listeners.websocket]
ping_interval_s = 0.05
"""


@pytest.fixture(scope="module")
def _web_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    folder = tmp_path_factory.mktemp("broker") / "data"
    with BrokerProcess(folder, settings={"log_level": "debug"}, toml=TABLES) as broker:
        yield broker


@pytest.fixture
def broker(_web_broker: BrokerProcess) -> Iterator[BrokerProcess]:
    """A running broker with listeners for WebSocket, shared by this module."""
    before = _web_broker.open_files()
    yield _web_broker
    assert _web_broker.is_running, "the broker ended during this test"
    eventually(lambda: _web_broker.open_files() <= before, "the broker closes all connections")


def ask(broker: BrokerProcess, data: bytes, listener: int = PLAIN) -> Response:
    """The response to this request, behind which the server closes."""
    websocket = WebSocket.connected(broker.ports[listener])
    websocket.socket.sendall(data)
    response = websocket.response()
    if response.status != 101:
        assert websocket.until_closed() == []
        assert response.headers["connection"] == "close"
        assert response.headers["content-type"] == "text/plain; charset=utf-8"
        assert "MQTT broker" in response.body
    websocket.close()
    return response


def connect(name: str) -> bytes:
    return packets.connect(name, V5, clean=True)


# --- the request


@pytest.mark.spec("MQTT5-6.0.0-3", "MQTT5-6.0.0-4", "MQTT311-6.0.0-3", "MQTT311-6.0.0-4")
@pytest.mark.parametrize("offered", ["mqtt", "chat, mqtt", "mqttv3.1,mqtt", " mqtt\t"])
def test_the_subprotocol_is_mqtt(broker: BrokerProcess, offered: str) -> None:
    response = ask(broker, request(Sec_WebSocket_Protocol=offered))
    assert response.status == 101
    assert response.headers["sec-websocket-protocol"] == "mqtt"


@pytest.mark.spec("MQTT5-6.0.0-3", "MQTT311-6.0.0-3")
@pytest.mark.parametrize("offered", [None, "", "chat", "MQTT", "mqtt5", "mqttv3"])
def test_a_client_that_does_not_offer_mqtt_is_told_so(
    broker: BrokerProcess, offered: str | None
) -> None:
    name = "Sec-WebSocket-Protocol"
    data = request(without=name) if offered is None else request(**{name: offered})
    response = ask(broker, data)
    assert response.status == 400
    assert "Sec-WebSocket-Protocol: mqtt" in response.body


def test_clients_of_mqtt_3_1_have_a_name_of_their_own_for_it(broker: BrokerProcess) -> None:
    old = request(Sec_WebSocket_Protocol="mqttv3.1")
    assert ask(broker, old).headers["sec-websocket-protocol"] == "mqttv3.1"
    # Not where 3.1 is not spoken.
    old = request("/in/here", Sec_WebSocket_Protocol="mqttv3.1")
    assert ask(broker, old, CHOOSY).status == 400


def test_two_headers_of_subprotocols_are_one_list(broker: BrokerProcess) -> None:
    data = request(Sec_WebSocket_Protocol="chat")
    data = data.replace(b"chat\r\n", b"chat\r\nsec-websocket-protocol: mqtt\r\n")
    assert ask(broker, data).status == 101


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/mqtt", 101),
        ("/mqtt?token=1", 101),
        ("http://broker.example/mqtt", 101),
        ("/", 404),
        ("/mqtt/", 404),
        ("/MQTT", 404),
        ("//mqtt", 404),
        ("/%6dqtt", 404),
        ("mqtt", 404),
        ("*", 404),
        ("http://[/mqtt", 404),
        ("/../mqtt", 404),
    ],
)
def test_there_is_one_path(broker: BrokerProcess, path: str, status: int) -> None:
    assert ask(broker, request(path)).status == status


def test_the_path_can_be_chosen(broker: BrokerProcess) -> None:
    assert ask(broker, request("/in/here"), CHOOSY).status == 101
    assert ask(broker, request("/mqtt"), CHOOSY).status == 404


@pytest.mark.parametrize("path", ["/", "/mqtt", "/favicon.ico"])
def test_a_browser_gets_a_text_for_people(broker: BrokerProcess, path: str) -> None:
    data = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: keep-alive\r\n\r\n".encode()
    response = ask(broker, data)
    assert response.status == (426 if path == "/mqtt" else 404)
    assert "let your MQTT client connect to" in response.body
    assert response.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        pytest.param(request(without="Host"), 400, id="no-host"),
        pytest.param(request().replace(b"\r\n\r\n", b"\r\nHost: b\r\n\r\n"), 400, id="two-hosts"),
        pytest.param(request(without="Upgrade"), 426, id="no-upgrade"),
        pytest.param(request(Upgrade="h2c"), 426, id="upgrade-to-h2c"),
        pytest.param(request(without="Connection"), 426, id="no-connection"),
        pytest.param(request(Connection="close"), 426, id="connection-close"),
        pytest.param(request(without="Sec-WebSocket-Version"), 426, id="no-version"),
        pytest.param(request(Sec_WebSocket_Version="8"), 426, id="version-8"),
        pytest.param(request(Sec_WebSocket_Version="13, 8"), 426, id="two-versions"),
        pytest.param(request(without="Sec-WebSocket-Key"), 400, id="no-key"),
        pytest.param(request(Sec_WebSocket_Key=""), 400, id="empty-key"),
        pytest.param(request(Sec_WebSocket_Key="c2hvcnQ="), 400, id="short-key"),
        pytest.param(request(Sec_WebSocket_Key="*" * 24), 400, id="key-not-base64"),
        pytest.param(request(Content_Length="5") + b"hello", 400, id="body"),
        pytest.param(request(Transfer_Encoding="chunked"), 400, id="chunked"),
        pytest.param(request(version="HTTP/1.0"), 505, id="http-1.0"),
        pytest.param(request().replace(b"GET", b"POST", 1), 405, id="post"),
        pytest.param(request().replace(b"GET", b"CONNECT", 1), 405, id="connect"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, id="http-2"),
        pytest.param(b"GET /mqtt\r\n\r\n", 400, id="http-0.9"),
        pytest.param(b"\x10\x12\x00\x04MQTT\x05\x02\x00\x3c", 400, id="mqtt"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00", 400, id="tls"),
        pytest.param(b"GET /mqtt HTTP/1.1\r\nHo st: x\r\n\r\n", 400, id="wrong-header"),
        pytest.param(b"GET /mqtt HTTP/1.1\r\nHost: x\r\nA: \x00\r\n\r\n", 400, id="zero-byte"),
    ],
)
def test_a_wrong_request_is_refused(broker: BrokerProcess, data: bytes, status: int) -> None:
    response = ask(broker, data)
    assert response.status == status
    if status == 426:
        upgrade, version = (
            response.headers.get("upgrade"),
            response.headers.get("sec-websocket-version"),
        )
        assert (upgrade, version) in (("websocket", None), (None, "13"))


def test_a_key_given_twice_is_refused(broker: BrokerProcess) -> None:
    key = base64.b64encode(bytes(16))
    data = request().replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Key: " + key + b"\r\n\r\n")
    assert ask(broker, data).status == 400


@pytest.mark.parametrize("lines", [1, 1000])
def test_headers_without_end_are_refused(broker: BrokerProcess, lines: int) -> None:
    websocket = WebSocket.connected(broker.ports[PLAIN])
    line = b"X: " + b"x" * (200_000 // lines) + b"\r\n"
    websocket.socket.sendall(request()[:-2] + line * lines)
    assert websocket.response().status == 431
    websocket.close()


def test_a_request_may_come_byte_by_byte(broker: BrokerProcess, name: str) -> None:
    websocket = WebSocket.connected(broker.ports[PLAIN])
    for byte in request() + frame(connect(name)):
        websocket.socket.sendall(bytes((byte,)))
    assert websocket.response().status == 101
    assert websocket.frame().payload[0] == packets.CONNACK << 4
    websocket.close()


def test_a_slow_request_ends_with_the_time_to_connect(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """The time covers the request and CONNECT, which does not begin anew behind the request."""
    folder = tmp_path_factory.mktemp("broker") / "data"
    with BrokerProcess(folder, toml=f"connect_timeout_s = 0.2\n{TABLES}") as broker:
        slow, silent = (WebSocket.connected(broker.ports[PLAIN]) for _ in range(2))
        slow.socket.sendall(request()[:-1])
        silent.open()
        assert slow.response().status == 408
        assert slow.until_closed() == []
        (end,) = silent.until_closed()
        assert end.code == 1000
        slow.close()
        silent.close()


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, 101),
        ("https://panel.example", 101),
        ("http://localhost:8080", 101),
        ("http://panel.example", 403),
        ("https://panel.example:444", 403),
        ("https://panel.example.evil.example", 403),
        ("https://evil.example/https://panel.example", 403),
        ("http://localhost", 403),
        ("null", 403),
        ("", 403),
    ],
)
def test_only_pages_of_the_listed_origins_may_connect(
    broker: BrokerProcess, origin: str | None, status: int
) -> None:
    headers = {} if origin is None else {"Origin": origin}
    assert ask(broker, request("/in/here", **headers), CHOOSY).status == status
    assert ask(broker, request(**headers), PLAIN).status == 101


def test_two_origins_are_one_too_many(broker: BrokerProcess) -> None:
    allowed = b"Origin: https://panel.example\r\n"
    data = request("/in/here").replace(b"\r\n\r\n", b"\r\n" + allowed * 2 + b"\r\n")
    assert ask(broker, data, CHOOSY).status == 403


def test_the_log_says_who_was_refused_and_why(broker: BrokerProcess) -> None:
    origin = "https://evil.example/\x1b[31m" + "x" * 500
    websocket = WebSocket.connected(broker.ports[CHOOSY])
    port = websocket.socket.getsockname()[1]
    data = request("/in/here", Origin="@", X_Forwarded_For="10.9.8.7", Forwarded="for=10.9.8.7")
    websocket.socket.sendall(data.replace(b"@", origin.replace("\x1b", "\x80").encode("latin-1")))
    assert websocket.response().status == 403
    _, line = broker.process.wait_line(
        rf"refused: HTTP 403: the origin .* address=127.0.0.1:{port}"
    )
    assert "\x80" not in line[0]
    assert "\\x80" in line[0]
    assert len(line[0]) < 400
    assert "10.9.8.7" not in broker.log
    websocket.close()


# --- frames


@pytest.mark.spec("MQTT5-6.0.0-1", "MQTT311-6.0.0-1")
def test_a_text_frame_ends_the_connection(broker: BrokerProcess, name: str) -> None:
    """And its client's will is published, as it has not said goodbye."""
    with WebSocketWire(broker) as watcher, WebSocketWire(broker) as wrong:
        watcher.hello(f"{name}-w", clean=True)
        watcher.subscribe(f"{name}/will")
        wrong.hello(name, clean=True, will=Will(f"{name}/will", b"gone", 0))
        wrong.websocket.socket.sendall(frame(packets.pingreq(), TEXT))
        (end,) = wrong.websocket.until_closed()
        assert end.code == 1003
        assert b"binary" in end.payload
        assert watcher.receive().payload == b"gone"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(frame(b"x", is_masked=False), id="unmasked"),
        pytest.param(frame(b"x", reserved=0x40), id="compressed"),
        pytest.param(frame(b"x", 3), id="opcode"),
        pytest.param(frame(b"x", PING, is_final=False), id="fragmented-ping"),
        pytest.param(frame(b"x" * 126, PING), id="long-ping"),
        pytest.param(frame(b"x", CONTINUATION), id="continues-nothing"),
        pytest.param(frame(b"", length=1 << 63), id="length"),
        pytest.param(frame(b"\x00", CLOSE), id="close-of-one-byte"),
        pytest.param(frame(b"\x00\x00", CLOSE), id="close-without-code"),
    ],
)
def test_a_wrong_frame_ends_the_connection(broker: BrokerProcess, name: str, data: bytes) -> None:
    """What came before it is answered first only if that was in time; the log has the reason."""
    with WebSocketWire(broker) as wire:
        wire.hello(name, clean=True)
        port = wire.address.rpartition(":")[2]
        wire.websocket.socket.sendall(data)
        (end,) = wire.websocket.until_closed()
        assert end.code == 1002
        broker.process.wait_line(f"closed: .* client={name} address=127.0.0.1:{port}")


def test_a_packet_that_is_too_large_is_refused_at_its_first_bytes(
    broker: BrokerProcess, name: str
) -> None:
    """A frame of exabytes is nothing by itself; the packet in it is measured by MQTT's rules."""
    with WebSocketWire(broker) as wire:
        wire.hello(name, clean=True)
        giant = frame(b"", length=(1 << 63) - 1)
        key = giant[-4:]
        start = bytes((0x30, 0xFF, 0xFF, 0xFF, 0x7F))
        masked = bytes(byte ^ key[n & 3] for n, byte in enumerate(start))
        wire.websocket.socket.sendall(giant + masked)
        assert wire.expect(packets.DISCONNECT).code == 0x95


@pytest.mark.spec("MQTT5-6.0.0-1", "MQTT5-6.0.0-2", "MQTT311-6.0.0-1", "MQTT311-6.0.0-2")
@pytest.mark.parametrize("size", [1, 2, 7, 100_000])
def test_packets_lie_across_frames_and_several_in_one(
    broker: BrokerProcess, name: str, level: int, size: int
) -> None:
    """Each of our own frames is binary and not fragmented, as ``frame`` checks."""
    websocket = WebSocket.opened(broker.ports[PLAIN])
    data = packets.connect(name, level, clean=True)
    data += packets.subscribe(1, [(f"{name}/t", 0)], level)
    for payload in numbered(20):
        data += packets.publish(f"{name}/t", payload, level)
    data += packets.pingreq()
    for start in range(0, len(data), size):
        websocket.socket.sendall(frame(data[start : start + size]))
    buffer = bytearray()
    found: list[Packet] = []
    while not found or found[-1].kind != packets.PINGRESP:
        received = websocket.frame()
        assert received.kind == BINARY
        buffer += received.payload
        found += packets.split(buffer, level)
    assert contents(one for one in found if one.kind == packets.PUBLISH) == numbered(20)
    websocket.close()


@pytest.mark.spec("MQTT5-6.0.0-2", "MQTT311-6.0.0-2")
def test_a_message_of_fragments_with_pings_between_them(broker: BrokerProcess, name: str) -> None:
    websocket = WebSocket.opened(broker.ports[PLAIN])
    data = connect(name)
    for number, byte in enumerate(data):
        kind = BINARY if number == 0 else CONTINUATION
        part = frame(bytes((byte,)), kind, is_final=number == len(data) - 1)
        websocket.socket.sendall(part + frame(b"p", PING))
    found = websocket.frame()
    while found.kind == PONG:
        assert found.payload == b"p"
        found = websocket.frame()
    assert found.payload[0] == packets.CONNACK << 4
    websocket.close()


def test_what_is_written_in_one_turn_is_one_frame(broker: BrokerProcess, name: str) -> None:
    with WebSocketWire(broker) as wire:
        wire.hello(name, clean=True)
        wire.send(packets.pingreq() * 50)
        found = wire.websocket.frame()
        assert found == Frame(BINARY, b"\xd0\x00" * 50)


@pytest.mark.parametrize("size", [100, 200, 70_000, 900_000])
def test_messages_of_any_size_come_whole(
    broker: BrokerProcess, name: str, level: int, size: int
) -> None:
    """Between WebSocket and plain MQTT, in both directions and at each QoS."""
    payload = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    with WebSocketWire(broker, level=level) as web, Wire(broker.port, level) as plain:
        web.hello(f"{name}-web", clean=True)
        plain.hello(f"{name}-plain", clean=True)
        for wire in (web, plain):
            wire.subscribe(f"{name}/t", 2)
        for qos in (0, 1, 2):
            for publisher in (web, plain):
                say_on(publisher, name, payload, qos)
                for wire in (web, plain):
                    (found,) = wire.messages(1)
                    assert (found.payload, found.qos) == (payload, qos)


def say_on(wire: Wire, name: str, payload: bytes, qos: int) -> None:
    """Publish without taking what comes meanwhile for an answer."""
    wire.publish(f"{name}/t", payload, qos)


# --- flow control


def test_a_subscriber_that_does_not_read_is_kept_waiting_like_any_other(
    broker: BrokerProcess, name: str
) -> None:
    """It is behind with 32 MB, far more than the sockets hold, and gets all of it in order."""
    payloads = [bytes((65 + number % 26,)) * 64_000 for number in range(500)]
    with WebSocketWire(broker) as slow, Wire(broker.port) as publisher:
        slow.hello(name)
        slow.subscribe(f"{name}/t", 1)
        publisher.hello(f"{name}-p", clean=True)
        publisher.publish_all(f"{name}/t", payloads)
        assert contents(slow.messages(len(payloads))) == payloads


def test_a_publisher_faster_than_the_disk_is_slowed_down(broker: BrokerProcess, name: str) -> None:
    payloads = [bytes((65 + number % 26,)) * 64_000 for number in range(250)]
    with WebSocketWire(broker) as subscriber:
        subscriber.hello(name)
        subscriber.subscribe(f"{name}/t", 1)
    with WebSocketWire(broker) as publisher:
        publisher.hello(f"{name}-p", clean=True)
        publisher.publish_all(f"{name}/t", payloads, window=250)
    with WebSocketWire(broker) as subscriber:
        assert subscriber.hello(name).session_present
        assert contents(subscriber.messages(len(payloads))) == payloads


def test_a_flood_of_pings_that_reads_nothing_fills_no_memory(
    broker: BrokerProcess, name: str
) -> None:
    """Of all its pings the newest ones are answered, each once there is room for the answer."""
    with WebSocketWire(broker) as wire:
        wire.hello(name, clean=True)
        flood = frame(b"x" * 125, PING) * 10_000
        for _ in range(20):
            wire.websocket.socket.sendall(flood)
        wire.websocket.socket.sendall(frame(b"last", PING))
        pongs = 0
        while wire.websocket.frame() != Frame(PONG, b"last"):
            pongs += 1
        assert pongs < 20_000
        wire.ping()


# --- pings


def test_pings_are_answered_before_mqtt_begins(broker: BrokerProcess) -> None:
    websocket = WebSocket.opened(broker.ports[PLAIN])
    websocket.socket.sendall(frame(b"hello", PING))
    assert websocket.frame() == Frame(PONG, b"hello")
    websocket.close()


def test_a_silent_client_is_pinged_and_given_up_when_it_does_not_answer(
    broker: BrokerProcess, name: str
) -> None:
    with WebSocketWire(broker, QUICK) as wire, Wire(broker.port) as watcher:
        watcher.hello(f"{name}-w", clean=True)
        watcher.subscribe(f"{name}/will")
        wire.hello(name, clean=True, will=Will(f"{name}/will", b"gone", 0))
        assert wire.websocket.until_closed()[0] == Frame(PING, b"")
        assert watcher.receive().payload == b"gone"
        broker.process.wait_line(f"closed: no answer to a ping within 0.05 s client={name}")


def test_whoever_answers_pings_stays(broker: BrokerProcess) -> None:
    websocket = WebSocket.opened(broker.ports[QUICK])
    websocket.socket.sendall(frame(connect("quick")))
    assert websocket.frame().kind == BINARY
    for _ in range(5):
        assert websocket.frame() == Frame(PING, b"")
        websocket.socket.sendall(frame(b"", PONG))
    websocket.close()


# --- the end


@pytest.mark.parametrize("code", [1000, 1001, 4321])
def test_a_close_frame_is_answered_with_its_code(
    broker: BrokerProcess, name: str, code: int
) -> None:
    """A client that closes the WebSocket without DISCONNECT has not said goodbye."""
    with WebSocketWire(broker) as watcher, WebSocketWire(broker) as wire:
        watcher.hello(f"{name}-w", clean=True)
        watcher.subscribe(f"{name}/will")
        wire.hello(name, clean=True, will=Will(f"{name}/will", b"gone", 0))
        wire.websocket.socket.sendall(frame(code.to_bytes(2, "big") + b"bye", CLOSE))
        (end,) = wire.websocket.until_closed()
        assert end.code == code
        assert watcher.receive().payload == b"gone"


def test_a_close_frame_without_a_code_is_answered_by_one(broker: BrokerProcess) -> None:
    websocket = WebSocket.opened(broker.ports[PLAIN])
    websocket.socket.sendall(frame(b"", CLOSE) + frame(b"behind it nothing counts", TEXT))
    assert websocket.until_closed() == [Frame(CLOSE, b"")]
    websocket.close()


def test_disconnect_is_answered_by_a_close_frame(broker: BrokerProcess, name: str) -> None:
    with WebSocketWire(broker) as watcher, WebSocketWire(broker) as wire:
        watcher.hello(f"{name}-w", clean=True)
        watcher.subscribe(f"{name}/#")
        wire.hello(name, clean=True, will=Will(f"{name}/will", b"gone", 0))
        wire.send(packets.disconnect(V5))
        (end,) = wire.websocket.until_closed()
        assert end.code == 1000
        watcher.nothing_but(f"{name}/marker")


def test_the_close_code_tells_an_old_client_that_it_was_at_fault(
    broker: BrokerProcess, name: str, level: int
) -> None:
    """Before 5.0 the server has no DISCONNECT: the code is all that the client learns."""
    with WebSocketWire(broker, level=level) as wire:
        wire.hello(name, clean=True)
        wire.send(b"\xf0\x00" if level == V311 else b"\x00\x00")
        *_, end = wire.websocket.until_closed()
        assert end.code == 1008


def test_disconnect_and_close_at_once_are_a_goodbye(broker: BrokerProcess, name: str) -> None:
    """As a page does it that is left: both may come in one segment."""
    with WebSocketWire(broker) as watcher, WebSocketWire(broker) as wire:
        watcher.hello(f"{name}-w", clean=True)
        watcher.subscribe(f"{name}/#")
        wire.hello(name, clean=True, will=Will(f"{name}/will", b"gone", 0))
        wire.websocket.socket.sendall(frame(packets.disconnect(V5)) + frame(b"\x03\xe9", CLOSE))
        (end,) = wire.websocket.until_closed()
        assert end.code == 1001
        watcher.nothing_but(f"{name}/marker")


def test_a_goodbye_before_a_reset_is_heard(broker: BrokerProcess, name: str, level: int) -> None:
    """As over TCP: the frames that a lost connection still holds are read."""
    with WebSocketWire(broker, level=level) as watcher:
        watcher.hello(f"{name}-w", clean=True)
        watcher.subscribe(f"{name}/#", 1)
        before = broker.open_files()
        leaving = WebSocketWire(broker, level=level)
        leaving.hello(f"{name}-l", clean=True, will=Will(f"{name}/will", b"gone", 1))
        leaving.subscribe(f"{name}/flood", 0)
        reset = struct.pack("ii", 1, 0)
        leaving.websocket.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        leaving.send(packets.disconnect(level))
        leaving.cut()
        say(broker.port, f"{name}/flood", b"x", qos=0)
        eventually(lambda: broker.open_files() == before, "the broker closes its side")
        assert [one.topic for one in watcher.until_marker(f"{name}/end")] == [f"{name}/flood"]


def test_the_last_packet_reaches_a_client_that_still_sends(
    broker: BrokerProcess, name: str
) -> None:
    """Closed with its packets unread, the connection would be reset, and DISCONNECT be lost."""
    with WebSocketWire(broker) as first, WebSocketWire(broker) as second:
        first.hello(name, clean=True)
        second.hello(name, clean=True)
        for _ in range(50):
            first.send(packets.publish(f"{name}/t", b"x" * 10_000, V5))
        assert first.wait_for(packets.DISCONNECT).code == 0x8E
        first.websocket.socket.sendall(frame(b"\x03\xe8", CLOSE))
        second.ping()


def test_whoever_goes_on_sending_behind_the_end_is_cut_off(
    broker: BrokerProcess, name: str
) -> None:
    with WebSocketWire(broker) as wire:
        wire.hello(name, clean=True)
        wire.send(packets.disconnect(V5))
        with pytest.raises(ConnectionError):
            wire.websocket.socket.sendall(frame(b"x" * 50_000_000))


def test_a_server_that_stops_says_so(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    folder = tmp_path_factory.mktemp("broker") / "data"
    with BrokerProcess(folder, toml=TABLES) as broker:
        wire = WebSocketWire(broker)
        wire.hello(name, clean=True)
        waiting = WebSocket.connected(broker.ports[PLAIN])
        waiting.socket.sendall(b"GET ")
        assert broker.terminate() == 0
        assert wire.expect(packets.DISCONNECT).code == 0x8B
        (end,) = wire.websocket.until_closed()
        assert end.code == 1001
        assert waiting.response().status == 408
        wire.cut()
        waiting.close()


def test_who_is_one_too_many_is_told_so_in_a_frame(
    tmp_path_factory: pytest.TempPathFactory, name: str, level: int
) -> None:
    folder = tmp_path_factory.mktemp("broker") / "data"
    toml = listener_table("few", connections_max=1) + "[listeners.websocket]\n"
    with ExitStack() as stack:
        broker = stack.enter_context(BrokerProcess(folder, store="memory", toml=toml))
        first = stack.enter_context(WebSocketWire(broker, level=level))
        first.hello(name, clean=True)
        second = stack.enter_context(WebSocketWire(broker, level=level))
        second.send(packets.connect(f"{name}-2", level, clean=True))
        assert second.expect(packets.CONNACK).code == (3 if level == V311 else 0x97)
        assert [end.kind for end in second.websocket.until_closed()] == [CLOSE]
        first.ping()


# --- over TLS, a Unix socket, and behind a proxy


@pytest.fixture(scope="module")
def layered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[BrokerProcess, Authority]]:
    """A broker with WebSocket above every other layer: TLS, a PROXY header, a Unix socket."""
    folder = tmp_path_factory.mktemp("layers")
    authority = Authority(folder)
    certificate = authority.issue("server", "localhost")
    websocket = "[listeners.websocket]\n"
    toml = listener_table("secure") + websocket + tls_table(certificate)
    proxied = partial(listener_table, proxy_protocol_from=["127.0.0.1"], allow_anonymous=True)
    toml += proxied("proxied") + websocket
    toml += proxied("all") + websocket + tls_table(certificate)
    toml += listener_table("local", f"unix:{folder / 'mqtt.sock'}") + websocket
    with BrokerProcess(folder / "data", store="memory", toml=toml) as broker:
        yield broker, authority


def secure(broker: BrokerProcess, authority: Authority, listener: int, before: bytes = b"") -> Wire:
    """MQTT over WebSocket over TLS."""
    port = ports(broker)[listener]
    wire = tls_wire(port, authority.client_context(), server_name="localhost", before=before)
    return over_websocket(wire, broker)


def over_websocket(wire: Wire, broker: BrokerProcess) -> Wire:
    websocket = WebSocket(wire.socket)
    websocket.open()
    wire.socket = websocket  # type: ignore[assignment]  # has what Wire uses
    wire.port = broker.port
    return wire


def test_secure_websocket(layered: tuple[BrokerProcess, Authority], name: str) -> None:
    """Messages of any size, and the orderly end."""
    broker, authority = layered
    with secure(broker, authority, 1) as wire:
        wire.hello(name, clean=True)
        wire.subscribe(f"{name}/t", 2)
        for size in (0, 1, 20_000, 900_000):
            wire.publish(f"{name}/t", b"x" * size, 2)
            assert contents(wire.messages(1)) == [b"x" * size]
        wire.send(packets.disconnect(V5))
        assert isinstance(wire.socket, WebSocket)
        end = wire.socket.frame()
        assert end.code == 1000
        wire.socket.socket.sendall(frame(b"\x03\xe8", CLOSE))
        assert wire.socket.until_closed() == []


def test_a_text_frame_over_tls(layered: tuple[BrokerProcess, Authority], name: str) -> None:
    broker, authority = layered
    with secure(broker, authority, 1) as wire:
        wire.hello(name, clean=True)
        assert isinstance(wire.socket, WebSocket)
        wire.socket.socket.sendall(frame(b"x", TEXT))
        assert [end.code for end in wire.socket.until_closed()] == [1003]


def test_a_browser_gets_its_text_over_tls_too(layered: tuple[BrokerProcess, Authority]) -> None:
    broker, authority = layered
    port = ports(broker)[1]
    with tls_wire(port, authority.client_context(), server_name="localhost") as wire:
        websocket = WebSocket(wire.socket)
        websocket.socket.sendall(request("/"))
        assert websocket.response().status == 404
        assert websocket.until_closed() == []


@pytest.mark.parametrize("listener", [2, 3], ids=["plain", "tls"])
def test_behind_a_proxy_the_address_is_the_client_s(
    layered: tuple[BrokerProcess, Authority], name: str, listener: int
) -> None:
    broker, authority = layered
    header = f"PROXY TCP4 192.0.2.{listener} 127.0.0.1 40000 1883\r\n".encode()
    if listener == 2:
        wire = Wire(ports(broker)[listener])
        wire.socket.sendall(header)
        over_websocket(wire, broker)
    else:
        wire = secure(broker, authority, listener, header)
    with wire:
        wire.hello(name, clean=True)
        assert isinstance(wire.socket, WebSocket)
        wire.socket.socket.sendall(frame(b"x", TEXT))
        broker.process.wait_line(f"client={name} address=192.0.2.{listener}:40000")


def test_websocket_on_a_unix_socket(layered: tuple[BrokerProcess, Authority], name: str) -> None:
    broker, _ = layered
    path = broker.data_dir.parent / "mqtt.sock"
    with over_websocket(unix_wire(path, broker.port), broker) as wire:
        wire.hello(name, clean=True)
        wire.ping()
