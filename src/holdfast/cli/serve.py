"""``holdfast serve``: settings in, broker run, and every failure as one line and an exit code."""

import errno
import os
import socket
from pathlib import Path
from typing import Annotated, Final

import typer

from holdfast.cli.config import report_examination
from holdfast.cli.exit_codes import ExitCode, one_line
from holdfast.config import LogLevel, Settings, StoreKind, load_settings
from holdfast.errors import ConfigError, StoreError

__all__ = ["SERVE_HELP", "add_to"]

# Markdown, as Typer shows it.
SERVE_HELP: Final = """Run the broker in the foreground until SIGTERM or SIGINT.

Settings come from, later ones winning: built-in defaults, the configuration file, `HOLDFAST_...`
variables of the environment, these options. There are more settings than options:
docs/reference/configuration.md lists all.

Without a setting about it, anyone may connect, and only from this machine. A broker that others
can reach starts with authenticators, or with `--allow-anonymous`.

Examples:

```text
holdfast serve
holdfast serve --data-dir /var/lib/holdfast
holdfast serve --listen 0.0.0.0:1883 --allow-anonymous
holdfast serve --listen 127.0.0.1:1883 --listen '[::1]:1883' --log-json
holdfast serve --config holdfast.toml --log-level debug
```

Exit codes:

- 0: stopped cleanly
- 1: internal failure
- 2: wrong usage or configuration
- 3: an address is in use or cannot be bound
- 4: the store or its folder cannot be used (not writable, locked by another broker, written by a
  newer version, damaged with `--strict`), or failed while it ran (`store_recovery = "stop"`)
"""

_NOT_BINDABLE: Final = frozenset(
    {
        *(errno.EACCES, errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPERM),
        errno.EINVAL,  # an address of IPv4 inside IPv6, or of a link without its zone
        # Of a Unix socket, whose path may be anything.
        *(errno.EEXIST, errno.EISDIR, errno.ENOENT, errno.ENOTDIR, errno.EROFS),
    }
)


def add_to(parent: typer.Typer) -> None:
    """Add the subcommand."""
    parent.command(name="serve", help=SERVE_HELP)(serve)


def serve(
    listen: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Address to listen on; give it again for more. Default: 127.0.0.1:1883.",
        ),
    ] = None,
    allow_anonymous: Annotated[
        bool | None,
        typer.Option(
            "--allow-anonymous",
            help="Let in clients without a user name, from other machines as well.",
            show_default=False,
        ),
    ] = None,
    data_dir: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Folder of the store, made if missing. Default: data."),
    ] = None,
    store: Annotated[
        StoreKind | None,
        typer.Option(help="sqlite is durable; memory forgets all at exit. Default: sqlite."),
    ] = None,
    strict: Annotated[
        bool | None,
        typer.Option(
            "--strict",
            help="Refuse to start on a damaged store, where else it is repaired.",
            show_default=False,
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE.toml", help="Configuration file. Default: none."),
    ] = None,
    log_level: Annotated[
        LogLevel | None, typer.Option(help="The least severe records to log. Default: info.")
    ] = None,
    log_json: Annotated[
        bool | None,
        typer.Option("--log-json", help="Log one JSON object per line.", show_default=False),
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Check the configuration and leave, as `holdfast config check`.",
            show_default=False,
        ),
    ] = False,
) -> None:
    """Run the broker and leave with its exit code; ``SERVE_HELP`` is what the user reads."""
    try:
        settings = load_settings(
            config_file=config,
            environment=os.environ,
            overrides={
                # Typer gives an empty list for an option that was not given.
                "listen": listen or None,
                "allow_anonymous": allow_anonymous,
                "data_dir": data_dir,
                "store": store,
                "store_strict": strict,
                "log_level": log_level,
                "log_json": log_json,
            },
        )
        if check:
            report_examination(settings)
        code = ExitCode.STOPPED if check else _run(settings)
    except (ConfigError, StoreError, OSError) as error:
        code = _exit_code(error)
        typer.echo(f"holdfast: {one_line(error)}", err=True)
    raise typer.Exit(code)


def _run(settings: Settings) -> int:
    # Here and not above: a wrong option should not wait for the server's libraries.
    from holdfast.server import run

    return run(settings)


def _exit_code(error: ConfigError | StoreError | OSError) -> ExitCode:
    if isinstance(error, ConfigError):
        return ExitCode.USAGE
    # An OSError that names a file is about the data folder; sockets have no file name.
    if isinstance(error, StoreError) or error.filename is not None:
        return ExitCode.STORE
    # A name that cannot be looked up: a gaierror, or its negative number in a plain OSError.
    is_unknown_host = isinstance(error, socket.gaierror) or (error.errno or 0) < 0
    if is_unknown_host or error.errno in _NOT_BINDABLE:
        return ExitCode.LISTEN
    return ExitCode.FAILED
