"""From settings to the chains of the listeners."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from holdfast.auth.access import AccessControl
from holdfast.auth.acl import AclFile
from holdfast.auth.anonymous import NAME as ANONYMOUS
from holdfast.auth.anonymous import AnonymousLink
from holdfast.auth.chain import Chain
from holdfast.auth.interface import Authorizer
from holdfast.auth.link import Link
from holdfast.config import ListenerSettings, Settings
from holdfast.config.authenticators import (
    AuthenticatorSettings,
    CertificateSettings,
    HttpSettings,
    JwtSettings,
    PasswordFileSettings,
    ScramSettings,
)
from holdfast.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Access:
    """All that decides who may connect.

    ``chains`` are those of the listeners that have one, by the listener's title; ``parts`` is what
    they are made of, which may be read anew and closed.
    """

    chains: dict[str, Chain]
    parts: tuple[Link | Authorizer, ...]

    def read(self) -> None:
        """Read all files for the first time. Raises ConfigError."""
        for part in self.parts:
            part.reload()

    def has_news(self) -> bool:
        """Whether a part has learned something by itself since the last such question."""
        return any(part.has_news() for part in self.parts if isinstance(part, Link))

    def close(self) -> None:
        """Let go of what the parts hold."""
        for part in self.parts:
            part.close()


def build_access(settings: Settings) -> Access:
    """What the settings ask for; its files are still to be read. Raises ConfigError."""
    links: dict[str, Link] = {}
    for number, table in enumerate(settings.authenticators):
        if table.name in links or table.name == ANONYMOUS:
            raise ConfigError(
                f"authenticators[{number}].name = {table.name!r}: expected a name that no other "
                "authenticator has"
            )
        links[table.name] = _link(table)
    authorizers = _authorizers(settings)
    access = AccessControl(authorizers, settings.acl_token_rules)
    chains = {
        listener.title: _chain(listener, settings, links, access)
        for listener in settings.all_listeners
    }
    return Access(
        {title: chain for title, chain in chains.items() if chain is not None},
        (*links.values(), *authorizers),
    )


def _authorizers(settings: Settings) -> list[Authorizer]:
    """What says what clients may do, in the order in which their rules are tried."""
    authorizers: list[Authorizer] = []
    if settings.acl_file is not None:
        authorizers.append(AclFile(settings.acl_file))
    return authorizers


def _chain(
    listener: ListenerSettings,
    settings: Settings,
    links: Mapping[str, Link],
    access: AccessControl,
) -> Chain | None:
    """The chain of one listener, None where anyone may do anything."""
    names = list(links) if listener.authenticators is None else listener.authenticators
    if unknown := [name for name in names if name not in links]:
        raise ConfigError(
            f"listener {listener.title}: authenticators = {unknown[0]!r}: expected "
            f"{_one_of(list(links))}"
        )
    chosen = [links[name] for name in dict.fromkeys(names)]
    scrams = [link.name for link in chosen if any(m.startswith("SCRAM-") for m in link.methods)]
    if len(scrams) > 1:
        # The first would answer for the users of the others, so as not to say that it has not any.
        raise ConfigError(
            f"listener {listener.title}: authenticators: expected one with SCRAM, these have it: "
            f"{', '.join(scrams)}"
        )
    is_anonymous_allowed = _first(listener.allow_anonymous, settings.allow_anonymous, not chosen)
    if not is_anonymous_allowed and not chosen:
        raise ConfigError(
            f"listener {listener.title}: allow_anonymous = false: expected an authenticator too, "
            "without one nobody could connect"
        )
    if not chosen and not access.authorizers:
        return None
    if is_anonymous_allowed:
        chosen.append(AnonymousLink(is_alone=not chosen))
    return Chain(chosen, access)


def _link(table: AuthenticatorSettings) -> Link:
    """The link of one table. Each kind's libraries are imported where it is used."""
    match table:
        case PasswordFileSettings():
            from holdfast.auth.passwords import PasswordLink

            return PasswordLink(table.name, table.file, cache_s=table.cache_s)
        case CertificateSettings():
            from holdfast.auth.certificate import CertificateLink

            return CertificateLink(table.name, ignores_user_name=table.other_user_name == "ignore")
        case HttpSettings():
            from holdfast.auth.http import HttpLink, HttpOptions

            options = HttpOptions(
                url=table.url,
                timeout_s=table.timeout_s,
                connections_max=table.connections_max,
                cache_s=table.cache_s,
                on_error=table.on_error,
                headers_file=table.headers_file,
                ca_file=table.ca_file,
            )
            return HttpLink(table.name, options)
        case ScramSettings():
            from holdfast.auth.scram import ScramLink

            return ScramLink(table.name, table.file, methods=table.methods)
        case JwtSettings():
            from holdfast.auth.tokens import TokenLink

            return TokenLink(table)


def _first(*values: bool | None) -> bool:
    return next(value for value in values if value is not None)


def _one_of(names: Sequence[str]) -> str:
    return f"one of {', '.join(names)}" if names else "no name: there are no `[[authenticators]]`"
