"""One log line per burst of what strangers can cause at will, and one with the count at its end."""

import asyncio
from typing import final

from holdfast.broker.events import WARNING
from holdfast.logs import Log
from holdfast.net.bursts import Bursts


@final
class BurstLog:
    """Warnings to ``log``: of each kind one, and how many more there were when it is over.

    ``listener`` is a field of each.
    """

    def __init__(self, log: Log, listener: str) -> None:
        self._log = log
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._bursts = Bursts(1)
        self._timer: asyncio.TimerHandle | None = None

    def warning(self, message: str, *, host: str, address: str) -> None:
        """Tell of one of these, which was caused from this address of a host."""
        if self._bursts.note(message, WARNING, host, self._loop.time()):
            self._log.warning(message, listener=self._listener, address=address)
        self._await_end()

    def stop(self) -> None:
        """Await nothing more."""
        if self._timer is not None:
            self._timer.cancel()

    def _await_end(self) -> None:
        next_s = self._bursts.next_s
        if self._timer is None and next_s is not None:
            self._timer = self._loop.call_at(next_s, self._end)

    def _end(self) -> None:
        self._timer = None
        for burst in self._bursts.over(self._loop.time()):
            self._log.warning(burst.summary, listener=self._listener)
        self._await_end()
