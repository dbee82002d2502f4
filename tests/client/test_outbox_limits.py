"""The bounds of an outbox, and what happens at each of them."""

import asyncio
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Final

import pytest

from holdfast.client import engine as engine_module
from holdfast.client.client import Client
from holdfast.client.composing import counted
from holdfast.client.options import OutboxLimits
from holdfast.client.outbox import OutboxFile
from holdfast.client.outgoing import Outgoing
from holdfast.client.records import LoadedOutbox, MarkSent, Record
from holdfast.client.sending import MARK_AHEAD, NO_DUE
from holdfast.errors import ConnectionLost, LimitExceeded
from holdfast.protocol.packets import Puback, Publish
from tests.client.engine_bench import NOW_MS, Bench, idle, turns
from tests.client.outbox_support import outgoing

WAIT: Final = OutboxLimits(messages_max=3, policy="wait")


def offline(tmp_path: Path, limits: OutboxLimits) -> Client:
    """A client with an outbox file whose server is not there."""
    return Client(f"unix://{tmp_path}/none", outbox=tmp_path / "meter.db", outbox_limits=limits)


def run(scene: Coroutine[None, None, None]) -> None:
    asyncio.run(asyncio.wait_for(scene, 60))


class TestWait:
    def test_publishers_are_served_in_their_order(self) -> None:
        async def scene() -> None:
            bench = Bench(limits=WAIT)
            served: list[int] = []

            async def publish(number: int) -> None:
                entry = Outgoing("a", b"%d" % number, 1, False, None, 0, NOW_MS)
                if bench.engine.has_room(entry):
                    bench.engine.accept(entry)
                else:
                    await bench.engine.room(entry)
                served.append(number)

            tasks = [asyncio.create_task(publish(number)) for number in range(8)]
            await turns()
            assert served == [0, 1, 2]
            bench.connect()
            sent = await bench.sent(Publish, 3)
            for round_ in range(3, 8):
                bench.server(Puback(sent[0].packet_id, 0))
                sent = [*sent[1:], *await bench.sent(Publish, 1)]
                await turns()
                assert served == list(range(round_ + 1))
            assert [int(packet.payload) for packet in sent] == [5, 6, 7]
            await asyncio.gather(*tasks)
            await bench.engine.stop()

        run(scene())

    def test_whoever_gives_up_leaves_nothing_and_lets_those_behind_go_on(self) -> None:
        async def scene() -> None:
            bench = Bench(limits=OutboxLimits(messages_max=10, bytes_max=1000, policy="wait"))
            engine = bench.engine
            bench.publish(b"x" * 500)
            large = Outgoing("a", b"x" * 800, 1, False, None, 0, NOW_MS)
            small = Outgoing("a", b"y", 1, False, None, 0, NOW_MS)
            assert not engine.has_room(large)
            first = asyncio.ensure_future(engine.room(large))
            second = asyncio.ensure_future(engine.room(small))
            await turns()
            assert not second.done()  # though there would be room: it is not its turn
            first.cancel()
            await asyncio.wait_for(second, 10)  # offline: nothing else moves it
            assert engine.sending.messages == 2
            assert not engine._room
            assert engine.has_room(small)
            await engine.stop()

        run(scene())

    def test_many_who_give_up_do_not_pile_up_behind_one_who_waits(self) -> None:
        async def scene() -> None:
            bench = Bench(limits=WAIT)
            for _ in range(3):
                bench.publish()
            patient = bench.engine.room(Outgoing("a", b"", 1, False, None, 0, NOW_MS))
            for _ in range(100):
                waiter = bench.engine.room(Outgoing("a", b"", 1, False, None, 0, NOW_MS))
                waiter.cancel()
            await turns()
            assert list(bench.engine._room) == [patient]
            with pytest.raises(ConnectionLost):
                await asyncio.gather(bench.engine.stop(), patient)

        run(scene())

    def test_a_publish_waits_and_a_publish_nowait_does_not(self, tmp_path: Path) -> None:
        async def scene() -> None:
            async with offline(tmp_path, WAIT) as client:
                for _ in range(3):
                    await client.publish("a", qos=1)
                with pytest.raises(LimitExceeded, match="3 messages"):
                    client.publish_nowait("a", qos=1)
                waiting = asyncio.create_task(client.publish("a", qos=1))
                await turns()
                assert not waiting.done()
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
                assert client.outbox.messages == 3

        run(scene())

    def test_a_message_larger_than_the_outbox_goes_alone(self) -> None:
        async def scene() -> None:
            bench = Bench(limits=OutboxLimits(bytes_max=10))
            entry = Outgoing("a", b"x" * 100, 1, False, None, 0, NOW_MS)
            assert bench.engine.has_room(entry)
            bench.engine.accept(entry)
            assert not bench.engine.has_room(Outgoing("a", b"", 0, False, None, 0, NOW_MS))
            await bench.engine.stop()

        run(scene())


def test_refuse_refuses_at_once(tmp_path: Path) -> None:
    async def scene() -> None:
        async with offline(tmp_path, OutboxLimits(messages_max=2, policy="refuse")) as client:
            for _ in range(2):
                await client.publish("a", qos=1)
            with pytest.raises(LimitExceeded, match="2 messages"):
                await client.publish("a", qos=1)
            assert client.outbox.messages == 2
            assert client.outbox.dropped == 0

    run(scene())


class TestDropOldest:
    LIMITS: Final = OutboxLimits(messages_max=3, policy="drop-oldest")

    def test_the_oldest_makes_room_and_its_receipt_says_so(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def scene() -> None:
            async with offline(tmp_path, self.LIMITS) as client:
                receipts = [await client.publish("a", b"%d" % n, qos=n % 3) for n in range(7)]
                for receipt in receipts[:4]:
                    with pytest.raises(LimitExceeded, match="oldest of a full outbox"):
                        await receipt
                assert [receipt.is_done for receipt in receipts[4:]] == [False] * 3
                assert client.outbox.messages == 3
                assert client.outbox.dropped == 4

        run(scene())
        file = OutboxFile(tmp_path / "meter.db")
        assert [entry.payload for entry in file.load().outgoing] == [b"4", b"5"]  # 6 is QoS 0
        file.close()
        said = [record.getMessage() for record in caplog.records if "dropped" in record.message]
        # At once, and at the end; how many each time is a matter of turns.
        numbers = [int(text.split()[1]) for text in said]
        assert (len(numbers), sum(numbers)) == (2, 4)
        assert said[0] == (f"outbox: {counted(numbers[0])} dropped, the oldest of a full outbox")

    def test_no_more_than_half_is_ever_in_flight(self) -> None:
        limits = OutboxLimits(messages_max=9, policy="drop-oldest")
        assert Client(outbox_limits=limits)._in_flight_max == 4
        assert Client(outbox_limits=limits, in_flight_max=3)._in_flight_max == 3
        limits = OutboxLimits(messages_max=1, policy="drop-oldest")
        assert Client(outbox_limits=limits)._in_flight_max == 1
        assert Client(outbox_limits=OutboxLimits(messages_max=9))._in_flight_max > 9

    def test_a_long_time_offline_costs_neither_memory_nor_time(self) -> None:
        async def scene() -> None:
            bench = Bench(limits=OutboxLimits(messages_max=1000, policy="drop-oldest"))
            engine = bench.engine
            for number in range(50_000):
                entry = Outgoing("a", b"%d" % number, 1, False, None, 0, NOW_MS)
                if not engine.has_room(entry):
                    engine.drop_oldest(entry)
                engine.accept(entry)
            assert len(engine.sending._queue) == 1000
            assert len(engine.sending.unfinished()) == 1000
            await engine.stop()

        run(scene())

    @pytest.mark.spec("MQTT5-4.4.0-1")
    @pytest.mark.spec("MQTT311-4.4.0-1")
    def test_what_is_in_flight_stays(self) -> None:
        async def scene() -> None:
            bench = Bench(limits=self.LIMITS)
            bench.connect(receive_maximum=2)
            for _ in range(3):
                bench.publish()
            sent = await bench.sent(Publish, 2)
            bench.lose()
            entry = Outgoing("a", b"new", 1, False, None, 0, NOW_MS)
            bench.engine.drop_oldest(entry)  # the third, which was not sent
            bench.engine.accept(entry)
            bench.connect(present=True, receive_maximum=2)
            again = await bench.sent(Publish, 2)
            assert [(one.packet_id, one.dup) for one in again] == [
                (one.packet_id, True) for one in sent
            ]
            await bench.engine.stop()

        run(scene())

    def test_where_all_is_in_flight_nothing_can_be_dropped(self) -> None:
        async def scene() -> None:
            bench = Bench(limits=self.LIMITS)
            bench.connect()
            for _ in range(3):
                bench.publish()
            await bench.sent(Publish, 3)
            for _ in range(2):
                with pytest.raises(LimitExceeded, match="in flight"):
                    bench.engine.drop_oldest(Outgoing("a", b"", 1, False, None, 0, NOW_MS))
                bench.lose()
            await bench.engine.stop()

        run(scene())

    def test_what_an_earlier_process_may_have_sent_stays_until_the_session_is_gone(
        self, tmp_path: Path
    ) -> None:
        file = OutboxFile(tmp_path / "meter.db")
        file.commit([*(outgoing(seq, qos=2) for seq in range(1, 4)), MarkSent(4)])
        file.close()

        async def scene() -> None:
            bench = Bench(OutboxFile(tmp_path / "meter.db"), self.LIMITS)
            entry = Outgoing("a", b"new", 1, False, None, 0, NOW_MS)
            with pytest.raises(LimitExceeded, match="in flight"):
                bench.engine.drop_oldest(entry)
            bench.connect(present=False, receive_maximum=1)
            assert not (await bench.sent(Publish))[0].dup
            bench.engine.drop_oldest(entry)
            bench.engine.accept(entry)
            await bench.engine.durable(entry)
            await bench.engine.stop()

        run(scene())
        file = OutboxFile(tmp_path / "meter.db")
        assert [entry.seq for entry in file.load().outgoing] == [1, 3, 4]
        file.close()


class TestMark:
    """What was never sent is known after a new start, so that it may be dropped."""

    LIMITS: Final = OutboxLimits(messages_max=3, policy="drop-oldest")

    def test_a_device_that_restarts_offline_goes_on_dropping_the_oldest(
        self, tmp_path: Path
    ) -> None:
        for start in range(3):

            async def scene(start: int = start) -> None:
                async with offline(tmp_path, self.LIMITS) as client:
                    for number in range(4):
                        await client.publish("a", b"%d" % (4 * start + number), qos=2)

            run(scene())
        file = OutboxFile(tmp_path / "meter.db")
        loaded = file.load()
        assert [entry.payload for entry in loaded.outgoing] == [b"9", b"10", b"11"]
        assert loaded.sent_below == 1
        file.close()

    @pytest.mark.spec("MQTT5-3.3.1-1")
    @pytest.mark.spec("MQTT311-3.3.1-1")
    def test_what_may_have_been_sent_is_a_repeat_and_nothing_else(self, tmp_path: Path) -> None:
        async def scene() -> None:
            bench = Bench(OutboxFile(tmp_path / "meter.db"))
            bench.connect(receive_maximum=1)
            for number in range(3000):
                bench.publish(b"%d" % number)
            await bench.sent(Publish)
            await bench.engine.stop()

        run(scene())
        file = OutboxFile(tmp_path / "meter.db")
        below = file.load().sent_below
        file.close()
        assert 2 <= below <= 1 + MARK_AHEAD

        async def again() -> None:
            bench = Bench(OutboxFile(tmp_path / "meter.db"))
            bench.engine.sending.owns_session = True
            bench.connect(present=True)
            sent = await bench.sent(Publish, 3000)
            assert [int(one.payload) for one in sent] == list(range(3000))
            assert [one.packet_id - 1 for one in sent if one.dup] == list(range(1, below))
            await bench.engine.stop()

        run(again())

    def test_it_is_durable_before_anything_is_sent(self, tmp_path: Path) -> None:
        """A backlog goes out while its mark moves on; each is in the file before its message."""
        path = tmp_path / "meter.db"
        file = OutboxFile(path)
        file.commit([outgoing(seq) for seq in range(1, 5001)])

        class Watched:
            """The file, which knows what is marked in it."""

            wants_upkeep = False

            def __init__(self) -> None:
                self.below = 1
                self.commits = 0

            def load(self) -> LoadedOutbox:
                return file.load()

            def commit(self, records: list[Record]) -> None:
                file.commit(records)
                self.commits += 1
                self.below = max(
                    [self.below, *(one.below_seq for one in records if isinstance(one, MarkSent))]
                )

            def reopen(self) -> None:
                raise AssertionError

            def maintain(self) -> bool:
                raise AssertionError

            def close(self) -> None:
                file.close()

        async def scene() -> None:
            watched = Watched()
            bench = Bench(watched)
            bench.connect()
            for number in range(5000):
                sent = await bench.sent(Publish)
                assert sent[0].packet_id == number + 2
                assert number + 1 < watched.below
            assert watched.commits < 20
            # From here on each message's commit marks it too.
            receipt = bench.publish()
            await bench.sent(Publish)
            assert watched.below == 5002
            assert not receipt.is_done
            commits = watched.commits
            bench.publish()
            await bench.sent(Publish)
            assert watched.commits == commits + 1
            await bench.engine.stop()

        run(scene())


class TestAge:
    LIMITS: Final = OutboxLimits(age_max_s=3600)

    def test_what_is_too_old_is_dropped_counted_and_logged(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def scene() -> None:
            bench = Bench(limits=self.LIMITS)
            now_ms = time.time_ns() // 1_000_000
            old = [bench.publish(queued_at_ms=now_ms - 3_600_001) for _ in range(3)]
            young = bench.publish(queued_at_ms=now_ms)
            for receipt in old:
                with pytest.raises(LimitExceeded, match="older than the outbox keeps"):
                    await receipt
            assert not young.is_done
            assert bench.engine.sending.dropped == 3
            assert bench.engine.sending.messages == 1
            await bench.engine.stop()

        run(scene())
        fields = [record.fields for record in caplog.records if "older" in record.getMessage()]  # type: ignore[attr-defined]  # of ``Log``
        assert fields == [{"messages": 3}]

    def test_it_counts_on_while_the_process_is_down(self, tmp_path: Path) -> None:
        """Nothing that may be in flight is dropped: the server says whether it is."""
        path = tmp_path / "meter.db"
        file = OutboxFile(path)
        records: list[Record] = [outgoing(1), outgoing(2), MarkSent(3)]
        file.commit(records)  # long ago
        file.close()

        async def scene() -> None:
            bench = Bench(OutboxFile(path), self.LIMITS)
            await idle(bench.engine)
            assert bench.engine.sending.messages == 2
            bench.connect(present=False, receive_maximum=1)
            while bench.engine.sending.dropped < 1:
                await turns(1)
            await bench.engine.stop()

        run(scene())
        file = OutboxFile(path)
        assert [entry.seq for entry in file.load().outgoing] == [1]
        file.close()


class TestExpiry:
    def test_what_expires_offline_makes_room_at_once(self, tmp_path: Path) -> None:
        async def scene() -> None:
            bench = Bench(
                OutboxFile(tmp_path / "meter.db"), OutboxLimits(messages_max=2, policy="wait")
            )
            now_ms = time.time_ns() // 1_000_000
            receipt = bench.publish(expires_at_ms=now_ms + 20)
            bench.publish()
            await asyncio.wait_for(
                bench.engine.room(Outgoing("a", b"", 1, False, None, 0, NOW_MS)), 10
            )
            with pytest.raises(LimitExceeded, match="expired"):
                await receipt
            await bench.engine.stop()

        run(scene())
        file = OutboxFile(tmp_path / "meter.db")
        assert [entry.seq for entry in file.load().outgoing] == [2, 3]
        file.close()

    def test_it_runs_on_while_the_process_is_down(self, tmp_path: Path) -> None:
        file = OutboxFile(tmp_path / "meter.db")
        expired, lasting = outgoing(1), outgoing(2)
        expired.expires_at_ms = NOW_MS
        lasting.expires_at_ms = 2**42
        file.commit([expired, lasting])
        file.close()

        async def scene() -> None:
            bench = Bench(OutboxFile(tmp_path / "meter.db"))
            bench.engine.sending.owns_session = True
            bench.connect(present=True)
            sent = await bench.sent(Publish)
            assert sent[0].packet_id == 3
            assert bench.engine.sending.dropped == 1
            await bench.engine.stop()

        run(scene())

    def test_no_time_is_spent_where_nothing_can_expire(self) -> None:
        async def scene() -> None:
            bench = Bench()
            for _ in range(3):
                bench.publish()
            await turns()
            assert bench.engine.sending.due_ms(0) == NO_DUE
            assert bench.engine._sweep_timer is None
            await bench.engine.stop()

        run(scene())


def test_what_was_dropped_is_not_kept_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "SWEEP_PAUSE_S", 0)

    async def scene() -> None:
        bench = Bench(limits=OutboxLimits(age_max_s=10))
        now_ms = time.time_ns() // 1_000_000
        bench.publish(queued_at_ms=now_ms)
        for _ in range(1000):
            bench.publish(b"x" * 1000, queued_at_ms=now_ms - 20_000)
        while bench.engine.sending.dropped < 1000:
            bench.engine._sweep()
            await turns(1)
        assert len(bench.engine.sending._queue) == 1
        await bench.engine.stop()

    run(scene())
