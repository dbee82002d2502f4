"""What settings must be together, where each of them alone is right.

All of it is here, and asked before anything is opened: see ``problems``.
"""

import difflib
import ipaddress
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from holdfast.config.authenticators import HttpSettings
from holdfast.config.listeners import ListenerSettings, TlsSettings
from holdfast.config.settings import Settings
from holdfast.config.values import Address, ListenAddress, is_any_port
from holdfast.config.walk import read_file_mark, settings_in
from holdfast.errors import ConfigError

ANONYMOUS: Final = "anonymous"  # stands in the log for who has been let in without a name


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
    yield from _of_listener_names(settings)
    yield from _of_authenticator_names(settings)
    for listener in settings.all_listeners:
        yield from _of_reach(settings, listener)
        yield from _of_keep_alive(settings, _key_of(settings, listener), listener)
    for index, listener in enumerate(settings.listeners):
        key = f"listeners[{index}]"
        if listener.tls is not None:
            yield from _of_tls(f"{key}.tls", listener.tls)
        yield from _of_proxies(key, listener)
        if not listener.versions:
            yield Problem(f"{key}.versions", "expected one at least: nobody could connect")
    yield from _of_client_ids(settings)
    yield from _of_files(settings)


def warnings(settings: Settings) -> Iterator[Problem]:
    """What works, and is likely not meant: to be told, not refused."""
    for listener in settings.all_listeners:
        yield from _exposed(settings, listener)
    for index, authenticator in enumerate(settings.authenticators):
        if isinstance(authenticator, HttpSettings):
            yield from _asked_in_the_clear(f"authenticators[{index}].url", authenticator.url)
    for setting, field, value in settings_in(settings):
        mark = read_file_mark(field)
        if mark is not None and mark.is_secret and isinstance(value, Path):
            yield from _too_open(setting, value)


def check_reach(settings: Settings, listener: ListenerSettings, bound: Sequence[Address]) -> None:
    """Look again at where a listener is bound: a name may stand for something else by then.

    Raises ConfigError for one that other machines can reach, and that lets anyone in unasked.
    """
    if _needs_leave(settings, listener) and not all(address.is_local for address in bound):
        raise ConfigError(str(_unasked(settings, listener)))


# --- names


def _of_listener_names(settings: Settings) -> Iterator[Problem]:
    """Listeners are told apart by their names, in the log and by what decides who may connect."""
    # Those of ``listen`` are alike but for the address, which is given once or has any port.
    seen = {listener.title for listener in settings.plain_listeners}
    fixed = {str(one.address) for one in settings.plain_listeners if not is_any_port(one.address)}
    for index, listener in enumerate(settings.listeners):
        key = f"listeners[{index}]"
        address = str(listener.address)
        if not is_any_port(listener.address) and address in fixed:
            yield Problem(f"{key}.address", f"expected each address once, {address} is there twice")
        elif listener.title in seen:
            text = f"expected a name that no other listener has, not {listener.title}"
            yield Problem(f"{key}.name", text)
        elif not listener.title.isprintable() or listener.title.strip() == "":
            yield Problem(f"{key}.name", "expected a name of printable characters")
        fixed.add(address)
        seen.add(listener.title)


def _of_authenticator_names(settings: Settings) -> Iterator[Problem]:
    names = [ANONYMOUS]
    for index, authenticator in enumerate(settings.authenticators):
        key = f"authenticators[{index}].name"
        if authenticator.name in names:
            text = f"expected a name that no other authenticator has, not {authenticator.name}"
            yield Problem(key, text)
        elif not authenticator.name.isprintable() or authenticator.name.strip() == "":
            yield Problem(key, "expected a name of printable characters")
        names.append(authenticator.name)
    names.remove(ANONYMOUS)
    for index, listener in enumerate(settings.listeners):
        asked = listener.authenticators or ()
        key = f"listeners[{index}].authenticators"
        for name in asked:
            if name not in names:
                near = difflib.get_close_matches(name, names, n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                known = f"some of {', '.join(names)}" if names else "[[authenticators]] as well"
                yield Problem(key, f"expected {known}, not {_plain(name)}{hint}")
        if len(set(asked)) < len(asked):
            yield Problem(key, "expected each name once")


def _of_client_ids(settings: Settings) -> Iterator[Problem]:
    for index, rule in enumerate(settings.client_ids):
        for pattern in rule.client_ids if rule.reserved else ():
            if "%" in pattern.replace("%%", ""):
                text = f"expected no placeholders in what is reserved, not {_plain(pattern)}"
                yield Problem(f"client_ids[{index}].client_ids", text)


# --- who may connect


def _of_reach(settings: Settings, listener: ListenerSettings) -> Iterator[Problem]:
    """Without a word about it, anyone may connect from this machine, and nobody from elsewhere."""
    asked = settings.authenticators_of(listener)
    if not asked and settings.anonymous_as_written(listener) is False:
        is_common = listener.allow_anonymous is None
        key = "" if is_common else f"{_key_of(settings, listener)}."
        text = f"expected true, or authenticators: nobody could connect to {listener.title}"
        yield Problem(f"{key}allow_anonymous", text)
    kinds: set[str] = {authenticator.kind for authenticator in asked}
    shows_none = listener.tls is None or listener.tls.client_certificates == "none"
    if kinds == {"certificate"} and shows_none and not settings.lets_in_anonymous(listener):
        key = _key_of(settings, listener)
        text = f"only certificates let clients in to {listener.title}"
        if listener.tls is None:
            expected = "expected TLS, by [listeners.tls] in [[listeners]]"
            yield Problem(f"{key}.tls" if settings.listeners else key, f"{expected}: {text}")
        else:
            expected = 'expected "optional" or "required"'
            yield Problem(f"{key}.tls.client_certificates", f"{expected}: {text}")
    if not _needs_leave(settings, listener):
        return
    address = listener.address
    if listener.proxy_protocol_from:
        # Wherever it is bound: the clients are whoever reaches the proxy.
        yield _unasked(settings, listener)
    elif isinstance(address, ListenAddress):
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
    key = _key_of(settings, listener)
    through, last = "from other machines", "; or listen on 127.0.0.1 alone"
    if listener.proxy_protocol_from:
        through, last = "through a proxy", ""
    return Problem(
        "allow_anonymous",
        f"the listener {listener.title} ({key}) can be reached {through}, and no "
        "authenticator says who may connect; add [[authenticators]] to the configuration, for "
        'example kind = "password_file" with a file that `holdfast passwd` writes '
        "(docs/guides/passwords.md); or let anyone in with allow_anonymous = true "
        f"(--allow-anonymous){last}",
    )


def _key_of(settings: Settings, listener: ListenerSettings) -> str:
    """A listener as the file writes it: ``listeners[1]``, or ``listen``."""
    for index, one in enumerate(settings.listeners):
        if one is listener:
            return f"listeners[{index}]"
    return "listen"


# --- listeners


def _of_tls(key: str, tls: TlsSettings) -> Iterator[Problem]:
    """A word too few here would leave clients unasked where the operator thinks they are asked."""
    if tls.client_certificates != "none" and tls.client_ca is None:
        text = f'is missing, which client_certificates = "{tls.client_certificates}" needs'
        yield Problem(f"{key}.client_ca", text)
    for name, file in (("client_ca", tls.client_ca), ("crl", tls.crl)):
        if file is not None and tls.client_certificates == "none":
            text = 'expected client_certificates = "optional" or "required" beside it'
            yield Problem(f"{key}.{name}", text)
    names = [sni.server_name.lower().rstrip(".") for sni in tls.sni]
    for index, name in enumerate(names):
        if name in names[:index]:
            text = f"expected each name once, {_plain(name)} is there twice"
            yield Problem(f"{key}.sni[{index}].server_name", text)


def _of_proxies(key: str, listener: ListenerSettings) -> Iterator[Problem]:
    for source in listener.proxy_protocol_from:
        if source == "unix":
            continue
        try:
            ipaddress.ip_network(source)
        except ValueError:
            text = f"expected addresses and networks, such as 10.0.0.0/8, not {_plain(source)}"
            yield Problem(f"{key}.proxy_protocol_from", text)


def _of_keep_alive(settings: Settings, key: str, listener: ListenerSettings) -> Iterator[Problem]:
    own_least, own_most = listener.keep_alive_min_s, listener.keep_alive_max_s
    least = settings.keep_alive_min_s if own_least is None else own_least
    most = settings.keep_alive_max_s if own_most is None else own_most
    if 0 < most < least:
        where = f"{key}." if own_least is not None or own_most is not None else ""
        text = f"expected at most keep_alive_max_s, which is {most}, not {least}"
        yield Problem(f"{where}keep_alive_min_s", text)


# --- files


def _of_files(settings: Settings) -> Iterator[Problem]:
    for setting, field, value in settings_in(settings):
        if read_file_mark(field) is None or not isinstance(value, Path):
            continue
        reason = _unreadable(value)
        if reason is not None:
            yield Problem(setting, f"{_plain(str(value))} cannot be read: {reason}")


def _unreadable(file: Path) -> str | None:
    """Why a file cannot be read, None if it can."""
    try:
        mode = file.stat().st_mode
    except OSError as error:
        return error.strerror or "not found"
    if stat.S_ISDIR(mode):
        return "it is a folder"
    # A look, and not an attempt: opening a pipe waits for whoever writes into it.
    return None if os.access(file, os.R_OK) else "Permission denied"


def _too_open(setting: str, file: Path) -> Iterator[Problem]:
    """A secret that others can read is none, and one that they can write is theirs."""
    try:
        mode = file.stat().st_mode
    except OSError:
        return
    if mode & stat.S_IROTH:
        who = "anyone on this machine can read it"
    elif mode & (stat.S_IWGRP | stat.S_IWOTH):
        who = "others than its owner can write it"
    else:
        return
    name = _plain(str(file))
    text = f"{name} has mode {stat.S_IMODE(mode):04o}, {who}; chmod 600, or 640 for its group"
    yield Problem(setting, text)


# --- what works, and is likely not meant


def _exposed(settings: Settings, listener: ListenerSettings) -> Iterator[Problem]:
    key = _key_of(settings, listener)
    is_open = settings.lets_in_anonymous(listener)
    is_page_let_in = listener.websocket is not None and not listener.websocket.origins
    if listener.is_local and not listener.proxy_protocol_from:
        if is_open and is_page_let_in:
            text = "is empty: any page that is open in a browser on this machine can connect"
            yield Problem(f"{key}.websocket.origins", text)
        return
    if is_open and settings.acl_file is None and not settings.authorizers:
        text = f"anyone who reaches {listener.title} may read and write every topic"
        yield Problem("allow_anonymous", text)
    if not is_open and listener.tls is None and not listener.proxy_protocol_from:
        text = "whoever is in the network between can read passwords and messages"
        yield Problem(key, f"{listener.title} has no TLS: {text}")


def _asked_in_the_clear(setting: str, url: str) -> Iterator[Problem]:
    parts = urlsplit(url)
    try:
        if parts.scheme != "http" or ListenAddress(parts.hostname or "", 0).finds_only_loopback():
            return
    except OSError:
        pass  # not found now, and then it is not known whose it will be
    text = "is not https: whoever is in the network between can read passwords, and let anyone in"
    yield Problem(setting, text)


def _plain(text: str) -> str:
    """A text from the settings, for a message of one line."""
    return "".join(character if character.isprintable() else "?" for character in text)
