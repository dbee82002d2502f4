"""The receiving half of a client's session: what it was given, and has to acknowledge.

Source: MQTT 5.0 §4.3, §4.4, §4.6, §4.9; MQTT 3.1.1 §4.3, §4.4, §4.6.
"""

from collections.abc import Awaitable, Callable
from typing import Final, final

from mypy_extensions import i64

from holdfast.client.changes import Changes
from holdfast.client.incoming import ACKNOWLEDGED, HANDED, WAITING, AckOrder, ReceivedMessage
from holdfast.client.records import ClearIncoming, FreeIncoming, HoldIncoming, SetNumbers
from holdfast.errors import ProtocolError
from holdfast.protocol.encode import encode, encode_puback, encode_pubcomp, encode_pubrec
from holdfast.protocol.packets import MQTT_5_0, Pubcomp, Publish
from holdfast.protocol.reason_codes import PACKET_IDENTIFIER_NOT_FOUND, RECEIVE_MAXIMUM_EXCEEDED
from holdfast.protocol.receiver import Qos2Receiver

IDENTIFIERS: Final = 65_535


@final
class Receiving:
    """What came and is not acknowledged, and the QoS 2 identifiers that are not free again.

    With ``is_durable`` PUBREC and PUBCOMP wait for the records of what they promise. With
    ``manual_ack`` a message is acknowledged by ``acknowledge``; else ``hand_over`` does it at QoS
    2, so that a crash cannot make the application process it twice. ``arrived`` are the messages
    that the application may have, since it was last emptied.
    """

    def __init__(
        self,
        changes: Changes,
        is_durable: bool,
        manual_ack: bool,
        acknowledge: Callable[[ReceivedMessage], Awaitable[None]],
    ) -> None:
        self.arrived: list[ReceivedMessage] = []
        self.next_delivery_id = 1
        self.is_clearing = False
        self.acknowledged: i64 = 0  # how many PUBACKs and PUBRECs were sent
        self._changes = changes
        self._is_durable = is_durable
        self._manual_ack = manual_ack
        self._acknowledge = acknowledge
        self._receiver = Qos2Receiver()  # answered, or about to be answered, by PUBREC
        self._unacknowledged: dict[int, ReceivedMessage] = {}  # by packet identifier
        self._delivery_ids: dict[int, int] = {}  # of those that are not handed over
        self._pubacks = AckOrder()
        self._pubrecs = AckOrder()
        self._exchanges: set[int] = set()  # of QoS 2, over this connection, without PUBCOMP
        self._connection = 0
        self._version = MQTT_5_0
        self._receive_maximum = 0
        self.is_overrun = False  # the server does not keep to Receive Maximum

    def restore(self, packet_id: int, delivery_id: int, is_handed: bool) -> None:
        """Take over what an earlier process has kept of an identifier."""
        if is_handed:
            self._receiver.publish(packet_id)
        else:
            self._delivery_ids[packet_id] = delivery_id

    # --- connections

    def connected(
        self, connection: int, version: int, session_present: bool, receive_maximum: int
    ) -> None:
        """Go on over a new connection. Without a session at the server all identifiers are void.

        Nothing may be sent before that is durable, see ``is_clearing``: else a crash brings them
        back, and messages of the new session are taken for repeats.
        """
        self._connection = connection
        self._version = version
        self._receive_maximum = receive_maximum
        self.is_overrun = False
        if session_present:
            return
        for message in self._unacknowledged.values():
            message.connection = 0  # the server does not wait for its acknowledgement any more
        self._unacknowledged.clear()
        if self._delivery_ids or len(self._receiver) > 0:
            self.clear()

    def clear(self) -> None:
        """No identifier means anything any more."""
        self._delivery_ids.clear()
        self._receiver = Qos2Receiver()
        if self._is_durable:
            self._changes.records.append(ClearIncoming())
            self._changes.is_clearing = True
            self._changes.is_urgent = True
            self.is_clearing = True

    def disconnected(self) -> None:
        """The connection is gone, and with it the order of what it would have been answered."""
        self._connection = 0
        self._pubacks.clear()
        self._pubrecs.clear()
        self._exchanges.clear()

    @property
    def is_full(self) -> bool:
        """Whether the server may send no more of QoS 1 and 2 before some is acknowledged."""
        return len(self._pubacks) + len(self._pubrecs) >= self._receive_maximum > 0

    # --- what the server sends

    def publish(self, packet: Publish) -> None:
        """Take a PUBLISH, whose topic is there.

        One more than the server may have unacknowledged [MQTT-3.3.4-9] is noted in
        ``is_overrun``, and taken: Mosquitto 2.0 sends two for each PUBACK while it has some
        queued, and would never get through if each time the connection ended. Raises
        ProtocolError if it is one more than there are identifiers.
        """
        if packet.qos == 0:
            self.arrived.append(ReceivedMessage(packet, self._acknowledge))
            return
        if packet.qos == 1:
            self._publish_qos_1(packet)
        else:
            self._exchanges.add(packet.packet_id)
            self._publish_qos_2(packet)
        exchanges = max(len(self._exchanges), len(self._pubrecs))
        unacknowledged = len(self._pubacks) + exchanges
        if unacknowledged > self._receive_maximum:
            self.is_overrun = True
            if unacknowledged > IDENTIFIERS:
                raise ProtocolError(
                    RECEIVE_MAXIMUM_EXCEEDED,
                    f"expected at most {IDENTIFIERS} unacknowledged messages, one more came",
                )

    def pubrel(self, packet_id: int, out: list[bytes]) -> None:
        """Take a PUBREL; PUBCOMP answers it, once it is durable that the identifier is free.

        Source: [MQTT-4.3.3-11].
        """
        self._exchanges.discard(packet_id)
        is_known = self._receiver.release(packet_id)
        if is_known or self._version < MQTT_5_0:
            answer = encode_pubcomp(packet_id)
        else:
            answer = encode(Pubcomp(packet_id, PACKET_IDENTIFIER_NOT_FOUND), self._version)
        if is_known and self._is_durable:
            self._changes.records.append(FreeIncoming(packet_id))
            self._changes.send(answer, self._connection)
        elif self._is_durable:
            # Behind the one that a commit under way may still hold back.
            self._changes.send(answer, self._connection)
        else:
            out.append(answer)

    # --- what the application does

    def hand_over(self, message: ReceivedMessage) -> bool:
        """The application is about to get a message; False: not before that is durable.

        At QoS 2 without ``manual_ack`` this is its acknowledgement.
        """
        if message.state != WAITING:
            return message.state == ACKNOWLEDGED or self._manual_ack or message.qos != 2
        message.state = HANDED
        if message.qos != 2 or self._manual_ack:
            return True
        return self._mark(message)

    def acknowledge(self, message: ReceivedMessage) -> bool:
        """The application is done with a message; False: that has to be durable before PUBREC.

        PUBACK and PUBREC leave with ``flush``, in the order of the messages.
        """
        if message.state == ACKNOWLEDGED or message.qos == 0:
            message.state = ACKNOWLEDGED
            return True
        if message.qos == 1:
            message.state = ACKNOWLEDGED
            return True
        if self._receiver.holds(message.packet_id):
            return False  # under way
        return self._mark(message)

    def committed(self, batch: Changes) -> None:
        """This batch is durable."""
        for message in batch.marked:
            message.state = ACKNOWLEDGED
        self.arrived.extend(batch.arrived)
        if batch.is_clearing:
            self.is_clearing = self._changes.is_clearing

    def flush(self, out: list[bytes]) -> None:
        """Append to ``out`` the acknowledgements whose turn it is."""
        if self._connection == 0:
            return
        pubacks = self._pubacks
        message = pubacks.next_done()
        while message is not None:
            known = self._unacknowledged.get(message.packet_id)
            if known is message:
                del self._unacknowledged[message.packet_id]
            out.append(encode_puback(message.packet_id))
            self.acknowledged += 1
            message = pubacks.next_done()
        message = self._pubrecs.next_done()
        while message is not None:
            out.append(encode_pubrec(message.packet_id))
            self.acknowledged += 1
            message = self._pubrecs.next_done()

    # --- inner

    def _publish_qos_1(self, packet: Publish) -> None:
        known = self._unacknowledged.get(packet.packet_id)
        if known is not None and packet.dup and _is_same(known, packet):
            if known.connection != self._connection:
                # Sent again, and still here: it is not given to the application twice.
                known.connection = self._connection
                self._pubacks.came(known)
            return
        message = ReceivedMessage(packet, self._acknowledge)
        message.connection = self._connection
        self._unacknowledged[packet.packet_id] = message
        self._pubacks.came(message)
        self.arrived.append(message)

    def _publish_qos_2(self, packet: Publish) -> None:
        """Source: [MQTT-4.3.3-10]."""
        packet_id = packet.packet_id
        known = self._unacknowledged.get(packet_id)
        if known is not None and known.qos == 2:
            if known.connection != self._connection:
                known.connection = self._connection
                self._pubrecs.came(known)
            return
        message = ReceivedMessage(packet, self._acknowledge)
        message.connection = self._connection
        self._pubrecs.came(message)
        if self._receiver.holds(packet_id):
            self._answer(message)
            return
        self._unacknowledged[packet_id] = message
        delivery_id = self._delivery_ids.get(packet_id, 0)
        if delivery_id == 0:
            delivery_id = self.next_delivery_id
            self.next_delivery_id += 1
            self._delivery_ids[packet_id] = delivery_id
            if self._is_durable and self._manual_ack:
                self._changes.records.append(HoldIncoming(packet_id, delivery_id, False))
        message.delivery_id = delivery_id
        if self._is_durable and self._manual_ack:
            # Behind all that came before, though of an earlier process' number all is durable.
            self._changes.arrived.append(message)
            self._changes.is_urgent = True
        else:
            self.arrived.append(message)

    def _mark(self, message: ReceivedMessage) -> bool:
        """Hold the identifier: from here on the message does not reach the application again."""
        packet_id = message.packet_id
        if self._unacknowledged.get(packet_id) is not message:
            # Of a session that the server has ended. Its number is not used again all the same.
            if self._is_durable and not self._manual_ack:
                self._changes.records.append(SetNumbers(1, message.delivery_id + 1))
            return self._answer(message)
        del self._unacknowledged[packet_id]
        del self._delivery_ids[packet_id]
        is_new = self._receiver.publish(packet_id)
        assert is_new
        if self._is_durable:
            self._changes.records.append(HoldIncoming(packet_id, message.delivery_id, True))
        return self._answer(message)

    def _answer(self, message: ReceivedMessage) -> bool:
        """Let PUBREC go out, once all is durable that came before; True if that is now."""
        if not self._is_durable:
            message.state = ACKNOWLEDGED
            return True
        self._changes.marked.append(message)
        self._changes.is_urgent = True
        return False


def _is_same(message: ReceivedMessage, packet: Publish) -> bool:
    """Whether a message that came again is the one that is here under its identifier."""
    return (
        message.qos == packet.qos
        and message.topic == packet.topic
        and message.payload == packet.payload
    )
