"""`holdfast acl`: what a file says, and which rule decides."""

import re
from pathlib import Path
from typing import Final

import pytest

from holdfast.auth.acl import parse_acl
from holdfast.auth.acl_advice import advice
from tests.support.command import assert_one_line, holdfast

REFERENCE: Final = Path(__file__).parent.parent.parent / "docs" / "reference" / "command-line.md"

FILE: Final = """
[roles]
operator = ["ada"]

[[rules]]
deny = ["publish"]
topics = ["site/locked/#"]

[[rules]]
allow = "all"
topics = ["site/#"]
roles = ["operator"]

[[rules]]
allow = ["publish", "subscribe"]
topics = ["meters/%u/%c/#", "zones/%a{zone}"]
listeners = ["field"]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "acl.toml").write_text(FILE, encoding="utf-8")
    return tmp_path


def decided(folder: Path, *arguments: str, code: int) -> list[str]:
    done = holdfast("acl", "test", "--acl", "acl.toml", *arguments, folder=folder)
    assert (done.returncode, done.stderr) == (code, "")
    return done.stdout.splitlines()


def test_the_rule_that_decides_is_named(folder: Path) -> None:
    assert decided(folder, "--user", "ada", "publish", "site/locked/a", code=1) == [
        "denied: publish site/locked/a",
        "  rule 1 (line 5) of acl.toml: deny publish on site/locked/#",
    ]
    bob = ("--user", "bob", "--client", "c7", "--listener", "field", "--attribute", "zone=n")
    topics = "meters/%u/%c/#, zones/%a{zone}"
    assert decided(folder, *bob, "subscribe", "meters/bob/c7/+", code=0) == [
        "allowed: subscribe meters/bob/c7/+",
        f"  rule 3 (line 14) of acl.toml: allow publish, subscribe on {topics}; listeners field",
        "  for this client: meters/bob/c7/#",
    ]
    assert decided(folder, "--role", "operator", "receive", "elsewhere", code=1) == [
        "denied: receive elsewhere",
        "  no rule of acl.toml allows it: 2 of 3 are about this client",
    ]


def test_what_only_part_of_is_allowed_is_said(folder: Path) -> None:
    (folder / "acl.toml").write_text(
        "[[rules]]\ndeny = 'subscribe'\ntopics = 'a/b'\n[[rules]]\nallow = 'all'\ntopics = 'a/#'\n",
        encoding="utf-8",
    )
    assert decided(folder, "subscribe", "a/+", code=1) == [
        "denied: subscribe a/+",
        "  rule 1 (line 1) of acl.toml: deny subscribe on a/b",
        "  not allowed: a/b",
    ]
    (folder / "holdfast.toml").write_text(
        "acl_file = 'acl.toml'\nacl_wide_subscriptions = 'narrow'\n", encoding="utf-8"
    )
    done = holdfast("acl", "test", "--config", "holdfast.toml", "subscribe", "a/+", folder=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1:] == [
        "  rule 2 (line 4) of acl.toml: allow all on a/#",
        "  not delivered: a/b",
    ]


def test_special_topics_are_judged_as_the_broker_does(folder: Path) -> None:
    ada = ("--user", "ada", "publish")
    assert decided(folder, *ada, "$SYS/a", code=1)[1] == "  only the broker publishes under $SYS"
    assert "rule 2" in decided(folder, *ada, "--retain", "$delayed/5/site/x", code=0)[1]
    assert "rule 1" in decided(folder, *ada, "$delayed/5/site/locked/x", code=1)[1]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--acl", "acl.toml", "publish", "a/#"], "expected a Topic Name without wildcards"),
        (["--acl", "acl.toml", "subscribe", "a/#/b"], "expected '#' alone in the last level"),
        (["--acl", "acl.toml", "publish", "$delayed/x/a"], r"expected \$delayed/, a number"),
        (["--acl", "none.toml", "publish", "a"], "none.toml: cannot be read"),
        (["publish", "a"], "expected --acl FILE, or a configuration with acl_file"),
        (["--acl", "acl.toml", "--retain", "receive", "a"], "--retain: expected with publish"),
        (["--acl", "acl.toml", "--attribute", "zone", "receive", "a"], "expected NAME=VALUE"),
    ],
)
def test_wrong_usage(folder: Path, arguments: list[str], error: str) -> None:
    assert_one_line(holdfast("acl", "test", *arguments, folder=folder), 2, error)


def test_a_file_is_checked(folder: Path) -> None:
    done = holdfast("acl", "check", "acl.toml", folder=folder)
    assert (done.returncode, done.stdout) == (0, "acl.toml: in order, 3 rules\n")
    (folder / "acl.toml").write_text("[[rules]]\nallow = 'pubish'\ntopics = 'a'\n")
    done = holdfast("acl", "check", "acl.toml", folder=folder)
    assert_one_line(done, 2, r"acl.toml: rule 1 \(line 1\): allow: .*did you mean publish\?")


@pytest.mark.parametrize("command", ["check", "test"])
def test_help_has_examples_and_codes_and_the_reference_its_options(
    folder: Path, command: str
) -> None:
    help_text = holdfast("acl", command, "--help", folder=folder).stdout
    for text in (f"holdfast acl {command} ", "Exit codes"):
        assert text in help_text
    reference = REFERENCE.read_text(encoding="utf-8")
    assert f"| `{command} " in reference
    for option in set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", help_text)):
        assert f"`{option}" in reference, option


@pytest.mark.parametrize(
    ("earlier", "later", "expected"),
    [
        ("deny = 'publish'\ntopics = 'a/#'", "allow = 'publish'\ntopics = 'a/b'", True),
        ("deny = 'publish'\ntopics = 'a/#'", "allow = 'retain'\ntopics = 'a/%c'", True),
        ("deny = 'all'\ntopics = '%u/+'", "allow = 'all'\ntopics = '%u/+'", True),
        ("deny = 'all'\ntopics = 'a/#'", "allow = 'all'\ntopics = 'a'\nusers = 'x'", True),
        ("deny = 'retain'\ntopics = 'a/#'", "allow = 'publish'\ntopics = 'a/b'", False),
        ("deny = 'all'\ntopics = 'a/#'\nusers = 'x'", "allow = 'all'\ntopics = 'a'", False),
        ("deny = 'all'\ntopics = '%c/#'", "allow = 'all'\ntopics = 'a/b'", False),
        ("deny = 'all'\ntopics = '#'", "allow = 'all'\ntopics = '$SYS/#'", False),
    ],
)
def test_advice_is_about_rules_that_decide_nothing(
    earlier: str, later: str, expected: bool
) -> None:
    found = advice(parse_acl(f"[[rules]]\n{earlier}\n[[rules]]\n{later}\n"))
    assert bool(found) is expected
    assert not expected or "rule 2" in found[0]


def test_advice_is_about_names_that_look_wrong(folder: Path) -> None:
    acl = parse_acl(
        "[roles]\noperator = []\n[[rules]]\ndeny = 'all'\ntopics = 'a'\n"
        "roles = ['oprator', 'of-a-token']\nlisteners = ['out*', 'fiel']\n"
    )
    role = "rule 1 (line 3): the file has no role oprator; is operator meant?"
    assert advice(acl) == [role]
    assert advice(acl, ["field", "outside"]) == ["rule 1 (line 3): there is no listener fiel", role]
    (folder / "holdfast.toml").write_text("acl_file = 'acl.toml'\n", encoding="utf-8")
    done = holdfast("config", "check", "holdfast.toml", folder=folder)
    assert done.returncode == 0
    assert "acl.toml: rule 3 (line 14): there is no listener field" in done.stderr
