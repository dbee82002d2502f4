"""The settings that hold, as a file: it gives the same settings, and no secret."""

import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, SecretStr

from holdfast.config import load_with_sources, shown
from holdfast.config.loading import Loaded
from holdfast.config.settings import Settings

WHOLE = """
data_dir = "/var/lib/\\"a\\\\b\\u2028 ü"
listen = ["127.0.0.1:1", "unix:a b.sock"]
connect_timeout_s = 2.5
log_json = true

[[listeners]]
address = "[::1]:8883"
versions = ["5.0"]
proxy_protocol_from = ["10.0.0.0/8"]
[listeners.tls]
certificate = "c"
key = "k"
[[listeners.tls.sni]]
server_name = "a.example"
certificate = "c2"
key = "k2"
[[listeners.tls.sni]]
server_name = "b.example"
certificate = "c3"
key = "k3"
[listeners.websocket]
path = "/a"

[[listeners]]
address = "127.0.0.1:0"
authenticators = []

[[authenticators]]
kind = "password_file"
file = "users"
"""


def test_what_is_shown_gives_the_same_settings(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    for toml in ("", WHOLE):
        file.write_text(toml, encoding="utf-8")
        loaded = load_with_sources(config_file=file)
        for with_defaults in (True, False):
            file.write_text(shown(loaded, with_defaults=with_defaults), encoding="utf-8")
            again = load_with_sources(config_file=file)
            assert again.settings == loaded.settings
            assert again.settings.all_listeners == loaded.settings.all_listeners


def test_it_says_where_each_setting_comes_from(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text('inflight_max = 7\nstore = "memory"\n[[listeners]]\naddress = "[::1]:1"')
    loaded = load_with_sources(
        config_file=file,
        environment={"HOLDFAST_STORE": "sqlite"},
        overrides={"log_json": True, "data_dir": None},
    )
    lines = shown(loaded).splitlines()
    for line in (
        f"inflight_max = 7  # {file}",
        'store = "sqlite"  # HOLDFAST_STORE',
        "log_json = true  # --log-json",
        'data_dir = "data"',
        "# acl_file is not given",
        f"# listeners: {file}",
    ):
        assert line in lines, line
    assert not any(line.startswith("listen =") for line in lines)
    changed = shown(loaded, with_defaults=False).splitlines()
    assert [line.partition(" ")[0] for line in changed[:3]] == ["store", "log_json", "inflight_max"]


class _Link(BaseModel):
    kind: Literal["link"] = "link"
    secret: str = "geheim-1"
    pepper: SecretStr = SecretStr("geheim-2")
    headers: dict[str, str] = {"Authorization": "geheim-3"}
    attributes: dict[str, str] = {"a b": "c"}
    token_bytes_max: int = 7


class _Settings(Settings):
    link: _Link = _Link()


def test_secrets_are_not_shown() -> None:
    text = shown(Loaded(_Settings(), {}))
    assert "geheim" not in text
    assert tomllib.loads(text)["link"] == {
        "kind": "link",
        "attributes": {"a b": "c"},
        "token_bytes_max": 7,
    }
