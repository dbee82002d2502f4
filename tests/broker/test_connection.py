"""What a connection sends, and when: in order, and never ahead of the batch it waits for."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.broker.commits import Commits
from holdfast.broker.connection import CLOSED, CONNECTED, Connection
from holdfast.broker.counters import Counters
from holdfast.broker.limits import INPUT_UNCOMMITTED_BYTES_MAX, OUTPUT_BYTES_MAX, Limits
from holdfast.broker.listener_rules import common_rules
from holdfast.broker.session import Session
from holdfast.errors import ProtocolError
from holdfast.protocol.reason_codes import PACKET_TOO_LARGE

SETTINGS = settings(derandomize=True, deadline=None, database=None, max_examples=200)
CONNECTIONS = 2
INPUT_BYTES = INPUT_UNCOMMITTED_BYTES_MAX // 2
NOW = 0
FILLING = 1
OLDER = 2  # the batch before the one being filled, under way or durable

ACTIONS = ["send", "send", "send", "puback", "puback", "input", "commit", "commit", "commit"]
ACTIONS += ["durable", "durable", "durable", "drive", "drive", "close", "last"]

# (what, connection, when)
Step = tuple[str, int, int]
steps = st.lists(
    st.tuples(
        st.sampled_from(ACTIONS),
        st.integers(0, CONNECTIONS - 1),
        st.sampled_from([NOW, FILLING, OLDER]),
    ),
    min_size=20,
    max_size=60,
)


class Model:
    """One connection, as simple as can be: a queue of what to send with the batch it waits for."""

    def __init__(self) -> None:
        self.queue: list[tuple[bytes, int]] = []
        self.ready: list[bytes] = []
        self.acks: list[int] = []
        self.inputs: list[int] = []
        self.wait = 0
        self.has_sent = False
        self.is_closed = False

    def send(self, data: bytes, wait: int) -> None:
        self.wait = max(self.wait, wait)
        self.queue.append((data, self.wait))

    def settle(self, durable: int) -> None:
        """Move what may leave; a queue in order has it all in front."""
        while self.queue and self.queue[0][1] <= durable:
            self.ready.append(self.queue.pop(0)[0])
            self.has_sent = True
        self.acks = [batch for batch in self.acks if batch > durable]
        self.inputs = [batch for batch in self.inputs if batch > durable]


class Bench:
    """Connections of one broker, each with its model, and a driver that takes what is ready."""

    def __init__(self) -> None:
        self.commits = Commits(1)
        self.counters = Counters()
        self.connections = [
            connection(self.commits, n + 1, self.counters) for n in range(CONNECTIONS)
        ]
        self.models = [Model() for _ in range(CONNECTIONS)]
        self.sent = 0

    def step(self, what: str, index: int, when: int) -> None:
        commits = self.commits
        own, model = self.connections[index], self.models[index]
        wait = (0, commits.filling, commits.filling - 1)[when]
        if what == "commit":
            if not commits.is_under_way:
                commits.take()
        elif what == "durable":
            if commits.is_under_way:
                commits.committed()
        elif what == "drive":
            self.drive()
        elif what == "close":
            own.close()
            model.is_closed = True
            model.queue = []
        elif not model.is_closed:
            self.sent += 1
            data = b"<%d>" % self.sent
            if what == "send":
                own.send(data, wait)
                model.send(data, wait)
            elif what == "puback":
                own.send_puback(data, wait)
                model.send(data, wait)
                model.acks.append(model.wait)
            elif what == "input" and (model.has_sent or model.queue):  # CONNACK comes first
                own.note_input(INPUT_BYTES)
                model.inputs.append(commits.filling)
            elif what == "last":  # DISCONNECT, and then the end
                own.send_last(data)
                if model.has_sent:
                    model.ready.append(data)
                own.close()
                model.is_closed = True
                model.queue = []
        for model in self.models:
            model.settle(commits.durable)
        self.check()

    def check(self) -> None:
        listed = [own.number for own in self.commits.ready]
        assert len(listed) == len(set(listed))
        for own, model in zip(self.connections, self.models, strict=True):
            assert own.number in listed or not model.ready
            if not model.is_closed:
                assert own.open_publishes == len(model.acks)
                is_too_much = len(model.inputs) * INPUT_BYTES > INPUT_UNCOMMITTED_BYTES_MAX
                assert own.is_read_paused == is_too_much

    def drive(self) -> None:
        listed, self.commits.ready = self.commits.ready, []
        for own in listed:
            model = self.models[own.number - 1]
            packets_sent = self.counters.packets_sent + len(model.ready)
            bytes_sent = self.counters.bytes_sent + sum(map(len, model.ready))
            assert own.take() == b"".join(model.ready)
            assert self.counters.packets_sent == packets_sent
            assert self.counters.bytes_sent == bytes_sent
            model.ready = []
        assert not any(model.ready for model in self.models)


def connection(commits: Commits, number: int = 1, counters: Counters | None = None) -> Connection:
    rules = common_rules(Limits(packet_bytes_max=1_000))
    own = Connection(number, "192.0.2.1:1", commits, counters or Counters(), rules, None)
    own.state = CONNECTED
    return own


def sync(commits: Commits) -> None:
    """Make durable what is being filled."""
    assert commits.take() is not None
    commits.committed()


@SETTINGS
@given(steps)
def test_what_leaves_is_in_order_and_durable(taken: list[Step]) -> None:
    bench = Bench()
    for what, index, when in taken:
        bench.step(what, index, when)
    bench.drive()
    for _ in range(2):
        for what in ("durable", "commit", "durable", "drive"):
            bench.step(what, 0, NOW)
    assert not any(model.queue for model in bench.models)
    assert bench.commits.take() is None, "something waits that nobody can see"


def test_a_send_leaves_when_its_batch_is_durable_and_not_before() -> None:
    commits = Commits(1)
    own = connection(commits)
    own.send(b"a", commits.filling)
    assert (own.take(), commits.ready) == (b"", [])
    commits.take()
    own.send(b"b", commits.filling)
    assert (own.take(), commits.ready) == (b"", [])
    commits.committed()
    assert commits.ready == [own]
    assert own.take() == b"a"
    sync(commits)
    assert own.take() == b"b"


def test_what_waits_for_nothing_stays_behind_what_waits() -> None:
    commits = Commits(1)
    own = connection(commits)
    own.send(b"a", commits.filling)
    own.send(b"b", 0)
    assert own.take() == b""
    sync(commits)
    own.send(b"c", 0)
    assert own.take() == b"abc"


@pytest.mark.spec("MQTT5-3.14.0-1")
def test_no_disconnect_goes_ahead_of_a_connack_that_waits() -> None:
    commits = Commits(1)
    own = connection(commits)
    own.send(b"connack", commits.filling)
    own.send_last(b"disconnect")
    own.close()
    assert own.take() == b""
    sync(commits)
    assert own.take() == b""


@pytest.mark.spec("MQTT5-3.14.0-1")
def test_no_disconnect_goes_to_a_connection_that_was_sent_nothing() -> None:
    own = connection(Commits(1))
    own.send_last(b"disconnect")
    assert own.take() == b""


def test_a_disconnect_passes_all_that_waits() -> None:
    commits = Commits(1)
    own = connection(commits)
    own.send(b"connack", 0)
    own.send(b"puback", commits.filling)
    own.send_last(b"disconnect")
    own.close()
    assert own.take() == b"connackdisconnect"
    sync(commits)
    assert own.take() == b""


def test_a_close_leaves_what_is_ready_and_is_told_once() -> None:
    commits = Commits(1)
    own = connection(commits)
    own.send(b"a", 0)
    own.send(b"b", commits.filling)
    own.close()
    own.close()
    own.send(b"c", 0)
    assert (own.state, own.is_closing, commits.ready) == (CLOSED, True, [own])
    assert own.take() == b"a"


@pytest.mark.spec("MQTT5-3.1.2-24")
def test_nothing_is_answered_that_is_larger_than_the_client_takes() -> None:
    own = connection(Commits(1))
    own.packet_bytes_max_out = 4
    own.answer(b"1234", 0)
    with pytest.raises(ProtocolError) as caught:
        own.answer(b"12345", 0)
    assert caught.value.reason_code == PACKET_TOO_LARGE
    own.send_last(b"12345")
    assert own.take() == b"1234"


def test_a_full_connection_has_room_again_when_its_output_is_taken() -> None:
    commits = Commits(1)
    own = connection(commits)
    session = Session(1, "c", 5, 60)
    own.session = session
    own.send(bytes(OUTPUT_BYTES_MAX - 1), 0)
    assert own.has_room
    own.send(b"x", 0)
    assert not own.has_room
    assert own.is_read_paused
    assert len(own.take()) == OUTPUT_BYTES_MAX
    assert own.has_room
    assert not own.is_read_paused
    assert commits.drained == [session]


def test_a_full_socket_leaves_no_room() -> None:
    own = connection(Commits(1))
    own.is_socket_full = True
    assert not own.has_room
    assert own.is_read_paused


def test_uncommitted_input_pauses_reading_until_it_is_durable() -> None:
    commits = Commits(1)
    own = connection(commits)
    own.note_input(INPUT_UNCOMMITTED_BYTES_MAX)
    assert not own.is_read_paused
    own.note_input(1)
    assert own.is_read_paused
    commits.take()
    assert own.is_read_paused
    commits.committed()
    assert not own.is_read_paused
    assert commits.ready == [own]
    assert own.take() == b""
