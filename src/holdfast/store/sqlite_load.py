"""Reading a snapshot from SQLite: every row is checked."""

import apsw

from holdfast.errors import StoreCorrupt
from holdfast.store.blocks import decode_message
from holdfast.store.records import (
    DelayedRecord,
    GroupRecord,
    LossRecord,
    RetainedRecord,
    SessionRecord,
    Snapshot,
    StateRecord,
    SubscriptionRecord,
    TimeMark,
)
from holdfast.store.sqlite_rows import check_row


def load_snapshot(cursor: apsw.Cursor, snapshot: Snapshot) -> None:
    """Fill in all that is committed, but for the numbers; raises StoreCorrupt."""
    execute = cursor.execute
    for *row, crc in execute("SELECT * FROM sessions ORDER BY number"):
        check_row("sessions", row[0], row, crc)
        number, client_id, version, epoch, expiry_s, since, topic, will, *times = row
        message = None if will is None else decode_message(topic, will)
        snapshot.sessions.append(
            SessionRecord(number, client_id, version, epoch, expiry_s, since, message, *times)
        )
    for *row, crc in execute("SELECT * FROM states ORDER BY session"):
        check_row("states", row[0], row, crc)
        snapshot.states.append(StateRecord(*row))
    for *row, crc in execute(
        "SELECT * FROM subscriptions ORDER BY session, topic_filter, from_lsn"
    ):
        check_row("subscriptions", row[:3], row, crc)
        snapshot.subscriptions.append(SubscriptionRecord(*row))
    for topic, number, message, crc, topic_crc in execute(
        "SELECT name, topic, message, retained.crc, topics.crc"
        " FROM retained LEFT JOIN topics ON number = topic ORDER BY name"
    ):
        check_row("retained", number, (number, message), crc)
        if topic is None:
            raise StoreCorrupt(f"table retained, row {number}: expected a topic of this number")
        check_row("topics", number, (number, topic), topic_crc)
        snapshot.retained.append(RetainedRecord(topic, decode_message(topic, message)))
    for *row, crc in execute("SELECT * FROM shared_groups ORDER BY number"):
        check_row("shared_groups", row[0], row, crc)
        snapshot.groups.append(GroupRecord(*row))
    for topic, topic_crc, *row, crc in execute(
        "SELECT name, topics.crc, delayed.*"
        " FROM delayed LEFT JOIN topics ON topics.number = topic ORDER BY delayed.number"
    ):
        check_row("delayed", row[0], row, crc)
        number, due_ms, seconds, topic_number, message = row
        if topic is None:
            raise StoreCorrupt(f"table delayed, row {number}: expected the topic {topic_number}")
        check_row("topics", topic_number, (topic_number, topic), topic_crc)
        delayed = decode_message(topic, message)
        snapshot.delayed.append(DelayedRecord(number, due_ms, seconds, delayed))
    for *row, crc in execute("SELECT * FROM losses ORDER BY owner"):
        check_row("losses", row[0], row, crc)
        snapshot.losses.append(LossRecord(*row))
    for lsn, at_ms, crc in execute("SELECT * FROM time_marks ORDER BY lsn"):
        check_row("time_marks", lsn, (lsn, at_ms), crc)
        snapshot.time_marks.append(TimeMark(lsn, at_ms))
