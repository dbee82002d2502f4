"""The guides, followed as a new user would: each block of code is run, its output compared."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.support.process import PATIENCE_S, python_path, required

REPOSITORY: Final = Path(__file__).parent.parent.parent
GUIDES: Final = REPOSITORY / "docs" / "guides"
FOLDER: Final = "/etc/holdfast"  # where guides put files
PORT: Final = "1883"
NODE_MODULES: Final = REPOSITORY / "tests" / "node" / "node_modules"

_BLOCK: Final = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(guide: str) -> list[tuple[str, str]]:
    """The blocks of code of a guide in order: language and text."""
    text = (GUIDES / guide).read_text(encoding="utf-8")
    return [(found[1], found[2]) for found in _BLOCK.finditer(text)]


class Reader:
    """Types what a guide says, in a folder of its own that stands for /etc/holdfast too."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = 0  # of the broker, once it runs

    def here(self, text: str) -> str:
        """A text of the guide with the folder and the port of the test."""
        text = text.replace(FOLDER, str(self.folder))
        return re.sub(rf"\b{PORT}\b", str(self.port), text)

    def run(self, language: str, text: str) -> str:
        """What a block prints, as the guide would show it."""
        node = required("node", "nodejs and npm") if language == "js" else ""
        command = {
            "sh": ["bash", "-euc"],
            "python": [sys.executable, "-c"],
            "js": [node, "-e"],
        }[language]
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            [*command, self.here(text)],
            cwd=self.folder,
            env=os.environ
            | {"PATH": path, "NODE_PATH": str(NODE_MODULES), "PYTHONPATH": python_path()},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
        return done.stdout.replace(str(self.folder), FOLDER)
