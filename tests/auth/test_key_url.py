"""Keys from a URL: fetched, kept, fetched again, and not asked for more than is due."""

import logging
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric import ed25519

from holdfast.auth.key_url import ANSWER_BYTES_MAX, KeyUrl
from holdfast.auth.link import Answer
from holdfast.auth.tokens import TokenLink
from holdfast.broker.authentication import GRANT, AuthReply, AuthRequest
from holdfast.config.authenticators import JwtSettings
from holdfast.errors import ConfigError
from tests.support.key_server import KeyServer, Respond, answer
from tests.support.tokens import Private, jwk, jwks, token

FIRST, SECOND = (ed25519.Ed25519PrivateKey.generate() for _ in range(2))
LONG_S = 3600.0
SHORT_S = 0.01
RIGHT = jwks(jwk(FIRST, "first"))


@pytest.fixture
def server() -> Iterator[KeyServer]:
    with KeyServer(jwks(jwk(FIRST, "first"))) as server:
        yield server


Make = Callable[..., KeyUrl]


@pytest.fixture
def make(server: KeyServer) -> Iterator[Make]:
    """Keys from the server, which are closed when the test is over."""
    with ExitStack() as stack:

        def made(
            *, timeout_s: float = 30, refresh_s: float = LONG_S, retry_s: float = LONG_S
        ) -> KeyUrl:
            keys = KeyUrl(server.url, timeout_s=timeout_s, refresh_s=refresh_s, retry_s=retry_s)
            stack.callback(keys.close)
            keys.start()
            return keys

        yield made


def names(keys: KeyUrl) -> list[str | None]:
    return [key.kid for key in keys.keys.keys]


def await_names(keys: KeyUrl, wanted: list[str | None]) -> None:
    """Wait for a fetch that gives these; each miss waits for the next one."""
    for _ in range(1000):
        if names(keys) == wanted:
            return
        keys.missed()
    raise AssertionError(f"expected {wanted}, got {names(keys)}")


def test_keys_are_fetched_at_the_start_and_waited_for(server: KeyServer, make: Make) -> None:
    keys = make()
    keys.missed()
    assert names(keys) == ["first"]
    assert keys.version == 1
    server.await_requests(1)
    (headers,) = server.requests
    assert headers["User-Agent"].startswith("holdfast/")
    assert "Authorization" not in headers


def test_keys_are_fetched_again_after_a_time(server: KeyServer, make: Make) -> None:
    keys = make(refresh_s=SHORT_S)
    server.await_requests(2)
    assert keys.version == 1  # the same keys are no news
    server.content = jwks(jwk(SECOND, "second"))
    server.await_requests(len(server.requests) + 2)
    assert names(keys) == ["second"]
    assert keys.version == 2


def test_names_that_nobody_knows_cause_no_further_requests(server: KeyServer, make: Make) -> None:
    keys = make()
    keys.missed()
    for _ in range(100):
        keys.missed()
    server.await_requests(1)
    assert len(server.requests) == 1


def test_a_name_that_is_missed_later_is_fetched(server: KeyServer, make: Make) -> None:
    keys = make(retry_s=0.0)
    keys.missed()
    server.content = jwks(jwk(FIRST, "first"), jwk(SECOND, "second"))
    await_names(keys, ["first", "second"])


def test_one_fetch_serves_all_who_wait(server: KeyServer, make: Make) -> None:
    may_answer = threading.Event()

    def held(handler: BaseHTTPRequestHandler) -> None:
        assert may_answer.wait(30)
        answer(handler, server.content)

    server.respond = held
    keys = make()
    waiting = [threading.Thread(target=keys.missed) for _ in range(5)]
    for thread in waiting:
        thread.start()
    may_answer.set()
    for thread in waiting:
        thread.join()
    assert names(keys) == ["first"]
    server.await_requests(1)
    assert len(server.requests) == 1


def pour(handler: BaseHTTPRequestHandler) -> None:
    """More and more, without an end."""
    handler.send_response(200)
    handler.end_headers()
    try:
        while True:
            handler.wfile.write(b" " * 4096)
    except OSError:
        pass


def cut_short(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"keys": [')


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True


def headers_without_end(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    try:
        while True:
            handler.wfile.write(b"A: b\r\n")
    except OSError:
        pass


def nonsense(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n")


@pytest.mark.parametrize(
    ("respond", "complaint"),
    [
        (lambda handler: answer(handler, RIGHT, 500), "expected HTTP status 200, 500 came"),
        (lambda handler: answer(handler, RIGHT, 404), "expected HTTP status 200, 404 came"),
        (lambda handler: answer(handler, RIGHT, 204), "expected HTTP status 200, 204 came"),
        (
            lambda handler: answer(handler, b"", 302, Location="http://127.0.0.1:9/"),
            "expected HTTP status 200, 302 came",
        ),
        (lambda handler: answer(handler, b"<html>"), "expected a JWK Set: not well-formed JSON"),
        (lambda handler: answer(handler, b'{"keys":[]}'), "expected a JWK Set with a key"),
        (
            lambda handler: answer(handler, jwks(jwk(bytes(64)))),
            "expected a JWK Set with a key",
        ),
        (
            lambda handler: answer(handler, b" " * (ANSWER_BYTES_MAX + 1) + RIGHT),
            f"expected at most {ANSWER_BYTES_MAX} bytes",
        ),
        (pour, f"expected at most {ANSWER_BYTES_MAX} bytes"),
        (cut_short, "expected the whole answer, a part of it came"),
        (hang_up, "RemoteDisconnected"),
        (nonsense, "expected an answer of HTTP, something else came"),
        (headers_without_end, "expected an answer of HTTP, something else came"),
    ],
)
def test_keys_stay_while_the_url_fails_and_one_line_says_so(
    server: KeyServer,
    make: Make,
    caplog: pytest.LogCaptureFixture,
    respond: Respond,
    complaint: str,
) -> None:
    caplog.set_level(logging.INFO, "holdfast")
    keys = make(refresh_s=SHORT_S, retry_s=SHORT_S)
    server.await_requests(1)
    server.respond = respond
    server.await_requests(len(server.requests) + 5)
    assert names(keys) == ["first"]
    lines = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [line.getMessage() for line in lines] == [
        "the keys of tokens cannot be fetched, those that are known stay"
    ]
    fields = lines[0].__dict__["fields"]
    assert fields["error"].startswith(complaint)
    assert fields["keys"] == 1
    assert "secret-of-the-path" not in f"{fields} {caplog.text}"
    server.respond = None
    server.content = jwks(jwk(SECOND, "second"))
    server.await_requests(len(server.requests) + 2)
    assert names(keys) == ["second"]
    assert "the keys of tokens can be fetched again" in caplog.text


def test_nobody_is_kept_waiting_by_a_url_that_never_answers(server: KeyServer, make: Make) -> None:
    may_answer = threading.Event()
    server.respond = lambda handler: hang_up(handler) if may_answer.wait(30) else None
    keys = make(timeout_s=0.1)
    keys.missed()
    assert names(keys) == []
    assert not keys.has_any
    may_answer.set()


@pytest.mark.parametrize("begin", [b"HTTP/1.1 200 OK\r\nA: ", b"HTTP/1.1 200 OK\r\n\r\n", b"HT"])
def test_an_answer_that_is_dragged_out_has_an_end(
    server: KeyServer, make: Make, caplog: pytest.LogCaptureFixture, begin: bytes
) -> None:
    """A byte now and then never lets a single wait time out."""

    def drip(handler: BaseHTTPRequestHandler) -> None:
        try:
            handler.wfile.write(begin)
            while not server.is_stopping.wait(0.02):
                handler.wfile.write(b"x")
        except OSError:
            pass

    server.respond = drip
    keys = make(timeout_s=0.3)
    server.await_requests(1)  # which has ended, because the client has closed
    keys.missed()
    assert not keys.has_any
    (record,) = caplog.records
    assert record.__dict__["fields"]["error"] == "expected an answer within 0.3 s"


AUTHORITY = trustme.CA()


@pytest.fixture
def secure() -> Iterator[KeyServer]:
    """A server with a certificate of ``AUTHORITY``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert("127.0.0.1").configure_cert(context)
    with KeyServer(RIGHT, context) as server:
        yield server


def test_keys_come_over_tls_from_a_server_that_is_trusted(
    secure: KeyServer, tmp_path: Path
) -> None:
    file = tmp_path / "ca.pem"
    AUTHORITY.cert_pem.write_to_path(str(file))
    link = link_to(secure, jwks_ca_file=file)
    assert link.files == (file,)
    assert granted(shown(link, FIRST, "first"))
    file.write_text("nonsense")
    with pytest.raises(ConfigError, match=r"ca\.pem: expected certificates in PEM"):
        link.reload()
    assert granted(shown(link, FIRST, "first"))
    link.close()


@pytest.mark.parametrize("authority", [None, trustme.CA()])
def test_a_server_that_is_not_trusted_gives_no_keys(
    secure: KeyServer,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    authority: trustme.CA | None,
) -> None:
    values: dict[str, object] = {}
    if authority is not None:
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        values["jwks_ca_file"] = tmp_path / "ca.pem"
    link = link_to(secure, **values)
    assert refusal(shown(link, FIRST, "first"))[0] == 0x88
    link.close()
    assert secure.requests == []
    (record,) = caplog.records
    assert record.__dict__["fields"]["error"].startswith("its certificate is not trusted: ")


def test_a_certificate_for_another_name_is_not_trusted(
    secure: KeyServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    AUTHORITY.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    other = secure.url.replace("127.0.0.1", "localhost")
    link = link_to(secure, jwks_url=other, jwks_ca_file=tmp_path / "ca.pem")
    assert refusal(shown(link, FIRST, "first"))[0] == 0x88
    link.close()
    assert "Hostname mismatch" in caplog.records[0].__dict__["fields"]["error"]


def test_a_server_that_is_not_there_is_no_end(caplog: pytest.LogCaptureFixture) -> None:
    with KeyServer() as gone:
        url = gone.url
    keys = KeyUrl(url, timeout_s=30, refresh_s=LONG_S, retry_s=LONG_S)
    keys.start()
    keys.missed()
    keys.close()
    assert not keys.has_any
    assert "Connection refused" in caplog.records[0].__dict__["fields"]["error"]


# The link.


def link_to(server: KeyServer, **values: object) -> TokenLink:
    known = {"kind": "jwt", "algorithms": ("EdDSA",), "jwks_url": server.url}
    link = TokenLink(JwtSettings.model_validate(known | values), lambda: 1_700_000_000)
    link.reload()
    return link


def shown(link: TokenLink, key: Private, kid: str | None = None) -> Answer:
    made = token({"sub": "ada", "exp": 1_700_000_100}, key, "EdDSA", kid)
    return link.step(AuthRequest("JWT", made, "c", None, None, "192.0.2.1:1", False, None))


def refusal(answer: Answer) -> tuple[int, str]:
    assert isinstance(answer, AuthReply)
    return answer.reason_code, answer.reason


def granted(answer: Answer) -> bool:
    assert isinstance(answer, AuthReply)
    return answer.kind == GRANT


def test_the_first_token_waits_for_the_keys(server: KeyServer) -> None:
    for kid in ("first", None):
        link = link_to(server)
        assert link.threads > 0
        assert granted(shown(link, FIRST, kid))
        assert refusal(shown(link, SECOND, kid))[0] == 0x87
        link.close()


def test_while_there_are_no_keys_clients_are_to_come_again(server: KeyServer) -> None:
    server.respond = lambda handler: answer(handler, b"", 503)
    link = link_to(server)
    assert refusal(shown(link, FIRST, "first")) == (0x88, "the keys of tokens are not there yet")
    link.close()


def test_keys_rotate(server: KeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new key is fetched when it is first used; with the old one its clients go."""
    link = link_to(server)
    reply = shown(link, FIRST, "first")
    assert isinstance(reply, AuthReply)
    assert reply.identity is not None
    request = AuthRequest("JWT", None, "c", None, None, "192.0.2.1:1", False, None)
    assert link.has_news()
    assert not link.has_news()
    server.content = jwks(jwk(FIRST, "first"), jwk(SECOND, "second"))
    assert refusal(shown(link, SECOND, "second"))[0] == 0x87  # asked for a moment ago
    assert link._url is not None
    monkeypatch.setattr(link._url, "_retry_s", 0.0)
    assert granted(shown(link, SECOND, "second"))
    assert granted(shown(link, FIRST, "first"))
    assert granted(link.renew(request, reply.identity))
    assert link.has_news()
    server.content = jwks(jwk(SECOND, "second"))
    link.reload()  # as SIGHUP does
    link._url.missed()
    assert link.has_news()
    assert not granted(shown(link, FIRST, "first"))
    assert not granted(link.renew(request, reply.identity))
    assert granted(shown(link, SECOND, "second"))
    link.close()


def test_keys_of_files_and_of_the_url_stand_together(server: KeyServer, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_bytes(jwks(jwk(SECOND, "second")))
    link = link_to(server, jwks_file=file)
    assert granted(shown(link, SECOND, "second"))
    assert granted(shown(link, FIRST, "first"))
    link.close()
