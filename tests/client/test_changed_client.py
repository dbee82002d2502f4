"""An outbox file that goes on under another Client Identifier, and so with another session."""

from pathlib import Path

from holdfast.client.client import Client
from holdfast.protocol.packets import Connack, Pubcomp, Publish, Pubrec, Pubrel
from tests.support.scripted_server import ScriptedServer, play


def test_identifiers_of_one_session_are_not_held_in_another(tmp_path: Path) -> None:
    """Else a message of the other session would be taken for a repeat: acknowledged, and lost."""

    async def scene() -> None:
        async with ScriptedServer() as server:
            for client_id, payload in (("a", b"1"), ("b", b"2"), ("b", None), ("a", b"3")):
                client = Client(
                    server.url, client_id=client_id, outbox=tmp_path / "meter.db", keep_alive_s=0
                )
                peer = await server.open(client, Connack(True, 0))
                peer.send(Publish("t", payload or b"repeat", qos=2, packet_id=7))
                if payload is not None:
                    message = await client.messages().get()
                    assert message.payload == payload
                assert (await peer.next(Pubrec)).packet_id == 7
                await client.close(is_orderly=False)

    play(scene())


def test_what_one_session_has_not_taken_over_is_new_to_another(tmp_path: Path) -> None:
    """What it had taken over is done: only one of two messages goes to the other session."""

    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url, client_id="a", outbox=tmp_path / "meter.db", keep_alive_s=0)
            peer = await server.open(client)
            taken = await client.publish("t", b"taken over", 2)
            await client.publish("t", b"not taken over", 2)
            packets = [await peer.next(Publish), await peer.next(Publish)]
            peer.send(Pubrec(taken.packet_id))
            await peer.next(Pubrel)
            await client.close(is_orderly=False)
            for is_dup in (False, True):
                client = Client(
                    server.url, client_id="b", outbox=tmp_path / "meter.db", keep_alive_s=0
                )
                peer = await server.open(client, Connack(True, 0))
                if not is_dup:
                    # The server may hold the identifier for who began the session of "b".
                    assert (await peer.next(Pubrel)).packet_id == packets[1].packet_id
                    peer.send(Pubcomp(packets[1].packet_id, 0x92))
                packet = await peer.next(Publish)
                assert packet.payload == b"not taken over"
                assert packet.packet_id == packets[1].packet_id
                assert packet.dup == is_dup
                assert client.outbox.messages == 1
                await client.close(is_orderly=False)

    play(scene())
