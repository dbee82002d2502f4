"""Threads for what clients wait for when they log in: so many, so much work, and everyone in turn.

Each lane has threads and a queue of its own: who waits for a slow server is in another lane than
who only needs a password hashed.
"""

import asyncio
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, Generic, TypeVar, final

from holdfast.errors import LimitExceeded
from holdfast.worker import Done, hand_back

T = TypeVar("T")

WAITING_MAX: Final = 10_000  # jobs in one lane; at 20 ms each nobody waits for the last of them
# The event loop goes first: a flood of logins is to cost those alone who log in.
NICENESS: Final = 5


@final
class Lanes(Generic[T]):
    """Runs jobs on the threads of lanes, and hands each result back to the loop.

    In a lane, sources take turns: one that has brought a thousand jobs holds up another by one. A
    lane holds ``waiting_max`` jobs; then the source that has most in it loses its newest, which is
    done with LimitExceeded. The threads are daemons, and start when they are needed.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        threads: Mapping[str, int],
        waiting_max: int = WAITING_MAX,
    ) -> None:
        self._lanes = {
            name: _Lane[T](f"holdfast-auth {name}".rstrip(), loop, count, waiting_max)
            for name, count in threads.items()
        }

    def submit(
        self,
        lane: str,
        source: str,
        job: Callable[[], T],
        done: Done[T],
        *,
        has_room: bool = False,
    ) -> None:
        """Run ``job`` when it is the turn of its source, then ``done`` on the event loop.

        One that ``has_room`` is taken in any case: whoever brings such jobs brings few.
        """
        self._lanes[lane].submit(source, job, done, has_room)

    def leave(self) -> None:
        """End the threads after the jobs that run, without waiting; the others are dropped."""
        for lane in self._lanes.values():
            lane.leave()

    def join(self, patience_s: float) -> None:
        """After ``leave``, wait until the threads have ended, but so long at most."""
        until_s = time.monotonic() + patience_s
        for lane in self._lanes.values():
            lane.join(until_s)


@final
class _Lane(Generic[T]):
    def __init__(
        self, name: str, loop: asyncio.AbstractEventLoop, threads_max: int, waiting_max: int
    ) -> None:
        self._name = name
        self._loop = loop
        self._threads_max = threads_max
        self._waiting_max = waiting_max
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._is_left = False
        self._changed = threading.Condition()
        # By source, the one whose turn it is first; none of them is empty.
        self._queues: dict[str, deque[tuple[Callable[[], T], Done[T]]]] = {}
        self._waiting = 0

    def submit(self, source: str, job: Callable[[], T], done: Done[T], has_room: bool) -> None:
        with self._changed:
            is_full = self._waiting >= self._waiting_max and not has_room
            if is_full and not self._make_room(source):
                self._refuse(done)
                return
            self._queues.setdefault(source, deque()).append((job, done))
            self._waiting += 1
            if self._idle == 0 and len(self._threads) < self._threads_max:
                thread = threading.Thread(target=self._work, name=self._name, daemon=True)
                self._threads.append(thread)
                thread.start()
            self._changed.notify()

    def _make_room(self, source: str) -> bool:
        """Drop a job of the source that has most; False if that is this one."""
        queues = self._queues
        most = max(queues, key=lambda name: len(queues[name]))
        if len(queues[most]) <= len(queues.get(source, ())) + 1:
            return False
        _, done = queues[most].pop()
        self._waiting -= 1
        self._refuse(done)
        return True

    def _refuse(self, done: Done[T]) -> None:
        error = LimitExceeded(f"{self._waiting_max} steps wait for {self._name} already")
        self._loop.call_soon(done, None, error)

    def leave(self) -> None:
        with self._changed:
            self._is_left = True
            self._queues.clear()
            self._changed.notify_all()

    def join(self, until_s: float) -> None:
        for thread in self._threads:
            thread.join(max(0.0, until_s - time.monotonic()))

    def _next(self) -> tuple[Callable[[], T], Done[T]] | None:
        """The job whose turn it is, as soon as there is one; None when all is over."""
        with self._changed:
            self._idle += 1
            while not self._queues and not self._is_left:
                self._changed.wait()
            self._idle -= 1
            if self._is_left:
                return None
            source = next(iter(self._queues))
            queue = self._queues.pop(source)
            task = queue.popleft()
            if queue:
                self._queues[source] = queue  # behind all others
            self._waiting -= 1
            return task

    def _work(self) -> None:
        _be_nice()
        while (task := self._next()) is not None:
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
            del task, job, done, result, error  # nothing of a client stays while this one waits


def _be_nice() -> None:
    """Give way to the event loop. Linux counts niceness by thread; elsewhere it is left as is."""
    try:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
    except OSError:
        pass
