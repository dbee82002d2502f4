"""The client keeps its promises in many short lives; and the simulator would see if it did not.

``make sim`` lives longer.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.client.sim.__main__ import AGAIN
from tests.client.sim.planted import BUGS, SIMULATOR
from tests.client.sim.simulation import run
from tests.sim.planted import REPOSITORY, Bug, bugs, hunt
from tests.sim.report import report

SEEDS = 240  # of the suite
GROUPS = 8


@pytest.mark.spec("MQTT5-2.2.1-3", "MQTT5-3.1.2-6", "MQTT5-3.2.2-5", "MQTT5-3.3.1-1")
@pytest.mark.spec("MQTT5-3.3.4-7", "MQTT5-3.3.4-9", "MQTT5-4.1.0-1", "MQTT5-4.3.2-1")
@pytest.mark.spec("MQTT5-4.3.3-1", "MQTT5-4.3.3-6", "MQTT5-4.3.3-10", "MQTT5-4.4.0-1")
@pytest.mark.spec("MQTT5-4.6.0-1", "MQTT5-4.6.0-2", "MQTT5-4.6.0-3", "MQTT5-4.6.0-4")
@pytest.mark.spec("MQTT311-2.3.1-2", "MQTT311-3.3.1-1", "MQTT311-4.1.0-1", "MQTT311-4.3.2-1")
@pytest.mark.spec("MQTT311-4.3.3-1", "MQTT311-4.3.3-2", "MQTT311-4.4.0-1", "MQTT311-4.6.0-1")
@pytest.mark.spec("MQTT311-4.6.0-2", "MQTT311-4.6.0-3", "MQTT311-4.6.0-4")
@pytest.mark.parametrize("group", range(GROUPS))
def test_every_promise_is_kept(group: int, tmp_path: Path) -> None:
    for seed in range(group, SEEDS, GROUPS):
        if run(seed).violation is not None:
            pytest.fail(report(run(seed, is_traced=True), tmp_path, AGAIN))


def test_a_seed_does_the_same_again_in_every_process() -> None:
    seed = 4
    once = run(seed).fingerprint
    assert once == run(seed, is_traced=True).fingerprint != run(seed + 1).fingerprint
    program = f"from tests.client.sim.simulation import run; print(run({seed}).fingerprint)"
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
    trace = [line for seed in range(6) for line in run(seed, is_traced=True).trace]
    assert any("writes CONNECT" in line for line in trace)
    assert any("kill -9" in line for line in trace)
    assert any("the connection is gone" in line for line in trace)
    assert any("all is calm" in line for line in trace)


@pytest.mark.parametrize("bug", bugs(BUGS), ids=lambda bug: bug.name)
def test_the_place_of_a_planted_bug_is_there(bug: Bug) -> None:
    source = (REPOSITORY / "src/holdfast" / bug.file).read_text()
    assert source.count(bug.old) == 1 and bug.new != bug.old


def test_a_planted_bug_is_found_and_told() -> None:
    found = hunt(bugs(BUGS)[0], 20, SIMULATOR)
    assert found is not None
    assert found[1] == "sent before it was durable"
