"""An event loop on a thread of its own, for code that has none."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, final

T = TypeVar("T")


@final
class LoopThread:
    """Runs an event loop, which ``make_loop`` makes, until ``close``; its methods block.

    The thread is a daemon: whoever forgets to close it does not keep the process from ending.
    """

    def __init__(
        self, name: str, make_loop: Callable[[], asyncio.AbstractEventLoop] | None = None
    ) -> None:
        self._make_loop = make_loop
        self._begun = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None  # None when it is closed
        self._ended: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()
        self._begun.wait()

    @property
    def is_here(self) -> bool:
        """Whether the caller runs in this thread."""
        return threading.get_ident() == self._thread.ident

    def call_soon(self, call: Callable[[], None]) -> bool:
        """Have the loop call this; False if it is closed. It may close before it comes to it."""
        loop = self._loop
        if loop is None:
            return False
        try:
            loop.call_soon_threadsafe(call)
        except RuntimeError:  # closed meanwhile
            return False
        return True

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end; it goes on if the caller is interrupted meanwhile."""
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def close(self) -> None:
        """Cancel what still runs, and wait for the thread; a second call does nothing."""
        if self._loop is not None:
            assert self._ended is not None
            self._loop.call_soon_threadsafe(self._ended.set)
            self._loop = None
        self._thread.join()

    def _work(self) -> None:
        with asyncio.Runner(loop_factory=self._make_loop) as runner:
            runner.run(self._live())

    async def _live(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._begun.set()
        await self._ended.wait()
