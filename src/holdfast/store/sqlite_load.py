"""Reading a snapshot from SQLite: every row is checked."""

import gc
from itertools import islice
from typing import Final

import apsw

from holdfast.disk.checksums import check_row
from holdfast.errors import StoreCorrupt
from holdfast.message import Message
from holdfast.store.blocks import decode_message
from holdfast.store.checked_rows import check_topics, state_records, subscription_records
from holdfast.store.records import (
    DelayedRecord,
    GroupRecord,
    LossRecord,
    RetainedRecord,
    SessionRecord,
    Snapshot,
    TimeMark,
)
from holdfast.store.sqlite_damage import find_damage

ROWS_PER_STEP: Final = 4096  # in memory beside their records

_TABLES: Final = (
    "topics",
    "sessions",
    "states",
    "subscriptions",
    "retained",
    "shared_groups",
    "delayed",
    "losses",
    "time_marks",
)


def load_snapshot(cursor: apsw.Cursor, snapshot: Snapshot, may_be_unchecked: bool) -> None:
    """Fill in all that is committed, but for the numbers; raises StoreCorrupt.

    ``may_be_unchecked``: rows of an older format may be there, which have no checksum.
    """
    # All that is made here is kept. To look through it for garbage again and again, since there is
    # so much new, would take as long as all the rest.
    is_collecting = gc.isenabled()
    gc.disable()
    try:
        _load_many(cursor, snapshot, may_be_unchecked)
        _load_few(cursor, snapshot, may_be_unchecked)
    except (TypeError, ValueError) as error:
        # A row has other types than its table, or a name that is none.
        damage = find_damage(cursor, _TABLES, may_be_unchecked)
        if damage is None:
            raise
        raise damage from error
    finally:
        if is_collecting:
            gc.enable()


def _load_many(cursor: apsw.Cursor, snapshot: Snapshot, may_be_unchecked: bool) -> None:
    # A damaged topic would match no filter, without a word: its messages would be passed over.
    topics = cursor.execute("SELECT * FROM topics ORDER BY number")
    while rows := list(islice(topics, ROWS_PER_STEP)):
        check_topics(rows, may_be_unchecked)
    states = cursor.execute("SELECT * FROM states ORDER BY session")
    while rows := list(islice(states, ROWS_PER_STEP)):
        snapshot.states += state_records(rows, may_be_unchecked)
    subscriptions = cursor.execute(
        "SELECT * FROM subscriptions ORDER BY session, topic_filter, from_lsn"
    )
    while rows := list(islice(subscriptions, ROWS_PER_STEP)):
        snapshot.subscriptions += subscription_records(rows, may_be_unchecked)


def _load_few(cursor: apsw.Cursor, snapshot: Snapshot, may_be_unchecked: bool) -> None:
    execute = cursor.execute
    for *row, crc in execute("SELECT * FROM sessions ORDER BY number"):
        check_row("sessions", row[0], row, crc, may_be_unchecked)
        number, client_id, version, epoch, expiry_s, since, topic, will, *times = row
        message = None if will is None else _message("sessions", number, topic, will)
        snapshot.sessions.append(
            SessionRecord(number, client_id, version, epoch, expiry_s, since, message, *times)
        )
    for topic, number, message, crc in execute(
        "SELECT name, topic, message, retained.crc"
        " FROM retained LEFT JOIN topics ON number = topic ORDER BY name"
    ):
        check_row("retained", number, (number, message), crc, may_be_unchecked)
        if topic is None:
            raise StoreCorrupt(f"table retained, row {number}: expected a topic of this number")
        snapshot.retained.append(
            RetainedRecord(topic, _message("retained", number, topic, message))
        )
    for *row, crc in execute("SELECT * FROM shared_groups ORDER BY number"):
        check_row("shared_groups", row[0], row, crc, may_be_unchecked)
        snapshot.groups.append(GroupRecord(*row))
    for topic, *row, crc in execute(
        "SELECT name, delayed.*"
        " FROM delayed LEFT JOIN topics ON topics.number = topic ORDER BY delayed.number"
    ):
        check_row("delayed", row[0], row, crc, may_be_unchecked)
        number, due_ms, seconds, topic_number, message = row
        if topic is None:
            raise StoreCorrupt(f"table delayed, row {number}: expected the topic {topic_number}")
        delayed = _message("delayed", number, topic, message)
        snapshot.delayed.append(DelayedRecord(number, due_ms, seconds, delayed))
    for *row, crc in execute("SELECT * FROM losses ORDER BY owner"):
        check_row("losses", row[0], row, crc)
        snapshot.losses.append(LossRecord(*row))
    for lsn, at_ms, crc in execute("SELECT * FROM time_marks ORDER BY lsn"):
        check_row("time_marks", lsn, (lsn, at_ms), crc)
        snapshot.time_marks.append(TimeMark(lsn, at_ms))


def _message(table: str, key: int, topic: str, data: bytes) -> Message:
    try:
        return decode_message(topic, data)
    except StoreCorrupt as error:
        raise StoreCorrupt(f"table {table}, row {key}: {error}") from error
