"""What the files of TLS have to be, and what is said when they are not."""

import datetime
import logging
import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from holdfast.config.listeners import SniSettings, TlsSettings
from holdfast.errors import ConfigError
from holdfast.net.tls import TlsContexts
from tests.support.listening import Authority, revoke


class Files:
    """All files of one listener, right at first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(folder)
        self.server = self.authority.issue("server", "localhost")
        self.key = self.server.with_suffix(".key")
        self.other = self.authority.issue("other", "other.example.org")
        self.crl = revoke(self.authority, folder / "crl.pem")

    def settings(self, **changes: object) -> TlsSettings:
        values: dict[str, object] = {
            "certificate": self.server,
            "key": self.key,
            "client_certificates": "required",
            "client_ca": self.authority.file,
            "crl": self.crl,
        }
        return TlsSettings.model_validate(values | changes)

    def load(self, **changes: object) -> ssl.SSLContext:
        return TlsContexts(self.settings(**changes), "listeners[0].tls").default

    def complaint(self, **changes: object) -> str:
        with pytest.raises(ConfigError) as caught:
            self.load(**changes)
        said = str(caught.value)
        assert "\n" not in said
        for line in self.key.read_text().splitlines()[1:-1]:
            assert line not in said
        return said


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_the_context_is_strict(files: Files) -> None:
    context = files.load()
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_COMPRESSION
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert context.verify_mode == ssl.CERT_REQUIRED
    names = [cipher["name"] for cipher in context.get_ciphers()]
    assert names
    for name in names:
        assert name.startswith(("TLS_", "ECDHE-")), name
        assert "GCM" in name or "CHACHA20" in name, name
    optional = files.load(client_certificates="optional")
    assert optional.verify_mode == ssl.CERT_OPTIONAL
    none = files.load(client_certificates="none", client_ca=None, crl=None)
    assert none.verify_mode == ssl.CERT_NONE


def test_ciphers_can_be_chosen_but_none_without_encryption(files: Files) -> None:
    context = files.load(ciphers="ALL:eNULL:aNULL:@SECLEVEL=0")
    names = [cipher["name"] for cipher in context.get_ciphers()]
    assert "ECDHE-RSA-AES256-GCM-SHA384" in names
    assert not [name for name in names if "NULL" in name or name.startswith(("ADH", "AECDH"))]
    assert files.complaint(ciphers="NO-SUCH") == (
        "listeners[0].tls.ciphers = 'NO-SUCH': expected ciphers that OpenSSL knows, such as "
        "ECDHE+AESGCM"
    )


@pytest.mark.parametrize("setting", ["certificate", "key", "client_ca", "crl"])
def test_a_missing_file_is_named(files: Files, setting: str) -> None:
    missing = files.folder / "missing.pem"
    assert files.complaint(**{setting: missing}) == (
        f"listeners[0].tls.{setting}: {missing}: cannot be read: No such file or directory"
    )
    said = files.complaint(**{setting: files.folder})
    assert said == f"listeners[0].tls.{setting}: {files.folder}: cannot be read: Is a directory"


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("certificate", "certificates as PEM"),
        ("key", "a private key as PEM"),
        ("client_ca", "certificates as PEM"),
        ("crl", "revocation lists as PEM, nothing else"),
    ],
)
def test_a_file_of_another_kind_is_named(files: Files, setting: str, expected: str) -> None:
    wrong = files.server if setting in ("key", "crl") else files.key
    start = f"listeners[0].tls.{setting}: {wrong}: expected {expected}"
    assert files.complaint(**{setting: wrong}) == start
    for content in (b"", b"rubbish", b"\xff" * 100, files.server.read_bytes()[:200]):
        wrong = files.folder / "wrong.pem"
        wrong.write_bytes(content)
        start = f"listeners[0].tls.{setting}: {wrong}: expected {expected}"
        assert files.complaint(**{setting: wrong}) == start


def test_the_key_of_another_certificate_is_named(files: Files) -> None:
    other = files.other.with_suffix(".key")
    assert files.complaint(key=other) == (
        f"listeners[0].tls.key: {other}: expected the key of the first certificate in "
        f"{files.server}, this is another one's"
    )


def test_a_key_with_a_password_is_refused_and_not_asked_for(files: Files) -> None:
    key = load_pem_private_key(files.key.read_bytes(), None)
    for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL):
        locked = files.folder / "locked.key"
        locked.write_bytes(key.private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"word")))
        assert files.complaint(key=locked) == (
            f"listeners[0].tls.key: {locked}: expected a key without a password, this one is "
            "encrypted"
        )


def test_the_files_of_another_name_are_checked_as_well(files: Files) -> None:
    sni = SniSettings(server_name="other.example.org", certificate=files.other, key=files.key)
    assert files.complaint(sni=(sni,)).startswith(f"listeners[0].tls.sni[0].key: {files.key}: ")


def test_a_list_that_brings_a_certificate_is_refused(files: Files) -> None:
    """It would be trusted, as those of client_ca are."""
    files.crl.write_bytes(files.crl.read_bytes() + Authority(files.folder, "x").file.read_bytes())
    assert "expected revocation lists as PEM, nothing else" in files.complaint()


def test_what_is_out_of_date_is_taken_and_warned_of(
    files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    for number, (until, expected) in enumerate(
        [(now - day, "has expired"), (now + 3 * day, "expires soon"), (now + 300 * day, None)]
    ):
        leaf = files.authority.ca.issue_cert("localhost", not_after=until)
        path = files.folder / f"{number}.pem"
        leaf.cert_chain_pems[0].write_to_path(str(path))
        leaf.private_key_pem.write_to_path(str(path.with_suffix(".key")))
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            files.load(certificate=path, key=path.with_suffix(".key"))
        said = [record.getMessage() for record in caplog.records]
        assert said == ([] if expected is None else [f"a certificate {expected}"])
    revoke(files.authority, files.crl, until=now - datetime.timedelta(hours=1))
    with caplog.at_level(logging.WARNING):
        files.load()
    assert "a revocation list is out of date" in caplog.text


def test_cas_are_checked_as_well_where_there_are_lists_about_them(files: Files) -> None:
    chain, leaf = ssl.VERIFY_CRL_CHECK_CHAIN, ssl.VERIFY_CRL_CHECK_LEAF
    assert files.load().verify_flags & chain == chain
    between = Authority(files.folder, "between", files.authority.ca.create_child_ca())
    file = between.file
    child = revoke(between, files.folder / "child.pem")
    # Only the one between is trusted, and nobody says whether that one is revoked.
    assert files.load(client_ca=file, crl=child).verify_flags & chain == leaf
    both = files.folder / "both.pem"
    both.write_bytes(child.read_bytes() + files.crl.read_bytes())
    assert files.load(client_ca=file, crl=both).verify_flags & chain == chain
