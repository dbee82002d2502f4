"""``kill -9`` of the real server under load, again and again: what was acknowledged is there.

The load is that of ``storm``, random by a seed that a failure prints. HOLDFAST_CRASH_ROUNDS says
how many kills, HOLDFAST_CRASH_SEED repeats one.
"""

import asyncio
import os
import secrets
from typing import Final

import pytest

from tests.crash.storm import SETTINGS, Storm, rounds_of
from tests.support.faulty import NewFaultyBroker

ROUNDS: Final = int(os.environ.get("HOLDFAST_CRASH_ROUNDS", "20"))
SEED: Final = int(os.environ.get("HOLDFAST_CRASH_SEED", secrets.randbelow(1 << 32)))
PATIENCE_S: Final = 40 + 5 * ROUNDS  # an upper bound only; a round takes about a second


@pytest.mark.spec("MQTT5-4.3.3-10")
@pytest.mark.spec("MQTT5-4.4.0-1")
@pytest.mark.spec("MQTT5-4.5.0-1")
@pytest.mark.spec("MQTT5-4.6.0-5")
@pytest.mark.spec("MQTT311-4.3.3-2")
@pytest.mark.spec("MQTT311-4.4.0-1")
@pytest.mark.spec("MQTT311-4.5.0-1")
@pytest.mark.spec("MQTT311-4.6.0-6")
@pytest.mark.timeout(PATIENCE_S + 30)
def test_nothing_acknowledged_is_lost_and_nothing_comes_twice(
    faulty_broker: NewFaultyBroker,
) -> None:
    """Publishers and durable subscribers, of both versions, live through the kills; then everything
    is drained, and what each subscriber got is compared with what was promised.
    """
    print(f"to repeat the load: HOLDFAST_CRASH_SEED={SEED} HOLDFAST_CRASH_ROUNDS={ROUNDS}")
    storm = Storm(faulty_broker(SETTINGS), SEED)
    asyncio.run(storm.run(rounds_of(storm, ["kill -9"] * ROUNDS), PATIENCE_S))
    storm.check()
    print(f"{storm.sent} messages, {ROUNDS} kills")
