"""One network connection of a client as a pure object: bytes in, packets and bytes out.

Source: MQTT 5.0 §3 and §4.13, MQTT 3.1.1 §3 and §4.8.
"""

from typing import Final, final

from mypy_extensions import i64

from holdfast.client.outgoing import PUBLISH_ID_MAX
from holdfast.client.receiving import Receiving
from holdfast.client.sending import Sending
from holdfast.client.server_limits import ServerLimits
from holdfast.errors import ProtocolError, Refused
from holdfast.message import Properties
from holdfast.protocol.decode import decode, decode_publish, peek_packet_id
from holdfast.protocol.encode import encode
from holdfast.protocol.framer import Framer
from holdfast.protocol.packets import (
    MQTT_5_0,
    PACKET_NAMES,
    PUBLISH,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingresp,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    SubscriptionRequest,
    Unsuback,
    Unsubscribe,
)
from holdfast.protocol.reason_codes import (
    FAILURE,
    PACKET_IDENTIFIER_NOT_FOUND,
    PACKET_TOO_LARGE,
    PROTOCOL_ERROR,
    SHARED_SUBSCRIPTIONS_NOT_SUPPORTED,
    SUCCESS,
    WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED,
)
from holdfast.protocol.topic_aliases import AliasesIn
from holdfast.protocol.topics import TopicCache, has_wildcard, is_shared

REQUEST_ID_MIN: Final = PUBLISH_ID_MAX + 1
REQUEST_ID_MAX: Final = 65_535
REQUESTS_MAX: Final = REQUEST_ID_MAX - REQUEST_ID_MIN + 1

PACKET_BYTES_MIN: Final = 5  # of an acknowledgement with a reason code

CONNECTING: Final = 0  # CONNECT was sent
CONNECTED: Final = 1
CLOSED: Final = 2  # the server has said DISCONNECT, or no


@final
class ClientConnection:
    """What a connection knows beside the session.

    ``events`` are the packets that are for the caller, since it was last emptied: CONNACK, AUTH,
    DISCONNECT, and what answers ``request`` (see ``answered``). ``number`` is never used again.
    """

    def __init__(
        self,
        number: int,
        connect: Connect,
        sending: Sending,
        receiving: Receiving,
        *,
        uses_aliases: bool,
    ) -> None:
        self.number = number
        self.state: i64 = CONNECTING
        self.events: list[Packet] = []
        self.answered: list[tuple[int, Packet]] = []  # identifier, SUBACK or UNSUBACK
        self.pings: i64 = 0  # PINGREQs that are not answered
        self.limits = ServerLimits(connect.version)
        self.session_present = False
        self.version = connect.version
        self._sending = sending
        self._receiving = receiving
        self._uses_aliases = uses_aliases
        properties = connect.properties if connect.properties is not None else Properties()
        packet_bytes_max = properties.maximum_packet_size
        self._framer = Framer(
            self.limits.packet_bytes_max if packet_bytes_max is None else packet_bytes_max
        )
        self._receive_maximum = properties.receive_maximum or 65_535
        self._method = properties.authentication_method
        self._clean_start = connect.clean_start
        self._aliases = AliasesIn(properties.topic_alias_maximum or 0)
        self._topics = TopicCache()
        self._requests: dict[int, Packet] = {}
        self._next_request_id = REQUEST_ID_MIN

    # --- what the client sends

    def request(self, packet: Subscribe | Unsubscribe, out: list[bytes]) -> int:
        """Send a SUBSCRIBE or UNSUBSCRIBE under an identifier that is free, which is returned.

        0 if REQUESTS_MAX are unanswered. The answer comes in ``answered``. Raises Refused for what
        this server has said that it does not take, UsageError for what no server would.
        """
        if isinstance(packet, Subscribe):
            self._check_requests(packet.requests)
        if len(self._requests) >= REQUESTS_MAX:
            return 0
        packet_id = self._next_request_id
        while packet_id in self._requests:
            packet_id = packet_id + 1 if packet_id < REQUEST_ID_MAX else REQUEST_ID_MIN
        self._next_request_id = packet_id + 1 if packet_id < REQUEST_ID_MAX else REQUEST_ID_MIN
        packet.packet_id = packet_id
        frame = encode(packet, self.version)
        if len(frame) > self.limits.packet_bytes_max:
            # [MQTT-3.2.2-15]
            raise Refused(
                PACKET_TOO_LARGE,
                f"the server takes packets of {self.limits.packet_bytes_max} bytes, "
                f"this {PACKET_NAMES[frame[0] >> 4]} has {len(frame)}",
            )
        out.append(frame)
        self._requests[packet_id] = packet
        return packet_id

    def disconnect(self, packet: Disconnect) -> bytes:
        """The DISCONNECT, as far as the server takes it: at most without properties, or none."""
        for one in (packet, Disconnect(packet.reason_code), Disconnect()):
            frame = encode(one, self.version)
            if len(frame) <= self.limits.packet_bytes_max:
                return frame
        return b""

    def _check_requests(self, requests: list[SubscriptionRequest]) -> None:
        """Source: MQTT 5.0 §3.2.2.3.11, §3.2.2.3.13."""
        limits = self.limits
        for request in requests:
            topic_filter = request.topic_filter
            if not limits.has_shared_subscriptions and is_shared(topic_filter):
                raise Refused(
                    SHARED_SUBSCRIPTIONS_NOT_SUPPORTED,
                    f"the server has no Shared Subscriptions, as {topic_filter} would be",
                )
            if not limits.has_wildcards and has_wildcard(topic_filter):
                raise Refused(
                    WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED,
                    f"the server has no subscriptions with wildcards, as {topic_filter} would be",
                )

    # --- what the server sends

    def receive(self, data: bytes, out: list[bytes]) -> None:
        """Take the next bytes of the connection, and append to ``out`` what answers them at once.

        Raises ProtocolError if the server breaks the rules: the connection then ends with its
        reason code, and nothing more may be given to it.
        """
        framer = self._framer
        framer.feed(data)
        while framer.next_frame():
            if self.state == CLOSED:
                return
            buffer = framer.buffer
            start = framer.start
            end = framer.end
            first: i64 = buffer[start]
            if self.state == CONNECTED:
                if first >> 4 == PUBLISH:
                    self._publish(decode_publish(buffer, start, end, self.version, self._topics))
                    continue
                packet_id: i64 = peek_packet_id(buffer, start, end)
                if packet_id != 0:
                    self._acknowledgement(first, packet_id, out)
                    continue
            self._other(decode(buffer, start, end, self.version, self._topics), first, out)

    def _publish(self, packet: Publish) -> None:
        properties = packet.properties
        if properties is not None and properties.topic_alias is not None:
            packet.topic = self._aliases.topic(properties.topic_alias, packet.topic)
        self._receiving.publish(packet)

    def _acknowledgement(self, first: i64, packet_id: i64, out: list[bytes]) -> None:
        """PUBACK, PUBREC, PUBREL or PUBCOMP that reports success."""
        if first == 0x40:
            self._sending.puback(packet_id, SUCCESS, "")
        elif first == 0x50:
            self._pubrec(packet_id, SUCCESS, "", out)
        elif first == 0x62:
            self._receiving.pubrel(packet_id, out)
        else:
            self._sending.pubcomp(packet_id, SUCCESS, "")

    def _pubrec(self, packet_id: int, reason_code: int, reason: str, out: list[bytes]) -> None:
        if self._sending.pubrec(packet_id, reason_code, reason, out) or reason_code >= FAILURE:
            return
        code = PACKET_IDENTIFIER_NOT_FOUND if self.version >= MQTT_5_0 else SUCCESS
        out.append(encode(Pubrel(packet_id, code), self.version))

    def _other(self, packet: Packet, first: i64, out: list[bytes]) -> None:
        if isinstance(packet, Connack):
            self._connack(packet, out)
        elif isinstance(packet, Auth):
            self._auth(packet)
        elif self.state == CONNECTING:
            # [MQTT-3.2.0-1]
            raise _protocol_error(f"expected CONNACK, {PACKET_NAMES[first >> 4]} came before it")
        elif isinstance(packet, Puback):
            self._sending.puback(packet.packet_id, packet.reason_code, _reason(packet.properties))
        elif isinstance(packet, Pubrec):
            reason = _reason(packet.properties)
            self._pubrec(packet.packet_id, packet.reason_code, reason, out)
        elif isinstance(packet, Pubrel):
            self._receiving.pubrel(packet.packet_id, out)
        elif isinstance(packet, Pubcomp):
            self._sending.pubcomp(packet.packet_id, packet.reason_code, _reason(packet.properties))
        elif isinstance(packet, Suback):
            self._suback(packet)
        elif isinstance(packet, Unsuback):
            self._unsuback(packet)
        elif isinstance(packet, Pingresp):
            self.pings = 0
        elif isinstance(packet, Disconnect) and self.version >= MQTT_5_0:
            self.state = CLOSED
            self.events.append(packet)
        else:
            raise _protocol_error(f"{PACKET_NAMES[first >> 4]} is not for a client")

    def _connack(self, packet: Connack, out: list[bytes]) -> None:
        if self.state != CONNECTING:
            # [MQTT-3.2.0-2]
            raise _protocol_error("expected one CONNACK, a second one came")
        self.events.append(packet)
        if packet.reason_code != SUCCESS:
            self.state = CLOSED
            return
        if packet.session_present and self._clean_start:
            # [MQTT-3.2.2-4]: it can be none of ours.
            raise _protocol_error("expected no session present after a clean start")
        limits = ServerLimits(self.version, packet.properties)
        if limits.packet_bytes_max < PACKET_BYTES_MIN:
            raise ProtocolError(
                PACKET_TOO_LARGE,
                f"expected a Maximum Packet Size of at least {PACKET_BYTES_MIN}, "
                f"{limits.packet_bytes_max} came: no acknowledgement fits",
            )
        self.state = CONNECTED
        self.limits = limits
        self.session_present = packet.session_present
        self._receiving.connected(
            self.number, self.version, packet.session_present, self._receive_maximum
        )
        self._sending.connected(
            self.number,
            limits,
            packet.session_present,
            limits.aliases_max if self._uses_aliases else 0,
            out,
        )

    def _auth(self, packet: Auth) -> None:
        """Source: MQTT 5.0 §4.12, [MQTT-4.12.0-5]."""
        properties = packet.properties
        method = None if properties is None else properties.authentication_method
        if self._method is None:
            raise _protocol_error("AUTH came, and CONNECT had no Authentication Method")
        if method is not None and method != self._method:
            raise _protocol_error("expected the Authentication Method of CONNECT in AUTH")
        self.events.append(packet)

    def _suback(self, packet: Suback) -> None:
        asked = self._requests.get(packet.packet_id)
        if asked is None or not isinstance(asked, Subscribe):
            raise _protocol_error("SUBACK came for no SUBSCRIBE")
        if len(packet.reason_codes) != len(asked.requests):
            # [MQTT-3.8.4-6]
            raise _protocol_error(
                f"expected {len(asked.requests)} reason codes in SUBACK, "
                f"{len(packet.reason_codes)} came"
            )
        del self._requests[packet.packet_id]
        self.answered.append((packet.packet_id, packet))

    def _unsuback(self, packet: Unsuback) -> None:
        asked = self._requests.get(packet.packet_id)
        if asked is None or not isinstance(asked, Unsubscribe):
            raise _protocol_error("UNSUBACK came for no UNSUBSCRIBE")
        if self.version >= MQTT_5_0 and len(packet.reason_codes) != len(asked.topic_filters):
            # [MQTT-3.11.3-1]
            raise _protocol_error(
                f"expected {len(asked.topic_filters)} reason codes in UNSUBACK, "
                f"{len(packet.reason_codes)} came"
            )
        del self._requests[packet.packet_id]
        self.answered.append((packet.packet_id, packet))


def _reason(properties: Properties | None) -> str:
    if properties is None or properties.reason_string is None:
        return ""
    return properties.reason_string


def _protocol_error(detail: str) -> ProtocolError:
    return ProtocolError(PROTOCOL_ERROR, detail)
