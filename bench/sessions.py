"""Many sessions at once, and the single exchanges whose time is measured."""

import socket
import time
from typing import Final

from bench.endpoints import Misbehaved
from bench.flow import HANDSHAKE_TIMEOUT_S, HOST, open_client, open_subscriber
from bench.wire import (
    ACK_BYTES,
    DISCONNECT,
    MQTT_311,
    PUBACK,
    PUBLISH,
    ack_ring,
    connect,
    make_acks,
    make_ring,
    publish,
    split_packet,
    subscribe,
    without_ids,
)

# Connections opened together: fewer than Mosquitto's listen backlog of 100, beyond which the kernel
# drops the attempt and repeats it a second later.
TOGETHER: Final = 64
CONNACK_NEW: Final = b"\x20\x02\x00\x00"
CONNACK_RESUMED: Final = b"\x20\x02\x01\x00"


def open_sessions(
    port: int, prefix: str, numbers: range, *, durable: bool, topic: str, qos: int
) -> list[socket.socket]:
    """Connected clients named ``prefix`` and a number, MQTT 3.1.1, no keep alive.

    Each subscribes to ``topic``, in which ``{}`` stands for its number; to nothing if it is empty.
    """
    opened: list[socket.socket] = []
    for begin in range(0, len(numbers), TOGETHER):
        batch: list[socket.socket] = []
        for number in numbers[begin : begin + TOGETHER]:
            sock = socket.create_connection((HOST, port), timeout=HANDSHAKE_TIMEOUT_S)
            batch.append(sock)
            hello = connect(f"{prefix}-{number}", durable=durable)
            if topic:
                hello += subscribe(topic.format(number), qos=qos)
            sock.sendall(hello)
        expected = CONNACK_NEW + (bytes((0x90, 3, 0, 1, qos)) if topic else b"")
        for sock in batch:
            answer = _receive(sock, len(expected))
            if answer != expected:
                raise Misbehaved(f"a session of {prefix}: wanted {expected!r}, got {answer!r}")
        opened += batch
    return opened


def close_sessions(sockets: list[socket.socket]) -> None:
    """Disconnect, and wait until the broker has seen it."""
    for sock in sockets:
        sock.sendall(DISCONNECT)
        sock.shutdown(socket.SHUT_WR)
    for sock in sockets:
        while sock.recv(4096):
            pass
        sock.close()


def puback_times(port: int, count: int, *, warmup: int) -> list[float]:
    """Seconds from PUBLISH to PUBACK, one at a time, with a durable subscriber that gets them."""
    ring = make_ring(["b/latency"], qos=1, version=MQTT_311, count=1024)
    packets = [ring.packets[at : at + ring.size] for at in range(0, len(ring.packets), ring.size)]
    blanks = [ring.blank[at : at + ring.size] for at in range(0, len(ring.blank), ring.size)]
    acks = ack_ring(PUBACK, ring.count)
    subscriber = open_subscriber(port, "b-latency-sub", "b/latency", qos=1, durable=True)
    publisher, _ = open_client(port, "b-latency-pub")
    times: list[float] = []
    clock = time.perf_counter
    try:
        for number in range(warmup + count):
            index = number % ring.count
            packet = packets[index]
            begin = clock()
            publisher.sendall(packet)
            answer = publisher.recv(ACK_BYTES)
            end = clock()
            if answer != acks[index * ACK_BYTES : (index + 1) * ACK_BYTES]:
                raise Misbehaved(f"expected the PUBACK for {index + 1}, got {answer.hex(' ')}")
            message = _receive(subscriber, ring.size)
            if without_ids(message, ring) != blanks[index]:
                raise Misbehaved(f"message {number} was not delivered as it was published")
            subscriber.sendall(make_acks(PUBACK, message, ring))
            if number >= warmup:
                times.append(end - begin)
    finally:
        publisher.close()
        subscriber.close()
    return times


def first_message_s(port: int, client_id: str, payload: bytes) -> float:
    """Seconds from CONNECT of an existing session to its first PUBLISH, with ``payload``.

    The TCP connection is made before the clock starts.
    """
    with socket.create_connection((HOST, port), timeout=HANDSHAKE_TIMEOUT_S) as sock:
        hello = connect(client_id, durable=True)
        begin = time.perf_counter()
        sock.sendall(hello)
        connack = _receive(sock, len(CONNACK_RESUMED))
        if connack != CONNACK_RESUMED:
            raise Misbehaved(f"{client_id} was not resumed: {connack.hex(' ')}")
        data = b""
        while (packet := split_packet(data)) is None:
            block = sock.recv(4096)
            if not block:
                raise Misbehaved(f"the broker closed the connection of {client_id}")
            data += block
        end = time.perf_counter()
        head, body, stop = packet
        if head & 0xF0 != PUBLISH or not data[body:stop].endswith(payload):
            raise Misbehaved(f"{client_id} first got {data[:64]!r}")
        return end - begin


def publish_one(port: int, topic: str, payload: bytes) -> None:
    """Publish one message at QoS 1 and wait for its PUBACK."""
    sock, _ = open_client(port, "b-one")
    with sock:
        sock.sendall(publish(topic, payload, qos=1, version=MQTT_311, packet_id=1))
        answer = _receive(sock, ACK_BYTES)
        if answer != b"\x40\x02\x00\x01":
            raise Misbehaved(f"expected PUBACK, got {answer.hex(' ')}")
        sock.sendall(DISCONNECT)


def _receive(sock: socket.socket, size: int) -> bytes:
    """Exactly ``size`` bytes, or fewer at the end of the connection."""
    data = sock.recv(size)
    while 0 < len(data) < size:
        block = sock.recv(size - len(data))
        if not block:
            break
        data += block
    return data
