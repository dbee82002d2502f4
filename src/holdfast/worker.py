"""A thread that does blocking work for the event loop, one job after the other."""

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")

# Runs on the event loop with the result, or with what the job raised.
Done = Callable[[T | None, BaseException | None], None]


class Worker(Generic[T]):
    """Runs jobs on its own thread, and hands each result back to the loop.

    Stores block: they write, read and wait for the disk. So may an authenticator. The thread is a
    daemon, so that what never answers cannot keep the process from ending.
    """

    def __init__(self, name: str, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._is_left = False
        self._jobs: SimpleQueue[tuple[Callable[[], T], Done[T]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[], T], done: Done[T]) -> None:
        """Run ``job`` after those before it, then ``done`` on the event loop."""
        self._jobs.put((job, done))

    def stop(self) -> None:
        """Finish the jobs submitted so far and end the thread; waits for it."""
        self._jobs.put(None)
        self._thread.join()

    def leave(self) -> None:
        """End the thread after the job that runs, without waiting; the other jobs are dropped."""
        self._is_left = True
        self._jobs.put(None)

    def _work(self) -> None:
        while (task := self._jobs.get()) is not None:
            if self._is_left:
                return
            job, done = task
            try:
                result: T | None = job()
                error: BaseException | None = None
            # Whatever a job raises is the business of who waits for it, not of this thread.
            except BaseException as caught:
                result, error = None, caught
            if self._is_left:
                return
            self._loop.call_soon_threadsafe(done, result, error)
