"""Repair: whatever is done to the files, what is sound is kept and the rest is told."""

import os
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final

import apsw
import pytest

from holdfast.errors import StoreCorrupt, StoreTooNew
from holdfast.store.quick_verify import quick_verify
from holdfast.store.salvage import repair
from holdfast.store.schema import FORMAT
from holdfast.store.sound import open_sound
from holdfast.store.sqlite import FILE_NAME
from tests.store.damage import (
    ASIDE,
    NOW,
    PAGE,
    TABLES,
    WAL,
    Damaged,
    content,
    cut,
    flip,
    overwrite,
    settled,
    zero,
)
from tests.store.support import folder_content

# More of the random damage, for a longer run: a multiple of what is usual.
TIMES: Final = int(os.environ.get("SALVAGE_TIMES", "1"))
# What goes with a row of a table that is lost.
FOLLOWING: Final = {
    "sessions": {"sessions", "states", "subscriptions", "log", "losses"},
    "log": {"log", "states"},  # what was in flight is taken out of a state
    "topics": {"topics"},
}


def test_a_sound_store_comes_out_as_it_was(damaged: Damaged) -> None:
    report = damaged.repair()
    assert damaged.lost() == set()
    assert not report.is_damaged
    assert (report.next_lsn, report.next_session) == (
        damaged.counters["next_lsn"],
        damaged.counters["next_session"],
    )


def test_the_store_of_these_tests_has_everything(damaged: Damaged) -> None:
    assert all(damaged.before[table] for table in TABLES)
    for table in ("log", "sessions", "subscriptions", "topics", "retained", "delayed"):
        pages = [page for page, owner in damaged.where.owners.items() if owner == table]
        assert len(pages) > 1, f"{table} has one page"
    assert {"overflow", "free", "pointer map"} <= set(damaged.where.owners.values())


@pytest.mark.parametrize("part", range(4))
def test_every_page_can_be_zeros(damaged: Damaged, part: int) -> None:
    for number in range(1 + part, damaged.where.count + 1, 4):
        zero(damaged.file, number)
        owner = damaged.where.owners.get(number, "")
        report = damaged.repair()
        lost = damaged.lost()
        rows = damaged.where.rows.get(number, []) if owner in (*TABLES, "overflow") else []
        tables = {table for table, _ in rows if table in TABLES}
        allowed = tables.union(*(FOLLOWING.get(table, set()) for table in tables))
        # The index knows the names of topics as well.
        assert lost <= allowed - {"topics"}, f"page {number} of {owner}: {lost}"
        if owner in TABLES and owner != "topics":
            assert owner in lost
        after = content(damaged.folder)
        if "sessions" not in tables:
            for table in tables - {"states"}:
                gone = damaged.before[table].keys() - after[table].keys()
                assert gone <= {key for name, key in rows if name == table}, f"page {number}"
        assert report.findings or owner == "free" or report.is_damaged, (
            f"page {number} of {owner} is passed over in silence"
        )
        damaged.again()


@pytest.mark.parametrize("seed", range(4 * TIMES))
def test_bytes_can_be_others_anywhere(damaged: Damaged, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(12):
        number = chance.randrange(1, damaged.where.count + 1)
        start = (number - 1) * PAGE
        match chance.randrange(4):
            case 0:
                flip(damaged.file, start * 8 + chance.randrange(PAGE * 8))
            case 1:  # the head of a page, where a bit matters most
                flip(damaged.file, start * 8 + chance.randrange(200))
            case 2:  # a sector
                overwrite(damaged.file, start + chance.randrange(8) * 512, bytes(512))
            case _:
                data = chance.randbytes(chance.choice((1, 8, 64)))
                overwrite(damaged.file, start + chance.randrange(PAGE - 64), data)
        try:
            damaged.repair()
        except StoreTooNew:
            assert number == 1  # its format reads as one to come
        rows = damaged.where.rows.get(number, [])
        tables = {table for table, _ in rows if table in TABLES}
        assert damaged.lost() <= tables.union(*(FOLLOWING.get(table, set()) for table in tables))
        damaged.again()


@pytest.mark.parametrize("seed", range(2 * TIMES))
def test_a_page_can_be_that_of_another_place(damaged: Damaged, seed: int) -> None:
    """A write that went astray is sound by itself, with all its checksums."""
    chance = random.Random(seed)
    data = damaged.file.read_bytes()
    live = [number for number in damaged.where.owners if number not in damaged.where.free]
    for _ in range(12):
        number, other = chance.choice(live), chance.choice(live)
        overwrite(damaged.file, (number - 1) * PAGE, data[(other - 1) * PAGE : other * PAGE])
        damaged.repair()
        rows = damaged.where.rows.get(number, [])
        tables = {table for table, _ in rows if table in TABLES}
        assert damaged.lost() <= tables.union(*(FOLLOWING.get(table, set()) for table in tables))
        damaged.again()


def test_the_file_can_be_cut_anywhere(damaged: Damaged) -> None:
    chance = random.Random(1)
    count = damaged.where.count
    for number in sorted(chance.sample(range(3, count), 14)):
        cut(damaged.file, number * PAGE + chance.choice((0, 0, 100, 2048)))
        report = damaged.repair()
        assert any("cut short" in finding for finding in report.findings)
        after = content(damaged.folder)
        gone = {
            row for page in range(number + 1, count + 1) for row in damaged.where.rows.get(page, [])
        }
        if not any(table == "sessions" for table, _ in gone):
            for table in set(TABLES) - {"states", "topics"}:
                missing = damaged.before[table].keys() - after[table].keys()
                assert missing <= {key for name, key in gone if name == table}, f"{table} {number}"
        damaged.again()


class TestTheHeadOfTheFile:
    def test_without_it_nothing_is_lost(self, damaged: Damaged) -> None:
        overwrite(damaged.file, 0, bytes(100))
        report = damaged.repair()
        assert damaged.lost() == set()
        assert f"{FILE_NAME} does not begin like a SQLite file" in report.findings

    def test_nor_is_the_map_of_the_pages(self, damaged: Damaged) -> None:
        """The first two pages are gone; the tables lie where a new store has them."""
        overwrite(damaged.file, 0, bytes(2 * PAGE))
        damaged.repair()
        assert damaged.lost() == set()

    @pytest.mark.parametrize("offset", range(0, 100, 4))
    def test_each_part_of_it_can_be_anything(self, damaged: Damaged, offset: int) -> None:
        overwrite(damaged.file, offset, b"\xa5\x5a\x81\x18")
        try:
            damaged.repair()
        except StoreTooNew:
            assert offset == 60
        else:
            # Where it says how many pages the file has, it is believed against the file's size.
            assert offset == 28 or damaged.lost() == set()

    def test_a_format_to_come_is_left_alone(self, damaged: Damaged) -> None:
        overwrite(damaged.file, 60, struct.pack(">i", FORMAT + 1))
        before = folder_content(damaged.folder)
        with pytest.raises(StoreTooNew):
            repair(damaged.folder)
        assert folder_content(damaged.folder) == before


def _foreign(path: Path) -> None:
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE log (a, b); INSERT INTO log VALUES (1, 'x')").fetchall()
    connection.close()


def _foreign_with_id(path: Path) -> None:
    _foreign(path)
    connection = apsw.Connection(str(path))
    connection.pragma("application_id", 0x12345678)
    connection.close()


@pytest.mark.parametrize(
    "make",
    [
        _foreign,
        _foreign_with_id,
        lambda path: path.write_bytes(b"minutes of the meeting\n" * 1000),
        lambda path: path.write_bytes(bytes(3 * PAGE)),
    ],
)
@pytest.mark.parametrize("open_it", [repair, open_sound])
def test_what_is_no_store_is_left_alone(
    tmp_path: Path, make: Callable[[Path], object], open_it: Callable[[Path], object]
) -> None:
    make(tmp_path / FILE_NAME)
    before = folder_content(tmp_path)
    with pytest.raises(StoreCorrupt):
        open_it(tmp_path)
    assert folder_content(tmp_path) == before


def _frames(folder: Path) -> int:
    return ((folder / WAL).stat().st_size - 32) // (PAGE + 24)


class TestTheWriteAheadLog:
    def test_it_counts(self, killed: Path) -> None:
        before = settled(killed)
        assert before["log"]
        report = repair(killed, now=NOW)
        assert content(killed) == before
        assert not report.is_damaged
        assert report.set_aside == [ASIDE, f"{ASIDE}-wal"]

    def test_cut_anywhere_it_counts_up_to_there(self, killed: Path) -> None:
        whole = folder_content(killed)
        chance = random.Random(2)
        for _ in range(12):
            cut(killed / WAL, chance.randrange(33, len(whole[WAL])))
            before = settled(killed)
            assert quick_verify(killed / FILE_NAME).findings == []
            repair(killed, now=NOW)
            assert content(killed) == before
            _put_back(killed, whole)

    def test_the_last_commit_torn_is_what_a_power_cut_leaves(self, killed: Path) -> None:
        frames = _frames(killed)
        overwrite(killed / WAL, 32 + (frames - 1) * (PAGE + 24) + 100, b"torn")
        before = settled(killed)
        assert quick_verify(killed / FILE_NAME).findings == []
        report = repair(killed, now=NOW)
        assert content(killed) == before
        assert not report.wal.is_damaged
        assert report.wal.frames_lost > 0

    def test_torn_in_its_midst_it_has_lost_what_was_acknowledged(self, killed: Path) -> None:
        frames = _frames(killed)
        whole = folder_content(killed)
        for frame in range(1, frames // 2, 7):
            flip(killed / WAL, (32 + frame * (PAGE + 24) + 24 + 50) * 8)
            before = settled(killed)
            assert (
                "more than a power cut can have left"
                in quick_verify(killed / FILE_NAME).findings[0]
            )
            report = repair(killed, now=NOW)
            after = content(killed)
            if after["losses"]:
                before["losses"] = after["losses"]
            assert after == before
            assert report.is_damaged
            assert report.wal.is_damaged
            assert report.wal.commits_lost > 1
            assert report.tail_lost_from > 0
            assert report.next_lsn > 1_000_000
            subscribed = {key[0] for key in after["subscriptions"]}
            assert {session.number for session in report.sessions} == subscribed
            _put_back(killed, whole)

    def test_its_head_is_not_needed(self, killed: Path) -> None:
        before = settled(killed)
        overwrite(killed / WAL, 0, bytes(32))
        report = repair(killed, now=NOW)
        assert report.findings == [f"the head of {WAL} is damaged"]
        after = content(killed)
        assert {table: after[table] for table in TABLES if table != "losses"} == {
            table: before[table] for table in TABLES if table != "losses"
        }

    def test_it_is_enough_without_the_file(self, killed: Path) -> None:
        before = settled(killed)
        (killed / FILE_NAME).unlink()
        repair(killed, now=NOW)
        after = content(killed)
        # What was not changed since the last checkpoint is gone with the file.
        for table in TABLES:
            assert all(before[table].get(key) == row for key, row in after[table].items())


def _put_back(folder: Path, files: dict[str, bytes]) -> None:
    for path in folder.iterdir():
        path.unlink()
    for name, data in files.items():
        (folder / name).write_bytes(data)


def test_lost_retained_messages_are_named(damaged: Damaged) -> None:
    pages = [page for page, owner in damaged.where.owners.items() if owner == "retained"]
    zero(damaged.file, pages[-1])
    report = damaged.repair()
    numbers = {key[0] for _, key in damaged.where.rows[pages[-1]]}
    names = {row[1] for row in damaged.before["topics"].values() if row[0] in numbers}
    assert names
    assert set(report.retained_lost) == names
