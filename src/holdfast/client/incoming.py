"""The messages that a client received, and the order of their acknowledgements.

Source: MQTT 5.0 §4.3, §4.6.
"""

from collections.abc import Awaitable, Callable
from typing import Final, final

from mypy_extensions import i64

from holdfast.protocol.packets import Publish

WAITING: Final = 0  # the application has not got it yet
HANDED: Final = 1  # it has it, and has not acknowledged it
ACKNOWLEDGED: Final = 2  # it is done with it


@final
class ReceivedMessage:
    """An application message as it was received.

    ``qos`` is that of the delivery. ``delivery_id`` is a number that stays the same when the
    message is delivered again after a crash, at QoS 2 with an inbox on disk; 0 where there is
    none. ``retain`` is set if it was kept by the server before the subscription was made.
    """

    def __init__(
        self, publish: Publish, acknowledge: Callable[["ReceivedMessage"], Awaitable[None]]
    ) -> None:
        self.topic = publish.topic
        self.payload = publish.payload
        self.qos = publish.qos
        self.retain = publish.retain
        self.dup = publish.dup
        self.properties = publish.properties
        self.packet_id = publish.packet_id
        self.delivery_id = 0
        self.state: i64 = WAITING
        self.takers: i64 = 0  # how many were given it and have not acknowledged it
        self.connection = 0  # the number of the connection that its acknowledgement is for
        self._acknowledge = acknowledge

    def __repr__(self) -> str:
        """Where it came and how large it is; not what is in it."""
        return f"<ReceivedMessage of {self.topic!r}, QoS {self.qos}, {len(self.payload)} bytes>"

    def ack(self) -> Awaitable[None]:
        """Acknowledge it: with ``manual_ack``, once the application is done with it."""
        return self._acknowledge(self)

    @property
    def text(self) -> str:
        """The payload as UTF-8. Raises UnicodeDecodeError if it is not."""
        return self.payload.decode()

    @property
    def content_type(self) -> str | None:
        """The Content Type that the publisher gave."""
        return None if self.properties is None else self.properties.content_type

    @property
    def response_topic(self) -> str | None:
        """The topic that an answer goes to, if the publisher wants one."""
        return None if self.properties is None else self.properties.response_topic

    @property
    def correlation_data(self) -> bytes | None:
        """What an answer has to carry, so that the publisher knows which request it is for."""
        return None if self.properties is None else self.properties.correlation_data

    @property
    def user_properties(self) -> list[tuple[str, str]]:
        """The User Properties in their order."""
        return [] if self.properties is None else self.properties.user_properties

    @property
    def message_expiry_interval(self) -> int | None:
        """The seconds it is still valid for."""
        return None if self.properties is None else self.properties.message_expiry_interval

    @property
    def payload_format_indicator(self) -> int | None:
        """1 if the publisher says that the payload is UTF-8."""
        return None if self.properties is None else self.properties.payload_format_indicator


@final
class AckOrder:
    """Lets acknowledgements out in the order in which their messages came.

    One for PUBACK and one for PUBREC. Source: [MQTT-4.6.0-2], [MQTT-4.6.0-3].
    """

    def __init__(self) -> None:
        self._waiting: list[ReceivedMessage] = []
        self._head: i64 = 0

    def __len__(self) -> int:
        return len(self._waiting) - self._head

    def came(self, message: ReceivedMessage) -> None:
        """Take note of a message that will be acknowledged."""
        self._waiting.append(message)

    def next_done(self) -> ReceivedMessage | None:
        """The first one, taken out, if it is acknowledged; None if it is not, or there is none."""
        if self._head == len(self._waiting):
            return None
        message = self._waiting[self._head]
        if message.state != ACKNOWLEDGED:
            return None
        self._head += 1
        if self._head == len(self._waiting):
            self._waiting.clear()
            self._head = 0
        elif self._head >= 1024 and self._head * 2 >= len(self._waiting):
            del self._waiting[: self._head]
            self._head = 0
        return message

    def clear(self) -> list[ReceivedMessage]:
        """Forget all, and return them: the connection is gone."""
        waiting = self._waiting[self._head :]
        self._waiting = []
        self._head = 0
        return waiting
