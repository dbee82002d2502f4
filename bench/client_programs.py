"""Each client library as a program that publishes or receives, written as its manual advises.

``python -m bench.client_programs LIBRARY TASK`` connects to a ``bench.client_peer`` and obeys lines
of JSON: ``publish`` so many, serially or many at once; ``expect`` so many, and ``wait`` for them.
TASK is a ``Task`` in JSON. A library gets a process of its own and is imported there alone, so that
the memory is its own.
"""

import asyncio
import importlib
import json
import os
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from bench.client_task import HOST, RING_COUNT, TOPIC, Task, ring_of
from bench.wire import MQTT_311, PAYLOAD_BYTES

TIMEOUT_S: Final = 60.0
GMQTT_WRITE_EVERY: Final = 1000  # messages of QoS 0; the whole range of 500 to 4000 is as fast


class Tally:
    """Compares what is received with what must come, and tells when all of it has."""

    def __init__(self, payloads: list[bytes]) -> None:
        self.received = 0
        self.goal = 0
        self.wrong = 0
        self.end = 0.0
        self.is_reached = threading.Event()
        self._payloads = payloads

    def expect(self, count: int) -> None:
        self.is_reached.clear()
        self.goal = self.received + count

    def take(self, payload: object) -> None:
        if payload != self._payloads[self.received % RING_COUNT]:
            self.wrong += 1
        self.received += 1
        if self.received == self.goal:
            self.end = time.perf_counter()
            self.is_reached.set()


class Stretch:
    """The time and the CPU time from its making to its result."""

    def __init__(self) -> None:
        self._cpu_s = time.process_time()
        self._begin = time.perf_counter()

    def result(self, end: float | None = None) -> dict[str, object]:
        """``end`` is now unless it is given. Peak memory is that of the process's whole life."""
        return {
            "begin": self._begin,
            "end": time.perf_counter() if end is None else end,
            "cpu_s": time.process_time() - self._cpu_s,
            "peak_bytes": peak_bytes(),
        }


class Program(ABC):
    """A library's client, connected for one task."""

    def __init__(self, task: Task) -> None:
        self.task = task
        ring = ring_of(task.qos, MQTT_311)
        self.payloads = [
            ring.packets[at + ring.size - PAYLOAD_BYTES : at + ring.size]
            for at in range(0, ring.count * ring.size, ring.size)
        ]
        self.tally = Tally(self.payloads)
        self.sent = 0
        self.stretch = Stretch()

    def serve(self) -> None:
        """Connect, obey, leave."""
        self.open()
        _answer("connected")
        for line in sys.stdin:
            order = json.loads(line)
            if order["do"] == "publish":
                self.stretch = Stretch()
                self.publish(order["count"])
                _answer(self.stretch.result())
            elif order["do"] == "expect":
                self.expect(order["count"])
            else:
                self.wait()
                self.tell_received()

    def expect(self, count: int) -> None:
        """Be ready for so many messages."""
        self.tally.expect(count)
        self.stretch = Stretch()
        _answer(None)

    def tell_received(self) -> None:
        """Answer what came of it, if it was what had to come."""
        tally = self.tally
        if tally.wrong or tally.received != tally.goal:
            told = f"{tally.received} of {tally.goal} messages came, {tally.wrong} of them wrong"
            print(json.dumps({"error": told}), flush=True)
        else:
            _answer(self.stretch.result(tally.end))

    @abstractmethod
    def open(self) -> None:
        """Connect, and subscribe if the task is to receive."""

    @abstractmethod
    def publish(self, count: int) -> None:
        """Publish so many; returns when the last is through."""

    def wait(self) -> None:
        """Return when all expected messages are there."""
        if not self.tally.is_reached.wait(TIMEOUT_S):
            raise TimeoutError(f"{self.tally.received} of {self.tally.goal} messages came")


class Paho(Program):
    """paho-mqtt: its network loop in a thread, publish from the main thread, on_publish counts.

    Without its own limit in flight, which looks through all messages at each acknowledgement as
    long as they are fewer than the limit; the window is kept here instead.
    """

    def open(self) -> None:
        from paho.mqtt.client import Client, MQTTMessage
        from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

        is_ready = threading.Event()
        self._done = 0
        self._wake_at = 0
        self._got_on = threading.Event()
        client = Client(
            CallbackAPIVersion.VERSION2, client_id="bench", protocol=MQTTProtocolVersion.MQTTv311
        )
        client.max_inflight_messages_set(0)

        def on_connect(*_: object) -> None:
            if self.task.is_receiving:
                client.subscribe(TOPIC, self.task.qos)
            else:
                is_ready.set()

        def on_publish(*_: object) -> None:
            self._done += 1
            if self._done == self._wake_at:
                self._got_on.set()

        def on_message(_client: Client, _data: object, message: MQTTMessage) -> None:
            self.tally.take(message.payload)

        client.on_connect = on_connect
        client.on_subscribe = lambda *_: is_ready.set()
        client.on_publish = on_publish
        client.on_message = on_message
        client.connect(HOST, self.task.port)
        client.loop_start()
        self._client = client
        if not is_ready.wait(TIMEOUT_S):
            raise TimeoutError("paho does not connect")

    def publish(self, count: int) -> None:
        publish, payloads, qos = self._client.publish, self.payloads, self.task.qos
        if self.task.window == 1:
            for number in range(self.sent, self.sent + count):
                publish(TOPIC, payloads[number % RING_COUNT], qos).wait_for_publish(TIMEOUT_S)
        else:
            window = self.task.window
            for number in range(self.sent, self.sent + count):
                if number - self._done >= window:
                    self._wait_for(number - window // 2)
                publish(TOPIC, payloads[number % RING_COUNT], qos)
            self._wait_for(self.sent + count)
        self.sent += count

    def _wait_for(self, done: int) -> None:
        """Wait until so many are through, without asking the lock for each."""
        self._got_on.clear()
        self._wake_at = done
        if self._done < done and not self._got_on.wait(TIMEOUT_S):
            raise TimeoutError(f"{self._done} of {done} messages are through")


class AsyncProgram(Program):
    """A client on a uvloop of its own; the thread that reads the orders sleeps meanwhile."""

    def serve(self) -> None:
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve())

    def open(self) -> None:
        raise NotImplementedError

    def publish(self, count: int) -> None:
        raise NotImplementedError

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        self._is_reached = asyncio.Event()
        self.tally.is_reached = self._is_reached  # type: ignore[assignment]  # set() is all it uses
        await self.open_async()
        _answer("connected")
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            order = json.loads(line)
            if order["do"] == "publish":
                self.stretch = Stretch()
                await self.publish_async(order["count"])
                self.sent += order["count"]
                _answer(self.stretch.result())
            elif order["do"] == "expect":
                self.expect(order["count"])
            else:
                async with asyncio.timeout(TIMEOUT_S):
                    await self._is_reached.wait()
                self.tell_received()

    @abstractmethod
    async def open_async(self) -> None:
        """As ``open``."""

    @abstractmethod
    async def publish_async(self, count: int) -> None:
        """As ``publish``."""


class Aiomqtt(AsyncProgram):
    """aiomqtt: as many tasks publish as may be in flight, each waiting for its message.

    Every publish counts all that are under way, so more of them make it slower.
    """

    async def open_async(self) -> None:
        import aiomqtt

        client = aiomqtt.Client(HOST, self.task.port, identifier="bench", max_inflight_messages=0)
        client.pending_calls_threshold = self.task.window + 1  # else it warns of each
        self._client = await client.__aenter__()
        if self.task.is_receiving:
            await client.subscribe(TOPIC, self.task.qos)
            self._task = asyncio.create_task(self._receive())

    async def _receive(self) -> None:
        take = self.tally.take
        async for message in self._client.messages:
            take(message.payload)

    async def publish_async(self, count: int) -> None:
        publish, payloads, qos = self._client.publish, self.payloads, self.task.qos
        numbers = iter(range(self.sent, self.sent + count))

        async def publish_in_turn() -> None:
            for number in numbers:
                await publish(TOPIC, payloads[number % RING_COUNT], qos)

        await asyncio.gather(*(publish_in_turn() for _ in range(self.task.window)))


class Gmqtt(AsyncProgram):
    """gmqtt: it publishes at once and has no window, so a batch is sent, then awaited as a whole.

    In MQTT 3.1.1, in which it does less for each packet than in 5.0.
    """

    async def open_async(self) -> None:
        # It has no types, and is imported by name so that its absence is its own row's failure.
        gmqtt: Any = importlib.import_module("gmqtt")
        storage: Any = importlib.import_module("gmqtt.storage")
        self._storage = storage.PersistentStorage()
        client = gmqtt.Client("bench", persistent_storage=self._storage)
        is_subscribed = asyncio.Event()
        take = self.tally.take

        def on_message(
            _client: object, _topic: str, payload: bytes, _qos: int, _properties: object
        ) -> None:
            take(payload)

        client.on_message = on_message
        client.on_subscribe = lambda *_: is_subscribed.set()
        await client.connect(HOST, self.task.port, version=MQTT_311)
        self._client = client
        if self.task.is_receiving:
            client.subscribe(TOPIC, qos=self.task.qos)
            await is_subscribed.wait()

    async def publish_async(self, count: int) -> None:
        publish, payloads, qos = self._client.publish, self.payloads, self.task.qos
        end, size = self.sent + count, self.task.window
        if qos == 0:
            size = min(size, GMQTT_WRITE_EVERY)
        for first in range(self.sent, end, size):
            for number in range(first, min(first + size, end)):
                publish(TOPIC, payloads[number % RING_COUNT], qos=qos)
            if qos == 0:
                await asyncio.sleep(0)  # The one way to let the loop write.
            else:
                await self._storage.wait_empty()


class Holdfast(AsyncProgram):
    """Holdfast's own client, in MQTT 5.0, its default."""

    async def open_async(self) -> None:
        from holdfast import Client

        client = Client(
            f"mqtt://{HOST}:{self.task.port}", client_id="bench", outbox=self.task.outbox
        )
        self._client = await client.__aenter__()
        if self.task.is_receiving:
            self._subscription = await client.subscribe(TOPIC, qos=self.task.qos)
            self._task = asyncio.create_task(self._receive())

    async def _receive(self) -> None:
        take = self.tally.take
        async for message in self._subscription:
            take(message.payload)

    async def publish_async(self, count: int) -> None:
        publish, payloads, qos = self._client.publish, self.payloads, self.task.qos
        numbers = iter(range(self.sent, self.sent + count))
        if self.task.window == 1:
            for number in numbers:
                await (await publish(TOPIC, payloads[number % RING_COUNT], qos=qos))
        elif self.task.outbox is None:
            for number in numbers:
                await publish(TOPIC, payloads[number % RING_COUNT], qos=qos)
            await self._client.drain(timeout_s=TIMEOUT_S)
        else:

            async def publish_in_turn() -> None:
                for number in numbers:
                    await publish(TOPIC, payloads[number % RING_COUNT], qos=qos)

            await asyncio.gather(*(publish_in_turn() for _ in range(self.task.window)))
            await self._client.drain(timeout_s=TIMEOUT_S)


class Raw(Program):
    """No client at all: the load generator's endpoint, which shows what the peer is capable of."""

    def open(self) -> None:
        import select
        import socket

        from bench import endpoints
        from bench.client_peer import Publisher0Alone
        from bench.flow import PUBLISHERS, open_client, open_subscriber

        task = self.task
        ring = ring_of(task.qos, MQTT_311)
        self._poller = poller = select.epoll()
        self._endpoint: endpoints.Endpoint
        self._sock: socket.socket
        if task.is_receiving:
            self._sock = open_subscriber(task.port, "bench", TOPIC, qos=task.qos)
            kind = endpoints.Subscriber2 if task.qos == 2 else endpoints.Subscriber
            self._subscriber = kind(self._sock, poller, "raw", ring=ring)
            self._endpoint = self._subscriber
        else:
            self._sock, _ = open_client(task.port, "bench")
            maker = PUBLISHERS[task.qos] if task.qos else Publisher0Alone
            self._publisher = maker(
                self._sock,
                poller,
                "raw",
                ring=ring,
                window=task.window,
                lag=task.window,
                limit=0,
                subscribers=[],
            )
            self._endpoint = self._publisher

    def publish(self, count: int) -> None:
        from bench.client_peer import Publisher0Alone

        publisher = self._publisher
        publisher.limit += count
        publisher.fill()
        if isinstance(publisher, Publisher0Alone):
            self._turn_until(lambda: publisher.is_done)
        else:
            self._turn_until(lambda: publisher.finished == publisher.limit)

    def wait(self) -> None:
        subscriber, tally = self._subscriber, self.tally
        self._turn_until(
            lambda: (
                (subscriber.released if self.task.qos == 2 else subscriber.delivered) == tally.goal
            )
        )
        tally.received = subscriber.delivered
        tally.end = time.perf_counter()

    def _turn_until(self, is_done: Callable[[], bool]) -> None:
        import select

        while not is_done():
            for _, event in self._poller.poll(TIMEOUT_S):
                if event & select.EPOLLOUT:
                    self._endpoint.writable()
                if event & ~select.EPOLLOUT:
                    self._endpoint.readable()


PROGRAMS: Final[dict[str, type[Program]]] = {
    "holdfast": Holdfast,
    "paho": Paho,
    "aiomqtt": Aiomqtt,
    "gmqtt": Gmqtt,
    "raw": Raw,
}


def peak_bytes() -> int:
    """The most resident memory this process had; ru_maxrss would count its parent's before."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("the kernel does not tell VmHWM")


def main(arguments: list[str]) -> int:
    """Serve the task; what breaks it is its last answer."""
    try:
        PROGRAMS[arguments[0]](Task(**json.loads(arguments[1]))).serve()
    except Exception as error:  # Whatever a library raises is why its row has no figure.
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), flush=True)
        return 1
    return 0


def _answer(ok: object) -> None:
    print(json.dumps({"ok": ok}), flush=True)


if __name__ == "__main__":
    # Nothing is awaited at the end: threads and connections of the library go with the process.
    code = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(code)
