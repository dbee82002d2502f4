"""What a client can be told, and what it cannot."""

import pytest

from holdfast.client.options import OutboxLimits, Reconnect, Will
from holdfast.errors import UsageError
from tests.client.world import V5, V311


@pytest.mark.parametrize(
    "values",
    [
        {"messages_max": 0},
        {"bytes_max": 0},
        {"age_max_s": -1},
        {"policy": "drop-newest"},
    ],
)
def test_limits_that_are_none(values: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        OutboxLimits(**values)  # type: ignore[arg-type]  # of many kinds


@pytest.mark.parametrize(("least", "most"), [(0, 1), (-1, 1), (2, 1)])
def test_delays_that_are_none(least: float, most: float) -> None:
    with pytest.raises(UsageError):
        Reconnect(delay_min_s=least, delay_max_s=most)


def test_a_will_is_written_for_its_version() -> None:
    will = Will(topic="gone", payload="é", qos=1, retain=True, content_type="text")
    packet = will.packet(V5)
    assert (packet.topic, packet.payload, packet.qos, packet.retain) == (
        "gone",
        b"\xc3\xa9",
        1,
        True,
    )
    assert packet.properties is not None and packet.properties.content_type == "text"
    assert will.packet(V311).properties is None
