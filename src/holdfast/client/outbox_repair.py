"""Repairing a damaged outbox file: what is sound of it goes into a new one.

The pages are read without SQLite, which ends a walk at the first page that it cannot use. A row
counts if its checksum is right. The damaged files stay, whole, under a dated name.
"""

import os
import shutil
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final, cast

import apsw

from holdfast.client.outbox import OutboxFile, lock_of
from holdfast.client.outbox_reading import look_into
from holdfast.client.outbox_rows import (
    IncomingRow,
    OutgoingRow,
    ReleasedRow,
    SessionRow,
    SessionValues,
    loaded_incoming,
    loaded_outgoing,
    loaded_released,
    loaded_session,
)
from holdfast.client.outbox_schema import KIND, MIGRATIONS
from holdfast.client.records import (
    HoldIncoming,
    LoadedOutgoing,
    MarkSent,
    Record,
    ReleaseOutgoing,
    SetNumbers,
    SetSession,
    StoreOutgoing,
)
from holdfast.disk.file_format import migrate
from holdfast.disk.folder import give_to_owner, sync_folder
from holdfast.disk.page_cells import Damaged, Value, decode_record, read_node
from holdfast.disk.page_image import PageImage
from holdfast.disk.page_trees import Tree, Trees
from holdfast.errors import StoreCorrupt, StoreError, StoreTooNew

# Where the numbers to go on with are lost: far beyond any that may have been used, since an
# application may know deliveries by their numbers, and a server messages by their identifiers.
LEAP: Final = 1_000_000_000

_RECORDS_PER_COMMIT: Final = 4096
# By how many columns they have, rows are told apart where nothing else tells.
_COLUMNS: Final = {"outgoing": 8, "released": 3, "incoming": 4, "session": 7}


@dataclass(slots=True)
class OutboxRepair:
    """What a repair has kept, and what is lost or may be."""

    file: str
    set_aside: list[str] = field(default_factory=list)  # the damaged files; none if it was sound
    messages: int = 0
    released: int = 0
    held: int = 0  # packet identifiers of QoS 2 messages that came
    client_id: str = ""
    findings: list[str] = field(default_factory=list)  # what is wrong with the damaged file
    losses: list[str] = field(default_factory=list)  # what is lost, or may be

    @property
    def is_damaged(self) -> bool:
        """Whether something is lost, or may be."""
        return bool(self.losses)


class _Found:
    """The sound rows of a damaged file."""

    def __init__(self) -> None:
        self.session: SessionRow | None = None
        self.outgoing: dict[int, LoadedOutgoing] = {}
        self.released: dict[int, LoadedOutgoing] = {}
        self.incoming: dict[int, HoldIncoming] = {}
        self.damaged_rows = 0


def repair_outbox(path: Path, moment: datetime) -> OutboxRepair:
    """Repair the outbox file of a client that does not run; a sound one is left as it is.

    Raises StoreLocked if a client has it, StoreTooNew or StoreCorrupt if it is not for this
    program to repair, and StoreError.
    """
    path = Path(os.path.realpath(path))
    if not path.is_file():
        raise StoreError(f"{path}: expected the file of an outbox")
    with closing(lock_of(path)):
        report = OutboxRepair(str(path))
        if (done := path.with_name(f"{path.name}.repaired")).exists():
            _put_in_place(path, done)
            report.findings.append("an earlier repair was cut short; it is finished now")
        try:
            loaded = look_into(path)
        except StoreTooNew:
            raise
        except StoreCorrupt as error:
            report.findings.append(str(error).partition(";")[0])
        else:
            report.messages = sum(not entry.is_released for entry in loaded.outgoing)
            report.released = len(loaded.outgoing) - report.messages
            report.held = len(loaded.incoming)
            report.client_id = loaded.client_id
            return report
        try:
            _repair(path, moment, report)
        except OSError as error:
            raise StoreError(f"{path}: cannot repair the outbox: {error.strerror}") from error
        return report


def _repair(path: Path, moment: datetime, report: OutboxRepair) -> None:
    new = path.with_name(f"{path.name}.repairing")
    with PageImage(path) as image:
        trees = Trees(image, _usual_layout())
        found = _read(image, trees)
        _refuse(image, found)
        report.findings += trees.findings()
        _judge(image, trees, found, report)
    for name in _files(new):
        name.unlink(missing_ok=True)
    try:
        _write(new, found, report)
        aside = _set_aside(path, moment)
    except BaseException:
        for name in _files(new):
            name.unlink(missing_ok=True)
        raise
    report.set_aside = [str(name) for name in aside]
    new.with_name(f"{new.name}-lock").unlink(missing_ok=True)
    _put_in_place(path, new.rename(path.with_name(f"{path.name}.repaired")))


def _put_in_place(path: Path, done: Path) -> None:
    """Put a repaired file in the place of the damaged one, which is set aside.

    The log of that one must not be there any more when the new file is; but the damaged file is
    not what it was without it. Should this be cut short, the next repair finishes it.
    """
    sync_folder(path.parent)
    for end in ("-wal", "-shm"):
        path.with_name(f"{path.name}{end}").unlink(missing_ok=True)
    sync_folder(path.parent)
    done.replace(path)
    sync_folder(path.parent)


def _read(image: PageImage, trees: Trees) -> _Found:
    """All sound rows. Pages that are free hold what is over, and are not looked at.

    So may a page that was written over another: of a page whose table is known only that table's
    rows count, with keys that can be there.
    """
    found = _Found()
    tables: dict[int, Tree] = {}
    for tree in trees.by_root.values():
        if tree.name in _COLUMNS:
            tables.update(dict.fromkeys(tree.pages, tree))
    for number in range(2, image.page_count + 1):
        if image.is_map(number) or image.is_free(number):
            continue
        node = read_node(image, number)
        if node is None or not node.is_table or not node.is_leaf:
            continue
        found.damaged_rows += node.cells_lost
        table = tables.get(number)
        for cell in node.cells:
            try:
                values = decode_record(cell.payload or b"")
            except Damaged:
                values = []
            if not (
                _is_at_home(table, number, cell.key, values) and _take(found, cell.key, values)
            ):
                found.damaged_rows += 1
    return found


def _is_at_home(table: Tree | None, page: int, key: int, values: list[Value]) -> bool:
    """Whether a record can be on this page of this table."""
    if table is None or table.name is None:
        return True
    low, high = table.bounds.get(page, (None, None))
    is_within = (low is None or low <= key) and (high is None or key <= high)
    return is_within and len(values) == _COLUMNS[table.name]


def _take(found: _Found, key: int, values: list[Value]) -> bool:
    """Take a record as the row that it is; False if it is none."""
    row = (key, *values[1:])
    try:
        match len(values):
            case 8:
                outgoing = loaded_outgoing(cast(OutgoingRow, row))
                found.outgoing[outgoing.seq] = outgoing
            case 3:
                released = loaded_released(cast(ReleasedRow, row))
                found.released[released.seq] = released
            case 4:
                held = loaded_incoming(cast(IncomingRow, row))
                found.incoming[held.packet_id] = held
            case 7:
                found.session = loaded_session(cast(SessionValues, row))
            case _:
                return False
    except (StoreCorrupt, TypeError, AttributeError, ValueError, OverflowError):
        return False
    return True


def _refuse(image: PageImage, found: _Found) -> None:
    """Raise StoreTooNew or StoreCorrupt for a file that is not for this program to repair."""
    is_ours = image.has_magic and image.application_id == KIND.application_id
    if not (is_ours or found.session is not None or found.outgoing):
        raise StoreCorrupt(
            f"{image.path} is not an outbox of Holdfast, or nothing is left to tell it by: it was"
            " left as it is"
        )
    if is_ours and image.user_version > KIND.newest:
        raise StoreTooNew(
            f"{image.path} was written by a newer Holdfast: its format is {image.user_version},"
            f" this one knows up to {KIND.newest}; it was left as it is"
        )


def _judge(image: PageImage, trees: Trees, found: _Found, report: OutboxRepair) -> None:
    """Say what is lost, or may be, as far as the rest of the file tells."""
    losses = report.losses
    wal = image.wal
    if wal.commits_lost or wal.is_damaged:
        losses.append(f"{wal.commits_lost} of the last commits, in a damaged write-ahead log")
    if image.pages_claimed > image.page_count:
        missing = image.pages_claimed - image.page_count
        losses.append(f"what {missing} pages held: the file is cut short")
    if found.damaged_rows:
        losses.append(f"{found.damaged_rows} damaged rows")
    for table in _COLUMNS:
        tree = trees.named(table)
        for page in (tree.lost + tree.unsound) if tree is not None else []:
            low = "the first" if page.low is None else page.low
            high = "the last" if page.high is None else page.high
            losses.append(f"rows of table {table} from {low} to {high}, as many as there were")
    if found.session is None:
        losses.append(
            "the client identifier, and with it the session that the server may have: give the"
            " client its client_id"
        )
    if not all(trees.named(table) for table in _COLUMNS):
        losses.append("perhaps more rows: what would tell is damaged too")


def _write(new: Path, found: _Found, report: OutboxRepair) -> None:
    """Make the new file."""
    seqs = [*found.outgoing, *found.released]
    last_seq = max(seqs, default=0)
    last_delivery = max((held.delivery_id for held in found.incoming.values()), default=0)
    session = found.session or SessionRow(
        "", False, last_seq + LEAP, last_delivery + LEAP, last_seq + 1
    )
    records: list[Record] = [SetSession(session.client_id, session.has_session)]
    records.append(
        SetNumbers(
            max(session.next_seq, last_seq + 1), max(session.next_delivery_id, last_delivery + 1)
        )
    )
    records.append(MarkSent(session.sent_below))
    for seq in sorted(set(seqs)):
        kept = found.released.get(seq)
        if kept is not None:  # the later word
            records.append(ReleaseOutgoing(seq, kept.queued_at_ms))
            report.released += 1
            continue
        entry = found.outgoing[seq]
        report.messages += 1
        records.append(
            StoreOutgoing(
                seq,
                entry.topic,
                entry.payload,
                entry.qos,
                entry.retain,
                entry.packed_properties,
                entry.expires_at_ms,
                entry.queued_at_ms,
            )
        )
    records += found.incoming.values()
    report.held = len(found.incoming)
    report.client_id = session.client_id
    with closing(OutboxFile(new)) as file:
        for start in range(0, len(records), _RECORDS_PER_COMMIT):
            file.commit(records[start : start + _RECORDS_PER_COMMIT])
        file.load()
    if new.with_name(f"{new.name}-wal").exists():
        raise StoreError(f"{new}: the new outbox could not be closed: is the disk full?")
    give_to_owner(new)


def _set_aside(path: Path, moment: datetime) -> list[Path]:
    """Give the damaged files second names, durably."""
    dated = f"{path.name}.damaged-{moment:%Y%m%dT%H%M%SZ}"
    aside: list[Path] = []
    for end in ("", "-wal"):
        old = path.with_name(f"{path.name}{end}")
        if not old.exists():
            continue
        name = path.with_name(f"{dated}{end}")
        name.unlink(missing_ok=True)
        try:
            os.link(old, name)
        except OSError:  # a file system without second names
            shutil.copyfile(old, name)
            with name.open("rb") as file:
                os.fsync(file.fileno())
            give_to_owner(name)
        aside.append(name)
    sync_folder(path.parent)
    return aside


def _files(path: Path) -> list[Path]:
    return [path.with_name(f"{path.name}{end}") for end in ("", "-wal", "-shm", "-lock")]


def _usual_layout() -> dict[int, str]:
    """The root pages of an outbox, which is made in one go."""
    connection = apsw.Connection(":memory:")
    try:
        connection.pragma("auto_vacuum", "incremental")
        migrate(connection, KIND, 0, MIGRATIONS)
        found = connection.execute("SELECT rootpage, name FROM sqlite_schema").fetchall()
        return {int(str(root)): str(name) for root, name in found}
    finally:
        connection.close()
