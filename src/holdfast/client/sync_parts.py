"""What a program without asyncio gets of a client: receipts to wait for, streams to iterate."""

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self, final

from holdfast.client.commits import like
from holdfast.client.driver import Driver
from holdfast.client.incoming import ReceivedMessage
from holdfast.client.outgoing import ACCEPTED, DONE, Outgoing
from holdfast.client.receipt import Receipt, Stages
from holdfast.client.subscription import ENDED, Stream, Subscription
from holdfast.errors import ConnectionLost, HoldfastError

__all__ = ["SyncReceipt", "SyncStream", "SyncSubscription"]


class SyncReceipt(Stages):
    """How far one published message is; ``wait`` for its end.

    The end is, at QoS 0, that it was written to the network; at QoS 1 that PUBACK came, at QoS 2
    that PUBCOMP came. It means that the server has the message, and says nothing of subscribers.
    """

    __slots__ = ("_driver", "_receipt")

    def __init__(self, driver: Driver, entry: Outgoing) -> None:
        super().__init__(entry)
        self._driver = driver
        self._receipt: Receipt | None = None

    def wait(self, timeout_s: float | None = None) -> Self:
        """Wait for its end, and return it.

        Raises TimeoutError, and as awaiting a ``Receipt`` does: Refused if the server refused it,
        LimitExceeded if it was dropped or has expired, StoreError if it could not be stored, and
        ConnectionLost if the client was closed before.
        """
        if self._entry.stage < DONE:
            self._driver.run(lambda: self._on_loop().end(), timeout_s)
        error = self.error
        if error is not None:
            raise error
        return self

    def stored(self, timeout_s: float | None = None) -> None:
        """Wait until it is in the outbox. Raises TimeoutError, StoreError."""
        if self._entry.stage == ACCEPTED:
            self._driver.run(lambda: self._on_loop().stored(), timeout_s)
        elif self._entry.error is not None:
            raise like(self._entry.error)

    @property
    def error(self) -> HoldfastError | None:
        """What ``wait`` raises, once that is known; None for a good end, and before the end."""
        receipt = self._receipt
        return (Receipt(self._driver.engine, self._entry) if receipt is None else receipt).error

    def add_done_callback(self, callback: Callable[["SyncReceipt"], object]) -> None:
        """Call ``callback`` with this receipt at the end, good or bad; soon, if that was before.

        It is called in the client's own thread, and must not block there.
        """

        def call() -> None:
            if self._driver.is_over:
                callback(self)  # in the thread that asks: there is no other any more
                return
            self._on_loop().add_done_callback(lambda _: callback(self))

        self._driver.give(call)

    def _on_loop(self) -> Receipt:
        if self._receipt is None:
            self._receipt = Receipt(self._driver.engine, self._entry)
        return self._receipt


class SyncStream:
    """Messages for the application, in the order in which they came.

    Iterating ends when the client is closed. Several threads may share one: each message is given
    to one of them. A message of QoS 1 is acknowledged when the thread that has it asks for the
    next one: a crash meanwhile brings it again.
    """

    def __init__(self, driver: Driver, stream: Stream) -> None:
        self._driver = driver
        self._stream = stream
        self._manual_ack = driver.client.manual_ack
        self._marks = driver.is_durable and not driver.client.manual_ack
        self._changed = threading.Condition()
        self._waiting = 0  # threads
        self._last: dict[int, ReceivedMessage] = {}  # by thread: what it has and is not done with
        self._queue = stream.share(self.ring)

    @property
    def queued(self) -> int:
        """How many messages wait to be taken."""
        return len(self._queue)

    @property
    def dropped(self) -> int:
        """How many of QoS 0 were dropped, because too many waited to be taken."""
        return self._stream.dropped

    def __iter__(self) -> Self:
        """The stream itself."""
        return self

    def __next__(self) -> ReceivedMessage:
        """The next message. Raises what has ended the client, if it was no ``close``."""
        message = self._take(None)
        if message is None:
            raise StopIteration
        return message

    def get(self, timeout_s: float | None = None) -> ReceivedMessage:
        """The next message, as iterating gives it.

        Raises TimeoutError if none has come by then, and ConnectionLost when the stream has ended.
        """
        message = self._take(timeout_s)
        if message is None:
            raise ConnectionLost(ENDED)
        return message

    def _take(self, timeout_s: float | None) -> ReceivedMessage | None:
        if self._last:
            last = self._last.pop(threading.get_ident(), None)
            if last is not None:
                self._driver.give(last)
        while True:
            try:
                message = self._queue.popleft()
            except IndexError:
                if not self._wait(timeout_s):
                    return None
                continue
            if message.qos == 0 or self._manual_ack:
                return message
            if message.qos == 1:
                self._last[threading.get_ident()] = message
            elif self._marks:
                self._mark(message)
            else:
                self._driver.give(message)
            return message

    def _mark(self, message: ReceivedMessage) -> None:
        """Let it be durable that the application has a message of QoS 2, before it has it."""

        async def mark() -> None:
            engine = self._driver.engine
            if not engine.is_handed(message):
                await engine.durable()

        try:
            self._driver.run(mark)
        except BaseException:
            self._queue.appendleft(message)
            raise

    def _wait(self, timeout_s: float | None) -> bool:
        """Wait until there is something to take; False if nothing comes any more."""
        driver, stream, changed = self._driver, self._stream, self._changed
        driver.check_thread()
        with changed:
            self._waiting += 1
            try:
                is_so = changed.wait_for(
                    lambda: self._queue or stream.is_ended or stream.error or driver.is_over,
                    timeout_s,
                )
            finally:
                self._waiting -= 1
        if not is_so:
            raise TimeoutError(f"no message came within {timeout_s:g} s")
        if self._queue:
            return True
        if stream.error is not None:
            raise stream.error
        if not stream.is_ended:
            raise driver.why_not()
        return False

    def ring(self) -> None:
        if self._waiting:
            with self._changed:
                self._changed.notify_all()

    @property
    def is_finished(self) -> bool:
        """Whether nothing waits to be taken, and all that was taken is done with."""
        return not self._queue and not self._last

    def finish(self) -> None:
        """The application is done with all that it has taken."""
        for thread in list(self._last):
            last = self._last.pop(thread, None)
            if last is not None:
                self._driver.give(last)

    def forked(self) -> None:
        """Forget all: the messages are the parent's."""
        self._changed = threading.Condition()
        self._last.clear()
        self._queue.clear()


@final
class SyncSubscription(SyncStream):
    """The messages of one or more topic filters.

    The server has subscribed. It is renewed when the server has lost the session, and lasts until
    ``unsubscribe`` or the end of its ``with``: leaving the loop does not end it.
    """

    def __init__(self, driver: Driver, subscription: Subscription) -> None:
        super().__init__(driver, subscription)
        self._subscription = subscription

    def __enter__(self) -> Self:
        """The subscription itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Unsubscribe. What came and was not taken is acknowledged: nobody is going to take it."""
        driver = self._driver
        if not driver.is_over:
            self.finish()
            driver.run(lambda: self._subscription.__aexit__(kind, error, trace))

    @property
    def topic_filters(self) -> list[str]:
        """What it subscribes to."""
        return self._subscription.topic_filters

    @property
    def reason_codes(self) -> list[int]:
        """What the server has answered for each filter: the QoS that it grants."""
        return self._subscription.reason_codes

    def unsubscribe(self, timeout_s: float | None = None) -> None:
        """End it, at the server too; waits for UNSUBACK. Raises TimeoutError."""
        self._driver.run(self._subscription.unsubscribe, timeout_s)
