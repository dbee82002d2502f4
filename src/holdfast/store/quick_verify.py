"""A look at a store before it is opened: is it as it was written? Nothing is changed by it.

Opening would carry the write-ahead log over into the file, and so make the damage of one that of
both: whatever is wrong has to be seen before.
"""

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, final

import apsw

from holdfast.disk.file_format import BUSY_TIMEOUT_MS, store_error
from holdfast.disk.page_cells import Damaged, Value, decode_record, read_node
from holdfast.disk.page_image import PageImage
from holdfast.disk.page_trees import Trees
from holdfast.errors import StoreCorrupt
from holdfast.store.salvage import looks
from holdfast.store.salvage_rows import Shape, expect_checksums, read_shapes
from holdfast.store.schema import CHECKED_FORMAT, may_hold_unchecked

# A store up to this size is looked at whole after an end that was not clean, for so long at most.
# Of a larger one only its form is: what is loaded at the start is checked then, messages when read.
WHOLE_BYTES_MAX: Final = 64 * 1024 * 1024
WHOLE_BUDGET_S: Final = 1.0
_FINDINGS_MAX: Final = 20  # one is enough to repair; more help to understand
_ROWS_PER_LOOK: Final = 512  # at the clock


@dataclass(slots=True)
class Verification:
    """What a look found, in words, and the tables that it did not get to the end of."""

    findings: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    @property
    def is_sound(self) -> bool:
        return not self.findings


def quick_verify(
    path: Path, *, whole_bytes_max: float = WHOLE_BYTES_MAX, budget_s: float = WHOLE_BUDGET_S
) -> Verification:
    """Look for damage in a store's file and its write-ahead log, for a bounded time.

    A file of up to ``whole_bytes_max`` is looked at whole: SQLite's own check of every page, then
    the checksum and the content of every row. Of a larger one only the form is: the header, the
    sizes, the write-ahead log. With infinity for both, nothing is left out.

    The store must not be open elsewhere. Raises StoreError if it cannot be read at all.
    """
    found = Verification()
    with PageImage(path) as image:
        found.findings += looks(image)
        if found.findings:
            return found  # SQLite would see only a part of it
        size = image.file_bytes + image.wal.file_bytes
        if size > whole_bytes_max:
            found.skipped.append("all tables")
            return found
        _Look(path, image, found, time.monotonic() + budget_s).run()
    return found


@final
class _Look:
    def __init__(self, path: Path, image: PageImage, found: Verification, until_s: float) -> None:
        self._path = path
        self._image = image
        self._found = found
        self._until_s = until_s

    def run(self) -> None:
        try:
            try:
                self._run("exclusive")
            except apsw.BusyError:
                self._run("normal")  # another program reads the store
        except (apsw.CorruptError, apsw.NotADBError) as error:
            self._find(f"SQLite cannot read the file: {error}")
        except apsw.Error as error:
            raise store_error(self._path, "looking for damage", error) from error

    def _run(self, locking_mode: str) -> None:
        with _reading(self._path, locking_mode) as connection:
            shapes = _present_shapes(connection)
            self._check_structure(connection, f"({_FINDINGS_MAX})")
            if not self._found.findings:
                self._expect_checksums(connection, shapes)
            for shape in shapes.values():
                if not self._found.findings:
                    self._check_rows(connection, shape)

    def _find(self, text: str) -> None:
        if len(self._found.findings) < _FINDINGS_MAX:
            self._found.findings.append(text)

    def _is_time_up(self) -> bool:
        return time.monotonic() > self._until_s

    def _check_structure(self, connection: apsw.Connection, argument: str) -> None:
        """SQLite's own check; it is given up when the time is over."""
        if self._is_time_up():
            return
        connection.set_progress_handler(self._is_time_up, 100_000)
        try:
            for (text,) in connection.execute(f"PRAGMA integrity_check{argument}"):
                if text != "ok":
                    self._find(f"SQLite: {'; '.join(str(text).splitlines())}")
        except apsw.InterruptError:
            pass
        finally:
            connection.set_progress_handler(None)

    def _expect_checksums(self, connection: apsw.Connection, shapes: dict[str, Shape]) -> None:
        """Find out whether the store may hold rows without a checksum."""
        if int(str(connection.pragma("user_version"))) < CHECKED_FORMAT:
            return
        try:
            expect_checksums(shapes, may_hold_unchecked(connection))
        except StoreCorrupt as error:
            self._find(str(error))

    def _check_rows(self, connection: apsw.Connection, shape: Shape) -> None:
        """Checksum and content of each row of a table."""
        has_unchecked = False
        rows = connection.execute(f"SELECT * FROM {shape.name}")
        for index, row in enumerate(rows):
            if index % _ROWS_PER_LOOK == 0 and self._is_time_up():
                self._found.skipped.append(shape.name)
                return
            values: list[Value] = list(row)
            rowid = 0
            if shape.key >= 0:
                rowid, values[shape.key] = int(str(values[shape.key])), None
            try:
                sound = shape.row(rowid, values)
            except Damaged:
                self._find(f"table {shape.name}: the row {_key(shape, row)} is damaged")
                continue
            has_unchecked = has_unchecked or sound.get("crc") == 0
        if has_unchecked:
            self._check_records(shape)

    def _check_records(self, shape: Shape) -> None:
        """Rows without a checksum: they have none, or it was filled with zeros, as pages are.

        The record's own form tells: SQLite writes a 0 that it means without any byte.
        """
        tree = Trees(self._image).named(shape.name)
        for number in tree.pages if tree is not None else []:
            if self._is_time_up():
                self._found.skipped.append(shape.name)
                return
            node = read_node(self._image, number)
            for cell in node.cells if node is not None else []:
                try:
                    decode_record(cell.payload or b"")
                except Damaged:
                    self._find(f"table {shape.name}: a row of page {number} is damaged")


@contextmanager
def _reading(path: Path, locking_mode: str) -> Iterator[apsw.Connection]:
    """A connection that writes nothing, and makes no files beside the store.

    The index of a write-ahead log is kept in memory, with the locking mode exclusive. Where there
    is no log, none is to be made.
    """
    name = str(path)
    flags = apsw.SQLITE_OPEN_READWRITE
    if not path.with_name(f"{path.name}-wal").exists():
        name = f"{path.absolute().as_uri()}?immutable=1"
        flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    with closing(apsw.Connection(name, flags=flags)) as connection:
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        # A reader may stay for long; a writer that recovers the log does not.
        connection.set_busy_timeout(BUSY_TIMEOUT_MS if locking_mode == "normal" else 0)
        connection.pragma("locking_mode", locking_mode)
        connection.pragma("query_only", True)
        yield connection


def _present_shapes(connection: apsw.Connection) -> dict[str, Shape]:
    """The tables that a file has; one of an older format lacks some."""
    found = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
    present = {str(name) for (name,) in found}
    return {name: shape for name, shape in read_shapes().items() if name in present}


def _key(shape: Shape, row: tuple[Value, ...]) -> str:
    if shape.key >= 0:
        return str(row[shape.key])
    return repr(row[0])
