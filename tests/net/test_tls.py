"""TLS as clients see it: versions, ciphers, certificates on both sides, and what is refused."""

import socket
import ssl
import struct
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from cryptography import x509
from paho.mqtt.enums import CallbackAPIVersion

from tests.support import packets
from tests.support.broker import BrokerProcess
from tests.support.listening import (
    Authority,
    listener_table,
    ports,
    revoke,
    tls_table,
    tls_wire,
)
from tests.support.packets import Will
from tests.support.process import eventually, required
from tests.support.wire import LEVELS, PATIENCE_S, Closed, Wire, say


class Site:
    """One broker with a listener for each kind of TLS, and the certificates for them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(folder)
        self.server = self.authority.issue("server", "localhost")
        self.other_server = self.authority.issue("other", "other.example.org")
        self.wide_server = self.authority.issue("wide", "*.wide.example.org")
        self.devices = Authority(folder, "devices")
        self.meter = self.devices.issue(
            "meter", "meter.example.org", "meter@example.org", common_name="meter-7"
        )
        self.revoked = self.devices.issue("revoked", "revoked.example.org", common_name="meter-8")
        self.stranger = Authority(folder, "strangers").issue("stranger", "x", common_name="meter-7")
        crl = revoke(self.devices, folder / "crl.pem", self.revoked)
        asked = {"client_ca": self.devices.file, "crl": crl}
        sni = [
            f"[[listeners.tls.sni]]\nserver_name = '{name}'\ncertificate = '{file}'\n"
            f"key = '{file.with_suffix('.key')}'\n"
            for name, file in (
                ("Other.example.org", self.other_server),
                ("*.wide.example.org", self.wide_server),
            )
        ]
        self.toml = "".join(
            [
                *(listener_table("open"), tls_table(self.server, handshake_timeout_s=0.5)),
                *(listener_table("asked"), tls_table(self.server, client_certificates="required")),
                "".join(f"{key} = '{file}'\n" for key, file in asked.items()),
                *(listener_table("optional"), tls_table(self.server)),
                f"client_certificates = 'optional'\nclient_ca = '{self.devices.file}'\n",
                *(listener_table("modern"), tls_table(self.server, minimum_version="1.3"), *sni),
            ]
        )

    def serve(self, broker: BrokerProcess) -> "Site":
        self.broker = broker
        self.plain, self.open, self.asked, self.optional, self.modern = ports(broker)
        return self

    def context(self, certificate: Path | None = None) -> ssl.SSLContext:
        return self.authority.client_context(certificate)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("tls")
    made = Site(folder)
    with BrokerProcess(folder / "data", store="memory", toml=made.toml) as broker:
        yield made.serve(broker)


def refusal(port: int, context: ssl.SSLContext) -> str:
    """How a handshake, or the first read after it, fails at the client."""
    try:
        with tls_wire(port, context) as wire:
            wire.send(packets.connect("refused", packets.V5))
            wire.socket.settimeout(PATIENCE_S)
            assert wire.socket.recv(1) == b"", "the server answered"
            return "closed"
    except ssl.SSLError as error:
        return str(error.reason)


def s_client(port: int, *arguments: str) -> str:
    """What openssl says of a connection."""
    command = [required("openssl", "openssl"), "s_client", "-connect", f"127.0.0.1:{port}"]
    done = subprocess.run(
        [*command, *arguments], input=b"", capture_output=True, timeout=PATIENCE_S, check=False
    )
    return (done.stdout + done.stderr).decode(errors="replace")


# --- the handshake


@pytest.mark.parametrize("level", LEVELS)
def test_messages_of_any_size_go_through(site: Site, name: str, level: int) -> None:
    sizes = [0, 1, 16_383, 16_384, 16_385, 100_000, 900_000]
    with tls_wire(site.open, site.context(), level) as wire:
        wire.hello(name, clean=True)
        wire.subscribe(f"{name}/#", 1)
        for size in sizes:
            wire.publish(f"{name}/{size}", b"x" * size)
        assert [len(one.payload) for one in wire.messages(len(sizes))] == sizes
        wire.goodbye()


def test_two_versions_and_no_older_one(site: Site) -> None:
    assert "Protocol  : TLSv1.2" in s_client(site.open, "-tls1_2")
    assert "TLSv1.3" in s_client(site.open, "-tls1_3")
    for old in ("-tls1", "-tls1_1"):
        said = s_client(site.open, old, "-cipher", "ALL:@SECLEVEL=0")
        assert "Cipher is (NONE)" in said, said
        assert "alert protocol version" in said, said
    assert "alert protocol version" in s_client(site.modern, "-tls1_2")


@pytest.mark.parametrize("cipher", ["AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA256", "AES256-SHA"])
def test_ciphers_without_forward_secrecy_or_authentication_are_refused(
    site: Site, cipher: str
) -> None:
    said = s_client(site.open, "-tls1_2", "-cipher", cipher)
    assert "alert handshake failure" in said, said


def test_nothing_is_compressed_and_nothing_renegotiated(site: Site) -> None:
    said = s_client(site.open, "-tls1_2")
    assert "Compression: NONE" in said, said
    command = [required("openssl", "openssl"), "s_client", "-connect", f"127.0.0.1:{site.open}"]
    done = subprocess.run(
        [*command, "-tls1_2"], input=b"R\n", capture_output=True, timeout=PATIENCE_S, check=False
    )
    assert b"no renegotiation" in done.stderr, done.stderr


def test_the_certificate_is_that_of_the_name_asked_for(site: Site) -> None:
    def names(*arguments: str) -> str:
        said = s_client(site.modern, *arguments)
        start = said.index("-----BEGIN CERTIFICATE-----")
        certificate = x509.load_pem_x509_certificate(said[start:].encode())
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        return ", ".join(extension.value.get_values_for_type(x509.DNSName))

    assert names("-servername", "other.example.org") == "other.example.org"
    assert names("-servername", "OTHER.example.org") == "other.example.org"
    assert names("-servername", "a.wide.example.org") == "*.wide.example.org"
    assert names("-servername", "a.b.wide.example.org") == "localhost"
    assert names("-servername", "unknown.example.org") == "localhost"
    assert names("-noservername") == "localhost"


def test_who_does_not_speak_tls_is_closed_and_told_of(site: Site, name: str) -> None:
    with Wire(site.modern) as wire:
        wire.send(packets.connect(name, packets.V5))
        wire.socket.settimeout(PATIENCE_S)
        while wire.socket.recv(100):
            pass
    site.broker.process.wait_line("closed: the client does not speak TLS .*listener=modern")


def test_a_handshake_has_so_much_time(site: Site) -> None:
    first = len(site.broker.log_lines)
    with Wire(site.open) as idle, Wire(site.open) as slow:
        slow.send(b"\x16\x03\x01\x02\x00\x01")
        for wire in (idle, slow):
            with pytest.raises(Closed):
                wire.receive()
    site.broker.process.wait_line("no TLS handshake within 0.5 s listener=open", first)


def test_a_look_at_the_port_is_not_worth_a_line(site: Site, name: str) -> None:
    first = len(site.broker.log_lines)
    Wire(site.asked).cut()
    with tls_wire(site.asked, site.context(site.meter)) as wire:
        wire.hello(name, clean=True)
    assert [line for line in site.broker.log_lines[first:] if "net.listener" in line] == []


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_the_handshake_may_come_byte_by_byte(site: Site, name: str, version: str) -> None:
    context = site.context()
    bound = ssl.TLSVersion.TLSv1_2 if version == "1.2" else ssl.TLSVersion.TLSv1_3
    context.minimum_version = context.maximum_version = bound
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with socket.create_connection(("127.0.0.1", site.optional), PATIENCE_S) as plain:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def flush() -> None:
            for byte in outgoing.read():
                plain.sendall(bytes([byte]))

        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                flush()
                incoming.write(plain.recv(65_536))
        tls.write(packets.connect(name, packets.V5))
        flush()
        while True:
            try:
                assert tls.read(1) == bytes([packets.CONNACK << 4])
                break
            except ssl.SSLWantReadError:
                incoming.write(plain.recv(65_536))


# --- certificates of clients


def test_a_client_without_a_certificate_is_refused_where_one_is_required(site: Site) -> None:
    assert "CERTIFICATE_REQUIRED" in refusal(site.asked, site.context()).upper()
    site.broker.process.wait_line("the TLS handshake failed: peer did not return a certificate")


def test_a_client_whose_certificate_another_has_signed_is_refused(site: Site) -> None:
    for port in (site.asked, site.optional):
        assert "UNKNOWN_CA" in refusal(port, site.context(site.stranger)).upper()
    site.broker.process.wait_line(
        "the client's certificate: unable to get local issuer certificate"
    )


def test_a_client_whose_certificate_is_revoked_is_refused(site: Site) -> None:
    assert "CERTIFICATE_REVOKED" in refusal(site.asked, site.context(site.revoked)).upper()
    site.broker.process.wait_line("the client's certificate: certificate revoked.*listener=asked")
    # The listener without the list takes it.
    with tls_wire(site.optional, site.context(site.revoked)) as wire:
        wire.hello("revoked", clean=True)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_with_a_certificate_is_let_in(
    site: Site, name: str, version: ssl.TLSVersion
) -> None:
    context = site.context(site.meter)
    context.maximum_version = version
    for port in (site.asked, site.optional):
        with tls_wire(port, context) as wire:
            wire.hello(name, clean=True)
            wire.ping()


def test_where_it_is_optional_a_client_may_have_none(site: Site, name: str) -> None:
    with tls_wire(site.optional, site.context()) as wire:
        wire.hello(name, clean=True)


# --- real clients


def test_paho_with_a_certificate(site: Site, name: str) -> None:
    client = paho.Client(CallbackAPIVersion.VERSION2, name, protocol=paho.MQTTv5)
    client.tls_set(str(site.authority.file), str(site.meter), str(site.meter.with_suffix(".key")))
    got: list[bytes] = []

    def came(_: paho.Client, __: object, message: paho.MQTTMessage) -> None:
        got.append(bytes(message.payload))
        client.disconnect()

    def subscribed(*_: object) -> None:
        client.publish(f"{name}/a", b"42", qos=2)

    def connected(*_: object) -> None:
        client.subscribe(f"{name}/#", 1)

    client.on_message = came
    client.on_subscribe = subscribed
    client.on_connect = connected
    client.connect("localhost", site.asked)
    client.loop_forever()
    assert got == [b"42"]


def test_mosquitto_clients_with_a_certificate(site: Site, name: str) -> None:
    shared = ["-h", "localhost", "-p", str(site.asked), "--cafile", str(site.authority.file)]
    shared += ["--cert", str(site.meter), "--key", str(site.meter.with_suffix(".key"))]
    publish = [required("mosquitto_pub", "mosquitto-clients"), *shared, "-r", "-q", "1"]
    subprocess.run([*publish, "-t", name, "-m", "42"], check=True, timeout=PATIENCE_S)
    subscribe = [required("mosquitto_sub", "mosquitto-clients"), *shared, "-C", "1", "-t", name]
    done = subprocess.run(subscribe, check=True, capture_output=True, timeout=PATIENCE_S)
    assert done.stdout == b"42\n"


# --- many at once


def test_a_message_in_one_flight_with_the_end_of_the_handshake_and_the_connection(
    site: Site, name: str
) -> None:
    """Whatever a client has sent before it closes counts, even if it is all there at once."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = site.context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    plain = socket.create_connection(("127.0.0.1", site.open), PATIENCE_S)
    with Wire(site.plain) as watcher, plain:
        watcher.hello(f"{name}-w", clean=True)
        watcher.subscribe(f"{name}/a", 0)
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                plain.sendall(outgoing.read())
                incoming.write(plain.recv(65_536))
        tls.write(packets.connect(name, packets.V5))
        for number in range(1, 11):
            tls.write(packets.publish(f"{name}/a", b"%d" % number * 20_000, packets.V5))
        plain.sendall(outgoing.read())
        plain.shutdown(socket.SHUT_WR)
        found = [one.payload for one in watcher.messages(10)]
        assert found == [b"%d" % number * 20_000 for number in range(1, 11)]


def test_many_handshakes_at_once_come_to_an_end(site: Site, name: str) -> None:
    with ExitStack() as stack:
        opened = [stack.enter_context(Wire(site.optional)) for _ in range(50)]
        context = site.context()
        states = []
        for wire in opened:
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
            with pytest.raises(ssl.SSLWantReadError):
                tls.do_handshake()
            wire.send(outgoing.read())
            states.append((wire, tls, incoming, outgoing))
        for wire, tls, incoming, outgoing in states:
            incoming.write(wire.socket.recv(65_536))
            tls.do_handshake()
            tls.write(packets.connect(name, packets.V5))
            wire.send(outgoing.read())
        assert [wire.socket.recv(1) != b"" for wire in opened] == [True] * 50


# --- the end of a connection


@pytest.mark.parametrize("level", LEVELS)
def test_a_goodbye_before_a_reset_is_heard(site: Site, name: str, level: int) -> None:
    """As over TCP: what lies in the socket of a connection that is lost is decrypted and read."""
    with Wire(site.plain, level) as watcher:
        watcher.hello(f"{name}-w", clean=True)
        watcher.subscribe(f"{name}/#", 1)
        before = site.broker.open_files()
        leaving = tls_wire(site.open, site.context(), level)
        leaving.hello(f"{name}-l", clean=True, will=Will(f"{name}/will", b"gone", 1))
        leaving.subscribe(f"{name}/flood", 0)
        leaving.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        leaving.send(packets.disconnect(level))
        leaving.cut()
        say(site.plain, f"{name}/flood", b"x", qos=0)
        eventually(lambda: site.broker.open_files() == before, "the broker closes its side")
        assert [one.topic for one in watcher.until_marker(f"{name}/end")] == [f"{name}/flood"]


def test_a_client_that_says_goodbye_is_answered_so(site: Site, name: str) -> None:
    with tls_wire(site.open, site.context()) as wire:
        wire.hello(name, clean=True)
        wire.send(packets.disconnect(packets.V5))
        wire.socket.settimeout(PATIENCE_S)
        assert wire.socket.recv(1) == b""  # and not an unexpected end, which would raise
        assert isinstance(wire.socket, ssl.SSLSocket)
        wire.socket.unwrap()


def test_damaged_records_end_one_connection_alone(site: Site, name: str) -> None:
    plain = socket.create_connection(("127.0.0.1", site.open), PATIENCE_S)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = site.context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with tls_wire(site.open, site.context()) as other, plain:
        other.hello(f"{name}-other", clean=True)
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                plain.sendall(outgoing.read())
                incoming.write(plain.recv(65_536))
        tls.write(packets.connect(name, packets.V5))
        record = bytearray(outgoing.read())
        record[-1] ^= 1
        plain.sendall(record)
        while plain.recv(65_536):
            pass
        other.ping()
    site.broker.process.wait_line("closed: TLS failed: .*listener=open")


def test_the_keys_are_not_in_the_log(site: Site) -> None:
    for line in site.server.with_suffix(".key").read_text().splitlines()[1:-1]:
        assert line not in site.broker.log
