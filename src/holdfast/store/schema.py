"""The SQLite file: its tables, its format number, and the check before a file is touched.

``user_version`` is the number of the format. A store of an older format is brought forward when it
is opened, one of a newer format is refused and left as it is.
"""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final

import apsw

from holdfast.errors import StoreCorrupt, StoreError, StoreFull, StoreTooNew
from holdfast.store.checksums import check_row, row_checksum

APPLICATION_ID: Final = 0x484F4C44  # "HOLD"; tells our files from other SQLite files
FORMAT: Final = 3
CHECKED_FORMAT: Final = 3  # from this one on, rows have checksums
# In ``meta``: 1 if rows may be there that an older format wrote, which have no checksum, else 0.
UNCHECKED_ROWS: Final = "unchecked"
# Tables whose rows all have one in any case: the migration gave it to them, or made them.
ALWAYS_CHECKED: Final = frozenset({"meta", "losses", "time_marks"})

BUSY_TIMEOUT_MS: Final = 5_000  # how long to wait for another program that looks into the file

# Names (topics, client identifiers) are TEXT in STRICT tables: other types would turn 007 into 7.
# The index entries hold the rowid, that is the lsn, behind the indexed column and are sorted by it.
_CREATE: Final = """
CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO meta (name, value) VALUES ('next_lsn', 1), ('next_session', 1), ('topics_forgotten', 0);

CREATE TABLE topics (
    number INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;

-- One row per block: a run of messages with one topic and one target. Blocks do not overlap.
CREATE TABLE log (
    lsn INTEGER PRIMARY KEY, -- of the block's first message
    last_lsn INTEGER NOT NULL,
    topic INTEGER NOT NULL,
    target INTEGER NOT NULL,
    data BLOB NOT NULL
) STRICT;
CREATE INDEX log_topic ON log (topic) WHERE target = 0;
CREATE INDEX log_target ON log (target) WHERE target <> 0;
CREATE INDEX log_target_topic ON log (topic) WHERE target <> 0; -- to see that a topic is unused

CREATE TABLE sessions (
    number INTEGER PRIMARY KEY,
    client_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    expiry_s INTEGER NOT NULL,
    disconnected_at_ms INTEGER NOT NULL,
    will_topic TEXT,
    will BLOB,
    will_delay_s INTEGER NOT NULL,
    will_due_ms INTEGER NOT NULL
) STRICT;

-- Apart from sessions, because a row is written at nearly every commit and should be small.
CREATE TABLE states (
    session INTEGER PRIMARY KEY,
    cursor INTEGER NOT NULL,
    in_flight BLOB NOT NULL,
    received BLOB NOT NULL
) STRICT;

CREATE TABLE subscriptions (
    session INTEGER NOT NULL,
    topic_filter TEXT NOT NULL,
    from_lsn INTEGER NOT NULL,
    until_lsn INTEGER NOT NULL,
    options INTEGER NOT NULL,
    identifier INTEGER NOT NULL,
    PRIMARY KEY (session, topic_filter, from_lsn)
) STRICT, WITHOUT ROWID;

CREATE TABLE retained (
    topic INTEGER PRIMARY KEY,
    message BLOB NOT NULL
) STRICT;
"""

_ADD_GROUPS_AND_DELAYED: Final = """
-- Numbers count with those of sessions.
CREATE TABLE shared_groups (
    number INTEGER PRIMARY KEY,
    topic_filter TEXT NOT NULL,
    cursor INTEGER NOT NULL,
    returned BLOB NOT NULL
) STRICT;

CREATE TABLE delayed (
    number INTEGER PRIMARY KEY,
    due_ms INTEGER NOT NULL,
    seconds INTEGER NOT NULL,
    topic INTEGER NOT NULL,
    message BLOB NOT NULL
) STRICT;
CREATE INDEX delayed_topic ON delayed (topic); -- to see that a topic is unused
"""

# A row's checksum, as ``checksums`` defines it; 0 in a row that an older format wrote.
_CHECKED: Final = (
    "meta",
    "topics",
    "log",
    "sessions",
    "states",
    "subscriptions",
    "retained",
    "shared_groups",
    "delayed",
)
_ADD_CHECKSUMS_GAPS_LOSSES: Final = "\n".join(
    [
        "ALTER TABLE states ADD COLUMN gaps BLOB NOT NULL DEFAULT x'';",
        "ALTER TABLE shared_groups ADD COLUMN gaps BLOB NOT NULL DEFAULT x'';",
        *(f"ALTER TABLE {table} ADD COLUMN crc INTEGER NOT NULL DEFAULT 0;" for table in _CHECKED),
        """
-- What a session or group has lost.
CREATE TABLE losses (
    owner INTEGER PRIMARY KEY,
    messages INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    reason INTEGER NOT NULL,
    crc INTEGER NOT NULL
) STRICT;

-- Entries of the log from this lsn on came at this time or later.
CREATE TABLE time_marks (
    lsn INTEGER PRIMARY KEY,
    at_ms INTEGER NOT NULL,
    crc INTEGER NOT NULL
) STRICT;
""",
    ]
)


def _to_format_3(connection: apsw.Connection) -> None:
    tables = [table for table in _CHECKED if table not in ALWAYS_CHECKED]
    has_rows = " OR ".join(f"EXISTS (SELECT 1 FROM {table})" for table in tables)
    connection.execute(f"INSERT INTO meta (name, value) VALUES (?1, {has_rows})", (UNCHECKED_ROWS,))
    _run(connection, _ADD_CHECKSUMS_GAPS_LOSSES)
    for row in connection.execute("SELECT name, value FROM meta").fetchall():
        connection.execute("UPDATE meta SET crc = ?2 WHERE name = ?1", (row[0], row_checksum(row)))


# The step at index n brings a store from format n to n + 1; format 0 is an empty file. Steps that
# were once released are never changed: there are stores that need them.
MIGRATIONS: Final[list[Callable[[apsw.Connection], None]]] = [
    lambda connection: _run(connection, _CREATE),
    lambda connection: _run(connection, _ADD_GROUPS_AND_DELAYED),
    _to_format_3,
]
assert len(MIGRATIONS) == FORMAT

_MAGIC: Final = b"SQLite format 3\x00"
_JOURNAL_MAGIC: Final = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"
_HEADER_BYTES: Final = 100
_JOURNAL_HEADER_BYTES: Final = 28
_REWRITTEN_BYTES: Final = 64 * 1024  # at a time; SQLite writes at most 128 KiB


def check_file(path: Path, vfs: str | None = None) -> int:
    """The format of a store's file, 0 if it is new or empty; nothing is written.

    Raises StoreTooNew for a newer format and StoreCorrupt for what is no store of ours. The answer
    counts the changes that a broker left in the write-ahead log when it was killed.
    """
    wal = path.with_name(path.name + "-wal")
    wal_bytes = wal.stat().st_size if wal.exists() else 0
    if not path.exists() or path.stat().st_size == 0:
        if wal_bytes > 0:
            # SQLite would delete the log of an empty file, and with it what it holds.
            raise StoreCorrupt(f"{path} is missing or empty, but {wal.name} beside it is not")
        return 0
    header = _read_header(path)
    if not _is_sqlite(header):
        if not any(header) and wal_bytes == 0 and _was_being_made(path):
            return 0
        raise _no_database(path)
    (schema_cookie,) = struct.unpack_from(">I", header, 40)
    (user_version,) = struct.unpack_from(">i", header, 60)
    (application_id,) = struct.unpack_from(">i", header, 68)
    format_number = format_of(path, application_id, user_version, schema_cookie)
    if wal_bytes == 0:
        return format_number
    return format_of(path, *_numbers_with_wal(path, vfs))


def check_magic(path: Path) -> None:
    """Raise StoreCorrupt for a file that is no SQLite database."""
    if not _is_sqlite(_read_header(path)):
        raise _no_database(path)


def rewrite_wal(path: Path, vfs: str | None = None) -> None:
    """Write what a broker left in the write-ahead log once more, the same bytes, and flush it.

    After a failed fsync a part of the log may be in the system's cache only, and no later fsync
    writes it. To carry such a log over into the file is not enough: until the log begins again, a
    power cut would leave a newer file beside an older log that has a hole, and SQLite would mix
    the pages of both.
    """
    wal = path.with_name(path.name + "-wal")
    if not wal.exists() or wal.stat().st_size == 0:
        return
    try:
        # Through SQLite's file layer, so that it is flushed as SQLite flushes.
        flags = [apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_WAL, 0]
        file = apsw.VFSFile(vfs or "", str(wal), flags)
        try:
            size = file.xFileSize()
            for start in range(0, size, _REWRITTEN_BYTES):
                file.xWrite(file.xRead(min(_REWRITTEN_BYTES, size - start), start), start)
            file.xSync(apsw.SQLITE_SYNC_FULL)
        finally:
            file.xClose()
    except apsw.Error as error:
        raise store_error(path, "flushing the write-ahead log", error) from error


def migrate(connection: apsw.Connection, format_number: int) -> None:
    """Bring a store from this format to the newest, whole or not at all."""
    if format_number == FORMAT:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for step in MIGRATIONS[format_number:]:
            step(connection)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {FORMAT}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def may_hold_unchecked(connection: apsw.Connection) -> bool:
    """Whether a store of the present format may hold rows without a checksum.

    Raises StoreCorrupt if it does not say.
    """
    rows = connection.execute(
        "SELECT value, crc FROM meta WHERE name = ?1", (UNCHECKED_ROWS,)
    ).fetchall()
    if not rows:
        raise StoreCorrupt(f"table meta: expected a row {UNCHECKED_ROWS}, there is none")
    value, checksum = rows[0]
    check_row("meta", UNCHECKED_ROWS, (UNCHECKED_ROWS, value), checksum)
    return value != 0


def store_error(path: Path, doing: str, error: apsw.Error) -> StoreError:
    """What an operator is told of an error of SQLite's."""
    kind = StoreError
    match error:
        case apsw.CorruptError() | apsw.NotADBError():
            kind, reason = StoreCorrupt, "the file is damaged"
        case apsw.FullError():
            kind, reason = StoreFull, "the disk is full"
        case apsw.IOError():
            reason = "the disk reports an I/O error"
        case apsw.ReadOnlyError() | apsw.PermissionsError():
            reason = "the file or its folder is read-only"
        case apsw.BusyError() | apsw.LockedError():
            reason = "another program has the file locked"
        case apsw.CantOpenError():
            reason = "the file or its folder cannot be opened"
        case _:
            reason = type(error).__name__
    return kind(f"{path}: {doing} failed: {reason} ({error})")


def _read_header(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEADER_BYTES)


def _is_sqlite(header: bytes) -> bool:
    return len(header) == _HEADER_BYTES and header.startswith(_MAGIC)


def _no_database(path: Path) -> StoreCorrupt:
    return StoreCorrupt(f"{path} is not a SQLite database")


def _was_being_made(path: Path) -> bool:
    """Whether a power cut fell between the first write to the file and its first flush.

    SQLite writes the very first page under the protection of a rollback journal, flushed before,
    which says that the file was empty. It empties the file again when it finds that.
    """
    journal = path.with_name(path.name + "-journal")
    if not journal.exists():
        return False
    with journal.open("rb") as file:
        header = file.read(_JOURNAL_HEADER_BYTES)
    # Behind the magic: how many pages it holds, a random number, and how many the file had.
    return header.startswith(_JOURNAL_MAGIC) and header[16:20] == bytes(4)


def format_of(path: Path, application_id: int, user_version: int, schema_cookie: int) -> int:
    """The format that these numbers stand for, if it is one that can be opened.

    Raises StoreTooNew for a newer format and StoreCorrupt for what is no store of ours.
    """
    if application_id == 0 and user_version == 0 and schema_cookie == 0:
        return 0  # killed between making the file and its tables
    if application_id != APPLICATION_ID:
        raise StoreCorrupt(
            f"{path} is not a store of Holdfast: expected application id 0x{APPLICATION_ID:08X}, "
            f"found 0x{application_id & 0xFFFF_FFFF:08X}"
        )
    if user_version > FORMAT:
        raise StoreTooNew(
            f"{path} was written by a newer Holdfast: its format is {user_version}, this one knows "
            f"up to {FORMAT}; it was left as it is"
        )
    if user_version < 1:
        raise StoreCorrupt(f"{path} has the format {user_version}, which never existed")
    return user_version


def _numbers_with_wal(path: Path, vfs: str | None) -> tuple[int, int, int]:
    """Application id, user version and schema cookie, with the write-ahead log applied.

    In exclusive mode SQLite keeps the log's index in memory; without the checkpoint at the end,
    not a byte is written. Where another program reads the store there is an index already, which
    serves both.
    """
    try:
        try:
            return _read_numbers(path, vfs, "exclusive")
        except apsw.BusyError:
            return _read_numbers(path, vfs, "normal")
    except apsw.Error as error:
        raise store_error(path, "looking at the format", error) from error


def _read_numbers(path: Path, vfs: str | None, locking_mode: str) -> tuple[int, int, int]:
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE, vfs=vfs)
    try:
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        # A reader may stay for long; a writer that recovers the log does not.
        connection.set_busy_timeout(BUSY_TIMEOUT_MS if locking_mode == "normal" else 0)
        connection.pragma("locking_mode", locking_mode)
        return (
            _number(connection, "application_id"),
            _number(connection, "user_version"),
            _number(connection, "schema_version"),
        )
    finally:
        connection.close()


def _number(connection: apsw.Connection, name: str) -> int:
    value = connection.pragma(name)
    assert isinstance(value, int)
    return value


def _run(connection: apsw.Connection, script: str) -> None:
    for _ in connection.execute(script):
        pass
