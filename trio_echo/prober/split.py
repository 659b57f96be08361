"""What counts prove about a split: intervals that may be looked at any time, and the verdict.

Pure statistics, standard library only. Under a correct route the counts are
multinomial. For a backend of share *w*, with *x* answers in *n* connections and
the fixed prior Beta(a, b), a = cw + 1/2, b = c(1-w) + 1/2, c = 10, the mixture
martingale

    E(q) = B(a + x, b + n - x) / B(a, b) / (q^x (1-q)^(n-x))

has expectation 1 at every n when the true share is q. By Ville's inequality
E(q) ever reaches 1/alpha with probability alpha at most, so the shares with
E(q) < 1/alpha are a confidence interval that stays valid however often one
looks and whenever one stops (Lindon and Malek, arXiv 2011.03567). A verdict
that may come at any connection needs exactly this.
"""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from math import inf, isfinite, lgamma, log, log1p
from typing import TYPE_CHECKING, NamedTuple

from trio_echo.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["DEFAULT_ALPHA", "DEFAULT_MARGIN", "Evidence", "Interval", "Split", "Verdict"]

DEFAULT_MARGIN = 0.05
"""How far a share may be off and still pass, as a share of 1."""

DEFAULT_ALPHA = 0.001
"""The chance of a wrong PASS, and of a wrong FAIL, that is accepted."""

_PRIOR_MASS = 10.0
"""How many connections the expectation counts for. More would prove a right
split sooner and a wrong one later; ten costs little of either."""

_BISECTIONS = 60
"""Halvings of an interval of length 1 until a double cannot tell its ends apart."""


class Verdict(StrEnum):
    """What a measurement says about the split."""

    PASS = "PASS"  # noqa: S105 - a verdict, no password
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"
    UNMEASURED = "UNMEASURED"


class Interval(NamedTuple):
    """A range of shares, each from 0 to 1."""

    low: float
    high: float


class Evidence:
    """The mixture martingale of one backend: how strongly counts speak against a share.

    Args:
        share: the expected share, from 0 to 1, where the prior has its mass;
            None for a backend that nobody expected, which gets the flat
            Beta(1/2, 1/2).
    """

    __slots__ = ("_hits", "_log_prior", "_misses")

    def __init__(self, share: float | None) -> None:
        mass = 0.0 if share is None else _PRIOR_MASS
        self._hits = mass * (share or 0.0) + 0.5
        self._misses = mass * (1.0 - (share or 0.0)) + 0.5
        self._log_prior = _log_beta(self._hits, self._misses)

    def log_against(self, share: float, hits: int, total: int) -> float:
        """The logarithm of E(`share`) after `hits` of `total`; convex in `share`.

        It is at most 0 at `hits / total` and grows to both sides. Infinite
        where the counts are impossible.
        """
        misses = total - hits
        if (share <= 0.0 and hits) or (share >= 1.0 and misses):
            return inf
        likelihood = 0.0
        if hits:
            likelihood += hits * log(share)
        if misses:
            likelihood += misses * log1p(-share)
        return _log_beta(self._hits + hits, self._misses + misses) - self._log_prior - likelihood

    def low(self, hits: int, total: int, bar: float) -> float:
        """The lower end of the shares with log E under `bar`, rounded outwards."""
        if not hits:
            return 0.0
        return self._end(0.0, hits, total, bar)

    def high(self, hits: int, total: int, bar: float) -> float:
        """The upper end of the shares with log E under `bar`, rounded outwards."""
        if hits == total:
            return 1.0
        return self._end(1.0, hits, total, bar)

    def _end(self, outside: float, hits: int, total: int, bar: float) -> float:
        """Where log E falls under `bar` on the way from `outside` to the observed share."""
        inside = hits / total
        for _ in range(_BISECTIONS):
            middle = (outside + inside) / 2
            if self.log_against(middle, hits, total) >= bar:
                outside = middle
            else:
                inside = middle
        return outside


class Split:
    """Counts of answers by backend, held against an expectation.

    A look costs a few `lgamma` per backend, so one may look after every
    connection.

    Args:
        expect: the weight of each backend, in any unit; empty for none.
        margin: how far a share may be off and still pass, more than 0, less
            than 1.
        alpha: the chance of each kind of wrong verdict, more than 0, less than 1.

    Attributes:
        shares: the expected share of each backend, from 0 to 1, summing to 1.
        counts: answered connections by backend, expected or not.
        errors: connections that failed. They count towards `total`, and
            towards the upper end of every interval: each might have been
            meant for any backend, so a dead one cannot hide.
        mixed: connections that two or more backends answered.

    Raises:
        ConfigError: the weights, the margin or alpha cannot work.
    """

    def __init__(
        self,
        expect: Mapping[str, float],
        *,
        margin: float = DEFAULT_MARGIN,
        alpha: float = DEFAULT_ALPHA,
    ) -> None:
        for name, value in (("margin", margin), ("alpha", alpha)):
            if not 0.0 < value < 1.0:
                raise ConfigError(name, f"must be more than 0 and less than 1, got {value:g}")
        self.shares = shares_of(expect)
        self.margin = margin
        self.alpha = alpha
        self.counts: Counter[str] = Counter(dict.fromkeys(expect, 0))
        self.errors = 0
        self.mixed = 0
        self._evidence = {name: Evidence(share) for name, share in self.shares.items()}
        # Of two backends one share is 1 minus the other and their martingales
        # are one and the same; from three on each takes its part of alpha. A
        # weight of 0 takes none: an answer from there is proof, not evidence.
        positive = sum(share > 0 for share in self.shares.values())
        self._bar = log((positive if positive > 2 else 1) / alpha)  # noqa: PLR2004 - two, as above

    @property
    def total(self) -> int:
        """How many connections were counted, failed ones included."""
        return self.counts.total() + self.errors

    def verdict(self) -> Verdict:
        """What the counts say by now; INCONCLUSIVE as long as they may go either way.

        P(FAIL at any look | the split is as expected) <= alpha, and
        P(PASS at any look | some share is off by the margin or more) <= alpha.
        """
        if not self.shares:
            return Verdict.INCONCLUSIVE
        if self._all_inside():
            return Verdict.PASS
        if self.mixed or self.unexpected() or self.off():
            return Verdict.FAIL
        return Verdict.INCONCLUSIVE

    def unexpected(self) -> list[str]:
        """The backends that answered although none or weight 0 was expected of them."""
        return [name for name, count in self.counts.items() if count and not self.shares.get(name)]

    def off(self) -> list[str]:
        """The expected backends whose share lies outside its interval."""
        total = self.total
        off = []
        for name, share in self.shares.items():
            hits = self.counts[name]
            most = hits + self.errors
            evidence = self._evidence[name]
            if share * total < hits:
                against = evidence.log_against(share, hits, total)
            elif share * total > most:
                against = evidence.log_against(share, most, total)
            else:
                continue
            if against >= self._bar:
                off.append(name)
        return off

    def interval(self, name: str) -> Interval:
        """The confidence interval of a backend's share at level 1 - alpha.

        Its lower end counts every failed connection as meant for others, its
        upper end as meant for this backend.
        """
        total = self.total
        hits = self.counts[name]
        evidence = self._evidence.get(name) or Evidence(None)
        if not total:
            return Interval(0.0, 1.0)
        return Interval(
            evidence.low(hits, total, self._bar),
            evidence.high(hits + self.errors, total, self._bar),
        )

    def tolerance(self, name: str) -> Interval:
        """The range in which the share of an expected backend passes, clipped to [0, 1]."""
        share = self.shares[name]
        return Interval(max(0.0, share - self.margin), min(1.0, share + self.margin))

    def _all_inside(self) -> bool:
        """Whether every interval lies inside its tolerance and nobody else answered.

        log E is convex in the share, so the interval ends before an edge of the
        tolerance if the edge has log E at the bar; no bisection is needed.
        """
        total = self.total
        if self.mixed or self.unexpected():
            return False
        for name in self.shares:
            hits = self.counts[name]
            most = hits + self.errors
            low, high = self.tolerance(name)
            evidence = self._evidence[name]
            if low > 0.0 and (
                low * total >= hits or evidence.log_against(low, hits, total) < self._bar
            ):
                return False
            if high < 1.0 and (
                high * total <= most or evidence.log_against(high, most, total) < self._bar
            ):
                return False
        return True


def shares_of(expect: Mapping[str, float]) -> dict[str, float]:
    """Turn weights in any unit into shares that sum to 1.

    Raises:
        ConfigError: a weight is negative or not finite, or all are 0.
    """
    for name, weight in expect.items():
        if not (isfinite(weight) and weight >= 0):
            raise ConfigError("expect", f"{name!r} must have a weight of 0 or more, got {weight:g}")
    total = sum(expect.values())
    if expect and not total > 0:
        raise ConfigError("expect", "at least one backend must have a weight above 0")
    return {name: weight / total for name, weight in expect.items()}


def _log_beta(a: float, b: float) -> float:
    """The logarithm of the beta function."""
    return lgamma(a) + lgamma(b) - lgamma(a + b)
