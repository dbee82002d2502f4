"""How a client proves who it is, beside a user name and a password: SCRAM, and tokens.

Nothing of a password or a token is in any message here. Source: MQTT 5.0 §4.12.
"""

import asyncio
import inspect
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, Literal

from holdfast.errors import ProtocolError, UsageError
from holdfast.protocol.packets import MQTT_5_0
from holdfast.protocol.reason_codes import PROTOCOL_ERROR, UNSPECIFIED_ERROR

if TYPE_CHECKING:
    from scramp import ScramClient  # type: ignore[import-untyped]  # it has no types

__all__ = ["Authentication", "Exchange", "Scram", "ScramMethod", "Token", "TokenSource"]

ScramMethod = Literal["SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-512"]
SCRAM_METHODS: Final = ("SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-512")

_TokenText = str | bytes
_Given = _TokenText | tuple[_TokenText, float]
# A token, or what gives a fresh one: alone, or with the seconds for which it is good.
TokenSource = _TokenText | Callable[[], _Given | Awaitable[_Given]]


class Exchange:
    """One authentication under way: ``data`` begins it, and None is no data at all.

    What was shown ends after ``expires_in_s`` seconds, if it does: the client then begins another
    exchange in time.
    """

    def __init__(self, data: bytes | None = None, expires_in_s: float | None = None) -> None:
        self.data = data
        self.expires_in_s = expires_in_s

    async def answer(self, challenge: bytes | None) -> bytes | None:
        """The answer to what the server wants to know. Raises ProtocolError if it has no right to.

        Called at most once before the answer was given.
        """
        raise ProtocolError(PROTOCOL_ERROR, "the server asks for more than the method has")

    def finish(self, data: bytes | None) -> None:
        """Look at what the server has said with its consent.

        Raises ProtocolError if that does not prove what it should: the connection then ends, and
        nothing more was sent over it.
        """


class Authentication(ABC):
    """A way to prove who the client is.

    ``method`` is the Authentication Method, which takes MQTT 5.0; it is empty if ``data`` of the
    exchange is just the password of CONNECT.
    """

    method: str

    @abstractmethod
    async def begin(self) -> Exchange:
        """A new exchange, for a connection or, with a method, within one.

        What it raises is told as ConnectionLost, and tried again with the next connection.
        """


class Scram(Authentication):
    """Proves that the client has the password without showing it, and has the server prove it too.

    Source: RFC 5802, RFC 7677. Without channel binding. Raises UsageError for what SASLprep
    does not allow in a name or password.
    """

    def __init__(
        self, user_name: str, password: str, method: ScramMethod = "SCRAM-SHA-256"
    ) -> None:
        if method not in SCRAM_METHODS:
            raise UsageError(f"expected one of {', '.join(SCRAM_METHODS)}, got {method!r}")
        self.method = method
        self._user_name = user_name
        self._password = password
        self._client()

    def __repr__(self) -> str:
        return f"Scram({self._user_name!r}, method={self.method!r})"

    async def begin(self) -> Exchange:
        """A new exchange, with a nonce of its own."""
        return _ScramExchange(self._client())

    def _client(self) -> "ScramClient":
        # Here and not above: it is slow to load, and most clients do without.
        from scramp import ScramClient, ScramException

        try:
            return ScramClient([self.method], self._user_name, self._password)
        except ScramException:
            # Without the cause, which may show some of the password.
            raise UsageError(
                "SCRAM: expected a user name and a password that SASLprep (RFC 4013) allows"
            ) from None


class _ScramExchange(Exchange):
    """One exchange of SCRAM: the client's first message, its proof, and the server's."""

    def __init__(self, client: "ScramClient") -> None:
        self._client = client
        super().__init__(client.get_client_first().encode())

    async def answer(self, challenge: bytes | None) -> bytes:
        # On a thread, as the server says how long it takes: up to 10 million iterations.
        return await asyncio.get_running_loop().run_in_executor(None, self._proof, challenge)

    def _proof(self, challenge: bytes | None) -> bytes:
        from scramp import ScramException

        try:
            self._client.set_server_first((challenge or b"").decode())
            proof: str = self._client.get_client_final()
        except (ScramException, ValueError):
            raise ProtocolError(
                PROTOCOL_ERROR, "expected a challenge of SCRAM with 4096 to 10000000 iterations"
            ) from None
        return proof.encode()

    def finish(self, data: bytes | None) -> None:
        from scramp import ScramException

        try:
            self._client.set_server_final((data or b"").decode())
        except (ScramException, ValueError):
            raise ProtocolError(
                UNSPECIFIED_ERROR, "the server has not proved that it knows the password"
            ) from None


class Token(Authentication):
    """Shows a token that somebody else has issued, such as a JWT.

    ``source`` is the token, or a function that gives a fresh one for each connection, a coroutine
    function if it likes. A function may return a pair of the token and the seconds for which it is
    good. Without a ``method`` the token goes as the password of CONNECT, which any broker takes;
    with one (Holdfast knows ``JWT`` and ``OAUTH2``) it can be shown anew while connected, and is,
    before it ends, if the function tells when that is.
    """

    def __init__(self, source: TokenSource, *, method: str = "") -> None:
        self.method = method
        self._source = source

    def __repr__(self) -> str:
        return f"Token(method={self.method!r})"

    async def begin(self) -> Exchange:
        """The token of now."""
        source = self._source
        given: object = source
        if callable(source):
            given = source()
            if inspect.isawaitable(given):
                given = await given
        expires_in_s: float | None = None
        if isinstance(given, tuple) and len(given) == 2:
            given, expires_in_s = given
        if isinstance(given, str):
            given = given.encode()
        if not isinstance(given, bytes) or not given:
            raise UsageError("expected a token: a str or bytes, or a pair of it and seconds")
        return Exchange(given, expires_in_s)


def settle_authentication(
    auth: Authentication | ScramMethod | None,
    user_name: str | None,
    password: bytes | None,
    version: int,
) -> tuple[Authentication | None, str | None, bytes | None]:
    """What proves who the client is, and the user name and password that go into CONNECT.

    The name of a SCRAM method takes the two for itself. Raises UsageError.
    """
    if isinstance(auth, str):
        if not user_name or password is None:
            raise UsageError(f"{auth} takes a user name and a password")
        try:
            text = password.decode()
        except UnicodeDecodeError:
            raise UsageError(f"{auth} takes a password of text") from None
        auth, user_name, password = Scram(user_name, text, auth), None, None
    if auth is not None:
        if auth.method and version < MQTT_5_0:
            raise UsageError(f"{auth.method} takes MQTT 5.0")
        if not auth.method and password is not None:
            raise UsageError("a token that goes as the password and a password are given")
    return auth, user_name, password
