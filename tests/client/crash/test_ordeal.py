"""Clients that are killed at every stage lose nothing, against Holdfast's broker and Mosquitto.

A few trials each, drawn by a seed that a failure prints; ``make crash`` goes through all of them.
HOLDFAST_CRASH_SEED repeats a run.
"""

import asyncio
import os
import random
import secrets
from pathlib import Path
from typing import Final, Literal

import pytest

from tests.client.crash.mosquitto import MosquittoProcess
from tests.client.crash.ordeal import Ordeal
from tests.client.outbox_support import quick_folder
from tests.support.broker import BrokerProcess

SEED: Final = int(os.environ.get("HOLDFAST_CRASH_SEED", secrets.randbelow(1 << 32)))
TRIALS: Final = 7


@pytest.mark.spec("MQTT5-3.1.2-6", "MQTT5-4.1.0-1", "MQTT5-4.3.3-1", "MQTT5-4.3.3-10")
@pytest.mark.spec("MQTT5-4.4.0-1", "MQTT5-4.6.0-1")
@pytest.mark.spec("MQTT311-4.1.0-1", "MQTT311-4.3.3-1", "MQTT311-4.3.3-2", "MQTT311-4.4.0-1")
@pytest.mark.parametrize("version", ["5.0", "3.1.1"])
@pytest.mark.parametrize("name", ["holdfast", "mosquitto"])
def test_clients_survive(name: str, version: Literal["5.0", "3.1.1"], tmp_path: Path) -> None:
    print(f"to repeat it: HOLDFAST_CRASH_SEED={SEED}")
    with quick_folder(tmp_path) as folder:
        if name == "mosquitto":
            with MosquittoProcess(folder / "broker") as mosquitto:
                run(Ordeal(mosquitto, version, folder, SEED, None))
            return
        with BrokerProcess(folder / "broker") as broker:
            run(Ordeal(broker, version, folder, SEED, broker.restart))


def run(ordeal: Ordeal) -> None:
    # Longer stops are for ``make crash``.
    names = list(ordeal.trials(with_long=False))
    random.Random(SEED).shuffle(names)
    try:
        asyncio.run(ordeal.run(names[:TRIALS]))
    finally:
        print("; ".join(ordeal.history))
    print(ordeal.summary)
