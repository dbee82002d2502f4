"""The SQLite file of a store: its tables, its format number, and how older formats are migrated."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import apsw

from holdfast.disk import file_format
from holdfast.disk.checksums import check_row, row_checksum
from holdfast.disk.file_format import FileKind, run_script
from holdfast.errors import StoreCorrupt

APPLICATION_ID: Final = 0x484F4C44  # "HOLD"; tells our files from other SQLite files
FORMAT: Final = 3
CHECKED_FORMAT: Final = 3  # from this one on, rows have checksums
# In ``meta``: 1 if rows may be there that an older format wrote, which have no checksum, else 0.
UNCHECKED_ROWS: Final = "unchecked"
# Tables whose rows all have one in any case: the migration gave it to them, or made them.
ALWAYS_CHECKED: Final = frozenset({"meta", "losses", "time_marks"})

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
    run_script(connection, _ADD_CHECKSUMS_GAPS_LOSSES)
    for row in connection.execute("SELECT name, value FROM meta").fetchall():
        connection.execute("UPDATE meta SET crc = ?2 WHERE name = ?1", (row[0], row_checksum(row)))


# The step at index n brings a store from format n to n + 1; format 0 is an empty file. Steps that
# were once released are never changed: there are stores that need them.
MIGRATIONS: Final[list[Callable[[apsw.Connection], None]]] = [
    lambda connection: run_script(connection, _CREATE),
    lambda connection: run_script(connection, _ADD_GROUPS_AND_DELAYED),
    _to_format_3,
]
assert len(MIGRATIONS) == FORMAT


def check_file(path: Path, vfs: str | None = None) -> int:
    """``file_format.check_file`` for a store."""
    return file_format.check_file(path, _kind(), vfs)


def format_of(path: Path, application_id: int, user_version: int, schema_cookie: int) -> int:
    """``file_format.format_of`` for a store."""
    return file_format.format_of(path, _kind(), application_id, user_version, schema_cookie)


def migrate(connection: apsw.Connection, format_number: int) -> None:
    """Bring a store from this format to the newest, whole or not at all."""
    file_format.migrate(connection, _kind(), format_number, MIGRATIONS)


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


def _kind() -> FileKind:
    return FileKind("a store", APPLICATION_ID, FORMAT)
