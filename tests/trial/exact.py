"""The chances of every verdict, computed instead of measured.

Runs by the hundred cannot measure a chance of 0.001. With two backends they
need not: all that matters after n connections is how many the first answered,
so the distribution over the undecided counts is carried from one connection to
the next, and what the judge decides leaves it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

from trio_echo.prober.counts import Counts, Outcome
from trio_echo.prober.split import Expectation, Verdict, connections_needed, judge

__all__ = ["QUESTIONS", "Chances", "Question", "chances"]


_NEVER = 1e-20
"""Counts less likely than this are not followed but taken for FAIL, which the sum
does not show; as ever smaller numbers they would make the processor crawl."""


_REST = 1e-12
"""What may be left undecided without looking further."""


class Chances(NamedTuple):
    """How a probe ends, before a balancer that draws independently.

    Attributes:
        passes: P(PASS).
        fails: P(FAIL).
        connections: the median of how many it takes.
    """

    passes: float
    fails: float
    connections: int

    @property
    def undecided(self) -> float:
        """P(INCONCLUSIVE)."""
        return 1 - self.passes - self.fails


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a probe is asked with its defaults, and what the balancer does.

    Attributes:
        asked: the weight of the first of two backends in percent.
        given: the percentage that it really gets.
        tolerance: how far off is fine.
    """

    asked: float
    given: float
    tolerance: float = 0.0

    @property
    def expectation(self) -> Expectation:
        """What the probe is told."""
        weights = {"one": self.asked, "two": 100 - self.asked}
        return Expectation(weights, tolerance=self.tolerance)

    @property
    def wrong(self) -> Verdict | None:
        """The verdict that must not be likelier than alpha; None where nothing is promised."""
        expectation = self.expectation
        off = abs(self.given - self.asked) / 100
        rounding = 1e-9
        if off <= expectation.tolerance + rounding:
            return Verdict.FAIL
        return Verdict.PASS if off >= expectation.margin - rounding else None

    def answer(self) -> Chances:
        """How the probe ends, with the number of connections that it takes by default."""
        expectation = self.expectation
        return chances(expectation, self.given / 100, connections_needed(expectation))

    def broken_by(self, found: Chances) -> bool:
        """Whether the wrong verdict is likelier than promised."""
        chance = {Verdict.PASS: found.passes, Verdict.FAIL: found.fails}
        return self.wrong is not None and chance[self.wrong] > self.expectation.alpha


QUESTIONS = (
    *(Question(asked=80, given=given) for given in (80, 75, 85, 77, 70, 50, 20, 100)),
    *(Question(asked=95, given=given) for given in (95, 92.5, 97.5, 90, 100)),
    *(Question(asked=99, given=given) for given in (99, 98.5, 99.5, 100)),
    *(Question(asked=80, given=given, tolerance=0.03) for given in (80, 77.6, 77, 75, 85)),
)
"""Right, off by the margin to either side, further off, and the second backend dead."""


class _Judge:
    """The verdict on any counts of two backends."""

    def __init__(self, expectation: Expectation) -> None:
        self._expectation = expectation
        self._first, self._second = expectation.shares
        self.share = expectation.shares[self._first]
        self._counts = Counts(answers=Counter(), outcomes=Counter())

    def says(self, verdict: Verdict, hits: int, total: int) -> bool:
        """Whether `hits` of `total` for the first backend come to this verdict."""
        self._counts.answers[self._first] = hits
        self._counts.answers[self._second] = total - hits
        self._counts.outcomes[Outcome.OK] = total
        return judge(self._expectation, self._counts) is verdict


def chances(expectation: Expectation, truth: float, budget: int) -> Chances:
    """Follow every possible sequence of connections.

    The counts that FAIL are the lowest and the highest at every n, those that
    PASS lie around the expected one, since the evidence is convex in the
    share: only the edges of these ranges need asking. Right to `_REST`.

    Args:
        expectation: of two backends.
        truth: the share that the first backend really has.
        budget: connections after which the probe gives up.
    """
    judged = _Judge(expectation)
    passes = fails = 0.0
    middle = budget
    low, alive = 0, [1.0]
    for total in range(1, budget + 1):
        stays = [chance * (1 - truth) for chance in alive]
        alive = [0.0, *(chance * truth for chance in alive)]
        for place, chance in enumerate(stays):
            alive[place] += chance
        while alive and (0 < alive[0] < _NEVER or judged.says(Verdict.FAIL, low, total)):
            fails += alive.pop(0)
            low += 1
        while alive and (
            0 < alive[-1] < _NEVER or judged.says(Verdict.FAIL, low + len(alive) - 1, total)
        ):
            fails += alive.pop()
        centre = round(judged.share * total)
        for hits, step in ((centre, 1), (centre - 1, -1)):
            # What passed before is empty by now and need not be asked again.
            while 0 <= hits - low < len(alive) and (
                not alive[hits - low] or judged.says(Verdict.PASS, hits, total)
            ):
                passes += alive[hits - low]
                alive[hits - low] = 0.0
                hits += step  # noqa: PLW2901 - it walks outwards from where the loop put it
        if middle == budget and passes + fails >= 0.5:
            middle = total
        if passes + fails > 1 - _REST:
            break
    return Chances(passes, fails, middle)
