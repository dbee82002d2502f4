"""WebSocket frames, for either end: MQTT out of what the peer sends, and into what it is sent.

A frame's payload is handed on as it comes and no message is put together: MQTT does not care where
frames end, and a frame of any announced size costs no memory. What a client sends is masked, with
a key that the caller draws anew for each frame; what a server sends is not. ``docs/internals/
websocket.md`` says why this is not left to a library.

Source: RFC 6455 §5 and §7; MQTT 5.0 §6.0 and MQTT 3.1.1 §6.0.
"""

from typing import Final, final

from mypy_extensions import i64

# Close codes.
NORMAL_CLOSURE: Final = 1000
GOING_AWAY: Final = 1001
FRAME_ERROR: Final = 1002
UNSUPPORTED_DATA: Final = 1003
INVALID_TEXT: Final = 1007
POLICY_VIOLATION: Final = 1008
NO_CODE: Final = 1005  # stands for a close frame without a code, and is never sent

CONTROL_BYTES_MAX: Final = 125  # payload of a control frame

_CONTINUATION: Final = 0x0
_TEXT: Final = 0x1
_BINARY: Final = 0x2
_CLOSE: Final = 0x8
_PING: Final = 0x9
_PONG: Final = 0xA

_FIN: Final = 0x80
_RESERVED: Final = 0x70
_MASKED: Final = 0x80
_LENGTH_16: Final = 126  # the length is in the two bytes behind
_LENGTH_64: Final = 127  # or in the eight
_LENGTH_16_MAX: Final = 0xFFFF
_KEY_BYTES: Final = 4
_LONG_BYTES_MIN: Final = 8192  # from here on ``_mask_long`` is the faster one, measured
_EVERY_BYTE: Final = bytes(range(256))


@final
class FrameReader:
    """One connection's frames from the peer: the client, or with ``is_client`` the server.

    After each ``receive``: ``ping`` is the payload of the newest ping that is not answered, None
    for none, and whoever answers it sets it back. ``close_code`` is 0 while the connection is
    open; then the code that the peer closed it with, ``close_reason`` being its own words, or, with
    ``fault`` not empty, the one to close it with for what the peer did. Nothing is read after that.
    """

    def __init__(self, is_client: bool = False) -> None:
        self.ping: bytes | None = None
        self.close_code = 0
        self.close_reason = ""
        self.fault = ""
        self._mask_bit: i64 = 0 if is_client else _MASKED  # of each frame that comes
        self._key_bytes: i64 = 0 if is_client else _KEY_BYTES
        self._rest = b""  # of a header or control frame that has not come whole
        self._left = 0  # bytes of a data frame's payload that are still to come; may exceed 62 bits
        self._key = b""  # for the next of them on
        self._is_final = True  # the data frame under way, or the last one, ends its message
        # What came of data frames in this call, unmasked; behind it what is not yet, with the bytes
        # that do it: all at once, which costs less than frame by frame.
        self._unmasked: list[bytes] = []
        self._parts: list[bytes] = []
        self._keys: list[bytes] = []

    def receive(self, data: bytes) -> bytes:
        """The MQTT bytes in ``data``, which is the next that came, cut anywhere."""
        if self._rest:
            data = self._rest + data
            self._rest = b""
        position: i64 = 0
        end: i64 = len(data)
        while position < end and self.close_code == 0:
            if self._left > 0:
                position = self._payload(data, position, end)
                continue
            start: i64 = position
            position = self._frame(data, start, end)
            if position == start:
                self._rest = data[start:]
                break
        return self._take_unmasked()

    def _payload(self, data: bytes, start: i64, end: i64) -> i64:
        """Take what is there of a frame that has begun before; the place behind it."""
        size: i64 = end - start
        if self._left < size:
            size = self._left
        part = data[start : start + size]
        self._left -= size
        if self._key_bytes == 0:
            self._unmasked.append(part)
            return start + size
        if size >= _LONG_BYTES_MIN:
            self._unmask_parts()
            self._unmasked.append(_mask_long(part, self._key))
        else:
            self._parts.append(part)
            self._keys.append((self._key * (size // _KEY_BYTES + 1))[:size])
        turn: i64 = size % _KEY_BYTES
        self._key = self._key[turn:] + self._key[:turn]
        return start + size

    def _frame(self, data: bytes, start: i64, end: i64) -> i64:
        """Take the frame that begins at ``start``; the place behind it, or ``start`` to wait.

        What is wrong with it shows in its first two bytes, before the rest of it is there.
        """
        if end - start < 2:
            return start
        first: i64 = data[start]
        second: i64 = data[start + 1]
        length: i64 = second & ~_MASKED
        is_plain = first == _FIN | _BINARY and self._is_final
        if (not is_plain or second - length != self._mask_bit) and self._is_wrong(first, second):
            return end
        key_bytes: i64 = self._key_bytes
        body: i64 = start + 2 + key_bytes
        if length >= _LENGTH_16:
            body += 2 if length == _LENGTH_16 else 8
        if end < body:
            return start
        if first & 0x08:
            if end < body + length:
                return start
            payload = data[body : body + length]
            if key_bytes > 0:
                payload = _mask(payload, data[body - 4 : body])
            self._control(first & 0x0F, payload)
            return body + length
        if length >= _LENGTH_16 and not self._take_long(data[start + 2 : body - key_bytes]):
            return end
        self._is_final = first >= _FIN
        if length < _LENGTH_16 and body + length <= end:
            # The usual frame: small, and all of it is there.
            if length > 0:
                if key_bytes == 0:
                    self._unmasked.append(data[body : body + length])
                    return body + length
                self._parts.append(data[body : body + length])
                self._keys.append((data[body - 4 : body] * 32)[:length])
            return body + length
        if length < _LENGTH_16:
            self._left = length
        if key_bytes > 0:
            self._key = data[body - 4 : body]
        return body

    def _is_wrong(self, first: i64, second: i64) -> bool:
        """Find the fault in the first two bytes of a frame; what has none is no plain binary."""
        kind: i64 = first & 0x0F
        if first & _RESERVED:
            self._fail(FRAME_ERROR, "a reserved bit is set, and no extension was agreed on")
        elif second & _MASKED != self._mask_bit:
            fault = "of the client is not" if self._mask_bit else "of the server is"
            self._fail(FRAME_ERROR, f"a frame {fault} masked")
        elif kind in (_CLOSE, _PING, _PONG):
            if first < _FIN:
                self._fail(FRAME_ERROR, "a control frame is fragmented")
            elif second & ~_MASKED > CONTROL_BYTES_MAX:
                self._fail(FRAME_ERROR, f"a control frame has more than {CONTROL_BYTES_MAX} bytes")
        elif kind == _TEXT:
            # [MQTT-6.0.0-1]
            self._fail(UNSUPPORTED_DATA, "MQTT takes binary frames, a text frame came")
        elif kind == _BINARY:
            if not self._is_final:
                self._fail(FRAME_ERROR, "a message begins within another")
        elif kind != _CONTINUATION:
            self._fail(FRAME_ERROR, f"the opcode {kind} is reserved")
        elif self._is_final:
            self._fail(FRAME_ERROR, "a message goes on that has not begun")
        return self.close_code != 0

    def _take_long(self, number: bytes) -> bool:
        """Take the length of a data frame from its own two or eight bytes, if it is right."""
        self._left = int.from_bytes(number, "big")
        if self._left < _LENGTH_16 or (len(number) == 8 and self._left <= _LENGTH_16_MAX):
            self._fail(FRAME_ERROR, "a length takes more bytes than it needs")
        elif number[0] >= 0x80 and len(number) == 8:
            self._fail(FRAME_ERROR, "a length has more than 63 bits")
        return self.close_code == 0

    def _control(self, kind: i64, payload: bytes) -> None:
        if kind == _PING:
            # Only the newest need be answered: a flood of them makes no flood of ours.
            self.ping = payload
        elif kind == _CLOSE:
            self._take_close(payload)

    def _take_close(self, payload: bytes) -> None:
        if not payload:
            self.close_code = NO_CODE
            return
        code = int.from_bytes(payload[:2], "big")
        is_known = 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999
        if len(payload) == 1 or not is_known:
            self._fail(FRAME_ERROR, "a close frame has no code that may be sent")
            return
        try:
            self.close_reason = payload[2:].decode()
        except UnicodeDecodeError:
            self._fail(INVALID_TEXT, "the reason of a close frame is not UTF-8")
            return
        self.close_code = code

    def _fail(self, code: int, fault: str) -> None:
        self.close_code = code
        self.fault = fault

    def _unmask_parts(self) -> None:
        if self._parts:
            self._unmasked.append(_mask(b"".join(self._parts), b"".join(self._keys)))
            self._parts.clear()
            self._keys.clear()

    def _take_unmasked(self) -> bytes:
        self._unmask_parts()
        unmasked = self._unmasked
        if not unmasked:
            return b""
        data = unmasked[0] if len(unmasked) == 1 else b"".join(unmasked)
        unmasked.clear()
        return data


def _mask(data: bytes, key: bytes) -> bytes:
    """``data`` with ``key`` over it, which is repeated if it is shorter; twice over is undone."""
    size = len(data)
    if len(key) < size:
        key = key * (size // _KEY_BYTES + 1)
    number = int.from_bytes(data, "little") ^ int.from_bytes(key[:size], "little")
    return number.to_bytes(size, "little")


def _mask_long(data: bytes, key: bytes) -> bytes:
    """The same, faster for thousands of bytes: each fourth one has the same byte of the key."""
    masked = bytearray(data)
    for place in range(_KEY_BYTES):
        table = _mask(_EVERY_BYTE, key[place : place + 1] * _KEY_BYTES)
        masked[place::_KEY_BYTES] = data[place::_KEY_BYTES].translate(table)
    return bytes(masked)


def data_header(size: int) -> bytes:
    """What goes before ``size`` bytes of MQTT to make them one binary frame [MQTT-6.0.0-1]."""
    if size < _LENGTH_16:
        return bytes((_FIN | _BINARY, size))
    if size <= _LENGTH_16_MAX:
        return bytes((_FIN | _BINARY, _LENGTH_16)) + size.to_bytes(2, "big")
    return bytes((_FIN | _BINARY, _LENGTH_64)) + size.to_bytes(8, "big")


def masked_frame(data: bytes, key: bytes) -> bytes:
    """A client's binary frame of MQTT. The key: 4 bytes nobody can foretell, new for each frame."""
    size = len(data)
    if size < _LENGTH_16:
        return bytes((_FIN | _BINARY, _MASKED | size)) + key + _mask(data, key)
    header = data_header(size)
    masked = _mask(data, key) if size < _LONG_BYTES_MIN else _mask_long(data, key)
    return header[:1] + bytes((_MASKED | header[1],)) + header[2:] + key + masked


def ping_frame(payload: bytes, key: bytes = b"") -> bytes:
    """A ping, of at most 125 bytes; with a key it is masked, as a client's has to be."""
    return _control_frame(_PING, payload, key)


def pong_frame(payload: bytes, key: bytes = b"") -> bytes:
    """The answer to a ping of this payload; with a key it is masked."""
    return _control_frame(_PONG, payload, key)


def close_frame(code: int, reason: str, key: bytes = b"") -> bytes:
    """A close frame; NO_CODE gives one without code. A reason of at most 123 bytes.

    With a key it is masked.
    """
    payload = b"" if code == NO_CODE else code.to_bytes(2, "big") + reason.encode()
    return _control_frame(_CLOSE, payload, key)


def _control_frame(kind: int, payload: bytes, key: bytes) -> bytes:
    if not key:
        return bytes((_FIN | kind, len(payload))) + payload
    return bytes((_FIN | kind, _MASKED | len(payload))) + key + _mask(payload, key)
