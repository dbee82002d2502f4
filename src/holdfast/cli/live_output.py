"""Standard output for a client that has to keep its connection alive while nobody reads it."""

import asyncio
import os
import select
import stat
import sys
from typing import Final, final

__all__ = ["LiveOutput"]

# A pipe that can be written to takes so many bytes without waiting. Source: POSIX, PIPE_BUF.
CHUNK_BYTES: Final = 4096


@final
class LiveOutput:
    """Standard output, whose reader may take its time or go away.

    ``reader_gone`` is done when whoever has read a pipe has closed it, even if nothing is written.
    """

    def __init__(self) -> None:
        self.is_terminal = sys.stdout.isatty()
        self.reader_gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        sys.stdout.flush()
        self._descriptor = sys.stdout.fileno()
        mode = os.fstat(self._descriptor).st_mode
        self._may_block = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or self.is_terminal
        if stat.S_ISFIFO(mode):
            # Nothing can be read there: the call means that the other end is closed.
            asyncio.get_running_loop().add_reader(self._descriptor, self._gone)

    async def write(self, data: bytes) -> None:
        """Write all of it. Raises BrokenPipeError when nobody will read it."""
        view = memoryview(data)
        while view:
            if self._may_block and not self._is_writable():
                await self._writable()
            view = view[
                os.write(self._descriptor, view[:CHUNK_BYTES] if self._may_block else view) :
            ]

    def close(self) -> None:
        """Watch it no more."""
        asyncio.get_running_loop().remove_reader(self._descriptor)

    def _gone(self) -> None:
        self.close()
        if not self.reader_gone.done():
            self.reader_gone.set_result(None)

    def _is_writable(self) -> bool:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        return bool(poll.poll(0))

    async def _writable(self) -> None:
        loop = asyncio.get_running_loop()
        is_ready = asyncio.Event()
        loop.add_writer(self._descriptor, is_ready.set)
        try:
            await is_ready.wait()
        finally:
            loop.remove_writer(self._descriptor)
