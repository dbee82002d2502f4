"""Which page belongs to which table of a damaged file, and which stretches of a table are lost.

Pages are found from above, by the tree of each table, and from below, by the pointer map, in which
every page names its parent: so leaves are found though the page above them is gone.
"""

from collections.abc import Iterable
from typing import Final, final

from holdfast.disk.page_cells import Damaged, Node, decode_record, read_node
from holdfast.disk.page_image import FREE, ROOT, TREE, UNKNOWN, PageImage

_DEPTH_MAX: Final = 32  # of a tree; with a fan-out of 2 that is more pages than a file can have
_SCHEMA_ROOT: Final = 1
_PAGES_TOLD: Final = 10


@final
class LostPage:
    """A page that cannot be read whole, and which keys it may have held: low <= key <= high.

    The key is the rowid, or the first column of an index if that is a number. Either bound is None
    where it is not known.
    """

    def __init__(self, number: int, low: int | None, high: int | None) -> None:
        self.number = number
        self.low = low
        self.high = high


@final
class Tree:
    """One table or index: its pages that can hold rows, in order as far as it is known."""

    def __init__(self, root: int) -> None:
        self.root = root
        self.name: str | None = None  # None if the schema does not say
        self.is_table = True
        self.pages: list[int] = []
        self.bounds: dict[int, tuple[int | None, int | None]] = {}  # of a page's keys, by page
        self.lost: list[LostPage] = []
        self.unsound: list[LostPage] = []  # pages of which some rows may be gone
        self.bypassed: list[LostPage] = []  # lost ones that have no rows

    @property
    def is_whole(self) -> bool:
        return not self.lost and not self.unsound


@final
class Trees:
    """All tables and indexes of a file, by root page; ``strays`` are pages of none of them."""

    def __init__(self, image: PageImage, likely_roots: Iterable[int] = ()) -> None:
        """``likely_roots`` are tried where the schema does not say all."""
        self._image = image
        self._seen: dict[int, int] = {}  # pages and the roots of their trees
        self.by_root: dict[int, Tree] = {}
        self.strays: list[int] = []
        self._adopted: set[int] = set()  # pages that are named as parents only by the map
        self.is_schema_whole = False
        self.is_map_whole = True  # as far as pages are concerned that the trees lead to
        names = self._read_schema()
        roots = set(names)
        for number in range(3, min(image.page_count, image.pages_claimed) + 1):
            if image.pointer(number)[0] == ROOT and not image.is_map(number):
                roots.add(number)
        if not self.is_schema_whole:
            roots.update(number for number in likely_roots if image.pointer(number)[0] == UNKNOWN)
        for root in sorted(roots):
            if root not in self._seen:
                tree = self._walk(root)
                tree.name = names.get(root)
        self._find_orphans()

    def named(self, name: str) -> Tree | None:
        """The tree of a table or index, if there is one."""
        for tree in self.by_root.values():
            if tree.name == name:
                return tree
        return None

    def findings(self) -> list[str]:
        """What is wrong with the pages, in words."""
        found: list[str] = []
        if not self.is_schema_whole:
            found.append("the schema is damaged")
        if not self.is_map_whole:
            found.append("the pointer map is damaged")
        if not self._image.is_free_list_sound:
            found.append("the list of free pages is damaged")
        for tree in self.by_root.values():
            name = tree.name or "an unknown table"
            lost = tree.lost + tree.unsound + tree.bypassed
            pages = sorted({page.number for page in lost if page.number > 0})
            if pages:
                listed = ", ".join(map(str, pages[:_PAGES_TOLD]))
                more = f" and {len(pages) - _PAGES_TOLD} more" if len(pages) > _PAGES_TOLD else ""
                found.append(f"{name}: damage on page {listed}{more}")
            elif not tree.is_whole:
                found.append(f"{name}: damaged")
        return found

    def _read_schema(self) -> dict[int, str]:
        """The names of the trees, by root page, as far as page 1 is there."""
        tree = self._walk(_SCHEMA_ROOT)
        names: dict[int, str] = {}
        self.is_schema_whole = tree.is_whole
        for number in tree.pages:
            node = read_node(self._image, number)
            for cell in node.cells if node is not None else []:
                try:
                    values = decode_record(cell.payload or b"")
                except Damaged:
                    values = []
                if len(values) < 4:
                    self.is_schema_whole = False
                    continue
                name, root = values[1], values[3]
                if isinstance(name, str) and isinstance(root, int):
                    names[root] = name
        del self.by_root[_SCHEMA_ROOT]
        return names

    def _walk(self, root: int) -> Tree:
        """Collect a tree from its root down, in the order of its rows."""
        tree = self.by_root[root] = Tree(root)
        top = read_node(self._image, root, with_payload=False)
        self._seen[root] = root
        if top is None:
            tree.lost.append(LostPage(root, None, None))
            return tree
        tree.is_table = top.is_table
        self._enter(tree, top, None, None, 0)
        return tree

    def _enter(self, tree: Tree, node: Node, low: int | None, high: int | None, depth: int) -> None:
        """Take a page of a tree and all below it."""
        if node.is_leaf or not node.is_table:
            tree.pages.append(node.number)
            tree.bounds[node.number] = (low, high)
        if node.may_miss_cells:
            tree.unsound.append(LostPage(node.number, low, high))
            if not node.is_leaf:
                # A child that the page no longer names; the pointer map may still lead to it.
                tree.lost.append(LostPage(0, low, high))
        keys = self._keys(node)
        for index, (number, _) in enumerate(node.children):
            bound = keys[index] if index < len(keys) else high
            child = self._child(tree, node, number) if depth < _DEPTH_MAX else None
            if child is None:
                tree.lost.append(LostPage(number, low, bound))
            else:
                self._seen[number] = tree.root
                self._enter(tree, child, low, bound, depth + 1)
            low = bound

    def _keys(self, node: Node) -> list[int | None]:
        """The keys between the children of a page."""
        if node.is_leaf:
            return []
        if node.is_table:
            return [key for _, key in node.children[:-1]]
        keys: list[int | None] = []
        whole = read_node(self._image, node.number)
        for cell in whole.cells if whole is not None else []:
            try:
                first = decode_record(cell.payload or b"")[0]
            except (Damaged, IndexError):
                first = None
            keys.append(first if isinstance(first, int) else None)
        return keys

    def _child(self, tree: Tree, parent: Node, number: int) -> Node | None:
        """A page that another names as its child; None if that cannot be, or it is damaged."""
        image = self._image
        if number < 3 or number in self._seen or image.is_map(number):
            return None
        kind, mapped_parent = image.pointer(number)
        if (kind, mapped_parent) != (TREE, parent.number):
            self.is_map_whole = False
        if kind == FREE or (kind == UNKNOWN and number in image.free_pages):
            return None
        if kind == TREE and mapped_parent != parent.number:
            # Either the map is wrong or the page above; the one that is confirmed is not.
            other = read_node(image, mapped_parent, with_payload=False)
            if other is not None and any(number == child for child, _ in other.children):
                return None
        node = read_node(image, number, with_payload=False)
        if node is None or node.is_table != tree.is_table:
            return None
        return node

    def _find_orphans(self) -> None:
        """Give pages that no page above leads to a place, by the pointer map."""
        image = self._image
        missed: list[tuple[Tree, int]] = []
        for number in range(3, min(image.page_count, image.pages_claimed) + 1):
            if number in self._seen or image.is_map(number) or image.is_free(number):
                continue
            kind, parent = image.pointer(number)
            if kind not in (TREE, UNKNOWN):
                continue
            self._adopted.add(parent)
            node = read_node(image, number, with_payload=False)
            root = self._root_of(number)
            tree = self.by_root.get(root)
            if node is None:
                if kind == TREE and tree is not None:
                    missed.append((tree, number))
                continue
            if tree is None or (node.is_table != tree.is_table and tree.pages):
                self.strays.append(number)
                continue
            tree.is_table = node.is_table
            if node.is_leaf or not node.is_table:
                tree.pages.append(number)
            if node.may_miss_cells:
                tree.unsound.append(LostPage(number, None, None))
        for tree in self.by_root.values():
            listed = {lost.number for lost in tree.lost}
            tree.lost += [
                LostPage(number, None, None)
                for owner, number in missed
                if owner is tree and number not in listed
            ]
            if tree.is_table:
                # Pages above the leaves have no rows, and what is below them was found.
                tree.bypassed = [lost for lost in tree.lost if lost.number in self._adopted]
                tree.lost = [lost for lost in tree.lost if lost.number not in self._adopted]

    def _root_of(self, number: int) -> int:
        """The root above a page by the pointer map; 0 if it does not lead to one."""
        for _ in range(_DEPTH_MAX):
            if number in self._seen:
                return self._seen[number]
            kind, parent = self._image.pointer(number)
            if kind == ROOT:
                return number
            if kind != TREE:
                return 0
            number = parent
        return 0
