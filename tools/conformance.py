"""The conformance table: which test proves which numbered statement of the MQTT standards.

    python -m tools.conformance                run the marked tests, write the table
    python -m tools.conformance --unrun        the same, as if all had passed: `make test` finds out
    python -m tools.conformance --marks FILE   run nothing; write what is marked to FILE, as JSON

Each is for the root of the repository. The statements are data in tests/spec; a test names those
that it proves with `@pytest.mark.spec("MQTT5-4.3.3-10", …)`. The table holds nothing that differs
from run to run, so it is committed, and tests/spec/test_conformance_table.py keeps it true.
"""

import argparse
import itertools
import json
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

REPOSITORY: Final = Path(__file__).parent.parent
SPEC: Final = REPOSITORY / "tests" / "spec"
PAGE: Final = REPOSITORY / "docs" / "reference" / "conformance.md"
UNREACHABLE: Final = SPEC / "unreachable.toml"

# What a mark says in the place of the standard's own `MQTT-`, and the standard.
STANDARDS: Final = {
    "MQTT5-": ("mqtt5.toml", "MQTT 5.0"),
    "MQTT311-": ("mqtt311.toml", "MQTT 3.1.1"),
}

CHAPTERS: Final = {
    "1": "Data representation",
    "2": "Control Packet format",
    "3.1": "CONNECT",
    "3.2": "CONNACK",
    "3.3": "PUBLISH",
    "3.4": "PUBACK",
    "3.5": "PUBREC",
    "3.6": "PUBREL",
    "3.7": "PUBCOMP",
    "3.8": "SUBSCRIBE",
    "3.9": "SUBACK",
    "3.10": "UNSUBSCRIBE",
    "3.11": "UNSUBACK",
    "3.12": "PINGREQ",
    "3.13": "PINGRESP",
    "3.14": "DISCONNECT",
    "3.15": "AUTH",
    "4": "Operational behaviour",
    "6": "WebSocket transport",
    "7": "Conformance",
}

INTRODUCTION: Final = """\
# Conformance

Every numbered statement of the two standards, and the tests of the broker and of the client that
prove it. The texts are paraphrases, in which the present tense means MUST; in doubt the standard
decides. `who` is the side that the statement binds; where it binds both, each half has its tests.
The tests of the client are those in `client/`. Paths are below `tests/`. `make conformance` runs
these tests and writes this page; `make test` fails when the page and the tests disagree.

- **proven**: each side that it binds has tests, and all of them pass. A test of the broker on a
  statement about clients is about what it answers to a client that breaks it.
- **unreachable**: no test can prove it now, for the reason given.
- **failing**: one of its tests fails, or is known to fail.
- **missing**: a side that it binds has no test; `make test` fails.
"""

# Where the tests of the client are; all others are of the broker.
CLIENT_TESTS: Final = "client/"
SIDES: Final = {"server": ("server",), "client": ("client",), "both": ("server", "client")}


@dataclass(frozen=True, slots=True)
class Statement:
    """One numbered statement. ``id`` is as marks write it, ``role`` is server, client or both."""

    id: str
    role: str
    text: str

    @property
    def standard(self) -> str:
        return self.id[: self.id.index("-") + 1]

    @property
    def heading(self) -> str:
        """The part of the page that it stands in."""
        numbers = self.id.removeprefix(self.standard).split(".")
        chapter = ".".join(numbers[: 2 if numbers[0] == "3" else 1])
        return f"{STANDARDS[self.standard][1]}, {chapter} {CHAPTERS[chapter]}"


@dataclass(slots=True)
class Marks:
    """The marked tests: what each names, and which did not pass or are not expected to."""

    statements: dict[str, set[str]] = field(default_factory=dict)  # by test
    failing: set[str] = field(default_factory=set)

    def tests_of(self, statement: Statement, side: str) -> list[str]:
        """The tests of one side, ``server`` or ``client``, that name a statement."""
        return sorted(
            test
            for test, named in self.statements.items()
            if statement.id in named and side_of(test) == side
        )


class Recorder:
    """The pytest plugin that reads the marks and the results."""

    def __init__(self) -> None:
        self.marks = Marks()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            named = {str(id) for mark in item.iter_markers("spec") for id in mark.args}
            if named:
                self.marks.statements.setdefault(function_of(item.nodeid), set()).update(named)
                if item.get_closest_marker("xfail") is not None:
                    self.marks.failing.add(function_of(item.nodeid))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.passed:
            self.marks.failing.add(function_of(report.nodeid))


def function_of(nodeid: str) -> str:
    """``file::function``, without parameters."""
    return nodeid.partition("[")[0].removeprefix("tests/")


def side_of(test: str) -> str:
    """Whether it is the broker or the client that a test is about."""
    return "client" if test.startswith(CLIENT_TESTS) else "server"


def read_statements() -> list[Statement]:
    """All statements of both standards, in their order."""
    return [
        Statement(one["id"].replace("MQTT-", prefix, 1), one["role"], one["text"])
        for prefix, (file, _) in STANDARDS.items()
        for one in read_tables(SPEC / file, "statement")
    ]


def read_unreachable() -> dict[str, str]:
    """The statements that no test can prove, with the reason."""
    return {one["id"]: one["reason"] for one in read_tables(UNREACHABLE, "unreachable")}


def read_tables(path: Path, name: str) -> list[dict[str, str]]:
    tables: list[dict[str, str]] = tomllib.loads(path.read_text(encoding="utf-8")).get(name, [])
    return tables


def uncovered(
    statements: Iterable[Statement], marks: Marks, unreachable: Mapping[str, str]
) -> list[str]:
    """The statements, each with a side that it binds, that neither a test nor a reason covers."""
    return [
        f"{one.id} ({side})"
        for one in statements
        for side in SIDES[one.role]
        if one.id not in unreachable and not marks.tests_of(one, side)
    ]


# --- the page


def render(statements: Sequence[Statement], marks: Marks, unreachable: Mapping[str, str]) -> str:
    """The whole page, which these arguments alone decide."""
    rows = [(one, *outcome(one, marks, unreachable)) for one in statements]
    lines = [INTRODUCTION, *summary(rows)]
    for heading, group in itertools.groupby(rows, lambda row: row[0].heading):
        lines += ["", f"## {heading}", ""]
        lines += [
            "| statement | who | text | tests of the broker | tests of the client | result |",
            "|---|---|---|---|---|---|",
        ]
        for one, tests, _, result in group:
            of_broker, of_client = (
                "<br>".join(f"`{test}`" for test in tests[side]) for side in SIDES["both"]
            )
            lines.append(
                f"| {one.id} | {one.role} | {one.text} | {of_broker} | {of_client} | {result} |"
            )
    return "\n".join(lines) + "\n"


# A statement, its tests by side, its kind, the result.
Row = tuple[Statement, dict[str, list[str]], str, str]


def outcome(
    one: Statement, marks: Marks, unreachable: Mapping[str, str]
) -> tuple[dict[str, list[str]], str, str]:
    tests = {side: marks.tests_of(one, side) for side in SIDES["both"]}
    if any(test in marks.failing for found in tests.values() for test in found):
        return tests, "failing", "**fail**"
    if one.id in unreachable:
        return tests, "unreachable", f"unreachable: {unreachable[one.id]}"
    missing = [side for side in SIDES[one.role] if not tests[side]]
    if missing:
        return tests, "missing", f"**missing ({', '.join(missing)})**"
    return tests, "proven", "pass"


def summary(rows: Iterable[Row]) -> Iterator[str]:
    kinds = ("proven", "unreachable", "failing", "missing")
    yield f"| standard | statements | {' | '.join(kinds)} |"
    yield "|---|" + "---:|" * (len(kinds) + 1)
    every = list(rows)
    for prefix, (_, title) in STANDARDS.items():
        own = [kind for one, _, kind, _ in every if one.standard == prefix]
        counts = (len(own), *(own.count(kind) for kind in kinds))
        yield f"| {title} | {' | '.join(str(count) for count in counts)} |"


# --- the command


def run(*options: str) -> tuple[int, Marks]:
    """Run pytest with these options in this process."""
    recorder = Recorder()
    return int(pytest.main(["-q", "-m", "spec", *options], plugins=[recorder])), recorder.marks


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Write docs/reference/conformance.md.")
    parser.add_argument("--marks", type=Path, metavar="FILE", help="only tell what is marked")
    parser.add_argument("--unrun", action="store_true", help="take it that the tests pass")
    options = parser.parse_args(arguments)
    marks_file: Path | None = options.marks
    if marks_file is not None:
        code, marks = run("--collect-only")
        found = {"failing": sorted(marks.failing)} | {
            "statements": {test: sorted(named) for test, named in marks.statements.items()}
        }
        marks_file.write_text(json.dumps(found), encoding="utf-8")
        return code
    code, marks = run("--collect-only") if options.unrun else run()
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        return code
    statements, unreachable = read_statements(), read_unreachable()
    PAGE.write_text(render(statements, marks, unreachable), encoding="utf-8")
    print(*summary((one, *outcome(one, marks, unreachable)) for one in statements), sep="\n")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
