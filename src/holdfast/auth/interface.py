"""The authenticator interface: who may connect, and as whom."""

from typing import Protocol

from holdfast.broker.authentication import AuthReply, AuthRequest


class Authenticator(Protocol):
    """Answers one step at a time; between two steps of an exchange it keeps nothing.

    What it has to remember it puts into the ``state`` of its reply, and finds it in the next
    request: an exchange that breaks off leaves nothing behind.
    """

    @property
    def methods(self) -> frozenset[str]:
        """The Authentication Methods of 5.0 it knows; a client with another one gets 0x8C.

        Asked once. A client without method, which comes with a user name or with nothing, is its
        to judge too.
        """
        ...

    def step(self, request: AuthRequest) -> AuthReply:
        """Answer one request. It may block and take its time: it runs on a thread of its own.

        An error that it raises refuses the client, and is logged.
        """
        ...
