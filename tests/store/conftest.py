"""The stores under test, by name, and how each is opened again."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.store.interface import Store
from holdfast.store.memory import MemoryStore
from holdfast.store.sqlite import open_store
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
