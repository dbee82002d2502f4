"""Rules that bind client identifiers to users: who may use which, and which are for whom alone."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

from holdfast.broker.identity import Identity
from holdfast.errors import UsageError

EXPECTED: Final = "a client id with * for anything, %u, %a{NAME}, and %% for a percent sign"

_PARTS: Final = re.compile(r"%%|%u|%a\{([^{}]+)\}|\*|[^%*]+")


@dataclass(frozen=True, slots=True)
class _Literal:
    text: str


@dataclass(frozen=True, slots=True)
class _Attribute:
    name: str


_USER: Final = _Attribute("")
_ANY: Final = _Attribute("*")


@final
class ClientIdPattern:
    """Client identifiers with ``*``, ``%u`` and ``%a{name}`` in them."""

    def __init__(self, text: str) -> None:
        """Raises UsageError for one that cannot be."""
        self._parts: list[_Literal | _Attribute] = []
        end = 0
        for match in _PARTS.finditer(text):
            if match.start() != end:
                break
            end = match.end()
            self._parts.append(_part(match))
        if end != len(text) or text == "":
            raise UsageError(f"expected {EXPECTED}")

    @property
    def has_placeholders(self) -> bool:
        """Whether it depends on the user."""
        return any(isinstance(part, _Attribute) and part is not _ANY for part in self._parts)

    def fits(self, client_id: str, identity: Identity) -> bool:
        """Whether an identifier is one of these. A value that the user has not fits nothing."""
        chunks = [""]
        for part in self._parts:
            if part is _ANY:
                chunks.append("")
                continue
            if isinstance(part, _Literal):
                text = part.text
            elif part is _USER:
                text = identity.user_name or ""
            else:
                text = identity.attributes.get(part.name, "")
            if not text:
                return False
            chunks[-1] += text
        return _is_like(client_id, chunks)


@dataclass(frozen=True, slots=True)
class ClientIdRule:
    """Users, by names in which ``*`` is anything, and the identifiers that they may use.

    What is reserved, nobody else may use.
    """

    users: tuple[str, ...]
    client_ids: tuple[ClientIdPattern, ...]
    is_reserved: bool = False

    def is_about(self, user_name: str | None) -> bool:
        """Whether a user is one of these; nobody is one of all."""
        if user_name is None:
            return "*" in self.users
        return any(_is_like(user_name, glob.split("*")) for glob in self.users)

    def fits(self, client_id: str, identity: Identity) -> bool:
        """Whether one of its patterns fits."""
        return any(pattern.fits(client_id, identity) for pattern in self.client_ids)


@final
class ClientIdRules:
    """All rules: the first that is about a user decides; without one, anything will do.

    Before that, what is reserved for others is refused.
    """

    def __init__(self, rules: Sequence[ClientIdRule]) -> None:
        self._rules = tuple(rules)
        self._reserved = tuple(rule for rule in rules if rule.is_reserved)

    def complaint(self, client_id: str, identity: Identity) -> str:
        """Why a client may not have this identifier, for the operator; "" if it may."""
        user_name = identity.user_name
        holders = [rule for rule in self._reserved if rule.fits(client_id, identity)]
        if holders and not any(rule.is_about(user_name) for rule in holders):
            return "this client id is reserved for others"
        for rule in self._rules:
            if rule.is_about(user_name):
                if rule.fits(client_id, identity):
                    return ""
                return "this user may not use this client id"
        return ""


def _part(match: re.Match[str]) -> _Literal | _Attribute:
    text = match[0]
    if text == "*":
        return _ANY
    if text == "%u":
        return _USER
    if text == "%%":
        return _Literal("%")
    return _Literal(text) if match[1] is None else _Attribute(match[1])


def _is_like(text: str, chunks: list[str]) -> bool:
    """Whether a text is the chunks in their order, with anything between them; in linear time."""
    first, last = chunks[0], chunks[-1]
    if len(chunks) == 1:
        return text == first
    if len(text) < len(first) + len(last) or not text.startswith(first) or not text.endswith(last):
        return False
    position, end = len(first), len(text) - len(last)
    for chunk in chunks[1:-1]:
        found = text.find(chunk, position, end)
        if found < 0:
            return False
        position = found + len(chunk)
    return True
