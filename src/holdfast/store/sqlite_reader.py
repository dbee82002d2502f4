"""Reading the log from SQLite: topic by topic where few match, else all of it in bounded steps."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Final, final

import apsw

from holdfast.disk.checksums import UNCHECKED, block_checksum, check_row, damaged
from holdfast.disk.file_format import store_error
from holdfast.disk.queries import Queries, as_json
from holdfast.errors import StoreCorrupt
from holdfast.store.blocks import decode_block_part
from holdfast.store.records import LogCount, LogEntry, LogSlice, ReadRequest
from holdfast.store.spans import Interval, SliceBuilder, clipped, merged
from holdfast.store.sqlite_damage import find_damage
from holdfast.store.sqlite_topics import SqliteTopics
from holdfast.store.topic_sets import LISTED_TOPICS_MAX, TopicSet, is_exact, mark

SCANNED_BLOCKS_MAX: Final = 8192  # looked at in one read: about a millisecond
DATA_BYTES_MAX: Final = 8 * 1024 * 1024  # of blocks brought in at once; a larger one comes alone
# With more topics than this, a read first scans so many blocks for each of them, which costs about
# half as much as asking each for its next message, and is often enough.
MERGED_TOPICS_MAX: Final = 16
SCANNED_BLOCKS_PER_TOPIC: Final = 16
SCAN_YIELD: Final = 4  # it is enough if it brings a fourth of what was asked for
# A scan that found nothing asks each matching topic for its next message, if that is likely to
# cost less than scanning on: one topic costs about as much as so many blocks.
SKIP_BLOCKS_PER_TOPIC: Final = 8
TOPICS_PER_STEP: Final = 4096  # whose messages are looked for in one statement
SKIP_TOPICS_MAX: Final = 100_000  # beyond, it scans on: this many take about 0.1 s

_BLOCK: Final = "json_group_array(json_array(lsn, last_lsn, topic, target, size, crc))"

# A merge by lsn of the topics' own runs. The queue of the recursion is ordered by lsn, and to take
# a block from it puts the next one of the same run in.
_MERGE: Final = f"""
WITH RECURSIVE merged (lsn, last_lsn, topic, target, size, crc, high) AS (
    SELECT log.lsn, last_lsn, topic, target, length(data), crc, run.value ->> 2
    FROM json_each(?1) AS run CROSS JOIN log ON log.lsn = (
        SELECT lsn FROM log AS next
        WHERE next.target = 0 AND next.topic = run.value ->> 0
        AND next.lsn >= run.value ->> 1 AND next.lsn < run.value ->> 2
        ORDER BY next.lsn LIMIT 1
    )
    UNION ALL
    SELECT log.lsn, log.last_lsn, log.topic, log.target, length(log.data), log.crc,
    merged.high
    FROM merged CROSS JOIN log ON log.lsn = (
        SELECT lsn FROM log AS next
        WHERE next.target = 0 AND next.topic = merged.topic
        AND next.lsn > merged.lsn AND next.lsn < merged.high
        ORDER BY next.lsn LIMIT 1
    )
    ORDER BY 1 LIMIT ?2
)
SELECT {_BLOCK} FROM merged
"""
_TARGET: Final = f"""
SELECT {_BLOCK} FROM (
    SELECT lsn, last_lsn, topic, target, length(data) AS size, crc FROM log
    WHERE target <> 0 AND target = ?1 AND lsn >= ifnull((
        SELECT iif(last_lsn >= ?2, lsn, NULL) FROM log WHERE lsn <= ?2 ORDER BY lsn DESC LIMIT 1
    ), ?2) AND lsn < ?3 ORDER BY lsn LIMIT ?4
)
"""
_SCAN: Final = f"""
SELECT {_BLOCK} FROM (
    SELECT lsn, last_lsn, topic, target, length(data) AS size, crc FROM log
    WHERE lsn >= ?1 AND lsn < ?2 AND target = 0 AND substr(?3, topic + 1, 1) = x'01'
    ORDER BY lsn LIMIT ?4
)
"""
_SCAN_END: Final = "SELECT lsn FROM log WHERE lsn >= ?1 AND lsn < ?2 ORDER BY lsn LIMIT 1 OFFSET ?3"
_SKIP: Final = """
SELECT min((
    SELECT lsn FROM log
    WHERE log.target = 0 AND log.topic = topics.number AND lsn >= ?1
    ORDER BY lsn LIMIT 1
)) FROM topics WHERE substr(?2, number + 1, 1) = x'01'
"""
# For each lsn: the first lsn of the block that holds it; the lsn itself where none does.
_STARTS: Final = """
SELECT json_group_array(ifnull((
    SELECT iif(last_lsn >= asked.value, lsn, NULL) FROM log
    WHERE lsn <= asked.value ORDER BY lsn DESC LIMIT 1
), asked.value)) FROM json_each(?1) AS asked
"""
_FETCH: Final = f"""
SELECT {_BLOCK} FROM (
    SELECT DISTINCT log.lsn, last_lsn, topic, target, length(data) AS size, crc
    FROM json_each(?1) AS asked CROSS JOIN log ON log.lsn = (
        SELECT lsn FROM log AS holding
        WHERE holding.lsn <= asked.value ORDER BY holding.lsn DESC LIMIT 1
    ) WHERE last_lsn >= asked.value
)
"""
_LOG_TOPICS: Final = """
SELECT json_group_array(json_array(
    number, name, crc, EXISTS (SELECT 1 FROM log WHERE target = 0 AND topic = number)
)) FROM (SELECT number, name, crc FROM topics WHERE name > ?1 ORDER BY name LIMIT ?2)
"""
_TARGETS: Final = """
WITH RECURSIVE found (target) AS (
    SELECT (SELECT min(target) FROM log WHERE target <> 0 AND target > ?1)
    UNION ALL
    SELECT (SELECT min(log.target) FROM log WHERE log.target <> 0 AND log.target > found.target)
    FROM found WHERE found.target IS NOT NULL LIMIT ?2
)
SELECT json_group_array(target) FROM found WHERE target IS NOT NULL
"""
_OLDEST: Final = """
SELECT json_group_array(json_array(last_lsn + 1, last_lsn + 1 - lsn, size)) FROM (
    SELECT lsn, last_lsn, length(data) AS size FROM log
    WHERE lsn >= ?1 AND lsn < ?2 ORDER BY lsn
)
"""
_OLDEST_SUMS: Final = """
SELECT json_array(
    ifnull(max(last_lsn) + 1, 0), ifnull(sum(last_lsn + 1 - lsn), 0), ifnull(sum(size), 0)
) FROM (
    SELECT lsn, last_lsn, length(data) AS size FROM log
    WHERE lsn >= ?1 ORDER BY lsn LIMIT ?2
)
"""
_NEXT_LSN: Final = """
SELECT max(
    (SELECT value FROM meta WHERE name = 'next_lsn'),
    ifnull((SELECT last_lsn + 1 FROM log ORDER BY lsn DESC LIMIT 1), 1)
)
"""
# Joined as text, since SQLite joins nothing else; it does not look into it.
_DATA: Final = """
SELECT CAST(group_concat(CAST(data AS TEXT), '') AS BLOB) FROM (
    SELECT data FROM json_each(?1) AS wanted CROSS JOIN log ON log.lsn = wanted.value
    ORDER BY wanted.key
)
"""


@final
class _Block:
    """A row of the log, without its data."""

    def __init__(self, row: list[int]) -> None:
        self.lsn, self.last_lsn, self.topic, self.target, self.size, self.crc = row

    def entries(self, topic: str, data: bytes, low: int, high: int) -> list[LogEntry]:
        """Those of its entries with ``low`` <= lsn < ``high``; raises StoreCorrupt."""
        try:
            return decode_block_part(self.lsn, topic, self.target, data, low, high)
        except StoreCorrupt as error:
            raise StoreCorrupt(f"table log, row {self.lsn}: {error}") from error


@final
class SqliteReader:
    """Reads through a connection of its own, one call at a time, from any thread."""

    def __init__(self, path: Path, connection: apsw.Connection, may_be_unchecked: bool) -> None:
        """``may_be_unchecked``: rows of an older format may be there, without a checksum."""
        self._path = path
        self._connection = connection
        self._queries = Queries(connection)
        self._topics = SqliteTopics(self._queries, may_be_unchecked)
        self._lock = Lock()

    def close(self) -> None:
        """Close the connection; a second call does nothing."""
        with self._lock:
            self._connection.close(True)  # there is nothing to lose

    def paused(self) -> Lock:
        """A context in which no read goes on."""
        return self._lock

    def read(self, request: ReadRequest) -> LogSlice:
        """See ``Store.read``."""
        assert request.position <= request.end
        with self._snapshot():
            return _Read(self._queries, self._topics, request).run()

    def fetch(self, lsns: list[int]) -> list[LogEntry]:
        """See ``Store.fetch``."""
        wanted = sorted(set(lsns))
        found: dict[int, LogEntry] = {}
        with self._snapshot():
            blocks = _blocks(self._queries.rows(_FETCH, as_json(wanted)))
            while blocks:
                for block, topic, data in _take_contents(
                    self._queries, self._topics, blocks, len(blocks), DATA_BYTES_MAX
                ):
                    inside = [lsn for lsn in wanted if block.lsn <= lsn <= block.last_lsn]
                    low, high = inside[0], inside[-1] + 1
                    for entry in block.entries(topic, data, low, high):
                        found[entry.lsn] = entry
        return [found[lsn] for lsn in lsns if lsn in found]

    def count(self, request: ReadRequest) -> LogCount:
        """See ``Store.count``."""
        assert request.position <= request.end
        with self._snapshot():
            return _Read(self._queries, self._topics, request).count()

    def log_topics(self, after: str, limit: int) -> list[str]:
        """See ``Store.log_topics``."""
        found: list[str] = []
        while len(found) < limit:
            with self._snapshot():
                topics = self._queries.found_names(_LOG_TOPICS, after, TOPICS_PER_STEP)
                for number, name, crc, has_messages in topics:
                    if has_messages:
                        check_row(
                            "topics", number, (number, name), crc, self._topics.may_be_unchecked
                        )
                        found.append(name)
            if len(topics) < TOPICS_PER_STEP:
                break
            after = topics[-1][1]
        return found[:limit]

    def targets(self, after: int, limit: int) -> list[int]:
        """See ``Store.targets``."""
        with self._snapshot():
            return self._queries.numbers(_TARGETS, after, limit)

    def oldest(self, messages: int, bytes: int) -> int:
        """See ``Store.oldest``: the end of a block."""
        assert messages > 0 or bytes > 0
        position = 0
        count = 0
        size = 0
        while True:
            with self._snapshot():
                end, found, found_bytes = self._queries.numbers(
                    _OLDEST_SUMS, position, SCANNED_BLOCKS_MAX
                )
                if found == 0:
                    return self._queries.number(_NEXT_LSN)
                if 0 < messages <= count + found or 0 < bytes <= size + found_bytes:
                    for row in self._queries.rows(_OLDEST, position, end):
                        count += row[1]
                        size += row[2]
                        if 0 < messages <= count or 0 < bytes <= size:
                            return row[0]
            position = end
            count += found
            size += found_bytes

    def _find_damage(self) -> StoreCorrupt | None:
        """The row that cannot be read."""
        tables = ("topics", "log")
        return find_damage(self._connection.cursor(), tables, self._topics.may_be_unchecked)

    @contextmanager
    def _snapshot(self) -> Iterator[None]:
        """One state of the store for all statements within."""
        doing = "reading the log"
        with self._lock:
            try:
                self._connection.execute("BEGIN")
                try:
                    yield
                finally:
                    self._connection.execute("COMMIT")
            except apsw.SQLError as error:
                damage = self._find_damage()
                raise (
                    store_error(self._path, doing, error)
                    if damage is None
                    else StoreCorrupt(f"{self._path}: {doing} failed: {damage}")
                ) from error
            except apsw.Error as error:
                raise store_error(self._path, doing, error) from error
            except StoreCorrupt as error:
                raise StoreCorrupt(f"{self._path}: {doing} failed: {error}") from error
            except (TypeError, ValueError) as error:
                # A row may have other types than the table, or names that are none.
                damage = self._find_damage()
                if damage is None:
                    raise
                raise StoreCorrupt(f"{self._path}: {doing} failed: {damage}") from error


@final
class _Read:
    """One read: which topics match, then which blocks, then their messages."""

    def __init__(self, queries: Queries, topics: SqliteTopics, request: ReadRequest) -> None:
        self._queries = queries
        self._topics = topics
        self._request = request
        self._exact: dict[int, list[Interval]] = {}  # by topic
        self._sets: list[tuple[TopicSet, Interval]] = []
        self._intervals: dict[int, list[Interval]] = {}  # by topic, merged
        self._slice = SliceBuilder(request)
        # One more block than messages may be taken shows whether there is more.
        self._blocks_max = request.messages_max + 1

    def run(self) -> LogSlice:
        """The messages."""
        blocks, reach = self._find_blocks()
        self._take(blocks)
        return self._slice.finish(reach)

    def count(self) -> LogCount:
        """How many messages, with so many bytes."""
        request = self._request
        blocks, reach = self._find_blocks()
        messages = 0
        size = 0
        for block in blocks:
            if size > request.bytes_max:
                reach = block.lsn
                break
            if block.crc == UNCHECKED and not self._topics.may_be_unchecked:
                raise damaged("log", block.lsn, block.crc, UNCHECKED)
            wanted = sum(high - low for low, high in self._parts_of(block, reach))
            messages += wanted
            size += block.size * wanted // (block.last_lsn + 1 - block.lsn)
        return LogCount(messages, size, reach)

    def _find_blocks(self) -> tuple[list[_Block], int]:
        """The first blocks that match, and up to where these are all."""
        request = self._request
        if request.position == request.end:
            return [], request.end
        self._find_topics()
        shared, reach = self._shared_blocks()
        own = self._queries.rows(
            _TARGET, request.session, request.position, reach, self._blocks_max
        )
        blocks = _blocks(shared + own)[: self._blocks_max]
        if len(blocks) == self._blocks_max:
            reach = min(reach, blocks[-1].last_lsn + 1)
        return blocks, reach

    def _find_topics(self) -> None:
        """Resolve the filters of all spans that lie in what is asked for."""
        exact: list[tuple[str, Interval]] = []
        self._topics.refresh()
        for span in self._request.spans:
            interval = clipped(span, self._request)
            if interval is None:
                continue
            if is_exact(span.topic_filter):
                exact.append((span.topic_filter, interval))
                continue
            topics = self._topics.matching(span.topic_filter)
            self._sets.append((topics, interval))
            if topics.parent is not None:
                exact.append((topics.parent, interval))
        numbers = self._topics.exact([topic_filter for topic_filter, _ in exact])
        for topic_filter, interval in exact:
            if topic_filter in numbers:
                self._exact.setdefault(numbers[topic_filter], []).append(interval)

    def _shared_blocks(self) -> tuple[list[list[int]], int]:
        """The first blocks for all sessions that match, and up to where these are all."""
        listed = self._listed_topics()
        if listed is None:
            return self._scan(SCANNED_BLOCKS_MAX)
        if len(listed) > MERGED_TOPICS_MAX:
            blocks, reach = self._scan(len(listed) * SCANNED_BLOCKS_PER_TOPIC, can_skip=False)
            if reach == self._request.end or len(blocks) * SCAN_YIELD >= self._blocks_max:
                return blocks, reach
        return self._merge(listed)

    def _listed_topics(self) -> set[int] | None:
        """All topics that match, None if they are too many for going through them one by one."""
        listed = set(self._exact)
        for topics, _ in self._sets:
            if topics.numbers is None or len(listed) > LISTED_TOPICS_MAX:
                return None
            listed.update(topics.numbers)
        return listed if len(listed) <= LISTED_TOPICS_MAX else None

    def _merge(self, listed: set[int]) -> tuple[list[list[int]], int]:
        """The first blocks of these topics, topic by topic."""
        lows = sorted({low for topic in listed for low, _ in self._of(topic)})
        starts = dict(zip(lows, self._starts(lows), strict=True))
        runs: list[tuple[int, int, int]] = []
        for topic in listed:
            stop = 0
            for low, high in self._of(topic):
                # A block that holds the end of one stretch and the start of the next comes once.
                runs.append((topic, max(starts[low], stop), high))
                stop = high
        if not runs:
            return [], self._request.end
        return self._queries.rows(_MERGE, as_json(runs), self._blocks_max), self._request.end

    def _scan(self, blocks_max: int, *, can_skip: bool = True) -> tuple[list[list[int]], int]:
        """The first blocks that match among the next so many of the log."""
        end = self._request.end
        intervals = [interval for _, interval in self._sets]
        for found in self._exact.values():
            intervals += found
        (start,) = self._starts([min(low for low, _ in intervals)])
        found_end = self._queries.value(_SCAN_END, start, end, blocks_max)
        reach = found_end if isinstance(found_end, int) else end
        # A span that begins later would fill the answer with what does not count yet.
        matching = self._mapped_topics(reach)
        blocks = self._queries.rows(_SCAN, start, reach, matching, self._blocks_max)
        if not blocks and can_skip and reach < end:
            matching = self._mapped_topics(end)
            count = matching.count(1)
            cost = count * SKIP_BLOCKS_PER_TOPIC + self._topics.highest
            if count <= SKIP_TOPICS_MAX and cost < end - reach:
                next_lsn = self._queries.value(_SKIP, reach, matching)
                reach = min(end, next_lsn) if isinstance(next_lsn, int) else end
        return blocks, reach

    def _mapped_topics(self, until_lsn: int) -> bytes:
        """A map of the topics that match below an lsn."""
        mapped = bytearray()
        for topics, (low, _) in self._sets:
            if low < until_lsn:
                mapped = topics.add_to(mapped)
        for topic, intervals in self._exact.items():
            if any(low < until_lsn for low, _ in intervals):
                mark(mapped, topic)
        return bytes(mapped)

    def _starts(self, lsns: list[int]) -> list[int]:
        """For each lsn where the block begins that holds it, or the lsn itself."""
        return self._queries.numbers(_STARTS, as_json(lsns))

    def _take(self, blocks: list[_Block]) -> None:
        """Offer the messages of blocks to the slice, until it is full."""
        found = self._slice
        while blocks:
            for block, topic, data in _take_contents(
                self._queries,
                self._topics,
                blocks,
                found.messages_left + 1,
                min(found.bytes_left, DATA_BYTES_MAX),
            ):
                for entry in self._matching_entries(block, topic, data):
                    if not found.add(entry):
                        return

    def _matching_entries(self, block: _Block, topic: str, data: bytes) -> list[LogEntry]:
        """What matches in a block, at most one more than the slice takes."""
        entries: list[LogEntry] = []
        for low, high in self._parts_of(block, self._request.end):
            high = min(high, low + self._slice.messages_left + 1)
            entries += block.entries(topic, data, low, high)
        return entries

    def _parts_of(self, block: _Block, reach: int) -> list[Interval]:
        """The stretches of a block that are asked for, below ``reach``."""
        request = self._request
        parts: list[Interval] = []
        if block.target == 0:
            intervals = self._of(block.topic)
        else:
            intervals = [(request.position, request.end)] if block.target == request.session else []
        if not intervals:
            raise StoreCorrupt(
                f"an index of table log names row {block.lsn} for what it is not: its topic is"
                f" {block.topic}, its target {block.target}"
            )
        for low, high in intervals:
            low = max(low, block.lsn)
            high = min(high, block.last_lsn + 1, reach)
            if low < high:
                parts.append((low, high))
        return parts

    def _of(self, topic: int) -> list[Interval]:
        """The stretches of the log that the spans cover for this topic."""
        known = self._intervals.get(topic)
        if known is None:
            intervals = self._exact.get(topic, [])
            found = [interval for topics, interval in self._sets if topics.has(topic)]
            known = self._intervals[topic] = merged(intervals + found)
        return known


def _blocks(rows: list[list[int]]) -> list[_Block]:
    return [_Block(row) for row in sorted(rows)]


def _take_contents(
    queries: Queries,
    topics: SqliteTopics,
    blocks: list[_Block],
    blocks_max: int,
    bytes_max: int,
) -> list[tuple[_Block, str, bytes]]:
    """Take the first blocks off a list, at least one: each with its topic and data."""
    size = 0
    count = 0
    while count < len(blocks) and count < blocks_max:
        size += blocks[count].size
        if count > 0 and size > bytes_max:
            break
        count += 1
    taken = blocks[:count]
    del blocks[:count]
    data = queries.value(_DATA, as_json([block.lsn for block in taken]))
    assert isinstance(data, bytes)
    names = topics.names_of({block.topic for block in taken})
    found: list[tuple[_Block, str, bytes]] = []
    start = 0
    for block in taken:
        content = data[start : start + block.size]
        checksum = block_checksum(block.lsn, block.last_lsn, block.topic, block.target, content)
        is_unchecked = block.crc == UNCHECKED and topics.may_be_unchecked
        if block.crc != checksum and not is_unchecked:
            raise damaged("log", block.lsn, block.crc, checksum)
        found.append((block, names[block.topic], content))
        start += block.size
    assert start == len(data)
    return found
