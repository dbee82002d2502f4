"""Who the client is: SCRAM and tokens, against Holdfast and against servers that are not it."""

import asyncio
import time
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast import (
    Authentication,
    Client,
    ConnectionLost,
    Exchange,
    HoldfastError,
    ProtocolError,
    Reconnect,
    Refused,
    Scram,
    Server,
    Token,
    UsageError,
)
from holdfast.client.authentication import SCRAM_METHODS, ScramMethod
from holdfast.protocol.packets import Auth, Connack, Connect, Disconnect, Packet
from tests.client.peer import LOOPS, run
from tests.client.scripted import Scripted, Talk, accept, asked, auth, said
from tests.support.scram import attributes, made
from tests.support.scripted_server import Peer
from tests.support.tokens import token

SECRET = b"a secret of 32 bytes at the least"
QUICKLY = Reconnect(delay_min_s=0.001, delay_max_s=0.01)


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


@pytest.fixture
def scram(tmp_path: Path) -> dict[str, object]:
    """The settings of a server with SCRAM: a user for each method, with the same password."""
    file = tmp_path / "passwords"
    lines = [f"{method[-3:]}:{made(method, 'lovelace')}" for method in SCRAM_METHODS]
    lines.append(f"zoë,=:{made('SCRAM-SHA-256', 'IX')}")
    file.write_text("\n".join(lines), encoding="utf-8")
    return {"authenticators": [{"kind": "scram", "file": str(file)}]}


@pytest.fixture
def jwt(tmp_path: Path) -> dict[str, object]:
    """The settings of a server that takes tokens."""
    file = tmp_path / "secret"
    file.write_bytes(SECRET)
    file.chmod(0o600)
    return {"authenticators": [{"kind": "jwt", "algorithms": ["HS256"], "secret_file": str(file)}]}


def fresh(user: str = "ada", expires_in_s: float = 3600) -> bytes:
    return token({"sub": user, "exp": int(time.time() + expires_in_s)}, SECRET, "HS256")


# --- SCRAM


@pytest.mark.spec("MQTT5-4.12.0-3", "MQTT5-4.12.0-5", "MQTT5-4.12.1-1")
@pytest.mark.parametrize("method", SCRAM_METHODS)
def test_scram_with_each_method(loop: str, scram: dict[str, object], method: ScramMethod) -> None:
    user = method[-3:]

    async def work() -> None:
        async with Server(settings=scram) as server:
            async with Client(server.url, auth=Scram(user, "lovelace", method)) as client:
                receipt = await client.publish("a", b"1", qos=1)
                await receipt
                await client.reauthenticate()
                await asyncio.gather(client.reauthenticate(), client.reauthenticate())
                await (await client.publish("a", b"2", qos=1))
            # The same from the URL, with a name for it.
            url = server.url.replace("://", f"://{user}:lovelace@")
            async with Client(url, auth=method) as client:
                assert client.connack is not None
                assert client.connack.reason_code == 0

    run(loop, work())


def test_names_and_passwords_are_in_the_form_of_saslprep(
    loop: str, scram: dict[str, object]
) -> None:
    async def work() -> None:
        async with (
            Server(settings=scram) as server,
            Client(server.url, auth=Scram("zoë,=", "\u2168")),
        ):
            pass

    run(loop, work())


@pytest.mark.parametrize(
    ("user", "password", "method"),
    [
        ("256", "Lovelace", "SCRAM-SHA-256"),
        ("nobody", "lovelace", "SCRAM-SHA-256"),
        ("256", "lovelace", "SCRAM-SHA-512"),
    ],
)
def test_a_wrong_password_is_refused(
    loop: str, scram: dict[str, object], user: str, password: str, method: ScramMethod
) -> None:
    async def work() -> None:
        async with Server(settings=scram) as server:
            client = Client(server.url, auth=Scram(user, password, method))
            with pytest.raises(Refused) as refused:
                await client.open()
            assert refused.value.reason_code == 0x87
            assert password not in str(refused.value)

    run(loop, work())


def challenge(first: bytes | None, iterations: int = 4096) -> bytes:
    """What a server that knows nothing can say to a client's first message."""
    assert first is not None
    nonce = attributes(first.removeprefix(b"n,,"))["r"]
    salt = b64encode(b"salt of 16 bytes").decode()
    return f"r={nonce}more,s={salt},i={iterations}".encode()


async def impostor(peer: Peer, connect: Connect) -> None:
    """Go through the exchange, and let the client in with a proof that is none."""
    peer.send(auth(0x18, "SCRAM-SHA-256", challenge(asked(connect))))
    proof = await peer.next(Auth)
    assert proof.reason_code == 0x18
    peer.send(Connack(False, 0, said("SCRAM-SHA-256", b"v=" + b64encode(b"p" * 32))))


@pytest.mark.spec("MQTT5-3.1.2-30")
def test_a_server_without_proof_gets_nothing(loop: str) -> None:
    """Not a message of those that wait, and no ping: it does not know the password."""
    heard: list[Packet] = []

    def serve(answer: Talk) -> Talk:
        async def talk(peer: Peer, connect: Connect) -> None:
            assert (connect.user_name, connect.password) == (None, None)
            await answer(peer, connect)
            heard.extend(await peer.rest())

        return talk

    async def at_once(peer: Peer, connect: Connect) -> None:
        peer.send(Connack(False, 0, said("SCRAM-SHA-256", None)))

    async def of_another_method(peer: Peer, connect: Connect) -> None:
        peer.send(Connack(False, 0, said("JWT", None)))

    async def work() -> None:
        for answer in (impostor, at_once, of_another_method):
            async with Scripted(serve(answer)) as server:
                client = Client(server.url, auth=Scram("ada", "lovelace"))
                opening = asyncio.ensure_future(client.open())
                await asyncio.sleep(0)
                client.publish_nowait("a", b"secret", qos=1)
                client.publish_nowait("a", b"secret", qos=0)
                with pytest.raises(ProtocolError):
                    await opening
            assert all(isinstance(packet, Disconnect) for packet in heard), heard

    run(loop, work())


@pytest.mark.parametrize(
    "answer",
    [
        lambda first: auth(0x18, "SCRAM-SHA-256", challenge(first, 1)),
        lambda first: auth(0x18, "SCRAM-SHA-256", challenge(first, 4095)),
        lambda first: auth(0x18, "SCRAM-SHA-256", challenge(first, 10**9)),
        lambda first: auth(0x18, "SCRAM-SHA-256", b"r=mine,s=c2FsdCBvZiAxNiBieXRlcw==,i=4096"),
        lambda first: auth(0x18, "SCRAM-SHA-256", b"\xff"),
        lambda first: auth(0x18, "SCRAM-SHA-256", None),
        lambda first: auth(0x18, "SCRAM-SHA-1", challenge(first)),
        lambda first: auth(0x00, "SCRAM-SHA-256", challenge(first)),
        lambda first: auth(0x19, "SCRAM-SHA-256", challenge(first)),
    ],
)
def test_a_challenge_that_is_none_ends_the_connection(
    loop: str, answer: Callable[[bytes | None], Auth]
) -> None:
    async def talk(peer: Peer, connect: Connect) -> None:
        peer.send(answer(asked(connect)))
        assert await peer.rest() == []

    async def work() -> None:
        async with Scripted(talk) as server:
            with pytest.raises(ProtocolError):
                await Client(server.url, auth=Scram("ada", "lovelace")).open()

    run(loop, work())


def test_two_challenges_at_once_end_the_connection(loop: str) -> None:
    async def talk(peer: Peer, connect: Connect) -> None:
        for _ in range(2):
            peer.send(auth(0x18, "SCRAM-SHA-256", challenge(asked(connect))))
        assert await peer.rest() == []

    async def work() -> None:
        async with Scripted(talk) as server:
            with pytest.raises(ProtocolError):
                await Client(server.url, auth=Scram("ada", "lovelace")).open()

    run(loop, work())


@pytest.mark.spec("MQTT5-4.12.0-7")
def test_without_a_method_there_is_no_auth(loop: str) -> None:
    async def talk(peer: Peer, connect: Connect) -> None:
        peer.send(Connack(False, 0))
        peer.send(auth(0x18, "JWT", b"?"))
        packet = await peer.next(Disconnect)
        assert packet.reason_code == 0x82
        assert await peer.rest() == []

    async def work() -> None:
        ended: asyncio.Queue[HoldfastError] = asyncio.Queue()
        async with (
            Scripted(talk, accept) as server,
            Client(
                server.url,
                reconnect=QUICKLY,
                on_disconnect=lambda _, error: ended.put_nowait(error),
            ) as client,
        ):
            assert isinstance(await ended.get(), ProtocolError)
            with pytest.raises(UsageError, match="with a method"):
                await client.reauthenticate()

    run(loop, work())


# --- tokens


@pytest.mark.parametrize("version", ["5.0", "3.1.1"])
def test_a_token_as_the_password(loop: str, jwt: dict[str, object], version: str) -> None:
    async def slowly() -> bytes:
        await asyncio.sleep(0)
        return fresh()

    async def work() -> None:
        async with Server(settings=jwt) as server:
            for source in (fresh(), fresh().decode(), fresh, slowly, lambda: (fresh(), 3600)):
                async with Client(
                    server.url,
                    version="5.0" if version == "5.0" else "3.1.1",
                    auth=Token(source),
                ) as client:
                    await (await client.publish("a", qos=1))
            with pytest.raises(Refused) as refused:
                await Client(server.url, auth=Token(fresh(expires_in_s=-3600))).open()
            assert refused.value.reason_code == 0x86

    run(loop, work())


def test_a_token_with_a_method_is_shown_anew(loop: str, jwt: dict[str, object]) -> None:
    users = ["ada"]

    async def work() -> None:
        async with Server(settings=jwt) as server:
            auth = Token(lambda: fresh(users[-1]), method="JWT")
            async with Client(server.url, auth=auth, reconnect=QUICKLY) as client:
                await client.reauthenticate()
                users.append("bob")
                with pytest.raises(Refused) as refused:
                    await client.reauthenticate()  # of somebody else
                assert refused.value.reason_code == 0x87
                await client.connected()  # as bob, now

    run(loop, work())


def test_each_connection_has_a_fresh_token(loop: str) -> None:
    count = iter(range(10))

    async def shortly(peer: Peer, connect: Connect) -> None:
        peer.send(Connack(False, 0))

    async def work() -> None:
        connected: asyncio.Queue[Client] = asyncio.Queue()
        async with Scripted(shortly, shortly, accept) as server:
            auth = Token(lambda: f"token {next(count)}")
            async with Client(
                server.url,
                user_name="ada",
                auth=auth,
                reconnect=QUICKLY,
                on_connect=connected.put_nowait,
            ):
                for _ in range(3):
                    await connected.get()
        passwords = [connect.password for connect in server.connects]
        assert passwords == [b"token 0", b"token 1", b"token 2"]
        assert {connect.user_name for connect in server.connects} == {"ada"}

    run(loop, work())


def test_a_token_is_renewed_before_it_ends(loop: str) -> None:
    count = iter(range(10))
    shown: list[bytes | None] = []
    done = asyncio.Event()

    async def talk(peer: Peer, connect: Connect) -> None:
        shown.append(asked(connect))
        peer.send(Connack(False, 0, said("JWT", None)))
        for _ in range(3):
            packet = await peer.next(Auth)
            assert packet.reason_code == 0x19
            assert packet.properties is not None
            assert packet.properties.authentication_method == "JWT"
            shown.append(packet.properties.authentication_data)
            peer.send(auth(0, "JWT", None))
        done.set()
        await peer.lost()

    async def work() -> None:
        async with (
            Scripted(talk) as server,
            Client(server.url, auth=Token(lambda: (f"token {next(count)}", 0.02), method="JWT")),
        ):
            await done.wait()
        assert shown == [b"token 0", b"token 1", b"token 2", b"token 3"]

    run(loop, work())


def test_a_token_that_cannot_be_had(loop: str, jwt: dict[str, object]) -> None:
    answers: list[object] = [OSError("s3cret"), 5, "", fresh(), OSError("s3cret"), fresh()]

    async def source() -> bytes:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer  # type: ignore[return-value]  # wrong on purpose

    async def work() -> None:
        async with Server(settings=jwt) as server:
            auth = Token(source, method="JWT")
            with pytest.raises(ConnectionLost, match="no credentials: OSError") as lost:
                await Client(server.url, auth=auth).open()
            assert "s3cret" not in str(lost.value)
            for _ in range(2):
                with pytest.raises(UsageError, match="expected a token"):
                    await Client(server.url, auth=auth).open()
            async with Client(server.url, auth=auth) as client:
                with pytest.raises(ConnectionLost, match="no credentials: OSError"):
                    await client.reauthenticate()
                assert client.is_connected  # The server knows nothing of it.
                await client.reauthenticate()

    run(loop, work())


def test_a_token_that_takes_too_long(loop: str) -> None:
    async def never() -> str:
        await asyncio.get_running_loop().create_future()
        return ""

    async def work() -> None:
        with pytest.raises(ConnectionLost, match=r"no credentials within 0\.02 s"):
            await Client("mqtt://127.0.0.1", auth=Token(never), connect_timeout_s=0.02).open()

    run(loop, work())


# --- proving it again


def test_a_server_that_does_not_answer_again_is_left(loop: str) -> None:
    async def work() -> None:
        async with Scripted(accept) as server:
            client = Client(
                server.url,
                auth=Token("token", method="JWT"),
                connect_timeout_s=0.1,
                reconnect=QUICKLY,
            )
            async with client:
                with pytest.raises(ConnectionLost, match=r"no answer to AUTH within 0\.1 s"):
                    await client.reauthenticate()
                await client.connected()

    run(loop, work())


def test_the_end_of_the_connection_ends_it(loop: str) -> None:
    async def hang_up(peer: Peer, connect: Connect) -> None:
        peer.send(Connack(False, 0))
        await peer.next(Auth)

    async def work() -> None:
        async with Scripted(hang_up, accept) as server:
            client = Client(
                server.url,
                auth=Token("token", method="JWT"),
                reconnect=Reconnect(delay_min_s=3600, delay_max_s=3600),
            )
            async with client:
                with pytest.raises(ConnectionLost):
                    await client.reauthenticate()
                with pytest.raises(ConnectionLost, match="not connected"):
                    await client.reauthenticate()

    run(loop, work())


def test_whoever_gives_up_waiting_leaves_it_under_way(loop: str, jwt: dict[str, object]) -> None:
    async def work() -> None:
        async with (
            Server(settings=jwt) as server,
            Client(server.url, auth=Token(fresh, method="JWT")) as client,
        ):
            task = asyncio.ensure_future(client.reauthenticate())
            await asyncio.sleep(0)
            task.cancel()
            await client.reauthenticate()
            assert client.is_connected

    run(loop, work())


def test_a_way_of_ones_own(loop: str) -> None:
    class Riddle(Authentication):
        method = "RIDDLE"

        async def begin(self) -> Exchange:
            return Answers(b"hello")

    class Answers(Exchange):
        async def answer(self, challenge: bytes | None) -> bytes | None:
            return None if challenge is None else challenge[::-1]

    async def talk(peer: Peer, connect: Connect) -> None:
        for question, answer in ((b"abc", b"cba"), (None, None)):
            peer.send(auth(0x18, "RIDDLE", question))
            packet = await peer.next(Auth)
            assert packet.properties is not None
            assert packet.properties.authentication_data == answer
        peer.send(Connack(False, 0, said("RIDDLE", b"right")))
        await peer.lost()

    async def work() -> None:
        async with Scripted(talk) as server, Client(server.url, auth=Riddle()):
            pass

    run(loop, work())


# --- what can never work


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: Client(auth="SCRAM-SHA-256"), "takes a user name and a password"),
        (lambda: Client(auth="SCRAM-SHA-256", user_name="a"), "takes a user name and a password"),
        (
            lambda: Client(auth="SCRAM-SHA-256", user_name="a", password=b"\xff"),
            "a password of text",
        ),
        (lambda: Scram("a", "b", "SCRAM-MD5"), "expected one of"),  # type: ignore[arg-type]  # wrong
        (lambda: Scram("a", "s3cret\0"), "SASLprep"),
        (lambda: Scram("a\u0007", "s3cret"), "SASLprep"),
        (lambda: Client(version="3.1.1", auth=Scram("a", "b")), "SCRAM-SHA-256 takes MQTT 5.0"),
        (lambda: Client(password="a", auth=Token("b")), "and a password are given"),
        (lambda: Client("mqtt://h", headers={"a": "b"}), "expected ws:// or wss://"),
    ],
)
def test_what_can_never_work(make: Callable[[], object], expected: str) -> None:
    with pytest.raises(UsageError, match=expected) as wrong:
        make()
    assert "s3cret" not in str(wrong.value)


def test_nothing_secret_is_shown() -> None:
    assert "lovelace" not in repr(Scram("ada", "lovelace"))
    assert "lovelace" not in repr(Token("lovelace"))
