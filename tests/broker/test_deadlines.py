"""The deadlines, against a sorted list."""

from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.broker.deadlines import (
    CONNECT_TIMEOUT,
    DELAYED_DUE,
    KEEP_ALIVE,
    LAZY_COMMIT,
    SESSION_EXPIRY,
    WILL_DUE,
    Deadlines,
)

SETTINGS = settings(derandomize=True, deadline=None, database=None)
KINDS = [CONNECT_TIMEOUT, KEEP_ALIVE, SESSION_EXPIRY, WILL_DUE, LAZY_COMMIT]
entries = st.tuples(st.integers(0, 20), st.sampled_from(KINDS), st.integers(0, 5))
steps = st.lists(st.one_of(entries, st.integers(0, 25)), min_size=15, max_size=60)


@SETTINGS
@given(steps)
def test_what_is_due_comes_in_order_of_time_and_the_rest_stays(
    taken: list[tuple[int, int, int] | int],
) -> None:
    deadlines = Deadlines()
    waiting: list[tuple[int, int, int]] = []
    for step in taken:
        if isinstance(step, tuple):
            deadlines.add(*step)
            waiting = sorted([*waiting, step])
        else:
            while waiting and waiting[0][0] <= step:
                assert deadlines.take_due(step) == waiting.pop(0)
            assert deadlines.take_due(step) is None
        assert deadlines.next_ms == (waiting[0][0] if waiting else -1)


def test_an_entry_is_due_at_its_time_and_not_before() -> None:
    deadlines = Deadlines()
    assert deadlines.next_ms == -1
    assert deadlines.take_due(1_000) is None
    deadlines.add(1_000, WILL_DUE, 7)
    assert deadlines.take_due(999) is None
    assert deadlines.take_due(1_000) == (1_000, WILL_DUE, 7)
    assert deadlines.next_ms == -1


def test_the_entry_of_delayed_messages_moves() -> None:
    deadlines = Deadlines()
    deadlines.delayed_ms = 500
    assert deadlines.next_ms == 500
    deadlines.add(1_000, WILL_DUE, 7)
    deadlines.delayed_ms = 2_000
    assert deadlines.next_ms == 1_000
    assert deadlines.take_due(3_000) == (1_000, WILL_DUE, 7)
    assert deadlines.take_due(1_999) is None
    assert deadlines.take_due(2_000) == (2_000, DELAYED_DUE, 0)
    assert deadlines.next_ms == -1
    assert deadlines.take_due(3_000) is None
