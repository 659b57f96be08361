"""Whether the answers are independent draws: do they stick, take turns, drift, follow the source?

The verdict rests on independent draws, one per connection. These tests look at
the order of the answers and at who asked, in memory that does not grow:
adjacent equal answers and distances between a backend's answers are counted as they
come, and the running counts are kept at a bounded number of points, evenly spaced.

Each test names what good draws come to once in so many probes:

======================  ===========================================================
answers stick or turns  once in 100 000; in 4000 where shares are as uneven as 97/3
even distances          once in 100 000 at most, over all looks of a probe together
shares drift            once in 130 000
answers follow sources  once in 100 000 at most, over all looks of a probe together
======================  ===========================================================
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from itertools import pairwise
from math import lgamma, log, sqrt
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "Affinity",
    "Drift",
    "Order",
    "Point",
    "Runs",
    "affinity",
    "differ",
    "drift",
    "expected_runs",
    "log_affinity",
    "thin",
]

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

_BAR = log(100_000)
"""log E from which answers follow their sources: chance does it once in 100 000."""

_PARTS = (0.5, 0.8, 1.0, 1.25)
"""Where the chance of a backend's next answer may change, in mean distances since its last."""

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
        evenness: log E against independent draws, from the distances between the
            answers of a backend: see `_Distances`.
    """

    changes: int
    expected: float
    variance: float
    evenness: float = 0.0

    @property
    def sigmas(self) -> float:
        """The difference in standard deviations; negative is sticky, positive takes turns."""
        return (self.changes - self.expected) / sqrt(self.variance)

    @property
    def patterned(self) -> bool:
        """Whether the difference is too large for chance."""
        return self.variance >= _SMALLEST and abs(self.sigmas) >= _SIGMAS

    @property
    def even(self) -> bool:
        """Whether a backend's answers come at distances that are too even for chance."""
        return self.evenness >= _BAR


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


class Affinity(NamedTuple):
    """That backends go by the client's address, beyond chance.

    Where each source keeps its backend, a sample is as many draws as it has
    sources, however many connections there were.

    Attributes:
        sources: how many addresses got answers.
        kept: how many of them got two answers or more, all from one backend.
    """

    sources: int
    kept: int


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
        self._total = 0
        self._distances: dict[str, _Distances] = {}

    def add(self, name: str) -> None:
        """Take the backend of the next connection."""
        if self._last is not None and name != self._last:
            self._changes += 1
        self._last = name
        self._counts[name] += 1
        self._total += 1
        if name not in self._distances:
            self._distances[name] = _Distances()
        self._distances[name].add(self._total)

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
        found = [each.evenness(self._total) for each in self._distances.values()]
        evenness = max(found) - log(len(found))
        runs = expected_runs(self._counts)._replace(changes=self._changes, evenness=evenness)
        return runs if runs.even or runs.variance >= _SMALLEST else None


class _Distances:
    """How far apart a backend's answers are, beside independent draws.

    Round robin leaves no mark on the number of changes where one backend answers
    rarely: each of its answers stands alone either way. But it comes at nearly the
    same distance each time, and a draw at any.

    The logarithm of E = M / U, as in `log_affinity`. U is the chance of these places
    of c answers among n where all are alike, c! (n-c)! / n!. M is their chance where
    the next answer depends on how long ago the last was: one unknown chance, with the
    prior Beta(1/2, 1/2), for each part of the mean distance so far. That is a chance
    for each answer given those before it, so E stays below a martingale of the true
    shares and reaches 1/a at any look with a chance of a at most.
    """

    __slots__ = ("_count", "_first", "_hits", "_last", "_limits", "_misses")

    def __init__(self) -> None:
        self._count = self._first = self._last = 0
        self._limits: Sequence[int] = ()
        # By part of the mean distance; the last is for those before there is one.
        self._hits = [0] * (len(_PARTS) + 2)
        self._misses = [0] * (len(_PARTS) + 2)

    def add(self, place: int) -> None:
        """Take its next answer, at this place among all answers, the first at 1."""
        self._misses = self._missed(place - 1)
        self._hits[self._part(place)] += 1
        self._count += 1
        self._last = place
        if self._count == 1:
            self._first = place
        else:
            mean = (place - self._first) / (self._count - 1)
            self._limits = [int(part * mean) for part in _PARTS]

    def evenness(self, total: int) -> float:
        """Log E after `total` answers; at most 0 where they are no more even than draws."""
        misses = self._missed(total)
        found = lgamma(total + 1) - lgamma(self._count + 1) - lgamma(total - self._count + 1)
        for hits, missed in zip(self._hits, misses, strict=True):
            found += lgamma(hits + 0.5) + lgamma(missed + 0.5) - 2 * lgamma(0.5)
            found -= lgamma(hits + missed + 1)
        soon = self._hits[0] * total < (self._hits[0] + misses[0]) * self._count / 2
        return found if soon else min(found, 0.0)

    def _part(self, place: int) -> int:
        """The part of the mean distance that a place is in."""
        if not self._limits:
            return -1
        return bisect_left(self._limits, place - self._last)

    def _missed(self, until: int) -> list[int]:
        """Answers of others by part, up to a place with none of its own since the last."""
        misses = self._misses.copy()
        gone = until - self._last
        if not self._limits:
            misses[-1] += gone
            return misses
        ends = [0, *(min(limit, gone) for limit in self._limits), gone]
        for part, (start, end) in enumerate(pairwise(ends)):
            misses[part] += end - start
        return misses


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


def log_affinity(by_source: Mapping[str, Mapping[str, int]]) -> float:
    """How strongly the answers speak against draws that are the same for every source.

    The logarithm of E = M / U. M is the chance of these answers in their order
    where each source has shares of its own, drawn from Dirichlet(1/k, ..., 1/k)
    for k backends. U = (c_1! ... c_k!) / n! is their chance where the answers
    of the whole sample come in any order alike. So E weighs 1 at most on
    average if sources do not matter, whatever the shares, and by Markov's
    inequality reaches 1/a with a chance of a at most. No set of shares makes
    these answers in their order more likely than U, since n! / (c_1! ... c_k!)
    orders would otherwise have a chance above 1 together. E therefore stays
    below the martingale M / (p_1^c_1 ... p_k^c_k) of the true shares, and by
    Ville's inequality the same bound holds for all looks together.

    Args:
        by_source: answers by backend for each source address.
    """
    totals = Counter[str]()
    for answers in by_source.values():
        totals.update(answers)
    names = [name for name, count in totals.items() if count]
    if not names:
        return 0.0
    part = 1.0 / len(names)
    against = lgamma(totals.total() + 1) - sum(lgamma(totals[name] + 1) for name in names)
    for answers in by_source.values():
        against -= lgamma(1.0 + sum(answers.values()))
        against += sum(
            lgamma(part + answers[name]) - lgamma(part) for name in names if answers.get(name)
        )
    return against


def affinity(by_source: Mapping[str, Mapping[str, int]]) -> Affinity | None:
    """Whether the backend goes by the client's address; None where chance could explain it."""
    if log_affinity(by_source) < _BAR:
        return None
    heard = [Counter(answers) for answers in by_source.values() if any(answers.values())]
    kept = sum(
        answers.total() > 1 and max(answers.values()) == answers.total() for answers in heard
    )
    return Affinity(len(heard), kept)


def differ(some: Mapping[str, int], others: Mapping[str, int], chance: float) -> bool:
    """Whether two samples of independent draws come from different shares.

    Args:
        some: of one sample, by name.
        others: of the other.
        chance: that they seem to, at most, where they do not.
    """
    return log_affinity({"some": some, "others": others}) >= -log(chance)
