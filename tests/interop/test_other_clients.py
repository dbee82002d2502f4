"""Holdfast's broker with aiomqtt and gmqtt, and these with our client.

What paho-mqtt, MQTT.js and mosquitto_sub do is in tests/scenarios.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Final

import pytest

from holdfast import Client
from holdfast.client.options import Version
from tests.interop.other_clients import Aiomqtt, Gmqtt, OtherClient
from tests.support.broker import BrokerProcess
from tests.support.packets import V5
from tests.support.process import PATIENCE_S

MakeOther = Callable[..., OtherClient]
OTHERS: Final[list[MakeOther]] = [Aiomqtt, Gmqtt]


@pytest.fixture(params=OTHERS, ids=["aiomqtt", "gmqtt"])
def make(request: pytest.FixtureRequest) -> MakeOther:
    """The client of somebody else."""
    made: MakeOther = request.param
    return made


def run(story: Coroutine[object, object, None]) -> None:
    asyncio.run(asyncio.wait_for(story, 2 * PATIENCE_S))


def ours(broker: BrokerProcess, level: int) -> Client:
    version: Version = "5.0" if level == V5 else "3.1.1"
    return Client(f"mqtt://127.0.0.1:{broker.port}", version=version)


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_every_qos_both_ways(
    broker: BrokerProcess, make: MakeOther, level: int, name: str, qos: int
) -> None:
    texts = [str(i) for i in range(50)]

    async def story() -> None:
        async with ours(broker, level) as client, make(broker.port, level, name) as other:
            messages = await client.subscribe(f"{name}/to-us", qos=qos)
            await other.subscribe(f"{name}/to-them", qos)
            for text in texts:
                await client.publish(f"{name}/to-them", text, qos=qos)
                await other.publish(f"{name}/to-us", text.encode(), qos)
            for text in texts:
                taken = await other.take()
                assert (taken.payload.decode(), taken.qos) == (text, qos)
                message = await messages.get(PATIENCE_S)
                assert (message.text, message.qos) == (text, qos)

    run(story())


@pytest.mark.parametrize("qos", [1, 2])
def test_a_session_goes_on(
    broker: BrokerProcess, make: MakeOther, level: int, name: str, qos: int
) -> None:
    texts = [str(i) for i in range(20)]

    async def story() -> None:
        async with make(broker.port, level, name) as other:
            assert not other.session_present
            await other.subscribe(f"{name}/#", qos)
            await other.die()
        async with ours(broker, level) as client:
            for text in texts:
                await client.publish(f"{name}/a", text, qos=qos)
        async with make(broker.port, level, name) as other:
            assert [(await other.take()).payload.decode() for _ in texts] == texts
            assert other.session_present

    run(story())


def test_retained(broker: BrokerProcess, make: MakeOther, level: int, name: str) -> None:
    async def story() -> None:
        async with make(broker.port, level, name) as other, ours(broker, level) as client:
            await other.publish(f"{name}/theirs", b"kept", 1, retain=True)
            await (await client.publish(f"{name}/ours", b"kept", qos=1, retain=True))
            messages = await client.subscribe(f"{name}/theirs", qos=1)
            assert (await messages.get(PATIENCE_S)).retain
            await other.subscribe(f"{name}/ours", 1)
            taken = await other.take()
            assert (taken.payload, taken.retain) == (b"kept", True)

    run(story())


def test_a_will(broker: BrokerProcess, make: MakeOther, level: int, name: str) -> None:
    async def story() -> None:
        async with ours(broker, level) as client:
            messages = await client.subscribe(f"{name}/will", qos=1)
            async with make(broker.port, level, name, will=f"{name}/will") as other:
                await other.die()
                assert (await messages.get(PATIENCE_S)).text == "gone"

    run(story())


def test_the_properties_of_5_0(broker: BrokerProcess, make: MakeOther, name: str) -> None:
    pairs = [("a", "1"), ("b", "2")]

    async def story() -> None:
        async with ours(broker, V5) as client, make(broker.port, V5, name) as other:
            messages = await client.subscribe(f"{name}/to-us", qos=1)
            await other.subscribe(f"{name}/to-them", 1)
            await other.publish(f"{name}/to-us", b"x", 1, user_properties=pairs, content_type="a/b")
            message = await messages.get(PATIENCE_S)
            assert (message.user_properties, message.content_type) == (pairs, "a/b")
            await client.publish(
                f"{name}/to-them", b"x", qos=1, user_properties=pairs, content_type="a/b"
            )
            taken = await other.take()
            assert (taken.user_properties, taken.content_type) == (pairs, "a/b")

    run(story())
