"""What is done to the store beside the traffic: trims, cuts, the upkeep of its file, its space.

All of it in short steps, with a pause after each as long as the step took, so that commits come
between them: it takes at most half of the writer's time.
"""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from holdfast.broker.broker import Broker
from holdfast.broker.limits import TOPICS_LOOKED_AT_MAX
from holdfast.broker.space import CUTS, OLDEST, TARGETS, TOPICS, SpaceWork
from holdfast.store.interface import Store
from holdfast.store.records import Space
from holdfast.worker import Worker

INTERVAL_S: Final = 1.0  # between two looks at what the store no longer needs

_TRIM: Final = 0
_MAINTAIN: Final = 1
_SPACE: Final = 2


def carry_out(store: Store, work: SpaceWork) -> None:
    """Do what the broker wants done about the space, whole."""
    if work.kind == TOPICS:
        work.topics = store.log_topics(work.after, TOPICS_LOOKED_AT_MAX)
    elif work.kind == TARGETS:
        work.targets = store.targets(work.above, TOPICS_LOOKED_AT_MAX)
    elif work.kind == OLDEST:
        work.lsn = store.oldest(work.messages, work.bytes)
    else:
        assert work.kind == CUTS
        while store.trim_topics(work.cuts):
            pass


class Upkeep:
    """Looks after the store once a second while there is something to do.

    ``schedule`` asks for a turn, which takes the results; ``failed`` is told of an error.
    """

    def __init__(
        self,
        *,
        broker: Broker,
        store: Store,
        writer: Worker[object],
        schedule: Callable[[], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._broker = broker
        self._store = store
        self._writer = writer
        self._schedule = schedule
        self._failed = failed
        self._timer: asyncio.TimerHandle | None = None
        self._pause: asyncio.TimerHandle | None = None
        self._is_due = False
        self._is_running = False  # the steps of one look
        self._is_stopped = False
        self._trim_to = 0  # below this lsn nothing is needed once the batch under way is durable
        self._trimmed_to = 0
        self._space: Space | None = None
        self._work_done: SpaceWork | None = None

    def start(self) -> None:
        """Take the first look."""
        self._is_due = True

    def stop(self) -> None:
        """Begin nothing more."""
        self._is_stopped = True
        for timer in (self._timer, self._pause):
            if timer is not None:
                timer.cancel()

    # --- the turn

    def take_results(self) -> None:
        """Bring what the store has found to the broker. Call it within a turn."""
        if self._space is not None:
            space, self._space = self._space, None
            self._broker.note_space(space)
            if self._broker.needs_space_look:
                self._set_timer()
        if self._work_done is not None:
            work, self._work_done = self._work_done, None
            self._broker.space_work_done(work)

    def committing(self) -> None:
        """A batch is about to be committed: what it frees may go when it is durable."""
        self._set_timer()
        if self._is_due and not self._is_running:
            self._trim_to = self._broker.trim_point()

    def idle(self) -> None:
        """There is nothing to commit: all that is in memory is durable."""
        if self._is_due and not self._is_running:
            self._trim_to = self._broker.trim_point()
            self.committed()

    def committed(self) -> None:
        """The batch under way is durable."""
        if self._trim_to > 0:
            trim_to, self._trim_to = self._trim_to, 0
            self._is_due = False
            self._is_running = True
            is_new = trim_to > self._trimmed_to
            self._trimmed_to = max(trim_to, self._trimmed_to)
            self._step(_TRIM if is_new else _MAINTAIN)

    def begin_work(self) -> None:
        """Have done what the broker wants about the space."""
        work = self._broker.take_space_work()
        if work is not None:
            self._begin(work)

    # --- the steps

    def _set_timer(self) -> None:
        if self._timer is None and not self._is_stopped:
            self._timer = self._loop.call_later(INTERVAL_S, self._timer_fired)

    def _timer_fired(self) -> None:
        self._timer = None
        self._is_due = True
        self._schedule()

    def _step(self, kind: int) -> None:
        """One step on the writer's thread; the next one follows after a pause."""
        self._pause = None
        if self._is_stopped:
            return
        job: Callable[[], object]
        if kind == _TRIM:
            job = partial(self._store.trim, self._trimmed_to)
        elif kind == _MAINTAIN:
            job = self._store.maintain
        else:
            job = self._store.space
        self._writer.submit(partial(_timed, job), partial(self._stepped, kind))

    def _stepped(self, kind: int, timed: object, error: BaseException | None) -> None:
        if error is not None:
            self._failed(error)
            return
        assert isinstance(timed, tuple)
        found, took_s = timed
        if kind == _SPACE:
            self._is_running = False
            self._space = found
            self._schedule()
            return
        following = kind if found else kind + 1
        self._pause = self._loop.call_later(took_s, self._step, following)

    def _begin(self, work: SpaceWork) -> None:
        """Cuts go step by step, with pauses; the rest is read at once."""
        if self._is_stopped:
            return
        job: Callable[[], object]
        if work.kind == CUTS:
            job = partial(self._store.trim_topics, work.cuts)
        else:
            job = partial(carry_out, self._store, work)
        self._writer.submit(partial(_timed, job), partial(self._worked, work))

    def _worked(self, work: SpaceWork, timed: object, error: BaseException | None) -> None:
        if error is not None:
            self._failed(error)
            return
        assert isinstance(timed, tuple)
        has_more, took_s = timed
        if work.kind == CUTS and has_more:
            self._loop.call_later(took_s, self._begin, work)
            return
        self._work_done = work
        self._schedule()


def _timed(job: Callable[[], object]) -> tuple[object, float]:
    """What a job gives, and the seconds that it took."""
    from_ns = time.perf_counter_ns()
    found = job()
    return found, (time.perf_counter_ns() - from_ns) / 1e9
