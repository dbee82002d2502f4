"""Rows of the SQLite store, each with its checksum, and the statements that put them."""

from collections.abc import Sequence
from typing import Final, final

import apsw

from holdfast.store.blocks import encode_message
from holdfast.store.checksums import Value, row_checksum
from holdfast.store.records import (
    GroupRecord,
    LossRecord,
    SessionRecord,
    TimeMark,
)

# Rows go into a table by statements of so many rows: a step per statement, and not per row. Few
# different statements, so that all stay prepared.
ROWS_PER_STATEMENT: Final = (64, 16, 4, 1)


@final
class Insert:
    """The statements that put rows of one table, for each of ROWS_PER_STATEMENT.

    ``columns`` counts those of the table, or names some, of which the last is the checksum. With
    ``is_new`` it is an error if a row is there, which can only be damage.
    """

    def __init__(self, table: str, columns: int | tuple[str, ...], *, is_new: bool = False) -> None:
        self.columns: Final = columns if isinstance(columns, int) else len(columns)
        names = "" if isinstance(columns, int) else f" ({', '.join(columns)})"
        verb = "INSERT" if is_new else "INSERT OR REPLACE"
        row = f"({', '.join('?' * self.columns)})"
        self._statements = [
            (count, f"{verb} INTO {table}{names} VALUES {', '.join([row] * count)}")
            for count in ROWS_PER_STATEMENT
        ]

    def run(self, cursor: apsw.Cursor, values: Sequence[Value]) -> None:
        """Put the rows whose values these are, one after the other; later ones replace earlier."""
        start = 0
        for count, statement in self._statements:
            size = count * self.columns
            while len(values) - start >= size:
                cursor.execute(statement, values[start : start + size])
                start += size
        assert start == len(values)


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
