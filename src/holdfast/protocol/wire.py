"""The data types of the wire: integers, strings and binary data, read and written.

Source: MQTT 5.0 §1.5, MQTT 3.1.1 §1.5.
"""

from typing import Final, final

from mypy_extensions import i64

from holdfast.errors import ProtocolError, UsageError
from holdfast.protocol.reason_codes import MALFORMED_PACKET

STRING_BYTES_MAX: Final = 65_535  # of a UTF-8 string and of binary data
VARINT_MAX: Final = 268_435_455
U32_MAX: Final = 4_294_967_295

BYTES: Final[list[bytes]] = [bytes([n]) for n in range(256)]  # every single byte, ready made


def malformed(detail: str) -> ProtocolError:
    """The error for a packet that cannot be read as the standard writes it."""
    return ProtocolError(MALFORMED_PACKET, detail)


def text_of(raw: bytes, where: str) -> str:
    """The text of a UTF-8 string's bytes; ``where`` names it in the error.

    Raises ProtocolError (Malformed Packet) unless it is well-formed UTF-8 without surrogates and
    U+0000. U+FEFF is an ordinary character [MQTT-1.5.4-3].
    Source: [MQTT-1.5.4-1], [MQTT-1.5.4-2].
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise malformed(f"expected well-formed UTF-8 in a string of {where}") from None
    if "\0" in text:
        raise malformed(f"expected no U+0000 in a string of {where}")
    return text


@final
class Reader:
    """Reads one packet's body from ``position`` to ``end``; running out of bytes is malformed."""

    def __init__(self, buffer: bytes, position: i64, end: i64, name: str) -> None:
        self.buffer = buffer
        self.position: i64 = position
        self.end: i64 = end
        self.name = name  # of the packet, for the errors

    @property
    def left(self) -> i64:
        """How many bytes are still to be read."""
        return self.end - self.position

    def cut_short(self, what: str) -> ProtocolError:
        """The error for a packet that ends inside ``what``."""
        return malformed(f"expected {what}, {self.name} ends before it is complete")

    def byte(self) -> i64:
        """The next byte."""
        position = self.position
        if position >= self.end:
            raise self.cut_short("one more byte")
        self.position = position + 1
        return self.buffer[position]

    def u16(self) -> i64:
        """The next Two Byte Integer."""
        position = self.position
        if position + 2 > self.end:
            raise self.cut_short("a Two Byte Integer")
        self.position = position + 2
        high: i64 = self.buffer[position]
        low: i64 = self.buffer[position + 1]
        return (high << 8) | low

    def u32(self) -> i64:
        """The next Four Byte Integer."""
        if self.position + 4 > self.end:
            raise self.cut_short("a Four Byte Integer")
        high: i64 = self.u16()
        return (high << 16) | self.u16()

    def varint(self) -> i64:
        """The next Variable Byte Integer, in the fewest bytes that hold it [MQTT-1.5.5-1]."""
        value: i64 = 0
        shift: i64 = 0
        while shift <= 21:
            if self.position >= self.end:
                raise self.cut_short("a Variable Byte Integer")
            byte: i64 = self.buffer[self.position]
            self.position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if byte == 0 and shift > 0:
                    raise malformed(
                        f"expected the shortest Variable Byte Integer in {self.name}, one is padded"
                    )
                return value
            shift += 7
        raise malformed(f"expected a Variable Byte Integer of at most 4 bytes in {self.name}")

    def binary(self) -> bytes:
        """The next Binary Data."""
        size: i64 = self.u16()
        position = self.position
        if position + size > self.end:
            raise self.cut_short(f"{size} bytes of a string or binary data")
        self.position = position + size
        return self.buffer[position : position + size]

    def string(self) -> str:
        """The next UTF-8 Encoded String."""
        return text_of(self.binary(), self.name)

    def finish(self) -> None:
        """Assure that everything was read."""
        if self.position != self.end:
            raise malformed(
                f"expected the end of {self.name}, {self.end - self.position} more bytes came"
            )


def u16_bytes(value: i64) -> bytes:
    """A Two Byte Integer."""
    if value < 0 or value > 65_535:
        raise UsageError(f"expected a Two Byte Integer, got {value}")
    return b"%b%b" % (BYTES[value >> 8], BYTES[value & 0xFF])


def u32_bytes(value: i64) -> bytes:
    """A Four Byte Integer."""
    if value < 0 or value > U32_MAX:
        raise UsageError(f"expected a Four Byte Integer, got {value}")
    return b"%b%b%b%b" % (
        BYTES[value >> 24],
        BYTES[(value >> 16) & 0xFF],
        BYTES[(value >> 8) & 0xFF],
        BYTES[value & 0xFF],
    )


def varint_bytes(value: i64) -> bytes:
    """A Variable Byte Integer in the fewest bytes that hold it. Source: [MQTT-1.5.5-1]."""
    if 0 <= value < 0x80:
        return BYTES[value]
    if value < 0 or value > VARINT_MAX:
        raise UsageError(f"expected a Variable Byte Integer of at most {VARINT_MAX}, got {value}")
    low = BYTES[(value & 0x7F) | 0x80]
    if value < 0x4000:
        return b"%b%b" % (low, BYTES[value >> 7])
    return b"%b%b" % (low, _high_varint_bytes(value >> 7))


def _high_varint_bytes(value: i64) -> bytes:
    """What follows the first byte of a Variable Byte Integer of three or four bytes."""
    low = BYTES[(value & 0x7F) | 0x80]
    if value < 0x4000:
        return b"%b%b" % (low, BYTES[value >> 7])
    return b"%b%b%b" % (low, BYTES[((value >> 7) & 0x7F) | 0x80], BYTES[value >> 14])


def utf8_of(text: str) -> bytes:
    """The bytes of a UTF-8 Encoded String without its length.

    Raises UsageError for what the wire cannot carry: U+0000, a lone surrogate, or more than
    65,535 bytes.
    """
    try:
        raw = text.encode("utf-8")
    except UnicodeEncodeError:
        raise UsageError("expected a string without lone surrogates") from None
    if len(raw) > STRING_BYTES_MAX:
        raise UsageError(f"expected a string of at most {STRING_BYTES_MAX} bytes, got {len(raw)}")
    if "\0" in text:
        raise UsageError("expected a string without U+0000")
    return raw


def string_bytes(text: str) -> bytes:
    """A UTF-8 Encoded String with its length."""
    raw = utf8_of(text)
    size: i64 = len(raw)
    return b"%b%b%b" % (BYTES[size >> 8], BYTES[size & 0xFF], raw)


def binary_bytes(data: bytes) -> bytes:
    """Binary Data with its length."""
    size: i64 = len(data)
    if size > STRING_BYTES_MAX:
        raise UsageError(f"expected at most {STRING_BYTES_MAX} bytes of data, got {size}")
    return b"%b%b%b" % (BYTES[size >> 8], BYTES[size & 0xFF], data)
