"""How clients are let in, once it is settled who they are, and how they say goodbye."""

from typing import final

from holdfast.broker.connection import CONNECTED, Connection
from holdfast.broker.counters import Counters
from holdfast.broker.endings import Endings
from holdfast.broker.events import DEBUG
from holdfast.broker.flapping import Flapping
from holdfast.broker.limits import Limits
from holdfast.broker.rates import Rates
from holdfast.broker.sessions import Sessions
from holdfast.errors import ProtocolError, Refused
from holdfast.protocol.packets import Connect, Disconnect
from holdfast.protocol.reason_codes import (
    DISCONNECT_CODES_OF_SERVER,
    NORMAL_DISCONNECTION,
    PROTOCOL_ERROR,
)


@final
class Connecting:
    """Carries out CONNECT and DISCONNECT.

    ``arrivals`` are those whose CONNECT has come or that were let in: see ``Broker``.
    """

    def __init__(
        self,
        limits: Limits,
        sessions: Sessions,
        endings: Endings,
        rates: Rates,
        counters: Counters,
    ) -> None:
        self.arrivals: list[Connection] = []
        self._sessions = sessions
        self._endings = endings
        self._rates = rates
        self._counters = counters
        self._flapping = Flapping(limits)

    def check(self, packet: Connect, now_ms: int) -> None:
        """Raises Refused for a client that comes too often."""
        if not packet.client_id:
            return
        session = self._sessions.find(packet.client_id)
        is_takeover = session is not None and session.connection is not None
        try:
            self._flapping.connects(packet.client_id, is_takeover, now_ms)
        except Refused:
            self._counters.flapping += 1
            raise

    def carry_out(
        self, connection: Connection, packet: Connect, auth_data: bytes | None, now_ms: int
    ) -> None:
        """Let in a client that may connect. Raises ProtocolError or Refused to refuse it."""
        session = self._sessions.find(packet.client_id)
        former = None if session is None else session.connection
        self._sessions.connect(connection, packet, auth_data, now_ms)
        self.arrivals.append(connection)
        self._endings.tell(DEBUG, "connected", connection)
        if connection.state != CONNECTED:
            return
        self._rates.begin(connection, former, now_ms)
        if connection.keep_alive_ms > 0:
            self._endings.await_keep_alive(connection)

    def disconnect(self, connection: Connection, packet: Disconnect) -> None:
        """Take DISCONNECT. Source: [MQTT-3.14.4-3]; session expiry: MQTT 5.0 §3.14.2.2.2."""
        session = connection.session
        assert session is not None
        if packet.reason_code in DISCONNECT_CODES_OF_SERVER:
            raise ProtocolError(
                PROTOCOL_ERROR,
                f"expected a DISCONNECT of a client, 0x{packet.reason_code:02X} came",
            )
        properties = packet.properties
        if properties is not None and properties.session_expiry_interval is not None:
            expiry_s = properties.session_expiry_interval
            if connection.asked_expiry_s == 0 and expiry_s > 0:
                raise ProtocolError(
                    PROTOCOL_ERROR,
                    "expected no Session Expiry Interval above 0 where CONNECT had none",
                )
            self._sessions.set_expiry(session, expiry_s)
        if packet.reason_code == NORMAL_DISCONNECTION:
            self._sessions.forget_will(session)
        self._endings.lost(connection)
