"""Settings: defaults, then a TOML file, then the environment, then the command line.

Each layer is checked by itself, so that an error names the place the wrong value came from.
"""

import difflib
import json
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, get_args, get_origin

from annotated_types import Ge, Le
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from holdfast.config.settings import Settings
from holdfast.errors import ConfigError

ENVIRONMENT_PREFIX: Final = "HOLDFAST_"
VALUE_CHARACTERS_MAX: Final = 80  # of a wrong value, in an error message

# Variables of ours that set nothing: for the build, for the tests, and the name of the file.
_NOT_SETTINGS: Final = frozenset({"HOLDFAST_CONFIG", "HOLDFAST_EXPECT", "HOLDFAST_PURE"})


def load_settings(
    *,
    config_file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    overrides: Mapping[str, object] | None = None,
) -> Settings:
    """The settings of one broker, a later layer replacing an earlier one key by key.

    ``environment`` is all variables; those that begin with ``HOLDFAST_`` count. ``config_file``
    wins over the file that ``HOLDFAST_CONFIG`` names. ``overrides`` are from the command line, by
    key; None means not given.

    Raises ConfigError, with one line that names the source, key, value and what was expected.
    """
    environment = {} if environment is None else environment
    named = environment.get(f"{ENVIRONMENT_PREFIX}CONFIG", "")
    if config_file is None and named != "":
        config_file = Path(named)
    values: dict[str, object] = {}
    if config_file is not None:
        values |= _from_file(config_file)
    values |= _from_environment(environment)
    values |= _from_command_line({} if overrides is None else overrides)
    return Settings.model_validate(values)


def _from_file(file: Path) -> dict[str, object]:
    try:
        raw = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: expected UTF-8, byte {error.start} is not") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: not valid TOML: {error}") from error
    try:
        return _given(Settings.model_validate(_frozen(raw), strict=True))
    except ValidationError as error:
        raise ConfigError(f"{file}: {_complaint(error, lambda key: key)}") from error


def _from_environment(environment: Mapping[str, str]) -> dict[str, object]:
    raw: dict[str, str] = {}
    for variable, value in sorted(environment.items()):
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable in _NOT_SETTINGS:
            continue
        key = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
        if variable == _variable(key) and key in Settings.model_fields:
            raw[key] = value
        elif (near := _closest(key)) is not None:
            # Only what looks like one of ours is an error: Kubernetes sets HOLDFAST_PORT and
            # more for a service of the name holdfast.
            raise ConfigError(
                f"environment: {variable} is unknown; did you mean {_variable(near)}?"
            )
    try:
        return _given(Settings.model_validate_strings(raw))
    except ValidationError as error:
        raise ConfigError(f"environment: {_complaint(error, _variable)}") from error


def _from_command_line(overrides: Mapping[str, object]) -> dict[str, object]:
    raw = {key: value for key, value in overrides.items() if value is not None}
    try:
        return _given(Settings.model_validate(raw, strict=True))
    except ValidationError as error:
        raise ConfigError(f"command line: {_complaint(error, _option)}") from error


def _frozen(value: object) -> object:
    """The same with its lists as tuples, which is what settings hold."""
    if isinstance(value, list):
        return tuple(_frozen(part) for part in value)
    if isinstance(value, dict):
        return {key: _frozen(part) for key, part in value.items()}
    return value


def _given(layer: Settings) -> dict[str, object]:
    """What a layer sets, without the defaults of what it does not."""
    return {key: getattr(layer, key) for key in layer.model_fields_set}


def _variable(key: str) -> str:
    return ENVIRONMENT_PREFIX + key.upper()


def _option(key: str) -> str:
    return "--" + key.replace("_", "-")


def _complaint(error: ValidationError, name: Callable[[str], str]) -> str:
    """One line about the first wrong key, called by the name it has in its layer."""
    first = error.errors(include_url=False)[0]
    place = _Place(first["loc"])
    called = name(place.top) + place.rest
    if first["type"] == "extra_forbidden":
        near = _closest(place.key, place.model)
        hint = "" if near is None else f"; did you mean {near if place.rest else name(near)}?"
        return f"{_in_one_line(called)} is unknown{hint}"
    if first["type"] == "missing":
        return f"{called} is missing: expected {_expected(place.field)}"
    context = first.get("ctx", {})
    value = context.get("value", first["input"])
    expected = context["expected"] if first["type"] == "culprit" else _expected(place.field)
    return f"{called} = {_shown(value)}: expected {expected}"


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
        models = _models(self.field)
        for part in location[1:]:
            if isinstance(part, int):
                self.rest += f"[{part}]"
                continue
            if part in models:  # the kind of a table that may be of several
                models = {part: models[part]}
                continue
            self.rest += f".{part}"
            self.key = part
            self.model = next(
                (model for model in models.values() if part in model.model_fields),
                next(iter(models.values()), self.model),
            )
            self.field = self.model.model_fields.get(part)
            models = _models(self.field)


def _models(field: FieldInfo | None) -> dict[str, type[BaseModel]]:
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


def _expected(field: FieldInfo | None) -> str:
    """What values a setting takes, in words, from its own declaration."""
    if field is None:
        return "a setting"
    if models := _models(field):
        kinds = [kind for kind in models if kind.islower()]
        return f"a table with a kind, one of {', '.join(kinds)}" if kinds else "a table"
    annotation = field.annotation
    options = [part for part in get_args(annotation) if part is not type(None)]
    if len(options) == 1 and type(None) in get_args(annotation):
        annotation = options[0]
    if annotation is bool:
        return "true or false"
    if annotation is str:
        return "a text"
    if isinstance(annotation, type) and issubclass(annotation, Path):
        return "the path of a file"
    if get_origin(annotation) is tuple:
        inner = get_args(annotation)[0]
        return f"a list of {_words(inner) or 'texts'}"
    if choices := _words(annotation):
        return f"one of {choices}"
    least = [f"from {bound.ge}" for bound in field.metadata if isinstance(bound, Ge)]
    most = [f"to {bound.le}" for bound in field.metadata if isinstance(bound, Le)]
    number = "a whole number" if annotation is int else "a number"
    return " ".join([number, *least, *most])


def _words(annotation: object) -> str:
    return ", ".join(map(str, get_args(annotation)))


def _closest(key: str, model: type[BaseModel] = Settings) -> str | None:
    """The setting that a misspelt key most likely meant."""
    near = difflib.get_close_matches(key, model.model_fields, n=1, cutoff=0.7)
    return near[0] if near else None


def _shown(value: object) -> str:
    """A wrong value as TOML writes it, in one line of bounded length."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        value = list(value)
    return _in_one_line(json.dumps(value) if isinstance(value, str) else str(value))


def _in_one_line(text: str) -> str:
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= VALUE_CHARACTERS_MAX else text[:VALUE_CHARACTERS_MAX] + "…"
