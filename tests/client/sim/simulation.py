"""One life: clients, disks, a network and a server, all from one seed; and its quiet end."""

import asyncio
import logging
import random
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from holdfast.client import client as client_module
from holdfast.client import commits as commits_module
from holdfast.client import connection as connection_module
from holdfast.client import engine as engine_module
from holdfast.client import link as link_module
from holdfast.client import outbox as outbox_module
from holdfast.client import outgoing as outgoing_module
from holdfast.client import sending as sending_module
from holdfast.client.records import LoadedOutbox
from holdfast.client.url import Target
from holdfast.errors import ConnectionLost
from holdfast.protocol.decode import decode
from holdfast.protocol.framer import PACKET_BYTES_MAX, Framer
from holdfast.protocol.packets import Packet, Pubcomp, Publish, Pubrec, Pubrel
from tests.client.sim.broker_server import BrokerServer
from tests.client.sim.disk import VirtualOutboxFile, VirtualWorker, payloads
from tests.client.sim.ledger import PROMISED, Ledger
from tests.client.sim.loop import VirtualLoop
from tests.client.sim.model_server import ModelServer
from tests.client.sim.network import Wire
from tests.client.sim.plan import Plan
from tests.client.sim.process import PROCESS, Device, Process
from tests.sim.describe import describe_any
from tests.sim.simulation import Result
from tests.sim.taps import Violation

QUIET_S = 300.0  # so long may it take until all is delivered in the end
LOOK_S = 0.25


def run(seed: int, *, is_traced: bool = False) -> Result:
    """Run a seed to its end, or to the first promise that is broken."""
    simulation = Simulation(seed, is_traced=is_traced)
    violation: Violation | None = None
    logging.disable()
    try:
        with virtual(simulation):
            simulation.play()
    except Violation as error:
        violation = error
    except Exception as error:
        violation = Violation("failed", repr(error))
        violation.__cause__ = error
    finally:
        logging.disable(logging.NOTSET)
    if violation is not None:
        simulation.say(f"VIOLATION {violation}")
    fingerprint = f"{simulation.crc:08x}-{simulation.events}-{simulation.loop.now_s:.6f}"
    return Result(seed, violation, simulation.events, fingerprint, simulation.trace)


async def _at_once(_name: str, job: Callable[[], LoadedOutbox]) -> LoadedOutbox:
    return job()


@contextmanager
def virtual(simulation: "Simulation") -> Iterator[None]:
    """The client's edges to the machine are those of the simulation; few identifiers, if it may."""
    clock = SimpleNamespace(
        time=lambda: 1_700_000_000 + simulation.loop.now_s,
        time_ns=lambda: int((1_700_000_000 + simulation.loop.now_s) * 1e9),
    )
    changes: list[tuple[Any, str, object]] = [
        (commits_module, "Worker", lambda _name, _loop: VirtualWorker(PROCESS.get())),
        (commits_module, "on_thread", _at_once),
        (engine_module, "time", clock),
        (client_module, "time", clock),
        (link_module, "random", simulation.random),
        (link_module, "open_transport", simulation.open_transport),
        (outbox_module, "OutboxFile", lambda _path: VirtualOutboxFile(PROCESS.get())),
    ]
    ids = simulation.plan.ids
    if ids > 0 and str(outgoing_module.__file__).endswith(".py"):
        changes += [
            (outgoing_module, "PUBLISH_ID_MAX", ids),
            (sending_module, "PUBLISH_ID_MAX", ids),
            (connection_module, "REQUEST_ID_MIN", ids + 1),
        ]
    before = [(module, name, getattr(module, name)) for module, name, _ in changes]
    try:
        for module, name, value in changes:
            setattr(module, name, value)
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


class Simulation:
    """One life."""

    def __init__(self, seed: int, *, is_traced: bool) -> None:
        self.random = random.Random(seed)
        self.plan = Plan(self.random)
        self.loop = VirtualLoop()
        self.ledger = Ledger()
        self.wires: set[Wire] = set()
        self.is_rough = True
        # A file was lost: what the server holds of it is released when its identifiers come again.
        self.may_hold = False
        self.events = 0
        self.crc = 0
        self.trace: list[str] = []
        self.is_traced = is_traced
        self._framers: dict[Wire, Framer] = {}
        self.has_broker = self.plan.has_broker
        self.server: BrokerServer | ModelServer = (
            BrokerServer(self) if self.has_broker else ModelServer(self)
        )
        self.devices = {name: Device(self, name, kind) for name, kind in self.plan.kinds.items()}

    # --- time

    def at(self, time_s: float, action: Callable[..., object], *arguments: Any) -> None:
        self.loop.later(max(0.0, time_s - self.loop.now_s), action, *arguments)

    def after(self, delay_s: float, action: Callable[..., object], *arguments: Any) -> None:
        self.loop.later(delay_s, action, *arguments)

    def play(self) -> None:
        loop = self.loop
        asyncio.set_event_loop(loop)
        try:
            self._roughen()
            self._advance(self.plan.lasts_s)
            self._calm()
            self._close()
        finally:
            self._clean_up()
            asyncio.set_event_loop(None)
            loop.close()

    def _advance(self, duration_s: float) -> None:
        self.after(duration_s, self.loop.stop)
        end_s = self.loop.now_s + duration_s
        while self.loop.now_s < end_s - 1e-6:
            self.loop.run_forever()
            if self.loop.failures:
                raise self.loop.failures[0]

    def _roughen(self) -> None:
        chance, plan = self.random, self.plan
        for device in self.devices.values():
            self.after(chance.uniform(0, 1), device.start)

        def often(times: int, action: Callable[[], None]) -> None:
            for _ in range(times):
                self.after(chance.uniform(0, plan.lasts_s), action)

        often(plan.cuts, self._cut)
        often(plan.silences, self._silence)
        often(plan.broker_crashes, self.server.crash)
        often(plan.forgets, self._forget)
        for device in self.devices.values():
            if device.kind.subscribes_to and not self.has_broker:
                often(40, lambda device=device: self._publish_down(device))  # type: ignore[misc]

    def _publish_down(self, device: Device) -> None:
        for _ in range(self.random.choice([1, 1, 3])):
            self.server.publish(device.name, self.random.choice([0, 1, 1, 2, 2, 2]))

    def _cut(self) -> None:
        for wire in self._some_wire():
            self.say(f"{wire.process.name}: the connection breaks")
            wire.break_(ConnectionResetError("cut"))

    def _silence(self) -> None:
        for wire in self._some_wire():
            self.say(f"{wire.process.name}: the connection is silent from now on")
            wire.is_silent = True

    def _some_wire(self) -> list[Wire]:
        if not self.is_rough or not self.wires:
            return []
        wires = sorted(self.wires, key=lambda wire: wire.process.name)
        return [self.random.choice(wires)]

    def _forget(self) -> None:
        if self.is_rough:
            self.server.forget(self.random.choice(list(self.devices)))

    # --- the network

    async def open_transport(
        self, _target: Target, make_protocol: Callable[[], asyncio.Protocol], **_how: object
    ) -> tuple[asyncio.Transport, asyncio.Protocol]:
        process = PROCESS.get()
        await asyncio.sleep(self.random.uniform(0, self.plan.network_s))
        if self.is_rough and self.random.random() < self.plan.dial_fails:
            raise ConnectionLost("nobody is there")
        if process.is_dead:
            raise ConnectionLost("the process is dead")
        protocol = make_protocol()
        try:
            wire = Wire(self, process, protocol, self.server.accept)
        except ConnectionRefusedError as error:
            raise ConnectionLost("the server is down") from error
        self.wires.add(wire)
        protocol.connection_made(wire.transport)
        return wire.transport, protocol

    def process_died(self, process: Process) -> None:
        """What it has written may arrive, or a part of it."""
        for wire in list(self.wires):
            if wire.process is process:
                wire.break_(None)

    def wrote(self, wire: Wire, data: bytes) -> None:
        """A client writes: what it promises by that must be on its disk."""
        self.crc = zlib.crc32(data, self.crc)
        device = wire.process.device
        framer = self._framers.setdefault(wire, Framer(PACKET_BYTES_MAX))
        framer.feed(data)
        while framer.next_frame():
            packet = decode(framer.buffer, framer.start, framer.end, device.version)
            if self.is_traced:
                self.say(f"{device.name} writes {describe_any(packet)}")
            if device.kind.has_outbox:
                try:
                    self._check_durable(device, packet)
                except Violation as error:
                    # Told here too: the client survives errors of its callers.
                    self.loop.fail(error)
                    raise

    def _check_durable(self, device: Device, packet: Packet) -> None:
        disk = device.disk
        check = "sent before it was durable"
        match packet:
            case Publish() if packet.qos > 0:
                device.written.add(packet.payload)
                seqs = [seq for seq, payload in payloads(disk).items() if payload == packet.payload]
                if not seqs or seqs[0] >= disk.sent_below:
                    raise Violation(check, describe_any(packet), device.name)
            case Pubrec():
                if not disk.incoming.get(packet.packet_id, (0, False))[1]:
                    raise Violation(check, describe_any(packet), device.name)
            case Pubcomp():
                if packet.packet_id in disk.incoming:
                    raise Violation(check, describe_any(packet), device.name)
            case Pubrel() if packet.reason_code == 0:
                self._check_pubrel(device, packet.packet_id)

    def _check_pubrel(self, device: Device, packet_id: int) -> None:
        """No message of this identifier could be sent again.

        (One that was never sent may follow: in a session that another process has begun.)
        """
        ids = outgoing_module.PUBLISH_ID_MAX
        kept = payloads(device.disk)
        seqs = [seq for seq in device.disk.outgoing if 1 + seq % ids == packet_id]
        if seqs and kept.get(min(seqs)) in device.written:
            raise Violation("sent before it was durable", f"PUBREL #{packet_id}", device.name)

    # --- the end

    def _calm(self) -> None:
        """Nothing breaks any more: all that was promised arrives."""
        self.say("all is calm")
        self.is_rough = False
        for device in self.devices.values():
            device.left = 0
        end_s = self.loop.now_s + QUIET_S
        quiet = 0
        while quiet < 4:
            self._advance(LOOK_S)
            quiet = quiet + 1 if self._is_quiet() else 0
            if self.loop.now_s > end_s:
                raise Violation("never at rest", self._busy())
        self.server.check_idle()
        for device in self.devices.values():
            if device.process is not None:
                device.process.count_dropped()
        for device in self.devices.values():
            self._check(device)

    def _is_quiet(self) -> bool:
        if any(wire.is_silent for wire in self.wires):
            return False  # the client has still to notice
        for device in self.devices.values():
            process = device.process
            if process is None or process.client is None or process.client._engine_ is None:
                return False
            process.run(process.calm)
            if not process.client.is_connected or not process.client.outbox.is_empty:
                return False
            if device.kind.subscribes_to and (process.stream is None or process.stream.queued):
                return False
            engine = process.client._engine_
            commits = engine._commits
            is_committing = commits is not None and commits._committing is not None
            if is_committing or engine.changes.records:
                return False
        return self.server.is_idle

    def _busy(self) -> str:
        texts: list[str] = []
        for device in self.devices.values():
            process = device.process
            if process is None or process.client is None or process.client._engine_ is None:
                texts.append(f"{device.name} is not there")
                continue
            client = process.client
            waits = None if process.stream is None else process.stream.queued
            connected = client.is_connected
            messages = client.outbox.messages
            texts.append(f"{device.name}: {connected=} {messages=} to be taken: {waits}")
        return f"{texts}, the server: {self.server.describe()}"

    def _check(self, device: Device) -> None:
        origin = "pub" if self.has_broker else device.name
        if device.kind.publishes and not self.has_broker:
            self.ledger.check(device.name, 0, device.dropped)
        if device.kind.subscribes_to:
            lost_max = 0 if device.kind.manual_ack else device.kills
            dropped = self.devices["pub"].dropped if self.has_broker else 0
            self.ledger.check(origin if self.has_broker else "server", lost_max, dropped)
        self._check_leaks(device)

    def _check_leaks(self, device: Device) -> None:
        """All is done, so nothing is held: no identifier, no slot, no waiter, no row."""
        process = device.process
        assert process is not None and process.client is not None
        client = process.client
        engine = client._engine_
        assert engine is not None
        sending, receiving = engine.sending, engine.receiving
        connection, commits = engine.connection, engine._commits
        assert connection is not None
        quota = min(sending._in_flight_max, connection.limits.receive_maximum)
        held = {
            "messages": sending.messages,
            "bytes": sending.bytes,
            "in flight": sending._in_flight,
            "identifiers": sending._sender.in_flight,
            "slots": quota - sending._quota,
            "queue": len(sending._queue),
            "unacknowledged": receiving._unacknowledged,
            "received": receiving._receiver.held,
            "delivery ids": receiving._delivery_ids,
            "acknowledgements": len(receiving._pubacks) + len(receiving._pubrecs),
            "waiters": list(engine._room),
            "commit waiters": [] if commits is None else [*commits._this, *commits._next],
            "asked": client._the_subscribing._asked,
            "requests": connection._requests,
            "rows": device.disk.outgoing,
            "held rows": device.disk.incoming,
        }
        left = {name: value for name, value in held.items() if value}
        if left:
            raise Violation("leaked", f"{left}", device.name)

    def check_closed(self, device: Device) -> None:
        """A client was closed in order: all that it has promised is on its disk."""
        if device.kind.policy == "drop-oldest":
            return
        kept = set(payloads(device.disk).values())
        for given in self.ledger.given.get(device.name, []):
            is_owed = given.state == PROMISED and given.qos > 0 and not given.came
            if is_owed and given.payload not in kept and not self.has_broker:
                raise Violation("closed and lost", str(given), device.name)

    def _close(self) -> None:
        for device in self.devices.values():
            if device.process is not None:
                device.process._stopped.set()
        self._advance(1.0)

    def _clean_up(self) -> None:
        """End all that is left of dead processes."""
        loop = self.loop
        for _ in range(20):
            tasks = [task for task in asyncio.all_tasks(loop) if not task.done()]
            if not tasks:
                break
            for task in tasks:
                task.cancel()
            loop.later(1, loop.stop)
            try:
                loop.run_forever()
            except Violation:
                break

    # --- what happened

    def note(self, name: str, arrow: str, packet: Packet) -> None:
        self.events += 1
        if self.is_traced:
            self.say(f"{name} {arrow} {describe_any(packet)}")

    def say(self, text: str) -> None:
        if self.is_traced:
            self.trace.append(f"{self.loop.now_s - 1000:9.3f}  {text}")
