"""What waits in the log for one session or shared group that is behind, and what it has lost."""

from typing import Final, final

from holdfast.store.records import OPEN, FilterSpan, LogEntry, pack_gaps

# What is to be done with a queue, one thing at a time.
NO_TASK: Final = 0
COUNT_TASK: Final = 1  # count exactly what waits
DROP_TASK: Final = 2  # drop the oldest
END_TASK: Final = 3  # end the session, empty the queue of the group


@final
class Queue:
    """How much waits for somebody who is behind: ``messages`` and ``bytes``, and what was lost.

    For an absent session they count up to a mark, the sums of the tallies of its filters as it
    left; the tallies have the rest. Not ``is_exact``: there may be less, and it is counted before
    anything is lost. ``gaps`` are stretches of the log (from, until) that it is not given; the last
    one may be OPEN. ``drop_below``: all below this lsn is to be dropped, 0 for none.
    """

    def __init__(self) -> None:
        self.messages = 0
        self.bytes = 0
        self.mark_messages = 0
        self.mark_bytes = 0
        self.is_exact = True
        self.is_full = False
        self.task = NO_TASK
        self.is_asking = False  # the store reads or counts for the task
        self.is_stale = False  # nothing waits any longer of what it counts
        self.count_end = 0
        self.drop_below = 0
        self.drop_reason = 0
        self.gaps: list[tuple[int, int]] = []
        self.lost_messages = 0
        self.lost_bytes = 0
        self.lost_at_ms = 0
        self.lost_reason = 0
        self.burst_messages = 0  # lost since the operator was told
        self.is_told = False

    @property
    def has_open_gap(self) -> bool:
        """Whether what is published now is lost for its owner."""
        return len(self.gaps) > 0 and self.gaps[-1][1] == OPEN

    def take(self, messages: int, size: int) -> None:
        """So much no longer waits. The counts may have been too low, never below nothing.

        What the store has yet to count it will find as well, so they are below it meanwhile.
        """
        if self.is_asking and self.task == COUNT_TASK:
            self.messages -= messages
            self.bytes -= size
            return
        self.messages = max(0, self.messages - messages)
        self.bytes = max(0, self.bytes - size)

    def clear(self) -> None:
        """Nothing waits. What is being counted is of the past."""
        self.messages = 0
        self.bytes = 0
        self.is_exact = True
        if self.task == COUNT_TASK:
            self.task = NO_TASK
            self.is_stale = self.is_asking

    def lose(self, messages: int, size: int, now_ms: int, reason: int) -> None:
        """So much is lost."""
        self.lost_messages += messages
        self.lost_bytes += size
        self.lost_at_ms = now_ms
        self.lost_reason = reason
        self.burst_messages += messages

    def past_gaps(self, position: int) -> int:
        """Where to go on from a position: behind a gap that it lies in, OPEN in an open one."""
        for start, until in self.gaps:
            if start > position:
                break
            if until == OPEN:
                return OPEN
            position = max(position, until)
        return position

    def next_gap(self, position: int, end: int) -> int:
        """The lsn from a position on at which a gap begins, or ``end`` if that comes first."""
        for start, _ in self.gaps:
            if start >= position:
                return min(start, end)
        return end

    def packed_gaps(self, position: int) -> bytes:
        """For the store, with a cursor; gaps below it are forgotten."""
        gaps = self.gaps
        while gaps and gaps[0][1] != OPEN and gaps[0][1] <= position:
            del gaps[0]
        return pack_gaps(gaps) if gaps else b""


class LogReader:
    """Who reads the log: a session or a shared group.

    While *live* it has been given all of the log so far; once *behind* it keeps ``position``, the
    first lsn it has not been given. ``epoch`` tells reads that are for it from those that are for
    what it was before. ``is_recorded`` says that the store has a row of it.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.epoch = 0
        self.is_behind = False
        self.position = 0
        self.is_reading = False
        self.is_recorded = False
        self.is_ended = False
        self.queue: Queue | None = None  # made when it is first needed

    @property
    def name(self) -> str:
        """What the operator knows it by."""
        raise NotImplementedError

    def spans(self) -> list[FilterSpan]:
        """The filters, and the stretches of the log, that it reads."""
        raise NotImplementedError

    def is_for(self, entry: LogEntry) -> bool:
        """Whether an entry of the log is for it."""
        raise NotImplementedError
