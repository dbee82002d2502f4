"""The few statistics the report needs: median, percentile, spread."""

import math
from collections.abc import Sequence


def median(values: Sequence[float]) -> float:
    """The middle value, or the mean of the two in the middle. ``values`` must not be empty."""
    assert values
    ordered = sorted(values)
    middle = len(ordered) // 2
    if len(ordered) % 2 == 1:
        return ordered[middle]
    return (ordered[middle - 1] + ordered[middle]) / 2


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` (0 to 1) of all values do not exceed."""
    assert values
    assert 0 < share <= 1
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def spread(values: Sequence[float]) -> float:
    """Half the distance from lowest to highest, as a share of the median; 0 for one value."""
    centre = median(values)
    if centre == 0:
        return 0.0
    return (max(values) - min(values)) / 2 / abs(centre)
