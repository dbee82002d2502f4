"""Lives with limits: which ones, by seed, and what the checker holds the broker to then.

A refusal is no acknowledgement. What a policy drops is covered by the number that the queue of its
session or group has lost, and what comes is in order still.
"""

import random
from typing import TYPE_CHECKING, Final

from holdfast.broker.limits import (
    DROP_NEWEST,
    DROP_OLDEST,
    END_SESSION,
    LOG_POLICIES,
    QUEUE_POLICIES,
    REFUSE,
    Limits,
)
from holdfast.broker.queue import NO_TASK, LogReader, Queue
from holdfast.broker.shared_group import Group as BrokerGroup
from holdfast.broker.topic_tree import FilterNode
from holdfast.protocol.packets import (
    MQTT_5_0,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Puback,
    Publish,
    Pubrec,
    Suback,
    Subscribe,
)
from holdfast.protocol.reason_codes import QUOTA_EXCEEDED
from tests.sim.checker import Checker
from tests.sim.model import Message, Model, Owed, Session, covers
from tests.sim.taps import Answer, Tap, Violation

if TYPE_CHECKING:
    from holdfast.broker.broker import Broker
    from tests.sim.world import SlowWorld

DISK_FREE_MIN_BYTES: Final = 1000
OVER_MAX: Final = 100  # messages that a queue may hold above its limit: a turn, a read
_REFUSED_BEFORE_5_0: Final = 3  # CONNACK


def draw_limits(chance: random.Random, limits: Limits) -> None:
    """Give a run one or more limits."""
    limits.queue_policy = chance.randrange(len(QUEUE_POLICIES))
    limits.log_policy = chance.randrange(len(LOG_POLICIES))
    while not is_limited(limits):
        if chance.random() < 0.6:
            limits.queued_messages_max = chance.choice([1, 2, 3, 5, 10, 30])
        if chance.random() < 0.25:
            limits.queued_bytes_max = chance.choice([10, 100, 400])
        if chance.random() < 0.2:
            limits.log_messages_max = chance.choice([3, 8, 20])
        if chance.random() < 0.15:
            limits.log_age_max_s = chance.choice([1, 3])
        if chance.random() < 0.2:
            limits.disk_free_min_bytes = DISK_FREE_MIN_BYTES
        if chance.random() < 0.15:
            limits.sessions_max = chance.choice([2, 4])
        if chance.random() < 0.15:
            limits.subscriptions_max = chance.choice([1, 2])
        if chance.random() < 0.2:
            limits.retained_messages_max = chance.choice([1, 2])


def is_limited(limits: Limits) -> bool:
    return bool(
        has_queue_limit(limits)
        or limits.log_messages_max
        or limits.log_age_max_s
        or limits.disk_free_min_bytes
        or limits.sessions_max
        or limits.subscriptions_max
        or limits.retained_messages_max
    )


def has_queue_limit(limits: Limits) -> bool:
    return limits.queued_messages_max > 0 or limits.queued_bytes_max > 0


def may_drop(limits: Limits) -> bool:
    """Whether messages may be dropped that were acknowledged."""
    drops = limits.queue_policy in (DROP_OLDEST, DROP_NEWEST, END_SESSION)
    return bool(
        (has_queue_limit(limits) and drops)
        or limits.log_age_max_s
        or (limits.log_messages_max and limits.log_policy == DROP_OLDEST)
    )


class QueueLosses:
    """What the queues of the broker say that they have lost."""

    def __init__(self) -> None:
        self.world: SlowWorld | None = None

    def of(self, owner: str) -> int:
        assert self.world is not None
        reader = reader_of(self.world.broker, owner)
        return 0 if reader is None or reader.queue is None else reader.queue.lost_messages


def reader_of(broker: "Broker", owner: str) -> LogReader | None:
    if not owner.startswith("$share/"):
        return broker.sessions.find(owner)
    groups: list[BrokerGroup] = list(broker._router.groups._by_number.values())
    return next((group for group in groups if group.topic_filter == owner), None)


class LimitedChecker(Checker):
    """The promises of a broker with limits. ``is_refused``: what the broker said to the packet."""

    def __init__(self, model: Model) -> None:
        self.queue_losses = QueueLosses()
        super().__init__(model, self.queue_losses)
        self.limits = model.limits
        self.is_refused = False
        self._may_drop = may_drop(model.limits)
        self._skipped: dict[int, list[Owed]] = {}  # by serial: never to come, something newer did
        self._rejected: set[int] = set()  # connections whose CONNECT is refused
        self._ended: set[int] = set()  # connections whose session a limit has ended
        self._no_local: set[str] = set()  # clients that ever asked for it
        self._crashed: set[str] = set()  # sessions and groups that were there at a crash

    def crashed(self) -> None:
        super().crashed()
        self._crashed.update(self.model.sessions)
        self._crashed.update(self.model.groups)

    # --- what the broker is handed

    def _took_connect(self, tap: Tap, packet: Connect, will: Message | None) -> None:
        sessions_max = self.limits.sessions_max
        if self.is_refused:
            session = self.model.sessions.get(tap.client_id)
            if session is not None:
                self.model._due(session)
            count = len(self.model.sessions)
            if tap.client_id in self.model.sessions or not 0 < sessions_max <= count:
                text = f"CONNECT of {tap.client_id} with {count} sessions"
                raise Violation("refused", text, tap.client_id)
            tap.is_open = False
            self._rejected.add(tap.number)
            return
        super()._took_connect(tap, packet, will)
        if 0 < sessions_max < len(self.model.sessions):
            raise Violation("limit passed", f"{len(self.model.sessions)} sessions", tap.client_id)

    def _took_publish(self, tap: Tap, session: Session, packet: Publish, message: Message) -> None:
        if not self.is_refused:
            super()._took_publish(tap, session, packet, message)
            return
        self._check_refusal(message)
        if packet.qos == 0:
            return
        if tap.version != MQTT_5_0:
            tap.refused_id = packet.packet_id
            self._leave(tap, is_normal=False)
            return
        kind: type[Packet] = Puback if packet.qos == 1 else Pubrec
        tap.answers[kind].append(Answer(packet.packet_id, 0, [QUOTA_EXCEEDED]))

    def _check_refusal(self, message: Message) -> None:
        """There is a reason to refuse it."""
        limits = self.limits
        if limits.log_messages_max or limits.disk_free_min_bytes:
            return
        if limits.retained_messages_max and message.retain:
            return
        waiting = [s.owed for s in self.model.sessions.values() if self._wants(s, message)]
        waiting += [
            [owed for owed in group.owed if not owed.is_gone]
            for group in self.model.groups.values()
            if covers(group.topic_filter, message.topic)
        ]
        is_full = any(self._is_full(owed) for owed in waiting)
        # Its own messages count for a session with No Local until it has passed them over.
        is_full = is_full or any(
            self._wants(session, message)
            for session in self.model.sessions.values()
            if session.client_id in self._no_local
        )
        if limits.queue_policy != REFUSE or not is_full:
            counts = [len(owed) for owed in waiting]
            raise Violation("refused", f"{message}, with queues of {counts}", message.publisher)

    def _wants(self, session: Session, message: Message) -> bool:
        return any(covers(f, message.topic) for f in session.subscriptions)

    def _is_full(self, owed: list[Owed]) -> bool:
        limits = self.limits
        size = sum(len(one.message.payload) for one in owed)
        is_long = 0 < limits.queued_messages_max <= len(owed)
        return is_long or 0 < limits.queued_bytes_max <= size

    def _took_subscribe(self, tap: Tap, session: Session, packet: Subscribe) -> None:
        requests = packet.requests
        most = self.limits.subscriptions_max or len(requests) + len(session.subscriptions)
        refusal = QUOTA_EXCEEDED if tap.version == MQTT_5_0 else 0x80
        known = set(session.subscriptions)
        if any(request.no_local for request in requests):
            self._no_local.add(session.client_id)
        codes: list[int] = []
        packet.requests = []
        for request in requests:
            if request.topic_filter in known or len(known) < most:
                known.add(request.topic_filter)
                packet.requests.append(request)
                codes.append(request.qos)
            else:
                codes.append(refusal)
        super()._took_subscribe(tap, session, packet)
        answer = tap.answers[Suback].pop()
        operation = answer.operation if packet.requests else 0
        packet.requests = requests
        tap.answers[Suback].append(answer._replace(codes=codes, operation=operation))

    # --- sessions that the broker ends

    def closed(self, tap: Tap, *, is_stopping: bool) -> None:
        session = tap.session
        if session is not None and self._is_ended_by_limit(session) and session.link == tap.number:
            self._ended.add(tap.number)
            tap.is_open = False
            self._end_by_limit(session)
            return
        super().closed(tap, is_stopping=is_stopping)

    def look_for_ended(self) -> None:
        """The broker may have ended absent sessions."""
        for session in list(self.model.sessions.values()):
            if self._is_ended_by_limit(session):
                self._end_by_limit(session)

    def _is_ended_by_limit(self, session: Session) -> bool:
        world = self.queue_losses.world
        assert world is not None
        is_found = world.broker.sessions.find(session.client_id) is not None
        is_known = self.model.sessions.get(session.client_id) is session
        has_policy = self.limits.queue_policy == END_SESSION and has_queue_limit(self.limits)
        return is_known and not is_found and has_policy and self._is_full(session.owed)

    def _end_by_limit(self, session: Session) -> None:
        self.model.journal.begin()
        self.model.journal.set(session, "link", 0)
        self.model._end(session)

    # --- what leaves the broker

    def left(self, tap: Tap, packet: Packet) -> None:
        if tap.number in self._rejected and isinstance(packet, Connack):
            if packet.reason_code not in (QUOTA_EXCEEDED, _REFUSED_BEFORE_5_0):
                raise Violation("protocol", f"{tap.client_id} got {packet.reason_code:#x}")
            return
        if isinstance(packet, Disconnect) and packet.reason_code == QUOTA_EXCEEDED:
            if tap.number not in self._ended:
                raise Violation("thrown out", f"{tap.client_id} was told 0x97", tap.client_id)
            return
        super().left(tap, packet)

    def _left_answer(self, tap: Tap, packet: Packet) -> None:
        answers = tap.answers.get(type(packet))
        if answers and isinstance(packet, Puback | Pubrec) and answers[0].codes:
            answer = answers.popleft()
            if (packet.packet_id, packet.reason_code) != (answer.packet_id, QUOTA_EXCEEDED):
                text = f"{tap.client_id} got an answer to #{packet.packet_id}, which was refused"
                raise Violation("acknowledged and lost", text, tap.client_id)
            return
        super()._left_answer(tap, packet)

    def _left_publish(self, tap: Tap, session: Session, packet: Publish) -> None:
        before = self._order
        super()._left_publish(tap, session, packet)
        if self._may_drop and self._order > before:
            owed = session.in_flight[packet.packet_id].owed
            while not owed.is_slot and owed.group is None:
                skipped = super()._before(session, owed)
                if skipped is None:
                    break
                session.owed.remove(skipped)
                self._skipped.setdefault(session.serial, []).append(skipped)

    def _before(self, session: Session, owed: Owed) -> Owed | None:
        # What should have come first was dropped, or it is not owed when it comes.
        return None if self._may_drop else super()._before(session, owed)

    # --- the end

    def check_kept(self) -> None:
        if self._may_drop:
            self._check_losses()
        else:
            super().check_kept()

    def _check_losses(self) -> None:
        for session in self.model.sessions.values():
            missing = [*session.owed, *self._skipped.get(session.serial, [])]
            missing = [owed for owed in missing if not self.is_excused(session, owed)]
            self._check_lost(session.client_id, missing)
        for group in self.model.groups.values():
            missing = [owed for owed in group.owed if self._is_missing(group, owed)]
            self._check_lost(group.topic_filter, missing)

    def _check_lost(self, owner: str, missing: list[Owed]) -> None:
        if self.limits.queue_policy == DROP_NEWEST and owner in self._crashed:
            return  # the number may lack what was dropped in the seconds before a crash
        lost = self.losses.of(owner)
        if len(missing) > lost:
            text = f"{owner} never got {len(missing)}, {lost} are told: {missing}"
            raise Violation("lost in silence", text, owner, *[o.message.key for o in missing])

    def check_queues(self, world: "SlowWorld") -> None:
        """No queue is much longer than its limit."""
        limits = self.limits
        if limits.queued_messages_max == 0:
            return
        for reader in _readers(world.broker):
            if reader.queue is not None and reader.queue.is_exact:
                messages, _ = world.broker._queues.waiting(reader)
                if messages > limits.queued_messages_max + OVER_MAX:
                    raise Violation("memory", f"{messages} wait for {reader.name}", reader.name)

    def check_flags(self, broker: "Broker") -> None:
        """All is delivered: nothing is full, and nothing is to be done."""
        queues = broker._queues
        state = (queues.full, queues._open, list(queues._due), queues._under_way, queues.ending)
        if state != (0, {}, [], 0, []):
            raise Violation("a flag stays", f"{state}")
        for reader in _readers(broker):
            if reader.queue is not None:
                self._check_queue(reader, reader.queue)
        nodes = [broker._router.tree._root]
        while nodes:
            node: FilterNode = nodes.pop()
            if node.tally is not None and node.tally.full != 0:
                raise Violation("a flag stays", f"a filter is full {node.tally.full} times")
            nodes += [] if node.children is None else list(node.children.values())

    def _check_queue(self, reader: LogReader, queue: Queue) -> None:
        flags = (queue.is_full, queue.task, queue.is_asking, queue.has_open_gap, queue.drop_below)
        counts = (queue.messages, queue.bytes)
        if flags != (False, NO_TASK, False, False, 0) or counts != (0, 0):
            raise Violation("a flag stays", f"{reader.name}: {flags} {counts}", reader.name)
        drops = may_drop(self.limits)
        if queue.lost_messages < 0 or (queue.lost_messages and not drops):
            text = f"{reader.name} has lost {queue.lost_messages}"
            raise Violation("acknowledged and lost", text, reader.name)


def _readers(broker: "Broker") -> list[LogReader]:
    groups: list[LogReader] = list(broker._router.groups._by_number.values())
    return [*broker.sessions._by_number.values(), *groups]
