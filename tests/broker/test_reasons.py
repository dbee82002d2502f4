"""Reason Strings: where they stand, and where they are left out."""

import pytest

from holdfast.broker.limits import Limits
from holdfast.protocol.packets import (
    Connack,
    Disconnect,
    Packet,
    Puback,
    Publish,
    Pubrec,
    Suback,
    Subscribe,
    SubscriptionRequest,
    Unsuback,
    Unsubscribe,
    Will,
)
from tests.broker.world import Client, World
from tests.support.properties import properties


def reason(packet: Packet) -> str | None:
    assert isinstance(packet, Connack | Disconnect | Puback | Pubrec | Suback | Unsuback)
    return None if packet.properties is None else packet.properties.reason_string


def provoke(client: Client, kind: str) -> Packet:
    """The answer of this kind that says no."""
    if kind == "PUBLISH q1":
        client.publish("$SYS/x", "x", 1, 9)
    elif kind == "PUBLISH q2":
        client.publish("$SYS/x", "x", 2, 9)
    elif kind == "SUBSCRIBE":
        client.send(Subscribe(9, [SubscriptionRequest("a"), SubscriptionRequest("a#")]))
    elif kind == "UNSUBSCRIBE":
        client.publish("t", "x", 2, 9)
        client.packets()
        client.send(Unsubscribe(9, ["a", "b"]))
    else:
        client.send(Connack(False, 0))
    (answer,) = client.packets()
    return answer


KINDS = ["PUBLISH q1", "PUBLISH q2", "SUBSCRIBE", "UNSUBSCRIBE", "DISCONNECT"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_no_says_why(kind: str) -> None:
    answer = provoke(World().transient("c"), kind)
    text = reason(answer)
    assert text is not None
    if kind in ("SUBSCRIBE", "UNSUBSCRIBE"):
        assert text.startswith("topic filter ")
    else:
        assert text.startswith("expected ")


@pytest.mark.spec("MQTT5-3.1.2-29")
@pytest.mark.parametrize("kind", KINDS)
def test_without_problem_information_only_disconnect_says_why(kind: str) -> None:
    client = World().hello("c", properties=properties(request_problem_information=0))
    assert (reason(provoke(client, kind)) is not None) == (kind == "DISCONNECT")


@pytest.mark.spec("MQTT5-3.4.2-2")
@pytest.mark.spec("MQTT5-3.5.2-2")
@pytest.mark.spec("MQTT5-3.9.2-1")
@pytest.mark.spec("MQTT5-3.11.2-1")
@pytest.mark.spec("MQTT5-3.14.2-3")
@pytest.mark.parametrize("kind", KINDS)
def test_a_reason_that_is_too_large_is_left_out(kind: str) -> None:
    """29 bytes are enough for our CONNACK, and for no reason."""
    client = World().hello("c", maximum_packet_size=29)
    assert reason(provoke(client, kind)) is None


def test_a_success_says_nothing_more() -> None:
    world = World()
    client = world.transient("c")
    client.subscribe("t", 0)
    client.publish("other", "x", 1, 2)
    for packet in client.packets():
        assert not isinstance(packet, Publish)
        assert reason(packet) is None


@pytest.mark.spec("MQTT5-3.2.2-19")
@pytest.mark.parametrize(("maximum", "has_reason"), [(200, True), (8, False)])
def test_connack_says_why_where_it_fits(maximum: int, has_reason: bool) -> None:
    world = World(Limits(maximum_qos=0))
    will = Will("t", b"x", 1)
    client = world.connect("c", maximum_packet_size=maximum, will=will)
    (connack,) = client.packets()
    assert isinstance(connack, Connack)
    assert connack.reason_code == 0x9B
    assert (reason(connack) is not None) == has_reason
    assert not client.is_open


@pytest.mark.spec("MQTT5-3.1.2-24")
def test_no_refusal_is_larger_than_the_client_takes() -> None:
    client = World(Limits(maximum_qos=0)).connect(
        "c", maximum_packet_size=4, will=Will("t", b"x", 1)
    )
    assert client.bytes_received == 0
    assert not client.is_open


@pytest.mark.spec("MQTT5-3.2.2-19")
def test_a_connect_that_cannot_be_read_gets_no_reason() -> None:
    """What it had to say about its Maximum Packet Size is not known."""
    client = World().dial()
    client.send_bytes(
        bytes.fromhex("10 0d 00 04") + b"MQTT" + bytes.fromhex("05 01 00 00 00 00 00")
    )
    (connack,) = client.packets()
    assert isinstance(connack, Connack)
    assert (connack.reason_code, reason(connack)) == (0x81, None)


def test_a_silent_client_is_told_so() -> None:
    world = World()
    client = world.hello("c", keep_alive=10)
    world.advance(20_000)
    (goodbye,) = client.packets()
    assert isinstance(goodbye, Disconnect)
    assert goodbye.reason_code == 0x8D
    assert reason(goodbye) == "no packet came within 15000 ms"
