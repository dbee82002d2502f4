"""The sending half of a client's session: what it has promised to send, over any connection.

Source: MQTT 5.0 §3.3.4, §4.3, §4.4, §4.9; MQTT 3.1.1 §4.3, §4.4.
"""

from typing import Final, final

from mypy_extensions import i64

from holdfast.client.changes import Changes
from holdfast.client.outgoing import (
    ACCEPTED,
    DONE,
    FAILED,
    PUBLISH_ID_MAX,
    RELEASED,
    SENT,
    STORED,
    Outgoing,
    Queue,
)
from holdfast.client.records import ReleaseOutgoing, RemoveOutgoing, StoreOutgoing
from holdfast.client.server_limits import ServerLimits
from holdfast.errors import HoldfastError, UsageError
from holdfast.message import NEVER, Properties
from holdfast.protocol.encode import encode_pubrel, publish_frame
from holdfast.protocol.packets import MQTT_5_0
from holdfast.protocol.properties import forwarded_properties, pack_properties
from holdfast.protocol.reason_codes import (
    FAILURE,
    PACKET_TOO_LARGE,
    QOS_NOT_SUPPORTED,
    RETAIN_NOT_SUPPORTED,
)
from holdfast.protocol.sender import Sender
from holdfast.protocol.topic_aliases import AliasesOut

# What one pass writes at most, so that the answers of the server get their turn meanwhile.
PASS_BYTES_MAX: Final = 262_144

# How many messages of a backlog are marked as sent, durably, before they are.
MARK_AHEAD: Final = 1000

EXPIRED: Final = "the message has expired before it could be sent"
TOO_OLD: Final = "dropped, older than the outbox keeps messages"
DROPPED: Final = "dropped, the oldest of a full outbox"
NO_DUE: Final = 2**62  # a time that never comes, Unix time in milliseconds


@final
class Sending:
    """What is queued and in flight.

    With ``is_durable`` nothing of QoS 1 or 2 is sent before the commit of its record, and PUBREL
    waits for the record of PUBREC. ``finished`` are the watched messages that have come to their
    end since it was last emptied.
    """

    def __init__(self, changes: Changes, is_durable: bool, in_flight_max: int) -> None:
        self.finished: list[Outgoing] = []
        self.messages: i64 = 0  # neither done nor failed
        self.bytes: i64 = 0
        self.dropped: i64 = 0  # expired, dropped at a bound, refused by the server
        self.next_seq = 1
        self._changes = changes
        self._is_durable = is_durable
        self._in_flight_max: i64 = in_flight_max
        # What may have been sent before, over a session that may go on, and what was not: of that
        # alone anything may be dropped.
        self._repeats = Queue()
        self._queue = Queue()
        self._due_ms: i64 = NO_DUE  # nothing in the queue expires before
        self._sender = Sender()
        # All messages before this one are gone, from the file too. None is sent that is
        # PUBLISH_ID_MAX or more behind it, so that an identifier stands for one message there too:
        # else a crash would bring back one whose identifier is another's by now.
        self._kept_from: i64 = 1
        # No message from this number on was ever sent, by this process or an earlier one. It is
        # durable, and moves before they are sent, some at a time: so after a crash it is known what
        # may be in flight.
        self.sent_below: i64 = 1
        # Whether the server's session was begun by this one. Another may have left identifiers of
        # QoS 2 in it that were never released, and whatever comes under such a one is a repeat to
        # the server: acknowledged and dropped.
        self.owns_session = False
        # In such a session: the messages before this one have identifiers that are free, and those
        # from the first round on; and what is being freed, up to the answer for this identifier.
        self._freed_below: i64 = 0
        self._round_ends: i64 = 0
        self._freeing_below: i64 = 0
        self._freeing_id: i64 = 0
        self._in_flight: dict[int, Outgoing] = {}
        self._releases: i64 = 0  # PUBRECs that came so far
        self._quota: i64 = 0  # how many more the server takes
        self._connection = 0
        self._limits = ServerLimits(MQTT_5_0)
        self._aliases = AliasesOut(0)
        self._uses_aliases = False

    # --- what the application asks for

    def accept(self, entry: Outgoing) -> None:
        """Take a message over, and number it if its QoS is above 0."""
        self.messages += 1
        self.bytes += entry.size
        if entry.expires_at_ms != NEVER and entry.expires_at_ms < self._due_ms:
            self._due_ms = entry.expires_at_ms
        if entry.qos > 0:
            entry.number(self.next_seq)
            self.next_seq += 1
        if entry.qos == 0 or not self._is_durable:
            entry.stage = STORED
        else:
            changes = self._changes
            changes.records.append(
                StoreOutgoing(
                    entry.seq,
                    entry.topic,
                    entry.payload,
                    entry.qos,
                    entry.retain,
                    pack_properties(entry.properties),
                    entry.expires_at_ms,
                    entry.queued_at_ms,
                )
            )
            changes.stored.append(entry)
            changes.is_urgent = True
            if self._connection != 0 and len(self._queue) < MARK_AHEAD and self.owns_session:
                changes.sent_below = self.next_seq  # its turn comes soon
        self._queue.append(entry)

    def restore(self, entry: Outgoing, seq: int, is_released: bool) -> None:
        """Take a message over that was kept by an earlier process, in the order of ``seq``.

        Before ``sent_below`` nobody knows whether it was sent: over a session that goes on it is a
        repeat.
        """
        self.messages += 1
        self.bytes += entry.size
        entry.number(seq)
        entry.is_repeat = seq < self.sent_below
        self.next_seq = seq + 1
        if is_released:
            entry.stage = RELEASED
            self._in_flight[entry.packet_id] = entry
            self._sender.publish_under(entry.packet_id, entry.seq, 2)
            self._sender.pubrec(entry.packet_id, True)
        else:
            entry.stage = STORED
            if entry.is_repeat:
                self._repeats.append(entry)
                return
            if entry.expires_at_ms != NEVER:
                self._due_ms = min(self._due_ms, entry.expires_at_ms)
            self._queue.append(entry)

    def drop_oldest(self) -> bool:
        """Give the oldest message up that was never sent; False if there is none.

        What may be in flight stays: the server may have it, and holds its identifier until the
        exchange is complete [MQTT-4.4.0-1].
        """
        queue = self._queue
        while True:
            entry = queue.first()
            if entry is None:
                return False
            queue.take()
            if entry.stage != FAILED:
                self._fail(entry, 0, DROPPED)
                return True

    def sweep(self, now_ms: int, age_max_ms: int) -> int:
        """Drop what has expired, or is older than ``age_max_ms`` (0: any age), and was never sent.

        Returned is how many were dropped for their age.
        """
        aged: i64 = 0
        has_failed = False
        due_ms: i64 = NO_DUE
        for entry in self._queue.waiting():
            if entry.stage == FAILED:
                has_failed = True
            elif entry.expires_at_ms != NEVER and entry.expires_at_ms <= now_ms:
                self._fail(entry, 0, EXPIRED)
                has_failed = True
            elif age_max_ms > 0 and entry.queued_at_ms + age_max_ms <= now_ms:
                self._fail(entry, 0, TOO_OLD)
                has_failed = True
                aged += 1
            else:
                if entry.expires_at_ms != NEVER:
                    due_ms = min(due_ms, entry.expires_at_ms)
                if age_max_ms > 0:
                    due_ms = min(due_ms, entry.queued_at_ms + age_max_ms)
        if has_failed:
            self._queue.forget_failed()
        self._due_ms = due_ms
        return aged

    def due_ms(self, age_max_ms: int) -> int:
        """When ``sweep`` has something to do at the earliest; NO_DUE if nothing is known."""
        due_ms = self._due_ms
        entry = self._queue.first()
        if age_max_ms > 0 and entry is not None:
            due_ms = min(due_ms, entry.queued_at_ms + age_max_ms)
        return due_ms

    def not_stored(self, entries: list[Outgoing], error: HoldfastError) -> list[int]:
        """These could not be made durable: they are given up. Returned are their numbers."""
        seqs: list[int] = []
        for entry in entries:
            seqs.append(entry.seq)
            if entry.stage == ACCEPTED:
                entry.error = error
                self._fail(entry, 0, "the message could not be stored")
        self._queue.forget_failed()
        return seqs

    def unfinished(self) -> list[Outgoing]:
        """All that is neither done nor failed."""
        waiting = self._repeats.waiting() + self._queue.waiting()
        left = [entry for entry in waiting if entry.stage != FAILED]
        return [*self._in_flight.values(), *left]

    def oldest(self) -> Outgoing | None:
        """The message that has waited longest for its end."""
        for known in self._in_flight.values():
            return known
        first = self._repeats.first()
        if first is not None and first.stage != FAILED:
            return first
        entry = self._queue.first()
        while entry is not None and entry.stage == FAILED:
            self._queue.take()
            entry = self._queue.first()
        return entry

    @property
    def in_flight(self) -> int:
        """How many messages are sent and not acknowledged."""
        return len(self._in_flight)

    # --- connections

    def connected(
        self,
        connection: int,
        limits: ServerLimits,
        session_present: bool,
        aliases_max: int,
        out: list[bytes],
    ) -> None:
        """Go on over a new connection, from what is unacknowledged.

        Without a session at the server its identifiers are void: what it had not taken over is
        new to it, what it had is done. Source: [MQTT-4.4.0-1], [MQTT-3.2.2-5].
        """
        self._connection = connection
        self._limits = limits
        self._aliases = AliasesOut(aliases_max)
        self._uses_aliases = aliases_max > 0
        self._quota = min(self._in_flight_max, limits.receive_maximum)
        again: list[Outgoing] = []
        released: list[tuple[int, int, Outgoing]] = []
        for entry in list(self._in_flight.values()):
            if entry.stage == RELEASED and session_present:
                released.append((entry.release, entry.seq, entry))
                continue
            del self._in_flight[entry.packet_id]
            del self._sender.in_flight[entry.packet_id]
            if entry.stage == RELEASED:
                self._done(entry)
                continue
            entry.stage = STORED
            again.append(entry)
        # In the order in which the PUBRECs came [MQTT-4.6.0-4].
        released.sort()
        for _, _, entry in released:
            self._quota -= 1
            self._release(entry.packet_id, out)
        if again:
            self._repeats.put_before(again)
        self._freeing_below = 0
        if self._round_ends == 0:
            # What was marked as sent by an earlier process was freed before.
            self._freed_below = max(1, self.sent_below if self._is_durable else 1)
            self._round_ends = self._freed_below + PUBLISH_ID_MAX
        if not session_present:
            self.owns_session = True
            unsent = self._repeats.waiting()
            for entry in unsent:
                entry.is_repeat = False
                if entry.expires_at_ms != NEVER:
                    self._due_ms = min(self._due_ms, entry.expires_at_ms)
            self._queue.put_before(unsent)
            self._repeats = Queue()

    def disconnected(self) -> None:
        """The connection is gone; what is in flight stays so until the next one."""
        self._connection = 0

    @property
    def has_more(self) -> bool:
        """Whether ``pump`` would send something."""
        entry = self._repeats.first() or self._queue.first()
        if entry is None or entry.stage == ACCEPTED or self._connection == 0:
            return False
        if entry.qos == 0 or entry.stage == FAILED:
            return True
        if self._is_durable and entry.seq >= self.sent_below:
            return False
        if not self.owns_session and entry.seq >= self._freed_below:
            return False
        return self._quota > 0 and entry.seq - self._kept_from < PUBLISH_ID_MAX

    def pump(self, out: list[bytes], now_ms: int) -> list[Outgoing]:
        """Append to ``out`` what may be sent now; returned is what of it is QoS 0.

        Those are done when they are written. Source: [MQTT-3.3.4-7], [MQTT-3.3.4-9].
        """
        written: list[Outgoing] = []
        queue = self._repeats
        left: i64 = PASS_BYTES_MAX
        while left > 0 and self._connection != 0:
            entry = queue.first()
            if entry is None and queue is not self._queue:
                queue = self._queue
                continue
            if entry is None or entry.stage == ACCEPTED:
                break
            if entry.stage == FAILED:
                queue.take()
                continue
            if entry.qos > 0:
                if self._quota <= 0 or not self._has_id(entry):
                    break
                if not self.owns_session and not self._is_freed(entry, out):
                    break
                if self._is_durable and not self._is_marked(entry):
                    break
            queue.take()
            frame = self._frame(entry, now_ms)
            if frame is None:
                continue
            if entry.qos == 0:
                written.append(entry)
            else:
                is_free = self._sender.publish_under(entry.packet_id, entry.seq, entry.qos)
                assert is_free
                self._in_flight[entry.packet_id] = entry
                self._quota -= 1
                entry.stage = SENT
                entry.is_repeat = True
            out.append(frame)
            left -= len(frame)
        return written

    def _is_freed(self, entry: Outgoing, out: list[bytes]) -> bool:
        """Whether the server cannot hold this identifier for who began the session.

        PUBREL frees it, if it is answered: only then may the message be sent, and be marked as
        sent. Both could be lost, and the message, sent again, would be taken for a repeat. At QoS 1
        too: the server refuses what comes under an identifier that is in use.
        """
        if entry.seq < self._freed_below or entry.is_repeat:
            return True
        if entry.seq >= self._round_ends:
            self.owns_session = True  # all identifiers were freed
            return True
        if self._freeing_below > 0:
            return False
        last = 0
        below: i64 = min(entry.seq + MARK_AHEAD, self._kept_from + PUBLISH_ID_MAX)
        for one in self._queue.waiting():
            if one.seq >= below:
                break
            if one.qos > 0 and one.stage != FAILED:
                out.append(encode_pubrel(one.packet_id))
                last = one.packet_id
        below = min(below, self.next_seq)
        if last == 0:
            self._freed_below = below
            return True
        self._freeing_below = below
        self._freeing_id = last
        return False

    def committed(self, batch: Changes) -> None:
        """This batch is durable."""
        for entry in batch.stored:
            if entry.stage == ACCEPTED:
                entry.stage = STORED
        self._kept_from = max(self._kept_from, batch.kept_from)
        self.sent_below = max(self.sent_below, batch.sent_below)

    def written(self, entries: list[Outgoing]) -> None:
        """These of QoS 0 have gone to the network: that is their end."""
        for entry in entries:
            self._done(entry)

    # --- what the server answers

    def puback(self, packet_id: int, reason_code: int, reason: str) -> None:
        """Take a PUBACK; one that nothing waits for is passed over."""
        if self._sender.puback(packet_id):
            self._end(packet_id, reason_code, reason)

    def pubrec(self, packet_id: int, reason_code: int, reason: str, out: list[bytes]) -> bool:
        """Take a PUBREC; False if nothing waits for it, which PUBREL tells the server.

        Source: [MQTT-4.3.3-4], [MQTT-4.3.3-5].
        """
        is_success = reason_code < FAILURE
        if packet_id not in self._in_flight or self._in_flight[packet_id].qos != 2:
            return False
        entry = self._in_flight[packet_id]
        if not self._sender.pubrec(packet_id, is_success):
            if entry.stage == SENT:
                self._end(packet_id, reason_code, reason)
            return True
        if entry.stage == SENT:
            entry.stage = RELEASED
            entry.reason_code = reason_code
            entry.reason = reason
            self._releases += 1
            entry.release = self._releases
            # PUBREL is sent now and never again PUBLISH [MQTT-4.3.3-6].
            self.bytes -= len(entry.payload)
            entry.size -= len(entry.payload)
            entry.payload = b""
            if self._is_durable:
                self._changes.records.append(ReleaseOutgoing(entry.seq, entry.queued_at_ms))
        self._release(packet_id, out)
        return True

    def pubcomp(self, packet_id: int, reason_code: int, reason: str) -> None:
        """Take a PUBCOMP. That the server does not know the identifier ends the exchange too."""
        if self._sender.pubcomp(packet_id):
            entry = self._in_flight.pop(packet_id)
            self._give_back()
            self._done(entry)
        elif packet_id == self._freeing_id and self._freeing_below > 0:
            self._freed_below = self._freeing_below
            self._freeing_below = 0

    def _has_id(self, entry: Outgoing) -> bool:
        """Whether its identifier is no other message's; if not, the next commit may help."""
        if entry.seq - self._kept_from < PUBLISH_ID_MAX:
            return True
        if not self._is_durable:
            self._kept_from = self._oldest_seq()
            return entry.seq - self._kept_from < PUBLISH_ID_MAX
        changes = self._changes
        if changes.kept_from == 0 and self._oldest_seq() > self._kept_from:
            changes.kept_from = self._oldest_seq()
            changes.is_urgent = True
        return False

    def _is_marked(self, entry: Outgoing) -> bool:
        """Whether it is durable that it may have been sent; if not, the next commit helps."""
        changes = self._changes
        if entry.seq + MARK_AHEAD // 2 >= self.sent_below and self.sent_below < self.next_seq:
            below = min(self.next_seq, entry.seq + MARK_AHEAD)
            if not self.owns_session:
                below = min(below, self._freed_below)
            if below > self.sent_below and below > changes.sent_below:
                changes.sent_below = below
                changes.is_urgent = True
        return entry.seq < self.sent_below

    def _oldest_seq(self) -> int:
        """That of the oldest message which is neither done nor failed."""
        oldest = self._repeats.first_seq() or self._queue.first_seq() or self.next_seq
        for entry in self._in_flight.values():
            oldest = min(oldest, entry.seq)
        return oldest

    def _end(self, packet_id: int, reason_code: int, reason: str) -> None:
        entry = self._in_flight.pop(packet_id)
        self._give_back()
        if reason_code >= FAILURE:
            self._fail(entry, reason_code, reason)
        else:
            entry.reason_code = reason_code
            entry.reason = reason
            self._done(entry)

    def _give_back(self) -> None:
        if self._quota < self._in_flight_max and self._quota < self._limits.receive_maximum:
            self._quota += 1

    def _release(self, packet_id: int, out: list[bytes]) -> None:
        """Send PUBREL, once it is durable that PUBREC came."""
        if self._is_durable:
            self._changes.send(encode_pubrel(packet_id), self._connection)
        else:
            out.append(encode_pubrel(packet_id))

    def _done(self, entry: Outgoing) -> None:
        entry.stage = DONE
        self._finish(entry)

    def _fail(self, entry: Outgoing, reason_code: int, reason: str) -> None:
        entry.stage = FAILED
        entry.reason_code = reason_code
        entry.reason = reason
        self.dropped += 1
        self._finish(entry)

    def _finish(self, entry: Outgoing) -> None:
        self.messages -= 1
        self.bytes -= entry.size
        if entry.qos > 0 and self._is_durable:
            self._changes.records.append(RemoveOutgoing(entry.seq))
        if entry.watcher is not None:
            self.finished.append(entry)

    # --- frames

    def _frame(self, entry: Outgoing, now_ms: int) -> bytes | None:
        """The PUBLISH; None if this server will not have it, or nobody any more."""
        limits = self._limits
        # What was sent at QoS 2 does not expire: the server may have it [MQTT-4.3.3-7].
        may_expire = entry.expires_at_ms != 0 and (entry.qos < 2 or not entry.is_repeat)
        if may_expire and entry.is_expired(now_ms):
            self._fail(entry, 0, EXPIRED)
            return None
        if entry.qos > limits.maximum_qos:
            # [MQTT-3.2.2-11]
            self._fail(
                entry, QOS_NOT_SUPPORTED, f"the server takes QoS {limits.maximum_qos} at most"
            )
            return None
        if entry.retain and not limits.is_retain_available:
            # [MQTT-3.2.2-14]
            self._fail(entry, RETAIN_NOT_SUPPORTED, "the server takes no retained messages")
            return None
        is_repeat = entry.is_repeat and entry.qos > 0
        topic = entry.topic
        properties = entry.properties
        if limits.version >= MQTT_5_0 and (entry.expires_at_ms != 0 or self._uses_aliases):
            alias = self._aliases.alias(topic)
            new_alias = self._aliases.next_alias if alias == 0 else 0
            properties = _changed(entry, now_ms, alias or new_alias)
            if alias != 0:
                topic = ""
        try:
            frame = publish_frame(
                topic,
                entry.payload,
                entry.qos,
                entry.retain,
                is_repeat,
                entry.packet_id,
                limits.version,
                properties,
            )
        except UsageError as error:
            # It was let in by mistake, or by another version: that must not keep the others here.
            self._fail(entry, 0, f"no PUBLISH can carry it: {error}")
            return None
        if len(frame) > limits.packet_bytes_max:
            # [MQTT-3.2.2-15]
            self._fail(
                entry,
                PACKET_TOO_LARGE,
                f"the server takes packets of {limits.packet_bytes_max} bytes, "
                f"this one has {len(frame)}",
            )
            return None
        if topic and properties is not None and properties.topic_alias is not None:
            self._aliases.put(topic)
        return frame


def _changed(entry: Outgoing, now_ms: int, alias: int) -> Properties | None:
    """The properties of a PUBLISH that has an alias, or what is left of its time."""
    if entry.expires_at_ms == 0 and alias == 0:
        return entry.properties
    properties = forwarded_properties(entry.properties)
    if properties is None:
        properties = Properties()
    if entry.expires_at_ms != 0:
        # Never longer than it was, though the clock was set back meanwhile; and not 0, which some
        # servers take for no expiry.
        left_ms = entry.expires_at_ms - max(now_ms, entry.queued_at_ms)
        properties.message_expiry_interval = max(1, (left_ms + 999) // 1000)
    if alias != 0:
        properties.topic_alias = alias
    return properties
