"""The password file: what is read, what is wrong, and that a change leaves the rest alone."""

import os
import stat
from pathlib import Path

import pytest

from holdfast.auth.password_edit import editing, read_for_edit, with_user, write
from holdfast.auth.password_file import parse, parse_scram, read_password_file
from holdfast.errors import ConfigError

ARGON2 = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0$" + "A" * 43
OTHER = ARGON2[:-1] + "B"
SCRAM = "SCRAM-SHA-256$4096:c2FsdHNhbHRzYWx0$" + "A" * 43 + "=:" + "B" * 42 + "A="
SCRAM_1 = "SCRAM-SHA-1$5000:c2FsdHNhbHRzYWx0$" + "A" * 27 + "=:" + "B" * 26 + "A="


def test_users_have_one_line_for_each_kind() -> None:
    text = f"# comment\n\nada:{ARGON2}\r\nzoë müller:{OTHER}\nada:{SCRAM}\n"
    text += f"bob:{SCRAM_1}\nada:{SCRAM_1}"
    users = parse(text, "p")
    assert set(users) == {"ada", "zoë müller", "bob"}
    assert users["ada"].argon2 == ARGON2
    assert set(users["ada"].scram) == {"SCRAM-SHA-256", "SCRAM-SHA-1"}
    assert users["bob"].argon2 == ""
    assert users["ada"].mark != users["zoë müller"].mark
    assert str(users["ada"].scram["SCRAM-SHA-256"]) == SCRAM
    assert users["ada"].scram["SCRAM-SHA-256"].iterations == 4096


def test_no_secret_is_in_what_python_shows() -> None:
    shown = repr(parse(f"ada:{ARGON2}\nada:{SCRAM}", "p"))
    assert "c2Fsd" not in shown and "AAAA" not in shown and "salt" not in shown


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ada", "expected USER:HASH, there is no colon"),
        ("hunter2hunter2", "expected USER:HASH"),
        ("ada:hunter2", "expected a hash that begins with"),
        ("ada:$7$101$salt$hash", "expected a hash that begins with"),
        (f":{ARGON2}", "expected a user name of 1 to 256 characters"),
        (f"{'a' * 257}:{ARGON2}", "expected a user name of 1 to 256 characters"),
        (f"a\x1bb:{ARGON2}", "without colons and control characters"),
        (f"a\u2028b:{ARGON2}", "without colons and control characters"),
        (f" ada:{ARGON2}", "begins nor ends with a space"),
        (f"ada :{ARGON2}", "begins nor ends with a space"),
        (f"ada:{ARGON2}:", r"expected \$argon2id\$"),
        (f"ada:{ARGON2.replace('argon2id', 'argon2i')}", "expected a hash that begins with"),
        (f"ada:{ARGON2.replace('v=19', 'v=16')}", r"expected \$argon2id\$"),
        (f"ada:{ARGON2.replace('19456', '1048577')}", "at most 1048576 KiB"),
        (f"ada:{ARGON2.replace('19456', '7')}", "at most 1048576 KiB"),
        (f"ada:{ARGON2.replace('t=2', 't=101')}", "1 to 100 passes"),
        (f"ada:{ARGON2.replace('t=2', 't=0')}", "1 to 100 passes"),
        (f"ada:{ARGON2.replace('p=1', 'p=0')}", "1 to 100 passes"),
        (f"ada:{ARGON2.replace('c2FsdHNhbHRzYWx0', 'c2FsdHNhbHRzYWx0X')}", "base64"),
        (f"ada:{SCRAM.replace('SHA-256', 'SHA-224')}", "expected one of SCRAM-SHA-1"),
        (f"ada:{SCRAM.replace('4096', '4095')}", "4096 to 10000000 iterations"),
        (f"ada:{SCRAM.replace('4096', '99999999')}", "4096 to 10000000 iterations"),
        (f"ada:{SCRAM.replace('c2FsdHNhbHRzYWx0', '')}", "a salt and keys of 32 bytes"),
        (f"ada:{SCRAM.replace('SHA-256', 'SHA-512')}", "a salt and keys of 64 bytes"),
        (f"ada:{SCRAM}=", "in base64"),
        (f"ada:{OTHER}", "one argon2 hash for each user"),
        (f"bob:{SCRAM}", "one line of SCRAM-SHA-256 for each user"),
    ],
)
def test_a_wrong_line_is_named_and_not_shown(line: str, expected: str) -> None:
    text = f"# users\nada:{ARGON2}\nbob:{SCRAM}\n{line}\n"
    with pytest.raises(ConfigError, match=f"^p, line 4: .*{expected}") as caught:
        parse(text, "p")
    assert "hunter2" not in str(caught.value)
    assert "AAAA" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none: cannot be read: No such file"):
        read_password_file(tmp_path / "none")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_password_file(tmp_path)
    (tmp_path / "latin").write_bytes(f"ada:{ARGON2}\nzo\xeb:{ARGON2}".encode("latin-1"))
    with pytest.raises(ConfigError, match="latin, line 2: expected UTF-8"):
        read_password_file(tmp_path / "latin")


def test_a_change_leaves_other_lines_as_they_are() -> None:
    text = f"# us\nada:{ARGON2}\nbob:{OTHER}\r\n\nada:{SCRAM}\n# them\nadam:{OTHER}"
    assert with_user(text, "ada", [OTHER]) == (
        f"# us\nada:{OTHER}\nbob:{OTHER}\r\n\n# them\nadam:{OTHER}\n"
    )
    assert with_user(text, "ada", []) == f"# us\nbob:{OTHER}\r\n\n# them\nadam:{OTHER}\n"
    assert with_user(text, "cy", [ARGON2, SCRAM]) == f"{text}\ncy:{ARGON2}\ncy:{SCRAM}\n"
    assert with_user("", "cy", [ARGON2]) == f"cy:{ARGON2}\n"


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_file_is_for_its_owner_and_an_old_one_keeps_its_mode(tmp_path: Path) -> None:
    file = tmp_path / "passwords"
    before = os.umask(0)
    try:
        write(file, "one")
    finally:
        os.umask(before)
    assert mode_of(file) == 0o600
    file.chmod(0o640)
    write(file, "two")
    assert (file.read_text(), mode_of(file)) == ("two", 0o640)
    assert os.listdir(tmp_path) == ["passwords"]


def test_a_symbolic_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "real" / "file")
    with editing(link):
        write(link, f"ada:{ARGON2}\n")
        assert read_for_edit(link) == f"ada:{ARGON2}\n"
    assert link.is_symlink()
    assert os.listdir(tmp_path / "real") == ["file"]


def test_a_write_that_fails_leaves_the_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "passwords"
    write(file, "old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write(file, "new")
    assert file.read_text() == "old"
    assert os.listdir(tmp_path) == ["passwords"]


def test_a_wrong_file_is_not_edited(tmp_path: Path) -> None:
    file = tmp_path / "fstab"
    file.write_text("proc /proc proc defaults 0 0\n")
    with pytest.raises(ConfigError, match="fstab, line 1"):
        read_for_edit(file)


def test_a_verifier_is_written_as_it_was_read() -> None:
    for text in (SCRAM, SCRAM_1):
        assert str(parse_scram(text)) == text
        assert parse_scram(text).mark != parse_scram(SCRAM.replace("4096", "4097")).mark
