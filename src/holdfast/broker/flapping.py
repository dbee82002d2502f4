"""Clients that come and go too often, and clients that take one session from each other in turn.

Two devices with the same client identifier would take it over for ever: each CONNECT ends the
other's connection. Who holds the session keeps it then, and the other is refused for a while.
"""

from typing import Final, final

from holdfast.broker.limits import Limits
from holdfast.errors import Refused
from holdfast.protocol.reason_codes import CONNECTION_RATE_EXCEEDED

# Clients of which is known when they came; the least recent go first. Some 300 bytes each.
CLIENTS_MAX: Final = 10_000


@final
class _Visits:
    """How often one client has come since a moment."""

    def __init__(self, since_ms: int) -> None:
        self.since_ms = since_ms
        self.connects = 0
        self.takeovers = 0
        self.refused_until_ms = 0


@final
class Flapping:
    """Counts how often each client connects. Only those count that may: they are who they say."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        # By the hash of the identifier, which may have 64 KiB itself. The first is the one that
        # came least recently.
        self._clients: dict[int, _Visits] = {}

    @property
    def count(self) -> int:
        """Of how many clients something is remembered."""
        return len(self._clients)

    def connects(self, client_id: str, is_takeover: bool, now_ms: int) -> None:
        """A client connects, and takes its session from another connection or not.

        Raises Refused if it does so too often. A takeover that is refused leaves the session where
        it is; while nobody holds it, whoever comes is let in.
        """
        limits = self._limits
        if limits.client_connects_max == 0 and (
            limits.client_takeovers_max == 0 or not is_takeover
        ):
            return
        key = hash(client_id)
        visits = self._clients.pop(key, None)
        if visits is None or not 0 <= now_ms - visits.since_ms < limits.client_window_ms:
            refused_until_ms = 0 if visits is None else visits.refused_until_ms
            visits = _Visits(now_ms)
            visits.refused_until_ms = refused_until_ms
            if len(self._clients) >= CLIENTS_MAX:
                self._forget_one()
        self._clients[key] = visits
        visits.connects += 1
        if 0 < limits.client_connects_max < visits.connects:
            raise Refused(
                CONNECTION_RATE_EXCEEDED,
                f"expected at most {limits.client_connects_max} connections of one client "
                f"within {limits.client_window_ms // 1000} s",
            )
        if not is_takeover or limits.client_takeovers_max == 0:
            return
        visits.takeovers += 1
        if visits.takeovers > limits.client_takeovers_max:
            visits.refused_until_ms = now_ms + limits.client_window_ms
        if now_ms < visits.refused_until_ms <= now_ms + limits.client_window_ms:
            raise Refused(
                CONNECTION_RATE_EXCEEDED,
                "expected one client of this identifier, several take its session from each other",
            )

    def _forget_one(self) -> None:
        for key in self._clients:
            del self._clients[key]
            return
