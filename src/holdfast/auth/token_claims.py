"""What a token says, checked: times, audience, names, roles and attributes. Source: RFC 7519 §4."""

from collections.abc import Mapping
from typing import Final, final

from holdfast.auth.access_rules import AccessRule
from holdfast.auth.acl import parse_rules
from holdfast.auth.strict_json import JsonObject
from holdfast.broker.identity import Identity
from holdfast.config.authenticators import JwtSettings
from holdfast.errors import ConfigError

TIME_S_MAX: Final = 253_402_300_799  # the end of the year 9999
NAME_CHARACTERS_MAX: Final = 256  # of a user name or a role
ATTRIBUTE_CHARACTERS_MAX: Final = 1024
ROLES_MAX: Final = 256
RULES_MAX: Final = 256


class TokenRefused(Exception):
    """A token is not taken; ``reason`` is for the client too, and has nothing of the token in it.

    ``reason_code`` is 0 where it depends on how the token came.
    """

    def __init__(self, reason: str, reason_code: int = 0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.reason_code = reason_code


@final
class Claims:
    """The claims of a token that count here. Times are Unix times in seconds, 0 for none."""

    def __init__(
        self,
        *,
        user_name: str,
        client_id: str | None,
        attributes: Mapping[str, str],
        roles: tuple[str, ...],
        rules: tuple[AccessRule, ...] | None,
        not_before_s: float,
        expires_s: float,
    ) -> None:
        self.user_name = user_name
        self.client_id = client_id
        self._attributes = attributes
        self._roles = roles
        self._rules = rules
        self._not_before_s = not_before_s
        self._expires_s = expires_s

    def check_times(self, now_s: float, leeway_s: float) -> None:
        """Raises TokenRefused for a token that has expired or is not valid yet."""
        if 0 < self._expires_s <= now_s - leeway_s:
            raise TokenRefused("the token has expired")
        if self._not_before_s > now_s + leeway_s:
            raise TokenRefused("the token is not valid yet")

    def identity(self, mark: str, leeway_s: float) -> Identity:
        """Who the client is, until the token ends."""
        end_s = self._expires_s + leeway_s if self._expires_s > 0 else 0
        return Identity(
            self.user_name,
            attributes=dict(self._attributes),
            roles=self._roles,
            expires_at_ms=int(end_s * 1000),
            mark=mark,
            rules=self._rules,
        )


def checked_claims(content: JsonObject, settings: JwtSettings) -> Claims:
    """The claims of a token whose signature and issuer are right. Raises TokenRefused."""
    for name in settings.required_claims:
        if content.get(name) is None:
            raise TokenRefused("the token has not all claims that are required")
    _check_audience(content.get("aud"), settings.audience)
    issued_s = _time(content, "iat")
    client_id: str | None = None
    if settings.client_id_claim:
        client_id = _text(content, settings.client_id_claim, ATTRIBUTE_CHARACTERS_MAX)
        if client_id is None:
            raise TokenRefused("the token has no client identifier")
    user_name = _text(content, settings.user_name_claim, NAME_CHARACTERS_MAX)
    if user_name is None:
        raise TokenRefused("the token has no user name")
    attributes: dict[str, str] = {}
    for attribute, claim in settings.attributes.items():
        value = _text(content, claim, ATTRIBUTE_CHARACTERS_MAX)
        if value is not None:
            attributes[attribute] = value
    return Claims(
        user_name=user_name,
        client_id=client_id,
        attributes=attributes,
        roles=_roles(content, settings.roles_claim),
        rules=_rules(content, settings.acl_claim),
        not_before_s=max(_time(content, "nbf"), issued_s),
        expires_s=_time(content, "exp"),
    )


def _check_audience(claim: object, expected: tuple[str, ...]) -> None:
    """A token for somebody else, or for nobody where somebody is expected, is refused.

    So is one for somebody where the settings name nobody. Source: RFC 7519 §4.1.3.
    """
    audience = [claim] if isinstance(claim, str) else [] if claim is None else claim
    if not isinstance(audience, list):
        raise TokenRefused("the audience of the token is none")
    if (audience or expected) and not any(name in expected for name in audience):
        raise TokenRefused("the token is for another audience")


def _time(content: JsonObject, name: str) -> float:
    """A claim that is a time, 0 if there is none."""
    value = content.get(name)
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= TIME_S_MAX:
        raise TokenRefused("a time of the token is none")
    return value


def _text(content: JsonObject, claim: str, characters_max: int) -> str | None:
    """A claim that is a text, None if there is none."""
    value = _claim(content, claim)
    if value is None:
        return None
    if not isinstance(value, str) or not _is_usable(value, characters_max):
        raise TokenRefused(f"the claim {claim} of the token is no usable text")
    return value


def _roles(content: JsonObject, claim: str) -> tuple[str, ...]:
    """A list of texts, or one text with spaces between them, as ``scope`` is."""
    value = _claim(content, claim) if claim else None
    if value is None:
        return ()
    roles = value.split() if isinstance(value, str) else value
    if not isinstance(roles, list) or len(roles) > ROLES_MAX:
        raise TokenRefused(f"the claim {claim} of the token is no list of at most {ROLES_MAX}")
    texts = tuple(role for role in roles if isinstance(role, str))
    if len(texts) != len(roles) or not all(_is_usable(t, NAME_CHARACTERS_MAX) for t in texts):
        raise TokenRefused(f"the claim {claim} of the token is no list of usable texts")
    return texts


def _rules(content: JsonObject, claim: str) -> tuple[AccessRule, ...] | None:
    """Rules of access, None if no claim has them; a token without the claim has none at all."""
    if not claim:
        return None
    value = _claim(content, claim)
    tables = [] if value is None else value
    if not isinstance(tables, list) or len(tables) > RULES_MAX:
        raise TokenRefused(f"the claim {claim} of the token is no list of at most {RULES_MAX}")
    rules = [rule for rule in tables if isinstance(rule, dict)]
    try:
        if len(rules) == len(tables):
            return parse_rules(rules, "the token")
    except ConfigError:
        pass  # It quotes what is in the token.
    raise TokenRefused(f"the claim {claim} of the token is no list of rules")


def _is_usable(text: str, characters_max: int) -> bool:
    # Printable: no control characters, and no surrogates, which cannot be sent.
    return 1 <= len(text) <= characters_max and text.isprintable()


def _claim(content: JsonObject, name: str) -> object:
    """A claim by its name, or by the way to it: ``realm_access.roles``."""
    if name in content:
        return content[name]
    found: object = content
    for part in name.split("."):
        if not isinstance(found, dict):
            return None
        found = found.get(part)
    return found
