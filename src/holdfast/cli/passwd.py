"""``holdfast passwd``: the users of a password file."""

import getpass
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from holdfast.cli.output import failures
from holdfast.errors import UsageError

__all__ = ["PASSWD_HELP", "add_to"]

PASSWORD_BYTES_MAX: Final = 65_535  # what a CONNECT packet can hold
ATTEMPTS: Final = 3
DECOY_KEY: Final = "# scram-decoy-key: "

PASSWD_HELP: Final = """Add a user to a password file, change the password, or delete the user.

The password is asked for twice, on the terminal. With `--batch` it is the first line of standard
input. FILE is made if it is missing, and then it is readable for its owner alone. A running broker
takes the change within two seconds, and disconnects who has no or another password now.

The file holds an argon2id hash for each user. With `--scram` it holds a verifier for SCRAM as well,
for clients that never show their password; who has one keeps one when the password changes.

Examples:

```text
holdfast passwd /etc/holdfast/passwords ada
holdfast passwd /etc/holdfast/passwords ada --scram
pass show mqtt/m7 | holdfast passwd /etc/holdfast/passwords m7 --batch
holdfast passwd /etc/holdfast/passwords ada --delete
```

Exit codes: 0 done; 1 internal failure; 2 wrong usage, FILE is something else or cannot be read;
4 it cannot be written.
"""


def add_to(parent: typer.Typer) -> None:
    """Add the subcommand."""
    parent.command(name="passwd", help=PASSWD_HELP)(passwd)


def passwd(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The password file.")],
    user: Annotated[str, typer.Argument(metavar="USER", help="Name of the user.")],
    delete: Annotated[bool, typer.Option("--delete", help="Remove the user.")] = False,
    batch: Annotated[
        bool, typer.Option("--batch", help="Read the password from standard input.")
    ] = False,
    scram: Annotated[
        bool, typer.Option("--scram", help="Write a verifier of SCRAM-SHA-256 too.")
    ] = False,
    mechanism: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MECHANISM",
            help="Write one for this mechanism: SCRAM-SHA-1, SCRAM-SHA-256 or SCRAM-SHA-512. Give "
            "it again for more.",
        ),
    ] = None,
) -> None:
    """Change the file; ``PASSWD_HELP`` is what the user reads."""
    # Here and not above: no other command waits for it.
    from holdfast.auth.password_file import SCRAM_MECHANISMS, check_user_name

    with failures():
        wanted = [name.upper() for name in mechanism or []] + ["SCRAM-SHA-256"] * scram
        for name in wanted:
            if name not in SCRAM_MECHANISMS:
                raise UsageError(f"--mechanism: expected one of {', '.join(SCRAM_MECHANISMS)}")
        check_user_name(user)
        if delete and (batch or wanted):
            raise UsageError("--delete: expected no other option with it")
        if not file.parent.is_dir():
            raise UsageError(f"{file.parent} is not a folder")
        typer.echo(_delete(file, user) if delete else _set(file, user, wanted, batch))


def _delete(file: Path, user: str) -> str:
    from holdfast.auth.password_edit import editing, read_for_edit, with_user, write
    from holdfast.auth.password_file import parse

    with editing(file):
        text = read_for_edit(file)
        if user not in parse(text, str(file)):
            raise UsageError(f"{file}: there is no user {user}")
        write(file, with_user(text, user, []))
    return f"{file}: {user} deleted"


def _set(file: Path, user: str, wanted: list[str], is_batch: bool) -> str:
    from holdfast.auth.password_edit import editing, read_for_edit, with_user, write
    from holdfast.auth.password_file import parse
    from holdfast.auth.passwords import new_hash
    from holdfast.auth.verifiers import Verifiers, new_decoy_line, new_verifier

    read_for_edit(file)  # Whoever types a password should not hear of a wrong file after that.
    password = _from_standard_input() if is_batch else _from_terminal()
    hash_ = new_hash(password)
    with editing(file):
        text = read_for_edit(file)
        before = parse(text, str(file)).get(user)
        mechanisms = sorted({*wanted, *(() if before is None else before.scram)})
        try:
            verifiers = [str(new_verifier(name, password.decode())) for name in mechanisms]
        except ValueError:
            raise UsageError("expected a password that SCRAM allows: see RFC 4013") from None
        if verifiers and DECOY_KEY not in text:
            # One for the file, so that all brokers that have it agree on who there might be.
            text = f"{new_decoy_line()}\n{text}"
        text = with_user(text, user, [hash_, *verifiers])
        if verifiers:
            # Raises for a name that SCRAM cannot tell from another one, or does not allow.
            Verifiers(parse(text, str(file)), b"")
        write(file, text)
    kinds = ", ".join(["argon2id", *mechanisms])
    return f"{file}: {user} {'added' if before is None else 'changed'} ({kinds})"


def _from_terminal() -> bytes:
    if not sys.stdin.isatty():
        raise UsageError("standard input is not a terminal: expected --batch")
    for _ in range(ATTEMPTS):
        password = getpass.getpass("Password: ")
        if password == "":
            typer.echo("expected a password, nothing was typed", err=True)
        elif getpass.getpass("Again: ") != password:
            typer.echo("these are two different passwords", err=True)
        else:
            return _checked(password.encode(errors="surrogateescape"))
    raise UsageError("expected the same password twice")


def _from_standard_input() -> bytes:
    line = sys.stdin.buffer.readline(PASSWORD_BYTES_MAX + 3)
    return _checked(line.removesuffix(b"\n").removesuffix(b"\r"))


def _checked(password: bytes) -> bytes:
    if not 1 <= len(password) <= PASSWORD_BYTES_MAX:
        raise UsageError(f"expected a password of 1 to {PASSWORD_BYTES_MAX} bytes")
    return password
