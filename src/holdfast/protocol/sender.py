"""The sending half of QoS 1 and QoS 2, for either end of a connection.

It knows which packet identifiers are in flight, at which stage, and for which message; the caller
owns the messages and writes the packets. Source: MQTT 5.0 §4.3, §4.4.
"""

from typing import Final, final

SENT_QOS_1: Final = 0  # PUBLISH at QoS 1 was sent, PUBACK is awaited
SENT_QOS_2: Final = 1  # PUBLISH at QoS 2 was sent, PUBREC is awaited
RELEASED: Final = 2  # PUBREL was sent, PUBCOMP is awaited; the message is needed no longer

PACKET_ID_MAX: Final = 65_535


@final
class Sender:
    """Packet identifiers in flight, in the order of their first sending.

    ``in_flight`` maps a packet identifier to ``reference * 4 + stage``. The reference is the
    caller's: the lsn of the message, or 0 once (or while) there is none to go back to.
    """

    def __init__(self) -> None:
        self.in_flight: dict[int, int] = {}
        self._next_id = 1

    def publish(self, reference: int, qos: int) -> int:
        """Take a packet identifier that is not in use for a PUBLISH at ``qos`` 1 or 2.

        At most PACKET_ID_MAX may be in flight; the caller's window is smaller.
        Source: [MQTT-2.2.1-4].
        """
        in_flight = self.in_flight
        assert len(in_flight) < PACKET_ID_MAX
        packet_id = self._next_id
        while packet_id in in_flight:
            packet_id = packet_id + 1 if packet_id < PACKET_ID_MAX else 1
        self._next_id = packet_id + 1 if packet_id < PACKET_ID_MAX else 1
        in_flight[packet_id] = reference * 4 + (SENT_QOS_1 if qos == 1 else SENT_QOS_2)
        return packet_id

    def publish_under(self, packet_id: int, reference: int, qos: int) -> bool:
        """Take this packet identifier for a PUBLISH at ``qos`` 1 or 2; False if it is in use."""
        in_flight = self.in_flight
        if packet_id in in_flight:
            return False
        in_flight[packet_id] = reference * 4 + (SENT_QOS_1 if qos == 1 else SENT_QOS_2)
        return True

    def puback(self, packet_id: int) -> bool:
        """Take a PUBACK: True if it ends an exchange, False if nothing waited for it."""
        value = self.in_flight.get(packet_id, -1)
        if value < 0 or value & 3 != SENT_QOS_1:
            return False
        del self.in_flight[packet_id]
        return True

    def pubrec(self, packet_id: int, is_success: bool) -> bool:
        """Take a PUBREC: True if PUBREL answers it with success, once that fact is durable.

        False: it refused the message (the exchange is over), or no PUBLISH or PUBREL with this
        identifier is in flight. A repeated PUBREC is answered like the first.
        Source: [MQTT-4.3.3-4], [MQTT-4.4.0-2].
        """
        value = self.in_flight.get(packet_id, -1)
        if value < 0 or value & 3 == SENT_QOS_1:
            return False
        if not is_success:
            if value & 3 == SENT_QOS_2:
                del self.in_flight[packet_id]
            return False
        # The message itself is dropped here: after PUBREL it is never sent again [MQTT-4.3.3-6].
        self.in_flight[packet_id] = RELEASED
        return True

    def pubcomp(self, packet_id: int) -> bool:
        """Take a PUBCOMP: True if it ends an exchange, False if nothing waited for it."""
        if self.in_flight.get(packet_id, -1) != RELEASED:
            return False
        del self.in_flight[packet_id]
        return True

    def restore(self, in_flight: dict[int, int]) -> None:
        """Go on from a stored state; new identifiers start behind the newest stored one."""
        self.in_flight = in_flight
        for packet_id in in_flight:
            self._next_id = packet_id + 1 if packet_id < PACKET_ID_MAX else 1

    def awaits_puback(self, packet_id: int) -> bool:
        """Whether a QoS 1 message is in flight under this identifier."""
        return self.in_flight.get(packet_id, -1) & 3 == SENT_QOS_1

    def reference(self, packet_id: int) -> int:
        """The reference of an identifier that is in flight."""
        return self.in_flight[packet_id] >> 2

    def reference_min(self) -> int:
        """The smallest reference in flight, 0 if there is none."""
        smallest = 0
        for value in self.in_flight.values():
            reference = value >> 2
            if reference > 0 and (smallest == 0 or reference < smallest):
                smallest = reference
        return smallest
