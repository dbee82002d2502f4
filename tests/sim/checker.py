"""Holds what passes the broker's sockets against the model: the same bytes, seen from outside.

A packet counts when the broker is handed its last byte, and when its bytes leave the broker.
"""

from holdfast.protocol.packets import (
    MQTT_5_0,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
)
from holdfast.protocol.reason_codes import FAILURE, KEEP_ALIVE_TIMEOUT, SESSION_TAKEN_OVER
from holdfast.store.records import Batch
from tests.broker.holdings import Subscribed
from tests.sim.model import Flight, Group, Message, Model, Owed, Session
from tests.sim.taps import BIG_BYTES, Acknowledgement, Answer, Losses, NoLosses, Tap, Violation


class Checker:
    """The promises. ``messages`` are all that were ever sent, by key."""

    def __init__(self, model: Model, losses: Losses | None = None) -> None:
        self.model = model
        self.messages: dict[str, Message] = {}
        self.losses = NoLosses() if losses is None else losses
        self.durable = 0  # all up to this operation is on the disk
        self._under_way = 0
        self._unwritten: list[Acknowledgement] = []
        self._being_written: list[Acknowledgement] = []
        self._order = 0
        # The earliest of the batch before, of the one under way, and of the one being filled.
        self._times_ms = [0, 0, 0]

    # --- turns and commits

    def begin_turn(self, now_ms: int) -> None:
        self.model.now_ms = now_ms
        self.model.latest_ms = max(self.model.latest_ms, now_ms)
        self._times_ms[2] = min(self._times_ms[2], now_ms)

    def batch_taken(self, batch: Batch, numbers: dict[int, str]) -> None:
        """A batch is on its way to the disk; ``numbers``: whose session or group is which."""
        self._under_way = self.model.journal.operation
        self._times_ms = [*self._times_ms[1:], self.model.now_ms]
        written = {numbers.get(state.session) for state in batch.states}
        written |= {group.topic_filter for group in batch.groups}
        left: list[Acknowledgement] = []
        for acknowledgement in self._unwritten:
            group = acknowledgement.flight.owed.group
            owner = acknowledgement.session.client_id
            if not acknowledgement.session.is_durable and group is not None:
                owner = group.topic_filter
            is_written = owner in written
            (self._being_written if is_written else left).append(acknowledgement)
        self._unwritten = left

    def batch_durable(self) -> None:
        """The batch under way is on the disk."""
        self._being_written = []
        self._reach(self._under_way)

    def all_durable(self) -> None:
        """No batch is under way, and there was nothing to put into another."""
        self._times_ms = [*self._times_ms[1:], self.model.now_ms]
        self._reach(self.model.journal.operation)

    def _reach(self, operation: int) -> None:
        if operation > self.durable:
            self.durable = operation
            self.model.journal.confirm(operation)
            self.model.partings = [p for p in self.model.partings if p.operation > operation]

    def crashed(self) -> None:
        """The broker is gone, and all that was not durable."""
        model = self.model
        model.crash(self.durable)
        for acknowledgement in [*self._unwritten, *self._being_written]:
            flight = acknowledgement.flight
            acknowledgement.session.repeatable[acknowledgement.packet_id] = flight
            owed = flight.owed
            if owed.group is not None:
                owed.group.repeatable.append(owed)
        self._unwritten = []
        self._being_written = []

    # --- what the broker is handed

    def took(self, tap: Tap, packet: Packet, message: Message | None) -> None:
        """The broker was handed a whole packet; ``message``: what a PUBLISH or CONNECT carries."""
        taken = tap.session
        if not tap.is_open or (taken is not None and taken.link != tap.number):
            return  # another connection has taken the session over
        tap.heard_ms = self.model.now_ms
        if isinstance(packet, Connect):
            self._took_connect(tap, packet, message)
            return
        session = taken
        assert session is not None
        if isinstance(packet, Publish):
            assert message is not None
            self._took_publish(tap, session, packet, message)
        elif isinstance(packet, Puback | Pubcomp):
            self._took_end(tap, session, packet.packet_id)
        elif isinstance(packet, Pubrec):
            self._took_pubrec(tap, session, packet)
        elif isinstance(packet, Pubrel):
            self._took_pubrel(tap, session, packet.packet_id)
        elif isinstance(packet, Subscribe):
            self._took_subscribe(tap, session, packet)
        elif isinstance(packet, Unsubscribe):
            codes = [0 if f in session.subscriptions else 0x11 for f in packet.topic_filters]
            for topic_filter in packet.topic_filters:
                self.model.unsubscribe(session, topic_filter)
            if tap.version != MQTT_5_0:
                codes = []
            self._expect(tap, Unsuback, packet.packet_id, session.is_durable, codes)
        elif isinstance(packet, Pingreq):
            tap.answers[Pingresp].append(Answer(0, 0, []))
        else:
            assert isinstance(packet, Disconnect)
            expiry_s: int | None = None
            if packet.properties is not None:
                expiry_s = packet.properties.session_expiry_interval
            self._leave(tap, is_normal=packet.reason_code == 0, expiry_s=expiry_s)

    def _expect(
        self, tap: Tap, kind: type[Packet], packet_id: int, is_promise: bool, codes: list[int]
    ) -> None:
        operation = self.model.journal.operation if is_promise else 0
        tap.answers[kind].append(Answer(packet_id, operation, codes))

    def _took_connect(self, tap: Tap, packet: Connect, will: Message | None) -> None:
        expiry_s = 0 if packet.clean_start else 0xFFFF_FFFF
        properties = packet.properties
        size_max = 0
        if packet.version == MQTT_5_0:
            assert properties is not None
            expiry_s = properties.session_expiry_interval or 0
            tap.window = properties.receive_maximum or tap.window
            tap.alias_maximum = properties.topic_alias_maximum or 0
            size_max = properties.maximum_packet_size or 0
        tap.window = min(tap.window, self.model.limits.in_flight_max)
        tap.keep_alive_ms = packet.keep_alive * 1500
        session, tap.is_present = self.model.connect(
            tap.client_id, tap.number, packet.clean_start, expiry_s, will
        )
        session.was_small = session.was_small or size_max > 0
        tap.session = session
        if session.is_durable:
            tap.connect_operation = self.model.journal.operation

    def _took_publish(self, tap: Tap, session: Session, packet: Publish, message: Message) -> None:
        packet_id = packet.packet_id
        model = self.model
        if packet.qos == 2 and packet_id in session.held:
            needed = session.held[packet_id] if session.is_durable else 0
            tap.answers[Pubrec].append(Answer(packet_id, needed, []))
            return
        model.publish(message)
        if packet.qos == 0:
            return
        operation = model.journal.operation
        kind: type[Packet] = Puback
        is_promise = model.needs_commit
        if packet.qos == 2:
            kind = Pubrec
            model.journal.put(session.held, packet_id, operation)
            is_promise = is_promise or session.is_durable
        # What takes a delayed message back is for nobody.
        is_for_later = model.needs_commit or message.delay_s > 0
        unlogged = None if is_for_later else (operation, message)
        answer = Answer(packet_id, operation if is_promise else 0, [], unlogged)
        tap.answers[kind].append(answer)

    def _took_pubrel(self, tap: Tap, session: Session, packet_id: int) -> None:
        journal = self.model.journal
        if packet_id in session.held:
            operation = journal.begin()
            journal.drop(session.held, packet_id)
            journal.put(session.let_go, packet_id, operation)
        needed = session.let_go.get(packet_id, 0) if session.is_durable else 0
        tap.answers[Pubcomp].append(Answer(packet_id, needed, []))

    def _took_end(self, tap: Tap, session: Session, packet_id: int) -> None:
        """PUBACK, PUBCOMP or a PUBREC that refuses: the identifier is free again."""
        operation = self.model.journal.begin()
        tap.open_ids.discard(packet_id)
        flight = session.in_flight.pop(packet_id, None)
        if flight is None:
            return
        flight.owed.is_gone = True
        if flight.is_released:
            session.completed.add(packet_id)
        else:
            done = Acknowledgement(operation, session, flight, packet_id)
            self._unwritten.append(done)

    def _took_pubrec(self, tap: Tap, session: Session, packet: Pubrec) -> None:
        flight = session.in_flight.get(packet.packet_id)
        if packet.reason_code >= FAILURE:
            self._took_end(tap, session, packet.packet_id)
        elif flight is not None and flight.released == 0:
            journal = self.model.journal
            journal.set(flight, "released", journal.begin())
            journal.set(flight.owed, "is_gone", True)

    def _took_subscribe(self, tap: Tap, session: Session, packet: Subscribe) -> None:
        identifier = 0
        if packet.properties is not None and packet.properties.subscription_identifiers:
            identifier = packet.properties.subscription_identifiers[0]
        bringing: dict[str, None] = {}  # the filters whose retained messages are to come
        for request in packet.requests:
            topic_filter = request.topic_filter
            new = Subscribed(request.qos, request.no_local, identifier, request.retain_as_published)
            is_new = self.model.subscribe(session, topic_filter, new)
            handling = request.retain_handling
            if handling == 0 or (handling == 1 and is_new):
                bringing[topic_filter] = None
        for topic_filter in bringing:
            self.model.owe_retained(session, topic_filter)
        codes = [request.qos for request in packet.requests]
        self._expect(tap, Suback, packet.packet_id, session.is_durable, codes)

    def _leave(self, tap: Tap, *, is_normal: bool, expiry_s: int | None = None) -> None:
        tap.is_open = False
        session = tap.session
        if session is not None and session.link == tap.number:
            self.model.leave(session, is_normal=is_normal, expiry_s=expiry_s)

    def lost(self, tap: Tap) -> None:
        """The broker is told that a connection is gone."""
        if tap.is_open:
            self._leave(tap, is_normal=False)

    def closed(self, tap: Tap, *, is_stopping: bool) -> None:
        """The broker has closed a connection by itself, before anybody else did."""
        session = tap.session
        is_taken_over = session is not None and session.link != tap.number
        silent_ms = self.model.now_ms - tap.heard_ms
        is_silent = 0 < tap.keep_alive_ms <= silent_ms
        if not (is_taken_over or is_silent or is_stopping or session is None):
            raise Violation("thrown out", f"{tap.client_id} kept to the rules", tap.client_id)
        self._leave(tap, is_normal=False)

    # --- what leaves the broker

    def left(self, tap: Tap, packet: Packet) -> None:
        """A packet leaves the broker."""
        if isinstance(packet, Connack):
            self._left_connack(tap, packet)
            return
        who = tap.client_id
        if not tap.is_welcome:
            raise Violation("protocol", f"{who} got a packet before CONNACK", who)
        if isinstance(packet, Publish):
            assert tap.session is not None
            self._left_publish(tap, tap.session, packet)
        elif isinstance(packet, Pubrel):
            assert tap.session is not None
            self._left_pubrel(tap.session, packet.packet_id)
        elif isinstance(packet, Disconnect):
            if packet.reason_code not in (0x8B, KEEP_ALIVE_TIMEOUT, SESSION_TAKEN_OVER):
                code = f"0x{packet.reason_code:02X}"
                raise Violation("thrown out", f"{who} was told {code}", who)
        else:
            self._left_answer(tap, packet)

    def _left_answer(self, tap: Tap, packet: Packet) -> None:
        who = tap.client_id
        name = type(packet).__name__.upper()
        answers = tap.answers.get(type(packet))
        if not answers:
            raise Violation("protocol", f"{who} got {name} for nothing", who)
        answer = answers.popleft()
        if isinstance(packet, Pingresp):
            return
        assert isinstance(packet, Puback | Pubrec | Pubcomp | Suback | Unsuback)
        what = f"{name} #{packet.packet_id} to {who}"
        if packet.packet_id != answer.packet_id:
            raise Violation("protocol", f"{what}, expected #{answer.packet_id}", who)
        if isinstance(packet, Suback | Unsuback):
            if packet.reason_codes != answer.codes:
                codes = f"{packet.reason_codes}, expected {answer.codes}"
                raise Violation("subscription lost", f"{what} says {codes}", who)
        elif packet.reason_code >= FAILURE and not isinstance(packet, Pubcomp):
            raise Violation("protocol", f"{what} refuses", who)
        self._needs(answer.operation, what, who)
        if answer.unlogged is not None:
            self._check_unlogged(*answer.unlogged, what)

    def _check_unlogged(self, operation: int, message: Message, what: str) -> None:
        """Nobody durable wants a message, unless a crash brings somebody back."""
        for parting in self.model.partings:
            if parting.operation < operation and parting.wants(message):
                text = f"{what} for {message}, which a crash would have {parting.client_id} want"
                about = (parting.client_id, message.publisher, message.key)
                raise Violation("sent before it was durable", text, *about)

    def _needs(self, operation: int, what: str, *about: str) -> None:
        if operation > self.durable:
            text = f"{what} waits for operation {operation}, durable is {self.durable}"
            raise Violation("sent before it was durable", text, *about)

    def _left_connack(self, tap: Tap, packet: Connack) -> None:
        who = tap.client_id
        if tap.is_welcome or packet.reason_code != 0:
            raise Violation("protocol", f"{who} got CONNACK {packet.reason_code:#x}", who)
        if packet.session_present != tap.is_present:
            text = f"{who} was told {packet.session_present}, it is {tap.is_present}"
            raise Violation("session present", text, who)
        tap.is_welcome = True
        self._needs(tap.connect_operation, f"CONNACK to {who}", who)

    def _left_pubrel(self, session: Session, packet_id: int) -> None:
        who = session.client_id
        flight = session.in_flight.get(packet_id)
        if flight is not None and flight.is_released:
            if session.is_durable:
                self._needs(flight.released, f"PUBREL #{packet_id} to {who}", who)
        elif flight is not None and self._was_too_large(session, flight):
            flight.released = self.durable
            flight.owed.is_gone = True
        elif packet_id not in session.completed and not session.was_small:
            raise Violation("protocol", f"PUBREL #{packet_id} to {who} before PUBREC", who)

    def _left_publish(self, tap: Tap, session: Session, packet: Publish) -> None:
        key = packet.payload.split(b" ", 1)[0].decode()
        topic = tap.topic(packet)
        what = f"{key or '(empty)'} on {topic} at QoS {packet.qos}{' again' * packet.dup}"
        text = f"{tap.client_id} got {what}"
        about = (tap.client_id, key)
        if key and (key not in self.messages or self.messages[key].topic != topic):
            raise Violation("not sent by anybody", text, *about)
        if key and self.messages[key].payload != packet.payload:
            raise Violation("damaged", text, *about)
        if packet.qos == 0:
            owed = self._loose(tap, packet, key, topic)
            if owed is None:
                raise Violation("not owed", text, *about)
            self.model.loose[tap.number].remove(owed)
            owed.is_gone = owed.group is not None
            if owed.group is None:
                self._check_forwarded(tap, owed, packet, text, about)
            return
        packet_id = packet.packet_id
        if packet_id in tap.open_ids:
            raise Violation("identifier in use", f"{text} as #{packet_id}", *about)
        tap.open_ids.add(packet_id)
        if len(tap.open_ids) > tap.window:
            raise Violation("receive maximum", f"{text}, its window is {tap.window}", *about)
        flight = session.in_flight.get(packet_id)
        repeatable = session.repeatable.pop(packet_id, None)
        if packet.dup and repeatable is not None and self._is_same(repeatable.owed, key, topic):
            # The crash came before its acknowledgement was written.
            flight = repeatable
            session.in_flight[packet_id] = flight
            flight.owed.is_gone = False
        if flight is not None and self._is_same(flight.owed, key, topic) and packet.dup:
            self._sent_again(tap, flight, text, about)
            return
        if flight is not None and not self._may_be_free(session, flight):
            held = f"{text} as #{packet_id}, which {flight.owed} has"
            raise Violation("identifier in use", held, *about)
        owed = self._new(tap, session, packet, key, topic)
        if owed is None:
            raise Violation("not owed", text, *about)
        if owed.group is not None:
            self._hand_over(owed)
        elif owed in session.owed:
            before = None if owed.is_slot else self._before(session, owed)
            if before is not None:
                raise Violation("order", f"{text}, and {before} not yet", *about)
            session.owed.remove(owed)
        elif owed in self.model.loose[tap.number]:
            self.model.loose[tap.number].remove(owed)
        owed.holder = session
        owed.link = tap.number
        self._order += 1
        session.in_flight[packet_id] = Flight(owed, packet.qos, self._order)
        if not packet.dup:
            self._check_new(tap, session, owed, packet, text, about)
        if session.is_durable or (owed.group is not None and owed.group.is_durable):
            self._needs(owed.operation, text, *about)

    def _is_same(self, owed: Owed, key: str, topic: str) -> bool:
        return owed.message.key == key and owed.message.topic == topic

    def _loose(self, tap: Tap, packet: Publish, key: str, topic: str) -> Owed | None:
        """What a session may be given, but need not; of several that the identifiers fit best."""
        found = [
            owed
            for owed in self.model.loose[tap.number]
            if self._is_same(owed, key, topic) and owed.qos == packet.qos and not owed.is_gone
        ]
        identifiers = _identifiers(packet)
        found.sort(key=lambda owed: (owed.retain != packet.retain, owed.identifiers != identifiers))
        return found[0] if found else None

    def _new(
        self, tap: Tap, session: Session, packet: Publish, key: str, topic: str
    ) -> Owed | None:
        """Which copy that the session is owed a PUBLISH is that begins a new exchange."""
        owed = [owed for owed in session.owed if self._is_same(owed, key, topic)]
        # One that its publisher sent twice has two lifetimes.
        owed.sort(key=self.model.lateness_ms)
        fitting = [o for o in owed if o.retain == packet.retain and o.qos == packet.qos]
        loose = self._loose(tap, packet, key, topic)
        if loose is not None and loose.retain == packet.retain:
            fitting.append(loose)
        identifiers = _identifiers(packet)
        # What is read from the log for a new subscription may name older ones beside it.
        fitting.sort(key=lambda o: 0 if o.identifiers == identifiers else 1 if o.is_slot else 2)
        for candidate in fitting:
            if candidate.is_slot or self._before(session, candidate) is None:
                return candidate
        if packet.dup:
            # A crash came between its commit and its sending; its subscription may have changed.
            fitting += owed
        if fitting:
            return fitting[0]
        found = self._of_group(tap, session, packet, key, topic)
        if found is not None:
            return found
        return owed[0] if owed else None

    def _of_group(
        self, tap: Tap, session: Session, packet: Publish, key: str, topic: str
    ) -> Owed | None:
        """The copy of a group that nobody has had, or that its holder gave back, or may have."""
        groups = [group for group in self.model.ever_groups if session.client_id in group.ever]
        if not packet.dup:
            groups.reverse()  # what is new is hardly of a group that has ended
        waiting: list[Owed] = []
        for group in groups:
            found = [owed for owed in group.owed if self._is_same(owed, key, topic)]
            found.sort(key=self.model.lateness_ms)
            for owed in found:
                is_had = owed.is_held or owed.link == tap.number
                if not (owed.is_gone or is_had) and owed.operation <= self.durable:
                    return owed
            for owed in found:
                if owed in group.repeatable:
                    group.repeatable.remove(owed)
                    owed.is_gone = False
                    return owed
            waiting += [owed for owed in found if not owed.is_gone]
        waiting.sort(key=lambda owed: owed.is_held)
        return waiting[0] if waiting else None

    def _hand_over(self, owed: Owed) -> None:
        """A message of a group goes to a member, for the first time or after another."""
        holder = owed.holder
        if holder is None:
            return
        for packet_id, flight in list(holder.in_flight.items()):
            if flight.owed is owed:
                about = (holder.client_id, owed.message.key)
                if flight.is_released or flight.qos == 2:
                    raise Violation("group gave it to two", f"{owed} at QoS 2", *about)
                if owed.is_held:
                    raise Violation("group gave it to two", f"{owed}, the first has it", *about)
                del holder.in_flight[packet_id]

    def _may_be_free(self, session: Session, flight: Flight) -> bool:
        """Whether the broker may take an identifier for free, though its client said nothing."""
        if flight.owed.group is not None:
            return True  # given back when the client went
        return flight.qos == 1 and self._was_too_large(session, flight)

    def _was_too_large(self, session: Session, flight: Flight) -> bool:
        return session.was_small and len(flight.owed.message.payload) > BIG_BYTES

    def _sent_again(self, tap: Tap, flight: Flight, text: str, about: tuple[str, str]) -> None:
        if flight.is_released:
            raise Violation("sent again after PUBREC", text, *about)
        if not tap.is_present:
            raise Violation("sent again in a new session", text, *about)
        if flight.order < tap.resent:
            raise Violation("order", f"{text}, and what was sent later came before", *about)
        tap.resent = flight.order
        flight.owed.link = tap.number

    def _before(self, session: Session, owed: Owed) -> Owed | None:
        """What a session is to be given first: per publisher, topic and QoS [MQTT-4.6.0-5]."""
        message = owed.message
        for other in session.owed:
            before = other.message
            if (
                other.operation < owed.operation
                and before.publisher == message.publisher
                and before.topic == message.topic
                and before.qos == message.qos
                and not other.is_slot
                and not self.is_excused(session, other)
            ):
                return other
        return None

    def _check_new(
        self,
        tap: Tap,
        session: Session,
        owed: Owed,
        packet: Publish,
        text: str,
        about: tuple[str, str],
    ) -> None:
        if session.link != tap.number:
            return
        if owed.group is None and packet.qos != owed.qos:
            raise Violation("QoS", f"{text}, expected {owed.qos}", *about)
        expires_ms = owed.routed.expires_ms
        if owed.has_one_lifetime and 0 < expires_ms <= min(self._times_ms):
            raise Violation("expired", f"{text}, {self.model.now_ms - expires_ms} ms late", *about)
        if owed.group is None:
            self._check_forwarded(tap, owed, packet, text, about)

    def _check_forwarded(
        self, tap: Tap, owed: Owed, packet: Publish, text: str, about: tuple[str, str]
    ) -> None:
        if packet.retain != owed.retain:
            raise Violation("RETAIN", f"{text}, expected {owed.retain}", *about)
        if tap.version != MQTT_5_0:
            return
        found = _identifiers(packet)
        if found != owed.identifiers and not owed.is_slot:
            text = f"{text} for subscriptions {found}, expected {owed.identifiers}"
            raise Violation("identifiers", text, *about)
        left_s = None if packet.properties is None else packet.properties.message_expiry_interval
        expires_ms = owed.routed.expires_ms
        if (left_s is None) != (expires_ms == 0):
            raise Violation("expiry", f"{text} with {left_s} s left", *about)
        if left_s is not None and owed.has_one_lifetime:
            most_s = -((min(self._times_ms) - expires_ms) // 1000)
            least_s = max(0, -((self.model.latest_ms - expires_ms) // 1000))
            if not least_s <= left_s <= most_s:
                expected = f"expected {least_s} to {most_s}"
                raise Violation("expiry", f"{text} with {left_s} s left, {expected}", *about)

    # --- the end

    def is_excused(self, session: Session, owed: Owed) -> bool:
        """Whether a session need not be given what it is owed."""
        if self.model.may_have_expired(owed):
            return True
        return session.was_small and len(owed.message.payload) > BIG_BYTES

    def check_kept(self) -> None:
        """All that was owed has come, and everything is acknowledged."""
        for session in self.model.sessions.values():
            who = session.client_id
            missing = [owed for owed in session.owed if not self.is_excused(session, owed)]
            if len(missing) > self.losses.of(who):
                text = f"{who} never got {missing[0]}"
                raise Violation("acknowledged and lost", text, who, missing[0].message.key)
            for packet_id, flight in session.in_flight.items():
                if not self._may_be_free(session, flight):
                    text = f"#{packet_id} to {who} was left unfinished: {flight.owed}"
                    raise Violation("forgotten in flight", text, who, flight.owed.message.key)
        for group in self.model.groups.values():
            missing = [owed for owed in group.owed if self._is_missing(group, owed)]
            if len(missing) > self.losses.of(group.topic_filter):
                text = f"{group.topic_filter} never got {missing[0]}"
                raise Violation("acknowledged and lost", text, missing[0].message.key)

    def _is_missing(self, group: Group, owed: Owed) -> bool:
        if owed.is_gone or owed.is_excused or self.model.may_have_expired(owed):
            return False
        if owed.message.routings == 1:
            return True
        # Of a message that its publisher sent again nobody can tell one copy from another.
        return not any(
            other.is_gone and other.holder is not None and other.message is owed.message
            for past in self.model.ever_groups
            if past.topic_filter == group.topic_filter
            for other in past.owed
        )


def _identifiers(packet: Publish) -> list[int]:
    properties = packet.properties
    return [] if properties is None else sorted(properties.subscription_identifiers)
