"""What settings must be together, where each of them alone is right.

All of it is here, and asked before anything is opened: see ``problems``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from holdfast.config.listeners import ListenerSettings
from holdfast.config.settings import Settings
from holdfast.config.values import Address, ListenAddress, is_any_port
from holdfast.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: the setting, as the file writes it, and what was expected."""

    setting: str
    text: str

    def __str__(self) -> str:
        return f"{self.setting}: {self.text}"


def check_settings(settings: Settings) -> None:
    """Raise ConfigError, of one line, for the first of the ``problems``."""
    for problem in problems(settings):
        raise ConfigError(str(problem))


def problems(settings: Settings) -> Iterator[Problem]:
    """All that is wrong with settings of which each by itself is right.

    Names are looked up, and files are looked at; nothing is opened.
    """
    yield from _of_names(settings)
    for listener in settings.all_listeners:
        yield from _of_reach(settings, listener)


def check_reach(settings: Settings, listener: ListenerSettings, bound: Sequence[Address]) -> None:
    """Look again at where a listener is bound: a name may stand for something else by then.

    Raises ConfigError for one that other machines can reach, and that lets anyone in unasked.
    """
    if _needs_leave(settings, listener) and not all(address.is_local for address in bound):
        raise ConfigError(str(_unasked(settings, listener)))


def key_of(settings: Settings, listener: ListenerSettings) -> str:
    """A listener as the file writes it: ``listeners[1]``, or ``listen``."""
    for index, one in enumerate(settings.listeners):
        if one is listener:
            return f"listeners[{index}]"
    return "listen"


# --- names


def _of_names(settings: Settings) -> Iterator[Problem]:
    """Listeners are told apart by their names, and so are authenticators."""
    # Those of ``listen`` are alike but for the address, which is given once or has any port.
    seen = {listener.title for listener in settings.plain_listeners}
    fixed = {str(one.address) for one in settings.plain_listeners if not is_any_port(one.address)}
    for index, listener in enumerate(settings.listeners):
        key = f"listeners[{index}]"
        address = str(listener.address)
        if not is_any_port(listener.address) and address in fixed:
            yield Problem(f"{key}.address", f"expected an address once, {address} is there twice")
        elif listener.title in seen:
            yield Problem(
                f"{key}.name", f"expected a name that no other listener has, not {listener.title}"
            )
        fixed.add(address)
        seen.add(listener.title)


# --- who may connect


def _of_reach(settings: Settings, listener: ListenerSettings) -> Iterator[Problem]:
    """Without a word about it, anyone may connect from this machine, and nobody from elsewhere."""
    key = key_of(settings, listener)
    asked = settings.authenticators_of(listener)
    if not asked and settings.anonymous_as_written(listener) is False:
        own = "allow_anonymous" if listener.allow_anonymous is None else f"{key}.allow_anonymous"
        yield Problem(
            own,
            f"expected true, or authenticators: nobody could connect to {listener.title}",
        )
    address = listener.address
    if isinstance(address, ListenAddress) and _needs_leave(settings, listener):
        try:
            is_local = address.finds_only_loopback()
        except OSError:
            return  # it cannot be bound either, and that error says more
        if not is_local:
            yield _unasked(settings, listener)


def _needs_leave(settings: Settings, listener: ListenerSettings) -> bool:
    """Whether a listener would let anyone in, and nobody wrote that it should."""
    asked = settings.authenticators_of(listener)
    return not asked and settings.anonymous_as_written(listener) is None


def _unasked(settings: Settings, listener: ListenerSettings) -> Problem:
    key = key_of(settings, listener)
    return Problem(
        "allow_anonymous",
        f"the listener {listener.title} ({key}) can be reached from other machines, and no "
        "authenticator says who may connect; add [[authenticators]] to the configuration, for "
        'example kind = "password_file" with a file that `holdfast passwd` writes '
        "(docs/guides/passwords.md); or let anyone in with allow_anonymous = true "
        "(--allow-anonymous); or listen on 127.0.0.1 alone",
    )
