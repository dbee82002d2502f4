"""The endpoints keep their windows, answer in bulk, and find out a broker that cheats."""

import select
import socket
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from bench.endpoints import (
    SAMPLE_EVERY,
    Misbehaved,
    Publisher0,
    Publisher1,
    Publisher2,
    Subscriber,
    Subscriber2,
)
from bench.wire import (
    MQTT_311,
    PUBACK,
    PUBCOMP,
    PUBREC,
    PUBREL,
    Ring,
    ack_ring,
    make_ring,
)


class Ends(NamedTuple):
    """A socket for the endpoint, the broker's end of it, and the poller."""

    ours: socket.socket
    broker: socket.socket
    poller: select.epoll


@pytest.fixture
def ends() -> Iterator[Ends]:
    ours, broker = socket.socketpair()
    broker.settimeout(5)
    poller = select.epoll()
    with ours, broker:
        yield Ends(ours, broker, poller)
    poller.close()


def ring_of(qos: int) -> Ring:
    return make_ring(["topic"], qos=qos, version=MQTT_311, count=50)


def packets(ring: Ring, first: int, end: int) -> bytes:
    return ring.packets[first * ring.size : end * ring.size]


def acks(kind: int, first: int, end: int) -> bytes:
    return ack_ring(kind, 50)[first * 4 : end * 4]


def subscriber(ends: Ends, ring: Ring) -> Subscriber:
    kind = Subscriber2 if ring.qos == 2 else Subscriber
    return kind(ends.ours, ends.poller, "s", ring=ring)


def test_a_subscriber_counts_and_acknowledges_what_arrives_in_pieces(ends: Ends) -> None:
    ring = ring_of(1)
    one = subscriber(ends, ring)
    stream = packets(ring, 0, 60)
    for at in range(0, len(stream), 101):
        ends.broker.sendall(stream[at : at + 101])
        one.readable()
    assert one.delivered == 60
    assert ends.broker.recv(4096) == acks(PUBACK, 0, 60)


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("cheat", ["lost", "repeated", "swapped", "changed", "other qos", "dup"])
def test_a_subscriber_finds_out_a_broker_that_cheats(ends: Ends, qos: int, cheat: str) -> None:
    ring = ring_of(qos)
    one = subscriber(ends, ring)
    stream = packets(ring, 0, 3)
    match cheat:
        case "lost":
            stream += packets(ring, 4, 6)
        case "repeated":
            stream += packets(ring, 2, 6)
        case "swapped":
            stream += packets(ring, 4, 5) + packets(ring, 3, 4)
        case "changed":
            stream += packets(ring, 3, 4)[:-1] + b"?"
        case "other qos":
            stream += packets(ring_of(1 if qos == 0 else 0), 3, 6)
        case "dup":
            fourth = packets(ring, 3, 4)
            stream += bytes((fourth[0] | 8,)) + fourth[1:]
    ends.broker.sendall(stream)
    with pytest.raises(Misbehaved):
        one.readable()


def test_identifiers_in_use_are_found_out_by_sampling(ends: Ends) -> None:
    ring = ring_of(1)
    one = subscriber(ends, ring)

    def deliver_two_under_one_identifier(first: int) -> None:
        stream = bytearray(ring.blank[first * ring.size : (first + 2) * ring.size])
        for start in (0, ring.size):
            stream[start + ring.id_at + 1] = 5
        ends.broker.sendall(stream)
        one.readable()
        ends.broker.recv(4096)

    for number in range(SAMPLE_EVERY - 1):
        deliver_two_under_one_identifier(number * 2 % ring.count)
    with pytest.raises(Misbehaved, match="identifiers"):
        deliver_two_under_one_identifier((SAMPLE_EVERY - 1) * 2 % ring.count)


def test_a_subscriber_of_qos_2_answers_each_kind_byte_by_byte(ends: Ends) -> None:
    ring = ring_of(2)
    one = Subscriber2(ends.ours, ends.poller, "s", ring=ring)
    stream = packets(ring, 0, 2) + acks(PUBREL, 0, 1) + packets(ring, 2, 3) + acks(PUBREL, 1, 3)
    answer = b""
    for at in range(len(stream)):
        ends.broker.sendall(stream[at : at + 1])
        one.readable()
        if one.delivered + one.released > len(answer) // 4:
            answer += ends.broker.recv(4096)
    assert (one.delivered, one.released) == (3, 3)
    assert answer == (
        acks(PUBREC, 0, 2) + acks(PUBCOMP, 0, 1) + acks(PUBREC, 2, 3) + acks(PUBCOMP, 1, 3)
    )


def test_a_pubrel_out_of_order_is_found_out(ends: Ends) -> None:
    ring = ring_of(2)
    one = Subscriber2(ends.ours, ends.poller, "s", ring=ring)
    ends.broker.sendall(packets(ring, 0, 2) + acks(PUBREL, 1, 2))
    with pytest.raises(Misbehaved, match="PUBREL"):
        one.readable()


def test_a_publisher_of_qos_1_keeps_its_window(ends: Ends) -> None:
    ring = ring_of(1)
    one = Publisher1(
        ends.ours, ends.poller, "p", ring=ring, window=10, lag=50, limit=25, subscribers=[]
    )
    one.fill()
    assert ends.broker.recv(1 << 16) == packets(ring, 0, 10)
    ends.broker.sendall(acks(PUBACK, 0, 4)[:-1])
    one.readable()
    assert ends.broker.recv(1 << 16) == packets(ring, 10, 13)
    ends.broker.sendall(acks(PUBACK, 3, 4)[-1:] + acks(PUBACK, 4, 13))
    one.readable()
    assert ends.broker.recv(1 << 16) == packets(ring, 13, 23)
    ends.broker.sendall(acks(PUBACK, 13, 23))
    one.readable()
    assert ends.broker.recv(1 << 16) == packets(ring, 23, 25)
    assert (one.sent, one.finished) == (25, 23)


def test_pubacks_out_of_order_are_found_out(ends: Ends) -> None:
    ring = ring_of(1)
    one = Publisher1(
        ends.ours, ends.poller, "p", ring=ring, window=10, lag=50, limit=25, subscribers=[]
    )
    one.fill()
    ends.broker.sendall(acks(PUBACK, 0, 2) + acks(PUBACK, 3, 4))
    with pytest.raises(Misbehaved, match="PUBACK"):
        one.readable()


def test_a_publisher_of_qos_2_takes_mixed_answers(ends: Ends) -> None:
    ring = ring_of(2)
    one = Publisher2(
        ends.ours, ends.poller, "p", ring=ring, window=4, lag=50, limit=99, subscribers=[]
    )
    one.fill()
    assert ends.broker.recv(1 << 16) == packets(ring, 0, 4)
    ends.broker.sendall(acks(PUBREC, 0, 2))
    one.readable()
    assert ends.broker.recv(1 << 16) == acks(PUBREL, 0, 2)
    ends.broker.sendall(acks(PUBREC, 2, 3) + acks(PUBCOMP, 0, 2) + acks(PUBREC, 3, 4) + b"\x70\x02")
    one.readable()
    assert ends.broker.recv(1 << 16) == acks(PUBREL, 2, 4) + packets(ring, 4, 6)
    assert one.finished == 2
    ends.broker.sendall(acks(PUBCOMP, 3, 4)[2:])
    with pytest.raises(Misbehaved):
        one.readable()


def test_a_publisher_of_qos_0_waits_for_its_slowest_subscriber(ends: Ends) -> None:
    ring = ring_of(0)
    left, right = socket.socketpair()
    with left, right:
        first, second = (Subscriber(sock, ends.poller, "s", ring=ring) for sock in (left, right))
        one = Publisher0(
            ends.ours,
            ends.poller,
            "p",
            ring=ring,
            window=20,
            lag=20,
            limit=99,
            subscribers=[first, second],
        )
        one.fill()
        assert ends.broker.recv(1 << 16) == packets(ring, 0, 20)
        first.delivered = 20
        one.fill()
        second.delivered = 5
        one.fill()
        assert ends.broker.recv(1 << 16) == packets(ring, 20, 25)
        ends.broker.sendall(b"\x40\x02\x00\x01")
        with pytest.raises(Misbehaved):
            one.readable()


def test_what_the_kernel_does_not_take_is_sent_later(ends: Ends) -> None:
    ring = ring_of(1)
    one = subscriber(ends, ring)
    sent = bytes(range(256)) * 8192
    one.send(sent)
    one.send(b"end")
    received = b""
    while len(received) < len(sent) + 3:
        received += ends.broker.recv(1 << 20)
        if one.unsent:
            one.writable()
    assert received == sent + b"end"


def test_an_end_of_the_connection_is_told(ends: Ends) -> None:
    one = subscriber(ends, ring_of(1))
    ends.broker.close()
    with pytest.raises(Misbehaved, match="closed the connection of s"):
        one.readable()
