"""A server with an ACL file: who may do what, over TCP, and what a new file changes."""

import signal
from pathlib import Path
from typing import Final

import pytest

from tests.support import packets
from tests.support.broker import BrokerProcess, NewBroker
from tests.support.packets import V5, V311
from tests.support.wire import Dial, Wire

RULES: Final = """
[[rules]]
deny = "receive"
topics = "site/secret"

[[rules]]
allow = ["publish", "subscribe"]
topics = "site/#"
clients = ["desk-*"]

[[rules]]
allow = "publish"
topics = "site/%c"
"""
ATTEMPTS_MAX: Final = 1000  # each a round trip, until a file that was read has come into force


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "acl.toml"
    path.write_text(RULES, encoding="utf-8")
    return path


@pytest.fixture
def guarded(new_broker: NewBroker, file: Path) -> BrokerProcess:
    return new_broker(settings={"acl_file": str(file)})


def answer(client: Wire, topic: str) -> int:
    """The reason code of the answer to a QoS 1 PUBLISH."""
    client.send(packets.publish(topic, b"x", client.level, qos=1, packet_id=7))
    return client.wait_for(packets.PUBACK).code


def until_answer(client: Wire, topic: str, code: int) -> None:
    """Publish until the answer is this one: a new file has come into force."""
    for _ in range(ATTEMPTS_MAX):
        if answer(client, topic) == code:
            return
    raise AssertionError(f"no answer 0x{code:02X}")


def test_clients_do_what_the_file_allows(guarded: BrokerProcess, dial: Dial, level: int) -> None:
    desk, meter = dial(guarded, level), dial(guarded, level)
    desk.hello("desk-1", clean=True)
    desk.subscribe("site/+", 1)
    meter.hello("m7", clean=True)
    for topic in ("site/m8", "site/m7", "site/secret", "other"):
        meter.send(packets.publish(topic, topic.encode(), level, qos=1, packet_id=1))
        code = meter.wait_for(packets.PUBACK).code
        assert code == (0x87 if level == V5 and topic != "site/m7" else 0)
    assert [message.topic for message in desk.messages(1)] == ["site/m7"]
    meter.send(packets.subscribe(3, [("site/m7", 0)], level))
    assert meter.wait_for(packets.SUBACK).code == (0x87 if level == V5 else 0x80)
    desk.publish("site/secret", "s")
    desk.publish("site/open", "o")
    assert [message.topic for message in desk.messages(1)] == ["site/open"]


@pytest.mark.parametrize("hangs_up", [False, True])
def test_a_new_file_comes_into_force(
    guarded: BrokerProcess, dial: Dial, file: Path, hangs_up: bool
) -> None:
    """On a change alone, and on SIGHUP; nobody is disconnected. A wrong file changes nothing."""
    desk, watcher = dial(guarded, V5), dial(guarded, V311)
    desk.hello("desk-1")
    watcher.hello("desk-2", clean=True)
    watcher.subscribe("site/#")
    assert answer(desk, "site/a") == 0

    def write(rules: str, line: str) -> None:
        first = len(guarded.process.lines)
        file.write_text(rules, encoding="utf-8")
        if hangs_up:
            guarded.process.send_signal(signal.SIGHUP)
        guarded.process.wait_line(line, first)

    write(RULES.replace("desk-*", "desk-2"), "acl_file: read anew")
    until_answer(desk, "site/a", 0x87)
    assert answer(desk, "site/desk-1") == 0
    wrong = r"acl_file: .*rule 3 \(line 11\): topics: 'site/%x': expected %c"
    write(RULES.replace("site/%c", "site/%x"), wrong)
    assert answer(desk, "site/a") == 0x87 and answer(desk, "site/desk-1") == 0
    write(RULES, "acl_file: read anew")
    until_answer(desk, "site/a", 0)
    watcher.ping()


def test_a_wrong_file_stops_the_start(tmp_path: Path, file: Path) -> None:
    file.write_text("[[rules]]\nallow = 'al'\ntopics = 'a'\n", encoding="utf-8")
    broker = BrokerProcess(tmp_path / "data", settings={"acl_file": str(file)})
    broker.spawn()
    assert broker.wait() == 2
    (line,) = broker.log_lines
    assert line.startswith(f"holdfast: {file}: rule 1 (line 1): allow: expected publish, ")


def test_denials_are_counted_and_told(new_broker: NewBroker, dial: Dial, file: Path) -> None:
    file.write_text(RULES + "[[rules]]\nallow='subscribe'\ntopics='$SYS/#'\n", encoding="utf-8")
    broker = new_broker(settings={"acl_file": str(file), "sys_interval_s": 1})
    client = dial(broker, V5)
    client.hello("bad\nname")
    assert answer(client, "other\u202e") == 0x87
    broker.process.wait_line(
        r"warning .*denied: publish to 'other\\u202e', no rule allows it client=\"bad\\nname\""
    )
    client.subscribe("$SYS/broker/acl/publish/denied")
    client.until(b"1")
