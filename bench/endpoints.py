"""Publishers and subscribers of the load generator: closed loops over non-blocking sockets.

Each endpoint takes what its socket brought as one block, checks it whole against its ring, and
answers with one send. A broker that loses, repeats, reorders or changes a message is found out by
the comparison: ``Misbehaved`` says what was expected.
"""

import select
import socket
from abc import ABC, abstractmethod
from collections import defaultdict
from typing import Final

from bench.wire import (
    ACK_BYTES,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    Ring,
    ack_ring,
    make_acks,
    run_length,
    turn_acks,
    without_ids,
)

RECEIVE_BYTES_MAX: Final = 256 * 1024
ACKS: Final = (PUBACK, PUBREC, PUBREL, PUBCOMP)
# The identifiers of one block in so many are checked for doubles; each check costs a microsecond
# per ten messages, so checking all would slow the generator down.
SAMPLE_EVERY: Final = 32
SAMPLE_PACKETS: Final = 64


class Misbehaved(Exception):
    """The broker did what MQTT does not allow, so its figure would mean nothing."""


class Endpoint(ABC):
    """A connected socket in the poller, with what the kernel has not taken yet."""

    def __init__(self, sock: socket.socket, poller: select.epoll, name: str) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.fd = sock.fileno()
        self.name = name
        self.unsent = bytearray()
        self.tail = b""
        self._poller = poller
        poller.register(self.fd, select.EPOLLIN)

    @abstractmethod
    def readable(self) -> None:
        """Take what the socket brought and answer it."""

    def writable(self) -> None:
        """Hand the kernel more of what it has not taken."""
        del self.unsent[: self._offer(self.unsent)]
        if not self.unsent:
            self._poller.modify(self.fd, select.EPOLLIN)

    def send(self, data: bytes | bytearray | memoryview) -> None:
        """Send, or keep what does not fit. Takes a copy of what it keeps."""
        if self.unsent:
            self.unsent += data
            return
        taken = self._offer(data)
        if taken != len(data):
            self.unsent += data[taken:]
            self._poller.modify(self.fd, select.EPOLLIN | select.EPOLLOUT)

    def receive(self, size: int) -> bytes:
        """What arrived, after what was left over from last time."""
        try:
            data = self.sock.recv(size)
        except BlockingIOError:
            data = b""
        else:
            if not data:
                raise Misbehaved(f"the broker closed the connection of {self.name}")
        if self.tail:
            data = self.tail + data
            self.tail = b""
        return data

    def _offer(self, data: bytes | bytearray | memoryview) -> int:
        try:
            return self.sock.send(data)
        except BlockingIOError:
            return 0


class Subscriber(Endpoint):
    """Counts the messages of one ring as they arrive, at QoS 0 or 1, and acknowledges them."""

    def __init__(self, sock: socket.socket, poller: select.epoll, name: str, *, ring: Ring) -> None:
        super().__init__(sock, poller, name)
        self.ring = ring
        self.delivered = 0  # messages
        self.released = 0  # of QoS 2: those whose PUBREL came
        self.feeder: Publisher | None = None
        self._chunk = min(RECEIVE_BYTES_MAX, ring.count * ring.size)
        self._blocks = 0

    def readable(self) -> None:
        data = self.receive(self._chunk)
        whole = len(data) - len(data) % self.ring.size
        if whole != len(data):
            self.tail = data[whole:]
            data = data[:whole]
        if not data:
            return
        if self.ring.qos > 0:
            self.send(make_acks(PUBACK, data, self.ring))
        self.check(data)
        if self.feeder is not None and self.feeder.is_held:
            self.feeder.fill()

    def check(self, packets: bytes) -> None:
        """Count whole PUBLISH packets, which must be the next ones of the ring."""
        ring = self.ring
        n = len(packets) // ring.size
        at = self.delivered % ring.count * ring.size
        seen = packets if ring.qos == 0 else without_ids(packets, ring)
        if seen != ring.blank[at : at + len(packets)]:
            raise Misbehaved(self._difference(seen, at))
        self.delivered += n
        self._blocks += 1
        if ring.qos > 0 and self._blocks % SAMPLE_EVERY == 0:
            self._check_ids(packets)

    def _check_ids(self, packets: bytes) -> None:
        acks = bytes(make_acks(PUBACK, packets, self.ring))
        ids = [acks[at : at + 2] for at in range(2, len(acks), ACK_BYTES)][:SAMPLE_PACKETS]
        if len(set(ids)) != len(ids) or b"\0\0" in ids:
            raise Misbehaved(f"{self.name} got packet identifiers that are zero or in use")

    def _difference(self, seen: bytes | bytearray, at: int) -> str:
        size = self.ring.size
        for start in range(0, len(seen), size):
            wanted = self.ring.blank[at + start : at + start + size]
            got = bytes(seen[start : start + size])
            if got != wanted:
                number = self.delivered + start // size
                return f"{self.name}: message {number} should be {wanted!r} and is {got!r}"
        return f"{self.name}: more messages than were published"


class Tally:
    """How often each message of a ring came to any member of a group."""

    def __init__(self, ring: Ring) -> None:
        size = ring.size
        self.delivered = 0
        self.counts = [0] * ring.count
        self.index: dict[bytes, int] = {
            ring.blank[at : at + size]: at // size for at in range(0, ring.count * size, size)
        }

    def check(self, sent: int) -> None:
        """Each message came once to one of them."""
        rounds, rest = divmod(sent, len(self.counts))
        for index, count in enumerate(self.counts):
            wanted = rounds + (index < rest)
            if count != wanted:
                raise Misbehaved(f"message {index} should have come {wanted} times, not {count}")


class GroupSubscriber(Subscriber):
    """A member of a shared subscription: which messages it is given is the broker's affair."""

    def __init__(
        self, sock: socket.socket, poller: select.epoll, name: str, *, ring: Ring, tally: Tally
    ) -> None:
        super().__init__(sock, poller, name, ring=ring)
        self.tally = tally

    def check(self, packets: bytes) -> None:
        """Count whole PUBLISH packets, which must be of the ring."""
        size, tally = self.ring.size, self.tally
        seen = bytes(packets if self.ring.qos == 0 else without_ids(packets, self.ring))
        for at in range(0, len(seen), size):
            index = tally.index.get(seen[at : at + size])
            if index is None:
                raise Misbehaved(f"{self.name} got {seen[at : at + size]!r}, which was not sent")
            tally.counts[index] += 1
        self.delivered += len(seen) // size
        tally.delivered += len(seen) // size


class Subscriber2(Subscriber):
    """The receiver of QoS 2: PUBLISH and PUBREL arrive mixed and are taken in runs."""

    def __init__(self, sock: socket.socket, poller: select.epoll, name: str, *, ring: Ring) -> None:
        super().__init__(sock, poller, name, ring=ring)
        self._expected = bytearray()  # PUBRELs for the PUBRECs sent, in order [MQTT-4.6.0-3]

    def readable(self) -> None:
        data, ring = self.receive(self._chunk), self.ring
        at, answer = 0, bytearray()
        while at < len(data):
            kind = data[at]
            size = ring.size if kind == PUBLISH | 4 else ACK_BYTES
            end = at + run_length(data, at, size) * size
            if end == at:
                break
            run = data[at:end]
            if kind == PUBLISH | 4:
                acks = make_acks(PUBREC, run, ring)
                answer += acks
                self._expected += turn_acks(PUBREL, acks)
                self.check(run)
            elif run == self._expected[: len(run)]:
                del self._expected[: len(run)]
                answer += turn_acks(PUBCOMP, run)
                self.released += len(run) // ACK_BYTES
            else:
                raise Misbehaved(f"{self.name}: expected PUBREL in order, got {run[:4].hex(' ')}")
            at = end
        self.tail = data[at:]
        if answer:
            self.send(answer)
        if self.feeder is not None and self.feeder.is_held:
            self.feeder.fill()


class Publisher(Endpoint):
    """Sends its ring round and round, never more than its windows allow.

    ``window``: messages sent and not finished by the broker's acknowledgements (QoS 1 and 2).
    ``lag``: messages sent and not delivered to the slowest of its subscribers.
    """

    def __init__(
        self,
        sock: socket.socket,
        poller: select.epoll,
        name: str,
        *,
        ring: Ring,
        window: int,
        lag: int,
        limit: int,
        subscribers: list[Subscriber],
    ) -> None:
        super().__init__(sock, poller, name)
        assert min(window, lag if subscribers else window) <= ring.count
        self.ring = ring
        self.window = window
        self.lag = lag
        self.limit = limit
        self.sent = 0
        self.finished = 0  # acknowledged to the end
        self.is_held = False  # by its subscribers, who call fill when they got on
        self._subscribers = subscribers
        self._view = memoryview(ring.packets)
        self._chunk = 2 * ACK_BYTES * ring.count
        self._queued = self._view[:0]  # of QoS 0: what the kernel has not taken
        self._acks = defaultdict(bytes, {kind: ack_ring(kind, ring.count) for kind in ACKS})
        for subscriber in subscribers:
            subscriber.feeder = self

    def fill(self) -> None:
        """Send what the windows allow now."""
        n = self.room()
        if n > 0:
            self.send(self.next_packets(n))

    def stop(self) -> None:
        """Send nothing new from here on."""
        self.limit = self.sent

    def room(self) -> int:
        """How many messages may be sent now."""
        n = self.window - (self.sent - self.finished)
        if self._subscribers:
            allowed = self.slowest() + self.lag - self.sent
            self.is_held = allowed < n
            n = min(n, allowed)
        return min(n, self.limit - self.sent)

    def slowest(self) -> int:
        """Messages delivered to every one of the subscribers, or to their group."""
        first = self._subscribers[0]
        if isinstance(first, GroupSubscriber):
            return first.tally.delivered
        if len(self._subscribers) == 1:
            return self._subscribers[0].delivered
        return min(subscriber.delivered for subscriber in self._subscribers)

    def check_group(self) -> None:
        """Where the subscribers are a group: each message came to one of them."""
        for subscriber in self._subscribers[:1]:
            if isinstance(subscriber, GroupSubscriber):
                subscriber.tally.check(self.sent)

    def next_packets(self, n: int) -> memoryview:
        """The next ``n`` packets, counted as sent."""
        size = self.ring.size
        at = self.sent % self.ring.count * size
        self.sent += n
        return self._view[at : at + n * size]


class Publisher0(Publisher):
    """QoS 0: bounded by its lag alone, and by what the kernel takes, to the byte."""

    def readable(self) -> None:
        raise Misbehaved(f"{self.name} got {self.receive(64)[:16]!r}, which answers nothing")

    def fill(self) -> None:
        if self._queued:
            return
        self.finished = self.slowest()
        n = self.room()
        if n > 0:
            packets = self.next_packets(n)
            taken = self._offer(packets)
            if taken != len(packets):
                # Unlike Endpoint.send this keeps a view of the ring and copies nothing.
                self._queued = packets[taken:]
                self._poller.modify(self.fd, select.EPOLLIN | select.EPOLLOUT)

    def writable(self) -> None:
        self._queued = self._queued[self._offer(self._queued) :]
        if not self._queued:
            self._poller.modify(self.fd, select.EPOLLIN)
            self.fill()


class Publisher1(Publisher):
    """QoS 1: PUBACKs must come in the order of the packets [MQTT-4.6.0-2]."""

    def readable(self) -> None:
        data = self.receive(self._chunk)
        whole = len(data) - len(data) % ACK_BYTES
        if whole != len(data):
            self.tail = data[whole:]
            data = data[:whole]
        at = self.finished % self.ring.count * ACK_BYTES
        if data != self._acks[PUBACK][at : at + whole]:
            raise Misbehaved(f"{self.name}: expected PUBACKs in order, got {data[:8].hex(' ')}…")
        self.finished += whole // ACK_BYTES
        self.fill()


class Publisher2(Publisher):
    """QoS 2: PUBREC and PUBCOMP arrive mixed, each kind in the order of the packets."""

    received = 0  # PUBRECs

    def readable(self) -> None:
        data, count = self.receive(self._chunk), self.ring.count
        at, begin = 0, self.received
        while n := run_length(data, at, ACK_BYTES):
            kind = data[at]
            end = at + n * ACK_BYTES
            place = (self.received if kind == PUBREC else self.finished) % count * ACK_BYTES
            if kind == PUBREL or data[at:end] != self._acks[kind][place : place + end - at]:
                got = data[at : at + 8].hex(" ")
                raise Misbehaved(f"{self.name}: expected PUBREC or PUBCOMP in order, got {got}…")
            if kind == PUBREC:
                self.received += n
            else:
                self.finished += n
            at = end
        self.tail = data[at:]
        place = begin % count * ACK_BYTES
        answer = self._acks[PUBREL][place : place + (self.received - begin) * ACK_BYTES]
        n = self.room()
        if n > 0:
            answer += self.next_packets(n)
        if answer:
            self.send(answer)
