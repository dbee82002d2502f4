"""Stored messages, blocks and in-flight entries: what goes in comes out, and damage is told."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from holdfast.errors import StoreCorrupt
from holdfast.message import Message, Properties
from holdfast.store import blocks
from holdfast.store.blocks import (
    decode_block,
    decode_block_part,
    decode_message,
    encode_block,
    encode_blocks,
    encode_message,
    unknown_topics,
)
from holdfast.store.records import (
    OPEN,
    Batch,
    LogEntry,
    RetainedRecord,
    pack_gaps,
    pack_in_flight,
    pack_lsns,
    unpack_gaps,
    unpack_in_flight,
    unpack_lsns,
)
from tests.store.support import content_of_entries, content_of_message, delayed, message

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)
publishers = st.sampled_from(["", "meter-7", "\U0010ffff"]) | texts


@st.composite
def properties(draw: st.DrawFn) -> Properties:
    found = Properties()
    found.payload_format_indicator = draw(st.none() | st.integers(0, 1))
    found.content_type = draw(st.none() | texts)
    found.response_topic = draw(st.none() | st.just("answer/7"))
    found.correlation_data = draw(st.none() | st.binary(max_size=5))
    found.user_properties = draw(st.lists(st.tuples(texts, texts), max_size=3))
    # None stands for an empty set.
    return found if found.content_type is not None or found.user_properties else _with_type()


def _with_type() -> Properties:
    found = Properties()
    found.content_type = ""
    return found


messages = st.builds(
    Message,
    st.just("a"),
    st.binary(max_size=300),
    st.integers(0, 2),
    st.booleans(),
    st.none() | properties(),
    st.just(0) | st.integers(1, 2**63 - 1),
    publishers,
)
in_flights = st.dictionaries(
    st.integers(1, 65_535),
    st.builds(
        lambda lsn, stage: lsn * 4 + stage,
        st.just(0) | st.integers(1, 300) | st.integers(1, 2**61 - 1),
        st.integers(0, 2),
    ),
)
groups = st.dictionaries(st.integers(1, 65_535), st.integers(1, 300) | st.integers(1, 2**61 - 1))


def block_of(found: list[Message], first_lsn: int = 1, target: int = 0) -> list[LogEntry]:
    return [LogEntry(first_lsn + index, item, target) for index, item in enumerate(found)]


@given(messages)
def test_a_message_comes_back_as_it_was(original: Message) -> None:
    found = decode_message("a", encode_message(original))
    assert content_of_message(found) == content_of_message(original)


@given(st.lists(messages, min_size=1, max_size=6), st.integers(1, 2**60), st.integers(0, 9))
def test_a_block_comes_back_as_it_was(found: list[Message], first_lsn: int, target: int) -> None:
    original = block_of(found, first_lsn, target)
    data = encode_block(original, 0, len(original))
    assert content_of_entries(decode_block(first_lsn, "a", target, data)) == content_of_entries(
        original
    )


@given(st.lists(messages, min_size=1, max_size=6), st.integers(0, 9), st.integers(0, 9))
def test_a_part_of_a_block_is_that_part(found: list[Message], low: int, high: int) -> None:
    original = block_of(found, 2)
    data = encode_block(original, 0, len(original))
    assert content_of_entries(decode_block_part(2, "a", 0, data, low, high)) == content_of_entries(
        [entry for entry in original if low <= entry.lsn and (high == OPEN or entry.lsn < high)]
    )


@given(st.lists(messages, min_size=1, max_size=3), st.data())
def test_a_damaged_block_is_told_or_read_but_breaks_nothing(
    found: list[Message], data: st.DataObject
) -> None:
    packed = bytearray(encode_block(block_of(found), 0, len(found)))
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(packed) - 1))
        packed[position] = data.draw(st.integers(0, 255))
    damaged = bytes(packed[: data.draw(st.integers(0, len(packed)))])
    try:
        decode_block(1, "a", 0, damaged)
    except StoreCorrupt:
        pass


@given(messages)
def test_a_message_cut_short_is_told(original: Message) -> None:
    data = encode_message(original)
    for end in range(len(data)):
        with pytest.raises(StoreCorrupt):
            decode_message("a", data[:end])
    with pytest.raises(StoreCorrupt, match="followed by bytes"):
        decode_message("a", data + b"\0")


@pytest.mark.parametrize(
    "data",
    [
        b"\x03\x00",  # QoS 3
        b"\x40\x00",  # a flag of some later format
        b"\x20\x01\xff\x00",  # a publisher that is not UTF-8
        b"\x10" + b"\xff" * 9 + b"\x01\x00",  # a number of 64 bits
        b"\x08\x01\xff\x00",  # a property that does not exist
        b"\x00" + b"\xff" * 8 + b"\x7f",  # a payload of 2**63 - 1 bytes
    ],
)
def test_what_was_never_written_is_told(data: bytes) -> None:
    with pytest.raises(StoreCorrupt):
        decode_message("a", data)


@given(in_flights)
@example({})
@example({65_535: 6, 1: 2**63 - 2, 2: 2, 3: 4, 4: 2**63 - 2})
@example({2: 40, 1: 36, 4: 0, 3: 2, 5: 36})
def test_in_flight_entries_come_back_in_their_order(in_flight: dict[int, int]) -> None:
    found = unpack_in_flight(pack_in_flight(in_flight))
    assert list(found.items()) == list(in_flight.items())


@given(st.lists(st.integers(1, 2**61 - 1), unique=True))
@example(list(range(1, 70_000)))
def test_lsns_come_back(lsns: list[int]) -> None:
    assert unpack_lsns(pack_lsns(sorted(lsns))) == sorted(lsns)


@given(st.lists(st.integers(1, 2**61 - 1), unique=True), st.booleans())
@example([1, 2, 3, 4], True)
@example([2**63 - 2, 2**63 - 1], False)
def test_gaps_come_back(lsns: list[int], goes_on: bool) -> None:
    bounds = sorted(lsns)
    gaps = list(zip(bounds[::2], bounds[1::2], strict=False))
    if goes_on and len(bounds) % 2:
        gaps.append((bounds[-1], OPEN))
    assert unpack_gaps(pack_gaps(gaps)) == gaps


@pytest.mark.parametrize(
    "gaps", [[(5, 5)], [(5, 4)], [(1, 3), (3, 4)], [(1, OPEN), (9, 10)], [(4, 5), (1, 2)]]
)
def test_gaps_that_touch_or_end_early_are_a_defect(gaps: list[tuple[int, int]]) -> None:
    with pytest.raises(AssertionError):
        pack_gaps(gaps)


@given(st.binary(max_size=20))
@example(pack_gaps([(1, OPEN)]) + b"\x01\x01")
@example(pack_gaps([(1, 2)]) + b"\x00\x01")
@example(b"\x01" + b"\xff" * 8 + b"\x7f")
def test_damaged_gaps_are_told_or_are_gaps(data: bytes) -> None:
    try:
        gaps = unpack_gaps(data)
    except StoreCorrupt:
        return
    assert unpack_gaps(pack_gaps(gaps)) == gaps


@given(in_flights, groups, st.data())
@example({65_535: 6, 1: 2**63 - 2, 2: 2, 3: 4}, {65_535: 2**61 - 1, 1: 1, 3: 1}, None)
def test_the_groups_of_in_flight_entries_come_back(
    in_flight: dict[int, int], others: dict[int, int], data: st.DataObject | None
) -> None:
    groups = dict(others)
    if data is not None:
        for packet_id in in_flight:
            if data.draw(st.booleans()):
                groups[packet_id] = data.draw(st.integers(1, 2**61 - 1))
    expected = {key: number for key, number in groups.items() if key in in_flight}
    packed = pack_in_flight(in_flight, groups)
    found = {0: 7}
    assert list(unpack_in_flight(packed, found).items()) == list(in_flight.items())
    assert found == {0: 7, **expected}
    assert unpack_in_flight(packed) == in_flight
    if not expected:
        assert packed == pack_in_flight(in_flight)


def test_in_flight_entries_are_small() -> None:
    steady = {packet_id: (10**9 + packet_id * 9) * 4 for packet_id in range(7, 263)}
    assert len(pack_in_flight(steady)) < 256 + 10
    assert pack_in_flight(steady, {}) == pack_in_flight(steady)
    shared = pack_in_flight(steady, {8: 31, 9: 31})
    assert len(shared) == len(pack_in_flight(steady)) + 2


def test_in_flight_entries_without_groups_are_packed_as_ever() -> None:
    packed = bytes.fromhex("09 00 07 0e 06 f9 00 01 01")
    assert unpack_in_flight(packed) == {7: 5, 8: 10, 9: 2, 1: 5}
    assert pack_in_flight({7: 5, 8: 10, 9: 2, 1: 5}) == packed


def test_a_fourth_stage_is_a_defect() -> None:
    with pytest.raises(AssertionError):
        pack_in_flight({1: 7})


@pytest.mark.parametrize("mark", [b"\x00", b"\x03", b"\x07"])  # no group, stages that are none
def test_a_group_that_was_never_written_is_told(mark: bytes) -> None:
    with pytest.raises(StoreCorrupt, match="group"):
        unpack_in_flight(b"\x0f" + mark)


@given(in_flights, st.data())
def test_damaged_in_flight_entries_break_nothing(
    in_flight: dict[int, int], data: st.DataObject
) -> None:
    packed = pack_in_flight(in_flight, {packet_id: 5 for packet_id in in_flight if packet_id % 2})
    damaged = packed[: data.draw(st.integers(0, len(packed)))] + data.draw(st.binary(max_size=5))
    try:
        unpack_in_flight(damaged, {})
    except StoreCorrupt:
        pass


def test_blocks_end_with_topic_target_count_and_size(monkeypatch: pytest.MonkeyPatch) -> None:
    large = b"x" * 20_000
    found = [
        LogEntry(1, message("a")),
        LogEntry(2, message("a")),
        LogEntry(3, message("b")),
        LogEntry(4, message("b"), 7),
        LogEntry(5, message("b", large), 7),
        LogEntry(6, message("b", large), 7),
        LogEntry(7, message("b", large * 9), 7),
        *(LogEntry(lsn, message("b"), 7) for lsn in range(8, 8 + blocks.BLOCK_ENTRIES_MAX + 1)),
    ]
    last = 8 + blocks.BLOCK_ENTRIES_MAX
    rows = encode_blocks(found, {"a": 11, "b": 12})
    assert [tuple(rows[start : start + 4]) for start in range(0, len(rows), 6)] == [
        (1, 2, 11, 0),
        (3, 3, 12, 0),
        (4, 5, 12, 7),
        (6, 6, 12, 7),
        (7, 7, 12, 7),
        (8, last - 1, 12, 7),
        (last, last, 12, 7),
    ]


def test_a_gap_between_lsns_is_a_defect() -> None:
    with pytest.raises(AssertionError):
        encode_blocks([LogEntry(1, message("a")), LogEntry(3, message("a"))], {"a": 1})


def test_unknown_topics_are_named_once() -> None:
    batch = Batch()
    batch.entries = [LogEntry(n, message(topic)) for n, topic in enumerate("abacc")]
    batch.retained = [RetainedRecord("c", None), RetainedRecord("d", None)]
    batch.delayed = [delayed(1, "a"), delayed(2, "d"), delayed(3, "e"), delayed(4, "e")]
    assert unknown_topics(batch, {"a": 1}) == ["b", "c", "d", "e"]
