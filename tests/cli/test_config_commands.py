"""``holdfast config`` and ``holdfast serve --check``: real processes, their output and codes."""

import os
import re
import tomllib
from pathlib import Path
from typing import Final

import pytest

from tests.support.command import assert_one_line, holdfast

REFERENCE: Final = Path(__file__).parent.parent.parent / "docs" / "reference" / "command-line.md"


@pytest.mark.parametrize("command", ["check", "show"])
def test_help_has_examples_and_codes_and_the_reference_has_the_options(
    tmp_path: Path, command: str
) -> None:
    help_text = holdfast("config", command, "--help", folder=tmp_path).stdout
    for text in (f"holdfast config {command} ", "Exit codes"):
        assert text in help_text
    reference = REFERENCE.read_text(encoding="utf-8")
    assert f"| `{command} [FILE.toml]`" in reference
    for option in set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", help_text)):
        assert f"`{option}" in reference, option


@pytest.mark.parametrize("command", [["config", "check"], ["serve", "--check"]])
def test_a_right_configuration_is_code_0_and_nothing_is_begun(
    tmp_path: Path, command: list[str]
) -> None:
    done = holdfast(*command, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "the configuration is right; it listens on 127.0.0.1:1883\n"
    assert list(tmp_path.iterdir()) == []


def test_all_that_is_wrong_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(
        'acl_file = "none"\n[[listeners]]\naddress = "0.0.0.0:1"\nversions = []\n'
    )
    done = holdfast("config", "check", "a.toml", folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    first, second, third = done.stderr.splitlines()
    assert first.startswith("holdfast: allow_anonymous: the listener 0.0.0.0:1")
    assert second == "holdfast: listeners[0].versions: expected one at least: nobody could connect"
    assert third == "holdfast: acl_file: none cannot be read: No such file or directory"


def test_what_is_likely_not_meant_is_a_warning(tmp_path: Path) -> None:
    done = holdfast("serve", "--check", "--listen", "[::]:1", "--allow-anonymous", folder=tmp_path)
    assert done.returncode == 0
    assert done.stderr == (
        "warning: allow_anonymous: anyone who reaches [::]:1 may read and write every topic\n"
    )


def test_a_file_that_the_start_reads_is_read(tmp_path: Path) -> None:
    (tmp_path / "users").write_text("ada:geheim\n")
    os.chmod(tmp_path / "users", 0o600)
    (tmp_path / "a.toml").write_text('[[authenticators]]\nkind = "password_file"\nfile = "users"\n')
    done = holdfast("config", "check", folder=tmp_path, variables={"HOLDFAST_CONFIG": "a.toml"})
    assert_one_line(done, 2, "users")
    assert "geheim" not in done.stdout + done.stderr


@pytest.mark.parametrize("command", ["check", "show"])
def test_a_file_that_is_wrong_is_one_line(tmp_path: Path, command: str) -> None:
    (tmp_path / "a\x1b.toml").write_text("recieve_maximum = 7\n")
    done = holdfast("config", command, "a\x1b.toml", folder=tmp_path)
    assert_one_line(done, 2, r"^holdfast: a\?\.toml: recieve_maximum is unknown; did you mean rec")


def test_show_prints_what_holds(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("inflight_max = 7\n")
    variables = {"HOLDFAST_LOG_LEVEL": "debug"}
    done = holdfast("config", "show", "a.toml", folder=tmp_path, variables=variables)
    assert (done.returncode, done.stderr) == (0, "")
    found = tomllib.loads(done.stdout)
    assert (found["inflight_max"], found["log_level"], found["data_dir"]) == (7, "debug", "data")
    done = holdfast("config", "show", "a.toml", "--changed", folder=tmp_path, variables=variables)
    assert done.stdout.splitlines() == [
        'log_level = "debug"  # HOLDFAST_LOG_LEVEL',
        "inflight_max = 7  # a.toml",
    ]
