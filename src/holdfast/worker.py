"""A thread that does blocking work for the event loop, one job after the other."""

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Any, Generic, TypeVar, cast

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
        self._is_started = False

    def submit(self, job: Callable[[], T], done: Done[T]) -> None:
        """Run ``job`` after those before it, then ``done`` on the event loop."""
        self._jobs.put((job, done))
        if not self._is_started:
            self._is_started = True
            self._thread.start()

    def stop(self) -> None:
        """Finish the jobs submitted so far and end the thread; waits for it."""
        self._jobs.put(None)
        if self._is_started:
            self._thread.join()

    def leave(self) -> None:
        """End the thread after the job that runs, without waiting; the other jobs are dropped."""
        self._is_left = True
        self._jobs.put(None)

    def join(self, patience_s: float) -> None:
        """After ``leave``, wait so long for the thread; from any other thread."""
        if self._is_started:
            self._thread.join(patience_s)

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
            hand_back(self._loop, partial(done, result, error))


def hand_back(loop: asyncio.AbstractEventLoop, done: Callable[[], object]) -> None:
    """Call this on the event loop, if there still is one: nobody waits where it is closed."""
    try:
        loop.call_soon_threadsafe(done)
    except RuntimeError:
        if not loop.is_closed():
            raise


async def on_thread(name: str, job: Callable[[], T]) -> T:
    """The result of a job, or what it raises, from a thread that is there for it alone.

    A caller that is cancelled waits for its end all the same: nothing goes on behind its back.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[Callable[[], T]] = loop.create_future()

    def done(result: T | None, error: BaseException | None) -> None:
        ended.set_result(partial(_outcome, result, error))

    worker: Worker[T] = Worker(name, loop)
    worker.submit(job, done)
    try:
        await until_done(ended)
    finally:
        worker.stop()
    return ended.result()()


def _outcome(result: T | None, error: BaseException | None) -> T:
    if error is not None:
        raise error
    return cast(T, result)


async def until_done(future: "asyncio.Future[Any]") -> None:
    """Wait for a future, also if cancelled meanwhile, which is then raised at its end."""
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait((future,))
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
