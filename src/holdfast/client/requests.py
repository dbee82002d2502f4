"""Request and response: a topic for answers, and which answer is for which request.

Source: MQTT 5.0 §4.10.
"""

import asyncio
from typing import TYPE_CHECKING

from holdfast.client.incoming import ReceivedMessage

if TYPE_CHECKING:
    from holdfast.client.client import Client, Payload
    from holdfast.client.subscription import Subscription

__all__ = ["Requests"]


class Requests:
    """The requests of one client that wait for their answers."""

    def __init__(self, client: "Client") -> None:
        self._client = client
        self._subscription: Subscription | None = None
        self._reader: asyncio.Task[None] | None = None
        self._waiting: dict[bytes, asyncio.Future[ReceivedMessage]] = {}
        self._number = 0

    async def request(
        self, topic: str, payload: "Payload", *, qos: int, timeout_s: float
    ) -> ReceivedMessage:
        """Publish a request, and wait for its answer."""
        async with asyncio.timeout(timeout_s):
            response_topic = await self._response_topic()
            self._number += 1
            correlation_data = self._number.to_bytes(8, "big")
            answer: asyncio.Future[ReceivedMessage] = asyncio.get_running_loop().create_future()
            self._waiting[correlation_data] = answer
            try:
                await self._client.publish(
                    topic,
                    payload,
                    qos,
                    response_topic=response_topic,
                    correlation_data=correlation_data,
                )
                return await answer
            finally:
                del self._waiting[correlation_data]

    async def _response_topic(self) -> str:
        """Where answers come to; subscribed to with the first request."""
        if self._subscription is None:
            connack = self._client.connack
            prefix = "holdfast/response"
            if connack is not None and connack.properties is not None:
                prefix = connack.properties.response_information or prefix
            topic = f"{prefix.rstrip('/')}/{self._client.client_id}"
            self._subscription = self._client.subscribe(topic, qos=1)
            self._reader = asyncio.create_task(self._read(), name="holdfast-responses")
        await self._subscription
        return self._subscription.topic_filters[0]

    async def _read(self) -> None:
        assert self._subscription is not None
        async for message in self._subscription:
            answer = self._waiting.get(message.correlation_data or b"")
            if answer is not None and not answer.done():
                answer.set_result(message)
            if self._client.manual_ack:
                await message.ack()
