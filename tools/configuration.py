"""``python -m tools.configuration``: write what is made from the settings' declarations.

These are docs/reference/configuration.md and examples/holdfast.toml. The text around the tables of
the page is in ``docs/reference/configuration.in.md``: ``{{settings A to B}}`` stands for the table
of these settings and those between them, ``{{table NAME}}`` for a model's.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, get_args, get_origin

from annotated_types import Ge, Le
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from holdfast.config import Settings
from holdfast.config.shown import toml
from holdfast.config.walk import parts_of, tables_of
from tools import configuration_example

FOLDER: Final = Path(__file__).parent.parent / "docs" / "reference"
SOURCE: Final = FOLDER / "configuration.in.md"
PAGE: Final = FOLDER / "configuration.md"
HEAD: Final = "| setting | values | default | meaning |\n| --- | --- | --- | --- |"


def page() -> str:
    """The page as it should be. Raises ValueError for a setting in no table, or in two."""
    shown: list[str] = []
    models = {model.__name__: model for model in models_in(Settings)}

    def settings(found: re.Match[str]) -> str:
        keys = list(Settings.model_fields)
        keys = keys[keys.index(found[1]) : keys.index(found[2]) + 1]
        shown.extend(keys)
        return _table({key: Settings.model_fields[key] for key in keys})

    def table(found: re.Match[str]) -> str:
        shown.append(found[1])
        return _table(models[found[1]].model_fields)

    text = SOURCE.read_text(encoding="utf-8")
    text = re.sub(r"\{\{settings (\w+) to (\w+)\}\}", settings, text)
    text = re.sub(r"\{\{table (\w+)\}\}", table, text)
    wanted = sorted([*Settings.model_fields, *models])
    if sorted(shown) != wanted:
        odd = [key for key in {*shown, *wanted} if shown.count(key) != 1]
        raise ValueError(f"expected each setting in one table of {SOURCE.name}: {sorted(odd)}")
    return text


def models_in(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """The models of all tables in a model, and in these."""
    for field in model.model_fields.values():
        for table in tables_of(field).values():
            yield table
            yield from models_in(table)


def _table(fields: dict[str, FieldInfo]) -> str:
    return "\n".join([HEAD, *(_row(key, field) for key, field in fields.items())])


def _row(key: str, field: FieldInfo) -> str:
    if not field.description:
        raise ValueError(f"expected a description of the setting {key}")
    return f"| `{key}` | {_values(field)} | {_default(field)} | {field.description} |"


def _values(field: FieldInfo) -> str:
    """What values a setting takes, in a few words."""
    if tables := tables_of(field):
        kinds = [kind for kind in tables if kind.islower()]
        is_list = get_origin(field.annotation) is tuple
        words = "tables" if is_list else "table"
        return f"{words} of {_choices(kinds)}" if len(kinds) > 1 else words
    annotation = field.annotation
    if type(None) in get_args(annotation):
        annotation = next(part for part in get_args(annotation) if part is not type(None))
    if get_origin(annotation) is tuple:
        return f"list of {_one(get_args(annotation)[0], field)}"
    if get_origin(annotation) is dict:
        return f"table of {_one(get_args(annotation)[1], field)}"
    return _one(annotation, field)


def _one(annotation: object, field: FieldInfo) -> str:
    while hasattr(annotation, "__metadata__"):
        annotation = get_args(annotation)[0]
    if annotation is bool:
        return "`true`, `false`"
    if annotation in (int, float):
        least = [f"{bound.ge}" for bound in parts_of(field, Ge)]
        most = [f"{bound.le}" for bound in parts_of(field, Le)]
        whole = "whole number" if annotation is int else "number"
        return f"{whole}, {least[0]} to {most[0]}" if least and most else whole
    words = [part for part in get_args(annotation) if isinstance(part, str)]
    if words:
        return _choices(words)
    return "path" if annotation is Path else "text"


def _choices(words: list[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def _default(field: FieldInfo) -> str:
    """A default as TOML writes it."""
    if field.default is PydanticUndefined and field.default_factory is None:
        return "**needed**"
    default = field.get_default(call_default_factory=True, validated_data={})
    return "not given" if default is None else f"`{toml(default)}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    configuration_example.FILE.write_text(configuration_example.example(), encoding="utf-8")
