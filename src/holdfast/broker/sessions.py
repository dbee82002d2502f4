"""All sessions: how connections find, take over, leave and end them, and when wills are due.

Source: MQTT 5.0 §3.1, §3.2, §4.1; MQTT 3.1.1 §3.1.
"""

from typing import final

from holdfast.broker.commits import Commits
from holdfast.broker.connack import connack_properties
from holdfast.broker.connection import CONNECTED, Connection
from holdfast.broker.counters import Counters
from holdfast.broker.deadlines import SESSION_EXPIRY, WILL_DUE, Deadlines
from holdfast.broker.delayed import Delayed, is_delayed
from holdfast.broker.events import WARNING, Event
from holdfast.broker.limits import DEADLINES_SPARE, EXPIRY_NEVER, Limits
from holdfast.broker.queue_limits import QueueLimits
from holdfast.broker.reasons import explained
from holdfast.broker.router import Router
from holdfast.broker.session import Numbers, Session, Subscription
from holdfast.broker.shared_group import Group
from holdfast.broker.wills import check_will, message_of_will, stored_will, take_delay_s
from holdfast.errors import Refused
from holdfast.message import is_expired
from holdfast.protocol.encode import encode
from holdfast.protocol.packets import MQTT_5_0, Connack, Connect, Disconnect
from holdfast.protocol.reason_codes import (
    CLIENT_IDENTIFIER_NOT_VALID,
    QUOTA_EXCEEDED,
    SESSION_TAKEN_OVER,
    SUCCESS,
)
from holdfast.protocol.receiver import Qos2Receiver
from holdfast.protocol.topics import is_shared, is_sys_topic
from holdfast.store.records import (
    OPEN,
    LossRecord,
    Snapshot,
    SubscriptionRecord,
    unpack_gaps,
    unpack_in_flight,
)


@final
class Sessions:
    """The sessions by client identifier and by number."""

    def __init__(
        self,
        limits: Limits,
        commits: Commits,
        router: Router,
        queues: QueueLimits,
        delayed: Delayed,
        deadlines: Deadlines,
        counters: Counters,
        events: list[Event],
        instance: str,
        connections: dict[int, Connection],
        numbers: Numbers,
    ) -> None:
        self._limits = limits
        self._commits = commits
        self._router = router
        self._queues = queues
        self._delayed = delayed
        self._deadlines = deadlines
        self._counters = counters
        self._events = events
        self._instance = instance
        self._connections = connections
        self._by_client_id: dict[str, Session] = {}
        self._by_number: dict[int, Session] = {}
        self._numbers = numbers
        self.online = 0  # sessions with a connection
        self.online_max = 0  # at once, so far
        self._tidy_at = DEADLINES_SPARE  # so many deadlines, then those that no longer hold go

    @property
    def count(self) -> int:
        return len(self._by_number)

    def get(self, number: int) -> Session | None:
        return self._by_number.get(number)

    def find(self, client_id: str) -> Session | None:
        return self._by_client_id.get(client_id)

    # --- connecting

    def name(self, connection: Connection, packet: Connect) -> None:
        """Assign a client identifier if CONNECT has none: who judges the client is to know it.

        Raises Refused before 5.0 for a session that is to be kept: 3.1.1 [MQTT-3.1.3-8].
        """
        if packet.client_id:
            return
        if packet.version != MQTT_5_0 and not packet.clean_start:
            detail = "expected a client identifier with Clean Session 0"
            raise Refused(CLIENT_IDENTIFIER_NOT_VALID, detail)
        connection.client_id = f"auto-{self._instance}-{self._numbers.take()}"

    def connect(
        self,
        connection: Connection,
        packet: Connect,
        auth_data: bytes | None,
        now_ms: int,
    ) -> None:
        """Carry out a CONNECT: CONNACK leaves once the session's row is durable.

        ``auth_data`` is the last word of its authentication.

        Raises ProtocolError or Refused to refuse it; then nothing has changed.
        Source: [MQTT-3.1.4-3] to [MQTT-3.1.4-5].
        """
        is_v5 = packet.version == MQTT_5_0
        client_id = connection.client_id
        if packet.will is not None:
            check_will(packet.will, self._limits, connection.permissions)
        asked_s = _asked_expiry(packet, self._limits)
        connection.asked_expiry_s = asked_s
        expiry_s = min(asked_s, self._limits.session_expiry_max_s)
        self._end_overdue(client_id, now_ms)
        session = self._by_client_id.get(client_id)
        if session is None and 0 < self._limits.sessions_max <= self.count:
            detail = f"expected at most {self._limits.sessions_max} sessions, this is one more"
            raise Refused(QUOTA_EXCEEDED, detail)
        has_changed_store = False
        if session is not None:
            self._take_over(session, now_ms)
            if session.is_ended:
                session = None
            elif packet.clean_start:
                has_changed_store = session.is_recorded
                self._end(session, False, now_ms)
                session = None
        is_present = session is not None
        if session is None:
            session = self._create(client_id, packet.version, expiry_s)
        self._attach(session, connection, packet, expiry_s)
        if session.is_recorded:
            has_changed_store = True
        connack = Connack(is_present, SUCCESS, connack_properties(self._limits, connection, packet))
        if is_v5 and connack.properties is not None:
            if expiry_s != asked_s:
                connack.properties.session_expiry_interval = expiry_s
            if connection.auth_method is not None:
                # [MQTT-4.12.0-5], [MQTT-4.12.0-6]
                connack.properties.authentication_method = connection.auth_method
                connack.properties.authentication_data = auth_data
        wait = self._commits.filling if has_changed_store else self._router.removal_wait
        connection.answer(encode(connack, packet.version), wait)
        connection.is_resumed = is_present
        if is_present:
            self._router.resume(session)

    def _create(self, client_id: str, version: int, expiry_s: int) -> Session:
        session = Session(self._numbers.take(), client_id, version, expiry_s)
        session.position = self._commits.next_lsn
        self._by_client_id[client_id] = session
        self._by_number[session.number] = session
        return session

    def _attach(
        self,
        session: Session,
        connection: Connection,
        packet: Connect,
        expiry_s: int,
    ) -> None:
        connection.state = CONNECTED
        connection.framer.packet_bytes_max = connection.rules.packet_bytes_max
        connection.session = session
        session.connection = connection
        self.online += 1
        self.online_max = max(self.online_max, self.online)
        session.epoch += 1
        session.version = packet.version
        if session.is_durable and expiry_s == 0:
            # Nothing is logged for it from now on, but a crash may bring back that it is kept.
            self._router.removal_wait = self._commits.filling
        session.expiry_s = expiry_s
        session.disconnected_at_ms = 0
        session.is_reading = False
        session.resend = None
        # A will that was to be published later is cancelled by the return [MQTT-3.1.3-9].
        session.will_due_ms = 0
        session.will = None
        session.will_delay_s = 0
        if packet.will is not None:
            session.will_delay_s = take_delay_s(packet.will)
            session.will = stored_will(packet.will, session.client_id)
        window = self._limits.in_flight_max
        properties = packet.properties
        if properties is not None:
            receive_maximum = properties.receive_maximum
            if receive_maximum is not None and receive_maximum < window:
                window = receive_maximum
        session.window = window
        self._queues.came(session)
        self._router.tree.set_online(session, True)
        self._router.groups.online(session)
        keep_alive_s = connection.rules.keep_alive_s(packet.keep_alive)
        connection.keep_alive_ms = keep_alive_s * 1500
        if session.is_durable or session.will is not None:
            session.is_recorded = True
        if session.is_recorded:
            self._commits.touch_row(session)
            if session.epoch == 1:
                self._commits.touch(session)

    def _take_over(self, session: Session, now_ms: int) -> None:
        """End the connection that holds the session. Source: [MQTT-3.1.4-3]."""
        old = session.connection
        if old is None:
            return
        self._counters.takeovers += 1
        if old.is_v5:
            detail = "another connection has taken the session over"
            old.send_last(explained(old, Disconnect(SESSION_TAKEN_OVER), detail))
        self._detach(session, old, now_ms)

    def _detach(self, session: Session, connection: Connection, now_ms: int) -> None:
        """End the connection that a session has."""
        connection.session = None
        connection.close()
        self._connections.pop(connection.number, None)
        self.disconnected(session, now_ms)

    # --- leaving

    def disconnected(self, session: Session, now_ms: int) -> None:
        """The session's connection is gone: publish or put off its will, keep or end the rest."""
        session.connection = None
        self.online -= 1
        session.is_reading = False
        session.resend = None
        session.retained_waiting = None
        if session.expiry_s == 0:
            self._end(session, True, now_ms)
            return
        if not session.is_behind:
            session.is_behind = True
            session.position = self._commits.next_lsn
        self._router.tree.set_online(session, False)
        self._queues.left(session)
        self._router.groups.offline(session)
        session.disconnected_at_ms = now_ms
        self._commits.touch_row(session)
        self._commits.touch(session)
        self._commits.forget_closed(session)
        self._await_expiry(session)
        if session.will is not None:
            if session.will_delay_s == 0:
                self._publish_will(session, now_ms)
            else:
                session.will_due_ms = now_ms + session.will_delay_s * 1000
                self._await(WILL_DUE, session, session.will_due_ms)

    def end_full(self, session: Session, now_ms: int) -> None:
        """End a session whose queue is full, as the policy has it; what waited is lost."""
        connection = session.connection
        messages, size = self._queues.waiting(session)
        self._counters.lost += messages
        self._counters.lost_bytes += size
        text = f"queue is full with {messages} messages, {size} bytes: the session is ended"
        address = "" if connection is None else connection.address
        self._events.append(Event(WARNING, text, session.client_id, address))
        if connection is None:
            self._end(session, False, now_ms)
            return
        session.expiry_s = 0
        if connection.is_v5:
            detail = "the queue of the session is full"
            connection.send_last(explained(connection, Disconnect(QUOTA_EXCEEDED), detail))
        self._detach(session, connection, now_ms)

    def set_expiry(self, session: Session, expiry_s: int) -> None:
        """Change the Session Expiry Interval, as a DISCONNECT asks."""
        session.expiry_s = min(expiry_s, self._limits.session_expiry_max_s)
        if session.is_recorded:
            self._commits.touch_row(session)

    def forget_will(self, session: Session) -> None:
        """A normal DISCONNECT takes the will away. Source: [MQTT-3.14.4-3]."""
        if session.will is not None:
            session.will = None
            self._commits.touch_row(session)

    def due(self, kind: int, number: int, due_ms: int, now_ms: int) -> None:
        """An entry of the deadlines has come up: a will or an expiry may be due."""
        session = self._by_number.get(number)
        if session is None:
            return
        if kind == WILL_DUE:
            if session.will_listed_ms == due_ms:
                session.will_listed_ms = 0
                self._look_at_will(session, now_ms)
        elif session.expiry_listed_ms == due_ms:
            session.expiry_listed_ms = 0
            self._look_at_expiry(session, now_ms)

    def _look_at_will(self, session: Session, now_ms: int) -> None:
        if session.connection is None and session.will is not None and session.will_due_ms > 0:
            if session.will_due_ms <= now_ms:
                self._publish_will(session, now_ms)
            else:
                self._await(WILL_DUE, session, session.will_due_ms)

    def _look_at_expiry(self, session: Session, now_ms: int) -> None:
        if session.connection is None and session.expiry_s != EXPIRY_NEVER:
            if session.disconnected_at_ms + session.expiry_s * 1000 <= now_ms:
                self._counters.expired += 1
                self._end(session, False, now_ms)
            else:
                self._await_expiry(session)

    def _end_overdue(self, client_id: str, now_ms: int) -> None:
        """Do what is overdue for an absent session, though its deadline was not looked at yet."""
        session = self._by_client_id.get(client_id)
        if session is not None:
            self._look_at_will(session, now_ms)
            self._look_at_expiry(session, now_ms)

    def _await_expiry(self, session: Session) -> None:
        if session.expiry_s != EXPIRY_NEVER:
            due_ms = session.disconnected_at_ms + session.expiry_s * 1000
            self._await(SESSION_EXPIRY, session, due_ms)

    def _await(self, kind: int, session: Session, due_ms: int) -> None:
        """Have ``due`` look at the session at this time, with one entry at most per kind.

        One that comes earlier is enough: it puts itself off.
        """
        listed_ms = session.expiry_listed_ms if kind == SESSION_EXPIRY else session.will_listed_ms
        if 0 < listed_ms <= due_ms:
            return
        if kind == SESSION_EXPIRY:
            session.expiry_listed_ms = due_ms
        else:
            session.will_listed_ms = due_ms
        if self._deadlines.count >= self._tidy_at:
            self._tidy()
        self._deadlines.add(due_ms, kind, session.number)

    def _tidy(self) -> None:
        """Let the deadlines of sessions go that ended early or have an earlier one since.

        They may lie a century ahead, and whoever comes and goes makes one each time.
        """
        kept: list[tuple[int, int, int]] = []
        for entry in self._deadlines.entries:
            due_ms, kind, number = entry
            if kind in (SESSION_EXPIRY, WILL_DUE):
                session = self._by_number.get(number)
                if session is None:
                    continue
                is_expiry = kind == SESSION_EXPIRY
                if due_ms != (session.expiry_listed_ms if is_expiry else session.will_listed_ms):
                    continue
            kept.append(entry)
        self._deadlines.replace(kept)
        self._tidy_at = 2 * len(kept) + DEADLINES_SPARE

    def _end(self, session: Session, is_online: bool, now_ms: int) -> None:
        """End the session for good: its will, if one waits, is published; the rest goes.

        ``is_online`` says how its subscriptions stand in the tree.
        """
        router = self._router
        self._queues.ended(session, not is_online)
        for subscription in list(session.subscriptions.values()):
            if subscription.group is not None:
                router.groups.leave(subscription)
            else:
                router.tree.remove(subscription, is_online)
        session.subscriptions.clear()
        session.wildcards = None
        session.groups = None
        router.groups.ended(session)
        session.is_ended = True
        session.connection = None
        del self._by_client_id[session.client_id]
        del self._by_number[session.number]
        if session.will is not None:
            self._publish_will(session, now_ms)
        if session.is_recorded:
            session.is_recorded = False
            self._commits.batch.ended.append(session.number)
            router.removal_wait = self._commits.filling

    def _publish_will(self, session: Session, now_ms: int) -> None:
        """Publish the will, once: it goes from the session in the same batch [MQTT-3.1.2-10]."""
        will = session.will
        assert will is not None
        session.will = None
        session.will_due_ms = 0
        if session.is_recorded:
            self._commits.touch_row(session)
        message = message_of_will(will, now_ms)
        if is_delayed(message.topic):
            self._delayed.publish_will(message, session.publish_wait)
        else:
            self._router.publish(message, None, False, session.publish_wait)

    # --- start, space

    def restore(self, snapshot: Snapshot, now_ms: int) -> None:
        """Take up what the store holds.

        A session that was connected when the broker went down counts as disconnected now: its will
        is published, after its delay.
        """
        self._numbers.next = snapshot.next_session
        for record in snapshot.sessions:
            expiry_s = min(record.expiry_s, self._limits.session_expiry_max_s)
            session = Session(record.number, record.client_id, record.version, expiry_s)
            session.epoch = record.epoch
            session.will = record.will
            session.will_delay_s = record.will_delay_s
            session.will_due_ms = record.will_due_ms
            session.disconnected_at_ms = record.disconnected_at_ms
            session.is_recorded = True
            session.is_behind = True
            session.position = self._commits.next_lsn
            self._by_client_id[session.client_id] = session
            self._by_number[session.number] = session
        for group_record in snapshot.groups:
            self._router.groups.restore(group_record)
        for state in snapshot.states:
            session = self._by_number[state.session]
            session.position = state.cursor
            self._restore_in_flight(session, state.in_flight)
            session.received = Qos2Receiver(state.received)
            if state.gaps:
                self._queues.restore_gaps(session, unpack_gaps(state.gaps))
        for subscription_record in snapshot.subscriptions:
            self._restore_subscription(subscription_record)
        self._router.groups.restored()
        for loss in snapshot.losses:
            self._restore_loss(loss)
        for retained in snapshot.retained:
            message = retained.message
            if message is not None:
                self._router.retained.set(message)
                if is_expired(message, now_ms):
                    self._router.free_retained(message)
        for session in list(self._by_number.values()):
            self._restore_absence(session, now_ms)

    def _restore_loss(self, loss: LossRecord) -> None:
        session = self._by_number.get(loss.owner)
        if session is not None:
            self._queues.restore_loss(session, loss)
            return
        group = self._router.groups.get(loss.owner)
        if group is not None:
            self._queues.restore_loss(group, loss)

    def _restore_in_flight(self, session: Session, packed: bytes) -> None:
        numbers: dict[int, int] = {}
        session.sender.restore(unpack_in_flight(packed, numbers))
        group_of: dict[int, Group] = {}
        for packet_id, number in numbers.items():
            group = self._router.groups.get(number)
            if group is None:
                group = self._router.groups.ended_group(number)
            group_of[packet_id] = group
        if group_of:
            session.group_of = group_of
            self._router.note_unfiled(session)

    def _restore_subscription(self, record: SubscriptionRecord) -> None:
        session = self._by_number[record.session]
        subscription = Subscription(
            session, record.topic_filter, record.options, record.identifier, record.from_lsn
        )
        if record.until_lsn != OPEN:
            subscription.until_lsn = record.until_lsn
            if session.closed is None:
                session.closed = []
            session.closed.append(subscription)
            self._router.note_unfiled(session)
            return
        if is_shared(subscription.topic_filter):
            self._router.groups.join(subscription, False)
            session.add(subscription)
            return
        session.add(subscription)
        self._router.tree.add(subscription, False)

    def _restore_absence(self, session: Session, now_ms: int) -> None:
        if session.disconnected_at_ms == 0:
            session.disconnected_at_ms = now_ms
            self._commits.touch_row(session)
        if session.expiry_s == 0:
            self._end(session, False, now_ms)
            return
        self._await_expiry(session)
        self._router.groups.restore_in_flight(session)
        if session.will is None:
            return
        if session.will_due_ms == 0:
            session.will_due_ms = now_ms + session.will_delay_s * 1000
            self._commits.touch_row(session)
        self._await(WILL_DUE, session, session.will_due_ms)

    def count_behind(self) -> int:
        """How many sessions online are behind, and are fed from the log."""
        count = 0
        for connection in self._connections.values():
            session = connection.session
            if session is not None and session.is_behind:
                count += 1
        return count

    def behind_below(self, lsn: int) -> list[Session]:
        """The sessions that have not been given all of the log below an lsn."""
        return [
            session
            for session in self._by_number.values()
            if session.is_behind and session.position < lsn and _reads_log(session)
        ]

    def needed_from(self) -> int:
        """The smallest lsn that a session still needs; all below it may be trimmed."""
        needed = self._commits.next_lsn
        for session in self._by_number.values():
            if session.is_behind and session.position < needed and _reads_log(session):
                needed = session.position
            in_flight = session.sender.reference_min()
            if 0 < in_flight < needed:
                needed = in_flight
        return self._router.groups.needed_from(needed)


def _reads_log(session: Session) -> bool:
    """Whether anything in the log can be for this session.

    A session without a subscription at QoS 1 or 2 has nothing to read, nor has one that is only
    about ``$SYS``, which is never logged. One with an ended subscription may, and a retained
    message addressed to it is there for a subscription.
    """
    if session.closed is not None:
        for old in session.closed:
            if old.until_lsn > session.position:
                return True
    for subscription in session.subscriptions.values():
        if (
            subscription.qos > 0
            and subscription.group is None
            and not is_sys_topic(subscription.topic_filter)
        ):
            return True
    return False


def _asked_expiry(packet: Connect, limits: Limits) -> int:
    """The Session Expiry Interval of a CONNECT in seconds; before 5.0 it is the operator's."""
    if packet.version != MQTT_5_0:
        return 0 if packet.clean_start else limits.session_expiry_default_s
    properties = packet.properties
    if properties is None or properties.session_expiry_interval is None:
        return 0
    return properties.session_expiry_interval
