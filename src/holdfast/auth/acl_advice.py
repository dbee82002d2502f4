"""What is odd about an ACL file, though it is no error."""

import difflib
from collections.abc import Sequence
from fnmatch import fnmatchcase

from holdfast.auth.access_rules import ACTIONS, AccessRule
from holdfast.auth.acl import AclText
from holdfast.broker.permissions import PUBLISH, RECEIVE, RETAIN, SHARE, SUBSCRIBE
from holdfast.protocol.filters import covers


def advice(acl: AclText, listeners: Sequence[str] | None = None) -> list[str]:
    """A line for each rule that decides nothing, or likely is for others than it is meant for.

    ``listeners`` are the names of those that there are, where that is known. A role may come from
    elsewhere than the file, so that only one that looks misspelt is named.
    """
    found: list[str] = []
    for index, rule in enumerate(acl.rules):
        for one in rule.listeners or ():
            if listeners is not None and not any(fnmatchcase(name, one) for name in listeners):
                found.append(f"{rule.name}: there is no listener {one}")
        for role in rule.roles or ():
            near = difflib.get_close_matches(role, acl.roles, n=1, cutoff=0.75)
            if role not in acl.roles and near:
                found.append(f"{rule.name}: the file has no role {role}; is {near[0]} meant?")
        for earlier in acl.rules[:index]:
            if _decides_before(earlier, rule):
                found.append(f"{rule.name} decides nothing: {earlier.name} does before it")
                break
    return found


def _decides_before(earlier: AccessRule, rule: AccessRule) -> bool:
    """Whether an earlier rule decides about all that another is about, for all its clients."""
    return (
        _actions(rule, is_wide=False) & ~_actions(earlier, is_wide=True) == 0
        and all(
            mine is None or mine == theirs
            for mine, theirs in (
                (earlier.users, rule.users),
                (earlier.roles, rule.roles),
                (earlier.clients, rule.clients),
                (earlier.listeners, rule.listeners),
            )
        )
        and all(
            any(_covers(wide.text, topic.text) for wide in earlier.topics) for topic in rule.topics
        )
    )


def _actions(rule: AccessRule, *, is_wide: bool) -> int:
    """The actions of a rule; where it ``is_wide``, with the special ones that fall under them."""
    actions = 0
    for action in rule.actions:
        actions |= ACTIONS[action]
    if is_wide and actions & PUBLISH:
        actions |= RETAIN
    if is_wide and actions & SUBSCRIBE:
        actions |= RECEIVE | SHARE
    return actions


def _covers(wide: str, topic: str) -> bool:
    if wide == topic:
        return True
    return "%" not in wide and covers(wide.split("/"), topic.split("/"))
