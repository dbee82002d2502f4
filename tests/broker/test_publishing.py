"""PUBLISH packets that are not taken, and what their publisher is told."""

import pytest

from holdfast.broker.limits import Limits
from holdfast.message import Properties
from holdfast.protocol.packets import Connack, Subscribe, SubscriptionRequest, Unsubscribe, Will
from tests.broker.world import World
from tests.support.properties import properties

BROKEN_UTF8 = b"\xc3("


def says_utf8(indicator: int = 1) -> Properties:
    return properties(payload_format_indicator=indicator)


# The Payload Format Indicator.


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize(
    "payload",
    [BROKEN_UTF8, b"\xff", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80", b"a\xe2\x82"],
)
def test_a_payload_that_is_not_the_utf8_it_says(qos: int, payload: bytes) -> None:
    world = World(Limits(check_payload_format=True))
    subscriber = world.transient("s")
    subscriber.subscribe("t", 2)
    subscriber.packets()
    client = world.transient("c")
    client.publish("t", payload, qos, 5 if qos else 0, properties=says_utf8())
    assert client.received() == [[], ["PUBACK #5 0x99"], ["PUBREC #5 0x99"]][qos]
    assert world.broker.counters.refused == 1
    # Nothing is left of it: its identifier is free again.
    client.publish("t", "good", qos, 5 if qos else 0, properties=says_utf8())
    assert client.received() == [[], ["PUBACK #5"], ["PUBREC #5"]][qos]
    (found,) = subscriber.received()
    assert found.startswith("PUBLISH t good")


@pytest.mark.parametrize("payload", ["", "ä€😀", "a\0b"])
def test_a_payload_that_is_the_utf8_it_says(payload: str) -> None:
    client = World(Limits(check_payload_format=True)).transient("c")
    client.publish("t", payload, 1, 5, properties=says_utf8())
    assert client.received() == ["PUBACK #5 0x10"]


@pytest.mark.parametrize(
    ("is_checked", "properties"), [(False, says_utf8()), (True, says_utf8(0)), (True, None)]
)
def test_a_payload_is_not_looked_at_without_need(
    is_checked: bool, properties: Properties | None
) -> None:
    client = World(Limits(check_payload_format=is_checked)).transient("c")
    client.publish("t", BROKEN_UTF8, 1, 5, properties=properties)
    assert client.received() == ["PUBACK #5 0x10"]


@pytest.mark.parametrize(("payload", "code"), [(BROKEN_UTF8, 0x99), (b"gone", 0x00)])
def test_a_will_that_is_not_the_utf8_it_says(payload: bytes, code: int) -> None:
    world = World(Limits(check_payload_format=True))
    before = world.hello("c")
    client = world.connect("c", will=Will("t", payload, 0, False, says_utf8()))
    (connack,) = client.packets()
    assert isinstance(connack, Connack)
    assert connack.reason_code == code
    assert client.is_open == (code == 0)
    assert before.is_open == (code != 0), "a refused CONNECT takes nothing over"


# Maximum QoS and Retain Available.


@pytest.mark.spec("MQTT5-3.2.2-9")
@pytest.mark.parametrize(("maximum", "stated"), [(0, 0), (1, 1), (2, None)])
def test_connack_states_a_maximum_qos(maximum: int, stated: int | None) -> None:
    (connack,) = World(Limits(maximum_qos=maximum)).connect("c").packets()
    assert isinstance(connack, Connack)
    assert connack.properties is not None
    assert connack.properties.maximum_qos == stated
    assert connack.properties.retain_available is None


@pytest.mark.spec("MQTT5-3.2.2-11")
@pytest.mark.parametrize(("maximum", "qos"), [(0, 1), (0, 2), (1, 2)])
@pytest.mark.parametrize("version", [4, 5])
def test_a_publish_above_the_maximum_ends_the_connection(
    maximum: int, qos: int, version: int
) -> None:
    world = World(Limits(maximum_qos=maximum))
    client = world.transient("c", version)
    client.publish("t", "x", maximum, 4 if maximum else 0)
    client.packets()
    client.publish("t", "x", qos, 5)
    assert client.received() == (["DISCONNECT 0x9B"] if version == 5 else [])
    assert not client.is_open


@pytest.mark.spec("MQTT5-3.2.2-10")
@pytest.mark.parametrize("version", [4, 5])
def test_a_subscription_is_granted_up_to_the_maximum(version: int) -> None:
    world = World(Limits(maximum_qos=1))
    client = world.hello("c", version=version)
    requests = [SubscriptionRequest(f"t/{qos}", qos) for qos in (0, 1, 2)]
    client.send(Subscribe(1, requests))
    assert client.received() == ["SUBACK #1 0x00 0x01 0x01"]
    client.publish("t/2", "x", 1, 7)
    assert sorted(client.received()) == ["PUBACK #7", "PUBLISH t/2 x q1 #1"]


@pytest.mark.spec("MQTT5-3.2.2-12")
@pytest.mark.parametrize("version", [4, 5])
def test_a_will_above_the_maximum_is_refused(version: int) -> None:
    client = World(Limits(maximum_qos=1)).connect("c", version=version, will=Will("t", b"x", 2))
    assert client.received() == (["CONNACK 0x9B"] if version == 5 else [])
    assert not client.is_open


@pytest.mark.spec("MQTT5-3.2.2-13")
@pytest.mark.parametrize("version", [4, 5])
def test_a_will_to_be_retained_is_refused_where_nothing_is(version: int) -> None:
    world = World(Limits(is_retain_available=False))
    client = world.connect("c", version=version, will=Will("t", b"x", 0, True))
    assert client.received() == (["CONNACK 0x9A"] if version == 5 else [])
    assert not client.is_open


@pytest.mark.spec("MQTT5-3.2.2-14")
@pytest.mark.parametrize("version", [4, 5])
def test_without_retain_none_is_taken_and_none_is_sent(version: int) -> None:
    world = World()
    world.transient("p").publish("t", "old", retain=True)
    world.limits = Limits(is_retain_available=False)
    world.crash()
    world.restart()
    client = world.connect("c", version=version)
    (connack,) = client.packets()
    assert isinstance(connack, Connack)
    if connack.properties is not None:
        assert connack.properties.retain_available == 0
    client.subscribe("t", 0)
    client.publish("t", "new", retain=True)
    goodbye = ["DISCONNECT 0x9A"] if version == 5 else []
    assert client.received() == ["SUBACK #1 0x00", *goodbye]
    assert not client.is_open


# Packet identifiers in use.


@pytest.mark.parametrize("is_resumed", [False, True])
def test_the_identifier_of_an_open_qos_2_exchange_is_in_use(is_resumed: bool) -> None:
    world = World()
    client = world.hello("c")
    client.publish("t", "x", 2, 5)
    if is_resumed:
        client.cut()
        client = world.hello("c")
    client.packets()
    client.publish("t", "y", 1, 5)
    client.subscribe("t", 1, 5)
    client.send(Unsubscribe(5, ["t", "u"]))
    client.publish("t", "x", 2, 5, dup=True)
    assert client.received() == [
        "PUBACK #5 0x91",
        "SUBACK #5 0x91",
        "UNSUBACK #5 0x91 0x91",
        "PUBREC #5",
    ]
    assert client.is_open
    client.publish("t", "y", 1, 6)
    assert client.received() == ["PUBACK #6 0x10"], "neither subscribed nor delivered"


def test_3_1_1_cannot_say_that_an_identifier_is_in_use() -> None:
    client = World().hello("c", version=4)
    client.publish("t", "x", 2, 5)
    client.publish("t", "y", 1, 5)
    assert client.received() == ["PUBREC #5", "PUBACK #5"]


@pytest.mark.spec("MQTT5-3.11.3-1")
@pytest.mark.spec("MQTT5-3.11.3-2")
def test_unsuback_has_a_code_for_each_filter() -> None:
    client = World().transient("c")
    client.subscribe("a", 0)
    client.send(Unsubscribe(2, ["b", "a", "a"]))
    assert client.received() == ["SUBACK #1 0x00", "UNSUBACK #2 0x11 0x00 0x11"]
