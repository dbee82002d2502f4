"""The rows of the tables that are written most, or read by the million, with their checksums."""

from mypy_extensions import i64

from holdfast.disk.checksums import UNCHECKED, add_bytes, add_number, damaged, known
from holdfast.store.records import StateRecord, SubscriptionRecord

StateRow = tuple[int, int, bytes, bytes, bytes, int]
SubscriptionRow = tuple[int, str, int, int, int, int, int]
TopicRow = tuple[int, str, int]


def state_values(records: list[StateRecord], has_gaps: bool) -> list[int | bytes]:
    """The values of a row for each record, one after the other; gaps are left out if none has."""
    values: list[int | bytes] = []
    for record in records:
        values.append(record.session)
        values.append(record.cursor)
        values.append(record.in_flight)
        values.append(record.received)
        if has_gaps:
            values.append(record.gaps)
        values.append(_state_checksum(record))
    return values


def have_gaps(records: list[StateRecord]) -> bool:
    """Whether any of these records has a gap."""
    return any(len(record.gaps) > 0 for record in records)


def state_records(rows: list[StateRow], may_be_unchecked: bool) -> list[StateRecord]:
    """The records of rows; raises StoreCorrupt, or TypeError where a row has other types."""
    records: list[StateRecord] = []
    for session, cursor, in_flight, received, gaps, expected in rows:
        record = StateRecord(session, cursor, in_flight, received, gaps)
        if expected != UNCHECKED or not may_be_unchecked:
            found: i64 = _state_checksum(record)
            if found != expected:
                raise damaged("states", session, expected, found)
        records.append(record)
    return records


def subscription_values(records: list[SubscriptionRecord]) -> list[int | str]:
    """The values of a row for each record, one after the other."""
    values: list[int | str] = []
    for record in records:
        values.append(record.session)
        values.append(record.topic_filter)
        values.append(record.from_lsn)
        values.append(record.until_lsn)
        values.append(record.options)
        values.append(record.identifier)
        values.append(_subscription_checksum(record))
    return values


def subscription_records(
    rows: list[SubscriptionRow], may_be_unchecked: bool
) -> list[SubscriptionRecord]:
    """The records of rows; raises StoreCorrupt, or TypeError where a row has other types."""
    records: list[SubscriptionRecord] = []
    for session, topic_filter, from_lsn, until_lsn, options, identifier, expected in rows:
        record = SubscriptionRecord(session, topic_filter, from_lsn, until_lsn, options, identifier)
        if expected != UNCHECKED or not may_be_unchecked:
            found: i64 = _subscription_checksum(record)
            if found != expected:
                key = (session, topic_filter, from_lsn)
                raise damaged("subscriptions", key, expected, found)
        records.append(record)
    return records


def check_topics(rows: list[TopicRow], may_be_unchecked: bool) -> None:
    """Raise StoreCorrupt if one of these rows is not the one that was written."""
    for number, name, expected in rows:
        if expected != UNCHECKED or not may_be_unchecked:
            content = name.encode()
            crc: i64 = add_number(add_number(0, number), len(content) + 1)
            found: i64 = known(add_bytes(crc, content))
            if found != expected:
                raise damaged("topics", number, expected, found)


def _state_checksum(record: StateRecord) -> i64:
    crc: i64 = add_number(add_number(0, record.session), record.cursor)
    crc = add_number(crc, len(record.in_flight) + 1)
    crc = add_number(crc, len(record.received) + 1)
    crc = add_number(crc, len(record.gaps) + 1)
    return known(add_bytes(crc, record.in_flight + record.received + record.gaps))


def _subscription_checksum(record: SubscriptionRecord) -> i64:
    name = record.topic_filter.encode()
    crc: i64 = add_number(add_number(0, record.session), len(name) + 1)
    crc = add_number(add_number(crc, record.from_lsn), record.until_lsn)
    crc = add_number(add_number(crc, record.options), record.identifier)
    return known(add_bytes(crc, name))
