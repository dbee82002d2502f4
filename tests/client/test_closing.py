"""What closing a client is, and is not."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast import Client, ConnectionLost, HoldfastError, Receipt, Reconnect, Server
from tests.support.broker import BrokerProcess


def test_a_client_that_is_closed_has_lost_nothing(broker: BrokerProcess, name: str) -> None:
    told: list[HoldfastError] = []

    async def live() -> None:
        url = f"mqtt://127.0.0.1:{broker.port}"
        async with Client(url, on_disconnect=lambda _, error: told.append(error)) as client:
            await client.publish(name, b"last")

    asyncio.run(live())
    assert told == []


def start(server: Server) -> Callable[[Client, HoldfastError], None]:
    """Start it again at the second thing that goes wrong: the client has looked for it then."""
    wrong = 0

    def on_disconnect(client: Client, error: HoldfastError) -> None:
        nonlocal wrong
        wrong += 1
        if wrong == 2:
            starting.append(asyncio.ensure_future(server.start()))

    starting: list[asyncio.Task[None]] = []
    return on_disconnect


def test_what_is_in_memory_waits_for_a_connection() -> None:
    async def live() -> Receipt:
        async with Server() as server:
            soon = Reconnect(delay_min_s=0.01, delay_max_s=0.01)
            async with Client(server.url, reconnect=soon, on_disconnect=start(server)) as client:
                await server.stop()
                return await client.publish("a", qos=1)

    assert asyncio.run(live()).stage == "done"


def test_what_is_in_memory_and_finds_no_connection_is_counted() -> None:
    async def live() -> None:
        async with Server() as server:
            client = Client(server.url, close_timeout_s=0.1)
            await client.open()
            await server.stop()
            await client.publish("a", qos=1)
            with pytest.raises(ConnectionLost, match="when the client closed: 1 message"):
                await client.close()

    asyncio.run(live())


def test_what_is_in_a_file_waits_for_none(tmp_path: Path) -> None:
    async def live() -> None:
        url, path = "unix:///nobody/there", tmp_path / "meter.db"
        async with asyncio.timeout(30), Client(url, outbox=path, close_timeout_s=60) as client:
            await client.publish("a", qos=1)

    asyncio.run(live())
