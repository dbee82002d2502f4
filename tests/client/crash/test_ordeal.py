"""Clients that are killed at every stage lose nothing, against Holdfast's broker and Mosquitto.

A few trials each, drawn by a seed that a failure prints; ``make crash`` goes through all of them.
HOLDFAST_CRASH_SEED repeats a run.
"""

import os
import secrets
from pathlib import Path
from typing import Final

import pytest

from tests.client.crash.ordeal import BROKERS, VERSIONS, Version, go_through
from tests.client.outbox_support import quick_folder

SEED: Final = int(os.environ.get("HOLDFAST_CRASH_SEED", secrets.randbelow(1 << 32)))
TRIALS: Final = 7


@pytest.mark.spec("MQTT5-3.1.2-6", "MQTT5-4.1.0-1", "MQTT5-4.3.3-1", "MQTT5-4.3.3-10")
@pytest.mark.spec("MQTT5-4.4.0-1", "MQTT5-4.6.0-1")
@pytest.mark.spec("MQTT311-4.1.0-1", "MQTT311-4.3.3-1", "MQTT311-4.3.3-2", "MQTT311-4.4.0-1")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", BROKERS)
def test_clients_survive(name: str, version: Version, tmp_path: Path) -> None:
    print(f"to repeat it: HOLDFAST_CRASH_SEED={SEED}")
    with quick_folder(tmp_path) as folder:
        # Longer stops are for ``make crash``.
        print(go_through(name, version, folder, SEED, trials=TRIALS, with_long=False))
