"""Plant bugs into copies of the client, one at a time, and see after how many seeds each is found.

``python -m tests.client.sim.planted`` prints the table of ``docs/internals/client.md``.
"""

import sys
from pathlib import Path
from typing import Final

from tests.sim.planted import show_found

BUGS: Final = Path(__file__).parent / "planted.toml"
SIMULATOR: Final = "tests.client.sim"

if __name__ == "__main__":
    sys.exit(show_found(BUGS, SIMULATOR))
