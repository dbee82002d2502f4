"""Plug-ins: authenticators and authorizers of other packages, found by their entry points.

``docs/guides/plugins.md`` is for those who write one.
"""

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Final

from holdfast.auth.interface import Authorizer
from holdfast.auth.link import Link
from holdfast.errors import ConfigError

AUTHENTICATORS: Final = "holdfast.authenticators"
AUTHORIZERS: Final = "holdfast.authorizers"


def make_link(name: str, plugin: str, options: Mapping[str, object]) -> Link:
    """An authenticator by its entry point, which names something that is called so.

    Raises ConfigError.
    """
    made = _make(AUTHENTICATORS, name, plugin, options)
    if not isinstance(made, Link):
        raise ConfigError(
            f"{name}: plugin {plugin!r}: expected a holdfast.auth.Link, got {type(made).__name__}"
        )
    if made.name != name:
        raise ConfigError(f"{name}: plugin {plugin!r}: expected the name that it was given")
    return made


def make_authorizer(name: str, plugin: str, options: Mapping[str, object]) -> Authorizer:
    """An authorizer likewise. Raises ConfigError."""
    made = _make(AUTHORIZERS, name, plugin, options)
    if missing := [part for part in _AUTHORIZER_PARTS if not hasattr(made, part)]:
        raise ConfigError(
            f"{name}: plugin {plugin!r}: expected a holdfast.auth.Authorizer, "
            f"{type(made).__name__} has no {missing[0]}"
        )
    return made  # type: ignore[return-value]  # it has all parts of the protocol


_AUTHORIZER_PARTS: Final = ("name", "files", "reload", "rules", "close")


def _make(group: str, name: str, plugin: str, options: Mapping[str, object]) -> object:
    found = {entry.name: entry for entry in entry_points(group=group)}
    if plugin not in found:
        known = f"one of {', '.join(sorted(found))}" if found else "one that is installed: none is"
        raise ConfigError(f"{name}: plugin = {plugin!r}: expected {known}, of the group {group}")
    try:
        factory = found[plugin].load()
        return factory(name, options)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from error
    # It is somebody else's code: whatever it raises ends the start, in one line.
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        raise ConfigError(f"{name}: plugin {plugin!r} cannot be used: {what}") from error
