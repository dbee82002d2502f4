"""The full verification of a store: SQLite's own, every row, and what rows say of each other."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, TypeVar, final

from holdfast.disk.checksums import UNCHECKED, row_checksum
from holdfast.errors import ProtocolError, StoreCorrupt, StoreError
from holdfast.protocol.topics import check_filter, check_topic, is_shared
from holdfast.store.backup import Progress, no_progress
from holdfast.store.blocks import decode_message
from holdfast.store.needs import Needs
from holdfast.store.reading import (
    Row,
    StoreView,
    Value,
    block_of,
    bytes_of,
    group_of,
    int_of,
    session_of,
    state_of,
    subscription_of,
    text_of,
)
from holdfast.store.records import (
    OPEN,
    GroupRecord,
    LossRecord,
    StateRecord,
    SubscriptionRecord,
    TimeMark,
    unpack_gaps,
    unpack_in_flight,
    unpack_lsns,
)
from holdfast.store.schema import CHECKED_FORMAT, UNCHECKED_ROWS

_Record = TypeVar("_Record")

FINDINGS_MAX: Final = 1000  # listed; the others are counted
SESSIONS_MAX: Final = 100  # named in one finding
_SQLITE_FINDINGS_MAX: Final = 100
_OPTIONS_MAX: Final = 0x2F  # of the option byte of SUBSCRIBE: Retain Handling is at most 2
_KEYS: Final = {"subscriptions": 3}  # columns of the key, where it is not one
_OF_SESSION: Final = frozenset({"states", "subscriptions", "losses"})
_COUNTERS: Final = ("next_lsn", "next_session")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: where, and whom it touches (client identifiers)."""

    table: str
    key: str
    text: str
    sessions: tuple[str, ...] = ()


@dataclass(slots=True)
class Report:
    """What ``check`` found; sound if there are no findings."""

    format: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    messages: int = 0
    findings: list[Finding] = field(default_factory=list)
    findings_count: int = 0


def check(view: StoreView, progress: Progress = no_progress) -> Report:
    """Look at everything in a store; damage becomes findings and not errors."""
    checking = _Check(view, progress)
    checking.run()
    return checking.report


@final
class _Check:
    def __init__(self, view: StoreView, progress: Progress) -> None:
        self.report = Report(format=view.format)
        self._view = view
        self._progress = progress
        self._next_lsn = 1
        self._next_number = 1
        self._clients: dict[int, str] = {}  # sessions, by number
        self._groups: dict[int, str] = {}
        self._topics: set[int] = set()
        self._needs: Needs | None = None

    def run(self) -> None:
        self._check_sqlite()
        if self._view.format == 0:
            return  # made, and never used
        self._check_meta()
        for _ in self._rows("meta"):
            pass  # their checksums
        self._each("topics", self._check_topic)
        self._each("sessions", self._check_session)
        self._each("shared_groups", self._check_group_number)
        # Generators, so that each table is read once and what is sound of it counts.
        needs = Needs(self._next_lsn, self._states(), self._subscriptions(), self._group_records())
        self._each("losses", self._check_loss)
        self._each("time_marks", self._check_time_mark)
        self._each("retained", self._check_retained)
        self._each("delayed", self._check_delayed)
        self._needs = needs
        self._check_log(needs)

    def _check_sqlite(self) -> None:
        self._progress("checking pages and indexes", 0, 0)
        try:
            for (text,) in self._view.query(f"PRAGMA integrity_check({_SQLITE_FINDINGS_MAX})"):
                if text != "ok":
                    self._find("sqlite", "", str(text))
        except StoreError as error:
            self._find("sqlite", "", str(error))

    def _check_meta(self) -> None:
        try:
            for name in _COUNTERS:
                if self._view.meta(name) < 1:
                    self._find("meta", name, f"the counter {name} is missing or below 1")
            if self._view.format >= CHECKED_FORMAT and not self._view.number(
                "SELECT count(*) FROM meta WHERE name = ?1", UNCHECKED_ROWS
            ):
                self._find("meta", UNCHECKED_ROWS, f"the row {UNCHECKED_ROWS} is missing")
            self._next_number = self._view.meta("next_session")
            self._next_lsn = self._view.next_lsn
        except StoreError as error:
            self._find("meta", "", str(error))

    def _check_topic(self, row: Row) -> None:
        number, name = int_of(row[0]), text_of(row[1], "the name")
        self._topics.add(number)
        check_topic(name)

    def _check_session(self, row: Row) -> None:
        number = int_of(row[0])
        self._clients[number] = text_of(row[1], "the client identifier")
        record = session_of(row)
        if not 1 <= number < self._next_number:
            raise StoreCorrupt(f"expected a number below {self._next_number}")
        if record.version not in (3, 4, 5):
            raise StoreCorrupt(f"expected the protocol level 3, 4 or 5, found {record.version}")
        if record.will is not None:
            check_topic(record.will.topic)

    def _check_group_number(self, row: Row) -> None:
        number = int_of(row[0])
        self._groups[number] = text_of(row[1], "the topic filter")
        if number in self._clients:
            raise StoreCorrupt("a session has this number too")
        if not 1 <= number < self._next_number:
            raise StoreCorrupt(f"expected a number below {self._next_number}")

    def _states(self) -> Iterator[StateRecord]:
        def make(row: Row) -> StateRecord:
            record = state_of(row)
            unpack_in_flight(record.in_flight)
            unpack_gaps(record.gaps)
            return record

        return self._sound("states", make, self._check_state)

    def _check_state(self, state: StateRecord) -> None:
        lsns = [value >> 2 for value in unpack_in_flight(state.in_flight).values()]
        if state.session not in self._clients:
            raise StoreCorrupt("there is no session of this number")
        if not 1 <= state.cursor <= self._next_lsn:
            raise StoreCorrupt(
                f"expected a cursor up to {self._next_lsn}, the end of the log, "
                f"found {state.cursor}"
            )
        if any(not 0 <= lsn < self._next_lsn for lsn in lsns):
            raise StoreCorrupt(
                f"a message is in flight whose lsn is {max(lsns)}, and the log ends at "
                f"{self._next_lsn}"
            )
        if len(state.received) % 2:
            raise StoreCorrupt("the received QoS 2 identifiers are not two bytes each")

    def _subscriptions(self) -> Iterator[SubscriptionRecord]:
        def make(row: Row) -> SubscriptionRecord:
            record = subscription_of(row)
            check_filter(record.topic_filter)
            return record

        return self._sound("subscriptions", make, self._check_subscription)

    def _check_subscription(self, record: SubscriptionRecord) -> None:
        if record.session not in self._clients:
            raise StoreCorrupt("there is no session of this number")
        if not 0 <= record.options <= _OPTIONS_MAX or record.options & 3 == 3:
            raise StoreCorrupt(f"its options are 0x{record.options:02X}, which none has")
        if record.until_lsn != OPEN and record.until_lsn < record.from_lsn:
            raise StoreCorrupt(
                f"it ends at {record.until_lsn}, before it begins at {record.from_lsn}"
            )

    def _group_records(self) -> Iterator[GroupRecord]:
        def make(row: Row) -> GroupRecord:
            record = group_of(row)
            unpack_lsns(record.returned)
            unpack_gaps(record.gaps)
            check_filter(record.topic_filter)
            if not is_shared(record.topic_filter):
                raise StoreCorrupt(f"its filter {record.topic_filter!r} is not a shared one")
            return record

        return self._sound("shared_groups", make, self._check_group)

    def _check_group(self, record: GroupRecord) -> None:
        if not 1 <= record.cursor <= self._next_lsn:
            raise StoreCorrupt(f"expected a cursor up to {self._next_lsn}, found {record.cursor}")
        if any(not 0 < lsn < self._next_lsn for lsn in unpack_lsns(record.returned)):
            raise StoreCorrupt(f"a returned message lies beyond {self._next_lsn}")

    def _check_loss(self, row: Row) -> None:
        record = LossRecord(*map(int_of, row))
        if record.owner not in self._clients and record.owner not in self._groups:
            raise StoreCorrupt("there is no session or group of this number")

    def _check_time_mark(self, row: Row) -> None:
        mark = TimeMark(*map(int_of, row))
        if mark.lsn > self._next_lsn:
            raise StoreCorrupt(f"it is for lsn {mark.lsn}, and the log ends at {self._next_lsn}")

    def _check_retained(self, row: Row) -> None:
        topic, message = row
        if int_of(topic) not in self._topics:
            raise StoreCorrupt("there is no name for this topic number")
        decode_message("", bytes_of(message))

    def _check_delayed(self, row: Row) -> None:
        _, _, _, topic, message = row
        if int_of(topic) not in self._topics:
            raise StoreCorrupt(f"there is no name for the topic number {topic!r}")
        decode_message("", bytes_of(message))

    def _check_log(self, needs: Needs) -> None:
        last = 0
        first = -1
        for row in self._rows("log"):
            lsn, last_lsn, *_ = row
            try:
                self._check_block(row, last)
            except StoreError as error:
                self._find("log", repr(lsn), str(error), self._touched(needs, row))
            if isinstance(lsn, int) and isinstance(last_lsn, int):
                last = max(last, last_lsn)
                first = lsn if first < 0 else first
                self._progress("checking messages", lsn - first, max(1, self._next_lsn - first))

    def _check_block(self, row: Row, before: int) -> None:
        lsn, last_lsn, topic, target = (int_of(value) for value in row[:4])
        if lsn <= before:
            raise StoreCorrupt(f"it overlaps with the messages before, which end at {before}")
        if topic not in self._topics:
            raise StoreCorrupt(f"there is no name for the topic number {topic!r}")
        if target and target not in self._clients:
            raise StoreCorrupt(f"it is for session {target} alone, which does not exist")
        if last_lsn >= self._next_lsn:
            raise StoreCorrupt(f"it ends at {last_lsn}, and the log at {self._next_lsn}")
        entries = block_of(row, "").entries()
        self.report.messages += len(entries)
        if any(entry.message.qos == 0 for entry in entries):
            raise StoreCorrupt("it holds a message of QoS 0, which is never logged")

    def _touched(self, needs: Needs, row: Row) -> tuple[str, ...]:
        """The sessions and groups that wait for a damaged block."""
        lsn, last_lsn, topic, target, _ = row
        if target:
            return self._client(target)
        if not isinstance(lsn, int) or not isinstance(last_lsn, int):
            return ()
        owners = needs.owners_of(lsn, last_lsn, self._name(topic))
        return tuple(self._owner(owner) for owner in owners[:SESSIONS_MAX])

    def _name(self, topic: Value) -> str | None:
        if not isinstance(topic, int):
            return None
        try:
            for _, name, *_ in self._view.rows("topics", f"WHERE number = {topic}"):
                return name if isinstance(name, str) else None
        except StoreError:
            pass  # told where the table was looked at
        return None

    def _owner(self, number: int) -> str:
        return self._clients.get(number) or self._groups.get(number) or f"number {number}"

    def _client(self, number: Value) -> tuple[str, ...]:
        name = self._clients.get(number) if isinstance(number, int) else None
        return () if name is None else (name,)

    # --- reading on, whatever is found

    def _rows(self, table: str) -> Iterator[Row]:
        """The rows of a table; where SQLite cannot read on, that is a finding."""
        count = 0
        may_be_unchecked = self._view.may_be_unchecked(table)
        try:
            for *values, checksum in self._view.rows(table):
                count += 1
                row = tuple(values)
                if checksum == UNCHECKED and not may_be_unchecked:
                    self._find_in(table, row, "expected a checksum, it has none")
                elif checksum not in (UNCHECKED, row_checksum(row)):
                    text = f"expected the checksum {checksum!r}, that of its values is another"
                    self._find_in(table, row, text)
                yield row
        except StoreError as error:
            self._find(table, f"behind {count} rows", str(error))
        self.report.rows[table] = count

    def _sound(
        self, table: str, make: Callable[[Row], _Record], look: Callable[[_Record], None]
    ) -> Iterator[_Record]:
        """The records of a table that can be decoded, each looked at."""
        for row in self._rows(table):
            record: _Record | None = None
            try:
                record = make(row)
                look(record)
            except (StoreError, ProtocolError) as error:
                self._find_in(table, row, _text(error))
            if record is not None:
                yield record

    def _each(self, table: str, look: Callable[[Row], None]) -> None:
        for row in self._rows(table):
            try:
                look(row)
            except (StoreError, ProtocolError) as error:
                self._find_in(table, row, _text(error))

    def _key(self, table: str, row: Row) -> str:
        return " ".join(repr(value) for value in row[: _KEYS.get(table, 1)])

    def _of_row(self, table: str, row: Row) -> tuple[str, ...]:
        """Whom a row belongs to."""
        if table == "log":
            return self._touched(self._needs, row) if self._needs is not None else ()
        if table == "sessions":
            return (row[1],) if isinstance(row[1], str) else ()
        return self._client(row[0]) if table in _OF_SESSION else ()

    def _find_in(self, table: str, row: Row, text: str) -> None:
        self._find(table, self._key(table, row), text, self._of_row(table, row))

    def _find(self, table: str, key: str, text: str, sessions: tuple[str, ...] = ()) -> None:
        self.report.findings_count += 1
        if len(self.report.findings) < FINDINGS_MAX:
            self.report.findings.append(Finding(table, key, text, sessions))


def _text(error: Exception) -> str:
    return error.detail if isinstance(error, ProtocolError) else str(error)
