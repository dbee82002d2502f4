"""The guide about tests: its files are written and its commands typed, in a project of its own."""

import re
from pathlib import Path
from typing import Final

from tests.support.guides import blocks
from tests.support.project import UserProject

GUIDE: Final = "testing.md"
COMMAND: Final = re.compile(r"\$ pytest(.*)\n(\d+) passed\n")


def test_its_tests_pass(tmp_path: Path) -> None:
    loop_scope = ("-o", "asyncio_default_fixture_loop_scope=function")
    project = UserProject(tmp_path, plug_ins=("asyncio",), arguments=("-W", "error", *loop_scope))
    ran = 0
    for language, text in blocks(GUIDE):
        if language == "python":
            name = re.match(r"# (\w+\.py)\n", text)
            assert name is not None, text
            project.write(name[1], text)
        elif language == "console":
            command = COMMAND.fullmatch(text)
            assert command is not None, text
            assert project.run(*command[1].split()) == {"passed": int(command[2])}
            ran += 1
    assert ran == 5
