"""What the order of the answers says: draws that stick together, take turns, or drift.

The verdict rests on independent draws, one per connection. These tests look at
the order to see whether that holds, in memory that does not grow: adjacent
equal answers are counted as they come, and the running counts are kept at a
bounded number of points, evenly spaced.
"""

from __future__ import annotations

from collections import Counter
from math import sqrt
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Drift", "Order", "Point", "Runs", "drift", "expected_runs", "thin"]

_POINTS = 400
"""Running counts that are kept at most; a picture shows no more."""

_SIGMAS = 4.5
"""How many standard deviations count as a pattern: chance does it once in 100 000
looks, or once in 4000 where shares are as uneven as 97/3. Words that no bound
stands behind had better be right."""

_SMALLEST = 10
"""The variance below which the normal approximation is no good. Where a backend
answers rarely, hardly any number of changes but one is likely: of 994 and 6
answers, two neighbours of the 6 are 4.5 deviations already, and come in 3 % of
samples."""

_HEIGHT = 2.5
"""How high a Brownian bridge must rise to count as a drift: chance does it with
2 exp(-2 height^2), one in 130 000."""


_ROUNDING = 1e-9


class Point(NamedTuple):
    """Running counts: of the first `total` connections, how many each backend answered."""

    total: int
    errors: int
    counts: Mapping[str, int]

    @property
    def answered(self) -> int:
        """How many of them were answered."""
        return sum(self.counts.values())


class Runs(NamedTuple):
    """How often the backend changed from one connection to the next.

    Attributes:
        changes: how often it did.
        expected: how often it would with independent draws of the same counts.
        variance: of the changes, with independent draws.
    """

    changes: int
    expected: float
    variance: float

    @property
    def sigmas(self) -> float:
        """The difference in standard deviations; negative is sticky, positive takes turns."""
        return (self.changes - self.expected) / sqrt(self.variance)

    @property
    def patterned(self) -> bool:
        """Whether the difference is too large for chance."""
        return self.variance >= _SMALLEST and abs(self.sigmas) >= _SIGMAS


class Drift(NamedTuple):
    """Where the share of a backend changed, beyond chance.

    Attributes:
        name: the backend whose share changed most clearly.
        parts: answers by backend before the change, and after it.
    """

    name: str
    parts: tuple[Counter[str], Counter[str]]

    @property
    def at(self) -> int:
        """How many connections had been answered until then."""
        return self.parts[0].total()

    @property
    def shares(self) -> tuple[float, float]:
        """The share of `name` before and after."""
        before, after = (part[self.name] / part.total() for part in self.parts)
        return before, after

    def within(self, runs: Runs) -> Runs:
        """The same changes, held against draws of each part by itself.

        A share that moves leaves fewer changes than one that stays at its
        mean, though every draw was independent.
        """
        before, after = map(expected_runs, self.parts)
        return runs._replace(
            expected=before.expected + after.expected,
            variance=before.variance + after.variance,
        )


class Order:
    """Takes the answers in launch order.

    Attributes:
        points: running counts at even distances, at most some hundreds.
    """

    def __init__(self) -> None:
        self.points: list[Point] = []
        self._stride = 1
        self._counts: Counter[str] = Counter()
        self._changes = 0
        self._last: str | None = None

    def add(self, name: str) -> None:
        """Take the backend of the next connection."""
        if self._last is not None and name != self._last:
            self._changes += 1
        self._last = name
        self._counts[name] += 1

    def mark(self, total: int, errors: int, counts: Mapping[str, int]) -> None:
        """Keep these running counts, if it is time for another point."""
        if total % self._stride:
            return
        self.points.append(Point(total, errors, dict(counts)))
        if len(self.points) >= _POINTS:
            self._stride *= 2
            self.points = [point for point in self.points if not point.total % self._stride]

    def runs(self) -> Runs | None:
        """Test the changes of backend; None where the sample does not carry it."""
        if len(self._counts) < 2:  # noqa: PLR2004 - one backend alone never changes
            return None
        runs = expected_runs(self._counts)
        return None if runs.variance < _SMALLEST else runs._replace(changes=self._changes)


def expected_runs(counts: Mapping[str, int]) -> Runs:
    """How many changes independent draws of these counts make, none observed yet.

    Mean and variance of the number of runs in a random permutation of several
    kinds are those of Barton and David (Biometrika 44, 1957); a change begins
    each run but the first.

    Args:
        counts: answers by backend, two at least.
    """
    n = sum(counts.values())
    squares = sum(count**2 for count in counts.values())
    cubes = sum(count**3 for count in counts.values())
    variance = (squares * (squares + n * (n + 1)) - 2 * n * cubes - n**3) / (n**2 * (n - 1))
    return Runs(0, n - squares / n, variance)


def thin(points: list[Point]) -> list[Point]:
    """At most as many points as a picture shows, evenly chosen, the last one kept."""
    stride = -(-len(points) // _POINTS)
    return points[::-stride][::-1] if points else points


def drift(points: list[Point]) -> Drift | None:
    """Find the moment that tells before and after apart best; None where chance could.

    Under one share throughout, a backend's running count less its even part of
    it, divided by sqrt(n p (1-p)), is a Brownian bridge, and its greatest
    height has Kolmogorov's distribution: the two-sample test of his and
    Smirnov's, on the places of this backend's answers and everybody else's.
    Comparing fixed halves instead misses most of what a probe meets, as it
    stops soon after a change that it can see.

    Args:
        points: running counts in order, the last for the whole.
    """
    found, highest = None, _HEIGHT
    end = Counter(points[-1].counts) if points else Counter[str]()
    total = end.total()
    for name, count in end.items():
        variance = count * (total - count) / total if total else 0.0
        if variance < 2 * _SMALLEST:
            continue
        for point in points:
            height = abs(point.counts.get(name, 0) - point.answered * count / total)
            height /= sqrt(variance)
            # Two backends are equally high; the first is named, whatever rounding says.
            if height > highest + _ROUNDING:
                highest = height
                before = Counter(point.counts)
                found = Drift(name, (before, end - before))
    return found
