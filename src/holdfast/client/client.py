"""``Client``: MQTT for asyncio, with an outbox that keeps what it was given."""

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self, Unpack

from holdfast.client.authentication import Authentication, ScramMethod, settle_authentication
from holdfast.client.commits import open_outbox
from holdfast.client.composing import Composer, Payload, check_filters, counted
from holdfast.client.connection import ClientConnection
from holdfast.client.engine import ACCEPTED_MAX, Engine
from holdfast.client.greeting import Greeting
from holdfast.client.incoming import ReceivedMessage
from holdfast.client.link import Link
from holdfast.client.options import (
    VERSIONS,
    OutboxLimits,
    PublishOptions,
    Reconnect,
    RequestOptions,
    Version,
    Will,
)
from holdfast.client.outgoing import ACCEPTED, Outgoing
from holdfast.client.receipt import OutboxState, Receipt
from holdfast.client.records import SetSession
from holdfast.client.requests import Requests
from holdfast.client.subscribing import Subscribing
from holdfast.client.subscription import Stream, Streams, Subscription
from holdfast.client.tls import TlsFiles, TlsOptions
from holdfast.client.transports import NO_HEADERS
from holdfast.client.url import parse_url
from holdfast.errors import (
    ConnectionLost,
    HoldfastError,
    LimitExceeded,
    ProtocolError,
    UsageError,
)
from holdfast.logs import get_logger
from holdfast.protocol.encode import encode
from holdfast.protocol.packets import (
    MQTT_5_0,
    Connack,
    Connect,
    Subscribe,
    SubscriptionRequest,
)
from holdfast.worker import until_done

__all__ = ["Client"]

# Before 5.0 a server cannot say how much it takes at once. To Mosquitto it is 20: of more at QoS 2
# it acknowledges all and forwards no more than 20.
IN_FLIGHT_BEFORE_V5: Final = 20

_log = get_logger(__name__)


class Client:
    """A connection to an MQTT broker that is made again when it is lost, and a session above it.

    With ``outbox``, the path of a file, each message of QoS 1 and 2 is on disk when ``publish``
    returns, and what is needed to receive QoS 2 exactly once is there too. Without, the same
    holds in memory, for as long as the process lives.

    Use it as an asynchronous context manager: it is connected inside, or, with an outbox, tries to.

    - ``url``: mqtt://host, mqtts://host:8883, ws://host/mqtt, wss://host/mqtt or unix:///path, with
      user:password@ in front of the host if need be.
    - ``client_id``: the session's name at the server. With it, or an outbox, the session is kept
      for ``session_expiry_s`` (7 days) after the last connection; else it ends with this object.
      ``clean_start=True`` begins with a new one.
    - ``version``: "5.0" or "3.1.1".
    - ``keep_alive_s``: after so long without a packet the client pings; 0 for never.
    - ``user_name`` and ``password``, or ``auth``, which proves who the client is by more than that:
      ``Scram(…)``, ``Token(…)``, or the name of a SCRAM method, which then takes the user name and
      password and does not send them.
    - ``will``: what the server publishes when the client is lost.
    - ``tls``: whom to trust and what to show over mqtts:// and wss://. ``headers`` go into the
      request that opens a WebSocket.
    - ``manual_ack``: the application acknowledges what it receives, by ``message.ack()``.
    - ``outbox_limits``: the bounds of the outbox, and what happens there. ``reconnect``: how long
      it waits between connections.
    - ``receive_maximum``: how many messages of QoS 1 and 2 the server may send before the first of
      them is acknowledged; ``in_flight_max``: how many the client sends, if the server takes so
      many. ``maximum_packet_size``: bytes of the largest packet that the server may send.
    - ``use_topic_aliases``: send numbers for topics, as far as the server takes them;
      ``topic_alias_maximum``: how many of its own the server may use.
    - ``user_properties``: of CONNECT.
    - ``on_connect``, ``on_disconnect``: called on the event loop with the client, and with what has
      ended the connection. They must not block.

    Raises UsageError for what can never work, on entering StoreLocked where another process has
    the outbox, and without an outbox ConnectionLost or Refused if the first connection fails.
    """

    def __init__(
        self,
        url: str = "mqtt://localhost",
        *,
        client_id: str = "",
        outbox: str | Path | None = None,
        version: Version = "5.0",
        clean_start: bool | None = None,
        session_expiry_s: int | None = None,
        keep_alive_s: int = 60,
        user_name: str | None = None,
        password: str | bytes | None = None,
        auth: Authentication | ScramMethod | None = None,
        will: Will | None = None,
        tls: TlsOptions | ssl.SSLContext | None = None,
        headers: Mapping[str, str] = NO_HEADERS,
        receive_maximum: int = 1000,
        maximum_packet_size: int | None = None,
        topic_alias_maximum: int = 0,
        use_topic_aliases: bool = False,
        user_properties: Sequence[tuple[str, str]] = (),
        in_flight_max: int = 65_000,
        manual_ack: bool = False,
        outbox_limits: OutboxLimits | None = None,
        reconnect: Reconnect | None = None,
        connect_timeout_s: float = 10,
        close_timeout_s: float = 10,
        on_connect: Callable[["Client"], object] | None = None,
        on_disconnect: Callable[["Client", HoldfastError], object] | None = None,
    ) -> None:
        if version not in VERSIONS:
            raise UsageError(f"expected version 5.0 or 3.1.1, got {version}")
        self.manual_ack = manual_ack
        self.composer = Composer()
        self._version = VERSIONS[version]
        self._path = None if outbox is None else Path(outbox)
        self._target = target = parse_url(url)
        if user_name is None:
            user_name = target.user_name
        if password is None:
            password = target.password
        if isinstance(password, str):
            password = password.encode()
        self._authentication, self._user_name, self._password = settle_authentication(
            auth, user_name, password, self._version
        )
        self._greeting = Greeting(
            client_id=client_id,
            has_outbox=outbox is not None,
            version=self._version,
            clean_start=clean_start,
            session_expiry_s=session_expiry_s,
            keep_alive_s=keep_alive_s,
            will=will,
            receive_maximum=receive_maximum,
            maximum_packet_size=maximum_packet_size,
            topic_alias_maximum=topic_alias_maximum,
            user_properties=user_properties,
        )
        self._greeting.check(self._user_name, self._password)
        if tls is not None and not target.is_tls:
            raise UsageError(f"tls is given for {target}: expected mqtts:// or wss://")
        self._tls = TlsFiles(tls)
        if headers and not target.is_websocket:
            raise UsageError(f"headers are given for {target}: expected ws:// or wss://")
        self._headers = dict(headers)
        self._use_topic_aliases = use_topic_aliases
        before_v5 = min(in_flight_max, IN_FLIGHT_BEFORE_V5)
        self._in_flight_max = in_flight_max if self._version >= MQTT_5_0 else before_v5
        self._limits = outbox_limits or OutboxLimits()
        if self._limits.policy == "drop-oldest":
            # What is in flight cannot be dropped: there has to be something else.
            self._in_flight_max = min(self._in_flight_max, max(self._limits.messages_max // 2, 1))
        self._reconnect = reconnect or Reconnect()
        self._connect_timeout_s = connect_timeout_s
        self._close_timeout_s = close_timeout_s
        self._on_connect = on_connect
        self._on_disconnect = on_disconnect
        self._streams = Streams()
        self._subscribing: Subscribing | None = None
        self._engine_: Engine | None = None
        self._is_opening = False
        self._ending: asyncio.Task[None] | None = None
        self._link: Link | None = None
        self._connack: Connack | None = None
        self._owns_session = False  # the server's was begun by this client, or its outbox
        self._requests = Requests(self)
        # What a message's ``ack`` does where it is not called on the event loop; see SyncClient.
        self.acknowledge: Callable[[ReceivedMessage], Awaitable[None]] | None = None

    # --- life

    async def __aenter__(self) -> Self:
        """Begin."""
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close; after an exception without waiting for what is on its way."""
        await self.close(is_orderly=kind is None)

    async def open(self) -> None:
        """Begin; ``async with`` does it."""
        if self._engine_ is not None or self._is_opening:
            raise UsageError("a Client object is opened once: make another one")
        self._make_tls()  # for what is wrong with the files
        store, loaded = None, None
        if self._path is not None:
            self._is_opening = True
            try:
                store, loaded = await open_outbox(self._path)
            finally:
                self._is_opening = False
        engine = Engine(
            store=store,
            limits=self._limits,
            in_flight_max=self._in_flight_max,
            manual_ack=self.manual_ack,
            deliver=self._streams.deliver,
            notify=self._notify,
            broken=self._broken,
            failed=self._failed,
            acknowledge=self.acknowledge,
        )
        self._engine_ = engine
        kept = "" if loaded is None else loaded.client_id
        is_other = self._greeting.settle_client_id(kept)
        if loaded is not None:
            engine.start(loaded, self.client_id)
        self._owns_session = not is_other and loaded is not None and loaded.has_session
        engine.sending.owns_session = self._owns_session
        self._link = Link(
            target=self._target,
            make_tls=self._make_tls,
            server_name=self._tls.server_name,
            headers=self._headers,
            authentication=self._authentication,
            user_name=self._user_name,
            password=self._password,
            make_connect=self._greeting.connect,
            make_connection=self._make_connection,
            opened=self._opened,
            ended=self._ended,
            answered=self._answered,
            reconnect=self._reconnect,
            connect_timeout_s=self._connect_timeout_s,
        )
        self._subscribing = Subscribing(
            engine, self._link, self._streams, version=self._version, manual_ack=self.manual_ack
        )
        self._link.start(engine)
        if store is None:
            try:
                await self._link.first_try()
            except BaseException:
                await self.close(is_orderly=False)
                raise

    async def close(self, *, is_orderly: bool = True, with_will: bool = False) -> None:
        """End; ``async with`` does it.

        What waits in an outbox file stays there. Without one, ``is_orderly`` waits up to
        ``close_timeout_s`` for what is on its way, and raises ConnectionLost if some of it did
        not get there. ``with_will`` asks the server to publish the will all the same. If cancelled
        it waits for nothing but its own disk and a second for the network, and ends all the same.
        """
        engine, link = self.engine, self._the_link
        left = 0
        try:
            if is_orderly:
                for stream in self._streams.all():
                    stream.acknowledge_last()
                left = await self._see_out(engine, link)
        finally:
            if self._ending is None:
                ending = self._end(engine, link, with_will=with_will)
                self._ending = asyncio.create_task(ending, name="holdfast-ending")
            await until_done(self._ending)
            self._ending.result()
        if left and self._path is None:
            raise ConnectionLost(f"not acknowledged when the client closed: {counted(left)}")

    async def _end(self, engine: Engine, link: Link, *, with_will: bool) -> None:
        """Hang up, tell all who wait, and let go of the outbox file."""
        await link.close(self._greeting.disconnect(with_will=with_will))
        self._the_subscribing.unanswered(ConnectionLost("the client was closed"))
        for stream in self._streams.all():
            stream.end()
        await engine.stop()

    # --- publishing

    async def publish(
        self,
        topic: str,
        payload: Payload = b"",
        qos: int = 0,
        retain: bool = False,
        *,
        message_expiry_interval: int | None = None,
        content_type: str | None = None,
        response_topic: str | None = None,
        correlation_data: bytes | None = None,
        user_properties: Sequence[tuple[str, str]] = (),
        payload_format_indicator: int | None = None,
    ) -> Receipt:
        """Put a message into the outbox; with a file it is on disk on return (QoS 1 and 2).

        Await the receipt to know that the server has it. With a full outbox the policy of
        ``outbox_limits`` decides. Raises UsageError, LimitExceeded, StoreError.
        """
        entry = self.composer.entry(
            topic,
            payload,
            qos,
            retain,
            message_expiry_interval,
            content_type,
            response_topic,
            correlation_data,
            user_properties,
            payload_format_indicator,
        )
        engine = self.engine
        if not engine.offer(entry):
            await self.accept(entry)
        if entry.stage == ACCEPTED:
            await engine.durable(entry)
        elif engine.accepted >= ACCEPTED_MAX:
            # Else a loop of publishes would keep all other tasks waiting, and the network idle.
            await asyncio.sleep(0)
        return Receipt(engine, entry)

    def publish_nowait(
        self,
        topic: str,
        payload: Payload = b"",
        qos: int = 0,
        retain: bool = False,
        **properties: Unpack[PublishOptions],
    ) -> Receipt:
        """Put a message into the outbox without waiting; ``receipt.stored()`` waits for the disk.

        Raises LimitExceeded where ``publish`` would wait for room.
        """
        entry = self.composer.entry(topic, payload, qos, retain, **properties)
        self.accept_nowait(entry)
        return Receipt(self.engine, entry)

    async def drain(self, timeout_s: float | None = None) -> None:
        """Wait until everything is out: acknowledged, or written at QoS 0.

        Raises TimeoutError.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self.engine.drained()
        except TimeoutError:
            left = self.engine.sending.messages
            raise TimeoutError(f"left after {timeout_s:g} s: {counted(left)}") from None

    @property
    def outbox(self) -> OutboxState:
        """What is in the outbox now."""
        sending = self.engine.sending
        oldest = sending.oldest()
        age_s = 0.0 if oldest is None else max(0.0, time.time() - oldest.queued_at_ms / 1000)
        return OutboxState(
            sending.messages,
            sending.bytes,
            sending.in_flight,
            age_s,
            sending.dropped,
            self.engine.error or self.engine.failure,
        )

    # --- receiving

    def subscribe(
        self,
        *topic_filters: str,
        qos: int = 0,
        no_local: bool = False,
        retain_as_published: bool = False,
        retain_handling: int = 0,
    ) -> Subscription:
        """Subscribe: iterate over the result, or await it first to know that it is granted.

        Raises UsageError for a filter that no server would take.
        """
        check_filters(topic_filters)
        requests: list[SubscriptionRequest] = []
        for topic_filter in topic_filters:
            requests.append(
                SubscriptionRequest(
                    topic_filter, qos, no_local, retain_as_published, retain_handling
                )
            )
        encode(Subscribe(1, requests), self._version)  # raises for what no server would take
        return Subscription(self._the_subscribing, self.engine, requests)

    async def unsubscribe(self, *topic_filters: str) -> list[int]:
        """Unsubscribe, and end the streams of these filters; the reason codes are returned."""
        return await self._the_subscribing.unsubscribe(*topic_filters)

    def messages(self) -> Stream:
        """What comes and no subscription of this object wants: a session's of before, for one."""
        if self._streams.rest is None:
            stream = Stream(self.engine, manual_ack=self.manual_ack)
            self._streams.set_rest(stream)
            if self._the_link.stopped_by is not None:
                stream.end(self._the_link.stopped_by)
        assert self._streams.rest is not None
        return self._streams.rest

    async def request(
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
        if self._version < MQTT_5_0:
            raise UsageError("a request needs MQTT 5.0, where an answer says what it is for")
        return await self._requests.request(
            topic, payload, qos=qos, timeout_s=timeout_s, **properties
        )

    # --- the connection

    @property
    def client_id(self) -> str:
        """The Client Identifier; the server may have assigned it."""
        return self._greeting.client_id

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection at this moment."""
        return self._link is not None and self._link.is_connected

    @property
    def error(self) -> HoldfastError | None:
        """What has ended the last connection, or keeps it from being made; None while connected."""
        return self._the_link.error

    @property
    def connack(self) -> Connack | None:
        """The CONNACK of the last connection, with what the server allows."""
        return self._connack

    async def reauthenticate(self) -> None:
        """Prove once more who the client is, with a fresh token if it is one, and be accepted.

        It takes an ``auth`` with a method. Raises UsageError, Refused, ConnectionLost.
        """
        await self._the_link.login.again()

    async def connected(self, timeout_s: float | None = None) -> None:
        """Wait for a connection. Raises TimeoutError, or what has ended the client for good."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._the_link.connected()
        except TimeoutError:
            why = "" if self.error is None else f": {self.error}"
            raise TimeoutError(f"not connected within {timeout_s:g} s{why}") from None

    # --- inner

    @property
    def is_begun(self) -> bool:
        """Whether there is something to close."""
        return self._link is not None

    @property
    def engine(self) -> Engine:
        if self._engine_ is None:
            raise UsageError("the client is not open: use it inside `async with`")
        return self._engine_

    @property
    def _the_link(self) -> Link:
        if self._link is None:
            raise UsageError("the client is not open: use it inside `async with`")
        return self._link

    async def accept(self, entry: Outgoing) -> None:
        """Put a message into the outbox, as soon as there is room if the policy says so."""
        if self._limits.policy == "wait" and not self.engine.has_room(entry):
            await self.engine.room(entry)
        else:
            self.accept_nowait(entry)

    def accept_nowait(self, entry: Outgoing) -> None:
        """Put a message into the outbox. Raises LimitExceeded if it has no room."""
        engine = self.engine
        if engine.offer(entry):
            return
        if self._limits.policy != "drop-oldest":
            state = self.outbox
            raise LimitExceeded(
                f"the outbox is full: {state.messages} messages of {state.bytes} bytes"
            )
        engine.drop_oldest(entry)
        engine.accept(entry)

    @property
    def _the_subscribing(self) -> Subscribing:
        if self._subscribing is None:
            raise UsageError("the client is not open: use it inside `async with`")
        return self._subscribing

    def _answered(self) -> None:
        self._the_subscribing.answered()

    def withdraw(self, subscription: Subscription) -> None:
        """Forget a subscription that nobody waits for any more."""
        self._the_subscribing.withdraw(subscription)

    def _make_tls(self) -> ssl.SSLContext | None:
        return self._tls.context() if self._target.is_tls else None

    def _make_connection(self, number: int, connect: Connect) -> ClientConnection:
        engine = self.engine
        return ClientConnection(
            number,
            connect,
            engine.sending,
            engine.receiving,
            uses_aliases=self._use_topic_aliases,
        )

    def _notify(self) -> None:
        self._the_link.notify()

    def _broken(self, error: ProtocolError) -> None:
        _log.warning(f"the server has broken the rules: {error}")
        self._the_link.broken(error)

    def _opened(self, connack: Connack) -> None:
        self._connack = connack
        self._greeting.accepted(connack)
        if not connack.session_present and not self._owns_session:
            self._owns_session = True
            if self._path is not None:
                self.engine.changes.records.append(SetSession(self.client_id, True))
        self._the_subscribing.opened(connack.session_present)
        if self._on_connect is not None:
            on_connect = self._on_connect
            _call_back(lambda: on_connect(self))

    def _ended(self, error: HoldfastError) -> None:
        self._the_subscribing.unanswered(
            error if isinstance(error, ConnectionLost) else ConnectionLost(str(error))
        )
        _log.info(f"not connected: {error}")
        if self._on_disconnect is not None:
            on_disconnect = self._on_disconnect
            _call_back(lambda: on_disconnect(self, error))
        if self._the_link.stopped_by is not None:
            self.engine.give_up(error)
            for stream in self._streams.all():
                stream.end(error)

    def _failed(self, error: HoldfastError) -> None:
        _log.error(f"nothing is sent and acknowledged any more: {error}")
        self._the_link.stop_for(error)

    async def _see_out(self, engine: Engine, link: Link) -> int:
        """Let what is on its way arrive; how many messages did not.

        What is in a file need not wait for a connection; what is in memory has this one chance.
        """
        can_send = link.is_connected or self._path is None
        if engine.error is None and engine.sending.messages > 0 and can_send:
            try:
                await self.drain(self._close_timeout_s)
            except (TimeoutError, HoldfastError):
                pass
        return engine.sending.messages


def _call_back(callback: Callable[[], object]) -> None:
    """Call what the application gave us; a mistake in it is its own, and costs no connection."""
    try:
        callback()
    except Exception as error:
        _log.failure("a callback of the application has failed", error)
