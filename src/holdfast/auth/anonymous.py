"""Clients that do not say who they are."""

from typing import Final, final

from holdfast.auth.link import NOT_MINE, Answer, Link
from holdfast.broker.authentication import AuthRequest, grant
from holdfast.broker.identity import Identity

NAME: Final = "anonymous"


@final
class AnonymousLink(Link):
    """Lets in who comes without user name, password and method, as nobody in particular.

    Where it is the only link, names prove nothing: who gives one is let in too, and still is
    nobody. Elsewhere a wrong password is never turned into no password.
    """

    def __init__(self, *, is_alone: bool) -> None:
        super().__init__(NAME)
        self._is_alone = is_alone

    def step(self, request: AuthRequest) -> Answer:
        """Grant or leave it."""
        is_anonymous = request.user_name is None and request.password is None
        if request.method is None and (is_anonymous or self._is_alone):
            return grant(identity=Identity(None))
        return NOT_MINE
