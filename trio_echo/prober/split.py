"""What counts prove about a split: intervals that may be looked at any time, and the verdict.

Pure functions of an expectation and of counts. Under a correct route the counts
are multinomial. For a backend of share *w*, with *x* answers in *n* connections
and the fixed prior Beta(a, b), a = cw + 1/2, b = c(1-w) + 1/2, c = 10, the
mixture martingale

    E(q) = B(a + x, b + n - x) / B(a, b) / (q^x (1-q)^(n-x))

has expectation 1 at every n when the true share is q. By Ville's inequality
E(q) ever reaches 1/alpha with probability alpha at most, so the shares with
E(q) < 1/alpha are a confidence interval that stays valid however often one
looks and whenever one stops (Lindon and Malek, arXiv 2011.03567). A verdict
that may come at any connection needs exactly this.

log E is convex in q and smallest at the observed share. An edge therefore lies
outside the interval if log E reaches log(1/alpha) there, and no verdict needs
the interval's ends: a look is a few `lgamma` for each backend.

A failed connection might have been meant for any backend. It counts towards *n*,
and towards *x* at the upper end of every interval but not at the lower, so that
a dead backend cannot hide behind failures.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from math import ceil, exp, fsum, inf, isfinite, lgamma, log, log1p
from typing import TYPE_CHECKING, NamedTuple

from trio_echo.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from trio_echo.prober.counts import Counts

__all__ = [
    "DEFAULT_ALPHA",
    "DEFAULT_MARGIN",
    "MOST_CONNECTIONS",
    "Expectation",
    "Interval",
    "Verdict",
    "chance_of",
    "connections_needed",
    "interval",
    "judge",
    "off",
    "silent",
    "unexpected",
    "worst",
    "would_decide",
]

DEFAULT_MARGIN = 0.05
"""The default margin where every share is large enough for it."""

DEFAULT_ALPHA = 0.001
"""The chance of a wrong PASS, and of a wrong FAIL, that is accepted."""

MOST_CONNECTIONS = 50_000
"""`connections_needed` never asks for more."""

_PRIOR_MASS = 10.0
"""How many connections the expectation counts for. More would prove a right
split sooner and a wrong one later; ten costs little of either."""

_BISECTIONS = 60
"""Halvings of an interval of length 1 until a double cannot tell its ends apart."""

_SMALLEST_SHARE = 1e-9
"""A smaller share is a typo: no probe makes enough connections to see it."""

_UNDECIDED = 0.0005
"""The chance that counts of a right split are no PASS after `connections_needed`."""

_FURTHEST = 10**9
"""`would_decide` looks no further: a balancer would take days for as many."""


class Verdict(StrEnum):
    """What a measurement says about the split."""

    PASS = "PASS"  # noqa: S105 - a verdict, no password
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"
    UNMEASURED = "UNMEASURED"


def worst(verdicts: Iterable[Verdict | None]) -> Verdict | None:
    """The verdict on several: FAIL before UNMEASURED, INCONCLUSIVE, none, and PASS."""
    found = set(verdicts)
    order = (Verdict.FAIL, Verdict.UNMEASURED, Verdict.INCONCLUSIVE, None, Verdict.PASS)
    return next(each for each in order if each in found)


class Interval(NamedTuple):
    """A range of shares, each from 0 to 1."""

    low: float
    high: float


@dataclass(frozen=True, slots=True, init=False)
class Expectation:
    """The split that was asked for, and how closely it is to be held.

    Two expectations are equal if they ask for the same shares in the same way,
    whatever the unit of the weights.

    Args:
        weights: of each backend, in any unit; empty if nothing is expected.
        margin: a share that is off by this much or more must not pass. More
            than 0, less than 1. None is 5 points, or half the smallest share
            above 0 if that is less.
        tolerance: a share that is off by this much or less must not fail. 0 or
            more, below the margin.
        alpha: the accepted chance of each kind of wrong verdict. More than 0,
            less than 1.

    Attributes:
        shares: the expected share of each backend, from 0 to 1, summing to 1.
        margin: the margin that holds, the default one included.
        rules: what a look at each backend needs, computed once.
        bar: log E at which a share lies outside its interval.

    Raises:
        ConfigError: names ``expect``, ``margin``, ``tolerance`` or ``alpha``.
    """

    weights: Mapping[str, float] = field(compare=False)
    margin: float
    tolerance: float
    alpha: float
    shares: Mapping[str, float] = field(repr=False)
    rules: tuple[_Rule, ...] = field(repr=False, compare=False)
    bar: float = field(repr=False, compare=False)

    def __init__(
        self,
        weights: Mapping[str, float],
        *,
        margin: float | None = None,
        tolerance: float = 0.0,
        alpha: float = DEFAULT_ALPHA,
    ) -> None:
        shares = shares_of(weights)
        positive = [share for share in shares.values() if share > 0]
        if margin is None:
            margin = min([DEFAULT_MARGIN, *(share / 2 for share in positive)])
        for name, value in (("margin", margin), ("alpha", alpha)):
            if not 0.0 < value < 1.0:
                raise ConfigError(name, f"must be more than 0 and less than 1, got {value:g}")
        if not 0.0 <= tolerance < margin:
            raise ConfigError(
                "tolerance",
                f"must be 0 or more and below the margin, which is {margin:g}, got {tolerance:g}",
            )
        # Of two backends one share is 1 minus the other and their martingales
        # are one and the same; from three on each takes its part of alpha. A
        # weight of 0 takes none: an answer from there is proof, not evidence.
        bar = log((len(positive) if len(positive) > 2 else 1) / alpha)  # noqa: PLR2004 - two, as above
        rules = tuple(_rule(name, share, margin, tolerance) for name, share in shares.items())
        for attribute, found in (
            ("weights", dict(weights)),
            ("margin", margin),
            ("tolerance", tolerance),
            ("alpha", alpha),
            ("shares", shares),
            ("rules", rules),
            ("bar", bar),
        ):
            object.__setattr__(self, attribute, found)

    def band(self, name: str) -> Interval:
        """The shares that lie within the margin of a backend's expected one, in [0, 1]."""
        share = self.shares[name]
        return Interval(max(0.0, share - self.margin), min(1.0, share + self.margin))


def judge(expectation: Expectation, counts: Counts) -> Verdict:
    """What the counts say; INCONCLUSIVE as long as they may go either way.

    PASS: every interval lies strictly within the margin of its share, every
    backend with weight has answered, nobody else has, and no connection was
    answered by two. FAIL: else, an interval lies outside the tolerance, or
    somebody else answered, or two answered one connection. Without weights
    nothing is decided.

    One may look after every connection:
    P(FAIL at any look | every share is off by the tolerance or less) <= alpha,
    P(PASS at any look | some share is off by the margin or more) <= alpha.
    """
    return _verdict(
        expectation, counts.answers, counts.errors, counts.total, foul=_foul(expectation, counts)
    )


def interval(expectation: Expectation, counts: Counts, name: str) -> Interval:
    """The confidence interval of a backend's share at level 1 - alpha, rounded outwards.

    Its lower end counts every failed connection as meant for others, its upper
    end as meant for this backend. A backend that nobody expects has one too,
    from the flat prior Beta(1/2, 1/2).
    """
    total, hits = counts.total, counts.answers.get(name, 0)
    if not total:
        return Interval(0.0, 1.0)
    share = expectation.shares.get(name)
    prior = _Prior.flat() if share is None else _Prior.at(share)
    most = hits + counts.errors
    low = prior.end(0.0, hits, total, expectation.bar) if hits else 0.0
    high = prior.end(1.0, most, total, expectation.bar) if most < total else 1.0
    return Interval(low, high)


def silent(expectation: Expectation, counts: Counts) -> list[str]:
    """The backends with weight that never answered, in the expectation's order."""
    return [
        name for name, share in expectation.shares.items() if share and not counts.answers.get(name)
    ]


def unexpected(expectation: Expectation, counts: Counts) -> list[str]:
    """The backends that answered although none or weight 0 was expected of them."""
    return [
        name for name, hits in counts.answers.items() if hits and not expectation.shares.get(name)
    ]


def off(expectation: Expectation, counts: Counts) -> list[str]:
    """The expected backends whose interval lies outside the tolerance."""
    total, errors, bar = counts.total, counts.errors, expectation.bar
    return [
        rule.name
        for rule in expectation.rules
        if rule.is_off(counts.answers.get(rule.name, 0), errors, total, bar)
    ]


def connections_needed(expectation: Expectation) -> int:
    """How many connections a right split needs to PASS with a chance of 99.9 %.

    The smallest number n after which the counts, looked at once, are a PASS
    with a chance of 99.95 % where every share is off by the tolerance at most;
    the chance of other counts is summed from the binomial tails of the
    backends. A probe that looks at every connection is decided by then at least
    as surely, mostly far earlier. What is left to 99.9 % is for the false
    alarms, of which there are 0.08 % at the default alpha; a larger alpha fails
    more right splits, however many connections there are. The balancer is taken
    to draw independently and no connection to fail.

    Returns:
        at most `MOST_CONNECTIONS`, which it also is if nothing is expected.
    """
    if not expectation.rules:
        return MOST_CONNECTIONS
    return _smallest(
        lambda total: _chance_of_no_pass(expectation, total) <= _UNDECIDED, 0, MOST_CONNECTIONS
    )


def would_decide(expectation: Expectation, counts: Counts) -> int | None:
    """How many connections with these shares of answers and failures come to a verdict.

    None where no number would, such as when failures keep an interval open, or
    when a share lies exactly on an edge. What is decided already needs no more
    than it has.
    """
    total = counts.total
    foul = _foul(expectation, counts)
    if not total:
        return None

    def decides(enough: int) -> bool:
        scale = enough / total
        answers = {name: hits * scale for name, hits in counts.answers.items()}
        verdict = _verdict(expectation, answers, counts.errors * scale, enough, foul=foul)
        return verdict is not Verdict.INCONCLUSIVE

    most = total
    while not decides(most):
        most *= 2
        if most > _FURTHEST:
            return None
    return _smallest(decides, most // 2, most) if most > total else total


def shares_of(weights: Mapping[str, float]) -> dict[str, float]:
    """Turn weights in any unit into shares that sum to 1.

    Raises:
        ConfigError: a weight is negative, not finite, or too small or too large
            beside the others; or all are 0.
    """
    for name, weight in weights.items():
        if not (isfinite(weight) and weight >= 0):
            raise ConfigError("expect", f"{name!r} must have a weight of 0 or more, got {weight:g}")
    try:
        total = fsum(weights.values())
    except OverflowError:
        raise ConfigError("expect", "the weights are too large to be added up") from None
    if weights and not total > 0:
        raise ConfigError("expect", "at least one backend must have a weight above 0")
    for name, weight in weights.items():
        if 0 < weight < _SMALLEST_SHARE * total:
            raise ConfigError(
                "expect", f"{name!r} has a weight too small beside the others, {weight:g}"
            )
    return {name: weight / total for name, weight in weights.items()}


class _Prior(NamedTuple):
    """Beta(hits, misses), the prior of one backend's share."""

    hits: float
    misses: float
    log_beta: float

    @classmethod
    def at(cls, share: float) -> _Prior:
        """The prior with its mass at an expected share."""
        hits, misses = _PRIOR_MASS * share + 0.5, _PRIOR_MASS * (1.0 - share) + 0.5
        return cls(hits, misses, _log_beta(hits, misses))

    @classmethod
    def flat(cls) -> _Prior:
        """The prior of a backend that nobody expected."""
        return cls(0.5, 0.5, _log_beta(0.5, 0.5))

    def log_mixture(self, hits: float, total: float) -> float:
        """The logarithm of B(a + x, b + n - x) / B(a, b), the part of E without a share."""
        return _log_beta(self.hits + hits, self.misses + (total - hits)) - self.log_beta

    def end(self, outside: float, hits: int, total: int, bar: float) -> float:
        """Where log E falls under `bar` on the way from `outside` to the observed share."""
        mixture = self.log_mixture(hits, total)
        inside = hits / total
        for _ in range(_BISECTIONS):
            middle = (outside + inside) / 2
            if _log_e(mixture, _Edge.at(middle), hits, total) >= bar:
                outside = middle
            else:
                inside = middle
        return outside


class _Edge(NamedTuple):
    """A share that counts are held against, with its logarithms."""

    share: float
    log_hit: float
    log_miss: float

    @classmethod
    def at(cls, share: float) -> _Edge:
        """The edge at any number; outside (0, 1) its logarithms are infinite."""
        return cls(
            share,
            log(share) if share > 0.0 else -inf,
            log1p(-share) if share < 1.0 else -inf,
        )


class _Rule(NamedTuple):
    """What one backend's counts are held against, with all that a look needs.

    Attributes:
        low, high: the shares that are off by the margin.
        least, most: the shares that are off by the tolerance.
    """

    name: str
    share: float
    prior: _Prior
    low: _Edge
    high: _Edge
    least: _Edge
    most: _Edge

    def is_within(self, hits: float, errors: float, total: float, bar: float) -> bool:
        """Whether the interval lies strictly within the margin and, with weight, it answered."""
        if self.share and not hits:
            return False
        above = hits + errors
        mixture = self.prior.log_mixture(hits, total)
        return _proves_more(self.low, mixture, hits, total, bar) and _proves_less(
            self.high,
            self.prior.log_mixture(above, total) if errors else mixture,
            above,
            total,
            bar,
        )

    def is_in_excess(self, hits: int, total: int, bar: float) -> bool:
        """Whether `hits`, none failed and no fewer than expected, are not within the margin."""
        return not self.is_within(hits, 0, total, bar)

    def is_off(self, hits: float, errors: float, total: float, bar: float) -> bool:
        """Whether the interval lies outside the tolerance."""
        if hits > self.most.share * total:
            return _proves_more(self.most, self.prior.log_mixture(hits, total), hits, total, bar)
        above = hits + errors
        return above < self.least.share * total and _proves_less(
            self.least, self.prior.log_mixture(above, total), above, total, bar
        )


def _rule(name: str, share: float, margin: float, tolerance: float) -> _Rule:
    """Compute once what every look at this backend needs."""
    return _Rule(
        name,
        share,
        _Prior.at(share),
        low=_Edge.at(share - margin),
        high=_Edge.at(share + margin),
        least=_Edge.at(share - tolerance),
        most=_Edge.at(share + tolerance),
    )


def _proves_more(edge: _Edge, mixture: float, hits: float, total: float, bar: float) -> bool:
    """Whether `hits` of `total` prove a share above the edge; one below 0 needs no proof."""
    return edge.share < 0.0 or (
        hits > edge.share * total and _log_e(mixture, edge, hits, total) >= bar
    )


def _proves_less(edge: _Edge, mixture: float, hits: float, total: float, bar: float) -> bool:
    """Whether `hits` of `total` prove a share below the edge; one above 1 needs no proof."""
    return edge.share > 1.0 or (
        hits < edge.share * total and _log_e(mixture, edge, hits, total) >= bar
    )


def _log_e(mixture: float, edge: _Edge, hits: float, total: float) -> float:
    """The logarithm of E at the edge; infinite where the counts are impossible there."""
    misses = total - hits
    return (
        mixture
        - (hits * edge.log_hit if hits else 0.0)
        - (misses * edge.log_miss if misses else 0.0)
    )


def _log_beta(a: float, b: float) -> float:
    """The logarithm of the beta function."""
    return lgamma(a) + lgamma(b) - lgamma(a + b)


def _foul(expectation: Expectation, counts: Counts) -> bool:
    """Whether something happened that no right split does, however rarely."""
    return bool(counts.mixed or unexpected(expectation, counts))


def _verdict(
    expectation: Expectation,
    answers: Mapping[str, float],
    errors: float,
    total: float,
    *,
    foul: bool,
) -> Verdict:
    """`judge` on counts that need not be whole."""
    rules, bar = expectation.rules, expectation.bar
    if not rules:
        return Verdict.INCONCLUSIVE
    if foul:
        return Verdict.FAIL
    if all(rule.is_within(answers.get(rule.name, 0), errors, total, bar) for rule in rules):
        return Verdict.PASS
    if any(rule.is_off(answers.get(rule.name, 0), errors, total, bar) for rule in rules):
        return Verdict.FAIL
    return Verdict.INCONCLUSIVE


def _chance_of_no_pass(expectation: Expectation, total: int) -> float:
    """A bound on the chance that counts are no PASS after `total`, off by the tolerance at most."""
    bar = expectation.bar
    below, above = [], []
    for rule in expectation.rules:
        # The counts that are within the margin lie around this one, if any do.
        centre = ceil(rule.share * total)
        if not rule.is_within(centre, 0, total, bar):
            return 1.0
        if rule.share:
            fewest = _smallest(partial(rule.is_within, errors=0, total=total, bar=bar), -1, centre)
            excess = partial(rule.is_in_excess, total=total, bar=bar)
            most = _smallest(excess, centre, total + 1) - 1
            # Alone, a backend gets everything: any less would be somebody else's answer.
            off_by = expectation.tolerance if rule.share < 1.0 else 0.0
            least, largest = max(0.0, rule.share - off_by), min(1.0, rule.share + off_by)
            below.append(_binomial_tail(total, least, fewest - 1))
            above.append(_binomial_tail(total, 1.0 - largest, total - most - 1))
    if len(below) == 2:  # noqa: PLR2004 - too few of one of two are too many of the other
        return max(below[0], above[1]) + max(below[1], above[0])
    return sum(below) + sum(above)


def _smallest(holds: Callable[[int], bool], low: int, high: int) -> int:
    """The smallest number above `low` for which `holds` does, as from there on; or `high`."""
    while high - low > 1:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle
    return high


def chance_of(hits: int, total: int, within: Interval) -> float:
    """The chance of so few or so many hits, the greatest for all shares in an interval."""
    few = _binomial_tail(total, within.low, hits)
    return min(few, _binomial_tail(total, 1.0 - within.high, total - hits))


def _binomial_tail(total: int, share: float, most: int) -> float:
    """P(X <= most) for X binomial, as far as `most` is below the mean; else 1."""
    if most < 0 or share >= 1.0:
        return 0.0
    if most >= share * total:
        return 1.0
    term = exp(
        lgamma(total + 1)
        - lgamma(most + 1)
        - lgamma(total - most + 1)
        + most * log(share)
        + (total - most) * log1p(-share)
    )
    tail = 0.0
    odds = (1.0 - share) / share
    for hits in range(most, -1, -1):
        tail += term
        term *= odds * hits / (total - hits + 1)
        if term < tail * 1e-9:
            break
    return tail
