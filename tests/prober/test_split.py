"""The statistics: properties, scipy and a published test as oracles, simulation, cases."""

from __future__ import annotations

import pickle
import random
from collections import Counter
from dataclasses import replace
from math import ceil, exp, inf, log
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from scipy.special import betaln, xlog1py, xlogy
from scipy.stats import binom
from sequential_analysis.procedures.ab import SampleRatioMismatch

from trio_echo.errors import ConfigError
from trio_echo.prober.counts import Counts, Outcome
from trio_echo.prober.split import (
    DEFAULT_MARGIN,
    MOST_CONNECTIONS,
    Expectation,
    Verdict,
    connections_needed,
    interval,
    judge,
    off,
    silent,
    unexpected,
    would_decide,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

NAMES = ("a", "b", "c", "d")


def seen(errors: int = 0, mixed: int = 0, **answers: int) -> Counts:
    """Counts by backend."""
    outcomes = Counter({Outcome.OK: sum(answers.values()), Outcome.RESET: errors})
    return Counts(answers=Counter(answers), outcomes=outcomes, mixed=mixed)


def times(counts: Counts, factor: int) -> Counts:
    """So many measurements that all came to this."""
    answers = {name: factor * hits for name, hits in counts.answers.items()}
    return seen(factor * counts.errors, factor * counts.mixed, **answers)


@st.composite
def expectations(draw: st.DrawFn) -> Expectation:
    """Two to four backends, some without weight, held more or less closely."""
    names = NAMES[: draw(st.integers(2, 4))]
    weight = st.one_of(st.integers(1, 100), st.floats(0.01, 100), st.just(0))
    weights = {name: draw(weight) for name in names}
    assume(any(weights.values()))
    margin = draw(st.one_of(st.none(), st.floats(0.002, 0.4)))
    tolerance = draw(st.floats(0, 0.9)) * Expectation(weights, margin=margin).margin
    alpha = draw(st.floats(1e-6, 0.5))
    return Expectation(weights, margin=margin, tolerance=tolerance, alpha=alpha)


@st.composite
def counted(draw: st.DrawFn, expectation: Expectation) -> Counts:
    """Arbitrary counts, or some near the expectation, where verdicts change."""
    near = draw(st.booleans())
    total = draw(st.integers(0, 20_000))
    most = {name: round(share * total) for name, share in expectation.shares.items()}
    answers = {
        name: max(0, hits + draw(st.integers(-40, 40))) if near else draw(st.integers(0, 3000))
        for name, hits in most.items()
    }
    if draw(st.integers(0, 9)) == 0:
        answers["stranger"] = draw(st.integers(0, 3))
    errors = draw(st.one_of(st.just(0), st.integers(0, 60)))
    mixed = draw(st.sampled_from([0, 0, 0, 0, 0, 0, 0, 0, 1]))
    return seen(errors, min(mixed, sum(answers.values())), **answers)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Expectation, Counts]:
    """An expectation and counts."""
    expectation = draw(expectations())
    return expectation, draw(counted(expectation))


def log_against(share: float, asked: float, hits: int, total: int) -> float:
    """Log E by its formula, computed by scipy."""
    a, b = 10 * share + 0.5, 10 * (1 - share) + 0.5
    misses = total - hits
    mixture = betaln(a + hits, b + misses) - betaln(a, b)
    return float(mixture - xlogy(hits, asked) - xlog1py(misses, -asked))


@given(case=cases())
def test_the_verdict_is_what_the_shown_intervals_say(case: tuple[Expectation, Counts]) -> None:
    """The quick look, without bisection, agrees with the intervals that people see."""
    expectation, counts = case
    verdict = judge(expectation, counts)
    foul = counts.mixed or unexpected(expectation, counts)
    slack = 1e-9  # an end of an interval is known to the last bits of a double
    inside, outside = True, False
    for name, share in expectation.shares.items():
        low, high = interval(expectation, counts, name)
        inside &= share - expectation.margin < low + slack
        inside &= high - slack < share + expectation.margin
        tolerance = expectation.tolerance - slack
        outside |= low > share + tolerance or high < share - tolerance
    if verdict is Verdict.PASS:
        assert inside
        assert not foul
    elif verdict is Verdict.FAIL:
        assert foul or outside
        assert bool(off(expectation, counts)) or foul
    else:
        assert verdict is Verdict.INCONCLUSIVE
        assert not foul
        assert not off(expectation, counts)


@given(case=cases())
def test_no_pass_over_a_silent_backend(case: tuple[Expectation, Counts]) -> None:
    """Whatever the margin: who has weight must have answered, nobody else may have."""
    expectation, counts = case
    if judge(expectation, counts) is Verdict.PASS:
        assert not silent(expectation, counts)
        assert not unexpected(expectation, counts)
        assert not counts.mixed
        answered = {name for name, hits in counts.answers.items() if hits}
        assert answered == {name for name, share in expectation.shares.items() if share}


@given(case=cases())
def test_what_passes_is_within_the_margin_and_what_is_off_is_not_within_the_tolerance(
    case: tuple[Expectation, Counts],
) -> None:
    """The observed shares themselves never contradict the verdict."""
    expectation, counts = case
    for name in off(expectation, counts):
        low = counts.answers.get(name, 0) / counts.total
        high = (counts.answers.get(name, 0) + counts.errors) / counts.total
        share, tolerance = expectation.shares[name], expectation.tolerance
        assert low > share + tolerance or high < share - tolerance
    if judge(expectation, counts) is Verdict.PASS:
        for name, share in expectation.shares.items():
            observed = counts.answers.get(name, 0) / counts.total
            assert abs(observed - share) < expectation.margin


@given(case=cases(), factor=st.integers(1, 1000), binary=st.integers(-20, 20))
def test_scaling_all_weights_changes_nothing(
    case: tuple[Expectation, Counts], factor: int, binary: int
) -> None:
    """Weights have no unit: 80 and 20 ask for what 4 and 1 ask for."""
    expectation, counts = case
    whole = all(weight == int(weight) for weight in expectation.weights.values())
    scale = factor if whole else 2.0**binary  # other factors would round the weights themselves
    scaled = Expectation(
        {name: weight * scale for name, weight in expectation.weights.items()},
        margin=expectation.margin,
        tolerance=expectation.tolerance,
        alpha=expectation.alpha,
    )
    assert scaled == expectation
    assert judge(scaled, counts) is judge(expectation, counts)


@given(case=cases(), data=st.data())
def test_the_order_of_backends_changes_nothing(
    case: tuple[Expectation, Counts], data: st.DataObject
) -> None:
    """Nor does it matter who answered first."""
    expectation, counts = case
    names = data.draw(st.permutations(list(expectation.weights)))
    shuffled = Expectation(
        {name: expectation.weights[name] for name in names},
        margin=expectation.margin,
        tolerance=expectation.tolerance,
        alpha=expectation.alpha,
    )
    answers = dict(data.draw(st.permutations(list(counts.answers.items()))))
    again = seen(counts.errors, counts.mixed, **answers)
    assert judge(shuffled, again) is judge(expectation, counts)


@given(case=cases(), data=st.data())
def test_a_failure_only_widens(case: tuple[Expectation, Counts], data: st.DataObject) -> None:
    """An answer that turns into a failure narrows no interval and decides nothing."""
    expectation, counts = case
    weighted = [
        name for name, share in expectation.shares.items() if share and counts.answers.get(name)
    ]
    assume(weighted)
    name = data.draw(st.sampled_from(weighted))
    fewer = {**counts.answers, name: counts.answers[name] - 1}
    failed = seen(counts.errors + 1, counts.mixed, **fewer)
    for name in expectation.shares:
        before, after = (interval(expectation, found, name) for found in (counts, failed))
        assert after.low <= before.low + 1e-12
        assert after.high >= before.high - 1e-12
    assert set(off(expectation, failed)) <= set(off(expectation, counts))
    if judge(expectation, failed) is Verdict.PASS:
        assert judge(expectation, counts) is Verdict.PASS


@given(case=cases(), wider=st.floats(1, 3))
def test_a_wider_margin_passes_no_less_and_a_wider_tolerance_fails_no_more(
    case: tuple[Expectation, Counts], wider: float
) -> None:
    """Each setting moves its own verdict, in the direction that its name says."""
    expectation, counts = case
    margin = min(0.99, wider * expectation.margin)
    same = {"tolerance": expectation.tolerance, "alpha": expectation.alpha}
    loose = Expectation(expectation.weights, margin=margin, **same)
    if judge(expectation, counts) is Verdict.PASS:
        assert judge(loose, counts) is Verdict.PASS
    assert off(loose, counts) == off(expectation, counts)
    same["tolerance"] = min(wider * expectation.tolerance, 0.999 * margin)
    lenient = Expectation(expectation.weights, margin=margin, **same)
    assert set(off(lenient, counts)) <= set(off(expectation, counts))


@given(case=cases(), smaller=st.floats(0.001, 1))
def test_a_smaller_alpha_widens(case: tuple[Expectation, Counts], smaller: float) -> None:
    """More certainty takes wider intervals, never narrower ones."""
    expectation, counts = case
    surer = Expectation(
        expectation.weights,
        margin=expectation.margin,
        tolerance=expectation.tolerance,
        alpha=smaller * expectation.alpha,
    )
    for name in expectation.shares:
        narrow, wide = interval(expectation, counts, name), interval(surer, counts, name)
        assert wide.low <= narrow.low + 1e-12
        assert wide.high >= narrow.high - 1e-12
    if judge(expectation, counts) is Verdict.INCONCLUSIVE:
        assert judge(surer, counts) is Verdict.INCONCLUSIVE


@given(
    share=st.floats(0.0001, 0.9999),
    counts=st.tuples(st.integers(0, 100_000), st.integers(0, 100_000)).filter(any),
    errors=st.integers(0, 50),
    alpha=st.floats(1e-6, 0.5),
)
def test_an_interval_ends_where_the_evidence_reaches_the_bar(
    share: float, counts: tuple[int, int], errors: int, alpha: float
) -> None:
    """Just outside either end E is 1/alpha, by scipy; the observed share lies inside."""
    expectation = Expectation({"one": share, "two": 1 - share}, alpha=alpha)
    asked = expectation.shares["one"]
    hits, total = counts[0], sum(counts) + errors
    low, high = interval(expectation, seen(errors, one=counts[0], two=counts[1]), "one")
    assert low <= hits / total
    assert high >= (hits + errors) / total
    bar = log(1 / alpha)
    if low > 0:
        inside = low + (hits / total - low) * 1e-6
        assert log_against(asked, low, hits, total) >= bar - 1e-6
        assert log_against(asked, inside, hits, total) <= bar + 1e-3
    if high < 1:
        most = hits + errors
        inside = high - (high - most / total) * 1e-6
        assert log_against(asked, high, most, total) >= bar - 1e-6
        assert log_against(asked, inside, most, total) <= bar + 1e-3


@given(share=st.floats(0, 1))
@example(share=0.0)
@example(share=1.0)
def test_the_evidence_has_expectation_one(share: float) -> None:
    """Summed over every outcome of a dozen draws, E(q) weighs 1 under q."""
    total, mean = 12, 0.0
    for hits in range(total + 1):
        against = log_against(0.8, share, hits, total)
        if against < inf:
            mean += exp(float(binom.logpmf(hits, total, share)) + against)
    assert mean <= 1 + 1e-9
    if 0.001 < share < 0.999:
        assert mean == pytest.approx(1)


@given(
    asked=st.floats(0.05, 0.95),
    counts=st.tuples(st.integers(0, 2000), st.integers(0, 2000)).filter(any),
)
def test_a_published_sequential_test_agrees(asked: float, counts: tuple[int, int]) -> None:
    """The edge of the tolerance is judged as the test of Lindon and Malek judges it.

    The package ``sequential-analysis`` tests one hypothesis with a prior whose
    mean is that hypothesis; so the prior's mean is asked about here, which is
    the share itself shifted towards one half by its two half counts.
    """
    share = (11 * asked - 0.5) / 10
    oracle = SampleRatioMismatch((asked, 1 - asked), concentration=11)
    against = oracle.log_e_value(counts)
    assume(abs(against - log(1000)) > 1e-6)
    tolerance = abs(share - asked)
    expectation = Expectation({"one": share, "two": 1 - share}, margin=0.6, tolerance=tolerance)
    found = seen(one=counts[0], two=counts[1])
    observed = counts[0] / sum(counts)
    outwards = observed > asked if asked > share else observed < asked
    if tolerance and outwards:
        assert ("one" in off(expectation, found)) is (against >= log(1000))


def test_a_published_sequential_test_stops_at_the_same_connection() -> None:
    """Draw by draw, with a look after each: 50/50 is the share at which the priors agree."""
    draw = random.Random(1)  # noqa: S311 - a simulation with fixed seeds, no secret
    expectation = Expectation({"one": 1, "two": 1})
    for truth in (0.3, 0.4, 0.6, 0.9):
        oracle = SampleRatioMismatch((0.5, 0.5), 0.001, concentration=11)
        state, decision = oracle.initial_state(), None
        answers = Counter[str]()
        while decision is None:
            assert not off(expectation, seen(**answers))
            hit = draw.random() < truth
            answers["one" if hit else "two"] += 1
            state, output = oracle.step(state, {"arm": 0 if hit else 1})
            decision = output.decision
        assert off(expectation, seen(**answers)) == ["one", "two"]


@given(case=cases(), errors=st.sampled_from([0, 0, 30]))
def test_more_of_the_same_is_decided_when_it_is_said_to_be(
    case: tuple[Expectation, Counts], errors: int
) -> None:
    """Measurements that repeat these counts come to a verdict from that number on."""
    expectation, counts = case
    counts = seen(errors, counts.mixed, **counts.answers)
    enough = would_decide(expectation, counts)
    if judge(expectation, counts) is not Verdict.INCONCLUSIVE:
        assert enough == counts.total
    elif enough is not None:
        assert enough > counts.total
        often = ceil(enough / counts.total)
        assert judge(expectation, times(counts, often)) is not Verdict.INCONCLUSIVE
        for fewer in {1, often // 2, often - 1} - {0}:
            assert judge(expectation, times(counts, fewer)) is Verdict.INCONCLUSIVE
    else:
        assert judge(expectation, times(counts, 10_000)) is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("counts", "needed"),
    [
        (seen(one=780, two=220), range(3000, 5000)),
        (seen(one=800, two=200), range(1001, 1500)),
        (seen(one=800, errors=200), None),  # a dead backend behind --max-errors
        (seen(one=800, two=190, errors=100), None),  # 73 to 83 %: never within 75 to 85
        (seen(one=750, two=250), range(1001, 2000)),
        (seen(), None),
    ],
)
def test_how_many_connections_would_have_done(counts: Counts, needed: range | None) -> None:
    """More help where shares decide, none does where failures keep an interval open."""
    found = would_decide(Expectation({"one": 80, "two": 20}), counts)
    assert found is None if needed is None else found in needed


def test_a_share_on_the_edge_is_never_decided() -> None:
    """Off by exactly the tolerance is no FAIL, and far from a margin of ten points no PASS."""
    expectation = Expectation({"one": 1, "two": 1}, margin=0.1, tolerance=0.0)
    assert would_decide(expectation, seen(one=600, two=400)) is not None
    edge = Expectation({"one": 1, "two": 1}, margin=0.25, tolerance=0.125)
    assert would_decide(edge, seen(one=625, two=375)) is not None
    open_ended = Expectation({"one": 1, "two": 1}, margin=0.125, tolerance=0.0625)
    assert would_decide(open_ended, seen(one=500, two=375, errors=125)) is None


@pytest.mark.parametrize(
    ("weights", "settings"),
    [
        ({"one": 80, "two": 20}, {}),
        ({"one": 50, "two": 50}, {}),
        ({"one": 95, "two": 5}, {}),
        ({"one": 99, "two": 1}, {}),
        ({"one": 97, "two": 3}, {"margin": 0.05}),
        ({"one": 80, "two": 20}, {"margin": 0.03, "alpha": 0.05}),
        ({"one": 80, "two": 20}, {"tolerance": 0.03}),
        ({"one": 96, "two": 4}, {"margin": 0.06, "tolerance": 0.02}),
    ],
)
def test_a_right_split_passes_within_the_connections_that_it_needs(
    weights: dict[str, float], settings: dict[str, float]
) -> None:
    """By scipy's binomial: after that number the counts are a PASS in 99.95 %.

    0.05 % remain undecided at most, and the false alarms, alpha at most, which
    the exact computation of the trial puts at 0.07 to 0.08 % for an alpha of
    0.1 %: together a right split passes in 99.9 %. No more than that is asked
    for: with 5 % fewer the counts are a PASS more rarely. A share that is off by
    the tolerance is right, too.
    """
    expectation = Expectation(weights, **settings)
    needed = connections_needed(expectation)

    def passes(total: int, share: float) -> float:
        spread = ceil(7 * (total * share * (1 - share)) ** 0.5)
        centre = round(share * total)
        return sum(
            float(binom.pmf(hits, total, share))
            for hits in range(max(0, centre - spread), min(total, centre + spread) + 1)
            if judge(expectation, seen(one=hits, two=total - hits)) is Verdict.PASS
        )

    share, tolerance = expectation.shares["one"], expectation.tolerance
    shares = {share - tolerance, share, share + tolerance}
    assert all(passes(needed, given) >= 0.9995 - 1e-9 for given in shares)
    assert any(passes(ceil(0.95 * needed), given) < 0.9995 for given in shares)


def test_three_backends_pass_within_the_connections_that_they_need() -> None:
    """The bound over three tails holds, measured on a coarse margin."""
    expectation = Expectation({"a": 60, "b": 25, "c": 15}, margin=0.1)
    needed = connections_needed(expectation)
    draw = random.Random(3)  # noqa: S311 - a simulation with fixed seeds, no secret
    passed = 0
    for _ in range(1000):
        answers = Counter(draw.choices("abc", [60, 25, 15], k=needed))
        passed += judge(expectation, seen(**answers)) is Verdict.PASS
    assert passed >= 996  # 1 of 2000 may miss it: four are chance still, once in 500


@pytest.mark.parametrize(
    ("weights", "margin", "needed"),
    [
        ({"one": 100}, None, 163),
        ({"one": 100, "two": 0}, None, 163),
        ({"one": 50, "two": 50}, 0.0005, MOST_CONNECTIONS),
        ({"one": 99_999, "two": 1}, None, MOST_CONNECTIONS),
        ({}, None, MOST_CONNECTIONS),
        ({"one": 1, "two": 1}, 0.001, MOST_CONNECTIONS),
    ],
)
def test_connections_needed_at_the_ends(
    weights: dict[str, float], margin: float | None, needed: int
) -> None:
    """Where nothing is drawn the number is exact; where it is out of reach it is the most."""
    assert connections_needed(Expectation(weights, margin=margin)) == needed


def test_a_tolerance_changes_nothing_for_a_backend_alone() -> None:
    """It gets everything or it does not; near the whole, or near nothing, the most are needed."""
    assert connections_needed(Expectation({"one": 1}, tolerance=0.03)) == 163
    for weights in ({"one": 97, "two": 3}, {"one": 3, "two": 97}):
        spread = Expectation(weights, margin=0.05, tolerance=0.03)
        assert connections_needed(spread) == MOST_CONNECTIONS


def judged(expectation: Expectation, truth: Mapping[str, float], seed: int) -> Counts:
    """Draw until there is a verdict, with a look after every connection."""
    draw = random.Random(seed)  # noqa: S311 - a simulation with fixed seeds, no secret
    answers = Counter[str]()
    names, weights = list(truth), list(truth.values())
    while judge(expectation, seen(**answers)) is Verdict.INCONCLUSIVE and answers.total() < 1000:
        answers[draw.choices(names, weights)[0]] += 1
    return seen(**answers)


TWO = {"one": 80.0, "two": 20.0}
THREE = {"one": 60.0, "two": 25.0, "three": 15.0}


@pytest.mark.parametrize(
    ("weights", "truth", "tolerance"),
    [
        (TWO, TWO, 0.0),
        (THREE, THREE, 0.0),
        (TWO, {"one": 77.0, "two": 23.0}, 0.03),
    ],
)
def test_splits_within_the_tolerance_rarely_fail(
    weights: dict[str, float], truth: dict[str, float], tolerance: float
) -> None:
    """False alarms stay under alpha, although every connection is a look."""
    expectation = Expectation(weights, margin=0.1, tolerance=tolerance, alpha=0.1)
    verdicts = [judge(expectation, judged(expectation, truth, seed)) for seed in range(100)]
    # Ten are promised on average at most; nineteen is three deviations more.
    assert verdicts.count(Verdict.FAIL) <= 19
    assert verdicts.count(Verdict.PASS) >= 75


@pytest.mark.parametrize(
    ("weights", "truth"),
    [
        (TWO, {"one": 70.0, "two": 30.0}),
        (TWO, {"one": 90.0, "two": 10.0}),
        (THREE, {"one": 50.0, "two": 35.0, "three": 15.0}),
    ],
)
def test_splits_off_by_the_margin_rarely_pass(
    weights: dict[str, float], truth: dict[str, float]
) -> None:
    """Misses stay under alpha at the very edge of the margin."""
    expectation = Expectation(weights, margin=0.1, alpha=0.1)
    verdicts = [judge(expectation, judged(expectation, truth, seed)) for seed in range(100)]
    assert verdicts.count(Verdict.PASS) <= 19
    assert verdicts.count(Verdict.FAIL) >= 75


@pytest.mark.parametrize(
    ("weights", "fails_after"),
    [((80, 20), 53), ((95, 5), 194), ((99, 1), 960)],
)
def test_a_dead_canary_fails(weights: tuple[int, int], fails_after: int) -> None:
    """All answers from one: never a PASS on the way, and then a FAIL."""
    expectation = Expectation(dict(zip(("one", "two"), weights, strict=True)))
    verdicts = [judge(expectation, seen(one=total)) for total in range(1, fails_after + 1)]
    assert set(verdicts[:-1]) == {Verdict.INCONCLUSIVE}
    assert verdicts[-1] is Verdict.FAIL


@pytest.mark.parametrize("weights", [(99, 1), (95, 5), (97, 3)])
def test_a_dead_canary_does_not_pass_a_margin_that_hides_it(weights: tuple[int, int]) -> None:
    """Where the margin is as wide as the weight, the interval cannot tell; the answers can."""
    expectation = Expectation(dict(zip(("one", "two"), weights, strict=True)), margin=0.05)
    assert judge(expectation, seen(one=5000)) is not Verdict.PASS
    assert judge(expectation, seen(one=100)) is not Verdict.PASS
    assert silent(expectation, seen(one=100)) == ["two"]
    lenient = replaced(expectation, tolerance=0.049)
    assert judge(lenient, seen(one=500)) is Verdict.INCONCLUSIVE


def replaced(expectation: Expectation, *, tolerance: float) -> Expectation:
    """The same with another tolerance."""
    return Expectation(
        expectation.weights,
        margin=expectation.margin,
        tolerance=tolerance,
        alpha=expectation.alpha,
    )


def test_failures_alone_are_no_pass() -> None:
    """A server that resets everybody proves nothing, however wide the margin."""
    expectation = Expectation({"a": 50, "b": 50}, margin=0.5)
    assert judge(expectation, seen(errors=1)) is Verdict.INCONCLUSIVE
    assert judge(expectation, seen(errors=5000)) is Verdict.INCONCLUSIVE
    assert interval(expectation, seen(errors=5000), "a") == (0, 1)


def test_a_balancer_that_rounds_needs_a_tolerance() -> None:
    """77.6 % for 80 %: with 5 points a matter of luck, with 3 points of tolerance a PASS."""
    counts = seen(one=7760, two=2240)
    assert judge(Expectation(TWO, margin=0.03), counts) is Verdict.FAIL
    assert judge(Expectation(TWO, tolerance=0.03), seen(one=776, two=224)) is Verdict.INCONCLUSIVE
    assert judge(Expectation(TWO, tolerance=0.03), counts) is Verdict.PASS


def test_a_single_backend_passes_after_163() -> None:
    """With a weight of 100 the interval's lower end must come up to 95 %."""
    assert judge(Expectation({"one": 100}), seen(one=162)) is Verdict.INCONCLUSIVE
    assert judge(Expectation({"one": 100}), seen(one=163)) is Verdict.PASS


def test_an_answer_from_weight_zero_fails_at_once() -> None:
    """One answer from a backend that should get nothing is proof."""
    expectation = Expectation({"one": 100, "two": 0})
    assert judge(expectation, seen(one=5000, two=1)) is Verdict.FAIL
    assert unexpected(expectation, seen(one=5000, two=1)) == ["two"]
    assert judge(expectation, seen(one=1000)) is Verdict.PASS
    assert silent(expectation, seen(one=1000)) == []


def test_an_unknown_backend_fails_at_once() -> None:
    """An answer from a name that nobody expected is proof, whatever the shares."""
    expectation, counts = Expectation(TWO), seen(one=8000, two=2000, three=1)
    assert judge(expectation, counts) is Verdict.FAIL
    assert unexpected(expectation, counts) == ["three"]
    low, high = interval(expectation, counts, "three")
    assert low < 1 / 10001 < high


def test_a_connection_answered_by_two_fails_at_once() -> None:
    """Balancing by request is not what a TCP route does."""
    expectation, counts = Expectation(TWO), seen(one=8000, two=2000)
    assert judge(expectation, counts) is Verdict.PASS
    assert judge(expectation, replace(counts, mixed=1)) is Verdict.FAIL


def test_errors_widen_the_upper_end_only() -> None:
    """A failed connection may have been meant for anyone."""
    expectation = Expectation({"one": 50, "two": 50})
    clean, failed = seen(one=400, two=600), seen(one=400, two=500, errors=100)
    for name, low_moves in (("one", False), ("two", True)):
        before, after = (interval(expectation, counts, name) for counts in (clean, failed))
        assert (after.low < before.low) is low_moves
        assert (after.high > before.high) is not low_moves


def test_a_dead_backend_cannot_hide_behind_errors() -> None:
    """When all of two's connections fail, the split is not proven."""
    assert judge(Expectation(TWO), seen(one=8000, errors=2000)) is not Verdict.PASS


def test_errors_that_might_all_be_one_backends_forbid_a_pass() -> None:
    """Of three backends the first might have 44 % or 40 %: not proven to be within 5 points."""
    expectation = Expectation({"a": 40, "b": 30, "c": 30})
    failing = seen(a=8000, b=5600, c=5600, errors=800)
    assert judge(expectation, failing) is Verdict.INCONCLUSIVE
    assert judge(expectation, seen(a=8000, b=6000, c=6000)) is Verdict.PASS


def test_three_backends_share_alpha() -> None:
    """The bar is alpha over the backends with weight, from three of them on."""
    two = interval(Expectation({"a": 1, "b": 3}), seen(a=100, b=300), "a")
    idle = interval(Expectation({"a": 1, "b": 3, "z": 0}), seen(a=100, b=300), "a")
    three = interval(Expectation({"a": 1, "b": 2, "c": 1}), seen(a=100, b=200, c=100), "a")
    assert two == idle
    assert three.low < two.low


def test_nothing_counted_proves_nothing() -> None:
    """Without a connection every share is possible."""
    expectation = Expectation(TWO)
    assert judge(expectation, seen()) is Verdict.INCONCLUSIVE
    assert interval(expectation, seen(), "one") == (0, 1)
    assert off(expectation, seen()) == []


def test_nothing_expected_is_never_decided() -> None:
    """Without weights there is no verdict, but there are intervals."""
    expectation, counts = Expectation({}), seen(one=800, two=200)
    assert judge(expectation, counts) is Verdict.INCONCLUSIVE
    assert would_decide(expectation, counts) is None
    low, high = interval(expectation, counts, "one")
    assert 0.7 < low < 0.8 < high < 0.9


@pytest.mark.parametrize(
    ("weights", "margin"),
    [
        ((80, 20), DEFAULT_MARGIN),
        ((95, 5), 0.025),
        ((99, 1), 0.005),
        ((100, 0), DEFAULT_MARGIN),
        ((90, 10), DEFAULT_MARGIN),
    ],
)
def test_the_default_margin_is_half_the_smallest_share(
    weights: tuple[int, int], margin: float
) -> None:
    """5 points at most."""
    expectation = Expectation(dict(zip(("one", "two"), weights, strict=True)))
    assert expectation.margin == pytest.approx(margin)


def test_a_band_is_clipped() -> None:
    """No share is below 0 or above 1."""
    expectation = Expectation({"one": 97, "two": 3}, margin=0.05)
    assert tuple(expectation.band("one")) == pytest.approx((0.92, 1))
    assert tuple(expectation.band("two")) == pytest.approx((0, 0.08))


def test_an_expectation_is_a_value() -> None:
    """It keeps its own weights, travels between processes, and is not changed by accident."""
    weights = {"one": 80.0, "two": 20.0}
    expectation = Expectation(weights)
    weights["one"] = 0
    assert expectation == Expectation({"one": 4, "two": 1})
    assert expectation != Expectation({"one": 4, "two": 1}, tolerance=0.01)
    assert pickle.loads(pickle.dumps(expectation)) == expectation  # noqa: S301 - made here
    with pytest.raises(AttributeError):
        expectation.margin = 0.5  # type: ignore[misc] # that it cannot be done is the test


@pytest.mark.parametrize(
    ("named", "weights", "settings"),
    [
        ("expect", {"one": -1.0}, {}),
        ("expect", {"one": float("nan")}, {}),
        ("expect", {"one": inf}, {}),
        ("expect", {"one": 0.0}, {}),
        ("expect", {"one": 1e308, "two": 1e308}, {}),
        ("expect", {"one": 1.0, "two": 1e-10}, {}),
        ("margin", {"one": 1.0}, {"margin": 0.0}),
        ("margin", {"one": 1.0}, {"margin": 1.0}),
        ("tolerance", {"one": 1.0}, {"tolerance": -0.01}),
        ("tolerance", {"one": 1.0}, {"tolerance": 0.05}),
        ("tolerance", {"one": 1.0}, {"tolerance": float("nan")}),
        ("tolerance", {"one": 99.0, "two": 1.0}, {"tolerance": 0.01}),
        ("alpha", {"one": 1.0}, {"alpha": 0.0}),
        ("alpha", {"one": 1.0}, {"alpha": float("nan")}),
    ],
)
def test_settings_that_cannot_work_are_refused(
    named: str, weights: dict[str, float], settings: dict[str, float]
) -> None:
    """Each is refused by its name."""
    with pytest.raises(ConfigError) as refused:
        Expectation(weights, **settings)
    assert refused.value.field == named
