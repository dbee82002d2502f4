"""What refers to what in a store that has lost rows: made consistent, and told.

It works on the new file, in which every row is sound by itself. What cannot be kept goes, what
has to be there and is not is made anew, and each session that this touches is noted.
"""

from datetime import datetime
from typing import Final, cast, final

import apsw

from holdfast.disk.queries import as_json
from holdfast.protocol.sender import RELEASED, SENT_QOS_2
from holdfast.protocol.topics import is_shared, matches, split_share
from holdfast.store.records import (
    LOST_TO_DAMAGE,
    OPEN,
    pack_in_flight,
    unpack_in_flight,
    unpack_lsns,
)
from holdfast.store.repair_report import NAMES_MAX, RANGES_MAX, RepairReport, SessionReport
from holdfast.store.salvage_copy import Copy
from holdfast.store.salvage_log import LostLog, LostRun, find_lost_log
from holdfast.store.salvage_rows import Row
from holdfast.store.schema import UNCHECKED_ROWS

# Left out between the numbers that are known and those given out from now on, where the highest
# may be lost: an lsn is never used twice, and there are 2**60 of them.
NUMBERS_MARGIN: Final = 1_000_000
NUMBERS_PER_PAGE: Final = 4096  # at least a byte of a page for each that was on it
# Comparisons of a subscription with a lost stretch; with more, stretches are taken together.
_COMPARED_MAX: Final = 2_000_000


@final
class Links:
    """Puts a copy in order; ``run`` does all of it."""

    def __init__(self, connection: apsw.Connection, copy: Copy, report: RepairReport) -> None:
        self._cursor = connection.cursor()
        self._copy = copy
        self._report = report
        self._sessions: dict[int, SessionReport] = {}
        self._losses: dict[int, int] = {}  # messages known to be lost, by session
        self._is_tail_open = report.wal.is_damaged or report.wal.is_missing

    def run(self) -> None:
        """Do it all, in an order in which each step finds what it relies on."""
        numbers = self._highest_number()
        self._drop_topicless()
        self._drop_doubles()
        self._drop_sessionless()
        self._find_lost_subscriptions()
        seen = self._highest_lsn()
        lost = find_lost_log(self._cursor, self._copy, self._is_tail_open)
        seen = max([seen, *(run.until_lsn for run in lost.runs if run.is_known)])
        self._set_counters(numbers, seen, lost)
        self._restart_sessions()
        self._restart_groups()
        self._find_lost_messages(lost)
        self._write_losses()
        self._tell_log(lost)
        self._tell_sessions()

    def _numbers(self, sql: str, *arguments: int | str) -> list[int]:
        """What a statement gives in its only column."""
        rows = cast(list[tuple[int]], self._cursor.execute(sql, arguments).fetchall())
        return [number for (number,) in rows]

    def _pairs(self, sql: str) -> list[tuple[int, int]]:
        return cast(list[tuple[int, int]], self._cursor.execute(sql).fetchall())

    def _named(self, sql: str) -> list[tuple[int, str]]:
        return cast(list[tuple[int, str]], self._cursor.execute(sql).fetchall())

    def _blobs(self, sql: str) -> list[tuple[int, bytes]]:
        return cast(list[tuple[int, bytes]], self._cursor.execute(sql).fetchall())

    def _number(self, sql: str) -> int:
        return self._numbers(sql)[0]

    def _is_damaged(self, table: str) -> bool:
        return self._report.tables[table].is_damaged

    def _touch(self, number: int) -> SessionReport:
        return self._sessions.setdefault(number, SessionReport(number))

    # --- what cannot be kept

    def _drop_topicless(self) -> None:
        """Messages whose topic has no name any more are lost."""
        nameless = "topic NOT IN (SELECT number FROM topics)"
        for lsn, last_lsn in self._pairs(f"SELECT lsn, last_lsn FROM log WHERE {nameless}"):
            self._copy.lost_blocks.append((lsn, last_lsn))
        for table in ("log", "retained", "delayed"):
            self._cursor.execute(f"DELETE FROM {table} WHERE {nameless}")
            count = self._cursor.connection.changes()
            self._report.tables[table].kept -= count
            self._report.tables[table].lost += count

    def _drop_doubles(self) -> None:
        """One session for each client, one group and one open subscription for each filter."""
        for table, column in (("sessions", "client_id"), ("shared_groups", "topic_filter")):
            self._drop(
                table,
                f"number NOT IN (SELECT max(number) FROM {table} GROUP BY {column})",
            )
        self._drop(
            "subscriptions",
            "until_lsn = 0 AND EXISTS (SELECT 1 FROM subscriptions AS other WHERE"
            " other.session = subscriptions.session AND other.until_lsn = 0"
            " AND other.topic_filter = subscriptions.topic_filter"
            " AND other.from_lsn < subscriptions.from_lsn)",
        )

    def _drop(self, table: str, where: str) -> None:
        self._cursor.execute(f"DELETE FROM {table} WHERE {where}")
        count = self._cursor.connection.changes()
        self._report.tables[table].kept -= count
        self._report.tables[table].lost += count

    def _drop_sessionless(self) -> None:
        """A session without its row is ended: nobody knows whose it was."""
        unknown = "NOT IN (SELECT number FROM sessions)"
        for number, topic_filter in self._named(
            f"SELECT session, topic_filter FROM subscriptions WHERE session {unknown}"
        ):
            filters = self._end(number).topic_filters
            if len(filters) < NAMES_MAX:
                filters.append(topic_filter)
        for number in self._numbers(f"SELECT session FROM states WHERE session {unknown}"):
            self._end(number)
        targets = f"target <> 0 AND target {unknown}"
        for number in self._numbers(f"SELECT DISTINCT target FROM log WHERE {targets}"):
            self._end(number)
        known = set(self._numbers("SELECT number FROM sessions"))
        for number in self._copy.lost_keys["sessions"]:
            if number not in known:
                self._end(number)
        self._drop("subscriptions", f"session {unknown}")
        self._drop("states", f"session {unknown}")
        self._drop("losses", f"owner {unknown} AND owner NOT IN (SELECT number FROM shared_groups)")
        self._drop("log", targets)

    def _end(self, number: int) -> SessionReport:
        session = self._touch(number)
        session.is_ended = True
        session.client_id = self._copy.lost_client_ids.get(number, "")
        return session

    def _find_lost_subscriptions(self) -> None:
        """Sessions whose subscriptions lay where some are lost."""
        for lost in self._copy.lost_pages["subscriptions"]:
            low = 0 if lost.low is None else lost.low
            high = (1 << 62) if lost.high is None else lost.high
            for number in self._numbers(
                "SELECT number FROM sessions WHERE number BETWEEN ?1 AND ?2", low, high
            ):
                self._touch(number).has_lost_subscriptions = True
        for number in self._numbers(
            "SELECT number FROM sessions WHERE number IN (SELECT value FROM json_each(?1))",
            as_json(self._copy.lost_keys["subscriptions"]),
        ):
            self._touch(number).has_lost_subscriptions = True

    # --- the numbers

    def _highest_lsn(self) -> int:
        """The lsn that was to come next, as far as anything that is left tells."""
        seen = self._number(
            "SELECT max(ifnull((SELECT value FROM meta WHERE name = 'next_lsn'), 1),"
            " ifnull((SELECT max(last_lsn) + 1 FROM log), 1),"
            " ifnull((SELECT max(cursor) FROM states), 1),"
            " ifnull((SELECT max(cursor) FROM shared_groups), 1),"
            " ifnull((SELECT max(max(from_lsn, until_lsn)) FROM subscriptions), 1))"
        )
        for _, packed in self._blobs(
            "SELECT session, in_flight FROM states WHERE in_flight <> x''"
        ):
            for content in unpack_in_flight(packed).values():
                seen = max(seen, (content >> 2) + 1)
        for _, packed in self._blobs(
            "SELECT number, returned FROM shared_groups WHERE returned <> x''"
        ):
            seen = max([seen, *(lsn + 1 for lsn in unpack_lsns(packed))])
        return seen

    def _highest_number(self) -> int:
        """The number of the session or group that was to come next, in the same way."""
        return self._number(
            "SELECT max(ifnull((SELECT value FROM meta WHERE name = 'next_session'), 1),"
            " ifnull((SELECT max(number) + 1 FROM sessions), 1),"
            " ifnull((SELECT max(number) + 1 FROM shared_groups), 1),"
            " ifnull((SELECT max(session) + 1 FROM states), 1),"
            " ifnull((SELECT max(session) + 1 FROM subscriptions), 1),"
            " ifnull((SELECT max(target) + 1 FROM log WHERE target <> 0), 1))"
        )

    def _set_counters(self, numbers: int, seen: int, lost: LostLog) -> None:
        """Go on behind every number that was ever given out."""
        report = self._report
        pages = sum(table.pages_lost for table in report.tables.values())
        margin = NUMBERS_MARGIN + NUMBERS_PER_PAGE * (pages + report.wal.frames_lost)
        # What is not copied has the value of an empty store.
        counters = self._number(f"SELECT count(*) FROM meta WHERE name <> '{UNCHECKED_ROWS}'")
        is_meta_damaged = report.tables["meta"].kept < counters
        has_margin = is_meta_damaged or lost.is_tail_open
        report.next_lsn = seen + margin if has_margin else seen
        report.next_session = numbers + margin if has_margin else numbers
        for name, value in (("next_lsn", report.next_lsn), ("next_session", report.next_session)):
            self._put("meta", {"name": name, "value": value})
        if lost.is_tail_open:
            report.tail_lost_from = min(seen, lost.tail_lsn)
        lost.end_at(seen, report.next_lsn)

    def _put(self, table: str, values: Row) -> None:
        """Set a row of ours; what it does not name has its default."""
        row = self._copy.shapes[table].sealed(values)
        places = ", ".join("?" * len(row))
        self._cursor.execute(f"INSERT OR REPLACE INTO {table} VALUES ({places})", row)

    # --- what has to be there

    def _oldest_lsn(self) -> int:
        return self._number(f"SELECT ifnull((SELECT min(lsn) FROM log), {self._report.next_lsn})")

    def _restart_sessions(self) -> None:
        """A session whose state is lost begins with the oldest message kept.

        So a message may come again, at QoS 2 too. The other way would be to end it, which its
        client is told of, and which loses all that it still had to get.
        """
        if not self._is_damaged("states"):
            return
        cursor = self._oldest_lsn()
        for number in self._numbers(
            "SELECT number FROM sessions WHERE number NOT IN (SELECT session FROM states)"
        ):
            self._put(
                "states", {"session": number, "cursor": cursor, "in_flight": b"", "received": b""}
            )
            self._touch(number).is_restarted = True

    def _restart_groups(self) -> None:
        """A group whose row is lost begins with the oldest message kept, like a session."""
        if not self._is_damaged("shared_groups"):
            return
        cursor = self._oldest_lsn()
        known = {name for _, name in self._named("SELECT number, topic_filter FROM shared_groups")}
        for _, topic_filter in self._named(
            "SELECT max(session), topic_filter FROM subscriptions WHERE until_lsn = 0"
            " GROUP BY topic_filter"
        ):
            if is_shared(topic_filter) and topic_filter not in known:
                number = self._report.next_session
                self._report.next_session += 1
                self._put(
                    "shared_groups",
                    {
                        "number": number,
                        "topic_filter": topic_filter,
                        "cursor": cursor,
                        "returned": b"",
                    },
                )
                self._report.groups.append(topic_filter)
        self._put("meta", {"name": "next_session", "value": self._report.next_session})

    # --- who is touched

    def _find_lost_messages(self, lost: LostLog) -> None:
        """Sessions and groups that still had to get what is lost, and what they had in flight."""
        if not lost.runs:
            return
        runs = self._comparable(lost.runs)
        highest = max(run.until_lsn for run in runs)
        subscriptions = cast(
            list[tuple[int, str, int, int]],
            self._cursor.execute(
                "SELECT session, topic_filter, from_lsn, until_lsn FROM subscriptions"
                " WHERE options & 3 > 0"
            ).fetchall(),
        )
        cursors = dict(self._pairs("SELECT session, cursor FROM states"))
        for number, topic_filter, from_lsn, until_lsn in subscriptions:
            low = max(cursors.get(number, 0), from_lsn)
            high = highest if until_lsn == OPEN else until_lsn
            if low >= high or is_shared(topic_filter):
                continue
            for run in runs:
                if run.touches(low, high) and _is_for(run, topic_filter):
                    self._lose(number, run.count)
        for run in lost.runs:
            if run.target in cursors:
                self._lose(run.target, run.count)
        for cursor, topic_filter in self._named("SELECT cursor, topic_filter FROM shared_groups"):
            inner = split_share(topic_filter)[1]
            if topic_filter not in self._report.groups and any(
                run.touches(cursor, highest) and _is_for(run, inner) for run in runs
            ):
                self._report.groups.append(topic_filter)
        self._settle_in_flight(lost)

    def _comparable(self, runs: list[LostRun]) -> list[LostRun]:
        """The runs, or one around them all if they are too many to look at for each session."""
        count = self._number("SELECT count(*) FROM subscriptions")
        common = [run for run in runs if run.target == 0]
        if len(common) * count <= _COMPARED_MAX or len(common) < 2:
            return common or [LostRun(0, 0)]
        low = min(run.from_lsn for run in common)
        return [LostRun(low, max(run.until_lsn for run in common))]

    def _settle_in_flight(self, lost: LostLog) -> None:
        """Messages in flight that are lost cannot be sent again.

        At QoS 2 the client may hold the identifier, and would take the next message under it for a
        repeat: so it gets a PUBREL, which it answers whether it knows it or not.
        """
        for number, packed in self._blobs(
            "SELECT session, in_flight FROM states WHERE in_flight <> x''"
        ):
            groups: dict[int, int] = {}
            in_flight = unpack_in_flight(packed, groups)
            gone = [
                packet_id
                for packet_id, content in in_flight.items()
                if content >> 2 != 0 and lost.holds(content >> 2)
            ]
            for packet_id in gone:
                is_qos_2 = in_flight[packet_id] & 3 == SENT_QOS_2
                groups.pop(packet_id, None)
                if is_qos_2:
                    in_flight[packet_id] = RELEASED
                else:
                    del in_flight[packet_id]
            if gone:
                self._lose(number, len(gone))
                self._set_in_flight(number, pack_in_flight(in_flight, groups))

    def _set_in_flight(self, number: int, packed: bytes) -> None:
        columns = self._copy.shapes["states"].columns
        (row,) = self._cursor.execute(
            "SELECT * FROM states WHERE session = ?1", (number,)
        ).fetchall()
        self._put("states", dict(zip(columns, row, strict=True)) | {"in_flight": packed})

    def _lose(self, number: int, messages: int) -> None:
        self._touch(number).has_lost_messages = True
        self._losses[number] = self._losses.get(number, 0) + messages

    def _write_losses(self) -> None:
        """Keep the loss visible on each session: how many messages are known to be missing."""
        at_ms = int(datetime.fromisoformat(self._report.at).timestamp() * 1000)
        before = dict(self._pairs("SELECT owner, messages FROM losses"))
        sizes = dict(self._pairs("SELECT owner, bytes FROM losses"))
        for number, messages in self._losses.items():
            self._put(
                "losses",
                {
                    "owner": number,
                    "messages": before.get(number, 0) + messages,
                    "bytes": sizes.get(number, 0),
                    "at_ms": at_ms,
                    "reason": LOST_TO_DAMAGE,
                },
            )

    # --- the report

    def _tell_log(self, lost: LostLog) -> None:
        report = self._report
        report.lsns_missing = [(run.from_lsn, run.until_lsn) for run in lost.runs[:RANGES_MAX]]
        report.messages_lost_max = lost.count
        report.topics_lost = sorted({run.topic for run in lost.runs if run.topic})[:NAMES_MAX]
        report.delayed_lost = report.tables["delayed"].lost
        if self._is_damaged("retained"):
            # A topic is there only while something refers to it: what nothing refers to any more
            # had a message, if not in the log then here.
            orphans = self._named(
                "SELECT number, name FROM topics WHERE number IN (SELECT value FROM json_each("
                f"'{as_json(self._copy.lost_keys['retained'])}')) OR NOT (number IN (SELECT topic"
                " FROM log) OR number IN (SELECT topic FROM retained) OR number IN (SELECT topic"
                " FROM delayed))"
            )
            lost_topics = {run.topic for run in lost.runs}
            names = sorted(name for _, name in orphans if name not in lost_topics)
            report.retained_lost = names[:NAMES_MAX]

    def _tell_sessions(self) -> None:
        report = self._report
        names = dict(self._named("SELECT number, client_id FROM sessions"))
        touched = [self._sessions[number] for number in sorted(self._sessions)]
        for session in touched:
            session.client_id = names.get(session.number, session.client_id)
        report.sessions_touched = len(touched)
        report.sessions_ended = sum(session.is_ended for session in touched)
        report.sessions_restarted = sum(session.is_restarted for session in touched)
        report.sessions = touched[:NAMES_MAX]


def _is_for(run: LostRun, topic_filter: str) -> bool:
    return run.topic == "" or matches(topic_filter, run.topic)
