"""Settings that are right one by one and wrong together, and who may connect by default."""

import socket
from pathlib import Path

import pytest

from holdfast.config import (
    ListenAddress,
    Settings,
    UnixAddress,
    check_reach,
    check_settings,
    load_settings,
    problems,
)
from holdfast.errors import ConfigError

AUTHENTICATOR = '[[authenticators]]\nkind = "password_file"\nfile = "/dev/null"\n'


def load(toml: str, folder: Path, **variables: str) -> Settings:
    file = folder / "holdfast.toml"
    file.write_text(toml, encoding="utf-8")
    environment = {f"HOLDFAST_{key.upper()}": value for key, value in variables.items()}
    return load_settings(config_file=file, environment=environment)


def complaints(toml: str, folder: Path, **variables: str) -> list[str]:
    return [str(problem) for problem in problems(load(toml, folder, **variables))]


# --- the safe default


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.0.0.2", "127.1", "[::1]", "[::ffff:127.0.0.1]", "localhost", "LocalHost"],
)
def test_on_loopback_anyone_may_connect(tmp_path: Path, host: str) -> None:
    settings = load(f'listen = ["{host}:1883"]', tmp_path)
    check_settings(settings)
    (listener,) = settings.all_listeners
    assert listener.is_local
    assert settings.lets_in_anonymous(listener)


def test_on_a_unix_socket_anyone_of_this_machine_may_connect(tmp_path: Path) -> None:
    settings = load('listen = ["unix:holdfast.sock"]', tmp_path)
    check_settings(settings)
    assert settings.all_listeners[0].is_local
    check_reach(settings, settings.all_listeners[0], [UnixAddress("holdfast.sock")])


@pytest.mark.parametrize(
    "host",
    [
        "0.0.0.0",
        "0",
        "[::]",
        "192.0.2.1",
        "[2001:db8::1]",
        "[::ffff:192.0.2.1]",
        "[::ffff:0.0.0.0]",
        "128.0.0.1",
        "255.255.255.255",
    ],
)
@pytest.mark.parametrize("layer", ["file", "listener", "environment", "command line"])
def test_elsewhere_nobody_may_unless_it_is_written(tmp_path: Path, host: str, layer: str) -> None:
    address = f"{host}:1883"
    if layer == "file":
        settings = load(f'listen = ["{address}"]', tmp_path)
    elif layer == "listener":
        settings = load(f'[[listeners]]\naddress = "{address}"', tmp_path)
    elif layer == "environment":
        settings = load("", tmp_path, listen=address)
    else:
        settings = load_settings(overrides={"listen": [address]})
    with pytest.raises(ConfigError) as caught:
        check_settings(settings)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"allow_anonymous: the listener {address} (listen")
    for needed in ("[[authenticators]]", "holdfast passwd", "docs/guides/", "--allow-anonymous"):
        assert needed in message


@pytest.mark.parametrize(
    "toml",
    [
        "allow_anonymous = true\n" + '[[listeners]]\naddress = "0.0.0.0:1"',
        '[[listeners]]\naddress = "0.0.0.0:1"\nallow_anonymous = true',
        '[[listeners]]\naddress = "0.0.0.0:1"\n' + AUTHENTICATOR,
        '[[listeners]]\naddress = "0.0.0.0:1"\nauthenticators = ["password_file"]\n'
        + AUTHENTICATOR,
        '[[listeners]]\naddress = "0.0.0.0:1"\nauthenticators = []\nallow_anonymous = true\n'
        + AUTHENTICATOR,
    ],
)
def test_elsewhere_with_authenticators_or_leave(tmp_path: Path, toml: str) -> None:
    settings = load(toml, tmp_path)
    check_settings(settings)
    check_reach(settings, settings.all_listeners[0], [ListenAddress("0.0.0.0", 1)])


@pytest.mark.parametrize(
    ("toml", "listener"),
    [
        # Authenticators elsewhere are none here, and leave there is none here.
        ('[[listeners]]\naddress = "0.0.0.0:1"\nauthenticators = []\n' + AUTHENTICATOR, 0),
        (
            "".join(
                f'[[listeners]]\naddress = "0.0.0.0:{port}"\n{more}'
                for port, more in ((1, "allow_anonymous = true\n"), (2, ""))
            ),
            1,
        ),
        ('listen = ["127.0.0.1:1"]\n[[listeners]]\naddress = "[::]:2"', 0),
    ],
)
def test_each_listener_needs_its_own(tmp_path: Path, toml: str, listener: int) -> None:
    (complaint,) = complaints(toml, tmp_path)
    assert f"(listeners[{listener}]) can be reached from other machines" in complaint


def test_a_name_is_local_if_all_that_it_stands_for_is(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"one": ["127.0.0.1"], "both": ["127.0.0.1", "::1"], "mixed": ["127.0.0.1", "10.0.0.1"]}

    def getaddrinfo(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        if host not in found:
            raise socket.gaierror(socket.EAI_NONAME, "not known")
        return [(0, 0, 0, "", (address, port)) for address in found[host]]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert ListenAddress("one", 1).is_local
    assert ListenAddress("both", 1).is_local
    assert not ListenAddress("mixed", 1).is_local
    assert not ListenAddress("none", 1).is_local
    # What is not found cannot be bound; should it be found then, it is looked at again.
    settings = load_settings(overrides={"listen": ["none:1"]})
    check_settings(settings)
    for bound in (ListenAddress("10.0.0.1", 1), ListenAddress("0.0.0.0", 1)):
        found[bound.host] = [bound.host]
        with pytest.raises(ConfigError, match="can be reached from other machines"):
            check_reach(settings, settings.all_listeners[0], [ListenAddress("::1", 1), bound])


# --- who is let in


@pytest.mark.parametrize(
    ("toml", "is_let_in"),
    [
        ("", True),
        (AUTHENTICATOR, False),
        ("allow_anonymous = true\n" + AUTHENTICATOR, True),
        ("allow_anonymous = false\n" + AUTHENTICATOR, False),
        ('[[listeners]]\naddress = "127.0.0.1:1"\nauthenticators = []\n' + AUTHENTICATOR, True),
        (
            "allow_anonymous = true\n"
            '[[listeners]]\naddress = "127.0.0.1:1"\nallow_anonymous = false\n' + AUTHENTICATOR,
            False,
        ),
        (
            "allow_anonymous = false\n"
            '[[listeners]]\naddress = "127.0.0.1:1"\nallow_anonymous = true\n' + AUTHENTICATOR,
            True,
        ),
    ],
)
def test_a_listener_lets_in_whom_no_authenticator_knows(
    tmp_path: Path, toml: str, is_let_in: bool
) -> None:
    settings = load(toml, tmp_path)
    check_settings(settings)
    assert settings.lets_in_anonymous(settings.all_listeners[0]) is is_let_in


def test_leave_can_be_given_by_a_variable_and_an_option(tmp_path: Path) -> None:
    check_settings(load('listen = ["0.0.0.0:1"]', tmp_path, allow_anonymous="true"))
    check_settings(load_settings(overrides={"listen": ["0.0.0.0:1"], "allow_anonymous": True}))


@pytest.mark.parametrize(
    ("toml", "key"),
    [
        ("allow_anonymous = false", "allow_anonymous"),
        (
            '[[listeners]]\naddress = "127.0.0.1:1"\nallow_anonymous = false',
            "listeners[0].allow_anonymous",
        ),
        (
            "allow_anonymous = false\n"
            '[[listeners]]\naddress = "127.0.0.1:1"\nauthenticators = []\n' + AUTHENTICATOR,
            "allow_anonymous",
        ),
    ],
)
def test_a_listener_that_nobody_could_use_is_a_mistake(tmp_path: Path, toml: str, key: str) -> None:
    (complaint,) = complaints(toml, tmp_path)
    assert complaint.startswith(f"{key}: expected true, or authenticators: nobody could connect")


# --- names


@pytest.mark.parametrize(
    ("toml", "complaint"),
    [
        (
            'listen = ["127.0.0.1:1"]\n[[listeners]]\naddress = "127.0.0.1:1"\nname = "a"',
            "listeners[0].address: expected an address once, 127.0.0.1:1 is there twice",
        ),
        (
            '[[listeners]]\naddress = "127.0.0.1:1"\n[[listeners]]\naddress = "127.0.0.1:1"',
            "listeners[1].address: expected an address once, 127.0.0.1:1 is there twice",
        ),
        (
            '[[listeners]]\naddress = "unix:a"\n[[listeners]]\naddress = "unix:a"\nname = "b"',
            "listeners[1].address: expected an address once, unix:a is there twice",
        ),
        (
            '[[listeners]]\naddress = "127.0.0.1:0"\n[[listeners]]\naddress = "127.0.0.1:0"',
            "listeners[1].name: expected a name that no other listener has, not 127.0.0.1:0",
        ),
        (
            'listen = ["127.0.0.1:0"]\n[[listeners]]\naddress = "127.0.0.1:0"',
            "listeners[0].name: expected a name that no other listener has, not 127.0.0.1:0",
        ),
        (
            'listen = ["[::1]:2"]\n[[listeners]]\naddress = "127.0.0.1:1"\nname = "[::1]:2"',
            "listeners[0].name: expected a name that no other listener has, not [::1]:2",
        ),
    ],
)
def test_listeners_are_told_apart(tmp_path: Path, toml: str, complaint: str) -> None:
    assert complaints(toml, tmp_path) == [complaint]


def test_any_free_port_may_be_asked_for_again(tmp_path: Path) -> None:
    assert complaints('listen = ["127.0.0.1:0", "127.0.0.1:0"]', tmp_path) == []
    toml = '[[listeners]]\naddress = "127.0.0.1:0"\n[[listeners]]\naddress = "127.0.0.1:0"\n'
    assert complaints(toml + 'name = "b"', tmp_path) == []
