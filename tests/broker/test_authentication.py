"""Authentication: in one step or many, at CONNECT and later. Source: MQTT 5.0 §3.15, §4.12."""

import pytest

from holdfast.broker.limits import (
    AUTH_ROUNDS_MAX,
    REAUTHENTICATIONS_MAX,
    REAUTHENTICATIONS_MS,
    Limits,
)
from holdfast.message import Properties
from holdfast.protocol.packets import (
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Publish,
    Subscribe,
    SubscriptionRequest,
)
from tests.broker.world import Client, World
from tests.support.challenge import METHOD, ChallengeAuthenticator, proof, server_proof
from tests.support.properties import properties

KEY = b"a key"
BEGIN, GO_ON = 0x19, 0x18


def new_world(rounds: int = 2, *, connect_timeout_ms: int = 10_000) -> World:
    limits = Limits(connect_timeout_ms=connect_timeout_ms)
    keys = {"ada": KEY, "bob": b"b"}
    return World(limits, authenticator=ChallengeAuthenticator(keys, rounds))


def said(method: str | None = METHOD, data: bytes | None = None) -> Properties:
    return properties(authentication_method=method, authentication_data=data)


def only_packet(client: Client) -> Connack | Disconnect | Auth:
    (packet,) = client.packets()
    assert isinstance(packet, Connack | Disconnect | Auth)
    return packet


def connect(world: World, client_id: str = "c", name: bytes = b"ada") -> Client:
    return world.connect(client_id, properties=said(data=name))


def nonce_of(client: Client) -> bytes:
    """The challenge that is all the client has got."""
    packet = only_packet(client)
    assert isinstance(packet, Auth)
    assert packet.reason_code == GO_ON
    assert packet.properties is not None
    assert packet.properties.authentication_method == METHOD
    assert packet.properties.authentication_data is not None
    return packet.properties.authentication_data


def prove(client: Client, rounds: int = 2, key: bytes = KEY) -> bytes:
    """Answer the challenges; returns the last."""
    nonce = b""
    for _ in range(rounds):
        nonce = nonce_of(client)
        client.send(Auth(GO_ON, said(data=proof(key, nonce))))
    return nonce


def let_in(world: World, client_id: str = "c") -> Client:
    client = connect(world, client_id)
    prove(client)
    assert client.received() == ["CONNACK 0x00"]
    return client


def authenticator(world: World) -> ChallengeAuthenticator:
    assert isinstance(world.authenticator, ChallengeAuthenticator)
    return world.authenticator


# The first authentication.


@pytest.mark.spec("MQTT5-4.12.0-2")
@pytest.mark.spec("MQTT5-4.12.0-5")
@pytest.mark.parametrize("rounds", [1, 2, AUTH_ROUNDS_MAX])
def test_a_client_that_proves_itself_is_let_in(rounds: int) -> None:
    world = new_world(rounds)
    client = connect(world)
    assert world.broker.sessions.count == 0
    nonce = prove(client, rounds)
    connack = only_packet(client)
    assert isinstance(connack, Connack)
    assert connack.reason_code == 0
    assert connack.properties is not None
    assert connack.properties.authentication_method == METHOD
    assert connack.properties.authentication_data == server_proof(KEY, nonce)
    assert client.connection.user_name == "ada"
    client.subscribe("t", 1)
    assert client.received() == ["SUBACK #1 0x01"]


def test_the_authenticator_is_told_what_it_needs() -> None:
    world = new_world()
    client = world.dial()
    client.send(Connect("c", 5, True, 0, None, "user", b"secret", said(data=b"ada")))
    prove(client, 1)
    first, second = authenticator(world).requests
    assert (first.method, first.data, first.client_id) == (METHOD, b"ada", "c")
    assert (first.user_name, first.password) == ("user", b"secret")
    assert first.address == "192.0.2.1:1"
    assert not first.is_reauthentication
    assert first.state is None
    assert second.state is not None
    assert second.password is None


@pytest.mark.spec("MQTT5-4.12.0-4")
@pytest.mark.spec("MQTT5-3.2.2-7")
@pytest.mark.parametrize("wrong_at", [1, 2])
def test_a_wrong_proof_is_refused_at_any_step(wrong_at: int) -> None:
    world = new_world()
    client = connect(world)
    prove(client, wrong_at - 1)
    client.send(Auth(GO_ON, said(data=proof(b"wrong", nonce_of(client)))))
    connack = only_packet(client)
    assert (type(connack), connack.reason_code) == (Connack, 0x87)
    assert connack.properties is not None
    assert connack.properties.reason_string == "the proof is wrong"
    assert not client.is_open
    assert world.broker.sessions.count == 0
    assert world.broker.counters.refused_connections == 1


@pytest.mark.spec("MQTT5-4.12.0-1")
@pytest.mark.parametrize("is_configured", [True, False])
def test_a_method_that_nobody_knows_is_refused(is_configured: bool) -> None:
    world = new_world() if is_configured else World()
    client = world.connect("c", properties=said("PLAIN"))
    assert client.received() == ["CONNACK 0x8C"]
    assert not client.is_open


@pytest.mark.spec("MQTT5-4.12.0-4")
def test_a_session_is_touched_only_after_success() -> None:
    world = new_world()
    owner = let_in(world)
    owner.subscribe("t", 1)
    owner.packets()
    intruder = connect(world, name=b"ada")
    prove(intruder, 1)
    nonce_of(intruder)
    assert owner.is_open
    intruder.send(Auth(GO_ON, said(data=b"guess")))
    assert intruder.received() == ["CONNACK 0x87"]
    assert owner.is_open
    second = connect(world)
    prove(second)
    assert second.received() == ["CONNACK 0x00 present"]
    assert owner.received() == ["DISCONNECT 0x8E"]


@pytest.mark.spec("MQTT5-3.1.2-30")
@pytest.mark.parametrize(
    "packet",
    [
        Pingreq(),
        Publish("t", b"x"),
        Subscribe(1, [SubscriptionRequest("t")]),
        Connect("c"),
        Connack(False, 0),
    ],
)
@pytest.mark.parametrize("is_answered", [True, False])
def test_nothing_but_auth_and_disconnect_may_come_before_connack(
    packet: Packet, is_answered: bool
) -> None:
    world = new_world()
    world.are_auth_steps_held = not is_answered
    client = connect(world)
    client.packets()
    client.send(packet)
    assert client.received() == ["CONNACK 0x82"]
    assert not client.is_open
    world.answer_auth_steps()
    assert world.broker.sessions.count == 0


@pytest.mark.parametrize("is_answered", [True, False])
def test_a_client_may_give_up(is_answered: bool) -> None:
    world = new_world()
    world.are_auth_steps_held = not is_answered
    client = connect(world)
    client.packets()
    client.send(Disconnect())
    assert not client.is_open
    world.answer_auth_steps()
    assert client.received() == []


@pytest.mark.spec("MQTT5-4.12.0-5")
@pytest.mark.spec("MQTT5-4.12.0-3")
@pytest.mark.spec("MQTT5-3.15.2-1")
@pytest.mark.parametrize(
    ("code", "method"), [(GO_ON, "OTHER"), (GO_ON, ""), (BEGIN, METHOD), (0x00, METHOD)]
)
def test_an_auth_that_does_not_go_on_ends_the_exchange(code: int, method: str) -> None:
    client = connect(new_world())
    nonce = nonce_of(client)
    client.send(Auth(code, said(method, proof(KEY, nonce))))
    assert client.received() == ["CONNACK 0x82"]
    assert not client.is_open


def test_an_auth_without_method_ends_the_exchange() -> None:
    client = connect(new_world())
    nonce_of(client)
    client.send_bytes(b"\xf0\x00")
    assert client.received() == ["CONNACK 0x82"]


@pytest.mark.spec("MQTT5-3.15.1-1")
def test_an_auth_with_flags_ends_the_exchange() -> None:
    client = connect(new_world())
    nonce_of(client)
    client.send_bytes(b"\xf1\x00")
    assert client.received() == ["CONNACK 0x81"]


def test_an_auth_that_nothing_asked_for_ends_the_exchange() -> None:
    world = new_world()
    world.are_auth_steps_held = True
    client = connect(world)
    client.send(Auth(GO_ON, said(data=b"early")))
    assert client.received() == ["CONNACK 0x82"]


@pytest.mark.parametrize("rounds", [0, 1])
def test_the_connect_timeout_covers_the_exchange(rounds: int) -> None:
    world = new_world(connect_timeout_ms=10_000)
    client = connect(world)
    prove(client, rounds)
    client.packets()
    world.advance(9_999)
    assert client.is_open
    world.advance(1)
    assert not client.is_open
    assert "no authentication within 10000 ms" in world.events[-2].text
    assert world.broker.counters.timeouts == 1


@pytest.mark.parametrize("password", [KEY, b"wrong"])
def test_an_answer_that_comes_too_late_is_nothing(password: bytes) -> None:
    world = new_world(connect_timeout_ms=10_000)
    world.are_auth_steps_held = True
    client = plain(world, "ada", password)
    world.advance(10_000)
    assert not client.is_open
    world.answer_auth_steps()
    assert client.received() == []
    assert world.broker.sessions.count == 0
    assert world.broker.counters.refused_connections == 0


def test_the_time_an_answer_takes_is_not_the_clients_silence() -> None:
    world = new_world(rounds=1, connect_timeout_ms=60_000)
    client = world.connect("c", keep_alive=10, properties=said(data=b"ada"))
    nonce = nonce_of(client)
    world.are_auth_steps_held = True
    client.send(Auth(GO_ON, said(data=proof(KEY, nonce))))
    world.advance(30_000)
    world.answer_auth_steps()
    assert client.received() == ["CONNACK 0x00"]
    world.advance(14_999)
    assert client.is_open
    world.advance(1)
    assert client.received() == ["DISCONNECT 0x8D"]


def test_an_exchange_that_does_not_end_is_ended() -> None:
    world = new_world(AUTH_ROUNDS_MAX + 1)
    client = connect(world)
    prove(client, AUTH_ROUNDS_MAX)
    assert client.received() == ["CONNACK 0x83"]


@pytest.mark.spec("MQTT5-3.1.2-24")
def test_a_challenge_that_is_too_large_ends_the_exchange() -> None:
    client = new_world().connect("c", maximum_packet_size=40, properties=said(data=b"ada"))
    assert client.received() == ["CONNACK 0x95"]


@pytest.mark.spec("MQTT5-3.14.0-1")
@pytest.mark.spec("MQTT5-3.2.0-1")
def test_no_disconnect_goes_ahead_of_a_connack_that_waits() -> None:
    """AUTH has left, CONNACK waits for the disk: it is not the time for DISCONNECT."""
    world = new_world()
    client = connect(world)
    world.disk.hold()
    prove(client)
    assert client.received() == []
    other = connect(world)
    prove(other)
    assert not client.is_open
    assert client.received() == []
    world.disk.sync()
    assert other.received()[0].startswith("CONNACK 0x00")


# Without a method.


def plain(world: World, user: str | None, password: bytes | None, version: int = 5) -> Client:
    client = world.dial(version)
    client.send(Connect("c", version, True, 0, None, user, password))
    return client


@pytest.mark.spec("MQTT5-3.1.4-2")
@pytest.mark.spec("MQTT5-4.12.0-6")
@pytest.mark.parametrize(
    ("user", "password", "code", "return_code"),
    [
        ("ada", KEY, 0, 0),
        ("ada", b"wrong", 0x86, 4),
        ("ada", None, 0x86, 4),
        (None, None, 0x87, 5),
        ("odd", None, 0x87, 5),
        ("defect", None, 0x88, 3),
        ("unspecified", None, 0x80, None),
        ("asked", None, 0x83, None),
    ],
)
@pytest.mark.parametrize("version", [3, 4, 5])
def test_a_user_name_and_password_are_one_step(
    version: int, user: str | None, password: bytes | None, code: int, return_code: int | None
) -> None:
    world = new_world()
    client = plain(world, user, password, version)
    found = client.packets()
    expected = code if version == 5 else return_code
    if expected is None:
        assert found == []
    else:
        (connack,) = found
        assert isinstance(connack, Connack)
        assert connack.reason_code == expected
        if connack.properties is not None:
            assert connack.properties.authentication_method is None
            assert connack.properties.authentication_data is None
    assert client.is_open == (code == 0)
    (request,) = authenticator(world).requests
    assert (request.method, request.user_name, request.password) == (None, user, password)


@pytest.mark.spec("MQTT5-3.1.4-6")
@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("password", [KEY, b"wrong"])
def test_what_comes_behind_connect_waits_for_the_answer(version: int, password: bytes) -> None:
    world = new_world()
    world.are_auth_steps_held = True
    client = world.dial(version)
    client.send(
        Connect("c", version, True, 0, None, "ada", password),
        Publish("t", b"x", 1, False, False, 1),
        Pingreq(),
    )
    assert client.connection.is_read_paused
    client.send(Publish("t", b"y", 1, False, False, 2))
    assert client.received() == []
    world.answer_auth_steps()
    if password == KEY:
        code = " 0x10" if version == 5 else ""
        answers = ["CONNACK 0x00", f"PUBACK #1{code}", "PINGRESP", f"PUBACK #2{code}"]
        assert sorted(client.received()) == sorted(answers)
        assert not client.connection.is_read_paused
    else:
        assert client.received() == [f"CONNACK 0x{0x86 if version == 5 else 4:02X}"]
        assert world.broker.counters.received == 0


# Later authentications.


def test_a_connected_client_authenticates_again_while_messages_flow() -> None:
    world = new_world()
    client = let_in(world)
    client.subscribe("t", 1)
    client.packets()
    publisher = let_in(world, "p")
    client.send(Auth(BEGIN, said(data=b"ada")))
    nonce = nonce_of(client)
    publisher.publish("t", "1", 1, 1)
    client.publish("t", "2", 1, 1)
    assert client.received() == ["PUBLISH t 1 q1 #1", "PUBLISH t 2 q1 #2", "PUBACK #1"]
    world.are_auth_steps_held = True
    client.send(Auth(GO_ON, said(data=proof(KEY, nonce))))
    client.publish("t", "3", 1, 2)
    assert client.received() == ["PUBLISH t 3 q1 #3", "PUBACK #2"]
    world.answer_auth_steps()
    world.are_auth_steps_held = False
    nonce = prove(client, 1)
    done = only_packet(client)
    assert (type(done), done.reason_code) == (Auth, 0x00)
    assert done.properties is not None
    assert done.properties.authentication_method == METHOD
    assert done.properties.authentication_data == server_proof(KEY, nonce)
    request = authenticator(world).requests[-1]
    assert request.is_reauthentication
    assert (request.client_id, request.user_name) == ("c", "ada")
    # And once more.
    client.send(Auth(BEGIN, said(data=b"ada")))
    prove(client)
    assert client.received() == ["AUTH 0x00"]


def test_who_authenticates_again_and_again_is_disconnected() -> None:
    """Each may cost as much as hashing a password."""
    world = new_world()
    client = let_in(world)
    for _ in range(REAUTHENTICATIONS_MAX):
        client.send(Auth(BEGIN, said(data=b"ada")))
        prove(client)
        assert client.received() == ["AUTH 0x00"]
    world.advance(REAUTHENTICATIONS_MS - 1)
    asked = len(authenticator(world).requests)
    client.send(Auth(BEGIN, said(data=b"ada")))
    assert client.received() == ["DISCONNECT 0x97"]
    assert len(authenticator(world).requests) == asked


def test_who_authenticates_again_now_and_then_stays() -> None:
    world = new_world()
    client = let_in(world)
    for _ in range(5 * REAUTHENTICATIONS_MAX):
        client.send(Auth(BEGIN, said(data=b"ada")))
        prove(client)
        assert client.received() == ["AUTH 0x00"]
        world.advance(REAUTHENTICATIONS_MS // REAUTHENTICATIONS_MAX)


@pytest.mark.spec("MQTT5-4.12.1-2")
@pytest.mark.parametrize("wrong_at", [0, 1, 2])
def test_a_later_authentication_that_fails_ends_the_connection(wrong_at: int) -> None:
    world = new_world()
    client = let_in(world)
    client.send(Auth(BEGIN, said(data=b"bob" if wrong_at == 0 else b"ada")))
    if wrong_at > 0:
        prove(client, wrong_at - 1)
        nonce_of(client)
        client.send(Auth(GO_ON, said(data=b"guess")))
    goodbye = only_packet(client)
    assert (type(goodbye), goodbye.reason_code) == (Disconnect, 0x87)
    assert goodbye.properties is not None
    assert goodbye.properties.reason_string is not None
    assert not client.is_open
    assert world.broker.sessions.find("c") is not None, "the session stays"


@pytest.mark.spec("MQTT5-4.12.1-1")
@pytest.mark.spec("MQTT5-4.12.0-3")
@pytest.mark.spec("MQTT5-3.15.2-1")
@pytest.mark.parametrize(
    ("code", "method"),
    [(BEGIN, "OTHER"), (BEGIN, ""), (GO_ON, METHOD), (0x00, METHOD)],
)
def test_a_later_auth_out_of_place_is_a_protocol_error(code: int, method: str) -> None:
    client = let_in(new_world())
    client.send(Auth(code, said(method)))
    assert client.received() == ["DISCONNECT 0x82"]
    assert not client.is_open


def test_one_later_authentication_at_a_time() -> None:
    client = let_in(new_world())
    client.send(Auth(BEGIN, said(data=b"ada")))
    nonce_of(client)
    client.send(Auth(BEGIN, said(data=b"ada")))
    assert client.received() == ["DISCONNECT 0x82"]


@pytest.mark.spec("MQTT5-4.12.0-7")
@pytest.mark.parametrize("code", [BEGIN, GO_ON])
@pytest.mark.parametrize("is_configured", [True, False])
def test_no_auth_from_a_client_that_connected_without_a_method(
    code: int, is_configured: bool
) -> None:
    client = plain(new_world() if is_configured else World(), "ada", KEY)
    assert client.received() == ["CONNACK 0x00"]
    client.send(Auth(code, said()))
    assert client.received() == ["DISCONNECT 0x82"]


def test_auth_is_no_packet_before_5_0() -> None:
    client = World().hello("c", version=4)
    client.send_bytes(b"\xf0\x00")
    assert not client.is_open


@pytest.mark.spec("MQTT5-4.12.0-6")
def test_without_an_authenticator_anyone_may_connect() -> None:
    world = World()
    client = plain(world, "anyone", b"anything")
    assert client.received() == ["CONNACK 0x00"]
    assert client.connection.user_name is None, "nobody has confirmed it"
