"""Who may come in, decided without a socket: the times and addresses are the test's."""

import ipaddress
from collections import Counter
from dataclasses import dataclass
from random import Random

import pytest

from holdfast.broker.refusals import REFUSALS, RefusalCounters
from holdfast.net import admission as admission_module
from holdfast.net.admission import (
    ADDRESS_BANNED,
    ADDRESS_CONNECTIONS,
    ADDRESS_RATE,
    CONNECTIONS,
    FILES,
    LISTENER_CONNECTIONS,
    LISTENER_RATE,
    MEMORY,
    UNAUTHENTICATED,
    WAITING_BYTES_MAX,
    Admission,
    AdmissionRules,
    Gate,
    Refusal,
    Visit,
    address_key,
)

LOOPBACK = ipaddress.ip_network("127.0.0.0/8")


class Door:
    """An admission with one gate, and a clock that stands still unless it is moved."""

    def __init__(self, gate: Gate | None = None, **rules: object) -> None:
        self.counters = RefusalCounters()
        self.admission: Admission[str] = Admission(
            AdmissionRules(**rules),  # type: ignore[arg-type]  # handed through
            self.counters,
        )
        self.gate = Gate("") if gate is None else gate
        self.now_s = 1000.0
        self._number = 0

    def knock(self, host: str, *, file_number: int = -1) -> Visit[str] | Refusal:
        self._number += 1
        owner = f"{host} {self._number}"
        return self.admission.arrive(host, self.gate, owner, self.now_s, file_number=file_number)

    def enter(self, host: str) -> Visit[str]:
        visit = self.knock(host)
        assert isinstance(visit, Visit), visit
        return visit

    def client(self, host: str) -> Visit[str]:
        visit = self.enter(host)
        self.admission.let_in(visit)
        return visit

    def fail(self, host: str, count: int = 1) -> list[bool]:
        """Failed logins, each from a connection that ends with it; whether each banned."""
        found = []
        for _ in range(count):
            visit = self.enter(host)
            self.admission.asked(visit)
            found.append(self.admission.failed_login(host, self.now_s))
            self.admission.left(visit)
        return found

    def evicted(self) -> list[str]:
        found, self.admission.evicted = self.admission.evicted, []
        return found


def test_without_bounds_anything_goes_and_nothing_is_remembered() -> None:
    door = Door()
    visits = [door.enter(f"192.0.2.{n % 256}") for n in range(1000)]
    assert (door.admission.connections, door.admission.unauthenticated) == (1000, 1000)
    for visit in visits[:500]:
        door.admission.let_in(visit)
    assert door.admission.unauthenticated == 500
    for visit in visits:
        door.admission.left(visit)
        door.admission.left(visit)  # again changes nothing
    assert (door.admission.connections, door.admission.unauthenticated) == (0, 0)
    assert door.admission.addresses == 0


def test_each_refusal_has_a_counter_of_its_own() -> None:
    refusals = [value for value in vars(admission_module).values() if isinstance(value, Refusal)]
    assert sorted(one.name for one in refusals) == sorted(REFUSALS)


def test_connections_in_all_and_of_a_listener() -> None:
    door = Door(Gate("x", connections_max=2), connections_max=3)
    first = door.client("192.0.2.1")
    door.client("")
    assert door.knock("") is LISTENER_CONNECTIONS
    other = Gate("y")
    assert isinstance(door.admission.arrive("", other, "", door.now_s), Visit)
    assert door.admission.arrive("", other, "", door.now_s) is CONNECTIONS
    door.admission.left(first)
    assert isinstance(door.knock("192.0.2.1"), Visit)
    assert door.counters.connections["connections"] == 1
    assert door.counters.connections["listener_connections"] == 1


def test_the_rate_of_a_listener() -> None:
    door = Door(Gate("x", connections_per_s=5))
    assert [door.knock("") for _ in range(12)][10:] == [LISTENER_RATE] * 2
    door.now_s += 0.2
    assert isinstance(door.knock(""), Visit)
    assert door.knock("") is LISTENER_RATE


def test_connections_of_one_address() -> None:
    door = Door(address_connections_max=2)
    visits = [door.client("192.0.2.1"), door.client("192.0.2.1")]
    assert door.knock("192.0.2.1") is ADDRESS_CONNECTIONS
    door.client("192.0.2.2")
    door.admission.left(visits[0])
    door.client("192.0.2.1")


def test_the_rate_of_one_address_has_a_burst() -> None:
    door = Door(address_connections_per_s=2, address_connections_burst=10)
    for _ in range(10):
        door.admission.left(door.client("192.0.2.1"))
    assert door.knock("192.0.2.1") is ADDRESS_RATE
    door.client("192.0.2.2")
    door.now_s += 0.5
    door.client("192.0.2.1")
    assert door.knock("192.0.2.1") is ADDRESS_RATE
    door.now_s -= 3600  # no clock does that; if one did, nobody would be the worse for it
    assert door.knock("192.0.2.1") is ADDRESS_RATE


def test_of_ipv6_a_network_of_64_bits_is_one_address() -> None:
    door = Door(address_connections_max=2)
    door.client("2001:db8::1")
    door.client("2001:db8::2")
    assert door.knock("2001:db8::ffff:3") is ADDRESS_CONNECTIONS
    door.client("2001:db8:0:1::1")


def test_trusted_addresses_and_unix_sockets_have_no_bounds_by_address() -> None:
    door = Door(
        address_connections_max=1,
        address_connections_per_s=1,
        address_connections_burst=1,
        failed_logins_max=1,
        trusted=(LOOPBACK,),
    )
    for host in ("127.0.0.1", "127.9.9.9", "::ffff:127.0.0.1", "", "no address"):
        for _ in range(3):
            door.client(host)
        assert door.fail(host, 3) == [False] * 3
    assert door.admission.addresses == 0


@pytest.mark.parametrize(
    ("host", "key"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("127.0.0.1", ""),
        ("unknown", ""),
        ("", ""),
    ],
)
def test_what_stands_for_an_address(host: str, key: str) -> None:
    assert address_key(host, (LOOPBACK,)) == key


# --- those who wait


def test_the_oldest_without_connect_makes_way() -> None:
    door = Door(unauthenticated_max=3)
    asking = door.enter("")
    door.admission.asked(asking)
    for host in ("192.0.2.1", "192.0.2.2", "192.0.2.3"):
        door.enter(host)
    assert door.evicted() == ["192.0.2.1 2"]
    assert (door.admission.unauthenticated, door.counters.evicted) == (3, 1)
    door.admission.let_in(asking)
    door.enter("192.0.2.4")
    assert door.evicted() == []


def test_if_all_wait_for_our_answer_the_new_one_is_refused() -> None:
    door = Door(unauthenticated_max=2)
    visits = [door.enter(""), door.enter("")]
    for visit in visits:
        door.admission.asked(visit)
    assert door.knock("") is UNAUTHENTICATED
    door.admission.left(visits[0])
    door.enter("")


def test_a_flood_from_one_address_makes_way_for_itself() -> None:
    door = Door(unauthenticated_max=80, address_connections_max=1000)
    door.enter("192.0.2.1")
    for _ in range(200):
        door.enter("198.51.100.1")
    evicted = door.evicted()
    assert len(evicted) == 121
    assert all(owner.startswith("198.51.100.1 ") for owner in evicted)


def test_one_that_was_evicted_and_says_connect_all_the_same_counts_nowhere() -> None:
    door = Door(unauthenticated_max=1, address_connections_max=10)
    late = door.enter("192.0.2.1")
    door.enter("192.0.2.2")
    assert door.evicted() == ["192.0.2.1 1"]
    door.admission.received(late, 1000)
    door.admission.asked(late)
    door.admission.let_in(late)
    door.admission.left(late)
    assert (door.admission.connections, door.admission.unauthenticated) == (1, 1)


def test_what_those_who_wait_have_sent_is_bounded_together() -> None:
    door = Door()
    visits = [door.enter("") for _ in range(10)]
    for visit in visits[:9]:
        door.admission.received(visit, WAITING_BYTES_MAX // 10)
    assert door.evicted() == []
    door.admission.received(visits[9], WAITING_BYTES_MAX // 5)
    assert door.evicted() == [" 1"]
    for visit in visits:
        door.admission.asked(visit)
    door.admission.received(visits[9], WAITING_BYTES_MAX)
    assert door.knock("") is UNAUTHENTICATED
    door.admission.let_in(visits[9])
    door.enter("")


def test_one_address_cannot_shut_others_out_while_it_waits_for_an_answer() -> None:
    door = Door(failed_logins_max=10)
    for _ in range(100):
        visit = door.enter("10.0.0.1")
        door.admission.asked(visit)
        door.admission.received(visit, WAITING_BYTES_MAX // 20)
    honest = door.enter("10.0.0.2")
    door.admission.received(honest, 100)
    assert len(door.evicted()) == 95
    door.admission.asked(honest)
    door.admission.let_in(honest)
    assert not honest.has_left


# --- bans


def test_failed_logins_ban_an_address_for_a_while() -> None:
    door = Door(failed_logins_max=3, failed_logins_window_s=60.0, ban_s=300.0)
    inside = door.enter("192.0.2.1")  # not let in yet
    assert door.fail("192.0.2.1", 4) == [False, False, False, True]
    assert door.knock("192.0.2.1") is ADDRESS_BANNED
    assert [door.admission.tell_ban("192.0.2.1") for _ in range(3)] == [True, False, False]
    assert not door.admission.tell_ban("192.0.2.2")
    assert (door.counters.bans, door.counters.banned) == (1, 1)
    door.client("192.0.2.2")
    door.admission.let_in(inside)  # who was there may still prove who it is
    door.now_s += 299
    assert door.knock("192.0.2.1") is ADDRESS_BANNED
    door.now_s += 1
    door.client("192.0.2.1")
    assert door.counters.banned == 0


def test_failed_logins_are_forgiven() -> None:
    door = Door(failed_logins_max=3, failed_logins_window_s=60.0)
    for _ in range(20):
        assert door.fail("192.0.2.1") == [False]
        door.now_s += 20


def test_a_thousand_meters_behind_one_address_are_not_banned_for_one_of_them() -> None:
    """One of them has a wrong password and comes back each second."""
    door = Door(failed_logins_max=30, address_connections_per_s=100, address_connections_burst=5000)
    for _ in range(1000):
        door.client("192.0.2.1")
    for _ in range(600):
        assert door.fail("192.0.2.1") == [False]
        door.now_s += 1


def test_bans_that_are_over_are_forgotten() -> None:
    door = Door(failed_logins_max=1, ban_s=10.0)
    for host in ("192.0.2.1", "192.0.2.2"):
        assert door.fail(host, 2) == [False, True]
        door.now_s += 5
    door.admission.end_bans(door.now_s)
    assert door.counters.banned == 1


# --- bounded, whatever comes


def test_a_million_addresses_take_no_more_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundredth of it, against bounds that are a hundredth."""
    monkeypatch.setattr(admission_module, "ADDRESSES_MAX", 655)
    monkeypatch.setattr(admission_module, "BANS_MAX", 655)
    door = Door(failed_logins_max=1, address_connections_max=10)
    stays = door.client("192.0.2.1")
    for number in range(10_000):
        host = str(ipaddress.ip_address(0x0A00_0000 + number))
        assert door.fail(host, 2) == [False, True]
    assert door.admission.addresses == 656
    door.admission.end_bans(door.now_s)
    assert door.counters.banned == 655
    door.admission.left(stays)


def test_files_in_reserve_and_a_closed_door() -> None:
    door = Door(files_max=100)
    assert isinstance(door.knock("", file_number=99), Visit)
    assert door.knock("", file_number=100) is FILES
    door.admission.closed = MEMORY
    assert door.knock("", file_number=9) is MEMORY
    door.admission.closed = None
    assert isinstance(door.knock("", file_number=9), Visit)
    assert door.counters.connections["files"] == door.counters.connections["memory"] == 1


@dataclass
class Guest:
    """What the model knows of one connection."""

    host: str
    gate: Gate
    visit: Visit[int]
    is_asked: bool = False
    is_in: bool = False
    input_bytes: int = 0


class Model:
    """Who is there, kept as a plain list, beside the admission that counts."""

    BOUNDS = AdmissionRules(
        connections_max=12,
        unauthenticated_max=6,
        address_connections_max=4,
        address_connections_per_s=2.0,
        address_connections_burst=3,
        failed_logins_max=2,
        failed_logins_window_s=10.0,
        ban_s=5.0,
        trusted=(LOOPBACK,),
    )

    def __init__(self, random: Random) -> None:
        self.random = random
        self.counters = RefusalCounters()
        self.admission: Admission[int] = Admission(self.BOUNDS, self.counters)
        self.gates = [
            Gate("a", connections_max=5),
            Gate("b", connections_per_s=2.0),
            Gate("c"),
        ]
        self.guests: dict[int, Guest] = {}
        self.gone: list[Guest] = []
        self.now_s = 0.0
        self.number = 0

    def step(self) -> None:
        """One of the things that can happen."""
        self.now_s += self.random.choice((0.0, 0.0, 0.1, 1.0, 7.0))
        acts = (self.arrive, self.arrive, self.arrive, self.say, self.ask, self.let_in, self.leave)
        self.random.choice((*acts, self.fail, self.come_late, self.end_bans))()
        for owner in self.admission.evicted:
            guest = self.guests.pop(owner)
            assert not guest.is_asked or guest.input_bytes > WAITING_BYTES_MAX // 4
            assert not guest.is_in
            self.gone.append(guest)
        self.admission.evicted = []
        self.check()

    def arrive(self) -> None:
        host = self.random.choice(("127.0.0.1", "", *(f"10.0.0.{n}" for n in range(9))))
        gate = self.random.choice(self.gates)
        self.number += 1
        found = self.admission.arrive(host, gate, self.number, self.now_s)
        if isinstance(found, Visit):
            self.guests[self.number] = Guest(host, gate, found)

    def say(self) -> None:
        if self.guests:
            guest = self.random.choice(list(self.guests.values()))
            size = self.random.choice((1, 100, WAITING_BYTES_MAX // 3))
            self.admission.received(guest.visit, size)
            if not guest.is_in:
                guest.input_bytes += size

    def ask(self) -> None:
        if self.guests:
            guest = self.random.choice(list(self.guests.values()))
            if not guest.is_in:
                self.admission.asked(guest.visit)
                guest.is_asked = True

    def let_in(self) -> None:
        if self.guests:
            guest = self.random.choice(list(self.guests.values()))
            self.admission.let_in(guest.visit)
            guest.is_in = True

    def leave(self) -> None:
        if self.guests:
            guest = self.guests.pop(self.random.choice(list(self.guests)))
            self.admission.left(guest.visit)
            self.gone.append(guest)

    def fail(self) -> None:
        self.admission.failed_login(f"10.0.0.{self.random.randrange(12)}", self.now_s)

    def come_late(self) -> None:
        """What is still told of one that has gone changes nothing."""
        if self.gone:
            visit = self.random.choice(self.gone).visit
            for tell in (self.admission.asked, self.admission.let_in, self.admission.left):
                tell(visit)
            self.admission.received(visit, 1000)

    def end_bans(self) -> None:
        self.admission.end_bans(self.now_s)

    def check(self) -> None:
        guests = list(self.guests.values())
        outside = [guest for guest in guests if not guest.is_in]
        admission = self.admission
        assert admission.connections == len(guests) <= self.BOUNDS.connections_max
        assert admission.unauthenticated == len(outside) <= self.BOUNDS.unauthenticated_max
        assert self.counters.unauthenticated == len(outside)
        assert admission.waiting_bytes == sum(guest.input_bytes for guest in outside)
        for gate in self.gates:
            assert gate.connections == sum(guest.gate is gate for guest in guests)
        by_host = Counter(guest.host for guest in guests)
        assert max((by_host[host] for host in by_host if "10." in host), default=0) <= 4
        assert admission.addresses <= len(by_host) + admission_module.ADDRESSES_MAX

    def end(self) -> None:
        """Everybody goes: nothing is left of them."""
        for guest in self.guests.values():
            self.admission.left(guest.visit)
        self.guests.clear()
        self.check()


@pytest.mark.parametrize("seed", range(8))
def test_whoever_comes_and_goes_the_counts_are_right(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission_module, "ADDRESSES_MAX", 3)
    model = Model(Random(seed))
    for _ in range(1000):
        model.step()
    model.end()
