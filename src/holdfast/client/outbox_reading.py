"""Reading an outbox file: all that is in it, checked, by its client or by a tool."""

from pathlib import Path
from typing import Final

import apsw

from holdfast.client.outbox_rows import (
    SessionRow,
    loaded_incoming,
    loaded_outgoing,
    loaded_released,
    loaded_session,
    merged,
)
from holdfast.client.outbox_schema import KIND
from holdfast.client.records import LoadedOutbox
from holdfast.disk.connection import open_reading
from holdfast.disk.file_format import check_magic, format_of, store_error
from holdfast.errors import StoreCorrupt, StoreError

# What a row whose values have other types leads to.
_WRONG_TYPES: Final = (TypeError, AttributeError, UnicodeError)

_SESSION: Final = """
SELECT number, client_id, has_session, next_seq, next_delivery_id, sent_below, crc FROM session
"""
_OUTGOING: Final = """
SELECT seq, queued_at_ms, expires_at_ms, options, topic, properties, payload, crc
FROM outgoing ORDER BY seq
"""
_RELEASED: Final = "SELECT seq, queued_at_ms, crc FROM released ORDER BY seq"
_INCOMING: Final = "SELECT packet_id, delivery_id, is_handed, crc FROM incoming ORDER BY packet_id"


def look_into(path: Path) -> LoadedOutbox:
    """All that an outbox file holds at this moment; a client may have it open.

    Raises StoreCorrupt for damage, StoreTooNew for a newer format, and StoreError if there is no
    such file or it cannot be read.
    """
    doing = "reading the outbox"
    try:
        if not path.is_file() or path.stat().st_size == 0:
            raise StoreError(f"{path}: expected the file of an outbox")
        check_magic(path)
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        connection = _connect(path)
        try:
            connection.execute("BEGIN")
            numbers = [
                connection.pragma(name)
                for name in ("application_id", "user_version", "schema_version")
            ]
            application_id, user_version, schema_cookie = (int(str(one)) for one in numbers)
            format_number = format_of(path, KIND, application_id, user_version, schema_cookie)
            if format_number == 0:
                return LoadedOutbox()  # its client was killed before it had made the tables
            return read_outbox(connection.cursor())
        finally:
            connection.close()
    except apsw.Error as error:
        raise outbox_error(path, doing, error) from error
    except StoreCorrupt as error:
        if str(error).startswith(str(path)):
            raise
        raise damaged_outbox(path, f"{doing} failed: {error}") from error


def read_outbox(cursor: apsw.Cursor) -> LoadedOutbox:
    """All that an outbox of the present format holds.

    Raises StoreCorrupt if any of it is not as it was written.
    """
    # Rows that a damaged page hides are missed by this alone.
    if (found := cursor.execute("PRAGMA quick_check(1)").fetchall()) != [("ok",)]:
        raise StoreCorrupt(" ".join(str(found[0][0]).split()))
    session = read_session(cursor)
    loaded = LoadedOutbox()
    loaded.client_id = session.client_id
    loaded.has_session = session.has_session
    loaded.next_seq = session.next_seq
    loaded.next_delivery_id = session.next_delivery_id
    loaded.sent_below = session.sent_below
    try:
        outgoing = [loaded_outgoing(row) for row in cursor.execute(_OUTGOING)]
        released = [loaded_released(row) for row in cursor.execute(_RELEASED)]
        loaded.outgoing = merged(outgoing, released)
        loaded.incoming = [loaded_incoming(row) for row in cursor.execute(_INCOMING)]
    except _WRONG_TYPES as error:
        raise StoreCorrupt(f"a row has a value of another type: {error}") from error
    last_seq = max((entry.seq for entry in loaded.outgoing[-1:]), default=0)
    if last_seq >= loaded.next_seq:
        raise StoreCorrupt(f"message {last_seq} is there, the next one was to be {loaded.next_seq}")
    last_delivery = max((entry.delivery_id for entry in loaded.incoming), default=0)
    if last_delivery >= loaded.next_delivery_id:
        raise StoreCorrupt(
            f"delivery {last_delivery} is there, the next was to be {loaded.next_delivery_id}"
        )
    return loaded


def read_session(cursor: apsw.Cursor) -> SessionRow:
    """What there is once. Raises StoreCorrupt if it is not as it was written."""
    try:
        sessions = [loaded_session(row) for row in cursor.execute(_SESSION)]
    except _WRONG_TYPES as error:
        raise StoreCorrupt(f"table session: a value of another type: {error}") from error
    if len(sessions) != 1:
        raise StoreCorrupt(f"table session: expected one row, there are {len(sessions)}")
    return sessions[0]


def outbox_error(path: Path, doing: str, error: apsw.Error) -> StoreError:
    """What a user is told of an error of SQLite's."""
    failure = store_error(path, doing, error)
    return damaged_outbox(None, str(failure)) if isinstance(failure, StoreCorrupt) else failure


def damaged_outbox(path: Path | None, text: str) -> StoreCorrupt:
    """The error for damage, which says what to do; without a path the text begins with it."""
    named = text if path is None else f"{path}: {text}"
    return StoreCorrupt(
        f"{named}; `holdfast outbox repair` keeps what can be read of it and says what is lost"
    )


def _connect(path: Path) -> apsw.Connection:
    try:
        return open_reading(path, is_immutable=False)
    except apsw.CantOpenError:
        if path.with_name(f"{path.name}-wal").exists():
            raise
        # A folder where nothing can be written, so that nobody does.
        return open_reading(path, is_immutable=True)
