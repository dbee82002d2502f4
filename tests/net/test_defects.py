"""A defect of ours ends the connection that has met it, and costs nobody else anything.

The event loop itself only logs what a callback raises: some connections would stay, unread.
"""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from holdfast.broker.refusals import RefusalCounters
from holdfast.config import ListenAddress, ListenerSettings
from holdfast.config.listeners import WebSocketSettings
from holdfast.net.admission import AdmissionRules, Gate
from holdfast.net.arrival import Arrival
from holdfast.net.connection import NetConnection
from holdfast.net.gatekeeper import Gatekeeper
from holdfast.net.listener import listen
from tests.support.websocket import BINARY, frame, request
from tests.support.wire import PATIENCE_S


class Defect(Exception):
    """What nobody has thought of."""


class Broken(NetConnection):
    """MQTT that fails at its first bytes."""

    def __init__(self, arrival: Arrival) -> None:
        self.arrival = arrival

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        pass

    def data_received(self, data: bytes) -> None:
        raise Defect

    def connection_lost(self, exc: Exception | None) -> None:
        self.arrival.left()


def no_connection(arrival: Arrival) -> NetConnection:
    raise Defect


def serve(
    settings: ListenerSettings,
    make_connection: Callable[[Arrival], NetConnection],
    talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> list[object]:
    """Have a client talk to a listener of these connections; what the event loop was told of."""
    told: list[object] = []

    async def run() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: told.append(context.get("exception")))
        counters = RefusalCounters()
        gate = Gate(settings.title)
        gatekeeper = Gatekeeper(AdmissionRules(), {settings.title: gate}, counters, loop.time)
        listener = await listen(settings, make_connection, gatekeeper=gatekeeper)
        address = listener.addresses[0]
        assert isinstance(address, ListenAddress)
        reader, writer = await asyncio.open_connection(address.host, address.port)
        try:
            await asyncio.wait_for(talk(reader, writer), PATIENCE_S)
            assert gate.connections == counters.unauthenticated == 0
        finally:
            writer.close()
            listener.close()

    uvloop.run(run())
    return told


async def until_closed(reader: asyncio.StreamReader) -> None:
    try:
        await reader.read()
    except ConnectionError:
        pass


def test_a_connection_that_cannot_be_made_is_closed() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await until_closed(reader)

    settings = ListenerSettings(address=ListenAddress("127.0.0.1", 0))
    (told,) = serve(settings, no_connection, talk)
    assert isinstance(told, Defect)


@pytest.mark.parametrize("size", [10, 200_000])
def test_a_connection_that_cannot_take_its_input_is_closed(size: int) -> None:
    """A WebSocket takes what is much in parts, the later ones from no callback of the socket."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(request())
        await reader.readuntil(b"\r\n\r\n")
        writer.write(frame(bytes(size), BINARY))
        await until_closed(reader)

    settings = ListenerSettings(
        address=ListenAddress("127.0.0.1", 0), websocket=WebSocketSettings()
    )
    told = serve(settings, Broken, talk)  # twice, where what is left is read at the end
    assert {type(one) for one in told} == {Defect}
