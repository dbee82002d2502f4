"""What a ``mosquitto.db`` holds as a store of Holdfast.

Mosquitto keeps a queue for each session, Holdfast one log from which sessions read what their
subscriptions cover. So the log begins with a stretch for each session, its queue, covered by
subscriptions of this session alone that end with it; the real ones cover what comes behind.
"""

import time
from typing import Final, final

from holdfast.message import Message
from holdfast.protocol.sender import RELEASED, SENT_QOS_1, SENT_QOS_2
from holdfast.protocol.topics import is_shared
from holdfast.store.building import Builder, Transferred
from holdfast.store.mosquitto_db import (
    NEVER_ENDS,
    RESEND_PUBREL,
    SEND_PUBREC,
    WAIT_FOR_PUBACK,
    WAIT_FOR_PUBCOMP,
    WAIT_FOR_PUBREC,
    WAIT_FOR_PUBREL,
    Client,
    Delivery,
    MosquittoDb,
)
from holdfast.store.records import (
    OPEN,
    GroupRecord,
    LogEntry,
    RetainedRecord,
    SessionRecord,
    StateRecord,
    SubscriptionRecord,
    TimeMark,
    pack_in_flight,
    pack_lsns,
)

_QUEUED_OPTIONS: Final = 0x0A  # QoS 2 and Retain As Published: the message says what it is
_V311: Final = 4
_V5: Final = 5


def put_mosquitto(found: MosquittoDb, builder: Builder, done: Transferred) -> None:
    """Give everything to a builder, and tell how much of each kind there was."""
    importing = _Import(found, builder)
    done.counts.update(importing.run())
    if importing.left_out:
        done.notes.append(
            f"{importing.left_out} queued messages of QoS 0 were left out: "
            "Holdfast keeps none for absent sessions"
        )
    if found.missing:
        done.notes.append(
            f"{found.missing} queued or retained messages are named in the file, but not there: "
            "Mosquitto would not have delivered them either"
        )


@final
class _Import:
    def __init__(self, found: MosquittoDb, builder: Builder) -> None:
        self._found = found
        self._builder = builder
        self._now_ms = time.time_ns() // 1_000_000
        self._lsn = 1
        self._forwarded: list[Message] = []
        self._retained = {message.topic: message for message in found.retained}
        self.counts = dict.fromkeys(
            ("session", "subscription", "group", "retained", "queued", "in_flight", "received"), 0
        )
        self.left_out = 0  # queued messages of QoS 0, which Holdfast gives only to who is online

    def run(self) -> dict[str, int]:
        self._builder.time_mark(TimeMark(1, self._now_ms))
        clients = list(enumerate(self._found.clients.items(), 1))
        for number, (client_id, client) in clients:
            self._put_session(number, client_id, client)
        shared: dict[str, None] = {}
        for number, (_, client) in clients:
            for subscription in client.subscriptions:
                self._builder.subscription(
                    SubscriptionRecord(
                        number,
                        subscription.topic_filter,
                        self._lsn,
                        OPEN,
                        subscription.options,
                        subscription.identifier,
                    )
                )
                self.counts["subscription"] += 1
                if is_shared(subscription.topic_filter):
                    shared[subscription.topic_filter] = None
        for number, topic_filter in enumerate(shared, len(clients) + 1):
            self._builder.group(GroupRecord(number, topic_filter, self._lsn, pack_lsns([])))
            self.counts["group"] += 1
        for message in self._forwarded:
            self._put(message)
        for message in self._retained.values():
            kept = _as_retained(message)
            self._builder.retained(RetainedRecord(kept.topic, kept))
            self.counts["retained"] += 1
        return self.counts

    def _put_session(self, number: int, client_id: str, client: Client) -> None:
        since_ms = self._now_ms
        if client.expiry_s != NEVER_ENDS and client.ends_at_s:
            since_ms = max(1, (client.ends_at_s - client.expiry_s) * 1000)
        version = _V311 if client.expiry_s == NEVER_ENDS else _V5
        self._builder.session(
            SessionRecord(number, client_id, version, 1, client.expiry_s, since_ms, None, 0, 0)
        )
        self.counts["session"] += 1
        in_flight: dict[int, int] = {}
        queued: list[Delivery] = []
        received: set[int] = set()
        first = self._lsn
        covered: list[tuple[Delivery, int]] = []
        for delivery in client.deliveries:
            if delivery.is_incoming:
                self._take_incoming(delivery, received)
            elif delivery.packet_id and delivery.state in (WAIT_FOR_PUBACK, WAIT_FOR_PUBREC):
                stage = SENT_QOS_1 if delivery.state == WAIT_FOR_PUBACK else SENT_QOS_2
                in_flight[delivery.packet_id] = self._lsn * 4 + stage
                covered.append((delivery, self._put(delivery.message)))
                self.counts["in_flight"] += 1
            elif delivery.packet_id and delivery.state in (RESEND_PUBREL, WAIT_FOR_PUBCOMP):
                in_flight[delivery.packet_id] = RELEASED
                self.counts["in_flight"] += 1
            elif delivery.message.qos == 0:
                self.left_out += 1
            else:
                queued.append(delivery)
        cursor = self._lsn
        for delivery in queued:
            covered.append((delivery, self._put(delivery.message)))
            self.counts["queued"] += 1
        packed = b"".join(packet_id.to_bytes(2, "big") for packet_id in sorted(received))
        self._builder.state(StateRecord(number, cursor, pack_in_flight(in_flight), packed))
        assert self._lsn == first + len(covered)
        self._cover(number, covered)

    def _take_incoming(self, delivery: Delivery, received: set[int]) -> None:
        """A QoS 2 message that a client published and did not release.

        Mosquitto would forward it with PUBREL; Holdfast has forwarded what it holds, so it does
        now, and takes what comes under its identifier for a repeat.
        """
        if delivery.state not in (WAIT_FOR_PUBREL, SEND_PUBREC) or not delivery.packet_id:
            return
        received.add(delivery.packet_id)
        self.counts["received"] += 1
        message = delivery.message
        self._forwarded.append(message)
        if message.retain:
            self._retained.pop(message.topic, None)
            if message.payload:
                self._retained[message.topic] = message

    def _put(self, message: Message) -> int:
        lsn = self._lsn
        self._builder.entry(LogEntry(lsn, message))
        self._lsn += 1
        return lsn

    def _cover(self, number: int, covered: list[tuple[Delivery, int]]) -> None:
        """Put subscriptions that have ended, one for each run with the same identifiers."""
        start = 0
        for end in range(1, len(covered) + 1):
            if end < len(covered) and _kind(covered[end][0]) == _kind(covered[start][0]):
                continue
            delivery, low = covered[start]
            # "#" matches no topic that begins with "$"; such a one is a run for itself.
            is_special = delivery.message.topic.startswith("$")
            topic_filter = delivery.message.topic if is_special else "#"
            identifier = delivery.identifiers[0] if delivery.identifiers else 0
            high = covered[end - 1][1] + 1
            self._builder.subscription(
                SubscriptionRecord(number, topic_filter, low, high, _QUEUED_OPTIONS, identifier)
            )
            start = end


def _kind(delivery: Delivery) -> tuple[str, tuple[int, ...]]:
    """What has to be the same for all that one subscription covers."""
    topic = delivery.message.topic
    return topic if topic.startswith("$") else "", delivery.identifiers[:1]


def _as_retained(message: Message) -> Message:
    return Message(
        message.topic,
        message.payload,
        message.qos,
        True,
        message.properties,
        message.expires_at_ms,
        message.publisher,
    )
