"""The power fails at any moment: an outbox file then holds a prefix of the commits.

That prefix is exact, and all that returned are in it. ``tests/store/power_vfs`` is the disk,
``power_machine`` cuts and judges, ``power_outbox`` is what is asked of the file. For longer:
HOLDFAST_POWER_SEEDS=500 is the number of long workloads; HOLDFAST_POWER_CASE plays a case again.
"""

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import apsw
import pytest

from holdfast.client import outbox
from holdfast.client.outbox import OutboxFile
from holdfast.client.records import Record, ReleaseOutgoing, StoreOutgoing
from holdfast.disk import connection as disk_connection
from holdfast.disk.connection import Writing
from tests.client.outbox_support import OutboxModel, quick_folder
from tests.client.power_outbox import OutboxShown, OutboxSubject, long, short
from tests.store.power_machine import KILLED, Cut, Machine, Start, flush

SEEDS: Final = int(os.environ.get("HOLDFAST_POWER_SEEDS", "2"))
FIRST: Final = int(os.environ.get("HOLDFAST_POWER_FIRST", "1"))
CASE: Final = os.environ.get("HOLDFAST_POWER_CASE", "")
IS_LONG: Final = SEEDS > 20
LONG_CALLS: Final = 40
pytestmark = pytest.mark.timeout(0 if IS_LONG else 120)
KNOWN: Final = ["short / 40 sectors 3 / 12 whole 0"]

OutboxMachine = Machine[OutboxFile, OutboxModel, OutboxShown]


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[OutboxMachine]:
    with quick_folder(tmp_path) as folder:
        yield Machine(OutboxSubject(), folder, start_of, thorough=1 if IS_LONG or CASE else 5)


def start_of(name: str) -> Start[OutboxFile, OutboxModel, OutboxShown]:
    """How the cases of this name begin."""
    match name.split():
        case ["short"]:
            return Start(short)
        case ["long", seed]:
            return Start(long(int(seed), LONG_CALLS))
        case ["lie", number, reached]:
            reached_seed = None if reached == "none" else int(reached)
            return Start(short, lie=flush(int(number)), reached=reached_seed)
    raise AssertionError(name)


@pytest.mark.parametrize("case", [CASE] if CASE else KNOWN)
def test_a_case_plays_again(machine: OutboxMachine, case: str) -> None:
    machine.play(case)


@pytest.mark.spec("MQTT5-4.1.0-1")
@pytest.mark.spec("MQTT311-4.1.0-1")
def test_a_power_cut_at_every_write_and_flush(machine: OutboxMachine) -> None:
    made = machine.begin("short")
    points = list(range(len(made.events) + 1))
    again = 50 if IS_LONG else 200
    machine.try_all("short", made, points, 8 if IS_LONG else 2, again, random.Random("short"))
    assert machine.cuts > 1000
    assert machine.different > 400


@pytest.mark.parametrize("seed", range(FIRST, FIRST + SEEDS))
def test_power_cuts_in_a_long_workload(machine: OutboxMachine, seed: int) -> None:
    name = f"long {seed}"
    made = machine.begin(name)
    rng = random.Random(seed)
    points = sorted(rng.sample(range(len(made.events) + 1), 60 if IS_LONG else 25))
    machine.try_all(name, made, points, 1, 80, rng)


def test_a_power_cut_after_a_kill(machine: OutboxMachine) -> None:
    """What was written and not flushed is found by the next start, and must stay from then on."""
    made = machine.begin("short")
    rng = random.Random("killed")
    points = range(len(made.events) + 1)
    for at in points if IS_LONG else sorted(rng.sample(points, 12)):
        cut = Cut(at, KILLED)
        machine.cut_again(f"short / {cut}", made, cut, rng, points_max=10)


@pytest.mark.parametrize("reached", ["none", "1"])
def test_a_flush_that_fails_loses_nothing_that_was_promised(
    machine: OutboxMachine, reached: str
) -> None:
    """The pages are gone, but the system's cache shows them, and the next flush succeeds."""
    flushes = range(sum(event.kind == "sync" for event in machine.begin("short").events))
    rng = random.Random(f"lie {reached}")
    for number in flushes if IS_LONG else sorted(rng.sample(flushes, 8)):
        name = f"lie {number} {reached}"
        made = machine.begin(name)
        end = len(made.events)
        assert sum(event.kind == "lost" for event in made.events) == 1
        machine.try_all(name, made, [end], 2, 0, rng)
        # After the next start all is well, or a flush fails again, and a third start follows.
        for again in [0, 1, 2, 4, 6] if IS_LONG else [0, rng.randint(1, 8)]:
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


def _commit_in_two(patch: pytest.MonkeyPatch) -> None:
    """New messages in a transaction of their own, after the rest."""
    commit = OutboxFile.commit

    def careless(file: OutboxFile, records: list[Record]) -> None:
        stored: list[Record] = [one for one in records if isinstance(one, StoreOutgoing)]
        commit(file, [one for one in records if not isinstance(one, StoreOutgoing)])
        commit(file, stored)

    patch.setattr(OutboxFile, "commit", careless)


def _bodies_go_first(patch: pytest.MonkeyPatch) -> None:
    """A message is removed by a transaction before that which says that it is released."""
    commit = OutboxFile.commit

    def careless(file: OutboxFile, records: list[Record]) -> None:
        for one in records:
            if isinstance(one, ReleaseOutgoing):
                writing = file._opened()
                with writing.transaction("careless"):
                    writing.cursor.execute("DELETE FROM outgoing WHERE seq = ?", (one.seq,))
        commit(file, records)

    patch.setattr(OutboxFile, "commit", careless)


def _log_not_written_again(patch: pytest.MonkeyPatch) -> None:
    """What a failed flush has lost of the log is not written again at the start."""
    patch.setattr(outbox, "rewrite_wal", lambda _path, _vfs: None)


def _commits_after_a_failure(patch: pytest.MonkeyPatch) -> None:
    """A commit whose flush failed is simply tried again."""
    patch.setattr(Writing, "refuse_after_failure", lambda _writing: None)


@pytest.mark.parametrize(
    ("plant", "name"),
    [
        (_unflushed("off"), "short"),
        (_unflushed("normal"), "short"),
        (_commit_in_two, "short"),
        (_bodies_go_first, "short"),
        (_log_not_written_again, "lie"),
        (_commits_after_a_failure, "lie"),
    ],
)
def test_the_machine_finds(
    machine: OutboxMachine,
    monkeypatch: pytest.MonkeyPatch,
    plant: Callable[[pytest.MonkeyPatch], None],
    name: str,
) -> None:
    """A proof is worth what it would find: bugs that are planted."""
    plant(monkeypatch)
    with pytest.raises(AssertionError) as found:
        find(machine, name)
    print(found.value)  # -s shows where


def find(machine: OutboxMachine, name: str) -> None:
    """Cut at every event; or, where each flush may fail, wherever one may after the next start."""
    rng = random.Random(0)
    if name == "short":
        made = machine.begin(name)
        machine.try_all(name, made, list(range(len(made.events) + 1)), 1, 0, rng)
        return
    for number in range(4, 20):
        name = f"lie {number} none"
        made = machine.begin(name)
        cut = Cut(len(made.events), KILLED)
        machine.cut_again(f"{name} / {cut}", made, cut, rng, points_max=1000)
