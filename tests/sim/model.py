"""What MQTT says that clients are owed: a plain model, told each packet as the broker takes it.

Every change goes through a journal. A crash takes back the operations that were not in a durable
batch, so what the model says then is what the disk has to say.
"""

from functools import cache
from typing import NamedTuple

from holdfast.broker.limits import EXPIRY_NEVER, Limits
from tests.broker.holdings import Subscribed
from tests.broker.promises import is_match
from tests.sim.journal import Journal

DELAYED_GRACE_MS = 1000  # so late may a delayed message be published whose lifetime is over


@cache
def covers(topic_filter: str, topic: str) -> bool:
    """Whether a filter, the inner one if it is shared, matches a topic."""
    return is_match(inner_filter(topic_filter), topic)


def inner_filter(topic_filter: str) -> str:
    return topic_filter.split("/", 2)[2] if topic_filter.startswith("$share/") else topic_filter


class Message:
    """What somebody publishes. ``key`` is the beginning of its payload, "" for an empty one."""

    def __init__(
        self,
        key: str,
        publisher: str,
        topic: str,
        payload: bytes,
        qos: int,
        retain: bool,
        expiry_s: int,
        delay_s: int = 0,
    ) -> None:
        self.key = key
        self.publisher = publisher
        self.topic = topic
        self.payload = payload
        self.qos = qos
        self.retain = retain
        self.expiry_s = expiry_s  # 0 for never
        self.delay_s = delay_s  # it goes to $delayed, or is a will that waits so long
        self.routings = 0  # how often it was published: more than once only at QoS 1

    def __repr__(self) -> str:
        return f"{self.key or '(empty)'} on {self.topic} q{self.qos}{' retain' * self.retain}"


class Routed:
    """A message that was taken for publication, and until when it may be given to anybody."""

    def __init__(self, message: Message, operation: int, expires_ms: int) -> None:
        self.message = message
        self.operation = operation
        self.expires_ms = expires_ms  # 0 for never


class Owed:
    """One copy that a session, or a shared group, is to be given."""

    def __init__(
        self, routed: Routed, qos: int, retain: bool, identifiers: list[int], group: "Group | None"
    ) -> None:
        self.message = routed.message
        self.routed = routed
        self.operation = routed.operation  # that made it owed
        self.qos = qos
        self.retain = retain
        self.identifiers = identifiers
        self.group = group
        self.is_slot = False  # the retained message of a new subscription
        self.is_gone = False  # nobody is owed it any longer: acknowledged, or given up
        self.is_excused = False  # it may be given, but need not
        self.holder: Session | None = None  # the member that a group's copy was sent to
        self.link = 0  # on which connection it was sent last

    @property
    def has_one_lifetime(self) -> bool:
        """Whether it is clear when it expires: not if it was sent twice, or is delayed."""
        return self.message.routings == 1 and self.message.delay_s == 0

    @property
    def is_held(self) -> bool:
        """Whether the member that a group's copy was sent to is still on that connection."""
        return self.holder is not None and self.holder.link == self.link

    def __repr__(self) -> str:
        slot = ", from its retained slot" if self.is_slot else ""
        return f"{self.message} (operation {self.operation}{slot})"


class Flight:
    """A packet identifier that is in use towards a client."""

    def __init__(self, owed: Owed, qos: int, order: int) -> None:
        self.owed = owed
        self.qos = qos
        self.order = order
        self.released = 0  # the operation by which PUBREC came

    @property
    def is_released(self) -> bool:
        return self.released > 0


class Session:
    """A session as the broker should have it."""

    def __init__(self, client_id: str, serial: int, expiry_s: int) -> None:
        self.client_id = client_id
        self.serial = serial
        self.expiry_s = expiry_s
        self.link = 0  # the number of the connection that holds it, 0 while it is absent
        self.disconnected_at_ms = 0
        self.subscriptions: dict[str, Subscribed] = {}
        self.will: Message | None = None
        self.will_due_ms = 0
        self.held: dict[int, int] = {}  # QoS 2 received and not released: by which operation
        self.let_go: dict[int, int] = {}  # QoS 2 released: by which operation
        # What it is to be given at QoS 1 and 2. Giving is not taken back by a crash: it is durable
        # before it is seen.
        self.owed: list[Owed] = []
        self.in_flight: dict[int, Flight] = {}
        self.repeatable: dict[int, Flight] = {}  # acknowledged, but a crash may have forgotten that
        self.completed: set[int] = set()  # QoS 2 to its end: after a crash PUBREL may come again
        self.was_small = False  # large messages were too large for one of its connections

    @property
    def is_durable(self) -> bool:
        return self.expiry_s > 0


class Parting(NamedTuple):
    """A subscription at QoS 1 or 2 of a durable session that has come to its end."""

    operation: int
    client_id: str
    topic_filter: str
    no_local: bool

    def wants(self, message: Message) -> bool:
        is_own = self.no_local and message.publisher == self.client_id
        return message.qos > 0 and not is_own and covers(self.topic_filter, message.topic)


class Group:
    """A shared group: its members by client identifier, and what it has to hand out."""

    def __init__(self, topic_filter: str) -> None:
        self.topic_filter = topic_filter
        self.members: dict[str, Session] = {}
        self.ever: dict[str, int] = {}  # who ever was one, and at which QoS at most
        self.owed: list[Owed] = []
        self.repeatable: list[Owed] = []  # acknowledged, but a crash may have forgotten that

    @property
    def is_durable(self) -> bool:
        return any(member.is_durable for member in self.members.values())


class Model:
    """All sessions, groups, retained and delayed messages. ``now_ms`` is the broker's time."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.journal = Journal()
        self.now_ms = 0
        self.latest_ms = 0  # the latest time that the broker was ever told
        self.sessions: dict[str, Session] = {}
        self.groups: dict[str, Group] = {}
        self.ever_groups: list[Group] = []  # those too that have ended
        self.partings: list[Parting] = []  # those that a crash may take back
        self.retained: dict[str, Routed] = {}
        self.delayed: dict[int, tuple[int, Message]] = {}
        self.loose: dict[int, list[Owed]] = {}  # by connection: what it may be given, but need not
        self.needs_commit = (
            False  # whether the last ``publish`` has to be durable before its answer
        )
        self._next = 0

    def _number(self) -> int:
        self._next += 1
        return self._next

    # --- connecting

    def connect(
        self, client_id: str, link: int, clean: bool, expiry_s: int, will: Message | None
    ) -> tuple[Session, bool]:
        """Carry out a CONNECT: its session, and whether that was present."""
        journal = self.journal
        journal.begin()
        expiry_s = min(expiry_s, self.limits.session_expiry_max_s)
        session = self.sessions.get(client_id)
        if session is not None:
            self._due(session)
            if client_id in self.sessions and session.link:
                self.leave(session, is_normal=False)
            if client_id in self.sessions and clean:
                self._end(session)
            if client_id not in self.sessions:
                session = None
        is_present = session is not None
        if session is None:
            session = Session(client_id, self._number(), expiry_s)
            journal.put(self.sessions, client_id, session)
        journal.set(session, "link", link)
        if expiry_s == 0:
            self._part(session, list(session.subscriptions))
        journal.set(session, "expiry_s", expiry_s)
        journal.set(session, "disconnected_at_ms", 0)
        journal.set(session, "will", will)
        journal.set(session, "will_due_ms", 0)
        self.loose[link] = []
        return session, is_present

    def leave(self, session: Session, *, is_normal: bool, expiry_s: int | None = None) -> None:
        """The connection of a session is gone."""
        journal = self.journal
        journal.begin()
        if expiry_s is not None:
            if expiry_s == 0:
                self._part(session, list(session.subscriptions))
            expiry_s = min(expiry_s, self.limits.session_expiry_max_s)
            journal.set(session, "expiry_s", expiry_s)
        if is_normal:
            journal.set(session, "will", None)
        journal.set(session, "link", 0)
        journal.set(session, "disconnected_at_ms", self.now_ms)
        self._left(session)

    def _left(self, session: Session) -> None:
        will = session.will
        if session.expiry_s == 0:
            self._end(session)
        elif will is not None:
            # Its delay counts from when the connection went.
            due_ms = session.disconnected_at_ms + will.delay_s * 1000
            self.journal.set(session, "will_due_ms", due_ms)
            if will.delay_s == 0:
                self._publish_will(session)

    def _end(self, session: Session) -> None:
        journal = self.journal
        self._part(session, list(session.subscriptions))
        journal.drop(self.sessions, session.client_id)
        for topic_filter in session.subscriptions:
            if topic_filter in self.groups:
                self._leave_group(session, topic_filter)
        self._give_up(session)
        if session.will is not None:
            self._publish_will(session)

    def _give_up(self, session: Session) -> None:
        """What a group began to send to a session at QoS 2 ends with it [MQTT-4.8.2-5].

        It may have been begun without having left the broker yet.
        """
        for flight in session.in_flight.values():
            if flight.qos == 2 and flight.owed.group is not None:
                self.journal.set(flight.owed, "is_gone", True)
        for group in self.groups.values():
            if group.ever.get(session.client_id, 0) == 2:
                for owed in group.owed:
                    if owed.qos == 2 and not owed.is_held:
                        self.journal.set(owed, "is_excused", True)

    def _publish_will(self, session: Session) -> None:
        will = session.will
        assert will is not None
        self.journal.set(session, "will", None)
        self.journal.set(session, "will_due_ms", 0)
        self.route(will, 0)

    def _due(self, session: Session) -> None:
        """Do what is overdue for an absent session."""
        if session.link:
            return
        if 0 < session.will_due_ms <= self.now_ms:
            self._publish_will(session)
        end_ms = session.disconnected_at_ms + session.expiry_s * 1000
        if session.expiry_s != EXPIRY_NEVER and end_ms <= self.now_ms:
            self._end(session)

    def tick(self) -> None:
        """Time has passed."""
        self.journal.begin()
        for session in list(self.sessions.values()):
            self._due(session)
        due = [(ms, number) for number, (ms, _) in self.delayed.items() if ms <= self.now_ms]
        for due_ms, number in sorted(due):
            message = self.delayed[number][1]
            self.journal.drop(self.delayed, number)
            lasts_ms = message.expiry_s * 1000 + DELAYED_GRACE_MS
            if message.expiry_s == 0 or due_ms + lasts_ms > self.now_ms:
                self.route(message, due_ms)

    def crash(self, durable: int) -> None:
        """All after this operation is lost, and everybody's connection."""
        self.journal.roll_back(durable)
        self.partings.clear()
        self.loose.clear()

    def restart(self) -> None:
        """The broker starts: whoever was connected is so no longer."""
        journal = self.journal
        journal.begin()
        were_online = [session for session in self.sessions.values() if session.link]
        for session in were_online:
            journal.set(session, "link", 0)
            journal.set(session, "disconnected_at_ms", self.now_ms)
        for session in list(self.sessions.values()):
            if session in were_online:
                if session.will is not None and session.will.delay_s == 0 and session.expiry_s:
                    # The first look at the clock publishes it.
                    journal.set(session, "will_due_ms", self.now_ms)
                else:
                    self._left(session)
            elif session.expiry_s == 0:
                self._end(session)

    # --- subscriptions

    def subscribe(self, session: Session, topic_filter: str, new: Subscribed) -> bool:
        """Carry out one request of a SUBSCRIBE: whether there was none to this filter before."""
        journal = self.journal
        journal.begin()
        is_new = topic_filter not in session.subscriptions
        if not is_new:
            self._part(session, [topic_filter])
        journal.put(session.subscriptions, topic_filter, new)
        if topic_filter.startswith("$share/"):
            group = self.groups.get(topic_filter)
            if group is None:
                group = Group(topic_filter)
                journal.put(self.groups, topic_filter, group)
                self.ever_groups.append(group)
            journal.put(group.members, session.client_id, session)
            before = group.ever.get(session.client_id, 0)
            group.ever[session.client_id] = max(before, new.qos)
        return is_new

    def owe_retained(self, session: Session, topic_filter: str) -> None:
        """A SUBSCRIBE brings the retained messages of a filter, by what it said of it last."""
        if topic_filter.startswith("$share/"):
            return
        wanted = session.subscriptions[topic_filter]
        for routed in self.retained.values():
            message = routed.message
            if not covers(topic_filter, message.topic):
                continue
            if wanted.no_local and message.publisher == session.client_id:
                continue
            if 0 < routed.expires_ms <= self.now_ms:
                continue
            identifiers = [wanted.identifier] if wanted.identifier else []
            owed = Owed(routed, min(wanted.qos, message.qos), True, identifiers, None)
            owed.is_slot = True
            owed.operation = self.journal.operation
            self._owe(session, owed)

    def unsubscribe(self, session: Session, topic_filter: str) -> None:
        self.journal.begin()
        if topic_filter in session.subscriptions:
            self._part(session, [topic_filter])
            self.journal.drop(session.subscriptions, topic_filter)
            if topic_filter in self.groups:
                self._leave_group(session, topic_filter)

    def _part(self, session: Session, topic_filters: list[str]) -> None:
        if not session.is_durable:
            return
        for topic_filter in topic_filters:
            old = session.subscriptions[topic_filter]
            if old.qos > 0:
                operation = self.journal.operation
                parting = Parting(operation, session.client_id, topic_filter, old.no_local)
                self.partings.append(parting)

    def _leave_group(self, session: Session, topic_filter: str) -> None:
        group = self.groups[topic_filter]
        self.journal.drop(group.members, session.client_id)
        if not group.members:
            self.journal.drop(self.groups, topic_filter)

    # --- messages

    def publish(self, message: Message) -> Routed | None:
        """The broker takes a message: None if it is to be published later."""
        operation = self.journal.begin()
        self.needs_commit = False
        if message.delay_s > 0 and message.payload:
            self.needs_commit = True
            due_ms = self.now_ms + message.delay_s * 1000
            self.journal.put(self.delayed, operation, (due_ms, message))
            return None
        if message.delay_s > 0:
            for number, (_, waiting) in list(self.delayed.items()):
                if (waiting.topic, waiting.delay_s) == (message.topic, message.delay_s):
                    self.journal.drop(self.delayed, number)
                    self.needs_commit = True
            return None
        return self.route(message, 0)

    def route(self, message: Message, from_ms: int) -> Routed:
        """Take a message to everyone; its lifetime counts from ``from_ms``, 0 for now."""
        expires_ms = 0
        if message.expiry_s > 0:
            expires_ms = (from_ms or self.now_ms) + message.expiry_s * 1000
        routed = Routed(message, self.journal.operation, expires_ms)
        message.routings += 1
        if message.retain:
            self.needs_commit = True
            if message.payload:
                self.journal.put(self.retained, message.topic, routed)
            elif message.topic in self.retained:
                self.journal.drop(self.retained, message.topic)
        for session in self.sessions.values():
            self._route_to(session, routed)
        for group in self.groups.values():
            if covers(group.topic_filter, message.topic):
                owed = Owed(routed, message.qos, False, [], group)
                if message.qos > 0:
                    self._add(group.owed, owed)
                    self.needs_commit = self.needs_commit or group.is_durable
                else:
                    for member in group.members.values():
                        if member.link:
                            self.loose[member.link].append(owed)
        return routed

    def _route_to(self, session: Session, routed: Routed) -> None:
        message = routed.message
        found = [
            subscribed
            for topic_filter, subscribed in session.subscriptions.items()
            if not topic_filter.startswith("$share/")
            and covers(topic_filter, message.topic)
            and not (subscribed.no_local and message.publisher == session.client_id)
        ]
        if found:
            qos = min(message.qos, max(subscribed.qos for subscribed in found))
            retain = message.retain and any(s.retain_as_published for s in found)
            identifiers = sorted(s.identifier for s in found if s.identifier)
            self._owe(session, Owed(routed, qos, retain, identifiers, None))

    def _owe(self, session: Session, owed: Owed) -> None:
        # The slot of a session that is not kept may be replaced before it is sent.
        if owed.qos == 0 or (owed.is_slot and not session.is_durable):
            if session.link:
                self.loose[session.link].append(owed)
        else:
            self._add(session.owed, owed)
            self.needs_commit = self.needs_commit or session.is_durable

    def _add(self, target: list[Owed], owed: Owed) -> None:
        target.append(owed)
        self.journal.note(lambda: _take_out(target, owed))

    def lateness_ms(self, owed: Owed) -> int:
        """How long its time has been over, 0 if it was not at any moment so far."""
        return self.latest_ms - owed.routed.expires_ms + 1 if self.may_have_expired(owed) else 0

    def may_have_expired(self, owed: Owed) -> bool:
        """Whether its time was over at any moment so far."""
        return 0 < owed.routed.expires_ms <= self.latest_ms


def _take_out(target: list[Owed], owed: Owed) -> None:
    if owed in target:
        target.remove(owed)
