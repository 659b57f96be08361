"""What looking often does to a test that is made for one look, computed.

A right 80/20 is looked at after each connection, by a z-test at 5 % and by the
judge at the same chance. How often has either called it wrong by then?
"""

from __future__ import annotations

from collections import Counter
from math import sqrt
from typing import TYPE_CHECKING, NamedTuple

from trio_echo.prober.counts import Counts, Outcome
from trio_echo.prober.split import Expectation, off

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ALPHA", "LOOKS", "Peeked", "peek"]

SHARE = 0.8
ALPHA = 0.05
"""The chance of a false alarm that each of the tests promises."""

LOOKS = (1, 100, 1000, 10_000)
"""How many connections are looked at, one after another."""

_QUANTILE = 1.959964
"""Of the normal distribution, at 1 - ALPHA/2."""

_FEWEST = 25
"""Connections before which no textbook allows a z-test: five expected of each backend."""


class Peeked(NamedTuple):
    """The chance that a right split was called wrong at one look or another.

    Attributes:
        looks: how many there were.
        fixed: by the z-test.
        always: by the judge.
    """

    looks: int
    fixed: float
    always: float


def peek(looks: int) -> Peeked:
    """Compute the chances for this number of looks, the first at `_FEWEST` connections."""
    counts = Counts(answers=Counter(), outcomes=Counter())
    expectation = Expectation({"one": SHARE, "two": 1 - SHARE}, alpha=ALPHA)

    def judged(hits: int, total: int) -> bool:
        counts.answers["one"], counts.answers["two"] = hits, total - hits
        counts.outcomes[Outcome.OK] = total
        return bool(off(expectation, counts))

    return Peeked(looks, _false_alarms(_z_test, looks), _false_alarms(judged, looks))


def _z_test(hits: int, total: int) -> bool:
    """Whether the count is off by more than chance makes it once in twenty times."""
    return abs(hits - SHARE * total) >= _QUANTILE * sqrt(total * SHARE * (1 - SHARE))


def _false_alarms(refuses: Callable[[int, int], bool], looks: int) -> float:
    """P(a look refuses): the counts that it refuses are the lowest and the highest ones."""
    alarms = 0.0
    low, alive = 0, [1.0]
    for total in range(1, _FEWEST + looks):
        stays = [chance * (1 - SHARE) for chance in alive]
        alive = [0.0, *(chance * SHARE for chance in alive)]
        for place, chance in enumerate(stays):
            alive[place] += chance
        if total < _FEWEST:
            continue
        while refuses(low, total):
            alarms += alive.pop(0)
            low += 1
        while refuses(low + len(alive) - 1, total):
            alarms += alive.pop()
    return alarms
