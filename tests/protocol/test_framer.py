"""The framer: any cut of the input gives the same packets, cheaply and within its limit."""

import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import ProtocolError
from holdfast.protocol.framer import MERGED_CHUNK_BYTES_MAX, PACKET_BYTES_MAX, Framer
from holdfast.protocol.reason_codes import MALFORMED_PACKET, PACKET_TOO_LARGE
from holdfast.protocol.wire import varint_bytes


def packet(body_bytes: int, filler: int = 0x61) -> bytes:
    """A packet of any body; the framer does not look into it."""
    return b"\x30" + varint_bytes(body_bytes) + bytes([filler]) * body_bytes


def taken(framer: Framer) -> list[bytes]:
    """All packets that are complete."""
    found = []
    while framer.next_frame():
        found.append(framer.buffer[framer.start : framer.end])
    return found


bodies = st.sampled_from(
    [0, 1, 2, 126, 127, 128, 129, 200, 4094, 4096, 5000, 16_383, 16_384, 20_000]
)
cut_sizes = st.one_of(st.integers(1, 5), st.integers(1, 300), st.integers(2000, 30_000))


@given(
    bodies=st.lists(bodies, min_size=1, max_size=8),
    sizes=st.lists(cut_sizes, min_size=1, max_size=40),
    pauses=st.lists(st.booleans(), min_size=1, max_size=40),
)
@pytest.mark.spec("MQTT5-6.0.0-2", "MQTT311-6.0.0-2")
def test_any_cut_gives_the_same_packets(
    bodies: list[int], sizes: list[int], pauses: list[bool]
) -> None:
    expected = [packet(size, index) for index, size in enumerate(bodies)]
    wire = b"".join(expected)
    places = [0]
    while places[-1] < len(wire):
        step = sizes[len(places) % len(sizes)]
        places.append(min(len(wire), places[-1] + max(step, len(wire) // 200)))
    framer = Framer(30_000)
    found = []
    seen = 0
    for number, (start, end) in enumerate(pairwise(places)):
        framer.feed(wire[start:end])
        if not pauses[number % len(pauses)]:
            found += taken(framer)
            seen = sum(len(each) for each in found)
        assert framer.buffered == end - seen
    found += taken(framer)
    assert found == expected
    assert framer.buffered == 0


def test_a_packet_is_where_the_attributes_say() -> None:
    framer = Framer(1000)
    chunk = packet(5) + packet(300)
    framer.feed(chunk)
    assert framer.next_frame()
    assert framer.buffer is chunk
    assert (framer.start, framer.body, framer.end) == (0, 2, 7)
    assert framer.next_frame()
    assert framer.buffer is chunk
    assert (framer.start, framer.body, framer.end) == (7, 10, 310)
    assert not framer.next_frame()


def test_without_input_there_is_no_packet() -> None:
    framer = Framer(100)
    assert not framer.next_frame()
    framer.feed(b"")
    assert not framer.next_frame()
    assert framer.buffered == 0


def test_packets_in_one_chunk_are_not_copied() -> None:
    framer = Framer(100)
    chunk = packet(60) * 1000
    framer.feed(chunk)
    for index in range(1000):
        assert framer.next_frame()
        assert framer.buffer is chunk
        assert framer.start == index * 62


def test_only_the_packet_across_two_chunks_is_copied() -> None:
    framer = Framer(200)
    first = packet(60) * 99 + packet(60)[:20]
    second = packet(60)[20:] + packet(60) * 99
    framer.feed(first)
    assert len(taken(framer)) == 99
    framer.feed(second)
    assert framer.next_frame()
    assert framer.buffer == packet(60)
    for index in range(99):
        assert framer.next_frame()
        assert framer.buffer is second
        assert framer.start == 42 + index * 62
    assert not framer.next_frame()


@pytest.mark.parametrize("chunk_bytes", [1, 100, 1500, MERGED_CHUNK_BYTES_MAX + 1])
def test_a_big_packet_is_not_touched_before_it_is_complete(chunk_bytes: int) -> None:
    # Were the buffer rebuilt with each chunk, the cost would grow with the square of the size.
    framer = Framer(200_000)
    wire = packet(150_000)
    held = wire[:10]
    framer.feed(held)
    for start in range(10, len(wire), chunk_bytes):
        assert not framer.next_frame()
        assert framer.buffer is held
        framer.feed(wire[start : start + chunk_bytes])
    assert framer.next_frame()
    assert framer.buffer[framer.start : framer.end] == wire


def test_tiny_chunks_cost_little_more_memory_than_they_hold() -> None:
    wire = packet(300_000)
    chunks = [wire[start : start + 2] for start in range(0, len(wire), 2)]
    framer = Framer(400_000)
    tracemalloc.start()
    try:
        for chunk in chunks[:-1]:
            framer.feed(chunk)
            assert not framer.next_frame()
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 1.2 * len(wire)


@pytest.mark.parametrize("chunks", [1, 2, 10])
@pytest.mark.parametrize("limit", [2, 66, 127, 128, 129, 130, 131, 1000, 16_386, 16_387])
def test_a_packet_of_the_limit_passes_and_one_byte_more_does_not(limit: int, chunks: int) -> None:
    body = limit - 2 if limit < 130 else limit - 3 if limit < 16_387 else limit - 4
    allowed = packet(body)
    refused = packet(body + 1)
    framer = Framer(limit)
    if len(allowed) <= limit:
        for index in range(chunks):
            framer.feed(
                allowed[len(allowed) * index // chunks : len(allowed) * (index + 1) // chunks]
            )
        assert taken(framer) == [allowed]
    framer.feed(refused)
    with pytest.raises(ProtocolError) as caught:
        framer.next_frame()
    assert caught.value.reason_code == PACKET_TOO_LARGE


def test_the_limit_acts_from_the_fixed_header_alone() -> None:
    framer = Framer(1000)
    for byte in (b"\x30", b"\xff", b"\xff"):
        framer.feed(byte)
        assert not framer.next_frame()
    framer.feed(b"\x01")
    with pytest.raises(ProtocolError) as caught:
        framer.next_frame()
    assert caught.value.reason_code == PACKET_TOO_LARGE
    assert framer.buffered == 4


def test_the_limit_may_change_between_packets() -> None:
    framer = Framer(50)
    framer.feed(packet(20))
    assert taken(framer) == [packet(20)]
    framer.packet_bytes_max = 5000
    framer.feed(packet(4000))
    assert taken(framer) == [packet(4000)]


def test_the_largest_packet_of_the_standard_fits_the_largest_limit() -> None:
    framer = Framer(PACKET_BYTES_MAX)
    framer.feed(b"\x30\xff\xff\xff\x7f")
    assert not framer.next_frame()


@pytest.mark.parametrize(
    "header",
    ["3080808080", "30ffffffff", "30ffffff80", "308000", "30808000", "3080808000", "30ff8000"],
)
@pytest.mark.spec("MQTT5-1.5.5-1")
def test_a_remaining_length_too_long_or_padded_is_malformed(header: str) -> None:
    wire = bytes.fromhex(header)
    for chunks in ([wire], [wire + b"\x00" * 10], [bytes([byte]) for byte in wire]):
        framer = Framer(PACKET_BYTES_MAX)
        for chunk in chunks[:-1]:
            framer.feed(chunk)
        framer.feed(chunks[-1])
        with pytest.raises(ProtocolError) as caught:
            framer.next_frame()
        assert caught.value.reason_code == MALFORMED_PACKET


def test_packets_before_a_bad_one_are_handed_out() -> None:
    framer = Framer(100)
    framer.feed(packet(3) * 2 + b"\x30\x80\x00")
    assert framer.next_frame()
    assert framer.next_frame()
    with pytest.raises(ProtocolError):
        framer.next_frame()


def test_a_packet_that_is_put_back_comes_once_more() -> None:
    framer = Framer(PACKET_BYTES_MAX)
    framer.feed(packet(3) + packet(200))
    for size in (3, 200):
        assert framer.next_frame()
        framer.put_back()
        before = framer.frames
        assert framer.next_frame()
        assert framer.buffer[framer.start : framer.end] == packet(size)
        assert framer.frames == before + 1
    assert not framer.next_frame()
    assert framer.buffered == 0
