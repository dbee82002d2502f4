"""Passwords that saslauthd verifies, the daemon of Cyrus SASL: against LDAP, Kerberos 5 or PAM.

A plug-in for Holdfast, and an example of how one is made. saslauthd listens on a Unix socket. One
connection asks one question: user, password, service and realm, each as two bytes of length and
then its bytes. The answer is one such string, which begins with OK or with NO.
"""

import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from holdfast.auth import (
    BAD_USER_NAME_OR_PASSWORD,
    NOT_MINE,
    AccessRule,
    Answer,
    AuthenticatorUnavailable,
    AuthRequest,
    ConfigError,
    Identity,
    Link,
    SecretCache,
    Subject,
    TopicTemplate,
    grant,
    refuse,
)

STRING_BYTES_MAX: Final = 256  # what saslauthd takes
ANSWER_BYTES_MAX: Final = 1024

OPTIONS: Final[dict[str, object]] = {
    "socket": "/run/saslauthd/mux",
    "service": "mqtt",  # PAM looks for /etc/pam.d/mqtt, for instance
    "realm": "",
    "timeout_s": 5.0,
    "connections": 4,  # saslauthd serves five at a time, if it is not told otherwise
    "cache_s": 60.0,
}


def make_link(name: str, options: Mapping[str, object]) -> Link:
    """What the entry point names: the authenticator, by the options of its table."""
    known = dict(OPTIONS)
    for key, value in options.items():
        if key not in known:
            raise ConfigError(f"options.{key} is unknown: expected {', '.join(known)}")
        # Python would take True for a number, and a number without a point for one with it.
        expected = (int, float) if isinstance(known[key], float) else (type(known[key]),)
        if isinstance(value, bool) or not isinstance(value, expected):
            raise ConfigError(f"options.{key}: expected a value such as {known[key]!r}")
        known[key] = value
    return SaslauthdLink(name, known)


class SaslauthdLink(Link):
    """Asks saslauthd about each user name and password."""

    def __init__(self, name: str, options: Mapping[str, object]) -> None:
        super().__init__(name)
        self._socket = str(options["socket"])
        self._service = str(options["service"]).encode()
        self._realm = str(options["realm"]).encode()
        self._timeout_s = float(str(options["timeout_s"]))
        self._connections = int(str(options["connections"]))
        self._right: SecretCache[bool] = SecretCache(seconds=float(str(options["cache_s"])))

    @property
    def threads(self) -> int:
        """It waits for the daemon, so it must not take the threads of others."""
        return self._connections

    def reload(self) -> None:
        """On SIGHUP, ask again about everyone who comes: saslauthd may have forgotten them."""
        self._right.clear()

    def step(self, request: AuthRequest) -> Answer:
        """Grant whom saslauthd knows; who comes without a password is for somebody else."""
        user, password = request.user_name, request.password
        if request.method is not None or user is None or password is None:
            return NOT_MINE
        strings = (user.encode(), password, self._service, self._realm)
        # It ends strings at the first zero byte, so what is behind one would not be verified; and
        # some directories take an empty password for no password at all.
        if (
            not user
            or not password
            or any(len(string) > STRING_BYTES_MAX or b"\0" in string for string in strings)
        ):
            return refuse(BAD_USER_NAME_OR_PASSWORD, detail="saslauthd takes no such strings")
        digest = self._right.digest(*strings)
        if not self._right.get(digest):
            if not self._ask(strings):
                return refuse(BAD_USER_NAME_OR_PASSWORD, detail="saslauthd says no")
            self._right.put(digest, True)
        return grant(identity=Identity(user))

    def _ask(self, strings: Sequence[bytes]) -> bool:
        question = b"".join(len(string).to_bytes(2) + string for string in strings)
        until_s = time.monotonic() + self._timeout_s
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as daemon:
                daemon.settimeout(self._timeout_s)
                daemon.connect(self._socket)
                daemon.sendall(question)
                size = int.from_bytes(_read(daemon, 2, until_s))
                answer = _read(daemon, min(size, ANSWER_BYTES_MAX), until_s)
        except OSError as error:
            # Not "no": the client is told to try again later, and the operator what is wrong.
            what = error.strerror or type(error).__name__
            raise AuthenticatorUnavailable(f"{self._socket}: {what}") from None
        if answer[:2] not in (b"OK", b"NO"):
            raise AuthenticatorUnavailable(f"{self._socket}: expected OK or NO")
        return answer[:2] == b"OK"


def _read(daemon: socket.socket, count: int, until_s: float) -> bytes:
    """So many bytes, or OSError when they do not come in time."""
    data = b""
    while len(data) < count:
        daemon.settimeout(max(0.001, until_s - time.monotonic()))
        piece = daemon.recv(count - len(data))
        if not piece:
            raise ConnectionResetError
        data += piece
    return data


class OwnTopics:
    """An authorizer: everyone may do everything below a topic of their own, ``users/NAME/``."""

    def __init__(self, name: str, options: Mapping[str, object]) -> None:
        if options.keys() - {"prefix"}:
            raise ConfigError("options: expected prefix alone")
        self.name = name
        topics = (TopicTemplate.parse(f"{options.get('prefix', 'users')}/%u/#"),)
        self._rules = (AccessRule(f"{name}: own topics", True, ("all",), topics),)

    @property
    def files(self) -> tuple[Path, ...]:
        """It reads none."""
        return ()

    def reload(self) -> None:
        """It reads nothing."""

    def rules(self, subject: Subject) -> Sequence[AccessRule] | None:
        """The rule for those who have a name; about others it has no say."""
        return self._rules if subject.user_name else None

    def close(self) -> None:
        """It holds nothing."""
