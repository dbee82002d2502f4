"""The guide about brokers inside a program: its programs print what it says."""

from pathlib import Path

import pytest

from tests.support.guides import Reader, blocks

GUIDE = "embedding.md"
PROGRAMS = [
    (text, following[1])
    for (language, text), following in zip(blocks(GUIDE), blocks(GUIDE)[1:], strict=False)
    if language == "python" and following[0] == "text"
]


@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_its_programs_print_what_it_says(number: int, tmp_path: Path) -> None:
    program, printed = PROGRAMS[number]
    assert Reader(tmp_path).run("python", program) == printed


def test_all_of_its_programs_are_tried() -> None:
    assert len(PROGRAMS) == 4
