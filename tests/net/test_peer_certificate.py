"""What a client certificate says about its client, and which ones say it in two ways."""

import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from holdfast.config.listeners import CertificateIdentity
from holdfast.net.peer_certificate import UnfitCertificate, peer_certificate

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)
KEY = generate_private_key(SECP256R1())

SAN = (
    x509.DNSName("meter.example.org"),
    x509.DNSName("second.example.org"),
    x509.RFC822Name("meter@example.org"),
    x509.UniformResourceIdentifier("urn:meter:7"),
)


def certificate(
    *common_names: str,
    alternatives: tuple[x509.GeneralName, ...] = (),
    until: datetime.datetime = NOW + DAY,
) -> bytes:
    """A certificate with these names, signed by nobody in particular."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, one) for one in common_names])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(KEY.public_key())
        .serial_number(7)
        .not_valid_before(NOW - 10 * DAY)
        .not_valid_after(until)
    )
    if alternatives:
        extension = x509.SubjectAlternativeName(alternatives)
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(Encoding.DER)


IDENTITIES: dict[CertificateIdentity, str] = {
    "common_name": "Zähler 7",
    "dns_name": "meter.example.org",
    "email": "meter@example.org",
    "uri": "urn:meter:7",
}


@pytest.mark.parametrize(("kind", "expected"), IDENTITIES.items())
def test_the_name_is_the_one_that_is_asked_for(kind: CertificateIdentity, expected: str) -> None:
    encoded = certificate("Zähler 7", alternatives=SAN)
    found = peer_certificate(encoded, kind, NOW)
    assert found.identity == expected
    assert found.common_name == "Zähler 7"
    assert found.dns_names == ("meter.example.org", "second.example.org")
    assert found.email_addresses == ("meter@example.org",)
    assert found.uris == ("urn:meter:7",)
    assert peer_certificate(encoded, "fingerprint", NOW).identity == found.fingerprint
    fingerprint = x509.load_der_x509_certificate(encoded).fingerprint(hashes.SHA256())
    assert found.fingerprint == fingerprint.hex()


@pytest.mark.parametrize("kind", ["common_name", "dns_name", "email", "uri"])
def test_a_name_that_is_not_there_is_empty(kind: CertificateIdentity) -> None:
    found = peer_certificate(certificate(), kind, NOW)
    assert found.identity == ""
    assert found.fingerprint != ""


@pytest.mark.parametrize(
    "name",
    ["meter\0.example.org", "meter\n", "\rmeter", "me\tter", "meter\x7f", "\u202eretem", "\x85"],
)
def test_a_name_that_does_not_print_is_refused(name: str) -> None:
    """Whoever reads it as a C string, a line or on a terminal would read another name."""
    with pytest.raises(UnfitCertificate, match="do not print"):
        peer_certificate(certificate(name), "common_name", NOW)
    # Also where another name is asked for: it is shown, and given to authenticators.
    with pytest.raises(UnfitCertificate, match="do not print"):
        peer_certificate(certificate(name), "fingerprint", NOW)


@pytest.mark.parametrize(
    "name",
    [
        x509.DNSName("meter\0.example.org"),
        x509.RFC822Name("meter\0@example.org"),
        x509.UniformResourceIdentifier("urn:\nmeter"),
    ],
)
def test_an_alternative_name_that_does_not_print_is_refused(name: x509.GeneralName) -> None:
    with pytest.raises(UnfitCertificate, match="do not print"):
        peer_certificate(certificate("meter", alternatives=(name,)), "common_name", NOW)


def test_several_common_names_are_refused_where_one_is_asked_for() -> None:
    encoded = certificate("meter", "admin", alternatives=SAN)
    with pytest.raises(UnfitCertificate, match="several common names"):
        peer_certificate(encoded, "common_name", NOW)
    found = peer_certificate(encoded, "dns_name", NOW)
    assert found.identity == "meter.example.org"
    assert found.common_name == ""


def test_an_expired_one_is_refused() -> None:
    """TLS has looked at that before, but not where a session is resumed."""
    encoded = certificate("meter", until=NOW - DAY)
    with pytest.raises(UnfitCertificate, match="has expired"):
        peer_certificate(encoded, "common_name", NOW)


@pytest.mark.parametrize("size", [0, 1, 10, 100, 200])
def test_what_cannot_be_read_is_refused(size: int) -> None:
    with pytest.raises(UnfitCertificate, match="cannot be read"):
        peer_certificate(certificate("meter")[:size], "common_name", NOW)


def test_a_damaged_one_is_read_or_refused() -> None:
    encoded = certificate("meter", alternatives=SAN)
    for place in range(len(encoded)):
        damaged = encoded[:place] + bytes([encoded[place] ^ 0x41]) + encoded[place + 1 :]
        try:
            peer_certificate(damaged, "common_name", NOW)
        except UnfitCertificate:
            continue
