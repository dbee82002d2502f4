"""What a process has done, line by line in a file that ``kill -9`` leaves whole."""

import os
from pathlib import Path
from typing import final


@final
class Journal:
    """Each line is one write at the end of the file: it is there or it is not."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(self, *words: object) -> None:
        os.write(self._fd, (" ".join(str(word) for word in words) + "\n").encode())


def read_journal(path: Path) -> list[list[str]]:
    """The lines so far, as words."""
    if not path.exists():
        return []
    return [line.split() for line in path.read_text().splitlines()]
