"""MQTT 3.1.1, CONNECT and CONNACK: what no other test of a session or a will shows."""

from typing import Final

import pytest

from holdfast.broker.limits import Limits
from holdfast.protocol.packets import Pingreq, Puback, Publish, Subscribe, SubscriptionRequest, Will
from tests.broker.world import Client, World
from tests.support import packets
from tests.support.packets import V311, binary, packet

CONNACK_ACCEPTED: Final = bytes.fromhex("20 02 00 00")
CONNACK_PRESENT: Final = bytes.fromhex("20 02 01 00")
CONNACK_UNACCEPTABLE_LEVEL: Final = bytes.fromhex("20 02 00 01")
CONNACK_IDENTIFIER_REJECTED: Final = bytes.fromhex("20 02 00 02")


def connect(flags: int, *fields: bytes, name: str = "MQTT", level: int = V311) -> bytes:
    """A CONNECT with any Connect Flags and payload, without Keep Alive."""
    return packet(1, 0, binary(name) + bytes([level, flags, 0, 0]) + b"".join(fields))


def first_bytes(world: World, data: bytes) -> tuple[bytes, Client]:
    """What a 3.1.1 client gets for the first bytes that it sends."""
    client = world.dial(V311)
    client.send_bytes(data)
    return client.take_bytes(), client


# --- what is refused, and how


@pytest.mark.spec("MQTT311-3.1.2-1", "MQTT311-3.1.4-5")
@pytest.mark.parametrize("name", ["", "mqtt", "MQT", "MQTTT", "AMQP", "MQIsdp"])
def test_another_protocol_is_not_taken_for_mqtt_3_1_1(name: str) -> None:
    """Level 4 of something else is not accepted, and what stands behind it is not looked at."""
    world = World()
    watcher = world.hello("w", version=V311)
    watcher.subscribe("t", 0)
    watcher.received()
    data = connect(0x02, binary("c"), name=name) + packets.publish("t", b"x", V311)
    answer, client = first_bytes(world, data)
    assert answer in (b"", CONNACK_UNACCEPTABLE_LEVEL)
    assert not client.is_open
    assert watcher.received() == []


@pytest.mark.spec("MQTT311-3.1.2-2", "MQTT311-3.2.2-4", "MQTT311-3.2.2-5", "MQTT311-3.1.4-5")
@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_level_that_is_not_supported_is_answered_with_return_code_1(level: int) -> None:
    world = World()
    watcher = world.hello("w", version=V311)
    watcher.subscribe("t", 0)
    watcher.received()
    data = connect(0x02, binary("c"), level=level) + packets.publish("t", b"x", V311)
    answer, client = first_bytes(world, data)
    assert answer == CONNACK_UNACCEPTABLE_LEVEL
    assert not client.is_open
    assert watcher.received() == []


MISMATCHES: Final = {
    "reserved flag": connect(0x03, binary("c")),
    "will QoS 3": connect(0x1E, binary("c"), binary("t"), binary("x")),
    "will QoS without a will": connect(0x0A, binary("c")),
    "will retain without a will": connect(0x22, binary("c")),
    "will topic with a wildcard": connect(0x06, binary("c"), binary("t/+"), binary("x")),
    "will without a message": connect(0x06, binary("c"), binary("t")),
    "no will, but its fields": connect(0x02, binary("c"), binary("t"), binary("x")),
    "password without user name": connect(0x42, binary("c"), binary("secret")),
    "user name is missing": connect(0x82, binary("c")),
    "password is missing": connect(0xC2, binary("c"), binary("u")),
    "no user name, but its field": connect(0x02, binary("c"), binary("u")),
    "no password, but its field": connect(0x82, binary("c"), binary("u"), binary("secret")),
    "no client identifier": connect(0x02),
    "client identifier is not UTF-8": connect(0x02, binary(b"\xc3\x28")),
    "client identifier with U+0000": connect(0x02, binary("a\0")),
    "user name is not UTF-8": connect(0x82, binary("c"), binary(b"\xff")),
    "will topic is not UTF-8": connect(0x06, binary("c"), binary(b"\xff"), binary("x")),
    "flags of the fixed header": packet(1, 1, connect(0x02, binary("c"))[2:]),
    "cut short": packet(1, 0, binary("MQTT") + bytes([V311, 0x02])),
}


@pytest.mark.spec(
    "MQTT311-3.1.2-3",
    "MQTT311-3.1.2-9",
    "MQTT311-3.1.2-11",
    "MQTT311-3.1.2-13",
    "MQTT311-3.1.2-14",
    "MQTT311-3.1.2-15",
    "MQTT311-3.1.2-18",
    "MQTT311-3.1.2-19",
    "MQTT311-3.1.2-20",
    "MQTT311-3.1.2-21",
    "MQTT311-3.1.2-22",
    "MQTT311-3.1.3-3",
    "MQTT311-3.1.3-4",
    "MQTT311-3.1.3-10",
    "MQTT311-3.1.3-11",
    "MQTT311-3.1.4-1",
    "MQTT311-3.1.4-5",
    "MQTT311-3.2.2-6",
)
@pytest.mark.parametrize("data", MISMATCHES.values(), ids=MISMATCHES)
def test_a_connect_against_the_rules_is_closed_without_a_connack(data: bytes) -> None:
    """No return code says "malformed", so none is sent; nothing behind the CONNECT counts."""
    world = World()
    watcher = world.hello("w", version=V311)
    watcher.subscribe("#", 0)
    watcher.received()
    answer, client = first_bytes(world, data + packets.publish("t", b"x", V311))
    assert answer == b""
    assert not client.is_open
    assert watcher.received() == []
    assert world.broker.sessions.find("c") is None


@pytest.mark.spec(
    "MQTT311-3.1.3-7",
    "MQTT311-3.1.3-8",
    "MQTT311-3.1.3-9",
    "MQTT311-3.1.4-5",
    "MQTT311-3.2.2-4",
    "MQTT311-3.2.2-5",
)
def test_a_session_to_keep_needs_a_client_identifier() -> None:
    world = World()
    watcher = world.hello("w", version=V311)
    watcher.subscribe("t", 0)
    watcher.received()
    data = connect(0x00, binary("")) + packets.publish("t", b"x", V311)
    answer, client = first_bytes(world, data)
    assert answer == CONNACK_IDENTIFIER_REJECTED
    assert not client.is_open
    assert watcher.received() == []


@pytest.mark.spec("MQTT311-3.1.3-6")
def test_clients_without_an_identifier_are_kept_apart() -> None:
    """Each gets an identifier of its own: none is taken over, and each has its own subscription."""
    world = World()
    clients = [world.hello("", version=V311, clean=True) for _ in range(3)]
    for n, client in enumerate(clients):
        client.subscribe(f"t/{n}", 0)
        assert client.received() == ["SUBACK #1 0x00"]
    for n in range(3):
        world.transient("p", V311).publish(f"t/{n}", str(n))
    for n, client in enumerate(clients):
        assert client.received() == [f"PUBLISH t/{n} {n} q0"]


# --- what is accepted, and how


@pytest.mark.spec("MQTT311-3.1.4-4", "MQTT311-3.2.0-1", "MQTT311-3.2.2-1", "MQTT311-3.2.2-3")
@pytest.mark.parametrize("flags", [0x00, 0x02], ids=["CleanSession 0", "CleanSession 1"])
def test_a_connect_of_a_new_client_is_answered_with_return_code_0(flags: int) -> None:
    answer, client = first_bytes(World(), connect(flags, binary("c")))
    assert answer == CONNACK_ACCEPTED
    assert client.is_open


@pytest.mark.spec(
    "MQTT311-3.1.2-4",
    "MQTT311-3.1.2-6",
    "MQTT311-3.1.4-3",
    "MQTT311-3.2.2-1",
    "MQTT311-3.2.2-2",
    "MQTT311-3.2.2-3",
)
def test_clean_session_decides_what_is_kept() -> None:
    """Kept with 0, found again with 0, dropped with 1, and with 1 nothing is kept either."""
    world = World()
    steps: list[tuple[int, bytes, list[str]]] = [
        (0x00, CONNACK_ACCEPTED, []),
        (0x00, CONNACK_PRESENT, ["PUBLISH t 0 q1 #1"]),
        (0x02, CONNACK_ACCEPTED, []),
        (0x00, CONNACK_ACCEPTED, []),
        (0x00, CONNACK_PRESENT, ["PUBLISH t 3 q1 #1"]),
    ]
    for n, (flags, connack, queued) in enumerate(steps):
        answer, client = first_bytes(world, connect(flags, binary("c")))
        assert answer[:4] == connack
        assert client.received()[1:] == queued
        if not queued:
            client.subscribe("t", 1)
        client.disconnect()
        world.transient("p", V311).publish("t", str(n), 1, 1)


@pytest.mark.spec("MQTT311-3.2.0-1", "MQTT311-3.1.4-4")
def test_nothing_goes_ahead_of_the_connack() -> None:
    """A session with a queue returns and sends on without waiting. While the disk is slow there is
    not a word, and then CONNACK comes before all else.
    """
    world = World()
    world.session("c", "t", 1)
    world.transient("p").publish("kept", "k", 1, 1, retain=True)
    world.transient("p").publish("t", "queued", 1, 1)
    world.disk.hold()
    client = world.connect("c", version=V311)
    request = SubscriptionRequest("kept", 0)
    client.send(Pingreq(), Subscribe(9, [request]), Publish("x", b"", 1, packet_id=8), Pingreq())
    assert client.take_bytes() == b""
    world.disk.sync()
    assert client.take_bytes()[:4] == CONNACK_PRESENT
    assert sorted(client.received()[1:]) == [
        "PINGRESP",
        "PINGRESP",
        "PUBACK #8",
        "PUBLISH kept k q0 retain",
        "PUBLISH t queued q1 #1",
        "SUBACK #9 0x00",
    ]


@pytest.mark.spec("MQTT311-3.1.3-2")
def test_a_session_belongs_to_its_client_identifier() -> None:
    """Character for character: identifiers that look alike find sessions of their own."""
    names = ["c", "C", " c", "c ", "\u00e9", "e\u0301", "\ufeffc"]
    world = World()
    for n, name in enumerate(names):
        client = world.connect(name, version=V311)
        assert client.received() == ["CONNACK 0x00"]
        client.subscribe(f"t/{n}", 1)
        client.cut()
    for n in range(len(names)):
        world.transient("p", V311).publish(f"t/{n}", str(n), 1, 1)
    world.crash()
    world.restart()
    for n, name in enumerate(names):
        client = world.connect(name, version=V311)
        assert client.received() == ["CONNACK 0x00 present", f"PUBLISH t/{n} {n} q1 #1"]


# --- wills


def watching(world: World) -> Client:
    watcher = world.hello("watcher", version=V311)
    watcher.subscribe("#", 1)
    watcher.received()
    return watcher


@pytest.mark.spec("MQTT311-3.1.2-12")
@pytest.mark.parametrize("clean", [False, True])
def test_without_a_will_flag_nothing_is_published_at_the_end(clean: bool) -> None:
    """Nor does the will of an earlier connection of that client count."""
    world = World()
    watcher = watching(world)
    will = Will("t", b"gone", 1)
    world.hello("c", version=V311, clean=clean, will=will).cut()
    assert watcher.received() == ["PUBLISH t gone q1 #1"]
    world.hello("c", version=V311, clean=clean).cut()
    assert watcher.received() == []
    world.hello("c", version=V311, clean=clean, will=will).disconnect()
    world.hello("c", version=V311, clean=clean).cut()
    assert watcher.received() == []


@pytest.mark.spec("MQTT311-3.1.2-10", "MQTT311-3.14.4-3")
@pytest.mark.parametrize("is_published", [False, True], ids=["DISCONNECT", "published"])
@pytest.mark.parametrize("clean", [False, True])
def test_a_will_is_gone_once_published_or_taken_back(is_published: bool, clean: bool) -> None:
    """It is not published twice, or after all, by a crash of the broker either."""
    world = World()
    watcher = watching(world)
    client = world.hello("c", version=V311, clean=clean, will=Will("t", b"gone", 1))
    if is_published:
        client.cut()
        assert watcher.received() == ["PUBLISH t gone q1 #1"]
        watcher.send(Puback(1))
    else:
        client.disconnect()
    for _ in range(2):
        world.advance(3_600_000)
        assert watcher.received() == []
        world.crash()
        world.restart()
        watcher = world.hello("watcher", version=V311)


@pytest.mark.spec("MQTT311-3.1.2-8")
@pytest.mark.parametrize("how", ["cut", "bad packet", "keep alive", "taken over"])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_will_is_published_whatever_ended_the_connection(how: str, qos: int) -> None:
    world = World()
    watcher = world.hello("watcher", version=V311)
    watcher.subscribe("t", 2)
    watcher.received()
    client = world.hello("c", version=V311, keep_alive=10, will=Will("t", b"gone", qos))
    world.advance(14_999)
    assert watcher.received() == []
    if how == "cut":
        client.cut()
    elif how == "bad packet":
        client.send_bytes(b"\x00\x00")
    elif how == "keep alive":
        world.advance(1)
    else:
        world.hello("c", version=V311)
    assert not client.is_open
    assert watcher.received() == [f"PUBLISH t gone q{qos}{' #1' * (qos > 0)}"]


@pytest.mark.spec("MQTT311-3.1.2-16", "MQTT311-3.1.2-17")
@pytest.mark.parametrize("retain", [False, True])
def test_will_retain_decides_whether_the_will_is_kept(retain: bool) -> None:
    world = World()
    world.hello("c", version=V311, will=Will("t", b"gone", 1, retain)).cut()
    late = world.hello("late", version=V311)
    late.subscribe("t", 0)
    kept = ["PUBLISH t gone q0 retain"] if retain else []
    assert late.received() == ["SUBACK #1 0x00", *kept]


# --- the length of a session


@pytest.mark.spec("MQTT311-4.1.0-2")
@pytest.mark.parametrize("clean", [False, True])
def test_a_session_lasts_at_least_as_long_as_its_connection(clean: bool) -> None:
    """The operator limits absent sessions to a minute; this one is there, for a week."""
    world = World(Limits(session_expiry_max_s=60))
    client = world.hello("c", version=V311, clean=clean)
    client.subscribe("t", 2)
    client.received()
    client.publish("x", "held", 2, 5)
    assert client.received() == ["PUBREC #5"]
    world.advance(7 * 24 * 3_600_000)
    world.transient("p").publish("t", "1", 2, 1)
    assert client.received() == ["PUBLISH t 1 q2 #1"]
    client.publish("x", "held", 2, 5, dup=True)
    assert client.received() == ["PUBREC #5"]
    client.cut()
    present = "" if clean else " present"
    assert world.connect("c", version=V311, clean=clean).received()[0] == f"CONNACK 0x00{present}"
