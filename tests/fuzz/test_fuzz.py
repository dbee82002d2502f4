"""A short run of each fuzz target, the finds of before, and that the harness sees what is wrong."""

import json
import subprocess
import sys
from itertools import islice

import pytest

from holdfast.protocol.packets import Connect, Publish, Subscribe, SubscriptionRequest
from holdfast.store.records import Batch
from tests.fuzz import books, job, sequences
from tests.fuzz.__main__ import REPOSITORY, SHARES, main, planned
from tests.fuzz.broker_target import limits
from tests.fuzz.choices import Choices
from tests.fuzz.inputs import inputs
from tests.fuzz.job import Job, Meter
from tests.fuzz.shrink import shrunk
from tests.fuzz.soak import Soak
from tests.fuzz.targets import REGRESSIONS, TARGETS, regressions
from tests.fuzz.watch import FuzzWorld, WatchedStore

SHORT = {"frames": 1500, "decode": 1500, "records": 1500, "broker": 300, "client": 500}
OLD = [
    pytest.param(name, data, id=file)
    for name in TARGETS
    for file, data in regressions(name).items()
]


@pytest.mark.parametrize("name", TARGETS)
def test_a_short_run_finds_nothing(name: str) -> None:
    """``make fuzz`` goes on for longer."""
    for data in islice(inputs(name, "short"), SHORT[name]):
        try:
            TARGETS[name](data)
        except Exception as error:
            error.add_note(f"input: {data.hex()}")
            raise


@pytest.mark.parametrize(("name", "data"), OLD)
def test_what_was_found_before_is_mended(name: str, data: bytes) -> None:
    TARGETS[name](data)


def test_every_file_of_finds_has_a_target() -> None:
    assert len(list(REGRESSIONS.iterdir())) == len(OLD) > 0


def test_a_broker_that_serves_many_keeps_nothing_of_them() -> None:
    soak = Soak()
    for data in islice(inputs("broker", "short soak"), 60):
        soak(data)


def test_sequences_of_valid_packets_break_nothing() -> None:
    sequences.run(40, "short", lambda: None)


def test_inputs_follow_from_their_seed() -> None:
    for name in TARGETS:
        first = list(islice(inputs(name, "1"), 1000))
        assert first == list(islice(inputs(name, "1"), 1000))
        assert first != list(islice(inputs(name, "2"), 1000))


# --- the harness sees what is wrong


class ForgetfulStore(WatchedStore):
    """Says that all is durable and keeps nothing of it."""

    def commit(self, batch: Batch) -> None:
        pass


def test_a_receipt_that_comes_too_early_is_seen() -> None:
    world = FuzzWorld(limits(Choices(b"")))
    session = world.open(4)
    session.send(Connect("s", 4, False, 0))
    session.send(Subscribe(1, [SubscriptionRequest("a", 1)]))
    session.cut()
    publisher = world.open(4)
    publisher.send(Connect("p", 4, True, 0))
    publisher.send(Publish("a", b"1", 1, False, False, 1))
    assert world.answers["Puback"] == 1
    world.kept.__class__ = ForgetfulStore
    with pytest.raises(AssertionError, match="acknowledged, not durable"):
        publisher.send(Publish("a", b"2", 1, False, False, 2))


def test_a_session_that_is_left_behind_is_seen() -> None:
    world = FuzzWorld(limits(Choices(b"")))
    client = world.open(4)
    client.send(Connect("s", 4, False, 0))
    client.cut()
    books.check(world)
    with pytest.raises(AssertionError):
        books.check_empty(world, is_aged=True)


def test_an_input_is_shrunk_to_what_fails() -> None:
    def fails(data: bytes) -> None:
        assert b"\x07" not in data[3:]

    assert shrunk(fails, bytes(range(1, 200))) == b"\0\0\0\x07"[:4]


def test_growing_memory_is_seen() -> None:
    meter = Meter(Job("random", "frames", 40_000, "1"))
    kept = []
    for index in range(40_000):
        meter.note()
        kept.append([index])
    assert "memory grows" in meter.result().find
    assert len(kept) == 40_000


# --- the run


def test_the_plan_has_the_inputs_asked_for() -> None:
    assert sum(share for _, _, share in SHARES) == 1000
    for has_atheris in (False, True):
        jobs = list(planned(1_000_000, "1", has_atheris))
        assert sum(one.inputs for one in jobs) == 1_000_000
        assert sum(one.inputs for one in jobs if one.target in ("broker", "soak")) >= 100_000
        assert len({(one.mode, one.target, one.seed) for one in jobs}) == len(jobs)


def test_a_job_tells_its_result() -> None:
    command = [sys.executable, "-m", "tests.fuzz", "job", "random", "decode", "500", "1"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    result = job.Result(**json.loads(done.stdout))
    assert (result.inputs, result.find) == (500, "")
    assert result.rss_start_bytes > 0


def test_an_input_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["fuzz", "replay", "frames", "0007c000"])
    assert main() == 0
    assert capsys.readouterr().out == "it passes\n"
