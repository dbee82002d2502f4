"""What closing a client is, and is not."""

import asyncio

from holdfast import Client, HoldfastError
from tests.support.broker import BrokerProcess


def test_a_client_that_is_closed_has_lost_nothing(broker: BrokerProcess, name: str) -> None:
    told: list[HoldfastError] = []

    async def live() -> None:
        url = f"mqtt://127.0.0.1:{broker.port}"
        async with Client(url, on_disconnect=lambda _, error: told.append(error)) as client:
            await client.publish(name, b"last")

    asyncio.run(live())
    assert told == []
