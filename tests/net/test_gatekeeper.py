"""The gatekeeper at a real server: what who is turned away sees, and what the log says."""

import json
import socket
import struct
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from argon2 import PasswordHasher

from holdfast.auth.password_edit import with_user, write
from holdfast.broker.authentication import AuthReply, AuthRequest, grant, refuse
from holdfast.net.admission import AdmissionRules
from holdfast.net.turned_away import answer_of
from holdfast.protocol.reason_codes import BAD_USER_NAME_OR_PASSWORD
from tests.support import packets
from tests.support.broker import BrokerProcess, NewBroker, holdfast_command
from tests.support.listening import listener_table
from tests.support.local import LocalServer
from tests.support.packets import CONNACK, V5, V311
from tests.support.process import eventually
from tests.support.wire import Closed, Dial, Wire

BANNED, SERVER_BUSY, QUOTA_EXCEEDED, CONNECTION_RATE_EXCEEDED = 0x8A, 0x89, 0x97, 0x9F
ANYONE: dict[str, str | int] = {"trusted_addresses": ""}  # loopback included


def refused(wire: Wire, client_id: str = "r") -> int:
    """The code of the CONNACK that turns this connection away, -1 if it is just closed."""
    try:
        wire.send(packets.connect(client_id, wire.level, clean=True))
        code = wire.expect(CONNACK).code
        assert wire.until_closed() == []
    except (Closed, ConnectionError):
        return -1
    assert code != 0
    return code


def test_connections_above_the_maximum_are_told_so(
    new_broker: NewBroker, dial: Dial, level: int, name: str
) -> None:
    broker = new_broker(settings={"connections_max": 2, "sys_interval_s": 1})
    first = dial(broker, level)
    first.hello(f"{name}-1", clean=True)
    second = dial(broker, level)
    second.hello(f"{name}-2", clean=True)
    assert refused(dial(broker, level)) == (QUOTA_EXCEEDED if level == V5 else 3)
    broker.process.wait_line("connections are refused: there are too many connections")
    second.goodbye()
    third = dial(broker, level)
    third.hello(f"{name}-3", clean=True)
    third.subscribe("$SYS/broker/refused/connections/connections", 0)
    while int(third.messages(1)[0].payload) == 0:
        pass  # what was published before
    first.ping()


def test_an_address_that_connects_too_often_is_told_so(
    new_broker: NewBroker, dial: Dial, name: str
) -> None:
    settings: dict[str, str | int] = ANYONE | {"address_connections_burst": 3}
    settings["address_connections_per_s"] = 0.001  # type: ignore[assignment]  # as TOML has it
    broker = new_broker(settings=settings)
    for number in range(3):
        dial(broker, V5).hello(f"{name}-{number}", clean=True)
    assert refused(dial(broker, V5)) == CONNECTION_RATE_EXCEEDED
    assert refused(dial(broker, V311)) == 3


def test_a_flood_of_refusals_is_answered_within_bounds_and_logged_in_a_few_lines(
    new_broker: NewBroker, dial: Dial, name: str
) -> None:
    broker = new_broker(settings={"connections_max": 1})
    client = dial(broker, V5)
    client.hello(name, clean=True)
    first = len(broker.log_lines)
    codes = [refused(dial(broker, V5)) for _ in range(150)]
    assert set(codes) == {QUOTA_EXCEEDED, -1}
    client.ping()
    lines = broker.log_lines[first:]
    assert len([line for line in lines if "connections are refused" in line]) == 1


def test_who_sends_no_connect_makes_way(new_broker: NewBroker, dial: Dial, name: str) -> None:
    broker = new_broker(settings={"unauthenticated_max": 5})
    waiting = [dial(broker, V5) for _ in range(5)]
    waiting[1].send(b"\x10")  # a byte is no CONNECT
    late = dial(broker, V5)
    assert waiting[0].until_closed() == []
    late.hello(name, clean=True)
    for number, wire in enumerate(waiting[2:]):
        wire.hello(f"{name}-{number}", clean=True)
    broker.process.wait_line("connections without CONNECT are closed: too many of them")


def test_a_turned_away_connection_that_says_nothing_is_closed(
    new_broker: NewBroker, dial: Dial, name: str
) -> None:
    broker = new_broker(settings={"connections_max": 1})
    dial(broker, V5).hello(name, clean=True)
    silent, stranger = dial(broker, V5), dial(broker, V5)
    stranger.send(b"GET / HTTP/1.1\r\n\r\n")
    assert stranger.until_closed() == []
    assert silent.until_closed() == []


class Wrong(LocalServer):
    """A server whose clients are all refused but one."""

    def __init__(self, admission: AdmissionRules) -> None:
        super().__init__(OnlyAda(), admission=admission)


class OnlyAda:
    methods: frozenset[str] = frozenset()

    def step(self, request: AuthRequest) -> AuthReply:
        if request.client_id == "ada":
            return grant()
        return refuse(BAD_USER_NAME_OR_PASSWORD)


def test_failed_logins_end_in_a_ban_that_is_told_once(level: int) -> None:
    rules = AdmissionRules(failed_logins_max=2, ban_s=3600.0)
    with Wrong(rules) as server, ExitStack() as stack:

        def wire() -> Wire:
            return stack.enter_context(Wire(server.port, level))

        inside = wire()
        inside.hello("ada", clean=True)  # adds one to what is allowed
        codes = [refused(wire(), f"n{number}") for number in range(6)]
        wrong = 0x86 if level == V5 else 4
        banned = BANNED if level == V5 else 5
        assert codes == [wrong, wrong, wrong, wrong, banned, -1]
        inside.ping()
        assert server.refusals.bans == server.refusals.banned == 1
        assert server.refusals.failed_logins == 4


def test_who_is_gone_before_it_is_accepted_is_nobody(level: int) -> None:
    """The system no longer says where such a connection came from: no bound by address holds for
    it, nor a ban. So it is not served, though its bytes are there.
    """
    rules = AdmissionRules(failed_logins_max=1, ban_s=3600.0)
    with Wrong(rules) as server:
        for number in range(2):
            assert refused(Wire(server.port, level), f"n{number}") > 0
        assert server.refusals.banned == 1
        with server.busy():
            wire = Wire(server.port, level)
            wire.send(packets.connect("guess", level, clean=True))
            wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            wire.cut()
        # Accepted after that one; banned, and the first that is told so.
        assert refused(Wire(server.port, level)) == (BANNED if level == V5 else 5)
        assert server.refusals.failed_logins == 2


# --- file descriptors


class FewFiles(BrokerProcess):
    """A broker that may open few files, as with ``ulimit -n``."""

    FILES = 120

    def command(self) -> list[str]:
        limit = f"resource.setrlimit(resource.RLIMIT_NOFILE, ({self.FILES}, {self.FILES}))"
        script = f"import os, resource, sys; {limit}; os.execv(sys.argv[1], sys.argv[1:])"
        return [sys.executable, "-c", script, holdfast_command()]


def test_file_descriptors_are_left_in_reserve(tmp_path: Path, level: int) -> None:
    """The store works on, and so do those who are connected; when some go others come in."""
    with FewFiles(tmp_path / "data") as broker, ExitStack() as stack:
        inside: list[Wire] = []
        while True:
            wire = stack.enter_context(Wire(broker.port, level))
            try:
                wire.hello(f"c{len(inside)}")
            except (Closed, ConnectionError):
                break
            inside.append(wire)
        assert 20 < len(inside) < FewFiles.FILES - 48
        assert broker.open_files() <= FewFiles.FILES - 48
        broker.process.wait_line("connections are refused: there are too few file descriptors")
        flood = [stack.enter_context(Wire(broker.port, level)) for _ in range(100)]
        for wire in flood:
            assert wire.until_closed() == []
        inside[0].subscribe("t", 1)
        inside[1].publish("t", b"stored", 1)
        assert [one.payload for one in inside[0].messages(1)] == [b"stored"]
        for wire in inside[2:10]:
            wire.goodbye()
        files = broker.open_files()
        eventually(lambda: broker.open_files() <= files, "they are closed")
        stack.enter_context(Wire(broker.port, level)).hello("again")


# --- what no client can do to the log


@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_a_client_identifier_cannot_write_a_line_of_its_own(
    new_broker: NewBroker, dial: Dial, as_json: bool
) -> None:
    settings: dict[str, str | int] = {"log_json": as_json, "log_level": "debug"}
    broker = new_broker(settings=settings)
    evil = 'a\n2026-01-01T00:00:00.000Z error net: gone\r\x1b[31m"} {"x": "\u202ey\u2028'
    wire = dial(broker, V5)
    wire.hello(evil, clean=True)
    wire.send(b"\x00\x00")
    wire.until_closed()
    _, match = broker.process.wait_line("closed: .*")
    line = match.string
    assert line.isprintable()
    if as_json:
        entry = json.loads(line)
        assert (entry["client"], entry["level"]) == (evil, "warning")
    else:
        assert "\\n2026" in line
        assert "\\x1b[31m" in line
    assert not any(one.startswith("2026-01-01") for one in broker.log_lines)


@pytest.mark.parametrize(
    ("head", "answer"),
    [
        (packets.connect("c", V5, clean=True), b"\x20\x03\x00\x97\x00"),
        (packets.connect("c", V311, clean=True), b"\x20\x02\x00\x03"),
        (b"\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", b""),
        (b"GET / HTTP/1.1\r\n", b""),
        (b"\x10\x0c\x00\x04HTTP\x05\x00\x00\x00\x00\x00", b""),
    ],
)
def test_the_refusal_is_in_the_version_of_the_connect(head: bytes, answer: bytes) -> None:
    assert answer_of(head[:14], QUOTA_EXCEEDED) == answer


def test_a_port_that_is_only_scanned_costs_nothing(broker: BrokerProcess) -> None:
    before = broker.open_files()
    for _ in range(50):
        socket.create_connection(("127.0.0.1", broker.port)).close()
    eventually(lambda: broker.open_files() == before, "all of them are closed")


def test_a_fast_publisher_is_slowed_down_by_its_socket(
    new_broker: NewBroker, dial: Dial, name: str
) -> None:
    broker = new_broker(settings={"publish_bytes_per_s": 4_000_000, "publish_bytes_burst": 100_000})
    subscriber = dial(broker, V5)
    subscriber.hello(f"{name}-s", clean=True)
    subscriber.subscribe(name, 1)
    publisher = dial(broker, V5)
    publisher.hello(f"{name}-p", clean=True)
    payloads = [b"%d" % number + bytes(4000) for number in range(300)]
    publisher.publish_all(name, payloads, window=300)
    assert [one.payload for one in subscriber.messages(300)] == payloads
    broker.process.wait_line("slowed down: it publishes more than 4000000 bytes per second")


def test_two_devices_with_one_identifier_leave_it_to_one_of_them(
    new_broker: NewBroker, dial: Dial, name: str, level: int
) -> None:
    broker = new_broker(settings={"client_takeovers_max": 3})
    holder = dial(broker, level)
    holder.hello(name, clean=True)
    for _ in range(3):
        holder = dial(broker, level)
        holder.hello(name, clean=True)
    assert refused(dial(broker, level), name) == (CONNECTION_RATE_EXCEEDED if level == V5 else 3)
    holder.ping()


def test_a_connect_that_is_too_large_is_refused_by_its_first_bytes(
    new_broker: NewBroker, dial: Dial, level: int
) -> None:
    """Before anybody knows who it is; afterwards the same client may send more."""
    broker = new_broker(settings={"connect_bytes_max": 1000})
    wire = dial(broker, level)
    wire.send(b"\x10\xff\xff\x03\x00\x04MQTT" + bytes([level]))  # 65 535 bytes follow, it says
    assert wire.until_closed() == []
    wire = dial(broker, level)
    wire.send(packets.connect("x" * 990, level, clean=True))
    assert wire.until_closed() == []
    wire = dial(broker, level)
    wire.hello("x" * 900, clean=True)
    wire.publish("t", bytes(100_000), 1)
    broker.process.wait_line("expected a packet of at most 1000 bytes")


def test_behind_a_proxy_the_client_is_banned_and_not_the_proxy(tmp_path: Path) -> None:
    """One client guesses passwords; another one comes by the same proxy."""
    passwords = tmp_path / "passwords"
    passwords.touch(0o600)
    hasher = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    write(passwords, with_user("", "ada", [hasher.hash("right")]))
    toml = (
        "failed_logins_max = 2\ntrusted_addresses = []\naddress_connections_max = 2\n"
        + listener_table("proxied", proxy_protocol_from=["127.0.0.1"])
        + f'[[authenticators]]\nkind = "password_file"\nfile = "{passwords}"\n'
    )
    with BrokerProcess(tmp_path / "data", toml=toml) as broker, ExitStack() as stack:

        def log_in(host: str, password: str) -> int:
            wire = stack.enter_context(Wire(broker.ports[1], V5))
            wire.send(f"PROXY TCP4 {host} 127.0.0.1 1234 1883\r\n".encode())
            wire.send(packets.connect("c", V5, user="ada", password=password, clean=True))
            try:
                return wire.expect(CONNACK).code
            except (Closed, ConnectionError):
                return -1

        guessed = [log_in("192.0.2.66", f"guess {number}") for number in range(5)]
        assert guessed[:2] == [0x87, 0x87] or guessed[:2] == [0x86, 0x86]
        assert BANNED in guessed
        assert log_in("192.0.2.66", "right") == -1
        for number in range(3):  # each from an address of its own, all by one proxy
            assert log_in(f"192.0.2.{number}", "right") == 0
        broker.process.wait_line("an address is banned for a while.*192.0.2.66")
        assert "guess" not in broker.log
