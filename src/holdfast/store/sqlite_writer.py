"""Writing batches into SQLite: everything of one in few, large statements."""

from typing import Final, cast, final

from holdfast.disk.checksums import Value, check_row, row_checksum
from holdfast.disk.connection import Writing
from holdfast.disk.queries import as_json
from holdfast.errors import StoreCorrupt
from holdfast.store.blocks import encode_blocks, encode_message, unknown_topics
from holdfast.store.checked_rows import have_gaps, state_values, subscription_values
from holdfast.store.records import Batch, DelayedRecord, RetainedRecord
from holdfast.store.schema import may_hold_unchecked
from holdfast.store.sqlite_rows import (
    INSERT_DELAYED,
    INSERT_GROUPS,
    INSERT_LOG,
    INSERT_LOSSES,
    INSERT_PLAIN_STATES,
    INSERT_RETAINED,
    INSERT_SESSIONS,
    INSERT_STATES,
    INSERT_SUBSCRIPTIONS,
    INSERT_TIME_MARKS,
    INSERT_TOPICS,
    group_values,
    loss_values,
    session_values,
    time_mark_values,
)
from holdfast.store.tally import LogTally

TOPICS_CACHED_MAX: Final = 32_768  # topic numbers at hand for commits, about 5 MB
TOPIC_CHARACTERS_MAX: Final = 256  # of a topic in that cache

_TOPIC_NUMBERS: Final = """
SELECT json_group_array(json(ifnull((
    SELECT json_array(number, crc) FROM topics WHERE name = asked.value
), '[0,0]'))) FROM json_each(?1) AS asked
"""
_META: Final = "SELECT value, crc FROM meta WHERE name = ?1"
_LAST_BLOCK: Final = "SELECT * FROM log ORDER BY lsn DESC LIMIT 1"
_NEXT_TOPIC: Final = "SELECT ifnull((SELECT max(number) + 1 FROM topics), 1)"
_LISTED: Final = "IN (SELECT value FROM json_each(?1))"
_OF_TARGETS: Final = f"target <> 0 AND target {_LISTED}"
_TOPICS_OF_TARGETS: Final = f"SELECT json_group_array(DISTINCT topic) FROM log WHERE {_OF_TARGETS}"
# What of these was counted already: all but what lies between where a census is and its end.
_COUNTED_OF_TARGETS: Final = f"""
SELECT json_array(ifnull(sum(last_lsn - lsn + 1), 0), ifnull(sum(length(data)), 0))
FROM log WHERE {_OF_TARGETS} AND (lsn < ?2 OR lsn >= ?3)
"""
_TOPICS_OF_DELAYED: Final = f"""
SELECT json_group_array(DISTINCT topic) FROM delayed WHERE number {_LISTED}
"""
_REMOVE_SUBSCRIPTIONS: Final = """
DELETE FROM subscriptions WHERE (session, topic_filter, from_lsn) IN (
    SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?1)
)
"""
# Of some topics those that nothing refers to any more, and their names.
_UNUSED_TOPICS: Final = """
SELECT json_group_array(json_array(number, name)) FROM topics
WHERE number IN (SELECT value FROM json_each(?1))
AND NOT EXISTS (SELECT 1 FROM log WHERE target = 0 AND topic = number)
AND NOT EXISTS (SELECT 1 FROM log WHERE target <> 0 AND topic = number)
AND NOT EXISTS (SELECT 1 FROM retained WHERE topic = number)
AND NOT EXISTS (SELECT 1 FROM delayed WHERE delayed.topic = topics.number)
"""


@final
class BatchWriter:
    """Applies batches within transactions, and numbers topics."""

    def __init__(self, writing: Writing) -> None:
        """Raises StoreCorrupt if what is counted was not written so."""
        self._cursor = writing.cursor
        self._queries = writing.queries
        self.topics: Final[dict[str, int]] = {}  # numbers by name, at hand for commits
        self.may_be_unchecked: Final = may_hold_unchecked(writing.connection)
        self._next_topic = self._queries.number(_NEXT_TOPIC)
        self._topics_forgotten = self._meta("topics_forgotten")
        self.next_session = self._meta("next_session")
        self.next_lsn = max(self._meta("next_lsn"), self._end_of_log())
        self._written = (self.next_lsn, self.next_session)  # what they are after the commit
        self.tally: Final = LogTally(self.next_lsn)

    def write(self, batch: Batch) -> None:
        """Write a batch, in the order that ``Batch`` lays down."""
        numbers = [record.number for record in batch.sessions]
        numbers += [record.number for record in batch.groups]
        next_session = max([self.next_session, *(number + 1 for number in numbers)])
        if next_session != self.next_session:
            self.set_meta("next_session", next_session)
        self._written = (self.next_lsn + len(batch.entries), next_session)
        names = self._number_topics(batch)
        unneeded = self._write_records(batch)
        if batch.entries:
            values = encode_blocks(batch.entries, self.topics)
            INSERT_LOG.run(self._cursor, values)
            data = cast("list[bytes]", values[4 :: INSERT_LOG.columns])
            self.tally.add(len(batch.entries), sum(map(len, data)))
        if unneeded:
            self.forget_topics(unneeded)
        for name in names:
            if len(name) > TOPIC_CHARACTERS_MAX:
                self.topics.pop(name, None)

    def bring_in(self, batch: Batch, next_lsn: int, next_session: int) -> None:
        """Write what another store held; lsns may be missing, and these numbers follow."""
        assert next_lsn >= self.next_lsn
        assert next_session >= self.next_session
        entries, batch.entries = batch.entries, []
        self.write(batch)
        start = 0
        for end in range(1, len(entries) + 1):
            if end == len(entries) or entries[end].lsn != entries[end - 1].lsn + 1:
                run = Batch()
                run.entries = entries[start:end]
                self.write(run)
                start = end
        self.set_meta("next_lsn", next_lsn)
        self.set_meta("next_session", next_session)
        self._written = (next_lsn, next_session)

    def committed(self) -> None:
        """What was written is committed."""
        self.next_lsn, self.next_session = self._written

    def forget_topics(self, numbers: list[int]) -> None:
        """Remove those of these topics that nothing refers to any more."""
        unused = self._queries.numbered_names(_UNUSED_TOPICS, as_json(numbers))
        if not unused:
            return
        removed = as_json([number for number, _ in unused])
        self._cursor.execute(f"DELETE FROM topics WHERE number {_LISTED}", (removed,))
        self._topics_forgotten += len(unused)
        self.set_meta("topics_forgotten", self._topics_forgotten)
        for _, name in unused:
            self.topics.pop(name, None)

    def write_probe(self) -> None:
        """Write something that means nothing, but has to be written.

        SQLite does not write what stays the same. Readers look anew at what they know of topics.
        """
        self._topics_forgotten += 1
        self.set_meta("topics_forgotten", self._topics_forgotten)

    def set_meta(self, name: str, value: int) -> None:
        """Write a number that is counted."""
        self._cursor.execute(
            "UPDATE meta SET value = ?2, crc = ?3 WHERE name = ?1",
            (name, value, row_checksum((name, value))),
        )

    def _meta(self, name: str) -> int:
        rows = self._cursor.execute(_META, (name,)).fetchall()
        if not rows:
            raise StoreCorrupt(f"table meta: expected a row {name}, there is none")
        value, crc = rows[0]
        check_row("meta", name, (name, value), crc)
        assert isinstance(value, int)
        return value

    def _end_of_log(self) -> int:
        """The lsn behind the last block of the log; 1 if there is none."""
        for lsn, last_lsn, topic, target, data, crc in self._cursor.execute(_LAST_BLOCK).fetchall():
            row = (lsn, last_lsn, topic, target, data)
            check_row("log", lsn, row, crc, self.may_be_unchecked)
            assert isinstance(last_lsn, int)
            return last_lsn + 1
        return 1

    def _write_records(self, batch: Batch) -> list[int]:
        """Write all but the log, and return topics that may have lost their last use."""
        cursor = self._cursor
        unneeded: list[int] = []
        if batch.ended:
            unneeded += self._end_sessions(batch.ended)
        if batch.sessions:
            INSERT_SESSIONS.run(cursor, session_values(batch.sessions))
        if batch.groups:
            INSERT_GROUPS.run(cursor, group_values(batch.groups))
        if batch.subscriptions_removed:
            keys = [(r.session, r.topic_filter, r.from_lsn) for r in batch.subscriptions_removed]
            cursor.execute(_REMOVE_SUBSCRIPTIONS, (as_json(keys),))
        if batch.subscriptions:
            INSERT_SUBSCRIPTIONS.run(cursor, subscription_values(batch.subscriptions))
        if batch.states:
            has_gaps = have_gaps(batch.states)
            insert = INSERT_STATES if has_gaps else INSERT_PLAIN_STATES
            insert.run(cursor, state_values(batch.states, has_gaps))
        if batch.losses:
            INSERT_LOSSES.run(cursor, loss_values(batch.losses))
        if batch.retained:
            unneeded += self._retain(batch.retained)
        if batch.delayed:
            unneeded += self._delay(batch.delayed)
        if batch.delayed_removed:
            unneeded += self._remove_delayed(batch.delayed_removed)
        if batch.time_marks:
            INSERT_TIME_MARKS.run(cursor, time_mark_values(batch.time_marks))
        return unneeded

    def _number_topics(self, batch: Batch) -> list[str]:
        """Have the numbers of a batch's topics at hand, and return those that were not.

        New topics are written.
        """
        topics = self.topics
        unknown = unknown_topics(batch, topics)
        if len(topics) + len(unknown) > TOPICS_CACHED_MAX:
            topics.clear()
            unknown = unknown_topics(batch, topics)
        if not unknown:
            return unknown
        values: list[Value] = []
        found = self._queries.rows(_TOPIC_NUMBERS, as_json(unknown))
        for name, (number, crc) in zip(unknown, found, strict=True):
            if number == 0:
                number = self._next_topic
                self._next_topic += 1
                values += (number, name, row_checksum((number, name)))
            else:
                check_row("topics", number, (number, name), crc, self.may_be_unchecked)
            topics[name] = number
        INSERT_TOPICS.run(self._cursor, values)
        return unknown

    def _end_sessions(self, numbers: list[int]) -> list[int]:
        """Remove all of these sessions and groups, and return the topics that are less used."""
        ended = as_json(numbers)
        topics = self._queries.numbers(_TOPICS_OF_TARGETS, ended)
        if topics:
            messages, size = self._queries.numbers(
                _COUNTED_OF_TARGETS, ended, self.tally.position, self.tally.end
            )
            self.tally.subtract(messages, size)
            self._cursor.execute(f"DELETE FROM log WHERE {_OF_TARGETS}", (ended,))
            # The newest entries may be among them, and their lsns must not come again.
            self.set_meta("next_lsn", self._written[0])
        for table, key in (
            ("sessions", "number"),
            ("states", "session"),
            ("subscriptions", "session"),
            ("shared_groups", "number"),
            ("losses", "owner"),
        ):
            self._cursor.execute(f"DELETE FROM {table} WHERE {key} {_LISTED}", (ended,))
        return topics

    def _retain(self, records: list[RetainedRecord]) -> list[int]:
        """Set and clear retained slots, and return the topics that are less used."""
        latest = {record.topic: record.message for record in records}
        values: list[Value] = []
        cleared: list[int] = []
        for topic, message in latest.items():
            number = self.topics[topic]
            if message is None:
                cleared.append(number)
            else:
                data = encode_message(message)
                values += (number, data, row_checksum((number, data)))
        INSERT_RETAINED.run(self._cursor, values)
        if cleared:
            self._cursor.execute(f"DELETE FROM retained WHERE topic {_LISTED}", (as_json(cleared),))
        return cleared

    def _delay(self, records: list[DelayedRecord]) -> list[int]:
        """Set delayed messages, and return the topics of those that they take the place of."""
        latest = {record.number: record for record in records}
        replaced = self._queries.numbers(_TOPICS_OF_DELAYED, as_json(list(latest)))
        values: list[Value] = []
        for record in latest.values():
            topic = self.topics[record.message.topic]
            data = encode_message(record.message)
            row = (record.number, record.due_ms, record.seconds, topic, data)
            values += row
            values.append(row_checksum(row))
        INSERT_DELAYED.run(self._cursor, values)
        if len(latest) < len(records):
            replaced += {self.topics[record.message.topic] for record in records}
        return replaced

    def _remove_delayed(self, numbers: list[int]) -> list[int]:
        """Remove delayed messages, and return the topics that are less used."""
        removed = as_json(numbers)
        topics = self._queries.numbers(_TOPICS_OF_DELAYED, removed)
        self._cursor.execute(f"DELETE FROM delayed WHERE number {_LISTED}", (removed,))
        return topics
