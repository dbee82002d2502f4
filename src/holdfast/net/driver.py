"""The driver: it turns what the event loop brings into turns of the pure broker.

A turn takes all that one pass of the event loop has read, computes one step, hands one batch to
the store and writes once per connection. One commit is under way at a time; what arrives
meanwhile is the next batch.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from holdfast.auth.interface import Authenticator
from holdfast.broker.authentication import AuthReply, AuthStep
from holdfast.broker.broker import Broker
from holdfast.broker.connection import CONNECTED, Connection
from holdfast.broker.delivery import COUNT, ReadWanted
from holdfast.broker.events import WARNING, Event
from holdfast.broker.listener_rules import ListenerRules
from holdfast.errors import StoreError, StoreFull
from holdfast.net.arrival import Arrival
from holdfast.net.connection import NetConnection
from holdfast.net.event_log import EventLog
from holdfast.net.gatekeeper import Gatekeeper
from holdfast.net.logins import Logins
from holdfast.net.upkeep import Upkeep
from holdfast.protocol.reason_codes import (
    IMPLEMENTATION_SPECIFIC_ERROR,
    QUOTA_EXCEEDED,
)
from holdfast.store.interface import Store
from holdfast.store.records import LogCount, LogEntry, LogSlice
from holdfast.worker import Worker

TICK_MS_MIN: Final = 1
# The longest time between two looks at the clock: when it is set forward, what is due then is not
# done later than that.
TICK_MS_MAX: Final = 10_000
# How long a turn goes on with what is more than a slice of one client. It bounds what the others
# wait, some five turns a message; a longer one would save little of what a turn costs.
MORE_INPUT_S: Final = 0.004
LINE_REST_S_MAX: Final = 0.1
# A timer that is later than that was held up, and a clock that is further ahead was set forward.
LATE_MS: Final = 1000

ReadResult = LogSlice | LogCount | list[LogEntry]


class Driver:
    """Joins the broker, its connections and the store on one event loop.

    ``failed`` is called once, with the error, when the store has failed (StoreError) or a turn has
    shown a defect: nothing is acknowledged from then on, and all connections are ended. What is
    left is ``release``. ``clock_ms`` gives Unix time in milliseconds.
    ``authenticators`` are those of the listeners, by their names; a listener that has none lets
    anyone in. ``auth_threads`` is how many threads verify passwords and the like, 0 for as many as
    suit this machine. Without a ``gatekeeper`` any number of connections may come.
    """

    def __init__(
        self,
        *,
        broker: Broker,
        store: Store,
        failed: Callable[[BaseException], None],
        clock_ms: Callable[[], int],
        authenticators: Mapping[str, Authenticator] | None = None,
        auth_threads: int = 0,
        gatekeeper: Gatekeeper | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._broker = broker
        self._store = store
        self._failed = failed
        self._clock_ms = clock_ms
        self._writer: Worker[object] = Worker("holdfast-writer", self._loop)
        self._reader: Worker[ReadResult] = Worker("holdfast-reader", self._loop)
        # Hashing a password takes long on purpose: it must not hold up reads and commits.
        self._logins = Logins(
            loop=self._loop,
            authenticators={} if authenticators is None else authenticators,
            schedule=self._schedule,
            threads=auth_threads,
            refused=self._login_refused,
        )
        self._gatekeeper = gatekeeper
        self._event_log = EventLog()
        self._log_timer: asyncio.TimerHandle | None = None
        self._connections: dict[int, NetConnection] = {}
        self._next_number = 1
        self._inputs: list[NetConnection] = []
        self._lost: list[NetConnection] = []
        self._line_rests_until_s = 0.0  # those who have more than a slice wait until then
        self._line_timer: asyncio.TimerHandle | None = None
        self._drained: list[NetConnection] = []
        self._paused: set[NetConnection] = set()
        self._reads_done: list[tuple[ReadWanted, ReadResult]] = []
        self._is_commit_done = False
        self._commit_from_ns = 0  # when the commit under way was handed over
        self._commit_took_us = 0  # the one done last, as those see it who wait for it
        self._is_scheduled = False
        self._is_stopped = False
        self.is_stopping = False  # connections end because nobody is served any more
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ms = -1  # the broker's deadline that the timer was set for
        # By the event loop's clock: when the timer is to fire, -1 for never, and the turn's time.
        self._tick_at_ms = -1.0
        self._steady_ms = self._loop.time() * 1000
        self._now_ms = clock_ms()
        self._upkeep = Upkeep(
            broker=broker,
            store=store,
            writer=self._writer,
            schedule=self._schedule,
            failed=self._stop_for,
        )
        self._settled: asyncio.Future[None] | None = None  # set while ``stop`` waits for it

    def protocol(self, rules: ListenerRules, arrival: Arrival) -> NetConnection:
        """What speaks MQTT on a connection that a listener of these rules has taken in."""
        return NetConnection(self, rules, arrival)

    def start(self) -> None:
        """Take the first turn: the wills of connections that a crash has ended, for instance."""
        self._upkeep.start()
        self._schedule()

    def renew_identities(self) -> None:
        """Ask the authenticators anew about all clients: what they go by has changed."""
        if not self._is_stopped:
            self._broker.begin_turn(self._clock_ms())
            self._broker.renew_identities()
            self._schedule()

    def note_memory(self, stage: int) -> None:
        """Take note how short memory is."""
        if not self._is_stopped:
            self._broker.begin_turn(self._clock_ms())
            self._broker.note_memory(stage)
            self._schedule()

    # --- what the connections report

    def opened(self, connection: NetConnection) -> None:
        if self._is_stopped:
            connection.abort()  # accepted for this driver, and come when it had stopped
            return
        arrival = connection.arrival
        gatekeeper = self._gatekeeper
        refusal = None if gatekeeper is None else gatekeeper.refusal(arrival)
        if gatekeeper is not None and refusal is not None:
            connection.turn_away(gatekeeper.turned_away, refusal.reason_code)
            return
        number = self._next_number
        self._next_number += 1
        self._broker.begin_turn(self._clock_ms())
        connection.peer = self._broker.connect(
            number, arrival.address, connection.rules, arrival.certificate
        )
        self._connections[number] = connection
        self._schedule()

    def has_input(self, connection: NetConnection) -> None:
        self._inputs.append(connection)
        self._schedule()

    def has_enough(self, connection: NetConnection) -> None:
        """Read no more of this connection until its input had its turn."""
        connection.pause_reading(True)
        self._paused.add(connection)

    def drained(self, connection: NetConnection) -> None:
        self._drained.append(connection)
        self._schedule()

    def lost(self, connection: NetConnection) -> None:
        self._lost.append(connection)
        self._schedule()

    def tell(self, connection: NetConnection, text: str) -> None:
        """Tell the operator why a connection is ended below MQTT."""
        if connection.peer is not None:
            event = Event(WARNING, text, connection.peer.client_id, connection.peer.address)
            self._event_log.report([event], self._clock_ms())

    def unfit(self, connection: NetConnection, what: str, text: str) -> None:
        """The same, and count it for what was wrong: one of UNFIT."""
        if self._gatekeeper is not None:
            self._gatekeeper.unfit(what)
        self.tell(connection, text)

    # --- the turn

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._is_scheduled = False
        if self._is_stopped:
            return
        try:
            self._take_turn()
        except Exception as error:
            # A defect of ours: the state may be wrong, the store is not. Stop, and start from it.
            self._stop_for(error)

    def _take_turn(self) -> None:
        broker = self._broker
        now_ms = self._clock_ms()
        broker.begin_turn(now_ms)
        missed_ms = self._missed_ms(now_ms)
        if missed_ms > LATE_MS:
            broker.overslept(missed_ms)
        self._take_results()
        self._take_input()
        broker.tick()
        broker.finish_turn()
        self._commit()
        self._write()
        for wanted in broker.take_reads():
            self._read(wanted)
        self._upkeep.begin_work()
        if steps := broker.take_auth_steps():
            self._logins.begin(steps)
        if events := broker.take_events():
            self._event_log.report(events, self._clock_ms())
            self._await_end_of_burst()
        self._set_timer()
        if broker.needs_turn:
            rest_s = self._line_rests_until_s - time.monotonic()
            if rest_s <= 0:
                self._schedule()
            elif self._line_timer is None:
                self._line_timer = self._loop.call_later(rest_s, self._line_rested)

    def _take_results(self) -> None:
        broker = self._broker
        if self._is_commit_done:
            self._is_commit_done = False
            broker.committed(self._commit_took_us)
        self._upkeep.take_results()
        if self._reads_done:
            done, self._reads_done = self._reads_done, []
            for wanted, found in done:
                if isinstance(found, LogSlice):
                    broker.read_done(wanted, found)
                elif isinstance(found, LogCount):
                    broker.count_done(wanted, found)
                else:
                    broker.fetch_done(wanted, found)
        for step, reply in self._logins.take_replies():
            broker.auth_done(step, reply)

    def _login_refused(self, step: AuthStep, reply: AuthReply) -> None:
        """Count a failed login at its address."""
        if self._gatekeeper is not None:
            host = _host_of(step.request.address)
            self._gatekeeper.login_refused(host, reply.reason_code)

    def _take_more_input(self) -> None:
        """Go on with what is more than a slice of one client.

        A slice of much work cannot be cut, and its one packet keeps the interpreter for itself: the
        writer, who needs it for each row, would have a commit take as long as a hundred of them.
        So after such a one the line rests for as long as it took, or until that commit is done.
        """
        broker = self._broker
        from_s = time.monotonic()
        if from_s < self._line_rests_until_s:
            return
        now_s = from_s
        while broker.go_on():
            now_s = time.monotonic()
            if now_s >= from_s + MORE_INPUT_S:
                break
        if now_s > from_s + 2 * MORE_INPUT_S and broker.is_commit_under_way:
            self._line_rests_until_s = now_s + min(now_s - from_s, LINE_REST_S_MAX)

    def _line_rested(self) -> None:
        self._line_timer = None
        self._schedule()

    def _take_input(self) -> None:
        broker = self._broker
        inputs, self._inputs = self._inputs, []
        for connection in inputs:
            data = connection.take_input()
            if not connection.is_let_in and self._gatekeeper is not None:
                self._gatekeeper.received(connection.arrival, len(data))
            broker.receive(_peer(connection), data)
        self._take_more_input()
        for connection in inputs:
            if _peer(connection).is_read_paused:
                self.has_enough(connection)
        if self._drained:
            drained, self._drained = self._drained, []
            for connection in drained:
                broker.socket_drained(_peer(connection))
        if self._lost:
            lost, self._lost = self._lost, []
            for connection in lost:
                peer = _peer(connection)
                broker.closed(peer)
                del self._connections[peer.number]
                self._paused.discard(connection)

        for peer in broker.take_arrivals():
            self._arrived(peer)

    def _arrived(self, peer: Connection) -> None:
        """The CONNECT of a connection has come, or it has been let in."""
        found = self._connections.get(peer.number)
        if found is None or self._gatekeeper is None:
            return
        if peer.state == CONNECTED:
            found.is_let_in = True
            self._gatekeeper.let_in(found.arrival)
        else:
            self._gatekeeper.asked(found.arrival)

    def _write(self) -> None:
        for peer in self._broker.take_ready():
            connection = self._connections.get(peer.number)
            data = peer.take()
            if connection is None:
                continue
            if data:
                connection.write(data)
            if peer.is_closing:
                connection.close()
        if self._paused:
            for connection in list(self._paused):
                if not _peer(connection).is_read_paused:
                    self._paused.discard(connection)
                    connection.pause_reading(False)

    def _commit(self) -> None:
        """Hand the next batch to the store, if none is under way."""
        broker = self._broker
        if broker.is_commit_under_way:
            return
        while (batch := broker.take_batch()) is not None:
            if not batch.is_empty:
                self._upkeep.committing()
                self._commit_from_ns = time.perf_counter_ns()
                self._writer.submit(partial(self._store.commit, batch), self._commit_done)
                return
            # Only sends waited: nothing needs the disk.
            broker.committed()
            broker.finish_turn()
        if self._settled is not None and not self._settled.done():
            self._settled.set_result(None)
        self._upkeep.idle()

    def _commit_done(self, _: object, error: BaseException | None) -> None:
        if error is not None:
            self._stop_for(error)
            return
        self._is_commit_done = True
        self._line_rests_until_s = 0.0
        self._commit_took_us = (time.perf_counter_ns() - self._commit_from_ns) // 1000
        self._upkeep.committed()
        # Used at once; a turn that is already scheduled will find nothing left to do.
        self._turn()

    def _read(self, wanted: ReadWanted) -> None:
        request = wanted.request
        job: Callable[[], ReadResult]
        if request is not None:
            is_count = wanted.purpose == COUNT
            job = partial(self._store.count if is_count else self._store.read, request)
        else:
            job = partial(self._store.fetch, wanted.lsns)
        self._reader.submit(job, partial(self._read_done, wanted))

    def _read_done(
        self, wanted: ReadWanted, found: ReadResult | None, error: BaseException | None
    ) -> None:
        if error is not None or found is None:
            self._stop_for(error if error is not None else AssertionError("no result"))
            return
        self._reads_done.append((wanted, found))
        self._schedule()

    # --- time

    def _set_timer(self) -> None:
        due_ms = self._broker.next_deadline_ms
        if due_ms == self._timer_ms:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_ms = due_ms
        self._tick_at_ms = -1.0
        if due_ms >= 0:
            delay_ms = min(max(due_ms - self._clock_ms(), TICK_MS_MIN), TICK_MS_MAX)
            self._tick_at_ms = self._loop.time() * 1000 + delay_ms
            self._timer = self._loop.call_later(delay_ms / 1000, self._timer_fired)

    def _missed_ms(self, now_ms: int) -> int:
        """The time until now that no client could use: there was none, or nobody listened.

        The clock was set forward, or the process was stopped, by a signal or with its machine. Then
        the timers come before the sockets, so what clients had sent is read only after that.
        """
        steady_ms = self._loop.time() * 1000
        passed_ms = steady_ms - self._steady_ms
        missed_ms = now_ms - self._now_ms - int(passed_ms)
        if 0 <= self._tick_at_ms < steady_ms - LATE_MS:
            missed_ms += int(steady_ms - self._tick_at_ms) + LATE_MS
            self._tick_at_ms = -1.0
        self._steady_ms = steady_ms
        self._now_ms = now_ms
        return missed_ms

    def _await_end_of_burst(self) -> None:
        """See to it that the log tells what was left out, whether or not more comes."""
        next_ms = self._event_log.next_ms
        if self._log_timer is None and next_ms >= 0:
            delay_s = max(next_ms - self._clock_ms(), 0) / 1000
            self._log_timer = self._loop.call_later(delay_s, self._end_bursts)

    def _end_bursts(self) -> None:
        self._log_timer = None
        self._event_log.end_bursts(self._clock_ms())
        self._await_end_of_burst()

    def _timer_fired(self) -> None:
        self._timer = None
        self._timer_ms = -1
        self._turn()

    # --- the end

    def _stop_for(self, error: BaseException) -> None:
        """Acknowledge nothing more, end all connections, tell the server."""
        if self._is_stopped:
            return
        self._is_stopped = True
        self.is_stopping = True
        if self._settled is not None and not self._settled.done():
            self._settled.set_result(None)
        if isinstance(error, StoreError):
            self._paused.clear()
            self._broker.end_all(*_farewell(error))
            self._write()
        else:
            for connection in list(self._connections.values()):
                connection.abort()
        self._leave()
        self._failed(error)

    async def stop(self) -> None:
        """End all connections, commit what follows from that, and stop the threads."""
        self.is_stopping = True
        if not self._is_stopped:
            self._broker.begin_turn(self._clock_ms())
            self._take_results()
            self._broker.shut_down()
            self._turn()
            if not self._is_stopped and self._broker.is_commit_under_way:
                self._settled = self._loop.create_future()
                await self._settled
            self._is_stopped = True
        for connection in list(self._connections.values()):
            connection.close()
        self._leave()
        self.release()

    def _leave(self) -> None:
        """Wait for nothing more that may take its time."""
        self._upkeep.stop()
        for timer in (self._timer, self._log_timer, self._line_timer):
            if timer is not None:
                timer.cancel()
        self._logins.leave()

    def release(self) -> None:
        """Wait until no thread uses the store any more; from any thread, once it is stopped."""
        self._writer.stop()
        self._reader.stop()

    def await_logins(self, patience_s: float) -> None:
        """Wait until no thread asks an authenticator; from any thread, once it is stopped."""
        self._logins.join(patience_s)


def _farewell(error: StoreError) -> tuple[int, str]:
    """The reason code and words for clients when the store has failed.

    They are to connect again and send again what was not acknowledged. Where the store is and what
    it said is for the operator alone.
    """
    if isinstance(error, StoreFull):
        return QUOTA_EXCEEDED, "the disk of the server is full"
    return IMPLEMENTATION_SPECIFIC_ERROR, "the store of the server has failed"


def _peer(connection: NetConnection) -> Connection:
    assert connection.peer is not None
    return connection.peer


def _host_of(address: str) -> str:
    """An address without its port."""
    return address.rpartition(":")[0].strip("[]")
