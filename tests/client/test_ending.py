"""What ends a client for good, and what those learn who wait."""

import asyncio
from pathlib import Path

import pytest

from holdfast import Client, ConnectionLost, Refused, UsageError, Will
from holdfast.client.outgoing import FAILED, Outgoing
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
    def broken() -> None:
        raise ZeroDivisionError

    async def run() -> None:
        async with Client(f"mqtt://127.0.0.1:{broker.port}") as client:
            messages = await client.subscribe(f"{name}/#")
            waiting = asyncio.ensure_future(anext(messages))
            receipt = client.publish_nowait(name, qos=1)
            client.engine._pump = broken  # type: ignore[method-assign]  # for want of a real one
            with pytest.raises(ConnectionLost, match="defect"):
                await waiting
            with pytest.raises(ConnectionLost, match="defect"):
                await client.publish(name)
            assert not receipt.is_done

    with pytest.raises(ConnectionLost, match=r"not acknowledged .*: 1 message"):
        asyncio.run(run())
    assert "stopped by a defect" in caplog.text


def test_a_timeout_says_what_has_not_come(broker: BrokerProcess, name: str) -> None:
    async def run() -> None:
        async with Client(f"mqtt://127.0.0.1:{broker.port}") as client:
            messages = await client.subscribe(f"{name}/#")
            with pytest.raises(TimeoutError, match=r"no message came within 0\.01 s"):
                await messages.get(timeout_s=0.01)

    asyncio.run(run())


def test_a_timeout_without_a_connection_says_why_there_is_none(tmp_path: Path) -> None:
    async def run() -> None:
        async with Client("unix:///nobody/there", outbox=tmp_path / "meter.db") as client:
            with pytest.raises(TimeoutError, match=r"not connected within 0\.2 s: unix:.*no such"):
                await client.connected(timeout_s=0.2)
            with pytest.raises(
                TimeoutError, match=r"no answer within 0\.2 s: not connected: unix:"
            ):
                await client.request("service", timeout_s=0.2)
            receipt = await client.publish("a", qos=1)
        assert str(receipt.error) == (
            "the client was closed before that was done; what is in the outbox file stays there"
        )
        with pytest.raises(UsageError, match="opened once: make another one"):
            await client.open()

    asyncio.run(run())


def test_a_publish_from_another_thread_is_refused(broker: BrokerProcess, name: str) -> None:
    """It would not be sent before something else happens, and could break what happens then."""

    async def run() -> None:
        async with Client(f"mqtt://127.0.0.1:{broker.port}") as client:
            with pytest.raises(UsageError, match=r"belongs to the event loop .* a SyncClient"):
                await asyncio.to_thread(client.publish_nowait, name)
            with pytest.raises(UsageError, match=r"belongs to the event loop .* a SyncClient"):
                await asyncio.to_thread(asyncio.run, client.publish(name))
            assert client.outbox.is_empty
            await (await client.publish(name, qos=1))

    asyncio.run(run())


def test_a_wrong_type_for_connect_is_the_callers_mistake() -> None:
    with pytest.raises(UsageError, match="cannot go into CONNECT: a wrong type"):
        Client(keep_alive_s=1.5)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="cannot go into CONNECT: a wrong type"):
        Client(user_properties={"a": "b"})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="cannot go into CONNECT: a wrong type"):
        Client(will=Will(topic="a", payload=7))  # type: ignore[arg-type]


def test_a_message_that_no_publish_can_carry_holds_up_no_other(
    broker: BrokerProcess, name: str
) -> None:
    async def run() -> None:
        async with Client(f"mqtt://127.0.0.1:{broker.port}") as client:
            # No caller can publish it; an outbox file that something else has written may have it.
            bad = Outgoing("a" * 65_536, b"", 1, False, None, 0, 0)
            client.engine.accept(bad)
            await (await client.publish(name, qos=1))
            assert bad.stage == FAILED
            assert "no PUBLISH can carry it" in bad.reason

    asyncio.run(run())
