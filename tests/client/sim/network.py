"""A network that delays, cuts at any byte, breaks and goes silent, between clients and a server."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from tests.client.sim.process import Process
    from tests.client.sim.simulation import Simulation


class End(Protocol):
    """The server's end of a connection."""

    def received(self, data: bytes) -> None: ...

    def lost(self) -> None: ...


class Wire:
    """One connection: bytes under way in both directions, in order."""

    def __init__(
        self,
        simulation: "Simulation",
        process: "Process",
        protocol: asyncio.Protocol,
        end: Callable[["Wire"], End],
    ) -> None:
        self.simulation = simulation
        self.process = process
        self.is_cut = False
        self.is_silent = False  # both ends are there, and nothing gets through any more
        self.end = end(self)
        self.transport = VirtualTransport(self, protocol)
        self._protocol = protocol
        self._up: deque[bytes] = deque()
        self._down: deque[bytes] = deque()
        self._up_due_s = 0.0
        self._down_due_s = 0.0

    # --- bytes

    def send_up(self, data: bytes) -> None:
        """The client's machine sends."""
        for piece in self._pieces(data):
            self._up.append(piece)
            self._up_due_s = max(self._up_due_s, self._due_s())
            self.simulation.at(self._up_due_s, self._arrive_up)

    def send_down(self, data: bytes) -> None:
        """The server's machine sends."""
        for piece in self._pieces(data):
            self._down.append(piece)
            self._down_due_s = max(self._down_due_s, self._due_s())
            self.simulation.at(self._down_due_s, self._arrive_down)

    def _pieces(self, data: bytes) -> list[bytes]:
        if self.is_cut or not data:
            return []
        chance = self.simulation.random
        if chance.random() < self.simulation.plan.pieces and len(data) > 1:
            at = chance.randrange(1, len(data))
            return [data[:at], data[at:]]
        return [data]

    def _due_s(self) -> float:
        plan = self.simulation.plan
        return self.simulation.loop.now_s + self.simulation.random.uniform(0, plan.network_s)

    def _arrive_up(self) -> None:
        if self._up and not self.is_silent:
            self.end.received(self._up.popleft())

    def _arrive_down(self) -> None:
        if self._down and not self.is_silent and not self.process.is_dead:
            data = self._down.popleft()
            self.process.point("data came")
            if not self.process.is_dead:
                self.process.run(self._protocol.data_received, data)

    # --- ends

    def close_by_server(self) -> None:
        """The server hangs up; what it has sent arrives before."""
        due_s = max(self._down_due_s, self._due_s())
        self.simulation.at(due_s, self._end, None)

    def close_by_client(self) -> None:
        """The client hangs up; what it has sent arrives before."""
        due_s = max(self._up_due_s, self._due_s())
        self.simulation.at(due_s, self._end, None)

    def break_(self, error: Exception | None) -> None:
        """The connection breaks: of what is under way a part still arrives, on either side."""
        if self.is_cut:
            return
        self._let_arrive(self._up, self.end.received)
        if not self.process.is_dead and not self.is_cut:
            self._let_arrive(
                self._down, lambda data: self.process.run(self._protocol.data_received, data)
            )
        self._end(error)

    def _let_arrive(self, pieces: deque[bytes], take: Callable[[bytes], None]) -> None:
        chance = self.simulation.random
        data = b"".join(pieces)
        pieces.clear()
        if self.is_silent or not data:
            return
        arrived = data[: chance.choice([0, len(data), chance.randrange(len(data) + 1)])]
        if arrived:
            take(arrived)

    def _end(self, error: Exception | None) -> None:
        if self.is_cut:
            return
        self.is_cut = True
        self._up.clear()
        self._down.clear()
        self.simulation.wires.discard(self)
        plan, chance = self.simulation.plan, self.simulation.random
        self.simulation.say(f"{self.process.name}: the connection is gone")
        # The server may learn of it when the client has come back long since, and the reverse.
        self.simulation.after(chance.uniform(0, plan.notice_s), self.end.lost)
        self.simulation.after(
            chance.uniform(0, plan.notice_s / 4), self.transport.connection_lost, error
        )


class VirtualTransport(asyncio.Transport):
    """The client's end. In some lives the socket is full now and then."""

    def __init__(self, wire: Wire, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._wire = wire
        self._protocol = protocol
        self._buffer: list[bytes] = []  # what the socket has not taken
        self._is_closing = False
        self._is_lost = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """It pauses as soon as anything waits."""

    def get_write_buffer_size(self) -> int:
        return sum(len(data) for data in self._buffer)

    def is_closing(self) -> bool:
        return self._is_closing

    def get_extra_info(self, name: str, default: object = None) -> object:
        return default

    def pause_reading(self) -> None:
        raise NotImplementedError

    def write(self, data: bytes | bytearray | memoryview) -> None:
        wire = self._wire
        process = wire.process
        if self._is_closing or self._is_lost:
            return
        process.point("before a write")
        if process.is_dead:
            return
        wire.simulation.wrote(wire, bytes(data))
        if self._buffer:
            self._buffer.append(bytes(data))
        elif wire.simulation.random.random() < wire.simulation.plan.full_sockets:
            self._buffer.append(bytes(data))
            self._protocol.pause_writing()
            wire.simulation.after(wire.simulation.plan.network_s, self._empty)
        else:
            wire.send_up(bytes(data))
        process.point("after a write")

    def close(self) -> None:
        if self._is_closing or self._is_lost or self._wire.process.is_dead:
            return
        self._is_closing = True
        self._empty()
        self._wire.close_by_client()

    def abort(self) -> None:
        if self._is_lost or self._wire.process.is_dead:
            return
        self._is_closing = True
        self._buffer.clear()
        self._wire.break_(None)

    def connection_lost(self, error: Exception | None) -> None:
        if self._is_lost or self._wire.process.is_dead:
            return
        self._is_lost = True
        self._is_closing = True
        self._wire.process.run(self._protocol.connection_lost, error)

    def _empty(self) -> None:
        """The socket takes what waits."""
        if not self._buffer or self._wire.process.is_dead or self._is_lost:
            return
        data = b"".join(self._buffer)
        self._buffer.clear()
        self._wire.send_up(data)
        if not self._is_closing:
            self._wire.process.run(self._protocol.resume_writing)
