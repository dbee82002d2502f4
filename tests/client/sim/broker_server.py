"""Holdfast's own broker at the other end: the pure one, with its model of a store."""

from typing import TYPE_CHECKING

from holdfast.protocol.decode import decode
from tests.broker.world import START_MS, Client, World
from tests.client.sim.network import Wire
from tests.sim.describe import describe_any

if TYPE_CHECKING:
    from tests.client.sim.simulation import Simulation


class BrokerEnd:
    """The broker's end of one connection, for the network."""

    def __init__(self, server: "BrokerServer", peer: "Peer") -> None:
        self._server = server
        self._peer = peer

    def received(self, data: bytes) -> None:
        if self._peer.is_open and self._peer.connection.number in self._server.world.clients:
            self._peer.push_bytes(data)
            self._server.run()

    def lost(self) -> None:
        self._peer.is_open = False
        if self._peer.connection.number in self._server.world.clients:
            self._server.world.lost.append(self._peer)
            self._server.run()


class Peer(Client):
    """The same, for the broker."""

    def bind(self, server: "BrokerServer", wire: Wire) -> None:
        self._server = server
        self._wire = wire

    def arrive(self, data: bytes) -> None:
        simulation = self._server.simulation
        if simulation.is_traced:
            self._framer.feed(data)
            while self._framer.next_frame():
                framer, device = self._framer, self._wire.process.device
                packet = decode(framer.buffer, framer.start, framer.end, device.version)
                simulation.say(f"{device.name} <- {describe_any(packet)}")
        self._wire.send_down(data)

    def hang_up(self) -> None:
        self._wire.close_by_server()


class BrokerWorld(World):
    """A world whose connections are those of a virtual network."""

    def dial_peer(self) -> Peer:
        self.broker.begin_turn(self.now_ms)
        number = self._next_number
        self._next_number += 1
        connection = self.broker.connect(number, f"192.0.2.1:{number}", self.rules)
        peer = Peer(self, connection, 5)
        self.clients[number] = peer
        return peer


class BrokerServer:
    """See above."""

    def __init__(self, simulation: "Simulation") -> None:
        self.simulation = simulation
        self.world = BrokerWorld()
        self.world.limits.client_connects_max = 0
        self.world.limits.client_takeovers_max = 0
        # What is published before anybody has subscribed is promised to nobody.
        self.world.session("sub", "pub/#", 2)
        if simulation.plan.is_disk_slow:
            self.world.disk.hold()
        self._open: dict[int, Peer] = {}
        self._is_syncing = False
        self._is_up = True

    def accept(self, wire: Wire) -> "BrokerEnd":
        if not self._is_up:
            raise ConnectionRefusedError("the broker is down")
        peer = self.world.dial_peer()
        peer.bind(self, wire)
        self._open[peer.connection.number] = peer
        return BrokerEnd(self, peer)

    def run(self) -> None:
        """Let the broker act on what has come."""
        world = self.world
        world.now_ms = START_MS + int(self.simulation.loop.now_s * 1000)
        world.run()
        self._look()

    def _look(self) -> None:
        """Hang up where the broker has; and let the disk go on."""
        world = self.world
        for number, end in list(self._open.items()):
            if number not in world.clients:
                del self._open[number]
                if end.is_open or end.connection.is_closing:
                    end.is_open = False
                    end.hang_up()
        if world.disk.under_way is not None and not self._is_syncing:
            self._is_syncing = True
            delay_s = self.simulation.random.uniform(0, self.simulation.plan.commit_s)
            self.simulation.after(delay_s, self._sync)

    def _sync(self) -> None:
        self._is_syncing = False
        if not self._is_up:
            return
        self.world.disk.complete()
        self.run()

    def crash(self) -> None:
        """The broker is killed, and starts again."""
        if not self._is_up:
            return
        self.simulation.say("server: the broker is killed")
        self._is_up = False
        survives = self.simulation.random.random() < 0.5
        self.world.crash(commit_survives=survives)
        for end in list(self._open.values()):
            end.hang_up()
        self._open.clear()
        self.simulation.after(self.simulation.random.uniform(0, 1), self._restart)

    def _restart(self) -> None:
        self.simulation.say("server: the broker starts")
        self._is_up = True
        self.world.restart()

    def forget(self, client_id: str) -> None:
        """It forgets nobody."""

    def publish(self, client_id: str, qos: int) -> None:
        """Its clients do that."""

    @property
    def is_idle(self) -> bool:
        """Whether nothing is on its way to or from anybody."""
        broker = self.world.broker
        return (
            self._is_up
            and self.world.disk.under_way is None
            and all(
                not session.sender.in_flight
                and (len(session.received) == 0 or self.simulation.may_hold)
                for session in broker.sessions._by_client_id.values()
            )
        )

    def describe(self) -> str:
        """What is on its way."""
        sessions = self.world.broker.sessions._by_client_id.values()
        return ", ".join(
            f"{one.client_id}: {one.sender.in_flight} {one.received.held}" for one in sessions
        )

    def check_idle(self) -> None:
        """It is checked by its own tests."""
