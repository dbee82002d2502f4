"""Settings: defaults, then a TOML file, then the environment, then the command line.

Each layer is checked by itself, so that an error names the place the wrong value came from.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from holdfast.config.complaints import closest, complaint, in_one_line
from holdfast.config.settings import Settings
from holdfast.config.walk import tables_of
from holdfast.errors import ConfigError

ENVIRONMENT_PREFIX: Final = "HOLDFAST_"

# Variables of ours that set nothing: for the build, for the tests, and the name of the file.
_NOT_SETTINGS: Final = frozenset(
    {
        *("HOLDFAST_CONFIG", "HOLDFAST_EXPECT", "HOLDFAST_PURE"),
        *("HOLDFAST_PASSWORD", "HOLDFAST_URL"),  # of the clients on the command line
    }
)
# Tables are for the file alone: there is no good way to write them into one variable.
_TABLES: Final = [key for key, field in Settings.model_fields.items() if tables_of(field)]
_VALUES: Final = [key for key in Settings.model_fields if key not in _TABLES]


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
    loaded = load_with_sources(
        config_file=config_file, environment=environment, overrides=overrides
    )
    return loaded.settings


def settings_of(values: Mapping[str, object], source: str) -> Settings:
    """The settings that these values make, as a configuration file has them: its tables are dicts.

    Raises ConfigError, with one line that names the source, key, value and what was expected.
    """
    try:
        return Settings.model_validate(_frozen(dict(values)), strict=True)
    except ValidationError as error:
        raise ConfigError(f"{source}: {complaint(error, lambda key: key)}") from error


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings, and where each that is no default comes from, by its key."""

    settings: Settings
    sources: Mapping[str, str]


def load_with_sources(
    *,
    config_file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    overrides: Mapping[str, object] | None = None,
) -> Loaded:
    """As ``load_settings``, for those who want to know where a setting comes from."""
    environment = {} if environment is None else environment
    named = environment.get(f"{ENVIRONMENT_PREFIX}CONFIG", "")
    if config_file is None and named != "":
        config_file = Path(named)
    values: dict[str, object] = {}
    sources: dict[str, str] = {}
    if config_file is not None:
        layer = _from_file(config_file)
        values |= layer
        sources |= dict.fromkeys(layer, in_one_line(str(config_file)))
    layer = _from_environment(environment)
    values |= layer
    sources |= {key: _variable(key) for key in layer}
    layer = _from_command_line({} if overrides is None else overrides)
    values |= layer
    sources |= {key: _option(key) for key in layer}
    return Loaded(Settings.model_validate(values), sources)


def _from_file(file: Path) -> dict[str, object]:
    try:
        # With the mark that some editors put before UTF-8.
        raw = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: expected UTF-8, byte {error.start} is not") from error
    except (ValueError, RecursionError) as error:
        # Numbers of thousands of digits and brackets of thousands of levels are refused apart.
        raise ConfigError(f"{file}: not valid TOML: {error}") from error
    return _given(settings_of(raw, str(file)))


def _from_environment(environment: Mapping[str, str]) -> dict[str, object]:
    raw: dict[str, str] = {}
    for variable, value in sorted(environment.items()):
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable in _NOT_SETTINGS:
            continue
        key = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
        if (table := key.partition("__")[0]) in _TABLES and variable.isupper():
            raise ConfigError(
                f"environment: {variable} cannot be: {table} are tables, each written [[{table}]] "
                f"in the configuration file, which {ENVIRONMENT_PREFIX}CONFIG names"
            )
        if variable == _variable(key) and key in Settings.model_fields:
            raw[key] = value
        elif (near := closest(key, _VALUES)) is not None:
            # Only what looks like one of ours is an error: Kubernetes sets HOLDFAST_PORT and
            # more for a service of the name holdfast.
            raise ConfigError(
                f"environment: {variable} is unknown; did you mean {_variable(near)}?"
            )
    try:
        return _given(Settings.model_validate_strings(raw))
    except ValidationError as error:
        raise ConfigError(f"environment: {complaint(error, _variable)}") from error


def _from_command_line(overrides: Mapping[str, object]) -> dict[str, object]:
    raw = {key: value for key, value in overrides.items() if value is not None}
    try:
        return _given(Settings.model_validate(raw, strict=True))
    except ValidationError as error:
        raise ConfigError(f"command line: {complaint(error, _option)}") from error


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
