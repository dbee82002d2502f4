"""An authenticator that lets everyone in, each with the permissions that a test has set."""

from holdfast.broker.authentication import AuthReply, AuthRequest, grant, refuse
from holdfast.broker.identity import Identity
from holdfast.broker.permissions import (
    ALL_ACTIONS,
    PUBLISH,
    RECEIVE,
    RETAIN,
    SHARE,
    SUBSCRIBE,
    Permissions,
    Rule,
)

_ACTIONS = {
    "publish": PUBLISH,
    "subscribe": SUBSCRIBE,
    "receive": RECEIVE,
    "retain": RETAIN,
    "share": SHARE,
    "all": ALL_ACTIONS,
}


def permissions(text: str) -> Permissions:
    """Of rules as ``allow publish,retain a/#; deny all #``, numbered from 1."""
    rules = []
    for number, line in enumerate(text.split(";"), start=1):
        if line.strip():
            word, names, topic_filter = line.split()
            actions = 0
            for name in names.split(","):
                actions |= _ACTIONS[name]
            rules.append(Rule(word == "allow", actions, topic_filter, f"rule {number}"))
    return Permissions(rules)


class Granting:
    """What is not in ``rules``, by client identifier, may do everything."""

    def __init__(self, rules: dict[str, str] | None = None) -> None:
        self.rules = {} if rules is None else rules
        self.refused: set[str] = set()

    @property
    def methods(self) -> frozenset[str]:
        return frozenset({"ANY"})

    def step(self, request: AuthRequest) -> AuthReply:
        if request.client_id in self.refused:
            return refuse()
        text = self.rules.get(request.client_id)
        granted = None if text is None else permissions(text)
        identity = Identity(request.user_name) if request.renewed is None else request.renewed
        return grant(identity=identity, permissions=granted)
