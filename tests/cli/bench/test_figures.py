"""The histogram against the exact answer, and the numbers of streams."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.cli.bench.figures import PERCENTILES, Histogram
from holdfast.cli.bench.stamp import STAMP_BYTES, Streams, read_stamp, write_stamp

PRECISION = 1 / 64


def filled(values: list[int]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    return histogram


@given(st.lists(st.integers(0, 10**12), min_size=1), st.sampled_from([0.0, *PERCENTILES, 100.0]))
def test_a_percentile_is_the_exact_one_or_a_little_above(values: list[int], percent: float) -> None:
    histogram = filled(values)
    rank = max(math.ceil(len(values) * percent / 100), 1)
    exact = sorted(values)[rank - 1]
    assert exact <= histogram.percentile(percent) <= exact * (1 + PRECISION)


@given(st.lists(st.integers(0, 10**9), min_size=1))
def test_the_extremes_and_the_mean_are_exact(values: list[int]) -> None:
    histogram = filled(values)
    assert (histogram.minimum, histogram.maximum) == (min(values), max(values))
    assert histogram.mean == pytest.approx(sum(values) / len(values))
    assert histogram.count == len(values)


def test_a_histogram_of_nothing_is_all_zero() -> None:
    assert set(Histogram().milliseconds().values()) == {0}


def test_a_time_before_it_began_counts_as_none() -> None:
    assert filled([-5, 10]).minimum == 0


def test_a_million_times_take_the_memory_of_a_thousand() -> None:
    source = random.Random(1)
    histogram = filled([source.randrange(1, 10_000_000) for _ in range(100_000)])
    assert len(histogram._buckets) < 1200


@pytest.mark.parametrize("rest", [b"", b"more"])
def test_a_stamp_is_read_as_it_was_written(rest: bytes) -> None:
    stamp = write_stamp(2**64 - 1, 7, 123)
    assert len(stamp) == STAMP_BYTES
    assert read_stamp(stamp + rest) == (2**64 - 1, 7, 123)


@pytest.mark.parametrize("payload", [b"", b"x" * 100, write_stamp(1, 2, 3)[:-1]])
def test_another_payload_has_no_stamp(payload: bytes) -> None:
    assert read_stamp(payload) is None


@pytest.mark.parametrize(
    ("numbers", "lost", "repeated"),
    [
        ([0, 1, 2], 0, 0),
        ([5, 6, 7], 0, 0),  # it came late
        ([0, 3], 2, 0),
        ([0, 1, 1, 2], 0, 1),
        ([0, 2, 1], 1, 1),  # out of order
    ],
)
def test_streams_know_what_is_lost_and_what_is_repeated(
    numbers: list[int], lost: int, repeated: int
) -> None:
    streams = Streams()
    for number in numbers:
        streams.see(1, number)
        streams.see(2, number)
    assert (streams.lost, streams.repeated) == (2 * lost, 2 * repeated)
