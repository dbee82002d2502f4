"""What CONNACK tells a client, and whom it sends elsewhere."""

import pytest

from holdfast.broker.limits import Limits
from holdfast.message import Properties
from holdfast.protocol.packets import Connack, Disconnect
from tests.broker.world import Client, World


def only_packet(client: Client) -> Connack | Disconnect:
    (packet,) = client.packets()
    assert isinstance(packet, Connack | Disconnect)
    return packet


def asking() -> Properties:
    properties = Properties()
    properties.request_response_information = 1
    return properties


# Response Information.


@pytest.mark.spec("MQTT5-3.1.2-28")
@pytest.mark.parametrize(
    ("prefix", "is_asked", "client_id", "expected"),
    [
        ("answers", True, "c", "answers/c"),
        ("a/b", True, "ä/1", "a/b/ä/1"),
        ("answers", False, "c", None),
        ("", True, "c", None),
        ("answers", True, "c/#", None),
        ("answers", True, "+", None),
        ("answers", True, "x" * 65_535, None),
    ],
)
def test_response_information_is_for_those_who_ask(
    prefix: str, is_asked: bool, client_id: str, expected: str | None
) -> None:
    world = World(Limits(response_information=prefix))
    connack = only_packet(world.connect(client_id, properties=asking() if is_asked else None))
    assert connack.properties is not None
    assert connack.properties.response_information == expected


def test_response_information_names_an_assigned_identifier() -> None:
    world = World(Limits(response_information="answers"))
    properties = only_packet(world.connect("", properties=asking())).properties
    assert properties is not None
    assert properties.response_information == f"answers/{properties.assigned_client_identifier}"


# Another server.


@pytest.mark.spec("MQTT5-3.2.2-7")
@pytest.mark.spec("MQTT5-3.2.2-8")
@pytest.mark.parametrize("code", [0x9C, 0x9D])
@pytest.mark.parametrize("reference", ["", "broker-2:1883"])
def test_a_redirecting_server_turns_everyone_away(code: int, reference: str) -> None:
    world = World(Limits(redirect_code=code, server_reference=reference))
    client = world.connect("c")
    connack = only_packet(client)
    assert connack.reason_code == code
    assert connack.properties is not None
    assert connack.properties.server_reference == (reference or None)
    assert not client.is_open
    assert world.broker.sessions.count == 0
    assert world.broker.counters.refused_connections == 1


@pytest.mark.spec("MQTT5-3.1.2-24")
@pytest.mark.parametrize(("maximum", "size"), [(5, 5), (4, 0)])
def test_a_reference_that_is_too_large_is_left_out(maximum: int, size: int) -> None:
    world = World(Limits(redirect_code=0x9C, server_reference="x" * 100))
    client = world.connect("c", maximum_packet_size=maximum)
    assert client.bytes_received == size
    assert not client.is_open


@pytest.mark.parametrize("version", [3, 4])
def test_a_redirecting_server_is_unavailable_before_5_0(version: int) -> None:
    world = World(Limits(redirect_code=0x9D, server_reference="broker-2:1883"))
    client = world.connect("c", version=version)
    assert client.received() == ["CONNACK 0x03"]
    assert not client.is_open


@pytest.mark.parametrize(
    ("reference", "code", "expected"),
    [("", 0, 0x8B), ("b:1", 0, 0x9C), ("b:1", 0x9C, 0x9C), ("x" * 100, 0, 0x8B)],
)
def test_a_stopping_server_names_the_next_one(reference: str, code: int, expected: int) -> None:
    world = World()
    client = world.hello("c", maximum_packet_size=64)
    old = world.hello("old", version=4)
    world.broker.limits = Limits(server_reference=reference, redirect_code=code)
    world.broker.begin_turn(world.now_ms)
    world.broker.shut_down()
    world.run()
    goodbye = only_packet(client)
    assert isinstance(goodbye, Disconnect)
    assert goodbye.reason_code == expected
    named = None if goodbye.properties is None else goodbye.properties.server_reference
    assert named == (reference if expected == 0x9C else None)
    assert old.received() == []


@pytest.mark.spec("MQTT311-3.1.3-8")
@pytest.mark.spec("MQTT311-3.1.3-9")
def test_a_3_1_1_client_without_name_has_no_session_to_keep() -> None:
    client = World().connect("", version=4, clean=False)
    assert client.received() == ["CONNACK 0x02"]
    assert not client.is_open
