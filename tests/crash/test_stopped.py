"""A process is stopped for longer than a keep alive (SIGSTOP, a suspended machine), and goes on."""

import signal

import pytest

from tests.support import packets
from tests.support.broker import NewBroker
from tests.support.packets import CONNACK, PINGRESP, PUBACK, PUBLISH, V5, Will
from tests.support.wire import FOREVER_S, Dial, Wire, absent, contents, numbered, say

KEEP_ALIVE_S = 1
PATIENCE_S = 2.5  # of a client that waits for an answer: more than 1.5 times its keep alive


def gives_up(client: Wire) -> None:
    """The client asks whether the server is there, and gets no answer for as long as it waits."""
    client.send(packets.pingreq())
    with pytest.raises(TimeoutError):
        client.receive(PATIENCE_S)


def test_a_broker_that_was_stopped_does_not_blame_its_clients(
    new_broker: NewBroker, dial: Dial, name: str, level: int
) -> None:
    """The broker is stopped for longer than the keep alive of its clients. One waits, with packets
    on their way: they are taken, it is not cut off, its will is not published. One gives up and
    connects anew: its session goes on. All that was published meanwhile arrives.
    """
    broker = new_broker()
    watcher = dial(broker, level)
    watcher.hello(f"{name}-w")
    watcher.subscribe(f"{name}/#", 1)
    patient = dial(broker, level)
    patient.hello(f"{name}-p", keep_alive_s=KEEP_ALIVE_S, will=Will(f"{name}/will", b"gone"))
    restless = dial(broker, level)
    restless.hello(f"{name}-r")
    restless.subscribe(f"{name}/t", 2)
    broker.process.send_signal(signal.SIGSTOP)

    patient.send(packets.publish(f"{name}/t", b"1", level, qos=1, packet_id=1))
    gives_up(patient)
    restless.cut()
    again = dial(broker, level)
    values: packets.Properties = {packets.SESSION_EXPIRY: FOREVER_S} if level == V5 else {}
    again.send(packets.connect(f"{name}-r", level, clean=False, values=values))
    broker.process.send_signal(signal.SIGCONT)

    assert patient.wait_for(PUBACK).packet_id == 1
    patient.wait_for(PINGRESP)
    assert again.expect(CONNACK).session_present
    assert contents(again.messages(1)) == [b"1"]
    assert contents(watcher.until_marker(f"{name}/t")) == [b"1"]
    assert again.expect(PUBLISH).payload.startswith(b"marker")
    patient.ping()


@pytest.mark.spec("MQTT5-3.1.2-22")
@pytest.mark.spec("MQTT311-3.1.2-24")
def test_a_client_that_was_stopped_is_cut_off_and_finds_everything(
    new_broker: NewBroker, dial: Dial, name: str, level: int
) -> None:
    """A stopped client is one that is silent while its socket stays open. Its will is published
    after 1.5 times its keep alive. When it goes on, it finds its connection closed, connects anew,
    and gets what was published since.
    """
    broker = new_broker()
    absent(broker.port, f"{name}-w", f"{name}/will", 1, level)
    client = dial(broker, level)
    client.hello(name, keep_alive_s=KEEP_ALIVE_S, will=Will(f"{name}/will", b"gone", qos=1))
    client.subscribe(f"{name}/t", 1)
    say(broker.port, f"{name}/t", *numbered(5), level=level)
    watcher = dial(broker, level)
    watcher.hello(f"{name}-w")
    assert contents(watcher.messages(1)) == [b"gone"]
    say(broker.port, f"{name}/t", *numbered(5, 6), level=level)

    assert contents(one for one in client.until_closed() if one.kind == PUBLISH) == numbered(5)
    client = dial(broker, level)
    assert client.hello(name).session_present
    assert contents(client.messages(10)) == numbered(10)
    client.nothing_but(f"{name}/t")
    watcher.nothing_but(f"{name}/will")
