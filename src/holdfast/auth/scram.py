"""SCRAM over AUTH: a client proves that it has a password, and the server that it knows of it.

The password never crosses the wire, and the server does not have it. Source: RFC 5802, RFC 7677;
MQTT 5.0 §4.12.
"""

import hmac
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, final

from scramp import (  # type: ignore[import-untyped]  # it has no types
    ScramException,
    ScramMechanism,
)
from scramp.core import ScramServer  # type: ignore[import-untyped]  # as above
from scramp.utils import ServerError  # type: ignore[import-untyped]  # as above

from holdfast.auth.link import NOT_MINE, Answer, Link
from holdfast.auth.verifiers import METHODS, NAME_BYTES_MAX, Verifiers, prepared, read_verifiers
from holdfast.broker.authentication import AuthReply, AuthRequest, go_on, grant, refuse
from holdfast.broker.identity import Identity
from holdfast.protocol.reason_codes import NOT_AUTHORIZED

# A user name, a nonce and what surrounds them. SASLprep looks at each character many times, so
# that 65 535 bytes would take a quarter of a second.
MESSAGE_BYTES_MAX: Final = 2 * NAME_BYTES_MAX

# A wrong proof, a user that is unknown and a message that is none are answered alike. It is 0x87
# and not 0x86, which is about the user name and password of CONNECT, and which no DISCONNECT after
# a later authentication could carry.
REFUSAL: Final = "the SCRAM authentication has failed"
MALFORMED: Final = "malformed message"


@final
class _Exchange:
    """What is kept between the two steps; ``server`` is the library's, with the keys in it."""

    def __init__(self, method: str) -> None:
        self.method = method
        self.server: object = None
        self.form = ""  # of the user name, by SASLprep
        self.user_name: str | None = None  # None: there is no such user, whatever the proof
        self.mark = ""


@final
class ScramLink(Link):
    """Authenticates by the verifiers of a password file.

    Unless the file has a key for decoys, there is one for this process. ``nonce`` gives the
    server's part of a nonce, the library's if it is None.
    """

    def __init__(
        self,
        name: str,
        file: Path,
        *,
        methods: Iterable[str] = METHODS,
        nonce: Callable[[], str] | None = None,
    ) -> None:
        super().__init__(name)
        self._file = file
        self._methods = frozenset(methods)
        self._nonce = nonce
        self._decoy_key = secrets.token_bytes(32)
        self._verifiers = Verifiers({}, self._decoy_key)

    @property
    def methods(self) -> frozenset[str]:
        """Those that are offered, whoever has a verifier for them."""
        return self._methods

    @property
    def files(self) -> tuple[Path, ...]:
        """The password file."""
        return (self._file,)

    def reload(self) -> None:
        """Read the file anew."""
        self._verifiers = read_verifiers(self._file, self._decoy_key)

    def step(self, request: AuthRequest) -> Answer:
        """Answer the client's first message with a challenge, and its last with the proof."""
        if request.method not in self._methods:
            return NOT_MINE
        message = _message(request.data)
        if message is None:
            return _failed(MALFORMED)
        if request.state is None:
            return self._first(request.method, request.user_name, message)
        assert isinstance(request.state, _Exchange)
        return _last(request.state, message)

    def renew(self, request: AuthRequest, identity: Identity) -> Answer:
        """A user stays whose verifier is still the one that the proof was made for."""
        method, _, mark = identity.mark.partition(" ")
        found = None
        if method in self._methods and identity.user_name is not None:
            found = self._verifiers.find(method, prepared(identity.user_name))
        if found is None or not hmac.compare_digest(found[1].mark, mark):
            return refuse(NOT_AUTHORIZED, detail="the user or the password is another now")
        return grant(identity=identity)

    def _first(self, method: str, connect_name: str | None, message: str) -> AuthReply:
        exchange = _Exchange(method)
        verifiers = self._verifiers

        def look_up(form: str) -> tuple[bytes, bytes, bytes, int]:
            # What an unknown user costs is spent on everyone, and what a known one costs too.
            shown = verifiers.decoy(method, form)
            exchange.form = form
            found = verifiers.find(method, form)
            if found is not None:
                exchange.user_name, shown = found
            exchange.mark = f"{method} {shown.mark}"
            return shown.salt, shown.stored_key, shown.server_key, shown.iterations

        nonce = None if self._nonce is None else self._nonce()
        server = ScramMechanism(method).make_server(look_up, s_nonce=nonce)
        try:
            server.set_client_first(message)
            challenge: str = server.get_server_first()
        except ScramException:
            return _failed(MALFORMED)
        if connect_name is not None and not _is_form_of(connect_name, exchange.form):
            return refuse(NOT_AUTHORIZED, "expected the user name that was given before")
        exchange.server = server
        return go_on(challenge.encode("ascii"), exchange)


def _last(exchange: _Exchange, message: str) -> AuthReply:
    server = exchange.server
    assert isinstance(server, ScramServer)
    try:
        server.set_client_final(message)
        proof: str = server.get_server_final()
    except ScramException as error:
        if error.server_error != ServerError.INVALID_PROOF:
            return _failed(MALFORMED)
        is_known = exchange.user_name is not None
        return _failed("wrong password" if is_known else "no such user with this method")
    if exchange.user_name is None:
        return _failed("no such user with this method")
    return grant(proof.encode("ascii"), identity=Identity(exchange.user_name, mark=exchange.mark))


def _message(data: bytes | None) -> str | None:
    """The text of a message, or None for what cannot be one."""
    if data is None or len(data) > MESSAGE_BYTES_MAX:
        return None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _is_form_of(name: str, form: str) -> bool:
    # Longer ones are somebody else's, and would take their time.
    if len(name.encode()) > NAME_BYTES_MAX:
        return False
    try:
        return prepared(name) == form
    except ValueError:
        return False


def _failed(detail: str) -> AuthReply:
    return refuse(NOT_AUTHORIZED, REFUSAL, detail)
