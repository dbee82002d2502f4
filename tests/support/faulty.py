"""The real broker on a disk and by a clock that a test controls."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol

from tests.support.broker import BrokerProcess

_SCRIPT: Final = Path(__file__).parent / "faulty_server.py"
FAILED: Final = r"the store has failed[,:] .*"
WORKS_AGAIN: Final = r"the store works again"


class FaultyBroker(BrokerProcess):
    """See ``faulty_server`` for the commands. A new start begins without faults."""

    def command(self) -> list[str]:
        return [sys.executable, str(_SCRIPT)]

    def control(self, command: str) -> None:
        """Have a command carried out."""
        first = len(self.process.lines)
        self.process.write_line(command)
        self.process.wait_line(f"^control: {command}$", first)

    def fail(self, operation: str, file: str, code: str, count: int = -1) -> None:
        self.control(f"fail {operation} {file} {code} {count}")

    def heal(self) -> None:
        self.control("heal")

    def set_clock(self, seconds: int) -> None:
        """Set the wall clock to so many seconds off the true time."""
        self.control(f"clock {seconds}")

    def quota(self, growth_bytes: int) -> None:
        """No file of the store may get larger than the largest is now, and this."""
        sizes = [path.stat().st_size for path in self.data_dir.glob("holdfast.db*")]
        self.control(f"quota {max(sizes) + growth_bytes}")

    def wait_until_failed(self, first: int = 0) -> str:
        """Wait for the line about the store's failure; the line."""
        return self.process.wait_line(FAILED, first)[1][0]

    def wait_until_it_works(self, first: int = 0) -> int:
        """Wait for the line that the store works again; the number of the line."""
        return self.process.wait_line(WORKS_AGAIN, first)[0]


class NewFaultyBroker(Protocol):
    """See the fixture ``faulty_broker``."""

    def __call__(self, settings: Mapping[str, str | int] | None = None) -> FaultyBroker: ...
