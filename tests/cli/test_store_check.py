"""`holdfast store check`: a sound store is sound, and each kind of damage is found and named."""

import json
import shutil
from pathlib import Path
from typing import Final

import apsw
import pytest

from holdfast.store import verify
from holdfast.store.reading import StoreView
from tests.support import packets
from tests.support.broker import BrokerProcess, NewBroker
from tests.support.command import assert_one_line, holdfast
from tests.support.wire import Wire, absent, say


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a row in nearly every table, its broker stopped."""
    with BrokerProcess(tmp_path_factory.mktemp("made") / "data") as broker:
        absent(broker.port, "billing", "energy/#", 1)
        absent(broker.port, "worker", "$share/g/jobs/#", 1)
        say(broker.port, "energy/1", b"41", b"42")
        say(broker.port, "energy/2", b"43", retain=True)
        say(broker.port, "jobs/1", b"j")
        say(broker.port, "$delayed/100000/later", b"delayed")
        with Wire(broker.port) as wire:
            wire.hello("billing")
            wire.wait_for(packets.PUBLISH)
            wire.ping()
            wire.goodbye()
    return broker.data_dir


@pytest.fixture
def data(made: Path, tmp_path: Path) -> Path:
    """A copy of it, the folder `data`."""
    return Path(shutil.copytree(made, tmp_path / "data"))


def change(folder: Path, *statements: str) -> None:
    connection = apsw.Connection(str(folder / "holdfast.db"))
    for statement in statements:
        connection.execute(statement)
    connection.close()


def check(folder: Path, path: str = "data") -> tuple[int, dict[str, object]]:
    done = holdfast("store", "check", path, "--json", folder=folder)
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


@pytest.mark.usefixtures("data")
def test_a_sound_store_is_sound(tmp_path: Path) -> None:
    code, found = check(tmp_path)
    assert (code, found["is_sound"], found["findings"]) == (0, True, [])
    assert found["messages"] == 4
    rows = found["rows"]
    assert isinstance(rows, dict)
    assert {table for table, count in rows.items() if count == 0} <= {"losses", "time_marks"}
    done = holdfast("store", "check", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("data/holdfast.db: sound; 4 messages; rows: ")


def test_a_running_broker_goes_on_while_its_store_is_checked(
    new_broker: NewBroker, tmp_path: Path
) -> None:
    broker = new_broker()
    absent(broker.port, "billing", "energy/#", 1)
    say(broker.port, "energy/1", *[b"42"] * 100)
    code, found = check(tmp_path)
    assert (code, found["messages"]) == (0, 100)
    say(broker.port, "energy/1", b"43")


@pytest.mark.usefixtures("data")
def test_a_backup_is_checked_by_its_file_and_nothing_is_left_beside_it(
    tmp_path: Path,
) -> None:
    (tmp_path / "b").mkdir()
    assert holdfast("store", "backup", "b/x.db", folder=tmp_path).returncode == 0
    assert check(tmp_path, "b/x.db")[0] == 0
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["x.db"]


DAMAGE: Final[dict[str, tuple[str, str, list[str]]]] = {
    # statement: table, what is said, whom it touches
    "UPDATE sessions SET will = x'ff', will_topic = 'w' WHERE client_id = 'billing'": (
        ("sessions", "begins with 0xFF", ["billing"])
    ),
    "UPDATE sessions SET version = 7 WHERE client_id = 'billing'": (
        ("sessions", "protocol level", ["billing"])
    ),
    "DELETE FROM sessions WHERE client_id = 'worker'": ("subscriptions", "no session", []),
    "INSERT INTO states (session, cursor, in_flight, received) VALUES (99, 1, x'', x'')": (
        ("states", "no session", [])
    ),
    "UPDATE states SET in_flight = x'1f' WHERE session = 1": ("states", "ends before", ["billing"]),
    "UPDATE states SET cursor = 1000 WHERE session = 1": ("states", "cursor", ["billing"]),
    "UPDATE states SET received = x'00' WHERE session = 1": ("states", "received", ["billing"]),
    "UPDATE subscriptions SET topic_filter = 'a/#/b' WHERE session = 1": (
        ("subscriptions", "'#' alone", ["billing"])
    ),
    "UPDATE subscriptions SET options = 3 WHERE session = 1": (
        ("subscriptions", "options", ["billing"])
    ),
    "UPDATE subscriptions SET until_lsn = 1, from_lsn = 3 WHERE session = 1": (
        ("subscriptions", "before it begins", ["billing"])
    ),
    "UPDATE shared_groups SET cursor = 1000": ("shared_groups", "cursor", []),
    "UPDATE shared_groups SET topic_filter = 'x'": ("shared_groups", "not a shared one", []),
    "UPDATE retained SET message = x'0107ff'": ("retained", "ends before", []),
    "UPDATE retained SET topic = 999": ("retained", "no name", []),
    "UPDATE delayed SET message = x''": ("delayed", "ends before", []),
    "UPDATE delayed SET topic = 999": ("delayed", "no name", []),
    "UPDATE topics SET name = '+' WHERE name = 'energy/1'": ("topics", "without wildcards", []),
    "UPDATE log SET data = x'03' WHERE lsn = 1": ("log", "begins with 0x03", ["billing"]),
    "UPDATE log SET last_lsn = 3 WHERE lsn = 1": ("log", "overlaps", ["billing"]),
    "UPDATE log SET data = x'' WHERE lsn = 1": ("log", "expected them to end", ["billing"]),
    "UPDATE log SET target = 99 WHERE lsn = 1": ("log", "does not exist", []),
    "UPDATE log SET topic = 999 WHERE lsn = 1": ("log", "no name", ["billing"]),
    "UPDATE sessions SET epoch = epoch + 1 WHERE client_id = 'billing'": (
        ("sessions", "checksum", ["billing"])
    ),
    "UPDATE log SET data = x'0000' WHERE lsn = 1": ("log", "checksum", ["billing"]),
    "UPDATE topics SET name = 'energy/9' WHERE name = 'energy/1'": ("topics", "checksum", []),
    "UPDATE meta SET value = value + 1": ("meta", "checksum", []),
    "UPDATE states SET gaps = x'00', crc = 0 WHERE session = 1": ("states", "", ["billing"]),
    "INSERT INTO losses VALUES (99, 1, 1, 1, 1, 0)": ("losses", "no session or group", []),
    "INSERT INTO time_marks VALUES (1000, 1, 0)": ("time_marks", "it is for lsn 1000", []),
    "UPDATE topics SET name = CAST(x'ff' AS TEXT) WHERE name = 'energy/1'": (
        ("topics", "not UTF-8", [])
    ),
    "DELETE FROM meta WHERE name = 'next_session'": ("meta", "missing", []),
}


@pytest.mark.parametrize("statement", DAMAGE)
def test_damage_is_found_and_named(data: Path, statement: str) -> None:
    change(data, statement)
    table, text, sessions = DAMAGE[statement]
    with StoreView(data) as view:
        findings = verify.check(view).findings
    fitting = [one for one in findings if one.table == table and text in one.text]
    assert fitting, findings
    assert list(fitting[0].sessions) == sessions


def test_damage_is_listed_and_has_a_code_of_its_own(data: Path, tmp_path: Path) -> None:
    change(data, "UPDATE log SET data = x'03' WHERE lsn = 1")
    code, found = check(tmp_path)
    assert (code, found["is_sound"], found["findings_count"]) == (5, False, 2)
    done = holdfast("store", "check", folder=tmp_path)
    assert done.returncode == 5
    line = "log 1: a stored message begins with 0x03, which none does (sessions: 'billing')"
    assert line in done.stdout.splitlines()


def test_damaged_pages_are_found(data: Path, tmp_path: Path) -> None:
    path = data / "holdfast.db"
    content = bytearray(path.read_bytes())
    for page in range(2, len(content) // 4096):
        content[page * 4096 : page * 4096 + 64] = bytes(64)
    path.write_bytes(content)
    done = holdfast("store", "check", folder=tmp_path)
    assert done.returncode == 5
    assert "Traceback" not in done.stderr
    assert "sqlite: " in done.stdout or "damaged" in done.stderr


@pytest.mark.parametrize(
    ("content", "code", "pattern"),
    [
        (b"", 4, r"^holdfast: data: expected a data folder with holdfast\.db"),
        (b"x" * 8192, 5, r"holdfast\.db is not a SQLite database"),
    ],
)
def test_what_is_no_store_is_one_line(
    tmp_path: Path, content: bytes, code: int, pattern: str
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "holdfast.db").write_bytes(content)
    assert_one_line(holdfast("store", "check", folder=tmp_path), code, pattern)
    assert (tmp_path / "data" / "holdfast.db").read_bytes() == content


def test_a_store_of_a_newer_format_is_refused(data: Path, tmp_path: Path) -> None:
    change(data, "PRAGMA user_version = 99")
    done = holdfast("store", "check", folder=tmp_path)
    assert_one_line(done, 4, r"written by a newer Holdfast: its format is 99")
