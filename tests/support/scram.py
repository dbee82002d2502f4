"""A SCRAM client for the tests, written from RFC 5802 alone: nothing of the server is in it."""

import hashlib
import hmac
import secrets
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Final

from holdfast.auth.password_file import ScramVerifier

HASHES: Final = {"SCRAM-SHA-1": "sha1", "SCRAM-SHA-256": "sha256", "SCRAM-SHA-512": "sha512"}
ITERATIONS: Final = 4096


class ScramClient:
    """One exchange: ``first``, then ``final`` with the challenge, then ``is_server`` with the end.

    The user name and the password are to be in the form of SASLprep.
    """

    def __init__(
        self,
        user_name: str,
        password: str,
        method: str = "SCRAM-SHA-256",
        nonce: str | None = None,
        header: str = "n,,",
    ) -> None:
        self.method = method
        self._hash = HASHES[method]
        self._password = password
        self._nonce = secrets.token_urlsafe(18) if nonce is None else nonce
        self._header = header
        escaped = user_name.replace("=", "=3D").replace(",", "=2C")
        self._bare = f"n={escaped},r={self._nonce}"
        self._server_signature = b""

    def first(self) -> bytes:
        """What the exchange begins with."""
        return f"{self._header}{self._bare}".encode()

    def final(self, challenge: bytes) -> bytes:
        """The proof that answers a challenge."""
        parts = attributes(challenge)
        assert parts["r"].startswith(self._nonce)
        assert len(parts["r"]) > len(self._nonce)
        salted = hashlib.pbkdf2_hmac(
            self._hash, self._password.encode(), b64decode(parts["s"]), int(parts["i"])
        )
        client_key = hmac.digest(salted, b"Client Key", self._hash)
        stored_key = hashlib.new(self._hash, client_key).digest()
        binding = b64encode(self._header.encode()).decode()
        without_proof = f"c={binding},r={parts['r']}"
        message = f"{self._bare},{challenge.decode()},{without_proof}".encode()
        signature = hmac.digest(stored_key, message, self._hash)
        proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        server_key = hmac.digest(salted, b"Server Key", self._hash)
        self._server_signature = hmac.digest(server_key, message, self._hash)
        return f"{without_proof},p={b64encode(proof).decode()}".encode()

    def is_server(self, end: bytes | None) -> bool:
        """Whether this end of the exchange comes from one who knows of the password."""
        if end is None:
            return False
        return hmac.compare_digest(b64decode(attributes(end)["v"]), self._server_signature)


def attributes(message: bytes) -> Mapping[str, str]:
    """The attributes of a message, by their letter."""
    return {part[0]: part[2:] for part in message.decode().split(",")}


def made(
    method: str, password: str, salt: bytes = b"sixteen bytes!!!", iterations: int = ITERATIONS
) -> ScramVerifier:
    """A verifier, made without the code that makes those of users."""
    name = HASHES[method]
    salted = hashlib.pbkdf2_hmac(name, password.encode(), salt, iterations)
    stored_key = hashlib.new(name, hmac.digest(salted, b"Client Key", name)).digest()
    server_key = hmac.digest(salted, b"Server Key", name)
    return ScramVerifier(method, iterations, salt, stored_key, server_key)
