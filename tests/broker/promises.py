"""What the broker owes to whom, as plain as it can be: the model that random walks compare with.

Every change has an index. All up to ``durable_to`` is known to be on the disk, because a packet
that promises it was seen. A crash may take back any later one, but none before an earlier one.
"""

from collections import Counter

from tests.broker.holdings import (
    Held,
    Owed,
    Promise,
    Recovered,
    Sent,
    StoredWill,
    Subscribed,
    Will,
    apply,
)


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

    def connect(
        self, client_id: str, clean: bool, expiry_s: int, now_ms: int, will: Will | None = None
    ) -> bool:
        """Carry out a CONNECT: whether a session was present."""
        self.expire(now_ms)
        if client_id in self.sessions and self.sessions[client_id].is_online:
            self.disconnected(client_id, now_ms)
        held = self.sessions.get(client_id)
        is_present = held is not None and not clean
        if held is not None and clean:
            self._end(held, now_ms)
        if held is None or clean:
            held = Held(client_id, expiry_s)
            self.sessions[client_id] = held
        self.index += 1
        held.come(self.index, expiry_s, will)
        self._note(client_id, held)
        return is_present

    def welcomed(self, held: Held, index: int) -> None:
        """CONNACK has come: the session is on the disk, and what it took the place of is not."""
        past = self._pasts[held.client_id]
        stood = past[0][1]
        if held.is_stored or stood is held:
            self.confirm(index)
        elif stood is not None and stood.is_stored:
            self.confirm(past[1][0])

    def disconnected(self, client_id: str, now_ms: int, forgets_will: bool = False) -> None:
        self.index += 1
        held = self.sessions[client_id]
        held.leave(self.index, now_ms)
        if forgets_will:
            held.set_will(self.index, None)
        will = held.will
        if not held.is_durable:
            self._end(held, now_ms)
        elif will is not None and will.delay_s == 0:
            self._publish_will(held, now_ms)
        elif will is not None:
            held.will_due_ms = now_ms + will.delay_s * 1000

    def expire(self, now_ms: int) -> None:
        """End the sessions whose time is over and publish the wills that are due, in order."""
        while True:
            due: list[tuple[int, bool, int, Held]] = []
            for held in self.sessions.values():
                if held.is_overdue(now_ms):
                    end_ms = held.disconnected_at_ms + held.expiry_s * 1000
                    due.append((end_ms, False, held.number, held))
                if 0 < held.will_due_ms <= now_ms:
                    due.append((held.will_due_ms, True, held.number, held))
            if not due:
                return
            due_ms, is_will, _, held = min(due, key=lambda entry: entry[:3])
            if is_will:
                self._publish_will(held, due_ms)
            else:
                self._end(held, due_ms)

    def _end(self, held: Held, now_ms: int) -> None:
        self.index += 1
        del self.sessions[held.client_id]
        self._note(held.client_id, None)
        if held.will is not None:
            self._publish_will(held, now_ms)

    def _publish_will(self, held: Held, now_ms: int) -> None:
        will = held.will
        assert will is not None
        self._route(will.message, now_ms)
        held.set_will(self.index, None)

    def _note(self, client_id: str, held: Held | None) -> None:
        self._pasts.setdefault(client_id, [(0, None)]).append((self.index, held))

    # --- subscriptions

    def subscribe(
        self, held: Held, topic_filter: str, new: Subscribed, is_last: bool, now_ms: int
    ) -> None:
        """``is_last``: no later request of the same packet is for the same filter."""
        self.index += 1
        held.change(self.index, topic_filter, new)
        for message in self.retained.values():
            if not is_match(topic_filter, message.topic):
                continue
            if new.no_local and message.publisher == held.client_id:
                continue
            if message.is_expired(now_ms):
                continue
            owed = held.owed_retained.setdefault(message.key, Owed(message))
            qos = min(new.qos, message.qos)
            owed.qos.add(qos)
            owed.copies += 1
            if qos > 0 and held.is_durable and is_last:
                # After a crash the slot may hold what was routed first.
                owed.promised.append(Promise(self.index, True, min(message.expires_ms, default=0)))

    def unsubscribe(self, held: Held, topic_filter: str) -> None:
        self.index += 1
        held.change(self.index, topic_filter, None)

    # --- messages

    def route(self, message: Sent, now_ms: int) -> None:
        """The broker takes a message over."""
        self.expire(now_ms)
        self._route(message, now_ms)

    def _route(self, message: Sent, now_ms: int) -> None:
        self.index += 1
        message.index = self.index
        message.sends += 1
        if message.expiry_s > 0:
            message.expires_ms.append(now_ms + message.expiry_s * 1000)
        if message.retain:
            new = None if message.clears else message
            self._retained_changes.append((self.index, message.topic, new))
            apply(self.retained, message.topic, new)
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
        owed.retain.add(message.retain and any(s.retain_as_published for s in found))
        owed.copies += 1
        at_most = at_least = Counter(s.identifier for s in found if s.identifier)
        if owed.copies > 1:
            at_most, at_least = at_most | owed.identifiers[0], at_least & owed.identifiers[1]
        owed.identifiers = at_most, at_least
        if qos > 0:
            expires_ms = message.expires_ms[-1] if message.expires_ms else 0
            owed.promised.append(Promise(self.index, held.is_durable, expires_ms))

    def take_back(self, message: Sent) -> None:
        """A crash has lost this QoS 2 message, and its publisher sends it again."""
        for held in self.sessions.values():
            owed = held.owed.get(message.key)
            # At QoS 0 nothing is promised: what no durable session wants leaves at once.
            if owed is not None and owed.qos != {0}:
                assert owed.got == 0, f"{message} was seen, but not durable"
                del held.owed[message.key]
        message.sends = 0
        message.expires_ms = []

    def acknowledged(self, message: Sent) -> None:
        """The publisher got PUBACK or PUBREC: the message is durable if a durable one wants it.

        That a subscription has gone may be news that the disk has not, so this asks only for those
        that were there when the message was routed last.
        """
        if message.retain or any(
            promise.routed == message.index and promise.is_durable
            for held in self.sessions.values()
            if message.key in held.owed
            for promise in held.owed[message.key].promised
        ):
            self.confirm(message.index)

    def received(self, held: Held, key: str, qos: int, retain: bool, dup: bool) -> None:
        """A client begins a new exchange."""
        what = f"{held.client_id} got {key} at QoS {qos}{', retained' if retain else ''}"
        candidates = self._candidates(held, key, retain, dup)
        assert candidates, f"{what}: never for it"
        fitting = [o for o in candidates if qos in o.qos and o.got < o.copies + o.repeats]
        owed = fitting[0] if fitting else candidates[0]
        assert qos in owed.qos, f"{what}: expected one of {owed.qos}"
        owed.got += 1
        owed.is_settled = False
        owed.got_qos_2 += qos == 2
        at_most = owed.copies + owed.repeats
        assert owed.got <= at_most, f"{what}: {owed.got} times, expected {at_most} at most"
        assert owed.got_qos_2 <= owed.copies, f"{what}: {owed.got_qos_2} times"
        message = owed.message
        is_live = candidates == [held.owed.get(key)]
        if is_live and qos > 0 and owed.got == 1 and message.sends == 1:
            assert message.index > held.last_index, f"{what}: out of order"
            held.last_index = message.index
        # Nobody sees a logged or a retained message that a crash could take back.
        if message.sends == 1 and (message.retain or (qos > 0 and held.is_durable)):
            self.confirm(message.index)

    def _candidates(self, held: Held, key: str, retain: bool, dup: bool) -> list[Owed]:
        """What a copy may be that came with this RETAIN: one as published, or a retained one.

        The subscription that wanted RETAIN as published may have gone before a copy came again.
        """
        candidates: list[Owed] = []
        live = held.owed.get(key)
        if live is not None and (retain in live.retain or (dup and not retain)):
            candidates.append(live)
        if retain and key in held.owed_retained:
            candidates.append(held.owed_retained[key])
        return candidates

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
            apply(self._retained_stored, topic, message)

    def settle(self, in_progress: dict[str, set[str]]) -> None:
        """All is on the disk, the acknowledgements that wait a little included.

        ``in_progress`` are the messages that clients have not acknowledged.
        """
        self.confirm(self.index)
        for held in self.sessions.values():
            for owed in [*held.owed.values(), *held.owed_retained.values()]:
                owed.is_settled = owed.message.key not in in_progress[held.client_id]

    def crash(
        self,
        found: dict[str, Recovered],
        retained: dict[str, str],
        wills: dict[str, StoredWill],
        now_ms: int,
    ) -> None:
        """Compare with what a restarted broker has, and go on from that.

        ``wills`` are those that the disk had before the start, in its order.
        """
        waiting: list[tuple[StoredWill, Held, Will | None]] = []
        lost: list[Sent] = []
        for client_id in self._pasts:
            if client_id not in wills:
                self._recover_no_will(client_id)
        for client_id, stored in wills.items():
            held, will, published = self._recover_will(client_id, stored)
            waiting.append((stored, held, will))
            lost.extend(published)
        start = self.index
        for client_id, past in self._pasts.items():
            self._recover(client_id, past, found.get(client_id), now_ms)
            if client_id in found:
                # What the start notes is not on the disk yet.
                self.sessions[client_id].absences.insert(
                    0, (0, wills[client_id].disconnected_at_ms)
                )
        assert set(found) <= set(self._pasts)
        self._recover_retained(retained, now_ms)
        self.durable_to = start
        self._pasts = {
            client_id: [(start, self.sessions.get(client_id))] for client_id in self._pasts
        }
        for message in lost:
            self.take_back(message)
        self._go_on_with_wills(start, waiting, now_ms)

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
        self.index += 1
        held.absences = []
        held.leave(self.index, found.disconnected_at_ms)
        held.expiry_s = found.expiry_s
        assert not held.is_overdue(now_ms), f"{client_id}: its session should have ended"
        self.sessions[client_id] = held
        for owed in [*held.owed.values(), *held.owed_retained.values()]:
            owed.promised = [
                kept for kept in owed.promised if kept.is_durable and kept.routed <= self.durable_to
            ]
            if owed.got > owed.got_qos_2 and not owed.is_settled:
                owed.repeats += owed.copies

    def _recover_no_will(self, client_id: str) -> None:
        """The disk has no session: if one with a will was there, its whole end has survived."""
        past = self._pasts[client_id]
        _, held = past[0]
        if held is None or held.wills[0][1] is None:
            return
        assert len(past) > 1, f"{client_id}: its will is lost"
        index = past[1][0]
        is_published = any(changed == index + 1 for changed, _ in held.wills)
        self.confirm(index + 1 if is_published else index)

    def _recover_will(
        self, client_id: str, stored: StoredWill
    ) -> tuple[Held, Will | None, list[Sent]]:
        """Find which of a session's wills the disk has, and which were published in vain."""
        for _, held in self._pasts.get(client_id, []):
            if held is not None and held.number == stored.number:
                break
        else:
            raise AssertionError(f"{client_id}: a session that had ended is on the disk")
        assert held is not None
        keys = [will.message.key if will is not None else "" for _, will in held.wills]
        assert stored.key in keys, f"{client_id}: will {stored.key!r}, expected one of {keys}"
        position = keys.index(stored.key)
        self.confirm(held.wills[position][0])
        if not stored.key:
            # Before its CONNECT, or after its publication? Nobody can tell.
            return held, None, []
        position = [will.message.key if will else "" for _, will in held.wills].index(stored.key)
        after = [will for _, will in held.wills[position:] if will is not None]
        return held, after[0], [will.message for will in after if will.message.sends > 0]

    def _go_on_with_wills(
        self, start: int, waiting: list[tuple[StoredWill, Held, Will | None]], now_ms: int
    ) -> None:
        """What the start does: it ends the sessions that are over, and publishes what is due."""
        due: list[tuple[int, bool, int, Held]] = []
        for position, (stored, held, will) in enumerate(waiting):
            held.wills = [(start, will)]
            held.will_due_ms = 0
            self._pasts[held.client_id] = [(start, held)]
            is_over = self.sessions.get(held.client_id) is not held
            will_due_ms = 0
            if will is not None:
                will_due_ms = (stored.disconnected_at_ms or now_ms) + will.delay_s * 1000
                assert stored.due_ms == (will_due_ms if stored.disconnected_at_ms else 0)
            if stored.expiry_s == 0:
                due.append((0, False, position, held))
            elif is_over:
                end_ms = (stored.disconnected_at_ms or now_ms) + stored.expiry_s * 1000
                due.append((end_ms, False, stored.number, held))
            if will is not None and stored.expiry_s > 0 and will_due_ms <= now_ms:
                due.append((will_due_ms, True, stored.number, held))
            elif will is not None and not is_over:
                held.will_due_ms = will_due_ms
        for _, is_will, _, held in sorted(due, key=lambda entry: entry[:3]):
            if is_will and held.will is not None:
                self._publish_will(held, now_ms)
            elif not is_will:
                self.index += 1
                self._note(held.client_id, None)
                if held.will is not None:
                    self._publish_will(held, now_ms)

    def _recover_retained(self, stored: dict[str, str], now_ms: int) -> None:
        """Of expired messages nobody can tell: they go when the broker comes across them."""
        found = {
            topic: key for topic, key in stored.items() if not self.messages[key].is_expired(now_ms)
        }
        state = dict(self._retained_stored)
        for _, topic, message in [*self._retained_changes, (0, "", None)]:
            if _unexpired(state, now_ms) == found:
                break
            apply(state, topic, message)
        keys = _unexpired(state, now_ms)
        assert keys == found, f"retained {found}, expected {self._retained_stored}"
        self.retained = state
        self._retained_stored = dict(state)
        self._retained_changes = []

    # --- the end

    def assert_kept(self, now_ms: int) -> None:
        """All that was promised has come."""
        for held in self.sessions.values():
            for key, owed in held.owed.items():
                needed = min(1, _needed(owed, now_ms))
                got = owed.got
                if True in owed.retain and key in held.owed_retained:
                    # One may have been taken for the other.
                    needed += _needed(held.owed_retained[key], now_ms)
                    got += held.owed_retained[key].got
                assert got >= needed, f"{held.client_id} never got {owed.message}"
            for key, owed in held.owed_retained.items():
                if key in held.owed and True in held.owed[key].retain:
                    continue
                missing = owed.got < _needed(owed, now_ms)
                assert not missing, f"{held.client_id} never got {owed.message}, retained"


def _needed(owed: Owed, now_ms: int) -> int:
    return sum(1 for promise in owed.promised if not 0 < promise.expires_ms <= now_ms)


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


def _unexpired(retained: dict[str, Sent], now_ms: int) -> dict[str, str]:
    return {
        topic: message.key for topic, message in retained.items() if not message.is_expired(now_ms)
    }
