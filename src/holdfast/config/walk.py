"""How settings nest: the tables of the file, and each setting by the name the file has for it."""

from collections.abc import Iterator
from typing import TypeVar, get_args, overload

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


T = TypeVar("T")


@overload
def parts_of(field: FieldInfo) -> list[object]: ...
@overload
def parts_of(field: FieldInfo, kind: type[T]) -> list[T]: ...
def parts_of(field: FieldInfo, kind: type = object) -> list[T] | list[object]:
    """All that a declaration is made of: its types and marks, of ``… | None`` as well."""
    found: list[object] = []
    waiting: list[object] = [*field.metadata, field.annotation]
    while waiting:
        part = waiting.pop(0)
        found.append(part)
        waiting.extend(getattr(part, "__metadata__", ()))
        waiting.extend(get_args(part))
    return [part for part in found if isinstance(part, kind)]


def read_file_mark(field: FieldInfo) -> ReadFile | None:
    """The mark of a setting that names a file to read."""
    return next(iter(parts_of(field, ReadFile)), None)


def tables_of(field: FieldInfo | None) -> dict[str, type[BaseModel]]:
    """The models of the tables that a setting takes, by their kind, or else by their name."""
    found: dict[str, type[BaseModel]] = {}
    for part in [] if field is None else parts_of(field, type):
        if issubclass(part, BaseModel):
            kind = part.model_fields.get("kind")
            words = () if kind is None else get_args(kind.annotation)
            found[words[0] if words else part.__name__] = part
    return found
