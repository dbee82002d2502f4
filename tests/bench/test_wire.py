"""The bulk handling of packets gives what handling them one by one would give."""

import random
import struct

import pytest

from bench.wire import (
    MQTT_5,
    MQTT_311,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    RUN_STEP,
    ack_ring,
    connect,
    make_acks,
    make_ring,
    publish,
    receive_maximum,
    run_length,
    split_packet,
    subscribe,
    turn_acks,
    without_ids,
)


def test_connect_of_a_clean_and_of_a_durable_session() -> None:
    assert connect("ab") == bytes.fromhex("100e 0004 4d515454 04 02 0000 0002 6162")
    assert connect("ab", durable=True) == bytes.fromhex("100e 0004 4d515454 04 00 0000 0002 6162")
    assert connect("ab", version=MQTT_5, durable=True) == bytes.fromhex(
        "1014 0004 4d515454 05 00 0000 05 11ffffffff 0002 6162"
    )


def test_subscribe_in_both_versions() -> None:
    assert subscribe("a/#", qos=1) == bytes.fromhex("8208 0001 0003 612f23 01")
    assert subscribe("a/#", qos=2, version=MQTT_5) == bytes.fromhex("8209 0001 00 0003 612f23 02")


def test_publish_in_both_versions() -> None:
    assert publish("t", b"xy", qos=0, version=MQTT_311, packet_id=7) == bytes.fromhex(
        "3005 0001 74 7879"
    )
    assert publish("t", b"xy", qos=2, version=MQTT_5, packet_id=7) == bytes.fromhex(
        "3408 0001 74 0007 00 7879"
    )


@pytest.mark.parametrize("version", [MQTT_311, MQTT_5])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_ring_holds_its_packets_twice_with_identifiers_from_1(qos: int, version: int) -> None:
    ring = make_ring(["a/0", "a/1"], qos=qos, version=version, count=5, publisher=3)
    assert len(ring.packets) == len(ring.blank) == 2 * ring.count * ring.size
    payloads = set()
    for index in range(2 * ring.count):
        packet = ring.packets[index * ring.size : (index + 1) * ring.size]
        whole = split_packet(packet)
        assert whole is not None
        head, begin, end = whole
        assert (head, end) == (PUBLISH | qos << 1, ring.size)
        assert packet[begin + 2 : begin + 5] == b"a/%d" % (index % ring.count % 2)
        if qos > 0:
            assert struct.unpack_from(">H", packet, ring.id_at) == (index % ring.count + 1,)
        payloads.add(packet[-64:])
    assert len(payloads) == ring.count


def test_acks_are_those_of_each_packet() -> None:
    ring = make_ring(["topic"], qos=1, version=MQTT_311, count=700)
    packets = ring.packets[3 * ring.size : 600 * ring.size]
    acks = make_acks(PUBACK, packets, ring)
    slow = b""
    for at in range(0, len(packets), ring.size):
        slow += b"\x40\x02" + packets[at + ring.id_at : at + ring.id_at + 2]
    assert acks == slow
    assert acks == ack_ring(PUBACK, ring.count)[3 * 4 : 600 * 4]
    assert make_acks(PUBACK, b"", ring) == b""


def test_turned_acks_keep_their_identifiers() -> None:
    assert turn_acks(PUBCOMP, ack_ring(PUBREL, 300)) == ack_ring(PUBCOMP, 300)


def test_packets_without_identifiers_are_the_blank_ring() -> None:
    ring = make_ring(["topic"], qos=2, version=MQTT_5, count=300)
    assert without_ids(ring.packets, ring) == ring.blank
    ring = make_ring(["topic"], qos=0, version=MQTT_5, count=300)
    assert without_ids(ring.packets, ring) == ring.packets


@pytest.mark.parametrize("seed", range(5))
def test_runs_split_a_mixed_stream_where_its_packets_end(seed: int) -> None:
    rng = random.Random(seed)
    # The payload is full of first bytes, so that a step which misses a boundary would find one.
    long = bytes((PUBLISH | 4, 71)) + bytes((PUBLISH | 4, PUBREL)) * 35 + b"\x62"
    short = bytes((PUBREL, 2, 0x34, 0x34))
    kinds = [rng.random() < 0.5 for _ in range(500)] + [True] * (RUN_STEP + 20)
    data = b"".join(long if kind else short for kind in kinds)
    at, found = 0, []
    while at < len(data):
        size = len(long) if data[at] == PUBLISH | 4 else 4
        n = run_length(data, at, size)
        assert 0 < n <= RUN_STEP
        found += [size == len(long)] * n
        at += n * size
    assert found == kinds


def test_a_run_leaves_out_the_packet_that_is_not_whole() -> None:
    data = bytes((PUBREC, 2, 0, 1)) * 3
    assert [run_length(data[:size], 0, 4) for size in range(13)] == [0] * 4 + [1] * 4 + [2] * 4 + [
        3
    ]
    assert run_length(data, 12, 4) == 0


def test_a_packet_is_split_off_only_when_it_is_whole() -> None:
    packet = b"\x30\x80\x01" + bytes(128)
    for size in range(len(packet)):
        assert split_packet(packet[:size]) is None
    assert split_packet(packet + b"\xff") == (0x30, 3, len(packet))
    assert split_packet(b"?" + packet, 1) == (0x30, 4, len(packet) + 1)


def test_receive_maximum_is_found_among_other_properties() -> None:
    user = bytes.fromhex("26 0001 61 0002 6262")
    reason = bytes.fromhex("1f 0001 78")
    properties = b"\x24\x01" + user + reason + b"\x21\x00\x14" + b"\x22\x00\x0a"
    body = bytes((0, 0, len(properties))) + properties
    assert receive_maximum(body, MQTT_5) == 20
    assert receive_maximum(b"\0\0\0", MQTT_5) == 65535
    assert receive_maximum(b"\0\0", MQTT_311) == 65535
