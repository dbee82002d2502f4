"""The store fails while the broker runs: nothing is promised that is not kept, and it works again.

The disk fails by command (``tests/support/faulty_server.py``), in the real server's own process.
"""

import signal

import pytest

from tests.support import packets
from tests.support.faulty import FaultyBroker, NewFaultyBroker
from tests.support.packets import (
    CONNACK,
    DISCONNECT,
    PUBACK,
    PUBCOMP,
    PUBREC,
    PUBREL,
    V5,
    Will,
    acknowledge,
)
from tests.support.process import eventually
from tests.support.wire import FOREVER_S, Closed, Dial, Wire, absent, contents, numbered, say

REASON_STRING = 0x1F
QUOTA_EXCEEDED = 0x97
IMPLEMENTATION_SPECIFIC_ERROR = 0x83
SERVER_UNAVAILABLE = 0x88
RETURN_CODE_SERVER_UNAVAILABLE = 3
EXIT_STORE = 4
GROWTH_BYTES = 256 * 1024

FAULTS = [
    ("write", "log", "IOERR_WRITE"),
    ("sync", "log", "IOERR_FSYNC"),
    ("write", "log", "FULL"),
    ("write", "log", "READONLY"),
]
FAULT_IDS = ["EIO on write", "EIO on fsync", "disk full", "read-only"]


def connect_code(broker: FaultyBroker, level: int) -> tuple[int, str]:
    """Ask for a persistent session: the code of the CONNACK, and its Reason String."""
    with Wire(broker.port, level) as wire:
        values: packets.Properties = {packets.SESSION_EXPIRY: FOREVER_S} if level == V5 else {}
        wire.send(packets.connect("asks", level, clean=False, values=values))
        try:
            connack = wire.expect(CONNACK)
        except Closed:
            return -1, ""
        return connack.code, str(connack.properties.get(REASON_STRING, [""])[0])


@pytest.mark.spec("MQTT311-4.8.0-2")
@pytest.mark.parametrize(("operation", "file", "code"), FAULTS, ids=FAULT_IDS)
def test_it_goes_on_by_itself_after_one_failure(
    faulty_broker: NewFaultyBroker,
    dial: Dial,
    name: str,
    level: int,
    operation: str,
    file: str,
    code: str,
) -> None:
    """One commit fails, in the middle of exchanges at QoS 1 and 2. Everyone is sent away, comes
    back to the same broker, sends again what was not acknowledged, and every message arrives, that
    of QoS 2 once.
    """
    broker = faulty_broker()
    subscriber = dial(broker, level)
    subscriber.hello(f"{name}-s")
    subscriber.subscribe(name, 2)
    publisher = dial(broker, level)
    publisher.hello(f"{name}-p")
    publisher.publish(name, "before", 2)
    publisher.publish_until_pubrec(name, b"released later", 700)
    assert contents(subscriber.messages(2)) == [b"before", b"released later"]
    broker.fail(operation, file, code, 1)
    sent = [
        packets.publish(name, b"one", level, qos=1, packet_id=701),
        packets.publish(name, b"two", level, qos=2, packet_id=702),
    ]
    publisher.send(*sent)
    last = QUOTA_EXCEEDED if code == "FULL" else IMPLEMENTATION_SPECIFIC_ERROR
    for client in (publisher, subscriber):
        ended = client.until_closed()
        assert [(one.kind, one.code) for one in ended] == (
            [(DISCONNECT, last)] if level == V5 else []
        )
    broker.wait_until_it_works()

    publisher = dial(broker, level)
    assert publisher.hello(f"{name}-p").session_present
    publisher.send(
        acknowledge(PUBREL, 700),
        packets.publish(name, b"one", level, qos=1, packet_id=701, dup=True),
        packets.publish(name, b"two", level, qos=2, packet_id=702, dup=True),
    )
    assert publisher.wait_for(PUBCOMP).packet_id == 700
    assert publisher.wait_for(PUBACK).packet_id == 701
    assert publisher.wait_for(PUBREC).packet_id == 702
    publisher.send(acknowledge(PUBREL, 702))
    assert publisher.wait_for(PUBCOMP).packet_id == 702
    subscriber = dial(broker, level)
    assert subscriber.hello(f"{name}-s").session_present
    found = contents(subscriber.until_marker(name, qos=2))
    # The failed commit may have reached the disk: then the repeat at QoS 1 is a second message.
    assert found.count(b"two") == 1
    assert [*dict.fromkeys(found)] == [b"one", b"two"]
    assert len([line for line in broker.log_lines if "has failed, nothing" in line]) == 1


@pytest.mark.parametrize(("operation", "file", "code"), FAULTS, ids=FAULT_IDS)
def test_while_the_disk_fails_everyone_is_refused(
    faulty_broker: NewFaultyBroker,
    dial: Dial,
    name: str,
    level: int,
    operation: str,
    file: str,
    code: str,
) -> None:
    """The disk fails for good, then it is mended: until then every CONNECT is refused with the
    code for it, and the log says once what has failed, and once that it works again.
    """
    broker = faulty_broker()
    absent(broker.port, f"{name}-a", name, 1, level)
    say(broker.port, name, *numbered(5), level=level)
    publisher = dial(broker, level)
    publisher.hello(f"{name}-p")
    broker.fail(operation, file, code)
    publisher.send(packets.publish(name, b"6", level, qos=1, packet_id=6))
    assert PUBACK not in [one.kind for one in publisher.until_closed()]
    line = broker.wait_until_failed()
    assert str(broker.data_dir / "holdfast.db") in line
    for _ in range(3):
        refused, reason = connect_code(broker, level)
        assert refused == (SERVER_UNAVAILABLE if level == V5 else RETURN_CODE_SERVER_UNAVAILABLE)
        assert "store" in reason or level != V5
    broker.heal()
    broker.wait_until_it_works()
    assert connect_code(broker, level)[0] == 0
    back = dial(broker, level)
    assert back.hello(f"{name}-a").session_present
    found = contents(back.until_marker(name))
    assert found[:5] == numbered(5)
    assert found[5:] in ([], [b"6"])
    assert len([line for line in broker.log_lines if "has failed, nothing" in line]) == 1


@pytest.mark.parametrize(("operation", "file", "code"), FAULTS, ids=FAULT_IDS)
@pytest.mark.parametrize("end", ["kill -9", "SIGTERM"])
def test_what_was_acknowledged_is_there_when_the_process_ends_instead(
    faulty_broker: NewFaultyBroker,
    dial: Dial,
    name: str,
    operation: str,
    file: str,
    code: str,
    end: str,
) -> None:
    """The process ends while its store does not work. A new one on the folder has everything."""
    broker = faulty_broker()
    absent(broker.port, f"{name}-a", name, 1)
    publisher = dial(broker, V5)
    publisher.hello(f"{name}-p")
    publisher.publish_all(name, numbered(20), 2)
    publisher.publish_all(name, numbered(20, 21), 1)
    broker.fail(operation, file, code)
    publisher.send(packets.publish(name, b"41", V5, qos=1, packet_id=41))
    assert PUBACK not in [one.kind for one in publisher.until_closed()]
    broker.wait_until_failed()
    if end == "SIGTERM":
        assert broker.terminate() == 0
    else:
        broker.kill9()
    broker.start()
    back = dial(broker, V5)
    assert back.hello(f"{name}-a").session_present
    found = contents(back.until_marker(name))
    assert found[:40] == numbered(40)
    assert found[40:] in ([], [b"41"])


@pytest.mark.spec("MQTT311-4.8.0-2")
def test_a_full_disk_is_waited_for(
    faulty_broker: NewFaultyBroker, dial: Dial, name: str, level: int
) -> None:
    """A subscriber is away, a publisher goes on until the store cannot grow. When there is room
    again, the broker works on without a restart, and has everything that it had acknowledged.
    """
    broker = faulty_broker()
    absent(broker.port, f"{name}-a", name, 1, level)
    broker.quota(GROWTH_BYTES)
    payload = b"x" * 1000
    acknowledged = 0
    codes: list[int] = []
    # It works again for as long as there is room within the file: several times it may fail.
    while not codes or connect_code(broker, level)[0] == 0:
        publisher = dial(broker, level)
        publisher.send(packets.connect(f"{name}-p", level))
        try:
            while (answer := publisher.receive()).kind in (CONNACK, PUBACK) and answer.code == 0:
                acknowledged += answer.kind == PUBACK
                data = payload + b"%d" % acknowledged
                publisher.send(packets.publish(name, data, level, qos=1, packet_id=1))
                assert acknowledged < 100 * GROWTH_BYTES // len(payload)
            codes.append(answer.code)
        except Closed:
            codes.append(-1)
    assert acknowledged > 10
    if level == V5:
        assert QUOTA_EXCEEDED in codes
        assert set(codes) <= {QUOTA_EXCEEDED, SERVER_UNAVAILABLE}
    broker.heal()
    eventually(lambda: connect_code(broker, level)[0] == 0, "the broker takes clients")
    back = dial(broker, level)
    assert back.hello(f"{name}-a").session_present
    found = [one.removeprefix(payload) for one in contents(back.until_marker(name))]
    # At the end of each connection one may be there that was not acknowledged, and came again.
    assert [*dict.fromkeys(found)][:acknowledged] == [b"%d" % n for n in range(acknowledged)]
    assert broker.is_running


def test_a_will_is_published_when_the_store_works_again(
    faulty_broker: NewFaultyBroker, dial: Dial, name: str, level: int
) -> None:
    """Whoever is sent away because of the store was cut off: its will is published, once."""
    broker = faulty_broker()
    absent(broker.port, f"{name}-a", f"{name}/#", 2, level)
    client = dial(broker, level)
    client.hello(f"{name}-c", will=Will(f"{name}/will", b"gone", qos=2))
    broker.fail("sync", "log", "IOERR_FSYNC", 1)
    client.send(packets.publish(f"{name}/t", b"1", level, qos=2, packet_id=1))
    client.until_closed()
    broker.wait_until_it_works()
    back = dial(broker, level)
    assert back.hello(f"{name}-a").session_present
    found = contents(back.until_marker(f"{name}/t", qos=2))
    assert found.count(b"gone") == 1


def test_with_stop_it_ends_with_the_exit_code_for_the_store(
    faulty_broker: NewFaultyBroker, dial: Dial, name: str
) -> None:
    broker = faulty_broker({"store_recovery": "stop"})
    client = dial(broker, V5)
    client.hello(name)
    client.subscribe(name, 1)
    broker.fail("write", "log", "FULL")
    client.send(packets.publish(name, b"1", V5, qos=1, packet_id=1))
    assert [(one.kind, one.code) for one in client.until_closed()] == [(DISCONNECT, QUOTA_EXCEEDED)]
    assert broker.wait() == EXIT_STORE
    (line,) = [line for line in broker.log_lines if "stopped" in line]
    assert "nothing more was acknowledged" in line
    assert str(broker.data_dir) in line


def test_a_last_commit_that_fails_is_told(
    faulty_broker: NewFaultyBroker, dial: Dial, name: str
) -> None:
    """It stops while the disk fails: what follows from the end of the connections is not stored."""
    broker = faulty_broker()
    client = dial(broker, V5)
    client.hello(name)
    broker.fail("sync", "log", "IOERR_FSYNC")
    assert broker.terminate(signal.SIGTERM) == EXIT_STORE
    broker.start()
    assert dial(broker, V5).hello(name).session_present


def test_another_file_in_the_place_of_the_store_is_not_taken_for_it(
    faulty_broker: NewFaultyBroker, dial: Dial, name: str
) -> None:
    """The disk goes from its mount point, and an empty folder is left: a new store there would
    make all sessions vanish. The broker waits for its own file.
    """
    broker = faulty_broker()
    absent(broker.port, f"{name}-a", name, 1)
    say(broker.port, name, "kept")
    client = dial(broker, V5)
    client.hello(name)
    broker.fail("write", "log", "IOERR_WRITE")
    client.send(packets.publish(name, b"lost", V5, qos=1, packet_id=1))
    client.until_closed()
    broker.wait_until_failed()
    aside = broker.data_dir.parent / "aside"
    aside.mkdir()
    moved = [path.rename(aside / path.name) for path in broker.data_dir.glob("holdfast.db*")]
    broker.heal()
    broker.process.wait_line("cannot find the store")
    assert connect_code(broker, V5)[0] == SERVER_UNAVAILABLE
    other = broker.data_dir / "holdfast.db"
    other.write_bytes((aside / "holdfast.db").read_bytes())
    broker.process.wait_line("is another file")
    assert connect_code(broker, V5)[0] == SERVER_UNAVAILABLE
    for path in broker.data_dir.glob("holdfast.db*"):
        path.unlink()
    for path in sorted(moved, reverse=True):
        path.rename(broker.data_dir / path.name)
    broker.wait_until_it_works()
    back = dial(broker, V5)
    assert back.hello(f"{name}-a").session_present
    assert contents(back.until_marker(name))[0] == b"kept"


def test_a_read_that_fails_is_recovered_from(
    faulty_broker: NewFaultyBroker, dial: Dial, name: str, level: int
) -> None:
    """Messages that a session comes back for cannot be read. The next time they can be."""
    broker = faulty_broker()
    absent(broker.port, name, name, 1, level)
    sent = [b"x" * 1000 + number for number in numbered(3000)]
    say(broker.port, name, *sent, level=level)
    broker.restart()  # nothing is in memory
    broker.fail("read", "any", "IOERR_READ", 1)
    back = dial(broker, level)
    values: packets.Properties = {packets.SESSION_EXPIRY: FOREVER_S} if level == V5 else {}
    back.send(packets.connect(name, level, clean=False, values=values))
    last = [one for one in back.until_closed() if one.kind == DISCONNECT]
    assert [one.code for one in last] in ([], [IMPLEMENTATION_SPECIFIC_ERROR])
    broker.wait_until_it_works()
    back = dial(broker, level)
    assert back.hello(name).session_present
    assert [*dict.fromkeys(contents(back.until_marker(name)))] == sent
