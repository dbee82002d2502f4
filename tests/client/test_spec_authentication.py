"""AUTH of the client, byte by byte: against a server that a test plays."""

import asyncio
import base64

import pytest

from holdfast.client.authentication import Authentication, Exchange
from holdfast.client.client import Client
from holdfast.errors import HoldfastError, ProtocolError
from holdfast.protocol.packets import Auth, Connack, Connect, Disconnect
from tests.client.world import ClientWorld
from tests.support.properties import properties
from tests.support.scripted_server import Peer, ScriptedServer, play

METHOD = "SCRAM-SHA-256"


def auth(code: int, data: bytes = b"", method: str = METHOD) -> Auth:
    return Auth(code, properties(authentication_method=method, authentication_data=data))


def challenge(data: bytes | None) -> bytes:
    """What a server says to the first message of SCRAM."""
    assert data is not None
    nonce = data.partition(b"r=")[2]
    return b"r=" + nonce + b"more,s=" + base64.b64encode(b"salt" * 4) + b",i=4096"


async def opening(server: ScriptedServer) -> tuple["asyncio.Task[None]", Connect, Peer]:
    client = Client(server.url, user_name="user", password="pencil", auth="SCRAM-SHA-256")
    task = asyncio.create_task(client.open())
    peer = await server.accept()
    return task, await peer.next(Connect), peer


@pytest.mark.spec(
    "MQTT5-3.15.2-1",
    "MQTT5-3.15.2-2",
    "MQTT5-3.15.2-3",
    "MQTT5-4.12.0-3",
    "MQTT5-4.12.0-5",
    "MQTT5-3.1.2-30",
)
def test_an_answer_has_the_method_and_the_data_and_nothing_else() -> None:
    """So it never has a Reason String or User Properties that could be too much."""

    async def scene() -> None:
        async with ScriptedServer() as server:
            task, connect, peer = await opening(server)
            assert connect.properties is not None
            assert connect.properties.authentication_method == METHOD
            peer.send(auth(0x18, challenge(connect.properties.authentication_data)))
            answer = await peer.next(Auth)
            assert answer.reason_code == 0x18
            found = answer.properties
            assert found is not None
            assert found.authentication_method == METHOD
            assert found.authentication_data is not None
            assert (found.reason_string, found.user_properties) == (None, [])
            # A server that lets us in without its proof is not ours.
            peer.send(Connack(False, 0, properties(authentication_method=METHOD)))
            with pytest.raises(HoldfastError):
                await task
            assert not any(isinstance(packet, Auth) for packet in await peer.rest())

    play(scene())


@pytest.mark.spec("MQTT5-4.12.0-5")
@pytest.mark.parametrize("method", ["SCRAM-SHA-1", "", "scram-sha-256"])
def test_another_method_ends_the_connection(method: str) -> None:
    async def scene() -> None:
        async with ScriptedServer() as server:
            task, connect, peer = await opening(server)
            assert connect.properties is not None
            data = challenge(connect.properties.authentication_data)
            peer.send(auth(0x18, data, method))
            with pytest.raises(ProtocolError, match="Authentication Method"):
                await task
            assert await peer.rest() == []

    play(scene())


@pytest.mark.spec("MQTT5-3.15.2-1")
@pytest.mark.parametrize("code", [0x00, 0x19])
def test_a_code_that_has_no_place_ends_the_connection(code: int) -> None:
    async def scene() -> None:
        async with ScriptedServer() as server:
            task, _, peer = await opening(server)
            peer.send(auth(code))
            with pytest.raises(ProtocolError):
                await task
            assert await peer.rest() == []

    play(scene())


@pytest.mark.spec("MQTT5-4.12.0-7")
def test_without_a_method_an_auth_ends_the_connection() -> None:
    for is_connected in (False, True):
        world = ClientWorld()
        if is_connected:
            world.hello()
        else:
            world.open()
        assert world.breaks(auth(0x18)) == 0x82
        assert world.wire() == b""


class Plain(Authentication):
    """An authentication with a method, that says the same each time."""

    method = "PLAIN"

    async def begin(self) -> Exchange:
        return PlainExchange(b"first")


class PlainExchange(Exchange):
    async def answer(self, challenge: bytes | None) -> bytes | None:
        if challenge != b"more":
            raise ProtocolError(0x82, "expected another challenge")
        return b"second"


@pytest.mark.spec("MQTT5-4.12.1-1", "MQTT5-4.12.1-2", "MQTT5-4.12.0-5")
@pytest.mark.parametrize("ends", ["server", "client"])
def test_after_a_failed_re_authentication_the_connection_ends(ends: str) -> None:
    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url, auth=Plain())
            accepted = properties(authentication_method="PLAIN")
            peer = await server.open(client, Connack(False, 0, accepted))
            again = asyncio.create_task(client.reauthenticate())
            asked = await peer.next(Auth)
            assert asked.reason_code == 0x19
            assert asked.properties is not None
            assert asked.properties.authentication_method == "PLAIN"
            if ends == "server":
                peer.send(Disconnect(0x87))
            else:
                peer.send(auth(0x18, b"nonsense", "PLAIN"))
            rest = await peer.rest()
            with pytest.raises(HoldfastError):
                await again
            if ends == "client":
                assert [type(packet) for packet in rest] == [Disconnect]
            else:
                assert rest == []
            await client.close()

    play(scene())
