"""The rows that are sound, out of the pages of a damaged file and into a new one."""

from collections.abc import Iterator
from typing import Final, final

import apsw

from holdfast.disk.checksums import row_checksum
from holdfast.disk.page_cells import Damaged, Value, decode_record, read_node
from holdfast.disk.page_image import PageImage
from holdfast.disk.page_trees import LostPage, Tree, Trees
from holdfast.errors import ProtocolError
from holdfast.protocol.topics import check_topic
from holdfast.store.repair_report import RepairReport, TableReport
from holdfast.store.salvage_rows import Shape, usual_layout
from holdfast.store.schema import UNCHECKED_ROWS

TOPICS_INDEX: Final = "sqlite_autoindex_topics_1"
_SAMPLED_PAGES_MAX: Final = 16  # looked at to tell whose tree it is

Rows = list[tuple[Value, ...]]


@final
class Copy:
    """Copies table by table; what is lost is kept for whoever works out what that means."""

    def __init__(
        self,
        image: PageImage,
        trees: Trees,
        connection: apsw.Connection,
        shapes: dict[str, Shape],
        report: RepairReport,
    ) -> None:
        self._image = image
        self._trees = trees
        self._cursor = connection.cursor()
        self.shapes = shapes
        self._report = report
        # A table of which too little is left to tell which it was.
        self._has_nameless_loss = not trees.is_schema_whole and any(
            tree.name is None and not tree.is_whole for tree in trees.by_root.values()
        )
        # By table: the pages and the rows that are lost, these by rowid or first column.
        self.lost_pages: dict[str, list[LostPage]] = {}
        self.lost_keys: dict[str, list[int]] = {}
        self.lost_blocks: list[tuple[int, int]] = []  # of the log, from and to, with no topic
        self.lost_client_ids: dict[int, str] = {}  # as they read, in rows that are damaged

    def run(self) -> None:
        """Copy all tables."""
        for shape in self.shapes.values():
            self._copy_table(shape)
        if self._report.tables["topics"].is_damaged:
            self._restore_topics()

    def index_rows(self, name: str) -> Iterator[list[Value]]:
        """The rows of an index, as far as they are there."""
        for tree in self._trees.by_root.values():
            if tree.name == name:
                for _, values, _ in _cells(self._image, tree.pages):
                    if values is not None:
                        yield values

    def is_index_whole(self, name: str) -> bool:
        """Whether an index has lost nothing, so that it says what there was."""
        trees = [tree for tree in self._trees.by_root.values() if tree.name == name]
        return len(trees) == 1 and trees[0].is_whole and not trees[0].is_table

    def _copy_table(self, shape: Shape) -> None:
        name = shape.name
        table = self._report.tables[name] = TableReport()
        lost_pages = self.lost_pages[name] = []
        trees = [tree for tree in self._trees.by_root.values() if tree.name == name]
        if not trees or self._has_nameless_loss:
            lost_pages.append(LostPage(0, None, None))
        places = ", ".join("?" * len(shape.columns))
        statement = f"INSERT OR IGNORE INTO {name} VALUES ({places})"
        if name == "meta":
            statement = statement.replace("IGNORE", "REPLACE")
        self.lost_keys[name] = []
        for tree in trees:
            lost_pages += tree.lost + tree.unsound
            if tree.pages and tree.is_table != shape.is_table:
                lost_pages.append(LostPage(tree.root, None, None))
            for number in tree.pages:
                low, high = tree.bounds.get(number, (None, None))
                rows = self._sound_rows(shape, number, table)
                if not all(_is_within(row[max(0, shape.key)], low, high) for row in rows):
                    # The page of another place was written here; or the bounds are damaged.
                    lost_pages.append(LostPage(number, low, high))
                if name == "meta":  # the new file has its own: all that it gets has a checksum
                    rows = [row for row in rows if row[0] != UNCHECKED_ROWS]
                before = self._changes()
                self._cursor.executemany(statement, rows)
                kept = self._changes() - before
                table.kept += kept
                table.lost += len(rows) - kept
                if kept < len(rows):
                    # Which of the two pages with these rows was another before, nobody knows.
                    lost_pages.append(LostPage(number, None, None))
        table.pages_lost = len(lost_pages)

    def _changes(self) -> int:
        return self._cursor.connection.total_changes()

    def _sound_rows(self, shape: Shape, number: int, table: TableReport) -> Rows:
        """The rows of one page that are sound; the others are counted."""
        node = read_node(self._image, number)
        rows: Rows = []
        if node is None:
            return rows
        table.lost += node.cells_lost
        for cell in node.cells:
            values: list[Value] = []
            try:
                values = decode_record(cell.payload or b"")
                row = shape.row(cell.key, values, is_doubtful=cell.is_doubtful)
            except Damaged:
                table.lost += 1
                self._note_lost(shape, cell.key, values)
                continue
            rows.append(shape.sealed(row))
        return rows

    def _note_lost(self, shape: Shape, key: int, values: list[Value]) -> None:
        if not shape.is_table:
            first = values[0] if values else None
            key = first if isinstance(first, int) else 0
        self.lost_keys[shape.name].append(key)
        if shape.name == "sessions" and len(values) > 1 and isinstance(values[1], str):
            self.lost_client_ids[key] = values[1]

    def _restore_topics(self) -> None:
        """Take names that the table lost from its index, which has them a second time."""
        table = self._report.tables["topics"]
        for values in self.index_rows(TOPICS_INDEX):
            if len(values) != 2:
                continue
            name, number = values
            if not isinstance(name, str) or not isinstance(number, int) or number < 1:
                continue
            try:
                check_topic(name)
            except ProtocolError:
                continue
            before = self._changes()
            row = self.shapes["topics"].sealed({"number": number, "name": name})
            places = ", ".join("?" * len(row))
            self._cursor.execute(f"INSERT OR IGNORE INTO topics VALUES ({places})", row)
            table.restored += self._changes() - before
        table.kept += table.restored
        table.lost = max(0, table.lost - table.restored)
        if self.is_index_whole(TOPICS_INDEX):
            table.lost = table.pages_lost = 0


def _is_within(key: Value, low: int | None, high: int | None) -> bool:
    """Whether a key lies between those of the pages beside; True if it has no order here."""
    if not isinstance(key, int):
        return True
    return (low is None or low <= key) and (high is None or key <= high)


def name_trees(image: PageImage, trees: Trees, shapes: dict[str, Shape]) -> None:
    """Tell from their rows whose trees those are that the schema does not name."""
    for number in trees.strays:
        name = recognise(image, [number], shapes)
        if name is not None:
            stray = trees.by_root[number] = Tree(number)
            stray.name = name
            stray.is_table = name in shapes and shapes[name].is_table
            stray.pages = [number]
    if trees.is_schema_whole:
        return
    named = {tree.name for tree in trees.by_root.values()}
    for tree in trees.by_root.values():
        if tree.name is None:
            tree.name = recognise(image, tree.pages, shapes)
    layout = usual_layout()
    found = {root: tree.name for root, tree in trees.by_root.items() if tree.name is not None}
    if found and all(layout.get(root) == name for root, name in found.items()):
        # The tables lie as they were made; so those do that have no row to tell them by.
        for root, tree in trees.by_root.items():
            if tree.name is None and layout.get(root) not in named:
                tree.name = layout.get(root)


def read_unchecked(image: PageImage, trees: Trees) -> bool | None:
    """Whether a store says that it may hold rows without a checksum; None if that is not there.

    It is not in an older format either. Where two copies of the row differ, it may.
    """
    found: set[bool] = set()
    for tree in trees.by_root.values():
        if tree.name == "meta":
            for _, values, _ in _cells(image, tree.pages):
                if values is not None and len(values) == 3 and values[0] == UNCHECKED_ROWS:
                    *row, checksum = values
                    if checksum == row_checksum(row):
                        found.add(row[1] != 0)
    return any(found) if found else None


def recognise(image: PageImage, pages: list[int], shapes: dict[str, Shape]) -> str | None:
    """The table whose rows these pages hold; None if that cannot be told."""
    counts: dict[str, int] = {}
    total = 0
    has_counters = False
    for number in pages[:_SAMPLED_PAGES_MAX]:
        node = read_node(image, number)
        for key, values, is_doubtful in _cells(image, [number]):
            total += 1
            if node is None or values is None or is_doubtful:
                continue
            has_counters = has_counters or values[:1] == ["next_lsn"]
            for name in _fitting(shapes, node.is_table, key, values):
                counts[name] = counts.get(name, 0) + 1
    if has_counters:
        return "meta"
    if "meta" in counts:
        counts[TOPICS_INDEX] = counts.pop("meta")  # both have a name and a number
    best = max(counts, key=lambda name: counts[name], default=None)
    return best if best is not None and counts[best] * 2 > total else None


def has_proven_row(image: PageImage, pages: list[int], shape: Shape) -> bool:
    """Whether there is a row that only a store of ours has: one with its checksum, or a counter."""
    for key, values, _ in _cells(image, pages[:_SAMPLED_PAGES_MAX]):
        try:
            row = shape.row(key, values or [], is_strange=True)
        except Damaged:
            continue
        if row.get("crc") or row.get("name") == "next_lsn":
            return True
    return False


def _fitting(
    shapes: dict[str, Shape], is_table: bool, key: int, values: list[Value]
) -> Iterator[str]:
    for shape in shapes.values():
        if shape.is_table == is_table:
            try:
                shape.row(key, values, is_strange=True)
            except Damaged:
                continue
            yield shape.name


def _cells(image: PageImage, pages: list[int]) -> Iterator[tuple[int, list[Value] | None, bool]]:
    """The records of pages with their rowids, and None where one is damaged."""
    for number in pages:
        node = read_node(image, number)
        for cell in node.cells if node is not None else []:
            try:
                values: list[Value] | None = decode_record(cell.payload or b"")
            except Damaged:
                values = None
            yield cell.key, values, cell.is_doubtful
