"""What is said of a wrong setting: where it is, what came, what was expected, and no secret."""

from pathlib import Path
from typing import Final

import pytest

from holdfast.config import load_settings
from holdfast.errors import ConfigError

LISTENER: Final = '[[listeners]]\naddress = "127.0.0.1:1"\n'
TLS: Final = LISTENER + 'tls.certificate = "a"\ntls.key = "a"\n'
USERS: Final = '[[authenticators]]\nkind = "password_file"\n'
SECRET: Final = "geheim"


def complaint(toml: str, folder: Path) -> str:
    file = folder / "a.toml"
    file.write_text(toml, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_settings(config_file=file)
    text = str(caught.value).removeprefix(f"{file}: ")
    assert text.isprintable()
    return text


def complaint_of_variable(variable: str, value: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_settings(environment={variable: value})
    return str(caught.value)


@pytest.mark.parametrize(
    ("toml", "expected"),
    [
        # Tables: one for a list of them, a value for one, one that is misspelt or lacks a key.
        (
            '[listeners]\naddress = "a:1"',
            "listeners is a table: expected a list of tables, each written [[listeners]]",
        ),
        ("listeners = [1]", "listeners[0] = 1: expected a table, written [[listeners]]"),
        (f"{LISTENER}tls = true", "listeners[0].tls = true: expected a table, written [listeners."),
        (
            f"{TLS}tls.sni = {{}}",
            "listeners[0].tls.sni is a table: expected a list of tables, each",
        ),
        (f"{LISTENER}adress = 1", "listeners[0].adress is unknown; did you mean address?"),
        ('[[listeners]]\nadress = "a:1"', "listeners[0].adress is unknown; did you mean address?"),
        ("[[listeners]]", "listeners[0].address is missing: expected HOST:PORT, such as 127.0.0.1"),
        (
            f'{LISTENER}tls.certificate = "a"',
            "listeners[0].tls.key is missing: expected the path of a file",
        ),
        (
            f'{TLS}tls.sni = [{{server_nam = "a"}}]',
            "listeners[0].tls.sni[0].server_nam is unknown; did you mean server_name?",
        ),
        (f"{LISTENER}tlss.key = 1", "listeners[0].tlss is unknown; did you mean tls?"),
        # A kind.
        (
            '[[authenticators]]\nfile = "a"',
            "authenticators[0].kind is missing: expected one of password_file, certificate",
        ),
        (
            '[[authenticators]]\nkind = "passwordfile"',
            'authenticators[0].kind = "passwordfile": expected one of password_file, certificate',
        ),
        (f"{USERS}", "authenticators[0].file is missing: expected the path of a file"),
        (f'{USERS}fil = "a"', "authenticators[0].fil is unknown; did you mean file?"),
        (f"{USERS}{USERS}", "authenticators[0].file is missing: expected the path of a file"),
        (
            f'{USERS}file = "a"\n{USERS}file = "b"\nqwerty = 1',
            "authenticators[1].qwerty is unknown",
        ),
        # In the wrong table.
        (
            f'{LISTENER}acl_file = "a"',
            (
                "listeners[0].acl_file is unknown; acl_file is a setting of the broker, it belongs "
                "above the first table"
            ),
        ),
        ('proxy_protocol_from = ["a"]', "proxy_protocol_from is unknown; it belongs into [[listen"),
        # Values.
        (
            f"{LISTENER}address = 1".replace('"127.0.0.1:1"\naddress = ', ""),
            "listeners[0].address = 1: expected HOST:PORT",
        ),
        (
            f"{TLS}tls.minimum_version = 1.2",
            'listeners[0].tls.minimum_version = 1.2: expected one of "1.2", "1.3"',
        ),
        (
            f"{TLS}tls.handshake_timeout_s = 0",
            "listeners[0].tls.handshake_timeout_s = 0: expected a number from 0.1 to 600",
        ),
        (
            f"{LISTENER}versions = [5.0]",
            'listeners[0].versions[0] = 5.0: expected one of "3.1", "3.1.1", "5.0"',
        ),
        (
            f'{LISTENER}versions = "5.0"',
            'listeners[0].versions = "5.0": expected a list, each one of "3.1", "3.1',
        ),
        (
            f'{LISTENER}authenticators = "a"',
            'listeners[0].authenticators = "a": expected a list, each a text',
        ),
        (f"{LISTENER}authenticators = [1]", "listeners[0].authenticators[0] = 1: expected a text"),
        (
            f"{LISTENER}packet_bytes_max = 1",
            "listeners[0].packet_bytes_max = 1: expected a whole number from 64 to 268435455",
        ),
        (f"{LISTENER}name = 1", "listeners[0].name = 1: expected a text of at most 64 characters"),
        (
            f"{LISTENER}unix_mode = 660",
            'listeners[0].unix_mode = 660: expected permissions in octal as a text, such as "0660"',
        ),
        (
            f'{LISTENER}unix_mode = "888"',
            'listeners[0].unix_mode = "888": expected permissions in octal',
        ),
        (
            f'{LISTENER}allow_anonymous = "yes"',
            'listeners[0].allow_anonymous = "yes": expected true or false',
        ),
        ("allow_anonymous = 1", "allow_anonymous = 1: expected true or false"),
        ('acl_file = ""', 'acl_file = "": expected the path of a file'),
        ("acl_file = 1979-05-27", "acl_file = 1979-05-27: expected the path of a file"),
        ("listen = {}", "listen is a table: expected a list of HOST:PORT"),
        # What the reader of TOML does not take for an error of its own.
        ("x = " + "1" * 5000, "not valid TOML: "),
        ("x = " + "[" * 5000, "not valid TOML: "),
        ('"\\u001b[31m" = 1', "?[31m is unknown"),
        ('[[listeners]]\naddress = "\\u001b[31m:1"', 'listeners[0].address = "\\u001b[31m:1": exp'),
    ],
)
def test_a_wrong_setting_is_named_with_its_place(tmp_path: Path, toml: str, expected: str) -> None:
    assert complaint(toml, tmp_path).startswith(expected)


@pytest.mark.parametrize(
    "toml",
    [
        f'[authenticators]\nkind = "password_file"\nsecret = "{SECRET}"',
        f'authenticators = ["{SECRET}"]',
        f'authenticators = "{SECRET}"',
        f'authenticators = {{ secret = "{SECRET}" }}',
        f'[[authenticators]]\npassword = "{SECRET}"',
        f'{USERS}password = "{SECRET}"',
        f'{USERS}file = ["{SECRET}"]',
        f'{USERS}file = {{ inline = "{SECRET}" }}',
        f"{USERS}file = '''\nada:{SECRET}\n'''",
        f'listeners = "{SECRET}"',
        f'{LISTENER}tls = "{SECRET}"',
        f"{LISTENER}tls.key = '''-----BEGIN PRIVATE KEY-----\n{SECRET}\n'''\ntls.certificate = 'a'",
        f"{LISTENER}tls.certificate = '''\n{SECRET}\n'''\ntls.key = 'a'",
        f"acl_file = '''\n{SECRET}\n'''",
        f'log_level = ["{SECRET}"]',
        f'server_reference = "http://user:{SECRET}@host\\n"',
        f'password = "{SECRET}"',
        f'store = "https://user:{SECRET}@host/"',
    ],
)
def test_what_may_be_a_secret_is_not_repeated(tmp_path: Path, toml: str) -> None:
    assert SECRET not in complaint(toml, tmp_path)


def test_a_mark_that_editors_put_before_the_text_is_no_key(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_bytes(b'\xef\xbb\xbfdata_dir = "a"\r\n')
    assert load_settings(config_file=file).data_dir == Path("a")


@pytest.mark.parametrize("value", ["", "[]", f'[{{"secret": "{SECRET}"}}]'])
@pytest.mark.parametrize("variable", ["LISTENERS", "AUTHENTICATORS", "LISTENERS__0__ADDRESS"])
def test_tables_cannot_be_variables(variable: str, value: str) -> None:
    table = variable.partition("__")[0].lower()
    assert complaint_of_variable(f"HOLDFAST_{variable}", value) == (
        f"environment: HOLDFAST_{variable} cannot be: {table} are tables, each written [[{table}]] "
        "in the configuration file, which HOLDFAST_CONFIG names"
    )


def test_a_variable_that_nearly_is_one_means_one_that_can_be() -> None:
    complaint = complaint_of_variable("HOLDFAST_LISTENER", "a:1")
    assert complaint.endswith("HOLDFAST_LISTENER is unknown; did you mean HOLDFAST_LISTEN?")
    complaint = complaint_of_variable("HOLDFAST_ALLOW_ANON", "false")
    assert complaint.endswith("is unknown; did you mean HOLDFAST_ALLOW_ANONYMOUS?")


@pytest.mark.parametrize("value", ["", "maybe", "2"])
def test_a_variable_that_is_no_truth_value_is_refused(value: str) -> None:
    assert complaint_of_variable("HOLDFAST_ALLOW_ANONYMOUS", value) == (
        f'environment: HOLDFAST_ALLOW_ANONYMOUS = "{value}": expected true or false'
    )
