"""Keys of tokens: where they come from, what they may be used for, and which are refused."""

import datetime
import itertools
import json

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from holdfast.auth.token_keys import (
    CANDIDATES_MAX,
    KEYS_MAX,
    RSA_ALGORITHMS,
    KeySet,
    is_signed,
    jwks_keys,
    pem_keys,
    secret_key,
)
from holdfast.errors import ConfigError
from tests.support.tokens import Private, jwk, jwks, pem, signature

SECRET = bytes(range(64))
RSA = rsa.generate_private_key(65537, 2048)
P256, P384, P521 = (
    ec.generate_private_key(curve) for curve in (ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1())
)
ED25519 = ed25519.Ed25519PrivateKey.generate()
ED448 = ed448.Ed448PrivateKey.generate()

PAIRS: list[tuple[Private, str]] = [
    *((RSA, name) for name in sorted(RSA_ALGORITHMS)),
    (P256, "ES256"),
    (P384, "ES384"),
    (P521, "ES512"),
    (ED25519, "EdDSA"),
    (ED448, "EdDSA"),
]
SECRETS: list[tuple[Private, str]] = [(SECRET, name) for name in ("HS256", "HS384", "HS512")]


def certificate(key: rsa.RSAPrivateKey) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "issuer")])
    start = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, start, start)
    return made.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


@pytest.mark.parametrize(("key", "algorithm"), PAIRS, ids=lambda value: str(value)[:5])
def test_a_public_key_verifies_from_pem_and_jwk(key: Private, algorithm: str) -> None:
    content = b"what is signed"
    right = signature(content, key, algorithm)
    (from_pem,) = pem_keys(pem(key))
    (from_jwk,) = jwks_keys(jwks(jwk(key, "k")), allows_secrets=False)
    assert from_pem.mark == from_jwk.mark
    assert (from_pem.kid, from_jwk.kid) == (None, "k")
    for found in (from_pem, from_jwk):
        assert algorithm in found.algorithms
        assert is_signed(found, algorithm, content, right)
        assert not is_signed(found, algorithm, content + b".", right)
        for wrong in (b"", right[:-1], right + b"\0", bytes(len(right)), b"\xff" * len(right)):
            assert not is_signed(found, algorithm, content, wrong)


@pytest.mark.parametrize(("key", "algorithm"), SECRETS, ids=lambda value: str(value)[:5])
def test_a_secret_verifies_from_a_file_and_a_jwk(key: bytes, algorithm: str) -> None:
    right = signature(b"x", key, algorithm)
    from_file = secret_key(key + b"\r\n", [algorithm, "RS256"])
    (from_jwk,) = jwks_keys(jwks(jwk(key)), allows_secrets=True)
    assert from_file.algorithms == {algorithm}
    assert from_file.mark == from_jwk.mark
    for found in (from_file, from_jwk):
        assert is_signed(found, algorithm, b"x", right)
        assert not is_signed(found, algorithm, b"y", right)
        assert not is_signed(found, algorithm, b"x", right[:-1])


@given(st.binary(max_size=200))
def test_any_bytes_are_no_signature(data: bytes) -> None:
    for key, algorithm in [PAIRS[0], PAIRS[3], *PAIRS[6:10]]:
        (found,) = pem_keys(pem(key))
        assert not is_signed(found, algorithm, b"x", data)


def test_no_key_is_used_for_an_algorithm_of_another_kind() -> None:
    content = b"".join(pem(key) for key in (RSA, P256, P384, P521, ED25519, ED448))
    keys = KeySet([*pem_keys(content), secret_key(SECRET, ["HS256"])])
    for name in ("RS256", "PS512"):
        assert [key.algorithms for key in keys.candidates(name, None)] == [RSA_ALGORITHMS]
    for name in ("ES256", "ES384", "ES512", "HS256"):
        assert [key.algorithms for key in keys.candidates(name, None)] == [{name}]
    assert len(keys.candidates("EdDSA", None)) == 2
    for name in ("none", "", "hs256", "HS512", "ES256K"):
        assert keys.candidates(name, None) == []


def test_a_name_stands_for_its_keys_alone() -> None:
    named = jwks_keys(jwks(jwk(P256, "a"), jwk(P256, "b"), jwk(RSA, "b")), allows_secrets=False)
    keys = KeySet(named)
    assert [key.kid for key in keys.candidates("ES256", "b")] == ["b"]
    assert keys.candidates("ES256", "c") == []
    assert len(keys.candidates("ES256", None)) == 2
    with_nameless = KeySet([*named, *pem_keys(pem(P256))])
    assert [key.kid for key in with_nameless.candidates("ES256", "a")] == ["a"]
    assert [key.kid for key in with_nameless.candidates("ES256", "c")] == [None]
    many = KeySet(jwks_keys(jwks(*[jwk(P256, str(n)) for n in range(100)]), allows_secrets=False))
    assert len(many.candidates("ES256", None)) == CANDIDATES_MAX


@pytest.mark.parametrize(
    ("secret", "algorithms", "complaint"),
    [
        (b"x" * 31, ["HS256"], "a secret of at least 32 bytes"),
        (b"x" * 31 + b"\n", ["HS256"], "a secret of at least 32 bytes"),
        (b"x" * 47, ["HS256", "HS384"], "a secret of at least 48 bytes"),
        (b"x" * 63, ["HS512"], "a secret of at least 64 bytes"),
        (b"", ["HS256"], "a secret of at least 32 bytes"),
        (pem(RSA), ["HS256"], "a secret, there is a key or certificate"),
        (b"\n" + pem(RSA), ["HS256"], "a secret, there is a key or certificate"),
    ],
)
def test_a_secret_that_is_too_short_or_none_is_refused(
    secret: bytes, algorithms: list[str], complaint: str
) -> None:
    with pytest.raises(ConfigError, match=f"^expected {complaint}$"):
        secret_key(secret, algorithms)


def private_pem(password: None = None) -> bytes:
    return RSA.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "1 to 256 public keys as PEM"),
        (b"secret", "1 to 256 public keys as PEM"),
        (pem(P256) * (KEYS_MAX + 1), "1 to 256 public keys as PEM"),
        (private_pem(), "public keys, there is a private one"),
        (pem(RSA) + private_pem(), "public keys, there is a private one"),
        (pem(RSA).replace(b"MII", b"???"), "public keys as PEM, one cannot be read"),
        (pem(RSA).replace(b"PUBLIC", b"DSA"), "public keys as PEM, one cannot be read"),
        (pem(rsa.generate_private_key(65537, 1024)), "keys of RSA with 2048 to 8192 bits"),
        (pem(ec.generate_private_key(ec.SECP256K1())), "keys of RSA with 2048 to 8192 bits"),
        (
            dsa.generate_private_key(2048)
            .public_key()
            .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            "keys of RSA with 2048 to 8192 bits",
        ),
    ],
    ids=["empty", "text", "many", "private", "a private", "torn", "label", "1024", "K1", "DSA"],
)
def test_a_pem_file_without_usable_keys_is_refused(content: bytes, complaint: str) -> None:
    with pytest.raises(ConfigError, match=f"^expected {complaint}"):
        pem_keys(content)


def test_a_certificate_stands_for_its_key() -> None:
    (from_certificate,) = pem_keys(b"some words\n" + certificate(RSA))
    assert from_certificate.mark == pem_keys(pem(RSA))[0].mark


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b'{"keys": {}}',
        b'{"keys": []}',
        b'{"keys": [1, null, "x", []]}',
        b'{"keys": [{}], "keys": []}',
        b"\xff",
        b"[" * 100_000,
        jwks(jwk(SECRET)),
        jwks(*[jwk(ED25519)] * (KEYS_MAX + 1)),
        jwks(jwk(RSA, use="enc")),
        jwks(jwk(RSA, key_ops=["encrypt"])),
        jwks(jwk(RSA, key_ops="verify")),
        jwks(jwk(RSA, alg="HS256")),
        jwks(jwk(P256, alg="ES384")),
        jwks(jwk(RSA) | {"kid": 7}),
        jwks(jwk(RSA, "x" * 257)),
        jwks(jwk(RSA) | {"n": "AQAB"}),
        jwks(jwk(RSA) | {"n": 1}),
        jwks(jwk(RSA) | {"n": None}),
        jwks(jwk(RSA) | {"e": ""}),
        jwks(jwk(P256) | {"x": "AAAA"}),
        jwks(jwk(P256) | {"crv": "P-384"}),
        jwks(jwk(P256) | {"crv": {}}),
        jwks(jwk(ED25519) | {"crv": "X25519"}),
        jwks(jwk(ED25519) | {"x": "!"}),
        jwks({"kty": "RSA"}),
        jwks({"kty": ["RSA"]}),
        jwks({"kty": "unknown", "alg": "none"}),
    ],
    ids=(f"set-{number}" for number in itertools.count()),  # the keys are others each time
)
def test_a_jwk_set_without_usable_keys_is_refused(content: bytes) -> None:
    with pytest.raises(ConfigError, match=r"^expected a JWK Set"):
        jwks_keys(content, allows_secrets=False)


def test_short_secrets_of_a_jwk_set_serve_short_hashes_or_none() -> None:
    content = jwks(jwk(bytes(31), "a"), jwk(bytes(32), "b"), jwk(bytes(64), "c", alg="HS512"))
    found = {key.kid: key.algorithms for key in jwks_keys(content, allows_secrets=True)}
    assert found == {"b": {"HS256"}, "c": {"HS512"}}


def test_other_keys_of_a_jwk_set_are_passed_over() -> None:
    entries = [{"kty": "unknown"}, jwk(RSA, "r", use="enc"), jwk(P256, "p", use="sig", x5u="http:")]
    assert [key.kid for key in jwks_keys(jwks(*entries), allows_secrets=False)] == ["p"]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=9)
    | st.sampled_from(["RSA", "EC"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["keys", "kty", "n", "e", "x", "y", "crv", "kid", "alg", "use", "k"]),
            inner,
        )
    ),
    max_leaves=12,
)


@given(st.binary(max_size=80) | JSON.map(lambda value: json.dumps({"keys": [value]}).encode()))
def test_any_content_is_keys_or_refused(content: bytes) -> None:
    for read in (pem_keys, lambda data: jwks_keys(data, allows_secrets=True)):
        with pytest.raises(ConfigError, match=r"^expected "):
            read(content)


def test_no_repr_shows_a_secret() -> None:
    key = secret_key(b"correct horse battery staple, and more", ["HS256"])
    assert "horse" not in repr(key)
    assert "horse" not in repr(KeySet([key]).keys)
    assert key.mark == secret_key(b"correct horse battery staple, and more", ["HS256"]).mark
    assert key.mark != secret_key(b"correct horse battery staple, and less", ["HS256"]).mark
