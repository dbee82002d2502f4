"""Request and response: a topic for answers, and which answer is for which request.

Source: MQTT 5.0 §4.10.
"""

import asyncio
import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote

from holdfast.client.incoming import ReceivedMessage
from holdfast.client.receipt import Receipt
from holdfast.errors import HoldfastError, Refused
from holdfast.protocol.reason_codes import NO_MATCHING_SUBSCRIBERS

if TYPE_CHECKING:
    from holdfast.client.client import Client
    from holdfast.client.composing import Payload
    from holdfast.client.subscription import Subscription

__all__ = ["Requests"]


class Requests:
    """The requests of one client that wait for their answers."""

    def __init__(self, client: "Client") -> None:
        self._client = client
        self._subscriptions: dict[str, Subscription] = {}  # by response topic
        self._readers: set[asyncio.Task[None]] = set()
        self._waiting: dict[bytes, asyncio.Future[ReceivedMessage]] = {}
        # A session may keep answers to the requests of an earlier process.
        self._prefix = secrets.token_bytes(8)
        self._number = 0

    async def request(
        self,
        topic: str,
        payload: "Payload",
        *,
        qos: int,
        timeout_s: float,
        response_topic: str | None = None,
        message_expiry_interval: int | None = None,
        content_type: str | None = None,
        user_properties: Sequence[tuple[str, str]] = (),
        payload_format_indicator: int | None = None,
    ) -> ReceivedMessage:
        """Publish a request, and wait for its answer."""
        receipt: Receipt | None = None
        try:
            async with asyncio.timeout(timeout_s):
                response_topic = response_topic or self._response_topic()
                await self._subscribed(response_topic)
                self._number += 1
                correlation_data = self._prefix + self._number.to_bytes(4, "big")
                answer: asyncio.Future[ReceivedMessage] = asyncio.get_running_loop().create_future()
                self._waiting[correlation_data] = answer
                try:
                    receipt = await self._client.publish(
                        topic,
                        payload,
                        qos,
                        message_expiry_interval=message_expiry_interval,
                        content_type=content_type,
                        response_topic=response_topic,
                        correlation_data=correlation_data,
                        user_properties=user_properties,
                        payload_format_indicator=payload_format_indicator,
                    )
                    watch = asyncio.create_task(_watch(receipt, answer), name="holdfast-request")
                    try:
                        return await answer
                    finally:
                        watch.cancel()
                finally:
                    del self._waiting[correlation_data]
        except TimeoutError:
            raise TimeoutError(self._why_none(timeout_s, receipt)) from None

    def _why_none(self, timeout_s: float, receipt: Receipt | None) -> str:
        """What is known of an answer that has not come."""
        said = f"no answer within {timeout_s:g} s"
        if not self._client.is_connected:
            return f"{said}: not connected: {self._client.error}"
        if receipt is not None and receipt.reason_code == NO_MATCHING_SUBSCRIBERS:
            return f"{said}: nobody has subscribed to the topic of the request"
        return said

    def _response_topic(self) -> str:
        """Where answers come to, if nothing else was said."""
        connack = self._client.connack
        prefix = "holdfast/response"
        if connack is not None and connack.properties is not None:
            prefix = connack.properties.response_information or prefix
        # A Client Identifier may have what no topic has.
        return f"{prefix.rstrip('/')}/{quote(self._client.client_id, safe='')}"

    async def _subscribed(self, response_topic: str) -> None:
        """Subscribe with the first request, and again after that was refused or has ended."""
        subscription = self._subscriptions.get(response_topic)
        if subscription is None or subscription.is_ended or subscription.error is not None:
            subscription = self._client.subscribe(response_topic, qos=1)
            self._subscriptions[response_topic] = subscription
            reader = asyncio.create_task(self._read(subscription), name="holdfast-responses")
            self._readers.add(reader)
            reader.add_done_callback(self._readers.discard)
        try:
            await subscription
        except Refused:
            # Another time it may be granted.
            if self._subscriptions.get(response_topic) is subscription:
                del self._subscriptions[response_topic]
                self._client.withdraw(subscription)
            raise

    async def _read(self, subscription: "Subscription") -> None:
        try:
            async for message in subscription:
                answer = self._waiting.get(message.correlation_data or b"")
                if answer is not None and not answer.done():
                    answer.set_result(message)
                if self._client.manual_ack:
                    await message.ack()
        except HoldfastError:
            # Each request is told for itself. Nobody would read what comes were it granted later.
            if not subscription.is_ended:
                self._client.withdraw(subscription)


async def _watch(receipt: "Receipt", answer: asyncio.Future[ReceivedMessage]) -> None:
    """What was refused has no answer."""
    try:
        await receipt
    except HoldfastError as error:
        if not answer.done():
            answer.set_exception(error)
