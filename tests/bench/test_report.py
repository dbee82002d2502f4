"""Rows judge themselves, and the report says all of it."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from bench.__main__ import main
from bench.report import as_json, print_comparison, print_rows
from bench.rows import CEILING, HOLDFAST, MOSQUITTO, RAW, ClientRow, Row, Target


def row(
    ours: list[float], theirs: list[float], target: Target | None = None, ceiling: float = 0
) -> Row:
    made = Row("a", "a scenario", "/s", target)
    for broker, values in ((HOLDFAST, ours), (MOSQUITTO, theirs)):
        for value in values:
            made.add(broker, value, {"generator_busy": 0.5 if broker == HOLDFAST else 1.0})
    if ceiling:
        made.add(CEILING, ceiling, {})
    return made


def test_the_ratio_is_that_of_the_medians() -> None:
    assert row([300, 200, 900], [100, 50, 110]).ratio == 3
    assert row([300], []).ratio is None
    assert row([], [100]).ratio is None


@pytest.mark.parametrize(
    ("made", "verdict"),
    [
        (row([300, 310], [100, 101], Target(3, "ratio at least")), "met"),
        (row([290, 299], [100, 101], Target(3, "ratio at least")), "missed"),
        (row([290], [100], Target(3, "ratio at most")), "met"),
        (row([310], [100], Target(3, "ratio at most")), "missed"),
        (row([7, 8], [], Target(8, "value at most")), "met"),
        (row([1, 1, 9], [], Target(8, "value at most")), "missed"),
        (row([7], [], Target(8, "ratio at most")), "not judged"),
        (row([], [100], Target(3, "ratio at least")), "failed"),
        (row([1], [1]), ""),
    ],
)
def test_verdicts(made: Row, verdict: str) -> None:
    assert made.verdict == verdict


def test_a_failure_of_holdfast_is_not_hidden_by_other_repetitions() -> None:
    made = row([300], [100], Target(3, "ratio at least"))
    made.failures.append("holdfast: it lost a message")
    assert made.verdict == "failed"


def test_a_figure_near_the_ceiling_is_noted() -> None:
    made = row([75], [75], ceiling=100)
    made.note_ceiling()
    assert made.notes == [
        "holdfast: 75% of the ceiling, generator busy 50% of the time",
        "mosquitto: generator-bound, 75% of the ceiling",
    ]
    made = row([69], [69], ceiling=100)
    made.note_ceiling()
    assert made.notes == []


def test_repetitions_beside_other_work_are_noted() -> None:
    made = row([75], [75])
    made.note_disturbance()
    assert made.notes == []
    made.add(HOLDFAST, 70, {"others_busy": 0.8})
    made.add(MOSQUITTO, 70, {"others_busy": 0.1})
    made.note_disturbance()
    assert made.notes == ["1 of 2 repetitions disturbed: other processes used up to 80% of a core"]


def test_the_table_shows_figures_notes_and_failures() -> None:
    made = row([1_234_567], [250_000], Target(3, "ratio at least"), ceiling=9_000_000)
    made.notes.append("as [it] is :smile:")
    failed = Row("b", "another", "ms", failures=["holdfast: gone"])
    to = Console(width=150, file=io.StringIO(), record=True, emoji=False)
    print_rows([made, failed], to=to, is_judged=True)
    text = to.export_text()
    for part in ("1,234,567", "250,000", "9,000,000", "4.94 x", "≥ 3 x", "met", "failed"):
        assert part in text
    assert "a: as [it] is :smile:" in text
    assert "b: FAILED holdfast: gone" in text


def test_the_clients_have_a_table_of_their_own() -> None:
    made = ClientRow("cp1", "publish", "/s", rivals={"paho": 3})
    for kind, value in ((HOLDFAST, 250_000), ("paho", 50_000), ("gmqtt", 200_000), (RAW, 9e6)):
        made.add(kind, value, {"cpu_us": 1e6 / value, "peak_mb": 31.0})
    to = Console(width=150, file=io.StringIO(), record=True)
    print_rows([made], to=to, is_judged=True)
    text = to.export_text()
    for part in ("250,000", "4 µs 31 MB", "5.00 x (≥ 3)", "1.25 x", "9,000,000", "met"):
        assert part in text
    assert "Mosquitto" not in text
    assert json.loads(as_json([made], {}))["rows"][0]["ratios"] == {"paho": 5, "gmqtt": 1.25}


def test_two_runs_are_compared_row_by_row(tmp_path: Path) -> None:
    about: dict[str, object] = {"commit": "abc", "machine": {"cores": 2}}
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    first.write_text(as_json([row([100, 110, 120], [50])], about))
    second.write_text(as_json([row([220], [50])], about))
    assert json.loads(first.read_text())["rows"][0]["repetitions"][1]["value"] == 110
    to = Console(width=150, file=io.StringIO(), record=True)
    print_comparison(first, second, to=to)
    text = to.export_text()
    assert "2.00 x" in text
    assert "1.00 x" in text


def test_a_file_that_is_no_result_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")
    assert main(["compare", str(tmp_path / "x.json"), str(tmp_path / "x.json")]) == 2
    assert main(["compare", str(tmp_path / "y.json"), str(tmp_path / "y.json")]) == 2


def test_an_unknown_scenario_is_refused() -> None:
    assert main(["--only", "a,nonsense"]) == 2
