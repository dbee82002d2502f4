"""Authentication: the exchange around an authenticator, which answers outside of the broker.

The broker does not wait for an answer: ``steps`` are taken by the driver, which has them answered
and brings the replies back. Source: MQTT 5.0 §3.1.4, §3.15, §4.12.
"""

from typing import Final, final

from holdfast.broker.connection import AUTHENTICATING, CLOSED, CONNECTED, HELD, Connection
from holdfast.broker.identity import Identity, PeerCertificate
from holdfast.broker.limits import (
    AUTH_REASON_CHARACTERS_MAX,
    AUTH_ROUNDS_MAX,
    REAUTHENTICATIONS_MAX,
    REAUTHENTICATIONS_MS,
)
from holdfast.broker.permissions import Permissions
from holdfast.errors import ProtocolError, Refused
from holdfast.message import Properties
from holdfast.protocol.encode import encode
from holdfast.protocol.packets import MQTT_5_0, Auth, Connect
from holdfast.protocol.reason_codes import (
    BAD_AUTHENTICATION_METHOD,
    CONNACK_CODES,
    CONTINUE_AUTHENTICATION,
    FAILURE,
    IMPLEMENTATION_SPECIFIC_ERROR,
    NOT_AUTHORIZED,
    PROTOCOL_ERROR,
    QUOTA_EXCEEDED,
    RE_AUTHENTICATE,
    SUCCESS,
    reason_name,
)
from holdfast.protocol.wire import STRING_BYTES_MAX

CONTINUE: Final = 0  # the client is to answer ``data`` with another AUTH
GRANT: Final = 1
REFUSE: Final = 2


@final
class AuthRequest:
    """What one step has to judge.

    ``method`` is None for a client without enhanced authentication, whose first step is its only
    one. The password comes with the first step alone, and not to a re-authentication. ``state``
    is what the reply before it in this exchange gave, None in the first step. A renewal, to which
    the client adds nothing, has the identity that was granted and the ``permissions`` of now.
    """

    def __init__(
        self,
        method: str | None,
        data: bytes | None,
        client_id: str,
        user_name: str | None,
        password: bytes | None,
        address: str,
        is_reauthentication: bool,
        state: object | None,
        listener: str = "",
        version: int = MQTT_5_0,
        certificate: PeerCertificate | None = None,
        renewed: Identity | None = None,
        permissions: Permissions | None = None,
    ) -> None:
        self.method = method
        self.data = data
        self.client_id = client_id
        self.user_name = user_name
        self.password = password
        self.address = address
        self.is_reauthentication = is_reauthentication
        self.state = state
        self.listener = listener
        self.version = version
        self.certificate = certificate
        self.renewed = renewed
        self.permissions = permissions


@final
class AuthReply:
    """What came of a step; made by ``go_on``, ``grant`` and ``refuse``."""

    def __init__(
        self,
        kind: int,
        data: bytes | None,
        state: object | None,
        identity: Identity | None,
        reason_code: int,
        reason: str,
        detail: str = "",
        permissions: Permissions | None = None,
    ) -> None:
        self.kind = kind
        self.data = data
        self.state = state
        self.identity = identity
        self.reason_code = reason_code
        self.reason = reason
        self.detail = detail
        self.permissions = permissions


def go_on(data: bytes | None, state: object | None) -> AuthReply:
    """The exchange goes on: the client gets ``data``, the next request ``state``."""
    return AuthReply(CONTINUE, data, state, None, SUCCESS, "")


def grant(
    data: bytes | None = None,
    user_name: str | None = None,
    identity: Identity | None = None,
    permissions: Permissions | None = None,
) -> AuthReply:
    """The client is who it says, or has this identity; ``user_name`` alone stands for one.

    It may do what ``permissions`` allow, with None everything.
    """
    if identity is None and user_name is not None:
        identity = Identity(user_name)
    return AuthReply(GRANT, data, None, identity, SUCCESS, "", "", permissions)


def refuse(reason_code: int = NOT_AUTHORIZED, reason: str = "", detail: str = "") -> AuthReply:
    """The client is refused with a reason code of CONNACK.

    It may read the reason; the detail is for the operator's log alone, without secrets.
    """
    return AuthReply(REFUSE, None, None, None, reason_code, reason, detail)


@final
class AuthExchange:
    """One exchange of a connection; ``connect`` is the CONNECT that waits for its end, if any.

    ``round_of_renewals`` is the one in which it began: what a later step finds in its state may be
    from then.
    """

    def __init__(self, connect: Connect | None, round_of_renewals: int) -> None:
        self.connect = connect
        self.is_step_under_way = False
        self.rounds = 0
        self.state: object | None = None
        self.round_of_renewals = round_of_renewals


@final
class AuthStep:
    """A step on its way to the authenticator; the driver brings it back with the reply.

    ``exchange`` is None for a renewal, which the client takes no part in.
    """

    def __init__(
        self,
        connection: Connection,
        exchange: AuthExchange | None,
        request: AuthRequest,
        round_of_renewals: int,
    ) -> None:
        self.connection = connection
        self.exchange = exchange
        self.request = request
        self.round_of_renewals = round_of_renewals


@final
class Authentication:
    """The exchanges of all connections."""

    def __init__(self) -> None:
        self.steps: list[AuthStep] = []
        self._round_of_renewals = 0

    def connect(self, connection: Connection, packet: Connect) -> bool:
        """Take a CONNECT: True if it may be carried out now, False if it waits for a reply.

        Meanwhile a client with a method may send nothing but AUTH and DISCONNECT. What another one
        sends behind its CONNECT, as it may, is kept for later and reading pauses [MQTT-3.1.4-6].
        Source: [MQTT-4.12.0-1] for the method.
        """
        properties = packet.properties
        method: str | None = None
        data: bytes | None = None
        if properties is not None:
            method = properties.authentication_method
            data = properties.authentication_data
        methods = connection.rules.auth_methods
        if method is not None and (methods is None or method not in methods):
            detail = "expected no Authentication Method or one that is known, another came"
            raise Refused(BAD_AUTHENTICATION_METHOD, detail)
        if methods is None:
            return True
        connection.auth_method = method
        connection.user_name = packet.user_name
        connection.state = HELD if method is None else AUTHENTICATING
        connection.exchange = AuthExchange(packet, self._round_of_renewals)
        self._ask(connection, connection.exchange, data, packet.password)
        return False

    def auth(self, connection: Connection, packet: Auth, now_ms: int) -> None:
        """Take an AUTH, of the first authentication or a later one.

        Raises ProtocolError for one that is out of place, and Refused if a client begins too often:
        each may cost as much as hashing a password. Source: [MQTT-4.12.0-5], [MQTT-4.12.0-7],
        [MQTT-4.12.1-1].
        """
        properties = packet.properties
        if connection.auth_method is None:
            raise _protocol_error("expected no AUTH where CONNECT had no Authentication Method")
        if properties is None or properties.authentication_method != connection.auth_method:
            raise _protocol_error("expected the Authentication Method of CONNECT, another came")
        exchange = connection.exchange
        if packet.reason_code == RE_AUTHENTICATE:
            if connection.state != CONNECTED or exchange is not None:
                raise _protocol_error("expected AUTH to go on, one to begin came")
            if not 0 <= now_ms - connection.reauthenticated_ms < REAUTHENTICATIONS_MS:
                connection.reauthenticated_ms = now_ms
                connection.reauthentications = 0
            connection.reauthentications += 1
            if connection.reauthentications > REAUTHENTICATIONS_MAX:
                detail = f"expected at most {REAUTHENTICATIONS_MAX} authentications in a minute"
                raise Refused(QUOTA_EXCEEDED, detail)
            exchange = AuthExchange(None, self._round_of_renewals)
            connection.exchange = exchange
        elif packet.reason_code != CONTINUE_AUTHENTICATION:
            raise _protocol_error("expected AUTH of a client, one of a server came")
        elif exchange is None or exchange.is_step_under_way:
            raise _protocol_error("expected no AUTH that nothing was asked for")
        self._ask(connection, exchange, properties.authentication_data, None)

    def _ask(
        self,
        connection: Connection,
        exchange: AuthExchange,
        data: bytes | None,
        password: bytes | None,
    ) -> None:
        request = AuthRequest(
            connection.auth_method,
            data,
            connection.client_id,
            connection.user_name,
            password,
            connection.address,
            exchange.connect is None,
            exchange.state,
            connection.rules.name,
            connection.version,
            connection.certificate,
        )
        exchange.is_step_under_way = True
        exchange.state = None
        self.steps.append(AuthStep(connection, exchange, request, self._round_of_renewals))

    def renew_all(self, connections: list[Connection]) -> None:
        """Ask of all that have been let in whether that still holds, and on what terms.

        Who is about to be let in, by an answer from before, is asked about when it is there.
        """
        self._round_of_renewals += 1
        for connection in connections:
            self._renew(connection)

    def _renew(self, connection: Connection) -> None:
        identity = connection.identity
        if connection.state != CONNECTED or identity is None:
            return
        request = AuthRequest(
            connection.auth_method,
            None,
            connection.client_id,
            connection.user_name,
            None,
            connection.address,
            False,
            None,
            connection.rules.name,
            connection.version,
            connection.certificate,
            identity,
            connection.permissions,
        )
        self.steps.append(AuthStep(connection, None, request, self._round_of_renewals))

    def settled(self, step: AuthStep) -> None:
        """The client of a step is let in: did that begin before a renewal of all?"""
        exchange = step.exchange
        if exchange is not None and exchange.round_of_renewals != self._round_of_renewals:
            self._renew(step.connection)

    def renewed(self, step: AuthStep, reply: AuthReply) -> None:
        """Take the reply to a renewal. Raises Refused if the client may stay no longer."""
        connection = step.connection
        if connection.state == CLOSED or step.round_of_renewals != self._round_of_renewals:
            return  # A newer renewal has been asked for, whose answer may have come already.
        if connection.identity is not step.request.renewed:
            self._renew(connection)  # It has another one by now.
        elif reply.kind == GRANT:
            self._take_identity(connection, reply)
        else:
            raise _refusal(reply)

    def done(self, step: AuthStep, reply: AuthReply) -> Connect | None:
        """Take a reply: returns the CONNECT that is to be carried out, if it was what waited.

        Raises Refused. Source: [MQTT-4.12.0-2], [MQTT-4.12.0-4].
        """
        connection = step.connection
        exchange = step.exchange
        assert exchange is not None
        exchange.is_step_under_way = False
        data = reply.data
        if reply.kind == REFUSE:
            raise _refusal(reply)
        if data is not None and len(data) > STRING_BYTES_MAX:
            raise Refused(IMPLEMENTATION_SPECIFIC_ERROR, "the authentication data is too long")
        if reply.kind == CONTINUE:
            exchange.rounds += 1
            if connection.auth_method is None or exchange.rounds > AUTH_ROUNDS_MAX:
                raise Refused(IMPLEMENTATION_SPECIFIC_ERROR, "the authentication does not end")
            exchange.state = reply.state
            self._send(connection, CONTINUE_AUTHENTICATION, data)
            return None
        connection.exchange = None
        before = connection.user_name
        self._take_identity(connection, reply)
        if exchange.connect is None:
            if connection.user_name != before:
                raise Refused(NOT_AUTHORIZED, "expected the user to stay the same, another came")
            self._send(connection, SUCCESS, data)
        return exchange.connect

    def _take_identity(self, connection: Connection, reply: AuthReply) -> None:
        identity = reply.identity
        if identity is None:
            identity = Identity(connection.user_name)
        connection.identity = identity
        connection.user_name = identity.user_name
        connection.permissions = reply.permissions

    def _send(self, connection: Connection, reason_code: int, data: bytes | None) -> None:
        properties = Properties()
        properties.authentication_method = connection.auth_method
        properties.authentication_data = data
        connection.answer(encode(Auth(reason_code, properties), MQTT_5_0), 0)


def _protocol_error(detail: str) -> ProtocolError:
    return ProtocolError(PROTOCOL_ERROR, detail)


def _refusal(reply: AuthReply) -> Refused:
    """What an authenticator says, as far as it can be sent."""
    code = reply.reason_code
    if code < FAILURE or code not in CONNACK_CODES:
        code = NOT_AUTHORIZED
    reason = reply.reason
    if not reason or len(reason) > AUTH_REASON_CHARACTERS_MAX or not reason.isprintable():
        reason = reason_name(code)
    return Refused(code, reason, reply.detail)
