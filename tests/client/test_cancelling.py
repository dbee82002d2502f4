"""Whoever gives up waiting leaves nothing behind, and who waits when the client closes is told."""

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import TypeVar

import pytest

from holdfast.client.client import Client
from holdfast.client.connection import REQUESTS_MAX
from holdfast.client.options import OutboxLimits
from holdfast.errors import ConnectionLost
from holdfast.protocol.packets import (
    Connack,
    Puback,
    Publish,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
)
from tests.support.properties import properties
from tests.support.scripted_server import Peer, ScriptedServer, play

T = TypeVar("T")


async def given_up(work: Awaitable[object]) -> None:
    """Wait for this for a time that is not enough."""
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(_of(work), 1)


async def _of(work: Awaitable[T]) -> T:
    return await work


async def started(work: Coroutine[object, object, T]) -> "asyncio.Task[T]":
    task = asyncio.create_task(work)
    await asyncio.sleep(0.1)
    return task


async def granted(peer: Peer, code: int = 1) -> Subscribe:
    packet = await peer.next(Subscribe)
    peer.send(Suback(packet.packet_id, [code] * len(packet.requests)))
    return packet


def test_a_publish_that_waits_for_room() -> None:
    async def scene() -> None:
        async with ScriptedServer() as server:
            limits = OutboxLimits(messages_max=2)
            client = Client(server.url, outbox_limits=limits)
            peer = await server.open(client)
            await client.publish("a", b"1", 1)
            await client.publish("a", b"2", 1)
            for _ in range(3):
                await given_up(client.publish("a", b"never", 1))
            assert not client.engine._room
            waiting = await started(client.publish("a", b"3", 1))
            first = await peer.next(Publish)
            await peer.next(Publish)
            peer.send(Puback(first.packet_id))
            third = await peer.next(Publish)
            assert third.payload == b"3" and third.packet_id == first.packet_id + 2
            await waiting
            await client.close(is_orderly=False)

    play(scene())


def test_a_receipt() -> None:
    """Its message is published all the same, its slot comes back, its callback is called once."""

    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url)
            peer = await server.open(client, Connack(False, 0, properties(receive_maximum=1)))
            receipt = await client.publish("a", b"1", 1)
            called: list[object] = []
            receipt.add_done_callback(called.append)
            for _ in range(3):
                await given_up(receipt)
            assert receipt._waiters == []
            second = await client.publish("a", b"2", 1)
            for one in (receipt, second):
                packet = await peer.next(Publish)
                assert packet.packet_id == one.packet_id
                peer.send(Puback(packet.packet_id))
            await second
            assert (await receipt).is_done
            await asyncio.sleep(0)
            assert called == [receipt]
            await client.close()

    play(scene())


def test_a_drain() -> None:
    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url)
            peer = await server.open(client)
            receipt = await client.publish("a", b"1", 1)
            for _ in range(3):
                with pytest.raises(TimeoutError, match="left after 1 s"):
                    await client.drain(timeout_s=1)
            assert not client.engine._drained
            peer.send(Puback(receipt.packet_id))
            await client.drain()
            await client.close()

    play(scene())


def test_a_wait_for_a_connection() -> None:
    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url)
            peer = await server.open(client)
            peer.cut()
            peer = await server.accept()  # and no CONNACK
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    await client.connected(timeout_s=1)
            assert not client._the_link._waiters
            await peer.welcome()
            await client.connected()
            await client.close()

    play(scene())


def test_a_subscription_whose_answer_is_not_waited_for() -> None:
    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url)
            peer = await server.open(client)
            subscription = client.subscribe("a", qos=1)
            for _ in range(3):
                await given_up(subscription)
                await given_up(anext(subscription))
            assert not subscription._confirmed
            await granted(peer)  # asked for once
            peer.send(Publish("a", b"1"))
            assert (await anext(subscription)).payload == b"1"
            await given_up(anext(subscription))
            peer.send(Publish("a", b"2"))
            assert (await anext(subscription)).payload == b"2"
            await client.close()

    play(scene())


def test_an_unsubscribe() -> None:
    """The answer that nobody waits for frees its identifier."""

    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url)
            peer = await server.open(client)
            for _ in range(3):
                await given_up(client.unsubscribe("a"))
                packet = await peer.next(Unsubscribe)
                peer.send(Unsuback(packet.packet_id, [0]))
            await client.publish("b", b"")
            await peer.next(Publish)
            assert not client._the_subscribing._asked
            assert client.engine.connection is not None
            assert not client.engine.connection._requests
            await client.close()

    play(scene())


def test_more_requests_than_identifiers_wait_for_answers() -> None:
    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url)
            peer = await server.open(client)
            count = REQUESTS_MAX + 10
            waiting = [
                asyncio.create_task(client.unsubscribe(f"t/{number}")) for number in range(count)
            ]
            asked = [await peer.next(Unsubscribe) for _ in range(REQUESTS_MAX)]
            before_s = asyncio.get_running_loop().time()
            await asyncio.sleep(1)  # nothing spins meanwhile: the clock could not jump
            assert asyncio.get_running_loop().time() > before_s
            assert len({packet.packet_id for packet in asked}) == REQUESTS_MAX
            for packet in asked:
                peer.send(Unsuback(packet.packet_id, [0]))
            for _ in range(10):
                packet = await peer.next(Unsubscribe)
                peer.send(Unsuback(packet.packet_id, [0]))
            assert await asyncio.gather(*waiting) == [[0]] * count
            await client.close()

    play(scene())


def test_all_who_wait_when_the_client_closes_are_told() -> None:
    async def scene() -> None:
        async with ScriptedServer() as server:
            limits = OutboxLimits(messages_max=1)
            client = Client(server.url, outbox_limits=limits)
            await server.open(client)
            receipt = await client.publish("a", b"1", 1)
            subscription = client.subscribe("a")
            stream = client.messages()
            waiting = [
                await started(_of(receipt)),
                await started(client.publish("a", b"2", 1)),
                await started(client.drain()),
                await started(client.unsubscribe("b")),
            ]
            loops = [await started(_of(anext(subscription))), await started(_of(anext(stream)))]
            await client.close(is_orderly=False)
            for task in waiting:
                with pytest.raises(ConnectionLost):
                    await task
            for loop in loops:
                with pytest.raises(StopAsyncIteration):
                    await loop
            for later in (client.connected(), client.unsubscribe("b"), client.drain()):
                with pytest.raises(ConnectionLost):
                    await later
            with pytest.raises(ConnectionLost):
                await receipt

    play(scene())


def test_who_waits_for_a_connection_when_the_client_closes() -> None:
    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url)
            peer = await server.open(client)
            peer.cut()
            peer = await server.accept()
            waiting = [await started(client.connected()), await started(client.unsubscribe("a"))]
            await client.close(is_orderly=False)
            for task in waiting:
                with pytest.raises(ConnectionLost):
                    await task

    play(scene())
