"""A link of a chain of authenticators: it says yes, no, or that a client is not its to judge."""

from abc import ABC, abstractmethod
from enum import Enum
from pathlib import Path
from typing import Final, Literal

from holdfast.broker.authentication import AuthReply, AuthRequest, grant
from holdfast.broker.identity import Identity


class NotMine(Enum):
    """The answer of a link that cannot say who a client is; the next link is asked."""

    NOT_MINE = "not mine"


NOT_MINE: Final[Literal[NotMine.NOT_MINE]] = NotMine.NOT_MINE

Answer = AuthReply | NotMine


class Link(ABC):
    """One authenticator of a chain. Its methods run on threads, several of them at a time.

    ``name`` is what the configuration calls it; an Identity that it grants gets that ``source``.
    """

    def __init__(self, name: str) -> None:
        self.name: Final = name

    @property
    def methods(self) -> frozenset[str]:
        """The Authentication Methods of 5.0 that it knows. Asked once."""
        return frozenset()

    @property
    def threads(self) -> int:
        """The threads that it needs for itself, because it waits for others; asked once.

        With 0 it shares those that compute, which must not be held up.
        """
        return 0

    @abstractmethod
    def step(self, request: AuthRequest) -> Answer:
        """Answer one step: ``grant``, ``refuse``, ``go_on`` or NOT_MINE.

        An exchange with a method stays with the link that has answered ``go_on``. What it has to
        remember it puts into the ``state`` of that reply: an exchange may break off at any time.
        An error that it raises refuses the client, and is logged.
        """

    def renew(self, request: AuthRequest, identity: Identity) -> Answer:
        """Whether a client that it has let in may stay: the same or a new identity, or no.

        Asked when something has been reloaded; the client takes no part, and its password is not
        known any more. An error that it raises leaves the client as it is.
        """
        return grant(identity=identity)

    @property
    def files(self) -> tuple[Path, ...]:
        """Files whose change asks for ``reload``."""
        return ()

    def reload(self) -> None:  # noqa: B027 - most links have nothing to read
        """Read what it goes by, whole or not at all: before the first step, and on a change.

        Raises ConfigError if that is wrong, and what was there before stays.
        """

    def has_news(self) -> bool:
        """Whether what it goes by has changed in another way since it was asked last.

        Asked each second. If so, clients that are there are asked about again.
        """
        return False

    def close(self) -> None:  # noqa: B027 - most links hold nothing
        """Let go of what it holds, such as connections; it is not asked any more."""
