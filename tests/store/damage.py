"""A store with everything in it, where each of its rows lies, and ways to damage its files."""

import json
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import apsw

from holdfast.broker.broker import Broker
from holdfast.broker.limits import Limits
from holdfast.disk.page_cells import TABLE_INTERIOR, Value, decode_record, read_node
from holdfast.disk.page_image import OVERFLOW_FIRST, OVERFLOW_NEXT, PageImage
from holdfast.disk.page_trees import Trees
from holdfast.message import Message, Properties
from holdfast.protocol.sender import RELEASED
from holdfast.store.quick_verify import quick_verify
from holdfast.store.records import (
    OPEN,
    Batch,
    DelayedRecord,
    FilterSpan,
    GroupRecord,
    LogEntry,
    LossRecord,
    ReadRequest,
    RetainedRecord,
    SessionRecord,
    StateRecord,
    SubscriptionRecord,
    TimeMark,
    pack_gaps,
    pack_in_flight,
    pack_lsns,
    unpack_in_flight,
)
from holdfast.store.repair_report import RepairReport
from holdfast.store.salvage import repair
from holdfast.store.sqlite import FILE_NAME, open_store
from tests.store.support import PLENTY, folder_content, message, read_all

PAGE: Final = 4096  # bytes
WAL: Final = f"{FILE_NAME}-wal"
NOW: Final = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
ASIDE: Final = f"{FILE_NAME}.damaged-20260304T050607Z"
TABLES: Final = (
    *("topics", "log", "sessions", "states", "subscriptions", "retained"),
    *("shared_groups", "delayed", "losses", "time_marks"),
)
KEYS: Final = {"subscriptions": 3}  # columns of the key; 1 in all others

Key = tuple[Value, ...]
Rows = dict[Key, tuple[Value, ...]]
Content = dict[str, Rows]


def fill(folder: Path, *, sessions: int = 60, turns: int = 30, seed: int = 1) -> int:
    """Make a store with everything in it; returns the lsn that comes next.

    It is left as a broker that was killed leaves it, with a write-ahead log.
    """
    chance = random.Random(seed)
    store = open_store(folder)
    lsn = 1
    for turn in range(turns):
        batch = Batch()
        for _ in range(12):
            target = chance.randrange(1, turn * sessions // turns + 2) if turn > 2 else 0
            batch.entries.append(
                LogEntry(lsn, _message(chance, lsn), target if chance.random() < 0.2 else 0)
            )
            lsn += 1
        for number in range(turn * sessions // turns + 1, (turn + 1) * sessions // turns + 1):
            _add_session(batch, chance, number, lsn)
        batch.retained = [
            RetainedRecord(f"kept/{chance.randrange(90)}", _message(chance, lsn, f"kept/{n}"))
            for n in (chance.randrange(90) for _ in range(4))
        ]
        for slot in batch.retained:
            assert slot.message is not None
            slot.message.topic = slot.topic
        batch.groups = [
            GroupRecord(
                1000 + turn,
                f"$share/group-{turn}/{'long/' * 12}{turn}",
                max(1, lsn - 20),
                pack_lsns([max(1, lsn - 30), max(2, lsn - 25)]),
                pack_gaps([(1, 3)]),
            )
        ]
        batch.subscriptions.append(
            SubscriptionRecord(1, batch.groups[0].topic_filter, 1, OPEN, 1, 0)
        )
        batch.delayed = [
            DelayedRecord(turn * 3 + n + 1, 10**12 + n, 60, _message(chance, n)) for n in range(3)
        ]
        batch.losses = [LossRecord(turn + 1, turn, 10 * turn, 10**12, 1)]
        batch.time_marks = [TimeMark(lsn, 10**12 + lsn)]
        store.commit(batch)
    # Some pages become free, and hold what is gone.
    ended = Batch()
    ended.ended = [sessions - 2, sessions - 1]
    store.commit(ended)
    while store.trim(lsn // 6):
        pass
    _kill(store, folder)
    return lsn


def _message(chance: random.Random, lsn: int, topic: str = "") -> Message:
    size = chance.choice((0, 9, 40, 300, 1500, 6000))
    found = message(
        topic or f"{'plant/' * 4}{chance.randrange(110)}",
        b"%d " % lsn + chance.randbytes(size),
        chance.randrange(3),
        publisher=f"client-{chance.randrange(4)}",
    )
    if chance.random() < 0.2:
        found.properties = Properties()
        found.properties.content_type = "text/plain"
        found.properties.user_properties = [("a", "b")]
    return found


def _add_session(batch: Batch, chance: random.Random, number: int, lsn: int) -> None:
    client_id = f"client-{number}-{'x' * 40}"
    will = _message(chance, lsn) if number % 3 == 0 else None
    batch.sessions.append(SessionRecord(number, client_id, 5, 2, 3600, 10**12, will, 5, 0))
    in_flight = {
        packet_id: max(1, lsn - packet_id) * 4 + packet_id % 2 for packet_id in range(1, 9)
    }
    in_flight[99] = RELEASED
    batch.states.append(
        StateRecord(number, lsn, pack_in_flight(in_flight), b"\x00\x01\x00\x02", pack_gaps([]))
    )
    for n in range(6):
        batch.subscriptions.append(
            SubscriptionRecord(
                number, f"{'plant/' * 4}{chance.randrange(110)}/{n}", lsn, OPEN, n % 3, n
            )
        )
    batch.subscriptions.append(SubscriptionRecord(number, "plant/#", max(1, lsn - 9), lsn, 1, 0))


def _kill(store: object, folder: Path) -> None:
    """End a store like a process that is killed: its files stay as they are."""
    shutil.copytree(folder, folder.with_name("killed"))
    store.close()  # type: ignore[attr-defined]  # any store
    shutil.rmtree(folder)
    folder.with_name("killed").rename(folder)
    (folder / f"{FILE_NAME}-shm").unlink()


def settle(folder: Path) -> None:
    """Carry the write-ahead log over, so that the file has everything."""
    open_store(folder).close()
    assert not (folder / WAL).exists()


def content(folder: Path) -> Content:
    """All rows of a store, but for what is counted."""
    connection = apsw.Connection(str(folder / FILE_NAME))
    try:
        return {
            table: {
                tuple(row[: KEYS.get(table, 1)]): tuple(row)
                for row in connection.execute(f"SELECT * FROM {table}")
            }
            for table in TABLES
        }
    finally:
        connection.close()


def counters(folder: Path) -> dict[str, int]:
    """What is counted in a store."""
    connection = apsw.Connection(str(folder / FILE_NAME))
    try:
        found = connection.execute("SELECT name, value FROM meta").fetchall()
        return {str(name): int(str(value)) for name, value in found}
    finally:
        connection.close()


def is_sound(folder: Path) -> bool:
    """Whether SQLite finds nothing wrong with a store's file."""
    connection = apsw.Connection(str(folder / FILE_NAME))
    try:
        return connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    finally:
        connection.close()


@dataclass
class Places:
    """Where a store's rows lie: by page, those that are lost with it."""

    count: int = 0
    rows: dict[int, list[tuple[str, Key]]] = field(default_factory=dict)
    owners: dict[int, str] = field(default_factory=dict)  # of each page, the table or index
    free: set[int] = field(default_factory=set)


def places(folder: Path) -> Places:
    """Find the rows of a sound store; the file must have everything."""
    found = Places()
    with PageImage(folder / FILE_NAME) as image:
        found.count = image.page_count
        for tree in Trees(image).by_root.values():
            assert tree.is_whole
            for number in tree.pages:
                found.owners[number] = tree.name or ""
                for key in _keys(image, number, tree.name or ""):
                    found.rows.setdefault(number, []).append((tree.name or "", key))
        for number in range(2, image.page_count + 1):
            kind, parent = image.pointer(number)
            if image.is_map(number):
                found.owners[number] = "pointer map"
            elif image.is_free(number):
                found.owners[number] = "free"
                found.free.add(number)
            elif kind in (OVERFLOW_FIRST, OVERFLOW_NEXT):
                found.owners[number] = "overflow"
                while kind == OVERFLOW_NEXT:
                    kind, parent = image.pointer(parent)
                table = found.owners[parent]
                # Whose page of the several rows there it is, does not matter for what may be lost.
                found.rows[number] = found.rows[parent] if table in TABLES else []
    return found


def _keys(image: PageImage, number: int, table: str) -> Iterator[Key]:
    node = read_node(image, number)
    assert node is not None
    assert node.kind != TABLE_INTERIOR
    for cell in node.cells:
        assert cell.payload is not None
        values = decode_record(cell.payload)
        yield (cell.key,) if node.is_table else tuple(values[: KEYS.get(table, 1)])


def zero(path: Path, number: int) -> None:
    """Fill a page with zeros."""
    overwrite(path, (number - 1) * PAGE, bytes(PAGE))


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def flip(path: Path, bit: int) -> None:
    """Turn one bit of a file over."""
    with path.open("r+b") as file:
        file.seek(bit // 8)
        (byte,) = file.read(1)
        file.seek(bit // 8)
        file.write(bytes([byte ^ 1 << bit % 8]))


def cut(path: Path, size: int) -> None:
    with path.open("r+b") as file:
        file.truncate(size)


def settled(folder: Path) -> Content:
    """What a store holds with its write-ahead log, as SQLite reads it."""
    copy = folder.with_name("copy")
    shutil.copytree(folder, copy)
    settle(copy)
    found = content(copy)
    shutil.rmtree(copy)
    return found


class Damaged:
    """A store that was sound, with what it held, in a folder to be damaged."""

    def __init__(self, folder: Path, before: Content, where: Places) -> None:
        self.folder = folder
        self.file = folder / FILE_NAME
        self.before = before
        self.where = where
        self.counters = counters(folder)

    def again(self) -> None:
        """Undo the damage and the repair."""
        shutil.rmtree(self.folder)
        shutil.copytree(self.folder.with_name("sound"), self.folder)

    def repair(self) -> RepairReport:
        """Repair, and check all that holds for every repair."""
        damaged = folder_content(self.folder)
        report = repair(self.folder, now=NOW)
        after = content(self.folder)
        assert quick_verify(self.file).findings == []
        assert report.set_aside == [
            name.replace(FILE_NAME, ASIDE) for name in (FILE_NAME, WAL) if name in damaged
        ]
        for name in report.set_aside:
            assert (self.folder / name).read_bytes() == damaged[name.replace(ASIDE, FILE_NAME)]
        assert json.loads((self.folder / report.report_file).read_text()) == json.loads(
            json.dumps(report.to_json())
        )
        self._check_nothing_is_new(after, report)
        self._check_the_loss_is_told(after, report)
        assert report.next_lsn >= self.counters["next_lsn"]
        assert report.next_session >= self.counters["next_session"]
        assert counters(self.folder)["next_lsn"] == report.next_lsn
        check_a_broker_starts(self.folder)
        return report

    def lost(self) -> set[str]:
        """The tables that have lost rows, or have other ones."""
        after = content(self.folder)
        return {
            table
            for table in TABLES
            if any(
                # What a session has lost may have grown by this.
                key not in after[table] if table == "losses" else after[table].get(key) != row
                for key, row in self.before[table].items()
            )
        }

    def _check_nothing_is_new(self, after: Content, report: RepairReport) -> None:
        """What is there was there before, but for what is made anew and told."""
        restarted = {session.number for session in report.sessions if session.is_restarted}
        for table in set(TABLES) - {"losses"}:
            for key, row in after[table].items():
                if table == "states" and self.before[table].get(key) != row:
                    assert key[0] in restarted or _only_sends_less(self.before[table][key], row)
                elif table == "shared_groups" and key not in self.before[table]:
                    assert row[1] in report.groups
                else:
                    assert self.before[table].get(key) == row, f"{table} {key}"

    def _check_the_loss_is_told(self, after: Content, report: RepairReport) -> None:
        named = {session.number for session in report.sessions}
        assert report.sessions_touched == len(named)
        for table in TABLES:
            missing = self.before[table].keys() - after[table].keys()
            if missing:
                assert report.tables[table].is_damaged, table
            if table in ("sessions", "states", "subscriptions"):
                # Of a session whose pages are all lost, not even the number is left.
                unknown = {key[0] for key in missing} - named
                assert not unknown & {key[0] for key in after["sessions"]}
                assert not unknown or report.tables["sessions"].pages_lost > 0
            if table == "log":
                spans = report.lsns_missing
                ended = {session.number for session in report.sessions if session.is_ended}
                for key in missing:
                    lsn, target = key[0], self.before[table][key][3]
                    assert isinstance(lsn, int)
                    assert target in ended or any(low <= lsn < high for low, high in spans)


def _only_sends_less(before: tuple[object, ...], after: tuple[object, ...]) -> bool:
    """Whether a state is another only in that some messages are not in flight any more."""
    assert isinstance(before[2], bytes)
    assert isinstance(after[2], bytes)
    old, new = unpack_in_flight(before[2]), unpack_in_flight(after[2])
    kept = {packet_id: value for packet_id, value in new.items() if old.get(packet_id) == value}
    released = {packet_id for packet_id in new if packet_id not in kept}
    return (
        before[:2] == after[:2]
        and before[3:5] == after[3:5]
        and all(old[packet_id] & 3 == 1 and new[packet_id] == 2 for packet_id in released)
    )


def check_a_broker_starts(folder: Path) -> None:
    """Whether a broker takes up what a store holds, and can read all of its log."""
    store = open_store(folder)
    try:
        snapshot = store.load()
        Broker(Limits(), snapshot, 10**12, instance="i", version="v")
        request = ReadRequest(1, 1, snapshot.next_lsn, [FilterSpan("#", 0, 0)], PLENTY, PLENTY)
        read_all(store, request)
    finally:
        store.close()
