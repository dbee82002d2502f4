"""The `holdfast` command as a user meets it: real processes, their output and exit codes."""

import importlib
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from holdfast.build_info import version_line
from tests.support.broker import BrokerProcess
from tests.support.command import assert_one_line, holdfast

REFERENCE: Final = Path(__file__).parent.parent.parent / "docs" / "reference" / "command-line.md"
EXAMPLE_CHARACTERS_MAX: Final = 78  # Typer puts a space before and behind it


def test_version_names_what_runs(tmp_path: Path) -> None:
    done = holdfast("--version", folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{version_line()}\n", "")


def test_the_package_is_the_command_too(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "holdfast", "--version"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{version_line()}\n", "")


def test_help_names_the_subcommands(tmp_path: Path) -> None:
    done = holdfast("--help", folder=tmp_path)
    assert done.returncode == 0
    assert re.search(r"\bserve\b.*Run the broker", done.stdout)


def test_help_of_serve_has_options_examples_and_exit_codes(tmp_path: Path) -> None:
    done = holdfast("serve", "--help", folder=tmp_path)
    assert done.returncode == 0
    options = ["--listen", "--data-dir", "--store", "--config", "--log-level", "--log-json"]
    for text in (*options, "holdfast serve --listen 0.0.0.0:1883 --allow-anonymous", "Exit codes"):
        assert text in done.stdout


MODULES = [
    "acl",
    "bench.commands",
    "config",
    "outbox",
    "passwd",
    "pub",
    "rr",
    "serve",
    "store",
    "sub",
]


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_of_help_can_be_copied_from_80_columns(module: str) -> None:
    """A longer one is shown on two lines, of which the first is another command."""
    found = vars(importlib.import_module(f"holdfast.cli.{module}"))
    texts = [text for name, text in found.items() if name.endswith("_HELP")]
    examples = [
        re.findall(r"^```text\n(.*?)^```", str(text), re.MULTILINE | re.DOTALL) for text in texts
    ]
    lines = [line for blocks in examples for block in blocks for line in block.splitlines()]
    assert lines
    assert [line for line in lines if len(line) > EXAMPLE_CHARACTERS_MAX] == []


def test_the_reference_has_every_option(tmp_path: Path) -> None:
    help_text = holdfast("serve", "--help", folder=tmp_path).stdout
    reference = REFERENCE.read_text(encoding="utf-8")
    for option in set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", help_text)):
        assert f"`{option}" in reference, option


@pytest.mark.parametrize(
    "command", ["backup", "restore", "check", "stats", "export", "import", "compact", "repair"]
)
def test_help_of_a_store_command_has_examples_and_codes_and_the_reference_its_options(
    tmp_path: Path, command: str
) -> None:
    help_text = holdfast("store", command, "--help", folder=tmp_path).stdout
    for text in (f"holdfast store {command} ", "Exit codes", "--json"):
        assert text in help_text
    reference = REFERENCE.read_text(encoding="utf-8")
    assert f"| `{command}" in reference
    for option in set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", help_text)):
        assert f"`{option}" in reference, option


@pytest.mark.parametrize(
    "arguments", [["serv"], ["serve", "--nothing"], ["serve", "extra"], ["serve", "--listen"]]
)
def test_wrong_usage_is_code_2(tmp_path: Path, arguments: list[str]) -> None:
    done = holdfast(*arguments, folder=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "Error" in done.stderr


def test_a_wrong_option_value_is_one_line(tmp_path: Path) -> None:
    done = holdfast("serve", "--listen", "1883", folder=tmp_path)
    assert_one_line(done, 2, r'^holdfast: command line: --listen = "1883": expected HOST:PORT')


def test_a_wrong_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("recieve_maximum = 7\n")
    done = holdfast("serve", "--config", "a.toml", folder=tmp_path)
    assert_one_line(done, 2, r"a\.toml: recieve_maximum is unknown; did you mean receive_maximum")


def test_a_wrong_variable_is_one_line(tmp_path: Path) -> None:
    done = holdfast("serve", folder=tmp_path, variables={"HOLDFAST_STORE": "redis"})
    assert_one_line(done, 2, r'environment: HOLDFAST_STORE = "redis": expected one of sqlite')


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    done = holdfast("serve", "--config", "none.toml", folder=tmp_path)
    assert_one_line(done, 2, r"none\.toml: cannot be read: No such file")


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "[::ffff:0.0.0.0]:0"])
@pytest.mark.parametrize("is_variable", [False, True])
def test_elsewhere_without_authentication_it_does_not_start(
    tmp_path: Path, listen: str, is_variable: bool
) -> None:
    if is_variable:
        done = holdfast("serve", folder=tmp_path, variables={"HOLDFAST_LISTEN": listen})
    else:
        done = holdfast("serve", "--listen", listen, folder=tmp_path)
    assert_one_line(done, 2, r"^holdfast: allow_anonymous: the listener .* \(--allow-anonymous\)")
    assert listen in done.stderr
    assert list(tmp_path.iterdir()) == []  # nothing was begun


@pytest.mark.parametrize("store", ["sqlite", "memory"])
def test_an_address_in_use_is_one_line(tmp_path: Path, store: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = holdfast("serve", "--listen", address, "--store", store, folder=tmp_path)
    assert_one_line(done, 3, r"(?i)address already in use")


def test_an_address_of_another_machine_is_one_line(tmp_path: Path) -> None:
    # 192.0.2.0/24 is for documentation: no machine has it.
    done = holdfast("serve", "--listen", "192.0.2.1:0", "--allow-anonymous", folder=tmp_path)
    assert_one_line(done, 3, r"(?i)cannot assign requested address")


def test_an_address_that_cannot_be_one_is_one_line(tmp_path: Path) -> None:
    # Listeners of IPv6 are for IPv6 alone.
    done = holdfast("serve", "--listen", "[::ffff:127.0.0.1]:0", folder=tmp_path)
    assert_one_line(done, 3, r"cannot listen on \[::ffff:127\.0\.0\.1\]:0: Invalid argument")


def test_a_host_that_does_not_exist_is_one_line(tmp_path: Path) -> None:
    done = holdfast("serve", "--listen", "nowhere.invalid:0", folder=tmp_path)
    assert_one_line(done, 3, r"^holdfast: ")


def test_a_data_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    # Under a file, and not in a read-only folder, because nothing is read-only for root.
    (tmp_path / "file").write_text("")
    arguments = ["serve", "--listen", "127.0.0.1:0", "--data-dir", "file/data"]
    assert_one_line(holdfast(*arguments, folder=tmp_path), 4, r"file/data")


def test_a_second_broker_on_the_data_folder_is_refused_and_names_the_first(tmp_path: Path) -> None:
    with BrokerProcess(tmp_path / "data") as first:
        arguments = ["serve", "--listen", "127.0.0.1:0", "--data-dir", str(first.data_dir)]
        done = holdfast(*arguments, folder=tmp_path)
        assert_one_line(done, 4, str(first.process.pid))
        assert first.is_running


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    with BrokerProcess(tmp_path / "data") as broker:
        assert broker.terminate(number) == 0
        assert "Traceback" not in broker.log
