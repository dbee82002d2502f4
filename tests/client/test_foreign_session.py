"""A session that another process began: the server may hold identifiers of it that nobody released.

A QoS 2 message under such an identifier would be a repeat to the server: acknowledged, and dropped.
"""

import asyncio
from pathlib import Path

import pytest

from holdfast.client.client import Client
from holdfast.client.outgoing import DONE, PUBLISH_ID_MAX
from holdfast.protocol.packets import Connack, Connect, Pubcomp, Publish, Pubrec
from tests.broker.world import World
from tests.client.world import V5, V311, ClientWorld
from tests.support.scripted_server import PATIENCE_S, ScriptedServer

VERSIONS = pytest.mark.parametrize("version", [V5, V311], ids=["5.0", "3.1.1"])


@pytest.mark.spec("MQTT5-4.3.3-1", "MQTT311-4.3.3-1", "MQTT5-2.2.1-3", "MQTT311-2.3.1-2")
@VERSIONS
@pytest.mark.parametrize("qos", [1, 2])
def test_no_message_is_taken_for_one_of_another_process(version: int, qos: int) -> None:
    """At QoS 1 the server may refuse it: its identifier is in use, for a QoS 2 exchange."""
    broker = World()
    subscriber = broker.hello("s", version=version)
    subscriber.subscribe("a", 2)
    subscriber.packets()
    # A process publishes under the identifier that the next one begins with, and is gone before
    # its PUBREL.
    before = broker.hello("c", version=version)
    before.publish("a", "of before", 2, 2)
    assert before.received() == ["PUBREC #2"]
    before.cut()
    world = ClientWorld(version)
    connection = broker.dial(version)
    connect = Connect("c", version, clean_start=False)
    world.open(connect)
    connection.send(connect)
    entry = world.publish("a", b"of now", qos)
    for _ in range(10):
        data = connection.take_bytes()
        if data:
            world.server_bytes(data)
        data = world.wire()
        if data:
            connection.send_bytes(data)
    assert entry.stage == DONE
    assert [packet.payload for packet in subscriber.publishes()] == [b"of before", b"of now"]


@VERSIONS
def test_pubrel_goes_before_the_first_message_under_each_identifier(version: int) -> None:
    world = ClientWorld(version)
    world.hello(present=True)
    entry = world.publish("a", b"1", 2)
    world.publish("a", b"2", 1)
    assert world.sent() == ["PUBREL #2"]
    world.again()
    assert world.sent() == ["PUBREL #2", "PUBREL #3"]
    code = 0x92 if version == V5 else 0
    world.server(Pubcomp(2, code), Pubcomp(3, code))
    assert world.sent() == ["PUBLISH a 1 q2 #2", "PUBLISH a 2 q1 #3"]
    world.again()
    assert world.sent() == ["PUBLISH a 1 q2 #2 dup", "PUBLISH a 2 q1 #3 dup"]
    world.server(Pubrec(2))
    assert world.sent() == ["PUBREL #2"]
    world.server(Pubcomp(2))
    assert entry.stage == DONE


def test_after_one_round_all_identifiers_are_free() -> None:
    world = ClientWorld()
    world.hello(present=True)
    world.sending.next_seq = PUBLISH_ID_MAX
    world.sending._kept_from = PUBLISH_ID_MAX
    world.publish("a", b"1", 2)
    assert world.sent() == ["PUBREL #1"]
    world.server(Pubcomp(1))
    world.publish("a", b"2", 2)
    assert world.sent() == ["PUBLISH a 1 q2 #1", "PUBLISH a 2 q2 #2"]


def test_a_crash_between_the_mark_and_the_sending_loses_nothing() -> None:
    """What may have been sent is not preceded by PUBREL, so its identifier is free before."""
    world = ClientWorld(is_durable=True)
    world.hello(present=True)
    world.publish("a", b"1", 2)
    assert world.sent() == ["PUBREL #2"]
    world.crash()
    assert world.sent() == ["PUBREL #2"]
    world.server(Pubcomp(2))
    assert world.sent() == ["PUBLISH a 1 q2 #2"]
    world.crash()
    assert world.sent() == ["PUBLISH a 1 q2 #2 dup"]


@pytest.mark.parametrize("is_durable", [False, True])
def test_a_session_of_our_own_needs_none(is_durable: bool) -> None:
    world = ClientWorld(is_durable=is_durable)
    world.hello(present=True)
    world.again(present=False)
    world.publish("a", b"1", 2)
    assert world.sent() == ["PUBLISH a 1 q2 #2"]
    if is_durable:
        world.crash()
        world.publish("a", b"2", 2)
        assert world.sent() == ["PUBLISH a 1 q2 #2 dup", "PUBLISH a 2 q2 #3"]


@pytest.mark.parametrize("is_begun", [True, False])
def test_an_outbox_remembers_whether_it_began_the_session(tmp_path: Path, is_begun: bool) -> None:
    path = tmp_path / "outbox"

    async def scene() -> None:
        async with ScriptedServer() as server:
            for number in range(3):
                client = Client(server.url, client_id="c", outbox=path)
                is_present = number > 0 or not is_begun
                peer = await server.open(client, Connack(is_present, 0))
                receipt = await client.publish("a", b"", 2)
                packet = await peer.packet()
                assert isinstance(packet, Publish) == is_begun
                if not is_begun:
                    peer.send(Pubcomp(receipt.packet_id))
                    await peer.next(Publish)
                peer.send(Pubrec(receipt.packet_id))
                await peer.packet()
                peer.send(Pubcomp(receipt.packet_id))
                await client.close()
            # The same file for another client knows nothing of that one's session.
            client = Client(server.url, client_id="d", outbox=path)
            peer = await server.open(client, Connack(True, 0))
            await client.publish("a", b"", 2)
            assert not isinstance(await peer.packet(), Publish)
            await client.close(is_orderly=False)

    asyncio.run(asyncio.wait_for(scene(), PATIENCE_S))
