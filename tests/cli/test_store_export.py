"""`holdfast store export` and `import`: the same bytes again, and the same to clients."""

import json
from io import BytesIO
from pathlib import Path
from typing import Final

import pytest

from holdfast.errors import StoreCorrupt
from holdfast.store.reading import StoreView
from holdfast.store.transfer import export_store, import_store
from tests.support import packets
from tests.support.broker import NewBroker
from tests.support.command import assert_one_line, holdfast
from tests.support.packets import Properties, Will
from tests.support.wire import Dial, Wire, absent, contents, say

BINARY: Final = b"\xff\x00\xfe"
PROPERTIES: Final[Properties] = {
    0x01: 1,  # Payload Format Indicator
    0x02: 4_000_000_000,  # Message Expiry Interval
    0x03: "text/plain",
    0x08: "answers/é",
    0x09: b"\x00\xff",  # Correlation Data
    packets.USER_PROPERTY: ("name", "\U0010ffff"),
}


def export(folder: Path, name: str, data_dir: str) -> list[dict[str, object]]:
    """Export a store to a file; the objects on its lines."""
    done = holdfast("store", "export", data_dir, "-o", name, "--json", folder=folder)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["file"] == name
    return [json.loads(line) for line in (folder / name).read_bytes().splitlines()]


def fill(new_broker: NewBroker) -> None:
    """Leave one of everything behind, and the broker killed."""
    broker = new_broker("a")
    port = broker.port
    with Wire(port) as wire:  # 5.0: identifier, options, a message in flight at each stage
        wire.hello("five")
        wire.send(packets.subscribe(1, [("all/#", 2 | 8)], values={packets.SUBSCRIPTION_ID: 77}))
        wire.wait_for(packets.SUBACK)
        say(port, "all/1", b"one")
        say(port, "all/2", b"two", BINARY, b"four", qos=2)
        held = [wire.wait_for(packets.PUBLISH) for _ in range(4)]
        wire.send(packets.acknowledge(packets.PUBREC, held[3].packet_id))
        wire.wait_for(packets.PUBREL)
        wire.ping()
    dying = Wire(port)
    dying.hello("dying", will=Will("wills/dead", b"late", 1, delay_s=100_000))
    absent(port, "three", "all/+", 1, packets.V311)
    absent(port, "gone", "all/#", 1)
    with Wire(port) as wire:
        wire.hello("gone")
        wire.unsubscribe("all/#")
    with Wire(port) as wire:
        wire.hello("meter")
        wire.publish_until_pubrec("all/3", b"held", 9)
        wire.send(
            packets.publish("kept/a", b"r", qos=1, packet_id=1, retain=True, values=PROPERTIES)
        )
        wire.wait_for(packets.PUBACK)
    say(port, "kept/b", BINARY, retain=True)
    say(port, "kept/c", b"cleared", retain=True)
    say(port, "kept/c", b"", retain=True)
    with Wire(port) as wire:  # leaves retained messages queued for it alone
        wire.hello("late", values={packets.RECEIVE_MAXIMUM: 1})
        wire.send(packets.subscribe(1, [("kept/#", 1)], packets.V5))
        wire.wait_for(packets.PUBLISH)
    absent(port, "worker", "$share/g/jobs/#", 1)
    say(port, "jobs/1", b"j1", b"j2")
    say(port, "$delayed/100000/later", b"delayed")
    say(port, "nobody/wants", b"this")
    broker.kill9()
    dying.cut()


def test_export_import_export_gives_the_same_bytes(new_broker: NewBroker, tmp_path: Path) -> None:
    fill(new_broker)
    found = export(tmp_path, "a.jsonl", "a")
    kinds = {str(line["type"]) for line in found}
    assert kinds >= {"session", "subscription", "group", "retained", "delayed", "message", "end"}
    assert "nobody/wants" not in (tmp_path / "a.jsonl").read_text()
    done = holdfast("store", "import", "a.jsonl", "b", "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["counts"]["delayed"] == 1
    export(tmp_path, "b.jsonl", "b")
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    # Through standard output and input it is the same.
    done = holdfast("store", "export", "b", folder=tmp_path)
    assert done.stdout.encode() == (tmp_path / "a.jsonl").read_bytes()
    assert holdfast("store", "check", "b", folder=tmp_path).returncode == 0
    assert sorted(path.name for path in (tmp_path / "b").iterdir())[:2] == [
        "holdfast.db",
        "holdfast.db-shm",
    ]


def test_an_imported_store_behaves_the_same_to_clients(
    new_broker: NewBroker, dial: Dial, tmp_path: Path
) -> None:
    fill(new_broker)
    export(tmp_path, "a.jsonl", "a")
    assert holdfast("store", "import", "a.jsonl", "b", folder=tmp_path).returncode == 0
    broker = new_broker("b")
    five = dial(broker, packets.V5)
    assert five.hello("five").session_present
    released = five.wait_for(packets.PUBREL)
    again = [five.wait_for(packets.PUBLISH) for _ in range(3)]
    assert [(one.payload, one.qos, one.dup) for one in again] == [
        (b"one", 1, True),
        (b"two", 2, True),
        (BINARY, 2, True),
    ]
    assert {one.number(packets.SUBSCRIPTION_ID, 0) for one in again} == {77}
    five.send(packets.acknowledge(packets.PUBCOMP, released.packet_id))
    for message in again:
        five.finish(message)
    assert contents(five.until_marker("all/9")) == [b"held"]
    three = dial(broker, packets.V311)
    assert three.hello("three").session_present
    found = contents(three.until_marker("all/9"))
    assert found[0] == b"held"
    meter = dial(broker, packets.V5)
    meter.hello("meter")
    meter.publish_until_pubrec("all/3", b"held", 9)  # a repeat
    meter.send(packets.acknowledge(packets.PUBREL, 9))
    meter.wait_for(packets.PUBCOMP)
    assert b"held" not in contents(three.until_marker("all/9"))
    late = dial(broker, packets.V5)
    late.hello("late")
    first, second = sorted(late.messages(2), key=lambda one: one.topic)
    assert (first.payload, first.retain, second.payload) == (b"r", True, BINARY)
    expiry = first.number(0x02, 0)
    assert 3_999_999_000 < expiry <= 4_000_000_000
    wanted = {key: [value] for key, value in PROPERTIES.items() if key != 0x02}
    assert {key: first.properties[key] for key in wanted} == wanted
    worker = dial(broker, packets.V5)
    worker.hello("worker")
    assert contents(worker.messages(2)) == [b"j1", b"j2"]
    reader = dial(broker, packets.V5)
    reader.hello("reader", clean=True)
    reader.subscribe("kept/#", 1)
    assert sorted(contents(reader.messages(2))) == [b"r", BINARY]


def test_import_refuses_a_store_that_is_used_and_a_running_broker(
    new_broker: NewBroker, tmp_path: Path
) -> None:
    fill(new_broker)
    export(tmp_path, "a.jsonl", "a")
    done = holdfast("store", "import", "a.jsonl", "a", folder=tmp_path)
    assert_one_line(done, 4, r"a/holdfast\.db exists: expected a data folder without a store")
    new_broker("b")
    done = holdfast("store", "import", "a.jsonl", "b", folder=tmp_path)
    assert_one_line(done, 4, r"b is in use by another broker")


def test_export_replaces_nothing_unless_told_to(new_broker: NewBroker, tmp_path: Path) -> None:
    new_broker("a").terminate()
    (tmp_path / "x").write_text("precious")
    done = holdfast("store", "export", "a", "-o", "x", folder=tmp_path)
    assert_one_line(done, 4, r"x exists: expected a new name, or --force")
    assert (tmp_path / "x").read_text() == "precious"
    assert holdfast("store", "export", "a", "-o", "x", "--force", folder=tmp_path).returncode == 0
    assert json.loads((tmp_path / "x").read_text().splitlines()[0])["version"] == 1


HEADER: Final = '{"type":"holdfast-export","version":1,"next_lsn":9,"next_number":4}'
SESSION: Final = (
    '{"type":"session","number":1,"client_id":"a","protocol_level":5,"epoch":1,"expiry_s":60,'
    '"disconnected_at_ms":1,"will_delay_s":0,"will_due_ms":0,"cursor":9,"in_flight":[],'
    '"received":[]}'
)
MESSAGE: Final = (
    '{"type":"message","lsn":3,"message":{"topic":"a","payload":"b","qos":1,"retain":false}}'
)


def lines(*middle: str) -> str:
    return "".join(f"{line}\n" for line in (HEADER, *middle)) + (
        f'{{"type":"end","lines":{len(middle) + 2}}}\n'
    )


def test_an_export_of_the_least_is_taken(tmp_path: Path) -> None:
    (tmp_path / "x").write_text(lines(SESSION, MESSAGE))
    done = holdfast("store", "import", "x", "d", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 session, 1 message" in done.stdout


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("", r"x: expected an export of Holdfast or a mosquitto\.db, found neither"),
        ("hello\n" * 9, r"expected an export of Holdfast"),
        ('{"type":"other"}\n' * 9, r"expected an export of Holdfast"),
        ("\0" * 9000, r"expected an export of Holdfast"),
        (lines(SESSION)[:-20], r"line 3: .*cut short"),
        (f"{HEADER}\n{SESSION}\n", r"line 3: .*cut short"),
        (lines(SESSION) + "x", r"nothing behind the line of the end"),
        (lines(SESSION).replace('"lines":3', '"lines":4'), r"line 3: lines: expected 3"),
        (lines("[]"), r"line 2: expected a JSON object"),
        (lines("[" * 100_000), r"line 2: expected a JSON object"),
        (lines('{"type":"photo"}'), r"line 2: the type 'photo' is unknown"),
        (lines(SESSION, SESSION), r"line 3: number: expected each number once"),
        (lines(SESSION.replace('"number":1', '"number":4')), r"number: expected .* below 4"),
        (lines(SESSION.replace('"number":1', '"number":true')), r"number: expected a whole"),
        (lines(SESSION.replace('"epoch":1,', "")), r"line 2: epoch is missing"),
        (lines(SESSION.replace('"epoch":1', '"epoch":1,"x":1')), r"line 2: 'x' is no field"),
        (lines(SESSION.replace('"a"', '"\\ud800"')), r"client_id: expected a string"),
        (
            lines(SESSION.replace("[]", '[{"packet_id":1,"stage":"qos_1","lsn":10}]', 1)),
            r"nothing was imported: states 1: a message is in flight whose lsn is 10",
        ),
        (
            lines(SESSION.replace("[]", '[{"packet_id":0,"stage":"qos_1","lsn":1}]', 1)),
            r"line 2: in_flight: packet_id: expected a whole number from 1",
        ),
        (lines(SESSION.replace('"cursor":9', '"cursor":10')), r"expected a cursor up to 9"),
        (lines(MESSAGE, MESSAGE), r"line 3: lsn: expected ascending numbers below 9"),
        (lines(MESSAGE.replace('"lsn":3', '"lsn":9')), r"line 2: lsn: expected ascending"),
        (lines(MESSAGE.replace('"topic":"a"', '"topic":"a/#"')), r"message: topic: expected a"),
        (lines(MESSAGE.replace('"payload"', '"payload_base64"')), r"payload: expected text"),
        (
            lines(MESSAGE.replace('"lsn":3', '"lsn":3,"target":7')),
            r"it is for session 7 alone, which does not exist",
        ),
        (
            lines(MESSAGE.replace("false", 'false,"properties":{"payload_format_indicator":2}')),
            r"properties: expected what MQTT allows",
        ),
    ],
)
def test_a_bad_export_is_one_line_and_leaves_nothing(
    tmp_path: Path, text: str, pattern: str
) -> None:
    source = BytesIO(text.encode())
    with pytest.raises(StoreCorrupt, match=pattern) as raised:
        import_store(Path("x"), source, tmp_path / "d")
    assert "\n" not in str(raised.value)
    left = [path.name for path in (tmp_path / "d").iterdir()] if (tmp_path / "d").exists() else []
    assert [name for name in left if name != "holdfast.lock"] == []


def test_a_bad_export_has_a_code_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "x").write_text(lines(SESSION, SESSION))
    done = holdfast("store", "import", "x", "d", folder=tmp_path)
    assert_one_line(done, 5, r"^holdfast: x: line 3: number: expected each number once")


def test_gaps_losses_and_time_marks_go_over(tmp_path: Path) -> None:
    gaps = '"gaps":[{"from_lsn":2,"until_lsn":4},{"from_lsn":8}]'
    subscription = (
        '{"type":"subscription","session":1,"topic_filter":"a","qos":1,"no_local":false,'
        '"retain_as_published":false,"retain_handling":0,"from_lsn":1}'
    )
    middle = [
        SESSION.replace('"cursor":9', '"cursor":1')[:-1] + f",{gaps}}}",
        subscription,
        '{"type":"loss","owner":1,"messages":3,"bytes":30,"at_ms":5,"reason":1}',
        '{"type":"time_mark","lsn":1,"at_ms":5}',
        MESSAGE.replace('"lsn":3', '"lsn":1'),
        MESSAGE,  # in a gap: nobody is given it
        MESSAGE.replace('"lsn":3', '"lsn":4'),
    ]
    import_store(Path("x"), BytesIO(lines(*middle).encode()), tmp_path / "d")
    found = [line.decode() for line in exported(tmp_path / "d").splitlines()]
    assert found[1:-1] == [line for line in middle if line != MESSAGE]
    import_store(Path("x"), BytesIO(exported(tmp_path / "d")), tmp_path / "e")
    assert exported(tmp_path / "e") == exported(tmp_path / "d")


def exported(data_dir: Path) -> bytes:
    out = BytesIO()
    with StoreView(data_dir) as view:
        export_store(view, out)
    return out.getvalue()


def test_a_newer_export_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_text(lines().replace('"version":1', '"version":2'))
    done = holdfast("store", "import", "x", "d", folder=tmp_path)
    assert_one_line(done, 4, r"expected version 1 of the format, found 2")
