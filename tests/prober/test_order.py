"""What the order of answers says: against brute force, against chance, and case by case."""

from __future__ import annotations

import itertools
import random
import statistics
from collections import Counter
from math import comb

import pytest
from reports import drawn, made

from trio_echo.prober.order import Order, Point, drift, expected_runs, thin
from trio_echo.prober.words import findings


def ordered(names: list[str]) -> Order:
    """The order of these answers."""
    order = Order()
    for name in names:
        order.add(name)
    return order


def test_moments_are_those_of_all_permutations() -> None:
    """Mean and variance of the changes, counted over every order of a small sample."""
    names = ["a"] * 4 + ["b"] * 3 + ["c"] * 2
    changes = [
        sum(left != right for left, right in itertools.pairwise(permuted))
        for permuted in set(itertools.permutations(names))
    ]
    runs = expected_runs(Counter(names))
    assert runs.expected == pytest.approx(statistics.fmean(changes))
    assert runs.variance == pytest.approx(statistics.pvariance(changes))


def test_runs_against_shuffling() -> None:
    """The figures agree with ten thousand shuffles of one sample."""
    shuffle = random.Random(5)  # noqa: S311 - a simulation with fixed seeds, no secret
    names = ["a"] * 60 + ["b"] * 25 + ["c"] * 5
    changes = []
    for _ in range(5000):
        shuffle.shuffle(names)
        changes.append(sum(left != right for left, right in itertools.pairwise(names)))
    runs = ordered(names).runs()
    assert runs is not None
    assert runs.changes == changes[-1]
    assert statistics.fmean(changes) == pytest.approx(runs.expected, rel=0.01)
    assert statistics.pvariance(changes) == pytest.approx(runs.variance, rel=0.1)


def test_independent_draws_show_no_pattern() -> None:
    """In a thousand samples of good draws nobody is accused."""
    for seed in range(1000):
        runs = ordered(drawn({"one": 80, "two": 20}, 300, seed)).runs()
        assert runs is not None
        assert not runs.patterned


@pytest.mark.parametrize(
    ("names", "code", "words"),
    [
        (["one", "one", "one", "one", "two"] * 80, "rotation", "strict rotation"),
        (["one"] * 40 + ["two"] * 10 + ["one"] * 40 + ["two"] * 10, "sticky", "session affinity"),
    ],
)
def test_patterns_are_said_with_their_figure(names: list[str], code: str, words: str) -> None:
    """Taking turns and sticking together, in words and numbers."""
    report = made(names, connections=500)
    runs = report.changes
    assert runs is not None
    assert runs.patterned
    assert words in str(report)
    assert f"changed {runs.changes} times" in str(report)
    assert code in [remark.code for remark in findings(report)]


@pytest.mark.parametrize(
    "names", [[], ["one"], ["one"] * 500, ["one", "two"] * 5, ["one"] * 988 + ["two"] * 12]
)
def test_too_little_to_tell(names: list[str]) -> None:
    """No pattern is named where the sample does not carry it."""
    assert ordered(names).runs() is None


def test_drift_is_said_with_both_shares() -> None:
    """Weights that were moved show where that was, and from what to what."""
    names = drawn({"one": 90, "two": 10}, 600, 1) + drawn({"one": 60, "two": 40}, 200, 2)
    report = made(names, connections=800)
    assert report.drift is not None
    assert report.drift.at == pytest.approx(600, abs=20)
    assert report.drift.shares == pytest.approx((0.9, 0.6), abs=0.1)
    assert f"at about answer {report.drift.at}: were weights moved meanwhile?" in str(report)


def test_a_drift_is_not_taken_for_stickiness() -> None:
    """Moved weights leave fewer changes than their mean does; each part by itself does not."""
    names = drawn({"one": 80, "two": 20}, 300, 3) + drawn({"one": 20, "two": 80}, 300, 4)
    report = made(names, connections=600)
    assert report.changes is not None
    assert report.changes.patterned
    assert [remark.code for remark in findings(report)] == ["drift"]


def test_stickiness_is_not_taken_for_a_drift() -> None:
    """Answers that come in bunches wander, with the weights where they were."""
    names = [name for name in drawn({"one": 80, "two": 20}, 30, 6) for _ in range(20)]
    report = made(names, connections=600)
    assert report.drift is not None
    assert [remark.code for remark in findings(report)] == ["sticky"]


def test_a_cut_over_is_a_drift() -> None:
    """All to one and then all to two: no part has anything that could change."""
    report = made(["one"] * 200 + ["two"] * 200, connections=400)
    assert [remark.code for remark in findings(report)] == ["drift"]
    assert "from 100.0 % to 0.0 % at about answer 200" in str(report)


@pytest.mark.parametrize("counts", [(80, 20), (950, 60), (1900, 100), (2940, 90)])
def test_chance_rarely_looks_like_a_pattern(counts: tuple[int, int]) -> None:
    """The exact distribution of runs puts at most 1 in 4000 beyond what counts as one."""
    names = dict(zip("ab", counts, strict=True))
    runs = expected_runs(names)
    assert runs.variance >= 10
    first, second = counts
    beyond = 0
    for half in range(1, second + 2):
        even = 2 * comb(first - 1, half - 1) * comb(second - 1, half - 1)
        odd = comb(first - 1, half) * comb(second - 1, half - 1)
        odd += comb(first - 1, half - 1) * comb(second - 1, half)
        for changes, ways in ((2 * half - 1, even), (2 * half, odd)):
            beyond += ways * runs._replace(changes=changes).patterned
    assert beyond / comb(first + second, first) < 1 / 4000


def test_steady_shares_do_not_drift() -> None:
    """In three hundred good samples nobody is accused."""
    for seed in range(300):
        assert made(drawn({"one": 80, "two": 20}, 500, seed), connections=500).drift is None


def test_drift_needs_something_to_compare() -> None:
    """Nothing, or only failures, has no halves."""
    assert drift([]) is None
    assert drift([Point(1, 1, {}), Point(2, 2, {})]) is None


@pytest.mark.parametrize("count", [0, 1, 399, 400, 401, 5000])
def test_thinned_points_keep_the_last(count: int) -> None:
    """At most four hundred, and the end is among them."""
    points = [Point(number, 0, {}) for number in range(count)]
    thinned = thin(points)
    assert len(thinned) <= 400
    assert thinned[-1:] == points[-1:]
