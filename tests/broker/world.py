"""A small deterministic world around the real Broker: a virtual clock, disk and network.

It does what the driver does, turn by turn, with everything under the test's control: commits and
reads can be held back, a crash forgets what was not committed, sockets can be full. The log is
trimmed as early as the broker allows, so that a trim point that is too high shows.
"""

from holdfast.auth.interface import Authenticator
from holdfast.broker.authentication import AuthReply, AuthStep, refuse
from holdfast.broker.broker import Broker
from holdfast.broker.connection import Connection
from holdfast.broker.delivery import COUNT, ReadWanted
from holdfast.broker.events import Event
from holdfast.broker.limits import EXPIRY_NEVER, Limits
from holdfast.broker.listener_rules import common_rules
from holdfast.broker.space import SpaceWork
from holdfast.message import Properties
from holdfast.net.upkeep import carry_out
from holdfast.protocol.decode import decode
from holdfast.protocol.encode import encode
from holdfast.protocol.framer import PACKET_BYTES_MAX, Framer
from holdfast.protocol.packets import (
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingresp,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    SubscriptionRequest,
    Unsuback,
    Unsubscribe,
    Will,
)
from holdfast.protocol.reason_codes import SERVER_UNAVAILABLE
from holdfast.store.interface import Store
from holdfast.store.records import Batch, LogEntry, LogSlice
from tests.broker.model_store import ModelStore

START_MS = 1_700_000_000_000
TURNS_MAX = 20_000  # without input; a broker that takes more turns than this never comes to rest


class Disk:
    """A store, and the commits and reads that are on their way to it.

    Left alone it is instant. ``hold`` keeps commits under way until ``sync``, ``hold_reads`` keeps
    reads until ``answer_reads``.
    """

    def __init__(self, world: "World", store: Store) -> None:
        self.store = store
        self.is_held = False
        self.are_reads_held = False
        self.under_way: Batch | None = None
        self.is_commit_done = False
        self.reads: list[ReadWanted] = []
        self.commits = 0
        self.commit_us = 0  # what the driver would say that a commit took
        self.reads_done = 0
        self._world = world
        self._trim_to = 0

    def hold(self) -> None:
        """From now on a commit takes until ``sync``."""
        self.is_held = True

    def hold_reads(self) -> None:
        """From now on a read takes until ``answer_reads``."""
        self.are_reads_held = True

    def sync(self) -> None:
        """Complete all commits, those too that follow from them."""
        self._world.run()
        while self.under_way is not None:
            self.sync_one()

    def sync_one(self) -> None:
        """Complete the commit under way; the next one may start."""
        self._world.turn()
        self.complete()
        self._world.run()

    def release(self) -> None:
        """Be instant again."""
        self.is_held = False
        self.are_reads_held = False
        self._world.run()

    def answer_reads(self) -> None:
        """Carry out the reads that wait, but not those that follow from them."""
        waiting, self.reads = self.reads, []
        for wanted in waiting:
            self._world.answer(wanted)
        self._world.run()

    # --- for the world

    def submit(self, batch: Batch, trim_to: int) -> None:
        assert self.under_way is None, "one commit at a time"
        self.under_way = batch
        self._trim_to = trim_to

    def complete(self) -> None:
        if self.under_way is not None:
            self.store.commit(self.under_way)
            self.under_way = None
            self.is_commit_done = True
            self.commits += 1
            self.trim(self._trim_to)

    def trim(self, below_lsn: int) -> None:
        while self.store.trim(below_lsn):
            pass

    def crash(self, *, commit_survives: bool) -> None:
        """Lose what is not committed; whether the commit under way was, no one can know."""
        if commit_survives and self.under_way is not None:
            self.store.commit(self.under_way)
        self.under_way = None
        self.is_commit_done = False
        self.reads = []


class Client:
    """One network connection, seen from the client. Packets are shown by ``describe``."""

    def __init__(self, world: "World", connection: Connection, version: int) -> None:
        self.connection = connection
        self.version = version
        self.is_open = True  # as far as the client knows
        self.is_stalled = False
        self.inbox: list[bytes] = []  # on its way to the broker
        self.bytes_received = 0
        self._world = world
        self._pipe: list[bytes] = []  # on its way to the client
        self._framer = Framer(PACKET_BYTES_MAX)
        self._packets: list[Packet] = []
        self._bytes = bytearray()

    # --- what the client does

    def send(self, *packets: Packet) -> None:
        """Send packets in one piece, and let the broker act on them."""
        self.push(*packets)
        self._world.run()

    def push(self, *packets: Packet) -> None:
        """Send packets that the broker sees in its next turn."""
        self.push_bytes(b"".join(encode(packet, self.version) for packet in packets))

    def send_bytes(self, data: bytes) -> None:
        self.push_bytes(data)
        self._world.run()

    def push_bytes(self, data: bytes) -> None:
        assert self.is_open, "the connection is closed"
        self.inbox.append(data)

    def publish(
        self,
        topic: str,
        payload: str | bytes,
        qos: int = 0,
        packet_id: int = 0,
        *,
        retain: bool = False,
        dup: bool = False,
        properties: Properties | None = None,
    ) -> None:
        content = payload.encode() if isinstance(payload, str) else payload
        self.send(Publish(topic, content, qos, retain, dup, packet_id, properties))

    def subscribe(
        self,
        topic_filter: str,
        qos: int,
        packet_id: int = 1,
        *,
        no_local: bool = False,
        retain_as_published: bool = False,
        retain_handling: int = 0,
        identifier: int = 0,
    ) -> None:
        request = SubscriptionRequest(
            topic_filter, qos, no_local, retain_as_published, retain_handling
        )
        properties: Properties | None = None
        if identifier:
            properties = Properties()
            properties.subscription_identifiers = [identifier]
        self.send(Subscribe(packet_id, [request], properties))

    def unsubscribe(self, topic_filter: str, packet_id: int = 1) -> None:
        self.send(Unsubscribe(packet_id, [topic_filter]))

    def disconnect(self, reason_code: int = 0, properties: Properties | None = None) -> None:
        """Say goodbye and close."""
        self.push(Disconnect(reason_code, properties))
        self._world.run()
        self.is_open = False

    def cut(self) -> None:
        """The connection breaks: what is under way in either direction is lost."""
        self.is_open = False
        self.inbox = []
        self._pipe = []
        self._world.lost.append(self)
        self._world.run()

    def stall(self) -> None:
        """Read nothing more: the broker finds the socket full."""
        self.is_stalled = True
        self.connection.is_socket_full = True

    def drain(self) -> None:
        """Read again, all that waits."""
        self.is_stalled = False
        self._take_pipe()
        self._world.drained.append(self)
        self._world.run()

    # --- what the client gets

    def packets(self) -> list[Packet]:
        """The packets that came since the last look."""
        packets, self._packets = self._packets, []
        return packets

    def publishes(self) -> list[Publish]:
        """The PUBLISH packets among those that came since the last look."""
        return [packet for packet in self.packets() if isinstance(packet, Publish)]

    def received(self) -> list[str]:
        """The packets that came since the last look, as text."""
        return [describe(packet) for packet in self.packets()]

    def take_bytes(self) -> bytes:
        """The bytes that came since the last such look, beside what the others tell."""
        data = bytes(self._bytes)
        self._bytes.clear()
        return data

    def arrive(self, data: bytes) -> None:
        self._pipe.append(data)
        if not self.is_stalled:
            self._take_pipe()

    def _take_pipe(self) -> None:
        data = b"".join(self._pipe)
        self._pipe = []
        if not self.is_open or not data:
            return
        self.bytes_received += len(data)
        self._bytes += data
        framer = self._framer
        framer.feed(data)
        while framer.next_frame():
            self._packets.append(decode(framer.buffer, framer.start, framer.end, self.version))


class World:
    """The broker with its clock, disk and connections; ``run`` takes turns until all is quiet."""

    def __init__(
        self,
        limits: Limits | None = None,
        store: Store | None = None,
        authenticator: Authenticator | None = None,
    ) -> None:
        self.limits = Limits() if limits is None else limits
        self.limits.space_pass_entries = 1  # what nobody needs goes as early as it can
        self.authenticator = authenticator
        self.rules = common_rules(self.limits)
        if authenticator is not None:
            self.rules.auth_methods = authenticator.methods
        self.are_auth_steps_held = False  # until ``answer_auth_steps``
        self.auth_steps: list[AuthStep] = []
        self._auth_replies: list[tuple[AuthStep, AuthReply]] = []
        self.now_ms = START_MS
        self.disk = Disk(self, ModelStore() if store is None else store)
        self.clients: dict[int, Client] = {}  # those the broker's side still has open
        self.lost: list[Client] = []
        self.drained: list[Client] = []
        self.events: list[Event] = []
        self._answers: list[ReadWanted] = []
        self._space_works: list[SpaceWork] = []
        self._next_number = 1
        self._starts = 0
        self.broker = self._start()

    # --- connections

    def dial(self, version: int = 5) -> Client:
        """Open a network connection that has sent nothing yet."""
        self.broker.begin_turn(self.now_ms)
        number = self._next_number
        self._next_number += 1
        connection = self.broker.connect(number, f"192.0.2.1:{number}", self.rules)
        client = Client(self, connection, version)
        self.clients[number] = client
        return client

    def connect(
        self,
        client_id: str,
        *,
        version: int = 5,
        clean: bool = False,
        expiry_s: int | None = EXPIRY_NEVER,
        receive_maximum: int | None = None,
        maximum_packet_size: int | None = None,
        keep_alive: int = 0,
        will: Will | None = None,
        properties: Properties | None = None,
    ) -> Client:
        """Open a connection and send CONNECT: with 5.0 a session without end, if not told else.

        ``properties`` are for what has no argument of its own.
        """
        client = self.dial(version)
        if version == 5:
            properties = Properties() if properties is None else properties
            properties.session_expiry_interval = expiry_s
            properties.receive_maximum = receive_maximum
            properties.maximum_packet_size = maximum_packet_size
        client.send(Connect(client_id, version, clean, keep_alive, will, None, None, properties))
        return client

    def hello(self, client_id: str, **options: object) -> Client:
        """``connect``, with its CONNACK checked and taken."""
        client = self.connect(client_id, **options)  # type: ignore[arg-type]  # handed through
        first = client.packets()
        assert len(first) >= 1 and isinstance(first[0], Connack) and first[0].reason_code == 0
        client._packets = first[1:]
        return client

    def transient(self, client_id: str, version: int = 5) -> Client:
        """A client whose session ends with its connection."""
        return self.hello(client_id, version=version, clean=True, expiry_s=0)

    def session(self, client_id: str, topic_filter: str, qos: int) -> None:
        """Leave an absent durable session with one subscription."""
        client = self.hello(client_id)
        client.subscribe(topic_filter, qos)
        client.disconnect()
        assert not self.disk.is_held, "hold the disk later"

    # --- time and turns

    def advance(self, ms: int) -> None:
        """Let time pass; what falls due on the way is done at its time."""
        end_ms = self.now_ms + ms
        while True:
            self.run()
            due_ms = self.broker.next_deadline_ms
            if due_ms < 0 or due_ms > end_ms:
                break
            self.now_ms = max(self.now_ms, due_ms)
        self.now_ms = end_ms
        self.run()

    def run(self) -> None:
        """Take turns until nothing is left to do that is not held back."""
        for _ in range(TURNS_MAX):
            self.turn()
            if not self.disk.is_held:
                self.disk.complete()
            if not self.disk.are_reads_held:
                waiting, self.disk.reads = self.disk.reads, []
                for wanted in waiting:
                    self.answer(wanted)
            if not self.are_auth_steps_held:
                self._answer_auth_steps()
            if not self._has_input():
                return
        raise AssertionError(f"the broker does not come to rest in {TURNS_MAX} turns")

    def turn(self) -> None:
        """One turn, in the order of the driver."""
        broker = self.broker
        broker.begin_turn(self.now_ms)
        if self.disk.is_commit_done:
            self.disk.is_commit_done = False
            broker.committed(self.disk.commit_us)
            broker.note_space(self.disk.store.space())
        works, self._space_works = self._space_works, []
        for work in works:
            broker.space_work_done(work)
        answers, self._answers = self._answers, []
        for wanted in answers:
            self._take_answer(wanted)
        replies, self._auth_replies = self._auth_replies, []
        for step, reply in replies:
            broker.auth_done(step, reply)
        for client in list(self.clients.values()):
            if client.inbox:
                data, client.inbox = b"".join(client.inbox), []
                self._receive(client, data)
        self._go_on()
        drained, self.drained = self.drained, []
        for client in drained:
            broker.socket_drained(client.connection)
        lost, self.lost = self.lost, []
        for client in lost:
            self._lose(client)
        broker.take_arrivals()
        broker.tick()
        broker.finish_turn()
        self._commit()
        self._write()
        self.disk.reads.extend(broker.take_reads())
        self._look_after_space()
        self.auth_steps.extend(broker.take_auth_steps())
        self.events.extend(broker.take_events())

    def _look_after_space(self) -> None:
        work = self.broker.take_space_work()
        if work is not None:
            carry_out(self.disk.store, work)
            self._space_works.append(work)

    def look_at_space(self) -> None:
        """The driver's look at the space of the store, which it takes each second."""
        self.broker.begin_turn(self.now_ms)
        self.broker.note_space(self.disk.store.space())
        self.run()

    def answer(self, wanted: ReadWanted) -> None:
        """Let the next turn take the answer to a read."""
        self._answers.append(wanted)

    def answer_auth_steps(self) -> None:
        """Answer the steps that wait, but not those that follow from them."""
        self._answer_auth_steps()
        self.run()

    def _answer_auth_steps(self) -> None:
        waiting, self.auth_steps = self.auth_steps, []
        for step in waiting:
            assert self.authenticator is not None
            try:
                reply = self.authenticator.step(step.request)
            except RuntimeError:
                reply = refuse(SERVER_UNAVAILABLE)
            self._auth_replies.append((step, reply))

    # --- the end, and the start

    def crash(self, *, commit_survives: bool = False) -> None:
        """Everything in memory is gone; ``restart`` goes on from the disk."""
        self.disk.crash(commit_survives=commit_survives)
        self.end_connections()

    def stop(self) -> None:
        """Stop as on SIGTERM: the last batch is committed."""
        self.broker.begin_turn(self.now_ms)
        self.broker.shut_down()
        self.disk.sync()
        self.end_connections()

    def end(self, how: str) -> None:
        """``crash`` or ``stop``, by its name."""
        assert how in ("crash", "stop")
        if how == "crash":
            self.crash()
        else:
            self.stop()

    def restart(self, after_ms: int = 0) -> None:
        """Start a broker from what the disk holds."""
        self.now_ms += after_ms
        self.broker = self._start()
        self.run()

    def end_connections(self) -> None:
        for client in self.clients.values():
            client.is_open = False
        self.clients = {}
        self.lost = []
        self.drained = []
        self._answers = []
        self._space_works = []
        self.auth_steps = []
        self._auth_replies = []

    def _start(self) -> Broker:
        self._starts += 1
        broker = Broker(
            self.limits,
            self.disk.store.load(),
            self.now_ms,
            instance=f"start{self._starts}",
            version="holdfast in a world",
        )
        broker.note_space(self.disk.store.space())
        return broker

    def _go_on(self) -> None:
        """Take one more slice of what came; the driver has time for some."""
        self.broker.go_on()

    def _receive(self, client: Client, data: bytes) -> None:
        self.broker.receive(client.connection, data)

    def _lose(self, client: Client) -> None:
        self.broker.closed(client.connection)
        self.clients.pop(client.connection.number, None)

    def _commit(self) -> None:
        broker = self.broker
        if broker.is_commit_under_way:
            return
        while (batch := broker.take_batch()) is not None:
            if not batch.is_empty:
                self.disk.submit(batch, broker.trim_point())
                return
            broker.committed()
            broker.finish_turn()
        self.disk.trim(broker.trim_point())

    def _write(self) -> None:
        for connection in self.broker.take_ready():
            client = self.clients.get(connection.number)
            data = connection.take()
            if client is None:
                continue
            client.arrive(data)
            if connection.is_closing:
                client.is_open = False
                client.inbox = []
                self.lost.append(client)

    def _take_answer(self, wanted: ReadWanted) -> None:
        self.disk.reads_done += 1
        if wanted.purpose == COUNT:
            assert wanted.request is not None
            self.broker.count_done(wanted, self.disk.store.count(wanted.request))
            return
        found = self._read(wanted)
        if isinstance(found, LogSlice):
            self.broker.read_done(wanted, found)
        else:
            self.broker.fetch_done(wanted, found)

    def _read(self, wanted: ReadWanted) -> LogSlice | list[LogEntry]:
        store = self.disk.store
        return store.fetch(wanted.lsns) if wanted.request is None else store.read(wanted.request)

    def _has_input(self) -> bool:
        if (
            self.disk.is_commit_done
            or self._answers
            or self._space_works
            or self.lost
            or self.drained
        ):
            return True
        if self._auth_replies:
            return True
        if self.broker.needs_turn:
            return True
        return any(client.inbox for client in self.clients.values())


def describe(packet: Packet) -> str:
    """A packet of the server as a line: ``PUBLISH a/b 42 q1 #7 dup``, ``PUBACK #9 0x10``."""
    if isinstance(packet, Publish):
        return _describe_publish(packet)
    if isinstance(packet, Connack):
        present = " present" if packet.session_present else ""
        return f"CONNACK 0x{packet.reason_code:02X}{present}"
    if isinstance(packet, Suback | Unsuback):
        codes = "".join(f" 0x{code:02X}" for code in packet.reason_codes)
        return f"{type(packet).__name__.upper()} #{packet.packet_id}{codes}"
    if isinstance(packet, Puback | Pubrec | Pubrel | Pubcomp):
        code = f" 0x{packet.reason_code:02X}" if packet.reason_code else ""
        return f"{type(packet).__name__.upper()} #{packet.packet_id}{code}"
    if isinstance(packet, Disconnect):
        return f"DISCONNECT 0x{packet.reason_code:02X}"
    if isinstance(packet, Auth):
        return f"AUTH 0x{packet.reason_code:02X}"
    assert isinstance(packet, Pingresp)
    return "PINGRESP"


def _describe_publish(packet: Publish) -> str:
    payload = packet.payload
    content = payload.decode() if len(payload) <= 40 else f"({len(payload)} bytes)"
    parts = ["PUBLISH", packet.topic, content, f"q{packet.qos}"]
    if packet.packet_id:
        parts.append(f"#{packet.packet_id}")
    if packet.dup:
        parts.append("dup")
    if packet.retain:
        parts.append("retain")
    if packet.properties is not None and packet.properties.topic_alias is not None:
        parts.append(f"alias {packet.properties.topic_alias}")
    return " ".join(part for part in parts if part)
