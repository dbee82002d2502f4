"""The interfaces: who may connect, and as whom; and what they may do then."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from holdfast.auth.access_rules import AccessRule, Subject
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


class Authorizer(Protocol):
    """Gives the rules of one client, when it is let in and after each reload of anything.

    It is asked on threads, several of them at a time, and never about a single message: the broker
    decides about these by the rules.
    """

    @property
    def name(self) -> str:
        """What the log calls it."""
        ...

    @property
    def files(self) -> tuple[Path, ...]:
        """Files whose change asks for ``reload``."""
        ...

    def reload(self) -> None:
        """Read anew what it goes by, whole or not at all. Raises ConfigError."""
        ...

    def rules(self, subject: Subject) -> Sequence[AccessRule] | None:
        """The rules about a client in their order, None if it has no say about this one.

        An error that it raises refuses the client, or leaves it as it is after a reload.
        """
        ...

    def close(self) -> None:
        """Let go of what it holds."""
        ...
