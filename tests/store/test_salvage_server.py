"""The real server on a damaged store: it says what is lost and runs, or refuses if told to."""

import json
from pathlib import Path

from holdfast.store.sqlite import FILE_NAME
from tests.store.damage import PAGE, WAL, flip, places, settle, zero
from tests.support.broker import BrokerProcess, NewBroker
from tests.support.packets import V5
from tests.support.wire import Dial, absent, contents, numbered, say

EXIT_STORE = 4


def _damage(broker: BrokerProcess, table: str) -> None:
    """Kill a broker, and lose a page of one of its tables."""
    broker.kill9()
    settle(broker.data_dir)
    (broker.data_dir / WAL).touch()  # which is there when a broker was killed
    pages = [page for page, owner in places(broker.data_dir).owners.items() if owner == table]
    zero(broker.data_dir / FILE_NAME, sorted(pages)[len(pages) // 2])


def _reports(folder: Path) -> list[dict[str, object]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def test_the_rest_is_delivered_and_the_loss_is_told(new_broker: NewBroker, dial: Dial) -> None:
    """Of 400 messages some are lost with a page: their subscriber gets all others, in order."""
    broker = new_broker()
    absent(broker.port, "meter", "energy/+", 1)
    absent(broker.port, "other", "water/+", 1)
    say(broker.port, "energy/1", *[b"%d " % n + b"x" * 200 for n in range(400)])
    say(broker.port, "water/1", b"w")
    _damage(broker, "log")
    broker.start()
    (report,) = _reports(broker.data_dir)
    assert [session["client_id"] for session in report["sessions"]] == ["meter"]  # type: ignore[attr-defined]  # JSON
    assert "the store is damaged" in broker.log
    assert "1 session touched" in broker.log
    assert str(report["report_file"]) in broker.log
    assert (broker.data_dir / str(report["set_aside"][0])).exists()  # type: ignore[index]  # JSON
    lost = report["messages_lost_max"]
    assert isinstance(lost, int)
    assert lost > 0
    back = dial(broker, V5)
    assert back.hello("meter").session_present
    found = [int(one.split()[0]) for one in contents(back.messages(400 - lost))]
    assert found == sorted(set(found))
    back.nothing_but("energy/1")
    other = dial(broker, V5)
    assert other.hello("other").session_present
    assert contents(other.messages(1)) == [b"w"]


def test_a_session_that_is_lost_is_not_present(new_broker: NewBroker, dial: Dial) -> None:
    broker = new_broker()
    absent(broker.port, "meter", "energy/+", 1)
    _damage(broker, "sessions")
    broker.start()
    back = dial(broker, V5)
    assert not back.hello("meter").session_present
    say(broker.port, "energy/1", b"1")


def test_a_session_that_lost_its_state_gets_all_again(new_broker: NewBroker, dial: Dial) -> None:
    broker = new_broker()
    absent(broker.port, "meter", "energy/+", 1)
    say(broker.port, "energy/1", *numbered(5))
    _damage(broker, "states")
    broker.start()
    back = dial(broker, V5)
    assert back.hello("meter").session_present
    assert contents(back.messages(5)) == numbered(5)


def test_strict_refuses_until_it_is_repaired(new_broker: NewBroker) -> None:
    broker = new_broker(settings={"store_strict": True})
    absent(broker.port, "meter", "energy/+", 1)
    _damage(broker, "log_topic")
    broker.spawn()
    assert broker.wait() == EXIT_STORE
    assert "is damaged, and was left as it is" in broker.log
    assert f"holdfast store repair {broker.data_dir}" in broker.log
    assert _reports(broker.data_dir) == []
    broker = new_broker()
    assert len(_reports(broker.data_dir)) == 1
    assert broker.terminate() == 0
    broker.start()
    assert len(_reports(broker.data_dir)) == 1


def test_a_log_that_is_torn_in_its_midst_is_told(new_broker: NewBroker, dial: Dial) -> None:
    """SQLite alone would drop what is behind the damage, and say nothing."""
    broker = new_broker()
    absent(broker.port, "meter", "energy/+", 1)
    for n in range(1, 9):
        say(broker.port, "energy/1", b"%d" % n)
    broker.kill9()
    frames = ((broker.data_dir / WAL).stat().st_size - 32) // (PAGE + 24)
    flip(broker.data_dir / WAL, (32 + frames // 2 * (PAGE + 24) + 300) * 8)
    broker.start()
    assert "with messages that were acknowledged" in broker.log
    (report,) = _reports(broker.data_dir)
    assert report["wal"]["is_damaged"]  # type: ignore[index]  # JSON
    back = dial(broker, V5)
    assert back.hello("meter").session_present
