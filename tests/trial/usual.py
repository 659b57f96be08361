"""What people check splits with otherwise. Each returns whether it accepts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

__all__ = [
    "USUAL",
    "Draw",
    "five_in_five_hundred",
    "seen_in_twenty",
    "ten_in_hundred",
    "two_in_ten",
]

Draw = Callable[[], str | None]
"""One request: who answered it; None where it failed."""


def two_in_ten(draw: Draw, shares: Mapping[str, float]) -> bool:
    """Ten connections by `nc`, and every count is within two of what was asked for."""
    return _within(2, 10, draw, shares)


def seen_in_twenty(draw: Draw, shares: Mapping[str, float]) -> bool:
    """Twenty requests, and everybody who should answer did."""
    return {name for name, share in shares.items() if share} <= {draw() for _ in range(20)}


def ten_in_hundred(draw: Draw, shares: Mapping[str, float]) -> bool:
    """A hundred requests, and every count is within ten of what was asked for."""
    return _within(10, 100, draw, shares)


def _within(most: int, total: int, draw: Draw, shares: Mapping[str, float]) -> bool:
    """No count is off by more than `most`; a failed request is nobody's."""
    counts = Counter(draw() for _ in range(total))
    return all(abs(counts[name] - total * share) <= most for name, share in shares.items())


def five_in_five_hundred(draw: Draw, shares: Mapping[str, float]) -> bool:
    """Up to ten tries of 500 requests each, until one is within 5 points.

    As the Gateway API's conformance test for weights does it
    (`conformance/utils/weight`): every request must be answered, by a backend
    that is known, and everybody with a weight must have answered.
    """
    return any(_within_five_points(draw, shares) for _ in range(10))


def _within_five_points(draw: Draw, shares: Mapping[str, float]) -> bool:
    """One try of the conformance test."""
    counts = Counter(draw() for _ in range(500))
    return counts.keys() == {name for name, share in shares.items() if share} and all(
        abs(counts[name] / 500 - share) <= 0.05 for name, share in shares.items()
    )


USUAL = {
    "10 ±2": two_in_ten,
    "all seen in 20": seen_in_twenty,
    "100 ±10": ten_in_hundred,
    "500 ±5 points, ten tries": five_in_five_hundred,
}
