"""The stores under test, by name, and how each is opened again."""

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.store.interface import Store
from holdfast.store.memory import MemoryStore
from holdfast.store.sqlite import open_store
from tests.store.damage import Content, Damaged, Places, content, fill, places, settle
from tests.store.support import Reopen
from tests.store.vfs import WatchedVfs

_vfs_numbers = itertools.count(1)


@pytest.fixture(params=["sqlite", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An empty store of each kind."""
    opened: Store = open_store(tmp_path) if request.param == "sqlite" else MemoryStore()
    yield opened
    opened.close()


@pytest.fixture
def reopen(tmp_path: Path) -> Iterator[Reopen]:
    """Close a store and open it again; the one in memory just goes on."""
    opened: list[Store] = []

    def reopened(store: Store) -> Store:
        if isinstance(store, MemoryStore):
            return store
        store.close()
        opened.append(open_store(tmp_path))
        return opened[-1]

    yield reopened
    for store in opened:
        store.close()


@pytest.fixture
def vfs() -> WatchedVfs:
    """A file layer of the test's own."""
    return WatchedVfs(f"watched {next(_vfs_numbers)}")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Content, Places]:
    """A small store with everything in it, carried over into its file."""
    folder = tmp_path_factory.mktemp("salvage") / "sound"
    folder.mkdir()
    fill(folder, sessions=28, turns=13)
    settle(folder)
    return folder, content(folder), places(folder)


@pytest.fixture
def damaged(sound: tuple[Path, Content, Places], tmp_path: Path) -> Damaged:
    shutil.copytree(sound[0], tmp_path / "sound")
    shutil.copytree(sound[0], tmp_path / "data")
    return Damaged(tmp_path / "data", sound[1], sound[2])


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """A store whose newest commits are in the write-ahead log alone."""
    folder = tmp_path / "data"
    folder.mkdir()
    fill(folder, sessions=12, turns=6)
    return folder
