"""What a measured client does, and the messages it does it with: known to both its ends."""

from dataclasses import dataclass
from typing import Final

from bench.wire import Ring, make_ring

HOST: Final = "127.0.0.1"
TOPIC: Final = "sensors/hall/temperature"
RING_COUNT: Final = 4096  # different payloads


@dataclass(frozen=True, slots=True)
class Task:
    """What the client does until it ends: it publishes or receives messages of one QoS.

    ``window``: how many messages are on their way at most; 1 waits for each to be through before
    the next. ``outbox``: the file of a durable outbox, for the client that has one.
    """

    port: int
    qos: int
    is_receiving: bool
    window: int
    outbox: str | None = None


def ring_of(qos: int, version: int, properties: bytes = b"") -> Ring:
    """The packets that go either way."""
    return make_ring([TOPIC], qos=qos, version=version, count=RING_COUNT, properties=properties)
