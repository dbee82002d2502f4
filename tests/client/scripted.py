"""A server of MQTT 5.0 that says what a test wants, on the test's own event loop."""

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self, TypeVar

from holdfast.message import Properties
from holdfast.protocol.decode import decode
from holdfast.protocol.encode import encode
from holdfast.protocol.framer import Framer
from holdfast.protocol.packets import MQTT_5_0, Auth, Connack, Connect, Disconnect, Packet

P = TypeVar("P", bound=Packet)


class Peer:
    """One connection of a client, as the server has it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._framer = Framer(1 << 20)
        self.connect: Connect | None = None  # what it began with

    @property
    def asked(self) -> bytes | None:
        """The Authentication Data of CONNECT."""
        assert self.connect is not None
        return (
            None if self.connect.properties is None else self.connect.properties.authentication_data
        )

    async def packet(self) -> Packet | None:
        """The next packet; None once the client has closed."""
        framer = self._framer
        while not framer.next_frame():
            data = await self._reader.read(1 << 16)
            if not data:
                return None
            framer.feed(data)
        return decode(framer.buffer, framer.start, framer.end, MQTT_5_0)

    async def expect(self, kind: type[P]) -> P:
        """The next packet, which has to be of this kind."""
        packet = await self.packet()
        assert isinstance(packet, kind), packet
        return packet

    def send(self, packet: Packet) -> None:
        """Send a packet."""
        self._writer.write(encode(packet, MQTT_5_0))


Talk = Callable[[Peer], Awaitable[None]]


class Scripted:
    """Serves the connections one after the other as ``talks`` say, and the later ones as the last.

    ``connects`` are the CONNECTs that came; a connection ends with its talk.
    """

    def __init__(self, *talks: Talk, port: int = 0) -> None:
        self.port = port
        self.connects: list[Connect] = []
        self._talks = talks
        self._server: asyncio.Server | None = None
        self._failures: list[BaseException] = []
        self._count = 0

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        assert self._failures == []

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = self._talks[min(self._count, len(self._talks) - 1)]
        self._count += 1
        peer = Peer(reader, writer)
        try:
            peer.connect = await peer.expect(Connect)
            self.connects.append(peer.connect)
            await talk(peer)
        except ConnectionError:
            pass
        except Exception as error:
            self._failures.append(error)
        finally:
            writer.close()


async def accept(peer: Peer) -> None:
    """Let the client in, and wait until it goes."""
    peer.send(Connack(False, 0))
    while await peer.packet() is not None:
        pass


def refuse(reason_code: int, reference: str | None = None) -> Talk:
    """Answer CONNECT with this."""

    async def talk(peer: Peer) -> None:
        properties = Properties()
        properties.server_reference = reference
        peer.send(Connack(False, reason_code, properties))
        await peer.packet()

    return talk


def leave(reason_code: int, reference: str | None = None) -> Talk:
    """Let the client in, and send it away at once."""

    async def talk(peer: Peer) -> None:
        peer.send(Connack(False, 0))
        properties = Properties()
        properties.server_reference = reference
        peer.send(Disconnect(reason_code, properties))
        await peer.packet()

    return talk


def auth(reason_code: int, method: str | None, data: bytes | None) -> Auth:
    """An AUTH."""
    return Auth(reason_code, said(method, data))


def said(method: str | None, data: bytes | None) -> Properties:
    """The properties of an authentication."""
    properties = Properties()
    properties.authentication_method = method
    properties.authentication_data = data
    return properties
