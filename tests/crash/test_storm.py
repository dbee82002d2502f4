"""Everything that can happen to a broker and its disk, once each, under a mixed load.

`make crash` does the same for as long as one likes. HOLDFAST_CRASH_SEED repeats a load.
"""

import asyncio
import os
import secrets
from typing import Final

import pytest

from tests.crash.storm import DISTURBANCES, SETTINGS, Storm, rounds_of
from tests.support.faulty import NewFaultyBroker

SEED: Final = int(os.environ.get("HOLDFAST_CRASH_SEED", secrets.randbelow(1 << 32)))
PATIENCE_S: Final = 90.0


@pytest.mark.timeout(PATIENCE_S + 30)
def test_nothing_acknowledged_is_lost_whatever_happens(faulty_broker: NewFaultyBroker) -> None:
    print(f"to repeat the load: HOLDFAST_CRASH_SEED={SEED}")
    storm = Storm(faulty_broker(SETTINGS), SEED)
    names = list(DISTURBANCES)
    storm.chance.shuffle(names)
    print("; ".join(names))
    asyncio.run(storm.run(rounds_of(storm, names), PATIENCE_S))
    storm.check()
    print(f"{storm.sent} messages, {len(names)} rounds")
