"""What is said of a run that broke a promise."""

import traceback
from pathlib import Path
from typing import Final

from tests.sim.simulation import Result

LINES_MAX: Final = 40  # of the trace, on the screen


def report(result: Result, folder: Path, again: str = "make sim SEED={}") -> str:
    """The seed, what was broken, the newest lines about it; the whole trace goes into a file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"seed-{result.seed}.txt"
    path.write_text("\n".join(result.trace) + "\n")
    violation = result.violation
    if violation is None:
        return f"seed {result.seed} keeps every promise; its trace: {path}"
    lines = [f"seed {result.seed} broke a promise: {violation}", ""]
    lines += about(result.trace, violation.about)
    if violation.__cause__ is not None:
        lines += ["", *traceback.format_exception(violation.__cause__)]
    lines += ["", f"all of it: {path}", f"again: {again.format(result.seed)}"]
    return "\n".join(lines)


def about(trace: list[str], names: tuple[str, ...]) -> list[str]:
    """The newest lines that name one of these, and what happened to everybody."""
    chosen = [line for line in trace if _is_about(line, names)]
    return chosen[-LINES_MAX:]


def _is_about(line: str, names: tuple[str, ...]) -> bool:
    words = line.split()
    is_packet = "->" in words or "<-" in words
    if not names:
        return True
    return any(name and name in words for name in names) or not (is_packet or "disk:" in words)
