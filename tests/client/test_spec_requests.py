"""SUBSCRIBE and UNSUBSCRIBE of the client, and the answers to them."""

import asyncio

import pytest

from holdfast.client.client import Client
from holdfast.client.connection import REQUESTS_MAX
from holdfast.errors import Refused, UsageError
from holdfast.protocol.packets import (
    Connack,
    Publish,
    Suback,
    Subscribe,
    SubscriptionRequest,
    Unsuback,
    Unsubscribe,
)
from tests.client.world import V5, V311, ClientWorld
from tests.support import packets as wire
from tests.support.properties import properties
from tests.support.scripted_server import Peer, ScriptedServer, play

VERSIONS = pytest.mark.parametrize("version", [V5, V311], ids=["5.0", "3.1.1"])
BAD_TEXT = ["a\0b", "\ud800", "a\udfffb", "x" * 65_536, "é" * 32_768]
BAD_FILTERS = ["", *BAD_TEXT, "a#", "#/a", "a/#/b", "a/b#", "+a", "a/b+/c", "a/+b", "##", "++"]
BAD_SHARED = [
    "$share/",
    "$share/g",
    "$share/g/",
    "$share//a",
    "$share/+/a",
    "$share/#/a",
    "$share/g+/a",
    "$share/g/a#",
]


def connected(version: int = V5, **limits: int) -> ClientWorld:
    world = ClientWorld(version)
    world.hello(properties=properties(**limits) if limits else None)
    return world


def subscribe(*filters: str) -> Subscribe:
    return Subscribe(0, [SubscriptionRequest(one, 1) for one in filters])


# --- what our caller gives us


@pytest.mark.spec(
    "MQTT5-3.8.3-1",
    "MQTT5-3.10.3-1",
    "MQTT5-4.7.1-1",
    "MQTT5-4.7.1-2",
    "MQTT5-4.7.3-1",
    "MQTT5-4.7.3-2",
    "MQTT5-4.7.3-3",
    "MQTT5-4.8.2-1",
    "MQTT5-4.8.2-2",
    "MQTT311-3.8.3-1",
    "MQTT311-3.10.3-1",
    "MQTT311-4.7.1-2",
    "MQTT311-4.7.1-3",
    "MQTT311-4.7.3-1",
    "MQTT311-4.7.3-2",
    "MQTT311-4.7.3-3",
)
@pytest.mark.parametrize("version", ["5.0", "3.1.1"])
def test_no_bad_filter_leaves_the_client(version: str) -> None:
    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url, version="5.0" if version == "5.0" else "3.1.1")
            peer = await server.open(client)
            for bad in [*BAD_FILTERS, *BAD_SHARED]:
                with pytest.raises(UsageError):
                    client.subscribe("good", bad)
                with pytest.raises(UsageError):
                    await client.unsubscribe("good", bad)
            await client.close()
            assert [type(packet).__name__ for packet in await peer.rest()] == ["Disconnect"]

    play(scene())


@pytest.mark.spec("MQTT5-4.7.3-3", "MQTT311-4.7.3-3", "MQTT5-4.7.1-1", "MQTT5-4.7.1-2")
@pytest.mark.parametrize(
    "topic_filter",
    ["#", "+", "/", "a/#", "+/+", "+/a/#", "a//b", "$SYS/#", "é/+", "x" * 65_535, "$share/g/a/+"],
)
@VERSIONS
def test_good_filters_leave_as_they_are(version: int, topic_filter: str) -> None:
    world = connected(version)
    world.request(subscribe(topic_filter))
    (packet,) = world.packets()
    assert isinstance(packet, Subscribe)
    assert packet.requests[0].topic_filter == topic_filter


@pytest.mark.spec("MQTT5-3.8.3-2", "MQTT5-3.10.3-2", "MQTT311-3.8.3-3", "MQTT311-3.10.3-2")
@VERSIONS
def test_a_request_has_at_least_one_filter(version: int) -> None:
    world = connected(version)
    for packet in (Subscribe(0, []), Unsubscribe(0, [])):
        with pytest.raises(UsageError):
            world.request(packet)
    assert world.wire() == b""

    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url)
            await server.open(client)
            with pytest.raises(UsageError, match="at least one topic filter"):
                client.subscribe()
            with pytest.raises(UsageError, match="at least one topic filter"):
                await client.unsubscribe()
            await client.close()

    play(scene())


@pytest.mark.spec("MQTT5-3.8.3-4")
def test_no_local_is_not_for_a_shared_subscription() -> None:
    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url)
            await server.open(client)
            with pytest.raises(UsageError, match="No Local"):
                client.subscribe("$share/g/a", no_local=True)
            for options in ({"qos": 3}, {"qos": -1}, {"retain_handling": 3}):
                with pytest.raises(UsageError):
                    client.subscribe("a", **options)  # type: ignore[arg-type]  # of three kinds
            await client.close()

    play(scene())


@pytest.mark.spec("MQTT5-3.10.3-1", "MQTT311-3.10.3-1", "MQTT5-3.8.3-1", "MQTT311-3.8.3-1")
@VERSIONS
def test_the_bytes_of_a_request(version: int) -> None:
    world = connected(version)
    request = subscribe("a/b", "é")
    request.requests[1].qos = 2
    world.request(request)
    assert world.wire() == wire.subscribe(0xFF00, [("a/b", 1), ("é", 2)], version)
    world.request(Unsubscribe(0, ["a/b", "é"]))
    assert world.wire() == wire.unsubscribe(0xFF01, ["a/b", "é"], version)


def test_the_options_of_a_subscription() -> None:
    world = connected()
    request = Subscribe(
        0,
        [
            SubscriptionRequest("a", 1, no_local=True),
            SubscriptionRequest("b", 2, retain_as_published=True, retain_handling=2),
        ],
        properties(subscription_identifiers=[200]),
    )
    world.request(request)
    expected = wire.subscribe(0xFF00, [("a", 0x05), ("b", 0x2A)], values={0x0B: 200})
    assert world.wire() == expected


# --- what the server allows


def test_what_the_server_has_not_is_refused_before_it_is_sent() -> None:
    """Source: MQTT 5.0 §3.2.2.3.11, §3.2.2.3.13."""
    world = connected(wildcard_subscription_available=0)
    for topic_filter in ("a/#", "+", "$share/g/a/#"):
        with pytest.raises(Refused, match="wildcards") as caught:
            world.request(subscribe("a", topic_filter))
        assert caught.value.reason_code == 0xA2
    world.request(subscribe("$share/g/a"))
    assert len(world.packets()) == 1
    world = connected(shared_subscription_available=0)
    with pytest.raises(Refused, match="Shared") as caught:
        world.request(subscribe("$share/g/a"))
    assert caught.value.reason_code == 0x9E
    world.request(subscribe("a/#"))
    world.request(Unsubscribe(0, ["$share/g/a"]))
    assert len(world.packets()) == 2


def test_a_server_of_3_1_1_is_asked_for_anything() -> None:
    world = connected(V311)
    world.request(subscribe("$share/g/a/#"))
    assert world.sent() == ["SUBSCRIBE #65280 $share/g/a/# q1"]


@pytest.mark.spec("MQTT5-3.2.2-15")
def test_no_request_is_larger_than_the_server_takes() -> None:
    world = connected(maximum_packet_size=30)
    for packet in (subscribe("x" * 23), Unsubscribe(0, ["x" * 24])):
        with pytest.raises(Refused, match="30 bytes") as caught:
            world.request(packet)
        assert caught.value.reason_code == 0x95
    assert world.wire() == b""
    world.request(subscribe("x" * 22))
    world.request(Unsubscribe(0, ["x" * 23]))
    assert len(world.wire()) == 60


@pytest.mark.parametrize(
    ("limits", "topic_filter", "code"),
    [
        ({"wildcard_subscription_available": 0}, "a/#", 0xA2),
        ({"shared_subscription_available": 0}, "$share/g/a", 0x9E),
        ({"maximum_packet_size": 30}, "x" * 40, 0x95),
    ],
)
def test_the_caller_of_subscribe_is_told(
    limits: dict[str, object], topic_filter: str, code: int
) -> None:
    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url)
            peer = await server.open(client, Connack(False, 0, properties(**limits)))
            subscription = client.subscribe(topic_filter)
            for _ in range(2):
                with pytest.raises(Refused) as caught:
                    await subscription
                assert caught.value.reason_code == code
                with pytest.raises(Refused):
                    await anext(subscription)
            peer.cut()
            peer = await server.accept()  # another server, perhaps, and with other limits
            await peer.welcome()
            request = await peer.next(Subscribe)
            topic = "a/b" if code == 0xA2 else topic_filter.removeprefix("$share/g/")
            peer.send(Suback(request.packet_id, [0]), Publish(topic, b"1"))
            assert (await anext(subscription)).payload == b"1"
            await client.close()

    play(scene())


def test_a_server_without_subscription_identifiers_gets_none() -> None:
    async def scene() -> None:
        async with ScriptedServer() as server:
            for limits, expected in (
                (dict[str, int](), True),
                ({"subscription_identifier_available": 0}, False),
            ):
                client = Client(server.url)
                peer = await server.open(client, Connack(False, 0, properties(**limits)))
                subscribing = asyncio.ensure_future(client.subscribe("a")._subscribed())
                request = await peer.next(Subscribe)
                assert (request.properties is not None) == expected
                peer.send(Suback(request.packet_id, [0]))
                await subscribing
                await client.close()

    play(scene())


# --- what the server answers


@VERSIONS
def test_an_answer_to_nothing_ends_the_connection(version: int) -> None:
    codes = [0] if version == V5 else []
    world = connected(version)
    asked = world.request(subscribe("a"))
    assert world.breaks(Suback(asked + 1, [0])) == 0x82
    world = connected(version)
    asked = world.request(subscribe("a"))
    assert world.breaks(Unsuback(asked, codes)) == 0x82
    world = connected(version)
    asked = world.request(Unsubscribe(0, ["a"]))
    assert world.breaks(Suback(asked, [0])) == 0x82
    world = connected(version)
    asked = world.request(Unsubscribe(0, ["a"]))
    world.server(Unsuback(asked, codes))
    assert world.breaks(Unsuback(asked, codes)) == 0x82


@pytest.mark.parametrize("codes", [[0], [0, 0, 0]])
@VERSIONS
def test_an_answer_of_the_wrong_length_ends_the_connection(version: int, codes: list[int]) -> None:
    world = connected(version)
    asked = world.request(subscribe("a", "b"))
    assert world.breaks(Suback(asked, codes)) == 0x82
    if version == V5:
        world = connected()
        asked = world.request(Unsubscribe(0, ["a", "b"]))
        assert world.breaks(Unsuback(asked, codes)) == 0x82


def test_reason_codes_of_answers_that_are_not_listed_are_malformed() -> None:
    for version, allowed in (
        (V5, {0, 1, 2, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2}),
        (V311, {0, 1, 2, 0x80}),
    ):
        for code in range(256):
            world = connected(version)
            asked = world.request(subscribe("a")).to_bytes(2, "big")
            tail = b"\0" if version == V5 else b""
            answer = wire.packet(9, 0, asked + tail + bytes([code]))
            if code in allowed:
                world.server_bytes(answer)
                assert len(world.the_connection.answered) == 1
            else:
                assert world.breaks(answer) == 0x81


@VERSIONS
def test_answers_in_any_order_reach_their_requests(version: int) -> None:
    world = connected(version)
    codes = [0x11] if version == V5 else []
    first = world.request(subscribe("a"))
    second = world.request(Unsubscribe(0, ["b"]))
    third = world.request(subscribe("c", "d"))
    world.server(Suback(third, [1, 0x80]), Unsuback(second, codes), Suback(first, [2]))
    assert [packet_id for packet_id, _ in world.the_connection.answered] == [third, second, first]


def test_no_more_requests_are_open_than_there_are_identifiers() -> None:
    world = connected()
    asked = [world.request(subscribe("a")) for _ in range(REQUESTS_MAX)]
    assert 0 not in asked and len(set(asked)) == REQUESTS_MAX
    assert world.request(subscribe("b")) == 0
    world.server(Suback(asked[77], [0]))
    assert world.request(subscribe("b")) == asked[77]


def test_open_requests_end_with_the_connection() -> None:
    world = connected()
    asked = world.request(subscribe("a"))
    world.again()
    assert world.breaks(Suback(asked, [0])) == 0x82


# --- through the client


async def answered(peer: Peer, *codes: int) -> Subscribe:
    request = await peer.next(Subscribe)
    peer.send(Suback(request.packet_id, list(codes)))
    return request


def test_a_refused_filter_is_told_and_the_others_bring_messages() -> None:
    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url)
            peer = await server.open(client)
            subscription = client.subscribe("a", "b")
            waiting = asyncio.ensure_future(subscription._subscribed())
            await answered(peer, 1, 0x87)
            with pytest.raises(Refused, match="the subscription to b was refused") as caught:
                await waiting
            assert caught.value.reason_code == 0x87
            assert subscription.reason_codes == [1, 0x87]
            peer.send(Publish("a", b"1"))
            assert (await anext(subscription)).payload == b"1"
            await client.close()

    play(scene())


def test_a_subscription_that_is_refused_when_it_is_renewed_ends_its_loop() -> None:
    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url)
            peer = await server.open(client)
            subscription = client.subscribe("a")
            next_one = asyncio.ensure_future(anext(subscription))
            await answered(peer, 0)
            peer.send(Publish("a", b"1"))
            assert (await next_one).payload == b"1"
            next_one = asyncio.ensure_future(anext(subscription))
            peer.cut()
            peer = await server.accept()
            await peer.welcome()
            await answered(peer, 0x87)
            with pytest.raises(Refused):
                await next_one
            await client.close()

    play(scene())


def test_a_filter_that_is_unsubscribed_before_its_suback() -> None:
    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url)
            peer = await server.open(client)
            subscription = client.subscribe("a", "b")
            waiting = asyncio.ensure_future(subscription._subscribed())
            first = await peer.next(Subscribe)
            leaving = asyncio.ensure_future(client.unsubscribe("a"))
            second = await peer.next(Unsubscribe)
            peer.send(Suback(first.packet_id, [0, 0]), Unsuback(second.packet_id, [0]))
            await waiting
            assert await leaving == [0]
            assert subscription.topic_filters == ["b"]
            peer.cut()
            peer = await server.accept()
            await peer.welcome()
            renewed = await answered(peer, 0)
            assert [one.topic_filter for one in renewed.requests] == ["b"]
            await client.close()

    play(scene())
