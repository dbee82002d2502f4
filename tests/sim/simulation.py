"""One run: devices, network, disk and broker, all from one seed; and its quiet end.

Time is counted in milliseconds from the start and only grows; the broker's clock may be set.
"""

import heapq
import random
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import NamedTuple

from holdfast.broker import connection, log_tail, router
from holdfast.protocol.packets import Packet
from tests.broker.recovered import recovered, recovered_retained
from tests.broker.world import START_MS
from tests.fuzz.books import check_at_rest
from tests.sim.checker import Checker
from tests.sim.describe import describe_any
from tests.sim.devices import Device, Kind
from tests.sim.limited import LimitedChecker
from tests.sim.model import Message, Model
from tests.sim.plan import Span, plan_of
from tests.sim.taps import Violation
from tests.sim.world import SlowWorld, Wire

LOOK_MS = 1000  # so often is the space looked at, at least
BACK_MAX = 8  # so often does a client come back in the end that a limit has closed
SOCKET_BYTES = 400  # on their way to a client: then its socket is full
QUIET_MS = 120_000  # so long may it take until all is delivered in the end
OUTPUT_SLACK_BYTES = 8 * 1024  # one turn's packets above the broker's bound for a connection
TINY = {
    (log_tail, "TAIL_ENTRIES_MAX"): 3,
    (router, "FEED_ENTRIES_MAX"): 2,
    (router, "READ_BYTES_MAX"): 30,
    (connection, "OUTPUT_BYTES_MAX"): 120,
}


class Result(NamedTuple):
    """What came of a run."""

    seed: int
    violation: Violation | None
    events: int
    fingerprint: str
    trace: list[str]


@contextmanager
def bounds(is_tiny: bool) -> Iterator[None]:
    """The broker's inner bounds made tiny, which a compiled broker does not notice."""
    if not is_tiny or not str(log_tail.__file__).endswith(".py"):
        yield
        return
    before = {key: getattr(*key) for key in TINY}
    try:
        for (module, name), value in TINY.items():
            setattr(module, name, value)
        yield
    finally:
        for (module, name), value in before.items():
            setattr(module, name, value)


def _bound(module: ModuleType, name: str) -> int:
    return int(getattr(module, name))


def run(seed: int, *, is_traced: bool = False, is_limited: bool = False) -> Result:
    """Run a seed to its end, or to the first promise that is broken."""
    simulation = Simulation(seed, is_traced=is_traced, is_limited=is_limited)
    violation: Violation | None = None
    with bounds(simulation.plan.is_tiny):
        try:
            simulation.play()
        except Violation as error:
            violation = error
        except Exception as error:
            violation = Violation("failed", repr(error))
            violation.__cause__ = error
    if violation is not None:
        simulation.say(f"VIOLATION {violation}")
    fingerprint = f"{simulation.crc:08x}-{simulation.events}-{simulation.time_ms}"
    return Result(seed, violation, simulation.events, fingerprint, simulation.trace)


class Simulation:
    """One run."""

    def __init__(self, seed: int, *, is_traced: bool, is_limited: bool) -> None:
        self.random = random.Random(seed)
        self.plan = plan_of(seed, self.random, is_limited=is_limited)
        self.time_ms = 0
        self.skew_ms = 0
        self.is_up = True
        self.is_finishing = False
        self.events = 0
        self.crc = 0
        self.trace: list[str] = []
        self.is_traced = is_traced
        self._heap: list[tuple[int, int, Callable[..., None], tuple[object, ...]]] = []
        self._number = 0
        self.pings = 0  # to come: they go on for ever
        self._frozen_until_ms = 0
        self.model = Model(self.plan.limits)
        is_limited = self.plan.is_limited
        self.checker = LimitedChecker(self.model) if is_limited else Checker(self.model)
        self.world = SlowWorld(self, self.plan.limits)
        if isinstance(self.checker, LimitedChecker):
            self.checker.queue_losses.world = self.world
        self.devices = {kind.client_id: Device(self, kind) for kind in self.plan.kinds}

    # --- time

    def later(self, delay_ms: int, action: Callable[..., None], *arguments: object) -> None:
        self._number += 1
        entry = (self.time_ms + delay_ms, self._number, action, arguments)
        heapq.heappush(self._heap, entry)

    @property
    def now_ms(self) -> int:
        """The broker's clock."""
        return START_MS + self.time_ms + self.skew_ms

    def play(self) -> None:
        chance = self.random
        plan = self.plan
        for device in self.devices.values():
            self.later(chance.randint(0, plan.lasts_ms // 20), device.wake)
        for _ in range(plan.crashes):
            waits_ms = chance.choice([0, 300])
            self.later(
                chance.randint(plan.lasts_ms // 10, plan.lasts_ms), self.end_broker, waits_ms
            )
        for _ in range(plan.clock_steps):
            self.later(chance.randint(0, plan.lasts_ms), self.step_clock)
        for _ in range(plan.freezes):
            self.later(chance.randint(0, plan.lasts_ms), self.freeze)
        if plan.is_limited:
            self._look_at_space()
        if plan.limits.disk_free_min_bytes > 0:
            for _ in range(2):
                self.later(chance.randint(0, plan.lasts_ms), self.fill_disk)
        self.advance(plan.lasts_ms)
        self.finish()

    def _look_at_space(self) -> None:
        """The driver's look at the space, now and then, for ever."""
        self.pings += 1
        self.later(self.random.choice([50, 300, 1000]), self._look_again)

    def _look_again(self) -> None:
        self.pings -= 1
        self.world.looks_at_space = self.is_up
        self._look_at_space()

    def fill_disk(self) -> None:
        """Others have filled the disk, and free it again after a while."""
        if not self.is_finishing:
            self.say("the disk is nearly full")
            self.world.set_free(0)
            self.later(self.random.randint(100, 3000), self.world.set_free, 1 << 30)

    def advance(self, duration_ms: int) -> None:
        """Let time pass."""
        end_ms = self.time_ms + duration_ms
        while True:
            next_ms = self._next_ms()
            if next_ms > end_ms:
                self.time_ms = end_ms
                return
            self._step(next_ms)

    def _next_ms(self) -> int:
        """When something happens next."""
        next_ms = self._heap[0][0] if self._heap else self.time_ms + 2 * QUIET_MS
        if self.is_up:
            if self.world.has_work:
                # In between, more may come.
                at_ms = min(self.time_ms + self.plan.line_ms, max(self.time_ms, next_ms))
                return max(at_ms, self._frozen_until_ms)
            due_ms = self.world.broker.next_deadline_ms
            if due_ms >= 0:
                due_ms = self.time_ms + max(1, due_ms - self.now_ms)
                next_ms = min(next_ms, max(due_ms, self._frozen_until_ms))
        return next_ms

    def _step(self, next_ms: int) -> None:
        """All that happens at one moment, and the turn of the broker that follows."""
        self.time_ms = max(self.time_ms, next_ms)
        heap = self._heap
        while heap and heap[0][0] <= self.time_ms:
            _, _, action, arguments = heapq.heappop(heap)
            action(*arguments)
        if self.is_up and self.time_ms >= self._frozen_until_ms:
            self.turn()

    def turn(self) -> None:
        world = self.world
        world.now_ms = self.now_ms
        world.turn()
        reads, world.disk.reads = world.disk.reads, []
        for wanted in reads:
            delay_ms = self._between(self.plan.read_ms)
            if self.random.random() < 0.5:
                world.read_now(wanted)
            self.later(delay_ms, self._answer_read, world.broker, wanted)
        self._check_memory()

    def _answer_read(self, broker: object, wanted: object) -> None:
        if self.is_up and self.world.broker is broker:
            self.world.answer(wanted)  # type: ignore[arg-type]  # it is a ReadWanted

    def _between(self, span: Span) -> int:
        if self.is_finishing:
            return min(1, span[1])
        return self.random.randint(*span)

    def batch_taken(self) -> None:
        """The disk has been given a batch."""
        self.say("disk: a commit begins")
        self.later(self._between(self.plan.commit_ms), self._commit_done, self.world.disk.under_way)

    def _commit_done(self, batch: object) -> None:
        disk = self.world.disk
        if disk.under_way is batch:
            self.say("disk: it is durable")
            disk.complete()

    def step_clock(self) -> None:
        """Somebody sets the clock of the broker's machine."""
        if self.is_finishing:
            return
        self.skew_ms += self.random.choice([-3_600_000, -5000, -500, 500, 5000, 3_600_000])
        self.say(f"the clock is set, by {self.skew_ms} ms in all")

    def freeze(self) -> None:
        """The broker's process gets no time for a while; what comes meanwhile waits for it."""
        if not self.is_finishing:
            self.say("the broker is frozen")
            self._frozen_until_ms = self.time_ms + self.random.choice([50, 1500, 4000])

    # --- the network

    def send_up(self, wire: Wire, packet: Packet, message: Message | None, data: bytes) -> None:
        """A client writes a packet. It arrives in one piece or in two."""
        wire.sent_bytes += len(data)
        wire.sent.append((wire.sent_bytes, packet, message))
        pieces = [data]
        if self.random.random() < 0.1:
            cut = self.random.randrange(len(data) + 1)
            pieces = [data[:cut], data[cut:]]
        for piece in pieces:
            due_ms = self.time_ms + self._between(self.plan.network_ms)
            if wire.up:
                due_ms = max(due_ms, wire.up[-1][0])
            if piece:
                wire.up.append((due_ms, piece))
                self.later(due_ms - self.time_ms, self._look_up, wire)

    def _look_up(self, wire: Wire) -> None:
        """Hand the broker what has arrived."""
        if not wire.is_open:
            wire.up.clear()
        while wire.up and wire.up[0][0] <= self.time_ms:
            if wire.connection.is_read_paused:
                self.later(2, self._look_up, wire)
                return
            wire.push_bytes(wire.up.popleft()[1])

    def send_down(self, wire: Wire, packets: list[Packet], size: int) -> None:
        """The broker writes packets."""
        wire.down_bytes += size
        if wire.down_bytes > SOCKET_BYTES and wire.is_open:
            wire.connection.is_socket_full = True
        due_ms = self.time_ms + self._between(self.plan.network_ms)
        if wire.down:
            due_ms = max(due_ms, wire.down[-1][0])
        wire.down.append((due_ms, packets, size))
        self.later(due_ms - self.time_ms, self.look_down, wire)

    def look_down(self, wire: Wire) -> None:
        """Give a client what has arrived, if it reads."""
        device = self.devices[wire.tap.client_id]
        is_current = wire is device.link
        while wire.down and wire.down[0][0] <= self.time_ms:
            if is_current and device.is_stalled:
                return
            _, packets, size = wire.down.popleft()
            wire.down_bytes -= size
            device.take(wire, packets)
        has_room = wire.is_open and wire.down_bytes < SOCKET_BYTES // 2
        if has_room and wire.connection.is_socket_full and wire not in self.world.drained:
            self.world.drained.append(wire)
        if 0 <= wire.ends_at_ms <= self.time_ms and not wire.down:
            device.lost(wire)

    def closed_by_broker(self, wire: Wire) -> None:
        self._end_down(wire, self._between(self.plan.network_ms))

    def _end_down(self, wire: Wire, delay_ms: int) -> None:
        """The client finds out when it has read what still comes."""
        wire.up.clear()
        due_ms = self.time_ms + delay_ms
        if wire.down:
            due_ms = max(due_ms, wire.down[-1][0])
        wire.ends_at_ms = due_ms
        self.later(due_ms - self.time_ms, self.look_down, wire)

    def _lose_down(self, wire: Wire) -> None:
        """Of what is on its way to a client only a first part arrives."""
        kept = self.random.randint(0, len(wire.down))
        while len(wire.down) > kept:
            wire.down_bytes -= wire.down.pop()[2]

    def cut(self, wire: Wire) -> None:
        """The connection breaks, at any byte of either direction; both ends find out later."""
        if wire.is_cut or wire.ends_at_ms >= 0:
            return
        self.say(f"network: {wire.tap.client_id} is cut off")
        wire.is_cut = True
        kept = self.random.randint(0, sum(len(data) for _, data in wire.up))
        arriving: list[tuple[int, bytes]] = []
        for due_ms, data in wire.up:
            if kept > 0:
                arriving.append((due_ms, data[:kept]))
                kept -= len(data)
        self._lose_down(wire)
        self._end_down(wire, self.random.choice([0, 1, 300]))
        wire.up.extend(arriving)
        delay_ms = self.random.choice([0, 1, 100, 1500])
        if arriving:
            delay_ms = max(delay_ms, arriving[-1][0] - self.time_ms)
        self.later(delay_ms, self._broker_loses, wire)

    def _broker_loses(self, wire: Wire) -> None:
        if wire.is_open and self.is_up:
            wire.up.clear()
            wire.is_open = False
            self.world.lost.append(wire)

    # --- the broker's end, and its start

    def end_broker(self, waits_ms: int) -> None:
        """It crashes, or stops in good order."""
        if not self.is_up or self.is_finishing:
            return
        if waits_ms > 0 and self.world.disk.under_way is None:
            # The worst moments are those at which the disk is busy.
            self.later(1, self.end_broker, waits_ms - 1)
            return
        self._frozen_until_ms = 0
        wires = list(self.world.wires.values())
        if self.random.random() < 0.2:
            self.say("the broker stops")
            self.world.is_stopping = True
            for wire in wires:
                wire.inbox = []
            self.world.now_ms = self.now_ms
            self.checker.begin_turn(self.now_ms)
            self.world.stop()
            self.checker.all_durable()
        else:
            survives = self.random.random() < 0.4
            self.say(f"the broker crashes{', its last commit survives' * survives}")
            self.world.crash(commit_survives=survives)
        self.checker.crashed()
        self.is_up = False
        for wire in wires:
            self._lose_down(wire)
            self._end_down(wire, self.random.choice([0, 1, 200]))
        self.later(self.random.choice([0, 1, 500, 3000]), self.start_broker)

    def start_broker(self) -> None:
        if self.is_up:
            return
        self.say("the broker starts")
        self.is_up = True
        world = self.world
        world.now_ms = self.now_ms
        self.checker.begin_turn(self.now_ms)
        world.start_again(0)
        self.model.restart()
        self._check_recovered()

    def _check_recovered(self) -> None:
        """What the broker has after its start is what it had promised to keep."""
        found = recovered(self.world)
        for client_id, session in self.model.sessions.items():
            if client_id not in found:
                raise Violation("session lost", f"{client_id} after a crash", client_id)
            if found[client_id].subscriptions != session.subscriptions:
                text = f"{client_id}: {found[client_id].subscriptions}"
                text = f"{text}, expected {session.subscriptions}"
                raise Violation("subscription lost", text, client_id)
            if found[client_id].expiry_s != session.expiry_s:
                raise Violation("session lost", f"{client_id} has another expiry", client_id)
        for client_id in found:
            if client_id not in self.model.sessions:
                raise Violation("back from the dead", f"the session of {client_id}", client_id)
        self._check_retained()

    def _check_retained(self) -> None:
        found = {t: key.split(" ")[0] for t, key in recovered_retained(self.world).items()}
        now_ms = self.now_ms
        for topic, routed in self.model.retained.items():
            is_due = 0 < routed.expires_ms <= self.model.latest_ms
            if is_due and (topic not in found or routed.expires_ms <= now_ms):
                continue
            if found.get(topic) != routed.message.key:
                text = f"{topic} has {found.get(topic)}, expected {routed.message}"
                raise Violation("retained lost", text, topic, routed.message.key)
        for topic, key in found.items():
            if topic not in self.model.retained:
                raise Violation("back from the dead", f"{key}, retained on {topic}", topic, key)

    # --- the end

    def finish(self) -> None:
        """Everyone comes back, and all that is owed is delivered."""
        self.say("everyone comes back")
        self.is_finishing = True
        self._frozen_until_ms = 0
        self.start_broker()
        # The clock is right again, so that nothing waits for it.
        self.skew_ms = max(0, self.model.latest_ms - START_MS - self.time_ms)
        for device in self.devices.values():
            if device.link is not None:
                device.go_on(device.link)
        self._settle()
        self._bring_back()
        self.checker.check_kept()
        self._audit()
        for device in self.devices.values():
            if device.link is not None and device.sending:
                text = f"{device.client_id} never got an answer: {list(device.sending)}"
                raise Violation("not answered", text, device.client_id)
        self._check_empty()

    def _bring_back(self) -> None:
        """Connect whoever has a session to come back to; a limit may close some of them again."""
        self.world.set_free(1 << 30)
        self.plan.limits.sessions_max = 0
        for _ in range(BACK_MAX):
            away = [d for d in self.devices.values() if d.link is None and d.kind.expiry_s > 0]
            for device in away:
                device.connect()
            self._settle()
            if not self.plan.is_limited:
                return
            self.advance(LOOK_MS)
            self._settle()

    def _settle(self) -> None:
        """Wait until nothing moves any more."""
        end_ms = self.time_ms + QUIET_MS
        while self._is_busy():
            next_ms = self._next_ms()
            if next_ms > end_ms:
                raise Violation("never at rest", f"after {QUIET_MS} ms there is still work")
            self._step(next_ms)

    def _is_busy(self) -> bool:
        world = self.world
        broker = world.broker
        return (
            len(self._heap) > self.pings
            or world.has_work
            or world.holds_back
            or broker.is_commit_under_way
            or broker._commits.has_lazy
            or broker.delayed.count > 0
        )

    def _audit(self) -> None:
        """A new session is sent exactly what is retained."""
        auditor = Device(self, Kind("auditor", 5, 100, ("#",), (), 1, 0, False))
        self.devices["auditor"] = auditor
        auditor.connect()
        assert auditor.link is not None
        self._settle()
        if auditor.link is not None or not self.plan.is_limited:
            auditor.subscribe_to_all()
        self._settle()
        self.checker.check_kept()
        self._check_retained()

    def _check_memory(self) -> None:
        """The broker holds no more than its bounds say."""
        world = self.world
        for wire in world.wires.values():
            output = wire.connection._output_bytes
            if output > _bound(connection, "OUTPUT_BYTES_MAX") + OUTPUT_SLACK_BYTES:
                text = f"{output} bytes wait for {wire.tap.client_id}"
                raise Violation("memory", text, wire.tap.client_id)
        if isinstance(self.checker, LimitedChecker):
            self.checker.check_queues(world)
        broker = world.broker
        tail = broker._delivery.tail
        committed = broker._commits.durable_lsn_end - tail.first
        if committed > _bound(log_tail, "TAIL_ENTRIES_MAX"):
            raise Violation("memory", f"{committed} committed entries in the tail of the log")

    def _check_empty(self) -> None:
        """All is delivered: nothing holds the log, and nothing is in flight."""
        world = self.world
        broker = world.broker
        if isinstance(self.checker, LimitedChecker):
            self.advance(5 * LOOK_MS)
            self._settle()
            self.checker.check_flags(broker)
        check_at_rest(broker)
        if broker.trim_point() != broker._commits.next_lsn or world.disk.kept.entries:
            left = list(world.disk.kept.entries)
            text = f"trimmed below {broker.trim_point()} of {broker._commits.next_lsn}, left {left}"
            raise Violation("log not trimmed", text)
        for session in broker.sessions._by_client_id.values():
            if session.sender.in_flight or session.group_of:
                text = f"of {session.client_id}: {session.sender.in_flight}"
                raise Violation("memory", text, session.client_id)
        for group in broker._router.groups._by_number.values():
            state = (group.is_behind, group.returned, group.lent, group.stranded)
            if group.online and state != (False, [], {}, {}):
                raise Violation("memory", f"of {group.topic_filter}: {state}", group.topic_filter)
        found = set(broker.sessions._by_client_id)
        expected = set(self.model.sessions)
        if found != expected:
            check = "session lost" if expected - found else "back from the dead"
            raise Violation(check, f"{found ^ expected}", *(found ^ expected))

    # --- what happened

    def note(self, client_id: str, direction: str, packet: Packet) -> None:
        """A packet reaches, or leaves, the broker."""
        self.events += 1
        if self.is_traced:
            arrow = "->" if direction == "in" else "<-"
            self.say(f"{client_id} {arrow} {describe_any(packet)}")

    def hash(self, data: bytes) -> None:
        self.crc = zlib.crc32(data, self.crc ^ self.time_ms)

    def say(self, text: str) -> None:
        if self.is_traced:
            self.trace.append(f"{self.time_ms / 1000:9.3f}  {text}")
