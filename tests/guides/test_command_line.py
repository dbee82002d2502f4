"""docs/guides/command-line.md, typed through; and what the reference says of the commands."""

import re
from pathlib import Path

import pytest

from tests.support.command import holdfast
from tests.support.guide import Guide

REFERENCE = Path(__file__).parent.parent.parent / "docs" / "reference" / "command-line.md"


def test_the_guide_works_as_it_is_written(tmp_path: Path) -> None:
    with Guide("command-line.md", tmp_path) as guide:
        guide.follow()


@pytest.mark.parametrize("command", ["pub", "sub", "rr", "bench conn", "bench pub", "bench sub"])
def test_the_reference_has_every_option(tmp_path: Path, command: str) -> None:
    help_text = holdfast(*command.split(), "--help", folder=tmp_path).stdout
    reference = REFERENCE.read_text(encoding="utf-8")
    missing = {
        option
        for option in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", help_text)
        if not re.search(rf"`(-\w`, `)?({option})[` ]|, `{option}[` ]", reference)
    }
    assert missing == set()
    assert "Exit codes" in help_text
    assert f"holdfast {command} " in help_text
