"""Listeners side by side: limits of their own, PROXY headers, Unix sockets, IPv6."""

import json
import os
import re
import signal
import socket
import ssl
import stat
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.support import packets
from tests.support.broker import BrokerProcess, NewBroker, holdfast_command
from tests.support.listening import (
    Authority,
    listener_table,
    ports,
    tls_table,
    tls_wire,
    unix_wire,
)
from tests.support.packets import V5, V311
from tests.support.process import Process, eventually, required
from tests.support.wire import PATIENCE_S, Closed, Wire, say

# A listener behind a proxy is everybody's, so it has to be allowed.
SETTINGS: Final[dict[str, str | int | float]] = {
    "log_level": "debug",
    "allow_anonymous": True,
    "sys_interval_s": 1,
}
SERVER_KEEP_ALIVE = 0x13
HEADER_V1 = b"PROXY TCP4 203.0.113.7 192.0.2.1 56324 1883\r\n"
HEADER_V2 = (
    b"\r\n\r\n\0\r\nQUIT\n\x21\x21\x00\x29"
    + socket.inet_pton(socket.AF_INET6, "2001:db8::7")
    + socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    + struct.pack("!HH", 56324, 1883)
    + b"\x04\x00\x02no"
)
LOCAL_V2 = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00"


class Site:
    """One broker with listeners that differ."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(folder)
        server = self.authority.issue("server", "localhost")
        self.unix, self.unix_behind = folder / "open.sock", folder / "behind.sock"
        self.toml = "".join(
            [
                listener_table("old", versions=["3.1.1"], packet_bytes_max=200),
                listener_table("new", versions=["5.0"], keep_alive_min_s=5, keep_alive_max_s=30),
                listener_table("few", connections_max=2),
                listener_table("behind", proxy_protocol_from=["127.0.0.0/8"]),
                *(listener_table("both", proxy_protocol_from=["127.0.0.1"]), tls_table(server)),
                listener_table("others", proxy_protocol_from=["10.0.0.0/8", "unix"]),
                listener_table("unix", f"unix:{self.unix}", unix_mode="0600"),
                listener_table(
                    "unix behind", f"unix:{self.unix_behind}", proxy_protocol_from=["unix"]
                ),
                *(listener_table("few tls", connections_max=1), tls_table(server)),
                *(listener_table("half"), tls_table(server)),
                *(listener_table("web"), "[listeners.websocket]\n"),
            ]
        )

    def serve(self, broker: BrokerProcess) -> "Site":
        self.broker = broker
        found = ports(broker)
        self.plain, self.old, self.new, self.few, self.behind, self.both, self.others = found[:7]
        self.few_tls, self.half, self.web = found[7:]
        return self

    def wait_line(self, pattern: str) -> None:
        self.broker.process.wait_line(pattern)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("listeners")
    made = Site(folder)
    with BrokerProcess(
        folder / "data", store="memory", settings=SETTINGS, toml=made.toml
    ) as broker:
        yield made.serve(broker)


# --- what holds for each listener


def test_a_listener_speaks_its_versions(site: Site, name: str) -> None:
    names = {V311: "3.1.1", V5: "5.0"}
    for port, right, wrong in ((site.old, V311, V5), (site.new, V5, V311)):
        with Wire(port, wrong) as refused:
            refused.send(packets.connect(name, wrong))
            connack = refused.expect(packets.CONNACK)
            assert connack.code == (0x84 if wrong == V5 else 1)
            assert refused.until_closed() == []
            spoken = names[right].replace(".", r"\.")
            site.wait_line(
                f"refused: expected MQTT {spoken} here, {names[wrong]} came client={name}"
            )
        with Wire(port, right) as taken:
            taken.hello(name, clean=True)
            taken.ping()


def test_a_listener_has_its_own_size_of_packets(site: Site, name: str) -> None:
    large = b"x" * 300
    with Wire(site.old, V311) as wire, Wire(site.new) as other:
        other.hello(f"{name}-o", clean=True)
        other.publish(f"{name}/a", large)
        wire.hello(name, clean=True)
        wire.send(packets.publish(f"{name}/a", large, V311))
        assert wire.until_closed() == []
        other.ping()


def test_a_listener_has_its_own_keep_alive(site: Site, name: str) -> None:
    for port, asked_s, told_s in (
        (site.new, 1, 5),
        (site.new, 20, 20),
        (site.new, 60, 30),
        (site.new, 0, 30),
        (site.plain, 1, 1),
        (site.plain, 0, 0),
    ):
        with Wire(port) as wire:
            connack = wire.hello(name, clean=True, keep_alive_s=asked_s)
            assert connack.number(SERVER_KEEP_ALIVE, asked_s) == told_s


def test_a_listener_takes_so_many_connections(site: Site, name: str) -> None:
    """Two at a time; the third is told so, and may come when one of them has gone."""
    with Wire(site.few) as first, Wire(site.few) as second:
        for number, wire in enumerate((first, second)):
            wire.hello(f"{name}-{number}", clean=True)
        for _ in range(3):
            with Wire(site.few) as third:
                assert _is_refused(third, name)
        with Wire(site.plain) as other:
            other.hello(name, clean=True)
        second.goodbye()
        with Wire(site.few) as third:
            third.hello(name, clean=True)
            first.ping()
    said = "connections are refused: the listener has too many connections"
    assert len([line for line in site.broker.log_lines if said in line]) == 1  # of the burst


def test_who_does_not_finish_the_handshake_counts_as_well(site: Site, name: str) -> None:
    context = site.authority.client_context()
    with Wire(site.few_tls) as half_open:
        half_open.send(b"\x16\x03\x01")
        with tls_wire(site.few_tls, context) as second:
            assert _is_refused(second, name)

    def is_taken() -> bool:
        with tls_wire(site.few_tls, context) as wire:
            return not _is_refused(wire, name)

    eventually(is_taken, "the place is free again")


def _is_refused(wire: Wire, name: str) -> bool:
    """Whether a CONNECT is answered with Quota exceeded, and not taken."""
    wire.send(packets.connect(name, V5))
    code = wire.expect(packets.CONNACK).code
    assert code in (0, 0x97), code
    return code == 0x97


@pytest.mark.parametrize("is_json", [False, True], ids=["text", "json"])
def test_the_ready_line_says_what_is_spoken_where(tmp_path: Path, is_json: bool) -> None:
    """The plain address comes first, where scripts look for the port."""
    server = Authority(tmp_path).issue("server", "localhost")
    toml = listener_table("a", proxy_protocol_from=["127.0.0.1"]) + tls_table(server)
    path = tmp_path / "a.toml"
    path.write_text(f"store = 'memory'\nallow_anonymous = true\n{toml}[listeners.websocket]\n")
    command = [holdfast_command(), "serve", "--config", str(path), "--listen", "127.0.0.1:0"]
    process = Process(command + ["--log-json"] * is_json)
    _, ready = process.wait_line(r'ready on ([^;]*);|(\{.*"ready".*\})')
    listening = json.loads(ready[2])["listen"] if is_json else ready[1].split(", ", 1)
    assert re.fullmatch(r"127\.0\.0\.1:\d+", listening[0])
    assert re.fullmatch(r"127\.0\.0\.1:\d+ \(proxy\+tls\+websocket\)", listening[1])
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 0


# --- behind a proxy


@pytest.mark.parametrize(
    ("header", "address"),
    [
        (HEADER_V1, "203.0.113.7:56324"),
        (HEADER_V2, r"\[2001:db8::7\]:56324"),
        (LOCAL_V2, "127.0.0.1:"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1:"),
        (b"PROXY TCP6 ::ffff:203.0.113.9 ::1 7 8\r\n", "203.0.113.9:7"),
    ],
    ids=["v1", "v2", "local", "unknown", "mapped"],
)
def test_the_client_is_where_the_proxy_says(
    site: Site, name: str, header: bytes, address: str
) -> None:
    with Wire(site.behind) as wire:
        wire.send(header + packets.connect(f"{name}-1", V5))
        wire.expect(packets.CONNACK)
    with Wire(site.behind) as slow:
        for byte in header:
            slow.send(bytes([byte]))
        slow.hello(f"{name}-2", clean=True)
    context = site.authority.client_context()
    with tls_wire(site.both, context, before=header) as wire:
        wire.hello(f"{name}-3", clean=True)
    for number in (1, 2, 3):
        site.wait_line(f"client={name}-{number} .*address={address}")


def test_the_header_may_come_together_with_the_handshake(site: Site, name: str) -> None:
    """Proxies send both in one segment."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = site.authority.client_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with Wire(site.both) as wire:
        data = HEADER_V1
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                wire.send(data + outgoing.read())
                data = b""
                incoming.write(wire.socket.recv(65_536))
        tls.write(packets.connect(name, V5))
        wire.send(outgoing.read())
        site.wait_line(f"client={name} .*address=203.0.113.7:56324")


def test_who_is_no_proxy_is_not_let_in(site: Site, name: str) -> None:
    with Wire(site.others) as wire:
        assert _is_closed(wire, HEADER_V1 + packets.connect(name, V5))
    site.wait_line("not one of the proxies that are let in listener=others address=127.0.0.1:")


@pytest.mark.parametrize(
    "data",
    [packets.connect("direct", V5), b"\x16\x03\x01\x02\x00", b"PROXY TCP4 a b\r\n", b"x" * 5000],
    ids=["mqtt", "tls", "damaged", "rubbish"],
)
def test_who_brings_no_header_is_not_let_in(site: Site, data: bytes) -> None:
    for port in (site.behind, site.both):
        with Wire(port) as wire:
            assert _is_closed(wire, data)
    site.wait_line("a connection was closed: expected .* listener=behind")


def test_who_is_not_let_in_is_counted(site: Site, name: str) -> None:
    with Wire(site.behind) as wrong, Wire(site.half) as plain, Wire(site.web) as page:
        assert _is_closed(wrong, b"rubbish")
        assert _is_closed(plain, b"rubbish" * 10)
        page.socket.sendall(b"GET /elsewhere HTTP/1.1\r\nHost: x\r\n\r\n")
        assert page.socket.recv(12) == b"HTTP/1.1 404"
    with Wire(site.plain) as wire:
        wire.hello(name, clean=True)
        for counter in ("proxy_header", "tls", "websocket"):
            wire.subscribe(f"$SYS/broker/refused/connections/{counter}", 0)
        counts: dict[str, int] = {}
        while len(counts) < 3 or 0 in counts.values():
            found = wire.expect(packets.PUBLISH)
            counts[found.topic] = int(found.payload)


def _is_closed(wire: Wire, data: bytes) -> bool:
    """Whether nothing but the end answers this."""
    try:
        wire.send(data)
        wire.receive()
    except (Closed, OSError):
        return True
    return False


# --- Unix sockets


def test_a_unix_socket_has_its_permissions_and_shows_who_came(site: Site, name: str) -> None:
    assert stat.S_IMODE(site.unix.stat().st_mode) == 0o600
    with unix_wire(site.unix, site.plain) as wire:
        wire.hello(name, clean=True)
        wire.subscribe(f"{name}/a", 1)
        say(site.plain, f"{name}/a", b"42")
        assert [one.payload for one in wire.messages(1)] == [b"42"]
        wire.goodbye()
    site.wait_line(f'client={name} .*address="unix:uid={os.getuid()},pid={os.getpid()}"')


def test_mosquitto_clients_over_a_unix_socket(site: Site, name: str) -> None:
    publish = [required("mosquitto_pub", "mosquitto-clients"), "--unix", str(site.unix), "-r"]
    subprocess.run([*publish, "-q", "1", "-t", name, "-m", "42"], check=True, timeout=PATIENCE_S)
    subscribe = [required("mosquitto_sub", "mosquitto-clients"), "--unix", str(site.unix)]
    done = subprocess.run(
        [*subscribe, "-C", "1", "-t", name], check=True, capture_output=True, timeout=PATIENCE_S
    )
    assert done.stdout == b"42\n"


def test_a_proxy_may_come_over_a_unix_socket(site: Site, name: str) -> None:
    with unix_wire(site.unix_behind) as wire:
        wire.send(HEADER_V1)
        wire.hello(name, clean=True)
    site.wait_line(f"client={name} .*address=203.0.113.7:56324")


def test_the_socket_of_a_dead_broker_is_replaced_and_removed_in_the_end(
    new_broker: NewBroker, tmp_path: Path, name: str
) -> None:
    path = tmp_path / "a.sock"
    broker = new_broker(toml=listener_table("a", f"unix:{path}"))
    broker.kill9()
    assert path.is_socket()
    broker.start()
    with unix_wire(path) as wire:
        wire.hello(name, clean=True)
    assert broker.terminate() == 0
    assert not path.exists()


def test_the_socket_of_a_live_broker_is_not_taken(
    new_broker: NewBroker, tmp_path: Path, name: str
) -> None:
    path = tmp_path / "a.sock"
    new_broker("first", toml=listener_table("a", f"unix:{path}"))
    said = _fails_to_start(tmp_path, path)
    assert f"cannot listen on unix:{path}: Address already in use" in said
    with unix_wire(path) as wire:
        wire.hello(name, clean=True)


@pytest.mark.parametrize("kind", ["file", "folder", "dangling link"])
def test_another_kind_of_file_is_left_alone(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.sock"
    if kind == "file":
        path.write_text("mine")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "nowhere")
    said = _fails_to_start(tmp_path, path)
    assert f"cannot listen on unix:{path}: there is another kind of file" in said
    assert path.is_symlink() or path.exists()


def _fails_to_start(folder: Path, path: Path) -> str:
    """What a broker says that cannot listen there; its exit code is 3."""
    data = ["--data-dir", str(folder / "second"), "--listen", f"unix:{path}"]
    process = Process([holdfast_command(), "serve", *data])
    assert process.wait() == 3
    return "\n".join(process.lines)


def test_what_replaced_the_socket_is_not_removed(new_broker: NewBroker, tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    broker = new_broker(toml=listener_table("a", f"unix:{path}"))
    path.unlink()
    path.write_text("mine")
    assert broker.terminate() == 0
    assert path.read_text() == "mine"


# --- the end of a connection


def test_who_closes_a_half_and_reads_nothing_is_not_kept_for_ever(site: Site, name: str) -> None:
    """What is to be written to it would wait until it reads, which is never."""
    over_tls = tls_wire(site.half, site.authority.client_context())
    with Wire(site.plain) as over_tcp, over_tls:
        for number, lazy in enumerate((over_tcp, over_tls)):
            lazy.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            lazy.hello(f"{name}-{number}", clean=True)
            lazy.subscribe(f"{name}/a", 0)
        say(site.plain, f"{name}/a", *[b"x" * 500_000] * 10, qos=0)
        for lazy in (over_tcp, over_tls):
            socket.socket.shutdown(lazy.socket, socket.SHUT_WR)
        for number in (0, 1):
            site.wait_line(f"connection ended client={name}-{number} ")


# --- IPv6


def test_ipv6_alone_and_beside_ipv4(new_broker: NewBroker, name: str) -> None:
    broker = new_broker(store="memory", toml=listener_table("six", "[::1]:0"))
    port = ports(broker)[1]
    opened = socket.create_connection(("::1", port), PATIENCE_S)
    with Wire(port, V5, opened) as wire:
        wire.hello(name, clean=True)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), PATIENCE_S)
