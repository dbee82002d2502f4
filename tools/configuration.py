"""``python -m tools.configuration``: write docs/reference/configuration.md from the settings.

The text around the tables is in ``docs/reference/configuration.in.md``: ``{{settings A to B}}``
stands for the table of these settings and those between them, ``{{table NAME}}`` for a model's.
"""

import json
import re
from pathlib import Path
from typing import Final

from annotated_types import Ge, Le
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from holdfast.config import Settings, authenticators, listeners

FOLDER: Final = Path(__file__).parent.parent / "docs" / "reference"
SOURCE: Final = FOLDER / "configuration.in.md"
PAGE: Final = FOLDER / "configuration.md"
HEAD: Final = "| setting | default | meaning |\n| --- | --- | --- |"


def page() -> str:
    """The page as it should be. Raises ValueError for a setting in no table, or in two."""
    shown: list[str] = []

    def settings(found: re.Match[str]) -> str:
        keys = list(Settings.model_fields)
        keys = keys[keys.index(found[1]) : keys.index(found[2]) + 1]
        shown.extend(keys)
        return _table({key: Settings.model_fields[key] for key in keys})

    def table(found: re.Match[str]) -> str:
        model = _models()[found[1]]
        shown.append(found[1])
        return _table(model.model_fields)

    text = SOURCE.read_text(encoding="utf-8")
    text = re.sub(r"\{\{settings (\w+) to (\w+)\}\}", settings, text)
    text = re.sub(r"\{\{table (\w+)\}\}", table, text)
    wanted = sorted([*Settings.model_fields, *_models()])
    if sorted(shown) != wanted:
        odd = [key for key in {*shown, *wanted} if shown.count(key) != 1]
        raise ValueError(f"expected each setting in one table of {SOURCE.name}: {sorted(odd)}")
    return text


def _models() -> dict[str, type[BaseModel]]:
    """The models of all tables of the file, by name."""
    found: dict[str, type[BaseModel]] = {}
    for module in (listeners, authenticators):
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, BaseModel) and value is not BaseModel:
                found[value.__name__] = value
    return found


def _table(fields: dict[str, FieldInfo]) -> str:
    return "\n".join([HEAD, *(_row(key, field) for key, field in fields.items())])


def _row(key: str, field: FieldInfo) -> str:
    meaning = field.description
    if not meaning:
        raise ValueError(f"expected a description of the setting {key}")
    least = [bound.ge for bound in field.metadata if isinstance(bound, Ge)]
    most = [bound.le for bound in field.metadata if isinstance(bound, Le)]
    if least and most:
        meaning += f" From {least[0]} to {most[0]}."
    return f"| `{key}` | {_shown(field.default)} | {meaning} |"


def _shown(value: object) -> str:
    """A default as TOML writes it."""
    if value is PydanticUndefined:
        return "needed"
    if value is None:
        return "not given"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`{json.dumps([str(part) for part in value])}`"
    return f"`{value if isinstance(value, int | float) else json.dumps(str(value))}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
