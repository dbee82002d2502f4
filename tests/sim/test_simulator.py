"""The broker keeps its promises in many short lives; and the simulator would see if it did not.

``make sim SEEDS=100000`` lives longer.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sim.journal import Journal
from tests.sim.planted import REPOSITORY, SEEDS, Bug, bugs, hunt
from tests.sim.report import report
from tests.sim.simulation import run

GROUPS = 10


@pytest.mark.spec("MQTT5-3.1.2-4", "MQTT5-3.1.2-5", "MQTT5-3.1.2-6", "MQTT5-3.1.2-23")
@pytest.mark.spec("MQTT5-3.1.2-7", "MQTT5-3.1.2-8", "MQTT5-3.1.2-10", "MQTT5-3.1.3-9")
@pytest.mark.spec("MQTT5-3.1.4-3", "MQTT5-3.2.2-2", "MQTT5-3.2.2-3", "MQTT5-3.3.4-9")
@pytest.mark.spec("MQTT5-3.3.1-5", "MQTT5-3.3.1-6", "MQTT5-3.3.1-12", "MQTT5-3.3.1-13")
@pytest.mark.spec("MQTT5-3.3.2-5", "MQTT5-4.1.0-1", "MQTT5-4.1.0-2", "MQTT5-4.3.2-1")
@pytest.mark.spec("MQTT5-4.3.3-1", "MQTT5-4.4.0-1", "MQTT5-4.6.0-5", "MQTT5-4.8.2-4")
@pytest.mark.spec("MQTT311-3.1.2-4", "MQTT311-3.1.2-5", "MQTT311-3.1.2-8", "MQTT311-3.1.2-12")
@pytest.mark.spec("MQTT311-3.1.2-16", "MQTT311-3.1.2-17", "MQTT311-3.2.2-2", "MQTT311-3.3.1-5")
@pytest.mark.spec("MQTT311-4.1.0-1", "MQTT311-4.4.0-1", "MQTT311-4.6.0-6")
@pytest.mark.parametrize("group", range(GROUPS))
def test_every_promise_is_kept(group: int, tmp_path: Path) -> None:
    for seed in range(group, SEEDS, GROUPS):
        if run(seed).violation is not None:
            pytest.fail(report(run(seed, is_traced=True), tmp_path))


def test_a_seed_does_the_same_again_in_every_process() -> None:
    seed = 4
    once = run(seed).fingerprint
    assert once == run(seed, is_traced=True).fingerprint != run(seed + 1).fingerprint
    program = f"from tests.sim.simulation import run; print(run({seed}).fingerprint)"
    for hash_seed in ("1", "2"):
        again = subprocess.run(
            [sys.executable, "-c", program],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert again.stdout.strip() == once


def test_a_trace_tells_what_happened() -> None:
    trace = run(4, is_traced=True).trace
    assert any("-> CONNECT" in line for line in trace)
    assert any("<- PUBLISH" in line for line in trace)
    assert any("disk: it is durable" in line for line in trace)
    assert any("everyone comes back" in line for line in trace)


@pytest.mark.parametrize("bug", bugs(), ids=lambda bug: bug.name)
def test_the_place_of_a_planted_bug_is_there(bug: Bug) -> None:
    source = (REPOSITORY / "src/holdfast" / bug.file).read_text()
    assert source.count(bug.old) == 1 and bug.new != bug.old


def test_a_planted_bug_is_found_and_told() -> None:
    found = hunt(bugs()[0], 20)
    assert found is not None
    assert found[1] == "sent before it was durable"


def test_a_crash_takes_back_what_came_after_an_operation() -> None:
    journal = Journal()
    state = {"kept": 1}
    journal.begin()
    journal.put(state, "kept", 2)
    durable = journal.begin()
    journal.put(state, "also", 3)
    journal.begin()
    journal.put(state, "kept", 4)
    journal.drop(state, "also")
    journal.put(state, "lost", 5)
    journal.confirm(durable - 1)
    journal.roll_back(durable)
    assert state == {"kept": 2, "also": 3}
    assert journal.begin() == durable + 2
