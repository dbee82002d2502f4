"""The ``holdfast`` command: its options and the table of its subcommands.

A subcommand's module is imported when it is named: `holdfast pub` in a script should not wait for
the libraries of the server.
"""

from collections.abc import Iterator, MutableMapping
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Final

import typer
from typer.core import TyperGroup

from holdfast.build_info import version_line
from holdfast.cli.quick_start import quickened

if TYPE_CHECKING:
    from typer._click import Command, Context, Parameter

__all__ = ["SUBCOMMANDS", "app", "main", "subcommand"]

# In the order of the help. Each is the module of this name, whose ``add_to`` adds it to an app.
SUBCOMMANDS: Final = (
    "serve",
    "pub",
    "sub",
    "rr",
    "bench",
    "passwd",
    "config",
    "store",
    "outbox",
    "acl",
)


def subcommand(name: str) -> "Command":
    """Import a subcommand."""
    alone = _new_app()
    # With a callback it is a group, however few subcommands it has.
    alone.callback()(lambda: None)
    import_module(f"holdfast.cli.{name}").add_to(alone)
    group = typer.main.get_command(alone)
    assert isinstance(group, TyperGroup)
    return group.commands[name]


class _Commands(MutableMapping[str, "Command"]):
    """The subcommands by name, each imported when it is asked for."""

    def __init__(self) -> None:
        self._imported: dict[str, Command] = {}

    def __getitem__(self, name: str) -> "Command":
        if name not in self._imported:
            if name not in SUBCOMMANDS:
                raise KeyError(name)
            self._imported[name] = subcommand(name)
        return self._imported[name]

    def __setitem__(self, name: str, command: "Command") -> None:
        self._imported[name] = command

    def __delitem__(self, name: str) -> None:
        del self._imported[name]

    def __iter__(self) -> Iterator[str]:
        return iter(SUBCOMMANDS)

    def __len__(self) -> int:
        return len(SUBCOMMANDS)


class _Group(TyperGroup):
    """A group whose help lists all subcommands, and which otherwise imports the one it runs."""

    def list_commands(self, ctx: "Context") -> list[str]:
        # The inherited one looks at the commands and not at their names.
        return list(SUBCOMMANDS)

    def get_params(self, ctx: "Context") -> "list[Parameter]":
        """All parameters, that of the help included."""
        return quickened(super().get_params(ctx))


def _new_app() -> typer.Typer:
    return typer.Typer(
        name="holdfast",
        help="An MQTT broker whose persistent sessions hold: over lost connections, kill -9 and "
        "power loss, by default; and clients for the command line.",
        no_args_is_help=True,
        rich_markup_mode="markdown",
        # A traceback is for whoever mends Holdfast, and then it is Python's own.
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


app: Final = _new_app()


def main() -> None:
    """Run the command with the arguments of this process; the entry point of the package."""
    group = typer.main.get_command(app)
    assert isinstance(group, _Group)
    group.commands = _Commands()
    group()


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(version_line())
        raise typer.Exit


@app.callback(cls=_Group)
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
