"""Percentiles: within half a percent of the exact ones, and only those that mean something."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_echo.prober.latency import Histogram

DURATIONS = st.lists(st.floats(1e-6, 3600), min_size=1, max_size=200)


def filled(durations: list[float]) -> Histogram:
    """A histogram of these."""
    histogram = Histogram()
    for seconds in durations:
        histogram.add(seconds)
    return histogram


@given(durations=DURATIONS, percent=st.floats(0.1, 100))
def test_quantile_is_right_to_half_a_percent(durations: list[float], percent: float) -> None:
    """Against the exact one by nearest rank."""
    exact = sorted(durations)[max(0, math.ceil(len(durations) * percent / 100) - 1)]
    assert filled(durations).quantile(percent) == pytest.approx(exact, rel=0.006)


@given(first=DURATIONS, second=DURATIONS)
def test_merging_is_counting_all(first: list[float], second: list[float]) -> None:
    """Two histograms added are the histogram of both."""
    merged = filled(first) + filled(second)
    assert merged.buckets == filled(first + second).buckets


@pytest.mark.parametrize(
    ("count", "depths"),
    [
        (0, []),
        (1, [50]),
        (99, [50]),
        (100, [50, 90]),
        (200, [50, 90, 95]),
        (999, [50, 90, 95]),
        (1000, [50, 90, 95, 99]),
        (10_000, [50, 90, 95, 99, 99.9]),
        (100_000, [50, 90, 95, 99, 99.9, 99.99]),
    ],
)
def test_percentiles_go_as_deep_as_the_sample(count: int, depths: list[float]) -> None:
    """Ten durations must lie beyond each but the median."""
    histogram = Histogram({0: count} if count else {})
    assert [percentile.percent for percentile in histogram.percentiles()] == depths


def test_shorter_than_the_clock_tells() -> None:
    """Zero and less fall into the first bucket."""
    assert filled([0.0, -1.0]).quantile(100) == pytest.approx(1e-6, rel=0.01)


def test_memory_is_bounded() -> None:
    """From a microsecond to a day there are a few thousand buckets at most."""
    assert len(filled([10 ** (power / 500) for power in range(-3000, 2500)]).buckets) < 2600
