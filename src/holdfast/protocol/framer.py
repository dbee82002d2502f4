"""Cuts the bytes of a connection into complete packets, without copying them.

Source: MQTT 5.0 §2.1.4, MQTT 3.1.1 §2.2.3.
"""

from typing import Final, final

from mypy_extensions import i64

from holdfast.errors import ProtocolError
from holdfast.protocol.reason_codes import MALFORMED_PACKET, PACKET_TOO_LARGE

REMAINING_LENGTH_WIDTH_MAX: Final = 4  # bytes
PACKET_BYTES_MAX: Final = 268_435_460  # the largest packet of the standard, fixed header included

# Smaller chunks are put together while a packet is awaited, so that a peer who sends single bytes
# cannot make us keep an object for each: one costs about 35 bytes more than it holds.
MERGED_CHUNK_BYTES_MAX: Final = 4096


@final
class Framer:
    """One connection's input, packet by packet.

    After ``next_frame`` has answered True, ``buffer[start:end]`` is one complete packet and
    ``body`` the place of its first byte behind the fixed header. ``buffer`` is immutable and may
    be kept; these attributes change with the next call. ``packet_bytes_max`` counts the fixed
    header too and may be changed between packets. After an error there is no next packet: the
    place where it would begin is not known.
    """

    def __init__(self, packet_bytes_max: int) -> None:
        self.packet_bytes_max: i64 = packet_bytes_max
        self.buffer: bytes = b""
        self.start: i64 = 0
        self.body: i64 = 0
        self.end: i64 = 0  # and the start of what comes next
        self.frames: i64 = 0  # handed out so far
        # What came behind ``buffer``; the first chunk counts from ``_queued_start`` on.
        self._queued: list[bytes] = []
        self._queued_start: i64 = 0
        self._queued_bytes: i64 = 0
        self._needed: i64 = 0  # below this many bytes in hand there is no complete packet

    @property
    def buffered(self) -> int:
        """How many bytes are held that belong to no packet handed out so far."""
        return len(self.buffer) - self.end + self._queued_bytes

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the connection. They are kept, not copied."""
        queued = self._queued
        if not queued:
            if self.end == len(self.buffer):
                self.buffer = data
                self.start = 0
                self.body = 0
                self.end = 0
                return
            queued.append(data)
        elif len(queued[-1]) + len(data) <= MERGED_CHUNK_BYTES_MAX:
            queued[-1] += data
        else:
            queued.append(data)
        self._queued_bytes += len(data)

    def next_frame(self) -> bool:
        """Move to the next packet: True if it is there, False if more input is needed.

        Raises ProtocolError: Malformed Packet for a Remaining Length of five bytes or with
        padding, and Packet too large as soon as the fixed header announces more than
        ``packet_bytes_max``, before the rest of the packet is there.
        Source: [MQTT-1.5.5-1].
        """
        buffer = self.buffer
        start: i64 = self.end
        size: i64 = len(buffer)
        if start + 1 < size:
            length: i64 = buffer[start + 1]
            end: i64 = start + 2 + length
            if length < 0x80 and end <= size and length + 2 <= self.packet_bytes_max:
                self.start = start
                self.body = start + 2
                self.end = end
                self.frames += 1
                return True
        return self._next_frame_elsewhere()

    def put_back(self) -> None:
        """Hand out the same packet once more: the next call of ``next_frame`` gives it."""
        self.end = self.start
        self.frames -= 1

    def _next_frame_elsewhere(self) -> bool:
        """``next_frame`` for packets of 128 bytes and more, and for all that is not in ``buffer``.

        Each byte is copied at most twice, however many chunks a packet comes in.
        """
        if self.end == len(self.buffer) and len(self._queued) == 1:
            self._take_queued(self._queued[0], self._queued_start)
        held: i64 = len(self.buffer) - self.end
        total: i64 = held + self._queued_bytes
        if total < self._needed:
            return False
        header_bytes: i64 = self._header_bytes()
        if header_bytes == 0 and self._queued:
            self._take_queued(self._join(self._queued), 0)
            held = total
            header_bytes = self._header_bytes()
        if header_bytes == 0:
            return False
        packet_bytes: i64 = header_bytes + self._remaining_length(header_bytes)
        if packet_bytes > self.packet_bytes_max:
            raise ProtocolError(
                PACKET_TOO_LARGE,
                f"expected a packet of at most {self.packet_bytes_max} bytes, "
                f"a fixed header announces {packet_bytes}",
            )
        if packet_bytes > total:
            self._needed = packet_bytes
            return False
        if packet_bytes > held:
            self._complete(packet_bytes, total)
        self._needed = 0
        self.start = self.end
        self.body = self.start + header_bytes
        self.end = self.start + packet_bytes
        self.frames += 1
        return True

    def _take_queued(self, buffer: bytes, start: i64) -> None:
        """Go on in ``buffer``, which holds all that was queued."""
        self.buffer = buffer
        self.end = start
        self._queued.clear()
        self._queued_start = 0
        self._queued_bytes = 0

    def _join(self, chunks: list[bytes]) -> bytes:
        """The rest of the buffer and these chunks, the first of them from its start on."""
        parts = [self.buffer[self.end :], chunks[0][self._queued_start :]]
        parts.extend(chunks[1:])
        return b"".join(parts)

    def _complete(self, packet_bytes: i64, total: i64) -> None:
        """Bring the packet that begins in the buffer together there.

        Usually the newest chunk completes it. Only the packet is copied then, not the chunk with
        the thousands of packets that may follow in it.
        """
        queued = self._queued
        last = queued[-1]
        last_start: i64 = self._queued_start if len(queued) == 1 else 0
        missing: i64 = packet_bytes - (total - (len(last) - last_start))
        if missing <= 0:
            self._take_queued(self._join(queued), 0)
            return
        stop: i64 = last_start + missing
        queued[-1] = last[:stop]
        self._take_queued(self._join(queued), 0)
        if stop < len(last):
            queued.append(last)
            self._queued_start = stop
            self._queued_bytes = len(last) - stop

    def _header_bytes(self) -> i64:
        """The size of the fixed header in the buffer, 0 while it is not complete."""
        buffer = self.buffer
        size: i64 = len(buffer)
        position: i64 = self.end + 1
        width: i64 = 1
        while position < size:
            byte: i64 = buffer[position]
            if byte < 0x80:
                if byte == 0 and width > 1:
                    raise ProtocolError(
                        MALFORMED_PACKET,
                        f"expected the shortest Remaining Length, it is padded to {width} bytes",
                    )
                return width + 1
            if width == REMAINING_LENGTH_WIDTH_MAX:
                raise ProtocolError(
                    MALFORMED_PACKET,
                    f"expected a Remaining Length of at most {width} bytes, more follow",
                )
            position += 1
            width += 1
        return 0

    def _remaining_length(self, header_bytes: i64) -> i64:
        """The Remaining Length of a complete fixed header."""
        value: i64 = 0
        position: i64 = self.end + header_bytes - 1
        while position > self.end:
            byte: i64 = self.buffer[position]
            value = (value << 7) | (byte & 0x7F)
            position -= 1
        return value
