"""`holdfast store stats`: what is in a store, who is behind, and who keeps what."""

import json
from io import BytesIO
from pathlib import Path

from holdfast.store.reading import StoreView
from holdfast.store.report import stats
from holdfast.store.transfer import import_store
from tests.support import packets
from tests.support.broker import NewBroker
from tests.support.command import assert_one_line, holdfast
from tests.support.wire import Wire, absent, say


def test_stats_count_what_clients_left(new_broker: NewBroker, tmp_path: Path) -> None:
    broker = new_broker()
    port = broker.port
    absent(port, "all", "#", 1)
    absent(port, "some", "energy/#", 1)
    absent(port, "quick", "#", 0)
    absent(port, "worker", "$share/g/jobs/#", 1)
    say(port, "energy/1", *[b"42"] * 5)
    say(port, "jobs/1", b"j", b"k")
    say(port, "kept", b"r", retain=True)
    say(port, "$delayed/100000/later", b"delayed")
    online = Wire(port)
    online.hello("some")
    online.wait_for(packets.PUBLISH)
    online.ping()
    done = holdfast("store", "stats", "--json", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    expected = {
        "log_messages": 8,
        "sessions": 4,
        "sessions_online": 1,
        "sessions_absent": 3,
        "sessions_behind": 1,
        "subscriptions": 4,
        "groups": 1,
        "groups_behind": 1,
        "retained": 1,
        "delayed": 1,
        "oldest_lsn": 1,
        "lost_messages": 0,
    }
    assert {name: found[name] for name in expected} == expected
    readers = {one["name"]: one for one in found["readers"]}
    assert [one["name"] for one in found["readers"]] == ["all", "$share/g/jobs/#", "some"]
    assert (readers["all"]["messages"], readers["all"]["pins_messages"]) == (8, 6)
    assert readers["some"]["in_flight"] == 5
    assert (readers["some"]["is_online"], readers["all"]["is_online"]) == (True, False)
    assert readers["$share/g/jobs/#"]["messages"] == 2
    assert found["file_bytes"] > 0 and found["wal_bytes"] > 0
    online.cut()
    broker.terminate()
    done = holdfast("store", "stats", "--top", "1", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "'all'" in done.stdout and "jobs" not in done.stdout


def test_ages_losses_and_shares(tmp_path: Path) -> None:
    """From an export, in which the numbers are known."""

    def session(number: int, name: str) -> str:
        return (
            f'{{"type":"session","number":{number},"client_id":"{name}","protocol_level":5,'
            '"epoch":1,"expiry_s":60,"disconnected_at_ms":1,"will_delay_s":0,"will_due_ms":0,'
            '"cursor":1,"in_flight":[],"received":[]}'
        )

    def subscription(number: int, topic_filter: str, low: int) -> str:
        return (
            f'{{"type":"subscription","session":{number},"topic_filter":"{topic_filter}","qos":1,'
            '"no_local":false,"retain_as_published":false,"retain_handling":0,'
            f'"from_lsn":{low}}}'
        )

    def message(lsn: int, topic: str, target: str = "") -> str:
        return (
            f'{{"type":"message","lsn":{lsn},{target}"message":{{"topic":"{topic}","payload":"x",'
            '"qos":1,"retain":false}}'
        )

    middle = [
        session(1, "a"),
        session(2, "b\\u001b[31m"),
        subscription(1, "t/#", 1),
        subscription(1, "t/+", 3),  # overlaps: nothing counts twice
        subscription(2, "t/1", 4),
        '{"type":"loss","owner":2,"messages":7,"bytes":70,"at_ms":5,"reason":1}',
        '{"type":"time_mark","lsn":1,"at_ms":1000}',
        '{"type":"time_mark","lsn":4,"at_ms":2000}',
        *(message(lsn, "t/1") for lsn in range(2, 8)),
        message(8, "t/1", '"target":2,'),
    ]
    lines = [
        '{"type":"holdfast-export","version":1,"next_lsn":9,"next_number":3}',
        *middle,
        f'{{"type":"end","lines":{len(middle) + 2}}}',
    ]
    source = BytesIO("".join(f"{line}\n" for line in lines).encode())
    import_store(Path("x"), source, tmp_path / "data")
    with StoreView(tmp_path / "data") as view:
        found = stats(view)
    a, b = found.readers
    assert (a.messages, a.pins_messages, a.oldest_lsn, a.oldest_at_ms) == (6, 2, 2, 1000)
    assert (b.messages, b.pins_messages, b.oldest_lsn, b.oldest_at_ms) == (5, 1, 4, 2000)
    assert (b.lost_messages, b.lost_bytes, b.lost_reason) == (7, 70, "queue limit")
    assert found.lost_messages == 7
    assert (found.log_messages, found.oldest_lsn, found.oldest_at_ms) == (7, 2, 1000)
    done = holdfast("store", "stats", folder=tmp_path)
    assert "\x1b" not in done.stdout  # a client identifier does nothing to the terminal
    assert r"'b\x1b[31m'" in done.stdout


def test_a_store_that_was_never_used(new_broker: NewBroker, tmp_path: Path) -> None:
    new_broker().terminate()
    done = holdfast("store", "stats", "--json", folder=tmp_path)
    found = json.loads(done.stdout)
    assert (found["sessions"], found["log_messages"], found["readers"]) == (0, 0, [])
    assert_one_line(holdfast("store", "stats", "none", folder=tmp_path), 4, "^holdfast: none: ")
