"""How much the log holds: what is written is counted at once, what was there bit by bit."""

from typing import final


@final
class LogTally:
    """Counts of messages and bytes, of which a census may still be under way.

    Blocks that begin below ``position``, or at ``end`` or above, are counted.
    """

    def __init__(self, end: int) -> None:
        """``end`` is the end of the log at the opening."""
        self.messages = 0
        self.bytes = 0
        self.position = 0
        self.end = end

    @property
    def is_complete(self) -> bool:
        return self.position >= self.end

    def add(self, messages: int, bytes: int) -> None:
        """Count what was written, or what the census found."""
        self.messages += messages
        self.bytes += bytes

    def subtract(self, messages: int, bytes: int) -> None:
        """Count off what was counted and is removed."""
        self.messages -= messages
        self.bytes -= bytes
        assert self.messages >= 0
        assert self.bytes >= 0

    def remove(self, lsn: int, messages: int, bytes: int) -> None:
        """A block that begins at ``lsn`` is removed."""
        if lsn < self.position or lsn >= self.end:
            self.subtract(messages, bytes)
