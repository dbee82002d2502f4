"""`holdfast bench sub`: clients that subscribe, and what comes to them."""

import asyncio
import time
from typing import TYPE_CHECKING, final

from holdfast.cli.bench.figures import Histogram, Rate
from holdfast.cli.bench.load import Load, numbered
from holdfast.cli.bench.stamp import Streams, read_stamp

if TYPE_CHECKING:
    from holdfast import Client, Subscription

__all__ = ["Subscribing"]


@final
class Subscribing:
    """What came to all clients, how old it was, and what did not come."""

    def __init__(
        self, templates: list[str], *, qos: int, count: int | None, duration_s: float | None
    ) -> None:
        self._templates = templates
        self._qos = qos
        self._count = count
        self._duration_s = duration_s
        self._latency = Histogram()
        self._received = Rate()
        self._subscribed = 0
        self._without_stamp = 0
        self._streams: list[Streams] = []
        self._enough = asyncio.Event()

    async def work(self, load: Load) -> None:
        """Subscribe, and receive until it is over."""
        subscriptions = await asyncio.gather(
            *(self._subscribe(client, number) for number, client in enumerate(load.clients))
        )
        tasks = [
            asyncio.create_task(self._receive(subscription), name="bench-sub")
            for subscription in subscriptions
        ]
        try:
            async with asyncio.timeout(self._duration_s):
                await self._enough.wait()
        except TimeoutError:
            pass  # The duration is over.
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _subscribe(self, client: "Client", number: int) -> "Subscription":
        filters = [numbered(template, number) for template in self._templates]
        subscription = await client.subscribe(*filters, qos=self._qos)
        self._subscribed += 1
        return subscription

    async def _receive(self, subscription: "Subscription") -> None:
        streams = Streams()
        self._streams.append(streams)
        received, latency = self._received, self._latency
        async for message in subscription:
            payload = message.payload
            received.add(len(payload))
            if not message.retain and (stamp := read_stamp(payload)) is not None:
                publisher, number, sent_ns = stamp
                latency.add((time.time_ns() - sent_ns) // 1000)
                streams.see(publisher, number)
            else:
                self._without_stamp += 1
            if received.count == self._count:
                self._enough.set()

    @property
    def _lost(self) -> int:
        return sum(streams.lost for streams in self._streams)

    @property
    def _repeated(self) -> int:
        return sum(streams.repeated for streams in self._streams)

    def figures(self) -> dict[str, object]:
        """For JSON."""
        return {
            "qos": self._qos,
            "subscribed": self._subscribed,
            "received": self._received.count,
            "received_per_s": self._received.per_s,
            "bytes_per_s": self._received.bytes_per_s,
            "lost": self._lost,
            "repeated": self._repeated,
            "without_stamp": self._without_stamp,
            "latency_ms": self._latency.milliseconds(),
        }

    def text(self) -> list[tuple[str, str]]:
        """For people."""
        lines = [
            ("subscribed", f"{self._subscribed} clients"),
            ("received", self._received.text()),
            ("lost", f"{self._lost}; repeated or out of order {self._repeated}"),
            ("latency", self._latency.text()),
        ]
        if self._without_stamp:
            lines.append(("unmarked", f"{self._without_stamp} messages of others, or retained"))
        return lines
