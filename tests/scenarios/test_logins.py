"""Logins to the real server: who gets in, who has to go after a change, what the log says of it."""

import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import paho.mqtt.client as paho
import pytest
import trustme
from argon2 import PasswordHasher
from paho.mqtt.enums import CallbackAPIVersion

from holdfast.auth.password_edit import with_user, write
from tests.support import packets
from tests.support.broker import BrokerProcess
from tests.support.http_server import Asked, HttpServer, Said
from tests.support.packets import CONNACK, DISCONNECT, V5, V311
from tests.support.process import PATIENCE_S, required
from tests.support.wire import Wire, contents

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)

Start = Callable[[str], BrokerProcess]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a broker with these tables in its configuration."""
    with ExitStack() as stack:
        yield lambda toml: stack.enter_context(BrokerProcess(tmp_path / "data", toml=toml))


class Users:
    """A password file and its table; each user's password is its name backwards."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "passwords"
        self.path.touch()
        self.toml = f'[[authenticators]]\nkind = "password_file"\nfile = "{self.path}"\n'

    def put(self, *users: str, password: str = "") -> None:
        text = self.path.read_text()
        for user in users:
            text = with_user(text, user, [CHEAP.hash(password or user[::-1])])
        write(self.path, text)

    def remove(self, user: str) -> None:
        write(self.path, with_user(self.path.read_text(), user, []))


@pytest.fixture
def users(tmp_path: Path) -> Users:
    users = Users(tmp_path)
    users.put("ada", "bob", "zoë")
    return users


def connack(
    broker: BrokerProcess,
    user: str | None,
    password: str | None,
    client_id: str = "c",
    level: int = V5,
) -> int:
    with Wire(broker.port, level) as wire:
        wire.send(packets.connect(client_id, level, user=user, password=password))
        return wire.expect(CONNACK).code


def log_in(broker: BrokerProcess, user: str, level: int = V5) -> Wire:
    wire = Wire(broker.port, level)
    wire.send(packets.connect(f"c-{user}", level, user=user, password=user[::-1]))
    assert wire.expect(CONNACK).code == 0
    return wire


@pytest.mark.parametrize(("level", "bad"), [(V5, 0x86), (V311, 4)])
def test_users_with_their_passwords_get_in(
    start: Start, users: Users, level: int, bad: int
) -> None:
    broker = start(users.toml)
    assert connack(broker, "ada", "ada"[::-1], level=level) == 0
    assert connack(broker, "zoë", "zoë"[::-1], level=level) == 0
    for user, password in [
        ("ada", "ada!"),
        ("ada", ""),
        ("Ada", "ada"),
        ("eve", "eve"),
        ("", ""),
        (None, None),
        ("ada", None),
    ]:
        assert connack(broker, user, password, level=level) == bad


def test_real_clients_log_in(start: Start, users: Users) -> None:
    users.put("carol", password="cäröl secret")
    broker = start(users.toml)

    def publish(*arguments: str) -> str:
        command = [required("mosquitto_pub", "mosquitto-clients"), "-p", str(broker.port)]
        command += ["-t", "t", "-m", "m", *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
        return done.stderr

    with log_in(broker, "ada") as wire:
        wire.subscribe("t", 0)
        assert publish("-u", "carol", "-P", "cäröl secret") == ""
        assert publish("-V", "5", "-u", "carol", "-P", "cäröl secret") == ""
        assert contents(wire.messages(2)) == [b"m", b"m"]
    assert "Bad User Name or Password" in publish("-V", "5", "-u", "carol", "-P", "wrong")
    assert "Connection Refused" in publish("-u", "nobody", "-P", "wrong")
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id="paho")
    client.username_pw_set("carol", "cäröl secret")
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    client.publish("t", b"m", qos=1).wait_for_publish(PATIENCE_S)
    client.disconnect()
    client.loop_stop()


def test_a_real_client_logs_in_by_its_certificate(
    start: Start, users: Users, tmp_path: Path
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    for name, made in [
        ("server", authority.issue_cert("localhost")),
        ("client", authority.issue_cert("meter-7.example.org", common_name="meter-7")),
    ]:
        made.private_key_pem.write_to_path(str(tmp_path / f"{name}.key"))
        for index, part in enumerate(made.cert_chain_pems):
            part.write_to_path(str(tmp_path / f"{name}.pem"), append=index > 0)
    broker = start(
        f"""{users.toml}
        [[authenticators]]
        kind = "certificate"
        [[client_ids]]
        client_ids = ["%u", "%a{{certificate_common_name}}:*"]
        [[listeners]]
        address = "127.0.0.1:0"
        name = "tls"
        tls.certificate = "{tmp_path}/server.pem"
        tls.key = "{tmp_path}/server.key"
        tls.client_certificates = "required"
        tls.client_ca = "{tmp_path}/ca.pem"
        """
    )

    def publish(client_id: str, *arguments: str) -> str:
        command = [required("mosquitto_pub", "mosquitto-clients"), "-V", "5", "-i", client_id]
        command += ["-h", "localhost", "-p", str(broker.ports[-1]), "-t", "t", "-m", "m"]
        for option, name in [("cafile", "ca.pem"), ("cert", "client.pem"), ("key", "client.key")]:
            command += [f"--{option}", str(tmp_path / name)]
        done = subprocess.run(
            [*command, *arguments],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        return done.stderr

    assert publish("meter-7") == publish("meter-7:2", "-u", "meter-7") == ""
    assert "Bad User Name or Password" in publish("meter-7", "-u", "admin")
    assert "Client Identifier not valid" in publish("meter-8")
    assert connack(broker, "meter-7", "") == 0x86  # where there is no TLS


def test_a_failed_login_is_one_line_without_the_password(start: Start, users: Users) -> None:
    broker = start(users.toml)
    assert connack(broker, "ada", "hunter2") == 0x86
    assert connack(broker, "eve\x1f\u2028x", "hunter2", client_id="evil\ufeffid") == 0x86
    number, found = broker.process.wait_line("refused: .*user=ada.*")
    assert "(wrong password)" in found[0] and "client=c " in found[0]
    assert "address=127.0.0.1:" in found[0] and "listener=" in found[0]
    _, found = broker.process.wait_line("refused: .*no authenticator knows this user.*", number + 1)
    assert "\\u2028" in found[0] and "\\ufeff" in found[0] and "\\x1f" in found[0]
    assert len([line for line in broker.log_lines if "refused" in line]) == 2
    assert "hunter2" not in broker.log


@pytest.mark.parametrize("is_asked_for", [True, False], ids=["SIGHUP", "change"])
def test_who_was_taken_out_has_to_go_and_all_others_stay(
    start: Start, users: Users, is_asked_for: bool
) -> None:
    broker = start(users.toml)
    ada, bob, zoe = log_in(broker, "ada"), log_in(broker, "bob", V311), log_in(broker, "zoë")
    with ada, bob, zoe:
        users.remove("zoë")
        users.put("bob", password="new")
        users.put("new")
        if is_asked_for:
            broker.process.send_signal(signal.SIGHUP)
        (goodbye,) = zoe.until_closed()
        assert (goodbye.kind, goodbye.code) == (DISCONNECT, 0x87)
        assert bob.until_closed() == []
        ada.ping()
        assert connack(broker, "bob", "bob") == 0x86
        assert connack(broker, "bob", "new") == 0
        assert connack(broker, "new", "new"[::-1]) == 0
        ada.ping()
    assert "the user was removed" in broker.log
    assert "the user has another password now" in broker.log


def test_a_wrong_file_changes_nothing(start: Start, users: Users) -> None:
    broker = start(users.toml)
    with log_in(broker, "ada") as ada:
        with users.path.open("a") as file:
            file.write("eve:hunter2\n")
        broker.process.send_signal(signal.SIGHUP)
        _, found = broker.process.wait_line("error .*what was read before stays.*")
        assert "passwords, line 4: expected a hash" in found[0]
        ada.ping()
        assert connack(broker, "bob", "bob"[::-1]) == 0
    assert "hunter2" not in broker.log


def test_sighup_without_anything_to_read_leaves_the_broker_alone(start: Start) -> None:
    broker = start("")
    broker.process.send_signal(signal.SIGHUP)
    assert connack(broker, None, None) == 0


def test_anonymous_clients_where_they_are_allowed(start: Start, users: Users) -> None:
    broker = start("allow_anonymous = true\n" + users.toml)
    assert connack(broker, None, None) == 0
    assert connack(broker, "ada", "ada"[::-1]) == 0
    for user, password in [("ada", "wrong"), ("eve", "x"), ("ada", None), ("", "")]:
        assert connack(broker, user, password) == 0x86


def test_a_session_is_not_taken_over_by_another_user(start: Start, users: Users) -> None:
    broker = start(users.toml + '[[client_ids]]\nclient_ids = ["%u", "%u:*"]\n')
    assert connack(broker, "ada", "ada"[::-1], "ada") == 0
    with Wire(broker.port, V5) as ada:
        ada.send(packets.connect("ada:1", V5, user="ada", password="ada"[::-1]))
        assert ada.expect(CONNACK).code == 0
        assert connack(broker, "bob", "bob"[::-1], "ada:1") == 0x85
        assert connack(broker, "bob", "bob"[::-1], "") == 0x85
        assert connack(broker, "bob", "bob"[::-1], "ada:1", V311) == 2
        ada.ping()
    broker.process.wait_line(r"refused: .*this user may not use this client id.*user=bob")


def test_a_slow_http_server_holds_up_no_password(start: Start, users: Users) -> None:
    def answer(asked: Asked) -> Said:
        if b'"slow"' in asked.body:
            raise TimeoutError if not waiting.wait(PATIENCE_S) else ConnectionAbortedError
        return Said(body=b'{"result": "allow", "attributes": {"site": "7"}}')

    waiting = threading.Event()
    with HttpServer(answer) as server:
        table = f'[[authenticators]]\nkind = "http"\nurl = "http://127.0.0.1:{server.port}/"\n'
        broker = start(users.toml + table + "connections_max = 2\n")
        assert connack(broker, "outside", "x") == 0
        with ExitStack() as stack:
            wires = [stack.enter_context(Wire(broker.port, V5)) for _ in range(6)]
            for number, wire in enumerate(wires):
                wire.send(packets.connect(f"s{number}", V5, user="slow", password="x"))
            for _ in range(3):
                assert connack(broker, "ada", "ada"[::-1]) == 0
                assert connack(broker, "ada", "wrong") == 0x86
            waiting.set()
            assert {wire.expect(CONNACK).code for wire in wires} == {0x88}
        assert connack(broker, "outside", "x") == 0
