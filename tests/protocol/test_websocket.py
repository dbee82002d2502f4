"""WebSocket frames: what either end may send, cut anywhere, and each thing that it must not."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.protocol.websocket import (
    FRAME_ERROR,
    INVALID_TEXT,
    NO_CODE,
    UNSUPPORTED_DATA,
    FrameReader,
    close_frame,
    data_header,
    masked_frame,
    ping_frame,
    pong_frame,
)
from tests.support.websocket import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, frame

LENGTHS = (0, 1, 125, 126, 127, 65_535, 65_536, 70_001)


def read(*chunks: bytes, is_client: bool = False) -> tuple[FrameReader, bytes]:
    """A reader after these chunks, and the MQTT in them."""
    reader = FrameReader(is_client)
    return reader, b"".join([reader.receive(chunk) for chunk in chunks])


@pytest.mark.spec("MQTT5-6.0.0-2", "MQTT311-6.0.0-2")
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("key", [b"\0\0\0\0", b"\x01\xff\x7f\x80"])
def test_a_payload_of_any_length_is_unmasked_however_it_comes(length: int, key: bytes) -> None:
    payload = bytes(number * 7 & 0xFF for number in range(length))
    data = frame(payload, key=key) + frame(b"next", key=key)
    for size in (1, 2, 3, 5, 1000, len(data)) if length < 1000 else (999, 65_536, len(data)):
        chunks = [data[start : start + size] for start in range(0, len(data), size)]
        reader, mqtt = read(*chunks)
        assert mqtt == payload + b"next"
        assert reader.close_code == 0


@given(
    parts=st.lists(st.tuples(st.binary(max_size=300), st.binary(min_size=4, max_size=4))),
    cuts=st.lists(st.integers(0, 2000)),
    pings=st.sets(st.integers(0, 8)),
)
def test_any_frames_cut_anywhere_give_what_is_in_them(
    parts: list[tuple[bytes, bytes]], cuts: list[int], pings: set[int]
) -> None:
    """All are fragments of one message, with pings between them."""
    data = b""
    for number, (payload, key) in enumerate(parts):
        kind = BINARY if number == 0 else CONTINUATION
        data += frame(payload, kind, key=key, is_final=number == len(parts) - 1)
        if number in pings:
            data += frame(b"%d" % number, PING, key=key)
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    reader, mqtt = read(*(data[a:b] for a, b in itertools.pairwise(places)))
    assert mqtt == b"".join(payload for payload, _ in parts)
    asked = [number for number in pings if number < len(parts)]
    assert reader.ping == (b"%d" % max(asked) if asked else None)
    assert reader.close_code == 0


def test_a_frame_of_any_announced_size_costs_no_memory() -> None:
    """Its payload is handed on as it comes, and the header alone keeps nothing."""
    reader = FrameReader()
    start = frame(b"", length=(1 << 63) - 1)
    assert reader.receive(start) == b""
    key = start[-4:]
    for _ in range(3):
        assert reader.receive(bytes(a ^ b for a, b in zip(b"abcd", key, strict=True))) == b"abcd"
    assert reader.close_code == 0


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(frame(b"x", TEXT), UNSUPPORTED_DATA, id="text"),
        pytest.param(frame(b"x", TEXT, is_final=False), UNSUPPORTED_DATA, id="text-fragment"),
        pytest.param(frame(b"x", is_masked=False), FRAME_ERROR, id="unmasked"),
        pytest.param(frame(b"", PING, is_masked=False), FRAME_ERROR, id="unmasked-ping"),
        pytest.param(frame(b"x", reserved=0x40), FRAME_ERROR, id="compressed"),
        pytest.param(frame(b"x", reserved=0x20), FRAME_ERROR, id="reserved-bit-2"),
        pytest.param(frame(b"x", reserved=0x10), FRAME_ERROR, id="reserved-bit-3"),
        pytest.param(frame(b"x", PING, reserved=0x40), FRAME_ERROR, id="compressed-ping"),
        *(
            pytest.param(frame(b"x", kind), FRAME_ERROR, id=f"opcode-{kind:x}")
            for kind in (3, 4, 5, 6, 7, 0xB, 0xC, 0xD, 0xE, 0xF)
        ),
        pytest.param(frame(b"x", PING, is_final=False), FRAME_ERROR, id="fragmented-ping"),
        pytest.param(frame(b"x", PONG, is_final=False), FRAME_ERROR, id="fragmented-pong"),
        pytest.param(frame(b"", CLOSE, is_final=False), FRAME_ERROR, id="fragmented-close"),
        pytest.param(frame(b"x" * 126, PING), FRAME_ERROR, id="long-ping"),
        pytest.param(frame(b"x" * 70_000, CLOSE)[:2], FRAME_ERROR, id="giant-close"),
        pytest.param(frame(b"x", CONTINUATION), FRAME_ERROR, id="continues-nothing"),
        pytest.param(frame(b"", length=1 << 63), FRAME_ERROR, id="length-of-64-bits"),
        pytest.param(frame(b"", length=(1 << 64) - 1), FRAME_ERROR, id="length-all-ones"),
        pytest.param(frame(b"", length=125, width=2), FRAME_ERROR, id="padded-to-2"),
        pytest.param(frame(b"", length=0, width=2), FRAME_ERROR, id="zero-padded-to-2"),
        pytest.param(frame(b"", length=65_535, width=8), FRAME_ERROR, id="padded-to-8"),
        pytest.param(frame(b"", length=5, width=8), FRAME_ERROR, id="small-padded-to-8"),
        pytest.param(frame(b"\x03", CLOSE), FRAME_ERROR, id="close-of-one-byte"),
        *(
            pytest.param(frame(number.to_bytes(2, "big"), CLOSE), FRAME_ERROR, id=f"close-{number}")
            for number in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535)
        ),
        pytest.param(frame(b"\x03\xe8\xff", CLOSE), INVALID_TEXT, id="close-reason"),
    ],
)
def test_what_is_wrong_with_a_frame_ends_the_connection(data: bytes, code: int) -> None:
    """What came before still counts, nothing behind does; and it is found byte by byte too."""
    before, behind = frame(b"before"), frame(b"behind")
    reader, mqtt = read(before + data + behind)
    assert mqtt == b"before"
    assert reader.close_code == code
    assert reader.fault != ""
    assert len(close_frame(code, reader.fault)) <= 2 + 125
    assert reader.receive(behind) == b""
    reader, mqtt = read(*(bytes((byte,)) for byte in before + data + behind))
    assert mqtt == b"before"
    assert reader.close_code == code


def test_a_message_does_not_begin_within_another() -> None:
    reader, mqtt = read(frame(b"a", is_final=False) + frame(b"b"))
    assert mqtt == b"a"
    assert reader.close_code == FRAME_ERROR


def test_a_fault_shows_before_the_frame_is_there() -> None:
    """The first two bytes are enough, so that nobody waits for gigabytes of text."""
    reader, _ = read(frame(b"", TEXT, length=(1 << 63) - 1)[:2])
    assert reader.close_code == UNSUPPORTED_DATA


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1011, 1014, 3000, 4999])
def test_a_client_closes_with_a_code(code: int) -> None:
    reader, mqtt = read(frame(b"x") + frame(code.to_bytes(2, "big") + "ä".encode(), CLOSE))
    assert mqtt == b"x"
    assert (reader.close_code, reader.fault) == (code, "")


def test_a_client_closes_without_a_code() -> None:
    reader, _ = read(frame(b"", CLOSE))
    assert (reader.close_code, reader.fault) == (NO_CODE, "")
    assert close_frame(NO_CODE, "") == b"\x88\x00"


def test_of_many_pings_the_newest_is_answered() -> None:
    reader, mqtt = read(b"".join(frame(b"%d" % number, PING) for number in range(1000)))
    assert mqtt == b""
    assert reader.ping == b"999"
    assert pong_frame(b"999") == b"\x8a\x03999"


def test_a_pong_that_nobody_asked_for_is_nothing() -> None:
    reader, mqtt = read(frame(b"x" * 125, PONG) + frame(b"a"))
    assert (mqtt, reader.ping, reader.close_code) == (b"a", None, 0)


@pytest.mark.parametrize(
    ("size", "header"),
    [
        (0, "8200"),
        (125, "827d"),
        (126, "827e007e"),
        (65_535, "827effff"),
        (65_536, "827f0000000000010000"),
        (1 << 40, "827f0000010000000000"),
    ],
)
def test_what_is_sent_has_the_shortest_header(size: int, header: str) -> None:
    assert data_header(size).hex() == header
    assert ping_frame(b"") == b"\x89\x00"


def slowly(data: bytes, is_client: bool) -> tuple[bytes, int]:
    """The MQTT in these frames and the close code, 0 for none: the standard, read word by word."""
    mqtt, is_open, place = b"", False, 0
    while len(data) - place >= 2:
        first, second = data[place], data[place + 1]
        kind, length, place = first & 15, second & 127, place + 2
        if first & 0x70 or (second < 128) != is_client or kind not in (0, 1, 2, 8, 9, 10):
            return mqtt, FRAME_ERROR
        if kind >= 8 and (first < 128 or length > 125):
            return mqtt, FRAME_ERROR
        if kind == TEXT:
            return mqtt, UNSUPPORTED_DATA
        if kind < 8 and is_open != (kind == CONTINUATION):
            return mqtt, FRAME_ERROR
        width = {126: 2, 127: 8}.get(length, 0)
        key_bytes = 0 if is_client else 4
        if len(data) - place < width + key_bytes:
            break
        if width:
            length = int.from_bytes(data[place : place + width], "big")
            if length < {2: 126, 8: 65_536}[width] or length >= 1 << 63:
                return mqtt, FRAME_ERROR
        key = b"\0\0\0\0" if is_client else data[place + width : place + width + 4]
        place += width + key_bytes
        payload = data[place : place + length]
        plain = bytes(byte ^ key[n % 4] for n, byte in enumerate(payload))
        if kind < 8:
            mqtt, is_open = mqtt + plain, first < 128
        elif len(payload) < length:
            break
        elif kind == CLOSE:
            return mqtt, close_code_of(plain)
        place += length
    return mqtt, 0


def close_code_of(payload: bytes) -> int:
    if payload == b"":
        return NO_CODE
    code = int.from_bytes(payload[:2], "big")
    known = {*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)}
    if len(payload) == 1 or code not in known:
        return FRAME_ERROR
    return INVALID_TEXT if "\ufffd" in payload[2:].decode(errors="replace") else code


@given(
    parts=st.lists(
        st.builds(
            frame,
            st.binary(max_size=140) | st.sampled_from([b"\x03\xe8", b"\x03\xe8\xff", b"\x03"]),
            st.sampled_from([0, 0, 0, 1, 2, 2, 2, 2, 3, 8, 9, 9, 10, 11]),
            is_final=st.sampled_from([True, True, False]),
            is_masked=st.sampled_from([True] * 9 + [False] * 9),
            reserved=st.sampled_from([0] * 9 + [0x40]),
            key=st.binary(min_size=4, max_size=4),
            length=st.sampled_from([None] * 9 + [5, 200, 1 << 20, 1 << 63]),
        )
        | st.binary(max_size=20),
        max_size=8,
    ),
    size=st.integers(1, 40),
    is_client=st.booleans(),
)
def test_any_bytes_mean_what_the_standard_says(
    parts: list[bytes], size: int, is_client: bool
) -> None:
    """Right frames and wrong ones, whole, in pieces and byte by byte."""
    data = b"".join(parts)
    expected = slowly(data, is_client)
    for step in (1, size, max(1, len(data))):
        chunks = (data[n : n + step] for n in range(0, len(data), step))
        reader, mqtt = read(*chunks, is_client=is_client)
        assert (mqtt, reader.close_code) == expected


def test_long_payloads_are_unmasked_as_short_ones_are() -> None:
    """The two ways of doing it, around the size where one takes over from the other."""
    for size in (8190, 8191, 8192, 8193, 8197, 70_000):
        payload = bytes(number * 13 & 0xFF for number in range(size))
        data = frame(b"short") + frame(payload) + frame(b"end")
        _, mqtt = read(data)
        assert mqtt == b"short" + payload + b"end"
        _, mqtt = read(data[:21], data[21:])
        assert mqtt == b"short" + payload + b"end"


# --- the client's end


@pytest.mark.parametrize("length", LENGTHS)
def test_a_client_reads_what_is_not_masked_however_it_comes(length: int) -> None:
    payload = bytes(number * 7 & 0xFF for number in range(length))
    data = data_header(length) + payload + frame(b"next", is_masked=False)
    for size in (1, 2, 3, 5, 1000, len(data)) if length < 1000 else (999, 65_536, len(data)):
        chunks = [data[start : start + size] for start in range(0, len(data), size)]
        reader, mqtt = read(*chunks, is_client=True)
        assert mqtt == payload + b"next"
        assert reader.close_code == 0


@pytest.mark.parametrize("length", [*LENGTHS, 8191, 8192, 8195])
@pytest.mark.parametrize("key", [b"\0\0\0\0", b"\x01\xff\x7f\x80"])
def test_what_a_client_sends_is_one_masked_frame(length: int, key: bytes) -> None:
    payload = bytes(number * 7 & 0xFF for number in range(length))
    assert masked_frame(payload, key) == frame(payload, key=key)


def test_control_frames_are_masked_with_a_key() -> None:
    key = b"\x01\xff\x7f\x80"
    assert ping_frame(b"abcde", key) == frame(b"abcde", PING, key=key)
    assert pong_frame(b"", key) == frame(b"", PONG, key=key)
    assert close_frame(1001, "gone", key) == frame(b"\x03\xe9gone", CLOSE, key=key)
    assert close_frame(NO_CODE, "", key) == frame(b"", CLOSE, key=key)


def test_each_end_knows_who_masks() -> None:
    for kind in (BINARY, PING, CLOSE):
        reader, _ = read(frame(b"", kind), is_client=True)
        assert (reader.close_code, reader.fault) == (
            FRAME_ERROR,
            "a frame of the server is masked",
        )
        reader, _ = read(frame(b"", kind, is_masked=False))
        assert (reader.close_code, reader.fault) == (
            FRAME_ERROR,
            "a frame of the client is not masked",
        )


def test_a_client_hears_pings_and_why_it_is_closed() -> None:
    data = frame(b"p", PING, is_masked=False) + frame(b"\x03\xe9gone", CLOSE, is_masked=False)
    reader, _ = read(*(bytes((byte,)) for byte in data), is_client=True)
    assert (reader.ping, reader.close_code, reader.close_reason) == (b"p", 1001, "gone")
