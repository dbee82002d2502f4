"""examples/holdfast.toml, made from the settings' declarations: each with what it means.

Descriptions are comments with a space behind their sign; settings are commented out without one,
with their defaults, so that whoever takes the sign away has what the reference says.
"""

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Final, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from holdfast.config import Settings
from holdfast.config.shown import toml
from holdfast.config.walk import read_file_mark, tables_of

FILE: Final = Path(__file__).parent.parent / "examples" / "holdfast.toml"
WIDTH: Final = 100

HEAD: Final = """\
# Every setting of Holdfast, commented out, with its default or an example of its value. Take the
# sign from the lines that you want to change; a table needs its [header] too, and the settings
# that are marked as needed. Then: holdfast config check holdfast.toml
#
# Bounds and sources of settings: docs/reference/configuration.md.
"""

# What stands in the example for settings that have no default.
VALUES: Final[dict[str, object]] = {
    "client_ids": ("%u:*",),
    "plugin": "example",
    "address": "0.0.0.0:8883",
    "server_name": "mqtt.example.org",
    "allow_anonymous": False,
    "packet_bytes_max": 65_536,
    "connections_max": 10_000,
    "connections_per_s": 100.0,
    "publish_messages_per_s": 1000,
    "publish_messages_burst": 10_000,
    "publish_bytes_per_s": 1_000_000,
    "publish_bytes_burst": 10_000_000,
    "keep_alive_min_s": 5,
    "keep_alive_max_s": 3600,
    "authenticators": ("password_file",),
    "acl_file": "/etc/holdfast/acl.toml",
    "certificate": "/etc/holdfast/certificate.pem",
    "key": "/etc/holdfast/key.pem",
    "client_ca": "/etc/holdfast/clients.pem",
    "crl": "/etc/holdfast/revoked.pem",
    "algorithms": ("HS256", "ES256"),
    "jwks_url": "https://login.example.org/jwks.json",
    "url": "https://login.example.org/mqtt",
    "file": "/etc/holdfast/passwords",
}


def example() -> str:
    """The file as it should be."""
    return "\n".join([HEAD, *_settings(Settings), *_tables(Settings, "")]) + "\n"


def _settings(model: type[BaseModel]) -> Iterator[str]:
    """The settings of a table that are no tables."""
    for key, field in model.model_fields.items():
        if tables_of(field):
            continue
        is_needed = field.default is PydanticUndefined and field.default_factory is None
        needed = "Needed. " if is_needed else ""
        yield from _comment(f"{needed}{field.description}")
        yield f"#{key} = {toml(_value(key, field))}"
        yield ""


def _tables(model: type[BaseModel], path: str) -> Iterator[str]:
    """The tables of a model, each with all that can be in it."""
    for key, field in model.model_fields.items():
        here = f"{path}{key}"
        for table in tables_of(field).values():
            is_list = get_origin(field.annotation) is tuple
            yield from _comment(f"--- {(table.__doc__ or '').splitlines()[0]}")
            yield f"#[[{here}]]" if is_list else f"#[{here}]"
            yield ""
            yield from _settings(table)
            yield from _tables(table, f"{here}.")


def _value(key: str, field: FieldInfo) -> object:
    default = field.get_default(call_default_factory=True, validated_data={})
    if default is not PydanticUndefined and default is not None:
        return default
    if key == "kind":
        return get_args(field.annotation)[0]
    if key not in VALUES and read_file_mark(field) is not None:
        return f"/etc/holdfast/{key}"
    # Where this does not do, the test of the file says so, and it belongs into VALUES.
    return VALUES.get(key, "example")


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="# ", subsequent_indent="# ")
