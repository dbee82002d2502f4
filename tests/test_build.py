"""The package that the tests run is the one that the Makefile believes it is."""

import gc
import importlib
import os
import tomllib
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Final

import pytest

from holdfast import __version__
from holdfast.build_info import is_compiled, version_line
from holdfast.client.records import StoreOutgoing
from holdfast.message import Message, Properties
from holdfast.protocol.packets import Publish
from holdfast.store.records import LogEntry

REPOSITORY: Final = Path(__file__).parent.parent
SOURCE: Final = REPOSITORY / "src"


def listed_modules() -> list[str]:
    """The modules that pyproject.toml lists for mypyc, as setup.py understands the list."""
    with (REPOSITORY / "pyproject.toml").open("rb") as file:
        globs = tomllib.load(file)["tool"]["holdfast"]["compiled"]
    paths = {path for pattern in globs for path in REPOSITORY.glob(pattern)}
    return sorted(
        ".".join(path.relative_to(SOURCE).with_suffix("").parts)
        for path in paths
        if path.name != "__init__.py"
    )


def is_extension(module: str) -> bool:
    file = importlib.import_module(module).__file__
    assert file is not None
    return file.endswith(tuple(EXTENSION_SUFFIXES))


def expected() -> str:
    """What HOLDFAST_EXPECT says; by hand, without it, whatever is installed is expected."""
    value = os.environ.get("HOLDFAST_EXPECT", "compiled" if is_compiled() else "pure")
    assert value in {"compiled", "pure"}, f"HOLDFAST_EXPECT={value}: expected compiled or pure"
    return value


@pytest.mark.parametrize("module", listed_modules())
def test_each_listed_module_runs_as_expected(module: str) -> None:
    assert is_extension(module) == (expected() == "compiled"), (
        "not the build that was asked for; `make setup` builds it (compiled: "
        "apt-get install gcc python3-dev; interpreted: HOLDFAST_PURE=1)"
    )


def test_the_answer_of_build_info_is_true_for_all() -> None:
    assert {is_extension(module) for module in listed_modules()} == {is_compiled()}


def test_what_abounds_is_no_work_for_the_garbage_collector() -> None:
    """It cannot be part of a cycle, and the collector would go through all of it in vain."""
    abound = [
        Properties(),
        Message("a", b"", 0, False),
        Publish("a", b"", 0, False, False, 0, None),
        LogEntry(1, Message("a", b"", 0, False)),
        StoreOutgoing(1, "a", b"", 1, False, b"", 0, 0),
    ]
    tracked = [gc.is_tracked(one) for one in abound]
    assert tracked == [expected() == "pure"] * len(abound)


def test_sources_hold_no_compiled_module() -> None:
    assert [path for suffix in EXTENSION_SUFFIXES for path in SOURCE.rglob(f"*{suffix}")] == []


def test_the_version_line_says_what_runs() -> None:
    core = "compiled" if expected() == "compiled" else "interpreted"
    assert version_line().startswith(f"holdfast {__version__} ({core}, Python 3.")
    assert ", SQLite 3." in version_line()
