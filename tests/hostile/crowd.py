"""Thousands of connections of one attacker, on sockets that never block."""

import errno
import select
import socket
import struct
import time
from types import TracebackType
from typing import Final, Self

_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: a close is a reset
_AT_ONCE: Final = 1000  # connections begun before their predecessors are waited for
_PATIENCE_S: Final = 30.0


class Crowd:
    """``count`` open connections to one port."""

    def __init__(self, port: int, count: int) -> None:
        self.sockets: dict[int, socket.socket] = {}
        self.closed = 0  # by the server
        self.received: dict[int, bytearray] = {}
        self._poll = select.epoll()
        left = count
        while left > 0:
            group = [_begin(port) for _ in range(min(left, _AT_ONCE))]
            left -= len(group)
            for one in group:
                _await_connected(one)
                self.sockets[one.fileno()] = one
                self._poll.register(one.fileno(), select.EPOLLIN)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for one in self.sockets.values():
            one.close()
        self._poll.close()

    def send_each(self, data: bytes) -> int:
        """Send to all that are open; how many took all of it."""
        taken = 0
        for one in self.sockets.values():
            try:
                taken += one.send(data) == len(data)
            except (BlockingIOError, ConnectionError):
                pass
        return taken

    def look(self, timeout_s: float = 0.0) -> None:
        """Take what the server has sent, and note whom it has closed."""
        for number, _ in self._poll.poll(timeout_s, max(len(self.sockets), 1)):
            one = self.sockets[number]
            try:
                data = one.recv(1 << 16)
            except BlockingIOError:
                continue
            except ConnectionError:
                data = b""
            if data:
                self.received.setdefault(number, bytearray()).extend(data)
            else:
                self.closed += 1
                self._poll.unregister(number)
                del self.sockets[number]
                one.close()

    def until_closed(self, count: int) -> None:
        """Wait until the server has closed so many."""
        deadline_s = time.monotonic() + _PATIENCE_S
        while self.closed < count:
            assert time.monotonic() < deadline_s, f"only {self.closed} of {count} are closed"
            self.look(0.05)

    def reset_all(self) -> None:
        """Drop every connection without a farewell."""
        for one in self.sockets.values():
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            one.close()
        self.sockets.clear()


def _begin(port: int) -> socket.socket:
    one = socket.socket()
    one.setblocking(False)
    code = one.connect_ex(("127.0.0.1", port))
    assert code in (0, errno.EINPROGRESS), errno.errorcode[code]
    return one


def _await_connected(one: socket.socket) -> None:
    poll = select.poll()
    poll.register(one.fileno(), select.POLLOUT)
    assert poll.poll(_PATIENCE_S * 1000), "the server takes no connections"
    code = one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    assert code == 0, errno.errorcode[code]
