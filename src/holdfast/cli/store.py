"""``holdfast store``: the tools to look after a store."""

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final

import typer

from holdfast.cli.exit_codes import ExitCode
from holdfast.cli.output import Bar, failures, progress_bar, size, tell
from holdfast.cli.stats_text import stats_lines
from holdfast.config import load_settings
from holdfast.disk.folder import sync_folder
from holdfast.errors import ConfigError, StoreError, UsageError
from holdfast.store.backup import back_up, compact, held, part_file, restore, sync_file
from holdfast.store.building import Transferred
from holdfast.store.reading import StoreView
from holdfast.store.report import TOP, stats
from holdfast.store.salvage import repair
from holdfast.store.sqlite import FILE_NAME
from holdfast.store.transfer import export_store, import_store
from holdfast.store.verify import Finding, check

__all__ = ["STORE_HELP", "add_to"]

STORE_HELP: Final = "Look after a store: check, back up, restore, move and compact it."

_EXIT_CODES: Final = """
Exit codes: 0 done; 1 internal failure; 2 wrong usage; 4 the store, a folder or a file cannot be
used (missing, locked by a broker, no space); 5 what was read is damaged.
"""
_FOLDER: Final = "Without DIR: `data_dir` of HOLDFAST_DATA_DIR or HOLDFAST_CONFIG, or `data`."

BACKUP_HELP: Final = f"""Copy the store to DEST, while the broker runs or not.

DEST is a new file, or a folder, where the backup gets a dated name. It holds the store as it was at
one moment after the command began: all that was acknowledged before is in it. It is flushed to
disk and checked when the command ends.

Examples:

```text
holdfast store backup /backup
holdfast store backup /backup/monday.db --data-dir /var/lib/holdfast
holdfast store backup /backup/latest.db --force --json
```
{_EXIT_CODES}"""

RESTORE_HELP: Final = f"""Put the backup SRC into a data folder. The broker has to be stopped.

The backup is checked first. A store that is there is replaced only with `--force`, and then kept in
the folder under a dated name.

Examples:

```text
holdfast store restore /backup/monday.db
holdfast store restore /backup/monday.db --data-dir /var/lib/holdfast --force
```
{_EXIT_CODES}"""

COMPACT_HELP: Final = f"""Write the store anew without its free space. The broker has to be stopped.

A running broker gives space back by itself; this does it at once, and needs as much free space
as the new file takes. {_FOLDER}

Examples:

```text
holdfast store compact
holdfast store compact /var/lib/holdfast --json
```
{_EXIT_CODES}"""

CHECK_HELP: Final = f"""Verify a store: every page, row and message, and how they fit together.

It reads one moment of the store and writes nothing; the broker may run. The write-ahead log of a
busy broker grows meanwhile; to check a backup instead costs the broker nothing. DIR is a data
folder or the file of a store. {_FOLDER}

Examples:

```text
holdfast store check
holdfast store check /var/lib/holdfast --json
holdfast store check /backup/monday.db
```

Exit codes: 0 sound; 1 internal failure; 2 wrong usage; 4 the store cannot be read (missing, not
ours, written by a newer version); 5 damage was found.
"""

STATS_HELP: Final = f"""Say what is in a store: sizes, sessions, and what keeps messages in it.

It reads one moment of the store and writes nothing; the broker may run. Sessions and shared groups
are sorted by the messages that wait for them. PINS are the messages that would go with this one.
DIR is a data folder or the file of a store. {_FOLDER}

Examples:

```text
holdfast store stats
holdfast store stats /var/lib/holdfast --top 5
holdfast store stats --json
```
{_EXIT_CODES}"""

EXPORT_HELP: Final = f"""Write a store as JSON Lines: sessions, subscriptions and messages.

It reads one moment of the store; the broker may run. Of the messages, those that a session or
shared group still needs are written, and retained and delayed ones. The format is in
docs/reference/export-format.md. {_FOLDER}

Examples:

```text
holdfast store export -o monday.jsonl
holdfast store export /var/lib/holdfast | gzip > monday.jsonl.gz
```
{_EXIT_CODES}"""

IMPORT_HELP: Final = f"""Make a store from an export, or from Mosquitto's database.

The broker has to be stopped. FILE is `-` for standard input. The data folder must have no store, or
one that holds nothing. All of the file is imported, or nothing. {_FOLDER}

Examples:

```text
holdfast store import monday.jsonl
gunzip -c monday.jsonl.gz | holdfast store import - /var/lib/holdfast
holdfast store import /var/lib/mosquitto/mosquitto.db /var/lib/holdfast
```
{_EXIT_CODES}"""

REPAIR_HELP: Final = f"""Put what is sound of a damaged store into a new one.

The broker has to be stopped. The damaged files stay in the folder, whole, with a report beside
them. A store without damage comes out with the same content. {_FOLDER}

Examples:

```text
holdfast store repair
holdfast store repair /var/lib/holdfast --json
```

Exit codes: 0 nothing was lost; 1 internal failure; 2 wrong usage; 4 the store cannot be used or the
new one not be written; 5 repaired, and something is lost or may be.
"""

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")

Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
Folder = Annotated[Path | None, typer.Argument(metavar="[DIR]", help="Data folder.")]
FolderOption = Annotated[
    Path | None, typer.Option("--data-dir", metavar="DIR", help=f"Data folder. {_FOLDER}")
]


def data_folder(given: Path | None) -> Path:
    """The data folder as given, or as `holdfast serve` would find it."""
    if given is not None:
        return given
    try:
        settings = load_settings(config_file=None, environment=os.environ, overrides={})
    except ConfigError as error:
        raise UsageError(str(error)) from error
    return Path(settings.data_dir)


def add_to(parent: typer.Typer) -> None:
    """Add the subcommand."""
    parent.add_typer(app, name="store", help=STORE_HELP)


@app.command(name="backup", help=BACKUP_HELP)
def _backup(
    dest: Annotated[Path, typer.Argument(metavar="DEST", help="New file, or folder.")],
    data_dir: FolderOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file DEST.")] = False,
    as_json: Json = False,
) -> None:
    with failures():
        with progress_bar() as progress:
            done = back_up(data_folder(data_dir), dest, is_replacing=force, progress=progress)
        tell(
            {"file": str(done.file), "file_bytes": done.file_bytes},
            f"{done.file}: {size(done.file_bytes)}, checked",
            as_json=as_json,
        )


@app.command(name="restore", help=RESTORE_HELP)
def _restore(
    src: Annotated[Path, typer.Argument(metavar="SRC", help="A backup.")],
    data_dir: FolderOption = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the store that is there, and keep it aside.")
    ] = False,
    as_json: Json = False,
) -> None:
    with failures():
        with progress_bar() as progress:
            done = restore(src, data_folder(data_dir), is_replacing=force, progress=progress)
        aside = "" if done.set_aside is None else f"; the store that was there is {done.set_aside}"
        tell(
            {
                "file": str(done.file),
                "file_bytes": done.file_bytes,
                "set_aside": None if done.set_aside is None else str(done.set_aside),
            },
            f"{done.file}: restored, {size(done.file_bytes)}{aside}",
            as_json=as_json,
        )


@app.command(name="compact", help=COMPACT_HELP)
def _compact(data_dir: Folder = None, as_json: Json = False) -> None:
    with failures():
        with progress_bar() as progress:
            done = compact(data_folder(data_dir), progress=progress)
        tell(
            {
                "file": str(done.file),
                "before_bytes": done.before_bytes,
                "after_bytes": done.after_bytes,
            },
            f"{done.file}: {size(done.before_bytes)} before, {size(done.after_bytes)} now",
            as_json=as_json,
        )


@app.command(name="check", help=CHECK_HELP)
def _check(data_dir: Folder = None, as_json: Json = False) -> None:
    with failures():
        with progress_bar() as progress, StoreView(data_folder(data_dir)) as view:
            report = check(view, progress)
        rows = ", ".join(f"{count} {table}" for table, count in report.rows.items() if count)
        lines = [_finding_line(finding) for finding in report.findings]
        if report.findings_count > len(lines):
            lines.append(f"... and {report.findings_count - len(lines)} more")
        summary = "sound" if not lines else f"{report.findings_count} findings"
        lines.append(f"{view.path}: {summary}; {report.messages} messages; rows: {rows or 'none'}")
        tell(
            {"file": str(view.path), "is_sound": not report.findings} | asdict(report),
            "\n".join(lines),
            as_json=as_json,
        )
        if report.findings:
            raise typer.Exit(ExitCode.DAMAGE)


def _finding_line(finding: Finding) -> str:
    key = f" {finding.key}" if finding.key else ""
    touched = f" (sessions: {', '.join(map(repr, finding.sessions))})" if finding.sessions else ""
    return f"{finding.table}{key}: {finding.text}{touched}"


@app.command(name="stats", help=STATS_HELP)
def _stats(
    data_dir: Folder = None,
    top: Annotated[
        int, typer.Option("--top", metavar="N", min=0, help="How many sessions and groups.")
    ] = TOP,
    as_json: Json = False,
) -> None:
    with failures():
        with progress_bar() as progress, StoreView(data_folder(data_dir)) as view:
            found = stats(view, top=top, progress=progress)
        values = asdict(found) | {"sessions_absent": found.sessions_absent}
        tell(values, "\n".join(stats_lines(found)), as_json=as_json)


@app.command(name="export", help=EXPORT_HELP)
def _export(
    data_dir: Folder = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Default: standard output."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE.")] = False,
    as_json: Json = False,
) -> None:
    with failures():
        with progress_bar() as progress, StoreView(data_folder(data_dir)) as view:
            if output is None:
                done = export_store(view, sys.stdout.buffer, progress)
                sys.stdout.buffer.flush()
            else:
                done = _export_to(view, output, force, progress)
        values = {"file": None if output is None else str(output), "counts": done.counts}
        # On standard output there is the export.
        if output is not None:
            tell(values, f"{output}: {_counted(done)}", as_json=as_json)


def _export_to(view: StoreView, output: Path, is_replacing: bool, progress: Bar) -> Transferred:
    if output.exists() and not is_replacing:
        raise StoreError(f"{output} exists: expected a new name, or --force to replace it")
    with part_file(output) as part:
        with part.open("wb") as file:
            done = export_store(view, file, progress)
        sync_file(part)
        os.replace(part, output)
        sync_folder(output.parent)
    return done


@app.command(name="import", help=IMPORT_HELP)
def _import(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Export or mosquitto.db.")],
    data_dir: Folder = None,
    as_json: Json = False,
) -> None:
    with failures():
        folder = data_folder(data_dir)
        with progress_bar() as progress:
            if str(file) == "-":
                done = import_store(Path("standard input"), sys.stdin.buffer, folder, progress)
            else:
                with file.open("rb") as source:
                    done = import_store(file, source, folder, progress)
        for note in done.notes:
            typer.echo(f"holdfast: {note}", err=True)
        tell(
            {"data_dir": str(folder), "counts": done.counts, "notes": done.notes},
            f"{folder}: {_counted(done)}",
            as_json=as_json,
        )


def _counted(done: Transferred) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in done.counts.items()) or "nothing"


@app.command(name="repair", help=REPAIR_HELP)
def _repair(data_dir: Folder = None, as_json: Json = False) -> None:
    with failures():
        folder = data_folder(data_dir)
        if not (folder / FILE_NAME).is_file():
            raise StoreError(f"{folder}: expected a data folder with {FILE_NAME}")
        with held(folder):
            report = repair(folder)
        tell(report.to_json(), "\n".join(report.lines()), as_json=as_json)
        if report.is_damaged:
            raise typer.Exit(ExitCode.DAMAGE)
