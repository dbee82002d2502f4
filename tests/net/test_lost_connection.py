"""What a client sent before it went counts, however it went."""

import socket
import struct

import pytest

from holdfast.net import connection
from tests.support import packets
from tests.support.broker import BrokerProcess
from tests.support.local import Anyone, LocalServer
from tests.support.packets import Will
from tests.support.process import eventually
from tests.support.wire import Dial, Wire, say


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


def test_who_takes_no_data_is_not_kept_for_ever(
    level: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It publishes to itself, reads nothing, and has no keep alive that would end it. Since it is
    not read itself any more while its socket is full, even that it closes would not be noticed.
    """
    monkeypatch.setattr(connection, "UNREAD_TIMEOUT_S", 0.2)
    with LocalServer(Anyone()) as server, Wire(server.port, level) as wire:
        wire.hello("deaf", clean=True)
        wire.subscribe("t", 0)
        message = packets.publish("t", bytes(100_000), level)
        try:
            while True:
                wire.send(message)
        except ConnectionError:
            pass
        with Wire(server.port, level) as other:
            other.hello("other", clean=True)
    assert [line for line in caplog.messages if "took no data" in line] == [
        "closed: the client took no data for 0.2 s"
    ]
