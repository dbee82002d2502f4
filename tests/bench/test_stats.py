"""Median, percentile and spread."""

import random

import pytest

from bench.stats import median, percentile, spread


def test_median_is_the_middle_or_the_mean_of_two() -> None:
    assert median([3.0]) == 3.0
    assert median([9.0, 1.0, 5.0]) == 5.0
    assert median([4.0, 1.0, 2.0, 9.0]) == 3.0


@pytest.mark.parametrize("count", [1, 2, 99, 100, 101, 1000])
def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed(count: int) -> None:
    values = [float(number) for number in range(1, count + 1)]
    random.Random(count).shuffle(values)
    for share in (0.01, 0.5, 0.99, 1.0):
        value = percentile(values, share)
        assert sum(other <= value for other in values) >= share * count
        assert value == 1 or sum(other <= value - 1 for other in values) < share * count


def test_spread_is_half_the_range_over_the_median() -> None:
    assert spread([7.0]) == 0
    assert spread([90.0, 100.0, 120.0]) == pytest.approx(0.15)
    assert spread([0.0, 0.0]) == 0
