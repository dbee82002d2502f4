"""The messages that a client has promised to send, and how far each of them is.

Source: MQTT 5.0 §4.3, §4.4, §4.9.
"""

from typing import Final, final

from mypy_extensions import i64

from holdfast.errors import HoldfastError
from holdfast.message import NEVER, Properties, content_bytes_of

# How far a message is. It only grows, but for what is sent again over a new connection.
ACCEPTED: Final = 0  # it is not durable yet, and not sent
STORED: Final = 1  # it waits for its turn
SENT: Final = 2  # PUBLISH was sent, PUBACK or PUBREC is awaited
RELEASED: Final = 3  # PUBREC came, PUBCOMP is awaited
DONE: Final = 4  # written to the network (QoS 0), or acknowledged
FAILED: Final = 5  # refused by the server, dropped or expired: it is not sent any more

STAGE_NAMES: Final = ("accepted", "stored", "sent", "released", "done", "failed")

# Identifiers above are for SUBSCRIBE and UNSUBSCRIBE, which do not outlive the connection.
PUBLISH_ID_MAX: Final = 65_279


@final
class Outgoing:
    """One message on its way out.

    ``seq`` counts the messages of QoS 1 and 2 from 1 and is 0 for QoS 0. It gives the packet
    identifier, so that both are durable in one insert and a message that is sent again after a
    crash has the identifier that it had. Times are Unix time in milliseconds. ``watcher`` belongs
    to whoever wants to know its end; what nobody watches need not be reported.
    """

    def __init__(
        self,
        topic: str,
        payload: bytes,
        qos: int,
        retain: bool,
        properties: Properties | None,
        expires_at_ms: int,
        queued_at_ms: int,
    ) -> None:
        self.seq = 0
        self.packet_id = 0
        self.topic = topic
        self.payload = payload
        self.qos = qos
        self.retain = retain
        self.properties = properties
        self.expires_at_ms = expires_at_ms
        self.queued_at_ms = queued_at_ms
        self.size: i64 = len(topic) + content_bytes_of(payload, properties)
        self.stage: i64 = ACCEPTED
        self.release: i64 = 0  # counts the PUBRECs of this process; 0 for one of before
        self.is_repeat = False  # it may have been sent before, over an earlier connection
        self.reason_code: i64 = 0
        self.reason = ""  # why it failed, or what the server said
        self.error: HoldfastError | None = None  # why it could not be stored
        self.watcher: object = None

    def number(self, seq: int) -> None:
        """Give it its place among the messages of QoS 1 and 2, and with it its identifier."""
        assert self.qos > 0
        self.seq = seq
        self.packet_id = 1 + seq % PUBLISH_ID_MAX

    @property
    def stage_name(self) -> str:
        """The stage in one word."""
        return STAGE_NAMES[self.stage]

    def is_expired(self, now_ms: int) -> bool:
        """Whether nobody wants it any more."""
        return self.expires_at_ms != NEVER and self.expires_at_ms <= now_ms


@final
class Queue:
    """What waits to be sent, in order; what has failed meanwhile is still in it."""

    def __init__(self) -> None:
        self._entries: list[Outgoing] = []
        self._head: i64 = 0  # before it are those taken out

    def __len__(self) -> int:
        return len(self._entries) - self._head

    def append(self, entry: Outgoing) -> None:
        """Put one behind all others."""
        self._entries.append(entry)

    def first(self) -> Outgoing | None:
        """The next one to be sent."""
        return self._entries[self._head] if self._head < len(self._entries) else None

    def first_seq(self) -> int:
        """The ``seq`` of the first one of QoS 1 or 2 that has not failed; 0 if there is none."""
        for index in range(self._head, len(self._entries)):
            entry = self._entries[index]
            if entry.seq > 0 and entry.stage != FAILED:
                return entry.seq
        return 0

    def take(self) -> None:
        """Take the first one out."""
        self._head += 1
        if self._head == len(self._entries):
            self._entries.clear()
            self._head = 0
        elif self._head >= 1024 and self._head * 2 >= len(self._entries):
            del self._entries[: self._head]
            self._head = 0

    def put_before(self, entries: list[Outgoing]) -> None:
        """Put these before all others."""
        self._entries[: self._head] = entries
        self._head = 0

    def forget_failed(self) -> None:
        """Let go of what has failed."""
        self._entries = [entry for entry in self.waiting() if entry.stage != FAILED]
        self._head = 0

    def waiting(self) -> list[Outgoing]:
        """All of them, in order."""
        return self._entries[self._head :]
