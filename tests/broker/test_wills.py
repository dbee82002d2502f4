"""Wills: published once, when they have to be, and whole."""

import pytest

from holdfast.message import Properties
from holdfast.protocol.packets import Will
from tests.broker.world import World


@pytest.mark.spec("MQTT5-3.1.2-8")
def test_a_will_on_its_way_to_the_disk_is_not_changed_by_its_publication() -> None:
    """The broker publishes the will while the row that holds it is being written. A crash then
    keeps the row, not the publication: the will's time must not run from that on.
    """
    world = World()
    world.session("observer", "w", 1)
    properties = Properties()
    properties.message_expiry_interval = 10
    world.disk.hold()
    client = world.connect("c", will=Will("w", b"gone", 1, properties=properties))
    client.cut()
    world.crash(commit_survives=True)
    world.disk.release()
    world.restart(after_ms=20_000)
    assert world.hello("observer").received() == ["PUBLISH w gone q1 #1"]
