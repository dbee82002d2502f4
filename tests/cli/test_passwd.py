"""`holdfast passwd`, as a user types it: on a terminal, in a script, and wrongly."""

import os
import pty
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.auth.password_file import read_password_file
from tests.support.command import PATIENCE_S, assert_one_line, holdfast

COMMAND = str(Path(sys.executable).parent / "holdfast")


def batch(folder: Path, *arguments: str, password: bytes = b"secret\n") -> str:
    done = subprocess.run(
        [COMMAND, "passwd", "p", *arguments, "--batch"],
        cwd=folder,
        input=password,
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


def on_terminal(folder: Path, *arguments: str, typed: list[str]) -> tuple[int, str]:
    """Run it on a terminal of its own, and type a line at each prompt; the exit code and output."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.execv(COMMAND, [COMMAND, *arguments])
    shown = b""
    lines = [line.encode() + b"\n" for line in typed]
    while True:
        try:
            data = os.read(terminal, 1024)
        except OSError:  # Linux says so when the other side has closed
            break
        if not data:
            break
        shown += data
        # The echo is off once the prompt is there, so nothing that is typed shows.
        if re.search(rb"(Password|Again): $", shown) and lines:
            os.write(terminal, lines.pop(0))
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), shown.decode()


def test_a_user_is_added_changed_and_deleted(tmp_path: Path) -> None:
    file = tmp_path / "p"
    assert batch(tmp_path, "ada") == "p: ada added (argon2id)\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    first = read_password_file(file)["ada"]
    assert batch(tmp_path, "ada") == "p: ada changed (argon2id)\n"
    assert read_password_file(file)["ada"].argon2 != first.argon2  # a fresh salt
    batch(tmp_path, "zoë müller", password="pässwörd".encode())
    done = holdfast("passwd", "p", "ada", "--delete", folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, "p: ada deleted\n")
    assert set(read_password_file(file)) == {"zoë müller"}
    assert_one_line(holdfast("passwd", "p", "ada", "--delete", folder=tmp_path), 2, "no user ada")


def test_verifiers_for_scram_follow_the_password(tmp_path: Path) -> None:
    batch(tmp_path, "ada", "--scram", "--mechanism", "scram-sha-512")
    before = read_password_file(tmp_path / "p")["ada"].scram
    assert set(before) == {"SCRAM-SHA-256", "SCRAM-SHA-512"}
    said = batch(tmp_path, "ada", password=b"new\n")
    assert said == "p: ada changed (argon2id, SCRAM-SHA-256, SCRAM-SHA-512)\n"
    after = read_password_file(tmp_path / "p")["ada"].scram
    assert {name for name in before if before[name] != after[name]} == set(before)
    batch(tmp_path, "bob", "--scram")
    assert (tmp_path / "p").read_text().count("scram-decoy-key") == 1


def test_a_name_that_scram_could_not_use_is_refused_before_the_broker_sees_it(
    tmp_path: Path,
) -> None:
    batch(tmp_path, "IX", "--scram")
    for name, complaint in {
        "\u2168": "users 'IX' and '\u2168': expected names that differ after SASLprep",
        "\u0627a": "user '\u0627a': expected a name that SASLprep allows",
    }.items():
        done = subprocess.run(
            [COMMAND, "passwd", "p", name, "--scram", "--batch"],
            cwd=tmp_path,
            input=b"secret\n",
            capture_output=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 2
        assert complaint in done.stderr.decode()
    assert set(read_password_file(tmp_path / "p")) == {"IX"}
    batch(tmp_path, "\u2168")  # by password alone it is another name


def test_the_password_is_asked_for_twice_and_not_shown(tmp_path: Path) -> None:
    typed = ["hunter2", "hunter3", "", "hunter2", "hunter2"]
    code, shown = on_terminal(tmp_path, "passwd", "p", "ada", typed=typed)
    assert code == 0
    assert "two different passwords" in shown and "nothing was typed" in shown
    assert "p: ada added (argon2id)" in shown
    assert "hunter" not in shown
    code, shown = on_terminal(tmp_path, "passwd", "p", "bob", typed=["a", "b"] * 3)
    assert code == 2
    assert "expected the same password twice" in shown
    assert set(read_password_file(tmp_path / "p")) == {"ada"}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["p", "ada"], "standard input is not a terminal: expected --batch"),
        (["p", "ada", "--batch"], "expected a password of 1 to 65535 bytes"),
        (["p", "a:b", "--batch"], "without colons and control characters"),
        (["p", "a\nb", "--batch"], "without colons and control characters"),
        (["p", "", "--batch"], "1 to 256 characters"),
        (["p", "#ada", "--batch"], "does not begin with #"),
        (["p", "ada ", "--batch"], "neither begins nor ends with a space"),
        (["p", "ada", "--delete", "--scram"], "--delete: expected no other option"),
        (["p", "ada", "--mechanism", "PLAIN"], "--mechanism: expected one of SCRAM-SHA-1"),
        (["none/p", "ada", "--batch"], "none is not a folder"),
        (["wrong", "ada"], "wrong, line 1: expected USER:HASH"),
    ],
)
def test_wrong_usage_is_one_line(tmp_path: Path, arguments: list[str], expected: str) -> None:
    (tmp_path / "wrong").write_text("something else\n")
    assert_one_line(holdfast("passwd", *arguments, folder=tmp_path), 2, expected)
    assert os.listdir(tmp_path) == ["wrong"]


def test_two_at_a_time_lose_nothing(tmp_path: Path) -> None:
    users = [f"u{number}" for number in range(4)]
    running = [
        subprocess.Popen(
            [COMMAND, "passwd", "p", user, "--batch"],
            cwd=tmp_path,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
        for user in users
    ]
    for process in running:
        process.communicate(b"secret\n", timeout=PATIENCE_S)
        assert process.returncode == 0
    assert set(read_password_file(tmp_path / "p")) == set(users)
