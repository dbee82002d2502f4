"""Threads beside the event loop: what they do comes back, or is waited for, whatever happens."""

import asyncio
import threading
from functools import partial

import pytest

from holdfast.worker import Worker, hand_back, on_thread


def test_a_worker_without_a_job_has_no_thread() -> None:
    async def main() -> None:
        before = threading.active_count()
        worker: Worker[int] = Worker("idle", asyncio.get_running_loop())
        assert threading.active_count() == before
        worker.stop()
        worker = Worker("idle", asyncio.get_running_loop())
        worker.leave()
        worker.join(1.0)

    asyncio.run(main())


def test_jobs_come_back_in_their_order() -> None:
    async def main() -> None:
        came: list[tuple[int | None, str]] = []
        worker: Worker[int] = Worker("busy", asyncio.get_running_loop())

        def job(number: int) -> int:
            if number == 2:
                raise LookupError("two")
            return number

        def done(result: int | None, error: BaseException | None) -> None:
            came.append((result, str(error or "")))

        for number in range(4):
            worker.submit(partial(job, number), done)
        worker.stop()
        await asyncio.sleep(0)
        assert came == [(0, ""), (1, ""), (None, "two"), (3, "")]

    asyncio.run(main())


def test_a_result_for_a_loop_that_is_closed_is_nobodys() -> None:
    loop = asyncio.new_event_loop()
    worker: Worker[bool] = Worker("late", loop)
    may_end, came = threading.Event(), list[int]()
    worker.submit(may_end.wait, lambda *_: came.append(1))
    loop.close()
    may_end.set()
    worker.stop()  # an error of the thread would fail the test
    hand_back(loop, lambda: came.append(2))
    assert came == []


def test_a_job_on_a_thread_gives_what_it_gives() -> None:
    def fail() -> None:
        raise LookupError("no")

    async def main() -> None:
        assert await on_thread("job", lambda: 7) == 7
        assert await on_thread("job", threading.current_thread) is not threading.current_thread()
        with pytest.raises(LookupError, match="no"):
            await on_thread("job", fail)

    before = threading.active_count()
    asyncio.run(main())
    assert threading.active_count() == before


def test_a_job_on_a_thread_is_waited_for_by_whoever_is_cancelled() -> None:
    async def main() -> None:
        begun, may_end, ended = threading.Event(), threading.Event(), threading.Event()

        def job() -> None:
            begun.set()
            may_end.wait()
            ended.set()

        task = asyncio.create_task(on_thread("job", job))
        await on_thread("begun", begun.wait)
        for _ in range(2):
            task.cancel()
            await asyncio.sleep(0)
            assert not task.done()
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended.is_set()

    asyncio.run(main())
