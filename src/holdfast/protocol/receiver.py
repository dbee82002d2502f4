"""The receiving halves of QoS 1 and 2: what was already taken over, and how much is open.

Source: MQTT 5.0 §4.3 and §4.9, MQTT 3.1.1 §4.3.
"""

from typing import Final, final

from holdfast.errors import ProtocolError
from holdfast.protocol.reason_codes import RECEIVE_MAXIMUM_EXCEEDED
from holdfast.protocol.wire import BYTES

RECEIVE_MAXIMUM_DEFAULT: Final = 65_535  # where CONNECT or CONNACK does not state one


@final
class Qos2Receiver:
    """The receiving half of QoS 2, for either end of a connection; it belongs to the session.

    Source: MQTT 5.0 §4.3.3, MQTT 3.1.1 §4.3.3.
    """

    def __init__(self, packed: bytes = b"") -> None:
        """Start with nothing held, or with what ``packed`` once returned."""
        self._held: set[int] = set()  # identifiers answered by PUBREC and not yet released
        assert len(packed) % 2 == 0
        for index in range(0, len(packed), 2):
            self._held.add(packed[index] << 8 | packed[index + 1])

    def __len__(self) -> int:
        """How many identifiers are held."""
        return len(self._held)

    @property
    def held(self) -> list[int]:
        """The identifiers held, in ascending order."""
        return sorted(self._held)

    def holds(self, packet_id: int) -> bool:
        """Whether a PUBLISH with this identifier would be a repeat."""
        return packet_id in self._held

    def publish(self, packet_id: int) -> bool:
        """Take a PUBLISH: True if it is new, False if it repeats one already held.

        PUBREC answers both, and waits until the message and its identifier are durable in one
        commit: apart, a crash between them loses the message or doubles it. One that is going to
        be refused (PUBREC of 0x80 or above) must not be taken, or must be released
        [MQTT-4.3.3-9].
        Source: [MQTT-4.3.3-8], [MQTT-4.3.3-10]; 3.1.1: [MQTT-4.3.3-2].
        """
        if packet_id in self._held:
            return False
        self._held.add(packet_id)
        return True

    def release(self, packet_id: int) -> bool:
        """Take a PUBREL: True if the identifier was held, and is now free for a new message.

        PUBCOMP answers both (in 5.0 with Packet Identifier not found where it was not held), and
        waits until the removal is durable: else a crash takes the next message under this
        identifier for a repeat.
        Source: [MQTT-4.3.3-11], [MQTT-4.3.3-12].
        """
        held = self._held
        if packet_id not in held:
            return False
        held.discard(packet_id)
        if not held:
            held.clear()  # gives the memory back too, which discarding does not
        return True

    def packed(self) -> bytes:
        """The identifiers held as two bytes each, in ascending order, for a store."""
        parts: list[bytes] = []
        for packet_id in sorted(self._held):
            parts.append(BYTES[packet_id >> 8])
            parts.append(BYTES[packet_id & 0xFF])
        return b"".join(parts)


@final
class ReceiveWindow:
    """Counts the open QoS 1 and 2 publishes of a peer against our Receive Maximum.

    It belongs to the connection and starts empty with it: what an earlier connection left open
    does not count. Source: MQTT 5.0 §3.3.4 and §4.9.
    """

    def __init__(self, receive_maximum: int = RECEIVE_MAXIMUM_DEFAULT) -> None:
        self.receive_maximum = receive_maximum
        self.opened = 0

    def open(self) -> None:
        """Count a PUBLISH above QoS 0 that is not the repeat of one still open.

        Raises ProtocolError (Receive Maximum exceeded).
        Source: [MQTT-3.3.4-7], [MQTT-3.3.4-9].
        """
        if self.opened >= self.receive_maximum:
            raise ProtocolError(
                RECEIVE_MAXIMUM_EXCEEDED,
                f"expected at most {self.receive_maximum} open QoS 1 and 2 publishes, another came",
            )
        self.opened += 1

    def close(self) -> None:
        """Count a PUBACK, a PUBCOMP or a PUBREC of 0x80 or above that leaves.

        At 0 it stays 0: a PUBREL may end what an earlier connection opened.
        """
        if self.opened > 0:
            self.opened -= 1
