"""Who a client certificate is for, as far as that can be said beyond doubt."""

import datetime
import hashlib

from cryptography import x509
from cryptography.x509.oid import NameOID

from holdfast.broker.identity import PeerCertificate
from holdfast.config.listeners import CertificateIdentity
from holdfast.errors import HoldfastError


class UnfitCertificate(HoldfastError):
    """A certificate that is signed well, but that nobody should be let in with."""


def peer_certificate(
    encoded: bytes, identity: CertificateIdentity, now: datetime.datetime
) -> PeerCertificate:
    """The names of a certificate (DER) that TLS has verified.

    Raises UnfitCertificate where a name has characters that do not print, such as NUL, which two
    programs may read in two ways; where it has several common names, and one is asked for; and
    where it has expired, which TLS does not look at when a session is resumed.
    """
    try:
        certificate = x509.load_der_x509_certificate(encoded)
        until = certificate.not_valid_after_utc
        common_names = [
            str(name.value)
            for name in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        ]
        dns_names, email_addresses, uris = _alternative_names(certificate)
    # What it raises has no common root, and depends on what somebody has put into a certificate.
    except Exception as error:
        raise UnfitCertificate("the certificate cannot be read") from error
    if until < now:
        raise UnfitCertificate("the certificate has expired")
    for name in (*common_names, *dns_names, *email_addresses, *uris):
        if not name.isprintable():
            raise UnfitCertificate("a name in the certificate has characters that do not print")
    if identity == "common_name" and len(common_names) > 1:
        raise UnfitCertificate("the certificate has several common names")
    common_name = common_names[0] if len(common_names) == 1 else ""
    fingerprint = hashlib.sha256(encoded).hexdigest()
    found = {
        "common_name": common_name,
        "dns_name": _first(dns_names),
        "email": _first(email_addresses),
        "uri": _first(uris),
        "fingerprint": fingerprint,
    }
    return PeerCertificate(
        found[identity], common_name, dns_names, email_addresses, uris, fingerprint
    )


def _alternative_names(
    certificate: x509.Certificate,
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """The DNS names, e-mail addresses and URIs among the Subject Alternative Names."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return (), (), ()
    names = extension.value
    return (
        tuple(names.get_values_for_type(x509.DNSName)),
        tuple(names.get_values_for_type(x509.RFC822Name)),
        tuple(names.get_values_for_type(x509.UniformResourceIdentifier)),
    )


def _first(names: tuple[str, ...]) -> str:
    return names[0] if names else ""
