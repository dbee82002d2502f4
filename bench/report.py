"""The results: a table for the terminal, JSON for keeping, and the comparison of two runs."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.rows import CEILING, HOLDFAST, MOSQUITTO, OTHER_CLIENTS, RAW, ClientRow, Row
from bench.stats import median, spread

SCHEMA: Final = 1
Run = dict[str, Any]  # what json gives back; its shape is _as_dict's and __main__'s
STYLES: Final = {"met": "green", "missed": "red", "failed": "bold red"}
# Enough for the table where output goes to a file, which has no width of its own.
WIDTH_UNSEEN: Final = 150


def console() -> Console:
    """Standard output, wide enough for the table also where nobody looks."""
    plain = Console(emoji=False, highlight=False)
    if plain.is_terminal:
        return plain
    return Console(emoji=False, highlight=False, width=WIDTH_UNSEEN)


def print_rows(rows: Sequence[Row], *, to: Console, is_judged: bool) -> None:
    """The tables, of the broker and of the client, then the notes and failures under them."""
    of_client = [row for row in rows if isinstance(row, ClientRow)]
    of_broker = [row for row in rows if not isinstance(row, ClientRow)]
    if of_broker:
        to.print(_broker_table(of_broker, is_judged=is_judged))
    if of_client:
        to.print(_client_table(of_client, is_judged=is_judged))
    for row in rows:
        for text in (*row.notes, *(f"FAILED {failure}" for failure in row.failures)):
            to.print(f"{row.key}: {escape(text)}", soft_wrap=True)
    if not is_judged:
        to.print("A quick run: it shows that everything works; its figures are not judged.")


def _broker_table(rows: Sequence[Row], *, is_judged: bool) -> Table:
    table = Table(title="Holdfast beside Mosquitto: medians, ± half the spread")
    table.add_column("", no_wrap=True)
    table.add_column("scenario")
    for title in ("Holdfast", "Mosquitto", "ceiling", "ratio", "target"):
        table.add_column(title, justify="right")
    table.add_column("")
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f} x"
        if ratio and row.against != MOSQUITTO:
            ratio += f" {row.against}"
        table.add_row(
            row.key,
            f"{row.title} ({row.unit})",
            _cell(row, HOLDFAST),
            _cell(row, MOSQUITTO),
            _cell(row, CEILING),
            ratio,
            "" if row.target is None else str(row.target),
            _verdict(row, is_judged=is_judged),
        )
    return table


def _client_table(rows: Sequence[ClientRow], *, is_judged: bool) -> Table:
    """Under each figure: CPU time of a message and the client's peak memory."""
    table = Table(
        title="Holdfast's client beside others: medians, ± half the spread;"
        " under them µs of CPU for a message, and MB at most",
        show_lines=True,
    )
    table.add_column("", no_wrap=True)
    table.add_column("scenario")
    table.add_column("Holdfast", justify="right")
    for name in OTHER_CLIENTS:
        table.add_column(f"{name}, ratio, target", justify="right")
    table.add_column("raw bytes", justify="right")
    table.add_column("")
    for row in rows:
        cells = [_client_cell(row, HOLDFAST)]
        for name in OTHER_CLIENTS:
            cell = _client_cell(row, name)
            if (ratio := row.ratios.get(name)) is not None:
                cell += f"\n{ratio:.2f} x"
                if (bound := row.rivals.get(name)) is not None:
                    cell += f" (≥ {bound:.3g})"
            cells.append(cell)
        target = "" if row.target is None else f" {row.target}"
        table.add_row(
            row.key,
            f"{row.title} ({row.unit}){target}",
            *cells,
            _client_cell(row, RAW),
            _verdict(row, is_judged=is_judged),
        )
    return table


def _client_cell(row: Row, name: str) -> str:
    text = _cell(row, name)
    costs = row.figures(name, "cpu_us"), row.figures(name, "peak_mb")
    if costs[0] and costs[1]:
        text += f"\n{_number(median(costs[0]))} µs {max(costs[1]):.0f} MB"
    return text


def _verdict(row: Row, *, is_judged: bool) -> str:
    verdict = row.verdict if is_judged or row.verdict == "failed" else ""
    return f"[{STYLES[verdict]}]{verdict}[/]" if verdict in STYLES else verdict


def as_json(rows: Sequence[Row], about: dict[str, object]) -> str:
    """All that is known about a run, every repetition included."""
    return json.dumps(
        {"schema": SCHEMA, **about, "rows": [_as_dict(row) for row in rows]}, indent=1
    )


def print_comparison(first: Path, second: Path, *, to: Console) -> None:
    """Each row's second figure over its first, for each broker. Raises ValueError, OSError."""
    runs = [_read(path) for path in (first, second)]
    for path, run in zip((first, second), runs, strict=True):
        to.print(f"{path.name}: {run['commit']}, {run['machine']}", soft_wrap=True)
    table = Table(title=f"{second.name} over {first.name}")
    for title in ("", "scenario", "Holdfast", "over", "ratio", "Mosquitto", "over", "ratio"):
        table.add_column(title, justify="left" if title in ("", "scenario") else "right")
    befores, afters = ({row["key"]: row for row in run["rows"]} for run in runs)
    for key in (key for key in befores if key in afters):
        cells: list[str] = []
        for broker in (HOLDFAST, MOSQUITTO):
            before, after = (rows[key]["medians"].get(broker) for rows in (befores, afters))
            cells += [_number(after), _number(before)]
            cells.append(f"{after / before:.2f} x" if before and after is not None else "")
        table.add_row(key, f"{befores[key]['title']} ({befores[key]['unit']})", *cells)
    to.print(table)


def _read(path: Path) -> Run:
    run: Run = json.loads(path.read_text())
    if not isinstance(run, dict) or run.get("schema") != SCHEMA:
        raise ValueError(f"{path} is not a result of this benchmark (schema {SCHEMA})")
    return run


def _as_dict(row: Row) -> dict[str, object]:
    return {
        "key": row.key,
        "title": row.title,
        "unit": row.unit,
        "lower_is_better": row.lower_is_better,
        "medians": {broker: median(values) for broker, values in row.values.items()},
        "spreads": {broker: spread(values) for broker, values in row.values.items()},
        "against": row.against,
        "reference": row.reference,
        "ratio": row.ratio,
        "target": None if row.target is None else str(row.target),
        "ratios": row.ratios if isinstance(row, ClientRow) else {},
        "rivals": row.rivals if isinstance(row, ClientRow) else {},
        "verdict": row.verdict,
        "repetitions": row.raw,
        "notes": row.notes,
        "failures": row.failures,
    }


def _cell(row: Row, broker: str) -> str:
    values = row.values.get(broker)
    if not values:
        return "failed" if any(text.startswith(broker) for text in row.failures) else ""
    text = _number(median(values))
    return text if len(values) == 1 else f"{text} ±{spread(values):.0%}"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
