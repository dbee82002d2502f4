"""Takes a message to everyone it is for: the log, the sessions online, the retained slot.

A message is routed when it arrives, and what follows from that (the log entry, the packet
identifiers it gets) goes into one batch; its packets wait for that batch. So a delivery costs one
commit, not two, and nobody sees a message or an identifier that a crash could take back.
"""

from typing import final

from holdfast.broker.commits import Commits
from holdfast.broker.connection import Connection
from holdfast.broker.counters import Counters
from holdfast.broker.delivery import DROP, Delivery, ReadWanted, takes_more
from holdfast.broker.groups import Groups
from holdfast.broker.limits import FEED_ENTRIES_MAX, READ_BYTES_MAX
from holdfast.broker.outgoing import Outgoing
from holdfast.broker.queue_limits import QueueLimits
from holdfast.broker.retained import Retained
from holdfast.broker.session import RetainedDelivery, Session, Subscription, without_no_local
from holdfast.broker.shared_group import Group, may_have_shared
from holdfast.broker.topic_tree import Route, TopicTree
from holdfast.message import Message, is_expired
from holdfast.protocol.encode import encode_pubrel
from holdfast.protocol.sender import RELEASED
from holdfast.store.records import LogEntry, LogSlice, ReadRequest, RetainedRecord


@final
class Router:
    """Publishing, delivery and catching up."""

    def __init__(
        self,
        commits: Commits,
        counters: Counters,
        delivery: Delivery,
        queues: QueueLimits,
        tree: TopicTree,
        groups: Groups,
    ) -> None:
        self.tree = tree
        self.retained = Retained(counters)
        self.groups = groups
        self.now_ms = 0
        self.had_match = False  # whether the last ``publish`` found any subscription
        self._commits = commits
        self._counters = counters
        self._delivery = delivery
        self._queues = queues
        # One for all publishes: a new one for each would cost a tenth of a QoS 0 message.
        self._outgoing = Outgoing(Message("", b"", 0, False), 0, None, False)
        self._retained_wait = 0  # the batch of the newest change to a retained message
        # The batch of the newest end of a subscription or session: until it is durable, a crash
        # brings back somebody who wanted what is acknowledged meanwhile.
        self.removal_wait = 0

    def begin_turn(self, now_ms: int) -> None:
        """From now on this is the time."""
        self.now_ms = now_ms
        self._delivery.now_ms = now_ms

    # --- publishing

    def publish(self, message: Message, wire: bytes | None, wire_is_v5: bool, after: int) -> int:
        """Route one message; returns the batch its acknowledgement waits for, 0 for none.

        ``after`` is the batch of the publisher's newest logged message: this one does not
        overtake it. ``wire``: see ``Outgoing``.
        """
        commits = self._commits
        route = self.tree.route(message.topic)
        targets = route.targets
        groups = route.groups
        absent = route.absent
        self.had_match = bool(absent or targets or groups)
        wait = 0
        lsn = 0
        if message.retain:
            wait = self._retain(message)
        if message.qos > 0 and (
            absent or _must_log(targets) or (len(groups) > 0 and _has_queue(groups))
        ):
            lsn = self._log(message, 0)
            wait = commits.filling
            if absent:
                self._queues.count_absent(absent, message)
        elif message.qos > 0 and self.removal_wait > commits.durable and wait == 0:
            wait = self.removal_wait
        if not targets and not groups:
            return wait
        deliver_wait = max(after, wait)
        outgoing = self._outgoing
        outgoing.begin(message, self.now_ms, wire, wire_is_v5)
        self._give_all(route, outgoing, lsn, deliver_wait)
        return wait

    def must_store(self, message: Message) -> bool:
        """Whether a message has to go to the store. What clears a retained one makes room there."""
        if message.retain and message.payload:
            return True
        route = self.tree.route(message.topic)
        return message.qos > 0 and (
            route.has_absent or _must_log(route.targets) or _has_queue(route.groups)
        )

    def publish_unlogged(self, topic: str, payload: bytes) -> None:
        """Publish a retained message that is of the moment: nothing of it reaches the store.

        Those online are given it at QoS 0, if they have room for it.
        """
        message = Message(topic, payload, 0, True)
        self.retained.set(message)
        route = self.tree.route(topic)
        if route.targets or route.groups:
            self._give_all(route, Outgoing(message, self.now_ms, None, False), 0, 0)

    def _log(self, message: Message, target: int) -> int:
        lsn = self._commits.next_lsn
        entry = LogEntry(lsn, message, target)
        self._commits.append(entry)
        self._delivery.tail.append(entry)
        self._counters.logged_payload_bytes += len(message.payload)
        return lsn

    def _retain(self, message: Message) -> int:
        """Fill or clear the retained slot. Source: [MQTT-3.3.1-5], [MQTT-3.3.1-6]."""
        commits = self._commits
        if message.payload:
            self.retained.set(message)
            commits.batch.retained.append(RetainedRecord(message.topic, message))
        else:
            self.retained.clear(message.topic)
            commits.batch.retained.append(RetainedRecord(message.topic, None))
        self._retained_wait = commits.filling
        return commits.filling

    def free_retained(self, message: Message) -> None:
        """Empty the slot of a retained message that has expired, if it still holds it.

        Nobody waits for that: should a crash bring the message back, it has still expired.
        """
        if self.retained.get(message.topic) is message:
            self.retained.clear(message.topic)
            self._commits.batch.retained.append(RetainedRecord(message.topic, None))

    def _give_all(self, route: Route, outgoing: Outgoing, lsn: int, wait: int) -> None:
        """Hand a message to all sessions online and to one member of each group."""
        publisher = outgoing.message.publisher
        self._counters.work += len(route.targets) + len(route.groups)
        for target in route.targets:
            subscription: Subscription | None = target
            if target.is_no_local and publisher == target.session.client_id:
                subscription = without_no_local(target)
            if subscription is not None:
                self._give(subscription, outgoing, lsn, wait)
        for group in route.groups:
            self.groups.give(group, outgoing, lsn, wait)

    def _give(self, subscription: Subscription, outgoing: Outgoing, lsn: int, wait: int) -> None:
        """Hand a message to one session online, or leave it in the log for later."""
        session = subscription.session
        connection = session.connection
        assert connection is not None
        message = outgoing.message
        qos = min(subscription.qos, message.qos)
        retain = message.retain and subscription.is_retain_as_published
        if (
            connection.permissions is not None
            and not (qos > 0 and session.is_behind)
            and not self._delivery.may_have(connection, message)
        ):
            return
        if qos == 0:
            if connection.has_room:
                data = outgoing.packet_to(connection, subscription, 0, retain, 0)
                self._delivery.send(connection, message, data, wait)
            else:
                self._counters.dropped_qos0 += 1
        elif session.is_behind:
            self._queues.count_behind(session, message)
        elif not takes_more(session, connection):
            self._fall_behind(session, message, lsn)
        else:
            self._delivery.deliver(
                session, connection, subscription, outgoing, lsn, qos, retain, wait
            )

    def _fall_behind(self, session: Session, message: Message, lsn: int) -> None:
        """From this message of the log on, the session is given what it reads."""
        assert lsn > 0
        self._queues.count_behind(session, message)
        session.is_behind = True
        session.position = lsn
        self._delivery.want_pump(session)

    # --- retained messages of a new subscription

    def send_retained(self, subscription: Subscription, messages: list[Message]) -> None:
        """Send the retained messages that match a subscription just made.

        To a durable session at QoS 1 or 2 they go through the log, addressed to it alone: there
        they can be sent again after their slot is replaced. Source: [MQTT-3.3.1-9].
        """
        session = subscription.session
        connection = session.connection
        assert connection is not None
        for message in messages:
            if is_expired(message, self.now_ms):
                self.free_retained(message)
                continue
            if not self._delivery.may_have(connection, message):
                continue
            if subscription.is_no_local and message.publisher == session.client_id:
                continue
            qos = min(subscription.qos, message.qos)
            if qos > 0 and session.is_durable:
                copy = Message(
                    message.topic,
                    message.payload,
                    qos,
                    True,
                    message.properties,
                    message.expires_at_ms,
                    message.publisher,
                )
                lsn = self._log(copy, session.number)
                if session.is_behind:
                    self._queues.count_behind(session, copy)
                else:
                    self._give_retained(session, subscription, copy, lsn)
            else:
                if session.retained_waiting is None:
                    session.retained_waiting = []
                    session.retained_next = 0
                session.retained_waiting.append(RetainedDelivery(message, subscription))
        if session.retained_waiting is not None:
            self._send_retained_waiting(session)

    def _give_retained(
        self, session: Session, subscription: Subscription | None, message: Message, lsn: int
    ) -> None:
        connection = session.connection
        assert connection is not None
        if not takes_more(session, connection):
            self._fall_behind(session, message, lsn)
            return
        outgoing = Outgoing(message, self.now_ms, None, False)
        wait = self._commits.filling
        self._delivery.deliver(
            session, connection, subscription, outgoing, lsn, message.qos, True, wait
        )

    def _send_retained_waiting(self, session: Session) -> None:
        """Send retained messages while there is room; what was replaced meanwhile went live."""
        waiting = session.retained_waiting
        connection = session.connection
        if waiting is None or connection is None:
            return
        index = session.retained_next
        while index < len(waiting) and connection.has_room:
            delivery = waiting[index]
            message = delivery.message
            subscription = delivery.subscription
            qos = min(subscription.qos, message.qos)
            if qos > 0 and session.in_flight_room <= 0:
                break
            index += 1
            if self.retained.get(message.topic) is not message:
                continue
            if is_expired(message, self.now_ms):
                self.free_retained(message)
                continue
            if session.subscriptions.get(subscription.topic_filter) is not subscription:
                continue
            if not self._delivery.may_have(connection, message):
                continue
            outgoing = Outgoing(message, self.now_ms, None, False)
            wait = self._retained_wait
            if qos == 0:
                data = outgoing.packet_to(connection, subscription, 0, True, 0)
                self._delivery.send(connection, message, data, wait)
            else:
                self._delivery.deliver(
                    session, connection, subscription, outgoing, 0, qos, True, wait
                )
        session.retained_next = index
        if index == len(waiting):
            session.retained_waiting = None

    # --- catching up

    @property
    def has_pumps(self) -> bool:
        return len(self._delivery.pumps) > 0 or len(self._commits.drained) > 0

    def pump(self) -> None:
        """Give the sessions that asked for it what they have room for."""
        if self._commits.drained:
            for session in self._commits.drained:
                self._delivery.want_pump(session)
            self._commits.drained = []
        pumps = self._delivery.pumps
        if not pumps:
            return
        self._delivery.pumps = []
        for session in pumps:
            session.is_pump_listed = False
            if session.connection is not None:
                self._pump(session)
                if session.groups is not None:
                    for group in session.groups.values():
                        self.groups.pump(group)

    def resume(self, session: Session) -> None:
        """A durable session is online again: resend what is in flight, then go on."""
        connection = session.connection
        assert connection is not None
        resend: list[int] = []
        for packet_id, value in session.sender.in_flight.items():
            if value == RELEASED:
                # The window holds up no PUBREL [MQTT-3.3.4-10].
                connection.send(encode_pubrel(packet_id), 0)
            else:
                resend.append(packet_id)
        if resend:
            session.resend = resend
        self._delivery.want_pump(session)

    def _pump(self, session: Session) -> None:
        if session.is_reading:
            return
        if session.resend is not None and not self._resend(session):
            return
        if session.retained_waiting is not None:
            self._send_retained_waiting(session)
        if not session.is_behind:
            return
        connection = session.connection
        assert connection is not None
        self._queues.skip_gap(session)
        if session.position >= self._delivery.tail.first:
            self._feed(session, connection)
        # However little room there is: the client may hold the rest of its window for long.
        elif connection.has_room and session.in_flight_room > 0:
            self._read(session)

    def _feed(self, session: Session, connection: Connection) -> None:
        """Go on from the tail of the log; live again at its end."""
        position = session.position
        end = self._commits.next_lsn
        if position + FEED_ENTRIES_MAX < end:
            end = position + FEED_ENTRIES_MAX
        if session.queue is not None:
            end = session.queue.next_gap(position, end)
        tail = self._delivery.tail
        while position < end:
            if session.in_flight_room <= 0 or not connection.has_room:
                break
            self._offer(session, connection, tail.get(position))
            position += 1
        session.position = position
        if position >= self._commits.next_lsn:
            self._go_live(session)
        elif position == end:
            self._delivery.want_pump(session)

    def note_unfiled(self, session: Session) -> None:
        """It may need of the log what no filter in the tree stands for."""
        self._delivery.unfiled[session.number] = session

    def _go_live(self, session: Session) -> None:
        session.is_behind = False
        self._queues.drained(session)
        self._commits.forget_closed(session)

    def _offer(self, session: Session, connection: Connection, entry: LogEntry) -> None:
        """Deliver an entry of the log if it is for this session."""
        message = entry.message
        if entry.target != 0 and entry.target != session.number:
            return
        subscription = session.subscription_for(entry)
        if entry.target == 0 and subscription is None:
            return
        if session.queue is not None:
            self._queues.consumed(session, message)
        if not self._delivery.may_have(connection, message):
            return
        if is_expired(message, self.now_ms):
            return
        outgoing = Outgoing(message, self.now_ms, None, False)
        wait = self._commits.filling if entry.lsn >= self._commits.durable_lsn_end else 0
        if entry.target != 0:
            self._delivery.deliver(
                session, connection, subscription, outgoing, entry.lsn, message.qos, True, wait
            )
        else:
            assert subscription is not None
            qos = min(subscription.qos, message.qos)
            retain = message.retain and subscription.is_retain_as_published
            self._delivery.deliver(
                session, connection, subscription, outgoing, entry.lsn, qos, retain, wait
            )

    def _read(self, session: Session) -> None:
        """Ask the store for what comes next."""
        session.is_reading = True
        end = self._commits.durable_lsn_end
        if session.queue is not None:
            end = session.queue.next_gap(session.position, end)
        request = ReadRequest(
            session.number,
            session.position,
            end,
            session.spans(),
            session.in_flight_room,
            READ_BYTES_MAX,
        )
        self._delivery.reads.append(ReadWanted(session, session.epoch, request, []))

    def read_done(self, wanted: ReadWanted, found: LogSlice) -> None:
        """Take what a read has brought, unless the session has moved on meanwhile."""
        if wanted.purpose == DROP:
            self._queues.drop_done(wanted, found)
            return
        session = wanted.reader
        if isinstance(session, Group):
            self.groups.read_done(session, wanted, found)
            return
        assert isinstance(session, Session)
        if session.epoch != wanted.epoch or session.connection is None:
            return
        session.is_reading = False
        connection = session.connection
        for entry in found.entries:
            if session.in_flight_room <= 0 or not connection.has_room:
                session.position = entry.lsn
                self._delivery.want_pump(session)
                return
            self._offer(session, connection, entry)
        session.position = found.position
        self._delivery.want_pump(session)

    # --- sending again

    def _resend(self, session: Session) -> bool:
        """Send again what was in flight: True when all of it is out.

        Only as many PUBLISH packets at a time as the window of the new connection takes.
        Source: [MQTT-4.4.0-1].
        """
        resend = session.resend
        connection = session.connection
        assert resend is not None
        assert connection is not None
        if not connection.has_room:
            return False
        in_flight = session.sender.in_flight
        tail_first = self._delivery.tail.first
        missing: list[int] = []
        room = session.window - (len(in_flight) - len(resend))
        for packet_id in resend:
            if in_flight.get(packet_id, RELEASED) != RELEASED:
                if room <= 0:
                    break
                room -= 1
                lsn = session.sender.reference(packet_id)
                if lsn < tail_first:
                    missing.append(lsn)
        if missing:
            session.is_reading = True
            self._delivery.reads.append(ReadWanted(session, session.epoch, None, missing))
            return False
        return self._resend_found(session, [], [])

    def fetch_done(self, wanted: ReadWanted, found: list[LogEntry]) -> None:
        """Take the entries that a session sends again."""
        session = wanted.reader
        if isinstance(session, Group):
            self.groups.fetch_done(session, wanted, found)
            return
        assert isinstance(session, Session)
        if session.epoch != wanted.epoch or session.connection is None:
            return
        session.is_reading = False
        self._resend_found(session, wanted.lsns, found)
        self._delivery.want_pump(session)

    def _resend_found(self, session: Session, asked: list[int], found: list[LogEntry]) -> bool:
        """Send again what is in the tail or was found in the store, as far as there is room."""
        resend = session.resend
        connection = session.connection
        assert resend is not None
        assert connection is not None
        tail = self._delivery.tail
        by_lsn: dict[int, LogEntry] = {}
        for entry in found:
            by_lsn[entry.lsn] = entry
        in_flight = session.sender.in_flight
        room = session.window - (len(in_flight) - len(resend))
        done = 0
        for packet_id in resend:
            if in_flight.get(packet_id, RELEASED) != RELEASED:
                lsn = session.sender.reference(packet_id)
                entry_found = tail.get(lsn) if lsn >= tail.first else by_lsn.get(lsn)
                if room <= 0 or not connection.has_room:
                    break
                if entry_found is None:
                    if lsn not in asked:
                        break
                    # The store no longer has it: it was acknowledged before a crash.
                    del in_flight[packet_id]
                    session.forget_in_flight(packet_id)
                elif self._send_again(session, connection, entry_found, packet_id):
                    room -= 1
                else:
                    # It took no room, and no acknowledgement will ask for the next one.
                    self._delivery.want_pump(session)
            done += 1
        del resend[:done]
        if not resend:
            session.resend = None
            return True
        return False

    def _send_again(
        self, session: Session, connection: Connection, entry: LogEntry, packet_id: int
    ) -> bool:
        """Send a message again.

        False if it is too large now, or for another to have, and its identifier free.
        """
        message = entry.message
        group = session.group_of.get(packet_id) if session.group_of is not None else None
        if group is not None:
            subscription = group.members.get(session.number)
        else:
            subscription = session.subscription_for(entry)
        retain = entry.target != 0 or (
            message.retain and subscription is not None and subscription.is_retain_as_published
        )
        qos = 1 if session.sender.awaits_puback(packet_id) else 2
        outgoing = Outgoing(message, self.now_ms, None, False)
        # In full, with no alias: those of the connection before are gone.
        data = outgoing.packet(subscription, connection.is_v5, qos, retain, True, packet_id)
        is_denied = not self._delivery.may_have(connection, message) or (
            group is not None and not may_have_shared(connection, message)
        )
        if is_denied or connection.is_too_large(data):
            if not is_denied:
                self._counters.too_large += 1
            if group is not None:
                self.groups.cannot_take(session, packet_id)
            session.sender.puback(packet_id)
            session.forget_in_flight(packet_id)
            is_open = session.sender.pubrec(packet_id, True)
            if is_open:
                # Its client may hold the identifier from the connection before, and would take
                # the next message under it for a repeat: PUBREL first, as if PUBREC had come.
                wait = 0
                if session.is_durable:
                    self._commits.touch(session)
                    wait = self._commits.filling
                connection.send(encode_pubrel(packet_id), wait)
            return is_open
        connection.send(data, 0)
        self._counters.sent += 1
        self._counters.sent_payload_bytes += len(message.payload)
        return True

    def committed(self) -> None:
        """Let go of the entries that are durable now, beyond what is kept for the sessions."""
        self._delivery.tail.let_go(self._commits.durable_lsn_end)


def _must_log(targets: list[Subscription]) -> bool:
    """Whether a QoS 1 or 2 message has to be logged for these sessions online.

    For a durable one it has to be, and for one that cannot take it now: what was acknowledged is
    read from the log later, never dropped.
    """
    for target in targets:
        if target.qos > 0:
            session = target.session
            connection = session.connection
            if (
                session.is_durable
                or session.is_behind
                or connection is None
                or not takes_more(session, connection)
            ):
                return True
    return False


def _has_queue(groups: list[Group]) -> bool:
    """Whether any of the groups has a member at QoS 1 or 2.

    Whoever is online: what a member does not acknowledge is read again for another.
    """
    return any(group.queueing > 0 for group in groups)
