"""The chances of every verdict, computed instead of measured.

Runs by the hundred cannot measure a chance of 0.001. With two backends they
need not: all that matters after n connections is how many the first answered,
so the distribution over the undecided counts is carried from one connection to
the next, and what the judge decides leaves it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from trio_echo.prober import Verdict

if TYPE_CHECKING:
    from trio_echo.prober.split import Split

__all__ = ["Chances", "chances"]


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


class _Judge:
    """The verdict on any counts of two backends."""

    def __init__(self, split: Split) -> None:
        self._split = split
        self._first, self._second = split.shares
        self.share = split.shares[self._first]

    def says(self, verdict: Verdict, hits: int, total: int) -> bool:
        """Whether `hits` of `total` for the first backend come to this verdict."""
        self._split.counts[self._first] = hits
        self._split.counts[self._second] = total - hits
        return self._split.verdict() is verdict


def chances(split: Split, truth: float, budget: int) -> Chances:
    """Follow every possible sequence of connections.

    The counts that FAIL are the lowest and the highest at every n, those that
    PASS lie around the expected one, since the evidence is convex in the
    share: only the edges of these ranges need asking. Right to `_REST`.

    Args:
        split: of two backends, with nothing counted.
        truth: the share that the first backend really has.
        budget: connections after which the probe gives up.
    """
    judge = _Judge(split)
    passes = fails = 0.0
    middle = budget
    low, alive = 0, [1.0]
    for total in range(1, budget + 1):
        stays = [chance * (1 - truth) for chance in alive]
        alive = [0.0, *(chance * truth for chance in alive)]
        for place, chance in enumerate(stays):
            alive[place] += chance
        while alive and (0 < alive[0] < _NEVER or judge.says(Verdict.FAIL, low, total)):
            fails += alive.pop(0)
            low += 1
        while alive and (
            0 < alive[-1] < _NEVER or judge.says(Verdict.FAIL, low + len(alive) - 1, total)
        ):
            fails += alive.pop()
        centre = round(judge.share * total)
        for hits, step in ((centre, 1), (centre - 1, -1)):
            # What passed before is empty by now and need not be asked again.
            while 0 <= hits - low < len(alive) and (
                not alive[hits - low] or judge.says(Verdict.PASS, hits, total)
            ):
                passes += alive[hits - low]
                alive[hits - low] = 0.0
                hits += step  # noqa: PLW2901 - it walks outwards from where the loop put it
        if middle == budget and passes + fails >= 0.5:
            middle = total
        if passes + fails > 1 - _REST:
            break
    return Chances(passes, fails, middle)
