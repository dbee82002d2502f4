"""Rows of the SQLite store, each with its checksum, and the statements that put them."""

from typing import Final

from holdfast.disk.checksums import Value, row_checksum
from holdfast.disk.insert import Insert
from holdfast.store.blocks import encode_message
from holdfast.store.records import (
    GroupRecord,
    LossRecord,
    SessionRecord,
    TimeMark,
)

INSERT_TOPICS: Final = Insert("topics", 3, is_new=True)
INSERT_LOG: Final = Insert("log", 6, is_new=True)
INSERT_SESSIONS: Final = Insert("sessions", 11)
INSERT_STATES: Final = Insert("states", 6)
# Those without gaps, which are nearly all.
INSERT_PLAIN_STATES: Final = Insert("states", ("session", "cursor", "in_flight", "received", "crc"))
INSERT_SUBSCRIPTIONS: Final = Insert("subscriptions", 7)
INSERT_RETAINED: Final = Insert("retained", 3)
INSERT_GROUPS: Final = Insert("shared_groups", 6)
INSERT_DELAYED: Final = Insert("delayed", 6)
INSERT_LOSSES: Final = Insert("losses", 6)
INSERT_TIME_MARKS: Final = Insert("time_marks", 3)


def session_values(records: list[SessionRecord]) -> list[Value]:
    values: list[Value] = []
    for record in records:
        will = record.will
        row = (
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
        values += row
        values.append(row_checksum(row))
    return values


def group_values(records: list[GroupRecord]) -> list[Value]:
    values: list[Value] = []
    for record in records:
        row = (record.number, record.topic_filter, record.cursor, record.returned, record.gaps)
        values += row
        values.append(row_checksum(row))
    return values


def loss_values(records: list[LossRecord]) -> list[Value]:
    values: list[Value] = []
    for record in records:
        row = (record.owner, record.messages, record.bytes, record.at_ms, record.reason)
        values += row
        values.append(row_checksum(row))
    return values


def time_mark_values(marks: list[TimeMark]) -> list[Value]:
    values: list[Value] = []
    for mark in marks:
        values += (mark.lsn, mark.at_ms, row_checksum((mark.lsn, mark.at_ms)))
    return values
