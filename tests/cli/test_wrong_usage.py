"""What users of `holdfast pub`, `sub` and `rr` type wrong: one line each, and nothing is begun."""

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.cli.main import main
from tests.support.broker import holdfast_command

WRONG = [
    (["pub", "-m", "x"], "-t: expected a topic"),
    (["pub", "-t", "a"], "expected one of -m, -f, -l, -n and -s"),
    (["pub", "-t", "a", "-m", "x", "-n"], "expected one of -m, -f, -l, -n and -s"),
    (["pub", "-t", "a/+", "-m", "x"], "without wildcards"),
    (["pub", "-t", "", "-m", "x"], "Topic Name"),
    (["pub", "-t", "a", "-f", "none"], "-f none: cannot be read: No such file"),
    (["pub", "-t", "a", "-f", "."], "-f .: cannot be read: Is a directory"),
    (["pub", "-t", "a", "-l", "--repeat", "2"], "--repeat: expected no -l"),
    (["pub", "-t", "a", "-m", "x", "--outbox", "q", "-q", "0"], "--outbox: expected -q 1 or 2"),
    (["pub", "-t", "a", "-m", "x", "-V", "31"], "-V 31: expected 5 or 311"),
    (["pub", "-t", "a", "-m", "x", "-V", "311", "--utf8"], "MQTT 3.1.1 has no properties"),
    (["pub", "-t", "a", "-m", "x", "--user-property", "a"], "--user-property: expected NAME=VALUE"),
    (["pub", "-t", "a", "-m", "x", "-D", "PUBLISH"], "-D PUBLISH : expected one of content-type"),
    (["pub", "-t", "a", "-m", "x", "-D", "PUBACK", "a", "b"], "-D PUBACK: expected a packet"),
    (
        ["pub", "-t", "a", "-m", "x", "-D", "PUBLISH", "message-expiry-interval", "1_0"],
        "expected a number from 0 to 4294967295",
    ),
    (["pub", "-t", "a", "-m", "x", "-i", "a", "-I", "b"], "-I, --id-prefix: expected no -i"),
    (["pub", "-t", "a", "-m", "x", "--will-payload", "x"], "--will-topic: expected"),
    (["pub", "-t", "a", "-m", "x", "-h", "mqtt://a"], "a URL goes behind --url"),
    (["pub", "-t", "a", "-m", "x", "-p", "0"], "expected a port from 1 to 65535"),
    (["pub", "-t", "a", "-m", "x", "-L", "http://a"], "the scheme 'http' is not one of"),
    (["pub", "-t", "a", "-m", "x", "-L", "mqtt://a", "-h", "b"], "--url: expected none of --host"),
    (["pub", "-t", "a", "-m", "x", "--unix", "a", "-h", "b"], "--unix: expected none of --host"),
    (["pub", "-t", "a", "-m", "x", "-L", "mqtt://a", "--tls"], "expected mqtts:// or wss://"),
    (["pub", "-t", "a", "-m", "x", "--cafile", "none"], "--cafile: none: cannot be read"),
    (["pub", "-t", "a", "-m", "x", "-P", "a", "--password-file", "b"], "expected no --password"),
    (["pub", "-t", "a", "-m", "x", "--password-file", "none"], "none: cannot be read: No such"),
    (["pub", "-t", "a", "-m", "x", "-P", "a", "-V", "311"], "no password without a user name"),
    (["pub", "-t", "a", "-m", "x", "--auth", "SCRAM-MD5"], "--auth SCRAM-MD5: expected one of"),
    (["pub", "-t", "a", "-m", "x", "--auth", "SCRAM-SHA-1"], "a user name and a password"),
    (["pub", "-t", "a", "-m", "x", "--auth", "JWT"], "expected the token as password"),
    (["pub", "-t", "a", "-m", "x", "--auth", "JWT", "-P", "x", "-V", "311"], "3.1.1"),
    (["pub", "-t", "a", "-m", "x", "--header", "a=b"], "--header: expected a ws:// or wss://"),
    (["sub"], "-t: expected a topic filter"),
    (["sub", "-t", "a/#/b"], "Topic Filter"),
    (["sub", "-t", "a", "-c"], "expected -i with it"),
    (["sub", "-t", "a", "-x", "10"], "expected -i with it"),
    (["sub", "-t", "a", "-i", "a", "-x", "soon"], "-x: expected a number from 0"),
    (["sub", "-t", "a", "-R", "--retained-only"], "-R: expected no --retained-only"),
    (["sub", "-t", "a", "-F", "%y"], "-F: %y is unknown"),
    (["sub", "-t", "a", "--json", "--hex"], "expected only one of them"),
    (["rr", "-m", "x"], "-t: expected a topic"),
    (["rr", "-t", "a"], "expected one of -m, -f, -n and -s"),
    (["rr", "-t", "a", "-m", "x", "-V", "311"], "need MQTT 5.0"),
    (["rr", "-t", "a", "-m", "x", "-r"], "neither -r nor"),
    (["rr", "-t", "a/#", "-m", "x"], "-t: expected a Topic Name without wildcards"),
    (["rr", "-t", "a", "-m", "x", "-e", "+"], "-e: expected a Topic Name without wildcards"),
]


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """The commands set up logging for a process of their own."""
    root, level = logging.getLogger(), logging.getLogger("holdfast").level
    handlers, root_level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(root_level)
    logging.getLogger("holdfast").setLevel(level)


def type_in(monkeypatch: pytest.MonkeyPatch, folder: Path, arguments: list[str]) -> int:
    """Run the command in here, which takes a hundredth of the time of a process; its exit code."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["holdfast", *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    assert isinstance(left.value.code, int)
    return left.value.code


@pytest.mark.parametrize(("arguments", "said"), WRONG, ids=[" ".join(one) for one, _ in WRONG])
def test_wrong_usage_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: list[str],
    said: str,
) -> None:
    assert type_in(monkeypatch, tmp_path, arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    assert line.startswith("holdfast: ")
    assert said in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments", [["pub", "-q", "3"], ["sub", "-C", "0"], ["sub", "-k", "x"], ["pub", "--nothing"]]
)
def test_impossible_values_are_told_with_the_option(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: list[str],
) -> None:
    assert type_in(monkeypatch, tmp_path, arguments) == 2
    assert arguments[1] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("pub -t a -l <&-", "standard input is closed"),
        ("pub -t a -s <&-", "standard input is closed"),
        ("pub -t a -m x -u u --password-file - <&-", "standard input is closed"),
        ("sub -t a >&-", "standard output is closed"),
        ("rr -t a -m x >&-", "standard output is closed"),
    ],
)
def test_a_standard_stream_that_is_closed_is_told(arguments: str, said: str) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{holdfast_command()} {arguments}"],
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (2, f"holdfast: {said}\n")
