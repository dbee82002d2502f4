"""``holdfast config``: whether a configuration is right, and what it comes to."""

import os
from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer

from holdfast.cli.exit_codes import ExitCode, one_line
from holdfast.config import Settings, load_with_sources, problems, shown
from holdfast.errors import ConfigError

__all__ = ["CONFIG_HELP", "add_to", "report_examination"]

CONFIG_HELP: Final = "Check a configuration, and show what holds."

CHECK_HELP: Final = """Check a configuration without starting anything.

All that `holdfast serve` would read before it listens is read: the file, the variables of the
environment, certificates, keys, rules and password files. What is wrong is on standard error, a
line each; what works and is likely not meant is a line with `warning:`.

Examples:

```text
holdfast config check /etc/holdfast/holdfast.toml
HOLDFAST_CONFIG=/etc/holdfast/holdfast.toml holdfast config check
```

Exit codes:

- 0: right
- 2: wrong
"""

SHOW_HELP: Final = """Print the settings that hold, as TOML.

They come from, later ones winning: built-in defaults, the file, `HOLDFAST_...` variables of the
environment. A comment says where each comes from that is no default. Secrets are not shown.

Examples:

```text
holdfast config show /etc/holdfast/holdfast.toml
holdfast config show --changed
```

Exit codes:

- 0: done
- 2: the configuration cannot be read
"""

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")

FileArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="[FILE.toml]", help="Configuration file. Default: what HOLDFAST_CONFIG names."
    ),
]


def add_to(parent: typer.Typer) -> None:
    """Add the subcommand."""
    parent.add_typer(app, name="config", help=CONFIG_HELP)


@app.command(name="check", help=CHECK_HELP)
def _check(file: FileArgument = None) -> None:
    try:
        loaded = load_with_sources(config_file=file, environment=os.environ)
        report_examination(loaded.settings)
    except ConfigError as error:
        _refuse(error)


@app.command(name="show", help=SHOW_HELP)
def _show(
    file: FileArgument = None,
    changed: Annotated[
        bool, typer.Option("--changed", help="Only what is no default.", show_default=False)
    ] = False,
) -> None:
    try:
        loaded = load_with_sources(config_file=file, environment=os.environ)
    except ConfigError as error:
        _refuse(error)
    typer.echo(shown(loaded, with_defaults=not changed))


def report_examination(settings: Settings) -> None:
    """Say whether a broker could start with these settings, but for its store and its addresses.

    Raises ConfigError for the last thing that is wrong; those before it have been said.
    """
    wrong = [str(problem) for problem in problems(settings)]
    for text in wrong[:-1]:
        typer.echo(f"holdfast: {text}", err=True)
    if wrong:
        raise ConfigError(wrong[-1])
    # Here and not above: what is wrong with the file should not wait for the libraries.
    from holdfast.server import examine

    for warning in examine(settings):
        typer.echo(f"warning: {warning}", err=True)
    where = ", ".join(str(listener.address) for listener in settings.all_listeners)
    typer.echo(f"the configuration is right; it listens on {where}")


def _refuse(error: ConfigError) -> NoReturn:
    typer.echo(f"holdfast: {one_line(error)}", err=True)
    raise typer.Exit(ExitCode.USAGE)
