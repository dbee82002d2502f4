"""Tokens as an issuer makes them, right and wrong ones, without the library that reads them."""

import hmac
import json
from base64 import urlsafe_b64encode
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

HASHES: Final = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}

Private = (
    rsa.RSAPrivateKey
    | ec.EllipticCurvePrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
    | bytes
)


def encoded(data: bytes) -> str:
    """Bytes as base64url, without padding."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def part(value: object) -> str:
    """A part of a token: an object, or the very text of one."""
    text = value if isinstance(value, str) else json.dumps(value)
    return encoded(text.encode("utf-8", "surrogatepass"))


def token(
    claims: object, key: Private, algorithm: str, kid: object = None, **header: object
) -> bytes:
    """A token; the header says what is given, whether or not it fits the key."""
    names = {"alg": algorithm, "typ": "JWT"} | ({} if kid is None else {"kid": kid}) | header
    return signed(names, claims, key, algorithm)


def signed(header: object, claims: object, key: Private, algorithm: str) -> bytes:
    """Two parts as they are, with a signature."""
    content = f"{part(header)}.{part(claims)}"
    return f"{content}.{encoded(signature(content.encode(), key, algorithm))}".encode()


def signature(content: bytes, key: Private, algorithm: str) -> bytes:
    """The signature of a content. Source: RFC 7518 §3, RFC 8037 §3.1."""
    if isinstance(key, bytes):
        return hmac.digest(key, content, f"sha{algorithm[2:]}")
    if isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey):
        return key.sign(content)
    hash_ = HASHES[algorithm[2:]]
    if isinstance(key, ec.EllipticCurvePrivateKey):
        size = (key.key_size + 7) // 8
        r, s = decode_dss_signature(key.sign(content, ec.ECDSA(hash_)))
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")
    if algorithm.startswith("PS"):
        return key.sign(content, padding.PSS(padding.MGF1(hash_), padding.PSS.DIGEST_LENGTH), hash_)
    return key.sign(content, padding.PKCS1v15(), hash_)


def pem(key: Private) -> bytes:
    """The public half as PEM."""
    assert not isinstance(key, bytes)
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def jwk(key: Private, kid: str | None = None, **members: object) -> dict[str, object]:
    """The public half, or the secret, as an entry of a JWK Set. Source: RFC 7518 §6, RFC 8037."""
    named = members if kid is None else {"kid": kid} | members
    if isinstance(key, bytes):
        return {"kty": "oct", "k": encoded(key)} | named
    if isinstance(key, rsa.RSAPrivateKey):
        numbers = key.public_key().public_numbers()
        n = numbers.n.to_bytes((key.key_size + 7) // 8, "big")
        return {"kty": "RSA", "n": encoded(n), "e": encoded(numbers.e.to_bytes(3, "big"))} | named
    if isinstance(key, ec.EllipticCurvePrivateKey):
        point = key.public_key().public_numbers()
        size = (key.key_size + 7) // 8
        x, y = (encoded(number.to_bytes(size, "big")) for number in (point.x, point.y))
        return {"kty": "EC", "crv": f"P-{key.key_size}", "x": x, "y": y} | named
    raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    curve = "Ed25519" if isinstance(key, ed25519.Ed25519PrivateKey) else "Ed448"
    return {"kty": "OKP", "crv": curve, "x": encoded(raw)} | named


def jwks(*entries: object) -> bytes:
    """A JWK Set."""
    return json.dumps({"keys": entries}).encode()
