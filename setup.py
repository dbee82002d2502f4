"""Compile the pure core with mypyc where that is possible; all else is in pyproject.toml."""

import glob
import os
import subprocess
import sys
import sysconfig
import tempfile
import tomllib

from setuptools import Extension, setup
from setuptools.errors import BaseError

BUILDING = {"bdist_wheel", "build", "build_ext", "install"}  # commands that need the extensions
EDITABLE = {"develop", "editable_wheel"}

PROBE = "#include <Python.h>\nint holdfast_probe(void) { return PY_MAJOR_VERSION; }\n"


def compiled_sources() -> list[str]:
    """The files that the list in pyproject.toml names."""
    with open("pyproject.toml", "rb") as file:
        globs = tomllib.load(file)["tool"]["holdfast"]["compiled"]
    found = {path for pattern in globs for path in glob.glob(pattern)}
    return sorted(path for path in found if os.path.basename(path) != "__init__.py")


def why_interpreted() -> str | None:
    """Why this build leaves the core interpreted, or None where it can be compiled."""
    if os.environ.get("HOLDFAST_PURE") == "1":
        return "HOLDFAST_PURE=1 is set"
    if EDITABLE & set(sys.argv):
        return "an editable install runs from its sources"
    if sys.implementation.name != "cpython":
        return f"{sys.implementation.name} has no mypyc"
    header = os.path.join(sysconfig.get_paths()["include"], "Python.h")
    if os.name == "posix" and not os.path.exists(header):
        return f"the Python headers are missing ({header})"
    return why_no_compiler()


def why_no_compiler() -> str | None:
    """Why a C extension cannot be compiled here, found by compiling one; None if it can."""
    from setuptools._distutils.ccompiler import new_compiler
    from setuptools._distutils.sysconfig import customize_compiler

    compiler = new_compiler()
    with tempfile.TemporaryDirectory() as folder:
        source = os.path.join(folder, "probe.c")
        with open(source, "w", encoding="ascii") as file:
            file.write(PROBE)
        include = sysconfig.get_paths()["include"]
        if compiler.compiler_type != "unix":
            try:
                compiler.compile([source], output_dir=folder, include_dirs=[include])
            except (BaseError, OSError) as error:
                return f"no working C compiler ({error})"
            return None
        customize_compiler(compiler)
        # Run by hand and not by `compiler.compile`, which lets the compiler's own errors through.
        command = [*compiler.compiler_so, f"-I{include}", "-c", source, "-o", f"{source}.o"]
        try:
            done = subprocess.run(command, capture_output=True, check=False)
        except OSError as error:
            return f"no C compiler ({command[0]}: {error.strerror})"
        return None if done.returncode == 0 else f"the C compiler does not work ({command[0]})"


def extensions() -> list[Extension]:
    """The compiled core, or nothing and one line that says why."""
    if not (BUILDING | EDITABLE) & set(sys.argv):
        return []
    sources = compiled_sources()
    reason = why_interpreted() if sources else "no module to compile exists"
    if reason is not None:
        print(f"holdfast: installed interpreted, slower, because {reason}", file=sys.stderr)
        return []
    from mypyc.build import mypycify

    # An empty --config-file keeps an install from failing over the lint rules of the project.
    # Nor may what other modules import, which is not there before the install, and is not compiled.
    options = ["--config-file=", "--follow-imports=silent"]
    return mypycify([*options, *sources], opt_level="3", group_name="holdfast")


setup(ext_modules=extensions())
