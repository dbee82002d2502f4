"""An event loop on a thread: it works for whoever calls, and ends with all that it has begun."""

import asyncio
import threading
from collections.abc import Callable

import pytest
import uvloop

from holdfast.loop_thread import LoopThread


@pytest.mark.parametrize("make_loop", [None, uvloop.new_event_loop])
def test_it_runs_coroutines(make_loop: Callable[[], asyncio.AbstractEventLoop] | None) -> None:
    async def work(number: int) -> tuple[int, threading.Thread]:
        await asyncio.sleep(0)
        if number == 2:
            raise LookupError("two")
        return number, threading.current_thread()

    before = threading.active_count()
    thread = LoopThread("loop", make_loop)
    number, where = thread.run(work(1))
    assert (number, where.name, where.daemon) == (1, "loop", True)
    with pytest.raises(LookupError, match="two"):
        thread.run(work(2))
    thread.close()
    thread.close()
    assert threading.active_count() == before


def test_what_still_runs_is_cancelled() -> None:
    ended = threading.Event()

    async def live() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await asyncio.sleep(0)
            ended.set()

    tasks = []

    async def begin() -> None:
        tasks.append(asyncio.create_task(live()))
        await asyncio.sleep(0)

    thread = LoopThread("loop")
    thread.run(begin())
    thread.close()
    assert ended.is_set()
