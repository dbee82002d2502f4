"""What a client has subscribed to, and the streams that messages are taken from."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from holdfast.client.incoming import ACKNOWLEDGED, ReceivedMessage
from holdfast.errors import ConnectionLost, HoldfastError, Refused, UsageError
from holdfast.logs import get_logger
from holdfast.protocol.packets import SubscriptionRequest
from holdfast.protocol.reason_codes import FAILURE, reason_name
from holdfast.protocol.topics import matches

if TYPE_CHECKING:
    from holdfast.client.engine import Engine
    from holdfast.client.subscribing import Subscribing

__all__ = ["Stream", "Streams", "Subscription"]

# Of QoS 0, in a stream whose application is slow; what comes on top is dropped, counted and told.
# Messages of QoS 1 and 2 are bounded by Receive Maximum: they are acknowledged when they are taken.
QUEUED_MAX: Final = 100_000
UNCLAIMED_MAX: Final = 1_000  # of QoS 0, that no stream wants
ROUTES_MAX: Final = 10_000
ENDED: Final = "no message comes any more: the client was closed, or this was unsubscribed"

_log = get_logger(__name__)


class Stream:
    """Messages for the application, in the order in which they came.

    It ends when the client is closed. A message of QoS 1 is acknowledged when the next one is
    asked for: a crash meanwhile brings it again.
    """

    def __init__(self, engine: "Engine", *, manual_ack: bool) -> None:
        self.dropped = 0
        self._engine = engine
        self._manual_ack = manual_ack
        self._queue: deque[ReceivedMessage] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._last: ReceivedMessage | None = None
        self._error: BaseException | None = None
        self._refusal: HoldfastError | None = None  # of all that would bring messages
        self._is_ended = False
        self._bell: Callable[[], None] | None = None

    @property
    def queued(self) -> int:
        """How many messages wait to be taken."""
        return len(self._queue)

    def __aiter__(self) -> "Stream":
        """The stream itself."""
        return self

    async def __anext__(self) -> ReceivedMessage:
        """The next message. Raises what has ended the client, if it was no ``close``."""
        if self._last is not None:
            self.acknowledge_last()
        while True:
            while not self._queue:
                if self._error is not None:
                    raise self._error
                if self._is_ended:
                    raise StopAsyncIteration
                if self._refusal is not None:
                    raise self._refusal
                if self._waiter is not None:
                    raise UsageError("another task waits for this stream: give each its own")
                self._waiter = self._engine.loop.create_future()
                try:
                    await self._waiter
                finally:
                    self._waiter = None
            message = self._queue[0]
            if message.qos == 0:
                return self._queue.popleft()
            if not self._engine.is_handed(message):
                await self._engine.durable()
                if not self._queue or self._queue[0] is not message:
                    continue
            self._queue.popleft()
            if not self._manual_ack and message.state != ACKNOWLEDGED:
                self._last = message
            return message

    def deliver(self, message: ReceivedMessage) -> None:
        """Put a message behind the others."""
        if message.qos == 0 and len(self._queue) >= QUEUED_MAX:
            self.dropped += 1
            if self.dropped == 1:
                _log.warning(
                    f"messages of QoS 0 are dropped: {QUEUED_MAX} of them wait to be taken"
                )
            return
        message.takers += 1
        self._queue.append(message)
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
        if self._bell is not None:
            self._bell()

    async def get(self, timeout_s: float | None = None) -> ReceivedMessage:
        """The next message, as iterating gives it.

        Raises TimeoutError if none has come by then (it is not lost: it is the next one), and
        ConnectionLost when the stream has ended.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await self.__anext__()
        except StopAsyncIteration:
            raise ConnectionLost(ENDED) from None
        except TimeoutError:
            raise TimeoutError(f"no message came within {timeout_s:g} s") from None

    def share(self, bell: Callable[[], None]) -> deque[ReceivedMessage]:
        """Let another thread take the messages; ``bell`` is called when one came, and at the end.

        What the taking of a message leads to is that thread's business then.
        """
        self._bell = bell
        return self._queue

    @property
    def is_ended(self) -> bool:
        """Whether no message comes any more; those that came can still be taken."""
        return self._is_ended

    @property
    def error(self) -> BaseException | None:
        """What keeps messages from coming, if it was no ``close`` or ``unsubscribe``."""
        return self._error if self._is_ended else self._refusal

    def acknowledge_last(self) -> None:
        """The application is done with the message that it took last."""
        last, self._last = self._last, None
        if last is not None:
            last.takers -= 1
            if last.takers <= 0:
                self._engine.done_with(last)

    def given_back(self) -> list[ReceivedMessage]:
        """What was not taken, and is no longer here."""
        messages = list(self._queue)
        self._queue.clear()
        for message in messages:
            message.takers -= 1
        return messages

    def dismiss(self) -> None:
        """Acknowledge what was not taken, so that it does not count against Receive Maximum."""
        self.acknowledge_last()
        while self._queue:
            message = self._queue.popleft()
            message.takers -= 1
            if message.takers <= 0:
                self._engine.done_with(message)

    def end(self, error: BaseException | None = None) -> None:
        """No message comes any more."""
        self._is_ended = True
        self._error = error
        self._wake()

    def _wake(self) -> None:
        """Let whoever waits look again."""
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
        if self._bell is not None:
            self._bell()


class Subscription(Stream):
    """The messages of one or more topic filters.

    Await it to know that the server has subscribed; iterating does so by itself. It is renewed
    when the server has lost the session, and lasts until ``unsubscribe``: leaving the loop does
    not end it.
    """

    def __init__(
        self, subscribing: "Subscribing", engine: "Engine", requests: list[SubscriptionRequest]
    ) -> None:
        super().__init__(engine, manual_ack=subscribing.manual_ack)
        self.requests = requests
        self.identifier = 0  # Subscription Identifier, 0 for none
        self.reason_codes: list[int] = []
        self.is_confirmed = False  # by SUBACK, in the session of now
        self.refused: HoldfastError | None = None
        self._subscribing = subscribing
        self._confirmed: list[asyncio.Future[None]] = []
        self._asked = requests  # in the last SUBSCRIBE
        self._is_asked = False

    @property
    def topic_filters(self) -> list[str]:
        """What it subscribes to."""
        return [request.topic_filter for request in self.requests]

    def __await__(self) -> Generator[object, None, "Subscription"]:
        """Wait for SUBACK.

        Raises Refused if the server refuses one of the filters, and ConnectionLost if it was ended
        before the server has answered.
        """
        return self._subscribed().__await__()

    def __aiter__(self) -> "Subscription":
        """The subscription itself."""
        return self

    def __anext__(self) -> Coroutine[object, None, ReceivedMessage]:
        """The next message. Raises Refused if the server has refused the subscription."""
        # No coroutine of its own around the other one: that costs a tenth of the whole way here.
        return super().__anext__() if self._is_asked else self._first()

    async def __aenter__(self) -> Self:
        """Wait for SUBACK, as awaiting does."""
        return await self._subscribed()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Unsubscribe. What came and was not taken is acknowledged: nobody is going to take it."""
        if not self._is_ended:
            await self.unsubscribe()
        self.dismiss()

    async def unsubscribe(self) -> None:
        """End it, at the server too; waits for UNSUBACK."""
        await self._subscribing.unsubscribe(*self.topic_filters)

    def wants(self, topic: str) -> bool:
        """Whether one of its filters matches a topic."""
        return any(matches(request.topic_filter, topic) for request in self.requests)

    def is_asked_for(self, requests: list[SubscriptionRequest]) -> None:
        """A SUBSCRIBE with these is sent: what an earlier server said counts no more."""
        self._asked = requests
        self._refusal = self.refused = None

    def take_suback(self, reason_codes: list[int]) -> None:
        """The server has answered."""
        self.reason_codes = reason_codes
        self.is_confirmed = True
        for request, code in zip(self._asked, reason_codes, strict=True):
            if code >= FAILURE:
                text = f"the subscription to {request.topic_filter} was refused"
                self.refused = Refused(code, f"{text}: {reason_name(code)}")
                break
        else:
            self.refused = None
        self._answered(is_whole=all(code >= FAILURE for code in reason_codes))

    def take_refusal(self, error: Refused) -> None:
        """The server need not be asked: it has said before that it does not take this."""
        self.reason_codes = [error.reason_code] * len(self.requests)
        self.is_confirmed = True
        self.refused = error
        self._answered(is_whole=True)

    def _answered(self, *, is_whole: bool) -> None:
        self._refusal = self.refused if is_whole else None
        waiters, self._confirmed = self._confirmed, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
        if self.refused is not None and not waiters:
            _log.warning(str(self.refused))
        if self._refusal is not None:
            self._wake()

    def end(self, error: BaseException | None = None) -> None:
        """No message comes any more; who waits for SUBACK is told."""
        super().end(error)
        waiters, self._confirmed = self._confirmed, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _first(self) -> ReceivedMessage:
        await self._answer()
        return await super().__anext__()

    async def _subscribed(self) -> Self:
        await self._answer()
        if not self.is_confirmed:
            raise ConnectionLost(ENDED)
        return self

    async def _answer(self) -> None:
        """Wait for SUBACK, or the end. Raises what has kept the subscription from being made."""
        if not self._is_asked:
            self._is_asked = True
            self._subscribing.add(self)
        if not self.is_confirmed and not self._is_ended:
            waiter: asyncio.Future[None] = self._engine.loop.create_future()
            self._confirmed.append(waiter)
            try:
                await waiter
            finally:
                if waiter in self._confirmed:
                    self._confirmed.remove(waiter)  # given up
        if self.refused is not None:
            raise self.refused
        if self._error is not None:
            raise self._error


class Streams:
    """All streams of a client, and which message is for which."""

    def __init__(self) -> None:
        self.subscriptions: list[Subscription] = []
        self.rest: Stream | None = None  # for what no subscription wants
        self.unclaimed_dropped = 0
        self._unclaimed: deque[ReceivedMessage] = deque()
        self._unclaimed_qos_0 = 0
        self._routes: dict[str, list[Subscription]] = {}

    def all(self) -> list[Stream]:
        """Every stream."""
        return [*self.subscriptions, *([] if self.rest is None else [self.rest])]

    def add(self, subscription: Subscription) -> None:
        """Give it what comes from now on, and what nobody has claimed so far."""
        self.subscriptions.append(subscription)
        self._routes.clear()
        if self._unclaimed:
            self.deliver(self._take_unclaimed())

    def discard(self, subscription: Subscription) -> None:
        """Forget a subscription; what it was given is for others, or held."""
        if subscription in self.subscriptions:
            self.subscriptions.remove(subscription)
        self._routes.clear()
        subscription.end()
        self.deliver(subscription.given_back())

    def set_rest(self, stream: Stream) -> None:
        """Give this stream what no subscription wants."""
        self.rest = stream
        self.deliver(self._take_unclaimed())

    def remove(self, topic_filters: Iterable[str]) -> None:
        """Forget these filters; a subscription that has no other ends."""
        gone = set(topic_filters)
        for subscription in list(self.subscriptions):
            kept = [one for one in subscription.requests if one.topic_filter not in gone]
            if not kept:
                self.subscriptions.remove(subscription)
                subscription.end()
            subscription.requests = kept or subscription.requests
        self._routes.clear()

    def deliver(self, messages: list[ReceivedMessage]) -> None:
        """Give each message to those that want it."""
        routes = self._routes
        for message in messages:
            topic = message.topic
            wanting = routes.get(topic)
            if wanting is None:
                wanting = self._route(topic)
            if len(wanting) == 1:
                wanting[0].deliver(message)
            elif not wanting:
                self._keep(message)
            else:
                for subscription in self._chosen(wanting, message):
                    subscription.deliver(message)

    def _route(self, topic: str) -> list[Subscription]:
        wanting = [one for one in self.subscriptions if one.wants(topic)]
        if len(self._routes) >= ROUTES_MAX:
            self._routes.clear()
        self._routes[topic] = wanting
        return wanting

    def _chosen(self, wanting: list[Subscription], message: ReceivedMessage) -> list[Subscription]:
        """Those that a copy is for: the server may send one to each, and says which.

        Without identifiers, or with those of an earlier process, all that match get it.
        """
        properties = message.properties
        if properties is None or not properties.subscription_identifiers:
            return wanting
        identifiers = properties.subscription_identifiers
        chosen = [one for one in wanting if one.identifier in identifiers]
        if not chosen:
            return wanting
        # The server has a filter once, under the identifier of who asked last.
        filters = {topic_filter for one in chosen for topic_filter in one.topic_filters}
        return [one for one in wanting if not filters.isdisjoint(one.topic_filters)]

    def _keep(self, message: ReceivedMessage) -> None:
        """Hold a message that nobody wants yet: of a session from before, for instance."""
        if self.rest is not None:
            self.rest.deliver(message)
            return
        if message.qos == 0:
            if self._unclaimed_qos_0 >= UNCLAIMED_MAX:
                self.unclaimed_dropped += 1
                return
            self._unclaimed_qos_0 += 1
        self._unclaimed.append(message)

    def _take_unclaimed(self) -> list[ReceivedMessage]:
        unclaimed = list(self._unclaimed)
        self._unclaimed.clear()
        self._unclaimed_qos_0 = 0
        return unclaimed
