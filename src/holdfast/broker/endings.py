"""How connections end: by their clients, for what they did, or when a time is over."""

from typing import final

from holdfast.broker.connection import AWAITS_CONNECT, CONNECTED, Connection
from holdfast.broker.counters import Counters
from holdfast.broker.deadlines import CONNECT_TIMEOUT, IDENTITY_EXPIRY, KEEP_ALIVE, Deadlines
from holdfast.broker.events import DEBUG, INFO, WARNING, Event
from holdfast.broker.limits import IDENTITY_LOOK_MS, KEEP_ALIVE_LOOK_MS, Limits
from holdfast.broker.reasons import explained, explained_connack, redirection
from holdfast.broker.router import Router
from holdfast.broker.sessions import Sessions
from holdfast.errors import ProtocolError, Refused
from holdfast.protocol.encode import encode
from holdfast.protocol.packets import MQTT_5_0, Connack, Disconnect
from holdfast.protocol.reason_codes import (
    CONNACK_CODES,
    DISCONNECT_CODES,
    KEEP_ALIVE_TIMEOUT,
    MAXIMUM_CONNECT_TIME,
    NOT_AUTHORIZED,
    PROTOCOL_ERROR,
    connack_return_code,
    reason_name,
)


@final
class Endings:
    """Ends connections and leaves their sessions behind."""

    def __init__(
        self,
        limits: Limits,
        connections: dict[int, Connection],
        sessions: Sessions,
        router: Router,
        deadlines: Deadlines,
        counters: Counters,
        events: list[Event],
    ) -> None:
        self._limits = limits
        self._connections = connections
        self._sessions = sessions
        self._router = router
        self._deadlines = deadlines
        self._counters = counters
        self._events = events

    def due(self, kind: int, number: int) -> None:
        """A deadline of a connection has come, if it still has it."""
        if kind == CONNECT_TIMEOUT:
            self._connect_timeout(number)
        elif kind == KEEP_ALIVE:
            self._keep_alive(number)
        elif kind == IDENTITY_EXPIRY:
            self._identity_expired(number)

    def lost(self, connection: Connection) -> None:
        """End a connection, from whichever side, and leave its session behind."""
        self._connections.pop(connection.number, None)
        self.tell(DEBUG, "connection ended", connection)
        connection.close()
        session = connection.session
        connection.session = None
        if session is not None and session.connection is connection:
            self._sessions.disconnected(session, self._router.now_ms)

    def end_for(self, connection: Connection, error: ProtocolError | Refused) -> None:
        """Tell a client that broke the rules or is refused, as its version has it, and end it.

        Source: [MQTT-4.13.1-1], [MQTT-4.12.1-2] for a later authentication that fails; 3.1.1:
        [MQTT-4.8.0-1], [MQTT-3.1.2-2].
        """
        reason_code = error.reason_code
        connection.is_at_fault = True
        if isinstance(error, ProtocolError):
            self._counters.protocol_errors += 1
            self.tell(WARNING, f"closed: {error.detail}", connection)
            otherwise = PROTOCOL_ERROR
        else:
            self._counters.refused_connections += 1
            self._tell_of_refusal(connection, error)
            otherwise = NOT_AUTHORIZED
        if connection.state != CONNECTED:
            self._send_refusal(connection, reason_code, error.detail)
        elif connection.is_v5:
            if reason_code not in DISCONNECT_CODES:
                reason_code = otherwise
            packet = Disconnect(reason_code)
            connection.send_last(explained(connection, packet, error.detail))
        self.lost(connection)

    def _send_refusal(self, connection: Connection, reason_code: int, detail: str) -> None:
        """Send the CONNACK of a failed CONNECT, if its version has one for it."""
        if connection.version >= MQTT_5_0:
            if reason_code not in CONNACK_CODES:
                reason_code = PROTOCOL_ERROR
            if reason_code == self._limits.redirect_code:
                data = redirection(connection, self._limits, detail)
            else:
                data = explained_connack(connection, reason_code, detail)
            if not connection.is_too_large(data):
                connection.send(data, 0)
        elif connection.version >= 0:
            code = connack_return_code(reason_code)
            if code > 0:
                connection.send(encode(Connack(False, code), connection.version), 0)

    def _connect_timeout(self, number: int) -> None:
        connection = self._connections.get(number)
        if connection is not None and connection.state != CONNECTED and connection.has_more:
            # It waits for its turn.
            due_ms = self._router.now_ms + self._limits.connect_timeout_ms
            self._deadlines.add(due_ms, CONNECT_TIMEOUT, number)
        elif connection is not None and connection.state != CONNECTED:
            self._counters.timeouts += 1
            wanted = "CONNECT" if connection.state == AWAITS_CONNECT else "authentication"
            self.tell(
                WARNING,
                f"closed: no {wanted} within {self._limits.connect_timeout_ms} ms",
                connection,
            )
            self.lost(connection)

    def _keep_alive(self, number: int) -> None:
        """Close a connection that was silent for 1.5 times its Keep Alive [MQTT-3.1.2-22]."""
        connection = self._connections.get(number)
        if connection is None or connection.state != CONNECTED:
            return
        if connection.is_held or connection.is_throttled or connection.has_more:
            # It is we who do not listen.
            connection.last_received_ms = self._router.now_ms
        if connection.last_received_ms + connection.keep_alive_ms > self._router.now_ms:
            self.await_keep_alive(connection)
            return
        self.tell(INFO, f"closed: {reason_name(KEEP_ALIVE_TIMEOUT)}", connection)
        if connection.is_v5:
            detail = f"no packet came within {connection.keep_alive_ms} ms"
            packet = Disconnect(KEEP_ALIVE_TIMEOUT)
            connection.send_last(explained(connection, packet, detail))
        self.lost(connection)

    def await_keep_alive(self, connection: Connection) -> None:
        """Look again when it may be over, and often enough that a closed one is not kept long."""
        due_ms = min(
            connection.last_received_ms + connection.keep_alive_ms,
            self._router.now_ms + KEEP_ALIVE_LOOK_MS,
        )
        self._deadlines.add(due_ms, KEEP_ALIVE, connection.number)

    def await_identity_expiry(self, connection: Connection) -> None:
        """See to it that the connection ends when what its client was granted does.

        It is looked at now and then until that, since it may lie years ahead: so nothing of a
        connection that is closed, or that is granted anew, is kept for long.
        """
        identity = connection.identity
        if identity is None or identity.expires_at_ms <= 0:
            return
        due_ms = min(identity.expires_at_ms, self._router.now_ms + IDENTITY_LOOK_MS)
        if 0 < connection.identity_listed_ms <= due_ms:
            return
        connection.identity_listed_ms = due_ms
        self._deadlines.add(due_ms, IDENTITY_EXPIRY, connection.number)

    def _identity_expired(self, number: int) -> None:
        """End a connection whose client has not proven itself again in time."""
        connection = self._connections.get(number)
        if connection is None or connection.state != CONNECTED:
            return
        if connection.identity_listed_ms > self._router.now_ms:
            return  # Another entry has taken the place of this one.
        connection.identity_listed_ms = 0
        identity = connection.identity
        if identity is None or not 0 < identity.expires_at_ms <= self._router.now_ms:
            self.await_identity_expiry(connection)  # It is not over yet, or has got more time.
            return
        self.tell(INFO, "closed: its authentication has expired", connection)
        if connection.is_v5:
            detail = "the authentication has expired"
            packet = Disconnect(MAXIMUM_CONNECT_TIME)
            connection.send_last(explained(connection, packet, detail))
        self.lost(connection)

    def _tell_of_refusal(self, connection: Connection, error: Refused) -> None:
        """Tell the operator more than the client: it may be somebody who is guessing."""
        text = f"refused: {error.detail}"
        if error.for_operator:
            text += f" ({error.for_operator})"
        self._events.append(
            Event(
                WARNING,
                text,
                connection.client_id,
                connection.address,
                connection.user_name,
                connection.rules.name,
            )
        )

    def tell(self, level: int, text: str, connection: Connection) -> None:
        """Tell the operator what happened to a connection."""
        self._events.append(Event(level, text, connection.client_id, connection.address))
