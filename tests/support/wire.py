"""A raw MQTT client on a blocking socket: it does exactly what a test says, and nothing by itself.

No reconnecting, no hidden acknowledgement: a test cuts the connection between any two packets. The
helpers that do complete a handshake (``publish``, ``messages``, …) say so.
"""

import itertools
import socket
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Final, Protocol, Self

from tests.support import packets
from tests.support.broker import BrokerProcess
from tests.support.packets import V5, V311, Packet, Properties, Will

PATIENCE_S: Final = 15.0  # an upper bound only: no test waits for it when all is well
WINDOW: Final = 20  # messages that ``publish_all`` keeps in flight
FOREVER_S: Final = 3600  # a session that outlives every test

_markers = itertools.count(1)


class Dial(Protocol):
    """Opens a raw connection that the test need not close; see the fixture ``dial``."""

    def __call__(self, broker: BrokerProcess, level: int) -> "Wire": ...


class Closed(Exception):
    """The server closed the connection while the test waited for a packet."""


class Wire:
    """One connection, not yet a session: nothing is sent before the test says so.

    It is opened to the port, unless a socket that is ``opened`` is given, of TLS for instance.
    """

    def __init__(self, port: int, level: int = V5, opened: socket.socket | None = None) -> None:
        self.level = level
        self.socket = opened or socket.create_connection(("127.0.0.1", port), PATIENCE_S)
        self.port = port
        self.address = ""
        if self.socket.family != socket.AF_UNIX:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.address = f"127.0.0.1:{self.socket.getsockname()[1]}"
        self._buffer = bytearray()
        self._read: deque[Packet] = deque()
        self._packet_ids = itertools.cycle(range(1, 65536))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.cut()

    # Packets

    def send(self, *parts: bytes) -> None:
        self.socket.sendall(b"".join(parts))

    def receive(self, timeout_s: float = PATIENCE_S) -> Packet:
        """The next packet; Closed if there is none to come, TimeoutError if none came."""
        while not self._read:
            self.socket.settimeout(timeout_s)
            try:
                data = self.socket.recv(1 << 20)
            except ConnectionError:
                data = b""
            if not data:
                raise Closed(
                    f"the server closed; unread bytes: {self._buffer[:40].hex() or 'none'}"
                )
            self._buffer += data
            self._read.extend(packets.split(self._buffer, self.level))
        return self._read.popleft()

    def expect(self, kind: int, timeout_s: float = PATIENCE_S) -> Packet:
        """The very next packet, which has to be of this kind."""
        found = self.receive(timeout_s)
        assert found.kind == kind, f"expected {packets.NAMES[kind]}, got {found}"
        return found

    def wait_for(self, *kinds: int) -> Packet:
        """The next packet of these kinds; those before it stay to be received, in their order."""
        passed = []
        while (found := self.receive()).kind not in kinds:
            passed.append(found)
        self._read.extendleft(reversed(passed))
        return found

    @property
    def unread(self) -> list[Packet]:
        """What has come and has not been taken."""
        return list(self._read)

    def until_closed(self, timeout_s: float = PATIENCE_S) -> list[Packet]:
        """What the server still sends before it closes the connection, as it has to."""
        found = []
        try:
            while True:
                found.append(self.receive(timeout_s))
        except Closed:
            self.socket.close()
            return found

    def cut(self) -> None:
        """Close the connection as a lost network or a dead client would: no DISCONNECT."""
        self.socket.close()

    # Handshakes, each run to its end

    def hello(
        self,
        client_id: str,
        *,
        clean: bool = False,
        keep_alive_s: int = 0,
        will: Will | None = None,
        expiry_s: int | None = None,
        values: Properties | None = None,
    ) -> Packet:
        """Connect and return the CONNACK, which accepts.

        In 5.0 a session that is not ``clean`` lasts for ever, unless ``expiry_s`` says otherwise:
        what 3.1.1 means by Clean Session 0.
        """
        if expiry_s is None:
            expiry_s = 0 if clean else FOREVER_S
        merged = dict(values or {})
        if expiry_s:
            merged[packets.SESSION_EXPIRY] = expiry_s
        self.send(
            packets.connect(
                client_id,
                self.level,
                clean=clean,
                keep_alive_s=keep_alive_s,
                will=will,
                values=merged,
            )
        )
        connack = self.expect(packets.CONNACK)
        assert connack.code == 0, f"refused: {connack}"
        return connack

    def subscribe(self, topic_filter: str, options: int = 0) -> Packet:
        """Subscribe and return the SUBACK, which accepts."""
        packet_id = next(self._packet_ids)
        self.send(packets.subscribe(packet_id, [(topic_filter, options)], self.level))
        suback = self.wait_for(packets.SUBACK)
        assert suback.packet_id == packet_id
        assert suback.codes == (options & 3,), f"refused: {suback}"
        return suback

    def unsubscribe(self, topic_filter: str) -> Packet:
        packet_id = next(self._packet_ids)
        self.send(packets.unsubscribe(packet_id, [topic_filter], self.level))
        unsuback = self.wait_for(packets.UNSUBACK)
        assert unsuback.packet_id == packet_id
        return unsuback

    def ping(self) -> None:
        self.send(packets.pingreq())
        self.wait_for(packets.PINGRESP)

    def goodbye(self) -> None:
        """DISCONNECT, and wait until the server has closed too."""
        self.send(packets.disconnect(self.level))
        self.until_closed()

    def publish(
        self, topic: str, payload: bytes | str, qos: int = 1, *, retain: bool = False
    ) -> None:
        """Publish one message, up to its last acknowledgement."""
        self.publish_all(topic, [payload], qos, retain=retain)

    def publish_all(
        self,
        topic: str,
        payloads: Iterable[bytes | str],
        qos: int = 1,
        *,
        retain: bool = False,
        window: int = WINDOW,
    ) -> None:
        """Publish many, at most ``window`` in flight, up to the last acknowledgement."""
        in_flight: set[int] = set()
        for payload in payloads:
            data = payload.encode() if isinstance(payload, str) else payload
            packet_id = None if qos == 0 else next(self._packet_ids)
            self.send(
                packets.publish(
                    topic, data, self.level, qos=qos, packet_id=packet_id, retain=retain
                )
            )
            if packet_id is not None:
                in_flight.add(packet_id)
            while len(in_flight) >= window:
                self._acknowledged(in_flight, qos)
        while in_flight:
            self._acknowledged(in_flight, qos)

    def publish_until_pubrec(self, topic: str, payload: bytes, packet_id: int) -> None:
        """Publish at QoS 2, and stop when PUBREC has come: the broker owns the message."""
        self.send(packets.publish(topic, payload, self.level, qos=2, packet_id=packet_id))
        assert self.wait_for(packets.PUBREC).packet_id == packet_id

    def _acknowledged(self, in_flight: set[int], qos: int) -> None:
        """Take the next answer to what is in flight."""
        answer = self.wait_for(packets.PUBACK if qos == 1 else packets.PUBREC, packets.PUBCOMP)
        assert answer.packet_id in in_flight, f"not in flight: {answer}"
        assert answer.code < 0x80, f"refused: {answer}"
        if answer.kind == packets.PUBREC:
            self.send(packets.acknowledge(packets.PUBREL, answer.packet_id))
        else:
            in_flight.remove(answer.packet_id)

    def finish(self, message: Packet) -> None:
        """Acknowledge one PUBLISH, up to the end of its handshake."""
        if message.qos == 1:
            self.send(packets.acknowledge(packets.PUBACK, message.packet_id))
        if message.qos == 2:
            self.send(packets.acknowledge(packets.PUBREC, message.packet_id))
            assert self.wait_for(packets.PUBREL).packet_id == message.packet_id
            self.send(packets.acknowledge(packets.PUBCOMP, message.packet_id))

    def messages(self, count: int) -> list[Packet]:
        """The next ``count`` messages, each acknowledged to the end of its handshake."""
        return self._take(lambda got: len(got) >= count)

    def until(self, payload: bytes) -> list[Packet]:
        """The messages up to and including one with this payload, each acknowledged."""
        return self._take(lambda got: bool(got) and got[-1].payload == payload)

    def until_all(self, topics: set[str]) -> list[Packet]:
        """The messages until each of these topics has had one, each acknowledged."""
        return self._take(lambda got: topics <= {one.topic for one in got})

    def _take(self, is_enough: Callable[[list[Packet]], bool]) -> list[Packet]:
        got: list[Packet] = []
        held: set[int] = set()
        while not is_enough(got) or held:
            found = self.receive()
            if found.kind == packets.PUBREL:
                held.discard(found.packet_id)
                self.send(packets.acknowledge(packets.PUBCOMP, found.packet_id))
                continue
            assert found.kind == packets.PUBLISH, f"expected a message, got {found}"
            if found.qos == 1:
                self.send(packets.acknowledge(packets.PUBACK, found.packet_id))
            if found.qos == 2:
                self.send(packets.acknowledge(packets.PUBREC, found.packet_id))
                if found.packet_id in held:
                    continue
                held.add(found.packet_id)
            got.append(found)
        return got

    def until_marker(self, topic: str, *, qos: int = 1) -> list[Packet]:
        """The messages that were still to come: a marker goes to ``topic``, and ends them.

        A session gets the messages of one topic in their order, so it comes behind all of them.
        """
        marker = f"marker {next(_markers)}".encode()
        say(self.port, topic, marker, qos=qos)
        return self.until(marker)[:-1]

    def nothing_but(self, topic: str, expected: Sequence[bytes] = (), *, qos: int = 1) -> None:
        """Nothing more comes than ``expected``, as a marker shows that is published now."""
        found = self.until_marker(topic, qos=qos)
        assert contents(found) == [*expected], [str(one) for one in found]


def say(
    port: int,
    topic: str,
    *payloads: bytes | str,
    qos: int = 1,
    retain: bool = False,
    level: int = V5,
) -> None:
    """Publish from a connection of its own that comes with an empty session and goes again."""
    with Wire(port, level) as wire:
        wire.hello(f"say-{next(_markers)}", clean=True)
        wire.publish_all(topic, payloads, qos, retain=retain)
        wire.goodbye()


def absent(port: int, client_id: str, topic_filter: str, qos: int, level: int = V5) -> None:
    """Leave a persistent session with one subscription behind, its client gone."""
    with Wire(port, level) as wire:
        assert not wire.hello(client_id).session_present
        wire.subscribe(topic_filter, qos)
        wire.goodbye()


def contents(found: Iterable[Packet]) -> list[bytes]:
    return [one.payload for one in found]


def numbered(count: int, start: int = 1) -> list[bytes]:
    """Payloads that show their order: b"1", b"2", …"""
    return [b"%d" % n for n in range(start, start + count)]


LEVELS: Final = (V311, V5)
LEVEL_NAMES: Final = ("3.1.1", "5.0")
