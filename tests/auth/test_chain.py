"""The chain of authenticators: who decides, who goes on with an exchange, who is asked again."""

import logging

import pytest

from holdfast.auth.anonymous import AnonymousLink
from holdfast.auth.certificate import CertificateLink
from holdfast.auth.chain import Chain
from holdfast.auth.link import NOT_MINE, Answer, Link
from holdfast.broker.authentication import (
    GRANT,
    REFUSE,
    AuthReply,
    AuthRequest,
    go_on,
    grant,
    refuse,
)
from holdfast.broker.identity import Identity, PeerCertificate
from holdfast.message import Properties
from holdfast.protocol.packets import Auth, Connect
from holdfast.protocol.reason_codes import BAD_USER_NAME_OR_PASSWORD, BANNED, NOT_AUTHORIZED
from tests.broker.world import Client, World
from tests.support.properties import properties

GO_ON = 0x18


class Table(Link):
    """Passwords from a table, and what else a test needs: banned users, waiting, failing."""

    def __init__(self, name: str, passwords: dict[str, bytes], threads: int = 0) -> None:
        super().__init__(name)
        self.passwords = passwords
        self.asked: list[str | None] = []
        self.is_broken = False
        self._threads = threads

    @property
    def threads(self) -> int:
        return self._threads

    def step(self, request: AuthRequest) -> Answer:
        self.asked.append(request.user_name)
        if self.is_broken:
            raise RuntimeError("the table has fallen")
        if request.method is not None or request.user_name not in self.passwords:
            return NOT_MINE
        if self.passwords[request.user_name] == b"":
            return refuse(BANNED, "for ever")
        if request.password != self.passwords[request.user_name]:
            return refuse(BAD_USER_NAME_OR_PASSWORD)
        return grant()

    def renew(self, request: AuthRequest, identity: Identity) -> Answer:
        self.asked.append(f"again {identity.user_name}")
        if self.is_broken:
            raise RuntimeError("the table has fallen")
        return grant(identity=identity) if identity.user_name in self.passwords else NOT_MINE


class Riddle(Link):
    """Asks whoever uses its method for its own name, twice."""

    def __init__(self, name: str, method: str, knows: str = "") -> None:
        super().__init__(name)
        self._method = method
        self._knows = knows

    @property
    def methods(self) -> frozenset[str]:
        return frozenset({self._method})

    def step(self, request: AuthRequest) -> Answer:
        if request.method is None:
            return NOT_MINE
        data = (request.data or b"").decode()
        if request.state is None:
            return go_on(self.name.encode(), [data]) if data.startswith(self._knows) else NOT_MINE
        assert isinstance(request.state, list)
        if data != self.name:
            return refuse(NOT_AUTHORIZED, detail="no idea")
        if len(request.state) == 1:
            return go_on(self.name.encode(), [*request.state, "once more"])
        return grant(b"welcome", request.state[0])


def request(
    user_name: str | None = None,
    password: bytes | None = None,
    *,
    method: str | None = None,
    certificate: PeerCertificate | None = None,
    renewed: Identity | None = None,
) -> AuthRequest:
    return AuthRequest(
        method,
        None,
        "c",
        user_name,
        password,
        "192.0.2.1:7",
        False,
        None,
        certificate=certificate,
        renewed=renewed,
    )


def chain() -> Chain:
    return Chain(
        [
            Table("first", {"ada": b"1", "eve": b""}),
            Table("second", {"ada": b"2", "bob": b"2"}),
            AnonymousLink(is_alone=False),
        ]
    )


@pytest.mark.parametrize(
    ("user_name", "password", "source"),
    [("ada", b"1", "first"), ("bob", b"2", "second"), (None, None, "anonymous")],
)
def test_the_first_link_that_knows_the_client_grants(
    user_name: str | None, password: bytes | None, source: str
) -> None:
    reply = chain().step(request(user_name, password))
    assert reply.kind == GRANT
    assert reply.identity is not None
    assert (reply.identity.user_name, reply.identity.source) == (user_name, source)


@pytest.mark.parametrize(
    ("user_name", "password", "code", "detail"),
    [
        ("ada", b"2", BAD_USER_NAME_OR_PASSWORD, ""),  # right in the second, which is not asked
        ("eve", b"", BANNED, ""),
        ("joe", b"1", BAD_USER_NAME_OR_PASSWORD, "no authenticator knows this user"),
        # Whoever says something about itself is not anonymous, however little it is.
        ("joe", None, BAD_USER_NAME_OR_PASSWORD, "no authenticator knows this user"),
        ("", None, BAD_USER_NAME_OR_PASSWORD, "no authenticator knows this user"),
        (None, b"1", BAD_USER_NAME_OR_PASSWORD, "a user name is needed"),
    ],
)
def test_the_first_link_that_knows_the_client_refuses(
    user_name: str | None, password: bytes | None, code: int, detail: str
) -> None:
    reply = chain().step(request(user_name, password))
    assert (reply.kind, reply.reason_code, reply.detail) == (REFUSE, code, detail)


def test_a_client_with_a_method_is_not_anonymous() -> None:
    assert chain().step(request(method="X")).kind == REFUSE
    assert Chain([AnonymousLink(is_alone=True)]).step(request(method="X")).kind == REFUSE


def test_without_authenticators_a_user_name_proves_nothing() -> None:
    reply = Chain([AnonymousLink(is_alone=True)]).step(request("admin", b"x"))
    assert reply.kind == GRANT
    assert reply.identity is not None
    assert reply.identity.user_name is None


def test_a_link_that_fails_does_not_hand_its_clients_to_the_next() -> None:
    broken = Table("broken", {})
    broken.is_broken = True
    with pytest.raises(RuntimeError):
        Chain([broken, Table("next", {"ada": b"1"})]).step(request("ada", b"1"))


# Exchanges with a method.


def said(method: str, data: bytes) -> Properties:
    return properties(authentication_method=method, authentication_data=data)


def connect(world: World, method: str, data: bytes) -> Client:
    return world.connect("c", properties=said(method, data))


def answer(client: Client, method: str) -> None:
    """Say what was asked for."""
    (packet,) = client.packets()
    assert isinstance(packet, Auth)
    assert packet.properties is not None
    client.send(Auth(GO_ON, said(method, packet.properties.authentication_data or b"")))


def identity_of(client: Client) -> Identity:
    identity = client.connection.identity
    assert identity is not None
    return identity


def test_the_link_that_began_an_exchange_goes_on_with_it() -> None:
    links = [Riddle("one", "R", "ada"), Riddle("two", "R", "bob"), Riddle("other", "S")]
    world = World(authenticator=Chain(links))
    assert world.rules.auth_methods == frozenset({"R", "S"})
    for method, name, source in [("R", b"ada", "one"), ("R", b"bob", "two"), ("S", b"x", "other")]:
        client = connect(world, method, name)
        answer(client, method)
        answer(client, method)
        assert client.received()[0].startswith("CONNACK 0x00")
        assert identity_of(client).source == source
        assert identity_of(client).user_name == name.decode()
    assert connect(world, "R", b"joe").received() == ["CONNACK 0x86"]
    assert connect(world, "T", b"ada").received() == ["CONNACK 0x8C"]


def test_a_link_cannot_ask_what_a_client_without_method_cannot_answer() -> None:
    class Asking(Table):
        def step(self, request: AuthRequest) -> Answer:
            return go_on(b"?", None)

    world = World(authenticator=Chain([Asking("asking", {})]))
    client = world.dial()
    client.send(Connect("c", 5, True, 0, None, "ada", b"1"))
    assert client.received() == ["CONNACK 0x83"]


# Renewals.


def log_in(world: World, client_id: str, user_name: str, password: bytes) -> Client:
    client = world.dial()
    client.send(Connect(client_id, 5, True, 0, None, user_name, password))
    assert client.received() == ["CONNACK 0x00"]
    return client


def renew(world: World) -> None:
    world.broker.begin_turn(world.now_ms)
    world.broker.renew_identities()
    world.run()


def test_the_link_that_let_a_client_in_is_asked_whether_it_may_stay() -> None:
    first, second = Table("first", {"ada": b"1"}), Table("second", {"bob": b"2", "cy": b"3"})
    world = World(authenticator=Chain([first, second]))
    ada = log_in(world, "a", "ada", b"1")
    bob, cy = log_in(world, "b", "bob", b"2"), log_in(world, "c", "cy", b"3")
    first.asked.clear()
    second.asked.clear()
    del second.passwords["bob"]
    renew(world)
    assert first.asked == ["again ada"]
    assert second.asked == ["again bob", "again cy"]
    assert bob.received() == ["DISCONNECT 0x87"]
    assert ada.received() == cy.received() == []


def test_a_client_stays_when_its_link_cannot_be_asked(caplog: pytest.LogCaptureFixture) -> None:
    table = Table("table", {"ada": b"1"})
    world = World(authenticator=Chain([table]))
    ada = log_in(world, "a", "ada", b"1")
    table.is_broken = True
    with caplog.at_level(logging.ERROR, "holdfast"):
        renew(world)
    assert ada.received() == []
    assert "the table has fallen" in caplog.text


def test_a_client_goes_when_its_link_is_not_there_any_more() -> None:
    reply = chain().step(request("ada", renewed=Identity("ada", "another")))
    assert (reply.kind, reply.reason_code) == (REFUSE, NOT_AUTHORIZED)


# Lanes.


def test_a_request_goes_from_lane_to_lane() -> None:
    links = [
        Table("hashes", {"ada": b"1"}),
        Table("slow", {"bob": b"2"}, threads=3),
        Table("slower", {}, threads=1),
        Table("more", {"cy": b"3"}),
    ]
    chain = Chain(links)
    assert chain.lanes == {"slow": 3, "slower": 1}

    def lanes(request: AuthRequest) -> tuple[list[str], AuthReply]:
        walk, seen = chain.walk(request), []
        while True:
            seen.append(walk.lane)
            reply = walk.advance()
            if reply is not None:
                return seen, reply

    assert lanes(request("ada", b"1"))[0] == [""]
    assert lanes(request("bob", b"2"))[0] == ["", "slow"]
    assert lanes(request("cy", b"3"))[0] == ["", "slow", "slower", ""]
    assert lanes(request(renewed=Identity("bob", "slow")))[0] == ["slow"]
    seen, reply = lanes(request("joe", b""))
    assert seen == ["", "slow", "slower", ""]
    assert reply.kind == REFUSE


def test_the_last_lane_answers_too() -> None:
    chain = Chain([Table("slow", {}, threads=1)])
    assert chain.step(request("joe")).reason_code == BAD_USER_NAME_OR_PASSWORD
    assert Chain([]).step(request("joe")).reason_code == BAD_USER_NAME_OR_PASSWORD


# Certificates.


@pytest.mark.parametrize(
    ("user_name", "ignores", "expected"),
    [
        (None, False, "meter-7"),
        ("meter-7", False, "meter-7"),
        ("admin", True, "meter-7"),
        ("admin", False, None),
        ("", False, None),
    ],
)
def test_a_certificate_names_the_user(
    user_name: str | None, ignores: bool, expected: str | None
) -> None:
    link = CertificateLink("certificate", ignores_user_name=ignores)
    certificate = PeerCertificate("meter-7", "meter-7", fingerprint="ab" * 32)
    reply = Chain([link]).step(request(user_name, certificate=certificate))
    if expected is None:
        assert (reply.kind, reply.reason_code) == (REFUSE, BAD_USER_NAME_OR_PASSWORD)
    else:
        assert reply.identity is not None
        assert reply.identity.user_name == expected
        assert reply.identity.attributes["certificate_fingerprint"] == "ab" * 32


@pytest.mark.parametrize("certificate", [None, PeerCertificate("")])
def test_a_client_without_certificate_or_name_in_it_is_for_the_next_link(
    certificate: PeerCertificate | None,
) -> None:
    links = [CertificateLink("certificate", ignores_user_name=False), Table("t", {"ada": b"1"})]
    assert Chain(links).step(request("ada", b"1", certificate=certificate)).kind == GRANT
    assert Chain(links).step(request(certificate=certificate)).kind == REFUSE
