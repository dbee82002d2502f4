"""The streams that messages are taken from: when they are acknowledged, and what nobody wants."""

import asyncio

import pytest

from holdfast.client.client import Client
from holdfast.client.subscription import Subscription
from holdfast.errors import ConnectionLost
from holdfast.protocol.packets import (
    Connack,
    Puback,
    Publish,
    Pubrec,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
)
from tests.support.properties import properties
from tests.support.scripted_server import Peer, ScriptedServer, play


async def subscribed(client: Client, peer: Peer, topic_filter: str = "a") -> Subscription:
    subscription = client.subscribe(topic_filter, qos=2)
    waiting = asyncio.ensure_future(subscription._subscribed())
    packet = await peer.next(Subscribe)
    peer.send(Suback(packet.packet_id, [2]))
    return await waiting


def q1(packet_id: int, topic: str = "a") -> Publish:
    return Publish(topic, b"%d" % packet_id, 1, packet_id=packet_id)


async def nothing_comes(peer: Peer) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(peer.packet(), 1)


def test_qos_1_is_acknowledged_when_the_next_message_is_asked_for() -> None:
    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url)
            peer = await server.open(client)
            subscription = await subscribed(client, peer)
            peer.send(q1(1), q1(2))
            assert (await anext(subscription)).payload == b"1"
            await nothing_comes(peer)
            assert (await anext(subscription)).payload == b"2"
            assert (await peer.next(Puback)).packet_id == 1
            await nothing_comes(peer)
            await client.close()  # the application is done with the last one then
            assert [type(packet).__name__ for packet in await peer.rest()] == [
                "Puback",
                "Disconnect",
            ]

    play(scene())


def test_qos_2_is_acknowledged_when_it_is_handed_over() -> None:
    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url)
            peer = await server.open(client)
            subscription = await subscribed(client, peer)
            peer.send(Publish("a", b"1", 2, packet_id=7))
            await nothing_comes(peer)
            await anext(subscription)
            assert (await peer.next(Pubrec)).packet_id == 7
            await client.close()

    play(scene())


def test_with_manual_ack_the_application_says_when() -> None:
    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url, manual_ack=True)
            peer = await server.open(client)
            subscription = await subscribed(client, peer)
            peer.send(q1(1), Publish("a", b"2", 2, packet_id=2), q1(3), Publish("a", b"4"))
            messages = [await anext(subscription) for _ in range(4)]
            await nothing_comes(peer)
            await messages[3].ack()
            await messages[2].ack()
            await nothing_comes(peer)  # 1 comes first
            await messages[1].ack()
            assert (await peer.next(Pubrec)).packet_id == 2
            await messages[0].ack()
            await messages[0].ack()
            assert (await peer.next(Puback)).packet_id == 1
            assert (await peer.next(Puback)).packet_id == 3
            await nothing_comes(peer)
            await client.close()

    play(scene())


def test_leaving_the_loop_leaves_the_subscription() -> None:
    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url)
            peer = await server.open(client)
            subscription = await subscribed(client, peer)
            peer.send(q1(1), q1(2), q1(3))
            found = []
            async for message in subscription:
                found.append(message.payload)
                break
            async for message in subscription:
                found.append(message.payload)
                if len(found) == 3:
                    break
            assert found == [b"1", b"2", b"3"]
            await client.close()

    play(scene())


def test_what_came_before_an_unsubscribe_can_be_taken() -> None:
    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url)
            peer = await server.open(client)
            subscription = await subscribed(client, peer)
            peer.send(q1(1), q1(2))
            assert (await anext(subscription)).payload == b"1"
            leaving = asyncio.create_task(subscription.unsubscribe())
            packet = await peer.next(Unsubscribe)
            peer.send(Unsuback(packet.packet_id, [0]))
            await leaving
            assert [message.payload async for message in subscription] == [b"2"]
            assert [(await peer.next(Puback)).packet_id for _ in range(2)] == [1, 2]
            await client.close()

    play(scene())


def test_a_loop_ends_when_the_client_closes() -> None:
    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url)
            peer = await server.open(client)
            subscription = await subscribed(client, peer)

            async def count() -> int:
                return len([message async for message in subscription])

            counting = asyncio.create_task(count())
            peer.send(Publish("a", b""), Publish("a", b""))
            await asyncio.sleep(1)
            await client.close()
            assert await counting == 2
            with pytest.raises(ConnectionLost):
                await subscription.get()

    play(scene())


def test_what_no_subscription_wants_waits_for_one() -> None:
    """It is not acknowledged meanwhile: a session of before may bring it before it is wanted."""

    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url, client_id="c")
            peer = await server.open(client, Connack(True, 0))
            peer.send(q1(1, "a"), q1(2, "b"), Publish("b", b"0"), q1(3, "a"))
            await nothing_comes(peer)
            subscription = await subscribed(client, peer, "a")
            found = [(await anext(subscription)).payload for _ in range(2)]
            assert found == [b"1", b"3"]
            assert (await peer.next(Puback)).packet_id == 1
            stream = client.messages()
            assert client.messages() is stream
            found = [(await anext(stream)).payload for _ in range(2)]
            assert found == [b"2", b"0"]
            assert (await peer.next(Puback)).packet_id == 2
            peer.send(Publish("c", b"now"))
            assert (await anext(stream)).payload == b"now"
            await client.close()

    play(scene())


def test_a_message_for_two_is_acknowledged_when_both_are_done() -> None:
    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url, version="3.1.1")
            peer = await server.open(client)
            first = await subscribed(client, peer, "a")
            second = await subscribed(client, peer, "+")
            peer.send(q1(1), q1(2))
            for subscription in (first, second):
                await anext(subscription)
            await anext(first)
            await nothing_comes(peer)
            await anext(second)
            assert (await peer.next(Puback)).packet_id == 1
            await client.close(is_orderly=False)

    play(scene())


def test_a_slow_application_loses_messages_of_qos_0_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("holdfast.client.subscription.QUEUED_MAX", 3)

    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url)
            peer = await server.open(client)
            subscription = await subscribed(client, peer)
            peer.send(*(Publish("a", b"%d" % number) for number in range(5)), q1(9))
            await asyncio.sleep(1)
            assert (subscription.queued, subscription.dropped) == (4, 2)
            found = [(await anext(subscription)).payload for _ in range(4)]
            assert found == [b"0", b"1", b"2", b"9"]
            await client.close()

    play(scene())
    assert caplog.text.count("messages of QoS 0 are dropped") == 1


async def numbered(client: Client, peer: Peer, topic_filter: str) -> tuple[Subscription, int]:
    """A subscription, and its Subscription Identifier."""
    subscription = client.subscribe(topic_filter, qos=1)
    waiting = asyncio.ensure_future(subscription._subscribed())
    packet = await peer.next(Subscribe)
    peer.send(Suback(packet.packet_id, [1]))
    await waiting
    assert packet.properties is not None
    return subscription, packet.properties.subscription_identifiers[0]


def test_overlapping_subscriptions_get_what_the_server_says() -> None:
    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url)
            peer = await server.open(client)
            wide, wide_id = await numbered(client, peer, "a/#")
            narrow, narrow_id = await numbered(client, peer, "a/b")
            for identifiers in ([wide_id, narrow_id], [wide_id], [narrow_id], [999], []):
                found = properties(subscription_identifiers=identifiers)
                payload = b"%d" % len(identifiers)
                peer.send(Publish("a/b", payload, properties=found))
            await asyncio.sleep(1)
            assert (wide.queued, narrow.queued) == (4, 4)
            await client.close()

    play(scene())


def test_the_same_filter_twice_brings_each_message_to_both() -> None:
    """The server has one subscription then, with the identifier of the later one."""

    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url)
            peer = await server.open(client)
            first, _ = await numbered(client, peer, "a/+")
            second, identifier = await numbered(client, peer, "a/+")
            other, _ = await numbered(client, peer, "a/b")
            peer.send(
                Publish("a/b", b"", properties=properties(subscription_identifiers=[identifier]))
            )
            await asyncio.sleep(1)
            queued = [one.queued for one in (first, second, other)]
            assert queued == [1, 1, 0]
            await client.close()

    play(scene())
