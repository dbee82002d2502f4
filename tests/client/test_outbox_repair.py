"""Repairing a damaged outbox file: all that is sound is kept, and what is lost is said."""

import random
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import apsw
import pytest

from holdfast.client import outbox_repair
from holdfast.client.outbox import OutboxFile
from holdfast.client.outbox_repair import LEAP, OutboxRepair, repair_outbox
from holdfast.client.records import (
    HoldIncoming,
    LoadedOutbox,
    ReleaseOutgoing,
    RemoveOutgoing,
    SetSession,
)
from holdfast.disk.folder import sync_folder
from holdfast.errors import StoreCorrupt, StoreError, StoreLocked, StoreTooNew
from tests.client.outbox_support import OutboxModel, model_of, outgoing, quick_folder, shown
from tests.store.support import folder_content

NAME: Final = "meter.db"
MOMENT: Final = datetime(2026, 3, 7, 12, 30, tzinfo=UTC)
ASIDE: Final = f"{NAME}.damaged-20260307T123000Z"
PAGE: Final = 4096


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    with quick_folder(tmp_path) as folder:
        yield folder / NAME


def fill(path: Path) -> OutboxModel:
    """An outbox in which messages have come and gone."""
    file = OutboxFile(path)
    model = OutboxModel()
    for first in range(1, 601, 50):
        records = [outgoing(seq, b"message %d. " % seq * 10) for seq in range(first, first + 50)]
        model.commit([*records])
        file.commit([*records])
    last = [
        *(RemoveOutgoing(seq) for seq in range(1, 200)),
        *(RemoveOutgoing(seq) for seq in range(300, 600, 3)),
        *(ReleaseOutgoing(seq, seq) for seq in range(200, 230)),
        *(HoldIncoming(number, 1000 + number, number % 2 == 0) for number in range(1, 200)),
        SetSession("meter-7", True),
        outgoing(700, b"large" * 4000),
    ]
    model.commit(last)
    file.commit(last)
    file.close()
    return model


def repaired(path: Path) -> tuple[OutboxRepair, LoadedOutbox]:
    report = repair_outbox(path, MOMENT)
    with closing(OutboxFile(path)) as file:
        return report, file.load()


def check(model: OutboxModel, report: OutboxRepair, loaded: LoadedOutbox) -> int:
    """Nothing is there that was not, nothing is missing unsaid; how many rows are missing."""
    kept = model_of(loaded)
    for seq, content in kept.outgoing.items():
        # Of a message that was released its body may be of the past, and not the other way round.
        assert content == model.outgoing[seq] or len(content) > len(model.outgoing[seq])
    assert kept.incoming.items() <= model.incoming.items()
    missing = len(model.outgoing) - len(kept.outgoing) + len(model.incoming) - len(kept.incoming)
    is_session_kept = kept.client_id == model.client_id
    if missing or not is_session_kept:
        assert report.is_damaged, report
    assert kept.next_seq >= model.next_seq
    assert kept.next_delivery_id >= model.next_delivery_id
    if not is_session_kept:
        assert kept.client_id == ""
        assert kept.next_seq >= LEAP
        assert kept.next_delivery_id >= LEAP
    return missing


def test_a_sound_file_is_left_as_it_is(path: Path) -> None:
    fill(path)
    before = path.read_bytes()
    report = repair_outbox(path, MOMENT)
    assert (report.set_aside, report.findings, report.losses) == ([], [], [])
    assert report.messages > 100
    assert (report.released, report.held, report.client_id) == (30, 199, "meter-7")
    assert path.read_bytes() == before


@pytest.mark.parametrize("pattern", [b"\x00", b"\xa5", b"other page"])
def test_any_page_may_be_damaged(path: Path, pattern: bytes) -> None:
    """All rows of the other pages are kept."""
    model = fill(path)
    sound = path.read_bytes()
    rows = len(model.outgoing) + len(model.incoming)
    damaged = 0
    for start in range(0, len(sound), PAGE):
        filler = sound[-PAGE:] if pattern == b"other page" else pattern * PAGE
        content = sound[:start] + filler + sound[start + PAGE :]
        path.write_bytes(content)
        try:
            report, loaded = repaired(path)
        except StoreCorrupt:
            assert start == 0, "only without its head is it perhaps another program's"
            continue
        missing = check(model, report, loaded)
        assert missing < rows / 2, f"page {start // PAGE + 1}: {report}"
        if report.set_aside:
            damaged += 1
            assert (path.parent / ASIDE).read_bytes() == content
            (path.parent / ASIDE).unlink()
        with closing(OutboxFile(path)) as file:
            file.commit([outgoing(file.load().next_seq)])
    assert damaged > 10


def test_damage_anywhere_at_random(path: Path) -> None:
    model = fill(path)
    sound = path.read_bytes()
    rng = random.Random(7)
    for _ in range(25):
        content = bytearray(sound)
        for _ in range(rng.choice([1, 3, 30])):
            start = rng.randrange(100, len(content) - 64)
            content[start : start + rng.choice([1, 8, 64])] = rng.randbytes(rng.choice([1, 8, 64]))
        del content[len(sound) :]
        path.write_bytes(content)
        report, loaded = repaired(path)
        check(model, report, loaded)


def test_a_file_that_is_cut_short(path: Path) -> None:
    model = fill(path)
    sound = path.read_bytes()
    for size in (len(sound) - PAGE, len(sound) // 2, len(sound) // 2 + 100):
        path.write_bytes(sound[:size])
        report, loaded = repaired(path)
        assert check(model, report, loaded) > 0
        assert any("cut short" in loss or "rows" in loss for loss in report.losses)


def test_a_message_is_not_sent_for_what_a_free_page_still_holds(path: Path) -> None:
    """What was removed is on free pages still."""
    model = fill(path)
    content = bytearray(path.read_bytes())
    assert any(content.count(b"message %d. " % seq) for seq in range(1, 200))
    start = content.index(b"message 250. ") // PAGE * PAGE
    content[start : start + PAGE] = bytes(PAGE)
    path.write_bytes(content)
    report, loaded = repaired(path)
    assert check(model, report, loaded) > 0
    assert {entry.seq for entry in loaded.outgoing} <= model.outgoing.keys()


def test_commits_of_the_write_ahead_log_are_kept(path: Path) -> None:
    """A client was killed, and then a page of the file was damaged."""
    fill(path)
    file = OutboxFile(path)
    file.commit([outgoing(800, b"newest")])
    sound = folder_content(path.parent)
    file.close()
    for name, content in sound.items():
        if not name.endswith("-shm"):
            (path.parent / name).write_bytes(content)
    damaged = bytearray(sound[NAME])
    start = damaged.index(b"message 250. ") // PAGE * PAGE
    damaged[start : start + PAGE] = bytes(PAGE)
    path.write_bytes(damaged)
    report, loaded = repaired(path)
    assert loaded.outgoing[-1].payload == b"newest"
    assert [Path(name).name for name in report.set_aside] == [ASIDE, f"{ASIDE}-wal"]
    assert (path.parent / f"{ASIDE}-wal").read_bytes() == sound[f"{NAME}-wal"]
    names = {entry.name for entry in path.parent.iterdir()}
    assert names == {NAME, f"{NAME}-lock", ASIDE, f"{ASIDE}-wal"}


def test_a_row_that_was_changed_is_left_out(path: Path) -> None:
    model = fill(path)
    connection = apsw.Connection(str(path))
    connection.execute("UPDATE outgoing SET payload = x'00' WHERE seq = 250")
    connection.execute("DELETE FROM session")
    connection.close()
    report, loaded = repaired(path)
    assert check(model, report, loaded) == 1
    assert "1 damaged rows" in report.losses
    assert any("give the client its client_id" in loss for loss in report.losses)


def test_what_is_not_to_be_repaired(path: Path) -> None:
    with pytest.raises(StoreError, match="expected the file of an outbox"):
        repair_outbox(path, MOMENT)
    path.write_bytes(b"shopping list " * 1000)
    with pytest.raises(StoreCorrupt, match="not an outbox"):
        repair_outbox(path, MOMENT)
    path.unlink()
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE songs (title TEXT)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreCorrupt, match="not an outbox"):
        repair_outbox(path, MOMENT)
    assert path.read_bytes() == before
    path.unlink()
    fill(path)
    connection = apsw.Connection(str(path))
    connection.pragma("user_version", 9)
    connection.close()
    with pytest.raises(StoreTooNew):
        repair_outbox(path, MOMENT)
    path.unlink()
    with closing(OutboxFile(path)), pytest.raises(StoreLocked):
        repair_outbox(path, MOMENT)


def test_a_repair_that_fails_leaves_the_damaged_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(path)
    content = bytearray(path.read_bytes())
    content[PAGE * 4 : PAGE * 5] = bytes(PAGE)
    path.write_bytes(content)

    def full(_file: OutboxFile, _records: object) -> None:
        raise StoreError("the disk is full")

    monkeypatch.setattr(OutboxFile, "commit", full)
    with pytest.raises(StoreError, match="full"):
        repair_outbox(path, MOMENT)
    assert path.read_bytes() == content
    left = {entry.name for entry in path.parent.iterdir()}
    assert left <= {NAME, f"{NAME}-lock", f"{NAME}-wal", f"{NAME}-shm"}
    monkeypatch.undo()
    assert shown_after_repair(path)


def test_a_repair_that_is_cut_short_is_finished_by_the_next(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each flush of the folder, after the log of the damaged file is gone too."""
    fill(path)
    killed = OutboxFile(path)
    killed.commit([outgoing(800, b"newest")])
    files = folder_content(path.parent)
    killed.close()
    content = bytearray(files[NAME])
    content[PAGE * 4 : PAGE * 5] = bytes(PAGE)
    found: list[object] = []
    left = 0
    for breaks_at in range(6):
        for name in path.parent.iterdir():
            name.unlink()
        path.write_bytes(content)
        path.with_name(f"{NAME}-wal").write_bytes(files[f"{NAME}-wal"])
        left = breaks_at

        def flush_or_die(folder: Path) -> None:
            nonlocal left
            if left == 0:
                raise KeyboardInterrupt
            left -= 1
            sync_folder(folder)

        monkeypatch.setattr(outbox_repair, "sync_folder", flush_or_die)
        try:
            repair_outbox(path, MOMENT)
        except KeyboardInterrupt:
            monkeypatch.setattr(outbox_repair, "sync_folder", sync_folder)
            repair_outbox(path, MOMENT)
        with closing(OutboxFile(path)) as file:
            found.append(shown(file))
        names = {entry.name for entry in path.parent.iterdir()}
        assert names == {NAME, f"{NAME}-lock", ASIDE, f"{ASIDE}-wal"}
    assert left > 0, "it was cut short at every flush"
    assert all(one == found[0] for one in found)
    assert any(entry[1] == ("a", b"newest", 1, False, b"", 0, 1800) for entry in found[0][1])  # type: ignore[index]  # of ``content``


def shown_after_repair(path: Path) -> tuple[object, ...]:
    repair_outbox(path, MOMENT)
    with closing(OutboxFile(path)) as file:
        return shown(file)
