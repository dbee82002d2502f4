"""Who may import whom, and what the pure and the compiled modules must do without.

The rules read the syntax trees of `src/holdfast`; each rule is also shown to find what it forbids.
"""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

REPOSITORY: Final = Path(__file__).parent.parent
SOURCE: Final = REPOSITORY / "src"
TESTS: Final = REPOSITORY / "tests"

# Which part of the package may import which others. Everyone may import its own part. `root` is
# the package itself, for its `__version__`; a name with a dot is that module alone.
_EDGE: Final = {"config", "errors", "logs", "message", "root"}
_SERVER_SIDE: Final = _EDGE | {
    "protocol",
    "broker",
    "disk",
    "store",
    "net",
    "auth",
    "admin",
    "build_info",
}
ARROWS: Final[dict[str, set[str]]] = {
    "__main__": {"cli"},
    "root": {"client", "embedded", "errors", "message"},
    "errors": set(),
    "message": {"errors"},
    "protocol": {"errors", "message"},
    "broker": {"errors", "message", "protocol", "store.records"},
    "disk": {"errors"},
    "store": {"errors", "logs", "message", "protocol", "disk"},
    "client": {"errors", "logs", "message", "protocol", "disk", "root", "worker", "loop_thread"},
    "config": {"errors", "root"},
    "logs": set(),
    "worker": set(),
    "loop_thread": set(),
    "build_info": {"protocol", "root"},
    "net": _EDGE | {"protocol", "broker", "store", "auth", "worker"},
    "auth": _EDGE | {"protocol", "broker"},
    "admin": _EDGE | {"protocol", "broker", "store", "auth", "build_info"},
    "assembly": _SERVER_SIDE,
    "server": _SERVER_SIDE | {"assembly"},
    "embedded": _SERVER_SIDE | {"assembly", "loop_thread", "worker"},
    "pytest_plugin": {"client", "config", "embedded", "root"},
    "cli": _SERVER_SIDE | {"server", "client"},
}

PURE: Final = (
    "errors",
    "message",
    "protocol",
    "broker",
    "client.outbox_rows",
    "client.changes",
    "client.connection",
    "client.incoming",
    "client.outgoing",
    "client.receiving",
    "client.records",
    "client.sending",
    "client.server_limits",
    "disk.checksums",
    "store.blocks",
    "store.checked_rows",
    "store.records",
)

# All that a pure module may import from elsewhere: it computes and knows nothing of the machine.
PURE_LIBRARIES: Final = frozenset(
    {
        "__future__",
        "abc",
        "array",
        "base64",
        "bisect",
        "collections",
        "dataclasses",
        "enum",
        "hashlib",
        "heapq",
        "itertools",
        "math",
        "mypy_extensions",
        "operator",
        "struct",
        "types",
        "typing",
        "unicodedata",
        "zlib",
    }
)
IMPURE_CALLS: Final = frozenset(
    {"__import__", "breakpoint", "eval", "exec", "input", "open", "print"}
)
UNCOMPILABLE_CALLS: Final = frozenset({"delattr", "getattr", "globals", "locals", "setattr"})
# The last one tells mypyc that the garbage collector need not look at a class, which matters where
# there are thousands of its instances; see tests/test_build.py.
COMPILED_DECORATORS: Final = frozenset({"final", "property", "mypyc_attr(acyclic=True)"})
# mypyc turns a generator expression that is the argument of these into a plain loop.
LOOPS: Final = frozenset({"all", "any", "sum"})
SKIPS: Final = frozenset({"importorskip", "skip", "skipIf", "skipTest", "skipUnless", "skipif"})

Found = Iterator[tuple[int, str]]  # the line, and what is wrong with it


def part_of(module: str) -> str:
    """The key in ARROWS of a module such as `holdfast.net.driver`."""
    names = module.split(".")
    return names[1] if len(names) > 1 else "root"


def forbidden_imports(module: str, tree: ast.Module) -> Found:
    """Imports of parts of the package that lie against the arrows."""
    own = part_of(module)
    if own not in ARROWS:
        yield 1, f"{own} is a new part: give it a place in ARROWS"
        return
    for line, name in imported_modules(tree):
        if name.split(".")[0] != "holdfast":
            continue
        target = part_of(name)
        if target == own or target in ARROWS[own]:
            continue
        if not any(is_within(name, f"holdfast.{allowed}") for allowed in ARROWS[own]):
            yield line, f"{own} must not import {name}"


def imported_modules(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """The modules that a module imports, wherever it does; `from a import b` counts as `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level > 0:
                yield node.lineno, "holdfast.(relative import)"
            for alias in node.names if node.level == 0 else ():
                # `from holdfast import errors` is about errors, `import __version__` about root.
                is_module = node.module != "holdfast" or alias.name in ARROWS
                yield node.lineno, f"{node.module}.{alias.name}" if is_module else "holdfast"


def is_within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def impurities(tree: ast.Module) -> Found:
    """What a pure module must not do: reach the machine, the clock or the event loop."""
    for line, name in imported_modules(tree):
        library = name.split(".")[0]
        if library not in PURE_LIBRARIES | {"holdfast"}:
            yield line, f"a pure module must not import {library}"
    for node in ast.walk(tree):
        if isinstance(node, ast.AsyncFunctionDef | ast.AsyncFor | ast.AsyncWith | ast.Await):
            yield node.lineno, "a pure module must not be async"
        elif isinstance(node, ast.Call) and called_name(node) in IMPURE_CALLS:
            yield node.lineno, f"a pure module must not call {called_name(node)}"


def uncompilable(tree: ast.Module) -> Found:
    """What a compiled module must not use: it is slow there, or means something else."""
    loops = {
        id(argument)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and called_name(node) in LOOPS
        for argument in node.args
    }
    for node in ast.walk(tree):
        match node:
            case ast.Yield() | ast.YieldFrom():
                yield node.lineno, "a generator"
            case ast.GeneratorExp() if id(node) not in loops:
                yield node.lineno, "a generator expression; use a list"
            case ast.Lambda():
                yield node.lineno, "a lambda"
            case ast.Call() if called_name(node) in UNCOMPILABLE_CALLS:
                yield node.lineno, f"a call of {called_name(node)}"
            case ast.If(test=ast.Compare(left=ast.Name(id="__name__"))):
                yield node.lineno, "if __name__"
            case ast.FunctionDef() | ast.ClassDef():
                yield from uncompilable_definition(node)


def uncompilable_definition(node: ast.FunctionDef | ast.ClassDef) -> Found:
    for decorator in node.decorator_list:
        if ast.unparse(decorator) not in COMPILED_DECORATORS:
            yield decorator.lineno, f"the decorator {ast.unparse(decorator)}"
    if isinstance(node, ast.FunctionDef):
        if node.args.vararg is not None or node.args.kwarg is not None:
            yield node.lineno, f"*arguments of {node.name}"
        for inner in ast.walk(node):
            if isinstance(inner, ast.FunctionDef | ast.ClassDef) and inner is not node:
                yield inner.lineno, f"{inner.name} is nested in {node.name}"


def skips(tree: ast.Module) -> Found:
    """Ways of a test not to run: here a missing component fails, and says how to install it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in SKIPS:
            yield node.lineno, f"{node.attr} would pass over a test in silence"


def called_name(call: ast.Call) -> str | None:
    """The name in a call such as `open(...)`; None for a method."""
    return call.func.id if isinstance(call.func, ast.Name) else None


def modules() -> dict[str, Path]:
    """All modules of the package, by name."""
    found = {}
    for path in sorted((SOURCE / "holdfast").rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def is_pure(module: str) -> bool:
    return any(is_within(module, f"holdfast.{package}") for package in PURE)


def compiled_paths() -> set[Path]:
    """The files that pyproject.toml lists for mypyc."""
    with (REPOSITORY / "pyproject.toml").open("rb") as file:
        globs = tomllib.load(file)["tool"]["holdfast"]["compiled"]
    return {path for pattern in globs for path in REPOSITORY.glob(pattern)}


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


MODULES: Final = modules()


@pytest.mark.parametrize("module", MODULES)
def test_imports_follow_the_arrows(module: str) -> None:
    assert list(forbidden_imports(module, tree_of(MODULES[module]))) == []


@pytest.mark.parametrize("module", [module for module in MODULES if is_pure(module)])
def test_pure_modules_are_pure(module: str) -> None:
    assert list(impurities(tree_of(MODULES[module]))) == []


@pytest.mark.parametrize("path", sorted(compiled_paths()), ids=lambda path: path.stem)
def test_compiled_modules_are_plain(path: Path) -> None:
    assert list(uncompilable(tree_of(path))) == []


def test_compiled_modules_are_the_pure_ones() -> None:
    assert compiled_paths() == {MODULES[module] for module in MODULES if is_pure(module)}


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(TESTS.rglob("*.py")) if "node_modules" not in path.parts],
    ids=lambda path: str(path.relative_to(TESTS)),
)
def test_no_test_is_skipped(path: Path) -> None:
    assert list(skips(tree_of(path))) == []


@pytest.mark.parametrize(
    ("module", "code"),
    [
        ("holdfast.errors", "from holdfast.message import Message"),
        ("holdfast.message", "from holdfast.protocol import packets"),
        ("holdfast.protocol.framer", "import holdfast.broker.session"),
        ("holdfast.protocol.framer", "from holdfast import broker"),
        ("holdfast.protocol.framer", "from holdfast import __version__"),
        ("holdfast.protocol.framer", "from . import wire"),
        ("holdfast.protocol.framer", "from ..broker import session"),
        ("holdfast.broker.session", "from holdfast.net.driver import Driver"),
        ("holdfast.broker.session", "from holdfast.store.sqlite import SqliteStore"),
        ("holdfast.broker.session", "from holdfast.store import interface"),
        ("holdfast.broker.session", "from holdfast.store.records_old import Batch"),
        ("holdfast.broker.session", "def f():\n    import holdfast.logs"),
        ("holdfast.store.sqlite", "from holdfast.broker.session import Session"),
        ("holdfast.client.link", "from holdfast.broker.session import Session"),
        ("holdfast.client.link", "from holdfast.store.sqlite import SqliteStore"),
        ("holdfast.net.driver", "from holdfast import server"),
        ("holdfast.server", "from holdfast.cli.main import main"),
        ("holdfast", "from holdfast.server import run"),
        ("holdfast.novelty", "import struct"),
    ],
)
def test_the_checker_sees_an_import_against_the_arrows(module: str, code: str) -> None:
    assert len(list(forbidden_imports(module, ast.parse(code)))) == 1


@pytest.mark.parametrize(
    ("module", "code"),
    [
        ("holdfast.broker.session", "from holdfast.store.records import Batch"),
        ("holdfast.broker.session", "from holdfast.store import records"),
        ("holdfast.broker.session", "from holdfast.broker.limits import QUEUE_MAX"),
        ("holdfast.protocol.framer", "import struct\nfrom holdfast import errors"),
        ("holdfast.cli.main", "from holdfast import __version__\nfrom holdfast.server import run"),
    ],
)
def test_the_checker_allows_imports_along_the_arrows(module: str, code: str) -> None:
    assert list(forbidden_imports(module, ast.parse(code))) == []


@pytest.mark.parametrize(
    "code",
    [
        *(
            f"import {library}"
            for library in (
                "asyncio",
                "io",
                "logging",
                "os",
                "os.path",
                "pathlib",
                "random",
                "secrets",
                "selectors",
                "socket",
                "threading",
                "time",
                "uuid",
            )
        ),
        "from time import monotonic",
        "def f():\n    import socket",
        "async def f(): pass",
        "open('file')",
        "print('text')",
    ],
)
def test_the_checker_sees_an_impurity(code: str) -> None:
    assert len(list(impurities(ast.parse(code)))) == 1


def test_the_checker_sees_await() -> None:
    tree = ast.parse("async def f():\n    await g()\n    async with a: pass")
    assert sorted(line for line, _ in impurities(tree)) == [1, 2, 3]


@pytest.mark.parametrize(
    "code",
    [
        "def f():\n    yield 1",
        "def f(a):\n    yield from a",
        "b''.join(bytes(a) for a in b)",
        "f = lambda: 1",
        "def f(a):\n    def g(): return a",
        "def f(a):\n    class G: pass",
        "def f(*a): pass",
        "def f(**a): pass",
        "getattr(a, 'b')",
        "setattr(a, 'b', 1)",
        "@dataclass\nclass A: pass",
        "@cache\ndef f(): pass",
        "class A:\n    @staticmethod\n    def f(): pass",
        "@functools.cache\ndef f(): pass",
        "if __name__ == '__main__': pass",
    ],
)
def test_the_checker_sees_what_does_not_compile_well(code: str) -> None:
    assert len(list(uncompilable(ast.parse(code)))) == 1


@pytest.mark.parametrize(
    "code",
    [
        "@final\nclass A:\n    @property\n    def b(self) -> int: return 1",
        "any(a > 1 for a in b)",
        "[a for a in b]",
        "class A:\n    def open(self): pass",
    ],
)
def test_the_checker_allows_plain_code(code: str) -> None:
    tree = ast.parse(code)
    assert list(uncompilable(tree)) == []
    assert list(impurities(tree)) == []


@pytest.mark.parametrize(
    "code",
    [
        "@pytest.mark.skip\ndef test_a(): pass",
        "@pytest.mark.skipif(True, reason='none')\ndef test_a(): pass",
        "def test_a():\n    pytest.skip('none')",
        "paho = pytest.importorskip('paho')",
        "@unittest.skipUnless(True)\nclass A: pass",
    ],
)
def test_the_checker_sees_a_skip(code: str) -> None:
    assert len(list(skips(ast.parse(code)))) == 1
