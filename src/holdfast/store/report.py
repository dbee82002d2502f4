"""What is in a store, how far its sessions are behind, and what keeps its messages there."""

import os
import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Final, final

from holdfast.protocol.topics import is_shared
from holdfast.store.backup import Progress, no_progress
from holdfast.store.needs import Needs
from holdfast.store.reading import StoreView, int_of, text_of
from holdfast.store.records import LOSS_REASONS
from holdfast.store.spans import Interval

TOP: Final = 20  # sessions and groups that are listed, unless asked for another number


@dataclass(slots=True)
class Reader:
    """A session or shared group: what waits for it, and what only it keeps in the log.

    ``bytes`` are those of the messages as they are stored; ``in_flight`` counts what was sent and
    not acknowledged, or came back to a group. ``pins`` counts the messages that would go with it.
    """

    kind: str  # session or group
    number: int
    name: str  # client identifier, or topic filter of the group
    is_online: bool
    messages: int = 0
    bytes: int = 0
    in_flight: int = 0
    oldest_lsn: int | None = None
    oldest_at_ms: int | None = None
    pins_messages: int = 0
    pins_bytes: int = 0
    lost_messages: int = 0
    lost_bytes: int = 0
    lost_at_ms: int | None = None
    lost_reason: str | None = None  # of the last loss


@dataclass(slots=True)
class Stats:
    """The answer of ``stats``. Times are Unix time in milliseconds."""

    file: str
    format: int
    at_ms: int
    file_bytes: int
    free_bytes: int
    wal_bytes: int
    next_lsn: int
    log_messages: int = 0
    log_bytes: int = 0
    oldest_lsn: int | None = None
    oldest_at_ms: int | None = None
    sessions: int = 0
    sessions_online: int = 0
    sessions_behind: int = 0
    subscriptions: int = 0
    groups: int = 0
    groups_behind: int = 0
    topics: int = 0
    retained: int = 0
    retained_bytes: int = 0
    delayed: int = 0
    delayed_bytes: int = 0
    delayed_next_ms: int | None = None
    lost_messages: int = 0
    lost_bytes: int = 0
    readers: list[Reader] = field(default_factory=list)

    @property
    def sessions_absent(self) -> int:
        return self.sessions - self.sessions_online


def stats(view: StoreView, *, top: int = TOP, progress: Progress = no_progress) -> Stats:
    """Look at a store; the readers are those that most waits for, at most ``top`` of them.

    A message counts for whoever has a matching subscription: expiry and No Local are not looked at.
    Raises StoreCorrupt where it is damaged.
    """
    return _Counting(view, progress).run(top)


@final
class _Topic:
    """The blocks of one topic, for sums over stretches of the log."""

    def __init__(self, blocks: list[tuple[int, int, int]]) -> None:
        self._starts = [lsn for lsn, _, _ in blocks]
        self._ends = [last + 1 for _, last, _ in blocks]
        self._sizes = [size for _, _, size in blocks]
        self._messages = [0]
        self._bytes = [0]
        for lsn, last, size in blocks:
            self._messages.append(self._messages[-1] + last + 1 - lsn)
            self._bytes.append(self._bytes[-1] + size)

    def first(self, interval: Interval) -> int | None:
        """The first lsn of this topic in a stretch."""
        low, high = interval
        index = bisect_right(self._ends, low)
        if index == len(self._starts):
            return None
        lsn = max(low, self._starts[index])
        return lsn if lsn < high else None

    def sum(self, interval: Interval) -> tuple[int, int]:
        """Messages and bytes in a stretch; of a block that it cuts, its share."""
        low, high = interval
        first = bisect_right(self._ends, low)
        last = bisect_left(self._starts, high)
        if first >= last:
            return 0, 0
        messages = self._messages[last] - self._messages[first]
        size = self._bytes[last] - self._bytes[first]
        for index, cut in (
            (first, low - self._starts[first]),
            (last - 1, self._ends[last - 1] - high),
        ):
            if cut > 0:
                messages -= cut
                size -= self._sizes[index] * cut // (self._ends[index] - self._starts[index])
        return messages, size


@final
class _Counting:
    def __init__(self, view: StoreView, progress: Progress) -> None:
        self._view = view
        self._progress = progress
        wal = Path(f"{view.path}-wal")
        self._stats = Stats(
            file=str(view.path),
            format=view.format,
            at_ms=time.time_ns() // 1_000_000,
            file_bytes=os.path.getsize(view.path),
            free_bytes=view.pragma("freelist_count") * view.pragma("page_size"),
            wal_bytes=wal.stat().st_size if wal.exists() else 0,
            next_lsn=1,
        )
        self._readers: dict[int, Reader] = {}

    def run(self, top: int) -> Stats:
        found = self._stats
        if found.format == 0:
            return found  # made, and never used
        view = self._view
        found.next_lsn = view.next_lsn
        self._count_rows()
        needs = Needs(found.next_lsn, view.states(), view.subscriptions(), view.groups())
        for owner, lsns in needs.in_flight.items():
            if (reader := self._readers.get(owner)) is not None:
                reader.in_flight = len(lsns)
                _note_oldest(reader, min(lsns))
        self._count_log(needs)
        self._count_own(needs)
        self._date()
        readers = [one for one in self._readers.values() if one.messages or one.in_flight]
        found.sessions_behind = sum(one.kind == "session" and one.messages > 0 for one in readers)
        found.groups_behind = sum(one.kind == "group" and one.messages > 0 for one in readers)
        lost = [one for one in self._readers.values() if one.lost_messages]
        found.lost_messages = sum(one.lost_messages for one in lost)
        found.lost_bytes = sum(one.lost_bytes for one in lost)
        listed = {one.number: one for one in [*readers, *lost]}.values()
        found.readers = sorted(
            listed, key=lambda one: (-one.messages, -one.bytes, -one.lost_messages, one.number)
        )[:top]
        return found

    def _count_rows(self) -> None:
        view, found = self._view, self._stats
        for session in view.sessions():
            is_online = session.disconnected_at_ms == 0
            found.sessions += 1
            found.sessions_online += is_online
            number = session.number
            self._readers[number] = Reader("session", number, session.client_id, is_online)
        online = {number for number, reader in self._readers.items() if reader.is_online}
        attended: set[str] = set()  # filters of groups with a member online
        for subscription in view.subscriptions():
            found.subscriptions += 1
            if is_shared(subscription.topic_filter) and subscription.session in online:
                attended.add(subscription.topic_filter)
        for group in view.groups():
            found.groups += 1
            self._readers[group.number] = Reader(
                "group", group.number, group.topic_filter, group.topic_filter in attended
            )
        for loss in view.losses():
            if (reader := self._readers.get(loss.owner)) is not None:
                reader.lost_messages = loss.messages
                reader.lost_bytes = loss.bytes
                reader.lost_at_ms = loss.at_ms
                reader.lost_reason = _reason(loss.reason)
        found.topics = view.count("topics")
        found.retained, found.retained_bytes = self._sizes("retained")
        found.delayed, found.delayed_bytes = self._sizes("delayed")
        if found.delayed:
            found.delayed_next_ms = view.number("SELECT min(due_ms) FROM delayed")

    def _sizes(self, table: str) -> tuple[int, int]:
        """How many messages a table has, and their bytes."""
        if not (count := self._view.count(table)):
            return 0, 0
        return count, self._view.number(f"SELECT sum(length(message)) FROM {table}")

    def _count_log(self, needs: Needs) -> None:
        """Go through the messages that are for all, a topic at a time."""
        found = self._stats
        rows = self._view.query(
            "SELECT name, lsn, last_lsn, length(data)"
            " FROM log LEFT JOIN topics ON topics.number = topic"
            " WHERE target = 0 ORDER BY topic, lsn"
        )
        blocks_seen, blocks = 0, self._view.count("log")
        for name, group in groupby(rows, key=lambda row: row[0]):
            topic = text_of(name, "the name of a topic")
            stretches = [(int_of(lsn), int_of(last), int_of(size)) for _, lsn, last, size in group]
            blocks_seen += len(stretches)
            self._progress("counting messages", blocks_seen, blocks)
            found.log_messages += sum(last + 1 - lsn for lsn, last, _ in stretches)
            found.log_bytes += sum(size for _, _, size in stretches)
            self._note_oldest_lsn(stretches[0][0])
            self._share(_Topic(stretches), needs.waiting(topic))

    def _share(self, topic: _Topic, waiting: dict[int, list[Interval]]) -> None:
        """Count the messages of a topic for those that they wait for."""
        for owner, spans in waiting.items():
            reader = self._readers.get(owner)
            if reader is None:
                continue
            for span in spans:
                messages, size = topic.sum(span)
                reader.messages += messages
                reader.bytes += size
                if messages and (lsn := topic.first(span)) is not None:
                    _note_oldest(reader, lsn)
        for owner, span in _alone(waiting):
            if (reader := self._readers.get(owner)) is not None:
                messages, size = topic.sum(span)
                reader.pins_messages += messages
                reader.pins_bytes += size

    def _count_own(self, needs: Needs) -> None:
        """Go through the messages that are for one session alone."""
        found = self._stats
        for lsn, last_lsn, target, size in self._view.query(
            "SELECT lsn, last_lsn, target, length(data) FROM log WHERE target <> 0"
        ):
            low, high = int_of(lsn), int_of(last_lsn) + 1
            count = high - low
            found.log_messages += count
            found.log_bytes += int_of(size)
            self._note_oldest_lsn(low)
            reader = self._readers.get(int_of(target))
            if reader is None:
                continue
            needed = [at for at in range(low, high) if needs.is_for_target(reader.number, at)]
            if needed:
                share = int_of(size) * len(needed) // count
                reader.messages += len(needed)
                reader.bytes += share
                reader.pins_messages += len(needed)
                reader.pins_bytes += share
                _note_oldest(reader, needed[0])

    def _note_oldest_lsn(self, lsn: int) -> None:
        found = self._stats
        if found.oldest_lsn is None or lsn < found.oldest_lsn:
            found.oldest_lsn = lsn

    def _date(self) -> None:
        """Say when the oldest messages came, as far as that was noted."""
        marks = list(self._view.time_marks())
        lsns = [mark.lsn for mark in marks]

        def time_of(lsn: int | None) -> int | None:
            index = bisect_right(lsns, lsn) - 1 if lsn is not None else -1
            return marks[index].at_ms if index >= 0 else None

        self._stats.oldest_at_ms = time_of(self._stats.oldest_lsn)
        for reader in self._readers.values():
            reader.oldest_at_ms = time_of(reader.oldest_lsn)


def _reason(number: int) -> str:
    return LOSS_REASONS[number] if number < len(LOSS_REASONS) else str(number)


def _note_oldest(reader: Reader, lsn: int) -> None:
    if reader.oldest_lsn is None or lsn < reader.oldest_lsn:
        reader.oldest_lsn = lsn


def _alone(waiting: dict[int, list[Interval]]) -> Iterator[tuple[int, Interval]]:
    """The stretches that exactly one of these waits for."""
    if len(waiting) == 1:
        for owner, spans in waiting.items():
            for span in spans:
                yield owner, span
        return
    changes: list[tuple[int, int, int]] = []  # lsn, whether it begins, owner
    for owner, spans in waiting.items():
        for low, high in spans:
            changes += ((low, 1, owner), (high, 0, owner))
    inside: set[int] = set()
    before = 0
    for lsn, begins, owner in sorted(changes):
        if len(inside) == 1 and before < lsn:
            yield next(iter(inside)), (before, lsn)
        inside.add(owner) if begins else inside.discard(owner)
        before = lsn
