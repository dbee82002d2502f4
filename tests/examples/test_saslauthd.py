"""The plug-in of examples/, installed as a package beside Holdfast, and asked by a real client.

saslauthd itself is played by a server that speaks its protocol on a Unix socket.
"""

import os
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from holdfast.auth import NOT_MINE, AuthenticatorUnavailable, AuthRequest, ConfigError, Link
from holdfast.auth.plugins import make_authorizer, make_link
from holdfast.broker.authentication import GRANT, REFUSE
from tests.support import packets
from tests.support.broker import BrokerProcess
from tests.support.packets import V5
from tests.support.plugin import install
from tests.support.wire import PATIENCE_S, Wire

EXAMPLE = Path(__file__).parents[2] / "examples" / "holdfast-saslauthd"


class Daemon:
    """Knows ada, whose password is "secret"."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.questions: list[list[bytes]] = []
        self.answer = b""  # instead of the right one
        daemon = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                strings = [self.rfile.read(int.from_bytes(self.rfile.read(2))) for _ in range(4)]
                daemon.questions.append(strings)
                is_right = strings[:2] == [b"ada", b"secret"]
                answer = daemon.answer or (b"OK" if is_right else b"NO authentication failed")
                self.wfile.write(len(answer).to_bytes(2) + answer)

        self._server = socketserver.ThreadingUnixStreamServer(str(path), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def stop(self) -> None:
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
            self.path.unlink()


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path / "mux")
    yield daemon
    daemon.stop()


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the module and what an installer writes beside it."""
    return install(
        tmp_path_factory.mktemp("site"),
        "holdfast_saslauthd",
        (EXAMPLE / "holdfast_saslauthd.py").read_text(),
        (EXAMPLE / "pyproject.toml").read_text(),
    )


@pytest.fixture
def link(daemon: Daemon, installed: Path, monkeypatch: pytest.MonkeyPatch) -> Link:
    monkeypatch.syspath_prepend(str(installed))
    return make_link("sasl", "saslauthd", {"socket": str(daemon.path), "realm": "r"})


def request(user_name: str | None, password: bytes | None) -> AuthRequest:
    return AuthRequest(None, None, "c", user_name, password, "192.0.2.1:7", False, None)


def test_the_daemon_is_asked_once_and_believed(link: Link, daemon: Daemon) -> None:
    for _ in range(3):
        answer = link.step(request("ada", b"secret"))
        assert answer is not NOT_MINE
        assert answer.kind == GRANT
    assert daemon.questions == [[b"ada", b"secret", b"mqtt", b"r"]]
    link.reload()
    link.step(request("ada", b"secret"))
    assert len(daemon.questions) == 2


@pytest.mark.parametrize(
    ("user_name", "password"),
    [
        ("ada", b"wrong"),
        ("bob", b"secret"),
        ("ada", b""),
        ("", b"secret"),
        ("ada", b"secret\0more"),
        ("ada", b"s" * 257),
    ],
)
def test_everyone_else_is_refused(
    link: Link, daemon: Daemon, user_name: str, password: bytes
) -> None:
    answer = link.step(request(user_name, password))
    assert answer is not NOT_MINE
    assert (answer.kind, answer.reason_code) == (REFUSE, 0x86)
    asked_strings = [string for question in daemon.questions for string in question]
    assert b"" not in asked_strings and not any(b"\0" in string for string in asked_strings)


def test_a_daemon_in_trouble_says_neither_yes_nor_no(link: Link, daemon: Daemon) -> None:
    daemon.answer = b"perhaps"
    with pytest.raises(AuthenticatorUnavailable, match="mux: expected OK or NO"):
        link.step(request("ada", b"secret"))
    daemon.stop()
    with pytest.raises(AuthenticatorUnavailable, match="mux: No such file or directory"):
        link.step(request("ada", b"secret"))


@pytest.mark.usefixtures("link")
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"sockt": "x"}, "sasl: options.sockt is unknown"),
        ({"socket": 7}, "sasl: options.socket: expected a value such as '/run/saslauthd/mux'"),
        ({"connections": True}, "sasl: options.connections: expected a value such as 4"),
    ],
)
def test_wrong_options_are_named(options: dict[str, object], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        make_link("sasl", "saslauthd", options)


@pytest.mark.usefixtures("link")
def test_a_plug_in_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(ConfigError, match="x: plugin = 'ldap': expected one of saslauthd, of the"):
        make_link("x", "ldap", {})
    with pytest.raises(ConfigError, match="expected one of own_topics"):
        make_authorizer("x", "saslauthd", {})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("builtins:zip", "expected a holdfast.auth.Link, got zip"),
        ("no_such_module:x", "cannot be used: ModuleNotFoundError"),
        ("builtins:no_such_name", "cannot be used: AttributeError"),
        ("builtins:int", "cannot be used: TypeError"),
    ],
)
def test_a_plug_in_that_is_none_is_one_line(
    value: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = EntryPoint("odd", value, "holdfast.authenticators")
    monkeypatch.setattr("holdfast.auth.plugins.entry_points", lambda group: [entry])
    with pytest.raises(ConfigError, match=f"^n: plugin 'odd'.*{expected}"):
        make_link("n", "odd", {})


def test_a_client_logs_in_through_the_plug_in(
    daemon: Daemon, installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [str(installed), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    toml = (
        '[[authenticators]]\nkind = "plugin"\nplugin = "saslauthd"\n'
        f'options = {{ socket = "{daemon.path}" }}\n'
        '[[authorizers]]\nplugin = "own_topics"\n'
    )
    with BrokerProcess(tmp_path / "data", toml=toml) as broker:
        with Wire(broker.port, V5) as wire:
            wire.send(packets.connect("c", V5, user="ada", password="secret"))
            assert wire.expect(packets.CONNACK).code == 0
            wire.subscribe("users/ada/#", 1)
            wire.send(packets.subscribe(9, [("users/bob/#", 1)], V5))
            assert wire.expect(packets.SUBACK).codes == (0x87,)
            wire.goodbye()
        with Wire(broker.port, V5) as wire:
            wire.send(packets.connect("c", V5, user="ada", password="guess"))
            assert wire.expect(packets.CONNACK).code == 0x86
        daemon.stop()
        with Wire(broker.port, V5) as wire:
            wire.send(packets.connect("c", V5, user="ada", password="secret2"))
            assert wire.expect(packets.CONNACK).code == 0x88
        broker.process.wait_line("the authenticator failed: .*mux: No such file")
        assert "guess" not in broker.log and "secret" not in broker.log


def test_the_example_builds_without_anything_else(tmp_path: Path) -> None:
    """Its metadata is right for an installer, which is asked for no more than to read it."""
    code = "from setuptools.build_meta import prepare_metadata_for_build_wheel as p; p('.')"
    folder = tmp_path / "copy"
    folder.mkdir()
    for name in ("pyproject.toml", "holdfast_saslauthd.py", "README.md"):
        (folder / name).write_text((EXAMPLE / name).read_text())
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        capture_output=True,
        timeout=PATIENCE_S,
        check=True,
    )
    assert done.returncode == 0
    (found,) = folder.glob("*.dist-info/entry_points.txt")
    assert "saslauthd = holdfast_saslauthd:make_link" in found.read_text()
