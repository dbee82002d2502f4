"""CONNECT and CONNACK of MQTT 5.0: who is let in, to which session, and what is said to whom."""

import pytest

from holdfast.broker.limits import EXPIRY_NEVER, KEEP_ALIVE_LOOK_MS, Limits
from holdfast.protocol.packets import (
    Connack,
    Connect,
    Pingreq,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Unsubscribe,
    Will,
)
from tests.broker.world import Client, World
from tests.spec.mqtt5 import (
    connack,
    connack_properties,
    connect,
    connect_packet,
    subscribe_packet,
)
from tests.support import packets


def raw(packet: bytes) -> Client:
    """A stranger that sends these bytes to an empty broker."""
    client = World().dial()
    client.send_bytes(packet)
    return client


# --- the first packet, and the only CONNECT


@pytest.mark.spec("MQTT5-3.1.0-1")
@pytest.mark.parametrize(
    "packet",
    [
        Publish("t", b"x"),
        subscribe_packet("t", 0),
        Unsubscribe(1, ["t"]),
        Pingreq(),
        Puback(1),
        Pubrec(1),
        Pubrel(1),
        Pubcomp(1),
    ],
    ids=lambda packet: type(packet).__name__,
)
def test_whoever_does_not_begin_with_connect_is_closed(packet: Publish) -> None:
    client = World().dial()
    client.send(packet)
    assert not client.is_open
    assert client.received() == []


@pytest.mark.spec("MQTT5-3.1.0-2")
@pytest.mark.spec("MQTT5-3.2.0-2")
@pytest.mark.parametrize("in_one_piece", [False, True])
@pytest.mark.parametrize("client_id", ["c", "other", ""])
def test_a_second_connect_gets_no_second_connack_and_ends_the_connection(
    client_id: str, in_one_piece: bool
) -> None:
    world = World()
    client = world.dial()
    client.push(connect_packet("c", clean=True))
    if not in_one_piece:
        world.run()
    client.send(connect_packet(client_id, clean=True), Publish("t", b"x"))
    assert client.received() == ["CONNACK 0x00", "DISCONNECT 0x82"]
    assert not client.is_open
    assert world.broker.sessions.find("other") is None


@pytest.mark.spec("MQTT5-3.2.0-1")
@pytest.mark.spec("MQTT5-3.2.0-2")
def test_nothing_leaves_ahead_of_the_connack() -> None:
    """A session comes back to a PUBREL, a message to be sent again, one that waits, and one that
    is published now; its client asks for more behind its CONNECT. The disk takes its time.
    """
    world = World()
    client = world.hello("c")
    client.subscribe("t", 2)
    publisher = world.transient("p")
    for number in (1, 2):
        publisher.publish("t", str(number), 2, number)
    client.send(Pubrec(1))
    client.cut()
    publisher.publish("t", "3", 2, 3)
    publisher.send(Pubrel(1), Pubrel(2), Pubrel(3))

    world.disk.hold()
    client = world.dial()
    client.push(connect_packet("c", session_expiry_interval=60))
    client.push(subscribe_packet("u", 1), Pingreq(), Publish("u", b"own", 1, packet_id=1))
    world.run()
    publisher.push(Publish("u", b"4"))
    world.run()
    assert client.received() == []
    world.disk.sync()
    found = client.received()
    assert found[0] == "CONNACK 0x00 present"
    assert sum(line.startswith("CONNACK") for line in found) == 1
    assert {"PUBREL #1", "PUBLISH t 2 q2 #2 dup", "PUBLISH t 3 q2 #3", "PINGRESP"} <= set(found)


@pytest.mark.spec("MQTT5-3.2.0-1")
def test_a_client_that_errs_before_its_connack_has_left_hears_nothing() -> None:
    """A DISCONNECT must not come first."""
    world = World()
    world.disk.hold()
    client = world.connect("c")
    client.send_bytes(b"\x00\x00")
    world.disk.sync()
    assert client.received() == []
    assert not client.is_open


# --- which session


@pytest.mark.spec("MQTT5-3.1.2-4")
@pytest.mark.spec("MQTT5-3.1.2-5")
@pytest.mark.spec("MQTT5-3.1.2-6")
@pytest.mark.spec("MQTT5-3.1.4-4")
@pytest.mark.spec("MQTT5-3.1.4-5")
@pytest.mark.spec("MQTT5-3.2.2-2")
@pytest.mark.spec("MQTT5-3.2.2-3")
@pytest.mark.parametrize("expiry_s", [0, 60])
@pytest.mark.parametrize("clean", [False, True])
@pytest.mark.parametrize("is_stored", [False, True])
def test_clean_start_decides_about_the_stored_session_and_connack_tells(
    is_stored: bool, clean: bool, expiry_s: int
) -> None:
    world = World()
    if is_stored:
        world.session("c", "t", 1)
        world.transient("p").publish("t", "waits", 1, 1)
    client = connect(world, "c", clean=clean, session_expiry_interval=expiry_s)
    has_state = is_stored and not clean
    first, *rest = client.received()
    assert first == ("CONNACK 0x00 present" if has_state else "CONNACK 0x00")
    assert rest == (["PUBLISH t waits q1 #1"] if has_state else [])
    world.transient("q").publish("t", "new", 1, 1)
    assert client.received() == (["PUBLISH t new q1 #2"] if has_state else [])


@pytest.mark.spec("MQTT5-3.1.2-4")
def test_what_a_clean_start_has_dropped_is_not_there_the_next_time_either() -> None:
    world = World()
    world.session("c", "t", 1)
    world.transient("p").publish("t", "lost with its session", 1, 1)
    world.hello("c", clean=True, expiry_s=60).cut()
    world.crash()
    world.restart()
    client = connect(world, "c", session_expiry_interval=60)
    assert client.received() == ["CONNACK 0x00 present"]
    world.transient("p").publish("t", "to nobody", 1, 1)
    assert client.received() == []


@pytest.mark.spec("MQTT5-3.1.3-2")
def test_the_client_identifier_alone_finds_the_session() -> None:
    """Not the address, the version or anything else; and identifiers differ by every character."""
    world = World()
    names = ["c", "C", "c ", "cc", "ç", "c\u0327"]
    for number, name in enumerate(names):
        world.session(name, f"t/{number}", 1)
    for number in range(len(names)):
        world.transient("p").publish(f"t/{number}", str(number), 1, 1)
    for number, name in enumerate(names):
        client = world.connect(name, version=4 if number % 2 else 5)
        assert client.received() == ["CONNACK 0x00 present", f"PUBLISH t/{number} {number} q1 #1"]


@pytest.mark.spec("MQTT5-3.1.3-6")
@pytest.mark.spec("MQTT5-3.1.3-7")
@pytest.mark.spec("MQTT5-3.2.2-16")
def test_no_assigned_identifier_is_given_twice_even_over_restarts() -> None:
    world = World()
    given = []
    for _ in range(3):
        for _ in range(3):
            client = connect(world, "", session_expiry_interval=EXPIRY_NEVER)
            answer = connack(client)
            assert not answer.session_present
            assert answer.properties is not None
            given.append(answer.properties.assigned_client_identifier)
        world.crash()
        world.restart()
    assert all(given)
    assert len(set(given)) == 9
    for client_id in given:
        assert client_id is not None
        back = connack(connect(world, client_id))
        assert back.session_present
        assert back.properties is not None
        assert back.properties.assigned_client_identifier is None


# --- refusals


@pytest.mark.spec("MQTT5-3.1.3-4")
@pytest.mark.spec("MQTT5-3.1.3-8")
@pytest.mark.parametrize("client_id", [b"\xff", b"\xc3", b"a\x00b", b"\xed\xa0\x80"], ids=bytes.hex)
def test_an_impossible_client_identifier_is_refused_and_the_connection_closed(
    client_id: bytes,
) -> None:
    client = raw(packets.connect(client_id))
    assert client.received() == ["CONNACK 0x81"]
    assert not client.is_open


@pytest.mark.spec("MQTT5-3.1.2-12")
@pytest.mark.spec("MQTT5-3.1.2-9")
@pytest.mark.spec("MQTT5-3.1.2-11")
@pytest.mark.spec("MQTT5-3.1.2-13")
@pytest.mark.spec("MQTT5-3.1.2-17")
@pytest.mark.spec("MQTT5-3.1.2-19")
@pytest.mark.spec("MQTT5-3.1.3-3")
@pytest.mark.spec("MQTT5-3.1.3-11")
@pytest.mark.spec("MQTT5-3.1.3-12")
@pytest.mark.parametrize(
    ("flags", "payload"),
    [
        pytest.param(0x1E, b"\0\1c" + b"\0" + b"\0\1w" + b"\0\1x", id="will QoS 3"),
        pytest.param(0x06, b"\0\1c", id="will missing"),
        pytest.param(0x06, b"\0\1c" + b"\0" + b"\0\1w", id="will payload missing"),
        pytest.param(0x0A, b"\0\1c", id="will QoS without will"),
        pytest.param(0x22, b"\0\1c", id="will retain without will"),
        pytest.param(0x82, b"\0\1c", id="user name missing"),
        pytest.param(0x42, b"\0\1c", id="password missing"),
        pytest.param(0x02, b"", id="client identifier missing"),
        pytest.param(0x06, b"\0\1c" + b"\0" + b"\0\1\xff" + b"\0\1x", id="will topic not UTF-8"),
        pytest.param(0x82, b"\0\1c" + b"\0\1\xff", id="user name not UTF-8"),
    ],
)
def test_a_connect_whose_flags_and_payload_disagree_is_malformed(
    flags: int, payload: bytes
) -> None:
    head = packets.binary("MQTT") + bytes([5, flags, 0, 0, 0])
    client = raw(packets.packet(packets.CONNECT, 0, head + payload))
    assert client.received() == ["CONNACK 0x81"]
    assert not client.is_open


@pytest.mark.spec("MQTT5-3.1.2-16")
@pytest.mark.spec("MQTT5-3.1.2-18")
@pytest.mark.parametrize(
    ("flags", "payload"),
    [
        pytest.param(0x02, b"\0\1c" + b"\0\2me", id="one field"),
        pytest.param(0x42, b"\0\1c" + b"\0\2me" + b"\0\6secret", id="password only, two fields"),
        pytest.param(0x82, b"\0\1c" + b"\0\2me" + b"\0\6secret", id="user name only, two fields"),
    ],
)
def test_a_user_name_or_password_without_its_flag_is_malformed(flags: int, payload: bytes) -> None:
    head = packets.binary("MQTT") + bytes([5, flags, 0, 0, 0])
    client = raw(packets.packet(packets.CONNECT, 0, head + payload))
    assert client.received() == ["CONNACK 0x81"]
    assert not client.is_open


@pytest.mark.spec("MQTT5-3.1.4-2")
@pytest.mark.spec("MQTT5-3.1.4-6")
@pytest.mark.spec("MQTT5-3.2.2-6")
@pytest.mark.spec("MQTT5-3.2.2-7")
@pytest.mark.parametrize(
    ("packet", "code"),
    [
        pytest.param(
            connect_packet("c", clean=True, authentication_method="MAGIC"), 0x8C, id="method"
        ),
        pytest.param(
            connect_packet("c", clean=True, will=Will("w/#", b"x")), 0x90, id="will topic"
        ),
    ],
)
@pytest.mark.parametrize("is_online", [False, True])
def test_a_refused_connect_changes_nothing_and_nothing_behind_it_is_processed(
    packet: Connect, code: int, is_online: bool
) -> None:
    """It names an existing session and even asks to empty it; publishes and subscribes behind."""
    world = World()
    watcher = world.transient("w")
    watcher.subscribe("#", 1)
    client = world.hello("c")
    client.subscribe("t", 1)
    client.packets()
    if not is_online:
        client.cut()
    stranger = world.dial()
    stranger.send(
        packet,
        Publish("t", b"q0"),
        Publish("t", b"q1", 1, packet_id=1),
        Publish("t", b"r", 0, True),
        subscribe_packet("u", 0),
        Unsubscribe(2, ["t"]),
    )
    assert stranger.received() == [f"CONNACK 0x{code:02X}"]
    assert not stranger.is_open
    assert watcher.received() == ["SUBACK #1 0x01"]
    if is_online:
        assert client.is_open
    else:
        client = world.connect("c")
        assert client.received() == ["CONNACK 0x00 present"]
    world.transient("p").publish("t", "still subscribed", 1, 1)
    assert client.received() == ["PUBLISH t still subscribed q1 #1"]
    late = world.transient("late")
    late.subscribe("t", 0)
    assert late.received() == ["SUBACK #1 0x00"], "it was retained"


# --- keep alive


@pytest.mark.spec("MQTT5-3.1.2-22")
@pytest.mark.spec("MQTT5-3.2.2-22")
@pytest.mark.parametrize("keep_alive", [1, 7, 60, 65_535])
def test_silence_of_one_and_a_half_keep_alives_ends_the_connection_on_the_millisecond(
    keep_alive: int,
) -> None:
    """The CONNACK names no Server Keep Alive, so that of the CONNECT counts."""
    world = World()
    client = connect(world, "c", keep_alive=keep_alive)
    assert connack_properties(client).server_keep_alive is None
    world.advance(keep_alive * 1500 - 1)
    assert client.is_open
    world.advance(1)
    assert client.received() == ["DISCONNECT 0x8D"]
    assert not client.is_open


@pytest.mark.spec("MQTT5-3.1.2-22")
@pytest.mark.parametrize(
    "packet",
    [
        Pingreq(),
        Publish("t", b"x"),
        subscribe_packet("t", 0),
        Unsubscribe(1, ["t"]),
        Puback(1),
        Pubrec(1),
        Pubrel(1),
        Pubcomp(1),
    ],
    ids=lambda packet: type(packet).__name__,
)
def test_every_packet_of_the_client_starts_its_time_anew(packet: Publish) -> None:
    world = World()
    client = world.hello("c", keep_alive=10)
    for _ in range(3):
        world.advance(14_999)
        client.send(packet)
    client.packets()
    world.advance(14_999)
    assert client.is_open
    world.advance(1)
    assert client.received() == ["DISCONNECT 0x8D"]


@pytest.mark.spec("MQTT5-3.1.2-22")
def test_what_the_server_sends_does_not_count_for_the_client() -> None:
    world = World()
    client = world.hello("c", keep_alive=10)
    client.subscribe("t", 0)
    publisher = world.transient("p")
    for _ in range(14):
        world.advance(1_000)
        publisher.publish("t", "x")
    assert client.is_open
    world.advance(1_000)
    assert not client.is_open


def test_a_keep_alive_of_0_is_none() -> None:
    world = World()
    client = world.hello("c", keep_alive=0)
    world.advance(7 * 24 * 3600 * 1000)
    assert client.is_open


@pytest.mark.spec("MQTT5-3.1.2-21")
@pytest.mark.spec("MQTT5-3.2.2-21")
@pytest.mark.parametrize(
    ("asked", "told"), [(0, 30), (31, 30), (65_535, 30), (30, None), (5, None)]
)
def test_a_server_keep_alive_is_told_and_takes_the_place_of_the_client_s(
    asked: int, told: int | None
) -> None:
    world = World(Limits(keep_alive_max_s=30))
    client = connect(world, "c", keep_alive=asked)
    assert connack_properties(client).server_keep_alive == told
    world.advance((told or asked) * 1500 - 1)
    assert client.is_open
    world.advance(1)
    assert client.received() == ["DISCONNECT 0x8D"]


def test_a_packet_between_two_looks_at_a_connection_counts_from_its_own_time() -> None:
    world = World()
    client = world.hello("c", keep_alive=20)
    world.advance(KEEP_ALIVE_LOOK_MS + 1)
    client.send(Pingreq())
    world.advance(29_999)
    assert client.is_open
    world.advance(1)
    assert client.received() == ["PINGRESP", "DISCONNECT 0x8D"]


# --- what CONNACK says


@pytest.mark.spec("MQTT5-3.1.2-28")
@pytest.mark.parametrize("asked", [None, 0])
def test_no_response_information_unless_it_is_asked_for(asked: int | None) -> None:
    client = connect(World(), "c", request_response_information=asked)
    assert connack_properties(client).response_information is None


@pytest.mark.spec("MQTT5-3.1.2-24")
@pytest.mark.spec("MQTT5-3.2.2-19")
@pytest.mark.spec("MQTT5-3.2.2-20")
def test_a_refusal_gives_no_reason_in_words_to_a_client_that_takes_five_bytes() -> None:
    """Packet type, length, flags, code and an empty property set are all of a CONNACK."""
    client = connect(World(), "c", maximum_packet_size=5, authentication_method="MAGIC")
    answer = connack(client)
    assert client.bytes_received == 5
    assert (answer.reason_code, answer.properties) == (0x8C, None)


@pytest.mark.spec("MQTT5-3.1.2-29")
def test_no_reason_in_words_where_the_client_does_not_want_it() -> None:
    """Every kind of answer that may carry one, each a refusal or an error."""
    world = World()
    client = connect(world, "c", clean=True, request_problem_information=0)
    assert connack(client).reason_code == 0
    client.send(
        Publish("$SYS/x", b"", 1, packet_id=1),
        Publish("$SYS/x", b"", 2, packet_id=2),
        Pubrec(3),
        Pubrel(4),
        subscribe_packet("a#", 0, 5),
        Unsubscribe(6, ["none"]),
    )
    answers = client.packets()
    assert [type(answer).__name__ for answer in answers] == [
        *("Puback", "Pubrec", "Pubrel", "Pubcomp", "Suback", "Unsuback")
    ]
    for answer in answers:
        assert getattr(answer, "properties", None) is None
    refused = connect(world, "d", request_problem_information=0, authentication_method="MAGIC")
    assert isinstance(connack(refused), Connack)
