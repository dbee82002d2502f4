"""TLS of the client: what its options make of files, and what is said of those that are wrong."""

import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from holdfast.client.tls import TlsOptions, tls_context
from holdfast.errors import UsageError
from tests.support.listening import Authority

PASSWORD = "s3cret"


class Files:
    """Right and wrong files."""

    def __init__(self, folder: Path) -> None:
        authority = Authority(folder)
        self.folder = folder
        self.ca = authority.file
        self.certificate = authority.issue("client", "client.example.org")
        self.key = self.certificate.with_suffix(".key")
        self.other_key = authority.issue("other", "other.example.org").with_suffix(".key")
        key = load_pem_private_key(self.key.read_bytes(), None)
        self.locked = folder / "locked.key"
        self.locked.write_bytes(
            key.private_bytes(
                Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(PASSWORD.encode())
            )
        )
        self.both = folder / "both.pem"
        self.both.write_bytes(self.certificate.read_bytes() + self.key.read_bytes())
        self.text = folder / "text.pem"
        self.text.write_text("nothing of the kind")
        self.damaged = folder / "damaged.pem"
        self.damaged.write_bytes(self.ca.read_bytes()[:200] + b"\n-----END CERTIFICATE-----\n")
        self.missing = folder / "missing.pem"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("files"))


def test_servers_are_checked_unless_told_otherwise(files: Files) -> None:
    for options in (TlsOptions(), TlsOptions(ca_file=files.ca), TlsOptions(ca_path=files.folder)):
        context = options.context()
        assert context.check_hostname
        assert context.verify_mode == ssl.CERT_REQUIRED
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    context = TlsOptions(ca_file=files.ca, check_hostname=False).context()
    assert not context.check_hostname
    assert context.verify_mode == ssl.CERT_REQUIRED
    context = TlsOptions(insecure=True).context()
    assert not context.check_hostname
    assert context.verify_mode == ssl.CERT_NONE
    context = TlsOptions(minimum_version="1.3", alpn=["mqtt"]).context()
    assert context.minimum_version == ssl.TLSVersion.TLSv1_3


def test_a_certificate_and_its_key_in_one_file_or_in_two(files: Files) -> None:
    TlsOptions(certificate=files.certificate, key=files.key).context()
    TlsOptions(certificate=str(files.both)).context()
    TlsOptions(certificate=files.certificate, key=files.locked, key_password=PASSWORD).context()


def test_a_context_is_taken_as_it_is() -> None:
    context = ssl.create_default_context()
    assert tls_context(context) is context
    assert tls_context(None).check_hostname
    assert not tls_context(TlsOptions(insecure=True)).check_hostname


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            lambda f: TlsOptions(ca_file=f.missing),
            "ca_file: .*missing.pem: cannot be read: No such",
        ),
        (lambda f: TlsOptions(ca_file=f.folder), "ca_file: .*cannot be read: Is a directory"),
        (lambda f: TlsOptions(ca_file=f.text), "ca_file: .*text.pem: expected certificates as PEM"),
        (lambda f: TlsOptions(ca_file=f.damaged), "ca_file: .*damaged.pem: expected certificates"),
        (lambda f: TlsOptions(ca_file=""), "ca_file: expected the path"),
        (lambda f: TlsOptions(ca_path=f.ca), "ca_path: .*ca.pem: expected a folder"),
        (lambda f: TlsOptions(certificate=f.missing), "certificate: .*missing.pem: cannot be read"),
        (lambda f: TlsOptions(certificate=f.key), "certificate: .*client.key: expected a certif"),
        (lambda f: TlsOptions(certificate=f.certificate), "client.pem: expected a private key beh"),
        (
            lambda f: TlsOptions(certificate=f.certificate, key=f.ca),
            "key: .*ca.pem: .* private key",
        ),
        (
            lambda f: TlsOptions(certificate=f.certificate, key=f.other_key),
            "key: .*other.key: expected the key of the certificate in .*client.pem",
        ),
        (
            lambda f: TlsOptions(certificate=f.certificate, key=f.locked),
            "key: .*locked.key: the key is encrypted: expected key_password",
        ),
        (
            lambda f: TlsOptions(certificate=f.certificate, key=f.locked, key_password="wr0ng"),
            "key: .*locked.key: key_password does not open the key",
        ),
        (
            lambda f: TlsOptions(certificate=f.certificate, key=f.locked, key_password="w" * 5000),
            "key: .*locked.key: key_password does not open the key",
        ),
        (lambda f: TlsOptions(key=f.key), "without a certificate"),
        (lambda f: TlsOptions(key_password=PASSWORD), "without a certificate"),
        (lambda f: TlsOptions(alpn=[""]), "alpn"),
        (lambda f: TlsOptions(alpn=["ä"]), "alpn"),
        (lambda f: TlsOptions(minimum_version="1.1"), "1.2 or 1.3"),  # type: ignore[arg-type]  # wrong
    ],
)
def test_a_message_names_the_file_and_what_is_wrong(
    files: Files, options: Callable[[Files], TlsOptions], expected: str
) -> None:
    with pytest.raises(UsageError, match=expected) as failure:
        options(files).context()
    for secret in (PASSWORD, "wr0ng"):
        assert secret not in str(failure.value)


def test_the_password_of_a_key_is_not_shown(files: Files) -> None:
    assert PASSWORD not in repr(TlsOptions(key_password=PASSWORD))
