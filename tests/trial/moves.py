"""How soon a change of the split is seen, and how rarely one is seen that is none.

Beside the detector of ``watch``: what one would build otherwise, a z-test on
every window of so many connections, at the same rate of false alarms.
"""

from __future__ import annotations

import random
from math import ceil, comb, sqrt
from statistics import fmean, median, stdev
from typing import TYPE_CHECKING, NamedTuple

from trio_echo.monitor.change import FALSE_ALARMS, Detector
from trio_echo.prober.split import Expectation

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "MOVES",
    "PROMISES",
    "WINDOWS",
    "Delays",
    "Lengths",
    "delays",
    "lengths",
    "rejected_from",
]

SHARE = 0.8
"""The share that is expected of the first of two backends."""

MOVES = {
    "75/25": 0.75,
    "70/30": 0.7,
    "50/50": 0.5,
    "20/80: swapped": 0.2,
    "100/0: the canary is dead": 1.0,
    "0/100: the canary gets all": 0.0,
}
"""The share after the change, by its name."""

WINDOWS = (50, 200, 1000)

PROMISES = (100, 1000)
"""Connections to a false alarm, on average at least; a million takes too long to measure."""

_BEFORE = 300
"""Connections as expected before the change."""

_PATIENCE = 100_000
"""Connections after which a change counts as not seen."""


class Delays(NamedTuple):
    """How many connections after a change it was seen, medians; None where it mostly was not.

    Attributes:
        name: what the split changed to.
        detector: until the alarm of the detector.
        off: by how many connections its moment of the change was off.
        windows: until a z-test on a window of each size refused.
    """

    name: str
    detector: float | None
    off: float
    windows: tuple[float | None, ...]


class Lengths(NamedTuple):
    """How many connections it took to a false alarm.

    Attributes:
        promised: on average at least.
        mean: measured.
        error: its standard error.
    """

    promised: int
    mean: float
    error: float

    @property
    def broken(self) -> bool:
        """Whether the promise was broken beyond chance."""
        return self.mean + 4 * self.error < self.promised


def lengths(promised: int, runs: int) -> Lengths:
    """Measure how long the detector runs while nothing changes."""
    expectation = Expectation({"one": SHARE, "two": 1 - SHARE})
    found = []
    for seed in range(runs):
        detector = Detector(expectation, false_alarms=1 / promised)
        answers = _answers(SHARE, seed)
        while not detector.add(next(answers)):
            pass
        found.append(detector.connections)
    return Lengths(promised, fmean(found), stdev(found) / sqrt(runs))


def delays(name: str, runs: int) -> Delays:
    """Measure how soon one change is seen."""
    seen, off = [], []
    for seed in range(runs):
        detector = Detector(Expectation({"one": SHARE, "two": 1 - SHARE}))
        before, after = _answers(SHARE, seed), _answers(MOVES[name], runs + seed)
        for _ in range(_BEFORE):
            detector.add(next(before))
        while not (change := detector.add(next(after))):
            pass
        seen.append(change.seen - _BEFORE)
        off.append(abs(change.at - _BEFORE - 1))
    windows = tuple(
        _median([_window_delay(size, MOVES[name], seed) for seed in range(runs)])
        for size in WINDOWS
    )
    return Delays(name, median(seen), median(off), windows)


def rejected_from(size: int, false_alarms: float = FALSE_ALARMS) -> int:
    """How far off the expected count a window must be, at this many false alarms per connection.

    Exact: the normal approximation that usually stands behind a z-test would
    give more false alarms than it says.
    """
    chances = [
        comb(size, hits) * SHARE**hits * (1 - SHARE) ** (size - hits) for hits in range(size + 1)
    ]
    expected = SHARE * size
    off = 0
    while sum(p for hits, p in enumerate(chances) if abs(hits - expected) >= off) > (
        size * false_alarms
    ):
        off += 1
    return off


def _window_delay(size: int, share: float, seed: int) -> int | None:
    """Connections after a change, anywhere in a window, until a window is refused."""
    draw = random.Random(seed)  # noqa: S311 - a simulation with fixed seeds, no secret
    enough = rejected_from(size)
    unchanged = draw.randrange(size)
    hits = sum(draw.random() < SHARE for _ in range(unchanged))
    after = size - unchanged
    hits += sum(draw.random() < share for _ in range(after))
    while abs(hits - SHARE * size) < enough:
        if after > _PATIENCE:
            return None
        hits = sum(draw.random() < share for _ in range(size))
        after += size
    return after


def _median(found: list[int | None]) -> float | None:
    """The median, where at least half of them are numbers."""
    numbers = sorted(number for number in found if number is not None)
    middle = ceil(len(found) / 2)
    return numbers[middle - 1] if len(numbers) >= middle else None


def _answers(share: float, seed: int) -> Iterator[str]:
    """Independent draws without end."""
    draw = random.Random(seed)  # noqa: S311 - a simulation with fixed seeds, no secret
    while True:
        yield "one" if draw.random() < share else "two"
