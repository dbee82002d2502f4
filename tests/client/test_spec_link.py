"""The client on its connection: keep alive, DISCONNECT, time-outs, and the connections after it."""

import asyncio
from pathlib import Path
from typing import Literal

import pytest

from holdfast.client.client import Client
from holdfast.client.outbox import OutboxFile
from holdfast.errors import ConnectionLost, ProtocolError, Refused, StoreCorrupt, StoreError
from holdfast.protocol.encode import encode
from holdfast.protocol.packets import (
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Puback,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
)
from tests.client.world import V5, V311, ClientWorld
from tests.support.properties import properties
from tests.support.scripted_server import Peer, ScriptedServer, play

Version = Literal["5.0", "3.1.1"]
VERSIONS = pytest.mark.parametrize("version", ["5.0", "3.1.1"])


def now() -> float:
    return asyncio.get_running_loop().time()


def names(packets: list[Packet]) -> list[str]:
    return [type(packet).__name__ for packet in packets]


async def again(server: ScriptedServer, connack: Connack | None = None) -> Peer:
    """The next connection, welcomed."""
    peer = await server.accept()
    await peer.welcome(connack)
    return peer


# --- keep alive


@pytest.mark.spec("MQTT5-3.1.2-20", "MQTT311-3.1.2-23")
@pytest.mark.parametrize("keep_alive_s", [1, 60, 65_535])
@VERSIONS
def test_a_silent_client_pings_before_its_keep_alive_is_over(
    version: Version, keep_alive_s: int
) -> None:
    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url, version=version, keep_alive_s=keep_alive_s)
            peer = await server.open(client)
            last_s = now()
            for _ in range(4):
                await peer.next(Pingreq)
                assert keep_alive_s / 2 < now() - last_s < keep_alive_s
                last_s = now()
                peer.send(Pingresp())
            await client.close()

    play(scene())


@pytest.mark.spec("MQTT5-3.1.2-20", "MQTT311-3.1.2-23")
@VERSIONS
def test_what_the_client_receives_spares_no_ping(version: Version) -> None:
    """The server hears nothing from a client that only receives at QoS 0."""

    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url, version=version, keep_alive_s=10)
            peer = await server.open(client)
            began_s = now()
            waiting = asyncio.create_task(peer.answer_pings())
            for _ in range(40):
                await asyncio.sleep(1)
                peer.send(Publish("a", b""))
            assert now() - began_s == pytest.approx(40)
            await client.close()
            assert await waiting == 4

    play(scene())


@pytest.mark.spec("MQTT5-3.1.2-20", "MQTT311-3.1.2-23")
def test_what_the_client_sends_spares_a_ping() -> None:
    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url, keep_alive_s=10)
            peer = await server.open(client)
            for _ in range(20):
                await asyncio.sleep(8)
                client.publish_nowait("a", b"")
                await peer.next(Publish)
            await client.close()

    play(scene())


@pytest.mark.spec("MQTT5-3.1.2-20", "MQTT311-3.1.2-23")
def test_there_is_never_a_longer_gap_than_the_keep_alive() -> None:
    """Whenever the client has sent something last."""

    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url, keep_alive_s=10)
            peer = await server.open(client)
            last_s = now()
            for tenths in range(1, 100, 7):
                await asyncio.sleep(tenths / 10)
                client.publish_nowait("a", b"")
                while True:
                    packet = await peer.packet()
                    assert now() - last_s < 10
                    last_s = now()
                    if isinstance(packet, Publish):
                        break
                    peer.send(Pingresp())
            await client.close()

    play(scene())


@pytest.mark.spec("MQTT5-3.1.2-21", "MQTT5-3.2.2-21")
@pytest.mark.parametrize(("asked", "given"), [(60, 5), (5, 60), (0, 7)])
def test_the_servers_keep_alive_counts(asked: int, given: int) -> None:
    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url, keep_alive_s=asked)
            peer = await server.open(client, Connack(False, 0, properties(server_keep_alive=given)))
            began_s = now()
            await peer.next(Pingreq)
            assert given / 2 < now() - began_s < given
            await client.close()

    play(scene())


@pytest.mark.parametrize(("asked", "given"), [(0, None), (60, 0)])
def test_without_keep_alive_there_are_no_pings(asked: int, given: int | None) -> None:
    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url, keep_alive_s=asked)
            peer = await server.open(client, Connack(False, 0, properties(server_keep_alive=given)))
            await asyncio.sleep(1_000_000)
            await client.close()
            assert names(await peer.rest()) == ["Disconnect"]

    play(scene())


@VERSIONS
def test_a_server_that_answers_no_ping_is_left(version: Version) -> None:
    """Source: MQTT 5.0 §3.12.4."""

    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url, version=version, keep_alive_s=10)
            peer = await server.open(client)
            await peer.next(Pingreq)
            pinged_s = now()
            await peer.lost()
            assert now() - pinged_s <= 10
            assert isinstance(client.error, ConnectionLost) and "PINGRESP" in str(client.error)
            await again(server)
            await client.connected()
            await client.close()

    play(scene())


def test_a_server_that_sends_a_large_message_slowly_is_there() -> None:
    """PINGRESP can only follow it; a new connection would begin with the same message."""

    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url, keep_alive_s=10)
            peer = await server.open(client)
            stream = client.messages()
            large = encode(Publish("a", bytes(1000)), peer.version)
            for start in range(0, len(large), 50):
                peer.send_bytes(large[start : start + 50])
                await asyncio.sleep(8)
            assert len((await anext(stream)).payload) == 1000
            began_s = now()
            await peer.lost()
            assert now() - began_s <= 10  # it has nothing to say, and answers no ping
            await client.close()

    play(scene())


def test_a_server_that_takes_a_large_message_slowly_is_there() -> None:
    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url, keep_alive_s=10)
            peer = await server.open(client)
            await client.publish("a", bytes(60_000_000), 1)
            for _ in range(8):
                await asyncio.sleep(8)
                taken = 0
                while taken < 6_000_000:
                    taken += len(await peer.raw())
                assert client.is_connected
            began_s = now()
            while client.is_connected:  # noqa: ASYNC110  # it has no event
                await asyncio.sleep(1)
            assert now() - began_s <= 40
            await client.close(is_orderly=False)

    play(scene())


# --- time-outs and connections


def test_a_server_that_sends_no_connack_is_left() -> None:
    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url, connect_timeout_s=7)
            opening = asyncio.create_task(client.open())
            peer = await server.accept()
            began_s = now()
            await peer.next(Connect)
            await peer.lost()
            assert now() - began_s == pytest.approx(7, abs=0.01)
            with pytest.raises(ConnectionLost, match="no CONNACK within 7 s"):
                await opening

    play(scene())


def test_a_server_that_closes_before_connack() -> None:
    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url)
            opening = asyncio.create_task(client.open())
            peer = await server.accept()
            await peer.next(Connect)
            peer.end()
            with pytest.raises(ConnectionLost, match="before CONNACK"):
                await opening

    play(scene())


@pytest.mark.spec("MQTT5-3.1.0-1", "MQTT311-3.1.0-1", "MQTT5-3.1.2-30")
@VERSIONS
def test_nothing_follows_connect_before_connack(version: Version) -> None:
    async def scene() -> None:
        async with ScriptedServer() as server:
            gone = asyncio.Event()
            client = Client(
                server.url,
                version=version,
                client_id="c",
                keep_alive_s=1,
                on_disconnect=lambda *_: gone.set(),
            )
            peer = await server.open(client)
            peer.cut()
            await gone.wait()
            for qos in range(3):
                client.publish_nowait("a", b"", qos)
            subscription = client.subscribe("a")
            waiting = asyncio.ensure_future(subscription._subscribed())
            peer = await server.accept()
            await peer.next(Connect)
            await asyncio.sleep(5)
            peer.send(Connack(True, 0))
            assert names([await peer.packet() for _ in range(4)]) == [
                "Subscribe",
                "Publish",
                "Publish",
                "Publish",
            ]
            waiting.cancel()
            await client.close(is_orderly=False)

    play(scene())


def test_a_client_comes_back_after_every_end_of_a_connection() -> None:
    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url)
            peer = await server.open(client)
            peer.cut()
            peer = await again(server)
            peer.end()
            peer = await again(server)
            peer.send(Disconnect(0x8B))
            await peer.lost()
            peer = await again(server, Connack(False, 0x88))
            await peer.lost()
            peer = await server.accept()
            peer.cut()
            peer = await again(server)
            await client.connected()
            await client.close()

    play(scene())


def test_a_session_that_was_taken_over_is_left_to_the_other() -> None:
    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url)
            peer = await server.open(client)
            peer.send(Disconnect(0x8E))
            assert names(await peer.rest()) == []
            with pytest.raises(Refused) as caught:
                await client.connected()
            assert caught.value.reason_code == 0x8E
            await asyncio.sleep(3600)
            assert server.waiting == 0
            await client.close()

    play(scene())


# --- the end of a connection


@pytest.mark.spec("MQTT5-3.14.4-1", "MQTT5-3.14.4-2", "MQTT311-3.14.4-1", "MQTT311-3.14.4-2")
@VERSIONS
def test_disconnect_is_the_last_packet_and_the_client_closes(version: Version) -> None:
    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url, version=version)
            peer = await server.open(client)
            receipt = client.publish_nowait("a", b"", 1)
            await peer.next(Publish)
            closing = asyncio.create_task(client.close())
            peer.send(Publish("b", b"", 1, packet_id=1), Puback(receipt.packet_id))
            await closing
            assert names(await peer.rest()) == ["Disconnect"]

    play(scene())


@pytest.mark.spec("MQTT5-3.14.4-1", "MQTT311-3.14.4-2")
@VERSIONS
def test_nothing_follows_disconnect_though_the_network_is_slow(version: Version) -> None:
    """What is published, acknowledged or pinged while DISCONNECT waits for the network."""

    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url, version=version, manual_ack=True)
            peer = await server.open(client)
            stream = client.messages()
            peer.send(Publish("b", b"", 1, packet_id=1))
            message = await anext(stream)
            peer.stop_reading()
            client.publish_nowait("a", bytes(20_000_000))
            await asyncio.sleep(0)
            closing = asyncio.create_task(client.close(is_orderly=False))
            await asyncio.sleep(0)
            for _ in range(3):
                await asyncio.sleep(0)
                client.publish_nowait("a", b"late")
                await message.ack()
            peer.start_reading()
            packets = await peer.rest()
            await closing
            assert names(packets) == ["Publish", "Disconnect"]

    play(scene())


FAULTS: list[tuple[bytes, int]] = [
    (b"\xd0\x01\x00", 0x81),  # PINGRESP with a body
    (b"\x36\x05\x00\x01a\x00\x01", 0x81),  # QoS 3
    (b"\x20\x03\x00\x00\x00", 0x82),  # a second CONNACK
    (b"\xc0\x00", 0x82),  # PINGREQ
    (b"\x30\x04\x00\x01#\x00", 0x90),
    (b"\x30\x07\x00\x01a\x03\x23\x00\x01", 0x94),
    (b"\x30\xff\xff\xff\x7f", 0x95),
    (b"\x90\x04\x00\x01\x00\x00", 0x82),  # SUBACK for nothing
]


@pytest.mark.spec("MQTT5-4.13.2-1", "MQTT5-3.14.2-1", "MQTT5-3.14.4-2")
@pytest.mark.parametrize(("fault", "code"), FAULTS)
def test_a_server_that_breaks_the_rules_is_told_and_left(fault: bytes, code: int) -> None:
    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url, maximum_packet_size=1000)
            peer = await server.open(client)
            peer.send_bytes(fault)
            (packet,) = await peer.rest()
            assert isinstance(packet, Disconnect) and packet.reason_code == code
            assert packet.properties is None
            await again(server)
            await client.close()

    play(scene())


@pytest.mark.spec("MQTT311-4.8.0-1")
@pytest.mark.parametrize("fault", [fault for fault, _ in FAULTS[:4]])
def test_a_server_of_3_1_1_that_breaks_the_rules_is_left(fault: bytes) -> None:
    """Without DISCONNECT, which would keep the server from publishing the will."""

    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url, version="3.1.1")
            peer = await server.open(client)
            peer.send_bytes(fault)
            assert await peer.rest() == []
            await again(server)
            await client.close()

    play(scene())


@pytest.mark.spec("MQTT311-4.8.0-1", "MQTT5-4.13.2-1")
@pytest.mark.parametrize(
    "fault", [b"\xd0\x00", b"\x20\x02\x00\x09", b"\x00\x00", b"HTTP/1.1 400 " + b"x" * 99]
)
@VERSIONS
def test_what_is_no_connack_closes_the_connection(version: Version, fault: bytes) -> None:
    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url, version=version)
            opening = asyncio.create_task(client.open())
            peer = await server.accept()
            await peer.next(Connect)
            peer.send_bytes(fault)
            assert await peer.rest() == []
            with pytest.raises(ProtocolError):
                await opening

    play(scene())


@pytest.mark.spec("MQTT5-3.14.2-3", "MQTT5-3.14.2-4", "MQTT5-3.2.2-15")
@pytest.mark.parametrize(("maximum", "expected"), [(9, 0), (8, None), (5, None)])
def test_disconnect_leaves_its_properties_out_if_they_are_too_much(
    maximum: int, expected: int | None
) -> None:
    """Those are the Session Expiry Interval alone: no Reason String, no User Properties."""

    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url)
            limits = properties(maximum_packet_size=maximum)
            peer = await server.open(client, Connack(False, 0, limits))
            await client.close()
            (packet,) = await peer.rest()
            assert isinstance(packet, Disconnect)
            found = packet.properties
            assert (None if found is None else found.session_expiry_interval) == expected
            assert found is None or (found.reason_string, found.user_properties) == (None, [])

    play(scene())


@pytest.mark.spec("MQTT5-3.14.2-1")
@pytest.mark.parametrize(("with_will", "code"), [(False, 0), (True, 4)])
def test_disconnect_asks_for_the_will_if_it_is_told_to(with_will: bool, code: int) -> None:
    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url, client_id="c")
            peer = await server.open(client)
            await client.close(with_will=with_will)
            (packet,) = await peer.rest()
            assert isinstance(packet, Disconnect) and packet.reason_code == code

    play(scene())


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 0),
        ({"client_id": "c"}, None),
        ({"session_expiry_s": 0}, None),
        ({"session_expiry_s": 100}, None),
        ({"client_id": "c", "session_expiry_s": 0}, None),
    ],
)
def test_disconnect_ends_the_session_that_nobody_could_find(
    options: dict[str, object], expected: int | None
) -> None:
    """And never makes one last that was to end: MQTT 5.0 §3.14.2.2.2."""

    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url, **options)  # type: ignore[arg-type]  # of many kinds
            peer = await server.open(client)
            await client.close()
            (packet,) = await peer.rest()
            assert isinstance(packet, Disconnect)
            found = packet.properties
            assert (None if found is None else found.session_expiry_interval) == expected

    play(scene())


@pytest.mark.spec("MQTT311-4.8.0-2", "MQTT5-4.13.2-1")
@VERSIONS
def test_a_client_that_cannot_keep_what_it_promises_closes_the_connection(
    version: Version, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A QoS 2 message is not acknowledged where its identifier cannot be made durable."""

    def fails(self: OutboxFile, records: object) -> None:
        raise StoreCorrupt("the outbox is damaged")

    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url, version=version, outbox=tmp_path / "outbox")
            peer = await server.open(client)
            monkeypatch.setattr(OutboxFile, "commit", fails)
            stream = client.messages()
            peer.send(Publish("a", b"", 2, packet_id=1))
            with pytest.raises(StoreError):
                await anext(stream)
            assert "Pubrec" not in names(await peer.rest())
            await client.close()

    asyncio.run(scene())


# --- the session over connections


@pytest.mark.spec(
    "MQTT5-3.1.2-23",
    "MQTT5-4.1.0-1",
    "MQTT5-3.1.3-2",
    "MQTT311-3.1.2-4",
    "MQTT311-3.1.3-2",
    "MQTT311-4.1.0-1",
    "MQTT311-4.1.0-2",
)
@VERSIONS
def test_the_session_outlasts_its_connections(version: Version) -> None:
    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url, version=version, client_id="c")
            peer = await server.open(client)
            first = client.publish_nowait("a", b"1", 1)
            second = client.publish_nowait("a", b"2", 2)
            await peer.next(Publish)
            await peer.next(Publish)
            peer.send(Pubrec(second.packet_id))
            await peer.next(Pubrel)
            peer.cut()
            peer = await server.accept()
            connect = await peer.welcome(Connack(True, 0))
            assert (connect.client_id, connect.clean_start) == ("c", False)
            packets = [await peer.packet() for _ in range(2)]
            assert sorted(names(packets)) == ["Publish", "Pubrel"]
            for packet in packets:
                if isinstance(packet, Publish):
                    assert packet.dup and packet.packet_id == first.packet_id
            await client.close(is_orderly=False)

    play(scene())


@pytest.mark.parametrize("present", [False, True])
@VERSIONS
def test_subscriptions_are_renewed_if_the_server_has_lost_the_session(
    version: Version, present: bool
) -> None:
    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url, version=version, client_id="c")
            peer = await server.open(client)
            asked = []
            for topic_filter in ("a", "b"):
                waiting = asyncio.ensure_future(client.subscribe(topic_filter, qos=1)._subscribed())
                request = await peer.next(Subscribe)
                asked.append(request)
                peer.send(Suback(request.packet_id, [1]))
                await waiting
            peer.cut()
            peer = await again(server, Connack(present, 0))
            if not present:
                for before in asked:
                    request = await peer.next(Subscribe)
                    assert request.requests[0].topic_filter == before.requests[0].topic_filter
                    assert request.requests[0].qos == 1
                    assert (request.properties is None) == (before.properties is None)
                    peer.send(Suback(request.packet_id, [1]))
            await client.publish("c", b"")
            await peer.next(Publish)
            await client.close()

    play(scene())


def test_a_subscription_that_was_asked_for_when_the_connection_was_lost_is_asked_for_again() -> (
    None
):
    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url, client_id="c")
            peer = await server.open(client)
            waiting = asyncio.ensure_future(client.subscribe("a")._subscribed())
            await peer.next(Subscribe)
            peer.cut()
            peer = await again(server, Connack(True, 0))
            request = await peer.next(Subscribe)
            peer.send(Suback(request.packet_id, [0]))
            await waiting
            await client.close()

    play(scene())


@pytest.mark.spec("MQTT5-3.1.2-4", "MQTT5-4.1.0-1", "MQTT5-3.1.2-23")
def test_a_clean_start_leaves_nothing_of_an_earlier_session() -> None:
    """What an earlier process could not see through is new to the server, without DUP."""
    for version in (V5, V311):
        world = ClientWorld(version, is_durable=True)
        world.hello()
        world.publish("a", b"1", 1)
        world.publish("a", b"2", 2)
        world.server(Publish("b", b"", 2, packet_id=7))
        world.take()
        world.wire()
        world.cut()
        world.hello(connect=Connect("c", version, clean_start=True))
        assert world.sent() == ["PUBLISH a 1 q1 #2", "PUBLISH a 2 q2 #3"]
        world.server(Publish("b", b"", 2, packet_id=7))
        assert len(world.arrived) == 1
