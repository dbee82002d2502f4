"""What ends a client for good, and what those learn who wait."""

import asyncio

import pytest

from holdfast import Client, ConnectionLost, Refused, UsageError
from holdfast.client.outgoing import Outgoing
from holdfast.protocol.reason_codes import SESSION_TAKEN_OVER
from tests.support.broker import BrokerProcess

pytestmark = pytest.mark.timeout(30)


def test_a_client_whose_session_is_taken_over_stops_and_tells_everyone(
    broker: BrokerProcess, name: str
) -> None:
    async def run() -> None:
        url = f"mqtt://127.0.0.1:{broker.port}"
        async with Client(url, client_id=name) as first:
            messages = await first.subscribe(f"{name}/#")
            waiting = asyncio.ensure_future(anext(messages))
            await asyncio.sleep(0)
            async with Client(url, client_id=name):
                with pytest.raises(Refused) as told:
                    await waiting
                assert told.value.reason_code == SESSION_TAKEN_OVER
                for later in (first.publish(name), first.drain(), first.connected()):
                    with pytest.raises(Refused):
                        await later
                assert not first.is_connected

    asyncio.run(run())


def test_two_tasks_cannot_wait_for_one_stream(broker: BrokerProcess, name: str) -> None:
    async def run() -> None:
        async with Client(f"mqtt://127.0.0.1:{broker.port}") as client:
            messages = await client.subscribe(f"{name}/#")
            waiting = asyncio.ensure_future(anext(messages))
            await asyncio.sleep(0)
            with pytest.raises(UsageError):
                await anext(messages)
            await client.publish(f"{name}/a", "1")
            assert (await waiting).text == "1"

    asyncio.run(run())


def test_a_defect_is_told_to_all_who_wait(
    broker: BrokerProcess, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        async with Client(f"mqtt://127.0.0.1:{broker.port}") as client:
            messages = await client.subscribe(f"{name}/#")
            waiting = asyncio.ensure_future(anext(messages))
            await asyncio.sleep(0)
            # No caller can publish it, and no PUBLISH carry it.
            client.engine.accept(Outgoing("a" * 65_536, b"", 1, False, None, 0, 0))
            with pytest.raises(ConnectionLost, match="defect"):
                await waiting
            with pytest.raises(ConnectionLost, match="defect"):
                await client.publish(name)

    with pytest.raises(ConnectionLost, match=r"not acknowledged .*: 1 message"):
        asyncio.run(run())
    assert "stopped by a defect" in caplog.text
