"""What a load test counts: times in a histogram of fixed precision, and rates."""

import time
from typing import Final, final

__all__ = ["PERCENTILES", "Histogram", "Rate"]

PERCENTILES: Final = (50.0, 90.0, 99.0, 99.9)

# Values below are counted exactly; above, 64 buckets stand for each doubling: 1.6 % of the value.
_EXACT_BITS: Final = 7
_HALF: Final = 1 << (_EXACT_BITS - 1)


@final
class Histogram:
    """How often which time was measured, in microseconds.

    It takes the same memory for a million times as for a thousand. What it gives back is at most
    1.6 % above what was measured, but for ``minimum`` and ``maximum``, which are exact.
    """

    def __init__(self) -> None:
        self.count = 0
        self.minimum = 0
        self.maximum = 0
        self._sum = 0
        self._buckets: dict[int, int] = {}

    def add(self, value_us: int) -> None:
        """Count one time; one below 0, of clocks that differ, is 0."""
        value_us = max(value_us, 0)
        if self.count == 0 or value_us < self.minimum:
            self.minimum = value_us
        if value_us > self.maximum:
            self.maximum = value_us
        self.count += 1
        self._sum += value_us
        shift = value_us.bit_length() - _EXACT_BITS
        # A bucket's number grows with its values: 64 for each shift, above those that are exact.
        bucket = value_us if shift <= 0 else (shift * _HALF) + (value_us >> shift)
        self._buckets[bucket] = self._buckets.get(bucket, 0) + 1

    @property
    def mean(self) -> float:
        """The mean, 0 for none."""
        return self._sum / self.count if self.count else 0.0

    def percentile(self, percent: float) -> int:
        """The smallest value that so many percent of the times do not exceed; 0 for none."""
        if self.count == 0:
            return 0
        wanted = max(self.count * percent / 100, 1)
        seen = 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= wanted:
                return min(_last_value(bucket), self.maximum)
        return self.maximum

    def text(self) -> str:
        """The same in one line."""
        parts = [f"p{percent:g} {_shown(self.percentile(percent))}" for percent in PERCENTILES]
        return ", ".join([*parts, f"max {_shown(self.maximum)}"])

    def milliseconds(self) -> dict[str, float]:
        """The percentiles, the extremes and the mean, for a report."""
        values = {f"p{percent:g}": self.percentile(percent) / 1000 for percent in PERCENTILES}
        return {
            "min": self.minimum / 1000,
            "mean": round(self.mean / 1000, 3),
            **values,
            "max": self.maximum / 1000,
        }


@final
class Rate:
    """How many there were, and how many a second from the first to the last."""

    def __init__(self) -> None:
        self.count = 0
        self.bytes = 0
        self._first_s = 0.0
        self._last_s = 0.0

    def add(self, size: int) -> None:
        """Count one of so many bytes, now."""
        self._last_s = time.perf_counter()
        if self.count == 0:
            self._first_s = self._last_s
        self.count += 1
        self.bytes += size

    @property
    def per_s(self) -> float:
        """0 where it cannot be said."""
        return self._each_s(self.count - 1)

    @property
    def bytes_per_s(self) -> float:
        """0 where it cannot be said."""
        return self._each_s(self.bytes)

    def text(self) -> str:
        """In one line."""
        size = f", {self.bytes_per_s / 1_000_000:.1f} MB/s" if self.bytes else ""
        return f"{self.count} messages, {self.per_s:.0f}/s{size}"

    def _each_s(self, amount: int) -> float:
        passed_s = self._last_s - self._first_s
        return round(amount / passed_s, 1) if passed_s > 0 else 0.0


def _shown(value_us: int) -> str:
    if value_us < 1000:
        return f"{value_us} µs"
    return f"{value_us / 1000:.1f} ms" if value_us < 1_000_000 else f"{value_us / 1e6:.2f} s"


def _last_value(bucket: int) -> int:
    """The largest value that falls into a bucket."""
    if bucket < 2 * _HALF:
        return bucket
    shift = bucket // _HALF - 1
    return ((bucket - shift * _HALF + 1) << shift) - 1
