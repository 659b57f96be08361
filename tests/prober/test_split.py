"""The statistics: against scipy, against simulation, and case by case."""

from __future__ import annotations

import random
from math import inf, log

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.special import betaln, xlog1py, xlogy

from trio_echo.errors import ConfigError
from trio_echo.prober.split import Evidence, Split, Verdict

SHARES = st.floats(0, 1)
COUNTS = st.tuples(st.integers(0, 100_000), st.integers(0, 100_000))


def counted(split: Split, counts: dict[str, int], *, errors: int = 0) -> Split:
    """The split with these counts in place of its own."""
    split.counts.update(counts)
    split.errors = errors
    return split


@given(share=SHARES, asked=SHARES, counts=COUNTS)
def test_evidence_is_the_mixture_martingale(
    share: float, asked: float, counts: tuple[int, int]
) -> None:
    """Log E agrees with its formula computed by scipy."""
    hits, misses = counts
    a, b = 10 * share + 0.5, 10 * (1 - share) + 0.5
    oracle = betaln(a + hits, b + misses) - betaln(a, b) - xlogy(hits, asked)
    oracle -= xlog1py(misses, -asked)
    found = Evidence(share).log_against(asked, hits, hits + misses)
    assert found == pytest.approx(float(oracle), rel=1e-9, abs=1e-6)


@given(share=SHARES)
@example(share=0.0)
@example(share=1.0)
def test_evidence_has_expectation_one(share: float) -> None:
    """Summed over every outcome of a dozen draws, E(q) weighs 1 under q."""
    evidence = Evidence(0.8)
    total = 12
    mean = 0.0
    for hits in range(total + 1):
        # Binomial(n, x) q^x (1-q)^(n-x) E(q), in logarithms; impossible ones weigh nothing.
        against = evidence.log_against(share, hits, total)
        if against == inf:
            continue
        ways = -float(betaln(hits + 1, total - hits + 1)) - log(total + 1)
        chance = ways + float(xlogy(hits, share) + xlog1py(total - hits, -share))
        mean += 2.718281828459045 ** (chance + against)
    if 0 < share < 1:
        assert mean == pytest.approx(1)
    else:
        assert mean <= 1 + 1e-9


@given(
    share=st.floats(0.0001, 0.9999),
    counts=COUNTS.filter(lambda counts: sum(counts) > 0),
    errors=st.integers(0, 50),
    alpha=st.floats(1e-6, 0.5),
)
def test_interval_ends_where_the_evidence_reaches_the_bar(
    share: float, counts: tuple[int, int], errors: int, alpha: float
) -> None:
    """Just outside either end, E is 1/alpha; the observed share lies inside."""
    split = Split({"one": share, "two": 1 - share}, alpha=alpha)
    counted(split, dict(zip(("one", "two"), counts, strict=True)), errors=errors)
    total = split.total
    evidence = Evidence(split.shares["one"])
    low, high = split.interval("one")
    assert low <= counts[0] / total
    assert high >= (counts[0] + errors) / total
    if low > 0:
        assert evidence.log_against(low, counts[0], total) >= log(1 / alpha)
        inside = low + (counts[0] / total - low) * 1e-6
        assert evidence.log_against(inside, counts[0], total) <= log(1 / alpha) + 1e-3
    if high < 1:
        assert evidence.log_against(high, counts[0] + errors, total) >= log(1 / alpha)


@given(
    weights=st.lists(st.floats(0.01, 100), min_size=2, max_size=4),
    counts=st.lists(st.integers(0, 3000), min_size=4, max_size=4),
    errors=st.integers(0, 20),
    margin=st.floats(0.01, 0.5),
)
def test_verdict_is_what_the_shown_intervals_say(
    weights: list[float], counts: list[int], errors: int, margin: float
) -> None:
    """The quick look, without bisection, agrees with the intervals that people see."""
    names = ["a", "b", "c", "d"][: len(weights)]
    split = Split(dict(zip(names, weights, strict=True)), margin=margin)
    counted(split, dict(zip(names, counts, strict=False)), errors=errors)
    intervals = {name: split.interval(name) for name in names}
    tolerances = {name: split.tolerance(name) for name in names}
    slack = 1e-9  # an end of an interval is known to the last bits of a double
    if split.verdict() is Verdict.PASS:
        for name in names:
            assert intervals[name].low >= tolerances[name].low - slack
            assert intervals[name].high <= tolerances[name].high + slack
    elif split.verdict() is Verdict.FAIL:
        assert any(
            not intervals[name].low + slack < split.shares[name] < intervals[name].high - slack
            for name in names
        )
    else:
        assert all(
            intervals[name].low - slack <= split.shares[name] <= intervals[name].high + slack
            for name in names
        )


def judged(expect: dict[str, float], truth: dict[str, float], seed: int, alpha: float) -> Split:
    """Draw until there is a verdict, with a look after every connection."""
    draw = random.Random(seed)  # noqa: S311 - a simulation with fixed seeds, no secret
    split = Split(expect, margin=0.1, alpha=alpha)
    names, weights = list(truth), list(truth.values())
    while split.verdict() is Verdict.INCONCLUSIVE and split.total < 1000:
        split.counts[draw.choices(names, weights)[0]] += 1
    return split


@pytest.mark.parametrize(
    "truth",
    [
        {"one": 80.0, "two": 20.0},
        {"one": 60.0, "two": 25.0, "three": 15.0},
    ],
)
def test_right_splits_rarely_fail(truth: dict[str, float]) -> None:
    """False alarms stay under alpha, although every connection is a look."""
    alpha, runs = 0.1, 100
    verdicts = [judged(truth, truth, seed, alpha).verdict() for seed in range(runs)]
    # Ten are promised on average at most; nineteen is three deviations more.
    assert verdicts.count(Verdict.FAIL) <= 19
    assert verdicts.count(Verdict.PASS) >= 75


@pytest.mark.parametrize(
    ("expect", "truth"),
    [
        ({"one": 80.0, "two": 20.0}, {"one": 70.0, "two": 30.0}),
        ({"one": 80.0, "two": 20.0}, {"one": 90.0, "two": 10.0}),
        ({"one": 60.0, "two": 25.0, "three": 15.0}, {"one": 50.0, "two": 35.0, "three": 15.0}),
    ],
)
def test_splits_off_by_the_margin_rarely_pass(
    expect: dict[str, float], truth: dict[str, float]
) -> None:
    """Misses stay under alpha at the very edge of the tolerance."""
    alpha, runs = 0.1, 100
    verdicts = [judged(expect, truth, seed, alpha).verdict() for seed in range(runs)]
    assert verdicts.count(Verdict.PASS) <= 19
    assert verdicts.count(Verdict.FAIL) >= 75


@pytest.mark.parametrize(
    ("truth", "verdict", "least", "most"),
    [
        ({"one": 80.0, "two": 20.0}, Verdict.PASS, 1000, 2200),
        ({"one": 70.0, "two": 30.0}, Verdict.FAIL, 200, 450),
        ({"one": 50.0, "two": 50.0}, Verdict.FAIL, 30, 50),
        ({"one": 20.0, "two": 80.0}, Verdict.FAIL, 10, 20),
    ],
)
def test_connections_that_a_verdict_takes(
    truth: dict[str, float], verdict: Verdict, least: int, most: int
) -> None:
    """With the default margin and alpha the median is what the README promises."""
    totals = []
    for seed in range(5):
        draw = random.Random(seed)  # noqa: S311 - a simulation with fixed seeds, no secret
        split = Split({"one": 80, "two": 20})
        while split.verdict() is Verdict.INCONCLUSIVE:
            split.counts[draw.choices(list(truth), list(truth.values()))[0]] += 1
        assert split.verdict() is verdict
        totals.append(split.total)
    assert least <= sorted(totals)[2] <= most


def test_all_to_one_fails_after_53() -> None:
    """Expecting 80/20, 52 answers in a row from one are not enough, 53 are."""
    assert counted(Split({"one": 80, "two": 20}), {"one": 52}).verdict() is Verdict.INCONCLUSIVE
    assert counted(Split({"one": 80, "two": 20}), {"one": 53}).verdict() is Verdict.FAIL


def test_single_backend_passes_after_163() -> None:
    """With a weight of 100 the interval's lower end must come up to 95 %."""
    assert counted(Split({"one": 100}), {"one": 162}).verdict() is Verdict.INCONCLUSIVE
    assert counted(Split({"one": 100}), {"one": 163}).verdict() is Verdict.PASS


def test_answer_from_weight_zero_fails_at_once() -> None:
    """One answer from a backend that should get nothing is proof."""
    split = counted(Split({"one": 100, "two": 0}), {"one": 5000, "two": 1})
    assert split.verdict() is Verdict.FAIL
    assert split.unexpected() == ["two"]


def test_weight_zero_passes_when_nothing_came_from_it() -> None:
    """A backend without weight and without answers does not stand in the way."""
    assert counted(Split({"one": 100, "two": 0}), {"one": 1000}).verdict() is Verdict.PASS


def test_unknown_backend_fails_at_once() -> None:
    """An answer from a name that nobody expected is proof, whatever the shares."""
    split = counted(Split({"one": 80, "two": 20}), {"one": 8000, "two": 2000, "three": 1})
    assert split.verdict() is Verdict.FAIL
    assert split.unexpected() == ["three"]
    assert split.interval("three").low < 1 / 10001 < split.interval("three").high


def test_connection_answered_by_two_fails_at_once() -> None:
    """Balancing by request is not what a TCP route does."""
    split = counted(Split({"one": 80, "two": 20}), {"one": 8000, "two": 2000})
    assert split.verdict() is Verdict.PASS
    split.mixed = 1
    assert split.verdict() is Verdict.FAIL


def test_errors_widen_the_upper_end_only() -> None:
    """A failed connection may have been meant for anyone."""
    clean = counted(Split({"one": 50, "two": 50}), {"one": 400, "two": 600})
    failed = counted(Split({"one": 50, "two": 50}), {"one": 400, "two": 500}, errors=100)
    assert failed.interval("one").low == clean.interval("one").low
    assert failed.interval("two").high == clean.interval("two").high
    assert failed.interval("one").high > clean.interval("one").high
    assert failed.interval("two").low < clean.interval("two").low


def test_dead_backend_cannot_hide_behind_errors() -> None:
    """When all of two's connections fail, the split is not proven."""
    split = counted(Split({"one": 80, "two": 20}), {"one": 8000}, errors=2000)
    assert split.verdict() is not Verdict.PASS


def test_errors_that_might_all_be_one_backends_forbid_a_pass() -> None:
    """Of three backends the first might have 44 % or 40 %: not proven to be within 5 points."""
    expect = {"a": 40, "b": 30, "c": 30}
    split = counted(Split(expect), {"a": 8000, "b": 5600, "c": 5600}, errors=800)
    assert split.verdict() is Verdict.INCONCLUSIVE
    assert counted(Split(expect), {"a": 8000, "b": 6000, "c": 6000}).verdict() is Verdict.PASS


def test_three_backends_share_alpha() -> None:
    """The bar is alpha over the backends with weight, from three of them on."""
    two = counted(Split({"a": 1, "b": 3}), {"a": 100, "b": 300})
    idle = counted(Split({"a": 1, "b": 3, "z": 0}), {"a": 100, "b": 300})
    three = counted(Split({"a": 1, "b": 2, "c": 1}), {"a": 100, "b": 200, "c": 100})
    assert two.interval("a") == idle.interval("a")
    assert three.interval("a").low < two.interval("a").low


def test_nothing_counted_proves_nothing() -> None:
    """Without a connection every share is possible."""
    split = Split({"one": 80, "two": 20})
    assert split.verdict() is Verdict.INCONCLUSIVE
    assert split.interval("one") == (0, 1)


def test_nothing_expected_is_never_decided() -> None:
    """Without weights there is no verdict, but there are intervals."""
    split = counted(Split({}), {"one": 800, "two": 200})
    assert split.verdict() is Verdict.INCONCLUSIVE
    low, high = split.interval("one")
    assert 0.7 < low < 0.8 < high < 0.9


def test_tolerance_is_clipped() -> None:
    """No share is below 0 or above 1."""
    split = Split({"one": 97, "two": 3}, margin=0.05)
    assert tuple(split.tolerance("one")) == pytest.approx((0.92, 1))
    assert tuple(split.tolerance("two")) == pytest.approx((0, 0.08))


@pytest.mark.parametrize(
    ("field", "settings"),
    [
        ("expect", {"expect": {"one": -1.0}}),
        ("expect", {"expect": {"one": float("nan")}}),
        ("expect", {"expect": {"one": 0.0}}),
        ("margin", {"expect": {"one": 1.0}, "margin": 0.0}),
        ("margin", {"expect": {"one": 1.0}, "margin": 1.0}),
        ("alpha", {"expect": {"one": 1.0}, "alpha": 0.0}),
        ("alpha", {"expect": {"one": 1.0}, "alpha": float("nan")}),
    ],
)
def test_settings_that_cannot_work_are_refused(field: str, settings: dict[str, object]) -> None:
    """Each is refused by its name."""
    with pytest.raises(ConfigError) as refused:
        Split(**settings)  # type: ignore[arg-type] # the values are what the test is about
    assert refused.value.field == field
