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
"""How many standard deviations count as a pattern: a false one in 150 000 looks.
Words without a stated error rate had better be right."""

_SMALLEST = 10
"""Expected changes of backend below which the normal approximation is no good."""


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
        return abs(self.sigmas) >= _SIGMAS


class Drift(NamedTuple):
    """The backend whose share differs most between the halves, beyond chance."""

    name: str
    before: float
    after: float
    sigmas: float


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
        return None if runs.expected < _SMALLEST else runs._replace(changes=self._changes)


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
    """Compare the first half with the second; None where they agree or are too few.

    Args:
        points: running counts in order, the last for the whole.
    """
    if not points:
        return None
    end = points[-1]
    middle = min(points, key=lambda point: abs(point.total - end.total / 2))
    n, m = middle.answered, end.answered - middle.answered
    found = None
    for name, count in end.counts.items():
        before = middle.counts.get(name, 0)
        share = count / (n + m) if n + m else 0.0
        if min(share, 1 - share) * min(n, m) < _SMALLEST:
            continue
        deviation = sqrt(share * (1 - share) * (1 / n + 1 / m))
        sigmas = ((count - before) / m - before / n) / deviation
        if abs(sigmas) >= max(_SIGMAS, abs(found.sigmas) if found else 0.0):
            found = Drift(name, before / n, (count - before) / m, sigmas)
    return found
