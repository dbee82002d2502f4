"""How fast one client may publish: it is slowed down, and let go if that does not help.

What is above the rate stays in the connection's framer, its socket is not read, and TCP slows the
client down. Nothing it sends is lost for that, and its own silence is not held against it.
"""

from typing import Final, final

from holdfast.broker.connection import CLOSED, Connection
from holdfast.broker.counters import Counters
from holdfast.broker.deadlines import PUBLISH_ROOM, Deadlines
from holdfast.broker.events import INFO, Event
from holdfast.broker.listener_rules import PublishLimits
from holdfast.errors import Refused
from holdfast.protocol.reason_codes import MESSAGE_RATE_TOO_HIGH, QUOTA_EXCEEDED

HOLD_MS: Final = 50  # worth of messages that a client waits for, so that it is not woken for each
# The longest time between two looks at a connection: one that has gone leaves its deadline behind.
HOLD_LOOK_MS: Final = 10_000
SLICE_PACKETS_MAX: Final = 32  # of a client with a rate, for their bytes count afterwards


@final
class PublishRate:
    """Two token buckets of one client; both begin full, and may be overdrawn by one slice."""

    def __init__(self, limits: PublishLimits, now_ms: int) -> None:
        self.limits = limits
        self.is_for_bytes = False  # which of them is empty, when one is
        self.over_since_ms = -1  # since when it was held back again and again, -1 if it is not
        self._messages = float(limits.messages_burst)
        self._bytes = float(limits.bytes_burst)
        self._at_ms = now_ms

    def room(self, now_ms: int) -> int:
        """How many packets may be taken now; 0 if it has to wait."""
        limits = self.limits
        passed_ms = now_ms - self._at_ms
        self._at_ms = now_ms
        is_calm = True
        room = SLICE_PACKETS_MAX
        if limits.messages_per_s > 0:
            if passed_ms > 0:
                more = passed_ms * limits.messages_per_s / 1000.0
                self._messages = min(self._messages + more, float(limits.messages_burst))
            is_calm = self._messages >= limits.messages_burst / 2.0
            room = max(0, min(int(self._messages), SLICE_PACKETS_MAX))
            if room == 0:
                self.is_for_bytes = False
        if limits.bytes_per_s > 0:
            if passed_ms > 0:
                more = passed_ms * limits.bytes_per_s / 1000.0
                self._bytes = min(self._bytes + more, float(limits.bytes_burst))
            is_calm = is_calm and self._bytes >= limits.bytes_burst / 2.0
            if room > 0 and self._bytes <= 0:
                self.is_for_bytes = True
                room = 0
        if is_calm:
            self.over_since_ms = -1
        return room

    def take(self, messages: int, size: int) -> None:
        """So many have been taken, with so many bytes."""
        self._messages -= messages
        self._bytes -= size

    def wait_ms(self) -> int:
        """How long it takes until there is room again."""
        limits = self.limits
        wait_ms = 0.0
        if limits.messages_per_s > 0:
            wanted = min(
                max(1.0, limits.messages_per_s * HOLD_MS / 1000.0), float(limits.messages_burst)
            )
            wait_ms = (wanted - self._messages) * 1000.0 / limits.messages_per_s
        if limits.bytes_per_s > 0:
            wanted = min(max(1.0, limits.bytes_per_s * HOLD_MS / 1000.0), float(limits.bytes_burst))
            wait_ms = max(wait_ms, (wanted - self._bytes) * 1000.0 / limits.bytes_per_s)
        return max(1, int(wait_ms) + 1)


@final
class Rates:
    """Holds connections back that publish faster than they may."""

    def __init__(
        self,
        connections: dict[int, Connection],
        deadlines: Deadlines,
        counters: Counters,
        events: list[Event],
    ) -> None:
        self._connections = connections
        self._deadlines = deadlines
        self._counters = counters
        self._events = events

    def begin(self, connection: Connection, former: Connection | None, now_ms: int) -> None:
        """Watch over a client that is let in; from ``former``, which it takes over, it inherits."""
        limits = connection.rules.publish_limits
        if limits is None:
            return
        if former is not None and former.rate is not None and former.rate.limits is limits:
            connection.rate = former.rate
        else:
            connection.rate = PublishRate(limits, now_ms)

    def hold(self, connection: Connection, rate: PublishRate, now_ms: int) -> None:
        """Take nothing more from a connection until there is room.

        Raises Refused when it has been above its rate for longer than is put up with.
        """
        limits = rate.limits
        bound = f"{limits.messages_per_s} messages"
        if rate.is_for_bytes:
            bound = f"{limits.bytes_per_s} bytes"
        if rate.over_since_ms < 0:
            rate.over_since_ms = now_ms
            self._counters.held_back += 1
            text = f"slowed down: it publishes more than {bound} per second"
            self._events.append(Event(INFO, text, connection.client_id, connection.address))
        elif 0 < limits.patience_ms <= now_ms - rate.over_since_ms:
            self._counters.too_fast += 1
            code = QUOTA_EXCEEDED if rate.is_for_bytes else MESSAGE_RATE_TOO_HIGH
            patience_s = limits.patience_ms // 1000
            raise Refused(
                code, f"expected at most {bound} per second, more came for {patience_s} s"
            )
        connection.is_held = True
        due_ms = now_ms + min(rate.wait_ms(), HOLD_LOOK_MS)
        if limits.patience_ms > 0:
            due_ms = min(due_ms, rate.over_since_ms + limits.patience_ms)
        self._deadlines.add(due_ms, PUBLISH_ROOM, connection.number)

    def due(self, number: int) -> Connection | None:
        """The connection of a deadline, if it goes on now."""
        connection = self._connections.get(number)
        if connection is None or not connection.is_held or connection.state == CLOSED:
            return None
        connection.is_held = False
        return connection
