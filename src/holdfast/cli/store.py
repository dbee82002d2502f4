"""``holdfast store``: the tools to look after a store."""

import os
from pathlib import Path
from typing import Annotated, Final

import typer

from holdfast.cli.output import failures, progress_bar, size, tell
from holdfast.config import load_settings
from holdfast.errors import ConfigError, UsageError
from holdfast.store.backup import back_up, compact, restore

__all__ = ["STORE_HELP", "app"]

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
