"""The settings that bound what clients may do together: how many, how often, how much."""

import ipaddress
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, PlainValidator

from holdfast.config.values import Culprit

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def networks(value: object) -> tuple[Network, ...]:
    """Networks from a list of them, or from one string with commas."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple):
        raise Culprit(value, "a list of addresses or networks, such as 10.0.0.0/8")
    return tuple(_network(part) for part in parts if part != "")


def _network(part: object) -> Network:
    if isinstance(part, ipaddress.IPv4Network | ipaddress.IPv6Network):
        return part
    try:
        if isinstance(part, str):
            return ipaddress.ip_network(part.strip())
    except ValueError:
        pass
    raise Culprit(part, "an address or a network, such as 10.0.0.0/8")


Networks = Annotated[tuple[Network, ...], PlainValidator(networks)]


class OverloadSettings(BaseModel):
    """Bounds on connections, addresses and the resources of the process."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    connections_max: int = Field(
        default=0,
        ge=0,
        le=100_000_000,
        description="Connections at a time, over all listeners; further ones are refused. 0: as "
        "many as there are file descriptors.",
    )
    connections_per_s: float = Field(
        default=0.0,
        ge=0,
        le=1_000_000,
        description="Connections that each listener takes per second, with twice as many at once; "
        "further ones are refused. 0: no limit.",
    )
    unauthenticated_max: int = Field(
        default=4000,
        ge=0,
        le=100_000_000,
        description="Connections at a time that have not been let in yet, over all listeners; half "
        "of the file descriptors at most. For one more the oldest that has sent no CONNECT is "
        "closed. 0: no limit but that.",
    )
    address_connections_max: int = Field(
        default=10_000,
        ge=0,
        le=100_000_000,
        description="Connections at a time from one address (of IPv6: one /64 network). "
        "0: no limit.",
    )
    address_connections_per_s: float = Field(
        default=100.0,
        ge=0,
        le=1_000_000,
        description="Connections per second from one address, on average; further ones are "
        "refused. 0: no limit.",
    )
    address_connections_burst: int = Field(
        default=5000,
        ge=1,
        le=100_000_000,
        description="Connections from one address that may come at once above that average.",
    )
    failed_logins_max: int = Field(
        default=30,
        ge=0,
        le=1_000_000,
        description="Failed logins from one address within `failed_logins_window_s`, and one more "
        "for each client that is connected from there; then the address is banned. 0: no limit.",
    )
    failed_logins_window_s: int = Field(
        default=60, ge=1, le=86_400, description="Seconds in which failed logins are forgiven."
    )
    ban_s: int = Field(
        default=300,
        ge=1,
        le=2_592_000,
        description="Seconds that a ban lasts: new connections from the address are refused.",
    )
    trusted_addresses: Networks = Field(
        default=(ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1")),
        description="Addresses and networks that no limit by address holds for, nor a ban; Unix "
        "sockets are trusted always.",
    )
    client_connects_max: int = Field(
        default=600,
        ge=0,
        le=1_000_000,
        description="Connections of one client identifier within `client_window_s`; further ones "
        "are refused. 0: no limit.",
    )
    client_takeovers_max: int = Field(
        default=15,
        ge=0,
        le=1_000_000,
        description="Connections within that time that take the session of a client identifier "
        "from another connection. Then the one that has it keeps it, and others are refused for "
        "as long. 0: no limit.",
    )
    client_window_s: int = Field(
        default=60, ge=1, le=86_400, description="Seconds in which these are counted."
    )
    publish_messages_per_s: int = Field(
        default=0,
        ge=0,
        le=10_000_000,
        description="Messages per second that one client may publish, on average; one that is "
        "faster is slowed down. 0: no limit.",
    )
    publish_messages_burst: int = Field(
        default=0,
        ge=0,
        le=100_000_000,
        description="Messages that it may publish at once above that average. 0: those of two "
        "seconds.",
    )
    publish_bytes_per_s: int = Field(
        default=0,
        ge=0,
        le=10_000_000_000,
        description="Bytes per second that one client may publish, on average. 0: no limit.",
    )
    publish_bytes_burst: int = Field(
        default=0,
        ge=0,
        le=100_000_000_000,
        description="Bytes that it may publish at once above that average. 0: those of two "
        "seconds.",
    )
    publish_patience_s: int = Field(
        default=60,
        ge=0,
        le=86_400,
        description="Seconds that a client may be slowed down again and again before it is "
        "disconnected. 0: it never is.",
    )
    topic_levels_max: int = Field(
        default=128,
        ge=0,
        le=65_536,
        description="Levels of a topic or topic filter. 0: no limit.",
    )
    topic_bytes_max: int = Field(
        default=65_535,
        ge=1,
        le=65_535,
        description="Bytes of a topic or topic filter.",
    )
    memory_max_bytes: int = Field(
        default=0,
        ge=0,
        le=1_000_000_000_000_000,
        description="Bytes of memory that the process may have. From 80 % on new connections are "
        "refused, from 88 % the fastest publishers are not read, from 94 % messages that have to "
        "be stored are refused. 0: those of the machine or of its container.",
    )
    files_reserved: int = Field(
        default=64,
        ge=48,
        le=1_000_000,
        description="File descriptors kept for the store and for reloads: connections that would "
        "need them are refused.",
    )
