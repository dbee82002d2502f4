"""TLS of the client: whom it trusts, what it shows, and what is wrong with the files of these."""

import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, NoReturn

from holdfast.errors import UsageError
from holdfast.logs import get_logger

_VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_CERTIFICATE_MARKS: Final = (b"-----BEGIN CERTIFICATE-----", b"-----BEGIN TRUSTED CERTIFICATE-----")
_KEY_MARK: Final = b"PRIVATE KEY-----"


_log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsOptions:
    """How the client speaks TLS. Files are PEM.

    The server's certificate has to come from an authority in ``ca_file`` or in the folder
    ``ca_path`` (named by hash, as ``openssl rehash`` does); with neither, from one that the system
    trusts. It has to be for the host in the URL, or for ``server_name`` where that is given, as for
    a broker that is reached by its address. ``check_hostname=False`` takes a certificate for any
    name from these authorities; ``insecure=True`` takes any certificate from anyone, which keeps
    out nobody who can stand between.

    ``certificate`` is what the client shows, with its chain; ``key`` its key, if that is not in the
    same file, and ``key_password`` what opens it. ``alpn`` are the protocols to offer in the
    handshake, for a server that has several on a port.
    """

    ca_file: Path | str | None = None
    ca_path: Path | str | None = None
    certificate: Path | str | None = None
    key: Path | str | None = None
    key_password: str | bytes | None = field(default=None, repr=False)
    server_name: str = ""
    check_hostname: bool = True
    insecure: bool = False
    alpn: Sequence[str] = ()
    minimum_version: Literal["1.2", "1.3"] = "1.2"

    @property
    def has_files(self) -> bool:
        """Whether any of it comes from a file or folder of the caller's."""
        return (self.ca_file, self.ca_path, self.certificate) != (None, None, None)

    def context(self) -> ssl.SSLContext:
        """What connections use, after all files were read.

        Raises UsageError that names the file and what is wrong with it.
        """
        if self.minimum_version not in _VERSIONS:
            raise UsageError(
                f"TLS: expected minimum_version 1.2 or 1.3, got {self.minimum_version!r}"
            )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = _VERSIONS[self.minimum_version]
        context.options |= ssl.OP_NO_COMPRESSION
        self._trust(context)
        self._show(context)
        if self.alpn:
            try:
                context.set_alpn_protocols(list(self.alpn))
            except (ssl.SSLError, ValueError, UnicodeEncodeError):
                raise UsageError(
                    "TLS: expected names of 1 to 255 characters of ASCII in alpn"
                ) from None
        return context

    def _trust(self, context: ssl.SSLContext) -> None:
        ca_file = _file(self.ca_file, "ca_file")
        ca_path = None if self.ca_path is None else Path(self.ca_path)
        if ca_path is not None and not ca_path.is_dir():
            raise UsageError(f"TLS: ca_path: {ca_path}: expected a folder of certificates")
        if ca_file is not None and not _has_certificates(ca_file, "ca_file"):
            raise UsageError(f"TLS: ca_file: {ca_file}: expected certificates as PEM")
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            return
        context.check_hostname = self.check_hostname
        # Whose certificate is there is trusted, also where its own issuer is not known.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        if ca_file is None and ca_path is None:
            context.load_default_certs()
            return
        try:
            context.load_verify_locations(ca_file, ca_path)
        except (ssl.SSLError, OSError) as error:
            raise UsageError(
                f"TLS: ca_file: {ca_file}: expected certificates that TLS can use:"
                f" {reason_of(error)}"
            ) from error

    def _show(self, context: ssl.SSLContext) -> None:
        certificate, key = _file(self.certificate, "certificate"), _file(self.key, "key")
        if certificate is None:
            if key is not None or self.key_password is not None:
                raise UsageError("TLS: a key is given without a certificate")
            return
        if not _has_certificates(certificate, "certificate"):
            raise UsageError(f"TLS: certificate: {certificate}: expected a certificate as PEM")
        name, place = ("certificate", certificate) if key is None else ("key", key)
        if _KEY_MARK not in _read(place, name):
            where = (
                "behind the certificate, or a file of its own as key" if key is None else "as PEM"
            )
            raise UsageError(f"TLS: {name}: {place}: expected a private key {where}")

        def no_password() -> NoReturn:
            # Without this one OpenSSL would ask at the terminal.
            raise UsageError(f"TLS: {name}: {place}: the key is encrypted: expected key_password")

        password = no_password if self.key_password is None else self.key_password
        try:
            context.load_cert_chain(certificate, key, password)
        except ssl.SSLError as error:
            # Without the cause where it is about the key: nothing of that should show.
            if error.reason == "KEY_VALUES_MISMATCH":
                raise UsageError(
                    f"TLS: {name}: {place}: expected the key of the certificate in {certificate},"
                    " this is another one's"
                ) from None
            if self.key_password is not None:
                raise UsageError(
                    f"TLS: {name}: {place}: key_password does not open the key, or the key is"
                    " damaged"
                ) from None
            raise UsageError(
                f"TLS: certificate: {certificate}: expected a certificate and a key that TLS can"
                f" use: {reason_of(error)}"
            ) from None
        except ValueError:  # longer than OpenSSL takes
            raise UsageError(f"TLS: {name}: {place}: key_password does not open the key") from None


def tls_context(options: TlsOptions | ssl.SSLContext | None) -> ssl.SSLContext:
    """The context for options, for none of them, or the caller's own as it is."""
    if isinstance(options, ssl.SSLContext):
        return options
    return (options or TlsOptions()).context()


class TlsFiles:
    """The context of each new connection: files may have been renewed since the last one."""

    def __init__(self, options: TlsOptions | ssl.SSLContext | None) -> None:
        self.server_name = options.server_name if isinstance(options, TlsOptions) else ""
        self._options = options
        self._context: ssl.SSLContext | None = None

    def context(self) -> ssl.SSLContext:
        """The one to use now. Raises UsageError if there is none, not even of before."""
        has_files = isinstance(self._options, TlsOptions) and self._options.has_files
        if self._context is not None and not has_files:
            return self._context  # reading what the system trusts takes tens of milliseconds
        try:
            self._context = tls_context(self._options)
        except UsageError as error:
            if self._context is None:
                raise
            _log.warning(f"the files of before are used: {error}")
        return self._context


def reason_of(error: ssl.SSLError | OSError) -> str:
    """What OpenSSL or the system says, in its words, without the places in its source."""
    if isinstance(error, ssl.SSLCertVerificationError) and error.verify_message:
        return error.verify_message
    words = error.reason if isinstance(error, ssl.SSLError) and error.reason else error.strerror
    return str(words or error).replace("_", " ").lower()


def _file(path: Path | str | None, name: str) -> Path | None:
    if path is None:
        return None
    if not str(path):
        raise UsageError(f"TLS: {name}: expected the path of a file, it is empty")
    return Path(path)


def _has_certificates(file: Path, name: str) -> bool:
    raw = _read(file, name)
    return any(mark in raw for mark in _CERTIFICATE_MARKS)


def _read(file: Path, name: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UsageError(f"TLS: {name}: {file}: cannot be read: {error.strerror}") from error
