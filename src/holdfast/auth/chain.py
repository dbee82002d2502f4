"""The chain of a listener: its links in order, until one of them knows the client."""

from collections.abc import Sequence
from typing import Final, final

from holdfast.auth.access import AccessControl
from holdfast.auth.access_rules import Subject
from holdfast.auth.client_ids import ClientIdRules
from holdfast.auth.link import NOT_MINE, Answer, Link
from holdfast.broker.authentication import (
    CONTINUE,
    GRANT,
    AuthReply,
    AuthRequest,
    go_on,
    grant,
    refuse,
)
from holdfast.broker.identity import Identity
from holdfast.broker.permissions import Permissions
from holdfast.logs import get_logger
from holdfast.protocol.reason_codes import (
    BAD_USER_NAME_OR_PASSWORD,
    CLIENT_IDENTIFIER_NOT_VALID,
    NOT_AUTHORIZED,
)

SHARED_LANE: Final = ""  # where links compute; one that waits has a lane of its own name

_log = get_logger(__name__)


@final
class Chain:
    """An Authenticator made of links.

    The first link that does not say NOT_MINE decides. In an exchange, the link that began it goes
    on. Whether a client may stay is for the link that has let it in.
    """

    def __init__(
        self,
        links: Sequence[Link],
        access: AccessControl | None = None,
        client_ids: ClientIdRules | None = None,
    ) -> None:
        self.links: Final = tuple(links)
        self._access = AccessControl() if access is None else access
        self._by_name = {link.name: link for link in self.links}
        assert len(self._by_name) == len(self.links), "two links of one name"
        self._client_ids = client_ids
        # Asked once: from here on these are looked at on the event loop.
        self._link_methods = {link.name: link.methods for link in self.links}
        self._threads = {link.name: link.threads for link in self.links}
        self._methods = frozenset[str]().union(*self._link_methods.values())

    @property
    def methods(self) -> frozenset[str]:
        """Those of all links."""
        return self._methods

    @property
    def lanes(self) -> dict[str, int]:
        """The lanes of links that wait for others, and how many threads each of them needs."""
        return {name: threads for name, threads in self._threads.items() if threads > 0}

    def lane_of(self, link: Link) -> str:
        """Where a link answers."""
        return link.name if self._threads[link.name] > 0 else SHARED_LANE

    def step(self, request: AuthRequest) -> AuthReply:
        """Answer one request, all on this thread."""
        walk = self.walk(request)
        while (reply := walk.advance()) is None:
            pass
        return reply

    def walk(self, request: AuthRequest) -> "Walk":
        """Begin to answer one request; each part of it runs in the lane that it names."""
        return Walk(self, request, self._asked(request))

    def _asked(self, request: AuthRequest) -> tuple[Link, ...]:
        """The links that this request is for."""
        if request.renewed is not None:
            link = self._by_name.get(request.renewed.source)
            return () if link is None else (link,)
        if isinstance(request.state, _Begun):
            return (request.state.link,)
        if request.method is not None:
            methods = self._link_methods
            return tuple(link for link in self.links if request.method in methods[link.name])
        return self.links

    def granted(self, request: AuthRequest, identity: Identity, data: bytes | None) -> AuthReply:
        """What follows from a link's grant, at first and at each renewal."""
        if self._client_ids is not None:
            complaint = self._client_ids.complaint(request.client_id, identity)
            if complaint:
                return refuse(CLIENT_IDENTIFIER_NOT_VALID, detail=complaint)
        permissions = self._permissions(request, identity)
        return grant(data, identity=identity, permissions=permissions)

    def _permissions(self, request: AuthRequest, identity: Identity) -> Permissions | None:
        """What the client may do; at a renewal, what it might so far if nobody can say."""
        subject = Subject(
            request.client_id,
            identity.user_name,
            request.listener,
            identity.roles,
            identity.attributes,
        )
        try:
            return self._access.permissions(subject, identity.rules)
        except Exception as error:
            if request.renewed is None:
                raise
            _log.failure("clients keep their permissions: an authorizer failed", error)
            return request.permissions


@final
class Walk:
    """One request on its way along the links; ``lane`` is where ``advance`` is to be called."""

    def __init__(self, chain: Chain, request: AuthRequest, links: tuple[Link, ...]) -> None:
        self._chain = chain
        self._request = request
        self._links = links
        self._next = 0
        self.lane = self._lane_of(0)

    def advance(self) -> AuthReply | None:
        """Ask the links of this lane: the reply, or None if it goes on in another ``lane``."""
        while self._next < len(self._links):
            link = self._links[self._next]
            answer = self._ask(link)
            if answer is not NOT_MINE:
                return self._reply(link, answer)
            self._next += 1
            if self._lane_of(self._next) != self.lane:
                self.lane = self._lane_of(self._next)
                return None
        return self._nobody_knows()

    def _lane_of(self, index: int) -> str:
        if index == len(self._links):
            return self.lane if index > 0 else SHARED_LANE
        return self._chain.lane_of(self._links[index])

    def _ask(self, link: Link) -> Answer:
        request = self._request
        if request.renewed is not None:
            try:
                answer = link.renew(request, request.renewed)
                if answer is NOT_MINE or isinstance(answer, AuthReply):
                    return answer
                raise TypeError(f"expected an AuthReply, got a {type(answer).__name__}")
            except Exception as error:
                # That somebody cannot be asked is no reason to end what was granted.
                _log.failure("clients stay as they are: an authenticator failed", error)
                return grant(identity=request.renewed)
        if isinstance(request.state, _Begun):
            return link.step(_with_state(request, request.state.state))
        return link.step(request)

    def _reply(self, link: Link, answer: AuthReply) -> AuthReply:
        if answer.kind == CONTINUE:
            return go_on(answer.data, _Begun(link, answer.state))
        if answer.kind != GRANT:
            return answer
        identity = answer.identity
        if identity is None:
            identity = Identity(self._request.user_name)
        identity.source = link.name
        return self._chain.granted(self._request, identity, answer.data)

    def _nobody_knows(self) -> AuthReply:
        request = self._request
        if request.renewed is not None:
            return refuse(NOT_AUTHORIZED, detail="what let this client in is not there any more")
        # Without a name too: the client is to come with one.
        if request.user_name is None and request.method is None:
            return refuse(BAD_USER_NAME_OR_PASSWORD, detail="a user name is needed")
        return refuse(BAD_USER_NAME_OR_PASSWORD, detail="no authenticator knows this user")


@final
class _Begun:
    """The state of an exchange that a link has begun."""

    def __init__(self, link: Link, state: object | None) -> None:
        self.link = link
        self.state = state


def _with_state(request: AuthRequest, state: object | None) -> AuthRequest:
    """The same request as its link is to see it."""
    return AuthRequest(
        request.method,
        request.data,
        request.client_id,
        request.user_name,
        request.password,
        request.address,
        request.is_reauthentication,
        state,
        request.listener,
        request.version,
        request.certificate,
        request.renewed,
    )
