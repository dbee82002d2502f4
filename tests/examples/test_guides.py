"""What the guides show is tried as a reader would: their programs run as they are printed."""

import os
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from holdfast.auth.building import build_access
from holdfast.auth.passwords import new_hash
from holdfast.config import load_settings
from holdfast.config.checks import problems
from tests.support import packets
from tests.support.broker import BrokerProcess
from tests.support.packets import CONNACK, V5
from tests.support.plugin import install
from tests.support.wire import Wire

GUIDES = Path(__file__).parents[2] / "docs" / "guides"


def block(guide: str, language: str, number: int = 0) -> str:
    """A block of code of a guide."""
    text = (GUIDES / guide).read_text(encoding="utf-8")
    found = re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return str(found[number])


def connack(broker: BrokerProcess, user: str | None, password: str | None) -> int:
    with Wire(broker.port, V5) as wire:
        wire.send(packets.connect("c", V5, user=user, password=password))
        return wire.expect(CONNACK).code


def test_the_http_service_of_the_guide(tmp_path: Path) -> None:
    names: dict[str, object] = {"__name__": "login"}
    exec(compile(block("http-authentication.md", "python"), "login.py", "exec"), names)
    login = names["Login"]
    assert isinstance(login, type) and issubclass(login, BaseHTTPRequestHandler)
    with ThreadingHTTPServer(("127.0.0.1", 0), login) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        toml = block("http-authentication.md", "toml")
        assert "127.0.0.1:8000" in toml
        toml = toml.replace("127.0.0.1:8000", f"127.0.0.1:{server.server_address[1]}")
        with BrokerProcess(tmp_path / "data", toml=toml) as broker:
            assert connack(broker, "ada", "let ada in") == 0
            assert connack(broker, "ada", "wrong") == 0x86
            assert connack(broker, "bob", "wrong") == 0x86
            assert connack(broker, None, None) == 0x86
        server.shutdown()
        thread.join()


def test_the_plug_in_of_the_guide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    site.mkdir()
    install(site, "holdfast_door", block("plugins.md", "python"), block("plugins.md", "toml"))
    paths = [str(site), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    word = tmp_path / "word"
    word.write_text("sesame\n")
    toml = block("plugins.md", "toml", 1)
    assert '"word"' in toml
    with BrokerProcess(tmp_path / "data", toml=toml.replace('"word"', f'"{word}"')) as broker:
        assert connack(broker, "ada", "sesame") == 0
        assert connack(broker, "ada", "mellon") == 0x86
        word.write_text("mellon\n")
        broker.process.wait_line("read anew")
        assert connack(broker, "ada", "mellon") == 0


def test_the_authorizer_of_the_guide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    site.mkdir()
    project = '[project]\nname = "holdfast-own-topics"\nversion = "1.0"\n'
    project += block("plugins.md", "toml", 2)
    install(site, "holdfast_own_topics", block("plugins.md", "python", 1), project)
    paths = [str(site), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    password_file = tmp_path / "passwords"
    password_file.write_text(f"ada:{new_hash(b'secret')}\n")
    toml = f'[[authenticators]]\nkind = "password_file"\nfile = "{password_file}"\n'
    toml += block("plugins.md", "toml", 3)
    with BrokerProcess(tmp_path / "data", toml=toml) as broker, Wire(broker.port, V5) as wire:
        wire.send(packets.connect("c", V5, user="ada", password="secret"))
        assert wire.expect(CONNACK).code == 0
        wire.subscribe("users/ada/#", 1)
        wire.send(packets.subscribe(9, [("users/bob/#", 1)], V5))
        assert wire.expect(packets.SUBACK).codes == (0x87,)
        broker.process.wait_line("denied: subscribe to 'users/bob/#', no rule allows it")


@pytest.mark.parametrize("number", range(4))
def test_the_tables_of_the_guide_about_passwords_are_right(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("passwords", "guests"):
        (tmp_path / name).touch()
    toml = block("passwords.md", "toml", number)
    if "authenticators" not in toml:
        toml += block("passwords.md", "toml", 0).partition("\n\n")[2]
    (tmp_path / "holdfast.toml").write_text(toml, encoding="utf-8")
    settings = load_settings(config_file=tmp_path / "holdfast.toml")
    assert list(problems(settings)) == []
    access = build_access(settings)
    access.read()
    assert set(access.chains) == {listener.title for listener in settings.all_listeners}
