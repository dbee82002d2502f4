"""What a subcommand imports: nothing that it does not need."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.core import TyperGroup

from holdfast.cli.main import SUBCOMMANDS, subcommand
from tests.support.broker import BrokerProcess
from tests.support.command import holdfast
from tests.support.guide import GUIDES

# Libraries and parts of the server that take long to import, or that a client has no use for.
HEAVY = ("pydantic", "rich", "argon2", "cryptography", "scramp", "jwt", "urllib3", "uvloop", "apsw")
SERVER = ("holdfast.broker", "holdfast.net", "holdfast.auth", "holdfast.store", "holdfast.server")

SHOW = """
import atexit, sys
from holdfast.cli.main import main
atexit.register(lambda: print("\\n".join(sys.modules)))
main()
"""


def imported(folder: Path, *arguments: str) -> list[str]:
    """The modules that a command has imported at its end."""
    code = f"import sys; sys.argv = {['holdfast', *arguments]!r}\n{SHOW}"
    own = {key: value for key, value in os.environ.items() if not key.startswith("HOLDFAST_")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=own,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("command", ["pub", "sub"])
def test_a_client_imports_neither_the_server_nor_what_takes_long(
    broker: BrokerProcess, tmp_path: Path, name: str, command: str
) -> None:
    more = ["-m", "x"] if command == "pub" else ["-E"]
    modules = imported(tmp_path, command, "-p", str(broker.port), "-t", name, *more)
    assert f"holdfast.cli.{command}" in modules
    found = {module for module in modules if module.split(".")[0] in HEAVY}
    found |= {module for module in modules if module.startswith(SERVER)}
    found |= {f"holdfast.cli.{other}" for other in SUBCOMMANDS if other != command} & {*modules}
    assert found == set()


def test_each_subcommand_has_its_help(tmp_path: Path) -> None:
    listed = holdfast("--help", folder=tmp_path).stdout
    for name in SUBCOMMANDS:
        assert f" {name} " in listed
        done = holdfast(name, "--help", folder=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert f"holdfast {name}" in done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_there_is_a_completion_for_each_shell(tmp_path: Path, shell: str) -> None:
    """The shell is found out by looking for the process that runs the command."""
    bash = Path("/bin/bash")
    (tmp_path / shell).symlink_to(bash)
    command = Path(sys.executable).parent / "holdfast"
    done = subprocess.run(
        [str(tmp_path / shell), "-c", f"{command} --show-completion; true"],
        env=os.environ | {"SHELL": f"/bin/{shell}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    expected = {"bash": "complete -o default -F", "zsh": "#compdef holdfast", "fish": "complete "}
    assert expected[shell] in done.stdout, done
    assert "_HOLDFAST_COMPLETE" in done.stdout


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("holdfast pu", {"pub"}),
        ("holdfast be", {"bench"}),
        ("holdfast pub --will-p", {"--will-payload"}),
        ("holdfast bench pub --in", {"--interval", "--in-flight", "--insecure"}),
    ],
)
def test_what_is_offered_when_the_tab_key_is_pressed(
    tmp_path: Path, typed: str, offered: set[str]
) -> None:
    variables = {
        "_HOLDFAST_COMPLETE": "complete_bash",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(typed.count(" ")),
    }
    done = holdfast(folder=tmp_path, variables=variables)
    assert set(done.stdout.split()) == offered


def test_every_option_of_a_client_is_typed_in_a_test() -> None:
    """Here in tests/cli, or in the guide that is typed through."""
    files = [*Path(__file__).parent.rglob("test_*.py"), GUIDES / "command-line.md"]
    text = "".join(file.read_text(encoding="utf-8") for file in files)
    group = subcommand("bench")
    assert isinstance(group, TyperGroup)
    commands = [subcommand(name) for name in ("pub", "sub", "rr")] + list(group.commands.values())
    missing = {
        tuple(parameter.opts)
        for command in commands
        for parameter in command.params
        if not any(
            re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text) for name in parameter.opts
        )
    }
    assert missing == set()
