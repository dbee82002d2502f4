"""The marks, the statements of the standards and the conformance table agree."""

import json
import subprocess
import sys

import pytest

from tools.conformance import (
    PAGE,
    REPOSITORY,
    Marks,
    Statement,
    read_statements,
    read_unreachable,
    render,
    uncovered,
)


@pytest.fixture(scope="module")
def marks(tmp_path_factory: pytest.TempPathFactory) -> Marks:
    """All marks there are, whichever tests this run was told to run."""
    file = tmp_path_factory.mktemp("conformance") / "marks.json"
    command = [sys.executable, "-m", "tools.conformance", "--marks", str(file)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(file.read_text(encoding="utf-8"))
    return Marks(
        {test: set(named) for test, named in found["statements"].items()}, set(found["failing"])
    )


STATEMENTS = read_statements()
IDS = [one.id for one in STATEMENTS]


def test_every_mark_names_a_statement_of_a_standard(marks: Marks) -> None:
    unknown = {test: named - set(IDS) for test, named in marks.statements.items()}
    assert {test: named for test, named in unknown.items() if named} == {}


def test_every_statement_has_a_test_of_each_side_that_it_binds(marks: Marks) -> None:
    assert uncovered(STATEMENTS, marks, read_unreachable()) == [], "these have no test"


def test_what_no_test_can_reach_has_none(marks: Marks) -> None:
    unreachable = read_unreachable()
    assert set(unreachable) <= set(IDS)
    assert set(unreachable).isdisjoint(set().union(*marks.statements.values()))
    assert all(unreachable.values())


def test_the_page_lists_these_statements_and_tests(marks: Marks) -> None:
    current = render(STATEMENTS, marks, read_unreachable())
    page = PAGE.read_text(encoding="utf-8")
    differing = set(current.splitlines()) ^ set(page.splitlines())
    rows = sorted({line.split(" | ")[0].strip("| ") for line in differing})
    is_current = page == current  # two pages of this length make no readable assertion
    assert is_current, f"run `make conformance`; it changes {rows}"


@pytest.mark.parametrize("standard", ["mqtt5", "mqtt311"])
def test_the_statements_are_in_order_and_once_each(standard: str) -> None:
    """A statement that is lost from the data would be lost from the table without a word."""
    counts = {"mqtt5": 251, "mqtt311": 141}
    own = [id for id in IDS if id.startswith(standard.upper() + "-")]
    assert len(own) == len(set(own)) == counts[standard]
    assert own == sorted(own, key=place)


def place(id: str) -> list[int]:
    return [int(number) for number in id.split("-", 1)[1].replace("-", ".").split(".")]


# --- the table itself


ONE = Statement("MQTT5-3.1.0-2", "server", "A second CONNECT closes the connection.")
TWO = Statement("MQTT5-3.1.2-9", "client", "The will is in the payload.")
BOTH = Statement("MQTT5-3.3.1-1", "both", "What is sent again has DUP 1.")


def row(one: Statement, of_broker: str, of_client: str, result: str) -> str:
    return f"| {one.id} | {one.role} | {one.text} | {of_broker} | {of_client} | {result} |"


def test_a_statement_is_proven_when_all_of_its_tests_pass() -> None:
    marks = Marks({"a.py::test_1": {ONE.id}, "a.py::test_2": {ONE.id}})
    tests = "`a.py::test_1`<br>`a.py::test_2`"
    assert row(ONE, tests, "", "pass") in render([ONE], marks, {})
    assert "| MQTT 5.0 | 1 | 1 | 0 | 0 | 0 |" in render([ONE], marks, {})
    marks.failing.add("a.py::test_2")
    assert row(ONE, tests, "", "**fail**") in render([ONE], marks, {})
    assert "| MQTT 5.0 | 1 | 0 | 0 | 1 | 0 |" in render([ONE], marks, {})


def test_each_side_has_tests_of_its_own() -> None:
    marks = Marks({"net/a.py::test_1": {TWO.id, BOTH.id}})
    page = render([TWO, BOTH], marks, {})
    assert row(TWO, "`net/a.py::test_1`", "", "**missing (client)**") in page
    assert row(BOTH, "`net/a.py::test_1`", "", "**missing (client)**") in page
    marks.statements["client/b.py::test_2"] = {TWO.id, BOTH.id}
    page = render([TWO, BOTH], marks, {})
    assert row(TWO, "`net/a.py::test_1`", "`client/b.py::test_2`", "pass") in page
    assert row(BOTH, "`net/a.py::test_1`", "`client/b.py::test_2`", "pass") in page


def test_a_statement_without_a_test_says_why() -> None:
    page = render([ONE, TWO, BOTH], Marks(), {})
    assert row(ONE, "", "", "**missing (server)**") in page
    assert row(TWO, "", "", "**missing (client)**") in page
    assert row(BOTH, "", "", "**missing (server, client)**") in page
    assert "| MQTT 5.0 | 3 | 0 | 0 | 0 | 3 |" in page
    assert "| unreachable: no way |" in render([ONE], Marks(), {ONE.id: "no way"})


def test_only_the_sides_that_it_binds_need_a_test() -> None:
    assert uncovered([ONE, TWO, BOTH], Marks(), {}) == [
        f"{ONE.id} (server)",
        f"{TWO.id} (client)",
        f"{BOTH.id} (server)",
        f"{BOTH.id} (client)",
    ]
    of_broker = Marks({"a.py::test_1": {ONE.id, TWO.id, BOTH.id}})
    assert uncovered([ONE, TWO, BOTH], of_broker, {}) == [
        f"{TWO.id} (client)",
        f"{BOTH.id} (client)",
    ]
    of_client = Marks({"client/a.py::test_1": {TWO.id, BOTH.id}})
    assert uncovered([ONE, TWO, BOTH], of_client, {BOTH.id: "no way"}) == [f"{ONE.id} (server)"]
