"""``SyncClient``: the client for programs without asyncio, usable from any thread."""

import atexit
import os
import threading
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self, Unpack

from holdfast.client.client import Client
from holdfast.client.composing import Payload
from holdfast.client.driver import Driver
from holdfast.client.incoming import ReceivedMessage
from holdfast.client.options import ClientOptions, PublishOptions, RequestOptions
from holdfast.client.outgoing import Outgoing
from holdfast.client.receipt import OutboxState
from holdfast.client.subscription import Stream
from holdfast.client.sync_parts import SyncReceipt, SyncStream, SyncSubscription
from holdfast.errors import HoldfastError
from holdfast.logs import get_logger
from holdfast.protocol.packets import Connack

__all__ = ["SyncClient"]

_log = get_logger(__name__)


class SyncClient:
    """``Client`` for programs without asyncio: the same names, blocking, usable from any thread.

    Its arguments are those of ``Client``, and so are its promises. ``on_connect`` and
    ``on_disconnect`` are called in the client's own thread: there ``publish_nowait`` is welcome,
    and what would block raises UsageError. Use it in a ``with`` statement.

    A KeyboardInterrupt in a call that blocks withdraws what the call was waiting for; a message
    that is in the outbox already stays there. After ``fork`` only the parent can use it.
    """

    def __init__(
        self,
        url: str = "mqtt://localhost",
        *,
        on_connect: Callable[["SyncClient"], object] | None = None,
        on_disconnect: Callable[["SyncClient", HoldfastError], object] | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        self._client = Client(
            url,
            on_connect=None if on_connect is None else lambda _: on_connect(self),
            on_disconnect=(
                None if on_disconnect is None else lambda _, error: on_disconnect(self, error)
            ),
            **options,
        )
        self._is_durable = options.get("outbox") is not None
        self._driver = Driver(self._client, is_durable=self._is_durable)
        self._client.acknowledge = self._driver.acknowledge
        self._streams: dict[Stream, SyncStream] = {}
        self._closing = threading.Lock()

    # --- life

    def __enter__(self) -> Self:
        """Begin."""
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close; after an exception without waiting for what is on its way."""
        self.close(is_orderly=kind is None)

    def open(self) -> None:
        """Begin; ``with`` does it."""
        driver, client = self._driver, self._client
        driver.start()
        _open_clients.add(self)
        try:
            driver.run(client.open)
        except BaseException:
            if client.is_begun:
                driver.run(lambda: client.close(is_orderly=False))
            self._end()
            raise

    def close(self, *, is_orderly: bool = True, with_will: bool = False) -> None:
        """End; ``with`` does it. May be called in any thread; a second call does nothing.

        What waits in an outbox file stays there. Without one, ``is_orderly`` waits up to
        ``close_timeout_s`` for what is on its way, and raises ConnectionLost if some of it did
        not get there. ``with_will`` asks the server to publish the will all the same. Who waits
        in another thread is told: iterating ends, all else raises ConnectionLost.
        """
        driver, client = self._driver, self._client
        driver.check_thread()
        with self._closing:
            if not driver.is_open:
                return
            try:
                if is_orderly:
                    for stream in list(self._streams.values()):
                        stream.finish()
                driver.run(lambda: client.close(is_orderly=is_orderly, with_will=with_will))
            except KeyboardInterrupt:
                driver.run(lambda: client.close(is_orderly=False))
                raise
            finally:
                self._end()

    def _end(self) -> None:
        _open_clients.discard(self)
        self._driver.end()
        for stream in list(self._streams.values()):
            stream.ring()

    def forked(self) -> None:
        """This is the child of a fork: the client is the parent's."""
        self._closing = threading.Lock()
        self._driver.forked()
        for stream in self._streams.values():
            stream.forked()

    # --- publishing

    def publish(
        self,
        topic: str,
        payload: Payload = b"",
        qos: int = 0,
        retain: bool = False,
        **properties: Unpack[PublishOptions],
    ) -> SyncReceipt:
        """Put a message into the outbox; with a file it is on disk on return (QoS 1 and 2).

        ``wait`` for the receipt to know that the server has it. With a full outbox the policy of
        ``outbox_limits`` decides. Raises UsageError, LimitExceeded, StoreError.
        """
        self._driver.check_thread()
        entry = self._entry(topic, payload, qos, retain, properties)
        if not self._driver.give_outgoing(entry):
            self._driver.run(lambda: self._client.accept(entry))
        receipt = SyncReceipt(self._driver, entry)
        if self._is_durable and qos > 0:
            receipt.stored()
        return receipt

    def publish_nowait(
        self,
        topic: str,
        payload: Payload = b"",
        qos: int = 0,
        retain: bool = False,
        **properties: Unpack[PublishOptions],
    ) -> SyncReceipt:
        """Put a message into the outbox without waiting; ``receipt.stored()`` waits for the disk.

        Raises LimitExceeded where ``publish`` would wait for room.
        """
        entry = self._entry(topic, payload, qos, retain, properties)
        if not self._driver.give_outgoing(entry):
            self._driver.ask(lambda: self._client.accept_nowait(entry))
        return SyncReceipt(self._driver, entry)

    def drain(self, timeout_s: float | None = None) -> None:
        """Wait until everything is out: acknowledged, or written at QoS 0. Raises TimeoutError."""
        self._driver.run(self._client.drain, timeout_s)

    @property
    def outbox(self) -> OutboxState:
        """What is in the outbox now."""
        return self._driver.ask(lambda: self._client.outbox)

    # --- receiving

    def subscribe(
        self,
        *topic_filters: str,
        qos: int = 0,
        no_local: bool = False,
        retain_as_published: bool = False,
        retain_handling: int = 0,
        timeout_s: float | None = None,
    ) -> SyncSubscription:
        """Subscribe, and wait for SUBACK; iterate over the result.

        Raises UsageError for a filter that no server would take, Refused if the server refuses
        one, and TimeoutError, after which it is not subscribed.
        """

        async def subscribe() -> SyncSubscription:
            self._forget_ended()
            subscription = self._client.subscribe(
                *topic_filters,
                qos=qos,
                no_local=no_local,
                retain_as_published=retain_as_published,
                retain_handling=retain_handling,
            )
            shared = SyncSubscription(self._driver, subscription)
            self._streams[subscription] = shared
            try:
                await subscription
            except BaseException:
                del self._streams[subscription]
                self._client.withdraw(subscription)
                raise
            return shared

        return self._driver.run(subscribe, timeout_s)

    def unsubscribe(self, *topic_filters: str, timeout_s: float | None = None) -> list[int]:
        """Unsubscribe, and end the streams of these filters; the reason codes are returned.

        Raises TimeoutError.
        """
        return self._driver.run(lambda: self._client.unsubscribe(*topic_filters), timeout_s)

    def messages(self) -> SyncStream:
        """What comes and no subscription of this object wants: a session's of before, for one."""

        def messages() -> SyncStream:
            stream = self._client.messages()
            if stream not in self._streams:
                self._streams[stream] = SyncStream(self._driver, stream)
            return self._streams[stream]

        return self._driver.ask(messages)

    def request(
        self,
        topic: str,
        payload: Payload = b"",
        *,
        qos: int = 1,
        timeout_s: float = 30,
        **properties: Unpack[RequestOptions],
    ) -> ReceivedMessage:
        """Publish a request and return the answer to it; ``response_topic`` is made if not given.

        Raises TimeoutError, and Refused if the server refused the request.
        Source: MQTT 5.0 §4.10.
        """
        return self._driver.run(
            lambda: self._client.request(topic, payload, qos=qos, timeout_s=timeout_s, **properties)
        )

    # --- the connection

    @property
    def client_id(self) -> str:
        """The Client Identifier; the server may have assigned it."""
        return self._client.client_id

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection at this moment."""
        return self._driver.is_open and self._client.is_connected

    @property
    def error(self) -> HoldfastError | None:
        """What has ended the last connection, or keeps it from being made; None while connected."""
        return self._client.error

    @property
    def connack(self) -> Connack | None:
        """The CONNACK of the last connection, with what the server allows."""
        return self._client.connack

    def reauthenticate(self, timeout_s: float | None = None) -> None:
        """Prove once more who the client is, with a fresh token if it is one, and be accepted.

        It takes an ``auth`` with a method. Raises UsageError, Refused, ConnectionLost,
        TimeoutError.
        """
        self._driver.run(self._client.reauthenticate, timeout_s)

    def connected(self, timeout_s: float | None = None) -> None:
        """Wait for a connection. Raises TimeoutError, or what has ended the client for good."""
        self._driver.run(self._client.connected, timeout_s)

    # --- inner

    def _entry(
        self, topic: str, payload: Payload, qos: int, retain: bool, properties: PublishOptions
    ) -> Outgoing:
        self._driver.check_open()
        if not properties:
            return self._client.composer.entry(topic, payload, qos, retain)
        return self._client.composer.entry(topic, payload, qos, retain, **properties)

    def _forget_ended(self) -> None:
        for stream, shared in list(self._streams.items()):
            if stream.is_ended and shared.is_finished:
                del self._streams[stream]


# To be closed at the end of the process.
_open_clients: Final[weakref.WeakSet[SyncClient]] = weakref.WeakSet()


def _close_all() -> None:
    """The process ends: see out what is on its way, as leaving ``with`` does."""
    for client in list(_open_clients):
        try:
            client.close()
        except HoldfastError as error:
            _log.warning(f"at the end of the process: {error}")


def _forget_all() -> None:
    for client in list(_open_clients):
        client.forked()
    _open_clients.clear()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_forget_all)
