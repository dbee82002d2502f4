"""The ACL file: rules of access in TOML, in the order in which they are tried."""

import difflib
import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final, final

from holdfast.auth.access_rules import ACTIONS, AccessRule, Subject, TopicTemplate
from holdfast.broker.permissions import Permissions
from holdfast.errors import ConfigError

RULES_MAX: Final = 10_000  # of one file; each client is compared with all of them when it connects
GROUP_MARK: Final = "@"  # before the name of a group, where users are listed

_KEYS: Final = ("groups", "roles", "rules")
_SELECTORS: Final = ("users", "groups", "roles", "clients", "listeners")
_RULE_KEYS: Final = ("allow", "deny", "topics", *_SELECTORS)
_HEADER: Final = re.compile(r"\s*\[\[\s*(rules|\"rules\"|'rules')\s*\]\]")


@dataclass(frozen=True, slots=True)
class AclText:
    """What a file says. ``roles`` has the users of each role, as globs."""

    rules: tuple[AccessRule, ...] = ()
    roles: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def roles_of(self, subject: Subject) -> frozenset[str]:
        """The roles that a client came with, and those that the file gives to its user."""
        user = subject.user_name
        found = set(subject.roles)
        if user is not None:
            for role, users in self.roles.items():
                if any(fnmatchcase(user, one) for one in users):
                    found.add(role)
        return frozenset(found)

    def rules_for(self, subject: Subject) -> tuple[AccessRule, ...]:
        """The rules that are about a client, in their order."""
        roles = self.roles_of(subject)
        return tuple(rule for rule in self.rules if rule.is_about(subject, roles))


@final
class AclFile:
    """The rules of one file, read anew by ``reload``; any thread may ask."""

    def __init__(self, file: Path) -> None:
        self.file: Final = file
        self.text = AclText()  # nothing is allowed before the first ``reload``

    @property
    def name(self) -> str:
        """What the log calls it."""
        return "acl_file"

    @property
    def files(self) -> tuple[Path, ...]:
        """The file whose change asks for ``reload``."""
        return (self.file,)

    def reload(self) -> None:
        """Read the file anew, whole or not at all. Raises ConfigError."""
        self.text = read_acl(self.file)

    def close(self) -> None:
        """Nothing is held."""

    def rules(self, subject: Subject) -> Sequence[AccessRule]:
        """The rules that are about a client."""
        return self.text.rules_for(subject)


def permissions_of(rules: Sequence[AccessRule], subject: Subject) -> Permissions:
    """What the broker decides by, for a client that these rules are about."""
    return Permissions([one for rule in rules for one in rule.rendered(subject)])


def read_acl(file: Path) -> AclText:
    """Raises ConfigError, with one line that names file, rule and what was expected."""
    try:
        source = file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: expected UTF-8, byte {error.start} is not") from error
    try:
        return parse_acl(source)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error


def parse_acl(source: str) -> AclText:
    """The rules of a text. Raises ConfigError."""
    try:
        tables = tomllib.loads(source)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"not valid TOML: {error}") from error
    _check_keys(tables, _KEYS)
    groups: dict[str, tuple[str, ...]] = {}
    for name, members in _table(tables, "groups").items():
        groups[name] = _members(members, f"groups.{name}")
        for member in groups[name]:
            if member.startswith(GROUP_MARK):
                raise ConfigError(f"groups.{name}: expected users, {_shown(member)} is a group")
    roles: dict[str, tuple[str, ...]] = {}
    for name, members in _table(tables, "roles").items():
        try:
            roles[name] = _users(_members(members, f"roles.{name}"), groups)
        except ConfigError as error:
            raise ConfigError(f"roles.{name}: {error}") from None
    rules = tables.get("rules", [])
    if not isinstance(rules, list) or not all(isinstance(rule, dict) for rule in rules):
        raise ConfigError("rules: expected tables, each written [[rules]]")
    if len(rules) > RULES_MAX:
        raise ConfigError(f"expected at most {RULES_MAX} rules, {len(rules)} are there")
    lines = [number for number, line in enumerate(source.splitlines(), 1) if _HEADER.match(line)]
    names = [
        f"rule {number}" + (f" (line {lines[number - 1]})" if len(lines) == len(rules) else "")
        for number in range(1, len(rules) + 1)
    ]
    return AclText(
        tuple(_rule(name, table, groups) for name, table in zip(names, rules, strict=True)), roles
    )


def parse_rules(tables: Sequence[Mapping[str, object]], source: str) -> tuple[AccessRule, ...]:
    """Rules from elsewhere, such as the claims of a token, with the keys of a file's rules.

    ``source`` is what the operator is told that they are of. Raises ConfigError.
    """
    return tuple(
        _rule(f"rule {number} of {source}", table, {}) for number, table in enumerate(tables, 1)
    )


def _rule(
    name: str, table: Mapping[str, object], groups: Mapping[str, tuple[str, ...]]
) -> AccessRule:
    try:
        return _parsed_rule(name, table, groups)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None


def _parsed_rule(
    name: str, table: Mapping[str, object], groups: Mapping[str, tuple[str, ...]]
) -> AccessRule:
    _check_keys(table, _RULE_KEYS)
    if ("allow" in table) == ("deny" in table):
        raise ConfigError("expected either allow or deny")
    word = "allow" if "allow" in table else "deny"
    actions = _texts(table[word], word)
    for action in actions:
        if action not in ACTIONS:
            raise ConfigError(
                f"{word}: expected {_one_of(ACTIONS)}, {_shown(action)} came"
                + _did_you_mean(action, ACTIONS)
            )
    if "topics" not in table:
        raise ConfigError("expected topics, the filters that it is about")
    topics = []
    for text in _texts(table["topics"], "topics"):
        try:
            topics.append(TopicTemplate.parse(text))
        except ConfigError as error:
            raise ConfigError(f"topics: {_shown(text)}: {error}") from None
    chosen = {key: _texts(table[key], key) for key in _SELECTORS if key in table}
    users: tuple[str, ...] | None = None
    if "users" in chosen or "groups" in chosen:
        marked = [GROUP_MARK + group for group in chosen.get("groups", ())]
        users = _users([*chosen.get("users", ()), *marked], groups)
    return AccessRule(
        name,
        word == "allow",
        actions,
        tuple(topics),
        users,
        chosen.get("roles"),
        chosen.get("clients"),
        chosen.get("listeners"),
    )


def _users(names: Sequence[str], groups: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """User names, those of the groups among them in their place."""
    users: list[str] = []
    for name in names:
        if not name.startswith(GROUP_MARK):
            users.append(name)
            continue
        group = name.removeprefix(GROUP_MARK)
        if group not in groups:
            hint = _did_you_mean(group, groups)
            raise ConfigError(f"expected a group of [groups], {_shown(group)} came{hint}")
        users += groups[group]
    return tuple(users)


def _table(tables: Mapping[str, object], key: str) -> Mapping[str, object]:
    table = tables.get(key, {})
    if not isinstance(table, dict):
        raise ConfigError(f"{key}: expected a table, written [{key}]")
    return table


def _texts(value: object, key: str) -> tuple[str, ...]:
    """A list of texts; one alone may stand without its brackets."""
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not value or not all(isinstance(one, str) for one in value):
        raise ConfigError(f"{key}: expected a list of texts that is not empty")
    return tuple(value)


def _members(value: object, key: str) -> tuple[str, ...]:
    """As ``_texts``, but there may be none."""
    return () if value == [] else _texts(value, key)


def _check_keys(table: Mapping[str, object], known: Collection[str]) -> None:
    for key in table:
        if key not in known:
            raise ConfigError(
                f"expected {_one_of(known)}, {_shown(key)} came{_did_you_mean(key, known)}"
            )


def _did_you_mean(word: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""


def _one_of(words: Collection[str]) -> str:
    *others, last = words
    return f"{', '.join(others)} or {last}"


def _shown(text: str) -> str:
    text = text if len(text) <= 80 else text[:80] + "…"
    return "'" + "".join(c if c.isprintable() else "?" for c in text) + "'"
