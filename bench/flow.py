"""One flow: publishers and their subscribers, run in a closed loop for a time or a count."""

import os
import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bench.endpoints import (
    GroupSubscriber,
    Misbehaved,
    Publisher,
    Publisher0,
    Publisher1,
    Publisher2,
    Subscriber,
    Subscriber2,
    Tally,
)
from bench.wire import (
    CONNACK,
    DISCONNECT,
    MQTT_311,
    REQUEST_PROPERTIES,
    SUBACK,
    connect,
    make_ring,
    receive_maximum,
    split_packet,
    subscribe,
)

HANDSHAKE_TIMEOUT_S: Final = 30.0
STALL_TIMEOUT_S: Final = 30.0  # without any progress
CLOCK_TICKS: Final = os.sysconf("SC_CLK_TCK")
QUIET_S: Final = 0.05  # after the last expected packet, for one too many to show
CHECK_EVERY_S: Final = 0.002
POLL_TIMEOUT_S: Final = 0.05
HOST: Final = "127.0.0.1"
PUBLISHERS: Final[dict[int, type[Publisher0 | Publisher1 | Publisher2]]] = {
    0: Publisher0,
    1: Publisher1,
    2: Publisher2,
}


@dataclass(frozen=True, slots=True)
class Flow:
    """What a flow sends, and for how long.

    With ``limit`` messages it runs until each publisher has sent so many, without warm-up; else
    for ``warmup_s`` and then ``seconds``. ``subscribers`` counts those of each publisher, which
    takes ``spread_over`` topics in turn; its subscribers listen to the first of them alone, so
    there is one topic where there are subscribers. As a ``group`` they share one subscription.
    """

    qos: int
    pairs: int = 1
    subscribers: int = 1
    window: int = 100
    lag: int = 2000
    ring: int = 4096
    durable: bool = False
    version: int = MQTT_311
    warmup_s: float = 0.5
    seconds: float = 2.0
    limit: int = 0
    topic: str = "b"
    spread_over: int = 1
    properties: bool = False  # with REQUEST_PROPERTIES, in 5.0
    group: bool = False
    spin: bool = False  # ask the kernel again and again instead of sleeping until something comes


@dataclass(frozen=True, slots=True)
class FlowResult:
    """What came of it; ``busy`` shares are CPU time per time on the clock, 1 for one core.

    ``others_busy`` is what neither broker nor generator used: the kernel's own threads, and
    whatever else ran on this machine.
    """

    messages: int
    seconds: float
    rate: float
    generator_busy: float
    broker_busy: float
    others_busy: float


@dataclass(frozen=True, slots=True)
class _Mark:
    at: float
    messages: int
    generator_s: float
    broker_s: float
    machine_s: float


def run_flow(flow: Flow, port: int, broker_pid: int) -> FlowResult:
    """Run ``flow`` against the broker at ``port``.

    Raises Misbehaved if a message is lost, repeated, reordered or changed, or if nothing moves.
    """
    poller = select.epoll()
    try:
        run = _Run(flow, port, broker_pid, poller)
        try:
            return run.measure()
        finally:
            run.close()
    finally:
        poller.close()


def open_client(
    port: int, client_id: str, *, version: int = MQTT_311, durable: bool = False
) -> tuple[socket.socket, int]:
    """A connected client and the window it was granted; the socket blocks."""
    sock = socket.create_connection((HOST, port), timeout=HANDSHAKE_TIMEOUT_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(connect(client_id, version=version, durable=durable))
    body = read_packet(sock, CONNACK)
    if body[1] != 0:
        raise Misbehaved(f"CONNECT of {client_id} was refused: 0x{body[1]:02X}")
    return sock, receive_maximum(body, version)


def open_subscriber(
    port: int,
    client_id: str,
    topic_filter: str,
    *,
    qos: int,
    version: int = MQTT_311,
    durable: bool = False,
) -> socket.socket:
    """A connected client with one subscription, granted at ``qos``; the socket blocks."""
    sock, _ = open_client(port, client_id, version=version, durable=durable)
    sock.sendall(subscribe(topic_filter, qos=qos, version=version))
    granted = read_packet(sock, SUBACK)[-1]
    if granted != qos:
        raise Misbehaved(f"SUBSCRIBE of {client_id} was granted 0x{granted:02X}, not {qos}")
    return sock


def read_packet(sock: socket.socket, kind: int) -> bytes:
    """The body of the next packet, which must be of ``kind``; for handshakes, byte by byte."""
    data = b""
    while (packet := split_packet(data)) is None:
        byte = sock.recv(1)
        if not byte:
            raise Misbehaved(f"the broker closed the connection instead of 0x{kind:02X}")
        data += byte
    head, begin, end = packet
    if head != kind:
        raise Misbehaved(f"expected packet 0x{kind:02X}, got {data.hex(' ')}")
    return data[begin:end]


class _Run:
    def __init__(self, flow: Flow, port: int, broker_pid: int, poller: select.epoll) -> None:
        self._flow = flow
        self._port = port
        self._broker_pid = broker_pid
        self._poller = poller
        self._sockets: list[socket.socket] = []
        self._publishers: list[Publisher] = []
        self._subscribers: list[Subscriber] = []
        try:
            for number in range(flow.pairs):
                self._open_pair(number)
        except BaseException:
            self.close()
            raise
        endpoints = [*self._publishers, *self._subscribers]
        self._readable: dict[int, Callable[[], None]] = {e.fd: e.readable for e in endpoints}
        self._writable: dict[int, Callable[[], None]] = {e.fd: e.writable for e in endpoints}

    def measure(self) -> FlowResult:
        flow = self._flow
        begin = self._mark()
        for publisher in self._publishers:
            publisher.fill()
        if flow.limit:
            self._loop(float("inf"), self._is_drained)
            end = self._mark()
        else:
            self._loop(flow.warmup_s, None)
            begin = self._mark()
            self._loop(flow.seconds, None)
            end = self._mark()
            for publisher in self._publishers:
                publisher.stop()
            self._loop(float("inf"), self._is_drained)
        self._loop(QUIET_S, None)
        for publisher in self._publishers:
            publisher.check_group()
        if not self._is_drained():
            raise Misbehaved("packets arrived that nothing asked for")
        seconds = end.at - begin.at
        generator_busy = (end.generator_s - begin.generator_s) / seconds
        broker_busy = (end.broker_s - begin.broker_s) / seconds
        machine_busy = (end.machine_s - begin.machine_s) / seconds
        return FlowResult(
            messages=end.messages - begin.messages,
            seconds=seconds,
            rate=(end.messages - begin.messages) / seconds,
            generator_busy=generator_busy,
            broker_busy=broker_busy,
            others_busy=max(0.0, machine_busy - generator_busy - broker_busy),
        )

    def close(self) -> None:
        for sock in self._sockets:
            try:
                sock.send(DISCONNECT)
            except OSError:
                pass  # It is gone already, and the reason is on its way up.
            sock.close()

    def _open_pair(self, number: int) -> None:
        flow = self._flow
        assert flow.spread_over == 1 or flow.subscribers == 0
        prefix = f"{flow.topic}/{number:03d}"
        topics = [f"{prefix}/{index:03d}" for index in range(flow.spread_over)]
        ring = make_ring(
            topics,
            qos=flow.qos,
            version=flow.version,
            count=flow.ring,
            publisher=number,
            properties=REQUEST_PROPERTIES if flow.properties else b"",
        )
        tally = Tally(ring)
        listeners: list[Subscriber] = []
        for index in range(flow.subscribers):
            name = f"{flow.topic}-sub-{number}-{index}"
            sock = open_subscriber(
                self._port,
                name,
                f"$share/bench/{topics[0]}" if flow.group else topics[0],
                qos=flow.qos,
                version=flow.version,
                durable=flow.durable,
            )
            self._sockets.append(sock)
            if flow.group:
                assert flow.qos < 2
                listeners.append(GroupSubscriber(sock, self._poller, name, ring=ring, tally=tally))
            else:
                kind = Subscriber2 if flow.qos == 2 else Subscriber
                listeners.append(kind(sock, self._poller, name, ring=ring))
        name = f"{flow.topic}-pub-{number}"
        sock, granted = open_client(self._port, name, version=flow.version)
        self._sockets.append(sock)
        self._publishers.append(
            PUBLISHERS[flow.qos](
                sock,
                self._poller,
                name,
                ring=ring,
                window=flow.lag if flow.qos == 0 else min(flow.window, granted),
                lag=flow.lag,
                limit=flow.limit or 1 << 60,
                subscribers=listeners,
            )
        )
        self._subscribers += listeners

    def _loop(self, seconds: float, is_done: Callable[[], bool] | None) -> None:
        """Serve the sockets for ``seconds``, or until ``is_done``."""
        poll, readable = self._poller.poll, self._readable
        timeout_s = 0 if self._flow.spin else POLL_TIMEOUT_S
        by_lag = self._publishers if self._flow.qos == 0 else []
        now = time.perf_counter()
        end, check_at, moved, moved_at = now + seconds, now, -1, now
        while now < end:
            for fd, event in poll(timeout_s):
                if event & ~select.EPOLLOUT:
                    readable[fd]()
                if event & select.EPOLLOUT:
                    self._writable[fd]()
            for publisher in by_lag:
                publisher.fill()
            now = time.perf_counter()
            if now >= check_at:
                check_at = now + CHECK_EVERY_S
                if is_done is not None and is_done():
                    return
                if (messages := self._messages()) != moved:
                    moved, moved_at = messages, now
                elif now - moved_at > STALL_TIMEOUT_S and not self._is_drained():
                    raise Misbehaved(f"nothing moves any more: {self._standing()}")

    def _messages(self) -> int:
        """Messages that are through: delivered, and acknowledged where the QoS has that."""
        delivered = sum(subscriber.delivered for subscriber in self._subscribers)
        if self._flow.qos == 0:
            return delivered
        finished = sum(publisher.finished for publisher in self._publishers)
        if not self._subscribers:
            return finished
        copies = 1 if self._flow.group else self._flow.subscribers
        return min(finished * copies, delivered)

    def _is_drained(self) -> bool:
        if self._flow.qos > 0:
            for publisher in self._publishers:
                if publisher.finished != publisher.sent:
                    return False
        if self._flow.limit and any(p.sent != p.limit for p in self._publishers):
            return False
        for subscriber in self._subscribers:
            assert subscriber.feeder is not None
            if subscriber.feeder.slowest() != subscriber.feeder.sent:
                return False
            if self._flow.qos == 2 and subscriber.released != subscriber.delivered:
                return False
        return True

    def _standing(self) -> str:
        sent = sum(publisher.sent for publisher in self._publishers)
        finished = sum(publisher.finished for publisher in self._publishers)
        delivered = sum(subscriber.delivered for subscriber in self._subscribers)
        return f"{sent} sent, {finished} acknowledged, {delivered} delivered"

    def _mark(self) -> _Mark:
        return _Mark(
            time.perf_counter(),
            self._messages(),
            time.process_time(),
            cpu_seconds(self._broker_pid),
            machine_cpu_seconds(),
        )


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used, to a clock tick; 0 once it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            fields = stat.read().rpartition(b")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


def machine_cpu_seconds() -> float:
    """CPU time that everything on this machine has used, of all cores, to a clock tick."""
    with open("/proc/stat", "rb") as stat:
        user, nice, system, _idle, _iowait, irq, softirq = map(int, stat.readline().split()[1:8])
    return (user + nice + system + irq + softirq) / CLOCK_TICKS
