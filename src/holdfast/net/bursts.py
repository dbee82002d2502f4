"""Bursts: what happens a thousand times in a second is said a few times, and then counted."""

import re
from dataclasses import dataclass, field
from typing import Final, final

INTERVAL_S: Final = 10.0  # of one burst; one that goes on is counted anew for each
KINDS_MAX: Final = 64  # at a time; further ones count together
SOURCES_MAX: Final = 1000  # told apart in one burst

# What differs between two of a kind: numbers, and what is written as one.
_NUMBER: Final = re.compile(r"0x[0-9A-Fa-f]+|[0-9]+")


@dataclass(slots=True)
class Burst:
    """Things of one kind: the text of the first, and what was not said of the others."""

    message: str
    level: int
    until_s: float
    lines: int = 0
    left_out: int = 0
    sources: set[str] = field(default_factory=set)

    @property
    def summary(self) -> str:
        """One line for all that was left out."""
        count = len(self.sources)
        more = "or more " if count >= SOURCES_MAX else ""
        sources = "1 address" if count == 1 else f"{count} {more}addresses"
        return f"{self.left_out} more within {INTERVAL_S:.0f} s, from {sources}: {self.message}"


@final
class Bursts:
    """Says of each thing whether it gets a line. Times are seconds of one clock.

    Of each kind, texts that differ in their numbers alone, the first ``lines_max`` of a burst get
    one, as long as all kinds together get no more than ``all_lines_max`` within INTERVAL_S.
    ``over`` brings what was left out, and is to be called at ``next_s``.
    """

    def __init__(self, lines_max: int, all_lines_max: int = KINDS_MAX) -> None:
        self._lines_max = lines_max
        self._all_lines_max = all_lines_max
        self._all_lines = 0
        self._all_from_s = 0.0
        self._bursts: dict[str, Burst] = {}  # by kind, in the order in which they began

    @property
    def next_s(self) -> float | None:
        """When the oldest burst is over, None if there is none."""
        for burst in self._bursts.values():
            return burst.until_s
        return None

    def note(self, message: str, level: int, source: str, now_s: float) -> bool:
        """Whether this gets a line of its own; ``source`` is an address."""
        kind = _NUMBER.sub("0", message)
        burst = self._bursts.get(kind)
        if burst is None:
            if len(self._bursts) >= KINDS_MAX:
                kind, message = "", "other things about clients"
            burst = self._bursts.get(kind)
            if burst is None:
                burst = Burst(message, level, now_s + INTERVAL_S)
                self._bursts[kind] = burst
        if burst.lines < self._lines_max and self._has_room(now_s):
            burst.lines += 1
            return True
        burst.left_out += 1
        burst.level = max(burst.level, level)
        if len(burst.sources) < SOURCES_MAX:
            burst.sources.add(source)
        return False

    def _has_room(self, now_s: float) -> bool:
        if not 0 <= now_s - self._all_from_s < INTERVAL_S:
            self._all_from_s = now_s
            self._all_lines = 0
        self._all_lines += 1
        return self._all_lines <= self._all_lines_max

    def over(self, now_s: float) -> list[Burst]:
        """The bursts that are over, as far as something was left out of them.

        A clock that was set back ends all of them.
        """
        found: list[Burst] = []
        for kind, burst in list(self._bursts.items()):
            if burst.until_s - INTERVAL_S <= now_s < burst.until_s:
                break
            del self._bursts[kind]
            if burst.left_out > 0:
                found.append(burst)
        return found
