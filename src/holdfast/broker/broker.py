"""The broker as a pure object: bytes, closes and the time come in, sends and records go out.

The driver calls ``begin_turn``, hands in all that the sockets brought, and ends with
``finish_turn``; then it writes what the connections in ``take_ready`` hold, commits the batch that
``take_batch`` gives, one at a time, and reports with ``committed``. Reads and the questions to an
authenticator are taken and reported likewise, in whichever later turn they have their answers.
"""

from typing import final

from holdfast.broker.acknowledging import Acknowledging
from holdfast.broker.authentication import GRANT, Authentication, AuthReply, AuthStep
from holdfast.broker.authorization import Authorization
from holdfast.broker.commits import Commits
from holdfast.broker.connecting import Connecting
from holdfast.broker.connection import (
    CLOSED,
    CONNECTED,
    Connection,
)
from holdfast.broker.counters import Counters
from holdfast.broker.deadlines import (
    CONNECT_TIMEOUT,
    DELAYED_DUE,
    IDENTITY_EXPIRY,
    KEEP_ALIVE,
    LAZY_COMMIT,
    PUBLISH_ROOM,
    SYS_TOPICS,
    Deadlines,
)
from holdfast.broker.delayed import Delayed
from holdfast.broker.delivery import Delivery, ReadWanted
from holdfast.broker.endings import Endings
from holdfast.broker.events import Event
from holdfast.broker.groups import Groups
from holdfast.broker.identity import PeerCertificate
from holdfast.broker.intake import Intake
from holdfast.broker.limits import LAZY_COMMIT_MS, Limits
from holdfast.broker.listener_rules import ListenerRules, common_rules
from holdfast.broker.pressure import Pressure
from holdfast.broker.publishing import Publishing
from holdfast.broker.queue_limits import QueueLimits
from holdfast.broker.rates import Rates
from holdfast.broker.reasons import explained, farewell
from holdfast.broker.refusals import RefusalCounters
from holdfast.broker.router import Router
from holdfast.broker.session import Numbers, Session
from holdfast.broker.sessions import Sessions
from holdfast.broker.shared_group import Group
from holdfast.broker.space import LogSpace, SpaceWork
from holdfast.broker.subscribing import Subscribing
from holdfast.broker.sys_topics import SysTopics
from holdfast.broker.topic_tree import TopicTree
from holdfast.errors import ProtocolError, Refused
from holdfast.protocol.packets import (
    Disconnect,
)
from holdfast.store.records import Batch, LogCount, LogEntry, LogSlice, Snapshot, Space


@final
class Broker:
    """All of the broker's state and logic; it does no input or output of its own.

    ``now_ms`` is Unix time in milliseconds. ``instance`` makes client identifiers that we assign
    different from those of earlier runs. ``version`` is what ``$SYS`` says that we are,
    and ``refusals`` are what it says of connections that never came here.
    """

    def __init__(
        self,
        limits: Limits,
        snapshot: Snapshot,
        now_ms: int,
        instance: str,
        version: str,
        refusals: RefusalCounters | None = None,
    ) -> None:
        self.limits = limits
        self.counters = Counters()
        self.events: list[Event] = []
        self._deadlines = Deadlines()
        self._connections: dict[int, Connection] = {}
        self._commits = Commits(snapshot.next_lsn)
        self._delivery = Delivery(self._commits, self.counters)
        numbers = Numbers()
        tree = TopicTree(self.counters)
        commits = self._commits
        delivery = self._delivery
        self._queues = QueueLimits(limits, commits, self.counters, delivery, self.events)
        groups = Groups(
            limits.shared_strategy, numbers, commits, self.counters, delivery, self._queues, tree
        )
        self._router = Router(commits, self.counters, delivery, self._queues, tree, groups)
        self.delayed = Delayed(limits, self._commits, self._router, self._deadlines, self.events)
        self.sessions = Sessions(
            limits,
            self._commits,
            self._router,
            self._queues,
            self.delayed,
            self._deadlines,
            self.counters,
            self.events,
            instance,
            self._connections,
            numbers,
        )
        queues, counters, events = self._queues, self.counters, self.events
        marks = snapshot.time_marks
        self._space = LogSpace(
            limits, commits, counters, delivery, queues, tree, groups, self.sessions, events, marks
        )
        self._authorization = Authorization(commits, delivery, groups, events)
        publishing = Publishing(
            limits,
            commits,
            self._router,
            queues,
            self._space,
            self.delayed,
            self._authorization,
            counters,
            events,
        )
        subscribing = Subscribing(
            limits, commits, self._router, self._authorization, counters, events
        )
        acknowledging = Acknowledging(self._commits, self._delivery, groups)
        self._authentication = Authentication()
        self._endings = Endings(
            limits,
            self._connections,
            self.sessions,
            self._router,
            self._deadlines,
            counters,
            events,
        )
        self._rates = Rates(self._connections, self._deadlines, counters, events)
        self._connecting = Connecting(limits, self.sessions, self._endings, self._rates, counters)
        self._pressure = Pressure(self._connections, self._space, counters, events)
        self._intake = Intake(
            limits,
            self._connections,
            self._router,
            self.sessions,
            publishing,
            subscribing,
            acknowledging,
            self._authentication,
            self._connecting,
            self._endings,
            self._rates,
            counters,
        )
        self._common_rules = common_rules(limits)
        self._now_ms = now_ms
        self._router.begin_turn(now_ms)
        self._lazy_due_ms = 0
        self.delayed.restore(snapshot)  # a will may be delayed when the sessions are
        self.sessions.restore(snapshot, now_ms)
        self._sys_topics: SysTopics | None = None
        if limits.sys_interval_ms > 0:
            self._sys_topics = SysTopics(
                version,
                now_ms,
                self._router,
                self.sessions,
                self._space,
                self.counters,
                RefusalCounters() if refusals is None else refusals,
            )
            self._deadlines.add(now_ms, SYS_TOPICS, 0)

    # --- the turn

    def begin_turn(self, now_ms: int) -> None:
        """Start a turn at this time, which may be earlier than before: clocks are set."""
        self._now_ms = now_ms
        self._router.begin_turn(now_ms)

    def overslept(self, late_ms: int) -> None:
        """Take note that for so long nobody listened, or that the clock was set forward by it.

        It is no silence of the clients: what they sent meanwhile may not have been read yet.
        """
        for connection in self._connections.values():
            connection.last_received_ms += late_ms

    def connect(
        self,
        number: int,
        address: str,
        rules: ListenerRules | None = None,
        certificate: PeerCertificate | None = None,
    ) -> Connection:
        """Take a new network connection; ``number`` is the driver's, never used again.

        ``rules`` are those of the listener it came to, None for one with nothing of its own.
        ``certificate`` is what the client has shown and the transport has verified.
        """
        if rules is None:
            rules = self._common_rules
        connection = Connection(number, address, self._commits, self.counters, rules, certificate)
        connection.last_received_ms = self._now_ms
        self._connections[number] = connection
        due = self._now_ms + self.limits.connect_timeout_ms
        self._deadlines.add(due, CONNECT_TIMEOUT, number)
        self.counters.connections += 1
        return connection

    def receive(self, connection: Connection, data: bytes) -> None:
        """Take the next bytes of a connection and act on the packets they complete.

        Of those it takes one slice; the rest has its turn in ``go_on``, so that nobody waits for
        all that a client sends who never pauses.
        """
        self._intake.receive(connection, data)

    def go_on(self) -> bool:
        """Take the next slice of the connection whose turn it is; False if nobody has more."""
        if not self._intake.go_on():
            return False
        if self._intake.granted:
            granted, self._intake.granted = self._intake.granted, []
            for step, reply in granted:
                self.auth_done(step, reply)
        return True

    def closed(self, connection: Connection) -> None:
        """Take note that the network connection is gone, which may be news or not."""
        self._intake.closed(connection)

    def socket_drained(self, connection: Connection) -> None:
        """The socket of a connection takes more again."""
        connection.is_socket_full = False
        session = connection.session
        if session is not None:
            self._delivery.want_pump(session)

    def tick(self) -> None:
        """Do what is due."""
        while True:
            due = self._deadlines.take_due(self._now_ms)
            if due is None:
                return
            kind = due[1]
            if kind in (CONNECT_TIMEOUT, KEEP_ALIVE, IDENTITY_EXPIRY):
                self._endings.due(kind, due[2])
            elif kind == LAZY_COMMIT:
                self._lazy_due_ms = 0
                self._commits.hurry_lazy()
            elif kind == PUBLISH_ROOM:
                held = self._rates.due(due[2])
                if held is not None:
                    self._intake.later(held)
            elif kind == SYS_TOPICS:
                assert self._sys_topics is not None
                self._sys_topics.publish(self._now_ms)
                self._deadlines.add(self._now_ms + self.limits.sys_interval_ms, SYS_TOPICS, 0)
            elif kind == DELAYED_DUE:
                self.delayed.due()
            else:
                self.sessions.due(kind, due[2], due[0], self._now_ms)

    @property
    def next_deadline_ms(self) -> int:
        """When ``tick`` has something to do, -1 for never."""
        return self._deadlines.next_ms

    def finish_turn(self) -> None:
        """Give the sessions what they have room for; call it before the results are taken."""
        self._queues.work()
        if self._queues.ending:
            self._end_full()
        self._router.pump()
        if self._commits.has_lazy and self._lazy_due_ms == 0:
            self._lazy_due_ms = self._now_ms + LAZY_COMMIT_MS
            self._deadlines.add(self._lazy_due_ms, LAZY_COMMIT, 0)

    @property
    def needs_turn(self) -> bool:
        """Whether there is work left for a further turn, whatever the sockets bring."""
        return self._router.has_pumps or self._intake.has_more

    def take_ready(self) -> list[Connection]:
        """The connections with something to write, or to close."""
        ready = self._commits.ready
        self._commits.ready = []
        return ready

    def take_reads(self) -> list[ReadWanted]:
        """The reads to carry out; each comes back by ``read_done`` or ``fetch_done``."""
        reads = self._delivery.reads
        self._delivery.reads = []
        return reads

    def take_arrivals(self) -> list[Connection]:
        """Those whose CONNECT has come, and those that have been let in, since the last call."""
        arrivals = self._connecting.arrivals
        if arrivals:
            self._connecting.arrivals = []
        return arrivals

    def take_events(self) -> list[Event]:
        """What the operator is to be told."""
        events = self.events.copy()
        self.events.clear()
        return events

    @property
    def is_commit_under_way(self) -> bool:
        return self._commits.is_under_way

    def take_batch(self) -> Batch | None:
        """What is to be committed now; None while a batch is under way, or for nothing."""
        if self._commits.is_under_way:
            return None
        return self._commits.take()

    def committed(self, took_us: int = -1) -> None:
        """The batch taken last is durable. Call it within a turn.

        ``took_us`` is how long the store had it, -1 for an empty one that it never got.
        """
        if took_us >= 0:
            self.counters.commits += 1
            if self._sys_topics is not None:
                self._sys_topics.note_commit(took_us)
        self._commits.committed()
        self._router.committed()

    def read_done(self, wanted: ReadWanted, found: LogSlice) -> None:
        """A read has brought this. Call it within a turn."""
        self._router.read_done(wanted, found)

    def count_done(self, wanted: ReadWanted, found: LogCount) -> None:
        """The store has counted this. Call it within a turn."""
        self._queues.count_done(wanted, found)

    def fetch_done(self, wanted: ReadWanted, found: list[LogEntry]) -> None:
        """A fetch has brought this. Call it within a turn."""
        self._router.fetch_done(wanted, found)

    def take_auth_steps(self) -> list[AuthStep]:
        """What an authenticator is to answer; each comes back by ``auth_done``."""
        steps = self._authentication.steps
        self._authentication.steps = []
        return steps

    def auth_done(self, step: AuthStep, reply: AuthReply) -> None:
        """The authenticator has answered. Call it within a turn."""
        connection = step.connection
        exchange = step.exchange
        if connection.state == CLOSED or (
            exchange is not None and connection.exchange is not exchange
        ):
            return
        is_grant = exchange is not None and exchange.connect is not None and reply.kind == GRANT
        if is_grant and self._intake.waits_to_be_let_in(step, reply):
            return
        try:
            if exchange is None:
                self._authentication.renewed(step, reply)
                self._authorization.changed(connection)
                self._endings.await_identity_expiry(connection)
                return
            packet = self._authentication.done(step, reply)
            if packet is not None:
                # The time that the answer took is not the client's silence.
                connection.last_received_ms = self._now_ms
                self._intake.let_in(connection, packet, reply.data)
            if reply.kind == GRANT:
                self._authorization.changed(connection)
                self._endings.await_identity_expiry(connection)
                self._authentication.settled(step)
            if packet is not None:
                self._intake.go_through(connection)
        except (ProtocolError, Refused) as error:
            self._endings.end_for(connection, error)

    def renew_identities(self) -> None:
        """Ask anew whether each client may be here: what decides it has changed."""
        self._authentication.renew_all(list(self._connections.values()))

    def trim_point(self) -> int:
        """The lsn below which no session needs the log, once the batch taken last is durable."""
        return self.sessions.needed_from()

    def note_space(self, space: Space) -> None:
        """Take what the store says of its space, about once a second. Call it within a turn."""
        self._space.note(space, self._now_ms)

    @property
    def needs_space_look(self) -> bool:
        """Whether ``note_space`` is to be called again though nothing was committed."""
        return self._space.needs_look

    def note_memory(self, stage: int) -> None:
        """Take note how short memory is: see ``pressure``. Call it within a turn."""
        self._pressure.note(stage)

    def take_space_work(self) -> SpaceWork | None:
        """What the store is to do about its space now; it comes back by ``space_work_done``."""
        return self._space.take_work()

    def space_work_done(self, work: SpaceWork) -> None:
        """The store has done this. Call it within a turn."""
        self._space.done(work)

    def shut_down(self) -> None:
        """End all connections; the wills and states that follow are in the last batch."""
        for connection in list(self._connections.values()):
            if connection.state == CONNECTED and connection.is_v5:
                connection.send_last(farewell(connection, self.limits))
            self._endings.lost(connection)
        self._queues.write_losses(0)
        self._commits.hurry_lazy()

    def end_all(self, reason_code: int, detail: str) -> None:
        """End all connections and touch no session: this broker's state counts no longer.

        In 5.0 they are told why by a DISCONNECT. What waits for a commit never leaves.
        """
        for connection in list(self._connections.values()):
            if connection.state == CONNECTED and connection.is_v5:
                connection.send_last(explained(connection, Disconnect(reason_code), detail))
            connection.close()
        self._connections.clear()

    def _end_full(self) -> None:
        """The queues of these came to their limit: what END_SESSION means for each."""
        ending = self._queues.ending
        self._queues.ending = []
        for reader in ending:
            if reader.is_ended:
                continue
            if isinstance(reader, Session):
                self.sessions.end_full(reader, self._now_ms)
            elif isinstance(reader, Group):
                self._queues.empty(reader)
