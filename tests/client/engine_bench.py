"""An engine without a network: the test is the transport and the server at its other end."""

import asyncio
from pathlib import Path
from typing import TypeVar

from holdfast.client.commits import Commits, OutboxStore
from holdfast.client.connection import ClientConnection
from holdfast.client.engine import Engine
from holdfast.client.incoming import ReceivedMessage
from holdfast.client.options import OutboxLimits
from holdfast.client.outbox import OutboxFile
from holdfast.client.outgoing import Outgoing
from holdfast.client.receipt import Receipt
from holdfast.errors import HoldfastError, ProtocolError, StoreError
from holdfast.message import Properties
from holdfast.protocol.decode import decode
from holdfast.protocol.encode import encode
from holdfast.protocol.framer import PACKET_BYTES_MAX, Framer
from holdfast.protocol.packets import MQTT_5_0, Connack, Connect, Packet

NOW_MS = 1_700_000_000_000
P = TypeVar("P", bound=Packet)


class Bench:
    """An engine, offline until ``connect``."""

    def __init__(
        self,
        store: OutboxStore | None = None,
        limits: OutboxLimits | None = None,
        *,
        in_flight_max: int = 65_000,
        manual_ack: bool = False,
    ) -> None:
        self.delivered: list[ReceivedMessage] = []
        self.failures: list[HoldfastError] = []
        self.engine = Engine(
            store=store,
            limits=limits or OutboxLimits(),
            in_flight_max=in_flight_max,
            manual_ack=manual_ack,
            deliver=self.delivered.extend,
            notify=lambda: None,
            broken=self._broken,
            failed=self.failures.append,
        )
        if store is not None:
            loaded = store.load()
            self.engine.start(loaded, loaded.client_id)
        self._connections = 0
        self._sent: list[Packet] = []
        self._framer = Framer(PACKET_BYTES_MAX)

    # --- the application

    def publish(
        self, payload: bytes = b"x", qos: int = 1, *, queued_at_ms: int = 0, expires_at_ms: int = 0
    ) -> Receipt:
        """Accept a message, as ``publish_nowait`` does where there is room."""
        entry = Outgoing("a", payload, qos, False, None, expires_at_ms, queued_at_ms or NOW_MS)
        self.engine.accept(entry)
        return Receipt(self.engine, entry)

    # --- the network

    def connect(self, *, present: bool = False, receive_maximum: int | None = None) -> None:
        """Connect to a server."""
        self._connections += 1
        self._framer = Framer(PACKET_BYTES_MAX)
        engine = self.engine
        connect = Connect("c", MQTT_5_0, clean_start=False)
        connection = ClientConnection(
            self._connections, connect, engine.sending, engine.receiving, uses_aliases=False
        )
        engine.connected(connection, self)
        properties = Properties()
        properties.receive_maximum = receive_maximum
        self.server(Connack(present, 0, properties))

    def lose(self) -> None:
        """Lose the connection."""
        self.engine.disconnected()

    def write(self, data: bytes) -> None:
        """What the engine writes."""
        self._framer.feed(data)
        while self._framer.next_frame():
            framer = self._framer
            self._sent.append(decode(framer.buffer, framer.start, framer.end, MQTT_5_0))

    def server(self, *packets: Packet) -> None:
        """The server sends these."""
        self.engine.receive(b"".join(encode(packet, MQTT_5_0) for packet in packets))

    async def sent(self, kind: type[P], count: int = 1) -> list[P]:
        """The next packets that the engine writes, all of a kind; waits until so many are there."""
        while len(self._sent) < count:
            await turns(1)
        found, self._sent = self._sent[:count], self._sent[count:]
        matching = [packet for packet in found if isinstance(packet, kind)]
        assert len(matching) == count, found
        return matching

    @property
    def commits(self) -> Commits:
        """Those of the engine's file."""
        commits = self.engine._commits
        assert commits is not None
        return commits

    async def quiet(self) -> None:
        """Let the engine and the thread of its file do what they can; nothing may be written."""
        await idle(self.engine)
        assert self._sent == []

    def _broken(self, error: ProtocolError) -> None:
        raise AssertionError(error)


async def turns(count: int = 5) -> None:
    """Let the loop run through so often."""
    for _ in range(count):
        await asyncio.sleep(0)


async def idle(engine: Engine) -> None:
    """Wait until the jobs are done that the thread of the outbox file has now."""
    await turns()
    if engine._commits is not None:
        done = asyncio.get_running_loop().create_future()
        engine._commits._worker.submit(lambda: None, lambda _result, _error: done.set_result(None))
        await done
    await turns()


def outbox_content(path: Path) -> list[int]:
    """The numbers of the messages in an outbox file that nobody has open."""
    file = OutboxFile(path)
    try:
        return [entry.seq for entry in file.load().outgoing]
    finally:
        file.close()


def error_of(receipt: Receipt) -> StoreError | None:
    """Why a message could not be stored."""
    error = receipt._entry.error
    assert error is None or isinstance(error, StoreError)
    return error
