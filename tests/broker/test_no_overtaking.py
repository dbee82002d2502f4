"""An unlogged message does not overtake a logged one of the same publisher."""

from holdfast.protocol.packets import Will
from tests.broker.world import World


def test_a_will_does_not_overtake_what_its_publisher_has_sent() -> None:
    world = World()
    world.session("s", "t", 1)
    observer = world.transient("o")
    observer.subscribe("gone", 0)
    publisher = world.hello("p", clean=True, expiry_s=0, will=Will("gone", b"bye"))
    observer.received()
    world.disk.hold()
    publisher.publish("t", "still uncommitted", 1, 1)
    publisher.cut()
    assert observer.received() == []
    world.disk.sync()
    assert observer.received() == ["PUBLISH gone bye q0"]
