"""Request and response: which answer is for which request, and what becomes of the others."""

import asyncio

import pytest

from holdfast.client.client import Client
from holdfast.errors import ConnectionLost, Refused, UsageError
from holdfast.message import Properties
from holdfast.protocol.packets import Connack, Puback, Publish, Suback, Subscribe
from holdfast.protocol.reason_codes import NO_MATCHING_SUBSCRIBERS
from tests.support.properties import properties
from tests.support.scripted_server import Peer, ScriptedServer, play


async def granted(peer: Peer, code: int = 1) -> Subscribe:
    packet = await peer.next(Subscribe)
    peer.send(Suback(packet.packet_id, [code] * len(packet.requests)))
    return packet


def answer_to(packet: Publish, payload: bytes) -> Publish:
    assert packet.properties is not None
    assert packet.properties.response_topic is not None
    own = Properties()
    own.correlation_data = packet.properties.correlation_data
    return Publish(packet.properties.response_topic, payload, properties=own)


def test_requests_at_once_get_each_its_own_answer() -> None:
    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url, client_id="me")
            peer = await server.open(
                client, Connack(False, 0, properties(response_information="answers/"))
            )
            waiting = [
                asyncio.create_task(client.request("svc", b"%d" % number)) for number in range(5)
            ]
            packet = await granted(peer)
            assert packet.requests[0].topic_filter == "answers/me"
            asked = [await peer.next(Publish) for _ in range(5)]
            for request in reversed(asked):
                peer.send(answer_to(request, request.payload * 2), answer_to(request, b"again"))
            answers = [(await task).payload for task in waiting]
            assert answers == [b"00", b"11", b"22", b"33", b"44"]
            assert not client._requests._waiting
            await client.close(is_orderly=False)

    play(scene())


def test_a_request_that_nobody_can_answer_says_so_at_its_end() -> None:
    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url)
            peer = await server.open(client)
            waiting = asyncio.create_task(client.request("svc", b"1", timeout_s=5))
            await granted(peer)
            peer.send(Puback((await peer.next(Publish)).packet_id, NO_MATCHING_SUBSCRIBERS))
            said = r"^no answer within 5 s: nobody has subscribed to the topic of the request$"
            with pytest.raises(TimeoutError, match=said):
                await waiting
            await client.close(is_orderly=False)

    play(scene())


def test_a_request_that_is_given_up_gets_no_later_answer() -> None:
    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url)
            peer = await server.open(client)
            waiting = asyncio.create_task(client.request("svc", b"1", timeout_s=5))
            await granted(peer)
            first = await peer.next(Publish)
            peer.send(Puback(first.packet_id))
            with pytest.raises(TimeoutError, match=r"^no answer within 5 s$"):
                await waiting
            cancelled = asyncio.create_task(client.request("svc", b"2"))
            second = await peer.next(Publish)
            peer.send(Puback(second.packet_id))
            await asyncio.sleep(1)
            cancelled.cancel()
            await asyncio.wait([cancelled])
            assert not client._requests._waiting
            waiting = asyncio.create_task(client.request("svc", b"3"))
            third = await peer.next(Publish)
            peer.send(Puback(third.packet_id))
            for late in (first, second):
                peer.send(answer_to(late, b"late"))
            peer.send(Publish(answer_to(third, b"").topic, b"without correlation"))
            peer.send(answer_to(third, b"right"))
            assert (await waiting).payload == b"right"
            await client.close()

    play(scene())


def test_a_response_topic_is_a_topic_whatever_the_client_is_called() -> None:
    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url, client_id="a+b/#")
            peer = await server.open(client)
            waiting = asyncio.create_task(client.request("svc", b""))
            packet = await granted(peer)
            assert packet.requests[0].topic_filter == "holdfast/response/a%2Bb%2F%23"
            request = await peer.next(Publish)
            peer.send(answer_to(request, b"1"))
            assert (await waiting).payload == b"1"
            await client.close(is_orderly=False)

    play(scene())


def test_a_refused_response_topic_is_asked_for_again_by_the_next_request() -> None:
    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url)
            peer = await server.open(client)
            waiting = asyncio.create_task(client.request("svc", b""))
            await granted(peer, 0x87)
            with pytest.raises(Refused):
                await waiting
            peer.cut()
            peer = await server.accept()
            await peer.welcome()
            await client.connected()
            waiting = asyncio.create_task(client.request("svc", b""))
            await granted(peer)
            request = await peer.next(Publish)
            peer.send(answer_to(request, b"1"))
            assert (await waiting).payload == b"1"
            await client.close(is_orderly=False)

    play(scene())


def test_answers_are_read_again_after_their_subscription_was_refused_for_a_time() -> None:
    """When it was renewed in new sessions: nobody asked for anything meanwhile."""

    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url)
            peer = await server.open(client)
            for code in (1, 0x87, 1):
                if code == 1:
                    waiting = asyncio.create_task(client.request("svc", timeout_s=5))
                    await granted(peer)
                    request = await peer.next(Publish)
                    peer.send(Puback(request.packet_id), answer_to(request, b"here"))
                    assert (await waiting).payload == b"here"
                    peer.cut()
                else:
                    await granted(peer, code)
                    await asyncio.sleep(1)
                    peer.cut()
                peer = await server.accept()
                await peer.welcome()
                await client.connected()
            await client.close(is_orderly=False)

    play(scene())


def test_a_refused_request_has_no_answer() -> None:
    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url)
            peer = await server.open(client)
            waiting = asyncio.create_task(client.request("svc", b""))
            await granted(peer)
            request = await peer.next(Publish)
            peer.send(Puback(request.packet_id, 0x87))
            with pytest.raises(Refused):
                await waiting
            assert not client._requests._waiting
            await client.close()

    play(scene())


def test_a_request_under_way_when_the_client_closes() -> None:
    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url)
            peer = await server.open(client)
            waiting = asyncio.create_task(client.request("svc", b""))
            await granted(peer)
            await peer.next(Publish)
            await client.close(is_orderly=False)
            with pytest.raises(ConnectionLost):
                await waiting
            await asyncio.sleep(1)
            assert not client._requests._readers

    play(scene())


def test_an_answer_of_qos_1_is_acknowledged() -> None:
    async def scene() -> None:
        for manual_ack in (False, True):
            async with ScriptedServer() as server:
                client = Client(server.url, manual_ack=manual_ack)
                peer = await server.open(client)
                for number in range(1, 4):
                    waiting = asyncio.create_task(client.request("svc", b"", qos=0))
                    if number == 1:
                        await granted(peer)
                    request = await peer.next(Publish)
                    answer = answer_to(request, b"1")
                    answer.qos, answer.packet_id = 1, number
                    peer.send(answer)
                    await waiting
                    acknowledged = await peer.next(Puback)
                    assert acknowledged.packet_id == number
                await client.close()

    play(scene())


def test_3_1_1_has_no_requests() -> None:
    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url, version="3.1.1")
            await server.open(client)
            with pytest.raises(UsageError, match=r"5\.0"):
                await client.request("svc", b"")
            await client.close()

    play(scene())
