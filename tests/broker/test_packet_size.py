"""A client's Maximum Packet Size binds every packet that the broker sends."""

import pytest

from holdfast.protocol.packets import Pubcomp
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


@pytest.mark.spec("MQTT5-3.1.2-25")
@pytest.mark.spec("MQTT5-4.3.3-7")
@pytest.mark.parametrize("crash", [False, True])
def test_an_identifier_that_the_client_may_hold_is_released_before_it_is_used_again(
    crash: bool,
) -> None:
    world = World()
    client = world.hello("c")
    client.subscribe("t", 2)
    publisher = world.hello("p")
    publisher.publish("t", "x" * 100, 2, 1)
    assert client.received()[-1].endswith("q2 #1")
    client.cut()  # with its PUBREC
    client = world.hello("c", maximum_packet_size=60)
    assert client.received() == ["PUBREL #1"]
    if crash:
        world.crash()
        world.restart()
        client = world.hello("c")
        assert client.received() == ["PUBREL #1"]
    client.send(Pubcomp(1))
    world.advance(1000)
    assert world.broker.sessions.find("c") is not None
    assert world.broker.trim_point() == world.broker._commits.next_lsn


@pytest.mark.spec("MQTT5-3.1.2-25")
@pytest.mark.spec("MQTT5-4.4.0-1")
@pytest.mark.parametrize("qos", [1, 2])
def test_what_is_too_large_to_be_sent_again_holds_up_nothing(qos: int) -> None:
    world = World()
    client = world.hello("c")
    client.subscribe("t", 2)
    publisher = world.hello("p")
    publisher.publish("t", "x" * 100, qos, 1)
    publisher.publish("t", "small", qos, 2)
    client.cut()
    client = world.hello("c", receive_maximum=1, maximum_packet_size=60)
    if qos == 2:
        assert client.received() == ["PUBREL #1"]
        client.send(Pubcomp(1))
    assert client.received() == [f"PUBLISH t small q{qos} #2 dup"]
