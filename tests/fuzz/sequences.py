"""Sequences of any valid packets from hypothesis, sent to a broker in any pieces."""

from collections.abc import Callable
from typing import Final

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from holdfast.protocol.encode import encode
from holdfast.protocol.packets import Connect, Packet
from tests.fuzz import wire_targets
from tests.fuzz.broker_target import AGES_MS, Play, limits
from tests.fuzz.choices import Choices
from tests.fuzz.watch import FuzzWorld
from tests.protocol.strategies import VERSIONS, any_packets

SLICE: Final = 500  # sequences

Sequence = tuple[int, list[Packet], int, int]


@st.composite
def sequences(draw: st.DrawFn) -> Sequence:
    """A version, packets of it, how they are cut and how many are damaged."""
    version = draw(st.sampled_from(VERSIONS))
    packets = draw(st.lists(any_packets(version), min_size=1, max_size=6))
    return version, packets, draw(st.integers(0, 255)), draw(st.integers(0, 7))


def take(sequence: Sequence) -> None:
    """Send a sequence behind a CONNECT, twice: by a session that is kept, and by one that is not.

    The bytes alone go through the framer first.
    """
    version, packets, cut, damage = sequence
    wire = b"".join(encode(packet, version) for packet in packets)
    if damage == 0 and wire:
        place = cut % len(wire)
        wire = wire[:place] + bytes([wire[place] ^ 1 << cut % 8]) + wire[place + 1 :]
    wire_targets.frames(bytes([VERSIONS.index(version), cut]) + wire)
    wire_targets.decoded(b"\0\0" + wire)
    play = Play(FuzzWorld(limits(Choices(b"\x19"))))
    for client_id, clean in (("kept", False), ("gone", True)):
        client = play.world.open(version)
        client.send(Connect(client_id, version, clean, 0))
        for piece in wire_targets.pieces(wire, cut):
            if client.is_open:
                client.send_bytes(piece)
        if client.is_open:
            client.cut()
    play.finish()
    play.end(AGES_MS)


def run(count: int, seed_text: str, before_each: Callable[[], None]) -> None:
    """Take so many sequences; hypothesis shrinks and reports what fails.

    In slices, for hypothesis remembers all that it has tried.
    """
    for start in range(0, count, SLICE):
        _run_slice(min(SLICE, count - start), f"{seed_text} {start}", before_each)


def _run_slice(count: int, seed_text: str, before_each: Callable[[], None]) -> None:
    @seed(seed_text)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )
    @given(sequences())
    def each(sequence: Sequence) -> None:
        before_each()
        take(sequence)

    each()
