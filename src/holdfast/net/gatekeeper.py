"""The gatekeeper of all listeners: lets connections in or turns them away, and counts them.

What decides is ``net/admission.py``. Here are the sockets, the clock and the log.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import final

from holdfast.broker.refusals import RefusalCounters
from holdfast.config import Settings
from holdfast.logs import get_logger
from holdfast.net.admission import (
    ADDRESS_BANNED,
    FILES,
    Admission,
    AdmissionRules,
    Gate,
    Refusal,
    Visit,
)
from holdfast.net.arrival import Arrival
from holdfast.net.burst_log import BurstLog
from holdfast.net.turned_away import TurnedAway
from holdfast.protocol.reason_codes import BAD_USER_NAME_OR_PASSWORD, NOT_AUTHORIZED

END_BANS_S = 10.0  # between two looks at which bans are over, for ``$SYS``

_log = get_logger(__name__)


def gatekeeper_of(
    settings: Settings, counters: RefusalCounters, *, files: int, clock_s: Callable[[], float]
) -> "Gatekeeper":
    """The gatekeeper that the settings ask for, where the process may have so many ``files``."""
    files_max = max(1, files - settings.files_reserved)
    # Those who wait may not take all there are.
    waiting_max = files_max // 2
    if settings.unauthenticated_max > 0:
        waiting_max = min(settings.unauthenticated_max, waiting_max)
    rules = AdmissionRules(
        connections_max=settings.connections_max,
        unauthenticated_max=max(1, waiting_max),
        address_connections_max=settings.address_connections_max,
        address_connections_per_s=settings.address_connections_per_s,
        address_connections_burst=settings.address_connections_burst,
        failed_logins_max=settings.failed_logins_max,
        failed_logins_window_s=settings.failed_logins_window_s,
        ban_s=settings.ban_s,
        trusted=settings.trusted_addresses,
        files_max=files_max,
    )
    gates: dict[str, Gate] = {}
    for listener in settings.all_listeners:
        rate = listener.connections_per_s
        gates[listener.title] = Gate(
            listener.title,
            connections_max=listener.connections_max or 0,
            connections_per_s=settings.connections_per_s if rate is None else rate,
        )
    return Gatekeeper(rules, gates, counters, clock_s)


@final
class Gatekeeper:
    """Asked about every connection, from the socket's first moment to its last.

    ``gates`` are those of the listeners, by name. ``enter`` comes first, then ``identified`` where
    a proxy has named the client, and ``left`` when it is gone.
    """

    def __init__(
        self,
        rules: AdmissionRules,
        gates: Mapping[str, Gate],
        counters: RefusalCounters,
        clock_s: Callable[[], float],
    ) -> None:
        self.counters = counters
        self.turned_away = TurnedAway(clock_s)
        self._admission: Admission[Arrival] = Admission(rules, counters)
        self._gates = gates
        self._any_gate = Gate("")
        self._clock_s = clock_s
        self._visits: dict[Arrival, Visit[Arrival]] = {}
        self._refused: dict[Arrival, Refusal] = {}  # who is told so
        self._bursts = BurstLog(_log, clock_s)
        self._bans_looked_at_s = clock_s()

    def enter(self, arrival: Arrival, *, is_client: bool = True) -> bool:
        """Whether a connection that has just been accepted may stay.

        It is no client's yet where it comes from a proxy. If it may stay, but is only to be told
        that it is refused, ``refusal`` says so.
        """
        now_s = self._clock_s()
        if now_s - self._bans_looked_at_s > END_BANS_S:
            self._bans_looked_at_s = now_s
            self._admission.end_bans(now_s)
        gate = self._gates.get(arrival.listener, self._any_gate)
        number = _file_number(arrival.transport)
        host = arrival.host if is_client else ""
        found = self._admission.arrive(
            host, gate, arrival, now_s, file_number=number, is_client=is_client
        )
        self._end_evicted()
        if isinstance(found, Visit):
            self._visits[arrival] = found
            return True
        return self._refuse(arrival, found, host)

    def identified(self, arrival: Arrival) -> bool:
        """Whether the client that a proxy has named may stay."""
        self.left(arrival)
        return self.enter(arrival)

    def refusal(self, arrival: Arrival) -> Refusal | None:
        """Why a connection that has entered is turned away all the same, None if it is not."""
        return self._refused.get(arrival)

    def unfit(self, what: str) -> None:
        """Count a connection that was closed before MQTT, for what was wrong: one of UNFIT."""
        self.counters.unfit[what] += 1

    def received(self, arrival: Arrival, size: int) -> None:
        """So many bytes came from one that is not let in yet."""
        visit = self._visits.get(arrival)
        if visit is not None:
            self._admission.received(visit, size)
            self._end_evicted()

    def asked(self, arrival: Arrival) -> None:
        """Its CONNECT has come, and an authenticator is asked about it."""
        visit = self._visits.get(arrival)
        if visit is not None:
            self._admission.asked(visit)

    def let_in(self, arrival: Arrival) -> None:
        """It is a client now."""
        visit = self._visits.get(arrival)
        if visit is not None:
            self._admission.let_in(visit)

    def left(self, arrival: Arrival) -> None:
        """A connection that has entered is gone."""
        visit = self._visits.pop(arrival, None)
        if visit is not None:
            self._admission.left(visit)
        elif self._refused.pop(arrival, None) is not None:
            self.turned_away.left()

    def login_refused(self, host: str, reason_code: int) -> None:
        """An authenticator has refused somebody there, with this reason code."""
        if reason_code not in (BAD_USER_NAME_OR_PASSWORD, NOT_AUTHORIZED):
            return
        if self._admission.failed_login(host, self._clock_s()):
            self._tell("an address is banned for a while: too many failed logins", host)

    def close(self, refusal: Refusal | None) -> None:
        """Let nobody in from now on, for this reason, or everybody again."""
        self._admission.closed = refusal

    def _refuse(self, arrival: Arrival, refusal: Refusal, host: str) -> bool:
        self._tell(f"connections are refused: {refusal.text}", host)
        is_told = refusal is not FILES
        if refusal is ADDRESS_BANNED:
            is_told = self._admission.tell_ban(host)
        if not is_told or not self.turned_away.has_room():
            return False
        self._refused[arrival] = refusal
        return True

    def _end_evicted(self) -> None:
        if not self._admission.evicted:
            return
        evicted, self._admission.evicted = self._admission.evicted, []
        for arrival in evicted:
            self._tell("connections without CONNECT are closed: too many of them", arrival.host)
            arrival.transport.abort()

    def _tell(self, text: str, host: str) -> None:
        """One line for a burst of these, and one with their count when it is over."""
        self._bursts.warning(text, host=host, address=host)

    def stop(self) -> None:
        """Await nothing more."""
        self._bursts.stop()


def _file_number(transport: asyncio.Transport) -> int:
    number: int = transport.get_extra_info("socket").fileno()
    return number
