"""The store on SQLite: one file, written by one thread, read by another.

Everything of a batch goes through one transaction of few, large statements. ``docs/internals``
(store.md) says why, with figures.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, final

import apsw

from holdfast.errors import StoreCorrupt, StoreError
from holdfast.store.folder import make_file, make_folder
from holdfast.store.queries import Queries, as_json
from holdfast.store.records import (
    Batch,
    DelayedRecord,
    GroupRecord,
    LogEntry,
    LogSlice,
    ReadRequest,
    RetainedRecord,
    SessionRecord,
    Snapshot,
    StateRecord,
    SubscriptionRecord,
    decode_message,
    encode_blocks,
    encode_message,
    unknown_topics,
)
from holdfast.store.schema import BUSY_TIMEOUT_MS, check_file, migrate, store_error
from holdfast.store.sqlite_reader import SqliteReader

FILE_NAME: Final = "holdfast.db"

# Bytes of SQLite's page cache. The writer's holds the pages that a commit changes, mostly the ends
# of the log and of its index; the operating system caches the rest.
WRITER_CACHE_BYTES: Final = 8 * 1024 * 1024
READER_CACHE_BYTES: Final = 4 * 1024 * 1024
# Frames in the write-ahead log after which it is carried over into the file: see store.md.
CHECKPOINT_FRAMES: Final = 1000
# Frames after which reads wait for a moment, since the log cannot begin again while one goes on.
RESTART_FRAMES: Final = 4 * CHECKPOINT_FRAMES
TOPICS_CACHED_MAX: Final = 32_768  # topic numbers at hand for commits, about 5 MB
TOPIC_CHARACTERS_MAX: Final = 256  # of a topic in that cache
TRIMMED_BLOCKS_MAX: Final = 512  # removed in one step
TRIMMED_BYTES_MAX: Final = 8 * 1024 * 1024  # of blocks removed in one step, or a single larger one

# Rows go into a table by statements of so many rows: a step per statement, and not per row. Few
# different statements, so that all stay prepared.
ROWS_PER_STATEMENT: Final = (64, 16, 4, 1)

Value = int | str | bytes | None


@final
class _Insert:
    """The statements that put rows of one table, for each of ROWS_PER_STATEMENT."""

    def __init__(self, table: str, columns: int) -> None:
        self._columns = columns
        row = f"({', '.join('?' * columns)})"
        self._statements = [
            (count, f"INSERT OR REPLACE INTO {table} VALUES {', '.join([row] * count)}")
            for count in ROWS_PER_STATEMENT
        ]

    def run(self, cursor: apsw.Cursor, values: Sequence[Value]) -> None:
        """Put the rows whose values these are, one after the other; later ones replace earlier."""
        start = 0
        for count, statement in self._statements:
            size = count * self._columns
            while len(values) - start >= size:
                cursor.execute(statement, values[start : start + size])
                start += size
        assert start == len(values)


_INSERT_TOPICS: Final = _Insert("topics", 2)
_INSERT_LOG: Final = _Insert("log", 5)
_INSERT_SESSIONS: Final = _Insert("sessions", 10)
_INSERT_STATES: Final = _Insert("states", 4)
_INSERT_SUBSCRIPTIONS: Final = _Insert("subscriptions", 6)
_INSERT_RETAINED: Final = _Insert("retained", 2)
_INSERT_GROUPS: Final = _Insert("shared_groups", 4)
_INSERT_DELAYED: Final = _Insert("delayed", 5)

_TOPIC_NUMBERS: Final = """
SELECT json_group_array(ifnull((SELECT number FROM topics WHERE name = asked.value), 0))
FROM json_each(?1) AS asked
"""
_COUNTERS: Final = """
SELECT json_array(
    max(
        (SELECT value FROM meta WHERE name = 'next_lsn'),
        ifnull((SELECT last_lsn + 1 FROM log ORDER BY lsn DESC LIMIT 1), 1)
    ),
    (SELECT value FROM meta WHERE name = 'next_session'),
    ifnull((SELECT max(number) + 1 FROM topics), 1)
)
"""
_LISTED: Final = "IN (SELECT value FROM json_each(?1))"
_TOPICS_OF_TARGETS: Final = f"""
SELECT json_group_array(DISTINCT topic) FROM log WHERE target <> 0 AND target {_LISTED}
"""
_TOPICS_OF_DELAYED: Final = f"""
SELECT json_group_array(DISTINCT topic) FROM delayed WHERE number {_LISTED}
"""
_COUNT_FORGOTTEN: Final = "UPDATE meta SET value = value + ?1 WHERE name = 'topics_forgotten'"
_REMOVE_SUBSCRIPTIONS: Final = """
DELETE FROM subscriptions WHERE (session, topic_filter, from_lsn) IN (
    SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?1)
)
"""
_TRIMMABLE: Final = """
SELECT json_group_array(json_array(lsn, topic, size)) FROM (
    SELECT lsn, topic, length(data) AS size FROM log
    WHERE lsn < ?1 AND last_lsn < ?1 ORDER BY lsn LIMIT ?2
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


def open_store(data_dir: Path, vfs: str | None = None) -> "SqliteStore":
    """Open the store in a folder; both are made if they are missing.

    The caller holds the folder's ``DataLock``. Raises StoreTooNew for a newer format and
    StoreCorrupt for what is no store, both left untouched, and StoreError for all else.
    """
    make_folder(data_dir)
    path = data_dir / FILE_NAME
    try:
        format_number = check_file(path, vfs)
    except OSError as error:
        raise StoreError(f"{path}: cannot read the store: {error.strerror}") from error
    make_file(path)
    return SqliteStore(path, format_number, vfs)


@final
class SqliteStore:
    """See ``Store``; made by ``open_store``."""

    def __init__(self, path: Path, format_number: int, vfs: str | None) -> None:
        """Open a file that ``check_file`` has looked at."""
        self._path = path
        self._failure: str | None = None  # why there is no further commit
        self._is_closed = False
        self._synchronous = "FULL"
        self._wal_frames = 0
        self._checkpoint_at = CHECKPOINT_FRAMES
        self._topics: dict[str, int] = {}  # numbers by name, for commits
        try:
            self._connection = _connect(path, vfs, WRITER_CACHE_BYTES)
            self._cursor = self._connection.cursor()
            self._queries = Queries(self._connection)
            try:
                self._prepare(format_number)
                reading = _connect(path, vfs, READER_CACHE_BYTES)
                reading.pragma("query_only", True)
            except BaseException:
                _close_without_writing(self._connection)
                raise
        except apsw.Error as error:
            raise store_error(path, "opening the store", error) from error
        self._reader = SqliteReader(path, reading)

    def _prepare(self, format_number: int) -> None:
        """Make or migrate the tables, and read what is counted."""
        self._connection.wal_autocheckpoint(0)  # it would hide errors, and try an fsync twice
        migrate(self._connection, format_number)
        # What a killed broker left in the write-ahead log may be in the system's cache only, if an
        # fsync failed. Carried over into the file, and flushed there, that does no harm.
        try:
            self._restart_wal()
        except apsw.BusyError:
            pass  # another program reads; it is carried over all the same
        self._connection.set_wal_hook(self._note_wal)
        self._next_lsn, self._next_session, self._next_topic = self._queries.numbers(_COUNTERS)

    @property
    def description(self) -> str:
        """What the operator is told at the start."""
        return f"SQLite, {self._path}"

    def close(self) -> None:
        """Close the file; a second call does nothing. After a failure nothing more is written."""
        if self._is_closed:
            return
        self._is_closed = True
        self._reader.close()
        if self._failure is not None:
            _close_without_writing(self._connection)
            return
        try:
            self._connection.close()
        except apsw.Error:
            pass  # the last checkpoint failed; the write-ahead log has everything, and stays

    def load(self) -> Snapshot:
        """See ``Store.load``; raises StoreError if the file cannot be read."""
        doing = "loading the sessions"
        try:
            self._cursor.execute("BEGIN")
            try:
                return self._load()
            finally:
                self._cursor.execute("COMMIT")
        except apsw.Error as error:
            raise store_error(self._path, doing, error) from error
        except StoreCorrupt as error:
            raise StoreCorrupt(f"{self._path}: {doing} failed: {error}") from error

    def commit(self, batch: Batch) -> None:
        """See ``Store.commit``; raises StoreError, after which there is no further commit."""
        self._refuse_after_failure()
        if batch.is_empty:
            return
        entries = batch.entries
        next_lsn = self._next_lsn + len(entries)
        assert not entries or entries[0].lsn == self._next_lsn
        assert not entries or entries[-1].lsn == next_lsn - 1
        numbers = [record.number for record in batch.sessions]
        numbers += [record.number for record in batch.groups]
        next_session = max([self._next_session, *(number + 1 for number in numbers)])
        with self._transaction("commit"):
            if next_session != self._next_session:
                self._set_meta("next_session", next_session)
            self._apply(batch, next_lsn)
        self._next_lsn = next_lsn
        self._next_session = next_session
        self._checkpoint_if_due()

    def read(self, request: ReadRequest) -> LogSlice:
        """See ``Store.read``; raises StoreError if the file cannot be read."""
        return self._reader.read(request)

    def fetch(self, lsns: list[int]) -> list[LogEntry]:
        """See ``Store.fetch``; raises StoreError if the file cannot be read."""
        return self._reader.fetch(lsns)

    def trim(self, below_lsn: int) -> bool:
        """See ``Store.trim``. Blocks go as a whole, so a few entries below may stay."""
        self._refuse_after_failure()
        # A power cut may undo a trim, so it needs no fsync of its own: the next commit's serves
        # both.
        with self._transaction("trim", synchronous="NORMAL"):
            has_more = self._trim(below_lsn)
        self._checkpoint_if_due()
        return has_more

    def _refuse_after_failure(self) -> None:
        if self._failure is not None:
            raise StoreError(f"nothing more is committed since this: {self._failure}")

    @contextmanager
    def _transaction(self, doing: str, synchronous: str = "FULL") -> Iterator[None]:
        """All or nothing; after a failure, nothing ever again until the store is opened anew."""
        try:
            if synchronous != self._synchronous:
                self._cursor.execute(f"PRAGMA synchronous = {synchronous}")
                self._synchronous = synchronous
            self._cursor.execute("BEGIN IMMEDIATE")
            yield
            self._cursor.execute("COMMIT")
        except BaseException as error:
            self._failure = f"{self._path}: {doing} failed ({error})"
            self._roll_back()
            if isinstance(error, apsw.Error):
                failure = store_error(self._path, doing, error)
                self._failure = str(failure)
                raise failure from error
            raise

    def _roll_back(self) -> None:
        try:
            if self._connection.in_transaction:
                self._cursor.execute("ROLLBACK")
        except apsw.Error:
            pass  # the first error is told; there is no further commit in any case

    def _apply(self, batch: Batch, next_lsn: int) -> None:
        """Write a batch, in the order that ``Batch`` lays down."""
        names = self._number_topics(batch)
        unneeded: list[int] = []  # topics that may have lost their last use
        if batch.ended:
            unneeded += self._end_sessions(batch.ended, next_lsn)
        if batch.sessions:
            _INSERT_SESSIONS.run(self._cursor, _session_values(batch.sessions))
        if batch.groups:
            _INSERT_GROUPS.run(self._cursor, _group_values(batch.groups))
        if batch.subscriptions_removed:
            keys = [(r.session, r.topic_filter, r.from_lsn) for r in batch.subscriptions_removed]
            self._cursor.execute(_REMOVE_SUBSCRIPTIONS, (as_json(keys),))
        if batch.subscriptions:
            _INSERT_SUBSCRIPTIONS.run(self._cursor, _subscription_values(batch.subscriptions))
        if batch.states:
            _INSERT_STATES.run(self._cursor, _state_values(batch.states))
        if batch.retained:
            unneeded += self._retain(batch.retained)
        if batch.delayed:
            unneeded += self._delay(batch.delayed)
        if batch.delayed_removed:
            unneeded += self._remove_delayed(batch.delayed_removed)
        if batch.entries:
            _INSERT_LOG.run(self._cursor, encode_blocks(batch.entries, self._topics))
        if unneeded:
            self._forget_topics(unneeded)
        for name in names:
            if len(name) > TOPIC_CHARACTERS_MAX:
                self._topics.pop(name, None)

    def _number_topics(self, batch: Batch) -> list[str]:
        """Have the numbers of a batch's topics at hand, and return those that were not.

        New topics are written.
        """
        topics = self._topics
        unknown = unknown_topics(batch, topics)
        if len(topics) + len(unknown) > TOPICS_CACHED_MAX:
            topics.clear()
            unknown = unknown_topics(batch, topics)
        if not unknown:
            return unknown
        rows: list[Value] = []
        found = self._queries.numbers(_TOPIC_NUMBERS, as_json(unknown))
        for name, number in zip(unknown, found, strict=True):
            if number == 0:
                number = self._next_topic
                self._next_topic += 1
                rows += (number, name)
            topics[name] = number
        _INSERT_TOPICS.run(self._cursor, rows)
        return unknown

    def _end_sessions(self, numbers: list[int], next_lsn: int) -> list[int]:
        """Remove all of these sessions and groups, and return the topics that are less used."""
        ended = as_json(numbers)
        topics = self._queries.numbers(_TOPICS_OF_TARGETS, ended)
        if topics:
            self._cursor.execute(
                f"DELETE FROM log WHERE target <> 0 AND target {_LISTED}", (ended,)
            )
            # The newest entries may be among them, and their lsns must not come again.
            self._set_meta("next_lsn", next_lsn)
        for table, key in (
            ("sessions", "number"),
            ("states", "session"),
            ("subscriptions", "session"),
            ("shared_groups", "number"),
        ):
            self._cursor.execute(f"DELETE FROM {table} WHERE {key} {_LISTED}", (ended,))
        return topics

    def _retain(self, records: list[RetainedRecord]) -> list[int]:
        """Set and clear retained slots, and return the topics that are less used."""
        latest = {record.topic: record.message for record in records}
        rows: list[Value] = []
        cleared: list[int] = []
        for topic, message in latest.items():
            number = self._topics[topic]
            if message is None:
                cleared.append(number)
            else:
                rows += (number, encode_message(message))
        _INSERT_RETAINED.run(self._cursor, rows)
        if cleared:
            self._cursor.execute(f"DELETE FROM retained WHERE topic {_LISTED}", (as_json(cleared),))
        return cleared

    def _delay(self, records: list[DelayedRecord]) -> list[int]:
        """Set delayed messages, and return the topics of those that they take the place of."""
        latest = {record.number: record for record in records}
        replaced = self._queries.numbers(_TOPICS_OF_DELAYED, as_json(list(latest)))
        values: list[Value] = []
        for record in latest.values():
            message = record.message
            topic = self._topics[message.topic]
            values += (record.number, record.due_ms, record.seconds, topic, encode_message(message))
        _INSERT_DELAYED.run(self._cursor, values)
        if len(latest) < len(records):
            replaced += {self._topics[record.message.topic] for record in records}
        return replaced

    def _remove_delayed(self, numbers: list[int]) -> list[int]:
        """Remove delayed messages, and return the topics that are less used."""
        removed = as_json(numbers)
        topics = self._queries.numbers(_TOPICS_OF_DELAYED, removed)
        self._cursor.execute(f"DELETE FROM delayed WHERE number {_LISTED}", (removed,))
        return topics

    def _trim(self, below_lsn: int) -> bool:
        found = self._queries.rows(_TRIMMABLE, below_lsn, TRIMMED_BLOCKS_MAX + 1)
        count = 0
        size = 0
        while count < min(len(found), TRIMMED_BLOCKS_MAX) and size < TRIMMED_BYTES_MAX:
            size += found[count][2]
            count += 1
        if count == 0:
            return False
        removed = found[:count]
        self._cursor.execute("DELETE FROM log WHERE lsn <= ?1", (removed[-1][0],))
        self._set_meta("next_lsn", self._next_lsn)
        self._forget_topics(list({row[1] for row in removed}))
        return count < len(found)

    def _forget_topics(self, numbers: list[int]) -> None:
        """Remove those of these topics that nothing refers to any more."""
        unused = self._queries.numbered_names(_UNUSED_TOPICS, as_json(numbers))
        if not unused:
            return
        removed = as_json([number for number, _ in unused])
        self._cursor.execute(f"DELETE FROM topics WHERE number {_LISTED}", (removed,))
        self._cursor.execute(_COUNT_FORGOTTEN, (len(unused),))
        for _, name in unused:
            self._topics.pop(name, None)

    def _set_meta(self, name: str, value: int) -> None:
        self._cursor.execute("UPDATE meta SET value = ?2 WHERE name = ?1", (name, value))

    def _note_wal(self, _connection: apsw.Connection, _database: str, frames: int) -> int:
        if frames < self._wal_frames:  # it begins again from the front
            self._checkpoint_at = CHECKPOINT_FRAMES
        self._wal_frames = frames
        return apsw.SQLITE_OK

    def _checkpoint_if_due(self) -> None:
        """Carry the write-ahead log over into the file, now and then.

        What was committed is durable before. A failure ends the store with the next commit: pages
        that could not be flushed may be lost, and another attempt would not show it.
        """
        if self._wal_frames < self._checkpoint_at:
            return
        self._checkpoint_at = self._wal_frames + CHECKPOINT_FRAMES
        try:
            if self._wal_frames < RESTART_FRAMES:
                self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            else:
                with self._reader.paused():
                    self._restart_wal()
        except apsw.BusyError:
            pass  # another program is at it, or reads
        except apsw.Error as error:
            self._failure = str(store_error(self._path, "checkpoint", error))

    def _restart_wal(self) -> None:
        """Carry over the write-ahead log so that it begins again from the front."""
        self._connection.set_busy_timeout(0)  # a program that reads may do so for long
        try:
            self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART)
        finally:
            self._connection.set_busy_timeout(BUSY_TIMEOUT_MS)

    def _load(self) -> Snapshot:
        snapshot = Snapshot()
        snapshot.next_lsn = self._next_lsn
        snapshot.next_session = self._next_session
        execute = self._cursor.execute
        for number, client_id, version, epoch, expiry_s, since, topic, will, *times in execute(
            "SELECT * FROM sessions ORDER BY number"
        ):
            message = None if will is None else decode_message(topic, will)
            snapshot.sessions.append(
                SessionRecord(number, client_id, version, epoch, expiry_s, since, message, *times)
            )
        for row in execute("SELECT * FROM states ORDER BY session"):
            snapshot.states.append(StateRecord(*row))
        for row in execute("SELECT * FROM subscriptions ORDER BY session, topic_filter, from_lsn"):
            snapshot.subscriptions.append(SubscriptionRecord(*row))
        for topic, message in execute(
            "SELECT name, message FROM retained LEFT JOIN topics ON number = topic ORDER BY name"
        ):
            if topic is None:
                raise StoreCorrupt("a retained message has no topic")
            snapshot.retained.append(RetainedRecord(topic, decode_message(topic, message)))
        for row in execute("SELECT * FROM shared_groups ORDER BY number"):
            snapshot.groups.append(GroupRecord(*row))
        for number, due_ms, seconds, topic, message in execute(
            "SELECT delayed.number, due_ms, seconds, name, message"
            " FROM delayed LEFT JOIN topics ON topics.number = topic ORDER BY delayed.number"
        ):
            if topic is None:
                raise StoreCorrupt("a delayed message has no topic")
            delayed = decode_message(topic, message)
            snapshot.delayed.append(DelayedRecord(number, due_ms, seconds, delayed))
        return snapshot


def _connect(path: Path, vfs: str | None, cache_bytes: int) -> apsw.Connection:
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE, vfs=vfs)
    try:
        _set_up(connection, cache_bytes)
    except BaseException:
        _close_without_writing(connection)
        raise
    return connection


def _set_up(connection: apsw.Connection, cache_bytes: int) -> None:
    connection.set_busy_timeout(BUSY_TIMEOUT_MS)
    pragma = connection.pragma
    pragma("auto_vacuum", "incremental")  # counts before the first table is made
    mode = pragma("journal_mode", "wal")
    if mode != "wal":
        raise apsw.CantOpenError(f"expected the journal mode wal, got {mode}")
    pragma("synchronous", "full")
    pragma("fullfsync", True)  # on macOS, where fsync alone does not flush
    pragma("checkpoint_fullfsync", True)
    pragma("cache_size", -cache_bytes // 1024)
    pragma("mmap_size", 0)  # an I/O error in mapped memory kills the process
    pragma("temp_store", "memory")
    pragma("trusted_schema", False)


def _close_without_writing(connection: apsw.Connection) -> None:
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    connection.close()


def _session_values(records: list[SessionRecord]) -> list[Value]:
    values: list[Value] = []
    for record in records:
        will = record.will
        values += (
            record.number,
            record.client_id,
            record.version,
            record.epoch,
            record.expiry_s,
            record.disconnected_at_ms,
            None if will is None else will.topic,
            None if will is None else encode_message(will),
            record.will_delay_s,
            record.will_due_ms,
        )
    return values


def _subscription_values(records: list[SubscriptionRecord]) -> list[Value]:
    values: list[Value] = []
    for record in records:
        values += (
            record.session,
            record.topic_filter,
            record.from_lsn,
            record.until_lsn,
            record.options,
            record.identifier,
        )
    return values


def _state_values(records: list[StateRecord]) -> list[Value]:
    values: list[Value] = []
    for record in records:
        values += (record.session, record.cursor, record.in_flight, record.received)
    return values


def _group_values(records: list[GroupRecord]) -> list[Value]:
    values: list[Value] = []
    for record in records:
        values += (record.number, record.topic_filter, record.cursor, record.returned)
    return values
