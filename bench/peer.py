"""The ceiling's other end: a peer that does the least a broker could, on the broker's core.

It forwards PUBLISH packets as they are to the subscribers of their topic and acknowledges them by
slicing, without looking at one, storing one or choosing identifiers. What the load generator
reaches against it is what generator and kernel are capable of here: a broker's figure near it says
more about them than about the broker. Run as ``python -m bench.peer``; prints its port.
"""

import select
import socket
from typing import Final

from bench.flow import HOST
from bench.wire import (
    ACK_BYTES,
    DISCONNECT,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    Ring,
    make_acks,
    run_length,
    split_packet,
    turn_acks,
)

RECEIVE_BYTES_MIN: Final = 4 * 1024
RECEIVE_BYTES_MAX: Final = 256 * 1024
BACKLOG: Final = 1024


class Peer:
    """Listens, and knows who subscribed to what."""

    def __init__(self) -> None:
        self.listener = socket.create_server((HOST, 0), backlog=BACKLOG)
        self.poller = select.epoll()
        self.poller.register(self.listener.fileno(), select.EPOLLIN)
        self.connections: dict[int, Connection] = {}
        self.subscribers: dict[bytes, list[Connection]] = {}

    def serve(self) -> None:
        """Serve until the process is ended."""
        listening = self.listener.fileno()
        while True:
            for fd, event in self.poller.poll():
                if fd == listening:
                    sock, _ = self.listener.accept()
                    connection = Connection(self, sock)
                    self.connections[sock.fileno()] = connection
                    self.poller.register(sock.fileno(), select.EPOLLIN)
                    continue
                try:
                    if event & select.EPOLLOUT:
                        self.connections[fd].flush()
                    if event & ~select.EPOLLOUT:
                        self.connections[fd].readable()
                except ConnectionError:
                    self.forget(fd)

    def forget(self, fd: int) -> None:
        """Let go of a connection that ended."""
        connection = self.connections.pop(fd)
        for listeners in self.subscribers.values():
            if connection in listeners:
                listeners.remove(connection)
        self.poller.unregister(fd)
        connection.sock.close()


class Connection:
    """One client: first its handshake, then all PUBLISHes or all acknowledgements."""

    def __init__(self, peer: Peer, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self._peer = peer
        self._unsent = bytearray()
        self._tail = b""
        self._chunk = RECEIVE_BYTES_MIN
        self._version = 0
        self._ring: Ring | None = None  # the shape of this publisher's packets, without content
        self._targets: list[Connection] = []

    def readable(self) -> None:
        """Take and answer what came; raises ConnectionError at the end."""
        data = self.sock.recv(self._chunk)
        if not data:
            raise ConnectionResetError
        if len(data) == self._chunk:
            # A large buffer costs something even where little arrives, so it grows when needed.
            self._chunk = min(2 * self._chunk, RECEIVE_BYTES_MAX)
        data = self._tail + data
        if self._ring is None:
            data = self._shake_hands(data)
        self._tail = self._publishes(data, self._ring) if self._ring else self._acks(data)

    def send(self, data: bytes | bytearray) -> None:
        """Send, or keep what does not fit."""
        if self._unsent:
            self._unsent += data
            return
        try:
            taken = self.sock.send(data)
        except BlockingIOError:
            taken = 0
        if taken != len(data):
            self._unsent += data[taken:]
            self._peer.poller.modify(self.sock.fileno(), select.EPOLLIN | select.EPOLLOUT)

    def flush(self) -> None:
        """Send what was kept."""
        waiting, self._unsent = self._unsent, bytearray()
        self._peer.poller.modify(self.sock.fileno(), select.EPOLLIN)
        self.send(waiting)

    def _shake_hands(self, data: bytes) -> bytes:
        """Answer CONNECT and SUBSCRIBE; what begins with something else is left over."""
        at = 0
        while (packet := split_packet(data, at)) is not None:
            head, begin, end = packet
            body = data[begin:end]
            properties = b"\0" if self._version == 5 else b""
            if head == 0x10:
                self._version = body[6]
                properties = b"\0" if self._version == 5 else b""
                self.send(bytes((0x20, 2 + len(properties), 0, 0)) + properties)
            elif head == 0x82:
                topic = body[2 + len(properties) + 2 : -1]
                self._peer.subscribers.setdefault(topic, []).append(self)
                self.send(bytes((0x90, 3 + len(properties), 0, 1)) + properties + body[-1:])
            elif head & 0xF0 == PUBLISH:
                length = int.from_bytes(body[:2], "big")
                self._targets = self._peer.subscribers.get(body[2 : 2 + length], [])
                qos = head >> 1 & 3
                self._ring = Ring(qos, end - at, 0, begin - at + 2 + length, b"", b"")
                break
            elif head & 0xF0 in (PUBACK, PUBREC, PUBREL & 0xF0, PUBCOMP):
                break
            at = end
        return data[at:]

    def _publishes(self, data: bytes, ring: Ring) -> bytes:
        if ring.qos == 0:
            for target in self._targets:
                target.send(data)
            return b""
        if ring.qos == 1:
            whole = len(data) - len(data) % ring.size
            if data[:1] == DISCONNECT[:1]:
                return b""
            self.send(make_acks(PUBACK, data[:whole], ring))
            for target in self._targets:
                target.send(data[:whole])
            return data[whole:]
        at, answer, messages = 0, bytearray(), b""
        while at < len(data):
            size = ring.size if data[at] == PUBLISH | 4 else ACK_BYTES
            end = at + run_length(data, at, size) * size
            if end == at:
                break
            if data[at] == PUBLISH | 4:
                answer += make_acks(PUBREC, data[at:end], ring)
                messages += data[at:end]
            else:
                answer += turn_acks(PUBCOMP, data[at:end])
            at = end
        self.send(answer)
        for target in self._targets:
            target.send(messages)
        return data[at:]

    def _acks(self, data: bytes) -> bytes:
        """Answer the PUBRECs of a subscriber; its PUBACKs and PUBCOMPs need nothing."""
        at = 0
        while n := run_length(data, at, ACK_BYTES):
            end = at + n * ACK_BYTES
            if data[at] == PUBREC:
                self.send(turn_acks(PUBREL, data[at:end]))
            at = end
        return data[at:]


if __name__ == "__main__":
    server = Peer()
    print(f"ready on {HOST}:{server.listener.getsockname()[1]}", flush=True)
    server.serve()
