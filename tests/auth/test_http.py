"""The HTTP call-out, against a real server: what is asked, what is understood, and trouble."""

import json
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import trustme

from holdfast.auth.http import ANSWER_BYTES_MAX, FAILURES_MAX, PAUSE_S, HttpLink, HttpOptions
from holdfast.auth.link import NOT_MINE, Answer
from holdfast.broker.authentication import GRANT, REFUSE, AuthRequest
from holdfast.broker.identity import Identity, PeerCertificate
from holdfast.errors import AuthenticatorUnavailable, ConfigError
from tests.support.http_server import Asked, HttpServer, Said
from tests.support.wire import PATIENCE_S


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


class Scene:
    """A server whose answers the test sets, and links that ask it."""

    def __init__(self, stack: ExitStack) -> None:
        self.says: Callable[[Asked], Said] = lambda _: say(result="allow")
        self.clock = Clock()
        self.server = stack.enter_context(HttpServer(self._answer))
        self._stack = stack

    def _answer(self, asked: Asked) -> Said:
        return self.says(asked)

    def link(self, url: str = "", **options: object) -> HttpLink:
        url = url or f"http://127.0.0.1:{self.server.port}/login?site=7"
        link = HttpLink(
            "http",
            HttpOptions(url, **options),  # type: ignore[arg-type]  # as the test has them
            clock_s=self.clock,
            now_s=self.clock,
        )
        link.reload()
        self._stack.callback(link.close)
        return link


@pytest.fixture
def scene() -> Iterator[Scene]:
    with ExitStack() as stack:
        yield Scene(stack)


def say(**answer: object) -> Said:
    return Said(body=json.dumps(answer).encode())


def request(
    user_name: str | None = "ada",
    password: bytes | None = b"secret",
    *,
    client_id: str = "c",
    address: str = "192.0.2.1:7",
    method: str | None = None,
    certificate: PeerCertificate | None = None,
) -> AuthRequest:
    return AuthRequest(
        method,
        None,
        client_id,
        user_name,
        password,
        address,
        False,
        None,
        "door",
        4,
        certificate,
    )


def identity_of(answer: Answer) -> Identity:
    assert answer is not NOT_MINE
    assert answer.kind == GRANT
    assert answer.identity is not None
    return answer.identity


def test_what_is_asked(scene: Scene) -> None:
    link = scene.link()
    certificate = PeerCertificate("m7", "m7", ("m7.example.org",), fingerprint="ab")
    identity_of(link.step(request(certificate=certificate)))
    (asked,) = scene.server.asked
    assert asked.path == "/login?site=7"
    assert asked.headers["Content-Type"] == "application/json"
    assert json.loads(asked.body) == {
        "client_id": "c",
        "user_name": "ada",
        "password": "secret",
        "address": "192.0.2.1:7",
        "listener": "door",
        "version": "3.1.1",
        "certificate": {
            "identity": "m7",
            "common_name": "m7",
            "dns_names": ["m7.example.org"],
            "email_addresses": [],
            "uris": [],
            "fingerprint": "ab",
        },
    }
    link.step(request(password=b"\xff\x00"))
    question = json.loads(scene.server.asked[1].body)
    assert (question["password"], question["password_base64"]) == (None, "/wA=")


def test_what_an_answer_may_say(scene: Scene) -> None:
    link = scene.link(cache_s=0)
    scene.says = lambda _: say(
        result="allow",
        user_name="ada@example.org",
        attributes={"site": "7"},
        roles=["operator"],
        expires_at=1_000_100.5,
    )
    identity = identity_of(link.step(request()))
    assert identity.user_name == "ada@example.org"
    assert identity.attributes == {"site": "7"}
    assert identity.roles == ("operator",)
    assert identity.expires_at_ms == 1_000_100_500
    scene.says = lambda _: say(result="allow")
    identity = identity_of(link.step(request()))
    assert (identity.user_name, identity.attributes, identity.expires_at_ms) == ("ada", {}, 0)
    scene.says = lambda _: say(result="deny")
    answer = link.step(request())
    assert answer is not NOT_MINE
    assert (answer.kind, answer.reason_code, answer.reason) == (REFUSE, 0x86, "")
    scene.says = lambda _: say(result="ignore")
    assert link.step(request()) is NOT_MINE


def test_anonymous_clients_and_methods_are_not_asked_about(scene: Scene) -> None:
    link = scene.link()
    assert link.step(request(None, None)) is NOT_MINE
    assert link.step(request(method="X")) is NOT_MINE
    assert scene.server.asked == []
    identity_of(link.step(request(None, None, certificate=PeerCertificate("m7"))))


def test_who_was_allowed_is_for_a_time_without_asking(scene: Scene) -> None:
    link = scene.link(cache_s=300)
    for port in range(5):
        identity_of(link.step(request(address=f"192.0.2.1:{port}")))
    assert len(scene.server.asked) == 1
    for other in [
        request(password=b"other"),
        request(password=None),
        request(password=b""),
        request("ada2"),
        request(client_id="d"),
        request(address="192.0.2.2:7"),
        request(certificate=PeerCertificate("m7", fingerprint="ab")),
    ]:
        identity_of(link.step(other))
    assert len(scene.server.asked) == 8
    scene.clock.now_s += 300
    identity_of(link.step(request()))
    assert len(scene.server.asked) == 9
    link.reload()
    identity_of(link.step(request()))
    assert len(scene.server.asked) == 10


def test_no_refusal_is_remembered_and_nothing_that_has_expired(scene: Scene) -> None:
    link = scene.link(cache_s=300)
    for result in ("deny", "ignore"):
        for _ in range(2):
            scene.says = lambda _, result=result: say(result=result)  # type: ignore[misc]  # early
            link.step(request())
    assert len(scene.server.asked) == 4
    scene.says = lambda _: say(result="allow", expires_at=scene.clock.now_s + 10)
    for _ in range(2):
        identity_of(link.step(request()))
    assert len(scene.server.asked) == 5
    scene.clock.now_s += 10
    identity_of(link.step(request()))
    assert len(scene.server.asked) == 6


def test_what_was_allowed_is_not_shared_between_clients(scene: Scene) -> None:
    scene.says = lambda _: say(result="allow", attributes={"a": "1"})
    link = scene.link()
    first, second = identity_of(link.step(request())), identity_of(link.step(request()))
    assert first is not second
    assert first.attributes is not second.attributes


TROUBLE = {
    "status": Said(503, b'{"result": "allow"}'),
    "redirect": Said(302, b"", {"Location": "/elsewhere"}),
    "created": Said(201, b'{"result": "allow"}'),
    "no JSON": Said(body=b"allow"),
    "no object": Said(body=b'"allow"'),
    "no result": say(user_name="ada"),
    "wrong result": say(result="Allow"),
    "not UTF-8": Said(body=b'{"result": "allow", "user_name": "\xff"}'),
    "deep": Said(body=b"[" * 60_000),
    "long": Said(body=b" " * ANSWER_BYTES_MAX + b'{"result": "allow"}'),
    "endless": Said(body=[b" " * 10_000] * 100, headers={"Content-Length": "1000000000"}),
    "compressed": Said(body=b"\x1f\x8b\x08", headers={"Content-Encoding": "gzip"}),
    "user": say(result="allow", user_name=7),
    "long user": say(result="allow", user_name="a" * 1025),
    "attributes": say(result="allow", attributes={"a": 1}),
    "attribute list": say(result="allow", attributes=["a"]),
    "roles": say(result="allow", roles="admin"),
    "many roles": say(result="allow", roles=["a"] * 257),
    "expiry": say(result="allow", expires_at="tomorrow"),
    "true expiry": say(result="allow", expires_at=True),
    "no number": Said(body=b'{"result": "allow", "expires_at": NaN}'),
    "long ago": say(result="allow", expires_at=-1),
}


@pytest.mark.parametrize("said", TROUBLE.values(), ids=TROUBLE.keys())
def test_an_answer_that_is_not_understood_lets_nobody_in(scene: Scene, said: Said) -> None:
    scene.says = lambda _: said
    link = scene.link()
    with pytest.raises(AuthenticatorUnavailable) as caught:
        link.step(request())
    assert "secret" not in str(caught.value) and "site=7" not in str(caught.value)
    assert [asked.path for asked in scene.server.asked] == ["/login?site=7"]
    # The connection is usable again, or another one is made.
    scene.says = lambda _: say(result="allow")
    for number in range(20):
        identity_of(link.step(request(client_id=str(number))))


def test_a_server_that_hangs_up_is_asked_again_at_most_once(scene: Scene) -> None:
    def hang_up(_: Asked) -> Said:
        raise ConnectionAbortedError

    link = scene.link()
    scene.says = hang_up
    with pytest.raises(AuthenticatorUnavailable, match="does not answer"):
        link.step(request())
    assert len(scene.server.asked) == 2


def test_nobody_waits_for_a_server_that_is_down(scene: Scene) -> None:
    link = scene.link(timeout_s=0.2)
    scene.server.stop()
    with socket.create_server(("127.0.0.1", scene.server.port)) as deaf:
        for _ in range(FAILURES_MAX):
            with pytest.raises(AuthenticatorUnavailable):
                link.step(request())
        deaf.setblocking(False)
        while True:
            try:
                deaf.accept()[0].close()
            except BlockingIOError:
                break
        for _ in range(100):
            with pytest.raises(AuthenticatorUnavailable):
                link.step(request())
        with pytest.raises(BlockingIOError):  # nobody has even tried
            deaf.accept()
        scene.clock.now_s += PAUSE_S
        with pytest.raises(AuthenticatorUnavailable):
            link.step(request())
        deaf.accept()[0].close()


@pytest.mark.parametrize("on_error", ["deny", "ignore"])
def test_what_trouble_means_can_be_chosen(
    scene: Scene, on_error: str, caplog: pytest.LogCaptureFixture
) -> None:
    scene.says = lambda _: Said(500, b"secret")
    link = scene.link(on_error=on_error)
    with caplog.at_level(logging.ERROR, "holdfast"):
        answers = [link.step(request()) for _ in range(5)]
    for answer in answers:
        if on_error == "ignore":
            assert answer is NOT_MINE
        else:
            assert answer is not NOT_MINE
            assert (answer.kind, answer.reason_code) == (REFUSE, 0x86)
    assert caplog.messages == [
        f"http: http://127.0.0.1:{scene.server.port} answers 500, expected 200"
    ]


def test_a_slow_answer_ends_in_time(scene: Scene) -> None:
    is_over = threading.Event()

    def wait(_: Asked) -> Said:
        assert is_over.wait(PATIENCE_S)
        return say(result="allow")

    scene.says = wait
    link = scene.link(timeout_s=0.1)
    with pytest.raises(AuthenticatorUnavailable, match="TimeoutError"):
        link.step(request())
    is_over.set()


@pytest.mark.parametrize(
    "beginning",
    [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;"],
    ids=["headers", "chunk"],
)
def test_an_answer_that_comes_byte_by_byte_ends_in_time(beginning: bytes) -> None:
    """Each byte is in time; all of them would take as long as the server likes."""
    is_over = threading.Event()

    def drip(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65_536)
            connection.sendall(beginning)
            # Until the other side has hung up.
            with suppress(OSError):
                while not is_over.wait(0.01):
                    connection.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, args=[listener], daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        link = HttpLink("http", HttpOptions(url, timeout_s=0.2))
        link.reload()
        try:
            with pytest.raises(AuthenticatorUnavailable, match="does not answer"):
                link.step(request())
        finally:
            is_over.set()
            thread.join(PATIENCE_S)
            link.close()


def test_headers_from_a_file(scene: Scene, tmp_path: Path) -> None:
    file = tmp_path / "headers"
    file.write_text("# for the login server\nAuthorization: Bearer t0ken\nX-Site:  7\n\n")
    link = scene.link(headers_file=file)
    assert link.files == (file,)
    identity_of(link.step(request()))
    headers = scene.server.asked[0].headers
    assert (headers["Authorization"], headers["X-Site"]) == ("Bearer t0ken", "7")
    file.write_text("Authorization: Bearer new")
    link.reload()
    identity_of(link.step(request()))
    assert scene.server.asked[1].headers["Authorization"] == "Bearer new"


@pytest.mark.parametrize("content", ["t0ken", "Auth orization: t0ken", ": t0ken", "A: t0\0ken"])
def test_a_wrong_file_of_headers_is_named_and_not_shown(
    scene: Scene, tmp_path: Path, content: str
) -> None:
    file = tmp_path / "headers"
    file.write_text("A: b\n" + content)
    with pytest.raises(ConfigError, match=r"headers, line 2: expected NAME: VALUE") as caught:
        scene.link(headers_file=file)
    assert "t0" not in str(caught.value)
    with pytest.raises(ConfigError, match="none: cannot be read"):
        scene.link(headers_file=tmp_path / "none")


def test_the_certificate_of_the_server_is_checked(tmp_path: Path) -> None:
    ours, theirs = trustme.CA(), trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.issue_cert("localhost").configure_cert(context)
    for name, authority in (("ours", ours), ("theirs", theirs)):
        authority.cert_pem.write_to_path(str(tmp_path / name))
    with ExitStack() as stack:
        server = stack.enter_context(HttpServer(lambda _: say(result="allow"), context))
        scene = Scene(stack)
        good = f"https://localhost:{server.port}/"
        identity_of(scene.link(good, ca_file=tmp_path / "ours").step(request()))
        for link in [
            scene.link(good, ca_file=tmp_path / "theirs"),
            scene.link(good),
            scene.link(f"https://127.0.0.1:{server.port}/", ca_file=tmp_path / "ours"),
        ]:
            with pytest.raises(AuthenticatorUnavailable, match="SSLError"):
                link.step(request())
        assert len(server.asked) == 1
        (tmp_path / "wrong").write_text("no certificates")
        with pytest.raises(ConfigError, match="wrong: expected certificates in PEM"):
            scene.link(good, ca_file=tmp_path / "wrong")


def test_so_many_questions_are_asked_at_a_time(scene: Scene) -> None:
    """A link has its threads for itself: see ``tests/net/test_lanes.py``."""
    assert scene.link(connections_max=3).threads == 3


def test_passwords_over_a_network_in_the_clear_are_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for url in ("http://127.0.0.1:1/", "http://[::1]:1/", "http://localhost/", "https://a.org/"):
        HttpLink("http", HttpOptions(url))
    assert caplog.messages == []
    HttpLink("http", HttpOptions("http://login.example.org/x?key=secret"))
    assert caplog.messages == ["http: passwords are sent unencrypted to http://login.example.org"]
