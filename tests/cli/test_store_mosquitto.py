"""`holdfast store import` of a `mosquitto.db` that a real Mosquitto has written."""

import json
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Final

import pytest

from holdfast.errors import StoreError
from holdfast.store.mosquitto_db import read_mosquitto
from tests.support import packets
from tests.support.broker import NewBroker
from tests.support.command import assert_one_line, holdfast
from tests.support.packets import Properties
from tests.support.process import Process, eventually, required
from tests.support.wire import Dial, Wire, absent, contents, say

BINARY: Final = b"\xff\x00\xfe"
PROPERTIES: Final[Properties] = {
    0x01: 0,  # Payload Format Indicator
    0x02: 1_000_000,  # Message Expiry Interval
    0x03: "text/plain",
    0x08: "answers/é",
    0x09: b"\x00\xff",  # Correlation Data
    packets.USER_PROPERTY: ("name", "value"),
}
CONFIG: Final = """
listener {port} 127.0.0.1
allow_anonymous true
persistence true
persistence_location {folder}/
autosave_interval 0
queue_qos0_messages true
log_dest stderr
user root
"""


@contextmanager
def mosquitto(folder: Path) -> Iterator[tuple[int, Process]]:
    """A Mosquitto that writes its database to the folder when the context ends; its port."""
    folder.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    (folder / "conf").write_text(CONFIG.format(port=port, folder=folder))
    process = Process([required("mosquitto", "mosquitto"), "-c", str(folder / "conf")])
    try:
        process.wait_line(r"mosquitto version .* running")
        yield port, process
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 0, process.lines
    finally:
        if process.is_running:
            process.kill9()


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `mosquitto.db` with one of everything."""
    folder = tmp_path_factory.mktemp("mosquitto") / "m"
    with mosquitto(folder) as (port, _), Wire(port) as five, Wire(port) as meter:
        absent(port, "three", "all/+", 1, packets.V311)
        absent(port, "worker", "$share/g/jobs/#", 1)
        five.hello("five")
        five.send(packets.subscribe(1, [("all/#", 2 | 8)], values={packets.SUBSCRIPTION_ID: 77}))
        five.wait_for(packets.SUBACK)
        five.send(packets.subscribe(2, [("more/#", 1)], values={packets.SUBSCRIPTION_ID: 78}))
        five.wait_for(packets.SUBACK)
        say(port, "all/1", b"sent at 1")
        say(port, "all/2", b"sent at 2", b"received at 2", qos=2)
        sent = [five.wait_for(packets.PUBLISH) for _ in range(3)]
        five.send(packets.acknowledge(packets.PUBREC, sent[2].packet_id))
        five.wait_for(packets.PUBREL)
        five.cut()
        say(port, "all/3", b"at 0", qos=0)
        meter.hello("meter")
        meter.send(packets.publish("all/4", BINARY, qos=2, packet_id=1, values=PROPERTIES))
        meter.wait_for(packets.PUBREC)
        meter.send(packets.acknowledge(packets.PUBREL, 1))
        meter.wait_for(packets.PUBCOMP)
        say(port, "more/1", b"more")
        say(port, "all/5", b"kept and queued", retain=True)
        kept = packets.publish("kept/a", b"r", qos=1, packet_id=2, retain=True, values=PROPERTIES)
        meter.send(kept)
        meter.wait_for(packets.PUBACK)
        say(port, "kept/b", BINARY, retain=True, qos=0)
        meter.publish_until_pubrec("all/6", b"held", 9)
        say(port, "jobs/1", b"job")
    return folder / "mosquitto.db"


def imported(database: Path, folder: Path) -> dict[str, int]:
    done = holdfast("store", "import", str(database), "data", "--json", folder=folder)
    assert done.returncode == 0, done.stderr
    counts: dict[str, int] = json.loads(done.stdout)["counts"]
    return counts


def test_everything_that_waits_in_mosquitto_comes_over(
    database: Path, new_broker: NewBroker, dial: Dial, tmp_path: Path
) -> None:
    assert imported(database, tmp_path) == {
        "session": 4,
        "subscription": 3,  # Mosquitto 2.0.11 does not write shared ones
        "group": 0,
        "retained": 3,
        "queued": 9,
        "in_flight": 3,
        "received": 1,
    }
    assert holdfast("store", "check", folder=tmp_path).returncode == 0
    broker = new_broker()

    five = dial(broker, packets.V5)
    assert five.hello("five").session_present
    released = five.wait_for(packets.PUBREL)
    five.send(packets.acknowledge(packets.PUBCOMP, released.packet_id))
    found = five.messages(6)
    assert [(one.payload, one.qos, one.dup, one.retain) for one in found] == [
        (b"sent at 1", 1, True, False),
        (b"sent at 2", 2, True, False),
        (BINARY, 2, False, False),
        (b"more", 1, False, False),
        (b"kept and queued", 1, False, True),  # it asked for Retain As Published
        (b"held", 2, False, False),
    ]
    assert [one.number(packets.SUBSCRIPTION_ID, 0) for one in found] == [77] * 3 + [78, 77, 77]
    values = found[2].properties
    wanted = {key: [value] for key, value in PROPERTIES.items() if key != 0x02}
    assert {key: values[key] for key in wanted} == wanted
    assert 900_000 < found[2].number(0x02, 0) <= 1_000_000
    five.nothing_but("all/9")

    three = dial(broker, packets.V311)
    assert three.hello("three").session_present
    found = three.messages(7)
    assert contents(found) == [
        b"sent at 1",
        b"sent at 2",
        b"received at 2",
        BINARY,
        b"kept and queued",
        b"held",
        found[6].payload,  # the marker above
    ]
    assert {one.retain for one in found} == {False}
    assert [one.qos for one in found] == [1] * 7

    worker = dial(broker, packets.V5)
    assert worker.hello("worker").session_present
    assert contents(worker.messages(1)) == [b"job"]


def test_what_is_left_out_is_told(database: Path, tmp_path: Path) -> None:
    done = holdfast("store", "import", str(database), "data", folder=tmp_path)
    note = "holdfast: 2 queued messages of QoS 0 were left out: Holdfast keeps none for absent"
    assert done.stderr.startswith(note)
    assert "4 session, 3 subscription" in done.stdout


def test_a_shared_subscription_has_its_group(
    database: Path, new_broker: NewBroker, dial: Dial, tmp_path: Path
) -> None:
    """Newer versions of Mosquitto write shared subscriptions: here is one behind the others."""
    names = b"worker$share/g/jobs/#"
    content = struct.pack(">IHHBBxx", 0, 6, len(names) - 6, 1, 0) + names
    extended = tmp_path / "m.db"
    extended.write_bytes(database.read_bytes() + struct.pack(">II", 5, len(content)) + content)
    assert imported(extended, tmp_path)["group"] == 1
    broker = new_broker()
    say(broker.port, "jobs/2", b"next")
    worker = dial(broker, packets.V5)
    assert worker.hello("worker").session_present
    assert sorted(contents(worker.messages(2))) == [b"job", b"next"]


def test_a_publisher_goes_on_with_what_it_had_in_flight(
    database: Path, new_broker: NewBroker, dial: Dial, tmp_path: Path
) -> None:
    imported(database, tmp_path)
    broker = new_broker()
    meter = dial(broker, packets.V5)
    assert meter.hello("meter").session_present
    meter.publish_until_pubrec("all/6", b"held", 9)
    meter.send(packets.acknowledge(packets.PUBREL, 9))
    assert meter.wait_for(packets.PUBCOMP).code == 0
    five = dial(broker, packets.V5)
    five.hello("five")
    assert contents(five.until_marker("all/9")).count(b"held") == 1


def test_retained_messages_come_over(
    database: Path, new_broker: NewBroker, dial: Dial, tmp_path: Path
) -> None:
    imported(database, tmp_path)
    reader = dial(new_broker(), packets.V5)
    reader.hello("reader", clean=True)
    reader.subscribe("#", 1)
    found = {one.topic: one for one in reader.messages(3)}
    assert {topic: one.payload for topic, one in found.items()} == {
        "kept/a": b"r",
        "kept/b": BINARY,
        "all/5": b"kept and queued",
    }
    assert all(one.retain for one in found.values())
    values = found["kept/a"].properties
    wanted = {key: [value] for key, value in PROPERTIES.items() if key != 0x02}
    assert {key: values[key] for key in wanted} == wanted


def test_what_mosquitto_writes_while_it_runs_is_read_too(
    new_broker: NewBroker, dial: Dial, tmp_path: Path
) -> None:
    database = tmp_path / "m" / "mosquitto.db"
    with mosquitto(tmp_path / "m") as (port, process):
        absent(port, "three", "a", 1, packets.V311)
        say(port, "a", b"1")
        process.send_signal(signal.SIGUSR1)
        eventually(database.exists, "mosquitto.db is there")
        assert imported(database, tmp_path)["queued"] == 1
    three = dial(new_broker(), packets.V311)
    assert three.hello("three").session_present
    assert contents(three.messages(1)) == [b"1"]


def error_of(data: bytes) -> str | None:
    """What reading says against these bytes; any other exception fails the test."""
    try:
        read_mosquitto("m", data)
    except StoreError as error:
        return str(error)
    return None


def test_a_mosquitto_db_that_is_cut_anywhere_is_refused(database: Path) -> None:
    data = database.read_bytes()
    errors = [error_of(data[:size]) for size in range(15, len(data))]
    assert errors.count(None) < 40  # the places between two chunks
    assert all("short" in text or "is no client" in text for text in errors if text)


def test_a_damaged_mosquitto_db_is_an_error_or_is_read(database: Path) -> None:
    """Bytes that changed never do anything else: no other exception, no endless loop."""
    data = database.read_bytes()
    random = Random(1)
    errors = 0
    for _ in range(3000):
        damaged = bytearray(data)
        for _ in range(random.randint(1, 3)):
            damaged[random.randrange(15, len(data))] = random.choice((0, 1, 127, 128, 255))
        errors += error_of(bytes(damaged)) is not None
    assert 0 < errors < 3000


@pytest.mark.parametrize(
    ("change", "code", "pattern"),
    [
        (lambda data: data[:200], 5, r"m\.db: at byte \d+: expected \d+ bytes of a"),
        (lambda data: data[:20], 5, r"m\.db: expected the head of a mosquitto\.db"),
        (
            lambda data: data[:19] + b"\0\0\0\x04" + data[23:],
            4,
            r"expected version 5 or 6 of mosquitto\.db \(Mosquitto 1\.6 to 2\.x\), found 4",
        ),
        (lambda data: data + b"\0\0\0\x09\0\0\0\0", 5, r"of a type from 1 to 6, found 9"),
    ],
)
def test_a_bad_mosquitto_db_is_one_line_and_leaves_nothing(
    database: Path, tmp_path: Path, change: Callable[[bytes], bytes], code: int, pattern: str
) -> None:
    (tmp_path / "m.db").write_bytes(change(database.read_bytes()))
    done = holdfast("store", "import", "m.db", "data", folder=tmp_path)
    assert_one_line(done, code, pattern)
    assert not (tmp_path / "data").exists()
