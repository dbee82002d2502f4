"""The ``holdfast`` command: its options and the list of its subcommands."""

from typing import Annotated

import typer

from holdfast.build_info import version_line
from holdfast.cli.acl import ACL_HELP
from holdfast.cli.acl import app as acl_app
from holdfast.cli.config import CONFIG_HELP
from holdfast.cli.config import app as config_app
from holdfast.cli.passwd import PASSWD_HELP, passwd
from holdfast.cli.serve import SERVE_HELP, serve
from holdfast.cli.store import STORE_HELP
from holdfast.cli.store import app as store_app

__all__ = ["app", "main"]

app = typer.Typer(
    name="holdfast",
    help="An MQTT broker whose persistent sessions hold: over lost connections, kill -9 and "
    "power loss, by default.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    # A traceback is for whoever mends Holdfast, and then it is Python's own.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command with the arguments of this process; the entry point of the package."""
    app()


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(version_line())
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Print the versions of holdfast, Python and SQLite, and whether it is compiled.",
        ),
    ] = False,
) -> None:
    """Take the options that come before a subcommand."""


app.command(name="serve", help=SERVE_HELP)(serve)
app.command(name="passwd", help=PASSWD_HELP)(passwd)
app.add_typer(config_app, name="config", help=CONFIG_HELP)
app.add_typer(store_app, name="store", help=STORE_HELP)
app.add_typer(acl_app, name="acl", help=ACL_HELP)
