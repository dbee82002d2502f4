"""The client runs on uvloop as well, whose transports are no ``asyncio.Transport`` by class."""

import asyncio

import uvloop

from holdfast import Client
from tests.support.broker import BrokerProcess


def test_a_message_goes_out_and_comes_back_on_uvloop(broker: BrokerProcess, name: str) -> None:
    async def there_and_back() -> bytes:
        async with Client(f"mqtt://127.0.0.1:{broker.port}", client_id=name) as client:
            subscription = await client.subscribe(name, qos=2)
            await (await client.publish(name, b"42", qos=2))
            async for message in subscription:
                return message.payload
        raise AssertionError("the subscription ended")

    async def within_time() -> bytes:
        async with asyncio.timeout(30):
            return await there_and_back()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(within_time()) == b"42"
