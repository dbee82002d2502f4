"""PUBLISH from a client: checked, routed, acknowledged, or refused. Source: MQTT 5.0 §3.3."""

from typing import final

from holdfast.broker.authorization import Authorization, may_publish
from holdfast.broker.commits import Commits
from holdfast.broker.connection import Connection
from holdfast.broker.counters import Counters
from holdfast.broker.delayed import Delayed, is_delayed
from holdfast.broker.events import WARNING, Event
from holdfast.broker.limits import Limits
from holdfast.broker.queue_limits import QueueLimits
from holdfast.broker.reasons import explained
from holdfast.broker.router import Router
from holdfast.broker.session import Session
from holdfast.broker.space import LogSpace
from holdfast.errors import ProtocolError, Refused
from holdfast.message import Message, Properties, is_format_broken
from holdfast.protocol.encode import encode, encode_puback, encode_pubrec
from holdfast.protocol.packets import MQTT_5_0, Puback, Publish, Pubrec
from holdfast.protocol.properties import has_forwarded
from holdfast.protocol.reason_codes import (
    NO_MATCHING_SUBSCRIBERS,
    NOT_AUTHORIZED,
    PACKET_IDENTIFIER_IN_USE,
    PAYLOAD_FORMAT_INVALID,
    PROTOCOL_ERROR,
    QOS_NOT_SUPPORTED,
    QUOTA_EXCEEDED,
    RECEIVE_MAXIMUM_EXCEEDED,
    RETAIN_NOT_SUPPORTED,
)
from holdfast.protocol.topic_aliases import AliasesIn
from holdfast.protocol.topics import is_sys_topic


@final
class Publishing:
    """Takes the PUBLISH packets of all connections."""

    def __init__(
        self,
        limits: Limits,
        commits: Commits,
        router: Router,
        queues: QueueLimits,
        space: LogSpace,
        delayed: Delayed,
        authorization: Authorization,
        counters: Counters,
        events: list[Event],
    ) -> None:
        self._limits = limits
        self._commits = commits
        self._router = router
        self._queues = queues
        self._space = space
        self._delayed = delayed
        self._authorization = authorization
        self._counters = counters
        self._events = events

    def publish(self, connection: Connection, packet: Publish) -> None:
        """Take a PUBLISH. Its acknowledgement waits for what it promises to be durable."""
        session = connection.session
        assert session is not None
        self._counters.received += 1
        self._counters.received_payload_bytes += len(packet.payload)
        properties = packet.properties
        if properties is not None and properties.topic_alias is not None:
            # First of all: it counts even if the message is a repeat or refused.
            self._take_alias(connection, packet, properties)
        qos = packet.qos
        commits = self._commits
        limits = self._limits
        if qos > limits.maximum_qos or (packet.retain and not limits.is_retain_available):
            raise _not_supported(packet, limits)
        if qos > 0 and session.received.holds(packet.packet_id):
            if qos == 2:
                # [MQTT-4.3.3-10]. The first one may still be on its way to the disk.
                connection.answer(encode_pubrec(packet.packet_id), commits.filling)
                return
            if connection.is_v5:
                detail = "expected a free Packet Identifier, it is that of an open QoS 2 exchange"
                self._refuse(connection, packet, PACKET_IDENTIFIER_IN_USE, detail)
                return
        receive_maximum = limits.receive_maximum
        if qos > 0 and connection.is_v5 and connection.open_publishes >= receive_maximum:
            raise ProtocolError(
                RECEIVE_MAXIMUM_EXCEEDED,
                f"expected at most {receive_maximum} open publishes, another came",
            )
        permissions = connection.permissions
        if permissions is not None and not may_publish(permissions, packet.topic, packet.retain):
            self._deny(connection, packet)
            return
        message = Message(
            packet.topic, packet.payload, qos, packet.retain, None, 0, session.client_id
        )
        wire: bytes | None = None
        if properties is not None:
            if limits.check_payload_format and is_format_broken(properties, packet.payload):
                detail = "expected UTF-8, as the Payload Format Indicator says"
                self._refuse(connection, packet, PAYLOAD_FORMAT_INVALID, detail)
                return
            self._take_properties(message, packet, properties)
        if qos == 0 and not packet.retain and _goes_on_as_it_came(message, properties):
            framer = connection.framer
            wire = framer.buffer[framer.start : framer.end]
        space = self._space
        if (
            self._queues.full > 0
            or message.retain
            or commits.next_lsn >= space.refuse_from_lsn
            or self._counters.logged_payload_bytes >= space.refuse_from_bytes
        ):
            refusal = self._refusal(message)
            if refusal:
                self._refuse(connection, packet, QUOTA_EXCEEDED, refusal)
                return
        if message.topic.startswith("$") and self._take_special(connection, packet, message):
            return
        after = session.publish_wait
        if after <= commits.durable:
            after = 0
        wait = self._router.publish(message, wire, connection.is_v5, after)
        self._taken(session, connection, packet, wait, self._router.had_match)

    def _refusal(self, message: Message) -> str:
        """Why there is no room for a message, "" if there is."""
        space = self._space
        if (
            self._commits.next_lsn >= space.refuse_from_lsn
            or self._counters.logged_payload_bytes >= space.refuse_from_bytes
        ) and (self._router.must_store(message) or is_delayed(message.topic)):
            return f"expected room in the store: {space.full or 'the log is full'}"
        if message.retain and message.payload:
            refusal = self._router.retained.refusal(message, self._limits)
            if refusal:
                return refusal
        if self._queues.full > 0 and message.qos > 0:
            return self._queues.refusal(self._router.tree.route(message.topic))
        return ""

    def _take_special(self, connection: Connection, packet: Publish, message: Message) -> bool:
        """Take a message to ``$SYS`` or ``$delayed``; False for any other."""
        if is_sys_topic(message.topic):
            detail = "expected a topic outside $SYS, which only the broker publishes under"
            self._refuse(connection, packet, NOT_AUTHORIZED, detail)
            return True
        if not is_delayed(message.topic):
            return False
        session = connection.session
        assert session is not None
        try:
            if message.payload:
                wait = self._delayed.publish(message, session.publish_wait)
                has_match = True
            else:
                has_match = self._delayed.cancel(message.topic)
                wait = self._delayed.removal_wait
        except Refused as error:
            self._refuse(connection, packet, error.reason_code, error.detail)
            return True
        self._taken(session, connection, packet, wait, has_match)
        return True

    def _taken(
        self, session: Session, connection: Connection, packet: Publish, wait: int, has_match: bool
    ) -> None:
        """A PUBLISH was taken: what follows and its answer wait for batch ``wait``, 0 for none."""
        if wait > self._commits.durable:
            session.publish_wait = wait
            connection.note_input(connection.framer.end - connection.framer.start)
        if packet.qos > 0:
            self._accept(connection, packet, wait, has_match)

    def _accept(self, connection: Connection, packet: Publish, wait: int, has_match: bool) -> None:
        """Answer a QoS 1 or 2 PUBLISH that was taken; before 5.0 the answer is the same for all."""
        has_match = has_match or not connection.is_v5
        packet_id = packet.packet_id
        if packet.qos == 1:
            if has_match:
                connection.send_puback(encode_puback(packet_id), wait)
            else:
                answer = encode(Puback(packet_id, NO_MATCHING_SUBSCRIBERS), MQTT_5_0)
                connection.send_puback(answer, wait)
            return
        session = connection.session
        assert session is not None
        session.received.publish(packet_id)
        connection.received_open += 1
        if session.is_durable:
            self._commits.touch(session)
            wait = self._commits.filling
        if has_match:
            connection.answer(encode_pubrec(packet_id), wait)
        else:
            connection.answer(encode(Pubrec(packet_id, NO_MATCHING_SUBSCRIBERS), MQTT_5_0), wait)

    def refuse_topic(self, connection: Connection, packet: Publish, refusal: Refused) -> None:
        """Refuse a PUBLISH for a topic that is too long or has too many levels.

        Raises ProtocolError if that topic was to get an alias, as later ones would go by that.
        """
        session = connection.session
        assert session is not None
        self._counters.received += 1
        self._counters.received_payload_bytes += len(packet.payload)
        properties = packet.properties
        if properties is not None and properties.topic_alias is not None:
            raise ProtocolError(refusal.reason_code, refusal.detail)
        if packet.qos == 2 and session.received.holds(packet.packet_id):
            # Taken before the bound was what it is now [MQTT-4.3.3-10].
            connection.answer(encode_pubrec(packet.packet_id), self._commits.filling)
            return
        self._refuse(connection, packet, refusal.reason_code, refusal.detail)

    def _refuse(
        self, connection: Connection, packet: Publish, reason_code: int, detail: str
    ) -> None:
        """Say no to one PUBLISH with a reason code that PUBACK and PUBREC may carry.

        Nothing says no to QoS 0: the message is dropped, counted and logged. Before 5.0 nothing
        does at all, and a positive answer would be a lie: raises ProtocolError, which closes.
        Source: [MQTT-4.3.3-9] for the identifier, which is free again; 3.1.1: [MQTT-3.3.5-2].
        """
        self._counters.refused += 1
        if packet.qos == 0:
            text = f"PUBLISH dropped: {detail}"
            self._events.append(Event(WARNING, text, connection.client_id, connection.address))
        elif not connection.is_v5:
            raise ProtocolError(reason_code, detail)
        elif packet.qos == 1:
            puback = Puback(packet.packet_id, reason_code)
            connection.answer(explained(connection, puback, detail), 0)
        else:
            pubrec = Pubrec(packet.packet_id, reason_code)
            connection.answer(explained(connection, pubrec, detail), 0)

    def _deny(self, connection: Connection, packet: Publish) -> None:
        """Drop a PUBLISH that the client's permissions do not allow, and say so where one can.

        Before 5.0 it is acknowledged, or the connection ends. Its identifier is free again in any
        case. Source: 3.1.1 [MQTT-3.3.5-2].
        """
        self._counters.denied_publishes += 1
        self._authorization.tell_publish(connection, packet.topic, packet.retain)
        qos = packet.qos
        detail = "expected a topic that the client may publish to"
        if qos > 0 and connection.is_v5:
            self._refuse(connection, packet, NOT_AUTHORIZED, detail)
            return
        self._counters.refused += 1
        if qos > 0 and self._limits.ends_denied_before_v5:
            raise Refused(NOT_AUTHORIZED, detail)
        if qos == 1:
            connection.send_puback(encode_puback(packet.packet_id), 0)
        elif qos == 2:
            connection.answer(encode_pubrec(packet.packet_id), 0)

    def _take_alias(self, connection: Connection, packet: Publish, properties: Properties) -> None:
        """Put the topic that its alias stands for into a PUBLISH; the alias is not forwarded."""
        alias = properties.topic_alias
        assert alias is not None
        aliases = connection.aliases_in
        if aliases is None:
            aliases = AliasesIn(self._limits.topic_alias_maximum)
            connection.aliases_in = aliases
        packet.topic = aliases.topic(alias, packet.topic)
        properties.topic_alias = None
        packet.property_bytes = b""  # the alias is in there

    def _take_properties(self, message: Message, packet: Publish, properties: Properties) -> None:
        """Move what is forwarded from a PUBLISH into its message."""
        if properties.subscription_identifiers:
            raise ProtocolError(
                PROTOCOL_ERROR, "expected no Subscription Identifier from a client, one came"
            )
        expiry_s = properties.message_expiry_interval
        if expiry_s is not None:
            message.expires_at_ms = self._router.now_ms + expiry_s * 1000
            properties.message_expiry_interval = None
        if has_forwarded(properties):
            message.properties = properties
            if expiry_s is None and packet.property_bytes:
                # All of them go on as they came: they need not be encoded again.
                message.packed_properties = packet.property_bytes


def _goes_on_as_it_came(message: Message, properties: Properties | None) -> bool:
    """Whether a PUBLISH may go out byte for byte, as far as its properties go."""
    return properties is None or message.packed_properties is not None


def _not_supported(packet: Publish, limits: Limits) -> ProtocolError:
    """What ends the connection of a client that passes over CONNACK: MQTT 5.0 §3.2.2.3.4, .5.

    Before 5.0 a client cannot know; closing is the only no there is [MQTT-3.3.5-2 of 3.1.1].
    """
    if packet.qos > limits.maximum_qos:
        return ProtocolError(
            QOS_NOT_SUPPORTED,
            f"expected PUBLISH of QoS {limits.maximum_qos} at most, QoS {packet.qos} came",
        )
    return ProtocolError(RETAIN_NOT_SUPPORTED, "expected PUBLISH with RETAIN 0, 1 came")
