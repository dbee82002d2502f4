"""The engine: it turns what the event loop and the application bring into turns of the client.

A turn takes all that has come, computes what it leads to, hands one batch to the outbox file and
writes once to the network. One commit is under way at a time; what comes meanwhile is the next
batch. Nothing waits for a task, a timer or a lock of its own.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from holdfast.client.changes import Changes
from holdfast.client.commits import Commits, OutboxStore, fail, like, wake
from holdfast.client.composing import counted
from holdfast.client.connection import CLOSED, CONNECTED, ClientConnection
from holdfast.client.incoming import ACKNOWLEDGED, ReceivedMessage
from holdfast.client.options import OutboxLimits
from holdfast.client.outgoing import Outgoing
from holdfast.client.receipt import Receipt
from holdfast.client.receiving import Receiving
from holdfast.client.records import LoadedOutbox, RemoveOutgoing, SetSession
from holdfast.client.sending import DROPPED, NO_DUE, TOO_OLD, Sending
from holdfast.errors import (
    ConnectionLost,
    HoldfastError,
    LimitExceeded,
    ProtocolError,
    StoreError,
    UsageError,
)
from holdfast.logs import get_logger
from holdfast.protocol.properties import unpack_properties

# Between two looks for messages that have expired or are too old, since each looks at all; and
# between two log lines that say how many were dropped.
SWEEP_PAUSE_S: Final = 1.0
DROPPED_LOG_PAUSE_S: Final = 60.0

# How long an application may leave a full window as it is before that is told.
FULL_S: Final = 30.0

# Messages that a task may publish before the event loop has a turn, though it waits for nothing.
ACCEPTED_MAX: Final = 500

_log = get_logger(__name__)


class Transport(Protocol):
    """What the engine needs of an asyncio transport."""

    def write(self, data: bytes) -> None:
        """Send these bytes behind all others."""


class Engine:
    """Joins the protocol's halves, the outbox file and the transport of the moment.

    ``deliver`` gets the messages that arrived, ``notify`` is called when the connection has
    packets for it, ``broken`` when the server has broken the rules, ``failed`` when the outbox
    file is damaged, or by a defect: nothing is acknowledged from then on. ``acknowledge`` is called
    by a message's ``ack``, if that is not to be called on the event loop alone.

    After any other failure of the file, such as a full disk, what was to be stored is refused, and
    so is what comes. All else waits: nothing is sent or acknowledged that is not durable. The file
    is opened anew from time to time, until what waits is committed.
    """

    def __init__(
        self,
        *,
        store: OutboxStore | None,
        limits: OutboxLimits,
        in_flight_max: int,
        manual_ack: bool,
        deliver: Callable[[list[ReceivedMessage]], None],
        notify: Callable[[], None],
        broken: Callable[[ProtocolError], None],
        failed: Callable[[HoldfastError], None],
        acknowledge: Callable[[ReceivedMessage], Awaitable[None]] | None = None,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.limits = limits
        self.error: HoldfastError | None = None  # what has ended it: nothing is promised any more
        self.changes = Changes()
        is_durable = store is not None
        self.sending = Sending(self.changes, is_durable, in_flight_max)
        self.receiving = Receiving(
            self.changes, is_durable, manual_ack, acknowledge or self.acknowledge
        )
        self.connection: ClientConnection | None = None
        self.last_write_s = 0.0
        self.last_read_s = 0.0
        self._deliver = deliver
        self._notify = notify
        self._broken = broken
        self._failed = failed
        self._commits: Commits | None = None
        if store is not None:
            self._commits = Commits(
                store,
                self.changes,
                check=self.check,
                committed=self._committed,
                refused=self._not_stored,
                damaged=self._damaged,
            )
        self._transport: Transport | None = None
        self._is_paused = False  # the network takes nothing more at the moment
        self._written: list[Outgoing] = []  # of QoS 0, and not all of it has left
        self._is_scheduled = False
        self.accepted = 0  # messages, since the last turn
        self._is_overrun_told = False
        self._full_timer: asyncio.TimerHandle | None = None
        self._out: list[bytes] = []
        # Those who wait for room, and for the end of all.
        self._room: dict[asyncio.Future[None], Outgoing] = {}
        self._drained: list[asyncio.Future[None]] = []
        self._is_stopping = False
        # Old and expired messages are dropped.
        self._age_max_ms = int(limits.age_max_s * 1000)
        self._sweep_timer: asyncio.TimerHandle | None = None
        self._sweep_due_ms = NO_DUE
        self._swept_s = -SWEEP_PAUSE_S
        self._dropped: dict[str, int] = {}  # by reason, not yet logged
        self._dropped_logged_s = -DROPPED_LOG_PAUSE_S

    def start(self, loaded: LoadedOutbox, client_id: str) -> None:
        """Take over what an earlier process has left, to go on as this client.

        If that was another one, so was its session: no identifier means anything in this one.
        What that server had taken over is done, all else is new here.
        """
        is_other = loaded.client_id not in ("", client_id)
        sent_below = loaded.sent_below
        if is_other:
            waiting = [kept.seq for kept in loaded.outgoing if not kept.is_released]
            sent_below = min(waiting, default=loaded.next_seq)
        self.sending.sent_below = sent_below
        for kept in loaded.outgoing:
            if is_other and kept.is_released:
                self.changes.records.append(RemoveOutgoing(kept.seq))
                continue
            entry = Outgoing(
                kept.topic,
                kept.payload,
                kept.qos,
                kept.retain,
                unpack_properties(kept.packed_properties),
                kept.expires_at_ms,
                kept.queued_at_ms,
            )
            self.sending.restore(entry, kept.seq, kept.is_released)
        for held in loaded.incoming if not is_other else ():
            self.receiving.restore(held.packet_id, held.delivery_id, held.is_handed)
        if is_other:
            self.receiving.clear()
        if loaded.client_id != client_id:
            self.changes.records.append(SetSession(client_id, False, sent_below if is_other else 0))
            self.changes.is_urgent = True
        self.sending.next_seq = loaded.next_seq
        self.receiving.next_delivery_id = loaded.next_delivery_id

    async def stop(self) -> None:
        """Make durable what is left, and let go of the file. Those who still wait are told."""
        self._is_stopping = True
        room, self._room = self._room, {}
        for waiter in room:
            fail(waiter, ConnectionLost("the client was closed before there was room"))
        for waiter in self._drained:
            fail(waiter, ConnectionLost("the client was closed before all was sent"))
        self._drained.clear()
        for timer in (self._full_timer, self._sweep_timer):
            if timer is not None:
                timer.cancel()
        self._log_dropped()
        if self.error is None:
            kept = "" if self._commits is None else "; what is in the outbox file stays there"
            self.error = ConnectionLost(f"the client was closed before that was done{kept}")
        for entry in self.sending.unfinished():
            if isinstance(entry.watcher, Receipt):
                entry.watcher.finish(self.error)
        if self._commits is not None:
            await self._commits.stop()

    # --- what the application does

    def check(self) -> None:
        """Have a turn soon."""
        if not self._is_scheduled:
            self._is_scheduled = True
            self.loop.call_soon(self._scheduled_turn)

    def _check_loop(self) -> None:
        """Raise UsageError outside our loop: nothing would wake it, and messages would lie here."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            loop = None
        if loop is not self.loop:
            raise UsageError(
                "a Client belongs to the event loop that it was opened in: from another thread "
                "use loop.call_soon_threadsafe, or a SyncClient"
            )

    def has_room(self, entry: Outgoing, messages: int = 0, size: int = 0) -> bool:
        """Whether the outbox has room for a message behind those that wait for some.

        ``messages`` of ``size`` bytes are on their way here from another thread.
        """
        sending, limits = self.sending, self.limits
        messages += sending.messages
        return (
            not self._room
            and messages < limits.messages_max
            and (sending.bytes + size + entry.size <= limits.bytes_max or messages == 0)
        )

    def offer(self, entry: Outgoing) -> bool:
        """``accept`` a message if there is room for it; False if there is none."""
        sending, limits = self.sending, self.limits
        if (
            # What ``has_room`` finds, for nearly every message, without its call.
            self._room
            or sending.messages >= limits.messages_max
            or sending.bytes + entry.size > limits.bytes_max
        ) and not self.has_room(entry):
            return False
        self.accept(entry)
        return True

    def accept(self, entry: Outgoing) -> None:
        """Put a message into the outbox, where ``has_room`` has said that it may."""
        if self.error is not None or self._commits is not None:
            self.refuse_if_failed(entry)
        if not self._is_scheduled:
            self._check_loop()  # here, where it is asked once for a turn
            self._is_scheduled = True
            self.loop.call_soon(self._scheduled_turn)
        self.sending.accept(entry)
        self.accepted += 1

    def refuse_if_failed(self, entry: Outgoing) -> None:
        """Raise what keeps a message from being accepted, if anything does."""
        error = self.error
        if error is None and entry.qos > 0:
            error = self.failure
        if error is not None:
            raise like(error)

    @property
    def failure(self) -> StoreError | None:
        """Why the outbox file cannot be written for now."""
        return None if self._commits is None else self._commits.failure

    def room(self, entry: Outgoing) -> asyncio.Future[None]:
        """Done when the message was accepted, as soon as there is room, in order."""
        self.refuse_if_failed(entry)
        waiter: asyncio.Future[None] = self.loop.create_future()
        self._room[waiter] = entry
        waiter.add_done_callback(self._room_given_up)
        return waiter

    def _room_given_up(self, waiter: asyncio.Future[None]) -> None:
        if self._room.pop(waiter, None) is not None:
            self.check()  # there may be room for those behind it

    def drop_oldest(self, entry: Outgoing) -> None:
        """Make room for a message. Raises LimitExceeded if all that is left may be in flight."""
        self.refuse_if_failed(entry)
        while not self.has_room(entry):
            if not self.sending.drop_oldest():
                raise LimitExceeded("the outbox is full, and all that is in it may be in flight")
            self._dropped[DROPPED] = self._dropped.get(DROPPED, 0) + 1

    def durable(self, entry: Outgoing | None = None) -> asyncio.Future[None]:
        """Done when all is durable that was changed so far, or this message that was accepted.

        Fails with StoreError.
        """
        if self._commits is not None and self.error is None:
            return self._commits.durable(entry)
        waiter: asyncio.Future[None] = self.loop.create_future()
        if self.error is not None:
            waiter.set_exception(like(self.error))
        else:
            waiter.set_result(None)
        return waiter

    def drained(self) -> asyncio.Future[None]:
        """Done when nothing is left in the outbox."""
        waiter: asyncio.Future[None] = self.loop.create_future()
        if self.error is not None:
            waiter.set_exception(self.error)
            return waiter
        self._drained.append(waiter)
        waiter.add_done_callback(self._drained_given_up)
        self.check()
        return waiter

    def _drained_given_up(self, waiter: asyncio.Future[None]) -> None:
        if waiter in self._drained:
            self._drained.remove(waiter)

    def is_handed(self, message: ReceivedMessage) -> bool:
        """Let the application have a message; False: not before ``durable`` is done."""
        if not self.receiving.hand_over(message):
            return False
        if message.state == ACKNOWLEDGED:
            self.check()
        return True

    def done_with(self, message: ReceivedMessage) -> bool:
        """The application is done with a message; False: it is durable after ``durable``."""
        is_now = self.receiving.acknowledge(message)
        self.check()
        return is_now

    def acknowledge(self, message: ReceivedMessage) -> Awaitable[None]:
        """``ReceivedMessage.ack``."""
        waiter: asyncio.Future[None]
        if not self.done_with(message):
            return self.durable()
        waiter = self.loop.create_future()
        waiter.set_result(None)
        return waiter

    def give_up(self, error: HoldfastError) -> None:
        """Nothing is sent and promised any more: tell all who wait."""
        self.error = error
        if self._commits is not None:
            self._commits.give_up(error)
        waiters = [*self._drained, *self._room]
        self._drained = []
        self._room = {}
        for waiter in waiters:
            fail(waiter, error)
        for entry in self.sending.unfinished():
            if isinstance(entry.watcher, Receipt):
                entry.watcher.finish(error)

    # --- what the link does

    def connected(self, connection: ClientConnection, transport: Transport) -> None:
        """Speak over this connection, whose CONNECT is on its way."""
        self.connection = connection
        self._transport = transport
        self._is_paused = False

    def disconnected(self) -> None:
        """The connection is gone."""
        self.connection = None
        self._transport = None
        self._out.clear()
        self.sending.disconnected()
        self.receiving.disconnected()
        # Nobody will ever know what of it came through. At QoS 0 that is as good as it gets.
        written, self._written = self._written, []
        self.sending.written(written)
        self.check()

    def send(self, packet: bytes) -> None:
        """Send a packet of the connection itself, soon."""
        self._out.append(packet)
        self.check()

    @property
    def out(self) -> list[bytes]:
        """What the next turn writes first."""
        return self._out

    def receive(self, data: bytes) -> None:
        """Take the next bytes of the connection."""
        connection = self.connection
        if connection is None:
            return
        self.last_read_s = self.loop.time()
        try:
            connection.receive(data, self._out)
        except ProtocolError as error:
            self.turn()
            self._broken(error)
            return
        self.turn()

    def pause_writing(self) -> None:
        """Part of what was written waits for the network."""
        self._is_paused = True

    def resume_writing(self) -> None:
        """All that was written has left."""
        self._is_paused = False
        written, self._written = self._written, []
        self.sending.written(written)
        self.turn()

    # --- the turn

    def _scheduled_turn(self) -> None:
        self._is_scheduled = False
        self.turn()

    def turn(self) -> None:
        """Do all that can be done now."""
        try:
            self._turn()
        except Exception as defect:
            # Whoever waits has to learn that nothing comes any more.
            _log.failure("the client has stopped by a defect", defect)
            self._failed(ConnectionLost(f"the client has stopped by a defect: {defect!r}"))

    def _turn(self) -> None:
        self.accepted = 0
        connection = self.connection
        if connection is not None:
            if connection.events or connection.answered:
                self._notify()
            if not self.receiving.is_clearing:
                self.receiving.flush(self._out)
                if connection.state == CLOSED:
                    self._out.clear()  # nothing follows DISCONNECT [MQTT-3.14.4-1]
                elif connection.state == CONNECTED and not self._is_paused:
                    self._pump()
                elif self._out:
                    self._write()
        if self.receiving.arrived:
            arrived, self.receiving.arrived = self.receiving.arrived, []
            self._deliver(arrived)
            if self.receiving.is_overrun and not self._is_overrun_told:
                self._is_overrun_told = True
                _log.warning(
                    "the server sends more messages than it may before they are acknowledged"
                    " (Receive Maximum); they are taken"
                )
            if self.receiving.is_full and self._full_timer is None:
                seen = self.receiving.acknowledged
                self._full_timer = self.loop.call_later(FULL_S, self._look_whether_full, seen)
        if self.sending.finished:
            self._report()
        if self._room:
            self._give_room()
        if self._drained and self.sending.messages == 0:
            drained, self._drained = self._drained, []
            for waiter in drained:
                wake(waiter)
        due_ms = self.sending.due_ms(self._age_max_ms)
        if due_ms < self._sweep_due_ms and not self._is_stopping:
            self._plan_sweep(due_ms)
        if self._dropped:
            self._log_dropped_in_time()
        if self._commits is not None:
            self._commits.turn()

    def _look_whether_full(self, acknowledged: int) -> None:
        """Tell if the window is as full as it was, and nothing was acknowledged meanwhile."""
        self._full_timer = None
        if self.receiving.is_full and self.receiving.acknowledged == acknowledged:
            _log.warning(
                f"for {FULL_S:g} s the application has acknowledged none of the messages that it"
                " has or could take, and no more of QoS 1 and 2 come until it does"
            )

    def _pump(self) -> None:
        written = self.sending.pump(self._out, time.time_ns() // 1_000_000)
        if self._out:
            self._write()
        if written:
            if self._is_paused:
                self._written.extend(written)
            else:
                self.sending.written(written)
        if self.sending.has_more and not self._is_paused:
            self.check()

    def _write(self) -> None:
        transport = self._transport
        assert transport is not None
        out = self._out
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        self.last_write_s = self.loop.time()
        transport.write(data)

    def _report(self) -> None:
        finished, self.sending.finished = self.sending.finished, []
        for entry in finished:
            watcher = entry.watcher
            assert isinstance(watcher, Receipt)
            watcher.finish()

    def _give_room(self) -> None:
        """Accept those who wait for room, in order, as far as there is some."""
        room, sending, limits = self._room, self.sending, self.limits
        while room:
            waiter = next(iter(room))
            entry = room[waiter]
            if waiter.done():
                del room[waiter]  # given up
                continue
            if sending.messages >= limits.messages_max:
                return
            if sending.bytes + entry.size > limits.bytes_max and sending.messages > 0:
                return
            del room[waiter]
            sending.accept(entry)
            waiter.set_result(None)
            self.check()

    # --- old and expired messages

    def _plan_sweep(self, due_ms: int) -> None:
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
        self._sweep_due_ms = due_ms
        pause_s = self._swept_s + SWEEP_PAUSE_S - self.loop.time()
        wait_s = due_ms / 1000 - time.time()
        self._sweep_timer = self.loop.call_later(max(wait_s, pause_s, 0), self._sweep)

    def _sweep(self) -> None:
        self._sweep_timer = None
        self._sweep_due_ms = NO_DUE
        self._swept_s = self.loop.time()
        aged = self.sending.sweep(time.time_ns() // 1_000_000, self._age_max_ms)
        if aged > 0:
            self._dropped[TOO_OLD] = self._dropped.get(TOO_OLD, 0) + aged
        self.turn()

    def _log_dropped_in_time(self) -> None:
        """Say what was dropped: at once, and then once in a while."""
        if self.loop.time() >= self._dropped_logged_s + DROPPED_LOG_PAUSE_S:
            self._log_dropped()

    def _log_dropped(self) -> None:
        self._dropped_logged_s = self.loop.time()
        for reason, count in self._dropped.items():
            _log.warning(f"outbox: {counted(count)} {reason}", messages=count)
        self._dropped.clear()

    # --- the outbox file

    def _committed(self, batch: Changes) -> None:
        """What this batch promises is durable."""
        self.sending.committed(batch)
        self.receiving.committed(batch)
        connection = self.connection
        if batch.sends and connection is not None and connection.number == batch.connection:
            self._out.extend(batch.sends)

    def _not_stored(self, entries: list[Outgoing], error: StoreError) -> list[int]:
        """These cannot be stored, and neither can those that wait for room."""
        for waiter, entry in list(self._room.items()):
            if entry.qos > 0:
                fail(waiter, like(error))
        return self.sending.not_stored(entries, error)

    def _damaged(self, error: StoreError) -> None:
        self.give_up(error)
        self._failed(error)
