"""`holdfast bench pub`: clients that publish, and what the server acknowledges."""

import asyncio
import secrets
import time
from functools import partial
from typing import TYPE_CHECKING, Final, final

from holdfast.cli.bench.figures import Histogram, Rate
from holdfast.cli.bench.load import Load, numbered
from holdfast.cli.bench.stamp import STAMP_BYTES, write_stamp

if TYPE_CHECKING:
    from holdfast import Client, Receipt

__all__ = ["Publishing"]

# How long the last acknowledgements are waited for.
LAST_ACKS_S: Final = 5.0


@final
class Publishing:
    """What all clients have published, and how long the server took to acknowledge it."""

    def __init__(
        self,
        template: str,
        *,
        qos: int,
        retain: bool,
        size: int,
        rate: float,
        count: int | None,
        duration_s: float | None,
    ) -> None:
        self._template = template
        self._qos = qos
        self._retain = retain
        self._size = size
        self._rate = rate
        self._left = count
        self._duration_s = duration_s
        self._publisher = secrets.randbits(63)
        self._latency = Histogram()
        self._sent = Rate()
        self._acknowledged = Rate()
        self._refused = 0
        self._refusal = ""  # the first one

    async def work(self, load: Load) -> None:
        """Publish until it is over, and wait for what was not acknowledged yet."""
        try:
            async with asyncio.timeout(self._duration_s), asyncio.TaskGroup() as group:
                for number, client in enumerate(load.clients):
                    group.create_task(self._publish(client, number), name=f"bench-pub-{number}")
        except TimeoutError:
            pass  # The duration is over.
        try:
            async with asyncio.timeout(LAST_ACKS_S):
                await asyncio.gather(*(client.drain() for client in load.clients))
        except TimeoutError:
            pass  # What is missing is told.
        await asyncio.sleep(0)  # for the last callbacks

    async def _publish(self, client: "Client", number: int) -> None:
        topic = numbered(self._template, number)
        filler = bytes(max(self._size - STAMP_BYTES, 0))
        publisher, qos, retain, size = self._publisher + number, self._qos, self._retain, self._size
        begun_s = time.perf_counter()
        published = 0
        while self._left is None or self._left > 0:
            if self._left is not None:
                self._left -= 1
            if self._rate:
                early_s = begun_s + published / self._rate - time.perf_counter()
                if early_s > 0:
                    await asyncio.sleep(early_s)
            payload = (write_stamp(publisher, published, time.time_ns()) + filler)[:size]
            sent_ns = time.perf_counter_ns()
            receipt = await client.publish(topic, payload, qos, retain)
            published += 1
            self._sent.add(len(payload))
            if qos:
                receipt.add_done_callback(partial(self._done, sent_ns))

    def _done(self, sent_ns: int, receipt: "Receipt") -> None:
        if receipt.stage != "done":
            self._refused += 1
            self._refusal = self._refusal or f": {receipt.reason}"
            return
        self._acknowledged.add(0)
        self._latency.add((time.perf_counter_ns() - sent_ns) // 1000)

    def figures(self) -> dict[str, object]:
        """For JSON."""
        values = {
            "qos": self._qos,
            "payload_bytes": self._size,
            "published": self._sent.count,
            "published_per_s": self._sent.per_s,
            "bytes_per_s": self._sent.bytes_per_s,
        }
        if self._qos:
            values |= {
                "acknowledged": self._acknowledged.count,
                "acknowledged_per_s": self._acknowledged.per_s,
                "refused": self._refused,
                "unanswered": self._unanswered,
            }
        return values | ({"latency_ms": self._latency.milliseconds()} if self._qos else {})

    def text(self) -> list[tuple[str, str]]:
        """For people."""
        lines = [("published", self._sent.text())]
        if self._qos:
            lines += [
                ("acknowledged", self._acknowledged.text()),
                ("refused", f"{self._refused}{self._refusal}"),
                ("unanswered", f"{self._unanswered}"),
                ("latency", self._latency.text()),
            ]
        return lines

    @property
    def _unanswered(self) -> int:
        return self._sent.count - self._acknowledged.count - self._refused
