"""Certificates that change while the broker runs: nobody is dropped, wrong ones do nothing."""

import signal
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from tests.support.broker import BrokerProcess
from tests.support.listening import Authority, listener_table, ports, revoke, tls_table, tls_wire
from tests.support.wire import PATIENCE_S, Closed

FILES = ("server.pem", "server.key", "clients.pem", "crl.pem")


class Site:
    """A broker whose certificates are in a folder, and two authorities to make others."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.first, self.second = Authority(folder, "first"), Authority(folder, "second")
        self.old = self.first.issue("old", "localhost", common_name="old")
        self.new = self.first.issue("new", "localhost", common_name="new")
        self.meter = self.first.issue("meter", "a", common_name="meter")
        self.lost = self.first.issue("lost", "b", common_name="lost")
        self.moved = self.second.issue("moved", "c", common_name="moved")
        self.install(self.old)
        self.trust(self.first)
        table = tls_table(
            folder / "server.pem",
            client_certificates="required",
            client_ca=folder / "clients.pem",
            crl=folder / "crl.pem",
        )
        self.toml = listener_table("secure") + table

    def install(self, certificate: Path) -> None:
        for ending in (".pem", ".key"):
            content = certificate.with_suffix(ending).read_bytes()
            self.folder.joinpath(f"server{ending}").write_bytes(content)

    def trust(self, authority: Authority, *revoked: Path) -> None:
        self.folder.joinpath("clients.pem").write_bytes(authority.file.read_bytes())
        revoke(authority, self.folder / "crl.pem", *revoked)

    def serve(self, broker: BrokerProcess) -> "Site":
        self.broker = broker
        self.port = ports(broker)[1]
        return self

    def reload(self, pattern: str = "certificates of secure: read anew") -> None:
        """Send SIGHUP, and wait for what is logged of it."""
        first = len(self.broker.log_lines)
        self.broker.process.send_signal(signal.SIGHUP)
        self.broker.process.wait_line(pattern, first)

    def shown(self) -> str:
        """The common name of the certificate that a new client is shown."""
        with tls_wire(self.port, self.first.client_context(self.meter)) as wire:
            assert isinstance(wire.socket, ssl.SSLSocket)
            encoded = wire.socket.getpeercert(binary_form=True)
            assert encoded is not None
            found = x509.load_der_x509_certificate(encoded).subject
            return str(found.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value)

    def is_let_in(self, certificate: Path) -> bool:
        try:
            with tls_wire(self.port, self.first.client_context(certificate)) as wire:
                wire.hello("a client", clean=True)
                return True
        except ssl.SSLError:
            return False


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    with BrokerProcess(tmp_path / "data", store="memory", toml=made.toml) as broker:
        yield made.serve(broker)


def test_new_connections_get_the_new_certificate_and_old_ones_stay(site: Site, name: str) -> None:
    with tls_wire(site.port, site.first.client_context(site.meter)) as wire:
        wire.hello(name, clean=True)
        assert site.shown() == "old"
        site.install(site.new)
        site.reload()
        assert site.shown() == "new"
        wire.ping()
        wire.subscribe(f"{name}/a", 1)
        wire.publish(f"{name}/a", b"42")
        assert [one.payload for one in wire.messages(1)] == [b"42"]


def test_a_change_of_the_files_is_enough(site: Site) -> None:
    first = len(site.broker.log_lines)
    site.install(site.new)
    site.broker.process.wait_line("certificates of secure: read anew", first)
    assert site.shown() == "new"


def test_who_may_connect_changes_with_the_authority_and_the_list(site: Site) -> None:
    assert [site.is_let_in(one) for one in (site.meter, site.lost, site.moved)] == [
        True,
        True,
        False,
    ]
    site.trust(site.first, site.lost)
    site.reload()
    assert [site.is_let_in(one) for one in (site.meter, site.lost)] == [True, False]
    site.trust(site.second)
    site.reload()
    assert [site.is_let_in(one) for one in (site.meter, site.moved)] == [False, True]


def test_who_is_connected_and_revoked_has_to_go(site: Site, name: str) -> None:
    """A stolen device does not stay for as long as it likes."""
    with (
        tls_wire(site.port, site.first.client_context(site.meter)) as stays,
        tls_wire(site.port, site.first.client_context(site.lost)) as goes,
    ):
        stays.hello(f"{name}-stays", clean=True)
        goes.hello(f"{name}-goes", clean=True)
        site.trust(site.first, site.lost)
        site.reload("the client's certificate is revoked listener=secure")
        with pytest.raises((Closed, OSError)):
            goes.receive()
        stays.ping()


def test_who_is_revoked_during_the_handshake_is_not_let_in(site: Site) -> None:
    """The handshake goes on with what it began with, and ends with the list of that moment."""
    context = site.first.client_context(site.lost)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with socket.create_connection(("127.0.0.1", site.port), PATIENCE_S) as raw:
        with pytest.raises(ssl.SSLWantReadError):
            client.do_handshake()
        raw.sendall(outgoing.read())
        while True:
            incoming.write(raw.recv(1 << 16))  # the server has taken its context
            try:
                client.do_handshake()
                break
            except ssl.SSLWantReadError:
                pass
        first = len(site.broker.log_lines)
        site.trust(site.first, site.lost)
        site.reload()
        assert site.is_let_in(site.meter)
        raw.sendall(outgoing.read())
        site.broker.process.wait_line("certificate is revoked listener=secure", first)
        while raw.recv(1 << 16):
            pass  # tickets, and the end


def test_a_session_of_tls_is_not_resumed_past_a_reload(site: Site) -> None:
    """Who was verified before the revocation is verified again."""
    context = site.first.client_context(site.lost)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with tls_wire(site.port, context) as wire:
        wire.hello("lost", clean=True)
        assert isinstance(wire.socket, ssl.SSLSocket)
        session = wire.socket.session
    site.trust(site.first, site.lost)
    with tls_wire(site.port, context, session=session) as wire:
        assert isinstance(wire.socket, ssl.SSLSocket)
        assert wire.socket.session_reused  # the list has not been read yet
    site.reload()
    with pytest.raises(ssl.SSLError, match=r"(?i)certificate revoked"):
        tls_wire(site.port, context, session=session)


def test_wrong_files_change_nothing(site: Site) -> None:
    """Empty, rubbish or gone; all else would be right, and is not used."""
    stays = r"certificates of secure: what was read before stays: listeners\[0\].*"
    for broken in FILES:
        file = site.folder / broken
        for content in (b"", b"rubbish\n", None):
            site.install(site.new)
            right = file.read_bytes()
            file.unlink()
            if content is not None:
                file.write_bytes(content)
            site.reload(stays + broken)
            assert site.shown() == "old"
            assert not site.is_let_in(site.moved)
            file.write_bytes(right)
            site.install(site.old)
            site.reload()


def test_a_key_that_is_not_there_yet_changes_nothing(site: Site) -> None:
    """Two files cannot be replaced at once: the certificate waits for its key."""
    content = site.new.read_bytes()
    site.folder.joinpath("server.pem").write_bytes(content)
    site.reload("expected the key of the first certificate in .*server.pem")
    assert site.shown() == "old"
    site.folder.joinpath("server.key").write_bytes(site.new.with_suffix(".key").read_bytes())
    site.reload()
    assert site.shown() == "new"
