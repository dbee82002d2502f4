"""What sessions and shared groups have lost: counted, told and written."""

from typing import final

from holdfast.broker.commits import Commits
from holdfast.broker.counters import Counters
from holdfast.broker.delivery import Delivery
from holdfast.broker.events import WARNING, Event
from holdfast.broker.queue import LogReader, Queue
from holdfast.store.records import LossRecord


@final
class Losses:
    """Nothing that was acknowledged is lost in silence; what is, is known of each queue."""

    def __init__(
        self, commits: Commits, counters: Counters, delivery: Delivery, events: list[Event]
    ) -> None:
        self._commits = commits
        self._counters = counters
        self._delivery = delivery
        self._events = events
        self._unwritten: dict[int, LogReader] = {}  # by number

    def lose(self, reader: LogReader, queue: Queue, messages: int, size: int, reason: int) -> None:
        """So much that waited is lost."""
        queue.lose(messages, size, self._delivery.now_ms, reason)
        self._counters.lost += messages
        self._counters.lost_bytes += size
        if reader.is_recorded:
            self._unwritten[reader.number] = reader

    def write(self, reader: LogReader, queue: Queue) -> None:
        """Have the batch being filled say what was lost."""
        self._unwritten.pop(reader.number, None)
        if reader.is_recorded:
            self._commits.batch.losses.append(
                LossRecord(
                    reader.number,
                    queue.lost_messages,
                    queue.lost_bytes,
                    queue.lost_at_ms,
                    queue.lost_reason,
                )
            )

    def write_all(self) -> None:
        """Have all losses written that are not yet."""
        for reader in list(self._unwritten.values()):
            queue = reader.queue
            assert queue is not None
            self.write(reader, queue)

    def forget(self, reader: LogReader) -> None:
        """A session or group has ended."""
        self._unwritten.pop(reader.number, None)

    def tell_full(self, reader: LogReader, queue: Queue, what: str) -> None:
        """Tell the operator that a queue is full, once until it has room again."""
        if not queue.is_told:
            queue.is_told = True
            self._events.append(Event(WARNING, f"queue is full with {what}", reader.name, ""))

    def tell(self, reader: LogReader, queue: Queue) -> None:
        """Tell the operator how much was lost, when that has come to an end."""
        if queue.burst_messages > 0:
            text = f"lost {queue.burst_messages} messages, {queue.lost_messages} in all"
            queue.burst_messages = 0
            self._events.append(Event(WARNING, text, reader.name, ""))
