"""The space of the log: what nobody needs goes, topic by topic, and the whole has limits.

Trimming below the smallest lsn that anybody needs is the driver's; one dead device would hold it up
for all. So now and then a *pass* goes through the topics in the store, finds for each the stretches
of the log that nobody who matches it needs, and has them cut out. It works in steps, one at a time.
"""

from typing import Final, final

from holdfast.broker.commits import Commits
from holdfast.broker.counters import Counters
from holdfast.broker.delivery import Delivery
from holdfast.broker.events import INFO, WARNING, Event
from holdfast.broker.groups import Groups
from holdfast.broker.limits import (
    DROP_OLDEST,
    NEEDED_SPANS_MAX,
    SPACE_PASS_MS,
    TIME_MARK_MS,
    Limits,
)
from holdfast.broker.queue import LogReader
from holdfast.broker.queue_limits import QueueLimits
from holdfast.broker.session import Session, Subscription
from holdfast.broker.sessions import Sessions
from holdfast.broker.shared_group import Group
from holdfast.broker.topic_tree import FilterNode, TopicTree
from holdfast.protocol.topics import matches
from holdfast.store.records import (
    LOST_TO_AGE,
    LOST_TO_LOG_LIMIT,
    OPEN,
    Space,
    TimeMark,
    TopicCut,
)

# What the store is asked for, one at a time.
TOPICS: Final = 0  # TOPICS_LOOKED_AT_MAX names of topics in the log, after ``after``
TARGETS: Final = 1  # as many sessions with entries of their own, above ``above``
CUTS: Final = 2  # to remove what nobody needs
OLDEST: Final = 3  # up to where the oldest messages lie that have to go

_FAR: Final = 1 << 60
_EXTRA_FILTERS_MAX: Final = 256  # of subscriptions outside of the tree, then they count for all
_OVER_PARTS: Final = 16  # with DROP_OLDEST publishers are refused from so small a part over on

Span = tuple[int, int]


@final
class SpaceWork:
    """One thing for the store to do. What it finds is put in, and it comes back by ``done``."""

    def __init__(self, kind: int) -> None:
        self.kind = kind
        self.after = ""
        self.above = 0
        self.cuts: list[TopicCut] = []
        self.messages = 0
        self.bytes = 0
        self.topics: list[str] = []  # found by TOPICS
        self.targets: list[int] = []  # found by TARGETS
        self.lsn = 0  # found by OLDEST


@final
class LogSpace:
    """Finds what can go, and keeps the limits of the whole log."""

    def __init__(
        self,
        limits: Limits,
        commits: Commits,
        counters: Counters,
        delivery: Delivery,
        queues: QueueLimits,
        tree: TopicTree,
        groups: Groups,
        sessions: Sessions,
        events: list[Event],
        marks: list[TimeMark],
    ) -> None:
        self.refuse_from_lsn = _FAR  # when the log has come so far, messages for it are refused
        self.refuse_from_bytes = _FAR  # when so many bytes were logged
        self.full = ""  # what the log is full of, while it is
        self._is_memory_short = False
        self._messages = -commits.next_lsn  # in the log, less the lsn up to which they count
        self._bytes = 0  # in the log, less those logged up to then
        self._limits = limits
        self._commits = commits
        self._counters = counters
        self._delivery = delivery
        self._queues = queues
        self._tree = tree
        self._groups = groups
        self._sessions = sessions
        self._events = events
        self._marks = [(mark.lsn, mark.at_ms) for mark in marks]
        self._mark_ms = TIME_MARK_MS
        if limits.log_age_max_s > 0:
            self._mark_ms = min(TIME_MARK_MS, max(1000, limits.log_age_max_s * 1000 // 16))
        self._work: SpaceWork | None = None  # for the store, when ``_wait`` is durable
        self._wait = 0
        self._is_under_way = False  # a pass, or something asked of the store
        self._pass = 0  # its number
        self._pass_lsn = 0  # the end of the log when the last one began
        self._pass_at_ms = 0
        self._extra: dict[str, int] = {}  # the lowest lsn needed, by topic filter
        self._extra_low = _FAR  # the lowest of all, where they are too many
        self._is_settling = False  # the oldest were dropped, and are to be cut out

    @property
    def log_messages(self) -> int:
        """Messages in the log, committed or not, as the store last counted them."""
        return self._messages + self._commits.next_lsn

    @property
    def log_bytes(self) -> int:
        """Their payloads and properties, roughly."""
        return self._bytes + self._counters.logged_payload_bytes

    @property
    def needs_look(self) -> bool:
        """Whether the space is to be looked at again though nothing was committed."""
        return (
            self._limits.log_age_max_s > 0
            or self.full != ""
            or self._is_under_way
            or self._is_settling
            or self._commits.next_lsn - self._pass_lsn >= self._limits.space_pass_entries
        )

    def note(self, space: Space, now_ms: int) -> None:
        """Take what the store says of its space, about once a second. Begins what is to be done."""
        self._queues.write_losses(now_ms)
        self._note_time(space, now_ms)
        self._note_limits(space)
        if self._is_under_way:
            return
        over_messages = over_bytes = 0
        if self._limits.log_policy == DROP_OLDEST:
            over_messages, over_bytes = self._excess(space)
        if self._is_settling:
            if self._queues.is_idle:
                self._begin_pass(now_ms)
        elif over_messages > 0 or over_bytes > 0:
            self._is_settling = True
            work = SpaceWork(OLDEST)
            work.messages = over_messages
            work.bytes = over_bytes
            self._ask(work)
        elif self._is_pass_due(space, now_ms):
            self._begin_pass(now_ms)

    def note_memory(self, is_short: bool) -> None:
        """Memory is short, or no longer: that shows when the space is looked at."""
        if is_short:
            self.refuse_from_lsn = 0
            self.full = self.full or "memory is short"
        self._is_memory_short = is_short

    def take_work(self) -> SpaceWork | None:
        """What the store is to do now, if anything. What it may forget is durable as not needed."""
        work = self._work
        if work is None or self._commits.durable < self._wait:
            return None
        self._work = None
        return work

    def done(self, work: SpaceWork) -> None:
        """The store has done this; the pass goes on."""
        if work.kind == TOPICS:
            self._topics_done(work.topics)
        elif work.kind == TARGETS:
            self._targets_done(work.targets)
        elif work.kind == CUTS:
            following = SpaceWork(TOPICS if work.above == 0 else TARGETS)
            following.after = work.after
            following.above = work.above
            self._ask(following)
        else:
            self._is_under_way = False
            self._drop_below(work.lsn, LOST_TO_LOG_LIMIT)

    def _topics_done(self, names: list[str]) -> None:
        if not names:
            self._ask(SpaceWork(TARGETS))
            return
        self._find_extra()
        cuts: list[TopicCut] = []
        for name in names:
            spans = self._needless(self._needs_of_topic(name))
            if spans:
                cuts.append(TopicCut(name, 0, spans))
        work = SpaceWork(CUTS)
        work.after = names[-1]
        work.cuts = cuts
        self._ask_when_durable(work)

    def _targets_done(self, numbers: list[int]) -> None:
        if not numbers:
            self._is_under_way = False
            self._is_settling = False
            return
        cuts: list[TopicCut] = []
        for number in numbers:
            session = self._sessions.get(number)
            needs: list[Span] = []
            if session is not None:
                _add_needs(session, self._low(session), needs, self._commits.next_lsn)
            spans = self._needless(needs)
            if spans:
                cuts.append(TopicCut("", number, spans))
        work = SpaceWork(CUTS)
        work.above = numbers[-1]
        work.cuts = cuts
        self._ask_when_durable(work)

    # --- limits

    def _note_limits(self, space: Space) -> None:
        limits = self._limits
        messages_max = limits.log_messages_max or _FAR
        bytes_max = limits.log_bytes_max or _FAR
        if limits.log_policy == DROP_OLDEST:
            messages_max += messages_max // _OVER_PARTS
            bytes_max += bytes_max // _OVER_PARTS
        logged_bytes = self._counters.logged_payload_bytes
        self._messages = space.log_messages - space.next_lsn
        self._bytes = space.log_bytes - logged_bytes
        self.refuse_from_lsn = messages_max - self._messages
        self.refuse_from_bytes = bytes_max - self._bytes
        full = ""
        free_min = limits.disk_free_min_bytes
        if self._is_memory_short:
            self.refuse_from_lsn = 0
            full = "memory is short"
        elif 0 <= space.disk_free_bytes < free_min:
            self.refuse_from_lsn = 0
            full = f"the disk has {space.disk_free_bytes} bytes left, {free_min} are kept free"
        elif self.refuse_from_lsn <= self._commits.next_lsn:
            full = f"the log holds {space.log_messages} messages"
        elif self.refuse_from_bytes <= logged_bytes:
            full = f"the log holds {space.log_bytes} bytes"
        if full and not self.full:
            text = f"messages that have to be stored are refused: {full}"
            self._events.append(Event(WARNING, text, "", ""))
        elif self.full and not full:
            self._events.append(Event(INFO, "messages are stored again", "", ""))
        self.full = full

    def _excess(self, space: Space) -> tuple[int, int]:
        """How many messages and bytes have to go, with some more so that it lasts a while."""
        limits = self._limits
        messages = size = 0
        if 0 < limits.log_messages_max < space.log_messages:
            messages = space.log_messages - limits.log_messages_max + limits.log_messages_max // 64
        if 0 < limits.log_bytes_max < space.log_bytes:
            size = space.log_bytes - limits.log_bytes_max + limits.log_bytes_max // 64
        return messages, size

    def _note_time(self, space: Space, now_ms: int) -> None:
        """Mark the time of a point of the log; drop what is too old."""
        marks = self._marks
        next_lsn = self._commits.next_lsn
        while len(marks) > 1 and marks[1][0] <= space.first_lsn:
            del marks[0]
        is_later = not marks or now_ms - marks[-1][1] >= self._mark_ms or now_ms < marks[-1][1]
        if is_later and (not marks or marks[-1][0] < next_lsn):
            marks.append((next_lsn, now_ms))
            self._commits.batch.time_marks.append(TimeMark(next_lsn, now_ms))
        age_s = self._limits.log_age_max_s
        if age_s == 0:
            return
        lsn = 0
        for mark_lsn, at_ms in marks:
            if at_ms > now_ms - age_s * 1000:
                break
            lsn = mark_lsn
        if lsn > 0:
            self._drop_below(lsn, LOST_TO_AGE)

    def _drop_below(self, lsn: int, reason: int) -> None:
        readers: list[LogReader] = []
        readers.extend(self._sessions.behind_below(lsn))
        readers.extend(self._groups.behind_below(lsn))
        for reader in readers:
            self._queues.drop_below(reader, lsn, reason)

    # --- the pass

    def _is_pass_due(self, space: Space, now_ms: int) -> bool:
        """Whether the log has grown, or aged, so much that a look at all topics is worth it."""
        if space.log_messages == 0:
            return False
        grown = self._commits.next_lsn - self._pass_lsn
        if grown >= max(self._limits.space_pass_entries, space.log_messages // 4):
            return True
        if not 0 <= now_ms - self._pass_at_ms < SPACE_PASS_MS:
            return True
        return self.full != "" and grown > 0

    def _begin_pass(self, now_ms: int) -> None:
        self._pass += 1
        self._pass_lsn = self._commits.next_lsn
        self._pass_at_ms = now_ms
        self._ask(SpaceWork(TOPICS))

    def _ask(self, work: SpaceWork) -> None:
        self._is_under_way = True
        self._work = work
        self._wait = 0

    def _ask_when_durable(self, work: SpaceWork) -> None:
        """Have this done when all is durable that is in memory now.

        A cursor that has moved in memory alone frees nothing yet.
        """
        self._ask(work)
        self._wait = self._commits.wait_for_all()

    def _needless(self, needs: list[Span]) -> list[Span]:
        """The stretches of the durable log between those that are needed."""
        end = self._commits.durable_lsn_end
        spans: list[Span] = []
        position = 0
        for start, until in united(needs):
            if min(start, end) > position:
                spans.append((position, min(start, end)))
            if until == OPEN:
                return spans
            position = until
        if position < end:
            spans.append((position, end))
        return spans

    def _needs_of_topic(self, topic: str) -> list[Span]:
        """The stretches of the log in which somebody needs the messages of a topic."""
        needs: list[Span] = []
        for node in self._tree.matching(topic):
            needs.extend(self._needs_of_node(node))
        for topic_filter, low in self._extra.items():
            if matches(topic_filter, topic):
                needs.append((low, OPEN))
        if self._extra_low < _FAR:
            needs.append((self._extra_low, OPEN))
        return needs

    def _needs_of_node(self, node: FilterNode) -> list[Span]:
        """What the subscriptions of one filter need. In one pass that only becomes less."""
        known = node.needs
        if known is not None and node.needs_pass == self._pass:
            return known
        next_lsn = self._commits.next_lsn
        needs: list[Span] = []
        floor = _FAR
        subscription = node.first_absent
        while subscription is not None:
            floor = self._add_subscription(subscription, floor, needs)
            subscription = subscription.absent_next
        if node.online is not None:
            for online in node.online.values():
                if online.qos > 0:
                    floor = self._add_subscription(online, floor, needs)
        if node.groups is not None:
            for group in node.groups.values():
                if group.queueing > 0:
                    _add_needs(group, _group_low(group, next_lsn), needs, next_lsn)
        if floor < _FAR:
            needs.append((floor, OPEN))
        needs = united(needs)
        node.needs = needs
        node.needs_pass = self._pass
        return needs

    def _add_subscription(self, subscription: Subscription, floor: int, needs: list[Span]) -> int:
        """Add what a subscription needs; the lowest lsn of those without gaps is returned."""
        session = subscription.session
        low = max(self._low(session), subscription.from_lsn)
        queue = session.queue
        if queue is None or not queue.gaps:
            return min(floor, low)
        _add_needs(session, low, needs, self._commits.next_lsn)
        return floor

    def _low(self, session: Session) -> int:
        """The lowest lsn that a session needs."""
        low = session.position if session.is_behind else self._commits.next_lsn
        in_flight = session.sender.reference_min()
        return in_flight if 0 < in_flight < low else low

    def _find_extra(self) -> None:
        """What is needed for subscriptions that have ended, and of groups for their members."""
        extra: dict[str, int] = {}
        extra_low = _FAR
        unfiled = self._delivery.unfiled
        for session in list(unfiled.values()):
            if session.is_ended or (session.closed is None and session.group_of is None):
                del unfiled[session.number]
                continue
            low = self._low(session)
            if session.closed is not None:
                for old in session.closed:
                    known = extra.get(old.topic_filter, low)
                    extra[old.topic_filter] = min(known, low)
            if session.group_of is not None:
                for group in session.group_of.values():
                    if not group.inner_filter:
                        # It ended before the start, and may have been about any topic.
                        extra_low = min(extra_low, session.sender.reference_min())
                        continue
                    known = extra.get(group.inner_filter, low)
                    extra[group.inner_filter] = min(known, low)
        if len(extra) > _EXTRA_FILTERS_MAX:
            extra_low = min(extra_low, *extra.values())
            extra = {}
        self._extra_low = extra_low
        self._extra = extra


def _group_low(group: Group, next_lsn: int) -> int:
    """The lowest lsn that a group needs beside what its members have in flight."""
    low = group.position if group.is_behind else next_lsn
    if group.returned:
        low = min(low, group.returned[0])
    if group.withheld:
        low = min(low, *group.withheld)
    if group.lent:
        low = min(low, *group.lent.values())
    return low


def _add_needs(reader: LogReader, low: int, needs: list[Span], next_lsn: int) -> None:
    """Add the stretches from ``low`` on that lie between somebody's gaps."""
    queue = reader.queue
    if queue is not None:
        for start, until in queue.gaps:
            if start > low:
                needs.append((low, start))
            low = max(low, next_lsn if until == OPEN else until)
    needs.append((low, OPEN))


def united(spans: list[Span]) -> list[Span]:
    """Spans in order, those that touch made one; of too many the lowest stands for the rest."""
    found: list[Span] = []
    for start, until in sorted(spans):
        if found and (found[-1][1] == OPEN or start <= found[-1][1]):
            before, end = found[-1]
            if end != OPEN:
                found[-1] = (before, OPEN if until == OPEN else max(end, until))
        elif len(found) == NEEDED_SPANS_MAX:
            found[-1] = (found[-1][0], OPEN)
        else:
            found.append((start, until))
    return found
