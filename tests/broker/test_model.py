"""Random walks through the broker's life, compared with a plain model of what it owes.

``HOLDFAST_MODEL_SEEDS=20000 pytest tests/broker/test_model.py`` walks longer. A failure names its
seed and prints the shortest walk that fails.
"""

import os

import pytest

from holdfast.broker import connection, log_tail, router
from tests.broker.steps import shrink, steps_of
from tests.broker.walk import run

SEEDS = int(os.environ.get("HOLDFAST_MODEL_SEEDS", "600"))
GROUPS = 12
STEPS = 250


@pytest.fixture(params=["usual", "tiny"])
def bounds(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Bounds so small that almost all is read from the store and no connection has much room.

    A compiled broker has the usual bounds built in.
    """
    if request.param == "tiny":
        monkeypatch.setattr(log_tail, "TAIL_ENTRIES_MAX", 3)
        monkeypatch.setattr(router, "FEED_ENTRIES_MAX", 2)
        monkeypatch.setattr(router, "READ_BYTES_MAX", 8)
        monkeypatch.setattr(connection, "OUTPUT_BYTES_MAX", 60)
    return str(request.param)


@pytest.mark.timeout(0 if "HOLDFAST_MODEL_SEEDS" in os.environ else 120)
@pytest.mark.spec("MQTT5-3.1.2-7", "MQTT5-3.1.2-8", "MQTT5-3.1.2-10", "MQTT5-3.1.3-9")
@pytest.mark.spec("MQTT5-3.1.2-14", "MQTT5-3.1.2-15", "MQTT5-3.14.4-3")
@pytest.mark.spec("MQTT311-3.1.2-8", "MQTT311-3.1.2-10", "MQTT311-3.1.2-12", "MQTT311-3.14.4-3")
@pytest.mark.spec("MQTT311-3.1.2-16", "MQTT311-3.1.2-17", "MQTT311-3.3.1-8", "MQTT311-3.3.1-9")
@pytest.mark.spec("MQTT5-3.3.1-12", "MQTT5-3.3.1-13")
@pytest.mark.spec("MQTT5-3.3.2-5", "MQTT5-3.3.2-6")
@pytest.mark.spec("MQTT5-4.1.0-1")
@pytest.mark.spec("MQTT5-4.1.0-2")
@pytest.mark.spec("MQTT5-3.2.2-2")
@pytest.mark.spec("MQTT5-3.2.2-3")
@pytest.mark.spec("MQTT5-3.3.4-2")
@pytest.mark.spec("MQTT5-3.3.4-9")
@pytest.mark.spec("MQTT5-4.3.2-1")
@pytest.mark.spec("MQTT5-4.3.3-1")
@pytest.mark.spec("MQTT5-4.4.0-1")
@pytest.mark.spec("MQTT5-4.6.0-5")
@pytest.mark.parametrize("group", range(GROUPS))
def test_the_broker_keeps_what_it_promised(group: int, bounds: str) -> None:
    for seed in range(group, SEEDS, GROUPS):
        steps = steps_of(seed, STEPS)
        try:
            run(steps)
        except AssertionError as error:
            lines = "\n".join(f"    {step}," for step in shrink(steps, run))
            pytest.fail(f"seed {seed}, {bounds} bounds: {error}\nthe shortest walk:\n{lines}")
