"""Messages to ``$delayed/seconds/topic``: kept on disk until they are due, then published.

The removal of a message and all that its publication causes go into one batch, and its packets
wait for that: whatever crashes, it is published once.
"""

import heapq
from typing import Final, final

from holdfast.broker.commits import Commits
from holdfast.broker.deadlines import Deadlines
from holdfast.broker.events import WARNING, Event
from holdfast.broker.limits import DELAYED_DUE_BYTES_MAX, DELAYED_DUE_MAX, Limits
from holdfast.broker.router import Router
from holdfast.errors import Refused
from holdfast.message import NEVER, Message, message_bytes
from holdfast.protocol.reason_codes import QUOTA_EXCEEDED, TOPIC_NAME_INVALID
from holdfast.protocol.topics import is_sys_topic
from holdfast.store.records import DelayedRecord, Snapshot

PREFIX: Final = "$delayed/"
SECONDS_DIGITS_MAX: Final = 10  # those of 2**32 - 1, the highest bound that can be set
STALE_MAX: Final = 64  # entries of the heap, or half of all, that no longer hold
# A Message Expiry Interval is whole seconds, and no timer is exact: so late may a message be
# published whose lifetime is over.
EXPIRY_GRACE_MS: Final = 1000


def is_delayed(topic: str) -> bool:
    """Whether a topic is the address of a delayed message, well-formed or not."""
    return topic.startswith(PREFIX) or topic == PREFIX[:-1]


def address_of(topic: str, seconds_max: int) -> tuple[int, str]:
    """The seconds and the topic of an address, which is a valid Topic Name.

    Raises Refused (Topic Name invalid) if one is missing or cannot be, or the delay is too long.
    """
    start = len(PREFIX)
    slash = topic.find("/", start)
    digits = topic[start:slash] if slash >= 0 else topic[start:]
    if not digits.isascii() or not digits.isdigit() or len(digits) > SECONDS_DIGITS_MAX:
        raise Refused(TOPIC_NAME_INVALID, "expected $delayed/, a number of seconds, / and a topic")
    seconds = int(digits)
    if seconds > seconds_max:
        raise Refused(
            TOPIC_NAME_INVALID, f"expected a delay of at most {seconds_max} s, {seconds} s came"
        )
    target = topic[slash + 1 :] if slash >= 0 else ""
    if not target:
        raise Refused(TOPIC_NAME_INVALID, "expected a topic behind the seconds of $delayed")
    if is_delayed(target) or is_sys_topic(target):
        raise Refused(
            TOPIC_NAME_INVALID, "expected a topic outside $delayed and $SYS behind the seconds"
        )
    return seconds, target


@final
class Delayed:
    """The messages that wait for their time, as the store has them."""

    def __init__(
        self,
        limits: Limits,
        commits: Commits,
        router: Router,
        deadlines: Deadlines,
        events: list[Event],
    ) -> None:
        self.bytes_waiting = 0
        # The batch of the newest removal: until it is durable, a crash brings the message back.
        self.removal_wait = 0
        self._limits = limits
        self._commits = commits
        self._router = router
        self._deadlines = deadlines
        self._events = events
        self._records: dict[int, DelayedRecord] = {}
        self._by_address: dict[tuple[int, str], set[int]] = {}
        self._heap: list[tuple[int, int]] = []  # (due, number); those without a record are stale
        self._next_number = 1
        # What may still be published into the batch being filled.
        self._filling = 0
        self._messages_left = 0
        self._bytes_left = 0

    @property
    def count(self) -> int:
        """How many messages wait."""
        return len(self._records)

    def restore(self, snapshot: Snapshot) -> None:
        """Take up what the store holds; what is overdue is published by the first ``due``."""
        for record in snapshot.delayed:
            self._next_number = max(self._next_number, record.number + 1)
            self._add(record)
        self._arm()

    def publish(self, message: Message, after: int) -> int:
        """Take a message with a payload; returns the batch its acknowledgement waits for.

        ``after``: see ``Router.publish``. Its expiry counts from when it is due. Raises Refused.
        """
        limits = self._limits
        seconds, topic = address_of(message.topic, limits.delayed_seconds_max)
        delay_ms = seconds * 1000
        expires_at_ms = message.expires_at_ms
        if expires_at_ms != NEVER:
            expires_at_ms += delay_ms
        later = Message(
            topic,
            message.payload,
            message.qos,
            message.retain,
            message.properties,
            expires_at_ms,
            message.publisher,
        )
        if delay_ms == 0:
            return self._router.publish(later, None, False, after)
        if len(self._records) >= limits.delayed_messages_max:
            raise Refused(
                QUOTA_EXCEEDED,
                f"expected at most {limits.delayed_messages_max} delayed messages, another came",
            )
        if self.bytes_waiting + message_bytes(later) > limits.delayed_bytes_max:
            raise Refused(
                QUOTA_EXCEEDED,
                f"expected at most {limits.delayed_bytes_max} bytes of delayed messages, more came",
            )
        due_ms = self._router.now_ms + delay_ms
        record = DelayedRecord(self._next_number, due_ms, seconds, later)
        self._next_number += 1
        self._add(record)
        self._commits.batch.delayed.append(record)
        self._arm()
        return self._commits.filling

    def cancel(self, topic: str) -> bool:
        """Drop all that waits under an address: True if there was any.

        The answer waits for ``removal_wait``, either way: what is told to be gone must not come
        back. Raises Refused.
        """
        address = address_of(topic, self._limits.delayed_seconds_max)
        numbers = self._by_address.get(address)
        if numbers is None:
            return False
        for number in list(numbers):
            self._remove(self._records[number])
        if len(self._heap) > 2 * len(self._records) + STALE_MAX:
            self._heap = [(record.due_ms, number) for number, record in self._records.items()]
            heapq.heapify(self._heap)
        self._arm()
        return True

    def publish_will(self, will: Message, after: int) -> None:
        """As a PUBLISH with the will's content would; nobody is there to be refused."""
        try:
            if will.payload:
                self.publish(will, after)
            else:
                self.cancel(will.topic)
        except Refused as error:
            text = f"will dropped: {error.detail}"
            self._events.append(Event(WARNING, text, will.publisher, ""))

    def due(self) -> None:
        """Publish what is due, in the order of its times, as much as one batch may take."""
        now_ms = self._router.now_ms
        commits = self._commits
        if self._filling != commits.filling:
            self._filling = commits.filling
            self._messages_left = DELAYED_DUE_MAX
            self._bytes_left = DELAYED_DUE_BYTES_MAX
        heap = self._heap
        while heap and heap[0][0] <= now_ms:
            record = self._records.get(heap[0][1])
            if record is not None:
                if self._messages_left <= 0 or self._bytes_left <= 0:
                    # Others want to commit as well: the rest comes with the next batch.
                    self._deadlines.delayed_ms = now_ms + 1
                    return
                self._remove(record)
                self._messages_left -= 1
                self._bytes_left -= message_bytes(record.message)
                self._publish_due(record.message, now_ms)
            heapq.heappop(heap)
        self._arm()

    def _publish_due(self, message: Message, now_ms: int) -> None:
        expires_at_ms = message.expires_at_ms
        if expires_at_ms == NEVER or expires_at_ms + EXPIRY_GRACE_MS > now_ms:
            # Nobody gets it, not even at QoS 0, before its removal is durable.
            self._router.publish(message, None, False, self._commits.filling)

    def _add(self, record: DelayedRecord) -> None:
        message = record.message
        self._records[record.number] = record
        address = (record.seconds, message.topic)
        numbers = self._by_address.get(address)
        if numbers is None:
            self._by_address[address] = {record.number}
        else:
            numbers.add(record.number)
        self.bytes_waiting += message_bytes(message)
        heapq.heappush(self._heap, (record.due_ms, record.number))

    def _remove(self, record: DelayedRecord) -> None:
        message = record.message
        del self._records[record.number]
        address = (record.seconds, message.topic)
        numbers = self._by_address[address]
        numbers.remove(record.number)
        if not numbers:
            del self._by_address[address]
        self.bytes_waiting -= message_bytes(message)
        self._commits.batch.delayed_removed.append(record.number)
        self.removal_wait = self._commits.filling

    def _arm(self) -> None:
        """Have ``due`` called at the earliest time, if there is any."""
        self._deadlines.delayed_ms = self._heap[0][0] if self._heap else -1
