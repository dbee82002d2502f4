"""The power fails at any moment: promises 1, 2, 4 to 9 of the store on SQLite.

``power_vfs`` is the disk, ``power_workload`` what the store is asked to do, ``power_machine`` cuts
and judges. ``make test`` cuts a short workload at every event, and samples of longer ones. For
longer: HOLDFAST_POWER_SEEDS=500 is the number of long workloads, HOLDFAST_POWER_FIRST the first
one's seed; above a few everything that is sampled otherwise is tried in full. A failure prints the
case: HOLDFAST_POWER_CASE='short / 417 sectors 3' plays it again (with
``-k plays_again``).
"""

import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import apsw
import pytest

from holdfast.disk import connection as disk_connection
from holdfast.disk import file_format
from holdfast.disk.connection import Writing
from holdfast.store import schema, sqlite
from holdfast.store.records import Batch
from holdfast.store.sqlite import FILE_NAME, SqliteStore, open_store
from holdfast.store.sqlite_upkeep import Upkeep
from holdfast.store.sqlite_writer import BatchWriter
from tests.store.power_machine import KILLED, Cut, Machine, Start, flush
from tests.store.power_vfs import Images
from tests.store.power_workload import Expected, State, StoreSubject, after, long, observe, short

SEEDS: Final = int(os.environ.get("HOLDFAST_POWER_SEEDS", "3"))
FIRST: Final = int(os.environ.get("HOLDFAST_POWER_FIRST", "1"))
CASE: Final = os.environ.get("HOLDFAST_POWER_CASE", "")
IS_LONG: Final = SEEDS > 20
LONG_CALLS: Final = 40
pytestmark = pytest.mark.timeout(0 if IS_LONG else 120)
FORMAT_1: Final = Path(__file__).parent / "format_1.sql"
# Each was a bug once.
KNOWN: Final = [
    "short / 9 torn 18",  # the first page torn when the file was made: taken for another program's
    # The log's pages lost, carried over into the file all the same, and the power cut then.
    "lie 7 none / 60 killed 0 / 28 whole 1",
]
StoreMachine = Machine[SqliteStore, Expected, State]

MEMORY: Final = Path("/dev/shm")  # files in memory, where there is such a folder


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    found = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else tmp_path))
    yield found
    shutil.rmtree(found)


@pytest.fixture
def machine(folder: Path) -> StoreMachine:
    return Machine(StoreSubject(), folder, start_of, thorough=1 if IS_LONG or CASE else 5)


def start_of(name: str) -> Start[SqliteStore, Expected, State]:
    """How the cases of this name begin."""
    match name.split():
        case ["short"]:
            return Start(short)
        case ["long", seed]:
            return Start(long(int(seed), LONG_CALLS))
        case ["lie", number, reached]:
            reached_seed = None if reached == "none" else int(reached)
            return Start(short, lie=flush(int(number)), reached=reached_seed)
        case ["format", number, *killed]:
            images, shown = _older_store(int(number), is_killed=bool(killed))
            return Start(after, images, shown)
    raise AssertionError(name)


def _older_store(number: int, *, is_killed: bool) -> tuple[Images, State]:
    """The files of a store of an older format, closed or killed, and what it holds."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / FILE_NAME
        connection = apsw.Connection(str(path))
        connection.pragma("auto_vacuum", "incremental")
        connection.pragma("journal_mode", "wal")
        connection.execute(FORMAT_1.read_text())
        for step in schema.MIGRATIONS[1:number]:
            step(connection)
        if number > 1:
            connection.execute("INSERT INTO shared_groups VALUES (3, '$share/g/a', 2, x'')")
            connection.execute("INSERT INTO delayed VALUES (1, 60000, 60, 2, x'010133')")
            connection.execute("UPDATE meta SET value = 4 WHERE name = 'next_session'")
        connection.pragma("user_version", number)
        if not is_killed:
            connection.close()
        files = [FILE_NAME, f"{FILE_NAME}-wal"] if is_killed else [FILE_NAME]
        images = {file: (path.parent / file).read_bytes() for file in files}
        connection.close()
        store = open_store(path.parent)
        shown = observe(store)
        store.close()
    return images, shown


def at_every_event(
    machine: StoreMachine,
    name: str,
    seeds: int,
    again: int,
    *,
    first: str = "",
    is_opening_only: bool = False,
) -> None:
    """Cut a workload at every event; one in ``again`` of what is left is cut once more.

    ``first`` names the call with which to begin.
    """
    made = machine.begin(name)
    start = next(step.start for step in made.steps if step.name.startswith(first))
    stop = made.steps[0].stop if is_opening_only else len(made.events)
    machine.try_all(name, made, list(range(start, stop + 1)), seeds, again, random.Random(name))


def sampled(rng: random.Random, count: int, most: int) -> list[int]:
    """So many of the numbers from 0 to below ``count``; all of them in a long run."""
    return list(range(count)) if IS_LONG else sorted(rng.sample(range(count), min(count, most)))


@pytest.mark.parametrize("case", [CASE] if CASE else KNOWN)
def test_a_case_plays_again(machine: StoreMachine, case: str) -> None:
    machine.play(case)


@pytest.mark.spec("MQTT5-4.1.0-1")
def test_a_power_cut_at_every_write_and_flush(machine: StoreMachine) -> None:
    at_every_event(machine, "short", seeds=8 if IS_LONG else 1, again=100 if IS_LONG else 200)
    assert machine.cuts > 1000
    assert machine.different > 500


@pytest.mark.parametrize("seed", range(FIRST, FIRST + SEEDS))
def test_power_cuts_in_a_long_workload(machine: StoreMachine, seed: int) -> None:
    name = f"long {seed}"
    made = machine.begin(name)
    rng = random.Random(seed)
    points = sorted(rng.sample(range(len(made.events) + 1), 40 if IS_LONG else 16))
    machine.try_all(name, made, points, 1, 80, rng)


@pytest.mark.parametrize("killed", ["", " killed"])
@pytest.mark.parametrize("number", range(1, schema.FORMAT))
def test_a_power_cut_during_the_migration(machine: StoreMachine, number: int, killed: str) -> None:
    at_every_event(machine, f"format {number}{killed}", 1, 60, is_opening_only=not IS_LONG)


def test_a_power_cut_after_a_kill(machine: StoreMachine) -> None:
    """What was written and not flushed is found by the next start, and must stay from then on."""
    made = machine.begin("short")
    rng = random.Random("killed")
    for at in sampled(rng, len(made.events) + 1, 12):
        cut = Cut(at, KILLED)
        machine.cut_again(f"short / {cut}", made, cut, rng, points_max=10)


@pytest.mark.parametrize("reached", ["none", "1"])
def test_a_flush_that_fails_loses_nothing_that_was_promised(
    machine: StoreMachine, reached: str
) -> None:
    """The pages are gone, but the system's cache shows them, and the next flush succeeds."""
    flushes = sum(event.kind == "sync" for event in machine.begin("short").events)
    rng = random.Random(f"lie {reached}")
    for number in sampled(rng, flushes, 8):
        name = f"lie {number} {reached}"
        made = machine.begin(name)
        end = len(made.events)
        assert sum(event.kind == "lost" for event in made.events) == 1
        machine.try_all(name, made, [end], 2, 0, rng)
        # After the next start all is well, or a flush fails again, and a third start follows.
        for again in [0, 1, 2, 4, 6, 9] if IS_LONG else [0, rng.randint(1, 12)]:
            cut = Cut(end, KILLED, again)
            machine.cut_again(f"{name} / {cut}", made, cut, rng, points_max=40 if IS_LONG else 10)


def _unflushed(mode: str) -> Callable[[pytest.MonkeyPatch], None]:
    """Commits that SQLite does not flush."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        set_up = disk_connection._set_up

        def careless(connection: apsw.Connection, cache_bytes: int) -> None:
            set_up(connection, cache_bytes)
            connection.pragma("synchronous", mode)

        patch.setattr(disk_connection, "_set_up", careless)

    return plant


def _checkpoint_unflushed(patch: pytest.MonkeyPatch) -> None:
    """A checkpoint that flushes neither the log nor the file."""
    checkpoint = Upkeep.checkpoint_if_due

    def careless(upkeep: Upkeep) -> None:
        upkeep._connection.pragma("synchronous", "off")
        checkpoint(upkeep)
        upkeep._connection.pragma("synchronous", "full")
        upkeep._writing._synchronous = "FULL"

    patch.setattr(Upkeep, "checkpoint_if_due", careless)


def _commit_in_two(patch: pytest.MonkeyPatch) -> None:
    """The entries of a batch in a transaction of their own, after the rest."""
    commit = SqliteStore.commit

    def careless(store: SqliteStore, batch: Batch) -> None:
        entries, batch.entries = batch.entries, []
        try:
            commit(store, batch)
            alone = Batch()
            alone.entries = entries
            commit(store, alone)
        finally:
            batch.entries = entries

    patch.setattr(SqliteStore, "commit", careless)


def _trim_without_next_lsn(patch: pytest.MonkeyPatch) -> None:
    """Rows go, and where the log ends goes with them."""
    set_meta = BatchWriter.set_meta

    def careless(writer: BatchWriter, name: str, value: int) -> None:
        if name != "next_lsn":
            set_meta(writer, name, value)

    patch.setattr(BatchWriter, "set_meta", careless)


def _next_lsn_later(patch: pytest.MonkeyPatch) -> None:
    """Where the log ends is written by a transaction after that of the trim."""
    set_meta, trim = BatchWriter.set_meta, SqliteStore.trim

    def careless(store: SqliteStore, below_lsn: int) -> bool:
        late: list[tuple[str, int]] = []
        with pytest.MonkeyPatch.context() as during:
            during.setattr(BatchWriter, "set_meta", lambda _writer, *pair: late.append(pair))
            has_more = trim(store, below_lsn)
        for name, value in late:
            set_meta(store._writer, name, value)
        return has_more

    patch.setattr(SqliteStore, "trim", careless)


def _migration_in_pieces(patch: pytest.MonkeyPatch) -> None:
    """Each statement of a migration in a transaction of its own."""

    def careless(connection: apsw.Connection, format_number: int) -> None:
        for step in schema.MIGRATIONS[format_number:]:
            step(connection)
        connection.pragma("application_id", schema.APPLICATION_ID)
        connection.pragma("user_version", schema.FORMAT)

    patch.setattr(sqlite, "migrate", careless)


def _torn_first_page_refused(patch: pytest.MonkeyPatch) -> None:
    """A file torn when it was made is taken for another program's."""
    patch.setattr(file_format, "_was_being_made", lambda _path: False)


def _log_not_written_again(patch: pytest.MonkeyPatch) -> None:
    """What a failed flush has lost of the log is not written again at the start."""
    patch.setattr(sqlite, "rewrite_wal", lambda _path, _vfs: None)


def _nothing_flushed_at_the_start(patch: pytest.MonkeyPatch) -> None:
    _log_not_written_again(patch)
    patch.setattr(sqlite, "restart_wal", lambda _connection: None)


def _commits_after_a_failure(patch: pytest.MonkeyPatch) -> None:
    """A commit whose flush failed is simply tried again."""
    patch.setattr(Writing, "refuse_after_failure", lambda _writing: None)


@pytest.mark.parametrize(
    ("plant", "name", "first"),  # the call at which the cuts begin, to be quick
    [
        (_unflushed("off"), "short", ""),
        (_unflushed("normal"), "short", "commit"),
        (_checkpoint_unflushed, "short", "commit of 3"),
        (_commit_in_two, "short", "commit"),
        (_trim_without_next_lsn, "short", ""),
        (_next_lsn_later, "short", "trim below 15"),
        (_migration_in_pieces, "short", ""),
        (_torn_first_page_refused, "short", ""),
        (_log_not_written_again, "lie 7 none", ""),
        (_nothing_flushed_at_the_start, "lie 7 none", ""),
        (_commits_after_a_failure, "lie 12 none", ""),
    ],
)
def test_the_machine_finds(
    machine: StoreMachine,
    monkeypatch: pytest.MonkeyPatch,
    plant: Callable[[pytest.MonkeyPatch], None],
    name: str,
    first: str,
) -> None:
    """A proof is worth what it would find: bugs that are planted."""
    plant(monkeypatch)
    with pytest.raises(AssertionError) as found:
        find(machine, name, first)
    print(found.value)  # -s shows where


def find(machine: StoreMachine, name: str, first: str) -> None:
    """Cut from this call on; or, if a flush fails, wherever one may after the next start."""
    if name == "short":
        at_every_event(machine, name, seeds=1, again=0, first=first)
        return
    made = machine.begin(name)
    cut = Cut(len(made.events), KILLED)
    machine.cut_again(f"{name} / {cut}", made, cut, random.Random(0), points_max=1000)
