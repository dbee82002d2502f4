"""Attacks by connecting: slowly, by the thousand, in each other's name."""

import itertools
from typing import Final

from tests.hostile.crowd import Crowd
from tests.hostile.scene import MIB, Attack, Scene
from tests.support import packets
from tests.support.wire import Wire

# A connection without a CONNECT: our objects for it and those of the event loop.
CONNECTION_BYTES: Final = 12 * 1024


def _slow_connect(scene: Scene) -> None:
    """A CONNECT on each connection, a byte at a time, that is never complete."""
    files = scene.server.open_files
    hello = packets.connect("slow-" + "x" * 2000)
    with Crowd(scene.broker.port, scene.size) as crowd:
        for byte in hello[:20]:
            crowd.send_each(bytes([byte]))
            crowd.look()
        scene.serve_on()
        for byte in itertools.cycle(hello[20:40]):
            crowd.send_each(bytes([byte]))
            crowd.look(0.01)
            if not crowd.sockets:
                break
        scene.note("closed", crowd.closed)
        assert crowd.closed == scene.size, "whoever never gets done with CONNECT is closed"
        assert not crowd.received, "nobody gets in, nobody is answered"
    scene.until_gone(files)


def _connect_and_drop(scene: Scene) -> None:
    """Connections dropped with nothing sent, half a CONNECT, a whole one, and one that stays."""
    files = scene.server.open_files
    sent = 0
    while sent < scene.size:
        count = min(scene.size - sent, 500)
        for part in (b"", packets.connect("half")[:9], packets.connect(f"drop-{sent}")):
            with Crowd(scene.broker.port, count // 4) as crowd:
                crowd.send_each(part)
                crowd.reset_all()
        with Crowd(scene.broker.port, count - 3 * (count // 4)) as crowd:
            crowd.send_each(packets.connect("", values={packets.SESSION_EXPIRY: 0}))
            crowd.look()
        sent += count
    scene.note("dropped", sent)
    scene.until_gone(files)
    scene.serve_on()


def _takeovers(scene: Scene) -> None:
    """One client identifier, used by one connection after another, and by many at a time."""
    hello = packets.connect("wanted", clean=False, values={packets.SESSION_EXPIRY: 3600})
    holder: Wire | None = None
    for _ in range(scene.size):
        wire = scene.dial()
        wire.send(hello)
        code = wire.expect(packets.CONNACK).code
        if code != 0:
            # Too many in turn: who has the session keeps it.
            scene.note(f"refused 0x{code:02X}")
            wire.until_closed()
            assert holder is not None
            holder.ping()
            continue
        if holder is not None:
            assert [one.code for one in holder.until_closed()] == [0x8E], "Session taken over"
            scene.note("taken over")
        holder = wire
    files = scene.server.open_files
    with Crowd(scene.broker.port, scene.size) as crowd:
        crowd.send_each(hello)
        crowd.until_closed(scene.size - 1)
        scene.note("turned out at once", crowd.closed)
        scene.serve_on()
    scene.until_gone(files)


def _huge_connects(scene: Scene) -> None:
    """CONNECT with every property at its largest, and above what is taken before one is let in."""
    text = "x" * 60_000
    values: packets.Properties = {
        packets.SESSION_EXPIRY: 0xFFFF_FFFF,
        packets.RECEIVE_MAXIMUM: 0xFFFF,
        packets.MAXIMUM_PACKET_SIZE: 0xFFFF_FFFF,
        packets.TOPIC_ALIAS_MAXIMUM: 0xFFFF,
        packets.USER_PROPERTY: (text, "y"),
    }
    fitting = packets.connect("huge", values=values, user="u", password="p" * 60_000)
    too_large = packets.connect("huge", values=values, user=text, password=text)
    for _ in range(scene.size):
        with scene.dialled() as wire:
            wire.send(fitting)
            scene.note(f"0x{wire.expect(packets.CONNACK).code:02X}")
        with scene.dialled() as wire:
            try:
                wire.send(too_large)
            except ConnectionError:
                pass
            answers = wire.until_closed()
            assert all(one.code == 0x95 for one in answers), "Packet too large"
            scene.note("too large")
    scene.serve_on()


def _slow_giants(scene: Scene) -> None:
    """Packets of the largest size, each sent for the most part, and never completed."""
    size = 1_048_576
    start = packets.packet(packets.PUBLISH, 0, packets.binary("giant") + bytes(size - 20))
    wires = []
    for number in range(scene.size):
        wire = scene.dial()
        wire.hello(f"giant-{number}", clean=True)
        wires.append(wire)
    for at in range(0, size // 2, 32 * 1024):
        for wire in wires:
            wire.send(start[at : at + 32 * 1024])
    scene.serve_on()


def _huge_wills(scene: Scene) -> None:
    """A session with the largest will that is taken, on each connection; then all drop at once."""
    wires = []
    for number in range(scene.size):
        will = packets.Will(f"will/{number}", b"w" * 60_000, qos=1, delay_s=3600)
        values = {packets.SESSION_EXPIRY: 7200}
        wire = scene.dial()
        wire.send(packets.connect(f"heir-{number}", will=will, values=values))
        scene.note(f"0x{wire.expect(packets.CONNACK).code:02X}")
        wires.append(wire)
    for wire in wires:
        wire.cut()
    scene.serve_on()


def _many_sessions(scene: Scene) -> None:
    """Sessions with a subscription each, to be kept for ever, that nobody comes back to."""
    hello = {packets.SESSION_EXPIRY: 0xFFFF_FFFF}
    for at in range(0, scene.size, 500):
        count = min(500, scene.size - at)
        with Crowd(scene.broker.port, count) as crowd:
            for number, one in enumerate(crowd.sockets.values(), at):
                one.send(
                    packets.connect(f"left-{number}", values=hello)
                    + packets.subscribe(1, [(f"left/{number}", 1)])
                    + packets.disconnect()
                )
            crowd.until_closed(count)
            scene.note("kept", count)
    scene.serve_on()


ATTACKS: Final = (
    Attack(
        name="slow-connect",
        title="CONNECT byte by byte, never complete",
        run=_slow_connect,
        small=200,
        full=5000,
        memory_bytes=lambda size: 8 * MIB + size * CONNECTION_BYTES,
        small_settings={"connect_timeout_s": 1.0},
    ),
    Attack(
        name="connect-drop",
        title="connections made and dropped",
        run=_connect_and_drop,
        small=400,
        full=10_000,
        memory_bytes=lambda size: 16 * MIB,
    ),
    Attack(
        name="takeovers",
        title="client ids in turn taking one session over",
        run=_takeovers,
        small=50,
        full=2000,
        memory_bytes=lambda size: 8 * MIB + size * CONNECTION_BYTES,
    ),
    Attack(
        name="huge-connects",
        title="CONNECT with every property maximal",
        run=_huge_connects,
        small=10,
        full=500,
        memory_bytes=lambda size: 8 * MIB,
    ),
    Attack(
        name="slow-giants",
        title="packets of 1 MiB that are never completed",
        run=_slow_giants,
        small=10,
        full=500,
        memory_bytes=lambda size: 8 * MIB + size * MIB,
    ),
    Attack(
        name="huge-wills",
        title="sessions with the largest will, all dropped",
        run=_huge_wills,
        small=20,
        full=1000,
        memory_bytes=lambda size: 24 * MIB + size * 240 * 1024,
    ),
    Attack(
        name="many-sessions",
        title="sessions for ever that nobody comes back to",
        run=_many_sessions,
        small=500,
        full=50_000,
        memory_bytes=lambda size: 24 * MIB + size * 4096,
    ),
)
