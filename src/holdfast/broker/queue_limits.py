"""The limits of what waits for one session or shared group, and what happens at them.

A queue is a stretch of the log, so nothing is kept per message. What waits is counted: for those
online as they are passed over, for absent sessions by the tallies of their filters. What a policy
drops is counted and told, and the number is kept with the session.
"""

from collections import deque
from typing import Final, final

from holdfast.broker.commits import Commits
from holdfast.broker.counters import Counters
from holdfast.broker.delivery import COUNT, DROP, Delivery, ReadWanted
from holdfast.broker.events import Event
from holdfast.broker.limits import (
    DROP_NEWEST,
    DROP_OLDEST,
    DROPPED_BYTES_MAX,
    DROPPED_MESSAGES_MAX,
    DROPS_MAX,
    LOSSES_WRITTEN_MS,
    REFUSE,
    Limits,
)
from holdfast.broker.losses import Losses
from holdfast.broker.queue import COUNT_TASK, DROP_TASK, END_TASK, NO_TASK, LogReader, Queue
from holdfast.broker.session import Session
from holdfast.broker.shared_group import Group
from holdfast.broker.tallies import full_session, may_overlap, tallied
from holdfast.broker.topic_tree import FilterNode, Route, Tally
from holdfast.message import Message, content_bytes, is_expired
from holdfast.store.records import (
    LOST_TO_QUEUE_LIMIT,
    OPEN,
    LogCount,
    LogEntry,
    LogSlice,
    LossRecord,
    ReadRequest,
)

_FAR: Final = 1 << 60  # more than any number of messages or bytes
_SLACK: Final = 64  # of a full queue, one part in so many goes at once


@final
class QueueLimits:
    """Counts what waits, and carries out the policy where it comes to the limit."""

    def __init__(
        self,
        limits: Limits,
        commits: Commits,
        counters: Counters,
        delivery: Delivery,
        events: list[Event],
    ) -> None:
        self.has_limits = limits.queued_messages_max > 0 or limits.queued_bytes_max > 0
        self.ending: list[LogReader] = []  # whose session is to end, whose queue to be emptied
        self.full = 0  # queues that make publishers be refused
        self._policy = limits.queue_policy
        self._messages_max = limits.queued_messages_max or _FAR
        self._bytes_max = limits.queued_bytes_max or _FAR
        self._commits = commits
        self._delivery = delivery
        self._losses = Losses(commits, counters, delivery, events)
        self._start_lsn = commits.next_lsn
        self._due: deque[LogReader] = deque()
        self._under_way = 0  # reads that count or drop
        self._open: dict[int, LogReader] = {}  # that lose what comes now
        self._write_at_ms = 0

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being dropped or counted."""
        return self._under_way == 0 and not self._due

    # --- counting

    def count_absent(self, nodes: list[FilterNode], message: Message) -> None:
        """One more message waits for the absent sessions of these filters."""
        if not self.has_limits:
            return
        size = content_bytes(message)
        for node in nodes:
            tally = node.tally
            if tally is None:
                tally = Tally()
                node.tally = tally
            tally.messages += 1
            tally.bytes += size
            if tally.messages >= tally.check_messages or tally.bytes >= tally.check_bytes:
                self._look_at_node(node, tally)

    def count_behind(self, reader: LogReader, message: Message) -> None:
        """One more message waits for a group, or for a session online that is behind."""
        if not self.has_limits:
            return
        queue = self._queue_of(reader)
        size = content_bytes(message)
        if queue.has_open_gap:
            self._losses.lose(reader, queue, 1, size, LOST_TO_QUEUE_LIMIT)
            return
        queue.messages += 1
        queue.bytes += size
        if self._is_at_limit(queue.messages, queue.bytes) and not queue.is_full:
            self._at_limit(reader, queue)

    def consumed(self, reader: LogReader, message: Message) -> None:
        """A message that waited is given to its session or group, or is for it no longer."""
        queue = reader.queue
        if queue is None:
            return
        queue.take(1, content_bytes(message))
        if queue.is_full and self._has_room(queue):
            self._release(reader, queue)

    def drained(self, reader: LogReader) -> None:
        """Nothing waits any longer."""
        queue = reader.queue
        if queue is None:
            return
        queue.clear()
        if queue.is_full:
            self._release(reader, queue)
        queue.is_told = False
        self._losses.tell(reader, queue)

    def left(self, session: Session) -> None:
        """A session that is kept has become absent; its subscriptions are filed as such."""
        if not self.has_limits and session.queue is None:
            return
        queue = self._queue_of(session)
        self._mark(session, queue)
        if queue.is_full:
            self._mark_full(session, 1)
        self._set_checks(session, queue)

    def came(self, session: Session) -> None:
        """An absent session is online again; its subscriptions are filed as absent still."""
        if session.queue is None and not self.has_limits:
            return
        queue = self._queue_of(session)
        if queue.is_asking:
            # Its answer will be for the epoch before.
            queue.is_asking = False
            queue.is_stale = False
            self._due.append(session)
        self._fold(session, queue)
        if queue.is_full:
            self._mark_full(session, -1)
        self._losses.tell(session, queue)

    def ended(self, reader: LogReader, is_absent: bool) -> None:
        """A session or group has ended, and with it its queue. It is still filed as it was."""
        queue = reader.queue
        if queue is None:
            return
        if queue.is_full:
            if is_absent:
                self._mark_full(reader, -1)
            queue.is_full = False
            if self._policy == REFUSE:
                self.full -= 1
        queue.task = NO_TASK
        self._losses.forget(reader)
        self._open.pop(reader.number, None)

    def waiting(self, reader: LogReader) -> tuple[int, int]:
        """How many messages and bytes wait, as far as is known."""
        queue = self._queue_of(reader)
        if queue.has_open_gap or not isinstance(reader, Session) or reader.connection is not None:
            return queue.messages, queue.bytes
        messages, size = tallied(reader)
        return (
            queue.messages + messages - queue.mark_messages,
            queue.bytes + size - queue.mark_bytes,
        )

    def _queue_of(self, reader: LogReader) -> Queue:
        queue = reader.queue
        if queue is None:
            queue = Queue()
            if reader.is_behind and reader.position < self._start_lsn:
                # From before the start: at most all that came since. Counted when it matters.
                queue.messages = self._start_lsn - reader.position
                queue.bytes = self._bytes_max if self._bytes_max < _FAR else 0
                queue.is_exact = False
            reader.queue = queue
        return queue

    def _mark(self, session: Session, queue: Queue) -> None:
        queue.mark_messages, queue.mark_bytes = tallied(session)

    def _fold(self, session: Session, queue: Queue) -> None:
        """Take what was tallied since the mark into the counts, or to what is lost."""
        messages, size = tallied(session)
        messages -= queue.mark_messages
        size -= queue.mark_bytes
        queue.mark_messages += messages
        queue.mark_bytes += size
        if messages == 0:
            return
        if queue.has_open_gap:
            self._losses.lose(session, queue, messages, size, LOST_TO_QUEUE_LIMIT)
            return
        queue.messages += messages
        queue.bytes += size
        if may_overlap(session):
            queue.is_exact = False  # a message under two of its filters was tallied twice

    def _is_at_limit(self, messages: int, size: int) -> bool:
        """Whether the policy is to act: before the limit is passed, or when it is."""
        if self._policy == REFUSE or self._policy == DROP_NEWEST:
            return messages >= self._messages_max or size >= self._bytes_max
        return messages > self._messages_max or size > self._bytes_max

    def _has_room(self, queue: Queue) -> bool:
        """Whether a full queue has room again.

        What is dropped makes a gap in the log, so it should not be opened for each message.
        """
        slack = 8 if self._policy == DROP_NEWEST else 0
        messages = self._messages_max - (self._messages_max // slack if slack else 0)
        size = self._bytes_max - (self._bytes_max // slack if slack else 0)
        return queue.messages < messages and queue.bytes < size

    def _look_at_node(self, node: FilterNode, tally: Tally) -> None:
        """Some absent session of a filter may have come to its limit."""
        room_messages = _FAR
        room_bytes = _FAR
        subscription = node.first_absent
        while subscription is not None:
            session = subscription.session
            queue = self._queue_of(session)
            if not queue.is_full and queue.task == NO_TASK:
                messages, size = self.waiting(session)
                if self._is_at_limit(messages, size):
                    self._fold(session, queue)
                    self._at_limit(session, queue)
                else:
                    share = len(session.subscriptions)
                    room_messages = min(room_messages, (self._messages_max - messages) // share)
                    room_bytes = min(room_bytes, (self._bytes_max - size) // share)
            subscription = subscription.absent_next
        tally.check_messages = tally.messages + max(1, room_messages)
        tally.check_bytes = tally.bytes + max(1, room_bytes)

    def _set_checks(self, session: Session, queue: Queue) -> None:
        """Have the tallies of an absent session looked at before it comes to its limit."""
        share = max(1, len(session.subscriptions))
        messages = max(1, (self._messages_max - queue.messages) // share)
        size = max(1, (self._bytes_max - queue.bytes) // share)
        for subscription in session.subscriptions.values():
            node = subscription.node
            if node is not None and node.tally is not None:
                tally = node.tally
                tally.check_messages = min(tally.check_messages, tally.messages + messages)
                tally.check_bytes = min(tally.check_bytes, tally.bytes + size)

    # --- at the limit

    def _at_limit(self, reader: LogReader, queue: Queue) -> None:
        if not queue.is_exact:
            self._want(reader, queue, COUNT_TASK)
        elif self._policy == DROP_OLDEST:
            self._want(reader, queue, DROP_TASK)
            self._tell(reader, queue, "the oldest are dropped")
        elif self._policy == REFUSE:
            queue.is_full = True
            self.full += 1
            self._mark_full(reader, 1)
            self._tell(reader, queue, "further ones are refused until it has taken some")
        elif self._policy == DROP_NEWEST:
            queue.is_full = True
            queue.gaps.append((self._commits.next_lsn, OPEN))
            self._open[reader.number] = reader
            self._touch(reader)
            self._tell(reader, queue, "further ones are dropped until it has taken some")
        else:
            self._want(reader, queue, END_TASK)

    def _want(self, reader: LogReader, queue: Queue, task: int) -> None:
        queue.task = task
        self._due.append(reader)

    def _mark_full(self, reader: LogReader, change: int) -> None:
        """Have the filters of an absent session refuse, or no longer."""
        if self._policy != REFUSE or not isinstance(reader, Session):
            return
        if reader.connection is not None and change > 0:
            return
        for subscription in reader.subscriptions.values():
            node = subscription.node
            if node is not None and subscription.qos > 0:
                if node.tally is None:
                    node.tally = Tally()
                node.tally.full += change

    def _release(self, reader: LogReader, queue: Queue) -> None:
        """A full queue of somebody online has room again."""
        queue.is_full = False
        if self._policy == REFUSE:
            self.full -= 1
        if queue.has_open_gap:
            self.close_gap(reader, queue)
        queue.is_told = False

    def close_gap(self, reader: LogReader, queue: Queue) -> None:
        """What comes from now on is not lost for it."""
        start = queue.gaps[-1][0]
        del queue.gaps[-1]
        if start < self._commits.next_lsn:
            queue.gaps.append((start, self._commits.next_lsn))
        self._open.pop(reader.number, None)
        self._touch(reader)
        self._losses.tell(reader, queue)

    def skip_gap(self, reader: LogReader) -> None:
        """Move the position of somebody behind to the end of the gap that it lies in."""
        queue = reader.queue
        if queue is None or not queue.gaps:
            return
        position = queue.past_gaps(reader.position)
        if position == OPEN:
            # All before the gap is given: there is room again.
            position = self._commits.next_lsn
            self.drained(reader)
        if position > reader.position:
            reader.position = position
            self._touch(reader)

    def refusal(self, route: Route) -> str:
        """Why a message with this route is refused, "" if it is not."""
        for node in route.absent:
            if node.tally is not None and node.tally.full > 0:
                return _full_queue(full_session(node))
        for target in route.targets:
            queue = target.session.queue
            if target.qos > 0 and queue is not None and queue.is_full:
                return _full_queue(target.session.client_id)
        for group in route.groups:
            if group.queue is not None and group.queue.is_full:
                return _full_queue(group.topic_filter)
        return ""

    def drop_below(self, reader: LogReader, lsn: int, reason: int) -> None:
        """Have everything below this lsn that still waits for it dropped."""
        queue = self._queue_of(reader)
        if queue.drop_below < lsn and reader.position < lsn:
            queue.drop_below = lsn
            queue.drop_reason = reason
            if queue.task == NO_TASK:
                self._due.append(reader)
            # Whatever else was to be done: with fewer messages it is to be looked at again.
            queue.task = DROP_TASK

    # --- what takes the store

    def work(self) -> None:
        """Begin with what is due, as far as reads may be under way. Call it once in a turn."""
        for _ in range(len(self._due)):
            if self._under_way >= DROPS_MAX:
                return
            reader = self._due.popleft()
            queue = reader.queue
            if reader.is_ended or queue is None or queue.is_asking or queue.task == NO_TASK:
                continue
            if queue.task == END_TASK:
                queue.task = NO_TASK
                self.ending.append(reader)
            elif queue.task == COUNT_TASK:
                self._count(reader, queue)
            elif reader.is_reading:
                self._due.append(reader)  # its position is about to move
            else:
                self._drop(reader, queue)

    def _count(self, reader: LogReader, queue: Queue) -> None:
        """Have what waits counted in the store; what is not durable yet is counted here."""
        commits = self._commits
        tail = self._delivery.tail
        queue.messages = 0
        queue.bytes = 0
        for lsn in range(max(commits.durable_lsn_end, reader.position), commits.next_lsn):
            entry = tail.get(lsn)
            if reader.is_for(entry):
                queue.messages += 1
                queue.bytes += content_bytes(entry.message)
        if isinstance(reader, Session) and reader.connection is None:
            self._mark(reader, queue)
        queue.count_end = commits.durable_lsn_end
        self._count_on(reader, queue, reader.position)

    def _count_on(self, reader: LogReader, queue: Queue, position: int) -> None:
        """Have the next stretch between two gaps counted, or see what has come out."""
        position = queue.past_gaps(position)
        if position != OPEN and position < queue.count_end:
            end = queue.next_gap(position, queue.count_end)
            self._ask(reader, queue, COUNT, position, end)
            return
        queue.task = NO_TASK
        queue.take(0, 0)
        if isinstance(reader, Session) and reader.connection is None:
            self._fold(reader, queue)
            self._set_checks(reader, queue)
        queue.is_exact = True
        if self._is_at_limit(queue.messages, queue.bytes) and not queue.is_full:
            self._at_limit(reader, queue)

    def _ask(self, reader: LogReader, queue: Queue, purpose: int, position: int, end: int) -> None:
        queue.is_asking = True
        self._under_way += 1
        request = ReadRequest(
            reader.number,
            min(position, end),
            end,
            reader.spans(),
            DROPPED_MESSAGES_MAX,
            DROPPED_BYTES_MAX,
        )
        wanted = ReadWanted(reader, reader.epoch, request, [])
        wanted.purpose = purpose
        self._delivery.reads.append(wanted)

    def count_done(self, wanted: ReadWanted, found: LogCount) -> None:
        """The store has counted a part of what waits."""
        self._under_way -= 1
        reader = wanted.reader
        queue = reader.queue
        if queue is None or reader.epoch != wanted.epoch or reader.is_ended:
            return
        is_stale = queue.is_stale
        queue.is_asking = False
        queue.is_stale = False
        if queue.task == COUNT_TASK and not is_stale:
            queue.messages += found.messages
            queue.bytes += found.bytes
            self._count_on(reader, queue, found.position)
        elif queue.task != NO_TASK:
            self._due.append(reader)

    def _drop(self, reader: LogReader, queue: Queue) -> None:
        """Drop the oldest: from the tail of the log at once, from the store by reading it."""
        commits = self._commits
        if isinstance(reader, Session) and reader.connection is None:
            self._fold(reader, queue)
        position = queue.past_gaps(reader.position)
        if position == OPEN or not self._must_drop(queue, position):
            self._dropped(reader, queue, max(position, reader.position))
            return
        tail = self._delivery.tail
        if position < tail.first:
            end = commits.durable_lsn_end
            if queue.drop_below > 0 and self._has_room_to_spare(queue):
                end = min(end, queue.drop_below)
            self._ask(reader, queue, DROP, position, queue.next_gap(position, end))
            reader.is_reading = True
            return
        entries: list[LogEntry] = []
        for lsn in range(position, min(commits.next_lsn, position + DROPPED_MESSAGES_MAX)):
            entries.append(tail.get(lsn))
        self._drop_entries(reader, queue, entries, position + len(entries))

    def drop_done(self, wanted: ReadWanted, found: LogSlice) -> None:
        """The store has read what is to be dropped."""
        self._under_way -= 1
        reader = wanted.reader
        queue = reader.queue
        if queue is None or reader.epoch != wanted.epoch or reader.is_ended:
            return
        queue.is_asking = False
        reader.is_reading = False
        self._delivery.want_pump_of(reader)
        if queue.task == DROP_TASK:
            self._drop_entries(reader, queue, found.entries, found.position)

    def _drop_entries(
        self, reader: LogReader, queue: Queue, entries: list[LogEntry], position: int
    ) -> None:
        """Drop from what comes next as much as has to go; ``position`` is behind all of it."""
        messages = 0
        size = 0
        for entry in entries:
            if not reader.is_for(entry):
                continue
            if not self._must_drop(queue, entry.lsn):
                position = entry.lsn
                break
            entry_bytes = content_bytes(entry.message)
            queue.take(1, entry_bytes)
            if not is_expired(entry.message, self._delivery.now_ms):
                messages += 1
                size += entry_bytes
        if messages > 0:
            reason = queue.drop_reason if queue.drop_below > 0 else LOST_TO_QUEUE_LIMIT
            self._losses.lose(reader, queue, messages, size, reason)
            self._losses.write(reader, queue)
        if position > reader.position:
            reader.position = position
            self._touch(reader)
        if position < self._commits.next_lsn and self._must_drop(queue, position):
            self._due.append(reader)
        else:
            self._dropped(reader, queue, position)

    def _dropped(self, reader: LogReader, queue: Queue, position: int) -> None:
        """Nothing more has to be dropped now."""
        queue.task = NO_TASK
        queue.drop_below = 0
        if position >= self._commits.next_lsn:
            queue.messages = 0
            queue.bytes = 0
        if isinstance(reader, Session) and reader.connection is None:
            self._fold(reader, queue)
            self._set_checks(reader, queue)
        if queue.is_full and self._has_room(queue):
            if isinstance(reader, Session) and reader.connection is None:
                self._mark_full(reader, -1)
            self._release(reader, queue)
        elif not queue.is_full and self._is_at_limit(queue.messages, queue.bytes):
            self._at_limit(reader, queue)  # more has come meanwhile

    def _must_drop(self, queue: Queue, lsn: int) -> bool:
        return lsn < queue.drop_below or (
            self._policy == DROP_OLDEST and not self._has_room_to_spare(queue)
        )

    def _has_room_to_spare(self, queue: Queue) -> bool:
        """Whether so much was dropped that the next messages do not bring it to the limit again."""
        messages = self._messages_max - self._messages_max // _SLACK
        size = self._bytes_max - self._bytes_max // _SLACK
        return queue.messages <= messages and queue.bytes <= size

    def empty(self, group: Group) -> None:
        """Let all go that waits for a group: END_SESSION has nothing else to end there."""
        queue = self._queue_of(group)
        self._losses.lose(group, queue, queue.messages, queue.bytes, LOST_TO_QUEUE_LIMIT)
        group.position = self._commits.next_lsn
        self._touch(group)
        self._losses.write(group, queue)
        self.forgotten(group)

    def forgotten(self, group: Group) -> None:
        """Nothing waits for a group any longer; what is read or counted for it is for nobody."""
        group.epoch += 1
        group.is_reading = False
        self.drained(group)
        queue = group.queue
        if queue is not None:
            queue.task = NO_TASK
            queue.is_asking = False
            queue.is_stale = False

    def write_losses(self, now_ms: int) -> None:
        """Have what was lost written, now and then: what is dropped as it comes is a number."""
        if 0 < self._write_at_ms - now_ms <= LOSSES_WRITTEN_MS:
            return
        self._write_at_ms = now_ms + LOSSES_WRITTEN_MS
        for reader in list(self._open.values()):
            if isinstance(reader, Session) and reader.connection is None:
                self._fold(reader, self._queue_of(reader))
        self._losses.write_all()

    # --- start

    def restore_loss(self, reader: LogReader, record: LossRecord) -> None:
        """Take up what a session or group had lost before the start."""
        queue = self._queue_of(reader)
        queue.lost_messages = record.messages
        queue.lost_bytes = record.bytes
        queue.lost_at_ms = record.at_ms
        queue.lost_reason = record.reason

    def restore_gaps(self, reader: LogReader, gaps: list[tuple[int, int]]) -> None:
        """Take up the gaps in what a session or group is given."""
        queue = self._queue_of(reader)
        queue.gaps = gaps
        if queue.has_open_gap and self._policy == DROP_NEWEST and self.has_limits:
            queue.is_full = True
            self._open[reader.number] = reader
        elif queue.has_open_gap:
            self.close_gap(reader, queue)  # the operator has changed the policy

    # --- for all of it

    def _tell(self, reader: LogReader, queue: Queue, what: str) -> None:
        messages, size = self.waiting(reader)
        self._losses.tell_full(reader, queue, f"{messages} messages, {size} bytes: {what}")

    def _touch(self, reader: LogReader) -> None:
        if isinstance(reader, Session):
            self._commits.touch(reader)
        else:
            assert isinstance(reader, Group)
            self._commits.touch_group(reader)


def _full_queue(name: str) -> str:
    return f"expected room in the queue of every subscriber, that of {name} is full"
