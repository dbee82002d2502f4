"""Acknowledgements of what never was: they cost an answer each, and no more."""

import pytest

from holdfast.protocol.packets import Packet, Puback, Pubcomp, Pubrec, Pubrel
from tests.broker.world import World

COUNT = 5000


@pytest.mark.parametrize("kind", [Puback, Pubrec, Pubrel, Pubcomp])
@pytest.mark.parametrize("version", [4, 5])
def test_a_flood_of_them_is_no_work_for_the_disk(
    kind: type[Puback] | type[Pubrec] | type[Pubrel] | type[Pubcomp], version: int
) -> None:
    world = World()
    client = world.hello("c", version=version)
    commits = world.disk.commits
    size = client.bytes_received
    packets: list[Packet] = [kind(1 + number % 65_535) for number in range(COUNT)]
    client.send(*packets)
    assert world.disk.commits == commits
    assert client.bytes_received - size <= COUNT * 5
    assert client.is_open
