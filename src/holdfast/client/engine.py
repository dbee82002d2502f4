"""The engine: it turns what the event loop and the application bring into turns of the client.

A turn takes all that has come, computes what it leads to, hands one batch to the outbox file and
writes once to the network. One commit is under way at a time; what comes meanwhile is the next
batch. Nothing waits for a task, a timer or a lock of its own.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from holdfast.client.changes import Changes
from holdfast.client.connection import CONNECTED, ClientConnection
from holdfast.client.incoming import ACKNOWLEDGED, ReceivedMessage
from holdfast.client.options import OutboxLimits
from holdfast.client.outgoing import ACCEPTED, STORED, Outgoing
from holdfast.client.receipt import Receipt
from holdfast.client.receiving import Receiving
from holdfast.client.records import LoadedOutbox, Record
from holdfast.client.sending import Sending
from holdfast.errors import ConnectionLost, HoldfastError, LimitExceeded, ProtocolError, StoreError
from holdfast.logs import get_logger
from holdfast.protocol.properties import unpack_properties
from holdfast.worker import Worker

# What nobody waits for, such as that a message is done, is written with the next commit that
# somebody waits for, or after this time.
LAZY_S: Final = 0.05
# How long an application may leave a full window as it is before that is told.
FULL_S: Final = 30.0

_log = get_logger(__name__)


class OutboxStore(Protocol):
    """What the engine needs of an outbox file; see ``OutboxFile``."""

    def load(self) -> LoadedOutbox:
        """What an earlier process has left."""

    def commit(self, records: list[Record]) -> None:
        """Make these durable, all of them or none; on a thread of its own."""

    def close(self) -> None:
        """Let go of the file."""


class Transport(Protocol):
    """What the engine needs of an asyncio transport."""

    def write(self, data: bytes) -> None:
        """Send these bytes behind all others."""


class Engine:
    """Joins the protocol's halves, the outbox file and the transport of the moment.

    ``deliver`` gets the messages that arrived, ``notify`` is called when the connection has
    packets for it, ``broken`` when the server has broken the rules, ``failed`` when the outbox
    file has: nothing is acknowledged from then on.
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
        failed: Callable[[StoreError], None],
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.limits = limits
        self.error: HoldfastError | None = None  # what has ended it: nothing is promised any more
        self.changes = Changes()
        is_durable = store is not None
        self.sending = Sending(self.changes, is_durable, in_flight_max)
        self.receiving = Receiving(self.changes, is_durable, manual_ack, self.acknowledge)
        self.connection: ClientConnection | None = None
        self.last_write_s = 0.0
        self._store = store
        self._deliver = deliver
        self._notify = notify
        self._broken = broken
        self._failed = failed
        self._worker: Worker[None] | None = None
        self._transport: Transport | None = None
        self._is_paused = False  # the network takes nothing more at the moment
        self._written: list[Outgoing] = []  # of QoS 0, and not all of it has left
        self._is_scheduled = False
        self._full_timer: asyncio.TimerHandle | None = None
        self._out: list[bytes] = []
        self._committing: Changes | None = None
        self._lazy_timer: asyncio.TimerHandle | None = None
        # Those who wait: for the commit under way, for the next one, for room, for the end of all.
        self._this_commit: list[asyncio.Future[None]] = []
        self._next_commit: list[asyncio.Future[None]] = []
        self._room: deque[tuple[asyncio.Future[None], Outgoing]] = deque()
        self._drained: list[asyncio.Future[None]] = []

    def start(self) -> LoadedOutbox | None:
        """Take over what an earlier process has left; that is returned."""
        if self._store is None:
            return None
        self._worker = Worker("holdfast-outbox", self.loop)
        loaded = self._store.load()
        for kept in loaded.outgoing:
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
        for held in loaded.incoming:
            self.receiving.restore(held.packet_id, held.delivery_id, held.is_handed)
        self.sending.next_seq = loaded.next_seq
        self.receiving.next_delivery_id = loaded.next_delivery_id
        return loaded

    async def stop(self) -> None:
        """Make durable what is left, and let go of the file. Those who still wait are told."""
        for waiter, _ in self._room:
            _fail(waiter, ConnectionLost("the client was closed before there was room"))
        self._room.clear()
        for waiter in self._drained:
            _fail(waiter, ConnectionLost("the client was closed before all was sent"))
        self._drained.clear()
        while not isinstance(self.error, StoreError) and (
            self._committing is not None or self.changes.records
        ):
            self.error = None
            await self.durable()
        for timer in (self._lazy_timer, self._full_timer):
            if timer is not None:
                timer.cancel()
        for entry in self.sending.unfinished():
            if isinstance(entry.watcher, Receipt):
                entry.watcher.finish(
                    ConnectionLost("the client was closed before the message was acknowledged")
                )
        if self._worker is not None:
            self._worker.stop()
            self._worker = None
        if self._store is not None:
            self._store.close()

    # --- what the application does

    def check(self) -> None:
        """Have a turn soon."""
        if not self._is_scheduled:
            self._is_scheduled = True
            self.loop.call_soon(self._scheduled_turn)

    def has_room(self, entry: Outgoing) -> bool:
        """Whether the outbox has room for a message behind those that wait for some."""
        sending, limits = self.sending, self.limits
        return (
            not self._room
            and sending.messages < limits.messages_max
            and (sending.bytes + entry.size <= limits.bytes_max or sending.messages == 0)
        )

    def accept(self, entry: Outgoing) -> None:
        """Put a message into the outbox, where ``has_room`` has said that it may."""
        if self.error is not None:
            raise self.error
        self.sending.accept(entry)
        if not self._is_scheduled:
            self._is_scheduled = True
            self.loop.call_soon(self._scheduled_turn)

    def room(self, entry: Outgoing) -> asyncio.Future[None]:
        """Done when the message was accepted, as soon as there is room, in order."""
        waiter: asyncio.Future[None] = self.loop.create_future()
        if self.error is not None:
            waiter.set_exception(self.error)
            return waiter
        self._room.append((waiter, entry))
        return waiter

    def drop_oldest(self, entry: Outgoing) -> None:
        """Make room for a message. Raises LimitExceeded if all that is left is in flight."""
        for old in self.sending.waiting():
            if self.has_room(entry):
                return
            if old.stage == STORED:
                self.sending.drop(old, "dropped, the oldest of a full outbox")
        if not self.has_room(entry):
            raise LimitExceeded("the outbox is full, and all that is in it is in flight")

    def durable(self, entry: Outgoing | None = None) -> asyncio.Future[None]:
        """Done when all is durable that was changed so far, or this message that was accepted.

        Fails with StoreError.
        """
        waiter: asyncio.Future[None] = self.loop.create_future()
        if self.error is not None:
            waiter.set_exception(self.error)
        elif (
            self._committing is not None and entry is not None and entry not in self.changes.stored
        ):
            self._this_commit.append(waiter)
        else:
            self._next_commit.append(waiter)
            self.changes.is_urgent = True
            self.check()
        return waiter

    def drained(self) -> asyncio.Future[None]:
        """Done when nothing is left in the outbox."""
        waiter: asyncio.Future[None] = self.loop.create_future()
        if self.error is not None:
            waiter.set_exception(self.error)
            return waiter
        self._drained.append(waiter)
        self.check()
        return waiter

    async def hand_over(self, message: ReceivedMessage) -> None:
        """Let the application have a message, once it is durable that it has it."""
        if not self.receiving.hand_over(message):
            await self.durable()
        elif message.state == ACKNOWLEDGED:
            self.check()

    def is_handed(self, message: ReceivedMessage) -> bool:
        """The same where it need not wait; False if it has to (with ``durable``)."""
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
        waiters = [*self._next_commit, *self._drained, *(waiter for waiter, _ in self._room)]
        self._next_commit = []
        self._drained = []
        self._room.clear()
        for waiter in waiters:
            _fail(waiter, error)
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
        connection = self.connection
        if connection is not None:
            if connection.events or connection.answered:
                self._notify()
            self.receiving.flush(self._out)
            if connection.state == CONNECTED and not self._is_paused:
                self._pump()
            elif self._out:
                self._write()
        if self.receiving.arrived:
            arrived, self.receiving.arrived = self.receiving.arrived, []
            self._deliver(arrived)
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
                _wake(waiter)
        self._commit()

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
            waiter, entry = room[0]
            if waiter.done():
                room.popleft()  # given up
                continue
            if sending.messages >= limits.messages_max:
                return
            if sending.bytes + entry.size > limits.bytes_max and sending.messages > 0:
                return
            room.popleft()
            sending.accept(entry)
            waiter.set_result(None)
            self.check()

    # --- the outbox file

    def _commit(self) -> None:
        """Begin the next commit if somebody waits for it and none is under way."""
        changes = self.changes
        if self._store is None:
            if self._next_commit:
                waiters, self._next_commit = self._next_commit, []
                for waiter in waiters:
                    _wake(waiter)
            return
        if self._committing is not None or isinstance(self.error, StoreError):
            return
        if not changes.is_urgent:
            if changes.records and self._lazy_timer is None:
                self._lazy_timer = self.loop.call_later(LAZY_S, self._commit_lazily)
            return
        if self._lazy_timer is not None:
            self._lazy_timer.cancel()
            self._lazy_timer = None
        batch = changes.take()
        self._committing = batch
        self._this_commit, self._next_commit = self._next_commit, []
        if not batch.records:
            self._committed(None, None)
            return
        assert self._worker is not None
        store = self._store
        self._worker.submit(lambda: store.commit(batch.records), self._committed)

    def _commit_lazily(self) -> None:
        self._lazy_timer = None
        self.changes.is_urgent = True
        self.check()

    def _committed(self, _result: None, error: BaseException | None) -> None:
        batch = self._committing
        assert batch is not None
        self._committing = None
        waiters, self._this_commit = self._this_commit, []
        if error is not None:
            self._store_failed(error, batch, waiters)
            return
        for entry in batch.stored:
            if entry.stage == ACCEPTED:
                entry.stage = STORED
        self.receiving.marked(batch.marked)
        self.receiving.arrived.extend(batch.arrived)
        connection = self.connection
        if batch.sends and connection is not None and connection.number == batch.connection:
            self._out.extend(batch.sends)
        for waiter in waiters:
            _wake(waiter)
        self.check()

    def _store_failed(
        self, error: BaseException, batch: Changes, waiters: list[asyncio.Future[None]]
    ) -> None:
        """Nothing is promised any more: what the file holds is known only after it is read anew."""
        if not isinstance(error, StoreError):
            raise error
        for waiter in waiters:
            _fail(waiter, error)
        self.give_up(error)
        self._failed(error)


def _wake(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)


def _fail(waiter: "asyncio.Future[None]", error: BaseException) -> None:
    if not waiter.done():
        waiter.set_exception(error)
