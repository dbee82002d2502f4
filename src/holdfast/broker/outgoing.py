"""The PUBLISH packets of one message: each form is encoded once, however many receive it."""

from typing import Final, final

from holdfast.broker.connection import Connection
from holdfast.broker.session import Subscription
from holdfast.message import Message, Properties
from holdfast.protocol.encode import encode, packet_id_bytes, publish_parts
from holdfast.protocol.packets import Publish
from holdfast.protocol.properties import forwarded_properties

MESSAGE_EXPIRY_S_MAX: Final = 0xFFFF_FFFF  # what a Message Expiry Interval can say


@final
class Outgoing:
    """One message on its way to subscribers, at ``now_ms``.

    ``wire`` is the QoS 0 PUBLISH as it came in, if it may go out as it is to connections of the
    same version (``wire_is_v5``).
    """

    def __init__(self, message: Message, now_ms: int, wire: bytes | None, wire_is_v5: bool) -> None:
        self.message = message
        self._now_ms = now_ms
        self._qos0_v4 = wire if not wire_is_v5 else None
        self._qos0_v5 = wire if wire_is_v5 else None
        self._head1_v4: bytes | None = None
        self._head2_v4: bytes | None = None
        self._tail_v4: bytes = b""
        self._head1_v5: bytes | None = None
        self._head2_v5: bytes | None = None
        self._tail_v5: bytes = b""

    def begin(self, message: Message, now_ms: int, wire: bytes | None, wire_is_v5: bool) -> None:
        """Start again with another message."""
        self.message = message
        self._now_ms = now_ms
        self._qos0_v4 = wire if not wire_is_v5 else None
        self._qos0_v5 = wire if wire_is_v5 else None
        self._head1_v4 = None
        self._head2_v4 = None
        self._head1_v5 = None
        self._head2_v5 = None

    def packet_to(
        self,
        connection: Connection,
        subscription: Subscription | None,
        qos: int,
        retain: bool,
        packet_id: int,
    ) -> bytes:
        """The PUBLISH for a connection, with a Topic Alias if its client takes them.

        To be sent there at once if it is not too large: a new alias counts as sent.
        """
        aliases = connection.aliases_out
        if aliases is not None:
            topic = self.message.topic
            known = aliases.alias(topic)
            alias = known if known > 0 else aliases.next_alias
            if alias > 0:
                data = self._aliased(subscription, qos, retain, packet_id, alias, known > 0)
                # An alias that leads over the Maximum Packet Size is left out.
                if not connection.is_too_large(data):
                    if known == 0:
                        aliases.put(topic)
                    return data
        return self.packet(subscription, connection.is_v5, qos, retain, False, packet_id)

    def packet(
        self,
        subscription: Subscription | None,
        is_v5: bool,
        qos: int,
        retain: bool,
        dup: bool,
        packet_id: int,
    ) -> bytes:
        """The PUBLISH for one receiver; only the packet identifier differs between most."""
        if retain or dup or (is_v5 and subscription is not None and subscription.identifiers):
            return self._single(subscription, is_v5, qos, retain, dup, packet_id)
        if qos == 0:
            whole = self._qos0_v5 if is_v5 else self._qos0_v4
            if whole is None:
                whole = self._single(None, is_v5, 0, False, False, 0)
                if is_v5:
                    self._qos0_v5 = whole
                else:
                    self._qos0_v4 = whole
            return whole
        if is_v5:
            head = self._head1_v5 if qos == 1 else self._head2_v5
        else:
            head = self._head1_v4 if qos == 1 else self._head2_v4
        if head is None:
            head = self._encode_parts(is_v5, qos)
        return head + packet_id_bytes(packet_id) + (self._tail_v5 if is_v5 else self._tail_v4)

    def _encode_parts(self, is_v5: bool, qos: int) -> bytes:
        message = self.message
        properties: Properties | None = None
        packed: bytes | None = None
        if is_v5:
            properties = self._properties(None)
            if properties is message.properties:
                packed = message.packed_properties
        head, tail = publish_parts(
            message.topic, message.payload, qos, False, False, 5 if is_v5 else 4, properties, packed
        )
        if is_v5:
            self._tail_v5 = tail
            if qos == 1:
                self._head1_v5 = head
            else:
                self._head2_v5 = head
        else:
            self._tail_v4 = tail
            if qos == 1:
                self._head1_v4 = head
            else:
                self._head2_v4 = head
        return head

    def _single(
        self,
        subscription: Subscription | None,
        is_v5: bool,
        qos: int,
        retain: bool,
        dup: bool,
        packet_id: int,
    ) -> bytes:
        message = self.message
        properties = self._properties(subscription) if is_v5 else None
        packet = Publish(message.topic, message.payload, qos, retain, dup, packet_id, properties)
        return encode(packet, 5 if is_v5 else 4)

    def _aliased(
        self,
        subscription: Subscription | None,
        qos: int,
        retain: bool,
        packet_id: int,
        alias: int,
        is_known: bool,
    ) -> bytes:
        """A packet of one connection alone. Source: [MQTT-3.3.2-11]."""
        message = self.message
        properties = self._properties(subscription)
        if properties is None or properties is message.properties:
            properties = forwarded_properties(properties) or Properties()
        properties.topic_alias = alias
        topic = "" if is_known else message.topic
        packet = Publish(topic, message.payload, qos, retain, False, packet_id, properties)
        return encode(packet, 5)

    def _properties(self, subscription: Subscription | None) -> Properties | None:
        """What goes out: as received, with what is left of the expiry and the identifiers.

        Source: [MQTT-3.3.2-6], [MQTT-3.3.4-3].
        """
        message = self.message
        own = message.properties
        identifiers = subscription.identifiers if subscription is not None else None
        if message.expires_at_ms == 0 and identifiers is None:
            return own
        properties = forwarded_properties(own)
        if properties is None:
            properties = Properties()
        if message.expires_at_ms != 0:
            left_ms = message.expires_at_ms - self._now_ms
            left_s = (left_ms + 999) // 1000 if left_ms > 0 else 0
            # A clock that was set back leaves more than there was, which may not fit the field.
            properties.message_expiry_interval = min(left_s, MESSAGE_EXPIRY_S_MAX)
        if identifiers is not None:
            properties.subscription_identifiers = identifiers
        return properties
