"""A client that has ended, or is being ended: nobody waits for ever, and nothing stays held."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import TypeVar

import pytest

from holdfast.client.client import Client
from holdfast.errors import ConnectionLost, HoldfastError, Refused
from holdfast.protocol.packets import Connack, Disconnect, Publish
from holdfast.protocol.reason_codes import SESSION_TAKEN_OVER
from tests.support.scripted_server import PATIENCE_S, ScriptedServer, play

T = TypeVar("T")


def in_time(work: Coroutine[None, None, T]) -> T:
    """Run this in real time, which it must not take much of."""
    return asyncio.run(asyncio.wait_for(work, PATIENCE_S))


@pytest.mark.parametrize("is_taken_over", [False, True])
def test_who_comes_after_the_end_is_told(is_taken_over: bool) -> None:
    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url)
            peer = await server.open(client)
            if is_taken_over:
                peer.send(Disconnect(SESSION_TAKEN_OVER))
                await peer.lost()
            else:
                await client.close()
            kind: type[HoldfastError] = Refused if is_taken_over else ConnectionLost
            with pytest.raises(kind):
                await client.subscribe("a")
            with pytest.raises(kind):
                await anext(client.subscribe("a"))
            with pytest.raises(kind):
                await anext(client.messages())
            with pytest.raises(kind):
                await client.request("a")
            await client.close()

    play(scene())


def test_a_subscription_that_the_server_never_granted_is_not_taken_for_granted() -> None:
    """Neither when the client is closed, nor when it is unsubscribed by another task."""

    async def scene() -> None:
        async with ScriptedServer() as server:
            for is_closed in (True, False):
                client = Client(server.url)
                await server.open(client)
                waiting = asyncio.create_task(_subscribed(client))
                await asyncio.sleep(0)
                ends = client.close(is_orderly=False) if is_closed else _unsubscribed(client)
                ending = asyncio.create_task(ends)
                with pytest.raises(ConnectionLost):
                    await waiting
                ending.cancel()
                await client.close(is_orderly=False)

    play(scene())


async def _subscribed(client: Client) -> None:
    await client.subscribe("a")


async def _unsubscribed(client: Client) -> None:
    await client.unsubscribe("a")


def test_a_client_whose_closing_is_given_up_holds_nothing(tmp_path: Path) -> None:
    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url, outbox=tmp_path / "meter.db")
            await server.open(client)
            await client.publish("a", b"1", 1)
            closing = asyncio.create_task(client.close())
            await asyncio.sleep(0)
            closing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await closing
            async with Client(server.url, outbox=tmp_path / "meter.db") as other:
                assert other.outbox.messages == 1
                await other.close(is_orderly=False)
            assert {task.get_name() for task in asyncio.all_tasks()} & {"holdfast-link"} == set()

    in_time(scene())


def test_closing_again_waits_for_nothing(tmp_path: Path) -> None:
    """What the application does after the end promises nothing, and is not waited for."""

    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url, outbox=tmp_path / "inbox.db", manual_ack=True)
            peer = await server.open(client, Connack(True, 0))
            peer.send(Publish("a", b"command", qos=2, packet_id=7))
            message = await client.messages().get()
            await client.close()
            with pytest.raises(ConnectionLost):
                await message.ack()
            await asyncio.sleep(0)
            await client.close()

    in_time(scene())
