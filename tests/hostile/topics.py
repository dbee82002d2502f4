"""Attacks by topics and filters: many, deep, overlapping, retained."""

import itertools
from collections.abc import Iterable, Iterator
from typing import Final

from tests.hostile.floods import push
from tests.hostile.scene import MIB, Attack, Scene
from tests.support import packets
from tests.support.wire import Wire

_LONGEST: Final = 65_535  # bytes of a topic or filter


def batched(items: Iterable[str], count: int) -> Iterator[list[str]]:
    """The items in lists of so many."""
    left = iter(items)
    while part := list(itertools.islice(left, count)):
        yield part


def subscribe_all(scene: Scene, wire: Wire, filters: Iterable[str], options: int = 0) -> int:
    """SUBSCRIBE to all, a thousand in a packet; the codes are noted. How many were granted."""
    granted = 0
    for number, part in enumerate(batched(filters, 1000)):
        packet_id = number % 65_535 + 1
        wire.send(packets.subscribe(packet_id, [(one, options) for one in part]))
        while (suback := wire.receive()).kind != packets.SUBACK:
            pass
        for code in suback.codes:
            scene.note(f"0x{code:02X}")
            granted += code < 0x80
    return granted


def retain_all(scene: Scene, wire: Wire, topics: list[str], payload: bytes) -> None:
    """Fill the slot of each topic; the codes are noted."""
    for part in batched(topics, 1000):
        wire.send(
            *(
                packets.publish(topic, payload, qos=1, packet_id=number, retain=True)
                for number, topic in enumerate(part, 1)
            )
        )
        for _ in part:
            scene.note(f"0x{wire.expect(packets.PUBACK).code:02X}")


def _wildcard_bomb(scene: Scene) -> None:
    """Filters of every mix of a level and "+", and every "#", against one deep topic."""
    depth = scene.size
    mixes = ["/".join(mix) for mix in itertools.product("a+", repeat=depth)]
    wire = scene.dial()
    wire.hello("bomb", clean=True)
    subscribe_all(scene, wire, [*mixes, *(mixes[0][: 2 * n] + "#" for n in range(depth))])
    publishers = [scene.dial() for _ in range(4)]
    for number, publisher in enumerate(publishers):
        publisher.hello(f"match-{number}", clean=True)
    topic = "/".join("a" * depth)
    data = b"".join(packets.publish(topic, b"%d" % n) for n in range(1000))
    push(publishers, data, scene.trips_from_here())


def _wildcard_flood(scene: Scene) -> None:
    """The same, and topics that are all different and reach every node: no cache helps."""
    depth = scene.size
    wire = scene.dial()
    wire.hello("bomb", clean=True)
    mixes = ["/".join(mix) + "/end" for mix in itertools.product("a+", repeat=depth)]
    subscribe_all(scene, wire, mixes)
    publishers = [scene.dial() for _ in range(4)]
    for number, publisher in enumerate(publishers):
        publisher.hello(f"match-{number}", clean=True)
    start = "/".join("a" * depth)
    data = b"".join(packets.publish(f"{start}/{n}") for n in range(20_000))
    push(publishers, data, scene.trips_from_here())


def _subscribe_churn(scene: Scene) -> None:
    """10 000 filters subscribed to in one packet and given up again, over and over."""
    filters = [f"churn/{n}/+" for n in range(scene.size)]
    is_over = scene.trips_from_here()
    wire = scene.dial()
    wire.hello("churn", clean=True)
    while not is_over():
        subscribe_all(scene, wire, filters)
        wire.send(packets.unsubscribe(1, filters))
        wire.wait_for(packets.UNSUBACK)


def _shared_groups(scene: Scene) -> None:
    """A client that is in 10 000 shared groups of one topic: each takes every message."""
    wire = scene.dial()
    wire.hello("groups", clean=True)
    subscribe_all(scene, wire, (f"$share/g{n}/all" for n in range(scene.size)))
    publisher = scene.dial()
    publisher.hello("groups-out", clean=True)
    push([publisher], packets.publish("all", b"x") * 100, scene.trips_from_here())


def _deepest(scene: Scene) -> None:
    """Filters and retained topics as long as they can be, and nothing but levels."""
    for number in range(scene.size):
        with scene.dialled() as wire:
            wire.hello(f"deep-{number}")
            name = f"{number}" + "/" * (_LONGEST - 10)
            wire.send(packets.subscribe(1, [(name + "+", 0)]))
            wire.send(packets.publish(name, b"x", qos=1, packet_id=1, retain=True))
            for _ in range(2):
                answer = wire.wait_for(packets.SUBACK, packets.PUBACK)
                scene.note(f"{packets.NAMES[answer.kind]} 0x{answer.code:02X}")
    scene.serve_on()


def _many_topics(scene: Scene) -> None:
    """A million topics that nobody has published to before, each with a retained message."""
    with scene.dialled() as wire:
        wire.hello("many", clean=True)
        retain_all(scene, wire, [f"many/{n}" for n in range(scene.size)], b"x")
    scene.serve_on()


def _retained_bomb(scene: Scene) -> None:
    """Retained messages by the thousand, and filters that bring all of them, or search them all."""
    with scene.dialled() as wire:
        wire.hello("fill", clean=True)
        retain_all(scene, wire, [f"fill/{n}/x" for n in range(scene.size)], b"x" * 100)
    is_over = scene.trips_from_here()
    for number in itertools.count():
        with scene.dialled() as wire:
            wire.hello(f"retained-{number}", clean=number % 3 != 0)
            filters = [f"+/+/none{n}" for n in range(50)] if number % 2 else ["#", "+/#", "+/+/#"]
            wire.send(packets.subscribe(1, [(one, number % 3 % 2) for one in filters]))
            while (packet := wire.receive()).kind != packets.SUBACK:
                pass
            for code in packet.codes:
                scene.note(f"0x{code:02X}")
        if is_over():
            return


ATTACKS: Final = (
    Attack(
        name="wildcard-bomb",
        title="every mix of + and levels against one topic",
        run=_wildcard_bomb,
        small=7,
        full=13,
        memory_bytes=lambda size: 24 * MIB + 2**size * 4096,
    ),
    Attack(
        name="wildcard-flood",
        title="the same against topics all different",
        run=_wildcard_flood,
        small=7,
        full=13,
        memory_bytes=lambda size: 40 * MIB + 2**size * 4096,
    ),
    Attack(
        name="subscribe-churn",
        title="10 000 filters subscribed to and given up",
        run=_subscribe_churn,
        small=500,
        full=10_000,
        memory_bytes=lambda size: 16 * MIB + size * 2048,
    ),
    Attack(
        name="shared-groups",
        title="10 000 shared groups on one topic",
        run=_shared_groups,
        small=200,
        full=10_000,
        memory_bytes=lambda size: 24 * MIB + size * 4096,
    ),
    Attack(
        name="deepest",
        title="filters and topics of 65 000 levels",
        run=_deepest,
        small=5,
        full=200,
        memory_bytes=lambda size: 16 * MIB + size * 256 * 1024,
    ),
    Attack(
        name="many-topics",
        title="distinct topics with retained messages",
        run=_many_topics,
        small=2000,
        full=1_000_000,
        memory_bytes=lambda size: 32 * MIB + size * 900,
    ),
    Attack(
        name="retained-bomb",
        title="filters that search and bring all retained",
        run=_retained_bomb,
        small=1000,
        full=200_000,
        memory_bytes=lambda size: 48 * MIB + size * 2000,
    ),
)
