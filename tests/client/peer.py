"""What stands on top of a transport in the tests, and servers that do what they should not."""

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

import uvloop

from tests.support.wire import PATIENCE_S

LOOPS: Final[dict[str, Callable[[], asyncio.AbstractEventLoop]]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
T = TypeVar("T")


def run(loop: str, work: Coroutine[object, object, T]) -> T:
    """Do this on an event loop of that kind; what it leaves unhandled is a failure."""
    unhandled: list[dict[str, object]] = []

    async def main() -> T:
        asyncio.get_running_loop().set_exception_handler(lambda _, what: unhandled.append(what))
        return await asyncio.wait_for(work, PATIENCE_S)

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        result = runner.run(main())
    assert unhandled == []
    return result


class Heard(asyncio.Protocol):
    """A protocol that notes what it is told, in order."""

    def __init__(self) -> None:
        self.data = b""
        self.events: list[str] = []
        self.lost: Exception | None = None
        self._changed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._note("made")

    def data_received(self, data: bytes) -> None:
        self.data += data
        self._note("data")

    def eof_received(self) -> None:
        self._note("eof")

    def pause_writing(self) -> None:
        self._note("pause")

    def resume_writing(self) -> None:
        self._note("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = exc
        self._note("lost")

    def _note(self, event: str) -> None:
        if event != "data" or self.events[-1:] != ["data"]:
            self.events.append(event)
        self._changed.set()

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait for something that comes with an event."""
        while not is_so():
            self._changed.clear()
            await self._changed.wait()

    async def took(self, size: int) -> bytes:
        """The next bytes."""
        await self.until(lambda: len(self.data) >= size)
        taken, self.data = self.data[:size], self.data[size:]
        return taken

    async def ended(self) -> Exception | None:
        """Wait for the end, and why it came."""
        await self.until(lambda: "lost" in self.events)
        return self.lost


@contextmanager
def serving(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server on a thread that does this with its one connection, and then closes it."""
    failures: list[BaseException] = []

    def work() -> None:
        try:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(PATIENCE_S)
                serve(connection)
        except (ConnectionError, TimeoutError):
            pass  # The client has gone, which is its right.
        except BaseException as error:
            failures.append(error)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE_S)
        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert failures == []
