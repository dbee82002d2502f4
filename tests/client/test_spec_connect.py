"""CONNECT, field by field, and what the client makes of CONNACK."""

import asyncio
from collections.abc import Mapping
from typing import Literal

import pytest

from holdfast.client.client import Client
from holdfast.client.options import Will
from holdfast.errors import ConnectionLost, Refused, UsageError
from holdfast.protocol.packets import Connack, Connect
from tests.client.world import V5, V311, ClientWorld, packets_of
from tests.support import packets as wire
from tests.support.properties import properties
from tests.support.scripted_server import ScriptedServer, play

Version = Literal["5.0", "3.1.1"]
VERSIONS = pytest.mark.parametrize("version", ["5.0", "3.1.1"])
LEVELS: Mapping[str, int] = {"5.0": V5, "3.1.1": V311}
BAD_TEXT = ["a\0b", "\ud800", "a\udfff", "x" * 65_536]

# What the client always says in CONNECT, as ``wire.connect`` takes it.
ALWAYS = {0x11: 3600, 0x19: 1, 0x21: 1000}


def connect_bytes(version: Version = "5.0", **options: object) -> bytes:
    """The CONNECT of a client with these options, as it comes to a server."""

    async def scene() -> bytes:
        async with ScriptedServer() as server:
            client = Client(server.url, version=version, **options)  # type: ignore[arg-type]
            opening = asyncio.create_task(client.open())
            peer = await server.accept()
            data = await peer.raw()
            peer.cut()
            with pytest.raises(ConnectionLost):
                await opening
            return data

    return play(scene())


def connect_of(version: Version = "5.0", **options: object) -> Connect:
    (packet,) = packets_of(connect_bytes(version, **options), LEVELS[version])
    assert isinstance(packet, Connect)
    return packet


# --- the fields


@pytest.mark.spec(
    "MQTT5-3.1.0-1",
    "MQTT5-3.1.2-1",
    "MQTT5-3.1.3-1",
    "MQTT5-3.1.3-3",
    "MQTT311-3.1.0-1",
    "MQTT311-3.1.3-1",
    "MQTT311-3.1.3-3",
)
@VERSIONS
def test_the_plainest_connect(version: Version) -> None:
    level = LEVELS[version]
    values = ALWAYS if level == V5 else None
    data = connect_bytes(version, client_id="meter", session_expiry_s=3600)
    expected = wire.connect("meter", level, clean=False, keep_alive_s=60, values=values)
    assert data == expected


@pytest.mark.spec(
    "MQTT5-3.1.2-9",
    "MQTT5-3.1.2-17",
    "MQTT5-3.1.2-19",
    "MQTT5-3.1.3-1",
    "MQTT311-3.1.2-9",
    "MQTT311-3.1.2-19",
    "MQTT311-3.1.2-21",
    "MQTT311-3.1.3-1",
)
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("retain", [False, True])
@VERSIONS
def test_a_connect_with_everything(version: Version, qos: int, retain: bool) -> None:
    level = LEVELS[version]
    data = connect_bytes(
        version,
        client_id="é",
        session_expiry_s=3600,
        keep_alive_s=65_535,
        user_name="user",
        password="secret",
        will=Will(
            topic="gone/é",
            payload="w",
            qos=qos,
            retain=retain,
            will_delay_interval=7 if level == V5 else None,
        ),
    )
    assert data == wire.connect(
        "é",
        level,
        clean=False,
        keep_alive_s=65_535,
        will=wire.Will("gone/é", b"w", qos, retain, 7),
        user="user",
        password="secret",
        values=ALWAYS if level == V5 else None,
    )


@pytest.mark.spec(
    "MQTT5-3.1.2-11",
    "MQTT5-3.1.2-13",
    "MQTT5-3.1.2-16",
    "MQTT5-3.1.2-18",
    "MQTT311-3.1.2-11",
    "MQTT311-3.1.2-13",
    "MQTT311-3.1.2-15",
    "MQTT311-3.1.2-18",
    "MQTT311-3.1.2-20",
)
@VERSIONS
def test_what_is_not_given_has_no_flag_and_no_field(version: Version) -> None:
    """``decode`` takes no CONNECT with bytes that no flag stands for, and the other way round."""
    data = connect_bytes(version, client_id="meter")
    assert data[9] == 0  # the Connect Flags
    packet = connect_of(version, client_id="meter")
    assert packet.will is None and packet.user_name is None and packet.password is None
    packet = connect_of(version, client_id="meter", user_name="u")
    assert packet.user_name == "u" and packet.password is None


@pytest.mark.spec("MQTT5-3.1.2-19", "MQTT5-3.1.2-16")
def test_a_password_needs_no_user_name_in_5_0() -> None:
    packet = connect_of(password=b"\0\xff")
    assert (packet.user_name, packet.password) == (None, b"\0\xff")


@pytest.mark.spec("MQTT311-3.1.2-22")
def test_a_password_needs_a_user_name_in_3_1_1() -> None:
    with pytest.raises(UsageError, match="user name"):
        Client(version="3.1.1", password="secret")
    assert connect_of("3.1.1", user_name="", password="secret").user_name == ""


@pytest.mark.spec("MQTT5-3.1.2-12", "MQTT311-3.1.2-14")
@pytest.mark.parametrize("qos", [-1, 3, 4])
@VERSIONS
def test_a_will_has_qos_0_1_or_2(version: Version, qos: int) -> None:
    with pytest.raises(UsageError, match="QoS"):
        Client(version=version, will=Will(topic="a", qos=qos))


@pytest.mark.spec(
    "MQTT5-3.1.3-4",
    "MQTT5-3.1.3-11",
    "MQTT5-3.1.3-12",
    "MQTT5-1.5.4-1",
    "MQTT5-1.5.4-2",
    "MQTT5-1.5.7-1",
    "MQTT311-3.1.3-4",
    "MQTT311-3.1.3-10",
    "MQTT311-3.1.3-11",
    "MQTT311-1.5.3-1",
    "MQTT311-1.5.3-2",
)
@pytest.mark.parametrize("text", BAD_TEXT, ids=["U+0000", "surrogate", "surrogate", "too long"])
@VERSIONS
def test_strings_that_the_wire_cannot_carry(version: Version, text: str) -> None:
    with pytest.raises(UsageError):
        Client(version=version, client_id=text)
    with pytest.raises(UsageError):
        Client(version=version, user_name=text)
    with pytest.raises(UsageError, match="the will"):
        Client(version=version, will=Will(topic=text))
    if version == "5.0":
        with pytest.raises(UsageError):
            Client(user_properties=[("k", text)])
        with pytest.raises(UsageError):
            Client(user_properties=[(text, "v")])
        with pytest.raises(UsageError):
            Client(will=Will(topic="a", content_type=text))
        with pytest.raises(UsageError, match="the will"):
            Client(will=Will(topic="a", response_topic=text))


@pytest.mark.spec("MQTT5-3.3.2-14", "MQTT5-4.7.0-1", "MQTT311-4.7.1-1", "MQTT5-4.7.3-1")
@pytest.mark.parametrize("topic", ["", "#", "a/+", "a#"])
def test_a_will_goes_to_a_topic(topic: str) -> None:
    with pytest.raises(UsageError, match="the will: expected a Topic Name"):
        Client(will=Will(topic=topic))
    with pytest.raises(UsageError, match="the will: expected a Topic Name"):
        Client(version="3.1.1", will=Will(topic=topic))
    with pytest.raises(UsageError, match="the will: expected a Topic Name"):
        Client(will=Will(topic="a", response_topic=topic))


@pytest.mark.parametrize(
    "options",
    [
        {"keep_alive_s": -1},
        {"keep_alive_s": 65_536},
        {"session_expiry_s": -1},
        {"session_expiry_s": 1 << 32},
        {"receive_maximum": 0},
        {"receive_maximum": 65_536},
        {"maximum_packet_size": 0},
        {"maximum_packet_size": 1 << 32},
        {"topic_alias_maximum": 65_536},
        {"password": b"x" * 65_536, "user_name": "u"},
        {"will": Will(topic="a", payload=b"x" * 65_536)},
        {"will": Will(topic="a", payload_format_indicator=2)},
        {"will": Will(topic="a", will_delay_interval=-1)},
        {"will": Will(topic="a", message_expiry_interval=1 << 32)},
        {"version": "3.1"},
    ],
)
def test_what_no_connect_can_say_is_told_at_once(options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Client(**options)  # type: ignore[arg-type]  # of many kinds


def test_the_properties_of_connect() -> None:
    packet = connect_of(
        client_id="c",
        session_expiry_s=77,
        receive_maximum=5,
        maximum_packet_size=1000,
        topic_alias_maximum=9,
        user_properties=[("k", "1"), ("k", "2")],
    )
    found = packet.properties
    assert found is not None
    assert found.session_expiry_interval == 77
    assert found.receive_maximum == 5
    assert found.maximum_packet_size == 1000
    assert found.topic_alias_maximum == 9
    assert found.request_response_information == 1
    assert found.user_properties == [("k", "1"), ("k", "2")]


def test_the_properties_of_a_will() -> None:
    will = Will(
        topic="a",
        will_delay_interval=1,
        message_expiry_interval=2,
        payload_format_indicator=1,
        content_type="t",
        response_topic="r",
        correlation_data=b"c",
        user_properties=[("k", "v")],
    )
    packet = connect_of(will=will)
    assert packet.will is not None and packet.will.properties is not None
    found = packet.will.properties
    assert (found.will_delay_interval, found.message_expiry_interval) == (1, 2)
    assert (found.payload_format_indicator, found.content_type) == (1, "t")
    assert (found.response_topic, found.correlation_data) == ("r", b"c")
    assert found.user_properties == [("k", "v")]
    packet = connect_of("3.1.1", will=will)
    assert packet.will is not None and packet.will.properties is None


# --- the session that it asks for


@pytest.mark.spec("MQTT311-3.1.3-7", "MQTT5-3.1.3-3", "MQTT311-3.1.3-3")
@VERSIONS
def test_a_client_without_identifier_makes_one(version: Version) -> None:
    """So that it is never empty, and a session can be found again within its life."""
    first, second = connect_of(version), connect_of(version)
    assert first.client_id.startswith("holdfast-") and first.client_id != second.client_id
    assert first.clean_start


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, True),
        ({"client_id": "c"}, False),
        ({"client_id": "c", "clean_start": True}, True),
        ({"clean_start": False}, False),
        ({"client_id": "c", "session_expiry_s": 0}, False),
    ],
)
def test_when_the_session_begins_anew_in_5_0(options: dict[str, object], expected: bool) -> None:
    assert connect_of("5.0", **options).clean_start == expected


@pytest.mark.spec("MQTT311-3.1.2-4", "MQTT311-3.1.2-6")
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, True),
        ({"client_id": "c"}, False),
        ({"client_id": "c", "clean_start": True}, True),
        ({"clean_start": False}, True),
        ({"client_id": "c", "session_expiry_s": 0}, True),
    ],
)
def test_when_the_session_is_a_clean_one_in_3_1_1(
    options: dict[str, object], expected: bool
) -> None:
    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url, version="3.1.1", **options)  # type: ignore[arg-type]
            connects: list[Connect] = []
            peer = await server.open(client, connects=connects)
            for _ in range(2):
                peer.cut()
                peer = await server.accept()
                connects.append(await peer.welcome())
            await client.close()
            assert [connect.clean_start for connect in connects] == [expected] * 3

    play(scene())


@pytest.mark.spec("MQTT5-3.1.2-4", "MQTT5-3.1.3-2", "MQTT311-3.1.3-2", "MQTT5-3.1.2-23")
def test_clean_start_is_asked_for_once() -> None:
    """Later connections go on with the session, under the same Client Identifier."""

    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url, client_id="c", clean_start=True)
            connects: list[Connect] = []
            peer = await server.open(client, connects=connects)
            peer.cut()
            peer = await server.accept()
            connects.append(await peer.welcome())
            await client.close()
            assert [connect.clean_start for connect in connects] == [True, False]
            assert {connect.client_id for connect in connects} == {"c"}

    play(scene())


def test_an_assigned_client_identifier_is_used_from_then_on() -> None:
    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url)
            assigned = properties(assigned_client_identifier="yours")
            peer = await server.open(client, Connack(False, 0, assigned))
            assert client.client_id == "yours"
            peer.cut()
            peer = await server.accept()
            assert (await peer.welcome()).client_id == "yours"
            await client.close()

    play(scene())


# --- CONNACK


@pytest.mark.spec("MQTT5-3.2.2-4", "MQTT5-3.1.2-4", "MQTT311-3.1.2-6")
@VERSIONS
def test_a_session_after_a_clean_start_is_none_of_ours(version: Version) -> None:
    level = LEVELS[version]
    world = ClientWorld(level)
    world.open(Connect("c", level, clean_start=True))
    assert world.breaks(Connack(True, 0)) == 0x82


@VERSIONS
def test_a_session_present_in_a_refusal_ends_the_connection(version: Version) -> None:
    world = ClientWorld(LEVELS[version])
    world.open()
    code = b"\x87\x00" if version == "5.0" else b"\x05"
    assert world.breaks(wire.packet(2, 0, b"\x01" + code)) == 0x82


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"\x03\x21\x00\x00", 0x82),  # Receive Maximum 0
        (b"\x02\x24\x02", 0x82),  # Maximum QoS 2
        (b"\x02\x25\x02", 0x82),  # Retain Available 2
        (b"\x05\x27\x00\x00\x00\x00", 0x82),  # Maximum Packet Size 0
        (b"\x02\x28\x02", 0x82),
        (b"\x02\x29\x02", 0x82),
        (b"\x02\x2a\x02", 0x82),
        (b"\x04\x24\x01\x24\x01", 0x82),  # twice
        (b"\x03\x23\x00\x01", 0x81),  # Topic Alias
        (b"\x05\x27\x00\x00\x00\x04", 0x95),  # no acknowledgement would fit
    ],
)
def test_limits_that_cannot_be(body: bytes, code: int) -> None:
    world = ClientWorld()
    world.open()
    assert world.breaks(wire.packet(2, 0, b"\0\0" + body)) == code


@pytest.mark.parametrize(
    ("version", "code", "expected"),
    [
        ("5.0", 0x87, 0x87),
        ("5.0", 0x86, 0x86),
        ("5.0", 0x88, 0x88),
        ("3.1.1", 1, 0x84),
        ("3.1.1", 2, 0x85),
        ("3.1.1", 3, 0x88),
        ("3.1.1", 4, 0x86),
        ("3.1.1", 5, 0x87),
    ],
)
@pytest.mark.spec("MQTT5-4.13.2-1")
def test_a_refusal_is_told_in_the_words_of_5_0(version: Version, code: int, expected: int) -> None:
    async def scene() -> None:
        async with ScriptedServer() as server:
            client = Client(server.url, version=version)
            with pytest.raises(Refused, match="the server refused the connection") as caught:
                await server.open(client, Connack(False, code))
            assert caught.value.reason_code == expected
            assert server.waiting == 0

    play(scene())
