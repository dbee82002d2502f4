"""``Client``: MQTT for asyncio, with an outbox that keeps what it was given."""

import asyncio
import secrets
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from holdfast.client.authentication import Authentication, Scram, ScramMethod
from holdfast.client.connection import ClientConnection
from holdfast.client.engine import Engine
from holdfast.client.incoming import ReceivedMessage
from holdfast.client.link import Link
from holdfast.client.options import (
    BRIDGED_S,
    SESSION_EXPIRY_S,
    VERSIONS,
    OutboxLimits,
    Reconnect,
    Version,
    Will,
)
from holdfast.client.outgoing import ACCEPTED, Outgoing
from holdfast.client.receipt import Receipt
from holdfast.client.records import SetSession
from holdfast.client.requests import Requests
from holdfast.client.subscription import Stream, Streams, Subscription
from holdfast.client.tls import TlsOptions, tls_context
from holdfast.client.transports import NO_HEADERS
from holdfast.client.url import Target, parse_url
from holdfast.errors import (
    ConnectionLost,
    HoldfastError,
    LimitExceeded,
    ProtocolError,
    Refused,
    StoreError,
    UsageError,
)
from holdfast.logs import get_logger
from holdfast.message import NEVER, Properties
from holdfast.protocol.encode import encode
from holdfast.protocol.packets import (
    MQTT_5_0,
    Connack,
    Connect,
    Disconnect,
    Suback,
    Subscribe,
    SubscriptionRequest,
    Unsuback,
    Unsubscribe,
)
from holdfast.protocol.reason_codes import DISCONNECT_WITH_WILL_MESSAGE
from holdfast.protocol.topics import check_filter, check_topic

__all__ = ["Client", "OutboxState"]

Payload = bytes | bytearray | memoryview | str | int | float | None

# Before 5.0 a server cannot say how much it takes at once.
IN_FLIGHT_BEFORE_V5: Final = 100
CHECKED_TOPICS_MAX: Final = 10_000

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class OutboxState:
    """What is in an outbox at a moment: all that is not acknowledged (at QoS 0: not sent)."""

    messages: int
    bytes: int
    in_flight: int
    oldest_age_s: float
    dropped: int  # expired, dropped at a bound, refused by the server, since the client began
    error: HoldfastError | None  # why nothing can be stored at the moment, such as a full disk

    @property
    def is_empty(self) -> bool:
        """Whether everything is out."""
        return self.messages == 0


class Client:
    """A connection to an MQTT broker that is made again when it is lost, and a session above it.

    With ``outbox``, the path of a file, each message of QoS 1 and 2 is on disk when ``publish``
    returns, and what is needed to receive QoS 2 exactly once is there too. Without, the same
    holds in memory, for as long as the process lives.

    The session is kept by the server (for ``session_expiry_s``, 7 days) where there is a
    ``client_id`` or an outbox; else it ends with this object. ``manual_ack`` leaves it to the
    application to acknowledge what it receives. Use it as an asynchronous context manager: it is
    connected inside, or, with an outbox, tries to.

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
        self._target: Target = parse_url(url)
        self._client_id = client_id
        self._path = None if outbox is None else Path(outbox)
        self._version = VERSIONS[version]
        is_kept = bool(client_id) or outbox is not None
        self._is_kept = is_kept if session_expiry_s is None else session_expiry_s > 0
        self._clean_start = not is_kept if clean_start is None else clean_start
        default_s = SESSION_EXPIRY_S if is_kept else BRIDGED_S
        self._session_expiry_s = default_s if session_expiry_s is None else session_expiry_s
        self._ends_session = not is_kept and session_expiry_s is None
        self._keep_alive_s = keep_alive_s
        self._user_name = self._target.user_name if user_name is None else user_name
        given = self._target.password if password is None else password
        self._password = given.encode() if isinstance(given, str) else given
        self._authentication = self._settle_authentication(auth)
        self._will = will
        if tls is not None and not self._target.is_tls:
            raise UsageError(f"tls is given for {self._target}: expected mqtts:// or wss://")
        self._tls = tls
        self._tls_context: ssl.SSLContext | None = None
        if headers and not self._target.is_websocket:
            raise UsageError(f"headers are given for {self._target}: expected ws:// or wss://")
        self._headers = dict(headers)
        self._receive_maximum = receive_maximum
        self._maximum_packet_size = maximum_packet_size
        self._topic_alias_maximum = topic_alias_maximum
        self._use_topic_aliases = use_topic_aliases
        self._user_properties = list(user_properties)
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
        self._topics: set[str] = set()  # that are known to be valid
        self._streams = Streams()
        self._next_identifier = 1
        self._asked: dict[int, Subscription | asyncio.Future[list[int]]] = {}
        self._engine_: Engine | None = None
        self._link: Link | None = None
        self._connack: Connack | None = None
        self._was_connected = False
        self._requests = Requests(self)
        # What a message's ``ack`` does where it is not called on the event loop; see SyncClient.
        self.acknowledge: Callable[[ReceivedMessage], Awaitable[None]] | None = None
        self._check_connect()

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
        if self._engine_ is not None:
            raise UsageError("the client is open; one Client object is opened once")
        self._make_tls()  # for what is wrong with the files
        store = None
        if self._path is not None:
            # Here and not above: whoever has no outbox needs no SQLite.
            from holdfast.client.outbox import OutboxFile

            store = OutboxFile(self._path)
        engine = Engine(
            store=store,
            limits=self._limits,
            in_flight_max=self._in_flight_max,
            manual_ack=self.manual_ack,
            deliver=self._streams.deliver,
            notify=self._notify,
            broken=self._broken,
            failed=self._store_failed,
            acknowledge=self.acknowledge,
        )
        self._engine_ = engine
        loaded = engine.start()
        self._settle_client_id("" if loaded is None else loaded.client_id)
        self._link = Link(
            target=self._target,
            make_tls=self._make_tls,
            server_name=self._tls.server_name if isinstance(self._tls, TlsOptions) else "",
            headers=self._headers,
            authentication=self._authentication,
            user_name=self._user_name,
            password=self._password,
            make_connect=self._make_connect,
            make_connection=self._make_connection,
            opened=self._opened,
            ended=self._ended,
            answered=self._answered,
            reconnect=self._reconnect,
            connect_timeout_s=self._connect_timeout_s,
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
        not get there. ``with_will`` asks the server to publish the will all the same.
        """
        engine, link = self.engine, self._the_link
        left = 0
        if is_orderly:
            for stream in self._streams.all():
                stream.acknowledge_last()
            left = await self._see_out(engine, link)
        await link.close(self._disconnect(with_will=with_will))
        self._unanswered(ConnectionLost("the client was closed"))
        for stream in self._streams.all():
            stream.end()
        await engine.stop()
        if left and self._path is None:
            raise ConnectionLost(f"{left} messages were not acknowledged when the client closed")

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
        entry = self.entry(
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
        if engine.has_room(entry):
            engine.accept(entry)
        else:
            await self.accept(entry)
        if entry.stage == ACCEPTED:
            await engine.durable(entry)
        return Receipt(engine, entry)

    def publish_nowait(
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
        """Put a message into the outbox without waiting; ``receipt.stored()`` waits for the disk.

        Raises LimitExceeded where ``publish`` would wait for room.
        """
        entry = self.entry(
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
        self.accept_nowait(entry)
        return Receipt(self.engine, entry)

    async def drain(self, timeout_s: float | None = None) -> None:
        """Wait until everything is out: acknowledged, or written at QoS 0.

        Raises TimeoutError.
        """
        async with asyncio.timeout(timeout_s):
            await self.engine.drained()

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
        _check_filters(topic_filters)
        requests: list[SubscriptionRequest] = []
        for topic_filter in topic_filters:
            requests.append(
                SubscriptionRequest(
                    topic_filter, qos, no_local, retain_as_published, retain_handling
                )
            )
        encode(Subscribe(1, requests), self._version)  # raises for what no server would take
        return Subscription(self, self.engine, requests)

    async def unsubscribe(self, *topic_filters: str) -> list[int]:
        """Unsubscribe, and end the streams of these filters; the reason codes are returned."""
        _check_filters(topic_filters)
        self._streams.remove(topic_filters)
        while True:
            await self._the_link.connected()
            answer: asyncio.Future[list[int]] = self.engine.loop.create_future()
            if self._ask(Unsubscribe(0, list(topic_filters)), answer):
                try:
                    return await answer
                except ConnectionLost:
                    continue
            await asyncio.sleep(0)

    def messages(self) -> Stream:
        """What comes and no subscription of this object wants: a session's of before, for one."""
        if self._streams.rest is None:
            self._streams.set_rest(Stream(self.engine, manual_ack=self.manual_ack))
        assert self._streams.rest is not None
        return self._streams.rest

    async def request(
        self,
        topic: str,
        payload: Payload = b"",
        *,
        qos: int = 1,
        timeout_s: float = 30,
        response_topic: str | None = None,
        message_expiry_interval: int | None = None,
        content_type: str | None = None,
        user_properties: Sequence[tuple[str, str]] = (),
        payload_format_indicator: int | None = None,
    ) -> ReceivedMessage:
        """Publish a request and return the answer to it; ``response_topic`` is made if not given.

        Raises TimeoutError, and Refused if the server refused the request.
        Source: MQTT 5.0 §4.10.
        """
        if self._version < MQTT_5_0:
            raise UsageError("a request needs MQTT 5.0, where an answer says what it is for")
        return await self._requests.request(
            topic,
            payload,
            qos=qos,
            timeout_s=timeout_s,
            response_topic=response_topic,
            message_expiry_interval=message_expiry_interval,
            content_type=content_type,
            user_properties=user_properties,
            payload_format_indicator=payload_format_indicator,
        )

    # --- the connection

    @property
    def client_id(self) -> str:
        """The Client Identifier; the server may have assigned it."""
        return self._client_id

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
        async with asyncio.timeout(timeout_s):
            await self._the_link.connected()

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

    def entry(
        self,
        topic: str,
        payload: Payload,
        qos: int,
        retain: bool,
        message_expiry_interval: int | None = None,
        content_type: str | None = None,
        response_topic: str | None = None,
        correlation_data: bytes | None = None,
        user_properties: Sequence[tuple[str, str]] = (),
        payload_format_indicator: int | None = None,
    ) -> Outgoing:
        """A message on its way out. Raises UsageError for what no server would take."""
        if topic not in self._topics:
            self._check_topic(topic)
        if qos != 0 and qos != 1 and qos != 2:
            raise UsageError(f"expected QoS 0, 1 or 2, got {qos}")
        if type(payload) is not bytes:
            payload = _payload_bytes(payload)
        now_ms = time.time_ns() // 1_000_000
        expires_at_ms = NEVER
        if message_expiry_interval is not None:
            expires_at_ms = now_ms + message_expiry_interval * 1000
        properties: Properties | None = None
        if (
            content_type is not None
            or response_topic is not None
            or correlation_data is not None
            or user_properties
            or payload_format_indicator is not None
        ):
            properties = Properties()
            properties.content_type = content_type
            properties.response_topic = response_topic
            properties.correlation_data = correlation_data
            properties.user_properties = list(user_properties)
            properties.payload_format_indicator = payload_format_indicator
        return Outgoing(topic, payload, qos, retain, properties, expires_at_ms, now_ms)

    def _check_topic(self, topic: str) -> None:
        _checked(check_topic, topic)
        if len(self._topics) >= CHECKED_TOPICS_MAX:
            self._topics.clear()
        self._topics.add(topic)

    async def accept(self, entry: Outgoing) -> None:
        """Put a message into the outbox, as soon as there is room if the policy says so."""
        if self._limits.policy == "wait" and not self.engine.has_room(entry):
            await self.engine.room(entry)
        else:
            self.accept_nowait(entry)

    def accept_nowait(self, entry: Outgoing) -> None:
        """Put a message into the outbox. Raises LimitExceeded if it has no room."""
        engine = self.engine
        if engine.has_room(entry):
            engine.accept(entry)
            return
        if self._limits.policy != "drop-oldest":
            state = self.outbox
            raise LimitExceeded(
                f"the outbox is full: {state.messages} messages of {state.bytes} bytes"
            )
        engine.drop_oldest(entry)
        engine.accept(entry)

    def add_subscription(self, subscription: Subscription) -> None:
        """Ask the server for it, now or with the next connection."""
        if self._version >= MQTT_5_0:
            subscription.identifier = self._next_identifier
            self._next_identifier += 1
        self._streams.add(subscription)
        if self.is_connected:
            self._subscribe(subscription)

    def withdraw(self, subscription: Subscription) -> None:
        """Forget a subscription that nobody waits for any more; tell the server if it knows it."""
        self._streams.discard(subscription)
        others = {f for one in self._streams.subscriptions for f in one.topic_filters}
        gone = [f for f in subscription.topic_filters if f not in others]
        if gone and self.is_connected:
            self._ask(Unsubscribe(0, gone), self.engine.loop.create_future())

    def _subscribe(self, subscription: Subscription) -> None:
        packet = Subscribe(0, subscription.requests)
        connection = self.engine.connection
        assert connection is not None
        if subscription.identifier and connection.limits.has_subscription_identifiers:
            packet.properties = Properties()
            packet.properties.subscription_identifiers = [subscription.identifier]
        subscription.is_asked_for(subscription.requests)
        try:
            self._ask(packet, subscription)
        except Refused as error:
            subscription.take_refusal(error)

    def _ask(
        self, packet: Subscribe | Unsubscribe, asker: Subscription | asyncio.Future[list[int]]
    ) -> bool:
        engine = self.engine
        assert engine.connection is not None
        packet_id = engine.connection.request(packet, engine.out)
        if packet_id == 0:
            return False  # it is asked when another one is answered
        self._asked[packet_id] = asker
        engine.check()
        return True

    def _answered(self) -> None:
        connection = self.engine.connection
        assert connection is not None
        answered, connection.answered = connection.answered, []
        for packet_id, packet in answered:
            asker = self._asked.pop(packet_id)
            if isinstance(asker, Subscription):
                assert isinstance(packet, Suback)
                asker.take_suback(packet.reason_codes)
            elif not asker.done():
                assert isinstance(packet, Unsuback)
                asker.set_result(packet.reason_codes)
        self._subscribe_all()

    def _subscribe_all(self) -> None:
        """Ask for all subscriptions that this session does not have and that are not asked for."""
        asked = {id(asker) for asker in self._asked.values()}
        for subscription in self._streams.subscriptions:
            if not subscription.is_confirmed and id(subscription) not in asked:
                self._subscribe(subscription)

    def _settle_client_id(self, kept: str) -> None:
        """The identifier that was given, that the outbox file has, or a new one."""
        if not self._client_id:
            self._client_id = kept or f"holdfast-{secrets.token_hex(8)}"
        if self._path is not None and self._client_id != kept:
            if kept:
                _log.warning(f"the outbox was that of client {kept}, it is {self._client_id}'s now")
            self.engine.changes.records.append(SetSession(self._client_id, False))
            self.engine.changes.is_urgent = True

    def _make_connect(self) -> Connect:
        properties: Properties | None = None
        if self._version >= MQTT_5_0:
            properties = Properties()
            properties.session_expiry_interval = self._session_expiry_s
            properties.receive_maximum = self._receive_maximum
            properties.maximum_packet_size = self._maximum_packet_size
            properties.topic_alias_maximum = self._topic_alias_maximum or None
            properties.request_response_information = 1  # for ``request``
            properties.user_properties = self._user_properties
            is_clean = self._clean_start and not self._was_connected
        else:
            # Clean Session also says that the session ends with the connection.
            is_clean = self._clean_start or not self._is_kept
        return Connect(
            self._client_id,
            self._version,
            is_clean,
            self._keep_alive_s,
            None if self._will is None else self._will.packet(self._version),
            properties=properties,
        )

    def _check_connect(self) -> None:
        """Raise UsageError now for what no CONNECT can carry."""
        connect = self._make_connect()
        connect.user_name, connect.password = self._user_name, self._password
        try:
            encode(connect, self._version)
        except UsageError as error:
            raise UsageError(f"this cannot go into CONNECT: {error}") from None

    def _settle_authentication(
        self, auth: Authentication | ScramMethod | None
    ) -> Authentication | None:
        """What was given, or SCRAM with the user name and password, which are not sent then."""
        if isinstance(auth, str):
            if not self._user_name or self._password is None:
                raise UsageError(f"{auth} takes a user name and a password")
            try:
                password = self._password.decode()
            except UnicodeDecodeError:
                raise UsageError(f"{auth} takes a password of text") from None
            auth = Scram(self._user_name, password, auth)
            self._user_name = self._password = None
        if auth is None:
            return None
        if auth.method and self._version < MQTT_5_0:
            raise UsageError(f"{auth.method} takes MQTT 5.0")
        if not auth.method and self._password is not None:
            raise UsageError("a token that goes as the password and a password are given")
        return auth

    def _make_tls(self) -> ssl.SSLContext | None:
        """What the next connection uses; files may have been renewed since the last one."""
        if not self._target.is_tls:
            return None
        try:
            self._tls_context = tls_context(self._tls)
        except UsageError as error:
            if self._tls_context is None:
                raise
            _log.warning(f"the files of before are used: {error}")
        return self._tls_context

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
        self._was_connected = True
        properties = connack.properties
        if properties is not None and properties.assigned_client_identifier is not None:
            self._client_id = properties.assigned_client_identifier
        for subscription in self._streams.subscriptions:
            if not connack.session_present:
                subscription.is_confirmed = False
        self._subscribe_all()
        if self._on_connect is not None:
            on_connect = self._on_connect
            _call_back(lambda: on_connect(self))

    def _unanswered(self, error: ConnectionLost) -> None:
        asked, self._asked = self._asked, {}
        for asker in asked.values():
            if isinstance(asker, asyncio.Future) and not asker.done():
                asker.set_exception(error)

    def _ended(self, error: HoldfastError) -> None:
        self._unanswered(error if isinstance(error, ConnectionLost) else ConnectionLost(str(error)))
        _log.info(f"not connected: {error}")
        if self._on_disconnect is not None:
            on_disconnect = self._on_disconnect
            _call_back(lambda: on_disconnect(self, error))
        if self._the_link.stopped_by is not None:
            self.engine.give_up(error)
            for stream in self._streams.all():
                stream.end(error)

    def _store_failed(self, error: StoreError) -> None:
        _log.error(f"the outbox cannot be written, nothing more is acknowledged: {error}")
        for stream in self._streams.all():
            stream.end(error)
        self._the_link.hang_up(error)

    async def _see_out(self, engine: Engine, link: Link) -> int:
        """Let what is on its way arrive; how many messages did not."""
        if engine.error is None and engine.sending.messages > 0 and link.is_connected:
            try:
                await self.drain(self._close_timeout_s)
            except (TimeoutError, HoldfastError):
                pass
        return engine.sending.messages

    def _disconnect(self, *, with_will: bool) -> Disconnect:
        packet = Disconnect()
        if self._version < MQTT_5_0:
            return packet
        if with_will:
            packet.reason_code = DISCONNECT_WITH_WILL_MESSAGE
        if self._ends_session:
            packet.properties = Properties()
            packet.properties.session_expiry_interval = 0
        return packet


def _payload_bytes(payload: Payload) -> bytes:
    """What the field's clients make of these."""
    if isinstance(payload, bytes):
        return payload
    if payload is None:
        return b""
    if isinstance(payload, str):
        return payload.encode()
    if isinstance(payload, bytearray | memoryview):
        return bytes(payload)
    if isinstance(payload, int | float):
        return str(payload).encode()
    raise UsageError(
        f"expected bytes, str, int, float or None as payload, got {type(payload).__name__}"
    )


def _check_filters(topic_filters: Sequence[str]) -> None:
    if not topic_filters:
        raise UsageError("expected at least one topic filter")
    for topic_filter in topic_filters:
        _checked(check_filter, topic_filter)


def _call_back(callback: Callable[[], object]) -> None:
    """Call what the application gave us; a mistake in it is its own, and costs no connection."""
    try:
        callback()
    except Exception as error:
        _log.failure("a callback of the application has failed", error)


def _checked(check: Callable[[str], None], text: str) -> None:
    """What is wrong with a topic or filter is our caller's mistake here."""
    try:
        check(text)
    except HoldfastError as error:
        raise UsageError(getattr(error, "detail", str(error))) from None
