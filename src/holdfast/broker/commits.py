"""Which batch is being filled, which is under way, which are durable, and who waits for them.

Batches are numbered from 1. One is under way at a time; what arrives meanwhile fills the next.
"""

from typing import TYPE_CHECKING, final

from holdfast.store.records import (
    Batch,
    LogEntry,
    StateRecord,
    SubscriptionRecord,
    pack_in_flight,
)

if TYPE_CHECKING:
    from holdfast.broker.connection import Connection
    from holdfast.broker.session import Session
    from holdfast.broker.shared_group import Group


@final
class Commits:
    """The records that wait to be committed, and the sends that wait for them."""

    def __init__(self, next_lsn: int) -> None:
        self.filling = 1
        self.durable = 0
        self.next_lsn = next_lsn
        self.durable_lsn_end = next_lsn  # entries below it are durable
        self.batch = Batch()
        self.ready: list[Connection] = []
        self.drained: list[Session] = []  # whose connection had no room and has some again
        self.waiting_filling: list[Connection] = []
        self.waiting_committing: list[Connection] = []
        self._dirty: list[Session] = []
        self._dirty_rows: list[Session] = []
        self._dirty_groups: list[Group] = []
        self._lazy: list[Session] = []
        self._lazy_groups: list[Group] = []
        # The last word on each subscription in this batch, by its key; None takes it away.
        self._subscriptions: dict[tuple[int, str, int], SubscriptionRecord | None] = {}
        self._subscriptions_gone: list[SubscriptionRecord] = []
        self._taken_lsn_end = next_lsn

    @property
    def is_under_way(self) -> bool:
        return self.durable < self.filling - 1

    @property
    def has_lazy(self) -> bool:
        return len(self._lazy) > 0 or len(self._lazy_groups) > 0

    def append(self, entry: LogEntry) -> None:
        assert entry.lsn == self.next_lsn
        self.next_lsn += 1
        self.batch.entries.append(entry)

    def put_subscription(self, record: SubscriptionRecord) -> None:
        self._subscriptions[(record.session, record.topic_filter, record.from_lsn)] = record

    def remove_subscription(self, record: SubscriptionRecord) -> None:
        self._subscriptions[(record.session, record.topic_filter, record.from_lsn)] = None
        self._subscriptions_gone.append(record)

    def forget_closed(self, session: "Session") -> None:
        """The ended subscriptions that a session needs no longer go from the store as well."""
        for old in session.forget_closed():
            if session.is_recorded:
                # The state that makes it needless goes with it.
                self.touch(session)
                self.remove_subscription(old.record())

    def touch(self, session: "Session") -> None:
        """The session's state (cursor, packet identifiers) belongs into the batch being filled."""
        if not session.is_dirty:
            session.is_dirty = True
            self._dirty.append(session)

    def touch_row(self, session: "Session") -> None:
        """The session's row (expiry, epoch, will) belongs into the batch being filled."""
        if not session.is_row_dirty:
            session.is_row_dirty = True
            self._dirty_rows.append(session)

    def touch_lazily(self, session: "Session") -> None:
        """The session's state may be written a little later: a crash repeats QoS 1 messages."""
        if not session.is_dirty and not session.is_lazy:
            session.is_lazy = True
            self._lazy.append(session)

    def touch_group(self, group: "Group") -> None:
        """The shared group's cursor and what was given back belong into the batch being filled."""
        if not group.is_dirty:
            group.is_dirty = True
            self._dirty_groups.append(group)

    def touch_group_lazily(self, group: "Group") -> None:
        """The shared group may be written a little later: a crash repeats QoS 1 messages."""
        if not group.is_dirty and not group.is_lazy:
            group.is_lazy = True
            self._lazy_groups.append(group)

    def hurry_lazy(self) -> None:
        """What was put off goes into the batch being filled."""
        lazy_groups = self._lazy_groups
        self._lazy_groups = []
        for group in lazy_groups:
            group.is_lazy = False
            if group.is_recorded:
                self.touch_group(group)
        lazy = self._lazy
        self._lazy = []
        for session in lazy:
            session.is_lazy = False
            if session.is_recorded:
                self.touch(session)

    def wait_for_all(self) -> int:
        """The batch with which all is durable that is in memory now."""
        if (
            self._dirty
            or self._dirty_rows
            or self._dirty_groups
            or self._subscriptions
            or not self.batch.is_empty
        ):
            return self.filling
        return self.filling - 1

    def take(self) -> Batch | None:
        """The batch being filled, complete, to be committed now; None if there is nothing to do.

        To be called only when none is under way. An empty batch is given when sends wait for it:
        then nothing needs the disk.
        """
        assert not self.is_under_way
        batch = self.batch
        if not self.waiting_filling and self.wait_for_all() < self.filling:
            return None
        for session in self._dirty_rows:
            session.is_row_dirty = False
            if session.is_recorded:
                batch.sessions.append(session.row())
        self._dirty_rows = []
        for session in self._dirty:
            session.is_dirty = False
            if session.is_recorded:
                batch.states.append(
                    StateRecord(
                        session.number,
                        session.position if session.is_behind else self.next_lsn,
                        _packed_in_flight(session),
                        session.received.packed(),
                        _packed_gaps(session, self.next_lsn),
                    )
                )
        self._dirty = []
        if self._dirty_groups:
            for group in self._dirty_groups:
                group.is_dirty = False
                if group.is_recorded:
                    batch.groups.append(group.record(self.next_lsn))
            self._dirty_groups = []
        if self._subscriptions:
            self._take_subscriptions(batch)
        for connection in self.waiting_filling:
            connection.batch_taken()
        self.waiting_committing = self.waiting_filling
        self.waiting_filling = []
        self.batch = Batch()
        self._taken_lsn_end = self.next_lsn
        self.filling += 1
        return batch

    def _take_subscriptions(self, batch: Batch) -> None:
        batch.subscriptions_removed = self._subscriptions_gone
        self._subscriptions_gone = []
        # A batch ends sessions first: what one did before its end must not come behind that.
        ended = set(batch.ended)
        for record in self._subscriptions.values():
            if record is not None and record.session not in ended:
                batch.subscriptions.append(record)
        self._subscriptions = {}

    def committed(self) -> None:
        """The batch under way is durable: release what waited for it."""
        assert self.is_under_way
        self.durable += 1
        self.durable_lsn_end = self._taken_lsn_end
        waiting = self.waiting_committing
        self.waiting_committing = []
        for connection in waiting:
            connection.batch_durable()


def _packed_gaps(session: "Session", next_lsn: int) -> bytes:
    queue = session.queue
    if queue is None or not queue.gaps:
        return b""
    return queue.packed_gaps(session.position if session.is_behind else next_lsn)


def _packed_in_flight(session: "Session") -> bytes:
    group_of = session.group_of
    if group_of is None:
        return pack_in_flight(session.sender.in_flight)
    numbers: dict[int, int] = {}
    for packet_id, group in group_of.items():
        numbers[packet_id] = group.number  # though it may have ended: see ``Groups.ended_group``
    return pack_in_flight(session.sender.in_flight, numbers)
