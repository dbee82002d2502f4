"""`holdfast store repair`: what is sound goes on, and what is lost is told."""

import json
from pathlib import Path

from tests.support import packets
from tests.support.broker import NewBroker
from tests.support.command import assert_one_line, holdfast
from tests.support.wire import Dial, absent, contents, say


def test_repair_keeps_what_is_sound(new_broker: NewBroker, dial: Dial, tmp_path: Path) -> None:
    broker = new_broker()
    absent(broker.port, "billing", "energy/#", 1)
    say(broker.port, "energy/1", b"42")
    done = holdfast("store", "repair", folder=tmp_path)
    assert_one_line(done, 4, r"data is in use by another broker")
    broker.terminate()
    done = holdfast("store", "repair", "--json", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["sessions_touched"] == 0
    billing = dial(broker.start(), packets.V5)
    assert billing.hello("billing").session_present
    assert contents(billing.messages(1)) == [b"42"]


def test_repair_says_what_is_lost(new_broker: NewBroker, tmp_path: Path) -> None:
    broker = new_broker()
    absent(broker.port, "billing", "energy/#", 1)
    say(broker.port, "energy/1", *[bytes(1000)] * 200)
    broker.terminate()
    path = tmp_path / "data" / "holdfast.db"
    content = bytearray(path.read_bytes())
    content[-8192:] = bytes(8192)
    path.write_bytes(content)
    assert holdfast("store", "check", folder=tmp_path).returncode == 5
    done = holdfast("store", "repair", folder=tmp_path)
    assert done.returncode == 5
    assert "set aside" in done.stdout
    assert holdfast("store", "check", folder=tmp_path).returncode == 0
    done = holdfast("store", "repair", "none", folder=tmp_path)
    assert_one_line(done, 4, r"none: expected a data folder with holdfast\.db")
