"""Certificates, files and sockets for the tests of listeners."""

import datetime
import json
import re
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from tests.support import packets
from tests.support.broker import BrokerProcess
from tests.support.wire import PATIENCE_S, Wire

_LISTENING: Final = re.compile(r"(\S+):(\d+)(?: \(([a-z, ]+)\))?")


_DAY: Final = datetime.timedelta(days=1)


class Authority:
    """A certificate authority in a folder: writes the files that settings name."""

    def __init__(self, folder: Path, name: str = "ca", ca: trustme.CA | None = None) -> None:
        self.folder = folder
        self.ca = trustme.CA(organization_name=name) if ca is None else ca
        self.file = folder / f"{name}.pem"
        self.ca.cert_pem.write_to_path(str(self.file))

    def issue(self, name: str, *identities: str, common_name: str | None = None) -> Path:
        """A certificate for these names: the path of ``name.pem``, with ``name.key`` beside it."""
        leaf = self.ca.issue_cert(*identities, common_name=common_name)
        certificate = self.folder / f"{name}.pem"
        certificate.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        leaf.private_key_pem.write_to_path(str(certificate.with_suffix(".key")))
        return certificate

    def client_context(self, certificate: Path | None = None) -> ssl.SSLContext:
        """What a client trusts, and shows."""
        context = ssl.create_default_context(cafile=self.file)
        if certificate is not None:
            context.load_cert_chain(certificate, certificate.with_suffix(".key"))
        return context


def revoke(
    authority: Authority, file: Path, *certificates: Path, until: datetime.datetime | None = None
) -> Path:
    """Write the authority's list of those that are revoked: these."""
    key = load_pem_private_key(authority.ca.private_key_pem.bytes(), None)
    assert isinstance(key, EllipticCurvePrivateKey)
    issuer = x509.load_pem_x509_certificate(authority.ca.cert_pem.bytes())
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.subject)
        .last_update(now - _DAY)
        .next_update(now + _DAY if until is None else until)
    )
    for certificate in certificates:
        serial = x509.load_pem_x509_certificate(certificate.read_bytes()).serial_number
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now - _DAY)
        builder = builder.add_revoked_certificate(entry.build())
    file.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    return file


def listener_table(name: str, address: str = "127.0.0.1:0", **values: object) -> str:
    """A ``[[listeners]]`` table, on any free port, as TOML."""
    return f"[[listeners]]\n{_lines({'name': name, 'address': address} | values)}"


def tls_table(certificate: Path, **values: object) -> str:
    """The table of TLS that belongs to the listener before it, as TOML."""
    files = {"certificate": certificate, "key": certificate.with_suffix(".key")}
    return f"[listeners.tls]\n{_lines(files | values)}"


def _lines(values: Mapping[str, object]) -> str:
    return "".join(f"{key} = {_toml(value)}\n" for key, value in values.items())


def _toml(value: object) -> str:
    if isinstance(value, Path):
        value = str(value)
    # JSON writes texts, numbers and lists of them as TOML does.
    return json.dumps(value)


def ports(broker: BrokerProcess) -> list[int]:
    """The ports of all listeners, as the ready line has them, in the order of the settings."""
    ready = next(line for line in reversed(broker.log_lines) if " ready on " in line)
    listening = ready.partition(" ready on ")[2].partition(";")[0]
    return [int(found[2]) for found in _LISTENING.finditer(listening)]


def tls_wire(
    port: int,
    context: ssl.SSLContext,
    level: int = packets.V5,
    *,
    server_name: str = "localhost",
    before: bytes = b"",
    session: ssl.SSLSession | None = None,
) -> Wire:
    """A raw client over TLS, which sends ``before`` in the clear; raises what TLS raises."""
    plain = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
    try:
        plain.sendall(before)
        return Wire(
            port, level, context.wrap_socket(plain, server_hostname=server_name, session=session)
        )
    except BaseException:
        plain.close()
        raise


def unix_wire(path: Path, port: int = 0, level: int = packets.V5) -> Wire:
    """A raw client on a Unix socket; ``port`` is one that the same broker listens on as well."""
    plain = socket.socket(socket.AF_UNIX)
    plain.settimeout(PATIENCE_S)
    plain.connect(str(path))
    return Wire(port, level, plain)
