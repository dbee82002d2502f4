"""The broker's events as lines of the log: so many in a time, for no client may fill a disk."""

from typing import Final, final

from holdfast.broker.events import INFO, WARNING, Event
from holdfast.logs import get_logger

# Any client can cause an event with each packet of a few bytes, and a line has some 150.
EVENTS_MAX: Final = 1000  # in one interval; more than an operator can read
INTERVAL_MS: Final = 10_000

_log = get_logger(__name__)


@final
class EventLog:
    """Writes events to the log. Those for debugging are not bounded: whoever asks wants them."""

    def __init__(self) -> None:
        self._interval_from_ms = 0
        self._written = 0  # in this interval
        self._left_out = 0

    def report(self, events: list[Event], now_ms: int) -> None:
        """Write events at this time, which may be earlier than before, as far as there is room."""
        for event in events:
            if event.level < INFO or self._has_room(now_ms):
                _write(event)

    def _has_room(self, now_ms: int) -> bool:
        if not 0 <= now_ms - self._interval_from_ms < INTERVAL_MS:
            if self._left_out > 0:
                _log.warning(f"lines about clients left out: {self._left_out}")
            self._interval_from_ms = now_ms
            self._written = 0
            self._left_out = 0
        if self._written < EVENTS_MAX:
            self._written += 1
            return True
        if self._left_out == 0:
            rest_s = (self._interval_from_ms + INTERVAL_MS - now_ms + 999) // 1000
            _log.warning(
                f"{EVENTS_MAX} lines about clients within {INTERVAL_MS // 1000} s: "
                f"further ones are left out for {rest_s} s"
            )
        self._left_out += 1
        return False


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
    report(event.text, **fields, address=event.address)
