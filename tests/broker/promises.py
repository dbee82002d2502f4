"""What the broker owes to whom, as plain as it can be: the model that random walks compare with.

Every change has an index. All up to ``durable_to`` is known to be on the disk, because a packet
that promises it was seen. A crash may take back any later one, but none before an earlier one.
"""

from collections import Counter
from typing import NamedTuple, TypeVar

NEVER_S = 0xFFFF_FFFF

Value = TypeVar("Value")


class Subscribed(NamedTuple):
    """The options of a subscription."""

    qos: int
    no_local: bool
    identifier: int


class Sent:
    """One message of a publisher; ``key`` is its payload, by which a receiver tells it."""

    def __init__(
        self, publisher: str, number: int, topic: str, qos: int, retain: bool, clears: bool
    ) -> None:
        self.publisher = publisher
        self.topic = topic
        self.qos = qos
        self.retain = retain
        self.clears = clears  # it goes out without its key
        self.key = f"{publisher}.{number}"
        self.index = 0  # of its newest routing
        self.sends = 0  # how often it was routed: more than once only at QoS 1

    def __repr__(self) -> str:
        return f"{self.key} on {self.topic} q{self.qos}{' retain' if self.retain else ''}"


class Owed:
    """What one session is to get of one message: at least ``at_least``, at most ``at_most``."""

    def __init__(self, message: Sent) -> None:
        self.message = message
        self.qos: set[int] = set()
        # Subscription Identifiers that may and that must come along.
        self.identifiers: tuple[Counter[int], Counter[int]] = Counter(), Counter()
        # Each routing that must be kept, and whether it must outlive the connection.
        self.promised: list[tuple[int, bool]] = []
        self.copies = 0
        self.repeats = 0  # QoS 1 messages that a crash may bring again
        self.is_settled = False  # its acknowledgement is on the disk
        self.got = 0
        self.got_qos_2 = 0


class Held:
    """A session as the broker should have it."""

    def __init__(self, client_id: str, expiry_s: int) -> None:
        self.client_id = client_id
        self.number = 0
        self.expiry_s = expiry_s
        self.is_stored = expiry_s > 0  # the disk may have a row of it
        self.is_online = True
        self.disconnected_at_ms = 0
        # Since when it is absent, 0 while it is not: surely on the disk, and the changes since.
        self.absences: list[tuple[int, int]] = []
        self.subscriptions: dict[str, Subscribed] = {}
        self.stored: dict[str, Subscribed] = {}  # surely on the disk; the changes since:
        self.changes: list[tuple[int, str, Subscribed | None]] = []
        self.owed: dict[str, Owed] = {}
        self.owed_retained: dict[str, Owed] = {}
        self.last_index = 0

    @property
    def is_durable(self) -> bool:
        return self.expiry_s > 0

    def change(self, index: int, topic_filter: str, new: Subscribed | None) -> None:
        _apply(self.subscriptions, topic_filter, new)
        self.changes.append((index, topic_filter, new))

    def come(self, index: int, expiry_s: int) -> None:
        self.expiry_s = expiry_s
        self.is_stored = self.is_stored or expiry_s > 0
        self.is_online = True
        self.absences.append((index, 0))

    def leave(self, index: int, now_ms: int) -> None:
        self.is_online = False
        self.disconnected_at_ms = now_ms
        self.absences.append((index, now_ms))

    def is_overdue(self, now_ms: int) -> bool:
        return not self.is_online and self.would_be_over(self.disconnected_at_ms, now_ms)

    def would_be_over(self, since_ms: int, now_ms: int) -> bool:
        """Whether it has ended by now, if it is absent since then (0: not absent)."""
        if since_ms == 0 or self.expiry_s == NEVER_S:
            return False
        return since_ms + self.expiry_s * 1000 <= now_ms

    def confirm(self, index: int) -> None:
        while len(self.absences) > 1 and self.absences[1][0] <= index:
            self.absences.pop(0)
        while self.changes and self.changes[0][0] <= index:
            _, topic_filter, new = self.changes.pop(0)
            _apply(self.stored, topic_filter, new)

    def recover(self, found: dict[str, Subscribed]) -> None:
        """Some first part of the uncertain changes has survived, nothing else."""
        state = dict(self.stored)
        for _, topic_filter, new in [*self.changes, (0, "", None)]:
            if state == found:
                break
            _apply(state, topic_filter, new)
        assert state == found, f"{self.client_id}: subscriptions {found}, expected {self.stored}"
        self.subscriptions = dict(found)
        self.stored = dict(found)
        self.changes = []


class Recovered(NamedTuple):
    """What a broker has of a session after its restart."""

    number: int
    expiry_s: int
    disconnected_at_ms: int
    subscriptions: dict[str, Subscribed]


class Promises:
    """All sessions, messages and retained slots."""

    def __init__(self) -> None:
        self.index = 0
        self.durable_to = 0
        self.messages: dict[str, Sent] = {}
        self.sessions: dict[str, Held] = {}
        self.retained: dict[str, Sent] = {}
        self._retained_stored: dict[str, Sent] = {}
        self._retained_changes: list[tuple[int, str, Sent | None]] = []
        # What a client identifier may stand for on the disk, the oldest first.
        self._pasts: dict[str, list[tuple[int, Held | None]]] = {}

    # --- sessions

    def connect(self, client_id: str, clean: bool, expiry_s: int, now_ms: int) -> bool:
        """Carry out a CONNECT: whether a session was present."""
        self.expire(now_ms)
        if client_id in self.sessions and self.sessions[client_id].is_online:
            self.disconnected(client_id, now_ms)
        self.index += 1
        held = self.sessions.get(client_id)
        is_present = held is not None and not clean
        if held is None or clean:
            held = Held(client_id, expiry_s)
            self.sessions[client_id] = held
        held.come(self.index, expiry_s)
        self._note(client_id, held)
        return is_present

    def welcomed(self, held: Held, index: int) -> None:
        """CONNACK has come: the session is on the disk, and what it took the place of is not."""
        past = self._pasts[held.client_id]
        stood = past[0][1]
        if held.is_durable or stood is held:
            self.confirm(index)
        elif stood is not None and stood.is_stored:
            self.confirm(past[1][0])

    def disconnected(self, client_id: str, now_ms: int) -> None:
        self.index += 1
        held = self.sessions[client_id]
        held.leave(self.index, now_ms)
        if not held.is_durable:
            self._end(held)

    def expire(self, now_ms: int) -> None:
        for held in list(self.sessions.values()):
            if held.is_overdue(now_ms):
                self.index += 1
                self._end(held)

    def _end(self, held: Held) -> None:
        del self.sessions[held.client_id]
        self._note(held.client_id, None)

    def _note(self, client_id: str, held: Held | None) -> None:
        self._pasts.setdefault(client_id, [(0, None)]).append((self.index, held))

    # --- subscriptions

    def subscribe(self, held: Held, topic_filter: str, new: Subscribed, is_last: bool) -> None:
        """``is_last``: no later request of the same packet is for the same filter."""
        self.index += 1
        held.change(self.index, topic_filter, new)
        for message in self.retained.values():
            if not is_match(topic_filter, message.topic):
                continue
            if new.no_local and message.publisher == held.client_id:
                continue
            owed = held.owed_retained.setdefault(message.key, Owed(message))
            qos = min(new.qos, message.qos)
            owed.qos.add(qos)
            owed.copies += 1
            if qos > 0 and held.is_durable and is_last:
                owed.promised.append((self.index, True))

    def unsubscribe(self, held: Held, topic_filter: str) -> None:
        self.index += 1
        held.change(self.index, topic_filter, None)

    # --- messages

    def route(self, message: Sent, now_ms: int) -> None:
        """The broker takes a message over."""
        self.expire(now_ms)
        self.index += 1
        message.index = self.index
        message.sends += 1
        if message.retain:
            new = None if message.clears else message
            self._retained_changes.append((self.index, message.topic, new))
            _apply(self.retained, message.topic, new)
        if message.clears:
            return
        for held in self.sessions.values():
            self._route_to(held, message)

    def _route_to(self, held: Held, message: Sent) -> None:
        found = [
            subscribed
            for topic_filter, subscribed in held.subscriptions.items()
            if is_match(topic_filter, message.topic)
            and not (subscribed.no_local and message.publisher == held.client_id)
        ]
        if not found:
            return
        qos = min(message.qos, max(subscribed.qos for subscribed in found))
        if qos == 0 and not held.is_online:
            return
        owed = held.owed.setdefault(message.key, Owed(message))
        owed.qos.add(qos)
        owed.copies += 1
        with_identifier = [s for s in found if s.identifier]
        at_most = Counter(s.identifier for s in with_identifier)
        at_least = Counter(s.identifier for s in with_identifier if s.qos > 0)
        if owed.copies > 1:
            at_most, at_least = at_most | owed.identifiers[0], at_least & owed.identifiers[1]
        owed.identifiers = at_most, at_least
        if qos > 0:
            owed.promised.append((self.index, held.is_durable))

    def take_back(self, message: Sent) -> None:
        """A crash has lost this QoS 2 message, and its publisher sends it again."""
        for held in self.sessions.values():
            owed = held.owed.get(message.key)
            # At QoS 0 nothing is promised: what no durable session wants leaves at once.
            if owed is not None and owed.qos != {0}:
                assert owed.got == 0, f"{message} was seen, but not durable"
                del held.owed[message.key]
        message.sends = 0

    def acknowledged(self, message: Sent) -> None:
        """The publisher got PUBACK or PUBREC: the message is durable if a durable one wants it.

        That a subscription has gone may be news that the disk has not, so this asks only for those
        that were there when the message was routed last.
        """
        if message.retain or any(
            message.key in held.owed and (message.index, True) in held.owed[message.key].promised
            for held in self.sessions.values()
        ):
            self.confirm(message.index)

    def received(self, held: Held, key: str, qos: int, retain: bool) -> None:
        """A client begins a new exchange."""
        what = f"{held.client_id} got {key} at QoS {qos}{', retained' if retain else ''}"
        owed = (held.owed_retained if retain else held.owed).get(key)
        assert owed is not None, f"{what}: never for it"
        assert qos in owed.qos, f"{what}: expected one of {owed.qos}"
        owed.got += 1
        owed.is_settled = False
        owed.got_qos_2 += qos == 2
        at_most = owed.copies + owed.repeats
        assert owed.got <= at_most, f"{what}: {owed.got} times, expected {at_most} at most"
        assert owed.got_qos_2 <= owed.copies, f"{what}: {owed.got_qos_2} times"
        message = owed.message
        if not retain and qos > 0 and owed.got == 1 and message.sends == 1:
            assert message.index > held.last_index, f"{what}: out of order"
            held.last_index = message.index

    # --- durability

    def confirm(self, index: int) -> None:
        """All up to this index is on the disk."""
        self.durable_to = max(self.durable_to, index)
        index = self.durable_to
        for past in self._pasts.values():
            while len(past) > 1 and past[1][0] <= index:
                past.pop(0)
            for _, held in past:
                if held is not None:
                    held.confirm(index)
        while self._retained_changes and self._retained_changes[0][0] <= index:
            _, topic, message = self._retained_changes.pop(0)
            _apply(self._retained_stored, topic, message)

    def settle(self, in_progress: dict[str, set[str]]) -> None:
        """All is on the disk, the acknowledgements that wait a little included.

        ``in_progress`` are the messages that clients have not acknowledged.
        """
        self.confirm(self.index)
        for held in self.sessions.values():
            for owed in [*held.owed.values(), *held.owed_retained.values()]:
                owed.is_settled = owed.message.key not in in_progress[held.client_id]

    def crash(self, found: dict[str, Recovered], retained: dict[str, str], now_ms: int) -> None:
        """Compare with what a restarted broker has, and go on from that."""
        start = self.index
        for client_id, past in self._pasts.items():
            self._recover(client_id, past, found.get(client_id), now_ms)
        assert set(found) <= set(self._pasts)
        self._recover_retained(retained)
        self.durable_to = start
        self._pasts = {
            client_id: [(start, self.sessions.get(client_id))] for client_id in self._pasts
        }

    def _recover(
        self,
        client_id: str,
        past: list[tuple[int, Held | None]],
        found: Recovered | None,
        now_ms: int,
    ) -> None:
        candidates = [held for _, held in past]
        self.sessions.pop(client_id, None)
        if found is None:
            for held in candidates:
                if held is None or not held.is_durable:
                    return
                if any(held.would_be_over(since_ms, now_ms) for _, since_ms in held.absences):
                    return
            raise AssertionError(f"{client_id}: its session is lost")
        for held in candidates:
            if held is not None and held.number == found.number:
                break
        else:
            raise AssertionError(f"{client_id}: a session that had ended is there again")
        assert held is not None
        held.recover(found.subscriptions)
        assert found.disconnected_at_ms in [since_ms or now_ms for _, since_ms in held.absences]
        assert held.expiry_s == 0 or found.expiry_s > 0
        # The start has noted the absence, but that need not be on the disk yet.
        self.index += 1
        held.leave(self.index, found.disconnected_at_ms)
        held.expiry_s = found.expiry_s
        assert not held.is_overdue(now_ms), f"{client_id}: its session should have ended"
        self.sessions[client_id] = held
        for owed in [*held.owed.values(), *held.owed_retained.values()]:
            owed.promised = [
                kept for kept in owed.promised if kept[1] and kept[0] <= self.durable_to
            ]
            if owed.got > owed.got_qos_2 and not owed.is_settled:
                owed.repeats += owed.copies

    def _recover_retained(self, found: dict[str, str]) -> None:
        state = dict(self._retained_stored)
        for _, topic, message in [*self._retained_changes, (0, "", None)]:
            if {topic: held.key for topic, held in state.items()} == found:
                break
            _apply(state, topic, message)
        keys = {topic: held.key for topic, held in state.items()}
        assert keys == found, f"retained {found}, expected {self._retained_stored}"
        self.retained = state
        self._retained_stored = dict(state)
        self._retained_changes = []

    # --- the end

    def assert_kept(self) -> None:
        """All that was promised has come."""
        for held in self.sessions.values():
            for owed in held.owed.values():
                missing = bool(owed.promised) and owed.got == 0
                assert not missing, f"{held.client_id} never got {owed.message}"
            for owed in held.owed_retained.values():
                missing = owed.got < len(owed.promised)
                assert not missing, f"{held.client_id} never got {owed.message}, retained"


def is_match(topic_filter: str, topic: str) -> bool:
    """Whether a filter matches a topic, by recursion over the levels."""
    if topic.startswith("$") and topic_filter[0] in "+#":
        return False
    return _is_match(topic_filter.split("/"), topic.split("/"))


def _is_match(wanted: list[str], levels: list[str]) -> bool:
    if not wanted:
        return not levels
    if wanted[0] == "#":
        return True
    if not levels:
        return False
    return wanted[0] in ("+", levels[0]) and _is_match(wanted[1:], levels[1:])


def _apply(state: dict[str, Value], key: str, new: Value | None) -> None:
    if new is None:
        state.pop(key, None)
    else:
        state[key] = new
