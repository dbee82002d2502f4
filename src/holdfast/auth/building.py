"""From settings to the chains of the listeners."""

from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.auth.access import AccessControl
from holdfast.auth.acl import AclFile
from holdfast.auth.acl_advice import advice
from holdfast.auth.anonymous import AnonymousLink
from holdfast.auth.chain import Chain
from holdfast.auth.client_ids import ClientIdPattern, ClientIdRule, ClientIdRules
from holdfast.auth.interface import Authorizer
from holdfast.auth.link import Link
from holdfast.auth.plugins import make_authorizer, make_link
from holdfast.config import ListenerSettings, Settings
from holdfast.config.authenticators import (
    AuthenticatorSettings,
    CertificateSettings,
    HttpSettings,
    JwtSettings,
    PasswordFileSettings,
    ScramSettings,
)
from holdfast.config.plugins import PluginSettings
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

    def advice(self, listeners: Sequence[str]) -> list[str]:
        """What is odd about the files that were read, though it is no error."""
        return [
            f"{part.file}: {line}"
            for part in self.parts
            if isinstance(part, AclFile)
            for line in advice(part.text, listeners)
        ]

    def close(self) -> None:
        """Let go of what the parts hold."""
        for part in self.parts:
            part.close()


def build_access(settings: Settings) -> Access:
    """What the settings ask for; its files are still to be read. Raises ConfigError.

    The settings are taken to be right: ``config.checks`` has looked at them.
    """
    links = {table.name: _link(table) for table in settings.authenticators}
    authorizers = _authorizers(settings)
    access = AccessControl(authorizers, settings.acl_token_rules)
    client_ids = _client_ids(settings) if settings.client_ids else None
    chains: dict[str, Chain] = {}
    for listener in settings.all_listeners:
        chosen = [links[table.name] for table in settings.authenticators_of(listener)]
        _check_scram(listener, chosen)
        if not chosen and not authorizers and client_ids is None:
            continue  # Anyone may do anything.
        if settings.lets_in_anonymous(listener):
            chosen.append(AnonymousLink(is_alone=not chosen))
        chains[listener.title] = Chain(chosen, access, client_ids)
    return Access(chains, (*links.values(), *authorizers))


def _authorizers(settings: Settings) -> list[Authorizer]:
    """What says what clients may do, in the order in which their rules are tried."""
    authorizers = [
        make_authorizer(table.name, table.plugin, table.options) for table in settings.authorizers
    ]
    if settings.acl_file is not None:
        authorizers.append(AclFile(settings.acl_file))
    return authorizers


def _client_ids(settings: Settings) -> ClientIdRules:
    return ClientIdRules(
        [
            ClientIdRule(
                table.users,
                tuple(ClientIdPattern(pattern) for pattern in table.client_ids),
                table.reserved,
            )
            for table in settings.client_ids
        ]
    )


def _check_scram(listener: ListenerSettings, links: Sequence[Link]) -> None:
    scrams = [link.name for link in links if any(m.startswith("SCRAM-") for m in link.methods)]
    if len(scrams) > 1:
        # The first would answer for the users of the others, so as not to say that it has not any.
        raise ConfigError(
            f"listener {listener.title}: authenticators: expected one with SCRAM, these have it: "
            f"{', '.join(scrams)}"
        )


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
        case PluginSettings():
            return make_link(table.name, table.plugin, table.options)
        case JwtSettings():
            from holdfast.auth.tokens import TokenLink

            return TokenLink(table)
