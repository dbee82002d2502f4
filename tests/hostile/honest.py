"""``python -m tests.hostile.honest PORT [USER PASSWORD]``: an honest pair, and the service it gets.

A process of its own, so that nothing an attack does in ours shows in its times. One QoS 1 message
after another goes round; each round trip is a line of microseconds on standard output. When
standard input says something, the pair checks that nothing was lost, doubled or out of order, and
ends with the line ``kept``.
"""

import select
import sys
import time
from typing import Final

from tests.support import packets
from tests.support.wire import PATIENCE_S, Closed, Wire

PAUSE_S: Final = 0.004  # between two round trips; the load is to come from the attack
TOPIC: Final = "honest/heart/beat"


def _connect(port: int, client_id: str) -> Wire:
    user, password = sys.argv[2:4] if len(sys.argv) > 2 else (None, None)
    wire = Wire(port)
    values = {packets.SESSION_EXPIRY: 3600}
    wire.send(packets.connect(client_id, values=values, user=user, password=password))
    connack = wire.expect(packets.CONNACK)
    assert connack.code == 0, f"an honest client was refused: {connack}"
    return wire


def _round_trip(publisher: Wire, subscriber: Wire, number: int) -> None:
    """One message, up to its PUBACK here and its delivery there."""
    payload = b"%d" % number
    packet_id = number % 65_535 + 1
    publisher.send(packets.publish(TOPIC, payload, qos=1, packet_id=packet_id))
    puback = publisher.expect(packets.PUBACK)
    assert (puback.packet_id, puback.code) == (packet_id, 0), f"not taken: {puback}"
    message = subscriber.expect(packets.PUBLISH)
    assert message.topic == TOPIC, f"a message of somebody else came: {message}"
    assert message.payload == payload, f"expected message {number}, got {message}"
    subscriber.send(packets.acknowledge(packets.PUBACK, message.packet_id))


def main() -> int:
    port = int(sys.argv[1])
    number = 0
    try:
        with _connect(port, "honest-out") as publisher, _connect(port, "honest-in") as subscriber:
            subscriber.subscribe(TOPIC, 1)
            while not select.select([sys.stdin], [], [], PAUSE_S)[0]:
                from_ns = time.perf_counter_ns()
                _round_trip(publisher, subscriber, number)
                print((time.perf_counter_ns() - from_ns) // 1000, flush=True)
                number += 1
            subscriber.ping()
            assert not subscriber.unread, f"a message came twice: {subscriber.unread[0]}"
            publisher.goodbye()
            subscriber.goodbye()
    except (AssertionError, Closed, OSError) as error:
        print(f"broken after {number} messages: {error!r}, patience {PATIENCE_S} s", flush=True)
        return 1
    print("kept", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
