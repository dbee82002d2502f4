"""Upkeep of the SQLite store beside its traffic, in small steps.

Trims, the census of the log, pages given back, the write-ahead log carried over.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, final

import apsw

from holdfast.disk.connection import Writing, restart_wal
from holdfast.disk.queries import as_json
from holdfast.store.records import Space, TopicCut
from holdfast.store.sqlite_reader import SqliteReader
from holdfast.store.sqlite_writer import BatchWriter
from holdfast.store.steps import StepSize

# Frames in the write-ahead log after which it is carried over into the file: by a step of upkeep,
# or, if none comes, with a commit. See store.md.
UPKEEP_FRAMES: Final = 250
CHECKPOINT_FRAMES: Final = 1000
# Frames after which reads wait for a moment, since the log cannot begin again while one goes on.
RESTART_FRAMES: Final = 4 * CHECKPOINT_FRAMES
WAL_BYTES_MAX: Final = 16 * 1024 * 1024  # what the write-ahead log keeps on the disk

# Blocks removed in one step, as many as it has time for, and so many bytes for each of them: what
# lies in pages of its own has to be read to be freed. A single larger block goes alone.
TRIMMED_BLOCKS_MIN: Final = 64
TRIMMED_BLOCKS_START: Final = 512  # few blocks of many topics write the index again and again
TRIMMED_BLOCKS_MAX: Final = 4096
TRIMMED_BYTES_PER_BLOCK: Final = 4 * 1024
CENSUS_BLOCKS_MAX: Final = 16_384  # looked at in one step

# Pages are given back from when more than this share of the file is free, and these bytes, until
# no more than that share is. A file that is filled and emptied all the time keeps its size.
VACUUM_ABOVE_SHARE: Final = 4
VACUUM_ABOVE_BYTES: Final = 16 * 1024 * 1024
VACUUM_DOWN_TO_SHARE: Final = 8
VACUUM_PAGES_MAX: Final = 512  # given back in one step

_BLOCK: Final = "json_group_array(json_array(lsn, last_lsn, topic, size))"
_TRIMMABLE: Final = f"""
SELECT {_BLOCK} FROM (
    SELECT lsn, last_lsn, topic, length(data) AS size FROM log
    WHERE lsn < ?1 AND last_lsn < ?1 ORDER BY lsn LIMIT ?2
)
"""
# All cuts in one statement, since what is left of most is nothing.
_CUTTABLE: Final = f"""
SELECT {_BLOCK} FROM (
    SELECT lsn, last_lsn, topic, length(data) AS size
    FROM json_each(?1) AS cut CROSS JOIN log
    WHERE target = 0 AND topic = (SELECT number FROM topics WHERE name = cut.value ->> 0)
    AND lsn >= cut.value ->> 1 AND lsn < cut.value ->> 2 AND last_lsn < cut.value ->> 2
    UNION ALL
    SELECT lsn, last_lsn, topic, length(data) AS size
    FROM json_each(?2) AS cut CROSS JOIN log
    WHERE target <> 0 AND target = cut.value ->> 0
    AND lsn >= cut.value ->> 1 AND lsn < cut.value ->> 2 AND last_lsn < cut.value ->> 2
    LIMIT ?3
)
"""
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

    def __init__(
        self,
        writing: Writing,
        writer: BatchWriter,
        reader: SqliteReader,
        clock_ns: Callable[[], int],
    ) -> None:
        self._writing = writing
        self._connection = writing.connection
        self._queries = writing.queries
        self._writer = writer
        self._reader = reader
        self._wal_frames = 0
        self._carried_frames = 0  # of them those that the file has
        self._checkpoint_at = CHECKPOINT_FRAMES
        self._truncated_at = 0  # frames, when that was last tried
        self._is_vacuuming = False
        self._has_shrunk = False  # and the file has still to be cut
        self._trim_step = StepSize(
            least=TRIMMED_BLOCKS_MIN,
            start=TRIMMED_BLOCKS_START,
            most=TRIMMED_BLOCKS_MAX,
            clock_ns=clock_ns,
        )
        self._census_step = StepSize(
            least=64, start=1024, most=CENSUS_BLOCKS_MAX, clock_ns=clock_ns
        )
        # SQLite takes a step, and may lose the interpreter, for each page.
        self._vacuum_step = StepSize(least=1, start=8, most=VACUUM_PAGES_MAX, clock_ns=clock_ns)
        self._connection.set_wal_hook(self._note_wal)

    def trim(self, below_lsn: int) -> bool:
        """See ``Store.trim``."""
        # A power cut may undo a trim, so it needs no fsync of its own: the next commit's serves
        # both.
        with (
            self._trim_step.step() as blocks,
            self._writing.transaction("trim", synchronous="NORMAL"),
        ):
            found = self._queries.rows(_TRIMMABLE, below_lsn, blocks + 1)
            has_more = self._trim_step.was_full = self._remove(found, blocks)
        return has_more

    def trim_topics(self, cuts: list[TopicCut]) -> bool:
        """See ``Store.trim_topics``."""
        shared: list[tuple[str, int, int]] = []
        own: list[tuple[int, int, int]] = []
        for cut in cuts:
            for low, high in cut.spans:
                assert low <= high
                if cut.target == 0:
                    shared.append((cut.topic, low, high))
                else:
                    own.append((cut.target, low, high))
        with (
            self._trim_step.step() as blocks,
            self._writing.transaction("trim", synchronous="NORMAL"),
        ):
            rows = self._queries.rows(_CUTTABLE, as_json(shared), as_json(own), blocks + 1)
            # Spans may overlap.
            found = list({row[0]: row for row in rows}.values())
            has_more = self._trim_step.was_full = self._remove(found, blocks) or len(rows) > blocks
        return has_more

    def space(self) -> Space:
        """See ``Store.space``."""
        tally = self._writer.tally
        path = self._writing.path
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
            self._wal_bytes(),
            _disk_free_bytes(path),
        )

    def maintain(self) -> bool:
        """See ``Store.maintain``."""
        self._writing.refuse_after_failure()
        if not self._writer.tally.is_complete:
            self._count_on()
            return True
        is_vacuum_wanted = self._is_vacuum_wanted()
        is_done = self._has_shrunk and not is_vacuum_wanted
        if is_done or self._wal_frames - self._carried_frames >= UPKEEP_FRAMES:
            self._checkpoint()
            self._writing.refuse_after_failure()
        elif is_vacuum_wanted:
            with self._vacuum_step.step() as pages:
                self._vacuum(pages)
        if is_vacuum_wanted:
            return True
        if self._truncated_at != self._wal_frames and self._wal_bytes() > WAL_BYTES_MAX:
            self._truncate_wal()
            self._writing.refuse_after_failure()
        return False

    def checkpoint_if_due(self) -> None:
        """Carry the write-ahead log over into the file, if no step of upkeep has done it.

        What was committed is durable before. A failure ends the store with the next commit: pages
        that could not be flushed may be lost, and another attempt would not show it.
        """
        if self._wal_frames >= self._checkpoint_at:
            self._checkpoint()

    def _count_on(self) -> None:
        """Take a step of the census."""
        tally = self._writer.tally
        with self._census_step.step() as blocks:
            last_lsn, messages, size = self._queries.numbers(
                _CENSUS, tally.position, tally.end, blocks
            )
        tally.add(messages, size)
        tally.position = last_lsn + 1 if messages > 0 else tally.end

    def _remove(self, found: list[list[int]], blocks_max: int) -> bool:
        """Remove the first of these blocks; whether that leaves some."""
        count = 0
        size = 0
        bytes_max = blocks_max * TRIMMED_BYTES_PER_BLOCK
        tally = self._writer.tally
        while count < min(len(found), blocks_max) and size < bytes_max:
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

    # --- the file

    def _is_vacuum_wanted(self) -> bool:
        """Whether so much of the file is free that pages should be given back."""
        free = self._queries.number("PRAGMA freelist_count")
        pages = self._queries.number("PRAGMA page_count")
        if self._is_vacuuming:
            self._is_vacuuming = free * VACUUM_DOWN_TO_SHARE > pages
        else:
            page_bytes = self._queries.number("PRAGMA page_size")
            is_large = free * page_bytes > VACUUM_ABOVE_BYTES
            self._is_vacuuming = is_large and free * VACUUM_ABOVE_SHARE > pages
        return self._is_vacuuming

    def _vacuum(self, pages: int) -> None:
        """Give so many pages back. The file is cut by the next complete checkpoint."""
        with self._writing.transaction("vacuum", synchronous="NORMAL"):
            self._writing.cursor.execute(f"PRAGMA incremental_vacuum({pages})").fetchall()
        self._has_shrunk = True

    # --- the write-ahead log

    def _note_wal(self, _connection: apsw.Connection, _database: str, frames: int) -> int:
        if frames < self._wal_frames:  # it begins again from the front
            self._checkpoint_at = CHECKPOINT_FRAMES
            self._carried_frames = 0
        self._wal_frames = frames
        return apsw.SQLITE_OK

    def _checkpoint(self) -> None:
        """Carry the write-ahead log over, as far as readers let it."""
        self._checkpoint_at = self._wal_frames + CHECKPOINT_FRAMES
        try:
            if self._wal_frames < RESTART_FRAMES:
                frames, carried = self._connection.wal_checkpoint(
                    mode=apsw.SQLITE_CHECKPOINT_PASSIVE
                )
                self._carried_frames = self._wal_frames
                self._has_shrunk = self._has_shrunk and carried < frames
            else:
                with self._reader.paused():
                    restart_wal(self._connection)
                self._carried_frames = self._wal_frames
                self._has_shrunk = False
        except apsw.BusyError:
            self._carried_frames = self._wal_frames  # another program is at it, or reads
        except apsw.Error as error:
            self._writing.fail("checkpoint", error)

    def _truncate_wal(self) -> None:
        """Cut the write-ahead log, of which a large commit or a long read made a large file."""
        self._truncated_at = self._wal_frames
        try:
            with self._reader.paused():
                restart_wal(self._connection, apsw.SQLITE_CHECKPOINT_TRUNCATE)
            self._carried_frames = self._wal_frames
            self._has_shrunk = False
        except apsw.BusyError:
            pass  # another program reads
        except apsw.Error as error:
            self._writing.fail("checkpoint", error)

    def _wal_bytes(self) -> int:
        path = self._writing.path
        try:
            return path.with_name(path.name + "-wal").stat().st_size
        except FileNotFoundError:
            return 0


def _disk_free_bytes(path: Path) -> int:
    """What is left on the disk for such a file; -1 if the system does not say."""
    try:
        disk = os.statvfs(path)
    except OSError:
        return -1
    return disk.f_bavail * disk.f_frsize
