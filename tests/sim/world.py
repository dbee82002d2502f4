"""A world whose disk, network and clock are slow, and whose sockets the checker listens to."""

import itertools
from collections import deque
from typing import TYPE_CHECKING

from holdfast.broker.connection import CLOSED, Connection
from holdfast.broker.delivery import COUNT, ReadWanted
from holdfast.broker.limits import Limits
from holdfast.disk.checksums import block_checksum
from holdfast.protocol.decode import decode
from holdfast.protocol.framer import PACKET_BYTES_MAX, Framer
from holdfast.protocol.packets import Packet
from holdfast.store.blocks import (
    decode_block,
    decode_message,
    encode_blocks,
    encode_message,
    unknown_topics,
)
from holdfast.store.records import (
    Batch,
    DelayedRecord,
    LogEntry,
    LogSlice,
    RetainedRecord,
    Space,
)
from tests.broker.model_store import ModelStore
from tests.broker.world import Client, Disk, World
from tests.sim.checker import Checker
from tests.sim.describe import describe_any
from tests.sim.limited import LimitedChecker
from tests.sim.model import Message
from tests.sim.taps import Tap, Violation

if TYPE_CHECKING:
    from tests.sim.simulation import Simulation

Found = LogSlice | list[LogEntry]


def through_bytes(batch: Batch) -> None:
    """Put in the place of all messages of a batch what their bytes on a disk say."""
    topics = {topic: number for number, topic in enumerate(unknown_topics(batch, {}))}
    names = list(topics)
    rows = encode_blocks(batch.entries, topics)
    batch.entries = []
    for start in range(0, len(rows), 6):
        first, last, topic, target, data, checksum = rows[start : start + 6]
        assert isinstance(first, int) and isinstance(last, int) and isinstance(data, bytes)
        assert isinstance(topic, int) and isinstance(target, int)
        assert checksum == block_checksum(first, last, topic, target, data)
        entries = decode_block(first, names[topic], target, data)
        assert entries[-1].lsn == last
        batch.entries += entries
    for index, retained in enumerate(batch.retained):
        message = retained.message
        if message is not None:
            copy = decode_message(retained.topic, encode_message(message))
            batch.retained[index] = RetainedRecord(retained.topic, copy)
    for index, delayed in enumerate(batch.delayed):
        copy = decode_message(delayed.message.topic, encode_message(delayed.message))
        batch.delayed[index] = DelayedRecord(delayed.number, delayed.due_ms, delayed.seconds, copy)
    for session in batch.sessions:
        if session.will is not None:
            session.will = decode_message(session.will.topic, encode_message(session.will))


class SmallStore(ModelStore):
    """A store on a disk that is nearly full for a while."""

    disk_free_bytes = -1

    def space(self) -> Space:
        space = super().space()
        space.disk_free_bytes = self.disk_free_bytes
        return space


class SlowDisk(Disk):
    """A disk whose commits and reads take their time. A trim is lost if it is not flushed."""

    def __init__(self, world: "SlowWorld", store: ModelStore) -> None:
        super().__init__(world, store)
        self.hold()
        self.hold_reads()
        self.kept = store
        self.numbers: dict[int, str] = {}  # of sessions and groups: whose they are
        self._slow_world = world
        self._trims: list[list[LogEntry]] = []  # since the last flush

    def submit(self, batch: Batch, trim_to: int) -> None:
        for session in batch.sessions:
            self.numbers[session.number] = session.client_id
        for group in batch.groups:
            self.numbers[group.number] = group.topic_filter
        through_bytes(batch)
        super().submit(batch, trim_to)
        self._slow_world.checker.batch_taken(batch, self.numbers)
        self._slow_world.simulation.batch_taken()

    def complete(self) -> None:
        if self.under_way is not None:
            self._trims = []
            self._slow_world.checker.batch_durable()
        super().complete()

    def trim(self, below_lsn: int) -> None:
        before = list(self.kept.entries.values())
        super().trim(below_lsn)
        self.trimmed(before)

    def trimmed(self, before: list[LogEntry]) -> None:
        """Some of these entries may have been trimmed just now."""
        gone = [entry for entry in before if entry.lsn not in self.kept.entries]
        if gone:
            self._trims.append(gone)

    def crash(self, *, commit_survives: bool) -> None:
        """What was not flushed is lost from some trim on, or it has reached the disk all the same.

        A commit that survives has flushed what came before it.
        """
        chance = self._slow_world.simulation.random
        commit_survives = commit_survives and self.under_way is not None
        if commit_survives:
            self._slow_world.checker.batch_durable()
        elif self._trims:
            undone = self._trims[chance.randrange(len(self._trims) + 1) :]
            for entry in [entry for trim in undone for entry in trim]:
                self.kept.entries[entry.lsn] = entry
            self.kept.entries = dict(sorted(self.kept.entries.items()))
        self._trims = []
        super().crash(commit_survives=commit_survives)


class Wire(Client):
    """One network connection. Bytes of either direction are on their way for a while."""

    def __init__(
        self, world: "SlowWorld", connection: Connection, version: int, client_id: str
    ) -> None:
        super().__init__(world, connection, version)
        self.tap = Tap(connection.number, client_id, version)
        self.simulation = world.simulation
        self._output = Framer(PACKET_BYTES_MAX)
        # What was sent to the broker: where each packet ends, and the message it carries.
        self.sent: deque[tuple[int, Packet, Message | None]] = deque()
        self.sent_bytes = 0
        self.handed_bytes = 0
        self.arrived_bytes = 0
        self.to_hear_bytes = 0  # what had arrived when another one came for its session
        # On their way, each with the time of its arrival: bytes, and packets with their size.
        self.up: deque[tuple[int, bytes]] = deque()
        self.down: deque[tuple[int, list[Packet], int]] = deque()
        self.down_bytes = 0
        self.is_cut = False  # the broker will find out
        self.ends_at_ms = -1  # when the client finds out that it is closed, -1 while it is not

    def handed(self, size: int) -> None:
        """The broker has looked at so many bytes more."""
        self.handed_bytes += size
        while self.sent and self.sent[0][0] <= self.handed_bytes:
            _, packet, message = self.sent.popleft()
            self.simulation.note(self.tap.client_id, "in", packet)
            self._checker.took(self.tap, packet, message)

    def pieces(self, data: bytes) -> list[bytes]:
        """Cut what comes next at the ends of packets."""
        ends = [end - self.handed_bytes for end, _, _ in self.sent]
        cuts = [0, *(end for end in ends if 0 < end < len(data)), len(data)]
        return [data[start:end] for start, end in itertools.pairwise(cuts)]

    def arrive(self, data: bytes) -> None:
        if not data:
            return
        self.simulation.hash(data)
        framer = self._output
        framer.feed(data)
        packets: list[Packet] = []
        while framer.next_frame():
            packet = decode(framer.buffer, framer.start, framer.end, self.version)
            self.simulation.note(self.tap.client_id, "out", packet)
            self._checker.left(self.tap, packet)
            packets.append(packet)
        assert framer.buffered == 0, "a write that ends inside a packet"
        self.simulation.send_down(self, packets, len(data))

    @property
    def _checker(self) -> Checker:
        return self.simulation.checker


class SlowWorld(World):
    """The world of the tests, with a checker at the sockets and nothing that happens at once."""

    def __init__(self, simulation: "Simulation", limits: Limits) -> None:
        self.simulation = simulation
        self.checker = simulation.checker
        self._read_early: dict[int, Found] = {}
        self.is_stopping = False
        self.looks_at_space = False
        store = SmallStore()
        self._small = store
        super().__init__(limits, store)
        self.rules.publish_limits = simulation.plan.publish_limits
        self.disk: SlowDisk = SlowDisk(self, store)
        self.wires: dict[int, Wire] = {}
        self._leaving: set[Wire] = set()

    def open(self, version: int, client_id: str) -> Wire:
        """Open a network connection."""
        self.broker.begin_turn(self.now_ms)
        number = self._next_number
        self._next_number += 1
        connection = self.broker.connect(number, f"192.0.2.1:{number}", self.rules)
        wire = Wire(self, connection, version, client_id)
        self.clients[number] = wire
        self.wires[number] = wire
        return wire

    def turn(self) -> None:
        self.checker.begin_turn(self.now_ms)
        if self.looks_at_space:
            self.looks_at_space = False
            self.broker.begin_turn(self.now_ms)
            self.broker.note_space(self.disk.store.space())
        super().turn()
        self.events.clear()

    def set_free(self, size: int) -> None:
        """So many bytes are free on the disk from now on."""
        self._small.disk_free_bytes = size

    def read_now(self, wanted: ReadWanted) -> None:
        """Carry a read out, though its answer comes later."""
        if wanted.purpose != COUNT:
            self._read_early[id(wanted)] = self._read(wanted)

    def start_again(self, after_ms: int) -> None:
        """Start a broker from what the disk holds; it takes no turn yet."""
        self._read_early.clear()
        self.wires.clear()
        self._leaving.clear()
        self.disk.reads = []
        self.now_ms += after_ms
        self.is_stopping = False
        self.broker = self._start()

    @property
    def has_work(self) -> bool:
        """Whether there is something for another turn at once."""
        return self._has_input()

    # --- hooks

    def _receive(self, client: Client, data: bytes) -> None:
        assert isinstance(client, Wire)
        client.arrived_bytes += len(data)
        self.simulation.hash(data)
        if client.handed_bytes == 0 and client.sent[0][0] <= client.arrived_bytes:
            for wire in [*self.wires.values(), *self._leaving]:
                if wire is not client and wire.tap.client_id == client.tap.client_id:
                    wire.to_hear_bytes = wire.arrived_bytes
        if not isinstance(self.checker, LimitedChecker):
            held = client.connection.framer.buffered + len(data)
            others = self._held_back()
            super()._receive(client, data)
            for wire, before in others:
                # All that it had sent came before it was taken over.
                wire.handed(before - wire.connection.framer.buffered)
            client.handed(held - client.connection.framer.buffered)
            return
        # Packet by packet, for only the broker knows which ones it refuses.
        for piece in client.pieces(data):
            before = self.broker.counters.refused
            super()._receive(client, piece)
            is_refused = self.broker.counters.refused > before
            self.checker.is_refused = is_refused or client.connection.session is None
            client.handed(len(piece))

    def _go_on(self) -> None:
        waiting = self._held_back()  # who is taken over comes before who takes over
        waiting += [(w, w.connection.framer.buffered) for w in self._waiting()]
        super()._go_on()
        for wire, before in waiting:
            wire.handed(before - wire.connection.framer.buffered)
            if wire in self._leaving and not wire.connection.has_more:
                self._leaving.discard(wire)
                self._left(wire)

    def _waiting(self) -> list[Wire]:
        """Those of whom the broker has something that it has not looked at."""
        wires = [*self.wires.values(), *self._leaving]
        return [wire for wire in wires if wire.connection.has_more]

    def _held_back(self) -> list[tuple[Wire, int]]:
        """Those above their rate, with how many bytes of each the broker has not looked at."""
        if self.rules.publish_limits is None:
            return []
        wires = self.wires.values()
        return [(w, w.connection.framer.buffered) for w in wires if w.connection.is_held]

    @property
    def holds_back(self) -> bool:
        """Whether somebody above its rate waits for its time."""
        return len(self._held_back()) > 0

    def _lose(self, client: Client) -> None:
        assert isinstance(client, Wire)
        self.wires.pop(client.tap.number, None)
        super()._lose(client)
        if client.connection.has_more:
            self._leaving.add(client)  # it is heard to the end first
        else:
            self._left(client)

    def _left(self, wire: Wire) -> None:
        """The broker has let a connection go that was lost. What came on it is heard by now."""
        tap = wire.tap
        is_current = tap.is_open and tap.session is not None and tap.session.link == tap.number
        if is_current:
            self._check_heard(wire, wire.arrived_bytes)
        self.checker.lost(tap)

    def _check_heard(self, wire: Wire, size: int) -> None:
        """The broker has looked at all packets in the first bytes that came."""
        if wire.sent and wire.sent[0][0] <= size:
            who = wire.tap.client_id
            raise Violation("not heard", f"{describe_any(wire.sent[0][1])} of {who}", who)

    def _read(self, wanted: ReadWanted) -> Found:
        found = self._read_early.pop(id(wanted), None)
        return super()._read(wanted) if found is None else found

    def _look_after_space(self) -> None:
        before = list(self.disk.kept.entries.values())
        super()._look_after_space()
        self.disk.trimmed(before)

    def _commit(self) -> None:
        # When the clock leaps, much is due at once. What is published before a connection is
        # closed may still go there, and need not if it is after that.
        self.checker.model.tick()
        closed = [w for w in self.wires.values() if w.tap.is_open and w.connection.state == CLOSED]
        if closed:
            # In the order in which it happened: one may be given the will of another.
            told = [event.address for event in self.broker.events]
            closed.sort(key=lambda wire: _index(told, wire.connection.address))
            for wire in closed:
                session = wire.tap.session
                if session is not None and session.link != wire.tap.number:
                    self._check_heard(wire, wire.to_hear_bytes)
                self.checker.closed(wire.tap, is_stopping=self.is_stopping)
        if isinstance(self.checker, LimitedChecker):
            self.checker.look_for_ended()
        super()._commit()
        if not self.broker.is_commit_under_way:
            self.checker.all_durable()

    def _write(self) -> None:
        before = len(self.lost)
        super()._write()
        for client in self.lost[before:]:
            assert isinstance(client, Wire)
            self.simulation.closed_by_broker(client)


def _index(addresses: list[str], address: str) -> int:
    return addresses.index(address) if address in addresses else 0
