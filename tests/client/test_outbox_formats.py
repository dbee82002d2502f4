"""Outbox files of every format, those of others, and damaged ones."""

import os
import random
import stat
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import apsw
import pytest

from holdfast.client import outbox, outbox_schema
from holdfast.client.outbox import OutboxFile
from holdfast.client.outbox_schema import FORMAT, KIND
from holdfast.client.records import HoldIncoming, ReleaseOutgoing, SetNumbers, SetSession
from holdfast.disk.file_format import FileKind
from holdfast.errors import StoreCorrupt, StoreError, StoreTooNew
from holdfast.store.sqlite import FILE_NAME, open_store
from tests.client.outbox_support import OutboxModel, model_of, outgoing, quick_folder, shown
from tests.store.support import folder_content

NAME: Final = "meter.db"
FIXTURES: Final = Path(__file__).parent


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    with quick_folder(tmp_path) as folder:
        yield folder / NAME


@pytest.fixture
def no_mask() -> Iterator[None]:
    """A process whose files are everyone's, if it does not say otherwise itself."""
    before = os.umask(0)
    yield
    os.umask(before)


def make_old(path: Path, format_number: int) -> None:
    script = FIXTURES / f"outbox_format_{format_number}.sql"
    connection = apsw.Connection(str(path))
    for _ in connection.execute(script.read_text("utf-8")):
        pass
    connection.close()


def what_it_holds() -> OutboxModel:
    """The content of the fixtures."""
    model = OutboxModel()
    model.client_id, model.has_session = "007", True
    model.next_seq = model.next_delivery_id = 9
    model.sent_below = 5
    model.outgoing = {
        3: ("007", b"\x00gone\xff", 1, False, b"", 0, 2**41),
        4: (5,),
        6: ("a/é", b"42", 2, True, b"\x26\x00\x01k\x00\x01v", 2**42, 2**41 + 1),
    }
    model.incoming = {1: (4, True), 65_535: (7, False)}
    return model


def fill(path: Path, count: int = 400) -> OutboxModel:
    """An outbox of several hundred messages, closed."""
    model = OutboxModel()
    file = OutboxFile(path)
    for seq in range(1, count + 1):
        model.commit([outgoing(seq, b"message %d. " % seq * 20)])
    records = [
        *(outgoing(seq, b"message %d. " % seq * 20) for seq in range(1, count + 1)),
        *(ReleaseOutgoing(seq) for seq in range(1, 20)),
        *(HoldIncoming(number, number, False) for number in range(1, 300)),
        SetSession("c-1", True),
    ]
    model.commit(records)
    file.commit(records)
    file.close()
    return model


@pytest.mark.parametrize("format_number", range(1, FORMAT + 1))
def test_a_file_of_any_format_keeps_all_and_goes_on(path: Path, format_number: int) -> None:
    make_old(path, format_number)
    model = what_it_holds()
    for seq in (9, 10):
        file = OutboxFile(path)
        assert shown(file) == model.content()
        records = [outgoing(seq), HoldIncoming(2, seq, False)]
        model.commit(records)
        file.commit(records)
        file.close()
    connection = apsw.Connection(str(path))
    assert connection.pragma("user_version") == FORMAT
    connection.close()


def test_a_new_file_has_the_tables_of_the_newest_format(tmp_path: Path) -> None:
    query = """
        SELECT t.name, t.wr, t.strict, c.* FROM pragma_table_list AS t
        JOIN pragma_table_xinfo(t.name) AS c WHERE t.name NOT LIKE 'sqlite%' ORDER BY 1, c.cid
    """
    found: list[object] = []
    make_old(tmp_path / "old.db", FORMAT)
    for name in ("old.db", NAME):
        OutboxFile(tmp_path / name).close()
        connection = apsw.Connection(str(tmp_path / name))
        pragmas = [connection.pragma(key) for key in ("application_id", "auto_vacuum")]
        found.append((connection.execute(query).fetchall(), pragmas))
        connection.close()
    assert found[0] == found[1]


def test_a_step_of_migration_that_fails_leaves_the_file_as_it_was(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_old(path, FORMAT)

    def half(connection: apsw.Connection) -> None:
        connection.execute("DELETE FROM outgoing")
        connection.execute("DELETE FROM no_such_table")

    def whole(connection: apsw.Connection) -> None:
        connection.execute("CREATE TABLE more (number INTEGER PRIMARY KEY) STRICT")

    newer = FileKind(KIND.name, KIND.application_id, FORMAT + 1)
    monkeypatch.setattr(outbox, "KIND", newer)
    monkeypatch.setattr(outbox, "MIGRATIONS", [*outbox_schema.MIGRATIONS, half])
    with pytest.raises(StoreError, match="no_such_table"):
        OutboxFile(path)
    monkeypatch.setattr(outbox, "MIGRATIONS", [*outbox_schema.MIGRATIONS, whole])
    for _ in range(2):
        file = OutboxFile(path)
        assert shown(file) == what_it_holds().content()
        file.close()
    monkeypatch.undo()
    with pytest.raises(StoreTooNew, match="newer Holdfast"):
        OutboxFile(path)


@pytest.mark.usefixtures("no_mask")
def test_all_files_are_their_users_alone(path: Path) -> None:
    file = OutboxFile(path)
    file.commit([outgoing(1)])
    modes = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in path.parent.iterdir()}
    file.close()
    assert {NAME, f"{NAME}-wal", f"{NAME}-lock"} <= modes.keys()
    assert set(modes.values()) == {0o600}, modes


def _text(path: Path) -> None:
    path.write_bytes(b"This is somebody's shopping list. " * 9)


def _short(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\x00")


def _foreign(path: Path) -> None:
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE songs (title TEXT)")
    connection.close()


def _of_the_broker(path: Path) -> None:
    open_store(path.parent).close()
    (path.parent / FILE_NAME).rename(path)


def _newer(path: Path) -> None:
    make_old(path, FORMAT)
    content = bytearray(path.read_bytes())
    struct.pack_into(">i", content, 60, FORMAT + 1)
    path.write_bytes(content)


def _impossible(path: Path) -> None:
    make_old(path, FORMAT)
    content = bytearray(path.read_bytes())
    struct.pack_into(">i", content, 60, 0)
    path.write_bytes(content)


def _log_without_its_file(path: Path) -> None:
    path.with_name(f"{NAME}-wal").write_bytes(b"x" * 100)


@pytest.mark.parametrize(
    ("make", "kind", "said"),
    [
        (_text, StoreCorrupt, "is not a SQLite database"),
        (_short, StoreCorrupt, "is not a SQLite database"),
        (_foreign, StoreCorrupt, "is not an outbox of Holdfast"),
        (_of_the_broker, StoreCorrupt, "is not an outbox of Holdfast"),
        (_newer, StoreTooNew, f"its format is {FORMAT + 1}, this one knows up to {FORMAT}"),
        (_impossible, StoreCorrupt, "the format 0, which never existed"),
        (_log_without_its_file, StoreCorrupt, "missing or empty"),
    ],
)
def test_what_is_no_outbox_of_ours_is_refused_and_left_as_it_is(
    path: Path, make: Callable[[Path], None], kind: type[StoreError], said: str
) -> None:
    make(path)
    before = folder_content(path.parent)
    with pytest.raises(kind, match=said) as refused:
        OutboxFile(path)
    assert "repair" not in str(refused.value)
    after = folder_content(path.parent)
    assert after.pop(f"{NAME}-lock")
    assert after == before


def test_an_empty_file_is_fine(path: Path) -> None:
    path.touch()
    file = OutboxFile(path)
    file.commit([SetNumbers(3, 3)])
    file.close()


class TestDamage:
    def test_any_damaged_page_is_told_or_unused(self, path: Path) -> None:
        """Nothing that was readable is lost in silence: all is as it was, or the error says so."""
        model = fill(path)
        sound = path.read_bytes()
        told = 0
        for start in range(0, len(sound), 4096):
            for pattern in (bytes(4096), b"\xa5" * 4096, sound[4096:8192]):
                content = sound[:start] + pattern + sound[start + 4096 :]
                if content == sound or start == 0:
                    continue
                path.write_bytes(content)
                told += self.is_told(path, model)
        assert told > len(sound) // 4096 * 2

    def test_a_flipped_bit_is_told_or_means_nothing(self, path: Path) -> None:
        model = fill(path, 60)
        sound = path.read_bytes()
        rng = random.Random(1)
        told = 0
        for _ in range(80):
            content = bytearray(sound)
            content[rng.randrange(100, len(sound))] ^= 1 << rng.randrange(8)
            path.write_bytes(content)
            told += self.is_told(path, model)
        assert told > 20

    def test_rows_that_a_page_hides_are_missed(self, path: Path) -> None:
        """A leaf that says it has fewer rows than it has, whose rows are all sound."""
        model = fill(path)
        content = bytearray(path.read_bytes())
        hidden = 0
        for start in range(4096, len(content), 4096):
            (cells,) = struct.unpack_from(">H", content, start + 3)
            if content[start] == 0x0D and cells > 1:
                damaged = bytearray(content)
                struct.pack_into(">H", damaged, start + 3, cells - 1)
                path.write_bytes(damaged)
                assert self.is_told(path, model)
                hidden += 1
        assert hidden > 10

    def is_told(self, path: Path, model: OutboxModel) -> bool:
        for name in (f"{NAME}-wal", f"{NAME}-shm"):
            path.with_name(name).unlink(missing_ok=True)
        try:
            file = OutboxFile(path)
        except StoreCorrupt as error:
            self.check_advice(path, error)
            return True
        try:
            assert model_of(file.load()).content() == model.content()
        except StoreCorrupt as error:
            self.check_advice(path, error)
            return True
        finally:
            file.close()
        return False

    @staticmethod
    def check_advice(path: Path, error: StoreCorrupt) -> None:
        text = str(error)
        assert text.startswith(str(path))
        assert "`holdfast outbox repair`" in text or "is not an outbox" in text

    @pytest.mark.parametrize(
        "change",
        [
            "UPDATE outgoing SET payload = x'00' WHERE seq = 50",
            "UPDATE outgoing SET topic = 'b' WHERE seq = 50",
            "UPDATE outgoing SET seq = 401 WHERE seq = 50",
            "UPDATE outgoing SET options = 5 WHERE seq = 50",
            "UPDATE outgoing SET crc = 0 WHERE seq = 50",
            "UPDATE released SET seq = 30 WHERE seq = 3",
            "UPDATE released SET queued_at_ms = 1 WHERE seq = 3",
            "INSERT INTO released SELECT 50, 0, crc FROM released WHERE seq = 3",
            "UPDATE incoming SET is_handed = 1 WHERE packet_id = 5",
            "UPDATE session SET next_seq = 1",
            "UPDATE session SET client_id = 'c-2'",
            "UPDATE session SET sent_below = 9",
            "DELETE FROM session",
            "INSERT INTO session SELECT 2, '', 0, 1, 1, 1, 0",
            "DROP TABLE incoming",
            "ALTER TABLE outgoing RENAME COLUMN topic TO subject",
        ],
    )
    def test_a_row_that_is_not_as_it_was_written_is_told(self, path: Path, change: str) -> None:
        fill(path)
        connection = apsw.Connection(str(path))
        connection.execute(change)
        connection.close()
        with pytest.raises(StoreError) as told:
            OutboxFile(path).load()
        if isinstance(told.value, StoreCorrupt):
            self.check_advice(path, told.value)

    def test_a_commit_that_meets_damage_says_so(self, path: Path) -> None:
        fill(path)
        content = bytearray(path.read_bytes())
        start = content.index(b"message 200. ") // 4096 * 4096
        content[start : start + 4096] = b"\xa5" * 4096
        path.write_bytes(content)
        file = OutboxFile(path)
        with pytest.raises(StoreCorrupt) as told:
            file.commit([outgoing(seq) for seq in range(190, 210)])
        self.check_advice(path, told.value)
        with pytest.raises(StoreCorrupt):
            file.commit([outgoing(900)])
        file.close()
