"""The receiving half of QoS 2: what was already taken over.

Source: MQTT 5.0 §4.3.3, MQTT 3.1.1 §4.3.3.
"""

from typing import final

from holdfast.protocol.wire import BYTES


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
