"""The tail of the log: what stays in memory, and what is let go."""

from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.broker.limits import TAIL_BYTES_MAX, TAIL_ENTRIES_MAX
from holdfast.broker.log_tail import LogTail
from holdfast.message import Message, Properties, message_bytes
from holdfast.store.records import LogEntry

SETTINGS = settings(derandomize=True, deadline=None, database=None)
PAYLOADS = [b"", bytes(TAIL_BYTES_MAX // 3), bytes(TAIL_BYTES_MAX - 1), bytes(TAIL_BYTES_MAX)]


def entry(lsn: int, payload: bytes = b"") -> LogEntry:
    return LogEntry(lsn, Message("t", payload, 1, False))


# A payload to append, or how much of what is there has become durable, in quarters.
steps = st.lists(st.one_of(st.sampled_from(PAYLOADS), st.integers(0, 4)), min_size=15, max_size=40)


@SETTINGS
@given(st.integers(1, 1_000), steps)
def test_no_more_is_let_go_than_the_bounds_ask_for(first: int, taken: list[bytes | int]) -> None:
    tail = LogTail(first)
    kept: list[LogEntry] = []
    end = first
    durable_end = first
    for step in taken:
        if isinstance(step, bytes):
            kept.append(entry(end, step))
            tail.append(kept[-1])
            end += 1
        else:
            durable_end += (end - durable_end) * step // 4
            tail.let_go(durable_end)
            while (
                kept
                and kept[0].lsn < durable_end
                and sum(message_bytes(e.message) for e in kept) > TAIL_BYTES_MAX
            ):
                del kept[0]
        assert tail.first == end - len(kept)
        for own in kept:
            assert tail.get(own.lsn) is own


def test_the_number_of_entries_is_bounded() -> None:
    tail = LogTail(1)
    for lsn in range(1, TAIL_ENTRIES_MAX + 11):
        tail.append(entry(lsn))
    tail.let_go(1)
    assert tail.first == 1
    tail.let_go(4)
    assert tail.first == 4
    tail.let_go(TAIL_ENTRIES_MAX + 11)
    assert tail.first == 11
    assert tail.get(11).lsn == 11
    assert tail.get(TAIL_ENTRIES_MAX + 10).lsn == TAIL_ENTRIES_MAX + 10


def test_what_is_not_durable_stays_however_much_it_is() -> None:
    tail = LogTail(5)
    for lsn in range(5, 10):
        tail.append(entry(lsn, bytes(TAIL_BYTES_MAX)))
    tail.let_go(5)
    assert tail.first == 5
    tail.let_go(9)
    assert tail.first == 9
    assert tail.get(9).lsn == 9


def test_properties_and_publishers_count_with_what_they_take() -> None:
    tail = LogTail(1)
    properties = Properties()
    properties.user_properties = [("", "")] * (TAIL_BYTES_MAX // 200)
    tail.append(LogEntry(1, Message("t", b"", 1, False, properties)))
    tail.append(LogEntry(2, Message("t", b"", 1, False, properties)))
    tail.let_go(3)
    assert tail.first == 2
    tail.append(LogEntry(3, Message("t", b"", 1, False, None, 0, "p" * TAIL_BYTES_MAX)))
    tail.let_go(4)
    assert tail.first == 4
