"""Settings: the layers, their order, and an error that names source, key, value and expectation."""

import re
from pathlib import Path
from typing import Final, get_args

import pytest
from pydantic import ValidationError

from holdfast.config import ListenAddress, Settings, load_settings
from holdfast.config.authenticators import AuthenticatorSettings
from holdfast.errors import ConfigError
from tools.configuration import PAGE, page
from tools.configuration_example import FILE, example


def load(toml: str, folder: Path) -> Settings:
    file = folder / "holdfast.toml"
    file.write_text(toml, encoding="utf-8")
    return load_settings(config_file=file)


def test_without_any_source_the_defaults_hold() -> None:
    settings = load_settings()
    assert settings.listen == (ListenAddress("127.0.0.1", 1883),)
    assert settings.data_dir == Path("data")
    assert settings.store == "sqlite"
    assert settings.connect_timeout_s == 10
    assert settings.packet_bytes_max == 1_048_576
    assert settings.session_expiry_max_s == 0xFFFF_FFFF


def test_each_layer_replaces_the_one_before_key_by_key(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text('store = "memory"\nlog_level = "debug"\ninflight_max = 7\nlisten = ["a:1"]\n')
    settings = load_settings(
        config_file=file,
        environment={"HOLDFAST_LOG_LEVEL": "error", "HOLDFAST_LISTEN": "b:2, [::1]:0", "HOME": "/"},
        overrides={"listen": ["c:3"], "store": None, "log_json": True},
    )
    assert settings.inflight_max == 7
    assert settings.store == "memory"
    assert settings.log_level == "error"
    assert settings.listen == (ListenAddress("c", 3),)
    assert settings.log_json is True


def test_variables_are_read_as_text(tmp_path: Path) -> None:
    settings = load_settings(
        environment={
            "HOLDFAST_CONNECT_TIMEOUT_S": "2.5",
            "HOLDFAST_DATA_DIR": str(tmp_path),
            "HOLDFAST_INFLIGHT_MAX": "7",
            "HOLDFAST_LISTEN": "b:2, [::1]:0",
            "HOLDFAST_LOG_JSON": "true",
        }
    )
    assert settings.connect_timeout_s == 2.5
    assert settings.data_dir == tmp_path
    assert settings.inflight_max == 7
    assert settings.listen == (ListenAddress("b", 2), ListenAddress("::1", 0))
    assert settings.log_json is True


def test_a_variable_can_name_the_file_and_the_argument_wins(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(f'data_dir = "{name}"')
    environment = {"HOLDFAST_CONFIG": str(tmp_path / "a")}
    assert load_settings(environment=environment).data_dir == Path("a")
    settings = load_settings(environment=environment, config_file=tmp_path / "b")
    assert settings.data_dir == Path("b")


def test_settings_do_not_change() -> None:
    settings = load_settings()
    with pytest.raises(ValidationError, match="frozen"):
        settings.store = "memory"


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:1883", "127.0.0.1", 1883),
        ("[::1]:1883", "::1", 1883),
        ("localhost:0", "localhost", 0),
        ("[::]:65535", "::", 65_535),
    ],
)
def test_addresses_read_as_they_are_written(text: str, host: str, port: int) -> None:
    (address,) = load_settings(overrides={"listen": [text]}).listen
    assert isinstance(address, ListenAddress)
    assert (address.host, address.port, str(address)) == (host, port, text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        ":1883",
        "a:",
        "a:65536",
        "a:-1",
        "a:1.5",
        "::1:1883",
        "[a]:1",
        "[::1]",
        "a b:1",
        "a:²",
    ],
)
def test_other_addresses_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^command line: --listen = .*: expected HOST:PORT, "):
        load_settings(overrides={"listen": [text]})


@pytest.mark.parametrize(
    ("toml", "complaint"),
    [
        ("recieve_maximum = 1", "recieve_maximum is unknown; did you mean receive_maximum?"),
        ("qwerty = 1", "qwerty is unknown"),
        ('"a\\nb" = 1', "a?b is unknown"),
        ("receive_maximum = 0", "receive_maximum = 0: expected a whole number from 1 to 65535"),
        ("receive_maximum = 1.0", "receive_maximum = 1.0: expected a whole number from 1 to 65535"),
        ("inflight_max = true", "inflight_max = true: expected a whole number from 1 to 65535"),
        ('inflight_max = "7"', 'inflight_max = "7": expected a whole number from 1 to 65535'),
        ("connect_timeout_s = inf", "connect_timeout_s = inf: expected a number from 0.1 to 3600"),
        ("connect_timeout_s = nan", "connect_timeout_s = nan: expected a number from 0.1 to 3600"),
        ('log_json = "yes"', 'log_json = "yes": expected true or false'),
        ('store = "redis"', 'store = "redis": expected one of sqlite, memory'),
        ('data_dir = ""', 'data_dir = "": expected the path of a folder'),
        ('listen = ["a:1", "b"]', 'listen = "b": expected HOST:PORT'),
        ('listen = ["a:1", "a:1"]', 'listen = "a:1": expected each address once'),
        ("listen = []", "listen = []: expected a list of HOST:PORT"),
        ("listen = [1883]", "listen = 1883: expected HOST:PORT"),
        ("listen", "not valid TOML: "),
        ('response_information = "a/+"', 'response_information = "a/+": expected a topic without'),
        ('response_information = "a/"', 'response_information = "a/": expected a topic without'),
        ('response_information = "$SYS/a"', 'response_information = "$SYS/a": expected a topic'),
        (
            "server_reference = 1",
            "server_reference = 1: expected a name of at most 1024 characters",
        ),
        ('server_reference = "a\\n"', 'server_reference = "a\\n": expected a name of at most'),
        (
            'server_redirect = "yes"',
            'server_redirect = "yes": expected one of none, use_another_se',
        ),
        (f'store = "{"x" * 999}"', f'store = "{"x" * 79}…: expected one of sqlite, memory'),
    ],
)
def test_a_wrong_file_is_named_with_key_value_and_expectation(
    tmp_path: Path, toml: str, complaint: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(toml, tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'holdfast.toml'}: {complaint}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('path = "mqtt"', 'path = "mqtt": expected the path of a URL, such as /mqtt'),
        ('path = "/mqtt?x"', 'path = "/mqtt?x": expected the path of a URL, such as /mqtt'),
        ('path = ""', "expected the path of a URL"),
        ('origins = ["https://a.example/"]', '"https://a.example/": expected origins, such as'),
        ('origins = ["a.example"]', '"a.example": expected origins, such as'),
        ('origins = ["*"]', '"*": expected origins, such as'),
        ("origins = [1]", "1: expected origins, such as"),
        ('origins = "https://a.example"', "expected a list of origins, such as"),
        ("ping_interval_s = -1", "ping_interval_s"),
        ("compression = true", "listeners[0].websocket.compression is unknown"),
    ],
)
def test_a_wrong_setting_of_websocket_is_named(line: str, complaint: str, tmp_path: Path) -> None:
    toml = f'[[listeners]]\naddress = "127.0.0.1:0"\n[listeners.websocket]\n{line}\n'
    with pytest.raises(ConfigError, match=re.escape(complaint)):
        load(toml, tmp_path)


def test_origins_are_compared_as_browsers_send_them(tmp_path: Path) -> None:
    given = '["https://A.example:443", "http://a.example:80", "http://a.example:8080", "null"]'
    toml = f'[[listeners]]\naddress = "a:1"\n[listeners.websocket]\norigins = {given}\n'
    websocket = load(toml, tmp_path).listeners[0].websocket
    assert websocket is not None
    expected = ("https://a.example", "http://a.example", "http://a.example:8080", "null")
    assert websocket.origins == expected


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "none.toml"
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read: No such file"):
        load_settings(config_file=missing)
    (tmp_path / "latin.toml").write_bytes(b"# caf\xe9\n")
    with pytest.raises(ConfigError, match=r"latin\.toml: expected UTF-8, byte 5 is not"):
        load_settings(config_file=tmp_path / "latin.toml")


@pytest.mark.parametrize(
    ("variable", "value", "complaint"),
    [
        ("HOLDFAST_DATADIR", "a", "HOLDFAST_DATADIR is unknown; did you mean HOLDFAST_DATA_DIR?"),
        ("HOLDFAST_store", "a", "HOLDFAST_store is unknown; did you mean HOLDFAST_STORE?"),
        ("HOLDFAST_STORE", "a", 'HOLDFAST_STORE = "a": expected one of sqlite, memory'),
        ("HOLDFAST_INFLIGHT_MAX", "", 'HOLDFAST_INFLIGHT_MAX = "": expected a whole number'),
    ],
)
def test_a_wrong_variable_is_named(variable: str, value: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(f'environment: {complaint}')}"):
        load_settings(environment={variable: value})


def test_variables_that_others_set_for_a_service_named_holdfast_are_left_alone() -> None:
    environment = {
        "HOLDFAST_PORT": "tcp://10.0.0.1:1883",
        "HOLDFAST_PORT_1883_TCP_ADDR": "10.0.0.1",
        "HOLDFAST_SERVICE_HOST": "10.0.0.1",
    }
    assert load_settings(environment=environment) == load_settings()


def test_the_reference_is_that_of_these_settings() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m tools.configuration"


def test_the_example_is_that_of_these_settings_and_changes_nothing() -> None:
    assert FILE.read_text(encoding="utf-8") == example(), "run: python -m tools.configuration"
    assert load_settings(config_file=FILE) == load_settings()


_TABLES: Final = {"listeners", "authenticators", "client_ids", "authorizers"}


def test_the_example_without_its_signs_is_right(tmp_path: Path) -> None:
    lines = FILE.read_text(encoding="utf-8").splitlines()
    plain = [re.sub(r"^#(?=\S)", "", line) for line in lines]
    settings = load("\n".join(plain), tmp_path)
    assert len(settings.authenticators) == len(get_args(get_args(AuthenticatorSettings)[0]))
    for key in Settings.model_fields.keys() - _TABLES:
        default = getattr(load_settings(), key)
        assert default is None or getattr(settings, key) == default
