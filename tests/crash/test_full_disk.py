"""The disk takes no more: nothing is acknowledged that is not on it, and the operator is told."""

import resource

import pytest

from tests.support import packets
from tests.support.broker import NewBroker
from tests.support.wire import Closed, Dial

GROWTH_BYTES = 256 * 1024  # that the store may still grow by
PAYLOAD = b"x" * 1000
EXIT_STORE = 4


@pytest.mark.spec("MQTT311-4.8.0-2")
def test_what_was_acknowledged_before_the_disk_was_full_is_all_there(
    new_broker: NewBroker, dial: Dial, name: str, level: int
) -> None:
    """A subscriber is away, a publisher goes on until the store cannot grow. The broker, told to
    stop when its store fails, does so with the exit code for it and says why. Given room again, it
    delivers everything that it had acknowledged."""
    broker = new_broker(settings={"store_recovery": "stop"})
    subscriber = dial(broker, level)
    subscriber.hello(name)
    subscriber.subscribe(f"{name}/t", 1)
    subscriber.goodbye()
    limit = max(path.stat().st_size for path in broker.data_dir.glob("holdfast.db*"))
    limit += GROWTH_BYTES
    resource.prlimit(broker.process.pid, resource.RLIMIT_FSIZE, (limit, limit))

    publisher = dial(broker, level)
    publisher.hello(f"{name}-p", clean=True)
    acknowledged = 0
    try:
        while acknowledged * len(PAYLOAD) < 100 * GROWTH_BYTES:
            payload = PAYLOAD + str(acknowledged).encode()
            publisher.send(
                packets.publish(
                    f"{name}/t", payload, level, qos=1, packet_id=acknowledged % 999 + 1
                )
            )
            publisher.wait_for(packets.PUBACK)
            acknowledged += 1
    except Closed:
        pass
    assert broker.wait() == EXIT_STORE
    assert acknowledged > 10
    stopped = [line for line in broker.log_lines if "stopped" in line]
    assert len(stopped) == 1
    assert "nothing more was acknowledged" in stopped[0]
    assert str(broker.data_dir) in stopped[0]

    broker.start()
    subscriber = dial(broker, level)
    assert subscriber.hello(name).session_present
    found = [one.payload for one in subscriber.messages(acknowledged)]
    assert found == [PAYLOAD + str(number).encode() for number in range(acknowledged)]
