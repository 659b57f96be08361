"""Reports made without a network, for those who read, write or merge them."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from trio_echo.prober.config import ProbeConfig
from trio_echo.prober.counts import Outcome, Result
from trio_echo.prober.order import Point
from trio_echo.prober.schedule import Tally
from trio_echo.prober.words import Report, Run

if TYPE_CHECKING:
    from collections.abc import Iterable

    from trio_echo.prober.counts import Counts
    from trio_echo.prober.split import Expectation

__all__ = ["drawn", "made", "ok", "summed"]


def ok(name: str, *, mixed: bool = False) -> Result:
    """A connection that `name` answered, after a time of its own."""
    return Result(Outcome.OK, name, mixed, connect=0.001, answer=0.001 * (1 + len(name)))


def made(results: Iterable[Result | str], *, run: str = "run", **settings: Any) -> Report:
    """The report of connections that ended so, in launch order; a string is who answered."""
    settings = {"target": "echo.test:9000", **settings}
    tally = Tally(ProbeConfig(**settings), run)
    tally.address = "127.0.0.1:9000"
    for index, result in enumerate(results):
        tally.launched += 1
        tally.ended += 1
        tally.take(index, ok(result) if isinstance(result, str) else result)
    tally.finish(1.5)
    return tally.report()


def drawn(weights: dict[str, float], count: int, seed: int) -> list[str]:
    """Independent draws by weight."""
    draw = random.Random(seed)  # noqa: S311 - a simulation with fixed seeds, no secret
    return draw.choices(list(weights), list(weights.values()), k=count)


def summed(
    counts: Counts, expectation: Expectation, *, tag: str = "run", **settings: Any
) -> Report:
    """The report of one run that came to these counts, in whatever order."""
    run = Run(
        tag=tag,
        target="echo.test:9000",
        address="127.0.0.1:9000",
        began="2026-08-01T12:00:00.000+00:00",
        elapsed=1.5,
        counts=counts,
        examples={},
        points=[Point(counts.total, counts.errors, dict(counts.answers))],
        changes=None,
        notices=(),
        **{"error_limit": None, "interrupted": False, **settings},
    )
    return Report(expectation, (run,))
