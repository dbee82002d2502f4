"""SQLite files of ours: told from others, checked before they are touched, brought forward.

``application_id`` says whose a file is and ``user_version`` is the number of its format. A file of
an older format is brought forward when it is opened, one of a newer format is refused and left as
it is.
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import apsw

from holdfast.errors import StoreCorrupt, StoreError, StoreFull, StoreTooNew

BUSY_TIMEOUT_MS: Final = 5_000  # how long to wait for another program that looks into the file


@dataclass(frozen=True, slots=True)
class FileKind:
    """A kind of file: what it is called (``a store``), its application id and newest format."""

    name: str
    application_id: int
    newest: int


_MAGIC: Final = b"SQLite format 3\x00"
_JOURNAL_MAGIC: Final = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"
_HEADER_BYTES: Final = 100
_JOURNAL_HEADER_BYTES: Final = 28
_REWRITTEN_BYTES: Final = 64 * 1024  # at a time; SQLite writes at most 128 KiB


def check_file(path: Path, kind: FileKind, vfs: str | None = None) -> int:
    """The format of a file of this kind, 0 if it is new or empty; nothing is written.

    Raises StoreTooNew for a newer format and StoreCorrupt for what is no file of ours. The answer
    counts the changes that a process left in the write-ahead log when it was killed.
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
    format_number = format_of(path, kind, application_id, user_version, schema_cookie)
    if wal_bytes == 0:
        return format_number
    return format_of(path, kind, *_numbers_with_wal(path, vfs))


def check_magic(path: Path) -> None:
    """Raise StoreCorrupt for a file that is no SQLite database."""
    if not _is_sqlite(_read_header(path)):
        raise _no_database(path)


def rewrite_wal(path: Path, vfs: str | None = None) -> None:
    """Write what a process left in the write-ahead log once more, the same bytes, and flush it.

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


def migrate(
    connection: apsw.Connection,
    kind: FileKind,
    format_number: int,
    steps: Sequence[Callable[[apsw.Connection], None]],
) -> None:
    """Bring a file from this format to the newest, whole or not at all.

    The step at index n brings it from format n to n + 1; format 0 is an empty file.
    """
    if format_number == kind.newest:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for step in steps[format_number:]:
            step(connection)
        connection.execute(f"PRAGMA application_id = {kind.application_id}")
        connection.execute(f"PRAGMA user_version = {kind.newest}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def run_script(connection: apsw.Connection, script: str) -> None:
    """Run statements."""
    for _ in connection.execute(script):
        pass


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


def format_of(
    path: Path, kind: FileKind, application_id: int, user_version: int, schema_cookie: int
) -> int:
    """The format that these numbers stand for, if it is one that can be opened.

    Raises StoreTooNew for a newer format and StoreCorrupt for what is no file of ours.
    """
    if application_id == 0 and user_version == 0 and schema_cookie == 0:
        return 0  # killed between making the file and its tables
    if application_id != kind.application_id:
        raise StoreCorrupt(
            f"{path} is not {kind.name} of Holdfast: expected application id"
            f" 0x{kind.application_id:08X}, found 0x{application_id & 0xFFFF_FFFF:08X}"
        )
    if user_version > kind.newest:
        raise StoreTooNew(
            f"{path} was written by a newer Holdfast: its format is {user_version}, this one knows "
            f"up to {kind.newest}; it was left as it is"
        )
    if user_version < 1:
        raise StoreCorrupt(f"{path} has the format {user_version}, which never existed")
    return user_version


def _numbers_with_wal(path: Path, vfs: str | None) -> tuple[int, int, int]:
    """Application id, user version and schema cookie, with the write-ahead log applied.

    In exclusive mode SQLite keeps the log's index in memory; without the checkpoint at the end,
    not a byte is written. Where another program reads the file there is an index already, which
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
