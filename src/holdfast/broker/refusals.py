"""Counts of the connections that were turned away before they were anybody's.

What turns them away knows addresses, sockets and memory, so it is not part of the pure broker;
the numbers are here because ``$SYS`` shows them.
"""

from typing import Final, final

# Why a connection was turned away, by the name that it has under ``$SYS``.
REFUSALS: Final = (
    "banned",
    "address_rate",
    "address_connections",
    "listener_rate",
    "listener_connections",
    "connections",
    "unauthenticated",
    "files",
    "memory",
)

# What was wrong with a connection before MQTT, by the name that it has under ``$SYS``.
UNFIT: Final = ("proxy_header", "tls", "websocket")


@final
class RefusalCounters:
    """They outlive a broker that is thrown away because its store has failed."""

    def __init__(self) -> None:
        self.connections = dict.fromkeys(REFUSALS, 0)
        self.unfit = dict.fromkeys(UNFIT, 0)
        self.evicted = 0  # that had sent no CONNECT yet, and made way for others
        self.failed_logins = 0
        self.bans = 0  # of addresses, so far
        self.banned = 0  # addresses, now
        self.unauthenticated = 0  # connections that wait to be let in, now
        self.memory_stage = 0  # 0 for enough of it
        self.memory_bytes = 0  # of the process, as last looked at

    def refused(self, name: str) -> None:
        """Count one that was turned away."""
        self.connections[name] += 1
