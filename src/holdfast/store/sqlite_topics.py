"""The topics that filters match, found in the topics table and kept between reads."""

from typing import Final, final

from holdfast.disk.checksums import check_row
from holdfast.disk.queries import Queries, as_json
from holdfast.errors import StoreCorrupt
from holdfast.store.topic_sets import TopicSet, is_exact, topic_of

SETS_BYTES_MAX: Final = 16 * 1024 * 1024  # of topic sets kept between reads
NAMES_MAX: Final = 16_384  # topic names kept between reads
NAME_CHARACTERS_MAX: Final = 256  # of a name that is kept
TOPICS_PER_STEP: Final = 1024  # names that a filter is compared with in one statement
# A set is made anew after so many topics were removed from the store, and as many as it holds.
SET_FORGOTTEN_MAX: Final = 1024

_KNOWN: Final = """
SELECT json_array(
    ifnull((SELECT max(number) FROM topics), 0),
    (SELECT value FROM meta WHERE name = 'topics_forgotten')
)
"""
_NUMBERS: Final = """
SELECT json_group_array(json(ifnull((
    SELECT json_array(number, crc) FROM topics WHERE name = asked.value
), '[0,0]'))) FROM json_each(?1) AS asked
"""
_NAMES: Final = """
SELECT json_group_array(json_array(topics.number, name, crc))
FROM json_each(?1) AS asked CROSS JOIN topics ON topics.number = asked.value
"""
# Two ways through the topics above a number: by number, where only names that end as the filter
# does are given, or by name, where there is a prefix and there are many new topics.
_ABOVE: Final = """
SELECT json_group_array(json_array(number, name)) FROM (
    SELECT number, name FROM topics
    WHERE number > ?1 AND (?3 = 0 OR substr(name, -?3) = ?2) ORDER BY number LIMIT ?4
)
"""
_BELOW_PREFIX: Final = """
SELECT json_group_array(json_array(number, name)) FROM (
    SELECT number, name FROM topics WHERE name >= ?1 AND name < ?2 ORDER BY name LIMIT ?3
)
"""


@final
class SqliteTopics:
    """Answers within one snapshot, which begins with ``refresh``."""

    def __init__(self, queries: Queries, may_be_unchecked: bool) -> None:
        """``may_be_unchecked``: rows of an older format may be there, without a checksum."""
        self._queries = queries
        self.may_be_unchecked: Final = may_be_unchecked
        # With the bytes that were counted for each; the one used last comes last.
        self._sets: dict[str, tuple[TopicSet, int]] = {}
        self._sets_bytes = 0
        self._names: dict[int, str] = {}  # a number never gets another name
        self._highest = 0
        self._forgotten = 0

    @property
    def highest(self) -> int:
        """The highest number of a topic in this snapshot."""
        return self._highest

    def refresh(self) -> None:
        """Take note of what is new in this snapshot."""
        self._highest, self._forgotten = self._queries.numbers(_KNOWN)

    def exact(self, topic_filters: list[str]) -> dict[str, int]:
        """The topics that filters without wildcards match, where they are in the store."""
        names = [topic_of(topic_filter) for topic_filter in topic_filters]
        # A name is looked up each time: once removed, it may have come back with another number.
        rows = self._queries.rows(_NUMBERS, as_json(names)) if names else []
        found: dict[str, int] = {}
        for topic_filter, name, (number, crc) in zip(topic_filters, names, rows, strict=True):
            if number > 0:
                check_row("topics", number, (number, name), crc, self.may_be_unchecked)
                found[topic_filter] = number
        return found

    def matching(self, topic_filter: str) -> TopicSet:
        """The topics that a filter with wildcards matches, except the parent of its prefix."""
        assert not is_exact(topic_filter)
        topics, counted_bytes = self._sets.pop(topic_filter, (None, 0))
        self._sets_bytes -= counted_bytes
        if topics is None or self._is_aged(topics):
            topics = TopicSet(topic_filter, self._forgotten)
        if topics.seen < self._highest:
            self._complete(topics)
        counted_bytes = topics.cost_bytes
        self._sets[topic_filter] = (topics, counted_bytes)
        self._sets_bytes += counted_bytes
        while self._sets_bytes > SETS_BYTES_MAX and len(self._sets) > 1:
            _, counted_bytes = self._sets.pop(next(iter(self._sets)))
            self._sets_bytes -= counted_bytes
        return topics

    def names_of(self, numbers: set[int]) -> dict[int, str]:
        """The names of these topics. Raises StoreCorrupt if one is missing."""
        known = self._names
        found = {number: known[number] for number in numbers if number in known}
        missing = [number for number in numbers if number not in found]
        if missing:
            if len(known) > NAMES_MAX:
                known.clear()
            for number, name, crc in self._queries.checked_names(_NAMES, as_json(missing)):
                check_row("topics", number, (number, name), crc, self.may_be_unchecked)
                found[number] = name
                if len(name) <= NAME_CHARACTERS_MAX:
                    known[number] = name
            for number in missing:
                if number not in found:
                    raise StoreCorrupt(f"table topics: expected a row {number}, there is none")
        return found

    def _is_aged(self, topics: TopicSet) -> bool:
        """Whether most of a set may be topics that were removed."""
        return self._forgotten - topics.forgotten > max(SET_FORGOTTEN_MAX, topics.count)

    def _complete(self, topics: TopicSet) -> None:
        """Show a set all topics it has not seen."""
        prefix = topics.prefix
        if prefix and self._highest - topics.seen > TOPICS_PER_STEP:
            self._complete_by_name(topics, prefix)
        else:
            number = topics.seen
            suffix = topics.suffix
            while number < self._highest:
                found = self._queries.numbered_names(
                    _ABOVE, number, suffix, len(suffix), TOPICS_PER_STEP
                )
                for number, name in found:
                    if name.startswith(prefix):
                        topics.offer(number, name)
                if len(found) < TOPICS_PER_STEP:
                    break
        topics.seen = self._highest

    def _complete_by_name(self, topics: TopicSet, prefix: str) -> None:
        # A prefix ends with "/"; the names that begin with it sort before those with "0" there.
        assert prefix.endswith("/")
        start = prefix
        stop = f"{prefix[:-1]}0"
        while True:
            found = self._queries.numbered_names(_BELOW_PREFIX, start, stop, TOPICS_PER_STEP)
            for number, name in found:
                if number > topics.seen:
                    topics.offer(number, name)
            if len(found) < TOPICS_PER_STEP:
                return
            start = f"{found[-1][1]}\0"  # the next string in this order; no topic holds U+0000
