"""What a repair of the store found, kept and lost: for the log, for a file beside the store."""

import json
from dataclasses import dataclass, field
from typing import Final

# Named in the report; beyond, only the numbers go on. The file should open in an editor.
NAMES_MAX: Final = 10_000
NAMES_LOGGED: Final = 10
RANGES_MAX: Final = 10_000


@dataclass(slots=True)
class TableReport:
    """One table: rows that were kept, rows known to be lost, and pages lost with any number.

    ``restored`` of the kept ones came from an index, since the table itself had lost them.
    """

    kept: int = 0
    lost: int = 0
    pages_lost: int = 0
    restored: int = 0

    @property
    def is_damaged(self) -> bool:
        return self.lost > 0 or self.pages_lost > 0


@dataclass(slots=True)
class SessionReport:
    """What a repair did to one session. ``client_id`` is "" where its own row is lost.

    ``is_ended``: the session is gone, and its client is told so when it connects (Session Present
    0). ``is_restarted``: its position and packet identifiers are gone; it begins with the oldest
    message kept, so messages at QoS 2 too may come again. ``has_lost_subscriptions``: some may be
    gone. ``has_lost_messages``: some that it still had to get may be gone.
    """

    number: int
    client_id: str = ""
    is_ended: bool = False
    is_restarted: bool = False
    has_lost_subscriptions: bool = False
    has_lost_messages: bool = False
    topic_filters: list[str] = field(default_factory=list)  # those of a session that is ended


@dataclass(slots=True)
class WalReport:
    """The write-ahead log: frames applied, and those behind the first that is damaged."""

    frames_used: int = 0
    frames_lost: int = 0
    commits_lost: int = 0
    is_damaged: bool = False  # beyond what a power cut leaves: acknowledged messages may be gone
    is_missing: bool = False  # though the broker had not closed the store


@dataclass(slots=True)
class RepairReport:
    """All that a repair has to say. Lists are cut at 10 000 entries, counts are not."""

    at: str  # when, UTC
    store: str  # the file that was repaired
    set_aside: list[str] = field(default_factory=list)  # the damaged originals, whole
    report_file: str = ""
    findings: list[str] = field(default_factory=list)  # what was found wrong, in words
    tables: dict[str, TableReport] = field(default_factory=dict)
    wal: WalReport = field(default_factory=WalReport)
    is_empty: bool = False  # nothing could be read; the store begins anew
    lsns_missing: list[tuple[int, int]] = field(default_factory=list)  # from, until (exclusive)
    messages_lost_max: int = 0  # lsns in these ranges; some were delivered or removed before
    tail_lost_from: int = 0  # from this lsn on an unknown number is lost as well; 0: none
    topics_lost: list[str] = field(default_factory=list)  # of messages that are lost, if known
    retained_lost: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)  # shared groups that may have lost messages
    delayed_lost: int = 0
    sessions: list[SessionReport] = field(default_factory=list)
    sessions_touched: int = 0
    sessions_ended: int = 0
    sessions_restarted: int = 0
    next_lsn: int = 1
    next_session: int = 1

    @property
    def is_damaged(self) -> bool:
        """Whether anything is lost, or may be."""
        return (
            self.is_empty
            or self.wal.is_damaged
            or self.wal.is_missing
            or self.sessions_touched > 0
            or any(table.is_damaged for table in self.tables.values())
        )

    def to_json(self) -> dict[str, object]:
        """All of it as JSON has it."""
        return {
            "at": self.at,
            "store": self.store,
            "set_aside": self.set_aside,
            "report_file": self.report_file,
            "findings": self.findings,
            "is_empty": self.is_empty,
            "tables": {name: _fields(table) for name, table in self.tables.items()},
            "wal": _fields(self.wal),
            "lsns_missing": [list(span) for span in self.lsns_missing],
            "messages_lost_max": self.messages_lost_max,
            "tail_lost_from": self.tail_lost_from,
            "topics_lost": self.topics_lost,
            "retained_lost": self.retained_lost,
            "groups": self.groups,
            "delayed_lost": self.delayed_lost,
            "sessions": [_fields(session) for session in self.sessions],
            "sessions_touched": self.sessions_touched,
            "sessions_ended": self.sessions_ended,
            "sessions_restarted": self.sessions_restarted,
            "next_lsn": self.next_lsn,
            "next_session": self.next_session,
        }

    def to_text(self) -> str:
        """``to_json`` as the report file has it."""
        return json.dumps(self.to_json(), indent=1) + "\n"

    def lines(self) -> list[str]:
        """What an operator is told, a sentence each."""
        lines = [f"found: {finding}" for finding in self.findings]
        lines.append(f"the damaged store was set aside, whole, as {', '.join(self.set_aside)}")
        if self.is_empty:
            lines.append("nothing in it could be read: the store begins empty, all is lost")
        for name, table in self.tables.items():
            if table.is_damaged:
                lines.append(
                    f"table {name}: {counted(table.kept, 'row')} kept, {table.lost} known to be "
                    f"lost, {counted(table.pages_lost, 'page')} unreadable"
                )
        if self.wal.is_damaged:
            lines.append(
                "the write-ahead log is damaged in its midst: its last "
                f"{self.wal.commits_lost} commits or more are lost, with messages that were "
                "acknowledged"
            )
        if self.messages_lost_max > 0:
            lines.append(f"messages lost: {self.messages_lost_max} at most")
        if self.tail_lost_from > 0:
            lines.append("how many of the newest messages are lost cannot be told")
        if self.retained_lost or self.delayed_lost:
            lines.append(
                f"lost as well: {counted(len(self.retained_lost), 'retained message')}, "
                f"{counted(self.delayed_lost, 'delayed message')}"
            )
        lines.append(self._about_sessions())
        lines.append(f"all of this is in {self.report_file}")
        return lines

    def _about_sessions(self) -> str:
        if self.sessions_touched == 0:
            return "no session is touched"
        names = [session.client_id or f"number {session.number}" for session in self.sessions]
        more = self.sessions_touched - NAMES_LOGGED
        return (
            f"{counted(self.sessions_touched, 'session')} touched, {self.sessions_ended} of them "
            f"ended, {self.sessions_restarted} to begin again from the oldest message kept: "
            + ", ".join(names[:NAMES_LOGGED])
            + (f" and {more} more" if more > 0 else "")
        )


def counted(number: int, noun: str) -> str:
    """A number of things, such as "1 page" or "2 pages"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _fields(part: TableReport | SessionReport | WalReport) -> dict[str, object]:
    return {name: getattr(part, name) for name in part.__slots__}
