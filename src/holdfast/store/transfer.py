"""Export and import: a store as lines of JSON, of which each is understood alone.

A store that was exported, imported and exported again gives the same bytes: numbers and lsns
stay. Of the log, only what a session or group still needs is exported.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final, final

from holdfast.errors import StoreCorrupt, StoreError
from holdfast.store.backup import Progress, no_progress
from holdfast.store.building import Builder, Transferred, build
from holdfast.store.json_records import (
    Fields,
    Object,
    as_line,
    delayed_object,
    delayed_of,
    entry_object,
    entry_of,
    from_line,
    group_object,
    group_of,
    loss_object,
    loss_of,
    retained_object,
    retained_of,
    session_object,
    session_of,
    subscription_object,
    subscription_of,
    time_mark_object,
    time_mark_of,
)
from holdfast.store.mosquitto_db import is_mosquitto, read_mosquitto
from holdfast.store.mosquitto_import import put_mosquitto
from holdfast.store.needs import Needs, covers
from holdfast.store.reading import StoreView
from holdfast.store.records import StateRecord

VERSION: Final = 1  # of the format
LINE_BYTES_MAX: Final = 1 << 30  # the largest message, each byte of it escaped in four characters
HEADER_BYTES_MAX: Final = 4096  # so that a foreign file is refused early

_READ_BYTES: Final = 16


def export_store(view: StoreView, out: IO[bytes], progress: Progress = no_progress) -> Transferred:
    """Write a store to a file. Raises StoreCorrupt where it is damaged, OSError for ``out``."""
    done = Transferred()
    lines = 1
    header: Object = {
        "type": "holdfast-export",
        "version": VERSION,
        "next_lsn": view.next_lsn,
        "next_number": view.meta("next_session"),
    }
    out.write(as_line(header))
    for found in _objects(view, progress):
        out.write(as_line(found))
        done.count(str(found["type"]))
        lines += 1
    out.write(as_line({"type": "end", "lines": lines + 1}))
    return done


def _objects(view: StoreView, progress: Progress) -> Iterator[Object]:
    """All records, in an order that depends on nothing but themselves."""
    states = _Following(view.states())
    numbers: set[int] = set()
    for session in view.sessions():
        numbers.add(session.number)
        yield session_object(session, states.of(session.number))
    for subscription in view.subscriptions():
        if subscription.session in numbers:
            yield subscription_object(subscription)
    for group in view.groups():
        yield group_object(group)
    for loss in view.losses():
        yield loss_object(loss)
    for mark in view.time_marks():
        yield time_mark_object(mark)
    for retained in view.retained():
        yield retained_object(retained)
    for delayed in view.delayed():
        yield delayed_object(delayed)
    yield from _entries(view, progress)


def _entries(view: StoreView, progress: Progress) -> Iterator[Object]:
    """The messages of the log that somebody needs."""
    needs = Needs(view.next_lsn, view.states(), view.subscriptions(), view.groups())
    in_flight = {lsn for lsns in needs.in_flight.values() for lsn in lsns}
    first = view.first_lsn
    for block in view.blocks():
        progress("exporting", block.lsn - first, max(1, needs.next_lsn - first))
        lsns = range(block.lsn, block.last_lsn + 1)
        if block.target:
            target = block.target
            wanted = {lsn for lsn in lsns if lsn in in_flight or needs.is_for_target(target, lsn)}
        else:
            spans = needs.union(block.topic)
            wanted = {lsn for lsn in lsns if lsn in in_flight or covers(spans, lsn)}
        if wanted:
            for entry in block.entries():
                if entry.lsn in wanted:
                    yield entry_object(entry)


@final
class _Following:
    """Gives the state of each session, both ascending."""

    def __init__(self, states: Iterator[StateRecord]) -> None:
        self._states = states
        self._next = next(states, None)

    def of(self, session: int) -> StateRecord | None:
        while self._next is not None and self._next.session < session:
            self._next = next(self._states, None)
        if self._next is not None and self._next.session == session:
            return self._next
        return None


def import_store(
    source: Path, file: IO[bytes], data_dir: Path, progress: Progress = no_progress
) -> Transferred:
    """Make a store from an export or from Mosquitto's ``mosquitto.db``, all of it or nothing.

    Raises StoreCorrupt for a file that is damaged or neither, StoreError for a folder that has a
    store that is not empty, or that a broker holds.
    """
    done = Transferred()
    start = file.read(_READ_BYTES)
    if is_mosquitto(start):
        # All of it in memory, where Mosquitto had it too.
        found = read_mosquitto(str(source), start + file.read())
        build(data_dir, lambda builder: put_mosquitto(found, builder, done), progress)
        return done
    lines = _Lines(source, start, file)
    header = lines.header()
    build(data_dir, lambda builder: _read(lines, header, builder, done, progress), progress)
    return done


@final
class _Lines:
    """The lines of an export, each within its bound."""

    def __init__(self, source: Path, start: bytes, file: IO[bytes]) -> None:
        self.source: Final = source
        self.number = 0
        self._start = start
        self._file = file

    def header(self) -> Fields:
        """The first line; raises StoreCorrupt for a file of another kind or version."""
        wrong = StoreCorrupt(
            f"{self.source}: expected an export of Holdfast or a mosquitto.db, found neither"
        )
        line = self._start
        if b"\n" not in line:
            line += self._file.readline(HEADER_BYTES_MAX)
        self.number = 1
        try:
            fields = from_line(f"{self.source}: line 1", line)
            if fields.text("type") != "holdfast-export":
                raise wrong
        except StoreCorrupt:
            raise wrong from None
        version = fields.number("version")
        if version != VERSION:
            raise StoreError(
                f"{self.source}: expected version {VERSION} of the format, found {version}"
            )
        return fields

    def following(self) -> Fields:
        """The next line; raises StoreCorrupt if there is none."""
        line = self._file.readline(LINE_BYTES_MAX)
        self.number += 1
        where = f"{self.source}: line {self.number}"
        if not line.endswith(b"\n"):
            raise StoreCorrupt(f"{where}: expected a line and its end, the file was cut short")
        return from_line(where, line)

    def is_over(self) -> bool:
        return self._file.read(1) == b""


def _read(
    lines: _Lines, header: Fields, builder: Builder, done: Transferred, progress: Progress
) -> None:
    next_lsn = header.number("next_lsn", 1)
    next_number = header.number("next_number", 1)
    header.end()
    seen = _Seen(next_lsn, next_number)
    while True:
        fields = lines.following()
        kind = fields.text("type")
        if kind == "end":
            if fields.number("lines") != lines.number:
                raise fields.fault("lines", f"{lines.number}, as many as there are")
            fields.end()
            if not lines.is_over():
                raise StoreCorrupt(f"{lines.source}: expected nothing behind the line of the end")
            builder.next_lsn = next_lsn
            builder.next_session = next_number
            return
        _take(fields, kind, builder, seen)
        fields.end()
        done.count(kind)
        progress("importing", 0, 0)


@final
class _Seen:
    """What has come, to refuse what comes twice or refers to nothing."""

    def __init__(self, next_lsn: int, next_number: int) -> None:
        self.next_lsn = next_lsn
        self.next_number = next_number
        self.numbers: set[int] = set()
        self.names: set[str] = set()
        self.delayed: set[int] = set()
        self.lsn = 0
        self.mark = -1

    def owner(self, fields: Fields, number: int, name: str) -> None:
        """A session or group."""
        if number in self.numbers or number >= self.next_number:
            raise fields.fault("number", f"each number once, below {self.next_number}")
        if name in self.names:
            raise StoreCorrupt(f"{fields.where}: it came before under another number")
        self.numbers.add(number)
        self.names.add(name)


def _take(fields: Fields, kind: str, builder: Builder, seen: _Seen) -> None:
    """Give the record of a line to the builder."""
    match kind:
        case "session":
            session, state = session_of(fields)
            seen.owner(fields, session.number, f"session {session.client_id}")
            builder.session(session)
            if state is not None:
                builder.state(state)
        case "subscription":
            subscription = subscription_of(fields)
            if subscription.session not in seen.numbers:
                raise fields.fault("session", "the number of a session before this line")
            builder.subscription(subscription)
        case "group":
            group = group_of(fields)
            seen.owner(fields, group.number, f"group {group.topic_filter}")
            builder.group(group)
        case "retained":
            retained = retained_of(fields)
            name = f"retained {retained.topic}"
            if name in seen.names:
                raise StoreCorrupt(f"{fields.where}: it came before")
            seen.names.add(name)
            builder.retained(retained)
        case "delayed":
            delayed = delayed_of(fields)
            if delayed.number in seen.delayed:
                raise fields.fault("number", "each number once")
            seen.delayed.add(delayed.number)
            builder.delayed(delayed)
        case "loss":
            builder.loss(loss_of(fields))
        case "time_mark":
            mark = time_mark_of(fields)
            if not seen.mark < mark.lsn <= seen.next_lsn:
                raise fields.fault("lsn", f"ascending numbers up to {seen.next_lsn}")
            seen.mark = mark.lsn
            builder.time_mark(mark)
        case "message":
            entry = entry_of(fields)
            if not seen.lsn < entry.lsn < seen.next_lsn:
                raise fields.fault("lsn", f"ascending numbers below {seen.next_lsn}")
            seen.lsn = entry.lsn
            builder.entry(entry)
        case _:
            raise StoreCorrupt(f"{fields.where}: the type {kind[:40]!r} is unknown")
