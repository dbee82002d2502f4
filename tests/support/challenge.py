"""An authenticator for the tests: a real challenge and response in steps, and plain passwords."""

import hashlib
import hmac
from collections.abc import Mapping
from typing import Final

from holdfast.broker.authentication import AuthReply, AuthRequest, go_on, grant, refuse
from holdfast.protocol.reason_codes import (
    BAD_USER_NAME_OR_PASSWORD,
    NOT_AUTHORIZED,
    UNSPECIFIED_ERROR,
)

METHOD: Final = "HMAC-SHA256"
ROUNDS: Final = 2


def proof(key: bytes, nonce: bytes) -> bytes:
    """What answers a challenge."""
    return hmac.digest(key, nonce, "sha256")


def server_proof(key: bytes, nonce: bytes) -> bytes:
    """What the server ends a successful exchange with, so that the client can trust it too."""
    return hmac.digest(key, b"server" + nonce, "sha256")


class ChallengeAuthenticator:
    """Asks ``rounds`` times for a proof of the key; the first data of the client is its name.

    Nothing is kept between two steps: the state of an exchange is (name, round, nonce). The nonces
    are not random, for the tests.
    """

    def __init__(self, keys: Mapping[str, bytes], rounds: int = ROUNDS) -> None:
        self.requests: list[AuthRequest] = []
        self.keys = dict(keys)
        self._rounds = rounds

    @property
    def methods(self) -> frozenset[str]:
        return frozenset({METHOD})

    def step(self, request: AuthRequest) -> AuthReply:
        self.requests.append(request)
        if request.method is None:
            return self._password(request)
        if request.state is None:
            name = (request.data or b"").decode()
            if name == "defect":
                raise RuntimeError("the directory cannot be reached")
            if request.is_reauthentication and name != request.user_name:
                return refuse(NOT_AUTHORIZED, "another name than before")
            return self._challenge(name, 1)
        assert isinstance(request.state, tuple)
        name, done, nonce = request.state
        key = self.keys.get(name, b"")
        if not key or not hmac.compare_digest(request.data or b"", proof(key, nonce)):
            return refuse(NOT_AUTHORIZED, "the proof is wrong")
        if done < self._rounds:
            return self._challenge(name, done + 1)
        return grant(server_proof(key, nonce), name)

    def _challenge(self, name: str, number: int) -> AuthReply:
        nonce = hashlib.sha256(f"{name} {number} {len(self.requests)}".encode()).digest()
        return go_on(nonce, (name, number, nonce))

    def _password(self, request: AuthRequest) -> AuthReply:
        if request.user_name is None:
            return refuse(NOT_AUTHORIZED, "a user name is needed")
        if request.user_name == "defect":
            raise RuntimeError("the directory cannot be reached")
        if request.user_name == "odd":
            return refuse(0, "a\0b")  # nothing that could be sent
        if request.user_name == "asked":
            return go_on(b"?", None)  # there is no way to ask
        if request.user_name == "unspecified":
            return refuse(UNSPECIFIED_ERROR)
        key = self.keys.get(request.user_name)
        if (
            key is None
            or request.password is None
            or not hmac.compare_digest(key, request.password)
        ):
            return refuse(BAD_USER_NAME_OR_PASSWORD)
        return grant()
