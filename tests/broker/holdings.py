"""What the model knows of messages, wills and sessions; ``promises`` says what becomes of them.

Every change has an index; a crash may take back any that is not known to be on the disk.
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
    retain_as_published: bool


class Sent:
    """One message of a publisher; ``key`` is its payload, by which a receiver tells it."""

    def __init__(
        self,
        publisher: str,
        number: int,
        topic: str,
        qos: int,
        retain: bool,
        clears: bool = False,
        expiry_s: int = 0,
    ) -> None:
        self.publisher = publisher
        self.number = number
        self.topic = topic
        self.qos = qos
        self.retain = retain
        self.clears = clears  # it goes out without its key
        self.expiry_s = expiry_s  # 0 for never
        self.expires_ms: list[int] = []  # of each routing
        self.key = f"{publisher}.{number}"
        self.index = 0  # of its newest routing
        self.sends = 0  # how often it was routed: more than once only at QoS 1

    def is_expired(self, now_ms: int) -> bool:
        """Whether all copies of it are too old to begin their way to a receiver."""
        return bool(self.expires_ms) and max(self.expires_ms) <= now_ms

    def __repr__(self) -> str:
        return f"{self.key} on {self.topic} q{self.qos}{' retain' if self.retain else ''}"


class Will(NamedTuple):
    """A message for the end of a connection, or for some time after it."""

    message: Sent
    delay_s: int


class Promise(NamedTuple):
    """A routing that must reach its session, unless it expires before."""

    routed: int  # its index
    is_durable: bool  # it must outlive the connection
    expires_ms: int  # 0 for never


class Owed:
    """What one session is to get of one message: at least ``at_least``, at most ``at_most``."""

    def __init__(self, message: Sent) -> None:
        self.message = message
        self.qos: set[int] = set()
        # Subscription Identifiers that may and that must come along.
        self.identifiers: tuple[Counter[int], Counter[int]] = Counter(), Counter()
        self.retain: set[bool] = set()  # RETAIN of a copy, as far as it is no retained message
        self.promised: list[Promise] = []
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
        # The will: what surely is on the disk, and the changes since.
        self.wills: list[tuple[int, Will | None]] = [(0, None)]
        self.will_due_ms = 0  # 0 unless it waits for its delay

    @property
    def is_durable(self) -> bool:
        return self.expiry_s > 0

    @property
    def will(self) -> Will | None:
        return self.wills[-1][1]

    def set_will(self, index: int, will: Will | None) -> None:
        self.wills.append((index, will))
        self.will_due_ms = 0

    def change(self, index: int, topic_filter: str, new: Subscribed | None) -> None:
        apply(self.subscriptions, topic_filter, new)
        self.changes.append((index, topic_filter, new))

    def come(self, index: int, expiry_s: int, will: Will | None) -> None:
        self.expiry_s = expiry_s
        self.is_stored = self.is_stored or expiry_s > 0 or will is not None
        self.set_will(index, will)
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
        while len(self.wills) > 1 and self.wills[1][0] <= index:
            self.wills.pop(0)
        while self.changes and self.changes[0][0] <= index:
            _, topic_filter, new = self.changes.pop(0)
            apply(self.stored, topic_filter, new)

    def recover(self, found: dict[str, Subscribed]) -> None:
        """Some first part of the uncertain changes has survived, nothing else."""
        state = dict(self.stored)
        for _, topic_filter, new in [*self.changes, (0, "", None)]:
            if state == found:
                break
            apply(state, topic_filter, new)
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


class StoredWill(NamedTuple):
    """What the disk has of a session's will after a crash."""

    number: int  # of the session
    key: str  # "" for no will
    expiry_s: int
    disconnected_at_ms: int
    due_ms: int


def apply(state: dict[str, Value], key: str, new: Value | None) -> None:
    if new is None:
        state.pop(key, None)
    else:
        state[key] = new
