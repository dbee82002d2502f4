"""The TLS of a listener: its certificates and what it asks of clients, from files that are checked.

Everything is read and checked before any of it is used, so that a listener either gets all that its
files say, or keeps what it has. A message names the setting, the file and what was expected.
"""

import datetime
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from holdfast.config.listeners import TlsSettings
from holdfast.errors import ConfigError
from holdfast.logs import get_logger

# Forward secrecy and authenticated encryption. Those of TLS 1.3 are all of this kind.
CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
_NEVER: Final = ":!aNULL:!eNULL:!EXPORT:!PSK:!SRP"
SOON: Final = datetime.timedelta(days=14)  # a certificate that ends within it is warned of
_VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_CERTIFICATE_MARK: Final = b"-----BEGIN CERTIFICATE-----"
_CRL_MARK: Final = b"-----BEGIN X509 CRL-----"

# A certificate as revocation lists name it: its issuer (DER) and its serial number.
CertificateKey = tuple[bytes, int]

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Trust:
    """Whose client certificates are taken."""

    ca: Path
    crl: Path | None
    is_chain_checked: bool  # there are CRLs about the CAs too
    revoked: frozenset[CertificateKey]


@final
class TlsContexts:
    """What handshakes use: ``default``, and another context for each name in ``sni``.

    Raises ConfigError if a file is missing, unreadable or not what it has to be; ``setting`` is
    how messages call the table. What will soon be wrong is only warned of.
    """

    def __init__(self, settings: TlsSettings, setting: str) -> None:
        self._settings = settings
        self._now = datetime.datetime.now(datetime.UTC)
        trust = self._read_trust(setting)
        self.revoked: Final = frozenset() if trust is None else trust.revoked
        self._named: dict[str, ssl.SSLContext] = {}
        for number, sni in enumerate(settings.sni):
            names = f"{setting}.sni[{number}]"
            context = self._context(sni.certificate, sni.key, trust, names)
            self._named[sni.server_name.lower().rstrip(".")] = context
        self.default: Final = self._context(settings.certificate, settings.key, trust, setting)
        if self._named:
            self.default.sni_callback = self._choose

    def _choose(
        self, ssl_object: ssl.SSLSocket | ssl.SSLObject, name: str | None, _: ssl.SSLContext
    ) -> None:
        """Give the certificate that a client asks for; the default one if there is none for it."""
        if name is None:
            return
        name = name.lower().rstrip(".")
        parent = name.partition(".")[2]
        found = self._named.get(name) or self._named.get(f"*.{parent}")
        if found is not None:
            ssl_object.context = found

    def _context(
        self, certificate: Path, key: Path, trust: _Trust | None, setting: str
    ) -> ssl.SSLContext:
        self._check_pair(certificate, key, setting)
        settings = self._settings
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = _VERSIONS[settings.minimum_version]
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
        context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_SINGLE_ECDH_USE
        try:
            context.set_ciphers((settings.ciphers or CIPHERS) + _NEVER)
        except ssl.SSLError:
            raise ConfigError(
                f"{setting}.ciphers = {settings.ciphers!r}: expected ciphers that OpenSSL knows,"
                " such as ECDHE+AESGCM"
            ) from None
        try:
            context.load_cert_chain(certificate, key, password=_no_password)
        except (ssl.SSLError, OSError) as error:
            raise ConfigError(
                f"{setting}.certificate: {certificate}: expected a certificate that TLS can use:"
                f" {_reason(error)}"
            ) from error
        if trust is not None:
            self._ask_clients(context, trust, setting)
        return context

    def _ask_clients(self, context: ssl.SSLContext, trust: _Trust, setting: str) -> None:
        is_required = self._settings.client_certificates == "required"
        context.verify_mode = ssl.CERT_REQUIRED if is_required else ssl.CERT_OPTIONAL
        # Who signs the clients' certificates is trusted, also where its own issuer is not known.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        try:
            context.load_verify_locations(trust.ca)
            if trust.crl is not None:
                context.load_verify_locations(trust.crl)
        except (ssl.SSLError, OSError) as error:
            raise ConfigError(
                f"{setting}.client_ca: {trust.ca}: expected certificates that TLS can use:"
                f" {_reason(error)}"
            ) from error
        if trust.crl is not None:
            is_chain = trust.is_chain_checked
            context.verify_flags |= (
                ssl.VERIFY_CRL_CHECK_CHAIN if is_chain else ssl.VERIFY_CRL_CHECK_LEAF
            )

    # --- the files

    def _check_pair(self, certificate: Path, key: Path, setting: str) -> None:
        """Whether a certificate and its key are what they should be, and belong together."""
        chain = _certificates(certificate, f"{setting}.certificate")
        private = _private_key(key, f"{setting}.key")
        if _public_bytes(chain[0]) != private.public_key().public_bytes(
            Encoding.DER, PublicFormat.SubjectPublicKeyInfo
        ):
            raise ConfigError(
                f"{setting}.key: {key}: expected the key of the first certificate in"
                f" {certificate}, this is another one's"
            )
        for one in chain:
            self._warn_of_time(one, f"{setting}.certificate", certificate)

    def _read_trust(self, setting: str) -> _Trust | None:
        settings = self._settings
        if settings.client_certificates == "none":
            return None
        assert settings.client_ca is not None  # as the settings were checked
        authorities = _certificates(settings.client_ca, f"{setting}.client_ca")
        for one in authorities:
            self._warn_of_time(one, f"{setting}.client_ca", settings.client_ca)
        if settings.crl is None:
            return _Trust(settings.client_ca, None, False, frozenset())
        lists = _revocation_lists(settings.crl, f"{setting}.crl")
        for revoked in lists:
            self._warn_of_age(revoked, f"{setting}.crl", settings.crl)
        issuers = {one.issuer.public_bytes() for one in lists}
        is_chain_checked = all(one.issuer.public_bytes() in issuers for one in authorities)
        keys = frozenset(
            (one.issuer.public_bytes(), entry.serial_number) for one in lists for entry in one
        )
        return _Trust(settings.client_ca, settings.crl, is_chain_checked, keys)

    def _warn_of_time(self, certificate: x509.Certificate, setting: str, file: Path) -> None:
        until, since = certificate.not_valid_after_utc, certificate.not_valid_before_utc
        what = {"setting": setting, "file": file, "subject": certificate.subject.rfc4514_string()}
        if until < self._now:
            _log.warning("a certificate has expired", **what, expired=until.isoformat())
        elif until < self._now + SOON:
            _log.warning("a certificate expires soon", **what, expires=until.isoformat())
        elif since > self._now:
            _log.warning("a certificate is not valid yet", **what, valid_from=since.isoformat())

    def _warn_of_age(
        self, revoked: x509.CertificateRevocationList, setting: str, file: Path
    ) -> None:
        until = revoked.next_update_utc
        if until is not None and until < self._now:
            _log.warning(
                "a revocation list is out of date: clients are refused until there is a new one",
                setting=setting,
                file=file,
                expired=until.isoformat(),
            )


def certificate_key(encoded: bytes) -> CertificateKey:
    """How revocation lists would name this certificate (DER), which has been read before."""
    certificate = x509.load_der_x509_certificate(encoded)
    return certificate.issuer.public_bytes(), certificate.serial_number


def _read(file: Path, setting: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{setting}: {file}: cannot be read: {error.strerror}") from error


def _certificates(file: Path, setting: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(_read(file, setting))
    except ValueError as error:
        raise ConfigError(f"{setting}: {file}: expected certificates as PEM") from error


def _private_key(file: Path, setting: str) -> PrivateKeyTypes:
    raw = _read(file, setting)
    try:
        return load_pem_private_key(raw, None)
    except TypeError:
        # Nobody is there to type a password when the broker starts.
        raise ConfigError(
            f"{setting}: {file}: expected a key without a password, this one is encrypted"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        # Without the cause: nothing that is said about a key should show any of it.
        raise ConfigError(f"{setting}: {file}: expected a private key as PEM") from None


def _revocation_lists(file: Path, setting: str) -> list[x509.CertificateRevocationList]:
    """The lists of a file, which may hold several, and nothing but them."""
    raw = _read(file, setting)
    starts = raw.split(_CRL_MARK)[1:]
    # A certificate in this file would be trusted, as those in client_ca are.
    if not starts or _CERTIFICATE_MARK in raw:
        raise ConfigError(f"{setting}: {file}: expected revocation lists as PEM, nothing else")
    try:
        return [x509.load_pem_x509_crl(_CRL_MARK + part) for part in starts]
    except ValueError as error:
        raise ConfigError(f"{setting}: {file}: expected revocation lists as PEM") from error


def _public_bytes(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _no_password() -> str:
    raise AssertionError("a key with a password was refused before")


def _reason(error: ssl.SSLError | OSError) -> str:
    words = error.reason if isinstance(error, ssl.SSLError) and error.reason else error.strerror
    return str(words or error).replace("_", " ").lower()
