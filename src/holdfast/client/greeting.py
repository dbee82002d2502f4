"""CONNECT and DISCONNECT of a client, and which session they ask for.

Source: MQTT 5.0 §3.1, §3.14, §4.1; MQTT 3.1.1 §3.1.
"""

import secrets
from collections.abc import Sequence

from holdfast.client.options import BRIDGED_S, SESSION_EXPIRY_S, Will
from holdfast.errors import UsageError
from holdfast.logs import get_logger
from holdfast.message import Properties
from holdfast.protocol.encode import encode
from holdfast.protocol.packets import MQTT_5_0, Connack, Connect, Disconnect
from holdfast.protocol.reason_codes import DISCONNECT_WITH_WILL_MESSAGE

__all__ = ["Greeting"]

_log = get_logger(__name__)


class Greeting:
    """What a client says at the beginning and at the end of each connection.

    Its session is kept where it has an identifier of its own or an outbox; else it bridges lost
    connections, and ends with the client.
    """

    def __init__(
        self,
        *,
        client_id: str,
        has_outbox: bool,
        version: int,
        clean_start: bool | None,
        session_expiry_s: int | None,
        keep_alive_s: int,
        will: Will | None,
        receive_maximum: int,
        maximum_packet_size: int | None,
        topic_alias_maximum: int,
        user_properties: Sequence[tuple[str, str]],
    ) -> None:
        self.client_id = client_id
        self._version = version
        is_kept = bool(client_id) or has_outbox
        self._is_kept = is_kept if session_expiry_s is None else session_expiry_s > 0
        self._clean_start = not is_kept if clean_start is None else clean_start
        default_s = SESSION_EXPIRY_S if is_kept else BRIDGED_S
        self._session_expiry_s = default_s if session_expiry_s is None else session_expiry_s
        self._ends_session = not is_kept and session_expiry_s is None
        self._keep_alive_s = keep_alive_s
        self._will = will
        self._receive_maximum = receive_maximum
        self._maximum_packet_size = maximum_packet_size
        self._topic_alias_maximum = topic_alias_maximum
        self._user_properties = list(user_properties)
        self._was_accepted = False

    def settle_client_id(self, kept: str) -> bool:
        """Take the identifier that was given, the one that an outbox has, or a new one.

        Returned is whether it is another one than the outbox has.
        """
        if not self.client_id:
            self.client_id = kept or f"holdfast-{secrets.token_hex(8)}"
        if kept and self.client_id != kept:
            _log.warning(f"the outbox was that of client {kept}, it is {self.client_id}'s now")
        return self.client_id != kept

    def accepted(self, connack: Connack) -> None:
        """The server has accepted a CONNECT."""
        self._was_accepted = True
        properties = connack.properties
        if properties is not None and properties.assigned_client_identifier is not None:
            self.client_id = properties.assigned_client_identifier

    def connect(self) -> Connect:
        """The CONNECT of the next connection, without what proves who the client is."""
        properties: Properties | None = None
        if self._version >= MQTT_5_0:
            properties = Properties()
            properties.session_expiry_interval = self._session_expiry_s
            properties.receive_maximum = self._receive_maximum
            properties.maximum_packet_size = self._maximum_packet_size
            properties.topic_alias_maximum = self._topic_alias_maximum or None
            properties.request_response_information = 1  # for ``request``
            properties.user_properties = self._user_properties
            is_clean = self._clean_start and not self._was_accepted
        else:
            # Clean Session also says that the session ends with the connection.
            is_clean = self._clean_start or not self._is_kept
        return Connect(
            self.client_id,
            self._version,
            is_clean,
            self._keep_alive_s,
            None if self._will is None else self._will.packet(self._version),
            properties=properties,
        )

    def check(self, user_name: str | None, password: bytes | None) -> None:
        """Raise UsageError for what no CONNECT can carry."""
        try:
            connect = self.connect()
            connect.user_name, connect.password = user_name, password
            encode(connect, self._version)
        except UsageError as error:
            raise UsageError(f"this cannot go into CONNECT: {error}") from None
        except (TypeError, ValueError, AttributeError) as error:
            # These are what a value of the wrong type leads to; which one, the error says best.
            raise UsageError(f"this cannot go into CONNECT: a wrong type: {error}") from error

    def disconnect(self, *, with_will: bool) -> Disconnect:
        """The DISCONNECT of an orderly end."""
        packet = Disconnect()
        if self._version < MQTT_5_0:
            return packet
        if with_will:
            packet.reason_code = DISCONNECT_WITH_WILL_MESSAGE
        if self._ends_session:
            packet.properties = Properties()
            packet.properties.session_expiry_interval = 0
        return packet
