"""An outbox file that fails while the client runs: a full disk, an I/O error, damage.

Nothing is sent or acknowledged that is not durable, what cannot be stored is refused, and the
client goes on by itself when there is room again.
"""

import asyncio
import itertools
import threading
from collections.abc import Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import apsw
import pytest

from holdfast.client import commits as commits_module
from holdfast.client import outbox
from holdfast.client.client import Client
from holdfast.client.options import OutboxLimits
from holdfast.client.outbox import OutboxFile
from holdfast.client.outbox_repair import repair_outbox
from holdfast.client.outgoing import Outgoing
from holdfast.client.receipt import Receipt
from holdfast.client.records import LoadedOutbox, Record
from holdfast.errors import StoreCorrupt, StoreError, StoreFull, UsageError
from holdfast.protocol.packets import (
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
)
from tests.client.engine_bench import NOW_MS, Bench, error_of, idle, outbox_content, turns
from tests.client.outbox_support import outgoing, shown
from tests.store.vfs import Trouble, WatchedVfs, no_trouble

_vfs_numbers = itertools.count(1)

FULL: Final[Trouble] = lambda done, where: (  # noqa: E731  # as short as it is
    apsw.SQLITE_FULL if (done, where) == ("write", "log") else None
)
FAILING: Final[Trouble] = lambda done, _where: (  # noqa: E731
    apsw.SQLITE_IOERR if done == "sync" else None
)


@pytest.fixture
def vfs() -> WatchedVfs:
    return WatchedVfs(f"troubled outbox {next(_vfs_numbers)}")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "meter.db"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed file is tried again at once."""
    monkeypatch.setattr(commits_module, "RETRY_MIN_S", 0.001)
    monkeypatch.setattr(commits_module, "RETRY_MAX_S", 0.01)


def run(scene: Coroutine[None, None, None]) -> None:
    asyncio.run(asyncio.wait_for(scene, 60))


def open_bench(path: Path, vfs: WatchedVfs, *, manual_ack: bool = False) -> Bench:
    return Bench(OutboxFile(path, vfs=vfs.name), manual_ack=manual_ack)


async def stored(bench: Bench, receipt: Receipt) -> None:
    """Wait as ``publish`` does."""
    await bench.engine.durable(receipt._entry)


async def failing(bench: Bench) -> StoreError:
    """Have a message refused by the file."""
    with pytest.raises(StoreError) as refused:
        await stored(bench, bench.publish(b"refused"))
    assert bench.engine.failure is not None
    return refused.value


async def recovered(bench: Bench) -> None:
    while bench.engine.failure is not None:
        await idle(bench.engine)


@pytest.mark.parametrize(("trouble", "kind"), [(FULL, StoreFull), (FAILING, StoreError)])
def test_what_cannot_be_stored_is_refused_and_never_sent(
    path: Path, vfs: WatchedVfs, trouble: Trouble, kind: type[StoreError]
) -> None:
    async def scene() -> None:
        bench = open_bench(path, vfs)
        engine = bench.engine
        bench.connect()
        before = bench.publish(b"before")
        await stored(bench, before)
        vfs.trouble = trouble
        together = [bench.publish(b"refused"), bench.publish(b"refused", qos=2)]
        waiting = asyncio.gather(
            *(stored(bench, receipt) for receipt in together), return_exceptions=True
        )
        assert {type(one) for one in await waiting} == {kind}
        for receipt in together:
            assert isinstance(error_of(receipt), kind)
            with pytest.raises(kind):
                await receipt
            with pytest.raises(kind):
                await receipt.stored()
        assert engine.sending.messages == 1
        # From now on a publish is refused without a try, but for QoS 0, which needs no file.
        with pytest.raises(kind, match="commit failed"):
            bench.publish(b"refused")
        with pytest.raises(kind):
            engine.room(Outgoing("a", b"", 1, False, None, 0, NOW_MS))
        with pytest.raises(kind):
            engine.drop_oldest(Outgoing("a", b"", 1, False, None, 0, NOW_MS))
        await bench.publish(b"unsafe", qos=0)
        sent = await bench.sent(Publish, 2)
        assert [one.payload for one in sent] == [b"before", b"unsafe"]
        bench.server(Puback(sent[0].packet_id, 0))
        assert (await before).is_done
        assert engine.failure is not None
        vfs.trouble = no_trouble
        await recovered(bench)
        after = bench.publish(b"after")
        await stored(bench, after)
        sent = await bench.sent(Publish)
        assert sent[0].payload == b"after"
        await bench.quiet()
        await engine.stop()

    run(scene())
    assert outbox_content(path) == [4]


def test_a_receipt_of_a_publish_nowait_tells_it(path: Path, vfs: WatchedVfs) -> None:
    async def scene() -> None:
        bench = open_bench(path, vfs)
        vfs.trouble = FULL
        receipt = bench.publish()
        told = asyncio.ensure_future(receipt.stored())
        with pytest.raises(StoreFull):
            await receipt
        with pytest.raises(StoreFull):
            await told
        await bench.engine.stop()

    run(scene())
    assert outbox_content(path) == []


def test_pubrel_waits_until_it_is_durable_that_pubrec_came(path: Path, vfs: WatchedVfs) -> None:
    async def scene() -> None:
        bench = open_bench(path, vfs)
        bench.connect()
        await stored(bench, receipt := bench.publish(qos=2))
        packet_id = (await bench.sent(Publish))[0].packet_id
        vfs.trouble = FULL
        bench.server(Pubrec(packet_id, 0))
        await bench.quiet()
        await failing(bench)
        await bench.quiet()
        vfs.trouble = no_trouble
        assert (await bench.sent(Pubrel))[0].packet_id == packet_id
        bench.server(Pubcomp(packet_id, 0))
        await receipt
        await bench.engine.stop()

    run(scene())
    assert outbox_content(path) == []


@pytest.mark.parametrize("manual_ack", [False, True])
def test_nothing_is_acknowledged_that_is_not_durable(
    path: Path, vfs: WatchedVfs, manual_ack: bool
) -> None:
    """The application is not told of the trouble: its message just takes its time."""

    async def scene() -> None:
        bench = open_bench(path, vfs, manual_ack=manual_ack)
        bench.connect()
        vfs.trouble = FULL
        bench.server(Publish("a", b"command", qos=2, packet_id=7))
        if manual_ack:
            await bench.quiet()
            assert bench.delivered == []  # its delivery identifier is not durable
            vfs.trouble = no_trouble
            while not bench.delivered:
                await turns(1)
            vfs.trouble = FULL
            taking = asyncio.ensure_future(bench.delivered[0].ack())
        else:
            assert not bench.engine.is_handed(bench.delivered[0])
            taking = asyncio.ensure_future(bench.engine.durable())
        await bench.quiet()
        assert not taking.done()
        vfs.trouble = no_trouble
        await taking
        assert (await bench.sent(Pubrec))[0].packet_id == 7
        vfs.trouble = FULL
        bench.server(Pubrel(7, 0))
        await bench.quiet()
        vfs.trouble = no_trouble
        assert (await bench.sent(Pubcomp))[0].packet_id == 7
        await bench.engine.stop()

    run(scene())
    file = OutboxFile(path)
    assert shown(file) == ((("", False), (1, 2, 1)), (), ())
    file.close()


def test_acknowledgements_of_a_lost_connection_do_not_leave_over_the_next(
    path: Path, vfs: WatchedVfs
) -> None:
    async def scene() -> None:
        bench = open_bench(path, vfs)
        bench.connect()
        await stored(bench, bench.publish(qos=2))
        packet_id = (await bench.sent(Publish))[0].packet_id
        vfs.trouble = FULL
        bench.server(Pubrec(packet_id, 0))
        await bench.quiet()
        bench.lose()
        bench.connect(present=True)
        await bench.quiet()
        vfs.trouble = no_trouble
        assert (await bench.sent(Pubrel))[0].packet_id == packet_id
        await bench.quiet()  # once
        await bench.engine.stop()

    run(scene())


def test_publishers_that_wait_for_room_are_told(path: Path, vfs: WatchedVfs) -> None:
    async def scene() -> None:
        bench = Bench(OutboxFile(path, vfs=vfs.name), OutboxLimits(messages_max=2))
        await stored(bench, bench.publish())
        vfs.trouble = FULL
        refused = bench.publish()
        waiting = [
            asyncio.ensure_future(
                bench.engine.room(Outgoing("a", b"", qos, False, None, 0, NOW_MS))
            )
            for qos in (1, 2, 0)
        ]
        with pytest.raises(StoreFull):
            await stored(bench, refused)
        for waiter in waiting[:2]:
            with pytest.raises(StoreFull):
                await waiter
        await waiting[2]  # QoS 0 needs no disk, and there is room now
        await bench.engine.stop()

    run(scene())


def test_closing_with_a_full_disk_ends_and_loses_nothing_that_was_promised(
    path: Path, vfs: WatchedVfs, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> None:
        bench = open_bench(path, vfs)
        bench.connect()
        await stored(bench, receipt := bench.publish())
        packet_id = (await bench.sent(Publish))[0].packet_id
        vfs.trouble = FULL
        bench.server(Puback(packet_id, 0))
        await receipt
        await bench.engine.stop()

    run(scene())
    assert "does not have the last changes" in caplog.text
    assert outbox_content(path) == [1]  # it is sent again, with DUP


def test_closing_makes_a_last_attempt(
    path: Path, vfs: WatchedVfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits_module, "RETRY_MIN_S", 1000.0)
    monkeypatch.setattr(commits_module, "RETRY_MAX_S", 1000.0)

    async def scene() -> None:
        bench = open_bench(path, vfs)
        bench.connect()
        await stored(bench, bench.publish())
        packet_id = (await bench.sent(Publish))[0].packet_id
        vfs.trouble = FULL
        await failing(bench)
        bench.server(Puback(packet_id, 0))
        vfs.trouble = no_trouble
        await bench.engine.stop()

    run(scene())
    assert outbox_content(path) == []


def test_a_message_whose_commit_failed_does_not_come_back(path: Path, vfs: WatchedVfs) -> None:
    """Its flush failed, so the file may have it: publish has said that it has not."""

    async def scene() -> None:
        bench = open_bench(path, vfs)
        vfs.trouble = FAILING
        await failing(bench)
        vfs.trouble = no_trouble
        await recovered(bench)
        await stored(bench, bench.publish(b"kept"))
        # As after ``kill -9``: another process reads what is on the disk.
        folder = path.parent / "copy"
        folder.mkdir()
        for name in (path.name, f"{path.name}-wal"):
            (folder / name).write_bytes(path.with_name(name).read_bytes())
        assert outbox_content(folder / path.name) == [2]
        await bench.engine.stop()

    run(scene())


def test_damage_ends_the_client(path: Path, vfs: WatchedVfs) -> None:
    """There is no way on but a repair: nothing is promised any more."""
    file = OutboxFile(path)
    file.commit([outgoing(seq, b"message %d. " % seq * 50) for seq in range(1, 200)])
    file.close()

    async def scene() -> None:
        bench = open_bench(path, vfs)
        vfs.trouble = lambda done, where: (
            apsw.SQLITE_CORRUPT if (done, where) == ("write", "log") else None
        )
        with pytest.raises(StoreCorrupt, match="holdfast outbox repair"):
            await stored(bench, bench.publish())
        assert len(bench.failures) == 1
        with pytest.raises(StoreCorrupt):
            bench.publish()
        with pytest.raises(StoreCorrupt):
            bench.publish(qos=0)
        await bench.engine.stop()

    run(scene())


def test_a_defect_ends_the_client_and_is_told(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def commit(_: OutboxFile, records: list[Record]) -> None:
        raise MemoryError

    async def scene() -> None:
        bench = Bench(OutboxFile(path))
        monkeypatch.setattr(OutboxFile, "commit", commit)
        receipt = bench.publish()
        with pytest.raises(StoreError, match="defect"):
            await stored(bench, receipt)
        with pytest.raises(StoreError, match="defect"):
            await receipt
        with pytest.raises(StoreError, match="defect"):
            bench.publish()
        assert len(bench.failures) == 1
        await bench.engine.stop()

    run(scene())
    assert "stopped by a defect" in caplog.text


def test_a_client_says_what_is_wrong_and_goes_on(
    path: Path, vfs: WatchedVfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "OutboxFile", lambda path: OutboxFile(path, vfs=vfs.name))

    async def scene() -> None:
        async with Client(f"unix://{path.parent}/none", outbox=path) as client:
            await client.publish("a", qos=1)
            assert client.outbox.error is None
            vfs.trouble = FULL
            for _ in range(3):
                with pytest.raises(StoreFull):
                    await client.publish("a", qos=1)
                with pytest.raises(StoreFull):
                    client.publish_nowait("a", qos=2)
            assert isinstance(client.outbox.error, StoreFull)
            assert client.outbox.messages == 1
            vfs.trouble = no_trouble
            while client.outbox.error is not None:
                await turns(1)
            await client.publish("a", qos=2)

    run(scene())
    assert len(outbox_content(path)) == 2


def test_a_backlog_that_went_out_gives_its_space_back_in_idle_times(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "VACUUM_ABOVE_BYTES", 100_000)
    monkeypatch.setattr(outbox, "VACUUM_PAGES", 16)

    async def scene() -> None:
        bench = Bench(OutboxFile(path))
        receipts = [bench.publish(b"x" * 5000) for _ in range(400)]
        await stored(bench, receipts[-1])
        bench.connect()
        for packet in await bench.sent(Publish, 400):
            bench.server(Puback(packet.packet_id, 0))
        await bench.engine.durable()
        assert bench.commits._store is not None
        while bench.commits._is_maintaining or bench.commits._store.wants_upkeep:
            await idle(bench.engine)
        await bench.engine.stop()

    run(scene())
    assert path.stat().st_size < 200_000


def test_a_damaged_file_is_told_each_time_and_is_free_to_be_repaired(path: Path) -> None:
    file = OutboxFile(path)
    file.commit([outgoing(seq, b"message %d. " % seq * 50) for seq in range(1, 200)])
    file.close()
    content = bytearray(path.read_bytes())
    start = content.index(b"message 100. ") // 4096 * 4096
    content[start : start + 4096] = b"\xa5" * 4096
    path.write_bytes(content)

    async def scene() -> None:
        client = Client(f"unix://{path.parent}/none", outbox=path)
        for _ in range(2):
            with pytest.raises(StoreCorrupt, match="holdfast outbox repair"):
                await client.open()
        assert repair_outbox(path, datetime.now(UTC)).is_damaged
        async with client:
            assert client.outbox.messages > 150

    run(scene())


def test_whoever_gives_up_opening_does_not_hold_the_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read on a thread, where nothing can be cancelled."""
    may_go_on = threading.Event()
    load = OutboxFile.load

    def slow(file: OutboxFile) -> LoadedOutbox:
        assert may_go_on.wait(60)
        return load(file)

    monkeypatch.setattr(OutboxFile, "load", slow)

    async def scene() -> None:
        client = Client(f"unix://{path.parent}/none", outbox=path)
        opening = asyncio.create_task(client.open())
        await turns()  # the loop goes on meanwhile
        with pytest.raises(UsageError, match="opened once"):
            await client.open()
        opening.cancel()
        await turns()
        may_go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await opening
        async with client:
            assert client.outbox.is_empty

    run(scene())
