"""The driver: what joins threads of the application to one Client on an event loop of its own.

What a thread gives goes into one list, which the loop empties whenever it wakes: to publish costs
no switch of threads, and no wait for the loop.
"""

import asyncio
import os
import socket
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Generator
from typing import Final, Generic, TypeVar, cast, final

from holdfast.client.client import Client
from holdfast.client.engine import Engine
from holdfast.client.incoming import ReceivedMessage
from holdfast.client.outgoing import FAILED, Outgoing
from holdfast.errors import ConnectionLost, HoldfastError, UsageError
from holdfast.loop_thread import LoopThread
from holdfast.worker import Worker

T = TypeVar("T")

_AddressInfo = tuple[
    socket.AddressFamily,
    socket.SocketKind,
    int,
    str,
    tuple[str, int] | tuple[str, int, int, int],
]


@final
class Driver:
    """Runs a client's coroutines for other threads, and takes what they give to it.

    A call that is interrupted, by KeyboardInterrupt or its time, is cancelled on the loop. After
    ``end``, and in the child of a fork, calls raise ``why_not``.
    """

    def __init__(self, client: Client, *, is_durable: bool) -> None:
        self.client = client
        self.is_durable = is_durable
        self.is_open = False
        self.is_over = False
        self._engine: Engine | None = None
        # A message to be sent, one that the application is done with, or a call.
        self._given: deque[Outgoing | ReceivedMessage | Callable[[], None]] = deque()
        self._given_messages = 0  # that are to be sent
        self._given_bytes = 0
        self._lock = threading.Lock()  # of these two numbers
        self._is_woken = False
        self._thread: LoopThread | None = None
        self._pid = os.getpid()

    # --- life

    def start(self) -> None:
        """Start the loop. Raises UsageError the second time."""
        if self._thread is not None:
            raise UsageError("a SyncClient object is opened once: make another one")
        self._pid = os.getpid()
        self._thread = LoopThread("holdfast-client", _new_loop)
        self.is_open = True

    def end(self) -> None:
        """End the loop. Those who still wait for it are told."""
        assert self._thread is not None
        self.is_over = True
        self.is_open = False
        self._thread.close()
        self._take_given()

    def forked(self) -> None:
        """This is the child of a fork, without the thread: it must not touch what is open.

        The lock is made anew, since another thread may have held it.
        """
        self.is_over = True
        self.is_open = False
        self._lock = threading.Lock()
        self._given.clear()

    # --- what other threads do

    @property
    def engine(self) -> Engine:
        """The client's engine."""
        engine = self._engine
        if engine is None:
            engine = self._engine = self.client.engine
        return engine

    @property
    def is_here(self) -> bool:
        """Whether this is the loop's thread: a callback."""
        return self._thread is not None and self._thread.is_here

    def check_thread(self) -> None:
        """Raise UsageError in the loop's thread, which must not wait for itself."""
        if self.is_here:
            raise UsageError(
                "this would block the client's own thread: in a callback use publish_nowait, or"
                " another thread"
            )

    def check_open(self) -> None:
        """Raise what keeps the client from being used, if something does."""
        if not self.is_open:
            raise self.why_not()

    def why_not(self) -> HoldfastError:
        """What a call raises that the loop does not take."""
        if os.getpid() != self._pid:
            return UsageError("the client belongs to the process that opened it, not to a fork")
        if self.is_over:
            return ConnectionLost("the client is closed")
        return UsageError("the client is not open: use it inside `with`")

    def run(self, make: Callable[[], Awaitable[T]], timeout_s: float | None = None) -> T:
        """Wait, on the loop, for what ``make`` makes there; its result.

        Raises TimeoutError if it is not done by then.
        """
        self.check_thread()
        self.check_open()
        call = _Call(self, make)
        self.give(call.start)
        return call.wait(timeout_s)

    def ask(self, question: Callable[[], T]) -> T:
        """The answer to what only the loop's thread can answer, and at once."""
        if self.is_here:
            self._take_given()
            return question()

        async def ask() -> T:
            return question()

        return self.run(ask)

    def give(self, item: ReceivedMessage | Callable[[], None]) -> None:
        """Call this on the loop; or a message: one of QoS 2 was taken, or one of QoS 1 is done."""
        self._given.append(item)
        if not self._is_woken:
            self._wake()

    def give_outgoing(self, entry: Outgoing) -> bool:
        """Give a message to be sent, if the outbox has room for it."""
        engine = self.engine
        engine.refuse_if_failed(entry)
        with self._lock:
            if not engine.has_room(entry, self._given_messages, self._given_bytes):
                return False
            self._given_messages += 1
            self._given_bytes += entry.size
        self._given.append(entry)
        if not self._is_woken:
            self._wake()
        return True

    # --- the loop

    def _wake(self) -> None:
        assert self._thread is not None
        self._is_woken = True
        try:
            if not self._thread.call_soon(self._take_given):
                self._take_given()  # it is over
        except BaseException:
            self._is_woken = False
            raise

    def _take_given(self) -> None:
        """Do all that was given, in its order."""
        given = self._given
        messages = 0
        size = 0
        # What comes meanwhile wakes the loop again, which has other things to do as well.
        self._is_woken = False
        for _ in range(len(given)):
            try:
                item = given.popleft()
            except IndexError:  # at the end several threads may be here
                break
            if type(item) is Outgoing:
                messages += 1
                size += item.size
                try:
                    self.engine.accept(item)
                except HoldfastError as error:
                    item.stage = FAILED
                    item.error = error  # its receipt tells
            elif type(item) is ReceivedMessage:
                self._take_back(item)
            else:
                item()
        if messages:
            with self._lock:
                self._given_messages -= messages
                self._given_bytes -= size

    def _take_back(self, message: ReceivedMessage) -> None:
        engine = self.engine
        if engine.error is not None:
            return  # nothing is acknowledged any more
        if message.qos == 2:
            engine.is_handed(message)
            return
        message.takers -= 1
        if message.takers <= 0:
            engine.done_with(message)

    # --- acknowledgements

    def acknowledge(self, message: ReceivedMessage) -> Awaitable[None]:
        """``ReceivedMessage.ack``: it blocks where it has to, and need not be awaited."""
        engine = self.engine
        if self.is_here:
            return engine.acknowledge(message)
        if self.is_durable and message.qos == 2:
            self.run(lambda: engine.acknowledge(message))
        else:
            self.check_open()
            self.give(lambda: self._be_done_with(message))
        return _DONE

    def _be_done_with(self, message: ReceivedMessage) -> None:
        if self.engine.error is None:
            self.engine.done_with(message)


@final
class _Call(Generic[T]):
    """Something that one thread waits for and the loop does."""

    def __init__(self, driver: Driver, make: Callable[[], Awaitable[T]]) -> None:
        self._driver = driver
        self._make = make
        self._task: asyncio.Task[None] | None = None
        self._results: list[T] = []
        self._error: BaseException | None = None
        self._done = threading.Lock()
        self._done.acquire()

    def start(self) -> None:
        """Do it, on the loop."""
        if self._driver.is_over:
            self._error = self._driver.why_not()
            self._done.release()
        else:
            self._task = asyncio.get_running_loop().create_task(self._carry_out())

    def wait(self, timeout_s: float | None) -> T:
        """Wait for its end, in the thread that wants it; give its result, or raise its error."""
        try:
            is_done = self._done.acquire(timeout=-1 if timeout_s is None else max(0.0, timeout_s))
        except BaseException:
            self._driver.give(self._cancel)
            raise
        if not is_done:
            self._driver.give(self._cancel)
            # It may be done all the same. What it has changed is settled when it has ended.
            self._done.acquire()
            if isinstance(self._error, asyncio.CancelledError):
                raise TimeoutError(f"not done within {timeout_s:g} s")
        if isinstance(self._error, asyncio.CancelledError):
            raise ConnectionLost("the client was closed before that was done")
        if self._error is not None:
            raise self._error
        return self._results[0]

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _carry_out(self) -> None:
        try:
            self._results.append(await self._make())
        # Whatever it is, it is for the thread that waits.
        except BaseException as error:
            self._error = error
        finally:
            self._done.release()


@final
class _Done:
    """What need not be awaited, and may be."""

    def __await__(self) -> Generator[object, None, None]:
        return
        yield


_DONE: Final = _Done()


def _new_loop() -> asyncio.AbstractEventLoop:
    """A loop of uvloop, which is the faster one, where that is installed."""
    try:
        from uvloop import Loop
    except ImportError:
        return asyncio.new_event_loop()

    class ClientLoop(Loop):
        # libuv has threads for this, which the child of a fork waits for when it ends: it crashes.
        # The types are uvloop's.
        async def getaddrinfo(  # type: ignore[override]
            self,
            host: bytes | str | None,
            port: bytes | str | int | None,
            *,
            family: int = 0,
            type: int = 0,
            proto: int = 0,
            flags: int = 0,
        ) -> list[_AddressInfo]:
            def resolve(more: int) -> list[_AddressInfo]:
                found = socket.getaddrinfo(host, port, family, type, proto, flags | more)
                return cast(list[_AddressInfo], found)

            return await _resolved(self, resolve)

    return ClientLoop()


async def _resolved(
    loop: asyncio.AbstractEventLoop, resolve: Callable[[int], list[_AddressInfo]]
) -> list[_AddressInfo]:
    """What ``resolve`` gives for these flags, on a thread that nobody has to wait for."""
    try:
        return resolve(socket.AI_NUMERICHOST)
    except socket.gaierror:
        pass
    found: asyncio.Future[list[_AddressInfo]] = loop.create_future()

    def finish(addresses: list[_AddressInfo] | None, error: BaseException | None) -> None:
        if found.done():
            return
        if addresses is None:
            assert error is not None
            found.set_exception(error)
        else:
            found.set_result(addresses)

    worker: Worker[list[_AddressInfo]] = Worker("holdfast-resolver", loop)
    worker.submit(lambda: resolve(0), finish)
    try:
        return await found
    finally:
        worker.leave()
