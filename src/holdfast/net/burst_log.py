"""One log line per burst of what strangers can cause at will, and one with the count at its end."""

import asyncio
from collections.abc import Callable
from typing import final

from holdfast.broker.events import WARNING
from holdfast.logs import Log
from holdfast.net.bursts import Bursts


@final
class BurstLog:
    """Warnings to ``log``: of each kind one, and how many more there were when it is over.

    ``fields`` are those of each line. ``clock_s`` is a steady clock in seconds.
    """

    def __init__(self, log: Log, clock_s: Callable[[], float], **fields: str) -> None:
        self._log = log
        self._fields = fields
        self._clock_s = clock_s
        self._bursts = Bursts(1)
        self._timer: asyncio.TimerHandle | None = None

    def warning(self, message: str, *, host: str, address: str) -> None:
        """Tell of one of these, which was caused from this address of a host."""
        if self._bursts.note(message, WARNING, host, self._clock_s()):
            self._log.warning(message, **self._fields, address=address)
        self._await_end()

    def stop(self) -> None:
        """Await nothing more."""
        if self._timer is not None:
            self._timer.cancel()

    def _await_end(self) -> None:
        next_s = self._bursts.next_s
        if self._timer is None and next_s is not None:
            delay_s = max(0.0, next_s - self._clock_s())
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._end)

    def _end(self) -> None:
        self._timer = None
        for burst in self._bursts.over(self._clock_s()):
            self._log.warning(burst.summary, **self._fields)
        self._await_end()
