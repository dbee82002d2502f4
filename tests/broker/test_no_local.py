"""No Local is about the publisher's own Client Identifier, and about nobody else's."""

import pytest

from tests.broker.world import World


@pytest.mark.spec("MQTT5-3.8.3-3")
def test_no_local_spares_a_retained_message_of_another_client_after_a_restart() -> None:
    """The number of a session that was never stored is given out again after a restart."""
    world = World()
    world.transient("a").publish("t", "of a", 1, 1, retain=True)
    world.crash()
    world.restart()
    subscriber = world.hello("b")
    subscriber.subscribe("t", 1, no_local=True)
    assert subscriber.received() == ["SUBACK #1 0x01", "PUBLISH t of a q1 #1 retain"]


@pytest.mark.spec("MQTT5-3.8.3-3")
def test_no_local_holds_for_a_retained_message_of_an_earlier_session() -> None:
    world = World()
    client = world.transient("a")
    client.publish("t", "of a", 1, 1, retain=True)
    client.disconnect()
    client = world.transient("a")
    client.subscribe("t", 1, no_local=True)
    assert client.received() == ["SUBACK #1 0x01"]
