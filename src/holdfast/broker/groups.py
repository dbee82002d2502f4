"""Shared subscriptions: groups of sessions that take turns at the messages of one filter.

A group is like a session that has members in place of a connection: it keeps a position in the
log, is live or behind, and waits while nobody is online. Source: MQTT 5.0 §4.8.2.
"""

from collections import deque
from typing import Final, final

from holdfast.broker.commits import Commits
from holdfast.broker.counters import Counters
from holdfast.broker.delivery import Delivery, ReadWanted
from holdfast.broker.limits import FEED_ENTRIES_MAX, READ_BYTES_MAX
from holdfast.broker.outgoing import Outgoing
from holdfast.broker.queue_limits import QueueLimits
from holdfast.broker.session import Numbers, Session, Subscription
from holdfast.broker.shared_group import (
    Group,
    choose,
    groups_of_in_flight,
    has_room,
    is_allowed,
    is_for_anyone,
    lent_key,
    room,
)
from holdfast.broker.topic_tree import TopicTree
from holdfast.message import Message, is_expired
from holdfast.protocol.sender import RELEASED
from holdfast.protocol.topics import is_sys_topic
from holdfast.store.records import (
    GroupRecord,
    LogEntry,
    LogSlice,
    ReadRequest,
    unpack_gaps,
    unpack_lsns,
)

GROUP_READ_MESSAGES_MAX: Final = 256  # of one read, as many as a usual window holds
# Reads under way at a time: a client may be in thousands of groups, and all share one reader.
GROUP_READS_MAX: Final = 8
WITHHELD_MAX: Final = 1000  # messages of one group that no member online has the right to


@final
class Groups:
    """All shared groups: who is in them, and who is given which message."""

    def __init__(
        self,
        strategy: int,
        numbers: Numbers,
        commits: Commits,
        counters: Counters,
        delivery: Delivery,
        queues: QueueLimits,
        tree: TopicTree,
    ) -> None:
        self._strategy = strategy
        self._numbers = numbers
        self._tree = tree
        self._commits = commits
        self._counters = counters
        self._delivery = delivery
        self._queues = queues
        self._by_filter: dict[str, Group] = {}
        self._by_number: dict[int, Group] = {}
        self._reads_under_way = 0
        # With their epochs; they count as reading.
        self._reads_waiting: deque[tuple[Group, int]] = deque()

    @property
    def count(self) -> int:
        return len(self._by_number)

    def find(self, topic_filter: str) -> Group | None:
        return self._by_filter.get(topic_filter)

    def get(self, number: int) -> Group | None:
        return self._by_number.get(number)

    # --- members

    def _create(self, number: int, topic_filter: str) -> Group:
        group = Group(number, topic_filter, self._commits.next_lsn)
        self._by_filter[topic_filter] = group
        self._by_number[number] = group
        self._tree.add_group(group)
        return group

    def _end(self, group: Group) -> None:
        """Nobody is left in the group: what it has queued goes with it."""
        assert not group.members
        group.is_ended = True
        self._queues.ended(group, False)
        del self._by_filter[group.topic_filter]
        del self._by_number[group.number]
        self._tree.remove_group(group)
        if group.is_recorded:
            group.is_recorded = False
            self._commits.batch.ended.append(group.number)

    def join(self, subscription: Subscription, is_online: bool) -> None:
        """Take in a member, or the new options of one; the first makes the group.

        One that is not online comes from the store: ``restored`` follows when all of them are in.
        """
        session = subscription.session
        topic_filter = subscription.topic_filter
        group = self._by_filter.get(topic_filter)
        if group is None:
            group = self._create(self._numbers.take(), topic_filter)
        old = group.members.get(session.number)
        group.members[session.number] = subscription
        if old is None:
            self._tree.shared_subscriptions += 1
        subscription.group = group
        if subscription.qos > 0:
            if group.queueing == 0 and group.is_recorded and is_online:
                # The queue begins here, not where the stored cursor was left.
                self._commits.touch_group(group)
            group.queueing += 1
        if session.is_durable and not group.is_recorded:
            self._record(group)
        if old is not None:
            if old.qos > 0:
                group.queueing -= 1
            if group.sticky is old:
                group.sticky = subscription
            if is_online:
                group.online[group.online.index(old)] = subscription
        elif is_online:
            self._came(group, subscription)
        if is_online:
            self._look_at_queue(group)
            self._delivery.want_pump(session)

    def _record(self, group: Group) -> None:
        """Its first durable member makes a group durable."""
        group.is_recorded = True
        self._commits.touch_group(group)
        for member in group.online:
            session = member.session
            if session.group_of is None or session.is_durable:
                continue
            sender = session.sender
            for packet_id, other in session.group_of.items():
                if other is group and sender.awaits_puback(packet_id):
                    group.lent[lent_key(session, packet_id)] = sender.reference(packet_id)

    def leave(self, subscription: Subscription) -> None:
        """Let a member go for good. What it was sent stays with it while its session lasts."""
        group = subscription.group
        assert group is not None
        del group.members[subscription.session.number]
        self._tree.shared_subscriptions -= 1
        if subscription.qos > 0:
            group.queueing -= 1
        if subscription in group.online:
            self._went(group, subscription)
        if group.members:
            self._look_at_queue(group)
        else:
            self._end(group)

    def online(self, session: Session) -> None:
        """The session is connected again: what it has not acknowledged is its own again.

        That may be of a group that it has left.
        """
        if session.group_of is not None:
            for group in groups_of_in_flight(session):
                group.stranded.pop(session.number, None)
        if session.groups is not None:
            for group in session.groups.values():
                self._came(group, group.members[session.number])

    def offline(self, session: Session) -> None:
        """The session's connection is gone, the session stays.

        What it has not acknowledged at QoS 1 goes to others if there are any online, and else
        waits for whoever comes first: the session itself, which is sent it again, or another.
        Source: [MQTT-4.8.2-4] for QoS 2.
        """
        if session.groups is not None:
            for group in session.groups.values():
                self._went(group, group.members[session.number])
        if session.group_of is not None:
            for group in groups_of_in_flight(session):
                if group.online:
                    self._give_back(session, group)
                else:
                    group.stranded[session.number] = session

    def ended(self, session: Session) -> None:
        """The session has ended: what it has not acknowledged at QoS 1 goes to other members.

        Source: [MQTT-4.8.2-5] for QoS 2.
        """
        if session.group_of is not None:
            for group in groups_of_in_flight(session):
                self._give_back(session, group)

    def acknowledged(self, session: Session, packet_id: int) -> None:
        """After an acknowledgement: a message of a group may need no other member any longer."""
        assert session.group_of is not None
        if session.sender.in_flight.get(packet_id, RELEASED) != RELEASED:
            return
        group = session.group_of.get(packet_id)
        session.forget_in_flight(packet_id)
        if group is None:
            return
        if group.lent.pop(lent_key(session, packet_id), None) is not None:
            self._commits.touch_group_lazily(group)

    def _came(self, group: Group, subscription: Subscription) -> None:
        group.online.append(subscription)
        for session in list(group.stranded.values()):
            self._give_back(session, group)
        self._offer_withheld(group)
        self._delivery.want_pump(subscription.session)

    def _went(self, group: Group, subscription: Subscription) -> None:
        index = group.online.index(subscription)
        del group.online[index]
        if index < group.next:
            group.next -= 1
        if group.sticky is subscription:
            group.sticky = None
        if not group.online:
            self._fall_behind(group, self._commits.next_lsn)
        elif group.is_behind:
            # What waited for this member, or was to be pumped with it, is another's turn now.
            self._want_pump(group)

    def cannot_take(self, session: Session, packet_id: int) -> None:
        """A message in flight is too large for the connection that the session has now.

        Another member may have it; at QoS 2 nobody else may.
        """
        assert session.group_of is not None
        group = session.group_of.get(packet_id)
        if group is not None and session.sender.awaits_puback(packet_id):
            self._take_back(session, group, [packet_id])

    def _give_back(self, session: Session, group: Group) -> None:
        """Take the QoS 1 messages of a group from a session, for another member."""
        group.stranded.pop(session.number, None)
        group_of = session.group_of
        assert group_of is not None
        packet_ids: list[int] = []
        for packet_id, of_group in group_of.items():
            if of_group is group and session.sender.awaits_puback(packet_id):
                packet_ids.append(packet_id)
        self._take_back(session, group, packet_ids)

    def _take_back(self, session: Session, group: Group, packet_ids: list[int]) -> None:
        sender = session.sender
        # After a crash, one of a session that was not kept may be known from its row as well.
        returned = set(group.returned)
        for packet_id in packet_ids:
            returned.add(sender.reference(packet_id))
            del sender.in_flight[packet_id]
            session.forget_in_flight(packet_id)
            group.lent.pop(lent_key(session, packet_id), None)
        if group.is_ended or group.queueing == 0 or not returned:
            return
        group.returned = sorted(returned)
        self._fall_behind(group, self._commits.next_lsn)
        if session.is_recorded:
            self._commits.touch(session)
        self._commits.touch_group(group)
        self._want_pump(group)

    def _look_at_queue(self, group: Group) -> None:
        """A group whose members all want QoS 0 has no queue."""
        if group.queueing == 0:
            group.is_behind = False
            group.returned = []
            group.withheld = []
            # A read under way is not for the queue that may begin later.
            self._queues.forgotten(group)
        elif not group.online:
            self._fall_behind(group, self._commits.next_lsn)

    def _fall_behind(self, group: Group, lsn: int) -> None:
        """From this entry of the log on, the group gives what it reads."""
        if not group.is_behind and group.queueing > 0:
            group.is_behind = True
            group.position = lsn

    def _want_pump(self, group: Group) -> None:
        self._delivery.want_pump_of(group)

    # --- handing out

    def give(self, group: Group, outgoing: Outgoing, lsn: int, wait: int) -> None:
        """Hand a message to one member online, or leave it in the log for later."""
        message = outgoing.message
        if group.is_behind and message.qos > 0:
            self._queues.count_behind(group, message)
            return
        if not self._hand(group, outgoing, lsn, wait) and not self._withhold(group, message, lsn):
            if lsn > 0 and group.queueing > 0:
                self._fall_behind(group, lsn)
                self._queues.count_behind(group, message)
            elif group.online:
                self._counters.dropped_qos0 += 1

    def _hand(self, group: Group, outgoing: Outgoing, lsn: int, wait: int) -> bool:
        """Hand a message to the member that the strategy chooses: False if it has to wait.

        If it is too large for that member another may have it, and it waits for one without room.
        """
        message = outgoing.message
        first = choose(group, message, self._strategy)
        if first is None:
            return False
        if self._send(group, first, outgoing, lsn, wait):
            return True
        is_given_up = True
        for other in group.online:
            if other is not first:
                if not is_allowed(other, message):
                    continue
                if not has_room(other, message.qos):
                    is_given_up = False
                elif self._send(group, other, outgoing, lsn, wait):
                    return True
        return is_given_up

    def _send(
        self, group: Group, member: Subscription, outgoing: Outgoing, lsn: int, wait: int
    ) -> bool:
        """Send a message to one member: False if it is too large for it.

        Durable before it leaves: that the group has handed it out.
        """
        message = outgoing.message
        session = member.session
        connection = session.connection
        assert connection is not None
        if lsn > 0 and group.is_recorded:
            self._commits.touch_group(group)
            wait = self._commits.filling
        qos = min(member.qos, message.qos)
        retain = message.retain and member.is_retain_as_published
        if qos == 0:
            data = outgoing.packet_to(connection, member, 0, retain, 0)
            return self._delivery.send(connection, message, data, wait)
        packet_id = self._delivery.deliver(
            session, connection, member, outgoing, lsn, qos, retain, wait
        )
        if packet_id == 0:
            return False
        if session.group_of is None:
            session.group_of = {}
            self._delivery.unfiled[session.number] = session
        session.group_of[packet_id] = group
        if qos == 1 and group.is_recorded and not session.is_durable:
            group.lent[lent_key(session, packet_id)] = lsn
        return True

    # --- catching up

    def pump(self, group: Group) -> None:
        """Hand out what waits, as far as the members have room."""
        if not group.is_behind or group.is_reading or not group.online:
            return
        tail = self._delivery.tail
        if group.returned:
            if group.returned[0] < tail.first:
                self._want_read(group)
                return
            self._give_returned(group, [], [])
            if group.returned:
                return
        self._queues.skip_gap(group)
        if group.position >= tail.first:
            self._feed(group)
        else:
            self._want_read(group)

    def _feed(self, group: Group) -> None:
        """Go on from the tail of the log; live again at its end."""
        position = group.position
        next_lsn = self._commits.next_lsn
        end = min(position + FEED_ENTRIES_MAX, next_lsn)
        if group.queue is not None:
            end = group.queue.next_gap(position, end)
        tail = self._delivery.tail
        while position < end:
            if not self._offer_next(group, tail.get(position)):
                break
            position += 1
        group.position = position
        if position >= next_lsn:
            group.is_behind = False
            self._queues.drained(group)
        elif position == end:
            self._want_pump(group)

    def _offer_next(self, group: Group, entry: LogEntry) -> bool:
        """Hand out the next entry of the log, as ``_offer`` does: it waits no longer then."""
        if not self._offer(group, entry):
            return False
        if group.queue is not None and group.is_for(entry):
            self._queues.consumed(group, entry.message)
        return True

    def _offer(self, group: Group, entry: LogEntry) -> bool:
        """Hand out an entry of the log if it is for this group: False if nobody has room."""
        message = entry.message
        if not group.is_for(entry) or is_expired(message, self._delivery.now_ms):
            return True
        outgoing = Outgoing(message, self._delivery.now_ms, None, False)
        wait = self._commits.filling if entry.lsn >= self._commits.durable_lsn_end else 0
        return self._hand(group, outgoing, entry.lsn, wait) or self._withhold(
            group, message, entry.lsn
        )

    def _withhold(self, group: Group, message: Message, lsn: int) -> bool:
        """Put aside what nobody online may have, so that the rest goes on: False if it is not so.

        It waits for a member with the right to it. When too much does, the group waits as a whole.
        """
        if lsn == 0 or len(group.withheld) >= WITHHELD_MAX or not group.online:
            return False
        if group.queueing == 0 or is_for_anyone(group.online, message):
            return False
        group.withheld.append(lsn)
        return True

    def permissions_changed(self, session: Session) -> None:
        """A member may be given other messages than before, and so may not be others' any more."""
        if session.groups is not None:
            for group in session.groups.values():
                self._offer_withheld(group)
                self._delivery.want_pump(session)

    def _offer_withheld(self, group: Group) -> None:
        """Have what was put aside looked at again."""
        if group.withheld:
            group.returned = sorted(group.returned + group.withheld)
            group.withheld = []
            self._fall_behind(group, self._commits.next_lsn)

    def _want_read(self, group: Group) -> None:
        """Have the store asked for what comes next, now or when it is the group's turn."""
        if room(group) <= 0:
            return
        group.is_reading = True
        if self._reads_under_way < GROUP_READS_MAX:
            self._read(group)
        else:
            self._reads_waiting.append((group, group.epoch))

    def _read(self, group: Group) -> None:
        """Ask the store for what members gave back, which comes first, or for what comes next."""
        self._reads_under_way += 1
        missing: list[int] = []
        tail_first = self._delivery.tail.first
        for lsn in group.returned:
            if lsn >= tail_first or len(missing) == GROUP_READ_MESSAGES_MAX:
                break
            missing.append(lsn)
        request: ReadRequest | None = None
        if not missing:
            end = self._commits.durable_lsn_end
            if group.queue is not None:
                end = group.queue.next_gap(group.position, end)
            request = ReadRequest(
                group.number,
                group.position,
                end,
                group.spans(),
                min(room(group), GROUP_READ_MESSAGES_MAX),
                READ_BYTES_MAX,
            )
        self._delivery.reads.append(ReadWanted(group, group.epoch, request, missing))

    def _read_next(self) -> None:
        """A read is done: the groups that waited longest are next, if they still have room."""
        self._reads_under_way -= 1
        while self._reads_waiting and self._reads_under_way < GROUP_READS_MAX:
            group, epoch = self._reads_waiting.popleft()
            if group.epoch == epoch and not group.is_ended:
                group.is_reading = False
                self.pump(group)

    def read_done(self, group: Group, wanted: ReadWanted, found: LogSlice) -> None:
        """Take what a read has brought, unless the group has forgotten its queue meanwhile."""
        if not group.is_ended and group.epoch == wanted.epoch:
            self._take_slice(group, found)
        self._read_next()

    def _take_slice(self, group: Group, found: LogSlice) -> None:
        group.is_reading = False
        if group.returned:
            # Given back meanwhile, and older: they come first.
            self._want_pump(group)
            return
        for entry in found.entries:
            if not self._offer_next(group, entry):
                # Whoever has room again says so.
                group.position = entry.lsn
                return
        group.position = found.position
        self._want_pump(group)

    def fetch_done(self, group: Group, wanted: ReadWanted, found: list[LogEntry]) -> None:
        """Take the entries that members gave back."""
        if not group.is_ended and group.epoch == wanted.epoch:
            group.is_reading = False
            if self._give_returned(group, wanted.lsns, found):
                self._want_pump(group)
        self._read_next()

    def _give_returned(self, group: Group, asked: list[int], found: list[LogEntry]) -> bool:
        """Hand out what members gave back and is in the tail or was found in the store.

        False if nobody has room for the next of it; it may also be still to be fetched.
        """
        tail = self._delivery.tail
        by_lsn: dict[int, LogEntry] = {}
        for entry in found:
            by_lsn[entry.lsn] = entry
        done = 0
        is_full = False
        for lsn in group.returned:
            next_entry = tail.get(lsn) if lsn >= tail.first else by_lsn.get(lsn)
            if next_entry is None:
                if lsn not in asked:
                    break
            elif not self._offer(group, next_entry):
                is_full = True
                break
            done += 1
        if done > 0:
            del group.returned[:done]
            self._commits.touch_group(group)
        return not is_full

    # --- start, space

    def restore(self, record: GroupRecord) -> None:
        """Take up a group from the store; its members follow by ``join``."""
        group = self._create(record.number, record.topic_filter)
        group.is_recorded = True
        group.is_behind = True
        group.position = record.cursor
        group.returned = unpack_lsns(record.returned)
        if record.gaps:
            self._queues.restore_gaps(group, unpack_gaps(record.gaps))

    def ended_group(self, number: int) -> Group:
        """A group that ended before the start, of which messages are in flight all the same.

        Nothing is known of it but its number, which has to be written again with these.
        """
        group = Group(number, "", self._commits.next_lsn)
        group.is_ended = True
        return group

    def restore_in_flight(self, session: Session) -> None:
        """What a restored session has not acknowledged may be given to another member."""
        if session.group_of is not None:
            for group in groups_of_in_flight(session):
                group.stranded[session.number] = session

    def restored(self) -> None:
        """All sessions are restored: end the groups that nobody is left in.

        Only now is it known whether anybody wants what a group has queued.
        """
        for group in list(self._by_number.values()):
            if group.members:
                self._look_at_queue(group)
            else:
                self._end(group)

    def behind_below(self, lsn: int) -> list[Group]:
        """The groups that have not handed out all of the log below an lsn."""
        return [
            group
            for group in self._by_number.values()
            if group.is_behind and group.position < lsn and group.queueing > 0
        ]

    def needed_from(self, needed: int) -> int:
        """The smallest lsn that a group still needs, at most ``needed``."""
        for group in self._by_number.values():
            if group.is_behind and not is_sys_topic(group.inner_filter):
                needed = min(needed, group.position)
                if group.returned:
                    needed = min(needed, group.returned[0])
            if group.withheld:
                needed = min(needed, *group.withheld)
        return needed
