"""The session: what outlives a connection. Its durable part is a function of the committed log."""

import zlib
from typing import TYPE_CHECKING, Final, final

from holdfast.broker.queue import LogReader
from holdfast.message import Message
from holdfast.protocol.receiver import Qos2Receiver
from holdfast.protocol.sender import Sender
from holdfast.protocol.topics import has_wildcard, matches
from holdfast.store.records import (
    OPEN,
    FilterSpan,
    LogEntry,
    SessionRecord,
    SubscriptionRecord,
)

if TYPE_CHECKING:
    from holdfast.broker.connection import Connection
    from holdfast.broker.shared_group import Group
    from holdfast.broker.topic_tree import FilterNode

OPTION_QOS: Final = 0x03
OPTION_NO_LOCAL: Final = 0x04
OPTION_RETAIN_AS_PUBLISHED: Final = 0x08


@final
class Numbers:
    """Gives each session and each shared group a number that was never used before."""

    def __init__(self) -> None:
        self.next = 1

    def take(self) -> int:
        number = self.next
        self.next += 1
        return number


@final
class Subscription:
    """What a session asked of one topic filter.

    ``parts`` is set for a merged overlap, ``group`` for a shared one, which has no ``node``.
    """

    def __init__(
        self,
        session: "Session",
        topic_filter: str,
        options: int,
        identifier: int,
        from_lsn: int,
    ) -> None:
        self.session = session
        self.topic_filter = topic_filter
        self.options = options
        self.qos = options & OPTION_QOS
        self.is_no_local = options & OPTION_NO_LOCAL != 0
        self.is_retain_as_published = options & OPTION_RETAIN_AS_PUBLISHED != 0
        self.identifiers: list[int] | None = [identifier] if identifier else None
        self.from_lsn = from_lsn
        self.until_lsn = OPEN
        self.node: FilterNode | None = None
        self.parts: list[Subscription] | None = None
        self.group: Group | None = None
        # Its neighbours in the chain of its node, while its session is absent.
        self.absent_before: Subscription | None = None
        self.absent_next: Subscription | None = None

    def record(self) -> SubscriptionRecord:
        identifiers = self.identifiers
        return SubscriptionRecord(
            self.session.number,
            self.topic_filter,
            self.from_lsn,
            self.until_lsn,
            self.options,
            identifiers[0] if identifiers is not None else 0,
        )


def merge(parts: list[Subscription]) -> Subscription:
    """The one subscription that overlapping ones of a session amount to for a message.

    The highest QoS counts, and all Subscription Identifiers go with the one copy.
    Source: [MQTT-3.3.4-2], [MQTT-3.3.4-4].
    """
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    merged = Subscription(first.session, first.topic_filter, 0, 0, first.from_lsn)
    merged.is_no_local = False
    identifiers: list[int] = []
    for part in parts:
        if part.qos > merged.qos:
            merged.qos = part.qos
        if part.is_no_local:
            merged.is_no_local = True
        if part.is_retain_as_published:
            merged.is_retain_as_published = True
        own = part.identifiers
        if own is not None:
            identifiers.extend(own)
    if identifiers:
        merged.identifiers = identifiers
    merged.parts = parts
    return merged


def without_no_local(subscription: Subscription) -> Subscription | None:
    """What is left of it for a message that its own client published.

    Source: [MQTT-3.8.3-3].
    """
    if not subscription.is_no_local:
        return subscription
    parts = subscription.parts
    if parts is None:
        return None
    left: list[Subscription] = []
    for part in parts:
        if not part.is_no_local:
            left.append(part)
    return merge(left) if left else None


@final
class Session(LogReader):
    """One session, online or absent. A durable session's messages are in the log.

    ``epoch`` grows with each connection.
    """

    def __init__(self, number: int, client_id: str, version: int, expiry_s: int) -> None:
        super().__init__(number)
        self.client_id = client_id
        self.client_hash = zlib.crc32(client_id.encode())
        self.version = version
        self.expiry_s = expiry_s
        self.connection: Connection | None = None
        self.subscriptions: dict[str, Subscription] = {}
        self.closed: list[Subscription] | None = None  # ended, and still needed
        # Dictionaries, because a client may have a great many and end all of them in one packet.
        self.wildcards: dict[str, Subscription] | None = None  # by topic filter
        self.groups: dict[int, Group] | None = None  # by number, those that it is a member of
        # Which of the packet identifiers in flight carry a message of a group. Of the others and
        # of the released ones nothing is said.
        self.group_of: dict[int, Group] | None = None
        self.sender = Sender()
        self.received = Qos2Receiver()
        self.window = 0  # QoS 1 and 2 messages that may be in flight
        self.publish_wait = 0  # the batch of its newest logged or retained PUBLISH
        self.is_pump_listed = False
        self.resend: list[int] | None = None  # packet identifiers still to be sent again
        self.retained_waiting: list[RetainedDelivery] | None = None
        self.retained_next = 0  # the first of them that has not been sent
        self.is_dirty = False
        self.is_row_dirty = False
        self.is_lazy = False
        self.will: Message | None = None
        self.will_delay_s = 0
        self.will_due_ms = 0
        self.disconnected_at_ms = 0
        self.expiry_listed_ms = 0  # the time of its entry in the deadlines, 0 for none
        self.will_listed_ms = 0

    @property
    def name(self) -> str:
        return self.client_id

    @property
    def is_durable(self) -> bool:
        return self.expiry_s > 0

    @property
    def in_flight_room(self) -> int:
        """How many more QoS 1 and 2 messages the window takes."""
        return self.window - len(self.sender.in_flight)

    def row(self) -> SessionRecord:
        return SessionRecord(
            self.number,
            self.client_id,
            self.version,
            self.epoch,
            self.expiry_s,
            self.disconnected_at_ms,
            self.will,
            self.will_delay_s,
            self.will_due_ms,
        )

    def add(self, subscription: Subscription) -> None:
        topic_filter = subscription.topic_filter
        self.subscriptions[topic_filter] = subscription
        group = subscription.group
        if group is not None:
            if self.groups is None:
                self.groups = {}
            self.groups[group.number] = group
        elif has_wildcard(topic_filter):
            if self.wildcards is None:
                self.wildcards = {}
            self.wildcards[topic_filter] = subscription

    def remove(self, subscription: Subscription) -> None:
        del self.subscriptions[subscription.topic_filter]
        group = subscription.group
        if group is not None:
            assert self.groups is not None
            del self.groups[group.number]
            if not self.groups:
                self.groups = None
        elif self.wildcards is not None:
            self.wildcards.pop(subscription.topic_filter, None)
            if not self.wildcards:
                self.wildcards = None

    def subscription_for(self, entry: LogEntry) -> Subscription | None:
        """What of its subscriptions covers a log entry at QoS 1 or 2, merged; None for nothing.

        Shared ones are none of them: their groups read the log.
        """
        message = entry.message
        topic = message.topic
        lsn = entry.lsn
        found: list[Subscription] = []
        exact = self.subscriptions.get(topic)
        if exact is not None and exact.group is None and exact.from_lsn <= lsn:
            found.append(exact)
        if self.wildcards is not None:
            for wildcard in self.wildcards.values():
                if wildcard.from_lsn <= lsn and matches(wildcard.topic_filter, topic):
                    found.append(wildcard)
        if self.closed is not None:
            for old in self.closed:
                if old.from_lsn <= lsn < old.until_lsn and matches(old.topic_filter, topic):
                    found.append(old)
        if not found:
            return None
        merged: Subscription | None = merge(found)
        if message.publisher == self.client_id and merged is not None:
            merged = without_no_local(merged)
        if merged is None or merged.qos == 0:
            return None
        return merged

    def is_for(self, entry: LogEntry) -> bool:
        if entry.target != 0:
            return entry.target == self.number
        return self.subscription_for(entry) is not None

    def forget_in_flight(self, packet_id: int) -> None:
        """A packet identifier in flight is free again, or its message is needed no longer."""
        if self.group_of is not None:
            self.group_of.pop(packet_id, None)
            if not self.group_of:
                self.group_of = None

    def needs(self, ended: Subscription) -> bool:
        """Whether an ended subscription covers a message to be read, or to be sent again."""
        if self.is_behind and ended.until_lsn > self.position:
            return True
        return 0 < self.sender.reference_min() < ended.until_lsn

    def forget_closed(self) -> list[Subscription]:
        """The ended subscriptions that are needed no longer; they are dropped here."""
        closed = self.closed
        if closed is None:
            return []
        needless: list[Subscription] = []
        needed: list[Subscription] = []
        for old in closed:
            if self.needs(old):
                needed.append(old)
            else:
                needless.append(old)
        self.closed = needed or None
        return needless

    def spans(self) -> list[FilterSpan]:
        """What it reads while it is behind."""
        spans: list[FilterSpan] = []
        for subscription in self.subscriptions.values():
            if subscription.qos > 0 and subscription.group is None:
                spans.append(FilterSpan(subscription.topic_filter, subscription.from_lsn, OPEN))
        if self.closed is not None:
            for old in self.closed:
                if old.qos > 0 and old.until_lsn > self.position:
                    spans.append(FilterSpan(old.topic_filter, old.from_lsn, old.until_lsn))
        return spans


@final
class RetainedDelivery:
    """A retained message that waits for room on its way to an online session."""

    def __init__(self, message: Message, subscription: Subscription) -> None:
        self.message = message
        self.subscription = subscription
