"""PINGREQ, keep alive, DISCONNECT and errors: when a connection ends, and what is said last.

Source: MQTT 5.0 §3.1.2.10, §3.12 to §3.15, §4.13.
"""

from collections.abc import Callable

import pytest

from holdfast.broker.limits import Limits
from holdfast.protocol.encode import encode
from holdfast.protocol.packets import (
    Connack,
    Connect,
    Disconnect,
    Pingreq,
    Puback,
    Publish,
    Pubrec,
    Subscribe,
    SubscriptionRequest,
    Unsubscribe,
    Will,
)
from holdfast.protocol.reason_codes import DISCONNECT_CODES_OF_SERVER
from tests.broker.world import Client, World
from tests.support import packets
from tests.support.broker import BrokerProcess
from tests.support.packets import V5
from tests.support.properties import properties
from tests.support.wire import Dial, Wire, contents, numbered

CLEAN = pytest.mark.parametrize("clean", [True, False], ids=["clean", "durable"])


# PINGREQ and keep alive


@pytest.mark.spec("MQTT5-3.12.4-1")
def test_every_pingreq_has_its_pingresp(broker: BrokerProcess, dial: Dial, name: str) -> None:
    """Of exactly two bytes, one for each, in its place among the other answers."""
    wire = dial(broker, V5)
    wire.hello(name, clean=True)
    wire.send(bytes.fromhex("c0 00") * 3, packets.subscribe(1, [(name, 0)]), packets.pingreq())
    found = [wire.receive() for _ in range(5)]
    kinds = [packets.NAMES[one.kind] for one in found]
    assert kinds == ["PINGRESP"] * 3 + ["SUBACK", "PINGRESP"]
    assert all(one.body == b"" for one in found if one.kind == packets.PINGRESP)


KEPT_ALIVE_BY = {
    "PINGREQ": Pingreq(),
    "PUBLISH": Publish("t", b"m"),
    "SUBSCRIBE": Subscribe(1, [SubscriptionRequest("x", 0)]),
    "UNSUBSCRIBE": Unsubscribe(1, ["x"]),
    "PUBACK": Puback(77),
    "PUBREC": Pubrec(77),
}


@pytest.mark.spec("MQTT5-3.1.2-22")
@pytest.mark.parametrize("keep_alive", [1, 10, 3600])
@pytest.mark.parametrize("packet", KEPT_ALIVE_BY.values(), ids=KEPT_ALIVE_BY)
def test_any_packet_keeps_alive_for_one_and_a_half_times_keep_alive(
    packet: Pingreq | Publish | Subscribe | Unsubscribe | Puback | Pubrec, keep_alive: int
) -> None:
    world = World()
    client = world.hello("c", keep_alive=keep_alive)
    for _ in range(3):
        world.advance(keep_alive * 1500 - 1)
        client.send(packet)
    client.packets()
    world.advance(keep_alive * 1500 - 1)
    assert client.received() == []
    assert client.is_open
    world.advance(1)
    assert client.received() == ["DISCONNECT 0x8D"]
    assert not client.is_open


@pytest.mark.spec("MQTT5-3.1.2-22")
def test_what_the_client_is_sent_does_not_keep_it_alive() -> None:
    """A client whose way back is broken is found out, though messages flow to it."""
    world = World()
    client = world.hello("c", keep_alive=10)
    client.subscribe("t", 0)
    publisher = world.transient("p")
    for _ in range(14):
        world.advance(1000)
        publisher.publish("t", "m")
    assert len(client.received()) == 15
    world.advance(1000)
    assert client.received() == ["DISCONNECT 0x8D"]


@pytest.mark.spec("MQTT5-3.1.2-22")
@pytest.mark.spec("MQTT5-3.1.2-22")
def test_bytes_that_complete_no_packet_keep_nothing_alive() -> None:
    world = World()
    client = world.hello("c", keep_alive=10)
    for byte in encode(Publish("t", b"x" * 200), 5)[:14]:
        world.advance(1_000)
        client.send_bytes(bytes([byte]))
    assert client.is_open
    world.advance(999)
    assert client.is_open
    world.advance(1)
    assert not client.is_open


def test_keep_alive_0_never_ends() -> None:
    world = World()
    client = world.hello("c", keep_alive=0)
    world.advance(365 * 86_400_000)
    client.send(Pingreq())
    assert client.received() == ["PINGRESP"]


# The broker says DISCONNECT


def malformed(world: World) -> Client:
    client = world.hello("c", expiry_s=60)
    client.send_bytes(b"\xc1\x00")
    return client


def breaks_the_protocol(world: World) -> Client:
    client = world.hello("c", expiry_s=60)
    client.send(Connect("c"))
    return client


def publishes_too_much(world: World) -> Client:
    client = world.hello("c", expiry_s=60)
    for packet_id in range(1, world.limits.receive_maximum + 2):
        client.push(Publish("t", b"m", 2, packet_id=packet_id))
    client.send()
    return client


def sends_too_large_a_packet(world: World) -> Client:
    client = world.hello("c", expiry_s=60)
    client.send_bytes(b"\x30\xff\xff\xff\x7f")
    return client


def falls_silent(world: World) -> Client:
    client = world.hello("c", expiry_s=60, keep_alive=1)
    world.advance(1500)
    return client


def is_taken_over(world: World) -> Client:
    client = world.hello("c", expiry_s=60)
    world.hello("c", expiry_s=30)
    return client


def is_shut_down(world: World) -> Client:
    client = world.hello("c", expiry_s=60)
    world.stop()
    return client


ENDS: dict[str, tuple[Callable[[World], Client], int]] = {
    "malformed packet": (malformed, 0x81),
    "protocol error": (breaks_the_protocol, 0x82),
    "receive maximum": (publishes_too_much, 0x93),
    "packet too large": (sends_too_large_a_packet, 0x95),
    "keep alive": (falls_silent, 0x8D),
    "takeover": (is_taken_over, 0x8E),
    "shutdown": (is_shut_down, 0x8B),
}


@pytest.mark.spec("MQTT5-3.14.2-1", "MQTT5-3.14.2-2", "MQTT5-3.14.4-2", "MQTT5-4.13.2-1")
@pytest.mark.parametrize(("end", "code"), ENDS.values(), ids=ENDS)
def test_the_broker_ends_a_connection_with_its_reason_and_no_session_expiry(
    end: Callable[[World], Client], code: int
) -> None:
    """Though the client asked for a Session Expiry Interval, and may get another one."""
    world = World(Limits(receive_maximum=3, session_expiry_max_s=40))
    client = end(world)
    *_, last = client.packets()
    assert isinstance(last, Disconnect)
    assert last.reason_code == code
    assert last.properties is None or last.properties.session_expiry_interval is None
    assert not client.is_open


def sends_nonsense(wire: Wire, dial: Dial, broker: BrokerProcess, name: str) -> None:
    """In one piece with what would be answered, before and behind it."""
    wire.send(
        packets.publish(name, b"before", qos=1, packet_id=1),
        packets.subscribe(2, [("x", 0)]),
        packets.packet(packets.PINGREQ, 1, b""),
        packets.pingreq(),
        packets.publish(name, b"behind", qos=1, packet_id=3),
    )


def meets_its_successor(wire: Wire, dial: Dial, broker: BrokerProcess, name: str) -> None:
    """While messages flow to it that it does not acknowledge."""
    publisher = dial(broker, V5)
    publisher.hello(f"{name}-p", clean=True)
    publisher.publish_all(name, numbered(20))
    successor = dial(broker, V5)
    successor.hello(name)
    publisher.publish_all(name, numbered(20))


@pytest.mark.spec("MQTT5-3.14.4-1", "MQTT5-3.14.4-2", "MQTT5-4.13.1-1", "MQTT5-4.13.2-1")
@pytest.mark.parametrize("how", [sends_nonsense, meets_its_successor])
def test_behind_its_disconnect_the_broker_sends_nothing_and_closes(
    broker: BrokerProcess,
    dial: Dial,
    name: str,
    how: Callable[[Wire, Dial, BrokerProcess, str], None],
) -> None:
    wire = dial(broker, V5)
    wire.hello(name)
    wire.subscribe(name, 1)
    how(wire, dial, broker, name)
    found = wire.until_closed()
    assert [one.kind for one in found].count(packets.DISCONNECT) == 1
    assert found[-1].kind == packets.DISCONNECT
    assert b"behind" not in contents(found)
    assert packets.PINGRESP not in [one.kind for one in found]


@pytest.mark.spec("MQTT5-3.14.4-1")
@CLEAN
def test_what_waits_for_the_disk_at_a_disconnect_is_never_sent(clean: bool) -> None:
    """An acknowledgement that comes too late is not sent behind it, nor in front of it."""
    world = World()
    world.session("s", "t", 1)
    client = world.transient("c") if clean else world.hello("c")
    world.disk.hold()
    client.publish("t", "m", 1, 1)
    client.send(Subscribe(2, [SubscriptionRequest("x", 1)]))
    client.send_bytes(b"\xc1\x00")
    assert client.received() == ["DISCONNECT 0x81"]
    assert not client.is_open
    world.disk.sync()
    assert client.connection.take() == b""


# The client says DISCONNECT


@pytest.mark.spec("MQTT5-3.14.4-3")
@pytest.mark.parametrize(
    ("reason_code", "is_published"), [(0x00, False), (0x04, True), (0x80, True), (0x82, True)]
)
@pytest.mark.parametrize("delay_s", [0, 5])
@CLEAN
def test_only_a_normal_disconnect_takes_the_will_away(
    reason_code: int, is_published: bool, delay_s: int, clean: bool
) -> None:
    world = World()
    observer = world.transient("o")
    observer.subscribe("w", 1)
    will = Will("w", b"gone", 1, properties=properties(will_delay_interval=delay_s))
    client = world.hello("c", will=will, clean=clean, expiry_s=0 if clean else 3600)
    client.disconnect(reason_code)
    world.advance(10_000)
    assert observer.received()[1:] == (["PUBLISH w gone q1 #1"] if is_published else [])


@pytest.mark.spec("MQTT5-3.14.2-1", "MQTT5-4.13.1-1")
@pytest.mark.parametrize("reason_code", sorted(DISCONNECT_CODES_OF_SERVER))
def test_a_client_that_speaks_with_a_servers_reason_is_a_protocol_error(reason_code: int) -> None:
    """And then its will is published: that was no normal DISCONNECT."""
    world = World()
    observer = world.transient("o")
    observer.subscribe("w", 0)
    client = world.hello("c", will=Will("w", b"gone"))
    client.send(Disconnect(reason_code))
    assert client.received() == ["DISCONNECT 0x82"]
    assert not client.is_open
    assert observer.received()[1:] == ["PUBLISH w gone q0"]


@pytest.mark.parametrize("expiry_s", [None, 0])
def test_a_session_that_was_to_end_cannot_be_prolonged_by_disconnect(expiry_s: int | None) -> None:
    """Source: MQTT 5.0 §3.14.2.2.2."""
    world = World()
    client = world.hello("c", expiry_s=expiry_s)
    client.send(Disconnect(0, properties(session_expiry_interval=60)))
    assert client.received() == ["DISCONNECT 0x82"]
    assert world.broker.sessions.find("c") is None


# Malformed packets


@pytest.mark.spec("MQTT5-3.15.1-1", "MQTT5-2.1.3-1")
@pytest.mark.parametrize("flags", range(1, 16))
@pytest.mark.parametrize(
    "body", [b"", bytes.fromhex("18 09 15 00 06") + b"SCRAM9"], ids=["empty", "with a method"]
)
def test_an_auth_with_flags_is_malformed(flags: int, body: bytes) -> None:
    client = World().hello("c")
    client.send_bytes(packets.packet(packets.AUTH, flags, body))
    assert client.received() == ["DISCONNECT 0x81"]
    assert not client.is_open


@pytest.mark.spec("MQTT5-4.13.1-1")
@pytest.mark.parametrize("clean", [True, False])
def test_a_bad_packet_ends_a_connection_and_not_the_session(clean: bool) -> None:
    """What came before it is done, and what comes behind it in the same piece is not."""
    world = World()
    observer = world.transient("o")
    observer.subscribe("#", 0)
    client = world.hello("c", clean=clean)
    client.send(
        Subscribe(1, [SubscriptionRequest("mine", 1)]), Publish("t", b"before", 1, packet_id=2)
    )
    client.push_bytes(b"\xc1\x00")
    client.push(Publish("t", b"behind", 1, packet_id=3), Unsubscribe(4, ["mine"]))
    world.run()
    *answers, last = client.received()
    assert answers == ["SUBACK #1 0x01", "PUBACK #2"]
    assert last == "DISCONNECT 0x81"
    assert observer.received()[1:] == ["PUBLISH t before q0"]
    client = world.connect("c")
    connack, *rest = client.packets()
    assert isinstance(connack, Connack)
    assert connack.session_present
    assert rest == []
    world.transient("p").publish("mine", "m", 1, 1)
    assert client.received() == ["PUBLISH mine m q1 #1"]


@pytest.mark.spec("MQTT5-4.13.1-1", "MQTT5-4.13.2-1")
@pytest.mark.parametrize("packet", [Pingreq(), Publish("t", b"m"), Disconnect()])
def test_a_client_that_does_not_begin_with_connect_gets_no_disconnect(
    packet: Pingreq | Publish | Disconnect,
) -> None:
    """It is closed; before CONNACK there is no DISCONNECT [MQTT-3.14.0-1]."""
    world = World()
    client = world.dial()
    client.send_bytes(encode(packet, 5))
    assert [one for one in client.received() if one.startswith("DISCONNECT")] == []
    assert not client.is_open
