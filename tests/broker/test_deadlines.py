"""The deadlines, against a sorted list; and how many of them the sessions leave behind."""

from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.broker.authentication import AuthReply, AuthRequest, grant
from holdfast.broker.deadlines import (
    CONNECT_TIMEOUT,
    DELAYED_DUE,
    KEEP_ALIVE,
    LAZY_COMMIT,
    SESSION_EXPIRY,
    WILL_DUE,
    Deadlines,
)
from holdfast.broker.identity import Identity
from holdfast.broker.limits import DEADLINES_SPARE, IDENTITY_LOOK_MS
from holdfast.broker.listener_rules import PublishLimits
from holdfast.protocol.packets import Auth, Publish, Will
from tests.broker.world import START_MS, World
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


class Tokens:
    """Grants everyone a day, or what ``lasts_ms`` says."""

    methods = frozenset({"TOKEN"})

    def __init__(self) -> None:
        self.lasts_ms = 86_400_000
        self.now_ms = START_MS

    def step(self, request: AuthRequest) -> AuthReply:
        return grant(identity=Identity("u", expires_at_ms=self.now_ms + self.lasts_ms))


def test_tokens_of_those_who_have_gone_are_forgotten_before_they_expire() -> None:
    world = World(authenticator=Tokens())
    for _ in range(100):
        world.connect("c", clean=True, expiry_s=0).cut()
    world.advance(IDENTITY_LOOK_MS)
    assert world.broker._deadlines.count == 0


def test_who_proves_itself_again_and_again_is_looked_at_once_at_a_time() -> None:
    tokens = Tokens()
    world = World(authenticator=tokens)
    client = world.connect("c", keep_alive=0, properties=properties(authentication_method="TOKEN"))
    before = world.broker._deadlines.count
    for _ in range(5):
        client.send(Auth(0x19, properties(authentication_method="TOKEN")))
    assert client.received() == ["CONNACK 0x00", *["AUTH 0x00"] * 5]
    assert world.broker._deadlines.count == before
    tokens.lasts_ms = 30_000
    client.send(Auth(0x19, properties(authentication_method="TOKEN")))
    world.advance(29_999)
    assert client.is_open
    world.advance(1)
    assert not client.is_open
    assert client.received() == ["AUTH 0x00", "DISCONNECT 0xA0"]


def test_more_time_is_granted_before_the_end_of_the_first() -> None:
    tokens = Tokens()
    tokens.lasts_ms = 100_000
    world = World(authenticator=tokens)
    client = world.connect("c", keep_alive=0, properties=properties(authentication_method="TOKEN"))
    world.advance(90_000)
    tokens.now_ms = world.now_ms
    client.send(Auth(0x19, properties(authentication_method="TOKEN")))
    world.advance(99_999)
    assert client.is_open
    world.advance(1)
    assert not client.is_open


def test_who_is_far_above_its_rate_leaves_no_deadline_behind_for_long() -> None:
    world = World()
    world.rules.publish_limits = PublishLimits(bytes_per_s=10, bytes_burst=10)
    for _ in range(10):
        client = world.transient("fat")
        client.send(Publish("t", b"." * 100_000))
        client.send(Publish("t", b"."))
        assert client.connection.is_held
        client.cut()
    world.advance(10_000)
    assert world.broker._deadlines.count == 0
