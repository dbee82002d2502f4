"""What a client sent before it went counts, however it went."""

import socket
import struct

from tests.support import packets
from tests.support.broker import BrokerProcess
from tests.support.packets import Will
from tests.support.process import eventually
from tests.support.wire import Dial, say


def test_a_goodbye_before_a_reset_is_heard(
    broker: BrokerProcess, dial: Dial, name: str, level: int
) -> None:
    """A client says goodbye and leaves with a reset, while the broker writes to it: its will is
    forgotten all the same. A marker on the same topic shows that nothing came before it."""
    watcher = dial(broker, level)
    watcher.hello(f"{name}-w", clean=True)
    watcher.subscribe(f"{name}/#", 1)
    before = broker.open_files()
    leaving = dial(broker, level)
    leaving.hello(f"{name}-l", clean=True, will=Will(f"{name}/will", b"gone", 1))
    leaving.subscribe(f"{name}/flood", 0)
    # A reset instead of an orderly end, though the broker has bytes for it.
    leaving.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    leaving.send(packets.disconnect(level))
    leaving.cut()
    say(broker.port, f"{name}/flood", b"x", qos=0)
    eventually(lambda: broker.open_files() == before, "the broker closes its side")
    assert [one.topic for one in watcher.until_marker(f"{name}/end")] == [f"{name}/flood"]


def test_a_publisher_faster_than_the_disk_is_slowed_down_and_loses_nothing(
    broker: BrokerProcess, dial: Dial, name: str, level: int
) -> None:
    """It sends 16 MB without waiting for anything: four times what the broker takes uncommitted.
    All of it is acknowledged in order, and waits for the absent subscriber."""
    subscriber = dial(broker, level)
    subscriber.hello(name)
    subscriber.subscribe(f"{name}/t", 1)
    subscriber.goodbye()
    publisher = dial(broker, level)
    publisher.hello(f"{name}-p", clean=True)
    payloads = [bytes([65 + number % 26]) * 64_000 for number in range(250)]
    publisher.publish_all(f"{name}/t", payloads, window=250)
    subscriber = dial(broker, level)
    assert subscriber.hello(name).session_present
    assert [one.payload for one in subscriber.messages(len(payloads))] == payloads
