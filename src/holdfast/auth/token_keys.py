"""The keys that signatures of tokens are verified with: from secrets, PEM files and JWK Sets.

A key verifies with the algorithms of its own kind alone: a public key is never taken for a secret,
whatever a token asks for. Source: RFC 7515, RFC 7517, RFC 7518; RFC 8725 §3.1, §3.5.
"""

import hmac
import re
import secrets
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)
from jwt.algorithms import Algorithm, get_default_algorithms
from jwt.exceptions import PyJWTError

from holdfast.auth.strict_json import JsonObject, read_json
from holdfast.errors import ConfigError

HASH_BYTES: Final = {"HS256": 32, "HS384": 48, "HS512": 64}
RSA_ALGORITHMS: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
CURVES: Final = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
RSA_BITS_MIN: Final = 2048
RSA_BITS_MAX: Final = 8192  # a larger one would make each token expensive
KEYS_MAX: Final = 256  # of a file or a JWK Set
KID_CHARACTERS_MAX: Final = 256
# Keys that are tried for a token which names none.
CANDIDATES_MAX: Final = 16

_PEM: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.+?-----END \1-----", re.DOTALL)
_PUBLIC_PARTS: Final = {
    "RSA": ("kty", "n", "e"),
    "EC": ("kty", "crv", "x", "y"),
    "OKP": ("kty", "crv", "x"),
}
# With a key of this process alone, so that nothing about a secret follows from a mark.
_MARK_KEY: Final = secrets.token_bytes(32)

_PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey | Ed448PublicKey


@dataclass(frozen=True, slots=True)
class Key:
    """A key with the algorithms it may be used with; ``mark`` is the same for the same key."""

    kid: str | None
    algorithms: frozenset[str]
    mark: str
    material: _PublicKey | bytes = field(repr=False)


@final
class KeySet:
    """Keys, found by what a token says of the one it was signed with."""

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self.keys: Final = tuple(keys)
        self.marks: Final = frozenset(key.mark for key in self.keys)
        self._by_kid: dict[str, list[Key]] = {}
        for key in self.keys:
            if key.kid is not None:
                self._by_kid.setdefault(key.kid, []).append(key)

    def candidates(self, algorithm: str, kid: str | None) -> list[Key]:
        """The keys that may have signed a token.

        A name that is known stands for its keys alone. A key without a name may be meant by any.
        """
        keys: Iterable[Key] = self.keys
        if kid is not None:
            keys = self._by_kid.get(kid) or [key for key in self.keys if key.kid is None]
        return [key for key in keys if algorithm in key.algorithms][:CANDIDATES_MAX]

    def has_name(self, kid: str | None) -> bool:
        """Whether a token's name of a key is one that is known."""
        return kid is not None and kid in self._by_kid


_ALGORITHMS: Final[Mapping[str, Algorithm]] = get_default_algorithms()


def is_signed(key: Key, algorithm: str, content: bytes, signature: bytes) -> bool:
    """Whether a signature is that of this key."""
    assert algorithm in key.algorithms
    try:
        return _ALGORITHMS[algorithm].verify(content, key.material, signature)
    except (InvalidSignature, PyJWTError, ValueError):
        return False


def secret_key(content: bytes, algorithms: Collection[str]) -> Key:
    """The key of a file with a secret, without the line's end behind it.

    Raises ConfigError for one that is shorter than the longest hash of the algorithms, or that is
    no secret. Source: RFC 7518 §3.2.
    """
    secret = content.removesuffix(b"\n").removesuffix(b"\r")
    usable = frozenset(algorithms) & HASH_BYTES.keys()
    least = max((HASH_BYTES[algorithm] for algorithm in usable), default=0)
    if secret.lstrip().startswith((b"-----BEGIN", b"ssh-")):
        raise ConfigError("expected a secret, there is a key or certificate")
    if len(secret) < least:
        raise ConfigError(f"expected a secret of at least {least} bytes")
    return Key(None, usable, _mark(secret), secret)


def pem_keys(content: bytes) -> list[Key]:
    """The public keys of a PEM file, and those of certificates. Raises ConfigError."""
    blocks = list(_PEM.finditer(content))
    if not 1 <= len(blocks) <= KEYS_MAX:
        raise ConfigError(f"expected 1 to {KEYS_MAX} public keys as PEM")
    return [_pem_key(block[1], block[0]) for block in blocks]


def _pem_key(label: bytes, block: bytes) -> Key:
    if b"PRIVATE" in label:
        raise ConfigError("expected public keys, there is a private one: it does not belong here")
    try:
        if label == b"CERTIFICATE":
            public: object = x509.load_pem_x509_certificate(block).public_key()
        else:
            public = load_pem_public_key(block)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError("expected public keys as PEM, one cannot be read") from error
    key = _public_key(None, public)
    if key is None:
        raise ConfigError(
            f"expected keys of RSA with {RSA_BITS_MIN} to {RSA_BITS_MAX} bits, of EC with P-256, "
            "P-384 or P-521, Ed25519 or Ed448; there is another one"
        )
    return key


def jwks_keys(content: bytes, *, allows_secrets: bool) -> list[Key]:
    """The keys of a JWK Set that can be used to verify; others are passed over.

    Raises ConfigError for what is no JWK Set, or one without such a key. Source: RFC 7517 §5.
    """
    try:
        document = read_json(content)
    except ValueError as error:
        raise ConfigError(f"expected a JWK Set: {error}") from None
    entries = document.get("keys")
    if not isinstance(entries, list) or len(entries) > KEYS_MAX:
        raise ConfigError(f"expected a JWK Set with keys, at most {KEYS_MAX} of them")
    found = [_jwk(entry, allows_secrets) for entry in entries if isinstance(entry, dict)]
    keys = [key for key in found if key is not None]
    if not keys:
        raise ConfigError("expected a JWK Set with a key that verifies signatures")
    return keys


def _jwk(entry: JsonObject, allows_secrets: bool) -> Key | None:
    operations = entry.get("key_ops", ["verify"])
    if entry.get("use", "sig") != "sig" or not isinstance(operations, list):
        return None
    kid = entry.get("kid")
    is_named = isinstance(kid, str) and 1 <= len(kid) <= KID_CHARACTERS_MAX
    if "verify" not in operations or not (kid is None or is_named):
        return None
    key = _key_of_jwk(str(kid) if is_named else None, entry, allows_secrets)
    if key is None or "alg" not in entry:
        return key
    only = key.algorithms & {str(entry["alg"])}
    return Key(key.kid, only, key.mark, key.material) if only else None


def _key_of_jwk(kid: str | None, entry: JsonObject, allows_secrets: bool) -> Key | None:
    kind = entry.get("kty")
    try:
        if kind == "oct" and allows_secrets:
            secret = _ALGORITHMS["HS256"].from_jwk({"kty": "oct", "k": entry["k"]})
            assert isinstance(secret, bytes)
            usable = frozenset(name for name, size in HASH_BYTES.items() if len(secret) >= size)
            return Key(kid, usable, _mark(secret), secret) if usable else None
        if kind not in _PUBLIC_PARTS:
            return None
        # Without the private parts, should they be there.
        parts = {name: entry[name] for name in _PUBLIC_PARTS[str(kind)]}
        name = {"RSA": "RS256", "EC": "ES256", "OKP": "EdDSA"}[str(kind)]
        return _public_key(kid, _ALGORITHMS[name].from_jwk(parts))
    except (PyJWTError, UnsupportedAlgorithm, ValueError, TypeError, KeyError, AttributeError):
        return None


def _public_key(kid: str | None, public: object) -> Key | None:
    """None for a kind that is not used to sign tokens, or not safely."""
    if isinstance(public, RSAPublicKey):
        if not RSA_BITS_MIN <= public.key_size <= RSA_BITS_MAX:
            return None
        usable = RSA_ALGORITHMS
    elif isinstance(public, EllipticCurvePublicKey):
        if public.curve.name not in CURVES:
            return None
        usable = frozenset({CURVES[public.curve.name]})
    elif isinstance(public, Ed25519PublicKey | Ed448PublicKey):
        usable = frozenset({"EdDSA"})
    else:
        return None
    encoded = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return Key(kid, usable, _mark(encoded), public)


def _mark(material: bytes) -> str:
    return hmac.new(_MARK_KEY, material, "sha256").hexdigest()[:32]
