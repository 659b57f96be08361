"""The change detector: conservation, symmetry, a published detector as oracle, simulation."""

from __future__ import annotations

import random
import statistics
from collections import Counter
from copy import deepcopy
from itertools import cycle, islice
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sequential_analysis.procedures.families import Bernoulli
from sequential_analysis.procedures.shiryaev_roberts import ShiryaevRoberts

from trio_echo.monitor.change import LEARNED, Change, Detector
from trio_echo.prober.split import Expectation

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

NAMES = ("one", "two", "three")
TWO = {"one": 80.0, "two": 20.0}

WEIGHTS = st.lists(st.integers(1, 100), min_size=2, max_size=3)


def expecting(weights: Iterable[float], tolerance: float = 0.0) -> Expectation:
    """An expectation of as many backends."""
    return Expectation(dict(zip(NAMES, weights, strict=False)), tolerance=tolerance)


def drawn(weights: Mapping[str, float], seed: int) -> Iterable[str]:
    """Independent draws without end."""
    draw = random.Random(seed)  # noqa: S311 - a simulation with fixed seeds, no secret
    names, shares = list(weights), list(weights.values())
    while True:
        yield draw.choices(names, shares)[0]


def first_change(detector: Detector, names: Iterable[str]) -> Change | None:
    """Feed these answers until a change is found."""
    return next((change for name in names if (change := detector.add(name))), None)


@given(weights=WEIGHTS, picks=st.lists(st.integers(0, 2), max_size=60))
def test_evidence_grows_by_one_for_each_connection(weights: list[int], picks: list[int]) -> None:
    """Over what may come next, weighed by its share, the mean of the sums grows by 1."""
    expectation = expecting(weights)
    detector = Detector(expectation, false_alarms=1e-300)
    names = list(expectation.shares)
    for pick in picks:
        detector.add(names[pick % len(names)])
    after = 0.0
    for name, share in expectation.shares.items():
        next_detector = deepcopy(detector)
        next_detector.add(name)
        after += share * next_detector.evidence
    assert after == pytest.approx(detector.evidence + 1)


@given(
    weights=WEIGHTS,
    tolerance=st.floats(0, 0.004),
    off=st.floats(-1, 1),
    picks=st.lists(st.integers(0, 2)),
)
def test_within_the_tolerance_evidence_grows_by_less(
    weights: list[int], tolerance: float, off: float, picks: list[int]
) -> None:
    """A share that is off by less than the tolerance makes no evidence of its own."""
    assume(min(weights) / sum(weights) > 0.01)
    expectation = expecting(weights, tolerance)
    detector = Detector(expectation, false_alarms=1e-300)
    names = list(expectation.shares)
    for pick in picks:
        detector.add(names[pick % len(names)])
    shares = dict(expectation.shares)
    shares[names[0]] += off * tolerance
    shares[names[1]] -= off * tolerance
    after = 0.0
    for name, share in shares.items():
        next_detector = deepcopy(detector)
        next_detector.add(name)
        after += share * next_detector.evidence
    assert after <= (detector.evidence + 1) * (1 + 1e-9)


@given(weights=WEIGHTS, picks=st.lists(st.integers(0, 2), min_size=1, max_size=200))
def test_the_sums_are_those_of_a_published_detector(weights: list[int], picks: list[int]) -> None:
    """Shiryaev-Roberts of the package ``sequential-analysis``, one for each alternative."""
    expectation = expecting(weights)
    names = list(expectation.shares)
    detector = Detector(expectation, false_alarms=1e-300)
    oracles = []
    for name, share in expectation.shares.items():
        for sign, end in ((1, 1.0), (-1, 0.0)):
            step = expectation.margin
            while 0 < share + sign * step < 1:
                oracles.append(
                    (name, ShiryaevRoberts(Bernoulli(), share, share + sign * step, 1e300))
                )
                step *= 2
            # The ends themselves are no Bernoulli shares to the package, but next to them is.
            nearly = abs(end - 1e-13)
            oracles.append((name, ShiryaevRoberts(Bernoulli(), share, nearly, 1e300)))
    states = [oracle.initial_state() for _, oracle in oracles]
    for pick in picks:
        answer = names[pick % len(names)]
        detector.add(answer)
        total = 0.0
        for number, (name, oracle) in enumerate(oracles):
            states[number], output = oracle.step(states[number], {"x": int(answer == name)})
            total += 2.718281828459045**output.log_statistic
        assert detector.evidence == pytest.approx(total / len(oracles), rel=1e-6, abs=1e-6)


@given(weights=WEIGHTS, picks=st.lists(st.integers(0, 2), max_size=200), data=st.data())
def test_names_and_their_order_do_not_matter(
    weights: list[int], picks: list[int], data: st.DataObject
) -> None:
    """The same answers under other names, expected in another order, are the same evidence."""
    names = NAMES[: len(weights)]
    order = data.draw(st.permutations(range(len(weights))))
    detector = Detector(expecting(weights), false_alarms=1e-3)
    other = Detector(Expectation({f"x{names[i]}": weights[i] for i in order}), false_alarms=1e-3)
    for pick in picks:
        name = names[pick % len(names)]
        found, again = detector.add(name), other.add(f"x{name}")
        assert (found is None) is (again is None)
        if found and again:
            assert (found.seen, found.at) == (again.seen, again.at)
            assert again.after == {f"x{name}": count for name, count in found.after.items()}
        assert other.evidence == pytest.approx(detector.evidence)


@given(
    weights=WEIGHTS,
    truth=st.lists(st.integers(0, 100), min_size=3, max_size=3).filter(any),
    seed=st.integers(0, 999),
)
def test_no_alarm_without_evidence(weights: list[int], truth: list[int], seed: int) -> None:
    """Where there is an alarm, answers since the change speak against what was expected."""
    expectation = expecting(weights)
    given_weights = dict(zip(NAMES, truth[: len(weights)], strict=False))
    assume(any(given_weights.values()))
    detector = Detector(expectation, false_alarms=1e-3)
    change = first_change(detector, islice(drawn(given_weights, seed), 2000))
    if change is None:
        return
    after = change.shares(change.backend)[1]
    expected = expectation.shares[change.backend]
    assert abs(after - expected) >= expectation.margin / 2 - 1e-9
    assert sum(change.before.values()) == change.at - 1
    assert sum(change.before.values()) + sum(change.after.values()) == change.seen


def test_turns_in_the_right_numbers_are_never_an_alarm() -> None:
    """Four to one and one to two, for ever."""
    detector = Detector(Expectation(TWO), false_alarms=1e-2)
    assert first_change(detector, islice(cycle(["one"] * 4 + ["two"]), 20_000)) is None


@pytest.mark.parametrize(
    "weights", [TWO, {"one": 60, "two": 25, "three": 15}, {"one": 95, "two": 5}]
)
def test_false_alarms_are_as_rare_as_promised(weights: dict[str, float]) -> None:
    """At one in fifty connections, the average run is at least fifty long."""
    lengths = []
    for seed in range(150):
        detector = Detector(Expectation(weights), false_alarms=1 / 50)
        change = first_change(detector, drawn(weights, seed))
        assert change is not None
        lengths.append(change.seen)
    error = statistics.stdev(lengths) / len(lengths) ** 0.5
    assert statistics.fmean(lengths) >= 50 - 3 * error


@pytest.mark.parametrize(
    ("after", "most"),
    [
        ((75, 25), 1400),
        ((70, 30), 420),
        ((50, 50), 75),
        ((20, 80), 30),
        ((0, 100), 15),
        ((100, 0), 80),
    ],
)
def test_changes_are_found_soon_and_near_their_moment(after: tuple[int, int], most: int) -> None:
    """Medians over some runs at the default, after 300 connections as expected."""
    changed = dict(zip(TWO, after, strict=True))
    delays, misses = [], []
    for seed in range(9):
        names = [*islice(drawn(TWO, seed), 300)]
        detector = Detector(Expectation(TWO))
        assert first_change(detector, names) is None
        change = first_change(detector, drawn(changed, seed + 100))
        assert change is not None
        delays.append(change.seen - 300)
        misses.append(abs(change.at - 301))
        before, now = change.intervals("one")
        assert before.low <= 0.8 <= before.high
        assert now.low <= after[0] / 100 <= now.high
    assert statistics.median(delays) <= most
    assert statistics.median(misses) <= most / 5


@pytest.mark.parametrize("weights", [{"one": 100.0}, {"one": 100.0, "two": 0.0}, TWO])
def test_an_unexpected_backend_is_a_change_by_itself(weights: dict[str, float]) -> None:
    """One answer from nowhere is proof; afterwards it is known."""
    detector = Detector(Expectation(weights))
    assert first_change(detector, ["one"] * 30) is None
    change = detector.add("stray")
    assert change is not None
    assert (change.backend, change.at, change.seen) == ("stray", 31, 31)
    assert change.shares("stray") == (0, 1)
    assert change.names == ["one", "stray"]
    assert detector.add("stray") is None


def test_after_an_alarm_the_new_split_is_learned() -> None:
    """The move back is the next change, and nothing in between."""
    detector = Detector(Expectation(TWO))
    names = [
        *islice(drawn(TWO, 1), 3000),
        *islice(drawn({"one": 20, "two": 80}, 2), 3000),
        *islice(drawn(TWO, 3), 3000),
    ]
    changes = [change for name in names if (change := detector.add(name))]
    assert [change.at for change in changes] == pytest.approx([3001, 6001], abs=10)
    assert changes[1].shares("one")[0] == pytest.approx(0.2, abs=0.05)


def test_what_nobody_expects_is_learned() -> None:
    """No alarm while the shares stay; large changes are found at once, small ones in time."""
    detector = Detector()
    assert first_change(detector, islice(drawn(TWO, 4), 10_000)) is None
    assert detector.ranges["one"].low < 0.8 < detector.ranges["one"].high
    swapped = deepcopy(detector)
    change = first_change(swapped, islice(drawn({"one": 20, "two": 80}, 5), 100))
    assert change is not None
    assert abs(change.at - 10_001) <= 10
    change = first_change(detector, islice(drawn({"one": 70, "two": 30}, 5), 3000))
    assert change is not None
    assert abs(change.at - 10_001) <= 200


def test_names_that_come_while_learning_are_no_change() -> None:
    """Later they are; with nothing learned yet there is nothing to compare with."""
    detector = Detector(Expectation({}))
    assert detector.evidence == 0
    assert first_change(detector, ["one", "two", "three"] * 50) is None
    assert first_change(detector, islice(cycle(["one", "two", "three"]), LEARNED)) is None
    change = detector.add("four")
    assert change is not None
    assert change.backend == "four"


def test_learned_shares_rarely_raise_a_false_alarm() -> None:
    """Twenty runs over several rounds of learning, at a coarse rate."""
    alarms = 0
    for seed in range(20):
        detector = Detector(false_alarms=1e-4)
        alarms += first_change(detector, islice(drawn(TWO, seed), 2000)) is not None
    assert alarms <= 6  # four on average at most: 20 * 2000 / 10_000


def test_a_change_counts_its_answers() -> None:
    """Everything from the last alarm on is before or after."""
    detector = Detector(Expectation(TWO))
    names = [*islice(drawn(TWO, 7), 500)] + ["one"] * 200
    change = first_change(detector, names)
    assert change is not None
    assert Counter(change.before) + Counter(change.after) == Counter(names[: change.seen])
    assert change.names == ["one", "two"]
    assert change.shares("two")[1] == 0
