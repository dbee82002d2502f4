"""A proxy between clients and a broker that sees each packet, and does what a trap says at one."""

import asyncio
from collections.abc import Callable
from typing import Final, final

from holdfast.protocol.decode import decode
from holdfast.protocol.framer import PACKET_BYTES_MAX, Framer
from holdfast.protocol.packets import CONNECT, PACKET_NAMES, Connect
from tests.sim.describe import describe_any

HOST: Final = "127.0.0.1"
UP, DOWN = "up", "down"  # from the client, to it


@final
class Trap:
    """At the ``nth`` packet of this name in this direction: stop, or let it pass and then stop.

    Nothing passes any more on that connection, in either direction; ``spring`` is called, and the
    connection is ended.
    """

    def __init__(
        self,
        client_id: str,
        direction: str,
        name: str,
        nth: int,
        when: str,
        spring: Callable[[], None],
    ) -> None:
        self.client_id = client_id
        self.direction = direction
        self.name = name
        self.left = nth
        self.when = when
        self.spring = spring
        self.sprung = asyncio.Event()

    def __repr__(self) -> str:
        return f"{self.when} {self.name} {self.direction}"


@final
class Proxy:
    """See above. ``traps`` has at most one for each client."""

    def __init__(self, broker_port: int) -> None:
        self.port = 0
        self.traps: dict[str, Trap] = {}
        self.packets: list[str] = []  # that were passed on, and which were not
        self._broker_port = broker_port
        self._links: set[_Link] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await self._server.wait_closed()

    def cut(self, client_id: str = "") -> None:
        """Break the connections of this client, or all."""
        for link in list(self._links):
            if client_id in ("", link.client_id):
                link.end()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            broker = await asyncio.open_connection(HOST, self._broker_port)
        except OSError:
            writer.transport.abort()
            return
        link = _Link(self, writer, broker[1])
        self._links.add(link)
        try:
            await asyncio.gather(
                link.pump(UP, reader, broker[1]), link.pump(DOWN, broker[0], writer)
            )
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            link.end()
            self._links.discard(link)


@final
class _Link:
    """One connection through the proxy."""

    def __init__(
        self, proxy: Proxy, client: asyncio.StreamWriter, broker: asyncio.StreamWriter
    ) -> None:
        self.client_id = ""
        self._version = 5
        self._proxy = proxy
        self._writers = (client, broker)
        self._is_over = False

    def end(self) -> None:
        """Both ends find a broken connection."""
        self._is_over = True
        for writer in self._writers:
            writer.transport.abort()

    async def pump(
        self, direction: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        framer = Framer(PACKET_BYTES_MAX)
        while (data := await reader.read(65_536)) and not self._is_over:
            framer.feed(data)
            while not writer.is_closing() and not self._is_over and framer.next_frame():
                self._pass_on(direction, framer, writer)
            await writer.drain()
        self.end()

    def _pass_on(self, direction: str, framer: Framer, writer: asyncio.StreamWriter) -> None:
        frame = framer.buffer[framer.start : framer.end]
        kind = frame[0] >> 4
        if kind == CONNECT:
            connect = decode(framer.buffer, framer.start, framer.end, 5)
            assert isinstance(connect, Connect)
            self.client_id = connect.client_id
            self._version = connect.version
        arrow = "->" if direction == UP else "<-"
        packet = decode(framer.buffer, framer.start, framer.end, self._version)
        self._proxy.packets.append(f"{self.client_id} {arrow} {describe_any(packet)}")
        trap = self._proxy.traps.get(self.client_id)
        if trap is None or trap.direction != direction or trap.name != PACKET_NAMES[kind]:
            writer.write(frame)
            return
        trap.left -= 1
        if trap.left > 0:
            writer.write(frame)
            return
        del self._proxy.traps[self.client_id]
        if trap.when == "after":
            writer.write(frame)
        self._proxy.packets.append(f"the end, {trap}")
        self._is_over = True
        trap.spring()
        trap.sprung.set()
        # What was written is on its way; then there is nothing more.
        for one in self._writers:
            one.close()
