"""``python -m bench``: measure, or compare two measurements."""

import argparse
import shutil
import signal
import sys
import traceback
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from bench import report
from bench.brokers import MOSQUITTO_CONFIG, ROOT, holdfast_version, mosquitto_version
from bench.client_rows import client_versions
from bench.machine import commit, describe, raise_file_limit
from bench.rows import Row
from bench.scenarios import groups, scenarios
from bench.subjects import Bench, Options

RESULTS = ROOT / "build" / "bench"


def main(arguments: list[str]) -> int:
    """0 if everything was measured, 1 if a row failed, 2 for a wrong command line."""
    if arguments[:1] == ["compare"]:
        return _compare(arguments[1:])
    known = scenarios()
    parsed = _parser(list(known)).parse_args(arguments)
    named = parsed.only.split(",") if parsed.only else list(known)
    only = [key for name in named for key in groups().get(name, [name])]
    if unknown := [key for key in only if key not in known]:
        print(f"no scenario {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    options = Options(
        repeat=1 if parsed.quick else parsed.repeat,
        seconds=0.4 if parsed.quick else parsed.seconds,
        warmup_s=0.2 if parsed.quick else 0.5,
        quick=parsed.quick,
        spin=parsed.spin,
        mosquitto_nodelay=parsed.mosquitto_nodelay,
        holdfast=parsed.holdfast,
        serve_options=parsed.serve_option,
    )
    raise_file_limit()
    before = signal.signal(signal.SIGTERM, _interrupt)
    begin = datetime.now(UTC)
    RESULTS.mkdir(parents=True, exist_ok=True)
    work = RESULTS / f"work-{begin:%Y%m%dT%H%M%SZ}"
    about = _about(begin, options, only)
    rows: list[Row] = []
    is_whole = True
    try:
        bench = Bench(options, work)
        for key in only:
            try:
                rows += known[key](bench)
            except Exception as error:  # One scenario's mistake does not cost the others.
                traceback.print_exc()
                rows.append(Row(key, "broke off", "", failures=[f"holdfast: {error!r}"]))
    except KeyboardInterrupt:
        is_whole = False
    finally:
        shutil.rmtree(work, ignore_errors=True)
        signal.signal(signal.SIGTERM, before)
    about["seconds"] = round((datetime.now(UTC) - begin).total_seconds(), 1)
    to = report.console()
    report.print_rows(rows, to=to, is_judged=not options.quick)
    path = Path(parsed.json) if parsed.json else RESULTS / _file_name(begin, about)
    path.write_text(report.as_json(rows, about))
    to.print(f"all repetitions: {path}", soft_wrap=True)
    if not is_whole:
        return 130
    return 1 if any(row.failures for row in rows) else 0


def _compare(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench compare")
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parsed = parser.parse_args(arguments)
    try:
        report.print_comparison(parsed.first, parsed.second, to=report.console())
    except (OSError, ValueError) as error:
        print(f"{error}", file=sys.stderr)
        return 2
    return 0


def _parser(keys: list[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure Holdfast beside Mosquitto, and its client beside others;"
        " `compare A.json B.json` compares two runs.",
    )
    add = parser.add_argument
    add("--only", metavar="KEYS", help=f"some of {','.join(keys)}, or {' or '.join(groups())}")
    add("--repeat", type=int, default=3, help="repetitions of each rate (3)")
    add("--seconds", type=float, default=2.0, help="length of each repetition (2)")
    add("--quick", action="store_true", help="a minute, to see that everything works")
    add("--json", metavar="FILE", help="where to write (build/bench/TIME-COMMIT.json)")
    add("--holdfast", metavar="PROGRAM", default=str(ROOT / ".venv/bin/holdfast"))
    add(
        "--serve-option",
        metavar="OPTION",
        action="append",
        default=[],
        help="passed on to holdfast serve, for instance --serve-option=--store=memory",
    )
    add("--mosquitto-nodelay", action="store_true", help="set_tcp_nodelay, which slows it down")
    add("--spin", action="store_true", help="a generator that never sleeps")
    return parser


def _about(begin: datetime, options: Options, only: list[str]) -> dict[str, object]:
    return {
        "time": begin.isoformat(timespec="seconds"),
        "commit": commit(ROOT),
        "machine": describe(RESULTS),
        "versions": {
            "holdfast": holdfast_version(Path(options.holdfast)),
            "mosquitto": mosquitto_version(),
            **client_versions(),
        },
        "options": {"only": only, **asdict(options)},
        "mosquitto_config": MOSQUITTO_CONFIG,
    }


def _file_name(begin: datetime, about: dict[str, object]) -> str:
    return f"{begin:%Y%m%dT%H%M%SZ}-{about['commit']}.json"


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    """End like Ctrl-C does: the brokers stopped, the folders removed."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
