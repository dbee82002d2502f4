"""A server that does what a test tells it, packet by packet, on a real socket; and a loop whose
clock jumps, so that nothing that takes a minute makes a test wait.

A test is one coroutine that is both ends: it opens a client against ``ScriptedServer`` and plays
the server's part through the ``Peer`` of each connection.
"""

import asyncio
import selectors
from collections.abc import Coroutine, Mapping
from types import TracebackType
from typing import Final, Self, TypeVar

from holdfast.client.client import Client
from holdfast.message import Properties
from holdfast.protocol.decode import decode
from holdfast.protocol.encode import encode
from holdfast.protocol.framer import PACKET_BYTES_MAX, Framer
from holdfast.protocol.packets import Connack, Connect, Packet, Pingreq, Pingresp

PATIENCE_S: Final = 15.0  # of real time, an upper bound only
# The clock jumps after so much real time without input: both ends are in this process, and what
# one of them has written is there for the other long before.
QUIET_S: Final = 0.004

T = TypeVar("T")
P = TypeVar("P", bound=Packet)


class Closed(Exception):
    """The client closed the connection while the test waited for a packet."""


class Peer:
    """One connection, seen from the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.version = 5
        self._reader = reader
        self._writer = writer
        self._framer = Framer(PACKET_BYTES_MAX)

    async def packet(self) -> Packet:
        """The next packet of the client, read strictly. Raises Closed."""
        framer = self._framer
        while not framer.next_frame():
            data = await self._reader.read(65_536)
            if not data:
                raise Closed
            framer.feed(data)
        packet = decode(framer.buffer, framer.start, framer.end, self.version)
        if isinstance(packet, Connect):
            self.version = packet.version
        return packet

    async def raw(self) -> bytes:
        """What the client has sent meanwhile, as it came."""
        return await self._reader.read(1 << 20)

    async def next(self, kind: type[P]) -> P:
        """The next packet of the client, which has to be of this kind."""
        packet = await self.packet()
        assert isinstance(packet, kind), packet
        return packet

    async def rest(self) -> list[Packet]:
        """All that the client sends until it closes."""
        packets: list[Packet] = []
        while True:
            try:
                packets.append(await self.packet())
            except (Closed, ConnectionError):
                return packets

    def send(self, *packets: Packet) -> None:
        self.send_bytes(b"".join(encode(packet, self.version) for packet in packets))

    def send_bytes(self, data: bytes) -> None:
        self._writer.write(data)

    async def welcome(self, connack: Connack | None = None) -> Connect:
        """Take CONNECT and answer it."""
        connect = await self.next(Connect)
        self.send(connack or Connack(False, 0))
        return connect

    def stop_reading(self) -> None:
        """Leave what the client sends in the network, until it is full."""
        self._writer.transport.pause_reading()  # type: ignore[attr-defined]  # of StreamWriter

    def close(self) -> None:
        """End the connection, when all is sent."""
        self._writer.close()

    def start_reading(self) -> None:
        """Take what the client sends again."""
        self._writer.transport.resume_reading()  # type: ignore[attr-defined]  # of StreamWriter

    def end(self) -> None:
        """Close the connection."""
        self._writer.close()

    def cut(self) -> None:
        """End the connection, without a word."""
        self._writer.transport.abort()

    async def lost(self) -> None:
        """The client has closed the connection; what it still sends is not looked at."""
        await self.rest()

    async def answer_pings(self) -> int:
        """Answer pings until the client sends something else; how many came."""
        count = 0
        while isinstance(await self.packet(), Pingreq):
            count += 1
            self.send(Pingresp())
        return count


class ScriptedServer:
    """Listens on a free port; ``accept`` gives each connection that comes."""

    def __init__(self) -> None:
        self.url = ""
        self.port = 0
        self._peers: asyncio.Queue[Peer] = asyncio.Queue()
        self._all: list[Peer] = []
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"mqtt://127.0.0.1:{self.port}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        for peer in self._all:
            peer.cut()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        self._all.append(peer)
        self._peers.put_nowait(peer)

    async def accept(self) -> Peer:
        """The next connection; nothing was read from it."""
        return await self._peers.get()

    @property
    def waiting(self) -> int:
        """How many connections nobody has accepted."""
        return self._peers.qsize()

    async def open(
        self,
        client: Client,
        connack: Connack | None = None,
        connects: list[Connect] | None = None,
    ) -> Peer:
        """Open a client, and be the server that welcomes it; ``connects`` gets the CONNECT."""
        opening = asyncio.create_task(client.open())
        peer = await self.accept()
        connect = await peer.welcome(connack)
        if connects is not None:
            connects.append(connect)
        await opening
        await client.connected()
        return peer


# --- a clock that jumps


class _JumpingSelector(selectors.DefaultSelector):
    """Waits in real time only for what has no time limit."""

    jumped_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            found: list[tuple[selectors.SelectorKey, int]] = super().select(PATIENCE_S)
            assert found, "nothing comes, and nothing is awaited that ends with time"
            return found
        found = super().select(min(timeout, QUIET_S))
        if not found:
            self.jumped_s += max(timeout, 0.0)
        return found


class JumpingLoop(asyncio.SelectorEventLoop):
    """A loop whose clock stands still while something happens, and jumps when nothing does."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.jumped_s


def play(scene: Coroutine[None, None, T]) -> T:
    """Run a scene on a clock that jumps."""
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(scene)


def properties_of(values: Mapping[str, object]) -> Properties:
    """A property set with these values, each named as in ``Properties``."""
    found = Properties()
    for name, value in values.items():
        assert hasattr(found, name), name
        setattr(found, name, value)
    return found


def connack(*, present: bool = False, code: int = 0, **values: object) -> Connack:
    """A CONNACK with these properties."""
    return Connack(present, code, properties_of(values) if values else None)
