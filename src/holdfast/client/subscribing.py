"""Subscribes and unsubscribes: what was asked of the server, and what it has answered.

Source: MQTT 5.0 §3.8 to §3.11.
"""

import asyncio
from typing import TYPE_CHECKING

from holdfast.client.composing import check_filters
from holdfast.client.engine import Engine
from holdfast.client.subscription import Streams, Subscription
from holdfast.errors import ConnectionLost, Refused
from holdfast.message import Properties
from holdfast.protocol.packets import MQTT_5_0, Suback, Subscribe, Unsuback, Unsubscribe

if TYPE_CHECKING:
    from holdfast.client.link import Link

__all__ = ["Subscribing"]


class Subscribing:
    """Keeps the server's subscriptions as the ``streams`` are.

    They are asked for once, and again in a session that the server has begun anew.
    """

    def __init__(
        self, engine: Engine, link: "Link", streams: Streams, *, version: int, manual_ack: bool
    ) -> None:
        self.manual_ack = manual_ack
        self._engine = engine
        self._link = link
        self._streams = streams
        self._version = version
        self._next_identifier = 1
        self._asked: dict[int, Subscription | asyncio.Future[list[int]]] = {}
        self._free: list[asyncio.Future[None]] = []  # who waits for an identifier

    def add(self, subscription: Subscription) -> None:
        """Ask the server for it, now or with the next connection; if none comes, it has ended."""
        if self._link.stopped_by is not None:
            subscription.end(self._link.stopped_by)
            return
        if self._version >= MQTT_5_0:
            subscription.identifier = self._next_identifier
            self._next_identifier += 1
        self._streams.add(subscription)
        if self._link.is_connected:
            self._subscribe(subscription)

    def withdraw(self, subscription: Subscription) -> None:
        """Forget a subscription that nobody waits for any more; tell the server if it knows it."""
        self._streams.discard(subscription)
        others = {f for one in self._streams.subscriptions for f in one.topic_filters}
        gone = [f for f in subscription.topic_filters if f not in others]
        if gone and self._link.is_connected:
            self._ask(Unsubscribe(0, gone), self._engine.loop.create_future())

    async def unsubscribe(self, *topic_filters: str) -> list[int]:
        """Unsubscribe, and end the streams of these filters; the reason codes are returned."""
        check_filters(topic_filters)
        self._streams.remove(topic_filters)
        while True:
            await self._link.connected()
            answer: asyncio.Future[list[int]] = self._engine.loop.create_future()
            if self._ask(Unsubscribe(0, list(topic_filters)), answer):
                try:
                    return await answer
                except ConnectionLost:
                    continue
            free: asyncio.Future[None] = self._engine.loop.create_future()
            self._free.append(free)
            await free

    def opened(self, session_present: bool) -> None:
        """There is a new connection: ask for what its session lacks."""
        for subscription in self._streams.subscriptions:
            if not session_present:
                subscription.is_confirmed = False
        self._subscribe_all()

    def unanswered(self, error: ConnectionLost) -> None:
        """The connection is gone; who waits for UNSUBACK is told."""
        asked, self._asked = self._asked, {}
        for asker in asked.values():
            if isinstance(asker, asyncio.Future) and not asker.done():
                asker.set_exception(error)
        self._wake_free()

    def _wake_free(self) -> None:
        free, self._free = self._free, []
        for waiter in free:
            if not waiter.done():
                waiter.set_result(None)

    def _subscribe(self, subscription: Subscription) -> None:
        packet = Subscribe(0, subscription.requests)
        connection = self._engine.connection
        assert connection is not None
        if subscription.identifier and connection.limits.has_subscription_identifiers:
            packet.properties = Properties()
            packet.properties.subscription_identifiers = [subscription.identifier]
        subscription.is_asked_for(subscription.requests)
        try:
            self._ask(packet, subscription)
        except Refused as error:
            subscription.take_refusal(error)

    def _ask(
        self, packet: Subscribe | Unsubscribe, asker: Subscription | asyncio.Future[list[int]]
    ) -> bool:
        engine = self._engine
        assert engine.connection is not None
        packet_id = engine.connection.request(packet, engine.out)
        if packet_id == 0:
            return False  # it is asked when another one is answered
        self._asked[packet_id] = asker
        engine.check()
        return True

    def answered(self) -> None:
        """SUBACKs and UNSUBACKs have come."""
        connection = self._engine.connection
        assert connection is not None
        answered, connection.answered = connection.answered, []
        for packet_id, packet in answered:
            asker = self._asked.pop(packet_id)
            if isinstance(asker, Subscription):
                assert isinstance(packet, Suback)
                asker.take_suback(packet.reason_codes)
            elif not asker.done():
                assert isinstance(packet, Unsuback)
                asker.set_result(packet.reason_codes)
        self._subscribe_all()
        self._wake_free()

    def _subscribe_all(self) -> None:
        """Ask for all subscriptions that this session does not have and that are not asked for."""
        asked = {id(asker) for asker in self._asked.values()}
        for subscription in self._streams.subscriptions:
            if not subscription.is_confirmed and id(subscription) not in asked:
                self._subscribe(subscription)
