"""One shared group, and which of its members is given the next message."""

import zlib
from typing import Final, final

from holdfast.broker.connection import Connection
from holdfast.broker.queue import LogReader
from holdfast.broker.session import Session, Subscription
from holdfast.broker.topic_tree import FilterNode
from holdfast.message import Message
from holdfast.protocol.topics import matches, split_share
from holdfast.store.records import OPEN, FilterSpan, GroupRecord, LogEntry, pack_lsns

ROUND_ROBIN: Final = 0
LEAST_IN_FLIGHT: Final = 1
STICKY: Final = 2
HASH_CLIENT: Final = 3
HASH_TOPIC: Final = 4
SHARED_STRATEGIES: Final = (  # the names of these numbers
    "round_robin",
    "least_in_flight",
    "sticky",
    "hash_client",
    "hash_topic",
)


@final
class Group(LogReader):
    """One shared group. It has at least one member, online or absent; the last one ends it.

    ``returned`` holds lsns below its position that a member gave back, ``withheld`` those that no
    member online may have. ``epoch`` grows when the queue is forgotten.
    """

    def __init__(self, number: int, topic_filter: str, position: int) -> None:
        super().__init__(number)
        self.position = position
        self.topic_filter = topic_filter  # $share/name/filter
        self.inner_filter = split_share(topic_filter)[1]
        self.node: FilterNode | None = None
        self.members: dict[int, Subscription] = {}  # by session number
        self.online: list[Subscription] = []
        self.queueing = 0  # members at QoS 1 or 2: for them the group queues
        self.next = 0  # the member whose turn it is
        self.sticky: Subscription | None = None
        self.returned: list[int] = []
        self.withheld: list[int] = []
        # QoS 1 messages with members that a crash of the broker ends, so that they come back to
        # the group then: lsn by ``lent_key``.
        self.lent: dict[int, int] = {}
        self.stranded: dict[int, Session] = {}  # absent, with messages another may be given
        self.is_dirty = False
        self.is_lazy = False

    @property
    def name(self) -> str:
        return self.topic_filter

    def spans(self) -> list[FilterSpan]:
        return [FilterSpan(self.inner_filter, 0, OPEN)]

    def is_for(self, entry: LogEntry) -> bool:
        return entry.target == 0 and matches(self.inner_filter, entry.message.topic)

    def record(self, next_lsn: int) -> GroupRecord:
        # What is withheld is offered again after a crash: who has the right then is not known.
        lsns = sorted(self.returned + self.withheld + list(self.lent.values()))
        cursor = self.position if self.is_behind else next_lsn
        gaps = b"" if self.queue is None else self.queue.packed_gaps(cursor)
        return GroupRecord(self.number, self.topic_filter, cursor, pack_lsns(lsns), gaps)


def lent_key(session: Session, packet_id: int) -> int:
    """The key of a message in ``Group.lent``."""
    return session.number * 65536 + packet_id


def choose(group: Group, message: Message, strategy: int) -> Subscription | None:
    """The member whose turn it is; None if none that may have the message has room.

    With the sticky and the hashing strategies a message belongs to one member and waits for
    it: order is what they are chosen for.
    """
    online = group.online
    count = len(online)
    if count == 0:
        return None
    qos = message.qos
    if strategy == ROUND_ROBIN:
        for _ in range(count):
            if group.next >= count:
                group.next = 0
            member = online[group.next]
            group.next += 1
            if has_room(member, qos) and is_allowed(member, message):
                return member
        return None
    if strategy == LEAST_IN_FLIGHT:
        return _least_in_flight(group, message)
    chosen: Subscription | None
    if strategy == STICKY:
        if group.sticky is None:
            group.sticky = online[0]
        chosen = group.sticky
        if not is_allowed(chosen, message):
            chosen = _first_allowed(online, message)
    else:
        chosen = _by_hash(online, message, strategy == HASH_CLIENT)
    return chosen if chosen is not None and has_room(chosen, qos) else None


def is_allowed(member: Subscription, message: Message) -> bool:
    """Whether a member online may be given a message; one may have lost the right to it."""
    connection = member.session.connection
    assert connection is not None
    return may_have_shared(connection, message)


def may_have_shared(connection: Connection, message: Message) -> bool:
    """Whether a client may be given a message as a member of a group."""
    permissions = connection.permissions
    return permissions is None or permissions.may_receive_shared(message.topic)


def is_for_anyone(online: list[Subscription], message: Message) -> bool:
    """Whether any of the members online may be given a message."""
    return _first_allowed(online, message) is not None


def _first_allowed(online: list[Subscription], message: Message) -> Subscription | None:
    for member in online:
        if is_allowed(member, message):
            return member
    return None


def has_room(member: Subscription, message_qos: int) -> bool:
    """Whether a member online can be given one more message now.

    One that catches up on subscriptions of its own keeps half of its window for them.
    """
    session = member.session
    connection = session.connection
    assert connection is not None
    if not connection.has_room:
        return False
    if message_qos == 0 or member.qos == 0:
        return True
    reserved = (session.window + 1) // 2 if session.is_behind else 0
    return session.resend is None and session.in_flight_room > reserved


def _least_in_flight(group: Group, message: Message) -> Subscription | None:
    """The member with the fewest messages in flight; among equals they take turns."""
    online = group.online
    count = len(online)
    best: Subscription | None = None
    best_index = 0
    least = 0
    for step in range(count):
        index = (group.next + step) % count
        member = online[index]
        in_flight = len(member.session.sender.in_flight)
        if (
            (best is None or in_flight < least)
            and has_room(member, message.qos)
            and is_allowed(member, message)
        ):
            best = member
            best_index = index
            least = in_flight
    if best is not None:
        group.next = best_index + 1
    return best


def _by_hash(
    online: list[Subscription], message: Message, is_by_client: bool
) -> Subscription | None:
    """The member that a message belongs to; when members come or go, few change theirs.

    By rendezvous hashing: each member has a weight for each key, and the heaviest has it.
    """
    key = message.publisher if is_by_client else message.topic
    key_hash = zlib.crc32(key.encode())
    chosen: Subscription | None = None
    highest = -1
    for member in online:
        # The order of the members has to depend on all bits of both; xor alone would not do.
        weight = ((key_hash ^ member.session.client_hash) * 0x9E3779B1) & 0xFFFF_FFFF
        weight = ((weight ^ (weight >> 15)) * 0x85EBCA6B) & 0xFFFF_FFFF
        if weight > highest and is_allowed(member, message):
            chosen = member
            highest = weight
    return chosen


def room(group: Group) -> int:
    """How many messages its members online take together now."""
    count = 0
    for member in group.online:
        if member.qos == 0:
            count += 1
        elif has_room(member, 1):
            count += member.session.in_flight_room
    return count


def groups_of_in_flight(session: Session) -> list[Group]:
    """The groups that a session has unacknowledged QoS 1 messages of."""
    found: list[Group] = []
    group_of = session.group_of
    assert group_of is not None
    for packet_id, group in group_of.items():
        if session.sender.awaits_puback(packet_id) and group not in found:
            found.append(group)
    return found
