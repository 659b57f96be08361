"""Percentiles of millions of durations in bounded memory.

Durations are counted in buckets that grow by a fixed ratio, so that any
percentile is right to half a percent of its value, a microsecond and a minute
alike, in at most some 2000 small integers. Exact values would cost 8 MB per
million connections, a sample of them would lose the tail. HdrHistogram does
the same with a compiled extension and three further packages; as a counter by
logarithm it is this file, merges by addition, and goes into JSON as it is.
"""

from __future__ import annotations

from collections import Counter
from math import exp, floor, log
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["BUCKET_RATIO", "SHORTEST", "Histogram", "Percentile"]

BUCKET_RATIO = 1.01
"""From one bucket to the next: at most half of it, 0.5 %, is lost."""

SHORTEST = 1e-6
"""Seconds in the first bucket; the clock tells less apart."""

_LOG_RATIO = log(BUCKET_RATIO)

_LAST = 5000
"""A bucket past every duration: it begins after 10^15 seconds."""

_DEPTHS = (50.0, 90.0, 95.0, 99.0, 99.9, 99.99)

_BEYOND = 10
"""Durations that must lie beyond a percentile for it to be worth telling: with
ten its rank is known to about a third; with one it would be the maximum."""


class Percentile(NamedTuple):
    """A duration that `percent` of all were not longer than."""

    percent: float
    seconds: float


class Histogram:
    """Counts of durations.

    Args:
        buckets: counts by bucket, from `buckets` of another one.

    Attributes:
        buckets: how many durations fell into each bucket; bucket b reaches from
            1 µs times 1.01 to the power b, up to the next.
    """

    __slots__ = ("buckets",)

    def __init__(self, buckets: Mapping[int, int] | None = None) -> None:
        self.buckets: Counter[int] = Counter(buckets)

    @property
    def count(self) -> int:
        """How many durations there are."""
        return self.buckets.total()

    def add(self, seconds: float) -> None:
        """Count one duration."""
        self.buckets[floor(log(max(seconds, SHORTEST) / SHORTEST) / _LOG_RATIO)] += 1

    def __add__(self, other: Histogram) -> Histogram:
        """Count all that both have."""
        total = Histogram(self.buckets)
        total.buckets.update(other.buckets)
        return total

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Histogram) and self.buckets == other.buckets

    __hash__ = None  # type: ignore[assignment] # it grows

    def quantile(self, percent: float) -> float:
        """The duration in seconds that `percent` of them are not longer than; 0 for none."""
        rank = self.count * percent / 100
        seen = 0
        for bucket in sorted(self.buckets):
            seen += self.buckets[bucket]
            if seen >= rank:
                return SHORTEST * exp((bucket + 0.5) * _LOG_RATIO)
        return 0.0

    def percentiles(self) -> list[Percentile]:
        """The percentiles that the sample carries, deeper with more of it.

        The median takes one duration; every other ten beyond it, so the 99th
        takes a thousand.
        """
        count = self.count
        return [
            Percentile(percent, self.quantile(percent))
            for percent in _DEPTHS
            if count
            and (percent == _DEPTHS[0] or round(count * (100 - percent) / 100, 3) >= _BEYOND)
        ]

    def to_json(self) -> dict[str, Any]:
        """Percentiles for people, and the buckets behind them for adding up."""
        return {
            "count": self.count,
            "percentiles": {f"{percent:g}": seconds for percent, seconds in self.percentiles()},
            "buckets": sorted(self.buckets.items()),
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Histogram:
        """Read the buckets that `to_json` wrote; the rest follows from them.

        Raises:
            LookupError, TypeError, ValueError: they are none.
        """
        buckets = {int(bucket): int(count) for bucket, count in document["buckets"]}
        if not all(0 <= bucket < _LAST and count > 0 for bucket, count in buckets.items()):
            raise ValueError("a histogram has a bucket or a count that cannot be")
        return cls(buckets)
