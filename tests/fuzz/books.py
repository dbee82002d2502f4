"""What the broker keeps must agree with itself, and be nothing once everyone has left."""

from holdfast.broker.broker import Broker
from holdfast.broker.connection import CLOSED, CONNECTED
from holdfast.broker.deadlines import CONNECT_TIMEOUT, KEEP_ALIVE, SESSION_EXPIRY, WILL_DUE
from holdfast.broker.topic_tree import FilterNode
from tests.fuzz.watch import FuzzWorld

OF_CLIENTS = (CONNECT_TIMEOUT, KEEP_ALIVE, SESSION_EXPIRY, WILL_DUE)  # kinds of deadlines
LEFT_MAX = 2048  # deadlines of those who have left, kept until there are many of them


def check(world: FuzzWorld) -> None:
    """Hold the broker's books against each other; the disk is instant and all is quiet."""
    broker = world.broker
    for number, connection in broker._connections.items():
        assert connection.number == number and connection.state != CLOSED
        assert number in world.clients
    for number, client in world.clients.items():
        assert not client.is_open or number in broker._connections
    sessions = broker.sessions
    assert len(sessions._by_client_id) == len(sessions._by_number) == sessions.count
    for number, session in sessions._by_number.items():
        assert session.number == number and not session.is_ended
        assert sessions.find(session.client_id) is session
        connection_of = session.connection
        if connection_of is not None:
            assert connection_of.session is session and connection_of.state == CONNECTED
            assert broker._connections[connection_of.number] is connection_of
        for topic_filter, subscription in session.subscriptions.items():
            assert subscription.session is session
            assert subscription.topic_filter == topic_filter
        if session.is_recorded:
            assert number in world.kept.sessions
    check_at_rest(broker)


def check_at_rest(broker: Broker) -> None:
    """Nothing is under way: no commit, no packet, no read."""
    commits = broker._commits
    assert not commits.is_under_way and commits.batch.is_empty
    assert not commits.waiting_filling and not commits.waiting_committing and not commits.drained
    assert not broker.needs_turn and not broker._delivery.reads
    tail = broker._delivery.tail
    assert tail.first + len(tail._entries) == commits.next_lsn == commits.durable_lsn_end
    for connection in broker._connections.values():
        assert not connection._filling and not connection._committing and not connection._ready
        assert connection._output_bytes == 0
        assert connection._input_filling == connection._input_committing == 0
        assert connection._acks_filling == connection._acks_committing == 0
        assert not connection.is_closing


def check_empty(world: FuzzWorld, *, is_aged: bool) -> None:
    """No connection, session or retained message is left: nor is anything that belonged to one.

    ``is_aged``: no deadline of theirs either, for all of them have passed.
    """
    broker = world.broker
    kept = world.kept
    assert not broker._connections and not world.clients
    assert broker.sessions.count == 0 and not broker.sessions._by_client_id
    root: FilterNode = broker._router.tree._root
    assert broker._router.tree.filters == 0 and root.children is None and root.online is None
    left = [entry for entry in broker._deadlines._heap if entry[1] in OF_CLIENTS]
    assert len(left) <= (0 if is_aged else LEFT_MAX), f"{len(left)} deadlines of nobody"
    assert broker._router.groups.count == 0
    assert not kept.sessions and not kept.states and not kept.subscriptions and not kept.groups
    assert not kept.entries, "the log is not trimmed"
    retained = broker._router.retained
    assert retained.count == len(retained.matching("$SYS/#")) and not kept.retained
    assert retained.count > 0 or retained._root.children is None
    delayed = broker.delayed
    assert delayed.count == delayed.bytes_waiting == len(delayed._by_address) == 0
    assert not kept.delayed and broker._deadlines.delayed_ms < 0
    commits = broker._commits
    assert not commits._dirty and not commits._dirty_rows
    assert not commits._lazy
    assert not commits._subscriptions
    assert not commits._subscriptions_gone
