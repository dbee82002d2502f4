"""How settings nest: the tables of the file, and each setting by the name the file has for it."""

from collections.abc import Iterator
from typing import get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from holdfast.config.values import ReadFile


def settings_in(table: BaseModel, prefix: str = "") -> Iterator[tuple[str, FieldInfo, object]]:
    """Each setting that is no table, with its declaration and value: ``listeners[0].tls.key``."""
    for key, field in type(table).model_fields.items():
        value = getattr(table, key)
        if isinstance(value, BaseModel):
            yield from settings_in(value, f"{prefix}{key}.")
        elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
            for index, part in enumerate(value):
                yield from settings_in(part, f"{prefix}{key}[{index}].")
        else:
            yield f"{prefix}{key}", field, value


def read_file_mark(field: FieldInfo) -> ReadFile | None:
    """The mark of a setting that names a file to read; of ``FilePath | None`` as well."""
    waiting: list[object] = [*field.metadata, field.annotation]
    while waiting:
        part = waiting.pop()
        if isinstance(part, ReadFile):
            return part
        waiting.extend(getattr(part, "__metadata__", ()))
        waiting.extend(get_args(part))
    return None


def tables_of(field: FieldInfo | None) -> dict[str, type[BaseModel]]:
    """The models of the tables that a setting takes, by their kind, or else by their name."""
    found: dict[str, type[BaseModel]] = {}
    waiting: list[object] = [] if field is None else [field.annotation]
    while waiting:
        annotation = waiting.pop(0)
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            kind = annotation.model_fields.get("kind")
            words = () if kind is None else get_args(kind.annotation)
            found[words[0] if words else annotation.__name__] = annotation
        else:
            waiting.extend(get_args(annotation))
    return found
