"""Who still needs which entries of the log: sessions by subscriptions, groups by their filter.

The broker asks this for a session at a time; a tool asks it for all of them and a topic at a time.
"""

from bisect import bisect_right
from collections.abc import Iterable
from typing import Final, final

from holdfast.protocol.topics import is_shared, split_share
from holdfast.store.records import (
    OPEN,
    GroupRecord,
    StateRecord,
    SubscriptionRecord,
    unpack_gaps,
    unpack_in_flight,
    unpack_lsns,
)
from holdfast.store.spans import Interval, merged

TOPICS_KEPT_MAX: Final = 65_536  # answers kept for topics that come again
_QOS: Final = 0x03  # of the option byte of SUBSCRIBE


@final
class _Node:
    """One level of a filter, and the readers whose filter ends here."""

    __slots__ = ("children", "readers")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.readers: list[tuple[int, int, int]] = []  # owner, from, until


@final
class Needs:
    """The readers of a store at one moment.

    ``in_flight`` has the lsns that were sent to each session and not acknowledged, or that a
    group got back. A QoS 0 subscription needs nothing of the log, nor does a session without a
    state. No Local and expiry are not looked at: a few entries may count that nobody is given.
    """

    def __init__(
        self,
        next_lsn: int,
        states: Iterable[StateRecord],
        subscriptions: Iterable[SubscriptionRecord],
        groups: Iterable[GroupRecord],
    ) -> None:
        """Take all records of a store; raises StoreCorrupt if what is in flight is damaged."""
        self.next_lsn: Final = next_lsn
        self.positions: dict[int, int] = {}  # of sessions and groups: all below was handed out
        self.in_flight: dict[int, list[int]] = {}
        self._gaps: dict[int, list[Interval]] = {}
        self._root = _Node()
        self._kept: dict[str, dict[int, list[Interval]]] = {}
        for state in states:
            self.positions[state.session] = state.cursor
            self._note_gaps(state.session, state.gaps)
            flying = [value >> 2 for value in unpack_in_flight(state.in_flight).values()]
            if lsns := [lsn for lsn in flying if lsn != 0]:
                self.in_flight[state.session] = lsns
        queueing: set[str] = set()
        for subscription in subscriptions:
            if is_shared(subscription.topic_filter):
                if subscription.options & _QOS:
                    queueing.add(subscription.topic_filter)
            elif subscription.options & _QOS and subscription.session in self.positions:
                self._add_subscription(subscription)
        for group in groups:
            if group.topic_filter in queueing:
                self.positions[group.number] = group.cursor
                self._note_gaps(group.number, group.gaps)
                if returned := unpack_lsns(group.returned):
                    self.in_flight[group.number] = returned
                inner = split_share(group.topic_filter)[1]
                self._add(inner, group.number, group.cursor, OPEN)

    def waiting(self, topic: str) -> dict[int, list[Interval]]:
        """For each session and group the stretches of the log in which this topic waits for it."""
        found = self._kept.get(topic)
        if found is None:
            if len(self._kept) >= TOPICS_KEPT_MAX:
                self._kept.clear()
            found = self._kept[topic] = self._find(topic)
        return found

    def union(self, topic: str) -> list[Interval]:
        """The stretches of the log in which anybody needs this topic."""
        return merged([span for spans in self.waiting(topic).values() for span in spans])

    def owners_of(self, lsn: int, last_lsn: int, topic: str | None) -> list[int]:
        """Who waits for one of these messages, or has one of them in flight."""
        owners = {
            owner
            for owner, lsns in self.in_flight.items()
            if any(lsn <= flying <= last_lsn for flying in lsns)
        }
        for owner, spans in self.waiting(topic).items() if topic is not None else ():
            if any(low <= last_lsn and lsn < high for low, high in spans):
                owners.add(owner)
        return sorted(owners)

    def is_for_target(self, target: int, lsn: int) -> bool:
        """Whether a session still has to be given a message that was queued for it alone."""
        position = self.positions.get(target, self.next_lsn)
        return lsn >= position and not covers(self._gaps.get(target, []), lsn)

    def _note_gaps(self, owner: int, packed: bytes) -> None:
        if packed:
            self._gaps[owner] = [
                (low, self.next_lsn if high == OPEN else high) for low, high in unpack_gaps(packed)
            ]

    def _add_subscription(self, record: SubscriptionRecord) -> None:
        low = max(record.from_lsn, self.positions[record.session])
        if record.until_lsn == OPEN or low < record.until_lsn:
            self._add(record.topic_filter, record.session, low, record.until_lsn)

    def _add(self, topic_filter: str, owner: int, low: int, high: int) -> None:
        if high == OPEN or high > self.next_lsn:
            high = self.next_lsn
        if low >= high:
            return  # it waits for nothing, as nearly all do
        node = self._root
        for level in topic_filter.split("/"):
            node = node.children.setdefault(level, _Node())
        node.readers.append((owner, low, high))

    def _find(self, topic: str) -> dict[int, list[Interval]]:
        found: dict[int, list[Interval]] = {}
        for owner, low, high in self._matching(topic):
            found.setdefault(owner, []).append((low, high))
        return {
            owner: without(merged(spans), self._gaps.get(owner, []))
            for owner, spans in found.items()
        }

    def _matching(self, topic: str) -> list[tuple[int, int, int]]:
        """The readers whose filter matches; level by level, for a topic may have very many."""
        found: list[tuple[int, int, int]] = []
        reached = [self._root]
        is_special = topic.startswith("$")  # wildcards do not match it first [MQTT-4.7.2-1]
        for index, level in enumerate(topic.split("/")):
            following: list[_Node] = []
            for node in reached:
                if not (is_special and index == 0):
                    if (rest := node.children.get("#")) is not None:
                        found += rest.readers
                    if (any_level := node.children.get("+")) is not None:
                        following.append(any_level)
                if (exact := node.children.get(level)) is not None:
                    following.append(exact)
            reached = following
        for node in reached:
            found += node.readers
            if (rest := node.children.get("#")) is not None:
                found += rest.readers  # "a/#" also matches "a"
        return found


def covers(intervals: list[Interval], lsn: int) -> bool:
    """Whether one of these stretches, which ascend, holds an lsn."""
    index = bisect_right(intervals, lsn, key=lambda interval: interval[0]) - 1
    return index >= 0 and lsn < intervals[index][1]


def without(intervals: list[Interval], gaps: list[Interval]) -> list[Interval]:
    """What of these stretches lies in none of the gaps; both ascend and do not overlap."""
    if not gaps:
        return intervals
    found: list[Interval] = []
    for low, high in intervals:
        for gap_low, gap_high in gaps:
            if gap_low >= high:
                break
            if gap_low > low:
                found.append((low, gap_low))
            low = max(low, gap_high)
        if low < high:
            found.append((low, high))
    return found
