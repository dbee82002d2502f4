"""How much one step of upkeep takes on, so that none holds a commit up for long."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, final

STEP_NS: Final = 4_000_000  # what a step may take, waiting for the interpreter included


@final
class StepSize:
    """A number that grows while steps are short, and is halved after two long ones in a row.

    A step that waited for the disk, or for the interpreter, was a long one too: on a busy machine
    steps become small. One long step says little: the system may have let another program run.
    """

    def __init__(self, *, least: int, start: int, most: int, clock_ns: Callable[[], int]) -> None:
        self._least = least
        self._most = max(least, most)
        self._clock_ns = clock_ns
        self._was_long = False
        self.was_full = True  # whether the last step had more to do: it is for the caller to say
        self.value = min(start, self._most)

    @contextmanager
    def step(self) -> Iterator[int]:
        """A step of this size; it is for the caller to do less where there is less to do."""
        self.was_full = True
        begin_ns = self._clock_ns()
        yield self.value
        took_ns = self._clock_ns() - begin_ns
        is_long = took_ns > STEP_NS
        if is_long and self._was_long:
            self.value = max(self._least, self.value // 2)
        self._was_long = is_long
        if took_ns < STEP_NS // 2 and self.was_full:
            self.value = min(self._most, self.value + max(1, self.value // 4))
