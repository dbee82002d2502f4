"""A client's Maximum Packet Size binds every packet that the broker sends."""

import pytest

from tests.broker.world import World


@pytest.mark.spec("MQTT5-3.1.2-24")
def test_no_connack_is_larger_than_the_client_takes() -> None:
    world = World()
    client = world.connect("c", maximum_packet_size=8)
    assert client.bytes_received <= 8


@pytest.mark.spec("MQTT5-3.1.2-24")
@pytest.mark.spec("MQTT5-3.1.2-25")
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_message_that_is_too_large_counts_as_delivered(qos: int) -> None:
    world = World()
    client = world.hello("c", maximum_packet_size=100)
    client.subscribe("t", qos)
    publisher = world.transient("p")
    publisher.publish("t", "x" * 100, 1, 1)
    publisher.publish("t", "small", 1, 2)
    sent = "PUBLISH t small q0" if qos == 0 else "PUBLISH t small q1 #2"
    assert client.received() == [f"SUBACK #1 0x0{qos}", sent]
