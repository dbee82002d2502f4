"""What is wrong with one layer of the settings, in one line that an operator can act on.

It names the setting, what came and what was expected. What may be a secret is not repeated.
"""

import difflib
import json
import re
from collections.abc import Callable
from typing import Final, cast, get_args, get_origin

from annotated_types import Ge, Le, MaxLen, MinLen
from pydantic import BaseModel, PlainValidator, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from holdfast.config.settings import Settings
from holdfast.config.values import MayBeSecret
from holdfast.config.walk import parts_of, read_file_mark, tables_of

VALUE_CHARACTERS_MAX: Final = 80  # of a wrong value, in an error message

_SECRET_NAME: Final = re.compile(
    r"secret|passw|token|credential|authorization|headers?$|(^|_)keys?$|pepper|salt"
)
_USER_INFO: Final = re.compile(r"//[^/@\s]*@")  # user:password@ of a URL


def complaint(error: ValidationError, name: Callable[[str], str]) -> str:
    """One line about what is wrong; ``name`` gives a setting the name it has in its layer."""
    first = _first(error.errors(include_url=False))
    place = _Place(first["loc"])
    called = in_one_line(name(place.top) + place.rest)
    kind, value = first["type"], first["input"]
    if kind == "extra_forbidden":
        return f"{called} is unknown{_hint(place, name)}"
    if kind == "missing":
        return f"{called} is missing: expected {_expected(place)}"
    if kind in ("union_tag_not_found", "union_tag_invalid"):
        words = list(tables_of(place.field))
        given = value.get("kind") if isinstance(value, dict) else None
        if given is None:
            return f"{called}.kind is missing: expected one of {', '.join(words)}"
        near = difflib.get_close_matches(str(given), words, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        return f"{called}.kind = {_scalar(given)}: expected one of {', '.join(words)}{hint}"
    context = first.get("ctx", {})
    if kind == "culprit" and tables_of(place.field):
        return f"{called}: expected {context['expected']}"  # what does not fit together in it
    if kind == "culprit":
        return f"{called}{_shown(context['value'], place)}: expected {context['expected']}"
    return f"{called}{_shown(value, place)}: expected {_expected(place)}"


def closest(key: str, keys: object) -> str | None:
    """The setting that a misspelt key most likely meant."""
    assert isinstance(keys, dict | list)
    near = difflib.get_close_matches(key, keys, n=1, cutoff=0.7)
    return near[0] if near else None


def in_one_line(text: str) -> str:
    """A text of bounded length without anything that a terminal would obey."""
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= VALUE_CHARACTERS_MAX else text[:VALUE_CHARACTERS_MAX] + "…"


def is_secret(key: str, field: FieldInfo | None) -> bool:
    """Whether a value may be something that nobody should read in a log."""
    if field is None:
        return _SECRET_NAME.search(key) is not None
    mark = read_file_mark(field)
    if mark is not None:
        # Of a secret file only the path is written down; or, by mistake, its content.
        return mark.is_secret
    if parts_of(field, MayBeSecret):
        return True
    return SecretStr in parts_of(field) or _SECRET_NAME.search(key) is not None


class _Place:
    """Where in the settings an error is: its key, the model that has it, and how to call it.

    ``top`` is the setting, ``rest`` what leads from there to the key: ``[0].tls.key``.
    """

    def __init__(self, location: tuple[int | str, ...]) -> None:
        self.top = str(location[0])
        self.key = self.top
        self.model: type[BaseModel] = Settings
        self.field = Settings.model_fields.get(self.top)
        self.rest = ""
        self.path = self.top  # of the table, as its header in the file has it
        self.is_element = False  # of a list
        models = tables_of(self.field)
        for part in location[1:]:
            self.is_element = isinstance(part, int)
            if isinstance(part, int):
                self.rest += f"[{part}]"
                continue
            if part in models:  # the kind of a table that may be of several
                models = {part: models[part]}
                continue
            self.rest += f".{part}"
            if not models and self.field is not None:
                self.is_element = True  # a table of the operator's own words
                continue
            self.path += f".{part}"
            self.key = part
            self.model = next(
                (model for model in models.values() if part in model.model_fields),
                next(iter(models.values()), self.model),
            )
            self.field = self.model.model_fields.get(part)
            models = tables_of(self.field)


def _first(errors: list[ErrorDetails]) -> ErrorDetails:
    """The error to tell of: a misspelt key before the one that is therefore missing."""
    first = errors[0]
    if first["type"] == "missing":
        for other in errors:
            if other["type"] == "extra_forbidden" and other["loc"][:-1] == first["loc"][:-1]:
                return other
    return first


def _hint(place: _Place, name: Callable[[str], str]) -> str:
    """What was likely meant by an unknown key."""
    if place.rest and place.key in Settings.model_fields:
        return f"; {place.key} is a setting of the broker, it belongs above the first table"
    near = closest(place.key, list(place.model.model_fields))
    if near is not None:
        return f"; did you mean {near if place.rest else name(near)}?"
    if not place.rest:
        for table, field in Settings.model_fields.items():
            if any(place.key in model.model_fields for model in tables_of(field).values()):
                return f"; it belongs into [[{table}]]"
    return ""


def _shown(value: object, place: _Place) -> str:
    """A wrong value as TOML writes it, or only what it is: `` = 1``, `` is a table``."""
    if isinstance(value, dict):
        return " is a table"
    if isinstance(value, list | tuple):
        return " is a list" if value else " = []"
    if value != "" and _may_be_secret(value, place):
        return " is a text" if isinstance(value, str) else " is no text"
    return f" = {_scalar(value)}"


def _may_be_secret(value: object, place: _Place) -> bool:
    if tables_of(place.field):
        return isinstance(value, str)
    if place.field is not None and read_file_mark(place.field) is not None:
        # In the place of a path, the content of the file: a key, for instance.
        return is_secret(place.key, place.field) or not str(value).isprintable()
    return is_secret(place.key, place.field)


def _scalar(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        value = json.dumps(_USER_INFO.sub("//…@", value), ensure_ascii=False)
    return in_one_line(str(value))


def _expected(place: _Place) -> str:
    """What values a setting takes, in words, from its own declaration."""
    field = place.field
    if field is None:
        return "a setting"
    if tables_of(field):
        if _is_list(field) and not place.is_element:
            return f"a list of tables, each written [[{place.path}]]"
        return f"a table, written {f'[[{place.path}]]' if _is_list(field) else f'[{place.path}]'}"
    if words := _by_validator(field):
        return words
    annotation = field.annotation
    options = [part for part in get_args(annotation) if part is not type(None)]
    if len(options) == 1 and type(None) in get_args(annotation):
        annotation = options[0]
    if get_origin(annotation) is dict:
        inner = get_args(annotation)[1]
        each = _one(inner, field)
        return each if place.is_element else f"a table, {each} for each of its keys"
    if get_origin(annotation) is tuple:
        inner = get_args(annotation)[0]
        return _one(inner, field) if place.is_element else f"a list, each {_one(inner, field)}"
    return _one(annotation, field)


def _one(annotation: object, field: FieldInfo) -> str:
    """What one value is, of a declaration without a list and without None."""
    if annotation is bool:
        return "true or false"
    if annotation in (str, SecretStr):
        least = [f"at least {bound.min_length}" for bound in parts_of(field, MinLen)]
        most = [f"at most {bound.max_length}" for bound in parts_of(field, MaxLen)]
        bounds = " and ".join([*least, *most])
        return f"a text of {bounds} characters" if bounds else "a text"
    if choices := get_args(annotation):
        texts = [str(choice) for choice in choices]
        # Without its quotes 1.2 would be a number.
        is_plain = all(text.replace("_", "").isalpha() for text in texts)
        return f"one of {', '.join(texts if is_plain else map(json.dumps, texts))}"
    least = [f"from {bound.ge}" for bound in parts_of(field, Ge)]
    most = [f"to {bound.le}" for bound in parts_of(field, Le)]
    number = "a whole number" if annotation is int else "a number"
    return " ".join([number, *least, *most])


def _by_validator(field: FieldInfo) -> str | None:
    """What the validator of a setting says that it expected, if it has one of its own."""
    for validator in parts_of(field, PlainValidator):
        try:
            cast(Callable[[object], object], validator.func)(None)
        except PydanticCustomError as culprit:
            return str((culprit.context or {}).get("expected", "something else"))
    return None


def _is_list(field: FieldInfo) -> bool:
    return get_origin(field.annotation) is tuple
