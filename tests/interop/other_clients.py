"""aiomqtt and gmqtt under one small surface, as asynchronous context managers."""

import asyncio
import importlib
import socket
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self

import aiomqtt
import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.support.packets import V5
from tests.support.process import PATIENCE_S
from tests.support.wire import FOREVER_S


@dataclass
class Taken:
    """A message as the other client has it."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    user_properties: list[tuple[str, str]] = field(default_factory=list)
    content_type: str | None = None


class OtherClient(Protocol):
    """Somebody else's client, connected within ``async with``; its session is kept."""

    session_present: bool

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    async def subscribe(self, topic_filter: str, qos: int) -> None:
        """Subscribe; SUBACK has come."""

    async def publish(
        self,
        topic: str,
        payload: bytes,
        qos: int = 0,
        *,
        retain: bool = False,
        user_properties: list[tuple[str, str]] | None = None,
        content_type: str | None = None,
    ) -> None:
        """Publish; the acknowledgement has come where there is one."""

    async def take(self) -> Taken:
        """The next message."""

    async def die(self) -> None:
        """End the connection without DISCONNECT."""


class Aiomqtt:
    """aiomqtt, which stands on paho-mqtt."""

    def __init__(self, port: int, level: int, client_id: str, will: str = "") -> None:
        self.session_present = False
        self._level = level
        properties = None
        if level == V5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = FOREVER_S
        self._client = aiomqtt.Client(
            "127.0.0.1",
            port,
            identifier=client_id,
            protocol=aiomqtt.ProtocolVersion.V5 if level == V5 else aiomqtt.ProtocolVersion.V311,
            clean_session=None if level == V5 else False,
            clean_start=False if level == V5 else paho.MQTT_CLEAN_START_FIRST_ONLY,
            properties=properties,
            will=aiomqtt.Will(will, b"gone", 1) if will else None,
        )
        on_connect = self._client._client.on_connect
        assert on_connect is not None

        def note(*arguments: Any) -> None:
            self.session_present = bool(arguments[2].session_present)
            on_connect(*arguments)

        self._client._client.on_connect = note

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self._client.__aexit__(kind, error, trace)
        except aiomqtt.MqttError:
            pass  # it has died

    async def subscribe(self, topic_filter: str, qos: int) -> None:
        await self._client.subscribe(topic_filter, qos)

    async def publish(
        self,
        topic: str,
        payload: bytes,
        qos: int = 0,
        *,
        retain: bool = False,
        user_properties: list[tuple[str, str]] | None = None,
        content_type: str | None = None,
    ) -> None:
        properties = None
        if self._level == V5:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            if user_properties:
                properties.UserProperty = user_properties
            if content_type:
                properties.ContentType = content_type
        await self._client.publish(topic, payload, qos, retain, properties)

    async def take(self) -> Taken:
        message = await asyncio.wait_for(anext(self._client.messages), PATIENCE_S)
        assert isinstance(message.payload, bytes)
        taken = Taken(str(message.topic), message.payload, message.qos, message.retain)
        if message.properties is not None:
            taken.user_properties = getattr(message.properties, "UserProperty", [])
            taken.content_type = getattr(message.properties, "ContentType", None)
        return taken

    async def die(self) -> None:
        connection = self._client._client.socket()
        assert isinstance(connection, socket.socket)
        connection.shutdown(socket.SHUT_RDWR)


class Gmqtt:
    """gmqtt, which has a transport and no window."""

    def __init__(self, port: int, level: int, client_id: str, will: str = "") -> None:
        # It has no types.
        gmqtt: Any = importlib.import_module("gmqtt")
        self.session_present = False
        self._gmqtt = gmqtt
        self._port = port
        self._level = level
        options: dict[str, object] = {"session_expiry_interval": FOREVER_S} if level == V5 else {}
        message = gmqtt.Message(will, b"gone", qos=1) if will else None
        self._client = gmqtt.Client(client_id, clean_session=False, will_message=message, **options)
        self._client.set_config({"reconnect_retries": 0})
        self._taken: asyncio.Queue[Taken] = asyncio.Queue()
        self._subscribed: asyncio.Queue[None] = asyncio.Queue()
        self._client.on_message = self._on_message
        self._client.on_subscribe = lambda *_: self._subscribed.put_nowait(None)
        self._client.on_connect = self._on_connect

    def _on_connect(self, _client: object, flags: int, _code: int, _properties: object) -> None:
        self.session_present = bool(flags & 1)

    def _on_message(
        self, _client: object, topic: str, payload: bytes, qos: int, properties: dict[str, Any]
    ) -> int:
        taken = Taken(topic, payload, qos, bool(properties["retain"]))
        taken.user_properties = [tuple(pair) for pair in properties.get("user_property", [])]
        taken.content_type = next(iter(properties.get("content_type", [])), None)
        self._taken.put_nowait(taken)
        return 0

    async def __aenter__(self) -> Self:
        await self._client.connect("127.0.0.1", self._port, version=self._level)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._client.disconnect()

    async def subscribe(self, topic_filter: str, qos: int) -> None:
        self._client.subscribe(topic_filter, qos=qos)
        await asyncio.wait_for(self._subscribed.get(), PATIENCE_S)

    async def publish(
        self,
        topic: str,
        payload: bytes,
        qos: int = 0,
        *,
        retain: bool = False,
        user_properties: list[tuple[str, str]] | None = None,
        content_type: str | None = None,
    ) -> None:
        more: dict[str, object] = {}
        if user_properties:
            more["user_property"] = user_properties
        if content_type:
            more["content_type"] = content_type
        self._client.publish(topic, payload, qos=qos, retain=retain, **more)
        await asyncio.wait_for(self._client._persistent_storage.wait_empty(), PATIENCE_S)

    async def take(self) -> Taken:
        return await asyncio.wait_for(self._taken.get(), PATIENCE_S)

    async def die(self) -> None:
        self._client._connection._transport.abort()
