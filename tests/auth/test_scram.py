"""SCRAM: the vectors of the RFCs, whole exchanges through the broker, and everything wrong."""

from base64 import b64decode, b64encode
from pathlib import Path

import pytest
import scramp  # type: ignore[import-untyped]  # it has no types
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.auth.building import build_access
from holdfast.auth.chain import Chain
from holdfast.auth.link import NOT_MINE
from holdfast.auth.password_file import ScramVerifier
from holdfast.auth.scram import MESSAGE_BYTES_MAX, ScramLink
from holdfast.auth.verifiers import METHODS, new_decoy_line, prepared
from holdfast.broker.authentication import CONTINUE, GRANT, REFUSE, AuthReply, AuthRequest
from holdfast.config import Settings
from holdfast.config.authenticators import ScramSettings
from holdfast.errors import ConfigError
from holdfast.message import Properties
from holdfast.protocol.packets import Auth, Connack, Connect, Disconnect, Packet
from tests.broker.world import Client, World
from tests.support.properties import properties
from tests.support.scram import ScramClient, attributes, made

BEGIN, GO_ON = 0x19, 0x18
SHA256 = "SCRAM-SHA-256"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "passwords"
    write(path, {"ada": made(SHA256, "lovelace"), "bob": made(SHA256, "builder")})
    return path


@pytest.fixture
def server(file: Path) -> ScramLink:
    return ready(ScramLink("scram", file))


def write(path: Path, verifiers: dict[str, ScramVerifier], *lines: str) -> None:
    entries = [f"{user}:{verifier}" for user, verifier in verifiers.items()]
    path.write_text("\n".join([*entries, *lines]), encoding="utf-8")


def ready(link: ScramLink) -> ScramLink:
    link.reload()
    return link


def link_to(path: Path, user: str, verifier: ScramVerifier, nonce: str | None = None) -> ScramLink:
    write(path, {user: verifier})
    return ready(ScramLink("scram", path, nonce=None if nonce is None else lambda: nonce))


def reply_of(link: ScramLink, request: AuthRequest) -> AuthReply:
    answer = link.step(request)
    assert isinstance(answer, AuthReply)
    return answer


def request(
    data: bytes | None,
    state: object | None = None,
    *,
    method: str = SHA256,
    user_name: str | None = None,
) -> AuthRequest:
    return AuthRequest(method, data, "c", user_name, None, "192.0.2.1:1", False, state)


def exchange(server: ScramLink, client: ScramClient) -> AuthReply:
    begun = reply_of(server, request(client.first(), method=client.method))
    assert begun.kind == CONTINUE
    assert begun.data is not None
    proof = client.final(begun.data)
    return reply_of(server, request(proof, begun.state, method=client.method))


# The RFCs.


@pytest.mark.parametrize(
    ("method", "salt", "server_nonce", "messages"),
    [
        (
            "SCRAM-SHA-1",
            "QSXCR+Q6sek8bf92",
            "3rfcNHYJY1ZVvWVs7j",
            (
                "n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL",
                "r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
                (
                    "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,"
                    "p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts="
                ),
                "v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
            ),
        ),
        (
            SHA256,
            "W22ZaJ0SNY7soEsUEjb6gQ==",
            "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
            (
                "n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
                (
                    "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
                    "s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
                ),
                (
                    "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
                    "p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
                ),
                "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
            ),
        ),
    ],
    ids=["RFC 5802", "RFC 7677"],
)
def test_the_example_of_the_rfc(
    file: Path, method: str, salt: str, server_nonce: str, messages: tuple[str, ...]
) -> None:
    verifier = made(method, "pencil", b64decode(salt))
    server = link_to(file, "user", verifier, server_nonce)
    begun = reply_of(server, request(messages[0].encode(), method=method))
    assert begun.data == messages[1].encode()
    done = reply_of(server, request(messages[2].encode(), begun.state, method=method))
    assert (done.kind, done.data) == (GRANT, messages[3].encode())
    assert done.identity is not None
    assert done.identity.user_name == "user"
    client = ScramClient("user", "pencil", method, messages[0].rpartition("r=")[2])
    assert client.first() == messages[0].encode()
    assert client.final(messages[1].encode()) == messages[2].encode()
    assert client.is_server(messages[3].encode())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("header", ["n,,", "y,,"])
def test_both_ends_prove_themselves(file: Path, method: str, header: str) -> None:
    server = link_to(file, "a=b,c", made(method, "pass,word="))
    client = ScramClient("a=b,c", "pass,word=", method, header=header)
    done = exchange(server, client)
    assert done.kind == GRANT
    assert client.is_server(done.data)
    assert done.identity is not None
    assert done.identity.user_name == "a=b,c"


@pytest.mark.parametrize("method", METHODS)
def test_another_client_is_served(file: Path, method: str) -> None:
    """The library's own, which prepares names and passwords; the name is as the file has it."""
    server = link_to(file, "Ⅸ", made(method, prepared("pass\u00adword")))
    client = scramp.ScramClient([method], "IX", "pass\u00adword")
    begun = reply_of(server, request(client.get_client_first().encode(), method=method))
    assert begun.data is not None
    client.set_server_first(begun.data.decode())
    done = reply_of(server, request(client.get_client_final().encode(), begun.state, method=method))
    assert done.data is not None
    client.set_server_final(done.data.decode())
    assert done.identity is not None
    assert done.identity.user_name == "Ⅸ"


# Who is not let in.


def is_refusal(reply: AuthReply) -> bool:
    """The one answer to all that is wrong, which says nothing about what."""
    what = (reply.kind, reply.reason_code, reply.reason, reply.data, reply.identity, reply.state)
    return what == (REFUSE, 0x87, "the SCRAM authentication has failed", None, None, None)


def test_a_wrong_password_is_refused(server: ScramLink) -> None:
    assert is_refusal(exchange(server, ScramClient("ada", "Lovelace")))


def test_the_operator_is_told_more_than_the_client(server: ScramLink) -> None:
    told = {
        exchange(server, ScramClient(name, "x")).detail: name for name in ("ada", "eve", "mallory")
    }
    told[reply_of(server, request(b"nonsense")).detail] = ""
    assert told == {
        "wrong password": "ada",
        "no such user with this method": "mallory",
        "malformed message": "",
    }


def salt_for(server: ScramLink, name: str, method: str = SHA256) -> str:
    begun = reply_of(server, request(ScramClient(name, "x", method).first(), method=method))
    assert begun.kind == CONTINUE
    assert begun.data is not None
    parts = attributes(begun.data)
    assert (list(parts), parts["i"]) == (["r", "s", "i"], "4096")
    assert len(parts["s"]) == len(b64encode(bytes(16)))
    return parts["s"]


def test_an_unknown_user_looks_like_a_known_one(file: Path) -> None:
    users = {"ada": made(SHA256, "lovelace"), "bob": made(SHA256, "builder", iterations=4097)}
    users |= {"cyd": made(SHA256, "charisse", salt=bytes(range(16)))}
    write(file, users, new_decoy_line())
    server = ready(ScramLink("scram", file))
    seen = [salt_for(server, name) for name in ("ada", "cyd", "eve", "mallory")]
    assert len(set(seen)) == 4
    assert is_refusal(exchange(server, ScramClient("eve", "x")))
    # Neither time nor a reload nor a restart tells them apart.
    assert salt_for(server, "eve") == seen[2]
    server.reload()
    assert salt_for(server, "eve") == seen[2]
    assert salt_for(ready(ScramLink("scram", file)), "eve") == seen[2]
    # Only the one in the file knows the key.
    write(file, users)
    assert salt_for(ready(ScramLink("scram", file)), "eve") not in seen


def test_a_user_without_a_verifier_for_the_method_is_as_unknown(server: ScramLink) -> None:
    assert is_refusal(exchange(server, ScramClient("ada", "lovelace", "SCRAM-SHA-512")))


def test_a_decoy_lets_nobody_in(server: ScramLink) -> None:
    """Even a proof that fits its keys is refused: there is no such user."""
    client = scramp.ScramClient([SHA256], "eve", "x")
    begun = reply_of(server, request(client.get_client_first().encode()))
    assert begun.data is not None
    client.set_server_first(begun.data.decode())
    salt = b64decode(attributes(begun.data)["s"])
    begun.state.server.stored_key = made(SHA256, "x", salt).stored_key  # type: ignore[attr-defined]
    proof = client.get_client_final().encode()
    assert is_refusal(reply_of(server, request(proof, begun.state)))


def test_other_methods_are_not_ours(file: Path) -> None:
    server = ready(ScramLink("scram", file, methods=[SHA256]))
    assert server.methods == {SHA256}
    first = ScramClient("ada", "lovelace").first()
    for method in ("SCRAM-SHA-1", "JWT"):
        assert server.step(request(first, method=method)) is NOT_MINE


@pytest.mark.parametrize(
    "message",
    [
        None,
        b"",
        b"ada",
        b"n,,n=ada",
        b"n,,r=abc",
        b"n,,n=,r=abc",
        b"n,,n=ada,r=",
        b"n,,r=abc,n=ada",
        b"n,,n=ada,r=a c",
        b"n,,n=a=b,r=abc",
        b"n,,n=ada,n=bob,r=abc",
        b"n,,m=x,n=ada,r=abc",
        b"n,a=bob,n=ada,r=abc",
        b"p=tls-unique,,n=ada,r=abc",
        b"p=tls-exporter,,n=ada,r=abc",
        b"x,,n=ada,r=abc",
        b"n,,n=a\x00,r=abc",
        b"n,,n=\xff,r=abc",
        b"n,,n=\xed\xa0\x80,r=abc",
        "n,,n=\u0627a,r=abc".encode(),
        b"n,,n=ada,r=" + b"x" * MESSAGE_BYTES_MAX,
    ],
)
def test_a_first_message_that_is_none_is_refused(server: ScramLink, message: bytes | None) -> None:
    assert is_refusal(reply_of(server, request(message)))


def test_a_proof_holds_for_its_own_challenge_alone(server: ScramLink) -> None:
    clients = [ScramClient("ada", "lovelace", nonce="abc") for _ in range(2)]
    begun = [reply_of(server, request(client.first())) for client in clients]
    proofs = []
    for client, reply in zip(clients, begun, strict=True):
        assert reply.data is not None
        proofs.append(client.final(reply.data))
    assert is_refusal(reply_of(server, request(proofs[1], begun[0].state)))
    assert reply_of(server, request(proofs[1], begun[1].state)).kind == GRANT
    again = reply_of(server, request(clients[0].first()))
    assert is_refusal(reply_of(server, request(proofs[0], again.state)))


def final_with(server: ScramLink, change: tuple[bytes, bytes]) -> AuthReply:
    client = ScramClient("ada", "lovelace")
    begun = reply_of(server, request(client.first()))
    assert begun.data is not None
    final = client.final(begun.data)
    assert change[0] in final
    return reply_of(server, request(final.replace(*change), begun.state))


@pytest.mark.parametrize(
    "change",
    [
        (b"c=biws", b"c=eSws"),  # the header of one that could have bound the channel
        (b"c=biws", b"c=*"),
        (b"c=biws,", b""),
        (b"p=", b"q="),
        (b",p=", b",p=AAAA"),
        (b",p=", b",p=\xff"),
        (b",r=", b",r=x"),
        (b"c=biws", b"c=biws,c=biws"),
    ],
)
def test_a_last_message_that_was_changed_is_refused(
    server: ScramLink, change: tuple[bytes, bytes]
) -> None:
    assert is_refusal(final_with(server, change))
    assert final_with(server, (b"c=biws", b"c=biws")).kind == GRANT


FIRST = st.binary(max_size=300) | st.text(max_size=80).map(lambda text: f"n,,n={text}".encode())
ATTRIBUTE = st.builds(
    "{}={}".format, st.sampled_from("crpmnesiax"), st.text(max_size=12) | st.just("biws")
)
LAST = st.binary(max_size=300) | st.lists(ATTRIBUTE, max_size=5).map(
    lambda all_: ",".join(all_).encode()
)


@given(FIRST)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_first_message_is_answered(server: ScramLink, data: bytes) -> None:
    reply = reply_of(server, request(data))
    assert is_refusal(reply) or (reply.kind == CONTINUE and reply.data is not None)


@given(LAST)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_last_message_is_refused(server: ScramLink, data: bytes) -> None:
    begun = reply_of(server, request(ScramClient("ada", "lovelace").first()))
    assert is_refusal(reply_of(server, request(data, begun.state)))


def test_no_repr_shows_the_keys(file: Path, server: ScramLink) -> None:
    begun = reply_of(server, request(ScramClient("ada", "lovelace").first()))
    shown = f"{begun.state!r} {server!r} {begun!r} {server._verifiers!r}"
    shown += repr(server._verifiers._users)
    for line in file.read_text().splitlines():
        for secret in line.replace(":", "$").split("$")[3:]:
            assert secret not in shown


# The file.


@pytest.mark.parametrize(
    ("users", "complaint"),
    [
        ({"ada": made(SHA256, "x", salt=b"eight by")}, "a salt of SCRAM-SHA-256 has 8 bytes: ex"),
        ({"\u0627a": made(SHA256, "x")}, "user '\u0627a': expected a name that SASLprep allows"),
        (
            {"IX": made(SHA256, "x"), "Ⅸ": made(SHA256, "x")},
            "users 'IX' and 'Ⅸ': expected names that differ after SASLprep",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_and_the_old_one_stays(
    file: Path, server: ScramLink, users: dict[str, ScramVerifier], complaint: str
) -> None:
    write(file, users)
    with pytest.raises(ConfigError) as caught:
        server.reload()
    assert str(caught.value).startswith(f"{file}: {complaint}")
    assert exchange(server, ScramClient("ada", "lovelace")).kind == GRANT


def test_one_listener_has_one_of_its_kind(file: Path) -> None:
    tables = tuple(ScramSettings(kind="scram", name=name, file=file) for name in ("a", "b"))
    with pytest.raises(ConfigError, match="expected one with SCRAM, these have it: a, b"):
        build_access(Settings(authenticators=tables))
    (chain,) = build_access(Settings(authenticators=tables[:1])).chains.values()
    assert chain.methods == frozenset(METHODS)


# Through the broker.


def said(data: bytes | None, method: str = SHA256) -> Properties:
    return properties(authentication_method=method, authentication_data=data)


def only(packets: list[Packet]) -> Connack | Disconnect | Auth:
    (packet,) = packets
    assert isinstance(packet, Connack | Disconnect | Auth)
    return packet


def data_of(packet: Connack | Disconnect | Auth) -> bytes:
    assert packet.properties is not None
    assert packet.properties.authentication_method == SHA256
    assert packet.properties.authentication_data is not None
    return packet.properties.authentication_data


def prove(client: Client, with_scram: ScramClient) -> Connack | Disconnect | Auth:
    """Answer the challenge; returns what ends the exchange."""
    challenge = only(client.packets())
    assert challenge.reason_code == GO_ON
    client.send(Auth(GO_ON, said(with_scram.final(data_of(challenge)))))
    return only(client.packets())


def connect(world: World, client: ScramClient, user_name: str | None = None) -> Client:
    dialled = world.dial()
    dialled.send(Connect("c", 5, True, 0, None, user_name, None, said(client.first())))
    return dialled


@pytest.mark.spec("MQTT5-4.12.0-2")
@pytest.mark.spec("MQTT5-4.12.0-5")
@pytest.mark.parametrize("user_name", [None, "ada"])
def test_the_proof_of_the_server_is_in_connack(server: ScramLink, user_name: str | None) -> None:
    world = World(authenticator=Chain([server]))
    ada = ScramClient("ada", "lovelace")
    client = connect(world, ada, user_name)
    connack = prove(client, ada)
    assert isinstance(connack, Connack)
    assert connack.reason_code == 0
    assert ada.is_server(data_of(connack))


@pytest.mark.spec("MQTT5-4.12.0-4")
def test_a_wrong_proof_is_refused_in_connack(server: ScramLink) -> None:
    world = World(authenticator=Chain([server]))
    wrong = ScramClient("ada", "hunter2")
    client = connect(world, wrong)
    connack = prove(client, wrong)
    assert isinstance(connack, Connack)
    assert connack.reason_code == 0x87
    assert client.connection.is_closing
    assert world.broker.sessions.count == 0
    assert not any("hunter2" in event.text for event in world.events)


def test_the_user_name_of_connect_has_to_agree(server: ScramLink) -> None:
    for name in ("bob", "", "\u0627a", "ada "):
        world = World(authenticator=Chain([server]))
        client = connect(world, ScramClient("ada", "lovelace"), name)
        assert only(client.packets()).reason_code == 0x87


@pytest.mark.spec("MQTT5-4.12.1-1")
def test_a_client_authenticates_again(server: ScramLink) -> None:
    world = World(authenticator=Chain([server]))
    ada = ScramClient("ada", "lovelace")
    client = connect(world, ada)
    prove(client, ada)
    again = ScramClient("ada", "lovelace")
    client.send(Auth(BEGIN, said(again.first())))
    done = prove(client, again)
    assert isinstance(done, Auth)
    assert done.reason_code == 0
    assert again.is_server(data_of(done))


@pytest.mark.spec("MQTT5-4.12.1-2")
def test_a_client_cannot_become_another_user(server: ScramLink) -> None:
    world = World(authenticator=Chain([server]))
    ada = ScramClient("ada", "lovelace")
    client = connect(world, ada)
    prove(client, ada)
    client.send(Auth(BEGIN, said(ScramClient("bob", "builder").first())))
    goodbye = only(client.packets())
    assert isinstance(goodbye, Disconnect)
    assert goodbye.reason_code == 0x87


@pytest.mark.parametrize("change", ["none", "another user", "gone", "new password"])
def test_who_has_lost_the_password_loses_the_connection(
    file: Path, server: ScramLink, change: str
) -> None:
    world = World(authenticator=Chain([server]))
    ada = ScramClient("ada", "lovelace")
    client = connect(world, ada)
    prove(client, ada)
    lines = file.read_text().splitlines()
    if change == "another user":
        lines[1] = f"eve:{made(SHA256, 'x')}"
    elif change == "gone":
        del lines[0]
    elif change == "new password":
        lines[0] = f"ada:{made(SHA256, 'x')}"
    file.write_text("\n".join(lines))
    server.reload()
    world.broker.renew_identities()
    world.run()
    lost = [packet.reason_code for packet in client.packets() if isinstance(packet, Disconnect)]
    assert lost == ([0x87] if change in ("gone", "new password") else [])


@pytest.mark.parametrize("is_again", [False, True], ids=["CONNECT", "AUTH"])
def test_a_password_taken_back_amid_an_exchange_lets_nobody_in(
    file: Path, server: ScramLink, is_again: bool
) -> None:
    """The proof is right for the verifier that the exchange began with, which is not there now."""
    world = World(authenticator=Chain([server]))
    ada = ScramClient("ada", "lovelace")
    client = connect(world, ada)
    if is_again:
        prove(client, ada)
        ada = ScramClient("ada", "lovelace")
        client.send(Auth(BEGIN, said(ada.first())))
    write(file, {"bob": made(SHA256, "builder")})
    server.reload()
    world.broker.renew_identities()
    if not is_again:
        challenge = data_of(only(client.packets()))
        client.send(Auth(GO_ON, said(ada.final(challenge))))
    world.run()
    goodbye = client.packets()[-1]
    assert isinstance(goodbye, Disconnect)
    assert goodbye.reason_code == 0x87
    assert world.broker.sessions.online == 0
