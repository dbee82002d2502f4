"""Reaching brokers: every transport against real ones, and what is said when it fails."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast import Client
from holdfast.client.options import Version
from holdfast.client.tls import TlsOptions
from holdfast.client.transports import open_transport, what_was_wrong
from holdfast.client.url import Target, parse_url
from holdfast.errors import ConnectionLost
from tests.client.peer import LOOPS, Heard, run, serving
from tests.support import packets
from tests.support.broker import BrokerProcess
from tests.support.listening import Authority, listener_table, tls_table
from tests.support.packets import V311
from tests.support.process import Process, required
from tests.support.wire import PATIENCE_S

CONNACK = bytes.fromhex("20020000")
SUBACK = bytes.fromhex("9003000100")
SIZES = (0, 1, 100, 125, 126, 16_384, 65_535, 65_536, 900_000)


class Site:
    """A broker with a listener of each kind, and one that wants certificates of clients."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder)
        self.server = self.authority.issue("server", "localhost")
        self.client = self.authority.issue("client", "client.example.org")
        self.unix = folder / "a b.sock"
        asked = f"client_certificates = 'required'\nclient_ca = '{self.authority.file}'\n"
        self.toml = "".join(
            [
                *(listener_table("tls"), tls_table(self.server)),
                *(listener_table("asked"), tls_table(self.server), asked),
                *(listener_table("ws"), "[listeners.websocket]\npath = '/in/here'\n"),
                *(listener_table("wss"), tls_table(self.server), "[listeners.websocket]\n"),
                listener_table("unix", f"unix:{self.unix}"),
            ]
        )

    def serve(self, broker: BrokerProcess) -> "Site":
        self.broker = broker
        tcp, tls, asked, ws, wss = broker.ports
        socket_path = str(self.unix).replace(" ", "%20")
        self.urls = {
            "tcp": f"mqtt://localhost:{tcp}",
            "tls": f"mqtts://localhost:{tls}",
            "asked": f"mqtts://localhost:{asked}",
            "ws": f"ws://localhost:{ws}/in/here",
            "wss": f"wss://localhost:{wss}",
            "unix": f"unix://{socket_path}",
        }
        return self

    def tls(self) -> ssl.SSLContext:
        options = TlsOptions(
            ca_file=self.authority.file,
            certificate=self.client,
            key=self.client.with_suffix(".key"),
        )
        return options.context()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    made = Site(folder)
    with BrokerProcess(folder / "data", store="memory", toml=made.toml) as broker:
        yield made.serve(broker)


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


async def opened(
    url: str | Target, tls: ssl.SSLContext | None = None, server_name: str = ""
) -> tuple[asyncio.Transport, Heard]:
    target = parse_url(url) if isinstance(url, str) else url
    transport, protocol = await open_transport(
        target, Heard, tls=tls, timeout_s=PATIENCE_S, server_name=server_name
    )
    assert isinstance(protocol, Heard)
    assert protocol.events == ["made"]
    return transport, protocol


async def talk(transport: asyncio.Transport, heard: Heard, name: str) -> None:
    """Have a broker send messages of many sizes back, and end the connection."""
    transport.write(packets.connect(name, V311))
    assert await heard.took(len(CONNACK)) == CONNACK
    transport.write(packets.subscribe(1, [(f"{name}/#", 0)], V311))
    assert await heard.took(len(SUBACK)) == SUBACK
    sent = [packets.publish(f"{name}/{size}", b"x" * size, V311) for size in SIZES]
    for one in sent[:-1]:
        transport.write(one)
    transport.writelines([sent[-1][:10], sent[-1][10:]])
    for one in sent:
        assert await heard.took(len(one)) == one
    transport.write(packets.disconnect(level=V311))
    transport.close()
    assert transport.is_closing()
    transport.write(b"nothing")
    await heard.ended()
    assert heard.data == b""


@pytest.mark.spec("MQTT5-4.2.0-1", "MQTT5-6.0.0-3", "MQTT311-6.0.0-3", "MQTT311-7.1.2-1")
@pytest.mark.parametrize("kind", ["tcp", "tls", "asked", "ws", "wss", "unix"])
def test_messages_of_any_size_go_both_ways(site: Site, name: str, loop: str, kind: str) -> None:
    async def work() -> None:
        transport, heard = await opened(site.urls[kind], site.tls())
        await talk(transport, heard, name)
        assert heard.lost is None

    run(loop, work())


@pytest.mark.parametrize("kind", ["tcp", "tls", "ws", "wss", "unix"])
def test_reading_waits_while_it_is_paused(site: Site, name: str, loop: str, kind: str) -> None:
    async def work() -> None:
        transport, heard = await opened(site.urls[kind], site.tls())
        transport.write(packets.connect(name, V311))
        await heard.took(len(CONNACK))
        transport.pause_reading()
        assert not transport.is_reading()
        transport.write(packets.subscribe(1, [(name, 0)], V311))
        other, watcher = await opened(site.urls["tcp"])
        other.write(packets.connect(f"{name}-w", V311))
        await watcher.took(len(CONNACK))
        assert heard.data == b""
        transport.resume_reading()
        assert transport.is_reading()
        assert await heard.took(len(SUBACK)) == SUBACK
        transport.abort()
        await heard.ended()
        other.abort()
        await watcher.ended()

    run(loop, work())


@pytest.mark.parametrize("kind", ["tcp", "tls", "ws", "wss", "unix"])
def test_a_server_that_closes_is_the_end(site: Site, name: str, loop: str, kind: str) -> None:
    async def work() -> None:
        transport, heard = await opened(site.urls[kind], site.tls())
        transport.write(packets.connect(name, V311))
        await heard.took(len(CONNACK))
        transport.write(b"\xff\xff\xff\xff\xff")
        await heard.ended()
        assert heard.events[-1] == "lost"
        assert transport.is_closing()
        if kind in ("ws", "wss"):
            assert "code 1008" in what_was_wrong(heard.lost, parse_url(site.urls[kind]))

    run(loop, work())


def test_what_the_transport_knows_is_told(site: Site, loop: str) -> None:
    async def work() -> None:
        for kind in ("tcp", "ws", "wss"):
            transport, heard = await opened(site.urls[kind], site.tls())
            host, port = transport.get_extra_info("peername")[:2]
            assert (host, port) == ("127.0.0.1", parse_url(site.urls[kind]).port)
            assert (transport.get_extra_info("ssl_object") is None) == (kind != "wss")
            found = transport.get_extra_info("socket")
            assert found.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
            transport.set_write_buffer_limits(high=1000)
            assert transport.get_write_buffer_size() == 0
            transport.close()
            await heard.ended()

    run(loop, work())


@pytest.mark.parametrize("kind", ["tcp", "tls", "asked", "ws", "wss", "unix"])
def test_a_client_publishes_and_receives(site: Site, name: str, loop: str, kind: str) -> None:
    tls = TlsOptions(
        ca_file=site.authority.file,
        certificate=site.client,
        key=site.client.with_suffix(".key"),
    )

    async def work() -> None:
        url = site.urls[kind]
        async with Client(url, tls=tls if parse_url(url).is_tls else None) as client:
            await converse(client, name)

    run(loop, work())


async def converse(client: Client, name: str) -> None:
    """Publish in small and large pieces, and have all of it back.

    At QoS 0 a broker may leave out what a socket does not take: that comes when nothing else does.
    """
    subscription = await client.subscribe(f"{name}/#", qos=2)
    payloads = [b"x" * size for size in (0, 1, 100, 5_000, 100_000)] * 20
    for number, payload in enumerate(payloads):
        await client.publish(f"{name}/{number}", payload, qos=1 + number % 2)
    await client.drain()
    found = {}
    async for message in subscription:
        found[message.topic] = message.payload
        if len(found) == len(payloads):
            break
    assert found == {f"{name}/{number}": payload for number, payload in enumerate(payloads)}
    await (await client.publish(f"{name}/last", b"x" * 10_000, qos=0))
    assert (await anext(aiter(subscription))).topic == f"{name}/last"


# --- another broker


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[tuple[Authority, str, str]]:
    """Mosquitto with TLS and with a Unix socket: its authority, and the URLs of the two."""
    authority = Authority(tmp_path)
    certificate = authority.issue("server", "localhost")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    (tmp_path / "conf").write_text(
        f"user root\nallow_anonymous true\nlog_dest stderr\n"
        f"listener {port} 127.0.0.1\n"
        f"certfile {certificate}\nkeyfile {certificate.with_suffix('.key')}\n"
        f"listener 0 {tmp_path / 'm.sock'}\n"
    )
    process = Process([required("mosquitto", "mosquitto"), "-c", str(tmp_path / "conf")])
    try:
        process.wait_line(r"mosquitto version .* running")
        yield authority, f"mqtts://localhost:{port}", f"unix://{tmp_path / 'm.sock'}"
    finally:
        process.kill9()


@pytest.mark.spec("MQTT311-7.0.0-2")
@pytest.mark.parametrize("version", ["5.0", "3.1.1"])
def test_mosquitto_over_tls_and_a_unix_socket(
    mosquitto: tuple[Authority, str, str], name: str, loop: str, version: Version
) -> None:
    authority, *urls = mosquitto

    async def work() -> None:
        for url in urls:
            tls = TlsOptions(ca_file=authority.file).context()
            transport, heard = await opened(url, tls)
            await talk(transport, heard, name)
            tls_of_url = tls if parse_url(url).is_tls else None
            async with Client(url, tls=tls_of_url, version=version) as client:
                await converse(client, name)

    run(loop, work())


# --- what goes wrong


def failure(
    loop: str,
    url: str,
    tls: ssl.SSLContext | None = None,
    *,
    timeout_s: float = PATIENCE_S,
    server_name: str = "",
) -> str:
    """What is said of this, which must not succeed."""

    async def work() -> str:
        with pytest.raises(ConnectionLost) as lost:
            await open_transport(
                parse_url(url), Heard, tls=tls, timeout_s=timeout_s, server_name=server_name
            )
        return str(lost.value)

    return run(loop, work())


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def test_a_port_where_nothing_listens(loop: str) -> None:
    for scheme in ("mqtt", "mqtts", "ws", "wss"):
        url = f"{scheme}://user:s3cret@127.0.0.1:{closed_port()}"
        said = failure(loop, url)
        assert said.startswith(f"{scheme}://127.0.0.1:")
        assert "refused" in said
        assert "s3cret" not in said


def test_a_name_that_is_none(loop: str) -> None:
    said = failure(loop, "mqtt://no-such-name.invalid")
    assert "the name no-such-name.invalid cannot be resolved" in said
    assert "is not a name that can be resolved" in failure(loop, f"mqtt://{'a' * 64}.example")


def test_a_socket_that_is_none(loop: str, tmp_path: Path) -> None:
    assert "there is no such socket" in failure(loop, f"unix://{tmp_path}/none")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "left"))
    assert "refused" in failure(loop, f"unix://{tmp_path}/left")


def test_a_server_that_is_not_trusted(site: Site, loop: str) -> None:
    for kind in ("tls", "wss"):
        url = site.urls[kind]
        said = failure(loop, url)
        assert "the server's certificate is not trusted" in said
        assert "issuer certificate" in said
        said = failure(loop, url.replace("localhost", "127.0.0.1"), site.tls())
        assert "the server's certificate is not trusted" in said
        assert "IP address mismatch, certificate is not valid for '127.0.0.1'" in said
        said = failure(loop, url, site.tls(), server_name="other.example.org")
        assert "Hostname mismatch, certificate is not valid for 'other.example.org'" in said


def test_the_name_of_a_server_that_is_reached_by_its_address(site: Site, loop: str) -> None:
    async def work() -> None:
        url = site.urls["tls"].replace("localhost", "127.0.0.1")
        transport, heard = await opened(url, site.tls(), server_name="localhost")
        transport.close()
        await heard.ended()
        transport, heard = await opened(url, TlsOptions(insecure=True).context())
        transport.close()
        await heard.ended()

    run(loop, work())


def test_a_server_that_wants_a_certificate(site: Site, loop: str) -> None:
    async def work() -> str:
        tls = TlsOptions(ca_file=site.authority.file).context()
        try:
            _, heard = await opened(site.urls["asked"], tls)
        except ConnectionLost as error:
            return str(error)
        # TLS 1.3 is done for the client before the server has looked at its certificate.
        return what_was_wrong(await heard.ended(), parse_url(site.urls["asked"]))

    assert "refused the TLS connection: certificate required" in run(loop, work())


def test_tls_where_none_is_spoken(site: Site, loop: str) -> None:
    port = parse_url(site.urls["ws"]).port
    assert "does not speak TLS" in failure(loop, f"mqtts://127.0.0.1:{port}")

    def hang_up(connection: socket.socket) -> None:
        connection.recv(1)

    with serving(hang_up) as port:
        said = failure(loop, f"mqtts://127.0.0.1:{port}")
    assert "no TLS handshake so far" in said


def test_a_server_that_says_nothing(loop: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        for scheme, stage in (("mqtts", "no TLS handshake"), ("ws", "no answer to the request")):
            said = failure(loop, f"{scheme}://127.0.0.1:{port}", timeout_s=0.05)
            assert stage in said
            assert said.endswith("within 0.05 s")


def test_who_gives_up_leaves_nothing_open(loop: str) -> None:
    async def work(port: int, scheme: str) -> None:
        target = parse_url(f"{scheme}://127.0.0.1:{port}")
        task = asyncio.create_task(open_transport(target, Heard, timeout_s=PATIENCE_S))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(task), 0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    def until_closed(connection: socket.socket) -> None:
        while connection.recv(1000):
            pass

    for scheme in ("mqtts", "ws"):
        with serving(until_closed) as port:  # it ends when the client has closed
            run(loop, work(port, scheme))


@pytest.mark.parametrize("kind", ["tcp", "ws"])
def test_the_addresses_of_a_host_are_tried_beside_one_another(
    site: Site, loop: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that does not answer, one that refuses, and one that is right."""
    right = parse_url(site.urls[kind])

    def resolved(host: str, port: int, **_: object) -> list[object]:
        if host != "several.example":
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", silent.getsockname()),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", closed)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", right.port)),
        ]

    async def work() -> None:
        transport, heard = await opened(Target(right.transport, "several.example", 1, right.path))
        assert transport.get_extra_info("peername")[1] == right.port
        transport.abort()
        await heard.ended()

    closed = closed_port()
    # A full backlog: further connections are not answered.
    with socket.create_server(("127.0.0.1", 0), backlog=0) as silent, contextlib.ExitStack() as all:
        for _ in range(3):
            one = all.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(silent.getsockname())
        monkeypatch.setattr(socket, "getaddrinfo", resolved)
        run(loop, work())
