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
    warnings,
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


@pytest.mark.parametrize("address", ["127.0.0.1:1", "unix:a.sock"])
def test_behind_a_proxy_a_listener_is_everybodys(tmp_path: Path, address: str) -> None:
    toml = f'[[listeners]]\naddress = "{address}"\nproxy_protocol_from = ["127.0.0.1"]\n'
    (complaint,) = complaints(toml, tmp_path)
    assert f"the listener {address} (listeners[0]) can be reached through a proxy" in complaint
    assert complaints(f"{toml}allow_anonymous = true", tmp_path) == []
    assert complaints(toml + AUTHENTICATOR, tmp_path) == []


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
            "listeners[0].address: expected each address once, 127.0.0.1:1 is there twice",
        ),
        (
            '[[listeners]]\naddress = "127.0.0.1:1"\n[[listeners]]\naddress = "127.0.0.1:1"',
            "listeners[1].address: expected each address once, 127.0.0.1:1 is there twice",
        ),
        (
            '[[listeners]]\naddress = "unix:a"\n[[listeners]]\naddress = "unix:a"\nname = "b"',
            "listeners[1].address: expected each address once, unix:a is there twice",
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


def test_a_name_can_be_shown(tmp_path: Path) -> None:
    for name in ("a\\nb", " ", "\\u001b[2J"):
        toml = f'[[listeners]]\naddress = "127.0.0.1:0"\nname = "{name}"'
        expected = "listeners[0].name: expected a name of printable characters"
        assert complaints(toml, tmp_path) == [expected]


@pytest.mark.parametrize(
    ("toml", "complaint"),
    [
        (
            AUTHENTICATOR + AUTHENTICATOR,
            (
                "authenticators[1].name: expected a name that no other authenticator has, "
                "not password_file"
            ),
        ),
        (
            '[[listeners]]\naddress = "127.0.0.1:1"\nauthenticators = ["passwordfile"]\n'
            + AUTHENTICATOR,
            (
                "listeners[0].authenticators: expected some of password_file, not passwordfile; "
                "did you mean password_file?"
            ),
        ),
        (
            '[[listeners]]\naddress = "127.0.0.1:1"\nauthenticators = ["a\\tb"]',
            "listeners[0].authenticators: expected [[authenticators]] as well, not a?b",
        ),
        (
            '[[listeners]]\naddress = "127.0.0.1:1"\nauthenticators = ["password_file", '
            '"password_file"]\n' + AUTHENTICATOR,
            "listeners[0].authenticators: expected each name once",
        ),
    ],
)
def test_authenticators_are_told_apart(tmp_path: Path, toml: str, complaint: str) -> None:
    assert complaints(toml, tmp_path) == [complaint]


def test_anonymous_is_no_name_of_an_authenticator(tmp_path: Path) -> None:
    (complaint,) = complaints(f'{AUTHENTICATOR}name = "anonymous"', tmp_path)
    assert complaint.startswith("authenticators[0].name: expected a name that no other")


# --- listeners

TLS = '[[listeners]]\naddress = "127.0.0.1:1"\ntls.certificate = "PEM"\ntls.key = "PEM"\n'


@pytest.mark.parametrize(
    ("toml", "complaint"),
    [
        (
            'tls.client_certificates = "required"',
            'listeners[0].tls.client_ca: is missing, which client_certificates = "required" needs',
        ),
        (
            'tls.client_ca = "PEM"',
            (
                'listeners[0].tls.client_ca: expected client_certificates = "optional" or '
                '"required" beside it'
            ),
        ),
        (
            'tls.crl = "PEM"',
            (
                'listeners[0].tls.crl: expected client_certificates = "optional" or "required" '
                "beside it"
            ),
        ),
        (
            (
                'tls.sni = [{server_name = "a.example", certificate = "PEM", key = "PEM"}, '
                '{server_name = "A.example.", certificate = "PEM", key = "PEM"}]'
            ),
            (
                "listeners[0].tls.sni[1].server_name: expected each name once, a.example is there "
                "twice"
            ),
        ),
        (
            'allow_anonymous = true\nproxy_protocol_from = ["10.0.0.1", "unix", "10.0.0.1/8"]',
            (
                "listeners[0].proxy_protocol_from: expected addresses and networks, such as "
                "10.0.0.0/8, not 10.0.0.1/8"
            ),
        ),
        (
            "versions = []",
            "listeners[0].versions: expected one at least: nobody could connect",
        ),
        (
            'allow_anonymous = true\nproxy_protocol_from = ["proxy"]',
            (
                "listeners[0].proxy_protocol_from: expected addresses and networks, such as "
                "10.0.0.0/8, not proxy"
            ),
        ),
        (
            "keep_alive_min_s = 9\nkeep_alive_max_s = 8",
            "listeners[0].keep_alive_min_s: expected at most keep_alive_max_s, which is 8, not 9",
        ),
    ],
)
def test_a_listener_is_looked_at_whole(tmp_path: Path, toml: str, complaint: str) -> None:
    pem = tmp_path / "a.pem"
    pem.write_text("")
    assert complaints((TLS + toml).replace("PEM", str(pem)), tmp_path) == [complaint]


def test_keep_alive_bounds_of_broker_and_listener_fit_together(tmp_path: Path) -> None:
    both = "keep_alive_min_s = 9\nkeep_alive_max_s = 8"
    expected = "keep_alive_min_s: expected at most keep_alive_max_s, which is 8, not 9"
    assert complaints(both, tmp_path) == [expected]
    one = 'keep_alive_max_s = 8\n[[listeners]]\naddress = "127.0.0.1:1"\n'
    assert complaints(one, tmp_path) == []
    assert complaints(one + "keep_alive_min_s = 9", tmp_path) == [f"listeners[0].{expected}"]
    assert complaints(one + "keep_alive_min_s = 9\nkeep_alive_max_s = 0", tmp_path) == []


def test_certificates_that_no_client_is_asked_for_let_nobody_in(tmp_path: Path) -> None:
    by_certificate = '[[authenticators]]\nkind = "certificate"\n'
    listener = '[[listeners]]\naddress = "127.0.0.1:1"\n'
    why = "only certificates let clients in to 127.0.0.1:1"
    without_tls = "expected TLS, by [listeners.tls] in [[listeners]]"
    assert complaints(by_certificate + listener, tmp_path) == [
        f"listeners[0].tls: {without_tls}: {why}"
    ]
    assert complaints('listen = ["127.0.0.1:1"]\n' + by_certificate, tmp_path) == [
        f"listen: {without_tls}: {why}"
    ]
    tls = f'tls.certificate = "{tmp_path}/c"\ntls.key = "{tmp_path}/k"\n'
    for name in "ck":
        (tmp_path / name).touch(mode=0o600)
    assert complaints(by_certificate + listener + tls, tmp_path) == [
        f'listeners[0].tls.client_certificates: expected "optional" or "required": {why}'
    ]


# --- files


def test_a_file_that_cannot_be_read_is_named_with_its_setting(tmp_path: Path) -> None:
    toml = f'[[listeners]]\naddress = "127.0.0.1:1"\ntls.certificate = "{tmp_path}/a"\n'
    toml += f'tls.key = "{tmp_path}"\n[[authenticators]]\nkind = "password_file"\n'
    toml += f'file = "{tmp_path}/holdfast.toml/b"'
    assert complaints(toml, tmp_path) == [
        f"listeners[0].tls.certificate: {tmp_path}/a cannot be read: No such file or directory",
        f"listeners[0].tls.key: {tmp_path} cannot be read: it is a folder",
        f"authenticators[0].file: {tmp_path}/holdfast.toml/b cannot be read: Not a directory",
    ]
    expected = [f"acl_file: {tmp_path}/none cannot be read: No such file or directory"]
    assert complaints(f'acl_file = "{tmp_path}/none"', tmp_path) == expected


@pytest.mark.parametrize(
    ("mode", "warning"),
    [
        (0o600, None),
        (0o400, None),
        (0o640, None),
        (0o644, "has mode 0644, anyone on this machine can read it; chmod 600, or 640 for its"),
        (0o660, "has mode 0660, others than its owner can write it; chmod 600, or 640 for its"),
        (0o602, "has mode 0602, others than its owner can write it; chmod 600, or 640 for its"),
    ],
)
def test_a_secret_that_others_can_read_is_warned_of(
    tmp_path: Path, mode: int, warning: str | None
) -> None:
    for name in ("key", "certificate", "users"):
        (tmp_path / name).write_text("")
    (tmp_path / "key").chmod(mode)
    (tmp_path / "users").chmod(mode)
    toml = f"""
[[listeners]]
address = "127.0.0.1:1"
tls.certificate = "{tmp_path}/certificate"
tls.key = "{tmp_path}/key"
[[authenticators]]
kind = "password_file"
file = "{tmp_path}/users"
"""
    found = [str(one) for one in warnings(load(toml, tmp_path))]
    if warning is None:
        assert found == []
    else:
        assert found == [
            f"listeners[0].tls.key: {tmp_path}/key {warning} group",
            f"authenticators[0].file: {tmp_path}/users {warning} group",
        ]


# --- what works, and is likely not meant


@pytest.mark.parametrize(
    ("toml", "expected"),
    [
        ("", None),
        (
            'listen = ["0.0.0.0:1"]\nallow_anonymous = true',
            "allow_anonymous: anyone who reaches 0.0.0.0:1 may read and write every topic",
        ),
        (
            'listen = ["0.0.0.0:1"]\n[[authenticators]]\nkind = "password_file"\nfile = "u"',
            "listen: 0.0.0.0:1 has no TLS: whoever is in the network between can read passwords",
        ),
        (
            '[[listeners]]\naddress = "127.0.0.1:1"\nwebsocket = {}',
            "listeners[0].websocket.origins: is empty: any page that is open in a browser on this",
        ),
        ('[[listeners]]\naddress = "127.0.0.1:1"\nwebsocket.origins = ["http://a"]', None),
        ('[[authenticators]]\nkind = "http"\nurl = "http://127.0.0.1:8000/login"', None),
        ('[[authenticators]]\nkind = "http"\nurl = "https://192.0.2.1/login"', None),
        (
            '[[authenticators]]\nkind = "http"\nurl = "http://192.0.2.1:8000/login"',
            "authenticators[0].url: is not https: whoever is in the network between can read",
        ),
    ],
)
def test_what_is_likely_not_meant_is_warned_of(
    tmp_path: Path, toml: str, expected: str | None
) -> None:
    found = [str(one) for one in warnings(load(toml, tmp_path))]
    assert len(found) == (expected is not None)
    assert expected is None or found[0].startswith(expected)
