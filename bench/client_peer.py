"""The other end of a client that is measured: takes its messages, or gives it some, in bulk.

It is made of the load generator's own endpoints, so it does nothing per message and checks every
byte: what a client publishes must be the ring's packets in their order, and its acknowledgements
must come in theirs. Run as ``python -m bench.client_peer take|give QOS WINDOW [spin]`` it prints
its port, serves one connection, and answers each order ``{"count": n}`` once so many further
messages are through.
"""

import gc
import json
import os
import select
import socket
import sys
import time
from typing import Final

from bench.client_task import ring_of
from bench.endpoints import (
    Misbehaved,
    Publisher,
    Publisher0,
    Publisher1,
    Publisher2,
    Subscriber,
    Subscriber2,
)
from bench.flow import HANDSHAKE_TIMEOUT_S, HOST, STALL_TIMEOUT_S, read_packet
from bench.wire import MQTT_5, Ring

SUBSCRIPTION_IDENTIFIER: Final = 0x0B
POLL_TIMEOUT_S: Final = 1.0
STDIN: Final = 0


class Publisher0Alone(Publisher0):
    """QoS 0, held back by the connection alone."""

    def slowest(self) -> int:
        return self.sent

    def fill(self) -> None:
        while self.sent < self.limit and not self._queued:
            super().fill()

    @property
    def is_done(self) -> bool:
        """Whether the kernel has taken everything."""
        return self.sent == self.limit and not self._queued


def main(arguments: list[str]) -> int:
    """Serve one connection until the orders end."""
    role, qos, window = arguments[0], int(arguments[1]), int(arguments[2])
    assert role in ("take", "give")
    with socket.create_server((HOST, 0)) as listener:
        _answer(listener.getsockname()[1])
        listener.settimeout(HANDSHAKE_TIMEOUT_S)
        sock, _ = listener.accept()
    gc.disable()
    with sock:
        sock.settimeout(HANDSHAKE_TIMEOUT_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            version, identifier = shake_hands(sock, is_subscriber=role == "give")
            ring = ring_of(qos, version, identifier)
            poller = select.epoll()
            peer = (
                Giving(sock, poller, ring, window) if role == "give" else Taking(sock, poller, ring)
            )
            peer.serve(is_spinning="spin" in arguments)
        except (Misbehaved, OSError, ValueError) as error:
            print(json.dumps({"error": f"{error}" or type(error).__name__}), flush=True)
            return 1
    return 0


def shake_hands(sock: socket.socket, *, is_subscriber: bool) -> tuple[int, bytes]:
    """Answer CONNECT, and SUBSCRIBE with its one filter.

    Returned are the version that the client speaks, and the Subscription Identifier that it gave,
    as the property that every message for it has to carry.
    """
    version = read_packet(sock, 0x10)[6]
    properties = b"\0" if version == MQTT_5 else b""
    sock.sendall(bytes((0x20, 2 + len(properties), 0, 0)) + properties)
    identifier = b""
    if is_subscriber:
        body = read_packet(sock, 0x82)
        if version == MQTT_5 and body[2] > 0:
            identifier = body[3 : 3 + body[2]]
            if identifier[0] != SUBSCRIPTION_IDENTIFIER or len(identifier) != 2:
                raise Misbehaved(f"expected a small Subscription Identifier, got {identifier!r}")
        granted = body[-1] & 0x03
        sock.sendall(bytes((0x90, 3 + len(properties))) + body[:2] + properties + bytes((granted,)))
    return version, identifier


class Peer:
    """Serves the connection and the orders; ``Taking`` and ``Giving`` know what is done."""

    def __init__(self, endpoint: Publisher | Subscriber, poller: select.epoll) -> None:
        self._endpoint = endpoint
        self._poller = poller
        poller.register(STDIN, select.EPOLLIN)

    def begin(self, count: int) -> None:
        """So many more messages."""
        raise NotImplementedError

    def is_done(self) -> bool:
        """Whether all that was ordered is through."""
        raise NotImplementedError

    def standing(self) -> int:
        """Something that grows while there is progress."""
        raise NotImplementedError

    def serve(self, *, is_spinning: bool) -> None:
        """Obey until the orders end; raises Misbehaved if the client does, or if nothing moves."""
        endpoint, poll, is_busy = self._endpoint, self._poller.poll, False
        began_at = cpu_s = moved_at = 0.0
        moved = -1
        while True:
            for fd, event in poll(0 if is_spinning and is_busy else POLL_TIMEOUT_S):
                if fd == STDIN:
                    line = os.read(STDIN, 4096)
                    if not line:
                        return
                    is_busy, cpu_s, began_at = True, time.process_time(), time.perf_counter()
                    moved, moved_at = -1, began_at
                    self.begin(json.loads(line)["count"])
                    continue
                if event & select.EPOLLOUT:
                    endpoint.writable()
                if event & ~select.EPOLLOUT:
                    endpoint.readable()
            if not is_busy:
                continue
            if self.is_done():
                is_busy, end = False, time.perf_counter()
                cpu_s = time.process_time() - cpu_s
                _answer({"begin": began_at, "end": end, "cpu_s": cpu_s})
            elif (standing := self.standing()) != moved:
                moved, moved_at = standing, time.perf_counter()
            elif time.perf_counter() - moved_at > STALL_TIMEOUT_S:
                raise Misbehaved(f"nothing moves any more, after {standing} messages and acks")


class Taking(Peer):
    """For a client that publishes."""

    def __init__(self, sock: socket.socket, poller: select.epoll, ring: Ring) -> None:
        kind = Subscriber2 if ring.qos == 2 else Subscriber
        self._subscriber = kind(sock, poller, "the peer", ring=ring)
        self._goal = 0
        super().__init__(self._subscriber, poller)

    def begin(self, count: int) -> None:
        self._goal += count

    def is_done(self) -> bool:
        subscriber = self._subscriber
        if subscriber.delivered > self._goal:
            raise Misbehaved(f"{subscriber.delivered} messages came instead of {self._goal}")
        through = subscriber.released if subscriber.ring.qos == 2 else subscriber.delivered
        return through == self._goal

    def standing(self) -> int:
        return self._subscriber.delivered + self._subscriber.released


class Giving(Peer):
    """For a client that subscribes: ``window`` messages of QoS 1 and 2 are in flight."""

    def __init__(self, sock: socket.socket, poller: select.epoll, ring: Ring, window: int) -> None:
        kinds: dict[int, type[Publisher0Alone | Publisher1 | Publisher2]]
        kinds = {0: Publisher0Alone, 1: Publisher1, 2: Publisher2}
        self._publisher = kinds[ring.qos](
            sock,
            poller,
            "the peer",
            ring=ring,
            window=window,
            lag=window,
            limit=0,
            subscribers=[],
        )
        super().__init__(self._publisher, poller)

    def begin(self, count: int) -> None:
        self._publisher.limit += count
        self._publisher.fill()

    def is_done(self) -> bool:
        publisher = self._publisher
        if isinstance(publisher, Publisher0Alone):
            return publisher.is_done
        return publisher.finished == publisher.limit

    def standing(self) -> int:
        return self._publisher.sent + self._publisher.finished


def _answer(ok: object) -> None:
    print(json.dumps({"ok": ok}), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
