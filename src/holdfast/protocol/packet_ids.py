"""The Packet Identifiers of one session's own packets: which are in use, which comes next.

Source: MQTT 5.0 §2.2.1, [MQTT-2.2.1-3], [MQTT-2.2.1-4].
"""

from typing import Final, final

PACKET_ID_MAX: Final = 65_535


@final
class PacketIds:
    """Packet Identifiers 1 to 65,535, given out in a circle so that none comes back soon.

    Up to half of them in use, ``allocate`` looks at two on average; idle, the object holds an
    empty set.
    """

    def __init__(self) -> None:
        self._used: set[int] = set()
        self._last = 0  # the one that was given out last

    def __len__(self) -> int:
        """How many are in use."""
        return len(self._used)

    def __contains__(self, packet_id: object) -> bool:
        """Whether one is in use."""
        return packet_id in self._used

    def allocate(self) -> int:
        """Take the next free identifier; 0 if all are in use."""
        used = self._used
        count = len(used)
        if count >= PACKET_ID_MAX:
            return 0
        packet_id = self._last
        # Adding at once and looking at the count halves the cost of asking first.
        while len(used) == count:
            packet_id = 1 if packet_id >= PACKET_ID_MAX else packet_id + 1
            used.add(packet_id)
        self._last = packet_id
        return packet_id

    def take(self, packet_id: int) -> bool:
        """Mark one as in use, after a restart for instance; False if it already was."""
        assert 0 < packet_id <= PACKET_ID_MAX
        count = len(self._used)
        self._used.add(packet_id)
        return len(self._used) > count

    def release(self, packet_id: int) -> bool:
        """Give one back; False if it was not in use."""
        used = self._used
        count = len(used)
        used.discard(packet_id)
        if len(used) == count:
            return False
        if count == 1:
            used.clear()  # gives the memory back too, which discarding does not
        return True
