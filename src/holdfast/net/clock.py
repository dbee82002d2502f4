"""The broker's time: that of the wall, but never backwards."""

import time
from collections.abc import Callable
from typing import Final

NANOSECONDS_PER_MS: Final = 1_000_000


class Clock:
    """Unix time in milliseconds; calling it gives the time.

    When the wall clock is set back, it goes on at its own pace until the wall clock has caught up:
    keep alives, expiries and whatever else is due do not wait for that. When the wall clock is set
    forward it follows at once.
    """

    def __init__(
        self,
        wall_ns: Callable[[], int] = time.time_ns,
        steady_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._wall_ns = wall_ns
        self._steady_ns = steady_ns
        self._now_ns = wall_ns()
        self._steady_at_ns = steady_ns()

    def __call__(self) -> int:
        steady_ns = self._steady_ns()
        least_ns = self._now_ns + steady_ns - self._steady_at_ns
        self._steady_at_ns = steady_ns
        self._now_ns = max(self._wall_ns(), least_ns)
        return self._now_ns // NANOSECONDS_PER_MS
