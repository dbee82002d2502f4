"""What this installation is: its version, and whether its core runs compiled."""

import platform
from importlib import import_module
from importlib.machinery import EXTENSION_SUFFIXES

from holdfast import __version__

__all__ = ["is_compiled", "version_line"]


def is_compiled() -> bool:
    """True if the pure core runs as compiled by mypyc, False if the interpreter runs it.

    One module answers for all: they are compiled in one unit or not at all.
    """
    file = import_module("holdfast.protocol.framer").__file__
    return file is not None and file.endswith(tuple(EXTENSION_SUFFIXES))


def version_line() -> str:
    """The versions that a bug report needs: ``holdfast 0.1.0 (compiled, Python …, SQLite …)``."""
    import apsw

    core = "compiled" if is_compiled() else "interpreted"
    python = platform.python_version()
    return f"holdfast {__version__} ({core}, Python {python}, SQLite {apsw.sqlite_lib_version()})"
