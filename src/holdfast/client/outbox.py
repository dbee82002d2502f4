"""The outbox file: what a client must not forget, in one SQLite file that one client has at a time.

``docs/internals/outbox.md`` says what is durable when, with figures.
"""

import os
from pathlib import Path
from typing import Final, final

import apsw

from holdfast.client.outbox_reading import (
    damaged_outbox,
    outbox_error,
    read_outbox,
    read_session,
)
from holdfast.client.outbox_rows import Changes, SessionRow
from holdfast.client.outbox_schema import (
    HOLD_INCOMING,
    KIND,
    MIGRATIONS,
    RELEASE_OUTGOING,
    SET_SESSION,
    STORE_OUTGOING,
)
from holdfast.client.records import LoadedOutbox, Record
from holdfast.disk.connection import Writing, restart_wal
from holdfast.disk.file_format import check_file, migrate, rewrite_wal
from holdfast.disk.folder import make_file
from holdfast.disk.lock import FileLock
from holdfast.disk.queries import as_json
from holdfast.errors import StoreCorrupt, StoreError

__all__ = ["OutboxFile", "lock_of"]

# Frames in the write-ahead log after which a commit carries it over into the file, and what the
# log keeps on the disk once a large commit has made it large.
CHECKPOINT_FRAMES: Final = 1000
WAL_BYTES_MAX: Final = 4 * 1024 * 1024

# Pages are given back from when more than this share of the file is free, and these bytes, until
# no more than that share is. A file that is filled and emptied all the time keeps its size.
VACUUM_ABOVE_SHARE: Final = 4
VACUUM_ABOVE_BYTES: Final = 4 * 1024 * 1024
VACUUM_DOWN_TO_SHARE: Final = 8
LOOK_AFTER: Final = 256  # messages removed
VACUUM_PAGES: Final = 256  # given back in one step, with a commit or without

_LISTED: Final = "IN (SELECT value FROM json_each(?1))"


@final
class OutboxFile:
    """An outbox file, made if it is missing, and held until ``close`` or the end of the process.

    One thread at a time may use it.
    """

    def __init__(self, path: str | os.PathLike[str], *, vfs: str | None = None) -> None:
        """Lock, open and check a file; its folder must exist.

        Raises StoreLocked if another client has it, StoreTooNew for a newer format and
        StoreCorrupt for damage and for what is no outbox, all left untouched, and StoreError for
        all else. By ``vfs`` a test puts its own file layer in.
        """
        # One lock, by whatever name the file is called.
        self.path: Final = Path(os.path.realpath(path))
        self._vfs = vfs
        if not self.path.parent.is_dir():
            raise StoreError(f"{self.path}: the folder {self.path.parent} does not exist")
        if self.path.is_dir():
            raise StoreError(f"{self.path} is a folder: expected the name of a file")
        self._lock = lock_of(self.path)
        self._writing: Writing | None = None
        self._session = SessionRow("", False, 1, 1, 1)
        self._frames = 0  # in the write-ahead log
        self._checkpoint_at = 0
        self._gone = 0  # messages removed since the last look for free space
        self._is_vacuuming = False
        try:
            self._open()
            self._identity = self._found()
        except BaseException:
            self.close()
            raise

    @property
    def has_failed(self) -> bool:
        """Whether a commit has failed, after which only ``reopen`` helps."""
        return self._writing is None or self._writing.has_failed

    @property
    def wants_upkeep(self) -> bool:
        """Whether ``maintain`` has much free space to give back."""
        return self._is_vacuuming

    def load(self) -> LoadedOutbox:
        """All that was committed.

        Raises StoreCorrupt if any of it is not as it was written, and StoreError if it cannot be
        read.
        """
        cursor = self._opened().cursor
        doing = "loading the outbox"
        try:
            cursor.execute("BEGIN")
            try:
                return read_outbox(cursor)
            finally:
                cursor.execute("COMMIT")
        except apsw.Error as error:
            raise outbox_error(self.path, doing, error) from error
        except StoreCorrupt as error:
            raise damaged_outbox(self.path, f"{doing} failed: {error}") from error

    def commit(self, records: list[Record]) -> None:
        """Make records durable, all or none, in their order.

        Raises StoreFull if there is no room, StoreCorrupt for damage, or StoreError. After that
        they are there, all or none, and only ``reopen`` tells; until then nothing is committed.
        """
        writing = self._opened()
        writing.refuse_after_failure()
        if not records:
            return
        changes = Changes(self._session)
        changes.take(records)
        session = changes.session()
        try:
            with writing.transaction("commit"):
                self._write(writing.cursor, changes, session)
        except StoreCorrupt as error:
            raise damaged_outbox(None, str(error)) from error
        self._session = session
        self._gone += len(changes.released)
        self._upkeep()

    def maintain(self) -> bool:
        """Take a small step of giving free space back; whether there is more to do.

        For idle times: commits take such steps as well. Raises StoreError.
        """
        writing = self._opened()
        writing.refuse_after_failure()
        if not self._is_vacuum_wanted(writing):
            if self._frames > 0:
                self._checkpoint(writing)  # the file is cut with it
            writing.refuse_after_failure()
            return False
        self._vacuum(writing)
        return True

    def reopen(self) -> None:
        """Open the file anew after a failure, and prove by a commit that it works.

        ``load`` shows then what was committed. The lock is held all the time. Raises StoreError
        as at first; another attempt may be made.
        """
        if self._writing is not None:
            self._writing.close()
            self._writing = None
        # Where a disk has gone from its mount point there may be nothing, or an old file: to go on
        # with that would forget all that was promised.
        if self._found() != self._identity:
            raise StoreError(f"{self.path} is another file than the one that was in use")
        self._open()
        writing = self._opened()
        with writing.transaction("a commit to try it out"):
            # SQLite writes no page that stays the same.
            writing.cursor.execute("DELETE FROM session")
            SET_SESSION.run(writing.cursor, self._session.values())

    def close(self) -> None:
        """Close the file and let another client have it; a second call does nothing."""
        if self._writing is not None:
            self._writing.close()
            self._writing = None
        self._lock.close()

    # --- opening

    def _open(self) -> None:
        path = self.path
        doing = "opening the outbox"
        try:
            format_number = check_file(path, KIND, self._vfs)
        except OSError as error:
            raise StoreError(f"{path}: cannot read the outbox: {error.strerror}") from error
        make_file(path)
        rewrite_wal(path, self._vfs)
        try:
            writing = Writing(path, self._vfs)
            try:
                self._prepare(writing, format_number)
            except BaseException:
                writing.abandon()
                raise
        except apsw.Error as error:
            raise outbox_error(path, doing, error) from error
        except StoreCorrupt as error:
            raise damaged_outbox(path, f"{doing} failed: {error}") from error
        self._writing = writing

    def _prepare(self, writing: Writing, format_number: int) -> None:
        """Make or migrate the tables, and read what there is once."""
        connection = writing.connection
        self._frames = 0
        self._checkpoint_at = CHECKPOINT_FRAMES
        connection.set_wal_hook(self._note_frames)
        connection.pragma("journal_size_limit", WAL_BYTES_MAX)
        migrate(connection, KIND, format_number, MIGRATIONS)
        # What a killed client left in the write-ahead log, which ``rewrite_wal`` has flushed, goes
        # into the file, so that the log begins again from the front.
        try:
            restart_wal(connection)
        except apsw.BusyError:
            pass  # another program reads; it is carried over all the same
        self._session = read_session(connection.cursor())
        self._is_vacuum_wanted(writing)

    def _found(self) -> tuple[int, int]:
        try:
            status = os.stat(self.path)
        except OSError as error:
            raise StoreError(f"{self.path}: cannot find the outbox: {error.strerror}") from error
        return status.st_dev, status.st_ino

    def _opened(self) -> Writing:
        if self._writing is None:
            raise StoreError(f"{self.path} is not open")
        return self._writing

    # --- reading and writing

    def _write(self, cursor: apsw.Cursor, changes: Changes, session: SessionRow) -> None:
        if changes.is_cleared:
            cursor.execute("DELETE FROM incoming")
        if changes.freed:
            cursor.execute(
                f"DELETE FROM incoming WHERE packet_id {_LISTED}", (as_json(list(changes.freed)),)
            )
        if changes.released:
            cursor.execute(f"DELETE FROM outgoing WHERE seq {_LISTED}", (as_json(changes.gone()),))
            removed = changes.removed()
            if removed:
                cursor.execute(f"DELETE FROM released WHERE seq {_LISTED}", (as_json(removed),))
            RELEASE_OUTGOING.run(cursor, changes.released_values())
        STORE_OUTGOING.run(cursor, changes.outgoing_values())
        HOLD_INCOMING.run(cursor, changes.incoming_values())
        values = session.values()
        if values != self._session.values():
            SET_SESSION.run(cursor, values)

    # --- upkeep

    def _upkeep(self) -> None:
        """After a commit. What fails here ends the file with the next one."""
        writing = self._opened()
        try:
            if self._frames >= self._checkpoint_at:
                self._checkpoint(writing)
            if self._gone >= LOOK_AFTER and not writing.has_failed:
                self._gone = 0
                self._is_vacuum_wanted(writing)
            if self._is_vacuuming and not writing.has_failed:
                self._vacuum(writing)
                self._is_vacuum_wanted(writing)
        except StoreError:
            assert writing.has_failed

    def _note_frames(self, _connection: apsw.Connection, _database: str, frames: int) -> int:
        if frames < self._frames:  # the log begins again from the front
            self._checkpoint_at = CHECKPOINT_FRAMES
        self._frames = frames
        return apsw.SQLITE_OK

    def _checkpoint(self, writing: Writing) -> None:
        """Carry the write-ahead log over into the file, as far as a reader lets it.

        What was committed is durable before. A failure ends the file with the next commit: pages
        that could not be flushed may be lost, and another attempt would not show it.
        """
        self._checkpoint_at = self._frames + CHECKPOINT_FRAMES
        try:
            restart_wal(writing.connection)
            self._frames = 0
            self._checkpoint_at = CHECKPOINT_FRAMES
        except apsw.BusyError:
            pass  # another program looks into the file
        except apsw.Error as error:
            writing.fail("checkpoint", error)

    def _is_vacuum_wanted(self, writing: Writing) -> bool:
        """Whether so much of the file is free that pages should be given back."""
        doing = "looking for free space"
        try:
            free = writing.queries.number("PRAGMA freelist_count")
            pages = writing.queries.number("PRAGMA page_count")
            page_bytes = writing.queries.number("PRAGMA page_size")
        except apsw.Error as error:
            raise writing.fail(doing, error) from error
        if self._is_vacuuming:
            self._is_vacuuming = free * VACUUM_DOWN_TO_SHARE > pages
        else:
            is_large = free * page_bytes > VACUUM_ABOVE_BYTES
            self._is_vacuuming = is_large and free * VACUUM_ABOVE_SHARE > pages
        return self._is_vacuuming

    def _vacuum(self, writing: Writing) -> None:
        """Give pages back. The file is cut by the next checkpoint; a power cut may undo it."""
        with writing.transaction("vacuum", synchronous="NORMAL"):
            writing.cursor.execute(f"PRAGMA incremental_vacuum({VACUUM_PAGES})").fetchall()


def lock_of(path: Path) -> FileLock:
    """Take the lock of an outbox file, whose real path this is. Raises StoreLocked."""
    return FileLock(path.with_name(f"{path.name}-lock"), locked=path, others="another client")
