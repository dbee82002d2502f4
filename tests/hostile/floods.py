"""Attacks by never pausing: publishers, acknowledgements, answers, and whoever never reads."""

import select
import socket
from collections.abc import Callable
from typing import Final

from tests.hostile.scene import MIB, Attack, Scene
from tests.support import packets
from tests.support.wire import Wire

_CHUNK_BYTES: Final = 64 * 1024


def push(
    wires: list[Wire], data: bytes, is_over: Callable[[], bool], *, is_reading: bool = False
) -> int:
    """Send ``data`` again and again on all connections; how many bytes went out.

    What the server sends is thrown away where it ``is_reading``. Whoever is closed is left out, and
    it ends when nobody is left.
    """
    total = 0
    rests = {wire: memoryview(data) for wire in wires}
    for wire in wires:
        wire.socket.setblocking(False)
    while rests and not is_over():
        is_stuck = True
        for wire, rest in list(rests.items()):
            try:
                if is_reading:
                    _throw_away(wire)
                sent = wire.socket.send(rest[:_CHUNK_BYTES])
            except BlockingIOError:
                continue
            except ConnectionError:
                del rests[wire]
                continue
            is_stuck = False
            total += sent
            rests[wire] = rest[sent:] or memoryview(data)
        if is_stuck:
            select.select([], [wire.socket for wire in rests], [], 0.05)
    return total


def _throw_away(wire: Wire) -> None:
    try:
        while wire.socket.recv(1 << 18):
            pass
    except BlockingIOError:
        pass


def _guests(scene: Scene, count: int, prefix: str) -> list[Wire]:
    wires = []
    for number in range(count):
        wire = scene.dial()
        wire.hello(f"{prefix}-{number}", clean=True)
        wires.append(wire)
    return wires


def _qos0_flood(scene: Scene) -> None:
    """Publishers that send the smallest messages as fast as the network takes them."""
    data = packets.publish("f", b"") * 10_000
    sent = push(_guests(scene, scene.size, "flood"), data, scene.trips_from_here())
    scene.note("PUBLISH", sent // 6)


def _qos1_flood(scene: Scene) -> None:
    """The same at QoS 1, for a session that is away: all of it goes to disk until that is full."""
    with scene.dialled() as absent:
        absent.hello("flood-absent")
        absent.subscribe("f", 1)
    data = b"".join(packets.publish("f", b"", qos=1, packet_id=n) for n in range(1, 1001))
    wires = []
    for number in range(scene.size):
        wire = Wire(scene.broker.port, packets.V311)
        scene.stack.enter_context(wire)
        wire.hello(f"flood-{number}", clean=True)
        wires.append(wire)
    sent = push(wires, data, scene.trips_from_here(), is_reading=True)
    scene.note("PUBLISH", sent // 8)
    scene.serve_on()


def _deep_flood(scene: Scene) -> None:
    """Small packets that each cost a search: topics that are all different and many levels deep."""
    names = [f"{'a/' * 60}{scene.chance.randrange(10**9)}" for _ in range(5000)]
    data = b"".join(packets.publish(name) for name in names)
    wires = _guests(scene, scene.size, "deep")
    push(wires, data, scene.trips_from_here())


def _never_reads(scene: Scene) -> None:
    """Subscribers with small windows that never read, beside one who publishes to them."""
    for number in range(scene.size):
        wire = scene.dial()
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        wire.hello(f"deaf-{number}", clean=number % 2 == 0)
        wire.subscribe("loud", number // 2 % 2)
    is_over = scene.trips_from_here()
    with scene.dialled() as publisher:
        publisher.hello("loud", clean=True)
        sent = 0
        while sent < 400 or not is_over():
            publisher.publish_all("loud", [bytes(32 * 1024)] * 20, 1)
            sent += 20
    scene.note("messages", sent)


def _never_reads_answers(scene: Scene) -> None:
    """Clients that ask and never read the answers: PINGREQ, and QoS 1 that nobody wants."""
    data = packets.pingreq() * 1000
    data += b"".join(packets.publish("n", b"", qos=1, packet_id=n) for n in range(1, 1001))
    wires = _guests(scene, scene.size, "asker")
    for wire in wires:
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    push(wires, data, scene.trips_from_here())


def _acknowledgement_flood(scene: Scene) -> None:
    """PUBACK, PUBREC, PUBREL and PUBCOMP for what never was, and for every identifier in turn."""
    kinds = (packets.PUBREL, packets.PUBREC, packets.PUBCOMP, packets.PUBACK)
    data = b"".join(packets.acknowledge(kind, n) for n in range(1, 65_536, 7) for kind in kinds)
    wires = _guests(scene, scene.size, "ack")
    sent = push(wires, data, scene.trips_from_here(), is_reading=True)
    scene.note("acknowledgements", sent // 4)


def _open_exchanges(scene: Scene) -> None:
    """QoS 2 publishes never released, up to Receive Maximum and past it, again and again."""
    for number in range(scene.size):
        with scene.dialled() as wire:
            connack = wire.hello(f"open-{number % 3}")
            maximum = connack.number(packets.RECEIVE_MAXIMUM, 65_535)
            first = 1 + number * 1000 % 60_000
            for packet_id in range(first, first + maximum + 1):
                wire.send(packets.publish("open", b"", qos=2, packet_id=packet_id))
            answers = wire.until_closed()
            assert answers[-1].kind == packets.DISCONNECT
            assert answers[-1].code == 0x93, "Receive Maximum exceeded"
            scene.note("0x93")
    scene.serve_on()


def _loop(scene: Scene) -> None:
    """Clients that publish what they receive, twice: the traffic doubles until it is stopped."""
    wires = _guests(scene, scene.size, "echo")
    for wire in wires:
        wire.subscribe("loop/#")
        wire.send(packets.publish("loop/x", b"?"))
        wire.socket.setblocking(False)
    is_over = scene.trips_from_here()
    echo = packets.publish("loop/x", b"?") * 2
    answered = 0
    while not is_over():
        ready, _, _ = select.select([wire.socket for wire in wires], [], [], 0.05)
        for one in ready:
            count = len(one.recv(1 << 16)) // (len(echo) // 2)
            try:
                answered += one.send(echo * min(count, 2000)) // len(echo)
            except BlockingIOError:
                pass
    scene.note("echoes", answered)


ATTACKS: Final = (
    Attack(
        name="qos0-flood",
        title="publishers that never stop, QoS 0",
        run=_qos0_flood,
        small=2,
        full=50,
        memory_bytes=lambda size: 10 * MIB + size * MIB,
    ),
    Attack(
        name="qos1-flood",
        title="publishers that never stop, QoS 1, to disk",
        run=_qos1_flood,
        small=2,
        full=50,
        memory_bytes=lambda size: 32 * MIB + size * 6 * MIB,
    ),
    Attack(
        name="deep-flood",
        title="publishers that never stop, deep topics all different",
        run=_deep_flood,
        small=2,
        full=50,
        memory_bytes=lambda size: 24 * MIB + size * MIB,
    ),
    Attack(
        name="never-reads",
        title="subscribers that never read",
        run=_never_reads,
        small=4,
        full=200,
        memory_bytes=lambda size: 24 * MIB + size * 5 * MIB,
    ),
    Attack(
        name="never-reads-answers",
        title="clients that never read their answers",
        run=_never_reads_answers,
        small=8,
        full=200,
        memory_bytes=lambda size: 16 * MIB + size * 6 * MIB,
    ),
    Attack(
        name="acknowledgements",
        title="PUBREC, PUBREL, PUBCOMP, PUBACK floods",
        run=_acknowledgement_flood,
        small=4,
        full=50,
        memory_bytes=lambda size: 10 * MIB + size * MIB,
    ),
    Attack(
        name="open-exchanges",
        title="QoS 2 never released, past Receive Maximum",
        run=_open_exchanges,
        small=6,
        full=200,
        memory_bytes=lambda size: 24 * MIB,
    ),
    Attack(
        name="echo-loop",
        title="clients that publish twice what they receive",
        run=_loop,
        small=4,
        full=20,
        memory_bytes=lambda size: 16 * MIB + size * 6 * MIB,
    ),
)
