"""Where a client connects to and how it gets in: options against environment, secrets, TLS."""

import subprocess
import time
from pathlib import Path
from subprocess import CompletedProcess

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from holdfast import UsageError
from holdfast.cli.connection_options import ServerOptions, destination
from tests.support.broker import BrokerProcess, NewBroker
from tests.support.command import assert_one_line, holdfast
from tests.support.listening import Authority, listener_table, tls_table
from tests.support.process import required

KEY = b"a secret of at least 32 bytes, as it has to be"


@pytest.mark.parametrize(
    ("options", "url", "topic"),
    [
        (ServerOptions(), "mqtt://localhost:1883", None),
        (ServerOptions(host="a.example", port=1), "mqtt://a.example:1", None),
        (ServerOptions(host="::1"), "mqtt://[::1]:1883", None),
        (ServerOptions(host="[::1]"), "mqtt://[::1]:1883", None),
        (ServerOptions(tls=True), "mqtts://localhost:8883", None),
        (ServerOptions(port=8883), "mqtts://localhost:8883", None),
        (ServerOptions(insecure=True, port=1), "mqtts://localhost:1", None),
        (ServerOptions(tls_alpn="mqtt"), "mqtts://localhost:8883", None),
        (ServerOptions(unix="/run/a b"), "unix:///run/a%20b", None),
        (ServerOptions(url="mqtt://a:1"), "mqtt://a:1", None),
        (ServerOptions(url="mqtt://a/b/c%23"), "mqtt://a", "b/c#"),
        (ServerOptions(url="mqtts://u:p@a:1/t"), "mqtts://u:p@a:1", "t"),
        (ServerOptions(url="MQTT://a/t"), "MQTT://a", "t"),
        (ServerOptions(url="ws://a/b"), "ws://a/b", None),
        (ServerOptions(url="a:1"), "a:1", None),
    ],
)
def test_options_make_a_url(options: ServerOptions, url: str, topic: str | None) -> None:
    place = destination(options, {})
    assert (place.url, place.topic) == (url, topic)
    assert (place.tls is not None) == url.startswith(("mqtts:", "wss:"))


@pytest.mark.parametrize(
    ("options", "variables", "user_name", "password"),
    [
        (ServerOptions(), {}, None, None),
        (ServerOptions(username="u"), {}, "u", None),
        (ServerOptions(username="u", password="p"), {}, "u", b"p"),
        (ServerOptions(password="p"), {}, None, b"p"),
        (ServerOptions(url="mqtt://u:p@a"), {}, "u", b"p"),
        (ServerOptions(url="mqtt://u:p@a", username="v", password="q"), {}, "v", b"q"),
        (ServerOptions(username="u"), {"HOLDFAST_PASSWORD": "e"}, "u", b"e"),
        (ServerOptions(username="u", password="p"), {"HOLDFAST_PASSWORD": "e"}, "u", b"p"),
        (ServerOptions(url="mqtt://u:p@a"), {"HOLDFAST_PASSWORD": "e"}, "u", b"p"),
        (ServerOptions(), {"HOLDFAST_PASSWORD": "e"}, None, None),
        (ServerOptions(), {"HOLDFAST_URL": "mqtt://u:p@a"}, "u", b"p"),
        # Another server than that of the variable is not shown its password.
        (ServerOptions(host="b"), {"HOLDFAST_URL": "mqtt://u:p@a"}, None, None),
        (ServerOptions(url="mqtt://b"), {"HOLDFAST_URL": "mqtt://u:p@a"}, None, None),
    ],
)
def test_who_we_are(
    options: ServerOptions,
    variables: dict[str, str],
    user_name: str | None,
    password: bytes | None,
) -> None:
    place = destination(options, variables)
    assert (place.user_name, place.password) == (user_name, password)


@pytest.mark.parametrize("text", ["secret", "secret\n", "secret\r\nmore"])
def test_a_password_is_the_first_line_of_its_file(tmp_path: Path, text: str) -> None:
    file = tmp_path / "p"
    file.write_bytes(text.encode())
    options = ServerOptions(username="u", password_file=str(file))
    assert destination(options, {}).password == b"secret"


def test_no_complaint_shows_a_secret() -> None:
    for url in ("mqtt://u:secret@", "secret://a", "mqtt://u:sec/ret@a@b", "mqtt://u:secret@a:x"):
        with pytest.raises(UsageError) as error:
            destination(ServerOptions(url=url), {})
        assert "secret" not in str(error.value).replace("scheme 'secret'", "")


@pytest.fixture
def guarded(new_broker: NewBroker, tmp_path: Path) -> BrokerProcess:
    """A broker with a user, on TCP, TLS, a Unix socket and WebSocket."""
    done = holdfast("passwd", "passwords", "ada", "--batch", folder=tmp_path, given="let me in\n")
    assert done.returncode == 0
    authority = Authority(tmp_path)
    server = authority.issue("server", "localhost")
    toml = (
        f'[[authenticators]]\nkind = "password_file"\nfile = "{tmp_path}/passwords"\n'
        + listener_table("tls")
        + tls_table(server)
        + listener_table("web")
        + "[listeners.websocket]\n"
        + f'[[listeners]]\naddress = "unix:{tmp_path}/m.sock"\n'
    )
    return new_broker(settings={}, toml=toml)


def test_every_way_in(guarded: BrokerProcess, tmp_path: Path) -> None:
    plain, tls, web = (str(port) for port in guarded.ports)
    (tmp_path / "p").write_text("let me in\n")
    user = ["-u", "ada", "--password-file", "p"]
    authority = ["--cafile", "ca.pem"]
    message = ["-t", "a", "-m", "x"]

    def publish(*arguments: str, given: str = "", variables: dict[str, str] | None = None) -> None:
        done = holdfast(
            "pub", *message, *arguments, folder=tmp_path, given=given, variables=variables
        )
        assert (done.returncode, done.stderr) == (0, ""), arguments

    publish("-p", plain, *user)
    publish("-p", plain, "-u", "ada", "-P", "let me in")
    publish("-p", plain, "-u", "ada", "--password-file", "-", given="let me in\n")
    publish("-p", plain, "-u", "ada", variables={"HOLDFAST_PASSWORD": "let me in"})
    publish("-L", f"mqtt://ada:let%20me%20in@localhost:{plain}")
    publish("-p", tls, *user, *authority, "--tls-version", "tlsv1.3")
    publish("-L", f"mqtts://localhost:{tls}", *user, *authority)
    publish("-p", tls, *user, "--insecure")
    publish("-h", "127.0.0.1", "-p", tls, *user, *authority, "--insecure")
    publish("-h", "127.0.0.1", "-p", tls, *user, *authority, "--servername", "localhost")
    publish("-L", f"ws://localhost:{web}/mqtt", *user, "--header", "X-Who=ada")
    publish("--unix", "m.sock", *user)
    done = holdfast("pub", *message, "-p", plain, "-u", "ada", "-P", "no", folder=tmp_path)
    assert_one_line(done, 7, r"(?i)bad user name or password")
    done = holdfast("pub", *message, "-p", tls, *user, "--tls", folder=tmp_path)
    assert_one_line(done, 6, f"localhost:{tls}: .*certificate")
    done = holdfast("pub", *message, "-h", "127.0.0.1", "-p", tls, *authority, folder=tmp_path)
    assert_one_line(done, 6, r"127\.0\.0\.1:\d+: .*certificate")


def test_a_password_that_the_server_does_not_see_and_a_token(
    new_broker: NewBroker, tmp_path: Path
) -> None:
    options = ["--batch", "--scram"]
    holdfast("passwd", "passwords", "ada", *options, folder=tmp_path, given="let me in\n")
    (tmp_path / "jwt.key").write_bytes(KEY)
    broker = new_broker(
        settings={},
        toml=f"""
        [[authenticators]]
        kind = "scram"
        file = "{tmp_path}/passwords"
        [[authenticators]]
        kind = "jwt"
        algorithms = ["HS256"]
        secret_file = "{tmp_path}/jwt.key"
        audience = ["a"]
        """,
    )
    (tmp_path / "p").write_text("let me in\n")
    claims = {"sub": "ada", "aud": "a", "exp": int(time.time()) + 3600}
    (tmp_path / "token").write_text(jwt.encode(claims, KEY, "HS256"))

    def publish(*arguments: str) -> "CompletedProcess[str]":
        place = ["-p", str(broker.port), "-t", "a", "-m", "x"]
        return holdfast("pub", *place, *arguments, folder=tmp_path)

    for arguments in (
        ["-u", "ada", "--password-file", "p", "--auth", "scram-sha-256"],
        ["-u", "ada", "-P", "let me in", "--auth", "SCRAM-SHA-256"],
        ["--password-file", "token", "--auth", "JWT"],
        ["-P", (tmp_path / "token").read_text(), "--auth", "JWT"],
        ["-u", "anyone", "--password-file", "token"],
    ):
        done = publish(*arguments)
        assert (done.returncode, done.stderr) == (0, ""), arguments
    for arguments in (
        ["-u", "ada", "-P", "wrong", "--auth", "SCRAM-SHA-256"],
        ["-P", "no token", "--auth", "JWT"],
    ):
        assert_one_line(publish(*arguments), 7, "refused the connection")


def test_a_certificate_of_the_client(new_broker: NewBroker, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server = authority.issue("server", "localhost")
    client = authority.issue("client", "meter-7.example.org", common_name="meter-7")
    toml = listener_table("tls") + tls_table(
        server, client_certificates="required", client_ca=authority.file
    )
    port = str(new_broker(settings={}, toml=toml).ports[-1])
    (tmp_path / "trusted").mkdir()
    (tmp_path / "trusted" / f"{subject_hash(authority.file)}.0").symlink_to(authority.file)
    (tmp_path / "password").write_text("opens the key\n")
    key = load_pem_private_key(client.with_suffix(".key").read_bytes(), None)
    sealed = key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"opens the key")
    )
    (tmp_path / "sealed.key").write_bytes(sealed)

    def publish(*arguments: str) -> "CompletedProcess[str]":
        return holdfast("pub", "-p", port, "-t", "a", "-m", "x", *arguments, folder=tmp_path)

    shown = ["--cert", "client.pem", "--key"]
    opened = ["--key-password-file", "password"]
    for arguments in (
        ["--cafile", "ca.pem", *shown, "client.key", "--tls-alpn", "mqtt"],
        ["--capath", "trusted", *shown, "sealed.key", *opened],
    ):
        done = publish(*arguments)
        assert (done.returncode, done.stderr) == (0, "")
    assert_one_line(publish("--cafile", "ca.pem"), 6, f"localhost:{port}: ")
    assert_one_line(publish("--cafile", "ca.pem", *shown, "sealed.key"), 2, "--key-password-file")


def subject_hash(certificate: Path) -> str:
    """What OpenSSL looks for in a folder of certificates."""
    command = [required("openssl", "openssl"), "x509", "-hash", "-noout", "-in", str(certificate)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.strip()
