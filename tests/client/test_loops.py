"""The client on the event loops of asyncio and of uvloop, which differ in what they do at once."""

import asyncio
import socket

import pytest

from holdfast import Client
from holdfast.client.engine import ACCEPTED_MAX
from tests.client.peer import LOOPS, run, serving
from tests.support.broker import BrokerProcess

SMALL = 20_000  # messages, 1.2 MB
READ_BYTES_MAX = 262_144  # what either loop reads at once

pytestmark = pytest.mark.parametrize("loop", LOOPS)


def test_a_message_goes_out_and_comes_back(broker: BrokerProcess, name: str, loop: str) -> None:
    async def there_and_back() -> bytes:
        async with Client(f"mqtt://127.0.0.1:{broker.port}", client_id=name) as client:
            subscription = await client.subscribe(name, qos=2)
            await (await client.publish(name, b"42", qos=2))
            return (await anext(subscription)).payload

    assert run(loop, there_and_back()) == b"42"


def test_the_application_has_its_turn_after_each_read(loop: str) -> None:
    """Else messages of QoS 0 pile up, and are dropped, though nobody is slow."""
    packet = b"\x30\x3a\x00\x01a\x00" + bytes(54)

    def flood(connection: socket.socket) -> None:
        connection.recv(4096)  # CONNECT
        connection.sendall(b"\x20\x03\x00\x00\x00")
        subscribe = connection.recv(4096)
        connection.sendall(b"\x90\x04" + subscribe[2:4] + b"\x00\x00")
        connection.sendall(packet * SMALL)
        connection.recv(4096)  # DISCONNECT

    async def take_all(port: int) -> int:
        async with Client(f"mqtt://127.0.0.1:{port}") as client:
            subscription = await client.subscribe("a")
            queued = 0
            for _ in range(SMALL):
                await anext(subscription)
                queued = max(queued, subscription.queued)
            assert subscription.dropped == 0
            return queued

    with serving(flood) as port:
        assert run(loop, take_all(port)) <= READ_BYTES_MAX // len(packet)


@pytest.mark.parametrize("qos", [0, 1])
def test_a_task_that_publishes_without_end_lets_others_run(
    broker: BrokerProcess, name: str, loop: str, qos: int
) -> None:
    async def publish_beside_another() -> int:
        turns = 0

        async def count_turns() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        async with Client(f"mqtt://127.0.0.1:{broker.port}") as client:
            other = asyncio.create_task(count_turns())
            for _ in range(ACCEPTED_MAX * 4):
                await client.publish(name, b"42", qos=qos)
            other.cancel()
        return turns

    assert run(loop, publish_beside_another()) >= 4
