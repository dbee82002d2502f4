"""What the checker keeps of each network connection, and how it says that a promise is broken."""

from collections import deque
from typing import NamedTuple, Protocol

from holdfast.protocol.packets import (
    Packet,
    Pingresp,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Suback,
    Unsuback,
)
from tests.sim.model import Flight, Message, Session

BIG_BYTES = 150  # of payload: what a client with a small Maximum Packet Size is not given


class Violation(AssertionError):
    """A promise is broken: which check saw it, and whom it is about."""

    def __init__(self, check: str, text: str, *about: str) -> None:
        super().__init__(f"{check}: {text}")
        self.check = check
        self.about = about


class Losses(Protocol):
    """How many messages the broker says that a session, or shared group, has lost to a limit."""

    def of(self, owner: str) -> int: ...


class NoLosses:
    """No limit is set that drops anything."""

    def of(self, owner: str) -> int:
        return 0


class Answer(NamedTuple):
    """What a client waits for, and which operation has to be durable before it (0 for none)."""

    packet_id: int
    operation: int
    codes: list[int]
    unlogged: tuple[int, Message] | None = None  # a message that nobody durable wants, and when


class Acknowledgement(NamedTuple):
    """One that is written with the next commit of its session or group, or a little later."""

    operation: int
    session: Session
    flight: Flight
    packet_id: int


class Tap:
    """One network connection as the checker sees it."""

    def __init__(self, number: int, client_id: str, version: int) -> None:
        self.number = number
        self.client_id = client_id
        self.version = version
        self.session: Session | None = None
        self.is_open = True  # the broker takes what comes
        self.is_welcome = False
        self.is_present = False
        self.connect_operation = 0
        self.window = 65_535
        self.alias_maximum = 0
        self.aliases: dict[int, str] = {}
        self.keep_alive_ms = 0
        self.heard_ms = 0
        self.refused_id = 0  # of the PUBLISH that a limit has closed it for
        self.open_ids: set[int] = set()  # of PUBLISH packets that its client has not answered
        self.resent = 0  # the order of the newest one that was sent again
        self.answers: dict[type[Packet], deque[Answer]] = {
            kind: deque() for kind in (Puback, Pubrec, Pubcomp, Suback, Unsuback, Pingresp)
        }

    def topic(self, packet: Publish) -> str:
        """The topic of a PUBLISH to its client, a Topic Alias resolved."""
        alias = None if packet.properties is None else packet.properties.topic_alias
        if alias is None:
            return packet.topic
        if alias > self.alias_maximum or packet.dup:
            raise Violation("protocol", f"{self.client_id} got alias {alias}", self.client_id)
        if packet.topic:
            self.aliases[alias] = packet.topic
        return self.aliases[alias]
