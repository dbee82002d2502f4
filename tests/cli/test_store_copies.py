"""`holdfast store backup`, `restore` and `compact`, with a real broker and real clients."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import apsw
import pytest

from tests.support import packets
from tests.support.broker import BrokerProcess, NewBroker
from tests.support.command import assert_one_line, holdfast
from tests.support.process import eventually
from tests.support.wire import Dial, Wire, absent, contents, numbered, say


class Load:
    """Publishes numbered messages at QoS 2 until it is told to stop."""

    def __init__(self, port: int, topic: str) -> None:
        self.acknowledged = 0
        self._port, self._topic = port, topic
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load")

    def _run(self) -> None:
        with Wire(self._port) as wire:
            wire.hello("load", clean=True)
            while not self._stop.is_set():
                wire.publish_all(self._topic, numbered(20, self.acknowledged + 1), 2)
                self.acknowledged += 20

    @contextmanager
    def running(self) -> Iterator[None]:
        self._thread.start()
        try:
            eventually(lambda: self.acknowledged >= 100, "the first messages are acknowledged")
            yield
        finally:
            self._stop.set()
            self._thread.join()


def stopped_store(new_broker: NewBroker, folder: str = "data") -> BrokerProcess:
    """A stopped broker that left a message for an absent session behind."""
    broker = new_broker(folder)
    absent(broker.port, "billing", "energy/#", 1)
    say(broker.port, "energy/1", b"42")
    assert broker.terminate() == 0
    return broker


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def test_a_backup_under_load_restores_to_a_consistent_moment(
    new_broker: NewBroker, dial: Dial, tmp_path: Path
) -> None:
    broker = new_broker()
    absent(broker.port, "billing", "load/#", 2)
    with Wire(broker.port) as meter:
        meter.hello("meter")
        meter.publish_until_pubrec("load/held", b"held", 9)
    load = Load(broker.port, "load/n")
    with load.running():
        before = load.acknowledged
        done = holdfast("store", "backup", "b.db", "--data-dir", "data", "--json", folder=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout)["file"] == "b.db"
        eventually(lambda: load.acknowledged > before, "the broker goes on")
    assert load.acknowledged > before

    done = holdfast("store", "restore", "b.db", "--data-dir", "again", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    restored = new_broker("again")
    meter = dial(restored, packets.V5)
    assert meter.hello("meter").session_present
    # The identifier is held, and its message there once, however often it comes.
    meter.publish_until_pubrec("load/held", b"held", 9)
    meter.send(packets.acknowledge(packets.PUBREL, 9))
    assert meter.wait_for(packets.PUBCOMP).code == 0
    billing = dial(restored, packets.V5)
    assert billing.hello("billing").session_present
    found = contents(billing.until_marker("load/end", qos=2))
    assert found.count(b"held") == 1
    found.remove(b"held")
    assert found == numbered(len(found))
    assert before <= len(found) <= load.acknowledged


def test_a_backup_of_a_killed_broker_has_what_only_the_log_holds(
    new_broker: NewBroker, dial: Dial, tmp_path: Path
) -> None:
    broker = new_broker()
    absent(broker.port, "billing", "energy/#", 1)
    say(broker.port, "energy/1", b"42")
    broker.kill9()
    before = files(broker.data_dir)
    assert before["holdfast.db-wal"]
    assert holdfast("store", "backup", ".", "--data-dir", "data", folder=tmp_path).returncode == 0
    after = files(broker.data_dir)
    assert {name: after[name] for name in ("holdfast.db", "holdfast.db-wal")} == {
        name: before[name] for name in ("holdfast.db", "holdfast.db-wal")
    }
    (backup,) = tmp_path.glob("holdfast-*.db")
    assert backup.stat().st_mode & 0o777 == 0o600
    done = holdfast("store", "restore", str(backup), "--data-dir", "b", folder=tmp_path)
    assert done.returncode == 0
    billing = dial(new_broker("b"), packets.V5)
    billing.hello("billing")
    assert contents(billing.messages(1)) == [b"42"]


def test_a_backup_replaces_nothing_unless_told_to(new_broker: NewBroker, tmp_path: Path) -> None:
    stopped_store(new_broker)
    (tmp_path / "b.db").write_text("precious")
    done = holdfast("store", "backup", "b.db", "--data-dir", "data", folder=tmp_path)
    assert_one_line(done, 4, r"b\.db exists: expected a new name, or --force")
    assert (tmp_path / "b.db").read_text() == "precious"
    done = holdfast("store", "backup", "b.db", "--data-dir", "data", "--force", folder=tmp_path)
    assert done.returncode == 0
    assert (tmp_path / "b.db").read_bytes().startswith(b"SQLite format 3\0")


@pytest.mark.parametrize(
    ("destination", "pattern"),
    [
        ("none/b.db", r"none: expected a folder for the backup"),
        ("data/holdfast.db", r"holdfast\.db exists: expected a new name"),
    ],
)
def test_a_backup_that_has_no_place_is_one_line(
    new_broker: NewBroker, tmp_path: Path, destination: str, pattern: str
) -> None:
    stopped_store(new_broker)
    before = files(tmp_path / "data")
    done = holdfast("store", "backup", destination, "--data-dir", "data", folder=tmp_path)
    assert_one_line(done, 4, pattern)
    assert before.items() <= files(tmp_path / "data").items()


def test_a_store_never_becomes_its_own_backup(new_broker: NewBroker, tmp_path: Path) -> None:
    stopped_store(new_broker)
    arguments = ["store", "backup", "data/holdfast.db", "--data-dir", "data", "--force"]
    assert_one_line(holdfast(*arguments, folder=tmp_path), 4, r"is the store itself")
    arguments = ["store", "restore", "data/holdfast.db", "--data-dir", "data", "--force"]
    assert_one_line(holdfast(*arguments, folder=tmp_path), 4, r"is the store itself")


def test_a_missing_store_is_one_line(tmp_path: Path) -> None:
    done = holdfast("store", "backup", "b.db", folder=tmp_path)
    assert_one_line(done, 4, r"^holdfast: data: expected a data folder with holdfast\.db")
    done = holdfast("store", "compact", folder=tmp_path)
    assert_one_line(done, 4, r"^holdfast: data: expected a data folder with holdfast\.db")
    assert list(tmp_path.iterdir()) == []


def test_the_data_folder_comes_from_the_environment(new_broker: NewBroker, tmp_path: Path) -> None:
    stopped_store(new_broker, "elsewhere")
    variables = {"HOLDFAST_DATA_DIR": "elsewhere"}
    assert holdfast("store", "compact", folder=tmp_path, variables=variables).returncode == 0


def test_restore_refuses_a_running_broker(new_broker: NewBroker, tmp_path: Path) -> None:
    broker = new_broker()
    assert holdfast("store", "backup", "b.db", folder=tmp_path).returncode == 0
    for arguments in (["restore", "b.db", "--force"], ["compact"]):
        done = holdfast("store", *arguments, folder=tmp_path)
        assert_one_line(done, 4, rf"data is in use by another broker \(pid {broker.process.pid}")


def test_restore_sets_the_old_store_aside_with_its_log(
    new_broker: NewBroker, dial: Dial, tmp_path: Path
) -> None:
    broker = new_broker()
    absent(broker.port, "billing", "energy/#", 1)
    assert holdfast("store", "backup", "b.db", folder=tmp_path).returncode == 0
    say(broker.port, "energy/1", b"42")
    broker.kill9()
    done = holdfast("store", "restore", "b.db", folder=tmp_path)
    assert_one_line(done, 4, r"holdfast\.db exists: expected an empty data folder, or --force")
    done = holdfast("store", "restore", "b.db", "--force", "--json", folder=tmp_path)
    aside = tmp_path / json.loads(done.stdout)["set_aside"]
    assert aside.name.startswith("holdfast.db.2")
    assert not (tmp_path / "data" / "holdfast.db-wal").exists()
    # What was set aside is whole, and can be restored in its turn.
    done = holdfast("store", "restore", str(aside), "--data-dir", "b", folder=tmp_path)
    assert done.returncode == 0
    billing = dial(new_broker("b"), packets.V5)
    billing.hello("billing")
    assert contents(billing.messages(1)) == [b"42"]
    broker.start()
    billing = dial(broker, packets.V5)
    assert billing.hello("billing").session_present
    billing.nothing_but("energy/2")


def test_restore_into_a_store_that_was_never_used_needs_no_force(
    new_broker: NewBroker, tmp_path: Path
) -> None:
    stopped_store(new_broker, "a")
    assert holdfast("store", "backup", "b.db", "--data-dir", "a", folder=tmp_path).returncode == 0
    assert new_broker("b").terminate() == 0
    done = holdfast("store", "restore", "b.db", "--data-dir", "b", "--json", folder=tmp_path)
    assert json.loads(done.stdout)["set_aside"] is None


def damage(path: Path) -> None:
    """Overwrite pages in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[8192 : len(data) // 2] = b"\xa5" * (len(data) // 2 - 8192)
    path.write_bytes(data)


def cut(path: Path) -> None:
    os.truncate(path, 20_000)


def foreign(path: Path) -> None:
    path.unlink()
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE photos (name TEXT)")
    connection.close()


def no_database(path: Path) -> None:
    path.write_text("x" * 8192)


@pytest.mark.parametrize("spoil", [damage, cut, foreign, no_database])
def test_a_bad_backup_is_not_restored(
    new_broker: NewBroker, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    stopped_store(new_broker)
    assert holdfast("store", "backup", "b.db", folder=tmp_path).returncode == 0
    spoil(tmp_path / "b.db")
    before = files(tmp_path / "data")
    done = holdfast("store", "restore", "b.db", "--force", folder=tmp_path)
    assert_one_line(done, 5, r"b\.db")
    after = files(tmp_path / "data")
    assert after["holdfast.db"] == before["holdfast.db"]
    assert {name for name in after if "part" in name or "2" in name} == set()


# Replaces the store of a folder, and dies at its nth change of a name.
DYING: Final = """
import os, sys
from holdfast.store.backup import install, part_file
from pathlib import Path
data, left = Path(sys.argv[1]), int(sys.argv[2])
def look(event, arguments):
    global left
    if event in ("os.rename", "os.remove", "os.link"):
        left -= 1
        if left < 0:
            os._exit(9)
with part_file(data / "holdfast.db") as part:
    part.write_bytes(b"new")
    sys.addaudithook(look)
    install(part, data, is_kept=sys.argv[3] == "True")
    os._exit(0)
"""


@pytest.mark.parametrize("is_kept", [True, False])
def test_a_replacement_that_dies_anywhere_never_leaves_an_empty_store(
    tmp_path: Path, is_kept: bool
) -> None:
    seen: list[str] = []
    for deaths in range(20):
        data = tmp_path / str(deaths)
        data.mkdir()
        (data / "holdfast.db").write_bytes(b"old")
        (data / "holdfast.db-wal").write_bytes(b"log")
        (data / "holdfast.open").write_bytes(b"")
        command = [sys.executable, "-c", DYING, str(data), str(deaths), str(is_kept)]
        code = subprocess.run(command, check=False).returncode
        found = files(data)
        content = found["holdfast.db"]
        if content == b"old":
            assert found["holdfast.db-wal"] == b"log"
        elif content == b"new":
            assert "holdfast.db-wal" not in found
            assert "holdfast.open" not in found  # it would stand for a log that is lost
        else:
            assert content.startswith(b"This is no store"), content
        if is_kept and content != b"old":
            (aside,) = [name for name in found if re.fullmatch(r"holdfast\.db\.2\w+", name)]
            assert (found[aside], found[f"{aside}-wal"]) == (b"old", b"log")
        seen.append(content.decode()[:3])
        if code == 0:
            break
    assert sorted(set(seen)) == ["Thi", "new", "old"]
    assert seen[-1] == "new"


def test_a_command_that_is_stopped_leaves_no_part_behind(
    new_broker: NewBroker, tmp_path: Path
) -> None:
    stopped_store(new_broker)
    command = Path(sys.executable).parent / "holdfast"
    for number in (signal.SIGTERM, signal.SIGINT):
        running = subprocess.Popen(
            [str(command), "store", "backup", "b.db"], cwd=tmp_path, stderr=subprocess.PIPE
        )
        eventually(
            lambda: any(tmp_path.glob("*.part")) or running.poll() is not None,  # noqa: B023
            "it has begun or is done",
        )
        running.send_signal(number)
        running.communicate()
        assert list(tmp_path.glob(".*.part*")) == []
        (tmp_path / "b.db").unlink(missing_ok=True)


def test_compact_gives_the_free_space_back_and_keeps_the_rest(
    new_broker: NewBroker, dial: Dial, tmp_path: Path
) -> None:
    broker = new_broker()
    absent(broker.port, "billing", "energy/#", 1)
    absent(broker.port, "other", "large/#", 1)
    say(broker.port, "energy/1", b"42")
    say(broker.port, "large/1", *[bytes(200_000)] * 20)
    with Wire(broker.port) as wire:
        wire.hello("other", clean=True)  # ends the session that pins the large messages
        wire.goodbye()
    with Wire(broker.port) as wire:
        wire.hello("billing")
        wire.messages(1)
        wire.goodbye()
    say(broker.port, "energy/1", b"43")
    assert broker.terminate() == 0
    done = holdfast("store", "compact", "data", "--json", folder=tmp_path)
    told = json.loads(done.stdout)
    assert told["after_bytes"] < 500_000 or told["after_bytes"] <= told["before_bytes"]
    assert (tmp_path / "data" / "holdfast.db").stat().st_size == told["after_bytes"]
    billing = dial(broker.start(), packets.V5)
    assert billing.hello("billing").session_present
    assert contents(billing.messages(1)) == [b"43"]


def test_what_root_makes_belongs_to_the_owner_of_the_folder(
    new_broker: NewBroker, tmp_path: Path
) -> None:
    """Whoever runs the tests: an administrator's restore must not keep the broker's user out."""
    stopped_store(new_broker, "a")
    assert holdfast("store", "export", "a", "-o", "x", folder=tmp_path).returncode == 0
    assert holdfast("store", "backup", "b.db", "--data-dir", "a", folder=tmp_path).returncode == 0
    commands = (["import", "x", "data"], ["restore", "b.db", "--force"], ["compact"])
    (tmp_path / "data").mkdir()
    if os.geteuid() == 0:
        os.chown(tmp_path / "data", 12345, 12345)
    owner = (tmp_path / "data").stat().st_uid
    for command in commands:
        assert holdfast("store", *command, folder=tmp_path).returncode == 0
        found = {path.name: path.stat().st_uid for path in (tmp_path / "data").iterdir()}
        assert set(found.values()) == {owner}, found
