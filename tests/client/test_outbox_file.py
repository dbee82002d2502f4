"""The outbox file: each of its promises, a random walk, and who may have it."""

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import apsw
import pytest

from holdfast.client import outbox
from holdfast.client.outbox import OutboxFile
from holdfast.client.records import (
    ClearIncoming,
    FreeIncoming,
    HoldIncoming,
    Record,
    ReleaseOutgoing,
    RemoveOutgoing,
    SetNumbers,
    SetSession,
    StoreOutgoing,
)
from holdfast.errors import StoreError, StoreLocked
from tests.client.outbox_support import OutboxModel, any_commit, outgoing, quick_folder, shown

NAME: Final = "meter.db"


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    with quick_folder(tmp_path) as folder:
        yield folder / NAME


@pytest.fixture
def file(path: Path) -> Iterator[OutboxFile]:
    opened = OutboxFile(path)
    yield opened
    opened.close()


def after_reopening(path: Path) -> tuple[object, ...]:
    """What a file shows to the next process."""
    opened = OutboxFile(path)
    try:
        return shown(opened)
    finally:
        opened.close()


def check(file: OutboxFile, records: list[Record], expected: list[Record]) -> None:
    """Commit these; the file must then show what the others come to, after a new start as well."""
    model = OutboxModel()
    model.commit(expected)
    file.commit(records)
    assert shown(file) == model.content()
    file.close()
    assert after_reopening(file.path) == model.content()


class TestContent:
    def test_a_new_file_holds_nothing(self, file: OutboxFile) -> None:
        loaded = file.load()
        assert (loaded.client_id, loaded.has_session) == ("", False)
        assert (loaded.next_seq, loaded.next_delivery_id) == (1, 1)
        assert loaded.outgoing == []
        assert loaded.incoming == []
        assert not file.has_failed

    def test_messages_come_back_in_order_with_all_they_have(self, file: OutboxFile) -> None:
        properties = b"\x26\x00\x01k\x00\x01\xc3"
        sent = StoreOutgoing(7, "a/é/007", b"\x00\xff" * 3000, 2, True, properties, 2**42, 2**41)
        file.commit([outgoing(9), sent])
        found = file.load().outgoing
        assert [entry.seq for entry in found] == [7, 9]
        first = found[0]
        assert (first.topic, first.payload, first.qos, first.retain) == (
            "a/é/007",
            b"\x00\xff" * 3000,
            2,
            True,
        )
        assert (first.packed_properties, first.expires_at_ms, first.queued_at_ms) == (
            properties,
            2**42,
            2**41,
        )
        assert not first.is_released
        assert not found[1].retain

    def test_a_released_message_keeps_its_place_without_its_body(self, file: OutboxFile) -> None:
        file.commit([outgoing(1), outgoing(2, b"s3cret" * 5000, qos=2), outgoing(3)])
        pages = pages_in_use(file)
        file.commit([ReleaseOutgoing(2)])
        assert [(entry.seq, entry.is_released) for entry in file.load().outgoing] == [
            (1, False),
            (2, True),
            (3, False),
        ]
        assert pages_in_use(file) < pages - 5
        check(file, [RemoveOutgoing(2)], [outgoing(1), outgoing(3)])

    def test_what_is_stored_and_done_in_one_commit_leaves_its_number_only(
        self, file: OutboxFile
    ) -> None:
        check(
            file,
            [outgoing(1), ReleaseOutgoing(1), RemoveOutgoing(1), outgoing(2), RemoveOutgoing(2)],
            [SetNumbers(3, 1)],
        )

    def test_numbers_never_go_back(self, file: OutboxFile) -> None:
        file.commit([outgoing(41), HoldIncoming(7, 12, False)])
        file.commit([RemoveOutgoing(41), FreeIncoming(7)])
        file.close()
        for numbers in (SetNumbers(1, 1), SetNumbers(42, 13)):
            opened = OutboxFile(file.path)
            opened.commit([numbers])
            assert (opened.load().next_seq, opened.load().next_delivery_id) == (42, 13)
            opened.close()
        opened = OutboxFile(file.path)
        opened.commit([SetNumbers(50, 20)])
        opened.close()
        opened = OutboxFile(file.path)
        assert (opened.load().next_seq, opened.load().next_delivery_id) == (50, 20)
        opened.close()

    def test_identifiers_are_held_once_each_until_they_are_free(self, file: OutboxFile) -> None:
        file.commit([HoldIncoming(1, 1, False), HoldIncoming(65_535, 2, False)])
        check(
            file,
            [HoldIncoming(1, 1, True), FreeIncoming(65_535), FreeIncoming(9)],
            [HoldIncoming(2, 2, True), FreeIncoming(2), HoldIncoming(1, 1, True)],
        )

    def test_with_the_session_all_identifiers_go(self, file: OutboxFile) -> None:
        file.commit([HoldIncoming(1, 1, False), HoldIncoming(2, 2, True)])
        check(
            file,
            [HoldIncoming(3, 3, False), ClearIncoming(), HoldIncoming(2, 4, False)],
            [HoldIncoming(2, 4, False)],
        )

    def test_a_client_that_is_given_a_name_keeps_it(self, file: OutboxFile) -> None:
        file.commit([SetSession("holdfast-1f", False)])
        check(file, [SetSession("holdfast-1f", True)], [SetSession("holdfast-1f", True)])

    def test_removing_what_is_not_there_does_nothing(self, file: OutboxFile) -> None:
        file.commit([outgoing(2)])
        check(file, [RemoveOutgoing(1), FreeIncoming(3)], [outgoing(2)])

    def test_committing_again_what_a_failed_commit_held_is_no_harm(self, file: OutboxFile) -> None:
        records: list[Record] = [outgoing(1, qos=2), ReleaseOutgoing(1), HoldIncoming(1, 1, True)]
        file.commit(records)
        check(file, records, records)

    def test_nothing_is_no_commit(self, file: OutboxFile) -> None:
        before = file.path.with_name(f"{NAME}-wal").stat().st_size
        file.commit([])
        assert file.path.with_name(f"{NAME}-wal").stat().st_size == before


@pytest.mark.parametrize("seed", range(6))
def test_a_random_walk(path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Commits, new starts, upkeep: the file shows what the model does."""
    monkeypatch.setattr(outbox, "CHECKPOINT_FRAMES", 20)
    monkeypatch.setattr(outbox, "VACUUM_ABOVE_BYTES", 20_000)
    monkeypatch.setattr(outbox, "VACUUM_PAGES", 2)
    rng = random.Random(seed)
    model = OutboxModel()
    file = OutboxFile(path)
    for _ in range(80):
        match rng.randrange(12):
            case 0:
                file.close()
                file = OutboxFile(path)
            case 1:
                file.maintain()
            case 2:
                file.reopen()
            case _:
                file.commit(any_commit(rng, model))
        assert shown(file) == model.content(), f"seed {seed}"
    file.close()
    connection = apsw.Connection(str(path))
    assert connection.pragma("integrity_check") == "ok"
    connection.close()


HOLDER: Final = """
import sys
from holdfast.client.outbox import OutboxFile
from holdfast.client.records import StoreOutgoing

file = OutboxFile(sys.argv[1])
for seq in range(1, 51):
    file.commit([StoreOutgoing(seq, "a", b"x" * 500, 1, False, b"", 0, 1)])
    print(seq, flush=True)
sys.stdin.readline()
"""


def start_holder(path: Path) -> "subprocess.Popen[str]":
    """Another process that has the file, and commits to it."""
    return subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


class TestLock:
    def test_a_second_process_is_refused_at_once_and_told_who_has_it(self, path: Path) -> None:
        with start_holder(path) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "1\n"
            with pytest.raises(StoreLocked) as refused:
                OutboxFile(path)
            assert f"{path} is in use by another client (pid {holder.pid} on " in str(refused.value)
            holder.kill()

    def test_after_kill_9_the_next_has_all_that_was_committed(self, path: Path) -> None:
        with start_holder(path) as holder:
            assert holder.stdout is not None
            committed = [int(holder.stdout.readline()) for _ in range(20)]
            holder.send_signal(signal.SIGKILL)
            holder.wait()
            committed += [int(line) for line in holder.stdout.read().split()]
            file = OutboxFile(path)
            found = [entry.seq for entry in file.load().outgoing]
            assert found[: len(committed)] == committed
            assert len(found) <= len(committed) + 1
            file.commit([outgoing(found[-1] + 1)])
            file.close()

    def test_a_second_in_this_process_is_refused_by_any_name(
        self, file: OutboxFile, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = file.path.parent
        link = folder / "link.db"
        link.symlink_to(file.path)
        monkeypatch.chdir(folder)
        for name in (file.path, str(file.path), link, NAME, f"../{folder.name}/{NAME}"):
            with pytest.raises(StoreLocked, match=f"pid {os.getpid()} "):
                OutboxFile(name)
        file.commit([outgoing(1)])

    def test_a_closed_file_is_free_and_says_so(self, file: OutboxFile) -> None:
        file.close()
        file.close()
        with pytest.raises(StoreError, match="not open"):
            file.commit([outgoing(1)])
        with pytest.raises(StoreError, match="not open"):
            file.load()
        assert file.has_failed
        OutboxFile(file.path).close()

    def test_a_file_that_is_refused_is_not_held(self, path: Path) -> None:
        path.write_bytes(b"something else" * 100)
        for _ in range(2):
            with pytest.raises(StoreError, match="not a SQLite database"):
                OutboxFile(path)


def test_another_thread_may_commit_and_close(path: Path) -> None:
    file = OutboxFile(path)

    def work() -> None:
        file.commit([outgoing(1)])
        file.close()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    opened = OutboxFile(path)
    assert len(opened.load().outgoing) == 1
    opened.close()


class TestSpace:
    def test_the_file_shrinks_after_a_backlog(self, path: Path) -> None:
        """While it goes out, in steps; what is left of it when nothing is to be done."""
        file = OutboxFile(path)
        body = b"x" * 4000
        for first in range(1, 4001, 500):
            file.commit([outgoing(seq, body) for seq in range(first, first + 500)])
        largest = path.stat().st_size
        assert largest > 15_000_000
        file.commit([outgoing(4001)])
        for first in range(1, 4001, 100):
            file.commit([RemoveOutgoing(seq) for seq in range(first, first + 100)])
        steps = 0
        while file.maintain():
            steps += 1
            assert steps < 1000
        assert path.stat().st_size < outbox.VACUUM_ABOVE_BYTES
        assert path.with_name(f"{NAME}-wal").stat().st_size <= outbox.WAL_BYTES_MAX
        assert [entry.seq for entry in file.load().outgoing] == [4001]
        file.close()

    def test_a_large_commit_leaves_no_large_log(self, path: Path) -> None:
        file = OutboxFile(path)
        file.commit([outgoing(seq, b"x" * 8000) for seq in range(1, 2001)])
        file.commit([outgoing(2001)])
        assert path.with_name(f"{NAME}-wal").stat().st_size <= outbox.WAL_BYTES_MAX
        file.close()

    def test_all_goes_on_while_another_program_looks(self, path: Path) -> None:
        file = OutboxFile(path)
        file.commit([outgoing(1)])
        reader = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM outgoing").fetchall() == [(1,)]
        for seq in range(2, 200):
            file.commit([outgoing(seq, b"x" * 9000), RemoveOutgoing(seq - 1)])
        assert reader.execute("SELECT count(*) FROM outgoing").fetchall() == [(1,)]
        reader.close()
        file.maintain()
        assert [entry.seq for entry in file.load().outgoing] == [199]
        file.close()


def pages_in_use(file: OutboxFile) -> int:
    connection = apsw.Connection(str(file.path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        count = connection.pragma("page_count")
        free = connection.pragma("freelist_count")
        assert isinstance(count, int)
        assert isinstance(free, int)
        return count - free
    finally:
        connection.close()
