"""When did the split change? A detector that is right for ever, in memory that does not grow.

Pure. For a backend of share *w* and a share *q* that it may have instead, each
answer has a likelihood ratio L: q/w if this backend gave it, (1-q)/(1-w) if
another did. The Shiryaev-Roberts sum

    R <- (R + 1) L

adds up the evidence for a change to *q* over every moment at which it may have
happened. While the share is *w*, L is 1 on average, so R grows by 1 for each
connection on average, and so does the mean of such sums over several *q* and
all backends. R less the number of connections is a martingale; by optional
stopping the mean of the sums takes at least 1/a connections on average to reach
1/a. That is an e-detector (Shin, Ramdas and Rinaldo, arXiv 2203.03532): at
a = 1e-6, one false alarm in a million connections on average at most.

The alternatives *q* lie m, 2m, 4m and so on above and below *w*, the last one
at 1 and at 0, where m is the margin. A change to any share is thus at most a
factor of two from one of them.

Where only a range is known in which *w* lies, the ratio is taken against the
end of the range that is nearer to *q*. L is then 1 on average at that end, and
less anywhere else in the range, since its mean is linear in the share: the
promise holds for every share in the range. So a tolerance is such a range, and
so is what was learned from answers where nothing is expected. What is learned
later is narrower, but may hold answers from after a change; the sums against
what was learned earlier therefore go on beside it. They join the mean with 0,
which takes nothing from the promise.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from trio_echo.prober.counts import Counts, Outcome
from trio_echo.prober.split import Expectation, Interval, interval

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["FALSE_ALARMS", "LEARNED", "Change", "Detector"]

FALSE_ALARMS = 1e-6
"""False alarms for each connection, on average at most."""

LEARNED = 1024
"""Connections after which an expectation that nobody gave is taken for known: a
backend that never answered before is then a change by itself."""

_FIRST = 64
"""Connections from which ranges are learned first, so that a large change soon after
a start or an alarm is seen."""

_AGAIN = 4
"""Ranges are learned anew whenever there are so many times as many connections."""

_LEARNING = Expectation({})
"""Its intervals have the flat prior: nothing is expected."""


class Change(NamedTuple):
    """The split has changed.

    Attributes:
        backend: whose share changed most clearly.
        at: the number of the first connection after the change, by all
            likelihood; the first connection of all is number 1.
        seen: the number of the connection that gave the alarm.
        before: answers by backend from the last alarm, or from the start, until
            the change.
        after: answers by backend from the change until the alarm.
    """

    backend: str
    at: int
    seen: int
    before: Mapping[str, int]
    after: Mapping[str, int]

    @property
    def names(self) -> list[str]:
        """All backends that answered before or after, in the order of their appearance."""
        return [name for name in self.before if self.before[name] or self.after.get(name)] + [
            name for name in self.after if self.after[name] and name not in self.before
        ]

    def shares(self, name: str) -> tuple[float, float]:
        """The share of a backend before and after; 0 where nothing was counted."""
        before, after = (
            counted.get(name, 0) / (sum(counted.values()) or 1)
            for counted in (self.before, self.after)
        )
        return before, after

    def intervals(self, name: str) -> tuple[Interval, Interval]:
        """Where the true shares lay before and after, at a level of 99.9 %.

        The moment of the change is itself an estimate, the one that tells
        before and after apart best; the intervals take it as given.
        """
        before, after = (
            interval(_LEARNING, _counts(counted), name) for counted in (self.before, self.after)
        )
        return before, after


class _Sum:
    """The evidence for one backend's change to one share, over all moments.

    Attributes:
        backend: its name.
        hit: L if this backend answers.
        miss: L if another one does.
        total: R, the Shiryaev-Roberts sum.
        best: the largest product of L over all moments from which it may start.
        start: how many connections came before that moment.
        earlier: answers of each backend until that moment, in the detector's order.
    """

    __slots__ = ("backend", "best", "earlier", "hit", "miss", "start", "total")

    def __init__(
        self, backend: str, known: float, share: float, start: int, earlier: tuple[int, ...]
    ) -> None:
        self.backend = backend
        self.hit = share / known
        self.miss = (1.0 - share) / (1.0 - known)
        self.total = 0.0
        self.best = 1.0
        self.start = start
        self.earlier = earlier


class Detector:
    """Takes the answers one by one, and says when the split has changed.

    After a change it watches for the next one from there: it learns the new
    shares from the answers that follow, as it does from the start if nothing
    is expected.

    Args:
        expectation: the split to watch; its tolerance is no change. None, or
            one without weights, learns it.
        false_alarms: for each connection, on average at most.

    Attributes:
        connections: how many were taken.
        false_alarms: for each connection, on average at most.
        ranges: where the share of each backend lies as long as nothing has
            changed; empty while too little is known.
    """

    def __init__(
        self, expectation: Expectation | None = None, *, false_alarms: float = FALSE_ALARMS
    ) -> None:
        self.connections = 0
        self.ranges: dict[str, Interval] = {}
        self.false_alarms = false_alarms
        self._bar = 1.0 / false_alarms
        self._known: set[str] = set()
        self._begin(0)
        if expectation is not None and expectation.shares:
            self._learn_at = 0
            self._known = {name for name, share in expectation.shares.items() if share}
            tolerance = expectation.tolerance
            self._watch(
                {
                    name: Interval(max(0.0, share - tolerance), min(1.0, share + tolerance))
                    for name, share in expectation.shares.items()
                    if share
                },
                expectation.margin,
            )

    @property
    def evidence(self) -> float:
        """The mean of all sums: an alarm comes at one over the rate of false alarms.

        On average it grows by 1 for each connection as long as nothing changes.
        """
        return sum(one.total for one in self._sums) / (len(self._sums) or 1)

    def add(self, name: str) -> Change | None:
        """Take the backend of the next answered connection.

        Returns:
            The change that this answer is the last proof of.
        """
        self.connections += 1
        earlier = tuple(self._answers.values())
        new = name not in self._known
        self._answers[name] = self._answers.get(name, 0) + 1
        if new:
            if self._watching_names:
                return self._alarm(name, self.connections - 1, earlier)
            self._known.add(name)
        total = 0.0
        before = self.connections - 1
        for one in self._sums:
            ratio = one.hit if one.backend == name else one.miss
            if one.best <= 1.0:
                one.best = ratio
                one.start = before
                one.earlier = earlier
            else:
                one.best *= ratio
            one.total = (one.total + 1.0) * ratio
            total += one.total
        if total >= self._bar * len(self._sums) > 0:
            clearest = max(self._sums, key=lambda one: one.best)
            return self._alarm(clearest.backend, clearest.start, clearest.earlier)
        if self._learn_at and self.connections - self._began == self._learn_at:
            self._learn()
        return None

    @property
    def _watching_names(self) -> bool:
        """Whether an answer from somebody new is a change by itself."""
        return not self._learn_at or self.connections - self._began > LEARNED

    def _begin(self, connections: int) -> None:
        """Start to learn after so many connections."""
        self._began = connections
        self._learn_at = _FIRST
        self._answers: dict[str, int] = dict.fromkeys(self._known, 0)
        self._sums: list[_Sum] = []
        self.ranges = {}

    def _learn(self) -> None:
        """Take the ranges from what was counted since the start or the last alarm."""
        counts = _counts(self._answers)
        self._learn_at *= _AGAIN
        self._watch(
            {name: interval(_LEARNING, counts, name) for name in self._answers},
            # Half: what is to be found begins at the end of a range, not at the share itself.
            Expectation(self._answers).margin / 2,
        )

    def _watch(self, ranges: dict[str, Interval], margin: float) -> None:
        """Sum up evidence for shares outside these ranges too, from here on."""
        self.ranges = ranges
        earlier = tuple(self._answers.values())
        self._sums += [
            _Sum(name, known, share, self.connections, earlier)
            for name, known_range in ranges.items()
            for known, share in _alternatives(known_range, margin)
        ]

    def _alarm(self, backend: str, start: int, earlier: tuple[int, ...]) -> Change:
        """Report a change, and start over."""
        before = Counter(dict(zip(self._answers, earlier, strict=False)))
        after = Counter(self._answers)
        after.subtract(before)
        self._known.add(backend)
        self._begin(self.connections)
        return Change(backend, start + 1, self.connections, before, after)


def _alternatives(known: Interval, margin: float) -> Iterator[tuple[float, float]]:
    """The ends of a range, each with the shares beyond it that are looked for.

    None above a range that ends at 1 or below one that ends at 0.
    """
    for end, limit in ((known.high, 1.0), (known.low, 0.0)):
        step = margin if limit else -margin
        while 0.0 < end < 1.0:
            share = end + step
            step *= 2
            if not 0.0 < share < 1.0:
                yield end, limit
                break
            yield end, share


def _counts(answers: Mapping[str, int]) -> Counts:
    """Answers as counts, none failed."""
    answered = Counter(answers)
    return Counts(answers=answered, outcomes=Counter({Outcome.OK: answered.total()}))
