"""Who may come in: bounds on connections, by address, by listener and in all.

All of it is asked before a connection costs anything: a refused one has no state here or in the
broker, and no line of the log of its own. Times are seconds of a steady clock, given as arguments.
"""

import ipaddress
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar, final

from holdfast.broker.refusals import RefusalCounters
from holdfast.net.buckets import Bucket
from holdfast.protocol.reason_codes import (
    BANNED,
    CONNECTION_RATE_EXCEEDED,
    QUOTA_EXCEEDED,
    SERVER_BUSY,
)

# Addresses without a connection of which something is remembered; the least recent go first.
# Some 400 bytes each: however many addresses come, it is not more than about 25 MB.
ADDRESSES_MAX: Final = 65_536
BANS_MAX: Final = 65_536
# Of all that came from those who are not let in yet; each may have `connect_bytes_max` for itself.
WAITING_BYTES_MAX: Final = 16 * 1024 * 1024
BYTES_SHARE: Final = 4  # of which one address may have no larger part
WAITING_SHARE: Final = 8  # an address with so large a part of those who wait makes way itself

# The connection behind a visit, which is only handed back.
Owner = TypeVar("Owner")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a connection is turned away, with the reason code of its CONNACK."""

    name: str  # of its counter
    reason_code: int
    text: str


ADDRESS_BANNED: Final = Refusal("banned", BANNED, "the address is banned for now")
ADDRESS_RATE: Final = Refusal(
    "address_rate", CONNECTION_RATE_EXCEEDED, "the address connects too often"
)
ADDRESS_CONNECTIONS: Final = Refusal(
    "address_connections", QUOTA_EXCEEDED, "the address has too many connections"
)
LISTENER_RATE: Final = Refusal(
    "listener_rate", CONNECTION_RATE_EXCEEDED, "too many connect to the listener at once"
)
LISTENER_CONNECTIONS: Final = Refusal(
    "listener_connections", QUOTA_EXCEEDED, "the listener has too many connections"
)
CONNECTIONS: Final = Refusal("connections", QUOTA_EXCEEDED, "there are too many connections")
UNAUTHENTICATED: Final = Refusal(
    "unauthenticated", SERVER_BUSY, "too many connections wait to be let in"
)
FILES: Final = Refusal("files", SERVER_BUSY, "there are too few file descriptors")
MEMORY: Final = Refusal("memory", SERVER_BUSY, "there is too little memory")


@dataclass(frozen=True, slots=True)
class AdmissionRules:
    """The bounds, of which 0 stands for none; see the settings of the same names."""

    connections_max: int = 0
    unauthenticated_max: int = 0
    address_connections_max: int = 0
    address_connections_per_s: float = 0.0
    address_connections_burst: int = 0
    failed_logins_max: int = 0
    failed_logins_window_s: float = 60.0
    ban_s: float = 300.0
    files_max: int = 0  # the number of a file descriptor that is one too many
    trusted: tuple[Network, ...] = ()


@final
class Gate:
    """The bounds of one listener, and what counts for it. The rate's burst is its two seconds."""

    __slots__ = ("_bucket", "connections", "connections_max", "name")

    def __init__(
        self, name: str, *, connections_max: int = 0, connections_per_s: float = 0.0
    ) -> None:
        self.name = name
        self.connections_max = connections_max
        self.connections = 0
        self._bucket: Bucket | None = None
        if connections_per_s > 0:
            self._bucket = Bucket(connections_per_s, max(1.0, 2 * connections_per_s))

    def refusal(self, now_s: float, *, is_client: bool) -> Refusal | None:
        """Why it takes no further connection now, None if it does; then that one counts."""
        if 0 < self.connections_max <= self.connections:
            return LISTENER_CONNECTIONS
        if is_client and self._bucket is not None and not self._bucket.take(now_s):
            return LISTENER_RATE
        return None


@final
class Address(Generic[Owner]):
    """What is known of one address that is not trusted."""

    __slots__ = ("arrivals", "connections", "failures", "let_in", "waiting", "waiting_bytes")

    def __init__(self, arrivals: Bucket | None, failures: Bucket | None) -> None:
        self.arrivals = arrivals
        self.failures = failures
        self.connections = 0
        self.let_in = 0  # of these
        self.waiting: OrderedDict[Visit[Owner], None] = OrderedDict()  # of these, the oldest first
        self.waiting_bytes = 0  # from those that are not let in yet


@final
class Visit(Generic[Owner]):
    """One connection that may come in; ``key`` is its address, "" for one that is trusted."""

    __slots__ = ("address", "gate", "has_left", "input_bytes", "is_let_in", "key", "owner")

    def __init__(self, key: str, address: Address[Owner] | None, gate: Gate, owner: Owner) -> None:
        self.key = key
        self.address = address
        self.gate = gate
        self.owner = owner
        self.is_let_in = False
        self.has_left = False
        self.input_bytes = 0


@final
class Admission(Generic[Owner]):
    """Decides at the door. ``closed`` is set while nobody is let in, to the reason.

    ``evicted`` are the owners of connections that have to make way: the caller takes them out, and
    ends them. They have left already.
    """

    def __init__(self, rules: AdmissionRules, counters: RefusalCounters) -> None:
        self.closed: Refusal | None = None
        self.evicted: list[Owner] = []
        self.counters = counters
        self.connections = 0
        self._rules = rules
        self._waiting: OrderedDict[Visit[Owner], None] = OrderedDict()  # have sent no CONNECT yet
        self._asking = 0  # have, and wait for an answer
        self._waiting_bytes = 0
        self._addresses: dict[str, Address[Owner]] = {}  # with connections
        self._idle: OrderedDict[str, Address[Owner]] = OrderedDict()  # the least recent first
        self._bans: OrderedDict[str, tuple[float, bool]] = OrderedDict()  # until when; is it told?
        self._has_address_bounds = (
            rules.address_connections_max > 0
            or rules.address_connections_per_s > 0
            or rules.failed_logins_max > 0
        )

    @property
    def unauthenticated(self) -> int:
        """How many connections wait to be let in."""
        return len(self._waiting) + self._asking

    @property
    def waiting_bytes(self) -> int:
        """How much came from connections that wait to be let in."""
        return self._waiting_bytes

    @property
    def addresses(self) -> int:
        """Of how many addresses something is remembered, bans apart."""
        return len(self._addresses) + len(self._idle)

    # --- at the door

    def arrive(
        self,
        host: str,
        gate: Gate,
        owner: Owner,
        now_s: float,
        *,
        file_number: int = -1,
        is_client: bool = True,
    ) -> Visit[Owner] | Refusal:
        """Take a connection from an address, "" for one that has none (a Unix socket).

        Refused ones are counted here. A visit that is given ends with ``left``. The system gives
        each socket the lowest ``file_number`` that is free, so it says how many are in use.
        One that ``is_client`` counts for the rate of its gate.
        """
        key = self._key(host)
        refusal: Refusal | None = FILES
        if not 0 < self._rules.files_max <= file_number:
            refusal = self._refusal(key, gate, now_s, is_client=is_client)
        if refusal is not None:
            self.counters.refused(refusal.name)
            return refusal
        address = self._address(key) if key else None
        visit = Visit(key, address, gate, owner)
        self.connections += 1
        gate.connections += 1
        self._waiting[visit] = None
        if address is not None:
            address.connections += 1
            address.waiting[visit] = None
        self.counters.unauthenticated = self.unauthenticated
        return visit

    def tell_ban(self, host: str) -> bool:
        """Whether a banned address is told so, which it is once."""
        key = self._key(host)
        until_s, is_told = self._bans.get(key, (0.0, True))
        if not is_told:
            self._bans[key] = (until_s, True)
        return not is_told

    def received(self, visit: Visit[Owner], size: int) -> None:
        """So many bytes came from a connection that is not let in yet.

        One whose address has a large part of what all may send goes itself, also if it waits for
        our answer: else one address could shut everyone out in that time.
        """
        if visit.has_left or visit.is_let_in:
            return
        self._count_bytes(visit, size)
        address = visit.address
        if address is not None and address.waiting_bytes * BYTES_SHARE > WAITING_BYTES_MAX:
            self._evict(visit)
        while self._waiting_bytes > WAITING_BYTES_MAX and self._waiting:
            self._evict(next(iter(self._waiting)))

    def _count_bytes(self, visit: Visit[Owner], size: int) -> None:
        visit.input_bytes += size
        self._waiting_bytes += size
        if visit.address is not None:
            visit.address.waiting_bytes += size

    def asked(self, visit: Visit[Owner]) -> None:
        """Its CONNECT has come, and somebody has to answer it: it makes way for nobody now."""
        if visit in self._waiting:
            del self._waiting[visit]
            self._asking += 1
            if visit.address is not None:
                del visit.address.waiting[visit]

    def let_in(self, visit: Visit[Owner]) -> None:
        """It is a client now."""
        if visit.is_let_in or visit.has_left:
            return
        self.asked(visit)
        self._asking -= 1
        self._count_bytes(visit, -visit.input_bytes)
        visit.is_let_in = True
        if visit.address is not None:
            visit.address.let_in += 1
        self.counters.unauthenticated = self.unauthenticated

    def left(self, visit: Visit[Owner]) -> None:
        """It is gone; calling it again changes nothing."""
        if visit.has_left:
            return
        address = visit.address
        if not visit.is_let_in:
            self._count_bytes(visit, -visit.input_bytes)
            if visit not in self._waiting:
                self._asking -= 1
            else:
                del self._waiting[visit]
                if address is not None:
                    del address.waiting[visit]
        elif address is not None:
            address.let_in -= 1
        visit.has_left = True
        self.connections -= 1
        visit.gate.connections -= 1
        if address is not None:
            address.connections -= 1
            if address.connections == 0:
                del self._addresses[visit.key]
                self._remember(visit.key, address)
        self.counters.unauthenticated = self.unauthenticated

    # --- bans

    def failed_login(self, host: str, now_s: float) -> bool:
        """Somebody there was refused for who it said it is: True if that banned the address.

        Nobody is let in from there for a while. Who is in stays.

        Each client that is let in from there adds one to what is allowed: many devices share the
        address of a router, and one with a wrong password must not shut the others out.
        """
        self.counters.failed_logins += 1
        rules = self._rules
        key = self._key(host)
        if not key or rules.failed_logins_max == 0:
            return False
        if key in self._bans and now_s < self._bans[key][0]:
            return False
        address = self._addresses.get(key)
        if address is None:
            address = self._idle.get(key)
            if address is None:
                address = self._new_address()
                self._remember(key, address)
        assert address.failures is not None
        if address.failures.take(now_s, spare=address.let_in):
            return False
        self._bans[key] = (now_s + rules.ban_s, False)
        self._bans.move_to_end(key)
        if len(self._bans) > BANS_MAX:
            self._bans.popitem(last=False)
        self.counters.bans += 1
        self.counters.banned = len(self._bans)
        return True

    def end_bans(self, now_s: float) -> None:
        """Forget the bans that are over; all of them last as long, so the oldest come first."""
        while self._bans:
            key = next(iter(self._bans))
            if self._bans[key][0] > now_s:
                break
            del self._bans[key]
        self.counters.banned = len(self._bans)

    # --- the rest

    def _refusal(self, key: str, gate: Gate, now_s: float, *, is_client: bool) -> Refusal | None:
        rules = self._rules
        if key:
            ban = self._bans.get(key)
            if ban is not None:
                if now_s < ban[0]:
                    return ADDRESS_BANNED
                del self._bans[key]
                self.counters.banned = len(self._bans)
        if self.closed is not None:
            return self.closed
        if 0 < rules.connections_max <= self.connections:
            return CONNECTIONS
        if key:
            address = self._addresses.get(key)
            if address is None:
                # As the most recent one: who makes way below must not push it out.
                address = self._idle.get(key) or self._new_address()
                self._remember(key, address)
            if 0 < rules.address_connections_max <= address.connections:
                return ADDRESS_CONNECTIONS
            if address.arrivals is not None and not address.arrivals.take(now_s):
                return ADDRESS_RATE
        refusal = gate.refusal(now_s, is_client=is_client)
        if refusal is not None:
            return refusal
        return self._room_to_wait(key)

    def _room_to_wait(self, key: str) -> Refusal | None:
        """Make room for one more that is not let in yet.

        Of those that have sent no CONNECT the oldest goes: a client needs one round trip for it,
        while who holds connections open to keep others out would have to renew all of them in that
        time. If one address has a large part of them, its own oldest goes. Those who wait for our
        answer stay, since that is not their fault, and if there are no others the new one goes.
        """
        most = self._rules.unauthenticated_max
        if not self._waiting and self._waiting_bytes > WAITING_BYTES_MAX:
            return UNAUTHENTICATED
        if most == 0 or self.unauthenticated < most:
            return None
        if not self._waiting:
            return UNAUTHENTICATED
        address = self._addresses.get(key)
        if address is not None and len(address.waiting) * WAITING_SHARE > most:
            self._evict(next(iter(address.waiting)))
        else:
            self._evict(next(iter(self._waiting)))
        return None

    def _evict(self, visit: Visit[Owner]) -> None:
        self.counters.evicted += 1
        self.left(visit)
        self.evicted.append(visit.owner)

    def _key(self, host: str) -> str:
        """What stands for an address: itself, its /64 with IPv6, "" if nothing is counted."""
        if not host or not self._has_address_bounds:
            return ""
        if host in self._addresses or host in self._idle or host in self._bans:
            return host
        return address_key(host, self._rules.trusted)

    def _address(self, key: str) -> Address[Owner]:
        """The entry of an address that has a connection now."""
        address = self._addresses.get(key)
        if address is None:
            address = self._idle.pop(key)
            self._addresses[key] = address
        return address

    def _new_address(self) -> Address[Owner]:
        rules = self._rules
        arrivals = failures = None
        if rules.address_connections_per_s > 0:
            arrivals = Bucket(
                rules.address_connections_per_s, max(1, rules.address_connections_burst)
            )
        if rules.failed_logins_max > 0:
            rate = rules.failed_logins_max / rules.failed_logins_window_s
            failures = Bucket(rate, rules.failed_logins_max)
        return Address(arrivals, failures)

    def _remember(self, key: str, address: Address[Owner]) -> None:
        """Keep what is known of an address without connections, as long as there is room."""
        self._idle[key] = address
        self._idle.move_to_end(key)
        if len(self._idle) > ADDRESSES_MAX:
            self._idle.popitem(last=False)


def address_key(host: str, trusted: Iterable[Network]) -> str:
    """The part of an address that one owner has, "" for a trusted one or none at all.

    IPv4 whole; of IPv6 the first 64 bits, since whoever has one has 2 ** 64 of them.
    """
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if any(address in network for network in trusted):
        return ""
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    return str(ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))
