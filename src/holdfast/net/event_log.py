"""The broker's events as lines of the log: so many in a time, for no client may fill a disk."""

from typing import Final, final

from holdfast.broker.events import INFO, WARNING, Event
from holdfast.logs import get_logger
from holdfast.net.bursts import Bursts

# Any client can cause an event with each packet of a few bytes, and a line has some 150. With these
# two, and a line for the end of each burst, there are 50 lines a second at most.
LINES_MAX: Final = 50  # of one kind within 10 s: enough to see who it is
ALL_LINES_MAX: Final = 400  # of all kinds

_log = get_logger(__name__)


@final
class EventLog:
    """Writes events to the log. Those for debugging are not bounded: whoever asks wants them.

    ``end_bursts`` is to be called at ``next_ms``, whatever comes until then.
    """

    def __init__(self) -> None:
        self._bursts = Bursts(LINES_MAX, ALL_LINES_MAX)

    @property
    def next_ms(self) -> int:
        """When a burst is over, -1 if there is none."""
        next_s = self._bursts.next_s
        return -1 if next_s is None else int(next_s * 1000) + 1

    def report(self, events: list[Event], now_ms: int) -> None:
        """Write events at this time, which may be earlier than before, as far as there is room."""
        now_s = now_ms / 1000
        if self._bursts.next_s is not None:
            self._end_bursts(now_s)
        for event in events:
            if event.level < INFO or self._bursts.note(
                event.text, event.level, _host(event.address), now_s
            ):
                _write(event)

    def end_bursts(self, now_ms: int) -> None:
        """Write how many were left out of the bursts that are over."""
        self._end_bursts(now_ms / 1000)

    def _end_bursts(self, now_s: float) -> None:
        for burst in self._bursts.over(now_s):
            (_log.warning if burst.level >= WARNING else _log.info)(burst.summary)


def _write(event: Event) -> None:
    fields = {"client": event.client_id} if event.client_id else {}
    if event.user_name is not None:
        fields["user"] = event.user_name
    if event.listener:
        fields["listener"] = event.listener
    if event.level >= WARNING:
        report = _log.warning
    else:
        report = _log.info if event.level >= INFO else _log.debug
    if event.address:
        fields["address"] = event.address
    report(event.text, **fields)


def _host(address: str) -> str:
    """An address without its port."""
    return address.rpartition(":")[0]
