"""What a client may do, of all that has a say: its own rules, authorizers and the ACL file."""

from collections.abc import Sequence
from typing import Final, Literal, final

from holdfast.auth.access_rules import AccessRule, Subject
from holdfast.auth.acl import permissions_of
from holdfast.auth.interface import Authorizer
from holdfast.broker.permissions import Permissions

OwnRules = Literal["before", "instead"]


@final
class AccessControl:
    """Puts the rules of one client together; the first one that matches decides.

    ``own_rules``: those that come with an identity, such as a token's, stand before the others or
    in their place.
    """

    def __init__(
        self, authorizers: Sequence[Authorizer] = (), own_rules: OwnRules = "before"
    ) -> None:
        self.authorizers: Final = tuple(authorizers)
        self._own_rules = own_rules

    def permissions(
        self, subject: Subject, own_rules: Sequence[object] | None
    ) -> Permissions | None:
        """What a client may do, None for everything: where nobody has a say."""
        rules: list[AccessRule] = []
        has_rules = own_rules is not None
        for rule in own_rules or ():
            assert isinstance(rule, AccessRule)
            # A rule of one's own may be for some clients or listeners alone too.
            if rule.is_about(subject, frozenset(subject.roles)):
                rules.append(rule)
        if own_rules is None or self._own_rules == "before":
            for authorizer in self.authorizers:
                found = authorizer.rules(subject)
                if found is not None:
                    has_rules = True
                    rules += found
        return permissions_of(rules, subject) if has_rules else None
