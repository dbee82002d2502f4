"""The settings that hold, as a file that would give the same, with where each comes from."""

from collections.abc import Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from holdfast.config.complaints import is_secret
from holdfast.config.loading import Loaded
from holdfast.config.values import ListenAddress, UnixAddress
from holdfast.config.walk import read_file_mark

HIDDEN = "a secret, which is not shown"


def shown(loaded: Loaded, *, with_defaults: bool = True) -> str:
    """All settings as TOML, tables last as it has to be; those of the defaults only if asked for.

    What may be a secret is a comment in its place.
    """
    settings, sources = loaded.settings, loaded.sources
    lines: list[str] = []
    tables: list[str] = []
    for key, field in type(settings).model_fields.items():
        value = getattr(settings, key)
        if key == "listen" and not settings.plain_listeners:
            continue  # it holds where there are no tables
        source = sources.get(key)
        if _is_table(value):
            tables += ["", f"# {key}: {source or 'default'}", *_tables(key, value)]
        elif source is not None:
            lines.append(f"{_line(key, field, value)}  # {source}")
        elif with_defaults:
            lines.append(_line(key, field, value))
    return "\n".join([*lines, *tables])


def _tables(path: str, value: object) -> Iterator[str]:
    """A table, or each of a list of them, under its header."""
    parts = value if isinstance(value, tuple) else (value,)
    for number, part in enumerate(parts):
        assert isinstance(part, BaseModel)
        if number > 0:
            yield ""
        yield f"[[{path}]]" if isinstance(value, tuple) else f"[{path}]"
        inner: list[str] = []
        for key, field in type(part).model_fields.items():
            found = getattr(part, key)
            if _is_table(found):
                inner += ["", *_tables(f"{path}.{key}", found)]
            else:
                yield _line(key, field, found)
        yield from inner


def _is_table(value: object) -> bool:
    if isinstance(value, tuple) and value:
        value = value[0]
    return isinstance(value, BaseModel)


def _line(key: str, field: FieldInfo, value: object) -> str:
    if value is None:
        return f"# {key} is not given"
    is_number = isinstance(value, bool | int | float)
    # Of a file only the path is here.
    if not is_number and read_file_mark(field) is None and is_secret(key, field):
        return f"# {key}: {HIDDEN}"
    return f"{key} = {toml(value)}"


def toml(value: object) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, tuple):
        return f"[{', '.join(toml(part) for part in value)}]"
    if isinstance(value, Mapping):
        pairs = (f"{_text(str(key))} = {toml(part)}" for key, part in value.items())
        return f"{{ {', '.join(pairs)} }}" if value else "{}"
    assert not isinstance(value, SecretStr)
    known = str | Path | ListenAddress | UnixAddress | IPv4Network | IPv6Network
    assert isinstance(value, known), type(value)
    return _text(str(value))


def _text(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08X}" for c in escaped) + '"'
