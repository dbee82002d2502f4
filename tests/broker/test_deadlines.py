"""The deadlines, against a sorted list; and how many of them the sessions leave behind."""

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
from holdfast.broker.limits import DEADLINES_SPARE
from holdfast.protocol.packets import Will
from tests.broker.world import World
from tests.support.properties import properties

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


def test_what_is_replaced_comes_in_order_too() -> None:
    deadlines = Deadlines()
    deadlines.add(5, WILL_DUE, 1)
    deadlines.add(3, KEEP_ALIVE, 2)
    assert deadlines.count == 2
    deadlines.replace([entry for entry in [*deadlines.entries, (1, WILL_DUE, 9)] if entry[0] != 3])
    assert deadlines.take_due(9) == (1, WILL_DUE, 9)
    assert deadlines.take_due(9) == (5, WILL_DUE, 1)
    assert deadlines.count == 0


def test_who_comes_and_goes_leaves_no_deadlines_behind() -> None:
    """Each session here ends long before its expiry, and its will is never due."""
    world = World()
    world.hello("stays", expiry_s=500_000).cut()
    for _ in range(3 * DEADLINES_SPARE // 2):
        will = Will("w", b"", 0, False, properties(will_delay_interval=900_000))
        world.connect("c", clean=True, expiry_s=1_000_000, will=will).cut()
    assert world.broker._deadlines.count <= 2 * DEADLINES_SPARE
    world.advance(499_000_000)
    assert world.broker.sessions.find("stays") is not None
    world.advance(1_000_000)
    assert world.broker.sessions.find("stays") is None
    world.advance(500_000_000)
    assert world.broker.sessions.count == 0
    assert world.broker.next_deadline_ms == -1
