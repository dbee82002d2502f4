"""The end of a token: a client is disconnected, unless it has shown a new one in time."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from holdfast.auth.chain import Chain
from holdfast.auth.tokens import TokenLink
from holdfast.config.authenticators import JwtSettings
from holdfast.message import Properties
from holdfast.protocol.packets import Auth, Connack, Connect, Disconnect, Packet, Will
from tests.broker.world import START_MS, Client, World
from tests.support import packets
from tests.support.local import LocalServer
from tests.support.packets import AUTH, AUTH_DATA, AUTH_METHOD, CONNACK, DISCONNECT, V5, V311
from tests.support.properties import properties
from tests.support.tokens import pem, token
from tests.support.wire import Wire

START_S = START_MS // 1000
KEY, OTHER = (ed25519.Ed25519PrivateKey.generate() for _ in range(2))
BEGIN = 0x19


def lasting(seconds: float, user: str = "ada", start_s: float = START_S) -> bytes:
    return token({"sub": user, "exp": start_s + seconds}, KEY, "EdDSA")


def link_to(tmp_path: Path, clock_s: Callable[[], float]) -> TokenLink:
    file = tmp_path / "keys.pem"
    file.write_bytes(pem(KEY))
    settings = JwtSettings(
        kind="jwt", algorithms=("EdDSA",), public_key_file=file, leeway_s=0, token_bytes_max=1000
    )
    link = TokenLink(settings, clock_s)
    link.reload()
    return link


@pytest.fixture
def world(tmp_path: Path) -> World:
    worlds: list[World] = []
    link = link_to(tmp_path, lambda: worlds[0].now_ms / 1000)
    worlds.append(World(authenticator=Chain([link])))
    return worlds[0]


def said(data: bytes) -> Properties:
    return properties(authentication_method="JWT", authentication_data=data)


def connect(world: World, made: bytes, version: int = 5, *, method: bool = False) -> Client:
    """Connect, with the token as password or by a method."""
    client = world.dial(version)
    password, values = (None, said(made)) if method else (made, None)
    user_name = None if method else "anyone"
    client.send(Connect("c", version, True, 0, None, user_name, password, values))
    connack = client.packets()[0]
    assert isinstance(connack, Connack)
    assert connack.reason_code == 0
    return client


def codes(received: list[Packet]) -> list[int]:
    return [packet.reason_code for packet in received if isinstance(packet, Disconnect | Auth)]


def test_a_client_is_disconnected_when_its_token_ends(world: World) -> None:
    client = connect(world, lasting(60))
    world.advance(59_999)
    assert codes(client.packets()) == []
    world.advance(1)
    assert codes(client.packets()) == [0xA0]
    assert client.connection.is_closing


def test_before_5_0_the_connection_is_closed(world: World) -> None:
    client = connect(world, lasting(60), version=4)
    world.advance(59_999)
    assert not client.connection.is_closing
    world.advance(1)
    assert client.packets() == []
    assert client.connection.is_closing


def test_a_new_token_in_time_keeps_the_connection(world: World) -> None:
    client = connect(world, lasting(60), method=True)
    for minute in range(1, 4):
        world.advance(50_000)
        client.send(Auth(BEGIN, said(lasting(50 * minute + 60))))
        assert codes(client.packets()) == [0]
    world.advance(59_999)
    assert codes(client.packets()) == []
    world.advance(1)
    assert codes(client.packets()) == [0xA0]


def test_a_new_token_may_end_sooner(world: World) -> None:
    client = connect(world, lasting(60), method=True)
    client.send(Auth(BEGIN, said(lasting(10))))
    world.advance(10_000)
    assert codes(client.packets()) == [0, 0xA0]


@pytest.mark.spec("MQTT5-4.12.1-2")
@pytest.mark.parametrize(
    "new",
    [
        lasting(-1),
        lasting(600, "bob"),
        token({"sub": "ada", "exp": START_S + 600}, OTHER, "EdDSA"),
        b"",
        b"Bearer",
    ],
    ids=["expired", "another user", "another key", "none", "no token"],
)
def test_a_new_token_that_is_wrong_ends_the_connection_at_once(world: World, new: bytes) -> None:
    client = connect(world, lasting(60), method=True)
    client.send(Auth(BEGIN, said(new)))
    assert codes(client.packets()) == [0x87]
    assert client.connection.is_closing


def test_the_will_of_who_is_disconnected_is_published(world: World) -> None:
    """It is no end that the client has chosen."""
    watcher = connect(world, lasting(1000))
    watcher.subscribe("gone", 0)
    watcher.packets()
    client = world.dial()
    will = Will("gone", b"")
    client.send(Connect("d", 5, True, 0, will, "anyone", lasting(60), None))
    world.advance(60_000)
    assert [message.topic for message in watcher.publishes()] == ["gone"]


def test_a_withdrawn_key_ends_the_connections_of_its_tokens(tmp_path: Path) -> None:
    link = link_to(tmp_path, lambda: START_S)
    world = World(authenticator=Chain([link]))
    client = connect(world, lasting(60))
    world.broker.renew_identities()
    world.run()
    assert codes(client.packets()) == []
    (tmp_path / "keys.pem").write_bytes(pem(OTHER))
    link.reload()
    world.broker.renew_identities()
    world.run()
    assert codes(client.packets()) == [0x87]


def test_no_event_shows_a_token(world: World) -> None:
    right, wrong = lasting(60), lasting(-60)
    connect(world, right)
    client = world.dial()
    client.send(Connect("d", 5, True, 0, None, "anyone", wrong, None))
    world.advance(60_000)
    told = " ".join(f"{event.text} {event.client_id} {event.address}" for event in world.events)
    assert "expired" in told
    for made in (right, wrong):
        for text in made.decode().split("."):
            assert text not in told


# Over TCP, in real time. The link's clock stands still, so that no test has to be quick.


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LocalServer]:
    start_s = time.time()
    with LocalServer(Chain([link_to(tmp_path, lambda: start_s)])) as server:
        yield server


@pytest.mark.parametrize("level", [V311, V5])
def test_a_real_client_is_disconnected(server: LocalServer, level: int) -> None:
    made = lasting(0.3, start_s=time.time())
    with Wire(server.port, level) as wire:
        wire.send(packets.connect("c", level, user="anyone", password=made.decode()))
        assert wire.expect(CONNACK).code == 0
        last = [(packet.kind, packet.code) for packet in wire.until_closed()]
        assert last == ([(DISCONNECT, 0xA0)] if level == V5 else [])


def test_a_real_client_shows_a_new_token(server: LocalServer) -> None:
    def shown(made: bytes) -> packets.Properties:
        return {AUTH_METHOD: "OAUTH2", AUTH_DATA: b"Bearer " + made}

    with Wire(server.port) as wire:
        wire.send(packets.connect("c", values=shown(lasting(1000, start_s=time.time()))))
        assert wire.expect(CONNACK).code == 0
        wire.send(packets.auth(BEGIN, shown(lasting(2000, start_s=time.time()))))
        assert wire.expect(AUTH).code == 0
        wire.subscribe("t", 1)
        wire.send(packets.auth(BEGIN, shown(lasting(0.3, start_s=time.time()))))
        assert wire.expect(AUTH).code == 0
        assert [packet.code for packet in wire.until_closed()] == [0xA0]


@pytest.mark.parametrize("how", ["connections", "authentications", "renewals"])
def test_what_ends_far_ahead_leaves_nothing_behind(world: World, how: str) -> None:
    """A token of a year, however often it is shown: what waits for its end is of who is there."""
    year_s = 365 * 86_400
    client = connect(world, lasting(year_s), method=True)
    for number in range(100):
        world.advance(6_000)
        if how == "connections":
            connect(world, lasting(year_s))
        elif how == "authentications":
            client.send(Auth(BEGIN, said(lasting(year_s + number))))
        else:
            world.broker.renew_identities()
    world.advance(120_000)
    assert world.broker._deadlines.count < 5


def test_a_token_that_ends_later_than_the_next_look_ends_in_time(world: World) -> None:
    client = connect(world, lasting(3600))
    world.advance(3_599_999)
    assert codes(client.packets()) == []
    world.advance(1)
    assert codes(client.packets()) == [0xA0]
