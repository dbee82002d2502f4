"""The replacement of a damaged store, and the start on one."""

import os
from math import inf
from pathlib import Path

import pytest

from holdfast.errors import StoreCorrupt, StoreError
from holdfast.store import salvage
from holdfast.store.folder import OPEN_MARK
from holdfast.store.quick_verify import quick_verify
from holdfast.store.salvage import finish_repair, repair
from holdfast.store.sound import mark_closed, open_sound
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
    is_sound,
    settled,
    zero,
)
from tests.store.support import folder_content


class Crash(BaseException):
    """The process ends here."""


class TestTheReplacement:
    @pytest.mark.parametrize("calls", range(4))
    def test_a_crash_leaves_the_old_store_or_the_new_one(
        self, killed: Path, monkeypatch: pytest.MonkeyPatch, calls: int
    ) -> None:
        """The folder is flushed after each step; a crash comes right before one of these."""
        before = settled(killed)
        left = calls

        def flush_or_crash(_folder: Path) -> None:
            nonlocal left
            if left == 0:
                raise Crash
            left -= 1

        with monkeypatch.context() as patched:
            patched.setattr(salvage, "sync_folder", flush_or_crash)
            if calls < 3:
                with pytest.raises(Crash):
                    repair(killed, now=NOW)
            else:
                repair(killed, now=NOW)
        store, report = open_sound(killed)
        store.close()
        assert report is None
        assert content(killed) == before
        assert (killed / ASIDE).exists()
        assert (killed / f"{ASIDE}-wal").exists()

    def test_without_second_names_there_are_copies(
        self, killed: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = folder_content(killed)

        def refuse(_old: Path, _new: Path) -> None:
            raise PermissionError

        monkeypatch.setattr(os, "link", refuse)
        repair(killed, now=NOW)
        assert (killed / ASIDE).read_bytes() == before[FILE_NAME]
        assert (killed / f"{ASIDE}-wal").read_bytes() == before[WAL]

    def test_what_cannot_be_written_leaves_the_old_store(
        self, killed: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = folder_content(killed)

        def fail(_descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(StoreError, match="No space left"):
            repair(killed, now=NOW)
        assert folder_content(killed) == before

    def test_a_second_one_at_the_same_time_has_another_name(self, killed: Path) -> None:
        repair(killed, now=NOW)
        assert repair(killed, now=NOW).set_aside == [f"{ASIDE}-2"]

    def test_it_takes_the_mark_of_an_open_store_with_it(self, killed: Path) -> None:
        """The mark would stand for the write-ahead log, which is set aside."""
        (killed / OPEN_MARK).touch()
        repair(killed, now=NOW)
        assert not (killed / OPEN_MARK).exists()

    def test_there_is_nothing_to_finish_in_a_usual_folder(self, killed: Path) -> None:
        before = folder_content(killed)
        finish_repair(killed)
        assert folder_content(killed) == before


class TestTheStart:
    def test_a_sound_store_is_opened(self, killed: Path) -> None:
        before = settled(killed)
        store, report = open_sound(killed)
        store.close()
        assert report is None
        assert content(killed) == before

    def test_an_empty_folder_gets_a_store(self, tmp_path: Path) -> None:
        store, report = open_sound(tmp_path / "new")
        assert report is None
        assert store.load().next_lsn == 1
        store.close()

    @pytest.mark.parametrize("table", ["log", "sessions", "topics", "sqlite_autoindex_topics_1"])
    def test_damage_is_found_repaired_and_told(
        self, damaged: Damaged, table: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        number = max(page for page, owner in damaged.where.owners.items() if owner == table)
        zero(damaged.file, number)
        store, report = open_sound(damaged.folder)
        store.close()
        assert report is not None
        assert report.findings
        assert is_sound(damaged.folder)
        assert report.report_file in caplog.text
        assert report.set_aside[0] in caplog.text
        assert all(record.levelname == "ERROR" for record in caplog.records)

    def test_zeros_in_the_place_of_a_checksum_are_found(self, damaged: Damaged) -> None:
        """The end of a long row lies in a page of its own, and its last column is the checksum."""
        pages = [page for page, owner in damaged.where.owners.items() if owner == "overflow"]
        for number in pages[:8]:
            zero(damaged.file, number)
            assert quick_verify(damaged.file).findings
            damaged.again()

    def test_a_large_store_is_looked_at_in_part(self, damaged: Damaged) -> None:
        number = next(page for page, owner in damaged.where.owners.items() if owner == "log")
        zero(damaged.file, number)
        found = quick_verify(damaged.file, whole_bytes_max=0)
        assert found.findings == []
        assert found.skipped == ["all tables"]
        damaged.again()
        cut(damaged.file, damaged.file.stat().st_size // 2)
        assert quick_verify(damaged.file, whole_bytes_max=0).findings

    def test_all_of_a_large_store_is_looked_at_when_damage_was_met(self, damaged: Damaged) -> None:
        number = next(page for page, owner in damaged.where.owners.items() if owner == "log")
        zero(damaged.file, number)
        assert quick_verify(damaged.file, whole_bytes_max=inf, budget_s=inf).findings

    def test_a_look_ends_when_its_time_is_over(self, damaged: Damaged) -> None:
        found = quick_verify(damaged.file, budget_s=-1.0)
        assert found.findings == []
        assert set(found.skipped) == {*TABLES, "meta"}

    def test_strict_refuses_and_touches_nothing(self, damaged: Damaged) -> None:
        number = next(page for page, owner in damaged.where.owners.items() if owner == "log")
        zero(damaged.file, number)
        before = folder_content(damaged.folder)
        with pytest.raises(StoreCorrupt, match=r"holdfast store repair "):
            open_sound(damaged.folder, strict=True)
        assert folder_content(damaged.folder) == before

    def test_a_store_that_was_in_use_is_ours_whatever_it_looks_like(self, tmp_path: Path) -> None:
        open_sound(tmp_path)[0].close()
        (tmp_path / FILE_NAME).write_bytes(bytes(5 * PAGE))
        store, report = open_sound(tmp_path)
        assert store.load().next_lsn > 1  # what was given out is not known
        store.close()
        assert report is not None
        assert report.is_empty
        mark_closed(tmp_path)

    def test_a_missing_write_ahead_log_is_told(
        self, killed: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        store, _ = open_sound(killed)
        store.close()
        assert not (killed / WAL).exists()
        mark_closed(killed)
        open_sound(killed)[0].close()
        assert caplog.records == []
        open_sound(killed)[0].close()
        assert "its write-ahead log is not there" in caplog.text
