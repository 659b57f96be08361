"""What the order of answers says: against brute force, against chance, and case by case."""

from __future__ import annotations

import itertools
import random
import statistics
from collections import Counter
from math import comb, exp, log

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reports import drawn, made

from trio_echo.prober.order import (
    Affinity,
    Order,
    Point,
    _Distances,
    affinity,
    drift,
    expected_runs,
    log_affinity,
    thin,
)
from trio_echo.prober.remarks import findings


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
        (["one", "one", "one", "one", "two"] * 80, "rotation", "takes turns (round robin)"),
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


def test_turns_of_a_rare_backend_are_found_by_their_distances() -> None:
    """Nineteen to one and one to the other, a little out of order, leave as many changes."""
    draw = random.Random(3)  # noqa: S311 - a simulation with fixed seeds, no secret
    turns = (["one"] * 19 + ["two"]) * 40
    late = sorted(range(800), key=lambda place: place + 6 * draw.random())
    report = made([turns[place] for place in late])
    runs = report.changes
    assert runs is not None
    assert not runs.patterned
    assert [remark.code for remark in findings(report)] == ["rotation"]
    assert "two answers every 20 connections, more evenly than independent draws" in str(report)


def test_even_distances_weigh_one_at_most_over_every_order() -> None:
    """Every order of a small sample, all alike: E is 1 on average at most, for each backend."""
    for names in (["a"] * 6 + ["b"] * 4, ["a"] * 3 + ["b"] * 3 + ["c"] * 2):
        weights = []
        for order in set(itertools.permutations(names)):
            places: dict[str, _Distances] = {}
            for place, name in enumerate(order, 1):
                places.setdefault(name, _Distances()).add(place)
            weights.append([exp(places[name].evenness(len(order))) for name in set(names)])
        assert all(0 < statistics.fmean(each) <= 1 for each in zip(*weights, strict=True))


def test_good_draws_are_rarely_at_even_distances() -> None:
    """Of two hundred samples, E reaches 100 in two on average at most."""
    found = [ordered(drawn({"one": 95, "two": 5}, 600, seed)).runs() for seed in range(200)]
    assert sum(runs is not None and runs.evenness >= log(100) for runs in found) <= 2


def test_shares_that_move_are_not_taken_for_turns() -> None:
    """Distances that grow with the moved share are a drift."""
    names = drawn({"one": 20, "two": 80}, 400, 1) + drawn({"one": 97, "two": 3}, 900, 2)
    report = made(names, connections=1300)
    assert report.changes is not None
    assert report.changes.even
    assert [remark.code for remark in findings(report)] == ["drift"]


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


TABLES = st.dictionaries(
    st.sampled_from(["s1", "s2", "s3", "s4"]),
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 40), min_size=1),
)


@given(table=TABLES, data=st.data())
def test_affinity_does_not_depend_on_names_or_order(
    table: dict[str, dict[str, int]], data: st.DataObject
) -> None:
    """Sources and backends may be called and sorted as they like; silent ones add nothing."""
    renamed = dict(zip("abc", data.draw(st.permutations("xyz")), strict=True))
    again = {
        f"other {source}": {renamed[name]: count for name, count in table[source].items()}
        for source in data.draw(st.permutations(list(table)))
    }
    again["silent"] = {"never": 0}
    assert log_affinity(again) == pytest.approx(log_affinity(table), abs=1e-9)


@given(answers=st.dictionaries(st.sampled_from("abc"), st.integers(0, 5000)))
def test_one_source_never_speaks_for_affinity(answers: dict[str, int]) -> None:
    """Nobody to compare with: no evidence, whatever came."""
    assert log_affinity({"s1": answers}) <= 1e-9
    assert affinity({"s1": answers}) is None


def test_affinity_weighs_one_at_most_over_every_order() -> None:
    """Every order of a small sample, all alike: E is 1 on average at most."""
    names = ["a"] * 4 + ["b"] * 2 + ["c"] * 2
    sources = ["s1"] * 4 + ["s2"] * 2 + ["s3"] * 2
    weights = []
    for order in set(itertools.permutations(names)):
        table = {source: Counter[str]() for source in sources}
        for source, name in zip(sources, order, strict=True):
            table[source][name] += 1
        weights.append(exp(log_affinity(table)))
    assert 0 < statistics.fmean(weights) <= 1


def taken(choose: dict[str, list[float]], connections: int, seed: int) -> list[float]:
    """Draw for each source by its own weights, in turn; log E after every connection."""
    draw = random.Random(seed)  # noqa: S311 - a simulation with fixed seeds, no secret
    table = {source: Counter[str]() for source in choose}
    looks = []
    for _, (source, weights) in zip(
        range(connections), itertools.cycle(choose.items()), strict=False
    ):
        table[source][draw.choices("ab", weights)[0]] += 1
        looks.append(log_affinity(table))
    return looks


def test_chance_rarely_looks_like_affinity() -> None:
    """With a look after every connection E reaches 10 in one of ten runs at most."""
    right = {f"s{number}": [80.0, 20.0] for number in range(10)}
    reached = sum(max(taken(right, 300, seed)) >= log(10) for seed in range(100))
    assert reached <= 19  # ten on average at most, and three deviations more


def test_sources_that_differ_are_found() -> None:
    """Sticky ones within some tens of connections, loaded ones within some hundreds."""
    sticky = {f"s{number}": [100.0, 0] if number < 8 else [0, 100.0] for number in range(10)}
    loaded = {f"s{number}": [95.0, 5.0] if number < 5 else [65.0, 35.0] for number in range(10)}
    assert taken(sticky, 70, 1)[-1] > log(100_000)
    assert taken(loaded, 600, 1)[-1] > log(100_000)


def test_affinity_says_how_many_sources_kept_their_backend() -> None:
    """Eight addresses to one and two to the other, one of them once astray, one heard once."""
    table = {f"10.0.0.{number}": {"one": 100} for number in range(8)}
    table |= {"10.0.0.8": {"two": 100}, "10.0.0.9": {"two": 99, "one": 1}, "10.0.0.10": {"one": 1}}
    assert affinity(table) == Affinity(sources=11, kept=9)
    assert affinity({source: {"one": 80, "two": 20} for source in table}) is None
    assert affinity({}) is None
