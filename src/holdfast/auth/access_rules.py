"""Rules of access as an operator writes them, and what becomes of them for one client."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Final

from holdfast.broker.delayed import is_delayed
from holdfast.broker.permissions import (
    ALL_ACTIONS,
    PUBLISH,
    RECEIVE,
    RETAIN,
    SHARE,
    SUBSCRIBE,
    Rule,
)
from holdfast.errors import ConfigError, ProtocolError
from holdfast.protocol.topics import check_filter, is_shared

ACTIONS: Final[dict[str, int]] = {
    "publish": PUBLISH,
    "subscribe": SUBSCRIBE,
    "receive": RECEIVE,
    "retain": RETAIN,
    "share": SHARE,
    "all": ALL_ACTIONS,
}
PLACEHOLDERS: Final = "%c, %u, %a{name} or %% for a percent sign"

_PART: Final = re.compile(r"%c|%u|%a\{([^{}]+)\}|%%|%|[^%]+")


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom rules are asked about: a client, as it was let in."""

    client_id: str
    user_name: str | None = None
    listener: str = ""
    roles: tuple[str, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TopicTemplate:
    """A Topic Filter with placeholders; ``levels`` are its levels in parts. Made by ``parse``."""

    text: str
    levels: tuple[tuple[str, ...], ...]

    @classmethod
    def parse(cls, text: str) -> "TopicTemplate":
        """Raises ConfigError, which says what was expected."""
        levels = tuple(_parts(level) for level in text.split("/"))
        sample = "/".join("".join(map(_sample, parts)) for parts in levels)
        if is_shared(sample):
            raise ConfigError("expected the filter behind $share, the action share is for these")
        if is_delayed(sample):
            raise ConfigError("expected the topic behind $delayed, by which a message is judged")
        try:
            check_filter(sample)
        except ProtocolError as error:
            raise ConfigError(error.detail) from None
        return cls(text, levels)

    @property
    def has_placeholders(self) -> bool:
        """Whether it stands for different filters for different clients, or is not as written."""
        return "%" in self.text

    def filters(self, subject: Subject, *, is_allowed: bool) -> list[str]:
        """The filters that it stands for.

        A value that is not there, or would add wildcards or levels, makes nothing allowed; what is
        denied is so for any value in its place, and for that one.
        """
        rendered: list[str] = []
        literal: list[str] = []
        is_proper = True
        for parts in self.levels:
            values = [_value(part, subject) for part in parts]
            if all(is_fitting for _, is_fitting in values):
                level = "".join(value for value, _ in values)
                rendered.append(level)
                literal.append(level)
            else:
                is_proper = False
                rendered.append("+")
                literal.append("".join(value for value, _ in values))
        if rendered[0].startswith("$") and not self.text.startswith("$"):
            # Nobody comes to $SYS by calling itself so.
            is_proper = False
        if is_proper or not is_allowed:
            filters = ["/".join(rendered)]
            if not is_proper and "/".join(literal) != filters[0]:
                filters.append("/".join(literal))
            return [one for one in filters if _is_filter(one)]
        return []


@dataclass(frozen=True, slots=True)
class AccessRule:
    """One rule. ``name`` is for the operator. Users, clients and listeners are globs.

    None in their place is everyone, an empty selector nobody: a group may have no members.
    """

    name: str
    is_allowed: bool
    actions: tuple[str, ...]
    topics: tuple[TopicTemplate, ...]
    users: tuple[str, ...] | None = None
    roles: tuple[str, ...] | None = None
    clients: tuple[str, ...] | None = None
    listeners: tuple[str, ...] | None = None
    # What topics without placeholders become, by their index: all clients share it.
    _shared: dict[int, Rule] = field(
        init=False, default_factory=dict, compare=False, hash=False, repr=False
    )

    @property
    def text(self) -> str:
        """The rule in one line."""
        word = "allow" if self.is_allowed else "deny"
        parts = [f"{word} {', '.join(self.actions)} on {', '.join(t.text for t in self.topics)}"]
        for title, values in (
            ("users", self.users),
            ("roles", self.roles),
            ("clients", self.clients),
            ("listeners", self.listeners),
        ):
            if values is not None:
                parts.append(f"{title} {', '.join(values) or 'of no name'}")
        return "; ".join(parts)

    def is_about(self, subject: Subject, roles: frozenset[str]) -> bool:
        """Whether the rule is for this client, whose roles are these."""
        user = subject.user_name
        return (
            (self.users is None or (user is not None and _matches(self.users, user)))
            and (self.roles is None or not roles.isdisjoint(self.roles))
            and (self.clients is None or _matches(self.clients, subject.client_id))
            and (self.listeners is None or _matches(self.listeners, subject.listener))
        )

    def rendered(self, subject: Subject) -> list[Rule]:
        """What the broker decides by."""
        actions = 0
        for action in self.actions:
            actions |= ACTIONS[action]
        rules: list[Rule] = []
        for index, topic in enumerate(self.topics):
            if topic.has_placeholders:
                rules += [
                    Rule(self.is_allowed, actions, topic_filter, self.name)
                    for topic_filter in topic.filters(subject, is_allowed=self.is_allowed)
                ]
                continue
            shared = self._shared.get(index)
            if shared is None:
                shared = Rule(self.is_allowed, actions, topic.text, self.name)
                self._shared[index] = shared
            rules.append(shared)
        return rules


def _parts(level: str) -> tuple[str, ...]:
    parts = tuple(match.group() for match in _PART.finditer(level))
    if "%" in parts:
        behind = "".join(parts[parts.index("%") :])[:10]
        raise ConfigError(f"expected {PLACEHOLDERS}, {behind} came")
    return parts


def _sample(part: str) -> str:
    """What stands for a part while a template is checked."""
    return part if not part.startswith("%") else "x"


def _value(part: str, subject: Subject) -> tuple[str, bool]:
    """What stands for a part of a level, and whether it fits into one."""
    if not part.startswith("%"):
        return part, True
    if part == "%%":
        return "%", True
    if part == "%c":
        value: str | None = subject.client_id
    elif part == "%u":
        value = subject.user_name
    else:
        value = subject.attributes.get(part[3:-1])
    if not value:
        return "", False
    return value, not any(character in value for character in "+#/\0")


def _is_filter(topic_filter: str) -> bool:
    try:
        check_filter(topic_filter)
    except ProtocolError:
        return False
    return not is_shared(topic_filter)


def _matches(globs: Iterable[str], text: str) -> bool:
    return any(fnmatchcase(text, one) for one in globs)
