"""An event loop whose clock is virtual: it leaps to the next thing that is due.

The real client runs on it unchanged. What it awaits from the world (connections, commits) comes
from timers of this loop, so the same seed does the same again.
"""

import asyncio
import contextvars
from collections.abc import Callable, Coroutine, Generator
from typing import Any

from holdfast.errors import HoldfastError
from tests.sim.taps import Violation

CALLBACKS_MAX = 200_000  # a life takes some thousands


class _Selector:
    """In the place of the operating system: waiting is leaping."""

    def __init__(self, loop: "VirtualLoop") -> None:
        self._loop = loop

    def select(self, timeout_s: float | None) -> list[object]:
        if timeout_s is None:
            raise Violation("never at rest", "somebody waits, and nothing will ever happen")
        if timeout_s > 0:
            self._loop.now_s += timeout_s
        self._loop.rounds += 1
        if self._loop.rounds > CALLBACKS_MAX:
            raise Violation("never at rest", f"not after {CALLBACKS_MAX} rounds of the loop")
        return []


class VirtualLoop(asyncio.BaseEventLoop):
    """See above. ``owner`` is the process that the callback of the moment belongs to."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1000.0
        self.rounds = 0
        self.failures: list[BaseException] = []
        self._selector = _Selector(self)
        self._clock_resolution = 1e-6
        self.set_exception_handler(self._note)
        self.set_task_factory(_make_task)

    def time(self) -> float:
        return self.now_s

    def later(self, delay_s: float, action: Callable[..., object], *arguments: Any) -> None:
        """Do this after a while, on nobody's behalf."""
        self.call_later(delay_s, action, *arguments, context=contextvars.Context())

    def look_at(self, task: "asyncio.Task[Any]") -> None:
        """A defect ends the life, wherever it shows."""
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(
            error, HoldfastError | TimeoutError | StopAsyncIteration
        ):
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        """End the life with this."""
        self.failures.append(error)
        self.stop()

    def _process_events(self, _events: list[object]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def _note(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, BaseException):
            self.fail(error)


OWNER: contextvars.ContextVar[set["asyncio.Task[Any]"] | None] = contextvars.ContextVar(
    "tasks", default=None
)


def _make_task(
    loop: asyncio.AbstractEventLoop,
    coroutine: Coroutine[Any, Any, Any] | Generator[Any, None, Any],
    **how: Any,
) -> "asyncio.Task[Any]":
    """A task that is known to its process, which may have to die."""
    task = asyncio.Task(coroutine, loop=loop, **how)
    tasks = OWNER.get()
    if tasks is not None:
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        if isinstance(loop, VirtualLoop):
            task.add_done_callback(loop.look_at)
    return task
