"""What a publish returns: how far its message is."""

import asyncio
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.client.outgoing import ACCEPTED, DONE, FAILED, Outgoing
from holdfast.errors import HoldfastError, LimitExceeded, Refused
from holdfast.protocol.reason_codes import reason_name

if TYPE_CHECKING:
    from holdfast.client.engine import Engine

__all__ = ["Receipt", "Stages"]


class Stages:
    """How far one published message is."""

    __slots__ = ("_entry",)

    def __init__(self, entry: Outgoing) -> None:
        self._entry = entry

    def __repr__(self) -> str:
        entry = self._entry
        return f"<Receipt of {entry.topic!r}, QoS {entry.qos}: {entry.stage_name}>"

    @property
    def stage(self) -> str:
        """``accepted``, ``stored``, ``sent``, ``released``, ``done`` or ``failed``."""
        return self._entry.stage_name

    @property
    def is_stored(self) -> bool:
        """Whether it is in the outbox: on disk, if that is a file."""
        return self._entry.stage > ACCEPTED

    @property
    def is_done(self) -> bool:
        """Whether it has come to its end, good or bad."""
        return self._entry.stage >= DONE

    @property
    def reason_code(self) -> int:
        """What the server said at the end, 0 for success."""
        return self._entry.reason_code

    @property
    def reason(self) -> str:
        """What the server, or the client where it gave up, said in words."""
        return self._entry.reason

    @property
    def packet_id(self) -> int:
        """The Packet Identifier, 0 at QoS 0."""
        return self._entry.packet_id


@dataclass(frozen=True, slots=True)
class OutboxState:
    """What is in an outbox at a moment: all that is not acknowledged (at QoS 0: not sent)."""

    messages: int
    bytes: int
    in_flight: int
    oldest_age_s: float
    dropped: int  # expired, dropped at a bound, refused by the server, since the client began
    error: HoldfastError | None  # why nothing can be stored at the moment, such as a full disk

    @property
    def is_empty(self) -> bool:
        """Whether everything is out."""
        return self.messages == 0


class Receipt(Stages):
    """How far one published message is; await it for its end.

    The end is, at QoS 0, that it was written to the network; at QoS 1 that PUBACK came, at QoS 2
    that PUBCOMP came. It means that the server has the message, and says nothing of subscribers.
    Cancelling whoever awaits it changes nothing for the message.
    """

    __slots__ = ("_callbacks", "_engine", "_given_up", "_waiters")

    def __init__(self, engine: "Engine", entry: Outgoing) -> None:
        self._entry = entry  # and not by a call: every publish makes a receipt
        self._engine = engine
        self._given_up: HoldfastError | None = None
        self._waiters: list[asyncio.Future[None]] | None = None
        self._callbacks: list[Callable[[Receipt], object]] | None = None

    @property
    def error(self) -> HoldfastError | None:
        """What awaiting it raises, once that is known; None for a good end, and before the end."""
        entry = self._entry
        if entry.stage == FAILED:
            if entry.error is not None:
                return entry.error
            if entry.reason_code != 0:
                return Refused(entry.reason_code, entry.reason or reason_name(entry.reason_code))
            return LimitExceeded(entry.reason)
        if entry.stage == DONE:
            return None
        return self._given_up or self._engine.error

    async def stored(self) -> None:
        """Wait until it is in the outbox. Raises StoreError if it could not be stored."""
        if self._entry.stage == ACCEPTED:
            await self._engine.durable(self._entry)
        elif self._entry.error is not None:
            raise self._entry.error

    def __await__(self) -> Generator[object, None, "Receipt"]:
        """Wait for its end.

        Raises Refused if the server refused it, LimitExceeded if it was dropped or has expired,
        StoreError if it could not be stored, and ConnectionLost if the client was closed before.
        """
        return self.end().__await__()

    def add_done_callback(self, callback: Callable[["Receipt"], object]) -> None:
        """Call ``callback`` with this receipt at the end, good or bad; soon, if that was before.

        ``error`` says then which it was.
        """
        if self.is_done or self.error is not None:
            self._engine.loop.call_soon(callback, self)
            return
        if self._callbacks is None:
            self._callbacks = []
        self._callbacks.append(callback)
        self._entry.watcher = self

    async def end(self) -> "Receipt":
        """What awaiting it does."""
        entry = self._entry
        if entry.stage < DONE and self.error is None:
            waiter: asyncio.Future[None] = self._engine.loop.create_future()
            if self._waiters is None:
                self._waiters = []
            self._waiters.append(waiter)
            entry.watcher = self
            self._engine.check()
            try:
                await waiter
            finally:
                if self._waiters is not None:
                    self._waiters.remove(waiter)  # given up
        error = self.error
        if error is not None:
            raise error
        return self

    def finish(self, error: HoldfastError | None = None) -> None:
        """Wake all who wait for the end; with ``error`` if that will not come."""
        self._given_up = error
        waiters, self._waiters = self._waiters, None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(None)
        callbacks, self._callbacks = self._callbacks, None
        for callback in callbacks or ():
            self._engine.loop.call_soon(callback, self)
