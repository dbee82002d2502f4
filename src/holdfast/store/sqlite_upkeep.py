"""Upkeep of the SQLite store beside its traffic, in small steps: trims, census, checkpoints."""

import os
from pathlib import Path
from typing import Final, final

import apsw

from holdfast.store.queries import as_json
from holdfast.store.records import Space, TopicCut
from holdfast.store.schema import BUSY_TIMEOUT_MS
from holdfast.store.sqlite_connection import Writing
from holdfast.store.sqlite_reader import SqliteReader
from holdfast.store.sqlite_writer import BatchWriter

# Frames in the write-ahead log after which it is carried over into the file: see store.md.
CHECKPOINT_FRAMES: Final = 1000
# Frames after which reads wait for a moment, since the log cannot begin again while one goes on.
RESTART_FRAMES: Final = 4 * CHECKPOINT_FRAMES
TRIMMED_BLOCKS_MAX: Final = 512  # removed in one step
TRIMMED_BYTES_MAX: Final = 8 * 1024 * 1024  # of blocks removed in one step, or a single larger one
CENSUS_BLOCKS: Final = 4096  # looked at in one step

_BLOCK: Final = "json_group_array(json_array(lsn, last_lsn, topic, size))"
_TRIMMABLE: Final = f"""
SELECT {_BLOCK} FROM (
    SELECT lsn, last_lsn, topic, length(data) AS size FROM log
    WHERE lsn < ?1 AND last_lsn < ?1 ORDER BY lsn LIMIT ?2
)
"""
_CUTTABLE: Final = """
SELECT {block} FROM (
    SELECT lsn, last_lsn, topic, length(data) AS size FROM log
    WHERE {chosen} AND lsn >= ?2 AND lsn < ?3 AND last_lsn < ?3 ORDER BY lsn LIMIT ?4
)
"""
_CUTTABLE_OF_TOPIC: Final = _CUTTABLE.format(
    block=_BLOCK, chosen="target = 0 AND topic = (SELECT number FROM topics WHERE name = ?1)"
)
_CUTTABLE_OF_TARGET: Final = _CUTTABLE.format(block=_BLOCK, chosen="target <> 0 AND target = ?1")
_REMOVE: Final = "DELETE FROM log WHERE lsn IN (SELECT value FROM json_each(?1))"
_FORGET_TIME_MARKS: Final = """
DELETE FROM time_marks WHERE lsn < (
    SELECT max(lsn) FROM time_marks
    WHERE lsn < ifnull((SELECT lsn FROM log ORDER BY lsn LIMIT 1), ?1)
)
"""
_CENSUS: Final = """
SELECT json_array(
    ifnull(max(last_lsn), 0), ifnull(sum(last_lsn - lsn + 1), 0), ifnull(sum(size), 0)
) FROM (
    SELECT lsn, last_lsn, length(data) AS size FROM log
    WHERE lsn >= ?1 AND lsn < ?2 ORDER BY lsn LIMIT ?3
)
"""
_FIRST_LSN: Final = "SELECT ifnull((SELECT lsn FROM log ORDER BY lsn LIMIT 1), ?1)"


@final
class Upkeep:
    """What keeps the file small, on the thread that writes."""

    def __init__(self, writing: Writing, writer: BatchWriter, reader: SqliteReader) -> None:
        self._writing = writing
        self._connection = writing.connection
        self._queries = writing.queries
        self._writer = writer
        self._reader = reader
        self._wal_frames = 0
        self._checkpoint_at = CHECKPOINT_FRAMES
        self._connection.set_wal_hook(self._note_wal)

    def trim(self, below_lsn: int) -> bool:
        """See ``Store.trim``."""
        # A power cut may undo a trim, so it needs no fsync of its own: the next commit's serves
        # both.
        with self._writing.transaction("trim", synchronous="NORMAL"):
            found = self._queries.rows(_TRIMMABLE, below_lsn, TRIMMED_BLOCKS_MAX + 1)
            return self._remove(found)

    def trim_topics(self, cuts: list[TopicCut]) -> bool:
        """See ``Store.trim_topics``."""
        with self._writing.transaction("trim", synchronous="NORMAL"):
            found: list[list[int]] = []
            for cut in cuts:
                for low, high in cut.spans:
                    assert low <= high
                    limit = TRIMMED_BLOCKS_MAX + 1 - len(found)
                    if cut.target == 0:
                        found += self._queries.rows(_CUTTABLE_OF_TOPIC, cut.topic, low, high, limit)
                    else:
                        found += self._queries.rows(
                            _CUTTABLE_OF_TARGET, cut.target, low, high, limit
                        )
                    if len(found) > TRIMMED_BLOCKS_MAX:
                        return self._remove(found)
            return self._remove(found)

    def space(self) -> Space:
        """See ``Store.space``."""
        tally = self._writer.tally
        path = self._writing.path
        wal = path.with_name(path.name + "-wal")
        number = self._queries.number
        page_bytes = number("PRAGMA page_size")
        return Space(
            tally.messages,
            tally.bytes,
            tally.is_complete,
            number(_FIRST_LSN, self._writer.next_lsn),
            self._writer.next_lsn,
            path.stat().st_size,
            page_bytes * number("PRAGMA freelist_count"),
            wal.stat().st_size if wal.exists() else 0,
            _disk_free_bytes(path),
        )

    def maintain(self) -> bool:
        """See ``Store.maintain``."""
        self._writing.refuse_after_failure()
        if not self._writer.tally.is_complete:
            self._count_on()
            return True
        return False

    def _count_on(self) -> None:
        """Take a step of the census."""
        tally = self._writer.tally
        last_lsn, messages, size = self._queries.numbers(
            _CENSUS, tally.position, tally.end, CENSUS_BLOCKS
        )
        tally.add(messages, size)
        tally.position = last_lsn + 1 if messages > 0 else tally.end

    def _remove(self, found: list[list[int]]) -> bool:
        """Remove the first of these blocks; whether that leaves some."""
        count = 0
        size = 0
        tally = self._writer.tally
        while count < min(len(found), TRIMMED_BLOCKS_MAX) and size < TRIMMED_BYTES_MAX:
            lsn, last_lsn, _, block_bytes = found[count]
            tally.remove(lsn, last_lsn - lsn + 1, block_bytes)
            size += block_bytes
            count += 1
        if count == 0:
            return False
        removed = found[:count]
        execute = self._writing.cursor.execute
        execute(_REMOVE, (as_json([row[0] for row in removed]),))
        self._writer.set_meta("next_lsn", self._writer.next_lsn)
        self._writer.forget_topics(list({row[2] for row in removed}))
        execute(_FORGET_TIME_MARKS, (self._writer.next_lsn,))
        return count < len(found)

    def _note_wal(self, _connection: apsw.Connection, _database: str, frames: int) -> int:
        if frames < self._wal_frames:  # it begins again from the front
            self._checkpoint_at = CHECKPOINT_FRAMES
        self._wal_frames = frames
        return apsw.SQLITE_OK

    def checkpoint_if_due(self) -> None:
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
                    restart_wal(self._connection)
        except apsw.BusyError:
            pass  # another program is at it, or reads
        except apsw.Error as error:
            self._writing.fail("checkpoint", error)


def restart_wal(connection: apsw.Connection) -> None:
    """Carry over the write-ahead log so that it begins again from the front."""
    connection.set_busy_timeout(0)  # a program that reads may do so for long
    try:
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART)
    finally:
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)


def _disk_free_bytes(path: Path) -> int:
    """What is left on the disk for such a file; -1 if the system does not say."""
    try:
        disk = os.statvfs(path)
    except OSError:
        return -1
    return disk.f_bavail * disk.f_frsize
