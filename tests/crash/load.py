"""Publishers and subscribers that keep their word through crashes, and remember all they saw.

Each is an MQTT client by the book, written apart from Holdfast's own: a publisher resends what is
unacknowledged, with DUP and its original packet identifier, at the step where it was; a subscriber
knows the QoS 2 messages it holds. Their state outlives their connections and the broker's process.
"""

import asyncio
import random
from dataclasses import dataclass
from typing import Final, final

from tests.support import packets
from tests.support.packets import (
    CONNACK,
    DISCONNECT,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    RECEIVE_MAXIMUM,
    SESSION_EXPIRY,
    SUBACK,
    Packet,
    acknowledge,
)

SESSION_S: Final = 3600
READ_BYTES: Final = 1 << 16
WINDOW_MAX: Final = 20  # messages that a publisher keeps in flight
TRACE_LINES_MAX: Final = 120  # of a failure's report
UNAVAILABLE: Final = (3, 0x88)  # in a CONNACK, before 5.0 and in 5.0: the store does not work
# How a client ends a connection that still works. "abandon" leaves it open, so that the next one
# has to take its session over.
WAYS_TO_GO: Final = ("disconnect", "close", "reset", "abandon")


class Broken(AssertionError):
    """A promise was broken; the message has the history of the application message concerned."""


@final
class World:
    """What all clients share: the port, whether the broker is up, a count of events, the history.

    An event is a message that was fully acknowledged to its publisher, or one that arrived at a
    subscriber. Kills are timed by counting them, so that a slow machine sees the same mixture.
    """

    def __init__(self, seed: int) -> None:
        self.port = 0
        self.farewells: frozenset[int] = frozenset()  # with which the broker may end a connection
        self.may_refuse = False  # whether it may be unavailable, and say so
        self.is_up = asyncio.Event()
        self.is_ending = False
        self.is_complete = False  # nothing more will be published
        self.last: dict[str, int] = {}  # by topic: the number of the last message sent to it
        self._random = random.Random(seed)
        self._events = 0
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._history: list[tuple[str, str, bytes]] = []

    def random(self) -> random.Random:
        """A generator of its own for each client, in the order of their making."""
        return random.Random(self._random.getrandbits(64))

    def count(self) -> None:
        self._events += 1
        self._wake()

    def end(self) -> None:
        """Publishers finish what they have begun; nobody pauses any more."""
        self.is_ending = True
        self._wake()

    def _wake(self) -> None:
        still = []
        for at, future in self._waiting:
            if self._events >= at or self.is_ending:
                if not future.done():
                    future.set_result(None)
            else:
                still.append((at, future))
        self._waiting = still

    async def passed(self, events: int) -> None:
        """Wait until so many more events have happened, or the end has come."""
        if not self.is_ending:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((self._events + events, future))
            await future

    def note(self, who: str, what: str, payload: bytes = b"") -> None:
        self._history.append((who, what, payload))

    def history(self, payload: bytes) -> str:
        """All that happened to one message, and to the broker meanwhile, one line each."""
        lines = [
            f"{number:7} {who:12} {what}"
            for number, (who, what, about) in enumerate(self._history)
            if about == payload or who == "broker"
        ]
        if len(lines) > TRACE_LINES_MAX:
            lines[TRACE_LINES_MAX // 2 : -TRACE_LINES_MAX // 2] = ["    …"]
        return "\n".join([f"History of {payload.decode()!r}:", *lines])

    def recent(self, who: str, count: int = 40) -> str:
        """The last that one client, and the broker, did."""
        lines = [
            f"{number:7} {name:12} {what} {about.decode()}"
            for number, (name, what, about) in enumerate(self._history)
            if name in (who, "broker")
        ]
        return "\n".join([f"The last of {who}:", *lines[-count:]])


class Client:
    """A client that connects again whenever its connection ends, until it is done."""

    def __init__(
        self, world: World, name: str, level: int, *, clean: bool = False, receive_maximum: int = 0
    ) -> None:
        self.world = world
        self.name = name
        self.level = level
        self.random = world.random()
        self.is_done = False
        self._clean = clean
        self._receive_maximum = receive_maximum
        self._session_exists: bool | None = False  # None: a CONNECT went unanswered
        self._out = bytearray()
        self._go_after = 0
        self._abandoned: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    # What a kind of client adds to this one.

    def connected(self, connack: Packet) -> None:
        """Say what follows a CONNACK."""
        raise NotImplementedError

    def take(self, packet: Packet) -> None:
        """Handle one packet that came."""
        raise NotImplementedError

    def is_finished(self) -> bool:
        """Whether all is done that this client is here for."""
        raise NotImplementedError

    def stays_for(self) -> int:
        """After how many packets it goes of its own will; 0 for never."""
        raise NotImplementedError

    async def pause(self) -> None:
        """Stay away between two connections."""

    # Connections

    async def run(self) -> None:
        while not self.is_done:
            await self.world.is_up.wait()
            try:
                await self._connect_once()
            except (ConnectionError, EOFError):
                self.world.note(self.name, "connection lost")
            await self.pause()
        if self._abandoned is not None:
            self._abandoned[1].close()

    async def _connect_once(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.world.port)
        way = ""
        try:
            way = await self._converse(reader, writer)
            self.world.note(self.name, f"goes: {way}")
            if way == "abandon":
                self._abandoned = reader, writer
            elif way == "reset":
                writer.transport.abort()
            elif way == "disconnect":
                writer.write(packets.disconnect(self.level))
                while await reader.read(READ_BYTES):
                    pass
        finally:
            self._out.clear()
            if way != "abandon":
                writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        """Hold one connection until this client wants to go; the way in which it goes."""
        values: dict[int, packets.Value] = {}
        if not self._clean:
            values[SESSION_EXPIRY] = SESSION_S
        if self._receive_maximum:
            values[RECEIVE_MAXIMUM] = self._receive_maximum
        expected = False if self._clean else self._session_exists
        if not self._session_exists:
            self._session_exists = None
        self.world.note(self.name, "sends CONNECT")
        writer.write(packets.connect(self.name, self.level, clean=self._clean, values=values))
        buffer, found = bytearray(), list[Packet]()
        while not found:
            found = await self._read(reader, buffer)
        connack = found.pop(0)
        self._check_connack(connack, expected)
        await self._see_takeover()
        self.connected(connack)
        self._go_after = self.stays_for()
        countdown = self._go_after
        while True:
            for packet in found:
                if packet.kind == DISCONNECT:
                    self.world.note(self.name, f"got {packet}")
                    if packet.code in self.world.farewells:
                        raise EOFError
                    raise Broken(f"{self.name} got {packet}\n{self.world.recent(self.name)}")
                self.take(packet)
            if self._out:
                writer.write(bytes(self._out))
                self._out.clear()
                await writer.drain()
            if self.is_finished():
                self.is_done = True
                return "disconnect"
            countdown -= len(found)
            if self._go_after and countdown <= 0 and not self.world.is_ending:
                return self.random.choice(WAYS_TO_GO)
            found = await self._read(reader, buffer)

    async def _read(self, reader: asyncio.StreamReader, buffer: bytearray) -> list[Packet]:
        data = await reader.read(READ_BYTES)
        if not data:
            raise EOFError
        buffer += data
        return packets.split(buffer, self.level)

    def _check_connack(self, connack: Packet, expected: bool | None) -> None:
        self.world.note(self.name, f"got {connack}")
        if self.world.may_refuse and connack.kind == CONNACK and connack.code in UNAVAILABLE:
            raise EOFError
        if connack.kind != CONNACK or connack.code != 0:
            raise Broken(f"{self.name} got {connack}\n{self.world.recent(self.name)}")
        if expected is not None and connack.session_present != expected:
            raise Broken(
                f"{self.name}: session present is {connack.session_present}, and the truth is"
                f" {expected}\n{self.world.recent(self.name)}"
            )
        self._session_exists = True

    async def _see_takeover(self) -> None:
        """The connection that was left open has to end, now that there is another one."""
        if self._abandoned is not None:
            reader, writer = self._abandoned
            self._abandoned = None
            try:
                while await reader.read(READ_BYTES):
                    pass
            except ConnectionError:
                pass
            writer.close()

    def send(self, data: bytes) -> None:
        """Send at the end of this turn."""
        self._out += data


@dataclass(slots=True)
class Sending:
    """A message that its publisher has not got rid of yet."""

    topic: str
    payload: bytes
    qos: int
    is_released: bool = False  # PUBREC came: from now on it is PUBREL that is repeated


@final
class Publisher(Client):
    """Publishes numbered messages at QoS 1 and 2, as fast as its window lets it.

    They go to topics under ``root``, ``via`` a prefix that the broker takes off.
    """

    def __init__(
        self, world: World, name: str, level: int, *, root: str = "load", via: str = ""
    ) -> None:
        super().__init__(world, name, level)
        self._root = root
        self._via = via
        self._in_flight: dict[int, Sending] = {}  # by packet identifier, in the order of sending
        self._next_id = 1
        self._numbers = {1: 0, 2: 0}
        self._window = WINDOW_MAX

    def connected(self, connack: Packet) -> None:
        self._window = min(WINDOW_MAX, connack.number(RECEIVE_MAXIMUM, WINDOW_MAX))
        for packet_id, sending in self._in_flight.items():
            self._transmit(packet_id, sending, again=True)
        self._fill()

    def _transmit(self, packet_id: int, sending: Sending, *, again: bool) -> None:
        if sending.is_released:
            self.world.note(self.name, f"sends PUBREL {packet_id}", sending.payload)
            self.send(acknowledge(PUBREL, packet_id))
            return
        what = f"sends PUBLISH {packet_id} q{sending.qos}{' dup' * again}"
        self.world.note(self.name, what, sending.payload)
        self.send(
            packets.publish(
                self._via + sending.topic,
                sending.payload,
                self.level,
                qos=sending.qos,
                packet_id=packet_id,
                dup=again,
            )
        )

    def _fill(self) -> None:
        """Send new messages as long as there is room, and there is no end in sight."""
        while len(self._in_flight) < self._window and not self.world.is_ending:
            while self._next_id in self._in_flight:
                self._next_id = self._next_id % 0xFFFF + 1
            qos = self.random.choice((1, 2))
            self._numbers[qos] += 1
            topic = f"{self._root}/{self.name}/q{qos}"
            payload = f"{self.name} q{qos} {self._numbers[qos]}".encode()
            sending = Sending(topic, payload, qos)
            self.world.last[topic] = self._numbers[qos]
            self._in_flight[self._next_id] = sending
            self._transmit(self._next_id, sending, again=False)
            self._next_id = self._next_id % 0xFFFF + 1

    def take(self, packet: Packet) -> None:
        sending = self._in_flight.get(packet.packet_id)
        payload = b"" if sending is None else sending.payload
        self.world.note(self.name, f"got {packet}", payload)
        if sending is None:
            raise Broken(f"{self.name} did not send: {packet}\n{self.world.recent(self.name)}")
        # 0x92: the broker had completed it, and its PUBCOMP was lost. Never 0x10, "no matching
        # subscribers": there are sessions that wait.
        if packet.code not in ((0, 0x92) if packet.kind == PUBCOMP else (0,)):
            raise Broken(f"{self.name} was refused: {packet}\n{self.world.history(payload)}")
        if packet.kind == PUBREC and sending.qos == 2:
            sending.is_released = True
            self._transmit(packet.packet_id, sending, again=False)
        elif packet.kind == (PUBACK if sending.qos == 1 else PUBCOMP):
            del self._in_flight[packet.packet_id]
            self.world.count()
        else:
            raise Broken(f"{self.name}: {packet} is no answer\n{self.world.history(payload)}")
        self._fill()

    def is_finished(self) -> bool:
        return self.world.is_ending and not self._in_flight

    def stays_for(self) -> int:
        return self.random.randint(1, 600)


class Subscriber(Client):
    """Comes and goes with a durable session, and writes down what it gets."""

    def __init__(
        self,
        world: World,
        name: str,
        level: int,
        *,
        qos: int = 2,
        receive_maximum: int = 0,
        lag: int = 0,
        stay_max: int = 400,
        pause_max: int = 400,
        root: str = "load",
    ) -> None:
        super().__init__(world, name, level, receive_maximum=receive_maximum)
        self.got: dict[str, list[int]] = {}  # by topic: the numbers in the order they came
        self.root = root
        self.qos = qos
        self._lag = lag  # answers that it holds back, to be cut with more of them open
        self._late: list[bytes] = []
        self._stay_max = stay_max
        self._pause_max = pause_max
        self._held: dict[int, bytes] = {}  # QoS 2: by packet identifier, not yet released
        self.is_subscribed = asyncio.Event()

    def connected(self, connack: Packet) -> None:
        self._late.clear()
        if not self.is_subscribed.is_set():
            self.send(packets.subscribe(1, [(f"{self.root}/#", self.qos)], self.level))

    def take(self, packet: Packet) -> None:
        if packet.kind == SUBACK:
            assert packet.codes == (self.qos,), packet
            self.is_subscribed.set()
            self.world.note(self.name, "is subscribed")
        elif packet.kind == PUBLISH:
            self._take_publish(packet)
        elif packet.kind == PUBREL:
            payload = self._held.pop(packet.packet_id, b"")
            self.world.note(self.name, f"got {packet}", payload)
            self._answer(PUBCOMP, packet.packet_id)
        else:
            raise Broken(f"{self.name} got {packet}\n{self.world.recent(self.name)}")

    def _take_publish(self, packet: Packet) -> None:
        self.world.note(self.name, f"got {packet}", packet.payload)
        if packet.qos == 1:
            self._arrived(packet)
            self._answer(PUBACK, packet.packet_id)
            return
        held = self._held.get(packet.packet_id)
        if held is None:
            self._held[packet.packet_id] = packet.payload
            self._arrived(packet)
        elif held != packet.payload or not packet.dup:
            raise Broken(
                f"{self.name} holds {held!r} under identifier {packet.packet_id}, and got {packet}"
                f"\n{self.world.history(held)}\n{self.world.history(packet.payload)}"
            )
        self._answer(PUBREC, packet.packet_id)

    def _arrived(self, packet: Packet) -> None:
        number = int(packet.payload.split()[-1])
        self.got.setdefault(packet.topic, []).append(number)
        self.world.count()

    def _answer(self, kind: int, packet_id: int) -> None:
        self._late.append(acknowledge(kind, packet_id))
        # At its limit the broker waits for us: then nothing may be held back any longer.
        if len(self._late) > self._lag or self.world.is_ending:
            self.send(b"".join(self._late))
            self._late.clear()

    def is_finished(self) -> bool:
        if self._held or self._late or not self.world.is_complete:
            return False
        return all(
            number in self.got.get(topic, ())
            for topic, number in self.world.last.items()
            if topic.startswith(f"{self.root}/")
        )

    def stays_for(self) -> int:
        return self.random.randint(1, self._stay_max) if self._stay_max else 0

    async def pause(self) -> None:
        if self.is_subscribed.is_set() and not self.is_done:
            await self.world.passed(self.random.randint(0, self._pause_max))


@final
class Passer(Client):
    """Comes and goes with a clean session: what it gets is in order while it is there.

    What was published at QoS 1 proves nothing here: a repeat of a message that was published before
    it came is the first that it sees of it.
    """

    def __init__(self, world: World, name: str, level: int) -> None:
        super().__init__(world, name, level, clean=True)
        self._got: dict[str, int] = {}

    def connected(self, connack: Packet) -> None:
        self._got.clear()
        self.send(packets.subscribe(1, [("load/+/+", self.random.randint(0, 2))], self.level))

    def take(self, packet: Packet) -> None:
        if packet.kind == PUBREL:
            self.send(acknowledge(PUBCOMP, packet.packet_id))
        elif packet.kind == PUBLISH:
            number = int(packet.payload.split()[-1])
            if packet.topic.endswith("q2") and number <= self._got.get(packet.topic, 0):
                raise Broken(
                    f"{self.name} got {packet} behind number {self._got[packet.topic]}"
                    f"\n{self.world.history(packet.payload)}"
                )
            self._got[packet.topic] = number
            if packet.qos:
                kind = PUBACK if packet.qos == 1 else PUBREC
                self.send(acknowledge(kind, packet.packet_id))

    def is_finished(self) -> bool:
        return self.world.is_ending

    def stays_for(self) -> int:
        return self.random.randint(1, 300)

    async def pause(self) -> None:
        if not self.is_done:
            await self.world.passed(self.random.randint(0, 300))
